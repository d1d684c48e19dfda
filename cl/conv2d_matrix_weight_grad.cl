// Gradient of a convolution's filter on matrix units (matrix.clh): the matrix product of conv2d_simt_weight_grad.cl,
// [k, pixels] x [pixels, oc] with k = (input block, kh, kw, channel), inputs rounded to PRECISION, sums in float32.
//   x    f32 [n, x_blocks, ih, iw, BI]                          read    first element: pixel (0, 0)
//   dz   f32 [n, oc_blocks, oh, ow, BLOCK]                      read    first element: pixel (0, 0)
//   dw   f32 [parts, oc_blocks, x_blocks, kh, kw, BI, BLOCK]    write   part p has pixels [p * part_px, (p + 1) * part_px)
// Pixels are those of all images in one row; each part adds them in order. A work-group has SK x SO groups of lanes, each of
// which makes TK x TO tiles of 16 values of k x 16 channels. A work-item reads 4 values of k, or channels, of the pixels of a
// word: the tiles in local memory have k and channels as rows, pixels along them.
// check: -DPRECISION=2 -DBI=1 -DSO=1 -DTO=1
// check: -DPRECISION=3 -DSK=2 -DTK=4
#ifndef BI
#define BI BLOCK // input channels in a block: BLOCK, or 1 for a plain image
#endif
#ifndef SK
#define SK 4 // groups of lanes over k
#endif
#ifndef SO
#define SO 2 // and over output channels
#endif
#ifndef TK
#define TK 2 // tiles of a group of lanes over k
#endif
#ifndef TO
#define TO 2 // and over output channels
#endif

#define GROUP (SK * SO * EQ_TILE_LANES) // a multiple of 64: a work-item has the same word of every 4 values
#define VALUES (SK * TK * 16)
#define CHANNELS (SO * TO * 16)
#define WORDS 16                       // of pixels in local memory
#define DEPTH (WORDS * EQ_WORD_VALUES) // pixels
#if BI == 1
#define X_QUADS 1 // work-items side by side in a block: 4 values of k each
#define TAPS 4
#else
#define X_QUADS (BI / 4)
#define TAPS 1
#endif
#define D_QUADS (BLOCK / 4)
#define ITEMS_X (WORDS * VALUES / 4)
#define ITEMS_D (WORDS * CHANNELS / 4)
#define NUM_X ((ITEMS_X + GROUP - 1) / GROUP)
#define NUM_D ((ITEMS_D + GROUP - 1) / GROUP)
#define X_ROW(item) ((item) / (X_QUADS * WORDS) * 4 * X_QUADS + (item) % X_QUADS * 4)
#define X_WORD(item) ((item) / X_QUADS % WORDS)
#define D_ROW(item) ((item) / (D_QUADS * WORDS) * BLOCK + (item) % D_QUADS * 4)
#define D_WORD(item) ((item) / D_QUADS % WORDS)
#define SUMS (SK * SO * 16 * EQ_TILE_PITCH)
#define IN_WORDS ((VALUES + CHANNELS) * EQ_TILE_PITCH)
#define LOCAL_WORDS (SUMS > IN_WORDS ? SUMS : IN_WORDS)

// A pixel of the output.
struct pixel {
    int p, n, y, x;
};

static struct pixel pixel_at(int p, int oh, int ow)
{
    const int row = p / ow, n = row / oh;
    return (struct pixel){ p, n, row - n * oh, p - row * ow };
}

// `step` further.
static struct pixel pixel_plus(struct pixel at, struct pixel step, int oh, int ow)
{
    at.p += step.p;
    at.x += step.x;
    at.y += step.y;
    at.n += step.n;
    if (at.x >= ow) {
        at.x -= ow;
        at.y++;
    }
    if (at.y >= oh) {
        at.y -= oh;
        at.n++;
    }
    return at;
}

// 4 values of the pixels of a word: EQ_WORD_VALUES of them.
static uint4 pack(const float4 *pixels)
{
    const float4 low = pixels[0], high = pixels[EQ_WORD_VALUES - 1];
    return (uint4)(eq_pack(low.x, high.x), eq_pack(low.y, high.y), eq_pack(low.z, high.z), eq_pack(low.w, high.w));
}

static void write_rows(__local uint *tile, int row, int word, uint4 words)
{
    tile += row * EQ_TILE_PITCH + word;
    tile[0] = words.x;
    tile[EQ_TILE_PITCH] = words.y;
    tile[2 * EQ_TILE_PITCH] = words.z;
    tile[3 * EQ_TILE_PITCH] = words.w;
}

// Adds the products of the tiles in local memory to a part's sums.
static void multiply(__local const uint *x_tile, __local const uint *d_tile, int lane, eq_tile_sums *sums)
{
    #pragma unroll
    for (int w = 0; w < WORDS; w += 8) {
        eq_tile_b b[TO];
        #pragma unroll
        for (int o = 0; o < TO; o++)
            b[o] = eq_tile_load_b(d_tile + 16 * o * EQ_TILE_PITCH + w, lane);
        #pragma unroll
        for (int k = 0; k < TK; k++) {
            const eq_tile_a a = eq_tile_load_a(x_tile + 16 * k * EQ_TILE_PITCH + w, lane);
            #pragma unroll
            for (int o = 0; o < TO; o++)
                eq_tile_mma(a, b[o], &sums[k * TO + o]);
        }
    }
}

__kernel EQ_TILE_ATTRIBUTES __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void conv2d_matrix_weight_grad(EQ_IN(float, x), EQ_IN(float, dz), EQ_BUF(float, dw), const int ih, const int iw,
                               const int x_row, const int x_plane, const int x_blocks, const int kh, const int kw,
                               const int stride_h, const int stride_w, const int pad_h, const int pad_w, const int oc_blocks,
                               const int oh, const int ow, const int d_row, const int d_plane, const int num_px,
                               const int part_px)
{
    EQ_IN_PTR(float, x);
    EQ_IN_PTR(float, dz);
    EQ_PTR(float, dw);
    __local uint memory[LOCAL_WORDS] __attribute__((aligned(16)));
    __local uint *x_tile = memory, *d_tile = memory + VALUES * EQ_TILE_PITCH;
    const int item = (int)get_local_id(0), lane = item % EQ_TILE_LANES, part = item / EQ_TILE_LANES;
    const int tile_k = part % SK * TK * 16, tile_oc = part / SK * TO * 16; // first of the lanes' tiles
    const int first_k = (int)get_group_id(0) * VALUES, first_oc = (int)get_group_id(1) * CHANNELS;
    const int first = (int)EQ_GROUP(2) * part_px, end = min(first + part_px, num_px), num_k = x_blocks * kh * kw * BI;

    // what this work-item reads of x: the same k for every pixel
    int tap_y[NUM_X * TAPS], tap_x[NUM_X * TAPS];
    ulong tap_at[NUM_X * TAPS];
    #pragma unroll
    for (int e = 0; e < NUM_X * TAPS; e++) {
        const int k = first_k + X_ROW(item + e / TAPS * GROUP) + e % TAPS, tap = k / BI;
        tap_y[e] = k < num_k ? tap / kw % kh - pad_h : ih + pad_h * 2 + kh; // far outside: reads as zero
        tap_x[e] = tap % kw - pad_w;
        tap_at[e] = (ulong)(tap / (kw * kh)) * x_plane + k % BI;
    }
    const struct pixel step = pixel_at(DEPTH, oh, ow), beside = pixel_at(1, oh, ow);
    struct pixel at_x = pixel_at(first + X_WORD(item) * EQ_WORD_VALUES, oh, ow);
    struct pixel at_d = pixel_at(first + D_WORD(item) * EQ_WORD_VALUES, oh, ow);

    eq_tile_sums sums[TK * TO];
    #pragma unroll
    for (int t = 0; t < TK * TO; t++)
        eq_tile_zero(&sums[t]);
    uint4 x_next[NUM_X], d_next[NUM_D];

    for (int p0 = first - DEPTH; p0 < end; p0 += DEPTH) {
        if (p0 + DEPTH < end) {
            float4 x_value[NUM_X][EQ_WORD_VALUES], d_value[NUM_D][EQ_WORD_VALUES];
            struct pixel px = at_x, pd = at_d;
            #pragma unroll
            for (int v = 0; v < EQ_WORD_VALUES; v++) {
                #pragma unroll
                for (int m = 0; m < NUM_X; m++) {
                    float value[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
                    x_value[m][v] = (float4)(0.0f);
                    #pragma unroll
                    for (int e = 0; e < TAPS; e++) {
                        const int y = px.y * stride_h + tap_y[m * TAPS + e], xi = px.x * stride_w + tap_x[m * TAPS + e];
                        if (px.p < end && y >= 0 && y < ih && xi >= 0 && xi < iw) {
                            const ulong at =
                                (ulong)px.n * x_blocks * x_plane + tap_at[m * TAPS + e] + (ulong)y * x_row + xi * BI;
#if BI == 1
                            value[e] = x[at];
#else
                            x_value[m][v] = EQ_LOAD4(x + at);
#endif
                        }
                    }
                    if (BI == 1)
                        x_value[m][v] = (float4)(value[0], value[1], value[2], value[3]);
                }
                #pragma unroll
                for (int m = 0; m < NUM_D; m++) {
                    const int oc = first_oc + D_ROW(item + m * GROUP);
                    d_value[m][v] = (float4)(0.0f);
                    if (pd.p < end && oc < oc_blocks * BLOCK)
                        d_value[m][v] = EQ_LOAD4(dz + ((ulong)pd.n * oc_blocks + oc / BLOCK) * d_plane + (ulong)pd.y * d_row +
                                                      pd.x * BLOCK + oc % BLOCK);
                }
                px = pixel_plus(px, beside, oh, ow);
                pd = pixel_plus(pd, beside, oh, ow);
            }
            #pragma unroll
            for (int m = 0; m < NUM_X; m++)
                x_next[m] = pack(x_value[m]);
            #pragma unroll
            for (int m = 0; m < NUM_D; m++)
                d_next[m] = pack(d_value[m]);
            at_x = pixel_plus(at_x, step, oh, ow);
            at_d = pixel_plus(at_d, step, oh, ow);
        }
        if (p0 >= first)
            multiply(x_tile + tile_k * EQ_TILE_PITCH, d_tile + tile_oc * EQ_TILE_PITCH, lane, sums);
        barrier(CLK_LOCAL_MEM_FENCE);
        if (p0 + DEPTH < end) {
            #pragma unroll
            for (int m = 0; m < NUM_X; m++)
                if (item + m * GROUP < ITEMS_X)
                    write_rows(x_tile, X_ROW(item + m * GROUP), X_WORD(item), x_next[m]);
            #pragma unroll
            for (int m = 0; m < NUM_D; m++)
                if (item + m * GROUP < ITEMS_D)
                    write_rows(d_tile, D_ROW(item + m * GROUP), D_WORD(item), d_next[m]);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }

    __local float *out = (__local float *)memory + part * 16 * EQ_TILE_PITCH;
    dw += (ulong)EQ_GROUP(2) * oc_blocks * num_k * BLOCK;
    #pragma unroll
    for (int t = 0; t < TK * TO; t++) {
        eq_tile_store(&sums[t], out, lane);
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int i = lane; i < 64; i += EQ_TILE_LANES) {
            const int k = first_k + tile_k + t / TO * 16 + i / 4, oc = first_oc + tile_oc + t % TO * 16 + i % 4 * 4;
            if (k < num_k && oc < oc_blocks * BLOCK)
                EQ_STORE4(*(__local const float4 *)(out + i / 4 * EQ_TILE_PITCH + i % 4 * 4),
                          dw + ((ulong)(oc / BLOCK) * num_k + k) * BLOCK + oc % BLOCK);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}

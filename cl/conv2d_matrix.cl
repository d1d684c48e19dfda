// Convolution on matrix units (matrix.clh): the implicit matrix product of conv2d_simt.cl, [pixels, k] x [k, oc] with
// k = (input block, kh, kw, channel), inputs rounded to PRECISION, sums in float32.
//   x    f32 [n, x_blocks, ih, iw, BI]                     read    first element: pixel (0, 0)
//   w    f32 [oc_blocks, x_blocks, KH, KW, BI, BLOCK]      read
//   bias f32 [oc_blocks, BLOCK]                            read    only where has_bias
//   add  f32 as z                                          read    only where has_add; may be z itself
//   z    f32 [n, oc_blocks, oh, ow, BLOCK]                 write   act(sum + bias + add); pixels z_step, rows z_row apart
// A work-group has SP x SO groups of lanes, each of which makes TP x TO tiles of 16 pixels x 16 channels. The next values of k
// are read into registers while the present ones, rounded, in local memory, are multiplied. Tiles of sums go through the same
// local memory, so that lanes write neighbouring channels.
// check: -DPRECISION=2 -DBI=1 -DKH=7 -DKW=7 -DSO=1 -DTO=1
// check: -DPRECISION=3 -DSP=2 -DKH=3 -DKW=3
#ifndef BI
#define BI BLOCK // input channels in a block: BLOCK, or 1 for a plain image
#endif
#ifndef KH
#define KH 1 // taps of the filter
#endif
#ifndef KW
#define KW 1
#endif
#ifndef SP
#define SP 4 // groups of lanes over pixels
#endif
#ifndef SO
#define SO 2 // and over output channels
#endif
#ifndef TP
#define TP 2 // tiles of a group of lanes over pixels
#endif
#ifndef TO
#define TO 2 // and over output channels
#endif
#ifndef ACT
#define ACT ACT_NONE
#endif

#define GROUP (SP * SO * EQ_TILE_LANES)
#define PIXELS (SP * TP * 16)
#define CHANNELS (SO * TO * 16)
#define WORDS 16                       // of k in local memory
#define DEPTH (WORDS * EQ_WORD_VALUES) // values of k
#define QUADS (DEPTH / 4)
#define QUAD_WORDS (4 / EQ_WORD_VALUES)
#define NUM_X (PIXELS * QUADS / GROUP) // float4s of x that a work-item reads: 4 values of k each
#define ITEMS_W (WORDS * CHANNELS / 4)
#define NUM_W ((ITEMS_W + GROUP - 1) / GROUP) // words of w for 4 channels each
#define SUMS (SP * SO * 16 * EQ_TILE_PITCH)
#define IN_WORDS ((PIXELS + CHANNELS) * EQ_TILE_PITCH)
#define LOCAL_WORDS (SUMS > IN_WORDS ? SUMS : IN_WORDS)

// Where a work-item reads: the image and the input pixel under tap (0, 0).
struct source {
    ulong image;
    int y, x;
};

// Offset of k's value from the pixel under tap (0, 0), or -1 where it lies outside of the image.
static long place_x(const struct source *source, int k, int num_k, int ih, int iw, int x_row, int x_plane)
{
    const int tap = k / BI, y = source->y + tap / KW % KH, x = source->x + tap % KW;
    if (k >= num_k || y < 0 || y >= ih || x < 0 || x >= iw)
        return -1;
    return (long)source->image + (long)(tap / (KW * KH)) * x_plane + (long)y * x_row + x * BI + k % BI;
}

// 4 values from k on.
static float4 read_x(__global const float *x, const struct source *source, int k, int num_k, int ih, int iw, int x_row,
                     int x_plane)
{
#if BI == 1
    float part[4];
    #pragma unroll
    for (int e = 0; e < 4; e++) {
        const long at = place_x(source, k + e, num_k, ih, iw, x_row, x_plane);
        part[e] = at < 0 ? 0.0f : x[at];
    }
    return (float4)(part[0], part[1], part[2], part[3]);
#else
    const long at = place_x(source, k, num_k, ih, iw, x_row, x_plane);
    return at < 0 ? (float4)(0.0f) : EQ_LOAD4(x + at);
#endif
}

// Channels and word of k of a work-item's part of w: neighbours read 4 channels after 4, then one value of k after the other.
#define W_CHANNEL(item) ((item) / (BLOCK / 4 * WORDS) * BLOCK + (item) % (BLOCK / 4) * 4)
#define W_WORD(item) ((item) / (BLOCK / 4) % WORDS)

static float4 read_w(__global const float *w, int k, int num_k, int oc, int oc_blocks)
{
    if (k >= num_k || oc >= oc_blocks * BLOCK)
        return (float4)(0.0f);
    return EQ_LOAD4(w + ((ulong)(oc / BLOCK) * num_k + k) * BLOCK + oc % BLOCK);
}

static uint4 read_words(__global const float *w, int k, int num_k, int oc, int oc_blocks)
{
    const float4 low = read_w(w, k, num_k, oc, oc_blocks);
    const float4 high = EQ_WORD_VALUES == 2 ? read_w(w, k + 1, num_k, oc, oc_blocks) : low;
    return (uint4)(eq_pack(low.x, high.x), eq_pack(low.y, high.y), eq_pack(low.z, high.z), eq_pack(low.w, high.w));
}

__kernel EQ_TILE_ATTRIBUTES __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void conv2d_matrix(EQ_IN(float, x), EQ_IN(float, w), __global const float *bias_base, const ulong bias_at,
                   __global const float *add_base, const ulong add_at, EQ_BUF(float, z),
                   const int num_images, const int ih, const int iw, const int x_row, const int x_plane, const int x_blocks,
                   const int first_y, const int first_x, const int stride_h, const int stride_w, const int oc_blocks,
                   const int oh, const int ow, const int z_row, const int z_step, const int z_plane, const int a_row,
                   const int a_step, const int a_plane, const int has_bias, const int has_add)
{
    EQ_IN_PTR(float, x);
    EQ_IN_PTR(float, w);
    EQ_PTR(float, z);
    __local uint memory[LOCAL_WORDS] __attribute__((aligned(16)));
    __local uint *x_tile = memory, *w_tile = memory + PIXELS * EQ_TILE_PITCH;

    const int item = (int)get_local_id(0), lane = item % EQ_TILE_LANES, part = item / EQ_TILE_LANES;
    const int tile_px = part % SP * TP * 16, tile_oc = part / SP * TO * 16; // first of the lanes' tiles
    const int first_px = (int)EQ_GROUP(0) * PIXELS, first_oc = (int)get_group_id(1) * CHANNELS;
    const int num_px = num_images * oh * ow, num_k = x_blocks * KH * KW * BI;

    struct source source[NUM_X];
    #pragma unroll
    for (int m = 0; m < NUM_X; m++) {
        const int p = first_px + (item + m * GROUP) / QUADS, row = p / ow, n = row / oh;
        source[m].image = (ulong)n * x_blocks * x_plane;
        source[m].y = p < num_px ? (row - n * oh) * stride_h + first_y : ih;
        source[m].x = (p - row * ow) * stride_w + first_x;
    }

    eq_tile_sums sums[TP * TO];
    #pragma unroll
    for (int t = 0; t < TP * TO; t++)
        eq_tile_zero(&sums[t]);
    float4 x_next[NUM_X];
    uint4 w_next[NUM_W];

    for (int k0 = -DEPTH; k0 < num_k; k0 += DEPTH) {
        const int next = k0 + DEPTH;
        if (next < num_k) {
            #pragma unroll
            for (int m = 0; m < NUM_X; m++)
                x_next[m] = read_x(x, &source[m], next + (item + m * GROUP) % QUADS * 4, num_k, ih, iw, x_row, x_plane);
            #pragma unroll
            for (int m = 0; m < NUM_W; m++) {
                const int i = item + m * GROUP;
                if (i < ITEMS_W)
                    w_next[m] = read_words(w, next + W_WORD(i) * EQ_WORD_VALUES, num_k, first_oc + W_CHANNEL(i), oc_blocks);
            }
        }
        if (k0 >= 0) {
            #pragma unroll
            for (int k = 0; k < WORDS; k += 8) {
                eq_tile_b b[TO];
                #pragma unroll
                for (int o = 0; o < TO; o++)
                    b[o] = eq_tile_load_b(w_tile + (tile_oc + 16 * o) * EQ_TILE_PITCH + k, lane);
                #pragma unroll
                for (int p = 0; p < TP; p++) {
                    const eq_tile_a a = eq_tile_load_a(x_tile + (tile_px + 16 * p) * EQ_TILE_PITCH + k, lane);
                    #pragma unroll
                    for (int o = 0; o < TO; o++)
                        eq_tile_mma(a, b[o], &sums[p * TO + o]);
                }
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        if (next < num_k) {
            #pragma unroll
            for (int m = 0; m < NUM_X; m++) {
                const int i = item + m * GROUP;
                const float value[4] = { x_next[m].x, x_next[m].y, x_next[m].z, x_next[m].w };
                #pragma unroll
                for (int e = 0; e < QUAD_WORDS; e++)
                    x_tile[i / QUADS * EQ_TILE_PITCH + i % QUADS * QUAD_WORDS + e] =
                        eq_pack(value[e * EQ_WORD_VALUES], value[e * EQ_WORD_VALUES + EQ_WORD_VALUES - 1]);
            }
            #pragma unroll
            for (int m = 0; m < NUM_W; m++) {
                const int i = item + m * GROUP;
                if (i < ITEMS_W) {
                    __local uint *to = w_tile + W_CHANNEL(i) * EQ_TILE_PITCH + W_WORD(i);
                    to[0] = w_next[m].x;
                    to[EQ_TILE_PITCH] = w_next[m].y;
                    to[2 * EQ_TILE_PITCH] = w_next[m].z;
                    to[3 * EQ_TILE_PITCH] = w_next[m].w;
                }
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }

    __local float *out = (__local float *)memory + part * 16 * EQ_TILE_PITCH;
    #pragma unroll
    for (int t = 0; t < TP * TO; t++) {
        eq_tile_store(&sums[t], out, lane);
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int i = lane; i < 64; i += EQ_TILE_LANES) {
            const int p = first_px + tile_px + t / TO * 16 + i / 4, oc = first_oc + tile_oc + t % TO * 16 + i % 4 * 4;
            const int block = oc / BLOCK;
            if (p >= num_px || block >= oc_blocks)
                continue;
            const int row = p / ow, n = row / oh, yz = row - n * oh, xz = p - row * ow;
            const ulong plane = (ulong)n * oc_blocks + block;
            float4 sum = *(__local const float4 *)(out + i / 4 * EQ_TILE_PITCH + i % 4 * 4);
            if (has_bias)
                sum += EQ_LOAD4(bias_base + bias_at + oc);
            if (has_add)
                sum += EQ_LOAD4(add_base + add_at + plane * a_plane + (ulong)yz * a_row + (ulong)xz * a_step + oc % BLOCK);
            EQ_STORE4(ACT_APPLY(ACT, sum, float4), z + plane * z_plane + (ulong)yz * z_row + (ulong)xz * z_step + oc % BLOCK);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}

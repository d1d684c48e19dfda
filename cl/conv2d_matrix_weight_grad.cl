// Gradient of a convolution's filter on matrix units (matrix.clh): the matrix product of conv2d_simt_weight_grad.cl,
// [k, pixels] x [pixels, oc] with k = (input block, kh, kw, channel), inputs rounded to PRECISION, sums in float32.
//   x    f32 [n, x_blocks, ih, iw, BI]                          read    first element: pixel (0, 0)
//   dz   f32 [n, oc_blocks, oh, ow, BLOCK]                      read    first element: pixel (0, 0)
//   dw   f32 [parts, oc_blocks, x_blocks, kh, kw, BI, BLOCK]    write   part p has pixels [p * part_px, (p + 1) * part_px)
// Pixels are those of all images in one row; each part adds them in order. A work-group has SK x SO groups of lanes, each of
// which makes TK x TO tiles of 16 values of k x 16 channels. A work-item reads 4 values of k, or channels, of the pixels of a
// word: the tiles in local memory have k and channels as rows, pixels along them. Local memory has a step of pixels twice:
// while one is multiplied, the next is read, rounded and written to the other.
// check: -DPRECISION=2 -DBI=1 -DSO=1 -DTO=1
// check: -DPRECISION=3 -DSK=2 -DTK=4
#include "matrix.clh"
#include "conv2d_pixels.clh"

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
#define WORDS EQ_TILE_WORDS            // of pixels in a step
#define DEPTH (WORDS * EQ_WORD_VALUES) // pixels in a step
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
#define HAS_X(item) (ITEMS_X % GROUP == 0 || (item) < ITEMS_X)
#define HAS_D(item) (ITEMS_D % GROUP == 0 || (item) < ITEMS_D)
#define STAGE ((VALUES + CHANNELS) * EQ_TILE_PITCH) // words of a step

// x, dz and the end of the part's pixels.
struct shape {
    int ih, iw, x_row, stride_h, stride_w, oh, ow, d_row, end;
    ulong x_image, d_image;
};

// Where a value of k is, seen from tap (pad_h, pad_w) of its first channel.
struct tap {
    long at;
    int y, x;
};

static bool is_inside(struct tap tap, struct pixel at, const struct shape *shape)
{
    const int y = at.y * shape->stride_h + tap.y, x = at.x * shape->stride_w + tap.x;
    return ((uint)y < (uint)shape->ih) & ((uint)x < (uint)shape->iw) & (at.p < shape->end); // without a branch
}

// 4 values of k of a pixel. Outside of the image, and behind the part's last pixel, x is zero.
static float4 read_x(__global const float *x, const struct tap *tap, struct pixel at, const struct shape *shape)
{
    x += at.n * shape->x_image + (ulong)(at.y * shape->stride_h) * shape->x_row + at.x * shape->stride_w * BI;
#if BI == 1
    float value[4];
    #pragma unroll
    for (int e = 0; e < 4; e++)
        value[e] = is_inside(tap[e], at, shape) ? x[tap[e].at] : 0.0f;
    return (float4)(value[0], value[1], value[2], value[3]);
#else
    return is_inside(*tap, at, shape) ? EQ_LOAD4(x + tap->at) : (float4)(0.0f);
#endif
}

// 4 channels of a pixel, `place` from its first one. Behind the part's last pixel, dz is zero.
static float4 read_d(__global const float *dz, ulong place, struct pixel at, const struct shape *shape)
{
    dz += at.n * shape->d_image + (ulong)at.y * shape->d_row + at.x * BLOCK;
    return at.p < shape->end ? EQ_LOAD4(dz + place) : (float4)(0.0f);
}

// Values of k have rows as columns of sums do, for the same banks.
#define K_ROW(k) ((k) / 16 * 16 + (k) % 16 / 4 * 2 + (k) % 2 + (k) % 4 / 2 * 8)
#define ROW_K(row) ((row) / 16 * 16 + (row) % 8 / 2 * 4 + (row) % 2 + (row) / 8 % 2 * 2)

// 4 rows of a word, the second, third and fourth so far behind the first, from the values of its pixels.
static void write_rows(__local uint *to, int second, int third, int fourth, const float4 *pixels)
{
    const float4 low = pixels[0], high = pixels[EQ_WORD_VALUES - 1];
    to[0] = eq_pack(low.x, high.x);
    to[second * EQ_TILE_PITCH] = eq_pack(low.y, high.y);
    to[third * EQ_TILE_PITCH] = eq_pack(low.z, high.z);
    to[fourth * EQ_TILE_PITCH] = eq_pack(low.w, high.w);
}

// What a work-item reads of a step.
struct step {
    float4 x[NUM_X * EQ_WORD_VALUES], d[NUM_D * EQ_WORD_VALUES];
};

static void write_step(__local uint *stage, int item, const struct step *step)
{
    #pragma unroll
    for (int m = 0; m < NUM_X; m++)
        if (HAS_X(item + m * GROUP))
            write_rows(stage + K_ROW(X_ROW(item + m * GROUP)) * EQ_TILE_PITCH + X_WORD(item), K_ROW(1), K_ROW(2), K_ROW(3),
                       step->x + m * EQ_WORD_VALUES);
    stage += VALUES * EQ_TILE_PITCH;
    #pragma unroll
    for (int m = 0; m < NUM_D; m++)
        if (HAS_D(item + m * GROUP))
            write_rows(stage + EQ_B_ROW(D_ROW(item + m * GROUP)) * EQ_TILE_PITCH + D_WORD(item), EQ_B_ROW(1), EQ_B_ROW(2),
                       EQ_B_ROW(3), step->d + m * EQ_WORD_VALUES);
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
    __local uint memory[2 * STAGE] __attribute__((aligned(16)));
    const int item = (int)get_local_id(0), lane = item % EQ_TILE_LANES, part = item / EQ_TILE_LANES;
    const int tile_k = part % SK * TK * 16, tile_oc = part / SK * TO * 16; // first of the lanes' tiles
    const int first_k = (int)get_group_id(0) * VALUES, first_oc = (int)get_group_id(1) * CHANNELS;
    const int first = (int)EQ_GROUP(2, 1) * part_px, end = min(first + part_px, num_px), num_k = x_blocks * kh * kw * BI;
    const struct shape shape = { ih, iw, x_row, stride_h, stride_w, oh, ow, d_row, end, (ulong)x_blocks * x_plane,
                                 (ulong)oc_blocks * d_plane };

    struct tap taps[NUM_X * TAPS];
    #pragma unroll
    for (int e = 0; e < NUM_X * TAPS; e++) {
        const int k = first_k + X_ROW(item + e / TAPS * GROUP) + e % TAPS, tap = k / BI;
        const int y = tap / kw % kh - pad_h, xi = tap % kw - pad_w;
        taps[e].at = (long)(tap / (kw * kh)) * x_plane + (long)y * x_row + xi * BI + k % BI;
        taps[e].y = k < num_k ? y : ih + pad_h * 2 + kh; // far outside: reads as zero
        taps[e].x = xi;
    }
    ulong d_place[NUM_D]; // channels behind the last block read the last one, and are not written
    #pragma unroll
    for (int m = 0; m < NUM_D; m++) {
        const int oc = first_oc + D_ROW(item + m * GROUP);
        d_place[m] = (ulong)min(oc / BLOCK, oc_blocks - 1) * d_plane + oc % BLOCK;
    }
    const struct pixel far = pixel_at(DEPTH, oh, ow), beside = pixel_at(1, oh, ow);
    struct pixel at_x = pixel_at(first + X_WORD(item) * EQ_WORD_VALUES, oh, ow);
    struct pixel at_d = pixel_at(first + D_WORD(item) * EQ_WORD_VALUES, oh, ow);

    eq_tile_sums sums[TK * TO];
    #pragma unroll
    for (int t = 0; t < TK * TO; t++)
        eq_tile_zero(&sums[t]);
    for (int p0 = first - DEPTH, now = STAGE; p0 < end; p0 += DEPTH, now = STAGE - now) {
        struct step next;
        struct pixel px = at_x, pd = X_QUADS == D_QUADS ? at_x : at_d;
        #pragma unroll
        for (int v = 0; v < EQ_WORD_VALUES; v++) {
            #pragma unroll
            for (int m = 0; m < NUM_X; m++)
                next.x[m * EQ_WORD_VALUES + v] = read_x(x, taps + m * TAPS, px, &shape);
            #pragma unroll
            for (int m = 0; m < NUM_D; m++)
                next.d[m * EQ_WORD_VALUES + v] = read_d(dz, d_place[m], pd, &shape);
            px = pixel_plus(px, beside, oh, ow);
            pd = pixel_plus(pd, beside, oh, ow);
        }
        at_x = pixel_plus(at_x, far, oh, ow);
        at_d = pixel_plus(at_d, far, oh, ow);
        if (p0 >= first)
            multiply(memory + now + tile_k * EQ_TILE_PITCH, memory + now + (VALUES + tile_oc) * EQ_TILE_PITCH, lane, sums);
        write_step(memory + STAGE - now, item, &next);
        barrier(CLK_LOCAL_MEM_FENCE);
    }

    dw += (ulong)EQ_GROUP(2, 1) * oc_blocks * num_k * BLOCK;
    #pragma unroll
    for (int i = 0; i < TK * EQ_ROWS; i++) {
        const int k = first_k + tile_k + i / EQ_ROWS * 16 + ROW_K(EQ_ROW(lane, i % EQ_ROWS));
        #pragma unroll
        for (int j = 0; j < TO * EQ_RUNS; j++) {
            const int oc = first_oc + tile_oc + j / EQ_RUNS * 16 + EQ_COLUMN(lane, j % EQ_RUNS);
            if (k < num_k && oc < oc_blocks * BLOCK)
                EQ_STORE_RUN(eq_tile_run(&sums[i / EQ_ROWS * TO + j / EQ_RUNS], i % EQ_ROWS, j % EQ_RUNS),
                             dw + ((ulong)(oc / BLOCK) * num_k + k) * BLOCK + oc % BLOCK);
        }
    }
}

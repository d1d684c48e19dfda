// Convolution on matrix units (matrix.clh): the implicit matrix product of conv2d_simt.cl, [pixels, k] x [k, oc] with
// k = (input block, kh, kw, channel), x rounded to PRECISION, sums in float32.
//   x    f32 [n, x_blocks, ih, iw, BI]                     read    first element: pixel (0, 0)
//   w    u32 as conv2d_matrix_filter.cl makes it           read
//   bias f32 [oc_blocks, BLOCK]                            read    only where has_bias
//   add  f32 as z                                          read    only where has_add; may be z itself
//   z    f32 [n, oc_blocks, oh, ow, BLOCK]                 write   act(sum + bias + add); pixels z_step, rows z_row apart
// A work-group has SP x SO x SK groups of lanes, each of which makes TP x TO tiles of 16 pixels x 16 channels from one of SK
// shares of k, which are added in their order. Local memory has a step of k twice: while one is multiplied, the next is read,
// rounded and written to the other. Work-groups side by side have the same pixels: what they read is in a cache.
// check: -DPRECISION=2 -DBI=1 -DKH=7 -DKW=7 -DSO=1 -DTO=1
// check: -DPRECISION=3 -DSP=2 -DSK=2 -DKH=3 -DKW=3
#include "matrix.clh"
#include "conv2d_taps.clh"

#ifndef SP
#define SP 4 // groups of lanes over pixels
#endif
#ifndef SO
#define SO 2 // over output channels
#endif
#ifndef SK
#define SK 1 // and over k: WORDS / SK is a multiple of 8
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

#define GROUP (SP * SO * SK * EQ_TILE_LANES)
#define PIXELS (SP * TP * 16)
#define CHANNELS (SO * TO * 16)
#define WORDS EQ_TILE_WORDS            // of k in a step
#define DEPTH (WORDS * EQ_WORD_VALUES) // values of k in a step

// Of x a work-item reads 4 values of k at a time: QUADS in a step of PASSES pixels. X_LANES side by side read a pixel, then
// come the pixels, then the other SIDES of a step. From one quad to the next are QUAD_TAPS.
#if BI == 1
#define X_LANES 1
#define QUAD_TAPS 4
#else
#define X_LANES (BI / 4)
#define QUAD_TAPS 1
#endif
#define ACROSS (PIXELS * X_LANES)
#define PASSES (ACROSS > GROUP ? ACROSS / GROUP : 1)
#define STEP_QUADS (DEPTH / 4 / X_LANES) // of one of X_LANES
#define WANTED_SIDES (ACROSS < GROUP ? GROUP / ACROSS : 1)
#define SIDES (WANTED_SIDES < STEP_QUADS ? WANTED_SIDES : STEP_QUADS)
#define QUADS (STEP_QUADS / SIDES)
#define NUM_X (QUADS * PASSES)
// Pixels side by side are two rows of the tile apart, so that 4 of them lie in different banks.
#define PIXEL_ROW(pixel) ((pixel) / 8 * 8 + (pixel) % 4 * 2 + (pixel) / 4 % 2)
#define ROW_PIXEL(row) ((row) / 8 * 8 + (row) % 2 * 4 + (row) % 8 / 2)

// Of w, 4 words of a channel at a time: the rows of 16 channels, then the next 4 words, then the next 16 channels.
#define QUADS_W (WORDS / 4) // of a row
#define W_ROW(item) ((item) / (16 * QUADS_W) * 16 + (item) % 16)
#define W_QUAD(item) ((item) / 16 % QUADS_W)
#define ITEMS_W (CHANNELS * QUADS_W)
#define NUM_W ((ITEMS_W + GROUP - 1) / GROUP)
#define HAS_W(item) (ITEMS_W % GROUP == 0 || (item) < ITEMS_W)

#define RUNS (TO * EQ_RUNS) // of a row of a group of lanes
#define OWN_PIXEL(lane, i) (tile_px + (i) / EQ_ROWS * 16 + ROW_PIXEL(EQ_ROW(lane, (i) % EQ_ROWS)))
#define OWN_CHANNEL(lane, j) (first_oc + tile_oc + (j) / EQ_RUNS * 16 + EQ_COLUMN(lane, (j) % EQ_RUNS))
#define STAGE ((PIXELS + CHANNELS) * EQ_TILE_PITCH) // words of a step
#define SHARE (SP * SO * TP * TO * 256)             // floats of a share's sums
#define SHARES ((SK - 1) * SHARE)
#define RESULT (SHARES + 4 * PIXELS)                // and the places of pixels
#define LOCAL_WORDS (RESULT > 2 * STAGE ? RESULT : 2 * STAGE)

// 4 values of each pixel; the tap behind them. Outside of the image, and behind the last block, x is zero.
static struct tap read_quads(__global const float *x, const struct source *source, struct tap tap, const struct image *image,
                             float4 *value)
{
#if BI == 1
    float part[PASSES][4];
    #pragma unroll
    for (int u = 0; u < 4; u++) {
        #pragma unroll
        for (int m = 0; m < PASSES; m++)
            part[m][u] = is_inside(source[m], tap, image) ? x[source[m].at + tap_place(tap, 0, image)] : 0.0f;
        tap = tap_plus(tap, 1, 0);
    }
    #pragma unroll
    for (int m = 0; m < PASSES; m++)
        value[m] = (float4)(part[m][0], part[m][1], part[m][2], part[m][3]);
    return tap;
#else
    #pragma unroll
    for (int m = 0; m < PASSES; m++)
        value[m] = is_inside(source[m], tap, image) ? EQ_LOAD4(x + (source[m].at + tap_place(tap, 0, image))) : (float4)(0.0f);
    return tap_plus(tap, 1, 0);
#endif
}

// A step's part of x; the tap that the next one begins with.
static struct tap read_x(__global const float *x, const struct source *source, struct tap tap, const struct image *image,
                         float4 *value)
{
    #pragma unroll
    for (int q = 0; q < QUADS; q++)
        tap = read_quads(x, source, tap, image, value + q * PASSES);
    return tap_plus(tap, (STEP_QUADS - QUADS) * QUAD_TAPS, 0);
}

static void write_x(__local uint *tile, int item, const float4 *value)
{
    if (ACROSS * SIDES < GROUP && item >= ACROSS * SIDES)
        return;
    #pragma unroll
    for (int q = 0; q < QUADS; q++)
        #pragma unroll
        for (int m = 0; m < PASSES; m++) {
            const int pixel = item / X_LANES % PIXELS + m * (GROUP / X_LANES);
            const int quad = (item / ACROSS * QUADS + q) * X_LANES + item % X_LANES;
            const float4 v = value[q * PASSES + m];
            __local uint *to = tile + PIXEL_ROW(pixel) * EQ_TILE_PITCH + quad * (4 / EQ_WORD_VALUES);
#if EQ_WORD_VALUES == 1
            *(__local uint4 *)to = (uint4)(eq_pack(v.x, v.x), eq_pack(v.y, v.y), eq_pack(v.z, v.z), eq_pack(v.w, v.w));
#else
            *(__local uint2 *)to = (uint2)(eq_pack(v.x, v.y), eq_pack(v.z, v.w));
#endif
        }
}

// A step's part of w; quads: those from the step's first one on, behind which w is zero.
static void read_w(__global const uint *w, const ulong *at, int item, int quads, uint4 *value)
{
    #pragma unroll
    for (int m = 0; m < NUM_W; m++) {
        const int i = item + m * GROUP;
        value[m] = HAS_W(i) && W_QUAD(i) < quads ? EQ_LOAD_WORDS(w + at[m]) : (uint4)(0);
    }
}

static void write_w(__local uint *tile, int item, const uint4 *value)
{
    #pragma unroll
    for (int m = 0; m < NUM_W; m++) {
        const int i = item + m * GROUP;
        if (HAS_W(i))
            *(__local uint4 *)(tile + W_ROW(i) * EQ_TILE_PITCH + W_QUAD(i) * 4) = value[m];
    }
}

// Adds the products of a share of a step to its sums.
static void multiply(__local const uint *x_tile, __local const uint *w_tile, int lane, eq_tile_sums *sums)
{
    #pragma unroll
    for (int k = 0; k < WORDS / SK; k += 8) {
        eq_tile_b b[TO];
        #pragma unroll
        for (int o = 0; o < TO; o++)
            b[o] = eq_tile_load_b(w_tile + 16 * o * EQ_TILE_PITCH + k, lane);
        #pragma unroll
        for (int p = 0; p < TP; p++) {
            const eq_tile_a a = eq_tile_load_a(x_tile + 16 * p * EQ_TILE_PITCH + k, lane);
            #pragma unroll
            for (int o = 0; o < TO; o++)
                eq_tile_mma(a, b[o], &sums[p * TO + o]);
        }
    }
}

// Run (r, c) of tile t of a share, which is not the first.
static __local eq_run *share_run(__local uint *memory, int share, int part, int t, int r, int c, int lane)
{
    return (__local eq_run *)(memory + (share - 1) * SHARE) +
           ((((part * TP * TO + t) * EQ_ROWS + r) * EQ_RUNS + c) * EQ_TILE_LANES + lane);
}

static void write_share(__local uint *memory, int share, int part, int lane, const eq_tile_sums *sums)
{
    #pragma unroll
    for (int t = 0; t < TP * TO; t++)
        #pragma unroll
        for (int i = 0; i < EQ_ROWS * EQ_RUNS; i++)
            *share_run(memory, share, part, t, i / EQ_RUNS, i % EQ_RUNS, lane) =
                eq_tile_run(&sums[t], i / EQ_RUNS, i % EQ_RUNS);
}

__kernel EQ_TILE_ATTRIBUTES EQ_GROUP_SIZE(GROUP)
void conv2d_matrix(EQ_IN(float, x), EQ_IN(uint, w), __global const float *bias_base, const ulong bias_at,
                   __global const float *add_base, const ulong add_at, EQ_BUF(float, z),
                   const int num_images, const int ih, const int iw, const int x_row, const int x_plane, const int x_blocks,
                   const int first_y, const int first_x, const int stride_h, const int stride_w, const int oc_blocks,
                   const int oh, const int ow, const int z_row, const int z_step, const int z_plane, const int a_row,
                   const int a_step, const int a_plane, const int has_bias, const int has_add)
{
    EQ_IN_PTR(float, x);
    EQ_IN_PTR(uint, w);
    EQ_PTR(float, z);
    __local uint memory[LOCAL_WORDS] __attribute__((aligned(16)));
    const int item = (int)get_local_id(0), lane = item % EQ_TILE_LANES, part = item / EQ_TILE_LANES % (SP * SO);
    const int share = item / (EQ_TILE_LANES * SP * SO);
    const int tile_px = part % SP * TP * 16, tile_oc = part / SP * TO * 16; // first of the lanes' tiles
    const int groups_oc = (oc_blocks * BLOCK + CHANNELS - 1) / CHANNELS, group = (int)EQ_GROUP(0, GROUP);
    const int first_px = group / groups_oc * PIXELS, first_oc = group % groups_oc * CHANNELS;
    const int num_px = num_images * oh * ow, num_k = x_blocks * KH * KW * BI;
    const int num_quads = (num_k + 4 * EQ_WORD_VALUES - 1) / (4 * EQ_WORD_VALUES);
    const struct image image = { ih, iw, x_row, x_plane, x_blocks };

    // Pixels and channels behind the last ones read the last ones' inputs, and are not written.
    struct source source[PASSES];
    #pragma unroll
    for (int m = 0; m < PASSES; m++) {
        const int p = min(first_px + item / X_LANES % PIXELS + m * (GROUP / X_LANES), num_px - 1), row = p / ow, n = row / oh;
        source[m].y = (row - n * oh) * stride_h + first_y;
        source[m].x = (p - row * ow) * stride_w + first_x;
        source[m].at = (long)n * x_blocks * x_plane + (long)source[m].y * x_row + source[m].x * BI + item % X_LANES * 4;
    }
    ulong w_place[NUM_W];
    #pragma unroll
    for (int m = 0; m < NUM_W; m++) {
        const int i = item + m * GROUP, row = min(first_oc / 16 + W_ROW(i) / 16, (oc_blocks * BLOCK - 1) / 16);
        w_place[m] = ((ulong)row * num_quads + W_QUAD(i)) * 64 + i % 16 * 4;
    }

    eq_tile_sums sums[TP * TO];
    #pragma unroll
    for (int t = 0; t < TP * TO; t++)
        eq_tile_zero(&sums[t]);
    float4 x_next[NUM_X];
    uint4 w_next[NUM_W];
    struct tap tap = { 0, 0, 0 };
    for (int s = SIDES > 1 ? item / ACROSS : 0; s > 0; s--)
        tap = tap_plus(tap, QUADS * QUAD_TAPS, 0);
    tap = read_x(x, source, tap, &image, x_next);
    read_w(w, w_place, item, num_quads, w_next);
    write_x(memory, item, x_next);
    write_w(memory + PIXELS * EQ_TILE_PITCH, item, w_next);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int quads = num_quads, now = 0; quads > 0; now = STAGE - now) {
        __local const uint *from = memory + now + share * (WORDS / SK);
        __local uint *to = memory + STAGE - now;
        tap = read_x(x, source, tap, &image, x_next);
        w += QUADS_W * 64;
        quads -= QUADS_W;
        read_w(w, w_place, item, quads, w_next);
        multiply(from + tile_px * EQ_TILE_PITCH, from + (PIXELS + tile_oc) * EQ_TILE_PITCH, lane, sums);
        write_x(to, item, x_next);
        write_w(to + PIXELS * EQ_TILE_PITCH, item, w_next);
        barrier(CLK_LOCAL_MEM_FENCE);
    }

    const struct view zv = { z_row, z_step, z_plane }, av = { a_row, a_step, a_plane };
    __local ulong *z_place = (__local ulong *)(memory + SHARES), *a_place = z_place + PIXELS;
    for (int i = item; i < PIXELS; i += GROUP) {
        z_place[i] = pixel_place(zv, first_px + i, oh, ow, oc_blocks);
        a_place[i] = pixel_place(av, first_px + i, oh, ow, oc_blocks) + add_at;
    }
    if (SK > 1 && share > 0)
        write_share(memory, share, part, lane, sums);
    barrier(CLK_LOCAL_MEM_FENCE);
    if (SK > 1 && share > 0)
        return;
    // All reads before the first write, behind which none would be moved: z may be `add`.
    eq_run run[TP * EQ_ROWS][RUNS];
    #pragma unroll
    for (int j = 0; j < RUNS; j++) {
        const int oc = OWN_CHANNEL(lane, j);
        const bool is_there = oc < oc_blocks * BLOCK;
        const eq_run bias = has_bias && is_there ? EQ_LOAD_RUN(bias_base + bias_at + oc) : (eq_run)(0.0f);
        #pragma unroll
        for (int i = 0; i < TP * EQ_ROWS; i++) {
            const int t = i / EQ_ROWS * TO + j / EQ_RUNS, r = i % EQ_ROWS, c = j % EQ_RUNS;
            run[i][j] = eq_tile_run(&sums[t], r, c);
            for (int s = 1; s < SK; s++)
                run[i][j] += *share_run(memory, s, part, t, r, c, lane);
            run[i][j] += bias;
        }
        if (has_add)
            #pragma unroll
            for (int i = 0; i < TP * EQ_ROWS; i++) {
                const int px = OWN_PIXEL(lane, i);
                const bool is_added = is_there & (first_px + px < num_px); // without a branch
                run[i][j] += is_added ? EQ_LOAD_RUN(add_base + (a_place[px] + channel_place(av, oc))) : (eq_run)(0.0f);
            }
    }
    #pragma unroll
    for (int i = 0; i < TP * EQ_ROWS; i++) {
        const int px = OWN_PIXEL(lane, i);
        #pragma unroll
        for (int j = 0; j < RUNS; j++) {
            const int oc = OWN_CHANNEL(lane, j);
            if (first_px + px < num_px && oc < oc_blocks * BLOCK)
                EQ_STORE_RUN(ACT_APPLY(ACT, run[i][j], eq_run), z + (z_place[px] + channel_place(zv, oc)));
        }
    }
}

// Convolution for GPUs: an implicit matrix product [oc, k] x [k, pixels] with k = (input block, kh, kw, channel), tiles of both
// in local memory, filters and pixels of all images guarded: no halo is needed. Also computes data gradients, as convolutions
// of dz with transposed filters (conv2d_filter.cl), one launch per parity class of the output pixel; and products of several
// filters, each with an x and a z of its own (dimension 2 of the work-groups), without bias or add.
//   x    f32 [n, x_blocks, ih, iw, BI]                     read    first element: pixel (0, 0)
//   w    f32 [oc_blocks, x_blocks, KH, KW, BI, BLOCK]      read
//   bias f32 [oc_blocks, BLOCK]                            read    only where has_bias
//   add  f32 as z                                          read    only where has_add; may be z itself
//   z    f32 [n, oc_blocks, oh, ow, BLOCK]                 write   act(sum + bias + add); pixels z_step, rows z_row apart
// A work-group makes 4 OQ NTO output channels of NTP PT pixels, a work-item 4 OQ channels of PT pixels. Lanes lie over channels
// first, so that reads of filters, writes of z and, through blocks, reads of x go to neighbouring addresses. The next tiles are
// read into registers while the present ones are multiplied. KS slices of the work-group, each with tiles of its own, take
// every KS-th tile of k; in the end their sums are added, always in the same order.
// check: -DOQ=2 -DKH=3 -DKW=3
// check: -DOQ=2 -DNTO=8 -DNTP=8 -DKS=4
#ifndef BI
#define BI BLOCK // input channels in a block: BLOCK, or 1 for a plain image
#endif
#ifndef KH
#define KH 1 // taps of the filter
#endif
#ifndef KW
#define KW 1
#endif
#ifndef NTO
#define NTO 16 // work-items over output channels: 16, 8 or 4
#endif
#ifndef NTP
#define NTP 16 // work-items over pixels: 16 or 8
#endif
#ifndef PT
#define PT 8 // pixels of a work-item: 8 or 4
#endif
#ifndef OQ
#define OQ 1 // float4s of output channels of a work-item: 1 or 2
#endif
#ifndef KS
#define KS 1 // slices of k: 1, 2 or 4
#endif
#ifndef DEPTH
#define DEPTH 16 // values of k in a tile: 16, or 8 where every work-item then has a float4 of each tile to read
#endif
#ifndef ACT
#define ACT ACT_NONE
#endif

#define LANES (NTO * NTP) // work-items of a slice
#define PIXELS (NTP * PT)
#define QUADS (NTO * OQ) // float4s of output channels
#define NUM_W (DEPTH * QUADS / LANES) // float4s of w that a work-item reads
#if BI == 1
#if LANES >= PIXELS
#define OWN 1 // pixels that a work-item reads
#define K_STEP (LANES / PIXELS)
#else
#define OWN (PIXELS / LANES)
#define K_STEP 1
#endif
#define OWN_PIXEL(lane, m) ((lane) % PIXELS + (m) * LANES)
#define NUM_X (OWN * DEPTH / K_STEP / 4) // float4s of x that a work-item reads
#else
#define OWN (PIXELS * (DEPTH / 4) / LANES)
#define OWN_PIXEL(lane, m) (((lane) + (m) * LANES) / (DEPTH / 4))
#define NUM_X OWN
#endif

// Tiles in float4s: the rows of k after each other, those of pixels moved on after every 4, so that what lanes side by side
// write, 4 rows apart, lies in different banks.
#define X_ROW(k) ((k) * (PIXELS / 4) + (k) / 4 * (32 / DEPTH))
#define TILE (DEPTH * QUADS + X_ROW(DEPTH))
#define SUMS (KS / 2 * LANES * PT * OQ)
#define MEMORY (KS * TILE > SUMS ? KS * TILE : SUMS)

// What a work-item reads of x: a pixel under tap (0, 0), at row y and column x of the image, perhaps outside of it.
struct source {
    long at;
    int y, x;
};

static float4 read_w(__global const float *w, int k, int num_k, int oc, int oc_blocks)
{
    if (k >= num_k || oc >= oc_blocks * BLOCK)
        return (float4)(0.0f);
    return EQ_LOAD4(w + ((ulong)(oc / BLOCK) * num_k + k) * BLOCK + oc % BLOCK);
}

// Where the value of x for (tap, channel) lies, or -1 outside of the image; taps of all blocks are counted on.
static long place_x(const struct source *source, int tap, int channel, int num_taps, int ih, int iw, int x_row, int x_plane)
{
    const int down = tap / KW % KH, right = tap % KW;
    if (tap >= num_taps || (uint)(source->y + down) >= (uint)ih || (uint)(source->x + right) >= (uint)iw)
        return -1;
    return source->at + (long)(tap / (KW * KH)) * x_plane + (down * x_row + right * BI + channel);
}

// A work-item's part of the tile of filters from k0 on.
static void read_filters(__global const float *w, int k0, int num_k, int lane, int first_oc, int oc_blocks, float4 *next)
{
    #pragma unroll
    for (int m = 0; m < NUM_W; m++) {
        const int i = lane + m * LANES;
        next[m] = read_w(w, k0 + i / QUADS, num_k, first_oc + i % QUADS * 4, oc_blocks);
    }
}

// And of the tile of pixels.
static void read_pixels(__global const float *x, const struct source *source, int k0, int num_taps, int lane, int ih, int iw,
                        int x_row, int x_plane, float4 *next)
{
    #pragma unroll
    for (int m = 0; m < NUM_X; m++) {
#if BI == 1
        float part[4];
        #pragma unroll
        for (int e = 0; e < 4; e++) {
            const int item = 4 * m + e, k = k0 + lane / PIXELS + item / OWN * K_STEP;
            const long at = place_x(&source[item % OWN], k, 0, num_taps, ih, iw, x_row, x_plane);
            part[e] = at < 0 ? 0.0f : x[at];
        }
        next[m] = (float4)(part[0], part[1], part[2], part[3]);
#else
        const int channel = lane % (DEPTH / 4) * 4;
#if BI % DEPTH == 0 // a tile has one tap: the same arithmetic for all work-items
        const long at = place_x(&source[m], k0 / BI, k0 % BI + channel, num_taps, ih, iw, x_row, x_plane);
#else
        const int k = k0 + channel;
        const long at = place_x(&source[m], k / BI, k % BI, num_taps, ih, iw, x_row, x_plane);
#endif
        next[m] = at < 0 ? (float4)(0.0f) : EQ_LOAD4(x + at);
#endif
    }
}

static void write_pixels(__local float *values, int lane, const float4 *next)
{
    #pragma unroll
    for (int m = 0; m < NUM_X; m++) {
        const float part[4] = { next[m].x, next[m].y, next[m].z, next[m].w };
        #pragma unroll
        for (int e = 0; e < 4; e++) {
#if BI == 1
            const int item = 4 * m + e, k = lane / PIXELS + item / OWN * K_STEP, p = OWN_PIXEL(lane, item % OWN);
            values[4 * X_ROW(k) + p] = part[e];
#else
            const int row = lane % (DEPTH / 4) * 4;
            values[4 * (X_ROW(row) + e * (PIXELS / 4)) + OWN_PIXEL(lane, m)] = part[e];
#endif
        }
    }
}

// Adds the products of a tile to the sums.
static void multiply(__local const float4 *w_tile, __local const float4 *x_tile, int lane_oc, int lane_px, float4 *acc)
{
    #pragma unroll 4
    for (int k = 0; k < DEPTH; k++) {
        float4 wv[OQ];
        #pragma unroll
        for (int o = 0; o < OQ; o++)
            wv[o] = w_tile[k * QUADS + o * NTO + lane_oc];
        #pragma unroll
        for (int v = 0; v < PT / 4; v++) {
            const float4 xv = x_tile[X_ROW(k) + v * NTP + lane_px];
            #pragma unroll
            for (int o = 0; o < OQ; o++) {
                float4 *sums = acc + (o * PT + 4 * v);
                sums[0] = EQ_MAD((float4)(xv.x), wv[o], sums[0]);
                sums[1] = EQ_MAD((float4)(xv.y), wv[o], sums[1]);
                sums[2] = EQ_MAD((float4)(xv.z), wv[o], sums[2]);
                sums[3] = EQ_MAD((float4)(xv.w), wv[o], sums[3]);
            }
        }
    }
}

// The sums of all slices, to slice 0.
static void add_slices(__local float4 *memory, int slice, int lane, float4 *acc)
{
    for (int reach = KS / 2; reach > 0; reach /= 2) {
        if (slice / reach == 1) {
            #pragma unroll
            for (int t = 0; t < PT * OQ; t++)
                memory[((slice - reach) * PT * OQ + t) * LANES + lane] = acc[t];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        if (slice < reach) {
            #pragma unroll
            for (int t = 0; t < PT * OQ; t++)
                acc[t] += memory[(slice * PT * OQ + t) * LANES + lane];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
}

__kernel __attribute__((reqd_work_group_size(LANES * KS, 1, 1)))
void conv2d_simt(EQ_IN(float, x), EQ_IN(float, w), __global const float *bias_base, const ulong bias_at,
                 __global const float *add_base, const ulong add_at, EQ_BUF(float, z),
                 const int num_images, const int ih, const int iw, const int x_row, const int x_plane, const int x_blocks,
                 const int first_y, const int first_x, const int stride_h, const int stride_w, const int oc_blocks,
                 const int oh, const int ow, const int z_row, const int z_step, const int z_plane, const int a_row,
                 const int a_step, const int a_plane, const int has_bias, const int has_add)
{
    EQ_IN_PTR(float, x);
    EQ_IN_PTR(float, w);
    EQ_PTR(float, z);
    __local float4 memory[MEMORY];

#if KS == 1 // a constant: what follows from k is then the same for all work-items
    const int lane = (int)get_local_id(0), slice = 0;
#else
    const int lane = (int)get_local_id(0) % LANES, slice = (int)get_local_id(0) / LANES;
#endif
    const int lane_oc = lane % NTO, lane_px = lane / NTO;
    const int first_px = (int)EQ_GROUP(0) * PIXELS, first_oc = (int)get_group_id(1) * 4 * QUADS;
    const int num_px = num_images * oh * ow, num_taps = x_blocks * KH * KW, num_k = num_taps * BI;
    const ulong filter = get_global_id(2);
    x += filter * num_images * x_blocks * x_plane;
    w += filter * oc_blocks * num_k * BLOCK;
    z += filter * num_images * oc_blocks * z_plane;
    __local float4 *w_tile = memory + slice * TILE, *x_tile = w_tile + DEPTH * QUADS;

    struct source source[OWN];
    #pragma unroll
    for (int m = 0; m < OWN; m++) {
        const int p = first_px + OWN_PIXEL(lane, m), row = p / ow, n = row / oh;
        source[m].y = p < num_px ? (row - n * oh) * stride_h + first_y : ih;
        source[m].x = (p - row * ow) * stride_w + first_x;
        source[m].at = (long)n * x_blocks * x_plane + (long)source[m].y * x_row + source[m].x * BI;
    }

    float4 acc[PT * OQ], w_next[NUM_W], x_next[NUM_X];
    #pragma unroll
    for (int t = 0; t < PT * OQ; t++)
        acc[t] = (float4)(0.0f);

    for (int first = -DEPTH * KS; first < num_k; first += DEPTH * KS) {
        const int k0 = first + DEPTH * (KS + slice); // of the next tiles
        const bool has_next = first + DEPTH * KS < num_k;
        if (has_next) {
            read_filters(w, k0, num_k, lane, first_oc, oc_blocks, w_next);
            read_pixels(x, source, k0, num_taps, lane, ih, iw, x_row, x_plane, x_next);
        }
        if (first >= 0)
            multiply(w_tile, x_tile, lane_oc, lane_px, acc);
        barrier(CLK_LOCAL_MEM_FENCE);
        if (has_next) {
            #pragma unroll
            for (int m = 0; m < NUM_W; m++)
                w_tile[lane + m * LANES] = w_next[m];
            write_pixels((__local float *)x_tile, lane, x_next);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }

    add_slices(memory, slice, lane, acc);
    if (slice > 0)
        return;

    #pragma unroll
    for (int t = 0; t < PT; t++) {
        const int p = first_px + (t / 4 * NTP + lane_px) * 4 + t % 4;
        if (p >= num_px)
            continue;
        const int row = p / ow, n = row / oh, yz = row - n * oh, xz = p - row * ow;
        #pragma unroll
        for (int o = 0; o < OQ; o++) {
            const int oc = first_oc + (o * NTO + lane_oc) * 4, block = oc / BLOCK;
            if (block >= oc_blocks)
                continue;
            const ulong plane = (ulong)n * oc_blocks + block;
            float4 sum = acc[o * PT + t];
            if (has_bias)
                sum += EQ_LOAD4(bias_base + bias_at + oc);
            if (has_add)
                sum += EQ_LOAD4(add_base + add_at + plane * a_plane + (ulong)yz * a_row + (ulong)xz * a_step + oc % BLOCK);
            EQ_STORE4(ACT_APPLY(ACT, sum, float4), z + plane * z_plane + (ulong)yz * z_row + (ulong)xz * z_step + oc % BLOCK);
        }
    }
}

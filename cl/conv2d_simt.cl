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
// check: -DOQ=2 -DDEPTH=8 -DEQ_REGISTERS
#include "conv2d_taps.clh"

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
#define OWN_CHANNEL(lane) 0
#define OWN_K(lane) ((lane) / PIXELS)
#define NUM_X (OWN * DEPTH / K_STEP / 4) // float4s of x that a work-item reads
#else
#define OWN (PIXELS * (DEPTH / 4) / LANES)
#define OWN_PIXEL(lane, m) (((lane) + (m) * LANES) / (DEPTH / 4))
#if BI % DEPTH == 0 // a tile has one tap: the same arithmetic for all work-items
#define OWN_CHANNEL(lane) ((lane) % (DEPTH / 4) * 4)
#define OWN_K(lane) 0
#else
#define OWN_CHANNEL(lane) 0
#define OWN_K(lane) ((lane) % (DEPTH / 4) * 4)
#endif
#define NUM_X OWN
#endif

// The pixel of a work-item's sum t.
#define OWN_SUM(lane_px, t) (((t) / 4 * NTP + (lane_px)) * 4 + (t) % 4)

// Tiles in float4s: the rows of k after each other, those of pixels moved on after every 4, so that what lanes side by side
// write, 4 rows apart, lies in different banks.
#define X_ROW(k) ((k) * (PIXELS / 4) + (k) / 4 * (32 / DEPTH))
#define TILE (DEPTH * QUADS + X_ROW(DEPTH))
#define SUMS (KS / 2 * LANES * PT * OQ)
#define MEMORY (KS * TILE > SUMS ? KS * TILE : SUMS) // PIXELS or more

// Which of the values of k a work-item reads next.
struct position {
    struct tap tap;
    int channel;
};

static struct position position_at(int k)
{
    const int tap = k / BI;
    return (struct position){ { tap / (KW * KH), tap / KW % KH, tap % KW }, k % BI };
}

// `values` of k further: a constant.
static struct position position_plus(struct position at, int values)
{
    int carry = 0;
    at.channel += values % BI;
    if (values % BI != 0 && at.channel >= BI) {
        at.channel -= BI;
        carry = 1;
    }
    if (KH * KW == 1) // compilers do not see that x and y stay 0 where a carry comes and goes
        at.tap.block += values / BI + carry;
    else
        at.tap = tap_plus(at.tap, values / BI, carry);
    return at;
}

// A work-item's part of the tile of filters; num_k: values of k from its first row on. Its rows are NTP / OQ apart.
static void read_filters(__global const float *w, int num_k, float4 *next)
{
    #pragma unroll
    for (int m = 0; m < NUM_W; m++) {
        const int k = m * (NTP / OQ);
        next[m] = BI % (DEPTH * KS) == 0 || k < num_k ? EQ_LOAD4(w + k * BLOCK) : (float4)(0.0f);
    }
}

// And of the tile of pixels; the position behind it where BI is 1. Outside of the image, and behind the last block, x is zero.
static struct position read_pixels(__global const float *x, const struct source *source, struct position at,
                                   const struct image *image, float4 *next)
{
    #pragma unroll
    for (int m = 0; m < NUM_X; m++) {
#if BI == 1
        float part[4];
        #pragma unroll
        for (int e = 0; e < 4; e++) {
            const struct source *from = &source[(4 * m + e) % OWN];
            part[e] = is_inside(*from, at.tap, image) ? x[from->at + tap_place(at.tap, at.channel, image)] : 0.0f;
            if ((4 * m + e) % OWN == OWN - 1)
                at = position_plus(at, K_STEP);
        }
        next[m] = (float4)(part[0], part[1], part[2], part[3]);
#else
        next[m] = is_inside(source[m], at.tap, image) ? EQ_LOAD4(x + (source[m].at + tap_place(at.tap, at.channel, image)))
                                                      : (float4)(0.0f);
#endif
    }
    return at;
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

// Unrolled whole, NVIDIA's compiler needs the fewest instructions and registers; with slices it would need more registers.
#if KS == 1
#define UNROLL DEPTH
#else
#define UNROLL 4
#endif

// Adds the products of a tile to the sums.
static void multiply(__local const float4 *w_tile, __local const float4 *x_tile, int lane_oc, int lane_px, float4 *acc)
{
    #pragma unroll UNROLL
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

__kernel EQ_GROUP_SIZE(LANES * KS)
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
    const int first_px = (int)EQ_GROUP(0, LANES * KS) * PIXELS, first_oc = (int)get_group_id(1) * 4 * QUADS;
    const int num_px = num_images * oh * ow, num_k = x_blocks * KH * KW * BI;
    const ulong filter = get_global_id(2);
    const struct image image = { ih, iw, x_row, x_plane, x_blocks };
    x += filter * num_images * x_blocks * x_plane;
    w += filter * oc_blocks * num_k * BLOCK;
    z += filter * num_images * oc_blocks * z_plane;
    __local float4 *w_tile = memory + slice * TILE, *x_tile = w_tile + DEPTH * QUADS;

    // Pixels and channels behind the last ones read the last ones' inputs, and are not written.
    struct source source[OWN];
    #pragma unroll
    for (int m = 0; m < OWN; m++) {
        const int p = min(first_px + OWN_PIXEL(lane, m), num_px - 1), row = p / ow, n = row / oh;
        source[m].y = (row - n * oh) * stride_h + first_y;
        source[m].x = (p - row * ow) * stride_w + first_x;
        source[m].at = (long)n * x_blocks * x_plane + (long)source[m].y * x_row + source[m].x * BI + OWN_CHANNEL(lane);
    }
    const int own_k = slice * DEPTH + lane / QUADS, own_oc = min(first_oc + lane % QUADS * 4, oc_blocks * BLOCK - 4);
    w += ((ulong)(own_oc / BLOCK) * num_k + own_k) * BLOCK + own_oc % BLOCK;
    struct position at = position_at(slice * DEPTH + OWN_K(lane));

    float4 acc[PT * OQ], w_next[NUM_W], x_next[NUM_X];
    #pragma unroll
    for (int t = 0; t < PT * OQ; t++)
        acc[t] = (float4)(0.0f);

    for (int k0 = -DEPTH * KS; k0 < num_k; k0 += DEPTH * KS) { // of the present tiles
        const int next_k = k0 + DEPTH * KS;
        if (next_k < num_k) {
            read_filters(w, num_k - next_k - own_k, w_next);
            w += DEPTH * KS * BLOCK;
            at = position_plus(read_pixels(x, source, at, &image, x_next), DEPTH * (BI == 1 ? KS - 1 : KS));
        }
        if (k0 >= 0)
            multiply(w_tile, x_tile, lane_oc, lane_px, acc);
        barrier(CLK_LOCAL_MEM_FENCE);
        if (next_k < num_k) {
            #pragma unroll
            for (int m = 0; m < NUM_W; m++)
                w_tile[lane + m * LANES] = w_next[m];
            write_pixels((__local float *)x_tile, lane, x_next);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }

    add_slices(memory, slice, lane, acc);
    const struct view zv = { z_row, z_step, z_plane }, av = { a_row, a_step, a_plane };
    __local ulong *z_place = (__local ulong *)memory, *a_place = z_place + PIXELS;
    for (int i = (int)get_local_id(0); i < PIXELS; i += LANES * KS) {
        z_place[i] = pixel_place(zv, first_px + i, oh, ow, oc_blocks);
        a_place[i] = pixel_place(av, first_px + i, oh, ow, oc_blocks) + add_at;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    if (slice > 0)
        return;

    // 4 channels at a time, their reads of all pixels before the writes, behind which none would be moved: z may be `add`.
    #pragma unroll
    for (int o = 0; o < OQ; o++) {
        const int oc = first_oc + (o * NTO + lane_oc) * 4;
        if (oc / BLOCK >= oc_blocks)
            continue;
        const float4 bias = has_bias ? EQ_LOAD4(bias_base + bias_at + oc) : (float4)(0.0f);
        #pragma unroll
        for (int t = 0; t < PT; t++)
            acc[o * PT + t] += bias;
        if (has_add)
            #pragma unroll
            for (int t = 0; t < PT; t++) {
                const int px = OWN_SUM(lane_px, t);
                acc[o * PT + t] += first_px + px < num_px ? EQ_LOAD4(add_base + (a_place[px] + channel_place(av, oc)))
                                                          : (float4)(0.0f);
            }
        #pragma unroll
        for (int t = 0; t < PT; t++) {
            const int px = OWN_SUM(lane_px, t);
            if (first_px + px < num_px)
                EQ_STORE4(ACT_APPLY(ACT, acc[o * PT + t], float4), z + (z_place[px] + channel_place(zv, oc)));
        }
    }
}

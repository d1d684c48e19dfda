// Gradient of a convolution's filter, for GPUs: a matrix product [oc, pixels] x [pixels, k] with k = (input block, kh, kw,
// channel), tiles of both in local memory, guards in place of a halo.
//   x    f32 [n, x_blocks, ih, iw, BI]                          read    first element: pixel (0, 0)
//   dz   f32 [n, oc_blocks, oh, ow, BLOCK]                      read    first element: pixel (0, 0)
//   dw   f32 [parts, oc_blocks, x_blocks, kh, kw, BI, BLOCK]    write   part p has pixels [p * part_px, (p + 1) * part_px)
// Pixels are those of all images in one row; each part adds them in order. A work-group makes 4 OQ NTO output channels x 64 KV
// values of k, a work-item 4 OQ x 4 KV. Both tiles have the pixel as row, so they are written and read as float4s without bank
// conflicts. The next tiles are read into registers while the present ones are multiplied.
// check: -DOQ=2 -DNTO=8
#include "conv2d_pixels.clh"

#ifndef BI
#define BI BLOCK // input channels in a block: BLOCK, or 1 for a plain image
#endif
#ifndef NTO
#define NTO 16 // work-items over output channels: 16, 8 or 4
#endif
#ifndef KV
#define KV 2 // float4s of k per work-item: 1 or 2
#endif

#ifndef OQ
#define OQ 1 // float4s of output channels per work-item: 1, or 2 where KV is 2
#endif

#define DEPTH (16 / OQ) // pixels in a tile: a work-item reads one float4 of dz
#define GROUP (NTO * 16)
#define D_QUADS (NTO * OQ)            // float4s of output channels in a tile
#define QUADS (16 * KV)               // float4s of k in a tile
#define NUM_X (DEPTH * QUADS / GROUP) // float4s of x that a work-item reads
#if BI == 1
#define TAPS 4 // of a float4 of k
#else
#define TAPS 1
#endif

__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void conv2d_simt_weight_grad(EQ_IN(float, x), EQ_IN(float, dz), EQ_BUF(float, dw), const int ih, const int iw,
                             const int x_row, const int x_plane, const int x_blocks, const int kh, const int kw,
                             const int stride_h, const int stride_w, const int pad_h, const int pad_w, const int oc_blocks,
                             const int oh, const int ow, const int d_row, const int d_plane, const int num_px,
                             const int part_px)
{
    EQ_IN_PTR(float, x);
    EQ_IN_PTR(float, dz);
    EQ_PTR(float, dw);
    __local float4 d_tile[DEPTH * D_QUADS];
    __local float4 x_tile[DEPTH * QUADS];
    const int lane = (int)get_local_id(0), lane_oc = lane % NTO, lane_k = lane / NTO;
    const int first_k = (int)get_group_id(0) * 4 * QUADS, first_oc = (int)get_group_id(1) * 4 * D_QUADS;
    const int first = (int)EQ_GROUP(2, 1) * part_px, end = min(first + part_px, num_px), num_k = x_blocks * kh * kw * BI;

    // what this work-item reads of x: the same k for every pixel
    int tap_y[TAPS], tap_x[TAPS];
    ulong tap_at[TAPS];
    #pragma unroll
    for (int e = 0; e < TAPS; e++) {
        const int k = first_k + 4 * (lane % QUADS) + e, tap = k / BI;
        tap_y[e] = k < num_k ? tap / kw % kh - pad_h : ih + pad_h * 2 + kh; // far outside: reads as zero
        tap_x[e] = tap % kw - pad_w;
        tap_at[e] = (ulong)(tap / (kw * kh)) * x_plane + k % BI;
    }
    const int d_oc = first_oc + 4 * (lane % D_QUADS);
    __global const float *d_block = dz + (ulong)(d_oc / BLOCK) * d_plane + d_oc % BLOCK;
    const struct pixel step = pixel_at(DEPTH, oh, ow);
    struct pixel at_d = pixel_at(first + lane / D_QUADS, oh, ow), at_x[NUM_X];
    #pragma unroll
    for (int m = 0; m < NUM_X; m++)
        at_x[m] = pixel_at(first + (lane + m * GROUP) / QUADS, oh, ow);

    float4 acc[OQ * 4 * KV], grad, value[NUM_X];
    #pragma unroll
    for (int v = 0; v < OQ * 4 * KV; v++)
        acc[v] = (float4)(0.0f);

    for (int p0 = first - DEPTH; p0 < end; p0 += DEPTH) {
        const bool has_next = p0 + DEPTH < end;
        if (has_next) {
            grad = (float4)(0.0f);
            if (at_d.p < end && d_oc < oc_blocks * BLOCK)
                grad = EQ_LOAD4(d_block + (ulong)at_d.n * oc_blocks * d_plane + (ulong)at_d.y * d_row + at_d.x * BLOCK);
            at_d = pixel_plus(at_d, step, oh, ow);
            #pragma unroll
            for (int m = 0; m < NUM_X; m++) {
                float part[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
                value[m] = (float4)(0.0f);
                #pragma unroll
                for (int e = 0; e < TAPS; e++) {
                    const int y = at_x[m].y * stride_h + tap_y[e], xi = at_x[m].x * stride_w + tap_x[e];
                    if (at_x[m].p < end && y >= 0 && y < ih && xi >= 0 && xi < iw) {
                        const ulong at = (ulong)at_x[m].n * x_blocks * x_plane + tap_at[e] + (ulong)y * x_row + xi * BI;
#if BI == 1
                        part[e] = x[at];
#else
                        value[m] = EQ_LOAD4(x + at);
#endif
                    }
                }
                if (BI == 1)
                    value[m] = (float4)(part[0], part[1], part[2], part[3]);
                at_x[m] = pixel_plus(at_x[m], step, oh, ow);
            }
        }
        if (p0 >= first) {
            #pragma unroll 4
            for (int p = 0; p < DEPTH; p++) {
                float4 dv[OQ];
                #pragma unroll
                for (int o = 0; o < OQ; o++)
                    dv[o] = d_tile[p * D_QUADS + o * NTO + lane_oc];
                #pragma unroll
                for (int v = 0; v < KV; v++) {
                    const float4 xv = x_tile[p * QUADS + v * 16 + lane_k];
                    #pragma unroll
                    for (int o = 0; o < OQ; o++) {
                        __private float4 *sums = acc + 4 * (o * KV + v);
                        sums[0] = EQ_MAD((float4)(xv.x), dv[o], sums[0]);
                        sums[1] = EQ_MAD((float4)(xv.y), dv[o], sums[1]);
                        sums[2] = EQ_MAD((float4)(xv.z), dv[o], sums[2]);
                        sums[3] = EQ_MAD((float4)(xv.w), dv[o], sums[3]);
                    }
                }
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        if (has_next) {
            d_tile[lane] = grad;
            #pragma unroll
            for (int m = 0; m < NUM_X; m++)
                x_tile[lane + m * GROUP] = value[m];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }

    dw += (ulong)EQ_GROUP(2, 1) * oc_blocks * num_k * BLOCK;
    #pragma unroll
    for (int o = 0; o < OQ; o++) {
        const int oc = first_oc + 4 * (o * NTO + lane_oc);
        if (oc >= oc_blocks * BLOCK)
            continue;
        #pragma unroll
        for (int v = 0; v < 4 * KV; v++) {
            const int k = first_k + (v / 4 * 16 + lane_k) * 4 + v % 4;
            if (k < num_k)
                EQ_STORE4(acc[o * 4 * KV + v], dw + ((ulong)(oc / BLOCK) * num_k + k) * BLOCK + oc % BLOCK);
        }
    }
}

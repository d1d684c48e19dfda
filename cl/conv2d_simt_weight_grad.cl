// Gradient of a convolution's filter, for GPUs: a matrix product [oc, pixels] x [pixels, k] with k = (input block, kh, kw,
// channel), tiles of both in local memory, guards in place of a halo.
//   x    f32 [n, x_blocks, ih, iw, BI]                          read    first element: pixel (0, 0)
//   dz   f32 [n, oc_blocks, oh, ow, BLOCK]                      read    first element: pixel (0, 0)
//   dw   f32 [parts, oc_blocks, x_blocks, kh, kw, BI, BLOCK]    write   part p has pixels [p * part_px, (p + 1) * part_px)
// Pixels are those of all images in one row; each part adds them in order. A work-group makes 4 NTO output channels x 64 KV
// values of k, a work-item 4 x 4 KV. Both tiles have the pixel as row, so they are written and read as float4s without bank
// conflicts.
#ifndef BI
#define BI BLOCK // input channels in a block: BLOCK, or 1 for a plain image
#endif
#ifndef NTO
#define NTO 16 // work-items over output channels: 16, 8 or 4
#endif
#ifndef KV
#define KV 2 // float4s of k per work-item: 1 or 2
#endif

#define DEPTH 16 // pixels in a tile
#define GROUP (NTO * 16)
#define QUADS (16 * KV)                 // float4s of k in a tile
#define NUM_X (DEPTH * QUADS / GROUP)   // float4s of x that a work-item reads
#if BI == 1
#define TAPS 4 // of a float4 of k
#else
#define TAPS 1
#endif

// A pixel of the output, moved on by DEPTH pixels at a time.
struct pixel {
    int p, n, y, x;
};

static struct pixel pixel_at(int p, int oh, int ow)
{
    const int row = p / ow, n = row / oh;
    return (struct pixel){ p, n, row - n * oh, p - row * ow };
}

static struct pixel pixel_next(struct pixel at, struct pixel step, int oh, int ow)
{
    at.p += DEPTH;
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
    __local float4 d_tile[DEPTH * NTO];
    __local float4 x_tile[DEPTH * QUADS];
    const int lane = (int)get_local_id(0), lane_oc = lane % NTO, lane_k = lane / NTO;
    const int first_k = (int)get_group_id(0) * 4 * QUADS, oc = ((int)get_group_id(1) * NTO + lane_oc) * 4;
    const int first = (int)EQ_GROUP(2) * part_px, end = min(first + part_px, num_px), num_k = x_blocks * kh * kw * BI;

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
    __global const float *d_block = dz + (ulong)(oc / BLOCK) * d_plane + oc % BLOCK;
    const struct pixel step = pixel_at(DEPTH, oh, ow);
    struct pixel at_d = pixel_at(first + lane / NTO, oh, ow), at_x[NUM_X];
    #pragma unroll
    for (int m = 0; m < NUM_X; m++)
        at_x[m] = pixel_at(first + (lane + m * GROUP) / QUADS, oh, ow);

    float4 acc[4 * KV];
    #pragma unroll
    for (int v = 0; v < 4 * KV; v++)
        acc[v] = (float4)(0.0f);

    for (int p0 = first; p0 < end; p0 += DEPTH) {
        float4 grad = (float4)(0.0f);
        if (at_d.p < end && oc < oc_blocks * BLOCK)
            grad = EQ_LOAD4(d_block + (ulong)at_d.n * oc_blocks * d_plane + (ulong)at_d.y * d_row + at_d.x * BLOCK);
        at_d = pixel_next(at_d, step, oh, ow);
        float4 value[NUM_X];
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
            at_x[m] = pixel_next(at_x[m], step, oh, ow);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        d_tile[lane] = grad;
        #pragma unroll
        for (int m = 0; m < NUM_X; m++)
            x_tile[lane + m * GROUP] = value[m];
        barrier(CLK_LOCAL_MEM_FENCE);
        #pragma unroll
        for (int p = 0; p < DEPTH; p++) {
            const float4 dv = d_tile[p * NTO + lane_oc];
            #pragma unroll
            for (int v = 0; v < KV; v++) {
                const float4 xv = x_tile[p * QUADS + v * 16 + lane_k];
                acc[4 * v + 0] = EQ_MAD((float4)(xv.x), dv, acc[4 * v + 0]);
                acc[4 * v + 1] = EQ_MAD((float4)(xv.y), dv, acc[4 * v + 1]);
                acc[4 * v + 2] = EQ_MAD((float4)(xv.z), dv, acc[4 * v + 2]);
                acc[4 * v + 3] = EQ_MAD((float4)(xv.w), dv, acc[4 * v + 3]);
            }
        }
    }

    if (oc >= oc_blocks * BLOCK)
        return;
    dw += ((ulong)EQ_GROUP(2) * oc_blocks + oc / BLOCK) * num_k * BLOCK + oc % BLOCK;
    #pragma unroll
    for (int v = 0; v < 4 * KV; v++) {
        const int k = first_k + (v / 4 * 16 + lane_k) * 4 + v % 4;
        if (k < num_k)
            EQ_STORE4(acc[v], dw + (ulong)k * BLOCK);
    }
}

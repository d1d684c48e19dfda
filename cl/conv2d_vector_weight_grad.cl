// Gradient of a convolution's filter, for CPUs: explicit vectors over output channels, one work-item NI x OBT accumulators.
//   x    f32 [n, x_blocks, rows, columns, BI]                   read    first element: the pixel under tap (0, 0) of (0, 0)
//   dz   f32 [n, oc_blocks, oh, ow, BLOCK]                      read    first element: pixel (0, 0); rows d_row apart
//   dw   f32 [parts, oc_blocks, x_blocks, kh, kw, BI, BLOCK]    write   part p has rows [p * part_rows, (p + 1) * part_rows)
// Rows are those of all images, num_rows in all: row u is y = u % oh of image u / oh. Each part adds its pixels in order.
// The NI values that meet one pixel of dz lie side by side in x: channels of a block, or, in a plain image, taps of a filter's
// row. The last group of blocks is moved back to end with the blocks: the first ones of it are computed twice and stored once.
#ifndef BI
#define BI BLOCK // input channels in a block: BLOCK, or 1 for a plain image
#endif
#ifndef NI
#define NI BI // accumulators in x's direction: divides BI; with BI 1 the filter's width
#endif
#ifndef STRIDE
#define STRIDE 1 // from an output pixel to the next, in input pixels
#endif
#ifndef OBT
#define OBT 1 // accumulators in dz's direction: blocks of output channels
#endif
#ifndef STEP
#define STEP 1 // pixels in an iteration
#endif
#define SPLIT (BI == 1 ? 1 : BI / NI)

__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void conv2d_vector_weight_grad(EQ_IN(float, x), EQ_IN(float, dz), EQ_BUF(float, dw), const int x_row, const int x_plane,
                               const int x_blocks, const int kh, const int kw, const int stride_h, const int oc_blocks,
                               const int oh, const int ow, const int d_row, const int d_plane, const int num_rows,
                               const int part_rows, const int blocks_first)
{
    EQ_IN_PTR(float, x);
    EQ_IN_PTR(float, dz);
    EQ_PTR(float, dw);
    // k counts runs of NI values: [x_blocks, kh, kw (1 where a run is a filter's row), SPLIT]
    // blocks_first: neighbouring work-items share x, and a part's rows of dz stay in the cache; else the other way round.
    const int id0 = (int)get_global_id(0), id1 = (int)get_global_id(1);
    const int k = blocks_first ? id1 : id0, taps_w = BI == 1 ? 1 : kw;
    const int part = k % SPLIT, j = k / SPLIT % taps_w, i = k / (SPLIT * taps_w) % kh, ib = k / (SPLIT * taps_w * kh);
    const int want_b = (blocks_first ? id0 : id1) * OBT, b0 = min(want_b, oc_blocks - OBT);
    const int first = (int)get_global_id(2) * part_rows, end = min(first + part_rows, num_rows);

    vecf acc[OBT][NI];
    #pragma unroll
    for (int b = 0; b < OBT; b++)
        #pragma unroll
        for (int c = 0; c < NI; c++)
            acc[b][c] = (vecf)(0.0f);

    x += (ulong)ib * x_plane + (ulong)i * x_row + j * BI + part * NI;
    for (int u = first; u < end; u++) {
        const int n = u / oh, y = u - n * oh;
        __global const float *xt = x + (ulong)n * x_blocks * x_plane + (ulong)y * stride_h * x_row;
        __global const float *dt = dz + ((ulong)n * oc_blocks + b0) * d_plane + (ulong)y * d_row;
        int t = 0;
        for (; t + STEP <= ow; t += STEP, xt += STEP * STRIDE * BI, dt += STEP * BLOCK) {
            #pragma unroll
            for (int s = 0; s < STEP; s++)
                #pragma unroll
                for (int b = 0; b < OBT; b++) {
                    const vecf grad = EQ_LOAD(dt + (ulong)b * d_plane + s * BLOCK);
                    #pragma unroll
                    for (int c = 0; c < NI; c++)
                        acc[b][c] = EQ_MAD((vecf)(xt[s * STRIDE * BI + c]), grad, acc[b][c]);
                }
        }
#if STEP > 1
        for (; t < ow; t++, xt += STRIDE * BI, dt += BLOCK) {
            #pragma unroll
            for (int b = 0; b < OBT; b++) {
                const vecf grad = EQ_LOAD(dt + (ulong)b * d_plane);
                #pragma unroll
                for (int c = 0; c < NI; c++)
                    acc[b][c] = EQ_MAD((vecf)(xt[c]), grad, acc[b][c]);
            }
        }
#endif
    }

    const ulong filter = (ulong)x_blocks * (kh * kw * BI * BLOCK);
    dw += (ulong)get_global_id(2) * oc_blocks * filter + (ulong)k * (NI * BLOCK);
    #pragma unroll
    for (int b = 0; b < OBT; b++)
        #pragma unroll
        for (int c = 0; c < NI; c++)
            if (b0 + b >= want_b)
                EQ_STORE(acc[b][c], dw + (b0 + b) * filter + c * BLOCK);
}

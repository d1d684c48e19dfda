// Gradient of a convolution's filter, for CPUs: explicit vectors over output channels, one work-item NI x OBT accumulators.
//   x    f32 [n, x_blocks, rows, columns, BI]                   read    first element: the pixel under tap (0, 0) of (0, 0)
//   dz   f32 [n, oc_blocks, oh, ow, BLOCK]                      read    first element: pixel (0, 0); rows d_row apart
//   dw   f32 [parts, oc_blocks, x_blocks, kh, kw, BI, BLOCK]    write   part p has rows [p * part_rows, (p + 1) * part_rows);
//                                                                     work-items read again what they wrote
// Rows are those of all images, num_rows in all: row u is y = u % oh of image u / oh. Each part adds its pixels in order.
// The NI values that meet one pixel of dz lie side by side in x, a run: channels of a block, or, in a plain image, taps of a
// filter's row. The last group of blocks is moved back to end with the blocks: the first ones of it are computed twice and
// stored once.
// A work-item has runs_each runs. It goes by chunks of rows: the first-level cache keeps a chunk of dz for all of its runs, and
// a run's chunk of x for the other runs of the same block, while sums come and go between dw and registers once per chunk.
// check: -DNI=8 -DOBT=3 -DSTRIDE=2 -DSTEP=7
// check: -DBI=1 -DNI=7 -DOBT=2 -DSTEP=7
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
#define NUM_AHEAD_X (BI == 1 ? 0 : (STEP + SPLIT - 1) / SPLIT) // pixels of x that a run fetches ahead in an iteration
#define HAS_AHEAD_DZ (OBT * NI <= 16) // whether it fetches dz ahead: with more sums, some would leave the registers

static void add_pixel(__global const float *x, __global const float *dz, vecf acc[OBT][NI], int d_plane)
{
    #pragma unroll
    for (int c = 0; c < NI; c++) {
        const vecf value = (vecf)(x[c]);
        #pragma unroll
        for (int b = 0; b < OBT; b++)
            acc[b][c] = EQ_MAD(value, EQ_LOAD(dz + (ulong)b * d_plane), acc[b][c]);
    }
}

// The pixels of a row: x and dz at the first one. Meanwhile this run's shares of what comes next are fetched: of the next block
// at x + x_ahead, and of the next chunk's row at dz_ahead, once in `turns` iterations, the next time after `wait`.
static void add_row(__global const float *x, __global const float *dz, vecf acc[OBT][NI], int ow, int d_plane, int x_ahead,
                    __global const float *dz_ahead, int turns, int *wait)
{
    int t = 0;
    for (; t + STEP <= ow; t += STEP, x += STEP * STRIDE * BI, dz += STEP * BLOCK) {
        #pragma unroll
        for (int s = 0; s < NUM_AHEAD_X; s++)
            EQ_PREFETCH_NEAR(x + x_ahead + s * STRIDE * BI);
        if (HAS_AHEAD_DZ && --*wait < 0) {
            *wait = turns - 1;
            #pragma unroll
            for (int s = 0; s < STEP; s++)
                #pragma unroll
                for (int b = 0; b < OBT; b++)
                    EQ_PREFETCH(dz_ahead + (ulong)b * d_plane + (t + s) * BLOCK);
        }
        #pragma unroll
        for (int s = 0; s < STEP; s++)
            add_pixel(x + s * STRIDE * BI, dz + s * BLOCK, acc, d_plane);
    }
#if STEP > 1
    for (; t < ow; t++, x += STRIDE * BI, dz += BLOCK)
        add_pixel(x, dz, acc, d_plane);
#endif
}

__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void conv2d_vector_weight_grad(EQ_IN(float, x), EQ_IN(float, dz), EQ_BUF(float, dw), const int x_row, const int x_plane,
                               const int x_blocks, const int kh, const int kw, const int stride_h, const int oc_blocks,
                               const int oh, const int ow, const int d_row, const int d_plane, const int num_rows,
                               const int part_rows, const int blocks_first, const int chunk_rows, const int num_runs,
                               const int runs_each)
{
    EQ_IN_PTR(float, x);
    EQ_IN_PTR(float, dz);
    EQ_PTR(float, dw);
    // k counts runs: [x_blocks, kh, kw (1 where a run is a filter's row), SPLIT]
    // blocks_first: neighbouring work-items share x, and a part's rows of dz stay in the cache; else the other way round.
    const int id0 = (int)get_global_id(0), id1 = (int)get_global_id(1), taps_w = BI == 1 ? 1 : kw;
    const int first_k = (blocks_first ? id1 : id0) * runs_each, end_k = min(first_k + runs_each, num_runs);
    const int want_b = (blocks_first ? id0 : id1) * OBT, b0 = min(want_b, oc_blocks - OBT);
    const int first = (int)get_global_id(2) * part_rows, end = min(first + part_rows, num_rows);
    const ulong filter = (ulong)x_blocks * (kh * kw * BI * BLOCK);
    dw += ((ulong)get_global_id(2) * oc_blocks + b0) * filter;

    for (int u0 = first; u0 < end; u0 += chunk_rows)
        for (int k = first_k; k < end_k; k++) {
            const int part = k % SPLIT, j = k / SPLIT % taps_w, i = k / (SPLIT * taps_w) % kh, ib = k / (SPLIT * taps_w * kh);
            __global float *sums = dw + (ulong)k * (NI * BLOCK);
            vecf acc[OBT][NI];
            #pragma unroll
            for (int b = 0; b < OBT; b++)
                #pragma unroll
                for (int c = 0; c < NI; c++)
                    acc[b][c] = u0 == first || b0 + b < want_b ? (vecf)(0.0f) : EQ_LOAD(sums + b * filter + c * BLOCK);

            const ulong at = (ulong)ib * x_plane + (ulong)i * x_row + j * BI + part * NI;
            const int u1 = min(u0 + chunk_rows, end);
            const int x_ahead = (ib + 1 < x_blocks ? x_plane : 0) + part * (STEP / SPLIT * STRIDE * BI - NI);
            int n = u0 / oh, y = u0 - n * oh, wait = k - first_k;
            for (int u = u0; u < u1; u++) {
                const int next = min(u + chunk_rows, num_rows - 1), next_n = next / oh, next_y = next - next_n * oh;
                add_row(x + (ulong)n * x_blocks * x_plane + (ulong)y * stride_h * x_row + at,
                        dz + ((ulong)n * oc_blocks + b0) * d_plane + (ulong)y * d_row, acc, ow, d_plane, x_ahead,
                        dz + ((ulong)next_n * oc_blocks + b0) * d_plane + (ulong)next_y * d_row, end_k - first_k, &wait);
                if (++y == oh) {
                    y = 0;
                    n++;
                }
            }

            #pragma unroll
            for (int b = 0; b < OBT; b++)
                #pragma unroll
                for (int c = 0; c < NI; c++)
                    if (b0 + b >= want_b)
                        EQ_STORE(acc[b][c], sums + b * filter + c * BLOCK);
        }
}

// Moments: the first pass over the activations of a unit, forward (GRAD 0) or backward (GRAD 1).
//
//   z      f32 blocked [n, c, h, w]           read
//   dout   f32 blocked [n, c, h, w]           read    GRAD 1: gradient of the unit's output
//   out    f32 blocked [n, c, h, w]           read    GRAD 1: the unit's output, for the mask; absent for ACT_NONE
//   pivot  f32 [c]                            read    GRAD 1: k. Forward takes k from z: the first pixel of the first image
//   sums   f32 [n, parts, 2, stride]          write   sums of left, and of left * (z - k); left = z - k, or dout * act'(out)
//   tiles  f32 [n, parts, blocks, span, BLOCK, BLOCK]   write   cross-products left_r * (z - k)_s: row r of block b, column s
//                                                               of block first(b) + j. Forward leaves out the tiles below
//                                                               the diagonal: they are symmetric
// Pixels of a plane are cut into `parts` pieces; the solve adds the pieces in a fixed order. Accumulators are f32.
// Pivot: squares of plain z cancel when the mean is large against the deviation.
// SIMT 0: one work-item per (block or tile, part, image), a vector of BLOCK channels. SIMT 1: one work-group of WG work-items.
#ifndef SIMT
#define SIMT 0
#endif
#ifndef GRAD
#define GRAD 0
#endif
#ifndef WG
#define WG 256 // work-items of a SIMT work-group, a power of two, 16 at least
#endif

#if GRAD
#define NAME(x) x##_grad
#define INPUTS EQ_IN(float, z), EQ_IN(float, dout), EQ_IN(float, out), EQ_IN(float, pivot)
#define OPEN_INPUTS                                                                                                        \
    EQ_IN_PTR(float, z);                                                                                                   \
    EQ_IN_PTR(float, dout);                                                                                                \
    EQ_IN_PTR(float, out);                                                                                                 \
    EQ_IN_PTR(float, pivot)
#define STRIDES                                                                                                            \
    int z_image, int z_plane, int z_row, int dout_image, int dout_plane, int dout_row, int out_image, int out_plane,       \
        int out_row, int act
#else
#define NAME(x) x
#define INPUTS EQ_IN(float, z)
#define OPEN_INPUTS EQ_IN_PTR(float, z)
#define STRIDES int z_image, int z_plane, int z_row
#endif

// First block of the groups that the channels of block b belong to.
static int first_block(int b, int group)
{
    return b * BLOCK / group * group / BLOCK;
}

// Start of the plane of block b of image n.
#define PLANE(t, n, b) (t + (size_t)(n) * t##_image + (size_t)(b) * t##_plane)

#if !SIMT

#define LANE(x, i, lane) (((const float *)(x))[(i)*BLOCK + (lane)])
#define CHUNK 16 // pixels that stand ready at a time

// Loop over the pixels [from, to) of a plane: in each round `x_from` .. `x_from + run` lie side by side in row y.
#define FOR_RUNS(from, to)                                                                                                 \
    for (int p = (from), y = p / w, x_from = p - y * w, run = min(w - x_from, (to) - p); p < (to);                         \
         p += run, y++, x_from = 0, run = min(w, (to) - p))

__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void NAME(moments_diag)(INPUTS, EQ_BUF(float, sums), STRIDES, int w, int pixels, int stride)
{
    OPEN_INPUTS;
    EQ_PTR(float, sums);
    const int b = get_global_id(0), part = get_global_id(1), n = get_global_id(2), parts = get_global_size(1);
    const int chunk = (pixels + parts - 1) / parts, from = part * chunk, to = min(pixels, from + chunk);
    vecf sum = (vecf)(0.0f), product = (vecf)(0.0f);
#if GRAD
    const vecf k = EQ_LOAD(pivot + b * BLOCK);
#else
    const vecf k = EQ_LOAD(z + (size_t)b * z_plane);
#endif
    FOR_RUNS(from, to)
    {
        __global const float *zp = PLANE(z, n, b) + (size_t)y * z_row + x_from * BLOCK;
#if GRAD
        __global const float *dp = PLANE(dout, n, b) + (size_t)y * dout_row + x_from * BLOCK;
        __global const float *op = act == ACT_NONE ? dp : PLANE(out, n, b) + (size_t)y * out_row + x_from * BLOCK;
#endif
        for (int x = 0; x < run; x++) {
            const vecf right = EQ_LOAD(zp + x * BLOCK) - k;
#if GRAD
            const vecf d = EQ_LOAD(dp + x * BLOCK), o = EQ_LOAD(op + x * BLOCK), left = ACT_GRAD(act, d, o, vecf);
#else
            const vecf left = right;
#endif
            sum += left;
            product = EQ_MAD(left, right, product);
        }
    }
    __global float *to_sums = sums + ((size_t)n * parts + part) * 2 * stride + b * BLOCK;
    EQ_STORE(sum, to_sums);
    EQ_STORE(product, to_sums + stride);
}

__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void NAME(moments_cross)(INPUTS, EQ_BUF(float, sums), EQ_BUF(float, tiles), STRIDES, int w, int pixels, int stride,
                         int blocks, int span, int group)
{
    OPEN_INPUTS;
    EQ_PTR(float, sums);
    EQ_PTR(float, tiles);
    const int tile = get_global_id(0), part = get_global_id(1), n = get_global_id(2), parts = get_global_size(1);
    const int b = tile / span, bi = first_block(b, group) + tile - b * span;
    const int chunk = (pixels + parts - 1) / parts, from = part * chunk, to = min(pixels, from + chunk);
    if (bi >= blocks || bi < (GRAD ? 0 : b))
        return;
    vecf sum = (vecf)(0.0f), product[BLOCK], diagonal = (vecf)(0.0f);
    // Through memory: spreading a lane over a vector costs a load there, and a shuffle in registers.
    vecf left[CHUNK], right[CHUNK];
#pragma unroll
    for (int i = 0; i < BLOCK; i++)
        product[i] = (vecf)(0.0f);
#if GRAD
    const vecf k = EQ_LOAD(pivot + bi * BLOCK);
#else
    const vecf k = EQ_LOAD(z + (size_t)bi * z_plane), k_left = EQ_LOAD(z + (size_t)b * z_plane);
#endif
    FOR_RUNS(from, to)
    {
        for (int x = 0; x < run; x += CHUNK) {
            const int num = min(CHUNK, run - x);
            __global const float *zp = PLANE(z, n, bi) + (size_t)y * z_row + (x_from + x) * BLOCK;
#if GRAD
            __global const float *dp = PLANE(dout, n, b) + (size_t)y * dout_row + (x_from + x) * BLOCK;
            __global const float *op = act == ACT_NONE ? dp : PLANE(out, n, b) + (size_t)y * out_row + (x_from + x) * BLOCK;
#else
            __global const float *lp = PLANE(z, n, b) + (size_t)y * z_row + (x_from + x) * BLOCK;
#endif
            for (int i = 0; i < num; i++) {
                const vecf r = EQ_LOAD(zp + i * BLOCK) - k;
#if GRAD
                const vecf d = EQ_LOAD(dp + i * BLOCK), o = EQ_LOAD(op + i * BLOCK), l = ACT_GRAD(act, d, o, vecf);
#else
                const vecf l = EQ_LOAD(lp + i * BLOCK) - k_left;
#endif
                sum += l;
                diagonal = EQ_MAD(l, r, diagonal);
                left[i] = l;
                right[i] = r;
            }
            for (int i = 0; i < num; i++) {
                const vecf r = right[i];
#pragma unroll
                for (int row = 0; row < BLOCK; row++)
                    product[row] = EQ_MAD((vecf)(LANE(left, i, row)), r, product[row]);
            }
        }
    }
    const size_t at = (size_t)n * parts + part;
    __global float *to_tile = tiles + (at * blocks * span + tile) * BLOCK * BLOCK;
#pragma unroll
    for (int i = 0; i < BLOCK; i++)
        EQ_STORE(product[i], to_tile + i * BLOCK);
    if (bi == b) {
        EQ_STORE(sum, sums + at * 2 * stride + b * BLOCK);
        EQ_STORE(diagonal, sums + at * 2 * stride + stride + b * BLOCK);
    }
}

#else // SIMT

#define OFFSET(t, p) ((size_t)((p) / w) * t##_row + (p) % w * BLOCK)

// Work-items: lane = channel, row = every ROWS-th pixel; then the rows are added in local memory.
#define ROWS (WG / BLOCK)

__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void NAME(moments_diag)(INPUTS, EQ_BUF(float, sums), STRIDES, int w, int pixels, int stride)
{
    OPEN_INPUTS;
    EQ_PTR(float, sums);
    __local float partial[2 * WG];
    const int b = get_group_id(0), part = get_group_id(1), n = EQ_GROUP(2), parts = get_num_groups(1);
    const int item = get_local_id(0), lane = item % BLOCK, row = item / BLOCK;
    const int chunk = (pixels + parts - 1) / parts, from = part * chunk, to = min(pixels, from + chunk);
    float sum = 0.0f, product = 0.0f;
#if GRAD
    const float k = pivot[b * BLOCK + lane];
#else
    const float k = z[(size_t)b * z_plane + lane];
#endif
    __global const float *zp = PLANE(z, n, b) + lane;
#if GRAD
    __global const float *dp = PLANE(dout, n, b) + lane;
    __global const float *op = out + (act == ACT_NONE ? 0 : (size_t)n * out_image + (size_t)b * out_plane + lane);
#endif
    for (int p = from + row; p < to; p += ROWS) {
        const float right = zp[OFFSET(z, p)] - k;
#if GRAD
        const float d = dp[OFFSET(dout, p)], o = act == ACT_NONE ? 0.0f : op[OFFSET(out, p)], left = ACT_GRAD(act, d, o, float);
#else
        const float left = right;
#endif
        sum += left;
        product = EQ_MAD(left, right, product);
    }
    partial[item] = sum;
    partial[WG + item] = product;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int reach = ROWS / 2; reach > 0; reach /= 2) {
        if (row < reach) {
            partial[item] += partial[item + reach * BLOCK];
            partial[WG + item] += partial[WG + item + reach * BLOCK];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (row == 0) {
        __global float *to_sums = sums + ((size_t)n * parts + part) * 2 * stride + b * BLOCK + lane;
        to_sums[0] = partial[item];
        to_sums[stride] = partial[WG + item];
    }
}

// Work-items: (row quad, column quad) of the tile, each with 4 x 4 sums, and slice = every SLICES-th pixel.
#define QUADS (BLOCK / 4)
#define SLICES (WG / (QUADS * QUADS))

// Adds the slices of `value`, 4 numbers a work-item, in order; the work-items of slice 0 get the totals.
static float4 add_slices(float4 value, __local float4 *partial, int item, int slice)
{
    barrier(CLK_LOCAL_MEM_FENCE);
    partial[item] = value;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int reach = SLICES / 2; reach > 0; reach /= 2) {
        if (slice < reach)
            partial[item] += partial[item + reach * QUADS * QUADS];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    return partial[item];
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void NAME(moments_cross)(INPUTS, EQ_BUF(float, sums), EQ_BUF(float, tiles), STRIDES, int w, int pixels, int stride,
                         int blocks, int span, int group)
{
    OPEN_INPUTS;
    EQ_PTR(float, sums);
    EQ_PTR(float, tiles);
    __local float4 partial[WG];
    const int tile = get_group_id(0), part = get_group_id(1), n = EQ_GROUP(2), parts = get_num_groups(1);
    const int b = tile / span, bi = first_block(b, group) + tile - b * span;
    const int item = get_local_id(0), slice = item / (QUADS * QUADS);
    const int row = item / QUADS % QUADS * 4, column = item % QUADS * 4; // first of 4
    const bool wanted = bi < blocks && bi >= (GRAD ? 0 : b); // no return: barriers follow
    const int chunk = (pixels + parts - 1) / parts, from = part * chunk, to = wanted ? min(pixels, from + chunk) : 0;
    const int safe = wanted ? bi : b;
    float4 product0 = (float4)(0.0f), product1 = product0, product2 = product0, product3 = product0, sum = product0,
           diagonal = product0;
    __global const float *zp = PLANE(z, n, safe) + column;
#if GRAD
    const float4 k = vload4(0, pivot + safe * BLOCK + column);
    __global const float *dp = PLANE(dout, n, b) + row;
    __global const float *op = out + (act == ACT_NONE ? 0 : (size_t)n * out_image + (size_t)b * out_plane + row);
#else
    const float4 k = vload4(0, z + (size_t)safe * z_plane + column), k_left = vload4(0, z + (size_t)b * z_plane + row);
    __global const float *lp = PLANE(z, n, b) + row;
#endif
    for (int p = from + slice; p < to; p += SLICES) {
        const float4 right = vload4(0, zp + OFFSET(z, p)) - k;
#if GRAD
        const float4 d = vload4(0, dp + OFFSET(dout, p));
        const float4 o = act == ACT_NONE ? (float4)(0.0f) : vload4(0, op + OFFSET(out, p));
        const float4 left = ACT_GRAD(act, d, o, float4);
#else
        const float4 left = vload4(0, lp + OFFSET(z, p)) - k_left;
#endif
        sum += left;
        diagonal = EQ_MAD(left, right, diagonal);
        product0 = EQ_MAD((float4)(left.x), right, product0);
        product1 = EQ_MAD((float4)(left.y), right, product1);
        product2 = EQ_MAD((float4)(left.z), right, product2);
        product3 = EQ_MAD((float4)(left.w), right, product3);
    }
    const size_t at = (size_t)n * parts + part;
    product0 = add_slices(product0, partial, item, slice);
    product1 = add_slices(product1, partial, item, slice);
    product2 = add_slices(product2, partial, item, slice);
    product3 = add_slices(product3, partial, item, slice);
    sum = add_slices(sum, partial, item, slice);
    diagonal = add_slices(diagonal, partial, item, slice);
    if (slice == 0 && wanted) {
        __global float *to_tile = tiles + (at * blocks * span + tile) * BLOCK * BLOCK + row * BLOCK + column;
        vstore4(product0, 0, to_tile);
        vstore4(product1, 0, to_tile + BLOCK);
        vstore4(product2, 0, to_tile + 2 * BLOCK);
        vstore4(product3, 0, to_tile + 3 * BLOCK);
        if (bi == b && row == column) {
            __global float *to_sums = sums + at * 2 * stride + b * BLOCK + row;
            vstore4(sum, 0, to_sums);
            vstore4(diagonal, 0, to_sums + stride);
        }
    }
}
#endif

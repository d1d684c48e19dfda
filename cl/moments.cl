// Moments: the first pass over the activations of a unit, forward (GRAD 0) or backward (GRAD 1).
//
//   z      f32 blocked [n, c, h, w]           read
//   dout   f32 blocked [n, c, h, w]           read    GRAD 1: gradient of the unit's output
//   out    f32 blocked [n, c, h, w]           read    GRAD 1: the unit's output, for the mask; absent for ACT_NONE
//   pivot  f32 [c]                            read    GRAD 1: k. Forward takes k from z: the first pixel of the first image
//                                                     (moments_image: of each)
//   sums   f32 [n, parts, 2, stride]          write   sums of left, and of left * (z - k); left = z - k, or dout * act'(out)
//   tiles  f32 [n, parts, blocks, span, BLOCK, BLOCK]   write   cross-products left_r * (z - k)_s: row r of block b, column s
//                                                               of block first(b) + j. Forward leaves out the tiles below
//                                                               the diagonal: they are symmetric
// Pixels of a plane are cut into `parts` pieces; the solve adds the pieces in a fixed order. Accumulators are f32.
// Pivot: squares of plain z cancel when the mean is large against the deviation.
// SIMT 0: one work-item per (block or tile, part, image), a vector of BLOCK channels. SIMT 1: one work-group of WG work-items,
// each with the loads of four channels of PIXELS pixels under way at once.
#ifndef SIMT
#define SIMT 0
#endif
#ifndef GRAD
#define GRAD 0
#endif
#ifndef SPAN
#define SPAN span // SIMT: 1 as a constant where groups of channels lie within a block
#endif
#ifndef WG
#define WG 128 // work-items of a SIMT work-group, a power of two, 16 at least
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

#if !GRAD
// Evaluation, where a gate looks at each image alone: as conv2d_vector.cl gives them with z.
//   moments f32 [n, blocks, parts, 3, BLOCK]   write   of a part: mean, sum of squares about it, number of pixels
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void moments_image(INPUTS, EQ_BUF(float, moments), STRIDES, int w, int pixels)
{
    OPEN_INPUTS;
    EQ_PTR(float, moments);
    const int b = get_global_id(0), part = get_global_id(1), n = get_global_id(2), parts = get_global_size(1);
    const int chunk = (pixels + parts - 1) / parts, from = min(pixels, part * chunk), to = min(pixels, from + chunk);
    const vecf k = EQ_LOAD(PLANE(z, n, b));
    vecf sum = (vecf)(0.0f), square = (vecf)(0.0f);
    FOR_RUNS(from, to)
    {
        __global const float *zp = PLANE(z, n, b) + (size_t)y * z_row + x_from * BLOCK;
        for (int x = 0; x < run; x++) {
            const vecf away = EQ_LOAD(zp + x * BLOCK) - k;
            sum += away;
            square = EQ_MAD(away, away, square);
        }
    }
    const vecf mean = sum / max(to - from, 1);
    __global float *to_moments = moments + (((size_t)n * get_global_size(0) + b) * parts + part) * 3 * BLOCK;
    EQ_STORE(k + mean, to_moments);
    EQ_STORE(square - sum * mean, to_moments + BLOCK);
    EQ_STORE((vecf)(to - from), to_moments + 2 * BLOCK);
}
#endif

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

#define QUADS (BLOCK / 4)
#define ROWS (WG / QUADS) // pixels that a work-group reads at a time
#define IS_SAME (!GRAD && SPAN == 1) // left and right are the same numbers
// Pixels whose loads a work-item has under way, and those of the work-group.
#if IS_SAME
#define PIXELS 4
#else
#define PIXELS 2
#endif
#define STEP (PIXELS * ROWS)

// Four channels of a plane's pixel; `otherwise` past the last pixel of the part.
#define READ(t, b, p, otherwise) ((p) < to ? EQ_LOAD4(PLANE(t, n, b) + OFFSET(t, p) + lane) : (otherwise))
#define OFFSET(t, p) (w < pixels ? (p) / w * t##_row + (p) % w * BLOCK : (p) * BLOCK) // divisions are slow

#if GRAD
static float4 left_of(int act, float4 d, float4 o)
{
    return ACT_GRAD(act, d, o, float4);
}
#endif

// Adds what the work-items of a channel have, in order, and writes it.
static void write_sums(float4 sum, float4 product, __local float4 *partial, __global float *to_sums, int stride)
{
    const int item = get_local_id(0);
    partial[item] = sum;
    partial[WG + item] = product;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = item; i < 2 * BLOCK; i += WG) {
        const int which = i / BLOCK, channel = i % BLOCK;
        __local const float *from = (__local const float *)(partial + which * WG) + channel;
        float total = 0.0f;
#pragma unroll 8
        for (int row = 0; row < ROWS; row++)
            total += from[row * BLOCK];
        to_sums[which * stride + channel] = total;
    }
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void NAME(moments_diag)(INPUTS, EQ_BUF(float, sums), STRIDES, int w, int pixels, int stride)
{
    OPEN_INPUTS;
    EQ_PTR(float, sums);
    __local float4 partial[2 * WG];
    const int b = get_group_id(0), part = get_group_id(1), n = EQ_GROUP(2, 1), parts = get_num_groups(1);
    const int item = get_local_id(0), lane = item % QUADS * 4, row = item / QUADS;
    const int chunk = (pixels + parts - 1) / parts, from = part * chunk, to = min(pixels, from + chunk);
    float4 sum = (float4)(0.0f), product = (float4)(0.0f);
#if GRAD
    const float4 k = EQ_LOAD4(pivot + b * BLOCK + lane);
#else
    const float4 k = EQ_LOAD4(z + (size_t)b * z_plane + lane);
#endif
    for (int p = from + row; p < to; p += STEP) {
        float4 right[PIXELS], left[PIXELS];
#pragma unroll
        for (int i = 0; i < PIXELS; i++) {
            right[i] = READ(z, b, p + i * ROWS, k);
#if GRAD
            left[i] = left_of(act, READ(dout, b, p + i * ROWS, (float4)(0.0f)),
                              act == ACT_NONE ? (float4)(0.0f) : READ(out, b, p + i * ROWS, (float4)(0.0f)));
#endif
        }
#pragma unroll
        for (int i = 0; i < PIXELS; i++) {
            right[i] -= k;
#if !GRAD
            left[i] = right[i];
#endif
            sum += left[i];
            product = EQ_MAD(left[i], right[i], product);
        }
    }
    write_sums(sum, product, partial, sums + ((size_t)n * parts + part) * 2 * stride + b * BLOCK, stride);
}

// A work-item reads as above, shows what it read in local memory, and adds 4 x 4 products (row quad, column quad) of every
// SLICES-th pixel there. The next pixels are read while the present ones are multiplied.
#define SLICES (WG / (QUADS * QUADS))

// Adds the slices' tiles in order and writes the total. products: of rows first_row .. first_row + 3, columns from `column` on.
static void write_tile(const float4 *products, __local float4 *partial, int slice, int first_row, int column,
                       __global float *to_tile)
{
    const int item = get_local_id(0);
#pragma unroll
    for (int i = 0; i < 4; i++)
        partial[(slice * BLOCK + first_row + i) * QUADS + column / 4] = products[i];
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = item; i < BLOCK * QUADS; i += WG) {
        float4 total = partial[i];
        for (int s = 1; s < SLICES; s++)
            total += partial[s * BLOCK * QUADS + i];
        EQ_STORE4(total, to_tile + 4 * i);
    }
}

__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void NAME(moments_cross)(INPUTS, EQ_BUF(float, sums), EQ_BUF(float, tiles), STRIDES, int w, int pixels, int stride,
                         int blocks, int span, int group)
{
    OPEN_INPUTS;
    EQ_PTR(float, sums);
    EQ_PTR(float, tiles);
    __local float4 shown[4 * WG]; // right values of STEP pixels, then left ones where they are others
    const int tile = get_group_id(0), part = get_group_id(1), n = EQ_GROUP(2, 1), parts = get_num_groups(1);
    const int b = tile / SPAN, bi = SPAN == 1 ? b : first_block(b, group) + tile - b * SPAN;
    const int item = get_local_id(0), lane = item % QUADS * 4, row = item / QUADS, slice = item / (QUADS * QUADS);
    const bool wanted = bi < blocks && bi >= (GRAD ? 0 : b); // no return: barriers follow
    const int chunk = (pixels + parts - 1) / parts, from = part * chunk, to = wanted ? min(pixels, from + chunk) : 0;
    const int safe = wanted ? bi : b;
    __local float4 *lefts = shown + (IS_SAME ? 0 : PIXELS * WG);
    float4 products[4], sum = (float4)(0.0f), diagonal = (float4)(0.0f), right[PIXELS], left[PIXELS];
#pragma unroll
    for (int i = 0; i < 4; i++)
        products[i] = (float4)(0.0f);
#if GRAD
    const float4 k = EQ_LOAD4(pivot + safe * BLOCK + lane);
    float4 o[PIXELS];
#else
    const float4 k = EQ_LOAD4(z + (size_t)safe * z_plane + lane), k_left = EQ_LOAD4(z + (size_t)b * z_plane + lane);
#endif
    for (int p = from - STEP; p < to; p += STEP) {
        if (p + STEP < to) {
#pragma unroll
            for (int i = 0; i < PIXELS; i++) {
                const int at = p + STEP + i * ROWS + row;
                right[i] = READ(z, safe, at, k);
#if GRAD
                left[i] = READ(dout, b, at, (float4)(0.0f));
                o[i] = act == ACT_NONE ? (float4)(0.0f) : READ(out, b, at, (float4)(0.0f));
#else
                if (!IS_SAME)
                    left[i] = READ(z, b, at, k_left);
#endif
            }
        }
        if (p >= from) {
#pragma unroll 4
            for (int i = 0; i < PIXELS * QUADS; i++) {
                const int at = (i * SLICES + slice) * QUADS;
                const float4 l = lefts[at + item / QUADS % QUADS], r = shown[at + item % QUADS];
                products[0] = EQ_MAD((float4)(l.x), r, products[0]);
                products[1] = EQ_MAD((float4)(l.y), r, products[1]);
                products[2] = EQ_MAD((float4)(l.z), r, products[2]);
                products[3] = EQ_MAD((float4)(l.w), r, products[3]);
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        if (p + STEP < to) {
#pragma unroll
            for (int i = 0; i < PIXELS; i++) {
                const float4 r = right[i] - k;
#if GRAD
                const float4 l = left_of(act, left[i], o[i]);
#else
                const float4 l = IS_SAME ? r : left[i] - k_left;
#endif
                sum += l;
                diagonal = EQ_MAD(l, r, diagonal);
                shown[i * WG + item] = r;
                if (!IS_SAME)
                    lefts[i * WG + item] = l;
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    const size_t at = (size_t)n * parts + part;
    if (!wanted)
        return;
    write_tile(products, shown, slice, item / QUADS % QUADS * 4, item % QUADS * 4,
               tiles + (at * blocks * SPAN + tile) * BLOCK * BLOCK);
    barrier(CLK_LOCAL_MEM_FENCE);
    if (bi == b)
        write_sums(sum, diagonal, shown, sums + at * 2 * stride + b * BLOCK, stride);
}
#endif

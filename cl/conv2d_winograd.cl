// Winograd's convolution for 3 x 3 filters with stride 1, F(TILE x TILE, 3 x 3): Lavin and Gray, "Fast Algorithms for
// Convolutional Neural Networks", 2016. An output tile of TILE x TILE pixels comes from SIDE x SIDE input pixels, SIDE =
// TILE + 2, with SIDE * SIDE products instead of 9 * TILE * TILE:
//     z = A^T ( sum over channels of (G w G^T) * (B^T x B) ) A
// The polynomials behind it are evaluated at 0, P, -P (and Q, -Q), infinity. For F(2 x 2) P is 1; for F(4 x 4) P and Q are the
// fractions, exact in binary as their powers are, whose error came out least: a quarter of that of 1 and 2 at worst, half of it
// on average (points matter that much: Barabasz, Anderson, Soodhalter and Gregg, "Error Analysis and Improving the Accuracy of
// Winograd Convolution for Deep Neural Networks", 2020).
//   w  f32 [oc_blocks, x_blocks, 3, 3, BLOCK ic, BLOCK oc]                a filter in its stored form
//   u  f32 [SIDE * SIDE, oc_blocks, x_blocks, BLOCK ic, BLOCK oc]         its transform
// On CPUs one kernel has all steps, on GPUs each is a launch, and the products are those of conv2d_simt.cl.
#ifndef TILE
#define TILE 4 // 2 or 4
#endif
#define SIDE (TILE + 2)
#define POINTS (SIDE * SIDE)
#if TILE == 4
#define P 0.625f
#define Q 1.5f
#define P2 (P * P)
#define Q2 (Q * Q)
#define AT_ZERO (1.0f / (P2 * Q2)) // G's factors of its rows
#define AT_P (0.5f / (P2 * (P2 - Q2)))
#define AT_Q (0.5f / (Q2 * (Q2 - P2)))
#endif

// check: -DLANES=1 -DTILE=2
// check: -DLANES=1 -DBLOCK=4 -DTILE=4
// What a work-item has of a block of channels: all of it, or with LANES 1 (GPUs) a channel beside those of its neighbours.
#ifndef LANES
#define LANES BLOCK
#endif
#define ITEMS (BLOCK / LANES) // work-items of a block
#if LANES == 1
typedef float lanes;
#define LOAD(p) (*(p))
#define STORE(v, p) (*(p) = (v))
#define STORE_STREAM STORE
#else
typedef vecf lanes;
#define LOAD EQ_LOAD
#define STORE EQ_STORE
#define STORE_STREAM EQ_STORE_STREAM
#endif
#define TILES_GROUP (LANES == 1 ? 64 : 1) // work-items of a group, over tiles and over filters
#define FILTER_GROUP (LANES == 1 ? 4 * BLOCK : BLOCK)
#ifndef SPAN
#define SPAN 4 // tiles of a work-item
#endif

// ---- one-dimensional transforms, over values `step` apart

// B^T: SIDE values to SIDE
static void transform_input(const lanes *in, int in_step, lanes *out, int out_step)
{
#if TILE == 2
    const lanes a = in[0], b = in[in_step], c = in[2 * in_step], d = in[3 * in_step];
    out[0] = a - c;
    out[out_step] = b + c;
    out[2 * out_step] = c - b;
    out[3 * out_step] = b - d;
#else
    const lanes a = in[0], b = in[in_step], c = in[2 * in_step], d = in[3 * in_step], e = in[4 * in_step];
    const lanes f = in[5 * in_step];
    const lanes near = EQ_MAD((lanes)(-Q2), c, e), near_odd = EQ_MAD((lanes)(-Q2), b, d);
    const lanes far = EQ_MAD((lanes)(-P2), c, e), far_odd = EQ_MAD((lanes)(-P2), b, d);
    out[0] = EQ_MAD((lanes)(P2 * Q2), a, EQ_MAD((lanes)(-P2 - Q2), c, e));
    out[out_step] = EQ_MAD((lanes)(P), near_odd, near);
    out[2 * out_step] = EQ_MAD((lanes)(-P), near_odd, near);
    out[3 * out_step] = EQ_MAD((lanes)(Q), far_odd, far);
    out[4 * out_step] = EQ_MAD((lanes)(-Q), far_odd, far);
    out[5 * out_step] = EQ_MAD((lanes)(P2 * Q2), b, EQ_MAD((lanes)(-P2 - Q2), d, f));
#endif
}

// A^T: SIDE values to TILE
static void transform_output(const lanes *in, int in_step, lanes *out, int out_step)
{
#if TILE == 2
    const lanes a = in[0], b = in[in_step], c = in[2 * in_step], d = in[3 * in_step];
    out[0] = a + b + c;
    out[out_step] = b - c - d;
#else
    const lanes b = in[in_step], c = in[2 * in_step], d = in[3 * in_step], e = in[4 * in_step];
    const lanes near = b + c, near_odd = b - c, far = d + e, far_odd = d - e;
    out[0] = in[0] + near + far;
    out[out_step] = EQ_MAD((lanes)(Q), far_odd, (lanes)(P) * near_odd);
    out[2 * out_step] = EQ_MAD((lanes)(Q2), far, (lanes)(P2) * near);
    out[3 * out_step] = EQ_MAD((lanes)(Q * Q2), far_odd, EQ_MAD((lanes)(P * P2), near_odd, in[5 * in_step]));
#endif
}

// G: 3 values to SIDE
static void transform_filter(const lanes *in, int in_step, lanes *out, int out_step)
{
    const lanes a = in[0], b = in[in_step], c = in[2 * in_step];
#if TILE == 2
    out[0] = a;
    out[out_step] = (lanes)(0.5f) * (a + c + b);
    out[2 * out_step] = (lanes)(0.5f) * (a + c - b);
    out[3 * out_step] = c;
#else
    const lanes near = EQ_MAD((lanes)(AT_P), a, (lanes)(AT_P * P2) * c), near_odd = (lanes)(AT_P * P) * b;
    const lanes far = EQ_MAD((lanes)(AT_Q), a, (lanes)(AT_Q * Q2) * c), far_odd = (lanes)(AT_Q * Q) * b;
    out[0] = (lanes)(AT_ZERO) * a;
    out[out_step] = near + near_odd;
    out[2 * out_step] = near - near_odd;
    out[3 * out_step] = far + far_odd;
    out[4 * out_step] = far - far_odd;
    out[5 * out_step] = c;
#endif
}

// A: TILE values to SIDE
static void transform_gradient(const lanes *in, int in_step, lanes *out, int out_step)
{
    const lanes a = in[0], b = in[in_step];
#if TILE == 2
    out[0] = a;
    out[out_step] = a + b;
    out[2 * out_step] = a - b;
    out[3 * out_step] = -b;
#else
    const lanes c = in[2 * in_step], d = in[3 * in_step];
    const lanes near = EQ_MAD((lanes)(P2), c, a), near_odd = EQ_MAD((lanes)(P * P2), d, (lanes)(P) * b);
    const lanes far = EQ_MAD((lanes)(Q2), c, a), far_odd = EQ_MAD((lanes)(Q * Q2), d, (lanes)(Q) * b);
    out[0] = a;
    out[out_step] = near + near_odd;
    out[2 * out_step] = near - near_odd;
    out[3 * out_step] = far + far_odd;
    out[4 * out_step] = far - far_odd;
    out[5 * out_step] = d;
#endif
}

// G^T: SIDE values to 3
static void transform_sums(const lanes *in, int in_step, lanes *out, int out_step)
{
    const lanes a = in[0], b = in[in_step], c = in[2 * in_step], d = in[3 * in_step];
#if TILE == 2
    const lanes even = (lanes)(0.5f) * (b + c);
    out[0] = a + even;
    out[out_step] = (lanes)(0.5f) * (b - c);
    out[2 * out_step] = even + d;
#else
    const lanes e = in[4 * in_step], near = b + c, far = d + e;
    out[0] = EQ_MAD((lanes)(AT_ZERO), a, EQ_MAD((lanes)(AT_Q), far, (lanes)(AT_P) * near));
    out[out_step] = EQ_MAD((lanes)(AT_Q * Q), d - e, (lanes)(AT_P * P) * (b - c));
    out[2 * out_step] = EQ_MAD((lanes)(AT_Q * Q2), far, EQ_MAD((lanes)(AT_P * P2), near, in[5 * in_step]));
#endif
}

// u = G w G^T of one input channel, times a factor; its taps and points are that far apart.
static void filter_tile(__global const float *w, const lanes factor, __global float *u, const ulong point)
{
    lanes taps[9], middle[3 * SIDE], points[POINTS];
    #pragma unroll
    for (int k = 0; k < 9; k++)
        taps[k] = factor * LOAD(w + k * (BLOCK * BLOCK));
    #pragma unroll
    for (int j = 0; j < 3; j++)
        transform_filter(taps + j, 3, middle + j, 3);
    #pragma unroll
    for (int i = 0; i < SIDE; i++)
        transform_filter(middle + 3 * i, 1, points + SIDE * i, 1);
    #pragma unroll
    for (int k = 0; k < POINTS; k++)
        STORE(points[k], u + k * point);
}

// u = G w G^T, times a factor per output channel where there is one. Work-items: (BLOCK input channels x ITEMS, x_blocks,
// oc_blocks).
__kernel __attribute__((reqd_work_group_size(FILTER_GROUP, 1, 1)))
void conv2d_winograd_filter(EQ_IN(float, w), __global const float *scale_base, const ulong scale_at, EQ_BUF(float, u),
                            const int x_blocks, const int oc_blocks, const int has_scale)
{
    EQ_IN_PTR(float, w);
    EQ_PTR(float, u);
    const int c = (int)get_global_id(0) / ITEMS, ib = (int)get_global_id(1), ob = (int)get_global_id(2);
    const int lane = (int)get_global_id(0) % ITEMS;
    const ulong pair = (ulong)ob * x_blocks + ib, at = c * BLOCK + lane;
    const lanes factor = has_scale ? LOAD(scale_base + scale_at + ob * BLOCK + lane) : (lanes)(1.0f);
    filter_tile(w + pair * 9 * (BLOCK * BLOCK) + at, factor, u + pair * (BLOCK * BLOCK) + at,
                (ulong)oc_blocks * x_blocks * (BLOCK * BLOCK));
}

// ---- steps: gradient of the filter dw = G^T ( sum over tiles of (B^T x B) * (A dz A^T) ) G

// One row of points after another, so that few values are alive.
static void input_tile(__global const float *x, const int x_row, const int y, const int px, const int low, const int high_y,
                       const int high_x, __global float *v, const ulong point)
{
    lanes rows[POINTS];
    const bool is_whole = y >= low && px >= low && y + SIDE <= high_y && px + SIDE <= high_x;
    if (is_whole) {
        #pragma unroll
        for (int j = 0; j < SIDE; j++) {
            lanes column[SIDE];
            #pragma unroll
            for (int i = 0; i < SIDE; i++)
                column[i] = LOAD(x + (y + i) * x_row + (px + j) * BLOCK);
            transform_input(column, 1, rows + j, SIDE);
        }
    } else {
        #pragma unroll
        for (int j = 0; j < SIDE; j++) {
            lanes column[SIDE];
            #pragma unroll
            for (int i = 0; i < SIDE; i++) {
                const bool is_inside = y + i >= low && y + i < high_y && px + j >= low && px + j < high_x;
                column[i] = is_inside ? LOAD(x + (y + i) * x_row + (px + j) * BLOCK) : (lanes)(0.0f);
            }
            transform_input(column, 1, rows + j, SIDE);
        }
    }
    #pragma unroll
    for (int i = 0; i < SIDE; i++) {
        lanes points[SIDE];
        transform_input(rows + SIDE * i, 1, points, 1);
        #pragma unroll
        for (int j = 0; j < SIDE; j++)
            STORE(points[j], v + (SIDE * i + j) * point);
    }
}

static void gradient_tile(__global const float *dz, const int row, const int y, const int px, const int oh, const int ow,
                          __global float *d, const ulong point)
{
    lanes rows[SIDE * TILE];
    #pragma unroll
    for (int j = 0; j < TILE; j++) {
        lanes column[TILE];
        #pragma unroll
        for (int i = 0; i < TILE; i++)
            column[i] = y + i < oh && px + j < ow ? LOAD(dz + (y + i) * row + (px + j) * BLOCK) : (lanes)(0.0f);
        transform_gradient(column, 1, rows + j, TILE);
    }
    #pragma unroll
    for (int i = 0; i < SIDE; i++) {
        lanes points[SIDE];
        transform_gradient(rows + TILE * i, 1, points, 1);
        #pragma unroll
        for (int j = 0; j < SIDE; j++)
            STORE(points[j], d + (SIDE * i + j) * point);
    }
}

// Transforms tiles first .. first + count of all images, numbered together; those from num_tiles on are zeros. Work-items:
// (ITEMS for SPAN tiles each, blocks of x and then of dz).
//   x   f32 [n, x_blocks, rows, columns, BLOCK]      read    first element: pixel (0, 0)
//   dz  f32 [n, oc_blocks, oh, ow, BLOCK]            read    first element: pixel (0, 0); none where oc_blocks is 0
//   v   f32 [POINTS, x_blocks, chunk, BLOCK]         write   B^T x B
//   d   f32 [POINTS, oc_blocks, chunk, BLOCK]        write   A dz A^T
// Output (y, x) has input (y + first_y, x + first_x) under its first tap; rows and columns from `low` to `high` (of x, not
// included) are readable, others count as zeros.
__kernel __attribute__((reqd_work_group_size(TILES_GROUP, 1, 1)))
void conv2d_winograd_tiles(EQ_IN(float, x), EQ_IN(float, dz), EQ_BUF(float, v), EQ_BUF(float, d), const int x_row,
                           const int x_plane, const int x_blocks, const int first_y, const int first_x, const int low,
                           const int high_y, const int high_x, const int oc_blocks, const int oh, const int ow,
                           const int d_row, const int d_plane, const int num_tiles, const int first, const int count,
                           const int chunk)
{
    EQ_IN_PTR(float, x);
    EQ_IN_PTR(float, dz);
    EQ_PTR(float, v);
    EQ_PTR(float, d);
    const int tiles_h = (oh + TILE - 1) / TILE, tiles_w = (ow + TILE - 1) / TILE, b = (int)get_global_id(1);
    const int lane = (int)get_global_id(0) % ITEMS, begin = (int)get_global_id(0) / ITEMS * SPAN;
    const int end = min(count, begin + SPAN);
    for (int t = begin; t < end; t++) {
        const int tile = first + t, row = tile / tiles_w, n = row / tiles_h;
        const int y = (row - n * tiles_h) * TILE, px = (tile - row * tiles_w) * TILE;
        if (b < x_blocks)
            input_tile(x + ((ulong)n * x_blocks + b) * x_plane + lane, x_row, y + first_y, px + first_x, low,
                       tile < num_tiles ? high_y : low, high_x, v + ((ulong)b * chunk + t) * BLOCK + lane,
                       (ulong)x_blocks * chunk * BLOCK);
        else
            gradient_tile(dz + ((ulong)n * oc_blocks + b - x_blocks) * d_plane + lane, d_row, y, px,
                          tile < num_tiles ? oh : 0, ow, d + ((ulong)(b - x_blocks) * chunk + t) * BLOCK + lane,
                          (ulong)oc_blocks * chunk * BLOCK);
    }
}

// dw = G^T du G, du summed over chunks and parts in their order. Work-items: (BLOCK input channels x ITEMS, x_blocks,
// oc_blocks).
//   du  f32 [chunks, POINTS, parts, oc_blocks, x_blocks, BLOCK, BLOCK]    read
//   dw  f32 [oc_blocks, x_blocks, 3, 3, BLOCK, BLOCK]                     write
__kernel __attribute__((reqd_work_group_size(FILTER_GROUP, 1, 1)))
void conv2d_winograd_filter_grad(EQ_IN(float, du), EQ_BUF(float, dw), const int x_blocks, const int oc_blocks,
                                 const int chunks, const int parts)
{
    EQ_IN_PTR(float, du);
    EQ_PTR(float, dw);
    const int c = (int)get_global_id(0) / ITEMS, ib = (int)get_global_id(1), ob = (int)get_global_id(2);
    const int lane = (int)get_global_id(0) % ITEMS;
    const ulong pair = (ulong)ob * x_blocks + ib, at = c * BLOCK + lane, part = (ulong)oc_blocks * x_blocks * (BLOCK * BLOCK);
    lanes middle[3 * SIDE], taps[9];
    du += pair * (BLOCK * BLOCK) + at;
    #pragma unroll
    for (int j = 0; j < SIDE; j++) {
        lanes column[SIDE];
        #pragma unroll
        for (int i = 0; i < SIDE; i++) {
            column[i] = LOAD(du + (SIDE * i + j) * parts * part);
            for (int k = 1; k < chunks * parts; k++)
                column[i] += LOAD(du + ((ulong)(k / parts * POINTS + SIDE * i + j) * parts + k % parts) * part);
        }
        transform_sums(column, 1, middle + j, SIDE);
    }
    #pragma unroll
    for (int i = 0; i < 3; i++)
        transform_sums(middle + SIDE * i, 1, taps + 3 * i, 1);
    #pragma unroll
    for (int k = 0; k < 9; k++)
        STORE(taps[k], dw + (pair * 9 + k) * (BLOCK * BLOCK) + at);
}

#ifndef ACT
#define ACT ACT_NONE
#endif

// m: products of a tile, `point` apart
static void output_tile(__global const float *m, const ulong point, lanes *z)
{
    lanes middle[TILE * SIDE];
    #pragma unroll
    for (int j = 0; j < SIDE; j++) {
        lanes column[SIDE];
        #pragma unroll
        for (int i = 0; i < SIDE; i++)
            column[i] = LOAD(m + (SIDE * i + j) * point);
        transform_output(column, 1, middle + j, SIDE);
    }
    #pragma unroll
    for (int i = 0; i < TILE; i++)
        transform_output(middle + SIDE * i, 1, z + TILE * i, 1);
}

// act(out + bias + add) of the pixels from (y0, x0) that lie inside of oh x ow. z and add begin at the block's pixel (0, 0).
static void store_tile(const lanes *out, const lanes bias, const int y0, const int x0, const int oh, const int ow,
                       __global const float *add, const int a_row, const int has_add, __global float *z, const int z_row)
{
    #pragma unroll
    for (int i = 0; i < TILE; i++)
        #pragma unroll
        for (int j = 0; j < TILE; j++)
            if (y0 + i < oh && x0 + j < ow) {
                const ulong y = y0 + i, px = x0 + j;
                lanes sum = out[TILE * i + j] + bias;
                if (has_add)
                    sum += LOAD(add + y * a_row + px * BLOCK);
                STORE_STREAM(ACT_APPLY(ACT, sum, lanes), z + y * z_row + px * BLOCK);
            }
}

#if LANES == 1
// ---- for GPUs: z = act(A^T m A + bias + add) of tiles first .. first + count. Work-items: (tiles x ITEMS, oc_blocks).
//   m     f32 [POINTS, oc_blocks, chunk, BLOCK]      read
//   bias  f32 [oc_blocks, BLOCK]                     read     only where has_bias
//   add   f32 as z                                   read     only where has_add; may be z itself
//   z     f32 [n, oc_blocks, oh, ow, BLOCK]          write
__kernel __attribute__((reqd_work_group_size(TILES_GROUP, 1, 1)))
void conv2d_winograd_output(EQ_IN(float, m), __global const float *bias_base, const ulong bias_at,
                            __global const float *add_base, const ulong add_at, EQ_BUF(float, z), const int oc_blocks,
                            const int oh, const int ow, const int z_row, const int z_plane, const int a_row, const int a_plane,
                            const int has_bias, const int has_add, const int first, const int count, const int chunk)
{
    EQ_IN_PTR(float, m);
    EQ_PTR(float, z);
    const int tiles_h = (oh + TILE - 1) / TILE, tiles_w = (ow + TILE - 1) / TILE, b = (int)get_global_id(1);
    const int lane = (int)get_global_id(0) % ITEMS, t = (int)get_global_id(0) / ITEMS;
    if (t >= count)
        return;
    const int tile = first + t, row = tile / tiles_w, n = row / tiles_h;
    const ulong block = (ulong)n * oc_blocks + b;
    const float bias = has_bias ? bias_base[bias_at + b * BLOCK + lane] : 0.0f;
    float out[TILE * TILE];
    output_tile(m + ((ulong)b * chunk + t) * BLOCK + lane, (ulong)oc_blocks * chunk * BLOCK, out);
    store_tile(out, bias, (row - n * tiles_h) * TILE, (tile - row * tiles_w) * TILE, oh, ow,
               add_base + add_at + block * a_plane + lane, a_row, has_add, z + block * z_plane + lane, z_row);
}
#else
// ---- for CPUs
// The whole convolution.
//   x        f32 [n, x_blocks, rows, columns, BLOCK]       read     first element: pixel (0, 0)
//   u        f32 [POINTS, oc_blocks, x_blocks, BLOCK, BLOCK]  read    LATE: w, the stored filter
//   bias     f32 [oc_blocks, BLOCK]                        read     only where has_bias
//   add      f32 as z                                      read     only where has_add; may be z itself
//   scratch  f32 [splits, walkers, scratch_elems]          scratch  see below
//   z        f32 [n, oc_blocks, oh, ow, BLOCK]             write    z = act(convolution + bias + add)
// Output (y, x) has input (y + first_y, x + first_x) under its first tap; rows and columns from `low` to `high` (of x, not
// included) are readable, others count as zeros. Tiles of all images are numbered together and cut into chunks of
// `chunk` tiles, a multiple of TW; of get_global_size(0) walkers each takes every `walkers`-th chunk, for `split_blocks` blocks
// of outputs, a multiple of OBT, with its own scratch, which stays in the second-level cache: transformed input [POINTS,
// x_blocks, chunk, BLOCK], then products [group, chunk, POINTS, BLOCK] for `group` blocks of outputs at a time, OBT <= group <=
// oc_blocks. The last group is moved back to end with the blocks.
// LATE: the filter is transformed where it is used, a block of x and one of outputs at a time, which stay in the first-level
// cache: into scratch after the products, [POINTS, BLOCK, BLOCK], points a line farther apart, lest all of them meet in one set
// of the cache. There OBT and group are 1.
#ifndef TW
#define TW 7 // tiles in a register tile
#endif
#ifndef OBT
#define OBT 2 // blocks of outputs in a register tile
#endif

#ifndef AHEAD
#define AHEAD 0 // rows of BLOCK filters that a register tile fetches ahead, per block of x: at most BLOCK
#endif
#ifndef LATE
#define LATE 0
#endif
// check: -DLATE=1 -DOBT=1 -DAHEAD=4

// Products of TW tiles and OBT blocks at one point, added to those in m unless is_first. While its filters are in the cache, it
// fetches AHEAD rows of each block of x of those that come next: `next` is its share's first row.
static void multiply(__global const float *v, const int v_plane, __global const float *u, const ulong u_block,
                     const int x_blocks, __global float *m, const ulong m_block, __global const float *next,
                     const int is_first)
{
    vecf acc[OBT][TW];
    #pragma unroll
    for (int b = 0; b < OBT; b++)
        #pragma unroll
        for (int t = 0; t < TW; t++)
            acc[b][t] = is_first ? (vecf)(0.0f) : EQ_LOAD(m + b * m_block + t * (POINTS * BLOCK));
    for (int ib = 0; ib < x_blocks; ib++, v += v_plane, u += BLOCK * BLOCK) {
        #pragma unroll
        for (int a = 0; a < AHEAD; a++)
            EQ_PREFETCH(next + a * BLOCK);
        next += BLOCK * BLOCK;
        #pragma unroll
        for (int c = 0; c < BLOCK; c++) {
            vecf w[OBT];
            #pragma unroll
            for (int b = 0; b < OBT; b++)
                w[b] = EQ_LOAD(u + b * u_block + c * BLOCK);
            #pragma unroll
            for (int t = 0; t < TW; t++) {
                const vecf value = (vecf)(v[t * BLOCK + c]);
                #pragma unroll
                for (int b = 0; b < OBT; b++)
                    acc[b][t] = EQ_MAD(value, w[b], acc[b][t]);
            }
        }
    }
    #pragma unroll
    for (int b = 0; b < OBT; b++)
        #pragma unroll
        for (int t = 0; t < TW; t++)
            EQ_STORE(acc[b][t], m + b * m_block + t * (POINTS * BLOCK));
}

__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void conv2d_winograd_vector(EQ_IN(float, x), EQ_IN(float, u), __global const float *bias_base, const ulong bias_at,
                            __global const float *add_base, const ulong add_at, EQ_BUF(float, scratch), EQ_BUF(float, z),
                            const int x_row, const int x_plane, const int x_blocks, const int first_y, const int first_x,
                            const int low, const int high_y, const int high_x, const int oc_blocks, const int oh,
                            const int ow, const int z_row, const int z_plane, const int a_row, const int a_plane,
                            const int has_bias, const int has_add, const int num_tiles, const int chunk, const int group,
                            const int split_blocks, const int scratch_elems)
{
    EQ_IN_PTR(float, x);
    EQ_IN_PTR(float, u);
    EQ_PTR(float, scratch);
    EQ_PTR(float, z);
    const int tiles_h = (oh + TILE - 1) / TILE, tiles_w = (ow + TILE - 1) / TILE, item = (int)get_global_id(0);
    const int v_plane = chunk * BLOCK;
    const ulong v_point = (ulong)x_blocks * v_plane, m_block = (ulong)chunk * (POINTS * BLOCK);
#if !LATE
    const ulong u_block = (ulong)x_blocks * (BLOCK * BLOCK), u_point = oc_blocks * u_block;
#endif
    const int split = (int)get_global_id(1), from_b = split * split_blocks, end_b = min(from_b + split_blocks, oc_blocks);
    __global float *v = scratch + ((ulong)split * get_global_size(0) + item) * scratch_elems, *m = v + POINTS * v_point;

    for (int first = item * chunk; first < num_tiles; first += (int)get_global_size(0) * chunk) {
        const int count = min(chunk, num_tiles - first), padded = (count + TW - 1) / TW * TW;
        for (int ib = 0; ib < x_blocks; ib++) {
            for (int t = 0; t < count; t++) {
                const int tile = first + t, row = tile / tiles_w, n = row / tiles_h;
                input_tile(x + ((ulong)n * x_blocks + ib) * x_plane, x_row, (row - n * tiles_h) * TILE + first_y,
                           (tile - row * tiles_w) * TILE + first_x, low, high_y, high_x, v + ib * v_plane + t * BLOCK, v_point);
            }
            for (int t = count; t < padded; t++)
                for (int k = 0; k < POINTS; k++)
                    EQ_STORE((vecf)(0.0f), v + k * v_point + ib * v_plane + t * BLOCK);
        }
        for (int want_g = from_b; want_g < end_b; want_g += group) {
            const int g = min(want_g, oc_blocks - group), end = min(want_g + group, end_b) - g;
#if LATE
            const ulong w_pair = 9 * BLOCK * BLOCK, late_point = (BLOCK + 1) * BLOCK;
            __global const float *w = u + g * x_blocks * w_pair;
            __global float *late = m + m_block;
            for (int ib = 0; ib < x_blocks; ib++, w += w_pair) {
                const bool has_next = ib + 1 < x_blocks || g + 1 < oc_blocks;
                for (int c = 0; c < BLOCK; c++)
                    filter_tile(w + c * BLOCK, (lanes)(1.0f), late + c * BLOCK, late_point);
                for (int k = 0, row = 0; k < POINTS; k++)
                    for (int t = 0; t < padded; t += TW, row = (row + AHEAD) % (9 * BLOCK))
                        multiply(v + k * v_point + ib * v_plane + t * BLOCK, v_plane, late + k * late_point, 0, 1,
                                 m + (t * POINTS + k) * BLOCK, 0, w + (has_next ? w_pair : 0) + row * BLOCK, ib == 0);
            }
#else
            for (int k = 0; k < POINTS; k++)
                for (int want = want_g - g; want < end; want += OBT) {
                    const int b = min(want, end - OBT);
                    const bool is_last = want + OBT >= end; // of this point
                    const int next_k = is_last ? min(k + 1, POINTS - 1) : k;
                    const int next_b = min(is_last ? want_g - g : want + OBT, end - OBT);
                    __global const float *next = u + next_k * u_point + (g + next_b) * u_block;
                    for (int t = 0, row = 0; t < padded; t += TW, row = (row + AHEAD) % (OBT * BLOCK))
                        multiply(v + k * v_point + t * BLOCK, v_plane, u + k * u_point + (g + b) * u_block, u_block, x_blocks,
                                 m + b * m_block + (t * POINTS + k) * BLOCK, m_block,
                                 next + row / BLOCK * u_block + row % BLOCK * BLOCK, 1);
                }
#endif
            for (int b = want_g - g; b < end; b++) {
                const vecf bias = has_bias ? EQ_LOAD(bias_base + bias_at + (g + b) * BLOCK) : (vecf)(0.0f);
                for (int t = 0; t < count; t++) {
                    const int tile = first + t, row = tile / tiles_w, n = row / tiles_h;
                    const int y0 = (row - n * tiles_h) * TILE, x0 = (tile - row * tiles_w) * TILE;
                    const ulong block = (ulong)n * oc_blocks + g + b;
                    vecf out[TILE * TILE];
                    output_tile(m + b * m_block + t * (POINTS * BLOCK), BLOCK, out);
                    store_tile(out, bias, y0, x0, oh, ow, add_base + add_at + block * a_plane, a_row, has_add,
                               z + block * z_plane, z_row);
                }
            }
        }
    }
}

// Sums of the filter's gradient: chunks of tiles follow each other in launches of conv2d_winograd_tiles and this, so sums run
// over tiles in their order.
//   v   f32 [POINTS, x_blocks, chunk, BLOCK]               read
//   d   f32 [POINTS, oc_blocks, chunk, BLOCK]              read
//   du  f32 [POINTS, oc_blocks, x_blocks, BLOCK, BLOCK]    write    read first unless `is_first`
// A work-item has a point and a block of x, for all blocks of dz.
#ifndef NI
#define NI 8 // input channels in a register tile: divides BLOCK
#endif

__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void conv2d_winograd_sums(EQ_IN(float, v), EQ_IN(float, d), EQ_BUF(float, du), const int x_blocks, const int oc_blocks,
                          const int count, const int chunk, const int is_first)
{
    EQ_IN_PTR(float, v);
    EQ_IN_PTR(float, d);
    EQ_PTR(float, du);
    const int ib = (int)get_global_id(0), k = (int)get_global_id(1);
    v += ((ulong)k * x_blocks + ib) * chunk * BLOCK;
    d += (ulong)k * oc_blocks * chunk * BLOCK;
    for (int want = 0; want < oc_blocks; want += OBT) {
        const int b0 = min(want, oc_blocks - OBT);
        for (int c0 = 0; c0 < BLOCK; c0 += NI) {
            __global const float *vt = v + c0, *dt = d + (ulong)b0 * chunk * BLOCK;
            vecf acc[OBT][NI];
            #pragma unroll
            for (int b = 0; b < OBT; b++)
                #pragma unroll
                for (int c = 0; c < NI; c++)
                    acc[b][c] = (vecf)(0.0f);
            for (int t = 0; t < count; t++, vt += BLOCK, dt += BLOCK) {
                vecf grad[OBT];
                #pragma unroll
                for (int b = 0; b < OBT; b++)
                    grad[b] = EQ_LOAD(dt + (ulong)b * chunk * BLOCK);
                #pragma unroll
                for (int c = 0; c < NI; c++) {
                    const vecf value = (vecf)(vt[c]);
                    #pragma unroll
                    for (int b = 0; b < OBT; b++)
                        acc[b][c] = EQ_MAD(value, grad[b], acc[b][c]);
                }
            }
            #pragma unroll
            for (int b = 0; b < OBT; b++)
                #pragma unroll
                for (int c = 0; c < NI; c++)
                    if (b0 + b >= want) {
                        __global float *to =
                            du + (((ulong)k * oc_blocks + b0 + b) * x_blocks + ib) * (BLOCK * BLOCK) + (c0 + c) * BLOCK;
                        EQ_STORE(is_first ? acc[b][c] : acc[b][c] + EQ_LOAD(to), to);
                    }
        }
    }
}
#endif

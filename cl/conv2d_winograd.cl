// Winograd's convolution for 3 x 3 filters with stride 1, F(TILE x TILE, 3 x 3): Lavin and Gray, "Fast Algorithms for
// Convolutional Neural Networks", 2016, with the points 0, 1, -1 (and 2, -2), infinity. An output tile of TILE x TILE pixels
// comes from SIDE x SIDE input pixels, SIDE = TILE + 2, with SIDE * SIDE products instead of 9 * TILE * TILE:
//     z = A^T ( sum over channels of (G w G^T) * (B^T x B) ) A
//   w  f32 [oc_blocks, x_blocks, 3, 3, BLOCK ic, BLOCK oc]                a filter in its stored form
//   u  f32 [SIDE * SIDE, oc_blocks, x_blocks, BLOCK ic, BLOCK oc]         its transform
#ifndef TILE
#define TILE 4 // 2 or 4
#endif
#define SIDE (TILE + 2)
#define POINTS (SIDE * SIDE)

// ---- one-dimensional transforms, over values `step` apart

// B^T: SIDE values to SIDE
static void transform_input(const vecf *in, int in_step, vecf *out, int out_step)
{
#if TILE == 2
    const vecf a = in[0], b = in[in_step], c = in[2 * in_step], d = in[3 * in_step];
    out[0] = a - c;
    out[out_step] = b + c;
    out[2 * out_step] = c - b;
    out[3 * out_step] = b - d;
#else
    const vecf a = in[0], b = in[in_step], c = in[2 * in_step], d = in[3 * in_step], e = in[4 * in_step], f = in[5 * in_step];
    const vecf even = EQ_MAD((vecf)(-4.0f), c, e), odd = EQ_MAD((vecf)(-4.0f), b, d), ce = e - c, bd = (vecf)(2.0f) * (d - b);
    out[0] = EQ_MAD((vecf)(4.0f), a, EQ_MAD((vecf)(-5.0f), c, e));
    out[out_step] = even + odd;
    out[2 * out_step] = even - odd;
    out[3 * out_step] = ce + bd;
    out[4 * out_step] = ce - bd;
    out[5 * out_step] = EQ_MAD((vecf)(4.0f), b, EQ_MAD((vecf)(-5.0f), d, f));
#endif
}

// A^T: SIDE values to TILE
static void transform_output(const vecf *in, int in_step, vecf *out, int out_step)
{
#if TILE == 2
    const vecf a = in[0], b = in[in_step], c = in[2 * in_step], d = in[3 * in_step];
    out[0] = a + b + c;
    out[out_step] = b - c - d;
#else
    const vecf b = in[in_step], c = in[2 * in_step], d = in[3 * in_step], e = in[4 * in_step];
    const vecf near = b + c, near_odd = b - c, far = d + e, far_odd = d - e;
    out[0] = in[0] + near + far;
    out[out_step] = EQ_MAD((vecf)(2.0f), far_odd, near_odd);
    out[2 * out_step] = EQ_MAD((vecf)(4.0f), far, near);
    out[3 * out_step] = EQ_MAD((vecf)(8.0f), far_odd, near_odd) + in[5 * in_step];
#endif
}

// G: 3 values to SIDE
static void transform_filter(const vecf *in, int in_step, vecf *out, int out_step)
{
    const vecf a = in[0], b = in[in_step], c = in[2 * in_step];
#if TILE == 2
    out[0] = a;
    out[out_step] = (vecf)(0.5f) * (a + c + b);
    out[2 * out_step] = (vecf)(0.5f) * (a + c - b);
    out[3 * out_step] = c;
#else
    const vecf near = (vecf)(-1.0f / 6.0f) * (a + c), near_odd = (vecf)(1.0f / 6.0f) * b;
    const vecf far = EQ_MAD((vecf)(1.0f / 24.0f), a, (vecf)(1.0f / 6.0f) * c), far_odd = (vecf)(1.0f / 12.0f) * b;
    out[0] = (vecf)(0.25f) * a;
    out[out_step] = near - near_odd;
    out[2 * out_step] = near + near_odd;
    out[3 * out_step] = far + far_odd;
    out[4 * out_step] = far - far_odd;
    out[5 * out_step] = c;
#endif
}

// u = G w G^T, times a factor per output channel where there is one. One work-item per (input channel, block, block of
// outputs).
__kernel __attribute__((reqd_work_group_size(BLOCK, 1, 1)))
void conv2d_winograd_filter(EQ_IN(float, w), __global const float *scale_base, const ulong scale_at, EQ_BUF(float, u),
                            const int x_blocks, const int oc_blocks, const int has_scale)
{
    EQ_IN_PTR(float, w);
    EQ_PTR(float, u);
    const int c = (int)get_global_id(0), ib = (int)get_global_id(1), ob = (int)get_global_id(2);
    const ulong pair = (ulong)ob * x_blocks + ib;
    vecf taps[9], middle[3 * SIDE], points[POINTS];
    const vecf factor = has_scale ? EQ_LOAD(scale_base + scale_at + ob * BLOCK) : (vecf)(1.0f);
    #pragma unroll
    for (int k = 0; k < 9; k++)
        taps[k] = factor * EQ_LOAD(w + (pair * 9 + k) * (BLOCK * BLOCK) + c * BLOCK);
    #pragma unroll
    for (int j = 0; j < 3; j++)
        transform_filter(taps + j, 3, middle + j, 3);
    #pragma unroll
    for (int i = 0; i < SIDE; i++)
        transform_filter(middle + 3 * i, 1, points + SIDE * i, 1);
    const ulong point = (ulong)oc_blocks * x_blocks * (BLOCK * BLOCK);
    #pragma unroll
    for (int k = 0; k < POINTS; k++)
        EQ_STORE(points[k], u + k * point + pair * (BLOCK * BLOCK) + c * BLOCK);
}

// ---- convolution for CPUs
//   x        f32 [n, x_blocks, rows, columns, BLOCK]       read     first element: pixel (0, 0)
//   u        f32 [POINTS, oc_blocks, x_blocks, BLOCK, BLOCK]  read
//   bias     f32 [oc_blocks, BLOCK]                        read     only where has_bias
//   add      f32 as z                                      read     only where has_add; may be z itself
//   scratch  f32 [work-items, scratch_elems]               scratch
//   z        f32 [n, oc_blocks, oh, ow, BLOCK]             write    z = act(convolution + bias + add)
// Output (y, x) has input (y + first_y, x + first_x) under its first tap; rows and columns from `low` to `high` (of x, not
// included) are readable, others count as zeros. Tiles of all images are numbered together and cut into chunks of
// `chunk` tiles, a multiple of TW; a work-item walks over every `work-items`-th chunk with its own scratch, which stays in the
// second-level cache: transformed input [POINTS, x_blocks, chunk, BLOCK], then products [group, chunk, POINTS, BLOCK] for
// `group` blocks of outputs at a time, OBT <= group <= oc_blocks. The last group is moved back to end with the blocks.
#ifndef TW
#define TW 7 // tiles in a register tile
#endif
#ifndef OBT
#define OBT 2 // blocks of outputs in a register tile
#endif
#ifndef ACT
#define ACT ACT_NONE
#endif

// One row of points after another, so that few vectors are alive.
static void input_tile(__global const float *x, const int x_row, const int y, const int px, const int low, const int high_y,
                       const int high_x, __global float *v, const ulong point)
{
    vecf rows[POINTS];
    const bool is_whole = y >= low && px >= low && y + SIDE <= high_y && px + SIDE <= high_x;
    if (is_whole) {
        #pragma unroll
        for (int j = 0; j < SIDE; j++) {
            vecf column[SIDE];
            #pragma unroll
            for (int i = 0; i < SIDE; i++)
                column[i] = EQ_LOAD(x + (y + i) * x_row + (px + j) * BLOCK);
            transform_input(column, 1, rows + j, SIDE);
        }
    } else {
        #pragma unroll
        for (int j = 0; j < SIDE; j++) {
            vecf column[SIDE];
            #pragma unroll
            for (int i = 0; i < SIDE; i++) {
                const bool is_inside = y + i >= low && y + i < high_y && px + j >= low && px + j < high_x;
                column[i] = is_inside ? EQ_LOAD(x + (y + i) * x_row + (px + j) * BLOCK) : (vecf)(0.0f);
            }
            transform_input(column, 1, rows + j, SIDE);
        }
    }
    #pragma unroll
    for (int i = 0; i < SIDE; i++) {
        vecf points[SIDE];
        transform_input(rows + SIDE * i, 1, points, 1);
        #pragma unroll
        for (int j = 0; j < SIDE; j++)
            EQ_STORE(points[j], v + (SIDE * i + j) * point);
    }
}

// Products of TW tiles and OBT blocks at one point.
static void multiply(__global const float *v, const int v_plane, __global const float *u, const ulong u_block,
                     const int x_blocks, __global float *m, const ulong m_block)
{
    vecf acc[OBT][TW];
    #pragma unroll
    for (int b = 0; b < OBT; b++)
        #pragma unroll
        for (int t = 0; t < TW; t++)
            acc[b][t] = (vecf)(0.0f);
    for (int ib = 0; ib < x_blocks; ib++, v += v_plane, u += BLOCK * BLOCK) {
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

static void output_tile(__global const float *m, vecf *z)
{
    vecf middle[TILE * SIDE];
    #pragma unroll
    for (int j = 0; j < SIDE; j++) {
        vecf column[SIDE];
        #pragma unroll
        for (int i = 0; i < SIDE; i++)
            column[i] = EQ_LOAD(m + (SIDE * i + j) * BLOCK);
        transform_output(column, 1, middle + j, SIDE);
    }
    #pragma unroll
    for (int i = 0; i < TILE; i++)
        transform_output(middle + SIDE * i, 1, z + TILE * i, 1);
}

__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void conv2d_winograd_vector(EQ_IN(float, x), EQ_IN(float, u), __global const float *bias_base, const ulong bias_at,
                            __global const float *add_base, const ulong add_at, EQ_BUF(float, scratch), EQ_BUF(float, z),
                            const int x_row, const int x_plane, const int x_blocks, const int first_y, const int first_x,
                            const int low, const int high_y, const int high_x, const int oc_blocks, const int oh,
                            const int ow, const int z_row, const int z_plane, const int a_row, const int a_plane,
                            const int has_bias, const int has_add, const int num_tiles, const int chunk, const int group,
                            const int scratch_elems)
{
    EQ_IN_PTR(float, x);
    EQ_IN_PTR(float, u);
    EQ_PTR(float, scratch);
    EQ_PTR(float, z);
    const int tiles_h = (oh + TILE - 1) / TILE, tiles_w = (ow + TILE - 1) / TILE, item = (int)get_global_id(0);
    const int v_plane = chunk * BLOCK;
    const ulong v_point = (ulong)x_blocks * v_plane, u_block = (ulong)x_blocks * (BLOCK * BLOCK), u_point = oc_blocks * u_block;
    const ulong m_block = (ulong)chunk * (POINTS * BLOCK);
    __global float *v = scratch + (ulong)item * scratch_elems, *m = v + POINTS * v_point;

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
        for (int want_g = 0; want_g < oc_blocks; want_g += group) {
            const int g = min(want_g, oc_blocks - group);
            for (int k = 0; k < POINTS; k++)
                for (int want = want_g - g; want < group; want += OBT) {
                    const int b = min(want, group - OBT);
                    for (int t = 0; t < padded; t += TW)
                        multiply(v + k * v_point + t * BLOCK, v_plane, u + k * u_point + (g + b) * u_block, u_block, x_blocks,
                                 m + b * m_block + (t * POINTS + k) * BLOCK, m_block);
                }
            for (int b = want_g - g; b < group; b++) {
                const vecf bias = has_bias ? EQ_LOAD(bias_base + bias_at + (g + b) * BLOCK) : (vecf)(0.0f);
                for (int t = 0; t < count; t++) {
                    const int tile = first + t, row = tile / tiles_w, n = row / tiles_h;
                    const int y0 = (row - n * tiles_h) * TILE, x0 = (tile - row * tiles_w) * TILE;
                    const ulong block = (ulong)n * oc_blocks + g + b;
                    vecf out[TILE * TILE];
                    output_tile(m + b * m_block + t * (POINTS * BLOCK), out);
                    #pragma unroll
                    for (int i = 0; i < TILE; i++)
                        #pragma unroll
                        for (int j = 0; j < TILE; j++)
                            if (y0 + i < oh && x0 + j < ow) {
                                const ulong y = y0 + i, px = x0 + j;
                                vecf sum = out[TILE * i + j] + bias;
                                if (has_add)
                                    sum += EQ_LOAD(add_base + add_at + block * a_plane + y * a_row + px * BLOCK);
                                EQ_STORE_STREAM(ACT_APPLY(ACT, sum, vecf), z + block * z_plane + y * z_row + px * BLOCK);
                            }
                }
            }
        }
    }
}

// ---- gradient of the filter, for CPUs:  dw = G^T ( sum over tiles of (B^T x B) * (A dz A^T) ) G
//   x   f32 [n, x_blocks, rows, columns, BLOCK]            read     first element: pixel (0, 0)
//   dz  f32 [n, oc_blocks, oh, ow, BLOCK]                  read     first element: pixel (0, 0)
//   v   f32 [POINTS, x_blocks, chunk, BLOCK]               scratch  transformed x of tiles first .. first + count
//   d   f32 [POINTS, oc_blocks, chunk, BLOCK]              scratch  transformed dz
//   du  f32 [POINTS, oc_blocks, x_blocks, BLOCK, BLOCK]    scratch  sums over tiles
//   dw  f32 [oc_blocks, x_blocks, 3, 3, BLOCK, BLOCK]      write
// Chunks of tiles follow each other in launches of conv2d_winograd_tiles and conv2d_winograd_sums, so sums run over tiles in
// their order.
#ifndef SPAN
#define SPAN 4 // tiles of a work-item
#endif
#ifndef NI
#define NI 8 // input channels in a register tile: divides BLOCK
#endif

// A: TILE values to SIDE
static void transform_gradient(const vecf *in, int in_step, vecf *out, int out_step)
{
    const vecf a = in[0], b = in[in_step];
#if TILE == 2
    out[0] = a;
    out[out_step] = a + b;
    out[2 * out_step] = a - b;
    out[3 * out_step] = -b;
#else
    const vecf c = in[2 * in_step], d = in[3 * in_step], even = a + c, odd = b + d;
    const vecf far = EQ_MAD((vecf)(4.0f), c, a), far_odd = EQ_MAD((vecf)(8.0f), d, (vecf)(2.0f) * b);
    out[0] = a;
    out[out_step] = even + odd;
    out[2 * out_step] = even - odd;
    out[3 * out_step] = far + far_odd;
    out[4 * out_step] = far - far_odd;
    out[5 * out_step] = d;
#endif
}

// G^T: SIDE values to 3
static void transform_sums(const vecf *in, int in_step, vecf *out, int out_step)
{
    const vecf a = in[0], b = in[in_step], c = in[2 * in_step], d = in[3 * in_step];
#if TILE == 2
    const vecf even = (vecf)(0.5f) * (b + c);
    out[0] = a + even;
    out[out_step] = (vecf)(0.5f) * (b - c);
    out[2 * out_step] = even + d;
#else
    const vecf e = in[4 * in_step], near = (vecf)(-1.0f / 6.0f) * (b + c), far = d + e;
    out[0] = EQ_MAD((vecf)(0.25f), a, EQ_MAD((vecf)(1.0f / 24.0f), far, near));
    out[out_step] = EQ_MAD((vecf)(1.0f / 6.0f), c - b, (vecf)(1.0f / 12.0f) * (d - e));
    out[2 * out_step] = EQ_MAD((vecf)(1.0f / 6.0f), far, near) + in[5 * in_step];
#endif
}

static void gradient_tile(__global const float *dz, const int row, const int y, const int px, const int oh, const int ow,
                          __global float *d, const ulong point)
{
    vecf rows[SIDE * TILE];
    #pragma unroll
    for (int j = 0; j < TILE; j++) {
        vecf column[TILE];
        #pragma unroll
        for (int i = 0; i < TILE; i++)
            column[i] = y + i < oh && px + j < ow ? EQ_LOAD(dz + (y + i) * row + (px + j) * BLOCK) : (vecf)(0.0f);
        transform_gradient(column, 1, rows + j, TILE);
    }
    #pragma unroll
    for (int i = 0; i < SIDE; i++) {
        vecf points[SIDE];
        transform_gradient(rows + TILE * i, 1, points, 1);
        #pragma unroll
        for (int j = 0; j < SIDE; j++)
            EQ_STORE(points[j], d + (SIDE * i + j) * point);
    }
}

// Transforms SPAN tiles of a block of x (the first x_blocks of dimension 1) or of dz.
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void conv2d_winograd_tiles(EQ_IN(float, x), EQ_IN(float, dz), EQ_BUF(float, v), EQ_BUF(float, d), const int x_row,
                           const int x_plane, const int x_blocks, const int first_y, const int first_x, const int low,
                           const int high_y, const int high_x, const int oc_blocks, const int oh, const int ow,
                           const int d_row, const int d_plane, const int first, const int count, const int chunk)
{
    EQ_IN_PTR(float, x);
    EQ_IN_PTR(float, dz);
    EQ_PTR(float, v);
    EQ_PTR(float, d);
    const int tiles_h = (oh + TILE - 1) / TILE, tiles_w = (ow + TILE - 1) / TILE, b = (int)get_global_id(1);
    const int end = min(count, ((int)get_global_id(0) + 1) * SPAN);
    for (int t = (int)get_global_id(0) * SPAN; t < end; t++) {
        const int tile = first + t, row = tile / tiles_w, n = row / tiles_h;
        const int y = (row - n * tiles_h) * TILE, px = (tile - row * tiles_w) * TILE;
        if (b < x_blocks)
            input_tile(x + ((ulong)n * x_blocks + b) * x_plane, x_row, y + first_y, px + first_x, low, high_y, high_x,
                       v + ((ulong)b * chunk + t) * BLOCK, (ulong)x_blocks * chunk * BLOCK);
        else
            gradient_tile(dz + ((ulong)n * oc_blocks + b - x_blocks) * d_plane, d_row, y, px, oh, ow,
                          d + ((ulong)(b - x_blocks) * chunk + t) * BLOCK, (ulong)oc_blocks * chunk * BLOCK);
    }
}

// Sums of a point and a block of x, for all blocks of dz; added to those of the chunks before unless `is_first`.
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

// dw = G^T du G. One work-item per (input channel, block, block of outputs).
__kernel __attribute__((reqd_work_group_size(BLOCK, 1, 1)))
void conv2d_winograd_filter_grad(EQ_IN(float, du), EQ_BUF(float, dw), const int x_blocks, const int oc_blocks)
{
    EQ_IN_PTR(float, du);
    EQ_PTR(float, dw);
    const int c = (int)get_global_id(0), ib = (int)get_global_id(1), ob = (int)get_global_id(2);
    const ulong pair = (ulong)ob * x_blocks + ib, point = (ulong)oc_blocks * x_blocks * (BLOCK * BLOCK);
    vecf middle[3 * SIDE], taps[9];
    #pragma unroll
    for (int j = 0; j < SIDE; j++) {
        vecf column[SIDE];
        #pragma unroll
        for (int i = 0; i < SIDE; i++)
            column[i] = EQ_LOAD(du + (SIDE * i + j) * point + pair * (BLOCK * BLOCK) + c * BLOCK);
        transform_sums(column, 1, middle + j, SIDE);
    }
    #pragma unroll
    for (int i = 0; i < 3; i++)
        transform_sums(middle + SIDE * i, 1, taps + 3 * i, 1);
    #pragma unroll
    for (int k = 0; k < 9; k++)
        EQ_STORE(taps[k], dw + (pair * 9 + k) * (BLOCK * BLOCK) + c * BLOCK);
}

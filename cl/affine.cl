// Affine map: the second pass over the activations of a unit, forward (GRAD 0) or backward (GRAD 1).
//
//   forward   out = act(M (z - k) + s_n * (z - k) + c_n + residual)
//   backward  dp = dout * act'(out),  dz = M dp + s_n * dp + E (z - k) + t_n * (z - k) + c_n,  dresidual = dp + dresidual_add
//
//   z, out, residual, dout, dz, ...  f32 blocked [n, c, h, w]    out and dz are written with their halo
//   pivot                            f32 [c]                     read   k
//   scale (s), slope (t), shift (c)  f32 [n, stride] or [stride] read   `instance` 0: the same for all images
//   matrix (M), slopes (E)           f32 [blocks, span, BLOCK, BLOCK] read   row: input, channel of block first(b) + j;
//                                                                            column: output
// The _diag form has no M and E. M and E are zero between channels of different groups; every map is zero on padding channels.
// SIMT 0: one work-item per (block, part of the pixels, image). SIMT 1: a work-item does four channels of PIXELS pixels, all of
// whose loads are under way before it needs the first: nothing else keeps a GPU's memory busy.
#ifndef SIMT
#define SIMT 0
#endif
#ifndef GRAD
#define GRAD 0
#endif
#ifndef OUTS
#define OUTS 1 // blocks of outputs that a work-item of the _cross form makes, SIMT 0
#endif
#ifndef WG
#define WG 128 // work-items of a SIMT work-group
#endif
#ifndef PIXELS
#define PIXELS 4 // pixels of a SIMT work-item
#endif
#ifndef SPAN
#define SPAN span // SIMT: 1 as a constant spares the loop over a group's blocks, and a third of the registers
#endif

#if GRAD
#define NAME(x) x##_grad
#define INPUTS                                                                                                             \
    EQ_IN(float, z), EQ_IN(float, dout), EQ_IN(float, out), EQ_IN(float, add), EQ_IN(float, pivot), EQ_IN(float, scale),    \
        EQ_IN(float, slope), EQ_IN(float, shift)
#define MATRICES EQ_IN(float, matrix), EQ_IN(float, slopes)
#define OUTPUTS EQ_BUF(float, dz), EQ_BUF(float, dres)
#define OPEN                                                                                                               \
    EQ_IN_PTR(float, z);                                                                                                   \
    EQ_IN_PTR(float, dout);                                                                                                \
    EQ_IN_PTR(float, out);                                                                                                 \
    EQ_IN_PTR(float, add);                                                                                                 \
    EQ_IN_PTR(float, pivot);                                                                                               \
    EQ_IN_PTR(float, scale);                                                                                               \
    EQ_IN_PTR(float, slope);                                                                                               \
    EQ_IN_PTR(float, shift);                                                                                               \
    EQ_PTR(float, dz);                                                                                                     \
    EQ_PTR(float, dres)
#define OPEN_MATRICES                                                                                                      \
    EQ_IN_PTR(float, matrix);                                                                                              \
    EQ_IN_PTR(float, slopes)
#define STRIDES                                                                                                            \
    int z_image, int z_plane, int z_row, int dout_image, int dout_plane, int dout_row, int out_image, int out_plane,       \
        int out_row, int add_image, int add_plane, int add_row, int dz_image, int dz_plane, int dz_row, int dres_image,    \
        int dres_plane, int dres_row, int has_dres, int has_add, int halo, int dres_halo
#else
#define NAME(x) x
#define INPUTS EQ_IN(float, z), EQ_IN(float, residual), EQ_IN(float, pivot), EQ_IN(float, scale), EQ_IN(float, shift)
#define MATRICES EQ_IN(float, matrix)
#define OUTPUTS EQ_BUF(float, out)
#define OPEN                                                                                                               \
    EQ_IN_PTR(float, z);                                                                                                   \
    EQ_IN_PTR(float, residual);                                                                                            \
    EQ_IN_PTR(float, pivot);                                                                                               \
    EQ_IN_PTR(float, scale);                                                                                               \
    EQ_IN_PTR(float, shift);                                                                                               \
    EQ_PTR(float, out)
#define OPEN_MATRICES EQ_IN_PTR(float, matrix)
#define STRIDES                                                                                                            \
    int z_image, int z_plane, int z_row, int residual_image, int residual_plane, int residual_row, int out_image,          \
        int out_plane, int out_row, int has_residual, int halo
#endif
#define SIZES int act, int w, int h, int stride, int instance

// Start of the plane of block b of image n, at pixel 0.
#define PLANE(t, n, b) (t + (size_t)(n) * t##_image + (size_t)(b) * t##_plane)

// First block of the groups that the channels of block b belong to.
static int first_block(int b, int group)
{
    return b * BLOCK / group * group / BLOCK;
}

#if !SIMT

#define LANE(x, i, lane) (((const float *)(x))[(i)*BLOCK + (lane)])

#define FOR_RUNS(from, to)                                                                                                 \
    for (int p = (from), y = p / w, x_from = p - y * w, run = min(w - x_from, (to) - p); p < (to);                         \
         p += run, y++, x_from = 0, run = min(w, (to) - p))

static void zero(__global float *to, int pixels)
{
    for (int i = 0; i < pixels; i++)
        EQ_STORE((vecf)(0.0f), to + (long)i * BLOCK);
}

// Zeroes the halo that belongs to the run x_from .. x_to of row y: beside it, and above the first and below the last row.
static void write_halo(__global float *plane, int row, int halo, int y, int x_from, int x_to, int w, int h)
{
    if (halo == 0)
        return;
    if (x_from == 0) {
        for (int up = 1; up <= halo && y == 0; up++)
            zero(plane - (long)up * row - halo * BLOCK, w + 2 * halo);
        zero(plane + (long)y * row - halo * BLOCK, halo);
    }
    if (x_to == w) {
        zero(plane + (long)y * row + (long)w * BLOCK, halo);
        for (int down = 0; down < halo && y == h - 1; down++)
            zero(plane + (long)(h + down) * row - halo * BLOCK, w + 2 * halo);
    }
}

#if GRAD
#define POINTERS(x_at)                                                                                                     \
    __global const float *dp = PLANE(dout, n, b) + (size_t)y * dout_row + (x_at);                                  \
    __global const float *op = act == ACT_NONE ? dp : PLANE(out, n, b) + (size_t)y * out_row + (x_at);             \
    __global const float *ap = has_add ? PLANE(add, n, b) + (size_t)y * add_row + (x_at) : dp;                     \
    __global float *to_dz = PLANE(dz, n, b) + (size_t)y * dz_row + (x_at);                                         \
    __global float *to_dres = has_dres ? PLANE(dres, n, b) + (size_t)y * dres_row + (x_at) : to_dz
#define FINISH_RUN                                                                                                         \
    write_halo(PLANE(dz, n, b), dz_row, halo, y, x_from, x_from + run, w, h);                                              \
    if (has_dres)                                                                                                          \
    write_halo(PLANE(dres, n, b), dres_row, dres_halo, y, x_from, x_from + run, w, h)
#else
#define POINTERS(x_at)                                                                                                     \
    __global const float *rp = has_residual ? PLANE(residual, n, b) + (size_t)y * residual_row + (x_at) : zp;      \
    __global float *to = PLANE(out, n, b) + (size_t)y * out_row + (x_at)
#define FINISH_RUN write_halo(PLANE(out, n, b), out_row, halo, y, x_from, x_from + run, w, h)
#endif

__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void NAME(affine_diag)(INPUTS, OUTPUTS, STRIDES, SIZES)
{
    OPEN;
    const int b = get_global_id(0), part = get_global_id(1), n = get_global_id(2), parts = get_global_size(1);
    const int pixels = h * w, chunk = (pixels + parts - 1) / parts, from = part * chunk, to_pixel = min(pixels, from + chunk);
    const size_t at = (size_t)(instance ? n : 0) * stride + b * BLOCK;
    const vecf k = EQ_LOAD(pivot + b * BLOCK), s = EQ_LOAD(scale + at), c = EQ_LOAD(shift + at);
#if GRAD
    const vecf t = EQ_LOAD(slope + at);
#endif
    FOR_RUNS(from, to_pixel)
    {
        __global const float *zp = PLANE(z, n, b) + (size_t)y * z_row + x_from * BLOCK;
        POINTERS(x_from * BLOCK);
        for (int x = 0; x < run; x++) {
            const vecf centred = EQ_LOAD(zp + x * BLOCK) - k;
#if GRAD
            const vecf d = EQ_LOAD(dp + x * BLOCK), o = EQ_LOAD(op + x * BLOCK), g = ACT_GRAD(act, d, o, vecf);
            vecf r = g;
            if (has_add)
                r += EQ_LOAD(ap + x * BLOCK);
            EQ_STORE_STREAM(EQ_MAD(s, g, EQ_MAD(t, centred, c)), to_dz + x * BLOCK);
            if (has_dres)
                EQ_STORE_STREAM(r, to_dres + x * BLOCK);
#else
            vecf v = EQ_MAD(s, centred, c);
            if (has_residual)
                v += EQ_LOAD(rp + x * BLOCK);
            EQ_STORE_STREAM(ACT_APPLY(act, v, vecf), to + x * BLOCK);
#endif
        }
        FINISH_RUN;
    }
}

// CHUNK pixels and OUTS blocks of a group at a time: sums in registers, inputs in memory, from where a lane is spread over a
// vector by the load itself. OUTS divides the span and the number of blocks.
#if OUTS > 1
#define CHUNK 4
#else
#define CHUNK 8
#endif

// The pixels after the next three chunks, while the present one's are multiplied: measured with one block, layers of 14 x 14
// take 0.84 of the time, and all of them less where nothing is in a cache. Several blocks at once have no time for it.
static void fetch_ahead(__global const float *at)
{
#if OUTS == 1
    #pragma unroll
    for (int i = 0; i < CHUNK; i++)
        EQ_PREFETCH_NEAR(at + (4 * CHUNK + i) * BLOCK);
#endif
}

__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void NAME(affine_cross)(INPUTS, MATRICES, OUTPUTS, STRIDES, SIZES, int blocks, int span, int group)
{
    OPEN;
    OPEN_MATRICES;
    const int b0 = get_global_id(0) * OUTS, part = get_global_id(1), n = get_global_id(2), parts = get_global_size(1);
    const int pixels = h * w, chunk = (pixels + parts - 1) / parts, from = part * chunk, to_pixel = min(pixels, from + chunk);
    const int first = first_block(b0, group), num = min(span, blocks - first);
    const size_t at = (size_t)(instance ? n : 0) * stride;
    vecf lane[CHUNK], total[OUTS * CHUNK];
#if GRAD
    vecf grad[CHUNK];
#endif
    for (int i = 0; i < CHUNK; i++) {
        lane[i] = (vecf)(0.0f);
#if GRAD
        grad[i] = (vecf)(0.0f);
#endif
    }
    FOR_RUNS(from, to_pixel)
    {
        for (int x = 0; x < run; x += CHUNK) {
            const int many = min(CHUNK, run - x), x_at = (x_from + x) * BLOCK;
            vecf sum[OUTS][CHUNK];
#pragma unroll
            for (int o = 0; o < OUTS; o++)
#pragma unroll
                for (int i = 0; i < CHUNK; i++)
                    sum[o][i] = EQ_LOAD(shift + at + (b0 + o) * BLOCK);
#if !GRAD
            if (has_residual)
                fetch_ahead(PLANE(residual, n, b0) + (size_t)y * residual_row + x_at);
#endif
            for (int j = 0; j < num; j++) {
                const vecf kj = EQ_LOAD(pivot + (first + j) * BLOCK);
                __global const float *zj = PLANE(z, n, first + j) + (size_t)y * z_row + x_at;
                __global const float *m = matrix + ((size_t)b0 * span + j) * BLOCK * BLOCK;
                for (int i = 0; i < many; i++)
                    lane[i] = EQ_LOAD(zj + i * BLOCK) - kj;
#if !GRAD
                fetch_ahead(zj);
#else
                __global const float *dj = PLANE(dout, n, first + j) + (size_t)y * dout_row + x_at;
                __global const float *oj = act == ACT_NONE ? dj : PLANE(out, n, first + j) + (size_t)y * out_row + x_at;
                __global const float *e = slopes + ((size_t)b0 * span + j) * BLOCK * BLOCK;
                for (int i = 0; i < many; i++)
                    grad[i] = ACT_GRAD(act, EQ_LOAD(dj + i * BLOCK), EQ_LOAD(oj + i * BLOCK), vecf);
#endif
                for (int row = 0; row < BLOCK; row++) {
                    vecf m_row[OUTS];
#pragma unroll
                    for (int o = 0; o < OUTS; o++)
                        m_row[o] = EQ_LOAD(m + ((size_t)o * span * BLOCK + row) * BLOCK);
#if GRAD
                    vecf e_row[OUTS];
#pragma unroll
                    for (int o = 0; o < OUTS; o++)
                        e_row[o] = EQ_LOAD(e + ((size_t)o * span * BLOCK + row) * BLOCK);
#endif
#pragma unroll
                    for (int i = 0; i < CHUNK; i++) {
#if GRAD
                        const vecf d = (vecf)(LANE(grad, i, row)), v = (vecf)(LANE(lane, i, row));
#pragma unroll
                        for (int o = 0; o < OUTS; o++)
                            sum[o][i] = EQ_MAD(v, e_row[o], EQ_MAD(d, m_row[o], sum[o][i]));
#else
                        const vecf v = (vecf)(LANE(lane, i, row));
#pragma unroll
                        for (int o = 0; o < OUTS; o++)
                            sum[o][i] = EQ_MAD(v, m_row[o], sum[o][i]);
#endif
                    }
                }
            }
#pragma unroll
            for (int o = 0; o < OUTS; o++)
#pragma unroll
                for (int i = 0; i < CHUNK; i++)
                    total[o * CHUNK + i] = sum[o][i];
            for (int o = 0; o < OUTS; o++) {
                const int b = b0 + o;
                const vecf k = EQ_LOAD(pivot + b * BLOCK), s = EQ_LOAD(scale + at + b * BLOCK);
#if GRAD
                const vecf t = EQ_LOAD(slope + at + b * BLOCK);
#endif
                __global const float *zp = PLANE(z, n, b) + (size_t)y * z_row + x_at;
                POINTERS(x_at);
                for (int i = 0; i < many; i++) {
                    const vecf centred = EQ_LOAD(zp + i * BLOCK) - k;
#if GRAD
                    const vecf d = EQ_LOAD(dp + i * BLOCK), y_act = EQ_LOAD(op + i * BLOCK), g = ACT_GRAD(act, d, y_act, vecf);
                    vecf r = g;
                    if (has_add)
                        r += EQ_LOAD(ap + i * BLOCK);
                    EQ_STORE_STREAM(EQ_MAD(s, g, EQ_MAD(t, centred, total[o * CHUNK + i])), to_dz + i * BLOCK);
                    if (has_dres)
                        EQ_STORE_STREAM(r, to_dres + i * BLOCK);
#else
                    vecf v = EQ_MAD(s, centred, total[o * CHUNK + i]);
                    if (has_residual)
                        v += EQ_LOAD(rp + i * BLOCK);
                    EQ_STORE_STREAM(ACT_APPLY(act, v, vecf), to + i * BLOCK);
#endif
                }
            }
        }
        for (int o = 0; o < OUTS; o++) {
            const int b = b0 + o;
            FINISH_RUN;
        }
    }
}

#else // SIMT

#define QUADS (BLOCK / 4)
#define ROWS (WG / QUADS) // pixels that a work-group does at a time

// A pixel, perhaps outside of the image. How far outside is not reckoned: of max(-x, x - w + 1) NVIDIA's assembler (13.0,
// driver 580) loses the sign of x where a third maximum follows, and makes one instruction of both.
struct pixel {
    int x, y;
};

// A work-item's pixel `i` of those of a plane with a halo.
static struct pixel find_pixel(int i, int w, int h, int halo)
{
    const int p = ((int)get_group_id(0) * PIXELS + i) * ROWS + (int)get_local_id(0) / QUADS, pitch = w + 2 * halo;
    const int line = h + 2 * halo > 1 ? p / pitch : 0; // divisions are slow
    const int x = p - line * pitch - halo, y = line - halo;
    return (struct pixel){ x, y };
}

// Whether it lies in the image with a halo.
static bool is_in(struct pixel p, int w, int h, int halo)
{
    return (uint)(p.x + halo) < (uint)(w + 2 * halo) && (uint)(p.y + halo) < (uint)(h + 2 * halo);
}

// Four channels, from `c` on, of a pixel of block b; zeros outside of the image.
#define READ(t, b, p, c)                                                                                                   \
    (is_in(p, w, h, 0) ? EQ_LOAD4(PLANE(t, n, b) + (p.y * t##_row + p.x * BLOCK + (c))) : (float4)(0.0f))
// What lies in the halo becomes zero.
#define WRITE(t, b, p, c, halo, value)                                                                                     \
    if (is_in(p, w, h, halo))                                                                                              \
    EQ_STORE4(is_in(p, w, h, 0) ? (value) : (float4)(0.0f), PLANE(t, n, b) + (p.y * t##_row + p.x * BLOCK + (c)))

#if GRAD
#define PLANE_HALO max(halo, dres_halo)
// dp
#define READ_GRAD(b, p, c) read_grad(act, READ(dout, b, p, c), act == ACT_NONE ? (float4)(0.0f) : READ(out, b, p, c))

static float4 read_grad(int act, float4 d, float4 o)
{
    return ACT_GRAD(act, d, o, float4);
}
#else
#define PLANE_HALO halo
#endif

// What all work-items begin with: their block, image, four channels and pixels.
#define BEGIN                                                                                                              \
    const int b = get_group_id(1), n = EQ_GROUP(2, 1), quad = get_local_id(0) % QUADS, lane = 4 * quad;                    \
    const size_t at = (size_t)(instance ? n : 0) * stride + b * BLOCK;                                                     \
    const float4 c = EQ_LOAD4(shift + at + lane);                                                                          \
    struct pixel p[PIXELS];                                                                                                \
    _Pragma("unroll") for (int i = 0; i < PIXELS; i++) p[i] = find_pixel(i, w, h, PLANE_HALO)

__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void NAME(affine_diag)(INPUTS, OUTPUTS, STRIDES, SIZES)
{
    OPEN;
    BEGIN;
    const float4 k = EQ_LOAD4(pivot + b * BLOCK + lane), s = EQ_LOAD4(scale + at + lane);
    float4 v[PIXELS], r[PIXELS]; // all is read before anything is written
#pragma unroll
    for (int i = 0; i < PIXELS; i++) {
        v[i] = READ(z, b, p[i], lane);
#if GRAD
        r[i] = READ_GRAD(b, p[i], lane);
#else
        r[i] = has_residual ? READ(residual, b, p[i], lane) : (float4)(0.0f);
#endif
    }
#if GRAD
    const float4 t = EQ_LOAD4(slope + at + lane);
    float4 a[PIXELS];
#pragma unroll
    for (int i = 0; i < PIXELS; i++)
        a[i] = has_add ? READ(add, b, p[i], lane) : (float4)(0.0f);
#endif
#pragma unroll
    for (int i = 0; i < PIXELS; i++) {
#if GRAD
        WRITE(dz, b, p[i], lane, halo, EQ_MAD(s, r[i], EQ_MAD(t, v[i] - k, c)));
        if (has_dres)
            WRITE(dres, b, p[i], lane, dres_halo, r[i] + a[i]);
#else
        const float4 value = EQ_MAD(s, v[i] - k, c) + r[i];
        WRITE(out, b, p[i], lane, halo, ACT_APPLY(act, value, float4));
#endif
    }
}

// A matrix between two blocks to local memory; with `diagonal` added where both are the same block.
static void fill_tile(__local float4 *tile, __global const float *matrix, __global const float *diagonal, bool is_same)
{
    for (int i = get_local_id(0); i < BLOCK * QUADS; i += WG) {
        const int row = i / QUADS, from_diagonal = row - i % QUADS * 4;
        const float d = is_same ? diagonal[row] : 0.0f;
        tile[i] = EQ_LOAD4(matrix + 4 * i) + (float4)(from_diagonal == 0 ? d : 0.0f, from_diagonal == 1 ? d : 0.0f,
                                                      from_diagonal == 2 ? d : 0.0f, from_diagonal == 3 ? d : 0.0f);
    }
}

// Adds four channels of a matrix times all channels of each of a work-item's pixels, both in local memory.
static void multiply(__local const float4 *tile, __local const float4 *values, float4 *sum)
{
    const int item = get_local_id(0), quad = item % QUADS;
#pragma unroll 2 // all at once they take twice the registers
    for (int q = 0; q < QUADS; q++) {
        __local const float4 *rows = tile + 4 * q * QUADS + quad;
        const float4 m0 = rows[0], m1 = rows[QUADS], m2 = rows[2 * QUADS], m3 = rows[3 * QUADS];
#pragma unroll
        for (int i = 0; i < PIXELS; i++) {
            const float4 v = values[i * WG + item - quad + q];
            sum[i] = EQ_MAD((float4)(v.x), m0, sum[i]);
            sum[i] = EQ_MAD((float4)(v.y), m1, sum[i]);
            sum[i] = EQ_MAD((float4)(v.z), m2, sum[i]);
            sum[i] = EQ_MAD((float4)(v.w), m3, sum[i]);
        }
    }
}

// The QUADS work-items of a pixel read four of its channels each and show them to each other in local memory.
__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void NAME(affine_cross)(INPUTS, MATRICES, OUTPUTS, STRIDES, SIZES, int blocks, int span, int group)
{
    OPEN;
    OPEN_MATRICES;
    __local float4 m_tile[BLOCK * QUADS], centred[PIXELS * WG];
#if GRAD
    __local float4 e_tile[BLOCK * QUADS], grads[PIXELS * WG];
#endif
    BEGIN;
    const int item = get_local_id(0), first = SPAN == 1 ? b : first_block(b, group);
    const int num = SPAN == 1 ? 1 : min(SPAN, blocks - first);
    float4 sum[PIXELS]; // without c, lest it wait for the residual here
#pragma unroll
    for (int i = 0; i < PIXELS; i++)
#if GRAD
        sum[i] = (float4)(0.0f);
#else
        sum[i] = has_residual ? READ(residual, b, p[i], lane) : (float4)(0.0f);
#endif
    for (int j = first; j < first + num; j++) {
        const size_t entry = ((size_t)b * span + j - first) * BLOCK * BLOCK;
        const float4 k = EQ_LOAD4(pivot + j * BLOCK + lane);
        float4 v[PIXELS];
#pragma unroll
        for (int i = 0; i < PIXELS; i++)
            v[i] = READ(z, j, p[i], lane);
#if GRAD
        float4 d[PIXELS], a[PIXELS];
#pragma unroll
        for (int i = 0; i < PIXELS; i++) {
            d[i] = READ_GRAD(j, p[i], lane);
            a[i] = has_add && j == b ? READ(add, b, p[i], lane) : (float4)(0.0f);
        }
        fill_tile(e_tile, slopes + entry, slope + at, j == b);
#endif
        fill_tile(m_tile, matrix + entry, scale + at, j == b);
#pragma unroll
        for (int i = 0; i < PIXELS; i++) {
            centred[i * WG + item] = v[i] - k;
#if GRAD
            grads[i * WG + item] = d[i];
            if (has_dres && j == b)
                WRITE(dres, b, p[i], lane, dres_halo, d[i] + a[i]);
#endif
        }
        barrier(CLK_LOCAL_MEM_FENCE);
#if GRAD
        multiply(m_tile, grads, sum);
        multiply(e_tile, centred, sum);
#else
        multiply(m_tile, centred, sum);
#endif
        if (j + 1 < first + num)
            barrier(CLK_LOCAL_MEM_FENCE); // before the next block's values take the place of these
    }
#pragma unroll
    for (int i = 0; i < PIXELS; i++)
#if GRAD
        WRITE(dz, b, p[i], lane, halo, sum[i] + c);
#else
        WRITE(out, b, p[i], lane, halo, ACT_APPLY(act, sum[i] + c, float4));
#endif
}
#endif

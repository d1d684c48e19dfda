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
// SIMT 0: one work-item per (block, part of the pixels, image). SIMT 1: work-items over (channel, PIXELS pixels apart).
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
#define WG 256 // work-items of a SIMT work-group
#endif
#define PIXELS 4 // pixels of a SIMT work-item

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
            for (int j = 0; j < num; j++) {
                const vecf kj = EQ_LOAD(pivot + (first + j) * BLOCK);
                __global const float *zj = PLANE(z, n, first + j) + (size_t)y * z_row + x_at;
                __global const float *m = matrix + ((size_t)b0 * span + j) * BLOCK * BLOCK;
                for (int i = 0; i < many; i++)
                    lane[i] = EQ_LOAD(zj + i * BLOCK) - kj;
#if GRAD
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

#define AT(t, y, x) ((long)(y)*t##_row + (long)(x)*BLOCK)

// Runs over the stored pixels of the output, halo included: a work-item does PIXELS of them, WG / BLOCK apart, for one channel.
#define FOR_PIXELS(halo_)                                                                                                  \
    for (int i_ = 0, first_ = get_group_id(0) * (WG / BLOCK) * PIXELS + get_local_id(0) / BLOCK; i_ < PIXELS; i_++)        \
        for (int p_ = first_ + i_ * (WG / BLOCK), w_ = w + 2 * (halo_), y = p_ / w_ - (halo_), x = p_ % w_ - (halo_),      \
                 once_ = 1;                                                                                                \
             once_ && y < h + (halo_); once_ = 0)
#define IN_HALO (y < 0 || y >= h || x < 0 || x >= w)

#if GRAD
// The residual's gradient has a halo of its own, so it has a loop of its own.
#define WRITE_DRES                                                                                                         \
    if (has_dres) {                                                                                                        \
        FOR_PIXELS(dres_halo)                                                                                              \
        {                                                                                                                  \
            float r = 0.0f;                                                                                                \
            if (!IN_HALO) {                                                                                                \
                const float d = (PLANE(dout, n, b) + lane)[AT(dout, y, x)];                                                \
                const float o = act == ACT_NONE ? 0.0f : (PLANE(out, n, b) + lane)[AT(out, y, x)];                         \
                r = ACT_GRAD(act, d, o, float);                                                                            \
                if (has_add)                                                                                               \
                    r += (PLANE(add, n, b) + lane)[AT(add, y, x)];                                                         \
            }                                                                                                              \
            (PLANE(dres, n, b) + lane)[AT(dres, y, x)] = r;                                                                \
        }                                                                                                                  \
    }
#endif

__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void NAME(affine_diag)(INPUTS, OUTPUTS, STRIDES, SIZES)
{
    OPEN;
    const int b = get_group_id(1), n = EQ_GROUP(2), lane = get_local_id(0) % BLOCK;
    const size_t at = (size_t)(instance ? n : 0) * stride + b * BLOCK + lane;
    const float k = pivot[b * BLOCK + lane], s = scale[at], c = shift[at];
#if GRAD
    const float t = slope[at];
    FOR_PIXELS(halo)
    {
        float v = 0.0f;
        if (!IN_HALO) {
            const float d = (PLANE(dout, n, b) + lane)[AT(dout, y, x)];
            const float o = act == ACT_NONE ? 0.0f : (PLANE(out, n, b) + lane)[AT(out, y, x)];
            const float centred = (PLANE(z, n, b) + lane)[AT(z, y, x)] - k;
            v = EQ_MAD(s, ACT_GRAD(act, d, o, float), EQ_MAD(t, centred, c));
        }
        (PLANE(dz, n, b) + lane)[AT(dz, y, x)] = v;
    }
    WRITE_DRES
#else
    FOR_PIXELS(halo)
    {
        float v = 0.0f;
        if (!IN_HALO) {
            v = EQ_MAD(s, (PLANE(z, n, b) + lane)[AT(z, y, x)] - k, c);
            if (has_residual)
                v += (PLANE(residual, n, b) + lane)[AT(residual, y, x)];
            v = ACT_APPLY(act, v, float);
        }
        (PLANE(out, n, b) + lane)[AT(out, y, x)] = v;
    }
#endif
}

// A row of M (for one output channel) sits in registers while PIXELS pixels go by; all BLOCK lanes read the same inputs.
__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void NAME(affine_cross)(INPUTS, MATRICES, OUTPUTS, STRIDES, SIZES, int blocks, int span, int group)
{
    OPEN;
    OPEN_MATRICES;
    const int b = get_group_id(1), n = EQ_GROUP(2), lane = get_local_id(0) % BLOCK;
    const int first = first_block(b, group), num = min(span, blocks - first);
    const size_t at = (size_t)(instance ? n : 0) * stride + b * BLOCK + lane;
    const float k = pivot[b * BLOCK + lane], s = scale[at], c = shift[at];
#if GRAD
    const float t = slope[at];
#endif
    float sum[PIXELS];
#pragma unroll
    for (int i = 0; i < PIXELS; i++)
        sum[i] = 0.0f;
    for (int j = 0; j < num; j++) {
        const size_t entry = (((size_t)b * span + j) * BLOCK) * BLOCK + lane;
        for (int i = 0; i < BLOCK; i += 4) {
            const float4 pivots = vload4(0, pivot + (first + j) * BLOCK + i);
            const float4 m = (float4)(matrix[entry + i * BLOCK], matrix[entry + (i + 1) * BLOCK],
                                      matrix[entry + (i + 2) * BLOCK], matrix[entry + (i + 3) * BLOCK]);
#if GRAD
            const float4 e = (float4)(slopes[entry + i * BLOCK], slopes[entry + (i + 1) * BLOCK],
                                      slopes[entry + (i + 2) * BLOCK], slopes[entry + (i + 3) * BLOCK]);
#endif
            FOR_PIXELS(halo)
            {
                if (!IN_HALO) {
                    const float4 centred = vload4(0, PLANE(z, n, first + j) + AT(z, y, x) + i) - pivots;
#if GRAD
                    const float4 d = vload4(0, PLANE(dout, n, first + j) + AT(dout, y, x) + i);
                    const float4 o =
                        act == ACT_NONE ? (float4)(0.0f) : vload4(0, PLANE(out, n, first + j) + AT(out, y, x) + i);
                    sum[i_] += dot(m, ACT_GRAD(act, d, o, float4)) + dot(e, centred);
#else
                    sum[i_] += dot(m, centred);
#endif
                }
            }
        }
    }
    FOR_PIXELS(halo)
    {
        float v = 0.0f;
        if (!IN_HALO) {
            const float centred = (PLANE(z, n, b) + lane)[AT(z, y, x)] - k;
#if GRAD
            const float d = (PLANE(dout, n, b) + lane)[AT(dout, y, x)];
            const float o = act == ACT_NONE ? 0.0f : (PLANE(out, n, b) + lane)[AT(out, y, x)];
            v = EQ_MAD(s, ACT_GRAD(act, d, o, float), EQ_MAD(t, centred, c)) + sum[i_];
#else
            v = EQ_MAD(s, centred, c) + sum[i_];
            if (has_residual)
                v += (PLANE(residual, n, b) + lane)[AT(residual, y, x)];
            v = ACT_APPLY(act, v, float);
#endif
        }
#if GRAD
        (PLANE(dz, n, b) + lane)[AT(dz, y, x)] = v;
#else
        (PLANE(out, n, b) + lane)[AT(out, y, x)] = v;
#endif
    }
#if GRAD
    WRITE_DRES
#endif
}
#endif

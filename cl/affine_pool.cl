// The affine map of cl/affine.cl, forward, and the maximum pooling that follows it, for evaluation on processors: what is
// between them does not go through memory. Windows of 3 x 3 at stride 2, padded by 1, where padding never wins, and a NaN,
// which the gate has spread over the whole image, does.
//   z, out        f32 blocked [n, c, h, w], [n, c, oh, ow]      out's halo is not written
//   pivot         f32 [c]                                       read    k
//   scale, shift  f32 [n, stride], or [stride] (`instance` 0)   read    s, c
//   matrix        f32 [blocks, span, BLOCK, BLOCK]              read    M, where has_matrix: as in cl/affine.cl
// out = pool(act(M (z - k) + s (z - k) + c))
#ifndef OUTS
#define OUTS 1 // blocks that a work-item makes: see cl/affine.cl
#endif
#ifndef ACT
#define ACT ACT_NONE
#endif
#define CHUNK (OUTS > 1 ? 4 : 8) // pixels whose sums are in registers
#ifndef STRIP
#define STRIP 56 // columns of out
#endif

// check: -DOUTS=4
static vecf larger(const vecf a, const vecf b)
{
    return ((b > a) | (b != b)) ? b : a;
}

// Work-items: (blocks / OUTS, bands of rows of out x strips of STRIP columns, strips first, n).
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void affine_pool(EQ_IN(float, z), EQ_IN(float, pivot), EQ_IN(float, scale), EQ_IN(float, shift), EQ_IN(float, matrix),
                 EQ_BUF(float, out), const int z_image, const int z_plane, const int z_row, const int out_image,
                 const int out_plane, const int out_row, const int h, const int w, const int oh, const int ow, const int stride,
                 const int instance, const int blocks, const int span, const int group, const int has_matrix)
{
    EQ_IN_PTR(float, z);
    EQ_IN_PTR(float, pivot);
    EQ_IN_PTR(float, scale);
    EQ_IN_PTR(float, shift);
    EQ_IN_PTR(float, matrix);
    EQ_PTR(float, out);
    const int strips = (ow + STRIP - 1) / STRIP, bands = (int)get_global_size(1) / strips;
    const int b0 = (int)get_global_id(0) * OUTS, band = (int)get_global_id(1) / strips, n = (int)get_global_id(2);
    const int from = (int)((long)oh * band / bands), to = (int)((long)oh * (band + 1) / bands);
    const int left = (int)get_global_id(1) % strips * STRIP, pooled = min(STRIP, ow - left);
    const int first_x = max(2 * left - 1, 0), width = min(2 * (left + pooled), w) - first_x; // columns of z
    const int first = b0 * BLOCK / group * group / BLOCK, num = has_matrix ? min(span, blocks - first) : 0;
    vecf row[OUTS][2 * STRIP + 1 + CHUNK], best[OUTS][STRIP], lane[CHUNK];
    z += (ulong)n * z_image;
    out += (ulong)n * out_image;
    scale += (ulong)(instance ? n : 0) * stride + b0 * BLOCK;
    shift += (ulong)(instance ? n : 0) * stride + b0 * BLOCK;
    for (int i = 0; i < CHUNK; i++)
        lane[i] = (vecf)(0.0f);
    for (int o = 0; o < OUTS; o++)
        for (int x = 0; x < pooled; x++)
            best[o][x] = (vecf)(-INFINITY);

    for (int y = max(2 * from - 1, 0); y < min(2 * to, h); y++) {
        for (int x = 0; x < width; x += CHUNK) {
            const int many = min(CHUNK, width - x), at = y * z_row + (first_x + x) * BLOCK;
            vecf sum[OUTS][CHUNK];
            #pragma unroll
            for (int o = 0; o < OUTS; o++)
                #pragma unroll
                for (int i = 0; i < CHUNK; i++)
                    sum[o][i] = EQ_LOAD(shift + o * BLOCK);
            for (int j = 0; j < num; j++) {
                const vecf kj = EQ_LOAD(pivot + (first + j) * BLOCK);
                __global const float *zj = z + (ulong)(first + j) * z_plane + at;
                __global const float *m = matrix + ((ulong)b0 * span + j) * (BLOCK * BLOCK);
                for (int i = 0; i < many; i++) {
                    lane[i] = EQ_LOAD(zj + i * BLOCK) - kj;
                    EQ_PREFETCH(zj + z_row + i * BLOCK);
                }
                for (int c = 0; c < BLOCK; c++) {
                    vecf m_row[OUTS];
                    #pragma unroll
                    for (int o = 0; o < OUTS; o++)
                        m_row[o] = EQ_LOAD(m + ((ulong)o * span * BLOCK + c) * BLOCK);
                    #pragma unroll
                    for (int i = 0; i < CHUNK; i++) {
                        const vecf v = (vecf)(((const float *)&lane[i])[c]);
                        #pragma unroll
                        for (int o = 0; o < OUTS; o++)
                            sum[o][i] = EQ_MAD(v, m_row[o], sum[o][i]);
                    }
                }
            }
            #pragma unroll
            for (int o = 0; o < OUTS; o++)
                #pragma unroll
                for (int i = 0; i < CHUNK; i++)
                    row[o][x + i] = sum[o][i];
            for (int o = 0; o < OUTS; o++) {
                const vecf k = EQ_LOAD(pivot + (b0 + o) * BLOCK), s = EQ_LOAD(scale + o * BLOCK);
                __global const float *own = z + (ulong)(b0 + o) * z_plane + at;
                for (int i = 0; i < many; i++) {
                    const vecf v = EQ_MAD(s, EQ_LOAD(own + i * BLOCK) - k, row[o][x + i]);
                    row[o][x + i] = ACT_APPLY(ACT, v, vecf);
                }
            }
        }
        // An even row is the middle of a window; an odd one the last of its window and the first of the next.
        const int oy = y / 2;
        const bool ends = y % 2 == 1 || y == h - 1, is_stored = ends && oy >= from;
        for (int o = 0; o < OUTS; o++) {
            __global float *to_row = out + (ulong)(b0 + o) * out_plane + (ulong)oy * out_row + left * BLOCK;
            for (int x = 0; x < pooled; x++) {
                const int middle = 2 * (left + x) - first_x;
                vecf most = larger(row[o][max(middle - 1, 0)], row[o][middle]);
                most = larger(most, row[o][min(middle + 1, width - 1)]);
                const vecf all = larger(best[o][x], most);
                if (is_stored)
                    EQ_STORE_STREAM(all, to_row + x * BLOCK);
                best[o][x] = ends ? most : all;
            }
        }
    }
}

// A gate that follows a 1 x 1 convolution z = W x, settled before z is there (processors, evaluation): what it looks at, the
// mean and variance of each of z's channels in an image, follow from x, which has fewer channels:
//     mean(z) = W mean(x),   sum (z - mean)^2 = diag(W C W^T),   C = sum (x - mean)(x - mean)^T   over the image's pixels.
// A channel's variance so has roundings of the size of sum |w_i C_ij w_j|. Where all filters take differences of channels that
// are nearly the same, the unit's output was off by 1e-6 with a sum 1600 times the variance, and by 3e-5 with 10000 times.
// Then the map of the unit, M + diag(scale) of an image, goes into a filter of its own, and no pass over z is left.
//   x         f32 [n, XB, rows, columns, BLOCK]              read    its first pixel is what sums are about
//   w         f32 [oc_blocks, XB, 1, 1, BLOCK ic, BLOCK oc]  read
//   sums      f32 [n, parts, XB, BLOCK]                      sums of x in a part of the image's pixels
//   products  f32 [n, parts, XB, XB, BLOCK, BLOCK]           sums of products: [i, j] of x's blocks i <= j; others may be unset
#ifndef XB
#define XB 4 // blocks of x
#endif
#ifndef PRODUCTS
#define PRODUCTS 1 // 0: the gate looks at means alone
#endif
#define COVS (PRODUCTS ? XB : 1)
#define PIXELS (XB < 16 ? 256 / XB : 16) // about 16 KiB of them stay in the first-level cache
#define PAIR (XB > 1 ? 2 : 1)            // a register tile: ROWS channels x PAIR blocks
#define ROWS (BLOCK < 8 ? BLOCK : 8)
#define OBT (OB > 1 ? 2 : 1)
#ifndef OB
#define OB 2 // blocks of z; of more than 1, it does not matter how many
#endif
#ifndef CHUNK
#define CHUNK 8 // blocks of z of a work-item in conv2d_gated_moments
#endif

// check: -DXB=1 -DOB=1
// check: -DPRODUCTS=0
static float lane(const vecf *v, int i)
{
    return ((const float *)v)[i];
}

// Work-items: (parts, n). Images have `row_pixels` pixels in a row of x, rows x_row apart.
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void conv2d_gated_products(EQ_IN(float, x), EQ_BUF(float, sums), EQ_BUF(float, products), const int x_plane, const int x_row,
                           const int row_pixels, const int pixels)
{
    EQ_IN_PTR(float, x);
    EQ_PTR(float, sums);
    EQ_PTR(float, products);
    const int part = (int)get_global_id(0), parts = (int)get_global_size(0), n = (int)get_global_id(1);
    const int first = (int)((long)pixels * part / parts), end = (int)((long)pixels * (part + 1) / parts);
    vecf pivot[XB], sum[XB], near[XB][PIXELS];
    x += (ulong)n * XB * x_plane;
    sums += ((ulong)n * parts + part) * (XB * BLOCK);
    products += ((ulong)n * parts + part) * (XB * XB * BLOCK * BLOCK);
    for (int b = 0; b < XB; b++) {
        pivot[b] = EQ_LOAD(x + (ulong)b * x_plane);
        sum[b] = (vecf)(0.0f);
    }
    for (int from = first; from < end; from += PIXELS) {
        const int count = min(end - from, PIXELS);
        for (int b = 0; b < XB; b++) {
            vecf all = (vecf)(0.0f);
            for (int p = 0, y = from / row_pixels, px = from % row_pixels; p < count; p++) {
                const vecf away = EQ_LOAD(x + (ulong)b * x_plane + (ulong)y * x_row + (ulong)px * BLOCK) - pivot[b];
                near[b][p] = away;
                all += away;
                px++;
                y += px == row_pixels;
                px = px == row_pixels ? 0 : px;
            }
            sum[b] += all;
        }
        for (int tile = 0; tile < (PRODUCTS ? XB * (BLOCK / ROWS) : 0); tile++) {
            const int i = tile / (BLOCK / ROWS), c = tile % (BLOCK / ROWS) * ROWS;
            // While these pixels are multiplied, the next ones of the same block come. Rows apart by a halo are near enough.
            __global const float *next = x + (ulong)i * x_plane + (ulong)(from / row_pixels) * x_row +
                                         (ulong)(from % row_pixels + min(PIXELS, end - from - 1)) * BLOCK;
            for (int want = i / PAIR * PAIR; want < XB; want += PAIR) {
                const int j = min(want, XB - PAIR);
                __global float *to = products + (ulong)((i * XB + j) * BLOCK + c) * BLOCK;
                vecf acc[PAIR][ROWS];
                #pragma unroll
                for (int b = 0; b < PAIR; b++)
                    #pragma unroll
                    for (int r = 0; r < ROWS; r++)
                        acc[b][r] = (vecf)(0.0f);
                for (int p = 0; p < count; p++) {
                    if (c == 0 && want < i / PAIR * PAIR + PAIR)
                        EQ_PREFETCH(next + p * BLOCK);
                    vecf value[PAIR];
                    #pragma unroll
                    for (int b = 0; b < PAIR; b++)
                        value[b] = near[j + b][p];
                    #pragma unroll
                    for (int r = 0; r < ROWS; r++) {
                        const vecf other = (vecf)(lane(&near[i][p], c + r));
                        #pragma unroll
                        for (int b = 0; b < PAIR; b++)
                            acc[b][r] = EQ_MAD(other, value[b], acc[b][r]);
                    }
                }
                // Sums of sums, whose roundings are fewer; a block that the last pair has for the second time is there already.
                #pragma unroll
                for (int b = 0; b < PAIR; b++)
                    #pragma unroll
                    for (int r = 0; r < ROWS; r++)
                        if (j + b >= want) {
                            __global float *at = to + (b * BLOCK + r) * BLOCK;
                            EQ_STORE(from == first ? acc[b][r] : acc[b][r] + EQ_LOAD(at), at);
                        }
            }
        }
    }
    for (int b = 0; b < XB; b++)
        EQ_STORE(sum[b], sums + b * BLOCK);
}

// Work-items: (n, chunks of CHUNK blocks of z).
//   moments  f32 [n, oc_blocks, 1, 3, BLOCK]   write   of z, as conv2d_vector's: mean, sum of squares about it, number
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void conv2d_gated_moments(EQ_IN(float, x), EQ_IN(float, w), EQ_IN(float, sums), EQ_IN(float, products), EQ_BUF(float, moments),
                          const int x_plane, const int parts, const int pixels, const int oc_blocks)
{
    EQ_IN_PTR(float, x);
    EQ_IN_PTR(float, w);
    EQ_IN_PTR(float, sums);
    EQ_IN_PTR(float, products);
    EQ_PTR(float, moments);
    const int n = (int)get_global_id(0), end = min((int)(get_global_id(1) + 1) * CHUNK, oc_blocks);
    vecf away[XB], cov[COVS][COVS][BLOCK]; // means about the pivot; C
    x += (ulong)n * XB * x_plane;
    sums += (ulong)n * parts * (XB * BLOCK);
    products += (ulong)n * parts * (XB * XB * BLOCK * BLOCK);
    for (int b = 0; b < XB; b++) {
        vecf all = EQ_LOAD(sums + b * BLOCK);
        for (int part = 1; part < parts; part++)
            all += EQ_LOAD(sums + (part * XB + b) * BLOCK);
        away[b] = all / (vecf)(pixels);
    }
    for (int i = 0; i < (PRODUCTS ? XB : 0); i++)
        for (int j = i; j < XB; j++)
            for (int c = 0; c < BLOCK; c++) {
                __global const float *from = products + (ulong)((i * XB + j) * BLOCK + c) * BLOCK;
                vecf all = EQ_LOAD(from);
                for (int part = 1; part < parts; part++)
                    all += EQ_LOAD(from + (ulong)part * (XB * XB * BLOCK * BLOCK));
                cov[i][j][c] = all - (vecf)(lane(&away[i], c)) * (vecf)(pixels) * away[j];
            }
    for (int want = (int)get_global_id(1) * CHUNK; want < end; want += OBT) {
        const int b0 = min(want, oc_blocks - OBT);
        __global const float *wt = w + (ulong)b0 * (XB * BLOCK * BLOCK);
        vecf mean[OBT], square[OBT];
        #pragma unroll
        for (int b = 0; b < OBT; b++)
            mean[b] = square[b] = (vecf)(0.0f);
        for (int i = 0; i < XB; i++) {
            const vecf at = away[i] + EQ_LOAD(x + (ulong)i * x_plane);
            for (int c = 0; c < BLOCK; c++)
                #pragma unroll
                for (int b = 0; b < OBT; b++)
                    mean[b] = EQ_MAD((vecf)(lane(&at, c)), EQ_LOAD(wt + (ulong)((b * XB + i) * BLOCK + c) * BLOCK), mean[b]);
        }
        for (int tile = 0; tile < (PRODUCTS ? XB * (BLOCK / ROWS) : 0); tile++) {
            const int i = tile / (BLOCK / ROWS), r0 = tile % (BLOCK / ROWS) * ROWS;
            vecf acc[OBT][ROWS];
            #pragma unroll
            for (int b = 0; b < OBT; b++)
                #pragma unroll
                for (int r = 0; r < ROWS; r++)
                    acc[b][r] = (vecf)(0.0f);
            // Each pair of blocks stands for itself and its mirror, but a block with itself, which comes last.
            for (int j = XB - 1; j >= i; j--) {
                const vecf twice = (vecf)(j == i ? 2.0f : 1.0f);
                #pragma unroll
                for (int b = 0; b < OBT; b++)
                    #pragma unroll
                    for (int r = 0; r < ROWS; r++)
                        acc[b][r] *= twice;
                for (int c = 0; c < BLOCK; c++) {
                    vecf value[OBT];
                    #pragma unroll
                    for (int b = 0; b < OBT; b++)
                        value[b] = EQ_LOAD(wt + (ulong)((b * XB + j) * BLOCK + c) * BLOCK);
                    #pragma unroll
                    for (int r = 0; r < ROWS; r++) {
                        const vecf factor = (vecf)(lane(&cov[i][j][r0 + r], c));
                        #pragma unroll
                        for (int b = 0; b < OBT; b++)
                            acc[b][r] = EQ_MAD(factor, value[b], acc[b][r]);
                    }
                }
            }
            #pragma unroll
            for (int b = 0; b < OBT; b++)
                #pragma unroll
                for (int r = 0; r < ROWS; r++)
                    square[b] =
                        EQ_MAD(acc[b][r], EQ_LOAD(wt + (ulong)((b * XB + i) * BLOCK + r0 + r) * BLOCK), square[b]);
        }
        #pragma unroll
        for (int b = 0; b < OBT; b++)
            if (b0 + b >= want) {
                __global float *to = moments + ((ulong)n * oc_blocks + b0 + b) * (3 * BLOCK);
                EQ_STORE(mean[b], to);
                EQ_STORE(EQ_FROM_0(square[b], vecf), to + BLOCK);
                EQ_STORE((vecf)(pixels), to + 2 * BLOCK);
            }
    }
}

// The filters of the images. Work-items: (n, oc_blocks).
//   matrix   f32 [oc_blocks, span, BLOCK, BLOCK]            read    M, where has_matrix: cl/affine.cl has its layout
//   scale    f32 [n, stride]                                read
//   filters  f32 [n, oc_blocks, XB, 1, 1, BLOCK, BLOCK]     write   (M + diag(scale)) W
#define TAPS 4 // input channels at a time
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void conv2d_gated_filter(EQ_IN(float, w), EQ_IN(float, matrix), EQ_IN(float, scale), EQ_BUF(float, filters),
                         const int oc_blocks, const int span, const int group, const int stride, const int has_matrix)
{
    EQ_IN_PTR(float, w);
    EQ_IN_PTR(float, matrix);
    EQ_IN_PTR(float, scale);
    EQ_PTR(float, filters);
    const int n = (int)get_global_id(0), b = (int)get_global_id(1);
    const int first = b * BLOCK / group * group / BLOCK, num = has_matrix ? min(span, oc_blocks - first) : 0;
    const vecf factor = EQ_LOAD(scale + (ulong)n * stride + b * BLOCK);
    matrix += (ulong)b * span * (BLOCK * BLOCK);
    filters += ((ulong)n * oc_blocks + b) * (XB * BLOCK * BLOCK);
    for (int k = 0; k < XB * BLOCK; k += TAPS) {
        __global const float *own = w + ((ulong)b * XB * BLOCK + k) * BLOCK, *row = matrix;
        vecf acc[TAPS];
        #pragma unroll
        for (int t = 0; t < TAPS; t++)
            acc[t] = factor * EQ_LOAD(own + t * BLOCK);
        for (int s = 0; s < num; s++) {
            __global const float *other = w + ((ulong)(first + s) * XB * BLOCK + k) * BLOCK;
            #pragma unroll
            for (int j = 0; j < BLOCK; j++, row += BLOCK)
                #pragma unroll
                for (int t = 0; t < TAPS; t++)
                    acc[t] = EQ_MAD((vecf)(other[t * BLOCK + j]), EQ_LOAD(row), acc[t]);
        }
        #pragma unroll
        for (int t = 0; t < TAPS; t++)
            EQ_STORE(acc[t], filters + (k + t) * BLOCK);
    }
}

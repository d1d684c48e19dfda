// Convolution for CPUs: explicit vectors over output channels, register tiles. Also computes data gradients, as convolutions of
// dz with transposed filters (conv2d_filter.cl), one launch per parity class of the output pixel.
//   x    f32 [n, x_blocks, rows, columns, BI]              read    first element: the pixel under tap (0, 0) of output (0, 0)
//   w    f32 [oc_blocks, x_blocks, kh, kw, BI, BLOCK]      read    images may have their own, w_image apart
//   bias f32 [oc_blocks, BLOCK]                            read    only where has_bias; likewise, bias_image apart
//   add  f32 as z                                          read    only where has_add; may be z itself
//   z    f32 [n, oc_blocks, oh, ow, BLOCK]                 write   act(sum + bias + add); pixels z_step, rows z_row apart
//   moments f32 [n, oc_blocks, parts, 3, BLOCK]            write   with MOMENTS, of the pixels that a work-item stores: their
//                                                                  mean, sum of squares about it and number
// A tile is TH x TW pixels of OBT blocks. A work-item makes tiles_each of them, one after the other: starting one takes some
// hundred cycles. The last tile of a row, column or of the blocks is moved back so that it ends at the border: its first part
// is computed twice and stored once. Sums run over (block, kh, kw, channel) in that order.
// Every pixel under a tap must be readable: x has a halo of zeros.
#ifndef BI
#define BI BLOCK // input channels in a block: BLOCK, or 1 for a plain image
#endif
#ifndef STRIDE
#define STRIDE 1 // from an output pixel to the next, in input pixels
#endif
#ifndef TH
#define TH 1 // tile: rows, pixels in a row, blocks; TH * TW * OBT accumulators must fit the registers
#endif
#ifndef TW
#define TW 7
#endif
#ifndef OBT
#define OBT 4
#endif
#ifndef KW
#define KW kw // the filter's width where it is worth unrolling: in a plain image a tap is only one multiply-add per accumulator
#endif
#ifndef AHEAD
#define AHEAD 0 // rows of BLOCK filters that a tile fetches ahead, per block of x and tap: a power of two, at most BI
#endif
#ifndef AHEAD_X
#define AHEAD_X 8 // blocks of x that one row of taps fetches ahead
#endif
#ifndef ACT
#define ACT ACT_NONE
#endif
#ifndef MOMENTS
#define MOMENTS 0 // 1: moments of z are written, too
#endif

// Which work-items follow each other, as `order`: what they share is in the cache.
#define ORDER_TILES 0  // all tiles of an image, then the next blocks: its pixels
#define ORDER_IMAGES 1 // all tiles of all images, then the next blocks: filters
#define ORDER_BLOCKS 2 // all blocks of a tile, then the next tile: its pixels, while all filters stay

// The pixels of x under one row of taps of a tile, of a block.
static void fetch_tile(__global const float *at, int row, int kw)
{
    #pragma unroll
    for (int r = 0; r < TH; r++)
        #pragma unroll
        for (int t = 0; t < TW * STRIDE; t++)
            if (t % STRIDE < kw)
                EQ_PREFETCH_NEAR(at + r * row + t * BI);
}

__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
conv2d_vector(EQ_IN(float, x), EQ_IN(float, w), __global const float *bias_base, const ulong bias_at,
              __global const float *add_base, const ulong add_at, EQ_BUF(float, z), const int x_row, const int x_plane,
              const int x_blocks, const int kh, const int kw, const int stride_h, const int oc_blocks, const int oh,
              const int ow, const int z_row, const int z_step, const int z_plane, const int a_row, const int a_step,
              const int a_plane, const int has_bias, const int has_add, const int w_image, const int bias_image,
              const int order, const int tiles_each,
              __global float *moments_base, const ulong moments_at)
{
    EQ_IN_PTR(float, x);
    EQ_IN_PTR(float, w);
    EQ_PTR(float, z);
    const int id0 = (int)get_global_id(0), id1 = (int)get_global_id(1), id2 = (int)get_global_id(2);
    const int tiles_w = (ow + TW - 1) / TW, tiles = tiles_w * ((oh + TH - 1) / TH), n = order == ORDER_IMAGES ? id1 : id2;
    const int first_tile = (order == ORDER_BLOCKS ? id1 : id0) * tiles_each;
    const int want_b = (order == ORDER_BLOCKS ? id0 : order == ORDER_IMAGES ? id2 : id1) * OBT;
    const int b0 = min(want_b, oc_blocks - OBT);
    const ulong w_plane = (ulong)x_blocks * (kh * kw * BI * BLOCK);
    w += (ulong)n * w_image;
    // About a pixel of the first tile: squares of plain z would cancel when the mean is large against the deviation.
    vecf pivot[OBT], sums[OBT], squares[OBT];
    int pixels = 0;
    #pragma unroll
    for (int b = 0; b < OBT; b++)
        pivot[b] = sums[b] = squares[b] = (vecf)(0.0f);

    for (int tile = first_tile; tile < min(first_tile + tiles_each, tiles); tile++) {
        const int want_y = tile / tiles_w * TH, want_x = tile % tiles_w * TW;
        const int y0 = min(want_y, oh - TH), x0 = min(want_x, ow - TW);
        vecf acc[OBT][TH][TW];
        #pragma unroll
        for (int b = 0; b < OBT; b++)
            #pragma unroll
            for (int r = 0; r < TH; r++)
                #pragma unroll
                for (int t = 0; t < TW; t++)
                    acc[b][r][t] = (vecf)(0.0f);

        __global const float *xb = x + (ulong)n * x_blocks * x_plane + (ulong)y0 * stride_h * x_row + (ulong)x0 * (STRIDE * BI);
        __global const float *wt = w + (ulong)b0 * w_plane;
        // While these filters are in the cache, each tile fetches its share of those that come next.
        const int row = (tile + (order == ORDER_IMAGES ? n * tiles : 0)) * AHEAD, next_b = b0 + OBT + row / BI;
        const bool has_next = AHEAD > 0 && row < BI * OBT && next_b < oc_blocks;
        __global const float *next = has_next ? w + (ulong)next_b * w_plane + row % BI * BLOCK : wt;
        // Planes of x are too far from each other for a processor to foresee the next one's lines; where the first blocks have
        // read them, they are near. One row of taps is soon done with a block: it fetches several ahead, in the next tile, too.
        const bool is_far = order != ORDER_BLOCKS || b0 == 0, has_tile = tile + 1 < min(first_tile + tiles_each, tiles);
        const int ahead_x = min(kh == 1 ? AHEAD_X : 1, x_blocks);
        const int y1 = min((tile + 1) / tiles_w * TH, oh - TH), x1 = min((tile + 1) % tiles_w * TW, ow - TW);
        __global const float *xb1 = xb + (ptrdiff_t)(y1 - y0) * stride_h * x_row + (ptrdiff_t)(x1 - x0) * (STRIDE * BI);
        for (int ib = 0; ib < x_blocks; ib++, xb += x_plane) {
            for (int i = 0; i < kh; i++) {
                const int beyond = ib + ahead_x - x_blocks, row = i * x_row;
                if (BI > 1 && is_far && beyond < 0)
                    fetch_tile(xb + (ptrdiff_t)ahead_x * x_plane + row, stride_h * x_row, kw);
                else if (BI > 1 && is_far && has_tile)
                    fetch_tile(xb1 + (ptrdiff_t)beyond * x_plane + row, stride_h * x_row, kw);
                if (BI > 1 && is_far && tile == first_tile && ib + 1 < ahead_x) // nobody has fetched these
                    fetch_tile(xb + x_plane + row, stride_h * x_row, kw);
                for (int j = 0; j < KW; j++, wt += BI * BLOCK) {
                    __global const float *xt = xb + i * x_row + j * BI;
                    if (has_next) {
                        #pragma unroll
                        for (int a = 0; a < AHEAD; a++)
                            EQ_PREFETCH(next + a * BLOCK);
                        next += BI * BLOCK;
                    }
                    #pragma unroll
                    for (int c = 0; c < BI; c++) {
                        vecf wv[OBT];
                        #pragma unroll
                        for (int b = 0; b < OBT; b++)
                            wv[b] = EQ_LOAD(wt + b * w_plane + c * BLOCK);
                        #pragma unroll
                        for (int r = 0; r < TH; r++)
                            #pragma unroll
                            for (int t = 0; t < TW; t++) {
                                const vecf value = (vecf)(xt[r * stride_h * x_row + t * STRIDE * BI + c]);
                                #pragma unroll
                                for (int b = 0; b < OBT; b++)
                                    acc[b][r][t] = EQ_MAD(value, wv[b], acc[b][r][t]);
                            }
                    }
                }
            }
        }

        pixels += (y0 + TH - want_y) * (x0 + TW - want_x);
        #pragma unroll
        for (int b = 0; b < OBT; b++)
            if (MOMENTS && tile == first_tile)
                pivot[b] = acc[b][TH - 1][TW - 1];
        #pragma unroll
        for (int b = 0; b < OBT; b++)
            #pragma unroll
            for (int r = 0; r < TH; r++)
                #pragma unroll
                for (int t = 0; t < TW; t++)
                    if (b0 + b >= want_b && y0 + r >= want_y && x0 + t >= want_x) {
                        const ulong block = (ulong)n * oc_blocks + b0 + b;
                        const ulong y = y0 + r, px = x0 + t;
                        vecf sum = acc[b][r][t];
                        if (has_bias)
                            sum += EQ_LOAD(bias_base + bias_at + (ulong)n * bias_image + (b0 + b) * BLOCK);
                        if (has_add)
                            sum += EQ_LOAD(add_base + add_at + block * a_plane + y * a_row + px * a_step);
                        sum = ACT_APPLY(ACT, sum, vecf);
                        if (MOMENTS) {
                            const vecf away = sum - pivot[b];
                            sums[b] += away;
                            squares[b] = EQ_MAD(away, away, squares[b]);
                        }
                        EQ_STORE_STREAM(sum, z + block * z_plane + y * z_row + px * z_step);
                    }
    }
    const int parts = (tiles + tiles_each - 1) / tiles_each;
    #pragma unroll
    for (int b = 0; b < OBT; b++)
        if (MOMENTS && b0 + b >= want_b) {
            const ulong at = ((ulong)n * oc_blocks + b0 + b) * parts + first_tile / tiles_each;
            __global float *to = moments_base + moments_at + at * 3 * BLOCK;
            const vecf mean = sums[b] / pixels;
            EQ_STORE(pivot[b] + mean, to);
            EQ_STORE(squares[b] - sums[b] * mean, to + BLOCK);
            EQ_STORE((vecf)(pixels), to + 2 * BLOCK);
        }
}

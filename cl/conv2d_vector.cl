// Convolution for CPUs: explicit vectors over output channels, register tiles. Also computes data gradients, as convolutions of
// dz with transposed filters (conv2d_filter.cl), one launch per parity class of the output pixel.
//   x    f32 [n, x_blocks, rows, columns, BI]              read    first element: the pixel under tap (0, 0) of output (0, 0)
//   w    f32 [oc_blocks, x_blocks, kh, kw, BI, BLOCK]      read    images may have their own, w_image apart
//   bias f32 [oc_blocks, BLOCK]                            read    only where has_bias; likewise, bias_image apart
//   add  f32 as z                                          read    only where has_add; may be z itself
//   z    f32 [n, oc_blocks, oh, ow, BLOCK]                 write   act(sum + bias + add); pixels z_step, rows z_row apart
//   moments f32 [n, oc_blocks, parts, 3, BLOCK]            write   with MOMENTS, of the pixels that a work-item stores: their
//                                                                  mean, sum of squares about it and number
// A tile is TP pixels of OBT blocks: pixels that follow each other by rows, so that only the last tile of an image, and of the
// blocks, has to be moved back to end where they do: its first part is computed twice and stored once. A work-item makes
// tiles_each of them, one after the other: starting one takes some hundred cycles. Sums run over (block, kh, kw, channel) in
// that order. With PASSES they do so over pass_blocks blocks of x for all of these tiles, then the next ones, and z holds the
// sums meanwhile: where filters are many for the pixels, they come from memory evenly, while others are worked on. Not where z
// is add, too.
// Every pixel under a tap must be readable: x has a halo of zeros.
#ifndef BI
#define BI BLOCK // input channels in a block: BLOCK, or 1 for a plain image
#endif
#ifndef STRIDE
#define STRIDE 1 // from an output pixel to the next, in input pixels
#endif
#ifndef TP
#define TP 6 // tile: pixels, blocks; TP * OBT accumulators must fit the registers
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
#define ACT ACT_NONE // ACT_ELU, or ACT_NONE, where the argument `least` makes it ReLU
#endif
#ifndef MOMENTS
#define MOMENTS 0 // 1: moments of z are written, too
#endif
#ifndef IN_ROW
#define IN_ROW 0 // 1: TP divides ow, and no tile goes over a row's end
#endif
#ifndef PASSES
#define PASSES 0 // 1: all tiles of a work-item take pass_blocks blocks of x, then the next; their sums wait in z
#endif

// Which work-items follow each other, as `order`: what they share is in the cache.
#define ORDER_TILES 0  // all tiles of an image, then the next blocks: its pixels
#define ORDER_IMAGES 1 // all tiles of all images, then the next blocks: filters
#define ORDER_BLOCKS 2 // all blocks of a tile, then the next tile: its pixels, while all filters stay

// Where a tile's pixels lie in a plane, from the one at (x, y) on; returns the pixel behind them.
static int2 locate(long at[TP], int2 pixel, int ow, long row, int step)
{
    #pragma unroll
    for (int t = 0; t < TP; t++) {
        const int n = IN_ROW ? TP : 1; // pixels until one may be a row's last
        at[t] = IN_ROW && t > 0 ? at[0] + t * step : pixel.y * row + pixel.x * step;
        if (t % n == 0) {
            const bool is_last = pixel.x + n == ow;
            pixel = (int2)(is_last ? 0 : pixel.x + n, pixel.y + is_last);
        }
    }
    return pixel;
}

// The pixels of x under one row of taps of a tile, of a block.
static void fetch_tile(__global const float *xb, const long at[TP], int kw)
{
    #pragma unroll
    for (int s = 0; s < STRIDE; s++)
        if (s < kw)
            #pragma unroll
            for (int t = 0; t < TP; t++)
                EQ_PREFETCH_NEAR(xb + at[t] + s * BI);
}

static void add_bias(vecf acc[OBT][TP], __global const float *bias)
{
    #pragma unroll
    for (int b = 0; b < OBT; b++)
        #pragma unroll
        for (int t = 0; t < TP; t++)
            acc[b][t] += EQ_LOAD(bias + b * BLOCK);
}

// From first_b and first_t on: other work-items may write what is before.
static void add_tile(vecf acc[OBT][TP], __global const float *add, int plane, const long at[TP], int first_b, int first_t)
{
    #pragma unroll
    for (int b = 0; b < OBT; b++)
        if (b >= first_b)
            #pragma unroll
            for (int t = 0; t < TP; t++)
                if (t >= first_t)
                    acc[b][t] += EQ_LOAD(add + (long)b * plane + at[t]);
}

static void keep_sums(vecf acc[OBT][TP], __global float *z, int plane, const long at[TP], int first_b, int first_t)
{
    #pragma unroll
    for (int b = 0; b < OBT; b++)
        if (b >= first_b)
            #pragma unroll
            for (int t = 0; t < TP; t++)
                if (t >= first_t)
                    EQ_STORE(acc[b][t], z + (long)b * plane + at[t]);
}

// The least value is 0 with ReLU, and -infinity without activation, so that both are one program. A NaN stays one.
static vecf activate(vecf sum, float least)
{
    return ACT == ACT_ELU ? ACT_APPLY(ACT, sum, vecf) : select(sum, (vecf)(least), isless(sum, (vecf)(least)));
}

static void store_tile(vecf acc[OBT][TP], float least, __global float *z, int plane, const long at[TP], int first_b,
                       int first_t, __global float *moments, ulong moments_block, bool is_first)
{
    #pragma unroll
    for (int b = 0; b < OBT; b++)
        if (b >= first_b) {
            __global float *own = moments + b * moments_block;
            vecf pivot = activate(acc[b][TP - 1], least), sums = (vecf)(0.0f), squares = (vecf)(0.0f);
            if (MOMENTS && !is_first) {
                pivot = EQ_LOAD(own);
                sums = EQ_LOAD(own + BLOCK);
                squares = EQ_LOAD(own + 2 * BLOCK);
            }
            #pragma unroll
            for (int t = 0; t < TP; t++)
                if (t >= first_t) {
                    const vecf sum = activate(acc[b][t], least), away = sum - pivot;
                    sums += away;
                    squares = EQ_MAD(away, away, squares);
                    EQ_STORE_STREAM(sum, z + (long)b * plane + at[t]);
                }
            if (MOMENTS) {
                EQ_STORE(pivot, own);
                EQ_STORE(sums, own + BLOCK);
                EQ_STORE(squares, own + 2 * BLOCK);
            }
        }
}

// A pivot, and sums and squares about it, become a mean, squares about that and the number of pixels.
static void settle_moments(__global float *moments, ulong moments_block, int first_b, int pixels)
{
    #pragma unroll
    for (int b = 0; b < OBT; b++)
        if (b >= first_b) {
            __global float *own = moments + b * moments_block;
            const vecf sums = EQ_LOAD(own + BLOCK), squares = EQ_LOAD(own + 2 * BLOCK), mean = sums / pixels;
            EQ_STORE(EQ_LOAD(own) + mean, own);
            EQ_STORE(squares - sums * mean, own + BLOCK);
            EQ_STORE((vecf)(pixels), own + 2 * BLOCK);
        }
}

__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
conv2d_vector(EQ_IN(float, x), EQ_IN(float, w), __global const float *bias_base, const ulong bias_at,
              __global const float *add_base, const ulong add_at, EQ_BUF(float, z), const int x_row, const int x_plane,
              const int x_blocks, const int kh, const int kw, const int stride_h, const int oc_blocks, const int oh,
              const int ow, const int z_row, const int z_step, const int z_plane, const int a_row, const int a_step,
              const int a_plane, const int has_bias, const int has_add, const int w_image, const int bias_image,
              const int order, const int tiles_each, const int pass_blocks, const float least,
              __global float *moments_base, const ulong moments_at)
{
    EQ_IN_PTR(float, x);
    EQ_IN_PTR(float, w);
    EQ_PTR(float, z);
    const int id0 = (int)get_global_id(0), id1 = (int)get_global_id(1), id2 = (int)get_global_id(2);
    const int num_pixels = oh * ow, tiles = (num_pixels + TP - 1) / TP, n = order == ORDER_IMAGES ? id1 : id2;
    const int first_tile = (order == ORDER_BLOCKS ? id1 : id0) * tiles_each;
    const int want_b = (order == ORDER_BLOCKS ? id0 : order == ORDER_IMAGES ? id2 : id1) * OBT;
    const int b0 = min(want_b, oc_blocks - OBT);
    const ulong w_plane = (ulong)x_blocks * (kh * kw * BI * BLOCK);
    w += (ulong)n * w_image;
    // Until the end moments are a pivot, a pixel of the first tile, and sums and squares about it: squares of plain z would
    // cancel when the mean is large against the deviation. They wait in memory, where they do not take registers from the sums.
    const int first_b = want_b - b0, parts = (tiles + tiles_each - 1) / tiles_each;
    __global float *moments = moments_base + moments_at;
    moments += (((ulong)n * oc_blocks + b0) * parts + first_tile / tiles_each) * (3 * BLOCK);
    const ulong moments_block = (ulong)parts * 3 * BLOCK;
    int pixels = 0;

    const int first_p = min(first_tile * TP, num_pixels - TP);
    const long x_down = (long)stride_h * x_row;
    for (int pass = 0; pass < (PASSES ? x_blocks : 1); pass += PASSES ? pass_blocks : 1) {
        const int end = PASSES ? min(pass + pass_blocks, x_blocks) : x_blocks; // of the blocks of this pass
        const bool is_last = !PASSES || end == x_blocks;
        long at[TP], at1[TP]; // this tile's pixels, and the next one's
        int2 pixel = (int2)(first_p % ow, first_p / ow), pixel1 = locate(at, pixel, ow, x_down, STRIDE * BI);
        for (int tile = first_tile; tile < min(first_tile + tiles_each, tiles); tile++) {
            const int want_p = tile * TP, p0 = min(want_p, num_pixels - TP), p1 = min(want_p + TP, num_pixels - TP);
            if (p1 < want_p + TP)
                pixel1 = (int2)(p1 % ow, p1 / ow);
            const int2 pixel2 = locate(at1, pixel1, ow, x_down, STRIDE * BI);
            vecf acc[OBT][TP];
            #pragma unroll
            for (int b = 0; b < OBT; b++)
                #pragma unroll
                for (int t = 0; t < TP; t++)
                    acc[b][t] = (vecf)(0.0f);
            const ulong block = (ulong)n * oc_blocks + b0;
            long to[TP];
            if (pass > 0) {
                locate(to, pixel, ow, z_row, z_step);
                add_tile(acc, z + block * z_plane, z_plane, to, first_b, 0);
            }

            __global const float *xb = x + ((ulong)n * x_blocks + pass) * x_plane;
            __global const float *wt = w + (ulong)b0 * w_plane + pass * (kh * kw * BI * BLOCK);
            // While these filters are in the cache, each tile fetches its share of those that come next, or its own if none do.
            const int row = (tile + (order == ORDER_IMAGES ? n * tiles : 0)) * AHEAD;
            const int next_b = (is_last ? b0 + OBT : b0) + row / BI, next_ib = is_last ? 0 : end;
            const bool has_next = AHEAD > 0 && row < BI * OBT && next_b < oc_blocks;
            __global const float *next =
                has_next ? w + (ulong)next_b * w_plane + (next_ib * kh * kw * BI + row % BI) * BLOCK : wt;
            // Planes of x are too far from each other for a processor to foresee the next one's lines; where the first blocks
            // have read them, they are near. One row of taps is soon done with a block: it fetches several ahead, in the next
            // tile, too.
            const bool is_far = order != ORDER_BLOCKS || b0 == 0, has_tile = tile + 1 < min(first_tile + tiles_each, tiles);
            const int ahead_x = min(kh == 1 ? AHEAD_X : 1, end - pass);
            for (int ib = pass; ib < end; ib++, xb += x_plane) {
                for (int i = 0; i < kh; i++) {
                    const int beyond = ib + ahead_x - end, row = i * x_row;
                    if (BI > 1 && is_far && beyond < 0)
                        fetch_tile(xb + (ptrdiff_t)ahead_x * x_plane + row, at, kw);
                    else if (BI > 1 && is_far && has_tile)
                        fetch_tile(xb + (ptrdiff_t)(pass + beyond - ib) * x_plane + row, at1, kw);
                    if (BI > 1 && is_far && tile == first_tile && ib + 1 < pass + ahead_x) // nobody has fetched these
                        fetch_tile(xb + x_plane + row, at, kw);
                    for (int j = 0; j < KW; j++, wt += BI * BLOCK) {
                        __global const float *xt = xb + i * x_row + j * BI;
                        #pragma unroll
                        for (int a = 0; a < AHEAD; a++)
                            EQ_PREFETCH(next + a * BLOCK);
                        next += BI * BLOCK;
                        #pragma unroll
                        for (int c = 0; c < BI; c++) {
                            vecf wv[OBT];
                            #pragma unroll
                            for (int b = 0; b < OBT; b++)
                                wv[b] = EQ_LOAD(wt + b * w_plane + c * BLOCK);
                            #pragma unroll
                            for (int t = 0; t < TP; t++) {
                                const vecf value = (vecf)(xt[at[t] + c]);
                                #pragma unroll
                                for (int b = 0; b < OBT; b++)
                                    acc[b][t] = EQ_MAD(value, wv[b], acc[b][t]);
                            }
                        }
                    }
                }
            }

            // What a tile that was moved back has in common with the one before is stored already.
            const int first_t = want_p - p0;
            locate(to, pixel, ow, z_row, z_step);
            if (is_last) {
                pixels += TP - first_t;
                if (has_bias)
                    add_bias(acc, bias_base + bias_at + (ulong)n * bias_image + b0 * BLOCK);
                if (has_add) {
                    long from[TP];
                    locate(from, pixel, ow, a_row, a_step);
                    add_tile(acc, add_base + add_at + block * a_plane, a_plane, from, first_b, first_t);
                }
                store_tile(acc, least, z + block * z_plane, z_plane, to, first_b, first_t, moments, moments_block,
                           tile == first_tile);
            } else {
                keep_sums(acc, z + block * z_plane, z_plane, to, first_b, first_t);
            }
            pixel = pixel1;
            pixel1 = pixel2;
            #pragma unroll
            for (int t = 0; t < TP; t++)
                at[t] = IN_ROW ? at1[0] + t * (STRIDE * BI) : at1[t];
        }
    }
    if (MOMENTS)
        settle_moments(moments, moments_block, first_b, pixels);
}

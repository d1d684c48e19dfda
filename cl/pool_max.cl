// Maximum over windows, and its gradient.
//   x      f32 [planes, ih, iw, BLOCK]    read     its halo is not looked at: padding never wins
//   y      f32 [planes, oh, ow, BLOCK]    write    halo too
//   index  i32 [planes, oh, ow, BLOCK]    write    ix + iw * iy of the maximum; the first one where several are equal; no halo
//   dy     f32 as y                       read
//   add    f32 as x                       read     may be dx itself
//   dx     f32 as x                       write    halo too: the sum of dy over the windows whose maximum is here, plus add
// A plane is one block of channels of one image. *_row and *_plane are elements from a row, a plane to the next.
// A NaN wins, the last of several.
// SIMT 0: a work-item makes one stored row of the result, a block of channels at a time. SIMT 1: one stored element; dimension
// 0 runs over a row's elements, channels fastest, so that neighbours touch neighbours. Dimension 1: rows, dimension 2: planes.
// The gradient gathers, so no two work-items write one place and the order of its at most ceil(KH/SH) * ceil(KW/SW) terms is
// fixed.
#ifndef KH
#define KH 3
#define KW 3
#define SH 2 // stride
#define SW 2
#define PH 1 // padding
#define PW 1
#endif
#ifndef SIMT
#define SIMT 0
#endif
#ifndef PLACES
#define PLACES 1 // 0: evaluation needs no places
#endif
#if SIMT
typedef float value_t;
typedef int index_t;
#define LANES 1
#define VALUE_LOAD(p) (*(p))
#define VALUE_STORE(v, p) (*(p) = (v))
#define INDEX_LOAD(p) (*(p))
#define INDEX_STORE(v, p) (*(p) = (v))
#define CHOOSE(a, b, mask) ((mask) ? (b) : (a))
#else
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
typedef vecf value_t;
typedef JOIN(int, BLOCK) index_t;
#define LANES BLOCK
#define VALUE_LOAD(p) EQ_LOAD(p)
#define VALUE_STORE(v, p) EQ_STORE(v, p)
typedef index_t __attribute__((aligned(4))) any_index;
#define INDEX_LOAD(p) (*(__global const any_index *)(p))
#define INDEX_STORE(v, p) (*(__global any_index *)(p) = (v))
#define CHOOSE(a, b, mask) ((mask) ? (b) : (a))
#endif

// Takes pixel (i, j) of x into the maximum so far.
#define TAKE(i, j)                                                \
    do {                                                          \
        const value_t v_ = VALUE_LOAD(x + (i)*x_row + (j)*BLOCK); \
        const index_t wins_ = (v_ > best) | (v_ != v_);               \
        best = CHOOSE(best, v_, wins_);                           \
        place = CHOOSE(place, (index_t)((i)*iw + (j)), wins_);    \
    } while (0)

__kernel void pool_max_fwd(EQ_IN(float, x), EQ_BUF(float, y), EQ_BUF(int, index), const int planes, const int ih, const int iw,
                           const int x_row, const int x_plane, const int oh, const int ow, const int halo)
{
    EQ_IN_PTR(float, x);
    EQ_PTR(float, y);
    EQ_PTR(int, index);
    const int width = (ow + 2 * halo) * BLOCK, rows = oh + 2 * halo, plane = (int)get_global_id(2);
    const int oy = (int)get_global_id(1) - halo, first = (int)get_global_id(0) * (SIMT ? 1 : width);
    if (plane >= planes || oy >= oh + halo || first >= width)
        return;
    x += (ulong)plane * x_plane + (SIMT ? first % BLOCK : 0);
    y += ((ulong)plane * rows + oy + halo) * width;
    index += PLACES ? ((ulong)plane * oh + oy) * ow * BLOCK : 0;
    for (int e = first; e < (SIMT ? first + 1 : width); e += LANES) {
        const int ox = e / BLOCK - halo;
        value_t best = (value_t)(0.0f);
        if (oy >= 0 && oy < oh && ox >= 0 && ox < ow) {
            const int top = oy * SH - PH, left = ox * SW - PW, first_y = max(top, 0), first_x = max(left, 0);
            const int end_y = min(top + KH, ih), end_x = min(left + KW, iw);
            index_t place = (index_t)(first_y * iw + first_x);
            best = (value_t)(-INFINITY);
            if (end_y - first_y == KH && end_x - first_x == KW) { // loops of fixed length
                #pragma unroll
                for (int i = 0; i < KH; i++)
                    #pragma unroll
                    for (int j = 0; j < KW; j++)
                        TAKE(top + i, left + j);
            } else {
                for (int i = first_y; i < end_y; i++)
                    for (int j = first_x; j < end_x; j++)
                        TAKE(i, j);
            }
            if (PLACES)
                INDEX_STORE(place, index + e - halo * BLOCK);
        }
        VALUE_STORE(best, y + e);
    }
}

// Sum of dy over the windows that have pixel (iy, ix) as their maximum.
static inline value_t gather(__global const float *dy, __global const int *index, int iy, int ix, int iw, int oh, int ow,
                             int row)
{
    const int first_y = max((iy + PH - KH + SH) / SH, 0), end_y = min((iy + PH) / SH + 1, oh);
    const int first_x = max((ix + PW - KW + SW) / SW, 0), end_x = min((ix + PW) / SW + 1, ow);
    const index_t here = (index_t)(iy * iw + ix);
    value_t sum = (value_t)(0.0f);
    for (int i = first_y; i < end_y; i++)
        for (int j = first_x; j < end_x; j++) {
            const value_t v = VALUE_LOAD(dy + i * row + j * BLOCK);
            sum += CHOOSE((value_t)(0.0f), v, INDEX_LOAD(index + (i * ow + j) * BLOCK) == here);
        }
    return sum;
}

__kernel void pool_max_bwd(EQ_IN(float, dy), EQ_IN(int, index), EQ_BUF(const float, add), EQ_BUF(float, dx), const int planes,
                           const int ih, const int iw, const int halo, const int oh, const int ow, const int dy_row,
                           const int dy_plane, const int add_row, const int add_plane, const int has_add)
{
    EQ_IN_PTR(float, dy);
    EQ_IN_PTR(int, index);
    EQ_PTR(const float, add);
    EQ_PTR(float, dx);
    const int width = (iw + 2 * halo) * BLOCK, rows = ih + 2 * halo, plane = (int)get_global_id(2);
    const int iy = (int)get_global_id(1) - halo, first = (int)get_global_id(0) * (SIMT ? 1 : width),
              lane = SIMT ? first % BLOCK : 0;
    if (plane >= planes || iy >= ih + halo || first >= width)
        return;
    dy += (ulong)plane * dy_plane + lane;
    index += (ulong)plane * oh * ow * BLOCK + lane;
    dx += ((ulong)plane * rows + iy + halo) * width;
    for (int e = first; e < (SIMT ? first + 1 : width); e += LANES) {
        const int ix = e / BLOCK - halo;
        value_t sum = (value_t)(0.0f);
        if (iy >= 0 && iy < ih && ix >= 0 && ix < iw) {
            sum = gather(dy, index, iy, ix, iw, oh, ow, dy_row);
            if (has_add)
                sum += VALUE_LOAD(add + (ulong)plane * add_plane + iy * add_row + ix * BLOCK + lane);
        }
        VALUE_STORE(sum, dx + e);
    }
}

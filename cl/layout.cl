// Between a tensor of a caller's, with strides of its own, and blocks of channels.
//   view     TYPE, element (n, c, y, x) at n * sn + c * sc + y * sy + x * sx   read by pack, written by unpack
//   map      f32 [2, c]: scale and shift of each channel, with MAP 1           read
//   stored   u32 [n, blocks, h + 2 halo, w + 2 halo, BLOCK]                    written by pack, zeros around; read by unpack
// What is written is what was read * scale + shift. Without a map, words are moved, whatever they mean: f32 or i32.
// check: -DTYPE=1 -DMAP=1
// check: -DTYPE=2 -DMAP=1 -DSIMT=1
// SIMT 0: a work-item per row. SIMT 1: per element of the side that is written. Dimension 1: rows, dimension 2: planes or
// channels.
#ifndef BLOCK
#define BLOCK 16
#endif
#ifndef SIMT
#define SIMT 0
#endif
#ifndef TYPE
#define TYPE 0 // WORD, F16 or U8
#endif
#ifndef MAP
#define MAP 0
#endif

#define WORD 0
#define F16 1
#define U8 2 // to the nearest, ties to even, cut to 0 .. 255

#if TYPE == WORD
typedef uint view_t;
#define GET(p) (*(p))
#define PUT(v, p) (*(p) = (v))
#elif TYPE == F16
typedef ushort view_t;
#define GET(p) as_uint(from_f16(*(p)))
#define PUT(v, p) (*(p) = to_f16(as_float(v)))

// By bits: without cl_khr_fp16 some compilers have no vload_half, and denormals may be flushed in float's own arithmetic.
float from_f16(ushort bits)
{
    const uint size = bits & 0x7FFFu, exponent = size >> 10;
    const float small = (float)size * 0x1p-24f, normal = as_float((size << 13) + (exponent == 31 ? 0x70000000u : 0x38000000u));
    return copysign(exponent ? normal : small, as_float((uint)bits << 16));
}

// To the nearest, ties to even.
ushort to_f16(float value)
{
    const uint bits = as_uint(value), sign = bits >> 16 & 0x8000u, size = bits & 0x7FFFFFFFu;
    const uint small = (uint)rint(as_float(size) * 0x1p24f), normal = (size + 0xFFFu + (size >> 13 & 1u) - 0x38000000u) >> 13;
    const uint large = size > 0x7F800000u ? 0x7E00u : 0x7C00u;
    return (ushort)(sign | (size >= 0x477FF000u ? large : size >= 0x38800000u ? normal : small));
}
#else
typedef uchar view_t;
#define GET(p) as_uint((float)*(p))
#define PUT(v, p) (*(p) = convert_uchar_sat_rte(as_float(v)))
#endif

#define MAPPED(v, channel) (MAP ? as_uint(EQ_MAD(as_float(v), map[channel], map[c + (channel)])) : (v))

// rows and planes of the stored side, with halo
__kernel void layout_pack(EQ_IN(view_t, view), EQ_IN(float, map), EQ_BUF(uint, stored), const int planes, const int c,
                          const int blocks, const int h, const int w, const int halo, const int sn, const int sc, const int sy,
                          const int sx)
{
    EQ_IN_PTR(view_t, view);
    EQ_IN_PTR(float, map);
    EQ_PTR(uint, stored);
    const int width = (w + 2 * halo) * BLOCK, plane = (int)get_global_id(2), y = (int)get_global_id(1) - halo;
    const int first = (int)get_global_id(0) * (SIMT ? 1 : width), end = SIMT ? first + 1 : width;
    if (plane >= planes || y >= h + halo || first >= width)
        return;
    const int channel = plane % blocks * BLOCK;
    view += (ulong)(plane / blocks) * sn + (ulong)channel * sc + (ulong)max(y, 0) * sy;
    stored += ((ulong)plane * (h + 2 * halo) + y + halo) * width;
    for (int e = first; e < end; e++) {
        const int x = e / BLOCK - halo, k = e % BLOCK;
        const bool is_value = y >= 0 && y < h && x >= 0 && x < w && channel + k < c;
        stored[e] = is_value ? MAPPED(GET(view + (ulong)k * sc + (ulong)x * sx), channel + k) : 0u;
    }
}

// rows and channels of the view; `stored` points at pixel (0, 0)
__kernel void layout_unpack(EQ_IN(uint, stored), EQ_IN(float, map), EQ_BUF(view_t, view), const int channels, const int c,
                            const int blocks, const int h, const int w, const int row, const int plane, const int sn,
                            const int sc, const int sy, const int sx)
{
    EQ_IN_PTR(uint, stored);
    EQ_IN_PTR(float, map);
    EQ_PTR(view_t, view);
    const int at = (int)get_global_id(2), y = (int)get_global_id(1); // at: image * c + channel
    const int first = (int)get_global_id(0) * (SIMT ? 1 : w), end = SIMT ? first + 1 : w;
    if (at >= channels || y >= h || first >= w)
        return;
    const int channel = at % c;
    stored += ((ulong)(at / c) * blocks + channel / BLOCK) * plane + y * row + channel % BLOCK;
    view += (ulong)(at / c) * sn + (ulong)channel * sc + (ulong)y * sy;
    for (int x = first; x < end; x++)
        PUT(MAPPED(stored[x * BLOCK], channel), view + (ulong)x * sx);
}

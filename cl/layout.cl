// Between plain NCHW and blocks of channels.
//   plain    u32 [n, c, h, w]                                    read by pack, written by unpack
//   stored   u32 [n, blocks, h + 2 halo, w + 2 halo, BLOCK]      written by pack, with zeros around; read by unpack
// Words are moved, whatever they mean: f32 or i32.
// SIMT 0: a work-item per row. SIMT 1: per element of the side that is written. Dimension 1: rows, dimension 2: planes or
// channels.
#ifndef BLOCK
#define BLOCK 16
#endif
#ifndef SIMT
#define SIMT 0
#endif

// rows and planes of the stored side, with halo
__kernel void layout_pack(EQ_IN(uint, plain), EQ_BUF(uint, stored), const int planes, const int c, const int blocks,
                          const int h, const int w, const int halo)
{
    EQ_IN_PTR(uint, plain);
    EQ_PTR(uint, stored);
    const int width = (w + 2 * halo) * BLOCK, plane = (int)get_global_id(2), y = (int)get_global_id(1) - halo;
    const int first = (int)get_global_id(0) * (SIMT ? 1 : width), end = SIMT ? first + 1 : width;
    if (plane >= planes || y >= h + halo || first >= width)
        return;
    const int channel = plane % blocks * BLOCK;
    plain += (((ulong)(plane / blocks) * c + channel) * h + max(y, 0)) * w;
    stored += ((ulong)plane * (h + 2 * halo) + y + halo) * width;
    for (int e = first; e < end; e++) {
        const int x = e / BLOCK - halo, k = e % BLOCK;
        const bool is_value = y >= 0 && y < h && x >= 0 && x < w && channel + k < c;
        stored[e] = is_value ? plain[(ulong)k * h * w + x] : 0u;
    }
}

// rows and channels of the plain side; `stored` points at pixel (0, 0)
__kernel void layout_unpack(EQ_IN(uint, stored), EQ_BUF(uint, plain), const int channels, const int c, const int blocks,
                            const int h, const int w, const int row, const int plane)
{
    EQ_IN_PTR(uint, stored);
    EQ_PTR(uint, plain);
    const int at = (int)get_global_id(2), y = (int)get_global_id(1); // at: image * c + channel
    const int first = (int)get_global_id(0) * (SIMT ? 1 : w), end = SIMT ? first + 1 : w;
    if (at >= channels || y >= h || first >= w)
        return;
    const int channel = at % c;
    stored += ((ulong)(at / c) * blocks + channel / BLOCK) * plane + y * row + channel % BLOCK;
    plain += ((ulong)at * h + y) * w;
    for (int x = first; x < end; x++)
        plain[x] = stored[x * BLOCK];
}

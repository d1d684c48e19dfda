// Zeroes the halo of a blocked tensor.
//   z    f32 [planes, h + 2 halo, w + 2 halo, block]    write   halo only
// One work-item per stored row.
__kernel __attribute__((reqd_work_group_size(8, 8, 1)))
void conv2d_border_zero(EQ_BUF(float, z), const int planes, const int h, const int w, const int halo, const int block)
{
    EQ_PTR(float, z);
    const int rows = h + 2 * halo, width = (w + 2 * halo) * block, y = (int)get_global_id(0), plane = (int)get_global_id(1);
    if (y >= rows || plane >= planes)
        return;
    z += ((ulong)plane * rows + y) * width;
    const int inside = y >= halo && y < halo + h ? w * block : 0;
    for (int e = 0; e < halo * block; e++)
        z[e] = 0.0f;
    for (int e = halo * block + inside; e < width; e++)
        z[e] = 0.0f;
}

// Mean over the pixels of each channel, and its gradient.
//   x     f32 [planes, h, w, BLOCK]    read     plane = image * blocks + block of channels
//   y     f32 [n, c]                   write
//   dy    f32 [n, c]                   read
//   dx    f32 as x                     write    dy / (h * w); padding channels and halo are zero
// Rows are summed each, then the rows' sums: short chains keep the rounding small. Forward: SIMT 0, a work-item per plane; SIMT
// 1, a work-group of LSIZE per plane, LSIZE / BLOCK pixels side by side, merged in a tree. Gradient: SIMT 0, a work-item per
// stored row; SIMT 1, per stored element.
#ifndef LSIZE
#define LSIZE 64 // a power of two, at least BLOCK
#endif
#ifndef SIMT
#define SIMT 0
#endif

#if SIMT
__kernel __attribute__((reqd_work_group_size(LSIZE, 1, 1))) void pool_avg_fwd(EQ_IN(float, x), EQ_BUF(float, y), const int c,
                                                                              const int blocks, const int h, const int w,
                                                                              const int x_row, const int x_plane)
{
    EQ_IN_PTR(float, x);
    EQ_PTR(float, y);
    __local float sums[LSIZE];
    const int item = (int)get_local_id(0), lane = item % BLOCK, plane = (int)get_group_id(0);
    x += (ulong)plane * x_plane + lane;
    float sum = 0.0f;
    for (int i = 0; i < h; i++) {
        float row = 0.0f;
        for (int j = item / BLOCK; j < w; j += LSIZE / BLOCK)
            row += x[i * x_row + j * BLOCK];
        sum += row;
    }
    sums[item] = sum;
    for (int span = LSIZE / 2; span >= BLOCK; span /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (item < span)
            sums[item] += sums[item + span];
    }
    const int channel = plane % blocks * BLOCK + lane;
    if (item < BLOCK && channel < c)
        y[(ulong)(plane / blocks) * c + channel] = sums[item] / ((float)h * (float)w);
}
#else
__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void pool_avg_fwd(EQ_IN(float, x), EQ_BUF(float, y), const int c,
                                                                          const int blocks, const int h, const int w,
                                                                          const int x_row, const int x_plane)
{
    EQ_IN_PTR(float, x);
    EQ_PTR(float, y);
    const int plane = (int)get_group_id(0), channel = plane % blocks * BLOCK;
    x += (ulong)plane * x_plane;
    vecf sum = (vecf)(0.0f);
    for (int i = 0; i < h; i++) {
        vecf row = (vecf)(0.0f);
        for (int j = 0; j < w; j++)
            row += EQ_LOAD(x + i * x_row + j * BLOCK);
        sum += row;
    }
    float lanes[BLOCK];
    *(eq_unaligned *)lanes = sum / ((float)h * (float)w);
    for (int k = 0; k < BLOCK && channel + k < c; k++)
        y[(ulong)(plane / blocks) * c + channel + k] = lanes[k];
}
#endif

__kernel void pool_avg_bwd(EQ_IN(float, dy), EQ_BUF(float, dx), const int planes, const int c, const int blocks, const int h,
                           const int w, const int halo)
{
    EQ_IN_PTR(float, dy);
    EQ_PTR(float, dx);
    const int width = (w + 2 * halo) * BLOCK, rows = h + 2 * halo, plane = (int)get_global_id(2);
    const int y = (int)get_global_id(1) - halo, first = (int)get_global_id(0) * (SIMT ? 1 : width),
              end = SIMT ? first + 1 : width;
    if (plane >= planes || y >= h + halo || first >= width)
        return;
    const bool is_inside = y >= 0 && y < h;
    dy += (ulong)(plane / blocks) * c;
    dx += ((ulong)plane * rows + y + halo) * width;
    const float share = 1.0f / ((float)h * (float)w);
    for (int e = first; e < end; e++) {
        const int x = e / BLOCK - halo, channel = plane % blocks * BLOCK + e % BLOCK;
        dx[e] = is_inside && x >= 0 && x < w && channel < c ? dy[channel] * share : 0.0f;
    }
}

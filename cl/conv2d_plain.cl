// Data gradient of a convolution whose input is a plain image (block 1). Training never asks for it, so it is kept simple.
//   dz   f32 [n, oc_blocks, oh, ow, BLOCK]          read    first element: pixel (0, 0)
//   w    f32 [oc_blocks, ic, kh, kw, BLOCK]         read
//   add  f32 as dx                                  read    only where has_add; may be dx itself
//   dx   f32 [n * ic, ih, iw]                       write   first element: pixel (0, 0)
// One work-item per pixel; sums over (block, kh, kw), then over the lanes of a block.
__kernel __attribute__((reqd_work_group_size(64, 1, 1)))
void conv2d_plain_data_grad(EQ_IN(float, dz), EQ_IN(float, w), __global const float *add_base, const ulong add_at,
                            EQ_BUF(float, dx), const int planes, const int ic, const int oc_blocks, const int oh, const int ow,
                            const int d_row, const int d_plane, const int kh, const int kw, const int stride_h,
                            const int stride_w, const int pad_h, const int pad_w, const int ih, const int iw, const int x_row,
                            const int x_plane, const int a_row, const int a_plane, const int has_add)
{
    EQ_IN_PTR(float, dz);
    EQ_IN_PTR(float, w);
    EQ_PTR(float, dx);
    const int p = (int)get_global_id(0), plane = (int)get_global_id(1);
    if (p >= ih * iw || plane >= planes)
        return;
    const int y = p / iw, x = p % iw, n = plane / ic, c = plane % ic;
    vecf acc = (vecf)(0.0f);
    for (int b = 0; b < oc_blocks; b++)
        for (int i = 0; i < kh; i++)
            for (int j = 0; j < kw; j++) {
                const int yz = y + pad_h - i, xz = x + pad_w - j;
                if (yz < 0 || yz % stride_h || yz / stride_h >= oh || xz < 0 || xz % stride_w || xz / stride_w >= ow)
                    continue;
                const vecf tap = EQ_LOAD(w + ((((ulong)b * ic + c) * kh + i) * kw + j) * BLOCK);
                const ulong row = ((ulong)n * oc_blocks + b) * d_plane + (ulong)(yz / stride_h) * d_row;
                acc = EQ_MAD(tap, EQ_LOAD(dz + row + xz / stride_w * BLOCK), acc);
            }
    float lanes[BLOCK], sum = has_add ? add_base[add_at + (ulong)plane * a_plane + (ulong)y * a_row + x] : 0.0f;
    *(eq_unaligned *)lanes = acc;
    for (int b = 0; b < BLOCK; b++)
        sum += lanes[b];
    dx[(ulong)plane * x_plane + (ulong)y * x_row + x] = sum;
}

// Convolution in groups for GPUs, depthwise ones included, and the filters of its data gradient for every device.
//   x    f32 [n, x_blocks, ih, iw, BLOCK]             read    first element: pixel (0, 0); taps outside of it are zero
//   w    f32 [oc_blocks, per_in, kh, kw, BLOCK]       read
//   bias f32 [oc_blocks, BLOCK]                       read    only where has_bias
//   add  f32 as z                                     read    only where has_add; may be z itself
//   z    f32 [n, oc_blocks, oh, ow, BLOCK]            write   act(sum + bias + add); pixels z_step, rows z_row apart
// A group has per_in input and per_out output channels. One work-item per value of z, lanes side by side over the channels of a
// block, then pixels: a depthwise convolution reads and writes neighbouring addresses. Sums run over (channel, kh, kw).
#ifndef ACT
#define ACT ACT_NONE
#endif

// The first input channel of the group of output channel `oc`; channels that fill up the last block read those of the last.
static int first_channel(int oc, int per_in, int per_out, int num_groups)
{
    return min(oc / per_out, num_groups - 1) * per_in;
}

__kernel __attribute__((reqd_work_group_size(64, 1, 1)))
void conv2d_grouped_simt(EQ_IN(float, x), EQ_IN(float, w), __global const float *bias_base, const ulong bias_at,
                         __global const float *add_base, const ulong add_at, EQ_BUF(float, z), const int ih, const int iw,
                         const int x_row, const int x_plane, const int x_blocks, const int num_groups, const int per_in,
                         const int per_out, const int kh, const int kw, const int first_y, const int first_x,
                         const int stride_h, const int stride_w, const int oc_blocks, const int oh, const int ow,
                         const int z_row, const int z_step, const int z_plane, const int a_row, const int a_step,
                         const int a_plane, const int has_bias, const int has_add)
{
    EQ_IN_PTR(float, x);
    EQ_IN_PTR(float, w);
    EQ_PTR(float, z);
    const int lane = (int)get_global_id(0) % BLOCK, p = (int)get_global_id(0) / BLOCK;
    const int b = (int)get_global_id(1), n = (int)get_global_id(2);
    if (p >= oh * ow)
        return;
    const int y = p / ow, column = p - y * ow, c0 = first_channel(b * BLOCK + lane, per_in, per_out, num_groups);
    const ulong block = (ulong)n * oc_blocks + b;
    x += (ulong)n * x_blocks * x_plane;
    w += (ulong)b * (per_in * kh * kw) * BLOCK + lane;
    float sum = 0.0f;
    for (int c = c0; c < c0 + per_in; c++) {
        __global const float *xc = x + (ulong)(c / BLOCK) * x_plane + c % BLOCK;
        for (int i = 0; i < kh; i++)
            for (int j = 0; j < kw; j++, w += BLOCK) {
                const int yi = y * stride_h + first_y + i, xi = column * stride_w + first_x + j;
                if (yi >= 0 && yi < ih && xi >= 0 && xi < iw)
                    sum = EQ_MAD(xc[(ulong)yi * x_row + xi * BLOCK], *w, sum);
            }
    }
    if (has_bias)
        sum += bias_base[bias_at + b * BLOCK + lane];
    if (has_add)
        sum += add_base[add_at + block * a_plane + (ulong)y * a_row + (ulong)column * a_step + lane];
    z[block * z_plane + (ulong)y * z_row + (ulong)column * z_step + lane] = ACT_APPLY(ACT, sum, float);
}

// Gradient of the filter: one work-item per value of dw, over the pixels of a part.
//   dz   f32 [n, oc_blocks, oh, ow, BLOCK]                    read    first element: pixel (0, 0)
//   dw   f32 [parts, oc_blocks, per_in, kh, kw, BLOCK]        write
__kernel __attribute__((reqd_work_group_size(64, 1, 1)))
void conv2d_grouped_simt_weight_grad(EQ_IN(float, x), EQ_IN(float, dz), EQ_BUF(float, dw), const int ih, const int iw,
                                     const int x_row, const int x_plane, const int x_blocks, const int num_groups,
                                     const int per_in, const int per_out, const int kh, const int kw, const int stride_h,
                                     const int stride_w, const int pad_h, const int pad_w, const int oc_blocks, const int oh,
                                     const int ow, const int z_row, const int z_plane, const int pixels,
                                     const int part_pixels)
{
    EQ_IN_PTR(float, x);
    EQ_IN_PTR(float, dz);
    EQ_PTR(float, dw);
    const int id = (int)get_global_id(0), part = (int)get_global_id(1), elems = oc_blocks * per_in * kh * kw * BLOCK;
    if (id >= elems)
        return;
    const int lane = id % BLOCK, j = id / BLOCK % kw, i = id / BLOCK / kw % kh, c = id / BLOCK / kw / kh % per_in;
    const int b = id / BLOCK / kw / kh / per_in;
    const int channel = first_channel(b * BLOCK + lane, per_in, per_out, num_groups) + c;
    x += (ulong)(channel / BLOCK) * x_plane + channel % BLOCK;
    dz += (ulong)b * z_plane + lane;
    float sum = 0.0f;
    for (int p = part * part_pixels; p < min((part + 1) * part_pixels, pixels); p++) {
        const int row = p / ow, n = row / oh, y = row - n * oh, column = p - row * ow;
        const int yi = y * stride_h - pad_h + i, xi = column * stride_w - pad_w + j;
        if (yi >= 0 && yi < ih && xi >= 0 && xi < iw)
            sum = EQ_MAD(x[(ulong)n * x_blocks * x_plane + (ulong)yi * x_row + xi * BLOCK],
                         dz[(ulong)n * oc_blocks * z_plane + (ulong)y * z_row + column * BLOCK], sum);
    }
    dw[(ulong)part * elems + id] = sum;
}

// Filters as filters of the convolutions that compute the data gradient: see conv2d_filter_transpose.
//   w    f32 [oc_blocks, per_in, kh, kw, BLOCK oc]                                                   read
//   t    f32 for each remainder (r, s): [ic_blocks, per_out, taps(r), taps(s), BLOCK ic]             write
__kernel __attribute__((reqd_work_group_size(64, 1, 1)))
void conv2d_grouped_transpose(EQ_IN(float, w), EQ_BUF(float, t), const int ic, const int ic_blocks, const int per_in,
                              const int per_out, const int kh, const int kw, const int stride_h, const int stride_w)
{
    EQ_IN_PTR(float, w);
    EQ_PTR(float, t);
    const int c = (int)get_global_id(0), tap = (int)get_global_id(1) % (kh * kw), o = (int)get_global_id(1) / (kh * kw);
    if (c >= ic_blocks * BLOCK)
        return;
    const int i = tap / kw, j = tap % kw, r = i % stride_h, s = j % stride_w;
    const int taps_r = (kh - r + stride_h - 1) / stride_h, taps_s = (kw - s + stride_w - 1) / stride_w;
    int before_r = 0, before_s = 0; // taps of smaller remainders
    for (int k = 0; k < r; k++)
        before_r += (kh - k + stride_h - 1) / stride_h;
    for (int k = 0; k < s; k++)
        before_s += (kw - k + stride_w - 1) / stride_w;
    const int at = (taps_r - 1 - i / stride_h) * taps_s + taps_s - 1 - j / stride_w, oc = c / per_in * per_out + o;
    const ulong filters = (ulong)ic_blocks * per_out, filter = (ulong)(c / BLOCK) * per_out + o;
    const ulong to = filters * (before_r * kw + taps_r * before_s) + filter * (taps_r * taps_s) + at;
    t[to * BLOCK + c % BLOCK] =
        c < ic ? w[(((ulong)(oc / BLOCK) * per_in + c % per_in) * (kh * kw) + tap) * BLOCK + oc % BLOCK] : 0.0f;
}

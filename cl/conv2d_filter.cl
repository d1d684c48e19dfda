// Filters between passes: transposed for the data gradient, partial sums of the weight gradient merged.

// Filters of a convolution, as filters of the convolutions that compute its data gradient.
//   w    f32 [oc_blocks, ic_blocks, kh, kw, BLOCK ic, BLOCK oc]    read
//   t    f32 as below                                              write
// A pixel y of dx meets the taps i = (y + pad) % stride + stride * j, so each remainder is a convolution of its own, with the taps in
// falling order of j. t holds them one after another: for each remainder (r, s) of (rows, columns), in rising order,
// [ic_blocks, oc_blocks, taps(r), taps(s), BLOCK oc, BLOCK ic] with taps(r) = ceil((kh - r) / stride_h).
// One work-item per (block of ic, block of oc, tap).
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void conv2d_filter_transpose(EQ_IN(float, w), EQ_BUF(float, t), const int oc_blocks, const int ic_blocks, const int kh, const int kw,
                             const int stride_h, const int stride_w)
{
    EQ_IN_PTR(float, w);
    EQ_PTR(float, t);
    const int tap = (int)get_global_id(0), ob = (int)get_global_id(1), ib = (int)get_global_id(2);
    const int i = tap / kw, j = tap % kw, r = i % stride_h, s = j % stride_w;
    const int taps_r = (kh - r + stride_h - 1) / stride_h, taps_s = (kw - s + stride_w - 1) / stride_w;
    int before_r = 0, before_s = 0; // taps of smaller remainders
    for (int k = 0; k < r; k++)
        before_r += (kh - k + stride_h - 1) / stride_h;
    for (int k = 0; k < s; k++)
        before_s += (kw - k + stride_w - 1) / stride_w;
    const int place = (taps_r - 1 - i / stride_h) * taps_s + taps_s - 1 - j / stride_w;
    const ulong blocks = (ulong)oc_blocks * ic_blocks, tile = BLOCK * BLOCK;
    t += (blocks * (before_r * kw + taps_r * before_s) + ((ulong)ib * oc_blocks + ob) * (taps_r * taps_s) + place) * tile;
    w += (((ulong)ob * ic_blocks + ib) * (kh * kw) + tap) * tile;
    for (int o = 0; o < BLOCK; o++)
        for (int c = 0; c < BLOCK; c++)
            t[o * BLOCK + c] = w[c * BLOCK + o];
}

// dw = sum over parts, in their order.
//   partial  f32 [parts, quads, 4]    read
//   dw       f32 [quads, 4]           write
__kernel __attribute__((reqd_work_group_size(64, 1, 1)))
void conv2d_filter_merge(EQ_IN(float, partial), EQ_BUF(float, dw), const int parts, const int quads)
{
    EQ_IN_PTR(float, partial);
    EQ_PTR(float, dw);
    const int quad = (int)get_global_id(0);
    if (quad >= quads)
        return;
    float4 sum = vload4(quad, partial);
    for (int p = 1; p < parts; p++)
        sum += vload4(quad, partial + (ulong)p * quads * 4);
    vstore4(sum, quad, dw);
}

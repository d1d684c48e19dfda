// Filters between passes: transposed for the data gradient, partial sums of the weight gradient merged.

static void transpose_tile(__global const float *w, __global float *t)
{
    #pragma unroll
    for (int c = 0; c < BLOCK; c += 4)
        #pragma unroll
        for (int o = 0; o < BLOCK; o += 4) {
            const float4 r0 = vload4(0, w + (c + 0) * BLOCK + o), r1 = vload4(0, w + (c + 1) * BLOCK + o);
            const float4 r2 = vload4(0, w + (c + 2) * BLOCK + o), r3 = vload4(0, w + (c + 3) * BLOCK + o);
            vstore4((float4)(r0.x, r1.x, r2.x, r3.x), 0, t + (o + 0) * BLOCK + c);
            vstore4((float4)(r0.y, r1.y, r2.y, r3.y), 0, t + (o + 1) * BLOCK + c);
            vstore4((float4)(r0.z, r1.z, r2.z, r3.z), 0, t + (o + 2) * BLOCK + c);
            vstore4((float4)(r0.w, r1.w, r2.w, r3.w), 0, t + (o + 3) * BLOCK + c);
        }
}

// Filters of a convolution, as filters of the convolutions that compute its data gradient.
//   w    f32 [oc_blocks, ic_blocks, kh, kw, BLOCK ic, BLOCK oc]    read
//   t    f32 as below                                              write
// A pixel y of dx meets the taps i = (y + pad) % stride + stride * j, so each remainder is a convolution of its own, with the
// taps in falling order of j. t holds them one after another: for each remainder (r, s) of (rows, columns), in rising order,
// [ic_blocks, oc_blocks, taps(r), taps(s), BLOCK oc, BLOCK ic] with taps(r) = ceil((kh - r) / stride_h). One work-item per
// (block of ic, block of oc), with 4 x 4 values at a time in registers.
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void conv2d_filter_transpose(EQ_IN(float, w), EQ_BUF(float, t), const int oc_blocks, const int ic_blocks, const int kh,
                             const int kw, const int stride_h, const int stride_w)
{
    EQ_IN_PTR(float, w);
    EQ_PTR(float, t);
    const int ob = (int)get_global_id(0), ib = (int)get_global_id(1);
    const ulong blocks = (ulong)oc_blocks * ic_blocks, tile = BLOCK * BLOCK;
    int before_r = 0; // taps of smaller remainders
    w += ((ulong)ob * ic_blocks + ib) * (kh * kw) * tile;
    for (int r = 0; r < stride_h && r < kh; r++) {
        const int taps_r = (kh - r + stride_h - 1) / stride_h;
        int before_s = 0;
        for (int s = 0; s < stride_w && s < kw; s++) {
            const int taps_s = (kw - s + stride_w - 1) / stride_w;
            const ulong before = blocks * (before_r * kw + taps_r * before_s);
            __global float *to = t + (before + ((ulong)ib * oc_blocks + ob) * (taps_r * taps_s)) * tile;
            for (int i = taps_r - 1; i >= 0; i--)
                for (int j = taps_s - 1; j >= 0; j--, to += tile)
                    transpose_tile(w + ((r + i * stride_h) * kw + s + j * stride_w) * tile, to);
            before_s += taps_s;
        }
        before_r += taps_r;
    }
}

// The same for GPUs: one work-item per value, lanes side by side over what they write.
__kernel __attribute__((reqd_work_group_size(64, 1, 1)))
void conv2d_filter_transpose_simt(EQ_IN(float, w), EQ_BUF(float, t), const int oc_blocks, const int ic_blocks, const int kh,
                                  const int kw, const int stride_h, const int stride_w)
{
    EQ_IN_PTR(float, w);
    EQ_PTR(float, t);
    const int c = (int)get_global_id(0) % BLOCK, o = (int)get_global_id(0) / BLOCK % BLOCK;
    const int block = (int)get_global_id(0) / (BLOCK * BLOCK), tap = (int)get_global_id(1);
    if (block >= oc_blocks * ic_blocks)
        return;
    const int ob = block % oc_blocks, ib = block / oc_blocks, i = tap / kw, j = tap % kw, r = i % stride_h, s = j % stride_w;
    const int taps_r = (kh - r + stride_h - 1) / stride_h, taps_s = (kw - s + stride_w - 1) / stride_w;
    int before_r = 0, before_s = 0; // taps of smaller remainders
    for (int k = 0; k < r; k++)
        before_r += (kh - k + stride_h - 1) / stride_h;
    for (int k = 0; k < s; k++)
        before_s += (kw - k + stride_w - 1) / stride_w;
    const int place = (taps_r - 1 - i / stride_h) * taps_s + taps_s - 1 - j / stride_w;
    const ulong blocks = (ulong)oc_blocks * ic_blocks, tile = BLOCK * BLOCK;
    const ulong to = blocks * (before_r * kw + taps_r * before_s) + (ulong)block * (taps_r * taps_s) + place;
    t[to * tile + o * BLOCK + c] = w[(((ulong)ob * ic_blocks + ib) * (kh * kw) + tap) * tile + c * BLOCK + o];
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

// Filters between passes: transposed for the data gradient, partial sums of the weight gradient merged.

#ifndef SLICES
#define SLICES 1 // of the parts that conv2d_filter_merge adds; a power of two, 64 at most
#endif

// 4 x 4 values of a tile of BLOCK x BLOCK.
static void transpose_quad(__global const float *w, __global float *t)
{
    const float4 r0 = EQ_LOAD4(w), r1 = EQ_LOAD4(w + BLOCK), r2 = EQ_LOAD4(w + 2 * BLOCK), r3 = EQ_LOAD4(w + 3 * BLOCK);
    EQ_STORE4((float4)(r0.x, r1.x, r2.x, r3.x), t);
    EQ_STORE4((float4)(r0.y, r1.y, r2.y, r3.y), t + BLOCK);
    EQ_STORE4((float4)(r0.z, r1.z, r2.z, r3.z), t + 2 * BLOCK);
    EQ_STORE4((float4)(r0.w, r1.w, r2.w, r3.w), t + 3 * BLOCK);
}

static void transpose_tile(__global const float *w, __global float *t)
{
    #pragma unroll
    for (int c = 0; c < BLOCK; c += 4)
        #pragma unroll
        for (int o = 0; o < BLOCK; o += 4)
            transpose_quad(w + c * BLOCK + o, t + o * BLOCK + c);
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

// The same for GPUs: one work-item per 4 x 4 values of a tap's tile.
__kernel __attribute__((reqd_work_group_size(64, 1, 1)))
void conv2d_filter_transpose_simt(EQ_IN(float, w), EQ_BUF(float, t), const int oc_blocks, const int ic_blocks, const int kh,
                                  const int kw, const int stride_h, const int stride_w)
{
    EQ_IN_PTR(float, w);
    EQ_PTR(float, t);
    const int quads = BLOCK / 4, item = (int)get_global_id(0), o = item % quads * 4, c = item / quads % quads * 4;
    const int block = item / (quads * quads), tap = (int)get_global_id(1);
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
    transpose_quad(w + (((ulong)ob * ic_blocks + ib) * (kh * kw) + tap) * tile + c * BLOCK + o, t + to * tile + o * BLOCK + c);
}

// dw = sum over parts, in their order; where filters are too small for a GPU, of SLICES sums of every SLICES-th part.
//   partial  f32 [parts, quads, 4]    read
//   dw       f32 [quads, 4]           write
__kernel __attribute__((reqd_work_group_size(64, 1, 1)))
void conv2d_filter_merge(EQ_IN(float, partial), EQ_BUF(float, dw), const int parts, const int quads)
{
    EQ_IN_PTR(float, partial);
    EQ_PTR(float, dw);
    int quad = (int)get_global_id(0), slice = 0;
#if SLICES > 1
    slice = (int)get_local_id(0) / (64 / SLICES);
    quad = (int)get_group_id(0) * (64 / SLICES) + (int)get_local_id(0) % (64 / SLICES);
#endif
    float4 sum = (float4)(0.0f);
    if (quad < quads) {
        sum = EQ_LOAD4(partial + ((ulong)slice * quads + quad) * 4);
        for (int p = slice + SLICES; p < parts; p += SLICES)
            sum += EQ_LOAD4(partial + ((ulong)p * quads + quad) * 4);
    }
#if SLICES > 1
    __local float4 sums[64];
    sums[get_local_id(0)] = sum;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int s = 1; s < SLICES && slice == 0; s++)
        sum += sums[s * (64 / SLICES) + get_local_id(0)];
#endif
    if (quad < quads && slice == 0)
        EQ_STORE4(sum, dw + (ulong)quad * 4);
}

// Measured peaks of a device.
//   peak_mad    out f32 [work-items]  write   CHAINS independent multiply-adds per turn, `turns` turns, on vectors of BLOCK
//   floats peak_copy   x, y f32 [elems]      read, write   y = x; per work-item one contiguous span, or (STRIDED) neighbours
//   side by side
#ifndef CHAINS
#define CHAINS 16 // enough to hide the latency of a multiply-add
#endif
#ifndef STRIDED
#define STRIDED 0
#endif

__kernel void peak_mad(EQ_BUF(float, out), int turns, float scale, float shift)
{
    EQ_PTR(float, out);
    vecf sum[CHAINS];
    for (int i = 0; i < CHAINS; i++)
        sum[i] = (vecf)(i + (float)get_global_id(0));
    for (int t = 0; t < turns; t++) {
#pragma unroll
        for (int i = 0; i < CHAINS; i++)
            sum[i] = EQ_MAD(sum[i], (vecf)(scale), (vecf)(shift));
    }
    vecf total = sum[0];
    for (int i = 1; i < CHAINS; i++)
        total += sum[i];
    out[get_global_id(0)] = total.s0 + total.s1 + total.s2 + total.s3;
}

__kernel void peak_copy(EQ_IN(float, x), EQ_BUF(float, y), int vectors)
{
    EQ_IN_PTR(float, x);
    EQ_PTR(float, y);
    int items = (int)get_global_size(0), id = (int)get_global_id(0);
#if STRIDED
    for (int i = id; i < vectors; i += items)
        EQ_STORE(EQ_LOAD(x + (size_t)i * BLOCK), y + (size_t)i * BLOCK);
#else
    int span = (vectors + items - 1) / items, end = min(vectors, (id + 1) * span);
    for (int i = id * span; i < end; i++)
        EQ_STORE_STREAM(EQ_LOAD(x + (size_t)i * BLOCK), y + (size_t)i * BLOCK);
#endif
}

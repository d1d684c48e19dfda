// Gradients of several batches added up.
//   grad    f32 [elems]    read
//   sum     f32 [elems]    write    scale * grad where FIRST (what was there is not looked at), else sum + scale * grad
// CHUNK elements a work-item: many on CPUs, where the compiler makes vectors of the loop, 1 on GPUs.
#ifndef CHUNK
#define CHUNK 1
#endif
#ifndef FIRST
#define FIRST 0
#endif

__kernel void accumulate_step(EQ_IN(float, grad), __global float *restrict sum_base, const ulong sum_at, const int elems,
                              const float scale)
{
    EQ_IN_PTR(float, grad);
    __global float *restrict sum = sum_base + sum_at;
    const int first = (int)get_global_id(0) * CHUNK, end = min(elems - first, CHUNK);
    for (int e = 0; e < end; e++) {
#if FIRST
        sum[first + e] = scale * grad[first + e];
#else
        sum[first + e] = EQ_MAD(scale, grad[first + e], sum[first + e]);
#endif
    }
}

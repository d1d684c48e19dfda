// Stochastic gradient descent with momentum and weight decay, by PyTorch's rule.
//   grad      f32 [elems]    read
//   hyper     f32 [4]        read          rate, momentum, weight decay: in memory, so that a schedule changes no argument;
//                                          halt: not 0, and nothing is changed
//   weight    f32 [elems]    read, write
//   velocity  f32 [elems]    read, write
//       g = grad + decay * weight;  velocity = momentum * velocity + g;  weight -= rate * velocity
// CHUNK elements a work-item: many on CPUs, where the compiler makes vectors of the loop, 1 on GPUs.
#ifndef CHUNK
#define CHUNK 1
#endif

__kernel void sgd_step(EQ_IN(float, grad), EQ_IN(float, hyper), __global float *restrict weight_base, const ulong weight_at,
                       __global float *restrict velocity_base, const ulong velocity_at, const int elems)
{
    EQ_IN_PTR(float, grad);
    EQ_IN_PTR(float, hyper);
    __global float *restrict weight = weight_base + weight_at;
    __global float *restrict velocity = velocity_base + velocity_at;
    const float rate = hyper[0], momentum = hyper[1], decay = hyper[2];
    const int first = (int)get_global_id(0) * CHUNK, end = hyper[3] != 0.0f ? 0 : min(elems - first, CHUNK);
    for (int e = 0; e < end; e++) {
        const float w = weight[first + e], g = EQ_MAD(decay, w, grad[first + e]), v = EQ_MAD(momentum, velocity[first + e], g);
        velocity[first + e] = v;
        weight[first + e] = EQ_MAD(-rate, v, w);
    }
}

// Halts all updates to come once a loss is not finite, so that what made it so never reaches a weight.
//   losses  f32 [n]    read
//   hyper   f32 [4]    write: [3] becomes 1 if a loss is NaN or infinite; else nothing is written
// One work-item.
__kernel void sgd_guard(EQ_IN(float, losses), EQ_BUF(float, hyper), const int n)
{
    EQ_IN_PTR(float, losses);
    EQ_PTR(float, hyper);
    int bad = 0;
    for (int i = 0; i < n; i++)
        bad |= (as_uint(losses[i]) & 0x7f800000u) == 0x7f800000u; // by its exponent: no compiler may assume it away
    if (bad)
        hyper[3] = 1.0f;
}

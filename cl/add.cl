// Sum of two tensors.
//   a     f32 [planes, h, w, block]    read     not looked at where IN_PLACE: y holds it
//   b     f32 as a                     read
//   y     f32 as a                     write    halo too
// CHUNK elements a work-item: many on CPUs, where the compiler makes vectors of the loop, 1 on GPUs.
#ifndef CHUNK
#define CHUNK 1
#endif
#ifndef IN_PLACE
#define IN_PLACE 0
#endif

// All three stored alike: one flat walk, halo and padding included (0 + 0).
__kernel void add_flat(EQ_IN(float, a), EQ_IN(float, b), __global float *restrict y_base, const ulong y_at, const int elems)
{
    EQ_IN_PTR(float, a);
    EQ_IN_PTR(float, b);
    __global float *restrict y = y_base + y_at;
    const int first = (int)get_global_id(0) * CHUNK, end = min(elems - first, CHUNK);
#if IN_PLACE
    for (int e = 0; e < end; e++)
        y[first + e] += b[first + e];
#else
    for (int e = 0; e < end; e++)
        y[first + e] = a[first + e] + b[first + e];
#endif
}

// Halos that differ: by rows. a and b point at pixel (0, 0); dimension 1 runs over the rows of y in a plane, dimension 2 over
// planes.
__kernel void add_rows(EQ_BUF(const float, a), EQ_IN(float, b), EQ_BUF(float, y), const int planes, const int h,
                       const int width, const int halo, const int block, const int a_row, const int a_plane, const int b_row,
                       const int b_plane)
{
    EQ_PTR(const float, a);
    EQ_IN_PTR(float, b);
    EQ_PTR(float, y);
    const int frame = halo * block, stored = width + 2 * frame, plane = (int)get_global_id(2),
              row = (int)get_global_id(1) - halo;
    const int first = (int)get_global_id(0) * CHUNK, end = min(first + CHUNK, stored);
    if (plane >= planes || row >= h + halo)
        return;
    a += (ulong)plane * a_plane + row * a_row;
    b += (ulong)plane * b_plane + row * b_row;
    y += ((ulong)plane * (h + 2 * halo) + row + halo) * stored;
    for (int e = first; e < end; e++) {
        const int at = e - frame;
        y[e] = row >= 0 && row < h && at >= 0 && at < width ? a[at] + b[at] : 0.0f;
    }
}

// Private to src/op: launches of kernels that walk over a tensor's elements in storage order.
#ifndef EQ_OP_FLAT_H
#define EQ_OP_FLAT_H

#include "op/op.h"

// Elements that one work-item handles: EQ_FLAT_CHUNK on CPUs, 1 on GPUs. Kernels take it as -DCHUNK and do the elements
// [get_global_id(0) * CHUNK, + CHUNK) below their count.
enum { EQ_FLAT_CHUNK = 2048 };
int eq_flat_chunk(const struct eq_target *target);
// Range over `elems` elements, at most INT_MAX, and the rows of dimension 1.
struct eq_range eq_flat_range(const struct eq_target *target, size_t elems, size_t rows);

// Places of a blocked tensor for kernels that go by plane: `at` is the first stored element (halo included).
struct eq_planes {
    struct eq_ref at, origin; // origin: pixel (0, 0)
    int planes;               // n * blocks; they lie one behind the other
    int h, w, halo, row, plane;
};
struct eq_planes eq_planes(const struct eq_tensor *tensor, struct eq_ref ref);
// Refuses planes, or numbers of them, that do not fit an int.
eq_status eq_planes_check(const char *op, const struct eq_tensor *tensor);

#endif

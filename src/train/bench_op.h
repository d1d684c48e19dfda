// References in double precision for ops that have none of their own (eq_op.expect).
#ifndef EQ_TRAIN_BENCH_OP_H
#define EQ_TRAIN_BENCH_OP_H

#include "op/op.h"

// As eq_op.expect; NULL where there is no reference.
typedef double (*eq_bench_expect_fn)(const struct eq_call *call, const float *const *inputs, size_t index, double *magnitude);
eq_bench_expect_fn eq_bench_expect(const struct eq_call *call);
// The same for conv2d_fused, whose filter is in no plain order: prepared[] are the plain inputs of the conv2d_prepare that made
// it.
double eq_bench_expect_fused(const struct eq_call *call, const struct eq_call *prepare, const float *const *inputs,
                             const float *const *prepared, size_t index, double *magnitude);

// Graph of one layer: a line of a list of shapes (see eq_shapes_bench_ops()) for batches of n. The layer's node is called
// `name`; before it stands an input, or with a loss (training) a normalisation, so that its gradient is wanted. loss:
// EQ_NO_VALUE without training.
struct eq_graph;
eq_status eq_bench_shape_graph(const char *line, int n, bool training, char name[64], struct eq_graph **graph, int *loss);

#endif

// Deterministic tensors as the reference script (ce_reference.py: uniform, fill, probes) makes them.
#ifndef EQ_TEST_FILL_H
#define EQ_TEST_FILL_H

#include <stddef.h>

// n doubles in [-1, 1), from the name.
void eq_fill_uniform(const char *name, double *values, size_t n);
// Values of the parameter called `name`: by the end of its name and its rank. shape has 4 entries, unused ones 1.
void eq_fill_parameter(const char *name, int rank, const int shape[4], float *values);
// The four projections sum(g * uniform(name + '.probe' + j)).
void eq_fill_probes(const char *name, const float *gradient, size_t n, double probes[4]);

#endif

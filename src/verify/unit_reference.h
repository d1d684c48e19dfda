// The unit (src/op/unit.h) in double, by its definition: normalise, then CE, BD, IR or SE, residual, activation. Nothing is
// shared with the two-pass form. Gradients: central differences of sum(dout * out).
#ifndef EQ_TEST_UNIT_REFERENCE_H
#define EQ_TEST_UNIT_REFERENCE_H

#include "op/op.h"

struct unit_reference {
    struct eq_unit_attributes attributes;
    int n, c, h, w;
    bool training;
    // Inputs by enum eq_unit_input; NULL: absent. States are read when not training.
    double *input[EQ_UNIT_NUM_INPUTS];
    size_t elems[EQ_UNIT_NUM_INPUTS];
    double *out;                       // [n, c, h, w]
    double *after[EQ_UNIT_NUM_INPUTS]; // states after a training run, as large as the input; NULL: not wanted
};
// group halved until it divides c.
int unit_reference_group(int channels, int group);
// Elements of an input for the method, 0 where it is absent.
size_t unit_reference_elems(const struct unit_reference *r, int input);
void unit_reference_forward(struct unit_reference *r);
// Derivative of sum(dout * out) by element i of an input. Overwrites out.
double unit_reference_derivative(struct unit_reference *r, const double *dout, int input, size_t i);
// The same along a direction: by all elements of an input at once, each times its own factor.
double unit_reference_derivative_along(struct unit_reference *r, const double *dout, int input, const float *direction);

#endif

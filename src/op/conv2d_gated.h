// A unit with a gate on the output of a 1x1 convolution, in evaluation on processors:
//     out = act( A_n conv(x) + c_n + residual )
// without a pass over the convolution's output: the gate is settled before it, from x (cl/conv2d_gated.cl).
#ifndef EQ_OP_CONV2D_GATED_H
#define EQ_OP_CONV2D_GATED_H

#include "op/unit.h"

// Inputs: those of the unit, with x in Z's place, without MOMENTS, and the filter w [oc,ic,1,1]. Outputs: out [n,oc,oh,ow],
// workspace.
enum { EQ_CONV2D_GATED_X = EQ_UNIT_Z, EQ_CONV2D_GATED_FILTER = EQ_UNIT_NUM_INPUTS, EQ_CONV2D_GATED_NUM_INPUTS };
struct eq_conv2d_gated_attributes {
    struct eq_conv2d_attributes conv;
    struct eq_unit_attributes unit;
    int oc;
    int parts; // pieces of x's planes that are summed apart
};
extern const struct eq_op eq_op_conv2d_gated;
// `parts` for the whole batch: slices of it must have the same. 0 where this cannot be done, or where a pass over the
// convolution's output costs less.
int eq_conv2d_gated_parts(const struct eq_target *target, const struct eq_unit_attributes *unit,
                          const struct eq_conv2d_attributes *conv, const struct eq_tensor *x, const struct eq_tensor *w);

#endif

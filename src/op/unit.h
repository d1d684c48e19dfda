// The two-pass unit: batch norm, optionally CE, BD, IR or SE, optionally a residual, optionally an activation:
//     out = act( A_n (z - k) + c_n + residual )
// One pass takes moments of z, a small solve makes A_n and c_n, one pass applies them. Backward the same: design.md section 2.
// unit.c emits the steps; moments.c, affine.c and solve_*.c own the kernels.
#ifndef EQ_OP_UNIT_H
#define EQ_OP_UNIT_H

#include "op/op.h"

enum eq_unit_method { EQ_UNIT_NONE, EQ_UNIT_BN, EQ_UNIT_CE, EQ_UNIT_BD, EQ_UNIT_IR, EQ_UNIT_SE }; // NONE: A = 1, c = 0

struct eq_unit_attributes {
    enum eq_unit_method method;
    enum eq_activation activation;
    int group;      // CE, BD: channels per group asked for; halved until it divides c
    int iterations; // CE, BD: Newton-Schulz steps T
    float bn_eps, ce_eps;
    float momentum;      // weight of the new value in running statistics
    float gate_momentum; // in those of CE, BD and IR; 0: the same
    int hidden;          // IR part: c / 4; SE: c / 16
    int pools; // 0 or 1: evaluation with a gate on processors, without a residual: out is the maximum over windows of 3 x 3
               // at stride 2, padded by 1
};

// Inputs. Absent ones (has[i] false) by method: NONE has only Z and RESIDUAL; BN adds the four BN tensors; and so on.
enum eq_unit_input {
    EQ_UNIT_Z,
    EQ_UNIT_RESIDUAL, // blocked [n,c,h,w]
    EQ_UNIT_GAMMA,
    EQ_UNIT_BETA,
    EQ_UNIT_MEAN,
    EQ_UNIT_VAR,      // [c]; MEAN and VAR are state (running)
    EQ_UNIT_X_WEIGHT, // CE: [1]
    EQ_UNIT_CE_MEAN,
    EQ_UNIT_CE_WM, // CE, BD: state [c], [c/g, g, g]
    EQ_UNIT_SCALE, // CE, IR: state [1]
    EQ_UNIT_W1,
    EQ_UNIT_LN_GAMMA,
    EQ_UNIT_LN_BETA,
    EQ_UNIT_W2, // CE, IR: [hidden,c], [hidden], [hidden], [c,hidden]
    EQ_UNIT_FC1,
    EQ_UNIT_FC1_BIAS,
    EQ_UNIT_FC2,
    EQ_UNIT_FC2_BIAS, // SE: [hidden,c], [hidden], [c,hidden], [c]
    EQ_UNIT_PREPARED, // BN, CE, BD in evaluation: the output of unit_prepare
    EQ_UNIT_MOMENTS,  // CE, IR, SE in evaluation on processors, may be absent: what conv2d gave with Z; spares pass 1
    EQ_UNIT_NUM_INPUTS
};
// Outputs: OUT; SAVED (f32 vector: what the backward solve and unit_again need; training only, else 1
// element); WORKSPACE (f32 vector).
enum eq_unit_output { EQ_UNIT_OUT, EQ_UNIT_SAVED, EQ_UNIT_WORKSPACE, EQ_UNIT_NUM_OUTPUTS };
extern const struct eq_op eq_op_unit;

// unit_prepare: what of the map is constant in evaluation, where the running statistics are: all of it (BN, BD), or its matrix
// (CE). inputs: those of the unit from GAMMA on, input i at i - EQ_UNIT_GAMMA; output: a vector.
struct eq_unit_prepare_attributes {
    struct eq_unit_attributes unit;
    struct eq_tensor z; // as the unit's input
};
extern const struct eq_op eq_op_unit_prepare;
// Whether an evaluating unit needs it.
bool eq_unit_prepares(const struct eq_unit_attributes *attributes);

// Whether an evaluating unit has a gate, which looks at moments of its input.
bool eq_unit_has_gate(const struct eq_unit_attributes *attributes);

// Whether such a unit may take in that pooling: see `pools`.
bool eq_unit_can_pool(const struct eq_target *target, const struct eq_unit_attributes *unit,
                      const struct eq_pool_max_attributes *pool);

// unit_again: the output of a training unit once more, with the same bits. inputs Z, SAVED, RESIDUAL?; attributes those of the
// unit. output: as the unit's OUT.
enum eq_unit_again_input { EQ_UNIT_AGAIN_Z, EQ_UNIT_AGAIN_SAVED, EQ_UNIT_AGAIN_RESIDUAL, EQ_UNIT_AGAIN_NUM_INPUTS };
extern const struct eq_op eq_op_unit_again;

// Attributes of unit_grad.
struct eq_unit_grad_attributes {
    struct eq_unit_attributes unit;
    int has_residual; // 0 or 1: a gradient of the residual is wanted
};
// unit_grad: inputs: DOUT, OUT (for the activation's mask; absent without activation), Z, SAVED, DRES_ADD? (a gradient of the
// residual to be added to, may be updated in place), then the parameters GAMMA .. FC2_BIAS, input i of the unit at
// EQ_UNIT_GRAD_PARAMETER + i - EQ_UNIT_GAMMA.
// outputs: DZ, DRESIDUAL (has a residual: dout * act', plus DRES_ADD; else 1 element), WORKSPACE, then the gradients of the
// parameters in the order of enum eq_unit_input from GAMMA, states and absent ones left out.
enum eq_unit_grad_input {
    EQ_UNIT_GRAD_DOUT,
    EQ_UNIT_GRAD_OUT,
    EQ_UNIT_GRAD_Z,
    EQ_UNIT_GRAD_SAVED,
    EQ_UNIT_GRAD_DRES_ADD,
    EQ_UNIT_GRAD_PARAMETER
};
extern const struct eq_op eq_op_unit_grad;

#endif

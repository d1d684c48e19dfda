// Private to the unit: what its steps agree on, from shapes and target alone.
#ifndef EQ_OP_UNIT_PLAN_H
#define EQ_OP_UNIT_PLAN_H

#include "op/op.h"
#include "op/solve.h"

struct eq_unit_plan {
    struct eq_target target;
    enum eq_unit_method method;
    enum eq_activation activation;
    bool training;
    bool has_norm, has_matrix, has_gate; // all but NONE; CE and BD; CE, IR and SE
    bool has_moments;                    // pass 1 is needed
    bool has_cross;                      // ... and takes cross-products
    bool has_given;                      // ... but its moments are an input
    bool pools;                          // pass 2 ends with a pooling
    int instance;                        // what the gate looks at: 0 nothing, 1 variances, 2 means
    int images, channels, h, w, pixels, block, blocks, stride;
    int parts;  // of a plane in the moments
    int splits; // of a plane in pass 2 (VECTOR)
    float bn_eps, momentum, gate_momentum;
    struct eq_solve_groups groups;
    struct eq_solve_gate gate;
};
// Checks and plans; name is for messages.
eq_status eq_unit_plan_make(const char *name, const struct eq_unit_attributes *attributes, const struct eq_target *target,
                            bool training, const struct eq_tensor *z, struct eq_unit_plan *plan);

// The part of an evaluating unit's plan that unit_prepare runs: from the running statistics alone.
struct eq_unit_plan eq_unit_plan_constant(const struct eq_unit_plan *plan);
// Checks the residual against z, and all other inputs but Z and MOMENTS.
eq_status eq_unit_check_operands(const char *name, const struct eq_call *call, const struct eq_unit_plan *plan,
                                 const struct eq_tensor *z);
// Whether the unit itself makes the matrices: in evaluation, where a gate follows them, unit_prepare has.
bool eq_unit_plan_makes_matrix(const struct eq_unit_plan *plan);

// Whether the solve is that of an evaluation with a gate on processors: two launches, from moments of the form that conv2d
// gives, [n, blocks, parts, 3, block], which pass 1 makes where nobody gave them.
bool eq_unit_plan_evaluates_gate(const struct eq_unit_plan *plan);

// What backward needs of the forward solve, and the map itself: unit_again applies it once more.
struct eq_unit_saved {
    struct eq_ref pivot, mean, inverse, a, b;                        // [stride]
    struct eq_ref image_mean, image_var, image_value, value_sum;     // [n, stride], the last [stride]
    struct eq_ref active, hidden_normal, deviation, spread, y, gate; // gate network
    struct eq_ref cov, normal, trace, powers;                        // matrices
    struct eq_ref matrix, common;                                    // map of the batch
    struct eq_ref scale, shift; // map of an image, or of the batch: [n, stride] or [stride]
};
struct eq_unit_work {
    struct eq_ref sums, tiles, sigma, scratch; // forward solve
    struct eq_ref hidden_sums;                 // W1 v: GPUs, [n, hidden_stride]; evaluation of a gate on processors
    struct eq_ref offset, active;              // that evaluation alone; offset: [n, stride], CE's
};
struct eq_unit_grad_work {
    struct eq_ref sums, tiles, image_sum, image_product, sum, product;
    struct eq_ref cross, dmap, k, scratch, matrix, slopes, matrix_beta, matrix_gamma, matrix_shift, by_weight;
    struct eq_ref dpre, total, dactive, dhidden, dvalue;
    struct eq_ref scale, slope, shift;
};
// The next `elems` elements from base + *total on, a multiple of 64 bytes; EQ_REF_NONE, and none taken, unless `wanted`.
struct eq_ref eq_unit_take(struct eq_ref base, size_t *total, bool wanted, size_t elems);
// Fill refs from `base` on, absent ones EQ_REF_NONE; return the elements taken (at least 1).
size_t eq_unit_saved_place(const struct eq_unit_plan *plan, struct eq_ref base, struct eq_unit_saved *saved);
// The matrix and its shift from where unit_prepare left them, in evaluation with a matrix and a gate.
void eq_unit_place_prepared(const struct eq_unit_plan *plan, struct eq_ref ref, struct eq_unit_saved *saved);
size_t eq_unit_work_place(const struct eq_unit_plan *plan, struct eq_ref base, struct eq_unit_work *work);
size_t eq_unit_grad_work_place(const struct eq_unit_plan *plan, struct eq_ref base, struct eq_unit_grad_work *work);

// A stored activation as kernels see it: pixel (0, 0) of image 0 and distances.
struct eq_unit_view {
    struct eq_ref ref;
    int image, plane, row, halo;
};
struct eq_unit_view eq_unit_view(const struct eq_tensor *tensor, struct eq_ref ref); // an absent ref gives zeros
#define EQ_UNIT_STRIDES(view) EQ_I32((view).image), EQ_I32((view).plane), EQ_I32((view).row)

// Options of moments.cl and affine.cl, and their SIMT work-groups; those of the solves. Both are powers of two.
struct eq_options eq_unit_options(const struct eq_unit_plan *plan, bool grad);
int eq_unit_pass_group_size(const struct eq_target *target);
int eq_unit_group_size(const struct eq_target *target);

// Pass 1 (moments.c): sums, which are moments where the plan evaluates a gate, and tiles where it has cross-products.
eq_status eq_unit_moments_emit(struct eq_list *list, const struct eq_unit_plan *plan, struct eq_unit_view z, struct eq_ref sums,
                               struct eq_ref tiles);
eq_status eq_unit_moments_grad_emit(struct eq_list *list, const struct eq_unit_plan *plan, struct eq_unit_view z,
                                    struct eq_unit_view dout, struct eq_unit_view out, struct eq_ref pivot, struct eq_ref sums,
                                    struct eq_ref tiles);

// Pass 2 (affine.c). matrix absent: diagonal form. instance: scale, slope and shift are per image.
struct eq_unit_affine {
    struct eq_unit_view z, residual, out;
    struct eq_ref pivot, scale, shift, matrix;
    bool instance;
};
eq_status eq_unit_affine_emit(struct eq_list *list, const struct eq_unit_plan *plan, const struct eq_unit_affine *a);
eq_status eq_unit_affine_pool_emit(struct eq_list *list, const struct eq_unit_plan *plan, const struct eq_unit_affine *a);
struct eq_unit_affine_grad {
    struct eq_unit_view z, dout, out, add, dz, dres;
    struct eq_ref pivot, scale, slope, shift, matrix, slopes;
    bool instance;
};
eq_status eq_unit_affine_grad_emit(struct eq_list *list, const struct eq_unit_plan *plan, const struct eq_unit_affine_grad *a);

// The solves (solve_bn.c and, through solve.h, solve_ce.c and solve_gate.c).
eq_status eq_unit_solve_emit(struct eq_list *list, const struct eq_unit_plan *plan, const struct eq_ref *in,
                             struct eq_unit_view z, const struct eq_unit_saved *saved, const struct eq_unit_work *work);
// parameter: of unit_grad, from GAMMA on, indexed by enum eq_unit_input; gradient: of the same, absent ones EQ_REF_NONE.
eq_status eq_unit_solve_grad_emit(struct eq_list *list, const struct eq_unit_plan *plan, const struct eq_ref *parameter,
                                  const struct eq_ref *gradient, const struct eq_unit_saved *saved,
                                  const struct eq_unit_grad_work *work);
// Steps of solve_ce.c that only the unit needs.
struct eq_solve_map {
    struct eq_ref w, mean, a, b, x_weight, matrix, shift, run_mean, run_map;
};
eq_status eq_solve_map_emit(struct eq_list *list, const struct eq_solve_groups *s, int ld, bool training, float momentum,
                            const struct eq_solve_map *refs);
struct eq_solve_map_grad {
    struct eq_ref tiles, w, k, cov, cross, dmap, mean, a, b, sum, x_weight;
    struct eq_ref matrix, slopes, matrix_beta, matrix_gamma, matrix_shift, by_weight;
};
eq_status eq_solve_covariance_grad_emit(struct eq_list *list, const struct eq_solve_groups *s,
                                        const struct eq_solve_map_grad *refs);
eq_status eq_solve_map_grad_emit(struct eq_list *list, const struct eq_solve_groups *s, const struct eq_solve_map_grad *refs);
eq_status eq_solve_x_weight_grad_emit(struct eq_list *list, const struct eq_solve_groups *s, int images,
                                      struct eq_ref by_weight, struct eq_ref total, struct eq_ref spread,
                                      struct eq_ref x_weight, struct eq_ref dx_weight);

#endif

// Solves: the small computations between the two passes of a unit (unit.h). Each step can be appended alone; tests do.
//
// Arrays over channels have `stride` entries, channels rounded up to 16; matrices are [groups, padded, padded]. The data sheets
// are in cl/solve_bn.cl, cl/solve_ce.cl and cl/solve_gate.cl; here a ref has the name of its kernel argument.
#ifndef EQ_OP_SOLVE_H
#define EQ_OP_SOLVE_H

#include "rt/rt.h"

// Channels in groups, as the solve of CE and BD sees them.
struct eq_solve_groups {
    int channels, stride;
    int block, blocks, span; // tiles: [blocks, span, block, block]
    int group, groups;       // channels per group
    int padded;              // rows and columns of a stored matrix: group rounded up to 4
    int iterations;
    int partials; // partial tiles to be added: images * parts
    int samples;  // images * pixels
    float eps;
    bool has_weight; // CE: lambda = sigmoid(x_weight); without: 1
};
struct eq_solve_groups eq_solve_groups_make(const struct eq_tensor *z, int group); // the first three lines and samples

size_t eq_solve_tile_elems(const struct eq_solve_groups *s);    // of one partial
size_t eq_solve_matrix_elems(const struct eq_solve_groups *s);  // of the matrices of all groups
size_t eq_solve_scratch_elems(const struct eq_solve_groups *s); // of newton_schulz and newton_schulz_grad

// Covariance of z and sigma of the normalised activation from the cross-products' partial sums.
eq_status eq_solve_covariance_emit(struct eq_list *list, const struct eq_solve_groups *s, struct eq_ref tiles,
                                   struct eq_ref mean, struct eq_ref a, struct eq_ref cov, struct eq_ref sigma);
// powers: [iterations + 1, groups, padded, padded], the last one W. Groups over 64 channels go through CLBlast.
eq_status eq_solve_newton_schulz_emit(struct eq_list *list, const struct eq_solve_groups *s, struct eq_ref sigma,
                                      struct eq_ref normal, struct eq_ref trace, struct eq_ref powers, struct eq_ref scratch);
// From the gradient of the map to K, which acts on z - mu.
struct eq_solve_newton_schulz_grad {
    struct eq_ref dmap, normal, trace, powers, a, x_weight; // read
    struct eq_ref k, scratch;                               // write
};
eq_status eq_solve_newton_schulz_grad_emit(struct eq_list *list, const struct eq_solve_groups *s,
                                           const struct eq_solve_newton_schulz_grad *refs);

// A gate network over channels.
struct eq_solve_gate {
    int images, channels, stride, hidden, hidden_stride, pixels;
    bool layer_norm; // IR's network; else SE's
    bool training;
    bool has_weight; // CE: the gate's weight is 1 - sigmoid(x_weight); without: 1
    int group;       // GPUs, CE in evaluation: channels in a group of run_map, which the shift comes from; 0: it is `common`
    float momentum;
};
// What a gate has learnt: IR's and CE's w1, gain, bias1 (LayerNorm's) and w2, SE's w1, bias1, w2 and bias2; CE's x_weight.
struct eq_solve_weights {
    struct eq_ref w1, gain, bias1, w2, bias2, x_weight;
    struct eq_ref run_scale; // IR's and CE's: training writes it
};
struct eq_solve_reweight {
    struct eq_solve_weights weights;
    struct eq_ref value, value_sum, a, b, common, run_map;                  // read
    struct eq_ref active, normal, deviation, spread, y, gate, scale, shift; // write
    struct eq_ref sums; // write: W1 v before LayerNorm, f32 [images, hidden_stride]; only GPUs take it
};
// The gate, and the part of the affine map that differs between images; with LayerNorm on processors in training only.
eq_status eq_solve_reweight_emit(struct eq_list *list, const struct eq_solve_gate *s, const struct eq_solve_reweight *refs);
struct eq_solve_reweight_grad {
    struct eq_solve_weights weights;                                                           // read
    struct eq_ref image_sum, image_product, value, a, b, active, normal, deviation, spread, y; // read
    struct eq_ref dpre, total, dactive, dhidden, dvalue;                                       // write
    struct eq_ref dw1, dgain, dbias1, dw2, dbias2;                                             // gradients
};
eq_status eq_solve_reweight_grad_emit(struct eq_list *list, const struct eq_solve_gate *s,
                                      const struct eq_solve_reweight_grad *refs);

// Evaluation of a unit with a gate on a processor, from the moments to the map: two launches of a work-item for each image and
// chunk of channels.
struct eq_solve_evaluation {
    struct eq_solve_weights weights;                          // read
    struct eq_ref z, moments, gamma, beta, run_mean, run_var; // read; z may be absent, then the pivot is 0
    struct eq_ref matrix, common;                             // read: CE's map; its shift where the pivot is the running mean
    struct eq_ref offset, value, hidden_sums, active;         // write; offset: CE's
    struct eq_ref pivot, scale, shift;                        // write
    int z_plane, parts;                                       // z's distance between planes; parts of a plane in the moments
    float eps;
};
size_t eq_solve_evaluation_elems(const struct eq_solve_gate *s); // of hidden_sums, and of active
eq_status eq_solve_evaluation_emit(struct eq_list *list, const struct eq_solve_gate *s, const struct eq_solve_groups *groups,
                                   const struct eq_solve_evaluation *refs);

// What reweight and reweight_grad append for GPUs (solve_gate_simt.c).
eq_status eq_solve_reweight_simt_emit(struct eq_list *list, const struct eq_solve_gate *s,
                                      const struct eq_solve_reweight *refs);
eq_status eq_solve_reweight_grad_simt_emit(struct eq_list *list, const struct eq_solve_gate *s,
                                           const struct eq_solve_reweight_grad *refs);

#endif

// What an op is, for the graph: one static `struct eq_op` per op (and per gradient), defined in src/op/<name>.c.
//
// The graph stores calls: an op, its attributes, input and output values. Shapes, workspace and saved tensors are fixed by
// shape(); emit() appends the op's steps to a command list; gradient() appends the calls that compute the gradients of the
// inputs.
#ifndef EQ_OP_OP_H
#define EQ_OP_OP_H

#include "rt/rt.h"

enum { EQ_MAX_OPERANDS = 24 };

// What a value is to the graph. Only EQ_VALUE_TEMPORARY memory is reused.
enum eq_value_kind {
    EQ_VALUE_INPUT,     // written from outside before a run
    EQ_VALUE_PARAMETER, // trained
    EQ_VALUE_STATE,     // running statistics: updated by training runs, read by evaluation
    EQ_VALUE_TEMPORARY,
};

// A call as an op sees it. num_inputs counts absent optional inputs too; `has[i]` tells. shape() fills outputs.
struct eq_call {
    const struct eq_op *op;
    const void *attributes;  // the op's own struct; lives as long as the graph
    const struct eq_target *target;
    bool training;           // batch statistics and state updates, or running statistics
    int num_inputs, num_outputs;
    bool has[EQ_MAX_OPERANDS];
    struct eq_tensor input[EQ_MAX_OPERANDS];
    struct eq_tensor output[EQ_MAX_OPERANDS];
};

// How gradient() talks to the graph. A value is an int; EQ_NO_VALUE is an absent one.
enum { EQ_NO_VALUE = -1 };
struct eq_tape {
    void *graph;
    // Values of the forward call, and the gradient that arrived for output i (EQ_NO_VALUE: none).
    int input[EQ_MAX_OPERANDS], output[EQ_MAX_OPERANDS], output_grad[EQ_MAX_OPERANDS];
    // Whether a gradient for input i is wanted at all (the image needs none).
    bool wants[EQ_MAX_OPERANDS];
    // Appends a call; its outputs' values go to `outputs`. Attributes are copied.
    eq_status (*call)(struct eq_tape *tape, const struct eq_op *op, const void *attributes, const int *inputs, int num_inputs,
                      int *outputs);
    // The gradient accumulated so far for input i, to be added to by the call that makes the next one (EQ_NO_VALUE: none yet).
    // Taking it makes the caller responsible: eq_tape.give() must then get a value that includes it.
    int (*take)(struct eq_tape *tape, int input);
    // Hands over the gradient of input i. Without a preceding take(), an addition is appended when there is one already.
    eq_status (*give)(struct eq_tape *tape, int input, int value);
};

// One choice of a call, for the tuner: candidates that satisfy the constraints, each num_values numbers, the default first.
struct eq_tunable {
    char key[EQ_TUNE_MAX_KEY];
    const char *names[EQ_TUNE_MAX_VALUES]; // of the values: "pixels", "blocks"
    int num_values, num_candidates;
    int (*candidates)[EQ_TUNE_MAX_VALUES]; // malloc'ed: the caller frees
};

struct eq_op {
    const char *name;
    size_t attribute_bytes; // of a struct without padding, so without bool: calls are compared by its bytes
    // Checks inputs and fills num_outputs and output[]. Pure. Outputs that nobody reads are workspace: their memory is the op's
    // own only during its steps. Output halo is 0 here; the graph raises it before emit() to what readers need.
    eq_status (*shape)(struct eq_call *call);
    // When evaluating, image i of every output depends on image i of the inputs alone, and on inputs without images (filters,
    // statistics): a call may be made several times, each for a few images. Roundings may depend on how many (unit's do: the
    // map's pivot is the first image's, and where no convolution gives moments planes are cut by the number of images).
    bool is_per_image;
    // Halo that input i must have (NULL: none for all).
    int (*halo)(const struct eq_call *call, int input);
    // Input whose memory output o may share, elementwise and same size (-1: none; NULL: none for all).
    int (*in_place)(const struct eq_call *call, int output);
    // Appends the steps. in[i] / out[i] point at element 0 of the stored tensor (halo and padding included). An output with a
    // halo gets its halo zeros written here, padding channels too.
    eq_status (*emit)(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out);
    // NULL: nothing to differentiate.
    eq_status (*gradient)(const struct eq_call *call, struct eq_tape *tape);
    // Arithmetic and least memory traffic of the call, for `info` and `bench`.
    struct eq_cost (*cost)(const struct eq_call *call);
    // The call's choices, at most `max`, into tunables[]; NULL: none. A choice may open others (an algorithm has its own
    // tiles): the tuner asks again after each decision, with call->target->tuning holding the decisions so far.
    eq_status (*tunables)(const struct eq_call *call, struct eq_tunable *tunables, int max, int *num);
    // Element `index` of output 0, in plain order, in double precision from inputs in plain order; *magnitude is the sum of the
    // absolute values of what was added. For verification; NULL: none.
    double (*expect)(const struct eq_call *call, const float *const *inputs, size_t index, double *magnitude);
};

// Shared helpers (op.c)
enum eq_activation { EQ_ACT_NONE = 0, EQ_ACT_RELU = 1, EQ_ACT_ELU = 2 }; // as ACT_* in cl/common.clh
// " -DNAME=value" style options text in a fixed buffer; too long is an assertion.
struct eq_options {
    char text[512];
};
struct eq_options eq_options_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
// Has the compiler give a work-item no more than so many registers, where it knows how; 0, or elsewhere: "". For kernels with
// EQ_GROUP_SIZE of cl/common.clh.
struct eq_options eq_register_option(const struct eq_target *target, int registers);
// Whether vectors of a result of this many elements are stored past the caches: EQ_STREAM of cl/common.clh.
bool eq_streams(const struct eq_target *target, struct eq_ref to, size_t elems);
// Whether all places are multiples of 4 floats, and stay that: what EQ_ALIGNED tells a kernel whose rows and planes are. Absent
// ones are.
bool eq_refs_are_aligned(const struct eq_ref *refs, int num);

// A workspace of so many floats, for the output of a call of `op`. EQ_ERR_UNSUPPORTED: more than an extent can be.
eq_status eq_workspace(const char *op, size_t elems, struct eq_tensor *workspace);

// Arithmetic of the convolution in a call, counted as direct sums: all of it where the op is one or a gradient of one, the
// convolution's part of conv2d_gated; 0 for others.
double eq_call_conv_flops(const struct eq_call *call);

// The ops. Attributes and operands of each are documented here; `?` marks an optional input.

// conv2d: inputs x [n,ic,ih,iw] (blocked, or plain NCHW = block 1 for images), w [oc,ic/groups,kh,kw]; output z [n,oc,oh,ow],
// workspace, moments? (plain [n,oc blocks,parts,3 * block]: of an image's channels, in parts of its pixels, means, sums of
// squares about them, numbers of pixels). No bias: normalisation follows. oh = (ih + 2 pad_h - kh) / stride_h + 1.
// How: AUTO takes the fastest that applies by a model of the device; the others are for tests, benchmarks and the tuner.
// Winograd F(2x2) and F(4x4) need 3 x 3 filters, stride 1, one group, an input in blocks and fp32; elsewhere they are
// EQ_ERR_UNSUPPORTED. WINOGRAD_4_LATE, on processors, is F(4x4) that reads the stored filter and transforms it where it is
// used: a quarter of what WINOGRAD_4 reads, for few tiles. The gradients do not have it, and AUTO takes it in evaluation alone.
enum eq_conv2d_algorithm {
    EQ_CONV2D_AUTO,
    EQ_CONV2D_DIRECT,
    EQ_CONV2D_WINOGRAD_2,
    EQ_CONV2D_WINOGRAD_4,
    EQ_CONV2D_WINOGRAD_4_LATE
};
struct eq_conv2d_attributes {
    int stride_h, stride_w, pad_h, pad_w;
    enum eq_conv2d_algorithm algorithm;
    int groups; // 0 and 1: one group. Several: x in blocks, DIRECT
    int is_prepared; // 0 or 1; for the tuner: AUTO, and times, are those of conv2d_fused, which finds its filter prepared
    int moment_tiles; // 0: no moments; else register tiles whose pixels are a part: see eq_conv2d_moment_tiles()
};
extern const struct eq_op eq_op_conv2d;
// moment_tiles of a convolution whose algorithm is settled, for the whole batch: slices of it must have the same parts. 0 where
// a pass over z costs less, or where the kernel has no moments: only processors' direct one has.
int eq_conv2d_moment_tiles(const struct eq_target *target, const struct eq_conv2d_attributes *attributes,
                           const struct eq_tensor *x, const struct eq_tensor *w);
// conv2d_data_grad: inputs dz, w, add? (a gradient of x to be added to; may be updated in place); output dx, workspace.
// attributes: those of the convolution plus x's extents.
struct eq_conv2d_data_grad_attributes {
    struct eq_conv2d_attributes conv;
    int ih, iw;
};
enum { EQ_CONV2D_DATA_GRAD_ADD = 2 }; // number of that input
extern const struct eq_op eq_op_conv2d_data_grad;
// conv2d_weight_grad: inputs x, dz; output dw (form of w), workspace.
struct eq_conv2d_weight_grad_attributes {
    struct eq_conv2d_attributes conv;
    int kh, kw;
};
extern const struct eq_op eq_op_conv2d_weight_grad;
// conv2d_prepare: a filter as conv2d_fused reads it, with a batch norm folded in where there is one; made once while the
// weights stay. inputs w, then gamma?, beta?, running mean?, running variance? [oc] (all or none); outputs filter (vector, laid
// out as the algorithm wants it), bias (vector, oc rounded up to blocks; zeros without a norm), workspace.
// conv2d_fused: act(conv(x) + bias + residual), for evaluation. inputs x, filter, bias, residual? (as z); output z, workspace.
struct eq_conv2d_fused_attributes {
    struct eq_conv2d_attributes conv;
    int oc, kh, kw;
    enum eq_activation activation;
};
struct eq_conv2d_prepare_attributes {
    struct eq_conv2d_fused_attributes fused;
    struct eq_tensor x; // the convolution's input: its form and extents decide the algorithm
    float eps;          // of the batch norm
};
extern const struct eq_op eq_op_conv2d_prepare;
enum { EQ_CONV2D_FUSED_RESIDUAL = 3 }; // number of that input
extern const struct eq_op eq_op_conv2d_fused;
// What AUTO is for conv2d_fused with that input.
enum eq_conv2d_algorithm eq_conv2d_fused_algorithm(const struct eq_target *target,
                                                   const struct eq_conv2d_fused_attributes *attributes,
                                                   const struct eq_tensor *x);
// Whether, with the algorithm settled, the prepared filter is the stored one unless a norm is folded in: then conv2d itself
// does as well.
bool eq_conv2d_reads_stored(const struct eq_target *target, const struct eq_conv2d_fused_attributes *attributes);
// The stored form of a convolution's filter for an input with that blocking. groups: 0 and 1 are one group.
struct eq_tensor eq_conv2d_weight(const struct eq_target *target, const struct eq_tensor *x, int oc, int kh, int kw,
                                  int groups);

// pool_max: input x; output y, index i32 (blocked as y; flat position y*w + x of the maximum in the plane, first one on ties;
// in evaluation 1 element without a meaning).
struct eq_pool_max_attributes {
    int kh, kw, stride_h, stride_w, pad_h, pad_w; // padding never wins
};
extern const struct eq_op eq_op_pool_max;
// unit: normalisation, CE and its relatives, residual and activation in two passes. See unit.h for operands.
#include "op/unit.h"

// pool_max_grad: inputs dy, index, add?; output dx. attributes: pool plus x's extents.
struct eq_pool_max_grad_attributes {
    struct eq_pool_max_attributes pool;
    int ih, iw;
};
extern const struct eq_op eq_op_pool_max_grad;
// pool_avg: mean over h and w. input x blocked [n,c,h,w]; output plain [n,c].
extern const struct eq_op eq_op_pool_avg;
// pool_avg_grad: input dy plain [n,c]; output dx blocked. attributes: h, w.
struct eq_pool_avg_grad_attributes {
    int h, w;
};
extern const struct eq_op eq_op_pool_avg_grad;
// linear: inputs x plain [n,c], w plain [k,c], b plain [k]; output y plain [n,k] = x w^T + b.
extern const struct eq_op eq_op_linear;
// linear_grad: inputs x, w, dy; outputs dx [n,c], dw [k,c], db [k]. Its products are CLBlast's on GPUs.
extern const struct eq_op eq_op_linear_grad;
// softmax_xent: inputs logits plain [n,k], labels i32 plain [n]; outputs loss [n] (per image), dlogits plain [n,k] = (softmax -
// target) / n. target: 1 - smoothing on the label, smoothing / (k - 1) elsewhere (the paper's form). Label outside 0..k-1: loss
// NaN.
struct eq_softmax_xent_attributes {
    float smoothing;
};
extern const struct eq_op eq_op_softmax_xent;
// add: inputs a, b of one shape; output a + b (in place over a). For gradients that meet.
extern const struct eq_op eq_op_add;

// Steps that are not graph calls.

// sgd (PyTorch's rule): g = grad + weight_decay * w; v = momentum * v + g; w -= rate * v. hyper: f32 [4] rate, momentum,
// weight_decay, halt: with halt not 0 nothing is changed.
eq_status eq_sgd_emit(struct eq_list *list, size_t elems, struct eq_ref weight, struct eq_ref grad, struct eq_ref velocity,
                      struct eq_ref hyper);
// Sets halt when one of the losses [num] is not finite; never takes it back.
eq_status eq_sgd_guard_emit(struct eq_list *list, size_t num, struct eq_ref losses, struct eq_ref hyper);
// accumulate: sum = (first ? 0 : sum) + scale * grad
eq_status eq_accumulate_emit(struct eq_list *list, size_t elems, struct eq_ref grad, struct eq_ref sum, float scale,
                             bool first);
// layout: a caller's tensor -> blocked (padding and halo zeroed), and back.
enum eq_view_type { EQ_VIEW_WORD, EQ_VIEW_F16, EQ_VIEW_U8 }; // as in cl/layout.cl; words: f32 or i32
size_t eq_view_bytes(enum eq_view_type type);                // of an element
struct eq_view {
    enum eq_view_type type;
    struct eq_ref ref; // element (0, 0, 0, 0), counted in elements of the type
    int stride[4];     // elements from an image, channel, row and pixel to the next
    struct eq_ref map; // f32 [2, c]: what is written is what was read times scale, plus shift; or none
};
struct eq_view eq_view_plain(const struct eq_tensor *tensor, struct eq_ref ref); // f32 or i32 NCHW of the tensor's extents
eq_status eq_layout_pack_emit(struct eq_list *list, const struct eq_tensor *blocked, const struct eq_view *view,
                              struct eq_ref stored);
eq_status eq_layout_unpack_emit(struct eq_list *list, const struct eq_tensor *blocked, struct eq_ref stored,
                                const struct eq_view *view);

#endif

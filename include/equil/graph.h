// Graphs: built op by op, without a device. Compiling fuses, differentiates and plans them; see session.h for what runs them.
//
// A graph is built for one batch size and image size. Values are small integers that belong to their graph. Parameters and
// running statistics are made by the op that needs them, under the names that PyTorch gives them: eq_graph_batch_norm(g, x,
// "bn1", ...) makes bn1.weight, bn1.bias, bn1.running_mean and bn1.running_var. Names are copied, and so are params. Names of
// inputs, outputs, parameters and statistics are all different, not empty, and of at most 255 bytes. Sessions make others of
// them, "grad.NAME" and, without weights, "workspace": no input or output may have one of those that its session has.
//
// Errors: EQ_ERR_SHAPE with the numbers when shapes do not fit, an extent is below 1, or a tensor is larger than any device;
// EQ_ERR_ARGUMENT for parameters out of range, values that are none, and names that are taken or too long; EQ_ERR_HOST_MEMORY.
// A failed call leaves the graph as it was, and it can be gone on with; the value it was to give is undefined. Threads: one at
// a time per graph, but several may read one that nobody changes, and so make weights and sessions from it, each on a device of
// its own.
#ifndef EQUIL_GRAPH_H
#define EQUIL_GRAPH_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

struct eq_graph;
typedef int eq_value;

EQ_API eq_status eq_graph_create(struct eq_graph **graph);
EQ_API void eq_graph_destroy(struct eq_graph **graph); // after its sessions. *graph becomes NULL; NULL is allowed

// Shape of a value as the API sees it, filled up with ones: rank 4, [n, c, h, w], of activations; 2, [n, c], of rows; 1, [n],
// of labels and losses. rank may be NULL.
EQ_API eq_status eq_graph_shape(const struct eq_graph *graph, eq_value value, int shape[4], int *rank);

// A float32 input [n, c, h, w] called `name`.
EQ_API eq_status eq_graph_input(struct eq_graph *graph, const char *name, int n, int c, int h, int w, eq_value *x);
// An int32 input [n] called `name`: class labels.
EQ_API eq_status eq_graph_labels(struct eq_graph *graph, const char *name, int n, eq_value *labels);

struct eq_conv2d_params {
    int out_channels;       // >= 1
    int kernel_h, kernel_w; // >= 1
    int stride_h, stride_w; // 0 means 1
    int pad_h, pad_w;       // zero pixels added on each side, >= 0
    int groups;             // 0 means 1; divides both numbers of channels; as many as input channels: depthwise
};
// Convolution (cross-correlation, as in PyTorch) without bias: x [n, ic, h, w] -> y [n, oc, (h + 2 pad_h - kernel_h) / stride_h
// + 1, ...]. Makes name.weight [oc, ic / groups, kh, kw]. EQ_ERR_SHAPE: the padded image is smaller than the kernel.
EQ_API eq_status eq_graph_conv2d(struct eq_graph *graph, eq_value x, const char *name, const struct eq_conv2d_params *params,
                                 eq_value *y);

struct eq_batch_norm_params {
    float eps;      // above 0; 0 means 1e-5
    float momentum; // weight of the new value in the running statistics, up to 1; 0 means 0.1
};
// Batch normalisation over n, h, w (Ioffe and Szegedy 2015), of the shape of x. Makes name.weight, .bias, .running_mean,
// .running_var, all [c]. params NULL: all defaults. One value per channel, n * h * w = 1, cannot be trained on (EQ_ERR_SHAPE
// when a session is made).
EQ_API eq_status eq_graph_batch_norm(struct eq_graph *graph, eq_value x, const char *name,
                                     const struct eq_batch_norm_params *params, eq_value *y);

enum eq_branch { EQ_BRANCH_BOTH = 0, EQ_BRANCH_DECORRELATE, EQ_BRANCH_REWEIGHT };
struct eq_equilibrium_params {
    int group;             // channels per group, 0 means 16; halved until it divides c
    int iterations;        // Newton-Schulz steps, up to 32; 0 means 3
    float eps;             // added to the covariance's diagonal, 0 means 1e-5
    float momentum;        // 0 means 0.1
    enum eq_branch branch; // 0: the whole block; or batch decorrelation, or instance reweighting, alone
};
// Channel Equilibrium (Shao et al., ICML 2020): lambda BD(x) + (1 - lambda) IR(x), of the shape of x, with lambda =
// sigmoid(x_weight). x must be the result of eq_graph_batch_norm and have no other reader (EQ_ERR_UNSUPPORTED). Makes
// name.x_weight [1], name.running_mean [c/g, g, 1], name.running_wm [c/g, g, g], name.AR.running_scale [1], name.AR.fc.0.weight
// [c/4, c], name.AR.fc.1.weight and .bias [c/4], name.AR.fc.3.weight [c, c/4]; one branch alone makes its part. params NULL:
// all defaults. EQ_ERR_SHAPE, but for decorrelation alone: h * w = 1, which has no instance variance, and c below 4.
EQ_API eq_status eq_graph_channel_equilibrium(struct eq_graph *graph, eq_value x, const char *name,
                                              const struct eq_equilibrium_params *params, eq_value *y);

struct eq_squeeze_excite_params {
    int reduction; // 0 means 16; c / reduction is at least 1
};
// Squeeze and excitation (Hu et al., CVPR 2018): x * sigmoid(fc2(relu(fc1(mean over h, w)))), of the shape of x. x as for
// eq_graph_channel_equilibrium. Makes name.fc1.weight [c/r, c], name.fc1.bias [c/r], name.fc2.weight [c, c/r], name.fc2.bias
// [c]. params NULL: all defaults. EQ_ERR_SHAPE: c is below the reduction.
EQ_API eq_status eq_graph_squeeze_excite(struct eq_graph *graph, eq_value x, const char *name,
                                         const struct eq_squeeze_excite_params *params, eq_value *y);

// Sum of two activations [n, c, h, w] of one shape.
EQ_API eq_status eq_graph_add(struct eq_graph *graph, eq_value a, eq_value b, eq_value *y);

enum eq_act { EQ_RELU = 1, EQ_ELU = 2 }; // elu: alpha 1 (Clevert et al., ICLR 2016)
// Of an activation, of its shape.
EQ_API eq_status eq_graph_activation(struct eq_graph *graph, eq_value x, enum eq_act act, eq_value *y);

struct eq_pool_params {
    int kernel, stride, pad; // square windows; kernel >= 1, stride 0 means kernel; pad 0 .. kernel / 2, and padding never wins
};
// x [n, c, h, w] -> y [n, c, (h + 2 pad - kernel) / stride + 1, ...]. EQ_ERR_SHAPE: the padded image is smaller than the
// window.
EQ_API eq_status eq_graph_max_pool(struct eq_graph *graph, eq_value x, const struct eq_pool_params *params, eq_value *y);

// Mean over h and w: [n, c, h, w] -> [n, c].
EQ_API eq_status eq_graph_mean_pool(struct eq_graph *graph, eq_value x, eq_value *y);

// y = x weight^T + bias: rows [n, c] -> [n, k], k >= 1. Makes name.weight [k, c] and name.bias [k]. EQ_ERR_SHAPE: x is not
// rows, as eq_graph_mean_pool() and this make them.
EQ_API eq_status eq_graph_linear(struct eq_graph *graph, eq_value x, const char *name, int k, eq_value *y);

// Cross entropy of softmax(logits [n, k]), k >= 2, against labels [n] of eq_graph_labels(), with smoothing / (k - 1) on the
// other classes and 1 - smoothing on the label (0 <= smoothing < 1): loss [n], one per image. A label outside 0 .. k - 1 gives
// NaN, as loss and as gradient.
EQ_API eq_status eq_graph_cross_entropy(struct eq_graph *graph, eq_value logits, eq_value labels, float smoothing,
                                        eq_value *loss);

// Calls the call that made the value `label`, in place of the name that it was given: for sums and activations, which are given
// none, as those at the end of a block. EQ_ERR_ARGUMENT for inputs.
EQ_API eq_status eq_graph_label(struct eq_graph *graph, eq_value value, const char *label);
// The value that a call made, by the name of the call: "layer1.0.conv1" of a named network, "layer1.0" of what comes out of a
// whole block; for pools and losses "maxpool", "avgpool" and "loss", the first of them. A name that is no call's stands for
// what comes out of the last call whose name begins with it and a dot: "layer1" for the stage. EQ_ERR_NOT_FOUND where there is
// none.
EQ_API eq_status eq_graph_find(const struct eq_graph *graph, const char *name, eq_value *value);

// Names a value, so that it can be read after a run ("logits"), and keeps it from being optimised away. A value has one name:
// EQ_ERR_ARGUMENT for a second one, for an input, or for an empty name or another value's. EQ_ERR_UNSUPPORTED for a norm's
// result that a gate reads, which is never made: nothing but its gate can have it. The gradients of values are not the graph's:
// sessions that differentiate have them, as "grad.NAME" (see eq_session_params).
EQ_API eq_status eq_graph_output(struct eq_graph *graph, eq_value value, const char *name);

#ifdef __cplusplus
}
#endif
#endif

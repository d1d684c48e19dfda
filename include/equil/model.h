// Named networks, and a network with its weights on a device.
//
// Names: resnet18, resnet34, resnet50, resnet101 (ImageNet form) and resnet20, resnet56 (CIFAR form of He et al. 2016: 3x3
// stem, 16-32-64 channels, three stages), each plain or with a prefix: ce- (Channel Equilibrium, Shao et al. 2020), bd- (its
// batch decorrelation alone), ir- (its instance reweighting alone), se- (squeeze and excitation). Places of the blocks, names
// and shapes of the tensors are those of the published PyTorch implementation. The papers are named in graph.h, what holds for
// threads and lifetimes is in base.h.
#ifndef EQUIL_MODEL_H
#define EQUIL_MODEL_H

#include "device.h"
#include "graph.h"
#include "weights.h"

#ifdef __cplusplus
extern "C" {
#endif

struct eq_model_params {
    const char *arch;  // "ce-resnet50"
    int classes;       // >= 2
    bool small;        // 3x3 stride-1 stem without pooling; resnet20 and resnet56 always have it
    enum eq_act act;   // 0 means EQ_RELU; the gates inside CE and SE keep their ReLU
    bool recompute;    // training: activations are made again in the backward pass rather than kept: less memory, the same bits
};

// Checks the parameters. Errors: EQ_ERR_NOT_FOUND (no such network; the text lists the names there are), EQ_ERR_ARGUMENT (no
// name, fewer than 2 classes, an activation that is none). Thread-safe.
EQ_API eq_status eq_model_check(const struct eq_model_params *params);
// Whether the network has the small stem, that is whether it is meant for small images such as 32 x 32. False for unknown names
// and none. Thread-safe.
EQ_API bool eq_model_is_small(const struct eq_model_params *params);
// Appends the network to a graph, in its names: x [n, 3, h, w] -> logits [n, classes], which have no name yet. One thread at a
// time per graph. Errors: those of eq_model_check(), EQ_ERR_SHAPE (images too small: a gate that is left with one pixel),
// EQ_ERR_ARGUMENT (a name that is taken: one network a graph). The graph has a part of the network then, and can only be
// destroyed.
EQ_API eq_status eq_model_build(struct eq_graph *graph, const struct eq_model_params *params, eq_value x, eq_value *logits);

// ---- what a network costs: no device is opened

struct eq_layer_info {
    char name[64];      // "layer1.0.conv1"
    char op[24];        // "conv2d", "unit", ...
    int shape[4];       // of the output: [n, c, h, w]
    size_t parameters;  // trained numbers, counted in the first layer that reads them
    double flops;       // of the forward pass over the whole batch; a multiply-add is two
};
struct eq_model_info {
    size_t parameters;        // trained numbers
    size_t tensors;           // in a state dict, running statistics and batch counters included
    double flops;             // forward, whole batch, without what is prepared once, which is no layer either
    double conv_flops;        // of the convolutions alone, by direct convolution
    size_t weight_bytes;      // parameters and running statistics as stored on the device
    size_t inference_bytes;   // planned peak of inference: weights, activations, input
    size_t training_bytes;    // planned peak of training: weights, gradients, velocities, activations, input; 0, as the
                              // other figures of training: a norm would have one value per channel, which it does not take
    size_t recompute_bytes;   // the same with eq_model_params.recompute; both are filled in for either value of it
    size_t validation_bytes;  // what inference beside training adds to its peak: the input, and activations only where
                              // those of training leave them no room
    double training_flops;    // of a training step's forward and backward pass, without recompute
    double training_traffic;  // its least memory traffic in bytes
    double recompute_flops;   // what recompute adds to them
    double recompute_traffic;
    struct eq_layer_info *layers; // [num_layers]; free with eq_model_info_free()
    int num_layers;
};
// Plans the network for batches [n, 3, h, w], pixels, on `device`, or, NULL, on a processor with vectors of 16 floats.
// Thread-safe for NULL. Errors: those of eq_model_build(), EQ_ERR_SHAPE, EQ_ERR_UNSUPPORTED (a layer beyond what kernels can
// count), EQ_ERR_DEVICE_MEMORY (a tensor beyond the device's largest buffer). info is zeroed then.
EQ_API eq_status eq_model_describe(const struct eq_device *device, const struct eq_model_params *params, int n, int h, int w,
                                   struct eq_model_info *info);
EQ_API void eq_model_info_free(struct eq_model_info *info); // leaves it zeroed; a zeroed one is allowed

// ---- a network on a device

struct eq_network;

// Makes the network's weights on the device, as eq_weights_create() does; params are copied. The device must outlive it. One
// thread at a time per device with its networks. Errors: those of eq_model_check() and eq_weights_create().
EQ_API eq_status eq_network_create(struct eq_device *device, const struct eq_model_params *params, struct eq_network **network);
EQ_API void eq_network_destroy(struct eq_network **network); // *network becomes NULL; NULL is allowed

// Its weights: they belong to the network. See weights.h for reading, writing, files.
EQ_API struct eq_weights *eq_network_weights(const struct eq_network *network);

// Refuses a weights file whose metadata, as training writes it, has another network than params, with its classes, stem and
// activation: its tensors may fit, and mean something else. What has no metadata passes. EQ_ERR_ARGUMENT, with what differs;
// EQ_ERR_IO and EQ_ERR_FORMAT of the file.
EQ_API eq_status eq_model_check_file(const struct eq_model_params *params, const char *path);

// Evaluation mode: images f32 [n, 3, h, w] -> logits f32 [n, classes], on the host; waits for them. The first call for a batch
// shape compiles, and drops what was compiled for another; the memory stays the network's until then. Errors: EQ_ERR_NUMERIC (a
// running_scale that is not above 0: the network was never trained), EQ_ERR_SHAPE (an extent below 1, images too small),
// EQ_ERR_DEVICE_MEMORY with the numbers, EQ_ERR_UNSUPPORTED (beyond what kernels can count, or the device's work-groups),
// EQ_ERR_BUILD. The logits are undefined then, and the call can be repeated.
EQ_API eq_status eq_network_infer(struct eq_network *network, int n, int h, int w, const float *images, float *logits);

// Training mode: one forward and backward pass. Running statistics move; parameters do not. labels [n] in 0 .. classes - 1.
// loss [1] mean over the batch; logits f32 [n, classes] or NULL. smoothing in [0, 1): 1 - s on the label, s / (classes - 1)
// elsewhere. Gradients go into the weights: eq_weights_read_gradient(). Waits for loss and logits. Errors: EQ_ERR_ARGUMENT (a
// label or a smoothing outside its range), EQ_ERR_SHAPE (as above; also one value per channel in a norm, which has no
// variance), and the others of eq_network_infer() but EQ_ERR_NUMERIC. After EQ_ERR_DEVICE and EQ_ERR_HOST_MEMORY running
// statistics may have moved, all or some, and loss, logits and gradients are undefined.
EQ_API eq_status eq_network_gradients(struct eq_network *network, int n, int h, int w, const float *images,
                                      const int64_t *labels, float smoothing, float *loss, float *logits);

#ifdef __cplusplus
}
#endif
#endif

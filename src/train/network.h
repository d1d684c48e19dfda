// Inside the library: a network's weights and its compiled forms.
#ifndef EQ_TRAIN_NETWORK_H
#define EQ_TRAIN_NETWORK_H

#include "model/model.h"
#include "train/weights.h"

// A network compiled for one batch shape.
struct eq_compiled {
    struct eq_model_graph model;
    struct eq_exec *exec; // NULL: not compiled
    int n, h, w;
    float smoothing;
};

struct eq_network {
    struct eq_device *device;
    char *arch; // params.arch
    struct eq_model_params params;
    struct eq_model_graph shape; // graph that names the weights, in forward order
    struct eq_weights *weights;
    struct eq_compiled infer, gradients, forward;
};

// Compiles, or keeps what fits already: evaluation; training with gradients; training forward only (running statistics move).
eq_status eq_network_compile_infer(struct eq_network *network, int n, int h, int w);
eq_status eq_network_compile_gradients(struct eq_network *network, int n, int h, int w, float smoothing);
eq_status eq_network_compile_forward(struct eq_network *network, int n, int h, int w);

#endif

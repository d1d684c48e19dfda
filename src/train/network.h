// Inside the library: a network's weights and its compiled forms.
#ifndef EQ_TRAIN_NETWORK_H
#define EQ_TRAIN_NETWORK_H

#include "equil/data.h"
#include "model/model.h"

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
    struct eq_model_graph shape; // graph that names the store's tensors
    struct eq_store *store;
    bool has_training;           // gradients and velocities are there
    bool is_checked;             // running_scale is known to be above 0
    int64_t batches;             // num_batches_tracked
    struct eq_compiled infer, gradients, forward;
};

// Compiles, or keeps what fits already: evaluation; training with gradients; training forward only (running statistics move).
eq_status eq_network_compile_infer(struct eq_network *network, int n, int h, int w);
eq_status eq_network_compile_gradients(struct eq_network *network, int n, int h, int w, float smoothing);
eq_status eq_network_compile_forward(struct eq_network *network, int n, int h, int w);
// Refuses evaluation with a running_scale that is not above 0.
eq_status eq_network_check_scales(struct eq_network *network);
// Call after training steps changed weights and statistics.
void eq_network_touched(struct eq_network *network, int64_t num_batches);

// Tensors as they go into a file: values and num_batches_tracked. The data of the former is read from the device while the file
// is written, one tensor at a time. Names belong to the list.
struct eq_tensor_place {
    const struct eq_store_entry *entry; // NULL: num_batches_tracked
    enum eq_store_part part;
};
struct eq_tensor_list {
    const struct eq_network *network;
    bool must_be_finite; // else EQ_ERR_NUMERIC, and the old file stays
    struct eq_tensor_entry *entries;
    struct eq_tensor_place *places;
    size_t num, capacity;
};
void eq_tensor_list_free(struct eq_tensor_list *list);
// Appends every tensor of a part of list->network, names with `prefix` before them.
eq_status eq_network_collect(struct eq_tensor_list *list, enum eq_store_part part, const char *prefix);
eq_status eq_tensor_list_save(struct eq_tensor_list *list, const char *path, const struct eq_tensors_text *texts,
                              size_t num_texts);

#endif

// Inside the library: weights, their store, and the tensors of a file.
#ifndef EQ_TRAIN_WEIGHTS_H
#define EQ_TRAIN_WEIGHTS_H

#include "equil/weights.h"
#include "graph/graph.h"

struct eq_weights {
    struct eq_device *device;
    struct eq_store *store;
    bool has_training;  // gradients and velocities have memory
    bool has_gradients; // something was run backward
    float *scales;      // [entries] what is known of a running_scale; 1 of other tensors
    int64_t batches;    // num_batches_tracked
};

// eq_weights_initialise() and eq_weights_load() in two parts, for callers that compile in between: programs need no values.
// start() makes or reads them in a thread, which does nothing to the device; a file's names and shapes are checked before it
// returns. finish() waits, writes them, frees, and has the errors of the rest. cancel() waits, writes nothing and frees; *task
// may be NULL.
struct eq_weights_task;
eq_status eq_weights_draw_start(struct eq_weights *weights, uint64_t seed, struct eq_weights_task **task);
eq_status eq_weights_load_start(struct eq_weights *weights, const char *path, struct eq_weights_task **task);
eq_status eq_weights_task_finish(struct eq_weights_task **task);
void eq_weights_task_cancel(struct eq_weights_task **task);

// Makes gradients and velocities, once.
eq_status eq_weights_add_training(struct eq_weights *weights);
// Writes the values of a tensor, in the plain order.
eq_status eq_weights_put(struct eq_weights *weights, const struct eq_store_entry *entry, const float *values);
// Call after a tensor was written otherwise: a running_scale is kept in mind, so that nobody has to read it back.
void eq_weights_note_scale(struct eq_weights *weights, const struct eq_store_entry *entry, float first);
// Refuses evaluation with a running_scale that is not above 0, of the graph of `exec` or, with NULL, any. Asks nothing of the
// device.
eq_status eq_weights_check_scales(const struct eq_weights *weights, const struct eq_exec *exec);
// Call after `exec` ran in training: it moved statistics of its graph.
void eq_weights_touched(struct eq_weights *weights, const struct eq_exec *exec, int64_t num_batches);

// Tensors as they go into a file: values and num_batches_tracked. The data of the former is read from the device while the file
// is written, one tensor at a time. Names belong to the list.
struct eq_tensor_place {
    const struct eq_store_entry *entry; // NULL: num_batches_tracked
    enum eq_store_part part;
};
struct eq_tensor_list {
    const struct eq_weights *weights;
    bool must_be_finite; // else EQ_ERR_NUMERIC, and the old file stays
    struct eq_tensor_entry *entries;
    struct eq_tensor_place *places;
    size_t num, capacity;
};
void eq_tensor_list_free(struct eq_tensor_list *list);
// Appends every tensor of a part of list->weights, names with `prefix` before them.
eq_status eq_tensor_list_collect(struct eq_tensor_list *list, enum eq_store_part part, const char *prefix);
eq_status eq_tensor_list_save(struct eq_tensor_list *list, const char *path, const struct eq_tensors_text *texts,
                              size_t num_texts);

#endif

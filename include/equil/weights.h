// The parameters and running statistics of a graph, on a device: by name, and from and to files. Base.h has what holds for
// threads and lifetimes.
//
// One set of weights serves any number of sessions (session.h) and of graphs that name their tensors alike: a network for
// batches of 1 and one for batches of 16, evaluation and training.
//
// Gradients and velocities (of SGD's momentum) are the weights', too, one of each for a parameter: sessions that differentiate
// share them, and so does eq_network_gradients(). They get their memory with the first of these, zeroed, and keep it. A
// backward run replaces the gradients of the one before, whichever it was: those of parameters that its graph does not have
// become 0. Velocities change by eq_session_update() alone:
// neither loading, writing nor initialising resets them, and eq_weights_save() does not save them (the checkpoints of
// eq_trainer_run() have them). To be rid of them, make weights anew.
#ifndef EQUIL_WEIGHTS_H
#define EQUIL_WEIGHTS_H

#include "data.h"
#include "device.h"
#include "graph.h"

#ifdef __cplusplus
extern "C" {
#endif

struct eq_weights;

// Makes the tensors of the graph on the device, for eq_weights_initialise() or eq_weights_load(): weights and biases of
// convolutions and linear layers are zeros until then, all else has the values that eq_weights_initialise() gives it.
// Hardly waits for the device: whoever makes sessions next, and loads then, has it work meanwhile. The device must outlive it,
// the graph need not. One thread at a time per weights and device. Errors: EQ_ERR_DEVICE_MEMORY, EQ_ERR_HOST_MEMORY,
// EQ_ERR_DEVICE; EQ_ERR_UNSUPPORTED (a layer beyond what kernels can count).
EQ_API eq_status eq_weights_create(struct eq_device *device, const struct eq_graph *graph, struct eq_weights **weights);
// After the sessions over it. *weights becomes NULL; NULL is allowed.
EQ_API void eq_weights_destroy(struct eq_weights **weights);

// What training starts from: convolutions N(0, 2 / (kh kw oc)) (He et al., ICCV 2015), normalisation scales 1 and shifts 0,
// linear layers uniform in +-1 / sqrt(fan-in) with their biases, as in PyTorch, x_weight 0; running means 0, variances 1,
// running_wm the identity, running_scale 0. The same seed and names give the same values. Waits for the device. After a failure
// some are old and some new: initialising or loading again is the way on.
EQ_API eq_status eq_weights_initialise(struct eq_weights *weights, uint64_t seed);

// Reads a safetensors file with PyTorch's names. Running statistics that are missing get their initial values; a missing or
// misshapen parameter is EQ_ERR_NOT_FOUND or EQ_ERR_SHAPE and names it; names the graph does not have are logged. With new_head
// a classifier (fc.*) of another shape is left at its initial values (eq_weights_initialise with `seed`). Whatever is wrong
// with the file leaves the weights unchanged: all of it is read first. EQ_ERR_DEVICE and EQ_ERR_HOST_MEMORY may come while they
// are written: then some are old and some new, and loading again is the way on. Errors of the file: those of eq_tensors_open()
// and eq_tensors_read_f32().
EQ_API eq_status eq_weights_load(struct eq_weights *weights, const char *path, bool new_head, uint64_t seed);
// The same from a file that is open: from memory, with eq_tensors_open_memory(). Nothing of it is kept.
EQ_API eq_status eq_weights_load_tensors(struct eq_weights *weights, const struct eq_tensors *file, bool new_head,
                                         uint64_t seed);

// A tensor.
struct eq_weights_tensor {
    const char *name;   // "layer1.0.conv1.weight"; valid as long as the weights
    int rank, shape[4]; // as in files
    size_t elems;
    bool is_parameter; // trained; else a running statistic
};
// Parameters come first, then running statistics, both in the order of the graph.
EQ_API int eq_weights_num(const struct eq_weights *weights);
EQ_API struct eq_weights_tensor eq_weights_at(const struct eq_weights *weights, int index); // 0 <= index < eq_weights_num()
// Copies, f32 [elems], row-major in the tensor's shape: filters [oc, ic / groups, kh, kw]. They wait for the device.
// EQ_ERR_NOT_FOUND: no tensor of that name. After another failure the tensor written, or the values read, are undefined.
EQ_API eq_status eq_weights_read(const struct eq_weights *weights, const char *name, float *values);
EQ_API eq_status eq_weights_write(struct eq_weights *weights, const char *name, const float *values);
// The gradient of a parameter, from the last differentiated run. EQ_ERR_ARGUMENT: there was none, or a running statistic.
EQ_API eq_status eq_weights_read_gradient(const struct eq_weights *weights, const char *name, float *values);

// Writes parameters, running statistics and num_batches_tracked as safetensors (atomically), with the texts [num_texts] as
// metadata (NULL: none). Values that are not finite are written as they are. Waits for the device. After a failure the file is
// the old one, and no other is left; a process that is killed may leave PATH.tmp.NUMBERS, which the next that writes the path
// removes. The weights are unchanged. Errors: EQ_ERR_IO, EQ_ERR_ARGUMENT (a text twice, or not UTF-8), EQ_ERR_DEVICE.
EQ_API eq_status eq_weights_save(const struct eq_weights *weights, const char *path, const struct eq_tensors_text *texts,
                                 size_t num_texts);

#ifdef __cplusplus
}
#endif
#endif

// A graph on a device, ready to run: forward, differentiated, trained.
//
//     eq_graph_create(&graph);                                           // or a network of your own
//     eq_graph_input(graph, "images", 8, 3, 224, 224, &images);
//     eq_model_build(graph, &(struct eq_model_params){ .arch = "ce-resnet50", .classes = 1000 }, images, &logits);
//     eq_graph_output(graph, logits, "logits");
//     eq_weights_create(device, graph, &weights);
//     eq_weights_load(weights, "net.safetensors", false, 0);
//     eq_session_create(weights, graph, NULL, &session);
//     eq_session_write(session, "images", pixels);
//     eq_session_run(session);
//     eq_session_read(session, "logits", values);
//
// Inputs and outputs go by their names: those of eq_graph_input(), eq_graph_labels() and eq_graph_output(). opencl.h has what
// lets them be memory of the caller's, and waits for events and signals them.
//
// Threads: a device with its weights and all its sessions is for one thread at a time; runs of two sessions of one device come
// one after the other in its queue, in the order in which they were enqueued. Sessions of several devices, of one graph too
// that nobody changes meanwhile, are made and run in several threads.
//
// After a failure of the device or for want of memory a session can be used on: a call that failed can be repeated, and gives
// what it would have given. Until then is undefined what it was to write: the input (eq_session_write); the values read; the
// outputs and, in training, the running statistics (a run or its forward half); the gradients (backward); parameters and
// velocities (eq_session_update). A backward half works on what the forward half kept: one that failed is repeated from the
// forward half on. A run or an update that failed may have been done in part, and repeating it would do that part twice: in
// training load or write the weights again first, and after an update with momentum make them anew, for the velocities. What
// was enqueued before may still be running: eq_session_wait().
#ifndef EQUIL_SESSION_H
#define EQUIL_SESSION_H

#include "weights.h"

#ifdef __cplusplus
extern "C" {
#endif

struct eq_session;

struct eq_session_params {
    bool training; // batch statistics, which move the running ones; false: evaluation, with what is constant folded
    // Training: a named value of the graph to differentiate; 0, which is never one, means none. Of a cross entropy it is the
    // mean over the images. Of any other value y it is the sum of y * g, where g is the gradient from whatever comes behind y:
    // the session has it as an input of y's shape, called "grad.NAME", which the graph need not have.
    eq_value differentiate;
    bool input_gradients; // with `differentiate`: also those of the graph's f32 inputs, as outputs called "grad.NAME"
    bool recompute;       // with `differentiate`: activations are made again in backward rather than kept
};

// Compiles the graph and makes its memory. params NULL: all zero. The weights must have every tensor of the graph, and must
// outlive the session; the graph must, too, unchanged. One thread at a time per device, its weights and sessions. Errors:
// EQ_ERR_ARGUMENT (what is differentiated has no name, is no value of the graph, or does not depend on one of the parameters,
// or with input_gradients of the inputs; the session is not training; input_gradients or recompute without `differentiate`; an
// input or output of the graph that has the name of a gradient here),
// EQ_ERR_NOT_FOUND (a tensor that the weights do not have), EQ_ERR_SHAPE (one that they have in another shape, or in other
// blocks; training with one value per channel in a norm, which has no variance), EQ_ERR_UNSUPPORTED (a layer beyond what
// kernels can count, or the device's work-groups and local memory), EQ_ERR_DEVICE_MEMORY with the numbers, EQ_ERR_BUILD,
// EQ_ERR_HOST_MEMORY, EQ_ERR_DEVICE.
EQ_API eq_status eq_session_create(struct eq_weights *weights, const struct eq_graph *graph,
                                   const struct eq_session_params *params, struct eq_session **session);
// Waits for what has been enqueued on the device. *session becomes NULL; NULL is allowed.
EQ_API void eq_session_destroy(struct eq_session **session);

// Bytes on the device: activations, inputs and outputs; without the weights, CLBlast's workspaces and a caller's memory.
EQ_API size_t eq_session_bytes(const struct eq_session *session);

// Copies a whole input or output, f32 [n, c, h, w] ([n, c] for rows, [n] for losses), or int32 [n] for labels, dense. They wait
// for the device. Outputs are those of the last run. EQ_ERR_NOT_FOUND: no input or output of that name; the text lists those
// there are. An input of the graph that nothing in it reads is none. Labels that were never written are -1, no class, and
// the losses not numbers: who wants the logits alone can do without. EQ_ERR_ARGUMENT: reading an output before the first run,
// or a gradient before the first that went backward; writing one, or an input that is bound to a caller's memory; either of
// what has no memory (eq_session_create_unbound()), or of "workspace".
EQ_API eq_status eq_session_write(struct eq_session *session, const char *name, const void *values);
EQ_API eq_status eq_session_read(struct eq_session *session, const char *name, void *values);

// What an input or output is.
struct eq_session_tensor {
    int shape[4];  // [n, c, h, w]; 1 where there is nothing
    int rank;      // how many of these dimensions it has: 4 for activations, 2 for rows [n, c], 1 for labels and losses [n]
    bool is_int32; // labels; false: f32
    bool is_input; // false: an output, which runs write
};
// Of a session without weights (opencl.h) also what is bound: parameters and statistics are inputs, in the shape and rank of
// files, their gradients outputs; "workspace" is an f32 output [1], whatever its size, which is
// eq_session_workspace_bytes(). EQ_ERR_NOT_FOUND as above; *tensor is then as it was.
EQ_API eq_status eq_session_describe(const struct eq_session *session, const char *name, struct eq_session_tensor *tensor);

// Enqueues one run, forward and, where the session differentiates, backward; does not wait for it. EQ_ERR_NUMERIC: an
// evaluation with a running_scale, of the session's graph, that was loaded or written as no number above 0, or that nothing
// has moved from 0: the network was never trained. Other errors, of the halves too: EQ_ERR_ARGUMENT (an f32 input that was
// never written, nor is bound; something without memory that has to be bound, or whose binding failed), EQ_ERR_DEVICE. What
// fails while it runs is told, where the driver tells, by the next call that waits.
EQ_API eq_status eq_session_run(struct eq_session *session);
// Its halves, for a gradient that depends on the outputs: forward; then, "grad.NAME" written, backward, which uses up what
// forward kept: each backward half comes after a forward half of its own, with none of eq_session_run() in between.
// EQ_ERR_ARGUMENT: the session does not differentiate, or its last run was not a forward half.
EQ_API eq_status eq_session_forward(struct eq_session *session);
EQ_API eq_status eq_session_backward(struct eq_session *session);

struct eq_sgd_params {
    float rate;         // learning rate
    float momentum;     // 0: none
    float weight_decay; // 0: none
};
// Enqueues an update of all parameters of the weights from the gradients of the last run, PyTorch's rule: g += weight_decay *
// w; v = momentum * v + g; w -= rate * v. Gradients and velocities are the weights': see weights.h; those of parameters that
// the graph of the run does not have are 0. Does not wait; the first call makes its kernel. EQ_ERR_ARGUMENT: the session does
// not differentiate, was not run backward before, or has no weights; a number that is negative or not finite. The first call
// also: EQ_ERR_BUILD, EQ_ERR_DEVICE_MEMORY.
EQ_API eq_status eq_session_update(struct eq_session *session, const struct eq_sgd_params *params);

// Waits until everything that was enqueued on the device is done: in a caller's in-order queue that is the caller's commands,
// too. EQ_ERR_DEVICE: the driver says that one of them failed, or cannot wait.
EQ_API eq_status eq_session_wait(struct eq_session *session);

#ifdef __cplusplus
}
#endif
#endif

// Inside a program that uses OpenCL itself: its context, queue, memory and events. Not part of equil.h, because it needs
// OpenCL's headers; CL_TARGET_OPENCL_VERSION is the program's to choose, 120 or above. Base.h has what holds for lifetimes.
#ifndef EQUIL_OPENCL_H
#define EQUIL_OPENCL_H

#ifndef CL_TARGET_OPENCL_VERSION
#define CL_TARGET_OPENCL_VERSION 120
#endif
#include <CL/cl.h>

#include "device.h"
#include "session.h"

#ifdef __cplusplus
extern "C" {
#endif

struct eq_opencl_params {
    cl_context context;     // required
    cl_device_id device;    // NULL: the context's only one
    cl_command_queue queue; // in order or out of order, with profiling or without; NULL: Equil makes one in the context
};
// A device from a context and a queue that the caller has. Both are retained until eq_device_destroy(), and nothing of them is
// changed. Work goes into the queue. Functions that make or destroy something, or take or give data of the host, may wait for
// it; those that run a session, update its weights, or bind memory in the form that was bound before do not. In an out-of-order
// queue Equil's commands wait for one another by events, and for those of the caller's that it is told of alone. Variables of
// the environment count as for eq_device_open(), but for EQUIL_DEVICE. Thread-safe; afterwards one thread at a time per device:
// several devices, of one context too, go in several threads. After a failure nothing is retained.
//
// CLBlast computes matrix products: gradients of linear layers with the kernels for GPUs, and Newton-Schulz steps over groups
// of more than 64 channels. It takes no list of events, so in an out-of-order queue each of its products comes after a
// barrier that waits for Equil's last command, and commands that the caller enqueues behind it wait for that one, too. It keeps
// its programs, and the context with them, for the whole process: eq_device_destroy() of a device on which it computed clears
// all of them (CLBlastClearCache()), those of other devices and of a program that uses CLBlast itself as well, which are
// compiled again when they are next used.
//
// Errors: EQ_ERR_ARGUMENT (no context; a device or queue of another context; a context of several devices, and none is named; a
// variable of the environment, as for eq_device_open()), EQ_ERR_UNSUPPORTED (a device that eq_device_list() calls unusable,
// with the reason), EQ_ERR_IO and EQ_ERR_FORMAT (the file that EQUIL_TUNING names), EQ_ERR_HOST_MEMORY, EQ_ERR_DEVICE.
EQ_API eq_status eq_device_adopt(const struct eq_opencl_params *params, struct eq_device **device);

// ---- sessions over the caller's memory and events

enum eq_opencl_type { EQ_OPENCL_F32, EQ_OPENCL_F16, EQ_OPENCL_U8, EQ_OPENCL_I32 };
enum eq_opencl_layout { EQ_NCHW, EQ_NHWC };

// A tensor in the caller's memory: element (n, c, y, x) lies at byte offset_bytes + (n * stride[0] + c * stride[1] + y *
// stride[2] + x * stride[3]) * bytes of the type.
struct eq_opencl_view {
    cl_mem memory; // a buffer of the device's context
    enum eq_opencl_type type;
    size_t offset_bytes; // a multiple of the type's bytes
    enum eq_opencl_layout layout;
    // In elements, at most 2^31 - 1 each; all 0: dense, as the layout says. Those of rows and labels are [0] and [1]. An input
    // may have elements in one place: a stride of 0 repeats it. Those of an output must have a place each: every stride, from
    // the smallest on, goes beyond all that those before it reach.
    size_t stride[4];
    // [c] or NULL for 1 and 0; copied. Inputs become value * scale + shift: images of bytes with mean m and deviation d take
    // 1 / (255 d) and -m / d. Outputs are result * scale + shift, of bytes the nearest, cut to 0 .. 255.
    const float *scale, *shift;
};
// From the next run on an input is read from, or an output written to, the caller's memory, which is retained until it is bound
// otherwise. view NULL, or without memory: the session's own memory again. Nothing is copied through the host. Where the value
// lies in the memory just as the network has it (f32, dense NCHW, without scale and shift: images of fewer than 4 channels that
// only convolutions read, rows such as logits; int32 labels), the kernels of the network work on that memory itself; elsewhere
// one pass converts. Another memory or offset of the same form costs next to nothing and waits for nothing, so it can be done
// before every run; another form (type, strides, scale or shift) makes a kernel and waits for what is enqueued. Errors:
// EQ_ERR_NOT_FOUND (the name), EQ_ERR_ARGUMENT (memory of another context, no buffer, too small, with the numbers; a type or
// a layout that is none, an offset within an element; labels that are not int32, or anything else that is; parameters,
// statistics and their gradients otherwise than f32, dense, without scale and shift; a workspace of another type, or not
// from a multiple of 256 bytes on), EQ_ERR_UNSUPPORTED (strides), EQ_ERR_BUILD and EQ_ERR_DEVICE_MEMORY (of another form).
// The binding before stays then. After EQ_ERR_DEVICE and EQ_ERR_HOST_MEMORY it may be gone: runs either use what was bound
// last or are refused (EQ_ERR_ARGUMENT) until binding succeeds. Whether memory that runs write overlaps other bound memory
// is not looked at: what is in either is undefined then. Backward reads inputs and outputs, too: what is bound as the network
// has it stays bound, and what is in it as it was, from the forward half to the end of the backward half.
EQ_API eq_status eq_session_bind(struct eq_session *session, const char *name, const struct eq_opencl_view *view);

enum eq_session_part { EQ_SESSION_ALL, EQ_SESSION_FORWARD, EQ_SESSION_BACKWARD };
// As eq_session_run(), eq_session_forward() or eq_session_backward(), after the events [num_wait_for], on the device. `event`,
// unless NULL, gets an event of the end, which the caller releases; NULL after a failure. In an in-order queue, commands that
// the caller enqueues later wait for it anyway. Errors: those of eq_session_run() and its halves, EQ_ERR_ARGUMENT (a part that
// is none, a list of events that is not there). Where only the event fails (EQ_ERR_DEVICE), the run has been enqueued.
EQ_API eq_status eq_session_enqueue(struct eq_session *session, enum eq_session_part part, const cl_event *wait_for,
                                    int num_wait_for, cl_event *event);

// ---- sessions whose parameters are the caller's memory

// A session without weights: every parameter, running statistic and gradient of a parameter is the caller's memory, bound by
// name like an input before the first run ("bn.weight", "grad.bn.weight"; f32, dense, as in files), and so is the memory
// between the ops, "workspace": eq_session_workspace_bytes() from a multiple of 256 bytes on. Between forward and backward, the
// workspace holds what backward needs. The session itself has inputs in blocks of channels: eq_session_bytes(). Only for graphs
// without convolutions, whose filters are stored in blocks (EQ_ERR_UNSUPPORTED). A run before everything is bound is
// EQ_ERR_ARGUMENT with the name. Evaluation does not look at running_scale: with 0, results are not finite. params NULL: all
// zero. The device and the graph, unchanged, must outlive it. Errors: those of eq_session_create() but EQ_ERR_NOT_FOUND. It is
// used and destroyed as any session, but has no eq_session_update() (EQ_ERR_ARGUMENT).
EQ_API eq_status eq_session_create_unbound(struct eq_device *device, const struct eq_graph *graph,
                                           const struct eq_session_params *params, struct eq_session **session);
// Bytes of the caller's workspace that it needs; 0 for sessions over weights, which have their own.
EQ_API size_t eq_session_workspace_bytes(const struct eq_session *session);

// Batch norm and Channel Equilibrium alone, as a layer for other frameworks (Shao et al., ICML 2020), unbound as above.
// Names: x and y [n, c, h, w]; bn.weight, bn.bias, bn.running_mean, bn.running_var; ce.x_weight and so on, see
// eq_graph_channel_equilibrium(); in training also grad.y, which is read, and grad.x and grad.NAME of every parameter, which
// are written. Forward and backward are the halves of eq_session_enqueue().
struct eq_ce_block_params {
    int n, c, h, w; // of x; c >= 4 and h * w >= 2, but for decorrelation alone
    bool training;  // differentiated, with batch statistics; false: evaluation
    struct eq_batch_norm_params norm;
    struct eq_equilibrium_params equilibrium;
};
// Errors: EQ_ERR_SHAPE (c below 4, images of one pixel, training on one value per channel, an extent below 1), EQ_ERR_ARGUMENT
// (norm and equilibrium outside their ranges, see graph.h), and those of eq_session_create_unbound() but for convolutions. The
// graph is its own.
EQ_API eq_status eq_session_create_ce_block(struct eq_device *device, const struct eq_ce_block_params *params,
                                            struct eq_session **session);

#ifdef __cplusplus
}
#endif
#endif

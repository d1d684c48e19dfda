// Compiling a network's kernels ahead of their first use, in this process or in several: what is compiled goes into the caches
// of Equil (see EQUIL_CACHE_DIR) and of the driver, where every process finds it. Base.h has what holds for threads and
// lifetimes: a plan and its device are for one thread at a time; several devices compile in several threads.
#ifndef EQUIL_AHEAD_H
#define EQUIL_AHEAD_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

struct eq_ahead_params {
    struct eq_model_params model;
    int n, size;   // batches [n, 3, size, size] of pixels; n >= 1, size >= 8
    bool training; // the kernels of a training step, else those of evaluation
};
struct eq_ahead_plan;

// Plans the network and lists its kernels, in the order of their first use. Nothing of params is kept. The device is used up,
// after a failure too: it can be destroyed, after the plan, and nothing else. Errors: EQ_ERR_ARGUMENT (n or size), those of
// eq_network_create(), EQ_ERR_SHAPE (images too small for the network), EQ_ERR_UNSUPPORTED (a layer beyond what kernels can
// count), EQ_ERR_DEVICE_MEMORY.
EQ_API eq_status eq_ahead_plan_create(struct eq_device *device, const struct eq_ahead_params *params,
                                      struct eq_ahead_plan **plan);
EQ_API void eq_ahead_plan_destroy(struct eq_ahead_plan **plan); // before its device. *plan becomes NULL; NULL is allowed

EQ_API int eq_ahead_plan_num_kernels(const struct eq_ahead_plan *plan);
// Compiles kernel 0 <= index < eq_ahead_plan_num_kernels(), in any order; quick for one that is in the caches. A driver that
// compiles when a kernel first runs (PoCL) runs it, with as few work-groups as will do. Errors: EQ_ERR_ARGUMENT (index),
// EQ_ERR_BUILD, EQ_ERR_UNSUPPORTED (work-groups or local memory beyond the device's), EQ_ERR_DEVICE_MEMORY, EQ_ERR_DEVICE,
// EQ_ERR_IO (it cannot be kept in Equil's cache). The others can be compiled then.
EQ_API eq_status eq_ahead_plan_compile(struct eq_ahead_plan *plan, int index);

// Whether every kernel is still kept, after all of them were compiled, by whatever process: EQ_ERR_IO, with the numbers, where
// some had to make room in Equil's cache for others (EQUIL_CACHE_MIB); EQ_ERR_HOST_MEMORY. PoCL's cache is not looked at.
EQ_API eq_status eq_ahead_plan_check(const struct eq_ahead_plan *plan);

// Whether what is compiled ahead will be kept: EQ_ERR_IO, with the reason, where Equil's cache is switched off or its folder,
// which is made, cannot be written. A driver that compiles when a kernel first runs (PoCL) keeps it in a cache of its own,
// of which only is looked at whether it is switched off (POCL_KERNEL_CACHE).
EQ_API eq_status eq_ahead_check(const struct eq_device *device);

// Whether processes that compile ahead are worth starting: Equil's cache is in use and nothing there says that these kernels
// were compiled before, by this version for this device, driver, precision and tuning. eq_ahead_remember() says so, if it can.
// Neither fails, or changes the device: they may be called from several threads while nobody sets its precision.
EQ_API bool eq_ahead_is_due(const struct eq_device *device, const struct eq_ahead_params *params);
EQ_API void eq_ahead_remember(const struct eq_device *device, const struct eq_ahead_params *params);

#ifdef __cplusplus
}
#endif
#endif

// Compiling a network's kernels ahead of their first use, in this process or in several: what is compiled goes into the caches
// of Equil (see EQUIL_CACHE_DIR) and of the driver, where every process finds it.
#ifndef EQUIL_AHEAD_H
#define EQUIL_AHEAD_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

struct eq_ahead_params {
    struct eq_model_params model;
    int n, size;   // batches [n, 3, size, size]
    bool training; // the kernels of a training step, else those of evaluation
};
struct eq_ahead_plan;

// Plans the network and lists its kernels, in the order of their first use. The device is used up: it can be destroyed, after
// the plan, and nothing else. Errors: those of eq_network_create().
EQ_API eq_status eq_ahead_plan_create(struct eq_device *device, const struct eq_ahead_params *params,
                                      struct eq_ahead_plan **plan);
EQ_API void eq_ahead_plan_destroy(struct eq_ahead_plan **plan); // *plan becomes NULL; NULL is allowed

EQ_API int eq_ahead_plan_num_kernels(const struct eq_ahead_plan *plan);
// Compiles kernel 0 <= index < eq_ahead_plan_num_kernels(); quick for one that is in the caches.
EQ_API eq_status eq_ahead_plan_compile(struct eq_ahead_plan *plan, int index);

// Whether processes that compile ahead are worth starting: Equil's cache is in use and nothing there says that these kernels
// were compiled before, by this version for this device, driver, precision and tuning. eq_ahead_remember() says so, if it can.
EQ_API bool eq_ahead_is_due(const struct eq_device *device, const struct eq_ahead_params *params);
EQ_API void eq_ahead_remember(const struct eq_device *device, const struct eq_ahead_params *params);

#ifdef __cplusplus
}
#endif
#endif

// Shared inside the run-time layer only.
#ifndef EQ_RT_INTERNAL_H
#define EQ_RT_INTERNAL_H

#include "rt/rt.h"

// "CL_OUT_OF_RESOURCES" and so on; the number for unknown codes. Valid until this thread's next call.
const char *eq_cl_error(cl_int code);

#define EQ_CL(call, what)                                                                                                  \
    do {                                                                                                                   \
        cl_int eq_cl_code_ = (call);                                                                                       \
        if (eq_cl_code_ != CL_SUCCESS)                                                                                     \
            return eq_fail(EQ_ERR_DEVICE, "%s: %s", (what), eq_cl_error(eq_cl_code_));                                     \
    } while (0)

// Asks the driver about a device. What it does not tell stays as it is, and eq_ask_failed() says why.
void eq_ask(cl_device_id id, cl_device_info what, size_t bytes, void *value);
// The first failure of the thread's questions since the last call of this; CL_SUCCESS where there was none, or but such as the
// driver does not know (CL_INVALID_VALUE).
cl_int eq_ask_failed(void);
// A number that the driver tells of a device; 0 where it does not.
#define EQ_DEVICE_VALUE(type, id, what)                                                                                    \
    __extension__({                                                                                                        \
        type value_ = 0;                                                                                                   \
        eq_ask((id), (what), sizeof value_, &value_);                                                                      \
        value_;                                                                                                            \
    })

// The place of a command on the device's queue (queue.c): what to give to clEnqueue...(), right after eq_turn_next() and before
// eq_turn_end().
struct eq_turn {
    cl_uint num;
    const cl_event *wait;
    cl_event *event; // NULL: nobody needs it
};
struct eq_turn eq_turn_next(struct eq_device *device);
void eq_turn_end(struct eq_device *device);
// For copies from and to the host, right after eq_turn_next(): EQ_ERR_DEVICE, once, where a command before has failed.
eq_status eq_turn_check(struct eq_device *device);
// Fills bytes `at` to `at + bytes`, all of them whole floats, in turns that reach no further than limits.fill_bytes from the
// beginning of what they are given.
cl_int eq_enqueue_fill(struct eq_device *device, cl_mem mem, float value, size_t at, size_t bytes);
// Waits for the event, and where that fails for its queue.
cl_int eq_event_wait(cl_event event);

// Whether a call that ended with `code` is worth another one: drivers answer "out of resources" and the like at times and not
// the next time. Then it has waited until the queue was empty, which it does only where nobody else enqueues there; a few times
// at most, which *num_retries counts, from 0. For calls that make objects, as
//     do
//         mem = clCreateBuffer(..., &code);
//     while (eq_device_retries(device, code, &num_retries));
// and not for those that enqueue kernels: one that failed may have begun.
bool eq_device_retries(struct eq_device *device, cl_int code, int *num_retries);

// Marks the usable one of the devices [num] that `selector` means, and says of each why it is chosen or not. Without a selector
// (NULL): a GPU before a CPU before anything else; simulators last.
void eq_device_choose(struct eq_device_info *infos, int num, const char *selector);

// Texts of drivers, without what stands behind them: they may be longer than the field, and end in NULs or blanks.
void eq_keep_text(const char *text, char out[128]);
void eq_platform_text(cl_platform_id id, cl_platform_info what, char out[128]);

// Address on the PCI bus, by whatever extension the driver has; empty.
void eq_pci_address(cl_device_id id, char out[16]);

// Programs built so far on a device.
void eq_programs_destroy(struct eq_programs **programs);

// Whether the driver compiles a kernel when it first runs, and keeps the result in a cache of its own.
bool eq_driver_compiles_late(const struct eq_device *device);
// Whether Equil's cache has the program as eq_kernel_create() builds it, or the driver has a cache of its own.
eq_status eq_program_is_kept(const struct eq_device *device, const char *source, const char *options, bool *is_kept);
// Points at the binary inside a file of the cache of programs; false for anything but a whole entry of this key [length].
bool eq_cache_entry_find(const char *data, size_t bytes, const char *key, size_t length, const unsigned char **binary,
                         size_t *binary_bytes);

// Largest sum of the cache's files, as the environment says.
eq_status eq_cache_limit(size_t *bytes);
// Notes that the entry is used. Best effort, as the next.
void eq_cache_touch(const char *path);
// Removes entries from the folder, those that were used longest ago first, where they are more than `limit` bytes in sum; never
// `kept`, a name, nor a file that has not the name of an entry. Other processes may do the same, write and read.
void eq_cache_trim(const char *folder, const char *kept, size_t limit);

// Compiling ahead: whether lists only note, whether buffers have memory, and noting.
bool eq_ahead_is_noting(const struct eq_device *device);
bool eq_ahead_has_memory(const struct eq_device *device);
eq_status eq_ahead_kernel(struct eq_device *device, const struct eq_launch *launch, const struct eq_arg *args, int num_args);
eq_status eq_ahead_gemm(struct eq_device *device, const struct eq_gemm *gemm, struct eq_ref a, struct eq_ref b,
                        struct eq_ref c);
void eq_ahead_destroy(struct eq_ahead **ahead);

// Reads the tuning of a device that was opened otherwise.
eq_status eq_device_open_tuning(struct eq_device *device);
void eq_device_close_tuning(struct eq_device *device);

// Sets the precision that the environment asks for.
eq_status eq_device_open_precision(struct eq_device *device);

// What CLBlast keeps of a device that goes.
void eq_gemm_forget(const struct eq_device *device);
// Bytes that CLBlast needs beside the operands for one product.
eq_status eq_gemm_workspace(struct eq_device *device, const struct eq_gemm *gemm, size_t *bytes);
eq_status eq_gemm_enqueue(struct eq_device *device, const struct eq_gemm *gemm, struct eq_ref a, struct eq_ref b,
                          struct eq_ref c, struct eq_buffer *workspace);

#endif

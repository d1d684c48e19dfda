// Run time: devices, buffers, programs and command lists. The only layer that uses OpenCL and CLBlast.
//
// Nothing above this layer enqueues by hand. Ops append steps (kernels with their arguments set, fills, matrix products) to a
// command list once; running the list is one enqueue per step and no host wait.
#ifndef EQ_RT_RT_H
#define EQ_RT_RT_H

#ifndef CL_TARGET_OPENCL_VERSION
#define CL_TARGET_OPENCL_VERSION 120
#endif
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <CL/cl.h>

#include "base/base.h"
#include "equil/device.h"
#include "rt/tune.h"
#include "tensor/tensor.h"

// ---- device (device.c)

enum eq_kind { EQ_KIND_CPU, EQ_KIND_GPU, EQ_KIND_OTHER };

// What a device allows. Data: tests impose those of other devices.
struct eq_limits {
    size_t max_group;       // work-items in a work-group
    size_t max_items[3];    // work-items in each dimension of a work-group
    size_t local_bytes;     // local memory of a work-group
    size_t max_alloc_bytes; // of one buffer
    size_t memory_bytes;    // of all buffers
    size_t fill_bytes;      // of one fill, and from the beginning of a buffer to its end, a multiple of 4
    size_t origin_bytes;    // of which the beginning of a buffer's part is a multiple
    size_t max_groups;      // work-groups of an enqueue in each dimension but the first, where it may have 2^31 - 1
    double launch_flops;    // of one enqueued kernel, for drivers that stop it after some seconds; 0: as many as it has
};

// Which kernels a device gets: explicit vectors with one work-item a register tile (CPUs), or work-items side by side over
// pixels and channels with tiles in local memory (GPUs).
enum eq_family { EQ_FAMILY_VECTOR, EQ_FAMILY_SIMT };

// What multiplies tiles of tf32, fp16 or bf16: see cl/matrix.clh, which has these numbers too.
enum eq_matrix_unit {
    EQ_MATRIX_EMULATED,
    EQ_MATRIX_MMA,    // NVIDIA mma.sync
    EQ_MATRIX_MFMA,   // AMD CDNA
    EQ_MATRIX_WMMA11, // AMD RDNA 3
    EQ_MATRIX_WMMA12, // AMD RDNA 4
    EQ_MATRIX_DPAS8,  // Intel, sub-groups of 8
    EQ_MATRIX_DPAS16, // Intel, sub-groups of 16
    EQ_NUM_MATRIX_UNITS
};

// What plans and shapes depend on. Pure data, so that a plan can be made, and tested, without a device.
struct eq_target {
    enum eq_family family;
    int block;                 // channels in a block of activations: 16, 8 or 4
    int compute_units;
    size_t max_group;          // largest work-group Equil uses: min(256, device)
    size_t local_bytes;        // local memory of a work-group that kernels may be planned with: 48 KiB at most
    int max_sums;              // a work-item of the SIMT family holds in registers
    size_t max_alloc_bytes;    // largest buffer
    size_t memory_bytes;       // global memory
    size_t cache_bytes;        // a CPU's last cache; 0: none, or unknown
    size_t stream_bytes;       // results of at least this size are stored past a CPU's caches; SIZE_MAX: none is
    bool has_fma;              // CL_FP_FMA: kernels get -DEQ_FMA=1
    bool can_limit_registers;  // the compiler knows -cl-nv-maxrregcount
    bool has_real_local;       // local memory is not emulated in global memory
    bool use_winograd;         // 3x3 convolutions may go through Winograd's transform (EQUIL_WINOGRAD=0: none does)
    enum eq_precision precision;    // of the inputs of convolutions; other than fp32 only with the SIMT family
    enum eq_matrix_unit matrix_unit; // what multiplies them where it is not fp32
    const struct eq_tuning *tuning; // NULL: every op's own defaults
};
// What Equil assumes where no device is named (`info` without a device): a CPU with 512-bit vectors.
struct eq_target eq_target_default(void);

struct eq_device {
    cl_platform_id platform;
    cl_device_id id;
    cl_context context;
    cl_command_queue queue;
    bool is_own_queue;    // nobody else enqueues there
    bool is_out_of_order; // the queue: then a command waits for the one before it through
    cl_event last, next;  // the event of the last one, and the place for that of the next
    cl_event before;      // the last one before a marker that waits for events of the caller's
    cl_int failed;        // how a last one ended that nothing waits for any more, until it is told; else CL_SUCCESS
    enum eq_kind kind;
    struct eq_limits limits; // no launch goes beyond them
    struct eq_target target;
    char name[128], vendor[128], driver[128], version[128], platform_name[128], platform_version[128];
    size_t bytes_now, bytes_peak; // of all buffers, CLBlast's workspaces included
    bool has_products;    // CLBlast has programs in the context
    struct eq_programs *programs;
    size_t max_kept_bytes;    // largest sum of the files that keep programs: see EQUIL_CACHE_MIB
    bool has_cache_warning;   // it was said that programs cannot be kept
    struct eq_ahead *ahead;   // NULL: lists create their kernels
    struct eq_tuning *tuning; // what target.tuning is when the device was opened; may be empty
    char *tuning_path;        // the user's file in it, or NULL
    char shipped_tuning[20];  // hash of the library's choices in it; empty where EQUIL_TUNING leaves them out
    char tuning_text[320];    // see eq_device_tuning_text()
    char precision_text[64];  // see eq_device_precision_text()
};

// ---- limits (limits.c)

// What the driver says, or less: see eq_limits_impose().
struct eq_limits eq_limits_read(cl_device_id id);
// For tests: from now on devices are listed and opened with these limits where their own are wider. Fields that are 0 impose
// nothing. Not while devices are opened in other threads.
void eq_limits_impose(const struct eq_limits *limits);

// ---- matrix units (matrix.c)

const char *eq_precision_name(enum eq_precision precision);
// The nearest value of the precision, ties to even: what kernels round inputs to.
float eq_precision_round(enum eq_precision precision, float value);
// Work-items that share a tile.
int eq_matrix_unit_lanes(enum eq_matrix_unit unit);
const char *eq_matrix_unit_name(enum eq_matrix_unit unit);
// Whether the unit works on the device: compiles and runs cl/matrix.cl and compares. Why not goes to the log, at debug, or as a
// warning where the driver failed at more than compiling. An instruction that stops the device is not for it to find out:
// NVIDIA's driver then fails every later call on the context. Errors: EQ_ERR_HOST_MEMORY and EQ_ERR_DEVICE_MEMORY, which say
// nothing of the unit.
eq_status eq_matrix_probe(struct eq_device *device, enum eq_matrix_unit unit, enum eq_precision precision, bool *works);
// The unit that works, among those that the device may have; EQ_MATRIX_EMULATED where there is none. Errors: those of probing,
// and EQ_ERR_DEVICE (asking for what it may have).
eq_status eq_matrix_find(struct eq_device *device, enum eq_precision precision, enum eq_matrix_unit *unit);

// ---- tuning (tune_device.c)

struct eq_tuning_identity eq_device_identity(const struct eq_device *device);
// malloc'ed path of the file that the device's tuning is read from when it is opened, unless EQUIL_TUNING names another; NULL
// where there is no home.
char *eq_device_tuning_file(const struct eq_device *device);
// Adds the library's choices for the device; none where EQUIL_TUNING is 0.
eq_status eq_tuning_read_shipped(struct eq_tuning *tuning, const struct eq_device *device);
// Adds the lines of a file that are for the device; header gets what the file says of itself.
eq_status eq_tuning_read(struct eq_tuning *tuning, const char *path, const struct eq_device *device,
                         struct eq_tuning_identity *header);

// ---- buffers (buffer.c)

struct eq_buffer {
    struct eq_device *device;
    cl_mem mem;
    size_t bytes;
    cl_mem own;      // what it was made with: mem, unless a caller's memory stands in for it
    bool is_adopted; // a caller's memory alone, all of it
    bool is_empty;   // has none of its own
    bool may_move;   // a caller's memory may stand in for it, which begins at any element
    size_t base;     // where the buffer begins in a caller's memory, in elements as in eq_ref
};
// A place in a buffer, in elements of 4 bytes (float, int), or of 1 for u8 tensors: whatever the kernel's pointer type is.
struct eq_ref {
    struct eq_buffer *buffer; // NULL: absent
    size_t at;
};
#define EQ_REF_NONE ((struct eq_ref){ NULL, 0 })
struct eq_ref eq_ref_at(struct eq_buffer *buffer, size_t at);
struct eq_ref eq_ref_plus(struct eq_ref ref, size_t elems); // elems further
bool eq_ref_equal(struct eq_ref a, struct eq_ref b);

// Refuses more than the device's largest allocation, with the numbers. Contents undefined. On a processor it may wait for the
// device's queue, and where the driver is short of memory it is asked again when that is empty, unless the queue is a caller's:
// see eq_device_retries().
// Intel's way beyond its limit of 4 GB (CL_MEM_ALLOW_UNRESTRICTED_SIZE_INTEL, and every program built for it) is not taken: a
// plan's arena comes in chunks that stay below, and only a single tensor of more is refused.
eq_status eq_buffer_create(struct eq_device *device, size_t bytes, struct eq_buffer **buffer);
void eq_buffer_destroy(struct eq_buffer **buffer);
// A buffer with a copy of the host's bytes; does not touch the queue.
eq_status eq_buffer_create_from(struct eq_device *device, const void *host, size_t bytes, struct eq_buffer **buffer);
// A buffer without memory, for eq_buffer_swap().
eq_status eq_buffer_create_empty(struct eq_device *device, size_t bytes, struct eq_buffer **buffer);
// Makes the driver find the memory now, where it would otherwise do so when a kernel first uses it, and fail or hang there: on
// GPUs, in a queue that is not the caller's. Waits; contents undefined. Errors: EQ_ERR_DEVICE_MEMORY, with the numbers.
eq_status eq_buffer_touch(struct eq_buffer *buffer);
// Bytes of a caller's memory; refuses memory of another context, and images.
eq_status eq_memory_size(const struct eq_device *device, cl_mem mem, size_t *bytes);
// A buffer that is a caller's memory, retained.
eq_status eq_buffer_adopt(struct eq_device *device, cl_mem mem, struct eq_buffer **buffer);
// Puts a caller's memory, retained, in place of what the buffer has; its own is kept for when NULL takes its place again.
// `base` as in the buffer. Lists that use the buffer have to be told: eq_list_rebind().
eq_status eq_buffer_swap(struct eq_buffer *buffer, cl_mem mem, size_t base);
// Blocking copies; `at` counts elements of `elem_bytes`.
eq_status eq_ref_write(struct eq_ref ref, const void *host, size_t elems, size_t elem_bytes);
eq_status eq_ref_read(struct eq_ref ref, void *host, size_t elems, size_t elem_bytes);
// The same, but enqueued only: host memory has to stay as it is (what is written) or is undefined (what is read) until
// eq_ticket_wait(). A zeroed ticket is one that was waited for.
struct eq_ticket {
    cl_event event;
};
eq_status eq_ref_write_start(struct eq_ref ref, const void *host, size_t elems, size_t elem_bytes, struct eq_ticket *ticket);
eq_status eq_ref_read_start(struct eq_ref ref, void *host, size_t elems, size_t elem_bytes, struct eq_ticket *ticket);
eq_status eq_ticket_wait(struct eq_ticket *ticket);
// The same for destructors and after failures, whose text stays: what fails here is not reported.
void eq_ticket_drop(struct eq_ticket *ticket);
// Enqueues ref[0 .. elems) = value (4-byte elements).
eq_status eq_ref_fill(struct eq_ref ref, float value, size_t elems);
eq_status eq_device_finish(struct eq_device *device);
void eq_device_settle(struct eq_device *device); // the same for destructors

// ---- order (queue.c)

// What is enqueued from now on waits for the events, on the device.
eq_status eq_device_wait_for(struct eq_device *device, const cl_event *events, cl_uint num);
// An event of the end of what has been enqueued. The caller releases it.
eq_status eq_device_signal(struct eq_device *device, cl_event *event);

// ---- programs (program.c): kernel text embedded in the library, compiled with options, cached on disk and in the device

// The kernel `kernel` of the embedded file cl/<source>.cl built with `options` ("-DA=1 -DB=2"). common.clh stands before the
// text, and a header cl/X.clh in the place of #include "X.clh". Every program gets -DEQ_FMA=0|1. The cl_kernel is new: the
// caller releases it.
eq_status eq_kernel_create(struct eq_device *device, const char *source, const char *options, const char *kernel,
                           cl_kernel *out);
// Hash of the text of every kernel in the library, 16 digits: other text may sum in another order.
const char *eq_kernels_hash(char text[20]);

// ---- command lists (list.c)

struct eq_range {
    int dims;
    size_t global[3], local[3]; // global is a multiple of local; local is always given
};
// Rounds the global sizes up to multiples of the local ones.
struct eq_range eq_range_1d(size_t global, size_t local);
struct eq_range eq_range_2d(size_t global0, size_t global1, size_t local0, size_t local1);
struct eq_range eq_range_3d(const size_t global[3], const size_t local[3]);

enum eq_arg_kind { EQ_ARG_REF, EQ_ARG_I32, EQ_ARG_F32 };
struct eq_arg {
    enum eq_arg_kind kind;
    struct eq_ref ref;
    int32_t i32;
    float f32;
};
// In the kernel a ref is two parameters, written EQ_BUF(float, x) or EQ_IN(float, x) in the list of parameters and opened with
// EQ_PTR(float, x) as the first line of the body: see cl/common.clh. An absent ref (EQ_REF_NONE) passes a NULL cl_mem: the
// kernel must not touch it.
#define EQ_REF(r) ((struct eq_arg){ .kind = EQ_ARG_REF, .ref = (r) })
#define EQ_I32(v) ((struct eq_arg){ .kind = EQ_ARG_I32, .i32 = (int32_t)(v) })
#define EQ_F32(v) ((struct eq_arg){ .kind = EQ_ARG_F32, .f32 = (float)(v) })
#define EQ_ARGS(...) \
    (const struct eq_arg[]){ __VA_ARGS__ }, (int)(sizeof((struct eq_arg[]){ __VA_ARGS__ }) / sizeof(struct eq_arg))

struct eq_cost {
    double flops, bytes; // of the step: arithmetic as in the op's definition, memory traffic at least needed
};

struct eq_launch {
    const char *source;  // cl/<source>.cl
    const char *options; // "-DA=1", or NULL
    const char *kernel;
    struct eq_range range;
    struct eq_cost cost;
    bool is_preparation; // of weights, where evaluation finds it done: see eq_list_num_preparing()
    int cut;             // 1 + the dimension that may be cut into several enqueues, for the device's limits of arithmetic and
                         // of work-groups; 0: none. There the kernel has get_global_id(), or EQ_GROUP() for get_group_id(),
                         // and neither the number of groups nor the global size. What is not cut does little with what it
                         // reads (Winograd's transforms, 4 flops a value), or is CLBlast's: the largest products that grow
                         // with the batch are those of a classifier's gradient, 4 MFLOP an image each with 2048 features and
                         // 1000 classes
};

struct eq_list;
eq_status eq_list_create(struct eq_device *device, struct eq_list **list);
void eq_list_destroy(struct eq_list **list);
struct eq_device *eq_list_device(const struct eq_list *list);
const struct eq_target *eq_list_target(const struct eq_list *list);

// Text that stands before the kernel's name in profiles and errors of the steps appended from now on: the node, such as
// "layer1.0.conv2".
eq_status eq_list_label(struct eq_list *list, const char *label);
// Whether the steps appended from now on do for other images what steps of the same label and kernels before them do: reports
// add them up.
void eq_list_repeat(struct eq_list *list, bool repeats);
// Appends a kernel: builds it, checks the number of arguments, its work-group and its local memory against the kernel and the
// device's limits (EQ_ERR_UNSUPPORTED, with the numbers), sets the arguments. Use as
//     EQ_TRY(eq_list_kernel(list, &(struct eq_launch){ ... }, EQ_ARGS(EQ_REF(x), EQ_I32(n))));
eq_status eq_list_kernel(struct eq_list *list, const struct eq_launch *launch, const struct eq_arg *args, int num_args);
// Appends dst[0 .. elems) = value (4-byte elements).
eq_status eq_list_fill(struct eq_list *list, struct eq_ref dst, float value, size_t elems);
// Appends dst[0 .. elems) = src (4-byte elements).
eq_status eq_list_copy(struct eq_list *list, struct eq_ref src, struct eq_ref dst, size_t elems);
// Appends C = alpha * op(A) op(B) + beta * C through CLBlast, row-major: op(A) [m, k], op(B) [k, n], C [m, n]; lda, ldb, ldc
// are the stored rows' lengths. `batch` > 1 repeats it with strides (elements) between the matrices.
struct eq_gemm {
    int m, n, k;
    bool transpose_a, transpose_b;
    float alpha, beta;
    int lda, ldb, ldc;
    int batch; // 0 means 1
    size_t stride_a, stride_b, stride_c;
};
eq_status eq_list_gemm(struct eq_list *list, const struct eq_gemm *gemm, struct eq_ref a, struct eq_ref b, struct eq_ref c);
// Sets the arguments of the steps that use the buffer once more: its memory is another one.
eq_status eq_list_rebind(struct eq_list *list, const struct eq_buffer *buffer);
// Enqueues every step on the device's queue; does not wait.
eq_status eq_list_run(struct eq_list *list);
eq_status eq_list_run_range(struct eq_list *list, int first, int end); // steps first .. end - 1
int eq_list_length(const struct eq_list *list);
int eq_list_num_preparing(const struct eq_list *list); // steps at its beginning that are preparations

// Runs the list step by step, waiting after each, and fills one row per step with the time. rows has eq_list_length() entries.
struct eq_profile_row {
    const char *label, *kernel; // valid as long as the list
    bool is_repeat; // see eq_list_repeat()
    int64_t time_ns;
    struct eq_cost cost;
};
eq_status eq_list_profile(struct eq_list *list, struct eq_profile_row *rows);

// Whether programs are kept: by the driver, or in our folder, which is made and can be written. EQ_ERR_IO, and why not.
eq_status eq_cache_check(const struct eq_device *device);

// ---- compiling ahead (ahead.c)
// From now on lists of the device take no kernels and no matrix products, but note which there are, in order. Nothing that was
// made with the device can be run any more, and where compiling needs none buffers have no memory.
eq_status eq_device_note(struct eq_device *device);
// Different kernels noted so far; compiles one of them, into the caches that outlive the process. What it was noted for must
// be there still.
int eq_device_num_noted(const struct eq_device *device);
eq_status eq_device_compile_noted(struct eq_device *device, int index);
// How many of them are where eq_device_compile_noted() puts them: one that was compiled may have had to make room for others.
eq_status eq_device_num_kept(const struct eq_device *device, int *num);

// ---- measured peaks (peak.c)
// Largest rate of float32 multiply-adds (2 flops each), and of copying memory (read + write), measured now.
eq_status eq_device_peak(struct eq_device *device, double *flops_per_second, double *bytes_per_second);

#endif

// Devices: what there is, which one is chosen, and how to open it. Base.h has what holds for threads and lifetimes.
#ifndef EQUIL_DEVICE_H
#define EQUIL_DEVICE_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

struct eq_device;

// What is known of one device before it is opened.
struct eq_device_info {
    int index;                // position in the list, from 0: usable as a selector
    char platform[128];       // platform name, such as "Portable Computing Language"
    char platform_version[128];
    char name[128];
    char vendor[128];
    char version[128];        // CL_DEVICE_VERSION
    char driver[128];
    char kind[16];            // "cpu", "gpu", "accelerator" or "other"
    int compute_units;
    int clock_mhz;            // 0 where the driver does not say
    size_t memory_bytes;
    size_t max_alloc_bytes;
    size_t local_bytes;
    size_t max_group;         // work-items in a work-group
    int vector_width;         // native floats in a vector
    bool has_fma;
    char pci[16];             // address on the PCI bus, "0000:03:00.0"; empty where the driver does not say
    bool is_usable;           // false: `reason` says why Equil cannot use it
    bool is_chosen;           // what eq_device_open(selector) would open
    char reason[160];         // why it is, or is not, chosen
};

// Lists every device of every platform, the first 256. *infos [*num] is allocated and freed with eq_device_list_free(); *num is
// 0 and the status EQ_OK where there is no platform, or none that answers. `selector` as for eq_device_open(). Errors:
// EQ_ERR_HOST_MEMORY; *infos is NULL then. Thread-safe.
EQ_API eq_status eq_device_list(const char *selector, struct eq_device_info **infos, int *num);
EQ_API void eq_device_list_free(struct eq_device_info **infos); // *infos becomes NULL; NULL is allowed

// The platforms of all drivers that OpenCL's loader found, those without devices as well, the first 64. *infos [*num] is
// allocated, freed with free(); *num is 0 and the status EQ_OK where there is none. Errors: EQ_ERR_HOST_MEMORY; *infos is NULL
// then. Thread-safe.
struct eq_platform_info {
    char name[128], version[128];
    int num_devices; // of every type
};
EQ_API eq_status eq_platform_list(struct eq_platform_info **infos, int *num);

// OpenCL's loader (libOpenCL.so.1) as it describes itself; empty texts where it does not. Does not fail. Thread-safe.
struct eq_loader_info {
    char name[128], vendor[128], version[128];
    char opencl[128]; // newest OpenCL whose functions it has, "OpenCL 3.0"
};
EQ_API eq_status eq_loader_describe(struct eq_loader_info *info);

// Folder of compiled kernels (EQUIL_CACHE_DIR and its default), empty where there is none. At most `bytes` of it, NUL included.
// Thread-safe.
EQ_API void eq_device_cache_folder(char *path, size_t bytes);

// Opens a device. selector: an index of eq_device_list(), or what the first usable device has that is opened, case ignored: its
// kind, "gpu" or "cpu"; else a part of its name, its vendor or its platform's name, such as "rusticl" or "oclgrind"; "pocl"
// names PoCL, whose platform is "Portable Computing Language". NULL: the environment variable EQUIL_DEVICE, and without it the
// first usable GPU, else the first usable CPU. It gets a context and a queue of its own.
// Errors: EQ_ERR_DEVICE with the list of what there is, among them a driver that does not say what it has; EQ_ERR_ARGUMENT (a
// variable of the environment with a value that it cannot have: EQUIL_CONV, EQUIL_WINOGRAD, EQUIL_CACHE, EQUIL_CACHE_MIB,
// EQUIL_PRECISION); EQ_ERR_IO and EQ_ERR_FORMAT (the file that EQUIL_TUNING names). A failure leaves no device; other devices
// are as they were. Warnings of the log, and no failure: a cache of compiled kernels that cannot be read or written, and a
// tuning in its usual place that cannot be read. Thread-safe; afterwards one thread at a time per device.
EQ_API eq_status eq_device_open(const char *selector, struct eq_device **device);
// Whether the environment names a device (EQUIL_DEVICE) or a precision (EQUIL_PRECISION), for programs that can do without one.
EQ_API bool eq_device_is_wanted(void);
// After everything that was made with it. *device becomes NULL; NULL is allowed. Where CLBlast computed on it (see
// eq_device_adopt()), CLBlast's cache of programs is cleared, which is that of the whole process.
EQ_API void eq_device_destroy(struct eq_device **device);

// What the inputs of convolutions and of their gradients are rounded to before they are multiplied. Sums are float32
// throughout, and so is everything else: stored activations, weights and gradients, the gradient of an image, convolutions of
// several groups, batch norm, CE and the last layer.
enum eq_precision { EQ_FP32, EQ_TF32, EQ_FP16, EQ_BF16 };
// Chooses it for what will be compiled on the device, whose kernels become those for GPUs, without Winograd's transforms; what
// was compiled before stays as it is, and weights made before may be refused (EQ_ERR_SHAPE: a processor's may lie in shorter
// blocks). Without a call it is what the environment variable EQUIL_PRECISION says, else fp32. Other
// than fp32 can be set once, and looks for the device's matrix unit: a probe is compiled, run and compared, which waits for the
// device. Where there is none the results are the same within rounding, computed without one, and slow: for tests. Errors:
// EQ_ERR_ARGUMENT (a value that is none; tf32, fp16 or bf16 is set, and this is another, or fp32; other than fp32 with
// EQUIL_CONV=vector); EQ_ERR_HOST_MEMORY, EQ_ERR_DEVICE_MEMORY and EQ_ERR_DEVICE (of the probe). The device is as it was then.
EQ_API eq_status eq_device_set_precision(struct eq_device *device, enum eq_precision precision);
// "fp32", "tf32 on NVIDIA mma.sync", "bf16 emulated". Valid as long as the device.
EQ_API const char *eq_device_precision_text(const struct eq_device *device);
// By its name, "tf32"; EQ_ERR_ARGUMENT for others. Thread-safe.
EQ_API eq_status eq_precision_parse(const char *name, enum eq_precision *precision);

// What the opened device is. Valid as long as the device.
EQ_API const char *eq_device_name(const struct eq_device *device);
EQ_API const char *eq_device_driver(const struct eq_device *device);
// The tuned parameters in use (see tune.h), such as "9f86d081884c7d65, 23 choices, /home/me/.cache/equil/tuning/cpu.txt";
// "none" where there are none. Networks that were tuned otherwise sum in another order.
EQ_API const char *eq_device_tuning_text(const struct eq_device *device);
// Largest number of bytes that were allocated on the device at one time since it was opened, workspaces and CLBlast's included;
// without a caller's memory.
EQ_API size_t eq_device_peak_bytes(const struct eq_device *device);

#ifdef __cplusplus
}
#endif
#endif

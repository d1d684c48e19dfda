// Finding, choosing and opening devices. Every property is read once, here.
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "equil/opencl.h"
#include "rt/internal.h"

enum { MAX_PLATFORMS = 64, MAX_DEVICES = 256, LEAST_GROUP = 64, LEAST_LOCAL = 16384, MOST_LOCAL = 49152 };
enum { NO_PLATFORM = -1001 }; // CL_PLATFORM_NOT_FOUND_KHR: of the loader, which finds no driver

const char *eq_cl_error(cl_int code)
{
    static const struct {
        cl_int code;
        const char *name;
    } names[] = {
        { -1, "CL_DEVICE_NOT_FOUND" },
        { -2, "CL_DEVICE_NOT_AVAILABLE" },
        { -3, "CL_COMPILER_NOT_AVAILABLE" },
        { -4, "CL_MEM_OBJECT_ALLOCATION_FAILURE" },
        { -5, "CL_OUT_OF_RESOURCES" },
        { -6, "CL_OUT_OF_HOST_MEMORY" },
        { -11, "CL_BUILD_PROGRAM_FAILURE" },
        { -12, "CL_MAP_FAILURE" },
        { -13, "CL_MISALIGNED_SUB_BUFFER_OFFSET" },
        { -14, "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST" },
        { -30, "CL_INVALID_VALUE" },
        { -32, "CL_INVALID_PLATFORM" },
        { -33, "CL_INVALID_DEVICE" },
        { -34, "CL_INVALID_CONTEXT" },
        { -36, "CL_INVALID_COMMAND_QUEUE" },
        { -38, "CL_INVALID_MEM_OBJECT" },
        { -42, "CL_INVALID_BINARY" },
        { -43, "CL_INVALID_BUILD_OPTIONS" },
        { -44, "CL_INVALID_PROGRAM" },
        { -45, "CL_INVALID_PROGRAM_EXECUTABLE" },
        { -46, "CL_INVALID_KERNEL_NAME" },
        { -48, "CL_INVALID_KERNEL" },
        { -49, "CL_INVALID_ARG_INDEX" },
        { -50, "CL_INVALID_ARG_VALUE" },
        { -51, "CL_INVALID_ARG_SIZE" },
        { -52, "CL_INVALID_KERNEL_ARGS" },
        { -53, "CL_INVALID_WORK_DIMENSION" },
        { -54, "CL_INVALID_WORK_GROUP_SIZE" },
        { -55, "CL_INVALID_WORK_ITEM_SIZE" },
        { -57, "CL_INVALID_EVENT_WAIT_LIST" },
        { -58, "CL_INVALID_EVENT" },
        { -59, "CL_INVALID_OPERATION" },
        { -61, "CL_INVALID_BUFFER_SIZE" },
        { -63, "CL_INVALID_GLOBAL_WORK_SIZE" },
        { -1001, "CL_PLATFORM_NOT_FOUND_KHR" },
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].code == code)
            return names[i].name;
    static _Thread_local char text[32];
    snprintf(text, sizeof text, "OpenCL error %d", code);
    return text;
}

void eq_keep_text(const char *text, char out[128])
{
    size_t length = 0;
    for (size_t bytes; *text; text += bytes, length += bytes) {
        const int valid = eq_utf8_bytes(text);
        bytes = valid ? (size_t)valid : 1;
        if (length + bytes > 127)
            break;
        memcpy(out + length, valid ? text : "?", bytes);
    }
    while (length > 0 && strchr(" \t\n\v\f\r", out[length - 1]))
        length--;
    out[length] = '\0';
}

static _Thread_local cl_int ask_error;

static void keep_ask_error(cl_int code)
{
    if (ask_error == CL_SUCCESS && code != CL_INVALID_VALUE)
        ask_error = code;
}

void eq_ask(cl_device_id id, cl_device_info what, size_t bytes, void *value)
{
    keep_ask_error(clGetDeviceInfo(id, what, bytes, value, NULL));
}

cl_int eq_ask_failed(void)
{
    const cl_int code = ask_error;
    ask_error = CL_SUCCESS;
    return code;
}

static void device_text(cl_device_id id, cl_device_info what, char out[128])
{
    char text[1024] = { 0 };
    eq_ask(id, what, sizeof text - 1, text);
    eq_keep_text(text, out);
}

void eq_platform_text(cl_platform_id id, cl_platform_info what, char out[128])
{
    char text[1024] = { 0 };
    keep_ask_error(clGetPlatformInfo(id, what, sizeof text - 1, text, NULL));
    eq_keep_text(text, out);
}

struct found {
    cl_platform_id platform[MAX_DEVICES];
    cl_device_id device[MAX_DEVICES];
    int num;
    cl_platform_id empty[MAX_PLATFORMS]; // platforms without a device
    int num_empty;
    cl_int error; // of the first platform, or of the loader, that does not say what it has; CL_SUCCESS: they all did
};

static void find_devices(struct found *found)
{
    cl_platform_id platforms[MAX_PLATFORMS];
    cl_uint num_platforms = 0;
    found->num = found->num_empty = 0;
    const cl_int code = clGetPlatformIDs(MAX_PLATFORMS, platforms, &num_platforms);
    found->error = code == NO_PLATFORM ? CL_SUCCESS : code;
    if (code != CL_SUCCESS)
        return;
    for (cl_uint p = 0; p < num_platforms && p < MAX_PLATFORMS; p++) {
        cl_device_id devices[MAX_DEVICES];
        cl_uint num = 0;
        const cl_int failed = clGetDeviceIDs(platforms[p], CL_DEVICE_TYPE_ALL, MAX_DEVICES, devices, &num);
        if (failed != CL_SUCCESS && failed != CL_DEVICE_NOT_FOUND && found->error == CL_SUCCESS)
            found->error = failed;
        if (failed != CL_SUCCESS || num == 0)
            found->empty[found->num_empty++] = platforms[p];
        if (failed != CL_SUCCESS)
            continue;
        for (cl_uint d = 0; d < num && found->num < MAX_DEVICES; d++) {
            found->platform[found->num] = platforms[p];
            found->device[found->num++] = devices[d];
        }
    }
}

// Returns why the driver does not tell all of it, or CL_SUCCESS.
static cl_int describe(cl_platform_id platform, cl_device_id id, struct eq_device_info *info)
{
    eq_ask_failed(); // of others
    cl_device_type type = EQ_DEVICE_VALUE(cl_device_type, id, CL_DEVICE_TYPE);
    eq_platform_text(platform, CL_PLATFORM_NAME, info->platform);
    eq_platform_text(platform, CL_PLATFORM_VERSION, info->platform_version);
    device_text(id, CL_DEVICE_NAME, info->name);
    device_text(id, CL_DEVICE_VENDOR, info->vendor);
    device_text(id, CL_DEVICE_VERSION, info->version);
    device_text(id, CL_DRIVER_VERSION, info->driver);
    snprintf(info->kind, sizeof info->kind, "%s",
             type & CL_DEVICE_TYPE_GPU           ? "gpu"
             : type & CL_DEVICE_TYPE_CPU         ? "cpu"
             : type & CL_DEVICE_TYPE_ACCELERATOR ? "accelerator"
                                                 : "other");
    const cl_uint units = EQ_DEVICE_VALUE(cl_uint, id, CL_DEVICE_MAX_COMPUTE_UNITS);
    info->compute_units = units > 0 ? (int)units : 1; // plans divide by it
    info->clock_mhz = (int)EQ_DEVICE_VALUE(cl_uint, id, CL_DEVICE_MAX_CLOCK_FREQUENCY);
    const struct eq_limits limits = eq_limits_read(id);
    info->memory_bytes = limits.memory_bytes;
    info->max_alloc_bytes = limits.max_alloc_bytes;
    info->local_bytes = limits.local_bytes;
    info->max_group = limits.max_group;
    info->vector_width = (int)EQ_DEVICE_VALUE(cl_uint, id, CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT);
    info->has_fma = (EQ_DEVICE_VALUE(cl_device_fp_config, id, CL_DEVICE_SINGLE_FP_CONFIG) & CL_FP_FMA) != 0;
    eq_pci_address(id, info->pci); // which may fail
    char groups[96], local[96];
    snprintf(groups, sizeof groups, "its work-groups hold %zu work-items; at least %d are needed", info->max_group,
             LEAST_GROUP);
    snprintf(local, sizeof local, "it has %zu bytes of local memory; at least %d are needed", info->local_bytes, LEAST_LOCAL);
    const bool is_old = eq_str_starts(info->version, "OpenCL 1.0") || eq_str_starts(info->version, "OpenCL 1.1");
    const char *reason = !EQ_DEVICE_VALUE(cl_bool, id, CL_DEVICE_AVAILABLE)            ? "the driver says it is not available"
                         : !EQ_DEVICE_VALUE(cl_bool, id, CL_DEVICE_COMPILER_AVAILABLE) ? "its driver has no compiler"
                         : is_old                                                      ? "its OpenCL is older than 1.2"
                         : !EQ_DEVICE_VALUE(cl_bool, id, CL_DEVICE_ENDIAN_LITTLE)      ? "it is big-endian"
                         : info->max_group < LEAST_GROUP                               ? groups
                         : info->local_bytes < LEAST_LOCAL                             ? local
                                                                                       : "";
    char silent[128];
    const cl_int code = eq_ask_failed();
    if (code != CL_SUCCESS) {
        snprintf(silent, sizeof silent, "its driver does not say what it is: %s", eq_cl_error(code));
        reason = silent;
    }
    info->is_usable = !*reason;
    snprintf(info->reason, sizeof info->reason, "%s", reason);
    return code;
}

static bool contains(const char *text, const char *part)
{
    size_t length = strlen(part);
    for (; *text; text++)
        if (strncasecmp(text, part, length) == 0)
            return true;
    return false;
}

static bool is_index(const char *selector)
{
    return *selector && strlen(selector) < 6 && strspn(selector, "0123456789") == strlen(selector);
}

static bool matches(const struct eq_device_info *info, const char *selector)
{
    if (is_index(selector))
        return info->index == atoi(selector);
    if (strcasecmp(selector, "gpu") == 0 || strcasecmp(selector, "cpu") == 0)
        return strcasecmp(info->kind, selector) == 0;
    if (!*selector)
        return false;
    // PoCL calls its platform by its full name. The rest of a version ("OpenCL 3.0 ...") is no name of anything.
    if (strcasecmp(selector, "pocl") == 0 && contains(info->platform_version, selector))
        return true;
    return contains(info->name, selector) || contains(info->platform, selector) || contains(info->vendor, selector);
}

enum { RANK_NONE, RANK_SIMULATOR, RANK_OTHER, RANK_CPU, RANK_GPU };

static int rank_of(const struct eq_device_info *info)
{
    return contains(info->platform, "oclgrind") ? RANK_SIMULATOR
           : strcmp(info->kind, "gpu") == 0     ? RANK_GPU
           : strcmp(info->kind, "cpu") == 0     ? RANK_CPU
                                                : RANK_OTHER;
}

// Why a usable device is, or is not, the chosen one, which has the rank `best`; no selector was given.
static const char *reason_of_rank(const struct eq_device_info *info, int best)
{
    static const char *const chosen[] = {
        [RANK_SIMULATOR] = "the first usable simulator, as nothing else is usable; no device was named",
        [RANK_OTHER] = "the first usable device, as no GPU or CPU is usable; no device was named",
        [RANK_CPU] = "the first usable CPU, as no GPU is usable; no device was named",
        [RANK_GPU] = "the first usable GPU; no device was named",
    };
    const int rank = rank_of(info);
    return info->is_chosen          ? chosen[best]
           : rank == best           ? "comes after the chosen one"
           : rank == RANK_SIMULATOR ? "it is a simulator: others are preferred"
           : best == RANK_GPU       ? "a GPU is preferred"
                                    : "a CPU is preferred";
}

void eq_device_choose(struct eq_device_info *infos, int num, const char *selector)
{
    int best = -1, best_rank = RANK_NONE;
    for (int i = 0; i < num; i++) {
        const int rank = !infos[i].is_usable ? RANK_NONE : selector ? matches(&infos[i], selector) : rank_of(&infos[i]);
        if (rank > best_rank) {
            best = i;
            best_rank = rank;
        }
    }
    for (int i = 0; i < num; i++) {
        if (!infos[i].is_usable)
            continue;
        infos[i].is_chosen = i == best;
        if (i == best && selector)
            snprintf(infos[i].reason, sizeof infos[i].reason, "the first usable device that matches '%.100s'", selector);
        else
            snprintf(infos[i].reason, sizeof infos[i].reason, "%s",
                     !selector                      ? reason_of_rank(&infos[i], best_rank)
                     : matches(&infos[i], selector) ? "comes after the chosen one"
                                                    : "does not match");
    }
}

static eq_status list_found(const char *selector, struct found *found, struct eq_device_info **infos)
{
    find_devices(found);
    EQ_ALLOC(*infos, found->num);
    for (int i = 0; i < found->num; i++) {
        describe(found->platform[i], found->device[i], &(*infos)[i]);
        (*infos)[i].index = i;
    }
    eq_device_choose(*infos, found->num, selector ? selector : eq_option(EQ_OPTION_DEVICE));
    return EQ_OK;
}

eq_status eq_device_list(const char *selector, struct eq_device_info **infos, int *num)
{
    struct found found;
    EQ_TRY(list_found(selector, &found, infos));
    *num = found.num;
    return EQ_OK;
}

void eq_device_list_free(struct eq_device_info **infos)
{
    free(*infos);
    *infos = NULL;
}

struct eq_target eq_target_default(void)
{
    return (struct eq_target){ .family = EQ_FAMILY_VECTOR,
                               .block = 16,
                               .compute_units = 2,
                               .max_group = 256,
                               .local_bytes = 32768,
                               .max_sums = 64,
                               .max_alloc_bytes = (size_t)1 << 40,
                               .memory_bytes = (size_t)1 << 40,
                               .cache_bytes = (size_t)32 << 20,
                               .stream_bytes = (size_t)16 << 20,
                               .has_fma = true,
                               .use_winograd = true };
}

// Half of the last cache: of a larger result little would be left there when it is read. CE-ResNet-50, 16 images, 32 MiB of
// cache: 5 % more images/s in inference than without, 2 % in training.
static size_t stream_bytes(size_t cache_bytes)
{
    return cache_bytes > 0 ? cache_bytes / 2 : SIZE_MAX;
}

// rusticl (Mesa 22) counts what a kernel has twice.
static size_t local_to_plan(const struct eq_device_info *info)
{
    const size_t bytes = strcmp(info->platform, "rusticl") == 0 ? info->local_bytes / 2 : info->local_bytes;
    return bytes < MOST_LOCAL ? bytes : MOST_LOCAL;
}

static eq_status check_switch(enum eq_option option)
{
    const char *value = eq_option(option);
    EQ_REQUIRE(!value || strcmp(value, "0") == 0 || strcmp(value, "1") == 0, EQ_ERR_ARGUMENT, "%s is '%s': it must be 0 or 1",
               eq_option_variable(option), value);
    return EQ_OK;
}

static eq_status make_target(const struct eq_device_info *info, cl_device_id id, enum eq_kind kind, struct eq_target *target)
{
    const char *family = eq_option(EQ_OPTION_CONV);
    EQ_REQUIRE(!family || strcmp(family, "vector") == 0 || strcmp(family, "simt") == 0, EQ_ERR_ARGUMENT,
               "%s is '%s': it must be vector or simt", eq_option_variable(EQ_OPTION_CONV), family);
    const char *winograd = eq_option(EQ_OPTION_WINOGRAD);
    EQ_TRY(check_switch(EQ_OPTION_WINOGRAD));
    bool is_vector = family ? strcmp(family, "vector") == 0 : kind == EQ_KIND_CPU;
    const size_t cache =
        is_vector && kind == EQ_KIND_CPU ? (size_t)EQ_DEVICE_VALUE(cl_ulong, id, CL_DEVICE_GLOBAL_MEM_CACHE_SIZE) : 0;
    *target = (struct eq_target){
        .family = is_vector ? EQ_FAMILY_VECTOR : EQ_FAMILY_SIMT,
        // The kernels for GPUs are written for 16.
        .block = !is_vector || kind != EQ_KIND_CPU || info->vector_width >= 16 ? 16
                 : info->vector_width >= 8                                     ? 8
                                                                               : 4,
        .compute_units = info->compute_units,
        .max_group = info->max_group < 256 ? info->max_group : 256,
        .local_bytes = local_to_plan(info),
        // Intel's have 128 registers of 32 bytes for 16 work-items: 64 sums would not leave any.
        .max_sums = contains(info->vendor, "Intel") ? 32 : 64,
        .max_alloc_bytes = info->max_alloc_bytes,
        .memory_bytes = info->memory_bytes,
        .cache_bytes = cache,
        .stream_bytes = stream_bytes(cache),
        .has_fma = info->has_fma,
        .can_limit_registers = contains(info->platform, "NVIDIA"),
        .has_real_local = EQ_DEVICE_VALUE(cl_device_local_mem_type, id, CL_DEVICE_LOCAL_MEM_TYPE) == CL_LOCAL,
        // Mesa's llvmpipe ends a work-item's loops after 65535 rounds, too few for a processor's Winograd of 512 channels.
        .use_winograd = winograd ? strcmp(winograd, "1") == 0 : !(is_vector && contains(info->name, "llvmpipe")),
    };
    return EQ_OK;
}

// What the device is. Its context and its queue are still to come.
static eq_status identify(struct eq_device *device, cl_platform_id platform, cl_device_id id, const struct eq_device_info *info)
{
    device->platform = platform;
    device->id = id;
    device->limits = eq_limits_read(id);
    device->kind = strcmp(info->kind, "cpu") == 0 ? EQ_KIND_CPU : strcmp(info->kind, "gpu") == 0 ? EQ_KIND_GPU : EQ_KIND_OTHER;
    memcpy(device->name, info->name, sizeof device->name);
    memcpy(device->vendor, info->vendor, sizeof device->vendor);
    memcpy(device->driver, info->driver, sizeof device->driver);
    memcpy(device->version, info->version, sizeof device->version);
    memcpy(device->platform_name, info->platform, sizeof device->platform_name);
    memcpy(device->platform_version, info->platform_version, sizeof device->platform_version);
    EQ_TRY(make_target(info, device->id, device->kind, &device->target));
    EQ_CL(eq_ask_failed(), "asking the device what it is");
    return EQ_OK;
}

static eq_status make_queue(struct eq_device *device)
{
    cl_int code;
    device->queue = clCreateCommandQueue(device->context, device->id, 0, &code);
    device->is_own_queue = true;
    EQ_REQUIRE(code == CL_SUCCESS, EQ_ERR_DEVICE, "%s: cannot make a queue: %s", device->name, eq_cl_error(code));
    return EQ_OK;
}

static eq_status read_options(struct eq_device *device)
{
    EQ_TRY(check_switch(EQ_OPTION_CACHE));
    EQ_TRY(eq_cache_limit(&device->max_kept_bytes));
    EQ_TRY(eq_device_open_tuning(device));
    return eq_device_open_precision(device);
}

static eq_status open_context(struct eq_device *device)
{
    cl_context_properties properties[] = { CL_CONTEXT_PLATFORM, (cl_context_properties)device->platform, 0 };
    cl_int code;
    device->context = clCreateContext(properties, 1, &device->id, NULL, NULL, &code);
    EQ_REQUIRE(code == CL_SUCCESS, EQ_ERR_DEVICE, "%s: cannot make a context: %s", device->name, eq_cl_error(code));
    EQ_TRY(make_queue(device));
    return read_options(device);
}

static eq_status open_found(const struct found *found, const struct eq_device_info *info, struct eq_device **device)
{
    EQ_ALLOC(*device, 1);
    EQ_TRY(identify(*device, found->platform[info->index], found->device[info->index], info));
    return open_context(*device);
}

// The drivers are there: installing them is no help.
static eq_status no_device_of_platforms(const struct found *found)
{
    struct eq_str text = { 0 };
    for (int i = 0; i < found->num_empty; i++) {
        char name[128];
        eq_platform_text(found->empty[i], CL_PLATFORM_NAME, name);
        eq_str_append(&text, "%s%s", i ? ", " : "", name);
    }
    EQ_REQUIRE(!text.failed, EQ_ERR_HOST_MEMORY, "out of memory: the list of platforms");
    eq_status status =
        eq_fail(EQ_ERR_DEVICE, "no OpenCL device: %d platform%s without one, %s%s%s; 'equil doctor' looks for the reason",
                found->num_empty, found->num_empty == 1 ? "" : "s", text.text, found->error != CL_SUCCESS ? ": " : "",
                found->error != CL_SUCCESS ? eq_cl_error(found->error) : "");
    eq_str_free(&text);
    return status;
}

static eq_status no_device(const char *selector, bool is_variable, const struct eq_device_info *infos,
                           const struct found *found)
{
    const int num = found->num;
    if (num == 0 && found->num_empty > 0)
        return no_device_of_platforms(found);
    if (num == 0 && found->error != CL_SUCCESS)
        return eq_fail(EQ_ERR_DEVICE, "no OpenCL device: asking the drivers for theirs: %s", eq_cl_error(found->error));
    if (num == 0)
        return eq_fail(EQ_ERR_DEVICE, "no OpenCL device: install a driver, such as pocl-opencl-icd for the processor");
    struct eq_str text = { 0 };
    for (int i = 0; i < num; i++)
        eq_str_append(&text, "%s%d: %s (%s)%s%s", i ? "; " : "", i, infos[i].name, infos[i].platform,
                      infos[i].is_usable ? "" : ": ", infos[i].is_usable ? "" : infos[i].reason);
    if (found->error != CL_SUCCESS)
        eq_str_append(&text, "; a driver does not say what it has: %s", eq_cl_error(found->error));
    EQ_REQUIRE(!text.failed, EQ_ERR_HOST_MEMORY, "out of memory: the list of devices");
    eq_status status =
        selector ? eq_fail(EQ_ERR_DEVICE, "no usable device matches '%s'%s%s; there are: %s", selector,
                           is_variable ? ", of " : "", is_variable ? eq_option_variable(EQ_OPTION_DEVICE) : "", text.text)
                 : eq_fail(EQ_ERR_DEVICE, "no usable device; there are: %s", text.text);
    eq_str_free(&text);
    return status;
}

bool eq_device_is_wanted(void)
{
    return eq_option(EQ_OPTION_DEVICE) || eq_option(EQ_OPTION_PRECISION);
}

eq_status eq_device_open(const char *selector, struct eq_device **device)
{
    struct found found;
    struct eq_device_info *infos = NULL;
    int chosen = -1;
    *device = NULL;
    const bool is_variable = !selector;
    selector = selector ? selector : eq_option(EQ_OPTION_DEVICE);
    EQ_TRY(list_found(selector, &found, &infos));
    for (int i = 0; i < found.num; i++)
        if (infos[i].is_chosen)
            chosen = i;
    eq_status status =
        chosen < 0 ? no_device(selector, is_variable, infos, &found) : open_found(&found, &infos[chosen], device);
    free(infos);
    if (status != EQ_OK)
        eq_device_destroy(device);
    return status;
}

// ---- a caller's context and queue

static eq_status context_device(const struct eq_opencl_params *params, cl_device_id *id)
{
    cl_device_id ids[MAX_DEVICES];
    size_t bytes = 0;
    EQ_CL(clGetContextInfo(params->context, CL_CONTEXT_DEVICES, sizeof ids, ids, &bytes), "asking the context for its devices");
    const size_t num = bytes / sizeof *ids;
    EQ_REQUIRE(params->device || num == 1, EQ_ERR_ARGUMENT, "the context has %zu devices: which one is not said", num);
    *id = params->device ? params->device : ids[0];
    for (size_t i = 0; i < num; i++)
        if (ids[i] == *id)
            return EQ_OK;
    return eq_fail(EQ_ERR_ARGUMENT, "the device is not one of the context's %zu", num);
}

static eq_status adopt_queue(struct eq_device *device, cl_command_queue queue)
{
    cl_context context = NULL;
    cl_device_id id = NULL;
    cl_command_queue_properties properties = 0;
    EQ_CL(clGetCommandQueueInfo(queue, CL_QUEUE_CONTEXT, sizeof context, (void *)&context, NULL), "asking the queue");
    EQ_CL(clGetCommandQueueInfo(queue, CL_QUEUE_DEVICE, sizeof id, (void *)&id, NULL), "asking the queue");
    EQ_CL(clGetCommandQueueInfo(queue, CL_QUEUE_PROPERTIES, sizeof properties, &properties, NULL), "asking the queue");
    EQ_REQUIRE(context == device->context && id == device->id, EQ_ERR_ARGUMENT, "the queue belongs to another %s",
               context == device->context ? "device" : "context");
    EQ_CL(clRetainCommandQueue(queue), "keeping the queue");
    device->queue = queue;
    device->is_out_of_order = (properties & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE) != 0;
    return EQ_OK;
}

static eq_status adopt(const struct eq_opencl_params *params, struct eq_device *device)
{
    struct eq_device_info info = { .index = 0 };
    cl_device_id id = NULL;
    EQ_REQUIRE(params->context, EQ_ERR_ARGUMENT, "no context was given");
    EQ_TRY(context_device(params, &id));
    cl_platform_id platform = EQ_DEVICE_VALUE(cl_platform_id, id, CL_DEVICE_PLATFORM);
    EQ_CL(describe(platform, id, &info), "asking the device what it is");
    EQ_REQUIRE(info.is_usable, EQ_ERR_UNSUPPORTED, "%s cannot be used: %s", info.name, info.reason);
    EQ_TRY(identify(device, platform, id, &info));
    EQ_CL(clRetainContext(params->context), "keeping the context");
    device->context = params->context;
    EQ_TRY(params->queue ? adopt_queue(device, params->queue) : make_queue(device));
    return read_options(device);
}

eq_status eq_device_adopt(const struct eq_opencl_params *params, struct eq_device **device)
{
    *device = NULL;
    EQ_REQUIRE(params, EQ_ERR_ARGUMENT, "no parameters: a context and its queue are wanted");
    EQ_ALLOC(*device, 1);
    eq_status status = adopt(params, *device);
    if (status != EQ_OK)
        eq_device_destroy(device);
    return status;
}

void eq_device_destroy(struct eq_device **device)
{
    if (!*device)
        return;
    eq_gemm_forget(*device);
    eq_programs_destroy(&(*device)->programs);
    eq_ahead_destroy(&(*device)->ahead);
    eq_device_close_tuning(*device);
    if ((*device)->last)
        clReleaseEvent((*device)->last);
    if ((*device)->before)
        clReleaseEvent((*device)->before);
    if ((*device)->queue)
        clReleaseCommandQueue((*device)->queue);
    if ((*device)->context)
        clReleaseContext((*device)->context);
    free(*device);
    *device = NULL;
}

const char *eq_device_name(const struct eq_device *device)
{
    return device->name;
}

const char *eq_device_driver(const struct eq_device *device)
{
    return device->driver;
}

size_t eq_device_peak_bytes(const struct eq_device *device)
{
    return device->bytes_peak;
}

// What devices allow, read from the driver or imposed by a test.
#include <string.h>

#include "rt/internal.h"

// Half a second on a GPU of 60 GFLOP/s, which is a slow one. Watchdogs stop kernels after 2 s (Windows), a few seconds (i915,
// NVIDIA's with a display) or never.
static const double LAUNCH_FLOPS = 3e10;

// NVIDIA's driver hangs, or loses its context, in fills of 2 GiB (pyopencl's issue 395); and in those that reach beyond 8 GiB
// of a buffer (seen with 580.159 on an H100).
static const size_t FILL_BYTES = (size_t)1 << 30;

// NVIDIA's GPUs take no more (CUDA's limit of a grid in y and z), and no query of OpenCL tells. Those of others take more, and
// pieces as large as these cost nothing.
static const size_t MAX_GROUPS = 65535;

static struct eq_limits imposed; // 0: nothing

static size_t least(size_t limit, size_t other)
{
    return other && other < limit ? other : limit;
}

struct eq_limits eq_limits_read(cl_device_id id)
{
    size_t items[16] = { 0 };
    eq_ask(id, CL_DEVICE_MAX_WORK_ITEM_SIZES, sizeof items, items);
    const bool is_cpu = EQ_DEVICE_VALUE(cl_device_type, id, CL_DEVICE_TYPE) & CL_DEVICE_TYPE_CPU;
    struct eq_limits limits = {
        .max_group = least(EQ_DEVICE_VALUE(size_t, id, CL_DEVICE_MAX_WORK_GROUP_SIZE), imposed.max_group),
        .local_bytes = least((size_t)EQ_DEVICE_VALUE(cl_ulong, id, CL_DEVICE_LOCAL_MEM_SIZE), imposed.local_bytes),
        .max_alloc_bytes = least((size_t)EQ_DEVICE_VALUE(cl_ulong, id, CL_DEVICE_MAX_MEM_ALLOC_SIZE), imposed.max_alloc_bytes),
        .memory_bytes = least((size_t)EQ_DEVICE_VALUE(cl_ulong, id, CL_DEVICE_GLOBAL_MEM_SIZE), imposed.memory_bytes),
        .fill_bytes = least(FILL_BYTES, imposed.fill_bytes),
        .origin_bytes = EQ_DEVICE_VALUE(cl_uint, id, CL_DEVICE_MEM_BASE_ADDR_ALIGN) / 8,
        .max_groups = least(is_cpu ? SIZE_MAX : MAX_GROUPS, imposed.max_groups),
        .launch_flops = is_cpu ? 0 : LAUNCH_FLOPS,
    };
    for (int d = 0; d < 3; d++)
        limits.max_items[d] = least(items[d], imposed.max_items[d]);
    if (imposed.launch_flops > 0)
        limits.launch_flops = imposed.launch_flops;
    return limits;
}

void eq_limits_impose(const struct eq_limits *limits)
{
    imposed = *limits;
}

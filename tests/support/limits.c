// Every test program has this file whole (meson.build): it imposes the limits before main().
#include "limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIB(n) ((size_t)(n) << 10)
#define MIB(n) ((size_t)(n) << 20)
#define GIB(n) ((size_t)(n) << 30)

// As the drivers declare them. launch_flops are far below what the library has, so that small cases are cut.
static const struct {
    const char *name;
    struct eq_limits limits;
} devices[] = {
    // The least that OpenCL 1.2 lets a GPU of the full profile have: memory 128 MiB in a buffer, 32 KiB local; here half of
    // that, as embedded ones have, and the smallest work-groups that Equil takes.
    { "small",
      { .max_group = 64,
        .max_items = { 64, 64, 64 },
        .local_bytes = KIB(16),
        .max_alloc_bytes = MIB(128),
        .memory_bytes = MIB(512),
        .fill_bytes = KIB(4),
        .launch_flops = 1e5 } },
    // Arc and other Xe: 64 KiB of local memory, at most 4 GiB in a buffer.
    { "intel",
      { .max_group = 1024,
        .max_items = { 1024, 1024, 1024 },
        .local_bytes = KIB(64),
        .max_alloc_bytes = GIB(4),
        .memory_bytes = GIB(16),
        .launch_flops = 1e6 } },
    // RDNA by ROCm: work-groups of 256 unless a kernel asks for more.
    { "amd",
      { .max_group = 256,
        .max_items = { 1024, 1024, 1024 },
        .local_bytes = KIB(64),
        .max_alloc_bytes = GIB(4),
        .memory_bytes = GIB(8),
        .launch_flops = 1e6 } },
    // Any GPU: 48 KiB of local memory, a quarter of the memory in a buffer, 64 work-items in the last dimension.
    { "nvidia",
      { .max_group = 1024,
        .max_items = { 1024, 1024, 64 },
        .local_bytes = KIB(48),
        .max_alloc_bytes = GIB(2),
        .memory_bytes = GIB(8),
        .max_groups = 65535,
        .launch_flops = 1e6 } },
};

static const struct eq_limits *imposed;

const struct eq_limits *eq_test_limits(void)
{
    return imposed;
}

__attribute__((constructor)) static void impose(void)
{
    const char *name = getenv("EQUIL_TEST_LIMITS");
    if (!name)
        return;
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++)
        if (strcmp(devices[i].name, name) == 0)
            imposed = &devices[i].limits;
    if (!imposed) {
        printf("Bail out! EQUIL_TEST_LIMITS is '%s': there are no such limits\n", name);
        exit(EXIT_FAILURE);
    }
    eq_limits_impose(imposed);
}

// Compiling ahead: kernels that lists noted instead of creating them, each once, compiled by number in any order.
//
// PoCL generates machine code when a kernel first runs, for its local size and for whether a dimension is long. So there every
// noted kernel runs, on the memory it was meant for, with as few work-groups as give the same code. Elsewhere building the
// program is all, and buffers have no memory.
#include <stdlib.h>
#include <string.h>

#include "rt/internal.h"

// From this length of a dimension on PoCL's code is another.
enum { LONG_DIMENSION = 65535 };

struct item {
    struct eq_launch launch; // its options are the item's
    struct eq_arg *args;
    int num_args; // 0: a matrix product
    struct eq_gemm gemm;
    struct eq_ref a, b, c;
};

struct eq_ahead {
    struct item *items;
    int num, capacity;
    bool is_noting; // false while an item is compiled
};

eq_status eq_device_note(struct eq_device *device)
{
    EQ_ALLOC(device->ahead, 1);
    device->ahead->is_noting = true;
    return EQ_OK;
}

void eq_ahead_destroy(struct eq_ahead **ahead)
{
    if (!*ahead)
        return;
    for (int i = 0; i < (*ahead)->num; i++) {
        free((char *)(*ahead)->items[i].launch.options);
        free((*ahead)->items[i].args);
    }
    free((*ahead)->items);
    free(*ahead);
    *ahead = NULL;
}

bool eq_ahead_is_noting(const struct eq_device *device)
{
    return device->ahead && device->ahead->is_noting;
}

bool eq_ahead_has_memory(const struct eq_device *device)
{
    return !device->ahead || eq_driver_compiles_late(device);
}

int eq_device_num_noted(const struct eq_device *device)
{
    return device->ahead->num;
}

// The fewest work-groups of the dimension that PoCL compiles like all of them.
static size_t short_length(size_t global, size_t local)
{
    return global < LONG_DIMENSION ? local : (LONG_DIMENSION + local - 1) / local * local;
}

static struct eq_range short_range(const struct eq_range *range)
{
    struct eq_range result = *range;
    for (int d = 0; d < range->dims; d++)
        result.global[d] = short_length(range->global[d], range->local[d]);
    return result;
}

static bool same_range(const struct eq_range *a, const struct eq_range *b)
{
    return a->dims == b->dims && memcmp(a->global, b->global, sizeof a->global) == 0 &&
           memcmp(a->local, b->local, sizeof a->local) == 0;
}

static bool same_code(const struct item *item, const struct eq_launch *launch, const struct eq_range *range)
{
    return item->num_args > 0 && strcmp(item->launch.kernel, launch->kernel) == 0 &&
           strcmp(item->launch.source, launch->source) == 0 &&
           strcmp(item->launch.options, launch->options ? launch->options : "") == 0 && same_range(&item->launch.range, range);
}

static eq_status reserve(struct eq_ahead *ahead)
{
    if (ahead->num < ahead->capacity)
        return EQ_OK;
    int capacity = ahead->capacity ? 2 * ahead->capacity : 64;
    struct item *items = realloc(ahead->items, (size_t)capacity * sizeof *items);
    EQ_REQUIRE(items, EQ_ERR_HOST_MEMORY, "out of memory: a list of %d kernels", capacity);
    ahead->items = items;
    ahead->capacity = capacity;
    return EQ_OK;
}

eq_status eq_ahead_kernel(struct eq_device *device, const struct eq_launch *launch, const struct eq_arg *args, int num_args)
{
    struct eq_ahead *ahead = device->ahead;
    const struct eq_range range = short_range(&launch->range);
    for (int i = 0; i < ahead->num; i++)
        if (same_code(&ahead->items[i], launch, &range))
            return EQ_OK;
    EQ_TRY(reserve(ahead));
    struct item item = { .launch = *launch, .num_args = num_args };
    item.launch.range = range;
    item.launch.options = eq_strdup(launch->options ? launch->options : "");
    item.args = eq_malloc((size_t)num_args, sizeof *args);
    if (!item.launch.options || !item.args) {
        free((char *)item.launch.options);
        free(item.args);
        return EQ_ERR_HOST_MEMORY;
    }
    memcpy(item.args, args, (size_t)num_args * sizeof *args);
    ahead->items[ahead->num++] = item;
    return EQ_OK;
}

eq_status eq_ahead_gemm(struct eq_device *device, const struct eq_gemm *gemm, struct eq_ref a, struct eq_ref b, struct eq_ref c)
{
    if (!eq_ahead_has_memory(device))
        return EQ_OK; // CLBlast keeps programs for its process only
    EQ_TRY(reserve(device->ahead));
    device->ahead->items[device->ahead->num++] = (struct item){ .gemm = *gemm, .a = a, .b = b, .c = c };
    return EQ_OK;
}

eq_status eq_device_num_kept(const struct eq_device *device, int *num)
{
    const struct eq_ahead *ahead = device->ahead;
    *num = 0;
    for (int i = 0; i < ahead->num; i++) {
        const struct item *item = &ahead->items[i];
        bool is_kept = true;
        if (item->num_args)
            EQ_TRY(eq_program_is_kept(device, item->launch.source, item->launch.options, &is_kept));
        *num += is_kept;
    }
    return EQ_OK;
}

eq_status eq_device_compile_noted(struct eq_device *device, int index)
{
    struct item *item = &device->ahead->items[index];
    struct eq_list *list;
    EQ_TRY(eq_list_create(device, &list));
    device->ahead->is_noting = false;
    eq_status status = item->num_args ? eq_list_kernel(list, &item->launch, item->args, item->num_args)
                                      : eq_list_gemm(list, &item->gemm, item->a, item->b, item->c);
    if (status == EQ_OK && eq_ahead_has_memory(device))
        status = eq_list_run(list);
    eq_list_destroy(&list); // waits
    device->ahead->is_noting = true;
    return status;
}

// Command lists: steps with everything set, run by one enqueue each.
#include <stdlib.h>
#include <string.h>

#include "rt/internal.h"

enum step_kind { STEP_KERNEL, STEP_FILL, STEP_COPY, STEP_GEMM };

struct step {
    enum step_kind kind;
    char *label;
    const char *name; // of the kernel
    struct eq_cost cost;
    cl_kernel kernel; // STEP_KERNEL
    struct eq_arg *args;
    int num_args;
    bool is_preparation;
    bool is_repeat;
    bool is_torn; // setting its arguments anew failed: they may name memory that is gone
    struct eq_range range;
    int cut_dim; // dimension of which an enqueue has at most `piece` work-items
    size_t piece;
    struct eq_ref a, b, c; // fill: a; copy: a to b; gemm: all
    size_t elems;
    float value;
    struct eq_gemm gemm;
};

struct eq_list {
    struct eq_device *device;
    struct step *steps;
    int num, capacity;
    char label[96];
    bool repeats;
    struct eq_buffer *workspace; // of CLBlast; shared by all products, since the queue is in order
};

struct eq_range eq_range_1d(size_t global, size_t local)
{
    return eq_range_3d((size_t[3]){ global, 1, 1 }, (size_t[3]){ local, 1, 1 });
}

struct eq_range eq_range_2d(size_t global0, size_t global1, size_t local0, size_t local1)
{
    return eq_range_3d((size_t[3]){ global0, global1, 1 }, (size_t[3]){ local0, local1, 1 });
}

struct eq_range eq_range_3d(const size_t global[3], const size_t local[3])
{
    struct eq_range range = { .dims = 3 };
    for (int d = 0; d < 3; d++) {
        range.local[d] = local[d];
        range.global[d] = (global[d] + local[d] - 1) / local[d] * local[d];
    }
    return range;
}

eq_status eq_list_create(struct eq_device *device, struct eq_list **list)
{
    EQ_ALLOC(*list, 1);
    (*list)->device = device;
    return EQ_OK;
}

void eq_list_destroy(struct eq_list **list)
{
    if (!*list)
        return;
    if ((*list)->num)
        eq_device_settle((*list)->device); // kernels may still run
    for (int i = 0; i < (*list)->num; i++) {
        if ((*list)->steps[i].kernel)
            clReleaseKernel((*list)->steps[i].kernel);
        free((*list)->steps[i].label);
        free((*list)->steps[i].args);
    }
    eq_buffer_destroy(&(*list)->workspace);
    free((*list)->steps);
    free(*list);
    *list = NULL;
}

struct eq_device *eq_list_device(const struct eq_list *list)
{
    return list->device;
}

const struct eq_target *eq_list_target(const struct eq_list *list)
{
    return &list->device->target;
}

int eq_list_length(const struct eq_list *list)
{
    return list->num;
}

int eq_list_num_preparing(const struct eq_list *list)
{
    int num = 0;
    while (num < list->num && list->steps[num].is_preparation)
        num++;
    return num;
}

eq_status eq_list_label(struct eq_list *list, const char *label)
{
    snprintf(list->label, sizeof list->label, "%s", label);
    return EQ_OK;
}

void eq_list_repeat(struct eq_list *list, bool repeats)
{
    list->repeats = repeats;
}

static eq_status append(struct eq_list *list, const struct step *step)
{
    if (list->num == list->capacity) {
        int capacity = list->capacity ? 2 * list->capacity : 64;
        struct step *steps = realloc(list->steps, (size_t)capacity * sizeof *steps);
        EQ_REQUIRE(steps, EQ_ERR_HOST_MEMORY, "out of memory: a list of %d steps", capacity);
        list->steps = steps;
        list->capacity = capacity;
    }
    char *label = eq_strdup(list->label);
    if (!label)
        return EQ_ERR_HOST_MEMORY;
    list->steps[list->num] = *step;
    list->steps[list->num].is_repeat = list->repeats;
    list->steps[list->num++].label = label;
    return EQ_OK;
}

static eq_status set_args(cl_kernel kernel, const char *name, const struct eq_arg *args, int num_args)
{
    cl_uint at = 0, wanted = 0, given = 0;
    for (int i = 0; i < num_args; i++)
        given += args[i].kind == EQ_ARG_REF ? 2 : 1;
    EQ_CL(clGetKernelInfo(kernel, CL_KERNEL_NUM_ARGS, sizeof wanted, &wanted, NULL), name);
    EQ_REQUIRE(given == wanted, EQ_ERR_ARGUMENT, "kernel %s takes %u arguments (a buffer counts as 2), %u were given", name,
               wanted, given);
    for (int i = 0; i < num_args; i++) {
        if (args[i].kind == EQ_ARG_REF) {
            cl_mem mem = args[i].ref.buffer ? args[i].ref.buffer->mem : NULL;
            cl_ulong offset = mem ? args[i].ref.at + args[i].ref.buffer->base : 0;
            EQ_CL(clSetKernelArg(kernel, at++, sizeof mem, mem ? &mem : NULL), name);
            EQ_CL(clSetKernelArg(kernel, at++, sizeof offset, &offset), name);
        } else if (args[i].kind == EQ_ARG_I32) {
            EQ_CL(clSetKernelArg(kernel, at++, sizeof(cl_int), &args[i].i32), name);
        } else {
            EQ_CL(clSetKernelArg(kernel, at++, sizeof(cl_float), &args[i].f32), name);
        }
    }
    return EQ_OK;
}

// Of a work-group of the kernel, in the smaller of two numbers: the kernel's, which may need more registers than the largest
// work-group has, and the device's.
static eq_status largest_group(const struct eq_device *device, cl_kernel kernel, const char *name, size_t *items)
{
    size_t limit = 0;
    EQ_CL(clGetKernelWorkGroupInfo(kernel, device->id, CL_KERNEL_WORK_GROUP_SIZE, sizeof limit, &limit, NULL), name);
    // rusticl (Mesa 22) answers 32, its subgroup, for every kernel and runs as many as the device allows.
    const bool is_wrong = strcmp(device->platform_name, "rusticl") == 0;
    *items = !is_wrong && limit < device->limits.max_group ? limit : device->limits.max_group;
    return EQ_OK;
}

static eq_status check_local(const struct eq_device *device, cl_kernel kernel, const char *name)
{
    cl_ulong bytes = 0;
    EQ_CL(clGetKernelWorkGroupInfo(kernel, device->id, CL_KERNEL_LOCAL_MEM_SIZE, sizeof bytes, &bytes, NULL), name);
    EQ_REQUIRE(bytes <= device->limits.local_bytes, EQ_ERR_UNSUPPORTED,
               "kernel %s wants %zu bytes of local memory; %s has %zu", name, (size_t)bytes, device->name,
               device->limits.local_bytes);
    return EQ_OK;
}

static eq_status check_range(const struct eq_list *list, cl_kernel kernel, const struct eq_launch *launch)
{
    const struct eq_device *device = list->device;
    const struct eq_range *range = &launch->range;
    size_t limit = 0, items = 1;
    EQ_TRY(largest_group(device, kernel, launch->kernel, &limit));
    for (int d = 0; d < range->dims; d++) {
        EQ_REQUIRE(range->local[d] > 0 && range->global[d] > 0 && range->global[d] % range->local[d] == 0, EQ_ERR_ARGUMENT,
                   "kernel %s: global size %zu, local size %zu in dimension %d", launch->kernel, range->global[d],
                   range->local[d], d);
        EQ_REQUIRE(range->local[d] <= device->limits.max_items[d], EQ_ERR_UNSUPPORTED,
                   "kernel %s wants work-groups of %zu work-items in dimension %d; %s allows %zu", launch->kernel,
                   range->local[d], d, device->name, device->limits.max_items[d]);
        EQ_REQUIRE(d == 0 || d == launch->cut - 1 || range->global[d] / range->local[d] <= device->limits.max_groups,
                   EQ_ERR_UNSUPPORTED, "kernel %s wants %zu work-groups in dimension %d; %s allows %zu", launch->kernel,
                   range->global[d] / range->local[d], d, device->name, device->limits.max_groups);
        items *= range->local[d];
    }
    EQ_REQUIRE(items <= limit, EQ_ERR_UNSUPPORTED, "kernel %s wants work-groups of %zu work-items; %s allows %zu",
               launch->kernel, items, device->name, limit);
    return check_local(device, kernel, launch->kernel);
}

static eq_status keep_args(struct step *step, const struct eq_arg *args, int num_args)
{
    step->args = eq_malloc((size_t)num_args, sizeof *args);
    if (!step->args)
        return EQ_ERR_HOST_MEMORY;
    memcpy(step->args, args, (size_t)num_args * sizeof *args);
    step->num_args = num_args;
    return EQ_OK;
}

static bool uses(const struct step *step, const struct eq_buffer *buffer)
{
    for (int i = 0; i < step->num_args; i++)
        if (step->args[i].kind == EQ_ARG_REF && step->args[i].ref.buffer == buffer)
            return true;
    return false;
}

eq_status eq_list_rebind(struct eq_list *list, const struct eq_buffer *buffer)
{
    for (int i = 0; i < list->num; i++)
        list->steps[i].is_torn |= uses(&list->steps[i], buffer);
    for (int i = 0; i < list->num; i++) {
        struct step *step = &list->steps[i];
        if (!uses(step, buffer))
            continue;
        EQ_TRY(set_args(step->kernel, step->name, step->args, step->num_args));
        step->is_torn = false;
    }
    return EQ_OK;
}

// Work-items of dimension `dim` in an enqueue, so that it stays within the device's work-groups and arithmetic: whole
// work-groups, one at least.
static size_t piece_length(const struct eq_device *device, const struct eq_launch *launch, int dim)
{
    const size_t local = launch->range.local[dim], all = launch->range.global[dim] / local;
    const double limit = device->limits.launch_flops;
    size_t groups = all;
    if (launch->cut && limit > 0 && launch->cost.flops > limit)
        groups = (size_t)((double)all * limit / launch->cost.flops);
    if (launch->cut && dim > 0 && groups > device->limits.max_groups)
        groups = device->limits.max_groups;
    return local * (groups < 1 ? 1 : groups);
}

eq_status eq_list_kernel(struct eq_list *list, const struct eq_launch *launch, const struct eq_arg *args, int num_args)
{
    if (eq_ahead_is_noting(list->device))
        return eq_ahead_kernel(list->device, launch, args, num_args);
    const int cut_dim = launch->cut ? launch->cut - 1 : 0;
    struct step step = { .kind = STEP_KERNEL, .name = launch->kernel, .cost = launch->cost, .range = launch->range,
                         .cut_dim = cut_dim, .is_preparation = launch->is_preparation };
    EQ_TRY(eq_kernel_create(list->device, launch->source, launch->options, launch->kernel, &step.kernel));
    eq_status status;
    EQ_TRY_FAIL(check_range(list, step.kernel, launch));
    step.piece = piece_length(list->device, launch, cut_dim);
    EQ_TRY_FAIL(set_args(step.kernel, launch->kernel, args, num_args));
    EQ_TRY_FAIL(keep_args(&step, args, num_args));
    EQ_TRY_FAIL(append(list, &step));
    return EQ_OK;

fail:
    free(step.args);
    clReleaseKernel(step.kernel);
    return status;
}

eq_status eq_list_fill(struct eq_list *list, struct eq_ref dst, float value, size_t elems)
{
    return append(list, &(struct step){ .kind = STEP_FILL, .name = "fill", .a = dst, .value = value, .elems = elems,
                                        .cost = { 0, 4.0 * (double)elems } });
}

eq_status eq_list_copy(struct eq_list *list, struct eq_ref src, struct eq_ref dst, size_t elems)
{
    return append(list, &(struct step){ .kind = STEP_COPY, .name = "copy", .a = src, .b = dst, .elems = elems,
                                        .cost = { 0, 8.0 * (double)elems } });
}

eq_status eq_list_gemm(struct eq_list *list, const struct eq_gemm *gemm, struct eq_ref a, struct eq_ref b, struct eq_ref c)
{
    size_t bytes = 0;
    EQ_REQUIRE(gemm->m > 0 && gemm->n > 0 && gemm->k > 0, EQ_ERR_SHAPE, "a matrix product of %d x %d x %d", gemm->m, gemm->n,
               gemm->k);
    if (eq_ahead_is_noting(list->device))
        return eq_ahead_gemm(list->device, gemm, a, b, c);
    EQ_TRY(eq_gemm_workspace(list->device, gemm, &bytes));
    if (bytes && (!list->workspace || list->workspace->bytes < bytes)) {
        eq_buffer_destroy(&list->workspace);
        EQ_TRY(eq_buffer_create(list->device, bytes, &list->workspace));
    }
    int batch = gemm->batch ? gemm->batch : 1;
    double m = gemm->m, n = gemm->n, k = gemm->k;
    return append(list, &(struct step){ .kind = STEP_GEMM, .name = "gemm", .a = a, .b = b, .c = c, .gemm = *gemm,
                                        .cost = { 2 * m * n * k * batch, 4 * (m * k + k * n + m * n) * batch } });
}

static size_t place(struct eq_ref ref)
{
    return ref.at + ref.buffer->base;
}

static cl_int run_kernel(struct eq_device *device, const struct step *step)
{
    struct eq_range range = step->range;
    size_t offset[3] = { 0, 0, 0 }, *at = &offset[step->cut_dim];
    const size_t end = range.global[step->cut_dim];
    for (; *at < end; *at += step->piece) {
        range.global[step->cut_dim] = end - *at < step->piece ? end - *at : step->piece;
        const struct eq_turn turn = eq_turn_next(device);
        const cl_int code = clEnqueueNDRangeKernel(device->queue, step->kernel, (cl_uint)range.dims, *at ? offset : NULL,
                                                   range.global, range.local, turn.num, turn.wait, turn.event);
        eq_turn_end(device);
        if (code != CL_SUCCESS)
            return code;
    }
    return CL_SUCCESS;
}

static cl_int run_fill(struct eq_device *device, const struct step *step)
{
    return eq_enqueue_fill(device, step->a.buffer->mem, step->value, 4 * place(step->a), 4 * step->elems);
}

static cl_int run_copy(struct eq_device *device, const struct step *step)
{
    const struct eq_turn turn = eq_turn_next(device);
    const cl_int code = clEnqueueCopyBuffer(device->queue, step->a.buffer->mem, step->b.buffer->mem, 4 * place(step->a),
                                            4 * place(step->b), 4 * step->elems, turn.num, turn.wait, turn.event);
    eq_turn_end(device);
    return code;
}

static eq_status run_step(struct eq_list *list, const struct step *step)
{
    EQ_REQUIRE(!step->is_torn, EQ_ERR_ARGUMENT, "%s of %s: binding its memory failed, so it cannot run: bind it again",
               step->name, *step->label ? step->label : "an op");
    if (step->kind == STEP_GEMM)
        return eq_gemm_enqueue(list->device, &step->gemm, step->a, step->b, step->c, list->workspace);
    const cl_int code = step->kind == STEP_KERNEL ? run_kernel(list->device, step)
                        : step->kind == STEP_FILL ? run_fill(list->device, step)
                                                  : run_copy(list->device, step);
    EQ_REQUIRE(code == CL_SUCCESS, EQ_ERR_DEVICE, "%s: enqueuing %s of %s: %s", list->device->name, step->name,
               *step->label ? step->label : "an op", eq_cl_error(code));
    return EQ_OK;
}

eq_status eq_list_run(struct eq_list *list)
{
    return eq_list_run_range(list, 0, list->num);
}

eq_status eq_list_run_range(struct eq_list *list, int first, int end)
{
    if (!eq_ahead_has_memory(list->device))
        return EQ_OK;
    for (int i = first; i < end; i++)
        EQ_TRY(run_step(list, &list->steps[i]));
    EQ_CL(clFlush(list->device->queue), "flushing the queue");
    return EQ_OK;
}

eq_status eq_list_profile(struct eq_list *list, struct eq_profile_row *rows)
{
    EQ_TRY(eq_device_finish(list->device));
    for (int i = 0; i < list->num; i++) {
        const struct step *step = &list->steps[i];
        int64_t start = eq_clock_ns();
        EQ_TRY(run_step(list, step));
        EQ_TRY(eq_device_finish(list->device));
        rows[i] = (struct eq_profile_row){ .label = step->label, .kernel = step->name, .is_repeat = step->is_repeat,
                                           .time_ns = eq_clock_ns() - start, .cost = step->cost };
    }
    return EQ_OK;
}

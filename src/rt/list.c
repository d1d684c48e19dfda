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
    struct eq_range range;
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
        eq_device_finish((*list)->device); // kernels may still run
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

static eq_status check_range(const struct eq_list *list, cl_kernel kernel, const struct eq_launch *launch)
{
    const struct eq_range *range = &launch->range;
    size_t limit = 0, items = 1;
    EQ_CL(clGetKernelWorkGroupInfo(kernel, list->device->id, CL_KERNEL_WORK_GROUP_SIZE, sizeof limit, &limit, NULL),
          launch->kernel);
    // rusticl (Mesa 22) answers 32, its subgroup, for every kernel and runs as many as the device allows.
    if (strcmp(list->device->platform_name, "rusticl") == 0)
        limit = list->device->target.max_group;
    for (int d = 0; d < range->dims; d++) {
        EQ_REQUIRE(range->local[d] > 0 && range->global[d] > 0 && range->global[d] % range->local[d] == 0, EQ_ERR_ARGUMENT,
                   "kernel %s: global size %zu, local size %zu in dimension %d", launch->kernel, range->global[d],
                   range->local[d], d);
        items *= range->local[d];
    }
    EQ_REQUIRE(items <= limit, EQ_ERR_UNSUPPORTED, "kernel %s wants work-groups of %zu work-items; %s allows %zu",
               launch->kernel, items, list->device->name, limit);
    return EQ_OK;
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
        if (uses(&list->steps[i], buffer))
            EQ_TRY(set_args(list->steps[i].kernel, list->steps[i].name, list->steps[i].args, list->steps[i].num_args));
    return EQ_OK;
}

eq_status eq_list_kernel(struct eq_list *list, const struct eq_launch *launch, const struct eq_arg *args, int num_args)
{
    if (eq_ahead_is_noting(list->device))
        return eq_ahead_kernel(list->device, launch, args, num_args);
    struct step step = { .kind = STEP_KERNEL, .name = launch->kernel, .cost = launch->cost, .range = launch->range,
                         .is_preparation = launch->is_preparation };
    EQ_TRY(eq_kernel_create(list->device, launch->source, launch->options, launch->kernel, &step.kernel));
    eq_status status;
    EQ_TRY_FAIL(check_range(list, step.kernel, launch));
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

static eq_status run_step(struct eq_list *list, const struct step *step)
{
    cl_command_queue queue = list->device->queue;
    const struct eq_turn turn = eq_turn_next(list->device);
    cl_int code = CL_SUCCESS;
    switch (step->kind) {
    case STEP_KERNEL:
        code = clEnqueueNDRangeKernel(queue, step->kernel, (cl_uint)step->range.dims, NULL, step->range.global,
                                      step->range.local, turn.num, turn.wait, turn.event);
        break;
    case STEP_FILL:
        code = clEnqueueFillBuffer(queue, step->a.buffer->mem, &step->value, 4, 4 * place(step->a), 4 * step->elems, turn.num,
                                   turn.wait, turn.event);
        break;
    case STEP_COPY:
        code = clEnqueueCopyBuffer(queue, step->a.buffer->mem, step->b.buffer->mem, 4 * place(step->a), 4 * place(step->b),
                                   4 * step->elems, turn.num, turn.wait, turn.event);
        break;
    case STEP_GEMM:
        return eq_gemm_enqueue(list->device, &step->gemm, step->a, step->b, step->c, list->workspace);
    }
    eq_turn_end(list->device);
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
        rows[i] = (struct eq_profile_row){ .label = step->label, .kernel = step->name, .time_ns = eq_clock_ns() - start,
                                           .cost = step->cost };
    }
    return EQ_OK;
}

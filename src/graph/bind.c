// Callers' memory as inputs and outputs.
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "graph/exec.h"

static bool has_map(const struct eq_exec_memory *memory)
{
    return memory->scale || memory->shift;
}

bool eq_exec_is_dense(const struct eq_tensor *tensor)
{
    return tensor->form == EQ_FORM_PLAIN || (tensor->form == EQ_FORM_BLOCKED && tensor->block == 1 && tensor->halo == 0);
}

// Whether the memory holds the value just as its slot does.
static bool is_same_layout(const struct eq_exec_memory *memory, const struct eq_tensor *t)
{
    const size_t extent[] = { (size_t)t->n, (size_t)t->c, (size_t)t->h, (size_t)t->w };
    if (!eq_exec_is_dense(t) || memory->type != EQ_VIEW_WORD || has_map(memory))
        return false;
    size_t dense = 1;
    for (int d = 3; d >= 0; d--) {
        if (extent[d] > 1 && memory->stride[d] != dense)
            return false;
        dense *= extent[d];
    }
    return true;
}

static eq_status check_extent(const struct eq_exec_place *place, const struct eq_exec_memory *memory, size_t bytes)
{
    const size_t elem_bytes = eq_view_bytes(memory->type), elems = bytes / elem_bytes;
    bool fits = memory->offset < elems;
    size_t left = fits ? elems - 1 - memory->offset : 0; // sums of what callers give would wrap
    double last = (double)memory->offset;
    for (int d = 0; d < 4; d++) {
        EQ_REQUIRE(memory->stride[d] <= INT_MAX, EQ_ERR_UNSUPPORTED, "a stride of %zu elements: at most %d are possible",
                   memory->stride[d], INT_MAX);
        const size_t reach = (size_t)(place->shape[d] - 1) * memory->stride[d];
        fits = fits && reach <= left;
        left -= fits ? reach : 0;
        last += (double)reach;
    }
    EQ_REQUIRE(fits, EQ_ERR_ARGUMENT,
               "[%d, %d, %d, %d] with strides %zu, %zu, %zu, %zu from element %zu on ends at byte %.0f of a memory of %zu",
               place->shape[0], place->shape[1], place->shape[2], place->shape[3], memory->stride[0], memory->stride[1],
               memory->stride[2], memory->stride[3], memory->offset, (last + 1) * (double)elem_bytes, bytes);
    return EQ_OK;
}

// Where a rebinding fails, steps that use the slot do not run until another one succeeds.
static eq_status rebind(struct eq_exec *exec, const struct eq_buffer *slot)
{
    eq_status status = eq_list_rebind(exec->list, slot);
    const eq_status prepared = eq_list_rebind(exec->prepare, slot);
    status = status == EQ_OK ? prepared : status;
    for (int v = 0; v < exec->ir->num_values; v++) {
        const eq_status bound = exec->bindings[v].list ? eq_list_rebind(exec->bindings[v].list, slot) : EQ_OK;
        status = status == EQ_OK ? bound : status;
    }
    return status;
}

static eq_status swap(struct eq_exec *exec, struct eq_buffer *slot, cl_mem mem, size_t base)
{
    EQ_TRY(eq_buffer_swap(slot, mem, base));
    return rebind(exec, slot);
}

static void release(struct eq_exec_binding *binding)
{
    eq_list_destroy(&binding->list);
    eq_buffer_destroy(&binding->memory);
    eq_buffer_destroy(&binding->map);
    free(binding->map_values);
    *binding = (struct eq_exec_binding){ .is_direct = false };
}

static eq_status drop(struct eq_exec *exec, int at)
{
    struct eq_exec_binding *binding = &exec->bindings[at];
    if (binding->is_direct)
        EQ_TRY(swap(exec, exec->slots[at], NULL, 0));
    release(binding);
    return EQ_OK;
}

void eq_exec_drop_bindings(struct eq_exec *exec)
{
    for (int v = 0; exec->bindings && v < exec->ir->num_values; v++)
        release(&exec->bindings[v]);
    free(exec->bindings);
}

static float scale_at(const struct eq_exec_memory *memory, size_t channel)
{
    return memory->scale ? memory->scale[channel] : 1.0f;
}

static float shift_at(const struct eq_exec_memory *memory, size_t channel)
{
    return memory->shift ? memory->shift[channel] : 0.0f;
}

// [2, c]: scale, shift.
static eq_status make_map(struct eq_exec *exec, const struct eq_exec_place *place, const struct eq_exec_memory *memory,
                          struct eq_exec_binding *binding)
{
    const size_t c = (size_t)place->shape[1];
    binding->map_values = eq_malloc(2 * c, sizeof *binding->map_values);
    if (!binding->map_values)
        return EQ_ERR_HOST_MEMORY;
    for (size_t i = 0; i < c; i++) {
        binding->map_values[i] = scale_at(memory, i);
        binding->map_values[c + i] = shift_at(memory, i);
    }
    return eq_buffer_create_from(exec->device, binding->map_values, 2 * c * sizeof *binding->map_values, &binding->map);
}

static bool is_same_map(const struct eq_exec_binding *binding, const struct eq_exec_memory *memory, size_t c)
{
    bool is_same = has_map(memory) == (binding->map_values != NULL);
    for (size_t i = 0; is_same && has_map(memory) && i < c; i++)
        is_same = binding->map_values[i] == scale_at(memory, i) && binding->map_values[c + i] == shift_at(memory, i);
    return is_same;
}

static eq_status make_list(struct eq_exec *exec, const struct eq_exec_place *place, const struct eq_exec_memory *memory,
                           struct eq_exec_binding *binding)
{
    // A plain value lies as one in blocks of 1 does.
    const struct eq_tensor *t = &exec->ir->values[place->at].tensor;
    struct eq_tensor tensor = t->form == EQ_FORM_PLAIN ? eq_tensor_blocked(t->n, t->c, t->h, t->w, 1, 0) : *t;
    struct eq_view view = { .type = memory->type, .map = EQ_REF_NONE };
    for (int d = 0; d < 4; d++)
        view.stride[d] = (int)memory->stride[d];
    EQ_TRY(eq_buffer_adopt(exec->device, memory->mem, &binding->memory));
    binding->memory->base = memory->offset;
    view.ref = eq_ref_at(binding->memory, 0);
    if (has_map(memory)) {
        EQ_TRY(make_map(exec, place, memory, binding));
        view.map = eq_ref_at(binding->map, 0);
    }
    EQ_TRY(eq_list_create(exec->device, &binding->list));
    EQ_TRY(eq_list_label(binding->list, place->is_input ? "input" : "output"));
    const struct eq_ref ref = exec->refs[place->at];
    return place->is_input ? eq_layout_pack_emit(binding->list, &tensor, &view, ref)
                           : eq_layout_unpack_emit(binding->list, &tensor, ref, &view);
}

static bool is_same_form(const struct eq_exec_binding *binding, const struct eq_exec_place *place,
                         const struct eq_exec_memory *memory)
{
    return binding->list && binding->type == memory->type &&
           memcmp(binding->stride, memory->stride, sizeof binding->stride) == 0 &&
           is_same_map(binding, memory, (size_t)place->shape[1]);
}

static eq_status bind_other(struct eq_exec *exec, const struct eq_exec_place *place, const struct eq_exec_memory *memory)
{
    struct eq_exec_binding *binding = &exec->bindings[place->at], made = { .type = memory->type };
    if (is_same_form(binding, place, memory)) {
        EQ_TRY(eq_buffer_swap(binding->memory, memory->mem, memory->offset));
        return eq_list_rebind(binding->list, binding->memory);
    }
    memcpy(made.stride, memory->stride, sizeof made.stride);
    eq_status status = make_list(exec, place, memory, &made);
    if (status == EQ_OK)
        status = drop(exec, place->at);
    if (status == EQ_OK) {
        *binding = made;
        return EQ_OK;
    }
    release(&made);
    return status;
}

static eq_status bind_workspace(struct eq_exec *exec, const struct eq_exec_memory *memory)
{
    EQ_REQUIRE(memory->type == EQ_VIEW_WORD && 4 * memory->offset % EQ_EXEC_ALIGNMENT == 0, EQ_ERR_ARGUMENT,
               "a workspace of floats from a multiple of %d bytes on is wanted, not from byte %zu", EQ_EXEC_ALIGNMENT,
               4 * memory->offset);
    for (int i = 0; i < exec->num_chunks; i++)
        EQ_TRY(swap(exec, exec->chunks[i], memory->mem, memory->offset));
    return EQ_OK;
}

eq_status eq_exec_bind(struct eq_exec *exec, const struct eq_exec_place *place, const struct eq_exec_memory *memory)
{
    size_t bytes = 0;
    if (place->at == EQ_EXEC_WORKSPACE)
        return bind_workspace(exec, memory);
    if (!memory->mem)
        return drop(exec, place->at);
    EQ_TRY(eq_memory_size(exec->device, memory->mem, &bytes));
    EQ_TRY(check_extent(place, memory, bytes));
    EQ_REQUIRE(place->dtype == EQ_F32 || (memory->type == EQ_VIEW_WORD && !has_map(memory)), EQ_ERR_ARGUMENT,
               "labels are 4-byte integers, without scale and shift");
    // The gradient of an image may have the layout, too, but lies between activations.
    struct eq_buffer *slot = exec->slots[place->at];
    const bool is_same = slot && is_same_layout(memory, &exec->ir->values[place->at].tensor);
    EQ_REQUIRE(is_same || !slot || !slot->is_empty, EQ_ERR_ARGUMENT,
               "parameters, statistics and their gradients are dense f32, without scale and shift");
    if (!is_same)
        return bind_other(exec, place, memory);
    if (!exec->bindings[place->at].is_direct)
        EQ_TRY(drop(exec, place->at));
    EQ_TRY(eq_buffer_swap(slot, memory->mem, memory->offset));
    exec->bindings[place->at].is_direct = true;
    return rebind(exec, slot);
}

bool eq_exec_is_bound(const struct eq_exec *exec, const struct eq_exec_place *place)
{
    return place->at >= 0 && (exec->bindings[place->at].list || exec->bindings[place->at].is_direct);
}

static bool is_of_part(const struct eq_ir_value *value, enum eq_exec_part part)
{
    return (value->outer_grad_of >= 0 || value->grad_of >= 0) == (part == EQ_EXEC_BACKWARD);
}

eq_status eq_exec_run_bindings(struct eq_exec *exec, bool inputs, enum eq_exec_part part)
{
    for (int v = 0; v < exec->ir->num_values; v++) {
        const struct eq_ir_value *value = &exec->ir->values[v];
        const struct eq_exec_binding *binding = &exec->bindings[v];
        if (binding->list && is_of_part(value, part) && (value->kind == EQ_VALUE_INPUT) == inputs)
            EQ_TRY(eq_list_run(binding->list));
    }
    return EQ_OK;
}

// Labels may be missing: see fill_no_labels().
static eq_status check_given(const struct eq_exec *exec, enum eq_exec_part part)
{
    for (int v = 0; v < exec->ir->num_values; v++) {
        const struct eq_ir_value *value = &exec->ir->values[v];
        const struct eq_exec_binding *binding = &exec->bindings[v];
        const bool is_needed = value->kind == EQ_VALUE_INPUT && value->tensor.dtype == EQ_F32 && is_of_part(value, part);
        const int of = value->outer_grad_of >= 0 ? value->outer_grad_of : v;
        EQ_REQUIRE(!is_needed || exec->is_written[v] || binding->list || binding->is_direct, EQ_ERR_ARGUMENT,
                   "the input '%s%s' was neither written nor bound", of != v ? "grad." : "",
                   exec->ir->graph->values[exec->ir->values[of].front].name);
    }
    return EQ_OK;
}

static eq_status check_bound(const struct eq_exec *exec, enum eq_exec_part part)
{
    for (int i = 0; i < exec->num_chunks; i++)
        EQ_REQUIRE(exec->chunks[i]->mem, EQ_ERR_ARGUMENT, "the workspace of %zu bytes has no memory", exec->chunks[i]->bytes);
    for (int v = 0; v < exec->ir->num_values; v++) {
        const struct eq_ir_value *value = &exec->ir->values[v];
        const int of = value->grad_of >= 0 ? value->grad_of : v;
        EQ_REQUIRE(!exec->slots[v] || exec->slots[v]->mem || (part == EQ_EXEC_FORWARD && !is_of_part(value, part)),
                   EQ_ERR_ARGUMENT, "%s%s has no memory", value->grad_of >= 0 ? "grad." : "",
                   exec->ir->graph->values[exec->ir->values[of].front].name);
    }
    return EQ_OK;
}

eq_status eq_exec_check_ready(const struct eq_exec *exec, enum eq_exec_part part)
{
    if (!exec->store)
        EQ_TRY(check_bound(exec, part));
    return check_given(exec, part);
}

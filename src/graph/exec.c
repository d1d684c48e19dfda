// Execution: memory for the plan, then every call's steps into one command list.
#include <stdlib.h>
#include <string.h>

#include "graph/exec.h"

static const char workspace_name[] = "workspace";

// Sizes of the arena's chunks; offsets go to items.
static eq_status plan_arena(const struct eq_ir *ir, size_t max_chunk_bytes, struct eq_plan_item **items, int **item_of_value,
                            size_t chunk_bytes[EQ_EXEC_MAX_CHUNKS], int *num_chunks)
{
    int num;
    EQ_TRY(eq_plan_items(ir, items, &num, item_of_value));
    eq_status status =
        eq_plan_place(*items, num, EQ_EXEC_ALIGNMENT, max_chunk_bytes, chunk_bytes, EQ_EXEC_MAX_CHUNKS, num_chunks);
    if (status != EQ_OK) {
        free(*items);
        free(*item_of_value);
    }
    return status;
}

eq_status eq_plan_bytes(const struct eq_ir *ir, size_t *arena_bytes, size_t *slot_bytes)
{
    struct eq_plan_item *items;
    int *item_of_value, num_chunks;
    size_t chunk_bytes[EQ_EXEC_MAX_CHUNKS];
    EQ_TRY(plan_arena(ir, ir->target.max_alloc_bytes, &items, &item_of_value, chunk_bytes, &num_chunks));
    *arena_bytes = *slot_bytes = 0;
    for (int i = 0; i < num_chunks; i++)
        *arena_bytes += chunk_bytes[i];
    for (int v = 0; v < ir->num_values; v++)
        if (eq_plan_is_slot(&ir->values[v]))
            *slot_bytes += eq_tensor_bytes(&ir->values[v].tensor);
    free(items);
    free(item_of_value);
    return EQ_OK;
}

static bool is_lent(const struct eq_exec *exec, int chunk, size_t bytes)
{
    const struct eq_exec *lender = exec->lender;
    return lender != exec && chunk < lender->num_chunks && bytes <= lender->chunks[chunk]->bytes;
}

static eq_status make_arena(struct eq_exec *exec)
{
    struct eq_plan_item *items;
    int *item_of_value;
    size_t chunk_bytes[EQ_EXEC_MAX_CHUNKS];
    // A caller's workspace is one piece.
    EQ_TRY(plan_arena(exec->ir, exec->store ? exec->device->target.max_alloc_bytes : SIZE_MAX, &items, &item_of_value,
                      chunk_bytes, &exec->num_chunks));
    eq_status status = EQ_OK;
    for (int i = 0; i < exec->num_chunks && status == EQ_OK; i++) {
        if (!exec->store)
            status = eq_buffer_create_empty(exec->device, chunk_bytes[i], &exec->chunks[i]);
        else if (is_lent(exec, i, chunk_bytes[i]))
            exec->chunks[i] = exec->lender->chunks[i];
        else
            status = eq_buffer_create(exec->device, chunk_bytes[i], &exec->chunks[i]);
        if (status == EQ_OK && exec->store && !is_lent(exec, i, chunk_bytes[i]))
            status = eq_buffer_touch(exec->chunks[i]);
    }
    for (int v = 0; v < exec->ir->num_values && status == EQ_OK; v++)
        if (item_of_value[v] >= 0) {
            const struct eq_plan_item *item = &items[item_of_value[v]];
            size_t elem_bytes = eq_dtype_bytes(exec->ir->values[v].tensor.dtype);
            exec->refs[v] = eq_ref_at(exec->chunks[item->chunk], item->offset / elem_bytes);
        }
    free(items);
    free(item_of_value);
    return status;
}

static bool is_stored(const struct eq_ir_value *value)
{
    return value->grad_of >= 0 || value->kind == EQ_VALUE_PARAMETER || value->kind == EQ_VALUE_STATE;
}

// Labels until there are others: no class, so that the loss is no number where a caller wants the logits alone. A fill, by the
// float of the same bits, because a write would wait for the device.
static eq_status fill_no_labels(struct eq_ref ref, size_t num)
{
    const int32_t none = -1;
    float bits;
    memcpy(&bits, &none, sizeof bits);
    return eq_ref_fill(ref, bits, num);
}

static eq_status make_slot(struct eq_exec *exec, int v)
{
    const struct eq_ir_value *value = &exec->ir->values[v];
    const size_t bytes = eq_tensor_bytes(&value->tensor);
    EQ_REQUIRE(!is_stored(value) || value->tensor.form == EQ_FORM_PLAIN, EQ_ERR_UNSUPPORTED,
               "a graph with convolutions, whose filters are stored in blocks: its parameters cannot be the caller's memory");
    if (is_stored(value))
        EQ_TRY(eq_buffer_create_empty(exec->device, bytes, &exec->slots[v]));
    else
        EQ_TRY(eq_buffer_create(exec->device, bytes, &exec->slots[v]));
    exec->slots[v]->may_move = eq_exec_is_dense(&value->tensor);
    exec->refs[v] = eq_ref_at(exec->slots[v], 0);
    return value->tensor.dtype == EQ_I32 ? fill_no_labels(exec->refs[v], eq_tensor_elems(&value->tensor)) : EQ_OK;
}

static eq_status make_slots(struct eq_exec *exec)
{
    EQ_ALLOC(exec->slots, exec->ir->num_values);
    for (int v = 0; v < exec->ir->num_values; v++)
        if (eq_plan_is_slot(&exec->ir->values[v]) || (!exec->store && is_stored(&exec->ir->values[v])))
            EQ_TRY(make_slot(exec, v));
    return EQ_OK;
}

static eq_status check_stored(const struct eq_store_entry *entry, const struct eq_tensor *wanted)
{
    const struct eq_tensor *t = &entry->tensor;
    char text[2][64];
    EQ_REQUIRE(t->n == wanted->n && t->c == wanted->c && t->h == wanted->h && t->w == wanted->w, EQ_ERR_SHAPE,
               "%s is %s in the weights, %s in the graph", entry->name, eq_tensor_shape_text(t, text[0]),
               eq_tensor_shape_text(wanted, text[1]));
    EQ_REQUIRE(t->form == wanted->form && t->block == wanted->block && t->block_in == wanted->block_in, EQ_ERR_SHAPE,
               "%s: stored in blocks of %d by %d channels, the graph wants %d by %d", entry->name, t->block, t->block_in,
               wanted->block, wanted->block_in);
    return EQ_OK;
}

static eq_status bind_store(struct eq_exec *exec, const struct eq_store *store)
{
    for (int v = 0; v < exec->ir->num_values; v++) {
        const struct eq_ir_value *value = &exec->ir->values[v];
        int of = value->grad_of >= 0 ? value->grad_of : v;
        if (!is_stored(value))
            continue;
        const char *name = exec->ir->graph->values[exec->ir->values[of].front].name;
        const struct eq_store_entry *entry = eq_store_find(store, name);
        EQ_REQUIRE(entry, EQ_ERR_NOT_FOUND, "the store has no tensor called %s", name);
        EQ_TRY(check_stored(entry, &value->tensor));
        exec->refs[v] = eq_store_ref(store, entry, value->grad_of >= 0 ? EQ_STORE_GRADIENT : EQ_STORE_VALUE);
    }
    return EQ_OK;
}

// Where a value begins for the slice whose first image is `image`: a local one has memory for a slice only.
static struct eq_ref sliced_ref(const struct eq_exec *exec, int value, int image)
{
    const struct eq_tensor *tensor = &exec->ir->values[value].tensor;
    const bool is_whole = eq_ir_has_images(exec->ir, value) && !eq_ir_is_local(exec->ir, value);
    return eq_ref_plus(exec->refs[value], is_whole ? eq_tensor_elems(tensor) / (size_t)tensor->n * (size_t)image : 0);
}

// The call for images from `image` on; `call` has their number.
static eq_status emit_call(struct eq_exec *exec, int index, const struct eq_call *call, int image)
{
    const struct eq_ir_call *at = &exec->ir->calls[index];
    struct eq_list *list = at->is_constant ? exec->prepare : exec->list;
    struct eq_ref in[EQ_MAX_OPERANDS], out[EQ_MAX_OPERANDS];
    for (int i = 0; i < call->num_inputs; i++)
        in[i] = at->in[i] >= 0 ? sliced_ref(exec, at->in[i], image) : EQ_REF_NONE;
    for (int o = 0; o < call->num_outputs; o++)
        out[o] = sliced_ref(exec, at->out[o], image);
    EQ_TRY(eq_list_label(list, at->label));
    eq_list_repeat(list, image > 0);
    const eq_status status = call->op->emit(list, call, in, out);
    return status == EQ_OK ? EQ_OK : eq_fail(status, "%s: %s", at->label, eq_last_error());
}

static eq_status emit_stretch(struct eq_exec *exec, const struct eq_stretch *stretch)
{
    for (int s = 0; s < stretch->slices; s++) {
        const int image = eq_stretch_image(stretch, s), images = eq_stretch_image(stretch, s + 1) - image;
        for (int c = stretch->first; c < stretch->end; c++) {
            struct eq_call sliced;
            if (exec->ir->calls[c].stretch != stretch)
                continue;
            EQ_TRY(eq_ir_sliced_call(exec->ir, c, images, &sliced));
            EQ_TRY(emit_call(exec, c, &sliced, image));
        }
    }
    return EQ_OK;
}

static eq_status emit_calls(struct eq_exec *exec)
{
    bool is_backward = false;
    for (int c = 0; c < exec->ir->num_calls; c++) {
        const struct eq_ir_call *call = &exec->ir->calls[c];
        if (call->is_gradient && !is_backward) {
            exec->num_forward = eq_list_length(exec->list);
            is_backward = true;
        }
        if (!call->stretch)
            EQ_TRY(emit_call(exec, c, &call->call, 0));
        else if (call->stretch->first == c)
            EQ_TRY(emit_stretch(exec, call->stretch));
    }
    exec->num_forward = is_backward ? exec->num_forward : eq_list_length(exec->list);
    return EQ_OK;
}

static bool is_gradient(const struct eq_ir_value *value)
{
    return value->outer_grad_of >= 0 || value->grad_of >= 0;
}

// The front value that an ir value is, or is the gradient of; -1: none.
static int front_of(const struct eq_ir *ir, int at)
{
    const struct eq_ir_value *value = &ir->values[at];
    return ir->values[value->outer_grad_of >= 0 ? value->outer_grad_of : value->grad_of >= 0 ? value->grad_of : at].front;
}

// Name of an ir value as a caller may write it, into text; false for values that have none.
static bool name_of(const struct eq_exec *exec, int at, char text[EQ_EXEC_MAX_NAME])
{
    const struct eq_ir *ir = exec->ir;
    const struct eq_ir_value *value = &ir->values[at];
    const int front = front_of(ir, at);
    const bool is_open = value->kind == EQ_VALUE_INPUT || value->is_output || (!exec->store && is_stored(value));
    if (front < 0 || !ir->graph->values[front].name || !is_open)
        return false;
    snprintf(text, EQ_EXEC_MAX_NAME, "%s%s", is_gradient(value) ? "grad." : "", ir->graph->values[front].name);
    return true;
}

// The graph's names are all different; those of gradients and of the workspace come to them here.
static eq_status check_names(const struct eq_exec *exec)
{
    char name[EQ_EXEC_MAX_NAME], other[EQ_EXEC_MAX_NAME];
    for (int v = 0; v < exec->ir->num_values; v++) {
        if (!name_of(exec, v, name))
            continue;
        bool is_taken = !exec->store && strcmp(name, workspace_name) == 0;
        for (int w = 0; w < v && !is_taken; w++)
            is_taken = name_of(exec, w, other) && strcmp(name, other) == 0;
        EQ_REQUIRE(!is_taken, EQ_ERR_ARGUMENT, "two of the session's inputs and outputs would be called '%s': the graph has to "
                   "give its own another name", name);
    }
    return EQ_OK;
}

static eq_status make_staging(struct eq_exec *exec)
{
    for (int v = 0; v < exec->ir->num_values; v++) {
        size_t elems = eq_tensor_elems(&exec->ir->values[v].tensor);
        if ((exec->ir->values[v].kind == EQ_VALUE_INPUT || exec->ir->values[v].is_output) && elems > exec->staging_elems)
            exec->staging_elems = elems;
    }
    exec->staging = eq_malloc(exec->staging_elems, sizeof *exec->staging);
    return exec->staging ? EQ_OK : EQ_ERR_HOST_MEMORY;
}

static eq_status fill_exec(struct eq_exec *exec, struct eq_store *store, const struct eq_graph *graph,
                           const struct eq_compile_params *params)
{
    EQ_TRY(eq_ir_create(graph, &exec->device->target, params, &exec->ir));
    EQ_ALLOC(exec->refs, exec->ir->num_values);
    EQ_TRY(make_arena(exec));
    EQ_TRY(make_slots(exec));
    if (store)
        EQ_TRY(bind_store(exec, store));
    EQ_TRY(make_staging(exec));
    EQ_ALLOC(exec->bindings, exec->ir->num_values);
    EQ_ALLOC(exec->is_written, exec->ir->num_values);
    EQ_TRY(check_names(exec));
    EQ_TRY(eq_list_create(exec->device, &exec->list));
    EQ_TRY(eq_list_create(exec->device, &exec->prepare));
    return emit_calls(exec);
}

eq_status eq_exec_create(struct eq_device *device, struct eq_store *store, const struct eq_graph *graph,
                         const struct eq_compile_params *params, struct eq_exec **exec)
{
    EQ_ALLOC(*exec, 1);
    (*exec)->device = device;
    (*exec)->store = store;
    (*exec)->lender = params->lender ? params->lender : *exec;
    eq_status status = fill_exec(*exec, store, graph, params);
    if (status != EQ_OK)
        eq_exec_destroy(exec);
    return status;
}

static bool is_own(const struct eq_exec *exec, int chunk)
{
    return exec->lender == exec || exec->chunks[chunk] != exec->lender->chunks[chunk];
}

void eq_exec_destroy(struct eq_exec **exec)
{
    if (!*exec)
        return;
    eq_list_destroy(&(*exec)->list);
    eq_list_destroy(&(*exec)->prepare);
    eq_exec_drop_bindings(*exec);
    for (int v = 0; (*exec)->slots && v < (*exec)->ir->num_values; v++)
        eq_buffer_destroy(&(*exec)->slots[v]);
    for (int i = 0; i < (*exec)->num_chunks; i++)
        if (is_own(*exec, i))
            eq_buffer_destroy(&(*exec)->chunks[i]);
    eq_ir_destroy(&(*exec)->ir);
    free((*exec)->slots);
    free((*exec)->is_written);
    free((*exec)->refs);
    free((*exec)->staging);
    free(*exec);
    *exec = NULL;
}

size_t eq_exec_workspace_bytes(const struct eq_exec *exec)
{
    return !exec->store && exec->num_chunks ? exec->chunks[0]->bytes : 0;
}

size_t eq_exec_bytes(const struct eq_exec *exec)
{
    size_t bytes = 0;
    for (int i = 0; i < exec->num_chunks; i++)
        bytes += exec->store && is_own(exec, i) ? exec->chunks[i]->bytes : 0;
    for (int v = 0; v < exec->ir->num_values; v++)
        bytes += exec->slots[v] && !exec->slots[v]->is_empty ? exec->slots[v]->bytes : 0;
    return bytes;
}

void eq_exec_flops(const struct eq_exec *exec, double *flops, double *conv_flops)
{
    *flops = *conv_flops = 0;
    for (int c = 0; c < exec->ir->num_calls; c++) {
        const struct eq_call *call = &exec->ir->calls[c].call;
        if (exec->ir->calls[c].is_constant)
            continue;
        *flops += call->op->cost(call).flops;
        *conv_flops += eq_call_conv_flops(call);
    }
}

struct eq_list *eq_exec_list(struct eq_exec *exec)
{
    return exec->list;
}

eq_status eq_exec_find(const struct eq_exec *exec, eq_value value, struct eq_ref *ref, struct eq_tensor *tensor)
{
    int lowered = value >= 0 && value < exec->ir->graph->num_values ? exec->ir->lowered[value] : -1;
    EQ_REQUIRE(lowered >= 0, EQ_ERR_NOT_FOUND, "value %d is not part of the compiled graph", value);
    const struct eq_ir_value *found = &exec->ir->values[lowered];
    EQ_REQUIRE(found->kind == EQ_VALUE_INPUT || found->is_output, EQ_ERR_ARGUMENT, "value %d is neither an input nor an output",
               value);
    *ref = exec->refs[lowered];
    *tensor = found->tensor;
    return EQ_OK;
}

// An input of the graph that no call takes.
static bool is_unread(const struct eq_ir *ir, int front)
{
    return ir->graph->values[front].kind == EQ_VALUE_INPUT && ir->lowered[front] < 0;
}

static eq_status no_such_name(const struct eq_exec *exec, const char *name)
{
    char text[EQ_EXEC_MAX_NAME];
    struct eq_str all = { 0 };
    for (int front = 0; front < exec->ir->graph->num_values; front++)
        EQ_REQUIRE(!is_unread(exec->ir, front) || strcmp(exec->ir->graph->values[front].name, name) != 0, EQ_ERR_NOT_FOUND,
                   "nothing in the graph reads the input '%s', so the session does not have it", name);
    for (int v = 0; v < exec->ir->num_values; v++)
        if (name_of(exec, v, text))
            eq_str_append(&all, "%s%s", all.length ? ", " : "", text);
    eq_status status =
        eq_fail(EQ_ERR_NOT_FOUND, "no input or output is called '%s'; there are: %s", name, all.text ? all.text : "none");
    eq_str_free(&all);
    return status;
}

eq_status eq_exec_find_name(const struct eq_exec *exec, const char *name, struct eq_exec_place *place)
{
    char text[EQ_EXEC_MAX_NAME];
    for (int v = 0; v < exec->ir->num_values; v++) {
        const struct eq_ir_value *value = &exec->ir->values[v];
        const struct eq_tensor *t = &value->tensor;
        if (!name_of(exec, v, text) || strcmp(text, name) != 0)
            continue;
        const int rank = exec->ir->graph->values[front_of(exec->ir, v)].rank;
        *place = (struct eq_exec_place){ .at = v,
                                         .is_input = value->kind != EQ_VALUE_TEMPORARY,
                                         .is_gradient = is_gradient(value),
                                         .shape = { t->n, t->c, t->h, t->w },
                                         .rank = rank,
                                         .dtype = t->dtype };
        return EQ_OK;
    }
    if (!exec->store && strcmp(name, workspace_name) == 0) {
        *place = (struct eq_exec_place){ .at = EQ_EXEC_WORKSPACE, .shape = { 1, 1, 1, 1 }, .rank = 1, .dtype = EQ_F32 };
        return EQ_OK;
    }
    return no_such_name(exec, name);
}

bool eq_exec_has_memory(const struct eq_exec *exec, const struct eq_exec_place *place)
{
    return place->at >= 0 && exec->refs[place->at].buffer->mem;
}

eq_status eq_exec_write_place(struct eq_exec *exec, const struct eq_exec_place *place, const void *host)
{
    const struct eq_tensor *tensor = &exec->ir->values[place->at].tensor;
    const size_t elems = eq_tensor_elems(tensor);
    exec->is_written[place->at] = true;
    if (tensor->form == EQ_FORM_PLAIN)
        return eq_ref_write(exec->refs[place->at], host, elems, eq_dtype_bytes(tensor->dtype));
    eq_tensor_pack(tensor, host, exec->staging);
    return eq_ref_write(exec->refs[place->at], exec->staging, elems, sizeof(float));
}

eq_status eq_exec_read_place(struct eq_exec *exec, const struct eq_exec_place *place, void *host)
{
    const struct eq_tensor *tensor = &exec->ir->values[place->at].tensor;
    const size_t elems = eq_tensor_elems(tensor);
    if (tensor->form == EQ_FORM_PLAIN)
        return eq_ref_read(exec->refs[place->at], host, elems, eq_dtype_bytes(tensor->dtype));
    EQ_TRY(eq_ref_read(exec->refs[place->at], exec->staging, elems, sizeof(float)));
    eq_tensor_unpack(tensor, exec->staging, host);
    return EQ_OK;
}

static eq_status place_of(const struct eq_exec *exec, eq_value value, struct eq_exec_place *place)
{
    struct eq_ref ref;
    struct eq_tensor tensor;
    EQ_TRY(eq_exec_find(exec, value, &ref, &tensor));
    *place = (struct eq_exec_place){ .at = exec->ir->lowered[value] };
    return EQ_OK;
}

eq_status eq_exec_write(struct eq_exec *exec, eq_value value, const void *host)
{
    struct eq_exec_place place;
    EQ_TRY(place_of(exec, value, &place));
    return eq_exec_write_place(exec, &place, host);
}

eq_status eq_exec_read(struct eq_exec *exec, eq_value value, void *host)
{
    struct eq_exec_place place;
    EQ_TRY(place_of(exec, value, &place));
    return eq_exec_read_place(exec, &place, host);
}

// The caller's memory may hold other weights each time.
static bool is_outdated(const struct eq_exec *exec)
{
    return !exec->store || exec->version != eq_store_version(exec->store) || exec->lender->user != exec;
}

static eq_status run_prepare(struct eq_exec *exec)
{
    if (eq_list_length(exec->prepare) == 0 || !is_outdated(exec))
        return EQ_OK;
    EQ_TRY(eq_list_run(exec->prepare));
    exec->version = exec->store ? eq_store_version(exec->store) : 0;
    return EQ_OK;
}

bool eq_exec_has_tensor(const struct eq_exec *exec, const char *name)
{
    for (int v = 0; v < exec->ir->num_values; v++) {
        const struct eq_ir_value *value = &exec->ir->values[v];
        const bool is_tensor = value->kind == EQ_VALUE_STATE || value->kind == EQ_VALUE_PARAMETER;
        if (is_tensor && value->front >= 0 && strcmp(exec->ir->graph->values[value->front].name, name) == 0)
            return true;
    }
    return false;
}

eq_status eq_exec_run_part(struct eq_exec *exec, enum eq_exec_part part)
{
    const bool is_forward = part == EQ_EXEC_FORWARD;
    if (is_forward)
        EQ_TRY(run_prepare(exec));
    exec->lender->user = exec;
    EQ_TRY(eq_exec_run_bindings(exec, true, part));
    EQ_TRY(eq_list_run_range(exec->list, is_forward ? 0 : exec->num_forward,
                             is_forward ? exec->num_forward : eq_list_length(exec->list)));
    return eq_exec_run_bindings(exec, false, part);
}

eq_status eq_exec_run(struct eq_exec *exec)
{
    EQ_TRY(eq_exec_run_part(exec, EQ_EXEC_FORWARD));
    return exec->num_forward < eq_list_length(exec->list) ? eq_exec_run_part(exec, EQ_EXEC_BACKWARD) : EQ_OK;
}

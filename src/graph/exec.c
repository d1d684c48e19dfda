// Execution: memory for the plan, then every call's steps into one command list.
#include <stdlib.h>
#include <string.h>

#include "graph/graph.h"

enum { MAX_CHUNKS = 64, ALIGNMENT = 256 };

struct eq_exec {
    struct eq_device *device;
    struct eq_ir *ir;
    struct eq_store *store;
    struct eq_list *list, *prepare; // every run; when the weights have changed
    uint64_t version;               // of the store at the last `prepare`; 0: never
    struct eq_ref *refs; // [ir values]
    struct eq_buffer *chunks[MAX_CHUNKS];
    int num_chunks;
    struct eq_exec *lender;      // whose chunks some are; itself where none are
    const struct eq_exec *user;  // of a lender: who ran last in its chunks
    struct eq_buffer **inputs; // [ir values], those of kind input
    float *staging;            // host side of the largest input or output
    size_t staging_elems;
};

// Sizes of the arena's chunks; offsets go to items.
static eq_status plan_arena(const struct eq_ir *ir, struct eq_plan_item **items, int **item_of_value,
                            size_t chunk_bytes[MAX_CHUNKS], int *num_chunks)
{
    int num;
    EQ_TRY(eq_plan_items(ir, items, &num, item_of_value));
    eq_status status = eq_plan_place(*items, num, ALIGNMENT, ir->target.max_alloc_bytes, chunk_bytes, MAX_CHUNKS, num_chunks);
    if (status != EQ_OK) {
        free(*items);
        free(*item_of_value);
    }
    return status;
}

eq_status eq_plan_bytes(const struct eq_ir *ir, size_t *arena_bytes, size_t *input_bytes)
{
    struct eq_plan_item *items;
    int *item_of_value, num_chunks;
    size_t chunk_bytes[MAX_CHUNKS];
    EQ_TRY(plan_arena(ir, &items, &item_of_value, chunk_bytes, &num_chunks));
    *arena_bytes = *input_bytes = 0;
    for (int i = 0; i < num_chunks; i++)
        *arena_bytes += chunk_bytes[i];
    for (int v = 0; v < ir->num_values; v++)
        if (ir->values[v].kind == EQ_VALUE_INPUT)
            *input_bytes += eq_tensor_bytes(&ir->values[v].tensor);
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
    size_t chunk_bytes[MAX_CHUNKS];
    EQ_TRY(plan_arena(exec->ir, &items, &item_of_value, chunk_bytes, &exec->num_chunks));
    eq_status status = EQ_OK;
    for (int i = 0; i < exec->num_chunks && status == EQ_OK; i++) {
        if (is_lent(exec, i, chunk_bytes[i]))
            exec->chunks[i] = exec->lender->chunks[i];
        else
            status = eq_buffer_create(exec->device, chunk_bytes[i], &exec->chunks[i]);
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

// Inputs have buffers of their own: they are written between runs.
static eq_status make_inputs(struct eq_exec *exec)
{
    EQ_ALLOC(exec->inputs, exec->ir->num_values);
    for (int v = 0; v < exec->ir->num_values; v++) {
        const struct eq_ir_value *value = &exec->ir->values[v];
        if (value->kind != EQ_VALUE_INPUT)
            continue;
        EQ_TRY(eq_buffer_create(exec->device, eq_tensor_bytes(&value->tensor), &exec->inputs[v]));
        exec->refs[v] = eq_ref_at(exec->inputs[v], 0);
    }
    return EQ_OK;
}

static eq_status bind_store(struct eq_exec *exec, const struct eq_store *store)
{
    for (int v = 0; v < exec->ir->num_values; v++) {
        const struct eq_ir_value *value = &exec->ir->values[v];
        int of = value->grad_of >= 0 ? value->grad_of : v;
        if (value->grad_of < 0 && value->kind != EQ_VALUE_PARAMETER && value->kind != EQ_VALUE_STATE)
            continue;
        const char *name = exec->ir->graph->values[exec->ir->values[of].front].name;
        const struct eq_store_entry *entry = eq_store_find(store, name);
        EQ_REQUIRE(entry, EQ_ERR_NOT_FOUND, "the store has no tensor called %s", name);
        EQ_REQUIRE(eq_tensor_elems(&entry->tensor) == eq_tensor_elems(&value->tensor), EQ_ERR_SHAPE,
                   "%s: %zu elements stored, the graph wants %zu", name, eq_tensor_elems(&entry->tensor),
                   eq_tensor_elems(&value->tensor));
        exec->refs[v] = eq_store_ref(store, entry, value->grad_of >= 0 ? EQ_STORE_GRADIENT : EQ_STORE_VALUE);
    }
    return EQ_OK;
}

static eq_status emit_calls(struct eq_exec *exec)
{
    for (int c = 0; c < exec->ir->num_calls; c++) {
        const struct eq_ir_call *call = &exec->ir->calls[c];
        struct eq_ref in[EQ_MAX_OPERANDS], out[EQ_MAX_OPERANDS];
        for (int i = 0; i < call->call.num_inputs; i++)
            in[i] = call->in[i] >= 0 ? exec->refs[call->in[i]] : EQ_REF_NONE;
        for (int o = 0; o < call->call.num_outputs; o++)
            out[o] = exec->refs[call->out[o]];
        struct eq_list *list = call->is_constant ? exec->prepare : exec->list;
        EQ_TRY(eq_list_label(list, call->label));
        eq_status status = call->call.op->emit(list, &call->call, in, out);
        if (status != EQ_OK)
            return eq_fail(status, "%s: %s", call->label, eq_last_error());
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
    EQ_TRY(make_inputs(exec));
    EQ_TRY(bind_store(exec, store));
    EQ_TRY(make_staging(exec));
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
    for (int v = 0; (*exec)->inputs && v < (*exec)->ir->num_values; v++)
        eq_buffer_destroy(&(*exec)->inputs[v]);
    for (int i = 0; i < (*exec)->num_chunks; i++)
        if (is_own(*exec, i))
            eq_buffer_destroy(&(*exec)->chunks[i]);
    eq_ir_destroy(&(*exec)->ir);
    free((*exec)->inputs);
    free((*exec)->refs);
    free((*exec)->staging);
    free(*exec);
    *exec = NULL;
}

size_t eq_exec_bytes(const struct eq_exec *exec)
{
    size_t bytes = 0;
    for (int i = 0; i < exec->num_chunks; i++)
        bytes += is_own(exec, i) ? exec->chunks[i]->bytes : 0;
    for (int v = 0; v < exec->ir->num_values; v++)
        bytes += exec->inputs[v] ? exec->inputs[v]->bytes : 0;
    return bytes;
}

void eq_exec_flops(const struct eq_exec *exec, double *flops, double *conv_flops)
{
    *flops = *conv_flops = 0;
    for (int c = 0; c < exec->ir->num_calls; c++) {
        const struct eq_call *call = &exec->ir->calls[c].call;
        double cost = call->op->cost(call).flops;
        bool is_conv = call->op == &eq_op_conv2d || call->op == &eq_op_conv2d_fused || call->op == &eq_op_conv2d_data_grad ||
                       call->op == &eq_op_conv2d_weight_grad;
        if (exec->ir->calls[c].is_constant)
            continue;
        *flops += cost;
        *conv_flops += is_conv ? cost : 0;
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

eq_status eq_exec_write(struct eq_exec *exec, eq_value value, const void *host)
{
    struct eq_ref ref;
    struct eq_tensor tensor;
    EQ_TRY(eq_exec_find(exec, value, &ref, &tensor));
    size_t elems = eq_tensor_elems(&tensor);
    if (tensor.form == EQ_FORM_PLAIN)
        return eq_ref_write(ref, host, elems, eq_dtype_bytes(tensor.dtype));
    eq_tensor_pack(&tensor, host, exec->staging);
    return eq_ref_write(ref, exec->staging, elems, sizeof(float));
}

eq_status eq_exec_read(struct eq_exec *exec, eq_value value, void *host)
{
    struct eq_ref ref;
    struct eq_tensor tensor;
    EQ_TRY(eq_exec_find(exec, value, &ref, &tensor));
    size_t elems = eq_tensor_elems(&tensor);
    if (tensor.form == EQ_FORM_PLAIN)
        return eq_ref_read(ref, host, elems, eq_dtype_bytes(tensor.dtype));
    EQ_TRY(eq_ref_read(ref, exec->staging, elems, sizeof(float)));
    eq_tensor_unpack(&tensor, exec->staging, host);
    return EQ_OK;
}

eq_status eq_exec_run(struct eq_exec *exec)
{
    const uint64_t version = eq_store_version(exec->store);
    if (eq_list_length(exec->prepare) > 0 && (exec->version != version || exec->lender->user != exec)) {
        EQ_TRY(eq_list_run(exec->prepare));
        exec->version = version;
    }
    exec->lender->user = exec;
    return eq_list_run(exec->list);
}

// The lowered form: values and calls for one target.
#include <stdlib.h>
#include <string.h>

#include "graph/graph.h"

eq_status eq_ir_value(struct eq_ir *ir, enum eq_value_kind kind, const struct eq_tensor *tensor, int front, int *value)
{
    EQ_TRY(eq_tensor_check(tensor));
    if (ir->num_values == ir->value_capacity) {
        int capacity = ir->value_capacity ? 2 * ir->value_capacity : 1024;
        struct eq_ir_value *values = realloc(ir->values, (size_t)capacity * sizeof *values);
        EQ_REQUIRE(values, EQ_ERR_HOST_MEMORY, "out of memory: %d values", capacity);
        ir->values = values;
        ir->value_capacity = capacity;
    }
    ir->values[ir->num_values] = (struct eq_ir_value){
        .kind = kind, .tensor = *tensor, .front = front, .producer = -1, .last_reader = -1, .grad_of = -1, .outer_grad_of = -1
    };
    *value = ir->num_values++;
    return EQ_OK;
}

eq_status eq_ir_reserve_call(struct eq_ir *ir)
{
    if (ir->num_calls < ir->call_capacity)
        return EQ_OK;
    int capacity = ir->call_capacity ? 2 * ir->call_capacity : 256;
    struct eq_ir_call *calls = realloc(ir->calls, (size_t)capacity * sizeof *calls);
    EQ_REQUIRE(calls, EQ_ERR_HOST_MEMORY, "out of memory: %d calls", capacity);
    ir->calls = calls;
    ir->call_capacity = capacity;
    return EQ_OK;
}

static eq_status fill_call(struct eq_ir *ir, struct eq_ir_call *made, const int *inputs, int num_inputs)
{
    made->call.target = &ir->target;
    made->call.training = ir->training;
    made->call.num_inputs = num_inputs;
    for (int i = 0; i < num_inputs; i++) {
        made->in[i] = inputs[i];
        made->call.has[i] = inputs[i] >= 0;
        if (inputs[i] >= 0)
            made->call.input[i] = ir->values[inputs[i]].tensor;
    }
    eq_status status = made->call.op->shape(&made->call);
    return status == EQ_OK ? EQ_OK : eq_fail(status, "%s: %s", made->label, eq_last_error());
}

eq_status eq_ir_call(struct eq_ir *ir, const struct eq_op *op, const void *attributes, const int *inputs, int num_inputs,
                     const char *label, int *outputs)
{
    EQ_TRY(eq_ir_reserve_call(ir));
    struct eq_ir_call *made = &ir->calls[ir->num_calls];
    *made = (struct eq_ir_call){ .call.op = op, .label = label };
    if (op->attribute_bytes) {
        made->attributes = eq_malloc(1, op->attribute_bytes);
        if (!made->attributes)
            return EQ_ERR_HOST_MEMORY;
        memcpy(made->attributes, attributes, op->attribute_bytes);
        made->call.attributes = made->attributes;
    }
    int at = ir->num_calls++; // from here on eq_ir_destroy() frees the attributes
    EQ_TRY(fill_call(ir, made, inputs, num_inputs));
    for (int o = 0; o < made->call.num_outputs; o++) {
        EQ_TRY(eq_ir_value(ir, EQ_VALUE_TEMPORARY, &made->call.output[o], -1, &made->out[o]));
        ir->values[made->out[o]].producer = at;
        outputs[o] = made->out[o];
    }
    for (int i = 0; i < num_inputs; i++)
        if (inputs[i] >= 0)
            ir->values[inputs[i]].last_reader = at;
    return EQ_OK;
}

// Marks the calls of an evaluation that depend on weights and running statistics alone.
static void mark_constants(struct eq_ir *ir)
{
    for (int c = 0; c < ir->num_calls && !ir->training; c++) {
        struct eq_ir_call *at = &ir->calls[c];
        at->is_constant = true;
        for (int i = 0; i < at->call.num_inputs; i++) {
            const struct eq_ir_value *value = at->in[i] >= 0 ? &ir->values[at->in[i]] : NULL;
            if (value && value->kind != EQ_VALUE_PARAMETER && value->kind != EQ_VALUE_STATE &&
                (value->producer < 0 || !ir->calls[value->producer].is_constant))
                at->is_constant = false;
        }
    }
}

// Raises every value's halo to what its readers need, and tells the calls.
static void settle_halos(struct eq_ir *ir)
{
    for (int c = 0; c < ir->num_calls; c++) {
        struct eq_ir_call *at = &ir->calls[c];
        for (int i = 0; at->call.op->halo && i < at->call.num_inputs; i++) {
            struct eq_tensor *tensor = at->in[i] >= 0 ? &ir->values[at->in[i]].tensor : NULL;
            int halo = tensor && tensor->form == EQ_FORM_BLOCKED ? at->call.op->halo(&at->call, i) : 0;
            if (halo > 0 && halo > tensor->halo)
                tensor->halo = halo;
        }
    }
    for (int c = 0; c < ir->num_calls; c++) {
        struct eq_ir_call *at = &ir->calls[c];
        for (int i = 0; i < at->call.num_inputs; i++)
            if (at->in[i] >= 0)
                at->call.input[i] = ir->values[at->in[i]].tensor;
        for (int o = 0; o < at->call.num_outputs; o++)
            at->call.output[o] = ir->values[at->out[o]].tensor;
    }
}

static eq_status build(struct eq_ir *ir, const struct eq_compile_params *params)
{
    EQ_ALLOC(ir->lowered, ir->graph->num_values);
    for (int i = 0; i < ir->graph->num_values; i++)
        ir->lowered[i] = -1;
    EQ_TRY(eq_ir_lower(ir));
    if (params->loss != EQ_NO_VALUE)
        EQ_TRY(eq_ir_differentiate(ir, ir->lowered[params->loss], params->input_gradients));
    if (params->loss != EQ_NO_VALUE && params->recompute)
        EQ_TRY(eq_ir_recompute(ir));
    mark_constants(ir);
    settle_halos(ir);
    return eq_ir_slice(ir, params);
}

eq_status eq_ir_create(const struct eq_graph *graph, const struct eq_target *target, const struct eq_compile_params *params,
                       struct eq_ir **ir)
{
    EQ_ALLOC(*ir, 1);
    (*ir)->graph = graph;
    (*ir)->target = *target;
    (*ir)->training = params->training;
    eq_status status = build(*ir, params);
    if (status != EQ_OK)
        eq_ir_destroy(ir);
    return status;
}

void eq_ir_destroy(struct eq_ir **ir)
{
    if (!*ir)
        return;
    for (int i = 0; i < (*ir)->num_calls; i++)
        free((*ir)->calls[i].attributes);
    free((*ir)->calls);
    free((*ir)->values);
    free((*ir)->stretches);
    free((*ir)->lowered);
    free(*ir);
    *ir = NULL;
}

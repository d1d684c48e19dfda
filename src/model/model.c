// Networks as graphs of their own, initial values, and what a network costs.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/model.h"

static eq_status fill_graph(const struct eq_model_params *params, int n, int h, int w, float smoothing,
                            struct eq_model_graph *model)
{
    EQ_TRY(eq_graph_create(&model->graph));
    EQ_TRY(eq_graph_input(model->graph, "input", n, 3, h, w, &model->images));
    EQ_TRY(eq_model_build(model->graph, params, model->images, &model->logits));
    EQ_TRY(eq_graph_output(model->graph, model->logits, "logits"));
    if (smoothing < 0)
        return EQ_OK;
    EQ_TRY(eq_graph_labels(model->graph, "labels", n, &model->labels));
    EQ_TRY(eq_graph_cross_entropy(model->graph, model->logits, model->labels, smoothing, &model->loss));
    return eq_graph_output(model->graph, model->loss, "loss");
}

eq_status eq_model_graph_create(const struct eq_model_params *params, int n, int h, int w, float smoothing,
                                struct eq_model_graph *model)
{
    *model = (struct eq_model_graph){ .labels = EQ_NO_VALUE, .loss = EQ_NO_VALUE };
    eq_status status = fill_graph(params, n, h, w, smoothing, model);
    if (status != EQ_OK)
        eq_model_graph_destroy(model);
    return status;
}

void eq_model_graph_destroy(struct eq_model_graph *model)
{
    eq_graph_destroy(&model->graph);
}

// ---- initial values

static size_t logical(const struct eq_store_entry *entry)
{
    return (size_t)entry->shape[0] * (size_t)entry->shape[1] * (size_t)entry->shape[2] * (size_t)entry->shape[3];
}

static void fill_value(float *values, size_t n, float value)
{
    for (size_t i = 0; i < n; i++)
        values[i] = value;
}

static void fill_uniform(float *values, size_t n, uint64_t key, double bound)
{
    for (size_t i = 0; i < n; i++)
        values[i] = (float)(bound * (2 * eq_random_unit(key, i) - 1));
}

// Fan-in of the linear layer that a bias belongs to, or 0 when its weight is no matrix (batch norm, layer norm).
static int linear_fan_in(const struct eq_store *store, const char *bias)
{
    char name[256];
    snprintf(name, sizeof name, "%.*s.weight", (int)(strlen(bias) - strlen(".bias")), bias);
    const struct eq_store_entry *weight = eq_store_find(store, name);
    return weight && weight->rank == 2 ? weight->shape[1] : 0;
}

bool eq_model_is_drawn(const struct eq_store *store, const struct eq_store_entry *entry)
{
    return entry->kind == EQ_VALUE_PARAMETER &&
           (entry->rank >= 2 || (eq_str_ends(entry->name, ".bias") && linear_fan_in(store, entry->name) > 0));
}

static void fill_state(const struct eq_store_entry *entry, float *values)
{
    size_t n = logical(entry);
    fill_value(values, n, eq_str_ends(entry->name, "running_var") ? 1.0f : 0.0f);
    int g = entry->shape[1];
    for (size_t i = 0; eq_str_ends(entry->name, "running_wm") && i < n; i++)
        values[i] = i / (size_t)g % (size_t)g == i % (size_t)g ? 1.0f : 0.0f;
}

void eq_model_initial(const struct eq_store *store, const struct eq_store_entry *entry, uint64_t seed, float *values)
{
    size_t n = logical(entry);
    const int *s = entry->shape;
    uint64_t key = eq_random_key(seed, 0, eq_fnv1a(entry->name, strlen(entry->name), EQ_FNV_START), "initialise");
    if (entry->kind == EQ_VALUE_STATE) {
        fill_state(entry, values);
    } else if (entry->rank == 4) {
        double deviation = sqrt(2.0 / ((double)s[0] * s[2] * s[3]));
        for (size_t i = 0; i < n; i++)
            values[i] = (float)(deviation * eq_random_normal(key, i));
    } else if (entry->rank == 2) {
        fill_uniform(values, n, key, 1 / sqrt(s[1]));
    } else if (eq_str_ends(entry->name, ".bias")) {
        int fan_in = linear_fan_in(store, entry->name);
        fill_uniform(values, n, key, fan_in ? 1 / sqrt(fan_in) : 0.0);
    } else {
        fill_value(values, n, eq_str_ends(entry->name, "x_weight") ? 0.0f : 1.0f);
    }
}

// ---- cost

// Parameters that a call reads, directly or through what is prepared from them, and that no call before it has read.
static size_t count_parameters(const struct eq_ir *ir, const struct eq_ir_call *call, bool *counted)
{
    size_t parameters = 0;
    for (int i = 0; i < call->call.num_inputs; i++) {
        const int v = call->in[i];
        if (v < 0 || counted[v])
            continue;
        const struct eq_ir_value *value = &ir->values[v];
        const struct eq_ir_call *producer = value->producer >= 0 ? &ir->calls[value->producer] : NULL;
        if (value->kind == EQ_VALUE_PARAMETER)
            parameters += eq_tensor_logical(&value->tensor);
        else if (producer && producer->is_constant)
            parameters += count_parameters(ir, producer, counted);
        else
            continue;
        counted[v] = true;
    }
    return parameters;
}

// What is prepared once is no layer.
static void add_layers(const struct eq_ir *ir, bool *counted, struct eq_model_info *info)
{
    for (int c = 0; c < ir->num_calls; c++) {
        const struct eq_ir_call *call = &ir->calls[c];
        if (call->is_constant)
            continue;
        const struct eq_tensor *out = &call->call.output[0];
        struct eq_layer_info *layer = &info->layers[info->num_layers++];
        snprintf(layer->name, sizeof layer->name, "%s", call->label);
        snprintf(layer->op, sizeof layer->op, "%s", call->call.op->name);
        memcpy(layer->shape, (int[4]){ out->n, out->c, out->h, out->w }, sizeof layer->shape);
        layer->flops = call->call.op->cost(&call->call).flops;
        layer->parameters = count_parameters(ir, call, counted);
        info->flops += layer->flops;
        info->parameters += layer->parameters;
        info->conv_flops += eq_call_conv_flops(&call->call);
    }
}

static eq_status list_layers(const struct eq_ir *ir, struct eq_model_info *info)
{
    bool *counted;
    EQ_ALLOC(info->layers, ir->num_calls);
    EQ_ALLOC(counted, ir->num_values);
    add_layers(ir, counted, info);
    free(counted);
    return EQ_OK;
}

static void count_tensors(const struct eq_ir *ir, struct eq_model_info *info)
{
    for (int v = 0; v < ir->num_values; v++) {
        const struct eq_ir_value *value = &ir->values[v];
        if (value->kind != EQ_VALUE_PARAMETER && value->kind != EQ_VALUE_STATE)
            continue;
        info->tensors++;
        if (eq_str_ends(ir->graph->values[value->front].name, ".running_var"))
            info->tensors++; // PyTorch keeps a num_batches_tracked beside each
    }
}

static eq_status describe_inference(const struct eq_target *target, const struct eq_model_graph *model,
                                    struct eq_model_info *info, size_t *arena_bytes)
{
    struct eq_ir *ir;
    size_t parameter_bytes, state_bytes, slot_bytes;
    EQ_TRY(eq_ir_create(model->graph, target, &(struct eq_compile_params){ .loss = EQ_NO_VALUE }, &ir));
    eq_status status = eq_plan_bytes(ir, arena_bytes, &slot_bytes);
    if (status == EQ_OK)
        status = list_layers(ir, info);
    if (status == EQ_OK) {
        eq_store_sizes(ir, &parameter_bytes, &state_bytes);
        count_tensors(ir, info);
        info->weight_bytes = parameter_bytes + state_bytes;
        info->inference_bytes = info->weight_bytes + *arena_bytes + slot_bytes;
    }
    eq_ir_destroy(&ir);
    return status;
}

// A training step, as planned.
struct training {
    size_t bytes, arena_bytes; // all, and activations of it
    struct eq_cost cost;
};

static eq_status describe_training(const struct eq_target *target, const struct eq_model_graph *model, bool recompute,
                                   struct training *training)
{
    struct eq_ir *ir;
    size_t parameter_bytes, state_bytes, slot_bytes;
    const struct eq_compile_params params = { .training = true, .loss = model->loss, .recompute = recompute };
    *training = (struct training){ 0 };
    EQ_TRY(eq_ir_create(model->graph, target, &params, &ir));
    eq_status status = eq_plan_bytes(ir, &training->arena_bytes, &slot_bytes);
    if (status == EQ_OK) {
        eq_store_sizes(ir, &parameter_bytes, &state_bytes);
        training->bytes = 3 * parameter_bytes + state_bytes + training->arena_bytes + slot_bytes;
    }
    for (int c = 0; c < ir->num_calls; c++) {
        const struct eq_cost cost = ir->calls[c].call.op->cost(&ir->calls[c].call);
        training->cost.flops += cost.flops;
        training->cost.bytes += cost.bytes;
    }
    eq_ir_destroy(&ir);
    return status;
}

static eq_status describe(const struct eq_target *target, const struct eq_model_params *params, int n, int h, int w,
                          struct eq_model_info *info)
{
    struct eq_model_graph model;
    struct training kept, again;
    size_t arena_bytes;
    EQ_TRY(eq_model_graph_create(params, n, h, w, -1, &model));
    eq_status status = describe_inference(target, &model, info, &arena_bytes);
    eq_model_graph_destroy(&model);
    EQ_TRY(status);
    EQ_TRY(eq_model_graph_create(params, n, h, w, 0.1f, &model));
    status = describe_training(target, &model, false, &kept);
    if (status == EQ_OK)
        status = describe_training(target, &model, true, &again);
    eq_model_graph_destroy(&model);
    if (status == EQ_ERR_SHAPE)
        return EQ_OK; // evaluation takes it
    EQ_TRY(status);
    info->training_bytes = kept.bytes;
    info->recompute_bytes = again.bytes;
    info->validation_bytes = info->inference_bytes - info->weight_bytes;
    if (arena_bytes <= (params->recompute ? again : kept).arena_bytes)
        info->validation_bytes -= arena_bytes;
    info->training_flops = kept.cost.flops;
    info->training_traffic = kept.cost.bytes;
    info->recompute_flops = again.cost.flops - kept.cost.flops;
    info->recompute_traffic = again.cost.bytes - kept.cost.bytes;
    return EQ_OK;
}

eq_status eq_model_describe(const struct eq_device *device, const struct eq_model_params *params, int n, int h, int w,
                            struct eq_model_info *info)
{
    const struct eq_target target = device ? device->target : eq_target_default();
    *info = (struct eq_model_info){ 0 };
    eq_status status = describe(&target, params, n, h, w, info);
    if (status != EQ_OK)
        eq_model_info_free(info);
    return status;
}

void eq_model_info_free(struct eq_model_info *info)
{
    free(info->layers);
    *info = (struct eq_model_info){ 0 };
}

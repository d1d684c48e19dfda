// Measures single ops: every different call of a plan, alone.
//
// The calls are those of a compiled graph, so shapes, halos, fused parts and chosen algorithms are what the network runs. Each
// gets inputs of its own, random and nowhere zero by construction. What only another op can make (the moments that a
// gradient needs, the places of maxima, prepared filters) is made by running that op first, on the same inputs.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph/graph.h"
#include "model/model.h"
#include "op/conv2d_gated.h"
#include "train/bench_op.h"
#include "train/sample.h"

enum { SAMPLES = 64 };
// Sums in float against sums in double, over the sum of absolute values: 4096 products differ by about 1e-6; Winograd's
// transforms by 1e-5 of the largest value; a missing product by 1e-4 and more.
static const double TOLERANCE = 3e-5;
// What rounding both factors of a product to a narrower format adds, at most.
static const double ROUNDING[] = { [EQ_FP32] = 0, [EQ_TF32] = 1.0 / 1024, [EQ_FP16] = 1.0 / 1024, [EQ_BF16] = 1.0 / 128 };

struct session {
    struct eq_device *device;
    const struct eq_ir *ir;
    const struct eq_ir_call *at;
    struct eq_buffer **buffers; // [ir values]
    float **plain;              // [ir values], of random inputs
    struct eq_list *list;
};

// ---- inputs

// Numbers for a value: images, activations and filters around 0; vectors (scales, variances) around 1; labels.
static eq_status make_random(struct session *s, int value, const struct eq_tensor *t, int classes)
{
    const size_t num = eq_tensor_logical(t), elems = eq_tensor_elems(t);
    EQ_TRY(eq_buffer_create(s->device, eq_tensor_bytes(t), &s->buffers[value]));
    float *plain = eq_malloc(num, sizeof *plain), *stored = eq_malloc(elems, sizeof *stored);
    s->plain[value] = plain;
    eq_status status = plain && stored ? EQ_OK : EQ_ERR_HOST_MEMORY;
    const uint64_t key = eq_random_key(0, 0, (uint64_t)value, "bench");
    const double shift = t->form == EQ_FORM_PLAIN ? 0.5 : -0.5;
    for (size_t i = 0; status == EQ_OK && i < num; i++)
        plain[i] = (float)(eq_random_unit(key, i) + shift);
    for (size_t i = 0; status == EQ_OK && t->dtype == EQ_I32 && i < elems; i++)
        ((int32_t *)stored)[i] = (int32_t)(i * 7 % (size_t)classes);
    if (status == EQ_OK && t->dtype != EQ_I32)
        eq_tensor_pack(t, plain, stored);
    if (status == EQ_OK)
        status = eq_ref_write(eq_ref_at(s->buffers[value], 0), stored, elems, sizeof *stored);
    free(stored);
    return status;
}

// Whether only the call that makes it can make the value.
static bool is_derived(const struct session *s, int value)
{
    const int producer = s->ir->values[value].producer;
    const struct eq_op *op = producer >= 0 ? s->ir->calls[producer].call.op : NULL;
    return op && (s->ir->calls[producer].out[0] != value || op == &eq_op_conv2d_prepare || op == &eq_op_unit_prepare);
}

static eq_status make_outputs(struct session *s, const struct eq_ir_call *at)
{
    for (int o = 0; o < at->call.num_outputs; o++) {
        if (s->buffers[at->out[o]])
            continue;
        EQ_TRY(eq_buffer_create(s->device, eq_tensor_bytes(&at->call.output[o]), &s->buffers[at->out[o]]));
    }
    return EQ_OK;
}

static eq_status emit(struct session *s, const struct eq_ir_call *at, struct eq_list *list)
{
    struct eq_ref in[EQ_MAX_OPERANDS], out[EQ_MAX_OPERANDS];
    for (int i = 0; i < at->call.num_inputs; i++)
        in[i] = at->call.has[i] ? eq_ref_at(s->buffers[at->in[i]], 0) : EQ_REF_NONE;
    for (int o = 0; o < at->call.num_outputs; o++)
        out[o] = eq_ref_at(s->buffers[at->out[o]], 0);
    return at->call.op->emit(list, &at->call, in, out);
}

static eq_status run_producer(struct session *s, const struct eq_ir_call *at);

// Derived values first: making them makes other values of the same op, too.
static eq_status make_inputs(struct session *s, const struct eq_ir_call *at)
{
    for (int derived = 1; derived >= 0; derived--)
        for (int i = 0; i < at->call.num_inputs; i++) {
            const int value = at->in[i];
            if (!at->call.has[i] || s->buffers[value] || is_derived(s, value) != (derived == 1))
                continue;
            if (derived)
                EQ_TRY(run_producer(s, &s->ir->calls[s->ir->values[value].producer]));
            else
                EQ_TRY(make_random(s, value, &at->call.input[i], at->call.input[0].c));
        }
    return EQ_OK;
}

static eq_status run_producer(struct session *s, const struct eq_ir_call *at)
{
    struct eq_list *list = NULL;
    EQ_TRY(make_inputs(s, at));
    EQ_TRY(make_outputs(s, at));
    EQ_TRY(eq_list_create(s->device, &list));
    eq_status status = emit(s, at, list);
    if (status == EQ_OK)
        status = eq_list_run(list);
    if (status == EQ_OK)
        status = eq_device_finish(s->device);
    eq_list_destroy(&list);
    return status;
}

// ---- verification

static eq_status run_into(struct session *s, float *plain, float *stored)
{
    const struct eq_tensor *t = &s->at->call.output[0];
    struct eq_ref ref = eq_ref_at(s->buffers[s->at->out[0]], 0);
    EQ_TRY(eq_list_run(s->list));
    EQ_TRY(eq_device_finish(s->device));
    EQ_TRY(eq_ref_read(ref, stored, eq_tensor_elems(t), sizeof *stored));
    eq_tensor_unpack(t, stored, plain);
    return EQ_OK;
}

static eq_status check_finite(const struct session *s, const float *plain, size_t num)
{
    bool differs = num < 2;
    for (size_t i = 0; i < num; i++) {
        EQ_REQUIRE(isfinite(plain[i]), EQ_ERR_NUMERIC, "%s: element %zu of %zu is %g: the device computes wrongly",
                   s->at->call.op->name, i, num, (double)plain[i]);
        differs = differs || plain[i] != plain[0];
    }
    EQ_REQUIRE(differs, EQ_ERR_NUMERIC, "%s: all %zu elements are %g: the device computes wrongly", s->at->call.op->name, num,
               (double)plain[0]);
    return EQ_OK;
}

// The call's inputs in plain order; those that another op made are read back.
static eq_status read_inputs(struct session *s, const struct eq_ir_call *at, const float *inputs[EQ_MAX_OPERANDS])
{
    const struct eq_call *call = &at->call;
    for (int i = 0; i < call->num_inputs; i++) {
        const struct eq_tensor *t = &call->input[i];
        const int value = at->in[i];
        inputs[i] = NULL;
        if (!call->has[i])
            continue;
        if (!s->plain[value]) {
            float *stored = eq_malloc(eq_tensor_elems(t), sizeof *stored);
            s->plain[value] = eq_malloc(eq_tensor_logical(t), sizeof(float));
            eq_status status = stored && s->plain[value] ? EQ_OK : EQ_ERR_HOST_MEMORY;
            if (status == EQ_OK)
                status = eq_ref_read(eq_ref_at(s->buffers[value], 0), stored, eq_tensor_elems(t), sizeof *stored);
            if (status == EQ_OK)
                eq_tensor_unpack(t, stored, s->plain[value]);
            free(stored);
            EQ_TRY(status);
        }
        inputs[i] = s->plain[value];
    }
    return EQ_OK;
}

// The call that prepared the filter of a fused convolution, or NULL.
static const struct eq_ir_call *find_prepare(const struct session *s)
{
    const int producer = s->at->call.op == &eq_op_conv2d_fused ? s->ir->values[s->at->in[1]].producer : -1;
    return producer >= 0 ? &s->ir->calls[producer] : NULL;
}

// Sampled elements against double precision.
static eq_status check_samples(struct session *s, const float *plain, size_t num, struct eq_bench_op *op)
{
    const struct eq_call *call = &s->at->call;
    const struct eq_ir_call *prepare = find_prepare(s);
    const float *inputs[EQ_MAX_OPERANDS], *prepared[EQ_MAX_OPERANDS] = { NULL };
    const eq_bench_expect_fn expect = eq_bench_expect(call);
    op->check = EQ_BENCH_CHECK_REPEAT;
    if (!expect && !prepare)
        return EQ_OK;
    EQ_TRY(read_inputs(s, s->at, inputs));
    if (prepare)
        EQ_TRY(read_inputs(s, prepare, prepared));
    const double tolerance = TOLERANCE + ROUNDING[s->device->target.precision];
    const uint64_t key = eq_random_key(0, 0, 0, "sample");
    for (size_t k = 0; k < SAMPLES; k++) {
        const size_t at = k == 0 ? 0 : k == 1 ? num - 1 : (size_t)(eq_random_bits(key, k) % num);
        double magnitude = 0;
        const double want = prepare ? eq_bench_expect_fused(call, &prepare->call, inputs, prepared, at, &magnitude)
                                    : expect(call, inputs, at, &magnitude);
        const double error = fabs(want - (double)plain[at]);
        EQ_REQUIRE(error <= tolerance * magnitude, EQ_ERR_NUMERIC,
                   "%s %s: element %zu of %zu is %.9g, in double precision %.9g: the device computes wrongly", op->op,
                   op->label, at, num, (double)plain[at], want);
        op->worst_error = fmax(op->worst_error, magnitude > 0 ? error / magnitude : 0);
    }
    op->check = EQ_BENCH_CHECK_DOUBLE;
    return EQ_OK;
}

// The output is NaN before the first run: what is not written shows.
static eq_status verify_into(struct session *s, float *first, float *second, float *stored, struct eq_bench_op *op)
{
    const struct eq_tensor *t = &s->at->call.output[0];
    const size_t num = eq_tensor_logical(t), elems = eq_tensor_elems(t);
    for (size_t i = 0; i < elems; i++)
        stored[i] = NAN;
    EQ_TRY(eq_ref_write(eq_ref_at(s->buffers[s->at->out[0]], 0), stored, elems, sizeof *stored));
    EQ_TRY(run_into(s, first, stored));
    EQ_TRY(check_finite(s, first, num));
    EQ_TRY(check_samples(s, first, num, op));
    EQ_TRY(run_into(s, second, stored));
    EQ_REQUIRE(memcmp(first, second, num * sizeof *first) == 0, EQ_ERR_NUMERIC,
               "%s %s: two runs on the same input differ: the device computes wrongly", op->op, op->label);
    return EQ_OK;
}

static eq_status verify(struct session *s, struct eq_bench_op *op)
{
    const struct eq_tensor *t = &s->at->call.output[0];
    const size_t num = eq_tensor_logical(t);
    float *first = eq_malloc(num, sizeof *first), *second = eq_malloc(num, sizeof *second);
    float *stored = eq_malloc(eq_tensor_elems(t), sizeof *stored);
    eq_status status = first && second && stored ? verify_into(s, first, second, stored, op) : EQ_ERR_HOST_MEMORY;
    free(first);
    free(second);
    free(stored);
    return status;
}

// ---- one call

static eq_status run_list(void *user, int repeats)
{
    struct session *s = user;
    for (int r = 0; r < repeats; r++)
        EQ_TRY(eq_list_run(s->list));
    return eq_device_finish(s->device);
}

static eq_status bench_call(struct session *s, const struct eq_bench_params *params, struct eq_bench_op *op)
{
    const double seconds = params->seconds > 0 ? params->seconds : 0.5;
    const double precision = params->precision > 0 ? params->precision : 0.005;
    EQ_ALLOC(s->buffers, s->ir->num_values);
    EQ_ALLOC(s->plain, s->ir->num_values);
    EQ_TRY(make_inputs(s, s->at));
    EQ_TRY(make_outputs(s, s->at));
    EQ_TRY(eq_list_create(s->device, &s->list));
    EQ_TRY(emit(s, s->at, s->list));
    EQ_TRY(verify(s, op));
    return eq_bench_sample(run_list, s, seconds, precision, &op->wall);
}

static void close_session(struct session *s)
{
    eq_list_destroy(&s->list);
    for (int v = 0; v < s->ir->num_values; v++) {
        if (s->buffers)
            eq_buffer_destroy(&s->buffers[v]);
        if (s->plain)
            free(s->plain[v]);
    }
    free(s->buffers);
    free(s->plain);
}

// ---- the calls of a plan

static bool is_same_call(const struct eq_call *a, const struct eq_call *b)
{
    return a->op == b->op && a->training == b->training && a->num_inputs == b->num_inputs &&
           memcmp(a->has, b->has, sizeof a->has) == 0 && memcmp(a->input, b->input, sizeof a->input) == 0 &&
           memcmp(a->output, b->output, sizeof a->output) == 0 &&
           (a->op->attribute_bytes == 0 || memcmp(a->attributes, b->attributes, a->op->attribute_bytes) == 0);
}

static void describe_extents(const struct eq_tensor *t, struct eq_str *text)
{
    if (t->h == 1 && t->w == 1)
        eq_str_append(text, "%d", t->c);
    else
        eq_str_append(text, "%dx%dx%d", t->c, t->h, t->w);
}

// What a convolution in one of its directions is asked for; NULL for other ops.
static const struct eq_conv2d_attributes *conv_of(const struct eq_call *call)
{
    return eq_call_conv_flops(call) > 0 ? call->attributes : NULL; // every attribute struct begins with the convolution's own
}

// Filter's height of a convolution; 0 for other ops.
static int kernel_of(const struct eq_call *call)
{
    if (call->op == &eq_op_conv2d || call->op == &eq_op_conv2d_data_grad)
        return call->input[1].h;
    if (call->op == &eq_op_conv2d_weight_grad)
        return call->output[0].h;
    if (call->op == &eq_op_conv2d_gated)
        return call->input[EQ_CONV2D_GATED_FILTER].h;
    return call->op == &eq_op_conv2d_fused ? ((const struct eq_conv2d_fused_attributes *)call->attributes)->kh : 0;
}

// What is done with the sums on their way out, of ops that may do it; unit_grad's attributes begin with the unit's.
static void describe_end(const struct eq_call *call, struct eq_str *text)
{
    static const char *const methods[] = { "none", "bn", "ce", "bd", "ir", "se" }, *const acts[] = { "", " relu", " elu" };
    const struct eq_unit_attributes *unit = call->attributes;
    const struct eq_conv2d_fused_attributes *fused = call->attributes;
    const struct eq_conv2d_gated_attributes *gated = call->attributes;
    if (call->op == &eq_op_conv2d_fused)
        eq_str_append(text, "%s%s", call->has[EQ_CONV2D_FUSED_RESIDUAL] ? " + residual" : "", acts[fused->activation]);
    else if (call->op == &eq_op_conv2d_data_grad)
        eq_str_append(text, "%s", call->has[EQ_CONV2D_DATA_GRAD_ADD] ? " + gradient" : "");
    else if (call->op == &eq_op_conv2d_gated)
        unit = &gated->unit;
    if (call->op != &eq_op_unit && call->op != &eq_op_unit_grad && call->op != &eq_op_conv2d_gated)
        return;
    const int residual = call->op == &eq_op_unit_grad ? ((const struct eq_unit_grad_attributes *)call->attributes)->has_residual
                                                      : call->has[EQ_UNIT_RESIDUAL];
    eq_str_append(text, " %s%s%s%s", methods[unit->method], residual ? " + residual" : "", acts[unit->activation],
                  call->op == &eq_op_unit_grad && call->has[EQ_UNIT_GRAD_DRES_ADD] ? " + gradient" : "");
}

static eq_status describe(const struct eq_call *call, char *shape, size_t bytes)
{
    struct eq_str text = { 0 };
    const struct eq_conv2d_attributes *conv = conv_of(call);
    const bool is_weight_grad = call->op == &eq_op_conv2d_weight_grad;
    describe_extents(&call->input[0], &text);
    eq_str_append(&text, is_weight_grad ? " x " : " -> ");
    describe_extents(is_weight_grad ? &call->input[1] : &call->output[0], &text);
    if (conv)
        eq_str_append(&text, " k%d s%d", kernel_of(call), conv->stride_h);
    if (conv && conv->groups > 1)
        eq_str_append(&text, " g%d", conv->groups);
    describe_end(call, &text);
    snprintf(shape, bytes, "%s", text.text ? text.text : "");
    const bool failed = text.failed;
    eq_str_free(&text);
    return failed ? EQ_ERR_HOST_MEMORY : EQ_OK;
}

static eq_status add_op(const struct eq_ir_call *at, const char *label, struct eq_bench_ops *ops, struct eq_bench_op **op)
{
    struct eq_bench_op *grown = realloc(ops->ops, (size_t)(ops->num + 1) * sizeof *grown);
    EQ_REQUIRE(grown, EQ_ERR_HOST_MEMORY, "out of memory: %d ops", ops->num + 1);
    ops->ops = grown;
    *op = &grown[ops->num++];
    const struct eq_cost cost = at->call.op->cost(&at->call);
    **op = (struct eq_bench_op){ .count = 1, .flops = cost.flops, .bytes = cost.bytes };
    snprintf((*op)->op, sizeof(*op)->op, "%s", at->call.op->name);
    snprintf((*op)->label, sizeof(*op)->label, "%.63s", label);
    return describe(&at->call, (*op)->shape, sizeof(*op)->shape);
}

// A call that came before and is the same, or -1.
static int find_same(const struct eq_ir *ir, int call)
{
    for (int c = 0; c < call; c++)
        if (is_same_call(&ir->calls[c].call, &ir->calls[call].call))
            return c;
    return -1;
}

// What stands around the layer in the graph of a shape.
static bool is_frame(const char *label)
{
    static const char *const frame[] = { "before", "avgpool", "head", "loss" };
    for (size_t i = 0; i < sizeof frame / sizeof *frame; i++)
        if (strcmp(label, frame[i]) == 0)
            return true;
    return false;
}

// "all" is what a batch runs: not what is prepared once. "conv2d" is every convolution: in evaluation most are conv2d_fused.
// But conv2d_gated is more than one.
static bool is_wanted(const char *op, const struct eq_ir_call *at)
{
    return strcmp(op, "all") == 0
               ? !at->is_constant
               : strcmp(op, at->call.op->name) == 0 || (strcmp(op, "conv2d") == 0 && at->call.op == &eq_op_conv2d_fused);
}

// Each call that comes more than once is measured once, at its first
// place. shape: the name of the one layer that is of interest, or NULL: the graph is a network.
static eq_status bench_plan(struct eq_device *device, const struct eq_ir *ir, const char *op, const char *shape,
                            const struct eq_bench_params *params, struct eq_bench_ops *ops)
{
    for (int c = 0; c < ir->num_calls; c++) {
        const struct eq_ir_call *at = &ir->calls[c];
        if (!is_wanted(op, at) || (shape && is_frame(at->label)) || find_same(ir, c) >= 0)
            continue;
        struct eq_bench_op *made = NULL;
        EQ_TRY(add_op(at, shape ? shape : at->label, ops, &made));
        for (int later = c + 1; later < ir->num_calls; later++)
            made->count += is_same_call(&at->call, &ir->calls[later].call);
        struct session session = { .device = device, .ir = ir, .at = at };
        EQ_TRY(eq_bench_peaks(device, &ops->peak_flops, &ops->peak_bytes));
        eq_status status = bench_call(&session, params, made);
        close_session(&session);
        if (status != EQ_OK)
            return eq_fail(status, "%s (%s): %s", at->label, made->shape, eq_last_error());
    }
    return EQ_OK;
}

static void list_ops(const struct eq_ir *ir, struct eq_str *names)
{
    for (int c = 0; c < ir->num_calls; c++)
        eq_str_append_name(names, ir->calls[c].call.op->name);
}

static eq_status check_found(const struct eq_bench_ops *ops, const char *op, const struct eq_str *names)
{
    EQ_REQUIRE(ops->num > 0, EQ_ERR_NOT_FOUND, "no op %s in the plan; it has %s, and all", op,
               names->text ? names->text : "none");
    return EQ_OK;
}

static eq_status bench_graph(struct eq_device *device, const struct eq_graph *graph, const struct eq_compile_params *compile,
                             const char *op, const char *shape, const struct eq_bench_params *params, struct eq_str *names,
                             struct eq_bench_ops *ops)
{
    struct eq_ir *ir;
    EQ_TRY(eq_ir_create(graph, &device->target, compile, &ir));
    eq_status status = bench_plan(device, ir, op, shape, params, ops);
    list_ops(ir, names);
    eq_ir_destroy(&ir);
    return status;
}

static eq_status finish_ops(struct eq_device *device, const char *op, struct eq_str *names, eq_status status,
                            struct eq_bench_ops *ops)
{
    if (status == EQ_OK)
        status = check_found(ops, op, names);
    eq_str_free(names);
    if (status == EQ_OK)
        status = eq_bench_peaks(device, &ops->peak_flops, &ops->peak_bytes);
    if (status != EQ_OK)
        eq_bench_ops_free(ops);
    return status;
}

eq_status eq_network_bench_ops(struct eq_device *device, const struct eq_model_params *network, const char *op,
                               const struct eq_bench_params *params, struct eq_bench_ops *ops)
{
    struct eq_model_graph model;
    struct eq_str names = { 0 };
    *ops = (struct eq_bench_ops){ 0 };
    EQ_TRY(eq_model_check(network));
    EQ_TRY(eq_model_graph_create(network, params->n, params->size, params->size, params->training ? 0.1f : -1, &model));
    const struct eq_compile_params compile = { .training = params->training,
                                               .loss = model.loss,
                                               .recompute = network->recompute };
    eq_status status = bench_graph(device, model.graph, &compile, op, NULL, params, &names, ops);
    eq_model_graph_destroy(&model);
    return finish_ops(device, op, &names, status, ops);
}

static eq_status bench_line(struct eq_device *device, const char *line, const char *op, const struct eq_bench_params *params,
                            struct eq_str *names, struct eq_bench_ops *ops)
{
    char name[64];
    struct eq_graph *graph;
    int loss;
    EQ_TRY(eq_bench_shape_graph(line, params->n, params->training, name, &graph, &loss));
    const struct eq_compile_params compile = { .training = params->training, .loss = loss };
    eq_status status = bench_graph(device, graph, &compile, op, name, params, names, ops);
    eq_graph_destroy(&graph);
    return status;
}

eq_status eq_shapes_bench_ops(struct eq_device *device, const char *file, const char *text, const char *op,
                              const struct eq_bench_params *params, struct eq_bench_ops *ops)
{
    struct eq_str names = { 0 };
    eq_status status = EQ_OK;
    *ops = (struct eq_bench_ops){ 0 };
    int number = 1, num_layers = 0;
    for (const char *line = text; *line && status == EQ_OK; number++) {
        const size_t length = strcspn(line, "\n");
        char copy[256];
        snprintf(copy, sizeof copy, "%.*s", (int)(length < 255 ? length : 255), line);
        const bool is_cut = length > 255 && !strchr(copy, '#');
        copy[strcspn(copy, "#")] = '\0';
        if (is_cut)
            status = eq_fail(EQ_ERR_FORMAT, "a line of %zu bytes, 255 are possible", length);
        else if (copy[strspn(copy, " \t\r")] != '\0' && ++num_layers)
            status = bench_line(device, copy, op, params, &names, ops);
        if (status != EQ_OK)
            status = eq_fail(status, "%s:%d: %s", file, number, eq_last_error());
        line += length + (line[length] == '\n');
    }
    if (status == EQ_OK && num_layers == 0)
        status = eq_fail(EQ_ERR_FORMAT, "%s: there is no layer in it", file);
    return finish_ops(device, op, &names, status, ops);
}

void eq_bench_ops_free(struct eq_bench_ops *ops)
{
    free(ops->ops);
    *ops = (struct eq_bench_ops){ 0 };
}

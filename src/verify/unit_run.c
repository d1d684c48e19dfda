// Runs a unit, its gradient and its evaluation. Inputs stand between NaNs, and outputs, workspaces included, start as NaN
// between canaries.
#include "verify/unit_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { CANARY_ELEMS = 64, GRAD_ADD = 300 };

// ---- values

struct value {
    struct eq_tensor tensor;
    struct eq_buffer *buffer;
};

// As in call.c: NaNs, so that a read outside of an input shows in the results, and signalling ones, so that what is written
// there after a read there is no longer the same.
static uint32_t canary(size_t place)
{
    return 0x7fa00000u | (uint32_t)place;
}

// Whether it is one, of those before and after a value's elements.
static bool is_canary(size_t place, size_t elems)
{
    return place < CANARY_ELEMS || place >= elems + CANARY_ELEMS;
}

static struct value make_value(struct eq_tensor tensor, const float *plain)
{
    const size_t elems = eq_tensor_elems(&tensor), all = elems + 2 * CANARY_ELEMS;
    float *host = eq_check_malloc(all, sizeof *host);
    struct value v = { tensor, NULL };
    for (size_t i = 0; i < all; i++) {
        const uint32_t word = is_canary(i, elems) ? canary(i) : 0x7fc00000u;
        memcpy(&host[i], &word, sizeof word);
    }
    if (plain)
        eq_tensor_pack(&tensor, plain, host + CANARY_ELEMS);
    EQ_CHECK_OK(eq_buffer_create(eq_check_device, all * sizeof *host, &v.buffer));
    EQ_CHECK_OK(eq_ref_write(eq_ref_at(v.buffer, 0), host, all, sizeof *host));
    free(host);
    return v;
}

static struct eq_ref ref_of(const struct value *v)
{
    return v->buffer ? eq_ref_at(v->buffer, CANARY_ELEMS) : EQ_REF_NONE;
}

// Plain values; checks canaries, and where `is_output` that padding channels and halo are zero.
static float *fetch(const struct value *v, bool is_output)
{
    const size_t elems = eq_tensor_elems(&v->tensor), all = elems + 2 * CANARY_ELEMS;
    float *host = eq_check_malloc(all, sizeof *host), *again = eq_check_malloc(all, sizeof *again);
    float *plain = eq_check_malloc(eq_tensor_logical(&v->tensor), sizeof *plain);
    EQ_CHECK_OK(eq_ref_read(eq_ref_at(v->buffer, 0), host, all, sizeof *host));
    for (size_t i = 0; i < all; i++)
        EQ_CHECK(!is_canary(i, elems) || memcmp(&host[i], &(uint32_t){ canary(i) }, sizeof *host) == 0,
                 "wrote outside of an output");
    eq_tensor_unpack(&v->tensor, host + CANARY_ELEMS, plain);
    eq_tensor_pack(&v->tensor, plain, again);
    for (size_t i = 0; i < elems && is_output; i++)
        EQ_CHECK(host[CANARY_ELEMS + i] == again[i] || (isnan(host[CANARY_ELEMS + i]) && isnan(again[i])),
                 "stored element %zu is %g: padding and halo must be 0, the rest written", i, (double)host[CANARY_ELEMS + i]);
    free(host);
    free(again);
    return plain;
}

void unit_run_free(struct unit_run *r)
{
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++) {
        free(r->input[i]);
        free(r->grad[i]);
        free(r->after[i]);
    }
    free(r->dout);
    free(r->eval_z);
    free(r->dres_add);
    free(r->out);
    free(r->out_eval);
    free(r->out_given);
    free(r->out_pooled);
    free(r->dz);
    free(r->dres);
}

struct eq_unit_attributes unit_attributes_of(const struct unit_case *c)
{
    return (struct eq_unit_attributes){ .method = c->method,
                                        .activation = c->activation,
                                        .group = c->group,
                                        .iterations = c->iterations,
                                        .bn_eps = 1e-5f,
                                        .ce_eps = 1e-5f,
                                        .momentum = 0.1f,
                                        .hidden = c->hidden };
}

bool unit_is_state(int input)
{
    return input == EQ_UNIT_MEAN || input == EQ_UNIT_VAR || input == EQ_UNIT_CE_MEAN || input == EQ_UNIT_CE_WM ||
           input == EQ_UNIT_SCALE;
}

struct unit_reference unit_reference_of(const struct unit_case *c, bool training)
{
    return (struct unit_reference){
        .attributes = unit_attributes_of(c), .n = c->n, .c = c->c, .h = c->h, .w = c->w, .training = training
    };
}

// ---- values of inputs

const char *const unit_input_names[EQ_UNIT_NUM_INPUTS] = {
    "z",     "residual", "gamma",    "beta",    "mean", "var", "x_weight", "ce_mean", "ce_wm",
    "scale", "w1",       "ln_gamma", "ln_beta", "w2",   "fc1", "fc1_bias", "fc2",     "fc2_bias",
};

float *unit_random(const char *purpose, size_t num, float mean, float spread)
{
    float *values = eq_check_malloc(num, sizeof *values);
    for (size_t i = 0; i < num; i++)
        values[i] = mean + spread * (float)eq_random_normal(eq_random_key(3, 0, 0, purpose), i);
    return values;
}

float *unit_input_values(const struct unit_reference *reference, int input, size_t num, float offset)
{
    const float fan = 1.0f / sqrtf((float)reference->c), hidden_fan = 1.0f / sqrtf((float)(reference->attributes.hidden + 1));
    switch (input) {
    case EQ_UNIT_Z: return unit_random("z", num, offset, 1);
    case EQ_UNIT_GAMMA:
    case EQ_UNIT_LN_GAMMA: return unit_random(unit_input_names[input], num, 1, 0.3f);
    case EQ_UNIT_VAR: return unit_random(unit_input_names[input], num, 2, 0.1f);
    case EQ_UNIT_SCALE: return unit_random(unit_input_names[input], num, 1.5f, 0);
    case EQ_UNIT_W1:
    case EQ_UNIT_FC1: return unit_random(unit_input_names[input], num, 0, 2 * fan);
    case EQ_UNIT_W2:
    case EQ_UNIT_FC2: return unit_random(unit_input_names[input], num, 0, 2 * hidden_fan);
    default: return unit_random(unit_input_names[input], num, 0.1f, 0.5f);
    }
}

// ---- running it: a tape that knows one call

// Values by number, as a graph has them: inputs from 0, outputs from 100, the gradient of the output 200, gradients from 400.
struct fake_graph {
    const struct eq_op *op;
    struct eq_unit_grad_attributes attributes;
    int inputs[EQ_MAX_OPERANDS], num_inputs;
    int given[EQ_MAX_OPERANDS]; // by input of the forward call
    bool add, taken;
};

static eq_status fake_call(struct eq_tape *tape, const struct eq_op *op, const void *attributes, const int *inputs,
                           int num_inputs, int *outputs)
{
    struct fake_graph *g = tape->graph;
    EQ_CHECK_TRUE(g->op == NULL);
    EQ_CHECK_INT(op->attribute_bytes, sizeof g->attributes);
    g->op = op;
    memcpy(&g->attributes, attributes, op->attribute_bytes);
    memcpy(g->inputs, inputs, (size_t)num_inputs * sizeof *inputs);
    g->num_inputs = num_inputs;
    for (int i = 0; i < EQ_MAX_OPERANDS; i++)
        outputs[i] = 400 + i;
    return EQ_OK;
}

static int fake_take(struct eq_tape *tape, int input)
{
    struct fake_graph *g = tape->graph;
    EQ_CHECK_INT(input, EQ_UNIT_RESIDUAL);
    g->taken = true;
    return g->add ? GRAD_ADD : EQ_NO_VALUE;
}

static eq_status fake_give(struct eq_tape *tape, int input, int value)
{
    struct fake_graph *g = tape->graph;
    EQ_CHECK_INT(g->given[input], EQ_NO_VALUE);
    g->given[input] = value;
    return EQ_OK;
}

static void execute(const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    struct eq_list *list = NULL;
    EQ_CHECK_OK(eq_list_create(eq_check_device, &list));
    EQ_CHECK_OK(call->op->emit(list, call, in, out));
    EQ_CHECK_OK(eq_list_run(list));
    EQ_CHECK_OK(eq_device_finish(eq_check_device));
    eq_list_destroy(&list);
}

struct eq_tensor unit_activation_tensor(const struct unit_case *c, int halo)
{
    return eq_tensor_blocked(c->n, c->c, c->h, c->w, eq_check_device->target.block, halo);
}

static struct eq_call make_call(const struct unit_run *r, const struct eq_unit_attributes *attributes, bool training,
                                struct value *in)
{
    struct eq_call call = { .op = &eq_op_unit,
                            .attributes = attributes,
                            .target = &eq_check_device->target,
                            .training = training,
                            .num_inputs = EQ_UNIT_NUM_INPUTS };
    const struct unit_reference reference = unit_reference_of(&r->c, training);
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++) {
        call.has[i] = r->input[i] != NULL;
        if (!call.has[i])
            continue;
        call.input[i] = i <= EQ_UNIT_RESIDUAL ? unit_activation_tensor(&r->c, i == EQ_UNIT_Z ? r->c.halo : r->c.halo / 2)
                                              : eq_tensor_vector((int)unit_reference_elems(&reference, i));
        in[i] = make_value(call.input[i], r->input[i]);
    }
    EQ_CHECK_OK(call.op->shape(&call));
    return call;
}

static void free_values(struct value *values, int num)
{
    for (int i = 0; i < num; i++)
        eq_buffer_destroy(&values[i].buffer);
}

// Backward through the call that gradient() asks for.
static void run_backward(struct unit_run *r, const struct eq_call *call, struct value *in, struct value *out)
{
    struct fake_graph graph = { .add = r->dres_add != NULL };
    struct eq_tape tape = { .graph = &graph, .call = fake_call, .take = fake_take, .give = fake_give };
    for (int i = 0; i < EQ_MAX_OPERANDS; i++) {
        tape.input[i] = i < call->num_inputs && call->has[i] ? i : EQ_NO_VALUE;
        tape.output[i] = 100 + i;
        tape.output_grad[i] = i == EQ_UNIT_OUT ? 200 : EQ_NO_VALUE;
        tape.wants[i] = !unit_is_state(i);
        graph.given[i] = EQ_NO_VALUE;
    }
    EQ_CHECK_OK(eq_op_unit.gradient(call, &tape));
    EQ_CHECK_TRUE(graph.op == &eq_op_unit_grad);
    EQ_CHECK_INT(graph.taken, r->c.residual);
    struct eq_call grad = { .op = graph.op,
                            .attributes = &graph.attributes,
                            .target = &eq_check_device->target,
                            .training = true,
                            .num_inputs = graph.num_inputs };
    struct value dout = make_value(unit_activation_tensor(&r->c, r->c.halo / 2), r->dout), add = { 0 };
    if (r->dres_add)
        add = make_value(unit_activation_tensor(&r->c, r->c.halo), r->dres_add);
    struct eq_ref refs[EQ_MAX_OPERANDS], out_refs[EQ_MAX_OPERANDS];
    struct value outputs[EQ_MAX_OPERANDS];
    for (int i = 0; i < grad.num_inputs; i++) {
        const int id = graph.inputs[i];
        const struct value *v = id == 200        ? &dout
                                : id == GRAD_ADD ? &add
                                : id >= 100      ? &out[id - 100]
                                : id >= 0        ? &in[id]
                                                 : NULL;
        grad.has[i] = v != NULL;
        refs[i] = v ? ref_of(v) : EQ_REF_NONE;
        if (v)
            grad.input[i] = v->tensor;
    }
    EQ_CHECK_OK(grad.op->shape(&grad));
    if (r->dres_add) // in place
        EQ_CHECK_INT(grad.op->in_place(&grad, 1), EQ_UNIT_GRAD_DRES_ADD);
    grad.output[0].halo = r->c.halo;
    for (int i = 0; i < grad.num_outputs; i++) {
        outputs[i] = i == 1 && r->dres_add
                         ? add
                         : make_value(i == 1 && r->c.residual ? unit_activation_tensor(&r->c, 0) : grad.output[i], NULL);
        grad.output[i] = outputs[i].tensor;
        out_refs[i] = ref_of(&outputs[i]);
    }
    execute(&grad, refs, out_refs);
    r->dz = fetch(&outputs[0], true);
    r->dres = r->c.residual ? fetch(&outputs[1], true) : NULL;
    free(fetch(&outputs[2], false));
    EQ_CHECK_INT(graph.given[EQ_UNIT_Z], 400);
    EQ_CHECK_INT(graph.given[EQ_UNIT_RESIDUAL], r->c.residual ? 401 : EQ_NO_VALUE);
    for (int i = EQ_UNIT_GAMMA; i < EQ_UNIT_NUM_INPUTS; i++) {
        const bool wanted = r->input[i] && !unit_is_state(i);
        EQ_CHECK_INT(graph.given[i] != EQ_NO_VALUE, wanted);
        if (wanted)
            r->grad[i] = fetch(&outputs[graph.given[i] - 400], true);
    }
    for (int i = 0; i < grad.num_outputs; i++)
        eq_buffer_destroy(&outputs[i].buffer);
    eq_buffer_destroy(&dout.buffer);
}

// What an evaluating unit needs prepared, from the state as it is, into in[EQ_UNIT_PREPARED].
static void run_prepare(const struct unit_run *r, struct eq_call *call, struct value *in)
{
    const struct eq_unit_prepare_attributes attributes = { unit_attributes_of(&r->c), call->input[EQ_UNIT_Z] };
    if (!eq_unit_prepares(&attributes.unit))
        return;
    struct eq_call prepare = { .op = &eq_op_unit_prepare,
                               .attributes = &attributes,
                               .target = &eq_check_device->target,
                               .num_inputs = EQ_UNIT_PREPARED - EQ_UNIT_GAMMA };
    struct eq_ref refs[EQ_UNIT_NUM_INPUTS], out;
    for (int i = EQ_UNIT_GAMMA; i < EQ_UNIT_PREPARED; i++) {
        prepare.has[i - EQ_UNIT_GAMMA] = call->has[i];
        prepare.input[i - EQ_UNIT_GAMMA] = call->input[i];
        refs[i - EQ_UNIT_GAMMA] = ref_of(&in[i]);
    }
    EQ_CHECK_OK(prepare.op->shape(&prepare));
    in[EQ_UNIT_PREPARED] = make_value(prepare.output[0], NULL);
    out = ref_of(&in[EQ_UNIT_PREPARED]);
    execute(&prepare, refs, &out);
    free(fetch(&in[EQ_UNIT_PREPARED], false));
    call->has[EQ_UNIT_PREPARED] = true;
    call->input[EQ_UNIT_PREPARED] = prepare.output[0];
}

// Moments of the input, as a convolution would give them, in parts of 1, 2, 4, .. pixels.
static struct value make_moments(const struct unit_run *r, struct eq_call *call)
{
    enum { MAX_PARTS = 32 };
    const struct eq_tensor *z = &call->input[EQ_UNIT_Z];
    const int pixels = z->h * z->w, blocks = eq_tensor_blocks(z);
    int parts = 0, first[MAX_PARTS + 1] = { 0 };
    for (; first[parts] < pixels; parts++)
        first[parts + 1] = first[parts] + (1 << parts) < pixels ? first[parts] + (1 << parts) : pixels;
    const struct eq_tensor tensor = eq_tensor_plain(EQ_F32, z->n, blocks, parts, 3 * z->block);
    float *values = eq_check_malloc(eq_tensor_logical(&tensor), sizeof *values);
    for (int i = 0; i < z->n * blocks * z->block; i++)
        for (int p = 0; p < parts; p++) {
            const int n = i / (blocks * z->block), c = i % (blocks * z->block), num = first[p + 1] - first[p];
            const float *plane =
                (r->eval_z ? r->eval_z : r->input[EQ_UNIT_Z]) + ((size_t)n * (size_t)z->c + (size_t)c) * (size_t)pixels;
            double sum = 0, square = 0;
            for (int j = first[p]; c < z->c && j < first[p + 1]; j++)
                sum += plane[j];
            for (int j = first[p]; c < z->c && j < first[p + 1]; j++)
                square += (plane[j] - sum / num) * (plane[j] - sum / num);
            float *to = values + ((size_t)(n * blocks + c / z->block) * (size_t)parts + (size_t)p) * (size_t)(3 * z->block) +
                        c % z->block;
            to[0] = (float)(sum / num);
            to[z->block] = (float)square;
            to[2 * z->block] = (float)num;
        }
    const struct value moments = make_value(tensor, values);
    free(values);
    call->has[EQ_UNIT_MOMENTS] = true;
    call->input[EQ_UNIT_MOMENTS] = tensor;
    return moments;
}

static bool takes_moments(const struct unit_run *r)
{
    const struct eq_unit_attributes attributes = unit_attributes_of(&r->c);
    return eq_check_device->target.family == EQ_FAMILY_VECTOR && eq_unit_has_gate(&attributes);
}

// Training forward, backward, and evaluation with the state that training left: as it is, from given moments, with a pooling.
void unit_run_all(struct unit_run *r)
{
    struct eq_unit_attributes attributes = unit_attributes_of(&r->c);
    struct value in[EQ_UNIT_NUM_INPUTS] = { 0 }, out[EQ_UNIT_NUM_OUTPUTS] = { 0 };
    struct eq_ref refs[EQ_UNIT_NUM_INPUTS], out_refs[EQ_UNIT_NUM_OUTPUTS];
    struct eq_call call = make_call(r, &attributes, true, in);
    float **const results[] = { &r->out, &r->out_eval, &r->out_given, &r->out_pooled };
    for (int pass = 0; pass < (!takes_moments(r) ? 2 : r->c.residual ? 3 : 4); pass++) {
        call.training = pass == 0;
        attributes.pools = pass == 3;
        if (pass == 1 && r->eval_z) {
            free_values(&in[EQ_UNIT_Z], 1);
            in[EQ_UNIT_Z] = make_value(call.input[EQ_UNIT_Z], r->eval_z);
        }
        if (pass == 1)
            run_prepare(r, &call, in);
        if (pass == 2)
            in[EQ_UNIT_MOMENTS] = make_moments(r, &call);
        EQ_CHECK_OK(call.op->shape(&call));
        call.output[EQ_UNIT_OUT].halo = pass == 0 ? r->c.halo : r->c.halo / 2;
        for (int i = 0; i < EQ_UNIT_NUM_OUTPUTS; i++) {
            out[i] = make_value(call.output[i], NULL);
            out_refs[i] = ref_of(&out[i]);
        }
        for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++)
            refs[i] = ref_of(&in[i]);
        execute(&call, refs, out_refs);
        *results[pass] = fetch(&out[EQ_UNIT_OUT], true);
        free(fetch(&out[EQ_UNIT_SAVED], false));
        free(fetch(&out[EQ_UNIT_WORKSPACE], false));
        if (pass == 0)
            run_backward(r, &call, in, out);
        free_values(out, EQ_UNIT_NUM_OUTPUTS);
        for (int i = 0; i < EQ_UNIT_NUM_INPUTS && pass == 0; i++)
            if (r->input[i] && unit_is_state(i))
                r->after[i] = fetch(&in[i], true);
    }
    free_values(in, EQ_UNIT_NUM_INPUTS);
}

// ---- comparing

void unit_compare(const char *what, const char *which, const float *got, const double *want, size_t num, double tolerance,
                  double floor)
{
    char text[96];
    snprintf(text, sizeof text, "%s%s", what, which);
    eq_check_norm(text, got, want, num, floor, tolerance);
}

double *unit_doubled(const float *values, size_t num)
{
    double *to = eq_check_malloc(num, sizeof *to);
    for (size_t i = 0; i < num; i++)
        to[i] = values[i];
    return to;
}

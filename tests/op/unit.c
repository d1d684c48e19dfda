// The unit and its gradient, in both kernel families: against files made by the reference implementation (forward, gradients,
// running state, evaluation), and against its definition in double with central differences as gradients.
// Inputs stand between NaNs and outputs, workspaces included, start as NaN between canaries.
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "equil/data.h"
#include "op/op.h"
#include "unit_reference.h"

enum { CANARY_ELEMS = 64, MAX_VALUES = 512, GRAD_ADD = 300 };
static const float CANARY = -12345.5f;

static struct eq_device *device;

#define TRY(call) ck_assert_msg((call) == EQ_OK, "%s", eq_last_error())

// ---- values

struct value {
    struct eq_tensor tensor;
    struct eq_buffer *buffer;
};

static struct value make_value(struct eq_tensor tensor, const float *plain)
{
    const size_t elems = eq_tensor_elems(&tensor), all = elems + 2 * CANARY_ELEMS;
    float *host = malloc(all * sizeof *host);
    struct value v = { tensor, NULL };
    for (size_t i = 0; i < all; i++)
        host[i] = i < CANARY_ELEMS || i >= elems + CANARY_ELEMS ? CANARY : NAN;
    if (plain)
        eq_tensor_pack(&tensor, plain, host + CANARY_ELEMS);
    TRY(eq_buffer_create(device, all * sizeof *host, &v.buffer));
    TRY(eq_ref_write(eq_ref_at(v.buffer, 0), host, all, sizeof *host));
    free(host);
    return v;
}

static struct eq_ref ref_of(const struct value *v)
{
    return v->buffer ? eq_ref_at(v->buffer, CANARY_ELEMS) : EQ_REF_NONE;
}

// Plain values; checks canaries, and where `is_output` that padding channels and halo are zero.
static float *fetch(const struct value *v, const char *what, bool is_output)
{
    const size_t elems = eq_tensor_elems(&v->tensor), all = elems + 2 * CANARY_ELEMS;
    float *host = malloc(all * sizeof *host), *again = malloc(all * sizeof *again);
    float *plain = malloc(eq_tensor_logical(&v->tensor) * sizeof *plain);
    TRY(eq_ref_read(eq_ref_at(v->buffer, 0), host, all, sizeof *host));
    for (size_t i = 0; i < CANARY_ELEMS; i++)
        ck_assert_msg(host[i] == CANARY && host[CANARY_ELEMS + elems + i] == CANARY, "%s: wrote outside of its output", what);
    eq_tensor_unpack(&v->tensor, host + CANARY_ELEMS, plain);
    eq_tensor_pack(&v->tensor, plain, again);
    for (size_t i = 0; i < elems && is_output; i++)
        ck_assert_msg(host[CANARY_ELEMS + i] == again[i],
                      "%s: stored element %zu is %g: padding and halo must be 0, the rest written", what, i,
                      (double)host[CANARY_ELEMS + i]);
    free(host);
    free(again);
    return plain;
}

// ---- a case

struct unit_case {
    const char *name;
    int n, c, h, w;
    enum eq_unit_method method;
    enum eq_activation activation;
    bool residual, add; // add: the residual already has a gradient
    int group, iterations, hidden;
    float offset; // of the input
    int halo;     // of inputs and outputs, in turn
    bool tiny;    // also under Oclgrind
};

// What one run works with. Plain host values; NULL where absent.
struct run {
    struct unit_case c;
    float *input[EQ_UNIT_NUM_INPUTS], *dout, *dres_add;
    float *out, *out_eval, *dz, *dres, *grad[EQ_UNIT_NUM_INPUTS], *after[EQ_UNIT_NUM_INPUTS];
};

static void run_free(struct run *r)
{
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++) {
        free(r->input[i]);
        free(r->grad[i]);
        free(r->after[i]);
    }
    free(r->dout);
    free(r->dres_add);
    free(r->out);
    free(r->out_eval);
    free(r->dz);
    free(r->dres);
}

static struct eq_unit_attributes attributes_of(const struct unit_case *c)
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

static bool is_state(int input)
{
    return input == EQ_UNIT_MEAN || input == EQ_UNIT_VAR || input == EQ_UNIT_CE_MEAN || input == EQ_UNIT_CE_WM ||
           input == EQ_UNIT_SCALE;
}

static struct unit_reference reference_of(const struct unit_case *c, bool training)
{
    return (struct unit_reference){
        .attributes = attributes_of(c), .n = c->n, .c = c->c, .h = c->h, .w = c->w, .training = training
    };
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
    ck_assert_ptr_eq(g->op, NULL);
    ck_assert_uint_eq(op->attribute_bytes, sizeof g->attributes);
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
    ck_assert_int_eq(input, EQ_UNIT_RESIDUAL);
    g->taken = true;
    return g->add ? GRAD_ADD : EQ_NO_VALUE;
}

static eq_status fake_give(struct eq_tape *tape, int input, int value)
{
    struct fake_graph *g = tape->graph;
    ck_assert_int_eq(g->given[input], EQ_NO_VALUE);
    g->given[input] = value;
    return EQ_OK;
}

static void execute(const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    struct eq_list *list = NULL;
    TRY(eq_list_create(device, &list));
    TRY(call->op->emit(list, call, in, out));
    TRY(eq_list_run(list));
    TRY(eq_device_finish(device));
    eq_list_destroy(&list);
}

static struct eq_tensor activation_tensor(const struct unit_case *c, int halo)
{
    return eq_tensor_blocked(c->n, c->c, c->h, c->w, device->target.block, halo);
}

static struct eq_call make_call(const struct run *r, const struct eq_unit_attributes *attributes, bool training,
                                struct value *in)
{
    struct eq_call call = { .op = &eq_op_unit,
                            .attributes = attributes,
                            .target = &device->target,
                            .training = training,
                            .num_inputs = EQ_UNIT_NUM_INPUTS };
    const struct unit_reference reference = reference_of(&r->c, training);
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++) {
        call.has[i] = r->input[i] != NULL;
        if (!call.has[i])
            continue;
        call.input[i] = i <= EQ_UNIT_RESIDUAL ? activation_tensor(&r->c, i == EQ_UNIT_Z ? r->c.halo : r->c.halo / 2)
                                              : eq_tensor_vector((int)unit_reference_elems(&reference, i));
        in[i] = make_value(call.input[i], r->input[i]);
    }
    TRY(call.op->shape(&call));
    return call;
}

static void free_values(struct value *values, int num)
{
    for (int i = 0; i < num; i++)
        eq_buffer_destroy(&values[i].buffer);
}

// Backward through the call that gradient() asks for.
static void run_backward(struct run *r, const struct eq_call *call, struct value *in, struct value *out)
{
    struct fake_graph graph = { .add = r->dres_add != NULL };
    struct eq_tape tape = { .graph = &graph, .call = fake_call, .take = fake_take, .give = fake_give };
    for (int i = 0; i < EQ_MAX_OPERANDS; i++) {
        tape.input[i] = i < call->num_inputs && call->has[i] ? i : EQ_NO_VALUE;
        tape.output[i] = 100 + i;
        tape.output_grad[i] = i == EQ_UNIT_OUT ? 200 : EQ_NO_VALUE;
        tape.wants[i] = !is_state(i);
        graph.given[i] = EQ_NO_VALUE;
    }
    TRY(eq_op_unit.gradient(call, &tape));
    ck_assert_ptr_eq(graph.op, &eq_op_unit_grad);
    ck_assert_int_eq(graph.taken, r->c.residual);
    struct eq_call grad = { .op = graph.op,
                            .attributes = &graph.attributes,
                            .target = &device->target,
                            .training = true,
                            .num_inputs = graph.num_inputs };
    struct value dout = make_value(activation_tensor(&r->c, r->c.halo / 2), r->dout), add = { 0 };
    if (r->dres_add)
        add = make_value(activation_tensor(&r->c, r->c.halo), r->dres_add);
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
    TRY(grad.op->shape(&grad));
    if (r->dres_add) // in place
        ck_assert_int_eq(grad.op->in_place(&grad, 1), EQ_UNIT_GRAD_DRES_ADD);
    grad.output[0].halo = r->c.halo;
    for (int i = 0; i < grad.num_outputs; i++) {
        outputs[i] = i == 1 && r->dres_add
                         ? add
                         : make_value(i == 1 && r->c.residual ? activation_tensor(&r->c, 0) : grad.output[i], NULL);
        grad.output[i] = outputs[i].tensor;
        out_refs[i] = ref_of(&outputs[i]);
    }
    execute(&grad, refs, out_refs);
    r->dz = fetch(&outputs[0], r->c.name, true);
    r->dres = r->c.residual ? fetch(&outputs[1], r->c.name, true) : NULL;
    free(fetch(&outputs[2], r->c.name, false));
    ck_assert_int_eq(graph.given[EQ_UNIT_Z], 400);
    ck_assert_int_eq(graph.given[EQ_UNIT_RESIDUAL], r->c.residual ? 401 : EQ_NO_VALUE);
    for (int i = EQ_UNIT_GAMMA; i < EQ_UNIT_NUM_INPUTS; i++) {
        const bool wanted = r->input[i] && !is_state(i);
        ck_assert_int_eq(graph.given[i] != EQ_NO_VALUE, wanted);
        if (wanted)
            r->grad[i] = fetch(&outputs[graph.given[i] - 400], r->c.name, true);
    }
    for (int i = 0; i < grad.num_outputs; i++)
        eq_buffer_destroy(&outputs[i].buffer);
    eq_buffer_destroy(&dout.buffer);
}

// What an evaluating unit needs prepared, from the state as it is, into in[EQ_UNIT_PREPARED].
static void run_prepare(const struct run *r, struct eq_call *call, struct value *in)
{
    const struct eq_unit_prepare_attributes attributes = { attributes_of(&r->c), call->input[EQ_UNIT_Z] };
    if (!eq_unit_prepares(&attributes.unit))
        return;
    struct eq_call prepare = { .op = &eq_op_unit_prepare,
                               .attributes = &attributes,
                               .target = &device->target,
                               .num_inputs = EQ_UNIT_PREPARED - EQ_UNIT_GAMMA };
    struct eq_ref refs[EQ_UNIT_NUM_INPUTS], out;
    for (int i = EQ_UNIT_GAMMA; i < EQ_UNIT_PREPARED; i++) {
        prepare.has[i - EQ_UNIT_GAMMA] = call->has[i];
        prepare.input[i - EQ_UNIT_GAMMA] = call->input[i];
        refs[i - EQ_UNIT_GAMMA] = ref_of(&in[i]);
    }
    TRY(prepare.op->shape(&prepare));
    in[EQ_UNIT_PREPARED] = make_value(prepare.output[0], NULL);
    out = ref_of(&in[EQ_UNIT_PREPARED]);
    execute(&prepare, refs, &out);
    free(fetch(&in[EQ_UNIT_PREPARED], r->c.name, false));
    call->has[EQ_UNIT_PREPARED] = true;
    call->input[EQ_UNIT_PREPARED] = prepare.output[0];
}

// Training forward, backward, and evaluation with the state that training left.
static void run_all(struct run *r)
{
    const struct eq_unit_attributes attributes = attributes_of(&r->c);
    struct value in[EQ_UNIT_NUM_INPUTS] = { 0 }, out[EQ_UNIT_NUM_OUTPUTS] = { 0 };
    struct eq_ref refs[EQ_UNIT_NUM_INPUTS], out_refs[EQ_UNIT_NUM_OUTPUTS];
    struct eq_call call = make_call(r, &attributes, true, in);
    for (int pass = 0; pass < 2; pass++) {
        call.training = pass == 0;
        if (!call.training)
            run_prepare(r, &call, in);
        TRY(call.op->shape(&call));
        call.output[EQ_UNIT_OUT].halo = pass == 0 ? r->c.halo : r->c.halo / 2;
        for (int i = 0; i < EQ_UNIT_NUM_OUTPUTS; i++) {
            out[i] = make_value(call.output[i], NULL);
            out_refs[i] = ref_of(&out[i]);
        }
        for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++)
            refs[i] = ref_of(&in[i]);
        execute(&call, refs, out_refs);
        *(pass == 0 ? &r->out : &r->out_eval) = fetch(&out[EQ_UNIT_OUT], r->c.name, true);
        free(fetch(&out[EQ_UNIT_SAVED], r->c.name, false));
        free(fetch(&out[EQ_UNIT_WORKSPACE], r->c.name, false));
        if (pass == 0)
            run_backward(r, &call, in, out);
        free_values(out, EQ_UNIT_NUM_OUTPUTS);
        for (int i = 0; i < EQ_UNIT_NUM_INPUTS && pass == 0; i++)
            if (r->input[i] && is_state(i))
                r->after[i] = fetch(&in[i], r->c.name, true);
    }
    free_values(in, EQ_UNIT_NUM_INPUTS);
}

// ---- comparing

static const char *const names[EQ_UNIT_NUM_INPUTS] = {
    "z",     "residual", "gamma",    "beta",    "mean", "var", "x_weight", "ce_mean", "ce_wm",
    "scale", "w1",       "ln_gamma", "ln_beta", "w2",   "fc1", "fc1_bias", "fc2",     "fc2_bias",
};

// Norm of the difference over the norm of what is wanted, and `floor`, below which a vector counts as zero.
static void compare(const struct run *r, const char *what, const char *which, const float *got, const double *want, size_t num,
                    double tolerance, double floor)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < num; i++) {
        difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        norm += want[i] * want[i];
    }
    const double error = sqrt(difference) / (sqrt(norm) + floor * sqrt((double)num));
    if (getenv("EQUIL_TEST_VERBOSE"))
        printf("# %s %s block %d: %s %s relative error %.2g\n", r->c.name,
               device->target.family == EQ_FAMILY_VECTOR ? "vector" : "simt", device->target.block, what, which, error);
    ck_assert_msg(error <= tolerance, "%s, %s, block %d: %s %s: relative error %.3g above %.3g (first values %g, want %g)",
                  r->c.name, device->target.family == EQ_FAMILY_VECTOR ? "vector" : "simt", device->target.block, what, which,
                  error, tolerance, (double)got[0], want[0]);
}

static double *doubled(const float *values, size_t num)
{
    double *to = malloc(num * sizeof *to);
    for (size_t i = 0; i < num; i++)
        to[i] = values[i];
    return to;
}

// ---- reference files

static const struct {
    int input;
    const char *name;
} file_names[] = {
    { EQ_UNIT_GAMMA, "bn.weight" },         { EQ_UNIT_BETA, "bn.bias" },
    { EQ_UNIT_MEAN, "bn.running_mean" },    { EQ_UNIT_VAR, "bn.running_var" },
    { EQ_UNIT_X_WEIGHT, "ce.x_weight" },    { EQ_UNIT_CE_MEAN, "ce.running_mean" },
    { EQ_UNIT_CE_WM, "ce.running_wm" },     { EQ_UNIT_SCALE, "ce.AR.running_scale" },
    { EQ_UNIT_W1, "ce.AR.fc.0.weight" },    { EQ_UNIT_LN_GAMMA, "ce.AR.fc.1.weight" },
    { EQ_UNIT_LN_BETA, "ce.AR.fc.1.bias" }, { EQ_UNIT_W2, "ce.AR.fc.3.weight" },
};

static float *read_tensor(struct eq_tensors *file, const char *prefix, const char *name, size_t elems)
{
    char text[96];
    float *values = malloc(elems * sizeof *values);
    snprintf(text, sizeof text, "%s%s", prefix, name);
    TRY(eq_tensors_read_f32(file, text, values, elems));
    return values;
}

static void compare_file(struct eq_tensors *file, const struct run *r, const char *prefix, const char *name, const float *got,
                         size_t elems, double floor)
{
    float *values = read_tensor(file, prefix, name, elems);
    double *want = doubled(values, elems);
    compare(r, prefix, name, got, want, elems, 1e-5, floor);
    free(values);
    free(want);
}

// Tolerance of 1e-5: f32 sums of up to 400 terms err by 20 * 2^-24 = 1.2e-6, and Newton-Schulz's products double that a step.
static void check_file(const char *path)
{
    struct eq_tensors *file = NULL;
    int64_t config[6];
    TRY(eq_tensors_open(path, &file));
    TRY(eq_tensors_read_i64(file, "config", config, 6));
    struct run r = { .c = { .name = path,
                            .n = (int)config[0],
                            .c = (int)config[1],
                            .h = (int)config[2],
                            .w = (int)config[3],
                            .method = EQ_UNIT_CE,
                            .group = (int)config[4],
                            .iterations = (int)config[5],
                            .hidden = (int)config[1] / 4 } };
    const struct unit_reference reference = reference_of(&r.c, true);
    const size_t num = unit_reference_elems(&reference, EQ_UNIT_Z);
    r.input[EQ_UNIT_Z] = read_tensor(file, "", "z", num);
    r.dout = read_tensor(file, "", "dp", num);
    for (size_t i = 0; i < sizeof file_names / sizeof *file_names; i++) {
        const int input = file_names[i].input;
        const size_t elems = unit_reference_elems(&reference, input);
        if (!is_state(input)) {
            r.input[input] = read_tensor(file, "param.", file_names[i].name, elems);
            continue;
        }
        r.input[input] = calloc(elems, sizeof(float));
        for (size_t k = 0; k < elems && input == EQ_UNIT_VAR; k++)
            r.input[input][k] = 1;
        for (size_t k = 0; k < (size_t)r.c.c && input == EQ_UNIT_CE_WM; k++)
            r.input[input][k * (size_t)r.c.group + k % (size_t)r.c.group] = 1;
    }
    run_all(&r);
    compare_file(file, &r, "", "p", r.out, num, 1e-6);
    compare_file(file, &r, "", "p_eval", r.out_eval, num, 1e-6);
    compare_file(file, &r, "", "dz", r.dz, num, 1e-6);
    for (size_t i = 0; i < sizeof file_names / sizeof *file_names; i++) {
        const int input = file_names[i].input;
        const float *got = is_state(input) ? r.after[input] : r.grad[input];
        // x_weight's is one sum over all values, of either sign: what it may cancel from is the root of their number.
        compare_file(file, &r, is_state(input) ? "after." : "grad.", file_names[i].name, got,
                     unit_reference_elems(&reference, input), input == EQ_UNIT_X_WEIGHT ? 0.02 * sqrt((double)num) : 1e-6);
    }
    run_free(&r);
    eq_tensors_close(&file);
}

// ---- own cases

// clang-format off
static const struct unit_case cases[] = {
    { .name = "none relu residual", .n = 2, .c = 5, .h = 3, .w = 5, .method = EQ_UNIT_NONE, .activation = EQ_ACT_RELU,
      .residual = true, .add = true, .tiny = true },
    { .name = "none elu", .n = 1, .c = 17, .h = 1, .w = 1, .method = EQ_UNIT_NONE, .activation = EQ_ACT_ELU, .halo = 1 },
    { .name = "bn", .n = 3, .c = 17, .h = 5, .w = 3, .method = EQ_UNIT_BN, .tiny = true },
    { .name = "bn relu halo", .n = 2, .c = 40, .h = 4, .w = 7, .method = EQ_UNIT_BN, .activation = EQ_ACT_RELU, .halo = 2 },
    { .name = "bn elu residual", .n = 2, .c = 5, .h = 4, .w = 3, .method = EQ_UNIT_BN, .activation = EQ_ACT_ELU,
      .residual = true, .halo = 1, .tiny = true },
    { .name = "bn one channel, one image", .n = 1, .c = 1, .h = 2, .w = 9, .method = EQ_UNIT_BN, .activation = EQ_ACT_RELU,
      .residual = true, .add = true },
    { .name = "bn pixels of one", .n = 7, .c = 24, .h = 1, .w = 1, .method = EQ_UNIT_BN },
    { .name = "bn big mean", .n = 2, .c = 24, .h = 6, .w = 6, .method = EQ_UNIT_BN, .offset = 300 },
    { .name = "bn long", .n = 1, .c = 3, .h = 71, .w = 67, .method = EQ_UNIT_BN, .activation = EQ_ACT_RELU },
    { .name = "ce", .n = 2, .c = 16, .h = 4, .w = 3, .method = EQ_UNIT_CE, .group = 16, .iterations = 3, .hidden = 4,
      .tiny = true },
    { .name = "ce ragged g8 relu", .n = 3, .c = 24, .h = 3, .w = 5, .method = EQ_UNIT_CE, .activation = EQ_ACT_RELU,
      .residual = true, .group = 16, .iterations = 3, .hidden = 6, .halo = 1, .tiny = true },
    { .name = "ce g5 elu", .n = 2, .c = 5, .h = 3, .w = 3, .method = EQ_UNIT_CE, .activation = EQ_ACT_ELU,
      .residual = true, .add = true, .group = 5, .iterations = 4, .hidden = 3, .halo = 2 },
    { .name = "ce g1", .n = 2, .c = 17, .h = 3, .w = 4, .method = EQ_UNIT_CE, .group = 16, .iterations = 3, .hidden = 4 },
    { .name = "ce g12 across blocks", .n = 2, .c = 36, .h = 4, .w = 5, .method = EQ_UNIT_CE, .activation = EQ_ACT_ELU,
      .group = 12, .iterations = 2, .hidden = 9 },
    { .name = "ce g40", .n = 2, .c = 40, .h = 5, .w = 5, .method = EQ_UNIT_CE, .activation = EQ_ACT_RELU, .residual = true,
      .group = 40, .iterations = 3, .hidden = 20 },
    { .name = "ce g32 one image", .n = 1, .c = 32, .h = 7, .w = 6, .method = EQ_UNIT_CE, .group = 32, .iterations = 3,
      .hidden = 33 },
    { .name = "ce g68", .n = 3, .c = 68, .h = 5, .w = 6, .method = EQ_UNIT_CE, .activation = EQ_ACT_RELU, .group = 68,
      .iterations = 2, .hidden = 17 },
    { .name = "bd relu", .n = 2, .c = 24, .h = 4, .w = 4, .method = EQ_UNIT_BD, .activation = EQ_ACT_RELU,
      .residual = true, .group = 8, .iterations = 5 },
    { .name = "bd pixels of one", .n = 40, .c = 16, .h = 1, .w = 1, .method = EQ_UNIT_BD, .group = 4, .iterations = 3,
      .halo = 1 },
    { .name = "ir elu", .n = 3, .c = 17, .h = 4, .w = 3, .method = EQ_UNIT_IR, .activation = EQ_ACT_ELU, .residual = true,
      .hidden = 4, .halo = 1, .tiny = true },
    { .name = "ir", .n = 2, .c = 40, .h = 3, .w = 3, .method = EQ_UNIT_IR, .hidden = 10 },
    { .name = "se relu", .n = 3, .c = 40, .h = 3, .w = 3, .method = EQ_UNIT_SE, .activation = EQ_ACT_RELU,
      .residual = true, .add = true, .hidden = 3, .tiny = true },
    { .name = "se elu pixels of one", .n = 4, .c = 24, .h = 1, .w = 1, .method = EQ_UNIT_SE, .activation = EQ_ACT_ELU,
      .hidden = 20 },
};
// clang-format on

static float *random_values(const char *purpose, size_t num, float mean, float spread)
{
    float *values = malloc(num * sizeof *values);
    for (size_t i = 0; i < num; i++)
        values[i] = mean + spread * (float)eq_random_normal(eq_random_key(3, 0, 0, purpose), i);
    return values;
}

static float *input_values(const struct unit_reference *reference, int input, size_t num, float offset)
{
    const float fan = 1.0f / sqrtf((float)reference->c), hidden_fan = 1.0f / sqrtf((float)(reference->attributes.hidden + 1));
    switch (input) {
    case EQ_UNIT_Z: return random_values("z", num, offset, 1);
    case EQ_UNIT_GAMMA:
    case EQ_UNIT_LN_GAMMA: return random_values(names[input], num, 1, 0.3f);
    case EQ_UNIT_VAR: return random_values(names[input], num, 2, 0.1f);
    case EQ_UNIT_SCALE: return random_values(names[input], num, 1.5f, 0);
    case EQ_UNIT_W1:
    case EQ_UNIT_FC1: return random_values(names[input], num, 0, 2 * fan);
    case EQ_UNIT_W2:
    case EQ_UNIT_FC2: return random_values(names[input], num, 0, 2 * hidden_fan);
    default: return random_values(names[input], num, 0.1f, 0.5f);
    }
}

// What a case should give, made once for all families and blocks.
struct expected {
    double *out, *out_eval, *dres;                   // [n, c, h, w]
    double *after[EQ_UNIT_NUM_INPUTS];               // states
    double gradient[EQ_UNIT_NUM_INPUTS][MAX_VALUES]; // every step-th element
    size_t step[EQ_UNIT_NUM_INPUTS], num[EQ_UNIT_NUM_INPUTS];
};

static struct run make_run(const struct unit_case *c)
{
    struct run r = { .c = *c };
    const struct unit_reference reference = reference_of(c, true);
    const size_t num = unit_reference_elems(&reference, EQ_UNIT_Z);
    r.dout = random_values("dout", num, 0, 1);
    if (c->add)
        r.dres_add = random_values("add", num, 0, 1);
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++)
        if (unit_reference_elems(&reference, i))
            r.input[i] = input_values(&reference, i, unit_reference_elems(&reference, i), c->offset);
    if (c->residual)
        r.input[EQ_UNIT_RESIDUAL] = random_values("residual", num, 0, 1);
    return r;
}

static void expect(const struct run *r, struct expected *e)
{
    struct unit_reference reference = reference_of(&r->c, true);
    const size_t num = unit_reference_elems(&reference, EQ_UNIT_Z);
    double *dout = doubled(r->dout, num);
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++) {
        const size_t elems = i == EQ_UNIT_RESIDUAL ? num : unit_reference_elems(&reference, i);
        reference.input[i] = r->input[i] ? doubled(r->input[i], elems) : NULL;
        e->after[i] = reference.after[i] = r->input[i] && is_state(i) ? calloc(elems, sizeof(double)) : NULL;
    }
    reference.out = e->out = malloc(num * sizeof(double));
    unit_reference_forward(&reference);
    memset(reference.after, 0, sizeof reference.after);
    e->dres = malloc(num * sizeof(double));
    for (size_t i = 0; i < num; i++) {
        const double y = e->out[i], slope = y > 0 || r->c.activation == EQ_ACT_NONE ? 1
                                            : r->c.activation == EQ_ACT_RELU        ? 0
                                                                                    : y + 1;
        e->dres[i] = dout[i] * slope + (r->c.add ? r->dres_add[i] : 0);
    }
    reference.out = malloc(num * sizeof(double));
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++) {
        const size_t elems = r->input[i] && !is_state(i) ? unit_reference_elems(&reference, i) : 0;
        e->step[i] = elems > 40 ? elems / 40 : 1;
        for (size_t k = 0; k < elems && e->num[i] < MAX_VALUES; k += e->step[i])
            e->gradient[i][e->num[i]++] = unit_reference_derivative(&reference, dout, i, k);
    }
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++)
        for (size_t k = 0; e->after[i] && k < unit_reference_elems(&reference, i); k++)
            reference.input[i][k] = e->after[i][k];
    reference.training = false;
    unit_reference_forward(&reference);
    e->out_eval = reference.out;
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++)
        free(reference.input[i]);
    free(dout);
}

// Tolerance of gradients 1e-5, as of files, and 2e-8 an element where they should be zero: a sum that cancels leaves rounding.
static void check_expected(const struct run *r, const struct expected *e)
{
    const struct unit_reference reference = reference_of(&r->c, true);
    const size_t num = unit_reference_elems(&reference, EQ_UNIT_Z);
    compare(r, "output", "", r->out, e->out, num, 1e-5, 1e-6);
    compare(r, "evaluation", "", r->out_eval, e->out_eval, num, 1e-5, 1e-6);
    if (r->c.residual)
        compare(r, "gradient of", "residual", r->dres, e->dres, num, 1e-5, 1e-6);
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++) {
        const float *got = i == EQ_UNIT_Z ? r->dz : r->grad[i];
        float values[MAX_VALUES];
        for (size_t k = 0; k < e->num[i]; k++)
            values[k] = got[k * e->step[i]];
        if (e->num[i])
            compare(r, "gradient of", names[i], values, e->gradient[i], e->num[i], 1e-5, 2e-3);
        if (e->after[i])
            compare(r, "state", names[i], r->after[i], e->after[i], unit_reference_elems(&reference, i), 1e-5, 1e-6);
    }
}

// ---- tests

static bool is_tiny_run(void)
{
    return getenv("EQUIL_TEST_TINY") != NULL;
}

enum { NUM_CONFIGURATIONS = 6 };

// Both families with blocks of 16, 8 and 4; under Oclgrind of 16. False: this one is left out.
static bool configure(int configuration)
{
    static const int blocks[] = { 16, 8, 4 };
    device->target.family = configuration % 2 ? EQ_FAMILY_SIMT : EQ_FAMILY_VECTOR;
    device->target.block = blocks[configuration / 2];
    return configuration < 2 || !is_tiny_run();
}

START_TEST(test_cases)
{
    const struct unit_case *c = &cases[_i];
    const struct eq_target saved = device->target;
    if (is_tiny_run() && !c->tiny)
        return;
    struct run made = make_run(c);
    struct expected e = { 0 };
    expect(&made, &e);
    run_free(&made);
    for (int k = 0; k < NUM_CONFIGURATIONS; k++) {
        if (!configure(k))
            continue;
        device->target.stream_bytes = (_i + k / 2) % 2 ? 0 : SIZE_MAX; // past the caches in every second case
        struct run r = make_run(c);
        run_all(&r);
        check_expected(&r, &e);
        run_free(&r);
    }
    device->target = saved;
    free(e.out);
    free(e.out_eval);
    free(e.dres);
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++)
        free(e.after[i]);
}
END_TEST

// Files in tests/golden, and, where the folder is there, the reference's other ones.
static const char *const golden[] = { "T1", "one_image", "g8_fallback" };
static const char *const reference_files[] = { "T7", "g16", "ragged", "big_mean", "g16_many", "g64", "g128" };
enum { NUM_TINY_REFERENCES = 3 };

// only: the family that a tiny run is for, -1 both.
static void check_path(const char *folder, const char *name, int only)
{
    const struct eq_target saved = device->target;
    const char *root = getenv("EQUIL_SOURCE_ROOT");
    char path[512];
    snprintf(path, sizeof path, "%s/%s/ce_%s.safetensors", root ? root : ".", folder, name);
    if (strncmp(folder, "../", 3) == 0 && !eq_file_exists(path)) {
        printf("# skipped: there is no %s\n", path);
        return;
    }
    for (int k = 0; k < NUM_CONFIGURATIONS; k++)
        if (configure(k) && (!is_tiny_run() || k % 2 == only || only < 0))
            check_file(path);
    device->target = saved;
}

START_TEST(test_golden)
{
    check_path("tests/golden", golden[_i], -1);
}
END_TEST

START_TEST(test_reference)
{
    if (!is_tiny_run() || _i < NUM_TINY_REFERENCES)
        check_path("../shared/reference/ops", reference_files[_i], _i % 2);
}
END_TEST

// Two runs on the same device give the same bits.
START_TEST(test_same_bits)
{
    const struct unit_case c = { .name = "same bits",
                                 .n = 3,
                                 .c = 40,
                                 .h = 9,
                                 .w = 11,
                                 .method = EQ_UNIT_CE,
                                 .activation = EQ_ACT_RELU,
                                 .group = 8,
                                 .iterations = 3,
                                 .hidden = 10 };
    if (is_tiny_run())
        return;
    const struct eq_target saved = device->target;
    for (int family = 0; family < 2; family++) {
        device->target.family = family ? EQ_FAMILY_SIMT : EQ_FAMILY_VECTOR;
        struct run r[2] = { make_run(&c), make_run(&c) };
        const struct unit_reference reference = reference_of(&c, true);
        const size_t num = unit_reference_elems(&reference, EQ_UNIT_Z);
        run_all(&r[0]);
        run_all(&r[1]);
        ck_assert_mem_eq(r[0].out, r[1].out, num * sizeof(float));
        ck_assert_mem_eq(r[0].dz, r[1].dz, num * sizeof(float));
        ck_assert_mem_eq(r[0].grad[EQ_UNIT_W1], r[1].grad[EQ_UNIT_W1], (size_t)c.c * (size_t)c.hidden * sizeof(float));
        run_free(&r[0]);
        run_free(&r[1]);
    }
    device->target = saved;
}
END_TEST

// What has no variance is refused with the numbers.
START_TEST(test_refused)
{
    static const struct {
        struct unit_case c;
        bool training;
        const char *text;
    } refused[] = {
        { { .n = 4, .c = 16, .h = 1, .w = 1, .method = EQ_UNIT_CE, .group = 16, .iterations = 3, .hidden = 4 },
          true,
          "1 x 1 pixels" },
        { { .n = 4, .c = 16, .h = 1, .w = 1, .method = EQ_UNIT_IR, .hidden = 4 }, false, "1 x 1 pixels" },
        { { .n = 1, .c = 16, .h = 1, .w = 1, .method = EQ_UNIT_BN }, true, "1 image of 1 x 1" },
        { { .n = 2, .c = 16, .h = 2, .w = 2, .method = EQ_UNIT_BD, .group = 16 }, true, "0 Newton-Schulz steps" },
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const struct eq_unit_attributes attributes = attributes_of(&refused[i].c);
        struct eq_call call = { .op = &eq_op_unit,
                                .attributes = &attributes,
                                .target = &device->target,
                                .training = refused[i].training,
                                .num_inputs = 1,
                                .has = { true } };
        call.input[0] = activation_tensor(&refused[i].c, 0);
        ck_assert_int_ne(eq_op_unit.shape(&call), EQ_OK);
        ck_assert_msg(strstr(eq_last_error(), refused[i].text) != NULL, "the message is: %s", eq_last_error());
    }
}
END_TEST

int main(void)
{
    if (eq_device_open(NULL, &device) != EQ_OK) {
        printf("Bail out! %s\n", eq_last_error());
        return 1;
    }
    Suite *suite = suite_create("unit");
    TCase *tcase = tcase_create("unit");
    tcase_set_timeout(tcase, 0);
    tcase_add_loop_test(tcase, test_cases, 0, (int)(sizeof cases / sizeof *cases));
    tcase_add_loop_test(tcase, test_golden, 0, (int)(sizeof golden / sizeof *golden));
    tcase_add_loop_test(tcase, test_reference, 0, (int)(sizeof reference_files / sizeof *reference_files));
    tcase_add_test(tcase, test_same_bits);
    tcase_add_test(tcase, test_refused);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_set_tap(runner, "-");
    srunner_run_all(runner, CK_SILENT);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    eq_device_destroy(&device);
    return failed != 0;
}

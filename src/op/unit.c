// The unit and its gradient as ops: shapes, steps, gradients. The steps are in moments.c, solve_*.c and affine.c.
#include "op/unit.h"

#include "op/conv2d.h"
#include "op/unit_plan.h"

static bool is_prepared(const struct eq_unit_plan *plan)
{
    return !plan->training && plan->has_norm && (plan->has_matrix || !plan->has_moments);
}

bool eq_unit_prepares(const struct eq_unit_attributes *a)
{
    return a->method == EQ_UNIT_BN || a->method == EQ_UNIT_BD || a->method == EQ_UNIT_CE;
}

bool eq_unit_has_gate(const struct eq_unit_attributes *a)
{
    return a->method == EQ_UNIT_CE || a->method == EQ_UNIT_IR || a->method == EQ_UNIT_SE;
}

bool eq_unit_can_pool(const struct eq_target *target, const struct eq_unit_attributes *unit,
                      const struct eq_pool_max_attributes *pool)
{
    return target->family == EQ_FAMILY_VECTOR && eq_unit_has_gate(unit) && pool->kh == 3 && pool->kw == 3 &&
           pool->stride_h == 2 && pool->stride_w == 2 && pool->pad_h == 1 && pool->pad_w == 1;
}

static size_t constant_elems(const struct eq_unit_plan *plan)
{
    const struct eq_unit_plan constant = eq_unit_plan_constant(plan);
    struct eq_unit_saved saved;
    return eq_unit_saved_place(&constant, EQ_REF_NONE, &saved);
}

// What an input of the unit is to a method: whether it is there, and how many elements it has.
struct operand {
    bool wanted, state;
    size_t elems;
};

static struct operand operand(const struct eq_unit_plan *plan, int input)
{
    const size_t c = (size_t)plan->channels, hidden = (size_t)plan->gate.hidden;
    const bool ce = plan->method == EQ_UNIT_CE, layer_norm = plan->has_gate && plan->gate.layer_norm;
    const bool se = plan->method == EQ_UNIT_SE;
    switch (input) {
    case EQ_UNIT_GAMMA:
    case EQ_UNIT_BETA: return (struct operand){ plan->has_norm, false, c };
    case EQ_UNIT_MEAN:
    case EQ_UNIT_VAR: return (struct operand){ plan->has_norm, true, c };
    case EQ_UNIT_X_WEIGHT: return (struct operand){ ce, false, 1 };
    case EQ_UNIT_CE_MEAN: return (struct operand){ plan->has_matrix, true, c };
    case EQ_UNIT_CE_WM: return (struct operand){ plan->has_matrix, true, c * (size_t)plan->groups.group };
    case EQ_UNIT_SCALE: return (struct operand){ layer_norm, true, 1 };
    case EQ_UNIT_W1:
    case EQ_UNIT_W2: return (struct operand){ layer_norm, false, c * hidden };
    case EQ_UNIT_LN_GAMMA:
    case EQ_UNIT_LN_BETA: return (struct operand){ layer_norm, false, hidden };
    case EQ_UNIT_FC1:
    case EQ_UNIT_FC2: return (struct operand){ se, false, c * hidden };
    case EQ_UNIT_FC1_BIAS: return (struct operand){ se, false, hidden };
    case EQ_UNIT_FC2_BIAS: return (struct operand){ se, false, c };
    case EQ_UNIT_PREPARED: return (struct operand){ is_prepared(plan), true, constant_elems(plan) };
    default: return (struct operand){ false, false, 0 };
    }
}

static const char *const input_names[EQ_UNIT_NUM_INPUTS] = {
    "z",
    "residual",
    "gamma",
    "beta",
    "running mean",
    "running variance",
    "x_weight",
    "CE running mean",
    "CE running map",
    "running scale",
    "W1",
    "LayerNorm gamma",
    "LayerNorm beta",
    "W2",
    "fc1",
    "fc1 bias",
    "fc2",
    "fc2 bias",
    "what is prepared",
    "moments",
};

static eq_status check_operand(const struct eq_call *call, const char *name, const struct eq_unit_plan *plan, int input, int at)
{
    const struct operand o = operand(plan, input);
    const bool has = at < call->num_inputs && call->has[at];
    EQ_REQUIRE(has || !o.wanted, EQ_ERR_ARGUMENT, "%s: %s is missing", name, input_names[input]);
    if (!o.wanted)
        return EQ_OK;
    const struct eq_tensor *t = &call->input[at];
    EQ_REQUIRE(t->dtype == EQ_F32 && t->form == EQ_FORM_PLAIN && eq_tensor_logical(t) == o.elems, EQ_ERR_SHAPE,
               "%s: %s has %zu elements, %d channels in groups of %d with %d hidden units need %zu", name, input_names[input],
               eq_tensor_logical(t), plan->channels, plan->groups.group, plan->gate.hidden, o.elems);
    return EQ_OK;
}

static eq_status check_like(const char *name, const char *what, const struct eq_tensor *t, const struct eq_tensor *z)
{
    char text[2][64];
    EQ_REQUIRE(t->dtype == EQ_F32 && t->form == EQ_FORM_BLOCKED && t->block == z->block && t->n == z->n && t->c == z->c &&
                   t->h == z->h && t->w == z->w,
               EQ_ERR_SHAPE, "%s: %s is %s in blocks of %d, the input %s in blocks of %d", name, what,
               eq_tensor_shape_text(t, text[0]), t->block, eq_tensor_shape_text(z, text[1]), z->block);
    return EQ_OK;
}

static int elems(size_t size)
{
    return (int)size; // the plan has checked it
}

// ---- unit

static bool has_input(const struct eq_call *call, int input)
{
    return input < call->num_inputs && call->has[input];
}

static eq_status make_plan(const struct eq_call *call, struct eq_unit_plan *plan)
{
    EQ_TRY(eq_unit_plan_make("unit", call->attributes, call->target, call->training, &call->input[EQ_UNIT_Z], plan));
    if (!has_input(call, EQ_UNIT_MOMENTS))
        return EQ_OK;
    const struct eq_tensor *t = &call->input[EQ_UNIT_MOMENTS];
    char text[64];
    EQ_REQUIRE(eq_unit_plan_evaluates_gate(plan), EQ_ERR_UNSUPPORTED,
               "unit: moments are given, which only evaluation with a gate takes, on processors");
    EQ_REQUIRE(t->dtype == EQ_F32 && t->form == EQ_FORM_PLAIN && t->n == plan->images && t->c == plan->blocks &&
                   t->w == 3 * plan->block,
               EQ_ERR_SHAPE, "unit: the moments are %s, not [%d, %d, parts, %d]", eq_tensor_shape_text(t, text), plan->images,
               plan->blocks, 3 * plan->block);
    plan->has_given = true;
    plan->parts = t->h;
    return EQ_OK;
}

eq_status eq_unit_check_operands(const char *name, const struct eq_call *call, const struct eq_unit_plan *plan,
                                 const struct eq_tensor *z)
{
    if (has_input(call, EQ_UNIT_RESIDUAL))
        EQ_TRY(check_like(name, "the residual", &call->input[EQ_UNIT_RESIDUAL], z));
    for (int i = EQ_UNIT_GAMMA; i < EQ_UNIT_NUM_INPUTS; i++)
        EQ_TRY(check_operand(call, name, plan, i, i));
    return EQ_OK;
}

static eq_status shape(struct eq_call *call)
{
    const struct eq_tensor *z = &call->input[EQ_UNIT_Z];
    struct eq_unit_plan plan;
    struct eq_unit_saved saved;
    struct eq_unit_work work;
    EQ_REQUIRE(call->num_inputs >= 1 && call->has[EQ_UNIT_Z], EQ_ERR_ARGUMENT, "unit: the input is missing");
    EQ_TRY(make_plan(call, &plan));
    EQ_TRY(eq_unit_check_operands("unit", call, &plan, z));
    const size_t saved_elems = eq_unit_saved_place(&plan, EQ_REF_NONE, &saved),
                 work_elems = eq_unit_work_place(&plan, EQ_REF_NONE, &work);
    const struct eq_unit_attributes *a = call->attributes;
    EQ_REQUIRE(!a->pools || (eq_unit_plan_evaluates_gate(&plan) && !has_input(call, EQ_UNIT_RESIDUAL)), EQ_ERR_UNSUPPORTED,
               "unit: only evaluation with a gate takes in a pooling, on processors, without a residual");
    call->num_outputs = EQ_UNIT_NUM_OUTPUTS;
    call->output[EQ_UNIT_OUT] =
        eq_tensor_blocked(z->n, z->c, a->pools ? (z->h + 1) / 2 : z->h, a->pools ? (z->w + 1) / 2 : z->w, z->block, 0);
    call->output[EQ_UNIT_SAVED] = eq_tensor_vector(call->training ? elems(saved_elems) : 1);
    const bool only_applies = is_prepared(&plan) && !plan.has_moments;
    const size_t workspace = call->training ? work_elems : only_applies ? 1 : saved_elems + 16 + work_elems;
    call->output[EQ_UNIT_WORKSPACE] = eq_tensor_vector(elems(workspace));
    return EQ_OK;
}

// The residual is read where the output is written, so its memory will do; in evaluation the input's will, too, where there is
// no matrix that reads other channels.
static int in_place(const struct eq_call *call, int output)
{
    const struct eq_unit_attributes *a = call->attributes;
    if (output != EQ_UNIT_OUT || a->pools)
        return -1;
    if (!call->training && a->method != EQ_UNIT_CE && a->method != EQ_UNIT_BD)
        return EQ_UNIT_Z;
    return has_input(call, EQ_UNIT_RESIDUAL) ? EQ_UNIT_RESIDUAL : -1;
}

// Pass 2, from the map that the solve left.
static eq_status apply(struct eq_list *list, const struct eq_unit_plan *plan, const struct eq_unit_saved *saved,
                       struct eq_unit_view z, struct eq_unit_view residual, struct eq_unit_view out)
{
    const bool is_bn = plan->method == EQ_UNIT_BN;
    const struct eq_unit_affine affine = {
        .z = z,
        .residual = residual,
        .out = out,
        .pivot = plan->has_norm ? saved->pivot : saved->shift,
        .scale = is_bn ? saved->a : saved->scale,
        .shift = is_bn                        ? saved->b
                 : plan->method == EQ_UNIT_BD ? saved->common
                                              : saved->shift,
        .matrix = saved->matrix,
        .instance = plan->has_gate,
    };
    return plan->pools ? eq_unit_affine_pool_emit(list, plan, &affine) : eq_unit_affine_emit(list, plan, &affine);
}

void eq_unit_place_prepared(const struct eq_unit_plan *plan, struct eq_ref ref, struct eq_unit_saved *saved)
{
    const struct eq_unit_plan constant = eq_unit_plan_constant(plan);
    struct eq_unit_saved prepared;
    if (!is_prepared(plan))
        return;
    eq_unit_saved_place(&constant, ref, &prepared);
    saved->matrix = prepared.matrix;
    saved->common = prepared.common;
}

static eq_status emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    struct eq_unit_plan plan;
    struct eq_unit_saved saved;
    struct eq_unit_work work;
    EQ_TRY(make_plan(call, &plan));
    struct eq_ref refs[EQ_UNIT_NUM_INPUTS];
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++)
        refs[i] = has_input(call, i) ? in[i] : EQ_REF_NONE;
    const struct eq_unit_view z = eq_unit_view(&call->input[EQ_UNIT_Z], refs[EQ_UNIT_Z]),
                              residual = eq_unit_view(&call->input[EQ_UNIT_RESIDUAL], refs[EQ_UNIT_RESIDUAL]),
                              to = eq_unit_view(&call->output[EQ_UNIT_OUT], out[EQ_UNIT_OUT]);
    const size_t saved_elems = eq_unit_saved_place(&plan, call->training ? out[EQ_UNIT_SAVED] : out[EQ_UNIT_WORKSPACE], &saved);
    eq_unit_work_place(
        &plan, call->training ? out[EQ_UNIT_WORKSPACE] : eq_ref_plus(out[EQ_UNIT_WORKSPACE], (saved_elems + 15) / 16 * 16),
        &work);
    if (is_prepared(&plan) && !plan.has_moments) {
        const struct eq_unit_plan constant = eq_unit_plan_constant(&plan);
        eq_unit_saved_place(&constant, refs[EQ_UNIT_PREPARED], &saved);
        return apply(list, &plan, &saved, z, residual, to);
    }
    eq_unit_place_prepared(&plan, refs[EQ_UNIT_PREPARED], &saved);
    if (plan.has_moments && !plan.has_given)
        EQ_TRY(eq_unit_moments_emit(list, &plan, z, work.sums, work.tiles));
    EQ_TRY(eq_unit_solve_emit(list, &plan, refs, z, &saved, &work));
    if (((const struct eq_unit_attributes *)call->attributes)->pools)
        EQ_TRY(eq_conv2d_border_emit(list, &call->output[EQ_UNIT_OUT], out[EQ_UNIT_OUT]));
    return apply(list, &plan, &saved, z, residual, to);
}

static struct eq_cost cost(const struct eq_call *call)
{
    struct eq_unit_plan plan;
    if (make_plan(call, &plan) != EQ_OK)
        return (struct eq_cost){ 0, 0 };
    const double values = (double)eq_tensor_logical(&call->input[EQ_UNIT_Z]),
                 matrix = plan.has_matrix ? 2.0 * plan.groups.group : 0.0;
    const double passes = plan.has_moments && !plan.has_given ? 2.0 : 1.0,
                 out = (double)eq_tensor_logical(&call->output[EQ_UNIT_OUT]), pool = plan.pools ? 9.0 * out : 0.0;
    return (struct eq_cost){ values * (4.0 * passes + matrix * (plan.has_cross ? 2.0 : 1.0)) + pool,
                             4.0 * (values * (passes + has_input(call, EQ_UNIT_RESIDUAL)) + out) };
}

static eq_status gradient(const struct eq_call *call, struct eq_tape *tape)
{
    if (tape->output_grad[EQ_UNIT_OUT] == EQ_NO_VALUE)
        return EQ_OK;
    const struct eq_unit_attributes *a = call->attributes;
    struct eq_unit_plan plan;
    EQ_TRY(eq_unit_plan_make("unit", a, call->target, call->training, &call->input[EQ_UNIT_Z], &plan));
    const bool residual = has_input(call, EQ_UNIT_RESIDUAL) && tape->wants[EQ_UNIT_RESIDUAL];
    const struct eq_unit_grad_attributes attributes = { *a, residual };
    int inputs[EQ_UNIT_GRAD_PARAMETER + EQ_UNIT_NUM_INPUTS - EQ_UNIT_GAMMA], outputs[EQ_MAX_OPERANDS];
    inputs[EQ_UNIT_GRAD_DOUT] = tape->output_grad[EQ_UNIT_OUT];
    inputs[EQ_UNIT_GRAD_OUT] = a->activation == EQ_ACT_NONE ? EQ_NO_VALUE : tape->output[EQ_UNIT_OUT];
    inputs[EQ_UNIT_GRAD_Z] = tape->input[EQ_UNIT_Z];
    inputs[EQ_UNIT_GRAD_SAVED] = tape->output[EQ_UNIT_SAVED];
    inputs[EQ_UNIT_GRAD_DRES_ADD] = residual ? tape->take(tape, EQ_UNIT_RESIDUAL) : EQ_NO_VALUE;
    for (int i = EQ_UNIT_GAMMA; i < EQ_UNIT_NUM_INPUTS; i++) {
        const struct operand o = operand(&plan, i);
        inputs[EQ_UNIT_GRAD_PARAMETER + i - EQ_UNIT_GAMMA] = o.wanted && !o.state ? tape->input[i] : EQ_NO_VALUE;
    }
    EQ_TRY(tape->call(tape, &eq_op_unit_grad, &attributes, inputs, (int)(sizeof inputs / sizeof *inputs), outputs));
    if (tape->wants[EQ_UNIT_Z])
        EQ_TRY(tape->give(tape, EQ_UNIT_Z, outputs[0]));
    if (residual)
        EQ_TRY(tape->give(tape, EQ_UNIT_RESIDUAL, outputs[1]));
    for (int i = EQ_UNIT_GAMMA, at = 3; i < EQ_UNIT_NUM_INPUTS; i++) {
        const struct operand o = operand(&plan, i);
        if (!o.wanted || o.state)
            continue;
        if (tape->wants[i])
            EQ_TRY(tape->give(tape, i, outputs[at]));
        at++;
    }
    return EQ_OK;
}

const struct eq_op eq_op_unit = {
    .name = "unit",
    .attribute_bytes = sizeof(struct eq_unit_attributes),
    .shape = shape,
    .is_per_image = true,
    .in_place = in_place,
    .emit = emit,
    .gradient = gradient,
    .cost = cost,
};

// ---- unit_prepare

static eq_status prepare_plan(const struct eq_call *call, struct eq_unit_plan *constant)
{
    const struct eq_unit_prepare_attributes *a = call->attributes;
    struct eq_unit_plan plan;
    EQ_TRY(eq_unit_plan_make("unit_prepare", &a->unit, call->target, false, &a->z, &plan));
    EQ_REQUIRE(is_prepared(&plan), EQ_ERR_ARGUMENT, "unit_prepare: method %d has nothing to prepare", (int)a->unit.method);
    *constant = eq_unit_plan_constant(&plan);
    return EQ_OK;
}

static eq_status prepare_shape(struct eq_call *call)
{
    struct eq_unit_plan plan;
    struct eq_unit_saved saved;
    EQ_TRY(prepare_plan(call, &plan));
    for (int i = EQ_UNIT_GAMMA; i < EQ_UNIT_PREPARED; i++)
        EQ_TRY(check_operand(call, "unit_prepare", &plan, i, i - EQ_UNIT_GAMMA));
    call->num_outputs = 1;
    call->output[0] = eq_tensor_vector(elems(eq_unit_saved_place(&plan, EQ_REF_NONE, &saved)));
    return EQ_OK;
}

static eq_status prepare_emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in,
                              const struct eq_ref *out)
{
    struct eq_unit_plan plan;
    struct eq_unit_saved saved;
    const struct eq_unit_work none = { .sums = EQ_REF_NONE };
    struct eq_ref refs[EQ_UNIT_NUM_INPUTS] = { EQ_REF_NONE };
    EQ_TRY(prepare_plan(call, &plan));
    for (int i = EQ_UNIT_GAMMA; i < EQ_UNIT_PREPARED; i++)
        refs[i] = has_input(call, i - EQ_UNIT_GAMMA) ? in[i - EQ_UNIT_GAMMA] : EQ_REF_NONE;
    eq_unit_saved_place(&plan, out[0], &saved);
    return eq_unit_solve_emit(list, &plan, refs, (struct eq_unit_view){ .ref = EQ_REF_NONE }, &saved, &none);
}

static struct eq_cost prepare_cost(const struct eq_call *call)
{
    const double values = (double)eq_tensor_elems(&call->output[0]);
    return (struct eq_cost){ 3.0 * values, 8.0 * values };
}

const struct eq_op eq_op_unit_prepare = {
    .name = "unit_prepare",
    .attribute_bytes = sizeof(struct eq_unit_prepare_attributes),
    .shape = prepare_shape,
    .emit = prepare_emit,
    .cost = prepare_cost,
};

// ---- unit_again

static eq_status again_shape(struct eq_call *call)
{
    const struct eq_tensor *z = &call->input[EQ_UNIT_AGAIN_Z];
    struct eq_unit_plan plan;
    struct eq_unit_saved saved;
    EQ_REQUIRE(has_input(call, EQ_UNIT_AGAIN_Z) && has_input(call, EQ_UNIT_AGAIN_SAVED), EQ_ERR_ARGUMENT,
               "unit_again: an input is missing");
    EQ_TRY(eq_unit_plan_make("unit_again", call->attributes, call->target, true, z, &plan));
    const size_t saved_elems = eq_unit_saved_place(&plan, EQ_REF_NONE, &saved),
                 found = eq_tensor_elems(&call->input[EQ_UNIT_AGAIN_SAVED]);
    EQ_REQUIRE(found == saved_elems, EQ_ERR_SHAPE, "unit_again: %zu numbers were saved, the unit saves %zu", found,
               saved_elems);
    if (has_input(call, EQ_UNIT_AGAIN_RESIDUAL))
        EQ_TRY(check_like("unit_again", "the residual", &call->input[EQ_UNIT_AGAIN_RESIDUAL], z));
    call->num_outputs = 1;
    call->output[0] = eq_tensor_blocked(z->n, z->c, z->h, z->w, z->block, 0);
    return EQ_OK;
}

static int again_in_place(const struct eq_call *call, int output)
{
    return output == 0 && has_input(call, EQ_UNIT_AGAIN_RESIDUAL) ? EQ_UNIT_AGAIN_RESIDUAL : -1;
}

static eq_status again_emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    struct eq_unit_plan plan;
    struct eq_unit_saved saved;
    EQ_TRY(eq_unit_plan_make("unit_again", call->attributes, call->target, true, &call->input[EQ_UNIT_AGAIN_Z], &plan));
    eq_unit_saved_place(&plan, in[EQ_UNIT_AGAIN_SAVED], &saved);
    const bool has_residual = has_input(call, EQ_UNIT_AGAIN_RESIDUAL);
    return apply(list, &plan, &saved, eq_unit_view(&call->input[EQ_UNIT_AGAIN_Z], in[EQ_UNIT_AGAIN_Z]),
                 eq_unit_view(&call->input[EQ_UNIT_AGAIN_RESIDUAL], has_residual ? in[EQ_UNIT_AGAIN_RESIDUAL] : EQ_REF_NONE),
                 eq_unit_view(&call->output[0], out[0]));
}

static struct eq_cost again_cost(const struct eq_call *call)
{
    struct eq_unit_plan plan;
    if (eq_unit_plan_make("unit_again", call->attributes, call->target, true, &call->input[EQ_UNIT_AGAIN_Z], &plan) != EQ_OK)
        return (struct eq_cost){ 0, 0 };
    const double values = (double)eq_tensor_logical(&call->input[EQ_UNIT_AGAIN_Z]),
                 matrix = plan.has_matrix ? 2.0 * plan.groups.group : 0.0;
    return (struct eq_cost){ values * (4.0 + matrix), 4.0 * values * (2.0 + has_input(call, EQ_UNIT_AGAIN_RESIDUAL)) };
}

const struct eq_op eq_op_unit_again = {
    .name = "unit_again",
    .attribute_bytes = sizeof(struct eq_unit_attributes),
    .shape = again_shape,
    .in_place = again_in_place,
    .emit = again_emit,
    .cost = again_cost,
};

// ---- unit_grad

enum { GRAD_DZ, GRAD_DRESIDUAL, GRAD_WORKSPACE, GRAD_PARAMETERS };

static eq_status grad_shape(struct eq_call *call)
{
    const struct eq_unit_grad_attributes *a = call->attributes;
    const struct eq_tensor *z = &call->input[EQ_UNIT_GRAD_Z];
    struct eq_unit_plan plan;
    struct eq_unit_grad_work work;
    EQ_REQUIRE(has_input(call, EQ_UNIT_GRAD_Z) && has_input(call, EQ_UNIT_GRAD_DOUT) && has_input(call, EQ_UNIT_GRAD_SAVED),
               EQ_ERR_ARGUMENT, "unit_grad: an input is missing");
    EQ_TRY(eq_unit_plan_make("unit_grad", &a->unit, call->target, true, z, &plan));
    EQ_TRY(check_like("unit_grad", "the output's gradient", &call->input[EQ_UNIT_GRAD_DOUT], z));
    EQ_REQUIRE(a->unit.activation == EQ_ACT_NONE || has_input(call, EQ_UNIT_GRAD_OUT), EQ_ERR_ARGUMENT,
               "unit_grad: the output is missing, which the activation's gradient needs");
    if (has_input(call, EQ_UNIT_GRAD_OUT))
        EQ_TRY(check_like("unit_grad", "the output", &call->input[EQ_UNIT_GRAD_OUT], z));
    if (has_input(call, EQ_UNIT_GRAD_DRES_ADD))
        EQ_TRY(check_like("unit_grad", "the residual's gradient", &call->input[EQ_UNIT_GRAD_DRES_ADD], z));
    const struct eq_tensor like = eq_tensor_blocked(z->n, z->c, z->h, z->w, z->block, 0);
    call->output[GRAD_DZ] = like;
    call->output[GRAD_DRESIDUAL] = a->has_residual ? like : eq_tensor_vector(1);
    call->output[GRAD_WORKSPACE] = eq_tensor_vector(elems(eq_unit_grad_work_place(&plan, EQ_REF_NONE, &work)));
    call->num_outputs = GRAD_PARAMETERS;
    for (int i = EQ_UNIT_GAMMA; i < EQ_UNIT_NUM_INPUTS; i++) {
        const struct operand o = operand(&plan, i);
        if (!o.wanted || o.state)
            continue;
        EQ_TRY(check_operand(call, "unit_grad", &plan, i, EQ_UNIT_GRAD_PARAMETER + i - EQ_UNIT_GAMMA));
        call->output[call->num_outputs++] = call->input[EQ_UNIT_GRAD_PARAMETER + i - EQ_UNIT_GAMMA];
    }
    return EQ_OK;
}

static int grad_in_place(const struct eq_call *call, int output)
{
    const struct eq_unit_grad_attributes *a = call->attributes;
    if (output == GRAD_DZ && a->unit.method != EQ_UNIT_CE && a->unit.method != EQ_UNIT_BD)
        return EQ_UNIT_GRAD_Z;
    return output == GRAD_DRESIDUAL && a->has_residual && has_input(call, EQ_UNIT_GRAD_DRES_ADD) ? EQ_UNIT_GRAD_DRES_ADD : -1;
}

static eq_status grad_emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    const struct eq_unit_grad_attributes *a = call->attributes;
    struct eq_unit_plan plan;
    struct eq_unit_saved saved;
    struct eq_unit_grad_work work;
    EQ_TRY(eq_unit_plan_make("unit_grad", &a->unit, call->target, true, &call->input[EQ_UNIT_GRAD_Z], &plan));
    eq_unit_saved_place(&plan, in[EQ_UNIT_GRAD_SAVED], &saved);
    eq_unit_grad_work_place(&plan, out[GRAD_WORKSPACE], &work);
    struct eq_ref parameter[EQ_UNIT_NUM_INPUTS], grad[EQ_UNIT_NUM_INPUTS];
    for (int i = 0, at = GRAD_PARAMETERS; i < EQ_UNIT_NUM_INPUTS; i++) {
        const struct operand o = operand(&plan, i);
        const bool wanted = o.wanted && !o.state;
        parameter[i] = wanted ? in[EQ_UNIT_GRAD_PARAMETER + i - EQ_UNIT_GAMMA] : EQ_REF_NONE;
        grad[i] = wanted ? out[at++] : EQ_REF_NONE;
    }
    const bool masked = plan.activation != EQ_ACT_NONE, add = a->has_residual && has_input(call, EQ_UNIT_GRAD_DRES_ADD);
    const struct eq_unit_affine_grad affine = {
        .z = eq_unit_view(&call->input[EQ_UNIT_GRAD_Z], in[EQ_UNIT_GRAD_Z]),
        .dout = eq_unit_view(&call->input[EQ_UNIT_GRAD_DOUT], in[EQ_UNIT_GRAD_DOUT]),
        .out = eq_unit_view(&call->input[EQ_UNIT_GRAD_OUT], masked ? in[EQ_UNIT_GRAD_OUT] : EQ_REF_NONE),
        .add = eq_unit_view(&call->input[EQ_UNIT_GRAD_DRES_ADD], add ? in[EQ_UNIT_GRAD_DRES_ADD] : EQ_REF_NONE),
        .dz = eq_unit_view(&call->output[GRAD_DZ], out[GRAD_DZ]),
        .dres = eq_unit_view(&call->output[GRAD_DRESIDUAL], a->has_residual ? out[GRAD_DRESIDUAL] : EQ_REF_NONE),
        .pivot = plan.has_norm ? saved.pivot : work.shift,
        .scale = work.scale,
        .slope = work.slope,
        .shift = work.shift,
        .matrix = work.matrix,
        .slopes = work.slopes,
        .instance = plan.has_gate,
    };
    if (plan.has_norm)
        EQ_TRY(eq_unit_moments_grad_emit(list, &plan, affine.z, affine.dout, affine.out, saved.pivot, work.sums, work.tiles));
    EQ_TRY(eq_unit_solve_grad_emit(list, &plan, parameter, grad, &saved, &work));
    return eq_unit_affine_grad_emit(list, &plan, &affine);
}

static struct eq_cost grad_cost(const struct eq_call *call)
{
    const struct eq_unit_grad_attributes *a = call->attributes;
    struct eq_unit_plan plan;
    if (eq_unit_plan_make("unit_grad", &a->unit, call->target, true, &call->input[EQ_UNIT_GRAD_Z], &plan) != EQ_OK)
        return (struct eq_cost){ 0, 0 };
    const double values = (double)eq_tensor_logical(&call->input[EQ_UNIT_GRAD_Z]),
                 matrix = plan.has_matrix ? 6.0 * plan.groups.group : 0.0;
    const double passes = plan.has_norm ? 2.0 : 1.0, masked = a->unit.activation != EQ_ACT_NONE;
    const double tensors = passes * (2.0 + masked) + 1.0 + a->has_residual + has_input(call, EQ_UNIT_GRAD_DRES_ADD);
    return (struct eq_cost){ values * (6.0 * passes + matrix), 4.0 * values * tensors };
}

const struct eq_op eq_op_unit_grad = {
    .name = "unit_grad",
    .attribute_bytes = sizeof(struct eq_unit_grad_attributes),
    .shape = grad_shape,
    .in_place = grad_in_place,
    .emit = grad_emit,
    .cost = grad_cost,
};

// Convolution for evaluation: a filter prepared once (batch norm folded in, transformed or packed where the algorithm or a
// matrix unit wants that), then convolution, bias, residual and activation in one step.
#include "op/conv2d.h"

enum prepare_input { W, GAMMA, BETA, MEAN, VAR, NUM_PREPARE_INPUTS };
enum fused_input { X, FILTER, BIAS, RESIDUAL = EQ_CONV2D_FUSED_RESIDUAL };

// The filter's stored form for an input of that blocking.
static struct eq_tensor filter_form(const struct eq_target *target, const struct eq_conv2d_fused_attributes *a,
                                    const struct eq_tensor *x)
{
    return eq_conv2d_weight(target, x, a->oc, a->kh, a->kw, a->conv.groups);
}

// Checks everything that both ops know; makes z.
static eq_status check(const char *name, const struct eq_target *target, const struct eq_conv2d_fused_attributes *a,
                       const struct eq_tensor *x, struct eq_tensor *z)
{
    const struct eq_tensor w = filter_form(target, a, x);
    int oh, ow;
    EQ_TRY(eq_conv2d_check(name, target, &a->conv, x, &w, &oh, &ow));
    *z = eq_tensor_blocked(x->n, a->oc, oh, ow, target->block, 0);
    return eq_tensor_check(z);
}

static enum eq_conv2d_algorithm algorithm_of(const struct eq_target *target, const struct eq_conv2d_fused_attributes *a,
                                             const struct eq_tensor *x, const struct eq_tensor *z,
                                             struct eq_conv2d_shape *shape)
{
    *shape = (struct eq_conv2d_shape){ z->n, x->c, z->c, z->h, z->w, true };
    return eq_conv2d_choose(target, &a->conv, a->kh, a->kw, x->form == EQ_FORM_PLAIN ? 1 : x->block, shape);
}

// Elements of a filter that Winograd's algorithm wants transformed, else 0.
static size_t transformed_elems(const struct eq_target *target, const struct eq_conv2d_fused_attributes *a,
                                const struct eq_tensor *x, const struct eq_tensor *z)
{
    struct eq_conv2d_shape shape;
    const enum eq_conv2d_algorithm algorithm = algorithm_of(target, a, x, z, &shape);
    return algorithm == EQ_CONV2D_DIRECT ? 0 : eq_conv2d_winograd_filter_elems(target, algorithm, &shape);
}

static size_t filter_elems(const struct eq_target *target, const struct eq_conv2d_fused_attributes *a,
                           const struct eq_tensor *x, const struct eq_tensor *z)
{
    const size_t transformed = transformed_elems(target, a, x, z);
    if (transformed > 0)
        return transformed;
    const struct eq_tensor w = filter_form(target, a, x);
    const size_t packed = eq_conv2d_packed_elems(target, a->conv.groups, w.n, eq_conv2d_num_k(&w));
    return packed > 0 ? packed : eq_tensor_elems(&w);
}

static int bias_elems(const struct eq_tensor *z)
{
    return eq_tensor_blocks(z) * z->block;
}

bool eq_conv2d_reads_stored(const struct eq_target *target, const struct eq_conv2d_fused_attributes *attributes)
{
    const enum eq_conv2d_algorithm algorithm = attributes->conv.algorithm;
    return (algorithm == EQ_CONV2D_DIRECT || algorithm == EQ_CONV2D_WINOGRAD_4_LATE) &&
           eq_conv2d_packed_elems(target, attributes->conv.groups, 1, 1) == 0;
}

enum eq_conv2d_algorithm eq_conv2d_fused_algorithm(const struct eq_target *target,
                                                   const struct eq_conv2d_fused_attributes *attributes,
                                                   const struct eq_tensor *x)
{
    struct eq_tensor z;
    struct eq_conv2d_shape shape;
    if (check("conv2d", target, attributes, x, &z) != EQ_OK)
        return EQ_CONV2D_DIRECT; // shape() will say why not
    return algorithm_of(target, attributes, x, &z, &shape);
}

// ---- conv2d_prepare: outputs filter, bias, scale

static bool has_norm(const struct eq_call *call)
{
    return call->num_inputs > GAMMA && call->has[GAMMA];
}

static eq_status prepare_shape(struct eq_call *call)
{
    const struct eq_conv2d_prepare_attributes *a = call->attributes;
    const struct eq_tensor *w = &call->input[W], want = filter_form(call->target, &a->fused, &a->x);
    struct eq_tensor z;
    EQ_TRY(check("conv2d_prepare", call->target, &a->fused, &a->x, &z));
    EQ_REQUIRE(w->form == EQ_FORM_WEIGHT && w->n == want.n && w->c == want.c && w->h == want.h && w->w == want.w &&
                   w->block == want.block && w->block_in == want.block_in,
               EQ_ERR_SHAPE, "conv2d_prepare: the filter is [%d, %d, %d, %d], not [%d, %d, %d, %d]", w->n, w->c, w->h, w->w,
               want.n, want.c, want.h, want.w);
    for (int i = GAMMA; i < NUM_PREPARE_INPUTS && has_norm(call); i++)
        EQ_REQUIRE(call->num_inputs > i && call->has[i] && eq_tensor_logical(&call->input[i]) == (size_t)a->fused.oc,
                   EQ_ERR_SHAPE, "conv2d_prepare: input %d of the batch norm has %zu elements, not %d", i,
                   call->num_inputs > i && call->has[i] ? eq_tensor_logical(&call->input[i]) : 0, a->fused.oc);
    call->num_outputs = 3;
    EQ_TRY(eq_workspace("conv2d_prepare", filter_elems(call->target, &a->fused, &a->x, &z), &call->output[0]));
    call->output[1] = eq_tensor_vector(bias_elems(&z));
    call->output[2] = eq_tensor_vector(bias_elems(&z));
    return EQ_OK;
}

static eq_status emit_coefficients(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in,
                                   struct eq_ref scale, struct eq_ref bias)
{
    const struct eq_conv2d_prepare_attributes *a = call->attributes;
    const size_t elems = eq_tensor_elems(&call->output[1]);
    const struct eq_options options = eq_options_format("-DBLOCK=%d", call->target->block);
    const struct eq_launch launch = {
        .source = "conv2d_prepare",
        .options = options.text,
        .kernel = "conv2d_prepare_coefficients",
        .range = eq_range_1d(elems, (size_t)call->target->block),
        .cost = { 6.0 * a->fused.oc, 24.0 * a->fused.oc },
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(in[GAMMA]), EQ_REF(in[BETA]), EQ_REF(in[MEAN]), EQ_REF(in[VAR]), EQ_REF(scale),
                                  EQ_REF(bias), EQ_I32(a->fused.oc), EQ_F32(a->eps)));
}

static eq_status emit_scaled(struct eq_list *list, const struct eq_call *call, struct eq_ref w, struct eq_ref scale,
                             struct eq_ref scaled)
{
    const size_t elems = eq_tensor_elems(&call->input[W]), block = (size_t)call->target->block;
    const size_t oc_blocks = eq_tensor_elems(&call->output[1]) / block, rows = elems / block / oc_blocks;
    const struct eq_options options = eq_options_format("-DBLOCK=%d", call->target->block);
    const struct eq_launch launch = {
        .source = "conv2d_prepare",
        .options = options.text,
        .kernel = "conv2d_prepare_filter",
        .range = eq_range_2d(rows * block, oc_blocks, block, 1),
        .cost = { (double)elems, 8.0 * (double)elems },
    };
    return eq_list_kernel(list, &launch, EQ_ARGS(EQ_REF(w), EQ_REF(scale), EQ_REF(scaled), EQ_I32(rows)));
}

static eq_status prepare_emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in,
                              const struct eq_ref *out)
{
    const struct eq_conv2d_prepare_attributes *a = call->attributes;
    struct eq_tensor z;
    struct eq_conv2d_shape shape;
    EQ_TRY(check("conv2d_prepare", call->target, &a->fused, &a->x, &z));
    const enum eq_conv2d_algorithm algorithm = algorithm_of(call->target, &a->fused, &a->x, &z, &shape);
    const struct eq_ref scale = has_norm(call) ? out[2] : EQ_REF_NONE;
    if (has_norm(call))
        EQ_TRY(emit_coefficients(list, call, in, scale, out[1]));
    if (transformed_elems(call->target, &a->fused, &a->x, &z) > 0)
        EQ_TRY(eq_conv2d_winograd_filter_emit(list, algorithm, &shape, in[W], scale, out[0]));
    else if (eq_conv2d_packed_elems(call->target, a->fused.conv.groups, 1, 1) > 0)
        EQ_TRY(eq_conv2d_pack_emit(list, a->fused.oc, eq_conv2d_num_k(&call->input[W]), in[W], scale, out[0], false));
    else if (has_norm(call))
        EQ_TRY(emit_scaled(list, call, in[W], scale, out[0]));
    else
        EQ_TRY(eq_list_copy(list, in[W], out[0], eq_tensor_elems(&call->input[W])));
    // Last: Oclgrind takes all of a buffer for uninitialised after a fill, and in tests the filter lies in the same one.
    return has_norm(call) ? EQ_OK : eq_list_fill(list, out[1], 0, eq_tensor_elems(&call->output[1]));
}

static struct eq_cost prepare_cost(const struct eq_call *call)
{
    const struct eq_conv2d_prepare_attributes *a = call->attributes;
    const double from = (double)eq_tensor_elems(&call->input[W]), to = (double)eq_tensor_elems(&call->output[0]);
    struct eq_tensor z;
    const bool is_transformed = check("conv2d_prepare", call->target, &a->fused, &a->x, &z) == EQ_OK &&
                                transformed_elems(call->target, &a->fused, &a->x, &z) > 0;
    return (struct eq_cost){ is_transformed ? 6 * to : from, 4 * (from + to) };
}

const struct eq_op eq_op_conv2d_prepare = {
    .name = "conv2d_prepare",
    .attribute_bytes = sizeof(struct eq_conv2d_prepare_attributes),
    .shape = prepare_shape,
    .emit = prepare_emit,
    .cost = prepare_cost,
};

// ---- conv2d_fused

static bool has_residual(const struct eq_call *call)
{
    return call->num_inputs > RESIDUAL && call->has[RESIDUAL];
}

static eq_status fused_shape(struct eq_call *call)
{
    const struct eq_conv2d_fused_attributes *a = call->attributes;
    const struct eq_tensor *x = &call->input[X], *residual = &call->input[RESIDUAL];
    struct eq_tensor z;
    EQ_TRY(check("conv2d_fused", call->target, a, x, &z));
    const size_t filter = filter_elems(call->target, a, x, &z);
    EQ_REQUIRE(eq_tensor_elems(&call->input[FILTER]) == filter, EQ_ERR_SHAPE,
               "conv2d_fused: the prepared filter has %zu elements, not %zu", eq_tensor_elems(&call->input[FILTER]), filter);
    EQ_REQUIRE(eq_tensor_elems(&call->input[BIAS]) == (size_t)bias_elems(&z), EQ_ERR_SHAPE,
               "conv2d_fused: the bias has %zu elements, not %d", eq_tensor_elems(&call->input[BIAS]), bias_elems(&z));
    EQ_REQUIRE(!has_residual(call) || (residual->form == EQ_FORM_BLOCKED && residual->block == z.block && residual->n == z.n &&
                                       residual->c == z.c && residual->h == z.h && residual->w == z.w),
               EQ_ERR_SHAPE, "conv2d_fused: the residual is [%d, %d, %d, %d] in blocks of %d, not [%d, %d, %d, %d] of %d",
               residual->n, residual->c, residual->h, residual->w, residual->block, z.n, z.c, z.h, z.w, z.block);
    struct eq_conv2d_shape shape;
    const enum eq_conv2d_algorithm algorithm = algorithm_of(call->target, a, x, &z, &shape);
    call->num_outputs = 2;
    call->output[0] = z;
    const size_t scratch =
        algorithm == EQ_CONV2D_DIRECT ? 1 : eq_conv2d_winograd_scratch_elems(call->target, algorithm, &shape);
    return eq_workspace("conv2d_fused", scratch, &call->output[1]);
}

// Winograd's transform looks where it reads: that takes less time than a launch that zeroes a halo.
static int fused_halo(const struct eq_call *call, int input)
{
    const struct eq_conv2d_fused_attributes *a = call->attributes;
    struct eq_conv2d_shape shape;
    if (input != X || call->target->family != EQ_FAMILY_VECTOR ||
        algorithm_of(call->target, a, &call->input[X], &call->output[0], &shape) != EQ_CONV2D_DIRECT)
        return 0;
    return a->conv.pad_h > a->conv.pad_w ? a->conv.pad_h : a->conv.pad_w;
}

static int fused_in_place(const struct eq_call *call, int output)
{
    return output == 0 && has_residual(call) ? RESIDUAL : -1;
}

static struct eq_cost fused_cost(const struct eq_call *call)
{
    const struct eq_tensor w = filter_form(call->target, call->attributes, &call->input[X]);
    struct eq_cost cost = eq_conv2d_cost(&call->input[X], &w, &call->output[0]);
    if (has_residual(call))
        cost.bytes += 4.0 * (double)eq_tensor_logical(&call->output[0]);
    return cost;
}

static eq_status fused_emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    const struct eq_conv2d_fused_attributes *a = call->attributes;
    struct eq_conv2d_job job = {
        .x = eq_conv2d_view(&call->input[X], in[X]),
        .z = eq_conv2d_view(&call->output[0], out[0]),
        .has_add = has_residual(call),
        .bias = in[BIAS],
        .activation = a->activation,
        .filter = in[FILTER],
        .groups = a->conv.groups,
        .kh = a->kh,
        .kw = a->kw,
        .stride_h = a->conv.stride_h,
        .stride_w = a->conv.stride_w,
        .first_y = -a->conv.pad_h,
        .first_x = -a->conv.pad_w,
        .cost = fused_cost(call),
    };
    if (job.has_add)
        job.add = eq_conv2d_view(&call->input[RESIDUAL], in[RESIDUAL]);
    struct eq_conv2d_shape shape;
    const enum eq_conv2d_algorithm algorithm = algorithm_of(call->target, a, &call->input[X], &call->output[0], &shape);
    EQ_TRY(eq_conv2d_border_emit(list, &call->output[0], out[0]));
    if (algorithm == EQ_CONV2D_DIRECT)
        return eq_conv2d_job_emit(list, &job);
    return eq_conv2d_winograd_emit(list, algorithm, &shape, &job, out[1]);
}

const struct eq_op eq_op_conv2d_fused = {
    .name = "conv2d_fused",
    .attribute_bytes = sizeof(struct eq_conv2d_fused_attributes),
    .shape = fused_shape,
    .is_per_image = true,
    .halo = fused_halo,
    .in_place = fused_in_place,
    .emit = fused_emit,
    .cost = fused_cost,
};

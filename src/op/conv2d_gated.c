// A 1x1 convolution and a unit whose gate is settled before it: sums of x, moments of the output from them, the unit's solve, a
// filter for each image, the convolution. See cl/conv2d_gated.cl.
#include "op/conv2d_gated.h"

#include "op/conv2d.h"
#include "op/unit_plan.h"

// Mesa's llvmpipe ends a work-item's loops after 65535 rounds.
enum { MAX_X_BLOCKS = 16, MIN_PART_PIXELS = 256, MAX_PART_PIXELS = 2048, MAX_PART_ROUNDS = 50000, CHUNK = 8 };

static int ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

// Whether the kernels can do it.
static bool fits(const struct eq_target *target, const struct eq_unit_attributes *unit, const struct eq_conv2d_attributes *conv,
                 const struct eq_tensor *x, int kh, int kw)
{
    return target->family == EQ_FAMILY_VECTOR && eq_unit_has_gate(unit) && kh == 1 && kw == 1 && conv->stride_h == 1 &&
           conv->stride_w == 1 && conv->pad_h == 0 && conv->pad_w == 0 && conv->groups <= 1 && x->form == EQ_FORM_BLOCKED &&
           x->block == target->block && eq_tensor_blocks(x) <= MAX_X_BLOCKS;
}

// Cycles of a core for an image, a fit to measured times (Xeon with AVX-512, CE-ResNet-50 at 224 pixels, both ways): products,
// symmetric, and filters at 0.6 of the multiply-adds of two vectors a cycle; a pass over the output, which is far away by then,
// 1.8 an element. In layer 1 (64 to 256 channels) 0.58 million against 1.7, in layer 2 (128 to 512) 0.74 against 0.72.
static bool pays(const struct eq_unit_attributes *unit, const struct eq_tensor *x, int oc)
{
    const double in = eq_tensor_blocks(x) * x->block, out = ceil_div(oc, x->block) * x->block, pixels = (double)x->h * x->w;
    const double pass_cycles = 1.8, multiplies = 0.6 * 2 * x->block, symmetric = 0.65, store = 8;
    const bool has_products = unit->method != EQ_UNIT_SE, has_matrix = unit->method == EQ_UNIT_CE;
    const double sums = in * (pixels + out) * ((has_products ? symmetric * in : 0) + 1);
    const double filters = in * out * ((has_matrix ? unit->group : 0) + store);
    return (sums + filters) / multiplies < pass_cycles * out * pixels;
}

int eq_conv2d_gated_parts(const struct eq_target *target, const struct eq_unit_attributes *unit,
                          const struct eq_conv2d_attributes *conv, const struct eq_tensor *x, const struct eq_tensor *w)
{
    if (!fits(target, unit, conv, x, w->h, w->w) || !pays(unit, x, w->n))
        return 0;
    // Two, that a few images can be shared by cores evenly; more, lest a sum or a work-item become too long.
    const int units = target->compute_units > 0 ? target->compute_units : 1, blocks = eq_tensor_blocks(x);
    const int pixel_rounds = blocks + (x->block + 7) / 8 * ((blocks + 2) * blocks / 4);
    const int pixels = x->h * x->w, longest = MAX_PART_ROUNDS / pixel_rounds;
    const int least = ceil_div(pixels, longest < MAX_PART_PIXELS ? longest : MAX_PART_PIXELS);
    const int wanted = ceil_div(4 * units, x->n), most = ceil_div(pixels, MIN_PART_PIXELS);
    const int parts = wanted < 2 ? 2 : wanted < most ? wanted : most;
    return parts > least ? parts : least;
}

// What a call works on: places in its workspace, and the unit's plan for the convolution's output z, whose moments are given.
struct plan {
    struct eq_tensor w, z;
    struct eq_unit_plan unit;
    struct eq_unit_saved saved;
    struct eq_unit_work work;
    struct eq_ref sums, products, moments, filters;
    size_t elems;
    int x_blocks;
    bool has_products;
};

static eq_status make_plan(const struct eq_call *call, struct eq_ref workspace, struct plan *plan)
{
    const struct eq_conv2d_gated_attributes *a = call->attributes;
    const struct eq_tensor *x = &call->input[EQ_CONV2D_GATED_X], *w = &call->input[EQ_CONV2D_GATED_FILTER];
    int oh, ow;
    EQ_REQUIRE(call->num_inputs == EQ_CONV2D_GATED_NUM_INPUTS && call->has[EQ_CONV2D_GATED_X] &&
                   call->has[EQ_CONV2D_GATED_FILTER] && !call->has[EQ_UNIT_MOMENTS],
               EQ_ERR_ARGUMENT, "conv2d_gated: %d inputs, want %d with an input and a filter, and no moments", call->num_inputs,
               EQ_CONV2D_GATED_NUM_INPUTS);
    EQ_TRY(eq_conv2d_check("conv2d_gated", call->target, &a->conv, x, w, &oh, &ow));
    EQ_REQUIRE(!call->training && fits(call->target, &a->unit, &a->conv, x, w->h, w->w), EQ_ERR_UNSUPPORTED,
               "conv2d_gated: evaluates a gate after a 1 x 1 convolution at stride 1 of one group with up to %d input channels "
               "on processors, not %d x %d at %d x %d padded by %d and %d, %d groups, %d channels",
               MAX_X_BLOCKS * call->target->block, w->h, w->w, a->conv.stride_h, a->conv.stride_w, a->conv.pad_h, a->conv.pad_w,
               a->conv.groups, x->c);
    EQ_REQUIRE(a->oc == w->n, EQ_ERR_SHAPE, "conv2d_gated: %d output channels, the filter has %d", a->oc, w->n);
    EQ_REQUIRE(a->parts >= 1 && a->parts <= oh * ow, EQ_ERR_ARGUMENT, "conv2d_gated: %d parts of %d pixels", a->parts, oh * ow);
    *plan = (struct plan){ .w = *w, .z = eq_tensor_blocked(x->n, a->oc, oh, ow, call->target->block, 0) };
    EQ_TRY(eq_unit_plan_make("conv2d_gated", &a->unit, call->target, false, &plan->z, &plan->unit));
    plan->unit.has_given = true;
    plan->unit.parts = 1;
    plan->x_blocks = eq_tensor_blocks(x);
    plan->has_products = plan->unit.gate.layer_norm;
    const size_t images = (size_t)x->n, parts = images * (size_t)a->parts, block = (size_t)x->block,
                 row = (size_t)plan->x_blocks * block;
    size_t *const elems = &plan->elems;
    plan->sums = eq_unit_take(workspace, elems, true, parts * row);
    plan->products = eq_unit_take(workspace, elems, plan->has_products, parts * row * row);
    plan->moments = eq_unit_take(workspace, elems, true, images * (size_t)plan->unit.blocks * 3 * block);
    plan->filters = eq_unit_take(workspace, elems, true, images * eq_tensor_elems(w));
    const size_t saved = eq_unit_saved_place(&plan->unit, EQ_REF_NONE, &plan->saved),
                 work = eq_unit_work_place(&plan->unit, EQ_REF_NONE, &plan->work);
    eq_unit_saved_place(&plan->unit, eq_unit_take(workspace, elems, true, saved), &plan->saved);
    eq_unit_work_place(&plan->unit, eq_unit_take(workspace, elems, true, work), &plan->work);
    return eq_tensor_check(&plan->z);
}

static eq_status shape(struct eq_call *call)
{
    struct plan plan;
    EQ_TRY(make_plan(call, EQ_REF_NONE, &plan));
    EQ_TRY(eq_unit_check_operands("conv2d_gated", call, &plan.unit, &plan.z));
    call->num_outputs = 2;
    call->output[0] = plan.z;
    return eq_workspace("conv2d_gated", plan.elems, &call->output[1]);
}

static int in_place(const struct eq_call *call, int output)
{
    return output == 0 && call->has[EQ_UNIT_RESIDUAL] ? EQ_UNIT_RESIDUAL : -1;
}

// Products, sums and moments of an image.
static struct eq_cost moments_cost(const struct plan *plan)
{
    const double in = (double)plan->x_blocks * plan->z.block, out = (double)plan->unit.blocks * plan->z.block;
    const double pairs = plan->has_products ? in * (in + 1) / 2 : 0;
    return (struct eq_cost){ (plan->unit.pixels + out) * (2 * pairs + 2 * in), 4 * plan->unit.pixels * in };
}

// The convolution itself, with the residual.
static struct eq_cost conv_cost(const struct eq_call *call)
{
    struct eq_cost cost =
        eq_conv2d_cost(&call->input[EQ_CONV2D_GATED_X], &call->input[EQ_CONV2D_GATED_FILTER], &call->output[0]);
    cost.bytes += call->has[EQ_UNIT_RESIDUAL] ? 4.0 * (double)eq_tensor_logical(&call->output[0]) : 0;
    return cost;
}

static struct eq_cost cost(const struct eq_call *call)
{
    struct eq_cost cost = conv_cost(call);
    struct plan plan;
    if (make_plan(call, EQ_REF_NONE, &plan) != EQ_OK)
        return cost;
    const double images = plan.z.n, elems = images * (double)eq_tensor_elems(&plan.w);
    cost.flops += images * moments_cost(&plan).flops + elems * (plan.unit.has_matrix ? 2.0 * plan.unit.groups.group + 1 : 1);
    cost.bytes += images * moments_cost(&plan).bytes + 4.0 * elems;
    return cost;
}

// The same for all kernels: one program.
static struct eq_options options_of(const struct plan *plan)
{
    return eq_options_format("-DBLOCK=%d -DXB=%d -DPRODUCTS=%d -DOB=%d -DCHUNK=%d", plan->z.block, plan->x_blocks,
                             plan->has_products, plan->unit.blocks > 1 ? 2 : 1, CHUNK);
}

static eq_status moments_emit(struct eq_list *list, const struct plan *plan, const struct eq_conv2d_view *x, struct eq_ref w,
                              int parts)
{
    const double in = (double)plan->x_blocks * x->block, out = (double)plan->unit.blocks * x->block;
    const double pixels = (double)plan->unit.pixels, images = x->n;
    const double pairs = plan->has_products ? in * (in + 1) / 2 : 0;
    const struct eq_options options = options_of(plan);
    const struct eq_launch products = {
        .source = "conv2d_gated",
        .options = options.text,
        .kernel = "conv2d_gated_products",
        .range = eq_range_2d((size_t)parts, (size_t)x->n, 1, 1),
        .cost = { images * pixels * (2 * pairs + 2 * in), 4 * images * (pixels * in + parts * (pairs + in)) },
    };
    const struct eq_launch moments = {
        .source = "conv2d_gated",
        .options = options.text,
        .kernel = "conv2d_gated_moments",
        .range = eq_range_2d((size_t)x->n, (size_t)ceil_div(plan->unit.blocks, CHUNK), 1, 1),
        .cost = { images * out * (2 * pairs + 4 * in), 4 * (images * (parts * (pairs + in) + 3 * out) + in * out) },
    };
    const int row_pixels = x->halo > 0 ? plan->z.w : plan->unit.pixels;
    EQ_TRY(eq_list_kernel(list, &products,
                          EQ_ARGS(EQ_REF(x->origin), EQ_REF(plan->sums), EQ_REF(plan->products), EQ_I32(x->plane),
                                  EQ_I32(x->row), EQ_I32(row_pixels), EQ_I32(plan->unit.pixels))));
    return eq_list_kernel(list, &moments,
                          EQ_ARGS(EQ_REF(x->origin), EQ_REF(w), EQ_REF(plan->sums), EQ_REF(plan->products),
                                  EQ_REF(plan->moments), EQ_I32(x->plane), EQ_I32(parts), EQ_I32(plan->unit.pixels),
                                  EQ_I32(plan->unit.blocks)));
}

static eq_status filters_emit(struct eq_list *list, const struct plan *plan, struct eq_ref w)
{
    const struct eq_solve_groups *groups = &plan->unit.groups;
    const double elems = (double)eq_tensor_elems(&plan->w), images = plan->z.n;
    const struct eq_options options = options_of(plan);
    const struct eq_launch launch = {
        .source = "conv2d_gated",
        .options = options.text,
        .kernel = "conv2d_gated_filter",
        .range = eq_range_2d((size_t)plan->z.n, (size_t)plan->unit.blocks, 1, 1),
        .cost = { images * elems * (plan->unit.has_matrix ? 2.0 * groups->group + 1 : 1), 4 * elems * (images + 1) },
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(w), EQ_REF(plan->saved.matrix), EQ_REF(plan->saved.scale), EQ_REF(plan->filters),
                                  EQ_I32(plan->unit.blocks), EQ_I32(groups->span), EQ_I32(groups->group),
                                  EQ_I32(plan->unit.stride), EQ_I32(plan->unit.has_matrix)));
}

static eq_status emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    const struct eq_conv2d_gated_attributes *a = call->attributes;
    const struct eq_ref w = in[EQ_CONV2D_GATED_FILTER];
    struct eq_ref refs[EQ_UNIT_NUM_INPUTS];
    struct plan plan;
    EQ_TRY(make_plan(call, out[1], &plan));
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++)
        refs[i] = call->has[i] ? in[i] : EQ_REF_NONE;
    refs[EQ_UNIT_MOMENTS] = plan.moments;
    struct eq_conv2d_job job = {
        .x = eq_conv2d_view(&call->input[EQ_CONV2D_GATED_X], in[EQ_CONV2D_GATED_X]),
        .z = eq_conv2d_view(&call->output[0], out[0]),
        .has_add = call->has[EQ_UNIT_RESIDUAL],
        .bias = plan.saved.shift,
        .bias_image = plan.unit.stride,
        .activation = a->unit.activation,
        .filter = plan.filters,
        .filter_image = (int)eq_tensor_elems(&plan.w),
        .kh = 1,
        .kw = 1,
        .stride_h = 1,
        .stride_w = 1,
        .cost = conv_cost(call),
    };
    if (job.has_add)
        job.add = eq_conv2d_view(&call->input[EQ_UNIT_RESIDUAL], in[EQ_UNIT_RESIDUAL]);
    eq_unit_place_prepared(&plan.unit, refs[EQ_UNIT_PREPARED], &plan.saved);
    EQ_TRY(moments_emit(list, &plan, &job.x, w, a->parts));
    EQ_TRY(eq_unit_solve_emit(list, &plan.unit, refs, (struct eq_unit_view){ .ref = EQ_REF_NONE }, &plan.saved, &plan.work));
    EQ_TRY(filters_emit(list, &plan, w));
    EQ_TRY(eq_conv2d_border_emit(list, &call->output[0], out[0]));
    return eq_conv2d_vector_emit(list, &job);
}

const struct eq_op eq_op_conv2d_gated = {
    .name = "conv2d_gated",
    .attribute_bytes = sizeof(struct eq_conv2d_gated_attributes),
    .shape = shape,
    .is_per_image = true,
    .in_place = in_place,
    .emit = emit,
    .cost = cost,
};

// Plan of a unit: sizes, parts of planes, places in SAVED and WORKSPACE. Pure.
#include "op/unit_plan.h"

#include <limits.h>

static int ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

static int clamp(int value, int low, int high)
{
    return value < low ? low : value > high ? high : value;
}

static int round_up(int value, int to)
{
    return ceil_div(value, to) * to;
}

int eq_unit_group_size(const struct eq_target *target)
{
    int size = 16;
    while (size * 2 <= 256 && (size_t)size * 2 <= target->max_group)
        size *= 2;
    return size;
}

int eq_unit_pass_group_size(const struct eq_target *target)
{
    const int size = eq_unit_group_size(target);
    return size < 128 ? size : 128;
}

struct eq_options eq_unit_options(const struct eq_unit_plan *plan, bool grad)
{
    if (plan->target.family == EQ_FAMILY_VECTOR)
        return eq_options_format("-DBLOCK=%d -DSIMT=0 -DGRAD=%d", plan->block, grad);
    return eq_options_format("-DBLOCK=%d -DSIMT=1 -DGRAD=%d -DWG=%d%s", plan->block, grad,
                             eq_unit_pass_group_size(&plan->target), plan->groups.span == 1 ? " -DSPAN=1" : "");
}

// Pieces of a plane: enough for every compute unit to have work at hand, and at most 4096 pixels in one sum; not below
// 16 pixels (VECTOR) or 4 of four channels a work-item (SIMT), where the merging would cost more than the pass.
static void plan_parts(struct eq_unit_plan *plan)
{
    const bool vector = plan->target.family == EQ_FAMILY_VECTOR;
    const int planes = plan->images * plan->blocks, units = plan->target.compute_units > 0 ? plan->target.compute_units : 1;
    const int tiles = planes * (plan->has_cross ? plan->groups.span : 1);
    const int least = vector ? 16 : 4 * eq_unit_pass_group_size(&plan->target) / (plan->block / 4);
    const int wanted = vector ? ceil_div(4 * units, tiles) : ceil_div(8 * units, tiles);
    // Where a block meets others of its group, the pieces of all of them should stay in a core's cache.
    const int enough = ceil_div(plan->pixels, plan->groups.span > 1 ? 2048 : 4096);
    const int splits = ceil_div(4 * units, planes), cached = plan->groups.span > 1 ? ceil_div(plan->pixels, 1024) : 1;
    plan->parts = clamp(wanted > enough ? wanted : enough, 1, ceil_div(plan->pixels, least));
    plan->splits = clamp(splits > cached ? splits : cached, 1, ceil_div(plan->pixels, 16));
}

static eq_status check(const char *name, const struct eq_unit_attributes *a, const struct eq_target *target,
                       const struct eq_tensor *z)
{
    EQ_TRY(eq_tensor_check(z));
    EQ_REQUIRE(z->dtype == EQ_F32 && z->form == EQ_FORM_BLOCKED && z->block == target->block, EQ_ERR_SHAPE,
               "%s: the input is not a blocked activation in blocks of %d channels", name, target->block);
    EQ_REQUIRE(a->method >= EQ_UNIT_NONE && a->method <= EQ_UNIT_SE, EQ_ERR_ARGUMENT, "%s: method %d does not exist", name,
               (int)a->method);
    EQ_REQUIRE(a->activation >= EQ_ACT_NONE && a->activation <= EQ_ACT_ELU, EQ_ERR_ARGUMENT, "%s: activation %d does not exist",
               name, (int)a->activation);
    EQ_REQUIRE(eq_tensor_image(z) < INT_MAX / 4 && (int64_t)z->n * z->h * z->w < INT_MAX, EQ_ERR_UNSUPPORTED,
               "%s: an image of %zu elements, or %d images of %d x %d pixels, is too large", name, eq_tensor_image(z), z->n,
               z->h, z->w);
    if (a->method == EQ_UNIT_CE || a->method == EQ_UNIT_BD) {
        EQ_REQUIRE(a->group >= 1, EQ_ERR_ARGUMENT, "%s: groups of %d channels", name, a->group);
        EQ_REQUIRE(a->iterations >= 1 && a->iterations <= 64, EQ_ERR_ARGUMENT, "%s: %d Newton-Schulz steps, not 1 to 64", name,
                   a->iterations);
    }
    if (a->method == EQ_UNIT_CE || a->method == EQ_UNIT_IR || a->method == EQ_UNIT_SE)
        EQ_REQUIRE(a->hidden >= 1, EQ_ERR_ARGUMENT, "%s: the gate has %d hidden units for %d channels", name, a->hidden, z->c);
    return EQ_OK;
}

eq_status eq_unit_plan_make(const char *name, const struct eq_unit_attributes *attributes, const struct eq_target *target,
                            bool training, const struct eq_tensor *z, struct eq_unit_plan *plan)
{
    const struct eq_unit_attributes *a = attributes;
    EQ_TRY(check(name, a, target, z));
    const enum eq_unit_method m = a->method;
    const bool reweights = m == EQ_UNIT_CE || m == EQ_UNIT_IR;
    const float gate_momentum = a->gate_momentum > 0 ? a->gate_momentum : a->momentum;
    *plan = (struct eq_unit_plan){
        .target = *target,
        .method = m,
        .activation = a->activation,
        .training = training,
        .pools = a->pools,
        .has_norm = m != EQ_UNIT_NONE,
        .has_matrix = m == EQ_UNIT_CE || m == EQ_UNIT_BD,
        .has_gate = eq_unit_has_gate(a),
        .instance = reweights         ? 1
                    : m == EQ_UNIT_SE ? 2
                                      : 0,
        .images = z->n,
        .channels = z->c,
        .h = z->h,
        .w = z->w,
        .pixels = z->h * z->w,
        .block = z->block,
        .blocks = eq_tensor_blocks(z),
        .stride = round_up(z->c, 16),
        .bn_eps = a->bn_eps,
        .momentum = a->momentum,
        .gate_momentum = gate_momentum,
    };
    EQ_REQUIRE(!reweights || plan->pixels > 1, EQ_ERR_SHAPE,
               "%s: images of %d x %d pixels have no variance, which the reweighting of %d channels needs", name, z->h, z->w,
               z->c);
    EQ_REQUIRE(!plan->has_norm || !training || (int64_t)z->n * plan->pixels > 1, EQ_ERR_SHAPE,
               "%s: training with %d image of %d x %d pixels: one value per channel has no variance", name, z->n, z->h, z->w);
    plan->has_moments = plan->has_norm && (training || plan->has_gate);
    plan->has_cross = training && plan->has_matrix;
    plan->groups = eq_solve_groups_make(z, plan->has_matrix ? a->group : 1);
    plan->groups.iterations = a->iterations;
    plan->groups.eps = a->ce_eps;
    plan->groups.has_weight = m == EQ_UNIT_CE;
    plan->gate = (struct eq_solve_gate){
        .images = z->n,
        .channels = z->c,
        .stride = plan->stride,
        .hidden = plan->has_gate ? a->hidden : 0,
        .hidden_stride = plan->has_gate ? round_up(a->hidden, 16) : 0,
        .pixels = plan->pixels,
        .layer_norm = reweights,
        .training = training,
        .has_weight = m == EQ_UNIT_CE,
        .group = m == EQ_UNIT_CE && !training ? plan->groups.group : 0,
        .momentum = gate_momentum,
    };
    plan_parts(plan);
    plan->groups.partials = plan->images * plan->parts;
    struct eq_unit_saved saved;
    struct eq_unit_work work;
    struct eq_unit_grad_work grad_work;
    const size_t most = eq_unit_saved_place(plan, EQ_REF_NONE, &saved) + eq_unit_work_place(plan, EQ_REF_NONE, &work) +
                        eq_unit_grad_work_place(plan, EQ_REF_NONE, &grad_work);
    EQ_REQUIRE(most < INT_MAX, EQ_ERR_UNSUPPORTED, "%s: %d images, %d channels in groups of %d need %zu elements of workspace",
               name, z->n, z->c, plan->groups.group, most);
    return EQ_OK;
}

struct eq_unit_plan eq_unit_plan_constant(const struct eq_unit_plan *plan)
{
    struct eq_unit_plan constant = *plan;
    constant.has_moments = constant.has_gate = false;
    constant.instance = 0;
    constant.gate = (struct eq_solve_gate){ .images = plan->images, .channels = plan->channels, .stride = plan->stride };
    return constant;
}

bool eq_unit_plan_makes_matrix(const struct eq_unit_plan *plan)
{
    return plan->has_matrix && (plan->training || !plan->has_gate);
}

bool eq_unit_plan_evaluates_gate(const struct eq_unit_plan *plan)
{
    return !plan->training && plan->has_gate && plan->target.family == EQ_FAMILY_VECTOR;
}

struct eq_ref eq_unit_take(struct eq_ref base, size_t *total, bool wanted, size_t elems)
{
    if (!wanted)
        return EQ_REF_NONE;
    const struct eq_ref ref = eq_ref_plus(base, *total);
    *total += (elems + 15) / 16 * 16;
    return ref;
}

size_t eq_unit_saved_place(const struct eq_unit_plan *plan, struct eq_ref base, struct eq_unit_saved *saved)
{
    const size_t channel = (size_t)plan->stride, image = channel * (size_t)plan->images,
                 matrix = eq_solve_matrix_elems(&plan->groups);
    const size_t hidden = (size_t)plan->gate.hidden_stride * (size_t)plan->images;
    const bool norm = plan->has_norm, gate = plan->has_gate, cross = plan->has_cross,
               makes_matrix = eq_unit_plan_makes_matrix(plan), evaluates_gate = eq_unit_plan_evaluates_gate(plan),
               steps = gate && !evaluates_gate, layer_norm = steps && plan->gate.layer_norm;
    size_t total = 0;
    *saved = (struct eq_unit_saved){
        .pivot = eq_unit_take(base, &total, norm, channel),
        .mean = eq_unit_take(base, &total, norm && !evaluates_gate, channel),
        .inverse = eq_unit_take(base, &total, norm && !evaluates_gate, channel),
        .a = eq_unit_take(base, &total, norm && !evaluates_gate, channel),
        .b = eq_unit_take(base, &total, norm && !evaluates_gate, channel),
        .image_mean = eq_unit_take(base, &total, steps, image),
        .image_var = eq_unit_take(base, &total, steps, image),
        .image_value = eq_unit_take(base, &total, gate, image),
        .value_sum = eq_unit_take(base, &total, steps, channel),
        .active = eq_unit_take(base, &total, steps, hidden),
        .hidden_normal = eq_unit_take(base, &total, layer_norm, hidden),
        .deviation = eq_unit_take(base, &total, layer_norm, (size_t)plan->images),
        .spread = eq_unit_take(base, &total, steps, 1),
        .y = eq_unit_take(base, &total, steps, image),
        .gate = eq_unit_take(base, &total, steps, image),
        .cov = eq_unit_take(base, &total, cross, matrix),
        .normal = eq_unit_take(base, &total, cross, matrix),
        .trace = eq_unit_take(base, &total, cross, (size_t)plan->groups.groups),
        .powers = eq_unit_take(base, &total, cross, matrix * (size_t)(plan->groups.iterations + 1)),
        .matrix = eq_unit_take(base, &total, makes_matrix, eq_solve_tile_elems(&plan->groups)),
        .common = eq_unit_take(base, &total, makes_matrix, channel),
        // BN's map is a and b themselves
        .scale = eq_unit_take(base, &total, plan->method != EQ_UNIT_BN, gate ? image : channel),
        .shift = eq_unit_take(base, &total, plan->method != EQ_UNIT_BN, gate ? image : channel),
    };
    return total > 0 ? total : 1;
}

static size_t sums_elems(const struct eq_unit_plan *plan)
{
    if (eq_unit_plan_evaluates_gate(plan))
        return (size_t)plan->images * (size_t)plan->parts * 3 * (size_t)(plan->blocks * plan->block);
    return (size_t)plan->images * (size_t)plan->parts * 2 * (size_t)plan->stride;
}

size_t eq_unit_work_place(const struct eq_unit_plan *plan, struct eq_ref base, struct eq_unit_work *work)
{
    const size_t tile = eq_solve_tile_elems(&plan->groups), matrix = eq_solve_matrix_elems(&plan->groups);
    const bool evaluates_gate = eq_unit_plan_evaluates_gate(plan);
    size_t total = 0;
    *work = (struct eq_unit_work){
        .sums = eq_unit_take(base, &total, plan->has_moments && !plan->has_given, sums_elems(plan)),
        .tiles = eq_unit_take(base, &total, plan->has_cross, tile * (size_t)plan->groups.partials),
        .sigma = eq_unit_take(base, &total, plan->has_cross, matrix),
        .scratch = eq_unit_take(base, &total, plan->has_cross, eq_solve_scratch_elems(&plan->groups)),
        .hidden_sums = eq_unit_take(base, &total, evaluates_gate || (plan->has_gate && plan->target.family == EQ_FAMILY_SIMT),
                                    evaluates_gate ? eq_solve_evaluation_elems(&plan->gate)
                                                   : (size_t)plan->gate.hidden_stride * (size_t)plan->images),
        .offset = eq_unit_take(base, &total, plan->has_matrix && evaluates_gate, (size_t)plan->stride * (size_t)plan->images),
        .active = eq_unit_take(base, &total, evaluates_gate, eq_solve_evaluation_elems(&plan->gate)),
    };
    return total > 0 ? total : 1;
}

size_t eq_unit_grad_work_place(const struct eq_unit_plan *plan, struct eq_ref base, struct eq_unit_grad_work *work)
{
    const size_t channel = (size_t)plan->stride, image = channel * (size_t)plan->images, map = plan->has_gate ? image : channel;
    const size_t tile = eq_solve_tile_elems(&plan->groups), matrix = eq_solve_matrix_elems(&plan->groups);
    const size_t hidden = (size_t)plan->gate.hidden_stride * (size_t)plan->images;
    const bool norm = plan->has_norm, gate = plan->has_gate, cross = plan->has_cross;
    size_t total = 0;
    *work = (struct eq_unit_grad_work){
        .sums = eq_unit_take(base, &total, norm, sums_elems(plan)),
        .tiles = eq_unit_take(base, &total, cross, tile * (size_t)plan->groups.partials),
        .image_sum = eq_unit_take(base, &total, norm, image),
        .image_product = eq_unit_take(base, &total, norm, image),
        .sum = eq_unit_take(base, &total, norm, channel),
        .product = eq_unit_take(base, &total, norm, channel),
        .cross = eq_unit_take(base, &total, cross, matrix),
        .dmap = eq_unit_take(base, &total, cross, matrix),
        .k = eq_unit_take(base, &total, cross, matrix),
        .scratch = eq_unit_take(base, &total, cross, eq_solve_scratch_elems(&plan->groups)),
        .matrix = eq_unit_take(base, &total, cross, tile),
        .slopes = eq_unit_take(base, &total, cross, tile),
        .matrix_beta = eq_unit_take(base, &total, cross, channel),
        .matrix_gamma = eq_unit_take(base, &total, cross, channel),
        .matrix_shift = eq_unit_take(base, &total, cross, channel),
        .by_weight = eq_unit_take(base, &total, cross, channel),
        .dpre = eq_unit_take(base, &total, gate, image),
        .total = eq_unit_take(base, &total, gate, (size_t)plan->images),
        .dactive = eq_unit_take(base, &total, gate, hidden),
        .dhidden = eq_unit_take(base, &total, gate, hidden),
        .dvalue = eq_unit_take(base, &total, gate, image),
        .scale = eq_unit_take(base, &total, true, map),
        .slope = eq_unit_take(base, &total, true, map),
        .shift = eq_unit_take(base, &total, true, map),
    };
    return total > 0 ? total : 1;
}

struct eq_unit_view eq_unit_view(const struct eq_tensor *tensor, struct eq_ref ref)
{
    if (!ref.buffer)
        return (struct eq_unit_view){ .ref = EQ_REF_NONE };
    return (struct eq_unit_view){
        .ref = eq_ref_plus(ref, eq_tensor_origin(tensor)),
        .image = (int)eq_tensor_image(tensor),
        .plane = (int)eq_tensor_plane(tensor),
        .row = (int)eq_tensor_row(tensor),
        .halo = tensor->halo,
    };
}

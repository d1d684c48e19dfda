// The solve of a unit, forward and backward: batch norm's part here, then matrices (solve_ce.c) and gates (solve_gate.c) as the
// method has them.
#include "op/unit_plan.h"

static bool is_vector(const struct eq_list *list)
{
    return eq_list_target(list)->family == EQ_FAMILY_VECTOR;
}

static struct eq_options options(const struct eq_list *list)
{
    return is_vector(list) ? eq_options_format("-DSIMT=0")
                           : eq_options_format("-DSIMT=1 -DWG=%d", eq_unit_group_size(eq_list_target(list)));
}

// A work-item does 16 channels (VECTOR), a work-group 8.
static struct eq_range channel_range(const struct eq_list *list, int stride)
{
    const size_t local = (size_t)eq_unit_group_size(eq_list_target(list));
    return is_vector(list) ? eq_range_1d((size_t)stride / 16, 1) : eq_range_1d((size_t)stride / 8 * local, local);
}

// A map that is the same for every channel. slope may be absent.
static eq_status constant_map_emit(struct eq_list *list, const struct eq_unit_plan *plan, float value, struct eq_ref scale,
                                   struct eq_ref slope, struct eq_ref shift)
{
    const struct eq_options text = options(list);
    const struct eq_launch launch = {
        .source = "solve_bn",
        .options = text.text,
        .kernel = "constant_map",
        .range = eq_range_1d((size_t)plan->stride, 16),
        .cost = { 0, 8.0 * plan->stride },
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(scale), EQ_REF(slope), EQ_REF(shift), EQ_I32(plan->stride),
                                  EQ_I32(slope.buffer != NULL), EQ_F32(value)));
}

static eq_status statistics_emit(struct eq_list *list, const struct eq_unit_plan *plan, const struct eq_ref *in,
                                 struct eq_unit_view z, const struct eq_unit_saved *s, const struct eq_unit_work *w)
{
    const struct eq_options text = options(list);
    const struct eq_launch launch = {
        .source = "solve_bn",
        .options = text.text,
        .kernel = "statistics",
        .range = channel_range(list, plan->stride),
        .cost = { 4.0 * plan->images * plan->parts * plan->stride, 8.0 * plan->images * plan->parts * plan->stride },
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(z.ref), EQ_REF(w->sums), EQ_REF(in[EQ_UNIT_GAMMA]), EQ_REF(in[EQ_UNIT_BETA]),
                                  EQ_REF(in[EQ_UNIT_MEAN]), EQ_REF(in[EQ_UNIT_VAR]), EQ_REF(s->pivot), EQ_REF(s->mean),
                                  EQ_REF(s->inverse), EQ_REF(s->a), EQ_REF(s->b), EQ_REF(s->image_mean), EQ_REF(s->image_var),
                                  EQ_REF(s->image_value), EQ_REF(s->value_sum), EQ_I32(z.plane), EQ_I32(plan->block),
                                  EQ_I32(plan->images), EQ_I32(plan->parts), EQ_I32(plan->channels), EQ_I32(plan->stride),
                                  EQ_I32(plan->pixels), EQ_I32(plan->training), EQ_I32(plan->has_moments),
                                  EQ_I32(plan->instance), EQ_F32(plan->bn_eps), EQ_F32(plan->momentum)));
}

// W of this batch, or the running one, into the map.
static eq_status matrices_emit(struct eq_list *list, const struct eq_unit_plan *plan, const struct eq_ref *in,
                               const struct eq_unit_saved *s, const struct eq_unit_work *w)
{
    const struct eq_solve_groups *groups = &plan->groups;
    struct eq_ref map = in[EQ_UNIT_CE_WM];
    if (plan->training) {
        EQ_TRY(eq_solve_covariance_emit(list, groups, w->tiles, s->mean, s->a, s->cov, w->sigma));
        EQ_TRY(eq_solve_newton_schulz_emit(list, groups, w->sigma, s->normal, s->trace, s->powers, w->scratch));
        map = eq_ref_plus(s->powers, eq_solve_matrix_elems(groups) * (size_t)groups->iterations);
    }
    const struct eq_solve_map refs = {
        .w = map,
        .mean = s->mean,
        .a = s->a,
        .b = s->b,
        .x_weight = in[EQ_UNIT_X_WEIGHT],
        .matrix = s->matrix,
        .shift = s->common,
        .run_mean = in[EQ_UNIT_CE_MEAN],
        .run_map = in[EQ_UNIT_CE_WM],
    };
    return eq_solve_map_emit(list, groups, plan->training ? groups->padded : groups->group, plan->training, plan->gate_momentum,
                             &refs);
}

static struct eq_solve_weights gate_weights(const struct eq_unit_plan *plan, const struct eq_ref *in)
{
    const bool se = !plan->gate.layer_norm;
    return (struct eq_solve_weights){
        .w1 = in[se ? EQ_UNIT_FC1 : EQ_UNIT_W1],
        .gain = in[EQ_UNIT_LN_GAMMA],
        .bias1 = in[se ? EQ_UNIT_FC1_BIAS : EQ_UNIT_LN_BETA],
        .w2 = in[se ? EQ_UNIT_FC2 : EQ_UNIT_W2],
        .bias2 = in[EQ_UNIT_FC2_BIAS],
        .x_weight = in[EQ_UNIT_X_WEIGHT],
        .run_scale = in[EQ_UNIT_SCALE],
    };
}

static eq_status evaluation_emit(struct eq_list *list, const struct eq_unit_plan *plan, const struct eq_ref *in,
                                 struct eq_unit_view z, const struct eq_unit_saved *s, const struct eq_unit_work *w)
{
    const struct eq_solve_evaluation refs = {
        .weights = gate_weights(plan, in),
        .z = z.ref,
        .moments = plan->has_given ? in[EQ_UNIT_MOMENTS] : w->sums,
        .gamma = in[EQ_UNIT_GAMMA],
        .beta = in[EQ_UNIT_BETA],
        .run_mean = in[EQ_UNIT_MEAN],
        .run_var = in[EQ_UNIT_VAR],
        .matrix = s->matrix,
        .common = s->common,
        .offset = w->offset,
        .value = s->image_value,
        .hidden_sums = w->hidden_sums,
        .active = w->active,
        .pivot = s->pivot,
        .scale = s->scale,
        .shift = s->shift,
        .z_plane = z.plane,
        .parts = plan->parts,
        .eps = plan->bn_eps,
    };
    return eq_solve_evaluation_emit(list, &plan->gate, &plan->groups, &refs);
}

eq_status eq_unit_solve_emit(struct eq_list *list, const struct eq_unit_plan *plan, const struct eq_ref *in,
                             struct eq_unit_view z, const struct eq_unit_saved *saved, const struct eq_unit_work *work)
{
    if (!plan->has_norm)
        return constant_map_emit(list, plan, 1.0f, saved->scale, EQ_REF_NONE, saved->shift);
    if (eq_unit_plan_evaluates_gate(plan))
        return evaluation_emit(list, plan, in, z, saved, work);
    EQ_TRY(statistics_emit(list, plan, in, z, saved, work));
    if (eq_unit_plan_makes_matrix(plan))
        EQ_TRY(matrices_emit(list, plan, in, saved, work));
    if (plan->has_gate) {
        const struct eq_solve_reweight refs = {
            .weights = gate_weights(plan, in),
            .value = saved->image_value,
            .value_sum = saved->value_sum,
            .a = saved->a,
            .b = saved->b,
            .common = saved->common,
            .run_map = plan->gate.group > 0 ? in[EQ_UNIT_CE_WM] : EQ_REF_NONE,
            .active = saved->active,
            .normal = saved->hidden_normal,
            .deviation = saved->deviation,
            .spread = saved->spread,
            .y = saved->y,
            .gate = saved->gate,
            .scale = saved->scale,
            .shift = saved->shift,
            .sums = work->hidden_sums,
        };
        return eq_solve_reweight_emit(list, &plan->gate, &refs);
    }
    // BD: the matrices are the whole map, and their shift is saved->common.
    if (plan->has_matrix)
        return constant_map_emit(list, plan, 0.0f, saved->scale, EQ_REF_NONE, saved->shift);
    return EQ_OK;
}

static eq_status statistics_grad_emit(struct eq_list *list, const struct eq_unit_plan *plan, const struct eq_unit_grad_work *w)
{
    const struct eq_options text = options(list);
    const struct eq_launch launch = {
        .source = "solve_bn",
        .options = text.text,
        .kernel = "statistics_grad",
        .range = channel_range(list, plan->stride),
        .cost = { 2.0 * plan->images * plan->parts * plan->stride, 8.0 * plan->images * plan->parts * plan->stride },
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(w->sums), EQ_REF(w->image_sum), EQ_REF(w->image_product), EQ_REF(w->sum),
                                  EQ_REF(w->product), EQ_I32(plan->images), EQ_I32(plan->parts), EQ_I32(plan->channels),
                                  EQ_I32(plan->stride)));
}

static eq_status matrices_grad_emit(struct eq_list *list, const struct eq_unit_plan *plan, const struct eq_ref *parameter,
                                    const struct eq_unit_saved *s, const struct eq_unit_grad_work *w)
{
    const struct eq_solve_groups *groups = &plan->groups;
    const struct eq_solve_map_grad map = {
        .tiles = w->tiles,
        .w = eq_ref_plus(s->powers, eq_solve_matrix_elems(groups) * (size_t)groups->iterations),
        .k = w->k,
        .cov = s->cov,
        .cross = w->cross,
        .dmap = w->dmap,
        .mean = s->mean,
        .a = s->a,
        .b = s->b,
        .sum = w->sum,
        .x_weight = parameter[EQ_UNIT_X_WEIGHT],
        .matrix = w->matrix,
        .slopes = w->slopes,
        .matrix_beta = w->matrix_beta,
        .matrix_gamma = w->matrix_gamma,
        .matrix_shift = w->matrix_shift,
        .by_weight = w->by_weight,
    };
    const struct eq_solve_newton_schulz_grad newton_schulz = {
        .dmap = w->dmap,
        .normal = s->normal,
        .trace = s->trace,
        .powers = s->powers,
        .a = s->a,
        .x_weight = parameter[EQ_UNIT_X_WEIGHT],
        .k = w->k,
        .scratch = w->scratch,
    };
    EQ_TRY(eq_solve_covariance_grad_emit(list, groups, &map));
    EQ_TRY(eq_solve_newton_schulz_grad_emit(list, groups, &newton_schulz));
    return eq_solve_map_grad_emit(list, groups, &map);
}

static eq_status gate_grad_emit(struct eq_list *list, const struct eq_unit_plan *plan, const struct eq_ref *parameter,
                                const struct eq_ref *gradient, const struct eq_unit_saved *s, const struct eq_unit_grad_work *w)
{
    const bool se = !plan->gate.layer_norm;
    const struct eq_solve_reweight_grad refs = {
        .weights = gate_weights(plan, parameter),
        .image_sum = w->image_sum,
        .image_product = w->image_product,
        .value = s->image_value,
        .a = s->a,
        .b = s->b,
        .active = s->active,
        .normal = s->hidden_normal,
        .deviation = s->deviation,
        .spread = s->spread,
        .y = s->y,
        .dpre = w->dpre,
        .total = w->total,
        .dactive = w->dactive,
        .dhidden = w->dhidden,
        .dvalue = w->dvalue,
        .dw1 = gradient[se ? EQ_UNIT_FC1 : EQ_UNIT_W1],
        .dgain = gradient[EQ_UNIT_LN_GAMMA],
        .dbias1 = gradient[se ? EQ_UNIT_FC1_BIAS : EQ_UNIT_LN_BETA],
        .dw2 = gradient[se ? EQ_UNIT_FC2 : EQ_UNIT_W2],
        .dbias2 = gradient[EQ_UNIT_FC2_BIAS],
    };
    return eq_solve_reweight_grad_emit(list, &plan->gate, &refs);
}

static eq_status finish_grad_emit(struct eq_list *list, const struct eq_unit_plan *plan, const struct eq_ref *gradient,
                                  const struct eq_unit_saved *s, const struct eq_unit_grad_work *w)
{
    const bool by_var = plan->instance == 1, by_mean = plan->instance == 2;
    const struct eq_options text = options(list);
    const struct eq_launch launch = {
        .source = "solve_bn",
        .options = text.text,
        .kernel = "finish_grad",
        .range = channel_range(list, plan->stride),
        .cost = { 20.0 * plan->images * plan->stride, 32.0 * plan->images * plan->stride },
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(s->inverse), EQ_REF(s->mean), EQ_REF(s->a), EQ_REF(w->sum), EQ_REF(w->product),
                                  EQ_REF(w->image_sum), EQ_REF(w->image_product), EQ_REF(s->gate), EQ_REF(w->dvalue),
                                  EQ_REF(s->image_var), EQ_REF(s->image_mean), EQ_REF(w->dvalue), EQ_REF(w->matrix_beta),
                                  EQ_REF(w->matrix_gamma), EQ_REF(w->matrix_shift), EQ_REF(gradient[EQ_UNIT_GAMMA]),
                                  EQ_REF(gradient[EQ_UNIT_BETA]), EQ_REF(w->scale), EQ_REF(w->slope), EQ_REF(w->shift),
                                  EQ_I32(plan->images), EQ_I32(plan->channels), EQ_I32(plan->stride), EQ_I32(plan->pixels),
                                  EQ_I32(plan->has_gate), EQ_I32(by_var), EQ_I32(by_mean), EQ_I32(plan->has_matrix)));
}

eq_status eq_unit_solve_grad_emit(struct eq_list *list, const struct eq_unit_plan *plan, const struct eq_ref *parameter,
                                  const struct eq_ref *gradient, const struct eq_unit_saved *saved,
                                  const struct eq_unit_grad_work *work)
{
    if (!plan->has_norm)
        return constant_map_emit(list, plan, 1.0f, work->scale, work->slope, work->shift);
    EQ_TRY(statistics_grad_emit(list, plan, work));
    if (plan->has_matrix)
        EQ_TRY(matrices_grad_emit(list, plan, parameter, saved, work));
    if (plan->has_gate)
        EQ_TRY(gate_grad_emit(list, plan, parameter, gradient, saved, work));
    if (plan->method == EQ_UNIT_CE)
        EQ_TRY(eq_solve_x_weight_grad_emit(list, &plan->groups, plan->images, work->by_weight, work->total, saved->spread,
                                           parameter[EQ_UNIT_X_WEIGHT], gradient[EQ_UNIT_X_WEIGHT]));
    return finish_grad_emit(list, plan, gradient, saved, work);
}

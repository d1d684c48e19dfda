// Pass 1 of a unit: launches of cl/moments.cl.
#include "op/unit_plan.h"

// Planes without a halo are one long row, which spares kernels the bookkeeping of rows.
static int row_pixels(const struct eq_unit_plan *plan, const struct eq_unit_view *views, int num)
{
    for (int i = 0; i < num; i++)
        if (views[i].ref.buffer && views[i].halo > 0)
            return plan->w;
    return plan->pixels;
}

static struct eq_range range(const struct eq_unit_plan *plan)
{
    const size_t tiles = (size_t)plan->blocks * (plan->has_cross ? (size_t)plan->groups.span : 1);
    const size_t local = plan->target.family == EQ_FAMILY_VECTOR ? 1 : (size_t)eq_unit_pass_group_size(&plan->target);
    return eq_range_3d((const size_t[]){ tiles * local, (size_t)plan->parts, (size_t)plan->images },
                       (const size_t[]){ local, 1, 1 });
}

static struct eq_cost cost(const struct eq_unit_plan *plan, int tensors)
{
    const double elems = (double)plan->images * plan->channels * plan->pixels;
    return (struct eq_cost){ elems * (plan->has_cross ? 2.0 * plan->groups.group + 4.0 : 4.0), 4.0 * elems * tensors };
}

static struct eq_options moments_options(const struct eq_unit_plan *plan, bool is_grad, const struct eq_ref *refs, int num_refs)
{
    const struct eq_options options = eq_unit_options(plan, is_grad);
    if (plan->target.family == EQ_FAMILY_VECTOR)
        return options;
    return eq_options_format("%s -DEQ_ALIGNED=%d", options.text, eq_refs_are_aligned(refs, num_refs));
}

eq_status eq_unit_moments_emit(struct eq_list *list, const struct eq_unit_plan *plan, struct eq_unit_view z, struct eq_ref sums,
                               struct eq_ref tiles)
{
    const struct eq_options options = moments_options(plan, false, (const struct eq_ref[]){ z.ref, sums, tiles }, 3);
    const bool of_images = eq_unit_plan_evaluates_gate(plan);
    const struct eq_launch launch = {
        .source = "moments",
        .options = options.text,
        .kernel = of_images         ? "moments_image"
                  : plan->has_cross ? "moments_cross"
                                    : "moments_diag",
        .range = range(plan),
        .cost = cost(plan, 1),
        .cut = 3,
    };
    const int w = row_pixels(plan, &z, 1);
    if (of_images)
        return eq_list_kernel(list, &launch,
                              EQ_ARGS(EQ_REF(z.ref), EQ_REF(sums), EQ_UNIT_STRIDES(z), EQ_I32(w), EQ_I32(plan->pixels)));
    if (!plan->has_cross)
        return eq_list_kernel(
            list, &launch,
            EQ_ARGS(EQ_REF(z.ref), EQ_REF(sums), EQ_UNIT_STRIDES(z), EQ_I32(w), EQ_I32(plan->pixels), EQ_I32(plan->stride)));
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(z.ref), EQ_REF(sums), EQ_REF(tiles), EQ_UNIT_STRIDES(z), EQ_I32(w),
                                  EQ_I32(plan->pixels), EQ_I32(plan->stride), EQ_I32(plan->blocks), EQ_I32(plan->groups.span),
                                  EQ_I32(plan->groups.group)));
}

eq_status eq_unit_moments_grad_emit(struct eq_list *list, const struct eq_unit_plan *plan, struct eq_unit_view z,
                                    struct eq_unit_view dout, struct eq_unit_view out, struct eq_ref pivot, struct eq_ref sums,
                                    struct eq_ref tiles)
{
    const struct eq_ref refs[] = { z.ref, dout.ref, out.ref, pivot, sums, tiles };
    const struct eq_options options = moments_options(plan, true, refs, sizeof refs / sizeof *refs);
    const struct eq_launch launch = {
        .source = "moments",
        .options = options.text,
        .kernel = plan->has_cross ? "moments_cross_grad" : "moments_diag_grad",
        .range = range(plan),
        .cost = cost(plan, out.ref.buffer ? 3 : 2),
        .cut = 3,
    };
    const int w = row_pixels(plan, (const struct eq_unit_view[]){ z, dout, out }, 3);
    if (!plan->has_cross)
        return eq_list_kernel(list, &launch,
                              EQ_ARGS(EQ_REF(z.ref), EQ_REF(dout.ref), EQ_REF(out.ref), EQ_REF(pivot), EQ_REF(sums),
                                      EQ_UNIT_STRIDES(z), EQ_UNIT_STRIDES(dout), EQ_UNIT_STRIDES(out), EQ_I32(plan->activation),
                                      EQ_I32(w), EQ_I32(plan->pixels), EQ_I32(plan->stride)));
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(z.ref), EQ_REF(dout.ref), EQ_REF(out.ref), EQ_REF(pivot), EQ_REF(sums), EQ_REF(tiles),
                                  EQ_UNIT_STRIDES(z), EQ_UNIT_STRIDES(dout), EQ_UNIT_STRIDES(out), EQ_I32(plan->activation),
                                  EQ_I32(w), EQ_I32(plan->pixels), EQ_I32(plan->stride), EQ_I32(plan->blocks),
                                  EQ_I32(plan->groups.span), EQ_I32(plan->groups.group)));
}

// Pass 2 of a unit: launches of cl/affine.cl.
#include "op/unit_plan.h"

enum { SIMT_PIXELS = 4 }; // PIXELS in cl/affine.cl

// Planes as the kernel sees them: without any halo they are one long row.
struct extent {
    int w, h;
};

static struct extent extent(const struct eq_unit_plan *plan, const struct eq_unit_view *views, int num)
{
    for (int i = 0; i < num; i++)
        if (views[i].ref.buffer && views[i].halo > 0)
            return (struct extent){ plan->w, plan->h };
    return (struct extent){ plan->pixels, 1 };
}

// Blocks of a group that a CPU's work-item makes at once: what it reads of the others serves all of them.
static int outputs(const struct eq_unit_plan *plan, bool cross)
{
    return cross && plan->target.family == EQ_FAMILY_VECTOR && plan->groups.span % 4 == 0 && plan->blocks % 4 == 0 ? 4 : 1;
}

// The outputs are stored past the caches when all of them are large and none takes the place of an input.
static bool streams(const struct eq_unit_plan *plan, const struct eq_unit_view *inputs, int num_inputs,
                    const struct eq_unit_view *outputs, int num_outputs)
{
    for (int o = 0; o < num_outputs; o++) {
        if (!outputs[o].ref.buffer)
            continue;
        if (!eq_streams(&plan->target, outputs[o].ref, (size_t)plan->images * (size_t)outputs[o].image))
            return false;
        for (int i = 0; i < num_inputs; i++)
            if (eq_ref_equal(inputs[i].ref, outputs[o].ref))
                return false;
    }
    return true;
}

static struct eq_options affine_options(const struct eq_unit_plan *plan, bool is_grad, bool cross, bool streams)
{
    const struct eq_options options = eq_unit_options(plan, is_grad);
    return eq_options_format("%s -DOUTS=%d -DEQ_STREAM=%d", options.text, outputs(plan, cross), streams);
}

// halo: the largest of the outputs'.
static struct eq_range range(const struct eq_unit_plan *plan, struct extent extent, int halo, bool cross)
{
    if (plan->target.family == EQ_FAMILY_VECTOR)
        return eq_range_3d(
            (const size_t[]){ (size_t)(plan->blocks / outputs(plan, cross)), (size_t)plan->splits, (size_t)plan->images },
            (const size_t[]){ 1, 1, 1 });
    const size_t local = (size_t)eq_unit_group_size(&plan->target), group_pixels = local / (size_t)plan->block * SIMT_PIXELS;
    const size_t pixels = (size_t)(extent.w + 2 * halo) * (size_t)(extent.h + 2 * halo);
    return eq_range_3d(
        (const size_t[]){ (pixels + group_pixels - 1) / group_pixels * local, (size_t)plan->blocks, (size_t)plan->images },
        (const size_t[]){ local, 1, 1 });
}

static struct eq_cost cost(const struct eq_unit_plan *plan, int tensors, int matrices)
{
    const double elems = (double)plan->images * plan->channels * plan->pixels;
    return (struct eq_cost){ elems * (2.0 * plan->groups.group * matrices + 4.0), 4.0 * elems * tensors };
}

eq_status eq_unit_affine_emit(struct eq_list *list, const struct eq_unit_plan *plan, const struct eq_unit_affine *a)
{
    const bool cross = a->matrix.buffer, residual = a->residual.ref.buffer;
    const bool is_streamed = streams(plan, (const struct eq_unit_view[]){ a->z, a->residual }, 2, &a->out, 1);
    const struct eq_options options = affine_options(plan, false, cross, is_streamed);
    const struct extent size = extent(plan, (const struct eq_unit_view[]){ a->z, a->residual, a->out }, 3);
    const struct eq_launch launch = {
        .source = "affine",
        .options = options.text,
        .kernel = cross ? "affine_cross" : "affine_diag",
        .range = range(plan, size, a->out.halo, cross),
        .cost = cost(plan, 2 + residual, cross),
        .cut = 3,
    };
    if (!cross)
        return eq_list_kernel(list, &launch,
                              EQ_ARGS(EQ_REF(a->z.ref), EQ_REF(a->residual.ref), EQ_REF(a->pivot), EQ_REF(a->scale),
                                      EQ_REF(a->shift), EQ_REF(a->out.ref), EQ_UNIT_STRIDES(a->z), EQ_UNIT_STRIDES(a->residual),
                                      EQ_UNIT_STRIDES(a->out), EQ_I32(residual), EQ_I32(a->out.halo), EQ_I32(plan->activation),
                                      EQ_I32(size.w), EQ_I32(size.h), EQ_I32(plan->stride), EQ_I32(a->instance)));
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(a->z.ref), EQ_REF(a->residual.ref), EQ_REF(a->pivot), EQ_REF(a->scale),
                                  EQ_REF(a->shift), EQ_REF(a->matrix), EQ_REF(a->out.ref), EQ_UNIT_STRIDES(a->z),
                                  EQ_UNIT_STRIDES(a->residual), EQ_UNIT_STRIDES(a->out), EQ_I32(residual), EQ_I32(a->out.halo),
                                  EQ_I32(plan->activation), EQ_I32(size.w), EQ_I32(size.h), EQ_I32(plan->stride),
                                  EQ_I32(a->instance), EQ_I32(plan->blocks), EQ_I32(plan->groups.span),
                                  EQ_I32(plan->groups.group)));
}

eq_status eq_unit_affine_grad_emit(struct eq_list *list, const struct eq_unit_plan *plan, const struct eq_unit_affine_grad *a)
{
    const bool cross = a->matrix.buffer, residual = a->dres.ref.buffer, add = a->add.ref.buffer;
    const bool is_streamed = streams(plan, (const struct eq_unit_view[]){ a->z, a->dout, a->out, a->add }, 4,
                                     (const struct eq_unit_view[]){ a->dz, a->dres }, 2);
    const struct eq_options options = affine_options(plan, true, cross, is_streamed);
    const struct extent size = extent(plan, (const struct eq_unit_view[]){ a->z, a->dout, a->out, a->add, a->dz, a->dres }, 6);
    const struct eq_launch launch = {
        .source = "affine",
        .options = options.text,
        .kernel = cross ? "affine_cross_grad" : "affine_diag_grad",
        .range = range(plan, size, a->dz.halo > a->dres.halo ? a->dz.halo : a->dres.halo, cross),
        .cost = cost(plan, 3 + residual + add + (a->out.ref.buffer != NULL), cross ? 2 : 0),
        .cut = 3,
    };
    if (!cross)
        return eq_list_kernel(list, &launch,
                              EQ_ARGS(EQ_REF(a->z.ref), EQ_REF(a->dout.ref), EQ_REF(a->out.ref), EQ_REF(a->add.ref),
                                      EQ_REF(a->pivot), EQ_REF(a->scale), EQ_REF(a->slope), EQ_REF(a->shift), EQ_REF(a->dz.ref),
                                      EQ_REF(a->dres.ref), EQ_UNIT_STRIDES(a->z), EQ_UNIT_STRIDES(a->dout),
                                      EQ_UNIT_STRIDES(a->out), EQ_UNIT_STRIDES(a->add), EQ_UNIT_STRIDES(a->dz),
                                      EQ_UNIT_STRIDES(a->dres), EQ_I32(residual), EQ_I32(add), EQ_I32(a->dz.halo),
                                      EQ_I32(a->dres.halo), EQ_I32(plan->activation), EQ_I32(size.w), EQ_I32(size.h),
                                      EQ_I32(plan->stride), EQ_I32(a->instance)));
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(a->z.ref), EQ_REF(a->dout.ref), EQ_REF(a->out.ref), EQ_REF(a->add.ref),
                                  EQ_REF(a->pivot), EQ_REF(a->scale), EQ_REF(a->slope), EQ_REF(a->shift), EQ_REF(a->matrix),
                                  EQ_REF(a->slopes), EQ_REF(a->dz.ref), EQ_REF(a->dres.ref), EQ_UNIT_STRIDES(a->z),
                                  EQ_UNIT_STRIDES(a->dout), EQ_UNIT_STRIDES(a->out), EQ_UNIT_STRIDES(a->add),
                                  EQ_UNIT_STRIDES(a->dz), EQ_UNIT_STRIDES(a->dres), EQ_I32(residual), EQ_I32(add),
                                  EQ_I32(a->dz.halo), EQ_I32(a->dres.halo), EQ_I32(plan->activation), EQ_I32(size.w),
                                  EQ_I32(size.h), EQ_I32(plan->stride), EQ_I32(a->instance), EQ_I32(plan->blocks),
                                  EQ_I32(plan->groups.span), EQ_I32(plan->groups.group)));
}

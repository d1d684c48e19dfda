// Pass 2 of a unit: launches of cl/affine.cl.
#include "op/unit_plan.h"

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

// Pixels of a plane with the largest halo of the outputs.
static size_t stored_pixels(struct extent extent, int halo)
{
    return (size_t)(extent.w + 2 * halo) * (size_t)(extent.h + 2 * halo);
}

// PIXELS in cl/affine.cl: as many as registers allow at an occupancy that keeps enough loads under way, fewer in small planes.
static int simt_pixels(const struct eq_unit_plan *plan, size_t pixels, bool is_grad)
{
    const size_t rows = (size_t)(eq_unit_pass_group_size(&plan->target) / (plan->block / 4));
    int per_item = is_grad ? 2 : 4;
    while (per_item > 1 && rows * (size_t)per_item / 2 >= pixels)
        per_item /= 2;
    return per_item;
}

// What is the same for all launches of a pass. refs: the operands.
struct pass {
    bool is_grad, is_cross, is_streamed;
    struct extent extent;
    int halo;
    const struct eq_ref *refs;
    int num_refs;
};

static struct eq_options affine_options(const struct eq_unit_plan *plan, const struct pass *pass)
{
    const struct eq_options options = eq_unit_options(plan, pass->is_grad);
    if (plan->target.family == EQ_FAMILY_VECTOR)
        return eq_options_format("%s -DOUTS=%d -DEQ_STREAM=%d", options.text, outputs(plan, pass->is_cross), pass->is_streamed);
    return eq_options_format("%s -DPIXELS=%d -DEQ_ALIGNED=%d", options.text,
                             simt_pixels(plan, stored_pixels(pass->extent, pass->halo), pass->is_grad),
                             eq_refs_are_aligned(pass->refs, pass->num_refs));
}

static struct eq_range range(const struct eq_unit_plan *plan, const struct pass *pass)
{
    if (plan->target.family == EQ_FAMILY_VECTOR)
        return eq_range_3d((const size_t[]){ (size_t)(plan->blocks / outputs(plan, pass->is_cross)), (size_t)plan->splits,
                                             (size_t)plan->images },
                           (const size_t[]){ 1, 1, 1 });
    const size_t pixels = stored_pixels(pass->extent, pass->halo), local = (size_t)eq_unit_pass_group_size(&plan->target),
                 group_pixels = local / (size_t)(plan->block / 4) * (size_t)simt_pixels(plan, pixels, pass->is_grad);
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
    const struct extent size = extent(plan, (const struct eq_unit_view[]){ a->z, a->residual, a->out }, 3);
    const struct eq_ref refs[] = { a->z.ref, a->residual.ref, a->pivot, a->scale, a->shift, a->matrix, a->out.ref };
    const struct pass pass = { false, cross, is_streamed, size, a->out.halo, refs, sizeof refs / sizeof *refs };
    const struct eq_options options = affine_options(plan, &pass);
    const struct eq_launch launch = {
        .source = "affine",
        .options = options.text,
        .kernel = cross ? "affine_cross" : "affine_diag",
        .range = range(plan, &pass),
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

// Rows and columns of the result that a work-item makes: of z it reads one more than twice as many. Mesa's llvmpipe ends a
// work-item's loops after 65535 rounds, which 12 rows of 56 pixels in groups of 64 channels are.
enum { BAND_ROWS = 8, STRIP_COLUMNS = 56 };

eq_status eq_unit_affine_pool_emit(struct eq_list *list, const struct eq_unit_plan *plan, const struct eq_unit_affine *a)
{
    const bool cross = a->matrix.buffer;
    const int outs = outputs(plan, cross), oh = (plan->h + 1) / 2, ow = (plan->w + 1) / 2;
    const size_t elems = (size_t)plan->images * (size_t)a->out.image;
    const struct eq_options options =
        eq_options_format("-DBLOCK=%d -DSTRIP=%d -DOUTS=%d -DACT=%d -DEQ_STREAM=%d", plan->block, STRIP_COLUMNS, outs,
                          (int)plan->activation, eq_streams(&plan->target, a->out.ref, elems));
    const int bands = (oh + BAND_ROWS - 1) / BAND_ROWS, strips = (ow + STRIP_COLUMNS - 1) / STRIP_COLUMNS;
    const double pooled = (double)plan->images * plan->channels * oh * ow;
    struct eq_cost pass = cost(plan, 1, cross);
    pass.flops += 9 * pooled;
    pass.bytes += 4 * pooled;
    const struct eq_launch launch = {
        .source = "affine_pool",
        .options = options.text,
        .kernel = "affine_pool",
        .range =
            eq_range_3d((const size_t[]){ (size_t)(plan->blocks / outs), (size_t)bands * (size_t)strips, (size_t)plan->images },
                        (const size_t[]){ 1, 1, 1 }),
        .cost = pass,
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(a->z.ref), EQ_REF(a->pivot), EQ_REF(a->scale), EQ_REF(a->shift), EQ_REF(a->matrix),
                                  EQ_REF(a->out.ref), EQ_UNIT_STRIDES(a->z), EQ_UNIT_STRIDES(a->out), EQ_I32(plan->h),
                                  EQ_I32(plan->w), EQ_I32(oh), EQ_I32(ow), EQ_I32(plan->stride), EQ_I32(a->instance),
                                  EQ_I32(plan->blocks), EQ_I32(plan->groups.span), EQ_I32(plan->groups.group), EQ_I32(cross)));
}

eq_status eq_unit_affine_grad_emit(struct eq_list *list, const struct eq_unit_plan *plan, const struct eq_unit_affine_grad *a)
{
    const bool cross = a->matrix.buffer, residual = a->dres.ref.buffer, add = a->add.ref.buffer;
    const bool is_streamed = streams(plan, (const struct eq_unit_view[]){ a->z, a->dout, a->out, a->add }, 4,
                                     (const struct eq_unit_view[]){ a->dz, a->dres }, 2);
    const struct extent size = extent(plan, (const struct eq_unit_view[]){ a->z, a->dout, a->out, a->add, a->dz, a->dres }, 6);
    const struct eq_ref refs[] = { a->z.ref, a->dout.ref, a->out.ref, a->add.ref, a->pivot,  a->scale,
                                   a->slope, a->shift,    a->matrix,  a->slopes,  a->dz.ref, a->dres.ref };
    const int halo = a->dz.halo > a->dres.halo ? a->dz.halo : a->dres.halo;
    const struct pass pass = { true, cross, is_streamed, size, halo, refs, sizeof refs / sizeof *refs };
    const struct eq_options options = affine_options(plan, &pass);
    const struct eq_launch launch = {
        .source = "affine",
        .options = options.text,
        .kernel = cross ? "affine_cross_grad" : "affine_diag_grad",
        .range = range(plan, &pass),
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

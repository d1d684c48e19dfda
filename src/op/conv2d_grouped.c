// Convolutions in groups: launches of forward, data and weight gradient for both families. The filter is stored as
// [oc blocks, ic / groups, kh, kw, 1, block] (block_in 1): a depthwise one is read as it is used, vector by vector.
//
// How the lanes of a block of outputs find their inputs decides the CPU's kernel (see cl/conv2d_grouped.cl). Rejected: a dense
// filter with zeros between the groups, through the dense kernels (16 times the work for a depthwise one, 4 times for groups
// of 4), and one launch per group (a batch is no single view, and groups smaller than a block have none).
#include <assert.h>

#include "op/conv2d.h"

enum { SPREAD_LANES, SPREAD_ONE, SPREAD_GATHER };
// Work of a work-item, in vectors of outputs times taps, so that starting it costs little.
enum { ITEM_WORK = 2048 };
enum { MAX_SUMS = 25, MIN_PART_ROWS = 8, MIN_PART_PIXELS = 128 };

static int ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

static int spread_of(int per_in, int per_out, int block)
{
    if (per_out % block == 0)
        return SPREAD_ONE;
    return per_in == per_out && block % per_out == 0 ? SPREAD_LANES : SPREAD_GATHER;
}

// Options of the CPU's kernels: how lanes find their channels.
static struct eq_options vector_options(int block, int groups, int per_in, int per_out)
{
    const int spread = spread_of(per_in, per_out, block);
    return eq_options_format("-DBLOCK=%d -DSPREAD=%d -DPER_IN=%d -DPER_OUT=%d -DGROUPS=%d", block, spread, per_in, per_out,
                             spread == SPREAD_LANES ? 1 : groups);
}

static int tile_width(int ow)
{
    return ow % 7 == 0 ? 7 : ow >= 8 ? 8 : ow >= 4 ? 4 : 1;
}

static eq_status emit_vector(struct eq_list *list, const struct eq_conv2d_job *job)
{
    const struct eq_conv2d_view *x = &job->x, *z = &job->z, *add = &job->add;
    const int per_in = x->c / job->groups, per_out = z->c / job->groups, kh = job->kw > 0 ? job->kh : 0;
    const struct eq_options spread = vector_options(z->block, job->groups, per_in, per_out);
    const struct eq_options options =
        eq_options_format("%s -DKW=%d -DSTRIDE=%d -DTW=%d -DACT=%d -DEQ_STREAM=%d", spread.text, job->kw > 0 ? job->kw : 1,
                          job->stride_w, tile_width(z->w), (int)job->activation,
                          eq_conv2d_streams(eq_list_target(list), job));
    const int rows = min_int(z->h, ceil_div(ITEM_WORK, z->w * per_in * (job->kh * job->kw > 0 ? job->kh * job->kw : 1)));
    const ptrdiff_t first = (ptrdiff_t)job->first_y * x->row + (ptrdiff_t)job->first_x * x->step;
    const struct eq_launch launch = {
        .source = "conv2d_grouped",
        .options = options.text,
        .kernel = "conv2d_grouped",
        .range = eq_range_3d((const size_t[]){ (size_t)ceil_div(z->h, rows), (size_t)z->blocks, (size_t)z->n },
                             (const size_t[]){ 1, 1, 1 }),
        .cost = job->cost,
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(eq_ref_plus(x->origin, (size_t)first)), EQ_REF(job->filter), EQ_REF(job->bias),
                                  EQ_REF(job->has_add ? add->origin : EQ_REF_NONE), EQ_REF(z->origin), EQ_I32(x->row),
                                  EQ_I32(x->plane), EQ_I32(x->blocks), EQ_I32(kh), EQ_I32(job->stride_h),
                                  EQ_I32(z->blocks), EQ_I32(z->h), EQ_I32(z->w), EQ_I32(z->row), EQ_I32(z->step),
                                  EQ_I32(z->plane), EQ_I32(add->row), EQ_I32(add->step), EQ_I32(add->plane),
                                  EQ_I32(job->bias.buffer != NULL), EQ_I32(job->has_add), EQ_I32(rows)));
}

static eq_status emit_simt(struct eq_list *list, const struct eq_conv2d_job *job)
{
    const struct eq_conv2d_view *x = &job->x, *z = &job->z, *add = &job->add;
    const struct eq_options options = eq_options_format("-DBLOCK=%d -DACT=%d", z->block, (int)job->activation);
    const struct eq_launch launch = {
        .source = "conv2d_grouped_simt",
        .options = options.text,
        .kernel = "conv2d_grouped_simt",
        .range = eq_range_3d((const size_t[]){ (size_t)z->h * (size_t)z->w * (size_t)z->block, (size_t)z->blocks,
                                               (size_t)z->n },
                             (const size_t[]){ 64, 1, 1 }),
        .cost = job->cost,
        .cut = 3,
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(x->origin), EQ_REF(job->filter), EQ_REF(job->bias),
                                  EQ_REF(job->has_add ? add->origin : EQ_REF_NONE), EQ_REF(z->origin), EQ_I32(x->h),
                                  EQ_I32(x->w), EQ_I32(x->row), EQ_I32(x->plane), EQ_I32(x->blocks), EQ_I32(job->groups),
                                  EQ_I32(x->c / job->groups), EQ_I32(z->c / job->groups), EQ_I32(job->kh), EQ_I32(job->kw),
                                  EQ_I32(job->first_y), EQ_I32(job->first_x), EQ_I32(job->stride_h), EQ_I32(job->stride_w),
                                  EQ_I32(z->blocks), EQ_I32(z->h), EQ_I32(z->w), EQ_I32(z->row), EQ_I32(z->step),
                                  EQ_I32(z->plane), EQ_I32(add->row), EQ_I32(add->step), EQ_I32(add->plane),
                                  EQ_I32(job->bias.buffer != NULL), EQ_I32(job->has_add)));
}

eq_status eq_conv2d_grouped_emit(struct eq_list *list, const struct eq_conv2d_job *job)
{
    assert(job->groups > 1 && job->x.c % job->groups == 0 && job->z.c % job->groups == 0);
    return eq_list_target(list)->family == EQ_FAMILY_VECTOR ? emit_vector(list, job) : emit_simt(list, job);
}

// ---- data gradient

size_t eq_conv2d_grouped_transposed_elems(const struct eq_tensor *w, int groups)
{
    const size_t ic_blocks = (size_t)ceil_div(w->c * groups, w->block);
    return ic_blocks * (size_t)(w->n / groups) * (size_t)w->h * (size_t)w->w * (size_t)w->block;
}

eq_status eq_conv2d_grouped_transpose_emit(struct eq_list *list, const struct eq_conv2d_attributes *attributes,
                                           const struct eq_tensor *w, struct eq_ref from, struct eq_ref to)
{
    const int groups = attributes->groups, ic = w->c * groups, per_out = w->n / groups, ic_blocks = ceil_div(ic, w->block);
    const struct eq_options options = eq_options_format("-DBLOCK=%d", w->block);
    const struct eq_launch launch = {
        .source = "conv2d_grouped_simt",
        .options = options.text,
        .kernel = "conv2d_grouped_transpose",
        .range = eq_range_2d((size_t)(ic_blocks * w->block), (size_t)per_out * (size_t)w->h * (size_t)w->w, 64, 1),
        .cost = { 0, 8.0 * (double)eq_tensor_elems(w) },
        .cut = 2,
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(from), EQ_REF(to), EQ_I32(ic), EQ_I32(ic_blocks), EQ_I32(w->c), EQ_I32(per_out),
                                  EQ_I32(w->h), EQ_I32(w->w), EQ_I32(attributes->stride_h), EQ_I32(attributes->stride_w)));
}

// ---- weight gradient: inputs x, dz; output dw

// Channels and rows of taps of a work-item of the CPU's kernel, and how the sum over dz is cut: parts of `size` rows (CPUs) or
// pixels (GPUs).
struct plan {
    int channels, tap_rows, parts, size;
};

static struct plan make_plan(const struct eq_target *target, const struct eq_tensor *w, const struct eq_tensor *dz, int groups)
{
    const int per_out = w->n / groups, spread = spread_of(w->c, per_out, w->block);
    const bool is_vector = target->family == EQ_FAMILY_VECTOR;
    struct plan plan = { .channels = spread == SPREAD_LANES                    ? w->c
                                     : spread == SPREAD_ONE && w->c % 4 == 0 ? 4
                                                                             : 1 };
    plan.tap_rows = plan.channels * w->h * w->w <= MAX_SUMS ? w->h : 1;
    const double items = is_vector ? (double)eq_tensor_blocks(dz) * (w->c / plan.channels) * (w->h / plan.tap_rows)
                                   : (double)eq_tensor_elems(w) / 64;
    const int units = dz->n * dz->h * (is_vector ? 1 : dz->w), min_size = is_vector ? MIN_PART_ROWS : MIN_PART_PIXELS;
    const double want = (is_vector ? 8.0 : 32.0) * target->compute_units / items, most = (double)units / min_size;
    const double parts = want < most ? want : most;
    plan.size = parts <= 1 ? units : ceil_div(units, (int)parts);
    plan.parts = ceil_div(units, plan.size);
    return plan;
}

static struct plan plan_of(const struct eq_call *call)
{
    const struct eq_conv2d_attributes *a = &((const struct eq_conv2d_weight_grad_attributes *)call->attributes)->conv;
    return make_plan(call->target, &call->output[0], &call->input[1], a->groups);
}

size_t eq_conv2d_grouped_weight_grad_elems(const struct eq_call *call)
{
    const struct plan plan = plan_of(call);
    return plan.parts > 1 ? (size_t)plan.parts * eq_tensor_elems(&call->output[0]) : 1;
}

static eq_status emit_vector_grad(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, struct eq_ref dw,
                                  const struct plan *plan)
{
    const struct eq_conv2d_attributes *a = &((const struct eq_conv2d_weight_grad_attributes *)call->attributes)->conv;
    const struct eq_tensor *w = &call->output[0];
    const struct eq_conv2d_view x = eq_conv2d_view(&call->input[0], in[0]), dz = eq_conv2d_view(&call->input[1], in[1]);
    const struct eq_options spread = vector_options(w->block, a->groups, w->c, w->n / a->groups);
    const struct eq_options options = eq_options_format("%s -DKW=%d -DSTRIDE=%d -DNP=%d -DNC=%d", spread.text, w->w,
                                                        a->stride_w, plan->tap_rows, plan->channels);
    const ptrdiff_t first = -((ptrdiff_t)a->pad_h * x.row + (ptrdiff_t)a->pad_w * x.step);
    const struct eq_launch launch = {
        .source = "conv2d_grouped",
        .options = options.text,
        .kernel = "conv2d_grouped_weight_grad",
        .range = eq_range_3d((const size_t[]){ (size_t)(w->c / plan->channels) * (size_t)(w->h / plan->tap_rows),
                                               (size_t)dz.blocks, (size_t)plan->parts },
                             (const size_t[]){ 1, 1, 1 }),
        .cost = call->op->cost(call),
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(eq_ref_plus(x.origin, (size_t)first)), EQ_REF(dz.origin), EQ_REF(dw), EQ_I32(x.row),
                                  EQ_I32(x.plane), EQ_I32(x.blocks), EQ_I32(w->h), EQ_I32(a->stride_h),
                                  EQ_I32(dz.blocks), EQ_I32(dz.h), EQ_I32(dz.w), EQ_I32(dz.row), EQ_I32(dz.plane),
                                  EQ_I32(dz.n * dz.h), EQ_I32(plan->size)));
}

static eq_status emit_simt_grad(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, struct eq_ref dw,
                                const struct plan *plan)
{
    const struct eq_conv2d_attributes *a = &((const struct eq_conv2d_weight_grad_attributes *)call->attributes)->conv;
    const struct eq_tensor *w = &call->output[0];
    const struct eq_conv2d_view x = eq_conv2d_view(&call->input[0], in[0]), dz = eq_conv2d_view(&call->input[1], in[1]);
    const struct eq_options options = eq_options_format("-DBLOCK=%d", w->block);
    const struct eq_launch launch = {
        .source = "conv2d_grouped_simt",
        .options = options.text,
        .kernel = "conv2d_grouped_simt_weight_grad",
        .range = eq_range_2d(eq_tensor_elems(w), (size_t)plan->parts, 64, 1),
        .cost = call->op->cost(call),
        .cut = 1,
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(x.origin), EQ_REF(dz.origin), EQ_REF(dw), EQ_I32(x.h), EQ_I32(x.w), EQ_I32(x.row),
                                  EQ_I32(x.plane), EQ_I32(x.blocks), EQ_I32(a->groups), EQ_I32(w->c), EQ_I32(w->n / a->groups),
                                  EQ_I32(w->h), EQ_I32(w->w), EQ_I32(a->stride_h), EQ_I32(a->stride_w), EQ_I32(a->pad_h),
                                  EQ_I32(a->pad_w), EQ_I32(dz.blocks), EQ_I32(dz.h), EQ_I32(dz.w), EQ_I32(dz.row),
                                  EQ_I32(dz.plane), EQ_I32(dz.n * dz.h * dz.w), EQ_I32(plan->size)));
}

eq_status eq_conv2d_grouped_weight_grad_emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in,
                                             const struct eq_ref *out)
{
    const struct plan plan = plan_of(call);
    const struct eq_ref sums = plan.parts > 1 ? out[1] : out[0];
    if (call->target->family == EQ_FAMILY_VECTOR)
        EQ_TRY(emit_vector_grad(list, call, in, sums, &plan));
    else
        EQ_TRY(emit_simt_grad(list, call, in, sums, &plan));
    return plan.parts > 1 ? eq_conv2d_merge_emit(list, call, out[1], out[0], plan.parts) : EQ_OK;
}

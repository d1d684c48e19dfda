// Data gradient of a convolution. A pixel y of dx meets only the taps i = (y + pad) % stride + stride * j: the pixels of one
// remainder ("class") are a convolution of dz with every stride-th tap, flipped, at stride 1. So there are stride_h * stride_w
// launches (one at stride 1), no multiplication is wasted, and a class without taps (3 of 4 for a 1x1 filter at stride 2)
// writes zeros, or nothing where it adds in place. Rejected: scattering from dz (needs atomics), dz spread with zeros (4 times
// the work at stride 2).
#include <assert.h>

#include "op/conv2d.h"

enum { DZ, W, ADD = EQ_CONV2D_DATA_GRAD_ADD };

// One dimension of a class: pixels first_out + stride * k.
struct class
{
    int first_out, out; // first pixel of dx, number of pixels
    int taps;           // of the filter
    int before;         // taps of classes with a smaller remainder
    int first_in;       // pixel of dz under the first tap of the first pixel
};

// remainder: (y + pad) % stride of the class's pixels.
static struct class make_class(int size, int kernel, int stride, int pad, int remainder)
{
    const int first_out = ((remainder - pad) % stride + stride) % stride;
    struct class class = { .first_out = first_out,
                           .out = first_out < size ? (size - first_out + stride - 1) / stride : 0,
                           .taps = remainder < kernel ? (kernel - remainder + stride - 1) / stride : 0 };
    for (int r = 0; r < remainder && r < kernel; r++)
        class.before += (kernel - r + stride - 1) / stride;
    class.first_in = (first_out + pad - remainder) / stride - (class.taps - 1);
    return class;
}

static int groups_of(const struct eq_call *call)
{
    const struct eq_conv2d_data_grad_attributes *a = call->attributes;
    return a->conv.groups > 1 ? a->conv.groups : 1;
}

static bool is_plain(const struct eq_call *call)
{
    return call->input[W].block_in == 1 && groups_of(call) == 1;
}

static struct eq_tensor input_shape(const struct eq_call *call)
{
    const struct eq_conv2d_data_grad_attributes *a = call->attributes;
    const struct eq_tensor *w = &call->input[W];
    const int groups = groups_of(call);
    return eq_tensor_blocked(call->input[DZ].n, w->c * groups, a->ih, a->iw, groups > 1 ? w->block : w->block_in, 0);
}

// As the convolution of dz that makes dx.
static struct eq_conv2d_shape shape_of(const struct eq_call *call)
{
    const struct eq_tensor x = input_shape(call);
    return (struct eq_conv2d_shape){ x.n, call->input[DZ].c, x.c, x.h, x.w, false };
}

static enum eq_conv2d_algorithm algorithm_of(const struct eq_call *call)
{
    const struct eq_conv2d_data_grad_attributes *a = call->attributes;
    const struct eq_conv2d_shape s = shape_of(call);
    const struct eq_tensor *w = &call->input[W];
    return eq_conv2d_choose(call->target, &a->conv, w->h, w->w, w->block_in, &s);
}

// Elements of the filters that the classes' convolutions read.
static size_t transposed_elems(const struct eq_call *call)
{
    const struct eq_tensor *w = &call->input[W];
    return groups_of(call) > 1 ? eq_conv2d_grouped_transposed_elems(w, groups_of(call)) : eq_tensor_elems(w);
}

// And of what matrix units read of a class's; no class has more taps than w. 0: they read the above.
static size_t packed_elems(const struct eq_call *call)
{
    const struct eq_tensor *w = &call->input[W];
    return eq_conv2d_packed_elems(call->target, groups_of(call), w->c, eq_tensor_blocks(w) * w->block * w->h * w->w);
}

static eq_status shape(struct eq_call *call)
{
    const struct eq_conv2d_data_grad_attributes *a = call->attributes;
    const struct eq_tensor *dz = &call->input[DZ], *w = &call->input[W], *add = &call->input[ADD], x = input_shape(call);
    int oh, ow;
    EQ_TRY(eq_conv2d_check("conv2d_data_grad", call->target, &a->conv, &x, w, &oh, &ow));
    EQ_REQUIRE(a->conv.algorithm != EQ_CONV2D_WINOGRAD_4_LATE, EQ_ERR_UNSUPPORTED, "conv2d_data_grad: has no algorithm %d",
               (int)a->conv.algorithm);
    EQ_REQUIRE(dz->form == EQ_FORM_BLOCKED && dz->block == call->target->block && dz->c == w->n && dz->h == oh && dz->w == ow,
               EQ_ERR_SHAPE, "conv2d_data_grad: the gradient is %d x %d x %d in blocks of %d, not %d x %d x %d in blocks of %d",
               dz->c, dz->h, dz->w, dz->block, w->n, oh, ow, call->target->block);
    EQ_REQUIRE(
        !call->has[ADD] || (add->form == EQ_FORM_BLOCKED && add->block == x.block && add->n == x.n && add->c == x.c &&
                            add->h == x.h && add->w == x.w),
        EQ_ERR_SHAPE,
        "conv2d_data_grad: the gradient to add to is [%d, %d, %d, %d] in blocks of %d, not [%d, %d, %d, %d] in blocks of %d",
        add->n, add->c, add->h, add->w, add->block, x.n, x.c, x.h, x.w, x.block);
    size_t workspace = is_plain(call) ? 1 : transposed_elems(call) + packed_elems(call);
    const enum eq_conv2d_algorithm algorithm = algorithm_of(call);
    if (algorithm != EQ_CONV2D_DIRECT) {
        const struct eq_conv2d_shape s = shape_of(call);
        workspace += eq_conv2d_winograd_filter_elems(call->target, algorithm, &s) +
                     eq_conv2d_winograd_scratch_elems(call->target, algorithm, &s);
    }
    call->num_outputs = 2;
    call->output[0] = x;
    return eq_workspace("conv2d_data_grad", workspace, &call->output[1]);
}

static int halo(const struct eq_call *call, int input)
{
    const struct eq_conv2d_data_grad_attributes *a = call->attributes;
    const struct eq_tensor *dz = &call->input[DZ], *w = &call->input[W];
    if (input != DZ || call->target->family != EQ_FAMILY_VECTOR || is_plain(call))
        return 0;
    int halo = 0;
    for (int dimension = 0; dimension < 2; dimension++) {
        const int stride = dimension ? a->conv.stride_w : a->conv.stride_h, size = dimension ? dz->w : dz->h;
        for (int r = 0; r < stride; r++) {
            const struct class class = make_class(dimension ? a->iw : a->ih, dimension ? w->w : w->h, stride,
                                                  dimension ? a->conv.pad_w : a->conv.pad_h, r);
            if (class.taps == 0 || class.out == 0)
                continue;
            const int after = class.first_in + class.out - 1 + class.taps - 1 - (size - 1);
            halo = -class.first_in > halo ? -class.first_in : halo;
            halo = after > halo ? after : halo;
        }
    }
    return halo;
}

static int in_place(const struct eq_call *call, int output)
{
    return output == 0 && call->has[ADD] ? ADD : -1;
}

static struct eq_cost cost(const struct eq_call *call)
{
    struct eq_cost cost = eq_conv2d_cost(&call->output[0], &call->input[W], &call->input[DZ]);
    if (call->has[ADD])
        cost.bytes += 4.0 * (double)eq_tensor_logical(&call->output[0]);
    return cost;
}

static eq_status emit_plain(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    const struct eq_conv2d_attributes *a = &((const struct eq_conv2d_data_grad_attributes *)call->attributes)->conv;
    const struct eq_conv2d_view dz = eq_conv2d_view(&call->input[DZ], in[DZ]), dx = eq_conv2d_view(&call->output[0], out[0]);
    const struct eq_conv2d_view add = call->has[ADD] ? eq_conv2d_view(&call->input[ADD], in[ADD]) : dx;
    const struct eq_options options = eq_options_format("-DBLOCK=%d", dz.block);
    const struct eq_launch launch = {
        .source = "conv2d_plain",
        .options = options.text,
        .kernel = "conv2d_plain_data_grad",
        .range = eq_range_2d((size_t)dx.h * (size_t)dx.w, (size_t)dx.n * (size_t)dx.c, 64, 1),
        .cost = cost(call),
        .cut = 1,
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(dz.origin), EQ_REF(in[W]), EQ_REF(call->has[ADD] ? add.origin : EQ_REF_NONE),
                                  EQ_REF(dx.origin), EQ_I32(dx.n * dx.c), EQ_I32(dx.c), EQ_I32(dz.blocks), EQ_I32(dz.h),
                                  EQ_I32(dz.w), EQ_I32(dz.row), EQ_I32(dz.plane), EQ_I32(call->input[W].h),
                                  EQ_I32(call->input[W].w), EQ_I32(a->stride_h), EQ_I32(a->stride_w), EQ_I32(a->pad_h),
                                  EQ_I32(a->pad_w), EQ_I32(dx.h), EQ_I32(dx.w), EQ_I32(dx.row), EQ_I32(dx.plane),
                                  EQ_I32(add.row), EQ_I32(add.plane), EQ_I32(call->has[ADD])));
}

static eq_status emit_transpose(struct eq_list *list, const struct eq_call *call, struct eq_ref w, struct eq_ref transposed)
{
    const struct eq_conv2d_attributes *a = &((const struct eq_conv2d_data_grad_attributes *)call->attributes)->conv;
    const struct eq_tensor *t = &call->input[W];
    if (groups_of(call) > 1)
        return eq_conv2d_grouped_transpose_emit(list, a, t, w, transposed);
    const int oc_blocks = eq_tensor_blocks(t), ic_blocks = eq_tensor_blocks(&call->output[0]);
    const bool is_vector = call->target->family == EQ_FAMILY_VECTOR;
    const bool is_aligned = !is_vector && eq_refs_are_aligned((const struct eq_ref[]){ w, transposed }, 2);
    const struct eq_options options = eq_options_format("-DBLOCK=%d -DEQ_ALIGNED=%d", t->block, is_aligned);
    const struct eq_launch launch = {
        .source = "conv2d_filter",
        .options = options.text,
        .kernel = is_vector ? "conv2d_filter_transpose" : "conv2d_filter_transpose_simt",
        .range = is_vector
                     ? eq_range_2d((size_t)oc_blocks, (size_t)ic_blocks, 1, 1)
                     : eq_range_2d((size_t)(oc_blocks * ic_blocks * t->block * t->block / 16), (size_t)(t->h * t->w), 64, 1),
        .cost = { 0, 8.0 * (double)eq_tensor_elems(t) },
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(w), EQ_REF(transposed), EQ_I32(oc_blocks), EQ_I32(ic_blocks), EQ_I32(t->h),
                                  EQ_I32(t->w), EQ_I32(a->stride_h), EQ_I32(a->stride_w)));
}

// The convolution that makes a class; the class has pixels.
static struct eq_conv2d_job make_job(const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out,
                                     const struct class *y, const struct class *x)
{
    const struct eq_conv2d_attributes *a = &((const struct eq_conv2d_data_grad_attributes *)call->attributes)->conv;
    const struct eq_tensor *w = &call->input[W];
    const bool has_taps = y->taps > 0 && x->taps > 0;
    struct eq_conv2d_job job = {
        .x = eq_conv2d_view(&call->input[DZ], in[DZ]),
        .z = eq_conv2d_view(&call->output[0], out[0]),
        .has_add = call->has[ADD],
        .filter = out[1],
        .groups = groups_of(call),
        .kh = has_taps ? y->taps : 0,
        .kw = has_taps ? x->taps : 0,
        .stride_h = 1,
        .stride_w = 1,
        .first_y = has_taps ? y->first_in : 0,
        .first_x = has_taps ? x->first_in : 0,
    };
    const size_t tap_elems = transposed_elems(call) / ((size_t)w->h * (size_t)w->w);
    if (has_taps)
        job.filter = eq_ref_plus(out[1], tap_elems * (size_t)(y->before * w->w + y->taps * x->before));
    if (job.has_add) {
        job.add = eq_conv2d_view(&call->input[ADD], in[ADD]);
        job.add.origin = eq_ref_plus(job.add.origin,
                                     (size_t)y->first_out * (size_t)job.add.row + (size_t)x->first_out * (size_t)job.add.step);
        job.add.row *= a->stride_h;
        job.add.step *= a->stride_w;
    }
    job.z.origin =
        eq_ref_plus(job.z.origin, (size_t)y->first_out * (size_t)job.z.row + (size_t)x->first_out * (size_t)job.z.step);
    job.z.row *= a->stride_h;
    job.z.step *= a->stride_w;
    job.z.h = y->out;
    job.z.w = x->out;
    const double pixels = (double)job.x.n * y->out * x->out, taps = (double)job.kh * job.kw;
    job.cost =
        (struct eq_cost){ 2.0 * pixels * taps * w->n * w->c,
                          4.0 * pixels * w->c * (job.has_add ? 2 : 1) +
                              (has_taps ? 4.0 * ((double)eq_tensor_logical(&call->input[DZ]) + taps * w->n * w->c) : 0.0) };
    return job;
}

static eq_status emit_class(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out,
                            const struct class *y, const struct class *x)
{
    const struct eq_tensor *w = &call->input[W];
    const bool has_taps = y->taps > 0 && x->taps > 0;
    const bool is_in_place = call->has[ADD] && eq_ref_equal(in[ADD], out[0]);
    if (x->out == 0 || (!has_taps && is_in_place))
        return EQ_OK;
    struct eq_conv2d_job job = make_job(call, in, out, y, x);
    const enum eq_conv2d_algorithm algorithm = algorithm_of(call);
    if (has_taps && packed_elems(call) > 0) {
        const struct eq_ref packed = eq_ref_plus(out[1], transposed_elems(call));
        EQ_TRY(eq_conv2d_pack_emit(list, w->c, job.x.blocks * job.x.block * job.kh * job.kw, job.filter, EQ_REF_NONE, packed,
                                   false));
        job.filter = packed;
    }
    if (algorithm == EQ_CONV2D_DIRECT)
        return eq_conv2d_job_emit(list, &job);
    const struct eq_conv2d_shape s = shape_of(call);
    job.filter = eq_ref_plus(out[1], eq_tensor_elems(w));
    EQ_TRY(eq_conv2d_winograd_filter_emit(list, algorithm, &s, out[1], EQ_REF_NONE, job.filter));
    return eq_conv2d_winograd_emit(list, algorithm, &s, &job,
                                   eq_ref_plus(job.filter, eq_conv2d_winograd_filter_elems(call->target, algorithm, &s)));
}

static eq_status emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    const struct eq_conv2d_data_grad_attributes *a = call->attributes;
    const struct eq_tensor *w = &call->input[W];
    EQ_TRY(eq_conv2d_border_emit(list, &call->output[0], out[0]));
    if (is_plain(call))
        return emit_plain(list, call, in, out);
    EQ_TRY(emit_transpose(list, call, in[W], out[1]));
    for (int r = 0; r < a->conv.stride_h; r++) {
        const struct class y = make_class(a->ih, w->h, a->conv.stride_h, a->conv.pad_h, r);
        for (int s = 0; s < a->conv.stride_w && y.out > 0; s++) {
            const struct class x = make_class(a->iw, w->w, a->conv.stride_w, a->conv.pad_w, s);
            EQ_TRY(emit_class(list, call, in, out, &y, &x));
        }
    }
    return EQ_OK;
}

static eq_status tunables(const struct eq_call *call, struct eq_tunable *tunables, int max, int *num)
{
    const struct eq_conv2d_data_grad_attributes *a = call->attributes;
    const struct eq_tensor *w = &call->input[W];
    const struct eq_ref none[EQ_MAX_OPERANDS] = { EQ_REF_NONE };
    const struct eq_conv2d_shape s = shape_of(call);
    const enum eq_conv2d_algorithm algorithm = algorithm_of(call);
    if (is_plain(call) || groups_of(call) > 1)
        return EQ_OK;
    assert(max >= 2);
    EQ_TRY(eq_conv2d_algorithm_tunable(call->target, &a->conv, w->h, w->w, w->block_in, &s, &tunables[(*num)++]));
    if (algorithm != EQ_CONV2D_DIRECT)
        return eq_conv2d_winograd_tunable(call->target, algorithm, &s, &tunables[(*num)++]);
    for (int r = 0; r < a->conv.stride_h && *num < max; r++) {
        const struct class y = make_class(a->ih, w->h, a->conv.stride_h, a->conv.pad_h, r);
        for (int q = 0; q < a->conv.stride_w && *num < max && y.out > 0 && y.taps > 0; q++) {
            const struct class x = make_class(a->iw, w->w, a->conv.stride_w, a->conv.pad_w, q);
            if (x.out == 0 || x.taps == 0)
                continue;
            const struct eq_conv2d_job job = make_job(call, none, none, &y, &x);
            EQ_TRY(eq_conv2d_job_tunable(call->target, &job, &tunables[(*num)++]));
        }
    }
    return EQ_OK;
}

const struct eq_op eq_op_conv2d_data_grad = {
    .name = "conv2d_data_grad",
    .attribute_bytes = sizeof(struct eq_conv2d_data_grad_attributes),
    .shape = shape,
    .halo = halo,
    .in_place = in_place,
    .emit = emit,
    .cost = cost,
    .tunables = tunables,
    .expect = eq_conv2d_data_grad_expect,
};

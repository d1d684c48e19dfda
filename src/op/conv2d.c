// Convolution: shapes, halo, forward step and gradient calls, and what the three convolution ops share. Kernels and their
// launches are in conv2d_vector.c (CPUs), conv2d_simt.c (GPUs), conv2d_matrix.c (matrix units) and conv2d_grouped.c.
#include "op/conv2d.h"

#include <assert.h>
#include <limits.h>

// A part's three numbers are written and read again, which a pass over fewer pixels than this for each would cost as well.
enum { PIXELS_OF_NUMBER = 4 };

struct eq_conv2d_view eq_conv2d_view(const struct eq_tensor *tensor, struct eq_ref ref)
{
    struct eq_tensor t = *tensor;
    if (t.form == EQ_FORM_PLAIN)
        t = eq_tensor_blocked(t.n, t.c, t.h, t.w, 1, 0);
    return (struct eq_conv2d_view){
        .origin = eq_ref_plus(ref, eq_tensor_origin(&t)),
        .n = t.n,
        .c = t.c,
        .h = t.h,
        .w = t.w,
        .block = t.block,
        .blocks = eq_tensor_blocks(&t),
        .halo = t.halo,
        .row = (int)eq_tensor_row(&t),
        .step = t.block,
        .plane = (int)eq_tensor_plane(&t),
    };
}

bool eq_conv2d_streams(const struct eq_target *target, const struct eq_conv2d_job *job)
{
    const struct eq_conv2d_view *z = &job->z;
    const bool is_in_place = job->has_add && eq_ref_equal(job->add.origin, z->origin);
    return !is_in_place && eq_streams(target, z->origin, (size_t)z->n * (size_t)z->blocks * (size_t)z->plane);
}

eq_status eq_conv2d_job_emit(struct eq_list *list, const struct eq_conv2d_job *job)
{
    const struct eq_target *target = eq_list_target(list);
    if (job->groups > 1)
        return eq_conv2d_grouped_emit(list, job);
    if (target->family == EQ_FAMILY_VECTOR)
        return eq_conv2d_vector_emit(list, job);
    if (target->precision != EQ_FP32)
        return eq_conv2d_matrix_emit(list, job);
    return eq_conv2d_simt_emit(list, job);
}

eq_status eq_conv2d_job_tunable(const struct eq_target *target, const struct eq_conv2d_job *job, struct eq_tunable *tunable)
{
    if (target->family == EQ_FAMILY_VECTOR)
        return eq_conv2d_vector_tunable(target, job, tunable);
    return (target->precision == EQ_FP32 ? eq_conv2d_simt_tunable : eq_conv2d_matrix_tunable)(target, job, tunable);
}

eq_status eq_conv2d_border_emit(struct eq_list *list, const struct eq_tensor *tensor, struct eq_ref ref)
{
    if (tensor->form != EQ_FORM_BLOCKED || tensor->halo == 0)
        return EQ_OK;
    const int planes = tensor->n * eq_tensor_blocks(tensor);
    const struct eq_launch launch = {
        .source = "conv2d_border",
        .kernel = "conv2d_border_zero",
        .range = eq_range_2d((size_t)(tensor->h + 2 * tensor->halo), (size_t)planes, 8, 8),
        .cost = { 0, 16.0 * tensor->halo * (tensor->h + tensor->w) * planes * tensor->block },
        .cut = 2,
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(ref), EQ_I32(planes), EQ_I32(tensor->h), EQ_I32(tensor->w), EQ_I32(tensor->halo),
                                  EQ_I32(tensor->block)));
}

static eq_status check_filter(const char *name, const struct eq_target *target, int groups, const struct eq_tensor *x,
                              const struct eq_tensor *w)
{
    int block_in = x->form == EQ_FORM_PLAIN ? 1 : x->block;
    EQ_REQUIRE(x->form != EQ_FORM_WEIGHT && x->dtype == EQ_F32 && w->dtype == EQ_F32 && w->form == EQ_FORM_WEIGHT, EQ_ERR_SHAPE,
               "%s: input or filter is not a float tensor of its form", name);
    EQ_REQUIRE(block_in == 1 || block_in == target->block, EQ_ERR_UNSUPPORTED,
               "%s: the input has blocks of %d channels, the device has blocks of %d", name, block_in, target->block);
    EQ_REQUIRE(groups == 1 || block_in == target->block, EQ_ERR_UNSUPPORTED,
               "%s: %d groups want the input in blocks of %d channels", name, groups, target->block);
    block_in = groups > 1 ? 1 : block_in;
    EQ_REQUIRE(x->c % groups == 0 && w->n % groups == 0, EQ_ERR_SHAPE,
               "%s: %d groups do not divide %d input and %d output channels", name, groups, x->c, w->n);
    EQ_REQUIRE(w->block == target->block && w->block_in == block_in, EQ_ERR_SHAPE,
               "%s: the filter is stored in blocks of %d x %d, not %d x %d", name, w->block_in, w->block, block_in,
               target->block);
    EQ_REQUIRE(w->c == x->c / groups, EQ_ERR_SHAPE, "%s: the input has %d channels in %d groups, the filter takes %d of each",
               name, x->c, groups, w->c);
    return EQ_OK;
}

eq_status eq_conv2d_check(const char *name, const struct eq_target *target, const struct eq_conv2d_attributes *attributes,
                          const struct eq_tensor *x, const struct eq_tensor *w, int *oh, int *ow)
{
    const struct eq_conv2d_attributes *a = attributes;
    EQ_TRY(eq_tensor_check(x));
    EQ_TRY(eq_tensor_check(w));
    EQ_REQUIRE(a->stride_h >= 1 && a->stride_w >= 1, EQ_ERR_ARGUMENT, "%s: stride is %d x %d, must be at least 1", name,
               a->stride_h, a->stride_w);
    EQ_REQUIRE(a->pad_h >= 0 && a->pad_w >= 0, EQ_ERR_ARGUMENT, "%s: padding is %d x %d, must not be negative", name, a->pad_h,
               a->pad_w);
    EQ_REQUIRE(a->groups >= 0, EQ_ERR_ARGUMENT, "%s: %d groups", name, a->groups);
    EQ_TRY(check_filter(name, target, a->groups > 1 ? a->groups : 1, x, w));
    EQ_REQUIRE(a->algorithm <= EQ_CONV2D_DIRECT || eq_conv2d_winograd_fits(target, a, w->h, w->w, w->block_in),
               EQ_ERR_UNSUPPORTED,
               "%s: Winograd's algorithm takes 3 x 3 filters at stride 1 of one group and blocked images in fp32, with late "
               "transforms on processors, not %d x %d at %d x %d, %d groups, in %s",
               name, w->h, w->w, a->stride_h, a->stride_w, a->groups > 1 ? a->groups : 1, eq_precision_name(target->precision));
    const int64_t height = (int64_t)x->h + 2 * (int64_t)a->pad_h, width = (int64_t)x->w + 2 * (int64_t)a->pad_w;
    EQ_REQUIRE(w->h <= height && w->w <= width, EQ_ERR_SHAPE, "%s: the filter is %d x %d, the padded image only %lld x %lld",
               name, w->h, w->w, (long long)height, (long long)width);
    const int64_t halo = a->pad_h > a->pad_w ? a->pad_h : a->pad_w;
    EQ_REQUIRE((x->h + 2 * halo) * (x->w + 2 * halo) * target->block <= INT_MAX, EQ_ERR_UNSUPPORTED,
               "%s: a plane of %d x %d pixels padded by %lld is too large", name, x->h, x->w, (long long)halo);
    *oh = (int)((height - w->h) / a->stride_h) + 1;
    *ow = (int)((width - w->w) / a->stride_w) + 1;
    EQ_REQUIRE((int64_t)*oh * *ow * x->n <= INT_MAX && (int64_t)*oh * *ow * target->block <= INT_MAX &&
                   (int64_t)w->c * w->h * w->w <= INT_MAX / 64,
               EQ_ERR_UNSUPPORTED, "%s: %d images of %d x %d pixels with %d x %d x %d filters are too large", name, x->n, *oh,
               *ow, w->c, w->h, w->w);
    return EQ_OK;
}

struct eq_cost eq_conv2d_cost(const struct eq_tensor *x, const struct eq_tensor *w, const struct eq_tensor *z)
{
    return (struct eq_cost){ 2.0 * (double)eq_tensor_logical(z) * w->c * w->h * w->w,
                             4.0 *
                                 ((double)eq_tensor_logical(x) + (double)eq_tensor_logical(w) + (double)eq_tensor_logical(z)) };
}

struct eq_tensor eq_conv2d_weight(const struct eq_target *target, const struct eq_tensor *x, int oc, int kh, int kw, int groups)
{
    if (groups > 1)
        return eq_tensor_weight(oc, x->c / groups, kh, kw, target->block, 1);
    return eq_tensor_weight(oc, x->c, kh, kw, target->block, x->form == EQ_FORM_PLAIN ? 1 : x->block);
}

int eq_conv2d_num_k(const struct eq_tensor *w)
{
    return (w->c + w->block_in - 1) / w->block_in * w->block_in * w->h * w->w;
}

static size_t packed_elems(const struct eq_call *call)
{
    const struct eq_conv2d_attributes *a = call->attributes;
    const struct eq_tensor *w = &call->input[1];
    return eq_conv2d_packed_elems(call->target, a->groups, w->n, eq_conv2d_num_k(w));
}

static struct eq_conv2d_shape shape_of(const struct eq_call *call)
{
    const struct eq_conv2d_attributes *a = call->attributes;
    const struct eq_tensor *z = &call->output[0];
    return (struct eq_conv2d_shape){ z->n, call->input[0].c, z->c, z->h, z->w, a->is_prepared };
}

static enum eq_conv2d_algorithm algorithm_of(const struct eq_call *call)
{
    const struct eq_tensor *w = &call->input[1];
    const struct eq_conv2d_shape s = shape_of(call);
    return eq_conv2d_choose(call->target, call->attributes, w->h, w->w, w->block_in, &s);
}

static struct eq_cost cost(const struct eq_call *call)
{
    return eq_conv2d_cost(&call->input[0], &call->input[1], &call->output[0]);
}

static struct eq_conv2d_job make_job(const struct eq_call *call, struct eq_ref x, struct eq_ref w, struct eq_ref z)
{
    const struct eq_conv2d_attributes *a = call->attributes;
    return (struct eq_conv2d_job){
        .x = eq_conv2d_view(&call->input[0], x),
        .z = eq_conv2d_view(&call->output[0], z),
        .filter = w,
        .groups = a->groups,
        .kh = call->input[1].h,
        .kw = call->input[1].w,
        .stride_h = a->stride_h,
        .stride_w = a->stride_w,
        .first_y = -a->pad_h,
        .first_x = -a->pad_w,
        .moment_tiles = a->moment_tiles,
        .cost = cost(call),
    };
}

static bool has_moments(const struct eq_target *target, const struct eq_conv2d_attributes *attributes)
{
    return target->family == EQ_FAMILY_VECTOR && attributes->algorithm == EQ_CONV2D_DIRECT && attributes->groups <= 1;
}

static eq_status shape(struct eq_call *call)
{
    int oh, ow;
    EQ_TRY(eq_conv2d_check("conv2d", call->target, call->attributes, &call->input[0], &call->input[1], &oh, &ow));
    call->num_outputs = 2;
    call->output[0] = eq_tensor_blocked(call->input[0].n, call->input[1].n, oh, ow, call->target->block, 0);
    size_t workspace = 1 + packed_elems(call);
    const enum eq_conv2d_algorithm algorithm = algorithm_of(call);
    if (algorithm != EQ_CONV2D_DIRECT) {
        const struct eq_conv2d_shape s = shape_of(call);
        workspace = eq_conv2d_winograd_filter_elems(call->target, algorithm, &s) +
                    eq_conv2d_winograd_scratch_elems(call->target, algorithm, &s);
    }
    EQ_TRY(eq_workspace("conv2d", workspace, &call->output[1]));
    EQ_TRY(eq_tensor_check(&call->output[0]));
    const struct eq_conv2d_attributes *a = call->attributes;
    if (a->moment_tiles == 0)
        return EQ_OK;
    EQ_REQUIRE(a->moment_tiles > 0, EQ_ERR_ARGUMENT, "conv2d: parts of %d tiles", a->moment_tiles);
    EQ_REQUIRE(has_moments(call->target, a), EQ_ERR_UNSUPPORTED,
               "conv2d: algorithm %d with %d groups gives no moments on this device", (int)a->algorithm, a->groups);
    const struct eq_conv2d_job job = make_job(call, EQ_REF_NONE, EQ_REF_NONE, EQ_REF_NONE);
    call->num_outputs = 3;
    const int parts = eq_conv2d_vector_parts(call->target, &job);
    call->output[2] = eq_tensor_plain(EQ_F32, job.z.n, job.z.blocks, parts, 3 * job.z.block);
    return eq_tensor_check(&call->output[2]);
}

int eq_conv2d_moment_tiles(const struct eq_target *target, const struct eq_conv2d_attributes *attributes,
                           const struct eq_tensor *x, const struct eq_tensor *w)
{
    struct eq_call call = {
        .attributes = attributes, .target = target, .num_inputs = 2, .has = { true, true }, .input = { *x, *w }
    };
    if (!has_moments(target, attributes) || attributes->moment_tiles != 0 || shape(&call) != EQ_OK)
        return 0;
    struct eq_conv2d_job job = make_job(&call, EQ_REF_NONE, EQ_REF_NONE, EQ_REF_NONE);
    job.moment_tiles = eq_conv2d_vector_tiles_each(target, &job);
    return 3 * PIXELS_OF_NUMBER * (int64_t)eq_conv2d_vector_parts(target, &job) <= (int64_t)job.z.h * job.z.w ? job.moment_tiles
                                                                                                              : 0;
}

static int halo(const struct eq_call *call, int input)
{
    const struct eq_conv2d_attributes *a = call->attributes;
    if (input != 0 || call->target->family != EQ_FAMILY_VECTOR)
        return 0;
    return a->pad_h > a->pad_w ? a->pad_h : a->pad_w;
}

static eq_status emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    const enum eq_conv2d_algorithm algorithm = algorithm_of(call);
    struct eq_conv2d_job job = make_job(call, in[0], in[1], out[0]);
    const struct eq_conv2d_shape s = shape_of(call);
    if (job.moment_tiles > 0)
        job.moments = out[2];
    const size_t transformed = algorithm == EQ_CONV2D_DIRECT ? 0 : eq_conv2d_winograd_filter_elems(call->target, algorithm, &s);
    if (transformed > 0) {
        EQ_TRY(eq_conv2d_winograd_filter_emit(list, algorithm, &s, in[1], EQ_REF_NONE, out[1]));
        job.filter = out[1];
    }
    if (packed_elems(call) > 0) {
        EQ_TRY(eq_conv2d_pack_emit(list, call->input[1].n, eq_conv2d_num_k(&call->input[1]), in[1], EQ_REF_NONE, out[1],
                                   s.is_prepared));
        job.filter = out[1];
    }
    EQ_TRY(eq_conv2d_border_emit(list, &call->output[0], out[0]));
    if (algorithm == EQ_CONV2D_DIRECT)
        return eq_conv2d_job_emit(list, &job);
    return eq_conv2d_winograd_emit(list, algorithm, &s, &job, eq_ref_plus(out[1], transformed));
}

static eq_status tunables(const struct eq_call *call, struct eq_tunable *tunables, int max, int *num)
{
    const struct eq_tensor *w = &call->input[1];
    const struct eq_conv2d_shape s = shape_of(call);
    const enum eq_conv2d_algorithm algorithm = algorithm_of(call);
    const struct eq_conv2d_job job = make_job(call, EQ_REF_NONE, EQ_REF_NONE, EQ_REF_NONE);
    if (job.groups > 1)
        return EQ_OK;
    assert(max >= 2);
    *num = 2;
    EQ_TRY(eq_conv2d_algorithm_tunable(call->target, call->attributes, w->h, w->w, w->block_in, &s, &tunables[0]));
    return algorithm == EQ_CONV2D_DIRECT ? eq_conv2d_job_tunable(call->target, &job, &tunables[1])
                                         : eq_conv2d_winograd_tunable(call->target, algorithm, &s, &tunables[1]);
}

static eq_status gradient(const struct eq_call *call, struct eq_tape *tape)
{
    const struct eq_conv2d_attributes *conv = call->attributes;
    const struct eq_tensor *x = &call->input[0], *w = &call->input[1];
    const int dz = tape->output_grad[0];
    int outputs[EQ_MAX_OPERANDS];
    if (dz == EQ_NO_VALUE)
        return EQ_OK;
    if (tape->wants[1]) {
        const struct eq_conv2d_weight_grad_attributes attributes = { *conv, w->h, w->w };
        EQ_TRY(tape->call(tape, &eq_op_conv2d_weight_grad, &attributes, (const int[]){ tape->input[0], dz }, 2, outputs));
        EQ_TRY(tape->give(tape, 1, outputs[0]));
    }
    if (tape->wants[0]) {
        const struct eq_conv2d_data_grad_attributes attributes = { *conv, x->h, x->w };
        const int add = tape->take(tape, 0);
        EQ_TRY(tape->call(tape, &eq_op_conv2d_data_grad, &attributes, (const int[]){ dz, tape->input[1], add }, 3, outputs));
        EQ_TRY(tape->give(tape, 0, outputs[0]));
    }
    return EQ_OK;
}

const struct eq_op eq_op_conv2d = {
    .name = "conv2d",
    .attribute_bytes = sizeof(struct eq_conv2d_attributes),
    .shape = shape,
    .is_per_image = true,
    .halo = halo,
    .emit = emit,
    .gradient = gradient,
    .cost = cost,
    .tunables = tunables,
    .expect = eq_conv2d_expect,
};

// Maximum pooling over windows, and its gradient, which reads the places the forward pass kept.
#include "op/flat.h"

enum { X = 0, Y = 0, INDEX = 1 };                   // forward
enum { GRAD_DY = 0, GRAD_INDEX = 1, GRAD_ADD = 2 }; // gradient's inputs

static eq_status check(const char *name, const struct eq_target *target, const struct eq_pool_max_attributes *a,
                       const struct eq_tensor *x, int *oh, int *ow)
{
    EQ_TRY(eq_planes_check(name, x));
    EQ_REQUIRE(x->block == target->block && x->dtype == EQ_F32, EQ_ERR_UNSUPPORTED,
               "%s: the input is %s in blocks of %d channels, not f32 in blocks of %d", name, eq_dtype_name(x->dtype), x->block,
               target->block);
    EQ_REQUIRE(a->kh >= 1 && a->kw >= 1 && a->stride_h >= 1 && a->stride_w >= 1, EQ_ERR_ARGUMENT,
               "%s: window %d x %d, stride %d x %d: all must be at least 1", name, a->kh, a->kw, a->stride_h, a->stride_w);
    EQ_REQUIRE(a->pad_h >= 0 && a->pad_w >= 0 && a->pad_h < a->kh && a->pad_w < a->kw, EQ_ERR_ARGUMENT,
               "%s: padding is %d x %d: it must be at least 0 and below the window, %d x %d", name, a->pad_h, a->pad_w, a->kh,
               a->kw);
    const int64_t height = (int64_t)x->h + 2 * (int64_t)a->pad_h, width = (int64_t)x->w + 2 * (int64_t)a->pad_w;
    EQ_REQUIRE(a->kh <= height && a->kw <= width, EQ_ERR_SHAPE, "%s: the window is %d x %d, the padded image only %lld x %lld",
               name, a->kh, a->kw, (long long)height, (long long)width);
    *oh = (int)((height - a->kh) / a->stride_h) + 1;
    *ow = (int)((width - a->kw) / a->stride_w) + 1;
    return EQ_OK;
}

static struct eq_tensor index_tensor(const struct eq_tensor *y)
{
    struct eq_tensor index = eq_tensor_blocked(y->n, y->c, y->h, y->w, y->block, 0);
    index.dtype = EQ_I32;
    return index;
}

static eq_status shape(struct eq_call *call)
{
    const struct eq_tensor *x = &call->input[X];
    int oh, ow;
    EQ_TRY(check("pool_max", call->target, call->attributes, x, &oh, &ow));
    call->num_outputs = 2;
    call->output[Y] = eq_tensor_blocked(x->n, x->c, oh, ow, x->block, 0);
    call->output[INDEX] = call->training ? index_tensor(&call->output[Y]) : eq_tensor_vector(1);
    return EQ_OK;
}

static struct eq_options options_of(const struct eq_target *target, const struct eq_pool_max_attributes *a)
{
    return eq_options_format("-DSIMT=%d -DBLOCK=%d -DKH=%d -DKW=%d -DSH=%d -DSW=%d -DPH=%d -DPW=%d",
                             target->family == EQ_FAMILY_SIMT, target->block, a->kh, a->kw, a->stride_h, a->stride_w, a->pad_h,
                             a->pad_w);
}

// Over the stored rows of `p`: a row a work-item, or an element.
static struct eq_range range_of(const struct eq_target *target, const struct eq_planes *p)
{
    const size_t rows = (size_t)(p->h + 2 * p->halo), planes = (size_t)p->planes;
    if (target->family == EQ_FAMILY_SIMT)
        return eq_range_3d((const size_t[]){ (size_t)p->row, rows, planes }, (const size_t[]){ 64, 1, 1 });
    return eq_range_3d((const size_t[]){ 1, rows, planes }, (const size_t[]){ 1, rows < 16 ? rows : 16, 1 });
}

// One comparison a tap; x read, y and, in training, index written.
static struct eq_cost cost(const struct eq_call *call)
{
    const struct eq_pool_max_attributes *a = call->attributes;
    const double outputs = (double)eq_tensor_logical(&call->output[Y]);
    return (struct eq_cost){ outputs * a->kh * a->kw,
                             4.0 * ((double)eq_tensor_logical(&call->input[X]) + (call->training ? 2.0 : 1.0) * outputs) };
}

static eq_status emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    const struct eq_planes x = eq_planes(&call->input[X], in[X]), y = eq_planes(&call->output[Y], out[Y]);
    const struct eq_options geometry = options_of(call->target, call->attributes),
                            options = eq_options_format("%s -DPLACES=%d", geometry.text, call->training);
    const struct eq_launch launch = {
        .source = "pool_max",
        .options = options.text,
        .kernel = "pool_max_fwd",
        .range = range_of(call->target, &y),
        .cost = cost(call),
        .cut = 3,
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(x.origin), EQ_REF(y.at), EQ_REF(out[INDEX]), EQ_I32(x.planes), EQ_I32(x.h),
                                  EQ_I32(x.w), EQ_I32(x.row), EQ_I32(x.plane), EQ_I32(y.h), EQ_I32(y.w), EQ_I32(y.halo)));
}

static eq_status gradient(const struct eq_call *call, struct eq_tape *tape)
{
    if (tape->output_grad[Y] == EQ_NO_VALUE || !tape->wants[X])
        return EQ_OK;
    const struct eq_pool_max_grad_attributes attributes = { *(const struct eq_pool_max_attributes *)call->attributes,
                                                            call->input[X].h, call->input[X].w };
    const int inputs[] = { tape->output_grad[Y], tape->output[INDEX], tape->take(tape, X) };
    int outputs[EQ_MAX_OPERANDS];
    EQ_TRY(tape->call(tape, &eq_op_pool_max_grad, &attributes, inputs, 3, outputs));
    return tape->give(tape, X, outputs[0]);
}

const struct eq_op eq_op_pool_max = {
    .name = "pool_max",
    .attribute_bytes = sizeof(struct eq_pool_max_attributes),
    .shape = shape,
    .is_per_image = true,
    .emit = emit,
    .gradient = gradient,
    .cost = cost,
};

// ---- gradient

static bool has_add(const struct eq_call *call)
{
    return call->num_inputs > GRAD_ADD && call->has[GRAD_ADD];
}

static bool is_same_shape(const struct eq_tensor *a, const struct eq_tensor *b)
{
    return a->form == b->form && a->dtype == b->dtype && a->n == b->n && a->c == b->c && a->h == b->h && a->w == b->w &&
           a->block == b->block;
}

static eq_status grad_shape(struct eq_call *call)
{
    const struct eq_pool_max_grad_attributes *a = call->attributes;
    const struct eq_tensor *dy = &call->input[GRAD_DY];
    EQ_TRY(eq_planes_check("pool_max_grad", dy));
    const struct eq_tensor x = eq_tensor_blocked(dy->n, dy->c, a->ih, a->iw, dy->block, 0), index = index_tensor(dy);
    int oh, ow;
    char text[2][64];
    EQ_TRY(check("pool_max_grad", call->target, &a->pool, &x, &oh, &ow));
    EQ_REQUIRE(dy->h == oh && dy->w == ow, EQ_ERR_SHAPE,
               "pool_max_grad: the gradient is %d x %d, %d x %d pixels pool to %d x %d", dy->h, dy->w, a->ih, a->iw, oh, ow);
    EQ_REQUIRE(is_same_shape(&call->input[GRAD_INDEX], &index), EQ_ERR_SHAPE, "pool_max_grad: the index is %s %s, not i32 %s",
               eq_dtype_name(call->input[GRAD_INDEX].dtype), eq_tensor_shape_text(&call->input[GRAD_INDEX], text[0]),
               eq_tensor_shape_text(&index, text[1]));
    EQ_REQUIRE(!has_add(call) || is_same_shape(&call->input[GRAD_ADD], &x), EQ_ERR_SHAPE,
               "pool_max_grad: the gradient to add to is %s, not %s", eq_tensor_shape_text(&call->input[GRAD_ADD], text[0]),
               eq_tensor_shape_text(&x, text[1]));
    call->num_outputs = 1;
    call->output[0] = x;
    return EQ_OK;
}

static int grad_in_place(const struct eq_call *call, int output)
{
    (void)output;
    return has_add(call) ? GRAD_ADD : -1;
}

static struct eq_cost grad_cost(const struct eq_call *call)
{
    const double inputs = (double)eq_tensor_logical(&call->output[0]),
                 outputs = (double)eq_tensor_logical(&call->input[GRAD_DY]);
    return (struct eq_cost){ outputs, 4.0 * (inputs * (has_add(call) ? 2.0 : 1.0) + 2.0 * outputs) };
}

static eq_status grad_emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    const struct eq_pool_max_grad_attributes *a = call->attributes;
    const struct eq_planes dy = eq_planes(&call->input[GRAD_DY], in[GRAD_DY]), dx = eq_planes(&call->output[0], out[0]);
    const struct eq_planes add = has_add(call) ? eq_planes(&call->input[GRAD_ADD], in[GRAD_ADD]) : dx;
    const struct eq_options options = options_of(call->target, &a->pool);
    const struct eq_launch launch = {
        .source = "pool_max",
        .options = options.text,
        .kernel = "pool_max_bwd",
        .range = range_of(call->target, &dx),
        .cost = grad_cost(call),
        .cut = 3,
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(dy.origin), EQ_REF(in[GRAD_INDEX]), EQ_REF(has_add(call) ? add.origin : EQ_REF_NONE),
                                  EQ_REF(dx.at), EQ_I32(dx.planes), EQ_I32(dx.h), EQ_I32(dx.w), EQ_I32(dx.halo), EQ_I32(dy.h),
                                  EQ_I32(dy.w), EQ_I32(dy.row), EQ_I32(dy.plane), EQ_I32(add.row), EQ_I32(add.plane),
                                  EQ_I32(has_add(call))));
}

const struct eq_op eq_op_pool_max_grad = {
    .name = "pool_max_grad",
    .attribute_bytes = sizeof(struct eq_pool_max_grad_attributes),
    .shape = grad_shape,
    .in_place = grad_in_place,
    .emit = grad_emit,
    .cost = grad_cost,
};

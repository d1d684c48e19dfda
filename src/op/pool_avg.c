// Mean over all pixels, from blocked [n, c, h, w] to plain [n, c], and its gradient.
#include "op/flat.h"

enum { GROUP = 64 }; // LSIZE of the kernel

static eq_status check(const char *name, const struct eq_target *target, const struct eq_tensor *x)
{
    EQ_TRY(eq_planes_check(name, x));
    EQ_REQUIRE(x->block == target->block && x->dtype == EQ_F32, EQ_ERR_UNSUPPORTED,
               "%s: the input is %s in blocks of %d channels, not f32 in blocks of %d", name, eq_dtype_name(x->dtype), x->block,
               target->block);
    return EQ_OK;
}

static eq_status shape(struct eq_call *call)
{
    const struct eq_tensor *x = &call->input[0];
    EQ_TRY(check("pool_avg", call->target, x));
    call->num_outputs = 1;
    call->output[0] = eq_tensor_plain(EQ_F32, x->n, x->c, 1, 1);
    return EQ_OK;
}

static struct eq_cost cost(const struct eq_call *call)
{
    const double elems = (double)eq_tensor_logical(&call->input[0]);
    return (struct eq_cost){ elems, 4.0 * (elems + (double)eq_tensor_logical(&call->output[0])) };
}

static struct eq_options options_of(const struct eq_target *target)
{
    return eq_options_format("-DSIMT=%d -DBLOCK=%d -DLSIZE=%d", target->family == EQ_FAMILY_SIMT, target->block, GROUP);
}

static eq_status emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    const struct eq_planes x = eq_planes(&call->input[0], in[0]);
    const struct eq_options options = options_of(call->target);
    const size_t group = call->target->family == EQ_FAMILY_SIMT ? GROUP : 1;
    const struct eq_launch launch = {
        .source = "pool_avg",
        .options = options.text,
        .kernel = "pool_avg_fwd",
        .range = eq_range_1d((size_t)x.planes * group, group),
        .cost = cost(call),
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(x.origin), EQ_REF(out[0]), EQ_I32(call->input[0].c),
                                  EQ_I32(eq_tensor_blocks(&call->input[0])), EQ_I32(x.h), EQ_I32(x.w), EQ_I32(x.row),
                                  EQ_I32(x.plane)));
}

static eq_status gradient(const struct eq_call *call, struct eq_tape *tape)
{
    if (tape->output_grad[0] == EQ_NO_VALUE || !tape->wants[0])
        return EQ_OK;
    const struct eq_pool_avg_grad_attributes attributes = { call->input[0].h, call->input[0].w };
    int outputs[EQ_MAX_OPERANDS];
    EQ_TRY(tape->call(tape, &eq_op_pool_avg_grad, &attributes, &tape->output_grad[0], 1, outputs));
    return tape->give(tape, 0, outputs[0]);
}

const struct eq_op eq_op_pool_avg = {
    .name = "pool_avg",
    .shape = shape,
    .is_per_image = true,
    .emit = emit,
    .gradient = gradient,
    .cost = cost,
};

// ---- gradient

static eq_status grad_shape(struct eq_call *call)
{
    const struct eq_pool_avg_grad_attributes *a = call->attributes;
    const struct eq_tensor *dy = &call->input[0];
    char text[64];
    EQ_REQUIRE(dy->form == EQ_FORM_PLAIN && dy->dtype == EQ_F32 && dy->h == 1 && dy->w == 1, EQ_ERR_SHAPE,
               "pool_avg_grad: the gradient is %s %s, not f32 [n, c]", eq_dtype_name(dy->dtype),
               eq_tensor_shape_text(dy, text));
    EQ_REQUIRE(a->h >= 1 && a->w >= 1, EQ_ERR_ARGUMENT, "pool_avg_grad: an image of %d x %d pixels", a->h, a->w);
    call->num_outputs = 1;
    call->output[0] = eq_tensor_blocked(dy->n, dy->c, a->h, a->w, call->target->block, 0);
    return eq_planes_check("pool_avg_grad", &call->output[0]);
}

static struct eq_cost grad_cost(const struct eq_call *call)
{
    const double elems = (double)eq_tensor_logical(&call->output[0]);
    return (struct eq_cost){ elems, 4.0 * (elems + (double)eq_tensor_logical(&call->input[0])) };
}

static eq_status grad_emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    const struct eq_planes dx = eq_planes(&call->output[0], out[0]);
    const struct eq_options options = options_of(call->target);
    const bool is_simt = call->target->family == EQ_FAMILY_SIMT;
    const size_t rows = (size_t)(dx.h + 2 * dx.halo), planes = (size_t)dx.planes, width = is_simt ? (size_t)dx.row : 1;
    const struct eq_launch launch = {
        .source = "pool_avg",
        .options = options.text,
        .kernel = "pool_avg_bwd",
        .range = eq_range_3d((const size_t[]){ width, rows, planes }, (const size_t[]){ is_simt ? GROUP : 1, 1, 1 }),
        .cost = grad_cost(call),
        .cut = 3,
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(in[0]), EQ_REF(dx.at), EQ_I32(dx.planes), EQ_I32(call->output[0].c),
                                  EQ_I32(eq_tensor_blocks(&call->output[0])), EQ_I32(dx.h), EQ_I32(dx.w), EQ_I32(dx.halo)));
}

const struct eq_op eq_op_pool_avg_grad = {
    .name = "pool_avg_grad",
    .attribute_bytes = sizeof(struct eq_pool_avg_grad_attributes),
    .shape = grad_shape,
    .emit = grad_emit,
    .cost = grad_cost,
};

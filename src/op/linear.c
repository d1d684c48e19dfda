// Fully connected layer: y = x w^T + b, and its gradients dx = dy w, dw = dy^T x, db = sum of dy over the rows.
// Kernels of our own but for the products of the gradients on GPUs, which are CLBlast's.
#include "op/op.h"

enum { X = 0, W = 1, B = 2, DY = 2, GROUP = 64, OUTS = 4, WIDE = 4 }; // OUTS, WIDE: as in cl/linear.cl

// A launch of a _vector kernel of `items` work-items.
static struct eq_launch vector_launch(const struct eq_options *options, const char *kernel, int items, struct eq_cost cost)
{
    return (struct eq_launch){ .source = "linear", .options = options->text, .kernel = kernel,
                               .range = eq_range_1d((size_t)items, 1), .cost = cost };
}

static eq_status check_rows(const char *name, const char *what, const struct eq_tensor *t)
{
    char text[64];
    EQ_TRY(eq_tensor_check(t));
    EQ_REQUIRE(t->form == EQ_FORM_PLAIN && t->dtype == EQ_F32 && t->h == 1 && t->w == 1, EQ_ERR_SHAPE,
               "%s: %s is %s %s, not plain f32 rows", name, what, eq_dtype_name(t->dtype), eq_tensor_shape_text(t, text));
    return EQ_OK;
}

static eq_status check(const char *name, const struct eq_call *call)
{
    const struct eq_tensor *x = &call->input[X], *w = &call->input[W];
    EQ_TRY(check_rows(name, "the input", x));
    EQ_TRY(check_rows(name, "the weight", w));
    EQ_REQUIRE(w->c == x->c, EQ_ERR_SHAPE, "%s: the input has %d channels, the weight [%d, %d] takes %d", name, x->c, w->n,
               w->c, w->c);
    return EQ_OK;
}

static eq_status shape(struct eq_call *call)
{
    const struct eq_tensor *x = &call->input[X], *w = &call->input[W], *b = &call->input[B];
    EQ_TRY(check("linear", call));
    EQ_REQUIRE(b->dtype == EQ_F32 && b->form == EQ_FORM_PLAIN && eq_tensor_logical(b) == (size_t)w->n, EQ_ERR_SHAPE,
               "linear: the bias has %zu elements, the weight [%d, %d] has %d rows", eq_tensor_logical(b), w->n, w->c, w->n);
    call->num_outputs = 1;
    call->output[0] = eq_tensor_plain(EQ_F32, x->n, w->n, 1, 1);
    return EQ_OK;
}

static struct eq_cost cost(const struct eq_call *call)
{
    const double n = call->input[X].n, c = call->input[X].c, k = call->input[W].n;
    return (struct eq_cost){ 2.0 * n * c * k + n * k, 4.0 * (n * c + c * k + k + n * k) };
}

static eq_status emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    const int n = call->input[X].n, c = call->input[X].c, k = call->input[W].n;
    if (call->target->family == EQ_FAMILY_VECTOR) {
        const struct eq_options options = eq_options_format("-DBLOCK=%d", call->target->block);
        const struct eq_launch launch = vector_launch(&options, "linear_vector", (k + OUTS - 1) / OUTS, cost(call));
        return eq_list_kernel(list, &launch,
                              EQ_ARGS(EQ_REF(in[X]), EQ_REF(in[W]), EQ_REF(in[B]), EQ_REF(out[0]), EQ_I32(n), EQ_I32(c),
                                      EQ_I32(k)));
    }
    // 64 sums of a work-item, or 32, and no more rows than there are
    const int outputs = call->target->max_sums >= 64 ? 8 : 4, rows = n > 4 ? 8 : n > 2 ? 4 : n;
    const bool is_aligned = c % 4 == 0 && eq_refs_are_aligned((const struct eq_ref[]){ in[X], in[W] }, 2);
    const struct eq_options options =
        eq_options_format("-DSIMT_ROWS=%d -DSIMT_OUTS=%d -DEQ_ALIGNED=%d", rows, outputs, is_aligned);
    const struct eq_launch launch = {
        .source = "linear",
        .options = options.text,
        .kernel = "linear_simt",
        .range = eq_range_2d((size_t)((k + outputs - 1) / outputs * GROUP), (size_t)((n + rows - 1) / rows), GROUP, 1),
        .cost = cost(call),
        .cut = 2,
    };
    return eq_list_kernel(list, &launch, EQ_ARGS(EQ_REF(in[X]), EQ_REF(in[W]), EQ_REF(in[B]), EQ_REF(out[0]), EQ_I32(n),
                                                 EQ_I32(c), EQ_I32(k)));
}

static eq_status gradient(const struct eq_call *call, struct eq_tape *tape)
{
    (void)call;
    if (tape->output_grad[0] == EQ_NO_VALUE || !(tape->wants[X] || tape->wants[W] || tape->wants[B]))
        return EQ_OK;
    const int inputs[] = { tape->input[X], tape->input[W], tape->output_grad[0] };
    int outputs[EQ_MAX_OPERANDS];
    EQ_TRY(tape->call(tape, &eq_op_linear_grad, NULL, inputs, 3, outputs));
    for (int i = 0; i < 3; i++)
        if (tape->wants[i])
            EQ_TRY(tape->give(tape, i, outputs[i]));
    return EQ_OK;
}

const struct eq_op eq_op_linear = {
    .name = "linear",
    .shape = shape,
    .is_per_image = true,
    .emit = emit,
    .gradient = gradient,
    .cost = cost,
};

// ---- gradient

static eq_status grad_shape(struct eq_call *call)
{
    const struct eq_tensor *x = &call->input[X], *w = &call->input[W], *dy = &call->input[DY];
    EQ_TRY(check("linear_grad", call));
    EQ_TRY(check_rows("linear_grad", "the gradient", dy));
    EQ_REQUIRE(dy->n == x->n && dy->c == w->n, EQ_ERR_SHAPE, "linear_grad: the gradient is [%d, %d], not [%d, %d]", dy->n,
               dy->c, x->n, w->n);
    call->num_outputs = 3;
    call->output[0] = *x;
    call->output[1] = *w;
    call->output[2] = eq_tensor_vector(w->n);
    return EQ_OK;
}

static struct eq_cost grad_cost(const struct eq_call *call)
{
    const double n = call->input[X].n, c = call->input[X].c, k = call->input[W].n;
    return (struct eq_cost){ 4.0 * n * c * k + n * k, 4.0 * (2.0 * n * c + 2.0 * c * k + k + n * k) };
}

static eq_status emit_products(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in,
                               const struct eq_ref *out)
{
    const int n = call->input[X].n, c = call->input[X].c, k = call->input[W].n;
    if (call->target->family == EQ_FAMILY_VECTOR) {
        const double nc = (double)n * c, ck = (double)c * k, nk = (double)n * k, flops = 2 * nc * k;
        const struct eq_options options = eq_options_format("-DBLOCK=%d", call->target->block);
        const int columns = WIDE * call->target->block;
        const struct eq_launch dx = vector_launch(&options, "linear_data_grad_vector", (c + columns - 1) / columns,
                                                  (struct eq_cost){ flops, 4 * (nk + ck + nc) });
        const struct eq_launch dw = vector_launch(&options, "linear_weight_grad_vector", (k + OUTS - 1) / OUTS,
                                                  (struct eq_cost){ flops, 4 * (nk + nc + ck) });
        EQ_TRY(eq_list_kernel(list, &dx, EQ_ARGS(EQ_REF(in[DY]), EQ_REF(in[W]), EQ_REF(out[0]), EQ_I32(n), EQ_I32(c),
                                                 EQ_I32(k))));
        return eq_list_kernel(list, &dw, EQ_ARGS(EQ_REF(in[DY]), EQ_REF(in[X]), EQ_REF(out[1]), EQ_I32(n), EQ_I32(c),
                                                 EQ_I32(k)));
    }
    const struct eq_gemm dx = { .m = n, .n = c, .k = k, .alpha = 1, .lda = k, .ldb = c, .ldc = c };
    const struct eq_gemm dw = { .m = k, .n = c, .k = n, .transpose_a = true, .alpha = 1, .lda = k, .ldb = c, .ldc = c };
    EQ_TRY(eq_list_gemm(list, &dx, in[DY], in[W], out[0]));
    return eq_list_gemm(list, &dw, in[DY], in[X], out[1]);
}

static eq_status grad_emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    const int n = call->input[X].n, k = call->input[W].n;
    const struct eq_launch db = {
        .source = "linear",
        .kernel = "linear_bias_grad",
        .range = eq_range_1d((size_t)k, GROUP),
        .cost = { (double)n * k, 4.0 * ((double)n * k + k) },
    };
    EQ_TRY(emit_products(list, call, in, out));
    return eq_list_kernel(list, &db, EQ_ARGS(EQ_REF(in[DY]), EQ_REF(out[2]), EQ_I32(n), EQ_I32(k)));
}

const struct eq_op eq_op_linear_grad = {
    .name = "linear_grad",
    .shape = grad_shape,
    .emit = grad_emit,
    .cost = grad_cost,
};

// Softmax with cross entropy and label smoothing. The forward pass makes the logits' gradient as well: it has everything at
// hand.
#include "op/op.h"

enum { LOGITS = 0, LABELS = 1, LOSS = 0, DLOGITS = 1, GROUP = 64 }; // GROUP: LSIZE of the kernel

static eq_status shape(struct eq_call *call)
{
    const struct eq_softmax_xent_attributes *a = call->attributes;
    const struct eq_tensor *x = &call->input[LOGITS], *labels = &call->input[LABELS];
    char text[64];
    EQ_TRY(eq_tensor_check(x));
    EQ_REQUIRE(x->form == EQ_FORM_PLAIN && x->dtype == EQ_F32 && x->h == 1 && x->w == 1, EQ_ERR_SHAPE,
               "softmax_xent: the logits are %s %s, not f32 [n, k]", eq_dtype_name(x->dtype), eq_tensor_shape_text(x, text));
    EQ_REQUIRE(labels->form == EQ_FORM_PLAIN && labels->dtype == EQ_I32 && eq_tensor_logical(labels) == (size_t)x->n,
               EQ_ERR_SHAPE, "softmax_xent: %zu labels of type %s for %d rows of logits; they must be i32",
               eq_tensor_logical(labels), eq_dtype_name(labels->dtype), x->n);
    EQ_REQUIRE(a->smoothing >= 0 && a->smoothing < 1, EQ_ERR_ARGUMENT, "softmax_xent: smoothing is %g, it must be in [0, 1)",
               (double)a->smoothing);
    EQ_REQUIRE(a->smoothing == 0 || x->c > 1, EQ_ERR_SHAPE,
               "softmax_xent: smoothing %g spreads over the other classes, but there is %d class", (double)a->smoothing, x->c);
    call->num_outputs = 2;
    call->output[LOSS] = eq_tensor_plain(EQ_F32, x->n, 1, 1, 1);
    call->output[DLOGITS] = *x;
    return EQ_OK;
}

static struct eq_cost cost(const struct eq_call *call)
{
    const double elems = (double)eq_tensor_logical(&call->input[LOGITS]), n = call->input[LOGITS].n;
    return (struct eq_cost){ 8.0 * elems, 4.0 * (2.0 * elems + 2.0 * n) };
}

static eq_status emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    const struct eq_softmax_xent_attributes *a = call->attributes;
    const int n = call->input[LOGITS].n, k = call->input[LOGITS].c;
    const double off = k > 1 ? (double)a->smoothing / (k - 1) : 0;
    const struct eq_options options = eq_options_format("-DLSIZE=%d", GROUP);
    const struct eq_launch launch = {
        .source = "softmax_xent",
        .options = options.text,
        .kernel = "softmax_xent_fwd",
        .range = eq_range_1d((size_t)n * GROUP, GROUP),
        .cost = cost(call),
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(in[LOGITS]), EQ_REF(in[LABELS]), EQ_REF(out[LOSS]), EQ_REF(out[DLOGITS]), EQ_I32(n),
                                  EQ_I32(k), EQ_F32(1.0 - (double)a->smoothing), EQ_F32(off)));
}

// The loss is where differentiation starts: its own gradient is not asked for.
static eq_status gradient(const struct eq_call *call, struct eq_tape *tape)
{
    (void)call;
    return tape->wants[LOGITS] ? tape->give(tape, LOGITS, tape->output[DLOGITS]) : EQ_OK;
}

const struct eq_op eq_op_softmax_xent = {
    .name = "softmax_xent",
    .attribute_bytes = sizeof(struct eq_softmax_xent_attributes),
    .shape = shape,
    .emit = emit,
    .gradient = gradient,
    .cost = cost,
};

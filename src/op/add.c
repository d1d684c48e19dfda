// Sum of two tensors of one shape: where gradients of two readers meet.
#include <limits.h>

#include "op/flat.h"

static eq_status shape(struct eq_call *call)
{
    const struct eq_tensor *a = &call->input[0], *b = &call->input[1];
    char text[2][64];
    EQ_TRY(eq_tensor_check(a));
    EQ_REQUIRE(a->dtype == EQ_F32 && b->dtype == EQ_F32 && a->form == b->form && a->n == b->n && a->c == b->c && a->h == b->h &&
                   a->w == b->w && a->block == b->block && a->block_in == b->block_in,
               EQ_ERR_SHAPE, "add: %s %s in blocks of %d and %s %s in blocks of %d: they must be f32 and alike",
               eq_dtype_name(a->dtype), eq_tensor_shape_text(a, text[0]), a->block, eq_dtype_name(b->dtype),
               eq_tensor_shape_text(b, text[1]), b->block);
    EQ_REQUIRE(eq_tensor_elems(a) <= INT_MAX - EQ_FLAT_CHUNK && eq_tensor_elems(b) <= INT_MAX - EQ_FLAT_CHUNK,
               EQ_ERR_UNSUPPORTED, "add: tensors of %zu elements; this version takes up to %d", eq_tensor_elems(a),
               INT_MAX - EQ_FLAT_CHUNK);
    call->num_outputs = 1;
    call->output[0] = *a;
    call->output[0].halo = 0;
    return EQ_OK;
}

static int in_place(const struct eq_call *call, int output)
{
    (void)call;
    (void)output;
    return 0;
}

static struct eq_cost cost(const struct eq_call *call)
{
    const double elems = (double)eq_tensor_logical(&call->output[0]);
    return (struct eq_cost){ elems, 12.0 * elems };
}

static eq_status emit_rows(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    const struct eq_planes a = eq_planes(&call->input[0], in[0]), b = eq_planes(&call->input[1], in[1]);
    const struct eq_planes y = eq_planes(&call->output[0], out[0]);
    const int block = call->output[0].block, chunk = eq_flat_chunk(call->target);
    const struct eq_options options = eq_options_format("-DCHUNK=%d", chunk);
    struct eq_launch launch = { .source = "add", .options = options.text, .kernel = "add_rows", .cost = cost(call), .cut = 3 };
    launch.range =
        eq_range_3d((const size_t[]){ (size_t)((y.row + chunk - 1) / chunk), (size_t)(y.h + 2 * y.halo), (size_t)y.planes },
                    (const size_t[]){ chunk > 1 ? 1 : 64, 1, 1 });
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(a.origin), EQ_REF(b.origin), EQ_REF(y.at), EQ_I32(y.planes), EQ_I32(y.h),
                                  EQ_I32(y.w * block), EQ_I32(y.halo), EQ_I32(block), EQ_I32(a.row), EQ_I32(a.plane),
                                  EQ_I32(b.row), EQ_I32(b.plane)));
}

static eq_status emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    const struct eq_tensor *a = &call->input[0], *b = &call->input[1], *y = &call->output[0];
    if (a->halo != y->halo || b->halo != y->halo)
        return emit_rows(list, call, in, out);
    const bool is_in_place = eq_ref_equal(in[0], out[0]);
    const struct eq_options options = eq_options_format("-DCHUNK=%d -DIN_PLACE=%d", eq_flat_chunk(call->target), is_in_place);
    const size_t elems = eq_tensor_elems(y);
    const struct eq_launch launch = {
        .source = "add",
        .options = options.text,
        .kernel = "add_flat",
        .range = eq_flat_range(call->target, elems, 1),
        .cost = cost(call),
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(is_in_place ? EQ_REF_NONE : in[0]), EQ_REF(in[1]), EQ_REF(out[0]), EQ_I32(elems)));
}

static eq_status gradient(const struct eq_call *call, struct eq_tape *tape)
{
    (void)call;
    for (int i = 0; i < 2; i++)
        if (tape->output_grad[0] != EQ_NO_VALUE && tape->wants[i])
            EQ_TRY(tape->give(tape, i, tape->output_grad[0]));
    return EQ_OK;
}

const struct eq_op eq_op_add = {
    .name = "add",
    .shape = shape,
    .is_per_image = true,
    .in_place = in_place,
    .emit = emit,
    .gradient = gradient,
    .cost = cost,
};

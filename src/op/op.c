// Helpers that ops share.
#include "op/op.h"

#include <assert.h>
#include <limits.h>

#include "op/conv2d.h"
#include "op/conv2d_gated.h"
#include "op/flat.h"

enum { FLAT_GROUP = 64 };

struct eq_options eq_options_format(const char *format, ...)
{
    struct eq_options options;
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(options.text, sizeof options.text, format, args);
    va_end(args);
    assert(length >= 0 && (size_t)length < sizeof options.text);
    (void)length;
    return options;
}

struct eq_options eq_register_option(const struct eq_target *target, int registers)
{
    return target->can_limit_registers && registers > 0 ? eq_options_format(" -cl-nv-maxrregcount=%d -DEQ_REGISTERS", registers)
                                                        : (struct eq_options){ "" };
}

bool eq_streams(const struct eq_target *target, struct eq_ref to, size_t elems)
{
    return target->family == EQ_FAMILY_VECTOR && to.at % (size_t)target->block == 0 &&
           elems * sizeof(float) >= target->stream_bytes;
}

bool eq_refs_are_aligned(const struct eq_ref *refs, int num)
{
    for (int i = 0; i < num; i++)
        if (refs[i].buffer && (refs[i].at % 4 != 0 || refs[i].buffer->may_move))
            return false;
    return true;
}

eq_status eq_workspace(const char *op, size_t elems, struct eq_tensor *workspace)
{
    EQ_REQUIRE(elems <= INT_MAX, EQ_ERR_UNSUPPORTED, "%s: needs %zu floats of workspace; this version takes up to %d", op,
               elems, INT_MAX);
    *workspace = eq_tensor_vector((int)elems);
    return EQ_OK;
}

double eq_call_conv_flops(const struct eq_call *call)
{
    static const struct eq_op *const convs[] = { &eq_op_conv2d, &eq_op_conv2d_fused, &eq_op_conv2d_data_grad,
                                                 &eq_op_conv2d_weight_grad };
    for (size_t i = 0; i < sizeof convs / sizeof *convs; i++)
        if (call->op == convs[i])
            return call->op->cost(call).flops;
    if (call->op == &eq_op_conv2d_gated)
        return eq_conv2d_cost(&call->input[EQ_CONV2D_GATED_X], &call->input[EQ_CONV2D_GATED_FILTER], &call->output[0]).flops;
    return 0;
}

int eq_flat_chunk(const struct eq_target *target)
{
    return target->family == EQ_FAMILY_VECTOR ? EQ_FLAT_CHUNK : 1;
}

struct eq_range eq_flat_range(const struct eq_target *target, size_t elems, size_t rows)
{
    const size_t chunk = (size_t)eq_flat_chunk(target), items = (elems + chunk - 1) / chunk;
    return eq_range_2d(items, rows, chunk > 1 ? 1 : FLAT_GROUP, 1);
}

struct eq_planes eq_planes(const struct eq_tensor *tensor, struct eq_ref ref)
{
    return (struct eq_planes){
        .at = ref,
        .origin = eq_ref_plus(ref, eq_tensor_origin(tensor)),
        .planes = tensor->n * eq_tensor_blocks(tensor),
        .h = tensor->h,
        .w = tensor->w,
        .halo = tensor->halo,
        .row = (int)eq_tensor_row(tensor),
        .plane = (int)eq_tensor_plane(tensor),
    };
}

eq_status eq_planes_check(const char *op, const struct eq_tensor *tensor)
{
    char text[64];
    EQ_TRY(eq_tensor_check(tensor));
    EQ_REQUIRE(tensor->form == EQ_FORM_BLOCKED, EQ_ERR_SHAPE, "%s: a tensor of shape %s is not in blocks of channels", op,
               eq_tensor_shape_text(tensor, text));
    EQ_REQUIRE(eq_tensor_plane(tensor) <= INT_MAX, EQ_ERR_UNSUPPORTED,
               "%s: a tensor of shape %s has planes of %zu elements; this version takes up to %d", op,
               eq_tensor_shape_text(tensor, text), eq_tensor_plane(tensor), INT_MAX);
    const size_t planes = (size_t)tensor->n * (size_t)eq_tensor_blocks(tensor);
    EQ_REQUIRE(planes <= INT_MAX / 64, EQ_ERR_UNSUPPORTED,
               "%s: a tensor of shape %s has %zu planes; this version takes up to %d", op, eq_tensor_shape_text(tensor, text),
               planes, INT_MAX / 64);
    return EQ_OK;
}

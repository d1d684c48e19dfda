// Packing and unpacking on the device must give what the host's give, bit by bit: the harness packs and unpacks on the host.
#include <stdlib.h>
#include <string.h>

#include "support/support.h"

static const struct {
    const char *name;
    int n, c, h, w, halo;
    bool is_unblocked, is_int, is_tiny;
} cases[] = {
    { "ragged blocks", 2, 19, 5, 3, 0, false, false, true },
    { "one", 1, 1, 1, 1, 0, false, false, true },
    { "halo", 2, 5, 3, 4, 3, false, false, true },
    { "block 1", 2, 3, 6, 5, 3, true, false, true },
    { "int", 1, 17, 3, 3, 1, false, true, true },
    { "image", 2, 3, 97, 61, 3, true, false, false },
    { "wide", 1, 40, 9, 130, 1, false, false, false },
};
enum { NUM_CASES = sizeof cases / sizeof *cases };

// The call's attributes are the blocked tensor.
static eq_status pack_shape(struct eq_call *call)
{
    call->num_outputs = 1;
    call->output[0] = *(const struct eq_tensor *)call->attributes;
    return EQ_OK;
}

static eq_status pack_emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    return eq_layout_pack_emit(list, &call->output[0], in[0], out[0]);
}

static eq_status unpack_shape(struct eq_call *call)
{
    const struct eq_tensor *t = call->attributes;
    call->num_outputs = 1;
    call->output[0] = eq_tensor_plain(t->dtype, t->n, t->c, t->h, t->w);
    return EQ_OK;
}

static eq_status unpack_emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in,
                             const struct eq_ref *out)
{
    return eq_layout_unpack_emit(list, &call->input[0], in[0], out[0]);
}

static const struct eq_op pack = { .name = "layout_pack", .shape = pack_shape, .emit = pack_emit };
static const struct eq_op unpack = { .name = "layout_unpack", .shape = unpack_shape, .emit = unpack_emit };

static void check(int index, const struct eq_op *op, const struct eq_tensor *blocked, const struct eq_tensor *input,
                  const float *values)
{
    struct eq_test_call call = {
        .name = cases[index].name, .op = op, .attributes = blocked, .num_inputs = 1, .input = { { *input, values, false } }
    };
    eq_test_call_run(&call);
    ck_assert_msg(memcmp(call.output[0], values, eq_tensor_logical(blocked) * 4) == 0, "%s, %s (%s): other values", op->name,
                  cases[index].name, eq_test_variant_name());
    eq_test_call_free(&call);
}

START_TEST(test_values)
{
    if (eq_test_is_tiny() && !cases[_i].is_tiny)
        return;
    for (int v = 0; v < eq_test_num_variants(true); v++) {
        eq_test_variant(v);
        const int block = cases[_i].is_unblocked ? 1 : eq_test_device->target.block;
        struct eq_tensor blocked = eq_tensor_blocked(cases[_i].n, cases[_i].c, cases[_i].h, cases[_i].w, block, cases[_i].halo);
        blocked.dtype = cases[_i].is_int ? EQ_I32 : EQ_F32;
        const struct eq_tensor plain = eq_tensor_plain(blocked.dtype, blocked.n, blocked.c, blocked.h, blocked.w);
        const size_t elems = eq_tensor_logical(&blocked);
        float *values = eq_test_uniform(cases[_i].name, elems, 0);
        for (size_t i = 0; i < elems && cases[_i].is_int; i++)
            memcpy(&values[i], &(int32_t){ (int32_t)i - 7 }, 4);
        check(_i, &pack, &blocked, &plain, values);
        check(_i, &unpack, &blocked, &blocked, values);
        free(values);
    }
}
END_TEST

START_TEST(test_refused)
{
    struct eq_list *list = NULL;
    struct eq_tensor t = eq_tensor_plain(EQ_F32, 2, 3, 4, 5);
    EQ_TEST_OK(eq_list_create(eq_test_device, &list));
    ck_assert_int_eq(eq_layout_pack_emit(list, &t, EQ_REF_NONE, EQ_REF_NONE), EQ_ERR_SHAPE);
    ck_assert_msg(strstr(eq_last_error(), "[2, 3, 4, 5]"), "%s", eq_last_error());
    t = eq_tensor_blocked(2, 3, 4, 5, 16, 0);
    t.dtype = EQ_U8;
    ck_assert_int_eq(eq_layout_unpack_emit(list, &t, EQ_REF_NONE, EQ_REF_NONE), EQ_ERR_UNSUPPORTED);
    ck_assert_int_eq(eq_list_length(list), 0);
    eq_list_destroy(&list);
}
END_TEST

EQ_TEST_MAIN("layout", { test_values, NUM_CASES }, { test_refused, 0 })

// Losses that are refused. What is computed is checked in src/verify/softmax_xent.c.
#include "verify/check.h"

static void test_refused(int index)
{
    (void)index;
    const float value = 0;
    struct eq_softmax_xent_attributes attributes = { 1 };
    struct eq_check_call call = { .name = "smoothing",
                                  .op = &eq_op_softmax_xent,
                                  .attributes = &attributes,
                                  .num_inputs = 2,
                                  .input = { { eq_tensor_plain(EQ_F32, 4, 3, 1, 1), &value, false },
                                             { eq_tensor_plain(EQ_I32, 4, 1, 1, 1), &value, false } } };
    eq_check_call_refused(&call, EQ_ERR_ARGUMENT, "smoothing is 1");
    attributes.smoothing = 0.1f;
    call.input[0].tensor.c = 1;
    eq_check_call_refused(&call, EQ_ERR_SHAPE, "there is 1 class");
    call.input[0].tensor.c = 3;
    call.input[1].tensor.n = 5;
    eq_check_call_refused(&call, EQ_ERR_SHAPE, "5 labels of type i32 for 4 rows");
    call.input[1].tensor = eq_tensor_plain(EQ_F32, 4, 1, 1, 1);
    eq_check_call_refused(&call, EQ_ERR_SHAPE, "type f32");
    call.input[0].tensor = eq_tensor_plain(EQ_F32, 4, 3, 2, 1);
    eq_check_call_refused(&call, EQ_ERR_SHAPE, "[4, 3, 2, 1]");
}

EQ_CHECK_SUITE(test_suite_softmax_xent, "softmax_xent", { "refused", test_refused, 0 })

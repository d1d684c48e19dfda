// Fully connected layers that are refused. What is computed is checked in src/verify/linear.c.
#include "verify/check.h"

static void test_refused(int index)
{
    (void)index;
    const float value = 0;
    struct eq_check_call call = { .name = "channels",
                                  .op = &eq_op_linear,
                                  .num_inputs = 3,
                                  .input = { { eq_tensor_plain(EQ_F32, 2, 8, 1, 1), &value, false },
                                             { eq_tensor_plain(EQ_F32, 5, 9, 1, 1), &value, false },
                                             { eq_tensor_vector(5), &value, false } } };
    eq_check_call_refused(&call, EQ_ERR_SHAPE, "8 channels, the weight [5, 9]");
    call.input[1].tensor = eq_tensor_plain(EQ_F32, 5, 8, 1, 1);
    call.input[2].tensor = eq_tensor_vector(4);
    eq_check_call_refused(&call, EQ_ERR_SHAPE, "4 elements");
    call.input[0].tensor = eq_tensor_plain(EQ_F32, 2, 8, 3, 3);
    eq_check_call_refused(&call, EQ_ERR_SHAPE, "[2, 8, 3, 3]");
    call.op = &eq_op_linear_grad;
    call.input[0].tensor = eq_tensor_plain(EQ_F32, 2, 8, 1, 1);
    call.input[2].tensor = eq_tensor_plain(EQ_F32, 2, 6, 1, 1);
    eq_check_call_refused(&call, EQ_ERR_SHAPE, "the gradient is [2, 6], not [2, 5]");
}

EQ_CHECK_SUITE(test_suite_linear, "linear", { "refused", test_refused, 0 })

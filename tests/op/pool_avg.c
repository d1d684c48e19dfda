// Mean pooling that is refused. What is computed is checked in src/verify/pool_avg.c.
#include "verify/check.h"

static void test_refused(int index)
{
    (void)index;
    const float value = 0;
    const struct eq_pool_avg_grad_attributes attributes = { 0, 3 };
    const int other = eq_check_device->target.block == 16 ? 8 : 16;
    struct eq_check_call call = { .name = "plain",
                                  .op = &eq_op_pool_avg,
                                  .num_inputs = 1,
                                  .input = { { eq_tensor_plain(EQ_F32, 2, 3, 4, 5), &value, false } } };
    eq_check_call_refused(&call, EQ_ERR_SHAPE, "[2, 3, 4, 5]");
    call.input[0].tensor = eq_tensor_blocked(2, 3, 4, 5, other, 0);
    eq_check_call_refused(&call, EQ_ERR_UNSUPPORTED, "in blocks of");
    call = (struct eq_check_call){ .name = "gradient",
                                   .op = &eq_op_pool_avg_grad,
                                   .attributes = &attributes,
                                   .num_inputs = 1,
                                   .input = { { eq_tensor_plain(EQ_F32, 2, 3, 1, 1), &value, false } } };
    eq_check_call_refused(&call, EQ_ERR_ARGUMENT, "0 x 3 pixels");
    call.input[0].tensor = eq_tensor_plain(EQ_F32, 2, 3, 2, 1);
    eq_check_call_refused(&call, EQ_ERR_SHAPE, "[2, 3, 2, 1]");
}

EQ_CHECK_SUITE(test_suite_pool_avg, "pool_avg", { "refused", test_refused, 0 })

// Additions that are refused. What is computed is checked in src/verify/add.c.
#include "verify/check.h"

static void test_refused(int index)
{
    (void)index;
    const float value = 0;
    const int block = eq_check_device->target.block;
    struct eq_check_call call = { .name = "shapes",
                                  .op = &eq_op_add,
                                  .num_inputs = 2,
                                  .input = { { eq_tensor_blocked(2, 3, 4, 5, block, 0), &value, false },
                                             { eq_tensor_blocked(2, 3, 5, 4, block, 0), &value, false } } };
    eq_check_call_refused(&call, EQ_ERR_SHAPE, "[2, 3, 5, 4]");
    call.input[1].tensor = eq_tensor_plain(EQ_F32, 2, 3, 4, 5);
    eq_check_call_refused(&call, EQ_ERR_SHAPE, "in blocks of 0");
    call.input[0].tensor = eq_tensor_plain(EQ_I32, 2, 3, 4, 5);
    eq_check_call_refused(&call, EQ_ERR_SHAPE, "i32");
}

EQ_CHECK_SUITE(test_suite_add, "add", { "refused", test_refused, 0 })

// Maximum pooling that is refused. What is computed is checked in src/verify/pool_max.c.
#include "verify/check.h"

static void test_refused(int index)
{
    (void)index;
    static const struct {
        struct eq_pool_max_attributes a;
        eq_status status;
        const char *part;
    } rows[] = {
        { { 0, 3, 1, 1, 0, 0 }, EQ_ERR_ARGUMENT, "window 0 x 3" },
        { { 3, 3, 1, -1, 0, 0 }, EQ_ERR_ARGUMENT, "stride 1 x -1" },
        { { 3, 3, 1, 1, 3, 0 }, EQ_ERR_ARGUMENT, "padding is 3 x 0" },
        { { 3, 3, 1, 1, 0, -1 }, EQ_ERR_ARGUMENT, "padding is 0 x -1" },
        { { 3, 9, 1, 1, 0, 0 }, EQ_ERR_SHAPE, "3 x 9, the padded image only 7 x 8" },
    };
    const int block = eq_check_device->target.block;
    const float value = 0;
    const struct eq_tensor x = eq_tensor_blocked(2, 3, 7, 8, block, 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct eq_check_call call = { .name = rows[i].part,
                                      .op = &eq_op_pool_max,
                                      .attributes = &rows[i].a,
                                      .num_inputs = 1,
                                      .input = { { x, &value, false } } };
        eq_check_call_refused(&call, rows[i].status, rows[i].part);
    }
    const struct eq_pool_max_grad_attributes a = { { 3, 3, 2, 2, 1, 1 }, 7, 8 };
    struct eq_tensor places = eq_tensor_blocked(2, 3, 4, 4, block, 0);
    struct eq_check_call call = { .name = "gradient",
                                  .op = &eq_op_pool_max_grad,
                                  .attributes = &a,
                                  .num_inputs = 3,
                                  .input = { { eq_tensor_blocked(2, 3, 4, 5, block, 0), &value, false },
                                             { places, &value, false } } };
    eq_check_call_refused(&call, EQ_ERR_SHAPE, "the gradient is 4 x 5, 7 x 8 pixels pool to 4 x 4");
    call.input[0].tensor = eq_tensor_blocked(2, 3, 4, 4, block, 0);
    eq_check_call_refused(&call, EQ_ERR_SHAPE, "not i32");
    call.input[1].tensor.dtype = EQ_I32;
    call.input[2] = (struct eq_check_input){ eq_tensor_blocked(2, 3, 7, 7, block, 0), &value, false };
    eq_check_call_refused(&call, EQ_ERR_SHAPE, "[2, 3, 7, 7], not [2, 3, 7, 8]");
    call.input[0].tensor = eq_tensor_plain(EQ_F32, 2, 3, 4, 4);
    eq_check_call_refused(&call, EQ_ERR_SHAPE, "not in blocks");
}

EQ_CHECK_SUITE(test_suite_pool_max, "pool_max", { "refused", test_refused, 0 })

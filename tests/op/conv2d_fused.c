// What is prepared, and what is refused. What is computed is checked in src/verify/conv2d_fused.c.
#include "verify/check.h"

// Every filter that is needed as it is stored says so, and every other one is another size.
static void test_prepares(int index)
{
    (void)index;
    struct eq_target target = eq_target_default();
    const struct eq_tensor x = eq_tensor_blocked(16, 64, 56, 56, target.block, 0),
                           w = eq_conv2d_weight(&target, &x, 64, 3, 3, 1);
    static const enum eq_conv2d_algorithm algorithms[] = { EQ_CONV2D_DIRECT, EQ_CONV2D_WINOGRAD_2, EQ_CONV2D_WINOGRAD_4,
                                                           EQ_CONV2D_WINOGRAD_4_LATE };
    static const size_t points[] = { 9, 16, 36, 9 };
    for (int i = 0; i < 4; i++) {
        const struct eq_conv2d_prepare_attributes attributes = { { { 1, 1, 1, 1, .algorithm = algorithms[i] }, 64, 3, 3 }, x };
        struct eq_call call = { .op = &eq_op_conv2d_prepare,
                                .attributes = &attributes,
                                .target = &target,
                                .num_inputs = 1,
                                .has = { true },
                                .input = { w } };
        EQ_CHECK_OK(call.op->shape(&call));
        EQ_CHECK_INT(eq_tensor_elems(&call.output[0]), 64 * 64 * points[i]);
        EQ_CHECK_INT(eq_conv2d_fused_algorithm(&target, &attributes.fused, &x) != EQ_CONV2D_DIRECT, i > 0);
    }
    // One image of few tiles would read more transformed filters than there is to compute.
    const struct eq_tensor one = eq_tensor_blocked(1, 512, 7, 7, target.block, 0);
    const struct eq_conv2d_fused_attributes last = { { 1, 1, 1, 1 }, 512, 3, 3 };
    EQ_CHECK_INT(eq_conv2d_fused_algorithm(&target, &last, &one), EQ_CONV2D_WINOGRAD_4_LATE);
    const struct eq_conv2d_fused_attributes strided = { { 2, 2, 1, 1 }, 64, 3, 3 };
    EQ_CHECK_INT(eq_conv2d_fused_algorithm(&target, &strided, &x), EQ_CONV2D_DIRECT);
    // On GPUs the transforms have to be worth two more launches and a way through memory.
    const struct eq_conv2d_fused_attributes plain = { { 1, 1, 1, 1 }, 64, 3, 3 };
    const struct eq_tensor small = eq_tensor_blocked(1, 64, 14, 14, target.block, 0);
    target.family = EQ_FAMILY_SIMT;
    EQ_CHECK_INT(eq_conv2d_fused_algorithm(&target, &plain, &x), EQ_CONV2D_WINOGRAD_4);
    EQ_CHECK_INT(eq_conv2d_fused_algorithm(&target, &plain, &small), EQ_CONV2D_DIRECT);
}

static void test_refused(int index)
{
    (void)index;
    const struct eq_target *target = &eq_check_device->target;
    const struct eq_conv2d_fused_attributes fused = { { 1, 1, 1, 1, .algorithm = EQ_CONV2D_DIRECT, .groups = 1 }, 32, 3, 3 };
    const struct eq_tensor x = eq_tensor_blocked(2, 16, 14, 14, target->block, 0),
                           z = eq_tensor_blocked(2, 32, 14, 14, target->block, 0),
                           w = eq_conv2d_weight(target, &x, 32, 3, 3, 1), channels = eq_tensor_vector(32);
    const struct eq_tensor filter = eq_tensor_vector((int)eq_tensor_elems(&w)), bias = eq_tensor_vector(32);
    const struct eq_conv2d_prepare_attributes prepare = { fused, x, 1e-3f };
    struct eq_tensor other = w, small = z;
    other.n = 48;
    small.h--;
    const struct {
        const struct eq_op *op;
        const void *attributes;
        int num_inputs;
        struct eq_tensor input[5];
        const char *text;
    } rows[] = {
        { &eq_op_conv2d_prepare, &prepare, 1, { other }, "[48, 16, 3, 3], not [32, 16, 3, 3]" },
        { &eq_op_conv2d_prepare, &prepare, 2, { w, channels }, "0 elements, not 32" },
        { &eq_op_conv2d_prepare,
          &prepare,
          5,
          { w, channels, channels, eq_tensor_vector(31), channels },
          "31 elements, not 32" },
        { &eq_op_conv2d_fused, &fused, 3, { x, eq_tensor_vector(9), bias }, "9 elements, not 4608" },
        { &eq_op_conv2d_fused, &fused, 3, { x, filter, eq_tensor_vector(16) }, "16 elements, not 32" },
        { &eq_op_conv2d_fused, &fused, 4, { x, filter, bias, small }, "[2, 32, 13, 14]" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct eq_call call = {
            .op = rows[i].op, .attributes = rows[i].attributes, .target = target, .num_inputs = rows[i].num_inputs
        };
        for (int k = 0; k < rows[i].num_inputs; k++) {
            call.has[k] = true;
            call.input[k] = rows[i].input[k];
        }
        EQ_CHECK(call.op->shape(&call) == EQ_ERR_SHAPE && strstr(eq_last_error(), rows[i].text), "row %zu: %s", i,
                 eq_last_error());
    }
}

EQ_CHECK_SUITE(test_suite_conv2d_fused, "conv2d_fused", { "prepares", test_prepares, 0 }, { "refused", test_refused, 0 })

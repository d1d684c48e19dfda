// What conv2d_gated refuses. What it computes is checked in src/verify/conv2d_gated.c.
#include "op/conv2d_gated.h"

#include "verify/check.h"

static void test_refused(int index)
{
    (void)index;
    const struct eq_target target = eq_target_default();
    const struct eq_unit_attributes se = { .method = EQ_UNIT_SE, .hidden = 2, .bn_eps = 1e-5f }, bn = { .method = EQ_UNIT_BN };
    const struct {
        struct eq_conv2d_gated_attributes attributes;
        int ic, kernel;
        bool training, has_moments;
        eq_status status;
        const char *text;
    } rows[] = {
        { { { 1, 1, 0, 0 }, se, 32, 2 }, 16, 1, false, false, EQ_OK, "" },
        { { { 1, 1, 0, 0 }, se, 32, 2 }, 16, 1, true, false, EQ_ERR_UNSUPPORTED, "evaluates a gate" },
        { { { 1, 1, 1, 1 }, se, 32, 2 }, 16, 3, false, false, EQ_ERR_UNSUPPORTED, "not 3 x 3" },
        { { { 2, 1, 0, 0 }, se, 32, 2 }, 16, 1, false, false, EQ_ERR_UNSUPPORTED, "at 2 x 1" },
        { { { 1, 1, 0, 1 }, se, 32, 2 }, 16, 1, false, false, EQ_ERR_UNSUPPORTED, "padded by 0 and 1" },
        { { { 1, 1, 0, 0 }, se, 32, 2 }, 272, 1, false, false, EQ_ERR_UNSUPPORTED, "up to 256 input channels" },
        { { { 1, 1, 0, 0 }, bn, 32, 2 }, 16, 1, false, false, EQ_ERR_UNSUPPORTED, "evaluates a gate" },
        { { { 1, 1, 0, 0 }, se, 48, 2 }, 16, 1, false, false, EQ_ERR_SHAPE, "48 output channels, the filter has 32" },
        { { { 1, 1, 0, 0 }, se, 32, 0 }, 16, 1, false, false, EQ_ERR_ARGUMENT, "0 parts of 63 pixels" },
        { { { 1, 1, 0, 0 }, se, 32, 64 }, 16, 1, false, false, EQ_ERR_ARGUMENT, "64 parts of 63 pixels" },
        { { { 1, 1, 0, 0 }, se, 32, 2 }, 16, 1, false, true, EQ_ERR_ARGUMENT, "no moments" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct eq_call call = { .op = &eq_op_conv2d_gated,
                                .attributes = &rows[i].attributes,
                                .target = &target,
                                .training = rows[i].training,
                                .num_inputs = EQ_CONV2D_GATED_NUM_INPUTS };
        const struct eq_tensor x = eq_tensor_blocked(2, rows[i].ic, 9, 7, target.block, 0);
        const struct {
            int input;
            struct eq_tensor tensor;
        } given[] = { { EQ_CONV2D_GATED_X, x },
                      { EQ_CONV2D_GATED_FILTER, eq_conv2d_weight(&target, &x, 32, rows[i].kernel, rows[i].kernel, 1) },
                      { EQ_UNIT_GAMMA, eq_tensor_vector(32) },
                      { EQ_UNIT_BETA, eq_tensor_vector(32) },
                      { EQ_UNIT_MEAN, eq_tensor_vector(32) },
                      { EQ_UNIT_VAR, eq_tensor_vector(32) },
                      { EQ_UNIT_FC1, eq_tensor_vector(64) },
                      { EQ_UNIT_FC1_BIAS, eq_tensor_vector(2) },
                      { EQ_UNIT_FC2, eq_tensor_vector(64) },
                      { EQ_UNIT_FC2_BIAS, eq_tensor_vector(32) } };
        for (size_t k = 0; k < sizeof given / sizeof *given; k++) {
            call.has[given[k].input] = true;
            call.input[given[k].input] = given[k].tensor;
        }
        call.has[EQ_UNIT_MOMENTS] = rows[i].has_moments;
        EQ_CHECK(call.op->shape(&call) == rows[i].status, "row %zu gives another status: %s", i, eq_last_error());
        EQ_CHECK(rows[i].status == EQ_OK || strstr(eq_last_error(), rows[i].text), "row %zu: %s", i, eq_last_error());
    }
}

EQ_CHECK_SUITE(test_suite_conv2d_gated, "conv2d_gated", { "refused", test_refused, 0 })

// What convolutions refuse, cost and ask for, and the calls of their gradients. What they compute is checked in
// src/verify/conv2d.c.
#include "op/conv2d.h"
#include "verify/check.h"

// Above 4 MiB the CPU's weight gradient is cut for the cache, whatever the number of compute units.
static void test_weight_grad_large(int index)
{
    (void)index;
    const struct eq_target target = eq_target_default();
    const struct eq_conv2d_weight_grad_attributes attributes = { { 1, 1, 0, 0 }, 1, 1 };
    struct eq_call call = { .op = &eq_op_conv2d_weight_grad,
                            .attributes = &attributes,
                            .target = &target,
                            .num_inputs = 2,
                            .has = { true, true },
                            .input = { eq_tensor_blocked(8, 256, 56, 56, target.block, 0),
                                       eq_tensor_blocked(8, 64, 56, 56, target.block, 0) } };
    EQ_CHECK_OK(call.op->shape(&call));
    // 25088 pixels of 256 bytes in parts of at most 512 KiB
    EQ_CHECK_TRUE(eq_tensor_elems(&call.output[1]) >= 12 * 256 * 64);
    EQ_CHECK_TRUE(eq_tensor_elems(&call.output[1]) <= 16 * 256 * 64);
}

// Each row is a call that shape() refuses, with what its text must name.
static void test_refused(int index)
{
    (void)index;
    const struct eq_target target = eq_target_default();
    const struct eq_tensor x = eq_tensor_blocked(2, 32, 9, 7, target.block, 0);
    static const struct {
        struct eq_conv2d_attributes attributes;
        int ic, kh, kw;
        eq_status status;
        const char *text[2];
    } rows[] = {
        { { 1, 1, 1, 1 }, 48, 3, 3, EQ_ERR_SHAPE, { "32", "48" } },
        { { 0, 1, 1, 1 }, 32, 3, 3, EQ_ERR_ARGUMENT, { "0 x 1", "stride" } },
        { { 1, -2, 1, 1 }, 32, 3, 3, EQ_ERR_ARGUMENT, { "1 x -2", "stride" } },
        { { 1, 1, -1, 1 }, 32, 3, 3, EQ_ERR_ARGUMENT, { "-1 x 1", "padding" } },
        { { 1, 1, 1, 1 }, 32, 12, 3, EQ_ERR_SHAPE, { "12 x 3", "11 x 9" } },
        { { 1, 1, 0, 0 }, 32, 3, 8, EQ_ERR_SHAPE, { "3 x 8", "9 x 7" } },
        { { 1, 1, 1, 1, .groups = 3 }, 32, 3, 3, EQ_ERR_SHAPE, { "3 groups", "32 input and 64" } },
        { { 1, 1, 1, 1, .groups = -1 }, 32, 3, 3, EQ_ERR_ARGUMENT, { "-1", "groups" } },
        { { 2, 1, 1, 1, .algorithm = EQ_CONV2D_WINOGRAD_4 }, 32, 3, 3, EQ_ERR_UNSUPPORTED, { "2 x 1", "Winograd" } },
        { { 1, 1, 1, 1, .algorithm = EQ_CONV2D_WINOGRAD_2 }, 32, 1, 3, EQ_ERR_UNSUPPORTED, { "1 x 3", "Winograd" } },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct eq_call call = { .op = &eq_op_conv2d,
                                .attributes = &rows[i].attributes,
                                .target = &target,
                                .num_inputs = 2,
                                .has = { true, true },
                                .input = {
                                    x, eq_tensor_weight(64, rows[i].ic, rows[i].kh, rows[i].kw, target.block, target.block) } };
        EQ_CHECK(call.op->shape(&call) == rows[i].status, "row %zu gives another status: %s", i, eq_last_error());
        for (int t = 0; t < 2; t++)
            EQ_CHECK(strstr(eq_last_error(), rows[i].text[t]), "row %zu does not name %s: %s", i, rows[i].text[t],
                     eq_last_error());
    }
    const struct eq_conv2d_data_grad_attributes data = { { 1, 1, 1, 1 }, 9, 7 };
    struct eq_call call = { .op = &eq_op_conv2d_data_grad,
                            .attributes = &data,
                            .target = &target,
                            .num_inputs = 3,
                            .has = { true, true, false },
                            .input = { eq_tensor_blocked(2, 64, 8, 7, target.block, 0),
                                       eq_tensor_weight(64, 32, 3, 3, target.block, target.block) } };
    EQ_CHECK_INT(call.op->shape(&call), EQ_ERR_SHAPE);
    EQ_CHECK(strstr(eq_last_error(), "64 x 8 x 7") && strstr(eq_last_error(), "64 x 9 x 7"), "%s", eq_last_error());
    const struct eq_conv2d_weight_grad_attributes weight = { { 2, 2, 1, 1 }, 3, 3 };
    call = (struct eq_call){ .op = &eq_op_conv2d_weight_grad,
                             .attributes = &weight,
                             .target = &target,
                             .num_inputs = 2,
                             .has = { true, true },
                             .input = { x, eq_tensor_blocked(2, 64, 9, 7, target.block, 0) } };
    EQ_CHECK_INT(call.op->shape(&call), EQ_ERR_SHAPE);
    EQ_CHECK(strstr(eq_last_error(), "9 x 7") && strstr(eq_last_error(), "5 x 4"), "%s", eq_last_error());
}

// Gradients of filters whose transformed sums are more than an int counts: what is asked for is what is needed, and the fastest
// algorithm is one that has room.
static void test_large_workspaces(int index)
{
    (void)index;
    static const struct {
        int n, channels, size;
    } rows[] = {
        { 64, 1280, 64 }, { 256, 2048, 14 }, { 16, 512, 512 }, { 32, 1280, 64 }, { 1024, 512, 56 }, { 1024, 1024, 14 },
        { 256, 8192, 8 }, { 128, 512, 7 }, // the last: as ResNet-50 has it
    };
    int num_refused = 0;
    struct eq_target target = eq_target_default();
    target.family = EQ_FAMILY_SIMT;
    target.compute_units = 132;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int algorithm = EQ_CONV2D_AUTO; algorithm <= EQ_CONV2D_WINOGRAD_4; algorithm++) {
            const int n = rows[i].n, c = rows[i].channels, size = rows[i].size;
            const struct eq_conv2d_weight_grad_attributes attributes = { { 1, 1, 1, 1, .algorithm = algorithm }, 3, 3 };
            const struct eq_tensor x = eq_tensor_blocked(n, c, size, size, target.block, 0);
            struct eq_call call = { .op = &eq_op_conv2d_weight_grad, .attributes = &attributes, .target = &target,
                                    .num_inputs = 2, .has = { true, true }, .input = { x, x } };
            const struct eq_conv2d_shape s = { n, c, c, size, size, .is_weight_grad = true };
            const eq_status status = call.op->shape(&call);
            if (algorithm >= EQ_CONV2D_WINOGRAD_2) {
                const size_t elems = eq_conv2d_winograd_grad_elems(&target, algorithm, &s);
                EQ_CHECK(status == (elems <= 0x7fffffff ? EQ_OK : EQ_ERR_UNSUPPORTED), "row %zu: %s", i, eq_last_error());
                EQ_CHECK(status != EQ_OK || eq_tensor_elems(&call.output[1]) == elems, "row %zu asks for %zu of %zu floats", i,
                         eq_tensor_elems(&call.output[1]), elems);
                num_refused += status != EQ_OK;
            } else {
                EQ_CHECK(status == EQ_OK && eq_tensor_elems(&call.output[1]) <= 1 << 30, "row %zu: %zu floats, %s", i,
                         eq_tensor_elems(&call.output[1]), eq_last_error());
            }
        }
    EQ_CHECK(num_refused > 0, "no row has more sums than a workspace takes");
}

// Late transforms are evaluation's, on processors.
static void test_late_refused(int index)
{
    (void)index;
    struct eq_target target = eq_target_default();
    const struct eq_conv2d_attributes late = { 1, 1, 1, 1, .algorithm = EQ_CONV2D_WINOGRAD_4_LATE };
    const struct eq_conv2d_data_grad_attributes data = { late, 9, 7 };
    const struct eq_conv2d_weight_grad_attributes weight = { late, 3, 3 };
    const struct eq_tensor x = eq_tensor_blocked(2, 32, 9, 7, target.block, 0),
                           dz = eq_tensor_blocked(2, 64, 9, 7, target.block, 0), w = eq_conv2d_weight(&target, &x, 64, 3, 3, 1);
    const struct {
        const struct eq_op *op;
        const void *attributes;
        struct eq_tensor input[2];
        enum eq_family family;
        const char *text;
    } rows[] = {
        { &eq_op_conv2d, &late, { x, w }, EQ_FAMILY_SIMT, "late transforms on processors" },
        { &eq_op_conv2d_data_grad, &data, { dz, w }, EQ_FAMILY_VECTOR, "has no algorithm 4" },
        { &eq_op_conv2d_weight_grad, &weight, { x, dz }, EQ_FAMILY_VECTOR, "has no algorithm 4" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        target.family = rows[i].family;
        struct eq_call call = { .op = rows[i].op,
                                .attributes = rows[i].attributes,
                                .target = &target,
                                .num_inputs = 2,
                                .has = { true, true },
                                .input = { rows[i].input[0], rows[i].input[1] } };
        EQ_CHECK_INT(call.op->shape(&call), EQ_ERR_UNSUPPORTED);
        EQ_CHECK(strstr(eq_last_error(), rows[i].text), "row %zu: %s", i, eq_last_error());
    }
}

static void test_cost_and_halo(int index)
{
    (void)index;
    struct eq_target target = eq_target_default();
    const struct eq_conv2d_attributes attributes = { 2, 2, 3, 3 };
    const struct eq_tensor x = eq_tensor_blocked(2, 3, 224, 224, 1, 0);
    struct eq_call call = { .op = &eq_op_conv2d,
                            .attributes = &attributes,
                            .target = &target,
                            .num_inputs = 2,
                            .has = { true, true },
                            .input = { x, eq_conv2d_weight(&target, &x, 64, 7, 7, 1) } };
    EQ_CHECK_OK(call.op->shape(&call));
    EQ_CHECK_TRUE(call.op->cost(&call).flops == 2.0 * 2 * 64 * 112 * 112 * 3 * 49);
    EQ_CHECK_INT(call.op->halo(&call, 0), 3);
    EQ_CHECK_INT(call.op->halo(&call, 1), 0);
    target.family = EQ_FAMILY_SIMT;
    EQ_CHECK_INT(call.op->halo(&call, 0), 0);
    target.family = EQ_FAMILY_VECTOR;
    // A 5x5 filter with padding 1 reaches three pixels over the border of dz; with padding 4 none.
    for (int pad = 1; pad <= 4; pad += 3) {
        const struct eq_conv2d_data_grad_attributes data = { { 1, 1, pad, pad }, 8, 8 };
        call = (struct eq_call){ .op = &eq_op_conv2d_data_grad,
                                 .attributes = &data,
                                 .target = &target,
                                 .num_inputs = 3,
                                 .has = { true, true, false },
                                 .input = { eq_tensor_blocked(1, 16, 4 + 2 * pad, 4 + 2 * pad, target.block, 0),
                                            eq_tensor_weight(16, 16, 5, 5, target.block, target.block) } };
        EQ_CHECK_OK(call.op->shape(&call));
        EQ_CHECK_INT(call.op->halo(&call, 0), 4 - pad);
    }
}

// ---- gradient(): a tape that writes down what it is told

struct record {
    const struct eq_op *op[4];
    int inputs[4][3], given[4], given_input[4], num_calls, num_given, taken;
    struct eq_conv2d_weight_grad_attributes weight;
    struct eq_conv2d_data_grad_attributes data;
};

static eq_status record_call(struct eq_tape *tape, const struct eq_op *op, const void *attributes, const int *inputs,
                             int num_inputs, int *outputs)
{
    struct record *r = tape->graph;
    memcpy(r->inputs[r->num_calls], inputs, sizeof(int) * (size_t)num_inputs);
    if (op == &eq_op_conv2d_weight_grad)
        memcpy(&r->weight, attributes, sizeof r->weight);
    else
        memcpy(&r->data, attributes, sizeof r->data);
    outputs[0] = 100 + r->num_calls;
    outputs[1] = 200 + r->num_calls;
    r->op[r->num_calls++] = op;
    return EQ_OK;
}

static int record_take(struct eq_tape *tape, int input)
{
    EQ_CHECK_INT(input, 0);
    return ((struct record *)tape->graph)->taken;
}

static eq_status record_give(struct eq_tape *tape, int input, int value)
{
    struct record *r = tape->graph;
    r->given_input[r->num_given] = input;
    r->given[r->num_given++] = value;
    return EQ_OK;
}

static void test_gradient(int index)
{
    (void)index;
    const struct eq_target target = eq_target_default();
    const struct eq_conv2d_attributes attributes = { 2, 2, 1, 1 };
    struct eq_call call = { .op = &eq_op_conv2d,
                            .attributes = &attributes,
                            .target = &target,
                            .num_inputs = 2,
                            .has = { true, true },
                            .input = { eq_tensor_blocked(1, 16, 9, 8, target.block, 0),
                                       eq_tensor_weight(16, 16, 3, 3, target.block, target.block) } };
    EQ_CHECK_OK(call.op->shape(&call));
    struct record r = { .taken = 77 };
    struct eq_tape tape = { .graph = &r,
                            .input = { 5, 6 },
                            .output = { 7, 8 },
                            .output_grad = { 9, EQ_NO_VALUE },
                            .wants = { true, true },
                            .call = record_call,
                            .take = record_take,
                            .give = record_give };
    EQ_CHECK_OK(call.op->gradient(&call, &tape));
    EQ_CHECK_INT(r.num_calls, 2);
    EQ_CHECK_INT(r.num_given, 2);
    for (int i = 0; i < 2; i++) {
        const bool is_weight = r.op[i] == &eq_op_conv2d_weight_grad;
        EQ_CHECK_INT(r.inputs[i][0], is_weight ? 5 : 9);
        EQ_CHECK_INT(r.inputs[i][1], is_weight ? 9 : 6);
        if (!is_weight)
            EQ_CHECK_INT(r.inputs[i][2], 77);
        EQ_CHECK_INT(r.given_input[i], is_weight ? 1 : 0);
        EQ_CHECK_INT(r.given[i], 100 + i);
    }
    EQ_CHECK_INT(r.data.ih, 9);
    EQ_CHECK_INT(r.data.iw, 8);
    EQ_CHECK_INT(r.weight.kh, 3);
    EQ_CHECK_INT(r.weight.conv.stride_h, 2);
    tape.wants[0] = false;
    r = (struct record){ .taken = EQ_NO_VALUE };
    EQ_CHECK_OK(call.op->gradient(&call, &tape));
    EQ_CHECK_TRUE(r.num_calls == 1 && r.op[0] == &eq_op_conv2d_weight_grad);
}

EQ_CHECK_SUITE(test_suite_conv2d, "conv2d", { "large weight gradient", test_weight_grad_large, 0 },
               { "refused", test_refused, 0 }, { "large workspaces", test_large_workspaces, 0 },
               { "late, refused", test_late_refused, 0 }, { "cost and halo", test_cost_and_halo, 0 },
               { "gradient", test_gradient, 0 })

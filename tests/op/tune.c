// The tuner rejects every candidate that computes something else, and takes one that is faster.
//
// The first op under test copies its input; a candidate says how. Steps are fills and copies, so no kernel is needed.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "op/tune.h"
#include "support.h"

enum {
    SLOW, FAST, EMPTY, WRONG_ONE, NOT_A_NUMBER, INFINITE, HALF, BEYOND, BEFORE, WORKSPACE_BEYOND, TOUCHES_INPUT, BREAKS,
    NUM_WAYS
};
enum { COPIES_SLOW = 40 };

static int default_way = SLOW;
static double expect_offset;

static eq_status shape(struct eq_call *call)
{
    call->num_outputs = 2;
    call->output[0] = call->input[0];
    call->output[1] = eq_tensor_vector(64);
    return EQ_OK;
}

static bool is_way(const int *values, const void *user)
{
    (void)user;
    return values[0] >= 0 && values[0] < NUM_WAYS;
}

static eq_status emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    const size_t elems = eq_tensor_elems(&call->output[0]);
    int way = default_way;
    eq_tuning_choose(call->target->tuning, "copy", &way, 1, is_way, NULL);
    for (int i = 0; way == SLOW && i < COPIES_SLOW; i++)
        EQ_TRY(eq_list_copy(list, in[0], out[0], elems));
    if (way == BREAKS)
        return eq_fail(EQ_ERR_BUILD, "this one does not compile");
    if (way == SLOW || way == EMPTY)
        return EQ_OK;
    EQ_TRY(eq_list_copy(list, in[0], out[0], way == HALF ? elems / 2 : elems));
    if (way == WRONG_ONE)
        EQ_TRY(eq_list_fill(list, eq_ref_plus(out[0], elems / 3), 0.25f, 1));
    if (way == NOT_A_NUMBER)
        EQ_TRY(eq_list_fill(list, eq_ref_plus(out[0], elems - 1), NAN, 1));
    if (way == INFINITE)
        EQ_TRY(eq_list_fill(list, eq_ref_plus(out[0], 5), INFINITY, 1));
    if (way == BEYOND)
        EQ_TRY(eq_list_fill(list, eq_ref_plus(out[0], elems), 0, 1));
    if (way == BEFORE)
        EQ_TRY(eq_list_fill(list, eq_ref_at(out[0].buffer, out[0].at - 1), 0, 1));
    if (way == WORKSPACE_BEYOND)
        EQ_TRY(eq_list_fill(list, eq_ref_plus(out[1], 60), 0, 5));
    if (way == TOUCHES_INPUT)
        EQ_TRY(eq_list_fill(list, eq_ref_plus(in[0], 7), 3, 1));
    return EQ_OK;
}

static double expect(const struct eq_call *call, const float *const *inputs, size_t index, double *magnitude)
{
    (void)call;
    *magnitude = fabs((double)inputs[0][index]);
    return (double)inputs[0][index] + expect_offset;
}

static const struct eq_op op_copy = { .name = "copy", .shape = shape, .emit = emit, .expect = expect };

// The outcome of the candidates, on `elems` numbers.
static eq_status choose(const int *ways, int num, int elems, struct eq_tune_outcome *outcome)
{
    struct eq_call call = { .op = &op_copy, .target = &eq_test_device->target, .num_inputs = 1, .has = { true } };
    struct eq_tunable tunable = { .key = "copy", .names = { "way" }, .num_values = 1, .num_candidates = num };
    const struct eq_target before = eq_test_device->target;
    call.input[0] = eq_tensor_vector(elems);
    EQ_TEST_OK(shape(&call));
    tunable.candidates = calloc((size_t)num, sizeof *tunable.candidates);
    ck_assert_ptr_nonnull(tunable.candidates);
    for (int i = 0; i < num; i++)
        tunable.candidates[i][0] = ways[i];
    const struct eq_tune_job job = { .device = eq_test_device, .call = &call, .is_result = { true }, .seconds = 0.1 };
    const eq_status status = eq_tune_choice(&job, &tunable, outcome);
    free(tunable.candidates);
    ck_assert_mem_eq(&before, &eq_test_device->target, sizeof before); // put back
    return status;
}

static int num_elems(void)
{
    return eq_test_is_tiny() ? 500 : 300000;
}

static const struct {
    int way;
    const char *part; // of the reason
} faults[] = {
    { EMPTY, "element 0 of" }, { WRONG_ONE, "is 0.25" },
    { NOT_A_NUMBER, "nan" },   { INFINITE, "element 5 of" },
    { HALF, "nan" },           { BEYOND, "beyond output 0" },
    { BEFORE, "before output 0" }, { WORKSPACE_BEYOND, "beyond output 1" },
    { TOUCHES_INPUT, "writes input 0" }, { BREAKS, "does not compile" },
};

// Every fault alone, faster than the default, is rejected, with its reason.
START_TEST(test_fault)
{
    struct eq_tune_outcome outcome;
    EQ_TEST_OK(choose((const int[]){ SLOW, faults[_i].way }, 2, num_elems(), &outcome));
    ck_assert_int_eq(outcome.candidate, 0);
    ck_assert_int_eq(outcome.num_rejected, 1);
    ck_assert_msg(strstr(outcome.rejected, faults[_i].part) != NULL, "way %d: %s", faults[_i].way, outcome.rejected);
}
END_TEST

// After all of them a good one still wins: inputs and canaries are as they were.
START_TEST(test_winner)
{
    int ways[NUM_WAYS];
    struct eq_tune_outcome outcome;
    ways[0] = SLOW;
    for (int i = FAST + 1; i < NUM_WAYS; i++)
        ways[i - 1] = i;
    ways[NUM_WAYS - 1] = FAST;
    EQ_TEST_OK(choose(ways, NUM_WAYS, num_elems(), &outcome));
    ck_assert_int_eq(outcome.num_rejected, NUM_WAYS - 2);
    if (eq_test_is_tiny()) // a simulator's times mean nothing
        return;
    ck_assert_int_eq(outcome.candidate, NUM_WAYS - 1);
    ck_assert(outcome.seconds > 0 && outcome.seconds < 0.98 * outcome.default_seconds);
}
END_TEST

// A slower candidate does not replace the default, nor does the same one.
START_TEST(test_loser)
{
    struct eq_tune_outcome outcome;
    default_way = FAST;
    EQ_TEST_OK(choose((const int[]){ FAST, SLOW, FAST, FAST }, 4, num_elems(), &outcome));
    default_way = SLOW;
    ck_assert_int_eq(outcome.num_rejected, 0);
    if (!eq_test_is_tiny())
        ck_assert_int_eq(outcome.candidate, 0);
}
END_TEST

// A default that is wrong by double precision, or not finite, ends the tuning.
START_TEST(test_wrong_default)
{
    struct eq_tune_outcome outcome;
    expect_offset = 0.01;
    ck_assert_int_eq(choose((const int[]){ SLOW, FAST }, 2, num_elems(), &outcome), EQ_ERR_NUMERIC);
    expect_offset = 0;
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "double precision"));
    default_way = EMPTY;
    ck_assert_int_eq(choose((const int[]){ SLOW, FAST }, 2, num_elems(), &outcome), EQ_ERR_NUMERIC);
    default_way = SLOW;
}
END_TEST

// ---- convolutions: every candidate that they offer computes the right thing

static const struct {
    const char *name;
    const struct eq_op *op;
    struct eq_conv2d_attributes conv;
    int n, ic, oc, h, w;
} convolutions[] = {
    { "odd", &eq_op_conv2d, { 2, 1, 1, 1, EQ_CONV2D_AUTO }, 2, 20, 37, 9, 11 },
    { "winograd", &eq_op_conv2d, { 1, 1, 1, 1, EQ_CONV2D_AUTO }, 2, 20, 37, 9, 11 },
    { "prepared", &eq_op_conv2d, { 1, 1, 1, 1, EQ_CONV2D_AUTO, 0, true }, 2, 20, 37, 9, 11 },
    { "odd", &eq_op_conv2d_data_grad, { 2, 2, 1, 1, EQ_CONV2D_AUTO }, 2, 20, 37, 9, 11 },
    { "odd", &eq_op_conv2d_weight_grad, { 2, 1, 1, 1, EQ_CONV2D_AUTO }, 2, 20, 37, 9, 11 },
    { "winograd", &eq_op_conv2d_weight_grad, { 1, 1, 1, 1, EQ_CONV2D_AUTO }, 2, 20, 37, 9, 11 },
};

// Shapes the call, with attributes in `data` or `weight` where it is a gradient.
static void shape_convolution(int c, struct eq_call *call, struct eq_conv2d_data_grad_attributes *data,
                              struct eq_conv2d_weight_grad_attributes *weight)
{
    const struct eq_conv2d_attributes *a = &convolutions[c].conv;
    const struct eq_target *target = &eq_test_device->target;
    const int block = target->block, n = convolutions[c].n, oh = (convolutions[c].h - 1) / a->stride_h + 1,
              ow = (convolutions[c].w - 1) / a->stride_w + 1;
    const struct eq_tensor x = eq_tensor_blocked(n, convolutions[c].ic, convolutions[c].h, convolutions[c].w, block, 0),
                           z = eq_tensor_blocked(n, convolutions[c].oc, oh, ow, block, 0),
                           w = eq_conv2d_weight(target, &x, convolutions[c].oc, 3, 3, 1);
    *call = (struct eq_call){ .op = convolutions[c].op, .target = target, .num_inputs = 2, .has = { true, true } };
    *data = (struct eq_conv2d_data_grad_attributes){ *a, x.h, x.w };
    *weight = (struct eq_conv2d_weight_grad_attributes){ *a, 3, 3 };
    call->attributes = a;
    call->input[0] = x;
    call->input[1] = w;
    if (call->op == &eq_op_conv2d_data_grad) {
        call->attributes = data;
        call->num_inputs = 3; // the third is absent
        call->input[0] = z;
    } else if (call->op == &eq_op_conv2d_weight_grad) {
        call->attributes = weight;
        call->input[1] = z;
    }
    EQ_TEST_OK(call->op->shape(call));
    for (int i = 0; i < 2; i++)
        if (call->input[i].form == EQ_FORM_BLOCKED)
            call->input[i].halo = call->op->halo ? call->op->halo(call, i) : 0;
}

START_TEST(test_convolution)
{
    struct eq_conv2d_data_grad_attributes data;
    struct eq_conv2d_weight_grad_attributes weight;
    struct eq_call call;
    struct eq_tunable choices[16] = { { .num_candidates = 0 } };
    int num = 0, num_tried = 0;
    if (eq_test_is_tiny()) // too many kernels for a simulator
        return;
    const int c = _i / 2, is_simt = _i % 2;
    eq_test_device->target.family = is_simt ? EQ_FAMILY_SIMT : EQ_FAMILY_VECTOR;
    if (is_simt && (convolutions[c].op == &eq_op_conv2d_weight_grad || strcmp(convolutions[c].name, "odd") != 0))
        return; // nothing is open there
    shape_convolution(c, &call, &data, &weight);
    EQ_TEST_OK(call.op->tunables(&call, choices, 16, &num));
    for (int i = 0; i < num; i++) {
        const struct eq_tune_job job = { .device = eq_test_device, .call = &call, .is_result = { true }, .seconds = 1e-3 };
        struct eq_tune_outcome outcome;
        if (choices[i].num_candidates > 1) {
            EQ_TEST_OK(eq_tune_choice(&job, &choices[i], &outcome));
            ck_assert_msg(outcome.num_rejected == 0, "%s: %s: %s", convolutions[c].name, choices[i].key, outcome.rejected);
            num_tried += choices[i].num_candidates;
        }
        free(choices[i].candidates);
    }
    ck_assert_int_gt(num_tried, 3);
}
END_TEST

static int num_warnings;
static void count_warning(void *user, enum eq_log_level level, const char *text)
{
    (void)user;
    num_warnings += level == EQ_LOG_WARNING && strstr(text, "cannot be") != NULL;
}

// Values of a file that no kernel can have are named, and do no harm.
START_TEST(test_bad_values)
{
    struct eq_conv2d_data_grad_attributes data;
    struct eq_conv2d_weight_grad_attributes weight;
    struct eq_call call;
    struct eq_tunable choices[16] = { { .num_candidates = 0 } };
    struct eq_tuning *tuning;
    struct eq_tune_outcome outcome;
    int num = 0;
    if (eq_test_is_tiny())
        return;
    eq_test_device->target.family = EQ_FAMILY_VECTOR;
    EQ_TEST_OK(eq_tuning_create(&tuning));
    shape_convolution(_i, &call, &data, &weight);
    EQ_TEST_OK(call.op->tunables(&call, choices, 16, &num));
    for (int i = 0; i < num; i++)
        EQ_TEST_OK(eq_tuning_set(tuning, choices[i].key, (const int[EQ_TUNE_MAX_VALUES]){ 1000, -7, 0, 1 << 30 },
                                 choices[i].num_values, ""));
    struct eq_tunable only = { .key = "unused", .names = { "value" }, .num_values = 1 };
    EQ_TEST_OK(eq_tuning_set(tuning, "unused", (const int[]){ 1 }, 1, ""));
    only.num_candidates = 1;
    only.candidates = calloc(1, sizeof *only.candidates);
    const struct eq_tune_job job = { .device = eq_test_device, .call = &call, .is_result = { true }, .tuning = tuning,
                                     .seconds = 1e-3 };
    num_warnings = 0;
    eq_log_set(count_warning, NULL, EQ_LOG_WARNING);
    EQ_TEST_OK(eq_tune_choice(&job, &only, &outcome)); // verified
    eq_log_set(NULL, NULL, EQ_LOG_WARNING);
    ck_assert_int_ge(num_warnings, 1);
    for (int i = 0; i < num; i++)
        free(choices[i].candidates);
    free(only.candidates);
    eq_tuning_destroy(&tuning);
}
END_TEST

EQ_TEST_MAIN("tune", { test_fault, sizeof faults / sizeof *faults }, { test_winner, 0 }, { test_loser, 0 },
             { test_wrong_default, 0 }, { test_convolution, 2 * (sizeof convolutions / sizeof *convolutions) },
             { test_bad_values, sizeof convolutions / sizeof *convolutions })

// The tuner rejects every candidate that computes something else, and takes one that is faster.
//
// The first op under test copies its input; a candidate says how. Steps are fills and copies, so no kernel is needed.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "op/tune.h"
#include "verify/check.h"

enum {
    SLOW, FAST, EMPTY, WRONG_ONE, NOT_A_NUMBER, INFINITE, HALF, BEYOND, BEFORE, WORKSPACE_BEYOND, TOUCHES_INPUT, BREAKS,
    NUM_WAYS
};
enum { COPIES_SLOW = 200 }; // so many that a busy machine does not make the other way as slow

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
    struct eq_call call = { .op = &op_copy, .target = &eq_check_device->target, .num_inputs = 1, .has = { true } };
    struct eq_tunable tunable = { .key = "copy", .names = { "way" }, .num_values = 1, .num_candidates = num };
    const struct eq_target before = eq_check_device->target;
    call.input[0] = eq_tensor_vector(elems);
    EQ_CHECK_OK(shape(&call));
    tunable.candidates = calloc((size_t)num, sizeof *tunable.candidates);
    EQ_CHECK_TRUE(tunable.candidates != NULL);
    for (int i = 0; i < num; i++)
        tunable.candidates[i][0] = ways[i];
    const struct eq_tune_job job = { .device = eq_check_device, .call = &call, .is_result = { true }, .seconds = 0.1 };
    const eq_status status = eq_tune_choice(&job, &tunable, outcome);
    free(tunable.candidates);
    EQ_CHECK_TRUE(memcmp(&before, &eq_check_device->target, sizeof before) == 0); // put back
    return status;
}

static int num_elems(void)
{
    return eq_check_is_tiny() ? 500 : 300000;
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
    { NUM_WAYS, "values that it cannot have" }, // the default would be measured under its name
};

// Every fault alone, faster than the default, is rejected, with its reason.
static void test_fault(int index)
{
    struct eq_tune_outcome outcome;
    EQ_CHECK_OK(choose((const int[]){ SLOW, faults[index].way }, 2, num_elems(), &outcome));
    EQ_CHECK_INT(outcome.candidate, 0);
    EQ_CHECK_INT(outcome.num_rejected, 1);
    EQ_CHECK(strstr(outcome.rejected, faults[index].part) != NULL, "way %d: %s", faults[index].way, outcome.rejected);
}

// After all of them a good one still wins: inputs and canaries are as they were.
static void test_winner(int index)
{
    (void)index;
    int ways[NUM_WAYS];
    struct eq_tune_outcome outcome;
    ways[0] = SLOW;
    for (int i = FAST + 1; i < NUM_WAYS; i++)
        ways[i - 1] = i;
    ways[NUM_WAYS - 1] = FAST;
    EQ_CHECK_OK(choose(ways, NUM_WAYS, num_elems(), &outcome));
    EQ_CHECK_INT(outcome.num_rejected, NUM_WAYS - 2);
    if (eq_check_is_tiny()) // a simulator's times mean nothing
        return;
    EQ_CHECK_INT(outcome.candidate, NUM_WAYS - 1);
    EQ_CHECK_TRUE(outcome.seconds > 0 && outcome.seconds < 0.98 * outcome.default_seconds);
}

// A slower candidate does not replace the default.
static void test_loser(int index)
{
    (void)index;
    struct eq_tune_outcome outcome;
    default_way = FAST;
    EQ_CHECK_OK(choose((const int[]){ FAST, SLOW, SLOW, SLOW }, 4, num_elems(), &outcome));
    default_way = SLOW;
    EQ_CHECK_INT(outcome.num_rejected, 0);
    if (!eq_check_is_tiny())
        EQ_CHECK_INT(outcome.candidate, 0);
}

// A default that is wrong by double precision, or not finite, ends the tuning.
static void test_wrong_default(int index)
{
    (void)index;
    struct eq_tune_outcome outcome;
    expect_offset = 0.01;
    EQ_CHECK_INT(choose((const int[]){ SLOW, FAST }, 2, num_elems(), &outcome), EQ_ERR_NUMERIC);
    expect_offset = 0;
    EQ_CHECK_TRUE(strstr(eq_last_error(), "double precision") != NULL);
    default_way = EMPTY;
    EQ_CHECK_INT(choose((const int[]){ SLOW, FAST }, 2, num_elems(), &outcome), EQ_ERR_NUMERIC);
    default_way = SLOW;
}

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
    const struct eq_target *target = &eq_check_device->target;
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
    EQ_CHECK_OK(call->op->shape(call));
    for (int i = 0; i < 2; i++)
        if (call->input[i].form == EQ_FORM_BLOCKED)
            call->input[i].halo = call->op->halo ? call->op->halo(call, i) : 0;
}

// For processors, for GPUs, and for matrix units, which are emulated.
enum { ON_VECTORS, ON_SIMT, ON_MATRIX, NUM_UNITS };

// Each candidate is a program, and the tuner looks at what it computes again where it is used: of those for GPUs, of which a
// convolution has 135, a spread has to do, of the emulated ones a few. On a processor's own compiler all of its own are tried.
static void thin_out(struct eq_tunable *choice, int unit)
{
    const bool is_patient = eq_check_is_patient();
    const int most = unit == ON_MATRIX ? 4 : is_patient ? 32 : 8, num = choice->num_candidates;
    if (num <= most || (unit == ON_VECTORS && is_patient))
        return;
    for (int i = 0; i < most; i++) // the first and the last are among them
        memcpy(choice->candidates[i], choice->candidates[i * (num - 1) / (most - 1)], sizeof *choice->candidates);
    choice->num_candidates = most;
}

static void test_convolution(int index)
{
    struct eq_conv2d_data_grad_attributes data;
    struct eq_conv2d_weight_grad_attributes weight;
    struct eq_call call;
    struct eq_tunable choices[16] = { { .num_candidates = 0 } };
    int num = 0, num_tried = 0;
    if (eq_check_is_tiny()) // too many kernels for a simulator
        return;
    const int c = index / NUM_UNITS, unit = index % NUM_UNITS;
    struct eq_target *target = &eq_check_device->target;
    target->family = unit == ON_VECTORS ? EQ_FAMILY_VECTOR : EQ_FAMILY_SIMT;
    target->block = unit == ON_VECTORS ? target->block : 16;
    if (unit != ON_VECTORS && (convolutions[c].op == &eq_op_conv2d_weight_grad || strcmp(convolutions[c].name, "odd") != 0))
        return; // nothing is open there
    if (unit == ON_MATRIX) {
        target->matrix_unit = EQ_MATRIX_EMULATED;
        target->precision = convolutions[c].op == &eq_op_conv2d ? EQ_BF16 : EQ_TF32;
    }
    shape_convolution(c, &call, &data, &weight);
    EQ_CHECK_OK(call.op->tunables(&call, choices, 16, &num));
    for (int i = 0; i < num; i++) {
        thin_out(&choices[i], unit);
        const struct eq_tune_job job = { .device = eq_check_device, .call = &call, .is_result = { true }, .seconds = 1e-3 };
        struct eq_tune_outcome outcome;
        if (choices[i].num_candidates > 1) {
            EQ_CHECK_OK(eq_tune_choice(&job, &choices[i], &outcome));
            EQ_CHECK(outcome.num_rejected == 0, "%s: %s: %s", convolutions[c].name, choices[i].key, outcome.rejected);
            num_tried += choices[i].num_candidates;
        }
        free(choices[i].candidates);
    }
    const int least = unit == ON_MATRIX ? 2 : 4; // tiles of matrix units that fit a device are few
    EQ_CHECK(num_tried >= least, "%s: %d candidates", convolutions[c].name, num_tried);
}

static int num_warnings;
static void count_warning(void *user, enum eq_log_level level, const char *text)
{
    (void)user;
    num_warnings += level == EQ_LOG_WARNING && strstr(text, "cannot be") != NULL;
}

// Values of a file that no kernel can have are named, and do no harm.
static void test_bad_values(int index)
{
    struct eq_conv2d_data_grad_attributes data;
    struct eq_conv2d_weight_grad_attributes weight;
    struct eq_call call;
    struct eq_tunable choices[16] = { { .num_candidates = 0 } };
    struct eq_tuning *tuning;
    struct eq_tune_outcome outcome;
    int num = 0;
    if (eq_check_is_tiny())
        return;
    eq_check_device->target.family = EQ_FAMILY_VECTOR;
    EQ_CHECK_OK(eq_tuning_create(&tuning));
    shape_convolution(index, &call, &data, &weight);
    EQ_CHECK_OK(call.op->tunables(&call, choices, 16, &num));
    for (int i = 0; i < num; i++)
        EQ_CHECK_OK(eq_tuning_set(tuning, choices[i].key, (const int[EQ_TUNE_MAX_VALUES]){ 1000, -7, 0, 1 << 30 },
                                  choices[i].num_values, ""));
    struct eq_tunable only = { .key = "unused", .names = { "value" }, .num_values = 1 };
    EQ_CHECK_OK(eq_tuning_set(tuning, "unused", (const int[]){ 1 }, 1, ""));
    only.num_candidates = 1;
    only.candidates = calloc(1, sizeof *only.candidates);
    const struct eq_tune_job job = {
        .device = eq_check_device, .call = &call, .is_result = { true }, .tuning = tuning, .seconds = 1e-3
    };
    num_warnings = 0;
    eq_log_set(count_warning, NULL, EQ_LOG_WARNING);
    EQ_CHECK_OK(eq_tune_choice(&job, &only, &outcome)); // verified
    eq_log_set(NULL, NULL, EQ_LOG_WARNING);
    EQ_CHECK_TRUE(num_warnings >= 1);
    for (int i = 0; i < num; i++)
        free(choices[i].candidates);
    free(only.candidates);
    eq_tuning_destroy(&tuning);
}

static const int most_sums[] = { 1, 6, 0 }; // the last cannot be

// A limit of the tuning for all shapes is the default's, not the candidates'.
static void test_most_sums(int index)
{
    struct eq_conv2d_data_grad_attributes data;
    struct eq_conv2d_weight_grad_attributes weight;
    struct eq_call call;
    struct eq_tuning *tuning;
    char key[EQ_TUNE_MAX_KEY];
    int product[2] = { 0, 0 }, num_beyond = 0;
    eq_check_device->target.family = EQ_FAMILY_VECTOR;
    snprintf(key, sizeof key, "conv2d_vector_sums block=%d", eq_check_device->target.block);
    EQ_CHECK_OK(eq_tuning_create(&tuning));
    EQ_CHECK_OK(eq_tuning_set(tuning, key, &most_sums[index], 1, ""));
    shape_convolution(0, &call, &data, &weight);
    for (int with = 0; with < 2; with++) {
        struct eq_tunable choices[16] = { { .num_candidates = 0 } };
        int num = 0;
        eq_check_device->target.tuning = with ? tuning : NULL;
        EQ_CHECK_OK(call.op->tunables(&call, choices, 16, &num));
        for (int i = 0; i < num; i++) {
            for (int k = 0; k < choices[i].num_candidates && strncmp(choices[i].key, "conv2d_vector ", 14) == 0; k++) {
                const int sums = choices[i].candidates[k][0] * choices[i].candidates[k][1];
                product[with] = k == 0 ? sums : product[with];
                num_beyond += with && sums > most_sums[index];
            }
            free(choices[i].candidates);
        }
    }
    EQ_CHECK(product[0] > 6, "without a limit %d sums", product[0]);
    EQ_CHECK_TRUE(num_beyond > 0);
    if (most_sums[index] > 0)
        EQ_CHECK(product[1] >= 1 && product[1] <= most_sums[index], "%d sums, at most %d", product[1], most_sums[index]);
    else
        EQ_CHECK_INT(product[1], product[0]);
    eq_tuning_destroy(&tuning);
}

EQ_CHECK_SUITE(test_suite_tune, "tune", { "fault", test_fault, sizeof faults / sizeof *faults }, { "winner", test_winner, 0 },
               { "loser", test_loser, 0 }, { "wrong default", test_wrong_default, 0 },
               { "convolution", test_convolution, NUM_UNITS * (sizeof convolutions / sizeof *convolutions) },
               { "bad values", test_bad_values, sizeof convolutions / sizeof *convolutions },
               { "most sums", test_most_sums, sizeof most_sums / sizeof *most_sums })

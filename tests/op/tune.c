// The tuner rejects every candidate that computes something else, and takes one that is faster.
//
// The op under test copies its input; a candidate says how. Steps are fills and copies, so no kernel is needed.
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

EQ_TEST_MAIN("tune", { test_fault, sizeof faults / sizeof *faults }, { test_winner, 0 }, { test_loser, 0 },
             { test_wrong_default, 0 })

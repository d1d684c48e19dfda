// Do the checks of src/verify fail where something is wrong? Ops that break each rule, references that are wrong on purpose,
// and what the sink is told of them.
#include <math.h>
#include <stdlib.h>

#include "support.h"

enum { ELEMS = 12 };

static struct eq_check_event last_failure, last_comparison;
static int num_begun, num_compared, num_failed;

static void take(void *user, const struct eq_check_event *event)
{
    (void)user;
    num_begun += event->kind == EQ_CHECK_BEGINS;
    num_compared += event->kind == EQ_CHECK_COMPARED;
    num_failed += event->kind == EQ_CHECK_FAILED;
    if (event->kind == EQ_CHECK_COMPARED)
        last_comparison = *event;
    if (event->kind == EQ_CHECK_FAILED)
        last_failure = *event;
}

static bool is_patient = true;

// Runs a suite of the function alone; returns the number of failures.
static int run(void (*function)(int index), enum eq_check_level level)
{
    const struct eq_check_entry entry = { "entry", function, 0 };
    const struct eq_check_suite suite = { "suite", &entry, 1 };
    num_begun = num_compared = num_failed = 0;
    last_failure = last_comparison = (struct eq_check_event){ .block = 0 };
    eq_check_use(eq_test_device, &(struct eq_check_params){ .level = level, .is_patient = is_patient, .sink = take });
    const int failures = eq_check_run(&suite);
    ck_assert_int_eq(failures, num_failed);
    return failures;
}

// ---- an op that copies its input, or breaks a rule

static enum {
    RIGHT,
    BEYOND,
    COPIES_BEYOND,
    ADDS_BEYOND,
    BEFORE,
    UNWRITTEN,
    TOUCHES_INPUT,
    CHANGES,
    CHANGES_STATE,
    REFUSES,
    NUM_WAYS
} way;
static struct eq_buffer *memory; // what CHANGES gives next

static eq_status shape(struct eq_call *call)
{
    if (way == REFUSES)
        return eq_fail(EQ_ERR_SHAPE, "no such shape");
    call->num_outputs = 1;
    call->output[0] = call->input[0];
    return EQ_OK;
}

static eq_status emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    (void)call;
    EQ_TRY(eq_list_copy(list, in[0], out[0], way == UNWRITTEN ? ELEMS - 1 : way == COPIES_BEYOND ? ELEMS + 1 : ELEMS));
    if (way == BEYOND)
        EQ_TRY(eq_list_fill(list, eq_ref_plus(out[0], ELEMS), 1, 1));
    if (way == BEFORE)
        EQ_TRY(eq_list_fill(list, eq_ref_at(out[0].buffer, 0), 1, 1));
    if (way == TOUCHES_INPUT)
        EQ_TRY(eq_list_fill(list, eq_ref_plus(in[0], 3), 7, 1));
    if (way == ADDS_BEYOND) // a canary and another canary
        EQ_TRY(eq_accumulate_emit(list, 1, eq_ref_plus(in[0], ELEMS), eq_ref_plus(out[0], ELEMS), 1, false));
    if (way == CHANGES || way == CHANGES_STATE) {
        EQ_TRY(eq_list_copy(list, eq_ref_at(memory, 0), eq_ref_plus(way == CHANGES ? out[0] : in[0], 5), 1));
        EQ_TRY(eq_list_fill(list, eq_ref_at(memory, 0), 2, 1));
    }
    return EQ_OK;
}

static const struct eq_op op_copy = { .name = "copy", .shape = shape, .emit = emit };

static double wrong_by; // the reference, at [1, 2, 0, 1]

static void check_copy(void *user)
{
    float x[ELEMS];
    double want[ELEMS];
    (void)user;
    for (int i = 0; i < ELEMS; i++)
        want[i] = x[i] = (float)(i + 1);
    want[11] += wrong_by;
    struct eq_check_call call = { .name = "case",
                                  .op = &op_copy,
                                  .num_inputs = 1,
                                  .input = { { eq_tensor_plain(EQ_F32, 2, 3, 1, 2), x, way == CHANGES_STATE } } };
    eq_check_call_run(&call);
    eq_check_close(&call, 0, want, NULL, 1e-6);
    eq_check_call_free(&call);
}

static void test_copy(int index)
{
    (void)index;
    check_copy(NULL);
}

static void test_variants(int index)
{
    (void)index;
    eq_check_each_variant(true, check_copy, NULL);
}

static void test_large_variants(int index)
{
    (void)index;
    eq_check_each_variant(false, check_copy, NULL);
}

// Nothing is wrong, and the events say what ran.
START_TEST(right)
{
    way = RIGHT;
    wrong_by = 0;
    ck_assert_int_eq(run(test_copy, EQ_CHECK_FULL), 0);
    ck_assert(num_begun == 1 && num_compared == 1);
    ck_assert_str_eq(last_comparison.op, "copy");
    ck_assert_str_eq(last_comparison.name, "case");
    ck_assert(last_comparison.num == ELEMS && last_comparison.error == 0 && last_comparison.ratio == 0);
}
END_TEST

START_TEST(variants)
{
    static const int wanted[] = { [EQ_CHECK_TINY] = 2, [EQ_CHECK_QUICK] = 1, [EQ_CHECK_FULL] = 4 };
    const struct eq_target before = eq_test_device->target;
    way = RIGHT;
    wrong_by = 0;
    ck_assert_int_eq(run(test_variants, (enum eq_check_level)_i), 0);
    ck_assert_int_eq(num_compared, wanted[_i]);
    ck_assert_int_eq(run(test_large_variants, (enum eq_check_level)_i), 0);
    ck_assert_int_eq(num_compared, _i == EQ_CHECK_QUICK ? 1 : 2);
    is_patient = false;
    ck_assert_int_eq(run(test_variants, (enum eq_check_level)_i), 0);
    ck_assert_int_eq(num_compared, _i == EQ_CHECK_FULL ? 2 : wanted[_i]);
    ck_assert_int_eq(run(test_large_variants, (enum eq_check_level)_i), 0);
    ck_assert_int_eq(num_compared, _i == EQ_CHECK_TINY ? 2 : 1);
    ck_assert(_i != EQ_CHECK_FULL || strcmp(last_comparison.kernels, "simt") == 0);
    is_patient = true;
    ck_assert_mem_eq(&before, &eq_test_device->target, sizeof before);
}
END_TEST

// One value of the reference is wrong: it is named, with both values, and the other variants are checked nevertheless.
START_TEST(wrong_value)
{
    static const double by[] = { 1, -0.01, NAN, INFINITY };
    way = RIGHT;
    wrong_by = by[_i];
    ck_assert_int_eq(run(test_variants, EQ_CHECK_FULL), 4);
    ck_assert_int_eq(num_compared, 4);
    ck_assert_str_eq(last_failure.what, "output 0");
    ck_assert_mem_eq(last_failure.index, ((int[4]){ 1, 2, 0, 1 }), sizeof last_failure.index);
    ck_assert(last_failure.got == 12 && last_failure.num_wrong == 1 && last_failure.num == ELEMS);
    ck_assert(isnan(wrong_by) ? isnan(last_failure.want) : last_failure.want == 12 + wrong_by);
    ck_assert_msg(last_failure.ratio > 1, "ratio %g", last_failure.ratio);
    ck_assert_msg(strstr(last_failure.text, "[1, 2, 0, 1] is 12"), "%s", last_failure.text);
}
END_TEST

// An error within the tolerance is none, and is kept.
START_TEST(within_tolerance)
{
    way = RIGHT;
    wrong_by = 6e-6; // of 1.2e-5
    ck_assert_int_eq(run(test_copy, EQ_CHECK_FULL), 0);
    ck_assert(last_comparison.ratio > 0.4 && last_comparison.ratio < 0.6);
    ck_assert(last_comparison.error > 4e-7 && last_comparison.error < 6e-7);
}
END_TEST

static const struct {
    int way;
    const char *text;
} faults[] = {
    { BEYOND, "canary after output 0 was written, element 0" },
    { COPIES_BEYOND, "canary after output 0 was written, element 0" },
    { ADDS_BEYOND, "canary after output 0 was written, element 0" },
    { BEFORE, "canary before input 0 was written, element 0" },
    { UNWRITTEN, "stored element 11 of 12 was not written" },
    { TOUCHES_INPUT, "input 0 was written, element 3" },
    { CHANGES, "two runs give other bits: stored element 5 of 12 is 1, then 2" },
    { CHANGES_STATE, "input 0: two runs give other bits: stored element 5 of 12 is 1, then 2" },
    { REFUSES, "no such shape" },
};

// A rule is broken: the case ends there, the others go on.
START_TEST(fault)
{
    const float first = 1;
    EQ_TEST_OK(eq_buffer_create_from(eq_test_device, &first, sizeof first, &memory));
    way = faults[_i].way;
    wrong_by = 0;
    ck_assert_int_eq(run(test_copy, EQ_CHECK_FULL), 1);
    ck_assert_msg(strstr(last_failure.text, faults[_i].text), "%s", last_failure.text);
    ck_assert_str_eq(last_failure.op, "copy");
    if (way != CHANGES && way != CHANGES_STATE) { // which differ only once
        ck_assert_int_eq(run(test_variants, EQ_CHECK_FULL), 4);
        ck_assert_int_eq(num_begun, 4);
    }
    eq_buffer_destroy(&memory);
}
END_TEST

static void test_bounds(int index)
{
    (void)index;
    eq_check_begin("op", "bounds");
    eq_check_bound("a norm", 1e-6, 1e-5);
    eq_check_bound("a norm", 1e-4, 1e-5);
    eq_check_bound("a norm", NAN, 1e-5);
}

static void test_norm(int index)
{
    const float got[] = { 3, 4.5f, 0 };
    const double want[] = { 3, 4, 0 };
    (void)index;
    eq_check_begin("op", "norm");
    eq_check_norm("values", got, want, 3, 0, 0.2); // 0.5 of 5
    eq_check_norm("values", got, want, 3, 0, 0.05);
}

START_TEST(bounds)
{
    ck_assert_int_eq(run(test_bounds, EQ_CHECK_FULL), 2);
    ck_assert_int_eq(num_compared, 3);
    ck_assert_int_eq(run(test_norm, EQ_CHECK_FULL), 1);
    ck_assert(fabs(last_failure.error - 0.1) < 1e-9 && fabs(last_failure.ratio - 2) < 1e-9);
    ck_assert(last_failure.index[3] == 1 && last_failure.got == 4.5 && last_failure.want == 4 && last_failure.num == 3);
}
END_TEST

// Every suite of the command has a name of its own and something to run.
START_TEST(suites)
{
    ck_assert_int_gt(eq_check_num_suites, 10);
    for (int i = 0; i < eq_check_num_suites; i++) {
        ck_assert_uint_gt(eq_check_suites[i]->num, 0);
        for (int k = 0; k < i; k++)
            ck_assert_str_ne(eq_check_suites[i]->name, eq_check_suites[k]->name);
    }
}
END_TEST

EQ_TEST_MAIN("check", { right, 0 }, { variants, 3 }, { wrong_value, 4 }, { within_tolerance, 0 },
             { fault, sizeof faults / sizeof *faults }, { bounds, 0 }, { suites, 0 })

// Steps of stochastic gradient descent against double, and what halts them. The steps are wrapped in an op, so that the
// harness can check what lies around.
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/support.h"

static const struct {
    const char *name;
    int elems, steps;
    float hyper[4]; // rate, momentum, weight decay, halt
    bool is_tiny;
} cases[] = {
    { "one", 1, 2, { 0.1f, 0.9f, 1e-4f }, true },
    { "odd", 77, 3, { 0.1f, 0.9f, 1e-4f }, true },
    { "no momentum", 64, 1, { 0.5f, 0, 0.01f }, true },
    { "rate 0", 5, 1, { 0, 0.9f, 1e-4f }, true },
    { "halted", 70, 2, { 0.1f, 0.9f, 1e-4f, 1 }, true },
    { "several chunks", 5001, 4, { 0.1f, 0.9f, 5e-4f }, false },
};
enum { NUM_CASES = sizeof cases / sizeof *cases };
enum { GRAD, WEIGHT, VELOCITY, HYPER };

static eq_status shape(struct eq_call *call)
{
    call->num_outputs = 0;
    return EQ_OK;
}

static eq_status emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    (void)out;
    return eq_sgd_emit(list, eq_tensor_elems(&call->input[GRAD]), in[WEIGHT], in[GRAD], in[VELOCITY], in[HYPER]);
}

static const struct eq_op op = { .name = "sgd", .shape = shape, .emit = emit };

// One step on the device and one in double; weight and velocity [elems] go from step to step.
static void step(int index, int number, float **weight, float **velocity, double *want_weight, double *want_velocity)
{
    const size_t elems = (size_t)cases[index].elems;
    const double rate = (double)cases[index].hyper[0], momentum = (double)cases[index].hyper[1],
                 decay = (double)cases[index].hyper[2];
    const struct eq_tensor t = eq_tensor_vector(cases[index].elems);
    float *grad = eq_test_uniform("grad", elems, (uint64_t)number);
    struct eq_test_call call = { .name = cases[index].name,
                                 .op = &op,
                                 .num_inputs = 4,
                                 .input = { { t, grad, false },
                                            { t, *weight, true },
                                            { t, *velocity, true },
                                            { eq_tensor_vector(4), cases[index].hyper, false } } };
    eq_test_call_run(&call);
    const bool is_halted = cases[index].hyper[3] != 0;
    for (size_t i = 0; i < elems && !is_halted; i++) {
        want_velocity[i] = momentum * want_velocity[i] + grad[i] + decay * want_weight[i];
        want_weight[i] -= rate * want_velocity[i];
    }
    free(*weight);
    free(*velocity);
    *weight = call.after[WEIGHT];
    *velocity = call.after[VELOCITY];
    call.after[WEIGHT] = call.after[VELOCITY] = NULL;
    eq_test_call_free(&call);
    free(grad);
}

START_TEST(test_values)
{
    if (eq_test_is_tiny() && !cases[_i].is_tiny)
        return;
    const size_t elems = (size_t)cases[_i].elems;
    const struct eq_tensor t = eq_tensor_vector(cases[_i].elems);
    for (int v = 0; v < eq_test_num_variants(false); v++) {
        eq_test_variant(v);
        float *weight = eq_test_uniform("weight", elems, 0), *velocity = eq_test_uniform("velocity", elems, 0);
        double *want_weight = calloc(elems, sizeof *want_weight), *want_velocity = calloc(elems, sizeof *want_velocity);
        for (size_t i = 0; i < elems; i++) {
            want_weight[i] = weight[i];
            want_velocity[i] = velocity[i];
        }
        for (int s = 0; s < cases[_i].steps; s++)
            step(_i, s, &weight, &velocity, want_weight, want_velocity);
        // Each step rounds each value about three times; they stay of size 1 to 4, of size 0.01 at least for a single element.
        eq_test_values_close("sgd, weight", cases[_i].name, &t, weight, want_weight, NULL, 64 * 0x1p-24);
        eq_test_values_close("sgd, velocity", cases[_i].name, &t, velocity, want_velocity, NULL, 64 * 0x1p-24);
        free(weight);
        free(velocity);
        free(want_weight);
        free(want_velocity);
    }
}
END_TEST

static eq_status guard_emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    (void)out;
    return eq_sgd_guard_emit(list, eq_tensor_elems(&call->input[0]), in[0], in[1]);
}

static const struct eq_op guard = { .name = "sgd_guard", .shape = shape, .emit = guard_emit };

static const struct {
    const char *name;
    int num, at; // where the value is, among ones
    float value, before, after; // halt
} guards[] = {
    { "all good", 5, 0, -3, 0, 0 },          { "good, largest", 3, 1, FLT_MAX, 0, 0 }, { "NaN first", 64, 0, NAN, 0, 1 },
    { "infinity last", 33, 32, INFINITY, 0, 1 }, { "minus infinity", 1, 0, -INFINITY, 0, 1 }, { "sticky", 4, 0, 2, 1, 1 },
    { "again", 4, 2, -NAN, 1, 1 },
};

START_TEST(test_guard)
{
    for (int v = 0; v < eq_test_num_variants(true); v++) {
        float losses[64], hyper[4] = { 0.1f, 0.2f, 0.3f, guards[_i].before };
        eq_test_variant(v);
        for (int i = 0; i < guards[_i].num; i++)
            losses[i] = i == guards[_i].at ? guards[_i].value : 1;
        struct eq_test_call call = { .name = guards[_i].name,
                                     .op = &guard,
                                     .num_inputs = 2,
                                     .input = { { eq_tensor_vector(guards[_i].num), losses, false },
                                                { eq_tensor_vector(4), hyper, true } } };
        eq_test_call_run(&call);
        const float *after = call.after[1];
        ck_assert_msg(after[3] == guards[_i].after, "%s: halt is %g", guards[_i].name, (double)after[3]);
        ck_assert(memcmp(after, hyper, 3 * sizeof *hyper) == 0);
        eq_test_call_free(&call);
    }
}
END_TEST

START_TEST(test_refused)
{
    struct eq_list *list = NULL;
    EQ_TEST_OK(eq_list_create(eq_test_device, &list));
    ck_assert_int_eq(eq_sgd_emit(list, 0, EQ_REF_NONE, EQ_REF_NONE, EQ_REF_NONE, EQ_REF_NONE), EQ_ERR_UNSUPPORTED);
    ck_assert_int_eq(eq_sgd_emit(list, (size_t)1 << 31, EQ_REF_NONE, EQ_REF_NONE, EQ_REF_NONE, EQ_REF_NONE),
                     EQ_ERR_UNSUPPORTED);
    ck_assert_int_eq(eq_sgd_guard_emit(list, 0, EQ_REF_NONE, EQ_REF_NONE), EQ_ERR_UNSUPPORTED);
    ck_assert_int_eq(eq_list_length(list), 0);
    eq_list_destroy(&list);
}
END_TEST

EQ_TEST_MAIN("sgd", { test_values, NUM_CASES }, { test_guard, sizeof guards / sizeof *guards }, { test_refused, 0 })

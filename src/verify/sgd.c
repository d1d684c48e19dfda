// Steps of stochastic gradient descent against double, and what halts them. The steps are wrapped in an op, so that the
// harness can check what lies around.
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "verify/check.h"

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
    float *grad = eq_check_uniform("grad", elems, (uint64_t)number);
    struct eq_check_call call = { .name = cases[index].name,
                                  .op = &op,
                                  .num_inputs = 4,
                                  .input = { { t, grad, false },
                                             { t, *weight, true },
                                             { t, *velocity, true },
                                             { eq_tensor_vector(4), cases[index].hyper, false } } };
    eq_check_call_run(&call);
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
    eq_check_call_free(&call);
    free(grad);
}

static void check_variant(void *user)
{
    const int index = *(const int *)user;
    const size_t elems = (size_t)cases[index].elems;
    const struct eq_tensor t = eq_tensor_vector(cases[index].elems);
    float *weight = eq_check_uniform("weight", elems, 0), *velocity = eq_check_uniform("velocity", elems, 0);
    double *want_weight = eq_check_calloc(elems, sizeof *want_weight),
           *want_velocity = eq_check_calloc(elems, sizeof *want_velocity);
    for (size_t i = 0; i < elems; i++) {
        want_weight[i] = weight[i];
        want_velocity[i] = velocity[i];
    }
    for (int s = 0; s < cases[index].steps; s++)
        step(index, s, &weight, &velocity, want_weight, want_velocity);
    // Each step rounds each value about three times; they stay of size 1 to 4, of size 0.01 at least for a single element.
    eq_check_values_close("weight", &t, weight, want_weight, NULL, 64 * 0x1p-24);
    eq_check_values_close("velocity", &t, velocity, want_velocity, NULL, 64 * 0x1p-24);
    free(weight);
    free(velocity);
    free(want_weight);
    free(want_velocity);
}

static void test_values(int index)
{
    if (!eq_check_is_small() || cases[index].is_tiny)
        eq_check_each_variant(false, check_variant, &index);
}

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

static void check_guard(void *user)
{
    const int index = *(const int *)user;
    float losses[64], hyper[4] = { 0.1f, 0.2f, 0.3f, guards[index].before };
    for (int i = 0; i < guards[index].num; i++)
        losses[i] = i == guards[index].at ? guards[index].value : 1;
    struct eq_check_call call = { .name = guards[index].name,
                                  .op = &guard,
                                  .num_inputs = 2,
                                  .input = { { eq_tensor_vector(guards[index].num), losses, false },
                                             { eq_tensor_vector(4), hyper, true } } };
    eq_check_call_run(&call);
    const float *after = call.after[1];
    struct eq_check_comparison comparison = { .num = 0 };
    for (size_t i = 0; i < 4; i++)
        eq_check_compare_at(&comparison, i, (double)after[i], (double)(i < 3 ? hyper[i] : guards[index].after), 0);
    eq_check_compared(&comparison, "rate, momentum, weight decay, halt");
    eq_check_call_free(&call);
}

static void test_guard(int index)
{
    eq_check_each_variant(true, check_guard, &index);
}

EQ_CHECK_SUITE(eq_suite_sgd, "sgd", { "values", test_values, NUM_CASES },
               { "guard", test_guard, sizeof guards / sizeof *guards })

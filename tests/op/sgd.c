// Steps of stochastic gradient descent against double; what lies beside the parameters is not touched.
#include <math.h>
#include <stdlib.h>

#include "support/support.h"

static const struct {
    const char *name;
    int elems, steps;
    float hyper[3]; // rate, momentum, weight decay
    bool is_tiny;
} cases[] = {
    { "one", 1, 2, { 0.1f, 0.9f, 1e-4f }, true },
    { "odd", 77, 3, { 0.1f, 0.9f, 1e-4f }, true },
    { "no momentum", 64, 1, { 0.5f, 0, 0.01f }, true },
    { "rate 0", 5, 1, { 0, 0.9f, 1e-4f }, true },
    { "several chunks", 5001, 4, { 0.1f, 0.9f, 5e-4f }, false },
};
enum { NUM_CASES = sizeof cases / sizeof *cases, MARGIN = 3 };

// Runs the steps and reads weight and velocity, MARGIN elements on each side included.
static void run_steps(int index, const float *grad, float *weight, float *velocity)
{
    const size_t elems = (size_t)cases[index].elems, all = elems + 2 * MARGIN;
    struct eq_buffer *buffer = NULL;
    struct eq_list *list = NULL;
    EQ_TEST_OK(eq_buffer_create(eq_test_device, (3 * all + 3) * sizeof(float), &buffer));
    const struct eq_ref hyper = eq_ref_at(buffer, 3 * all), refs[] = { eq_ref_at(buffer, 0), eq_ref_at(buffer, all), eq_ref_at(buffer, 2 * all) };
    EQ_TEST_OK(eq_ref_write(hyper, cases[index].hyper, 3, sizeof(float)));
    EQ_TEST_OK(eq_ref_write(refs[0], grad, all, sizeof(float)));
    EQ_TEST_OK(eq_ref_write(refs[1], weight, all, sizeof(float)));
    EQ_TEST_OK(eq_ref_write(refs[2], velocity, all, sizeof(float)));
    EQ_TEST_OK(eq_list_create(eq_test_device, &list));
    EQ_TEST_OK(eq_sgd_emit(list, elems, eq_ref_plus(refs[1], MARGIN), eq_ref_plus(refs[0], MARGIN), eq_ref_plus(refs[2], MARGIN), hyper));
    for (int step = 0; step < cases[index].steps; step++)
        EQ_TEST_OK(eq_list_run(list));
    EQ_TEST_OK(eq_device_finish(eq_test_device));
    EQ_TEST_OK(eq_ref_read(refs[1], weight, all, sizeof(float)));
    EQ_TEST_OK(eq_ref_read(refs[2], velocity, all, sizeof(float)));
    eq_list_destroy(&list);
    eq_buffer_destroy(&buffer);
}

START_TEST(test_values)
{
    if (eq_test_is_tiny() && !cases[_i].is_tiny)
        return;
    const size_t elems = (size_t)cases[_i].elems, all = elems + 2 * MARGIN;
    const double rate = (double)cases[_i].hyper[0], momentum = (double)cases[_i].hyper[1], decay = (double)cases[_i].hyper[2];
    for (int v = 0; v < eq_test_num_variants(false); v++) {
        eq_test_variant(v);
        float *grad = eq_test_uniform("grad", all, 0), *weight = eq_test_uniform("weight", all, 0), *velocity = eq_test_uniform("velocity", all, 0);
        double *want_w = calloc(elems, sizeof *want_w), *want_v = calloc(elems, sizeof *want_v);
        float ends[4 * MARGIN];
        for (int i = 0; i < MARGIN; i++) {
            ends[i] = weight[i];
            ends[MARGIN + i] = weight[elems + MARGIN + (size_t)i];
            ends[2 * MARGIN + i] = velocity[i];
            ends[3 * MARGIN + i] = velocity[elems + MARGIN + (size_t)i];
        }
        for (size_t i = 0; i < elems; i++) {
            want_w[i] = weight[MARGIN + i];
            want_v[i] = velocity[MARGIN + i];
            for (int step = 0; step < cases[_i].steps; step++) {
                want_v[i] = momentum * want_v[i] + grad[MARGIN + i] + decay * want_w[i];
                want_w[i] -= rate * want_v[i];
            }
        }
        run_steps(_i, grad, weight, velocity);
        const struct eq_tensor t = eq_tensor_vector((int)elems);
        // Each step rounds each value about three times; they stay of size 1 to 4.
        eq_test_values_close("sgd", cases[_i].name, &t, weight + MARGIN, want_w, NULL, 4 * cases[_i].steps * 0x1p-24);
        eq_test_values_close("sgd", cases[_i].name, &t, velocity + MARGIN, want_v, NULL, 4 * cases[_i].steps * 0x1p-24);
        for (int i = 0; i < MARGIN; i++) {
            ck_assert(ends[i] == weight[i] && ends[MARGIN + i] == weight[elems + MARGIN + (size_t)i]);
            ck_assert(ends[2 * MARGIN + i] == velocity[i] && ends[3 * MARGIN + i] == velocity[elems + MARGIN + (size_t)i]);
        }
        free(grad);
        free(weight);
        free(velocity);
        free(want_w);
        free(want_v);
    }
}
END_TEST

START_TEST(test_refused)
{
    struct eq_list *list = NULL;
    EQ_TEST_OK(eq_list_create(eq_test_device, &list));
    ck_assert_int_eq(eq_sgd_emit(list, 0, EQ_REF_NONE, EQ_REF_NONE, EQ_REF_NONE, EQ_REF_NONE), EQ_ERR_UNSUPPORTED);
    ck_assert_int_eq(eq_sgd_emit(list, (size_t)1 << 31, EQ_REF_NONE, EQ_REF_NONE, EQ_REF_NONE, EQ_REF_NONE), EQ_ERR_UNSUPPORTED);
    ck_assert_int_eq(eq_list_length(list), 0);
    eq_list_destroy(&list);
}
END_TEST

EQ_TEST_MAIN("sgd", { test_values, NUM_CASES }, { test_refused, 0 })

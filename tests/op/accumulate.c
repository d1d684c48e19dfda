// Sums of scaled gradients against double. The first one must not look at what was in the sum: that is NaN here.
#include <math.h>
#include <stdlib.h>

#include "support/support.h"

static const struct {
    const char *name;
    int elems;
    float scale;
    bool is_tiny;
} cases[] = {
    { "one", 1, 1, true }, { "odd", 131, 0.25f, true }, { "third", 64, 1.0f / 3, true }, { "several chunks", 4099, 0.5f, false },
};
enum { NUM_CASES = sizeof cases / sizeof *cases, MARGIN = 2, ROUNDS = 3 };

START_TEST(test_values)
{
    if (eq_test_is_tiny() && !cases[_i].is_tiny)
        return;
    const size_t elems = (size_t)cases[_i].elems, all = elems + 2 * MARGIN;
    for (int v = 0; v < eq_test_num_variants(false); v++) {
        eq_test_variant(v);
        struct eq_buffer *buffer = NULL;
        float *sum = malloc(all * sizeof *sum);
        double *want = calloc(elems, sizeof *want);
        EQ_TEST_OK(eq_buffer_create(eq_test_device, 2 * all * sizeof *sum, &buffer));
        for (size_t i = 0; i < all; i++)
            sum[i] = NAN;
        EQ_TEST_OK(eq_ref_write(eq_ref_at(buffer, all), sum, all, sizeof *sum));
        for (int round = 0; round < ROUNDS; round++) {
            float *grad = eq_test_uniform("grad", all, (uint64_t)round);
            struct eq_list *list = NULL;
            EQ_TEST_OK(eq_ref_write(eq_ref_at(buffer, 0), grad, all, sizeof *grad));
            EQ_TEST_OK(eq_list_create(eq_test_device, &list));
            EQ_TEST_OK(eq_accumulate_emit(list, elems, eq_ref_at(buffer, MARGIN), eq_ref_at(buffer, all + MARGIN), cases[_i].scale, round == 0));
            EQ_TEST_OK(eq_list_run(list));
            eq_list_destroy(&list);
            for (size_t i = 0; i < elems; i++)
                want[i] += (double)cases[_i].scale * grad[MARGIN + i];
            free(grad);
        }
        EQ_TEST_OK(eq_ref_read(eq_ref_at(buffer, all), sum, all, sizeof *sum));
        const struct eq_tensor t = eq_tensor_vector((int)elems);
        // Two roundings a round of values up to 3 * scale; one element alone may be small against that.
        double *tolerance = calloc(elems, sizeof *tolerance);
        for (size_t i = 0; i < elems; i++)
            tolerance[i] = 2 * ROUNDS * 0x1p-24 * ROUNDS * (double)cases[_i].scale;
        eq_test_values_close("accumulate", cases[_i].name, &t, sum + MARGIN, want, tolerance, 0);
        for (size_t i = 0; i < MARGIN; i++)
            ck_assert(isnan(sum[i]) && isnan(sum[elems + MARGIN + i]));
        eq_buffer_destroy(&buffer);
        free(sum);
        free(want);
        free(tolerance);
    }
}
END_TEST

START_TEST(test_refused)
{
    struct eq_list *list = NULL;
    EQ_TEST_OK(eq_list_create(eq_test_device, &list));
    ck_assert_int_eq(eq_accumulate_emit(list, 0, EQ_REF_NONE, EQ_REF_NONE, 1, true), EQ_ERR_UNSUPPORTED);
    ck_assert_int_eq(eq_list_length(list), 0);
    eq_list_destroy(&list);
}
END_TEST

EQ_TEST_MAIN("accumulate", { test_values, NUM_CASES }, { test_refused, 0 })

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
    { "one", 1, 1, true },
    { "odd", 131, 0.25f, true },
    { "third", 64, 1.0f / 3, true },
    { "several chunks", 4099, 0.5f, false },
};
enum { NUM_CASES = sizeof cases / sizeof *cases, ROUNDS = 3 };
enum { GRAD, SUM };

struct attributes {
    float scale;
    bool first;
};

static eq_status shape(struct eq_call *call)
{
    call->num_outputs = 0;
    return EQ_OK;
}

static eq_status emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    const struct attributes *a = call->attributes;
    (void)out;
    return eq_accumulate_emit(list, eq_tensor_elems(&call->input[GRAD]), in[GRAD], in[SUM], a->scale, a->first);
}

static const struct eq_op op = { .name = "accumulate", .shape = shape, .emit = emit };

START_TEST(test_values)
{
    if (eq_test_is_tiny() && !cases[_i].is_tiny)
        return;
    const size_t elems = (size_t)cases[_i].elems;
    const struct eq_tensor t = eq_tensor_vector(cases[_i].elems);
    for (int v = 0; v < eq_test_num_variants(false); v++) {
        eq_test_variant(v);
        float *sum = malloc(elems * sizeof *sum);
        double *want = calloc(elems, sizeof *want), *tolerance = calloc(elems, sizeof *tolerance);
        for (size_t i = 0; i < elems; i++)
            sum[i] = NAN;
        for (int round = 0; round < ROUNDS; round++) {
            const struct attributes attributes = { cases[_i].scale, round == 0 };
            float *grad = eq_test_uniform("grad", elems, (uint64_t)round);
            struct eq_test_call call = { .name = cases[_i].name,
                                         .op = &op,
                                         .attributes = &attributes,
                                         .num_inputs = 2,
                                         .input = { { t, grad, false }, { t, sum, true } } };
            eq_test_call_run(&call);
            for (size_t i = 0; i < elems; i++) {
                want[i] += (double)cases[_i].scale * grad[i];
                tolerance[i] =
                    2 * ROUNDS * 0x1p-24 * ROUNDS * (double)cases[_i].scale; // two roundings a round, of up to ROUNDS * scale
            }
            free(sum);
            sum = call.after[SUM];
            call.after[SUM] = NULL;
            eq_test_call_free(&call);
            free(grad);
        }
        eq_test_values_close("accumulate", cases[_i].name, &t, sum, want, tolerance, 0);
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

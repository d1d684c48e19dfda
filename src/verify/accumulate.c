// Sums of scaled gradients against double. The first one must not look at what was in the sum: that is NaN here.
#include <math.h>
#include <stdlib.h>

#include "verify/check.h"

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

static void check_variant(void *user)
{
    const int index = *(const int *)user;
    const size_t elems = (size_t)cases[index].elems;
    const struct eq_tensor t = eq_tensor_vector(cases[index].elems);
    float *sum = eq_check_malloc(elems, sizeof *sum);
    double *want = eq_check_calloc(elems, sizeof *want), *tolerance = eq_check_calloc(elems, sizeof *tolerance);
    for (size_t i = 0; i < elems; i++)
        sum[i] = NAN;
    for (int round = 0; round < ROUNDS; round++) {
        const struct attributes attributes = { cases[index].scale, round == 0 };
        float *grad = eq_check_uniform("grad", elems, (uint64_t)round);
        struct eq_check_call call = { .name = cases[index].name,
                                      .op = &op,
                                      .attributes = &attributes,
                                      .num_inputs = 2,
                                      .input = { { t, grad, false }, { t, sum, true } } };
        eq_check_call_run(&call);
        for (size_t i = 0; i < elems; i++) {
            want[i] += (double)cases[index].scale * grad[i];
            tolerance[i] =
                2 * ROUNDS * 0x1p-24 * ROUNDS * (double)cases[index].scale; // two roundings a round, of up to ROUNDS * scale
        }
        free(sum);
        sum = call.after[SUM];
        call.after[SUM] = NULL;
        eq_check_call_free(&call);
        free(grad);
    }
    eq_check_values_close("the sum", &t, sum, want, tolerance, 0);
    free(sum);
    free(want);
    free(tolerance);
}

static void test_values(int index)
{
    if (!eq_check_is_small() || cases[index].is_tiny)
        eq_check_each_variant(false, check_variant, &index);
}

EQ_CHECK_SUITE(eq_suite_accumulate, "accumulate", { "values", test_values, NUM_CASES })

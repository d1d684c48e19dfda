// Loss and its gradient against double; the gradient's reference against differences.
#include <math.h>
#include <stdlib.h>

#include "support/support.h"

static const struct {
    const char *name;
    int n, k;
    float smoothing;
    double mean, spread;
    bool is_tiny;
} cases[] = {
    { "odd", 3, 7, 0, 0, 3, true },
    { "smoothed", 5, 10, 0.1f, 0, 3, true },
    { "one class", 2, 1, 0, 5, 1, true },
    { "two classes", 1, 2, 0.3f, 0, 1, true },
    { "big mean", 4, 65, 0.1f, 3000, 3, false },
    { "wide", 3, 100, 0, 0, 80, false },
    { "imagenet", 16, 1000, 0.1f, 0, 6, false },
    { "many classes", 2, 21841, 0.1f, 1, 4, false },
};
enum { NUM_CASES = sizeof cases / sizeof *cases };

struct loss {
    int k, label;
    double smoothing;
};

static double target_of(const struct loss *l, int j)
{
    return j == l->label ? 1 - l->smoothing : l->k > 1 ? l->smoothing / (l->k - 1) : 0;
}

static double log_sum(const double *x, int k)
{
    double top = x[0], sum = 0;
    for (int j = 1; j < k; j++)
        top = fmax(top, x[j]);
    for (int j = 0; j < k; j++)
        sum += exp(x[j] - top);
    return top + log(sum);
}

static double reference_loss(const double *x, void *user)
{
    const struct loss *l = user;
    const double lse = log_sum(x, l->k);
    double sum = 0;
    for (int j = 0; j < l->k; j++)
        sum += target_of(l, j) > 0 ? target_of(l, j) * (lse - x[j]) : 0;
    return sum;
}

static void reference_grad(const double *x, const struct loss *l, double *grad)
{
    const double lse = log_sum(x, l->k);
    for (int j = 0; j < l->k; j++)
        grad[j] = exp(x[j] - lse) - target_of(l, j);
}

START_TEST(test_values)
{
    const int n = cases[_i].n, k = cases[_i].k;
    const size_t elems = (size_t)n * (size_t)k;
    if (eq_test_is_tiny() && !cases[_i].is_tiny)
        return;
    const struct eq_softmax_xent_attributes attributes = { cases[_i].smoothing };
    float *x = eq_test_values(cases[_i].name, elems, cases[_i].mean, cases[_i].spread);
    int32_t *labels = malloc((size_t)n * sizeof *labels);
    double *loss = calloc((size_t)n, sizeof *loss), *tolerance = calloc((size_t)n, sizeof *tolerance),
           *grad = calloc(elems, sizeof *grad);
    double *row = calloc((size_t)k, sizeof *row);
    for (int i = 0; i < n; i++) {
        labels[i] = i == 0 ? 0 : i == 1 ? k - 1 : (i * 37) % k;
        struct loss l = { k, labels[i], (double)cases[_i].smoothing };
        for (int j = 0; j < k; j++)
            row[j] = x[i * k + j];
        loss[i] = reference_loss(row, &l);
        reference_grad(row, &l, &grad[i * k]);
        if (k <= 100)
            eq_test_gradient(cases[_i].name, reference_loss, &l, row, &grad[i * k], (size_t)k, 1e-4, 1e-6);
        for (int j = 0; j < k; j++)
            grad[i * k + j] /= n;
        // Terms of size `spread` and log k, rounded a few times each: work-items sum k / 64 of them, then a tree of 6.
        tolerance[i] = 0x1p-24 * (16 + k / 64.0) * (2 * cases[_i].spread + log(k) + 1);
    }
    struct eq_test_call call = { .name = cases[_i].name,
                                 .op = &eq_op_softmax_xent,
                                 .attributes = &attributes,
                                 .num_inputs = 2,
                                 .input = { { eq_tensor_plain(EQ_F32, n, k, 1, 1), x, false },
                                            { eq_tensor_plain(EQ_I32, n, 1, 1, 1), labels, false } } };
    for (int v = 0; v < eq_test_num_variants(false); v++) {
        eq_test_variant(v);
        eq_test_call_run(&call);
        eq_test_close(&call, 0, loss, tolerance, 0);
        // exp() of a difference up to 2 * spread that is exact: 3 ulp; the sum k / 64 + 6; the division 2.5.
        eq_test_close(&call, 1, grad, NULL, 0x1p-24 * (16 + k / 64.0));
        eq_test_call_free(&call);
    }
    free(x);
    free(labels);
    free(loss);
    free(tolerance);
    free(grad);
    free(row);
}
END_TEST

// A label outside of the classes, a NaN and a class at -infinity. Row 3 has a loss nevertheless: its label is finite.
START_TEST(test_faults)
{
    const float x[] = { 1, 2, 3, 1, 2, 3, 1, NAN, 3, 0, 0, -INFINITY };
    const int32_t labels[] = { 3, -1, 0, 0 };
    const struct eq_softmax_xent_attributes attributes = { 0 };
    struct eq_test_call call = { .name = "faults",
                                 .op = &eq_op_softmax_xent,
                                 .attributes = &attributes,
                                 .num_inputs = 2,
                                 .input = { { eq_tensor_plain(EQ_F32, 4, 3, 1, 1), x, false },
                                            { eq_tensor_plain(EQ_I32, 4, 1, 1, 1), labels, false } } };
    eq_test_call_run(&call);
    const float *loss = call.output[0], *grad = call.output[1];
    for (int i = 0; i < 3; i++) {
        ck_assert(isnan(loss[i]));
        ck_assert(isnan(grad[3 * i]));
    }
    ck_assert_double_eq_tol((double)loss[3], log(2), 1e-6);
    ck_assert_double_eq_tol((double)grad[9], -0.125, 1e-6);
    ck_assert_double_eq_tol((double)grad[10], 0.125, 1e-6);
    ck_assert(grad[11] == 0);
    eq_test_call_free(&call);
}
END_TEST

START_TEST(test_refused)
{
    const float value = 0;
    struct eq_softmax_xent_attributes attributes = { 1 };
    struct eq_test_call call = { .name = "smoothing",
                                 .op = &eq_op_softmax_xent,
                                 .attributes = &attributes,
                                 .num_inputs = 2,
                                 .input = { { eq_tensor_plain(EQ_F32, 4, 3, 1, 1), &value, false },
                                            { eq_tensor_plain(EQ_I32, 4, 1, 1, 1), &value, false } } };
    eq_test_call_refused(&call, EQ_ERR_ARGUMENT, "smoothing is 1");
    attributes.smoothing = 0.1f;
    call.input[0].tensor.c = 1;
    eq_test_call_refused(&call, EQ_ERR_SHAPE, "there is 1 class");
    call.input[0].tensor.c = 3;
    call.input[1].tensor.n = 5;
    eq_test_call_refused(&call, EQ_ERR_SHAPE, "5 labels of type i32 for 4 rows");
    call.input[1].tensor = eq_tensor_plain(EQ_F32, 4, 1, 1, 1);
    eq_test_call_refused(&call, EQ_ERR_SHAPE, "type f32");
    call.input[0].tensor = eq_tensor_plain(EQ_F32, 4, 3, 2, 1);
    eq_test_call_refused(&call, EQ_ERR_SHAPE, "[4, 3, 2, 1]");
}
END_TEST

EQ_TEST_MAIN("softmax_xent", { test_values, NUM_CASES }, { test_faults, 0 }, { test_refused, 0 })

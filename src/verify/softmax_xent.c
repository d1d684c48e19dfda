// Loss and its gradient against double; the gradient's reference against differences.
#include <math.h>
#include <stdlib.h>

#include "verify/check.h"

static const struct {
    const char *name;
    int n, k;
    float smoothing;
    double mean, spread;
    bool is_tiny, is_last_far; // is_last_far: the last class lies so far above the others that e to that is no float
} cases[] = {
    { "odd", 3, 7, 0, 0, 3, true },
    { "smoothed", 5, 10, 0.1f, 0, 3, true },
    { "one class", 2, 1, 0, 5, 1, true },
    { "two classes", 1, 2, 0.3f, 0, 1, true },
    { "big mean", 4, 65, 0.1f, 3000, 3, false },
    { "wide", 3, 100, 0, 0, 80, true, true }, // more classes than work-items of a group
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

struct expected {
    struct eq_check_call *call;
    const double *loss, *tolerance, *grad;
};

static void check_variant(void *user)
{
    const struct expected *e = user;
    eq_check_call_run(e->call);
    eq_check_close(e->call, 0, e->loss, e->tolerance, 0);
    // exp() of a difference up to 2 * spread that is exact: 3 ulp; the sum k / 64 + 6; the division 2.5.
    eq_check_close(e->call, 1, e->grad, NULL, 0x1p-24 * (16 + e->call->input[0].tensor.c / 64.0));
    eq_check_call_free(e->call);
}

static void test_values(int index)
{
    const int n = cases[index].n, k = cases[index].k;
    const size_t elems = (size_t)n * (size_t)k;
    if (eq_check_is_small() && !cases[index].is_tiny)
        return;
    const struct eq_softmax_xent_attributes attributes = { cases[index].smoothing };
    float *x = eq_check_values(cases[index].name, elems, cases[index].mean, cases[index].spread);
    for (int i = 0; i < n && cases[index].is_last_far; i++)
        x[i * k + k - 1] += 250;
    int32_t *labels = eq_check_malloc((size_t)n, sizeof *labels);
    double *loss = eq_check_calloc((size_t)n, sizeof *loss), *tolerance = eq_check_calloc((size_t)n, sizeof *tolerance),
           *grad = eq_check_calloc(elems, sizeof *grad);
    double *row = eq_check_calloc((size_t)k, sizeof *row);
    for (int i = 0; i < n; i++) {
        labels[i] = i == 0 ? 0 : i == 1 ? k - 1 : (i * 37) % k;
        struct loss l = { k, labels[i], (double)cases[index].smoothing };
        for (int j = 0; j < k; j++)
            row[j] = x[i * k + j];
        loss[i] = reference_loss(row, &l);
        reference_grad(row, &l, &grad[i * k]);
        if (k <= 100)
            eq_check_gradient(cases[index].name, reference_loss, &l, row, &grad[i * k], (size_t)k, 1e-4, 1e-6);
        for (int j = 0; j < k; j++)
            grad[i * k + j] /= n;
        // Terms of size `spread` and log k, rounded a few times each: work-items sum k / 64 of them, then a tree of 6.
        tolerance[i] = 0x1p-24 * (16 + k / 64.0) * (2 * cases[index].spread + log(k) + 1);
    }
    struct eq_check_call call = { .name = cases[index].name,
                                  .op = &eq_op_softmax_xent,
                                  .attributes = &attributes,
                                  .num_inputs = 2,
                                  .input = { { eq_tensor_plain(EQ_F32, n, k, 1, 1), x, false },
                                             { eq_tensor_plain(EQ_I32, n, 1, 1, 1), labels, false } } };
    eq_check_each_variant(false, check_variant, &(struct expected){ &call, loss, tolerance, grad });
    free(x);
    free(labels);
    free(loss);
    free(tolerance);
    free(grad);
    free(row);
}

// A label outside of the classes, a NaN and a class at -infinity. Row 3 has a loss nevertheless: its label is finite.
static void test_faults(int index)
{
    (void)index;
    const float x[] = { 1, 2, 3, 1, 2, 3, 1, NAN, 3, 0, 0, -INFINITY };
    const int32_t labels[] = { 3, -1, 0, 0 };
    const struct eq_softmax_xent_attributes attributes = { 0 };
    struct eq_check_call call = { .name = "faults",
                                  .op = &eq_op_softmax_xent,
                                  .attributes = &attributes,
                                  .num_inputs = 2,
                                  .input = { { eq_tensor_plain(EQ_F32, 4, 3, 1, 1), x, false },
                                             { eq_tensor_plain(EQ_I32, 4, 1, 1, 1), labels, false } } };
    eq_check_call_run(&call);
    struct eq_check_comparison losses = { .num = 0 }, grads = { .num = 0 };
    const double grad[] = { -0.125, 0.125, 0 }; // of row 3; of the others the first is NaN
    for (size_t i = 0; i < 4; i++)
        eq_check_compare_at(&losses, i, (double)((const float *)call.output[0])[i], i < 3 ? NAN : log(2), 1e-6);
    for (size_t i = 0; i < 12; i++)
        if (i % 3 == 0 || i >= 9)
            eq_check_compare_at(&grads, i, (double)((const float *)call.output[1])[i], i < 9 ? NAN : grad[i - 9], 1e-6);
    eq_check_compared(&losses, "loss");
    eq_check_compared(&grads, "gradient");
    eq_check_call_free(&call);
}

EQ_CHECK_SUITE(eq_suite_softmax_xent, "softmax_xent", { "values", test_values, NUM_CASES }, { "faults", test_faults, 0 })

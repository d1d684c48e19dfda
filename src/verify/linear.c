// The fully connected layer and its gradients against sums in double.
#include <math.h>
#include <stdlib.h>

#include "verify/check.h"

static const struct {
    const char *name;
    int n, c, k;
    double mean;
    bool is_tiny;
} cases[] = {
    { "odd", 19, 7, 5, 0, true },        { "one of each", 1, 1, 1, 0, true },    { "one image", 1, 65, 10, 0, false },
    { "one class", 9, 12, 1, 0, false }, { "ragged", 6, 150, 11, 0, true }, { "wide", 5, 64, 4, 0, false },
    { "two images", 2, 260, 13, 0, true },
    { "big mean", 17, 64, 33, 300, false }, { "resnet50 head", 8, 2048, 1000, 0.5, false },
};
enum { NUM_CASES = sizeof cases / sizeof *cases };

struct sum {
    double value, squares;
    int terms;
};

static void sum_add(struct sum *s, double term)
{
    s->value += term;
    s->squares += term * term;
    s->terms++;
}

// A sum of t rounded products in any order errs by about sqrt(t) half-ulps of its largest partial sum, which is below the root
// of the summed squares times a few, and the result; times 8 for the order, never above 1e-5.
static void sum_end(const struct sum *s, double *want, double *tolerance)
{
    *want = s->value;
    *tolerance = fmin(1e-5, 8 * sqrt(s->terms + 1.0) * 0x1p-24) * (sqrt(s->squares) + fabs(s->value));
}

// Element (i, j) of op(a) op(b): a[i * a_row + t * a_step] * b[t * b_row + j * b_step].
struct product {
    const float *a, *b, *bias;
    int m, n, k, a_row, a_step, b_row, b_step;
};

static void check_product(const struct eq_check_call *call, int output, const struct product *p)
{
    const size_t elems = (size_t)p->m * (size_t)p->n;
    double *want = eq_check_calloc(elems, sizeof *want), *tolerance = eq_check_calloc(elems, sizeof *tolerance);
    for (int i = 0; i < p->m; i++)
        for (int j = 0; j < p->n; j++) {
            struct sum s = { 0, 0, 0 };
            for (int t = 0; t < p->k; t++)
                sum_add(&s, (double)p->a[i * p->a_row + t * p->a_step] * (p->b ? p->b[t * p->b_row + j * p->b_step] : 1));
            if (p->bias)
                sum_add(&s, p->bias[j]);
            sum_end(&s, &want[i * p->n + j], &tolerance[i * p->n + j]);
        }
    eq_check_close(call, output, want, tolerance, 0);
    free(want);
    free(tolerance);
}

static void check_case(int index, bool is_aligned)
{
    const int n = cases[index].n, c = cases[index].c, k = cases[index].k;
    float *x = eq_check_values("x", (size_t)n * (size_t)c, cases[index].mean, 1),
          *w = eq_check_uniform("w", (size_t)k * (size_t)c, 0);
    float *b = eq_check_uniform("b", (size_t)k, 0), *dy = eq_check_uniform("dy", (size_t)n * (size_t)k, 0);
    struct eq_check_call call = { .name = cases[index].name,
                                  .is_aligned = is_aligned,
                                  .op = &eq_op_linear,
                                  .num_inputs = 3,
                                  .input = { { eq_tensor_plain(EQ_F32, n, c, 1, 1), x, false },
                                             { eq_tensor_plain(EQ_F32, k, c, 1, 1), w, false },
                                             { eq_tensor_vector(k), b, false } } };
    eq_check_call_run(&call);
    check_product(&call, 0, &(struct product){ x, w, b, n, k, c, c, 1, 1, c });
    eq_check_call_free(&call);

    call.name = cases[index].name;
    call.op = &eq_op_linear_grad;
    call.input[2] = (struct eq_check_input){ eq_tensor_plain(EQ_F32, n, k, 1, 1), dy, false };
    eq_check_call_run(&call);
    check_product(&call, 0, &(struct product){ dy, w, NULL, n, c, k, k, 1, c, 1 });
    check_product(&call, 1, &(struct product){ dy, x, NULL, k, c, n, 1, k, c, 1 });
    check_product(&call, 2, &(struct product){ dy, NULL, NULL, k, 1, n, 1, k, 0, 0 });
    eq_check_call_free(&call);
    free(x);
    free(w);
    free(b);
    free(dy);
}

static void check_variant(void *user)
{
    struct eq_target *target = &eq_check_device->target;
    const int max_sums = target->max_sums;
    check_case(*(const int *)user, true);
    target->max_sums = 32; // as where registers are few
    check_case(*(const int *)user, false);
    target->max_sums = max_sums;
}

static void test_values(int index)
{
    if (!eq_check_is_small() || cases[index].is_tiny)
        eq_check_each_variant(true, check_variant, &index);
}

EQ_CHECK_SUITE(eq_suite_linear, "linear", { "values", test_values, NUM_CASES })

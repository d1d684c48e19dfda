// Mean pooling and its gradient against sums in double.
#include <math.h>
#include <stdlib.h>

#include "verify/check.h"

static const struct {
    const char *name;
    int n, c, h, w, halo;
    double mean;
    bool is_tiny;
} cases[] = {
    { "ragged blocks", 2, 19, 5, 3, 0, 0, true },
    { "one pixel", 1, 1, 1, 1, 0, 0, true },
    { "halo", 3, 16, 2, 7, 2, 0, true },
    { "big mean", 2, 33, 14, 14, 0, 3000, false },
    { "resnet50 head", 2, 2048, 7, 7, 0, 1, false },
    { "large image", 1, 6, 224, 160, 1, 300, false },
};
enum { NUM_CASES = sizeof cases / sizeof *cases };

static void check_forward(int index)
{
    const size_t planes = (size_t)cases[index].n * (size_t)cases[index].c,
                 pixels = (size_t)cases[index].h * (size_t)cases[index].w;
    const struct eq_tensor t = eq_tensor_blocked(cases[index].n, cases[index].c, cases[index].h, cases[index].w,
                                                 eq_check_device->target.block, cases[index].halo);
    float *x = eq_check_values(cases[index].name, planes * pixels, cases[index].mean, 1);
    double *want = eq_check_calloc(planes, sizeof *want), *tolerance = eq_check_calloc(planes, sizeof *tolerance);
    for (size_t p = 0; p < planes; p++) {
        double squares = 0;
        for (size_t i = 0; i < pixels; i++) {
            want[p] += x[p * pixels + i];
            squares += (double)x[p * pixels + i] * x[p * pixels + i];
        }
        want[p] /= (double)pixels;
        // A chain of w and one of h sums: each rounding is half an ulp of a partial sum, which is at most the sum of |x|.
        tolerance[p] = 0x1p-24 * (cases[index].h + cases[index].w + 2) * sqrt(squares / (double)pixels);
    }
    struct eq_check_call call = {
        .name = cases[index].name, .op = &eq_op_pool_avg, .num_inputs = 1, .input = { { t, x, false } }
    };
    eq_check_call_run(&call);
    eq_check_close(&call, 0, want, tolerance, 0);
    eq_check_call_free(&call);
    free(x);
    free(want);
    free(tolerance);
}

static void check_gradient(int index)
{
    const size_t planes = (size_t)cases[index].n * (size_t)cases[index].c,
                 pixels = (size_t)cases[index].h * (size_t)cases[index].w;
    const struct eq_pool_avg_grad_attributes attributes = { cases[index].h, cases[index].w };
    float *dy = eq_check_uniform("dy", planes, 0);
    double *want = eq_check_calloc(planes * pixels, sizeof *want);
    for (size_t i = 0; i < planes * pixels; i++)
        want[i] = dy[i / pixels] / (double)pixels;
    struct eq_check_call call = { .name = cases[index].name,
                                  .op = &eq_op_pool_avg_grad,
                                  .attributes = &attributes,
                                  .num_inputs = 1,
                                  .input = { { eq_tensor_plain(EQ_F32, cases[index].n, cases[index].c, 1, 1), dy, false } },
                                  .output_halo = cases[index].halo };
    eq_check_call_run(&call);
    eq_check_close(&call, 0, want, NULL, 3 * 0x1p-24); // a reciprocal (2.5 ulp by the standard is met by 1) and a product
    eq_check_call_free(&call);
    free(dy);
    free(want);
}

static void check_variant(void *user)
{
    const int index = *(const int *)user;
    check_forward(index);
    check_gradient(index);
}

static void test_values(int index)
{
    if (!eq_check_is_small() || cases[index].is_tiny)
        eq_check_each_variant(cases[index].c < 64, check_variant, &index);
}

EQ_CHECK_SUITE(eq_suite_pool_avg, "pool_avg", { "values", test_values, NUM_CASES })

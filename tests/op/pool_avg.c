// Mean pooling and its gradient against sums in double.
#include <math.h>
#include <stdlib.h>

#include "support/support.h"

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
                                                 eq_test_device->target.block, cases[index].halo);
    float *x = eq_test_values(cases[index].name, planes * pixels, cases[index].mean, 1);
    double *want = calloc(planes, sizeof *want), *tolerance = calloc(planes, sizeof *tolerance);
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
    struct eq_test_call call = {
        .name = cases[index].name, .op = &eq_op_pool_avg, .num_inputs = 1, .input = { { t, x, false } }
    };
    eq_test_call_run(&call);
    eq_test_close(&call, 0, want, tolerance, 0);
    eq_test_call_free(&call);
    free(x);
    free(want);
    free(tolerance);
}

static void check_gradient(int index)
{
    const size_t planes = (size_t)cases[index].n * (size_t)cases[index].c,
                 pixels = (size_t)cases[index].h * (size_t)cases[index].w;
    const struct eq_pool_avg_grad_attributes attributes = { cases[index].h, cases[index].w };
    float *dy = eq_test_uniform("dy", planes, 0);
    double *want = calloc(planes * pixels, sizeof *want);
    for (size_t i = 0; i < planes * pixels; i++)
        want[i] = dy[i / pixels] / (double)pixels;
    struct eq_test_call call = { .name = cases[index].name,
                                 .op = &eq_op_pool_avg_grad,
                                 .attributes = &attributes,
                                 .num_inputs = 1,
                                 .input = { { eq_tensor_plain(EQ_F32, cases[index].n, cases[index].c, 1, 1), dy, false } },
                                 .output_halo = cases[index].halo };
    eq_test_call_run(&call);
    eq_test_close(&call, 0, want, NULL, 3 * 0x1p-24); // a reciprocal (2.5 ulp by the standard is met by 1) and a product
    eq_test_call_free(&call);
    free(dy);
    free(want);
}

START_TEST(test_values)
{
    if (eq_test_is_tiny() && !cases[_i].is_tiny)
        return;
    for (int v = 0; v < eq_test_num_variants(cases[_i].c < 64); v++) {
        eq_test_variant(v);
        check_forward(_i);
        check_gradient(_i);
    }
}
END_TEST

START_TEST(test_refused)
{
    const float value = 0;
    const struct eq_pool_avg_grad_attributes attributes = { 0, 3 };
    const int other = eq_test_device->target.block == 16 ? 8 : 16;
    struct eq_test_call call = { .name = "plain",
                                 .op = &eq_op_pool_avg,
                                 .num_inputs = 1,
                                 .input = { { eq_tensor_plain(EQ_F32, 2, 3, 4, 5), &value, false } } };
    eq_test_call_refused(&call, EQ_ERR_SHAPE, "[2, 3, 4, 5]");
    call.input[0].tensor = eq_tensor_blocked(2, 3, 4, 5, other, 0);
    eq_test_call_refused(&call, EQ_ERR_UNSUPPORTED, "in blocks of");
    call = (struct eq_test_call){ .name = "gradient",
                                  .op = &eq_op_pool_avg_grad,
                                  .attributes = &attributes,
                                  .num_inputs = 1,
                                  .input = { { eq_tensor_plain(EQ_F32, 2, 3, 1, 1), &value, false } } };
    eq_test_call_refused(&call, EQ_ERR_ARGUMENT, "0 x 3 pixels");
    call.input[0].tensor = eq_tensor_plain(EQ_F32, 2, 3, 2, 1);
    eq_test_call_refused(&call, EQ_ERR_SHAPE, "[2, 3, 2, 1]");
}
END_TEST

EQ_TEST_MAIN("pool_avg", { test_values, NUM_CASES }, { test_refused, 0 })

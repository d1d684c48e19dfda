// The sum of two tensors: exactly the float sum, in place and apart, whatever the halos are.
#include <stdlib.h>

#include "verify/check.h"

static const struct {
    const char *name;
    int n, c, h, w, halo[3]; // of a, b and the output
    bool is_plain, is_tiny;
} cases[] = {
    { "ragged blocks", 2, 19, 5, 3, { 0, 0, 0 }, false, true }, { "one", 1, 1, 1, 1, { 0, 0, 0 }, true, true },
    { "halos differ", 2, 5, 4, 6, { 1, 0, 2 }, false, true },   { "same halo", 1, 16, 3, 3, { 1, 1, 1 }, false, true },
    { "plain", 3, 7, 11, 2, { 0, 0, 0 }, true, false },         { "several chunks", 2, 64, 31, 33, { 0, 2, 1 }, false, false },
    { "long vector", 1, 5001, 1, 1, { 0, 0, 0 }, true, false },
};
enum { NUM_CASES = sizeof cases / sizeof *cases };

static struct eq_tensor tensor_of(int index, int operand)
{
    if (cases[index].is_plain)
        return eq_tensor_plain(EQ_F32, cases[index].n, cases[index].c, cases[index].h, cases[index].w);
    return eq_tensor_blocked(cases[index].n, cases[index].c, cases[index].h, cases[index].w, eq_check_device->target.block,
                             cases[index].halo[operand]);
}

struct values {
    int index;
    float *a, *b;
    double *want;
};

// In place and apart.
static void check_variant(void *user)
{
    const struct values *values = user;
    const int i = values->index;
    for (int in_place = 0; in_place < 2; in_place++) {
        struct eq_check_call call = { .name = cases[i].name,
                                      .op = &eq_op_add,
                                      .num_inputs = 2,
                                      .input = { { tensor_of(i, 0), values->a, false }, { tensor_of(i, 1), values->b, false } },
                                      .output_halo = cases[i].halo[2],
                                      .in_place = in_place };
        eq_check_call_run(&call);
        eq_check_close(&call, 0, values->want, NULL, 0);
        eq_check_call_free(&call);
    }
}

static void test_values(int index)
{
    if (eq_check_is_small() && !cases[index].is_tiny)
        return;
    const struct eq_tensor t = eq_tensor_plain(EQ_F32, cases[index].n, cases[index].c, cases[index].h, cases[index].w);
    const size_t elems = eq_tensor_logical(&t);
    struct values values = { index, eq_check_uniform("a", elems, 0), eq_check_uniform("b", elems, 0),
                             eq_check_malloc(elems, sizeof(double)) };
    for (size_t i = 0; i < elems; i++)
        values.want[i] = (float)(values.a[i] + values.b[i]);
    eq_check_each_variant(true, check_variant, &values);
    free(values.a);
    free(values.b);
    free(values.want);
}

EQ_CHECK_SUITE(eq_suite_add, "add", { "values", test_values, NUM_CASES })

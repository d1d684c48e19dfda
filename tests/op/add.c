// The sum of two tensors: exactly the float sum, in place and apart, whatever the halos are.
#include <stdlib.h>

#include "support/support.h"

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
    return eq_tensor_blocked(cases[index].n, cases[index].c, cases[index].h, cases[index].w, eq_test_device->target.block,
                             cases[index].halo[operand]);
}

START_TEST(test_values)
{
    if (eq_test_is_tiny() && !cases[_i].is_tiny)
        return;
    const struct eq_tensor t = eq_tensor_plain(EQ_F32, cases[_i].n, cases[_i].c, cases[_i].h, cases[_i].w);
    const size_t elems = eq_tensor_logical(&t);
    float *a = eq_test_uniform("a", elems, 0), *b = eq_test_uniform("b", elems, 0);
    double *want = calloc(elems, sizeof *want);
    for (size_t i = 0; i < elems; i++)
        want[i] = (float)(a[i] + b[i]);
    for (int v = 0; v < 2 * eq_test_num_variants(true); v++) {
        eq_test_variant(v / 2);
        struct eq_test_call call = { .name = cases[_i].name,
                                     .op = &eq_op_add,
                                     .num_inputs = 2,
                                     .input = { { tensor_of(_i, 0), a, false }, { tensor_of(_i, 1), b, false } },
                                     .output_halo = cases[_i].halo[2],
                                     .in_place = v % 2 };
        eq_test_call_run(&call);
        eq_test_close(&call, 0, want, NULL, 0);
        eq_test_call_free(&call);
    }
    free(a);
    free(b);
    free(want);
}
END_TEST

START_TEST(test_refused)
{
    const float value = 0;
    const int block = eq_test_device->target.block;
    struct eq_test_call call = { .name = "shapes",
                                 .op = &eq_op_add,
                                 .num_inputs = 2,
                                 .input = { { eq_tensor_blocked(2, 3, 4, 5, block, 0), &value, false },
                                            { eq_tensor_blocked(2, 3, 5, 4, block, 0), &value, false } } };
    eq_test_call_refused(&call, EQ_ERR_SHAPE, "[2, 3, 5, 4]");
    call.input[1].tensor = eq_tensor_plain(EQ_F32, 2, 3, 4, 5);
    eq_test_call_refused(&call, EQ_ERR_SHAPE, "in blocks of 0");
    call.input[0].tensor = eq_tensor_plain(EQ_I32, 2, 3, 4, 5);
    eq_test_call_refused(&call, EQ_ERR_SHAPE, "i32");
}
END_TEST

EQ_TEST_MAIN("add", { test_values, NUM_CASES }, { test_refused, 0 })

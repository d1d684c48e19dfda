// Maximum pooling and its gradient against plain loops. Both are exact: the values are copies, the gradient sums at most a few.
#include <math.h>
#include <stdlib.h>

#include "support/support.h"

struct pool_case {
    const char *name;
    int n, c, ih, iw;
    struct eq_pool_max_attributes a;
    int x_halo, y_halo;
    double mean;
    bool is_tiny, has_ties;
};

static const struct pool_case cases[] = {
    { "3x3 s2 odd", 2, 19, 9, 7, { 3, 3, 2, 2, 1, 1 }, .is_tiny = true },
    { "one pixel", 1, 1, 1, 1, { 1, 1, 1, 1, 0, 0 }, .is_tiny = true },
    { "2x2 ties", 1, 5, 6, 4, { 2, 2, 2, 2, 0, 0 }, .is_tiny = true, .has_ties = true, .y_halo = 1 },
    { "all negative", 2, 16, 5, 6, { 3, 3, 1, 1, 1, 1 }, .mean = -300, .is_tiny = true, .x_halo = 2, .y_halo = 2 },
    { "window of an image", 1, 33, 4, 5, { 4, 5, 1, 1, 0, 0 } },
    { "wide window, pad 2", 1, 4, 7, 11, { 5, 3, 1, 2, 2, 1 }, .x_halo = 1, .y_halo = 1, .has_ties = true },
    { "stride over window", 2, 8, 11, 10, { 2, 1, 3, 4, 1, 0 } },
    { "big mean", 1, 17, 12, 13, { 3, 3, 2, 2, 1, 1 }, .mean = 3000 },
    { "resnet stem", 1, 64, 112, 112, { 3, 3, 2, 2, 1, 1 } },
};
enum { NUM_CASES = sizeof cases / sizeof *cases };

static size_t at(const struct eq_tensor *t, int plane, int y, int x)
{
    return ((size_t)plane * (size_t)t->h + (size_t)y) * (size_t)t->w + (size_t)x;
}

static float *input_values(const struct pool_case *c, size_t elems)
{
    float *x = eq_test_values(c->name, elems, c->mean, 2);
    for (size_t i = 0; i < elems && c->has_ties; i++)
        x[i] = roundf(x[i]);
    return x;
}

// First largest value of the window at (oy, ox), by its place in the plane.
static int reference_index(const struct pool_case *c, const struct eq_tensor *t, const float *x, int plane, int oy, int ox)
{
    int best = -1;
    for (int i = 0; i < c->a.kh; i++)
        for (int j = 0; j < c->a.kw; j++) {
            const int y = oy * c->a.stride_h + i - c->a.pad_h, z = ox * c->a.stride_w + j - c->a.pad_w;
            const bool is_inside = y >= 0 && y < t->h && z >= 0 && z < t->w;
            if (is_inside && (best < 0 || x[at(t, plane, y, z)] > x[at(t, plane, best / t->w, best % t->w)]))
                best = y * t->w + z;
        }
    return best;
}

static void check_forward(const struct pool_case *c)
{
    const struct eq_tensor t = eq_tensor_blocked(c->n, c->c, c->ih, c->iw, eq_test_device->target.block, c->x_halo);
    float *x = input_values(c, eq_tensor_logical(&t));
    struct eq_test_call call = { .name = c->name,
                                 .op = &eq_op_pool_max,
                                 .attributes = &c->a,
                                 .num_inputs = 1,
                                 .input = { { t, x, false } },
                                 .output_halo = c->y_halo };
    eq_test_call_run(&call);
    const struct eq_tensor *y = &call.shaped.output[0];
    const int32_t *index = call.output[1];
    const float *value = call.output[0];
    ck_assert_int_eq(y->h, (c->ih + 2 * c->a.pad_h - c->a.kh) / c->a.stride_h + 1);
    ck_assert_int_eq(y->w, (c->iw + 2 * c->a.pad_w - c->a.kw) / c->a.stride_w + 1);
    for (int p = 0; p < c->n * c->c; p++)
        for (int oy = 0; oy < y->h; oy++)
            for (int ox = 0; ox < y->w; ox++) {
                const int want = reference_index(c, &t, x, p, oy, ox), got = index[at(y, p, oy, ox)];
                ck_assert_msg(got == want, "%s (%s): plane %d, [%d, %d]: the maximum is at %d, not at %d", c->name,
                              eq_test_variant_name(), p, oy, ox, want, got);
                ck_assert(value[at(y, p, oy, ox)] == x[at(&t, p, want / t.w, want % t.w)]);
            }
    free(x);
    eq_test_call_free(&call);
}

enum add_mode { ADD_NONE, ADD_APART, ADD_IN_PLACE };

static void check_gradient(const struct pool_case *c, enum add_mode mode)
{
    const int block = eq_test_device->target.block, oh = (c->ih + 2 * c->a.pad_h - c->a.kh) / c->a.stride_h + 1;
    const int ow = (c->iw + 2 * c->a.pad_w - c->a.kw) / c->a.stride_w + 1;
    const struct eq_tensor t = eq_tensor_blocked(c->n, c->c, c->ih, c->iw, block, mode == ADD_APART ? c->x_halo : 0);
    const struct eq_tensor dy = eq_tensor_blocked(c->n, c->c, oh, ow, block, c->y_halo);
    struct eq_tensor index = eq_tensor_blocked(c->n, c->c, oh, ow, block, 0);
    index.dtype = EQ_I32;
    const size_t elems = eq_tensor_logical(&t), outputs = eq_tensor_logical(&dy);
    float *x = input_values(c, elems), *dy_values = eq_test_uniform("dy", outputs, 0), *add = eq_test_uniform("add", elems, 0);
    int32_t *index_values = malloc(outputs * sizeof *index_values);
    double *want = calloc(elems, sizeof *want);
    for (size_t i = 0; i < elems; i++)
        want[i] = mode == ADD_NONE ? 0 : add[i];
    for (int p = 0; p < c->n * c->c; p++)
        for (int oy = 0; oy < oh; oy++)
            for (int ox = 0; ox < ow; ox++) {
                const int best = reference_index(c, &t, x, p, oy, ox);
                index_values[at(&dy, p, oy, ox)] = best;
                want[at(&t, p, best / t.w, best % t.w)] += dy_values[at(&dy, p, oy, ox)];
            }
    const struct eq_pool_max_grad_attributes attributes = { c->a, c->ih, c->iw };
    struct eq_test_call call = {
        .name = c->name,
        .op = &eq_op_pool_max_grad,
        .attributes = &attributes,
        .num_inputs = 3,
        .input = { { dy, dy_values, false }, { index, index_values, false }, { t, mode == ADD_NONE ? NULL : add, false } },
        .output_halo = c->x_halo,
        .in_place = mode == ADD_IN_PLACE
    };
    eq_test_call_run(&call);
    ck_assert_int_eq(eq_op_pool_max_grad.in_place(&call.shaped, 0), mode == ADD_NONE ? -1 : 2);
    // At most kh * kw + 1 <= 21 terms of size 1: 21 roundings of a sum below 21.
    eq_test_close(&call, 0, want, NULL, 21 * 0x1p-24);
    eq_test_call_free(&call);
    free(x);
    free(dy_values);
    free(add);
    free(index_values);
    free(want);
}

START_TEST(test_values)
{
    const struct pool_case *c = &cases[_i];
    if (eq_test_is_tiny() && !c->is_tiny)
        return;
    for (int v = 0; v < eq_test_num_variants(c->ih < 20); v++) {
        eq_test_variant(v);
        check_forward(c);
        check_gradient(c, ADD_NONE);
        check_gradient(c, ADD_APART);
        check_gradient(c, ADD_IN_PLACE);
    }
}
END_TEST

// A NaN wins its windows, the last of several (as in PyTorch); a window of -infinity has its first pixel.
START_TEST(test_nan_and_infinity)
{
    static const struct eq_pool_max_attributes a = { 2, 2, 1, 1, 0, 0 };
    const float x[] = { 1, NAN, 2,   -INFINITY, -INFINITY, //
                        5, 3,   NAN, -INFINITY, -INFINITY };
    const int32_t want[] = { 1, 7, 7, 3 };
    for (int v = 0; v < eq_test_num_variants(true); v++) {
        eq_test_variant(v);
        const struct eq_tensor t = eq_tensor_blocked(1, 1, 2, 5, eq_test_device->target.block, 0);
        struct eq_test_call call = {
            .name = "NaN", .op = &eq_op_pool_max, .attributes = &a, .num_inputs = 1, .input = { { t, x, false } }
        };
        eq_test_call_run(&call);
        for (int i = 0; i < 4; i++) {
            ck_assert_int_eq(((int32_t *)call.output[1])[i], want[i]);
            ck_assert(i == 3 ? isinf(((float *)call.output[0])[i]) : isnan(((float *)call.output[0])[i]));
        }
        eq_test_call_free(&call);
    }
}
END_TEST

START_TEST(test_refused)
{
    static const struct {
        struct eq_pool_max_attributes a;
        eq_status status;
        const char *part;
    } rows[] = {
        { { 0, 3, 1, 1, 0, 0 }, EQ_ERR_ARGUMENT, "window 0 x 3" },
        { { 3, 3, 1, -1, 0, 0 }, EQ_ERR_ARGUMENT, "stride 1 x -1" },
        { { 3, 3, 1, 1, 3, 0 }, EQ_ERR_ARGUMENT, "padding is 3 x 0" },
        { { 3, 3, 1, 1, 0, -1 }, EQ_ERR_ARGUMENT, "padding is 0 x -1" },
        { { 3, 9, 1, 1, 0, 0 }, EQ_ERR_SHAPE, "3 x 9, the padded image only 7 x 8" },
    };
    const int block = eq_test_device->target.block;
    const float value = 0;
    const struct eq_tensor x = eq_tensor_blocked(2, 3, 7, 8, block, 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct eq_test_call call = { .name = rows[i].part,
                                     .op = &eq_op_pool_max,
                                     .attributes = &rows[i].a,
                                     .num_inputs = 1,
                                     .input = { { x, &value, false } } };
        eq_test_call_refused(&call, rows[i].status, rows[i].part);
    }
    const struct eq_pool_max_grad_attributes a = { { 3, 3, 2, 2, 1, 1 }, 7, 8 };
    struct eq_tensor index = eq_tensor_blocked(2, 3, 4, 4, block, 0);
    struct eq_test_call call = { .name = "gradient",
                                 .op = &eq_op_pool_max_grad,
                                 .attributes = &a,
                                 .num_inputs = 3,
                                 .input = { { eq_tensor_blocked(2, 3, 4, 5, block, 0), &value, false },
                                            { index, &value, false } } };
    eq_test_call_refused(&call, EQ_ERR_SHAPE, "the gradient is 4 x 5, 7 x 8 pixels pool to 4 x 4");
    call.input[0].tensor = eq_tensor_blocked(2, 3, 4, 4, block, 0);
    eq_test_call_refused(&call, EQ_ERR_SHAPE, "not i32");
    call.input[1].tensor.dtype = EQ_I32;
    call.input[2] = (struct eq_test_input){ eq_tensor_blocked(2, 3, 7, 7, block, 0), &value, false };
    eq_test_call_refused(&call, EQ_ERR_SHAPE, "[2, 3, 7, 7], not [2, 3, 7, 8]");
    call.input[0].tensor = eq_tensor_plain(EQ_F32, 2, 3, 4, 4);
    eq_test_call_refused(&call, EQ_ERR_SHAPE, "not in blocks");
}
END_TEST

EQ_TEST_MAIN("pool_max", { test_values, NUM_CASES }, { test_nan_and_infinity, 0 }, { test_refused, 0 })

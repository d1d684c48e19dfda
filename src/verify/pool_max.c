// Maximum pooling and its gradient against plain loops. Both are exact: the values are copies, the gradient sums at most a few.
#include <math.h>
#include <stdlib.h>

#include "verify/check.h"

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
    float *x = eq_check_values(c->name, elems, c->mean, 2);
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

static void check_forward(const struct pool_case *c, bool training)
{
    const struct eq_tensor t = eq_tensor_blocked(c->n, c->c, c->ih, c->iw, eq_check_device->target.block, c->x_halo);
    float *x = input_values(c, eq_tensor_logical(&t));
    struct eq_check_call call = { .name = c->name,
                                  .op = &eq_op_pool_max,
                                  .attributes = &c->a,
                                  .training = training,
                                  .num_inputs = 1,
                                  .input = { { t, x, false } },
                                  .output_halo = c->y_halo,
                                  .is_workspace = { false, !training } };
    eq_check_call_run(&call);
    const struct eq_tensor *y = &call.shaped.output[0];
    const int32_t *index = call.output[1];
    const float *value = call.output[0];
    struct eq_check_comparison places = { .num = 0 }, values = { .num = 0 };
    EQ_CHECK_INT(y->h, (c->ih + 2 * c->a.pad_h - c->a.kh) / c->a.stride_h + 1);
    EQ_CHECK_INT(y->w, (c->iw + 2 * c->a.pad_w - c->a.kw) / c->a.stride_w + 1);
    for (int p = 0; p < c->n * c->c; p++)
        for (int oy = 0; oy < y->h; oy++)
            for (int ox = 0; ox < y->w; ox++) {
                const int want = reference_index(c, &t, x, p, oy, ox);
                const int where[4] = { p / c->c, p % c->c, oy, ox };
                if (training)
                    eq_check_compare(&places, where, index[at(y, p, oy, ox)], want, 0);
                eq_check_compare(&values, where, (double)value[at(y, p, oy, ox)], (double)x[at(&t, p, want / t.w, want % t.w)],
                                 0);
            }
    if (training)
        eq_check_compared(&places, "place of the maximum");
    eq_check_compared(&values, "maximum");
    free(x);
    eq_check_call_free(&call);
}

enum add_mode { ADD_NONE, ADD_APART, ADD_IN_PLACE };

static void check_gradient(const struct pool_case *c, enum add_mode mode)
{
    const int block = eq_check_device->target.block, oh = (c->ih + 2 * c->a.pad_h - c->a.kh) / c->a.stride_h + 1;
    const int ow = (c->iw + 2 * c->a.pad_w - c->a.kw) / c->a.stride_w + 1;
    const struct eq_tensor t = eq_tensor_blocked(c->n, c->c, c->ih, c->iw, block, mode == ADD_APART ? c->x_halo : 0);
    const struct eq_tensor dy = eq_tensor_blocked(c->n, c->c, oh, ow, block, c->y_halo);
    struct eq_tensor index = eq_tensor_blocked(c->n, c->c, oh, ow, block, 0);
    index.dtype = EQ_I32;
    const size_t elems = eq_tensor_logical(&t), outputs = eq_tensor_logical(&dy);
    float *x = input_values(c, elems), *dy_values = eq_check_uniform("dy", outputs, 0),
          *add = eq_check_uniform("add", elems, 0);
    int32_t *index_values = eq_check_malloc(outputs, sizeof *index_values);
    double *want = eq_check_calloc(elems, sizeof *want);
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
    struct eq_check_call call = {
        .name = c->name,
        .op = &eq_op_pool_max_grad,
        .attributes = &attributes,
        .num_inputs = 3,
        .input = { { dy, dy_values, false }, { index, index_values, false }, { t, mode == ADD_NONE ? NULL : add, false } },
        .output_halo = c->x_halo,
        .in_place = mode == ADD_IN_PLACE
    };
    eq_check_call_run(&call);
    EQ_CHECK_INT(eq_op_pool_max_grad.in_place(&call.shaped, 0), mode == ADD_NONE ? -1 : 2);
    // At most kh * kw + 1 <= 21 terms of size 1: 21 roundings of a sum below 21.
    eq_check_close(&call, 0, want, NULL, 21 * 0x1p-24);
    eq_check_call_free(&call);
    free(x);
    free(dy_values);
    free(add);
    free(index_values);
    free(want);
}

static void check_variant(void *user)
{
    const struct pool_case *c = user;
    check_forward(c, true);
    check_forward(c, false);
    check_gradient(c, ADD_NONE);
    check_gradient(c, ADD_APART);
    check_gradient(c, ADD_IN_PLACE);
}

static void test_values(int index)
{
    struct pool_case c = cases[index];
    if (!eq_check_is_small() || c.is_tiny)
        eq_check_each_variant(c.ih < 20, check_variant, &c);
}

// A NaN wins its windows, the last of several (as in PyTorch); a window of -infinity has its first pixel.
static void check_nan_and_infinity(void *user)
{
    static const struct eq_pool_max_attributes a = { 2, 2, 1, 1, 0, 0 };
    const float x[] = { 1, NAN, 2,   -INFINITY, -INFINITY, //
                        5, 3,   NAN, -INFINITY, -INFINITY };
    const int32_t want[] = { 1, 7, 7, 3 };
    (void)user;
    const struct eq_tensor t = eq_tensor_blocked(1, 1, 2, 5, eq_check_device->target.block, 0);
    struct eq_check_call call = {
        .name = "NaN", .op = &eq_op_pool_max, .attributes = &a, .training = true, .num_inputs = 1, .input = { { t, x, false } }
    };
    struct eq_check_comparison places = { .num = 0 }, values = { .num = 0 };
    eq_check_call_run(&call);
    for (int i = 0; i < 4; i++) {
        eq_check_compare_at(&places, (size_t)i, ((const int32_t *)call.output[1])[i], want[i], 0);
        eq_check_compare_at(&values, (size_t)i, (double)((const float *)call.output[0])[i], i == 3 ? -INFINITY : NAN, 0);
    }
    eq_check_compared(&places, "place of the maximum");
    eq_check_compared(&values, "maximum");
    eq_check_call_free(&call);
}

static void test_nan_and_infinity(int index)
{
    (void)index;
    eq_check_each_variant(true, check_nan_and_infinity, NULL);
}

EQ_CHECK_SUITE(eq_suite_pool_max, "pool_max", { "values", test_values, NUM_CASES },
               { "NaN and infinity", test_nan_and_infinity, 0 })

// The three convolution ops against sums in double, in both kernel families and, for the small cases, with every block size.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conv2d_cases.h"
#include "op/conv2d.h"
#include "support.h"

enum { NUM_CASES = sizeof conv2d_cases / sizeof *conv2d_cases };

static struct conv2d_case normalised(struct conv2d_case c)
{
    c.sh = c.sh ? c.sh : 1;
    c.sw = c.sw ? c.sw : 1;
    c.groups = c.groups ? c.groups : 1;
    return c;
}

// A case with its tensors and values, plain order: x and add [n, ic, ih, iw], w [oc, ic / groups, kh, kw], dz [n, oc, oh, ow].
struct data {
    struct conv2d_case c;
    int oh, ow;
    struct eq_conv2d_attributes attributes;
    struct eq_tensor xt, wt, zt;
    float *x, *w, *dz, *add;
    bool is_aligned; // where operands lie
};

static struct data make_data(struct conv2d_case c, enum eq_conv2d_algorithm algorithm)
{
    const struct eq_target *target = &eq_test_device->target;
    struct data d = { .c = c, .attributes = { c.sh, c.sw, c.ph, c.pw, .algorithm = algorithm, .groups = c.groups } };
    d.oh = (c.ih + 2 * c.ph - c.kh) / c.sh + 1;
    d.ow = (c.iw + 2 * c.pw - c.kw) / c.sw + 1;
    d.xt = eq_tensor_blocked(c.n, c.ic, c.ih, c.iw, c.is_plain ? 1 : target->block, 0);
    d.wt = eq_conv2d_weight(target, &d.xt, c.oc, c.kh, c.kw, c.groups);
    d.zt = eq_tensor_blocked(c.n, c.oc, d.oh, d.ow, target->block, 0);
    d.x = eq_test_values("x", eq_tensor_logical(&d.xt), c.mean, 1);
    d.w = eq_test_values("w", eq_tensor_logical(&d.wt), 0, 1);
    d.dz = eq_test_values("dz", eq_tensor_logical(&d.zt), 0, 1);
    d.add = eq_test_values("add", eq_tensor_logical(&d.xt), 0, 1);
    return d;
}

static void free_data(struct data *d)
{
    free(d->x);
    free(d->w);
    free(d->dz);
    free(d->add);
}

// ---- references in double: value and the sum of squared products

struct sum {
    double value, squares;
    int terms;
};

static void sum_add(struct sum *s, double product)
{
    s->value += product;
    s->squares += product * product;
    s->terms++;
}

static double at(const float *values, const struct eq_tensor *t, int n, int c, int y, int x)
{
    return values[(((size_t)n * (size_t)t->c + (size_t)c) * (size_t)t->h + (size_t)y) * (size_t)t->w + (size_t)x];
}

// z[n, o, y, x]
static struct sum ref_forward(const struct data *d, int n, int o, int y, int x)
{
    const struct conv2d_case *c = &d->c;
    struct sum s = { 0, 0, 0 };
    const int per_in = c->ic / c->groups, first = o / (c->oc / c->groups) * per_in;
    for (int i = 0; i < per_in; i++)
        for (int p = 0; p < c->kh; p++)
            for (int q = 0; q < c->kw; q++) {
                const int iy = y * c->sh + p - c->ph, ix = x * c->sw + q - c->pw;
                if (iy >= 0 && iy < c->ih && ix >= 0 && ix < c->iw)
                    sum_add(&s, at(d->x, &d->xt, n, first + i, iy, ix) * at(d->w, &d->wt, o, i, p, q));
            }
    return s;
}

// dx[n, i, y, x]
static struct sum ref_data_grad(const struct data *d, int n, int i, int y, int x)
{
    const struct conv2d_case *c = &d->c;
    struct sum s = { 0, 0, 0 };
    const int per_in = c->ic / c->groups, per_out = c->oc / c->groups, first = i / per_in * per_out;
    for (int o = first; o < first + per_out; o++)
        for (int p = 0; p < c->kh; p++)
            for (int q = 0; q < c->kw; q++) {
                const int zy = y + c->ph - p, zx = x + c->pw - q;
                if (zy >= 0 && zy % c->sh == 0 && zy / c->sh < d->oh && zx >= 0 && zx % c->sw == 0 && zx / c->sw < d->ow)
                    sum_add(&s, at(d->dz, &d->zt, n, o, zy / c->sh, zx / c->sw) * at(d->w, &d->wt, o, i % per_in, p, q));
            }
    return s;
}

// dw[o, i, p, q]
static struct sum ref_weight_grad(const struct data *d, int o, int i, int p, int q)
{
    const struct conv2d_case *c = &d->c;
    struct sum s = { 0, 0, 0 };
    const int first = o / (c->oc / c->groups) * (c->ic / c->groups);
    for (int n = 0; n < c->n; n++)
        for (int y = 0; y < d->oh; y++)
            for (int x = 0; x < d->ow; x++) {
                const int iy = y * c->sh + p - c->ph, ix = x * c->sw + q - c->pw;
                if (iy >= 0 && iy < c->ih && ix >= 0 && ix < c->iw)
                    sum_add(&s, at(d->x, &d->xt, n, first + i, iy, ix) * at(d->dz, &d->zt, n, o, y, x));
            }
    return s;
}

// Compares output 0. Tolerance: a sum of k rounded products errs by about sqrt(k) * 2^-24 of the largest partial sum, which is
// about the root of the sum of squared products for random signs, and the result itself with a mean; times 8 for the order of
// summation; never above 1e-5. Winograd's transforms add values with factors up to 4 (and 8), and take them off again: F(2x2)
// errs about as much as a direct sum, F(4x4) five times, of the largest values under the tile rather than of this sum's.
static const double tolerance_factor[] = { [EQ_CONV2D_DIRECT] = 8, [EQ_CONV2D_WINOGRAD_2] = 16, [EQ_CONV2D_WINOGRAD_4] = 96 };
static const double tolerance_most[] = {
    [EQ_CONV2D_DIRECT] = 1e-5, [EQ_CONV2D_WINOGRAD_2] = 2e-5, [EQ_CONV2D_WINOGRAD_4] = 1e-4
};

static void compare(const struct eq_test_call *call, const struct data *d, const float *add,
                    struct sum (*reference)(const struct data *, int, int, int, int))
{
    const struct eq_tensor *t = &call->shaped.output[0];
    const enum eq_conv2d_algorithm algorithm = d->attributes.algorithm;
    double *want = eq_malloc(eq_tensor_logical(t), sizeof *want),
           *tolerance = eq_malloc(eq_tensor_logical(t), sizeof *tolerance);
    size_t e = 0;
    for (int n = 0; n < t->n; n++)
        for (int k = 0; k < t->c; k++)
            for (int y = 0; y < t->h; y++)
                for (int x = 0; x < t->w; x++, e++) {
                    const struct sum s = reference(d, n, k, y, x);
                    const double extra = add ? add[e] : 0.0, relative =
                        fmin(tolerance_most[algorithm], tolerance_factor[algorithm] * sqrt(s.terms + 1.0) * 0x1p-24);
                    want[e] = s.value + extra;
                    tolerance[e] = relative * (sqrt(s.squares) + fabs(s.value) + fabs(extra));
                }
    eq_test_close(call, 0, want, tolerance, 0);
    free(want);
    free(tolerance);
}

// ---- values

static void check_forward(const struct data *d)
{
    struct eq_test_call call = { .name = d->c.name,
                                 .is_aligned = d->is_aligned,
                                 .op = &eq_op_conv2d,
                                 .attributes = &d->attributes,
                                 .num_inputs = 2,
                                 .input = { { d->xt, d->x, false }, { d->wt, d->w, false } },
                                 .output_halo = d->c.halo,
                                 .is_workspace = { false, true } };
    call.input[0].tensor.halo = d->c.halo;
    eq_test_call_run(&call);
    ck_assert_int_eq(call.shaped.output[0].h, d->oh);
    ck_assert_int_eq(call.shaped.output[0].w, d->ow);
    compare(&call, d, NULL, ref_forward);
    eq_test_call_free(&call);
}

enum add_mode { ADD_NONE, ADD_APART, ADD_IN_PLACE };

static void check_data_grad(const struct data *d, enum add_mode mode)
{
    const struct eq_conv2d_data_grad_attributes attributes = { d->attributes, d->c.ih, d->c.iw };
    struct eq_test_call call = {
        .name = d->c.name,
        .is_aligned = d->is_aligned,
        .op = &eq_op_conv2d_data_grad,
        .attributes = &attributes,
        .num_inputs = 3,
        .input = { { d->zt, d->dz, false }, { d->wt, d->w, false }, { d->xt, mode == ADD_NONE ? NULL : d->add, false } },
        .output_halo = d->c.halo,
        .in_place = mode == ADD_IN_PLACE,
        .is_workspace = { false, true }
    };
    call.input[0].tensor.halo = d->c.halo;
    call.input[2].tensor.halo = mode == ADD_IN_PLACE ? d->c.halo : 0;
    eq_test_call_run(&call);
    ck_assert_int_eq(call.op->in_place(&call.shaped, 0), mode == ADD_NONE ? -1 : 2);
    compare(&call, d, mode == ADD_NONE ? NULL : d->add, ref_data_grad);
    eq_test_call_free(&call);
}

// Returns the workspace's size: more than one element when there are partial sums.
static size_t check_weight_grad(const struct data *d)
{
    const struct eq_conv2d_weight_grad_attributes attributes = { d->attributes, d->c.kh, d->c.kw };
    struct eq_test_call call = { .name = d->c.name,
                                 .is_aligned = d->is_aligned,
                                 .op = &eq_op_conv2d_weight_grad,
                                 .attributes = &attributes,
                                 .num_inputs = 2,
                                 .input = { { d->xt, d->x, false }, { d->zt, d->dz, false } },
                                 .is_workspace = { false, true } };
    call.input[0].tensor.halo = d->c.halo;
    call.input[1].tensor.halo = d->c.halo;
    eq_test_call_run(&call);
    compare(&call, d, NULL, ref_weight_grad);
    const size_t workspace = eq_tensor_elems(&call.shaped.output[1]);
    eq_test_call_free(&call);
    return workspace;
}

// Winograd's unrolled kernels take other compilers than PoCL's minutes: there the tiny cases in blocks of 16 have to do. F(4x4)
// for GPUs, 36 small products, takes Oclgrind minutes: there F(2x2) has to do, the same kernels.
static bool is_tested(const struct data *d)
{
    const struct conv2d_case *c = &d->c;
    if (d->attributes.algorithm == EQ_CONV2D_DIRECT)
        return true;
    if (eq_test_is_tiny() && eq_test_device->target.family == EQ_FAMILY_SIMT && d->attributes.algorithm == EQ_CONV2D_WINOGRAD_4)
        return false;
    return (eq_test_is_pocl() || (c->is_tiny && d->zt.block == 16)) &&
           eq_conv2d_winograd_fits(&eq_test_device->target, &d->attributes, c->kh, c->kw, d->xt.block);
}

START_TEST(test_values)
{
    const struct conv2d_case c = normalised(conv2d_cases[_i]);
    if (eq_test_is_tiny() && !c.is_tiny)
        return;
    // the tiny cases have every kernel: they do for the other block sizes
    for (int v = 0; v < eq_test_num_variants(c.is_tiny); v++) {
        eq_test_variant(v);
        for (enum eq_conv2d_algorithm a = EQ_CONV2D_DIRECT; a <= EQ_CONV2D_WINOGRAD_4; a++) {
            struct data d = make_data(c, a);
            d.is_aligned = _i % 2;
            if (is_tested(&d)) {
                check_forward(&d);
                check_data_grad(&d, ADD_NONE);
                check_data_grad(&d, ADD_APART);
                check_data_grad(&d, ADD_IN_PLACE);
                check_weight_grad(&d);
            }
            free_data(&d);
        }
    }
}
END_TEST

// The split of the weight gradient follows the number of compute units: many of them on a small filter give parts to merge.
START_TEST(test_weight_grad_parts)
{
    const struct conv2d_case c = { .name = "parts", .n = 3, .ic = 16, .ih = 20, .iw = 20, .oc = 16, .kh = 1, .kw = 1 };
    for (int v = 0; v < eq_test_num_variants(false) && !eq_test_is_tiny(); v++) {
        eq_test_variant(v);
        eq_test_device->target.compute_units = 64;
        struct data d = make_data(normalised(c), EQ_CONV2D_DIRECT);
        ck_assert_uint_ge(check_weight_grad(&d), 5 * 16 * 16);
        free_data(&d);
    }
}
END_TEST

// Above 4 MiB the CPU's weight gradient is cut for the cache, whatever the number of compute units.
START_TEST(test_weight_grad_large)
{
    const struct eq_target target = eq_target_default();
    const struct eq_conv2d_weight_grad_attributes attributes = { { 1, 1, 0, 0 }, 1, 1 };
    struct eq_call call = { .op = &eq_op_conv2d_weight_grad,
                            .attributes = &attributes,
                            .target = &target,
                            .num_inputs = 2,
                            .has = { true, true },
                            .input = { eq_tensor_blocked(8, 256, 56, 56, target.block, 0),
                                       eq_tensor_blocked(8, 64, 56, 56, target.block, 0) } };
    EQ_TEST_OK(call.op->shape(&call));
    // 25088 pixels of 256 bytes in parts of at most 512 KiB
    ck_assert_uint_ge(eq_tensor_elems(&call.output[1]), 12 * 256 * 64);
    ck_assert_uint_le(eq_tensor_elems(&call.output[1]), 16 * 256 * 64);
}
END_TEST

// Winograd's error on the layers of ResNet-50 that it takes: outputs of all three directions, spread over the tensor, against
// sums in double, relative to the root mean square of those outputs. Bounds: 1e-5, what single ops are held to, for F(2x2), and
// half of the 1e-4 that no op may pass for F(4x4).
enum { NUM_SAMPLES = 96 };

static double sampled_error(const struct eq_test_call *call, const struct data *d,
                            struct sum (*reference)(const struct data *, int, int, int, int))
{
    const struct eq_tensor *t = &call->shaped.output[0];
    const size_t num = eq_tensor_logical(t);
    const float *got = call->output[0];
    double worst = 0, squares = 0;
    for (size_t s = 0; s < NUM_SAMPLES; s++) {
        const size_t e = (s * 2654435761u + 12345) % num, plane = (size_t)t->h * (size_t)t->w;
        const size_t nc = e / plane, yx = e % plane;
        const struct sum want = reference(d, (int)(nc / (size_t)t->c), (int)(nc % (size_t)t->c), (int)(yx / (size_t)t->w),
                                          (int)(yx % (size_t)t->w));
        worst = fmax(worst, fabs(got[e] - want.value));
        squares += want.value * want.value;
    }
    return worst / sqrt(squares / NUM_SAMPLES);
}

static void check_error(const struct conv2d_case *c, enum eq_conv2d_algorithm algorithm)
{
    static const double bounds[] = { [EQ_CONV2D_WINOGRAD_2] = 1e-5, [EQ_CONV2D_WINOGRAD_4] = 5e-5 };
    const int tile = algorithm == EQ_CONV2D_WINOGRAD_2 ? 2 : 4;
    struct data d = make_data(*c, algorithm);
    const struct eq_conv2d_data_grad_attributes data = { d.attributes, c->ih, c->iw };
    const struct eq_conv2d_weight_grad_attributes weight = { d.attributes, 3, 3 };
    struct eq_test_call calls[] = {
        { .name = "layer", .op = &eq_op_conv2d, .attributes = &d.attributes, .num_inputs = 2,
          .input = { { d.xt, d.x, false }, { d.wt, d.w, false } }, .is_workspace = { false, true } },
        { .name = "layer", .op = &eq_op_conv2d_data_grad, .attributes = &data, .num_inputs = 3,
          .input = { { d.zt, d.dz, false }, { d.wt, d.w, false }, { d.xt, NULL, false } },
          .is_workspace = { false, true } },
        { .name = "layer", .op = &eq_op_conv2d_weight_grad, .attributes = &weight, .num_inputs = 2,
          .input = { { d.xt, d.x, false }, { d.zt, d.dz, false } }, .is_workspace = { false, true } },
    };
    struct sum (*const references[])(const struct data *, int, int, int, int) = { ref_forward, ref_data_grad, ref_weight_grad };
    double errors[3];
    for (int k = 0; k < 3; k++) {
        eq_test_call_run(&calls[k]);
        errors[k] = sampled_error(&calls[k], &d, references[k]);
        eq_test_call_free(&calls[k]);
    }
    printf("# F(%d x %d), %s, %d channels of %d x %d: forward %.1e, data gradient %.1e, weight gradient %.1e\n", tile, tile,
           eq_test_variant_name(), c->ic, c->ih, c->iw, errors[0], errors[1], errors[2]);
    for (int k = 0; k < 3; k++)
        ck_assert_msg(errors[k] < bounds[algorithm], "direction %d: error %.2e, bound %.2e", k, errors[k], bounds[algorithm]);
    free_data(&d);
}

static struct conv2d_case layer(int n, int channels, int size)
{
    return (struct conv2d_case){ .name = "layer", .n = n, .ic = channels, .ih = size, .iw = size, .oc = channels, .kh = 3,
                                 .kw = 3, .sh = 1, .sw = 1, .ph = 1, .pw = 1 };
}

START_TEST(test_winograd_error)
{
    static const int layers[][2] = { { 64, 56 }, { 128, 28 }, { 256, 14 }, { 512, 7 } };
    const struct conv2d_case c = layer(2, layers[_i][0], layers[_i][1]);
    if (!eq_test_is_pocl())
        return;
    check_error(&c, EQ_CONV2D_WINOGRAD_2);
    check_error(&c, EQ_CONV2D_WINOGRAD_4);
}
END_TEST

// The same on the kernels for GPUs: more tiles than a chunk has, in all directions; and a filter too small to fill the device,
// so that its gradient is summed in parts.
START_TEST(test_winograd_chunks)
{
    const struct conv2d_case cases[] = { layer(58, 256, 14), layer(10, 64, 56) };
    if (!eq_test_is_pocl())
        return;
    eq_test_variant(1);
    ck_assert_int_eq(eq_test_device->target.family, EQ_FAMILY_SIMT);
    eq_test_device->target.compute_units = 64;
    check_error(&cases[_i], EQ_CONV2D_WINOGRAD_4);
}
END_TEST

// Each row is a call that shape() refuses, with what its text must name.
START_TEST(test_refused)
{
    const struct eq_target target = eq_target_default();
    const struct eq_tensor x = eq_tensor_blocked(2, 32, 9, 7, target.block, 0);
    static const struct {
        struct eq_conv2d_attributes attributes;
        int ic, kh, kw;
        eq_status status;
        const char *text[2];
    } rows[] = {
        { { 1, 1, 1, 1 }, 48, 3, 3, EQ_ERR_SHAPE, { "32", "48" } },
        { { 0, 1, 1, 1 }, 32, 3, 3, EQ_ERR_ARGUMENT, { "0 x 1", "stride" } },
        { { 1, -2, 1, 1 }, 32, 3, 3, EQ_ERR_ARGUMENT, { "1 x -2", "stride" } },
        { { 1, 1, -1, 1 }, 32, 3, 3, EQ_ERR_ARGUMENT, { "-1 x 1", "padding" } },
        { { 1, 1, 1, 1 }, 32, 12, 3, EQ_ERR_SHAPE, { "12 x 3", "11 x 9" } },
        { { 1, 1, 0, 0 }, 32, 3, 8, EQ_ERR_SHAPE, { "3 x 8", "9 x 7" } },
        { { 1, 1, 1, 1, .groups = 3 }, 32, 3, 3, EQ_ERR_SHAPE, { "3 groups", "32 input and 64" } },
        { { 1, 1, 1, 1, .groups = -1 }, 32, 3, 3, EQ_ERR_ARGUMENT, { "-1", "groups" } },
        { { 2, 1, 1, 1, .algorithm = EQ_CONV2D_WINOGRAD_4 }, 32, 3, 3, EQ_ERR_UNSUPPORTED, { "2 x 1", "Winograd" } },
        { { 1, 1, 1, 1, .algorithm = EQ_CONV2D_WINOGRAD_2 }, 32, 1, 3, EQ_ERR_UNSUPPORTED, { "1 x 3", "Winograd" } },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct eq_call call = { .op = &eq_op_conv2d,
                                .attributes = &rows[i].attributes,
                                .target = &target,
                                .num_inputs = 2,
                                .has = { true, true },
                                .input = {
                                    x, eq_tensor_weight(64, rows[i].ic, rows[i].kh, rows[i].kw, target.block, target.block) } };
        ck_assert_msg(call.op->shape(&call) == rows[i].status, "row %zu gives another status: %s", i, eq_last_error());
        for (int t = 0; t < 2; t++)
            ck_assert_msg(strstr(eq_last_error(), rows[i].text[t]), "row %zu does not name %s: %s", i, rows[i].text[t],
                          eq_last_error());
    }
    const struct eq_conv2d_data_grad_attributes data = { { 1, 1, 1, 1 }, 9, 7 };
    struct eq_call call = { .op = &eq_op_conv2d_data_grad,
                            .attributes = &data,
                            .target = &target,
                            .num_inputs = 3,
                            .has = { true, true, false },
                            .input = { eq_tensor_blocked(2, 64, 8, 7, target.block, 0),
                                       eq_tensor_weight(64, 32, 3, 3, target.block, target.block) } };
    ck_assert_int_eq(call.op->shape(&call), EQ_ERR_SHAPE);
    ck_assert_msg(strstr(eq_last_error(), "64 x 8 x 7") && strstr(eq_last_error(), "64 x 9 x 7"), "%s", eq_last_error());
    const struct eq_conv2d_weight_grad_attributes weight = { { 2, 2, 1, 1 }, 3, 3 };
    call = (struct eq_call){ .op = &eq_op_conv2d_weight_grad,
                             .attributes = &weight,
                             .target = &target,
                             .num_inputs = 2,
                             .has = { true, true },
                             .input = { x, eq_tensor_blocked(2, 64, 9, 7, target.block, 0) } };
    ck_assert_int_eq(call.op->shape(&call), EQ_ERR_SHAPE);
    ck_assert_msg(strstr(eq_last_error(), "9 x 7") && strstr(eq_last_error(), "5 x 4"), "%s", eq_last_error());
}
END_TEST

START_TEST(test_cost_and_halo)
{
    struct eq_target target = eq_target_default();
    const struct eq_conv2d_attributes attributes = { 2, 2, 3, 3 };
    const struct eq_tensor x = eq_tensor_blocked(2, 3, 224, 224, 1, 0);
    struct eq_call call = { .op = &eq_op_conv2d,
                            .attributes = &attributes,
                            .target = &target,
                            .num_inputs = 2,
                            .has = { true, true },
                            .input = { x, eq_conv2d_weight(&target, &x, 64, 7, 7, 1) } };
    EQ_TEST_OK(call.op->shape(&call));
    ck_assert(call.op->cost(&call).flops == 2.0 * 2 * 64 * 112 * 112 * 3 * 49);
    ck_assert_int_eq(call.op->halo(&call, 0), 3);
    ck_assert_int_eq(call.op->halo(&call, 1), 0);
    target.family = EQ_FAMILY_SIMT;
    ck_assert_int_eq(call.op->halo(&call, 0), 0);
    target.family = EQ_FAMILY_VECTOR;
    // A 5x5 filter with padding 1 reaches three pixels over the border of dz; with padding 4 none.
    for (int pad = 1; pad <= 4; pad += 3) {
        const struct eq_conv2d_data_grad_attributes data = { { 1, 1, pad, pad }, 8, 8 };
        call = (struct eq_call){ .op = &eq_op_conv2d_data_grad,
                                 .attributes = &data,
                                 .target = &target,
                                 .num_inputs = 3,
                                 .has = { true, true, false },
                                 .input = { eq_tensor_blocked(1, 16, 4 + 2 * pad, 4 + 2 * pad, target.block, 0),
                                            eq_tensor_weight(16, 16, 5, 5, target.block, target.block) } };
        EQ_TEST_OK(call.op->shape(&call));
        ck_assert_int_eq(call.op->halo(&call, 0), 4 - pad);
    }
}
END_TEST

// ---- gradient(): a tape that writes down what it is told

struct record {
    const struct eq_op *op[4];
    int inputs[4][3], given[4], given_input[4], num_calls, num_given, taken;
    struct eq_conv2d_weight_grad_attributes weight;
    struct eq_conv2d_data_grad_attributes data;
};

static eq_status record_call(struct eq_tape *tape, const struct eq_op *op, const void *attributes, const int *inputs,
                             int num_inputs, int *outputs)
{
    struct record *r = tape->graph;
    memcpy(r->inputs[r->num_calls], inputs, sizeof(int) * (size_t)num_inputs);
    if (op == &eq_op_conv2d_weight_grad)
        memcpy(&r->weight, attributes, sizeof r->weight);
    else
        memcpy(&r->data, attributes, sizeof r->data);
    outputs[0] = 100 + r->num_calls;
    outputs[1] = 200 + r->num_calls;
    r->op[r->num_calls++] = op;
    return EQ_OK;
}

static int record_take(struct eq_tape *tape, int input)
{
    ck_assert_int_eq(input, 0);
    return ((struct record *)tape->graph)->taken;
}

static eq_status record_give(struct eq_tape *tape, int input, int value)
{
    struct record *r = tape->graph;
    r->given_input[r->num_given] = input;
    r->given[r->num_given++] = value;
    return EQ_OK;
}

START_TEST(test_gradient)
{
    const struct eq_target target = eq_target_default();
    const struct eq_conv2d_attributes attributes = { 2, 2, 1, 1 };
    struct eq_call call = { .op = &eq_op_conv2d,
                            .attributes = &attributes,
                            .target = &target,
                            .num_inputs = 2,
                            .has = { true, true },
                            .input = { eq_tensor_blocked(1, 16, 9, 8, target.block, 0),
                                       eq_tensor_weight(16, 16, 3, 3, target.block, target.block) } };
    EQ_TEST_OK(call.op->shape(&call));
    struct record r = { .taken = 77 };
    struct eq_tape tape = { .graph = &r,
                            .input = { 5, 6 },
                            .output = { 7, 8 },
                            .output_grad = { 9, EQ_NO_VALUE },
                            .wants = { true, true },
                            .call = record_call,
                            .take = record_take,
                            .give = record_give };
    EQ_TEST_OK(call.op->gradient(&call, &tape));
    ck_assert_int_eq(r.num_calls, 2);
    ck_assert_int_eq(r.num_given, 2);
    for (int i = 0; i < 2; i++) {
        const bool is_weight = r.op[i] == &eq_op_conv2d_weight_grad;
        ck_assert_int_eq(r.inputs[i][0], is_weight ? 5 : 9);
        ck_assert_int_eq(r.inputs[i][1], is_weight ? 9 : 6);
        if (!is_weight)
            ck_assert_int_eq(r.inputs[i][2], 77);
        ck_assert_int_eq(r.given_input[i], is_weight ? 1 : 0);
        ck_assert_int_eq(r.given[i], 100 + i);
    }
    ck_assert_int_eq(r.data.ih, 9);
    ck_assert_int_eq(r.data.iw, 8);
    ck_assert_int_eq(r.weight.kh, 3);
    ck_assert_int_eq(r.weight.conv.stride_h, 2);
    tape.wants[0] = false;
    r = (struct record){ .taken = EQ_NO_VALUE };
    EQ_TEST_OK(call.op->gradient(&call, &tape));
    ck_assert(r.num_calls == 1 && r.op[0] == &eq_op_conv2d_weight_grad);
}
END_TEST

EQ_TEST_MAIN("conv2d", { test_values, NUM_CASES }, { test_weight_grad_parts, 1 }, { test_weight_grad_large, 1 },
             { test_winograd_error, 4 }, { test_winograd_chunks, 2 }, { test_refused, 1 }, { test_cost_and_halo, 1 },
             { test_gradient, 1 })

// The three convolution ops against sums in double, in both kernel families and, for the small cases, with every block size.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "op/conv2d.h"
#include "verify/check.h"
#include "verify/conv2d_cases.h"

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
    const struct eq_target *target = &eq_check_device->target;
    struct data d = { .c = c, .attributes = { c.sh, c.sw, c.ph, c.pw, .algorithm = algorithm, .groups = c.groups } };
    d.oh = (c.ih + 2 * c.ph - c.kh) / c.sh + 1;
    d.ow = (c.iw + 2 * c.pw - c.kw) / c.sw + 1;
    d.xt = eq_tensor_blocked(c.n, c.ic, c.ih, c.iw, c.is_plain ? 1 : target->block, 0);
    d.wt = eq_conv2d_weight(target, &d.xt, c.oc, c.kh, c.kw, c.groups);
    d.zt = eq_tensor_blocked(c.n, c.oc, d.oh, d.ow, target->block, 0);
    d.x = eq_check_values("x", eq_tensor_logical(&d.xt), c.mean, 1);
    d.w = eq_check_values("w", eq_tensor_logical(&d.wt), 0, 1);
    d.dz = eq_check_values("dz", eq_tensor_logical(&d.zt), 0, 1);
    d.add = eq_check_values("add", eq_tensor_logical(&d.xt), 0, 1);
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
// summation; never above 1e-5. Winograd's transforms add values with factors (F(4x4): up to 3.4), and take them off again:
// F(2x2) errs about as much as a direct sum, F(4x4) three times, of the largest values under the tile rather than of this
// sum's.
static const double tolerance_factor[] = {
    [EQ_CONV2D_DIRECT] = 8, [EQ_CONV2D_WINOGRAD_2] = 16, [EQ_CONV2D_WINOGRAD_4] = 48, [EQ_CONV2D_WINOGRAD_4_LATE] = 48
};
static const double tolerance_most[] = {
    [EQ_CONV2D_DIRECT] = 1e-5, [EQ_CONV2D_WINOGRAD_2] = 2e-5, [EQ_CONV2D_WINOGRAD_4] = 5e-5, [EQ_CONV2D_WINOGRAD_4_LATE] = 5e-5
};

static void compare(const struct eq_check_call *call, const struct data *d, const float *add,
                    struct sum (*reference)(const struct data *, int, int, int, int))
{
    const struct eq_tensor *t = &call->shaped.output[0];
    const enum eq_conv2d_algorithm algorithm = d->attributes.algorithm;
    double *want = eq_check_malloc(eq_tensor_logical(t), sizeof *want),
           *tolerance = eq_check_malloc(eq_tensor_logical(t), sizeof *tolerance);
    size_t e = 0;
    for (int n = 0; n < t->n; n++)
        for (int k = 0; k < t->c; k++)
            for (int y = 0; y < t->h; y++)
                for (int x = 0; x < t->w; x++, e++) {
                    const struct sum s = reference(d, n, k, y, x);
                    const double extra = add ? add[e] : 0.0,
                                 relative = fmin(tolerance_most[algorithm],
                                                 tolerance_factor[algorithm] * sqrt(s.terms + 1.0) * 0x1p-24);
                    want[e] = s.value + extra;
                    tolerance[e] = relative * (sqrt(s.squares) + fabs(s.value) + fabs(extra));
                }
    eq_check_close(call, 0, want, tolerance, 0);
    free(want);
    free(tolerance);
}

// ---- values

static void check_forward(const struct data *d)
{
    struct eq_check_call call = { .name = d->c.name,
                                  .is_aligned = d->is_aligned,
                                  .op = &eq_op_conv2d,
                                  .attributes = &d->attributes,
                                  .num_inputs = 2,
                                  .input = { { d->xt, d->x, false }, { d->wt, d->w, false } },
                                  .output_halo = d->c.halo,
                                  .is_workspace = { false, true } };
    call.input[0].tensor.halo = d->c.halo;
    eq_check_call_run(&call);
    EQ_CHECK_INT(call.shaped.output[0].h, d->oh);
    EQ_CHECK_INT(call.shaped.output[0].w, d->ow);
    compare(&call, d, NULL, ref_forward);
    eq_check_call_free(&call);
}

// Moments of an image's channel in all parts together, against those of the z that was stored.
static void compare_moments(const struct eq_check_call *call, int n, int c)
{
    const struct eq_tensor *z = &call->shaped.output[0], *t = &call->shaped.output[2];
    const size_t pixels = (size_t)z->h * (size_t)z->w, parts = (size_t)t->h, row = (size_t)z->block;
    const float *plane = (const float *)call->output[0] + ((size_t)n * (size_t)z->c + (size_t)c) * pixels,
                *moments = (const float *)call->output[2] + ((size_t)(n * t->c + c / z->block)) * parts * 3 * row;
    double mean = 0, square = 0, largest = 0, num = 0, sum = 0, got = 0;
    for (size_t p = 0; p < pixels; p++) {
        mean += plane[p] / (double)pixels;
        largest = fmax(largest, fabs((double)plane[p]));
    }
    for (size_t p = 0; p < pixels; p++)
        square += (plane[p] - mean) * (plane[p] - mean);
    for (size_t p = 0; p < parts; p++) {
        const float *at = moments + p * 3 * row + (size_t)c % row;
        EQ_CHECK(at[2 * row] > 0, "part %zu of %zu has %g pixels", p, parts, (double)at[2 * row]);
        num += at[2 * row];
        sum += (double)at[0] * at[2 * row];
        got += at[row] + at[2 * row] * (at[0] - mean) * (at[0] - mean);
    }
    EQ_CHECK_INT((int)num, (int)pixels);
    EQ_CHECK(fabs(sum / num - mean) <= 1e-6 * largest, "image %d, channel %d: mean %.9g, not %.9g", n, c, sum / num, mean);
    EQ_CHECK(fabs(got - square) <= 1e-5 * square + 1e-12 * largest * largest * num,
             "image %d, channel %d: sum of squares about the mean %.9g, not %.9g", n, c, got, square);
}

static void check_moments(const struct data *d, int moment_tiles)
{
    struct eq_conv2d_attributes attributes = d->attributes;
    attributes.moment_tiles = moment_tiles;
    struct eq_check_call call = { .name = d->c.name,
                                  .is_aligned = d->is_aligned,
                                  .op = &eq_op_conv2d,
                                  .attributes = &attributes,
                                  .num_inputs = 2,
                                  .input = { { d->xt, d->x, false }, { d->wt, d->w, false } },
                                  .output_halo = d->c.halo,
                                  .is_workspace = { false, true } };
    const bool is_direct = d->attributes.algorithm == EQ_CONV2D_DIRECT && d->c.groups == 1;
    call.input[0].tensor.halo = d->c.halo;
    if (!is_direct || eq_check_device->target.family != EQ_FAMILY_VECTOR) {
        EQ_CHECK_INT(eq_conv2d_moment_tiles(&eq_check_device->target, &d->attributes, &d->xt, &d->wt), 0);
        eq_check_call_refused(&call, EQ_ERR_UNSUPPORTED, "gives no moments");
        return;
    }
    eq_check_call_run(&call);
    compare(&call, d, NULL, ref_forward);
    for (int i = 0; i < d->zt.n * d->zt.c; i++)
        compare_moments(&call, i / d->zt.c, i % d->zt.c);
    eq_check_call_free(&call);
}

enum add_mode { ADD_NONE, ADD_APART, ADD_IN_PLACE };

static void check_data_grad(const struct data *d, enum add_mode mode)
{
    const struct eq_conv2d_data_grad_attributes attributes = { d->attributes, d->c.ih, d->c.iw };
    struct eq_check_call call = {
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
    eq_check_call_run(&call);
    EQ_CHECK_INT(call.op->in_place(&call.shaped, 0), mode == ADD_NONE ? -1 : 2);
    compare(&call, d, mode == ADD_NONE ? NULL : d->add, ref_data_grad);
    eq_check_call_free(&call);
}

// Returns the workspace's size: more than one element when there are partial sums.
static size_t check_weight_grad(const struct data *d)
{
    const struct eq_conv2d_weight_grad_attributes attributes = { d->attributes, d->c.kh, d->c.kw };
    struct eq_check_call call = { .name = d->c.name,
                                  .is_aligned = d->is_aligned,
                                  .op = &eq_op_conv2d_weight_grad,
                                  .attributes = &attributes,
                                  .num_inputs = 2,
                                  .input = { { d->xt, d->x, false }, { d->zt, d->dz, false } },
                                  .is_workspace = { false, true } };
    call.input[0].tensor.halo = d->c.halo;
    call.input[1].tensor.halo = d->c.halo;
    eq_check_call_run(&call);
    compare(&call, d, NULL, ref_weight_grad);
    const size_t workspace = eq_tensor_elems(&call.shaped.output[1]);
    eq_check_call_free(&call);
    return workspace;
}

// Winograd's unrolled kernels take other compilers than PoCL's minutes: there the tiny cases in blocks of 16 have to do, of the
// kernels for GPUs. F(4x4) of those, 36 small products, takes Oclgrind minutes: there F(2x2) has to do, the same kernels.
static bool is_tested(const struct data *d)
{
    const struct conv2d_case *c = &d->c;
    const bool is_simt = eq_check_device->target.family == EQ_FAMILY_SIMT;
    if (d->attributes.algorithm == EQ_CONV2D_DIRECT)
        return true;
    if (eq_check_is_tiny() && is_simt && d->attributes.algorithm == EQ_CONV2D_WINOGRAD_4)
        return false;
    return (eq_check_is_patient() || (c->is_tiny && d->zt.block == 16 && (is_simt || eq_check_is_small()))) &&
           eq_conv2d_winograd_fits(&eq_check_device->target, &d->attributes, c->kh, c->kw, d->xt.block);
}

// NULL: the direct kernels, which have a family's name alone.
static const char *const algorithm_names[] = {
    [EQ_CONV2D_WINOGRAD_2] = "Winograd F(2x2)",
    [EQ_CONV2D_WINOGRAD_4] = "Winograd F(4x4)",
    [EQ_CONV2D_WINOGRAD_4_LATE] = "Winograd F(4x4), late",
};

// Kernels for processors that give moments take Mesa's compiler 10 to 80 seconds each in blocks of 16, but one in those of 4,
// which it has on its processor: where a run is not patient, these are looked at.
static void check_moments_of(int index, enum eq_conv2d_algorithm algorithm)
{
    int *block = &eq_check_device->target.block;
    const int before = *block;
    const bool is_vector = eq_check_device->target.family == EQ_FAMILY_VECTOR;
    *block = is_vector && !eq_check_is_patient() && !eq_check_is_small() ? 4 : before;
    eq_check_kernels(algorithm_names[algorithm]); // with the block
    struct data d = make_data(normalised(conv2d_cases[index]), algorithm);
    d.is_aligned = index % 2;
    check_moments(&d, 1 + index % 3);
    free_data(&d);
    *block = before;
    eq_check_kernels(algorithm_names[algorithm]);
}

static void check_variant(void *user)
{
    const int index = *(const int *)user;
    for (enum eq_conv2d_algorithm a = EQ_CONV2D_DIRECT; a <= EQ_CONV2D_WINOGRAD_4_LATE; a++) {
        struct data d = make_data(normalised(conv2d_cases[index]), a);
        d.is_aligned = index % 2;
        eq_check_kernels(algorithm_names[a]);
        const bool runs = is_tested(&d);
        if (runs)
            check_forward(&d);
        if (runs)
            check_moments_of(index, a);
        if (runs && a != EQ_CONV2D_WINOGRAD_4_LATE) {
            check_data_grad(&d, ADD_NONE);
            check_data_grad(&d, ADD_APART);
            check_data_grad(&d, ADD_IN_PLACE);
            check_weight_grad(&d);
        }
        free_data(&d);
    }
}

// The tiny cases have every kernel: they do for the other block sizes.
static void test_values(int index)
{
    const struct conv2d_case *c = &conv2d_cases[index];
    if (!eq_check_is_small() || c->is_tiny || (c->is_quick && eq_check_is_quick()))
        eq_check_each_variant(c->is_tiny, check_variant, &index);
}

// The split of the weight gradient follows the number of compute units: many of them on a small filter give parts to merge.
static void check_weight_grad_parts(void *user)
{
    const struct conv2d_case c = { .name = "parts", .n = 3, .ic = 16, .ih = 20, .iw = 20, .oc = 16, .kh = 1, .kw = 1 };
    (void)user;
    eq_check_device->target.compute_units = 64;
    struct data d = make_data(normalised(c), EQ_CONV2D_DIRECT);
    EQ_CHECK_TRUE(check_weight_grad(&d) >= 5 * 16 * 16);
    free_data(&d);
}

static void test_weight_grad_parts(int index)
{
    (void)index;
    if (!eq_check_is_tiny())
        eq_check_each_variant(false, check_weight_grad_parts, NULL);
}

// Work-groups too few for the device's compute units: then slices of k within them are summed.
static void check_slices(void *user)
{
    const struct conv2d_case c = {
        .name = "slices", .n = 1, .ic = 40, .ih = 5, .iw = 4, .oc = 72, .kh = 3, .kw = 3, .ph = 1, .pw = 1
    };
    struct eq_tunable open[2];
    int num = 0;
    (void)user;
    eq_check_variant(1);
    EQ_CHECK_INT(eq_check_device->target.family, EQ_FAMILY_SIMT);
    if (eq_check_is_quick() && !eq_check_is_own_family())
        return;
    eq_check_device->target.compute_units = 256;
    struct data d = make_data(normalised(c), EQ_CONV2D_DIRECT);
    struct eq_check_call call = { .name = c.name,
                                  .op = &eq_op_conv2d,
                                  .attributes = &d.attributes,
                                  .num_inputs = 2,
                                  .input = { { d.xt, d.x, false }, { d.wt, d.w, false } },
                                  .is_workspace = { false, true } };
    eq_check_call_run(&call);
    EQ_CHECK_OK(eq_op_conv2d.tunables(&call.shaped, open, 2, &num));
    const int slices = open[1].candidates[0][4]; // the last of the values of a tile; candidate 0 is the model's choice
    free(open[0].candidates);
    free(open[1].candidates);
    compare(&call, &d, NULL, ref_forward);
    eq_check_call_free(&call);
    EQ_CHECK(slices > 1, "%d slices of k", slices);
    check_data_grad(&d, ADD_APART);
    free_data(&d);
}

static void test_slices(int index)
{
    (void)index;
    eq_check_apart(check_slices, NULL);
}

// Winograd's error on the layers of ResNet-50 that it takes: outputs of all three directions, spread over the tensor, against
// sums in double, relative to the root mean square of those outputs. Bounds: 1e-5, what single ops are held to, for F(2x2), and
// twice that for F(4x4).
enum { NUM_SAMPLES = 96 };

static double sampled_error(const struct eq_check_call *call, const struct data *d,
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
    static const double bounds[] = { [EQ_CONV2D_WINOGRAD_2] = 1e-5, [EQ_CONV2D_WINOGRAD_4] = 2e-5 };
    eq_check_kernels(algorithm_names[algorithm]);
    struct data d = make_data(*c, algorithm);
    const struct eq_conv2d_data_grad_attributes data = { d.attributes, c->ih, c->iw };
    const struct eq_conv2d_weight_grad_attributes weight = { d.attributes, 3, 3 };
    struct eq_check_call calls[] = {
        { .name = c->name,
          .op = &eq_op_conv2d,
          .attributes = &d.attributes,
          .num_inputs = 2,
          .input = { { d.xt, d.x, false }, { d.wt, d.w, false } },
          .is_workspace = { false, true } },
        { .name = c->name,
          .op = &eq_op_conv2d_data_grad,
          .attributes = &data,
          .num_inputs = 3,
          .input = { { d.zt, d.dz, false }, { d.wt, d.w, false }, { d.xt, NULL, false } },
          .is_workspace = { false, true } },
        { .name = c->name,
          .op = &eq_op_conv2d_weight_grad,
          .attributes = &weight,
          .num_inputs = 2,
          .input = { { d.xt, d.x, false }, { d.zt, d.dz, false } },
          .is_workspace = { false, true } },
    };
    struct sum (*const references[])(const struct data *, int, int, int, int) = { ref_forward, ref_data_grad, ref_weight_grad };
    for (int k = 0; k < 3; k++) {
        eq_check_call_run(&calls[k]);
        eq_check_bound("samples", sampled_error(&calls[k], &d, references[k]), bounds[algorithm]);
        eq_check_call_free(&calls[k]);
    }
    free_data(&d);
}

static struct conv2d_case layer(const char *name, int n, int channels, int size)
{
    return (struct conv2d_case){ .name = name,
                                 .n = n,
                                 .ic = channels,
                                 .ih = size,
                                 .iw = size,
                                 .oc = channels,
                                 .kh = 3,
                                 .kw = 3,
                                 .sh = 1,
                                 .sw = 1,
                                 .ph = 1,
                                 .pw = 1,
                                 .groups = 1 };
}

static void test_winograd_error(int index)
{
    const struct conv2d_case layers[] = { layer("64 channels of 56 x 56", 2, 64, 56),
                                          layer("128 channels of 28 x 28", 2, 128, 28),
                                          layer("256 channels of 14 x 14", 2, 256, 14),
                                          layer("512 channels of 7 x 7", 2, 512, 7) };
    if (eq_check_is_small() || !eq_check_is_patient())
        return;
    check_error(&layers[index], EQ_CONV2D_WINOGRAD_2);
    check_error(&layers[index], EQ_CONV2D_WINOGRAD_4);
}

// The same on the kernels for GPUs: more tiles than a chunk has, in all directions; and a filter too small to fill the device,
// so that its gradient is summed in parts.
static void test_winograd_chunks(int index)
{
    const struct conv2d_case cases[] = { layer("more tiles than a chunk", 58, 256, 14), layer("a small filter", 10, 64, 56) };
    if (eq_check_is_small() || !eq_check_is_patient())
        return;
    eq_check_variant(1);
    EQ_CHECK_INT(eq_check_device->target.family, EQ_FAMILY_SIMT);
    eq_check_device->target.compute_units = 64;
    check_error(&cases[index], EQ_CONV2D_WINOGRAD_4);
}

// On processors: more cores than chunks, which then share one, each with some blocks of outputs; ragged ones.
static void check_winograd_cores(void *user)
{
    static const int cores[] = { 3, 7, 64 };
    struct conv2d_case c = layer("more cores than chunks", 1, 40, 11);
    (void)user;
    eq_check_variant(0);
    if (!eq_check_is_patient() || (eq_check_is_quick() && !eq_check_is_own_family()))
        return;
    c.oc = 104;
    for (size_t i = 0; i < sizeof cores / sizeof *cores; i++) {
        eq_check_device->target.compute_units = cores[i];
        struct data d = make_data(c, EQ_CONV2D_WINOGRAD_4);
        check_forward(&d);
        check_data_grad(&d, ADD_APART);
        d.attributes.algorithm = EQ_CONV2D_WINOGRAD_4_LATE;
        check_forward(&d);
        free_data(&d);
    }
}

static void test_winograd_cores(int index)
{
    (void)index;
    if (!eq_check_is_tiny())
        eq_check_apart(check_winograd_cores, NULL);
}

EQ_CHECK_SUITE(eq_suite_conv2d, "conv2d", { "values", test_values, NUM_CASES }, { "parts", test_weight_grad_parts, 0 },
               { "slices", test_slices, 0 }, { "Winograd, error", test_winograd_error, 4 },
               { "Winograd, chunks", test_winograd_chunks, 2 }, { "Winograd, cores", test_winograd_cores, 0 })

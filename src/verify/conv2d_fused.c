// conv2d_prepare and conv2d_fused against convolution, batch norm, residual and activation in double: every case of the
// convolutions, each algorithm that takes it, with and without each of the parts.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "op/conv2d.h"
#include "verify/check.h"
#include "verify/conv2d_cases.h"

enum { NUM_CASES = sizeof conv2d_cases / sizeof *conv2d_cases };
static const float eps = 1e-3f;

static const struct mode {
    bool has_norm, has_residual, in_place, is_aligned;
    enum eq_activation activation;
} modes[] = {
    { false, false, false, true, EQ_ACT_NONE },
    { true, true, true, false, EQ_ACT_RELU },
    { true, true, false, true, EQ_ACT_ELU },
    { true, false, false, false, EQ_ACT_RELU },
};
enum { NUM_MODES = sizeof modes / sizeof *modes };

// A case with its tensors and values in plain order: x [n, ic, ih, iw], w [oc, ic / groups, kh, kw], residual as z [n, oc, oh,
// ow].
struct data {
    struct conv2d_case c;
    struct eq_conv2d_fused_attributes attributes;
    struct eq_tensor xt, wt, zt, channels;
    float *x, *w, *residual, *gamma, *beta, *mean, *var;
};

static struct data make_data(struct conv2d_case c, enum eq_conv2d_algorithm algorithm)
{
    const struct eq_target *target = &eq_check_device->target;
    c.sh = c.sh ? c.sh : 1;
    c.sw = c.sw ? c.sw : 1;
    c.groups = c.groups ? c.groups : 1;
    const struct eq_conv2d_attributes conv = { c.sh, c.sw, c.ph, c.pw, .algorithm = algorithm, .groups = c.groups };
    struct data d = { .c = c, .attributes = { conv, c.oc, c.kh, c.kw } };
    d.xt = eq_tensor_blocked(c.n, c.ic, c.ih, c.iw, c.is_plain ? 1 : target->block, 0);
    d.wt = eq_conv2d_weight(target, &d.xt, c.oc, c.kh, c.kw, c.groups);
    d.zt = eq_tensor_blocked(c.n, c.oc, (c.ih + 2 * c.ph - c.kh) / c.sh + 1, (c.iw + 2 * c.pw - c.kw) / c.sw + 1, target->block,
                             0);
    d.channels = eq_tensor_vector(c.oc);
    d.x = eq_check_values("x", eq_tensor_logical(&d.xt), c.mean, 1);
    d.w = eq_check_values("w", eq_tensor_logical(&d.wt), 0, 1);
    d.residual = eq_check_values("residual", eq_tensor_logical(&d.zt), 0, 1);
    d.gamma = eq_check_values("gamma", (size_t)c.oc, 0.2, 1); // some are negative
    d.beta = eq_check_values("beta", (size_t)c.oc, 0, 1);
    d.mean = eq_check_values("mean", (size_t)c.oc, 0, 1);
    d.var = eq_check_values("var", (size_t)c.oc, 1.05, 1);
    return d;
}

static void free_data(struct data *d)
{
    float *const values[] = { d->x, d->w, d->residual, d->gamma, d->beta, d->mean, d->var };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        free(values[i]);
}

// scale and bias of the norm of channel o
static void coefficients(const struct data *d, bool has_norm, int o, double *scale, double *bias)
{
    *scale = has_norm ? d->gamma[o] / sqrt((double)d->var[o] + (double)eps) : 1;
    *bias = has_norm ? d->beta[o] - d->mean[o] * *scale : 0;
}

// ---- conv2d_prepare

static void run_prepare(struct eq_check_call *call, const struct eq_conv2d_prepare_attributes *attributes, const struct data *d,
                        const struct mode *mode)
{
    *call = (struct eq_check_call){ .name = d->c.name,
                                    .op = &eq_op_conv2d_prepare,
                                    .attributes = attributes,
                                    .num_inputs = mode->has_norm ? 5 : 1,
                                    .input = { { d->wt, d->w, false },
                                               { d->channels, d->gamma, false },
                                               { d->channels, d->beta, false },
                                               { d->channels, d->mean, false },
                                               { d->channels, d->var, false } },
                                    .is_workspace = { false, false, true } };
    eq_check_call_run(call);
}

static void check_bias(const struct eq_check_call *call, const struct data *d, const struct mode *mode)
{
    const size_t elems = eq_tensor_elems(&call->shaped.output[1]);
    EQ_CHECK_INT(elems, (size_t)eq_tensor_blocks(&d->zt) * (size_t)d->zt.block);
    double *want = eq_check_calloc(elems, sizeof *want), *tolerance = eq_check_calloc(elems, sizeof *tolerance), scale;
    for (int o = 0; o < d->c.oc; o++) {
        coefficients(d, mode->has_norm, o, &scale, &want[o]);
        tolerance[o] = mode->has_norm ? 4 * 0x1p-24 * (fabs(scale * d->mean[o]) + fabs(want[o])) : 0;
    }
    eq_check_close(call, 1, want, tolerance, 0); // padding channels are exactly 0
    free(want);
    free(tolerance);
}

// The filter of an algorithm that reads it as it is stored, scaled: padding included.
static void check_filter(const struct eq_check_call *call, const struct data *d, const struct mode *mode)
{
    const size_t logical = eq_tensor_logical(&d->wt), row = logical / (size_t)d->c.oc;
    float *got = eq_check_malloc(logical, sizeof *got), *stored = eq_check_malloc(eq_tensor_bytes(&d->wt), 1);
    double *want = eq_check_malloc(logical, sizeof *want), *tolerance = eq_check_malloc(logical, sizeof *tolerance), scale,
           bias;
    EQ_CHECK_INT(eq_tensor_elems(&call->shaped.output[0]), eq_tensor_elems(&d->wt));
    eq_tensor_unpack(&d->wt, call->output[0], got);
    for (size_t i = 0; i < logical; i++) {
        coefficients(d, mode->has_norm, (int)(i / row), &scale, &bias);
        want[i] = scale * d->w[i];
        tolerance[i] = mode->has_norm ? 4 * 0x1p-24 * fabs(want[i]) : 0;
    }
    eq_check_values_close("the filter", &d->wt, got, want, tolerance, 0);
    eq_tensor_pack(&d->wt, got, stored); // zeros where there is no element
    for (size_t i = 0; i < eq_tensor_elems(&d->wt); i++)
        EQ_CHECK(((const float *)call->output[0])[i] == stored[i], "stored element %zu of the filter is %g, not %g", i,
                 (double)((const float *)call->output[0])[i], (double)stored[i]);
    free(got);
    free(stored);
    free(want);
    free(tolerance);
}

// ---- conv2d_fused

// Sum of products for z[n, o, y, x], and the sum of their squares.
static double conv_at(const struct data *d, int n, int o, int y, int x, double *squares)
{
    const struct conv2d_case *c = &d->c;
    double sum = 0;
    *squares = 0;
    const int per_in = c->ic / c->groups, first = o / (c->oc / c->groups) * per_in;
    for (int i = 0; i < per_in; i++)
        for (int p = 0; p < c->kh; p++)
            for (int q = 0; q < c->kw; q++) {
                const int iy = y * c->sh + p - c->ph, ix = x * c->sw + q - c->pw;
                if (iy < 0 || iy >= c->ih || ix < 0 || ix >= c->iw)
                    continue;
                const double product = (double)d->x[((n * c->ic + first + i) * c->ih + iy) * c->iw + ix] *
                                       d->w[((o * per_in + i) * c->kh + p) * c->kw + q];
                sum += product;
                *squares += product * product;
            }
    return sum;
}

static double activate(enum eq_activation activation, double v)
{
    return activation == EQ_ACT_NONE || v >= 0 ? v : activation == EQ_ACT_RELU ? 0 : exp(v) - 1;
}

// Tolerances as in conv2d.c: rounding of a sum, more for Winograd's transforms; and that of the filter and the bias.
static const double tolerance_factor[] = {
    [EQ_CONV2D_DIRECT] = 10, [EQ_CONV2D_WINOGRAD_2] = 20, [EQ_CONV2D_WINOGRAD_4] = 50, [EQ_CONV2D_WINOGRAD_4_LATE] = 50
};
static const double tolerance_most[] = {
    [EQ_CONV2D_DIRECT] = 1e-5, [EQ_CONV2D_WINOGRAD_2] = 2e-5, [EQ_CONV2D_WINOGRAD_4] = 5e-5, [EQ_CONV2D_WINOGRAD_4_LATE] = 5e-5
};

static void compare(const struct eq_check_call *call, const struct data *d, const struct mode *mode, const double *conv,
                    const double *squares)
{
    const struct eq_tensor *z = &d->zt;
    const size_t num = eq_tensor_logical(z), plane = (size_t)(z->h * z->w);
    const enum eq_conv2d_algorithm algorithm = d->attributes.conv.algorithm;
    const double rounding = tolerance_factor[algorithm] * sqrt(d->c.ic * d->c.kh * d->c.kw + 1.0) * 0x1p-24,
                 relative = fmin(tolerance_most[algorithm], rounding);
    double *want = eq_check_malloc(num, sizeof *want), *tolerance = eq_check_malloc(num, sizeof *tolerance), scale, bias;
    for (size_t e = 0; e < num; e++) {
        const int o = (int)(e / plane % (size_t)z->c);
        coefficients(d, mode->has_norm, o, &scale, &bias);
        const double extra = mode->has_residual ? d->residual[e] : 0;
        want[e] = activate(mode->activation, scale * conv[e] + bias + extra);
        tolerance[e] = relative * (fabs(scale) * (sqrt(squares[e]) + fabs(conv[e]))) +
                       0x1p-21 * (fabs(scale * d->mean[o]) + fabs(bias) + fabs(extra));
    }
    eq_check_close(call, 0, want, tolerance, 0);
    free(want);
    free(tolerance);
}

static void check_mode(struct data *d, const struct mode *mode, const double *conv, const double *squares)
{
    d->attributes.activation = mode->activation;
    const struct eq_conv2d_prepare_attributes attributes = { d->attributes, d->xt, eps };
    struct eq_check_call prepare;
    run_prepare(&prepare, &attributes, d, mode);
    check_bias(&prepare, d, mode);
    if (d->attributes.conv.algorithm == EQ_CONV2D_DIRECT || d->attributes.conv.algorithm == EQ_CONV2D_WINOGRAD_4_LATE)
        check_filter(&prepare, d, mode);
    struct eq_check_call call = { .name = d->c.name,
                                  .is_aligned = mode->is_aligned,
                                  .op = &eq_op_conv2d_fused,
                                  .attributes = &d->attributes,
                                  .num_inputs = 4,
                                  .input = { { d->xt, d->x, false },
                                             { prepare.shaped.output[0], prepare.output[0], false },
                                             { prepare.shaped.output[1], prepare.output[1], false },
                                             { d->zt, mode->has_residual ? d->residual : NULL, false } },
                                  .output_halo = d->c.halo,
                                  .in_place = mode->in_place,
                                  .is_workspace = { false, true } };
    call.input[0].tensor.halo = d->c.halo;
    call.input[3].tensor.halo = mode->in_place ? d->c.halo : 0;
    eq_check_call_run(&call);
    EQ_CHECK_INT(call.op->in_place(&call.shaped, 0), mode->has_residual ? 3 : -1);
    compare(&call, d, mode, conv, squares);
    eq_check_call_free(&call);
    eq_check_call_free(&prepare);
}

// NULL: the direct kernels, which have a family's name alone.
static const char *const algorithm_names[] = {
    [EQ_CONV2D_WINOGRAD_2] = "Winograd F(2x2)",
    [EQ_CONV2D_WINOGRAD_4] = "Winograd F(4x4)",
    [EQ_CONV2D_WINOGRAD_4_LATE] = "Winograd F(4x4), late",
};

// Every mode takes kernels of its own, which are slow to compile: each case and variant has two modes, or one, and they take
// turns.
static void check_algorithm(const struct conv2d_case *c, enum eq_conv2d_algorithm algorithm, int turn)
{
    struct data d = make_data(*c, algorithm);
    const bool in_full = eq_check_is_patient();
    eq_check_kernels(algorithm_names[algorithm]);
    if (algorithm == EQ_CONV2D_DIRECT ||
        (eq_conv2d_winograd_fits(&eq_check_device->target, &d.attributes.conv, c->kh, c->kw, d.xt.block) &&
         (in_full || c->is_tiny))) {
        const size_t num = eq_tensor_logical(&d.zt);
        double *conv = eq_check_malloc(num, sizeof *conv), *squares = eq_check_malloc(num, sizeof *squares);
        size_t e = 0;
        for (int n = 0; n < d.zt.n; n++)
            for (int o = 0; o < d.zt.c; o++)
                for (int y = 0; y < d.zt.h; y++)
                    for (int x = 0; x < d.zt.w; x++, e++)
                        conv[e] = conv_at(&d, n, o, y, x, &squares[e]);
        for (int m = 0; m < (in_full ? 2 : 1); m++)
            check_mode(&d, &modes[(turn + m) % NUM_MODES], conv, squares);
        free(conv);
        free(squares);
    }
    free_data(&d);
}

static void check_variant(void *user)
{
    const int index = *(const int *)user;
    for (enum eq_conv2d_algorithm a = EQ_CONV2D_DIRECT; a <= EQ_CONV2D_WINOGRAD_4_LATE; a++)
        check_algorithm(&conv2d_cases[index], a, index + eq_check_turn() + (int)a);
}

static void test_values(int index)
{
    if (!eq_check_is_small() || conv2d_cases[index].is_tiny)
        eq_check_each_variant(conv2d_cases[index].is_tiny, check_variant, &index);
}

EQ_CHECK_SUITE(eq_suite_conv2d_fused, "conv2d_fused", { "values", test_values, NUM_CASES })

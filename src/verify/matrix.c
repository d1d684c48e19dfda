// Matrix units: rounding, the tiles of cl/matrix.clh, and the convolutions that are made of them, against sums in double of
// rounded inputs: by the emulation, which defines what the units of real devices have to give, and by the device's own unit
// where it has one.
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "op/conv2d.h"
#include "verify/check.h"
#include "verify/conv2d_cases.h"

enum { NUM_CASES = sizeof conv2d_cases / sizeof *conv2d_cases };
static const enum eq_precision precisions[] = { EQ_TF32, EQ_FP16, EQ_BF16 };
enum { NUM_PRECISIONS = sizeof precisions / sizeof *precisions };

// ---- rounding

static const struct {
    enum eq_precision precision;
    float value, want;
} roundings[] = {
    { EQ_FP32, 1.2345678f, 1.2345678f },
    { EQ_TF32, 1 + 0x1p-10f, 1 + 0x1p-10f },
    { EQ_TF32, 1 + 0x1p-11f, 1 },                    // tie, to even
    { EQ_TF32, 1 + 0x3p-11f, 1 + 0x2p-10f },         // tie, to even
    { EQ_TF32, 1 + 0x1p-11f + 0x1p-23f, 1 + 0x1p-10f },
    { EQ_TF32, -2 + 0x1p-23f, -2 },
    { EQ_TF32, FLT_MAX, INFINITY },
    { EQ_FP16, 1 + 0x1p-11f, 1 },
    { EQ_FP16, 2049, 2048 },
    { EQ_FP16, 2051, 2052 },
    { EQ_FP16, 65519, 65504 },
    { EQ_FP16, -65520, -INFINITY },
    { EQ_FP16, 0x1p-14f - 0x1p-25f, 0x1p-14f },      // tie at the smallest normal value
    { EQ_FP16, 0x3p-25f, 0x1p-23f },                 // tie of multiples of 2^-24
    { EQ_FP16, 0x1p-25f, 0 },
    { EQ_FP16, -0x1.8p-25f, -0x1p-24f },
    { EQ_BF16, 1 + 0x1p-8f, 1 },
    { EQ_BF16, 1 + 0x3p-8f, 1 + 0x1p-6f },
    { EQ_BF16, 257, 256 },
    { EQ_BF16, 1e-30f, 0x1.44p-100f },
    { EQ_BF16, -FLT_MAX, -INFINITY },
    { EQ_BF16, INFINITY, INFINITY },
};
enum { NUM_ROUNDINGS = sizeof roundings / sizeof *roundings };

static void test_round(int index)
{
    (void)index;
    eq_check_begin("rounding", "on the host");
    for (int i = 0; i < NUM_ROUNDINGS; i++) {
        const float got = eq_precision_round(roundings[i].precision, roundings[i].value);
        EQ_CHECK(got == roundings[i].want, "%s of %a is %a, not %a", eq_precision_name(roundings[i].precision),
                 (double)roundings[i].value, (double)got, (double)roundings[i].want);
    }
    for (int p = 0; p < NUM_PRECISIONS; p++)
        EQ_CHECK_TRUE(isnan(eq_precision_round(precisions[p], NAN)));
}

// ---- what multiplies

struct setting {
    enum eq_precision precision;
    enum eq_matrix_unit unit;
    const void *user;
};

static void set_target(const struct setting *setting)
{
    struct eq_target *target = &eq_check_device->target;
    char text[40];
    target->family = EQ_FAMILY_SIMT;
    target->use_winograd = false;
    target->block = 16;
    target->precision = setting->precision;
    target->matrix_unit = setting->unit;
    snprintf(text, sizeof text, "%s %s", eq_precision_name(setting->precision), eq_matrix_unit_name(setting->unit));
    eq_check_kernels(text);
}

// Of a sum of products, relative to the sum of their absolute values. The emulation rounds every addition to the nearest;
// units may cut what they add to a sum, by 2^-22 of its size: as in the probe.
static double tolerance_of(enum eq_matrix_unit unit, int roundings_of_sum)
{
    return unit == EQ_MATRIX_EMULATED ? roundings_of_sum * 0x1p-24 : 4e-6;
}

// The emulation, which takes compilers long, and, where there is one, the device's unit.
static void each_unit(enum eq_precision precision, bool with_emulation, void (*body)(void *user), const void *user)
{
    struct setting setting = { precision, EQ_MATRIX_EMULATED, user };
    if (with_emulation)
        eq_check_apart(body, &setting);
    EQ_CHECK_OK(eq_matrix_find(eq_check_device, precision, &setting.unit));
    if (setting.unit != EQ_MATRIX_EMULATED)
        eq_check_apart(body, &setting);
}

// ---- tiles

enum { ROWS = 32, COLUMNS = 16, MOST = 32 };

// z [32, 16] = a [32, depth] times b [16, depth] transposed, on the unit.
static void run_tiles(enum eq_matrix_unit unit, enum eq_precision precision, const float *a, const float *b, int depth,
                      float *z)
{
    const size_t num_a = (size_t)(ROWS * depth), num_b = (size_t)(COLUMNS * depth), num_z = ROWS * COLUMNS,
                 group = 2 * (size_t)eq_matrix_unit_lanes(unit);
    struct eq_buffer *buffer;
    struct eq_list *list;
    EQ_CHECK_OK(eq_buffer_create(eq_check_device, (num_a + num_b + num_z) * sizeof(float), &buffer));
    EQ_CHECK_OK(eq_list_create(eq_check_device, &list));
    const struct eq_ref ra = eq_ref_at(buffer, 0), rb = eq_ref_plus(ra, num_a), rz = eq_ref_plus(rb, num_b);
    const struct eq_options options = eq_options_format("-DEQ_MATRIX=%d -DPRECISION=%d", (int)unit, (int)precision);
    EQ_CHECK_OK(eq_list_kernel(
        list,
        &(struct eq_launch){
            .source = "matrix", .options = options.text, .kernel = "matrix_probe", .range = eq_range_1d(group, group) },
        EQ_ARGS(EQ_REF(ra), EQ_REF(rb), EQ_REF(rz))));
    EQ_CHECK_OK(eq_ref_write(ra, a, num_a, sizeof *a));
    EQ_CHECK_OK(eq_ref_write(rb, b, num_b, sizeof *b));
    EQ_CHECK_OK(eq_list_run(list));
    EQ_CHECK_OK(eq_ref_read(rz, z, num_z, sizeof *z));
    eq_list_destroy(&list);
    eq_buffer_destroy(&buffer);
}

static int depth_of(enum eq_precision precision)
{
    return precision == EQ_TF32 ? 16 : 32;
}

// Row i of a is zero but for one value, and b is 1 there: z shows how the kernel rounds.
static void check_tile_rounding(const struct setting *setting)
{
    const enum eq_precision precision = setting->precision;
    const int depth = depth_of(precision);
    float a[ROWS * MOST] = { 0 }, b[COLUMNS * MOST], z[ROWS * COLUMNS], value[ROWS];
    struct eq_check_comparison comparison = { .num = 0 };
    for (int i = 0; i < COLUMNS * depth; i++)
        b[i] = 1;
    for (int i = 0; i < ROWS; i++) {
        value[i] = i < NUM_ROUNDINGS ? roundings[i].value : i == ROWS - 1 ? NAN : 1.1f * (float)i;
        a[i * depth + i % depth] = value[i];
    }
    run_tiles(setting->unit, precision, a, b, depth, z);
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        const double want = (double)eq_precision_round(precision, value[i / COLUMNS]);
        eq_check_compare(&comparison, (const int[4]){ 0, 0, i / COLUMNS, i % COLUMNS }, (double)z[i], want, 0);
    }
    eq_check_compared(&comparison, "rounded");
}

static void check_tile_product(const struct setting *setting)
{
    const enum eq_precision precision = setting->precision;
    const int depth = depth_of(precision);
    float *a = eq_check_values("a", (size_t)(ROWS * depth), 0.5, 3), *b = eq_check_values("b", (size_t)(COLUMNS * depth), 0, 1);
    float z[ROWS * COLUMNS];
    struct eq_check_comparison comparison = { .num = 0 };
    run_tiles(setting->unit, precision, a, b, depth, z);
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        double want = 0, size = 0;
        for (int k = 0; k < depth; k++) {
            const double product = (double)eq_precision_round(precision, a[i / COLUMNS * depth + k]) *
                                   (double)eq_precision_round(precision, b[i % COLUMNS * depth + k]);
            want += product;
            size += fabs(product);
        }
        eq_check_compare(&comparison, (const int[4]){ 0, 0, i / COLUMNS, i % COLUMNS }, (double)z[i], want,
                         tolerance_of(setting->unit, 8) * size);
    }
    eq_check_compared(&comparison, "product");
    free(a);
    free(b);
}

static void check_tiles(void *user)
{
    set_target(user);
    eq_check_begin("matrix_tile", "rounding");
    check_tile_rounding(user);
    eq_check_begin("matrix_tile", "product");
    check_tile_product(user);
}

static void test_tiles(int index)
{
    each_unit(precisions[index], true, check_tiles, NULL);
}

// ---- convolutions

// Output 0 of the call against sums of rounded inputs. `add`: input that is neither rounded nor multiplied, or -1.
static void compare(const struct eq_check_call *call, enum eq_precision precision, int add)
{
    const enum eq_matrix_unit unit = eq_check_device->target.matrix_unit;
    const size_t num = eq_tensor_logical(&call->shaped.output[0]);
    float *rounded[3] = { NULL };
    for (int i = 0; i < call->num_inputs; i++) {
        const size_t elems = eq_tensor_logical(&call->input[i].tensor);
        rounded[i] = eq_check_malloc(elems, sizeof(float));
        for (size_t e = 0; call->input[i].plain && e < elems; e++) {
            const float value = ((const float *)call->input[i].plain)[e];
            rounded[i][e] = i == add ? value : eq_precision_round(precision, value);
        }
    }
    double *want = eq_check_malloc(num, sizeof *want), *tolerance = eq_check_malloc(num, sizeof *tolerance);
    for (size_t e = 0; e < num; e++) {
        double magnitude;
        want[e] = call->op->expect(&call->shaped, (const float *const *)rounded, e, &magnitude);
        tolerance[e] = tolerance_of(unit, 16) * magnitude;
    }
    eq_check_close(call, 0, want, tolerance, 0);
    for (int i = 0; i < call->num_inputs; i++)
        free(rounded[i]);
    free(want);
    free(tolerance);
}

static void check_case(struct conv2d_case c, enum eq_precision precision, bool is_aligned)
{
    const struct eq_target *target = &eq_check_device->target;
    c.sh = c.sh ? c.sh : 1;
    c.sw = c.sw ? c.sw : 1;
    const struct eq_conv2d_attributes attributes = { c.sh, c.sw, c.ph, c.pw, .algorithm = EQ_CONV2D_DIRECT };
    const struct eq_conv2d_data_grad_attributes data_grad = { attributes, c.ih, c.iw };
    const struct eq_conv2d_weight_grad_attributes weight_grad = { attributes, c.kh, c.kw };
    const struct eq_tensor xt = eq_tensor_blocked(c.n, c.ic, c.ih, c.iw, c.is_plain ? 1 : target->block, 0),
                           wt = eq_conv2d_weight(target, &xt, c.oc, c.kh, c.kw, 1),
                           zt = eq_tensor_blocked(c.n, c.oc, (c.ih + 2 * c.ph - c.kh) / c.sh + 1,
                                                  (c.iw + 2 * c.pw - c.kw) / c.sw + 1, target->block, 0);
    float *x = eq_check_values("x", eq_tensor_logical(&xt), c.mean, 1), *w = eq_check_values("w", eq_tensor_logical(&wt), 0, 1),
          *dz = eq_check_values("dz", eq_tensor_logical(&zt), 0, 1),
          *add = eq_check_values("add", eq_tensor_logical(&xt), 0, 1);
    struct eq_check_call forward = { .name = c.name,
                                     .is_aligned = is_aligned,
                                     .op = &eq_op_conv2d,
                                     .attributes = &attributes,
                                     .num_inputs = 2,
                                     .input = { { xt, x, false }, { wt, w, false } },
                                     .output_halo = c.halo,
                                     .is_workspace = { false, true } };
    eq_check_call_run(&forward);
    compare(&forward, precision, -1);
    eq_check_call_free(&forward);
    struct eq_check_call backward = { .name = c.name,
                                      .is_aligned = is_aligned,
                                      .op = &eq_op_conv2d_data_grad,
                                      .attributes = &data_grad,
                                      .num_inputs = 3,
                                      .input = { { zt, dz, false }, { wt, w, false }, { xt, add, false } },
                                      .output_halo = c.halo,
                                      .in_place = c.halo == 0,
                                      .is_workspace = { false, true } };
    eq_check_call_run(&backward);
    compare(&backward, c.is_plain ? EQ_FP32 : precision, 2); // the gradient of an image is not rounded
    eq_check_call_free(&backward);
    struct eq_check_call filter = { .name = c.name,
                                    .is_aligned = is_aligned,
                                    .op = &eq_op_conv2d_weight_grad,
                                    .attributes = &weight_grad,
                                    .num_inputs = 2,
                                    .input = { { xt, x, false }, { zt, dz, false } },
                                    .is_workspace = { false, true } };
    filter.input[0].tensor.halo = c.halo;
    eq_check_call_run(&filter);
    compare(&filter, precision, -1);
    eq_check_call_free(&filter);
    free(x);
    free(w);
    free(dz);
    free(add);
}

struct conv_run {
    struct conv2d_case c;
    bool is_aligned;
};

static void check_conv(void *user)
{
    const struct setting *setting = user;
    const struct conv_run *run = setting->user;
    set_target(setting);
    check_case(run->c, setting->precision, run->is_aligned);
}

static void test_conv(int index)
{
    const struct conv2d_case *c = &conv2d_cases[index];
    if ((eq_check_is_small() && !c->is_tiny) || c->groups > 1) // several groups stay in float32
        return;
    if (eq_check_is_tiny() && c->kh > 3) // a simulator takes minutes for a larger filter's products
        return;
    // Cases take turns: one precision each. The tiny ones, which have every kernel, get all of them in a full run.
    const bool is_all = c->is_tiny && !eq_check_is_small();
    for (int turn = 0; turn < (is_all ? NUM_PRECISIONS : 1); turn++) {
        const enum eq_precision precision = precisions[(index + turn) % NUM_PRECISIONS];
        struct conv_run run = { *c, (index + turn) % 2 };
        if (eq_check_is_tiny()) { // and for those of many
            run.c.n = 1;
            run.c.ic = c->ic > 16 ? 13 : c->ic;
        }
        each_unit(precision, !eq_check_is_quick(), check_conv, &run);
    }
}

// How a work-group divides its tile follows from the channels and from how many compute units are to be filled. `way`: groups
// of lanes over pixels, channels and k, tiles of both, and the words of a step, on units with 32 lanes.
static const struct split {
    int ic, oc, units, way[6];
} splits[] = {
    { 32, 72, 1, { 2, 4, 1, 4, 2, 16 } }, { 32, 64, 1, { 4, 2, 1, 2, 2, 16 } },  { 32, 72, 22, { 2, 2, 2, 2, 2, 32 } },
    { 64, 64, 23, { 1, 2, 4, 2, 2, 32 } }, { 32, 32, 3, { 8, 1, 1, 1, 2, 16 } }, { 32, 32, 4, { 2, 1, 4, 2, 2, 32 } },
    { 32, 16, 3, { 8, 1, 1, 1, 1, 16 } }, { 32, 32, 1, { 2, 1, 1, 2, 2, 16 } },  { 32, 16, 1, { 2, 1, 1, 2, 1, 16 } },
};
enum { NUM_SPLITS = sizeof splits / sizeof *splits };

// The first candidate of the tuner is what is taken without it.
static void check_way(const struct split *split, const struct conv2d_case *c)
{
    const struct eq_target *target = &eq_check_device->target;
    const struct eq_conv2d_attributes attributes = { 1, 1, c->ph, c->pw, .algorithm = EQ_CONV2D_DIRECT };
    const struct eq_tensor x = eq_tensor_blocked(c->n, c->ic, c->ih, c->iw, target->block, 0);
    struct eq_call call = { .op = &eq_op_conv2d, .attributes = &attributes, .target = target, .num_inputs = 2,
                            .input = { x, eq_conv2d_weight(target, &x, c->oc, c->kh, c->kw, 1) }, .has = { true, true } };
    struct eq_tunable tunables[2] = { { .num_candidates = 0 } };
    int num = 0;
    EQ_CHECK_TRUE(eq_op_conv2d.shape(&call) == EQ_OK && eq_op_conv2d.tunables(&call, tunables, 2, &num) == EQ_OK && num == 2);
    for (size_t i = 0; i < sizeof split->way / sizeof *split->way; i++)
        EQ_CHECK_INT(tunables[1].candidates[0][i], split->way[i]);
    free(tunables[0].candidates);
    free(tunables[1].candidates);
}

static void check_split(void *user)
{
    enum { ALL_WAYS = 48 * 1024 }; // bytes of local memory with which none is ruled out
    const struct setting *setting = user;
    const struct split *split = setting->user;
    const struct conv2d_case c = { .name = "split", .n = 2, .ic = split->ic, .ih = 17, .iw = 19, .oc = split->oc, .kh = 3,
                                   .kw = 3, .ph = 1, .pw = 1 };
    set_target(setting);
    struct eq_target *target = &eq_check_device->target;
    target->compute_units = split->units;
    if (eq_matrix_unit_lanes(setting->unit) == 32 && target->local_bytes >= ALL_WAYS && target->max_group >= 256)
        check_way(split, &c);
    check_case(c, setting->precision, true);
}

static void test_split(int index)
{
    if (!eq_check_is_small())
        each_unit(precisions[index % NUM_PRECISIONS], true, check_split, &splits[index]);
}

// A filter with a norm's scale is rounded after it is scaled; bias, residual and activation are added to the sums unrounded.
static void check_fused(void *user)
{
    const struct setting *setting = user;
    enum { N = 2, IC = 20, OC = 24, H = 5, W = 6, PIXELS = N * H * W };
    const enum eq_precision precision = setting->precision;
    const bool is_elu = precision == EQ_FP16; // the precisions take turns
    set_target(setting);
    const struct eq_target *target = &eq_check_device->target;
    const struct eq_tensor xt = eq_tensor_blocked(N, IC, H, W, target->block, 0), zt = eq_tensor_blocked(N, OC, H, W, 16, 0),
                           wt = eq_conv2d_weight(target, &xt, OC, 3, 3, 1), ct = eq_tensor_vector(OC);
    const struct eq_conv2d_prepare_attributes attributes = {
        { { 1, 1, 1, 1, .algorithm = EQ_CONV2D_DIRECT }, OC, 3, 3, is_elu ? EQ_ACT_ELU : EQ_ACT_RELU }, xt, 0
    };
    float *x = eq_check_values("x", eq_tensor_logical(&xt), 0, 1), *w = eq_check_values("w", eq_tensor_logical(&wt), 0, 1),
          *gamma = eq_check_values("gamma", OC, 1, 0.5f), *beta = eq_check_values("beta", OC, 0, 1),
          *residual = eq_check_values("residual", eq_tensor_logical(&zt), 0, 1), mean[OC] = { 0 }, var[OC];
    for (int c = 0; c < OC; c++)
        var[c] = 1; // so that the scale is gamma itself
    struct eq_check_call prepare = {
        .name = "fused",
        .op = &eq_op_conv2d_prepare,
        .attributes = &attributes,
        .num_inputs = 5,
        .input = { { wt, w, false }, { ct, gamma, false }, { ct, beta, false }, { ct, mean, false }, { ct, var, false } },
        .is_workspace = { false, false, true }
    };
    eq_check_call_run(&prepare);
    struct eq_check_call call = { .name = "fused",
                                  .op = &eq_op_conv2d_fused,
                                  .attributes = &attributes.fused,
                                  .num_inputs = 4,
                                  .input = { { xt, x, false },
                                             { prepare.shaped.output[0], prepare.output[0], false },
                                             { prepare.shaped.output[1], prepare.output[1], false },
                                             { zt, residual, false } },
                                  .is_workspace = { false, true } };
    eq_check_call_run(&call);
    for (size_t i = 0; i < eq_tensor_logical(&xt); i++)
        x[i] = eq_precision_round(precision, x[i]);
    for (size_t i = 0; i < eq_tensor_logical(&wt); i++)
        w[i] = eq_precision_round(precision, w[i] * gamma[i / (IC * 3 * 3)]);
    const struct eq_call conv = { .op = &eq_op_conv2d, .attributes = &attributes.fused.conv, .target = target, .num_inputs = 2,
                                  .input = { xt, wt }, .output = { zt } };
    double want[OC * PIXELS], tolerance[OC * PIXELS];
    for (size_t i = 0; i < OC * PIXELS; i++) {
        const int channel = (int)(i / (H * W) % OC);
        const double sum = eq_conv2d_expect(&conv, (const float *const[]){ x, w }, i, &tolerance[i]);
        want[i] = sum + beta[channel] + residual[i];
        want[i] = want[i] > 0 ? want[i] : is_elu ? expm1(want[i]) : 0;
        tolerance[i] = tolerance_of(setting->unit, 16) * (tolerance[i] + fabsf(beta[channel]) + fabsf(residual[i]));
    }
    eq_check_close(&call, 0, want, tolerance, 0);
    eq_check_call_free(&call);
    eq_check_call_free(&prepare);
    free(x);
    free(w);
    free(gamma);
    free(beta);
    free(residual);
}

static void test_fused(int index)
{
    if (eq_check_is_tiny() && index > 0) // what is added does not depend on the precision
        return;
    each_unit(precisions[index], true, check_fused, NULL);
}

EQ_CHECK_SUITE(eq_suite_matrix, "matrix", { "rounding", test_round, 0 }, { "tiles", test_tiles, NUM_PRECISIONS },
               { "splits", test_split, NUM_SPLITS }, { "convolutions", test_conv, NUM_CASES },
               { "fused", test_fused, NUM_PRECISIONS })

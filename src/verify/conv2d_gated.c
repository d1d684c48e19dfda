// conv2d_gated against a 1x1 convolution and the unit's definition, both in double.
#include "op/conv2d_gated.h"

#include <math.h>
#include <stdlib.h>

#include "verify/unit_run.h"

// clang-format off
static const struct gated_case {
    struct unit_case unit; // c: output channels
    int ic, parts;
    bool in_place;
    float apart; // > 0: channels in pairs that differ so little, and filters that take their difference
    bool has_nan; // in the first image, of which nothing else is left then
} cases[] = {
    { { .name = "ce", .n = 2, .c = 32, .h = 4, .w = 3, .method = EQ_UNIT_CE, .group = 16, .iterations = 3, .hidden = 8,
        .tiny = true }, .ic = 16, .parts = 1 },
    { { .name = "ce relu residual halo, ragged", .n = 3, .c = 24, .h = 5, .w = 7, .method = EQ_UNIT_CE,
        .activation = EQ_ACT_RELU, .residual = true, .group = 16, .iterations = 3, .hidden = 6, .halo = 1, .tiny = true },
      .ic = 5, .parts = 3 },
    { { .name = "ce one channel of one", .n = 1, .c = 1, .h = 1, .w = 2, .method = EQ_UNIT_CE, .group = 16, .iterations = 3,
        .hidden = 1 }, .ic = 1, .parts = 2 },
    { { .name = "ce g40 elu", .n = 2, .c = 40, .h = 6, .w = 9, .method = EQ_UNIT_CE, .activation = EQ_ACT_ELU,
        .residual = true, .group = 40, .iterations = 3, .hidden = 10 }, .ic = 33, .parts = 2, .in_place = true },
    { { .name = "ce g12 across blocks", .n = 2, .c = 36, .h = 4, .w = 5, .method = EQ_UNIT_CE, .group = 12, .iterations = 2,
        .hidden = 9 }, .ic = 20, .parts = 1 },
    { { .name = "ce as layer 1", .n = 2, .c = 256, .h = 23, .w = 21, .method = EQ_UNIT_CE, .activation = EQ_ACT_RELU,
        .residual = true, .group = 16, .iterations = 3, .hidden = 64 }, .ic = 64, .parts = 2, .in_place = true },
    { { .name = "ce 128 channels", .n = 1, .c = 144, .h = 14, .w = 14, .method = EQ_UNIT_CE, .activation = EQ_ACT_RELU,
        .group = 16, .iterations = 3, .hidden = 36 }, .ic = 128, .parts = 1 },
    { { .name = "ir odd blocks, many pixels", .n = 1, .c = 33, .h = 31, .w = 21, .method = EQ_UNIT_IR,
        .activation = EQ_ACT_RELU, .hidden = 8, .tiny = true }, .ic = 40, .parts = 1 },
    { { .name = "ce 48 channels", .n = 1, .c = 32, .h = 40, .w = 40, .method = EQ_UNIT_CE, .group = 16, .iterations = 3,
        .hidden = 8 }, .ic = 48, .parts = 3 },
    { { .name = "ce big mean", .n = 2, .c = 24, .h = 6, .w = 6, .method = EQ_UNIT_CE, .group = 8, .iterations = 3, .hidden = 6,
        .offset = 300 }, .ic = 24, .parts = 2 },
    { { .name = "ce differences", .n = 1, .c = 32, .h = 28, .w = 28, .method = EQ_UNIT_CE, .group = 16, .iterations = 3,
        .hidden = 8 }, .ic = 32, .parts = 2, .apart = 0.05f },
    { { .name = "ir elu", .n = 3, .c = 17, .h = 4, .w = 3, .method = EQ_UNIT_IR, .activation = EQ_ACT_ELU, .residual = true,
        .hidden = 4, .halo = 1, .tiny = true }, .ic = 9, .parts = 1 },
    { { .name = "se relu", .n = 3, .c = 40, .h = 3, .w = 3, .method = EQ_UNIT_SE, .activation = EQ_ACT_RELU, .residual = true,
        .hidden = 3, .tiny = true }, .ic = 17, .parts = 2, .in_place = true },
    { { .name = "se pixels of one", .n = 4, .c = 24, .h = 1, .w = 1, .method = EQ_UNIT_SE, .hidden = 20 }, .ic = 40,
      .parts = 1 },
    { { .name = "ce relu, a NaN", .n = 2, .c = 32, .h = 4, .w = 5, .method = EQ_UNIT_CE, .activation = EQ_ACT_RELU,
        .group = 16, .iterations = 3, .hidden = 8 }, .ic = 16, .parts = 2, .has_nan = true },
};
// clang-format on

// A case with its values in plain order: x [n, ic, h, w], filter [c, ic, 1, 1], the unit's other inputs, and what to expect.
struct data {
    const struct gated_case *c;
    float *x, *filter, *input[EQ_UNIT_NUM_INPUTS];
    double *want;
};

static double *convolve(const struct data *d)
{
    const struct unit_case *u = &d->c->unit;
    const size_t pixels = (size_t)u->h * (size_t)u->w, ic = (size_t)d->c->ic, oc = (size_t)u->c;
    double *z = eq_check_calloc((size_t)u->n * oc * pixels, sizeof *z);
    for (size_t n = 0; n < (size_t)u->n; n++)
        for (size_t o = 0; o < oc; o++)
            for (size_t i = 0; i < ic; i++)
                for (size_t p = 0; p < pixels; p++)
                    z[(n * oc + o) * pixels + p] += (double)d->filter[o * ic + i] * d->x[(n * ic + i) * pixels + p];
    return z;
}

// Running statistics near the output's, as a trained network's are: means, and variances where there are any.
static void near_statistics(const struct unit_case *u, const double *z, float *means, float *vars)
{
    const size_t pixels = (size_t)u->h * (size_t)u->w, oc = (size_t)u->c;
    for (size_t o = 0; o < oc; o++) {
        double mean = 0, var = 0;
        for (size_t p = 0; p < pixels; p++)
            mean += z[o * pixels + p] / (double)pixels;
        for (size_t p = 0; p < pixels; p++)
            var += (z[o * pixels + p] - mean) * (z[o * pixels + p] - mean) / (double)pixels;
        means[o] = (float)(mean + (double)(means[o] - 0.1f) * sqrt(var));
        vars[o] *= var > 0 ? (float)var / 2 : 1;
    }
}

static void make_data(const struct gated_case *c, struct data *d)
{
    struct unit_reference reference = unit_reference_of(&c->unit, false);
    const size_t pixels = (size_t)c->unit.h * (size_t)c->unit.w, out = unit_reference_elems(&reference, EQ_UNIT_Z);
    *d = (struct data){ .c = c };
    d->x = unit_random("x", (size_t)(c->unit.n * c->ic) * pixels, c->unit.offset, 1);
    d->filter = unit_random("filter", (size_t)(c->unit.c * c->ic), 0, 1.4f / sqrtf((float)c->ic));
    for (size_t i = 1; i < (size_t)c->ic && c->apart > 0; i += 2) {
        for (size_t p = 0; p < pixels; p++) // of one image
            d->x[i * pixels + p] = d->x[(i - 1) * pixels + p] + c->apart * d->x[i * pixels + p];
        for (size_t o = 0; o < (size_t)c->unit.c; o++)
            d->filter[o * (size_t)c->ic + i] = -d->filter[o * (size_t)c->ic + i - 1];
    }
    reference.input[EQ_UNIT_Z] = convolve(d);
    for (int i = EQ_UNIT_GAMMA; i < EQ_UNIT_NUM_INPUTS; i++)
        if (unit_reference_elems(&reference, i))
            d->input[i] = unit_input_values(&reference, i, unit_reference_elems(&reference, i), 0);
    near_statistics(&c->unit, reference.input[EQ_UNIT_Z], d->input[EQ_UNIT_MEAN], d->input[EQ_UNIT_VAR]);
    if (c->unit.residual)
        d->input[EQ_UNIT_RESIDUAL] = unit_random("residual", out, 0, 1);
    for (int i = EQ_UNIT_RESIDUAL; i < EQ_UNIT_NUM_INPUTS; i++)
        if (d->input[i])
            reference.input[i] = unit_doubled(d->input[i], i == EQ_UNIT_RESIDUAL ? out : unit_reference_elems(&reference, i));
    reference.out = d->want = eq_check_malloc(out, sizeof *d->want);
    unit_reference_forward(&reference);
    if (c->has_nan)
        d->x[pixels + 1] = NAN;
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++)
        free(reference.input[i]);
}

static void free_data(struct data *d)
{
    free(d->x);
    free(d->filter);
    free(d->want);
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++)
        free(d->input[i]);
}

// The inputs from GAMMA on, input i at i - first.
static void add_parameters(const struct data *d, int first, struct eq_check_input *inputs)
{
    const struct unit_reference reference = unit_reference_of(&d->c->unit, false);
    for (int i = EQ_UNIT_GAMMA; i < EQ_UNIT_NUM_INPUTS; i++)
        if (d->input[i])
            inputs[i - first] =
                (struct eq_check_input){ eq_tensor_vector((int)unit_reference_elems(&reference, i)), d->input[i], false };
}

static void check_variant(void *user)
{
    const struct data *d = user;
    const struct gated_case *c = d->c;
    const int block = eq_check_device->target.block;
    const struct eq_tensor x = eq_tensor_blocked(c->unit.n, c->ic, c->unit.h, c->unit.w, block, c->unit.halo),
                           z = unit_activation_tensor(&c->unit, 0);
    const struct eq_conv2d_gated_attributes attributes = {
        .unit = unit_attributes_of(&c->unit), .conv = { 1, 1, 0, 0 }, .oc = c->unit.c, .parts = c->parts
    };
    const struct eq_unit_prepare_attributes constant = { attributes.unit, z };
    struct eq_check_call prepare = {
        .name = c->unit.name, .op = &eq_op_unit_prepare, .attributes = &constant, .num_inputs = EQ_UNIT_PREPARED - EQ_UNIT_GAMMA
    };
    struct eq_check_call call = { .name = c->unit.name,
                                  .op = &eq_op_conv2d_gated,
                                  .attributes = &attributes,
                                  .num_inputs = EQ_CONV2D_GATED_NUM_INPUTS,
                                  .output_halo = c->unit.halo,
                                  .is_aligned = !c->in_place,
                                  .in_place = c->in_place,
                                  .is_workspace = { false, true } };
    const bool has_prepared = eq_unit_prepares(&attributes.unit),
               is_vector = eq_check_device->target.family == EQ_FAMILY_VECTOR;
    add_parameters(d, 0, call.input);
    call.input[EQ_CONV2D_GATED_X] = (struct eq_check_input){ x, d->x, false };
    call.input[EQ_UNIT_RESIDUAL] = (struct eq_check_input){ z, d->input[EQ_UNIT_RESIDUAL], false };
    call.input[EQ_CONV2D_GATED_FILTER] =
        (struct eq_check_input){ eq_conv2d_weight(&eq_check_device->target, &x, c->unit.c, 1, 1, 1), d->filter, false };
    if (!is_vector) {
        eq_check_call_refused(&call, EQ_ERR_UNSUPPORTED, "on processors");
        return;
    }
    if (has_prepared) {
        add_parameters(d, EQ_UNIT_GAMMA, prepare.input);
        eq_check_call_run(&prepare);
        call.input[EQ_UNIT_PREPARED] = (struct eq_check_input){ prepare.shaped.output[0], prepare.output[0], false };
    }
    eq_check_call_run(&call);
    EQ_CHECK_INT(call.op->in_place(&call.shaped, 0), c->unit.residual ? EQ_UNIT_RESIDUAL : -1);
    const size_t elems = eq_tensor_logical(&z), lost = c->has_nan ? elems / (size_t)z.n : 0;
    const float *got = call.output[0];
    for (size_t i = 0; i < lost; i++)
        EQ_CHECK(isnan(got[i]), "value %zu of the image with a NaN is %g", i, (double)got[i]);
    // With a mean of 300 deviations, folding the norm into filter and bias leaves 300 times a rounding of the output.
    unit_compare("output", "", got + lost, d->want + lost, elems - lost, c->unit.offset > 0 ? 1e-4 : 1e-5, 1e-6);
    if (has_prepared)
        eq_check_call_free(&prepare);
    eq_check_call_free(&call);
}

static void test_cases(int index)
{
    struct data d;
    if (eq_check_is_small() && !cases[index].unit.tiny)
        return;
    make_data(&cases[index], &d);
    eq_check_each_variant(cases[index].unit.tiny, check_variant, &d);
    free_data(&d);
}

EQ_CHECK_SUITE(eq_suite_conv2d_gated, "conv2d_gated", { "cases", test_cases, sizeof cases / sizeof *cases })

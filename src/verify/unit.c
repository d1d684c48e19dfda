// The unit and its gradient against its definition in double, with central differences as gradients. Files of the reference
// implementation are compared in tests/op/unit.c.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "verify/unit_run.h"

enum { MAX_VALUES = 512 };

// Some tiny ones have more pixels than a work-group of a GPU or a processor's vectors do at a time: above 32, and 16 in a row.
// Quick ones have parts of an image.
// clang-format off
static const struct unit_case cases[] = {
    { .name = "none relu residual", .n = 2, .c = 5, .h = 3, .w = 15, .method = EQ_UNIT_NONE, .activation = EQ_ACT_RELU,
      .residual = true, .add = true, .tiny = true },
    { .name = "none elu", .n = 1, .c = 17, .h = 1, .w = 1, .method = EQ_UNIT_NONE, .activation = EQ_ACT_ELU, .halo = 1 },
    { .name = "bn", .n = 3, .c = 17, .h = 5, .w = 9, .method = EQ_UNIT_BN, .tiny = true },
    { .name = "bn relu halo", .n = 2, .c = 40, .h = 4, .w = 7, .method = EQ_UNIT_BN, .activation = EQ_ACT_RELU, .halo = 2 },
    { .name = "bn elu residual", .n = 2, .c = 5, .h = 4, .w = 3, .method = EQ_UNIT_BN, .activation = EQ_ACT_ELU,
      .residual = true, .halo = 1, .tiny = true },
    { .name = "bn one channel, one image", .n = 1, .c = 1, .h = 2, .w = 9, .method = EQ_UNIT_BN, .activation = EQ_ACT_RELU,
      .residual = true, .add = true },
    { .name = "bn pixels of one", .n = 7, .c = 24, .h = 1, .w = 1, .method = EQ_UNIT_BN },
    { .name = "bn big mean", .n = 2, .c = 24, .h = 6, .w = 6, .method = EQ_UNIT_BN, .offset = 300 },
    { .name = "bn long", .n = 1, .c = 3, .h = 71, .w = 67, .method = EQ_UNIT_BN, .activation = EQ_ACT_RELU, .quick = true },
    { .name = "ce", .n = 2, .c = 16, .h = 4, .w = 3, .method = EQ_UNIT_CE, .group = 16, .iterations = 3, .hidden = 4,
      .tiny = true },
    { .name = "ce ragged g8 relu", .n = 3, .c = 24, .h = 3, .w = 19, .method = EQ_UNIT_CE, .activation = EQ_ACT_RELU,
      .residual = true, .add = true, .group = 16, .iterations = 3, .hidden = 6, .halo = 1, .tiny = true },
    { .name = "ce g5 elu", .n = 2, .c = 5, .h = 3, .w = 3, .method = EQ_UNIT_CE, .activation = EQ_ACT_ELU,
      .residual = true, .add = true, .group = 5, .iterations = 4, .hidden = 3, .halo = 2 },
    { .name = "ce g1", .n = 2, .c = 17, .h = 3, .w = 4, .method = EQ_UNIT_CE, .group = 16, .iterations = 3, .hidden = 4 },
    { .name = "ce g12 across blocks", .n = 2, .c = 36, .h = 4, .w = 5, .method = EQ_UNIT_CE, .activation = EQ_ACT_ELU,
      .group = 12, .iterations = 2, .hidden = 9 },
    { .name = "ce g40", .n = 2, .c = 40, .h = 5, .w = 5, .method = EQ_UNIT_CE, .activation = EQ_ACT_RELU, .residual = true,
      .group = 40, .iterations = 3, .hidden = 20 },
    { .name = "ce g32 one image", .n = 1, .c = 32, .h = 7, .w = 6, .method = EQ_UNIT_CE, .group = 32, .iterations = 3,
      .hidden = 33 },
    { .name = "ce 61 rows", .n = 1, .c = 16, .h = 61, .w = 7, .method = EQ_UNIT_CE, .activation = EQ_ACT_RELU, .group = 16,
      .iterations = 3, .hidden = 4, .quick = true },
    { .name = "se wider than two strips", .n = 1, .c = 5, .h = 18, .w = 227, .method = EQ_UNIT_SE, .hidden = 3 },
    { .name = "ce g64 relu", .n = 2, .c = 64, .h = 5, .w = 6, .method = EQ_UNIT_CE, .activation = EQ_ACT_RELU, .group = 64,
      .iterations = 2, .hidden = 16 },
    { .name = "ce g68", .n = 3, .c = 68, .h = 5, .w = 6, .method = EQ_UNIT_CE, .activation = EQ_ACT_RELU, .group = 68,
      .iterations = 2, .hidden = 17 },
    { .name = "ce 272 channels", .n = 2, .c = 272, .h = 3, .w = 4, .method = EQ_UNIT_CE, .activation = EQ_ACT_RELU, .group = 8,
      .iterations = 3, .hidden = 70, .quick = true }, // more than a work-group has work-items, and a processor's chunks
    { .name = "bd relu", .n = 2, .c = 24, .h = 4, .w = 4, .method = EQ_UNIT_BD, .activation = EQ_ACT_RELU,
      .residual = true, .group = 8, .iterations = 5, .tiny = true },
    { .name = "bd pixels of one", .n = 40, .c = 16, .h = 1, .w = 1, .method = EQ_UNIT_BD, .group = 4, .iterations = 3,
      .halo = 1 },
    { .name = "ir elu", .n = 3, .c = 17, .h = 4, .w = 3, .method = EQ_UNIT_IR, .activation = EQ_ACT_ELU, .residual = true,
      .hidden = 4, .halo = 1, .tiny = true },
    { .name = "ir", .n = 2, .c = 40, .h = 3, .w = 3, .method = EQ_UNIT_IR, .hidden = 10 },
    { .name = "se relu", .n = 3, .c = 40, .h = 3, .w = 3, .method = EQ_UNIT_SE, .activation = EQ_ACT_RELU,
      .residual = true, .add = true, .hidden = 3, .tiny = true },
    { .name = "se elu pixels of one", .n = 4, .c = 24, .h = 1, .w = 1, .method = EQ_UNIT_SE, .activation = EQ_ACT_ELU,
      .hidden = 20 },
};
// clang-format on

// What a case should give, made once for all families and blocks.
struct expected {
    double *out, *out_eval, *dres;                   // [n, c, h, w]
    double *after[EQ_UNIT_NUM_INPUTS];               // states
    double gradient[EQ_UNIT_NUM_INPUTS][MAX_VALUES]; // every step-th element
    double along[EQ_UNIT_NUM_INPUTS];                // all elements times direction_of(), where step is above 1
    size_t step[EQ_UNIT_NUM_INPUTS], num[EQ_UNIT_NUM_INPUTS];
};

// Factors between -1 and 1 of the elements of an input.
static float *direction_of(int input, size_t elems)
{
    return eq_check_uniform(unit_input_names[input], elems, 1);
}

static struct unit_run make_run(const struct unit_case *c)
{
    struct unit_run r = { .c = *c };
    const struct unit_reference reference = unit_reference_of(c, true);
    const size_t num = unit_reference_elems(&reference, EQ_UNIT_Z);
    r.dout = unit_random("dout", num, 0, 1);
    if (c->add)
        r.dres_add = unit_random("add", num, 0, 1);
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++)
        if (unit_reference_elems(&reference, i))
            r.input[i] = unit_input_values(&reference, i, unit_reference_elems(&reference, i), c->offset);
    if (c->residual)
        r.input[EQ_UNIT_RESIDUAL] = unit_random("residual", num, 0, 1);
    return r;
}

static void expect(const struct unit_run *r, struct expected *e)
{
    struct unit_reference reference = unit_reference_of(&r->c, true);
    const size_t num = unit_reference_elems(&reference, EQ_UNIT_Z);
    double *dout = unit_doubled(r->dout, num);
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++) {
        const size_t elems = i == EQ_UNIT_RESIDUAL ? num : unit_reference_elems(&reference, i);
        reference.input[i] = r->input[i] ? unit_doubled(r->input[i], elems) : NULL;
        e->after[i] = reference.after[i] = r->input[i] && unit_is_state(i) ? eq_check_calloc(elems, sizeof(double)) : NULL;
    }
    reference.out = e->out = eq_check_malloc(num, sizeof(double));
    unit_reference_forward(&reference);
    memset(reference.after, 0, sizeof reference.after);
    e->dres = eq_check_malloc(num, sizeof(double));
    for (size_t i = 0; i < num; i++) {
        const double y = e->out[i], slope = y > 0 || r->c.activation == EQ_ACT_NONE ? 1
                                            : r->c.activation == EQ_ACT_RELU        ? 0
                                                                                    : y + 1;
        e->dres[i] = dout[i] * slope + (r->c.add ? r->dres_add[i] : 0);
    }
    reference.out = eq_check_malloc(num, sizeof(double));
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++) {
        const size_t elems = r->input[i] && !unit_is_state(i) ? unit_reference_elems(&reference, i) : 0;
        e->step[i] = elems > 40 ? elems / 40 : 1;
        for (size_t k = 0; k < elems && e->num[i] < MAX_VALUES; k += e->step[i])
            e->gradient[i][e->num[i]++] = unit_reference_derivative(&reference, dout, i, k);
        if (e->step[i] == 1)
            continue;
        float *direction = direction_of(i, elems);
        e->along[i] = unit_reference_derivative_along(&reference, dout, i, direction);
        free(direction);
    }
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++)
        for (size_t k = 0; e->after[i] && k < unit_reference_elems(&reference, i); k++)
            reference.input[i][k] = e->after[i][k];
    reference.training = false;
    unit_reference_forward(&reference);
    e->out_eval = reference.out;
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++)
        free(reference.input[i]);
    free(dout);
}

// The largest of each window of 3 x 3 at stride 2, padded by 1, of planes [h, w].
static double *pooled(const double *from, int planes, int h, int w)
{
    const int oh = (h + 1) / 2, ow = (w + 1) / 2;
    double *to = eq_check_malloc((size_t)planes * (size_t)oh * (size_t)ow, sizeof *to);
    for (int i = 0; i < planes * oh * ow; i++) {
        const int plane = i / (oh * ow), y = i / ow % oh * 2, x = i % ow * 2;
        to[i] = -INFINITY;
        for (int v = y > 0 ? y - 1 : 0; v <= y + 1 && v < h; v++)
            for (int u = x > 0 ? x - 1 : 0; u <= x + 1 && u < w; u++)
                to[i] = fmax(to[i], from[(plane * h + v) * w + u]);
    }
    return to;
}

// The elements between those that are compared one by one: all of a gradient, times a direction. An error of one of them is
// seen in the sum as it would be in the norm.
static void check_along(const struct unit_run *r, const struct expected *e, int input, const float *got)
{
    const struct unit_reference reference = unit_reference_of(&r->c, true);
    const size_t elems = unit_reference_elems(&reference, input);
    float *direction = direction_of(input, elems);
    double sum = 0, squares = 0;
    char text[96];
    for (size_t i = 0; i < elems; i++) {
        sum += (double)direction[i] * got[i];
        squares += (double)got[i] * got[i];
    }
    snprintf(text, sizeof text, "gradient of %s along a direction", unit_input_names[input]);
    eq_check_bound(text, fabs(sum - e->along[input]) / (sqrt(squares) + 2e-3 * sqrt((double)elems)), 1e-5);
    free(direction);
}

// Tolerance of gradients 1e-5, as of files, and 2e-8 an element where they should be zero: a sum that cancels leaves rounding.
static void check_expected(const struct unit_run *r, const struct expected *e)
{
    const struct unit_reference reference = unit_reference_of(&r->c, true);
    const size_t num = unit_reference_elems(&reference, EQ_UNIT_Z);
    unit_compare("output", "", r->out, e->out, num, 1e-5, 1e-6);
    unit_compare("evaluation", "", r->out_eval, e->out_eval, num, 1e-5, 1e-6);
    if (r->out_given)
        unit_compare("evaluation", " with given moments", r->out_given, e->out_eval, num, 1e-5, 1e-6);
    if (r->out_pooled) {
        double *want = pooled(e->out_eval, r->c.n * r->c.c, r->c.h, r->c.w);
        unit_compare("evaluation", " with a pooling", r->out_pooled, want,
                     (size_t)(r->c.n * r->c.c) * (size_t)((r->c.h + 1) / 2) * (size_t)((r->c.w + 1) / 2), 1e-5, 1e-6);
        free(want);
    }
    if (r->c.residual)
        unit_compare("gradient of ", "residual", r->dres, e->dres, num, 1e-5, 1e-6);
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++) {
        const float *got = i == EQ_UNIT_Z ? r->dz : r->grad[i];
        float values[MAX_VALUES];
        for (size_t k = 0; k < e->num[i]; k++)
            values[k] = got[k * e->step[i]];
        if (e->num[i])
            unit_compare("gradient of ", unit_input_names[i], values, e->gradient[i], e->num[i], 1e-5, 2e-3);
        if (e->num[i] && e->step[i] > 1)
            check_along(r, e, i, got);
        if (e->after[i])
            unit_compare("state ", unit_input_names[i], r->after[i], e->after[i], unit_reference_elems(&reference, i), 1e-5,
                         1e-6);
    }
}

// ---- suite

struct case_run {
    const struct unit_case *c;
    const struct expected *expected;
    int index;
};

static void check_variant(void *user)
{
    const struct case_run *run = user;
    eq_check_begin("unit", run->c->name);
    eq_check_device->target.stream_bytes = (run->index + eq_check_turn()) % 2 ? 0 : SIZE_MAX; // past the caches, in turns
    struct unit_run r = make_run(run->c);
    unit_run_all(&r);
    check_expected(&r, run->expected);
    unit_run_free(&r);
}

static void test_cases(int index)
{
    const struct unit_case *c = &cases[index];
    if (eq_check_is_small() && !c->tiny && !(c->quick && eq_check_is_quick()))
        return;
    struct unit_run made = make_run(c);
    struct expected e = { 0 };
    expect(&made, &e);
    unit_run_free(&made);
    eq_check_each_variant(true, check_variant, &(struct case_run){ c, &e, index });
    free(e.out);
    free(e.out_eval);
    free(e.dres);
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++)
        free(e.after[i]);
}

// Two runs on the same device give the same bits.
static void check_same_bits(void *user)
{
    const struct unit_case *c = user;
    eq_check_begin("unit", c->name);
    struct unit_run r[2] = { make_run(c), make_run(c) };
    const struct unit_reference reference = unit_reference_of(c, true);
    const size_t num = unit_reference_elems(&reference, EQ_UNIT_Z);
    unit_run_all(&r[0]);
    unit_run_all(&r[1]);
    eq_check_same("output", r[0].out, r[1].out, num);
    eq_check_same("gradient of z", r[0].dz, r[1].dz, num);
    eq_check_same("gradient of w1", r[0].grad[EQ_UNIT_W1], r[1].grad[EQ_UNIT_W1], (size_t)c->c * (size_t)c->hidden);
    unit_run_free(&r[0]);
    unit_run_free(&r[1]);
}

static void test_same_bits(int index)
{
    struct unit_case c = { .name = "same bits",
                           .n = 3,
                           .c = 40,
                           .h = 9,
                           .w = 11,
                           .method = EQ_UNIT_CE,
                           .activation = EQ_ACT_RELU,
                           .group = 8,
                           .iterations = 3,
                           .hidden = 10 };
    (void)index;
    if (!eq_check_is_tiny())
        eq_check_each_variant(false, check_same_bits, &c);
}

// Images of `elems` values: the first, which had a NaN, has nothing else left after the gate, the second is as it was.
static void check_spread(const char *what, const float *with, const float *without, size_t elems)
{
    for (size_t i = 0; i < elems; i++)
        EQ_CHECK(isnan(with[i]), "%s: value %zu of the image with a NaN is %g", what, i, (double)with[i]);
    eq_check_same(what, with + elems, without + elems, elems);
}

static void check_nan(void *user)
{
    const struct unit_case *c = user;
    eq_check_begin("unit", c->name);
    struct unit_run r[2] = { make_run(c), make_run(c) };
    const size_t image = (size_t)c->c * (size_t)c->h * (size_t)c->w;
    r[1].eval_z = eq_check_malloc(2 * image, sizeof *r[1].eval_z);
    memcpy(r[1].eval_z, r[1].input[EQ_UNIT_Z], 2 * image * sizeof *r[1].eval_z);
    r[1].eval_z[3 * c->h * c->w + 7] = NAN;
    unit_run_all(&r[0]);
    unit_run_all(&r[1]);
    eq_check_same("training's output", r[1].out, r[0].out, 2 * image);
    check_spread("evaluation", r[1].out_eval, r[0].out_eval, image);
    if (r[0].out_given)
        check_spread("evaluation with given moments", r[1].out_given, r[0].out_given, image);
    if (r[0].out_pooled)
        check_spread("evaluation with a pooling", r[1].out_pooled, r[0].out_pooled,
                     (size_t)c->c * (size_t)((c->h + 1) / 2) * (size_t)((c->w + 1) / 2));
    unit_run_free(&r[0]);
    unit_run_free(&r[1]);
}

static void test_nan(int index)
{
    struct unit_case c = { .name = "ce, a NaN",
                           .n = 2,
                           .c = 32,
                           .h = 5,
                           .w = 6,
                           .method = EQ_UNIT_CE,
                           .activation = EQ_ACT_RELU,
                           .group = 8,
                           .iterations = 3,
                           .hidden = 8 };
    (void)index;
    if (eq_check_is_small())
        return;
    eq_check_each_variant(false, check_nan, &c);
    c.name = "ir, a NaN";
    c.method = EQ_UNIT_IR;
    eq_check_each_variant(false, check_nan, &c);
    c.name = "se, a NaN";
    c.method = EQ_UNIT_SE;
    eq_check_each_variant(false, check_nan, &c);
}

EQ_CHECK_SUITE(eq_suite_unit, "unit", { "cases", test_cases, sizeof cases / sizeof *cases }, { "same bits", test_same_bits, 0 },
               { "a NaN", test_nan, 0 })

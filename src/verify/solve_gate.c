// Solves of the gates alone: the forward networks of IR and SE, and what goes with them, against loops in double. Their
// gradients are compared with central differences in unit.c.
#include <math.h>
#include <stdlib.h>

#include "op/solve.h"
#include "verify/check.h"

struct gate_case {
    const char *name;
    int images, channels, hidden;
    bool layer_norm, training, has_weight;
};
static const struct gate_case cases[] = {
    { "ir", 3, 40, 10, true, true, false },           { "ce", 2, 17, 5, true, true, true },
    { "ce evaluation", 1, 33, 8, true, false, true }, { "se", 3, 24, 3, false, true, false },
    { "se wide", 2, 96, 70, false, false, false },    { "ce wide", 4, 260, 130, true, true, true },
};

enum gate_buffer {
    VALUE,
    VALUE_SUM,
    W1,
    GAIN,
    BIAS1,
    W2,
    BIAS2,
    X_WEIGHT,
    A,
    B,
    COMMON,
    RUN_SCALE,
    ACTIVE,
    NORMAL,
    DEVIATION,
    SPREAD,
    Y,
    GATE,
    SCALE,
    SHIFT,
    SUMS,
    NUM_BUFFERS
};

struct fixture {
    struct eq_solve_gate s;
    size_t elems[NUM_BUFFERS];
    float *host[NUM_BUFFERS];
    struct eq_buffer *buffer[NUM_BUFFERS];
};

static bool is_output(int i)
{
    return i >= ACTIVE;
}

// Padding of the arrays over channels is zero, as the solve before leaves it; outputs start as NaN.
static void make(struct fixture *f, const struct gate_case *c)
{
    const int stride = (c->channels + 15) / 16 * 16, hidden_stride = (c->hidden + 15) / 16 * 16;
    const size_t n = (size_t)c->images, image = n * (size_t)stride, hidden = n * (size_t)hidden_stride;
    const size_t weights = (size_t)c->channels * (size_t)c->hidden, channels = (size_t)c->channels;
    *f = (struct fixture){
        .s = { .images = c->images,
               .channels = c->channels,
               .stride = stride,
               .hidden = c->hidden,
               .hidden_stride = hidden_stride,
               .pixels = 9,
               .layer_norm = c->layer_norm,
               .training = c->training,
               .has_weight = c->has_weight,
               .momentum = 0.1f },
        .elems = { image,
                   (size_t)stride,
                   weights,
                   (size_t)c->hidden,
                   (size_t)c->hidden,
                   weights,
                   channels,
                   1,
                   (size_t)stride,
                   (size_t)stride,
                   (size_t)stride,
                   1,
                   hidden,
                   hidden,
                   n,
                   1,
                   image,
                   image,
                   image,
                   image,
                   hidden },
    };
    for (int i = 0; i < NUM_BUFFERS; i++) {
        const bool padded = i == VALUE || i == VALUE_SUM || i == A || i == B || i == COMMON;
        f->host[i] = eq_check_malloc(f->elems[i], sizeof(float));
        for (size_t k = 0; k < f->elems[i]; k++) {
            const float v = (float)eq_random_unit(eq_random_key(4, 0, (uint64_t)i, "gate"), k);
            const bool zero = padded && k % (size_t)stride >= channels;
            f->host[i][k] = is_output(i) ? NAN : zero ? 0 : i == W1 || i == W2 ? 2 * v - 1 : v + 0.1f;
        }
    }
    for (int k = 0; k < stride; k++) {
        f->host[VALUE_SUM][k] = 0;
        for (int i = 0; i < c->images; i++)
            f->host[VALUE_SUM][k] += f->host[VALUE][i * stride + k];
    }
    for (int i = 0; i < NUM_BUFFERS; i++) {
        EQ_CHECK_OK(eq_buffer_create(eq_check_device, f->elems[i] * sizeof(float), &f->buffer[i]));
        EQ_CHECK_OK(eq_ref_write(eq_ref_at(f->buffer[i], 0), f->host[i], f->elems[i], sizeof(float)));
    }
}

static struct eq_ref ref(const struct fixture *f, enum gate_buffer i)
{
    return eq_ref_at(f->buffer[i], 0);
}

static void run(struct fixture *f)
{
    struct eq_list *list = NULL;
    const bool ir = f->s.layer_norm;
    const struct eq_solve_reweight refs = {
        .weights = {
            .w1 = ref(f, W1),
            .gain = ir ? ref(f, GAIN) : EQ_REF_NONE,
            .bias1 = ref(f, BIAS1),
            .w2 = ref(f, W2),
            .bias2 = ir ? EQ_REF_NONE : ref(f, BIAS2),
            .x_weight = f->s.has_weight ? ref(f, X_WEIGHT) : EQ_REF_NONE,
            .run_scale = ir ? ref(f, RUN_SCALE) : EQ_REF_NONE,
        },
        .value = ref(f, VALUE),
        .value_sum = ref(f, VALUE_SUM),
        .a = ref(f, A),
        .b = ref(f, B),
        .common = f->s.has_weight ? ref(f, COMMON) : EQ_REF_NONE,
        .active = ref(f, ACTIVE),
        .normal = ir ? ref(f, NORMAL) : EQ_REF_NONE,
        .deviation = ir ? ref(f, DEVIATION) : EQ_REF_NONE,
        .spread = ref(f, SPREAD),
        .y = ref(f, Y),
        .gate = ref(f, GATE),
        .scale = ref(f, SCALE),
        .shift = ref(f, SHIFT),
        .sums = ref(f, SUMS),
    };
    EQ_CHECK_OK(eq_list_create(eq_check_device, &list));
    EQ_CHECK_OK(eq_solve_reweight_emit(list, &f->s, &refs));
    EQ_CHECK_OK(eq_list_run(list));
    EQ_CHECK_OK(eq_device_finish(eq_check_device));
    eq_list_destroy(&list);
}

// What is compared: one for each array.
enum { SPREADS, RUNNING, ACTIVES, YS, GATES, SCALES, SHIFTS, NUM_COMPARED };
static const char *const compared_names[NUM_COMPARED] = {
    "spread",
    "running scale",
    "active [0, 0, image, unit]",
    "y [0, 0, image, channel]",
    "gate [0, 0, image, channel]",
    "scale [0, 0, image, channel]",
    "shift [0, 0, image, channel]",
};

static void same(struct eq_check_comparison *c, int n, int i, double got, double want)
{
    eq_check_compare(c, (const int[4]){ 0, 0, n, i }, got, want, 1e-5 * (fabs(want) + 0.1));
}

// The network of one image; y [channels].
static void reference(const struct fixture *f, int n, double *active, double *y)
{
    const int channels = f->s.channels, hidden = f->s.hidden;
    double mean = 0, var = 0;
    for (int j = 0; j < hidden; j++) {
        active[j] = 0;
        for (int c = 0; c < channels; c++)
            active[j] += (double)f->host[W1][j * channels + c] * f->host[VALUE][n * f->s.stride + c];
        mean += active[j] / hidden;
    }
    for (int j = 0; j < hidden; j++)
        var += (active[j] - mean) * (active[j] - mean) / hidden;
    for (int j = 0; j < hidden; j++) {
        active[j] = f->s.layer_norm ? (active[j] - mean) / sqrt(var + 1e-5) * f->host[GAIN][j] + f->host[BIAS1][j]
                                    : active[j] + f->host[BIAS1][j];
        active[j] = active[j] > 0 ? active[j] : 0;
    }
    for (int c = 0; c < channels; c++) {
        double v = f->s.layer_norm ? 0 : f->host[BIAS2][c];
        for (int j = 0; j < hidden; j++)
            v += f->host[W2][c * hidden + j] * active[j];
        y[c] = 1 / (1 + exp(-v));
    }
}

static void check_case(const struct gate_case *c)
{
    struct fixture f;
    struct eq_check_comparison compared[NUM_COMPARED] = { { .num = 0 } };
    make(&f, c);
    run(&f);
    float *got[NUM_BUFFERS];
    for (int i = 0; i < NUM_BUFFERS; i++) {
        got[i] = eq_check_malloc(f.elems[i], sizeof(float));
        EQ_CHECK_OK(eq_ref_read(ref(&f, (enum gate_buffer)i), got[i], f.elems[i], sizeof(float)));
    }
    double s = 0, *active = eq_check_malloc((size_t)c->hidden, sizeof *active),
           *y = eq_check_malloc((size_t)c->channels, sizeof *y);
    for (int k = 0; k < c->channels; k++)
        s += f.host[VALUE_SUM][k];
    s = !c->layer_norm ? 1 : c->training ? sqrt(s / (c->channels * c->images)) : f.host[RUN_SCALE][0];
    same(&compared[SPREADS], 0, 0, got[SPREAD][0], s);
    same(&compared[RUNNING], 0, 0, got[RUN_SCALE][0],
         c->layer_norm && c->training ? 0.9 * f.host[RUN_SCALE][0] + 0.1 * s : f.host[RUN_SCALE][0]);
    const double weight = c->has_weight ? 1 / (1 + exp((double)f.host[X_WEIGHT][0])) : 1;
    for (int n = 0; n < c->images; n++) {
        reference(&f, n, active, y);
        for (int j = 0; j < f.s.hidden_stride; j++)
            same(&compared[ACTIVES], n, j, got[ACTIVE][n * f.s.hidden_stride + j], j < c->hidden ? active[j] : 0);
        for (int k = 0; k < f.s.stride; k++) {
            const int at = n * f.s.stride + k;
            const double gate = k < c->channels ? weight * y[k] / s : 0;
            same(&compared[YS], n, k, got[Y][at], k < c->channels ? y[k] : 0);
            same(&compared[GATES], n, k, got[GATE][at], gate);
            same(&compared[SCALES], n, k, got[SCALE][at], gate * f.host[A][k]);
            same(&compared[SHIFTS], n, k, got[SHIFT][at], gate * f.host[B][k] + (c->has_weight ? f.host[COMMON][k] : 0));
        }
    }
    for (int i = 0; i < NUM_COMPARED; i++)
        eq_check_compared(&compared[i], compared_names[i]);
    for (int i = 0; i < NUM_BUFFERS; i++) {
        eq_buffer_destroy(&f.buffer[i]);
        free(f.host[i]);
        free(got[i]);
    }
    free(active);
    free(y);
}

// Evaluation on processors has kernels of its own, from the moments on: the unit's cases run it.
static void check_variant(void *user)
{
    const struct gate_case *c = user;
    if (!c->training && c->layer_norm && eq_check_device->target.family == EQ_FAMILY_VECTOR)
        return;
    eq_check_begin("reweight", c->name);
    check_case(c);
}

static void test_reweight(int index)
{
    struct gate_case c = cases[index];
    if (!eq_check_is_tiny() || c.channels <= 40) // the wide ones are quick, but not for a simulator
        eq_check_each_variant(false, check_variant, &c);
}

EQ_CHECK_SUITE(eq_suite_solve_gate, "solve_gate", { "reweight", test_reweight, sizeof cases / sizeof *cases })

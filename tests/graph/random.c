// Graphs drawn by a seed, each built twice: with its last value as the only output, so that everything may be fused and memory
// used again, and with every value as one, so that hardly anything is. Results, gradients and running statistics are the same.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "equil/session.h"
#include "support.h"

// One shape for all values: any two can be added, and graphs share their kernels. Three blocks of channels of 16, one ragged.
enum { N = 2, C = 40, SIDE = 6, ELEMS = N * C * SIDE * SIDE, MAX_VALUES = 20, NUM_SEEDS = 60 };

struct drawn {
    struct eq_graph *graph;
    uint64_t state;
    eq_value values[MAX_VALUES];
    bool is_read[MAX_VALUES];
    int num, num_layers;
};

static int draw(struct drawn *d, int num)
{
    d->state = d->state * 6364136223846793005u + 1442695040888963407u;
    return (int)((d->state >> 33) % (uint64_t)num);
}

// A value to read: the last one half of the time.
static eq_value pick(struct drawn *d)
{
    const int at = draw(d, 2) ? d->num - 1 : draw(d, d->num);
    d->is_read[at] = true;
    return d->values[at];
}

static void keep(struct drawn *d, eq_value value)
{
    d->values[d->num++] = value;
}

static const char *layer_name(struct drawn *d, const char *what, char name[32])
{
    snprintf(name, 32, "%s%d", what, d->num_layers++);
    return name;
}

static void add_conv(struct drawn *d, eq_value x, int kernel, int groups)
{
    const struct eq_conv2d_params params = { .out_channels = C, .kernel_h = kernel, .kernel_w = kernel, .pad_h = kernel / 2,
                                             .pad_w = kernel / 2, .groups = groups };
    char name[32];
    eq_value y;
    EQ_TEST_OK(eq_graph_conv2d(d->graph, x, layer_name(d, "conv", name), &params, &y));
    keep(d, y);
}

static void add_norm(struct drawn *d, eq_value x, int gate)
{
    static const enum eq_branch branches[] = { EQ_BRANCH_BOTH, EQ_BRANCH_DECORRELATE, EQ_BRANCH_REWEIGHT };
    char name[32];
    eq_value y;
    EQ_TEST_OK(eq_graph_batch_norm(d->graph, x, layer_name(d, "norm", name), NULL, &y));
    layer_name(d, "gate", name);
    if (gate == 1)
        EQ_TEST_OK(eq_graph_squeeze_excite(d->graph, y, name, NULL, &y));
    else if (gate > 1)
        EQ_TEST_OK(eq_graph_channel_equilibrium(d->graph, y, name,
                                                &(struct eq_equilibrium_params){ .group = gate > 4 ? 20 : 8,
                                                                                 .branch = branches[(gate - 2) % 3] },
                                                &y));
    keep(d, y);
}

static void add_layer(struct drawn *d)
{
    static const struct eq_pool_params pool = { .kernel = 3, .stride = 1, .pad = 1 };
    const eq_value x = pick(d);
    eq_value y;
    switch (draw(d, 9)) {
    case 0: add_conv(d, x, 3, 1); return;
    case 1: add_conv(d, x, 1, 1); return;
    case 2: add_conv(d, x, 3, draw(d, 2) ? C : 5); return;
    case 3: add_norm(d, x, 0); return;
    case 4:
    case 5: add_norm(d, x, draw(d, 8)); return;
    case 6: EQ_TEST_OK(eq_graph_activation(d->graph, x, EQ_ELU, &y)); break;
    case 7: EQ_TEST_OK(eq_graph_max_pool(d->graph, x, &pool, &y)); break;
    default: EQ_TEST_OK(eq_graph_add(d->graph, x, pick(d), &y));
    }
    keep(d, y);
}

// One layer or two, and their input added to what they give.
static void add_block(struct drawn *d)
{
    const eq_value x = pick(d);
    eq_value y;
    if (draw(d, 2))
        add_conv(d, x, 1 + 2 * draw(d, 2), 1);
    if (draw(d, 2) || d->values[d->num - 1] == x)
        add_norm(d, d->values[d->num - 1], draw(d, 8));
    d->is_read[d->num - 1] = true;
    EQ_TEST_OK(eq_graph_add(d->graph, d->values[d->num - 1], x, &y));
    keep(d, y);
}

// The last value is the sum of all that nobody reads.
static void draw_graph(struct drawn *d, int seed, bool keeps_all)
{
    *d = (struct drawn){ .state = (uint64_t)seed + 1 };
    eq_value x, y;
    EQ_TEST_OK(eq_graph_create(&d->graph));
    EQ_TEST_OK(eq_graph_input(d->graph, "x", N, C, SIDE, SIDE, &x));
    keep(d, x);
    while (d->num < MAX_VALUES - 3)
        (draw(d, 3) ? add_layer : add_block)(d);
    y = d->values[d->num - 1];
    for (int i = 0; i < d->num - 1; i++)
        if (!d->is_read[i])
            EQ_TEST_OK(eq_graph_add(d->graph, y, d->values[i], &y));
    EQ_TEST_OK(eq_graph_activation(d->graph, y, EQ_ELU, &y));
    EQ_TEST_OK(eq_graph_output(d->graph, y, "y"));
    for (int i = 1; i < d->num && keeps_all; i++) {
        char name[32];
        snprintf(name, sizeof name, "value%d", i);
        EQ_TEST_OK(eq_graph_output(d->graph, d->values[i], name));
    }
    d->values[0] = y;
}

static void fill_weights(struct eq_weights *weights)
{
    EQ_TEST_OK(eq_weights_initialise(weights, 1));
    for (int i = 0; i < eq_weights_num(weights); i++) {
        const struct eq_weights_tensor t = eq_weights_at(weights, i);
        const bool is_scale = t.rank == 1 && (eq_str_ends(t.name, "weight") || eq_str_ends(t.name, "running_var") ||
                                              eq_str_ends(t.name, "running_scale"));
        const double spread = t.rank > 1 ? 1 / sqrt((double)t.elems / t.shape[0]) : 0.3;
        if (eq_str_ends(t.name, "running_wm"))
            continue;
        float *values = eq_check_values(t.name, t.elems, is_scale ? 1 : 0, spread);
        EQ_TEST_OK(eq_weights_write(weights, t.name, values));
        free(values);
    }
}

// What a run leaves.
struct results {
    float *values;
    size_t num;
};

static float *more(struct results *r, size_t num)
{
    r->values = realloc(r->values, (r->num + num) * sizeof *r->values);
    r->num += num;
    return r->values + r->num - num;
}

// [0]: y; [1]: in training, the gradient of x and those of filters and of what is normalised; [2]: the running statistics.
static void run_graph(int seed, bool keeps_all, bool training, bool recompute, struct results results[3])
{
    struct drawn d;
    struct eq_weights *weights;
    struct eq_session *session;
    float *x = eq_check_uniform("x", ELEMS, 1), *outer = eq_check_uniform("dy", ELEMS, 2);
    draw_graph(&d, seed, keeps_all);
    const struct eq_session_params params = { .training = training, .differentiate = training ? d.values[0] : 0,
                                              .input_gradients = training, .recompute = recompute };
    memset(results, 0, 3 * sizeof *results);
    EQ_TEST_OK(eq_weights_create(eq_test_device, d.graph, &weights));
    fill_weights(weights);
    EQ_TEST_OK(eq_session_create(weights, d.graph, &params, &session));
    EQ_TEST_OK(eq_session_write(session, "x", x));
    if (training)
        EQ_TEST_OK(eq_session_write(session, "grad.y", outer));
    EQ_TEST_OK(eq_session_run(session));
    EQ_TEST_OK(eq_session_read(session, "y", more(&results[0], ELEMS)));
    if (training)
        EQ_TEST_OK(eq_session_read(session, "grad.x", more(&results[1], ELEMS)));
    for (int i = 0; i < eq_weights_num(weights) && training; i++) {
        const struct eq_weights_tensor t = eq_weights_at(weights, i);
        if (!t.is_parameter)
            EQ_TEST_OK(eq_weights_read(weights, t.name, more(&results[2], t.elems)));
        else if (!eq_str_ends(t.name, "x_weight")) // a sum that cancels
            EQ_TEST_OK(eq_weights_read_gradient(weights, t.name, more(&results[1], t.elems)));
    }
    eq_session_destroy(&session);
    eq_weights_destroy(&weights);
    eq_graph_destroy(&d.graph);
    free(x);
    free(outer);
}

static void compare(int seed, const char *what, const struct results *got, const struct results *want, double tolerance)
{
    double difference = 0, size = 0;
    ck_assert_uint_eq(got->num, want->num);
    for (size_t i = 0; i < want->num; i++) {
        difference += ((double)got->values[i] - want->values[i]) * ((double)got->values[i] - want->values[i]);
        size += (double)want->values[i] * want->values[i];
    }
    ck_assert_msg(want->num == 0 || size > 0, "seed %d: %s are 0", seed, what);
    ck_assert_msg(sqrt(difference) <= tolerance * sqrt(size), "seed %d: %s differ by %g of their size", seed, what,
                  sqrt(difference / size));
}

static void free_results(struct results results[3])
{
    for (int i = 0; i < 3; i++)
        free(results[i].values);
}

// 1e-5, and of gradients 1e-4: rounding, which norms and gates on the way amplify, where folding and fusing round otherwise.
START_TEST(random_graphs)
{
    static const char *const what[] = { "results", "gradients", "statistics" };
    const int seed = _i / 2;
    eq_test_device->target.family = _i % 2 ? EQ_FAMILY_SIMT : EQ_FAMILY_VECTOR;
    for (int training = 0; training < 2; training++) {
        struct results fused[3], kept[3], again[3];
        run_graph(seed, false, training, false, fused);
        run_graph(seed, true, training, false, kept);
        run_graph(seed, false, training, training, again);
        for (int i = 0; i < 3; i++) {
            compare(seed, what[i], &fused[i], &kept[i], i == 1 ? 1e-4 : 1e-5);
            compare(seed, what[i], &again[i], &fused[i], 0); // evaluated once more, or with recomputing: the same bits
        }
        free_results(fused);
        free_results(kept);
        free_results(again);
    }
}
END_TEST

EQ_TEST_MAIN("random", { random_graphs, 2 * NUM_SEEDS })

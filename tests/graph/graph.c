// Graphs: fusion, what is computed from weights alone, refusals, and gradients of graphs with shared values against finite
// differences.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "equil/model.h"
#include "graph/graph.h"
#include "op/conv2d_gated.h"
#include "support.h"

#define CONV(oc, k, s)                                 \
    (&(struct eq_conv2d_params){ .out_channels = (oc), \
                                 .kernel_h = (k),      \
                                 .kernel_w = (k),      \
                                 .stride_h = (s),      \
                                 .stride_w = (s),      \
                                 .pad_h = (k) / 2,     \
                                 .pad_w = (k) / 2 })

struct net {
    struct eq_graph *graph;
    eq_value x, labels, logits, loss;
};

// A graph whose values have several readers: two norms and a residual read `a`, so that gradients meet in every way there is.
static void build_net(struct net *net, int n)
{
    eq_value a, b, c, d;
    EQ_TEST_OK(eq_graph_create(&net->graph));
    struct eq_graph *g = net->graph;
    EQ_TEST_OK(eq_graph_input(g, "x", n, 3, 9, 8, &net->x));
    EQ_TEST_OK(eq_graph_labels(g, "labels", n, &net->labels));
    EQ_TEST_OK(eq_graph_conv2d(g, net->x, "stem", CONV(12, 3, 1), &a));
    EQ_TEST_OK(eq_graph_batch_norm(g, a, "norm_b", NULL, &b));
    EQ_TEST_OK(eq_graph_activation(g, b, EQ_ELU, &b));
    EQ_TEST_OK(eq_graph_batch_norm(g, a, "norm_c", NULL, &c));
    EQ_TEST_OK(eq_graph_channel_equilibrium(g, c, "ce", &(struct eq_equilibrium_params){ .group = 4 }, &c));
    EQ_TEST_OK(eq_graph_add(g, c, b, &c));
    const struct eq_conv2d_params grouped = { .out_channels = 12, .kernel_h = 3, .kernel_w = 1, .pad_h = 1, .groups = 3 };
    EQ_TEST_OK(eq_graph_conv2d(g, b, "side", &grouped, &d));
    EQ_TEST_OK(eq_graph_batch_norm(g, d, "norm_d", NULL, &d));
    EQ_TEST_OK(eq_graph_squeeze_excite(g, d, "se", &(struct eq_squeeze_excite_params){ .reduction = 4 }, &d));
    EQ_TEST_OK(eq_graph_add(g, c, d, &c));
    EQ_TEST_OK(eq_graph_add(g, c, a, &c));
    EQ_TEST_OK(eq_graph_max_pool(g, c, &(struct eq_pool_params){ .kernel = 3, .stride = 2, .pad = 1 }, &c));
    EQ_TEST_OK(eq_graph_conv2d(g, c, "last", CONV(7, 3, 2), &c));
    EQ_TEST_OK(eq_graph_mean_pool(g, c, &c));
    EQ_TEST_OK(eq_graph_linear(g, c, "fc", 5, &net->logits));
    EQ_TEST_OK(eq_graph_output(g, net->logits, "logits"));
    EQ_TEST_OK(eq_graph_cross_entropy(g, net->logits, net->labels, 0.1f, &net->loss));
    EQ_TEST_OK(eq_graph_output(g, net->loss, "loss"));
}

static size_t entry_elems(const struct eq_store_entry *entry)
{
    return (size_t)entry->shape[0] * (size_t)entry->shape[1] * (size_t)entry->shape[2] * (size_t)entry->shape[3];
}

static void fill_store(struct eq_store *store)
{
    for (int i = 0; i < eq_store_num_entries(store); i++) {
        const struct eq_store_entry *entry = eq_store_entry(store, i);
        const bool is_scale = (eq_str_ends(entry->name, ".weight") && entry->rank == 1) ||
                              eq_str_ends(entry->name, "running_var") || eq_str_ends(entry->name, "running_scale");
        float *values = eq_check_values(entry->name, entry_elems(entry), is_scale ? 1 : 0, 0.3);
        EQ_TEST_OK(eq_store_write(store, entry, EQ_STORE_VALUE, values));
        free(values);
    }
}

static double mean_loss(struct eq_exec *exec, const struct net *net, int n)
{
    float losses[16];
    double sum = 0;
    EQ_TEST_OK(eq_exec_run(exec));
    EQ_TEST_OK(eq_exec_read(exec, net->loss, losses));
    for (int i = 0; i < n; i++)
        sum += losses[i];
    return sum / n;
}

// Derivative of the loss along the gradient of one parameter: it must be the gradient's norm.
static void check_direction(struct eq_exec *exec, struct eq_store *store, const struct eq_store_entry *entry,
                            const struct net *net, int n)
{
    size_t elems = entry_elems(entry);
    float *values = malloc(elems * sizeof *values), *gradient = malloc(elems * sizeof *gradient),
          *moved = malloc(elems * sizeof *moved);
    double norm = 0, loss[2];
    mean_loss(exec, net, n);
    EQ_TEST_OK(eq_store_read(store, entry, EQ_STORE_VALUE, values));
    EQ_TEST_OK(eq_store_read(store, entry, EQ_STORE_GRADIENT, gradient));
    for (size_t i = 0; i < elems; i++)
        norm += (double)gradient[i] * gradient[i];
    norm = sqrt(norm);
    // Large enough that float32 losses near 1 differ in many digits, small enough for the curvature.
    double step = 2e-2;
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < elems; i++)
            moved[i] = (float)(values[i] + (side ? -step : step) * gradient[i] / norm);
        EQ_TEST_OK(eq_store_write(store, entry, EQ_STORE_VALUE, moved));
        loss[side] = mean_loss(exec, net, n);
    }
    EQ_TEST_OK(eq_store_write(store, entry, EQ_STORE_VALUE, values));
    double slope = (loss[0] - loss[1]) / (2 * step);
    // 2 %: the max pool's kinks and the cubic term; absolute 2e-5: rounding of the losses, 1e-7 / step, with a margin.
    ck_assert_msg(fabs(slope - norm) < 0.02 * norm + 2e-5, "%s: the loss has slope %g along the gradient of norm %g",
                  entry->name, slope, norm);
    free(values);
    free(gradient);
    free(moved);
}

START_TEST(gradients)
{
    enum { N = 6 };
    struct net net;
    struct eq_ir *ir;
    struct eq_store *store;
    struct eq_exec *exec;
    int32_t labels[N] = { 0, 1, 2, 3, 4, 1 };
    eq_check_variant(_i);
    build_net(&net, N);
    struct eq_compile_params params = { .training = true, .loss = net.loss };
    EQ_TEST_OK(eq_ir_create(net.graph, &eq_test_device->target, &params, &ir));
    EQ_TEST_OK(eq_store_create(eq_test_device, ir, &store));
    EQ_TEST_OK(eq_store_add_training(store));
    eq_ir_destroy(&ir);
    fill_store(store);
    EQ_TEST_OK(eq_exec_create(eq_test_device, store, net.graph, &params, &exec));
    float *x = eq_check_uniform("x", N * 3 * 9 * 8, 0);
    EQ_TEST_OK(eq_exec_write(exec, net.x, x));
    EQ_TEST_OK(eq_exec_write(exec, net.labels, labels));
    for (int i = 0; i < eq_store_num_entries(store); i++)
        if (eq_store_entry(store, i)->kind == EQ_VALUE_PARAMETER)
            check_direction(exec, store, eq_store_entry(store, i), &net, N);
    free(x);
    eq_exec_destroy(&exec);
    eq_store_destroy(&store);
    eq_graph_destroy(&net.graph);
}
END_TEST

static int count_calls(const struct eq_ir *ir, const struct eq_op *op)
{
    int num = 0;
    for (int i = 0; i < ir->num_calls; i++)
        num += ir->calls[i].call.op == op;
    return num;
}

START_TEST(fusion)
{
    struct net net;
    struct eq_ir *ir;
    build_net(&net, 2);
    struct eq_target target = eq_target_default();
    EQ_TEST_OK(eq_ir_create(net.graph, &target, &(struct eq_compile_params){ .loss = EQ_NO_VALUE }, &ir));
    // norm_b + elu; norm_c + ce + residual b; norm_d + se + residual; the last add alone.
    ck_assert_int_eq(count_calls(ir, &eq_op_unit), 4);
    ck_assert_int_eq(count_calls(ir, &eq_op_add), 0);
    ck_assert_int_eq(count_calls(ir, &eq_op_conv2d), 3);
    eq_ir_destroy(&ir);
    EQ_TEST_OK(eq_ir_create(net.graph, &target, &(struct eq_compile_params){ .training = true, .loss = net.loss }, &ir));
    ck_assert_int_eq(count_calls(ir, &eq_op_unit_grad), 4);
    ck_assert_int_eq(count_calls(ir, &eq_op_conv2d_weight_grad), 3);
    ck_assert_int_eq(count_calls(ir, &eq_op_conv2d_data_grad), 2); // the image needs no gradient
    eq_ir_destroy(&ir);
    eq_graph_destroy(&net.graph);
}
END_TEST

// conv, norm, residual and activation of a shortcut: three convolutions that take in all there is, one without a norm, and a
// gate that must see its convolution's output as it is.
static void build_folded(struct net *net, int n)
{
    eq_value a, b, c;
    EQ_TEST_OK(eq_graph_create(&net->graph));
    struct eq_graph *g = net->graph;
    EQ_TEST_OK(eq_graph_input(g, "x", n, 3, 9, 8, &net->x));
    EQ_TEST_OK(eq_graph_conv2d(g, net->x, "stem", CONV(12, 3, 1), &a));
    EQ_TEST_OK(eq_graph_batch_norm(g, a, "norm_a", NULL, &a));
    EQ_TEST_OK(eq_graph_activation(g, a, EQ_RELU, &a));
    EQ_TEST_OK(eq_graph_conv2d(g, a, "conv_a", CONV(12, 3, 1), &b));
    EQ_TEST_OK(eq_graph_activation(g, b, EQ_RELU, &b));
    EQ_TEST_OK(eq_graph_conv2d(g, b, "conv_b", CONV(12, 1, 1), &b));
    EQ_TEST_OK(eq_graph_batch_norm(g, b, "norm_b", NULL, &b));
    EQ_TEST_OK(eq_graph_add(g, a, b, &b));
    EQ_TEST_OK(eq_graph_activation(g, b, EQ_ELU, &b));
    EQ_TEST_OK(eq_graph_conv2d(g, b, "conv_c", CONV(12, 3, 1), &c));
    EQ_TEST_OK(eq_graph_batch_norm(g, c, "norm_c", NULL, &c));
    EQ_TEST_OK(eq_graph_channel_equilibrium(g, c, "ce", &(struct eq_equilibrium_params){ .group = 4 }, &c));
    EQ_TEST_OK(eq_graph_conv2d(g, c, "last", CONV(7, 3, 2), &c));
    EQ_TEST_OK(eq_graph_mean_pool(g, c, &c));
    EQ_TEST_OK(eq_graph_linear(g, c, "fc", 5, &net->logits));
    EQ_TEST_OK(eq_graph_output(g, net->logits, "logits"));
}

// What a convolution, a norm and a gate become in evaluation.
enum gate_calls {
    APART,   // a convolution, folded where it may be, and a unit that passes over its output twice
    MOMENTS, // a convolution that gives moments, and a unit that passes over its output once
    GATED,   // conv2d_gated: no such pass
};

static enum gate_calls gate_calls_of(const struct eq_graph *graph, const struct eq_target *target)
{
    struct eq_ir *ir;
    EQ_TEST_OK(eq_ir_create(graph, target, &(struct eq_compile_params){ .loss = EQ_NO_VALUE }, &ir));
    const int num_gated = count_calls(ir, &eq_op_conv2d_gated), num_units = count_calls(ir, &eq_op_unit);
    enum gate_calls found = num_gated ? GATED : APART;
    ck_assert_int_eq(num_gated + num_units, 1);
    for (int i = 0; i < ir->num_calls; i++)
        if (ir->calls[i].call.op == &eq_op_unit && ir->calls[i].call.has[EQ_UNIT_MOMENTS])
            found = MOMENTS;
    eq_ir_destroy(&ir);
    return found;
}

START_TEST(gates)
{
    static const struct {
        int image, in, out, kernel;
        enum eq_branch branch;
        enum gate_calls calls;
    } cases[] = {
        { 56, 64, 256, 1, EQ_BRANCH_BOTH, GATED },        { 56, 64, 256, 1, EQ_BRANCH_REWEIGHT, GATED },
        { 56, 64, 256, 1, EQ_BRANCH_DECORRELATE, APART }, // has no gate
        { 14, 256, 1024, 1, EQ_BRANCH_BOTH, MOMENTS },    // products of so many channels cost more than a pass
        { 56, 256, 64, 1, EQ_BRANCH_REWEIGHT, MOMENTS },  { 56, 16, 64, 3, EQ_BRANCH_BOTH, MOMENTS },
        { 6, 256, 64, 1, EQ_BRANCH_BOTH, APART }, // tiles of so few pixels are no parts
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct eq_equilibrium_params params = { .branch = cases[i].branch };
        struct eq_target target = eq_target_default();
        struct eq_graph *g;
        eq_value x, z, out;
        target.use_winograd = false;
        EQ_TEST_OK(eq_graph_create(&g));
        EQ_TEST_OK(eq_graph_input(g, "x", 8, cases[i].in, cases[i].image, cases[i].image, &x));
        EQ_TEST_OK(eq_graph_conv2d(g, x, "conv", CONV(cases[i].out, cases[i].kernel, 1), &z));
        EQ_TEST_OK(eq_graph_batch_norm(g, z, "norm", NULL, &out));
        EQ_TEST_OK(eq_graph_channel_equilibrium(g, out, "ce", &params, &out));
        EQ_TEST_OK(eq_graph_output(g, out, "out"));
        ck_assert_int_eq(gate_calls_of(g, &target), cases[i].calls);
        target.family = EQ_FAMILY_SIMT;
        ck_assert_int_eq(gate_calls_of(g, &target), APART);
        target.family = EQ_FAMILY_VECTOR;
        EQ_TEST_OK(eq_graph_output(g, z, "z")); // somebody else reads it: no convolution of the unit's own
        ck_assert_int_eq(gate_calls_of(g, &target), APART);
        eq_graph_destroy(&g);
    }
}
END_TEST

// A pooling joins the unit before it where that has a gate and is evaluated on a processor, and nobody else reads it.
START_TEST(pools)
{
    static const struct {
        enum eq_branch branch;
        struct eq_pool_params pool;
        enum eq_family family;
        bool is_read, has_residual, joins;
    } cases[] = {
        { EQ_BRANCH_BOTH, { .kernel = 3, .stride = 2, .pad = 1 }, EQ_FAMILY_VECTOR, false, false, true },
        { EQ_BRANCH_REWEIGHT, { .kernel = 3, .stride = 2, .pad = 1 }, EQ_FAMILY_VECTOR, false, false, true },
        { EQ_BRANCH_DECORRELATE, { .kernel = 3, .stride = 2, .pad = 1 }, EQ_FAMILY_VECTOR, false, false, false },
        { EQ_BRANCH_BOTH, { .kernel = 2, .stride = 2 }, EQ_FAMILY_VECTOR, false, false, false },
        { EQ_BRANCH_BOTH, { .kernel = 3, .stride = 2, .pad = 1 }, EQ_FAMILY_SIMT, false, false, false },
        { EQ_BRANCH_BOTH, { .kernel = 3, .stride = 2, .pad = 1 }, EQ_FAMILY_VECTOR, true, false, false },
        { EQ_BRANCH_BOTH, { .kernel = 3, .stride = 2, .pad = 1 }, EQ_FAMILY_VECTOR, false, true, false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct eq_equilibrium_params params = { .branch = cases[i].branch };
        struct eq_target target = eq_target_default();
        struct eq_graph *g;
        eq_value x, z, out;
        target.family = cases[i].family;
        EQ_TEST_OK(eq_graph_create(&g));
        EQ_TEST_OK(eq_graph_input(g, "x", 2, 16, 9, 8, &x));
        EQ_TEST_OK(eq_graph_conv2d(g, x, "conv", CONV(16, 3, 1), &z));
        EQ_TEST_OK(eq_graph_batch_norm(g, z, "norm", NULL, &z));
        EQ_TEST_OK(eq_graph_channel_equilibrium(g, z, "ce", &params, &z));
        if (cases[i].has_residual)
            EQ_TEST_OK(eq_graph_add(g, z, x, &z));
        EQ_TEST_OK(eq_graph_activation(g, z, EQ_RELU, &z));
        EQ_TEST_OK(eq_graph_max_pool(g, z, &cases[i].pool, &out));
        EQ_TEST_OK(eq_graph_output(g, out, "out"));
        if (cases[i].is_read)
            EQ_TEST_OK(eq_graph_output(g, z, "z"));
        for (int training = 0; training < 2; training++) {
            struct eq_ir *ir;
            EQ_TEST_OK(
                eq_ir_create(g, &target, &(struct eq_compile_params){ .training = training == 1, .loss = EQ_NO_VALUE }, &ir));
            ck_assert_int_eq(count_calls(ir, &eq_op_pool_max), !cases[i].joins || training);
            eq_ir_destroy(&ir);
        }
        eq_graph_destroy(&g);
    }
}
END_TEST

START_TEST(folding)
{
    struct net net;
    struct eq_ir *ir;
    struct eq_target target = eq_target_default();
    target.family = EQ_FAMILY_SIMT; // where no filter is transformed
    build_folded(&net, 2);
    EQ_TEST_OK(eq_ir_create(net.graph, &target, &(struct eq_compile_params){ .loss = EQ_NO_VALUE }, &ir));
    ck_assert_int_eq(count_calls(ir, &eq_op_conv2d_prepare), 3);
    ck_assert_int_eq(count_calls(ir, &eq_op_conv2d_fused), 3);
    ck_assert_int_eq(count_calls(ir, &eq_op_conv2d), 2); // before the gate, and the last
    ck_assert_int_eq(count_calls(ir, &eq_op_unit), 1);
    ck_assert_int_eq(count_calls(ir, &eq_op_unit_prepare), 1); // the gate's matrix
    int num_constant = 0, added = -1;
    for (int i = 0; i < ir->num_calls; i++) {
        const struct eq_ir_call *call = &ir->calls[i];
        ck_assert_int_eq(call->is_constant, call->call.op == &eq_op_conv2d_prepare || call->call.op == &eq_op_unit_prepare);
        num_constant += call->is_constant;
        if (call->call.op == &eq_op_conv2d_fused && call->call.has[3])
            added = i;
    }
    ck_assert_int_eq(num_constant, 4);
    ck_assert_int_ge(added, 0);
    ck_assert_int_eq(((const struct eq_conv2d_fused_attributes *)ir->calls[added].attributes)->activation, EQ_ACT_ELU);
    // What is prepared keeps its memory from run to run; the residual's goes to the sum.
    struct eq_plan_item *items;
    int num, *item_of_value;
    EQ_TEST_OK(eq_plan_items(ir, &items, &num, &item_of_value));
    for (int i = 1; i <= 2; i++) {
        const struct eq_plan_item *item = &items[item_of_value[ir->calls[added].in[i]]];
        ck_assert(item->first == 0 && item->last == ir->num_calls);
    }
    ck_assert_int_eq(item_of_value[ir->calls[added].in[3]], item_of_value[ir->calls[added].out[0]]);
    free(items);
    free(item_of_value);
    eq_ir_destroy(&ir);
    target.precision = EQ_BF16; // matrix units read filters packed, those of bare convolutions as well
    EQ_TEST_OK(eq_ir_create(net.graph, &target, &(struct eq_compile_params){ .loss = EQ_NO_VALUE }, &ir));
    ck_assert_int_eq(count_calls(ir, &eq_op_conv2d_prepare), 5);
    ck_assert_int_eq(count_calls(ir, &eq_op_conv2d_fused), 5);
    ck_assert_int_eq(count_calls(ir, &eq_op_conv2d), 0);
    target.precision = EQ_FP32;
    eq_ir_destroy(&ir);
    EQ_TEST_OK(eq_ir_create(net.graph, &target, &(struct eq_compile_params){ .training = true, .loss = EQ_NO_VALUE }, &ir));
    ck_assert_int_eq(count_calls(ir, &eq_op_conv2d_prepare) + count_calls(ir, &eq_op_conv2d_fused), 0);
    ck_assert_int_eq(count_calls(ir, &eq_op_unit_prepare), 0);
    ck_assert_int_eq(count_calls(ir, &eq_op_unit), 4);
    for (int i = 0; i < ir->num_calls; i++)
        ck_assert(!ir->calls[i].is_constant);
    eq_ir_destroy(&ir);
    eq_graph_destroy(&net.graph);
}
END_TEST

enum { FOLDED_N = 2, NUM_LOGITS = FOLDED_N * 5 };

static struct eq_store *make_store(const struct net *net)
{
    struct eq_ir *ir;
    struct eq_store *store;
    EQ_TEST_OK(eq_ir_create(net->graph, &eq_test_device->target, &(struct eq_compile_params){ .loss = EQ_NO_VALUE }, &ir));
    EQ_TEST_OK(eq_store_create(eq_test_device, ir, &store));
    eq_ir_destroy(&ir);
    return store;
}

static struct eq_exec *make_exec(const struct net *net, struct eq_store *store)
{
    struct eq_exec *exec;
    EQ_TEST_OK(eq_exec_create(eq_test_device, store, net->graph, &(struct eq_compile_params){ .loss = EQ_NO_VALUE }, &exec));
    float *x = eq_check_uniform("x", FOLDED_N * 3 * 9 * 8, 0);
    EQ_TEST_OK(eq_exec_write(exec, net->x, x));
    free(x);
    return exec;
}

static void run_logits(struct eq_exec *exec, const struct net *net, float logits[NUM_LOGITS])
{
    EQ_TEST_OK(eq_exec_run(exec));
    EQ_TEST_OK(eq_exec_read(exec, net->logits, logits));
}

// Graphs whose residual is the input of the layers that it is added to, in forms that read it in other places than they write:
// the sum may not take its memory. They give what they give where that input is an output besides, which keeps it.
static const struct own_residual {
    int channels, kernel;     // of a convolution; kernel 0: none
    bool has_norm, has_gate;  // squeeze and excitation behind a convolution, else Channel Equilibrium
    bool training;
    enum eq_family family;
} own_residuals[] = {
    { 32, 3, true, false, false, EQ_FAMILY_VECTOR },  { 512, 1, true, false, false, EQ_FAMILY_VECTOR },
    { 32, 3, true, false, false, EQ_FAMILY_SIMT },    { 80, 1, false, false, false, EQ_FAMILY_SIMT },
    { 128, 1, true, true, false, EQ_FAMILY_VECTOR },  { 64, 0, true, true, false, EQ_FAMILY_VECTOR },
    { 64, 0, true, true, true, EQ_FAMILY_VECTOR },    { 64, 0, true, true, false, EQ_FAMILY_SIMT },
    { 64, 0, true, true, true, EQ_FAMILY_SIMT },
};
enum { OWN_SIDE = 9, NUM_OWN = sizeof own_residuals / sizeof *own_residuals };

static float *run_own_residual(const struct own_residual *c, bool is_kept, size_t *elems)
{
    struct eq_graph *g;
    struct eq_ir *ir;
    struct eq_store *store;
    struct eq_exec *exec;
    eq_value in, x, y;
    const struct eq_compile_params params = { .training = c->training, .loss = EQ_NO_VALUE };
    EQ_TEST_OK(eq_graph_create(&g));
    EQ_TEST_OK(eq_graph_input(g, "in", 2, c->channels, OWN_SIDE, OWN_SIDE, &in));
    EQ_TEST_OK(eq_graph_activation(g, in, EQ_ELU, &x));
    if (is_kept)
        EQ_TEST_OK(eq_graph_output(g, x, "x"));
    y = x;
    if (c->kernel)
        EQ_TEST_OK(eq_graph_conv2d(g, y, "conv", CONV(c->channels, c->kernel, 1), &y));
    if (c->has_norm)
        EQ_TEST_OK(eq_graph_batch_norm(g, y, "norm", NULL, &y));
    if (c->has_gate && c->kernel)
        EQ_TEST_OK(eq_graph_squeeze_excite(g, y, "se", NULL, &y));
    else if (c->has_gate)
        EQ_TEST_OK(eq_graph_channel_equilibrium(g, y, "ce", &(struct eq_equilibrium_params){ .group = 32 }, &y));
    EQ_TEST_OK(eq_graph_add(g, y, x, &y));
    EQ_TEST_OK(eq_graph_output(g, y, "y"));
    EQ_TEST_OK(eq_ir_create(g, &eq_test_device->target, &params, &ir));
    EQ_TEST_OK(eq_store_create(eq_test_device, ir, &store));
    fill_store(store);
    EQ_TEST_OK(eq_exec_create(eq_test_device, store, g, &params, &exec));
    *elems = (size_t)(2 * c->channels * OWN_SIDE * OWN_SIDE);
    float *values = eq_check_uniform("in", *elems, 3), *result = malloc(*elems * sizeof *result);
    EQ_TEST_OK(eq_exec_write(exec, in, values));
    EQ_TEST_OK(eq_exec_run(exec));
    EQ_TEST_OK(eq_exec_read(exec, y, result));
    free(values);
    eq_exec_destroy(&exec);
    eq_store_destroy(&store);
    eq_ir_destroy(&ir);
    eq_graph_destroy(&g);
    return result;
}

START_TEST(own_residual)
{
    const struct own_residual *c = &own_residuals[_i];
    size_t elems;
    float size = 0;
    eq_test_device->target.family = c->family;
    float *got = run_own_residual(c, false, &elems), *want = run_own_residual(c, true, &elems);
    for (size_t i = 0; i < elems; i++)
        size = fmaxf(size, fabsf(want[i]));
    ck_assert(size > 0.5f && isfinite(size));
    for (size_t i = 0; i < elems; i++)
        ck_assert_msg(fabsf(got[i] - want[i]) <= 1e-6f * size, "element %zu of %zu is %g, not %g", i, elems, (double)got[i],
                      (double)want[i]);
    free(got);
    free(want);
}
END_TEST

// What was made from weights is made again when they change, however they change, and only then.
START_TEST(prepared)
{
    struct net net;
    float before[NUM_LOGITS], after[NUM_LOGITS], fresh[NUM_LOGITS];
    eq_check_variant(_i);
    build_folded(&net, FOLDED_N);
    struct eq_store *store = make_store(&net);
    fill_store(store);
    for (int i = 0; i < eq_store_num_entries(store); i++) { // variances are positive
        const struct eq_store_entry *entry = eq_store_entry(store, i);
        if (!strstr(entry->name, "running_var"))
            continue;
        float *values = eq_check_values(entry->name, entry_elems(entry), 1, 0.5);
        EQ_TEST_OK(eq_store_write(store, entry, EQ_STORE_VALUE, values));
        free(values);
    }
    struct eq_exec *exec = make_exec(&net, store);
    run_logits(exec, &net, before);
    run_logits(exec, &net, after);
    ck_assert_mem_eq(before, after, sizeof before);
    static const char *const names[] = { "stem.weight", "norm_a.weight", "norm_a.bias", "norm_a.running_mean",
                                         "norm_b.running_var" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct eq_store_entry *entry = eq_store_find(store, names[i]);
        ck_assert_msg(entry != NULL, "%s", names[i]);
        float *values = eq_check_values("changed", entry_elems(entry), 2, 1);
        // Behind the store's back nobody sees it, ...
        float *stored = malloc(eq_tensor_bytes(&entry->tensor));
        eq_tensor_pack(&entry->tensor, values, stored);
        EQ_TEST_OK(eq_ref_write(eq_store_ref(store, entry, EQ_STORE_VALUE), stored, eq_tensor_elems(&entry->tensor), 4));
        run_logits(exec, &net, after);
        ck_assert_mem_eq(before, after, sizeof before);
        // ... until it is told, or is the one that writes.
        const uint64_t version = eq_store_version(store);
        if (i % 2)
            eq_store_touch(store);
        else
            EQ_TEST_OK(eq_store_write(store, entry, EQ_STORE_VALUE, values));
        ck_assert_uint_gt(eq_store_version(store), version);
        run_logits(exec, &net, after);
        ck_assert_msg(memcmp(before, after, sizeof before) != 0, "%s: nothing changed", names[i]);
        struct eq_exec *other = make_exec(&net, store);
        run_logits(other, &net, fresh);
        ck_assert_mem_eq(after, fresh, sizeof fresh);
        eq_exec_destroy(&other);
        memcpy(before, after, sizeof before);
        free(stored);
        free(values);
    }
    eq_exec_destroy(&exec);
    eq_store_destroy(&store);
    eq_graph_destroy(&net.graph);
}
END_TEST

// Values by the names of their calls, and what may be named as an output.
START_TEST(names)
{
    struct eq_graph *g;
    eq_value x, conv, norm, block, y, found;
    int shape[4], rank;
    EQ_TEST_OK(eq_graph_create(&g));
    EQ_TEST_OK(eq_graph_input(g, "x", 2, 8, 4, 4, &x));
    EQ_TEST_OK(eq_graph_conv2d(g, x, "stage.0.conv", CONV(8, 3, 1), &conv));
    EQ_TEST_OK(eq_graph_batch_norm(g, conv, "stage.0.norm", NULL, &norm));
    EQ_TEST_OK(eq_graph_channel_equilibrium(g, norm, "stage.0.ce", NULL, &y));
    EQ_TEST_OK(eq_graph_add(g, y, conv, &y));
    EQ_TEST_OK(eq_graph_activation(g, y, EQ_RELU, &block));
    const struct {
        const char *name;
        eq_value value; // -1: there is none
    } rows[] = {
        { "stage.0.conv", conv }, { "stage.0.ce", y - 1 }, { "stage", y - 1 }, { "stage.0", y - 1 }, { "x", -1 }, { "add", -1 },
        { "activation", -1 },     { "stage.", -1 },        { "stag", -1 }
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const eq_status status = eq_graph_find(g, rows[i].name, &found);
        ck_assert_msg(status == (rows[i].value < 0 ? EQ_ERR_NOT_FOUND : EQ_OK), "%s: %s", rows[i].name, eq_last_error());
        ck_assert_msg(status != EQ_OK || found == rows[i].value, "%s is value %d, not %d", rows[i].name, found, rows[i].value);
    }
    EQ_TEST_OK(eq_graph_label(g, block, "stage.0"));
    EQ_TEST_OK(eq_graph_find(g, "stage.0", &found));
    ck_assert_int_eq(found, block);
    EQ_TEST_OK(eq_graph_find(g, "stage", &found));
    ck_assert_int_eq(found, block);
    // a word of ours as a name of the caller's
    EQ_TEST_OK(eq_graph_label(g, block, "activation"));
    EQ_TEST_OK(eq_graph_find(g, "activation", &found));
    ck_assert_int_eq(found, block);
    EQ_TEST_OK(eq_graph_label(g, block, "stage.0"));
    ck_assert_int_eq(eq_graph_label(g, x, "input"), EQ_ERR_ARGUMENT);
    // the norm's result exists inside the gate alone
    ck_assert_int_eq(eq_graph_output(g, norm, "norm"), EQ_ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "stage.0.ce"));
    ck_assert_int_eq(eq_graph_add(g, block, norm, &y), EQ_ERR_UNSUPPORTED);
    // one name a value
    ck_assert_int_eq(eq_graph_output(g, x, "image"), EQ_ERR_ARGUMENT);
    EQ_TEST_OK(eq_graph_output(g, block, "first"));
    ck_assert_int_eq(eq_graph_output(g, block, "second"), EQ_ERR_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "'first'"));
    EQ_TEST_OK(eq_graph_mean_pool(g, block, &y));
    EQ_TEST_OK(eq_graph_shape(g, y, shape, &rank));
    ck_assert(rank == 2 && shape[0] == 2 && shape[1] == 8 && shape[2] == 1 && shape[3] == 1);
    eq_graph_destroy(&g);
}
END_TEST

// Every layer of a network can be an output, in evaluation and in training, but for what is normalised inside a gate.
START_TEST(layers)
{
    struct eq_graph *g;
    eq_value x, logits;
    int num = 0;
    EQ_TEST_OK(eq_graph_create(&g));
    EQ_TEST_OK(eq_graph_input(g, "x", 1, 3, 16, 16, &x));
    EQ_TEST_OK(eq_model_build(g, &(struct eq_model_params){ .arch = _i & 2 ? "se-resnet20" : "ce-resnet20", .classes = 3 }, x,
                              &logits));
    for (int i = 0; i < g->num_nodes; i++) {
        char name[80];
        snprintf(name, sizeof name, "%s %d", g->nodes[i].label, i);
        const eq_status status = eq_graph_output(g, g->nodes[i].output, name);
        ck_assert_msg(status == EQ_OK || (status == EQ_ERR_UNSUPPORTED && strstr(name, "bn")), "%s: %s", name, eq_last_error());
        num += status == EQ_OK;
    }
    ck_assert_int_gt(num, 60);
    const struct eq_compile_params params = { .training = _i & 1, .loss = _i & 1 ? logits : EQ_NO_VALUE };
    struct eq_ir *ir;
    int outputs = 0;
    EQ_TEST_OK(eq_ir_create(g, &eq_test_device->target, &params, &ir));
    for (int v = 0; v < ir->num_values; v++)
        outputs += ir->values[v].is_output && ir->values[v].front >= 0;
    ck_assert_int_eq(outputs, num);
    eq_ir_destroy(&ir);
    eq_graph_destroy(&g);
}
END_TEST

START_TEST(refused)
{
    struct eq_graph *g;
    eq_value x, y, z, rows;
    EQ_TEST_OK(eq_graph_create(&g));
    EQ_TEST_OK(eq_graph_input(g, "x", 2, 8, 4, 4, &x));
    ck_assert_int_eq(eq_graph_input(g, "x", 2, 8, 4, 4, &y), EQ_ERR_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "'x'"));
    ck_assert_int_eq(eq_graph_input(g, "", 2, 8, 4, 4, &y), EQ_ERR_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "empty"));
    ck_assert_int_eq(eq_graph_labels(g, "", 2, &y), EQ_ERR_ARGUMENT);
    ck_assert_int_eq(eq_graph_conv2d(g, x, "conv", CONV(4, 7, 1), &y), EQ_OK);
    ck_assert_int_eq(eq_graph_output(g, y, ""), EQ_ERR_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "empty"));
    // 4 + 2 (2^31 - 1) pixels
    const struct eq_conv2d_params padded = { .out_channels = 4, .kernel_h = 3, .kernel_w = 3, .pad_h = 0x7fffffff };
    ck_assert_int_eq(eq_graph_conv2d(g, x, "padded", &padded, &y), EQ_ERR_SHAPE);
    ck_assert_int_eq(eq_graph_max_pool(g, x, &(struct eq_pool_params){ .kernel = 2, .pad = 0x7fffffff }, &y), EQ_ERR_ARGUMENT);
    ck_assert_int_eq(
        eq_graph_conv2d(g, x, "wide", &(struct eq_conv2d_params){ .out_channels = 4, .kernel_h = 5, .kernel_w = 5 }, &y),
        EQ_ERR_SHAPE);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "4 x 4"));
    // The refused call left nothing behind: its name is free.
    EQ_TEST_OK(eq_graph_conv2d(g, x, "wide", CONV(8, 1, 4), &y));
    EQ_TEST_OK(eq_graph_batch_norm(g, y, "norm", NULL, &z));
    ck_assert_int_eq(eq_graph_channel_equilibrium(g, z, "ce", NULL, &y), EQ_ERR_SHAPE); // 1 x 1 pixels
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "1 x 1"));
    ck_assert_int_eq(eq_graph_channel_equilibrium(g, x, "ce", NULL, &y), EQ_ERR_UNSUPPORTED); // no norm before it
    ck_assert_int_eq(eq_graph_add(g, x, z, &y), EQ_ERR_SHAPE);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "[2, 8, 4, 4] and [2, 8, 1, 1]"));
    ck_assert_int_eq(eq_graph_linear(g, x, "fc", 3, &y), EQ_ERR_SHAPE);
    EQ_TEST_OK(eq_graph_mean_pool(g, x, &rows));
    ck_assert_int_eq(eq_graph_linear(g, rows, "fc", 0, &y), EQ_ERR_ARGUMENT);
    ck_assert_int_eq(eq_graph_max_pool(g, x, &(struct eq_pool_params){ .kernel = 9 }, &y), EQ_ERR_SHAPE);
    ck_assert_int_eq(eq_graph_activation(g, 1000, EQ_RELU, &y), EQ_ERR_ARGUMENT);
    ck_assert_int_eq(eq_graph_squeeze_excite(g, z, "se", NULL, &y), EQ_ERR_SHAPE); // 8 / 16
    ck_assert_int_eq(eq_graph_squeeze_excite(g, z, "se", &(struct eq_squeeze_excite_params){ -1 }, &y), EQ_ERR_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "-1"));
    ck_assert_int_eq(eq_graph_conv2d(g, x, "", CONV(4, 1, 1), &y), EQ_ERR_ARGUMENT);
    char name[257];
    memset(name, 'n', 256);
    name[256] = '\0';
    ck_assert_int_eq(eq_graph_input(g, name, 2, 8, 4, 4, &y), EQ_ERR_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "256 bytes: at most 255"));
    ck_assert_int_eq(eq_graph_output(g, rows, name), EQ_ERR_ARGUMENT);
    ck_assert_int_eq(eq_graph_conv2d(g, x, name + 7, CONV(4, 1, 1), &y), EQ_ERR_ARGUMENT); // 249, and ".weight"
    EQ_TEST_OK(eq_graph_output(g, rows, name + 1));
    // 2^32 pixels are not 0
    EQ_TEST_OK(eq_graph_input(g, "large", 1, 4, 65536, 65536, &y));
    EQ_TEST_OK(eq_graph_batch_norm(g, y, "large_norm", NULL, &y));
    EQ_TEST_OK(eq_graph_channel_equilibrium(g, y, "large_ce", NULL, &y));
    eq_graph_destroy(&g);
}
END_TEST

EQ_TEST_MAIN("graph", { gradients, 2 }, { fusion, 1 }, { gates, 1 }, { pools, 1 }, { folding, 1 },
             { own_residual, NUM_OWN }, { prepared, 2 }, { names, 1 }, { layers, 4 }, { refused, 1 })

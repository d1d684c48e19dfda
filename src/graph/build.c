// The builder: front nodes with shapes checked as they are added.
#include "graph/graph.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static const float DEFAULT_EPS = 1e-5f, DEFAULT_MOMENTUM = 0.1f;
enum { MAX_NAME = 255 };

eq_status eq_graph_create(struct eq_graph **graph)
{
    EQ_ALLOC(*graph, 1);
    return EQ_OK;
}

static void drop_nodes(struct eq_graph *graph, int num_nodes)
{
    while (graph->num_nodes > num_nodes) {
        struct eq_front_node *node = &graph->nodes[--graph->num_nodes];
        free(node->attributes);
        free(node->label);
    }
}

static void drop_values(struct eq_graph *graph, int num_values)
{
    while (graph->num_values > num_values)
        free(graph->values[--graph->num_values].name);
}

void eq_graph_destroy(struct eq_graph **graph)
{
    if (!*graph)
        return;
    drop_nodes(*graph, 0);
    drop_values(*graph, 0);
    free((*graph)->values);
    free((*graph)->nodes);
    free(*graph);
    *graph = NULL;
}

static eq_status check_value(const struct eq_graph *graph, eq_value value)
{
    EQ_REQUIRE(value >= 0 && value < graph->num_values, EQ_ERR_ARGUMENT, "value %d is not one of the graph's %d", value,
               graph->num_values);
    return EQ_OK;
}

// A gate works on what its norm normalises: the value between them is never made.
static eq_status check_made(const struct eq_graph *graph, eq_value value, const char *what)
{
    for (int i = 0; i < graph->num_nodes; i++)
        EQ_REQUIRE(graph->nodes[i].kind != EQ_FRONT_GATE || graph->nodes[i].inputs[EQ_UNIT_Z] != value, EQ_ERR_UNSUPPORTED,
                   "%s: value %d is normalised inside %s, and nobody else can have it", what, value, graph->nodes[i].label);
    return EQ_OK;
}

static eq_status check_activation(const struct eq_graph *graph, eq_value x, const char *what)
{
    EQ_TRY(check_value(graph, x));
    EQ_TRY(check_made(graph, x, what));
    const struct eq_front_value *value = &graph->values[x];
    EQ_REQUIRE(value->rank == 4 && value->dtype == EQ_F32 && value->kind != EQ_VALUE_PARAMETER && value->kind != EQ_VALUE_STATE,
               EQ_ERR_SHAPE, "%s: value %d is not an activation [n, c, h, w]", what, x);
    return EQ_OK;
}

// A name that no value has yet.
static eq_status check_name(const struct eq_graph *graph, const char *name)
{
    EQ_REQUIRE(*name, EQ_ERR_ARGUMENT, "the name of a value is empty");
    EQ_REQUIRE(strlen(name) <= MAX_NAME, EQ_ERR_ARGUMENT, "the name %.40s... has %zu bytes: at most %d are possible", name,
               strlen(name), MAX_NAME);
    for (int i = 0; i < graph->num_values; i++)
        EQ_REQUIRE(!graph->values[i].name || strcmp(graph->values[i].name, name) != 0, EQ_ERR_ARGUMENT,
                   "two values are called '%s'", name);
    return EQ_OK;
}

static eq_status add_value(struct eq_graph *graph, const struct eq_front_value *value, const char *name, eq_value *out)
{
    struct eq_tensor tensor = eq_tensor_plain(value->dtype, value->shape[0], value->shape[1], value->shape[2], value->shape[3]);
    EQ_TRY(eq_tensor_check(&tensor));
    if (name)
        EQ_TRY(check_name(graph, name));
    if (graph->num_values == graph->value_capacity) {
        int capacity = graph->value_capacity ? 2 * graph->value_capacity : 256;
        struct eq_front_value *values = realloc(graph->values, (size_t)capacity * sizeof *values);
        EQ_REQUIRE(values, EQ_ERR_HOST_MEMORY, "out of memory: a graph of %d values", capacity);
        graph->values = values;
        graph->value_capacity = capacity;
    }
    struct eq_front_value *slot = &graph->values[graph->num_values];
    *slot = *value;
    slot->name = NULL;
    if (name && !(slot->name = eq_strdup(name)))
        return EQ_ERR_HOST_MEMORY;
    *out = graph->num_values++;
    return EQ_OK;
}

static eq_status add_activation(struct eq_graph *graph, int rank, int n, int c, int h, int w, eq_value *y)
{
    struct eq_front_value value = { .kind = EQ_VALUE_TEMPORARY, .dtype = EQ_F32, .shape = { n, c, h, w }, .rank = rank };
    return add_value(graph, &value, NULL, y);
}

// A parameter or state called prefix.suffix with the dimensions dims[0 .. rank).
static eq_status add_tensor(struct eq_graph *graph, enum eq_value_kind kind, const char *prefix, const char *suffix, int rank,
                            const int *dims, int *out)
{
    char name[MAX_NAME + 1];
    EQ_REQUIRE(*prefix, EQ_ERR_ARGUMENT, "the name of what has the parameter '%s' is empty", suffix);
    const int bytes = snprintf(name, sizeof name, "%s.%s", prefix, suffix);
    EQ_REQUIRE(bytes <= MAX_NAME, EQ_ERR_ARGUMENT, "the name %.40s... has %d bytes: at most %d are possible", name, bytes,
               MAX_NAME);
    struct eq_front_value value = { .kind = kind, .dtype = EQ_F32, .rank = rank, .shape = { 1, 1, 1, 1 } };
    memcpy(value.shape, dims, (size_t)rank * sizeof *dims);
    return add_value(graph, &value, name, out);
}

static eq_status add_node(struct eq_graph *graph, const struct eq_front_node *node, const void *attributes,
                          size_t attribute_bytes, const char *label)
{
    if (graph->num_nodes == graph->node_capacity) {
        int capacity = graph->node_capacity ? 2 * graph->node_capacity : 256;
        struct eq_front_node *nodes = realloc(graph->nodes, (size_t)capacity * sizeof *nodes);
        EQ_REQUIRE(nodes, EQ_ERR_HOST_MEMORY, "out of memory: a graph of %d nodes", capacity);
        graph->nodes = nodes;
        graph->node_capacity = capacity;
    }
    struct eq_front_node *slot = &graph->nodes[graph->num_nodes];
    *slot = *node;
    slot->attributes = eq_malloc(1, attribute_bytes);
    slot->label = eq_strdup(label);
    if (!slot->attributes || !slot->label) {
        free(slot->attributes);
        free(slot->label);
        return EQ_ERR_HOST_MEMORY;
    }
    if (attribute_bytes)
        memcpy(slot->attributes, attributes, attribute_bytes);
    graph->num_nodes++;
    for (int i = 0; i < node->num_inputs; i++)
        if (node->inputs[i] >= 0)
            graph->values[node->inputs[i]].num_readers++;
    return EQ_OK;
}

// Takes back what a failed call added.
static eq_status undo(struct eq_graph *graph, int num_values, eq_status status)
{
    if (status != EQ_OK)
        drop_values(graph, num_values);
    return status;
}

eq_status eq_graph_shape(const struct eq_graph *graph, eq_value value, int shape[4], int *rank)
{
    EQ_TRY(check_value(graph, value));
    memcpy(shape, graph->values[value].shape, sizeof graph->values[value].shape);
    if (rank)
        *rank = graph->values[value].rank;
    return EQ_OK;
}

eq_status eq_graph_input(struct eq_graph *graph, const char *name, int n, int c, int h, int w, eq_value *x)
{
    struct eq_front_value value = { .kind = EQ_VALUE_INPUT, .dtype = EQ_F32, .shape = { n, c, h, w }, .rank = 4 };
    return add_value(graph, &value, name, x);
}

eq_status eq_graph_labels(struct eq_graph *graph, const char *name, int n, eq_value *labels)
{
    struct eq_front_value value = { .kind = EQ_VALUE_INPUT, .dtype = EQ_I32, .shape = { n, 1, 1, 1 }, .rank = 1 };
    return add_value(graph, &value, name, labels);
}

// How far a window can move over an image and its padding.
static int64_t reach_of(int size, int pad, int kernel)
{
    return (int64_t)size + 2 * (int64_t)pad - kernel;
}

static eq_status conv2d(struct eq_graph *graph, eq_value x, const char *name, const struct eq_conv2d_params *p, eq_value *y)
{
    EQ_TRY(check_activation(graph, x, name));
    int shape[4], sh = p->stride_h ? p->stride_h : 1, sw = p->stride_w ? p->stride_w : 1, weight;
    EQ_TRY(eq_graph_shape(graph, x, shape, NULL));
    EQ_REQUIRE(p->out_channels > 0 && p->kernel_h > 0 && p->kernel_w > 0 && sh > 0 && sw > 0 && p->pad_h >= 0 && p->pad_w >= 0,
               EQ_ERR_ARGUMENT, "%s: %d output channels, kernel %d x %d, stride %d x %d, padding %d x %d", name,
               p->out_channels, p->kernel_h, p->kernel_w, sh, sw, p->pad_h, p->pad_w);
    const int groups = p->groups ? p->groups : 1;
    EQ_REQUIRE(groups > 0 && shape[1] % groups == 0 && p->out_channels % groups == 0, EQ_ERR_ARGUMENT,
               "%s: %d groups do not divide %d input and %d output channels", name, groups, shape[1], p->out_channels);
    const int64_t reach_h = reach_of(shape[2], p->pad_h, p->kernel_h), reach_w = reach_of(shape[3], p->pad_w, p->kernel_w);
    EQ_REQUIRE(reach_h >= 0 && reach_w >= 0, EQ_ERR_SHAPE,
               "%s: an image of %d x %d with padding %d x %d is smaller than the kernel of %d x %d", name, shape[2], shape[3],
               p->pad_h, p->pad_w, p->kernel_h, p->kernel_w);
    EQ_REQUIRE(reach_h < INT_MAX && reach_w < INT_MAX, EQ_ERR_SHAPE,
               "%s: an image of %d x %d with padding %d x %d is too large", name, shape[2], shape[3], p->pad_h, p->pad_w);
    EQ_TRY(add_tensor(graph, EQ_VALUE_PARAMETER, name, "weight", 4,
                      (int[]){ p->out_channels, shape[1] / groups, p->kernel_h, p->kernel_w }, &weight));
    EQ_TRY(add_activation(graph, 4, shape[0], p->out_channels, (int)reach_h / sh + 1, (int)reach_w / sw + 1, y));
    struct eq_conv2d_attributes attributes = { sh, sw, p->pad_h, p->pad_w, .groups = groups };
    struct eq_front_node node = { .kind = EQ_FRONT_OP, .op = &eq_op_conv2d, .inputs = { x, weight }, .num_inputs = 2,
                                  .output = *y };
    return add_node(graph, &node, &attributes, sizeof attributes, name);
}

eq_status eq_graph_conv2d(struct eq_graph *graph, eq_value x, const char *name, const struct eq_conv2d_params *params,
                          eq_value *y)
{
    int before = graph->num_values;
    return undo(graph, before, conv2d(graph, x, name, params, y));
}

static struct eq_front_node unit_node(enum eq_front_kind kind, eq_value x)
{
    struct eq_front_node node = { .kind = kind, .num_inputs = EQ_UNIT_NUM_INPUTS };
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++)
        node.inputs[i] = EQ_NO_VALUE;
    node.inputs[EQ_UNIT_Z] = x;
    return node;
}

static eq_status batch_norm(struct eq_graph *graph, eq_value x, const char *name, const struct eq_batch_norm_params *params,
                            eq_value *y)
{
    EQ_TRY(check_activation(graph, x, name));
    int shape[4];
    EQ_TRY(eq_graph_shape(graph, x, shape, NULL));
    struct eq_unit_attributes attributes = { .method = EQ_UNIT_BN, .bn_eps = params && params->eps ? params->eps : DEFAULT_EPS,
                                             .momentum = params && params->momentum ? params->momentum : DEFAULT_MOMENTUM };
    EQ_REQUIRE(attributes.bn_eps > 0 && attributes.momentum > 0 && attributes.momentum <= 1, EQ_ERR_ARGUMENT,
               "%s: eps %g, momentum %g; eps must be above 0, momentum in (0, 1]", name, attributes.bn_eps,
               attributes.momentum);
    struct eq_front_node node = unit_node(EQ_FRONT_NORM, x);
    EQ_TRY(add_tensor(graph, EQ_VALUE_PARAMETER, name, "weight", 1, &shape[1], &node.inputs[EQ_UNIT_GAMMA]));
    EQ_TRY(add_tensor(graph, EQ_VALUE_PARAMETER, name, "bias", 1, &shape[1], &node.inputs[EQ_UNIT_BETA]));
    EQ_TRY(add_tensor(graph, EQ_VALUE_STATE, name, "running_mean", 1, &shape[1], &node.inputs[EQ_UNIT_MEAN]));
    EQ_TRY(add_tensor(graph, EQ_VALUE_STATE, name, "running_var", 1, &shape[1], &node.inputs[EQ_UNIT_VAR]));
    EQ_TRY(add_activation(graph, 4, shape[0], shape[1], shape[2], shape[3], y));
    node.output = *y;
    return add_node(graph, &node, &attributes, sizeof attributes, name);
}

eq_status eq_graph_batch_norm(struct eq_graph *graph, eq_value x, const char *name, const struct eq_batch_norm_params *params,
                              eq_value *y)
{
    int before = graph->num_values;
    return undo(graph, before, batch_norm(graph, x, name, params, y));
}

// Node that makes `value`, or NULL.
static const struct eq_front_node *producer(const struct eq_graph *graph, eq_value value)
{
    for (int i = graph->num_nodes; i-- > 0;)
        if (graph->nodes[i].output == value)
            return &graph->nodes[i];
    return NULL;
}

static eq_status check_gated(const struct eq_graph *graph, eq_value x, const char *name)
{
    EQ_TRY(check_activation(graph, x, name));
    const struct eq_front_node *node = producer(graph, x);
    EQ_REQUIRE(node && node->kind == EQ_FRONT_NORM && graph->values[x].num_readers == 0, EQ_ERR_UNSUPPORTED,
               "%s: its input must be the result of a batch norm and have no other reader", name);
    return EQ_OK;
}

// Tensors of the decorrelation branch, then of the reweighting branch.
static eq_status add_equilibrium(struct eq_graph *graph, const char *name, enum eq_branch branch, int c,
                                 const struct eq_unit_attributes *a, struct eq_front_node *node)
{
    int g = a->group, h = a->hidden;
    if (branch == EQ_BRANCH_BOTH)
        EQ_TRY(add_tensor(graph, EQ_VALUE_PARAMETER, name, "x_weight", 1, (int[]){ 1 }, &node->inputs[EQ_UNIT_X_WEIGHT]));
    if (branch != EQ_BRANCH_REWEIGHT) {
        EQ_TRY(
            add_tensor(graph, EQ_VALUE_STATE, name, "running_mean", 3, (int[]){ c / g, g, 1 }, &node->inputs[EQ_UNIT_CE_MEAN]));
        EQ_TRY(add_tensor(graph, EQ_VALUE_STATE, name, "running_wm", 3, (int[]){ c / g, g, g }, &node->inputs[EQ_UNIT_CE_WM]));
    }
    if (branch != EQ_BRANCH_DECORRELATE) {
        EQ_REQUIRE(h >= 1, EQ_ERR_SHAPE, "%s: %d channels; the gate needs at least 4", name, c);
        EQ_TRY(add_tensor(graph, EQ_VALUE_STATE, name, "AR.running_scale", 1, (int[]){ 1 }, &node->inputs[EQ_UNIT_SCALE]));
        EQ_TRY(add_tensor(graph, EQ_VALUE_PARAMETER, name, "AR.fc.0.weight", 2, (int[]){ h, c }, &node->inputs[EQ_UNIT_W1]));
        EQ_TRY(add_tensor(graph, EQ_VALUE_PARAMETER, name, "AR.fc.1.weight", 1, (int[]){ h }, &node->inputs[EQ_UNIT_LN_GAMMA]));
        EQ_TRY(add_tensor(graph, EQ_VALUE_PARAMETER, name, "AR.fc.1.bias", 1, (int[]){ h }, &node->inputs[EQ_UNIT_LN_BETA]));
        EQ_TRY(add_tensor(graph, EQ_VALUE_PARAMETER, name, "AR.fc.3.weight", 2, (int[]){ c, h }, &node->inputs[EQ_UNIT_W2]));
    }
    return EQ_OK;
}

static eq_status equilibrium(struct eq_graph *graph, eq_value x, const char *name, const struct eq_equilibrium_params *p,
                             eq_value *y)
{
    static const struct eq_equilibrium_params defaults;
    p = p ? p : &defaults;
    EQ_TRY(check_gated(graph, x, name));
    int shape[4];
    EQ_TRY(eq_graph_shape(graph, x, shape, NULL));
    EQ_REQUIRE(p->group >= 0 && p->iterations >= 0 && p->iterations <= 32 && p->eps >= 0 && p->momentum >= 0 &&
                   p->momentum <= 1 && p->branch >= EQ_BRANCH_BOTH && p->branch <= EQ_BRANCH_REWEIGHT,
               EQ_ERR_ARGUMENT, "%s: group %d, %d iterations (0 to 32), eps %g, momentum %g, branch %d", name, p->group,
               p->iterations, p->eps, p->momentum, (int)p->branch);
    EQ_REQUIRE(p->branch == EQ_BRANCH_DECORRELATE || (int64_t)shape[2] * shape[3] > 1, EQ_ERR_SHAPE,
               "%s: the image is %d x %d here; an instance's variance needs at least 2 pixels", name, shape[2], shape[3]);
    static const enum eq_unit_method methods[] = { EQ_UNIT_CE, EQ_UNIT_BD, EQ_UNIT_IR };
    struct eq_unit_attributes attributes = { .method = methods[p->branch], .group = p->group ? p->group : 16,
        .iterations = p->iterations ? p->iterations : 3, .ce_eps = p->eps ? p->eps : DEFAULT_EPS,
        .momentum = p->momentum ? p->momentum : DEFAULT_MOMENTUM, .hidden = shape[1] / 4 };
    while (shape[1] % attributes.group)
        attributes.group /= 2;
    struct eq_front_node node = unit_node(EQ_FRONT_GATE, x);
    EQ_TRY(add_equilibrium(graph, name, p->branch, shape[1], &attributes, &node));
    EQ_TRY(add_activation(graph, 4, shape[0], shape[1], shape[2], shape[3], y));
    node.output = *y;
    return add_node(graph, &node, &attributes, sizeof attributes, name);
}

eq_status eq_graph_channel_equilibrium(struct eq_graph *graph, eq_value x, const char *name,
                                       const struct eq_equilibrium_params *params, eq_value *y)
{
    int before = graph->num_values;
    return undo(graph, before, equilibrium(graph, x, name, params, y));
}

static eq_status squeeze_excite(struct eq_graph *graph, eq_value x, const char *name, const struct eq_squeeze_excite_params *p,
                                eq_value *y)
{
    EQ_TRY(check_gated(graph, x, name));
    int shape[4], reduction = p && p->reduction ? p->reduction : 16;
    EQ_TRY(eq_graph_shape(graph, x, shape, NULL));
    EQ_REQUIRE(reduction > 0, EQ_ERR_ARGUMENT, "%s: a reduction of %d: it must be above 0", name, reduction);
    int c = shape[1], h = c / reduction;
    EQ_REQUIRE(h >= 1, EQ_ERR_SHAPE, "%s: %d channels with a reduction of %d leave no hidden unit", name, c, reduction);
    struct eq_unit_attributes attributes = { .method = EQ_UNIT_SE, .hidden = h };
    struct eq_front_node node = unit_node(EQ_FRONT_GATE, x);
    EQ_TRY(add_tensor(graph, EQ_VALUE_PARAMETER, name, "fc1.weight", 2, (int[]){ h, c }, &node.inputs[EQ_UNIT_FC1]));
    EQ_TRY(add_tensor(graph, EQ_VALUE_PARAMETER, name, "fc1.bias", 1, (int[]){ h }, &node.inputs[EQ_UNIT_FC1_BIAS]));
    EQ_TRY(add_tensor(graph, EQ_VALUE_PARAMETER, name, "fc2.weight", 2, (int[]){ c, h }, &node.inputs[EQ_UNIT_FC2]));
    EQ_TRY(add_tensor(graph, EQ_VALUE_PARAMETER, name, "fc2.bias", 1, (int[]){ c }, &node.inputs[EQ_UNIT_FC2_BIAS]));
    EQ_TRY(add_activation(graph, 4, shape[0], c, shape[2], shape[3], y));
    node.output = *y;
    return add_node(graph, &node, &attributes, sizeof attributes, name);
}

eq_status eq_graph_squeeze_excite(struct eq_graph *graph, eq_value x, const char *name,
                                  const struct eq_squeeze_excite_params *params, eq_value *y)
{
    int before = graph->num_values;
    return undo(graph, before, squeeze_excite(graph, x, name, params, y));
}

static eq_status elementwise(struct eq_graph *graph, const struct eq_front_node *node,
                             const struct eq_unit_attributes *attributes, const char *label, eq_value *y)
{
    const int *shape = graph->values[node->inputs[EQ_UNIT_Z]].shape;
    int before = graph->num_values;
    EQ_TRY(add_activation(graph, 4, shape[0], shape[1], shape[2], shape[3], y));
    struct eq_front_node made = *node;
    made.output = *y;
    return undo(graph, before, add_node(graph, &made, attributes, sizeof *attributes, label));
}

eq_status eq_graph_add(struct eq_graph *graph, eq_value a, eq_value b, eq_value *y)
{
    EQ_TRY(check_activation(graph, a, "add"));
    EQ_TRY(check_activation(graph, b, "add"));
    const int *sa = graph->values[a].shape, *sb = graph->values[b].shape;
    EQ_REQUIRE(memcmp(sa, sb, 4 * sizeof *sa) == 0, EQ_ERR_SHAPE, "add: [%d, %d, %d, %d] and [%d, %d, %d, %d]", sa[0], sa[1],
               sa[2], sa[3], sb[0], sb[1], sb[2], sb[3]);
    struct eq_front_node node = unit_node(EQ_FRONT_ADD, a);
    node.inputs[EQ_UNIT_RESIDUAL] = b;
    return elementwise(graph, &node, &(struct eq_unit_attributes){ .method = EQ_UNIT_NONE }, "add", y);
}

eq_status eq_graph_activation(struct eq_graph *graph, eq_value x, enum eq_act act, eq_value *y)
{
    EQ_TRY(check_activation(graph, x, "activation"));
    EQ_REQUIRE(act == EQ_RELU || act == EQ_ELU, EQ_ERR_ARGUMENT, "activation %d: it is 1 (relu) or 2 (elu)", (int)act);
    struct eq_front_node node = unit_node(EQ_FRONT_ACT, x);
    struct eq_unit_attributes attributes = { .method = EQ_UNIT_NONE, .activation = act == EQ_RELU ? EQ_ACT_RELU : EQ_ACT_ELU };
    return elementwise(graph, &node, &attributes, "activation", y);
}

static eq_status add_op(struct eq_graph *graph, const struct eq_op *op, const void *attributes, const int *inputs,
                        int num_inputs, int rank, const int shape[4], const char *label, eq_value *y)
{
    EQ_TRY(add_activation(graph, rank, shape[0], shape[1], shape[2], shape[3], y));
    struct eq_front_node node = { .kind = EQ_FRONT_OP, .op = op, .num_inputs = num_inputs, .output = *y };
    memcpy(node.inputs, inputs, (size_t)num_inputs * sizeof *inputs);
    return add_node(graph, &node, attributes, op->attribute_bytes, label);
}

eq_status eq_graph_max_pool(struct eq_graph *graph, eq_value x, const struct eq_pool_params *p, eq_value *y)
{
    EQ_TRY(check_activation(graph, x, "max pool"));
    int shape[4], stride = p->stride ? p->stride : p->kernel, before = graph->num_values;
    EQ_TRY(eq_graph_shape(graph, x, shape, NULL));
    EQ_REQUIRE(p->kernel > 0 && stride > 0 && p->pad >= 0 && p->pad <= p->kernel / 2, EQ_ERR_ARGUMENT,
               "max pool: kernel %d, stride %d, padding %d; padding is at most half the kernel", p->kernel, stride, p->pad);
    const int64_t reach_h = reach_of(shape[2], p->pad, p->kernel), reach_w = reach_of(shape[3], p->pad, p->kernel);
    EQ_REQUIRE(reach_h >= 0 && reach_w >= 0, EQ_ERR_SHAPE,
               "max pool: an image of %d x %d with padding %d is smaller than the window of %d", shape[2], shape[3], p->pad,
               p->kernel);
    struct eq_pool_max_attributes attributes = { p->kernel, p->kernel, stride, stride, p->pad, p->pad };
    int out[4] = { shape[0], shape[1], (int)(reach_h / stride) + 1, (int)(reach_w / stride) + 1 };
    return undo(graph, before, add_op(graph, &eq_op_pool_max, &attributes, &x, 1, 4, out, "maxpool", y));
}

eq_status eq_graph_mean_pool(struct eq_graph *graph, eq_value x, eq_value *y)
{
    EQ_TRY(check_activation(graph, x, "mean pool"));
    int before = graph->num_values, out[4] = { graph->values[x].shape[0], graph->values[x].shape[1], 1, 1 };
    return undo(graph, before, add_op(graph, &eq_op_pool_avg, NULL, &x, 1, 2, out, "avgpool", y));
}

static eq_status linear(struct eq_graph *graph, eq_value x, const char *name, int k, eq_value *y)
{
    EQ_TRY(check_value(graph, x));
    const struct eq_front_value *value = &graph->values[x];
    EQ_REQUIRE(value->rank == 2 && value->kind == EQ_VALUE_TEMPORARY, EQ_ERR_SHAPE,
               "%s: its input must be rows [n, c], from a mean pool for example", name);
    EQ_REQUIRE(k > 0, EQ_ERR_ARGUMENT, "%s: %d outputs", name, k);
    int n = value->shape[0], c = value->shape[1], inputs[3] = { x };
    EQ_TRY(add_tensor(graph, EQ_VALUE_PARAMETER, name, "weight", 2, (int[]){ k, c }, &inputs[1]));
    EQ_TRY(add_tensor(graph, EQ_VALUE_PARAMETER, name, "bias", 1, &k, &inputs[2]));
    return add_op(graph, &eq_op_linear, NULL, inputs, 3, 2, (int[4]){ n, k, 1, 1 }, name, y);
}

eq_status eq_graph_linear(struct eq_graph *graph, eq_value x, const char *name, int k, eq_value *y)
{
    int before = graph->num_values;
    return undo(graph, before, linear(graph, x, name, k, y));
}

eq_status eq_graph_cross_entropy(struct eq_graph *graph, eq_value logits, eq_value labels, float smoothing, eq_value *loss)
{
    EQ_TRY(check_value(graph, logits));
    EQ_TRY(check_value(graph, labels));
    const struct eq_front_value *x = &graph->values[logits], *l = &graph->values[labels];
    EQ_REQUIRE(x->rank == 2 && x->kind == EQ_VALUE_TEMPORARY && l->dtype == EQ_I32 && l->shape[0] == x->shape[0], EQ_ERR_SHAPE,
               "cross entropy: logits [%d, %d] and %d labels", x->shape[0], x->shape[1], l->shape[0]);
    EQ_REQUIRE(smoothing >= 0 && smoothing < 1, EQ_ERR_ARGUMENT, "label smoothing %g: it must be in [0, 1)", smoothing);
    EQ_REQUIRE(x->shape[1] > 1, EQ_ERR_SHAPE, "cross entropy over %d class: it needs at least 2", x->shape[1]);
    struct eq_softmax_xent_attributes attributes = { smoothing };
    int before = graph->num_values, inputs[2] = { logits, labels }, out[4] = { x->shape[0], 1, 1, 1 };
    return undo(graph, before, add_op(graph, &eq_op_softmax_xent, &attributes, inputs, 2, 1, out, "loss", loss));
}

// Sums and activations have no name of the caller's until they are given one.
static bool is_called(const struct eq_front_node *node, const char *name)
{
    const bool is_nameless = (node->kind == EQ_FRONT_ADD || node->kind == EQ_FRONT_ACT) && !node->is_labelled;
    return !is_nameless && strcmp(node->label, name) == 0;
}

static bool is_inside(const struct eq_front_node *node, const char *name)
{
    const size_t length = strlen(name);
    return strncmp(node->label, name, length) == 0 && node->label[length] == '.';
}

eq_status eq_graph_find(const struct eq_graph *graph, const char *name, eq_value *value)
{
    int found = -1;
    for (int i = 0; i < graph->num_nodes; i++) {
        if (is_called(&graph->nodes[i], name)) {
            *value = graph->nodes[i].output;
            return EQ_OK;
        }
        found = is_inside(&graph->nodes[i], name) ? i : found;
    }
    EQ_REQUIRE(found >= 0, EQ_ERR_NOT_FOUND, "none of the graph's %d calls is called '%s'", graph->num_nodes, name);
    *value = graph->nodes[found].output;
    return EQ_OK;
}

eq_status eq_graph_label(struct eq_graph *graph, eq_value value, const char *label)
{
    EQ_TRY(check_value(graph, value));
    for (int i = 0; i < graph->num_nodes; i++) {
        if (graph->nodes[i].output != value)
            continue;
        char *copy = eq_strdup(label);
        if (!copy)
            return EQ_ERR_HOST_MEMORY;
        free(graph->nodes[i].label);
        graph->nodes[i].label = copy;
        graph->nodes[i].is_labelled = true;
        return EQ_OK;
    }
    return eq_fail(EQ_ERR_ARGUMENT, "value %d is no call's, which could be called '%s'", value, label);
}

eq_status eq_graph_output(struct eq_graph *graph, eq_value value, const char *name)
{
    EQ_TRY(check_value(graph, value));
    EQ_TRY(check_made(graph, value, name));
    EQ_REQUIRE(!graph->values[value].name, EQ_ERR_ARGUMENT, "value %d cannot be called '%s', it is '%s'", value, name,
               graph->values[value].name);
    EQ_TRY(check_name(graph, name));
    char *copy = eq_strdup(name);
    if (!copy)
        return EQ_ERR_HOST_MEMORY;
    graph->values[value].name = copy;
    graph->values[value].is_output = true;
    graph->values[value].num_readers++;
    return EQ_OK;
}

// Lists of layers as text: a line becomes a graph with that layer in it.
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "graph/graph.h"
#include "train/bench_op.h"

enum { MAX_EXTENT = 1 << 20, MAX_NAME = 63 };
enum { IC, OC, SIZE, KERNEL, STRIDE, PAD, GROUPS, NUM_KEYS };

static const struct {
    const char *name;
    int least, otherwise; // what it is at least; and where it is not given
} keys[NUM_KEYS] = { { "ic=", 1, 0 },     { "oc=", 1, 0 },  { "size=", 1, 1 },  { "kernel=", 1, 1 },
                     { "stride=", 1, 1 }, { "pad=", 0, 0 }, { "groups=", 1, 1 } };

struct shape_line {
    char name[MAX_NAME + 1];
    int layer, value[NUM_KEYS];
    bool has[NUM_KEYS];
};

static eq_status add_conv2d(struct eq_graph *graph, const struct shape_line *l, eq_value x, eq_value *y)
{
    const int *v = l->value;
    const struct eq_conv2d_params conv = { .out_channels = v[OC],
                                           .kernel_h = v[KERNEL],
                                           .kernel_w = v[KERNEL],
                                           .stride_h = v[STRIDE],
                                           .stride_w = v[STRIDE],
                                           .pad_h = v[PAD],
                                           .pad_w = v[PAD],
                                           .groups = v[GROUPS] };
    return eq_graph_conv2d(graph, x, l->name, &conv, y);
}

static eq_status add_pool_max(struct eq_graph *graph, const struct shape_line *l, eq_value x, eq_value *y)
{
    return eq_graph_max_pool(graph, x, &(struct eq_pool_params){ l->value[KERNEL], l->value[STRIDE], l->value[PAD] }, y);
}

static eq_status add_linear(struct eq_graph *graph, const struct shape_line *l, eq_value x, eq_value *y)
{
    EQ_TRY(eq_graph_mean_pool(graph, x, &x));
    return eq_graph_linear(graph, x, l->name, l->value[OC], y);
}

static eq_status add_unit(struct eq_graph *graph, const struct shape_line *l, eq_value x, eq_value *y)
{
    eq_value normalised, sum;
    EQ_TRY(eq_graph_batch_norm(graph, x, l->name, &(struct eq_batch_norm_params){ 0 }, &normalised));
    EQ_TRY(eq_graph_add(graph, normalised, x, &sum));
    return eq_graph_activation(graph, sum, EQ_RELU, y);
}

// The layers, and the keys that each takes; oc= it needs, too.
static const struct {
    const char *name;
    eq_status (*add)(struct eq_graph *graph, const struct shape_line *l, eq_value x, eq_value *y);
    bool takes[NUM_KEYS], makes_rows;
} layers[] = {
    { "conv2d", add_conv2d, { true, true, true, true, true, true, true }, false },
    { "pool_max", add_pool_max, { [IC] = true, [SIZE] = true, [KERNEL] = true, [STRIDE] = true, [PAD] = true }, false },
    { "linear", add_linear, { [IC] = true, [OC] = true, [SIZE] = true }, true },
    { "unit", add_unit, { [IC] = true, [SIZE] = true }, false },
};
enum { NUM_LAYERS = sizeof layers / sizeof *layers };

static eq_status parse_word(const char *word, struct shape_line *line)
{
    for (int k = 0; k < NUM_KEYS; k++) {
        if (!eq_str_starts(word, keys[k].name))
            continue;
        const char *digits = word + strlen(keys[k].name);
        char *end;
        const long value = strtol(digits, &end, 10);
        EQ_REQUIRE(end != digits && *end == '\0' && value >= keys[k].least && value <= MAX_EXTENT, EQ_ERR_FORMAT,
                   "%s is not a number from %d to %d", word, keys[k].least, MAX_EXTENT);
        EQ_REQUIRE(layers[line->layer].takes[k], EQ_ERR_FORMAT, "%s: %s does not take %s", line->name,
                   layers[line->layer].name, keys[k].name);
        EQ_REQUIRE(!line->has[k], EQ_ERR_FORMAT, "%s: %s is there twice: %d and %ld", line->name, keys[k].name,
                   line->value[k], value);
        line->value[k] = (int)value;
        line->has[k] = true;
        return EQ_OK;
    }
    return eq_fail(EQ_ERR_FORMAT, "%s is none of ic=, oc=, size=, kernel=, stride=, pad=, groups=", word);
}

static eq_status parse_layer(const char *word, struct shape_line *line)
{
    for (line->layer = 0; line->layer < NUM_LAYERS; line->layer++)
        if (strcmp(word, layers[line->layer].name) == 0)
            return EQ_OK;
    return eq_fail(EQ_ERR_FORMAT, "%s: %s is none of conv2d, pool_max, linear, unit", line->name, word);
}

static eq_status parse_line(const char *text, struct shape_line *line)
{
    *line = (struct shape_line){ .layer = NUM_LAYERS };
    for (int k = 0; k < NUM_KEYS; k++)
        line->value[k] = keys[k].otherwise;
    char word[256]; // as long as a line
    int at = 0, used, num = 0;
    while (sscanf(text + at, "%255s%n", word, &used) == 1 && word[0] != '#') {
        at += used;
        EQ_REQUIRE(num > 0 || strlen(word) <= MAX_NAME, EQ_ERR_FORMAT, "a name of %zu bytes, %d are possible", strlen(word),
                   MAX_NAME);
        if (num == 0)
            snprintf(line->name, sizeof line->name, "%s", word);
        else
            EQ_TRY(num == 1 ? parse_layer(word, line) : parse_word(word, line));
        num++;
    }
    EQ_REQUIRE(num >= 2, EQ_ERR_FORMAT, "a line is NAME OP ic=N ...");
    EQ_REQUIRE(line->has[IC], EQ_ERR_FORMAT, "%s: ic= is missing", line->name);
    EQ_REQUIRE(line->has[OC] || !layers[line->layer].takes[OC], EQ_ERR_FORMAT, "%s: oc= is missing", line->name);
    return EQ_OK;
}

// A loss over whatever the layer makes.
static eq_status add_loss(struct eq_graph *graph, eq_value y, int n, bool is_rows, eq_value *loss)
{
    eq_value labels, logits = y;
    EQ_TRY(eq_graph_labels(graph, "labels", n, &labels));
    if (!is_rows) {
        EQ_TRY(eq_graph_mean_pool(graph, y, &y));
        EQ_TRY(eq_graph_linear(graph, y, "head", 2, &logits));
    }
    EQ_TRY(eq_graph_cross_entropy(graph, logits, labels, 0, loss));
    return eq_graph_output(graph, *loss, "loss");
}

static eq_status fill_graph(struct eq_graph *graph, const struct shape_line *l, int n, bool training, eq_value *loss)
{
    eq_value x, y;
    *loss = EQ_NO_VALUE;
    EQ_TRY(eq_graph_input(graph, "x", n, l->value[IC], l->value[SIZE], l->value[SIZE], &x));
    // What a layer meets inside a network: an activation in blocks, whose gradient is wanted. Images are as they come.
    if (l->value[IC] > 4)
        EQ_TRY(eq_graph_batch_norm(graph, x, "before", &(struct eq_batch_norm_params){ 0 }, &x));
    if (l->value[IC] > 4)
        EQ_TRY(eq_graph_activation(graph, x, EQ_RELU, &x));
    EQ_TRY(layers[l->layer].add(graph, l, x, &y));
    EQ_TRY(eq_graph_output(graph, y, "y"));
    return training ? add_loss(graph, y, n, layers[l->layer].makes_rows, loss) : EQ_OK;
}

eq_status eq_bench_shape_graph(const char *line, int n, bool training, char name[64], struct eq_graph **graph, int *loss)
{
    struct shape_line parsed;
    EQ_TRY(parse_line(line, &parsed));
    snprintf(name, 64, "%s", parsed.name);
    EQ_TRY(eq_graph_create(graph));
    eq_status status = fill_graph(*graph, &parsed, n, training, loss);
    if (status != EQ_OK)
        eq_graph_destroy(graph);
    return status;
}

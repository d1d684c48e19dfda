// Lists of layers as text: a line becomes a graph with that layer in it.
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "graph/graph.h"
#include "train/bench_op.h"

enum { MAX_EXTENT = 1 << 20 };

struct shape_line {
    char name[64], op[32];
    int ic, oc, size, kernel, stride, pad, groups;
};

static eq_status parse_word(const char *word, struct shape_line *line)
{
    const struct {
        const char *key;
        int *value;
        int least;
    } keys[] = { { "ic=", &line->ic, 1 },         { "oc=", &line->oc, 1 },         { "size=", &line->size, 1 },
                 { "kernel=", &line->kernel, 1 }, { "stride=", &line->stride, 1 }, { "pad=", &line->pad, 0 },
                 { "groups=", &line->groups, 1 } };
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        if (!eq_str_starts(word, keys[k].key))
            continue;
        const char *digits = word + strlen(keys[k].key);
        char *end;
        const long value = strtol(digits, &end, 10);
        EQ_REQUIRE(end != digits && *end == '\0' && value >= keys[k].least && value <= MAX_EXTENT, EQ_ERR_FORMAT,
                   "%s is not a number from %d to %d", word, keys[k].least, MAX_EXTENT);
        *keys[k].value = (int)value;
        return EQ_OK;
    }
    return eq_fail(EQ_ERR_FORMAT, "%s is none of ic=, oc=, size=, kernel=, stride=, pad=, groups=", word);
}

static eq_status parse_line(const char *text, struct shape_line *line)
{
    *line = (struct shape_line){ .size = 1, .kernel = 1, .stride = 1, .groups = 1 };
    char word[96];
    int at = 0, used, num = 0;
    while (sscanf(text + at, "%95s%n", word, &used) == 1 && word[0] != '#') {
        at += used;
        if (num == 0)
            snprintf(line->name, sizeof line->name, "%.63s", word);
        else if (num == 1)
            snprintf(line->op, sizeof line->op, "%.31s", word);
        else
            EQ_TRY(parse_word(word, line));
        num++;
    }
    EQ_REQUIRE(num >= 2, EQ_ERR_FORMAT, "a line is NAME OP ic=N ...");
    EQ_REQUIRE(line->ic >= 1, EQ_ERR_FORMAT, "%s: ic= is missing", line->name);
    return EQ_OK;
}

static eq_status add_layer(struct eq_graph *graph, const struct shape_line *l, eq_value x, eq_value *y)
{
    const struct eq_conv2d_params conv = { .out_channels = l->oc,
                                           .kernel_h = l->kernel,
                                           .kernel_w = l->kernel,
                                           .stride_h = l->stride,
                                           .stride_w = l->stride,
                                           .pad_h = l->pad,
                                           .pad_w = l->pad,
                                           .groups = l->groups };
    const struct eq_pool_params pool = { l->kernel, l->stride, l->pad };
    const bool needs_oc = strcmp(l->op, "conv2d") == 0 || strcmp(l->op, "linear") == 0;
    EQ_REQUIRE(!needs_oc || l->oc >= 1, EQ_ERR_FORMAT, "%s: oc= is missing", l->name);
    if (strcmp(l->op, "conv2d") == 0)
        return eq_graph_conv2d(graph, x, l->name, &conv, y);
    if (strcmp(l->op, "pool_max") == 0)
        return eq_graph_max_pool(graph, x, &pool, y);
    if (strcmp(l->op, "linear") == 0) {
        EQ_TRY(eq_graph_mean_pool(graph, x, &x));
        return eq_graph_linear(graph, x, l->name, l->oc, y);
    }
    if (strcmp(l->op, "unit") == 0) {
        eq_value normalised, sum;
        EQ_TRY(eq_graph_batch_norm(graph, x, l->name, &(struct eq_batch_norm_params){ 0 }, &normalised));
        EQ_TRY(eq_graph_add(graph, normalised, x, &sum));
        return eq_graph_activation(graph, sum, EQ_RELU, y);
    }
    return eq_fail(EQ_ERR_FORMAT, "%s: %s is none of conv2d, pool_max, linear, unit", l->name, l->op);
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
    EQ_TRY(eq_graph_input(graph, "x", n, l->ic, l->size, l->size, &x));
    // What a layer meets inside a network: an activation in blocks, whose gradient is wanted. Images are as they come.
    if (l->ic > 4)
        EQ_TRY(eq_graph_batch_norm(graph, x, "before", &(struct eq_batch_norm_params){ 0 }, &x));
    if (l->ic > 4)
        EQ_TRY(eq_graph_activation(graph, x, EQ_RELU, &x));
    EQ_TRY(add_layer(graph, l, x, &y));
    EQ_TRY(eq_graph_output(graph, y, "y"));
    return training ? add_loss(graph, y, n, strcmp(l->op, "linear") == 0, loss) : EQ_OK;
}

eq_status eq_bench_shape_graph(const char *line, int n, bool training, char name[64], struct eq_graph **graph, int *loss)
{
    struct shape_line parsed;
    EQ_TRY(parse_line(line, &parsed));
    memcpy(name, parsed.name, sizeof parsed.name);
    EQ_TRY(eq_graph_create(graph));
    eq_status status = fill_graph(*graph, &parsed, n, training, loss);
    if (status != EQ_OK)
        eq_graph_destroy(graph);
    return status;
}

// Lowering with fusion: batch norm, its gate, a residual and an activation become one two-pass unit. In evaluation, where a
// batch norm is a constant map, a convolution takes it into its filter, and the residual and the activation into its last step.
//
// Nodes are visited in order. A norm opens a unit that stays pending, not yet a call, while the nodes that follow may join it;
// the unit becomes a call when somebody else reads its value. In evaluation a convolution opens one, too. A value with more
// than one reader cannot be absorbed.
#include <stdlib.h>
#include <string.h>

#include "graph/graph.h"
#include "op/conv2d_gated.h"

struct pending {
    struct eq_unit_attributes attributes;
    int inputs[EQ_UNIT_NUM_INPUTS]; // ir values
    const char *label;
    const struct eq_front_node *conv; // not NULL: the convolution that makes Z, not yet a call either
    int conv_inputs[2];               // ir values of its input and filter
    int gated_parts;                  // > 0: with a gate, both become conv2d_gated
};

struct fusion {
    struct eq_ir *ir;
    struct pending *pending; // [front values]
    bool *is_pending;        // [front values]
};

// Groups of a convolution; 0 for other ops.
static int groups_of(const struct eq_front_node *node)
{
    return node->op == &eq_op_conv2d ? ((const struct eq_conv2d_attributes *)node->attributes)->groups : 0;
}

// The reader that makes the graph's input wants it plain (block 1) when every reader is a convolution of one group and
// there are few channels.
static bool read_by_conv_only(const struct eq_graph *graph, int front)
{
    for (int i = 0; i < graph->num_nodes; i++)
        for (int j = 0; j < graph->nodes[i].num_inputs; j++)
            if (graph->nodes[i].inputs[j] == front && groups_of(&graph->nodes[i]) != 1)
                return false;
    return graph->values[front].shape[1] < 4;
}

static eq_status lower_leaf(struct eq_ir *ir, int front)
{
    const struct eq_front_value *value = &ir->graph->values[front];
    const int *s = value->shape;
    struct eq_tensor tensor = eq_tensor_plain(value->dtype, s[0], s[1], s[2], s[3]);
    if (value->kind == EQ_VALUE_INPUT && value->dtype == EQ_F32)
        tensor = eq_tensor_blocked(s[0], s[1], s[2], s[3], read_by_conv_only(ir->graph, front) ? 1 : ir->target.block, 0);
    return eq_ir_value(ir, value->kind, &tensor, front, &ir->lowered[front]);
}

static bool has_norm(const struct pending *unit)
{
    return unit->inputs[EQ_UNIT_GAMMA] != EQ_NO_VALUE;
}

// Whether nothing has joined the convolution.
static bool is_bare(const struct pending *unit)
{
    return !has_norm(unit) && unit->inputs[EQ_UNIT_RESIDUAL] == EQ_NO_VALUE && unit->attributes.activation == EQ_ACT_NONE;
}

// A pending convolution as calls: prepared filter and fused step; a bare one may have nothing to prepare. The algorithm is
// settled here, for the whole batch: the filter is prepared for it, and it stays when the batch is run in slices. moments: what
// to set to those of the value where the convolution gives some, or NULL.
static eq_status call_conv(struct fusion *f, const struct pending *unit, int *value, int *moments)
{
    const struct eq_tensor *x = &f->ir->values[unit->conv_inputs[0]].tensor, *w = &f->ir->values[unit->conv_inputs[1]].tensor;
    int prepared[EQ_MAX_OPERANDS], outputs[EQ_MAX_OPERANDS];
    struct eq_conv2d_prepare_attributes attributes = {
        .fused = { .oc = w->n, .kh = w->h, .kw = w->w, .activation = unit->attributes.activation },
        .x = *x,
        .eps = unit->attributes.bn_eps,
    };
    struct eq_conv2d_attributes *conv = &attributes.fused.conv;
    *conv = *(const struct eq_conv2d_attributes *)unit->conv->attributes;
    conv->algorithm = eq_conv2d_fused_algorithm(&f->ir->target, &attributes.fused, x);
    if (is_bare(unit) && eq_conv2d_reads_stored(&f->ir->target, &attributes.fused)) {
        conv->moment_tiles = moments ? eq_conv2d_moment_tiles(&f->ir->target, conv, x, w) : 0;
        EQ_TRY(eq_ir_call(f->ir, &eq_op_conv2d, conv, unit->conv_inputs, 2, unit->conv->label, outputs));
        *value = outputs[0];
        if (conv->moment_tiles > 0)
            *moments = outputs[2];
        return EQ_OK;
    }
    const int from[] = { unit->conv_inputs[1], unit->inputs[EQ_UNIT_GAMMA], unit->inputs[EQ_UNIT_BETA],
                         unit->inputs[EQ_UNIT_MEAN], unit->inputs[EQ_UNIT_VAR] };
    EQ_TRY(eq_ir_call(f->ir, &eq_op_conv2d_prepare, &attributes, from, has_norm(unit) ? 5 : 1, unit->conv->label, prepared));
    const int inputs[] = { unit->conv_inputs[0], prepared[0], prepared[1], unit->inputs[EQ_UNIT_RESIDUAL] };
    EQ_TRY(eq_ir_call(f->ir, &eq_op_conv2d_fused, &attributes.fused, inputs, 4, unit->conv->label, outputs));
    *value = outputs[0];
    return EQ_OK;
}

// Where an evaluating unit needs something prepared: sets that input.
static eq_status prepare_unit(struct fusion *f, const struct pending *unit, const struct eq_tensor *z,
                              int inputs[EQ_UNIT_NUM_INPUTS])
{
    const struct eq_unit_prepare_attributes attributes = { unit->attributes, *z };
    int outputs[EQ_MAX_OPERANDS];
    if (f->ir->training || !eq_unit_prepares(&unit->attributes))
        return EQ_OK;
    EQ_TRY(eq_ir_call(f->ir, &eq_op_unit_prepare, &attributes, inputs + EQ_UNIT_GAMMA, EQ_UNIT_PREPARED - EQ_UNIT_GAMMA,
                      unit->label, outputs));
    inputs[EQ_UNIT_PREPARED] = outputs[0];
    return EQ_OK;
}

// A convolution and the unit with a gate that follows, in one call.
static eq_status call_gated(struct fusion *f, const struct pending *unit, int *value)
{
    const struct eq_tensor *x = &f->ir->values[unit->conv_inputs[0]].tensor, *w = &f->ir->values[unit->conv_inputs[1]].tensor;
    const struct eq_tensor z = eq_tensor_blocked(x->n, w->n, x->h, x->w, x->block, 0);
    const struct eq_conv2d_gated_attributes attributes = {
        .unit = unit->attributes,
        .conv = *(const struct eq_conv2d_attributes *)unit->conv->attributes,
        .oc = w->n,
        .parts = unit->gated_parts,
    };
    int inputs[EQ_CONV2D_GATED_NUM_INPUTS], outputs[EQ_MAX_OPERANDS];
    memcpy(inputs, unit->inputs, sizeof unit->inputs);
    inputs[EQ_CONV2D_GATED_X] = unit->conv_inputs[0];
    inputs[EQ_CONV2D_GATED_FILTER] = unit->conv_inputs[1];
    EQ_TRY(prepare_unit(f, unit, &z, inputs));
    EQ_TRY(eq_ir_call(f->ir, &eq_op_conv2d_gated, &attributes, inputs, EQ_CONV2D_GATED_NUM_INPUTS, unit->conv->label, outputs));
    *value = outputs[0];
    return EQ_OK;
}

static eq_status call_unit(struct fusion *f, const struct pending *unit, int *value)
{
    int inputs[EQ_UNIT_NUM_INPUTS], outputs[EQ_MAX_OPERANDS];
    memcpy(inputs, unit->inputs, sizeof inputs);
    EQ_TRY(prepare_unit(f, unit, &f->ir->values[inputs[EQ_UNIT_Z]].tensor, inputs));
    EQ_TRY(eq_ir_call(f->ir, &eq_op_unit, &unit->attributes, inputs, EQ_UNIT_NUM_INPUTS, unit->label, outputs));
    *value = outputs[EQ_UNIT_OUT];
    return EQ_OK;
}

// The ir value of a front value: a leaf on first use, or a pending unit, which becomes a call now.
static eq_status materialise(struct fusion *f, int front, int *value)
{
    if (front == EQ_NO_VALUE) {
        *value = EQ_NO_VALUE;
        return EQ_OK;
    }
    if (f->is_pending[front]) {
        const struct pending *unit = &f->pending[front];
        int made;
        EQ_TRY(unit->gated_parts > 0 ? call_gated(f, unit, &made)
               : unit->conv          ? call_conv(f, unit, &made, NULL)
                                     : call_unit(f, unit, &made));
        f->ir->lowered[front] = made;
        f->ir->values[made].front = front;
        f->is_pending[front] = false;
    }
    if (f->ir->lowered[front] < 0)
        EQ_TRY(lower_leaf(f->ir, front));
    *value = f->ir->lowered[front];
    return EQ_OK;
}

// Moves the pending unit of `from` to `to`.
static struct pending *carry_on(struct fusion *f, int from, int to)
{
    f->pending[to] = f->pending[from];
    f->is_pending[from] = false;
    f->is_pending[to] = true;
    return &f->pending[to];
}

// A convolution that nothing has joined.
static struct pending bare_conv(const struct eq_front_node *conv, const int inputs[2])
{
    struct pending unit = { .label = conv->label, .conv = conv, .conv_inputs = { inputs[0], inputs[1] } };
    for (int i = 0; i < EQ_UNIT_NUM_INPUTS; i++)
        unit.inputs[i] = EQ_NO_VALUE;
    return unit;
}

static bool can_absorb(const struct fusion *f, int front)
{
    return f->is_pending[front] && f->ir->graph->values[front].num_readers == 1 &&
           f->pending[front].attributes.activation == EQ_ACT_NONE && !f->pending[front].attributes.pools;
}

static eq_status open_unit(struct fusion *f, const struct eq_front_node *node)
{
    const int z = node->inputs[EQ_UNIT_Z];
    struct pending *unit = &f->pending[node->output];
    const bool is_folded = node->kind == EQ_FRONT_NORM && can_absorb(f, z) && f->pending[z].conv && is_bare(&f->pending[z]);
    if (is_folded)
        carry_on(f, z, node->output);
    else
        EQ_TRY(materialise(f, z, &unit->inputs[EQ_UNIT_Z]));
    unit->attributes = *(const struct eq_unit_attributes *)node->attributes;
    unit->label = node->label;
    for (int i = EQ_UNIT_Z + 1; i < EQ_UNIT_NUM_INPUTS; i++)
        EQ_TRY(materialise(f, node->inputs[i], &unit->inputs[i]));
    f->is_pending[node->output] = true;
    return EQ_OK;
}

// The builder made sure that a gate follows a norm that nobody else reads. What a gate looks at is the convolution's output
// before the norm.
static eq_status join_gate(struct fusion *f, const struct eq_front_node *node)
{
    const struct eq_unit_attributes *gate = node->attributes;
    struct pending *unit = carry_on(f, node->inputs[EQ_UNIT_Z], node->output);
    if (unit->conv)
        unit->gated_parts =
            eq_conv2d_gated_parts(&f->ir->target, gate, unit->conv->attributes, &f->ir->values[unit->conv_inputs[0]].tensor,
                                  &f->ir->values[unit->conv_inputs[1]].tensor);
    if (unit->conv && unit->gated_parts == 0) {
        const struct pending bare = bare_conv(unit->conv, unit->conv_inputs);
        int *const moments = eq_unit_has_gate(gate) ? &unit->inputs[EQ_UNIT_MOMENTS] : NULL;
        EQ_TRY(call_conv(f, &bare, &unit->inputs[EQ_UNIT_Z], moments));
        unit->conv = NULL;
    }
    unit->attributes.method = gate->method;
    unit->attributes.group = gate->group;
    unit->attributes.iterations = gate->iterations;
    unit->attributes.ce_eps = gate->ce_eps;
    unit->attributes.gate_momentum = gate->momentum;
    unit->attributes.hidden = gate->hidden;
    unit->label = node->label;
    for (int i = EQ_UNIT_GAMMA; i < EQ_UNIT_NUM_INPUTS; i++)
        if (node->inputs[i] != EQ_NO_VALUE)
            EQ_TRY(materialise(f, node->inputs[i], &unit->inputs[i]));
    return EQ_OK;
}

static eq_status join_add(struct fusion *f, const struct eq_front_node *node)
{
    int a = node->inputs[EQ_UNIT_Z], b = node->inputs[EQ_UNIT_RESIDUAL];
    for (int turn = 0; turn < 2; turn++) {
        int host = turn ? b : a, other = turn ? a : b, residual;
        if (host == other || !can_absorb(f, host) || f->pending[host].inputs[EQ_UNIT_RESIDUAL] != EQ_NO_VALUE)
            continue;
        EQ_TRY(materialise(f, other, &residual));
        carry_on(f, host, node->output)->inputs[EQ_UNIT_RESIDUAL] = residual;
        return EQ_OK;
    }
    return open_unit(f, node);
}

static eq_status join_activation(struct fusion *f, const struct eq_front_node *node)
{
    int x = node->inputs[EQ_UNIT_Z];
    if (!can_absorb(f, x))
        return open_unit(f, node);
    carry_on(f, x, node->output)->attributes.activation = ((const struct eq_unit_attributes *)node->attributes)->activation;
    return EQ_OK;
}

// Whether the unit with a gate that makes the pool's input takes the pool in.
static bool joins_pool(const struct fusion *f, const struct eq_front_node *node)
{
    const struct pending *unit = &f->pending[node->inputs[0]];
    return node->op == &eq_op_pool_max && !f->ir->training && f->is_pending[node->inputs[0]] &&
           f->ir->graph->values[node->inputs[0]].num_readers == 1 && !unit->conv && !unit->attributes.pools &&
           unit->inputs[EQ_UNIT_RESIDUAL] == EQ_NO_VALUE &&
           eq_unit_can_pool(&f->ir->target, &unit->attributes, node->attributes);
}

// A filter is stored as its convolution's input and the target want it.
static eq_status lower_filter(struct eq_ir *ir, int x, int front, int groups)
{
    if (ir->lowered[front] >= 0)
        return EQ_OK;
    const int *s = ir->graph->values[front].shape;
    struct eq_tensor tensor = eq_conv2d_weight(&ir->target, &ir->values[x].tensor, s[0], s[2], s[3], groups);
    return eq_ir_value(ir, EQ_VALUE_PARAMETER, &tensor, front, &ir->lowered[front]);
}

static eq_status lower_op(struct fusion *f, const struct eq_front_node *node)
{
    int inputs[EQ_MAX_OPERANDS], outputs[EQ_MAX_OPERANDS];
    if (joins_pool(f, node)) {
        carry_on(f, node->inputs[0], node->output)->attributes.pools = true;
        return EQ_OK;
    }
    for (int i = 0; i < node->num_inputs; i++) {
        if (i == 1 && node->op == &eq_op_conv2d)
            EQ_TRY(lower_filter(f->ir, inputs[0], node->inputs[1], groups_of(node)));
        EQ_TRY(materialise(f, node->inputs[i], &inputs[i]));
    }
    if (node->op == &eq_op_conv2d && !f->ir->training) {
        f->pending[node->output] = bare_conv(node, inputs);
        f->is_pending[node->output] = true;
        return EQ_OK;
    }
    EQ_TRY(eq_ir_call(f->ir, node->op, node->attributes, inputs, node->num_inputs, node->label, outputs));
    f->ir->lowered[node->output] = outputs[0];
    f->ir->values[outputs[0]].front = node->output;
    return EQ_OK;
}

static eq_status lower_node(struct fusion *f, const struct eq_front_node *node)
{
    switch (node->kind) {
    case EQ_FRONT_OP: return lower_op(f, node);
    case EQ_FRONT_NORM: return open_unit(f, node);
    case EQ_FRONT_GATE: return join_gate(f, node);
    case EQ_FRONT_ADD: return join_add(f, node);
    case EQ_FRONT_ACT: break;
    }
    return join_activation(f, node);
}

static eq_status lower_all(struct fusion *f)
{
    const struct eq_graph *graph = f->ir->graph;
    for (int i = 0; i < graph->num_nodes; i++)
        EQ_TRY(lower_node(f, &graph->nodes[i]));
    for (int i = 0, value; i < graph->num_values; i++) {
        if (!graph->values[i].is_output)
            continue;
        EQ_TRY(materialise(f, i, &value));
        f->ir->values[value].is_output = true;
    }
    return EQ_OK;
}

eq_status eq_ir_lower(struct eq_ir *ir)
{
    size_t num = (size_t)ir->graph->num_values;
    struct fusion f = { .ir = ir,
                        .pending = eq_calloc(num, sizeof(struct pending)),
                        .is_pending = eq_calloc(num, sizeof(bool)) };
    eq_status status = f.pending && f.is_pending ? lower_all(&f) : EQ_ERR_HOST_MEMORY;
    free(f.pending);
    free(f.is_pending);
    return status;
}

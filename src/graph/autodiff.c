// Reverse-mode differentiation: walks the calls backwards and lets each op append the calls of its gradient.
//
// A value with several readers collects its gradient. An op that can add to what is there already takes it (in place, no extra
// pass); otherwise an addition is appended.
#include <stdlib.h>
#include <string.h>

#include "graph/graph.h"

struct walk {
    struct eq_ir *ir;
    int *grad;    // [values] gradient collected so far, or EQ_NO_VALUE
    bool *wants;  // [values] a parameter, or computed from one
    int num;      // values before differentiation
    bool input_gradients;
    int call;     // being differentiated
};

static eq_status tape_call(struct eq_tape *tape, const struct eq_op *op, const void *attributes, const int *inputs,
                           int num_inputs, int *outputs)
{
    struct walk *walk = tape->graph;
    EQ_TRY(eq_ir_call(walk->ir, op, attributes, inputs, num_inputs, walk->ir->calls[walk->call].label, outputs));
    walk->ir->calls[walk->ir->num_calls - 1].is_gradient = true;
    return EQ_OK;
}

static int tape_take(struct eq_tape *tape, int input)
{
    struct walk *walk = tape->graph;
    int value = tape->input[input], grad = value >= 0 ? walk->grad[value] : EQ_NO_VALUE;
    if (grad != EQ_NO_VALUE)
        walk->grad[value] = EQ_NO_VALUE;
    return grad;
}

static eq_status tape_give(struct eq_tape *tape, int input, int grad)
{
    struct walk *walk = tape->graph;
    int value = tape->input[input];
    if (value < 0)
        return EQ_OK;
    if (walk->grad[value] != EQ_NO_VALUE) {
        int outputs[EQ_MAX_OPERANDS];
        EQ_TRY(tape_call(tape, &eq_op_add, NULL, (int[]){ walk->grad[value], grad }, 2, outputs));
        grad = outputs[0];
    }
    walk->grad[value] = grad;
    return EQ_OK;
}

static eq_status differentiate_call(struct walk *walk, int index, int loss)
{
    struct eq_ir_call *call = &walk->ir->calls[index];
    struct eq_tape tape = { .graph = walk, .call = tape_call, .take = tape_take, .give = tape_give };
    bool is_reached = false, is_wanted = false;
    for (int o = 0; o < call->call.num_outputs; o++) {
        tape.output[o] = call->out[o];
        tape.output_grad[o] = walk->grad[call->out[o]];
        is_reached |= tape.output_grad[o] != EQ_NO_VALUE || call->out[o] == loss;
    }
    for (int i = 0; i < call->call.num_inputs; i++) {
        tape.input[i] = call->in[i];
        tape.wants[i] = call->in[i] >= 0 && walk->wants[call->in[i]];
        is_wanted |= tape.wants[i];
    }
    if (!is_reached || !is_wanted || !call->call.op->gradient)
        return EQ_OK;
    walk->call = index;
    struct eq_call forward = call->call; // the array of calls moves as it grows
    return forward.op->gradient(&forward, &tape);
}

static bool is_wanted_input(const struct walk *walk, int v)
{
    const struct eq_ir_value *value = &walk->ir->values[v];
    return walk->input_gradients && value->kind == EQ_VALUE_INPUT && value->tensor.dtype == EQ_F32;
}

static void mark_wanted(struct walk *walk)
{
    const struct eq_ir *ir = walk->ir;
    for (int v = 0; v < walk->num; v++)
        walk->wants[v] = ir->values[v].kind == EQ_VALUE_PARAMETER || is_wanted_input(walk, v);
    for (int c = 0; c < ir->num_calls; c++) {
        bool wanted = false;
        for (int i = 0; i < ir->calls[c].call.num_inputs; i++)
            wanted |= ir->calls[c].in[i] >= 0 && walk->wants[ir->calls[c].in[i]];
        for (int o = 0; o < ir->calls[c].call.num_outputs; o++)
            walk->wants[ir->calls[c].out[o]] |= wanted;
    }
}

// A cross entropy makes the gradient of its mean along with its value; that of anything else is the caller's to give.
static eq_status start(struct walk *walk, int loss)
{
    struct eq_ir *ir = walk->ir;
    int seed;
    if (ir->values[loss].producer >= 0 && ir->calls[ir->values[loss].producer].call.op == &eq_op_softmax_xent)
        return EQ_OK;
    const struct eq_tensor tensor = ir->values[loss].tensor;
    EQ_TRY(eq_ir_value(ir, EQ_VALUE_INPUT, &tensor, -1, &seed));
    ir->values[seed].outer_grad_of = loss;
    walk->grad[loss] = seed;
    return EQ_OK;
}

static eq_status differentiate(struct walk *walk, int loss)
{
    struct eq_ir *ir = walk->ir;
    for (int v = 0; v < walk->num; v++)
        walk->grad[v] = EQ_NO_VALUE;
    mark_wanted(walk);
    EQ_TRY(start(walk, loss));
    for (int c = ir->num_calls - 1; c >= 0; c--)
        EQ_TRY(differentiate_call(walk, c, loss));
    for (int v = 0; v < walk->num; v++) {
        const bool is_input = is_wanted_input(walk, v);
        if (ir->values[v].kind != EQ_VALUE_PARAMETER && !is_input)
            continue;
        EQ_REQUIRE(walk->grad[v] != EQ_NO_VALUE, EQ_ERR_ARGUMENT, "%s %s: what is differentiated does not depend on it",
                   is_input ? "input" : "parameter", ir->graph->values[ir->values[v].front].name);
        struct eq_ir_value *grad = &ir->values[walk->grad[v]];
        *(is_input ? &grad->outer_grad_of : &grad->grad_of) = v;
        grad->is_output |= is_input;
    }
    return EQ_OK;
}

static eq_status check_inputs_read(const struct eq_ir *ir)
{
    for (int front = 0; front < ir->graph->num_values; front++) {
        const struct eq_front_value *value = &ir->graph->values[front];
        EQ_REQUIRE(value->kind != EQ_VALUE_INPUT || value->dtype != EQ_F32 || ir->lowered[front] >= 0, EQ_ERR_ARGUMENT,
                   "input %s: nothing depends on it", value->name);
    }
    return EQ_OK;
}

eq_status eq_ir_differentiate(struct eq_ir *ir, int loss, bool input_gradients)
{
    if (input_gradients)
        EQ_TRY(check_inputs_read(ir));
    struct walk walk = { .ir = ir, .num = ir->num_values, .input_gradients = input_gradients };
    walk.grad = eq_malloc((size_t)ir->num_values, sizeof *walk.grad);
    walk.wants = eq_calloc((size_t)ir->num_values, sizeof *walk.wants);
    eq_status status = walk.grad && walk.wants ? differentiate(&walk, loss) : EQ_ERR_HOST_MEMORY;
    free(walk.grad);
    free(walk.wants);
    return status;
}

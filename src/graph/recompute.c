// Time for memory: outputs of units that backward needs are not kept for it but made again.
//
// The rule: whatever a unit put out is made again, by unit_again from the unit's input z and its saved coefficients, right
// before the first gradient call that reads it. Both are kept for the unit's own gradient anyway. A residual that is a unit's
// output is made again first, so a chain of blocks is walked up to its first one (whose residual comes from a projection, or
// from an input of the chain that is kept); each output is made again once and stays until its last reader. What that holds
// at a time is one chain, while the chains after it are gone already: the peak is where backward starts, with inputs of units
// alone. The kernel and the coefficients are those of forward, so every gradient has the same bits.
#include <stdlib.h>
#include <string.h>

#include "graph/graph.h"

struct walk {
    struct eq_ir *ir;
    struct eq_ir_call *old; // calls before the pass
    int num_old, next;      // `next` on are still only here
    int *again;             // [num_values] the value that stands for it in backward, or EQ_NO_VALUE
    int num_values;         // before the pass
};

// Moves the next call over.
static eq_status keep_call(struct walk *walk)
{
    struct eq_ir *ir = walk->ir;
    EQ_TRY(eq_ir_reserve_call(ir));
    ir->calls[ir->num_calls++] = walk->old[walk->next++];
    return EQ_OK;
}

static bool is_made_again(const struct walk *walk, int value)
{
    if (value < 0 || value >= walk->num_values)
        return false;
    const struct eq_ir_value *v = &walk->ir->values[value];
    if (v->producer < 0 || v->is_output)
        return false;
    const struct eq_ir_call *call = &walk->old[v->producer];
    return call->call.op == &eq_op_unit && call->out[EQ_UNIT_OUT] == value;
}

// What to read in backward for `value`; appends calls where it has to be made. The depth is the length of a chain of blocks.
static eq_status stand_in(struct walk *walk, int value, int *found)
{
    *found = value;
    if (!is_made_again(walk, value))
        return EQ_OK;
    if (walk->again[value] == EQ_NO_VALUE) {
        const struct eq_ir_call unit = walk->ir->calls[walk->ir->values[value].producer]; // calls[] moves as it grows
        int inputs[EQ_UNIT_AGAIN_NUM_INPUTS] = { [EQ_UNIT_AGAIN_SAVED] = unit.out[EQ_UNIT_SAVED] }, outputs[EQ_MAX_OPERANDS];
        const bool has_residual = unit.call.num_inputs > EQ_UNIT_RESIDUAL;
        EQ_TRY(stand_in(walk, unit.in[EQ_UNIT_Z], &inputs[EQ_UNIT_AGAIN_Z]));
        EQ_TRY(stand_in(walk, has_residual ? unit.in[EQ_UNIT_RESIDUAL] : EQ_NO_VALUE, &inputs[EQ_UNIT_AGAIN_RESIDUAL]));
        EQ_TRY(eq_ir_call(walk->ir, &eq_op_unit_again, unit.attributes, inputs, EQ_UNIT_AGAIN_NUM_INPUTS, unit.label, outputs));
        walk->ir->calls[walk->ir->num_calls - 1].is_gradient = true;
        walk->again[value] = outputs[0];
    }
    *found = walk->again[value];
    return EQ_OK;
}

static eq_status rewrite(struct walk *walk)
{
    struct eq_ir *ir = walk->ir;
    while (walk->next < walk->num_old) {
        struct eq_ir_call *call = &walk->old[walk->next];
        for (int i = 0; call->is_gradient && i < call->call.num_inputs; i++)
            EQ_TRY(stand_in(walk, call->in[i], &call->in[i]));
        EQ_TRY(keep_call(walk));
    }
    for (int v = 0; v < ir->num_values; v++)
        ir->values[v].last_reader = -1;
    for (int c = 0; c < ir->num_calls; c++) {
        for (int i = 0; i < ir->calls[c].call.num_inputs; i++)
            if (ir->calls[c].in[i] >= 0)
                ir->values[ir->calls[c].in[i]].last_reader = c;
        for (int o = 0; o < ir->calls[c].call.num_outputs; o++)
            ir->values[ir->calls[c].out[o]].producer = c;
    }
    return EQ_OK;
}

eq_status eq_ir_recompute(struct eq_ir *ir)
{
    struct walk walk = { .ir = ir, .old = ir->calls, .num_old = ir->num_calls, .num_values = ir->num_values };
    ir->calls = NULL;
    ir->num_calls = ir->call_capacity = 0;
    walk.again = eq_malloc((size_t)walk.num_values, sizeof *walk.again);
    eq_status status = walk.again ? EQ_OK : EQ_ERR_HOST_MEMORY;
    for (int v = 0; walk.again && v < walk.num_values; v++)
        walk.again[v] = EQ_NO_VALUE;
    if (status == EQ_OK)
        status = rewrite(&walk);
    for (int c = walk.next; c < walk.num_old; c++) // after a failure
        free(walk.old[c].attributes);
    free(walk.old);
    free(walk.again);
    return status;
}

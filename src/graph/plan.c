// The memory plan: pure arithmetic on sizes and lifetimes.
//
// Greedy by size: largest first, each at the lowest offset that is free during its life. For networks this comes within a few
// per cent of the largest sum of live tensors, which no plan can go below.
#include <stdlib.h>
#include <string.h>

#include "graph/graph.h"

struct placed {
    size_t start, end;
};

static int by_start(const void *a, const void *b)
{
    const struct placed *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

// Lowest aligned offset in the chunk where `item` meets nobody that lives at the same time.
static size_t lowest_place(const struct eq_plan_item *items, const int *order, int num_placed, int chunk,
                           const struct eq_plan_item *item, size_t alignment, struct placed *busy)
{
    int num_busy = 0;
    for (int i = 0; i < num_placed; i++) {
        const struct eq_plan_item *other = &items[order[i]];
        if (other->chunk == chunk && other->first <= item->last && item->first <= other->last)
            busy[num_busy++] = (struct placed){ other->offset, other->offset + other->bytes };
    }
    if (num_busy)
        qsort(busy, (size_t)num_busy, sizeof *busy, by_start);
    size_t at = 0;
    for (int i = 0; i < num_busy; i++) {
        if (busy[i].start >= at + item->bytes)
            break;
        if (busy[i].end > at)
            at = (busy[i].end + alignment - 1) / alignment * alignment;
    }
    return at;
}

// Indices by falling size; equal sizes by index, so that the plan is a function of its input alone.
static void sort_by_size(const struct eq_plan_item *items, int *order, int num)
{
    for (int i = 0; i < num; i++) {
        int j = i;
        for (; j > 0 && items[order[j - 1]].bytes < items[i].bytes; j--)
            order[j] = order[j - 1];
        order[j] = i;
    }
}

static eq_status place_all(struct eq_plan_item *items, int num, size_t alignment, size_t max_chunk_bytes, size_t *chunk_bytes,
                           int max_chunks, int *num_chunks, int *order, struct placed *busy)
{
    sort_by_size(items, order, num);
    *num_chunks = 0;
    for (int i = 0; i < num; i++) {
        struct eq_plan_item *item = &items[order[i]];
        EQ_REQUIRE(item->bytes <= max_chunk_bytes, EQ_ERR_DEVICE_MEMORY,
                   "a tensor of %zu bytes; the device allows at most %zu in one buffer", item->bytes, max_chunk_bytes);
        int chunk = 0;
        size_t at = 0;
        for (; chunk < *num_chunks; chunk++) {
            at = lowest_place(items, order, i, chunk, item, alignment, busy);
            if (at + item->bytes <= max_chunk_bytes)
                break;
        }
        if (chunk == *num_chunks) {
            EQ_REQUIRE(chunk < max_chunks, EQ_ERR_DEVICE_MEMORY, "more than %d buffers of %zu bytes are needed", max_chunks,
                       max_chunk_bytes);
            chunk_bytes[(*num_chunks)++] = 0;
            at = 0;
        }
        item->chunk = chunk;
        item->offset = at;
        if (at + item->bytes > chunk_bytes[chunk])
            chunk_bytes[chunk] = at + item->bytes;
    }
    return EQ_OK;
}

eq_status eq_plan_place(struct eq_plan_item *items, int num, size_t alignment, size_t max_chunk_bytes, size_t *chunk_bytes,
                        int max_chunks, int *num_chunks)
{
    int *order = eq_malloc((size_t)num, sizeof *order);
    struct placed *busy = eq_malloc((size_t)num, sizeof *busy);
    eq_status status = order && busy
                           ? place_all(items, num, alignment, max_chunk_bytes, chunk_bytes, max_chunks, num_chunks, order, busy)
                           : EQ_ERR_HOST_MEMORY;
    free(order);
    free(busy);
    return status;
}

bool eq_plan_is_slot(const struct eq_ir_value *value)
{
    return value->kind == EQ_VALUE_INPUT || (value->is_output && value->grad_of < 0 && value->tensor.form == EQ_FORM_PLAIN);
}

// A temporary of the arena: not a parameter's gradient, which lies in the store.
static bool is_temporary(const struct eq_ir_value *value)
{
    return value->kind == EQ_VALUE_TEMPORARY && value->grad_of < 0 && !eq_plan_is_slot(value);
}

static bool is_constant(const struct eq_ir *ir, const struct eq_ir_value *value)
{
    return value->producer >= 0 && ir->calls[value->producer].is_constant;
}

// What an op says of its in-place input holds for that operand: one that the call reads in another place too, as the residual
// of x + conv(x) is, would be written over before all of it was read.
static bool is_read_once(const struct eq_ir_call *call, int operand)
{
    int num = 0;
    for (int i = 0; i < call->call.num_inputs; i++)
        num += call->in[i] == call->in[operand];
    return num == 1;
}

// The input whose memory output `o` of the call takes over, or -1: the input must die here, be read once, and have the same
// stored form, and memory for as many images. One that is made only when weights change does not die.
static int taken_over(const struct eq_ir *ir, int index, int o)
{
    const struct eq_ir_call *call = &ir->calls[index];
    int i = call->call.op->in_place ? call->call.op->in_place(&call->call, o) : -1;
    if (i < 0 || call->in[i] < 0 || !is_read_once(call, i))
        return -1;
    const struct eq_ir_value *from = &ir->values[call->in[i]], *to = &ir->values[call->out[o]];
    bool fits = is_temporary(from) && is_temporary(to) && !from->is_output && !is_constant(ir, from) &&
                from->last_reader == index && memcmp(&from->tensor, &to->tensor, sizeof from->tensor) == 0 &&
                eq_ir_is_local(ir, call->in[i]) == eq_ir_is_local(ir, call->out[o]);
    return fits ? call->in[i] : -1;
}

// Memory of a call's outputs: of those that live in one stretch alone, for the slice that needs most. That need not be the
// largest: fewer images may be cut into more pieces each.
static eq_status output_bytes(const struct eq_ir *ir, int index, size_t bytes[EQ_MAX_OPERANDS])
{
    const struct eq_ir_call *call = &ir->calls[index];
    for (int o = 0; o < call->call.num_outputs; o++)
        bytes[o] = eq_ir_is_local(ir, call->out[o]) ? 0 : eq_tensor_bytes(&call->call.output[o]);
    if (!call->stretch)
        return EQ_OK;
    for (int images = eq_stretch_least(call->stretch); images <= eq_stretch_most(call->stretch); images++) {
        struct eq_call sliced;
        EQ_TRY(eq_ir_sliced_call(ir, index, images, &sliced));
        for (int o = 0; o < sliced.num_outputs; o++) {
            const size_t slice_bytes = eq_tensor_bytes(&sliced.output[o]);
            bytes[o] = bytes[o] > slice_bytes ? bytes[o] : slice_bytes;
        }
    }
    return EQ_OK;
}

// From the call that makes the value to the last one that reads it. One that is kept whole while slices pass is there for all
// of them: what a later slice writes before that call, or after that reader, must not fall on the images of others.
static void set_life(const struct eq_ir *ir, int index, int v, bool is_new, struct eq_plan_item *item)
{
    const struct eq_ir_value *value = &ir->values[v];
    const bool is_read = value->last_reader >= index, is_local = eq_ir_is_local(ir, v);
    const struct eq_stretch *made = is_local ? NULL : ir->calls[index].stretch;
    const struct eq_stretch *read = is_local || !is_read ? NULL : ir->calls[value->last_reader].stretch;
    if (is_new)
        item->first = made ? made->first : index;
    item->last = read ? read->end - 1 : is_read ? value->last_reader : index;
    if (value->is_output)
        item->last = ir->num_calls;
    if (ir->calls[index].is_constant && value->last_reader >= 0) { // made before the first step of a run, kept from run to run
        item->first = 0;
        item->last = ir->num_calls;
    }
}

static eq_status add_items(const struct eq_ir *ir, struct eq_plan_item *items, int *num, int *item_of_value)
{
    for (int c = 0; c < ir->num_calls; c++) {
        const struct eq_ir_call *call = &ir->calls[c];
        size_t bytes[EQ_MAX_OPERANDS];
        EQ_TRY(output_bytes(ir, c, bytes));
        for (int o = 0; o < call->call.num_outputs; o++) {
            if (!is_temporary(&ir->values[call->out[o]]))
                continue;
            const int from = taken_over(ir, c, o), item = from >= 0 ? item_of_value[from] : (*num)++;
            if (from < 0)
                items[item] = (struct eq_plan_item){ .bytes = bytes[o] };
            set_life(ir, c, call->out[o], from < 0, &items[item]);
            item_of_value[call->out[o]] = item;
        }
    }
    return EQ_OK;
}

eq_status eq_plan_items(const struct eq_ir *ir, struct eq_plan_item **items, int *num, int **item_of_value)
{
    *num = 0;
    *items = eq_malloc((size_t)ir->num_values, sizeof **items);
    *item_of_value = eq_malloc((size_t)ir->num_values, sizeof **item_of_value);
    if (!*items || !*item_of_value) {
        free(*items);
        free(*item_of_value);
        return EQ_ERR_HOST_MEMORY;
    }
    for (int v = 0; v < ir->num_values; v++)
        (*item_of_value)[v] = -1;
    const eq_status status = add_items(ir, *items, num, *item_of_value);
    if (status != EQ_OK) {
        free(*items);
        free(*item_of_value);
    }
    return status;
}

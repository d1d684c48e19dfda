// Slices: which calls of an evaluation run a few images at a time, so that what they hand on stays in a CPU's last cache.
//
// How: the calls of a run are cut into stretches, each with a number of slices, so that a model of the bytes that pass through
// memory is least; launches count as bytes, too. The model:
//   - a value that the stretch has touched before costs nothing when a slice of all that is alive fits the cache;
//   - a value that is made in a stretch and dies there is never written to memory;
//   - filters are read once for every slice, unless those of the whole stretch stay in the cache beside the images.
// Best cuts up to each call come from best cuts up to the calls before it: some 10^5 steps for a network of a hundred calls.
//
// Rejected: a number of images by call alone, joined where neighbours agree: it cuts residual blocks apart, whose shortcut then
// goes through memory, and does not see that a stretch's filters stay.
#include <math.h>
#include <stdlib.h>

#include "graph/graph.h"

// What the processor could have moved while it waits for a call's launches: two of about 8 us at 50 GB/s.
#define CALL_BYTES (800.0 * 1024)
// Of a call's largest operand, for each core: fewer would leave cores without work at the end of a launch. Winograd's chunks of
// 28 tiles are the largest pieces of work: with 256 channels one has 115,000 elements, and 5 images of 14 x 14 are three
// chunks, which take two cores as long as four. Layer3 of CE-ResNet-50, step by step, took 6 % longer so, and 2 % with this.
enum { MIN_ELEMS = 128 << 10 };

// A call of every run.
struct step {
    int call;
    bool can_slice;
    double live_bytes;   // of an image: values that are alive
    double weight_bytes; // read whatever the images
    double elems;        // of an image of the largest operand
};

struct search {
    const struct eq_ir *ir;
    int images, num;
    double budget_bytes;
    struct step *steps;
    int *step_of;        // [calls], -1 for constant ones
    int *seen, turn;     // [values] the turn in which the stretch touched it
    double *least_bytes; // [num + 1] of steps before this one
    int *first, *slices; // [num + 1] of the stretch that ends before this one
};

static int ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

int eq_stretch_image(const struct eq_stretch *stretch, int slice)
{
    return (int)((int64_t)stretch->images * slice / stretch->slices);
}

int eq_stretch_least(const struct eq_stretch *stretch)
{
    return stretch->images / stretch->slices;
}

int eq_stretch_most(const struct eq_stretch *stretch)
{
    return ceil_div(stretch->images, stretch->slices);
}

bool eq_ir_has_images(const struct eq_ir *ir, int value)
{
    const struct eq_ir_value *v = &ir->values[value];
    return v->kind == EQ_VALUE_INPUT || (v->producer >= 0 && !ir->calls[v->producer].is_constant);
}

bool eq_ir_is_local(const struct eq_ir *ir, int value)
{
    const struct eq_ir_value *v = &ir->values[value];
    const struct eq_stretch *stretch = v->producer >= 0 ? ir->calls[v->producer].stretch : NULL;
    return stretch && !v->is_output && v->last_reader < stretch->end;
}

eq_status eq_ir_sliced_call(const struct eq_ir *ir, int call, int images, struct eq_call *sliced)
{
    const struct eq_ir_call *whole = &ir->calls[call];
    *sliced = whole->call;
    for (int i = 0; i < sliced->num_inputs; i++)
        if (whole->in[i] >= 0 && eq_ir_has_images(ir, whole->in[i]))
            sliced->input[i].n = images;
    EQ_TRY(sliced->op->shape(sliced));
    for (int o = 0; o < sliced->num_outputs; o++)
        sliced->output[o].halo = whole->call.output[o].halo;
    return EQ_OK;
}

// Images of the first input; 0: there is none.
static int count_images(const struct eq_ir *ir)
{
    for (int v = 0; v < ir->num_values; v++)
        if (ir->values[v].kind == EQ_VALUE_INPUT)
            return ir->values[v].tensor.n;
    return 0;
}

// Whether somebody outside the call reads it: otherwise it is workspace.
static bool is_result(const struct eq_ir_value *value)
{
    return value->is_output || value->last_reader >= 0;
}

static double bytes_of(const struct eq_ir *ir, int value)
{
    return (double)eq_tensor_bytes(&ir->values[value].tensor);
}

static bool can_slice(const struct search *s, const struct eq_ir_call *call)
{
    bool can = call->call.op->is_per_image;
    for (int i = 0; i < call->call.num_inputs; i++)
        if (call->in[i] >= 0 && eq_ir_has_images(s->ir, call->in[i]))
            can = can && s->ir->values[call->in[i]].tensor.n == s->images;
    for (int o = 0; o < call->call.num_outputs; o++)
        if (is_result(&s->ir->values[call->out[o]]))
            can = can && s->ir->values[call->out[o]].tensor.n == s->images;
    return can;
}

static void count_operands(const struct search *s, const struct eq_ir_call *call, struct step *step)
{
    for (int i = 0; i < call->call.num_inputs + call->call.num_outputs; i++) {
        const int value = i < call->call.num_inputs ? call->in[i] : call->out[i - call->call.num_inputs];
        if (value < 0)
            continue;
        const double elems = (double)eq_tensor_elems(&s->ir->values[value].tensor) / s->images;
        if (!eq_ir_has_images(s->ir, value))
            step->weight_bytes += bytes_of(s->ir, value);
        else if (is_result(&s->ir->values[value]) && elems > step->elems)
            step->elems = elems;
    }
}

static void make_steps(struct search *s)
{
    for (int c = 0; c < s->ir->num_calls; c++) {
        const struct eq_ir_call *call = &s->ir->calls[c];
        s->step_of[c] = call->is_constant ? -1 : s->num;
        if (call->is_constant)
            continue;
        struct step *step = &s->steps[s->num++];
        step->call = c;
        step->can_slice = can_slice(s, call);
        count_operands(s, call, step);
    }
}

// A value weighs on the steps from the one that makes it to its last reader; an input, on its readers alone.
static void weigh_values(struct search *s)
{
    for (int v = 0; v < s->ir->num_values; v++) {
        const struct eq_ir_value *value = &s->ir->values[v];
        if (value->producer < 0 || !eq_ir_has_images(s->ir, v) || !is_result(value))
            continue;
        const int first = s->step_of[value->producer], last = value->last_reader >= 0 ? s->step_of[value->last_reader] : first;
        for (int i = first; i <= last; i++)
            s->steps[i].live_bytes += bytes_of(s->ir, v) / s->images;
    }
    for (int i = 0; i < s->num; i++) {
        const struct eq_ir_call *call = &s->ir->calls[s->steps[i].call];
        for (int j = 0; j < call->call.num_inputs; j++)
            if (call->in[j] >= 0 && s->ir->values[call->in[j]].kind == EQ_VALUE_INPUT)
                s->steps[i].live_bytes += bytes_of(s->ir, call->in[j]) / s->images;
    }
}

// Where an output takes over an input's memory, it takes no place of its own.
static void forgive_in_place(struct search *s)
{
    for (int i = 0; i < s->num; i++) {
        const struct eq_ir_call *call = &s->ir->calls[s->steps[i].call];
        const int input = call->call.op->in_place ? call->call.op->in_place(&call->call, 0) : -1;
        if (input >= 0 && call->in[input] >= 0 && s->ir->values[call->in[input]].last_reader == s->steps[i].call)
            s->steps[i].live_bytes -= bytes_of(s->ir, call->out[0]) / s->images;
    }
}

static bool fits(const struct search *s, const struct step *step, int slices)
{
    return ceil_div(s->images, slices) * step->live_bytes + step->weight_bytes <= s->budget_bytes;
}

static bool has_work(const struct search *s, const struct step *step, int slices)
{
    return s->images / slices * step->elems >= (double)MIN_ELEMS * s->ir->target.compute_units;
}

static bool is_repeated(const struct eq_ir_call *call, int input)
{
    for (int i = 0; i < input; i++)
        if (call->in[i] == call->in[input])
            return true;
    return false;
}

// Bytes of all images that a step moves, in a stretch from `first` on. What was written and turns out to die here is taken
// back.
static double move_bytes(struct search *s, int first, const struct step *step, bool stays)
{
    const struct eq_ir_call *call = &s->ir->calls[step->call];
    double bytes = 0;
    for (int i = 0; i < call->call.num_inputs; i++) {
        const int v = call->in[i];
        if (v < 0 || !eq_ir_has_images(s->ir, v) || is_repeated(call, i))
            continue;
        const struct eq_ir_value *value = &s->ir->values[v];
        const bool is_ours = value->producer >= 0 && s->step_of[value->producer] >= first;
        if (!stays || s->seen[v] != s->turn)
            bytes += bytes_of(s->ir, v);
        else if (is_ours && !value->is_output && value->last_reader == step->call)
            bytes -= bytes_of(s->ir, v);
        s->seen[v] = s->turn;
    }
    for (int o = 0; o < call->call.num_outputs; o++) {
        if (is_result(&s->ir->values[call->out[o]]))
            bytes += bytes_of(s->ir, call->out[o]);
        s->seen[call->out[o]] = s->turn;
    }
    return bytes;
}

// Tries all stretches of so many slices that begin at step `first`.
static void try_stretches(struct search *s, int first, int slices)
{
    const int calls_each = slices + (s->images % slices > 0); // two sizes: some more kernels to compile
    double bytes = s->least_bytes[first], weight_bytes = 0, most_live = 0;
    s->turn++;
    for (int i = first; i < s->num; i++) {
        const struct step *step = &s->steps[i];
        const bool stays = fits(s, step, slices);
        if (slices > 1 && !(step->can_slice && stays && has_work(s, step, slices)))
            return;
        bytes += move_bytes(s, first, step, stays) + calls_each * CALL_BYTES;
        weight_bytes += step->weight_bytes;
        most_live = step->live_bytes > most_live ? step->live_bytes : most_live;
        const bool weights_stay = weight_bytes + ceil_div(s->images, slices) * most_live <= s->budget_bytes;
        const double total = bytes + (weights_stay ? 1 : slices) * weight_bytes;
        if (total < s->least_bytes[i + 1]) {
            s->least_bytes[i + 1] = total;
            s->first[i + 1] = first;
            s->slices[i + 1] = slices;
        }
    }
}

// Of numbers of slices that come to the same largest slice, the least.
static void find_cuts(struct search *s)
{
    for (int i = 1; i <= s->num; i++)
        s->least_bytes[i] = HUGE_VAL;
    for (int first = 0; first < s->num; first++)
        for (int slices = 1, most = 0; slices <= s->images; slices++) {
            if (ceil_div(s->images, slices) == most)
                continue;
            most = ceil_div(s->images, slices);
            try_stretches(s, first, slices);
        }
}

static void keep_stretch(struct eq_ir *ir, struct eq_stretch found)
{
    struct eq_stretch *stretch = &ir->stretches[ir->num_stretches++];
    *stretch = found;
    for (int c = found.first; c < found.end; c++)
        if (!ir->calls[c].is_constant)
            ir->calls[c].stretch = stretch;
}

static eq_status find(struct search *s, struct eq_ir *ir)
{
    const size_t calls = (size_t)ir->num_calls + 1;
    EQ_ALLOC(s->steps, calls);
    EQ_ALLOC(s->step_of, calls);
    EQ_ALLOC(s->seen, (size_t)ir->num_values + 1);
    EQ_ALLOC(s->least_bytes, calls);
    EQ_ALLOC(s->first, calls);
    EQ_ALLOC(s->slices, calls);
    make_steps(s);
    weigh_values(s);
    forgive_in_place(s);
    find_cuts(s);
    EQ_ALLOC(ir->stretches, calls);
    for (int end = s->num; end > 0; end = s->first[end])
        if (s->slices[end] > 1)
            keep_stretch(ir, (struct eq_stretch){ .first = s->steps[s->first[end]].call,
                                                  .end = s->steps[end - 1].call + 1,
                                                  .images = s->images,
                                                  .slices = s->slices[end] });
    return EQ_OK;
}

static eq_status take_given(struct eq_ir *ir, const struct eq_compile_params *params)
{
    EQ_ALLOC(ir->stretches, params->num_stretches);
    for (int i = 0; i < params->num_stretches; i++) {
        struct eq_stretch given = params->stretches[i];
        given.images = count_images(ir);
        keep_stretch(ir, given);
    }
    return EQ_OK;
}

static bool is_evaluation(const struct eq_ir *ir)
{
    for (int c = 0; c < ir->num_calls; c++)
        if (ir->calls[c].is_gradient)
            return false;
    return !ir->training;
}

// The budget is half of the last cache: of more, little would be left there when it is read, and others use it, too.
// CE-ResNet-50 on two cores with 32 MiB, one run each, where runs differ by 1 to 5 %: no difference between half, three
// quarters and all.
eq_status eq_ir_slice(struct eq_ir *ir, const struct eq_compile_params *params)
{
    if (params->stretches)
        return take_given(ir, params);
    struct search s = { .ir = ir, .images = count_images(ir), .budget_bytes = (double)ir->target.cache_bytes / 2 };
    if (!is_evaluation(ir) || ir->target.family != EQ_FAMILY_VECTOR || ir->target.cache_bytes == 0 || s.images < 2)
        return EQ_OK;
    const eq_status status = find(&s, ir);
    free(s.steps);
    free(s.step_of);
    free(s.seen);
    free(s.least_bytes);
    free(s.first);
    free(s.slices);
    return status;
}

// Running one op: every operand of a call lies in one image of 32-bit words: canary, operand, canary, operand, ... The image
// goes to the device, the call runs, the image comes back; whatever should not have changed is compared word by word. Canaries
// are NaNs, so that a read outside of an operand shows in the results, and outputs start as another NaN, so that an element
// that was not written shows by name. A kernel that goes on past all of its operands reads canaries and writes what comes of
// them over others: each word has a NaN of its own, which a copy would not bring, and signalling ones, which arithmetic makes
// quiet and so changes.
#include <stdlib.h>

#include "verify/check.h"

enum { CANARY_WORDS = 67 }; // odd: nothing is aligned to more than a word, unless the call says so
static const uint32_t POISON = 0x7fd15ea5u;

static uint32_t canary(size_t word)
{
    return 0x7fa00000u | (word & 0xfffffu);
}

// The image of a call and where its operands lie in it, in words.
struct image {
    struct eq_buffer *buffer;
    struct eq_list *list;
    uint32_t *before, *after, *again;
    float *packed; // an output once more
    size_t words, in[EQ_MAX_OPERANDS], out[EQ_MAX_OPERANDS];
    int shared[EQ_MAX_OPERANDS];      // input whose memory output o has, or -1
    bool is_written[EQ_MAX_OPERANDS]; // input i
};

static struct eq_call call_of(const struct eq_check_call *test)
{
    struct eq_call call = { .op = test->op,
                            .attributes = test->attributes,
                            .target = &eq_check_device->target,
                            .training = test->training,
                            .num_inputs = test->num_inputs };
    for (int i = 0; i < test->num_inputs; i++) {
        call.has[i] = test->input[i].plain != NULL;
        if (call.has[i])
            call.input[i] = test->input[i].tensor;
    }
    return call;
}

static int shared_input(const struct eq_check_call *test, int output)
{
    const int i = test->in_place && test->op->in_place ? test->op->in_place(&test->shaped, output) : -1;
    return i >= 0 && test->shaped.has[i] ? i : -1;
}

static void shape_call(struct eq_check_call *test, struct image *image)
{
    test->shaped = call_of(test);
    struct eq_call *call = &test->shaped;
    EQ_CHECK(test->op->shape(call) == EQ_OK, "%s", eq_last_error());
    for (int i = 0; i < call->num_inputs; i++) {
        if (!call->has[i])
            continue;
        EQ_CHECK_INT(eq_dtype_bytes(call->input[i].dtype), 4);
        const int halo = test->op->halo ? test->op->halo(call, i) : 0;
        if (call->input[i].form == EQ_FORM_BLOCKED && halo > call->input[i].halo)
            call->input[i].halo = halo;
    }
    for (int o = 0; o < call->num_outputs; o++) {
        struct eq_tensor *t = &call->output[o];
        if (t->form == EQ_FORM_BLOCKED && t->dtype == EQ_F32 && test->output_halo > t->halo)
            t->halo = test->output_halo;
    }
    for (int o = 0; o < call->num_outputs; o++) {
        image->shared[o] = shared_input(test, o);
        if (image->shared[o] < 0)
            continue;
        struct eq_tensor *in = &call->input[image->shared[o]], *out = &call->output[o];
        in->halo = out->halo = in->halo > out->halo ? in->halo : out->halo;
        EQ_CHECK_INT(eq_tensor_elems(in), eq_tensor_elems(out));
        image->is_written[image->shared[o]] = true;
    }
}

static void place(struct eq_check_call *test, struct image *image)
{
    const struct eq_call *call = &test->shaped;
    const size_t unit = test->is_aligned ? 16 : 1;
    size_t at = CANARY_WORDS;
    for (int i = 0; i < call->num_inputs; i++) {
        at = (at + unit - 1) / unit * unit;
        image->in[i] = at;
        image->is_written[i] |= test->input[i].is_state;
        at += call->has[i] ? eq_tensor_elems(&call->input[i]) + CANARY_WORDS : 0;
    }
    for (int o = 0; o < call->num_outputs; o++) {
        at = (at + unit - 1) / unit * unit;
        image->out[o] = image->shared[o] >= 0 ? image->in[image->shared[o]] : at;
        at += image->shared[o] >= 0 ? 0 : eq_tensor_elems(&call->output[o]) + CANARY_WORDS;
    }
    image->words = at;
}

static void fill(struct eq_check_call *test, struct image *image)
{
    const struct eq_call *call = &test->shaped;
    image->before = eq_check_malloc(image->words, sizeof(uint32_t));
    image->after = eq_check_malloc(image->words, sizeof(uint32_t));
    image->again = eq_check_malloc(image->words, sizeof(uint32_t));
    for (size_t k = 0; k < image->words; k++)
        image->before[k] = canary(k);
    for (int i = 0; i < call->num_inputs; i++)
        if (call->has[i])
            eq_tensor_pack(&call->input[i], test->input[i].plain, (float *)(image->before + image->in[i]));
    for (int o = 0; o < call->num_outputs; o++)
        for (size_t k = 0; image->shared[o] < 0 && k < eq_tensor_elems(&call->output[o]); k++)
            image->before[image->out[o] + k] = POISON;
}

static void run_once(const struct image *image, uint32_t *result)
{
    EQ_CHECK_OK(eq_ref_write(eq_ref_at(image->buffer, 0), image->before, image->words, 4));
    EQ_CHECK_OK(eq_list_run(image->list));
    EQ_CHECK_OK(eq_device_finish(eq_check_device));
    EQ_CHECK_OK(eq_ref_read(eq_ref_at(image->buffer, 0), result, image->words, 4));
}

static void run_twice(struct eq_check_call *test, struct image *image)
{
    struct eq_call *call = &test->shaped;
    struct eq_ref in[EQ_MAX_OPERANDS], out[EQ_MAX_OPERANDS];
    EQ_CHECK_OK(eq_buffer_create(eq_check_device, image->words * 4, &image->buffer));
    EQ_CHECK_OK(eq_list_create(eq_check_device, &image->list));
    for (int i = 0; i < call->num_inputs; i++)
        in[i] = call->has[i] ? eq_ref_at(image->buffer, image->in[i]) : EQ_REF_NONE;
    for (int o = 0; o < call->num_outputs; o++)
        out[o] = eq_ref_at(image->buffer, image->out[o]);
    EQ_CHECK(test->op->emit(image->list, call, in, out) == EQ_OK, "%s", eq_last_error());
    run_once(image, image->after);
    run_once(image, image->again);
}

// Words [from, to) must be as they were.
static void check_untouched(const struct image *image, size_t from, size_t to, const char *what, int operand)
{
    for (size_t k = from; k < to; k++)
        EQ_CHECK(image->after[k] == image->before[k], "%s %d was written, element %zu of %zu", what, operand, k - from,
                 to - from);
}

static void check_inputs(const struct eq_check_call *test, const struct image *image)
{
    const struct eq_call *call = &test->shaped;
    check_untouched(image, 0, CANARY_WORDS, "the canary before input", 0);
    for (int i = 0; i < call->num_inputs; i++) {
        if (!call->has[i])
            continue;
        const size_t end = image->in[i] + eq_tensor_elems(&call->input[i]);
        if (!image->is_written[i])
            check_untouched(image, image->in[i], end, "input", i);
        check_untouched(image, end, end + CANARY_WORDS, "the canary after input", i);
    }
}

// Packing the values again must give what is stored: halo and padding channels are zero. In integer outputs (places of maxima)
// they mean nothing.
static void check_stored(const struct eq_check_call *test, struct image *image, int o)
{
    const struct eq_tensor *tensor = &test->shaped.output[o];
    const size_t elems = eq_tensor_elems(tensor);
    const uint32_t *stored = image->after + image->out[o];
    float *packed = eq_check_malloc(elems, sizeof *packed);
    image->packed = packed;
    eq_tensor_pack(tensor, test->output[o], packed);
    for (size_t k = 0; k < elems; k++) {
        uint32_t word;
        float value;
        memcpy(&word, &packed[k], 4);
        memcpy(&value, &stored[k], 4);
        EQ_CHECK(stored[k] != POISON, "output %d, stored element %zu of %zu was not written", o, k, elems);
        EQ_CHECK(tensor->dtype != EQ_F32 || stored[k] == word || (value == 0 && packed[k] == 0),
                 "output %d, stored element %zu of %zu is %g: halo and padding channels must be zero", o, k, elems,
                 (double)value);
    }
    free(packed);
    image->packed = NULL;
}

// What both runs left from word `at` on.
static void check_same_bits(const struct image *image, const char *what, int operand, size_t at, size_t elems)
{
    const uint32_t *first = image->after + at, *second = image->again + at;
    for (size_t k = 0; k < elems; k++) {
        float values[2];
        memcpy(&values[0], &first[k], 4);
        memcpy(&values[1], &second[k], 4);
        EQ_CHECK(first[k] == second[k], "%s %d: two runs give other bits: stored element %zu of %zu is %.9g, then %.9g", what,
                 operand, k, elems, (double)values[0], (double)values[1]);
    }
}

static void check_outputs(struct eq_check_call *test, struct image *image)
{
    const struct eq_call *call = &test->shaped;
    for (int o = 0; o < call->num_outputs; o++) {
        const size_t elems = eq_tensor_elems(&call->output[o]), end = image->out[o] + elems;
        check_untouched(image, end, end + CANARY_WORDS, "the canary after output", o);
        if (test->is_workspace[o])
            continue;
        EQ_CHECK_INT(eq_dtype_bytes(call->output[o].dtype), 4);
        test->output[o] = eq_check_malloc(eq_tensor_logical(&call->output[o]), 4);
        eq_tensor_unpack(&call->output[o], (const float *)(image->after + image->out[o]), test->output[o]);
        check_stored(test, image, o);
        check_same_bits(image, "output", o, image->out[o], elems);
    }
}

static void fetch_states(struct eq_check_call *test, const struct image *image)
{
    for (int i = 0; i < test->num_inputs; i++) {
        if (!test->input[i].is_state || !test->shaped.has[i])
            continue;
        check_same_bits(image, "input", i, image->in[i], eq_tensor_elems(&test->shaped.input[i]));
        test->after[i] = eq_check_malloc(eq_tensor_logical(&test->shaped.input[i]), 4);
        eq_tensor_unpack(&test->shaped.input[i], (const float *)(image->after + image->in[i]), test->after[i]);
    }
}

void eq_check_call_free(struct eq_check_call *test)
{
    for (int k = 0; k < EQ_MAX_OPERANDS; k++) {
        free(test->output[k]);
        free(test->after[k]);
        test->output[k] = test->after[k] = NULL;
    }
}

struct call_run {
    struct eq_check_call *test;
    struct image image;
};

static void run_and_check(void *user)
{
    struct call_run *run = user;
    EQ_CHECK_TRUE(run->test->num_inputs <= EQ_MAX_OPERANDS);
    shape_call(run->test, &run->image);
    place(run->test, &run->image);
    fill(run->test, &run->image);
    run_twice(run->test, &run->image);
    check_inputs(run->test, &run->image);
    check_outputs(run->test, &run->image);
    fetch_states(run->test, &run->image);
}

void eq_check_call_run(struct eq_check_call *test)
{
    struct call_run run = { .test = test };
    eq_check_begin(test->op->name, test->name);
    eq_check_device->target.stream_bytes = test->is_aligned ? 0 : SIZE_MAX;
    const bool is_done = eq_check_guard(run_and_check, &run);
    eq_list_destroy(&run.image.list);
    eq_buffer_destroy(&run.image.buffer);
    free(run.image.before);
    free(run.image.after);
    free(run.image.again);
    free(run.image.packed);
    if (is_done)
        return;
    eq_check_call_free(test);
    eq_check_leave();
}

void eq_check_call_refused(struct eq_check_call *test, eq_status status, const char *part)
{
    eq_check_begin(test->op->name, test->name);
    struct eq_call call = call_of(test);
    const eq_status got = test->op->shape(&call);
    EQ_CHECK(got == status, "shape() gives %s, not %s: %s", eq_status_name(got), eq_status_name(status),
             got == EQ_OK ? "" : eq_last_error());
    EQ_CHECK(strstr(eq_last_error(), part), "no \"%s\" in \"%s\"", part, eq_last_error());
}

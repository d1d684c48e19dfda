// Shared harness of the op tests: see support.h.
//
// Every operand of a call lies in one image of 32-bit words: canary, operand, canary, operand, ... The image goes to the
// device, the call runs, the image comes back; whatever should not have changed is compared word by word. Canaries are NaNs, so
// that a read outside of an operand shows in the results, and outputs start as another NaN, so that an element that was not
// written shows by name.
#include "support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CANARY_WORDS = 67, NUM_BLOCKS = 3 }; // odd: nothing is aligned to more than a word, unless the call says so
static const uint32_t CANARY = 0x7fc0beefu, POISON = 0x7fd15ea5u;

struct eq_device *eq_test_device;
static struct eq_target opened_target;

// ---- programs and device

static void restore_target(void)
{
    eq_test_device->target = opened_target;
}

static int bail_out(void)
{
    printf("Bail out! %s\n", eq_last_error());
    return EXIT_FAILURE;
}

int eq_test_main(const char *suite_name, const struct eq_test_entry *entries, size_t num)
{
    if (eq_device_open(NULL, &eq_test_device) != EQ_OK)
        return bail_out();
    opened_target = eq_test_device->target;
    Suite *suite = suite_create(suite_name);
    TCase *tests = tcase_create(suite_name);
    tcase_set_timeout(tests, 0);
    tcase_add_checked_fixture(tests, restore_target, NULL);
    for (size_t i = 0; i < num; i++)
        tcase_add_loop_test(tests, entries[i].test, 0, entries[i].num_cases ? entries[i].num_cases : 1);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK); // a context does not survive fork()
    srunner_set_tap(runner, "-");
    srunner_run_all(runner, CK_SILENT);
    const int num_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    restore_target();
    eq_device_destroy(&eq_test_device);
    return num_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

bool eq_test_is_tiny(void)
{
    return getenv("EQUIL_TEST_TINY") != NULL;
}

bool eq_test_is_pocl(void)
{
    return strstr(eq_test_device->platform_name, "Portable Computing Language") != NULL;
}

int eq_test_num_variants(bool is_small)
{
    return is_small && !eq_test_is_tiny() ? 2 * NUM_BLOCKS : 2;
}

void eq_test_variant(int variant)
{
    static const int blocks[NUM_BLOCKS] = { 16, 8, 4 };
    eq_test_device->target = opened_target;
    eq_test_device->target.family = variant % 2 ? EQ_FAMILY_SIMT : EQ_FAMILY_VECTOR;
    eq_test_device->target.block = blocks[variant / 2];
}

const char *eq_test_variant_name(void)
{
    static char text[32];
    snprintf(text, sizeof text, "%s, block %d", eq_test_device->target.family == EQ_FAMILY_SIMT ? "simt" : "vector",
             eq_test_device->target.block);
    return text;
}

// ---- values

float *eq_test_values(const char *name, size_t n, double mean, double spread)
{
    const uint64_t key = eq_fnv1a(name, strlen(name), EQ_FNV_START);
    float *values = eq_malloc(n, sizeof *values);
    ck_assert_ptr_nonnull(values);
    for (size_t i = 0; i < n; i++)
        values[i] = (float)(mean + spread * (2 * eq_random_unit(key, i) - 1));
    return values;
}

float *eq_test_uniform(const char *name, size_t n, uint64_t seed)
{
    const uint64_t key = eq_fnv1a(name, strlen(name), EQ_FNV_START) + seed;
    float *values = eq_malloc(n, sizeof *values);
    ck_assert_ptr_nonnull(values);
    for (size_t i = 0; i < n; i++)
        values[i] = (float)(2 * eq_random_unit(key, i) - 1);
    return values;
}

// ---- calls

// The image of a call and where its operands lie in it, in words.
struct image {
    uint32_t *before, *after, *again;
    size_t words, in[EQ_MAX_OPERANDS], out[EQ_MAX_OPERANDS];
    int shared[EQ_MAX_OPERANDS];      // input whose memory output o has, or -1
    bool is_written[EQ_MAX_OPERANDS]; // input i
};

static void *checked_malloc(size_t count, size_t size)
{
    void *memory = eq_malloc(count ? count : 1, size);
    ck_assert_ptr_nonnull(memory);
    return memory;
}

static struct eq_call call_of(const struct eq_test_call *test)
{
    struct eq_call call = { .op = test->op,
                            .attributes = test->attributes,
                            .target = &eq_test_device->target,
                            .training = test->training,
                            .num_inputs = test->num_inputs };
    for (int i = 0; i < test->num_inputs; i++) {
        call.has[i] = test->input[i].plain != NULL;
        if (call.has[i])
            call.input[i] = test->input[i].tensor;
    }
    return call;
}

static int shared_input(const struct eq_test_call *test, int output)
{
    const int i = test->in_place && test->op->in_place ? test->op->in_place(&test->shaped, output) : -1;
    return i >= 0 && test->shaped.has[i] ? i : -1;
}

static void shape_call(struct eq_test_call *test, struct image *image)
{
    test->shaped = call_of(test);
    struct eq_call *call = &test->shaped;
    ck_assert_msg(test->op->shape(call) == EQ_OK, "%s, %s (%s): %s", test->op->name, test->name, eq_test_variant_name(),
                  eq_last_error());
    for (int i = 0; i < call->num_inputs; i++) {
        if (!call->has[i])
            continue;
        ck_assert_uint_eq(eq_dtype_bytes(call->input[i].dtype), 4);
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
        ck_assert_uint_eq(eq_tensor_elems(in), eq_tensor_elems(out));
        image->is_written[image->shared[o]] = true;
    }
}

static void place(struct eq_test_call *test, struct image *image)
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

static void fill(struct eq_test_call *test, struct image *image)
{
    const struct eq_call *call = &test->shaped;
    image->before = checked_malloc(image->words, sizeof(uint32_t));
    image->after = checked_malloc(image->words, sizeof(uint32_t));
    image->again = checked_malloc(image->words, sizeof(uint32_t));
    for (size_t k = 0; k < image->words; k++)
        image->before[k] = CANARY;
    for (int i = 0; i < call->num_inputs; i++)
        if (call->has[i])
            eq_tensor_pack(&call->input[i], test->input[i].plain, (float *)(image->before + image->in[i]));
    for (int o = 0; o < call->num_outputs; o++)
        for (size_t k = 0; image->shared[o] < 0 && k < eq_tensor_elems(&call->output[o]); k++)
            image->before[image->out[o] + k] = POISON;
}

static void run_once(struct eq_test_call *test, const struct image *image, struct eq_list *list, struct eq_buffer *buffer,
                     uint32_t *result)
{
    const char *name = test->name;
    ck_assert_msg(eq_ref_write(eq_ref_at(buffer, 0), image->before, image->words, 4) == EQ_OK, "%s: %s", name, eq_last_error());
    ck_assert_msg(eq_list_run(list) == EQ_OK && eq_device_finish(eq_test_device) == EQ_OK, "%s: %s", name, eq_last_error());
    ck_assert_msg(eq_ref_read(eq_ref_at(buffer, 0), result, image->words, 4) == EQ_OK, "%s: %s", name, eq_last_error());
}

static void run_twice(struct eq_test_call *test, struct image *image)
{
    struct eq_call *call = &test->shaped;
    struct eq_buffer *buffer = NULL;
    struct eq_list *list = NULL;
    struct eq_ref in[EQ_MAX_OPERANDS], out[EQ_MAX_OPERANDS];
    EQ_TEST_OK(eq_buffer_create(eq_test_device, image->words * 4, &buffer));
    EQ_TEST_OK(eq_list_create(eq_test_device, &list));
    for (int i = 0; i < call->num_inputs; i++)
        in[i] = call->has[i] ? eq_ref_at(buffer, image->in[i]) : EQ_REF_NONE;
    for (int o = 0; o < call->num_outputs; o++)
        out[o] = eq_ref_at(buffer, image->out[o]);
    ck_assert_msg(test->op->emit(list, call, in, out) == EQ_OK, "%s, %s (%s): %s", test->op->name, test->name,
                  eq_test_variant_name(), eq_last_error());
    run_once(test, image, list, buffer, image->after);
    run_once(test, image, list, buffer, image->again);
    eq_list_destroy(&list);
    eq_buffer_destroy(&buffer);
}

// Words [from, to) must be as they were.
static void check_untouched(const struct eq_test_call *test, const struct image *image, size_t from, size_t to,
                            const char *what, int operand)
{
    for (size_t k = from; k < to; k++)
        ck_assert_msg(image->after[k] == image->before[k], "%s, %s (%s): %s %d was written, element %zu of %zu", test->op->name,
                      test->name, eq_test_variant_name(), what, operand, k - from, to - from);
}

static void check_inputs(const struct eq_test_call *test, const struct image *image)
{
    const struct eq_call *call = &test->shaped;
    check_untouched(test, image, 0, CANARY_WORDS, "the canary before input", 0);
    for (int i = 0; i < call->num_inputs; i++) {
        if (!call->has[i])
            continue;
        const size_t end = image->in[i] + eq_tensor_elems(&call->input[i]);
        if (!image->is_written[i])
            check_untouched(test, image, image->in[i], end, "input", i);
        check_untouched(test, image, end, end + CANARY_WORDS, "the canary after input", i);
    }
}

// Packing the values again must give what is stored: halo and padding channels are zero. In integer outputs (places of maxima)
// they mean nothing.
static void check_stored(const struct eq_test_call *test, const struct image *image, int o)
{
    const struct eq_tensor *tensor = &test->shaped.output[o];
    const size_t elems = eq_tensor_elems(tensor);
    const uint32_t *stored = image->after + image->out[o];
    float *packed = checked_malloc(elems, sizeof *packed);
    eq_tensor_pack(tensor, test->output[o], packed);
    for (size_t k = 0; k < elems; k++) {
        uint32_t word;
        float value;
        memcpy(&word, &packed[k], 4);
        memcpy(&value, &stored[k], 4);
        ck_assert_msg(stored[k] != POISON, "%s, %s (%s): output %d, stored element %zu of %zu was not written", test->op->name,
                      test->name, eq_test_variant_name(), o, k, elems);
        ck_assert_msg(tensor->dtype != EQ_F32 || stored[k] == word || (value == 0 && packed[k] == 0),
                      "%s, %s (%s): output %d, stored element %zu of %zu is %g: halo and padding channels must be zero",
                      test->op->name, test->name, eq_test_variant_name(), o, k, elems, (double)value);
    }
    free(packed);
}

static void check_outputs(struct eq_test_call *test, const struct image *image)
{
    const struct eq_call *call = &test->shaped;
    for (int o = 0; o < call->num_outputs; o++) {
        const size_t elems = eq_tensor_elems(&call->output[o]), end = image->out[o] + elems;
        check_untouched(test, image, end, end + CANARY_WORDS, "the canary after output", o);
        if (test->is_workspace[o])
            continue;
        ck_assert_uint_eq(eq_dtype_bytes(call->output[o].dtype), 4);
        test->output[o] = checked_malloc(eq_tensor_logical(&call->output[o]), 4);
        eq_tensor_unpack(&call->output[o], (const float *)(image->after + image->out[o]), test->output[o]);
        check_stored(test, image, o);
        ck_assert_msg(memcmp(image->after + image->out[o], image->again + image->out[o], elems * 4) == 0,
                      "%s, %s (%s): output %d: two runs give other bits", test->op->name, test->name, eq_test_variant_name(),
                      o);
    }
}

static void fetch_states(struct eq_test_call *test, const struct image *image)
{
    for (int i = 0; i < test->num_inputs; i++) {
        if (!test->input[i].is_state || !test->shaped.has[i])
            continue;
        test->after[i] = checked_malloc(eq_tensor_logical(&test->shaped.input[i]), 4);
        eq_tensor_unpack(&test->shaped.input[i], (const float *)(image->after + image->in[i]), test->after[i]);
    }
}

void eq_test_call_run(struct eq_test_call *test)
{
    struct image image = { .words = 0 };
    ck_assert_int_le(test->num_inputs, EQ_MAX_OPERANDS);
    eq_test_device->target.stream_bytes = test->is_aligned ? 0 : SIZE_MAX;
    shape_call(test, &image);
    place(test, &image);
    fill(test, &image);
    run_twice(test, &image);
    check_inputs(test, &image);
    check_outputs(test, &image);
    fetch_states(test, &image);
    free(image.before);
    free(image.after);
    free(image.again);
}

void eq_test_call_free(struct eq_test_call *test)
{
    for (int k = 0; k < EQ_MAX_OPERANDS; k++) {
        free(test->output[k]);
        free(test->after[k]);
        test->output[k] = test->after[k] = NULL;
    }
}

void eq_test_call_refused(struct eq_test_call *test, eq_status status, const char *part)
{
    struct eq_call call = call_of(test);
    const eq_status got = test->op->shape(&call);
    ck_assert_msg(got == status, "%s, %s: shape() gives %s, not %s: %s", test->op->name, test->name, eq_status_name(got),
                  eq_status_name(status), got == EQ_OK ? "" : eq_last_error());
    ck_assert_msg(strstr(eq_last_error(), part), "%s, %s: no \"%s\" in \"%s\"", test->op->name, test->name, part,
                  eq_last_error());
}

// ---- comparing

static double largest(const double *values, size_t n)
{
    double max = 0;
    for (size_t i = 0; i < n; i++)
        max = fmax(max, fabs(values[i]));
    return max;
}

double eq_test_error(const float *got, const double *want, size_t n)
{
    const double max = largest(want, n);
    double error = 0;
    for (size_t i = 0; i < n; i++) {
        const double e = fabs(got[i] - want[i]);
        if (!(e <= error)) // so that a NaN counts
            error = isnan(e) ? INFINITY : e;
    }
    return error == 0 ? 0 : error / max;
}

void eq_test_values_close(const char *op, const char *name, const struct eq_tensor *t, const float *got, const double *want,
                          const double *tolerance, double relative)
{
    const size_t elems = eq_tensor_logical(t), w = (size_t)t->w, h = (size_t)t->h, c = (size_t)t->c;
    const double common = relative * largest(want, elems);
    for (size_t i = 0; i < elems; i++) {
        const double allowed = tolerance ? tolerance[i] : common, error = fabs(got[i] - want[i]);
        const bool is_same = (isnan(got[i]) && isnan(want[i])) || got[i] == want[i];
        ck_assert_msg(is_same || error <= allowed,
                      "%s, %s (%s): [%zu, %zu, %zu, %zu] is %.9g, not %.9g: error / tolerance %.3g", op, name,
                      eq_test_variant_name(), i / w / h / c, i / w / h % c, i / w % h, i % w, (double)got[i], want[i],
                      error / allowed);
    }
}

void eq_test_close(const struct eq_test_call *test, int output, const double *want, const double *tolerance, double relative)
{
    eq_test_values_close(test->op->name, test->name, &test->shaped.output[output], test->output[output], want, tolerance,
                         relative);
}

void eq_test_gradient(const char *name, double (*f)(const double *x, void *user), void *user, double *x, const double *grad,
                      size_t n, double step, double relative)
{
    const double allowed = relative * fmax(largest(grad, n), step);
    for (size_t i = 0; i < n; i++) {
        const double x0 = x[i];
        x[i] = x0 + step;
        const double above = f(x, user);
        x[i] = x0 - step;
        const double below = f(x, user);
        x[i] = x0;
        const double difference = (above - below) / (2 * step);
        ck_assert_msg(fabs(difference - grad[i]) <= allowed,
                      "%s: derivative %zu is %.12g by differences, %.12g by the reference", name, i, difference, grad[i]);
    }
}

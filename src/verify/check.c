// Running suites, and what their cases say: see verify.h and check.h.
//
// A case that cannot go on jumps back to where it was called, past whatever it had allocated: that is lost until the process
// ends, which it does soon after. The alternative, a status from every helper and a clean-up in every case, would hide the
// references, which are what one should be able to read here.
#include "verify/check.h"

#include <assert.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { NUM_VARIANTS = 4 };

struct eq_device *eq_check_device;

static struct eq_target opened_target;
static struct eq_check_params params;
static struct eq_check_event here; // op, case and kernels of what runs now
static jmp_buf *way_out;
static int num_failures;

// ---- events

static void tell(struct eq_check_event *event, enum eq_check_event_kind kind)
{
    event->kind = kind;
    num_failures += kind == EQ_CHECK_FAILED;
    if (params.sink)
        params.sink(params.user, event);
}

static void name_kernels(const char *text)
{
    const struct eq_target *target = &eq_check_device->target;
    snprintf(here.kernels, sizeof here.kernels, "%s%s%s", target->family == EQ_FAMILY_SIMT ? "simt" : "vector",
             text ? ", " : "", text ? text : "");
    here.block = target->block;
}

void eq_check_kernels(const char *text)
{
    name_kernels(text);
}

const char *eq_check_variant_name(void)
{
    static char text[80];
    snprintf(text, sizeof text, "%s, block %d", here.kernels, here.block);
    return text;
}

void eq_check_begin(const char *op, const char *name)
{
    snprintf(here.op, sizeof here.op, "%s", op);
    snprintf(here.name, sizeof here.name, "%s", name);
    struct eq_check_event event = here;
    tell(&event, EQ_CHECK_BEGINS);
}

_Noreturn void eq_check_leave(void)
{
    assert(way_out);
    longjmp(*way_out, 1);
}

_Noreturn void eq_check_fail(const char *format, ...)
{
    struct eq_check_event event = here;
    va_list args;
    va_start(args, format);
    vsnprintf(event.text, sizeof event.text, format, args);
    va_end(args);
    tell(&event, EQ_CHECK_FAILED);
    eq_check_leave();
}

void eq_check_int(const char *what, long long got, long long want)
{
    EQ_CHECK(got == want, "%s is %lld, not %lld", what, got, want);
}

void *eq_check_malloc(size_t count, size_t size)
{
    void *memory = eq_malloc(count ? count : 1, size);
    EQ_CHECK(memory != NULL, "no memory for %zu elements of %zu bytes", count, size);
    return memory;
}

void *eq_check_calloc(size_t count, size_t size)
{
    void *memory = eq_check_malloc(count, size);
    return memset(memory, 0, (count ? count : 1) * size);
}

// ---- running

bool eq_check_guard(void (*run)(void *user), void *user)
{
    jmp_buf *const outer = way_out;
    jmp_buf mine;
    way_out = &mine;
    const bool is_first = setjmp(mine) == 0;
    if (is_first)
        run(user);
    way_out = outer;
    return is_first;
}

static void restore_target(void)
{
    eq_check_device->target = opened_target;
    name_kernels(NULL);
}

void eq_check_use(struct eq_device *device, const struct eq_check_params *given)
{
    eq_check_device = device;
    opened_target = device->target;
    opened_target.precision = EQ_FP32; // others have cases of their own
    params = *given;
    here = (struct eq_check_event){ .block = 0 };
    name_kernels(NULL);
}

int eq_check_block(void)
{
    return opened_target.block;
}

struct entry_run {
    const struct eq_check_entry *entry;
    int index;
};

static void run_entry(void *user)
{
    const struct entry_run *run = user;
    run->entry->run(run->index);
}

int eq_check_run_entry(const struct eq_check_entry *entry, int index)
{
    struct entry_run run = { entry, index };
    const int before = num_failures;
    restore_target();
    snprintf(here.name, sizeof here.name, "%s", entry->name);
    eq_check_guard(run_entry, &run);
    restore_target();
    return num_failures - before;
}

int eq_check_run(const struct eq_check_suite *suite)
{
    int failures = 0;
    snprintf(here.op, sizeof here.op, "%s", suite->name);
    for (size_t e = 0; e < suite->num; e++)
        for (int i = 0; i < (suite->entries[e].num ? suite->entries[e].num : 1); i++)
            failures += eq_check_run_entry(&suite->entries[e], i);
    return failures;
}

// ---- variants

bool eq_check_is_tiny(void)
{
    return params.level == EQ_CHECK_TINY;
}

bool eq_check_is_quick(void)
{
    return params.level == EQ_CHECK_QUICK;
}

bool eq_check_is_small(void)
{
    return params.level != EQ_CHECK_FULL;
}

bool eq_check_is_patient(void)
{
    return params.is_patient;
}

// Vectors of 8 and 4 floats are those of processors: the kernels for GPUs have blocks of 16 alone.
static const struct {
    enum eq_family family;
    int block;
} variants[NUM_VARIANTS] = {
    { EQ_FAMILY_VECTOR, 16 }, { EQ_FAMILY_SIMT, 16 }, { EQ_FAMILY_VECTOR, 8 }, { EQ_FAMILY_VECTOR, 4 }
};

bool eq_check_is_own_family(void)
{
    return eq_check_device->target.family == opened_target.family;
}

int eq_check_turn(void)
{
    const struct eq_target *target = &eq_check_device->target;
    int turn = 0;
    while (turn < NUM_VARIANTS && (variants[turn].family != target->family || variants[turn].block != target->block))
        turn++;
    return turn;
}

void eq_check_variant(int variant)
{
    eq_check_device->target = opened_target;
    eq_check_device->target.family = variants[variant].family;
    eq_check_device->target.block = variants[variant].block;
    name_kernels(NULL);
}

void eq_check_apart(void (*body)(void *user), void *user)
{
    restore_target();
    eq_check_guard(body, user);
}

void eq_check_each_variant(bool is_small, void (*body)(void *user), void *user)
{
    if (params.level == EQ_CHECK_QUICK) {
        eq_check_apart(body, user);
        return;
    }
    const bool is_full = params.level == EQ_CHECK_FULL;
    const int first = is_full && !params.is_patient && !is_small ? 1 : 0,
              end = is_full && params.is_patient && is_small ? NUM_VARIANTS : 2;
    for (int v = first; v < end; v++) {
        eq_check_variant(v);
        eq_check_guard(body, user);
    }
}

// ---- values

float *eq_check_values(const char *name, size_t n, double mean, double spread)
{
    const uint64_t key = eq_fnv1a(name, strlen(name), EQ_FNV_START);
    float *values = eq_check_malloc(n, sizeof *values);
    for (size_t i = 0; i < n; i++)
        values[i] = (float)(mean + spread * (2 * eq_random_unit(key, i) - 1));
    return values;
}

float *eq_check_uniform(const char *name, size_t n, uint64_t seed)
{
    const uint64_t key = eq_fnv1a(name, strlen(name), EQ_FNV_START) + seed;
    float *values = eq_check_malloc(n, sizeof *values);
    for (size_t i = 0; i < n; i++)
        values[i] = (float)(2 * eq_random_unit(key, i) - 1);
    return values;
}

// ---- comparing

void eq_check_compare(struct eq_check_comparison *c, const int index[4], double got, double want, double tolerance)
{
    const bool is_same = (isnan(got) && isnan(want)) || got == want;
    double error = is_same ? 0 : fabs(got - want);
    error = isnan(error) ? INFINITY : error;
    const double ratio = error == 0 ? 0 : error / tolerance;
    c->num++;
    c->num_wrong += !(error <= tolerance);
    c->largest = isfinite(want) ? fmax(c->largest, fabs(want)) : c->largest;
    c->error = fmax(c->error, error);
    if (c->num > 1 && !(ratio > c->ratio))
        return;
    c->ratio = ratio;
    memcpy(c->index, index, sizeof c->index);
    c->got = got;
    c->want = want;
    c->tolerance = tolerance;
}

void eq_check_compare_at(struct eq_check_comparison *c, size_t index, double got, double want, double tolerance)
{
    eq_check_compare(c, (const int[4]){ 0, 0, 0, (int)index }, got, want, tolerance);
}

static void describe(struct eq_check_event *event)
{
    snprintf(event->text, sizeof event->text,
             "%s: [%d, %d, %d, %d] is %.9g, not %.9g: error %.3g, allowed are %.3g; %zu of %zu are wrong", event->what,
             event->index[0], event->index[1], event->index[2], event->index[3], event->got, event->want,
             fabs(event->got - event->want), event->tolerance, event->num_wrong, event->num);
}

void eq_check_compared(const struct eq_check_comparison *c, const char *what)
{
    struct eq_check_event event = here;
    snprintf(event.what, sizeof event.what, "%s", what);
    event.error = c->error == 0 ? 0 : c->error / c->largest;
    event.ratio = c->ratio;
    event.num = c->num;
    event.num_wrong = c->num_wrong;
    memcpy(event.index, c->index, sizeof event.index);
    event.got = c->got;
    event.want = c->want;
    event.tolerance = c->tolerance;
    tell(&event, EQ_CHECK_COMPARED);
    if (c->num_wrong == 0)
        return;
    describe(&event);
    tell(&event, EQ_CHECK_FAILED);
}

// `event` has the worst element, or has none.
static void tell_bound(struct eq_check_event *event, const char *what, double error, double tolerance)
{
    snprintf(event->what, sizeof event->what, "%s", what);
    event->is_bound = true;
    event->error = isnan(error) ? INFINITY : error;
    event->ratio = event->error / tolerance;
    event->num_wrong = !(error <= tolerance);
    event->tolerance = tolerance;
    tell(event, EQ_CHECK_COMPARED);
    if (event->num_wrong == 0)
        return;
    snprintf(event->text, sizeof event->text, "%s: relative error %.3g, allowed are %.3g", what, error, tolerance);
    if (event->has_element)
        snprintf(event->text + strlen(event->text), sizeof event->text - strlen(event->text),
                 "; the worst of %zu elements is %d: %.9g, not %.9g", event->num, event->index[3], event->got, event->want);
    tell(event, EQ_CHECK_FAILED);
}

void eq_check_bound(const char *what, double error, double tolerance)
{
    struct eq_check_event event = here;
    event.num = 1;
    tell_bound(&event, what, error, tolerance);
}

void eq_check_norm(const char *what, const float *got, const double *want, size_t n, double floor, double tolerance)
{
    struct eq_check_event event = here;
    double differences = 0, squares = 0, worst = -1;
    event.num = n;
    event.has_element = true;
    for (size_t i = 0; i < n; i++) {
        const double difference = fabs((double)got[i] - want[i]);
        differences += difference * difference;
        squares += want[i] * want[i];
        if (difference <= worst) // so that a NaN counts
            continue;
        worst = isnan(difference) ? INFINITY : difference;
        event.index[3] = (int)i;
        event.got = (double)got[i];
        event.want = want[i];
    }
    tell_bound(&event, what, sqrt(differences) / (sqrt(squares) + floor * sqrt((double)n)), tolerance);
}

void eq_check_same(const char *what, const float *first, const float *second, size_t n)
{
    for (size_t i = 0; i < n; i++)
        EQ_CHECK(memcmp(&first[i], &second[i], sizeof *first) == 0,
                 "%s: two runs give other bits: element %zu of %zu is %.9g, then %.9g", what, i, n, (double)first[i],
                 (double)second[i]);
}

// Of those that are finite.
static double largest(const double *values, size_t n)
{
    double max = 0;
    for (size_t i = 0; i < n; i++)
        max = isfinite(values[i]) ? fmax(max, fabs(values[i])) : max;
    return max;
}

double eq_check_error(const float *got, const double *want, size_t n)
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

void eq_check_values_close(const char *what, const struct eq_tensor *t, const float *got, const double *want,
                           const double *tolerance, double relative)
{
    const size_t elems = eq_tensor_logical(t), w = (size_t)t->w, h = (size_t)t->h, c = (size_t)t->c;
    const double common = relative * largest(want, elems);
    struct eq_check_comparison comparison = { .num = 0 };
    for (size_t i = 0; i < elems; i++) {
        const int index[4] = { (int)(i / w / h / c), (int)(i / w / h % c), (int)(i / w % h), (int)(i % w) };
        eq_check_compare(&comparison, index, (double)got[i], want[i], tolerance ? tolerance[i] : common);
    }
    eq_check_compared(&comparison, what);
}

void eq_check_close(const struct eq_check_call *call, int output, const double *want, const double *tolerance, double relative)
{
    char what[32];
    snprintf(what, sizeof what, "output %d", output);
    eq_check_values_close(what, &call->shaped.output[output], call->output[output], want, tolerance, relative);
}

void eq_check_gradient(const char *name, double (*f)(const double *x, void *user), void *user, double *x, const double *grad,
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
        EQ_CHECK(fabs(difference - grad[i]) <= allowed, "%s: derivative %zu is %.12g by differences, %.12g by the reference",
                 name, i, difference, grad[i]);
    }
}

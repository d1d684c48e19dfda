// Measures a network: verify, warm up, time whole batches, then every step alone.
#include "equil/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/build.h"
#include "train/build_options.h"
#include "train/network.h"
#include "train/sample.h"

enum { PROFILE_RUNS = 7 };

struct session {
    struct eq_network *network;
    struct eq_compiled *compiled;
    struct eq_list *update; // training: the SGD step
    struct eq_buffer *hyper;
    struct eq_weights_task *draw; // until the programs are built
    bool training;
};

static void session_close(struct session *s)
{
    eq_weights_task_cancel(&s->draw);
    eq_list_destroy(&s->update);
    eq_buffer_destroy(&s->hyper);
}

static eq_status set_scales(struct eq_network *network)
{
    const float one = 1;
    for (int i = 0; i < eq_weights_num(network->weights); i++) {
        struct eq_weights_tensor tensor = eq_weights_at(network->weights, i);
        if (eq_str_ends(tensor.name, "running_scale"))
            EQ_TRY(eq_weights_write(network->weights, tensor.name, &one));
    }
    return EQ_OK;
}

static eq_status write_inputs(struct session *s)
{
    const struct eq_compiled *c = s->compiled;
    size_t elems = (size_t)c->n * 3 * (size_t)c->h * (size_t)c->w;
    float *images = eq_malloc(elems, sizeof *images);
    int32_t *labels = eq_malloc((size_t)c->n, sizeof *labels);
    eq_status status = images && labels ? EQ_OK : EQ_ERR_HOST_MEMORY;
    uint64_t key = eq_random_key(0, 0, 0, "bench");
    for (size_t i = 0; status == EQ_OK && i < elems; i++)
        images[i] = (float)(3.4 * eq_random_unit(key, i) - 1.7);
    for (int i = 0; status == EQ_OK && i < c->n; i++)
        labels[i] = i * 7 % s->network->params.classes;
    if (status == EQ_OK)
        status = eq_exec_write(c->exec, c->model.images, images);
    if (status == EQ_OK && s->training)
        status = eq_exec_write(c->exec, c->model.labels, labels);
    free(images);
    free(labels);
    return status;
}

static eq_status session_open(struct session *s, int n, int size)
{
    EQ_TRY(eq_weights_draw_start(s->network->weights, 0, &s->draw));
    if (s->training) {
        const float hyper[4] = { 1e-4f, 0.9f, 1e-4f, 0 };
        EQ_TRY(eq_network_compile_gradients(s->network, n, size, size, 0.1f));
        EQ_TRY(eq_buffer_create(s->network->device, sizeof hyper, &s->hyper));
        EQ_TRY(eq_ref_write(eq_ref_at(s->hyper, 0), hyper, 4, sizeof *hyper));
        EQ_TRY(eq_list_create(s->network->device, &s->update));
        EQ_TRY(eq_store_emit_update(s->network->weights->store, s->update, eq_ref_at(s->hyper, 0), false));
    } else {
        EQ_TRY(eq_network_compile_infer(s->network, n, size, size));
    }
    s->compiled = s->training ? &s->network->gradients : &s->network->infer;
    EQ_TRY(eq_weights_task_finish(&s->draw));
    EQ_TRY(set_scales(s->network));
    return write_inputs(s);
}

static eq_status run_batches(void *user, int repeats)
{
    struct session *s = user;
    for (int r = 0; r < repeats; r++) {
        EQ_TRY(eq_exec_run(s->compiled->exec));
        if (s->update)
            EQ_TRY(eq_list_run(s->update));
        EQ_TRY(eq_device_finish(s->network->device));
    }
    return EQ_OK;
}

// Finite, and different from image to image: a network that computes nothing is fast.
static eq_status check_logits(const float *logits, size_t num, int n)
{
    for (size_t i = 0; i < num; i++)
        EQ_REQUIRE(isfinite(logits[i]), EQ_ERR_NUMERIC, "logit %zu of %zu is %g: the device computes wrongly", i, num,
                   (double)logits[i]);
    const size_t classes = num / (size_t)n;
    bool differs = false;
    for (size_t i = n > 1 ? classes : 1; i < num && !differs; i++)
        differs = logits[i] != logits[n > 1 ? i - classes : 0];
    EQ_REQUIRE(differs, EQ_ERR_NUMERIC, "all %zu logits of %d images are %g: the device computes wrongly", num, n,
               (double)logits[0]);
    return EQ_OK;
}

// The same weights must give the same logits twice.
static eq_status verify(struct session *s, int64_t start, double *first_seconds)
{
    size_t num = (size_t)s->compiled->n * (size_t)s->network->params.classes;
    float *logits[2] = { eq_malloc(num, sizeof(float)), eq_malloc(num, sizeof(float)) };
    eq_status status = logits[0] && logits[1] ? EQ_OK : EQ_ERR_HOST_MEMORY;
    for (int i = 0; i < 2 && status == EQ_OK; i++) {
        status = eq_exec_run(s->compiled->exec);
        if (status == EQ_OK)
            status = eq_exec_read(s->compiled->exec, s->compiled->model.logits, logits[i]);
        if (i == 0)
            *first_seconds = (double)(eq_clock_ns() - start) * 1e-9;
    }
    if (status == EQ_OK)
        status = check_logits(logits[0], num, s->compiled->n);
    if (status == EQ_OK && memcmp(logits[0], logits[1], num * sizeof(float)) != 0)
        status = eq_fail(EQ_ERR_NUMERIC, "two runs on the same input differ: the device computes wrongly");
    free(logits[0]);
    free(logits[1]);
    return status;
}

// The row that a step's time belongs to: itself, or what it repeats for other images, the last before it of its kernel.
static int row_of(const struct eq_profile_row *rows, int step)
{
    for (int i = step - 1; i >= 0 && rows[step].is_repeat; i--)
        if (!rows[i].is_repeat && strcmp(rows[i].kernel, rows[step].kernel) == 0 &&
            strcmp(rows[i].label, rows[step].label) == 0)
            return i;
    return step;
}

// One run of a list, step by step, into column `run` of times[num][PROFILE_RUNS]; returns the sum in *total.
static eq_status profile_run(struct eq_list *list, int run, struct eq_profile_row *rows, double *times, double *total)
{
    EQ_TRY(eq_list_profile(list, rows));
    for (int i = 0; i < eq_list_length(list); i++) {
        times[row_of(rows, i) * PROFILE_RUNS + run] += (double)rows[i].time_ns * 1e-9;
        *total += (double)rows[i].time_ns * 1e-9;
    }
    return EQ_OK;
}

static void add_repeats(int num, struct eq_profile_row *rows)
{
    for (int i = 0; i < num; i++) {
        const int row = row_of(rows, i);
        if (row == i)
            continue;
        rows[row].cost.flops += rows[i].cost.flops;
        rows[row].cost.bytes += rows[i].cost.bytes;
    }
}

static void keep_rows(int num, struct eq_profile_row *rows, double *times, struct eq_bench_result *result)
{
    add_repeats(num, rows);
    for (int i = 0; i < num; i++) {
        if (row_of(rows, i) != i)
            continue;
        struct eq_bench_time time;
        eq_bench_summarise(times + i * PROFILE_RUNS, PROFILE_RUNS, &time);
        struct eq_bench_row *row = &result->rows[result->num_rows++];
        snprintf(row->label, sizeof row->label, "%.63s", rows[i].label);
        snprintf(row->kernel, sizeof row->kernel, "%.47s", rows[i].kernel);
        row->seconds = time.median;
        row->low = time.low;
        row->high = time.high;
        row->flops = rows[i].cost.flops;
        row->bytes = rows[i].cost.bytes;
    }
}

// The step's lists in turn, PROFILE_RUNS times over: their order is that of a batch.
static eq_status profile(struct session *s, struct eq_bench_result *result)
{
    struct eq_list *lists[] = { eq_exec_list(s->compiled->exec), s->update };
    const int nums[] = { eq_list_length(lists[0]), s->update ? eq_list_length(s->update) : 0 }, num = nums[0] + nums[1];
    struct eq_profile_row *rows = eq_calloc((size_t)num, sizeof *rows);
    double *times = eq_calloc((size_t)num * PROFILE_RUNS, sizeof *times), totals[PROFILE_RUNS] = { 0 };
    result->rows = eq_calloc((size_t)num, sizeof *result->rows);
    eq_status status = rows && times && result->rows ? EQ_OK : EQ_ERR_HOST_MEMORY;
    for (int r = 0; r < PROFILE_RUNS; r++)
        for (int l = 0; l < 2 && status == EQ_OK; l++)
            if (lists[l])
                status = profile_run(lists[l], r, rows + l * nums[0], times + l * nums[0] * PROFILE_RUNS, &totals[r]);
    if (status == EQ_OK) {
        keep_rows(num, rows, times, result);
        eq_bench_summarise(totals, PROFILE_RUNS, &result->device);
    }
    free(rows);
    free(times);
    return status;
}

static eq_status bench(struct session *s, const struct eq_bench_params *params, struct eq_bench_result *result)
{
    const double seconds = params->seconds > 0 ? params->seconds : 5;
    const double precision = params->precision > 0 ? params->precision : 0.005;
    int64_t start = eq_clock_ns();
    EQ_TRY(session_open(s, params->n, params->size));
    EQ_TRY(verify(s, start, &result->first_seconds));
    EQ_TRY(eq_bench_sample(run_batches, s, seconds, precision, &result->wall));
    result->peak_bytes_used = eq_device_peak_bytes(s->network->device); // before the peaks below take buffers of their own
    EQ_TRY(eq_bench_peaks(s->network->device, &result->peak_flops, &result->peak_bytes));
    EQ_TRY(profile(s, result));
    eq_exec_flops(s->compiled->exec, &result->flops, &result->conv_flops);
    return eq_bench_peaks(s->network->device, &result->peak_flops, &result->peak_bytes);
}

eq_status eq_network_bench(struct eq_network *network, const struct eq_bench_params *params, struct eq_bench_result *result)
{
    struct session session = { .network = network, .training = params->training };
    *result = (struct eq_bench_result){ 0 };
    eq_status status = bench(&session, params, result);
    session_close(&session);
    if (status != EQ_OK)
        eq_bench_result_free(result);
    return status;
}

void eq_bench_result_free(struct eq_bench_result *result)
{
    free(result->rows);
    *result = (struct eq_bench_result){ 0 };
}

static const char *compiler_text(void)
{
#if defined(__clang__)
    return "clang " __clang_version__;
#elif defined(__GNUC__)
    return "gcc " __VERSION__;
#else
    return "unknown";
#endif
}

void eq_bench_identify(const struct eq_device *device, struct eq_bench_identity *identity)
{
    static const char *const kinds[] = { [EQ_KIND_CPU] = "cpu", [EQ_KIND_GPU] = "gpu", [EQ_KIND_OTHER] = "other" };
    *identity = (struct eq_bench_identity){ .compute_units = device->target.compute_units,
                                            .memory_bytes = device->target.memory_bytes,
                                            .has_winograd = device->target.use_winograd };
    snprintf(identity->precision, sizeof identity->precision, "%s", eq_device_precision_text(device));
    snprintf(identity->device, sizeof identity->device, "%s", device->name);
    snprintf(identity->vendor, sizeof identity->vendor, "%s", device->vendor);
    snprintf(identity->platform, sizeof identity->platform, "%s", device->platform_name);
    snprintf(identity->driver, sizeof identity->driver, "%s", device->driver);
    snprintf(identity->kind, sizeof identity->kind, "%s", kinds[device->kind]);
    snprintf(identity->family, sizeof identity->family, "%s", device->target.family == EQ_FAMILY_VECTOR ? "vector" : "simt");
    snprintf(identity->version, sizeof identity->version, "%s", eq_version());
    snprintf(identity->commit, sizeof identity->commit, "%s", EQ_BUILD_COMMIT);
    snprintf(identity->compiler, sizeof identity->compiler, "%s", compiler_text());
    snprintf(identity->options, sizeof identity->options, "%s", EQ_BUILD_OPTIONS);
    snprintf(identity->tuning, sizeof identity->tuning, "%s", eq_device_tuning_text(device));
}

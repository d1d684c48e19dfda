// Measures a network: verify, warm up, time whole batches, then every step alone.
#include "equil/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/network.h"

enum { WARM_UP = 2, MIN_RUNS = 5, MAX_RUNS = 1000, PROFILE_RUNS = 3 };

struct session {
    struct eq_network *network;
    struct eq_compiled *compiled;
    struct eq_list *update; // training: the SGD step
    struct eq_buffer *hyper;
    bool training;
};

static void session_close(struct session *s)
{
    eq_list_destroy(&s->update);
    eq_buffer_destroy(&s->hyper);
}

static eq_status set_scales(struct eq_network *network)
{
    const float one = 1;
    for (int i = 0; i < eq_network_num_tensors(network); i++) {
        struct eq_network_tensor tensor = eq_network_tensor(network, i);
        if (eq_str_ends(tensor.name, "running_scale"))
            EQ_TRY(eq_network_write(network, tensor.name, &one));
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
    EQ_TRY(eq_network_initialise(s->network, 0));
    EQ_TRY(set_scales(s->network));
    if (s->training) {
        const float hyper[3] = { 1e-4f, 0.9f, 1e-4f };
        EQ_TRY(eq_network_compile_gradients(s->network, n, size, size, 0.1f));
        EQ_TRY(eq_buffer_create(s->network->device, sizeof hyper, &s->hyper));
        EQ_TRY(eq_ref_write(eq_ref_at(s->hyper, 0), hyper, 3, sizeof *hyper));
        EQ_TRY(eq_list_create(s->network->device, &s->update));
        EQ_TRY(eq_store_emit_update(s->network->store, s->update, eq_ref_at(s->hyper, 0), false));
    } else {
        EQ_TRY(eq_network_compile_infer(s->network, n, size, size));
    }
    s->compiled = s->training ? &s->network->gradients : &s->network->infer;
    return write_inputs(s);
}

static eq_status run_batch(struct session *s)
{
    EQ_TRY(eq_exec_run(s->compiled->exec));
    if (s->update)
        EQ_TRY(eq_list_run(s->update));
    return eq_device_finish(s->network->device);
}

// The same weights must give the same finite logits twice.
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
    for (size_t i = 0; status == EQ_OK && i < num; i++)
        if (!isfinite(logits[0][i]))
            status =
                eq_fail(EQ_ERR_NUMERIC, "logit %zu of %zu is %g: the device computes wrongly", i, num, (double)logits[0][i]);
    if (status == EQ_OK && memcmp(logits[0], logits[1], num * sizeof(float)) != 0)
        status = eq_fail(EQ_ERR_NUMERIC, "two runs on the same input differ: the device computes wrongly");
    free(logits[0]);
    free(logits[1]);
    return status;
}

static int by_time(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static eq_status time_batches(struct session *s, double seconds, struct eq_bench_result *result)
{
    int64_t *times = eq_malloc(MAX_RUNS, sizeof *times), start = 0;
    if (!times)
        return EQ_ERR_HOST_MEMORY;
    eq_status status = EQ_OK;
    for (int i = 0; i < WARM_UP && status == EQ_OK; i++)
        status = run_batch(s);
    start = eq_clock_ns();
    int num = 0;
    while (status == EQ_OK && num < MAX_RUNS && (num < MIN_RUNS || (double)(eq_clock_ns() - start) * 1e-9 < seconds)) {
        int64_t begin = eq_clock_ns();
        status = run_batch(s);
        times[num++] = eq_clock_ns() - begin;
    }
    if (status == EQ_OK) {
        qsort(times, (size_t)num, sizeof *times, by_time);
        result->num_runs = num;
        result->images_per_second = s->compiled->n / ((double)times[num / 2] * 1e-9);
        result->images_per_second_best = s->compiled->n / ((double)times[0] * 1e-9);
    }
    free(times);
    return status;
}

// Median time of each step over a few profiled runs.
static eq_status profile_list(struct eq_list *list, struct eq_bench_result *result)
{
    int num = eq_list_length(list);
    struct eq_profile_row *rows = eq_calloc((size_t)num * PROFILE_RUNS, sizeof *rows);
    if (!rows)
        return EQ_ERR_HOST_MEMORY;
    eq_status status = EQ_OK;
    for (int r = 0; r < PROFILE_RUNS && status == EQ_OK; r++)
        status = eq_list_profile(list, rows + (size_t)r * (size_t)num);
    for (int i = 0; i < num && status == EQ_OK; i++) {
        int64_t times[PROFILE_RUNS];
        for (int r = 0; r < PROFILE_RUNS; r++)
            times[r] = rows[(size_t)r * (size_t)num + (size_t)i].time_ns;
        qsort(times, PROFILE_RUNS, sizeof *times, by_time);
        struct eq_bench_row *row = &result->rows[result->num_rows++];
        snprintf(row->label, sizeof row->label, "%.63s", rows[i].label);
        snprintf(row->kernel, sizeof row->kernel, "%.47s", rows[i].kernel);
        row->seconds = (double)times[PROFILE_RUNS / 2] * 1e-9;
        row->flops = rows[i].cost.flops;
        row->bytes = rows[i].cost.bytes;
    }
    free(rows);
    return status;
}

static eq_status profile(struct session *s, struct eq_bench_result *result)
{
    struct eq_list *list = eq_exec_list(s->compiled->exec);
    EQ_ALLOC(result->rows, eq_list_length(list) + (s->update ? eq_list_length(s->update) : 0));
    EQ_TRY(profile_list(list, result));
    return s->update ? profile_list(s->update, result) : EQ_OK;
}

static eq_status bench(struct session *s, int n, int size, double seconds, struct eq_bench_result *result)
{
    int64_t start = eq_clock_ns();
    EQ_TRY(session_open(s, n, size));
    EQ_TRY(verify(s, start, &result->first_seconds));
    EQ_TRY(time_batches(s, seconds, result));
    result->peak_bytes_used = eq_device_peak_bytes(s->network->device); // before the peaks below take buffers of their own
    EQ_TRY(profile(s, result));
    eq_exec_flops(s->compiled->exec, &result->flops, &result->conv_flops);
    return eq_device_peak(s->network->device, &result->peak_flops, &result->peak_bytes);
}

eq_status eq_network_bench(struct eq_network *network, int n, int size, bool training, double seconds,
                           struct eq_bench_result *result)
{
    struct session session = { .network = network, .training = training };
    *result = (struct eq_bench_result){ 0 };
    eq_status status = bench(&session, n, size, seconds, result);
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

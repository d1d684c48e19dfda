// What the device can do at most, measured: the roof that every other figure is set against.
#include "rt/internal.h"

enum { CHAINS = 16, REPEATS = 5, MAX_RUNS = 256, SAMPLE_NS = 5000000 };
// Of the copy's two halves together. The least holds what the multiply-adds of 1024 compute units write.
enum { MIN_MIB = 8, CPU_MIB = 128, CPU_UNIT_MIB = 16, OTHER_MIB = 512, MAX_MIB = 1024 };

static eq_status time_runs(struct eq_list *list, int num, int64_t *run_ns)
{
    const int64_t start = eq_clock_ns();
    for (int i = 0; i < num; i++)
        EQ_TRY(eq_list_run(list));
    EQ_TRY(eq_device_finish(eq_list_device(list)));
    *run_ns = (eq_clock_ns() - start) / num;
    return EQ_OK;
}

// Of one run, of as many in a row as take milliseconds: a wait takes as long as a GPU copies 64 MiB.
static eq_status best_time(struct eq_list *list, int64_t *best_ns)
{
    int64_t time;
    EQ_TRY(time_runs(list, 1, &time)); // warm-up
    EQ_TRY(time_runs(list, 1, &time));
    const int num = time * MAX_RUNS > SAMPLE_NS ? (int)(1 + SAMPLE_NS / time) : MAX_RUNS;
    *best_ns = INT64_MAX;
    for (int r = 0; r < REPEATS; r++) {
        EQ_TRY(time_runs(list, num, &time));
        if (time < *best_ns)
            *best_ns = time;
    }
    return EQ_OK;
}

static eq_status measure_mad(struct eq_device *device, struct eq_buffer *buffer, double *rate)
{
    bool is_vector = device->target.family == EQ_FAMILY_VECTOR;
    int width = is_vector ? device->target.block : 4, turns = is_vector ? 200000 : 4096;
    size_t local = is_vector ? 1 : 64, items = (size_t)device->target.compute_units * (is_vector ? 4 : 2048);
    char options[64];
    snprintf(options, sizeof options, "-DBLOCK=%d -DCHAINS=%d", width, CHAINS);
    struct eq_list *list;
    EQ_TRY(eq_list_create(device, &list));
    int64_t time = 0;
    struct eq_launch launch = { .source = "peak", .options = options, .kernel = "peak_mad",
                                .range = eq_range_1d(items, local) };
    eq_status status =
        eq_list_kernel(list, &launch, EQ_ARGS(EQ_REF(eq_ref_at(buffer, 0)), EQ_I32(turns), EQ_F32(0.999f), EQ_F32(1e-5f)));
    if (status == EQ_OK)
        status = best_time(list, &time);
    eq_list_destroy(&list);
    if (status == EQ_OK)
        *rate = 2.0 * width * CHAINS * turns * (double)items / ((double)time * 1e-9);
    return status;
}

static eq_status measure_copy(struct eq_device *device, struct eq_buffer *buffer, double *rate)
{
    bool is_vector = device->target.family == EQ_FAMILY_VECTOR;
    int width = is_vector ? device->target.block : 4;
    size_t half = buffer->bytes / 8, items = (size_t)device->target.compute_units * (is_vector ? 4 : 2048);
    char options[64];
    snprintf(options, sizeof options, "-DBLOCK=%d -DSTRIDED=%d -DEQ_STREAM=%d", width, !is_vector, is_vector);
    struct eq_list *list;
    EQ_TRY(eq_list_create(device, &list));
    int64_t time = 0;
    struct eq_launch launch = { .source = "peak", .options = options, .kernel = "peak_copy",
                                .range = eq_range_1d(items, is_vector ? 1 : 64) };
    eq_status status = eq_list_fill(list, eq_ref_at(buffer, 0), 1.0f, 2 * half);
    if (status == EQ_OK)
        status = eq_list_run(list); // every page touched before timing
    eq_list_destroy(&list);
    EQ_TRY(status);
    EQ_TRY(eq_list_create(device, &list));
    status = eq_list_kernel(
        list, &launch, EQ_ARGS(EQ_REF(eq_ref_at(buffer, 0)), EQ_REF(eq_ref_at(buffer, half)), EQ_I32(half / (size_t)width)));
    if (status == EQ_OK)
        status = best_time(list, &time);
    eq_list_destroy(&list);
    if (status == EQ_OK)
        *rate = 8.0 * (double)half / ((double)time * 1e-9);
    return status;
}

// Several times the cache, where memory has room. A processor may have a cache for each few cores and report one; other devices
// may have a cache that none of their queries tells.
static size_t wanted_mib(const struct eq_device *device)
{
    const bool is_cpu = device->kind == EQ_KIND_CPU;
    const size_t cache = (size_t)EQ_DEVICE_VALUE(cl_ulong, device->id, CL_DEVICE_GLOBAL_MEM_CACHE_SIZE) >> 20;
    const size_t units = is_cpu ? CPU_UNIT_MIB * (size_t)device->target.compute_units : 0;
    size_t mib = is_cpu ? CPU_MIB : OTHER_MIB;
    mib = units > mib ? units : mib;
    mib = 4 * cache > mib ? 4 * cache : mib;
    return mib < MAX_MIB ? mib : MAX_MIB;
}

// An eighth of what memory is left at most, but the least that a processor takes is tried. What does not fit is halved: with a
// network on the device there may be less room than the driver tells, and its result is not to be lost.
static eq_status make_room(struct eq_device *device, struct eq_buffer **buffer)
{
    const struct eq_target *t = &device->target;
    const size_t left_mib = t->memory_bytes > device->bytes_now ? (t->memory_bytes - device->bytes_now) >> 20 : 0;
    size_t mib = wanted_mib(device);
    while (mib > CPU_MIB && (mib > left_mib / 8 || mib > t->max_alloc_bytes >> 20))
        mib = mib / 2 > CPU_MIB ? mib / 2 : CPU_MIB;
    for (;; mib /= 2) {
        eq_status status = eq_buffer_create(device, mib << 20, buffer);
        if (status == EQ_OK)
            status = eq_buffer_touch(*buffer);
        if (status == EQ_OK)
            return EQ_OK;
        eq_buffer_destroy(buffer);
        if (status != EQ_ERR_DEVICE_MEMORY || mib / 2 < MIN_MIB)
            return status;
    }
}

eq_status eq_device_peak(struct eq_device *device, double *flops_per_second, double *bytes_per_second)
{
    struct eq_buffer *buffer;
    EQ_TRY(make_room(device, &buffer));
    eq_status status = measure_mad(device, buffer, flops_per_second);
    if (status == EQ_OK)
        status = measure_copy(device, buffer, bytes_per_second);
    eq_buffer_destroy(&buffer);
    return status;
}

// What the device can do at most, measured: the roof that every other figure is set against.
#include "rt/internal.h"

enum { CHAINS = 16, REPEATS = 5, COPY_MIB = 64 };

static eq_status best_time(struct eq_list *list, int64_t *best_ns)
{
    *best_ns = INT64_MAX;
    EQ_TRY(eq_list_run(list)); // warm-up
    EQ_TRY(eq_device_finish(eq_list_device(list)));
    for (int r = 0; r < REPEATS; r++) {
        int64_t start = eq_clock_ns();
        EQ_TRY(eq_list_run(list));
        EQ_TRY(eq_device_finish(eq_list_device(list)));
        int64_t time = eq_clock_ns() - start;
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

eq_status eq_device_peak(struct eq_device *device, double *flops_per_second, double *bytes_per_second)
{
    struct eq_buffer *buffer;
    EQ_TRY(eq_buffer_create(device, (size_t)2 * COPY_MIB << 20, &buffer));
    eq_status status = measure_mad(device, buffer, flops_per_second);
    if (status == EQ_OK)
        status = measure_copy(device, buffer, bytes_per_second);
    eq_buffer_destroy(&buffer);
    return status;
}

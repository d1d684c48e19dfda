// Sampling times.
//
// The interval of the median takes the k-th smallest and the k-th largest sample, with the largest k that leaves at most 2.5 %
// on each side: the number of samples below the true median is binomial with p = 1/2, whatever their distribution.
#include "train/sample.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MIN_RUNS = 6, MAX_RUNS = 2000, WINDOW = 3, MAX_REPEATS = 1000 };
static const double STEADY = 1.05, MIN_SAMPLE = 1e-3;

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double middle(const double *sorted, int num)
{
    return num % 2 ? sorted[num / 2] : (sorted[num / 2 - 1] + sorted[num / 2]) / 2;
}

// Samples to leave out on each side.
static int outside(int num)
{
    const double log_half = log(0.5);
    double tail = 0;
    for (int k = 0; k < num / 2; k++) {
        tail += exp(lgamma(num + 1.0) - lgamma(k + 1.0) - lgamma(num - k + 1.0) + num * log_half);
        if (tail > 0.025)
            return k ? k - 1 : 0;
    }
    return 0;
}

static double drift(const double *seconds, int num)
{
    const int half = num / 2;
    if (half < WINDOW)
        return 1;
    double halves[2], *part = malloc((size_t)half * sizeof *part);
    if (!part)
        return 1;
    for (int i = 0; i < 2; i++) {
        memcpy(part, seconds + (i ? num - half : 0), (size_t)half * sizeof *part);
        qsort(part, (size_t)half, sizeof *part, by_value);
        halves[i] = middle(part, half);
    }
    free(part);
    return halves[1] / halves[0];
}

void eq_bench_summarise(double *seconds, int num, struct eq_bench_time *time)
{
    time->drift = drift(seconds, num);
    qsort(seconds, (size_t)num, sizeof *seconds, by_value);
    const int k = outside(num);
    time->median = middle(seconds, num);
    time->low = seconds[k];
    time->high = seconds[num - 1 - k];
    time->best = seconds[0];
    time->runs = num;
}

static eq_status run_once(eq_bench_run_fn run, void *user, int repeats, double *seconds)
{
    const int64_t start = eq_clock_ns();
    EQ_TRY(run(user, repeats));
    *seconds = (double)(eq_clock_ns() - start) * 1e-9 / repeats;
    return EQ_OK;
}

static bool is_steady(const double *window)
{
    double least = window[0], most = window[0];
    for (int i = 1; i < WINDOW; i++) {
        least = fmin(least, window[i]);
        most = fmax(most, window[i]);
    }
    return most < STEADY * least;
}

static eq_status warm_up(eq_bench_run_fn run, void *user, double budget, int *repeats)
{
    double window[WINDOW], all = 0;
    *repeats = 1;
    EQ_TRY(run_once(run, user, 1, &window[0]));
    if (window[0] < MIN_SAMPLE) { // the first run is the slowest: a second tells how many it takes
        EQ_TRY(run_once(run, user, 1, &window[0]));
        *repeats = (int)fmin(MAX_REPEATS, ceil(MIN_SAMPLE / fmax(window[0], 1e-9)));
    }
    for (int i = 0; i < WINDOW || (all < budget && !is_steady(window)); i++) {
        EQ_TRY(run_once(run, user, *repeats, &window[i % WINDOW]));
        all += window[i % WINDOW] * *repeats;
        if (all >= budget && i >= 1)
            break;
    }
    return EQ_OK;
}

static eq_status sample(eq_bench_run_fn run, void *user, double budget, double precision, int repeats, double *seconds,
                        double *scratch, struct eq_bench_time *time)
{
    const int64_t start = eq_clock_ns();
    for (int num = 0; num < MAX_RUNS;) {
        EQ_TRY(run_once(run, user, repeats, &seconds[num++]));
        const double spent = (double)(eq_clock_ns() - start) * 1e-9;
        if (num < MIN_RUNS || (spent < budget / 5 && num < MAX_RUNS))
            continue;
        memcpy(scratch, seconds, (size_t)num * sizeof *seconds);
        eq_bench_summarise(scratch, num, time);
        const double half = fmax(time->high - time->median, time->median - time->low);
        if (spent >= budget || half <= precision * time->median)
            break;
    }
    return EQ_OK;
}

eq_status eq_bench_sample(eq_bench_run_fn run, void *user, double seconds, double precision, struct eq_bench_time *time)
{
    int repeats;
    double *samples = eq_malloc(2 * MAX_RUNS, sizeof *samples);
    if (!samples)
        return EQ_ERR_HOST_MEMORY;
    eq_status status = warm_up(run, user, seconds / 2, &repeats);
    if (status == EQ_OK)
        status = sample(run, user, seconds, precision, repeats, samples, samples + MAX_RUNS, time);
    free(samples);
    return status;
}

eq_status eq_bench_peaks(struct eq_device *device, double *flops_per_second, double *bytes_per_second)
{
    double flops, bytes;
    EQ_TRY(eq_device_peak(device, &flops, &bytes));
    *flops_per_second = fmax(flops, *flops_per_second);
    *bytes_per_second = fmax(bytes, *bytes_per_second);
    return EQ_OK;
}

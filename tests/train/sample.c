// Medians, their intervals, and when sampling stops.
#include "train/sample.h"

#include "support.h"

static struct eq_bench_time summarise(const double *values, int num)
{
    struct eq_bench_time time;
    double copy[128];
    for (int i = 0; i < num; i++)
        copy[i] = values[i];
    eq_bench_summarise(copy, num, &time);
    return time;
}

// Ranks of the interval from tables of the sign test (two-sided, 95 %).
START_TEST(interval_of_the_median)
{
    const struct {
        int num, low, high; // ranks from 1
    } cases[] = { { 1, 1, 1 }, { 5, 1, 5 }, { 6, 1, 6 }, { 8, 1, 8 }, { 9, 2, 8 }, { 10, 2, 9 }, { 12, 3, 10 }, { 20, 6, 15 },
                  { 25, 8, 18 }, { 50, 18, 33 }, { 100, 40, 61 } };
    double values[128];
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const int num = cases[c].num;
        for (int i = 0; i < num; i++)
            values[i] = num - i;
        const struct eq_bench_time time = summarise(values, num);
        ck_assert_double_eq(time.low, cases[c].low);
        ck_assert_double_eq(time.high, cases[c].high);
        ck_assert_double_eq(time.median, (num + 1) / 2.0);
        ck_assert_double_eq(time.best, 1);
        ck_assert_int_eq(time.runs, num);
    }
}
END_TEST

START_TEST(drift_of_the_samples)
{
    const double steady[] = { 2, 1, 3, 2, 1, 3 }, slower[] = { 1, 1, 1, 1, 2, 2, 2, 2 }, few[] = { 1, 5 };
    ck_assert_double_eq(summarise(steady, 6).drift, 1);
    ck_assert_double_eq(summarise(slower, 8).drift, 2);
    ck_assert_double_eq(summarise(few, 2).drift, 1);
}
END_TEST

// Work that takes a set time, by the clock.
struct work {
    double seconds;
    int calls, repeats;
    int fails_at; // call, or 0
};

static eq_status spin(void *user, int repeats)
{
    struct work *work = user;
    const int64_t start = eq_clock_ns();
    work->calls++;
    work->repeats += repeats;
    if (work->calls == work->fails_at)
        return eq_fail(EQ_ERR_DEVICE, "call %d", work->calls);
    while ((double)(eq_clock_ns() - start) * 1e-9 < work->seconds * repeats)
        ;
    return EQ_OK;
}

START_TEST(sampling_stops)
{
    struct eq_bench_time time;
    // A wide precision: as soon as a fifth of the time is over.
    struct work work = { .seconds = 2e-3 };
    const int64_t start = eq_clock_ns();
    ck_assert_int_eq(eq_bench_sample(spin, &work, 0.2, 1, &time), EQ_OK);
    ck_assert_int_ge(time.runs, 6);
    ck_assert_int_ge(work.calls, time.runs + 3);
    ck_assert_double_ge((double)(eq_clock_ns() - start) * 1e-9, 0.04);
    ck_assert_double_ge(time.best, 2e-3);
    ck_assert_double_le(time.low, time.median);
    ck_assert_double_ge(time.high, time.median);
    // None can be met: until the time is over, and at least 6.
    work = (struct work){ .seconds = 2e-3 };
    ck_assert_int_eq(eq_bench_sample(spin, &work, 1e-6, 1e-12, &time), EQ_OK);
    ck_assert_int_eq(time.runs, 6);
}
END_TEST

START_TEST(short_work_is_repeated)
{
    struct eq_bench_time time;
    struct work work = { .seconds = 2e-5 };
    ck_assert_int_eq(eq_bench_sample(spin, &work, 0.05, 1, &time), EQ_OK);
    ck_assert_int_gt(work.repeats, 5 * work.calls);
    ck_assert_double_ge(time.best, 2e-5);
    ck_assert_double_lt(time.best, 1e-3);
}
END_TEST

START_TEST(failures_are_passed_on)
{
    struct eq_bench_time time;
    for (int at = 1; at <= 9; at++) { // three that warm up and six that count come however slow the machine is
        struct work work = { .seconds = 1e-3, .fails_at = at };
        ck_assert_int_eq(eq_bench_sample(spin, &work, 0.05, 1e-12, &time), EQ_ERR_DEVICE);
        ck_assert_int_eq(work.calls, at);
    }
}
END_TEST

EQ_TEST_MAIN("sample", { interval_of_the_median, 0 }, { drift_of_the_samples, 0 }, { sampling_stops, 0 },
             { short_work_is_repeated, 0 }, { failures_are_passed_on, 0 })

// Samples of a time: warm-up, when to stop, and what they say.
#ifndef EQ_TRAIN_SAMPLE_H
#define EQ_TRAIN_SAMPLE_H

#include "equil/bench.h"
#include "rt/rt.h"

// Sorts and summarises seconds[num], num >= 1.
void eq_bench_summarise(double *seconds, int num, struct eq_bench_time *time);

// Runs the work `repeats` times, to the end of the last.
typedef eq_status (*eq_bench_run_fn)(void *user, int repeats);
// Warms up until three runs in a row differ by less than 5 % (or half of params->seconds is over), then samples until the
// interval is within params->precision (not before a fifth of params->seconds) or params->seconds are over. Work shorter than a
// millisecond is repeated to last one; times are of one run.
eq_status eq_bench_sample(eq_bench_run_fn run, void *user, double seconds, double precision, struct eq_bench_time *time);

// Raises the peaks, at first 0, to what eq_device_peak() gives where that is more: others on the machine only make it less, for
// as long as they are there. So it is called several times: between ops; of a network after its batches, whose peak of memory
// is its own, and after its steps.
eq_status eq_bench_peaks(struct eq_device *device, double *flops_per_second, double *bytes_per_second);

#endif

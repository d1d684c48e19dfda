// Results of `equil bench` as text on stdout.
#ifndef EQUIL_CLI_BENCH_TABLE_H
#define EQUIL_CLI_BENCH_TABLE_H

#include "bench_file.h"

// Steps by kernel, longest first.
struct bench_total {
    const char *kernel; // valid as long as the record
    int count;
    double ms, gflop, mbyte;
    double roof_ms; // what they would take at the roof
};
// malloc'ed; NULL: no memory.
struct bench_total *bench_totals(const struct bench_record *record, int *num);

void bench_print_identity(const struct bench_document *document);
void bench_print_network(const struct bench_record *record);
void bench_print_ops(const struct bench_document *document);   // every record is an op
void bench_print_curve(const struct bench_document *document); // every record is a network

// `equil bench --compare A B`: returns the exit code. noise: least band, as a fraction.
int bench_compare(const char *path_a, const char *path_b, double noise);
// `equil bench --report OUT FILE...`: returns the exit code.
int bench_report(const char *out, char *const *paths, int num);

#endif

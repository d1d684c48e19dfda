// What `equil verify` found: rows of an op on a family of kernels, failures, the table and the JSON text.
#ifndef EQUIL_CLI_VERIFY_REPORT_H
#define EQUIL_CLI_VERIFY_REPORT_H

#include "equil/bench.h"
#include "equil/device.h"
#include "child.h"
#include "output.h"
#include "verify/verify.h"

enum { VERIFY_MAX_BLOCKS = 8 };

// What was verified. Found in a process of its own.
struct verify_device {
    struct eq_device_info info;
    struct eq_bench_identity identity;
    int block; // channels in a block of the device's own kernels
};

struct verify_row {
    char op[48], kernels[48];
    int blocks[VERIFY_MAX_BLOCKS], num_blocks;
    int num_cases, num_failures;
    bool is_unfinished; // the process crashed, or hung, in the last case
    size_t num_values;
    double error, ratio; // the worst: of error over the largest value wanted, and of error over tolerance
};

// A suite whose process did not end by itself.
struct verify_crash {
    bool is_late; // nothing came from it for as long as a case may take
    char suite[48], ending[160], last_words[256];
    struct eq_check_event at; // the last case that began
};

struct verify_report {
    struct verify_device device;
    bool is_full;
    double seconds;
    struct verify_row *rows;
    int num_rows, num_printed;
    struct eq_check_event *failures;
    int num_failures;
    struct verify_crash *crashes;
    int num_crashes;
    struct eq_check_event last; // that began
    int num_cases, num_suites;
    bool has_no_memory; // some of it is missing
};

void verify_take(struct verify_report *report, const struct eq_check_event *event);
void verify_add_crash(struct verify_report *report, const char *suite, const struct child *child);
bool verify_is_right(const struct verify_report *report);

void verify_print_device(const struct verify_device *device);
void verify_print_heading(void);
void verify_print_rows(struct verify_report *report); // those that were not printed yet
void verify_print_verdict(const struct verify_report *report);
json_t *verify_json(const struct verify_report *report); // NULL: no memory
void verify_report_free(struct verify_report *report);

#endif

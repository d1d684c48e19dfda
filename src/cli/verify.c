// equil verify: does the device compute what it should? Every suite of src/verify runs in a process of its own, so that a
// driver that crashes or hangs in one does not hide what the others find.
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "args.h"
#include "child.h"
#include "command.h"
#include "equil/equil.h"
#include "verify_report.h"

enum { SECONDS_TO_OPEN = 120 };

struct verify_run {
    const char *device, *op, *json;
    bool is_quick, is_full;
    int limit; // seconds in which a suite says nothing
};

static double now_seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

// ---- in processes of their own

// argument: struct verify_run. Writes a struct verify_device, or what failed.
static void describe_device(int fd, const void *argument)
{
    const struct verify_run *run = argument;
    struct verify_device found = { .block = 0 };
    struct eq_device_info *infos = NULL;
    struct eq_device *device = NULL;
    int num = 0;
    if (eq_device_open(run->device, &device) == EQ_OK && eq_device_list(run->device, &infos, &num) == EQ_OK) {
        for (int i = 0; i < num; i++)
            if (infos[i].is_chosen)
                found.info = infos[i];
        eq_bench_identify(device, &found.identity);
        eq_check_use(device, &(struct eq_check_params){ .level = EQ_CHECK_QUICK });
        found.block = eq_check_block();
        child_write(fd, &found, sizeof found);
    } else {
        child_write(fd, eq_last_error(), strlen(eq_last_error()));
    }
    eq_device_list_free(&infos);
    eq_device_destroy(&device);
}

struct suite_run {
    const struct verify_run *run;
    const struct eq_check_suite *suite;
    int fd;
};

static void send_event(void *user, const struct eq_check_event *event)
{
    const struct suite_run *suite = user;
    child_write(suite->fd, event, sizeof *event);
}

static void send_last_error(struct suite_run *suite)
{
    struct eq_check_event event = { .kind = EQ_CHECK_FAILED };
    snprintf(event.op, sizeof event.op, "%s", suite->suite->name);
    snprintf(event.name, sizeof event.name, "opening the device");
    snprintf(event.text, sizeof event.text, "%s", eq_last_error());
    send_event(suite, &event);
}

// argument: struct suite_run. Writes events.
static void run_suite(int fd, const void *argument)
{
    struct suite_run suite = *(const struct suite_run *)argument;
    struct eq_device *device = NULL;
    suite.fd = fd;
    if (eq_device_open(suite.run->device, &device) != EQ_OK) {
        send_last_error(&suite);
        return;
    }
    eq_check_use(device, &(struct eq_check_params){ .level = suite.run->is_full ? EQ_CHECK_FULL : EQ_CHECK_QUICK,
                                                    .is_patient = suite.run->is_full,
                                                    .sink = send_event,
                                                    .user = &suite });
    eq_check_run(suite.suite);
    eq_device_destroy(&device);
}

// ---- in this one

static bool find_device(const struct verify_run *run, struct verify_device *device)
{
    struct child child;
    child_try(describe_device, run, SECONDS_TO_OPEN, &child);
    const bool is_found = child.is_done && child.bytes == sizeof *device;
    if (is_found)
        memcpy(device, child.data, sizeof *device);
    else if (child.is_done)
        message("%s", child.data);
    else
        message("opening the device: the process %s%s%s; 'equil doctor' looks for the reason", child.ending,
                *child.last_words ? ": " : "", child.last_words);
    free(child.data);
    return is_found;
}

static void take_event(void *user, const void *record)
{
    struct verify_report *report = user;
    const struct eq_check_event *event = record;
    verify_take(report, event);
    if (event->kind == EQ_CHECK_BEGINS && isatty(STDERR_FILENO))
        progress_line(false, "%s, %s (%s, block %d)", event->op, event->name, event->kernels, event->block);
}

static void verify_suite(const struct verify_run *run, const struct eq_check_suite *suite, struct verify_report *report)
{
    const struct suite_run argument = { .run = run, .suite = suite };
    struct child child;
    report->last = (struct eq_check_event){ .block = 0 };
    report->num_suites++;
    child_follow(run_suite, &argument, run->limit, sizeof(struct eq_check_event), take_event, report, &child);
    if (!child.is_done)
        verify_add_crash(report, suite->name, &child);
    free(child.data);
}

static bool is_wanted(const struct verify_run *run, const struct eq_check_suite *suite)
{
    return !run->op || strcmp(run->op, suite->name) == 0;
}

// JSON on stdout stands alone.
static bool has_table(const struct verify_run *run)
{
    return !run->json || strcmp(run->json, "-") != 0;
}

static int verify(const struct verify_run *run)
{
    struct verify_report report = { .is_full = run->is_full };
    const double start = now_seconds();
    if (run->json && !can_write(run->json))
        return EXIT_FAILED;
    if (!find_device(run, &report.device))
        return EXIT_FAILED;
    if (has_table(run)) {
        verify_print_device(&report.device);
        verify_print_heading();
    }
    for (int i = 0; i < eq_check_num_suites; i++)
        if (is_wanted(run, eq_check_suites[i])) {
            verify_suite(run, eq_check_suites[i], &report);
            if (has_table(run))
                verify_print_rows(&report);
        }
    report.seconds = now_seconds() - start;
    int exit_code = verify_is_right(&report) ? EXIT_SUCCESS : EXIT_FAILED;
    if (has_table(run))
        verify_print_verdict(&report);
    if (run->json && json_write(verify_json(&report), run->json) != EXIT_SUCCESS)
        exit_code = EXIT_FAILED;
    verify_report_free(&report);
    return exit_code;
}

static int check_usage(const struct verify_run *run, int num_suites)
{
    if (run->is_quick && run->is_full)
        return usage_error("verify", "--quick and --full are two things");
    return num_suites ? EXIT_SUCCESS : usage_error("verify", "there is no --op %s", run->op);
}

static int run_verify(int argc, char **argv)
{
    struct verify_run run = { .op = NULL };
    const struct arg_option options[] = {
        { .name = "quick",
          .kind = ARG_FLAG,
          .value = &run.is_quick,
          .help = "small cases on the device's own kernels, the default: about a minute where a\nprocessor compiles them" },
        { .name = "full",
          .kind = ARG_FLAG,
          .value = &run.is_full,
          .help = "every case on every family of kernels with every block size: minutes to hours" },
        { .name = "op",
          .kind = ARG_STRING,
          .value = &run.op,
          .metavar = "NAME",
          .help = "only one of add, accumulate, sgd, softmax_xent, linear, pool_max, pool_avg,\nlayout, image, solve_ce, "
                  "solve_gate, "
                  "unit, conv2d, conv2d_fused, conv2d_gated, matrix, network" },
        // A compiler may think for minutes about a kernel, and say nothing.
        { .name = "limit",
          .kind = ARG_INT,
          .value = &run.limit,
          .fallback = "900",
          .min = 1,
          .max = 86400,
          .help = "seconds that a case may take, compiling included; after that its suite is given up" },
        { .name = "json",
          .kind = ARG_STRING,
          .value = &run.json,
          .metavar = "FILE",
          .help = "write the result as JSON, too, for a report; -: nothing but JSON on stdout" },
        ARG_OPTION_DEVICE(&run.device),
        { 0 },
    };
    const struct arg_spec spec = {
        .command = "verify",
        .summary =
            "Verifies that a device computes what it should: every op against a reference in double precision, a small\n"
            "network against gradients of PyTorch, and everything twice for the same bits. Exit code 0: all of it is right.",
        .options = options,
        .notes = "A row is an op on a family of kernels: the largest error over the largest value, and over what is allowed.",
    };
    struct arg_result args;
    int num_suites = 0;
    if (args_parse(&spec, argc, argv, &args) != ARGS_RUN)
        return args.exit_code;
    for (int i = 0; i < eq_check_num_suites; i++)
        num_suites += is_wanted(&run, eq_check_suites[i]);
    const int usage = check_usage(&run, num_suites);
    return usage == EXIT_SUCCESS ? verify(&run) : usage;
}

const struct command command_verify = { "verify", "check that a device computes what it should", run_verify };

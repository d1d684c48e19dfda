// The result of `equil verify` as a table and as JSON.
#include "verify_report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "doctor.h"

enum { MAX_PRINTED_FAILURES = 20 };

// ---- counting

// One more element of `bytes` at the end of the array, zeroed; NULL: no memory.
static void *grow(void **array, int *num, size_t bytes)
{
    char *grown = *num % 64 ? *array : realloc(*array, ((size_t)*num + 64) * bytes);
    if (!grown)
        return NULL;
    *array = grown;
    return memset(grown + (size_t)(*num)++ * bytes, 0, bytes);
}

static struct verify_row *row_of(struct verify_report *report, const struct eq_check_event *event)
{
    for (int i = report->num_printed; i < report->num_rows; i++)
        if (strcmp(report->rows[i].op, event->op) == 0 && strcmp(report->rows[i].kernels, event->kernels) == 0)
            return &report->rows[i];
    void *rows = report->rows;
    struct verify_row *row = grow(&rows, &report->num_rows, sizeof *row);
    report->rows = rows;
    if (row) {
        snprintf(row->op, sizeof row->op, "%s", event->op);
        snprintf(row->kernels, sizeof row->kernels, "%s", event->kernels);
    }
    return row;
}

static void add_block(struct verify_row *row, int block)
{
    for (int i = 0; i < row->num_blocks; i++)
        if (row->blocks[i] == block)
            return;
    if (row->num_blocks < VERIFY_MAX_BLOCKS)
        row->blocks[row->num_blocks++] = block;
}

void verify_take(struct verify_report *report, const struct eq_check_event *event)
{
    struct verify_row *row = row_of(report, event);
    if (!row) {
        report->has_no_memory = true;
        return;
    }
    add_block(row, event->block);
    if (event->kind == EQ_CHECK_BEGINS) {
        row->num_cases++;
        report->num_cases++;
        report->last = *event;
    } else if (event->kind == EQ_CHECK_COMPARED) {
        row->num_values += event->num;
        row->error = fmax(row->error, event->error);
        row->ratio = fmax(row->ratio, event->ratio);
    } else {
        row->num_failures++;
        void *failures = report->failures;
        struct eq_check_event *failure = grow(&failures, &report->num_failures, sizeof *failure);
        report->failures = failures;
        if (failure)
            *failure = *event;
        else
            report->has_no_memory = true;
    }
}

void verify_add_crash(struct verify_report *report, const char *suite, const struct child *child)
{
    void *crashes = report->crashes;
    struct verify_row *row = *report->last.op ? row_of(report, &report->last) : NULL;
    if (row)
        row->is_unfinished = true;
    struct verify_crash *crash = grow(&crashes, &report->num_crashes, sizeof *crash);
    report->crashes = crashes;
    if (!crash) {
        report->has_no_memory = true;
        return;
    }
    snprintf(crash->suite, sizeof crash->suite, "%s", suite);
    snprintf(crash->ending, sizeof crash->ending, "%s", child->ending);
    snprintf(crash->last_words, sizeof crash->last_words, "%s", child->last_words);
    crash->is_late = child->is_late;
    crash->at = report->last;
}

bool verify_is_right(const struct verify_report *report)
{
    return report->num_cases > 0 && report->num_failures == 0 && report->num_crashes == 0 && !report->has_no_memory;
}

void verify_report_free(struct verify_report *report)
{
    free(report->rows);
    free(report->failures);
    free(report->crashes);
}

// ---- the table

void verify_print_device(const struct verify_device *device)
{
    const struct eq_bench_identity *id = &device->identity;
    char memory[32], alloc[32], local[32];
    printf("device  %s, %s, driver %s\n", id->device, id->platform, id->driver);
    printf("limits  %s of memory, %s in a buffer, %s local, work-groups of %zu\n",
           format_bytes(memory, device->info.memory_bytes), format_bytes(alloc, device->info.max_alloc_bytes),
           format_bytes(local, device->info.local_bytes), device->info.max_group);
    printf("build   equil %s (%s), %s, %s\n", id->version, id->commit, id->compiler, id->options);
    printf("own     %s kernels in blocks of %d, tuning %s\n\n", id->family, device->block, id->tuning);
}

void verify_print_heading(void)
{
    printf("%-20s %-29s %-8s %6s %12s %11s\n", "op", "kernels", "blocks", "cases", "worst error", "of allowed");
}

static void print_row(const struct verify_row *row)
{
    char blocks[64] = "";
    for (int i = 0; i < row->num_blocks; i++)
        snprintf(blocks + strlen(blocks), sizeof blocks - strlen(blocks), "%s%d", i ? " " : "", row->blocks[i]);
    printf("%-20s %-29s %-8s %6d %12.1e %11.2f  ", row->op, row->kernels, blocks, row->num_cases, row->error, row->ratio);
    if (row->num_failures)
        printf("%d WRONG%s\n", row->num_failures, row->is_unfinished ? ", UNFINISHED" : "");
    else
        printf("%s\n", row->is_unfinished ? "UNFINISHED" : "ok");
}

void verify_print_rows(struct verify_report *report)
{
    for (; report->num_printed < report->num_rows; report->num_printed++)
        print_row(&report->rows[report->num_printed]);
    fflush(stdout);
}

static const char *plural(int num)
{
    return num == 1 ? "" : "s";
}

static void print_failure(const struct eq_check_event *failure)
{
    printf("%s, %s (%s, block %d): %s\n", failure->op, failure->name, failure->kernels, failure->block, failure->text);
}

static void print_crash(const struct verify_crash *crash)
{
    printf("%s: the process %s", crash->suite, crash->ending);
    if (*crash->at.op)
        printf(" in %s, %s (%s, block %d)", crash->at.op, crash->at.name, crash->at.kernels, crash->at.block);
    printf("%s%s\n", *crash->last_words ? ": " : "", crash->last_words);
}

// Nothing was wrong, but a suite took too long.
static bool is_undecided(const struct verify_report *report)
{
    bool is_late = report->num_crashes > 0 && report->num_failures == 0 && !report->has_no_memory;
    for (int i = 0; i < report->num_crashes; i++)
        is_late &= report->crashes[i].is_late;
    return is_late;
}

void verify_print_verdict(const struct verify_report *report)
{
    char text[32];
    printf("\n");
    for (int i = 0; i < report->num_failures && i < MAX_PRINTED_FAILURES; i++)
        print_failure(&report->failures[i]);
    if (report->num_failures > MAX_PRINTED_FAILURES)
        printf("and %d more\n", report->num_failures - MAX_PRINTED_FAILURES);
    for (int i = 0; i < report->num_crashes; i++)
        print_crash(&report->crashes[i]);
    format_seconds(text, report->seconds);
    const bool is_open = is_undecided(report);
    if (verify_is_right(report)) {
        printf("right: %d case%s of %d suite%s, in %s\n", report->num_cases, plural(report->num_cases), report->num_suites,
               plural(report->num_suites), text);
        return;
    }
    printf("%s: %d failure%s in %d case%s of %d suite%s, in %s", is_open ? "UNDECIDED" : "WRONG", report->num_failures,
           plural(report->num_failures), report->num_cases, plural(report->num_cases), report->num_suites,
           plural(report->num_suites), text);
    if (report->num_crashes)
        printf("; %d suite%s did not end", report->num_crashes, plural(report->num_crashes));
    if (is_open)
        printf(".\nA device that is slow, or compiles slowly, needs a longer --limit; one that hangs perhaps a new driver.\n");
    else
        printf("%s. Results of this device cannot be trusted.\nA newer driver may help. ",
               report->has_no_memory ? "; memory ran out" : "");
    printf("A report of this should have the file that --json writes with it.\n");
}

// ---- JSON

static json_t *device_json(const struct verify_device *device)
{
    const struct eq_bench_identity *id = &device->identity;
    const struct eq_device_info *info = &device->info;
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:i, s:i, s:b, s:s, s:i, s:s, s:o, s:{s:I, s:I, s:I, s:I, s:i}}",
                     "name", json_text(id->device), "vendor", json_text(id->vendor), "platform", json_text(id->platform),
                     "platform_version", json_text(info->platform_version), "version", json_text(info->version), "driver",
                     json_text(id->driver), "kind", id->kind, "compute_units", id->compute_units, "clock_mhz", info->clock_mhz,
                     "fma", info->has_fma, "family", id->family, "block", device->block, "precision", id->precision, "tuning",
                     json_text(id->tuning), "limits", "memory_bytes", (json_int_t)info->memory_bytes, "max_alloc_bytes",
                     (json_int_t)info->max_alloc_bytes, "local_bytes", (json_int_t)info->local_bytes, "max_group",
                     (json_int_t)info->max_group, "vector_width", info->vector_width);
}

// Variables that change what runs.
static json_t *environment_json(void)
{
    static const char *const names[] = { "EQUIL_BUILD_OPTIONS", "EQUIL_CONV",   "EQUIL_WINOGRAD",
                                         "EQUIL_PRECISION",     "EQUIL_TUNING", "RUSTICL_ENABLE" };
    json_t *object = json_object();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (doctor_variable(names[i]))
            json_object_set_new(object, names[i], json_text(doctor_variable(names[i])));
    return object;
}

static json_t *row_json(const struct verify_row *row)
{
    json_t *blocks = json_array();
    for (int i = 0; i < row->num_blocks; i++)
        json_array_append_new(blocks, json_integer(row->blocks[i]));
    return json_pack("{s:s, s:s, s:o, s:i, s:I, s:o, s:o, s:i}", "op", row->op, "kernels", row->kernels, "blocks", blocks,
                     "cases", row->num_cases, "values", (json_int_t)row->num_values, "worst_error", json_number(row->error),
                     "of_allowed", json_number(row->ratio), "failures", row->num_failures);
}

static json_t *failure_json(const struct eq_check_event *f)
{
    json_t *object = json_pack("{s:s, s:s, s:s, s:i, s:o}", "op", f->op, "case", f->name, "kernels", f->kernels, "block",
                               f->block, "text", json_text(f->text));
    if (!object || !*f->what)
        return object;
    json_object_set_new(object, "what", json_string(f->what));
    json_object_set_new(object, "tolerance", json_number(f->tolerance));
    if (f->is_bound)
        json_object_set_new(object, "relative_error", json_number(f->error));
    if (!f->is_bound || f->has_element) {
        json_object_set_new(object, "index", json_pack("[i, i, i, i]", f->index[0], f->index[1], f->index[2], f->index[3]));
        json_object_set_new(object, "got", json_number(f->got));
        json_object_set_new(object, "want", json_number(f->want));
        json_object_set_new(object, "error", json_number(fabs(f->got - f->want)));
    }
    if (!f->is_bound) {
        json_object_set_new(object, "wrong", json_integer((json_int_t)f->num_wrong));
        json_object_set_new(object, "of", json_integer((json_int_t)f->num));
    }
    return object;
}

static json_t *crash_json(const struct verify_crash *crash)
{
    return json_pack("{s:s, s:s, s:o, s:s, s:s, s:s, s:i}", "suite", crash->suite, "ending", crash->ending, "last_words",
                     json_text(crash->last_words), "op", crash->at.op, "case", crash->at.name, "kernels", crash->at.kernels,
                     "block", crash->at.block);
}

json_t *verify_json(const struct verify_report *report)
{
    const struct eq_bench_identity *id = &report->device.identity;
    json_t *rows = json_array(), *failures = json_array(), *crashes = json_array();
    for (int i = 0; i < report->num_rows; i++)
        json_array_append_new(rows, row_json(&report->rows[i]));
    for (int i = 0; i < report->num_failures; i++)
        json_array_append_new(failures, failure_json(&report->failures[i]));
    for (int i = 0; i < report->num_crashes; i++)
        json_array_append_new(crashes, crash_json(&report->crashes[i]));
    return json_pack("{s:s, s:i, s:{s:s, s:s, s:s, s:s}, s:o, s:o, s:s, s:s, s:f, s:i, s:i, s:o, s:o, s:o}", "format",
                     "equil-verify", "format_version", 1, "equil", "version", id->version, "commit", id->commit, "compiler",
                     id->compiler, "options", id->options, "device", device_json(&report->device), "environment",
                     environment_json(), "mode", report->is_full ? "full" : "quick", "verdict",
                     verify_is_right(report) ? "right" : is_undecided(report) ? "undecided" : "wrong", "seconds",
                     report->seconds, "suites", report->num_suites, "cases", report->num_cases, "rows", rows,
                     "failures", failures, "crashes", crashes);
}

// The JSON form. One table a struct says what there is; writing and reading follow it, so they cannot differ.
#include "bench_file.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { FORMAT_VERSION = 1 };
// Of numbers of any unit: beyond them nothing was measured, and quotients would have no end.
#define LEAST 1e-9
#define MOST 1e15
#define MOST_MIB 1e12 // of memory: its bytes have to fit a size_t

enum kind { TEXT, NUMBER, COUNT, FLAG };
struct field {
    const char *name;
    enum kind kind;
    size_t offset, bytes;
    bool is_positive; // numbers: at least LEAST, counts: 1; otherwise at least 0
};
#define FIELD_TEXT(type, name, member)                                                     \
    {                                                                                      \
        name, TEXT, offsetof(struct type, member), sizeof((struct type *)0)->member, false \
    }
#define FIELD(type, name, kind, member)                     \
    {                                                       \
        name, kind, offsetof(struct type, member), 0, false \
    }
#define FIELD_POSITIVE(type, name, kind, member)           \
    {                                                      \
        name, kind, offsetof(struct type, member), 0, true \
    }
#define END                     \
    {                           \
        NULL, TEXT, 0, 0, false \
    }

static const struct field device_fields[] = {
    FIELD_TEXT(bench_document, "name", device),
    FIELD_TEXT(bench_document, "vendor", vendor),
    FIELD_TEXT(bench_document, "platform", platform),
    FIELD_TEXT(bench_document, "driver", driver),
    FIELD_TEXT(bench_document, "kind", kind),
    FIELD(bench_document, "compute_units", COUNT, compute_units),
    FIELD(bench_document, "memory_mib", NUMBER, memory_mib),
    END,
};
static const struct field build_fields[] = {
    FIELD_TEXT(bench_document, "version", version),
    FIELD_TEXT(bench_document, "commit", commit),
    FIELD_TEXT(bench_document, "compiler", compiler),
    FIELD_TEXT(bench_document, "options", options),
    END,
};
static const struct field setup_fields[] = {
    FIELD_TEXT(bench_document, "kernels", family),
    FIELD_TEXT(bench_document, "tuning", tuning),
    FIELD_TEXT(bench_document, "precision", precision),
    FIELD(bench_document, "winograd", FLAG, winograd),
    END,
};
static const struct field record_fields[] = {
    FIELD_TEXT(bench_record, "kind", kind),
    FIELD_TEXT(bench_record, "arch", arch),
    FIELD_TEXT(bench_record, "mode", mode),
    FIELD_POSITIVE(bench_record, "batch", COUNT, batch),
    FIELD(bench_record, "size", COUNT, size),
    FIELD(bench_record, "classes", COUNT, classes),
    FIELD(bench_record, "small", FLAG, is_small),
    FIELD(bench_record, "recompute", FLAG, recompute),
    FIELD_TEXT(bench_record, "act", act),
    FIELD_TEXT(bench_record, "op", op),
    FIELD_TEXT(bench_record, "layer", layer),
    FIELD_TEXT(bench_record, "shape", shape),
    FIELD(bench_record, "count", COUNT, count),
    FIELD_TEXT(bench_record, "check", check),
    FIELD(bench_record, "images_per_second", NUMBER, images_per_second),
    FIELD(bench_record, "gflop", NUMBER, gflop),
    FIELD(bench_record, "conv_gflop", NUMBER, conv_gflop),
    FIELD(bench_record, "mbyte", NUMBER, mbyte),
    FIELD(bench_record, "first_result_seconds", NUMBER, first_seconds),
    FIELD(bench_record, "memory_mib", NUMBER, memory_mib),
    FIELD_POSITIVE(bench_record, "peak_gflop_per_second", NUMBER, peak_gflops),
    FIELD_POSITIVE(bench_record, "peak_gbyte_per_second", NUMBER, peak_gbytes),
    END,
};
static const struct field time_fields[] = {
    FIELD_POSITIVE(bench_time, "median_ms", NUMBER, median),
    FIELD_POSITIVE(bench_time, "low_ms", NUMBER, low),
    FIELD_POSITIVE(bench_time, "high_ms", NUMBER, high),
    FIELD_POSITIVE(bench_time, "best_ms", NUMBER, best),
    FIELD_POSITIVE(bench_time, "drift", NUMBER, drift),
    FIELD_POSITIVE(bench_time, "runs", COUNT, runs),
    END,
};
static const struct field step_fields[] = {
    FIELD_TEXT(bench_step, "layer", layer),
    FIELD_TEXT(bench_step, "kernel", kernel),
    FIELD_POSITIVE(bench_step, "median_ms", NUMBER, median),
    FIELD_POSITIVE(bench_step, "low_ms", NUMBER, low),
    FIELD_POSITIVE(bench_step, "high_ms", NUMBER, high),
    FIELD(bench_step, "gflop", NUMBER, gflop),
    FIELD(bench_step, "mbyte", NUMBER, mbyte),
    END,
};

// ---- writing

static json_t *write_fields(json_t *object, const struct field *fields, const void *base)
{
    for (const struct field *f = fields; object && f->name; f++) {
        const char *at = (const char *)base + f->offset;
        json_t *value = f->kind == TEXT     ? json_text(at)
                        : f->kind == NUMBER ? json_real(*(const double *)(const void *)at)
                        : f->kind == COUNT  ? json_integer(*(const int *)(const void *)at)
                                            : json_boolean(*(const bool *)(const void *)at);
        json_object_set_new(object, f->name, value);
    }
    return object;
}

static json_t *write_record(const struct bench_record *record)
{
    json_t *object = write_fields(json_object(), record_fields, record), *steps = json_array();
    json_object_set_new(object, "wall", write_fields(json_object(), time_fields, &record->wall));
    if (record->device.runs)
        json_object_set_new(object, "device", write_fields(json_object(), time_fields, &record->device));
    for (int i = 0; i < record->num_steps; i++) {
        const struct bench_step *step = &record->steps[i];
        json_t *written = write_fields(json_object(), step_fields, step);
        json_object_set_new(written, "share_of_roof", json_real(bench_share(record, step->gflop, step->mbyte, step->median)));
        json_object_set_new(written, "bound",
                            json_string(bench_is_compute_bound(record, step->gflop, step->mbyte) ? "compute" : "memory"));
        json_array_append_new(steps, written);
    }
    if (record->num_steps == 0)
        json_object_set_new(object, "share_of_roof",
                            json_real(bench_share(record, record->gflop, record->mbyte, record->wall.median)));
    json_object_set_new(object, "steps", steps);
    return object;
}

json_t *bench_document_json(const struct bench_document *document)
{
    json_t *object =
        json_pack("{s:s, s:i, s:s}", "format", "equil-bench", "format_version", FORMAT_VERSION, "created", document->created);
    json_object_set_new(object, "device", write_fields(json_object(), device_fields, document));
    json_object_set_new(object, "build", write_fields(json_object(), build_fields, document));
    json_object_set_new(object, "setup", write_fields(json_object(), setup_fields, document));
    json_t *results = json_array();
    for (int i = 0; i < document->num_records; i++)
        json_array_append_new(results, write_record(&document->records[i]));
    json_object_set_new(object, "results", results);
    return object;
}

// ---- reading

// "FILE: results[2].wall.median_ms ..." on stderr; false.
static bool refuse(const char *path, const char *where, const char *name, const char *what)
{
    message("%s: %s%s%s %s", path, where, *where && *name ? "." : "", name, what);
    return false;
}

static bool read_number(const char *path, const char *where, const struct field *f, const json_t *value, char *at)
{
    const bool is_number = f->kind == NUMBER ? json_is_number(value) : json_is_integer(value);
    const double number = is_number ? json_number_value(value) : 0;
    if (!is_number)
        return refuse(path, where, f->name, f->kind == NUMBER ? "is not a number" : "is not a whole number");
    const double least = !f->is_positive ? 0 : f->kind == COUNT ? 1 : LEAST, most = f->kind == COUNT ? INT_MAX : MOST;
    if (!(number >= least && number <= most)) {
        char what[96];
        snprintf(what, sizeof what, "is %g: it has to be in %g to %g", number, least, most);
        return refuse(path, where, f->name, what);
    }
    if (f->kind == NUMBER)
        *(double *)(void *)at = number;
    else
        *(int *)(void *)at = (int)number;
    return true;
}

// Texts go to terminals and into pages as they are: nothing from U+0000 to U+001F or from U+007F to U+009F.
static bool is_line(const json_t *value)
{
    const char *at = json_string_value(value);
    while (at && *at && (unsigned char)*at >= 32 && *at != 127 && !(at[0] == '\302' && (unsigned char)at[1] < 0xa0))
        at++;
    return at && !*at;
}

static bool read_fields(const char *path, const char *where, const json_t *object, const struct field *fields, void *base)
{
    if (!json_is_object(object))
        return refuse(path, where, "", "is not an object");
    for (const struct field *f = fields; f->name; f++) {
        const json_t *value = json_object_get(object, f->name);
        char *at = (char *)base + f->offset;
        if (!value)
            return refuse(path, where, f->name, "is missing");
        if (f->kind == TEXT && !is_line(value))
            return refuse(path, where, f->name, "is not a text, or has control characters");
        if (f->kind == FLAG && !json_is_boolean(value))
            return refuse(path, where, f->name, "is neither true nor false");
        if (f->kind == TEXT)
            snprintf(at, f->bytes, "%s", json_string_value(value));
        else if (f->kind == FLAG)
            *(bool *)(void *)at = json_is_true(value);
        else if (!read_number(path, where, f, value, at))
            return false;
    }
    return true;
}

static bool read_time(const char *path, const char *where, const char *name, const json_t *record, struct bench_time *time)
{
    char place[96];
    snprintf(place, sizeof place, "%s.%s", where, name);
    if (!read_fields(path, place, json_object_get(record, name), time_fields, time))
        return false;
    return time->low <= time->median && time->median <= time->high
               ? true
               : refuse(path, place, "", "has its median outside low_ms and high_ms");
}

static bool read_steps(const char *path, const char *where, const json_t *steps, struct bench_record *record)
{
    if (!json_is_array(steps))
        return refuse(path, where, "steps", "is not an array");
    record->steps = calloc(json_array_size(steps) + 1, sizeof *record->steps);
    if (!record->steps)
        return refuse(path, where, "steps", "does not fit into memory");
    record->num_steps = (int)json_array_size(steps);
    for (int i = 0; i < record->num_steps; i++) {
        char place[96];
        snprintf(place, sizeof place, "%s.steps[%d]", where, i);
        if (!read_fields(path, place, json_array_get(steps, (size_t)i), step_fields, &record->steps[i]))
            return false;
    }
    return true;
}

static bool read_record(const char *path, int index, const json_t *object, struct bench_record *record)
{
    char where[32];
    snprintf(where, sizeof where, "results[%d]", index);
    if (!read_fields(path, where, object, record_fields, record) || !read_time(path, where, "wall", object, &record->wall))
        return false;
    if (strcmp(record->kind, "network") != 0 && strcmp(record->kind, "op") != 0)
        return refuse(path, where, "kind", "is neither network nor op");
    if (json_object_get(object, "device") && !read_time(path, where, "device", object, &record->device))
        return false;
    if (strcmp(record->mode, "infer") != 0 && strcmp(record->mode, "train") != 0)
        return refuse(path, where, "mode", "is neither infer nor train");
    if (strcmp(record->kind, "network") == 0 && record->size == 0)
        return refuse(path, where, "size", "is 0: a network has images");
    if (record->memory_mib > MOST_MIB)
        return refuse(path, where, "memory_mib", "is more than there is");
    if (strcmp(record->kind, "network") == 0)
        record->images_per_second = record->batch * 1e3 / record->wall.median; // one truth: pages show both
    return read_steps(path, where, json_object_get(object, "steps"), record);
}

static bool has_format(const json_t *root)
{
    const json_t *format = json_object_get(root, "format");
    return json_is_string(format) && strcmp(json_string_value(format), "equil-bench") == 0;
}

static bool read_root(const char *path, const json_t *root, struct bench_document *document)
{
    const json_t *version = json_object_get(root, "format_version"), *results = json_object_get(root, "results"),
                 *created = json_object_get(root, "created");
    if (!has_format(root)) {
        message("%s: not a result of equil bench: its format is not \"equil-bench\"", path);
        return false;
    }
    if (!json_is_integer(version) || json_integer_value(version) != FORMAT_VERSION) {
        message("%s: format_version is %lld; this program reads %d", path, (long long)json_integer_value(version),
                FORMAT_VERSION);
        return false;
    }
    if (!is_line(created))
        return refuse(path, "", "created", "is not a text, or has control characters");
    snprintf(document->created, sizeof document->created, "%s", json_string_value(created));
    if (!read_fields(path, "device", json_object_get(root, "device"), device_fields, document) ||
        !read_fields(path, "build", json_object_get(root, "build"), build_fields, document) ||
        !read_fields(path, "setup", json_object_get(root, "setup"), setup_fields, document))
        return false;
    if (!json_is_array(results) || json_array_size(results) == 0)
        return refuse(path, "", "results", "has to be an array with something in it");
    for (int i = 0; i < (int)json_array_size(results); i++) {
        struct bench_record *record = bench_document_add(document);
        if (!record || !read_record(path, i, json_array_get(results, (size_t)i), record))
            return false;
        char where[32], what[96];
        snprintf(where, sizeof where, "results[%d]", i);
        snprintf(what, sizeof what, "is %s where results[0] is %s: a file has one kind", record->kind,
                 document->records[0].kind);
        if (strcmp(record->kind, document->records[0].kind) != 0)
            return refuse(path, where, "kind", what);
    }
    return true;
}

bool bench_document_read(const char *path, struct bench_document *document)
{
    json_error_t error;
    *document = (struct bench_document){ .path = path };
    FILE *file = fopen(path, "rb");
    if (!file) {
        message("cannot read %s: %s", path, strerror(errno));
        return false;
    }
    json_t *root = json_loadf(file, JSON_REJECT_DUPLICATES, &error);
    const int code = ferror(file) ? errno : 0;
    fclose(file);
    if (code) {
        message("cannot read %s: %s", path, strerror(code));
        json_decref(root);
        return false;
    }
    if (!root) {
        message("%s:%d: not JSON: %s", path, error.line, error.text);
        return false;
    }
    bool is_read = read_root(path, root, document);
    json_decref(root);
    return is_read;
}

bool bench_is_result(const char *path)
{
    struct stat status;
    if (stat(path, &status) != 0 || !S_ISREG(status.st_mode))
        return false;
    json_t *root = json_load_file(path, 0, NULL);
    const bool is_result = has_format(root);
    json_decref(root);
    return is_result;
}

void bench_document_free(struct bench_document *document)
{
    for (int i = 0; i < document->num_records; i++)
        free(document->records[i].steps);
    free(document->records);
    *document = (struct bench_document){ .num_records = 0 };
}

struct bench_record *bench_document_add(struct bench_document *document)
{
    const size_t num = (size_t)document->num_records + 1;
    struct bench_record *grown = realloc(document->records, num * sizeof *grown);
    if (!grown) {
        message("no memory for %zu results", num);
        return NULL;
    }
    document->records = grown;
    grown[num - 1] = (struct bench_record){ .num_steps = 0 };
    document->num_records = (int)num;
    return &grown[num - 1];
}

// ---- what records say

const char *bench_record_variant(const struct bench_record *r, char *text, size_t bytes)
{
    snprintf(text, bytes, ", %d classes%s%s%s", r->classes, r->is_small ? ", small" : "",
             strcmp(r->act, "elu") == 0 ? ", elu" : "", r->recompute ? ", recompute" : "");
    return text;
}

const char *bench_record_name(const struct bench_record *r, char *text, size_t bytes)
{
    char variant[64];
    if (strcmp(r->kind, "op") == 0)
        snprintf(text, bytes, "%s %s, %s, batch %d", r->op, r->shape, r->mode, r->batch);
    else
        snprintf(text, bytes, "%s %s, batch %d, %d px%s", r->arch, r->mode, r->batch, r->size,
                 bench_record_variant(r, variant, sizeof variant));
    return text;
}

bool bench_is_compute_bound(const struct bench_record *record, double gflop, double mbyte)
{
    return gflop / record->peak_gflops > mbyte * 1e-3 / record->peak_gbytes;
}

double bench_share(const struct bench_record *record, double gflop, double mbyte, double ms)
{
    return fmax(gflop / record->peak_gflops, mbyte * 1e-3 / record->peak_gbytes) / (ms * 1e-3);
}

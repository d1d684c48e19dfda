// equil bench: speed of a network or of single ops on a device, verified before it is timed; comparisons and reports of
// results.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench_table.h"
#include "command.h"
#include "network.h"
#include "output.h"
#include "workers.h"

struct bench_run {
    struct network_options network;
    const char *device, *precision, *mode, *op, *shapes, *curve, *json, *report;
    int batch, size;
    double seconds, interval, noise;
    bool is_compare;
};

static const int curve_batches[] = { 1, 2, 4, 8, 16, 32, 64 };
static const int curve_sizes[] = { 64, 96, 128, 160, 192, 224, 256, 320, 384, 448 };
enum { NUM_BATCHES = sizeof curve_batches / sizeof *curve_batches, NUM_SIZES = sizeof curve_sizes / sizeof *curve_sizes };

static bool is_curve(const struct bench_run *run)
{
    return strcmp(run->curve, "none") != 0;
}

static struct eq_bench_params params_of(const struct bench_run *run)
{
    return (struct eq_bench_params){ .n = run->batch,
                                     .size = run->size,
                                     .training = strcmp(run->mode, "train") == 0,
                                     .seconds = run->seconds > 0 ? run->seconds
                                                : is_curve(run)  ? 2
                                                                 : 0,
                                     .precision = run->interval };
}

static void identify(const struct eq_device *device, struct bench_document *d)
{
    struct eq_bench_identity id;
    eq_bench_identify(device, &id);
    const time_t now = time(NULL);
    struct tm utc;
    if (gmtime_r(&now, &utc))
        strftime(d->created, sizeof d->created, "%Y-%m-%dT%H:%M:%SZ", &utc);
    snprintf(d->device, sizeof d->device, "%s", id.device);
    snprintf(d->vendor, sizeof d->vendor, "%s", id.vendor);
    snprintf(d->platform, sizeof d->platform, "%s", id.platform);
    snprintf(d->driver, sizeof d->driver, "%s", id.driver);
    snprintf(d->kind, sizeof d->kind, "%s", id.kind);
    snprintf(d->family, sizeof d->family, "%s", id.family);
    snprintf(d->version, sizeof d->version, "%s", id.version);
    snprintf(d->commit, sizeof d->commit, "%s", id.commit);
    snprintf(d->compiler, sizeof d->compiler, "%s", id.compiler);
    snprintf(d->options, sizeof d->options, "%s", id.options);
    snprintf(d->tuning, sizeof d->tuning, "%s", id.tuning);
    snprintf(d->precision, sizeof d->precision, "%s", id.precision);
    d->compute_units = id.compute_units;
    d->memory_mib = (double)id.memory_bytes / 1048576;
    d->winograd = id.has_winograd;
}

static struct bench_time milliseconds(const struct eq_bench_time *t)
{
    return (struct bench_time){ t->median * 1e3, t->low * 1e3, t->high * 1e3, t->best * 1e3, t->drift, t->runs };
}

// What network and op records have in common.
static struct bench_record *add_record(const struct bench_run *run, const char *kind, const struct eq_bench_params *params,
                                       struct bench_document *document)
{
    struct bench_record *r = bench_document_add(document);
    if (!r)
        return NULL;
    snprintf(r->kind, sizeof r->kind, "%s", kind);
    snprintf(r->arch, sizeof r->arch, "%s", run->shapes ? run->shapes : run->network.arch);
    snprintf(r->mode, sizeof r->mode, "%s", run->mode);
    snprintf(r->act, sizeof r->act, "%s", run->network.act);
    r->batch = params->n;
    r->size = run->shapes ? 0 : params->size;
    r->classes = run->network.classes;
    // Not for networks that always have that stem: with the option and without it is one network.
    r->is_small = run->network.small && (run->shapes || !eq_model_is_small(&(struct eq_model_params){ .arch = r->arch }));
    r->recompute = run->network.recompute;
    return r;
}

static bool keep_result(const struct bench_run *run, const struct eq_bench_params *params, const struct eq_bench_result *result,
                        struct bench_document *document)
{
    struct bench_record *r = add_record(run, "network", params, document);
    if (!r || !(r->steps = calloc((size_t)result->num_rows + 1, sizeof *r->steps)))
        return false;
    snprintf(r->check, sizeof r->check, "finite, repeated");
    r->count = 1;
    r->wall = milliseconds(&result->wall);
    r->device = milliseconds(&result->device);
    r->gflop = result->flops * 1e-9;
    r->conv_gflop = result->conv_flops * 1e-9;
    r->images_per_second = params->n / result->wall.median;
    r->first_seconds = result->first_seconds;
    r->memory_mib = (double)result->peak_bytes_used / 1048576;
    r->peak_gflops = result->peak_flops * 1e-9;
    r->peak_gbytes = result->peak_bytes * 1e-9;
    for (int i = 0; i < result->num_rows; i++) {
        const struct eq_bench_row *row = &result->rows[i];
        struct bench_step *step = &r->steps[r->num_steps++];
        memcpy(step->layer, row->label, sizeof row->label);
        memcpy(step->kernel, row->kernel, sizeof row->kernel);
        step->median = row->seconds * 1e3;
        step->low = row->low * 1e3;
        step->high = row->high * 1e3;
        step->gflop = row->flops * 1e-9;
        step->mbyte = row->bytes * 1e-6;
    }
    return true;
}

static bool keep_ops(const struct bench_run *run, const struct eq_bench_params *params, const struct eq_bench_ops *ops,
                     struct bench_document *document)
{
    for (int i = 0; i < ops->num; i++) {
        const struct eq_bench_op *op = &ops->ops[i];
        struct bench_record *r = add_record(run, "op", params, document);
        if (!r)
            return false;
        memcpy(r->op, op->op, sizeof op->op);
        memcpy(r->layer, op->label, sizeof op->label);
        memcpy(r->shape, op->shape, sizeof op->shape);
        snprintf(r->check, sizeof r->check, "%s", op->check == EQ_BENCH_CHECK_DOUBLE ? "double precision" : "finite, repeated");
        r->count = op->count;
        r->wall = milliseconds(&op->wall);
        r->gflop = op->flops * 1e-9;
        r->mbyte = op->bytes * 1e-6;
        r->peak_gflops = ops->peak_flops * 1e-9;
        r->peak_gbytes = ops->peak_bytes * 1e-9;
    }
    return true;
}

// ---- measuring

// A point of a curve that does not fit into memory is left out, which is no failure.
static bool measure_network(const struct bench_run *run, struct eq_device *device, const struct eq_bench_params *params,
                            struct bench_document *document)
{
    struct eq_model_params model = network_params(&run->network);
    struct eq_network *network = NULL;
    struct eq_bench_result result = { .num_rows = 0 };
    const struct workers_job job = {
        .params = { .model = model, .n = params->n, .size = params->size, .training = params->training },
        .device = run->device,
        .precision = run->precision
    };
    struct workers workers;
    workers_help(&workers, device, &job);
    eq_status status = eq_network_create(device, &model, &network);
    if (status == EQ_OK)
        status = eq_network_bench(network, params, &result);
    workers_end_help(&workers, device, status == EQ_OK);
    const bool is_left_out = is_curve(run) && (status == EQ_ERR_DEVICE_MEMORY || status == EQ_ERR_HOST_MEMORY);
    bool is_done = is_left_out || (status == EQ_OK && keep_result(run, params, &result, document));
    if (is_left_out)
        message("batch %d of %d x %d pixels is left out: %s", params->n, params->size, params->size, eq_last_error());
    else if (status != EQ_OK)
        fail_with_last_error(NULL);
    eq_bench_result_free(&result);
    eq_network_destroy(&network);
    return is_done;
}

// Every point with a device of its own, so that its peak of memory is its own, too.
static bool measure_curve(const struct bench_run *run, struct bench_document *document)
{
    const bool is_batch = strcmp(run->curve, "batch") == 0;
    for (int i = 0; i < (is_batch ? NUM_BATCHES : NUM_SIZES); i++) {
        struct eq_bench_params params = params_of(run);
        if (is_batch)
            params.n = curve_batches[i];
        else
            params.size = curve_sizes[i];
        progress_line(false, "batch %d, %d x %d pixels", params.n, params.size, params.size);
        struct eq_device *device = NULL;
        if (open_device(run->device, run->precision, &device) != EQ_OK) {
            fail_with_last_error(NULL);
            return false;
        }
        const bool is_done = measure_network(run, device, &params, document);
        eq_device_destroy(&device);
        if (!is_done)
            return false;
    }
    progress_line(true, "%d points", document->num_records);
    return document->num_records > 0;
}

static char *read_text(const char *path)
{
    enum { MAX_BYTES = 1 << 20 };
    char *text = malloc(MAX_BYTES + 1);
    if (!text) {
        message("no memory for the %d bytes that %s may have", MAX_BYTES, path);
        return NULL;
    }
    FILE *file = fopen(path, "rb");
    const size_t bytes = file ? fread(text, 1, MAX_BYTES + 1, file) : 0;
    const int code = !file || ferror(file) ? errno : 0;
    if (file)
        fclose(file);
    if (code || bytes > MAX_BYTES) {
        if (code)
            message("cannot read %s: %s", path, strerror(code));
        else
            message("%s has more than the %d bytes that a list of layers may have", path, MAX_BYTES);
        free(text);
        return NULL;
    }
    text[bytes] = '\0';
    if (strlen(text) < bytes) {
        message("%s is not text: its byte %zu is 0", path, strlen(text));
        free(text);
        return NULL;
    }
    return text;
}

static bool measure_ops(const struct bench_run *run, struct eq_device *device, struct bench_document *document)
{
    const struct eq_bench_params params = params_of(run);
    struct eq_model_params model = network_params(&run->network);
    struct eq_bench_ops ops = { .num = 0 };
    eq_status status;
    if (run->shapes) {
        char *text = read_text(run->shapes);
        if (!text)
            return false;
        status = eq_shapes_bench_ops(device, run->shapes, text, run->op, &params, &ops);
        free(text);
    } else {
        status = eq_network_bench_ops(device, &model, run->op, &params, &ops);
    }
    if (status != EQ_OK)
        fail_with_last_error(NULL);
    bool is_done = status == EQ_OK && keep_ops(run, &params, &ops, document);
    eq_bench_ops_free(&ops);
    return is_done;
}

static void print(const struct bench_run *run, const struct bench_document *document)
{
    bench_print_identity(document);
    if (run->op)
        bench_print_ops(document);
    else if (is_curve(run))
        bench_print_curve(document);
    else
        bench_print_network(&document->records[0]);
}

static int measure(const struct bench_run *run)
{
    struct eq_device *device = NULL;
    struct bench_document document = { .num_records = 0 };
    const struct eq_bench_params params = params_of(run);
    int exit_code = EXIT_FAILED;
    if (run->json && !can_write(run->json))
        return EXIT_FAILED;
    if (open_device(run->device, run->precision, &device) != EQ_OK)
        return fail_with_last_error(NULL);
    identify(device, &document);
    if (is_curve(run))
        eq_device_destroy(&device);
    if (run->op         ? measure_ops(run, device, &document)
        : is_curve(run) ? measure_curve(run, &document)
                        : measure_network(run, device, &params, &document)) {
        exit_code = EXIT_SUCCESS;
        if (!run->json || strcmp(run->json, "-") != 0)
            print(run, &document);
        if (run->json)
            exit_code = json_write(bench_document_json(&document), run->json);
    }
    bench_document_free(&document);
    eq_device_destroy(&device);
    return exit_code;
}

// ---- the command

// A page must not take the place of a measurement: OUT.html is easily forgotten.
static int check_report(const char *out, char *const *files, int num_files)
{
    if (num_files < 1)
        return usage_error("bench", "--report OUT.html takes the files to report after it");
    for (int i = 0; i < num_files; i++)
        if (is_same_file(out, files[i]))
            return usage_error("bench", "--report would write over %s, a result to report: name the page first", files[i]);
    if (bench_is_result(out))
        return usage_error("bench", "--report would write over %s, a result of equil bench: name the page first", out);
    return EXIT_SUCCESS;
}

// What is asked for has to be one thing. Returns the exit code of a usage error, or EXIT_SUCCESS.
static int check_usage(const struct bench_run *run, const struct arg_option *options, char *const *files, int num_files)
{
    static const char *const of_compare[] = { "compare", "noise", NULL }, *const of_report[] = { "report", NULL };
    if (run->is_compare && run->report)
        return usage_error("bench", "--compare and --report are two things");
    const char *other = run->is_compare ? args_other(options, of_compare) : run->report ? args_other(options, of_report) : NULL;
    if (other)
        return usage_error("bench", "--%s does not go with --%s", other, run->is_compare ? "compare" : "report");
    if (run->is_compare)
        return num_files == 2 ? EXIT_SUCCESS : usage_error("bench", "--compare takes two files, not %d", num_files);
    if (run->report)
        return check_report(run->report, files, num_files);
    if (num_files)
        return usage_error("bench", "files are for --compare and --report");
    if (run->shapes && (!run->op || run->network.arch))
        return usage_error("bench", "--shapes goes with --op and without --arch");
    if (!run->network.arch && !run->shapes)
        return usage_error("bench", "--arch is missing");
    if (run->op && is_curve(run))
        return usage_error("bench", "--curve is of a network, --op of single ops");
    if (args_are_given(options, "noise"))
        return usage_error("bench", "--noise is for --compare");
    if (is_curve(run) && args_are_given(options, run->curve))
        return usage_error("bench", "--%s does not go with --curve %s, which goes through them", run->curve, run->curve);
    if (run->network.recompute && strcmp(run->mode, "train") != 0)
        return usage_error("bench", "--recompute is for --mode train");
    return EXIT_SUCCESS;
}

static int run_bench(int argc, char **argv)
{
    struct bench_run run = { 0 };
    struct arg_option options[] = {
        { .name = "arch",
          .kind = ARG_STRING,
          .value = &run.network.arch,
          .metavar = "NAME",
          .help = "network: resnet18, 34, 50, 101, 20 or 56; with ce-, bd-, ir- or se- before it" },
        { .name = "batch",
          .kind = ARG_INT,
          .value = &run.batch,
          .fallback = "16",
          .min = 1,
          .max = 65536,
          .help = "images in a batch" },
        { .name = "size",
          .kind = ARG_INT,
          .value = &run.size,
          .fallback = "0",
          .min = 0,
          .max = 4096,
          .help = "side of the images in pixels; 0: 224, or 32 with the small stem" },
        { .name = "mode",
          .kind = ARG_CHOICE,
          .value = &run.mode,
          .choices = "infer|train",
          .fallback = "infer",
          .help = "evaluation, or one training step with its update" },
        { .name = "op",
          .kind = ARG_STRING,
          .value = &run.op,
          .metavar = "NAME",
          .help = "each different call of an op in the network's plan, alone: conv2d, unit, ...;\nall: of every op" },
        { .name = "shapes",
          .kind = ARG_STRING,
          .value = &run.shapes,
          .metavar = "FILE",
          .help = "layers for --op from a list instead of a network" },
        { .name = "curve",
          .kind = ARG_CHOICE,
          .value = &run.curve,
          .choices = "none|batch|size",
          .fallback = "none",
          .help = "cost against the batch, 1 to 64, or the size, 64 to 448" },
        { .name = "seconds",
          .kind = ARG_FLOAT,
          .value = &run.seconds,
          .fallback = "0",
          .min = 0,
          .max = 3600,
          .help = "longest time to measure each figure for, after the warm-up;\n0: 5, on a curve 2, for an op 0.5" },
        { .name = "interval",
          .kind = ARG_FLOAT,
          .value = &run.interval,
          .fallback = "0.005",
          .min = 0.0001,
          .max = 1,
          .help = "stop earlier when the median is known this well: half the 95 % interval over it" },
        { .name = "json",
          .kind = ARG_STRING,
          .value = &run.json,
          .metavar = "FILE",
          .help = "write the result as JSON, too; -: nothing but JSON on stdout" },
        { .name = "compare",
          .kind = ARG_FLAG,
          .value = &run.is_compare,
          .help = "compare two results, A.json B.json; exit code 3: B is slower in something" },
        { .name = "noise",
          .kind = ARG_FLOAT,
          .value = &run.noise,
          .fallback = "0.01",
          .min = 0,
          .max = 1,
          .help = "smallest difference that --compare believes" },
        { .name = "report",
          .kind = ARG_STRING,
          .value = &run.report,
          .metavar = "OUT.html",
          .help = "write a page about the results FILE.json..., side by side" },
        NETWORK_OPTION_CLASSES(&run.network),
        NETWORK_OPTION_SMALL(&run.network),
        NETWORK_OPTION_ACT(&run.network),
        NETWORK_OPTION_RECOMPUTE(&run.network),
        ARG_OPTION_PRECISION(&run.precision),
        ARG_OPTION_DEVICE(&run.device),
        { 0 },
    };
    const struct arg_spec spec = { .command = "bench",
                                   .summary = "Measures the speed of a network or of single ops, after checking their results.",
                                   .positional = "[FILE.json...]",
                                   .max_positional = -1,
                                   .options = options };
    struct arg_result args;
    bool given[sizeof options / sizeof *options];
    args_note_given(options, given);
    if (args_parse(&spec, argc, argv, &args) != ARGS_RUN)
        return args.exit_code;
    const int usage = check_usage(&run, options, args.positional, args.num_positional);
    if (usage != EXIT_SUCCESS)
        return usage;
    if (run.is_compare)
        return bench_compare(args.positional[0], args.positional[1], run.noise);
    if (run.report)
        return bench_report(run.report, args.positional, args.num_positional);
    struct eq_model_params params = network_params(&run.network);
    if (run.size == 0)
        run.size = run.network.arch && eq_model_is_small(&params) ? 32 : 224;
    return measure(&run);
}

const struct command command_bench = { "bench", "measure the speed of a network or of single ops", run_bench };

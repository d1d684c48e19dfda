// equil bench: speed of a network on a device, verified before it is timed.
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "network.h"
#include "output.h"

struct bench_run {
    struct network_options network;
    const char *device, *mode, *json;
    int batch, size;
    double seconds;
};

static bool is_training(const struct bench_run *run)
{
    return strcmp(run->mode, "train") == 0;
}

static double conv_rate(const struct bench_run *run, const struct eq_bench_result *r)
{
    return r->conv_flops / run->batch * r->images_per_second;
}

static json_t *ops_json(const struct eq_bench_result *r)
{
    json_t *ops = json_array();
    for (int i = 0; i < r->num_rows; i++) {
        const struct eq_bench_row *row = &r->rows[i];
        json_array_append_new(ops, json_pack("{s:s, s:s, s:f, s:f, s:f}", "layer", row->label, "kernel", row->kernel, "time_ms",
                                             row->seconds * 1e3, "gflops", row->flops / row->seconds * 1e-9,
                                             "gbytes_per_second", row->bytes / row->seconds * 1e-9));
    }
    return ops;
}

static json_t *result_json(const struct bench_run *run, const struct eq_device *device, const struct eq_bench_result *r)
{
    return json_pack("{s:s, s:s, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:s, s:s, s:s, s:I, s:o}", "arch",
                     run->network.arch, "mode", run->mode, "batch", run->batch, "size", run->size, "runs", r->num_runs,
                     "images_per_second", r->images_per_second, "images_per_second_best", r->images_per_second_best, "gflops",
                     r->flops / run->batch * r->images_per_second * 1e-9, "fraction_of_peak", conv_rate(run, r) / r->peak_flops,
                     "peak_gflops", r->peak_flops * 1e-9, "peak_gbytes_per_second", r->peak_bytes * 1e-9,
                     "first_result_seconds", r->first_seconds, "device", eq_device_name(device), "driver",
                     eq_device_driver(device), "version", eq_version(), "peak_memory_bytes", (json_int_t)r->peak_bytes_used,
                     "ops", ops_json(r));
}

struct total {
    const char *kernel;
    int count;
    double seconds, flops, bytes;
};

static int by_seconds(const void *a, const void *b)
{
    double x = ((const struct total *)a)->seconds, y = ((const struct total *)b)->seconds;
    return x < y ? 1 : x > y ? -1 : 0;
}

// Time by kernel, longest first.
static void print_kernels(const struct eq_bench_result *r)
{
    struct total *totals = calloc((size_t)r->num_rows + 1, sizeof *totals);
    int num = 0;
    for (int i = 0; totals && i < r->num_rows; i++) {
        int t = 0;
        while (t < num && strcmp(totals[t].kernel, r->rows[i].kernel) != 0)
            t++;
        num = t == num ? num + 1 : num;
        totals[t].kernel = r->rows[i].kernel;
        totals[t].count++;
        totals[t].seconds += r->rows[i].seconds;
        totals[t].flops += r->rows[i].flops;
        totals[t].bytes += r->rows[i].bytes;
    }
    if (totals)
        qsort(totals, (size_t)num, sizeof *totals, by_seconds);
    printf("\n%-36s %6s %10s %10s %10s\n", "kernel", "steps", "ms", "GFLOP/s", "GB/s");
    for (int t = 0; totals && t < num; t++)
        printf("%-36s %6d %10.2f %10.1f %10.1f\n", totals[t].kernel, totals[t].count, totals[t].seconds * 1e3,
               totals[t].flops / totals[t].seconds * 1e-9, totals[t].bytes / totals[t].seconds * 1e-9);
    free(totals);
}

static void print_result(const struct bench_run *run, const struct eq_device *device, const struct eq_bench_result *r)
{
    char text[32];
    printf("%s, %s, batch %d of %d x %d pixels\n", run->network.arch, is_training(run) ? "training" : "inference", run->batch,
           run->size, run->size);
    printf("device              %s, driver %s, equil %s\n", eq_device_name(device), eq_device_driver(device), eq_version());
    printf("images/s            %.2f median, %.2f best of %d batches\n", r->images_per_second, r->images_per_second_best,
           r->num_runs);
    printf("arithmetic          %.1f GFLOP/s; convolutions at %.2f of the peak of %.1f GFLOP/s\n",
           r->flops / run->batch * r->images_per_second * 1e-9, conv_rate(run, r) / r->peak_flops, r->peak_flops * 1e-9);
    printf("bandwidth           %.1f GB/s copying\n", r->peak_bytes * 1e-9);
    printf("memory              %s of device memory at the peak\n", format_bytes(text, r->peak_bytes_used));
    printf("first result        %.2f s after the start, compiling included\n", r->first_seconds);
    print_kernels(r);
}

static int measure(const struct bench_run *run)
{
    struct eq_model_params params = network_params(&run->network);
    struct eq_device *device = NULL;
    struct eq_network *network = NULL;
    struct eq_bench_result result;
    int exit_code = EXIT_SUCCESS;
    if (eq_device_open(run->device, &device) != EQ_OK || eq_network_create(device, &params, &network) != EQ_OK ||
        eq_network_bench(network, run->batch, run->size, is_training(run), run->seconds, &result) != EQ_OK) {
        exit_code = fail_with_last_error(NULL);
    } else {
        bool is_stdout = run->json && strcmp(run->json, "-") == 0;
        if (!is_stdout)
            print_result(run, device, &result);
        if (run->json)
            exit_code = json_write(result_json(run, device, &result), run->json);
        eq_bench_result_free(&result);
    }
    eq_network_destroy(&network);
    eq_device_destroy(&device);
    return exit_code;
}

static int run_bench(int argc, char **argv)
{
    struct bench_run run = { 0 };
    const struct arg_option options[] = {
        NETWORK_OPTION_ARCH(&run.network),
        { .name = "batch", .kind = ARG_INT, .value = &run.batch, .fallback = "16", .min = 1, .max = 65536,
          .help = "images in a batch" },
        { .name = "size", .kind = ARG_INT, .value = &run.size, .fallback = "0", .min = 0, .max = 4096,
          .help = "side of the images in pixels; 0: 224, or 32 with the small stem" },
        { .name = "mode", .kind = ARG_CHOICE, .value = &run.mode, .choices = "infer|train", .fallback = "infer",
          .help = "evaluation, or one training step with its update" },
        { .name = "seconds", .kind = ARG_FLOAT, .value = &run.seconds, .fallback = "5", .min = 0, .max = 3600,
          .help = "time to measure for, at least 5 batches" },
        { .name = "json", .kind = ARG_STRING, .value = &run.json, .metavar = "FILE",
          .help = "write the result as JSON, too; -: nothing but JSON on stdout" },
        NETWORK_OPTION_CLASSES(&run.network),
        NETWORK_OPTION_SMALL(&run.network),
        NETWORK_OPTION_ACT(&run.network),
        ARG_OPTION_DEVICE(&run.device),
        { 0 },
    };
    const struct arg_spec spec = { .command = "bench",
                                   .summary = "Measures the speed of a network on a device, after checking its results.",
                                   .options = options };
    struct arg_result args;
    if (args_parse(&spec, argc, argv, &args) != ARGS_RUN)
        return args.exit_code;
    struct eq_model_params params = network_params(&run.network);
    if (run.size == 0)
        run.size = eq_model_is_small(&params) ? 32 : 224;
    return measure(&run);
}

const struct command command_bench = { "bench", "measure a network's speed on a device", run_bench };

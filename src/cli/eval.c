// equil eval: how good a trained network is on labelled images.
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "command.h"
#include "network.h"
#include "output.h"
#include "workers.h"

static void print_progress(void *user, size_t images, size_t num_images)
{
    (void)user;
    progress_line(false, "%zu of %zu images", images, num_images);
}

static json_t *result_json(const struct eq_classifier *classifier, const struct eq_device *device,
                           const struct eq_evaluation *e)
{
    return json_pack("{s:f, s:f, s:o, s:o, s:I, s:I, s:s, s:i, s:o, s:s}", "top1", e->top1, "top5", e->top5, "loss",
                     json_number(e->loss), "images_per_second",
                     e->images_per_second > 0 ? json_real(e->images_per_second) : json_null(), "images", (json_int_t)e->images,
                     "skipped", (json_int_t)e->skipped, "arch", eq_classifier_arch(classifier), "classes",
                     eq_classifier_num_classes(classifier), "device", json_text(eq_device_name(device)), "precision",
                     eq_device_precision_text(device));
}

static void print_result(const struct eq_evaluation *e)
{
    printf("top-1 %.2f %%  top-5 %.2f %%  loss %.4f  of %zu images (%zu broken ones left out)", 100 * e->top1, 100 * e->top5,
           e->loss, e->images, e->skipped);
    if (e->images_per_second > 0) // not known from a single batch
        printf("  %.1f images/s", e->images_per_second);
    putchar('\n');
}

static int evaluate(const char *selector, const char *precision, const struct eq_classifier_params *params, const char *data,
                    bool is_json)
{
    struct eq_device *device = NULL;
    struct eq_classifier *classifier;
    struct eq_evaluation e;
    if (open_device(selector, precision, &device) != EQ_OK)
        return fail_with_last_error(NULL);
    int exit_code = EXIT_SUCCESS;
    eq_status status = eq_classifier_create(device, params, &classifier);
    if (status == EQ_OK) {
        const struct workers_job job = { .params = { .model = *eq_classifier_model(classifier), .n = params->batch,
                                                     .size = eq_classifier_size(classifier) },
                                         .device = selector, .precision = precision };
        struct workers workers;
        workers_help(&workers, device, &job);
        status = eq_classifier_evaluate(classifier, data, print_progress, NULL, &e);
        workers_end_help(&workers, device, status == EQ_OK);
    }
    if (status != EQ_OK)
        exit_code = fail_with_last_error(NULL);
    else if (is_json)
        exit_code = json_print(result_json(classifier, device, &e));
    else
        print_result(&e);
    eq_classifier_destroy(&classifier);
    eq_device_destroy(&device);
    return exit_code;
}

static int run_eval(int argc, char **argv)
{
    struct eq_classifier_params params = { 0 };
    const char *device, *precision, *data;
    bool is_json;
    const struct arg_option options[] = {
        { .name = "weights",
          .kind = ARG_STRING,
          .value = &params.weights,
          .metavar = "FILE",
          .is_required = true,
          .help = "safetensors file that 'equil train' wrote, or any with PyTorch's names and --arch" },
        { .name = "data",
          .kind = ARG_STRING,
          .value = &data,
          .metavar = "DATA",
          .is_required = true,
          .help = "labelled images as for 'equil train'; their test part when there is one" },
        { .name = "batch",
          .kind = ARG_INT,
          .value = &params.batch,
          .fallback = "32",
          .min = 1,
          .max = 65536,
          .help = "images in a batch" },
        { .name = "arch",
          .kind = ARG_STRING,
          .value = &params.arch,
          .metavar = "NAME",
          .help = "network, for a file whose metadata does not name it" },
        { .name = "small", .kind = ARG_FLAG, .value = &params.small, .help = "with --arch: the stem for small images" },
        { .name = "size",
          .kind = ARG_INT,
          .value = &params.size,
          .min = 8,
          .max = 4096,
          .help = "side of the network's images in pixels (default: the file's)" },
        ARG_OPTION_PRECISION(&precision),
        ARG_OPTION_DEVICE(&device),
        ARG_OPTION_JSON(&is_json),
        { 0 },
    };
    const struct arg_spec spec = { .command = "eval",
                                   .summary = "Evaluates a trained network on labelled images.",
                                   .options = options };
    struct arg_result args;
    if (args_parse(&spec, argc, argv, &args) != ARGS_RUN)
        return args.exit_code;
    return evaluate(device, precision, &params, data, is_json);
}

const struct command command_eval = { "eval", "evaluate a trained network on labelled images", run_eval };

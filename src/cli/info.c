// equil info: layers, sizes, arithmetic and planned memory of a network. Opens no device unless one is named.
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "network.h"
#include "output.h"

static json_t *info_json(const struct eq_model_params *params, int batch, int size, const char *precision, const char *tuning,
                         const struct eq_model_info *info)
{
    json_t *layers = json_array();
    for (int i = 0; i < info->num_layers; i++) {
        const struct eq_layer_info *layer = &info->layers[i];
        json_array_append_new(layers, json_pack("{s:s, s:s, s:[i,i,i,i], s:I, s:f}", "name", layer->name, "op", layer->op,
                                                "shape", layer->shape[0], layer->shape[1], layer->shape[2], layer->shape[3],
                                                "parameters", (json_int_t)layer->parameters, "flops", layer->flops));
    }
    json_t *object = json_pack(
        "{s:s, s:s, s:o, s:i, s:i, s:i, s:I, s:I, s:f, s:f, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:o}", "arch", params->arch,
        "precision", precision, "tuning", json_text(tuning), "classes", params->classes, "batch", batch, "size", size,
        "parameters", (json_int_t)info->parameters, "tensors", (json_int_t)info->tensors, "flops", info->flops, "conv_flops",
        info->conv_flops, "weight_bytes", (json_int_t)info->weight_bytes, "inference_bytes", (json_int_t)info->inference_bytes,
        "training_bytes", (json_int_t)info->training_bytes, "recompute_bytes", (json_int_t)info->recompute_bytes,
        "training_flops", info->training_flops, "training_traffic", info->training_traffic, "recompute_flops",
        info->recompute_flops, "recompute_traffic", info->recompute_traffic, "layers", layers);
    static const char *const of_training[] = { "training_bytes", "recompute_bytes", "training_flops",
                                               "training_traffic", "recompute_flops", "recompute_traffic" };
    for (size_t i = 0; info->training_bytes == 0 && i < sizeof of_training / sizeof *of_training; i++)
        json_object_set_new(object, of_training[i], json_null());
    return object;
}

static void print_info(const struct eq_model_params *params, int batch, int size, const char *precision, const char *tuning,
                       const struct eq_model_info *info)
{
    char text[4][32];
    printf("%-28s %-12s %22s %12s %10s\n", "layer", "op", "output", "parameters", "MFLOP");
    for (int i = 0; i < info->num_layers; i++) {
        const struct eq_layer_info *layer = &info->layers[i];
        char shape[64];
        snprintf(shape, sizeof shape, "%d x %d x %d x %d", layer->shape[0], layer->shape[1], layer->shape[2], layer->shape[3]);
        printf("%-28s %-12s %22s %12zu %10.1f\n", layer->name, layer->op, shape, layer->parameters, layer->flops * 1e-6);
    }
    printf("\n%s, %d classes, batch %d of %d x %d pixels\n", params->arch, params->classes, batch, size, size);
    printf("precision           %s\n", precision);
    printf("tuning              %s\n", tuning);
    printf("parameters          %zu in a state dict of %zu tensors\n", info->parameters, info->tensors);
    printf("forward             %.2f GFLOP an image, %.2f of them in convolutions (a multiply-add is two)\n",
           info->flops * 1e-9 / batch, info->conv_flops * 1e-9 / batch);
    printf("memory, inference   %s planned, %s of it weights\n", format_bytes(text[0], info->inference_bytes),
           format_bytes(text[1], info->weight_bytes));
    if (info->training_bytes == 0) {
        printf("training            does not take such batches: a norm would have one value per channel, without variance\n");
        return;
    }
    printf("memory, training    %s planned, %s with --recompute\n", format_bytes(text[2], info->training_bytes),
           format_bytes(text[3], info->recompute_bytes));
    printf("cost of --recompute %.1f %% more memory traffic in forward and backward, %.2f %% more arithmetic\n",
           100 * info->recompute_traffic / info->training_traffic, 100 * info->recompute_flops / info->training_flops);
}

// Network and input size from the metadata of a weights file.
static bool options_from_weights(const char *path, struct network_options *network, int *size)
{
    struct eq_tensors *file;
    if (eq_tensors_open(path, &file) != EQ_OK) {
        fail_with_last_error(NULL);
        return false;
    }
    const char *arch = eq_tensors_text(file, "arch"), *classes = eq_tensors_text(file, "classes"),
               *stem = eq_tensors_text(file, "small");
    const char *act = eq_tensors_text(file, "act"), *side = eq_tensors_text(file, "size");
    const struct eq_model_params own = { .arch = arch, .small = stem && strcmp(stem, "1") == 0 };
    bool ok = arch && classes;
    if (ok && eq_model_check_file(&own, path) != EQ_OK) {
        ok = false;
        fail_with_last_error(NULL);
    } else if (ok) {
        static char arch_text[64], act_text[16]; // outlive the file
        snprintf(arch_text, sizeof arch_text, "%s", arch);
        snprintf(act_text, sizeof act_text, "%s", act ? act : "relu");
        *network = (struct network_options){
            .arch = arch_text, .act = act_text, .classes = atoi(classes), .small = own.small
        };
        if (side && *size == 0)
            *size = atoi(side);
    } else {
        message("%s: its metadata does not say which network it belongs to; use --arch and --classes", path);
    }
    eq_tensors_close(&file);
    return ok;
}

// A plan in another precision is that of a device.
static bool is_device_wanted(const char *selector)
{
    return selector || eq_device_is_wanted();
}

static int describe(const char *selector, const struct eq_model_params *params, int batch, int size, bool is_json)
{
    struct eq_device *device = NULL;
    struct eq_model_info info;
    char precision[64] = "fp32", tuning[384] = "none";
    if (is_device_wanted(selector) && eq_device_open(selector, &device) != EQ_OK)
        return fail_with_last_error(NULL);
    eq_status status = eq_model_describe(device, params, batch, size, size, &info);
    if (device) {
        snprintf(precision, sizeof precision, "%s", eq_device_precision_text(device));
        snprintf(tuning, sizeof tuning, "%s", eq_device_tuning_text(device));
    }
    eq_device_destroy(&device);
    if (status != EQ_OK)
        return fail_with_last_error(NULL);
    int exit_code = EXIT_SUCCESS;
    if (is_json)
        exit_code = json_print(info_json(params, batch, size, precision, tuning, &info));
    else
        print_info(params, batch, size, precision, tuning, &info);
    eq_model_info_free(&info);
    return exit_code;
}

static int run_info(int argc, char **argv)
{
    struct network_options network = { .arch = NULL };
    const char *device, *weights;
    int batch, size;
    bool is_json;
    static const char *const of_weights[] = { "weights", "batch", "size", "device", "json", NULL };
    struct arg_option options[] = {
        { .name = "arch",
          .kind = ARG_STRING,
          .value = &network.arch,
          .metavar = "NAME",
          .help = "network: resnet18, 34, 50, 101, 20 or 56; with ce-, bd-, ir- or se- before it" },
        { .name = "weights",
          .kind = ARG_STRING,
          .value = &weights,
          .metavar = "FILE",
          .help = "or the network that a file written by 'equil train' holds" },
        NETWORK_OPTION_CLASSES(&network),
        NETWORK_OPTION_SMALL(&network),
        NETWORK_OPTION_ACT(&network),
        { .name = "batch",
          .kind = ARG_INT,
          .value = &batch,
          .fallback = "16",
          .min = 1,
          .max = 65536,
          .help = "images in a batch" },
        { .name = "size",
          .kind = ARG_INT,
          .value = &size,
          .fallback = "0",
          .min = 0,
          .max = 4096,
          .help = "side of the images in pixels; 0: 224, or 32 with the small stem" },
        { .name = "device",
          .kind = ARG_STRING,
          .value = &device,
          .metavar = "DEVICE",
          .help =
              "part of a device's name, vendor or platform, an index, gpu or cpu\n"
              "(default: $EQUIL_DEVICE, else none is opened)" },
        ARG_OPTION_JSON(&is_json),
        { 0 },
    };
    const struct arg_spec spec = {
        .command = "info",
        .summary = "Layers, parameters, arithmetic and planned memory of a network.",
        .options = options,
        .notes = "The plan is that of the device, tuned as it is, or without one of a processor with vectors\n"
                 "of 16 floats in fp32. With $EQUIL_PRECISION a device is opened, the first GPU, else the\n"
                 "first CPU, where none is named."
    };
    struct arg_result args;
    bool given[sizeof options / sizeof *options];
    args_note_given(options, given);
    if (args_parse(&spec, argc, argv, &args) != ARGS_RUN)
        return args.exit_code;
    if (!network.arch == !weights)
        return usage_error("info", "name a network with either --arch or --weights");
    const char *other = weights ? args_other(options, of_weights) : NULL;
    if (other)
        return usage_error("info", "--%s does not go with --weights, whose file says it", other);
    if (weights && !options_from_weights(weights, &network, &size))
        return EXIT_FAILED;
    struct eq_model_params params = network_params(&network);
    if (size == 0)
        size = eq_model_is_small(&params) ? 32 : 224;
    return describe(device, &params, batch, size, is_json);
}

const struct command command_info = { "info", "layers, sizes, arithmetic and memory of a network", run_info };

// What the commands that run networks share: the options that name a network, and opening it.
#ifndef EQUIL_CLI_NETWORK_H
#define EQUIL_CLI_NETWORK_H

#include "args.h"
#include "equil/equil.h"

// Values of the options that name a network.
struct network_options {
    const char *arch, *act;
    int classes;
    bool small, recompute;
};
#define NETWORK_OPTION_ARCH(options)                                                                                       \
    { .name = "arch", .kind = ARG_STRING, .value = &(options)->arch, .metavar = "NAME", .is_required = true,                \
      .help = "network: resnet18, 34, 50, 101, 20 or 56; with ce-, bd-, ir- or se- before it" }
#define NETWORK_OPTION_CLASSES(options)                                                                                    \
    { .name = "classes", .kind = ARG_INT, .value = &(options)->classes, .fallback = "1000", .min = 2, .max = 1000000,       \
      .help = "number of classes" }
#define NETWORK_OPTION_SMALL(options)                                  \
    {                                                                  \
        .name = "small", .kind = ARG_FLAG, .value = &(options)->small, \
        .help = "3x3 stride-1 stem without pooling, for small images"  \
    }
#define NETWORK_OPTION_ACT(options)                                                                             \
    {                                                                                                           \
        .name = "act", .kind = ARG_CHOICE, .value = &(options)->act, .choices = "relu|elu", .fallback = "relu", \
        .help = "activation"                                                                                    \
    }
#define NETWORK_OPTION_RECOMPUTE(options)                                                                    \
    {                                                                                                         \
        .name = "recompute", .kind = ARG_FLAG, .value = &(options)->recompute,                                \
        .help = "make activations again in the backward pass rather than keep them:\nless memory, same results" \
    }
struct eq_model_params network_params(const struct network_options *options);

// eq_device_open() and, unless it is NULL, eq_device_set_precision().
eq_status open_device(const char *selector, const char *precision, struct eq_device **device);

// A network on a device with the weights of a file, and a batch of images.
struct network_job {
    struct eq_device *device;
    struct eq_network *network;
    struct eq_tensors *input;
    float *images, *logits; // [n, 3, h, w], [n, classes]
    int64_t *labels;        // [n], or NULL
    int n, h, w;
};
// What such a job works with: the device's name, and files, of which the last is written.
struct network_names {
    const char *device, *weights, *input, *output;
};
// Opens everything but the output, which must be another file than those that are read; false: the message was printed.
// network_job_close() in both cases.
bool network_job_open(const struct network_options *options, const struct network_names *names, bool has_labels,
                      struct network_job *job);
void network_job_close(struct network_job *job);

#endif

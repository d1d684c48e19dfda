// equil train: a network from images.
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "args.h"
#include "command.h"
#include "network.h"
#include "output.h"
#include "signals.h"
#include "workers.h"

static struct eq_trainer *running; // for the signal handler

static void stop_running(void)
{
    eq_trainer_stop(running);
}

// `user`: whether an epoch has ended, when all kernels have run.
static void print_progress(void *user, const struct eq_train_progress *p)
{
    *(bool *)user |= p->is_epoch_end;
    char seconds[32], speed[32] = "", left[48] = "", skipped[48] = "";
    if (p->images_per_second > 0) { // not known in the first step
        snprintf(speed, sizeof speed, "  %.1f images/s", p->images_per_second);
        snprintf(left, sizeof left, "  %s left", format_seconds(seconds, p->seconds_left));
    }
    if (p->skipped)
        snprintf(skipped, sizeof skipped, "  %zu broken", p->skipped);
    if (p->is_epoch_end)
        progress_line(true, "epoch %d/%d  loss %.4f  top-1 %.2f %%  validation: loss %.4f  top-1 %.2f %%%s%s%s", p->epoch + 1,
                      p->num_epochs, p->loss, 100 * p->top1, p->val_loss, 100 * p->val_top1, p->is_best ? " (best)" : "", speed,
                      skipped);
    else if (p->is_validation)
        progress_line(false, "epoch %d/%d  validation %lld/%lld", p->epoch + 1, p->num_epochs, (long long)p->step,
                      (long long)p->num_steps);
    else
        progress_line(false, "epoch %d/%d  step %lld/%lld  loss %.4f  top-1 %.2f %%%s%s%s", p->epoch + 1, p->num_epochs,
                      (long long)p->step, (long long)p->num_steps, p->loss, 100 * p->top1, speed, left, skipped);
}

static void print_summary(const struct eq_device *device, const struct eq_train_summary *summary)
{
    const struct eq_train_params *p = &summary->params;
    char memory[32], batch[64] = "";
    format_bytes(memory, summary->planned_bytes);
    if (p->accumulate > 1)
        snprintf(batch, sizeof batch, " x %d", p->accumulate);
    message("%s%s on %s (driver %s), %s", p->arch, p->small ? " (small)" : "", eq_device_name(device),
            eq_device_driver(device), eq_device_precision_text(device));
    message("%zu training images of %d classes, %zu validation images%s", summary->train_images, summary->classes,
            summary->val_images,
            summary->is_held_out ? " (a tenth of the data, held out by the seed: there is no --val and no test part)" : "");
    message("%d epochs of %lld steps, batch %d%s, %d x %d pixels, seed %llu", p->epochs, (long long)summary->steps_per_epoch,
            p->batch, batch, p->size, p->size, (unsigned long long)p->seed);
    message("planned memory on the device: %s", memory);
    if (summary->epoch == p->epochs)
        message("the run is finished: nothing is left to do");
    else if (summary->epoch || summary->step)
        message("resuming in epoch %d after step %lld", summary->epoch + 1, (long long)summary->step);
}

// What a run that cannot go on has left.
static const char *ending(const char *out)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/checkpoint.safetensors", out);
    return access(path, F_OK) == 0 ? "training stopped, the last good checkpoint is kept"
                                   : "training stopped before there was a checkpoint";
}

// A finished run, too, comes here when it is resumed: what it wrote may have been taken away since.
static int print_done(const char *out)
{
    static const char *const names[] = { "model.safetensors", "best.safetensors" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", out, names[i]);
        if (access(path, F_OK) != 0) {
            message("the run is finished, but %s is not there any more", path);
            return EXIT_FAILED;
        }
    }
    message("done: %s/%s has the last epoch's weights, %s/%s the best", out, names[0], out, names[1]);
    return EXIT_SUCCESS;
}

static int train(const char *selector, const char *precision, const struct eq_train_params *params)
{
    struct eq_device *device = NULL;
    struct eq_trainer *trainer;
    if (open_device(selector, precision, &device) != EQ_OK)
        return fail_with_last_error(NULL);
    int exit_code = EXIT_SUCCESS;
    if (eq_trainer_create(device, params, &trainer) == EQ_OK) {
        const struct eq_train_summary *summary = eq_trainer_summary(trainer);
        const struct eq_train_params *p = &summary->params;
        const struct workers_job job = {
            .params = { .model = { .arch = p->arch, .classes = summary->classes, .small = p->small, .act = p->act,
                                   .recompute = p->recompute },
                        .n = p->batch, .size = p->size, .training = true },
            .device = selector, .precision = precision,
        };
        struct workers workers;
        bool has_epoch = false;
        print_summary(device, summary);
        workers_help(&workers, device, &job);
        running = trainer;
        signals_ignore_pipe(); // not before: the workers have it as it was
        signals_catch(stop_running);
        const struct eq_train_callbacks callbacks = { .progress = print_progress, .user = &has_epoch };
        eq_status status = eq_trainer_run(trainer, &callbacks);
        signals_release();
        workers_end_help(&workers, device, status == EQ_OK || (status == EQ_ERR_INTERRUPTED && has_epoch));
        if (status == EQ_ERR_INTERRUPTED) {
            message("%s; go on with --resume", eq_last_error());
            exit_code = EXIT_STOPPED;
        } else if (status != EQ_OK) {
            exit_code = fail_with_last_error(status == EQ_ERR_NUMERIC ? ending(params->out) : NULL);
        } else {
            exit_code = print_done(params->out);
        }
    } else {
        exit_code = fail_with_last_error(NULL);
    }
    eq_trainer_destroy(&trainer);
    eq_device_destroy(&device);
    return exit_code;
}

// Where the options' values go.
static struct {
    struct eq_train_params params;
    const char *act, *schedule, *augment, *device, *precision;
    int64_t seed;
    bool has_rate, has_warmup, has_momentum, has_decay, has_smoothing; // on the command line
} given;

static const struct arg_option options[] = {
    { .name = "arch",
      .kind = ARG_STRING,
      .value = &given.params.arch,
      .metavar = "NAME",
      .help = "network: resnet18, 34, 50, 101, 20 or 56; with ce-, bd-, ir- or se- before it" },
    { .name = "data",
      .kind = ARG_STRING,
      .value = &given.params.data,
      .metavar = "DATA",
      .help = "a folder with a folder of images per class, or one with train/ and val/ of that form;\ncifar10:DIR, idx:DIR "
              "or shapes" },
    { .name = "val",
      .kind = ARG_STRING,
      .value = &given.params.val,
      .metavar = "DATA",
      .help = "what to validate on (default: the test part of --data, else a tenth of it\nthat is held out by the seed)" },
    { .name = "out",
      .kind = ARG_STRING,
      .value = &given.params.out,
      .metavar = "DIR",
      .is_required = true,
      .help = "folder for weights, checkpoint and log" },
    { .name = "epochs",
      .kind = ARG_INT,
      .value = &given.params.epochs,
      .min = 1,
      .max = 100000,
      .help = "passes over the data (default: 100; small: 30)" },
    { .name = "batch",
      .kind = ARG_INT,
      .value = &given.params.batch,
      .min = 1,
      .max = 65536,
      .help = "images in a batch (default: 32; small: 64); where there are too few for an\nupdate, those that there are" },
    { .name = "accumulate",
      .kind = ARG_INT,
      .value = &given.params.accumulate,
      .min = 1,
      .max = 65536,
      .help = "batches whose gradients are averaged for one update (default: 1);\nstatistics are those of each batch" },
    { .name = "lr",
      .kind = ARG_FLOAT,
      .value = &given.params.rate,
      .is_given = &given.has_rate,
      .min = 0,
      .max = 1e30,
      .help = "base learning rate (default: 0.1 * batch * accumulate / 256, of the batch\nthat is used; small: 0.1)" },
    { .name = "schedule",
      .kind = ARG_CHOICE,
      .value = &given.schedule,
      .choices = "step|cosine",
      .help = "step: a tenth after 30, 60 and 90 % of the epochs;\ncosine: down to 0 (default: step; small: cosine)" },
    { .name = "warmup",
      .kind = ARG_FLOAT,
      .value = &given.params.warmup,
      .is_given = &given.has_warmup,
      .min = 0,
      .max = 100000,
      .help = "epochs over which the rate rises from 0 (default: 5; small: 1; at most a\nquarter of the epochs)" },
    { .name = "momentum",
      .kind = ARG_FLOAT,
      .value = &given.params.momentum,
      .is_given = &given.has_momentum,
      .min = 0,
      .max = 1,
      .help = "(default: 0.9)" },
    { .name = "weight-decay",
      .kind = ARG_FLOAT,
      .value = &given.params.weight_decay,
      .is_given = &given.has_decay,
      .min = 0,
      .max = 1e30,
      .help = "of every parameter (default: 0.0001)" },
    { .name = "label-smoothing",
      .kind = ARG_FLOAT,
      .value = &given.params.label_smoothing,
      .is_given = &given.has_smoothing,
      .min = 0,
      .max = 0.999999,
      .help = "share of the target on the other classes (default: 0.1; small: 0)" },
    { .name = "size",
      .kind = ARG_INT,
      .value = &given.params.size,
      .min = 8,
      .max = 4096,
      .help = "side of the network's images in pixels (default: 224; small: 32)" },
    { .name = "augment",
      .kind = ARG_CHOICE,
      .value = &given.augment,
      .choices = "none|light|full",
      .help = "light: crop moved by up to 4 pixels, flip; full: crop of random area\nand aspect, flip, colour (default: "
              "full; small: light)" },
    { .name = "small",
      .kind = ARG_FLAG,
      .value = &given.params.small,
      .help = "3x3 stride-1 stem without pooling, for small images" },
    { .name = "act", .kind = ARG_CHOICE, .value = &given.act, .choices = "relu|elu", .help = "activation (default: relu)" },
    { .name = "recompute",
      .kind = ARG_FLAG,
      .value = &given.params.recompute,
      .help = "make activations again in the backward pass rather than keep them: less\nmemory, same results; a resumed "
              "run may choose anew" },
    { .name = "seed",
      .kind = ARG_INT64,
      .value = &given.seed,
      .is_given = &given.params.has_seed,
      .min = 0,
      .max = 9e18,
      .help = "of initial weights, order, augmentation and held-out images (default: 0)" },
    { .name = "weights",
      .kind = ARG_STRING,
      .value = &given.params.weights,
      .metavar = "FILE",
      .help = "safetensors file to start from" },
    { .name = "new-head",
      .kind = ARG_FLAG,
      .value = &given.params.new_head,
      .help = "with --weights: a new classifier where the file's has another shape" },
    { .name = "resume",
      .kind = ARG_FLAG,
      .value = &given.params.resume,
      .help = "go on from the checkpoint in --out; options that are not given are those\nof its run, other values and other "
              "images are refused; --data and --val have\nto be given again: paths in files are not followed" },
    ARG_OPTION_PRECISION(&given.precision),
    ARG_OPTION_DEVICE(&given.device),
    { 0 },
};
static const struct arg_spec spec = {
    .command = "train",
    .summary = "Trains a network on labelled images.",
    .options = options,
    .notes = "\"small\" stands for resnet20, resnet56 and --small. Ctrl-C, SIGTERM and SIGHUP end after the step and save the "
             "position in the\n"
             "epoch (exit code 130); --resume then gives the same bits as a run that was never stopped, and a warning where\n"
             "another version's kernels may sum in another order. DIR gets model.safetensors (last epoch), best.safetensors\n"
             "(best validation top-1), checkpoint.safetensors and log.jsonl (one JSON object a line).",
};

// Numbers whose 0 is a value and not the default.
static double number(bool is_given, double value)
{
    return is_given && value == 0 ? -1 : value;
}

static void set_choices(struct eq_train_params *params)
{
    const char *augment = given.augment;
    if (given.act)
        params->act = strcmp(given.act, "elu") == 0 ? EQ_ELU : EQ_RELU;
    if (given.schedule)
        params->schedule = strcmp(given.schedule, "step") == 0 ? EQ_TRAIN_SCHEDULE_STEP : EQ_TRAIN_SCHEDULE_COSINE;
    if (augment)
        params->augment = strcmp(augment, "none") == 0    ? EQ_TRAIN_AUGMENT_NONE
                          : strcmp(augment, "light") == 0 ? EQ_TRAIN_AUGMENT_LIGHT
                                                          : EQ_TRAIN_AUGMENT_FULL;
}

static int run_train(int argc, char **argv)
{
    struct eq_train_params *p = &given.params;
    struct arg_result args;
    if (args_parse(&spec, argc, argv, &args) != ARGS_RUN)
        return args.exit_code;
    if (!p->resume && (!p->arch || !p->data))
        return usage_error("train", "--%s is missing", p->arch ? "data" : "arch");
    p->seed = (uint64_t)given.seed;
    p->rate = number(given.has_rate, p->rate);
    p->warmup = number(given.has_warmup, p->warmup);
    p->momentum = number(given.has_momentum, p->momentum);
    p->weight_decay = number(given.has_decay, p->weight_decay);
    p->label_smoothing = number(given.has_smoothing, p->label_smoothing);
    set_choices(p);
    return train(given.device, given.precision, p);
}

const struct command command_train = { "train", "train a network on labelled images", run_train };

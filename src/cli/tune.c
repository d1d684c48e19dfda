// equil tune: measures what a network's kernels leave open, and keeps the fastest for this device.
#include <signal.h>
#include <stdlib.h>

#include "command.h"
#include "network.h"
#include "output.h"
#include "rehearsal.h"
#include "signals.h"

static volatile sig_atomic_t is_stopped;

static void stop(void)
{
    is_stopped = 1;
}

// What the library's callbacks get.
struct tuning {
    bool is_json;
    struct rehearsal rehearsal;
};

static eq_status on_candidate(void *user, const char *key, int candidate, char why[EQ_TUNE_WHY_BYTES])
{
    struct tuning *tuning = user;
    return rehearsal_try(&tuning->rehearsal, key, candidate, why);
}

static bool on_progress(void *user, const struct eq_tune_progress *p)
{
    const bool is_json = ((const struct tuning *)user)->is_json;
    if (!p->is_done) {
        progress_line(false, "%d/%d  %s  %s: candidate %d of %d", p->call + 1, p->num_calls, p->layer, p->key, p->candidate + 1,
                      p->num_candidates);
    } else if (!is_json) {
        progress_clear();
        printf("%-30s %9.3f ms  %+6.1f %%  %s: %s%s\n", p->layer, p->seconds * 1e3, 100 * (p->seconds / p->default_seconds - 1),
               p->key, p->values, p->is_default ? ", the default" : "");
        fflush(stdout);
    }
    return !is_stopped;
}

static json_t *summary_json(const struct eq_device *device, const struct eq_tune_summary *summary)
{
    return json_pack("{s:o, s:o, s:o, s:i, s:i, s:i, s:i, s:b}", "file", json_text(summary->path), "device",
                     json_text(eq_device_name(device)), "driver", json_text(eq_device_driver(device)), "measured",
                     summary->num_measured, "changed", summary->num_changed, "known", summary->num_known, "rejected",
                     summary->num_rejected, "complete", summary->is_complete);
}

// How to come to the end after a stop.
static const char *next_command(const struct eq_tune_params *params)
{
    return params->again ? "the same command begins anew, without --again it measures what the file has not"
                         : "the same command goes on";
}

static void print_summary(const struct eq_tune_summary *summary, const struct eq_tune_params *params)
{
    printf("%d choices measured, %d of them better than the default by more than 2 %%; %d were known; %d candidates rejected\n",
           summary->num_measured, summary->num_changed, summary->num_known, summary->num_rejected);
    if (summary->is_complete)
        printf("%s\n", summary->path);
    else
        printf("%s (not complete: %s)\n", summary->path, next_command(params));
}

static int tune(const char *selector, const char *precision, const struct eq_tune_params *params, struct tuning *tuning)
{
    struct eq_device *device;
    struct eq_tune_summary summary;
    if (open_device(selector, precision, &device) != EQ_OK)
        return fail_with_last_error(NULL);
    message("tuning on %s (driver %s), %s", eq_device_name(device), eq_device_driver(device), eq_device_precision_text(device));
    signals_catch(stop);
    eq_status status = eq_tune_network(device, params, on_progress, tuning, &summary);
    rehearsal_end(&tuning->rehearsal);
    int exit_code = EXIT_SUCCESS;
    if (status == EQ_ERR_INTERRUPTED) {
        message("%s; %d choices were measured now, %s has all until here, %s", eq_last_error(), summary.num_measured,
                summary.path, next_command(params));
        exit_code = EXIT_STOPPED;
    } else if (status != EQ_OK) {
        exit_code = fail_with_last_error(NULL);
    } else if (tuning->is_json) {
        exit_code = json_print(summary_json(device, &summary));
    } else {
        print_summary(&summary, params);
    }
    eq_device_destroy(&device);
    return exit_code;
}

static int run_tune(int argc, char **argv)
{
    struct network_options network = { .arch = NULL };
    struct eq_tune_params params = { .op = NULL };
    struct tuning tuning = { .rehearsal = { .arguments = argv, .num_arguments = argc, .is_stopped = &is_stopped } };
    const char *device, *precision, *mode, *worker;
    const struct arg_option options[] = {
        { .name = "arch",
          .kind = ARG_STRING,
          .value = &network.arch,
          .metavar = "NAME",
          .fallback = "ce-resnet50",
          .help = "network: resnet18, 34, 50, 101, 20 or 56; with ce-, bd-, ir- or se- before it" },
        { .name = "op",
          .kind = ARG_STRING,
          .value = &params.op,
          .metavar = "NAME",
          .help = "only this op: conv2d, conv2d_data_grad, conv2d_weight_grad, ..." },
        { .name = "mode",
          .kind = ARG_CHOICE,
          .value = &mode,
          .choices = "infer|train",
          .fallback = "infer",
          .help = "kernels of evaluation, or of a training step" },
        { .name = "batch",
          .kind = ARG_INT,
          .value = &params.batch,
          .fallback = "16",
          .min = 1,
          .max = 65536,
          .help = "images in a batch" },
        { .name = "size",
          .kind = ARG_INT,
          .value = &params.size,
          .fallback = "0",
          .min = 0,
          .max = 4096,
          .help = "side of the images in pixels; 0: 224, or 32 with the small stem" },
        { .name = "seconds",
          .kind = ARG_FLOAT,
          .value = &params.seconds,
          .fallback = "0",
          .min = 0,
          .max = 1e6,
          .help = "begin no choice after this time; 0: go on to the end" },
        { .name = "again",
          .kind = ARG_FLAG,
          .value = &params.again,
          .help = "measure also what the file has, from the first choice on" },
        { .name = "out",
          .kind = ARG_STRING,
          .value = &params.out,
          .metavar = "FILE",
          .help = "file to extend, for $EQUIL_TUNING (default: what that names, else the file\n"
                  "of the device, which every command reads)" },
        { .name = "limit",
          .kind = ARG_INT,
          .value = &tuning.rehearsal.seconds,
          .fallback = "120",
          .min = 1,
          .max = 86400,
          .help = "seconds that trying a candidate may take, compiling included; after that it is left out" },
        { .name = "worker",
          .kind = ARG_STRING,
          .value = &worker,
          .metavar = "KEY",
          .help = "be the process that tries candidates: which of this choice comes on stdin" },
        NETWORK_OPTION_CLASSES(&network),
        NETWORK_OPTION_SMALL(&network),
        NETWORK_OPTION_ACT(&network),
        ARG_OPTION_PRECISION(&precision),
        ARG_OPTION_DEVICE(&device),
        ARG_OPTION_JSON(&tuning.is_json),
        { 0 },
    };
    const struct arg_spec spec = {
        .command = "tune",
        .summary = "Measures the choices that a network's kernels leave open on this device, and keeps the fastest.",
        .options = options,
        .notes = "Every candidate is compiled and run in another process first, where it may crash or hang and do no\n"
                 "harm, and verified before it is timed. What was measured is kept after every choice: Ctrl-C loses nothing,\n"
                 "and the same command goes on; with --again it begins anew. Sums come out in another order with another\n"
                 "tuning: a training run can be resumed only with the tuning it was started with.",
    };
    struct arg_result args;
    if (args_parse(&spec, argc, argv, &args) != ARGS_RUN)
        return args.exit_code;
    params.model = network_params(&network);
    params.training = *mode == 't';
    if (worker)
        return rehearsal_work(device, precision, &params, worker);
    params.rehearse = on_candidate;
    return tune(device, precision, &params, &tuning);
}

const struct command command_tune = { "tune", "measure and keep a device's fastest kernels", run_tune };

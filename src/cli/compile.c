// equil compile: a network's kernels into the caches, by several processes.
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "command.h"
#include "network.h"
#include "output.h"
#include "workers.h"

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static bool open_plan(const struct workers_job *job, struct eq_device **device, struct eq_ahead_plan **plan)
{
    *plan = NULL;
    if (open_device(job->device, job->precision, device) == EQ_OK && eq_ahead_plan_create(*device, &job->params, plan) == EQ_OK)
        return true;
    fail_with_last_error(NULL);
    return false;
}

// A worker's tickets are its standard input. It ends early when nobody waits for it any more.
static int work(const struct workers_job *job)
{
    const pid_t parent = getppid();
    struct eq_device *device = NULL;
    struct eq_ahead_plan *plan;
    int exit_code = open_plan(job, &device, &plan) ? EXIT_SUCCESS : EXIT_FAILED;
    for (int i; exit_code == EXIT_SUCCESS && getppid() == parent;) {
        if ((i = workers_take(STDIN_FILENO, eq_ahead_plan_num_kernels(plan))) < 0)
            break;
        if (eq_ahead_plan_compile(plan, i) != EQ_OK)
            exit_code = fail_with_last_error(NULL);
    }
    eq_ahead_plan_destroy(&plan);
    eq_device_destroy(&device);
    return exit_code;
}

// Everything that a process which came to no good may have left out is done here: the rest is in the caches, and quick.
static eq_status compile_all(struct eq_ahead_plan *plan, struct workers *workers)
{
    const int num = eq_ahead_plan_num_kernels(plan);
    int first = workers->num > 0 ? num : 0;
    eq_status status = EQ_OK;
    for (int i; first && status == EQ_OK && (i = workers_take(workers->tickets, num)) >= 0;) {
        progress_line(false, "kernel %d of %d", num - i, num);
        status = eq_ahead_plan_compile(plan, i);
    }
    if (status != EQ_OK)
        workers_stop(workers);
    else if (!workers_wait(workers))
        first = 0;
    for (int i = first; i < num && status == EQ_OK; i++) {
        progress_line(false, "kernel %d of %d", i + 1, num);
        status = eq_ahead_plan_compile(plan, i);
    }
    return status;
}

static int compile(const struct workers_job *job, int jobs)
{
    const double start = now();
    struct eq_device *device = NULL;
    struct eq_ahead_plan *plan;
    struct workers workers;
    workers_start(&workers, job, jobs - 1);
    const int num_processes = workers.num + 1;
    if (!open_plan(job, &device, &plan)) {
        workers_stop(&workers);
        eq_device_destroy(&device);
        return EXIT_FAILED;
    }
    int exit_code = EXIT_SUCCESS;
    if (eq_ahead_check(device) != EQ_OK) {
        workers_stop(&workers);
        exit_code = fail_with_last_error("nothing is compiled, as nothing would be kept");
    } else if (compile_all(plan, &workers) != EQ_OK || eq_ahead_plan_check(plan) != EQ_OK) {
        exit_code = fail_with_last_error(NULL);
    } else {
        eq_ahead_remember(device, &job->params);
        progress_clear();
        printf("%d kernels of %s on %s: %.2f s, %d process%s\n", eq_ahead_plan_num_kernels(plan), job->params.model.arch,
               eq_device_name(device), now() - start, num_processes, num_processes > 1 ? "es" : "");
    }
    eq_ahead_plan_destroy(&plan);
    eq_device_destroy(&device);
    return exit_code;
}

static int run_compile(int argc, char **argv)
{
    struct network_options network = { .arch = NULL };
    struct workers_job job = { .device = NULL };
    const char *mode;
    int jobs;
    bool is_worker;
    const struct arg_option options[] = {
        NETWORK_OPTION_ARCH(&network),
        { .name = "mode",
          .kind = ARG_CHOICE,
          .value = &mode,
          .choices = "infer|train",
          .fallback = "infer",
          .help = "kernels of evaluation, or of a training step" },
        { .name = "batch",
          .kind = ARG_INT,
          .value = &job.params.n,
          .fallback = "16",
          .min = 1,
          .max = 65536,
          .help = "images in a batch" },
        { .name = "size",
          .kind = ARG_INT,
          .value = &job.params.size,
          .fallback = "0",
          .min = 0,
          .max = 4096,
          .help = "side of the images in pixels; 0: 224, or 32 with the small stem" },
        { .name = "jobs",
          .kind = ARG_INT,
          .value = &jobs,
          .fallback = "0",
          .min = 0,
          .max = MAX_WORKERS,
          .help = "processes that compile at the same time; 0: one a processor, at most 8" },
        { .name = "worker",
          .kind = ARG_FLAG,
          .value = &is_worker,
          .help = "be one of those processes: which kernels to compile comes on stdin" },
        NETWORK_OPTION_CLASSES(&network),
        NETWORK_OPTION_SMALL(&network),
        NETWORK_OPTION_ACT(&network),
        NETWORK_OPTION_RECOMPUTE(&network),
        ARG_OPTION_PRECISION(&job.precision),
        ARG_OPTION_DEVICE(&job.device),
        { 0 },
    };
    const struct arg_spec spec = {
        .command = "compile",
        .summary = "Compiles a network's kernels into the caches, so that its first start is as quick as any other.",
        .options = options,
        .notes = "For images of containers, and for a first start. Batch and size matter: other ones need other kernels.",
    };
    struct arg_result args;
    if (args_parse(&spec, argc, argv, &args) != ARGS_RUN)
        return args.exit_code;
    job.params.model = network_params(&network);
    job.params.training = *mode == 't';
    if (network.recompute && !job.params.training)
        return usage_error("compile", "--recompute is for --mode train");
    if (eq_model_check(&job.params.model) != EQ_OK)
        return fail_with_last_error(NULL);
    if (job.params.size == 0)
        job.params.size = eq_model_is_small(&job.params.model) ? 32 : 224;
    return is_worker ? work(&job) : compile(&job, jobs ? jobs : workers_processors());
}

const struct command command_compile = { "compile", "compile a network's kernels ahead of its first start", run_compile };

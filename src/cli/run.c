// equil run: tensors in, logits out, in evaluation mode.
#include <stdlib.h>

#include "command.h"
#include "network.h"
#include "output.h"
#include "workers.h"

static int run_network(const struct network_options *options, const struct network_names *names)
{
    struct network_job job;
    int exit_code = EXIT_FAILED;
    if (network_job_open(options, names, false, &job)) {
        struct eq_tensor_entry logits = { .name = "logits", .num_dims = 2, .dims = { job.n, options->classes },
                                          .data = job.logits };
        const struct workers_job compiling = { .params = { .model = network_params(options), .n = job.n, .size = job.h },
                                               .device = names->device };
        struct workers workers = { .tickets = -1 };
        if (job.h == job.w)
            workers_help(&workers, job.device, &compiling);
        if (eq_network_infer(job.network, job.n, job.h, job.w, job.images, job.logits) == EQ_OK &&
            eq_tensors_save(names->output, &logits, 1, NULL, 0) == EQ_OK)
            exit_code = EXIT_SUCCESS;
        else
            fail_with_last_error(NULL);
        workers_end_help(&workers, job.device, exit_code == EXIT_SUCCESS);
    }
    network_job_close(&job);
    return exit_code;
}

static int run_run(int argc, char **argv)
{
    struct network_options network = { .arch = NULL };
    struct network_names names;
    const struct arg_option options[] = {
        NETWORK_OPTION_ARCH(&network),
        NETWORK_OPTION_CLASSES(&network),
        NETWORK_OPTION_SMALL(&network),
        NETWORK_OPTION_ACT(&network),
        { .name = "weights", .kind = ARG_STRING, .value = &names.weights, .metavar = "FILE", .is_required = true,
          .help = "safetensors file with PyTorch's names" },
        { .name = "input", .kind = ARG_STRING, .value = &names.input, .metavar = "FILE", .is_required = true,
          .help = "safetensors file with input [N, 3, H, W]" },
        { .name = "output", .kind = ARG_STRING, .value = &names.output, .metavar = "FILE", .is_required = true,
          .help = "safetensors file to write: logits [N, K]" },
        ARG_OPTION_DEVICE(&names.device),
        { 0 },
    };
    const struct arg_spec spec = { .command = "run", .summary = "Runs a network on tensors, in evaluation mode.",
                                   .options = options };
    struct arg_result args;
    if (args_parse(&spec, argc, argv, &args) != ARGS_RUN)
        return args.exit_code;
    return run_network(&network, &names);
}

const struct command command_run = { "run", "run a network on tensors (safetensors in, logits out)", run_run };

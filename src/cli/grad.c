// equil grad: one forward and backward pass on tensors, in training mode.
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "network.h"
#include "output.h"

// Entries of the output file; names and data of the tensors are malloc'ed, those of loss and logits are the caller's.
struct results {
    struct eq_tensor_entry *entries;
    size_t num;
};

static bool add_tensor(struct results *results, const struct eq_network *network, int index)
{
    struct eq_weights_tensor tensor = eq_weights_at(eq_network_weights(network), index);
    size_t bytes = strlen(tensor.name) + 8;
    char *name = malloc(bytes);
    float *values = malloc(tensor.elems * sizeof *values);
    struct eq_tensor_entry *entry = &results->entries[results->num++];
    *entry = (struct eq_tensor_entry){ .name = name, .data = values, .num_dims = tensor.rank };
    for (int d = 0; d < tensor.rank; d++)
        entry->dims[d] = tensor.shape[d];
    if (!name || !values) {
        message("no memory for %s", tensor.name);
        return false;
    }
    snprintf(name, bytes, "%s.%s", tensor.is_parameter ? "grad" : "after", tensor.name);
    eq_status status = tensor.is_parameter ? eq_weights_read_gradient(eq_network_weights(network), tensor.name, values)
                                           : eq_weights_read(eq_network_weights(network), tensor.name, values);
    if (status != EQ_OK)
        fail_with_last_error(NULL);
    return status == EQ_OK;
}

static bool write_results(const struct network_job *job, int classes, const float *loss, const char *output)
{
    int num_tensors = eq_weights_num(eq_network_weights(job->network));
    struct results results = { .entries = calloc((size_t)num_tensors + 2, sizeof *results.entries) };
    bool ok = results.entries != NULL;
    if (!ok)
        message("no memory for %d tensors", num_tensors);
    for (int i = 0; ok && i < num_tensors; i++)
        ok = add_tensor(&results, job->network, i);
    if (ok) {
        size_t num = results.num;
        results.entries[num] = (struct eq_tensor_entry){ .name = "loss", .num_dims = 1, .dims = { 1 }, .data = loss };
        results.entries[num + 1] = (struct eq_tensor_entry){ .name = "logits", .num_dims = 2, .dims = { job->n, classes },
                                                             .data = job->logits };
        ok = eq_tensors_save(output, results.entries, num + 2, NULL, 0) == EQ_OK;
        if (!ok)
            fail_with_last_error(NULL);
    }
    for (size_t i = 0; i < results.num; i++) {
        free((void *)results.entries[i].name);
        free((void *)results.entries[i].data);
    }
    free(results.entries);
    return ok;
}

static int grad_network(const struct network_options *options, const struct network_names *names, double smoothing)
{
    struct network_job job;
    float loss = 0;
    bool ok = network_job_open(options, names, true, &job);
    if (ok && eq_network_gradients(job.network, job.n, job.h, job.w, job.images, job.labels, (float)smoothing, &loss,
                                   job.logits) != EQ_OK) {
        fail_with_last_error(NULL);
        ok = false;
    }
    ok = ok && write_results(&job, options->classes, &loss, names->output);
    network_job_close(&job);
    return ok ? EXIT_SUCCESS : EXIT_FAILED;
}

static int run_grad(int argc, char **argv)
{
    struct network_options network = { .arch = NULL };
    struct network_names names;
    double smoothing;
    const struct arg_option options[] = {
        NETWORK_OPTION_ARCH(&network),
        NETWORK_OPTION_CLASSES(&network),
        NETWORK_OPTION_SMALL(&network),
        NETWORK_OPTION_ACT(&network),
        { .name = "weights", .kind = ARG_STRING, .value = &names.weights, .metavar = "FILE", .is_required = true,
          .help = "safetensors file with PyTorch's names" },
        { .name = "input", .kind = ARG_STRING, .value = &names.input, .metavar = "FILE", .is_required = true,
          .help = "safetensors file with input [N, 3, H, W] and labels [N]" },
        { .name = "output", .kind = ARG_STRING, .value = &names.output, .metavar = "FILE", .is_required = true,
          .help = "safetensors file to write: loss [1], logits [N, K], grad.NAME of every\nparameter, after.NAME of every "
              "running statistic" },
        { .name = "label-smoothing", .kind = ARG_FLOAT, .value = &smoothing, .fallback = "0.1", .min = 0, .max = 0.999,
          .help = "share of the target that goes to the other classes" },
        NETWORK_OPTION_RECOMPUTE(&network),
        ARG_OPTION_DEVICE(&names.device),
        { 0 },
    };
    const struct arg_spec spec = { .command = "grad", .summary = "One forward and backward pass on tensors, in training mode.",
                                   .options = options };
    struct arg_result args;
    if (args_parse(&spec, argc, argv, &args) != ARGS_RUN)
        return args.exit_code;
    return grad_network(&network, &names, smoothing);
}

const struct command command_grad = { "grad", "loss and gradients of a network on tensors", run_grad };

#include "network.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "output.h"

struct eq_model_params network_params(const struct network_options *options)
{
    return (struct eq_model_params){ .arch = options->arch,
                                     .classes = options->classes,
                                     .small = options->small,
                                     .act = options->act && strcmp(options->act, "elu") == 0 ? EQ_ELU : EQ_RELU,
                                     .recompute = options->recompute };
}

eq_status open_device(const char *selector, const char *precision, struct eq_device **device)
{
    enum eq_precision chosen = EQ_FP32;
    eq_status status = precision ? eq_precision_parse(precision, &chosen) : EQ_OK;
    if (status == EQ_OK)
        status = eq_device_open(selector, device);
    if (status == EQ_OK && precision)
        status = eq_device_set_precision(*device, chosen);
    if (status != EQ_OK)
        eq_device_destroy(device);
    return status;
}

// images [n, 3, h, w] from the file's tensor `input`.
static bool read_images(struct network_job *job)
{
    const char *path = eq_tensors_path(job->input);
    const struct eq_tensor_entry *entry = eq_tensors_find(job->input, "input");
    if (!entry) {
        message("%s: there is no tensor called input", path);
        return false;
    }
    const int64_t *d = entry->dims;
    if (entry->num_dims != 4) {
        message("%s: input has %d dimensions; it must be [N, 3, H, W]", path, entry->num_dims);
        return false;
    }
    if (d[0] < 1 || d[1] != 3 || d[2] < 1 || d[3] < 1 || d[0] > INT_MAX || d[2] > 65535 || d[3] > 65535) {
        message("%s: input is [%lld, %lld, %lld, %lld]%s; it must be [N, 3, H, W], H and W 1 to 65535", path,
                (long long)d[0], (long long)d[1], (long long)d[2], (long long)d[3], d[0] == 0 ? ", an empty batch" : "");
        return false;
    }
    job->n = (int)d[0];
    job->h = (int)d[2];
    job->w = (int)d[3];
    job->images = malloc(entry->elems * sizeof *job->images);
    if (!job->images) {
        message("%s: no memory for %zu numbers", path, entry->elems);
        return false;
    }
    if (eq_tensors_read_f32(job->input, "input", job->images, entry->elems) == EQ_OK)
        return true;
    fail_with_last_error(NULL);
    return false;
}

static bool read_labels(struct network_job *job)
{
    job->labels = malloc((size_t)job->n * sizeof *job->labels);
    if (job->labels && eq_tensors_read_i64(job->input, "labels", job->labels, (size_t)job->n) == EQ_OK)
        return true;
    if (job->labels)
        fail_with_last_error(NULL);
    else
        message("no memory for %d labels", job->n);
    return false;
}

bool network_job_open(const struct network_options *options, const struct network_names *names, bool has_labels,
                      struct network_job *job)
{
    *job = (struct network_job){ 0 };
    if (is_same_file(names->output, names->weights) || is_same_file(names->output, names->input)) {
        message("%s: the result would be written over what is read", names->output);
        return false;
    }
    struct eq_model_params params = network_params(options);
    if (eq_model_check(&params) != EQ_OK || eq_model_check_file(&params, names->weights) != EQ_OK ||
        eq_tensors_open(names->input, &job->input) != EQ_OK) {
        fail_with_last_error(NULL);
        return false;
    }
    if (!read_images(job) || (has_labels && !read_labels(job)))
        return false;
    job->logits = malloc((size_t)job->n * (size_t)options->classes * sizeof *job->logits);
    if (!job->logits) {
        message("no memory for %d x %d logits", job->n, options->classes);
        return false;
    }
    if (eq_device_open(names->device, &job->device) == EQ_OK &&
        eq_network_create(job->device, &params, &job->network) == EQ_OK &&
        eq_weights_load(eq_network_weights(job->network), names->weights, false, 0) == EQ_OK)
        return true;
    fail_with_last_error(NULL);
    return false;
}

void network_job_close(struct network_job *job)
{
    eq_network_destroy(&job->network);
    eq_device_destroy(&job->device);
    eq_tensors_close(&job->input);
    free(job->images);
    free(job->logits);
    free(job->labels);
}

// A network on a device: its weights, and its forms compiled for batches.
#include "train/network.h"

#include <stdlib.h>
#include <string.h>

static eq_status fill_network(struct eq_network *network, const struct eq_model_params *params)
{
    EQ_TRY(eq_model_check(params));
    network->arch = eq_strdup(params->arch);
    if (!network->arch)
        return EQ_ERR_HOST_MEMORY;
    network->params = *params;
    network->params.arch = network->arch;
    // The stored forms of weights do not depend on the image's size: any that the network takes will do.
    const int side = eq_model_is_small(params) ? 32 : 224;
    EQ_TRY(eq_model_graph_create(&network->params, 1, side, side, -1, &network->shape));
    return eq_weights_create(network->device, network->shape.graph, &network->weights);
}

eq_status eq_network_create(struct eq_device *device, const struct eq_model_params *params, struct eq_network **network)
{
    EQ_ALLOC(*network, 1);
    (*network)->device = device;
    eq_status status = fill_network(*network, params);
    if (status != EQ_OK)
        eq_network_destroy(network);
    return status;
}

static void drop_compiled(struct eq_compiled *compiled)
{
    eq_exec_destroy(&compiled->exec);
    eq_model_graph_destroy(&compiled->model);
    *compiled = (struct eq_compiled){ 0 };
}

void eq_network_destroy(struct eq_network **network)
{
    if (!*network)
        return;
    drop_compiled(&(*network)->infer);
    drop_compiled(&(*network)->forward);
    drop_compiled(&(*network)->gradients); // last: its memory is lent to the others
    eq_weights_destroy(&(*network)->weights);
    eq_model_graph_destroy(&(*network)->shape);
    free((*network)->arch);
    free(*network);
    *network = NULL;
}

// ---- compiled forms

static eq_status compile(struct eq_network *network, struct eq_compiled *compiled, int n, int h, int w, bool training,
                         float smoothing)
{
    if (compiled->exec && compiled->n == n && compiled->h == h && compiled->w == w && compiled->smoothing == smoothing)
        return EQ_OK;
    if (compiled == &network->gradients) { // its memory is lent to them
        drop_compiled(&network->infer);
        drop_compiled(&network->forward);
    }
    drop_compiled(compiled);
    EQ_TRY(eq_model_graph_create(&network->params, n, h, w, smoothing, &compiled->model));
    struct eq_compile_params params = { .training = training, .loss = compiled->model.loss,
                                        .recompute = network->params.recompute,
                                        .lender = compiled == &network->gradients ? NULL : network->gradients.exec };
    eq_status status =
        eq_exec_create(network->device, network->weights->store, compiled->model.graph, &params, &compiled->exec);
    if (status != EQ_OK) {
        drop_compiled(compiled);
        return status;
    }
    compiled->n = n;
    compiled->h = h;
    compiled->w = w;
    compiled->smoothing = smoothing;
    return EQ_OK;
}

eq_status eq_network_compile_infer(struct eq_network *network, int n, int h, int w)
{
    return compile(network, &network->infer, n, h, w, false, -1);
}

eq_status eq_network_compile_forward(struct eq_network *network, int n, int h, int w)
{
    return compile(network, &network->forward, n, h, w, true, -1);
}

eq_status eq_network_compile_gradients(struct eq_network *network, int n, int h, int w, float smoothing)
{
    EQ_TRY(eq_weights_add_training(network->weights));
    return compile(network, &network->gradients, n, h, w, true, smoothing);
}

struct eq_weights *eq_network_weights(const struct eq_network *network)
{
    return network->weights;
}

eq_status eq_network_infer(struct eq_network *network, int n, int h, int w, const float *images, float *logits)
{
    EQ_TRY(eq_weights_check_scales(network->weights, NULL));
    EQ_TRY(eq_network_compile_infer(network, n, h, w));
    struct eq_compiled *compiled = &network->infer;
    EQ_TRY(eq_exec_write(compiled->exec, compiled->model.images, images));
    EQ_TRY(eq_exec_run(compiled->exec));
    return eq_exec_read(compiled->exec, compiled->model.logits, logits);
}

static eq_status write_labels(struct eq_network *network, const int64_t *labels)
{
    struct eq_compiled *compiled = &network->gradients;
    int32_t *narrow = eq_malloc((size_t)compiled->n, sizeof *narrow);
    if (!narrow)
        return EQ_ERR_HOST_MEMORY;
    eq_status status = EQ_OK;
    for (int i = 0; i < compiled->n && status == EQ_OK; i++) {
        if (labels[i] < 0 || labels[i] >= network->params.classes)
            status = eq_fail(EQ_ERR_ARGUMENT, "label %lld of image %d; there are %d classes", (long long)labels[i], i,
                             network->params.classes);
        narrow[i] = (int32_t)labels[i];
    }
    if (status == EQ_OK)
        status = eq_exec_write(compiled->exec, compiled->model.labels, narrow);
    free(narrow);
    return status;
}

static eq_status read_mean_loss(const struct eq_compiled *compiled, float *loss)
{
    float *losses = eq_malloc((size_t)compiled->n, sizeof *losses);
    if (!losses)
        return EQ_ERR_HOST_MEMORY;
    eq_status status = eq_exec_read(compiled->exec, compiled->model.loss, losses);
    double sum = 0;
    for (int i = 0; status == EQ_OK && i < compiled->n; i++)
        sum += losses[i];
    *loss = (float)(sum / compiled->n);
    free(losses);
    return status;
}

eq_status eq_network_gradients(struct eq_network *network, int n, int h, int w, const float *images, const int64_t *labels,
                               float smoothing, float *loss, float *logits)
{
    EQ_REQUIRE(smoothing >= 0 && smoothing < 1, EQ_ERR_ARGUMENT, "label smoothing %g: it must be in [0, 1)", (double)smoothing);
    EQ_TRY(eq_network_compile_gradients(network, n, h, w, smoothing));
    struct eq_compiled *compiled = &network->gradients;
    EQ_TRY(write_labels(network, labels));
    EQ_TRY(eq_exec_write(compiled->exec, compiled->model.images, images));
    eq_status status = eq_exec_run(compiled->exec);
    if (status != EQ_OK)
        eq_store_touch(network->weights->store); // running statistics may have moved
    EQ_TRY(status);
    eq_weights_touched(network->weights, compiled->exec, 1);
    network->weights->has_gradients = true;
    EQ_TRY(read_mean_loss(compiled, loss));
    return logits ? eq_exec_read(compiled->exec, compiled->model.logits, logits) : EQ_OK;
}

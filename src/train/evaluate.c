#include "train/evaluate.h"

#include <stdlib.h>

#include "train/metrics.h"

// Results of a batch on their way to the host; two of them, so that the device has the next batch while one is taken.
struct slot {
    float *logits; // [batch, classes]
    struct eq_ticket ticket;
    struct eq_feed_batch batch;
};

struct eq_evaluator {
    struct eq_network *network;
    const struct eq_dataset *dataset;
    struct eq_feed *feed;
    struct slot slots[2];
    struct eq_ref logits;
    size_t num_logits;
};

static eq_status fill_evaluator(struct eq_evaluator *evaluator, const struct eq_input_form *form, int batch,
                                bool may_be_none)
{
    struct eq_network *network = evaluator->network;
    EQ_TRY(eq_network_compile_infer(network, batch, form->size, form->size));
    const struct eq_feed_params params = { .dataset = evaluator->dataset, .form = *form,
                                           .augment = EQ_TRAIN_AUGMENT_NONE, .may_be_none = may_be_none };
    EQ_TRY(eq_feed_create(network->device, &network->infer, &params, &evaluator->feed));
    struct eq_tensor tensor;
    EQ_TRY(eq_exec_find(network->infer.exec, network->infer.model.logits, &evaluator->logits, &tensor));
    evaluator->num_logits = eq_tensor_elems(&tensor);
    for (int i = 0; i < 2; i++)
        EQ_ALLOC(evaluator->slots[i].logits, evaluator->num_logits);
    return EQ_OK;
}

eq_status eq_evaluator_create(struct eq_network *network, const struct eq_dataset *dataset, const struct eq_input_form *form,
                              int batch, bool may_be_none, struct eq_evaluator **evaluator)
{
    EQ_ALLOC(*evaluator, 1);
    (*evaluator)->network = network;
    (*evaluator)->dataset = dataset;
    eq_status status = fill_evaluator(*evaluator, form, batch, may_be_none);
    if (status != EQ_OK)
        eq_evaluator_destroy(evaluator);
    return status;
}

void eq_evaluator_destroy(struct eq_evaluator **evaluator)
{
    if (!*evaluator)
        return;
    for (int i = 0; i < 2; i++) {
        eq_ticket_drop(&(*evaluator)->slots[i].ticket);
        free((*evaluator)->slots[i].logits);
    }
    eq_feed_destroy(&(*evaluator)->feed);
    free(*evaluator);
    *evaluator = NULL;
}

static eq_status launch(struct eq_evaluator *evaluator, struct slot *slot)
{
    EQ_TRY(eq_feed_next(evaluator->feed, &slot->batch));
    if (slot->batch.num == 0)
        return EQ_OK;
    EQ_TRY(eq_exec_run(evaluator->network->infer.exec));
    return eq_ref_read_start(evaluator->logits, slot->logits, evaluator->num_logits, sizeof *slot->logits, &slot->ticket);
}

static eq_status run_pass(struct eq_evaluator *evaluator, eq_evaluator_batch_fn take, void *user, size_t *skipped)
{
    struct slot *slots = evaluator->slots;
    int i = 0;
    EQ_TRY(eq_feed_start(evaluator->feed, 0, 0));
    EQ_TRY(launch(evaluator, &slots[0]));
    for (; slots[i].batch.num > 0; i = 1 - i) {
        EQ_TRY(launch(evaluator, &slots[1 - i]));
        EQ_TRY(eq_ticket_wait(&slots[i].ticket));
        EQ_TRY(take(user, slots[i].logits, slots[i].batch.labels, slots[i].batch.num));
    }
    *skipped = slots[i].batch.skipped;
    return EQ_OK;
}

eq_status eq_evaluator_each(struct eq_evaluator *evaluator, eq_evaluator_batch_fn take, void *user, size_t *skipped)
{
    EQ_TRY(eq_weights_check_scales(evaluator->network->weights, NULL));
    const eq_status status = run_pass(evaluator, take, user, skipped);
    for (int i = 0; i < 2; i++)
        eq_ticket_drop(&evaluator->slots[i].ticket);
    return status;
}

// ---- metrics

struct sums {
    int classes;
    eq_evaluator_progress_fn progress;
    void *user;
    double loss;
    size_t images, hits, hits5, timed_images;
    int64_t start_ns;
};

static eq_status count(void *user, const float *logits, const int32_t *labels, int num)
{
    struct sums *sums = user;
    for (int i = 0; i < num; i++) {
        const float *row = logits + (size_t)i * (size_t)sums->classes;
        int rank = eq_metric_rank(row, sums->classes, labels[i]);
        sums->hits += rank < 1;
        sums->hits5 += rank < 5;
        sums->loss += eq_metric_cross_entropy(row, sums->classes, labels[i]);
    }
    // The first batch pays for compilers and caches: the clock starts behind it.
    if (sums->images == 0)
        sums->start_ns = eq_clock_ns();
    else
        sums->timed_images += (size_t)num;
    sums->images += (size_t)num;
    EQ_REQUIRE(!sums->progress || !sums->progress(sums->user, sums->images), EQ_ERR_INTERRUPTED, "stopped after %zu images",
               sums->images);
    return EQ_OK;
}

eq_status eq_evaluator_run(struct eq_evaluator *evaluator, eq_evaluator_progress_fn progress, void *user,
                           struct eq_evaluation *evaluation)
{
    struct sums sums = { .classes = evaluator->network->params.classes, .progress = progress, .user = user };
    size_t skipped;
    EQ_TRY(eq_evaluator_each(evaluator, count, &sums, &skipped));
    double seconds = (double)(eq_clock_ns() - sums.start_ns) * 1e-9, images = (double)sums.images;
    *evaluation = (struct eq_evaluation){ .top1 = (double)sums.hits / images,
                                          .top5 = (double)sums.hits5 / images,
                                          .loss = sums.loss / images,
                                          .images_per_second = sums.timed_images ? (double)sums.timed_images / seconds : 0,
                                          .images = sums.images,
                                          .skipped = skipped };
    return EQ_OK;
}

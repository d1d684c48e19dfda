// A network's logits for the images of a data set, batch by batch through the inference form; and metrics of them, on the host.
#ifndef EQ_TRAIN_EVALUATE_H
#define EQ_TRAIN_EVALUATE_H

#include "equil/train.h"
#include "train/feed.h"

struct eq_evaluator;
// Compiles the inference form for the batch. Network and data set must outlive it. may_be_none: a pass in which no image can be
// read is none that failed; else that is EQ_ERR_FORMAT, with the reason of the first.
eq_status eq_evaluator_create(struct eq_network *network, const struct eq_dataset *dataset, const struct eq_input_form *form,
                              int batch, bool may_be_none, struct eq_evaluator **evaluator);
void eq_evaluator_destroy(struct eq_evaluator **evaluator);

// Called for every batch, in order: logits [num, classes] and labels [num] of its images, broken ones left out. Anything but
// EQ_OK ends the pass, which returns it.
typedef eq_status (*eq_evaluator_batch_fn)(void *user, const float *logits, const int32_t *labels, int num);
// A pass over the set: the device has the next batch while one is taken. skipped: broken images; as it was on failure.
eq_status eq_evaluator_each(struct eq_evaluator *evaluator, eq_evaluator_batch_fn take, void *user, size_t *skipped);

// Called after every batch; true stops the evaluation (EQ_ERR_INTERRUPTED).
typedef bool (*eq_evaluator_progress_fn)(void *user, size_t images);
// Errors: those of a pass.
eq_status eq_evaluator_run(struct eq_evaluator *evaluator, eq_evaluator_progress_fn progress, void *user,
                           struct eq_evaluation *evaluation);

#endif

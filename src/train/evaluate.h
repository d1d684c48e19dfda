// Evaluation of a network on a data set: batches through the inference form, metrics on the host.
#ifndef EQ_TRAIN_EVALUATE_H
#define EQ_TRAIN_EVALUATE_H

#include "equil/train.h"
#include "train/feed.h"

struct eq_evaluator;
// Compiles the inference form for the batch. Network and data set must outlive it.
eq_status eq_evaluator_create(struct eq_network *network, const struct eq_dataset *dataset, const struct eq_input_form *form,
                              int batch, struct eq_evaluator **evaluator);
void eq_evaluator_destroy(struct eq_evaluator **evaluator);

// Called after every batch; true stops the evaluation (EQ_ERR_INTERRUPTED).
typedef bool (*eq_evaluator_progress_fn)(void *user, size_t images);
eq_status eq_evaluator_run(struct eq_evaluator *evaluator, eq_evaluator_progress_fn progress, void *user,
                           struct eq_evaluation *evaluation);

#endif

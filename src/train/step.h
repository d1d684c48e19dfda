// Training steps: forward, backward, and the update of the weights. Nothing here waits but eq_step_begin() and
// eq_step_result().
//
// Steps are enqueued one behind the other, and results are looked at later. A loss that is not finite halts all updates on the
// device itself, so weights stay as they were before it until the host has noticed.
#ifndef EQ_TRAIN_STEP_H
#define EQ_TRAIN_STEP_H

#include "train/network.h"

struct eq_step_params {
    int batch, size, accumulate;
    float label_smoothing, momentum, weight_decay;
};
struct eq_step;
// Compiles the network for training; its inputs are those of network->gradients. The network must outlive it.
eq_status eq_step_create(struct eq_network *network, const struct eq_step_params *params, struct eq_step **step);
void eq_step_destroy(struct eq_step **step); // *step becomes NULL; NULL is allowed

// Before the first step, and after an error: results that nobody took are dropped, and a halt is over.
eq_status eq_step_begin(struct eq_step *step);

// Enqueues forward and backward for the batch in the inputs. Running statistics move. At most EQ_STEP_AHEAD batches may be
// launched whose results were not taken.
enum { EQ_STEP_AHEAD = 2 };
eq_status eq_step_launch(struct eq_step *step);

struct eq_step_result {
    double loss_sum; // over the batch
    int64_t hits;    // top-1
};
// Waits for the oldest batch whose result was not taken. A loss that is not finite is EQ_ERR_NUMERIC: the text names the first
// tensor, in forward order, that is not.
eq_status eq_step_result(struct eq_step *step, const int32_t *labels, struct eq_step_result *result);

// Enqueues what follows batch number `index` (0 .. accumulate - 1) of an update: adding up gradients, and, after the last, the
// update.
eq_status eq_step_finish(struct eq_step *step, int index, double rate);

#endif

// The learning rate of every step.
#ifndef EQ_TRAIN_SCHEDULE_H
#define EQ_TRAIN_SCHEDULE_H

#include "equil/train.h"

struct eq_schedule {
    enum eq_train_schedule kind; // not the default
    double base;
    double warmup; // epochs, >= 0
    int epochs;
    int64_t steps_per_epoch;
};
// Rate of update number `step`, from 0. Warm-up rises linearly from 0 (the first step does not move) to the base rate, step by
// step. EQ_TRAIN_SCHEDULE_STEP counts from the start of training, EQ_TRAIN_SCHEDULE_COSINE from the end of the warm-up.
double eq_schedule_rate(const struct eq_schedule *schedule, int64_t step);

#endif

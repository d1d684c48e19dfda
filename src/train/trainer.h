// Inside the trainer: what trainer.c sets up and run.c works with.
#ifndef EQ_TRAIN_TRAINER_H
#define EQ_TRAIN_TRAINER_H

#include <stdatomic.h>

#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/log.h"
#include "train/options.h"
#include "train/schedule.h"
#include "train/step.h"

struct eq_trainer {
    struct eq_device *device;
    struct eq_train_options options;
    struct eq_train_summary summary;
    struct eq_meta meta; // model, input form, class names: what the weights file says
    struct eq_dataset *train, *val;
    struct eq_train_data data; // of both
    struct eq_network *network;
    struct eq_schedule schedule;
    struct eq_train_state state;
    atomic_bool is_stopped; // set in a signal handler, or in another thread
    char *model_path, *best_path, *checkpoint_path, *log_path;
    int lock; // of `out`, by eq_dir_lock(); -1: none yet
    // Made by eq_trainer_run().
    struct eq_step *step;
    struct eq_feed *feed;
    struct eq_evaluator *evaluator;
    struct eq_train_log log;
};

#endif

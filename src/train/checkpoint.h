// Checkpoints: everything a run needs to go on as if it had never stopped, in one safetensors file.
//
// Tensors: those of the weights file under their names, and the momentum of every parameter under "velocity." and its name.
// Metadata: that of a weights file; "option.NAME" for every option; "plan.NAME" for what else decides the order of sums
// (device, driver, kernel family, block, tuning ..., the library's version and a hash of its kernels); "data.NAME" for what
// tells its images from others; "state", a JSON object with the position.
#ifndef EQ_TRAIN_CHECKPOINT_H
#define EQ_TRAIN_CHECKPOINT_H

#include <jansson.h>

#include "equil/train.h"
#include "train/meta.h"
#include "train/weights.h"

// Where a run stands, in host memory.
struct eq_train_state {
    int epoch;       // from 0; the number of epochs when the run is done
    int64_t step;    // updates done in it
    size_t position; // items of the epoch's order that are used up
    size_t skipped;  // broken ones among them
    double loss_sum; // over the images of the epoch so far
    int64_t hits, seen;
    double best_top1; // of all epochs; below 0 before the first
    int best_epoch;
    int64_t log_lines;
    json_t *history; // array of the objects that "epoch" lines of the log are made of, without times
};
void eq_train_state_clear(struct eq_train_state *state);

// What tells the images of a run from others: one that is gone, new, or in another class. Not what is in the files.
struct eq_train_data {
    size_t train_images, val_images;
    uint64_t hash; // of names and labels
};

struct eq_checkpoint {
    struct eq_weights *weights;
    const struct eq_meta *meta;
    const struct eq_train_params *params;
    const struct eq_train_data *data;
    struct eq_train_state *state;
};
// EQ_ERR_NUMERIC (a tensor is not finite; it is named) and EQ_ERR_IO leave the file as it was.
eq_status eq_checkpoint_save(const struct eq_checkpoint *checkpoint, const char *path);
// The weights file: tensors and metadata alone. The same training gives the same bytes.
eq_status eq_checkpoint_save_weights(const struct eq_checkpoint *checkpoint, const char *path);

// Reading, in this order. The value of an option, for eq_train_options_resolve(); `user` is the open file.
const char *eq_checkpoint_option(const void *user, const char *key);
// EQ_ERR_UNSUPPORTED when the device is not the one of the checkpoint: both are in the text. Another tuning is another device,
// unless both are those that come with libraries.
eq_status eq_checkpoint_check_device(const struct eq_tensors *file, const struct eq_device *device);
// EQ_ERR_ARGUMENT when the images are not those of the checkpoint: the numbers of both are in the text.
eq_status eq_checkpoint_check_data(const struct eq_tensors *file, const struct eq_train_data *data);
// Warns in the log where the checkpoint is another library's, or does not say whose: both are in the text. For a device that
// was checked.
void eq_checkpoint_compare_library(const struct eq_tensors *file, const struct eq_device *device);
eq_status eq_checkpoint_read_state(const struct eq_tensors *file, struct eq_train_state *state);
// Weights, running statistics, batch count and velocities. Each must be there.
eq_status eq_checkpoint_read_tensors(const struct eq_tensors *file, struct eq_weights *weights);

#endif

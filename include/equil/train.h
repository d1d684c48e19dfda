// Training, evaluation and classification.
//
//     struct eq_trainer *trainer;
//     struct eq_train_params params = { .arch = "ce-resnet20", .data = "shapes", .epochs = 4, .out = "out" };
//     if (eq_trainer_create(device, &params, &trainer) == EQ_OK && eq_trainer_run(trainer, NULL) == EQ_OK)
//         ...                                    // out/model.safetensors is there
//     eq_trainer_destroy(&trainer);
//
// The same seed on the same device gives the same bits, and so does a run that was stopped, or killed, and resumed. Another
// version of the library may sum in another order: it resumes a run all the same, and warns (eq_log_set()).
//
// Threads: a device with its trainers and classifiers is for one thread at a time, but for eq_trainer_stop(); several devices
// go in several threads. Images are decoded in threads of the library's own (EQUIL_THREADS, else one for each processor), which
// take no signals. Base.h has what holds for lifetimes: all texts of the params structs are copied.
#ifndef EQUIL_TRAIN_H
#define EQUIL_TRAIN_H

#include "data.h"
#include "device.h"
#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

// ---- training

// How the learning rate falls from its base value, after the warm-up.
enum eq_train_schedule {
    EQ_TRAIN_SCHEDULE_DEFAULT, // cosine for small networks, step for the others
    EQ_TRAIN_SCHEDULE_STEP,    // a tenth after 30, 60 and 90 % of the epochs
    EQ_TRAIN_SCHEDULE_COSINE,  // half a cosine down to 0, step by step (Loshchilov and Hutter, ICLR 2017)
};

// What is done to training images. Evaluation takes the centre: of the whole image for small networks, of an image with a frame
// of an eighth (256 for 224) for the others.
enum eq_train_augment {
    EQ_TRAIN_AUGMENT_DEFAULT, // light for small networks, full for the others
    EQ_TRAIN_AUGMENT_NONE,    // as in evaluation
    EQ_TRAIN_AUGMENT_LIGHT,   // a crop moved by up to 4 pixels over a border of the mean, and a flip
    EQ_TRAIN_AUGMENT_FULL,    // a crop of random area and aspect (Szegedy et al., CVPR 2015), a flip, and a change of colour
};

// "Small networks" are resnet20, resnet56 and those with `small`: see eq_model_is_small(). Zero is the default of each field;
// numbers for which 0 has a meaning of its own are switched off by a negative value. With `resume` the default is what the
// checkpoint has, but for `data` and `val`: folders that a file names are not read unless the caller names them, too.
struct eq_train_params {
    const char *arch; // as in eq_model_params; required, but for a resumed run
    bool small;
    enum eq_act act;
    bool recompute;   // as in eq_model_params. No part of a checkpoint: a run may be resumed with another value
    const char *data; // as in eq_dataset_params.spec; required, but for a resumed run on "shapes"
    const char *val;  // set to validate on: its test part, or all of it. NULL: the test part of `data`; when it has none, a
                      // tenth of `data`, drawn by the seed, which is then not learned from
    int epochs;       // 0 means 30 for small networks and 100 for the others
    int batch;        // images in a batch; 0 means 64 for small networks and 32 for the others; where there are too few images
                      // for an update, those that there are, with a warning in the log
    int accumulate;   // batches whose gradients are averaged before an update; 0 means 1. Batch statistics are those of each
                      // batch
    int size;         // side of the network's images in pixels; 0 means 32 for small networks and 224 for the others
    double rate;      // base learning rate; 0 means 0.1 for small networks, and 0.1 * batch * accumulate / 256 for the others,
                      // of the batch that is used
    enum eq_train_schedule schedule;
    double warmup; // epochs over which the rate rises from 0; 0 means 1 for small networks and 5 for the others, but at most a
                   // quarter of the epochs
    double momentum;        // 0 means 0.9
    double weight_decay;    // of every parameter; 0 means 1e-4
    double label_smoothing; // below 1; 0 means 0.1 for large networks and none for small ones
    enum eq_train_augment augment;
    uint64_t seed;       // of the initial weights, the order, the augmentation and the held-out tenth
    bool has_seed;       // resumed run: seed 0 is meant, and not the checkpoint's
    const char *out;     // folder, made when it is not there; required
    const char *weights; // safetensors file to start from, or NULL; see eq_weights_load()
    bool new_head;       // leave the classifier at its initial values when its shape differs from the file's
    bool resume;         // go on from the checkpoint in `out`
};

// Where a run stands.
struct eq_train_progress {
    bool is_epoch_end;                   // after the validation of an epoch; else after a step of training or validation
    bool is_validation;                  // `step` and `num_steps` count batches of validation images
    int epoch, num_epochs;               // from 0
    int64_t step, num_steps;             // done in this epoch
    double rate;                         // learning rate of the last step
    double loss, top1;                   // mean over the training images of the epoch so far
    double val_loss, val_top1, val_top5; // at the end of an epoch
    bool is_best;                        // at the end of an epoch: the best val_top1 so far
    double images_per_second;            // of this run, after an epoch's first step; 0 before the first is known
    double seconds_left;                 // for the epochs that are left, validation included; 0 before the first is known
    size_t skipped;                      // broken images so far in this epoch
};
// Called from eq_trainer_run(), on its thread; may call eq_trainer_stop() and eq_trainer_summary(). `progress` is valid during
// the call.
typedef void (*eq_train_progress_fn)(void *user, const struct eq_train_progress *progress);
struct eq_train_callbacks {
    eq_train_progress_fn progress; // NULL: none
    void *user;
};

// What a run is about to do.
struct eq_train_summary {
    struct eq_train_params params; // with every default filled in; negative values have become 0. Valid as long as the trainer
    int classes;
    size_t train_images, val_images;
    bool is_held_out;        // validation images were held out of `data`
    int64_t steps_per_epoch; // updates
    size_t planned_bytes;    // peak of memory on the device: training, validation and transfers. Pictures larger than `size`
                             // can take up to 256 MiB more in the transfers of training, and as much in those of validation
    int epoch;               // first epoch to run, from 0
    int64_t step;            // and step in it
};

struct eq_trainer;

// Checks everything that can be checked before the first step: options, data, that `out` can be written and holds no run, and,
// to resume, that its run had the same options and images, by their names and classes, on the same device. Writes nothing but
// an empty folder, which is locked against other trainers until eq_trainer_destroy(), or until the process ends. The device
// must outlive the trainer. Where the checkpoint is one of another version, of other kernels or tuned defaults of the library,
// or does not tell which kernels, a warning in the log names both: results may differ in their last bits from a run that was
// not stopped. One thread at a time, but for eq_trainer_stop(). Errors: EQ_ERR_ARGUMENT (an option outside its range; out holds
// a run, or a file of one, or another trainer writes there; the name of a class is not UTF-8; another value or other images
// than those of the run to resume, with both in the text, or no data to go on with), EQ_ERR_NOT_FOUND (no such network; nothing
// to resume), EQ_ERR_UNSUPPORTED (another device, number of compute units, driver, kernel family, precision, use of Winograd's
// convolution, EQUIL_BUILD_OPTIONS or tuning of one's own than that of the run to resume), those of eq_dataset_open(),
// eq_network_create() and eq_weights_load(), EQ_ERR_IO.
EQ_API eq_status eq_trainer_create(struct eq_device *device, const struct eq_train_params *params, struct eq_trainer **trainer);
EQ_API void eq_trainer_destroy(struct eq_trainer **trainer); // *trainer becomes NULL; NULL is allowed

// Valid as long as the trainer; it does not change.
EQ_API const struct eq_train_summary *eq_trainer_summary(const struct eq_trainer *trainer);

// Trains to the end. Files in `out`, each written atomically, at the end of every epoch:
//     model.safetensors       weights after the last epoch, with all that eq_classifier_create() needs in the metadata
//     best.safetensors        weights after the epoch with the best val_top1
//     checkpoint.safetensors  weights, velocities, options and position, to resume from; also when the run is stopped
//     log.jsonl               a JSON object a line: "start", "step" and "epoch". What a new run finds there becomes
//                             log.jsonl.1, or .2 and so on where that is taken, with a warning in the library's log
// Paths among the options are texts there: a byte that is not UTF-8 is \xNN, and a backslash two.
// callbacks may be NULL.
// Errors: EQ_ERR_INTERRUPTED (eq_trainer_stop(): the checkpoint has the position in the epoch), EQ_ERR_NUMERIC (a loss that is
// NaN or infinite: the text names epoch, step and the first tensor, in forward order, that is not finite; the last checkpoint
// is kept), EQ_ERR_FORMAT (too few images can be read for a step, or none to validate on), EQ_ERR_ARGUMENT (EQUIL_THREADS),
// EQ_ERR_SHAPE (images too small for the network), EQ_ERR_IO (the file that could not be written is the old one still),
// EQ_ERR_DEVICE_MEMORY, EQ_ERR_BUILD and others of the device.
// After any of them the trainer can only be destroyed. The checkpoint, where there is one, is whole: a new trainer that resumes
// from it ends with the bits of a run that was not disturbed.
EQ_API eq_status eq_trainer_run(struct eq_trainer *trainer, const struct eq_train_callbacks *callbacks);

// Makes eq_trainer_run() return after the steps it has begun: at most one behind the last that was reported. For signal
// handlers and other threads, at any time while there is the trainer. Before eq_trainer_run(), that ends before its first step.
EQ_API void eq_trainer_stop(struct eq_trainer *trainer);

// ---- trained networks

struct eq_classifier_params {
    const char *weights; // safetensors file; its metadata says the rest when eq_trainer_run() wrote it
    // For files without metadata, and to check those with: another value than the file's is an error.
    const char *arch; // NULL: the file's
    bool small;
    enum eq_act act; // 0: the file's, or EQ_RELU
    int size;        // 8 .. 4096 pixels; 0: the file's, or 32 for small networks and 224 for the others
    int batch;       // images that are computed together, up to 65536; 0 means 32
};
struct eq_classifier;

// Reads a network for use: what the file says of it at once, the values of its tensors in a thread until the first run or
// evaluation, which compiles kernels meanwhile, needs them. Errors: those of eq_network_create() and eq_weights_load(),
// EQ_ERR_FORMAT (metadata), EQ_ERR_ARGUMENT (no arch known, another value than the file's, a number outside its range); those
// of the values, and EQ_ERR_NUMERIC (never trained), come from the first run or evaluation, and the next one reads the file
// again. The device must outlive it. One thread at a time per device.
EQ_API eq_status eq_classifier_create(struct eq_device *device, const struct eq_classifier_params *params,
                                      struct eq_classifier **classifier);
EQ_API void eq_classifier_destroy(struct eq_classifier **classifier); // *classifier becomes NULL; NULL is allowed

// The network, as it would be created again. Valid as long as the classifier.
EQ_API const struct eq_model_params *eq_classifier_model(const struct eq_classifier *classifier);
EQ_API const char *eq_classifier_arch(const struct eq_classifier *classifier);
EQ_API int eq_classifier_size(const struct eq_classifier *classifier); // side of the network's images in pixels
EQ_API int eq_classifier_num_classes(const struct eq_classifier *classifier);
// Name of a class; its number where the file has no names; NULL for labels that there are not. Valid as long as the classifier.
EQ_API const char *eq_classifier_class_name(const struct eq_classifier *classifier, int label);

// images [num] -> probabilities f32 [num, classes], softmax of the logits. Images of any size: resized and cropped as in
// evaluation; they are only read. The first call compiles. Errors: those of eq_network_infer() but EQ_ERR_NUMERIC, and
// EQ_ERR_ARGUMENT (num below 0). After a failure the probabilities are undefined, and the call can be repeated.
EQ_API eq_status eq_classifier_run(struct eq_classifier *classifier, const struct eq_image *images, int num,
                                   float *probabilities);

// Called for every image that can be read, in their order, on the thread of the call; true stops.
//   i              number of the image
//   probabilities  f32 [classes], softmax of the logits; valid during the call
typedef bool (*eq_classified_fn)(void *user, size_t i, const float *probabilities);
// The same for images that are still to be read: decoded ahead on threads (eq_dataset_threads()) while the device computes, not
// all held at a time. One that cannot be read is named in the log (a warning), counted and left out. The first call compiles
// before it reads any.
//   items    read  [num] 1 or more, each with a path or a set
//   skipped  write images left out; as it was on failure
// Errors: as above, EQ_ERR_ARGUMENT also for no items, more than INT_MAX, one without both, and for EQUIL_THREADS,
// EQ_ERR_INTERRUPTED (the callback's true). None when no image can be read.
EQ_API eq_status eq_classifier_each(struct eq_classifier *classifier, const struct eq_image_item *items, size_t num,
                                    eq_classified_fn result, void *user, size_t *skipped);

struct eq_evaluation {
    double top1, top5;        // fractions of 1; top5 with fewer than 5 classes is 1
    double loss;              // mean cross entropy, without smoothing
    double images_per_second; // reading, decoding and computing, after the first batch, which compiles; 0: there was no other
    size_t images, skipped;   // counted in the above; broken ones, which are not
};
// Called after every batch, on the thread of the call.
typedef void (*eq_evaluation_progress_fn)(void *user, size_t images, size_t num_images);
// Evaluates on a data set: its test part, or all of it when it has none. Its classes must be among the file's, by name; where
// the file has no names, their number must be the same. progress NULL: none. Errors: those of eq_dataset_open(),
// EQ_ERR_ARGUMENT (other classes; EQUIL_THREADS), EQ_ERR_FORMAT (no image of the set can be read), those of eq_network_infer().
// The evaluation is as it was then.
EQ_API eq_status eq_classifier_evaluate(struct eq_classifier *classifier, const char *data, eq_evaluation_progress_fn progress,
                                        void *user, struct eq_evaluation *evaluation);

#ifdef __cplusplus
}
#endif
#endif

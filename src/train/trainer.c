// Setting a run up: options, data, network, and the place it starts from. run.c trains.
#include "train/trainer.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/json.h"

static eq_status make_paths(struct eq_trainer *trainer)
{
    const char *out = trainer->options.params.out;
    trainer->model_path = eq_path_join(out, "model.safetensors");
    trainer->best_path = eq_path_join(out, "best.safetensors");
    trainer->checkpoint_path = eq_path_join(out, "checkpoint.safetensors");
    trainer->log_path = eq_path_join(out, "log.jsonl");
    bool ok = trainer->model_path && trainer->best_path && trainer->checkpoint_path && trainer->log_path;
    return ok ? EQ_OK : EQ_ERR_HOST_MEMORY;
}

// ---- data

static eq_status open_train(struct eq_trainer *trainer)
{
    const struct eq_train_params *p = &trainer->options.params;
    struct eq_dataset_params params = { .spec = p->data, .split = EQ_SPLIT_TRAIN, .seed = p->seed, .size = p->size };
    EQ_TRY(eq_dataset_open(&params, &trainer->train));
    trainer->summary.is_held_out = !p->val && !eq_dataset_has_test_part(trainer->train);
    if (!trainer->summary.is_held_out)
        return EQ_OK;
    eq_dataset_destroy(&trainer->train);
    params.split = EQ_SPLIT_FIT;
    return eq_dataset_open(&params, &trainer->train);
}

// JSON, in which the weights file has the names, holds no others.
static eq_status check_class_name(const struct eq_trainer *trainer, const char *name)
{
    if (eq_json_is_utf8(name))
        return EQ_OK;
    char *shown = eq_json_escape(name);
    if (!shown)
        return EQ_ERR_HOST_MEMORY;
    eq_status status =
        eq_fail(EQ_ERR_ARGUMENT, "%s: the name of the class %s is not UTF-8, as weights files have names: rename it",
                trainer->options.params.data, shown);
    free(shown);
    return status;
}

static eq_status copy_class_names(struct eq_trainer *trainer)
{
    int num = eq_dataset_num_classes(trainer->train);
    trainer->meta.model.classes = num;
    EQ_ALLOC(trainer->meta.class_names, num);
    for (int i = 0; i < num; i++) {
        const char *name = eq_dataset_class_name(trainer->train, i);
        EQ_TRY(check_class_name(trainer, name));
        if (!(trainer->meta.class_names[i] = eq_strdup(name)))
            return EQ_ERR_HOST_MEMORY;
    }
    return EQ_OK;
}

static eq_status open_val(struct eq_trainer *trainer)
{
    const struct eq_train_params *p = &trainer->options.params;
    const struct eq_dataset_params params = { .spec = p->val ? p->val : p->data,
                                              .split = trainer->summary.is_held_out ? EQ_SPLIT_HELD_OUT : EQ_SPLIT_TEST,
                                              .seed = p->seed,
                                              .size = p->size,
                                              .class_names = (const char *const *)trainer->meta.class_names,
                                              .num_classes = trainer->meta.model.classes };
    return eq_dataset_open(&params, &trainer->val);
}

static uint64_t hash_items(const struct eq_dataset *dataset, uint64_t hash)
{
    char name[4096];
    for (size_t i = 0; i < eq_dataset_num_items(dataset); i++) {
        const int32_t label = eq_dataset_label(dataset, i);
        eq_dataset_item_name(dataset, i, name, sizeof name);
        hash = eq_fnv1a(&label, sizeof label, eq_fnv1a(name, strlen(name) + 1, hash));
    }
    return hash;
}

// The summary's options: those of the run, with batches that there are images for.
static eq_status choose_batch(struct eq_trainer *trainer)
{
    const struct eq_train_params *p = &trainer->options.params;
    const size_t images = eq_dataset_num_items(trainer->train), largest = images / (size_t)p->accumulate;
    EQ_REQUIRE(largest > 0, EQ_ERR_ARGUMENT, "%s: %zu images to train on, fewer than the %d batches of an update", p->data,
               images, p->accumulate);
    const int batch = (size_t)p->batch < largest ? p->batch : (int)largest;
    if (batch < p->batch && !p->resume) {
        eq_log(EQ_LOG_WARNING, "%s: %zu images to train on, fewer than the %d x %d of an update: the batch is %d", p->data,
               images, p->batch, p->accumulate, batch);
        eq_train_options_use_batch(&trainer->options, batch);
    }
    trainer->summary.params = *p;
    trainer->summary.params.batch = batch;
    return EQ_OK;
}

static eq_status open_data(struct eq_trainer *trainer)
{
    struct eq_train_params *p = &trainer->options.params;
    struct eq_train_summary *summary = &trainer->summary;
    EQ_TRY(open_train(trainer));
    EQ_TRY(copy_class_names(trainer));
    EQ_TRY(open_val(trainer));
    EQ_TRY(choose_batch(trainer));
    const size_t images = eq_dataset_num_items(trainer->train);
    summary->classes = trainer->meta.model.classes;
    summary->train_images = images;
    summary->val_images = eq_dataset_num_items(trainer->val);
    trainer->data = (struct eq_train_data){ .train_images = images,
                                            .val_images = summary->val_images,
                                            .hash = hash_items(trainer->val, hash_items(trainer->train, EQ_FNV_START)) };
    summary->steps_per_epoch = (int64_t)(images / ((size_t)summary->params.batch * (size_t)p->accumulate));
    trainer->schedule = (struct eq_schedule){ .kind = p->schedule,
                                              .base = p->rate,
                                              .warmup = p->warmup,
                                              .epochs = p->epochs,
                                              .steps_per_epoch = summary->steps_per_epoch };
    return EQ_OK;
}

// ---- network

static eq_status make_network(struct eq_trainer *trainer)
{
    const struct eq_train_params *p = &trainer->options.params;
    struct eq_meta *meta = &trainer->meta;
    const struct eq_model_params model = { .arch = p->arch, .classes = meta->model.classes, .small = p->small, .act = p->act,
                                           .recompute = p->recompute };
    meta->model = model;
    meta->model.arch = eq_strdup(p->arch);
    if (!meta->model.arch)
        return EQ_ERR_HOST_MEMORY;
    meta->form = eq_input_form_default(&model, p->size);
    return eq_network_create(trainer->device, &model, &trainer->network);
}

static eq_status plan_memory(struct eq_trainer *trainer)
{
    struct eq_model_info info;
    const struct eq_train_params *p = &trainer->summary.params;
    EQ_TRY(eq_model_describe(trainer->device, &trainer->meta.model, p->batch, p->size, p->size, &info));
    const size_t training = p->recompute ? info.recompute_bytes : info.training_bytes;
    size_t sums = p->accumulate > 1 ? info.weight_bytes : 0;
    trainer->summary.planned_bytes = training + info.validation_bytes + sums + 2 * eq_feed_bytes(p->batch, p->size);
    eq_model_info_free(&info);
    EQ_REQUIRE(training > 0, EQ_ERR_SHAPE,
               "batches of %d of %d x %d pixels: training does not take one value per channel, which has no variance", p->batch,
               p->size, p->size);
    return EQ_OK;
}

static eq_status start_values(struct eq_trainer *trainer, const struct eq_tensors *checkpoint)
{
    const struct eq_train_params *p = &trainer->options.params;
    struct eq_weights *weights = trainer->network->weights;
    if (checkpoint) {
        EQ_TRY(eq_weights_add_training(weights));
        EQ_TRY(eq_checkpoint_read_tensors(checkpoint, weights));
        return eq_checkpoint_read_state(checkpoint, &trainer->state);
    }
    EQ_TRY(eq_weights_initialise(weights, p->seed));
    if (p->weights)
        EQ_TRY(eq_weights_load(weights, p->weights, p->new_head, p->seed));
    trainer->state.best_top1 = -1;
    trainer->state.history = json_array();
    EQ_REQUIRE(trainer->state.history, EQ_ERR_HOST_MEMORY, "out of memory for the history of the run");
    return EQ_OK;
}

// ---- the folder of results

static eq_status lock_out(struct eq_trainer *trainer, const char *out)
{
    const eq_status status = eq_dir_lock(out, &trainer->lock);
    EQ_REQUIRE(status != EQ_ERR_ARGUMENT, status,
               "%s: another training writes there now: choose another folder; nothing was changed", out);
    return status;
}

// For a new run: nothing may be there that it would write over.
static eq_status check_empty(const struct eq_trainer *trainer)
{
    const char *out = trainer->options.params.out;
    EQ_REQUIRE(!eq_file_exists(trainer->checkpoint_path), EQ_ERR_ARGUMENT,
               "%s holds a run already: go on with it (--resume), or choose another folder; nothing was changed", out);
    const char *left = eq_file_exists(trainer->best_path) ? trainer->best_path : trainer->model_path;
    EQ_REQUIRE(!eq_file_exists(left), EQ_ERR_ARGUMENT,
               "%s is there, without a checkpoint to go on from: move it away, or choose another folder; nothing was changed",
               left);
    return EQ_OK;
}

// Whether `path`, which need not be there yet, lies below the folder `root`.
static bool is_below(const char *path, const char *root)
{
    char *at = eq_strdup(path), *real = realpath(path, NULL), *slash;
    char *real_root = realpath(root, NULL);
    const bool is_there = real != NULL;
    while (at && !real && (slash = strrchr(at, '/')) && slash > at) { // the nearest folder that is
        *slash = '\0';
        real = realpath(at, NULL);
    }
    if (!real)
        real = realpath(at && *at == '/' ? "/" : ".", NULL);
    const size_t bytes = real_root ? strlen(real_root) : 0;
    const bool fits = real && real_root && strncmp(real, real_root, bytes) == 0;
    const bool below = fits && (real[bytes] == '/' || (!real[bytes] && !is_there));
    free(at);
    free(real);
    free(real_root);
    return below;
}

// Results among the folders of the classes would be taken for a class when the data is opened again, as by resume.
static eq_status check_outside(const struct eq_trainer *trainer, const struct eq_dataset *dataset)
{
    char name[4096];
    const char *class_name = eq_dataset_class_name(dataset, eq_dataset_label(dataset, 0));
    eq_dataset_item_name(dataset, 0, name, sizeof name);
    char *slash = strrchr(name, '/');
    if (!slash)
        return EQ_OK; // not in folders
    *slash = '\0';
    slash = strrchr(name, '/');
    if (!slash || !class_name || strcmp(slash + 1, class_name) != 0)
        return EQ_OK;
    *slash = '\0';
    EQ_REQUIRE(!is_below(trainer->options.params.out, name), EQ_ERR_ARGUMENT,
               "%s lies in %s, among the folders of the classes, and would be taken for one: choose another folder; "
               "nothing was changed",
               trainer->options.params.out, name);
    return EQ_OK;
}

static eq_status check_out(struct eq_trainer *trainer)
{
    const struct eq_train_params *p = &trainer->options.params;
    if (!p->resume) {
        EQ_TRY(check_outside(trainer, trainer->train));
        EQ_TRY(check_outside(trainer, trainer->val));
        EQ_TRY(eq_dir_make(p->out));
        EQ_TRY(lock_out(trainer, p->out));
        EQ_TRY(check_empty(trainer));
    }
    EQ_TRY(eq_file_check(trainer->model_path));
    EQ_TRY(eq_file_check(trainer->best_path));
    return eq_file_check(trainer->checkpoint_path);
}

// Locked first: the checkpoint is the last one then.
static eq_status open_checkpoint(struct eq_trainer *trainer, const struct eq_train_params *params, struct eq_tensors **file)
{
    EQ_REQUIRE(params->out, EQ_ERR_ARGUMENT, "no folder for the results is given");
    char *path = eq_path_join(params->out, "checkpoint.safetensors");
    if (!path)
        return EQ_ERR_HOST_MEMORY;
    eq_status status =
        eq_file_exists(path)
            ? lock_out(trainer, params->out)
            : eq_fail(EQ_ERR_NOT_FOUND,
                      "%s: there is no checkpoint to resume from (the first is written after an epoch): start without --resume",
                      path);
    if (status == EQ_OK)
        status = eq_tensors_open(path, file);
    free(path);
    return status;
}

static eq_status fill_trainer(struct eq_trainer *trainer, const struct eq_train_params *params,
                              const struct eq_tensors *checkpoint)
{
    const eq_status status =
        eq_train_options_resolve(params, checkpoint ? eq_checkpoint_option : NULL, checkpoint, &trainer->options);
    EQ_REQUIRE(status != EQ_ERR_FORMAT, status, "%s: %s", eq_tensors_path(checkpoint), eq_last_error());
    EQ_TRY(status);
    if (checkpoint)
        EQ_TRY(eq_checkpoint_check_device(checkpoint, trainer->device));
    EQ_TRY(make_paths(trainer));
    EQ_TRY(open_data(trainer));
    if (checkpoint)
        EQ_TRY(eq_checkpoint_check_data(checkpoint, &trainer->data));
    EQ_TRY(make_network(trainer));
    EQ_TRY(plan_memory(trainer));
    EQ_TRY(start_values(trainer, checkpoint));
    trainer->summary.epoch = trainer->state.epoch;
    trainer->summary.step = trainer->state.step;
    EQ_TRY(check_out(trainer));
    if (checkpoint && trainer->state.epoch < trainer->options.params.epochs) // else nothing is left to compute
        eq_checkpoint_compare_library(checkpoint, trainer->device);
    return EQ_OK;
}

eq_status eq_trainer_create(struct eq_device *device, const struct eq_train_params *params, struct eq_trainer **trainer)
{
    struct eq_tensors *checkpoint = NULL;
    EQ_ALLOC(*trainer, 1);
    (*trainer)->device = device;
    (*trainer)->lock = -1;
    eq_status status = params->resume ? open_checkpoint(*trainer, params, &checkpoint) : EQ_OK;
    if (status == EQ_OK)
        status = fill_trainer(*trainer, params, checkpoint);
    eq_tensors_close(&checkpoint);
    if (status != EQ_OK)
        eq_trainer_destroy(trainer);
    return status;
}

void eq_trainer_destroy(struct eq_trainer **trainer)
{
    struct eq_trainer *t = *trainer;
    if (!t)
        return;
    eq_evaluator_destroy(&t->evaluator);
    eq_feed_destroy(&t->feed);
    eq_step_destroy(&t->step);
    eq_train_log_close(&t->log);
    eq_network_destroy(&t->network);
    eq_dataset_destroy(&t->val);
    eq_dataset_destroy(&t->train);
    eq_meta_free(&t->meta);
    eq_train_state_clear(&t->state);
    eq_train_options_free(&t->options);
    free(t->model_path);
    free(t->best_path);
    free(t->checkpoint_path);
    free(t->log_path);
    if (t->lock >= 0)
        close(t->lock);
    free(t);
    *trainer = NULL;
}

const struct eq_train_summary *eq_trainer_summary(const struct eq_trainer *trainer)
{
    return &trainer->summary;
}

void eq_trainer_stop(struct eq_trainer *trainer)
{
    trainer->is_stopped = 1;
}

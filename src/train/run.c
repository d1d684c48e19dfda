// The loop over epochs and updates, and what is written at the end of each.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/trainer.h"

enum { LOG_EVERY = 50 }; // updates between "step" lines of the log

// What only this call of eq_trainer_run() knows: clocks and callbacks. Nothing of it reaches weights or checkpoints.
struct run {
    struct eq_trainer *trainer;
    const struct eq_train_callbacks *callbacks;
    struct eq_train_progress progress;
    int64_t epoch_start_ns;   // behind the first update of the epoch, which may have compiled kernels
    int64_t epoch_start_seen; // images then
    double val_seconds;       // of the last validation
    size_t skipped;           // broken images before the epoch's first step in this run
    size_t all_skipped;       // those that were met behind the epoch's last step, too
    // The batch that was enqueued last: the device has the next one before this one's loss is looked at.
    struct eq_feed_batch pending; // num 0: none
    double pending_rate;
    bool pending_ends_update;
};

static eq_status make_parts(struct eq_trainer *trainer)
{
    const struct eq_train_params *p = &trainer->summary.params;
    const struct eq_step_params step = { .batch = p->batch,
                                         .size = p->size,
                                         .accumulate = p->accumulate,
                                         .label_smoothing = (float)p->label_smoothing,
                                         .momentum = (float)p->momentum,
                                         .weight_decay = (float)p->weight_decay };
    const struct eq_feed_params feed = {
        .dataset = trainer->train, .form = trainer->meta.form, .augment = p->augment, .is_shuffled = true, .seed = p->seed
    };
    if (trainer->step)
        return EQ_OK;
    EQ_TRY(eq_step_create(trainer->network, &step, &trainer->step));
    EQ_TRY(eq_feed_create(trainer->device, &trainer->network->gradients, &feed, &trainer->feed));
    return eq_evaluator_create(trainer->network, trainer->val, &trainer->meta.form, p->batch, false, &trainer->evaluator);
}

// ---- log

// NULL on no memory.
static json_t *options_json(const struct eq_trainer *trainer)
{
    json_t *options = json_object();
    bool ok = options != NULL;
    for (int i = 0; i < eq_train_options_num() && ok; i++) {
        char *text = eq_train_option_text(&trainer->options.params, i);
        ok = text && json_object_set_new(options, strchr(eq_train_option_key(i), '.') + 1, json_string(text)) == 0;
        free(text);
    }
    if (!ok)
        json_decref(options);
    return ok ? options : NULL;
}

static eq_status log_start(struct eq_trainer *trainer)
{
    const struct eq_train_summary *summary = &trainer->summary;
    json_t *options = options_json(trainer);
    EQ_REQUIRE(options, EQ_ERR_HOST_MEMORY, "out of memory: a line of the log");
    return eq_train_log_write(
        &trainer->log,
        json_pack("{s:s, s:s, s:s, s:s, s:i, s:I, s:I, s:b, s:I, s:I, s:o}", "event", "start", "version", EQ_VERSION, "device",
                  eq_device_name(trainer->device), "driver", eq_device_driver(trainer->device), "classes", summary->classes,
                  "train_images", (json_int_t)summary->train_images, "val_images", (json_int_t)summary->val_images, "held_out",
                  summary->is_held_out, "steps_per_epoch", (json_int_t)summary->steps_per_epoch, "planned_bytes",
                  (json_int_t)summary->planned_bytes, "options", options));
}

static eq_status log_step(struct eq_trainer *trainer, double rate)
{
    const struct eq_train_state *state = &trainer->state;
    double seen = (double)state->seen;
    return eq_train_log_write(&trainer->log, json_pack("{s:s, s:i, s:I, s:f, s:f, s:f}", "event", "step", "epoch",
                                                       state->epoch + 1, "step", (json_int_t)state->step, "lr", rate, "loss",
                                                       state->loss_sum / seen, "top1", (double)state->hits / seen));
}

// ---- progress

static void report_training(struct run *run, double rate)
{
    const struct eq_trainer *trainer = run->trainer;
    const struct eq_train_state *state = &trainer->state;
    struct eq_train_progress *progress = &run->progress;
    int64_t per_epoch = trainer->summary.steps_per_epoch,
            left = (trainer->summary.params.epochs - state->epoch) * per_epoch - state->step;
    progress->is_epoch_end = progress->is_validation = false;
    progress->epoch = state->epoch;
    progress->num_epochs = trainer->summary.params.epochs;
    progress->step = state->step;
    progress->num_steps = per_epoch;
    progress->rate = rate;
    progress->loss = state->loss_sum / (double)state->seen;
    progress->top1 = (double)state->hits / (double)state->seen;
    progress->skipped = state->skipped;
    if (run->epoch_start_ns == 0) {
        run->epoch_start_ns = eq_clock_ns();
        run->epoch_start_seen = state->seen;
    } else {
        double seconds = (double)(eq_clock_ns() - run->epoch_start_ns) * 1e-9;
        double images_per_step = (double)trainer->summary.params.batch * trainer->summary.params.accumulate;
        progress->images_per_second = (double)(state->seen - run->epoch_start_seen) / seconds;
        progress->seconds_left = (double)left * images_per_step / progress->images_per_second +
                                 run->val_seconds * (trainer->summary.params.epochs - state->epoch);
    }
    if (run->callbacks && run->callbacks->progress)
        run->callbacks->progress(run->callbacks->user, progress);
}

static bool report_validation(void *user, size_t images)
{
    struct run *run = user;
    size_t batch = (size_t)run->trainer->summary.params.batch;
    run->progress.is_validation = true;
    run->progress.step = (int64_t)((images + batch - 1) / batch);
    run->progress.num_steps = (int64_t)((run->trainer->summary.val_images + batch - 1) / batch);
    if (run->callbacks && run->callbacks->progress)
        run->callbacks->progress(run->callbacks->user, &run->progress);
    return run->trainer->is_stopped;
}

// ---- an epoch

// Waits for the pending batch and counts it.
static eq_status take_result(struct run *run)
{
    struct eq_trainer *trainer = run->trainer;
    struct eq_train_state *state = &trainer->state;
    const struct eq_feed_batch batch = run->pending;
    struct eq_step_result result;
    run->pending.num = 0;
    if (batch.num == 0)
        return EQ_OK;
    eq_status status = eq_step_result(trainer->step, batch.labels, &result);
    if (status == EQ_ERR_NUMERIC)
        return eq_fail(status, "epoch %d, step %lld: %s", state->epoch + 1, (long long)state->step + 1, eq_last_error());
    EQ_TRY(status);
    state->loss_sum += result.loss_sum;
    state->hits += result.hits;
    state->seen += batch.num;
    state->position = batch.position;
    state->skipped = run->skipped + batch.skipped;
    if (!run->pending_ends_update)
        return EQ_OK;
    state->step++;
    if (state->step % LOG_EVERY == 0)
        EQ_TRY(log_step(trainer, run->pending_rate));
    report_training(run, run->pending_rate);
    return EQ_OK;
}

// Enqueues the batches of one update, counts those before, and has the next one fetched, the epoch's last aside. Fewer than
// wanted are left where images were broken: then there is no update.
static eq_status train_update(struct run *run, struct eq_feed_batch *batch, double rate, bool is_last)
{
    struct eq_trainer *trainer = run->trainer;
    int accumulate = trainer->summary.params.accumulate;
    for (int i = 0; i < accumulate && batch->num > 0; i++) {
        EQ_TRY(eq_step_launch(trainer->step));
        EQ_TRY(eq_step_finish(trainer->step, i, rate));
        EQ_TRY(take_result(run));
        run->pending = *batch;
        run->pending_rate = rate;
        run->pending_ends_update = i + 1 == accumulate;
        if (!is_last || i + 1 < accumulate)
            EQ_TRY(eq_feed_next(trainer->feed, batch));
    }
    return EQ_OK;
}

static eq_status train_epoch(struct run *run)
{
    struct eq_trainer *trainer = run->trainer;
    struct eq_train_state *state = &trainer->state;
    struct eq_feed_batch batch;
    int64_t per_epoch = trainer->summary.steps_per_epoch;
    run->skipped = run->all_skipped = state->skipped;
    if (state->step >= per_epoch)
        return EQ_OK;
    run->pending.num = 0;
    EQ_TRY(eq_step_begin(trainer->step));
    EQ_TRY(eq_feed_start(trainer->feed, state->epoch, state->position));
    EQ_TRY(eq_feed_next(trainer->feed, &batch));
    run->epoch_start_ns = 0;
    for (int64_t step = state->step; step < per_epoch && batch.num > 0 && !trainer->is_stopped; step++) {
        double rate = eq_schedule_rate(&trainer->schedule, state->epoch * per_epoch + step);
        EQ_TRY(train_update(run, &batch, rate, step + 1 == per_epoch));
    }
    EQ_TRY(take_result(run));
    run->all_skipped = batch.num > 0 ? state->skipped : run->skipped + batch.skipped;
    return EQ_OK;
}

static eq_status validate(struct run *run, struct eq_evaluation *evaluation)
{
    struct eq_trainer *trainer = run->trainer;
    int64_t start = eq_clock_ns();
    EQ_TRY(eq_evaluator_run(trainer->evaluator, report_validation, run, evaluation));
    run->val_seconds = (double)(eq_clock_ns() - start) * 1e-9;
    EQ_REQUIRE(isfinite(evaluation->loss), EQ_ERR_NUMERIC, "epoch %d: the validation loss is %g", trainer->state.epoch + 1,
               evaluation->loss);
    return EQ_OK;
}

static struct eq_checkpoint checkpoint_of(struct eq_trainer *trainer)
{
    return (struct eq_checkpoint){ trainer->network->weights, &trainer->meta, &trainer->options.params, &trainer->data,
                                   &trainer->state };
}

// null: not known, because there was no step, or batch, but the first.
static json_t *speed_json(double images_per_second)
{
    return images_per_second > 0 ? json_real(images_per_second) : json_null();
}

// The record of an epoch: in the history without times, in the log with them.
static eq_status record_epoch(struct run *run, const struct eq_evaluation *evaluation)
{
    struct eq_trainer *trainer = run->trainer;
    const struct eq_train_state *state = &trainer->state;
    double seen = (double)state->seen;
    json_t *record =
        json_pack("{s:s, s:i, s:I, s:f, s:f, s:f, s:f, s:f, s:b, s:I, s:I}", "event", "epoch", "epoch", state->epoch + 1,
                  "step", (json_int_t)state->step, "loss", state->loss_sum / seen, "top1", (double)state->hits / seen,
                  "val_loss", evaluation->loss, "val_top1", evaluation->top1, "val_top5", evaluation->top5, "best",
                  run->progress.is_best, "skipped", (json_int_t)state->skipped, "val_skipped", (json_int_t)evaluation->skipped);
    json_t *line = json_deep_copy(record);
    const bool ok =
        json_object_set_new(line, "images_per_second", speed_json(run->progress.images_per_second)) == 0 &&
        json_object_set_new(line, "val_images_per_second", speed_json(evaluation->images_per_second)) == 0 &&
        json_object_set_new(line, "peak_memory_bytes", json_integer((json_int_t)eq_device_peak_bytes(trainer->device))) == 0;
    if (json_array_append_new(state->history, record) != 0 || !ok) {
        json_decref(line);
        return eq_fail(EQ_ERR_HOST_MEMORY, "out of memory: the record of epoch %d", state->epoch + 1);
    }
    return eq_train_log_write(&trainer->log, line);
}

static eq_status check_seen(const struct run *run)
{
    const struct eq_train_summary *summary = &run->trainer->summary;
    const struct eq_train_params *p = &summary->params;
    EQ_REQUIRE(run->trainer->state.seen > 0, EQ_ERR_FORMAT,
               "%s: %zu of %zu images can be read, not enough for a single step, which needs %d x %d: take a smaller batch "
               "(--batch)",
               p->data, summary->train_images - run->all_skipped, summary->train_images, p->batch, p->accumulate);
    return EQ_OK;
}

// What was met behind the last step counts when no stop can come any more: a resumed run meets it again.
static void count_skipped(struct run *run)
{
    struct eq_trainer *trainer = run->trainer;
    struct eq_train_state *state = &trainer->state;
    const int64_t per_epoch = trainer->summary.steps_per_epoch;
    state->skipped = run->progress.skipped = run->all_skipped;
    if (state->step < per_epoch)
        eq_log(EQ_LOG_WARNING, "%s: epoch %d has %lld of its %lld steps: %zu of %zu images could not be read",
               trainer->summary.params.data, state->epoch + 1, (long long)state->step, (long long)per_epoch, state->skipped,
               trainer->summary.train_images);
}

static eq_status end_epoch(struct run *run)
{
    struct eq_trainer *trainer = run->trainer;
    struct eq_train_state *state = &trainer->state;
    struct eq_evaluation evaluation;
    EQ_TRY(check_seen(run));
    EQ_TRY(validate(run, &evaluation));
    count_skipped(run);
    run->progress.is_best = evaluation.top1 > state->best_top1;
    run->progress.val_loss = evaluation.loss;
    run->progress.val_top1 = evaluation.top1;
    run->progress.val_top5 = evaluation.top5;
    const struct eq_checkpoint checkpoint = checkpoint_of(trainer);
    if (run->progress.is_best) {
        state->best_top1 = evaluation.top1;
        state->best_epoch = state->epoch;
        EQ_TRY(eq_checkpoint_save_weights(&checkpoint, trainer->best_path));
    }
    EQ_TRY(eq_checkpoint_save_weights(&checkpoint, trainer->model_path));
    EQ_TRY(record_epoch(run, &evaluation));
    state->epoch++;
    state->step = state->hits = state->seen = 0;
    state->position = state->skipped = 0;
    state->loss_sum = 0;
    state->log_lines = trainer->log.lines;
    EQ_TRY(eq_checkpoint_save(&checkpoint, trainer->checkpoint_path));
    run->progress.is_epoch_end = true;
    run->progress.is_validation = false;
    if (run->callbacks && run->callbacks->progress)
        run->callbacks->progress(run->callbacks->user, &run->progress);
    return EQ_OK;
}

// The position in the epoch is saved; a validation that was cut short is done again.
static eq_status stop(struct run *run)
{
    struct eq_trainer *trainer = run->trainer;
    const struct eq_checkpoint checkpoint = checkpoint_of(trainer);
    trainer->state.log_lines = trainer->log.lines;
    EQ_TRY(eq_checkpoint_save(&checkpoint, trainer->checkpoint_path));
    return eq_fail(EQ_ERR_INTERRUPTED, "stopped in epoch %d of %d after step %lld of %lld; %s has the position",
                   trainer->state.epoch + 1, trainer->summary.params.epochs, (long long)trainer->state.step,
                   (long long)trainer->summary.steps_per_epoch, trainer->checkpoint_path);
}

static eq_status run_epochs(struct run *run)
{
    struct eq_trainer *trainer = run->trainer;
    struct eq_train_state *state = &trainer->state;
    while (state->epoch < trainer->summary.params.epochs) {
        EQ_TRY(train_epoch(run));
        if (trainer->is_stopped)
            return stop(run);
        eq_status status = end_epoch(run);
        if (status == EQ_ERR_INTERRUPTED)
            return stop(run);
        EQ_TRY(status);
        if (trainer->is_stopped && state->epoch < trainer->summary.params.epochs)
            return stop(run);
    }
    return EQ_OK;
}

eq_status eq_trainer_run(struct eq_trainer *trainer, const struct eq_train_callbacks *callbacks)
{
    struct run run = { .trainer = trainer, .callbacks = callbacks };
    EQ_TRY(make_parts(trainer));
    if (!trainer->log.file) {
        if (!trainer->options.params.resume)
            EQ_TRY(eq_train_log_set_aside(trainer->log_path));
        EQ_TRY(eq_train_log_open(&trainer->log, trainer->log_path, trainer->state.log_lines));
        if (trainer->log.lines == 0)
            EQ_TRY(log_start(trainer));
    }
    return run_epochs(&run);
}

// Tuning a network: its calls for a batch, their choices one after the other, and the file that keeps them.
#include "equil/tune.h"

#include <stdlib.h>
#include <string.h>

#include "model/model.h"
#include "op/tune.h"

enum { MAX_CHOICES = 16 };

struct tuner {
    struct eq_device *device;
    const struct eq_tune_params *params;
    eq_tune_progress_fn progress;
    void *user;
    struct eq_tune_summary *summary;
    struct eq_tuning *file;      // what stands, or will stand, in the file
    struct eq_tuning *decisions; // the device's tuning with the file over it
    struct eq_tuning *seen;      // keys that were met, with a value of no meaning
    int64_t start;
    struct eq_tune_progress at;
    bool is_out_of_time;
};

static bool report(struct tuner *tuner)
{
    return !tuner->progress || tuner->progress(tuner->user, &tuner->at);
}

static bool before_candidate(void *user, int candidate, int num_candidates)
{
    struct tuner *tuner = user;
    tuner->at.candidate = candidate;
    tuner->at.num_candidates = num_candidates;
    return report(tuner);
}

static bool is_out_of_time(const struct tuner *tuner)
{
    const double limit = tuner->params->seconds;
    return limit > 0 && (double)(eq_clock_ns() - tuner->start) * 1e-9 >= limit;
}

// ---- the file

static eq_status open_file(struct tuner *tuner)
{
    const char *out = tuner->params->out;
    char *path = out ? eq_strdup(out) : eq_device_tuning_file(tuner->device);
    EQ_REQUIRE(path, EQ_ERR_IO, "there is no home for the results: name a file");
    const bool fits = strlen(path) < sizeof tuner->summary->path;
    snprintf(tuner->summary->path, sizeof tuner->summary->path, "%s", path);
    char *slash = strrchr(path, '/');
    eq_status status = fits ? EQ_OK : eq_fail(EQ_ERR_ARGUMENT, "the path %.60s... is too long", path);
    if (status == EQ_OK && eq_file_exists(path)) {
        status = eq_tuning_read(tuner->file, path, tuner->device);
    } else if (status == EQ_OK && slash && slash > path) {
        *slash = '\0';
        status = eq_dir_make(path);
    }
    free(path);
    EQ_TRY(status);
    EQ_TRY(eq_tuning_merge(tuner->decisions, tuner->device->tuning));
    return eq_tuning_merge(tuner->decisions, tuner->file);
}

static void values_text(const struct eq_tunable *choice, const int *values, char *text, size_t bytes)
{
    size_t at = 0;
    *text = '\0';
    for (int v = 0; v < choice->num_values && at < bytes; v++)
        at += (size_t)snprintf(text + at, bytes - at, "%s%s %d", v ? " " : "", choice->names[v] ? choice->names[v] : "value",
                               values[v]);
}

static eq_status keep(struct tuner *tuner, const struct eq_tunable *choice, const struct eq_tune_outcome *outcome)
{
    const int *values = choice->candidates[outcome->candidate];
    const struct eq_tuning_identity identity = eq_device_identity(tuner->device);
    struct eq_tune_progress *at = &tuner->at;
    char note[EQ_TUNE_MAX_NOTE];
    values_text(choice, values, at->values, sizeof at->values);
    if (outcome->candidate)
        snprintf(note, sizeof note, "%.50s: %.3f ms, default %.3f ms", at->values, outcome->seconds * 1e3,
                 outcome->default_seconds * 1e3);
    else
        snprintf(note, sizeof note, "%.50s: %.3f ms, the default", at->values, outcome->seconds * 1e3);
    EQ_TRY(eq_tuning_set(tuner->file, choice->key, values, choice->num_values, note));
    EQ_TRY(eq_tuning_set(tuner->decisions, choice->key, values, choice->num_values, note));
    EQ_TRY(eq_tuning_save(tuner->file, tuner->summary->path, &identity));
    tuner->summary->num_measured++;
    tuner->summary->num_changed += outcome->candidate != 0;
    tuner->summary->num_rejected += outcome->num_rejected;
    at->is_done = true;
    at->is_default = outcome->candidate == 0;
    at->seconds = outcome->seconds;
    at->default_seconds = outcome->default_seconds;
    at->num_rejected = outcome->num_rejected;
    at->rejected = outcome->rejected;
    const bool goes_on = report(tuner);
    at->is_done = false;
    return goes_on ? EQ_OK : eq_fail(EQ_ERR_INTERRUPTED, "stopped after %d choices", tuner->summary->num_measured);
}

// ---- choices

static eq_status measure(struct tuner *tuner, const struct eq_call *call, const bool *is_result,
                         const struct eq_tunable *choice)
{
    struct eq_tune_job job = { .device = tuner->device, .call = call, .tuning = tuner->decisions, .go_on = before_candidate,
                               .user = tuner };
    struct eq_tune_outcome outcome;
    memcpy(job.is_result, is_result, sizeof job.is_result);
    EQ_TRY(eq_tune_choice(&job, choice, &outcome));
    return keep(tuner, choice, &outcome);
}

// The first choice of the call that was not met before; -1: none.
static int next_choice(const struct tuner *tuner, const struct eq_tunable *choices, int num)
{
    for (int i = 0; i < num; i++)
        if (choices[i].num_candidates > 1 && !eq_tuning_entry(tuner->seen, choices[i].key))
            return i;
    return -1;
}

static eq_status settle_choice(struct tuner *tuner, const struct eq_call *call, const bool *is_result,
                               const struct eq_tunable *choice)
{
    EQ_TRY(eq_tuning_set(tuner->seen, choice->key, (const int[]){ 1 }, 1, ""));
    if (!tuner->params->again && eq_tuning_entry(tuner->file, choice->key)) {
        tuner->summary->num_known++;
        return EQ_OK;
    }
    tuner->is_out_of_time = is_out_of_time(tuner);
    if (tuner->is_out_of_time)
        return EQ_OK;
    tuner->at.key = choice->key;
    return measure(tuner, call, is_result, choice);
}

// A decision may open other choices, so the op is asked again after each.
static eq_status tune_call(struct tuner *tuner, const struct eq_call *given, const bool *is_result)
{
    struct eq_target *target = &tuner->device->target;
    const struct eq_tuning *before = target->tuning;
    struct eq_call call = *given;
    struct eq_conv2d_attributes prepared;
    call.target = target;
    if (call.op == &eq_op_conv2d && !tuner->params->training) {
        prepared = *(const struct eq_conv2d_attributes *)call.attributes;
        prepared.is_prepared = true;
        call.attributes = &prepared;
    }
    for (bool is_over = false; !is_over && !tuner->is_out_of_time;) {
        struct eq_tunable choices[MAX_CHOICES] = { { .num_candidates = 0 } };
        int num = 0;
        target->tuning = tuner->decisions;
        eq_status status = call.op->tunables(&call, choices, MAX_CHOICES, &num);
        target->tuning = before;
        const int next = status == EQ_OK ? next_choice(tuner, choices, num) : -1;
        is_over = next < 0;
        if (next >= 0)
            status = settle_choice(tuner, &call, is_result, &choices[next]);
        for (int i = 0; i < MAX_CHOICES; i++)
            free(choices[i].candidates);
        EQ_TRY(status);
    }
    return EQ_OK;
}

// Outputs that somebody reads; the others are workspace.
static void find_results(const struct eq_ir *ir, int index, bool *is_result)
{
    const struct eq_ir_call *call = &ir->calls[index];
    for (int o = 0; o < call->call.num_outputs; o++) {
        const struct eq_ir_value *value = &ir->values[call->out[o]];
        is_result[o] = value->is_output || value->grad_of >= 0 || value->last_reader >= 0;
    }
}

static bool is_wanted(const struct tuner *tuner, const struct eq_op *op)
{
    return op->tunables && (!tuner->params->op || strcmp(tuner->params->op, op->name) == 0);
}

static eq_status tune_calls(struct tuner *tuner, const struct eq_ir *ir)
{
    for (int c = 0; c < ir->num_calls; c++)
        tuner->at.num_calls += is_wanted(tuner, ir->calls[c].call.op);
    EQ_REQUIRE(tuner->at.num_calls > 0, EQ_ERR_NOT_FOUND, "%s: no call of %s has choices", tuner->params->model.arch,
               tuner->params->op ? tuner->params->op : "any op");
    for (int c = 0; c < ir->num_calls && !tuner->is_out_of_time; c++) {
        const struct eq_ir_call *call = &ir->calls[c];
        bool is_result[EQ_MAX_OPERANDS] = { false };
        if (!is_wanted(tuner, call->call.op))
            continue;
        find_results(ir, c, is_result);
        tuner->at.layer = call->label;
        tuner->at.op = call->call.op->name;
        eq_status status = tune_call(tuner, &call->call, is_result);
        if (status != EQ_OK)
            return eq_fail(status, "%s: %s", call->label, eq_last_error());
        tuner->at.call++;
    }
    tuner->summary->is_complete = !tuner->is_out_of_time;
    return EQ_OK;
}

static eq_status tune_graph(struct tuner *tuner)
{
    const struct eq_tune_params *p = tuner->params;
    const int side = p->size ? p->size : eq_model_is_small(&p->model) ? 32 : 224, batch = p->batch ? p->batch : 16;
    struct eq_model_graph model;
    struct eq_ir *ir;
    EQ_TRY(eq_model_graph_create(&p->model, batch, side, side, p->training ? 0.1f : -1.0f, &model));
    struct eq_target target = tuner->device->target;
    target.tuning = tuner->decisions;
    // Evaluation too is measured on the calls of training, which read filters as they are: see `is_prepared`.
    const struct eq_compile_params compile = { .training = true, .loss = p->training ? model.loss : EQ_NO_VALUE };
    eq_status status = eq_ir_create(model.graph, &target, &compile, &ir);
    if (status == EQ_OK) {
        status = tune_calls(tuner, ir);
        eq_ir_destroy(&ir);
    }
    eq_model_graph_destroy(&model);
    return status;
}

static eq_status tune(struct tuner *tuner)
{
    const struct eq_tune_params *p = tuner->params;
    EQ_TRY(eq_model_check(&p->model));
    EQ_REQUIRE(p->batch >= 0 && p->size >= 0 && p->seconds >= 0, EQ_ERR_ARGUMENT, "batch %d, size %d, %g seconds", p->batch,
               p->size, p->seconds);
    EQ_TRY(eq_tuning_create(&tuner->file));
    EQ_TRY(eq_tuning_create(&tuner->decisions));
    EQ_TRY(eq_tuning_create(&tuner->seen));
    EQ_TRY(open_file(tuner));
    return tune_graph(tuner);
}

eq_status eq_tune_network(struct eq_device *device, const struct eq_tune_params *params, eq_tune_progress_fn progress,
                          void *user, struct eq_tune_summary *summary)
{
    struct tuner tuner = { .device = device, .params = params, .progress = progress, .user = user, .summary = summary,
                           .start = eq_clock_ns() };
    *summary = (struct eq_tune_summary){ .num_measured = 0 };
    eq_status status = tune(&tuner);
    eq_tuning_destroy(&tuner.file);
    eq_tuning_destroy(&tuner.decisions);
    eq_tuning_destroy(&tuner.seen);
    return status;
}

// Tuning a network: its calls for a batch, their choices one after the other, and the file that keeps them.
//
// Candidates that a driver does not survive are kept beside it, in FILE.failed, in the form of a tuning: "KEY failed 1 =
// 7 1 4  # was stopped by signal 11". They are those of one driver and one version of the library; with others they are tried
// again.
#include "equil/tune.h"

#include <stdlib.h>
#include <string.h>

#include "model/model.h"
#include "op/choice.h"
#include "op/tune.h"

enum { MAX_CHOICES = 16 };
// Behind the note of a choice that was measured with another driver than the file is now of: it is measured again.
static const char outdated[] = "; with another driver";

struct tuner {
    struct eq_device *device;
    const struct eq_tune_params *params;
    eq_tune_progress_fn progress;
    void *user;
    struct eq_tune_summary *summary;
    struct eq_tuning *file;            // what stands, or will stand, in the file
    struct eq_tuning *decisions;       // the device's tuning with the file over it
    struct eq_tuning *shipped;         // the library's
    struct eq_tuning *seen;            // keys that were met, with a value of no meaning
    struct eq_tuning *failed;          // candidates that are left out
    const struct eq_tunable *choice;   // that is measured
    const struct rehearsal *rehearsal; // NULL: choices are measured
    int64_t start;
    struct eq_tune_progress at;
    bool is_over; // the time is, or the rehearsal
};

// What is tried and not measured.
struct rehearsal {
    const char *key;
    int (*next)(void *user);
    void *user;
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

// ---- candidates that are left out

static char *failed_path(const struct tuner *tuner)
{
    struct eq_str path = { 0 };
    eq_str_append(&path, "%s.failed", tuner->summary->path);
    return path.text;
}

static bool is_same_code(const struct eq_tuning_identity *a, const struct eq_tuning_identity *b)
{
    return strcmp(a->device, b->device) == 0 && strcmp(a->driver, b->driver) == 0 && strcmp(a->library, b->library) == 0;
}

static eq_status read_failed(struct tuner *tuner)
{
    const struct eq_tuning_identity identity = eq_device_identity(tuner->device);
    struct eq_tuning_identity header;
    char *path = failed_path(tuner), *text = NULL;
    size_t bytes;
    if (!path)
        return EQ_ERR_HOST_MEMORY;
    const bool is_there = eq_file_exists(path);
    eq_status status = is_there ? eq_file_read(path, EQ_TUNE_MAX_FILE_BYTES, &text, &bytes) : EQ_OK;
    if (text)
        status = eq_tuning_parse(tuner->failed, path, text, &identity, &header);
    if (text && status == EQ_OK && !is_same_code(&header, &identity)) {
        eq_tuning_destroy(&tuner->failed);
        status = eq_tuning_create(&tuner->failed);
    }
    free(text);
    free(path);
    return status;
}

// The candidate's entry; NULL: none, and `key` is that of the next one.
static const struct eq_tuning_entry *find_failed(const struct tuner *tuner, const int *values, char key[EQ_TUNE_MAX_KEY])
{
    const struct eq_tunable *choice = tuner->choice;
    for (int n = 1;; n++) {
        snprintf(key, EQ_TUNE_MAX_KEY, "%.140s failed %d", choice->key, n);
        const struct eq_tuning_entry *entry = eq_tuning_entry(tuner->failed, key);
        if (!entry || (entry->num_values == choice->num_values &&
                       memcmp(entry->values, values, (size_t)choice->num_values * sizeof *values) == 0))
            return entry;
    }
}

static eq_status remember_failed(struct tuner *tuner, const int *values, const char *key, const char *why)
{
    const struct eq_tuning_identity identity = eq_device_identity(tuner->device);
    char note[EQ_TUNE_MAX_NOTE];
    snprintf(note, sizeof note, "%s", why);
    EQ_TRY(eq_tuning_set(tuner->failed, key, values, tuner->choice->num_values, note));
    char *path = failed_path(tuner);
    if (!path)
        return EQ_ERR_HOST_MEMORY;
    eq_status status =
        eq_tuning_save(tuner->failed, path, &identity,
                       "# What 'equil tune' leaves out with this driver: trying it crashed, or did not end. Without its\n"
                       "# line a candidate is tried again.\n");
    free(path);
    return status;
}

static eq_status admit(void *user, int candidate)
{
    struct tuner *tuner = user;
    const int *values = tuner->choice->candidates[candidate];
    char key[EQ_TUNE_MAX_KEY], why[EQ_TUNE_WHY_BYTES] = "";
    const struct eq_tuning_entry *failed = find_failed(tuner, values, key);
    if (failed)
        return eq_fail(EQ_ERR_BUILD, "left out, as before: trying it %s", failed->note);
    if (!tuner->params->rehearse)
        return EQ_OK;
    const eq_status status = tuner->params->rehearse(tuner->user, tuner->choice->key, candidate, why);
    if (status == EQ_ERR_INTERRUPTED)
        return eq_fail(status, "stopped while a candidate of %s was tried", tuner->choice->key);
    if (status != EQ_ERR_BUILD)
        return status;
    EQ_TRY(remember_failed(tuner, values, key, why));
    return eq_fail(EQ_ERR_BUILD, "left out: trying it %s", why);
}

// ---- the file

static bool is_outdated(const struct eq_tuning_entry *entry)
{
    const size_t length = strlen(entry->note), end = sizeof outdated - 1;
    return length >= end && strcmp(entry->note + length - end, outdated) == 0;
}

static eq_status mark_outdated(struct eq_tuning *tuning)
{
    for (int i = 0; i < eq_tuning_num(tuning); i++) {
        const struct eq_tuning_entry entry = *eq_tuning_at(tuning, i);
        char note[EQ_TUNE_MAX_NOTE];
        snprintf(note, sizeof note, "%.*s%s", (int)(sizeof note - sizeof outdated), entry.note, outdated);
        if (!is_outdated(&entry))
            EQ_TRY(eq_tuning_set(tuning, entry.key, entry.values, entry.num_values, note));
    }
    return EQ_OK;
}

// Measurements of another device would pass for this one's: the file has one header. Lines for other devices, in sections,
// would be lost when it is written.
static eq_status read_known(struct tuner *tuner, const char *path)
{
    const struct eq_tuning_identity identity = eq_device_identity(tuner->device);
    struct eq_tuning_identity header;
    EQ_TRY(eq_tuning_read(tuner->file, path, tuner->device, &header));
    EQ_REQUIRE(!*header.device || strcmp(header.device, identity.device) == 0, EQ_ERR_ARGUMENT,
               "%s was measured on %s, this is %s: name another file", path, header.device, identity.device);
    EQ_REQUIRE(!header.has_sections, EQ_ERR_ARGUMENT,
               "%s has [sections] for several devices, which would not be kept: name another file", path);
    return *header.driver && strcmp(header.driver, identity.driver) != 0 ? mark_outdated(tuner->file) : EQ_OK;
}

static eq_status open_file(struct tuner *tuner)
{
    const char *out = tuner->params->out ? tuner->params->out : eq_option(EQ_OPTION_TUNING);
    EQ_REQUIRE(tuner->params->out || !eq_option_is_off(EQ_OPTION_TUNING), EQ_ERR_ARGUMENT,
               "%s is 0: nothing would read the results; name a file for them", eq_option_variable(EQ_OPTION_TUNING));
    char *path = out ? eq_strdup(out) : eq_device_tuning_file(tuner->device);
    EQ_REQUIRE(path, EQ_ERR_IO, "there is no home folder, and %s names no other: name a file for the results",
               eq_option_variable(EQ_OPTION_CACHE_DIR));
    const bool fits = strlen(path) < sizeof tuner->summary->path;
    snprintf(tuner->summary->path, sizeof tuner->summary->path, "%s", path);
    char *slash = strrchr(path, '/');
    eq_status status = fits ? EQ_OK : eq_fail(EQ_ERR_ARGUMENT, "the path %.60s... is too long", path);
    if (status == EQ_OK && eq_file_exists(path)) {
        status = read_known(tuner, path);
    } else if (status == EQ_OK && slash && slash > path) {
        *slash = '\0';
        status = eq_dir_make(path);
    }
    free(path);
    EQ_TRY(status);
    EQ_TRY(eq_file_check(tuner->summary->path)); // before anything is measured
    EQ_TRY(read_failed(tuner));
    EQ_TRY(eq_tuning_read_shipped(tuner->shipped, tuner->device));
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
        snprintf(note, sizeof note, "%.100s: %.3f ms, default %.3f ms", at->values, outcome->seconds * 1e3,
                 outcome->default_seconds * 1e3);
    else
        snprintf(note, sizeof note, "%.100s: %.3f ms, the default", at->values, outcome->seconds * 1e3);
    EQ_TRY(eq_tuning_set(tuner->file, choice->key, values, choice->num_values, note));
    EQ_TRY(eq_tuning_set(tuner->decisions, choice->key, values, choice->num_values, note));
    EQ_TRY(eq_tuning_save(tuner->file, tuner->summary->path, &identity,
                          "# Choices that 'equil tune' measured. Lines may be edited or removed; what is not here is\n"
                          "# chosen by the library. What the values are stands behind them. Comments in lines of their\n"
                          "# own are not kept.\n"));
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
                               .admit = admit, .user = tuner };
    struct eq_tune_outcome outcome;
    memcpy(job.is_result, is_result, sizeof job.is_result);
    tuner->choice = choice;
    EQ_TRY(eq_tune_choice(&job, choice, &outcome));
    return keep(tuner, choice, &outcome);
}

static bool has_candidate(const struct eq_tunable *choice, const int *values)
{
    for (int c = 0; c < choice->num_candidates; c++)
        if (memcmp(choice->candidates[c], values, (size_t)choice->num_values * sizeof *values) == 0)
            return true;
    return false;
}

// What is taken where the file has nothing stands first: a choice of the library, or of another file, that the op's model does
// not know. What the file has and is measured again is not its own default, nor is what the op would not take.
static eq_status put_default_first(const struct tuner *tuner, const struct eq_call *call, struct eq_tunable *choice)
{
    const bool is_in_file = eq_tuning_entry(tuner->file, choice->key) != NULL;
    const struct eq_tuning_entry *entry = eq_tuning_entry(is_in_file ? tuner->shipped : tuner->decisions, choice->key);
    int first[EQ_TUNE_MAX_VALUES], at = 0;
    if (!entry || entry->num_values != choice->num_values)
        return EQ_OK;
    const struct eq_tune_job job = { .device = tuner->device, .call = call, .tuning = tuner->decisions };
    bool takes = true;
    if (!has_candidate(choice, entry->values))
        EQ_TRY(eq_tune_takes(&job, choice, entry->values, &takes));
    if (!takes)
        return EQ_OK;
    EQ_TRY(eq_tunable_add(choice, entry->values));
    while (memcmp(choice->candidates[at], entry->values, (size_t)choice->num_values * sizeof *entry->values) != 0)
        at++;
    memcpy(first, choice->candidates[at], sizeof first);
    memmove(choice->candidates[1], choice->candidates[0], (size_t)at * sizeof first);
    memcpy(choice->candidates[0], first, sizeof first);
    return EQ_OK;
}

// The candidates that the rehearsal names, where the choice is its own.
static eq_status rehearse(struct tuner *tuner, const struct eq_call *call, const struct eq_tunable *choice)
{
    const struct rehearsal *rehearsal = tuner->rehearsal;
    const struct eq_tune_job job = { .device = tuner->device, .call = call, .tuning = tuner->decisions };
    if (strcmp(choice->key, rehearsal->key) != 0)
        return EQ_OK;
    tuner->is_over = true;
    return eq_tune_try(&job, choice, rehearsal->next, rehearsal->user);
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
                               struct eq_tunable *choice)
{
    EQ_TRY(eq_tuning_set(tuner->seen, choice->key, (const int[]){ 1 }, 1, ""));
    if (tuner->rehearsal) {
        EQ_TRY(put_default_first(tuner, call, choice));
        return rehearse(tuner, call, choice);
    }
    // An entry with another number of values is of a version that chose between other things.
    const struct eq_tuning_entry *entry = eq_tuning_entry(tuner->file, choice->key);
    if (!tuner->params->again && entry && entry->num_values == choice->num_values && !is_outdated(entry)) {
        tuner->summary->num_known++;
        return EQ_OK;
    }
    tuner->is_over = is_out_of_time(tuner);
    if (tuner->is_over)
        return EQ_OK;
    tuner->at.key = choice->key;
    EQ_TRY(put_default_first(tuner, call, choice));
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
    for (bool has_all = false; !has_all && !tuner->is_over;) {
        struct eq_tunable choices[MAX_CHOICES] = { { .num_candidates = 0 } };
        int num = 0;
        target->tuning = tuner->decisions;
        eq_status status = call.op->tunables(&call, choices, MAX_CHOICES, &num);
        target->tuning = before;
        const int next = status == EQ_OK ? next_choice(tuner, choices, num) : -1;
        has_all = next < 0;
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

// The error of a plan without a call that is wanted, with the ops that have choices in it.
static eq_status no_calls(const struct tuner *tuner, const struct eq_ir *ir)
{
    struct eq_str names = { 0 };
    for (int c = 0; c < ir->num_calls; c++)
        if (ir->calls[c].call.op->tunables)
            eq_str_append_name(&names, ir->calls[c].call.op->name);
    const char *arch = tuner->params->model.arch;
    const eq_status status =
        tuner->params->op ? eq_fail(EQ_ERR_NOT_FOUND, "%s: no call of %s has choices; these have: %s", arch, tuner->params->op,
                                     names.text ? names.text : "none")
                          : eq_fail(EQ_ERR_NOT_FOUND, "%s: no call of any op has choices", arch);
    eq_str_free(&names);
    return status;
}

static eq_status tune_calls(struct tuner *tuner, const struct eq_ir *ir)
{
    for (int c = 0; c < ir->num_calls; c++)
        tuner->at.num_calls += is_wanted(tuner, ir->calls[c].call.op);
    if (tuner->at.num_calls == 0)
        return no_calls(tuner, ir);
    for (int c = 0; c < ir->num_calls && !tuner->is_over; c++) {
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
    tuner->summary->is_complete = !tuner->is_over;
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
    EQ_TRY(eq_tuning_create(&tuner->shipped));
    EQ_TRY(eq_tuning_create(&tuner->seen));
    EQ_TRY(eq_tuning_create(&tuner->failed));
    EQ_TRY(open_file(tuner));
    return tune_graph(tuner);
}

static eq_status run(struct tuner *tuner)
{
    *tuner->summary = (struct eq_tune_summary){ .num_measured = 0 };
    eq_status status = tune(tuner);
    eq_tuning_destroy(&tuner->file);
    eq_tuning_destroy(&tuner->decisions);
    eq_tuning_destroy(&tuner->shipped);
    eq_tuning_destroy(&tuner->seen);
    eq_tuning_destroy(&tuner->failed);
    return status;
}

eq_status eq_tune_network(struct eq_device *device, const struct eq_tune_params *params, eq_tune_progress_fn progress,
                          void *user, struct eq_tune_summary *summary)
{
    struct tuner tuner = { .device = device, .params = params, .progress = progress, .user = user, .summary = summary,
                           .start = eq_clock_ns() };
    return run(&tuner);
}

eq_status eq_tune_rehearse(struct eq_device *device, const struct eq_tune_params *params, const char *key,
                           int (*next)(void *user), void *user)
{
    struct eq_tune_summary summary;
    const struct rehearsal rehearsal = { .key = key, .next = next, .user = user };
    struct tuner tuner = { .device = device, .params = params, .summary = &summary, .rehearsal = &rehearsal };
    EQ_TRY(run(&tuner));
    EQ_REQUIRE(tuner.is_over, EQ_ERR_NOT_FOUND, "%s: no choice %s", params->model.arch, key);
    return EQ_OK;
}

#include "train/checkpoint.h"

#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "train/options.h"

enum { FORMAT = 1, NUM_PLAN = 10 };

void eq_train_state_clear(struct eq_train_state *state)
{
    json_decref(state->history);
    *state = (struct eq_train_state){ 0 };
}

// ---- what decides the order of sums

// Whether the device has the library's choices and nobody else's.
static bool has_shipped_tuning(const struct eq_device *device)
{
    char hash[20];
    return strcmp(eq_tuning_hash(device->target.tuning, hash), device->shipped_tuning) == 0;
}

struct plan_text {
    const char *key, *what;
    char value[160];
    bool is_optional; // not in checkpoints of older versions
};

// Options that are too long for the text, or not for JSON, are told from others by a hash.
static void build_options_text(char *text, size_t bytes)
{
    const char *options = eq_option(EQ_OPTION_BUILD);
    const size_t length = options ? strlen(options) : 0;
    if (length < bytes && (!options || eq_json_is_utf8(options)))
        snprintf(text, bytes, "%s", options ? options : "");
    else
        snprintf(text, bytes, "hash %016llx", (unsigned long long)eq_fnv1a(options, length, EQ_FNV_START));
}

static void plan_texts(const struct eq_device *device, struct plan_text texts[NUM_PLAN])
{
    const struct eq_target *target = &device->target;
    const struct plan_text filled[NUM_PLAN] = { { "plan.device", "device", "" },
                                                { "plan.driver", "driver", "" },
                                                { "plan.version", "OpenCL version", "" },
                                                { "plan.family", "kernel family", "" },
                                                { "plan.block", "channels in a block", "" },
                                                { "plan.winograd", "use of Winograd's convolution", "" },
                                                { "plan.tuning", "tuning", "" },
                                                { "plan.precision", "precision", "" },
                                                { "plan.units", "number of compute units", "", true },
                                                { "plan.build_options", "EQUIL_BUILD_OPTIONS", "", true } };
    char hash[20];
    memcpy(texts, filled, sizeof filled);
    snprintf(texts[0].value, sizeof texts[0].value, "%s", device->name);
    snprintf(texts[1].value, sizeof texts[1].value, "%s", device->driver);
    snprintf(texts[2].value, sizeof texts[2].value, "%s", device->version);
    snprintf(texts[3].value, sizeof texts[3].value, "%s", target->family == EQ_FAMILY_SIMT ? "simt" : "vector");
    snprintf(texts[4].value, sizeof texts[4].value, "%d", target->block);
    snprintf(texts[5].value, sizeof texts[5].value, "%d", target->use_winograd);
    snprintf(texts[6].value, sizeof texts[6].value, "%s", eq_tuning_hash(target->tuning, hash));
    snprintf(texts[7].value, sizeof texts[7].value, "%s", eq_device_precision_text(device));
    snprintf(texts[8].value, sizeof texts[8].value, "%d", target->compute_units);
    build_options_text(texts[9].value, sizeof texts[9].value);
}

static eq_status write_plan(const struct eq_device *device, struct eq_texts *texts)
{
    struct plan_text plan[NUM_PLAN];
    plan_texts(device, plan);
    for (int i = 0; i < NUM_PLAN; i++)
        EQ_TRY(eq_texts_add(texts, plan[i].key, eq_strdup(plan[i].value)));
    return eq_texts_add(texts, "plan.tuning_is_shipped", eq_strdup(has_shipped_tuning(device) ? "1" : "0"));
}

// The tuning, where it is the one that came with the library, then and now: eq_checkpoint_compare_library() speaks of that.
static bool is_of_libraries(const struct eq_tensors *file, const struct eq_device *device, const char *key)
{
    const char *is_shipped = eq_tensors_text(file, "plan.tuning_is_shipped");
    return strcmp(key, "plan.tuning") == 0 && is_shipped && strcmp(is_shipped, "1") == 0 && has_shipped_tuning(device);
}

eq_status eq_checkpoint_check_device(const struct eq_tensors *file, const struct eq_device *device)
{
    struct plan_text plan[NUM_PLAN];
    plan_texts(device, plan);
    for (int i = 0; i < NUM_PLAN; i++) {
        const char *saved = eq_tensors_text(file, plan[i].key);
        if (!saved && plan[i].is_optional)
            continue;
        EQ_REQUIRE(saved, EQ_ERR_FORMAT, "%s: its metadata does not have %s", eq_tensors_path(file), plan[i].key);
        if (is_of_libraries(file, device, plan[i].key))
            continue;
        EQ_REQUIRE(strcmp(saved, plan[i].value) == 0, EQ_ERR_UNSUPPORTED,
                   "%s: the run to resume had \"%s\" as %s, and here it is \"%s\": sums would come out in another order, and "
                   "the run would not "
                   "be the same. To go on from its weights alone, start a new run with --weights",
                   eq_tensors_path(file), saved, plan[i].what, plan[i].value);
    }
    return EQ_OK;
}

// ---- the library that computes

static eq_status write_library(struct eq_texts *texts)
{
    char kernels[20];
    EQ_TRY(eq_texts_add(texts, "plan.equil", eq_strdup(EQ_VERSION)));
    return eq_texts_add(texts, "plan.kernels", eq_strdup(eq_kernels_hash(kernels)));
}

// Not refused as another device is: that one can be taken again, and an upgrade must not be the end of a run.
void eq_checkpoint_compare_library(const struct eq_tensors *file, const struct eq_device *device)
{
    const char *version = eq_tensors_text(file, "plan.equil"), *kernels = eq_tensors_text(file, "plan.kernels"),
               *tuning = eq_tensors_text(file, "plan.tuning");
    char own_kernels[20], own_tuning[20];
    eq_kernels_hash(own_kernels);
    eq_tuning_hash(device->target.tuning, own_tuning);
    if (version && kernels && strcmp(version, EQ_VERSION) == 0 && strcmp(kernels, own_kernels) == 0 &&
        strcmp(tuning, own_tuning) == 0)
        return;
    eq_log(
        EQ_LOG_WARNING,
        "%s: the run to resume is by Equil %s (kernels %s, tuning %s), and this is Equil %s (kernels %s, tuning %s): results "
        "may differ in their last bits from a run that was not stopped",
        eq_tensors_path(file), version ? version : "unknown", kernels ? kernels : "unknown", tuning, EQ_VERSION, own_kernels,
        own_tuning);
}

// ---- options

static eq_status write_options(const struct eq_train_params *params, struct eq_texts *texts)
{
    for (int i = 0; i < eq_train_options_num(); i++)
        EQ_TRY(eq_texts_add(texts, eq_train_option_key(i), eq_train_option_text(params, i)));
    return EQ_OK;
}

const char *eq_checkpoint_option(const void *user, const char *key)
{
    return eq_tensors_text(user, key);
}

// ---- data

static eq_status write_data(const struct eq_train_data *data, struct eq_texts *texts)
{
    EQ_TRY(eq_texts_add_format(texts, "data.train_images", "%zu", data->train_images));
    EQ_TRY(eq_texts_add_format(texts, "data.val_images", "%zu", data->val_images));
    return eq_texts_add_format(texts, "data.hash", "%016llx", (unsigned long long)data->hash);
}

// A held-out tenth is drawn from the list of images: from another list, images that were learned from would be among it.
eq_status eq_checkpoint_check_data(const struct eq_tensors *file, const struct eq_train_data *data)
{
    const char *hash = eq_tensors_text(file, "data.hash"), *train = eq_tensors_text(file, "data.train_images"),
               *val = eq_tensors_text(file, "data.val_images");
    char own_hash[20], own_train[24], own_val[24];
    if (!hash && !train && !val) // written before checkpoints had them: there is nothing to compare with
        return EQ_OK;
    EQ_REQUIRE(hash && train && val, EQ_ERR_FORMAT,
               "%s: its metadata has not all of data.train_images, data.val_images and data.hash", eq_tensors_path(file));
    snprintf(own_hash, sizeof own_hash, "%016llx", (unsigned long long)data->hash);
    snprintf(own_train, sizeof own_train, "%zu", data->train_images);
    snprintf(own_val, sizeof own_val, "%zu", data->val_images);
    const bool is_same_num = strcmp(train, own_train) == 0 && strcmp(val, own_val) == 0;
    EQ_REQUIRE(
        is_same_num && strcmp(hash, own_hash) == 0, EQ_ERR_ARGUMENT,
        "%s: the run to resume had %s training and %s validation images, and here are %s and %s%s: the data has changed. "
        "To go on from its weights alone, start a new run with --weights",
        eq_tensors_path(file), train, val, own_train, own_val, is_same_num ? ", with other names or classes" : "");
    return EQ_OK;
}

// ---- position

static eq_status write_state(const struct eq_train_state *state, struct eq_texts *texts)
{
    json_t *object = json_pack(
        "{s:i, s:i, s:I, s:I, s:I, s:f, s:I, s:I, s:f, s:i, s:I, s:O}", "format", FORMAT, "epoch", state->epoch, "step",
        (json_int_t)state->step, "position", (json_int_t)state->position, "skipped", (json_int_t)state->skipped, "loss_sum",
        state->loss_sum, "hits", (json_int_t)state->hits, "seen", (json_int_t)state->seen, "best_top1", state->best_top1,
        "best_epoch", state->best_epoch, "log_lines", (json_int_t)state->log_lines, "history", state->history);
    char *text = object ? eq_json_text(object, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(object);
    return eq_texts_add(texts, "state", text);
}

static bool state_is_sane(const struct eq_train_state *state)
{
    return state->epoch >= 0 && state->step >= 0 && state->hits >= 0 && state->seen >= 0 && state->log_lines >= 0;
}

eq_status eq_checkpoint_read_state(const struct eq_tensors *file, struct eq_train_state *state)
{
    const char *text = eq_tensors_text(file, "state");
    EQ_REQUIRE(text, EQ_ERR_FORMAT, "%s: no checkpoint: its metadata does not say where the run stands", eq_tensors_path(file));
    json_int_t step, position, skipped, hits, seen, log_lines;
    int format = 0;
    json_t *object, *history;
    json_error_t error = { .line = 0 };
    if (eq_json_parse(text, strlen(text), &object, &error) == EQ_ERR_HOST_MEMORY)
        return EQ_ERR_HOST_MEMORY;
    bool ok =
        object && json_unpack_ex(object, &error, 0, "{s:i, s:i, s:I, s:I, s:I, s:F, s:I, s:I, s:F, s:i, s:I, s:o}", "format",
                                 &format, "epoch", &state->epoch, "step", &step, "position", &position, "skipped", &skipped,
                                 "loss_sum", &state->loss_sum, "hits", &hits, "seen", &seen, "best_top1", &state->best_top1,
                                 "best_epoch", &state->best_epoch, "log_lines", &log_lines, "history", &history) == 0;
    if (ok) {
        state->step = step;
        state->position = (size_t)position;
        state->skipped = (size_t)skipped;
        state->hits = hits;
        state->seen = seen;
        state->log_lines = log_lines;
        json_decref(state->history);
        state->history = json_incref(history);
        ok = format == FORMAT && position >= 0 && state_is_sane(state) && json_is_array(history);
    }
    const bool is_short = object && !ok && json_error_code(&error) == json_error_out_of_memory;
    json_decref(object);
    EQ_REQUIRE(!is_short, EQ_ERR_HOST_MEMORY, "%s: out of memory for the position in its metadata", eq_tensors_path(file));
    EQ_REQUIRE(ok, EQ_ERR_FORMAT, "%s: the position in its metadata is damaged, or of another version", eq_tensors_path(file));
    return EQ_OK;
}

// ---- whole files

static eq_status save(const struct eq_checkpoint *checkpoint, const char *path, struct eq_tensor_list *list,
                      struct eq_texts *texts, bool is_whole)
{
    EQ_TRY(eq_meta_write(checkpoint->meta, texts));
    EQ_TRY(eq_tensor_list_collect(list, EQ_STORE_VALUE, ""));
    if (is_whole) {
        EQ_TRY(write_options(checkpoint->params, texts));
        EQ_TRY(write_plan(checkpoint->weights->device, texts));
        EQ_TRY(write_library(texts));
        EQ_TRY(write_data(checkpoint->data, texts));
        EQ_TRY(write_state(checkpoint->state, texts));
        EQ_TRY(eq_tensor_list_collect(list, EQ_STORE_VELOCITY, "velocity."));
    }
    return eq_tensor_list_save(list, path, texts->items, texts->num);
}

static eq_status save_and_free(const struct eq_checkpoint *checkpoint, const char *path, bool is_whole)
{
    struct eq_tensor_list list = { .weights = checkpoint->weights, .must_be_finite = true }; // good weights stay
    struct eq_texts texts = { .num = 0 };
    eq_status status = save(checkpoint, path, &list, &texts, is_whole);
    eq_tensor_list_free(&list);
    eq_texts_free(&texts);
    return status;
}

eq_status eq_checkpoint_save(const struct eq_checkpoint *checkpoint, const char *path)
{
    return save_and_free(checkpoint, path, true);
}

eq_status eq_checkpoint_save_weights(const struct eq_checkpoint *checkpoint, const char *path)
{
    return save_and_free(checkpoint, path, false);
}

static eq_status read_entry(const struct eq_tensors *file, struct eq_weights *weights, const struct eq_store_entry *entry,
                            enum eq_store_part part, const char *prefix)
{
    char name[300];
    snprintf(name, sizeof name, "%s%s", prefix, entry->name);
    size_t elems = eq_tensor_logical(&entry->tensor);
    float *values = eq_malloc(elems, sizeof *values);
    if (!values)
        return EQ_ERR_HOST_MEMORY;
    eq_status status = eq_tensors_read_f32(file, name, values, elems);
    if (status == EQ_OK)
        status = part == EQ_STORE_VALUE ? eq_weights_put(weights, entry, values)
                                        : eq_store_write(weights->store, entry, part, values);
    free(values);
    return status;
}

static eq_status read_batches(const struct eq_tensors *file, struct eq_weights *weights)
{
    for (size_t i = 0; i < eq_tensors_num(file); i++) {
        const struct eq_tensor_entry *entry = eq_tensors_at(file, i);
        if (eq_str_ends(entry->name, "num_batches_tracked"))
            return eq_tensors_read_i64(file, entry->name, &weights->batches, 1);
    }
    return eq_fail(EQ_ERR_NOT_FOUND, "%s: no num_batches_tracked", eq_tensors_path(file));
}

eq_status eq_checkpoint_read_tensors(const struct eq_tensors *file, struct eq_weights *weights)
{
    for (int i = 0; i < eq_store_num_entries(weights->store); i++) {
        const struct eq_store_entry *entry = eq_store_entry(weights->store, i);
        EQ_TRY(read_entry(file, weights, entry, EQ_STORE_VALUE, ""));
        if (entry->kind == EQ_VALUE_PARAMETER)
            EQ_TRY(read_entry(file, weights, entry, EQ_STORE_VELOCITY, "velocity."));
    }
    return read_batches(file, weights);
}

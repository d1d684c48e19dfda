// Values that come into weights all at once, drawn or from a file: in the caller's thread, or in one of their own while the
// caller compiles.
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/safetensors.h"
#include "model/model.h"
#include "train/weights.h"

struct eq_weights_task {
    struct eq_weights *weights;
    const struct eq_tensors *file; // NULL: values are drawn
    struct eq_tensors *own_file;   // closed with the task
    bool new_head;
    uint64_t seed;
    int64_t batches; // num_batches_tracked
    float **stored;  // [entries], as the store has them
    float *first;    // [entries] the first value of each
    pthread_t thread;
    bool has_thread;
    eq_status status; // of the values
    char error[4096]; // each thread has its own eq_last_error()
};

// ---- one tensor

static bool same_shape(const struct eq_store_entry *entry, const struct eq_tensor_entry *found)
{
    if (found->num_dims != entry->rank)
        return false;
    for (int d = 0; d < entry->rank; d++)
        if (found->dims[d] != entry->shape[d])
            return false;
    return true;
}

static eq_status wrong_shape(const struct eq_tensors *file, const struct eq_store_entry *entry,
                             const struct eq_tensor_entry *found)
{
    struct eq_str text = { 0 };
    for (int d = 0; d < found->num_dims; d++)
        eq_str_append(&text, "%s%lld", d ? ", " : "", (long long)found->dims[d]);
    eq_str_append(&text, "]; the network has [");
    for (int d = 0; d < entry->rank; d++)
        eq_str_append(&text, "%s%d", d ? ", " : "", entry->shape[d]);
    eq_status status =
        eq_fail(EQ_ERR_SHAPE, "%s: %s has shape [%s]", eq_tensors_path(file), entry->name, text.text ? text.text : "");
    eq_str_free(&text);
    return status;
}

static bool may_be_missing(const struct eq_weights_task *task, const struct eq_store_entry *entry)
{
    return !task->file || entry->kind == EQ_VALUE_STATE || (task->new_head && eq_str_starts(entry->name, "fc."));
}

static eq_status check_entry(const struct eq_weights_task *task, const struct eq_store_entry *entry)
{
    const struct eq_tensor_entry *found = task->file ? eq_tensors_find(task->file, entry->name) : NULL;
    const bool is_head = task->new_head && eq_str_starts(entry->name, "fc.");
    EQ_REQUIRE(found || may_be_missing(task, entry), EQ_ERR_NOT_FOUND, "%s: parameter %s is missing",
               eq_tensors_path(task->file), entry->name);
    return found && !is_head && !same_shape(entry, found) ? wrong_shape(task->file, entry, found) : EQ_OK;
}

// From the file, or initial ones where it does not have them. Any thread.
static eq_status make_entry(struct eq_weights_task *task, int index)
{
    const struct eq_store *store = task->weights->store;
    const struct eq_store_entry *entry = eq_store_entry(store, index);
    const struct eq_tensor_entry *found = task->file ? eq_tensors_find(task->file, entry->name) : NULL;
    const size_t elems = eq_tensor_logical(&entry->tensor);
    float *values = eq_malloc(elems, sizeof *values);
    eq_status status = values ? EQ_OK : EQ_ERR_HOST_MEMORY;
    if (status == EQ_OK && found && same_shape(entry, found))
        status = eq_tensors_read_f32(task->file, entry->name, values, elems);
    else if (status == EQ_OK)
        eq_model_initial(store, entry, task->seed, values);
    if (status == EQ_OK)
        status = eq_store_pack(entry, values, &task->stored[index]);
    if (status == EQ_OK)
        task->first[index] = values[0];
    free(values);
    return status;
}

// ---- all of them

static void *make_values(void *user)
{
    struct eq_weights_task *task = user;
    for (int i = 0; i < eq_store_num_entries(task->weights->store) && task->status == EQ_OK; i++)
        task->status = make_entry(task, i);
    if (task->status != EQ_OK)
        snprintf(task->error, sizeof task->error, "%s", eq_last_error());
    return NULL;
}

static void log_unknown(const struct eq_weights *weights, const struct eq_tensors *file)
{
    size_t num_unknown = 0;
    const char *first = NULL;
    for (size_t i = 0; i < eq_tensors_num(file); i++) {
        const char *name = eq_tensors_at(file, i)->name;
        if (eq_store_find(weights->store, name) || eq_str_ends(name, "num_batches_tracked"))
            continue;
        first = first ? first : name;
        num_unknown++;
    }
    if (num_unknown)
        eq_log(EQ_LOG_WARNING, "%s: %zu tensors that the network does not have are ignored, %s first", eq_tensors_path(file),
               num_unknown, first);
}

static eq_status read_batches(struct eq_weights_task *task)
{
    for (size_t i = 0; task->file && i < eq_tensors_num(task->file); i++) {
        const struct eq_tensor_entry *entry = eq_tensors_at(task->file, i);
        int64_t batches = 0;
        if (!eq_str_ends(entry->name, "num_batches_tracked") || entry->elems != 1)
            continue;
        EQ_TRY(eq_tensors_read_i64(task->file, entry->name, &batches, 1));
        task->batches = batches > task->batches ? batches : task->batches;
    }
    return EQ_OK;
}

static eq_status prepare(struct eq_weights_task *task)
{
    const int num = eq_store_num_entries(task->weights->store);
    EQ_TRY(read_batches(task));
    for (int i = 0; i < num; i++)
        EQ_TRY(check_entry(task, eq_store_entry(task->weights->store, i)));
    EQ_ALLOC(task->stored, num);
    EQ_ALLOC(task->first, num);
    return EQ_OK;
}

static void start_thread(struct eq_weights_task *task)
{
    sigset_t all, before; // signals are for the caller's threads
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    task->has_thread = pthread_create(&task->thread, NULL, make_values, task) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!task->has_thread)
        make_values(task);
}

static eq_status start(const struct eq_weights_task *given, bool in_thread, struct eq_weights_task **task)
{
    *task = eq_calloc(1, sizeof **task);
    if (!*task) {
        struct eq_tensors *file = given->own_file;
        eq_tensors_close(&file);
        return EQ_ERR_HOST_MEMORY;
    }
    **task = *given;
    const eq_status status = prepare(*task);
    if (status != EQ_OK) {
        eq_weights_task_cancel(task);
        return status;
    }
    if (in_thread)
        start_thread(*task);
    else
        make_values(*task);
    return EQ_OK;
}

static void join(struct eq_weights_task *task)
{
    if (task->has_thread)
        pthread_join(task->thread, NULL);
    task->has_thread = false;
}

static eq_status put_values(const struct eq_weights_task *task)
{
    struct eq_weights *weights = task->weights;
    for (int i = 0; i < eq_store_num_entries(weights->store); i++) {
        const struct eq_store_entry *entry = eq_store_entry(weights->store, i);
        EQ_TRY(eq_store_write_packed(weights->store, entry, EQ_STORE_VALUE, task->stored[i]));
        eq_weights_note_scale(weights, entry, task->first[i]);
    }
    weights->batches = task->batches;
    if (task->file)
        log_unknown(weights, task->file);
    return EQ_OK;
}

eq_status eq_weights_task_finish(struct eq_weights_task **task)
{
    join(*task);
    eq_status status = (*task)->status;
    if (status == EQ_OK)
        status = put_values(*task);
    else
        status = eq_fail(status, "%s", (*task)->error);
    eq_weights_task_cancel(task);
    return status;
}

void eq_weights_task_cancel(struct eq_weights_task **task)
{
    if (!*task)
        return;
    join(*task);
    for (int i = 0; (*task)->stored && i < eq_store_num_entries((*task)->weights->store); i++)
        free((*task)->stored[i]);
    eq_tensors_close(&(*task)->own_file);
    free((*task)->stored);
    free((*task)->first);
    free(*task);
    *task = NULL;
}

// ---- what they come from

eq_status eq_weights_draw_start(struct eq_weights *weights, uint64_t seed, struct eq_weights_task **task)
{
    return start(&(struct eq_weights_task){ .weights = weights, .seed = seed }, true, task);
}

eq_status eq_weights_load_start(struct eq_weights *weights, const char *path, struct eq_weights_task **task)
{
    struct eq_tensors *file;
    EQ_TRY(eq_tensors_open(path, &file));
    return start(&(struct eq_weights_task){ .weights = weights, .file = file, .own_file = file }, true, task);
}

eq_status eq_weights_initialise(struct eq_weights *weights, uint64_t seed)
{
    struct eq_weights_task *task;
    EQ_TRY(start(&(struct eq_weights_task){ .weights = weights, .seed = seed }, false, &task));
    return eq_weights_task_finish(&task);
}

eq_status eq_weights_load_tensors(struct eq_weights *weights, const struct eq_tensors *file, bool new_head, uint64_t seed)
{
    struct eq_weights_task *task;
    const struct eq_weights_task given = { .weights = weights, .file = file, .new_head = new_head, .seed = seed };
    EQ_TRY(start(&given, false, &task));
    return eq_weights_task_finish(&task);
}

eq_status eq_weights_load(struct eq_weights *weights, const char *path, bool new_head, uint64_t seed)
{
    struct eq_tensors *file;
    EQ_TRY(eq_tensors_open(path, &file));
    eq_status status = eq_weights_load_tensors(weights, file, new_head, seed);
    eq_tensors_close(&file);
    return status;
}

// Weights on a device: tensors by name, files.
#include "train/weights.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "io/safetensors.h"
#include "model/model.h"

static size_t entry_elems(const struct eq_store_entry *entry)
{
    return (size_t)entry->shape[0] * (size_t)entry->shape[1] * (size_t)entry->shape[2] * (size_t)entry->shape[3];
}

static bool is_filter(const struct eq_store_entry *entry)
{
    return entry->rank == 4;
}

static bool is_scale(const struct eq_store_entry *entry)
{
    return eq_str_ends(entry->name, "running_scale");
}

eq_status eq_weights_put(struct eq_weights *weights, const struct eq_store_entry *entry, const float *values)
{
    EQ_TRY(eq_store_write(weights->store, entry, EQ_STORE_VALUE, values));
    weights->scales[entry - eq_store_entry(weights->store, 0)] = is_scale(entry) ? values[0] : 1;
    return EQ_OK;
}

static eq_status write_initial(struct eq_weights *weights, const struct eq_store_entry *entry, uint64_t seed)
{
    float *values = eq_malloc(entry_elems(entry), sizeof *values);
    if (!values)
        return EQ_ERR_HOST_MEMORY;
    eq_model_initial(weights->store, entry, seed, values);
    eq_status status = eq_weights_put(weights, entry, values);
    free(values);
    return status;
}

// Drawing normal numbers for all filters takes 1 s for ResNet-50, and nearly everybody loads weights or draws them with a seed:
// until then filters are the zeros that the store was made with.
static eq_status write_cheap(struct eq_weights *weights, uint64_t seed)
{
    for (int i = 0; i < eq_store_num_entries(weights->store); i++)
        if (!is_filter(eq_store_entry(weights->store, i)))
            EQ_TRY(write_initial(weights, eq_store_entry(weights->store, i), seed));
    return EQ_OK;
}

static eq_status fill_weights(struct eq_weights *weights, const struct eq_graph *graph)
{
    struct eq_ir *ir;
    const struct eq_compile_params params = { .loss = EQ_NO_VALUE };
    EQ_TRY(eq_ir_create(graph, &weights->device->target, &params, &ir));
    eq_status status = eq_store_create(weights->device, ir, &weights->store);
    eq_ir_destroy(&ir);
    EQ_TRY(status);
    EQ_ALLOC(weights->scales, eq_store_num_entries(weights->store));
    for (int i = 0; i < eq_store_num_entries(weights->store); i++)
        weights->scales[i] = 1;
    return write_cheap(weights, 0);
}

eq_status eq_weights_create(struct eq_device *device, const struct eq_graph *graph, struct eq_weights **weights)
{
    EQ_ALLOC(*weights, 1);
    (*weights)->device = device;
    eq_status status = fill_weights(*weights, graph);
    if (status != EQ_OK)
        eq_weights_destroy(weights);
    return status;
}

void eq_weights_destroy(struct eq_weights **weights)
{
    if (!*weights)
        return;
    eq_store_destroy(&(*weights)->store);
    free((*weights)->scales);
    free(*weights);
    *weights = NULL;
}

eq_status eq_weights_add_training(struct eq_weights *weights)
{
    if (!weights->has_training)
        EQ_TRY(eq_store_add_training(weights->store));
    weights->has_training = true;
    return EQ_OK;
}

eq_status eq_weights_check_scales(const struct eq_weights *weights)
{
    for (int i = 0; i < eq_store_num_entries(weights->store); i++)
        EQ_REQUIRE(isfinite(weights->scales[i]) && weights->scales[i] > 0, EQ_ERR_NUMERIC,
                   "%s is %g: evaluation needs the statistics of a trained network", eq_store_entry(weights->store, i)->name,
                   (double)weights->scales[i]);
    return EQ_OK;
}

void eq_weights_touched(struct eq_weights *weights, const struct eq_exec *exec, int64_t num_batches)
{
    weights->batches += num_batches;
    for (int i = 0; i < eq_store_num_entries(weights->store); i++)
        if (weights->scales[i] == 0 && eq_exec_has_state(exec, eq_store_entry(weights->store, i)->name))
            weights->scales[i] = 1; // a first batch moves it above 0
    eq_store_touch(weights->store);
}

eq_status eq_weights_initialise(struct eq_weights *weights, uint64_t seed)
{
    for (int i = 0; i < eq_store_num_entries(weights->store); i++)
        EQ_TRY(write_initial(weights, eq_store_entry(weights->store, i), seed));
    weights->batches = 0;
    return EQ_OK;
}

// ---- drawing in a thread

struct eq_weights_draw {
    struct eq_weights *weights;
    uint64_t seed;
    float **values; // [entries], of filters
    pthread_t thread;
    bool has_thread;
};

static void *draw_filters(void *user)
{
    const struct eq_weights_draw *draw = user;
    const struct eq_store *store = draw->weights->store;
    for (int i = 0; i < eq_store_num_entries(store); i++)
        if (draw->values[i])
            eq_model_initial(store, eq_store_entry(store, i), draw->seed, draw->values[i]);
    return NULL;
}

static eq_status make_values(struct eq_weights_draw *draw)
{
    const struct eq_store *store = draw->weights->store;
    EQ_ALLOC(draw->values, eq_store_num_entries(store));
    for (int i = 0; i < eq_store_num_entries(store); i++) {
        if (!is_filter(eq_store_entry(store, i)))
            continue;
        draw->values[i] = eq_malloc(entry_elems(eq_store_entry(store, i)), sizeof **draw->values);
        if (!draw->values[i])
            return EQ_ERR_HOST_MEMORY;
    }
    return write_cheap(draw->weights, draw->seed);
}

eq_status eq_weights_draw_start(struct eq_weights *weights, uint64_t seed, struct eq_weights_draw **draw)
{
    EQ_ALLOC(*draw, 1);
    **draw = (struct eq_weights_draw){ .weights = weights, .seed = seed };
    weights->batches = 0;
    const eq_status status = make_values(*draw);
    if (status != EQ_OK) {
        eq_weights_draw_cancel(draw);
        return status;
    }
    sigset_t all, before; // signals are for the caller's threads
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    (*draw)->has_thread = pthread_create(&(*draw)->thread, NULL, draw_filters, *draw) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!(*draw)->has_thread)
        draw_filters(*draw);
    return EQ_OK;
}

eq_status eq_weights_draw_finish(struct eq_weights_draw **draw)
{
    const struct eq_store *store = (*draw)->weights->store;
    eq_status status = EQ_OK;
    if ((*draw)->has_thread)
        pthread_join((*draw)->thread, NULL);
    (*draw)->has_thread = false;
    for (int i = 0; i < eq_store_num_entries(store) && status == EQ_OK; i++)
        if ((*draw)->values[i])
            status = eq_weights_put((*draw)->weights, eq_store_entry(store, i), (*draw)->values[i]);
    eq_weights_draw_cancel(draw);
    return status;
}

void eq_weights_draw_cancel(struct eq_weights_draw **draw)
{
    if (!*draw)
        return;
    if ((*draw)->has_thread)
        pthread_join((*draw)->thread, NULL);
    for (int i = 0; (*draw)->values && i < eq_store_num_entries((*draw)->weights->store); i++)
        free((*draw)->values[i]);
    free((*draw)->values);
    free(*draw);
    *draw = NULL;
}

// ---- reading files

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

// Host values of one tensor: from the file, or initial ones where that is allowed.
static eq_status load_entry(const struct eq_weights *weights, const struct eq_tensors *file, const struct eq_store_entry *entry,
                            bool new_head, uint64_t seed, float *values)
{
    const struct eq_tensor_entry *found = eq_tensors_find(file, entry->name);
    bool is_optional = entry->kind == EQ_VALUE_STATE || (new_head && eq_str_starts(entry->name, "fc."));
    if (found && same_shape(entry, found))
        return eq_tensors_read_f32(file, entry->name, values, entry_elems(entry));
    if (found && !(new_head && eq_str_starts(entry->name, "fc.")))
        return wrong_shape(file, entry, found);
    EQ_REQUIRE(is_optional, EQ_ERR_NOT_FOUND, "%s: parameter %s is missing", eq_tensors_path(file), entry->name);
    eq_model_initial(weights->store, entry, seed, values);
    return EQ_OK;
}

static eq_status load_entries(struct eq_weights *weights, const struct eq_tensors *file, bool new_head, uint64_t seed,
                              float **values)
{
    int num = eq_store_num_entries(weights->store);
    for (int i = 0; i < num; i++) {
        const struct eq_store_entry *entry = eq_store_entry(weights->store, i);
        values[i] = eq_malloc(entry_elems(entry), sizeof **values);
        if (!values[i])
            return EQ_ERR_HOST_MEMORY;
        EQ_TRY(load_entry(weights, file, entry, new_head, seed, values[i]));
    }
    for (int i = 0; i < num; i++) // nothing was changed before all was read
        EQ_TRY(eq_weights_put(weights, eq_store_entry(weights->store, i), values[i]));
    return EQ_OK;
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

static eq_status read_batches(const struct eq_tensors *file, int64_t *most)
{
    *most = 0;
    for (size_t i = 0; i < eq_tensors_num(file); i++) {
        const struct eq_tensor_entry *entry = eq_tensors_at(file, i);
        int64_t batches = 0;
        if (!eq_str_ends(entry->name, "num_batches_tracked") || entry->elems != 1)
            continue;
        EQ_TRY(eq_tensors_read_i64(file, entry->name, &batches, 1));
        *most = batches > *most ? batches : *most;
    }
    return EQ_OK;
}

eq_status eq_weights_load_tensors(struct eq_weights *weights, const struct eq_tensors *file, bool new_head, uint64_t seed)
{
    int num = eq_store_num_entries(weights->store);
    int64_t batches = 0;
    float **values = eq_calloc((size_t)num, sizeof *values);
    eq_status status = values ? read_batches(file, &batches) : EQ_ERR_HOST_MEMORY;
    if (status == EQ_OK)
        status = load_entries(weights, file, new_head, seed, values);
    for (int i = 0; values && i < num; i++)
        free(values[i]);
    free(values);
    if (status == EQ_OK) {
        weights->batches = batches;
        log_unknown(weights, file);
    }
    return status;
}

eq_status eq_weights_load(struct eq_weights *weights, const char *path, bool new_head, uint64_t seed)
{
    struct eq_tensors *file;
    EQ_TRY(eq_tensors_open(path, &file));
    eq_status status = eq_weights_load_tensors(weights, file, new_head, seed);
    eq_tensors_close(&file);
    return status;
}

// ---- tensors by name

int eq_weights_num(const struct eq_weights *weights)
{
    return eq_store_num_entries(weights->store);
}

struct eq_weights_tensor eq_weights_at(const struct eq_weights *weights, int index)
{
    const struct eq_store_entry *entry = eq_store_entry(weights->store, index);
    struct eq_weights_tensor tensor = {
        .name = entry->name, .rank = entry->rank, .elems = entry_elems(entry), .is_parameter = entry->kind == EQ_VALUE_PARAMETER
    };
    memcpy(tensor.shape, entry->shape, sizeof tensor.shape);
    return tensor;
}

static eq_status find_entry(const struct eq_weights *weights, const char *name, const struct eq_store_entry **entry)
{
    *entry = eq_store_find(weights->store, name);
    EQ_REQUIRE(*entry, EQ_ERR_NOT_FOUND, "no tensor is called %s", name);
    return EQ_OK;
}

eq_status eq_weights_read(const struct eq_weights *weights, const char *name, float *values)
{
    const struct eq_store_entry *entry;
    EQ_TRY(find_entry(weights, name, &entry));
    return eq_store_read(weights->store, entry, EQ_STORE_VALUE, values);
}

eq_status eq_weights_write(struct eq_weights *weights, const char *name, const float *values)
{
    const struct eq_store_entry *entry;
    EQ_TRY(find_entry(weights, name, &entry));
    return eq_weights_put(weights, entry, values);
}

eq_status eq_weights_read_gradient(const struct eq_weights *weights, const char *name, float *values)
{
    const struct eq_store_entry *entry;
    EQ_TRY(find_entry(weights, name, &entry));
    EQ_REQUIRE(entry->kind == EQ_VALUE_PARAMETER && weights->has_gradients, EQ_ERR_ARGUMENT, "%s has no gradient: it is %s",
               name, entry->kind == EQ_VALUE_PARAMETER ? "not computed yet" : "a running statistic");
    return eq_store_read(weights->store, entry, EQ_STORE_GRADIENT, values);
}

// ---- writing files

static eq_status reserve_tensor(struct eq_tensor_list *list)
{
    if (list->num < list->capacity)
        return EQ_OK;
    size_t capacity = list->capacity ? 2 * list->capacity : 256;
    struct eq_tensor_entry *entries = realloc(list->entries, capacity * sizeof *entries);
    list->entries = entries ? entries : list->entries;
    struct eq_tensor_place *places = entries ? realloc(list->places, capacity * sizeof *places) : NULL;
    EQ_REQUIRE(places, EQ_ERR_HOST_MEMORY, "out of memory: %zu tensors", capacity);
    list->places = places;
    list->capacity = capacity;
    return EQ_OK;
}

static eq_status add_tensor(struct eq_tensor_list *list, const char *name, enum eq_data_type type,
                            const struct eq_tensor_place *place)
{
    EQ_TRY(reserve_tensor(list));
    struct eq_tensor_entry entry = { .name = eq_strdup(name), .type = type, .elems = 1 };
    if (!entry.name)
        return EQ_ERR_HOST_MEMORY;
    entry.num_dims = place->entry ? place->entry->rank : 0;
    for (int d = 0; d < entry.num_dims; d++) {
        entry.dims[d] = place->entry->shape[d];
        entry.elems *= (size_t)entry.dims[d];
    }
    list->entries[list->num] = entry;
    list->places[list->num++] = *place;
    return EQ_OK;
}

void eq_tensor_list_free(struct eq_tensor_list *list)
{
    for (size_t i = 0; i < list->num; i++)
        free((void *)list->entries[i].name);
    free(list->entries);
    free(list->places);
    *list = (struct eq_tensor_list){ 0 };
}

static eq_status collect_entry(struct eq_tensor_list *list, const struct eq_store_entry *entry, enum eq_store_part part,
                               const char *prefix)
{
    char name[300];
    snprintf(name, sizeof name, "%s%s", prefix, entry->name);
    EQ_TRY(add_tensor(list, name, EQ_DATA_F32, &(struct eq_tensor_place){ entry, part }));
    if (part != EQ_STORE_VALUE || !eq_str_ends(entry->name, ".running_var"))
        return EQ_OK;
    snprintf(name, sizeof name, "%s%.*snum_batches_tracked", prefix, (int)(strlen(entry->name) - strlen("running_var")),
             entry->name);
    return add_tensor(list, name, EQ_DATA_I64, &(struct eq_tensor_place){ NULL, part });
}

eq_status eq_tensor_list_collect(struct eq_tensor_list *list, enum eq_store_part part, const char *prefix)
{
    const struct eq_store *store = list->weights->store;
    for (int i = 0; i < eq_store_num_entries(store); i++) {
        const struct eq_store_entry *entry = eq_store_entry(store, i);
        if (part == EQ_STORE_VALUE || entry->kind == EQ_VALUE_PARAMETER)
            EQ_TRY(collect_entry(list, entry, part, prefix));
    }
    return EQ_OK;
}

static eq_status fetch_tensor(void *user, size_t index, void *data)
{
    const struct eq_tensor_list *list = user;
    const struct eq_tensor_place *place = &list->places[index];
    if (!place->entry) {
        memcpy(data, &list->weights->batches, sizeof list->weights->batches);
        return EQ_OK;
    }
    const float *values = data;
    EQ_TRY(eq_store_read(list->weights->store, place->entry, place->part, data));
    for (size_t e = 0; list->must_be_finite && e < list->entries[index].elems; e++)
        EQ_REQUIRE(isfinite(values[e]), EQ_ERR_NUMERIC, "%s is not finite", list->entries[index].name);
    return EQ_OK;
}

eq_status eq_tensor_list_save(struct eq_tensor_list *list, const char *path, const struct eq_tensors_text *texts,
                              size_t num_texts)
{
    return eq_tensors_save_fetched(path, list->entries, list->num, texts, num_texts, fetch_tensor, list);
}

eq_status eq_weights_save(const struct eq_weights *weights, const char *path, const struct eq_tensors_text *texts,
                          size_t num_texts)
{
    struct eq_tensor_list list = { .weights = weights };
    eq_status status = eq_tensor_list_collect(&list, EQ_STORE_VALUE, "");
    if (status == EQ_OK)
        status = eq_tensor_list_save(&list, path, texts, num_texts);
    eq_tensor_list_free(&list);
    return status;
}

// Weights on a device: tensors by name, and writing files.
#include "train/weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/safetensors.h"
#include "model/model.h"

static bool is_scale(const struct eq_store_entry *entry)
{
    return eq_str_ends(entry->name, "running_scale");
}

void eq_weights_note_scale(struct eq_weights *weights, const struct eq_store_entry *entry, float first)
{
    weights->scales[entry - eq_store_entry(weights->store, 0)] = is_scale(entry) ? first : 1;
}

eq_status eq_weights_put(struct eq_weights *weights, const struct eq_store_entry *entry, const float *values)
{
    EQ_TRY(eq_store_write(weights->store, entry, EQ_STORE_VALUE, values));
    eq_weights_note_scale(weights, entry, values[0]);
    return EQ_OK;
}

// What does not depend on a seed, without waiting for the device where one number is all there is to write.
static eq_status write_constant(struct eq_weights *weights, const struct eq_store_entry *entry)
{
    const size_t elems = eq_tensor_logical(&entry->tensor);
    float *values = eq_malloc(elems, sizeof *values);
    if (!values)
        return EQ_ERR_HOST_MEMORY;
    eq_model_initial(weights->store, entry, 0, values);
    bool is_same = entry->rank == 1;
    for (size_t i = 1; i < elems && is_same; i++)
        is_same = values[i] == values[0];
    eq_status status = EQ_OK;
    if (!is_same)
        status = eq_weights_put(weights, entry, values);
    else if (values[0] != 0)
        status = eq_ref_fill(eq_store_ref(weights->store, entry, EQ_STORE_VALUE), values[0], elems);
    eq_weights_note_scale(weights, entry, values[0]);
    free(values);
    return status;
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
    // Drawing numbers for all layers takes 1 s for ResNet-50, and nearly everybody loads weights or draws them with a seed:
    // until then layers have the zeros that the store was made with.
    for (int i = 0; i < eq_store_num_entries(weights->store); i++) {
        const struct eq_store_entry *entry = eq_store_entry(weights->store, i);
        weights->scales[i] = 1;
        if (!eq_model_is_drawn(weights->store, entry))
            EQ_TRY(write_constant(weights, entry));
    }
    return EQ_OK;
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

eq_status eq_weights_check_scales(const struct eq_weights *weights, const struct eq_exec *exec)
{
    for (int i = 0; i < eq_store_num_entries(weights->store); i++) {
        const char *name = eq_store_entry(weights->store, i)->name;
        const bool is_good = isfinite(weights->scales[i]) && weights->scales[i] > 0;
        EQ_REQUIRE(is_good || (exec && !eq_exec_has_tensor(exec, name)), EQ_ERR_NUMERIC,
                   "%s is %g: evaluation needs the statistics of a trained network", name, (double)weights->scales[i]);
    }
    return EQ_OK;
}

void eq_weights_touched(struct eq_weights *weights, const struct eq_exec *exec, int64_t num_batches)
{
    weights->batches += num_batches;
    for (int i = 0; i < eq_store_num_entries(weights->store); i++)
        if (weights->scales[i] == 0 && eq_exec_has_tensor(exec, eq_store_entry(weights->store, i)->name))
            weights->scales[i] = 1; // a first batch moves it above 0
    eq_store_touch(weights->store);
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
        .name = entry->name,
        .rank = entry->rank,
        .elems = eq_tensor_logical(&entry->tensor),
        .is_parameter = entry->kind == EQ_VALUE_PARAMETER,
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

// A network with its weights on a device: tensors, files.
#include "train/network.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/safetensors.h"

static size_t entry_elems(const struct eq_store_entry *entry)
{
    return (size_t)entry->shape[0] * (size_t)entry->shape[1] * (size_t)entry->shape[2] * (size_t)entry->shape[3];
}

// The stored forms of weights do not depend on the image's size: any that the network takes will do.
static eq_status make_store(struct eq_network *network)
{
    struct eq_ir *ir;
    int side = eq_model_is_small(&network->params) ? 32 : 224;
    EQ_TRY(eq_model_graph_create(&network->params, 1, side, side, -1, &network->shape));
    EQ_TRY(
        eq_ir_create(network->shape.graph, &network->device->target, &(struct eq_compile_params){ .loss = EQ_NO_VALUE }, &ir));
    eq_status status = eq_store_create(network->device, ir, &network->store);
    eq_ir_destroy(&ir);
    return status;
}

static eq_status write_initial(struct eq_network *network, const struct eq_store_entry *entry, uint64_t seed)
{
    float *values = eq_malloc(entry_elems(entry), sizeof *values);
    if (!values)
        return EQ_ERR_HOST_MEMORY;
    eq_model_initial(network->store, entry, seed, values);
    eq_status status = eq_store_write(network->store, entry, EQ_STORE_VALUE, values);
    free(values);
    return status;
}

// Drawing normal numbers for all filters takes 1 s for ResNet-50, and nearly everybody loads weights or draws them with a seed:
// until then filters are the zeros that the store was made with.
static eq_status write_cheap(struct eq_network *network)
{
    for (int i = 0; i < eq_store_num_entries(network->store); i++)
        if (eq_store_entry(network->store, i)->rank != 4)
            EQ_TRY(write_initial(network, eq_store_entry(network->store, i), 0));
    return EQ_OK;
}

static eq_status fill_network(struct eq_network *network, const struct eq_model_params *params)
{
    EQ_TRY(eq_model_check(params));
    network->arch = eq_strdup(params->arch);
    if (!network->arch)
        return EQ_ERR_HOST_MEMORY;
    network->params = *params;
    network->params.arch = network->arch;
    EQ_TRY(make_store(network));
    return write_cheap(network);
}

eq_status eq_network_create(struct eq_device *device, const struct eq_model_params *params, struct eq_network **network)
{
    EQ_ALLOC(*network, 1);
    (*network)->device = device;
    eq_status status = fill_network(*network, params);
    if (status != EQ_OK)
        eq_network_destroy(network);
    return status;
}

static void drop_compiled(struct eq_compiled *compiled)
{
    eq_exec_destroy(&compiled->exec);
    eq_model_graph_destroy(&compiled->model);
    *compiled = (struct eq_compiled){ 0 };
}

void eq_network_destroy(struct eq_network **network)
{
    if (!*network)
        return;
    drop_compiled(&(*network)->infer);
    drop_compiled(&(*network)->forward);
    drop_compiled(&(*network)->gradients); // last: its memory is lent to the others
    eq_store_destroy(&(*network)->store);
    eq_model_graph_destroy(&(*network)->shape);
    free((*network)->arch);
    free(*network);
    *network = NULL;
}

eq_status eq_network_initialise(struct eq_network *network, uint64_t seed)
{
    for (int i = 0; i < eq_store_num_entries(network->store); i++)
        EQ_TRY(write_initial(network, eq_store_entry(network->store, i), seed));
    network->batches = 0;
    network->is_checked = false;
    return EQ_OK;
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
static eq_status load_entry(const struct eq_network *network, const struct eq_tensors *file, const struct eq_store_entry *entry,
                            bool new_head, uint64_t seed, float *values)
{
    const struct eq_tensor_entry *found = eq_tensors_find(file, entry->name);
    bool is_optional = entry->kind == EQ_VALUE_STATE || (new_head && eq_str_starts(entry->name, "fc."));
    if (found && same_shape(entry, found))
        return eq_tensors_read_f32(file, entry->name, values, entry_elems(entry));
    if (found && !(new_head && eq_str_starts(entry->name, "fc.")))
        return wrong_shape(file, entry, found);
    EQ_REQUIRE(is_optional, EQ_ERR_NOT_FOUND, "%s: parameter %s is missing", eq_tensors_path(file), entry->name);
    eq_model_initial(network->store, entry, seed, values);
    return EQ_OK;
}

static eq_status load_entries(struct eq_network *network, const struct eq_tensors *file, bool new_head, uint64_t seed,
                              float **values)
{
    int num = eq_store_num_entries(network->store);
    for (int i = 0; i < num; i++) {
        const struct eq_store_entry *entry = eq_store_entry(network->store, i);
        values[i] = eq_malloc(entry_elems(entry), sizeof **values);
        if (!values[i])
            return EQ_ERR_HOST_MEMORY;
        EQ_TRY(load_entry(network, file, entry, new_head, seed, values[i]));
    }
    for (int i = 0; i < num; i++) // nothing was changed before all was read
        EQ_TRY(eq_store_write(network->store, eq_store_entry(network->store, i), EQ_STORE_VALUE, values[i]));
    return EQ_OK;
}

static void log_unknown(const struct eq_network *network, const struct eq_tensors *file)
{
    size_t num_unknown = 0;
    const char *first = NULL;
    for (size_t i = 0; i < eq_tensors_num(file); i++) {
        const char *name = eq_tensors_at(file, i)->name;
        if (eq_store_find(network->store, name) || eq_str_ends(name, "num_batches_tracked"))
            continue;
        first = first ? first : name;
        num_unknown++;
    }
    if (num_unknown)
        eq_log(EQ_LOG_WARNING, "%s: %zu tensors that %s does not have are ignored, %s first", eq_tensors_path(file),
               num_unknown, network->arch, first);
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

eq_status eq_network_load(struct eq_network *network, const char *path, bool new_head, uint64_t seed)
{
    struct eq_tensors *file = NULL;
    int num = eq_store_num_entries(network->store);
    EQ_TRY(eq_tensors_open(path, &file));
    int64_t batches = 0;
    float **values = eq_calloc((size_t)num, sizeof *values);
    eq_status status = values ? read_batches(file, &batches) : EQ_ERR_HOST_MEMORY;
    if (status == EQ_OK)
        status = load_entries(network, file, new_head, seed, values);
    for (int i = 0; values && i < num; i++)
        free(values[i]);
    free(values);
    if (status == EQ_OK) {
        network->batches = batches;
        network->is_checked = false;
        log_unknown(network, file);
    }
    eq_tensors_close(&file);
    return status;
}

// ---- tensors by name

int eq_network_num_tensors(const struct eq_network *network)
{
    return eq_store_num_entries(network->store);
}

struct eq_network_tensor eq_network_tensor(const struct eq_network *network, int index)
{
    const struct eq_store_entry *entry = eq_store_entry(network->store, index);
    struct eq_network_tensor tensor = { .name = entry->name, .rank = entry->rank, .elems = entry_elems(entry),
                                        .is_parameter = entry->kind == EQ_VALUE_PARAMETER };
    memcpy(tensor.shape, entry->shape, sizeof tensor.shape);
    return tensor;
}

static eq_status find_entry(const struct eq_network *network, const char *name, const struct eq_store_entry **entry)
{
    *entry = eq_store_find(network->store, name);
    EQ_REQUIRE(*entry, EQ_ERR_NOT_FOUND, "%s has no tensor called %s", network->arch, name);
    return EQ_OK;
}

eq_status eq_network_read(const struct eq_network *network, const char *name, float *values)
{
    const struct eq_store_entry *entry;
    EQ_TRY(find_entry(network, name, &entry));
    return eq_store_read(network->store, entry, EQ_STORE_VALUE, values);
}

eq_status eq_network_write(struct eq_network *network, const char *name, const float *values)
{
    const struct eq_store_entry *entry;
    EQ_TRY(find_entry(network, name, &entry));
    network->is_checked = false;
    return eq_store_write(network->store, entry, EQ_STORE_VALUE, values);
}

eq_status eq_network_read_gradient(const struct eq_network *network, const char *name, float *values)
{
    const struct eq_store_entry *entry;
    EQ_TRY(find_entry(network, name, &entry));
    EQ_REQUIRE(entry->kind == EQ_VALUE_PARAMETER && network->has_training, EQ_ERR_ARGUMENT, "%s has no gradient: it is %s",
               name, network->has_training ? "a running statistic" : "not computed yet");
    return eq_store_read(network->store, entry, EQ_STORE_GRADIENT, values);
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

eq_status eq_network_collect(struct eq_tensor_list *list, enum eq_store_part part, const char *prefix)
{
    const struct eq_store *store = list->network->store;
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
        memcpy(data, &list->network->batches, sizeof list->network->batches);
        return EQ_OK;
    }
    const float *values = data;
    EQ_TRY(eq_store_read(list->network->store, place->entry, place->part, data));
    for (size_t e = 0; list->must_be_finite && e < list->entries[index].elems; e++)
        EQ_REQUIRE(isfinite(values[e]), EQ_ERR_NUMERIC, "%s is not finite", list->entries[index].name);
    return EQ_OK;
}

eq_status eq_tensor_list_save(struct eq_tensor_list *list, const char *path, const struct eq_tensors_text *texts,
                              size_t num_texts)
{
    return eq_tensors_save_fetched(path, list->entries, list->num, texts, num_texts, fetch_tensor, list);
}

eq_status eq_network_save(const struct eq_network *network, const char *path, const struct eq_tensors_text *texts,
                          size_t num_texts)
{
    struct eq_tensor_list list = { .network = network };
    eq_status status = eq_network_collect(&list, EQ_STORE_VALUE, "");
    if (status == EQ_OK)
        status = eq_tensor_list_save(&list, path, texts, num_texts);
    eq_tensor_list_free(&list);
    return status;
}

// ---- compiled forms

static eq_status compile(struct eq_network *network, struct eq_compiled *compiled, int n, int h, int w, bool training,
                         float smoothing)
{
    if (compiled->exec && compiled->n == n && compiled->h == h && compiled->w == w && compiled->smoothing == smoothing)
        return EQ_OK;
    if (compiled == &network->gradients) { // its memory is lent to them
        drop_compiled(&network->infer);
        drop_compiled(&network->forward);
    }
    drop_compiled(compiled);
    EQ_TRY(eq_model_graph_create(&network->params, n, h, w, smoothing, &compiled->model));
    struct eq_compile_params params = { .training = training, .loss = compiled->model.loss,
                                        .recompute = network->params.recompute,
                                        .lender = compiled == &network->gradients ? NULL : network->gradients.exec };
    eq_status status = eq_exec_create(network->device, network->store, compiled->model.graph, &params, &compiled->exec);
    if (status != EQ_OK) {
        drop_compiled(compiled);
        return status;
    }
    compiled->n = n;
    compiled->h = h;
    compiled->w = w;
    compiled->smoothing = smoothing;
    return EQ_OK;
}

eq_status eq_network_compile_infer(struct eq_network *network, int n, int h, int w)
{
    return compile(network, &network->infer, n, h, w, false, -1);
}

eq_status eq_network_compile_forward(struct eq_network *network, int n, int h, int w)
{
    return compile(network, &network->forward, n, h, w, true, -1);
}

eq_status eq_network_compile_gradients(struct eq_network *network, int n, int h, int w, float smoothing)
{
    if (!network->has_training) {
        EQ_TRY(eq_store_add_training(network->store));
        network->has_training = true;
    }
    return compile(network, &network->gradients, n, h, w, true, smoothing);
}

eq_status eq_network_check_scales(struct eq_network *network)
{
    for (int i = 0; !network->is_checked && i < eq_store_num_entries(network->store); i++) {
        const struct eq_store_entry *entry = eq_store_entry(network->store, i);
        float scale = 0;
        if (!eq_str_ends(entry->name, "running_scale"))
            continue;
        EQ_TRY(eq_store_read(network->store, entry, EQ_STORE_VALUE, &scale));
        EQ_REQUIRE(isfinite(scale) && scale > 0, EQ_ERR_NUMERIC,
                   "%s is %g: evaluation needs the statistics of a trained network", entry->name, (double)scale);
    }
    network->is_checked = true;
    return EQ_OK;
}

void eq_network_touched(struct eq_network *network, int64_t num_batches)
{
    network->batches += num_batches;
    network->is_checked = false;
    eq_store_touch(network->store);
}

eq_status eq_network_infer(struct eq_network *network, int n, int h, int w, const float *images, float *logits)
{
    EQ_TRY(eq_network_check_scales(network));
    EQ_TRY(eq_network_compile_infer(network, n, h, w));
    struct eq_compiled *compiled = &network->infer;
    EQ_TRY(eq_exec_write(compiled->exec, compiled->model.images, images));
    EQ_TRY(eq_exec_run(compiled->exec));
    return eq_exec_read(compiled->exec, compiled->model.logits, logits);
}

static eq_status write_labels(struct eq_network *network, const int64_t *labels)
{
    struct eq_compiled *compiled = &network->gradients;
    int32_t *narrow = eq_malloc((size_t)compiled->n, sizeof *narrow);
    if (!narrow)
        return EQ_ERR_HOST_MEMORY;
    eq_status status = EQ_OK;
    for (int i = 0; i < compiled->n && status == EQ_OK; i++) {
        if (labels[i] < 0 || labels[i] >= network->params.classes)
            status = eq_fail(EQ_ERR_ARGUMENT, "label %lld of image %d; there are %d classes", (long long)labels[i], i,
                             network->params.classes);
        narrow[i] = (int32_t)labels[i];
    }
    if (status == EQ_OK)
        status = eq_exec_write(compiled->exec, compiled->model.labels, narrow);
    free(narrow);
    return status;
}

static eq_status read_mean_loss(const struct eq_compiled *compiled, float *loss)
{
    float *losses = eq_malloc((size_t)compiled->n, sizeof *losses);
    if (!losses)
        return EQ_ERR_HOST_MEMORY;
    eq_status status = eq_exec_read(compiled->exec, compiled->model.loss, losses);
    double sum = 0;
    for (int i = 0; status == EQ_OK && i < compiled->n; i++)
        sum += losses[i];
    *loss = (float)(sum / compiled->n);
    free(losses);
    return status;
}

eq_status eq_network_gradients(struct eq_network *network, int n, int h, int w, const float *images, const int64_t *labels,
                               float smoothing, float *loss, float *logits)
{
    EQ_REQUIRE(smoothing >= 0 && smoothing < 1, EQ_ERR_ARGUMENT, "label smoothing %g: it must be in [0, 1)", (double)smoothing);
    EQ_TRY(eq_network_compile_gradients(network, n, h, w, smoothing));
    struct eq_compiled *compiled = &network->gradients;
    EQ_TRY(write_labels(network, labels));
    EQ_TRY(eq_exec_write(compiled->exec, compiled->model.images, images));
    EQ_TRY(eq_exec_run(compiled->exec));
    eq_network_touched(network, 1);
    EQ_TRY(read_mean_loss(compiled, loss));
    return logits ? eq_exec_read(compiled->exec, compiled->model.logits, logits) : EQ_OK;
}

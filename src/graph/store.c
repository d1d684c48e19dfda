// Parameters and running statistics on a device. Weights, gradients and velocities have the same layout, so that one kernel per
// chunk updates them all; states follow the same scheme in chunks of their own.
#include <stdlib.h>
#include <string.h>

#include "graph/graph.h"

enum { MAX_CHUNKS = 64, ALIGN_ELEMS = 64 };

struct eq_store {
    struct eq_device *device;
    struct eq_store_entry *entries;
    int num_entries;
    int num_chunks;
    size_t chunk_elems[MAX_CHUNKS];
    bool chunk_is_state[MAX_CHUNKS];
    struct eq_buffer *parts[EQ_STORE_SUM + 1][MAX_CHUNKS];
    bool has_part[EQ_STORE_SUM + 1];
    uint64_t version; // starts at 1
};

static bool is_stored(const struct eq_ir_value *value)
{
    return value->kind == EQ_VALUE_PARAMETER || value->kind == EQ_VALUE_STATE;
}

static size_t aligned_elems(const struct eq_tensor *tensor)
{
    return (eq_tensor_elems(tensor) + ALIGN_ELEMS - 1) / ALIGN_ELEMS * ALIGN_ELEMS;
}

void eq_store_sizes(const struct eq_ir *ir, size_t *parameter_bytes, size_t *state_bytes)
{
    *parameter_bytes = *state_bytes = 0;
    for (int v = 0; v < ir->num_values; v++)
        if (is_stored(&ir->values[v]))
            *(ir->values[v].kind == EQ_VALUE_PARAMETER ? parameter_bytes : state_bytes) +=
                4 * aligned_elems(&ir->values[v].tensor);
}

// Entries of one kind, in the order of the graph's values, packed into chunks.
static eq_status add_entries(struct eq_store *store, const struct eq_ir *ir, enum eq_value_kind kind)
{
    size_t max_elems = store->device->target.max_alloc_bytes / 4;
    int chunk = -1;
    for (int front = 0; front < ir->graph->num_values; front++) {
        const struct eq_front_value *value = &ir->graph->values[front];
        if (value->kind != kind || ir->lowered[front] < 0)
            continue;
        struct eq_store_entry *entry = &store->entries[store->num_entries++];
        *entry = (struct eq_store_entry){
            .name = eq_strdup(value->name), .kind = kind, .rank = value->rank, .tensor = ir->values[ir->lowered[front]].tensor
        };
        if (!entry->name)
            return EQ_ERR_HOST_MEMORY;
        memcpy(entry->shape, value->shape, sizeof entry->shape);
        size_t elems = aligned_elems(&entry->tensor);
        EQ_REQUIRE(elems <= max_elems, EQ_ERR_DEVICE_MEMORY, "%s: %zu bytes; the device allows at most %zu in one buffer",
                   value->name, 4 * elems, 4 * max_elems);
        if (chunk < 0 || store->chunk_elems[chunk] + elems > max_elems) {
            EQ_REQUIRE(store->num_chunks < MAX_CHUNKS, EQ_ERR_DEVICE_MEMORY,
                       "parameters need more than %d buffers of %zu bytes", MAX_CHUNKS, 4 * max_elems);
            chunk = store->num_chunks++;
            store->chunk_is_state[chunk] = kind == EQ_VALUE_STATE;
        }
        entry->chunk = chunk;
        entry->at = store->chunk_elems[chunk];
        store->chunk_elems[chunk] += elems;
    }
    return EQ_OK;
}

static void drop_part(struct eq_store *store, enum eq_store_part part)
{
    for (int i = 0; i < store->num_chunks; i++)
        eq_buffer_destroy(&store->parts[part][i]);
}

// Makes one part of every chunk (states have values only), zeroed; all of it or nothing. Does not wait: memory that is touched
// for the first time may take the system longer than programs take to load.
static eq_status make_part(struct eq_store *store, enum eq_store_part part)
{
    eq_status status = EQ_OK;
    if (store->has_part[part])
        return EQ_OK;
    for (int i = 0; i < store->num_chunks && status == EQ_OK; i++) {
        if (part != EQ_STORE_VALUE && store->chunk_is_state[i])
            continue;
        status = eq_buffer_create(store->device, 4 * store->chunk_elems[i], &store->parts[part][i]);
        if (status == EQ_OK)
            status = eq_ref_fill(eq_ref_at(store->parts[part][i], 0), 0.0f, store->chunk_elems[i]);
    }
    store->has_part[part] = status == EQ_OK;
    if (status != EQ_OK)
        drop_part(store, part);
    return status;
}

static eq_status fill_store(struct eq_store *store, const struct eq_ir *ir)
{
    EQ_ALLOC(store->entries, ir->graph->num_values);
    EQ_TRY(add_entries(store, ir, EQ_VALUE_PARAMETER));
    EQ_TRY(add_entries(store, ir, EQ_VALUE_STATE));
    return make_part(store, EQ_STORE_VALUE);
}

eq_status eq_store_create(struct eq_device *device, const struct eq_ir *ir, struct eq_store **store)
{
    EQ_ALLOC(*store, 1);
    (*store)->device = device;
    (*store)->version = 1;
    eq_status status = fill_store(*store, ir);
    if (status != EQ_OK)
        eq_store_destroy(store);
    return status;
}

void eq_store_destroy(struct eq_store **store)
{
    if (!*store)
        return;
    for (int part = 0; part <= EQ_STORE_SUM; part++)
        drop_part(*store, (enum eq_store_part)part);
    for (int i = 0; i < (*store)->num_entries; i++)
        free((*store)->entries[i].name);
    free((*store)->entries);
    free(*store);
    *store = NULL;
}

eq_status eq_store_add_training(struct eq_store *store)
{
    EQ_TRY(make_part(store, EQ_STORE_GRADIENT));
    return make_part(store, EQ_STORE_VELOCITY);
}

int eq_store_num_entries(const struct eq_store *store)
{
    return store->num_entries;
}

const struct eq_store_entry *eq_store_entry(const struct eq_store *store, int index)
{
    return &store->entries[index];
}

const struct eq_store_entry *eq_store_find(const struct eq_store *store, const char *name)
{
    for (int i = 0; i < store->num_entries; i++)
        if (strcmp(store->entries[i].name, name) == 0)
            return &store->entries[i];
    return NULL;
}

struct eq_ref eq_store_ref(const struct eq_store *store, const struct eq_store_entry *entry, enum eq_store_part part)
{
    return eq_ref_at(store->parts[part][entry->chunk], entry->at);
}

eq_status eq_store_read(const struct eq_store *store, const struct eq_store_entry *entry, enum eq_store_part part, float *host)
{
    size_t elems = eq_tensor_elems(&entry->tensor);
    float *stored = eq_malloc(elems, sizeof *stored);
    if (!stored)
        return EQ_ERR_HOST_MEMORY;
    eq_status status = eq_ref_read(eq_store_ref(store, entry, part), stored, elems, sizeof *stored);
    if (status == EQ_OK)
        eq_tensor_unpack(&entry->tensor, stored, host);
    free(stored);
    return status;
}

uint64_t eq_store_version(const struct eq_store *store)
{
    return store->version;
}

void eq_store_touch(struct eq_store *store)
{
    store->version++;
}

eq_status eq_store_pack(const struct eq_store_entry *entry, const float *host, float **stored)
{
    *stored = eq_malloc(eq_tensor_elems(&entry->tensor), sizeof **stored);
    if (!*stored)
        return EQ_ERR_HOST_MEMORY;
    eq_tensor_pack(&entry->tensor, host, *stored);
    return EQ_OK;
}

eq_status eq_store_write_packed(struct eq_store *store, const struct eq_store_entry *entry, enum eq_store_part part,
                                const float *stored)
{
    eq_store_touch(store);
    return eq_ref_write(eq_store_ref(store, entry, part), stored, eq_tensor_elems(&entry->tensor), sizeof *stored);
}

eq_status eq_store_write(struct eq_store *store, const struct eq_store_entry *entry, enum eq_store_part part, const float *host)
{
    float *stored;
    EQ_TRY(eq_store_pack(entry, host, &stored));
    const eq_status status = eq_store_write_packed(store, entry, part, stored);
    free(stored);
    return status;
}

eq_status eq_store_emit_update(struct eq_store *store, struct eq_list *list, struct eq_ref hyper, bool from_sum)
{
    EQ_TRY(eq_list_label(list, "sgd"));
    for (int i = 0; i < store->num_chunks; i++)
        if (!store->chunk_is_state[i])
            EQ_TRY(eq_sgd_emit(list, store->chunk_elems[i], eq_ref_at(store->parts[EQ_STORE_VALUE][i], 0),
                               eq_ref_at(store->parts[from_sum ? EQ_STORE_SUM : EQ_STORE_GRADIENT][i], 0),
                               eq_ref_at(store->parts[EQ_STORE_VELOCITY][i], 0), hyper));
    return EQ_OK;
}

eq_status eq_store_emit_accumulate(struct eq_store *store, struct eq_list *list, float scale, bool first)
{
    EQ_TRY(make_part(store, EQ_STORE_SUM));
    EQ_TRY(eq_list_label(list, "accumulate"));
    for (int i = 0; i < store->num_chunks; i++)
        if (!store->chunk_is_state[i])
            EQ_TRY(eq_accumulate_emit(list, store->chunk_elems[i], eq_ref_at(store->parts[EQ_STORE_GRADIENT][i], 0),
                                      eq_ref_at(store->parts[EQ_STORE_SUM][i], 0), scale, first));
    return EQ_OK;
}

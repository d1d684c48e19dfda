// Writer of safetensors files. Wide element types come first, so that each tensor is aligned to its element without a gap; the
// header is filled up with spaces to a multiple of 8 bytes, as the format's own library does.
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "io/safetensors.h"

// One tensor to be written, and its place.
struct item {
    const struct eq_tensor_entry *entry;
    size_t bytes;
    uint64_t begin;
};

// Where data comes from that an entry does not have; fetch NULL: every entry has its own.
struct source {
    eq_tensor_fetch_fn fetch;
    void *user;
    const struct eq_tensor_entry *entries; // the first
    void *scratch;                         // for the largest
};

static eq_status check_entries(const char *path, const struct eq_tensor_entry *entries, size_t num, const struct source *source,
                               struct item *items)
{
    size_t at = 0;
    for (size_t i = 0; i < num; i++) {
        const struct eq_tensor_entry *entry = &entries[i];
        size_t elems, bytes;
        EQ_REQUIRE(entry->name, EQ_ERR_ARGUMENT, "%s: tensor %zu has no name", path, i);
        EQ_REQUIRE((unsigned)entry->type < EQ_NUM_DATA_TYPES, EQ_ERR_ARGUMENT, "%s: tensor %s: type %d is none", path,
                   entry->name, (int)entry->type);
        EQ_REQUIRE(entry->num_dims >= 0 && entry->num_dims <= EQ_MAX_DIMS, EQ_ERR_ARGUMENT,
                   "%s: tensor %s: %d dimensions, 0 to %d are "
                   "possible",
                   path, entry->name, entry->num_dims, EQ_MAX_DIMS);
        EQ_REQUIRE(eq_data_size(entry->type, entry->dims, entry->num_dims, &elems, &bytes), EQ_ERR_ARGUMENT,
                   "%s: tensor %s: its shape has a negative extent or more elements than can be counted", path, entry->name);
        EQ_REQUIRE(bytes == 0 || entry->data || source->fetch, EQ_ERR_ARGUMENT, "%s: tensor %s: no data", path, entry->name);
    }
    for (size_t width = 8; width > 0; width /= 2)
        for (size_t i = 0; i < num; i++)
            if (eq_data_type_bytes(entries[i].type) == width)
                items[at++].entry = &entries[i];
    uint64_t end = 0;
    for (size_t i = 0; i < num; i++) {
        size_t elems;
        eq_data_size(items[i].entry->type, items[i].entry->dims, items[i].entry->num_dims, &elems, &items[i].bytes);
        items[i].begin = end;
        EQ_REQUIRE(!__builtin_add_overflow(end, items[i].bytes, &end) && end <= INT64_MAX, EQ_ERR_ARGUMENT,
                   "%s: the tensors have more bytes than a file can hold", path);
    }
    return EQ_OK;
}

static eq_status no_memory(const char *path)
{
    return eq_fail(EQ_ERR_HOST_MEMORY, "%s: out of memory for the header", path);
}

// Adds key: value to the object and takes the value over. text: what the value was made of, or NULL.
static eq_status add(const char *path, json_t *object, const char *key, json_t *value, const char *text, const char *what)
{
    const bool is_twice = json_object_get(object, key) != NULL;
    if (!is_twice && value && json_object_set_new(object, key, value) == 0)
        return EQ_OK;
    if (is_twice)
        json_decref(value);
    EQ_REQUIRE(!is_twice, EQ_ERR_ARGUMENT, "%s: %s %s is there twice", path, what, key);
    EQ_REQUIRE(eq_json_is_utf8(key) && (!text || eq_json_is_utf8(text)), EQ_ERR_ARGUMENT, "%s: %s %s is not UTF-8", path, what,
               key);
    return no_memory(path);
}

// [dims]; NULL on no memory.
static json_t *shape_json(const struct eq_tensor_entry *entry)
{
    json_t *shape = json_array();
    for (int i = 0; i < entry->num_dims; i++)
        if (json_array_append_new(shape, json_integer(entry->dims[i])) != 0) {
            json_decref(shape);
            return NULL;
        }
    return shape;
}

static eq_status fill_header(const char *path, json_t *header, const struct item *items, size_t num,
                             const struct eq_tensors_text *texts, size_t num_texts)
{
    if (num_texts) {
        json_t *metadata = json_object();
        EQ_TRY(add(path, header, EQ_SAFETENSORS_METADATA, metadata, NULL, "tensor"));
        for (size_t i = 0; i < num_texts; i++)
            EQ_TRY(add(path, metadata, texts[i].key, json_string(texts[i].value), texts[i].value, "metadata"));
    }
    for (size_t i = 0; i < num; i++) {
        const struct eq_tensor_entry *entry = items[i].entry;
        EQ_REQUIRE(strcmp(entry->name, EQ_SAFETENSORS_METADATA) != 0, EQ_ERR_ARGUMENT, "%s: a tensor cannot be called %s", path,
                   entry->name);
        json_t *shape = shape_json(entry);
        if (!shape)
            return no_memory(path);
        json_t *value = json_pack("{s:s, s:o, s:[I, I]}", "dtype", eq_data_type_name(entry->type), "shape", shape,
                                  "data_offsets", (json_int_t)items[i].begin, (json_int_t)(items[i].begin + items[i].bytes));
        if (!value)
            return no_memory(path);
        EQ_TRY(add(path, header, entry->name, value, NULL, "tensor"));
    }
    return EQ_OK;
}

static eq_status write_item(struct eq_writer *writer, const struct item *item, const struct source *source)
{
    const void *data = item->entry->data;
    if (!data && item->bytes > 0) {
        eq_status status = source->fetch(source->user, (size_t)(item->entry - source->entries), source->scratch);
        if (status != EQ_OK) {
            eq_writer_abort(writer);
            return status;
        }
        data = source->scratch;
    }
    return eq_writer_write(writer, data, item->bytes);
}

static eq_status write_all(const char *path, const char *header, const struct item *items, size_t num,
                           const struct source *source)
{
    struct eq_writer writer;
    size_t length = strlen(header);
    uint64_t header_bytes = (length + 7) / 8 * 8;
    EQ_REQUIRE(header_bytes <= EQ_SAFETENSORS_MAX_HEADER, EQ_ERR_ARGUMENT,
               "%s: a header of %llu bytes, at most %u are possible", path, (unsigned long long)header_bytes,
               EQ_SAFETENSORS_MAX_HEADER);
    EQ_TRY(eq_writer_open(&writer, path));
    EQ_TRY(eq_writer_write(&writer, &header_bytes, 8));
    EQ_TRY(eq_writer_write(&writer, header, length));
    EQ_TRY(eq_writer_write(&writer, "       ", (size_t)header_bytes - length));
    for (size_t i = 0; i < num; i++)
        EQ_TRY(write_item(&writer, &items[i], source));
    return eq_writer_commit(&writer);
}

static eq_status make_scratch(const struct item *items, size_t num, struct source *source)
{
    size_t most = 0;
    for (size_t i = 0; i < num; i++)
        if (!items[i].entry->data && items[i].bytes > most)
            most = items[i].bytes;
    return most == 0 || (source->scratch = eq_malloc(most, 1)) ? EQ_OK : EQ_ERR_HOST_MEMORY;
}

eq_status eq_tensors_save_fetched(const char *path, const struct eq_tensor_entry *entries, size_t num_entries,
                                  const struct eq_tensors_text *texts, size_t num_texts, eq_tensor_fetch_fn fetch, void *user)
{
    eq_status status;
    struct source source = { .fetch = fetch, .user = user, .entries = entries };
    char *text = NULL;
    struct item *items = NULL;
    json_t *header = json_object();
    if (!header)
        return no_memory(path);
    if (!(items = eq_calloc(num_entries, sizeof *items)))
        status = EQ_ERR_HOST_MEMORY;
    else
        status = check_entries(path, entries, num_entries, &source, items);
    if (status == EQ_OK)
        status = fill_header(path, header, items, num_entries, texts, num_texts);
    if (status == EQ_OK && !(text = eq_json_text(header, JSON_COMPACT)))
        status = no_memory(path);
    if (status == EQ_OK)
        status = make_scratch(items, num_entries, &source);
    if (status == EQ_OK)
        status = write_all(path, text, items, num_entries, &source);
    free(source.scratch);
    free(text);
    free(items);
    json_decref(header);
    return status;
}

eq_status eq_tensors_save(const char *path, const struct eq_tensor_entry *entries, size_t num_entries,
                          const struct eq_tensors_text *texts, size_t num_texts)
{
    return eq_tensors_save_fetched(path, entries, num_entries, texts, num_texts, NULL, NULL);
}

// Reader of safetensors files.
//
// A file is not trusted: its header is checked as a whole when it is opened, before anything is allocated by its numbers.
// Tensors must lie back to back from the header to the end of the file, as the format demands, which rules out overlaps, gaps
// and offsets out of range at once. Data is read with pread(): a mapped file that becomes shorter meanwhile would kill the
// program with SIGBUS.
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/json.h"
#include "io/safetensors.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are little-endian in the file and read as they lie");

enum { CHUNK_BYTES = 16384, SHOWN_BYTES = 192 };

struct eq_tensors {
    int fd; // -1: the file is in memory
    const char *memory;
    uint64_t file_bytes;
    char *path;
    uint64_t data_at, data_bytes;    // where the tensors begin, and how many bytes they have together
    json_t *header;                  // owns names and metadata
    struct eq_tensor_entry *entries; // [num]
    uint64_t *begins;                // [num] offsets from data_at, ascending
    size_t num;
    struct eq_tensors_text *texts; // [num_texts]
    size_t num_texts;
};

static const struct {
    const char *name;
    size_t bytes;
} types[EQ_NUM_DATA_TYPES] = {
    [EQ_DATA_F32] = { "F32", 4 },   [EQ_DATA_F64] = { "F64", 8 },         [EQ_DATA_F16] = { "F16", 2 },
    [EQ_DATA_BF16] = { "BF16", 2 }, [EQ_DATA_I64] = { "I64", 8 },         [EQ_DATA_I32] = { "I32", 4 },
    [EQ_DATA_I16] = { "I16", 2 },   [EQ_DATA_I8] = { "I8", 1 },           [EQ_DATA_U64] = { "U64", 8 },
    [EQ_DATA_U32] = { "U32", 4 },   [EQ_DATA_U16] = { "U16", 2 },         [EQ_DATA_U8] = { "U8", 1 },
    [EQ_DATA_BOOL] = { "BOOL", 1 }, [EQ_DATA_F8_E4M3] = { "F8_E4M3", 1 }, [EQ_DATA_F8_E5M2] = { "F8_E5M2", 1 },
};

// A name of the file for an error text: cut, and without control characters, which could steer a terminal.
static const char *shown(const char *name, char text[SHOWN_BYTES])
{
    snprintf(text, SHOWN_BYTES, "%s", name);
    for (char *at = text; *at; at++)
        if ((unsigned char)*at < 32 || *at == 127)
            *at = '?';
    return text;
}

// ---- the header

static eq_status entry_dims(const char *path, const char *name, const json_t *shape, struct eq_tensor_entry *entry)
{
    EQ_REQUIRE(json_is_array(shape), EQ_ERR_FORMAT, "%s: tensor %s: no list \"shape\"", path, name);
    size_t num_dims = json_array_size(shape);
    EQ_REQUIRE(num_dims <= EQ_MAX_DIMS, EQ_ERR_FORMAT, "%s: tensor %s: %zu dimensions, at most %d are read", path, name,
               num_dims, EQ_MAX_DIMS);
    entry->num_dims = (int)num_dims;
    for (size_t i = 0; i < num_dims; i++) {
        const json_t *dim = json_array_get(shape, i);
        EQ_REQUIRE(json_is_integer(dim), EQ_ERR_FORMAT, "%s: tensor %s: dimension %zu is not an integer", path, name, i);
        entry->dims[i] = json_integer_value(dim);
        EQ_REQUIRE(entry->dims[i] >= 0, EQ_ERR_FORMAT, "%s: tensor %s: dimension %zu is %lld", path, name, i,
                   (long long)entry->dims[i]);
    }
    return EQ_OK;
}

static eq_status entry_parse(const struct eq_tensors *file, const char *key, const json_t *value, struct eq_tensor_entry *entry,
                             uint64_t *begin)
{
    char name[SHOWN_BYTES], type_name[SHOWN_BYTES];
    shown(key, name);
    EQ_REQUIRE(json_is_object(value), EQ_ERR_FORMAT, "%s: tensor %s: not a JSON object", file->path, name);
    const json_t *type = json_object_get(value, "dtype"), *offsets = json_object_get(value, "data_offsets");
    EQ_REQUIRE(json_is_string(type), EQ_ERR_FORMAT, "%s: tensor %s: no text \"dtype\"", file->path, name);
    EQ_REQUIRE(eq_data_type_find(json_string_value(type), &entry->type), EQ_ERR_FORMAT, "%s: tensor %s: unknown dtype \"%s\"",
               file->path, name, shown(json_string_value(type), type_name));
    EQ_TRY(entry_dims(file->path, name, json_object_get(value, "shape"), entry));
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    EQ_REQUIRE(json_array_size(offsets) == 2 && json_is_integer(first) && json_is_integer(last), EQ_ERR_FORMAT,
               "%s: tensor %s: \"data_offsets\" is not a list of two integers", file->path, name);
    long long from = json_integer_value(first), to = json_integer_value(last);
    EQ_REQUIRE(from >= 0 && to >= from && (uint64_t)to <= file->data_bytes, EQ_ERR_FORMAT,
               "%s: tensor %s: offsets %lld to %lld are outside the %llu bytes of data", file->path, name, from, to,
               (unsigned long long)file->data_bytes);
    size_t bytes;
    EQ_REQUIRE(eq_data_size(entry->type, entry->dims, entry->num_dims, &entry->elems, &bytes), EQ_ERR_FORMAT,
               "%s: tensor %s: its shape has more elements than can be counted", file->path, name);
    EQ_REQUIRE(bytes == (uint64_t)(to - from), EQ_ERR_FORMAT,
               "%s: tensor %s: offsets %lld to %lld hold %lld bytes, its shape %zu", file->path, name, from, to, to - from,
               bytes);
    entry->name = key;
    *begin = (uint64_t)from;
    return EQ_OK;
}

struct placed {
    struct eq_tensor_entry entry;
    uint64_t begin;
    size_t bytes;
};

static int by_place(const void *a, const void *b)
{
    const struct placed *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->bytes != y->bytes) // empty tensors come before the one that begins at the same byte
        return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->entry.name, y->entry.name);
}

// Sorts the tensors by place and checks that each begins where the one before ends.
static eq_status place_entries(struct eq_tensors *file, struct placed *placed)
{
    char name[SHOWN_BYTES];
    uint64_t end = 0;
    if (file->num)
        qsort(placed, file->num, sizeof *placed, by_place);
    for (size_t i = 0; i < file->num; i++) {
        EQ_REQUIRE(placed[i].begin == end, EQ_ERR_FORMAT,
                   "%s: tensor %s begins at byte %llu and the one before it ends at %llu: %s", file->path,
                   shown(placed[i].entry.name, name), (unsigned long long)placed[i].begin, (unsigned long long)end,
                   placed[i].begin < end ? "they overlap" : "a gap");
        end += placed[i].bytes;
        file->entries[i] = placed[i].entry;
        file->begins[i] = placed[i].begin;
    }
    EQ_REQUIRE(end == file->data_bytes, EQ_ERR_FORMAT, "%s: its tensors have %llu bytes, the file has %llu behind the header",
               file->path, (unsigned long long)end, (unsigned long long)file->data_bytes);
    return EQ_OK;
}

static eq_status parse_entries(struct eq_tensors *file)
{
    file->num = json_object_size(file->header) - (json_object_get(file->header, EQ_SAFETENSORS_METADATA) ? 1 : 0);
    EQ_ALLOC(file->entries, file->num);
    EQ_ALLOC(file->begins, file->num);
    struct placed *placed;
    EQ_ALLOC(placed, file->num);
    eq_status status = EQ_OK;
    size_t at = 0;
    const char *key;
    json_t *value;
    json_object_foreach(file->header, key, value)
    {
        if (status != EQ_OK || strcmp(key, EQ_SAFETENSORS_METADATA) == 0)
            continue;
        struct placed *place = &placed[at++];
        status = entry_parse(file, key, value, &place->entry, &place->begin);
        place->bytes = place->entry.elems * eq_data_type_bytes(place->entry.type);
    }
    if (status == EQ_OK)
        status = place_entries(file, placed);
    free(placed);
    return status;
}

static eq_status parse_texts(struct eq_tensors *file)
{
    json_t *metadata = json_object_get(file->header, EQ_SAFETENSORS_METADATA);
    EQ_REQUIRE(!metadata || json_is_object(metadata), EQ_ERR_FORMAT, "%s: %s is not a JSON object", file->path,
               EQ_SAFETENSORS_METADATA);
    EQ_ALLOC(file->texts, json_object_size(metadata));
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value)
    {
        char name[SHOWN_BYTES];
        EQ_REQUIRE(json_is_string(value), EQ_ERR_FORMAT, "%s: %s: the value of \"%s\" is not a text", file->path,
                   EQ_SAFETENSORS_METADATA, shown(key, name));
        file->texts[file->num_texts++] = (struct eq_tensors_text){ key, json_string_value(value) };
    }
    return EQ_OK;
}

// ---- bytes of the file

static eq_status read_at(const struct eq_tensors *file, uint64_t at, void *data, size_t bytes)
{
    if (file->fd < 0) {
        memcpy(data, file->memory + at, bytes); // within the file: the header was checked
        return EQ_OK;
    }
    for (size_t done = 0; done < bytes;) {
        ssize_t count = pread(file->fd, (char *)data + done, bytes - done, (off_t)(at + done));
        if (count < 0 && errno == EINTR)
            continue;
        EQ_REQUIRE(count >= 0, EQ_ERR_IO, "%s: %s", file->path, strerror(errno));
        EQ_REQUIRE(count > 0, EQ_ERR_IO, "%s: ends at byte %llu; it became shorter since it was opened", file->path,
                   (unsigned long long)(at + done));
        done += (size_t)count;
    }
    return EQ_OK;
}

static eq_status read_header(struct eq_tensors *file)
{
    uint64_t file_bytes = file->file_bytes, header_bytes;
    EQ_REQUIRE(file_bytes >= 8, EQ_ERR_FORMAT, "%s: %llu bytes are too few for a safetensors file", file->path,
               (unsigned long long)file_bytes);
    EQ_TRY(read_at(file, 0, &header_bytes, 8));
    EQ_REQUIRE(
        header_bytes <= EQ_SAFETENSORS_MAX_HEADER && header_bytes <= file_bytes - 8, EQ_ERR_FORMAT,
        "%s: not a safetensors file, or cut short: its header would have %llu bytes, the file has %llu (at most %u are read)",
        file->path, (unsigned long long)header_bytes, (unsigned long long)file_bytes, EQ_SAFETENSORS_MAX_HEADER);
    file->data_at = 8 + header_bytes;
    file->data_bytes = file_bytes - file->data_at;
    char *text;
    if (!(text = eq_malloc(header_bytes, 1)))
        return EQ_ERR_HOST_MEMORY;
    eq_status status = read_at(file, 8, text, header_bytes);
    json_error_t error;
    const bool is_read = status == EQ_OK;
    if (is_read)
        status = eq_json_parse(text, header_bytes, &file->header, &error);
    if (is_read && status == EQ_ERR_FORMAT) {
        char reason[SHOWN_BYTES];
        status = eq_fail(EQ_ERR_FORMAT, "%s: the header is not JSON: %s (byte %d)", file->path, shown(error.text, reason),
                         error.position);
    }
    free(text);
    return status;
}

static eq_status open_path(struct eq_tensors *file, const char *path)
{
    struct stat info;
    file->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a pipe would wait for a writer
    EQ_REQUIRE(file->fd >= 0 && fstat(file->fd, &info) == 0, EQ_ERR_IO, "%s: %s", path, strerror(errno));
    EQ_REQUIRE(S_ISREG(info.st_mode), EQ_ERR_IO, "%s: not a regular file", path);
    file->file_bytes = (uint64_t)info.st_size;
    return EQ_OK;
}

static eq_status parse_file(struct eq_tensors *file)
{
    EQ_TRY(read_header(file));
    EQ_REQUIRE(json_is_object(file->header), EQ_ERR_FORMAT, "%s: the header is not a JSON object", file->path);
    EQ_TRY(parse_texts(file));
    return parse_entries(file);
}

// ---- conversion

static float from_f16(uint16_t half)
{
    int exponent = half >> 10 & 31, mantissa = half & 1023;
    float size;
    if (exponent == 31)
        size = mantissa ? NAN : INFINITY;
    else
        size = exponent ? ldexpf((float)(mantissa + 1024), exponent - 25) : ldexpf((float)mantissa, -24);
    return half & 0x8000 ? -size : size;
}

static float from_bf16(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static bool is_float(enum eq_data_type type)
{
    return type == EQ_DATA_F32 || type == EQ_DATA_F64 || type == EQ_DATA_F16 || type == EQ_DATA_BF16;
}

// Elements of `raw` as floats. The cases copy byte by byte because `raw` is not aligned for them.
static void to_f32(enum eq_data_type type, const unsigned char *raw, size_t elems, float *values)
{
    size_t bytes = eq_data_type_bytes(type);
    for (size_t i = 0; i < elems; i++, raw += bytes) {
        double wide = 0.0;
        uint16_t half = 0;
        memcpy(type == EQ_DATA_F64 ? (void *)&wide : (void *)&half, raw, bytes);
        values[i] = type == EQ_DATA_F64 ? (float)wide : type == EQ_DATA_F16 ? from_f16(half) : from_bf16(half);
    }
}

static bool is_integer(enum eq_data_type type)
{
    return type >= EQ_DATA_I64 && type <= EQ_DATA_BOOL;
}

static bool is_signed(enum eq_data_type type)
{
    return type >= EQ_DATA_I64 && type <= EQ_DATA_I8;
}

// Elements of `raw` as 64-bit integers; false when a U64 does not fit.
static bool to_i64(enum eq_data_type type, const unsigned char *raw, size_t elems, int64_t *values)
{
    size_t bytes = eq_data_type_bytes(type);
    for (size_t i = 0; i < elems; i++, raw += bytes) {
        uint64_t bits = 0;
        memcpy(&bits, raw, bytes);
        if (is_signed(type) && bytes < 8 && bits >> (8 * bytes - 1))
            bits |= ~(uint64_t)0 << (8 * bytes);
        if (!is_signed(type) && bits > (uint64_t)INT64_MAX)
            return false;
        values[i] = (int64_t)bits;
    }
    return true;
}

static eq_status find_sized(const struct eq_tensors *file, const char *name, size_t elems, const struct eq_tensor_entry **entry,
                            uint64_t *at)
{
    char text[SHOWN_BYTES];
    *entry = eq_tensors_find(file, name);
    EQ_REQUIRE(*entry, EQ_ERR_NOT_FOUND, "%s: no tensor %s", file->path, shown(name, text));
    EQ_REQUIRE((*entry)->elems == elems, EQ_ERR_SHAPE, "%s: tensor %s has %zu elements, %zu are wanted", file->path,
               shown(name, text), (*entry)->elems, elems);
    *at = file->data_at + file->begins[*entry - file->entries];
    return EQ_OK;
}

// ---- public

const char *eq_data_type_name(enum eq_data_type type)
{
    return (unsigned)type < EQ_NUM_DATA_TYPES ? types[type].name : "unknown";
}

size_t eq_data_type_bytes(enum eq_data_type type)
{
    return (unsigned)type < EQ_NUM_DATA_TYPES ? types[type].bytes : 1;
}

bool eq_data_type_find(const char *name, enum eq_data_type *type)
{
    for (int i = 0; i < EQ_NUM_DATA_TYPES; i++)
        if (strcmp(types[i].name, name) == 0) {
            *type = (enum eq_data_type)i;
            return true;
        }
    return false;
}

bool eq_data_size(enum eq_data_type type, const int64_t *dims, int num_dims, size_t *elems, size_t *bytes)
{
    // An extent of 0 makes the product 0, whatever overflows before or behind it.
    bool is_empty = false;
    for (int i = 0; i < num_dims; i++) {
        if (dims[i] < 0)
            return false;
        is_empty |= dims[i] == 0;
    }
    uint64_t count = is_empty ? 0 : 1;
    for (int i = 0; !is_empty && i < num_dims; i++)
        if (__builtin_mul_overflow(count, (uint64_t)dims[i], &count))
            return false;
    uint64_t total;
    if (__builtin_mul_overflow(count, (uint64_t)eq_data_type_bytes(type), &total) || total > INT64_MAX || total > SIZE_MAX)
        return false;
    *elems = (size_t)count;
    *bytes = (size_t)total;
    return true;
}

// data NULL: from the path.
static eq_status open_tensors(const char *path, const void *data, size_t bytes, struct eq_tensors **file)
{
    EQ_ALLOC(*file, 1);
    (*file)->fd = -1;
    (*file)->memory = data;
    (*file)->file_bytes = bytes;
    (*file)->path = eq_strdup(path);
    eq_status status = !(*file)->path ? EQ_ERR_HOST_MEMORY : data ? EQ_OK : open_path(*file, path);
    if (status == EQ_OK)
        status = parse_file(*file);
    if (status != EQ_OK)
        eq_tensors_close(file);
    return status;
}

eq_status eq_tensors_open(const char *path, struct eq_tensors **file)
{
    return open_tensors(path, NULL, 0, file);
}

eq_status eq_tensors_open_memory(const char *name, const void *data, size_t bytes, struct eq_tensors **file)
{
    *file = NULL;
    EQ_REQUIRE(data, EQ_ERR_ARGUMENT, "%s: no memory is given", name);
    return open_tensors(name, data, bytes, file);
}

void eq_tensors_close(struct eq_tensors **file)
{
    if (!*file)
        return;
    if ((*file)->fd >= 0)
        close((*file)->fd);
    json_decref((*file)->header);
    free((*file)->entries);
    free((*file)->begins);
    free((*file)->texts);
    free((*file)->path);
    free(*file);
    *file = NULL;
}

const char *eq_tensors_path(const struct eq_tensors *file)
{
    return file->path;
}

size_t eq_tensors_num(const struct eq_tensors *file)
{
    return file->num;
}

const struct eq_tensor_entry *eq_tensors_at(const struct eq_tensors *file, size_t i)
{
    return i < file->num ? &file->entries[i] : NULL;
}

const struct eq_tensor_entry *eq_tensors_find(const struct eq_tensors *file, const char *name)
{
    for (size_t i = 0; i < file->num; i++)
        if (strcmp(file->entries[i].name, name) == 0)
            return &file->entries[i];
    return NULL;
}

eq_status eq_tensors_read_f32(const struct eq_tensors *file, const char *name, float *values, size_t elems)
{
    char text[SHOWN_BYTES];
    unsigned char raw[CHUNK_BYTES];
    const struct eq_tensor_entry *entry;
    uint64_t at;
    EQ_TRY(find_sized(file, name, elems, &entry, &at));
    EQ_REQUIRE(is_float(entry->type), EQ_ERR_FORMAT, "%s: tensor %s is %s, not one of F32, F64, F16 and BF16", file->path,
               shown(name, text), eq_data_type_name(entry->type));
    if (entry->type == EQ_DATA_F32)
        return read_at(file, at, values, elems * sizeof *values);
    size_t bytes = eq_data_type_bytes(entry->type), step = CHUNK_BYTES / bytes;
    for (size_t done = 0; done < elems; done += step) {
        size_t count = elems - done < step ? elems - done : step;
        EQ_TRY(read_at(file, at + done * bytes, raw, count * bytes));
        to_f32(entry->type, raw, count, values + done);
    }
    return EQ_OK;
}

eq_status eq_tensors_read_i64(const struct eq_tensors *file, const char *name, int64_t *values, size_t elems)
{
    char text[SHOWN_BYTES];
    unsigned char raw[CHUNK_BYTES];
    const struct eq_tensor_entry *entry;
    uint64_t at;
    EQ_TRY(find_sized(file, name, elems, &entry, &at));
    EQ_REQUIRE(is_integer(entry->type), EQ_ERR_FORMAT, "%s: tensor %s is %s, not an integer type", file->path,
               shown(name, text), eq_data_type_name(entry->type));
    size_t bytes = eq_data_type_bytes(entry->type), step = CHUNK_BYTES / bytes;
    for (size_t done = 0; done < elems; done += step) {
        size_t count = elems - done < step ? elems - done : step;
        EQ_TRY(read_at(file, at + done * bytes, raw, count * bytes));
        EQ_REQUIRE(to_i64(entry->type, raw, count, values + done), EQ_ERR_FORMAT, "%s: tensor %s: a value above 2^63 - 1",
                   file->path, shown(name, text));
    }
    return EQ_OK;
}

const char *eq_tensors_text(const struct eq_tensors *file, const char *key)
{
    for (size_t i = 0; i < file->num_texts; i++)
        if (strcmp(file->texts[i].key, key) == 0)
            return file->texts[i].value;
    return NULL;
}

size_t eq_tensors_num_texts(const struct eq_tensors *file)
{
    return file->num_texts;
}

struct eq_tensors_text eq_tensors_text_at(const struct eq_tensors *file, size_t i)
{
    return i < file->num_texts ? file->texts[i] : (struct eq_tensors_text){ NULL, NULL };
}

// A tensor file from memory: what is accepted can be read whole, and written and read again with the same contents.
#include "equil/data.h"
#include "fuzz.h"

enum { MAX_ELEMS = 1 << 20 };

static bool is_float(enum eq_data_type type)
{
    return type == EQ_DATA_F32 || type == EQ_DATA_F64 || type == EQ_DATA_F16 || type == EQ_DATA_BF16;
}

// Reads every tensor; false when there is one of a type that is neither for _f32 nor for _i64.
static bool read_all(const struct eq_tensors *file)
{
    bool is_whole = true;
    for (size_t i = 0; i < eq_tensors_num(file); i++) {
        const struct eq_tensor_entry *entry = eq_tensors_at(file, i);
        CHECK(eq_tensors_find(file, entry->name) == entry);
        CHECK(entry->num_dims >= 0 && entry->num_dims <= EQ_MAX_DIMS && entry->elems <= MAX_ELEMS);
        void *values = malloc((entry->elems + 1) * 8);
        CHECK(values);
        const eq_status status = is_float(entry->type) ? eq_tensors_read_f32(file, entry->name, values, entry->elems)
                                                       : eq_tensors_read_i64(file, entry->name, values, entry->elems);
        CHECK_TEXT(status);
        CHECK(status == EQ_OK || !is_float(entry->type));
        is_whole = is_whole && status == EQ_OK;
        CHECK(eq_tensors_read_f32(file, entry->name, values, entry->elems + 1) != EQ_OK);
        free(values);
    }
    return is_whole;
}

// Floats as F32 only: other types' data is not to be had in their own form.
static void write_and_compare(const struct eq_tensors *file)
{
    const size_t num = eq_tensors_num(file), num_texts = eq_tensors_num_texts(file);
    struct eq_tensor_entry *entries = calloc(num + 1, sizeof *entries);
    struct eq_tensors_text *texts = calloc(num_texts + 1, sizeof *texts);
    CHECK(entries && texts);
    for (size_t i = 0; i < num; i++) {
        entries[i] = *eq_tensors_at(file, i);
        float *values = malloc((entries[i].elems + 1) * sizeof *values);
        CHECK(values);
        memset(values, 0, (entries[i].elems + 1) * sizeof *values);
        if (is_float(entries[i].type))
            CHECK(eq_tensors_read_f32(file, entries[i].name, values, entries[i].elems) == EQ_OK);
        entries[i].type = EQ_DATA_F32;
        entries[i].data = values;
    }
    for (size_t i = 0; i < num_texts; i++)
        texts[i] = eq_tensors_text_at(file, i);
    struct eq_tensors *again = NULL;
    const char *path = fuzz_path("again.safetensors");
    CHECK(eq_tensors_save(path, entries, num, texts, num_texts) == EQ_OK);
    CHECK(eq_tensors_open(path, &again) == EQ_OK);
    CHECK(eq_tensors_num(again) == num && eq_tensors_num_texts(again) == num_texts);
    for (size_t i = 0; i < num; i++) {
        const struct eq_tensor_entry *found = eq_tensors_find(again, entries[i].name);
        CHECK(found && found->elems == entries[i].elems && found->num_dims == entries[i].num_dims);
        float *values = malloc((found->elems + 1) * sizeof *values);
        CHECK(values && eq_tensors_read_f32(again, found->name, values, found->elems) == EQ_OK);
        CHECK(memcmp(values, entries[i].data, found->elems * sizeof *values) == 0);
        free(values);
        free((void *)entries[i].data);
    }
    for (size_t i = 0; i < num_texts; i++) {
        const char *value = eq_tensors_text(again, texts[i].key);
        CHECK(value && strcmp(value, texts[i].value) == 0);
    }
    eq_tensors_close(&again);
    free(entries);
    free(texts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct eq_tensors *file = NULL;
    const eq_status status = eq_tensors_open_memory("input", data, bytes, &file);
    CHECK_TEXT(status);
    CHECK((status == EQ_OK) == (file != NULL));
    if (status == EQ_OK) {
        read_all(file);
        write_and_compare(file);
    }
    eq_tensors_close(&file);
    return 0;
}

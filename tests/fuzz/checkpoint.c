// What a weights file and a checkpoint say of themselves. The input is JSON text for the metadata of a file without tensors:
// keys and values as in a real one.
#include "train/checkpoint.h"
#include "equil/train.h"
#include "fuzz.h"
#include "train/meta.h"
#include "train/options.h"

static void read_meta(const struct eq_tensors *file)
{
    struct eq_meta meta = { 0 };
    const eq_status status = eq_meta_read(file, &meta);
    CHECK_TEXT(status);
    if (status == EQ_OK && meta.model.arch) {
        CHECK(meta.model.classes >= 1 && meta.form.size >= 1 && meta.form.resize >= 1);
        struct eq_texts texts = { .num = 0 };
        CHECK(eq_meta_write(&meta, &texts) == EQ_OK);
        eq_texts_free(&texts);
    }
    eq_meta_free(&meta);
}

static void read_state(const struct eq_tensors *file)
{
    struct eq_train_state state = { 0 };
    const eq_status status = eq_checkpoint_read_state(file, &state);
    CHECK_TEXT(status);
    if (status == EQ_OK)
        CHECK(state.epoch >= 0 && state.step >= 0 && state.log_lines >= 0 && json_is_array(state.history));
    eq_train_state_clear(&state);
}

static void read_options(const struct eq_tensors *file)
{
    struct eq_train_options options = { .num_strings = 0 };
    CHECK_TEXT(eq_train_options_resolve(&(struct eq_train_params){ .out = "run", .resume = true }, eq_checkpoint_option, file,
                                        &options));
    eq_train_options_free(&options);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const char before[] = "{\"__metadata__\":", after[] = "}";
    const uint64_t header = sizeof before - 1 + bytes + sizeof after - 1;
    unsigned char *memory = malloc(8 + header);
    CHECK(memory);
    memcpy(memory, &header, 8);
    memcpy(memory + 8, before, sizeof before - 1);
    memcpy(memory + 8 + sizeof before - 1, data, bytes);
    memcpy(memory + 8 + sizeof before - 1 + bytes, after, sizeof after - 1);
    struct eq_tensors *file = NULL;
    CHECK_TEXT(eq_tensors_open_memory("input", memory, 8 + header, &file));
    if (file) {
        read_meta(file);
        read_state(file);
        read_options(file);
    }
    eq_tensors_close(&file);
    free(memory);
    return 0;
}

// A file of tuned parameters: what is accepted is the same after it was saved and read again. And an entry of the cache of
// programs, where the first byte is 'E'.
#include "fuzz.h"
#include "rt/internal.h"
#include "rt/tune.h"

static const struct eq_tuning_identity device = { "device", "1", "platform", "vendor", "cpu", "0.1.0" };

static void read_tuning(const uint8_t *data, size_t bytes)
{
    char *text = fuzz_text(data, bytes), *saved = NULL, hashes[2][20];
    struct eq_tuning *tuning = NULL, *again = NULL;
    struct eq_tuning_identity header;
    size_t length;
    CHECK(eq_tuning_create(&tuning) == EQ_OK && eq_tuning_create(&again) == EQ_OK);
    const eq_status status = eq_tuning_parse(tuning, "input", text, &device, &header);
    CHECK_TEXT(status);
    CHECK(status == EQ_OK || eq_tuning_num(tuning) == 0);
    const char *path = fuzz_path("tuning.txt");
    CHECK(eq_tuning_save(tuning, path, &device, "") == EQ_OK);
    CHECK(eq_file_read(path, EQ_TUNE_MAX_FILE_BYTES, &saved, &length) == EQ_OK);
    CHECK(eq_tuning_parse(again, "again", saved, &device, NULL) == EQ_OK);
    CHECK(eq_tuning_num(tuning) == eq_tuning_num(again));
    CHECK(strcmp(eq_tuning_hash(tuning, hashes[0]), eq_tuning_hash(again, hashes[1])) == 0);
    free(saved);
    eq_tuning_destroy(&tuning);
    eq_tuning_destroy(&again);
    free(text);
}

static void read_entry(const uint8_t *data, size_t bytes)
{
    const char key[] = "key";
    const unsigned char *binary = NULL;
    size_t size = 0;
    if (eq_cache_entry_find((const char *)data, bytes, key, sizeof key - 1, &binary, &size))
        CHECK(binary >= data && size <= bytes && binary + size == data + bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes > 0 && data[0] == 'E')
        read_entry(data, bytes);
    else
        read_tuning(data, bytes);
    return 0;
}

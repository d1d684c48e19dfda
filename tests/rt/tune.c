// Tuned parameters as text, the table, and what a device reads when it is opened.
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"

static const struct eq_tuning_identity here = { .device = "Fast Chip 9 gfx1100", .driver = "7.1", .platform = "Fast",
                                                .vendor = "Fast Chips, Inc.", .kind = "gpu", .library = "0.1.0" };

static char folder[64];

static const char *path_of(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    ck_assert_int_eq(fclose(file), 0);
}

static char log_text[4096];
static void keep_log(void *user, enum eq_log_level level, const char *text)
{
    (void)user;
    (void)level;
    snprintf(log_text + strlen(log_text), sizeof log_text - strlen(log_text), "%s\n", text);
}

// ---- text

START_TEST(test_levels)
{
    static const char text[] = "equil-tuning 1\n"
                               "before k=1 = 1   # any device\n"
                               "[device Fast Chip 9 gfx1100]\nkey = 5\n"
                               "[device Fast Chip]\nother = 9\n"
                               "[family GFX11]\nkey = 4\nfam = 4\n"
                               "[vendor fast chips]\nkey = 3\nfam = 3\nven = 3\n"
                               "[kind gpu]\nkey = 2\nfam = 2\nven = 2\nkind = 2\n"
                               "[kind cpu]\nkind = 7\nother = 9\n"
                               "[any]\nkey = 1\nfam = 1\nven = 1\nkind = 1\nany = 1 -2 3\n";
    struct eq_tuning *tuning;
    int value, values[3];
    EQ_TEST_OK(eq_tuning_create(&tuning));
    EQ_TEST_OK(eq_tuning_parse(tuning, "test", text, &here, NULL));
    static const struct {
        const char *key;
        int value;
    } want[] = { { "before k=1", 1 }, { "key", 5 }, { "fam", 4 }, { "ven", 3 }, { "kind", 2 } };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        ck_assert_msg(eq_tuning_find(tuning, want[i].key, &value, 1), "%s is not there", want[i].key);
        ck_assert_msg(value == want[i].value, "%s is %d, not %d", want[i].key, value, want[i].value);
    }
    ck_assert(eq_tuning_find(tuning, "any", values, 3));
    ck_assert(values[0] == 1 && values[1] == -2 && values[2] == 3);
    ck_assert(!eq_tuning_find(tuning, "any", values, 2)); // another number of values is another choice
    ck_assert(!eq_tuning_find(tuning, "other", values, 1));
    ck_assert(!eq_tuning_find(NULL, "any", values, 3));
    ck_assert_int_eq(eq_tuning_num(tuning), 6);
    eq_tuning_destroy(&tuning);
    ck_assert_ptr_null(tuning);
}
END_TEST

static const struct {
    const char *text, *part;
} broken[] = {
    { "", "empty" },
    { "\n# only a comment\n", "empty" },
    { "equil-tuning 2\nkey = 1\n", "test:1:" },
    { "key = 1\n", "test:1:" },
    { "equil-tuning 1\n\nkey 1\n", "test:3:" },
    { "equil-tuning 1\nkey = \n", "test:2:" },
    { "equil-tuning 1\nkey = one\n", "test:2:" },
    { "equil-tuning 1\nkey = 1x\n", "test:2:" },
    { "equil-tuning 1\nkey = 1.5\n", "test:2:" },
    { "equil-tuning 1\nkey = 99999999999\n", "test:2:" },
    { "equil-tuning 1\nkey = 1 2 3 4 5 6 7 8 9\n", "test:2:" },
    { "equil-tuning 1\n = 1\n", "test:2:" },
    { "equil-tuning 1\n9key = 1\n", "test:2:" },
    { "equil-tuning 1\nk\x01y = 1\n", "test:2:" },
    { "equil-tuning 1\n[kind gpu\nkey = 1\n", "test:2:" },
    { "equil-tuning 1\n[everyone]\nkey = 1\n", "test:2:" },
    { "equil-tuning 1\n[]\n", "test:2:" },
};

START_TEST(test_broken)
{
    struct eq_tuning *tuning;
    int value;
    EQ_TEST_OK(eq_tuning_create(&tuning));
    EQ_TEST_OK(eq_tuning_set(tuning, "kept", (const int[]){ 3 }, 1, ""));
    char *text = malloc(strlen(broken[_i].text) + 40);
    sprintf(text, "%s", broken[_i].text);
    ck_assert_msg(eq_tuning_parse(tuning, "test", text, &here, NULL) == EQ_ERR_FORMAT, "%s: not refused", text);
    ck_assert_msg(strstr(eq_last_error(), broken[_i].part) != NULL, "%s: the error is %s", text, eq_last_error());
    ck_assert_int_eq(eq_tuning_num(tuning), 1);
    ck_assert(eq_tuning_find(tuning, "kept", &value, 1) && value == 3);
    free(text);
    eq_tuning_destroy(&tuning);
}
END_TEST

// Every prefix and many damaged forms of a good file are read or refused, and never read beyond.
START_TEST(test_damaged)
{
    static const char good[] = "equil-tuning 1\ndevice: d\n[kind gpu]\nkey a=1 = 1 2  # note\n[any]\nb = 3\n";
    char text[sizeof good];
    for (size_t at = 0; at < sizeof good - 1; at++)
        for (int how = 0; how < 6; how++) {
            struct eq_tuning *tuning;
            memcpy(text, good, sizeof good);
            text[at] = "\0\n=[# "[how];
            EQ_TEST_OK(eq_tuning_create(&tuning));
            eq_status status = eq_tuning_parse(tuning, "test", text, &here, NULL);
            ck_assert(status == EQ_OK || status == EQ_ERR_FORMAT);
            ck_assert(status == EQ_OK || eq_tuning_num(tuning) == 0);
            eq_tuning_destroy(&tuning);
        }
}
END_TEST

START_TEST(test_file)
{
    struct eq_tuning *tuning, *back;
    struct eq_tuning_identity header;
    char *text, key[32], hash[2][20];
    size_t bytes;
    EQ_TEST_OK(eq_tuning_create(&tuning));
    EQ_TEST_OK(eq_tuning_create(&back));
    ck_assert_str_eq(eq_tuning_hash(tuning, hash[0]), "none");
    for (int i = 0; i < 200; i++) { // in no order
        snprintf(key, sizeof key, "kernel c=%d", i * 37 % 200);
        EQ_TEST_OK(eq_tuning_set(tuning, key, (const int[]){ i, -i }, 2, i % 3 ? "1.5 ms, default 2 ms" : ""));
    }
    EQ_TEST_OK(eq_tuning_set(tuning, "kernel c=7", (const int[]){ 1 }, 1, "again"));
    ck_assert_int_eq(eq_tuning_num(tuning), 200);
    EQ_TEST_OK(eq_tuning_save(tuning, path_of("file.txt"), &here, "# a test\n"));
    EQ_TEST_OK(eq_file_read(path_of("file.txt"), 1 << 20, &text, &bytes));
    EQ_TEST_OK(eq_tuning_parse(back, "file", text, &here, &header));
    free(text);
    ck_assert_str_eq(header.device, here.device);
    ck_assert_str_eq(header.driver, here.driver);
    ck_assert_str_eq(header.platform, here.platform);
    ck_assert_str_eq(header.library, here.library);
    ck_assert_int_eq(eq_tuning_num(back), 200);
    for (int i = 0; i < 200; i++)
        ck_assert_mem_eq(eq_tuning_at(tuning, i), eq_tuning_at(back, i), sizeof(struct eq_tuning_entry));
    ck_assert_str_eq(eq_tuning_hash(tuning, hash[0]), eq_tuning_hash(back, hash[1]));
    eq_tuning_remove(back, "kernel c=100");
    eq_tuning_remove(back, "not there");
    ck_assert_int_eq(eq_tuning_num(back), 199);
    ck_assert_str_ne(hash[0], eq_tuning_hash(back, hash[1]));
    // A driver may have no text; and what a file says of itself is not what the one before it said.
    ck_assert(!header.has_sections);
    const struct eq_tuning_identity silent = { .device = "Fast Chip" };
    EQ_TEST_OK(eq_tuning_save(tuning, path_of("file.txt"), &silent, ""));
    EQ_TEST_OK(eq_file_read(path_of("file.txt"), 1 << 20, &text, &bytes));
    EQ_TEST_OK(eq_tuning_parse(back, "file", text, &here, &header));
    free(text);
    ck_assert_str_eq(header.device, "Fast Chip");
    ck_assert_str_eq(header.driver, "");
    EQ_TEST_OK(eq_tuning_parse(back, "file", "equil-tuning 1\n[family Other]\na = 1\n", &here, &header));
    ck_assert(header.has_sections);
    ck_assert_str_eq(header.device, "");
    static const char *const bad_keys[] = { "", "a\nb", "a = b", "a # b", "1a", "device: x", "device:x", "ends " };
    for (size_t i = 0; i < sizeof bad_keys / sizeof *bad_keys; i++)
        ck_assert_int_eq(eq_tuning_set(back, bad_keys[i], (const int[]){ 1 }, 1, ""), EQ_ERR_ARGUMENT);
    eq_tuning_destroy(&tuning);
    eq_tuning_destroy(&back);
}
END_TEST

// What editors make of a file, and people write into it.
START_TEST(test_edited)
{
    static const char text[] = "equil-tuning 1\r\n\tkey a=1\t=\t7  1\t# schnell gen\303\274gt\tja\r\n";
    struct eq_tuning *tuning, *back;
    int values[2];
    char *saved;
    size_t bytes;
    EQ_TEST_OK(eq_tuning_create(&tuning));
    EQ_TEST_OK(eq_tuning_create(&back));
    EQ_TEST_OK(eq_tuning_parse(tuning, "edited", text, &here, NULL));
    ck_assert(eq_tuning_find(tuning, "key a=1", values, 2) && values[0] == 7 && values[1] == 1);
    ck_assert_str_eq(eq_tuning_at(tuning, 0)->note, "schnell gen\303\274gt ja");
    EQ_TEST_OK(eq_tuning_save(tuning, path_of("file.txt"), &here, ""));
    EQ_TEST_OK(eq_file_read(path_of("file.txt"), 1 << 20, &saved, &bytes));
    EQ_TEST_OK(eq_tuning_parse(back, "file", saved, &here, NULL));
    free(saved);
    ck_assert_mem_eq(eq_tuning_at(tuning, 0), eq_tuning_at(back, 0), sizeof(struct eq_tuning_entry));
    ck_assert_int_eq(eq_tuning_set(back, "key", values, 2, "two\nlines"), EQ_ERR_ARGUMENT);
    eq_tuning_destroy(&tuning);
    eq_tuning_destroy(&back);
}
END_TEST

static bool is_even(const int *values, const void *user)
{
    return values[0] % 2 == 0 && values[0] <= *(const int *)user;
}

// Values of a file are never trusted.
START_TEST(test_choose)
{
    struct eq_tuning *tuning;
    int value = 77;
    const int limit = 8;
    EQ_TEST_OK(eq_tuning_create(&tuning));
    EQ_TEST_OK(eq_tuning_set(tuning, "good", (const int[]){ 8 }, 1, ""));
    EQ_TEST_OK(eq_tuning_set(tuning, "odd", (const int[]){ 3 }, 1, ""));
    EQ_TEST_OK(eq_tuning_set(tuning, "two", (const int[]){ 2, 2 }, 2, ""));
    log_text[0] = '\0';
    eq_log_set(keep_log, NULL, EQ_LOG_WARNING);
    ck_assert(!eq_tuning_choose(tuning, "odd", &value, 1, is_even, &limit));
    ck_assert(!eq_tuning_choose(tuning, "odd", &value, 1, is_even, &limit));
    ck_assert(!eq_tuning_choose(tuning, "absent", &value, 1, is_even, &limit));
    ck_assert_int_eq(value, 77);
    ck_assert_str_eq(log_text, "the tuning has 'odd = 3', which cannot be: the default is taken\n"); // once
    ck_assert(!eq_tuning_choose(tuning, "two", &value, 1, is_even, &limit));
    ck_assert_ptr_nonnull(strstr(log_text, "'two = 2 2'"));
    eq_log_set(NULL, NULL, EQ_LOG_WARNING);
    ck_assert(eq_tuning_choose(tuning, "good", &value, 1, is_even, &limit));
    ck_assert_int_eq(value, 8);
    eq_tuning_destroy(&tuning);
}
END_TEST

// ---- devices

static const char good_file[] = "equil-tuning 1\nsome kernel = 1 2\n";

START_TEST(test_device)
{
    struct eq_device *device;
    int values[2];
    char hash[20];
    setenv("EQUIL_CACHE_DIR", folder, 1);
    unsetenv("EQUIL_TUNING");
    char *path = eq_device_tuning_file(eq_test_device);
    ck_assert_ptr_nonnull(path);
    ck_assert_msg(strncmp(path, folder, strlen(folder)) == 0, "%s", path);
    EQ_TEST_OK(eq_dir_make(path_of("tuning")));

    EQ_TEST_OK(eq_device_open(NULL, &device)); // no file: the library's own
    ck_assert(!eq_tuning_find(device->target.tuning, "some kernel", values, 2));
    ck_assert_str_eq(device->shipped_tuning, eq_tuning_hash(device->tuning, hash));
    eq_device_destroy(&device);

    write_text(path, good_file);
    EQ_TEST_OK(eq_device_open(NULL, &device));
    ck_assert(eq_tuning_find(device->target.tuning, "some kernel", values, 2) && values[1] == 2);
    ck_assert_ptr_nonnull(strstr(eq_device_tuning_text(device), path));
    ck_assert_str_ne(device->shipped_tuning, eq_tuning_hash(device->tuning, hash));
    eq_device_destroy(&device);

    setenv("EQUIL_TUNING", "0", 1); // none at all
    EQ_TEST_OK(eq_device_open(NULL, &device));
    ck_assert_int_eq(eq_tuning_num(device->target.tuning), 0);
    ck_assert_str_eq(eq_device_tuning_text(device), "none");
    ck_assert_str_eq(device->shipped_tuning, "");
    eq_device_destroy(&device);

    write_text(path, "equil-tuning 1\nnonsense\n"); // the device's own: a warning
    unsetenv("EQUIL_TUNING");
    log_text[0] = '\0';
    eq_log_set(keep_log, NULL, EQ_LOG_WARNING);
    EQ_TEST_OK(eq_device_open(NULL, &device));
    eq_log_set(NULL, NULL, EQ_LOG_WARNING);
    ck_assert_ptr_nonnull(strstr(log_text, "nonsense"));
    ck_assert_ptr_null(device->tuning_path);
    eq_device_destroy(&device);

    setenv("EQUIL_TUNING", path, 1); // named by the user: an error
    ck_assert_int_eq(eq_device_open(NULL, &device), EQ_ERR_FORMAT);
    ck_assert_ptr_null(device);
    const char *named = strstr(eq_last_error(), path);
    ck_assert_msg(strncmp(eq_last_error(), "EQUIL_TUNING: ", 14) == 0 && named && strncmp(named + strlen(path), ":2:", 3) == 0,
                  "%s", eq_last_error());
    setenv("EQUIL_TUNING", path_of("not there"), 1);
    ck_assert_int_eq(eq_device_open(NULL, &device), EQ_ERR_IO);
    unsetenv("EQUIL_TUNING");
    unlink(path);
    free(path);
}
END_TEST

int main(void)
{
    snprintf(folder, sizeof folder, "/tmp/equil-tune-%ld", (long)getpid());
    mkdir(folder, 0777);
    const struct eq_test_entry entries[] = {
        { test_levels, 0 }, { test_broken, sizeof broken / sizeof *broken },
        { test_damaged, 0 }, { test_file, 0 }, { test_edited, 0 },
        { test_choose, 0 }, { test_device, 0 },
    };
    const int code = eq_test_main("tune", entries, sizeof entries / sizeof *entries);
    unlink(path_of("file.txt"));
    rmdir(path_of("tuning"));
    rmdir(folder);
    return code;
}

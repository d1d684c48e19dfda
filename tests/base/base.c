// The base layer: error text, random numbers against published values, atomic writes that fail.
#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "support.h"

static char folder[] = "/tmp/equil-base-XXXXXX";

START_TEST(cache_folder)
{
    static const struct {
        const char *own, *xdg, *home, *folder; // NULL: not set; no folder
    } cases[] = {
        { "own", "/xdg", "/home/me", "own" },
        { NULL, "/xdg", "/home/me", "/xdg/equil" },
        { "", "", "/home/me", "/home/me/.cache/equil" },
        { NULL, "relative", "/home/me", "/home/me/.cache/equil" }, // to be ignored
        { NULL, "relative", NULL, NULL },
        { NULL, NULL, "", NULL },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const names[] = { "EQUIL_CACHE_DIR", "XDG_CACHE_HOME", "HOME" };
        const char *const values[] = { cases[i].own, cases[i].xdg, cases[i].home };
        for (int v = 0; v < 3; v++)
            if (!(values[v] ? setenv(names[v], values[v], 1) == 0 : unsetenv(names[v]) == 0))
                ck_abort();
        char *path = eq_cache_folder();
        ck_assert_int_eq(eq_has_cache_folder(), cases[i].folder != NULL);
        ck_assert_pstr_eq(path, cases[i].folder);
        free(path);
    }
}
END_TEST

START_TEST(error_text)
{
    ck_assert_int_eq(eq_fail(EQ_ERR_SHAPE, "%d by %d", 3, 4), EQ_ERR_SHAPE);
    ck_assert_str_eq(eq_last_error(), "3 by 4");
    eq_fail(EQ_ERR_SHAPE, "outer: %s", eq_last_error());
    ck_assert_str_eq(eq_last_error(), "outer: 3 by 4");
    ck_assert_str_eq(eq_status_name(EQ_ERR_NUMERIC), "EQ_ERR_NUMERIC");
    ck_assert_str_eq(eq_status_name((eq_status)99), "unknown status");
}
END_TEST

static void *other_thread(void *text)
{
    strcpy(text, eq_last_error());
    eq_fail(EQ_ERR_IO, "of the other thread");
    return NULL;
}

START_TEST(error_text_per_thread)
{
    char seen[64] = "?";
    pthread_t thread;
    eq_fail(EQ_ERR_IO, "of this thread");
    ck_assert_int_eq(pthread_create(&thread, NULL, other_thread, seen), 0);
    pthread_join(thread, NULL);
    ck_assert_str_eq(seen, "");
    ck_assert_str_eq(eq_last_error(), "of this thread");
}
END_TEST

START_TEST(random_numbers)
{
    // The first outputs of splitmix64 with state 0, and FNV-1a's published vectors.
    ck_assert_uint_eq(eq_random_bits(0, 0), 0xe220a8397b1dcdafull);
    ck_assert_uint_eq(eq_random_bits(0, 1), 0x6e789e6aa1b965f4ull);
    ck_assert_uint_eq(eq_fnv1a("", 0, EQ_FNV_START), 0xcbf29ce484222325ull);
    ck_assert_uint_eq(eq_fnv1a("foobar", 6, EQ_FNV_START), 0x85944171f73967e8ull);
    double sum = 0, squares = 0;
    enum { NUM = 100000 };
    uint64_t key = eq_random_key(1, 2, 3, "test");
    ck_assert_uint_ne(key, eq_random_key(1, 2, 3, "other"));
    ck_assert_uint_ne(key, eq_random_key(1, 3, 2, "test"));
    for (int i = 0; i < NUM; i++) {
        double x = eq_random_normal(key, (uint64_t)i), u = eq_random_unit(key, (uint64_t)i);
        ck_assert(u >= 0 && u < 1);
        sum += x;
        squares += x * x;
    }
    // Five standard deviations of the mean and of the variance of NUM normal numbers.
    ck_assert_msg(sum / NUM < 5 / 316.0 && sum / NUM > -5 / 316.0, "mean %g", sum / NUM);
    ck_assert_msg(squares / NUM - 1 < 5 * 1.414 / 316 && squares / NUM - 1 > -5 * 1.414 / 316, "variance %g", squares / NUM);
}
END_TEST

START_TEST(permutation)
{
    enum { NUM = 1000 };
    size_t order[NUM];
    bool seen[NUM] = { false };
    int num_fixed = 0;
    eq_random_permutation(7, order, NUM);
    for (size_t i = 0; i < NUM; i++) {
        ck_assert_uint_lt(order[i], NUM);
        ck_assert(!seen[order[i]]);
        seen[order[i]] = true;
        num_fixed += order[i] == i;
    }
    ck_assert_int_lt(num_fixed, 10); // one is expected
}
END_TEST

static void check_contents(const char *path, const char *want)
{
    char *data;
    size_t bytes;
    EQ_TEST_OK(eq_file_read(path, 1000, &data, &bytes));
    ck_assert_str_eq(data, want);
    free(data);
}

static void check_alone(const char *name)
{
    char **names;
    size_t num;
    EQ_TEST_OK(eq_dir_list(folder, &names, &num));
    ck_assert_uint_eq(num, 1);
    ck_assert_str_eq(names[0], name);
    eq_names_free(names, num);
}

START_TEST(atomic_write)
{
    struct eq_writer writer;
    char *path = eq_path_join(folder, "file");
    EQ_TEST_OK(eq_writer_open(&writer, path));
    EQ_TEST_OK(eq_writer_write(&writer, "old", 3));
    EQ_TEST_OK(eq_writer_commit(&writer));
    check_contents(path, "old");
    EQ_TEST_OK(eq_writer_open(&writer, path));
    EQ_TEST_OK(eq_writer_write(&writer, "half a fi", 9));
    eq_writer_abort(&writer);
    check_contents(path, "old");
    check_alone("file");
    // What was for its owner alone stays so; nobody writes over what is not theirs to write.
    struct stat info;
    ck_assert_int_eq(chmod(path, 0600), 0);
    EQ_TEST_OK(eq_writer_open(&writer, path));
    EQ_TEST_OK(eq_writer_write(&writer, "old", 3));
    EQ_TEST_OK(eq_writer_commit(&writer));
    ck_assert(stat(path, &info) == 0 && (info.st_mode & 07777) == 0600);
    ck_assert_int_eq(chmod(path, 0400), 0);
    if (access(path, W_OK) != 0) { // not root
        ck_assert_int_eq(eq_writer_open(&writer, path), EQ_ERR_IO);
        check_alone("file");
    }
    ck_assert_int_eq(chmod(path, 0644), 0);
    check_contents(path, "old");
    // A file size limit stands for a full disk: the write fails, the old file stays, nothing else is left.
    struct rlimit limit, small = { 4096, RLIM_INFINITY };
    static char big[1 << 16];
    getrlimit(RLIMIT_FSIZE, &limit);
    small.rlim_max = limit.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    EQ_TEST_OK(eq_writer_open(&writer, path));
    eq_status status = eq_writer_write(&writer, big, sizeof big);
    if (status == EQ_OK)
        status = eq_writer_commit(&writer);
    setrlimit(RLIMIT_FSIZE, &limit);
    ck_assert_int_eq(status, EQ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), path));
    check_contents(path, "old");
    check_alone("file");
    unlink(path);
    free(path);
}
END_TEST

// Links stay and lead to the new file, whether there was one or not; other folders' links begin there.
START_TEST(write_through_links)
{
    static const struct {
        const char *name, *target;
    } links[] = { { "relative", "sub/file" }, { "sub/up", "../file" }, { "chain", "relative" }, { "missing", "sub/none" } };
    static const char *const targets[] = { "sub/file", "file", "sub/file", "sub/none" };
    char *sub = eq_path_join(folder, "sub");
    EQ_TEST_OK(eq_dir_make(sub));
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        char *path = eq_path_join(folder, links[i].name), *target = eq_path_join(folder, targets[i]);
        struct stat info;
        ck_assert_int_eq(symlink(links[i].target, path), 0);
        EQ_TEST_OK(eq_file_write(path, links[i].name, strlen(links[i].name)));
        ck_assert(lstat(path, &info) == 0 && S_ISLNK(info.st_mode));
        ck_assert(lstat(target, &info) == 0 && S_ISREG(info.st_mode));
        check_contents(target, links[i].name);
        free(path);
        free(target);
    }
    char *absolute = eq_path_join(folder, "absolute"), *file = eq_path_join(sub, "file"), *loop = eq_path_join(folder, "loop");
    ck_assert_int_eq(symlink(file, absolute), 0);
    EQ_TEST_OK(eq_file_write(absolute, "again", 5));
    check_contents(file, "again");
    ck_assert_int_eq(symlink("loop", loop), 0);
    ck_assert_int_eq(eq_file_write(loop, "x", 1), EQ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), loop));
    ck_assert_int_eq(eq_file_write(sub, "x", 1), EQ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "Is a directory"));
    static const char *const names[] = { "relative", "sub/up",   "chain",    "missing", "absolute",
                                         "loop",     "sub/file", "sub/none", "file" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *path = eq_path_join(folder, names[i]);
        ck_assert_int_eq(unlink(path), 0);
        free(path);
    }
    ck_assert_int_eq(rmdir(sub), 0); // nothing else was left there
    free(absolute);
    free(file);
    free(loop);
    free(sub);
}
END_TEST

// Neither becomes a file. The device swallows everything, like /dev/null; it takes the right to make one.
START_TEST(write_to_pipes_and_devices)
{
    char *pipe_path = eq_path_join(folder, "pipe"), *node = eq_path_join(folder, "node"), got[8] = "";
    struct stat info;
    ck_assert_int_eq(mkfifo(pipe_path, 0600), 0);
    const int reader = open(pipe_path, O_RDONLY | O_NONBLOCK);
    ck_assert_int_ge(reader, 0);
    EQ_TEST_OK(eq_file_write(pipe_path, "through", 7));
    ck_assert_int_eq(read(reader, got, sizeof got), 7);
    ck_assert_str_eq(got, "through");
    close(reader);
    ck_assert(lstat(pipe_path, &info) == 0 && S_ISFIFO(info.st_mode));
    check_alone("pipe");
    unlink(pipe_path);
    if (mknod(node, S_IFCHR | 0600, makedev(1, 3)) == 0 && access(node, W_OK) == 0) {
        const eq_status status = eq_file_write(node, "gone", 4);
        ck_assert_msg(status == EQ_OK || strstr(eq_last_error(), "Permission denied"), "%s", eq_last_error()); // or nodev
        ck_assert(lstat(node, &info) == 0 && S_ISCHR(info.st_mode));
        check_alone("node");
    }
    unlink(node);
    free(pipe_path);
    free(node);
}
END_TEST

START_TEST(file_errors)
{
    char *data, *path = eq_path_join(folder, "no/such/file");
    size_t bytes;
    struct eq_writer writer;
    ck_assert_int_eq(eq_file_read(path, 10, &data, &bytes), EQ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), path));
    ck_assert_int_eq(eq_writer_open(&writer, path), EQ_ERR_IO);
    ck_assert_int_eq(eq_file_read(folder, 10, &data, &bytes), EQ_ERR_IO);
    ck_assert_int_eq(eq_file_read("/proc/uptime", 10, &data, &bytes), EQ_OK); // says size 0: reads nothing, no crash
    free(data);
    free(path);
    path = eq_path_join(folder, "long");
    EQ_TEST_OK(eq_writer_open(&writer, path));
    EQ_TEST_OK(eq_writer_write(&writer, "0123456789", 10));
    EQ_TEST_OK(eq_writer_commit(&writer));
    ck_assert_int_eq(eq_file_read(path, 9, &data, &bytes), EQ_ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "10 bytes"));
    char *below = eq_path_join(path, "below");
    ck_assert_int_eq(eq_dir_make(below), EQ_ERR_IO);
    unlink(path);
    free(below);
    free(path);
}
END_TEST

START_TEST(growing_text)
{
    struct eq_str text = { 0 };
    for (int i = 0; i < 1000; i++)
        eq_str_append(&text, "%d,", i % 10);
    ck_assert_uint_eq(text.length, 2000);
    ck_assert_uint_eq(strlen(text.text), 2000);
    ck_assert(eq_str_starts(text.text, "0,1,2,") && eq_str_ends(text.text, "8,9,"));
    ck_assert(!eq_str_ends("9,", "8,9,"));
    eq_str_free(&text);
}
END_TEST

START_TEST(text_of_names)
{
    static const char *const names[] = { "conv2d_fused", "conv2d", "unit", "conv2d", "conv2d_fused", "unit_grad", "nit" };
    struct eq_str text = { 0 };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        eq_str_append_name(&text, names[i]);
    ck_assert_str_eq(text.text, "conv2d_fused, conv2d, unit, unit_grad, nit");
    eq_str_free(&text);
}
END_TEST

static const struct {
    const char *local, *point, *plain;
} numbers[] = {
    { "0,49", ",", "0.49" },           { "-1,5e-07", ",", "-1.5e-07" },           { "0.49", ".", "0.49" },
    { "12", ",", "12" },               { "1e+30", ",", "1e+30" },                 { "0\331\25349", "\331\253", "0.49" },
    { "-0''5e+10", "''", "-0.5e+10" }, { "1,7976931348623157e+308", ",", "1.7976931348623157e+308" },
};

START_TEST(utf8)
{
    static const struct {
        const char *text;
        int bytes;
    } characters[] = {
        { "a", 1 },        { "\303\251", 2 },          { "\342\202\254", 3 },     { "\360\237\230\200", 4 }, { "\303", 0 },
        { "\251", 0 },     { "\300\257", 0 },          { "\355\240\200", 0 },     { "\364\220\200\200", 0 }, { "\377", 0 },
        { "\342\202", 0 }, { "\340\200\200\200", 0 }, { "\360\200\200\200", 0 }, { "\303a", 0 },
    };
    for (size_t i = 0; i < sizeof characters / sizeof *characters; i++)
        ck_assert_int_eq(eq_utf8_bytes(characters[i].text), characters[i].bytes);
}
END_TEST

START_TEST(numbers_of_locales)
{
    char text[EQ_NUMBER_BYTES];
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        strcpy(text, numbers[i].local);
        eq_number_from_local(text);
        ck_assert_str_eq(text, numbers[i].plain);
        ck_assert(eq_number_to_local(numbers[i].plain, numbers[i].point, text));
        ck_assert_str_eq(text, numbers[i].local);
    }
    static const char *const untouched[] = { "inf", "-inf", "nan", "-nan" };
    for (size_t i = 0; i < sizeof untouched / sizeof *untouched; i++) {
        strcpy(text, untouched[i]);
        eq_number_from_local(text);
        ck_assert_str_eq(text, untouched[i]);
    }
    char longest[EQ_NUMBER_BYTES + 1];
    memset(longest, '1', EQ_NUMBER_BYTES);
    longest[EQ_NUMBER_BYTES] = '\0';
    ck_assert(!eq_number_to_local(longest, ".", text) && !eq_number_to_local("0,49", ",", text));
}
END_TEST

START_TEST(numbers_as_texts)
{
    const double values[] = { 0, 0.1, 1.0 / 3, 1e-4, 5e-324, 1e30, 12345678.9, -1.5, 1.7976931348623157e308 };
    static const char *const refused[] = { "", " 1", "1 ", "0,49", "1.2.3", "0x10", "nan", "inf", "1e", "-", "." };
    char text[40];
    double value;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        ck_assert(eq_number_read(eq_number_text(text, values[i]), &value));
        ck_assert_double_eq(value, values[i]);
    }
    ck_assert_str_eq(eq_number_text(text, 0.1), "0.1");
    ck_assert_str_eq(eq_number_text(text, 1e-4), "0.0001");
    ck_assert_str_eq(eq_number_digits(text, 3, 2.0 / 3), "0.667");
    value = 7;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        ck_assert_msg(!eq_number_read(refused[i], &value) && value == 7, "\"%s\" is %g", refused[i], value);
}
END_TEST

int main(void)
{
    if (!mkdtemp(folder))
        return EXIT_FAILURE;
    const TTest *const tests[] = {
        error_text, error_text_per_thread, random_numbers, permutation, atomic_write, write_through_links,
        write_to_pipes_and_devices, file_errors, growing_text, text_of_names, cache_folder,
        utf8, numbers_of_locales, numbers_as_texts,
    };
    Suite *suite = suite_create("base");
    TCase *tcase = tcase_create("base");
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_set_tap(runner, "-");
    srunner_run_all(runner, CK_SILENT);
    int num_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    rmdir(folder);
    return num_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

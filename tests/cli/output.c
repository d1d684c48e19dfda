// Texts of numbers, JSON into files, and the progress line where there is no terminal.
#define _XOPEN_SOURCE 700 // pseudo terminals
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/output.h"

START_TEST(bytes)
{
    static const struct {
        size_t bytes;
        const char *text;
    } cases[] = {
        { 0, "0 bytes" },
        { 1023, "1023 bytes" },
        { 1024, "1.0 KiB" },
        { 1536, "1.5 KiB" },
        { 100 * 1024, "100 KiB" },
        { 1 << 20, "1.0 MiB" },
        { (size_t)5 << 30, "5.0 GiB" },
        { (size_t)3000 << 40, "3000 TiB" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[32];
        ck_assert_str_eq(format_bytes(text, cases[i].bytes), cases[i].text);
    }
}
END_TEST

START_TEST(seconds)
{
    static const struct {
        double seconds;
        const char *text;
    } cases[] = { { 0, "0:00" }, { 59.4, "0:59" }, { 59.6, "1:00" }, { 3599, "59:59" }, { 3723, "1:02:03" }, { -1, "0:00" } };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[32];
        ck_assert_str_eq(format_seconds(text, cases[i].seconds), cases[i].text);
    }
}
END_TEST

START_TEST(json_texts)
{
    static const struct {
        const char *text, *want;
    } cases[] = {
        { "", "" },
        { "caf\303\251 \360\237\220\210", "caf\303\251 \360\237\220\210" },
        { "\377", "\357\277\275" },
        { "caf\351.png", "caf\357\277\275.png" },
        { "\303\251\303", "\303\251\357\277\275" },
        { "\377\376a", "\357\277\275\357\277\275a" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *json = json_text(cases[i].text);
        ck_assert_str_eq(json_string_value(json), cases[i].want);
        json_decref(json);
    }
}
END_TEST

START_TEST(json_numbers)
{
    static const struct {
        double value;
        const char *text; // NULL: a number
    } cases[] = { { 0.25, NULL }, { NAN, "nan" }, { INFINITY, "inf" }, { -INFINITY, "-inf" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *json = json_number(cases[i].value);
        ck_assert_pstr_eq(json_string_value(json), cases[i].text);
        ck_assert(cases[i].text || json_real_value(json) == cases[i].value);
        json_decref(json);
    }
}
END_TEST

START_TEST(json_into_a_file)
{
    char path[] = "/tmp/equil-output-XXXXXX";
    int descriptor = mkstemp(path);
    ck_assert_int_ge(descriptor, 0);
    close(descriptor);
    ck_assert_int_eq(json_write(json_pack("{s:i, s:f}", "b", 1, "a", 0.1), path), 0);
    json_t *read = json_load_file(path, 0, NULL);
    ck_assert(read && json_integer_value(json_object_get(read, "b")) == 1);
    ck_assert(json_real_value(json_object_get(read, "a")) == 0.1);
    json_decref(read);
    remove(path);
}
END_TEST

// Runs with stderr in a file; returns its text.
static const char *stderr_of(void (*run)(void))
{
    static char text[1024];
    fflush(NULL);
    FILE *file = tmpfile();
    int kept = dup(STDERR_FILENO);
    ck_assert(file && kept >= 0 && dup2(fileno(file), STDERR_FILENO) >= 0);
    run();
    fflush(NULL);
    dup2(kept, STDERR_FILENO);
    close(kept);
    rewind(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return text;
}

static void write_nowhere(void)
{
    ck_assert_int_eq(json_write(json_object(), "/nonexistent-folder/file.json"), 1);
    ck_assert_int_eq(json_write(NULL, "-"), 1);
}

START_TEST(json_that_cannot_be_written)
{
    ck_assert_str_eq(stderr_of(write_nowhere), "equil: /nonexistent-folder/file.json: cannot write: No such file or directory\n"
                                               "equil: no memory for the JSON text\n");
}
END_TEST

static void ask_nowhere(void)
{
    ck_assert(!can_write("/nonexistent-folder/file.json") && !can_write("/tmp"));
}

START_TEST(places_to_write)
{
    char folder[] = "/tmp/equil-output-XXXXXX", path[64];
    ck_assert(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/file", folder);
    ck_assert(can_write(path) && can_write("-") && can_write("/dev/null"));
    ck_assert_int_eq(rmdir(folder), 0); // nothing was left there
    ck_assert_str_eq(stderr_of(ask_nowhere), "equil: /nonexistent-folder/file.json: cannot write: No such file or directory\n"
                                             "equil: /tmp: cannot write: Is a directory\n");
}
END_TEST

static void show_progress(void)
{
    progress_line(true, "epoch %d", 1);
    progress_line(false, "too soon after the last one");
    progress_line(true, "epoch %d", 2);
    message("done");
}

START_TEST(progress_without_a_terminal)
{
    ck_assert_str_eq(stderr_of(show_progress), "epoch 1\nepoch 2\nequil: done\n");
}
END_TEST

// What `run` prints to a terminal of 20 columns.
static const char *terminal_of(void (*run)(void))
{
    static char text[1024];
    const struct winsize size = { .ws_row = 24, .ws_col = 20 };
    int terminal = posix_openpt(O_RDWR | O_NOCTTY), kept = dup(STDERR_FILENO);
    ck_assert(terminal >= 0 && kept >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
    int end = open(ptsname(terminal), O_RDWR | O_NOCTTY);
    ck_assert(end >= 0 && ioctl(end, TIOCSWINSZ, &size) == 0);
    fflush(NULL);
    ck_assert(dup2(end, STDERR_FILENO) >= 0);
    run();
    fflush(NULL);
    dup2(kept, STDERR_FILENO);
    size_t bytes = 0; // a terminal hands on what it has in pieces: up to a mark behind it
    ck_assert(write(end, "\x1e", 1) == 1);
    while (!memchr(text, '\x1e', bytes)) {
        const ssize_t more = read(terminal, text + bytes, sizeof text - bytes);
        ck_assert(more > 0);
        bytes += (size_t)more;
    }
    *(char *)memchr(text, '\x1e', bytes) = '\0';
    close(kept);
    close(end);
    close(terminal);
    return text;
}

static void show_long_progress(void)
{
    progress_line(false, "1/2  layer1.0.conv1  candidate 1 of 9");
    progress_line(false, "a line that fits");
    progress_clear();
    progress_clear();
    message("done");
}

START_TEST(progress_on_a_terminal)
{
    ck_assert_str_eq(terminal_of(show_long_progress),
                     "\r\033[K1/2  layer1.0.conv1\r\033[Ka line that fits\r\033[Kequil: done\r\n");
}
END_TEST

static void name_strangers(void)
{
    put_text(stderr, "\033[31m\001\tcaf\303\251 \302\233\177\n");
    message("%s", "a\rb");
}

START_TEST(texts_of_strangers)
{
    ck_assert_str_eq(stderr_of(name_strangers), "\033[31m\001\tcaf\303\251 \302\233\177\nequil: a\rb\n");
    ck_assert_str_eq(terminal_of(name_strangers), "?[31m?\tcaf\303\251 ??\r\nequil: a?b\r\n");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("output");
    TCase *tcase = tcase_create("output");
    tcase_add_test(tcase, bytes);
    tcase_add_test(tcase, seconds);
    tcase_add_test(tcase, json_texts);
    tcase_add_test(tcase, json_numbers);
    tcase_add_test(tcase, json_into_a_file);
    tcase_add_test(tcase, json_that_cannot_be_written);
    tcase_add_test(tcase, places_to_write);
    tcase_add_test(tcase, progress_without_a_terminal);
    tcase_add_test(tcase, progress_on_a_terminal);
    tcase_add_test(tcase, texts_of_strangers);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_set_tap(runner, "-");
    srunner_run_all(runner, CK_SILENT);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

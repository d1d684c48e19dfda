// The option parser: every kind of value, ranges, mistakes and the help text.
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/args.h"

static struct {
    bool fast;
    int epochs;
    int64_t seed;
    double rate;
    const char *data, *schedule;
    bool epochs_given;
} values;

static const struct arg_option options[] = {
    { .name = "fast", .kind = ARG_FLAG, .value = &values.fast, .help = "a flag" },
    { .name = "epochs", .kind = ARG_INT, .value = &values.epochs, .fallback = "30", .min = 1, .max = 100, .help = "passes",
      .is_given = &values.epochs_given },
    { .name = "seed", .kind = ARG_INT64, .value = &values.seed, .fallback = "7", .help = "seed" },
    { .name = "rate", .kind = ARG_FLOAT, .value = &values.rate, .fallback = "0.5", .max = 1, .help = "learning rate" },
    { .name = "data", .kind = ARG_STRING, .value = &values.data, .metavar = "DIR", .is_required = true, .help = "images" },
    { .name = "schedule", .kind = ARG_CHOICE, .value = &values.schedule, .fallback = "cosine", .choices = "step|cosine",
      .help = "rate" },
    { 0 },
};
static const struct arg_spec spec = {
    .command = "test", .summary = "Tests.", .positional = "FILE...", .max_positional = 2, .options = options, .notes = "Notes.",
};

enum { NUM_TEXT = 4096 };
static char captured[NUM_TEXT];

// Parses the words (NULL at the end) and leaves in `captured` what went to the given descriptor.
static enum args_outcome parse(struct arg_result *result, int descriptor, char **words)
{
    static char *argv[16];
    int argc = 0;
    argv[argc++] = "test";
    for (; words[argc - 1]; argc++)
        argv[argc] = words[argc - 1];

    fflush(NULL);
    FILE *file = tmpfile();
    int kept = dup(descriptor);
    ck_assert(file && kept >= 0 && dup2(fileno(file), descriptor) >= 0);
    enum args_outcome outcome = args_parse(&spec, argc, argv, result);
    fflush(NULL);
    dup2(kept, descriptor);
    close(kept);
    rewind(file);
    size_t length = fread(captured, 1, NUM_TEXT - 1, file);
    captured[length] = '\0';
    fclose(file);
    return outcome;
}
#define PARSE(result, descriptor, ...) parse(result, descriptor, (char *[]){ __VA_ARGS__, NULL })

START_TEST(defaults)
{
    struct arg_result result;
    ck_assert_int_eq(PARSE(&result, STDERR_FILENO, "--data", "x"), ARGS_RUN);
    ck_assert(!values.fast && !values.epochs_given);
    ck_assert_int_eq(values.epochs, 30);
    ck_assert_int_eq(values.seed, 7);
    ck_assert(values.rate == 0.5);
    ck_assert_str_eq(values.data, "x");
    ck_assert_str_eq(values.schedule, "cosine");
    ck_assert_int_eq(result.num_positional, 0);
    ck_assert_str_eq(captured, "");
}
END_TEST

START_TEST(both_spellings_in_any_order)
{
    struct arg_result result;
    ck_assert_int_eq(PARSE(&result, STDERR_FILENO, "a", "--data=d=e", "--epochs", "100", "--fast", "b", "--rate=1e-3",
                           "--schedule", "step", "--seed", "-9007199254740993", "--epochs=99"), ARGS_RUN);
    ck_assert(values.fast && values.epochs_given);
    ck_assert_int_eq(values.epochs, 99);
    ck_assert(values.seed == -9007199254740993);
    ck_assert(values.rate == 1e-3);
    ck_assert_str_eq(values.data, "d=e");
    ck_assert_str_eq(values.schedule, "step");
    ck_assert_int_eq(result.num_positional, 2);
    ck_assert_str_eq(result.positional[0], "a");
    ck_assert_str_eq(result.positional[1], "b");
}
END_TEST

START_TEST(two_dashes_end_options)
{
    struct arg_result result;
    ck_assert_int_eq(PARSE(&result, STDERR_FILENO, "--data", "x", "--", "--fast", "-"), ARGS_RUN);
    ck_assert(!values.fast);
    ck_assert_int_eq(result.num_positional, 2);
    ck_assert_str_eq(result.positional[0], "--fast");
}
END_TEST

static const struct {
    char *words[4];
    const char *says;
} mistakes[] = {
    { { "--epoch", "3" }, "unknown option --epoch; did you mean --epochs?" },
    { { "--nothing" }, "unknown option --nothing\n" },
    { { "-x" }, "unknown option -x" },
    { { "--epochs", "0" }, "--epochs is \"0\": a whole number from 1 to 100 is needed" },
    { { "--epochs", "101" }, "from 1 to 100" },
    { { "--epochs", "3x" }, "--epochs is \"3x\"" },
    { { "--epochs", "" }, "--epochs is \"\"" },
    { { "--epochs=99999999999999999999" }, "--epochs is \"99999999999999999999\"" },
    { { "--seed", "1.5" }, "--seed is \"1.5\": a whole number is needed" },
    { { "--rate", "1.1" }, "a number from 0 to 1 is needed" },
    { { "--rate", "nan" }, "--rate is \"nan\"" },
    { { "--rate", "-0.1" }, "--rate is \"-0.1\"" },
    { { "--epochs" }, "--epochs needs a value: N" },
    { { "--epochs", "--fast" }, "--epochs needs a value: N" },
    { { "--data", "" }, "--data is empty" },
    { { "--fast=1" }, "--fast takes no value" },
    { { "--schedule", "ste" }, "--schedule is \"ste\": one of step|cosine is needed" },
    { { "--schedule=" }, "one of step|cosine" },
    { { "--fast" }, "--data is missing" },
    { { "--data=x", "1", "2", "3" }, "unexpected argument \"3\"" },
};
enum { NUM_MISTAKES = sizeof mistakes / sizeof mistakes[0] };

START_TEST(mistake)
{
    char *words[5] = { 0 };
    memcpy(words, mistakes[_i].words, sizeof mistakes[_i].words);
    struct arg_result result;
    ck_assert_int_eq(parse(&result, STDERR_FILENO, words), ARGS_EXIT);
    ck_assert_int_eq(result.exit_code, 2);
    ck_assert_msg(strstr(captured, mistakes[_i].says), "\"%s\" does not have \"%s\"", captured, mistakes[_i].says);
    ck_assert_msg(strstr(captured, "Try 'equil test --help'."), "\"%s\" does not say where help is", captured);
}
END_TEST

START_TEST(help_comes_from_the_table)
{
    struct arg_result result;
    ck_assert_int_eq(PARSE(&result, STDOUT_FILENO, "--epochs", "3", "--help"), ARGS_EXIT);
    ck_assert_int_eq(result.exit_code, 0);
    static const char *const parts[] = {
        "Usage: equil test [options] FILE...\n", "Tests.", "--fast ", "--epochs N", "(default: 30)", "--data DIR", "(required)",
        "--schedule step|cosine", "--help", "Notes.",
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        ck_assert_msg(strstr(captured, parts[i]), "the help has no \"%s\":\n%s", parts[i], captured);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("args");
    TCase *tcase = tcase_create("args");
    tcase_add_test(tcase, defaults);
    tcase_add_test(tcase, both_spellings_in_any_order);
    tcase_add_test(tcase, two_dashes_end_options);
    tcase_add_loop_test(tcase, mistake, 0, NUM_MISTAKES);
    tcase_add_test(tcase, help_comes_from_the_table);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_set_tap(runner, "-");
    srunner_run_all(runner, CK_SILENT);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

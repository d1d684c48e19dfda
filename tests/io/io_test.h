// What the io tests share: a folder that goes away with the program, and their main(). They use no device.
#ifndef EQ_IO_TEST_H
#define EQ_IO_TEST_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "equil/data.h"

#define IO_OK(call) ck_assert_msg((call) == EQ_OK, "%s: %s", #call, eq_last_error())
// The call must fail with that status, and the text must contain `part`.
#define IO_FAILS(call, status, part)                                                                              \
    do {                                                                                                          \
        eq_status got_ = (call);                                                                                  \
        ck_assert_msg(got_ == (status), "%s gives %s (%s), not %s", #call, eq_status_name(got_), eq_last_error(), \
                      eq_status_name(status));                                                                    \
        ck_assert_msg(strstr(eq_last_error(), part) != NULL, "\"%s\" is not in \"%s\"", part, eq_last_error());   \
    } while (0)

static char io_folder[256];

static void io_remove_folder(void)
{
    char command[600];
    snprintf(command, sizeof command, "chmod -R u+rwx '%s'; rm -rf '%s'", io_folder, io_folder);
    if (io_folder[0] && system(command) != 0)
        fprintf(stderr, "%s is left\n", io_folder);
}

// Path below the program's folder; eight of them are valid at a time.
static const char *io_path(const char *name)
{
    static char paths[8][512];
    static int turn;
    if (!io_folder[0]) {
        snprintf(io_folder, sizeof io_folder, "/tmp/equil-io-XXXXXX");
        ck_assert(mkdtemp(io_folder) != NULL);
        atexit(io_remove_folder);
    }
    turn = (turn + 1) % 8;
    snprintf(paths[turn], sizeof paths[turn], "%s/%s", io_folder, name);
    return paths[turn];
}

static inline void io_write(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    ck_assert_msg(file != NULL, "cannot write %s", path);
    ck_assert_uint_eq(fwrite(data, 1, bytes, file), bytes);
    ck_assert_int_eq(fclose(file), 0);
}

// A file of the source tree.
static inline const char *io_source(const char *name)
{
    static char path[512];
    const char *root = getenv("EQUIL_SOURCE_ROOT");
    snprintf(path, sizeof path, "%s/%s", root ? root : ".", name);
    return path;
}

#define IO_TEST_MAIN(suite_name, ...)                             \
    int main(void)                                                \
    {                                                             \
        const TTest *const tests[] = { __VA_ARGS__ };             \
        Suite *suite = suite_create(suite_name);                  \
        TCase *cases = tcase_create(suite_name);                  \
        tcase_set_timeout(cases, 0);                              \
        for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) \
            tcase_add_test(cases, tests[i]);                      \
        suite_add_tcase(suite, cases);                            \
        SRunner *runner = srunner_create(suite);                  \
        srunner_set_fork_status(runner, CK_NOFORK);               \
        srunner_set_tap(runner, "-");                             \
        srunner_run_all(runner, CK_SILENT);                       \
        const int num_failed = srunner_ntests_failed(runner);     \
        srunner_free(runner);                                     \
        return num_failed ? EXIT_FAILURE : EXIT_SUCCESS;          \
    }

#endif

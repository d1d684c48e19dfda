// Runs the suites of that name, those of src/verify and those of tests: suites NAME... TAP on stdout. EQUIL_DEVICE names the
// device. With EQUIL_TEST_TINY set (Oclgrind) small cases run only, with EQUIL_TEST_QUICK those of equil verify --quick: small
// ones on the device's own kernels.
#include "test_suites.h"

#include <stdio.h>
#include <stdlib.h>

#include "verify/check.h"

#define DECLARE(name) extern const struct eq_check_suite test_suite_##name;
#define REFER(name) &test_suite_##name,

TEST_SUITES(DECLARE)
static const struct eq_check_suite *const test_suites[] = { TEST_SUITES(REFER) };

static void print_failure(void *user, const struct eq_check_event *event)
{
    (void)user;
    if (event->kind == EQ_CHECK_FAILED)
        printf("# %s, %s (%s, block %d): %s\n", event->op, event->name, event->kernels, event->block, event->text);
}

// The number of the last test; *num_failed grows.
static int run_suite(const struct eq_check_suite *suite, int number, int *num_failed)
{
    for (size_t e = 0; e < suite->num; e++) {
        const struct eq_check_entry *entry = &suite->entries[e];
        for (int i = 0; i < (entry->num ? entry->num : 1); i++) {
            const int failures = eq_check_run_entry(entry, i);
            printf("%s %d - %s: %s, %d\n", failures ? "not ok" : "ok", ++number, suite->name, entry->name, i);
            fflush(stdout);
            *num_failed += failures > 0;
        }
    }
    return number;
}

static int run_named(const char *name, int number, int *num_failed)
{
    const int first = number;
    for (int i = 0; i < eq_check_num_suites; i++)
        if (strcmp(eq_check_suites[i]->name, name) == 0)
            number = run_suite(eq_check_suites[i], number, num_failed);
    for (size_t i = 0; i < sizeof test_suites / sizeof *test_suites; i++)
        if (strcmp(test_suites[i]->name, name) == 0)
            number = run_suite(test_suites[i], number, num_failed);
    if (number == first) {
        printf("Bail out! there is no suite %s\n", name);
        exit(EXIT_FAILURE);
    }
    return number;
}

int main(int argc, char **argv)
{
    struct eq_device *device;
    int number = 0, num_failed = 0;
    if (eq_device_open(NULL, &device) != EQ_OK) {
        printf("Bail out! %s\n", eq_last_error());
        return EXIT_FAILURE;
    }
    // PoCL compiles fast.
    const bool is_pocl = strstr(device->platform_name, "Portable Computing Language") != NULL;
    eq_check_use(device, &(struct eq_check_params){ .level = getenv("EQUIL_TEST_TINY")    ? EQ_CHECK_TINY
                                                             : getenv("EQUIL_TEST_QUICK") ? EQ_CHECK_QUICK
                                                                                          : EQ_CHECK_FULL,
                                                    .is_patient = is_pocl,
                                                    .sink = print_failure });
    for (int i = 1; i < argc; i++)
        number = run_named(argv[i], number, &num_failed);
    printf("1..%d\n", number);
    eq_device_destroy(&device);
    return num_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

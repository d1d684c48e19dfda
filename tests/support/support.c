// Test programs that are written with Check: see support.h.
#include "support.h"

#include <stdlib.h>
#include <string.h>

struct eq_device *eq_test_device;
static struct eq_target opened_target;

// ---- programs and device

static void restore_target(void)
{
    eq_test_device->target = opened_target;
}

static int bail_out(void)
{
    printf("Bail out! %s\n", eq_last_error());
    return EXIT_FAILURE;
}

int eq_test_main(const char *suite_name, const struct eq_test_entry *entries, size_t num)
{
    if (eq_device_open(NULL, &eq_test_device) != EQ_OK)
        return bail_out();
    opened_target = eq_test_device->target;
    eq_check_use(eq_test_device, &(struct eq_check_params){ .level = EQ_CHECK_FULL });
    Suite *suite = suite_create(suite_name);
    TCase *tests = tcase_create(suite_name);
    tcase_set_timeout(tests, 0);
    tcase_add_checked_fixture(tests, restore_target, NULL);
    for (size_t i = 0; i < num; i++)
        tcase_add_loop_test(tests, entries[i].test, 0, entries[i].num_cases ? entries[i].num_cases : 1);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK); // a context does not survive fork()
    srunner_set_tap(runner, "-");
    srunner_run_all(runner, CK_SILENT);
    const int num_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    restore_target();
    eq_device_destroy(&eq_test_device);
    return num_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

bool eq_test_is_tiny(void)
{
    return getenv("EQUIL_TEST_TINY") != NULL;
}

bool eq_test_is_pocl(void)
{
    return strstr(eq_test_device->platform_name, "Portable Computing Language") != NULL;
}

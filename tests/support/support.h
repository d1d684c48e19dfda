// Test programs that are written with Check. A program is
//
//     START_TEST(lists)
//     {
//         EQ_TEST_OK(eq_list_create(eq_test_device, &list));
//     }
//     END_TEST
//     EQ_TEST_MAIN("rt", { lists, 0 })
//
// EQUIL_DEVICE names the device. What src/verify has for its suites (values, variants) works here, too; a failure there ends
// the program.
#ifndef EQ_TEST_SUPPORT_H
#define EQ_TEST_SUPPORT_H

#include <check.h>

#include "verify/check.h"

// The call must succeed.
#define EQ_TEST_OK(call) ck_assert_msg((call) == EQ_OK, "%s: %s", #call, eq_last_error())

// ---- programs

struct eq_test_entry {
    const TTest *test;
    int num_cases; // _i runs from 0 to num_cases - 1; 0 means 1
};
int eq_test_main(const char *suite, const struct eq_test_entry *entries, size_t num);
#define EQ_TEST_MAIN(suite, ...)                                               \
    int main(void)                                                             \
    {                                                                          \
        const struct eq_test_entry entries[] = { __VA_ARGS__ };                \
        return eq_test_main(suite, entries, sizeof entries / sizeof *entries); \
    }

// ---- device

// Opened once, by EQUIL_DEVICE. Before each test its target is as it was opened.
extern struct eq_device *eq_test_device;
bool eq_test_is_tiny(void); // under Oclgrind, which is slow at everything
bool eq_test_is_pocl(void); // compiles fast; for other devices kernels that are slow to compile have fewer variants

#endif

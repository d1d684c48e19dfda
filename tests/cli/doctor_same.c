// One GPU by two drivers: by the address on the bus where both say it, else by the names.
#include <check.h>
#include <stdlib.h>

#include "cli/doctor.h"

#define DEVICE(p, n, k, a)                            \
    {                                                 \
        .platform = p, .name = n, .kind = k, .pci = a \
    }

static const struct {
    struct eq_device_info a, b;
    bool is_same;
} cases[] = {
    { DEVICE("AMD Accelerated Parallel Processing", "gfx1100", "gpu", "0000:03:00.0"),
      DEVICE("rusticl", "AMD Radeon RX 7900 XTX (radeonsi, navi31)", "gpu", "0000:03:00.0"), true },
    { DEVICE("NVIDIA CUDA", "NVIDIA H200", "gpu", "0000:03:00.0"), DEVICE("NVIDIA CUDA", "NVIDIA H200", "gpu", "0000:04:00.0"),
      false },
    { DEVICE("NVIDIA CUDA", "NVIDIA H200", "gpu", ""), DEVICE("NVIDIA CUDA", "NVIDIA H200", "gpu", ""), false },
    { DEVICE("Intel(R) OpenCL Graphics", "Intel(R) Arc(TM) A770 Graphics", "gpu", ""),
      DEVICE("rusticl", "Mesa Intel(R) Arc(tm) A770 Graphics (DG2)", "gpu", ""), true },
    { DEVICE("Intel(R) OpenCL Graphics", "Intel(R) Arc(TM) A770 Graphics", "gpu", ""),
      DEVICE("rusticl", "Mesa Intel(R) Arc(tm) A380 Graphics (DG2)", "gpu", ""), false },
    { DEVICE("Portable Computing Language", "a processor", "cpu", ""), DEVICE("rusticl", "a processor", "cpu", ""), false },
    { DEVICE("rusticl", "a chip", "gpu", ""), DEVICE("Portable Computing Language", "a chip", "cpu", ""), false },
    { DEVICE("Clover", "", "gpu", ""), DEVICE("rusticl", "a chip", "gpu", ""), false },
};

START_TEST(same_device)
{
    ck_assert_int_eq(doctor_is_same_device(&cases[_i].a, &cases[_i].b), cases[_i].is_same);
    ck_assert_int_eq(doctor_is_same_device(&cases[_i].b, &cases[_i].a), cases[_i].is_same);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("doctor_same");
    TCase *tests = tcase_create("same");
    tcase_add_loop_test(tests, same_device, 0, sizeof cases / sizeof *cases);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_set_tap(runner, "-");
    srunner_run_all(runner, CK_SILENT);
    const int num_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return num_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

// One GPU by two drivers: by the address on the bus where both say it, else by the names; and what the doctor says of it.
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

// A listing of devices that are not tried: another one is named.
static json_t *findings_of(const struct eq_device_info *devices, int num)
{
    struct doctor doctor = { .device = "another", .is_json = true, .num_devices = num };
    struct eq_device_info listed[4];
    for (int i = 0; i < num; i++) {
        listed[i] = devices[i];
        listed[i].index = i;
        listed[i].is_usable = true;
    }
    doctor.devices = listed;
    doctor.findings = json_array();
    doctor_check_devices(&doctor);
    return doctor.findings;
}

static const char *text_of(const json_t *finding, const char *key)
{
    return json_string_value(json_object_get(finding, key));
}

START_TEST(said)
{
    const struct eq_device_info devices[] = { cases[0].a, cases[5].a, cases[0].b };
    json_t *findings = findings_of(devices, 3);
    const json_t *note = json_array_get(findings, 0);
    ck_assert_uint_eq(json_array_size(findings), 2); // the other: none is what --device names
    ck_assert_str_eq(text_of(note, "verdict"), "note");
    ck_assert_str_eq(text_of(note, "subject"), "device");
    ck_assert_str_eq(text_of(note, "text"),
                     "0 (AMD Accelerated Parallel Processing) and 2 (rusticl) are the same GPU, AMD Radeon RX 7900 XTX "
                     "(radeonsi, navi31) at PCI 0000:03:00.0, by two drivers");
    ck_assert_str_eq(
        json_string_value(json_array_get(json_object_get(note, "advice"), 0)),
        "choose one by its platform, EQUIL_DEVICE='AMD Accelerated Parallel Processing' or EQUIL_DEVICE='rusticl'; "
        "'equil bench' says which is faster");
    json_decref(findings);
}
END_TEST

START_TEST(not_said)
{
    const struct eq_device_info devices[] = { cases[1].a, cases[1].b };
    json_t *findings = findings_of(devices, 2);
    ck_assert_uint_eq(json_array_size(findings), 1);
    ck_assert_str_eq(text_of(json_array_get(findings, 0), "verdict"), "problem");
    json_decref(findings);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("doctor_same");
    TCase *tests = tcase_create("same");
    tcase_add_loop_test(tests, same_device, 0, sizeof cases / sizeof *cases);
    tcase_add_test(tests, said);
    tcase_add_test(tests, not_said);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_set_tap(runner, "-");
    srunner_run_all(runner, CK_SILENT);
    const int num_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return num_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

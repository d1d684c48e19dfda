// Layouts: addresses, padding, round trips, refusals.
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/tensor.h"

static const struct eq_tensor forms[] = {
    { EQ_F32, EQ_FORM_PLAIN, 2, 3, 4, 5, 0, 0, 0 },    { EQ_F32, EQ_FORM_BLOCKED, 2, 5, 3, 4, 4, 0, 0 },
    { EQ_F32, EQ_FORM_BLOCKED, 1, 17, 2, 3, 16, 0, 2 }, { EQ_F32, EQ_FORM_BLOCKED, 3, 3, 5, 4, 1, 0, 3 },
    { EQ_F32, EQ_FORM_WEIGHT, 5, 3, 3, 2, 4, 1, 0 },   { EQ_F32, EQ_FORM_WEIGHT, 17, 9, 1, 3, 8, 8, 0 },
};

START_TEST(round_trip)
{
    const struct eq_tensor *t = &forms[_i];
    size_t logical = eq_tensor_logical(t), elems = eq_tensor_elems(t), num_zero = 0;
    float *plain = malloc(logical * sizeof *plain), *back = malloc(logical * sizeof *back),
          *stored = malloc(elems * sizeof *stored);
    for (size_t i = 0; i < logical; i++)
        plain[i] = (float)(i + 1);
    memset(stored, 0xff, elems * sizeof *stored);
    eq_tensor_pack(t, plain, stored);
    eq_tensor_unpack(t, stored, back);
    ck_assert_mem_eq(plain, back, logical * sizeof *plain);
    for (size_t i = 0; i < elems; i++)
        num_zero += stored[i] == 0;
    ck_assert_uint_eq(num_zero, elems - logical); // padding and halo, and nothing else
    free(plain);
    free(back);
    free(stored);
}
END_TEST

START_TEST(addresses)
{
    // [2, 5, 3, 4] in blocks of 4 with a halo of 1: 2 blocks, rows of (4 + 2) pixels, planes of (3 + 2) rows.
    struct eq_tensor t = eq_tensor_blocked(2, 5, 3, 4, 4, 1);
    ck_assert_int_eq(eq_tensor_blocks(&t), 2);
    ck_assert_uint_eq(eq_tensor_row(&t), 24);
    ck_assert_uint_eq(eq_tensor_plane(&t), 120);
    ck_assert_uint_eq(eq_tensor_image(&t), 240);
    ck_assert_uint_eq(eq_tensor_origin(&t), 28);
    ck_assert_uint_eq(eq_tensor_elems(&t), 480);
    float *plain = calloc(120, sizeof *plain), *stored = malloc(480 * sizeof *stored);
    plain[((1 * 5 + 4) * 3 + 2) * 4 + 3] = 1; // n 1, c 4, y 2, x 3
    eq_tensor_pack(&t, plain, stored);
    ck_assert(stored[28 + 240 + 120 + 2 * 24 + 3 * 4 + 0] == 1);
    free(plain);
    free(stored);
    // Filter [5, 3, 1, 2] in blocks of 4 out and 2 in: [2][2][1][2][2][4].
    struct eq_tensor w = eq_tensor_weight(5, 3, 1, 2, 4, 2);
    ck_assert_uint_eq(eq_tensor_elems(&w), 64);
    float weight[30] = { 0 }, packed[64];
    weight[((4 * 3 + 2) * 1 + 0) * 2 + 1] = 1; // oc 4, ic 2, kh 0, kw 1
    eq_tensor_pack(&w, weight, packed);
    ck_assert(packed[((((1 * 2 + 1) * 1 + 0) * 2 + 1) * 2 + 0) * 4 + 0] == 1);
}
END_TEST

START_TEST(refused)
{
    struct eq_tensor t = eq_tensor_plain(EQ_F32, 1, 0, 3, 3);
    ck_assert_int_eq(eq_tensor_check(&t), EQ_ERR_SHAPE);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "[1, 0, 3, 3]"));
    t = eq_tensor_plain(EQ_F32, 65536, 65536, 65536, 65536);
    ck_assert_int_eq(eq_tensor_check(&t), EQ_ERR_SHAPE);
    t = eq_tensor_blocked(16, 64, 224, 224, 16, 3);
    ck_assert_int_eq(eq_tensor_check(&t), EQ_OK);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tensor");
    TCase *tests = tcase_create("layouts");
    tcase_add_loop_test(tests, round_trip, 0, (int)(sizeof forms / sizeof *forms));
    tcase_add_test(tests, addresses);
    tcase_add_test(tests, refused);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_set_tap(runner, "-");
    srunner_run_all(runner, CK_SILENT);
    int num_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return num_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

// Packing and unpacking on the device must give what the host's give, bit by bit.
#include <stdlib.h>
#include <string.h>

#include "support/support.h"

static const struct {
    const char *name;
    int n, c, h, w, halo;
    bool is_unblocked, is_int, is_tiny;
} cases[] = {
    { "ragged blocks", 2, 19, 5, 3, 0, false, false, true },
    { "one", 1, 1, 1, 1, 0, false, false, true },
    { "halo", 2, 5, 3, 4, 3, false, false, true },
    { "block 1", 2, 3, 6, 5, 3, true, false, true },
    { "int", 1, 17, 3, 3, 1, false, true, true },
    { "image", 2, 3, 97, 61, 3, true, false, false },
    { "wide", 1, 40, 9, 130, 1, false, false, false },
};
enum { NUM_CASES = sizeof cases / sizeof *cases, MARGIN = 5 };
static const uint32_t CANARY = 0x7fc0beefu;

static uint32_t *filled(size_t words, uint32_t value)
{
    uint32_t *memory = malloc(words * sizeof *memory);
    for (size_t i = 0; i < words; i++)
        memory[i] = value;
    return memory;
}

// Runs one direction; `to` gets `num_to` words with MARGIN canaries around.
static void convert(const struct eq_tensor *t, bool is_pack, const void *from, size_t num_from, uint32_t *to, size_t num_to)
{
    struct eq_buffer *buffer = NULL;
    struct eq_list *list = NULL;
    const size_t all = num_to + 2 * MARGIN;
    EQ_TEST_OK(eq_buffer_create(eq_test_device, (num_from + all) * 4, &buffer));
    const struct eq_ref source = eq_ref_at(buffer, 0), around = eq_ref_at(buffer, num_from), target = eq_ref_plus(around, MARGIN);
    EQ_TEST_OK(eq_ref_write(source, from, num_from, 4));
    EQ_TEST_OK(eq_ref_write(around, to, all, 4));
    EQ_TEST_OK(eq_list_create(eq_test_device, &list));
    EQ_TEST_OK(is_pack ? eq_layout_pack_emit(list, t, source, target) : eq_layout_unpack_emit(list, t, source, target));
    EQ_TEST_OK(eq_list_run(list));
    EQ_TEST_OK(eq_ref_read(around, to, all, 4));
    eq_list_destroy(&list);
    eq_buffer_destroy(&buffer);
    for (size_t i = 0; i < MARGIN; i++)
        ck_assert_msg(to[i] == CANARY && to[MARGIN + num_to + i] == CANARY, "layout wrote beside its output");
}

START_TEST(test_values)
{
    if (eq_test_is_tiny() && !cases[_i].is_tiny)
        return;
    for (int v = 0; v < eq_test_num_variants(true); v++) {
        eq_test_variant(v);
        struct eq_tensor t = eq_tensor_blocked(cases[_i].n, cases[_i].c, cases[_i].h, cases[_i].w,
                                               cases[_i].is_unblocked ? 1 : eq_test_device->target.block, cases[_i].halo);
        t.dtype = cases[_i].is_int ? EQ_I32 : EQ_F32;
        const size_t elems = eq_tensor_logical(&t), stored = eq_tensor_elems(&t);
        float *plain = eq_test_uniform(cases[_i].name, elems, 0), *want = malloc(stored * sizeof *want);
        for (size_t i = 0; i < elems && cases[_i].is_int; i++)
            memcpy(&plain[i], &(int32_t){ (int32_t)i - 7 }, 4);
        uint32_t *got = filled(stored + 2 * MARGIN, CANARY), *back = filled(elems + 2 * MARGIN, CANARY);
        eq_tensor_pack(&t, plain, want);
        convert(&t, true, plain, elems, got, stored);
        ck_assert_msg(memcmp(got + MARGIN, want, stored * 4) == 0, "%s (%s): pack differs from the host's", cases[_i].name,
                      eq_test_variant_name());
        convert(&t, false, want, stored, back, elems);
        ck_assert_msg(memcmp(back + MARGIN, plain, elems * 4) == 0, "%s (%s): unpack differs from the host's", cases[_i].name,
                      eq_test_variant_name());
        free(plain);
        free(want);
        free(got);
        free(back);
    }
}
END_TEST

START_TEST(test_refused)
{
    struct eq_list *list = NULL;
    struct eq_tensor t = eq_tensor_plain(EQ_F32, 2, 3, 4, 5);
    EQ_TEST_OK(eq_list_create(eq_test_device, &list));
    ck_assert_int_eq(eq_layout_pack_emit(list, &t, EQ_REF_NONE, EQ_REF_NONE), EQ_ERR_SHAPE);
    ck_assert_msg(strstr(eq_last_error(), "[2, 3, 4, 5]"), "%s", eq_last_error());
    t = eq_tensor_blocked(2, 3, 4, 5, 16, 0);
    t.dtype = EQ_U8;
    ck_assert_int_eq(eq_layout_unpack_emit(list, &t, EQ_REF_NONE, EQ_REF_NONE), EQ_ERR_UNSUPPORTED);
    ck_assert_int_eq(eq_list_length(list), 0);
    eq_list_destroy(&list);
}
END_TEST

EQ_TEST_MAIN("layout", { test_values, NUM_CASES }, { test_refused, 0 })

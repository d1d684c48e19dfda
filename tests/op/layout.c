// Layouts that are refused. What is computed is checked in src/verify/layout.c.
#include "verify/check.h"

static void test_refused(int index)
{
    (void)index;
    struct eq_list *list = NULL;
    struct eq_tensor t = eq_tensor_plain(EQ_F32, 2, 3, 4, 5);
    const struct eq_view view = eq_view_plain(&t, EQ_REF_NONE);
    EQ_CHECK_OK(eq_list_create(eq_check_device, &list));
    EQ_CHECK_INT(eq_layout_pack_emit(list, &t, &view, EQ_REF_NONE), EQ_ERR_SHAPE);
    EQ_CHECK(strstr(eq_last_error(), "[2, 3, 4, 5]"), "%s", eq_last_error());
    t = eq_tensor_blocked(2, 3, 4, 5, 16, 0);
    t.dtype = EQ_U8;
    EQ_CHECK_INT(eq_layout_unpack_emit(list, &t, EQ_REF_NONE, &view), EQ_ERR_UNSUPPORTED);
    // Elements that are written have a place each: of [2, 3, 4, 5].
    static const int strides[][4] = { { 0, 20, 5, 1 }, { 1, 1, 1, 1 }, { 60, 20, 5, 0 }, { 59, 20, 5, 1 }, { 60, 19, 5, 1 } };
    t.dtype = EQ_F32;
    for (size_t i = 0; i < sizeof strides / sizeof *strides; i++) {
        struct eq_view shared = view;
        memcpy(shared.stride, strides[i], sizeof shared.stride);
        EQ_CHECK_INT(eq_layout_unpack_emit(list, &t, EQ_REF_NONE, &shared), EQ_ERR_UNSUPPORTED);
        EQ_CHECK(strstr(eq_last_error(), "one place"), "%s", eq_last_error());
    }
    EQ_CHECK_INT(eq_list_length(list), 0);
    eq_list_destroy(&list);
}

EQ_CHECK_SUITE(test_suite_layout, "layout", { "refused", test_refused, 0 })

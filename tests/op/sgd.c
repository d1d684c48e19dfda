// Steps that are refused. What is computed is checked in src/verify/sgd.c.
#include "verify/check.h"

static void test_refused(int index)
{
    (void)index;
    struct eq_list *list = NULL;
    EQ_CHECK_OK(eq_list_create(eq_check_device, &list));
    EQ_CHECK_INT(eq_sgd_emit(list, 0, EQ_REF_NONE, EQ_REF_NONE, EQ_REF_NONE, EQ_REF_NONE), EQ_ERR_UNSUPPORTED);
    EQ_CHECK_INT(eq_sgd_emit(list, (size_t)1 << 31, EQ_REF_NONE, EQ_REF_NONE, EQ_REF_NONE, EQ_REF_NONE), EQ_ERR_UNSUPPORTED);
    EQ_CHECK_INT(eq_sgd_guard_emit(list, 0, EQ_REF_NONE, EQ_REF_NONE), EQ_ERR_UNSUPPORTED);
    EQ_CHECK_INT(eq_list_length(list), 0);
    eq_list_destroy(&list);
}

EQ_CHECK_SUITE(test_suite_sgd, "sgd", { "refused", test_refused, 0 })

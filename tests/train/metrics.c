// Ranks, cross entropy and softmax of single rows.
#include <math.h>

#include "support/support.h"
#include "train/metrics.h"

START_TEST(test_rank)
{
    const float row[] = { 0.5f, 2, -1, 2, 1 };
    ck_assert_int_eq(eq_metric_rank(row, 5, 1), 0);
    ck_assert_int_eq(eq_metric_rank(row, 5, 3), 1); // equal to class 1, which is first
    ck_assert_int_eq(eq_metric_rank(row, 5, 4), 2);
    ck_assert_int_eq(eq_metric_rank(row, 5, 0), 3);
    ck_assert_int_eq(eq_metric_rank(row, 5, 2), 4);
}
END_TEST

START_TEST(test_rank_of_nan)
{
    const float row[] = { NAN, 1, INFINITY };
    ck_assert_int_eq(eq_metric_rank(row, 3, 1), 2);
    ck_assert_int_eq(eq_metric_rank(row, 3, 2), 1);
    ck_assert_int_eq(eq_metric_rank(row, 3, 0), 2); // never a hit itself
}
END_TEST

// abs 1e-12: a handful of roundings in double.
START_TEST(test_cross_entropy)
{
    const float flat[] = { 3, 3, 3, 3 }, two[] = { 0, 1 }, large[] = { 1000, 0, -1000 };
    ck_assert_double_eq_tol(eq_metric_cross_entropy(flat, 4, 2), log(4), 1e-12);
    ck_assert_double_eq_tol(eq_metric_cross_entropy(two, 2, 0), log(1 + exp(1)), 1e-12);
    ck_assert_double_eq_tol(eq_metric_cross_entropy(two, 2, 1), log(1 + exp(-1)), 1e-12);
    ck_assert_double_eq_tol(eq_metric_cross_entropy(large, 3, 0), 0, 1e-12);
    ck_assert_double_eq_tol(eq_metric_cross_entropy(large, 3, 2), 2000, 1e-12);
}
END_TEST

START_TEST(test_softmax)
{
    float row[] = { 1, 2, 1000, -50 }, sum = 0;
    eq_metric_softmax(row, 2, row); // in place
    eq_metric_softmax(row + 2, 2, row + 2);
    // abs 1e-7: the result is rounded to float.
    ck_assert_double_eq_tol((double)row[0], 1 / (1 + exp(1)), 1e-7);
    ck_assert_double_eq_tol((double)row[1], 1 / (1 + exp(-1)), 1e-7);
    ck_assert_double_eq_tol((double)row[2], 1, 1e-7);
    ck_assert_double_eq_tol((double)row[3], 0, 1e-7);
    for (int i = 0; i < 4; i++)
        sum += row[i];
    ck_assert_double_eq_tol((double)sum, 2, 1e-6);
}
END_TEST

EQ_TEST_MAIN("metrics", { test_rank, 0 }, { test_rank_of_nan, 0 }, { test_cross_entropy, 0 }, { test_softmax, 0 })

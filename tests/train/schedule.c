// Learning rates step by step, for every schedule, against values worked out by hand.
#include <math.h>

#include "support/support.h"
#include "train/schedule.h"

// rel 1e-12: a cosine and a few products in double.
static void check_rate(const struct eq_schedule *schedule, int64_t step, double want)
{
    double got = eq_schedule_rate(schedule, step);
    ck_assert_msg(fabs(got - want) <= 1e-12 * fabs(want) + 1e-17, "step %lld: %.17g, expected %.17g", (long long)step, got,
                  want);
}

START_TEST(test_step)
{
    const struct eq_schedule s = { .kind = EQ_TRAIN_SCHEDULE_STEP, .base = 0.4, .epochs = 100, .steps_per_epoch = 7 };
    check_rate(&s, 0, 0.4);
    check_rate(&s, 30 * 7 - 1, 0.4);
    check_rate(&s, 30 * 7, 0.04);
    check_rate(&s, 60 * 7 - 1, 0.04);
    check_rate(&s, 60 * 7, 0.004);
    check_rate(&s, 90 * 7, 0.0004);
    check_rate(&s, 100 * 7 - 1, 0.0004);
}
END_TEST

START_TEST(test_step_warmup)
{
    // The paper's: 5 epochs from 0, step by step, and the falls count from the start of training.
    const struct eq_schedule s = {
        .kind = EQ_TRAIN_SCHEDULE_STEP, .base = 0.1, .warmup = 5, .epochs = 100, .steps_per_epoch = 5005
    };
    check_rate(&s, 0, 0);
    check_rate(&s, 1, 0.1 / (5 * 5005.0));
    check_rate(&s, 5005, 0.02);
    check_rate(&s, 5 * 5005 - 1, 0.1 * 25024 / 25025.0);
    check_rate(&s, 5 * 5005, 0.1);
    check_rate(&s, 30 * 5005, 0.01);
}
END_TEST

START_TEST(test_cosine)
{
    const struct eq_schedule s = { .kind = EQ_TRAIN_SCHEDULE_COSINE, .base = 0.1, .epochs = 12, .steps_per_epoch = 78 };
    check_rate(&s, 0, 0.1);
    check_rate(&s, 3 * 78, 0.05 * (1 + sqrt(0.5)));
    check_rate(&s, 6 * 78, 0.05);
    check_rate(&s, 8 * 78, 0.025);
    ck_assert(eq_schedule_rate(&s, 12 * 78 - 1) > 0);
    check_rate(&s, 12 * 78, 0);
}
END_TEST

START_TEST(test_cosine_warmup)
{
    const struct eq_schedule s = {
        .kind = EQ_TRAIN_SCHEDULE_COSINE, .base = 1, .warmup = 2, .epochs = 10, .steps_per_epoch = 10
    };
    check_rate(&s, 10, 0.5);
    check_rate(&s, 20, 1);
    check_rate(&s, 60, 0.5);
    // Half an epoch is possible too.
    const struct eq_schedule half = {
        .kind = EQ_TRAIN_SCHEDULE_COSINE, .base = 1, .warmup = 0.5, .epochs = 10, .steps_per_epoch = 10
    };
    check_rate(&half, 4, 0.8);
    check_rate(&half, 5, 1);
}
END_TEST

START_TEST(test_monotonic)
{
    const struct eq_schedule s = {
        .kind = _i ? EQ_TRAIN_SCHEDULE_COSINE : EQ_TRAIN_SCHEDULE_STEP, .base = 0.3, .epochs = 7, .steps_per_epoch = 13
    };
    for (int64_t step = 1; step < 7 * 13; step++)
        ck_assert(eq_schedule_rate(&s, step) <= eq_schedule_rate(&s, step - 1));
}
END_TEST

EQ_TEST_MAIN("schedule", { test_step, 0 }, { test_step_warmup, 0 }, { test_cosine, 0 }, { test_cosine_warmup, 0 },
             { test_monotonic, 2 })

#include "train/schedule.h"

#include <math.h>

double eq_schedule_rate(const struct eq_schedule *schedule, int64_t step)
{
    double at = (double)step, total = (double)schedule->epochs * (double)schedule->steps_per_epoch;
    double warmup = schedule->warmup * (double)schedule->steps_per_epoch;
    if (at < warmup)
        return schedule->base * at / warmup;
    if (schedule->kind == EQ_TRAIN_SCHEDULE_COSINE)
        return at >= total ? 0 : schedule->base * 0.5 * (1 + cos(3.141592653589793 * (at - warmup) / (total - warmup)));
    int falls = (10 * at >= 3 * total) + (10 * at >= 6 * total) + (10 * at >= 9 * total);
    return schedule->base * pow(0.1, falls);
}

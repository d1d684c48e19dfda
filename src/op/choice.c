#include "op/choice.h"

#include <stdlib.h>
#include <string.h>

void eq_rank_add(struct eq_rank *rank, double time, const int values[EQ_RANK_VALUES])
{
    int at = rank->num;
    while (at > 0 && time < rank->time[at - 1])
        at--;
    if (at == rank->max)
        return;
    rank->num += rank->num < rank->max;
    for (int i = rank->num - 1; i > at; i--) {
        rank->time[i] = rank->time[i - 1];
        memcpy(rank->values[i], rank->values[i - 1], sizeof rank->values[i]);
    }
    rank->time[at] = time;
    memcpy(rank->values[at], values, sizeof rank->values[at]);
}

eq_status eq_tunable_add(struct eq_tunable *tunable, const int *values)
{
    const int num = tunable->num_candidates;
    for (int c = 0; c < num; c++)
        if (memcmp(tunable->candidates[c], values, (size_t)tunable->num_values * sizeof *values) == 0)
            return EQ_OK;
    int(*candidates)[EQ_TUNE_MAX_VALUES] = realloc(tunable->candidates, (size_t)(num + 1) * sizeof *candidates);
    EQ_REQUIRE(candidates, EQ_ERR_HOST_MEMORY, "out of memory: %d candidates", num + 1);
    tunable->candidates = candidates;
    memset(candidates[num], 0, sizeof candidates[num]);
    memcpy(candidates[num], values, (size_t)tunable->num_values * sizeof *values);
    tunable->num_candidates++;
    return EQ_OK;
}

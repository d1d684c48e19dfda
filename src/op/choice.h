// Helpers of ops with choices: the best few by a model, and lists of candidates.
#ifndef EQ_OP_CHOICE_H
#define EQ_OP_CHOICE_H

#include "op/op.h"

// The `max` ways with the least time by a model, the best first; of equal ones the first that was added.
enum { EQ_RANK_MAX = 8, EQ_RANK_VALUES = 4 };
struct eq_rank {
    int max, num; // max is set by the user, 1 to EQ_RANK_MAX
    double time[EQ_RANK_MAX];
    int values[EQ_RANK_MAX][EQ_RANK_VALUES];
};
void eq_rank_add(struct eq_rank *rank, double time, const int values[EQ_RANK_VALUES]);

// Appends a candidate, unless it is there already. The caller frees tunable->candidates, after a failure too.
eq_status eq_tunable_add(struct eq_tunable *tunable, const int *values);

#endif

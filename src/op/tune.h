// The tuner: one choice of one call, measured on a device. Every candidate is verified before it is timed and after; see tune.c
// for how. What networks are made of and where results go is the business of train/tune.c.
#ifndef EQ_OP_TUNE_H
#define EQ_OP_TUNE_H

#include "op/op.h"

struct eq_tune_job {
    struct eq_device *device;        // its target's tuning is exchanged during the work, and put back
    const struct eq_call *call;      // shaped, with the halos that its operands have; all operands f32
    bool is_result[EQ_MAX_OPERANDS]; // output o is compared; the others are workspace
    const struct eq_tuning *tuning;  // the decisions so far, on other keys
    double seconds;                  // at most, for timing one candidate; 0: 1 s
    // Asked before every candidate; false ends the work with EQ_ERR_INTERRUPTED. NULL: goes on.
    bool (*go_on)(void *user, int candidate, int num_candidates);
    // Asked before a candidate other than the default is compiled: EQ_ERR_BUILD rejects it, with the last error as the reason;
    // any other error ends the work. NULL: all are compiled.
    eq_status (*admit)(void *user, int candidate);
    void *user;
};

struct eq_tune_outcome {
    int candidate; // the fastest: 0, the default, unless another is faster by more than 2 %
    double seconds, default_seconds;
    int num_rejected;  // candidates that failed, or computed something else
    char rejected[200]; // why the last of them was
};
// Errors: EQ_ERR_NUMERIC where the default itself computes wrongly; EQ_ERR_UNSUPPORTED for operands of another type; those of
// the default's emit(). Those of other candidates reject them.
eq_status eq_tune_choice(const struct eq_tune_job *job, const struct eq_tunable *tunable, struct eq_tune_outcome *outcome);

// Whether the op takes the values for the choice: those of a file are not its own, and may be of another version or a typing
// error. Then it compiles with them, too. Errors: EQ_ERR_HOST_MEMORY, EQ_ERR_DEVICE_MEMORY, EQ_ERR_DEVICE.
eq_status eq_tune_takes(const struct eq_tune_job *job, const struct eq_tunable *tunable, const int *values, bool *takes);

// Compiles the candidates that next(user) names and runs each once, until it names a negative one; nothing is compared. What
// does not compile is passed over. Errors: EQ_ERR_ARGUMENT (no such candidate), those of running one.
eq_status eq_tune_try(const struct eq_tune_job *job, const struct eq_tunable *tunable, int (*next)(void *user), void *user);

#endif

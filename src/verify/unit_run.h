// Runs a unit and its gradient as a graph would, for what compares the results.
#ifndef EQ_VERIFY_UNIT_RUN_H
#define EQ_VERIFY_UNIT_RUN_H

#include "verify/check.h"
#include "verify/unit_reference.h"

struct unit_case {
    const char *name;
    int n, c, h, w;
    enum eq_unit_method method;
    enum eq_activation activation;
    bool residual, add; // add: the residual already has a gradient
    int group, iterations, hidden;
    float offset; // of the input
    int halo;     // of inputs and outputs, in turn
    bool tiny;    // small: see eq_check_is_small()
    bool quick;   // not tiny, but for quick runs
};

// What one run works with. Plain host values; NULL where absent.
struct unit_run {
    struct unit_case c;
    float *input[EQ_UNIT_NUM_INPUTS], *dout, *dres_add;
    float *eval_z; // Z of evaluation, where it is another
    float *out, *out_eval, *out_given, *out_pooled, *dz, *dres, *grad[EQ_UNIT_NUM_INPUTS], *after[EQ_UNIT_NUM_INPUTS];
};

struct eq_unit_attributes unit_attributes_of(const struct unit_case *c);
bool unit_is_state(int input);
struct unit_reference unit_reference_of(const struct unit_case *c, bool training);
struct eq_tensor unit_activation_tensor(const struct unit_case *c, int halo);

// By enum eq_unit_input, up to FC2_BIAS.
extern const char *const unit_input_names[EQ_UNIT_NUM_INPUTS];
// mean + spread * normal; malloc'ed, as are the values of an input, Z's with the mean `offset`.
float *unit_random(const char *purpose, size_t num, float mean, float spread);
float *unit_input_values(const struct unit_reference *reference, int input, size_t num, float offset);

// Training forward, backward, and evaluation with the state that training left; out_given: the same from given moments, where
// the unit takes some; out_pooled: with the pooling that follows, where it takes that in.
void unit_run_all(struct unit_run *r);
void unit_run_free(struct unit_run *r);

// eq_check_norm() of what is called `what` and `which`.
void unit_compare(const char *what, const char *which, const float *got, const double *want, size_t num, double tolerance,
                  double floor);
double *unit_doubled(const float *values, size_t num); // malloc'ed

#endif

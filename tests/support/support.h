// Shared harness of the op tests. A test program is
//
//     START_TEST(test_values)                     // _i is the case's index
//     {
//         struct eq_test_call call = { .name = "odd", .op = &eq_op_add, .num_inputs = 2,
//                                      .input = { { tensor, a, false }, { tensor, b, false } } };
//         eq_test_call_run(&call);                // runs it, checks canaries, padding, halo and repeatability
//         eq_test_close(&call, 0, want, NULL, 1e-6);
//         eq_test_call_free(&call);
//     }
//     END_TEST
//     EQ_TEST_MAIN("add", { test_values, NUM_CASES })
//
// EQUIL_DEVICE names the device. With EQUIL_TEST_TINY set (Oclgrind) a test runs its tiny cases only.
#ifndef EQ_TEST_SUPPORT_H
#define EQ_TEST_SUPPORT_H

#include <check.h>

#include "op/op.h"

// The call must succeed.
#define EQ_TEST_OK(call) ck_assert_msg((call) == EQ_OK, "%s: %s", #call, eq_last_error())

// ---- programs

struct eq_test_entry {
    const TTest *test;
    int num_cases; // _i runs from 0 to num_cases - 1; 0 means 1
};
int eq_test_main(const char *suite, const struct eq_test_entry *entries, size_t num);
#define EQ_TEST_MAIN(suite, ...)                                               \
    int main(void)                                                             \
    {                                                                          \
        const struct eq_test_entry entries[] = { __VA_ARGS__ };                \
        return eq_test_main(suite, entries, sizeof entries / sizeof *entries); \
    }

// ---- device

// Opened once, by EQUIL_DEVICE. Before each test its target is as it was opened.
extern struct eq_device *eq_test_device;
bool eq_test_is_tiny(void); // under Oclgrind, which is slow at everything
bool eq_test_is_pocl(void); // compiles fast; for other devices kernels that are slow to compile have fewer variants
// Variants of the target: both families with blocks of 16, 8 and 4 channels. Set by
//     for (int v = 0; v < eq_test_num_variants(is_small); v++) { eq_test_variant(v); ... }
// eq_test_num_variants() is all 6 for a small case, else 2 (both families, block 16).
int eq_test_num_variants(bool is_small);
void eq_test_variant(int variant);
const char *eq_test_variant_name(void); // "simt, block 8"

// ---- values

// Element i of the reference script's uniform(name, n, seed) as [-1, 1); malloc'ed.
float *eq_test_uniform(const char *name, size_t n, uint64_t seed);
// mean + spread * uniform.
float *eq_test_values(const char *name, size_t n, double mean, double spread);

// ---- calls

struct eq_test_input {
    struct eq_tensor tensor; // 4-byte elements. Its halo is what the op asks for, or this one where that is larger
    const void *plain;       // host values in plain order (NCHW, OIHW); NULL: absent
    bool is_state;           // the op may write it: see eq_test_call.after
};

struct eq_test_call {
    const char *name; // of the case
    const struct eq_op *op;
    const void *attributes;
    bool training;
    int num_inputs;
    struct eq_test_input input[EQ_MAX_OPERANDS];
    int output_halo;                    // halo that readers ask of blocked f32 outputs
    bool is_aligned;                    // operands start at multiples of 16 words, and CPUs store results past their caches;
                                        // otherwise operands start at odd words
    bool in_place;                      // outputs share the memory that op->in_place() names
    bool is_workspace[EQ_MAX_OPERANDS]; // output o has no meaning: contents are not looked at
    // Results
    struct eq_call shaped;
    void *output[EQ_MAX_OPERANDS]; // plain order
    void *after[EQ_MAX_OPERANDS];  // inputs that are state, after the run, plain order
};
// Inputs and outputs lie in one buffer, each between canaries; outputs start as NaN. Fails the test when shape() or emit()
// fails, a canary or an input that is no state changes, an element is not written, a padding channel or a halo pixel is not
// zero, or a second run from the same start gives other bits.
void eq_test_call_run(struct eq_test_call *call);
void eq_test_call_free(struct eq_test_call *call);
// shape() of the call must refuse it with this status and a text that has `part` in it.
void eq_test_call_refused(struct eq_test_call *call, eq_status status, const char *part);

// ---- comparing

// Output o of the call against `want` (plain order). The tolerance of element i is tolerance[i], or relative * max|want| where
// `tolerance` is NULL. NaN agrees with NaN. A failure names op, case, variant, index and both values.
void eq_test_close(const struct eq_test_call *call, int output, const double *want, const double *tolerance, double relative);
// The same for any tensor.
void eq_test_values_close(const char *op, const char *name, const struct eq_tensor *tensor, const float *got,
                          const double *want, const double *tolerance, double relative);
// max|got - want| / max|want|.
double eq_test_error(const float *got, const double *want, size_t n);

// Checks that grad[i] is the derivative of f along x[i], by central differences of step `step` in double: for references.
void eq_test_gradient(const char *name, double (*f)(const double *x, void *user), void *user, double *x, const double *grad,
                      size_t n, double step, double relative);

#endif

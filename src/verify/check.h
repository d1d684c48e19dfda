// What suites are written with. A suite is
//
//     static void values(int index)               // the case's index
//     {
//         struct eq_check_call call = { .name = "odd", .op = &eq_op_add, .num_inputs = 2,
//                                       .input = { { tensor, a, false }, { tensor, b, false } } };
//         eq_check_call_run(&call);               // runs it, checks canaries, padding, halo and repeatability
//         eq_check_close(&call, 0, want, NULL, 1e-6);
//         eq_check_call_free(&call);
//     }
//     EQ_CHECK_SUITE(eq_suite_add, "add", { "values", values, NUM_CASES })
//
// Values that differ are a failure, and the case goes on; whatever else is wrong ends it, and what it had allocated is lost but
// for a call's own memory.
#ifndef EQ_VERIFY_CHECK_H
#define EQ_VERIFY_CHECK_H

#include <string.h>

#include "op/op.h"
#include "verify/verify.h"

#define EQ_CHECK_SUITE(symbol, text, ...)                                    \
    static const struct eq_check_entry symbol##_entries[] = { __VA_ARGS__ }; \
    const struct eq_check_suite symbol = { text, symbol##_entries, sizeof symbol##_entries / sizeof *symbol##_entries };

// ---- what must hold: otherwise the case, or its variant, ends here

_Noreturn void eq_check_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
// For what has to be freed whatever happens: calls run(user) and comes back when it returns (true) or fails (false); then, with
// nothing to say that was not said, eq_check_leave() ends the case.
bool eq_check_guard(void (*run)(void *user), void *user);
_Noreturn void eq_check_leave(void);
#define EQ_CHECK(condition, ...) ((condition) ? (void)0 : eq_check_fail(__VA_ARGS__))
#define EQ_CHECK_TRUE(condition) EQ_CHECK(condition, "not so: %s", #condition)
#define EQ_CHECK_OK(call) EQ_CHECK((call) == EQ_OK, "%s: %s", #call, eq_last_error())
#define EQ_CHECK_INT(got, want) eq_check_int(#got, (long long)(got), (long long)(want))
void eq_check_int(const char *what, long long got, long long want);
// malloc'ed, never NULL; the second one's is zero.
void *eq_check_malloc(size_t count, size_t size);
void *eq_check_calloc(size_t count, size_t size);

// ---- device

extern struct eq_device *eq_check_device; // eq_check_use()
bool eq_check_is_tiny(void);              // EQ_CHECK_TINY: under a simulator, which is slow at everything
bool eq_check_is_quick(void);             // EQ_CHECK_QUICK: what the device's users run, and little else
bool eq_check_is_small(void);             // TINY or QUICK: cases that are not small are left out
bool eq_check_is_patient(void);           // a full run that takes its time: see eq_check_params
// Runs body(user) on the variants of the target, each a case of its own: on both families with blocks of 16 channels, and on
// processors' with blocks of 8 and 4. That is all 4 for a small case (is_small) of a patient run, else the first 2: other
// blocks change indices, not what a compiler is given to do. Where a full run is not patient, a case that is not small has SIMT
// alone. In a QUICK run it is the device's own alone.
void eq_check_each_variant(bool is_small, void (*body)(void *user), void *user);
// Runs body(user) as a case of its own, on the target as it was opened; body changes it.
void eq_check_apart(void (*body)(void *user), void *user);
// Variant by number, without the guard: 0 is for processors, 1 for GPUs, both in blocks of 16; 2 and 3 are for processors, of 8
// and 4.
void eq_check_variant(int variant);
// Whether the variant has the kernels that the device's users run.
bool eq_check_is_own_family(void);
// The number of the variant: for what takes turns.
int eq_check_turn(void);
// What in the family computes, "Winograd F(2x2)", from here on; NULL: nothing in particular. A variant begins with nothing.
void eq_check_kernels(const char *text);
// "vector, Winograd F(2x2), block 8".
const char *eq_check_variant_name(void);
// Names what runs now. eq_check_call_run() does it for calls.
void eq_check_begin(const char *op, const char *name);

// ---- values

// Element i of the reference script's uniform(name, n, seed) as [-1, 1); malloc'ed.
float *eq_check_uniform(const char *name, size_t n, uint64_t seed);
// mean + spread * uniform.
float *eq_check_values(const char *name, size_t n, double mean, double spread);

// ---- calls (call.c)

struct eq_check_input {
    struct eq_tensor tensor; // 4-byte elements. Its halo is what the op asks for, or this one where that is larger
    const void *plain;       // host values in plain order (NCHW, OIHW); NULL: absent
    bool is_state;           // the op may write it: see eq_check_call.after
};

struct eq_check_call {
    const char *name; // of the case
    const struct eq_op *op;
    const void *attributes;
    bool training;
    int num_inputs;
    struct eq_check_input input[EQ_MAX_OPERANDS];
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
// Inputs and outputs lie in one buffer, each between canaries; outputs start as NaN. Fails when shape() or emit() fails, a
// canary or an input that is no state changes, an element is not written, a padding channel or a halo pixel is not zero, or a
// second run from the same start gives other bits.
void eq_check_call_run(struct eq_check_call *call);
void eq_check_call_free(struct eq_check_call *call);
// shape() of the call must refuse it with this status and a text that has `part` in it.
void eq_check_call_refused(struct eq_check_call *call, eq_status status, const char *part);

// ---- comparing

// Element by element: start from zero, add, end. NaN agrees with NaN, infinities with themselves.
struct eq_check_comparison {
    size_t num, num_wrong;
    double largest; // |want|
    double error, ratio;
    int index[4]; // of the worst
    double got, want, tolerance;
};
void eq_check_compare(struct eq_check_comparison *c, const int index[4], double got, double want, double tolerance);
// The same for element `index` of something in a row.
void eq_check_compare_at(struct eq_check_comparison *c, size_t index, double got, double want, double tolerance);
void eq_check_compared(const struct eq_check_comparison *c, const char *what);

// Output o of the call against `want` (plain order). The tolerance of element i is tolerance[i], or relative * max|want| where
// `tolerance` is NULL.
void eq_check_close(const struct eq_check_call *call, int output, const double *want, const double *tolerance, double relative);
// The same for any tensor.
void eq_check_values_close(const char *what, const struct eq_tensor *tensor, const float *got, const double *want,
                           const double *tolerance, double relative);
// max|got - want| / max|want|.
double eq_check_error(const float *got, const double *want, size_t n);
// What two runs gave has to have the same bits.
void eq_check_same(const char *what, const float *first, const float *second, size_t n);
// An error that was found otherwise.
void eq_check_bound(const char *what, double error, double tolerance);
// The norm of got - want over that of `want`, to which `floor`, times the root of n, is added: below it a vector counts as
// zero.
void eq_check_norm(const char *what, const float *got, const double *want, size_t n, double floor, double tolerance);

// Checks that grad[i] is the derivative of f along x[i], by central differences of step `step` in double: for references.
void eq_check_gradient(const char *name, double (*f)(const double *x, void *user), void *user, double *x, const double *grad,
                       size_t n, double step, double relative);

#endif

// Is what a device computes right? Suites of cases, one an op and one for whole networks, run on a device and compared with
// references in double precision. `equil verify` runs them in front of a user, the tests in tests/op in front of a developer.
//
// A suite tells a sink what happens, event by event, and returns nothing else: whoever listens counts. A failing case does not
// stop the others. What a case had allocated when it failed is not freed. One thread at a time, one device at a time.
#ifndef EQ_VERIFY_VERIFY_H
#define EQ_VERIFY_VERIFY_H

#include <stdbool.h>
#include <stddef.h>

#include "equil/base.h"
#include "equil/device.h"

enum eq_check_event_kind {
    EQ_CHECK_BEGINS,   // a case begins: a driver that crashes or hangs does so in the last one that began
    EQ_CHECK_COMPARED, // results were compared with their reference, and agree or not
    EQ_CHECK_FAILED,
};

struct eq_check_event {
    enum eq_check_event_kind kind;
    char op[48];      // "conv2d_weight_grad"
    char kernels[48]; // the family and what in it: "simt", "vector, Winograd F(4x4)"
    int block;        // channels in a block of activations
    char name[96];    // of the case
    char what[96];    // was compared: "output 0"; empty where the failure is not one of values
    // COMPARED, and FAILED with `what`
    double error; // the largest, over the largest value wanted
    double ratio; // the largest of error over tolerance; above 1: failed
    size_t num;   // elements compared
    // FAILED with `what`: the worst element
    size_t num_wrong;
    int index[4]; // [n, c, h, w]
    double got, want, tolerance;
    // Where one figure was compared, such as a norm of differences: `error` is that, `tolerance` is of it, and the worst
    // element, in `index[3]`, is there only where has_element.
    bool is_bound, has_element;
    // FAILED: all of it in a sentence
    char text[640];
};

// What is run: a few small cases, or all of them.
enum eq_check_level {
    EQ_CHECK_TINY,  // small cases, on both families of kernels in blocks of 16: for simulators
    EQ_CHECK_QUICK, // small cases, on the device's own kernels
    EQ_CHECK_FULL,  // every case on every family
};

struct eq_check_params {
    enum eq_check_level level;
    bool is_patient; // FULL: what most drivers take minutes to compile is checked in every variant and block, and not in a few
    void (*sink)(void *user, const struct eq_check_event *event);
    void *user;
};

// A function that is run `num` times, with indices from 0; num 0 means 1.
struct eq_check_entry {
    const char *name;
    void (*run)(int index);
    int num;
};
struct eq_check_suite {
    const char *name;
    const struct eq_check_entry *entries;
    size_t num;
};

extern const struct eq_check_suite *const eq_check_suites[];
extern const int eq_check_num_suites;

// Suites run on this device from now on, which is the caller's. Its target changes while a case runs, and no longer.
void eq_check_use(struct eq_device *device, const struct eq_check_params *params);
// Channels in a block of that device's own kernels.
int eq_check_block(void);
// One run of an entry, and the suite: all of them. Return the number of failures.
int eq_check_run_entry(const struct eq_check_entry *entry, int index);
int eq_check_run(const struct eq_check_suite *suite);

#endif

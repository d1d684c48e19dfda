// Tuning: measures the choices that a network's kernels leave open on a device, and keeps the fastest in a file that
// eq_device_open() reads from then on.
//
// Nothing is ever tuned silently: another tile sums in another order, and a training run that is resumed promises the same
// bits. Checkpoints name the tuning of their run.
//
// Threads: one at a time per device; callbacks come on that thread, and must not use the device. Two processes, or devices in
// two threads, may tune into files of their own; into one file, the last one to write wins. Base.h has what holds for
// lifetimes: nothing of params is kept.
#ifndef EQUIL_TUNE_H
#define EQUIL_TUNE_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { EQ_TUNE_WHY_BYTES = 160 };
// Asked, with the progress function's `user`, before a candidate of the choice `key` is compiled and run, unless it is the
// default: EQ_OK, to go on with it; EQ_ERR_BUILD, to leave it out, with the reason in why ("was stopped by signal 11"); any
// other ends the tuning. For programs that try it in another process first (eq_tune_rehearse()), where a compiler or a kernel
// that crashes or hangs does no harm. What was left out is remembered in FILE.failed, and neither asked for nor compiled by
// later calls with this driver and library.
typedef eq_status (*eq_tune_rehearse_fn)(void *user, const char *key, int candidate, char why[EQ_TUNE_WHY_BYTES]);

struct eq_tune_params {
    struct eq_model_params model;
    const char *op;  // only calls of this op: conv2d, conv2d_data_grad, conv2d_weight_grad ...; NULL: of all
    int batch, size; // images, and pixels of a side, >= 0; 0 means 16, and 224 (small networks: 32)
    bool training;   // the calls of a training step; else those of evaluation
    double seconds;  // begin no choice after this time; 0: go on to the end
    bool again;      // measure also what the file has, from the first choice on
    const char *out; // file to extend, or to make; NULL: what EQUIL_TUNING names, else the device's own
    eq_tune_rehearse_fn rehearse; // for programs that try candidates in another process first; NULL: all are measured
};

// A choice of a call, before each candidate and at its end.
struct eq_tune_progress {
    const char *layer, *op, *key; // valid during the call
    int call, num_calls;          // from 0, of those that have choices
    int candidate, num_candidates;
    bool is_done;                 // what follows is known:
    char values[112];             // the fastest: "pixels 6 blocks 4 order 2"
    bool is_default;              // it is the one that is taken where the file has none
    double seconds, default_seconds;
    int num_rejected;             // candidates that failed or computed something else: never taken
    const char *rejected;         // why the last of them was
};
// Returns whether to go on.
typedef bool (*eq_tune_progress_fn)(void *user, const struct eq_tune_progress *progress);

struct eq_tune_summary {
    char path[1024];  // of the file
    int num_measured; // choices, num_changed of them away from the default
    int num_changed;
    int num_known;    // were in the file, measured with this driver
    int num_rejected; // candidates
    bool is_complete; // nothing is left to measure
};

// Measures choice after choice. Every candidate is verified before and after it is timed; it must beat the default by more than
// 2 %. The file is written anew, beside and renamed, after every choice: what was measured is kept whatever happens, and the
// next call goes on from there. What was measured with another driver is marked, and measured again. The device keeps the
// tuning it was opened with. progress NULL: none. Errors: EQ_ERR_INTERRUPTED (progress returned false, or rehearse says so),
// EQ_ERR_NOT_FOUND (no network of that name, or no op of that name has choices), EQ_ERR_ARGUMENT (a negative number, the
// network's parameters, a path that does not fit, a file that was measured on another device or has [sections] for several, no
// file where EQUIL_TUNING is 0), EQ_ERR_SHAPE (images too small), EQ_ERR_NUMERIC (the device computes wrongly), EQ_ERR_FORMAT
// (the file is no tuning), EQ_ERR_IO (it cannot be read or written, or there is no home for it), EQ_ERR_DEVICE_MEMORY,
// EQ_ERR_BUILD and EQ_ERR_UNSUPPORTED (the default itself), what rehearse returns. What candidates do wrong is no error.
// summary is filled in all cases, up to where it ended.
EQ_API eq_status eq_tune_network(struct eq_device *device, const struct eq_tune_params *params, eq_tune_progress_fn progress,
                                 void *user, struct eq_tune_summary *summary);

// Compiles candidates of one choice, into the caches, and runs each once, in the process that may not survive it: those that
// next() names, until it names a negative one. params are those of the eq_tune_network() that asks, which waits meanwhile; the
// choices that were made are read from its file. next() is called again when a candidate has run, or does not compile, which
// is not reported. Takes the memory of the call that is tuned, as eq_tune_network() does. Errors: EQ_ERR_NOT_FOUND (no such
// choice), EQ_ERR_ARGUMENT (also a candidate that there is not), EQ_ERR_DEVICE (running failed, and what the driver does after
// that is not known: end the process), and as above.
EQ_API eq_status eq_tune_rehearse(struct eq_device *device, const struct eq_tune_params *params, const char *key,
                                  int (*next)(void *user), void *user);

#ifdef __cplusplus
}
#endif
#endif

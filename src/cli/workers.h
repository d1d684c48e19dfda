// Processes that compile a network's kernels ahead of the one that needs them. OpenCL compilers serve one thread at a time, so
// processes are what uses several processors; what they compile is shared through the caches on disk.
#ifndef EQUIL_CLI_WORKERS_H
#define EQUIL_CLI_WORKERS_H

#include <sys/types.h>

#include "equil/equil.h"

enum { MAX_WORKERS = 8 };

// What is to be compiled.
struct workers_job {
    struct eq_ahead_params params;
    const char *device, *precision; // as given on the command line, or NULL
};

struct workers {
    struct workers_job job;
    pid_t pids[MAX_WORKERS];
    int num;
    int tickets; // pipe: a number for every kernel, counted from the last; who reads it compiles it
};

// For main(): this program is `equil`, so another of it can be started as a worker. Without this there are none.
void workers_allow(void);
bool workers_are_allowed(void);

// Number of processors, at most MAX_WORKERS.
int workers_processors(void);

// Starts `num` processes `equil compile --worker`; fewer, or none, where that fails. One of the two ends must follow.
void workers_start(struct workers *workers, const struct workers_job *job, int num);
// Waits until all have ended; true: all of them in success.
bool workers_wait(struct workers *workers);
// Ends what still runs.
void workers_stop(struct workers *workers);

// For a command that opened `device` and is going to run the network: starts a process less than there are processors where
// that is worth it (eq_ahead_is_due()), and ends what is left of them; is_done: the network ran, its kernels are compiled.
void workers_help(struct workers *workers, const struct eq_device *device, const struct workers_job *job);
void workers_end_help(struct workers *workers, const struct eq_device *device, bool is_done);

// The kernel to compile next, by a pipe of tickets; negative: none is left.
int workers_take(int tickets, int num_kernels);

#endif

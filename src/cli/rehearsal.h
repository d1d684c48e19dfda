// Candidates of a tuning, each compiled and run once in another process before the one that measures them does so: OpenCL
// compilers, and kernels, may crash or hang. The other process is this program once more, started anew for each choice, and
// after each candidate that it did not survive; the process that measures has opened a device, and must not fork.
#ifndef EQUIL_CLI_REHEARSAL_H
#define EQUIL_CLI_REHEARSAL_H

#include <signal.h>
#include <sys/types.h>

#include "equil/equil.h"

struct rehearsal {
    char **arguments; // the command's own, which the other process gets, too
    int num_arguments;
    int seconds;                             // that it may take to try a candidate
    const volatile sig_atomic_t *is_stopped; // somebody asked for an end
    // kept by the functions below
    bool is_off; // there is no other process
    pid_t pid;   // 0: none runs
    int socket;
    char key[256]; // of the choice it tries candidates of
};

// Tries the candidate there. EQ_OK: it can be tried here, or no process could be started, which is said once;
// EQ_ERR_BUILD: the process did not survive it, for the reason in `why`; EQ_ERR_INTERRUPTED: *is_stopped.
eq_status rehearsal_try(struct rehearsal *rehearsal, const char *key, int candidate, char why[EQ_TUNE_WHY_BYTES]);
// Ends the process, if there is one.
void rehearsal_end(struct rehearsal *rehearsal);

// What the other process does, in place of tuning; returns the exit code.
int rehearsal_work(const char *selector, const char *precision, const struct eq_tune_params *params, const char *key);

#endif

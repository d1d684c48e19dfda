// The two processes talk through a socket, which is the standard input of the one that tries: a byte says that it is ready
// for a candidate, the number of which follows. It ends when the other one does.
#include "rehearsal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "child.h"
#include "command.h"
#include "network.h"
#include "output.h"
#include "workers.h"

// For opening the device and planning the network, which is not the candidate's fault.
enum { START_SECONDS = 120 };

enum answer { ANSWER_READY, ANSWER_NONE, ANSWER_LATE, ANSWER_STOPPED };

extern char **environ;

// ---- the process that measures

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static bool spawn(struct rehearsal *rehearsal, int input, const char *key)
{
    const int num = rehearsal->num_arguments;
    char **arguments = malloc(((size_t)num + 4) * sizeof *arguments);
    posix_spawn_file_actions_t actions;
    if (!arguments || posix_spawn_file_actions_init(&actions) != 0) {
        free(arguments);
        return false;
    }
    arguments[0] = (char *)"equil";
    arguments[1] = rehearsal->arguments[0]; // tune
    arguments[2] = (char *)"--worker";      // before what may end in --
    arguments[3] = (char *)key;
    memcpy(arguments + 4, rehearsal->arguments + 1, (size_t)(num - 1) * sizeof *arguments);
    arguments[num + 3] = NULL;
    const bool is_started = posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO) == 0 &&
                            posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0) == 0 &&
                            posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0) == 0 &&
                            posix_spawn(&rehearsal->pid, "/proc/self/exe", &actions, NULL, arguments, environ) == 0;
    posix_spawn_file_actions_destroy(&actions);
    free(arguments);
    return is_started;
}

static enum answer wait_for_answer(const struct rehearsal *rehearsal, int seconds)
{
    const double deadline = now() + seconds;
    for (;;) {
        const double left = deadline - now();
        struct pollfd wait = { .fd = rehearsal->socket, .events = POLLIN };
        char ready;
        if (*rehearsal->is_stopped)
            return ANSWER_STOPPED;
        if (left <= 0)
            return ANSWER_LATE;
        const int num = poll(&wait, 1, (int)(left * 1000) + 1);
        if (num > 0)
            return read(rehearsal->socket, &ready, 1) == 1 ? ANSWER_READY : ANSWER_NONE;
        if (num < 0 && errno != EINTR)
            return ANSWER_NONE;
    }
}

static enum answer start(struct rehearsal *rehearsal, const char *key)
{
    int ends[2];
    if (!workers_are_allowed() || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return ANSWER_NONE;
    const bool is_started = spawn(rehearsal, ends[1], key);
    close(ends[1]);
    if (!is_started) {
        rehearsal->pid = 0;
        close(ends[0]);
        return ANSWER_NONE;
    }
    rehearsal->socket = ends[0];
    snprintf(rehearsal->key, sizeof rehearsal->key, "%s", key);
    return wait_for_answer(rehearsal, START_SECONDS);
}

// Ends what may hang; returns how it ended.
static int end(struct rehearsal *rehearsal, bool is_to_be_killed)
{
    int status = 0;
    if (is_to_be_killed)
        kill(rehearsal->pid, SIGKILL);
    close(rehearsal->socket);
    waitpid(rehearsal->pid, &status, 0);
    rehearsal->pid = 0;
    return status;
}

void rehearsal_end(struct rehearsal *rehearsal)
{
    if (rehearsal->pid)
        end(rehearsal, true);
}

static eq_status begin(struct rehearsal *rehearsal, const char *key)
{
    const enum answer answer = start(rehearsal, key);
    if (answer == ANSWER_READY)
        return EQ_OK;
    rehearsal_end(rehearsal);
    if (answer == ANSWER_STOPPED)
        return EQ_ERR_INTERRUPTED;
    rehearsal->is_off = true;
    message("candidates are tried in this process alone: no other one for it could be started");
    return EQ_OK;
}

// is_asked: it has got the candidate.
static enum answer ask(struct rehearsal *rehearsal, int candidate, bool *is_asked)
{
    const int32_t number = candidate;
    *is_asked = send(rehearsal->socket, &number, sizeof number, MSG_NOSIGNAL) == (ssize_t)sizeof number;
    return *is_asked ? wait_for_answer(rehearsal, rehearsal->seconds) : ANSWER_NONE;
}

eq_status rehearsal_try(struct rehearsal *rehearsal, const char *key, int candidate, char why[EQ_TUNE_WHY_BYTES])
{
    enum answer answer = ANSWER_NONE;
    bool is_asked;
    int ending = 0;
    if (rehearsal->pid && strcmp(rehearsal->key, key) != 0)
        rehearsal_end(rehearsal);
    // A process that had gone before, or that somebody killed, a system without memory perhaps, proves nothing the first time.
    for (int tries = 0; tries < 2; tries++) {
        const eq_status status = rehearsal->pid || rehearsal->is_off ? EQ_OK : begin(rehearsal, key);
        if (status != EQ_OK || rehearsal->is_off)
            return status;
        answer = ask(rehearsal, candidate, &is_asked);
        if (answer == ANSWER_READY)
            return EQ_OK;
        ending = end(rehearsal, answer != ANSWER_NONE);
        if (answer != ANSWER_NONE || (is_asked && !(WIFSIGNALED(ending) && WTERMSIG(ending) == SIGKILL)))
            break;
    }
    if (answer == ANSWER_STOPPED)
        return EQ_ERR_INTERRUPTED;
    if (answer == ANSWER_LATE)
        snprintf(why, EQ_TUNE_WHY_BYTES, "did not end within %d s", rehearsal->seconds);
    else if (!child_ending(ending, why))
        snprintf(why, EQ_TUNE_WHY_BYTES, "ended the process");
    return EQ_ERR_BUILD;
}

// ---- the process that tries

static int next_candidate(void *user)
{
    int32_t number;
    (void)user;
    if (send(STDIN_FILENO, "", 1, MSG_NOSIGNAL) != 1 ||
        recv(STDIN_FILENO, &number, sizeof number, MSG_WAITALL) != (ssize_t)sizeof number)
        return -1;
    return number;
}

// Signals of the terminal are for the process that measures; when that has gone, what hangs goes, too. A crash is to
// be one, without a core file: PoCL has a handler that carries on after some.
static void set_signals(void)
{
    static const int ignored[] = { SIGINT, SIGTERM, SIGHUP }, faults[] = { SIGSEGV, SIGBUS, SIGILL, SIGABRT };
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        signal(ignored[i], SIG_IGN);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        signal(faults[i], SIG_DFL);
    setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
    prctl(PR_SET_PDEATHSIG, SIGKILL);
}

int rehearsal_work(const char *selector, const char *precision, const struct eq_tune_params *params, const char *key)
{
    struct eq_device *device;
    if (open_device(selector, precision, &device) != EQ_OK)
        return fail_with_last_error(NULL);
    set_signals();
    const eq_status status = eq_tune_rehearse(device, params, key, next_candidate, NULL);
    eq_device_destroy(&device);
    return status == EQ_OK ? EXIT_SUCCESS : fail_with_last_error(NULL);
}

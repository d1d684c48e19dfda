#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "child.h"

// RETURNED: status of a process whose function returned. A driver or a compiler in it may call exit(0).
enum { MAX_DATA = 8 << 20, RETURNED = 89 };

static double now_seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

// Where records go; take NULL: everything is kept.
struct follower {
    size_t record_bytes;
    void (*take)(void *user, const void *record);
    void *user;
};

// Hands over the whole records among child->data, and keeps the rest. Returns whether there was one.
static bool hand_over(const struct follower *follower, struct child *child)
{
    size_t at = 0;
    for (; child->bytes - at >= follower->record_bytes; at += follower->record_bytes)
        follower->take(follower->user, child->data + at);
    memmove(child->data, child->data + at, child->bytes - at + 1);
    child->bytes -= at;
    return at > 0;
}

// Appends what comes until the end of the pipe; false when the time is over or memory ran out.
static bool read_all(int fd, int seconds, const struct follower *follower, struct child *child)
{
    char piece[65536];
    double deadline = now_seconds() + seconds;
    for (;;) {
        const double left = deadline - now_seconds();
        struct pollfd wait = { .fd = fd, .events = POLLIN };
        const int ready = left > 0 ? poll(&wait, 1, (int)(left * 1000) + 1) : 0;
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return false;
        const ssize_t got = read(fd, piece, sizeof piece);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0;
        char *data = child->bytes + (size_t)got < MAX_DATA ? realloc(child->data, child->bytes + (size_t)got + 1) : NULL;
        if (!data)
            return false;
        child->data = data;
        memcpy(data + child->bytes, piece, (size_t)got);
        child->bytes += (size_t)got;
        data[child->bytes] = '\0';
        if (follower->take && hand_over(follower, child))
            deadline = now_seconds() + seconds;
    }
}

static void keep_last_words(FILE *file, struct child *child)
{
    char line[sizeof child->last_words];
    if (fseek(file, 0, SEEK_SET) != 0)
        return;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        if (*line)
            memcpy(child->last_words, line, sizeof line);
    }
}

bool child_ending(int status, char text[160])
{
    if (WIFSIGNALED(status))
        snprintf(text, 160, "was stopped by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else if (WEXITSTATUS(status) != 0)
        snprintf(text, 160, "ended the process with status %d", WEXITSTATUS(status));
    else
        return false;
    return true;
}

static void describe_ending(int status, bool is_late, int seconds, const struct follower *follower, struct child *child)
{
    child->is_late = is_late;
    if (is_late)
        snprintf(child->ending, sizeof child->ending, follower->take ? "did nothing for %d s" : "did not end within %d s",
                 seconds);
    else if (WIFEXITED(status) && WEXITSTATUS(status) == RETURNED)
        child->is_done = true;
    else if (!child_ending(status, child->ending))
        snprintf(child->ending, sizeof child->ending, "ended before it was done, with status 0");
}

// In the new process: nothing of it reaches the user's terminal, a crash is a crash, without a core file, and what hangs goes
// with the process that waits for it.
static void run_child(void (*run)(int fd, const void *argument), const void *argument, pid_t parent, int fd, int errors)
{
    static const int faults[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT };
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        signal(faults[i], SIG_DFL);
    setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    const int null = open("/dev/null", O_RDWR);
    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
    }
    dup2(errors, STDERR_FILENO);
    run(fd, argument);
    _exit(RETURNED);
}

static void run_apart(void (*run)(int fd, const void *argument), const void *argument, int seconds,
                      const struct follower *follower, struct child *child)
{
    int ends[2], status = 0;
    *child = (struct child){ .data = NULL };
    FILE *errors = tmpfile(), *fallback = errors ? NULL : fopen("/dev/null", "r+"), *file = errors ? errors : fallback;
    if (!file || pipe(ends) != 0) {
        snprintf(child->ending, sizeof child->ending, "could not be tried: %s", strerror(errno));
        if (file)
            fclose(file);
        return;
    }
    fflush(stdout);
    const pid_t parent = getpid(), pid = fork();
    if (pid == 0) {
        close(ends[0]);
        run_child(run, argument, parent, ends[1], fileno(file));
    }
    close(ends[1]);
    const bool is_late = pid > 0 && !read_all(ends[0], seconds, follower, child);
    if (pid > 0 && is_late)
        kill(pid, SIGKILL);
    if (pid > 0 && waitpid(pid, &status, 0) == pid)
        describe_ending(status, is_late, seconds, follower, child);
    else
        snprintf(child->ending, sizeof child->ending, "could not be tried: no process for it");
    close(ends[0]);
    keep_last_words(file, child);
    fclose(file);
}

void child_try(void (*run)(int fd, const void *argument), const void *argument, int seconds, struct child *child)
{
    run_apart(run, argument, seconds, &(struct follower){ .take = NULL }, child);
}

void child_follow(void (*run)(int fd, const void *argument), const void *argument, int seconds, size_t record_bytes,
                  void (*take)(void *user, const void *record), void *user, struct child *child)
{
    run_apart(run, argument, seconds, &(struct follower){ record_bytes, take, user }, child);
}

void child_write(int fd, const void *data, size_t bytes)
{
    const char *at = data;
    while (bytes > 0) {
        const ssize_t written = write(fd, at, bytes);
        if (written <= 0)
            _exit(1);
        at += written;
        bytes -= (size_t)written;
    }
}

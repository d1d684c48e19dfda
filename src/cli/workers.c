#include "workers.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

// More than the kernels of any network, and what a pipe takes at once.
enum { NUM_TICKETS = 8192, MAX_ARGUMENTS = 32 };

extern char **environ;

static bool is_allowed;

void workers_allow(void)
{
    is_allowed = true;
}

bool workers_are_allowed(void)
{
    return is_allowed;
}

int workers_processors(void)
{
    const long num = sysconf(_SC_NPROCESSORS_ONLN);
    return num < 1 ? 1 : num > MAX_WORKERS ? MAX_WORKERS : (int)num;
}

// A pipe with the tickets in it, to read from; -1 where there is none.
static int make_tickets(void)
{
    uint16_t numbers[NUM_TICKETS];
    int ends[2];
    for (int i = 0; i < NUM_TICKETS; i++)
        numbers[i] = (uint16_t)i;
    if (pipe(ends) != 0)
        return -1;
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    fcntl(ends[1], F_SETFD, FD_CLOEXEC);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    const bool is_written = write(ends[1], numbers, sizeof numbers) == (ssize_t)sizeof numbers;
    close(ends[1]);
    if (is_written)
        return ends[0];
    close(ends[0]);
    return -1;
}

// The first kernels are left to the process that runs the network: it comes to them first.
int workers_take(int tickets, int num_kernels)
{
    uint16_t number;
    if (read(tickets, &number, sizeof number) != (ssize_t)sizeof number)
        return -1;
    return num_kernels - 1 - (int)number;
}

static bool start_one(const struct workers *workers, pid_t *pid)
{
    const struct eq_ahead_params *p = &workers->job.params;
    char batch[16], size[16], classes[16];
    const char *arguments[MAX_ARGUMENTS] = { "equil", "compile", "--worker", "--arch", p->model.arch, "--batch", batch,
                                             "--size", size, "--classes", classes, "--act",
                                             p->model.act == EQ_ELU ? "elu" : "relu", "--mode",
                                             p->training ? "train" : "infer" };
    int num = 15;
    snprintf(batch, sizeof batch, "%d", p->n);
    snprintf(size, sizeof size, "%d", p->size);
    snprintf(classes, sizeof classes, "%d", p->model.classes);
    if (p->model.small)
        arguments[num++] = "--small";
    if (p->model.recompute)
        arguments[num++] = "--recompute";
    if (workers->job.device) {
        arguments[num++] = "--device";
        arguments[num++] = workers->job.device;
    }
    if (workers->job.precision) {
        arguments[num++] = "--precision";
        arguments[num++] = workers->job.precision;
    }
    posix_spawn_file_actions_t actions;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return false;
    const bool is_started = posix_spawn_file_actions_adddup2(&actions, workers->tickets, STDIN_FILENO) == 0 &&
                            posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0) == 0 &&
                            posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0) == 0 &&
                            posix_spawn(pid, "/proc/self/exe", &actions, NULL, (char *const *)arguments, environ) == 0;
    posix_spawn_file_actions_destroy(&actions);
    return is_started;
}

void workers_start(struct workers *workers, const struct workers_job *job, int num)
{
    *workers = (struct workers){ .job = *job, .tickets = make_tickets() };
    while (is_allowed && workers->tickets >= 0 && workers->num < num && workers->num < MAX_WORKERS &&
           start_one(workers, &workers->pids[workers->num]))
        workers->num++;
}

bool workers_wait(struct workers *workers)
{
    bool is_good = true;
    for (int i = 0; i < workers->num; i++) {
        int status = -1;
        is_good &= waitpid(workers->pids[i], &status, 0) == workers->pids[i] && status == 0;
    }
    if (workers->tickets >= 0)
        close(workers->tickets);
    *workers = (struct workers){ .tickets = -1 };
    return is_good;
}

void workers_stop(struct workers *workers)
{
    for (int i = 0; i < workers->num; i++)
        kill(workers->pids[i], SIGTERM);
    workers_wait(workers);
}

void workers_help(struct workers *workers, const struct eq_device *device, const struct workers_job *job)
{
    *workers = (struct workers){ .job = *job, .tickets = -1 };
    if (workers_processors() > 1 && eq_ahead_is_due(device, &job->params))
        workers_start(workers, job, workers_processors() - 1);
}

void workers_end_help(struct workers *workers, const struct eq_device *device, bool is_done)
{
    const struct eq_ahead_params params = workers->job.params;
    const bool has_helped = workers->num > 0;
    workers_stop(workers);
    if (has_helped && is_done)
        eq_ahead_remember(device, &params);
}

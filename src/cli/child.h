// Things that may crash, hang or print, each in a process of its own: whatever touches a driver that may be broken. The program
// that runs them must not have touched OpenCL before, and never do so itself.
#ifndef EQUIL_CLI_CHILD_H
#define EQUIL_CLI_CHILD_H

#include <stdbool.h>
#include <stddef.h>

// The end of a process that tried something.
struct child {
    bool is_done;         // it returned and wrote everything
    bool is_late;         // it was stopped, as it took too long
    char ending[160];     // otherwise: "was stopped by signal 11 (Segmentation fault)", "did not end within 60 s"
    char last_words[256]; // the last line it, or a driver in it, wrote to stderr; empty
    char *data;           // what it wrote to `fd`, NUL after it; freed with free()
    size_t bytes;
};
// Runs the function in a process of its own.
void child_try(void (*run)(int fd, const void *argument), const void *argument, int seconds, struct child *child);
// The same for a process that writes records of one size: each is handed over when it is there and not kept. It is taken to
// hang when it has written none for so many seconds.
void child_follow(void (*run)(int fd, const void *argument), const void *argument, int seconds, size_t record_bytes,
                  void (*take)(void *user, const void *record), void *user, struct child *child);
// How a process ended: false for status 0, else the words of `ending` above.
bool child_ending(int status, char text[160]);
// In the new process: writes all of it, or ends the process.
void child_write(int fd, const void *data, size_t bytes);

#endif

// A run's log: one JSON object a line, only ever appended to; on resume it is cut back to what the checkpoint has seen.
#ifndef EQ_TRAIN_LOG_H
#define EQ_TRAIN_LOG_H

#include <jansson.h>

#include "base/base.h"

struct eq_train_log {
    FILE *file;
    char *path;
    int64_t lines;
};
// For a new run: renames a log of another one that is there, unless it is empty, to path and the first free of .1, .2 ..., and
// says so in the library's log.
eq_status eq_train_log_set_aside(const char *path);
// Opens path, keeping its first `lines` lines (fewer where it has fewer).
eq_status eq_train_log_open(struct eq_train_log *log, const char *path, int64_t lines);
// Appends the object as a line, and frees it; NULL is a lack of memory.
eq_status eq_train_log_write(struct eq_train_log *log, json_t *object);
void eq_train_log_close(struct eq_train_log *log); // a zeroed log is allowed

#endif

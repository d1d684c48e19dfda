#include "train/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static eq_status fail_log(const char *path, const char *what)
{
    return eq_fail(EQ_ERR_IO, "%s: cannot %s: %s", path, what, strerror(errno));
}

eq_status eq_train_log_open(struct eq_train_log *log, const char *path, int64_t bytes)
{
    *log = (struct eq_train_log){ .path = eq_strdup(path) };
    if (!log->path)
        return EQ_ERR_HOST_MEMORY;
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return fail_log(path, "open");
    log->file = fdopen(fd, "wb");
    if (!log->file) {
        close(fd);
        return fail_log(path, "open");
    }
    off_t end = lseek(fd, 0, SEEK_END);
    log->bytes = end < bytes ? end : bytes;
    if (end < 0 || ftruncate(fd, log->bytes) != 0 || fseek(log->file, (long)log->bytes, SEEK_SET) != 0)
        return fail_log(path, "cut it back");
    return EQ_OK;
}

eq_status eq_train_log_write(struct eq_train_log *log, json_t *object)
{
    EQ_REQUIRE(object, EQ_ERR_HOST_MEMORY, "out of memory: a line of the log");
    bool ok = json_dumpf(object, log->file, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9)) == 0;
    json_decref(object);
    ok = ok && fputc('\n', log->file) != EOF && fflush(log->file) == 0;
    if (!ok)
        return fail_log(log->path, "write");
    log->bytes = ftell(log->file);
    return EQ_OK;
}

void eq_train_log_close(struct eq_train_log *log)
{
    if (log->file)
        fclose(log->file);
    free(log->path);
    *log = (struct eq_train_log){ 0 };
}

#include "train/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/json.h"

static eq_status fail_log(const char *path, const char *what)
{
    return eq_fail(EQ_ERR_IO, "%s: cannot %s: %s", path, what, strerror(errno));
}

// The first name behind `path` that is free. malloc'ed, NULL on no memory.
static char *free_name(const char *path)
{
    for (int i = 1;; i++) {
        struct eq_str name = { 0 };
        eq_str_append(&name, "%s.%d", path, i);
        if (name.failed || !eq_file_exists(name.text))
            return name.text;
        eq_str_free(&name);
    }
}

eq_status eq_train_log_set_aside(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size == 0)
        return EQ_OK;
    char *name = free_name(path);
    if (!name)
        return EQ_ERR_HOST_MEMORY;
    eq_status status = EQ_OK;
    if (rename(path, name) == 0)
        eq_log(EQ_LOG_WARNING, "%s: the log of another run was there; it is %s now", path, name);
    else
        status = eq_fail(EQ_ERR_IO, "%s: the log of another run is there, and cannot be renamed to %s: %s", path, name,
                         strerror(errno));
    free(name);
    return status;
}

// Position behind the first `lines` whole lines; *found is how many there are of them.
static long find_end(FILE *file, int64_t lines, int64_t *found)
{
    long end = 0, at = 0;
    *found = 0;
    for (int c; *found < lines && (c = getc(file)) != EOF;) {
        at++;
        if (c != '\n')
            continue;
        end = at;
        ++*found;
    }
    return end;
}

eq_status eq_train_log_open(struct eq_train_log *log, const char *path, int64_t lines)
{
    *log = (struct eq_train_log){ .path = eq_strdup(path) };
    if (!log->path)
        return EQ_ERR_HOST_MEMORY;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return fail_log(path, "open");
    log->file = fdopen(fd, "r+b");
    if (!log->file) {
        close(fd);
        return fail_log(path, "open");
    }
    long end = find_end(log->file, lines, &log->lines);
    if (ferror(log->file) || fseek(log->file, end, SEEK_SET) != 0 || ftruncate(fd, end) != 0)
        return fail_log(path, "cut it back");
    return EQ_OK;
}

eq_status eq_train_log_write(struct eq_train_log *log, json_t *object)
{
    EQ_REQUIRE(object, EQ_ERR_HOST_MEMORY, "out of memory: a line of the log");
    char *text = eq_json_text(object, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
    json_decref(object);
    if (!text)
        return EQ_ERR_HOST_MEMORY;
    const size_t bytes = strlen(text);
    text[bytes] = '\n'; // in place of the NUL
    const bool ok = fwrite(text, 1, bytes + 1, log->file) == bytes + 1 && fflush(log->file) == 0;
    const int error = errno;
    free(text);
    errno = error;
    if (!ok)
        return fail_log(log->path, "write");
    log->lines++;
    return EQ_OK;
}

void eq_train_log_close(struct eq_train_log *log)
{
    if (log->file)
        fclose(log->file);
    free(log->path);
    *log = (struct eq_train_log){ 0 };
}

// Status codes, the thread's error text, the log, checked allocation.
#include <stdlib.h>
#include <string.h>
#include <pthread.h>

#include "base/base.h"

enum { ERROR_BYTES = 4096 };
static _Thread_local char error_text[ERROR_BYTES];

static eq_log_fn log_fn;
static void *log_user;
static enum eq_log_level log_level;
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

const char *eq_status_name(eq_status status)
{
    static const char *const names[] = {
        "EQ_OK",        "EQ_ERR_ARGUMENT", "EQ_ERR_SHAPE", "EQ_ERR_HOST_MEMORY", "EQ_ERR_DEVICE_MEMORY", "EQ_ERR_DEVICE",
        "EQ_ERR_BUILD", "EQ_ERR_IO",       "EQ_ERR_FORMAT", "EQ_ERR_NOT_FOUND",  "EQ_ERR_UNSUPPORTED",   "EQ_ERR_NUMERIC",
        "EQ_ERR_INTERRUPTED",
    };
    if ((int)status < 0 || (size_t)status >= sizeof names / sizeof *names)
        return "unknown status";
    return names[status];
}

const char *eq_last_error(void)
{
    return error_text;
}

const char *eq_version(void)
{
    return EQ_VERSION;
}

eq_status eq_fail(eq_status status, const char *format, ...)
{
    char text[ERROR_BYTES]; // apart, because the arguments may hold error_text itself
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    memcpy(error_text, text, sizeof text);
    return status;
}

void eq_log_set(eq_log_fn fn, void *user, enum eq_log_level level)
{
    log_fn = fn;
    log_user = user;
    log_level = level;
}

void eq_log(enum eq_log_level level, const char *format, ...)
{
    if (!log_fn || level > log_level)
        return;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pthread_mutex_lock(&log_lock);
    log_fn(log_user, level, text);
    pthread_mutex_unlock(&log_lock);
}

void *eq_calloc(size_t count, size_t size)
{
    void *data = calloc(count ? count : 1, size ? size : 1);
    if (!data)
        eq_fail(EQ_ERR_HOST_MEMORY, "out of memory: %zu items of %zu bytes", count, size);
    return data;
}

void *eq_malloc(size_t count, size_t size)
{
    bool fits = !size || count <= SIZE_MAX / size;
    size_t bytes = fits ? count * size : 0;
    void *data = fits ? malloc(bytes > 0 ? bytes : 1) : NULL;
    if (!data)
        eq_fail(EQ_ERR_HOST_MEMORY, "out of memory: %zu items of %zu bytes", count, size);
    return data;
}

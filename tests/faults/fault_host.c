// The library's calls of the C library: memory, files, threads; and the memory of the libraries that it uses.
#include "fault.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jerror.h>
#include <jpeglib.h>

long fault_dies_at;

// ---- memory

void *__real_malloc(size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__real_calloc(size_t num, size_t bytes);
void *__wrap_calloc(size_t num, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void *__wrap_realloc(void *memory, size_t bytes);
void __real_free(void *memory);
void __wrap_free(void *memory);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t length);

static bool memory_fails(const char *function)
{
    return fault_hits(FAULT_MEMORY, function, "memory");
}

void *__wrap_malloc(size_t bytes)
{
    void *memory = memory_fails("malloc") ? NULL : __real_malloc(bytes);
    fault_owns(memory, bytes);
    return memory;
}

void *__wrap_calloc(size_t num, size_t bytes)
{
    void *memory = memory_fails("calloc") ? NULL : __real_calloc(num, bytes);
    fault_owns(memory, num * bytes);
    return memory;
}

void *__wrap_realloc(void *old, size_t bytes)
{
    if (memory_fails("realloc"))
        return NULL;
    fault_disowns(old);
    void *memory = __real_realloc(old, bytes);
    fault_owns(memory, bytes);
    return memory;
}

void __wrap_free(void *memory)
{
    fault_disowns(memory);
    __real_free(memory);
}

char *__wrap_strndup(const char *text, size_t length)
{
    const size_t used = strnlen(text, length);
    char *copy = memory_fails("strndup") ? NULL : __real_malloc(used + 1);
    fault_owns(copy, used + 1);
    if (copy) {
        memcpy(copy, text, used);
        copy[used] = '\0';
    }
    return copy;
}

char *__wrap_strdup(const char *text)
{
    return __wrap_strndup(text, strlen(text));
}

static void *jansson_malloc(size_t bytes)
{
    void *memory = memory_fails("jansson") ? NULL : __real_malloc(bytes);
    fault_owns(memory, bytes);
    return memory;
}

void fault_route_memory(void)
{
    json_set_alloc_funcs(jansson_malloc, __wrap_free);
}

// libjpeg has no hook; where it allocates it fails as it does itself. What it holds is counted by its decoders.
static void jpeg_fails(j_decompress_ptr jpeg)
{
    jpeg->err->msg_code = JERR_OUT_OF_MEMORY;
    jpeg->err->msg_parm.i[0] = 0;
    jpeg->err->error_exit((j_common_ptr)jpeg);
}

void __real_jpeg_CreateDecompress(j_decompress_ptr jpeg, int version, size_t bytes);
void __wrap_jpeg_CreateDecompress(j_decompress_ptr jpeg, int version, size_t bytes);
void __wrap_jpeg_CreateDecompress(j_decompress_ptr jpeg, int version, size_t bytes)
{
    if (memory_fails("jpeg_CreateDecompress"))
        jpeg_fails(jpeg);
    __real_jpeg_CreateDecompress(jpeg, version, bytes);
}

boolean __real_jpeg_start_decompress(j_decompress_ptr jpeg);
boolean __wrap_jpeg_start_decompress(j_decompress_ptr jpeg);
boolean __wrap_jpeg_start_decompress(j_decompress_ptr jpeg)
{
    if (memory_fails("jpeg_start_decompress"))
        jpeg_fails(jpeg);
    return __real_jpeg_start_decompress(jpeg);
}

// ---- files: the disk is full, a sector cannot be read, there are no more files to open. Names with 64: how the C library's
// headers spell them for programs with large files.

// Counts the call; where the process is to die at it, it does.
static bool file_fails(const char *function, int error, const char *text)
{
    static long number;
    if (fault_dies_at && ++number == fault_dies_at)
        _exit(9);
    if (!fault_hits(FAULT_FILE, function, text))
        return false;
    errno = error;
    return true;
}

#define WRAP_FILE(type, name, failed, error, text, params, args)               \
    type __real_##name params;                                                 \
    type __wrap_##name params;                                                 \
    type __wrap_##name params                                                  \
    {                                                                          \
        return file_fails(#name, error, text) ? (failed) : __real_##name args; \
    }
#define WRAP_OPEN(type, name, failed, params, args, is_open)  \
    type __real_##name params;                                \
    type __wrap_##name params;                                \
    type __wrap_##name params                                 \
    {                                                         \
        if (file_fails(#name, EMFILE, "Too many open files")) \
            return failed;                                    \
        type made = __real_##name args;                       \
        fault_lives(FAULT_FILES, (is_open) ? 1 : 0);          \
        return made;                                          \
    }

WRAP_OPEN(FILE *, fopen64, NULL, (const char *path, const char *mode), (path, mode), made)
WRAP_OPEN(DIR *, opendir, NULL, (const char *path), (path), made)
WRAP_FILE(FILE *, fdopen, NULL, ENOMEM, "Cannot allocate memory", (int fd, const char *mode), (fd, mode))
WRAP_FILE(int, fflush, EOF, ENOSPC, "No space left on device", (FILE * file), (file))
WRAP_FILE(int, fsync, -1, EIO, "Input/output error", (int fd), (fd))
WRAP_FILE(int, fseek, -1, EIO, "Input/output error", (FILE * file, long at, int from), (file, at, from))
WRAP_FILE(int, ftruncate64, -1, EIO, "Input/output error", (int fd, off_t bytes), (fd, bytes))
WRAP_FILE(int, mkdir, -1, ENOSPC, "No space left on device", (const char *path, mode_t mode), (path, mode))
WRAP_FILE(int, rename, -1, EACCES, "Permission denied", (const char *from, const char *to), (from, to))
WRAP_FILE(int, unlink, -1, EACCES, "Permission denied", (const char *path), (path))
WRAP_FILE(int, unlinkat, -1, EACCES, "Permission denied", (int folder, const char *name, int flags), (folder, name, flags))
WRAP_FILE(ssize_t, pread64, -1, EIO, "Input/output error", (int fd, void *to, size_t bytes, off_t at), (fd, to, bytes, at))

int __real_openat64(int folder, const char *path, int flags, ...);
int __wrap_openat64(int folder, const char *path, int flags, ...);
int __wrap_openat64(int folder, const char *path, int flags, ...) // of files that are there
{
    if (file_fails("openat64", EMFILE, "Too many open files"))
        return -1;
    const int fd = __real_openat64(folder, path, flags);
    fault_lives(FAULT_FILES, fd >= 0 ? 1 : 0);
    return fd;
}

int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    const mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    const bool is_new = flags & O_CREAT;
    if (file_fails("open64", is_new ? ENOSPC : EMFILE, is_new ? "No space left on device" : "Too many open files"))
        return -1;
    const int fd = __real_open64(path, flags, mode);
    fault_lives(FAULT_FILES, fd >= 0 ? 1 : 0);
    return fd;
}

// Closes all the same, as the system does.
int __real_fclose(FILE *file);
int __wrap_fclose(FILE *file);
int __wrap_fclose(FILE *file)
{
    const bool fails = file_fails("fclose", EIO, "Input/output error");
    const int result = __real_fclose(file);
    fault_lives(FAULT_FILES, -1);
    errno = fails ? EIO : errno;
    return fails ? EOF : result;
}

int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd)
{
    fault_lives(FAULT_FILES, -1);
    return __real_close(fd);
}

int __real_closedir(DIR *folder);
int __wrap_closedir(DIR *folder);
int __wrap_closedir(DIR *folder)
{
    fault_lives(FAULT_FILES, -1);
    return __real_closedir(folder);
}

// Half of it comes through.
size_t __real_fwrite(const void *from, size_t bytes, size_t num, FILE *file);
size_t __wrap_fwrite(const void *from, size_t bytes, size_t num, FILE *file);
size_t __wrap_fwrite(const void *from, size_t bytes, size_t num, FILE *file)
{
    if (!file_fails("fwrite", ENOSPC, "No space left on device"))
        return __real_fwrite(from, bytes, num, file);
    const size_t done = __real_fwrite(from, bytes, num / 2, file);
    errno = ENOSPC;
    return done;
}

// A file that ends early, which has no errno.
size_t __real_fread(void *to, size_t bytes, size_t num, FILE *file);
size_t __wrap_fread(void *to, size_t bytes, size_t num, FILE *file);
size_t __wrap_fread(void *to, size_t bytes, size_t num, FILE *file)
{
    return file_fails("fread", 0, "became shorter") ? num / 2 : __real_fread(to, bytes, num, file);
}

// ---- threads

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *user);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *user);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *user)
{
    if (fault_hits(FAULT_THREAD, "pthread_create", "Resource temporarily unavailable"))
        return EAGAIN;
    return __real_pthread_create(thread, attributes, start, user);
}

// Files, folders, the monotonic clock. Atomic writes: locked temporary file beside the target, sync, rename, sync of the
// folder. A process that is killed leaves its temporary file, without the lock: the next writer of the path removes it. A
// rename would put a file in place of a link, a pipe or a device: links are followed first, and what is no regular file is
// written to as it is.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"

enum { MAX_LINKS = 40 }; // as the kernel

int64_t eq_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

bool eq_file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static eq_status read_open(FILE *file, const char *path, size_t max_bytes, char **data, size_t *bytes)
{
    struct stat info;
    EQ_REQUIRE(fstat(fileno(file), &info) == 0, EQ_ERR_IO, "%s: %s", path, strerror(errno));
    EQ_REQUIRE(S_ISREG(info.st_mode), EQ_ERR_IO, "%s: not a regular file", path);
    size_t size = (size_t)info.st_size;
    EQ_REQUIRE(size <= max_bytes, EQ_ERR_FORMAT, "%s: %zu bytes, at most %zu are read", path, size, max_bytes);
    char *text = malloc(size + 1);
    EQ_REQUIRE(text, EQ_ERR_HOST_MEMORY, "%s: out of memory: %zu bytes", path, size);
    if (fread(text, 1, size, file) != size) {
        free(text);
        return eq_fail(EQ_ERR_IO, "%s: %s", path, ferror(file) ? strerror(errno) : "the file became shorter while it was read");
    }
    text[size] = '\0';
    *data = text;
    *bytes = size;
    return EQ_OK;
}

eq_status eq_file_read(const char *path, size_t max_bytes, char **data, size_t *bytes)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a pipe would wait for a writer
    FILE *file = fd >= 0 ? fdopen(fd, "rb") : NULL;
    if (!file && fd >= 0)
        close(fd);
    EQ_REQUIRE(file, EQ_ERR_IO, "%s: %s", path, strerror(errno));
    eq_status status = read_open(file, path, max_bytes, data, bytes);
    fclose(file);
    return status;
}

eq_status eq_dir_make(const char *path)
{
    char *copy = eq_strdup(path);
    if (!copy)
        return EQ_ERR_HOST_MEMORY;
    eq_status status = EQ_OK;
    for (char *at = copy + 1; status == EQ_OK; at++) {
        if (*at != '/' && *at != '\0')
            continue;
        char held = *at;
        *at = '\0';
        if (mkdir(copy, 0777) != 0 && errno != EEXIST)
            status = eq_fail(EQ_ERR_IO, "%s: cannot make the folder: %s", copy, strerror(errno));
        *at = held;
        if (held == '\0')
            break;
    }
    struct stat info;
    if (status == EQ_OK && (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)))
        status = eq_fail(EQ_ERR_IO, "%s: not a folder", path);
    free(copy);
    return status;
}

eq_status eq_dir_lock(const char *path, int *lock)
{
    *lock = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    EQ_REQUIRE(*lock >= 0, EQ_ERR_IO, "%s: %s", path, strerror(errno));
    if (flock(*lock, LOCK_EX | LOCK_NB) == 0)
        return EQ_OK;
    const int error = errno;
    if (error != EWOULDBLOCK)
        eq_log(EQ_LOG_WARNING, "%s: cannot be locked against others: %s", path, strerror(error));
    EQ_REQUIRE(error != EWOULDBLOCK, EQ_ERR_ARGUMENT, "%s: locked by another process, or by another object of this one", path);
    return EQ_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static eq_status list_open(DIR *folder, const char *path, char ***names, size_t *num)
{
    char **list = NULL;
    size_t count = 0, capacity = 0;
    errno = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (count == capacity) {
            capacity = capacity ? 2 * capacity : 64;
            char **grown = realloc(list, capacity * sizeof *list);
            if (!grown) {
                eq_names_free(list, count);
                return eq_fail(EQ_ERR_HOST_MEMORY, "%s: out of memory after %zu names", path, count);
            }
            list = grown;
        }
        if (!(list[count] = eq_strdup(entry->d_name))) {
            eq_names_free(list, count);
            return EQ_ERR_HOST_MEMORY;
        }
        count++;
        errno = 0;
    }
    if (errno) {
        eq_names_free(list, count);
        return eq_fail(EQ_ERR_IO, "%s: %s", path, strerror(errno));
    }
    if (count)
        qsort(list, count, sizeof *list, by_name);
    *names = list;
    *num = count;
    return EQ_OK;
}

eq_status eq_dir_list(const char *path, char ***names, size_t *num)
{
    DIR *folder = opendir(path);
    EQ_REQUIRE(folder, EQ_ERR_IO, "%s: %s", path, strerror(errno));
    eq_status status = list_open(folder, path, names, num);
    closedir(folder);
    return status;
}

void eq_names_free(char **names, size_t num)
{
    for (size_t i = 0; i < num; i++)
        free(names[i]);
    free(names);
}

static void writer_clear(struct eq_writer *writer)
{
    free(writer->path);
    free(writer->temporary);
    *writer = (struct eq_writer){ 0 };
}

void eq_writer_abort(struct eq_writer *writer)
{
    if (writer->temporary)
        unlink(writer->temporary);
    if (writer->file)
        fclose(writer->file);
    writer_clear(writer);
}

// Reports errno for the target and removes the temporary file.
static eq_status writer_fail(struct eq_writer *writer, const char *what)
{
    eq_status status = eq_fail(EQ_ERR_IO, "%s: cannot %s: %s", writer->path, what, strerror(errno));
    eq_writer_abort(writer);
    return status;
}

// Folder of the path into `text` of strlen(path) + 2 bytes: "dir/" or "./".
static void folder_of(const char *path, char *text)
{
    const char *slash = strrchr(path, '/');
    const size_t length = slash ? (size_t)(slash - path) + 1 : 2;
    memcpy(text, slash ? path : "./", length);
    text[length] = '\0';
}

static bool is_temporary_of(const char *name, const char *target)
{
    const size_t length = strlen(target);
    return strncmp(name, target, length) == 0 && strncmp(name + length, ".tmp.", 5) == 0 &&
           strspn(name + length + 5, "0123456789.") == strlen(name + length + 5);
}

// A temporary file that can be locked has no writer any more: it was killed.
static void remove_stale(int folder, const char *name)
{
    const int fd = openat(folder, name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        unlinkat(folder, name, 0);
    close(fd);
}

// What writers of the path that were killed have left. Best effort: a folder that cannot be listed is left as it is.
static void clean_up(const char *path, char *scratch)
{
    const char *slash = strrchr(path, '/'), *target = slash ? slash + 1 : path;
    folder_of(path, scratch);
    DIR *folder = opendir(scratch);
    if (!folder)
        return;
    for (struct dirent *entry; (entry = readdir(folder));)
        if (is_temporary_of(entry->d_name, target))
            remove_stale(dirfd(folder), entry->d_name);
    closedir(folder);
}

// A new file beside the target, locked as long as it is open; -1 with errno. One that another writer's clean_up() took for
// stale before it was locked is gone again: then the next number.
static int make_temporary(struct eq_writer *writer, size_t capacity)
{
    static atomic_uint last_number; // of this process: threads may write one path
    for (;;) {
        snprintf(writer->temporary, capacity, "%s.tmp.%ld.%u", writer->path, (long)getpid(),
                 atomic_fetch_add(&last_number, 1) + 1);
        const int fd = open(writer->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        struct stat info;
        if (fd < 0 && errno == EEXIST)
            continue;
        const bool is_ours = fd >= 0 && (flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK);
        if (fd < 0 || (is_ours && fstat(fd, &info) == 0 && info.st_nlink > 0))
            return fd;
        close(fd);
    }
}

// malloc'ed path that the links of `path` lead to, whether there is something or not; NULL with the error recorded.
static char *follow_links(const char *path)
{
    char *at = eq_strdup(path), target[PATH_MAX];
    for (int links = 0; at && links < MAX_LINKS; links++) {
        const ssize_t length = readlink(at, target, sizeof target - 1);
        if (length < 0)
            break;
        target[length] = '\0';
        const char *slash = target[0] == '/' ? NULL : strrchr(at, '/'); // a relative one begins in the link's folder
        struct eq_str next = { 0 };
        eq_str_append(&next, "%.*s%s", slash ? (int)(slash - at) + 1 : 0, at, target);
        free(at);
        at = next.text;
    }
    return at;
}

// The new file is as open to others as the old one, if there was one. Best effort: not everybody may give a file away.
static void take_mode(int fd, const char *path)
{
    struct stat old;
    if (stat(path, &old) != 0)
        return;
    if (fchown(fd, old.st_uid, old.st_gid) != 0)
        old.st_mode &= 0777; // no bits that stand for an owner
    fchmod(fd, old.st_mode & 07777);
}

static eq_status open_target(struct eq_writer *writer)
{
    const size_t bytes = strlen(writer->path) + 48;
    int fd;
    EQ_REQUIRE(access(writer->path, W_OK) == 0 || errno == ENOENT, EQ_ERR_IO, "%s: cannot write: %s", writer->path,
               strerror(errno));
    if (writer->is_direct) {
        fd = open(writer->path, O_WRONLY | O_NOCTTY | O_CLOEXEC);
    } else {
        if (!(writer->temporary = eq_malloc(bytes, 1)))
            return EQ_ERR_HOST_MEMORY;
        clean_up(writer->path, writer->temporary);
        fd = make_temporary(writer, bytes);
        if (fd >= 0)
            take_mode(fd, writer->path);
    }
    writer->file = fd < 0 ? NULL : fdopen(fd, "wb");
    if (writer->file)
        return EQ_OK;
    const eq_status status = eq_fail(EQ_ERR_IO, "%s: cannot write: %s", writer->path, strerror(errno));
    if (fd >= 0) {
        close(fd);
        if (!writer->is_direct)
            unlink(writer->temporary);
    }
    return status;
}

eq_status eq_writer_open(struct eq_writer *writer, const char *path)
{
    struct stat info;
    const bool is_there = stat(path, &info) == 0;
    EQ_REQUIRE(is_there || errno != ELOOP, EQ_ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    *writer = (struct eq_writer){ .is_direct = is_there && !S_ISREG(info.st_mode) };
    writer->path = writer->is_direct ? eq_strdup(path) : follow_links(path);
    const eq_status status = writer->path ? open_target(writer) : EQ_ERR_HOST_MEMORY;
    if (status != EQ_OK)
        writer_clear(writer);
    return status;
}

eq_status eq_writer_write(struct eq_writer *writer, const void *data, size_t bytes)
{
    if (bytes && fwrite(data, 1, bytes, writer->file) != bytes)
        return writer_fail(writer, "write");
    return EQ_OK;
}

// A rename survives a power cut only when the folder is synced too; file systems that cannot do that are left as they are.
static void sync_folder(struct eq_writer *writer)
{
    folder_of(writer->path, writer->temporary);
    const int fd = open(writer->temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

// Pipes and most devices have nothing to sync.
static bool sync_file(const struct eq_writer *writer)
{
    return fsync(fileno(writer->file)) == 0 || (writer->is_direct && (errno == EINVAL || errno == EROFS));
}

// Closed last: the lock keeps other writers from the temporary file. What was synced cannot be lost by closing.
eq_status eq_writer_commit(struct eq_writer *writer)
{
    if (fflush(writer->file) != 0 || !sync_file(writer))
        return writer_fail(writer, "write");
    if (writer->is_direct) {
        fclose(writer->file);
        writer_clear(writer);
        return EQ_OK;
    }
    if (rename(writer->temporary, writer->path) != 0)
        return writer_fail(writer, "rename the temporary file to it");
    fclose(writer->file);
    sync_folder(writer);
    writer_clear(writer);
    return EQ_OK;
}

eq_status eq_file_write(const char *path, const void *data, size_t bytes)
{
    struct eq_writer writer;
    EQ_TRY(eq_writer_open(&writer, path));
    EQ_TRY(eq_writer_write(&writer, data, bytes));
    return eq_writer_commit(&writer);
}

eq_status eq_file_check(const char *path)
{
    struct eq_writer writer;
    struct stat info;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) { // not opened: the reader of a pipe would see its end
        const int error = S_ISDIR(info.st_mode) ? EISDIR : access(path, W_OK) == 0 ? 0 : errno;
        EQ_REQUIRE(!error, EQ_ERR_IO, "%s: cannot write: %s", path, strerror(error));
        return EQ_OK;
    }
    EQ_TRY(eq_writer_open(&writer, path));
    eq_writer_abort(&writer);
    return EQ_OK;
}

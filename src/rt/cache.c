// Bounding the folder of compiled kernels: the entries that were used longest ago go.
//
// An entry's time of modification is its last use: a hit sets it (access times are not kept on many file systems). The folder
// is looked at when an entry was written, which took a compilation and two syncs: listing some thousand names is little beside
// it, and a hit costs one system call. There is no lock and no list of entries: several processes may come to the same old
// ones, of which each is removed once and counts as gone for all of them. What a process has open stays readable; an entry that
// is used again between the look and its removal is a miss later on.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rt/internal.h"

// A network has some MiB of kernels, and each candidate of `equil tune` 50 to 200 KiB: room for several networks and a tuning.
enum { DEFAULT_MIB = 512, MAX_MIB = 1 << 20, NAME_DIGITS = 16 };

struct entry {
    const char *name;
    struct timespec used;
    size_t bytes;
};

eq_status eq_cache_limit(size_t *bytes)
{
    const char *text = eq_option(EQ_OPTION_CACHE_MIB);
    char *end = "";
    const long mib = text ? strtol(text, &end, 10) : DEFAULT_MIB;
    EQ_REQUIRE(!*end && mib >= 1 && mib <= MAX_MIB, EQ_ERR_ARGUMENT, "%s is '%s': it must be 1 to %d",
               eq_option_variable(EQ_OPTION_CACHE_MIB), text, MAX_MIB);
    *bytes = (size_t)mib << 20;
    return EQ_OK;
}

void eq_cache_touch(const char *path)
{
    utimensat(AT_FDCWD, path, NULL, 0);
}

// The name of an entry, as cache_path() of program.c makes it. Whatever else lies in the folder is somebody else's.
static bool is_entry(const char *name)
{
    return strspn(name, "0123456789abcdef") == NAME_DIGITS && strcmp(name + NAME_DIGITS, ".bin") == 0;
}

static int by_use(const void *a, const void *b)
{
    const struct timespec *x = &((const struct entry *)a)->used, *y = &((const struct entry *)b)->used;
    if (x->tv_sec != y->tv_sec)
        return x->tv_sec < y->tv_sec ? -1 : 1;
    return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

static bool look_at(int folder, const char *name, struct entry *entry)
{
    struct stat info;
    if (!is_entry(name) || fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(info.st_mode))
        return false;
    *entry = (struct entry){ .name = name, .used = info.st_mtim, .bytes = (size_t)info.st_size };
    return true;
}

// Down to 7/8 of the limit, so that the next entry does not come to it again. One that cannot be removed stays in the sum.
static void remove_oldest(int folder, const char *kept, struct entry *entries, size_t num, size_t limit)
{
    size_t sum = 0;
    for (size_t i = 0; i < num; i++)
        sum += entries[i].bytes;
    if (sum <= limit)
        return;
    qsort(entries, num, sizeof *entries, by_use);
    for (size_t i = 0; i < num && sum > limit / 8 * 7; i++)
        if (strcmp(entries[i].name, kept) != 0 && (unlinkat(folder, entries[i].name, 0) == 0 || errno == ENOENT))
            sum -= entries[i].bytes;
}

void eq_cache_trim(const char *folder, const char *kept, size_t limit)
{
    char **names;
    size_t num, num_entries = 0;
    if (eq_dir_list(folder, &names, &num) != EQ_OK)
        return;
    struct entry *entries = num ? eq_malloc(num, sizeof *entries) : NULL;
    const int fd = entries ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    for (size_t i = 0; i < num && fd >= 0; i++)
        num_entries += look_at(fd, names[i], &entries[num_entries]);
    if (fd >= 0) {
        remove_oldest(fd, kept, entries, num_entries, limit);
        close(fd);
    }
    free(entries);
    eq_names_free(names, num);
}

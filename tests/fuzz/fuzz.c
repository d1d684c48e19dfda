// Files of the fuzz targets.
#define _GNU_SOURCE
#include "fuzz.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *walk)
{
    (void)info;
    (void)kind;
    return walk->level == 0 ? 0 : remove(path);
}

void fuzz_clear(void)
{
    if (folder[0])
        nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void remove_folder(void)
{
    fuzz_clear();
    rmdir(folder);
}

const char *fuzz_path(const char *name)
{
    static char paths[4][512];
    static int next;
    if (!folder[0]) {
        snprintf(folder, sizeof folder, "%s/equil-fuzz-%ld", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp",
                 (long)getpid());
        CHECK(mkdir(folder, 0700) == 0);
        atexit(remove_folder);
    }
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

void fuzz_write(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    if (!file)
        return; // a name that the system refuses
    CHECK(fwrite(data, 1, bytes, file) == bytes);
    fclose(file);
}

char *fuzz_text(const uint8_t *data, size_t bytes)
{
    char *text = malloc(bytes + 1);
    CHECK(text);
    memcpy(text, data, bytes);
    text[bytes] = '\0';
    return text;
}

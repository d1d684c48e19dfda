// Folders that compiled kernels are kept in: can they be written, is there room? And the threads that decode images.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "doctor.h"

// The kernels of a network take some MiB with most drivers, 30 with PoCL.
enum { NEEDED_MIB = 32, WANTED_MIB = 256 };

// Makes the folder and those above it. *made: where the name of the first that was not there ends in the path, or behind its
// end.
static bool make_folder(char *path, size_t *made)
{
    const size_t length = strlen(path);
    *made = length + 1;
    for (size_t end = 1; end <= length; end++) {
        const char kept = path[end];
        if (kept != '/' && kept != '\0')
            continue;
        path[end] = '\0';
        const bool is_made = mkdir(path, 0777) == 0, is_there = is_made || errno == EEXIST;
        path[end] = kept;
        if (is_made && end < *made)
            *made = end;
        if (!is_there)
            return false;
    }
    return true;
}

// Takes away again what make_folder() has made.
static void remove_folders(char *path, size_t made)
{
    for (size_t end = strlen(path); end >= made; end--) {
        if (path[end] != '/' && path[end] != '\0')
            continue;
        path[end] = '\0';
        rmdir(path);
    }
}

// errno of writing a file in the folder, or 0.
static int try_writing(const char *folder)
{
    char path[DOCTOR_MAX_PATH + 32], block[4096] = { 0 };
    snprintf(path, sizeof path, "%s/doctor-XXXXXX", folder);
    const int fd = mkstemp(path);
    if (fd < 0)
        return errno;
    const int code = write(fd, block, sizeof block) == (ssize_t)sizeof block && fsync(fd) == 0 ? 0 : errno;
    close(fd);
    unlink(path);
    return code;
}

static void say_room(struct doctor *doctor, const char *folder, const char *what, const char *variable)
{
    struct statvfs room;
    char free_text[32];
    if (statvfs(folder, &room) != 0)
        return;
    const double free_bytes = (double)room.f_bavail * (double)room.f_frsize, mib = free_bytes / 1048576;
    format_bytes(free_text, (size_t)free_bytes);
    doctor_say(doctor,
               mib < NEEDED_MIB   ? DOCTOR_PROBLEM
               : mib < WANTED_MIB ? DOCTOR_NOTE
                                  : DOCTOR_OK,
               "cache", "%s (%s) can be written, %s free", folder, what, free_text);
    if (mib < WANTED_MIB)
        doctor_advise(doctor, "the kernels of a network take up to %d MiB: make room, or set %s to a folder with more",
                      NEEDED_MIB, variable);
}

static void check_folder(struct doctor *doctor, const char *folder, const char *what, const char *variable)
{
    char path[DOCTOR_MAX_PATH];
    size_t made;
    snprintf(path, sizeof path, "%s", folder);
    const int code = make_folder(path, &made) ? try_writing(path) : errno;
    if (code != 0) {
        doctor_say(doctor, DOCTOR_PROBLEM, "cache", "%s (%s) cannot be written: %s", folder, what, strerror(code));
        doctor_advise(doctor, "set %s to a folder that you may write, or give this one to yourself: sudo chown -R $USER '%s'",
                      variable, folder);
    } else {
        say_room(doctor, path, what, variable);
    }
    remove_folders(path, made);
}

static bool has_pocl(const struct doctor *doctor)
{
    for (int i = 0; i < doctor->num_icds; i++)
        if (strstr(doctor->icds[i].library, "pocl"))
            return true;
    return false;
}

// Where PoCL keeps its kernels, as it finds it.
static void pocl_folder(char path[DOCTOR_MAX_PATH])
{
    const char *own = doctor_variable("POCL_CACHE_DIR"), *xdg = doctor_variable("XDG_CACHE_HOME"),
               *home = doctor_variable("HOME");
    if (own)
        snprintf(path, DOCTOR_MAX_PATH, "%s", own);
    else if (xdg)
        snprintf(path, DOCTOR_MAX_PATH, "%s/pocl/kcache", xdg);
    else
        snprintf(path, DOCTOR_MAX_PATH, "%s%s", home ? home : "/tmp", home ? "/.cache/pocl/kcache" : "/pocl/kcache");
}

void doctor_check_caches(struct doctor *doctor)
{
    char path[DOCTOR_MAX_PATH];
    eq_device_cache_folder(path, sizeof path);
    if (*path) {
        check_folder(doctor, path, "Equil's compiled kernels", "EQUIL_CACHE_DIR");
    } else {
        doctor_say(doctor, DOCTOR_NOTE, "cache", "compiled kernels are not kept: EQUIL_CACHE is 0, or there is no home folder");
        doctor_advise(doctor, "set EQUIL_CACHE_DIR to a folder, and EQUIL_CACHE not at all");
    }
    if (has_pocl(doctor)) {
        pocl_folder(path);
        check_folder(doctor, path, "PoCL's compiled kernels", "POCL_CACHE_DIR");
    }
}

void doctor_check_threads(struct doctor *doctor)
{
    int num;
    if (eq_dataset_threads(&num) == EQ_OK) {
        doctor_say(doctor, DOCTOR_OK, "threads", "%d decode%s images", num, num == 1 ? "s" : "");
    } else {
        doctor_say(doctor, DOCTOR_PROBLEM, "threads", "%s", eq_last_error());
        doctor_advise(doctor, "train, eval and classify fail with it: unset EQUIL_THREADS, or set it to such a number");
    }
}

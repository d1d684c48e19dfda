// OpenCL's loader: which file it is, and whether it has what Equil calls.
#define _GNU_SOURCE // dladdr()
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "doctor.h"

// Functions that Equil calls: of OpenCL 1.0, and those that came with 1.2.
static const char *const functions[] = { "clGetPlatformIDs", "clCreateBuffer", "clEnqueueFillBuffer",
                                         "clEnqueueMarkerWithWaitList", "clEnqueueBarrierWithWaitList" };
enum { NUM_FUNCTIONS = sizeof functions / sizeof *functions };

static const char advice_missing[] = "install the loader: apt-get install ocl-icd-libopencl1 (Debian, Ubuntu), dnf install "
                                     "OpenCL-ICD-Loader (Fedora), pacman -S ocl-icd (Arch)";

// The loader that the dynamic linker has given this program.
static const char *missing_function(const char **path)
{
    void *loader = dlopen("libOpenCL.so.1", RTLD_LAZY);
    Dl_info info;
    *path = NULL;
    for (int i = 0; loader && i < NUM_FUNCTIONS; i++) {
        void *address = dlsym(loader, functions[i]);
        if (address && !*path && dladdr(address, &info))
            *path = info.dli_fname;
        if (!address)
            return functions[i];
    }
    return loader ? NULL : functions[0];
}

static void describe(int fd, const void *argument)
{
    struct eq_loader_info info;
    (void)argument;
    if (eq_loader_describe(&info) == EQ_OK && write(fd, &info, sizeof info) != (ssize_t)sizeof info)
        _exit(1);
}

void doctor_check_loader(struct doctor *doctor)
{
    const char *path, *missing = missing_function(&path);
    if (!path) {
        doctor_say(doctor, DOCTOR_PROBLEM, "loader", "libOpenCL.so.1 cannot be loaded: %s",
                   missing ? dlerror() : "no function in it");
        doctor_advise(doctor, "%s", advice_missing);
        return;
    }
    if (missing) {
        doctor_say(doctor, DOCTOR_PROBLEM, "loader", "%s is too old: it has no %s, which OpenCL 1.2 has", path, missing);
        doctor_advise(
            doctor, "some vendors' kits come with an old loader: take its folder out of LD_LIBRARY_PATH and /etc/ld.so.conf.d");
        doctor_advise(doctor, "%s", advice_missing);
        return;
    }
    struct child child;
    child_try(describe, NULL, 30, &child);
    if (child.bytes == sizeof doctor->loader)
        memcpy(&doctor->loader, child.data, sizeof doctor->loader);
    free(child.data);
    if (!child.is_done) {
        doctor_say(doctor, DOCTOR_PROBLEM, "loader", "%s %s when it was first called%s%s", path, child.ending,
                   *child.last_words ? ": " : "", child.last_words);
        doctor_advise(doctor, "the lines \"driver\" below say which driver it is; take its .icd file away");
        return;
    }
    const struct eq_loader_info *info = &doctor->loader;
    doctor_say(doctor, DOCTOR_OK, "loader", "%s: %s%s%s%s%s%s%s", path, *info->name ? info->name : "does not say what it is",
               *info->version ? " " : "", info->version, *info->vendor ? ", " : "", info->vendor,
               *info->opencl ? ", functions of " : "", info->opencl);
}

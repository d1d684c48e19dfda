// Preloaded: a driver that breaks on some of the programs that have $BREAK_PROGRAM in their options. In the order in which they
// are first met, by whatever process, the first is well, compiling the second crashes, the third hangs and is well the next
// time, the fourth is compiled, but crashes when one of its kernels is started, and with the fifth somebody kills the process,
// once. $BREAK_FOLDER keeps who is who, and a line "crash PROCESS", "hang PROCESS", "run PROCESS" or "kill PROCESS" for each
// that came to it, in the file attempts. With $BREAK_EXIT the first kernel that is started ends the process, with status 0.
#define _GNU_SOURCE // RTLD_NEXT
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static FILE *open_file(const char *name, const char *mode)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("BREAK_FOLDER"), name);
    return fopen(path, mode);
}

// From 1. One process at a time compiles.
static int number_of(const char *options)
{
    char line[4096];
    int number = 1;
    FILE *file = open_file("programs", "a+");
    rewind(file);
    for (; fgets(line, sizeof line, file); number++) {
        line[strcspn(line, "\n")] = '\0';
        if (strcmp(line, options) == 0) {
            fclose(file);
            return number;
        }
    }
    fprintf(file, "%s\n", options);
    fclose(file);
    return number;
}

static bool has_been(const char *what)
{
    char line[64];
    FILE *file = open_file("attempts", "a+");
    bool is_found = false;
    rewind(file);
    while (fgets(line, sizeof line, file))
        is_found |= strncmp(line, what, strlen(what)) == 0;
    fclose(file);
    return is_found;
}

static void note(const char *what)
{
    FILE *file = open_file("attempts", "a");
    fprintf(file, "%s %ld\n", what, (long)getpid());
    fclose(file);
}

static int number_wanted(const char *options)
{
    const char *wanted = getenv("BREAK_PROGRAM");
    return wanted && options && strstr(options, wanted) ? number_of(options) : 0;
}

typedef cl_int (*build_fn)(cl_program program, cl_uint num, const cl_device_id *ids, const char *options,
                           void(CL_CALLBACK *notify)(cl_program, void *), void *user);

cl_int clBuildProgram(cl_program program, cl_uint num, const cl_device_id *ids, const char *options,
                      void(CL_CALLBACK *notify)(cl_program, void *), void *user)
{
    build_fn build;
    const int number = number_wanted(options);
    if (number == 2) {
        note("crash");
        abort();
    }
    if (number == 3 && !has_been("hang")) {
        note("hang");
        for (;;)
            pause();
    }
    if (number == 5 && !has_been("kill")) {
        note("kill");
        raise(SIGKILL);
    }
    *(void **)&build = dlsym(RTLD_NEXT, "clBuildProgram");
    return build(program, num, ids, options, notify, user);
}

typedef cl_int (*start_fn)(cl_command_queue queue, cl_kernel kernel, cl_uint dims, const size_t *offset, const size_t *global,
                           const size_t *local, cl_uint num, const cl_event *wait, cl_event *event);

cl_int clEnqueueNDRangeKernel(cl_command_queue queue, cl_kernel kernel, cl_uint dims, const size_t *offset,
                              const size_t *global, const size_t *local, cl_uint num, const cl_event *wait, cl_event *event)
{
    start_fn start;
    cl_program program;
    cl_device_id device;
    char options[4096] = "";
    if (getenv("BREAK_EXIT"))
        exit(0);
    if (clGetKernelInfo(kernel, CL_KERNEL_PROGRAM, sizeof program, &program, NULL) == CL_SUCCESS &&
        clGetCommandQueueInfo(queue, CL_QUEUE_DEVICE, sizeof device, &device, NULL) == CL_SUCCESS &&
        clGetProgramBuildInfo(program, device, CL_PROGRAM_BUILD_OPTIONS, sizeof options, options, NULL) == CL_SUCCESS &&
        number_wanted(options) == 4) {
        note("run");
        abort();
    }
    *(void **)&start = dlsym(RTLD_NEXT, "clEnqueueNDRangeKernel");
    return start(queue, kernel, dims, offset, global, local, num, wait, event);
}

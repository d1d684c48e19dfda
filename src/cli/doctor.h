// Parts of `equil doctor`: each looks at one layer of what OpenCL stands on and says what it finds.
#ifndef EQUIL_CLI_DOCTOR_H
#define EQUIL_CLI_DOCTOR_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "child.h"
#include "equil/equil.h"
#include "output.h"

enum doctor_verdict { DOCTOR_OK, DOCTOR_NOTE, DOCTOR_PROBLEM, DOCTOR_NUM_VERDICTS };

enum { DOCTOR_MAX_PATH = 1024, DOCTOR_MAX_ICDS = 64, DOCTOR_MAX_GPUS = 32 };

// A driver as the loader is told of it.
struct doctor_icd {
    char file[DOCTOR_MAX_PATH];    // the .icd file, or the variable that names the library
    char library[DOCTOR_MAX_PATH]; // what it names
};

// A GPU of AMD, Intel or NVIDIA as the kernel sees it.
struct doctor_gpu {
    char pci[16];    // "0000:03:00.0"
    char driver[32]; // of the kernel: "amdgpu"; empty: none
    unsigned vendor; // PCI's number
};

struct doctor {
    const char *root;   // "", or the folder in whose dev, etc and sys everything is
    const char *device; // --device, or NULL
    bool is_json;
    json_t *findings;
    int counts[DOCTOR_NUM_VERDICTS];
    // What is known so far
    struct eq_loader_info loader;
    struct doctor_icd icds[DOCTOR_MAX_ICDS];
    int num_icds;
    struct eq_platform_info *platforms;
    int num_platforms;
    struct eq_device_info *devices;
    int num_devices;
    struct doctor_gpu gpus[DOCTOR_MAX_GPUS];
    int num_gpus;
};

// ---- findings (doctor.c)

// Prints a line: the verdict, what was looked at ("driver") and what was found.
void doctor_say(struct doctor *doctor, enum doctor_verdict verdict, const char *subject, const char *format, ...)
    OUTPUT_FORMAT(4, 5);
// What to do about the last finding: a line below it.
void doctor_advise(struct doctor *doctor, const char *format, ...) OUTPUT_FORMAT(2, 3);

// A variable of the environment that belongs to a driver or a loader; NULL: not set, or empty.
const char *doctor_variable(const char *name);

bool doctor_has_usable_device(const struct doctor *doctor);

// ---- checks, in this order

void doctor_check_loader(struct doctor *doctor);    // doctor_loader.c: is it there, is it new enough
void doctor_check_drivers(struct doctor *doctor);   // doctor_driver.c: the files that name drivers, and whether those load
void doctor_check_platforms(struct doctor *doctor); // doctor_device.c: asks the loader for platforms and devices
void doctor_check_gpus(struct doctor *doctor);      // doctor_gpu.c: GPUs, their nodes in /dev, rusticl
void doctor_check_caches(struct doctor *doctor);    // doctor_cache.c: folders of compiled kernels
void doctor_check_threads(struct doctor *doctor);   // doctor_cache.c: those that decode images
void doctor_check_devices(struct doctor *doctor);   // doctor_device.c: does each compute, is one of them there twice

// Whether two devices of different platforms are one piece of hardware.
bool doctor_is_same_device(const struct eq_device_info *a, const struct eq_device_info *b);

#endif

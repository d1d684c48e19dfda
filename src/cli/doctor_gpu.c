// GPUs as the kernel sees them, the nodes in /dev that drivers open, and rusticl, which has no device until it is told.
#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "doctor.h"

enum { VENDOR_AMD = 0x1002, VENDOR_NVIDIA = 0x10de, VENDOR_INTEL = 0x8086 };

static const char *vendor_name(unsigned vendor)
{
    return vendor == VENDOR_AMD ? "AMD" : vendor == VENDOR_NVIDIA ? "NVIDIA" : "Intel";
}

// ---- the PCI bus

// A number in a file of /sys, such as 0x030000; 0: none.
static unsigned read_number(const char *folder, const char *name)
{
    char path[2 * DOCTOR_MAX_PATH], text[32] = { 0 };
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    const bool is_read = fgets(text, sizeof text, file) != NULL;
    fclose(file);
    return is_read ? (unsigned)strtoul(text, NULL, 16) : 0;
}

static void read_link_name(const char *folder, const char *name, char out[32])
{
    char path[2 * DOCTOR_MAX_PATH], target[DOCTOR_MAX_PATH];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    const ssize_t length = readlink(path, target, sizeof target - 1);
    target[length > 0 ? length : 0] = '\0';
    const char *last = strrchr(target, '/');
    snprintf(out, 32, "%.31s", last ? last + 1 : target);
}

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

// Calls it for every entry of the folder, in the order of their names.
static void each_entry(struct doctor *doctor, const char *folder,
                       void (*visit)(struct doctor *, const char *folder, const char *name))
{
    struct dirent **entries;
    const int num = scandir(folder, &entries, is_visible, alphasort);
    for (int i = 0; i < num; i++) {
        visit(doctor, folder, entries[i]->d_name);
        free(entries[i]);
    }
    if (num >= 0)
        free(entries);
}

static void visit_pci(struct doctor *doctor, const char *folder, const char *name)
{
    char path[DOCTOR_MAX_PATH + 300];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    // display controllers, and accelerators (0x1200) such as AMD's Instinct
    const unsigned class = read_number(path, "class") >> 8, vendor = read_number(path, "vendor");
    const bool is_known = vendor == VENDOR_AMD || vendor == VENDOR_INTEL || vendor == VENDOR_NVIDIA;
    if ((class >> 8 != 0x03 && class != 0x1200) || !is_known || doctor->num_gpus == DOCTOR_MAX_GPUS)
        return;
    struct doctor_gpu *gpu = &doctor->gpus[doctor->num_gpus++];
    snprintf(gpu->pci, sizeof gpu->pci, "%.15s", name);
    gpu->vendor = vendor;
    read_link_name(path, "driver", gpu->driver);
}

// By PCI's address, or, where its driver does not say it, by the vendor.
static bool is_gpu(const struct doctor_gpu *gpu, const struct eq_device_info *device)
{
    if (strcmp(device->kind, "gpu") != 0)
        return false;
    if (*device->pci)
        return strcasecmp(device->pci, gpu->pci) == 0;
    const char *vendor = device->vendor;
    return gpu->vendor == VENDOR_AMD      ? strstr(vendor, "AMD") || strstr(vendor, "Advanced Micro")
           : gpu->vendor == VENDOR_NVIDIA ? strstr(vendor, "NVIDIA") != NULL
                                          : strstr(vendor, "Intel") != NULL;
}

static const struct eq_device_info *device_of(const struct doctor *doctor, const struct doctor_gpu *gpu)
{
    for (int i = 0; i < doctor->num_devices; i++)
        if (is_gpu(gpu, &doctor->devices[i]))
            return &doctor->devices[i];
    return NULL;
}

static void advise_driver(struct doctor *doctor, const struct doctor_gpu *gpu)
{
    if (gpu->vendor == VENDOR_AMD)
        doctor_advise(doctor,
                      "AMD: rusticl (mesa-opencl-icd, mesa-libOpenCL, opencl-mesa) with RUSTICL_ENABLE=radeonsi, or ROCm "
                      "(rocm-opencl-icd, rocm-opencl, rocm-opencl-runtime)");
    else if (gpu->vendor == VENDOR_INTEL)
        doctor_advise(
            doctor,
            "Intel: intel-opencl-icd (Debian, Ubuntu), intel-opencl (Fedora), intel-compute-runtime (Arch); graphics "
            "older than Gen12 want the releases called legacy; with an Arc card resizable BAR must be on in the firmware");
    else if (strcmp(gpu->driver, "nouveau") == 0)
        doctor_advise(doctor, "NVIDIA with the kernel's nouveau: rusticl with RUSTICL_ENABLE=nouveau, or NVIDIA's driver");
    else
        doctor_advise(doctor,
                      "NVIDIA: nvidia-opencl-icd (Debian), libnvidia-compute-... (Ubuntu), opencl-nvidia (Arch), of the "
                      "kernel driver's version");
}

static void check_gpu(struct doctor *doctor, const struct doctor_gpu *gpu)
{
    const struct eq_device_info *device = device_of(doctor, gpu);
    const char *name = vendor_name(gpu->vendor);
    if (device) {
        doctor_say(doctor, DOCTOR_OK, "gpu", "%s at PCI %s, kernel driver %s: device %d, %s", name, gpu->pci,
                   *gpu->driver ? gpu->driver : "unknown", device->index, device->name);
    } else if (!*gpu->driver) {
        doctor_say(doctor, DOCTOR_NOTE, "gpu", "%s at PCI %s has no kernel driver", name, gpu->pci);
        doctor_advise(doctor, "load it (modprobe %s), or install it",
                      gpu->vendor == VENDOR_AMD     ? "amdgpu"
                      : gpu->vendor == VENDOR_INTEL ? "i915, or xe"
                                                    : "nvidia");
    } else if (strcmp(gpu->driver, "vfio-pci") == 0) {
        doctor_say(doctor, DOCTOR_NOTE, "gpu", "%s at PCI %s is kept for a virtual machine (vfio-pci)", name, gpu->pci);
    } else {
        doctor_say(doctor, doctor_has_usable_device(doctor) ? DOCTOR_NOTE : DOCTOR_PROBLEM, "gpu",
                   "%s at PCI %s, kernel driver %s: no OpenCL driver has it", name, gpu->pci, gpu->driver);
        advise_driver(doctor, gpu);
    }
}

// ---- nodes

static void advise_permission(struct doctor *doctor, const char *path, const struct stat *about)
{
    const struct group *group = getgrgid(about->st_gid);
    const bool helps = (about->st_mode & 0060) == 0060 && about->st_gid != 0;
    if (helps && group)
        doctor_advise(doctor, "sudo usermod -aG %s $USER, then log in again", group->gr_name);
    else if (helps)
        doctor_advise(doctor, "in a container: docker run --group-add %u, the number of the host's group",
                      (unsigned)about->st_gid);
    else
        doctor_advise(
            doctor, "its group has no access: systemd's rules for udev give it to the group render; for now sudo chmod a+rw %s",
            path);
}

static void check_node(struct doctor *doctor, const char *path)
{
    struct stat about;
    if (access(path, R_OK | W_OK) == 0) {
        doctor_say(doctor, DOCTOR_OK, "node", "%s can be opened", path);
        return;
    }
    const char *why = strerror(errno);
    if (stat(path, &about) != 0) {
        doctor_say(doctor, DOCTOR_PROBLEM, "node", "%s: %s", path, strerror(errno));
        return;
    }
    doctor_say(doctor, DOCTOR_PROBLEM, "node", "%s (mode %04o, user %u, group %u) cannot be opened by user %u: %s", path,
               (unsigned)(about.st_mode & 07777), (unsigned)about.st_uid, (unsigned)about.st_gid, (unsigned)geteuid(), why);
    advise_permission(doctor, path, &about);
}

static void visit_dri(struct doctor *doctor, const char *folder, const char *name)
{
    char path[DOCTOR_MAX_PATH + 300];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (strncmp(name, "renderD", 7) == 0)
        check_node(doctor, path);
}

static void visit_dev(struct doctor *doctor, const char *folder, const char *name)
{
    char path[DOCTOR_MAX_PATH + 300];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    const bool is_nvidia = strcmp(name, "nvidiactl") == 0 || strcmp(name, "nvidia-uvm") == 0 ||
                           (strncmp(name, "nvidia", 6) == 0 && name[6] >= '0' && name[6] <= '9');
    if (strcmp(name, "kfd") == 0 || is_nvidia)
        check_node(doctor, path);
}

static bool exists(const struct doctor *doctor, const char *name)
{
    char path[DOCTOR_MAX_PATH + 64];
    snprintf(path, sizeof path, "%s/dev/%s", doctor->root, name);
    return access(path, F_OK) == 0;
}

// GPUs with a driver of the kernel whose nodes are not there: a container that was not given them.
static void check_missing_nodes(struct doctor *doctor)
{
    bool wants_dri = false, wants_nvidia = false;
    for (int i = 0; i < doctor->num_gpus; i++) {
        const char *driver = doctor->gpus[i].driver;
        wants_nvidia |= strcmp(driver, "nvidia") == 0;
        wants_dri |= *driver && strcmp(driver, "nvidia") != 0 && strcmp(driver, "vfio-pci") != 0;
    }
    if (wants_dri && !exists(doctor, "dri")) {
        doctor_say(doctor, DOCTOR_PROBLEM, "node", "%s/dev/dri is not there, though the kernel has a driver for the GPU",
                   doctor->root);
        doctor_advise(doctor, "in a container: docker run --device /dev/dri (and --device /dev/kfd for ROCm)");
    }
    if (wants_nvidia && !exists(doctor, "nvidiactl")) {
        doctor_say(doctor, DOCTOR_PROBLEM, "node", "%s/dev/nvidiactl is not there, though the kernel has NVIDIA's driver",
                   doctor->root);
        doctor_advise(doctor, "sudo nvidia-modprobe -u; in a container: docker run --gpus all");
    }
}

// ---- rusticl

// What RUSTICL_ENABLE calls the driver of this machine's GPU; NULL: none that is known.
static const char *rusticl_driver(const struct doctor *doctor)
{
    static const struct {
        const char *kernel, *mesa;
    } names[] = {
        { "amdgpu", "radeonsi" }, { "radeon", "radeonsi" }, { "i915", "iris" }, { "xe", "iris" }, { "nouveau", "nouveau" }
    };
    for (int i = 0; i < doctor->num_gpus; i++)
        for (size_t k = 0; k < sizeof names / sizeof *names; k++)
            if (strcmp(doctor->gpus[i].driver, names[k].kernel) == 0)
                return names[k].mesa;
    return NULL;
}

static bool has_rusticl(const struct doctor *doctor)
{
    for (int i = 0; i < doctor->num_icds; i++)
        if (strstr(doctor->icds[i].library, "Rusticl"))
            return true;
    return false;
}

static int rusticl_devices(const struct doctor *doctor)
{
    int num = 0;
    for (int i = 0; i < doctor->num_platforms; i++)
        num += strcmp(doctor->platforms[i].name, "rusticl") == 0 ? doctor->platforms[i].num_devices : 0;
    return num;
}

static void check_rusticl(struct doctor *doctor)
{
    const char *enabled = doctor_variable("RUSTICL_ENABLE"), *driver = rusticl_driver(doctor);
    const int num = rusticl_devices(doctor);
    if (!has_rusticl(doctor))
        return;
    if (num > 0) {
        doctor_say(doctor, DOCTOR_OK, "rusticl", "has %d device%s, RUSTICL_ENABLE is '%s'", num, num == 1 ? "" : "s",
                   enabled ? enabled : "");
        return;
    }
    const enum doctor_verdict verdict = !doctor_has_usable_device(doctor) ? DOCTOR_PROBLEM
                                        : enabled || driver               ? DOCTOR_NOTE
                                                                          : DOCTOR_OK;
    if (enabled)
        doctor_say(doctor, verdict, "rusticl", "has no device: RUSTICL_ENABLE is '%s', which finds no hardware here", enabled);
    else
        doctor_say(doctor, verdict, "rusticl", "is installed and has no device: RUSTICL_ENABLE is not set");
    if (verdict != DOCTOR_OK && driver)
        doctor_advise(doctor, "export RUSTICL_ENABLE=%s (for this machine's GPU)", driver);
    else if (verdict != DOCTOR_OK)
        doctor_advise(doctor,
                      "export RUSTICL_ENABLE=llvmpipe (the processor), radeonsi (AMD), iris (Intel), nouveau (NVIDIA without "
                      "its own driver) or another of Mesa's drivers");
}

void doctor_check_gpus(struct doctor *doctor)
{
    char folder[DOCTOR_MAX_PATH];
    snprintf(folder, sizeof folder, "%s/sys/bus/pci/devices", doctor->root);
    each_entry(doctor, folder, visit_pci);
    for (int i = 0; i < doctor->num_gpus; i++)
        check_gpu(doctor, &doctor->gpus[i]);
    check_missing_nodes(doctor);
    snprintf(folder, sizeof folder, "%s/dev/dri", doctor->root);
    each_entry(doctor, folder, visit_dri);
    snprintf(folder, sizeof folder, "%s/dev", doctor->root);
    each_entry(doctor, folder, visit_dev);
    check_rusticl(doctor);
}

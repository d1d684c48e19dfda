// Drivers as the loader finds them, by the rules of the two loaders there are.
//
// ocl-icd (Debian, Ubuntu, Arch): every *.icd of $OPENCL_VENDOR_PATH or /etc/OpenCL/vendors; $OCL_ICD_VENDORS is another
// folder, or one .icd file (without a slash: first looked for in that folder), or the driver's library itself. The library is
// named in the file's first line. Khronos (newer Fedoras): every *.icd of $OCL_ICD_VENDORS or /etc/OpenCL/vendors, named by the
// whole file without its last newline, and the libraries in $OCL_ICD_FILENAMES, separated by colons.
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "doctor.h"

enum { MAX_ICD_FILE = 4096 };

static const char *const advice_install[] = {
    "Debian, Ubuntu: apt-get install pocl-opencl-icd (processors), intel-opencl-icd, mesa-opencl-icd (rusticl: AMD and "
    "others); "
    "NVIDIA: nvidia-opencl-icd with Debian's driver, libnvidia-compute-... with Ubuntu's",
    "Fedora: dnf install pocl (processors), intel-opencl, mesa-libOpenCL (rusticl: AMD and others), rocm-opencl (AMD)",
    "Arch: pacman -S pocl (processors), intel-compute-runtime, opencl-mesa (rusticl), rocm-opencl-runtime (AMD), opencl-nvidia",
};

static void advise_install(struct doctor *doctor)
{
    for (size_t i = 0; i < sizeof advice_install / sizeof *advice_install; i++)
        doctor_advise(doctor, "%s", advice_install[i]);
}

static bool is_khronos(const struct doctor *doctor)
{
    return strstr(doctor->loader.vendor, "Khronos") != NULL;
}

static bool ends_in_icd(const char *name)
{
    const size_t length = strlen(name);
    return length > 4 && strcmp(name + length - 4, ".icd") == 0;
}

static void add_icd(struct doctor *doctor, const char *file, const char *library)
{
    if (doctor->num_icds == DOCTOR_MAX_ICDS)
        return;
    struct doctor_icd *icd = &doctor->icds[doctor->num_icds++];
    snprintf(icd->file, sizeof icd->file, "%s", file);
    snprintf(icd->library, sizeof icd->library, "%s", library);
}

// The name in the file as the loader takes it: with what stands before the newline, blanks and returns too.
static void read_icd(struct doctor *doctor, const char *path)
{
    char text[MAX_ICD_FILE] = { 0 };
    FILE *file = fopen(path, "r");
    if (!file) {
        doctor_say(doctor, DOCTOR_PROBLEM, "driver", "%s cannot be read: %s", path, strerror(errno));
        doctor_advise(doctor, "sudo chmod a+r %s", path);
        return;
    }
    const size_t bytes = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    const size_t length = strcspn(text, "\n"), name = strcspn(text, " \t\r\n");
    const bool has_more = bytes > length + 1;
    if (name == 0) {
        doctor_say(doctor, DOCTOR_PROBLEM, "driver", "%s names no library%s", path,
                   bytes ? " in its first line" : ": it is empty");
        doctor_advise(doctor, "install the driver that it belongs to again, or remove the file");
        return;
    }
    text[length] = '\0';
    const bool is_path_with_blanks = name != length && access(text, F_OK) == 0;
    if ((name != length && !is_path_with_blanks) || (has_more && is_khronos(doctor))) {
        doctor_say(doctor, DOCTOR_PROBLEM, "driver", "%s has %s behind \"%.*s\", which the loader takes for a part of the name",
                   path,
                   name == length       ? "more lines"
                   : text[name] == '\r' ? "a carriage return"
                                        : "a blank",
                   (int)name, text);
        doctor_advise(doctor, "echo %.*s | sudo tee %s", (int)name, text, path);
        return;
    }
    add_icd(doctor, path, text);
}

static int is_icd_entry(const struct dirent *entry)
{
    return ends_in_icd(entry->d_name);
}

static void read_folder(struct doctor *doctor, const char *folder)
{
    struct dirent **entries;
    const int num = scandir(folder, &entries, is_icd_entry, alphasort);
    if (num <= 0) {
        doctor_say(doctor, DOCTOR_PROBLEM, "driver",
                   "%s%s: no OpenCL driver is installed, or the loader looks in the wrong place", folder,
                   num < 0 ? " is not there" : " has no .icd file");
        if (doctor_variable("OCL_ICD_VENDORS"))
            doctor_advise(doctor,
                          "OCL_ICD_VENDORS is set to '%s'; drivers are installed to /etc/OpenCL/vendors: unset OCL_ICD_VENDORS",
                          doctor_variable("OCL_ICD_VENDORS"));
        advise_install(doctor);
    }
    for (int i = 0; i < num; i++) {
        char path[2 * DOCTOR_MAX_PATH];
        snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        read_icd(doctor, path);
        free(entries[i]);
    }
    if (num >= 0)
        free(entries);
}

static bool is_folder(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

// $OCL_ICD_VENDORS where it is no folder.
static void read_vendors_file(struct doctor *doctor, const char *vendors, const char *standard)
{
    char path[2 * DOCTOR_MAX_PATH];
    snprintf(path, sizeof path, "%s/%s", standard, vendors);
    if (is_khronos(doctor)) {
        doctor_say(doctor, DOCTOR_PROBLEM, "driver", "OCL_ICD_VENDORS is '%s', which is no folder: this loader wants one",
                   vendors);
        doctor_advise(doctor, "unset OCL_ICD_VENDORS, or let it name a folder with .icd files");
    } else if (ends_in_icd(vendors)) {
        const bool is_name = !strchr(vendors, '/') && access(path, F_OK) == 0;
        read_icd(doctor, is_name ? path : vendors);
    } else {
        add_icd(doctor, "OCL_ICD_VENDORS", vendors);
    }
}

static void read_filenames(struct doctor *doctor, const char *names)
{
    char library[DOCTOR_MAX_PATH];
    while (*names) {
        const size_t length = strcspn(names, ":");
        snprintf(library, sizeof library, "%.*s", (int)length, names);
        if (length > 0)
            add_icd(doctor, "OCL_ICD_FILENAMES", library);
        names += length + (names[length] == ':');
    }
}

static void find_icds(struct doctor *doctor)
{
    char standard[DOCTOR_MAX_PATH];
    const char *vendors = doctor_variable("OCL_ICD_VENDORS"), *other = doctor_variable("OPENCL_VENDOR_PATH"),
               *names = doctor_variable("OCL_ICD_FILENAMES");
    snprintf(standard, sizeof standard, "%s/etc/OpenCL/vendors", doctor->root);
    if (other && !is_khronos(doctor))
        snprintf(standard, sizeof standard, "%s", other);
    if (names && is_khronos(doctor))
        read_filenames(doctor, names);
    if (vendors && !is_folder(vendors) && (ends_in_icd(vendors) || access(vendors, F_OK) == 0 || !strchr(vendors, '/')))
        read_vendors_file(doctor, vendors, standard);
    else
        read_folder(doctor, vendors ? vendors : standard);
}

// ---- loading

// What a driver's process writes: how far it came, then the dynamic linker's text.
enum { STAGE_LINKER = 'l', STAGE_SYMBOL = 's', STAGE_ASKED = 'a' };

static void tell(int fd, char stage, const char *text)
{
    char line[1024];
    const int length = snprintf(line, sizeof line, "%c%s", stage, text);
    if (write(fd, line, strlen(line)) < length)
        _exit(1);
}

// As the loader does it.
static void load_driver(int fd, const void *argument)
{
    void *(*extension)(const char *) = NULL;
    int (*platforms)(unsigned, void **, unsigned *) = NULL;
    unsigned num = 0;
    char text[32];
    void *library = dlopen(argument, RTLD_LAZY | RTLD_LOCAL);
    if (!library) {
        tell(fd, STAGE_LINKER, dlerror());
        return;
    }
    void *address = dlsym(library, "clGetExtensionFunctionAddress");
    memcpy(&extension, &address, sizeof extension);
    void *found = extension ? extension("clIcdGetPlatformIDsKHR") : NULL;
    if (!found)
        found = dlsym(library, "clIcdGetPlatformIDsKHR");
    if (!extension || !found) {
        tell(fd, STAGE_SYMBOL, extension ? "clIcdGetPlatformIDsKHR" : "clGetExtensionFunctionAddress");
        return;
    }
    memcpy(&platforms, &found, sizeof platforms);
    if (platforms(0, NULL, &num) != 0)
        num = 0;
    snprintf(text, sizeof text, "%u", num);
    tell(fd, STAGE_ASKED, text);
}

static void advise_linker(struct doctor *doctor, const struct doctor_icd *icd, const char *text)
{
    const bool is_itself = strncmp(text, icd->library, strlen(icd->library)) == 0;
    if (is_itself && strstr(text, "No such file"))
        doctor_advise(doctor, "the driver is gone, or not where its file says: install it again, or sudo rm %s", icd->file);
    else if (strstr(text, "No such file"))
        doctor_advise(doctor, "%.*s is a library that the driver needs: install the package that has it",
                      (int)strcspn(text, ":"), text);
    else if (strstr(text, "Permission denied"))
        doctor_advise(doctor, "sudo chmod a+rx %s", icd->library);
    else if (strstr(text, "ELF") || strstr(text, "too short"))
        doctor_advise(doctor,
                      "it is no library for this machine, or a damaged one: install the driver again, or remove its .icd file");
    else
        doctor_advise(doctor,
                      "the driver and the system's libraries are of different releases: install the driver of this system");
    if (strcmp(icd->file, "OCL_ICD_VENDORS") != 0 && strcmp(icd->file, "OCL_ICD_FILENAMES") != 0)
        doctor_advise(doctor, "whose file that is: dpkg -S %s (Debian, Ubuntu), rpm -qf %s (Fedora), pacman -Qo %s (Arch)",
                      icd->file, icd->file, icd->file);
}

static void say_stage(struct doctor *doctor, const struct doctor_icd *icd, const char *data)
{
    const int num = atoi(data + 1);
    if (*data == STAGE_LINKER) {
        doctor_say(doctor, DOCTOR_PROBLEM, "driver", "%s names %s, which cannot be loaded: %s", icd->file, icd->library,
                   data + 1);
        advise_linker(doctor, icd, data + 1);
    } else if (*data == STAGE_SYMBOL) {
        doctor_say(doctor, DOCTOR_PROBLEM, "driver", "%s names %s, which is no OpenCL driver: it has no %s", icd->file,
                   icd->library, data + 1);
        doctor_advise(doctor, "let the file name the driver's library; libOpenCL.so itself is the loader, not a driver");
    } else if (num == 0) {
        doctor_say(doctor, DOCTOR_NOTE, "driver", "%s: %s loads, but has no platform: it finds no hardware of its own",
                   icd->file, icd->library);
    } else {
        doctor_say(doctor, DOCTOR_OK, "driver", "%s: %s loads, %d platform%s", icd->file, icd->library, num,
                   num == 1 ? "" : "s");
    }
}

static void check_icd(struct doctor *doctor, int index)
{
    const struct doctor_icd *icd = &doctor->icds[index];
    for (int i = 0; i < index; i++)
        if (strcmp(doctor->icds[i].library, icd->library) == 0) {
            doctor_say(doctor, DOCTOR_NOTE, "driver", "%s and %s both name %s: its devices may be listed twice",
                       doctor->icds[i].file, icd->file, icd->library);
            doctor_advise(doctor, "remove one of the two");
            return;
        }
    struct child child;
    child_try(load_driver, icd->library, 60, &child);
    if (child.is_done && child.bytes > 0) {
        say_stage(doctor, icd, child.data);
    } else {
        doctor_say(doctor, DOCTOR_PROBLEM, "driver", "%s: %s %s while it was loaded%s%s", icd->file, icd->library,
                   child.is_done ? "said nothing" : child.ending, *child.last_words ? ": " : "", child.last_words);
        doctor_advise(doctor, "every OpenCL program will do so: update the driver, or take its .icd file away");
        doctor_advise(doctor,
                      "to go on without it: put the other .icd files into a folder of your own and set OCL_ICD_VENDORS to it");
    }
    free(child.data);
}

void doctor_check_drivers(struct doctor *doctor)
{
    find_icds(doctor);
    for (int i = 0; i < doctor->num_icds; i++)
        check_icd(doctor, i);
}

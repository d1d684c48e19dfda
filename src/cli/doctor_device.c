// Platforms and devices as OpenCL lists them; whether each device computes; devices that are there twice.
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "doctor.h"

// ---- listing

struct listing {
    int num_platforms, num_devices;
};

// In a process of its own. argument: --device.
static void list_all(int fd, const void *argument)
{
    struct eq_platform_info *platforms = NULL;
    struct eq_device_info *devices = NULL;
    struct listing listing;
    if (eq_platform_list(&platforms, &listing.num_platforms) != EQ_OK ||
        eq_device_list(argument, &devices, &listing.num_devices) != EQ_OK)
        _exit(1);
    child_write(fd, &listing, sizeof listing);
    child_write(fd, platforms, (size_t)listing.num_platforms * sizeof *platforms);
    child_write(fd, devices, (size_t)listing.num_devices * sizeof *devices);
}

static void *copy(const char *data, size_t bytes)
{
    void *memory = malloc(bytes ? bytes : 1);
    return memory ? memcpy(memory, data, bytes) : NULL;
}

static void keep_listing(struct doctor *doctor, const struct child *child)
{
    struct listing listing;
    if (child->bytes < sizeof listing)
        return;
    memcpy(&listing, child->data, sizeof listing);
    const size_t platform_bytes = (size_t)listing.num_platforms * sizeof *doctor->platforms,
                 device_bytes = (size_t)listing.num_devices * sizeof *doctor->devices;
    if (child->bytes != sizeof listing + platform_bytes + device_bytes)
        return;
    doctor->platforms = copy(child->data + sizeof listing, platform_bytes);
    doctor->devices = copy(child->data + sizeof listing + platform_bytes, device_bytes);
    doctor->num_platforms = doctor->platforms ? listing.num_platforms : 0;
    doctor->num_devices = doctor->devices ? listing.num_devices : 0;
}

void doctor_check_platforms(struct doctor *doctor)
{
    struct child child;
    child_try(list_all, doctor->device, 60, &child);
    if (child.is_done)
        keep_listing(doctor, &child);
    free(child.data);
    if (!child.is_done) {
        doctor_say(doctor, DOCTOR_PROBLEM, "platform", "listing the devices %s%s%s", child.ending,
                   *child.last_words ? ": " : "", child.last_words);
        doctor_advise(doctor,
                      "one of the drivers above does not get on with this system, or with another of them: set OCL_ICD_VENDORS "
                      "to a folder with one .icd file at a time to find out which");
        return;
    }
    for (int i = 0; i < doctor->num_platforms; i++)
        doctor_say(doctor, DOCTOR_OK, "platform", "%s, %s: %d device%s", doctor->platforms[i].name,
                   doctor->platforms[i].version, doctor->platforms[i].num_devices,
                   doctor->platforms[i].num_devices == 1 ? "" : "s");
    if (doctor->num_devices == 0) {
        doctor_say(doctor, DOCTOR_PROBLEM, "platform", "OpenCL has %d platform%s and no device", doctor->num_platforms,
                   doctor->num_platforms == 1 ? "" : "s");
        doctor_advise(
            doctor,
            "see the other lines; for the processor alone pocl-opencl-icd (Debian, Ubuntu) or pocl (Fedora, Arch) is enough");
    }
}

// ---- computing

enum { IN = 3, OUT = 8, SIDE = 8, PIXELS = SIDE * SIDE };

static float weight(int out, int in)
{
    return 0.25f * (float)(out - 3) + 0.5f * (float)in;
}

static float pixel(int in, int i)
{
    return (float)((i * 7 + in * 5) % 16) / 16;
}

// A convolution of 1 x 1 and the mean over the image: y[out] is the sum over the inputs of weight x mean. All terms are
// multiples of 2^-6, so no order of summation rounds.
static double expected(int out)
{
    double sum = 0;
    for (int in = 0; in < IN; in++)
        for (int i = 0; i < PIXELS; i++)
            sum += (double)weight(out, in) * pixel(in, i) / PIXELS;
    return sum;
}

static eq_status build(struct eq_graph *graph)
{
    const struct eq_conv2d_params conv = { .out_channels = OUT, .kernel_h = 1, .kernel_w = 1 };
    eq_value x, y;
    eq_status status = eq_graph_input(graph, "x", 1, IN, SIDE, SIDE, &x);
    status = status ? status : eq_graph_conv2d(graph, x, "conv", &conv, &y);
    status = status ? status : eq_graph_mean_pool(graph, y, &y);
    return status ? status : eq_graph_output(graph, y, "y");
}

static eq_status run(struct eq_weights *weights, struct eq_session *session, float y[OUT])
{
    float w[OUT * IN], x[IN * PIXELS];
    for (int i = 0; i < OUT * IN; i++)
        w[i] = weight(i / IN, i % IN);
    for (int i = 0; i < IN * PIXELS; i++)
        x[i] = pixel(i / PIXELS, i % PIXELS);
    eq_status status = eq_weights_write(weights, "conv.weight", w);
    status = status ? status : eq_session_write(session, "x", x);
    status = status ? status : eq_session_run(session);
    return status ? status : eq_session_read(session, "y", y);
}

// What a user can tell the library to do, and a device may fail at.
static const char *const settings[] = { "EQUIL_CONV",  "EQUIL_WINOGRAD",  "EQUIL_PRECISION",    "EQUIL_TUNING",
                                        "EQUIL_CACHE", "EQUIL_CACHE_MIB", "EQUIL_BUILD_OPTIONS" };
enum { NUM_SETTINGS = sizeof settings / sizeof *settings };

struct attempt {
    int index;        // of the device
    unsigned without; // a bit for each setting that is as if it were not set
};

// In a process of its own. argument: struct attempt. Writes what failed; nothing: it computes.
static void compute(int fd, const void *argument)
{
    const struct attempt *attempt = argument;
    char selector[16], text[512];
    struct eq_device *device = NULL;
    struct eq_graph *graph = NULL;
    struct eq_weights *weights = NULL;
    struct eq_session *session = NULL;
    float y[OUT] = { 0 };
    for (int i = 0; i < NUM_SETTINGS; i++)
        if (attempt->without >> i & 1)
            unsetenv(settings[i]);
    snprintf(selector, sizeof selector, "%d", attempt->index);
    eq_status status = eq_device_open(selector, &device);
    status = status ? status : eq_graph_create(&graph);
    status = status ? status : build(graph);
    status = status ? status : eq_weights_create(device, graph, &weights);
    status = status ? status : eq_session_create(weights, graph, NULL, &session);
    status = status ? status : run(weights, session, y);
    if (status)
        child_write(fd, eq_last_error(), strlen(eq_last_error()));
    for (int k = 0; !status && k < OUT; k++)
        if (!(fabs(y[k] - expected(k)) <= 1e-5)) {
            snprintf(text, sizeof text, "a convolution's result %d is %.9g, not %.9g", k, y[k], expected(k));
            child_write(fd, text, strlen(text));
            break;
        }
    eq_session_destroy(&session);
    eq_weights_destroy(&weights);
    eq_graph_destroy(&graph);
    eq_device_destroy(&device);
}

enum { SECONDS_TO_COMPUTE = 120 };

static bool computes_without(int index, unsigned without)
{
    const struct attempt attempt = { index, without };
    struct child child;
    child_try(compute, &attempt, SECONDS_TO_COMPUTE, &child);
    const bool is_right = child.is_done && child.bytes == 0;
    free(child.data);
    return is_right;
}

// The settings without which a device that fails computes: one if one is enough, else all there are; 0: it fails anyway.
static unsigned settings_at_fault(int index)
{
    unsigned all = 0;
    for (int i = 0; i < NUM_SETTINGS; i++)
        all |= (unsigned)(doctor_variable(settings[i]) != NULL) << i;
    if (!all || !computes_without(index, all))
        return 0;
    for (int i = 0; i < NUM_SETTINGS; i++)
        if (all >> i & 1 && computes_without(index, 1u << i))
            return 1u << i;
    return all;
}

static void advise_settings(struct doctor *doctor, unsigned at_fault)
{
    for (int i = 0; i < NUM_SETTINGS; i++)
        if (at_fault >> i & 1)
            doctor_advise(doctor, "%s is '%s', and the device computes without %s: unset it, or see the manual's ENVIRONMENT",
                          settings[i], doctor_variable(settings[i]), at_fault == 1u << i ? "it" : "this and the others named");
}

static void try_device(struct doctor *doctor, const struct eq_device_info *device)
{
    const struct attempt attempt = { .index = device->index };
    struct child child;
    child_try(compute, &attempt, SECONDS_TO_COMPUTE, &child);
    if (child.is_done && child.bytes == 0) {
        doctor_say(doctor, DOCTOR_OK, "device", "%d %s (%s): builds programs and computes%s", device->index, device->name,
                   device->platform, device->is_chosen ? "; it is the one that Equil uses" : "");
    } else {
        doctor_say(doctor, DOCTOR_PROBLEM, "device", "%d %s (%s, driver %s) %s%s%s", device->index, device->name,
                   device->platform, device->driver, child.is_done ? "fails: " : child.ending,
                   child.is_done       ? ""
                   : *child.last_words ? ": "
                                       : "",
                   child.is_done ? child.data : child.last_words);
        const unsigned at_fault = settings_at_fault(device->index);
        advise_settings(doctor, at_fault);
        if (!at_fault)
            doctor_advise(doctor, "update its driver; until then name another device with EQUIL_DEVICE or --device");
    }
    free(child.data);
}

// ---- twice

// Letters and digits of the name in small letters, without (R), (TM) and Mesa's first word.
static void plain_name(const char *name, char out[128])
{
    size_t length = 0;
    if (strncmp(name, "Mesa ", 5) == 0)
        name += 5;
    for (; *name && length < 127; name++) {
        if (*name == '(' && strchr("RrTt", name[1]) && strchr(name, ')'))
            name = strchr(name, ')');
        else if (isalnum((unsigned char)*name))
            out[length++] = (char)tolower((unsigned char)*name);
    }
    out[length] = '\0';
}

bool doctor_is_same_device(const struct eq_device_info *a, const struct eq_device_info *b)
{
    char name_a[128], name_b[128];
    if (strcmp(a->kind, b->kind) != 0 || strcmp(a->kind, "cpu") == 0)
        return false;
    if (*a->pci && *b->pci)
        return strcmp(a->pci, b->pci) == 0;
    if (strcmp(a->platform, b->platform) == 0)
        return false; // two of a kind
    plain_name(a->name, name_a);
    plain_name(b->name, name_b);
    return *name_a && *name_b && (strstr(name_a, name_b) || strstr(name_b, name_a));
}

static void check_twice(struct doctor *doctor, int index)
{
    const struct eq_device_info *device = &doctor->devices[index];
    for (int i = 0; i < index; i++) {
        const struct eq_device_info *other = &doctor->devices[i];
        if (!doctor_is_same_device(other, device))
            continue;
        doctor_say(doctor, DOCTOR_NOTE, "device", "%d (%s) and %d (%s) are the same GPU, %s%s%s, by two drivers", other->index,
                   other->platform, device->index, device->platform, device->name, *device->pci ? " at PCI " : "", device->pci);
        doctor_advise(doctor,
                      "choose one by its platform, EQUIL_DEVICE='%s' or EQUIL_DEVICE='%s'; 'equil bench' says which is faster",
                      other->platform, device->platform);
        return;
    }
}

void doctor_check_devices(struct doctor *doctor)
{
    bool is_any_chosen = false;
    for (int i = 0; i < doctor->num_devices; i++) {
        const struct eq_device_info *device = &doctor->devices[i];
        is_any_chosen = is_any_chosen || device->is_chosen;
        if (!device->is_usable)
            doctor_say(doctor, DOCTOR_NOTE, "device", "%d %s (%s) cannot be used: %s", device->index, device->name,
                       device->platform, device->reason);
        else if (device->is_chosen || !doctor->device)
            try_device(doctor, device);
        check_twice(doctor, i);
    }
    if (doctor->num_devices > 0 && !is_any_chosen) {
        doctor_say(doctor, DOCTOR_PROBLEM, "device",
                   "none of the %d devices is usable and is what --device or EQUIL_DEVICE names", doctor->num_devices);
        doctor_advise(doctor, "'equil devices' lists them; name another, or none");
    }
}

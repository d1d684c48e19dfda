// OpenCL's loader and the platforms behind it: what `equil doctor` looks at when devices are missing.
// The loader's own function: no platform has it, as its successor wants.
#define CL_USE_DEPRECATED_OPENCL_1_1_APIS
#include <stdlib.h>
#include <string.h>

#include "rt/internal.h"

enum { MAX_PLATFORMS = 64 };

eq_status eq_platform_list(struct eq_platform_info **infos, int *num)
{
    cl_platform_id platforms[MAX_PLATFORMS];
    cl_uint found = 0;
    *num = 0;
    if (clGetPlatformIDs(MAX_PLATFORMS, platforms, &found) != CL_SUCCESS)
        found = 0;
    found = found < MAX_PLATFORMS ? found : MAX_PLATFORMS;
    EQ_ALLOC(*infos, found);
    for (; *num < (int)found; (*num)++) {
        struct eq_platform_info *info = &(*infos)[*num];
        cl_uint devices = 0;
        eq_platform_text(platforms[*num], CL_PLATFORM_NAME, info->name);
        eq_platform_text(platforms[*num], CL_PLATFORM_VERSION, info->version);
        if (clGetDeviceIDs(platforms[*num], CL_DEVICE_TYPE_ALL, 0, NULL, &devices) == CL_SUCCESS)
            info->num_devices = (int)devices;
    }
    return EQ_OK;
}

// An extension of ocl-icd that Khronos' loader has as well: numbers from their cl_icdl.h.
typedef cl_int(CL_API_CALL *loader_info_fn)(int what, size_t bytes, void *value, size_t *got);
enum { LOADER_OPENCL = 1, LOADER_VERSION = 2, LOADER_NAME = 3, LOADER_VENDOR = 4 };

static void loader_text(loader_info_fn ask, int what, char out[128])
{
    char text[1024] = { 0 };
    ask(what, sizeof text - 1, text, NULL);
    eq_keep_text(text, out);
}

eq_status eq_loader_describe(struct eq_loader_info *info)
{
    loader_info_fn ask;
    *info = (struct eq_loader_info){ .name = "" };
    void *address = clGetExtensionFunctionAddress("clGetICDLoaderInfoOCLICD");
    if (!address)
        return EQ_OK;
    memcpy(&ask, &address, sizeof ask);
    loader_text(ask, LOADER_OPENCL, info->opencl);
    loader_text(ask, LOADER_VERSION, info->version);
    loader_text(ask, LOADER_NAME, info->name);
    loader_text(ask, LOADER_VENDOR, info->vendor);
    return EQ_OK;
}

void eq_device_cache_folder(char *path, size_t bytes)
{
    char *folder = eq_option_is_off(EQ_OPTION_CACHE) ? NULL : eq_cache_folder();
    snprintf(path, bytes, "%s", folder ? folder : "");
    free(folder);
}

// cl_khr_pci_bus_info, AMD's topology (type, 21 bytes, bus, device, function) or NVIDIA's numbers; the headers of OpenCL 1.2
// have none of them.
enum { PCI_BUS_INFO_KHR = 0x410f, TOPOLOGY_AMD = 0x4037, BUS_NV = 0x4008, SLOT_NV = 0x4009, DOMAIN_NV = 0x400a };

void eq_pci_address(cl_device_id id, char out[16])
{
    cl_uint khr[4] = { 0 }, bus = 0, slot = 0, domain = 0;
    unsigned char amd[24] = { 0 };
    *out = '\0';
    if (clGetDeviceInfo(id, PCI_BUS_INFO_KHR, sizeof khr, khr, NULL) == CL_SUCCESS)
        snprintf(out, 16, "%04x:%02x:%02x.%x", khr[0] & 0xffff, khr[1] & 0xff, khr[2] & 0xff, khr[3] & 7);
    else if (clGetDeviceInfo(id, TOPOLOGY_AMD, sizeof amd, amd, NULL) == CL_SUCCESS)
        snprintf(out, 16, "0000:%02x:%02x.%x", amd[21], amd[22], amd[23] & 7u);
    else if (clGetDeviceInfo(id, BUS_NV, sizeof bus, &bus, NULL) == CL_SUCCESS &&
             clGetDeviceInfo(id, SLOT_NV, sizeof slot, &slot, NULL) == CL_SUCCESS) {
        clGetDeviceInfo(id, DOMAIN_NV, sizeof domain, &domain, NULL);
        snprintf(out, 16, "%04x:%02x:%02x.%x", domain & 0xffff, bus & 0xff, slot >> 3 & 0x1f, slot & 7);
    }
}

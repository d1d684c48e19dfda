// equil devices: what there is, and which one would be used.
#include <stdlib.h>

#include "args.h"
#include "command.h"
#include "equil/equil.h"
#include "output.h"

static const char nothing_found[] =
    "no OpenCL device was found. Install an OpenCL driver for your hardware; on Debian and Ubuntu as root:\n"
    "    apt-get install pocl-opencl-icd      any CPU\n"
    "    apt-get install intel-opencl-icd     Intel GPUs\n"
    "    apt-get install mesa-opencl-icd      AMD GPUs (rusticl, with RUSTICL_ENABLE=radeonsi); or AMD's ROCm\n"
    "    apt-get install nvidia-opencl-icd    NVIDIA GPUs, with NVIDIA's driver";

// What is missing: the drivers, their devices, or the one that is wanted.
static void explain(const char *selector)
{
    struct eq_platform_info *platforms = NULL;
    struct eq_device *device = NULL;
    int num = 0;
    if (eq_platform_list(&platforms, &num) == EQ_OK && num == 0)
        message("%s", nothing_found);
    else if (eq_device_open(selector, &device) != EQ_OK)
        fail_with_last_error(NULL);
    eq_device_destroy(&device);
    free(platforms);
}

static json_t *device_json(const struct eq_device_info *info)
{
    json_t *object = json_object();
    json_object_set_new(object, "index", json_integer(info->index));
    json_object_set_new(object, "name", json_text(info->name));
    json_object_set_new(object, "kind", json_text(info->kind));
    json_object_set_new(object, "vendor", json_text(info->vendor));
    json_object_set_new(object, "version", json_text(info->version));
    json_object_set_new(object, "driver", json_text(info->driver));
    json_object_set_new(object, "platform", json_text(info->platform));
    json_object_set_new(object, "platform_version", json_text(info->platform_version));
    json_object_set_new(object, "compute_units", json_integer(info->compute_units));
    json_object_set_new(object, "clock_mhz", json_integer(info->clock_mhz));
    json_object_set_new(object, "memory_bytes", json_integer((json_int_t)info->memory_bytes));
    json_object_set_new(object, "max_alloc_bytes", json_integer((json_int_t)info->max_alloc_bytes));
    json_object_set_new(object, "local_bytes", json_integer((json_int_t)info->local_bytes));
    json_object_set_new(object, "max_group", json_integer((json_int_t)info->max_group));
    json_object_set_new(object, "vector_width", json_integer(info->vector_width));
    json_object_set_new(object, "has_fma", json_boolean(info->has_fma));
    json_object_set_new(object, "is_usable", json_boolean(info->is_usable));
    json_object_set_new(object, "is_chosen", json_boolean(info->is_chosen));
    json_object_set_new(object, "reason", json_text(info->reason));
    return object;
}

static int print_json(const struct eq_device_info *infos, int num, bool is_any_chosen)
{
    json_t *list = json_array();
    for (int i = 0; i < num; i++)
        json_array_append_new(list, device_json(&infos[i]));
    int exit_code = json_print(json_pack("{s:o}", "devices", list));
    return is_any_chosen ? exit_code : EXIT_FAILED;
}

static void print_device(const struct eq_device_info *info)
{
    char memory[32], max_alloc[32], local[32];
    format_bytes(memory, info->memory_bytes);
    format_bytes(max_alloc, info->max_alloc_bytes);
    format_bytes(local, info->local_bytes);
    printf("%c %d  %s  (%s)\n", info->is_chosen ? '*' : ' ', info->index, info->name, info->kind);
    printf("     platform   %s, %s\n", info->platform, info->platform_version);
    printf("     vendor     %s\n", info->vendor);
    printf("     version    %s, driver %s\n", info->version, info->driver);
    printf("     compute    %d units", info->compute_units);
    if (info->clock_mhz > 0)
        printf(" at %d MHz", info->clock_mhz);
    printf(", vectors of %d floats, %s\n", info->vector_width, info->has_fma ? "fused multiply-add" : "no fused multiply-add");
    printf("     memory     %s, at most %s in one buffer, %s local\n", memory, max_alloc, local);
    printf("     groups     up to %zu work-items\n", info->max_group);
    printf("     %s %s\n\n", info->is_chosen ? "chosen:   " : info->is_usable ? "not chosen:" : "unusable: ", info->reason);
}

static int run_devices(int argc, char **argv)
{
    const char *device;
    bool is_json;
    const struct arg_option options[] = { ARG_OPTION_DEVICE(&device), ARG_OPTION_JSON(&is_json), { 0 } };
    const struct arg_spec spec = {
        .command = "devices",
        .summary = "Lists the OpenCL devices of every platform and says which one Equil would use, and why.",
        .options = options,
    };
    struct arg_result args;
    if (args_parse(&spec, argc, argv, &args) != ARGS_RUN)
        return args.exit_code;

    struct eq_device_info *infos = NULL;
    int num = 0;
    if (eq_device_list(device, &infos, &num) != EQ_OK)
        return fail_with_last_error(NULL);
    bool is_any_chosen = false;
    for (int i = 0; i < num; i++)
        is_any_chosen = is_any_chosen || infos[i].is_chosen;

    int exit_code = is_any_chosen ? EXIT_SUCCESS : EXIT_FAILED;
    if (is_json)
        exit_code = print_json(infos, num, is_any_chosen);
    else
        for (int i = 0; i < num; i++)
            print_device(&infos[i]);
    if (!is_any_chosen)
        explain(device);
    eq_device_list_free(&infos);
    return exit_code;
}

const struct command command_devices = { "devices", "list the OpenCL devices and show which one would be used", run_devices };

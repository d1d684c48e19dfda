// The table of environment variables: the only place that reads the environment.
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

extern char **environ;

static const struct {
    const char *variable, *help;
} options[EQ_NUM_OPTIONS] = {
    [EQ_OPTION_DEVICE] = { "EQUIL_DEVICE", "device to use: index, part of a name, vendor or platform, cpu or gpu" },
    [EQ_OPTION_CACHE_DIR] = { "EQUIL_CACHE_DIR",
                              "folder of compiled kernels (default: $XDG_CACHE_HOME/equil or ~/.cache/equil)" },
    [EQ_OPTION_CACHE] = { "EQUIL_CACHE", "0 switches the cache of compiled kernels off (default: 1)" },
    [EQ_OPTION_CACHE_MIB] = { "EQUIL_CACHE_MIB", "MiB of compiled kernels, of which the oldest go (default: 512)" },
    [EQ_OPTION_CONV] = { "EQUIL_CONV", "kernel family: vector or simt (default: vector on CPUs, simt elsewhere)" },
    [EQ_OPTION_WINOGRAD] = { "EQUIL_WINOGRAD", "0 keeps convolutions from Winograd's transform (default: 1, on llvmpipe 0)" },
    [EQ_OPTION_PRECISION] = { "EQUIL_PRECISION", "fp32, or tf32, fp16 or bf16 for the inputs of convolutions (default: fp32)" },
    [EQ_OPTION_TUNING] = { "EQUIL_TUNING", "file of tuned parameters, or 0 for none (default: what 'equil tune' wrote)" },
    [EQ_OPTION_THREADS] = { "EQUIL_THREADS", "threads that decode images (default: number of processors)" },
    [EQ_OPTION_BUILD] = { "EQUIL_BUILD_OPTIONS", "options added to every OpenCL program" },
};

const char *eq_option(enum eq_option option)
{
    const char *value = getenv(options[option].variable);
    return value && *value ? value : NULL;
}

bool eq_option_is_off(enum eq_option option)
{
    const char *value = eq_option(option);
    return value && strcmp(value, "0") == 0;
}

const char *eq_option_variable(enum eq_option option)
{
    return options[option].variable;
}

const char *eq_option_help(enum eq_option option)
{
    return options[option].help;
}

// Their order says nothing, so neither does that of the sum.
uint64_t eq_driver_variables_hash(void)
{
    static const char *const prefixes[] = { "AMD_", "CL_CONFIG_", "GALLIVM_", "IGC_", "LP_", "NEO", "POCL_", "RUSTICL_" };
    uint64_t sum = 0;
    for (char **at = environ; at && *at; at++)
        for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
            if (eq_str_starts(*at, prefixes[i]))
                sum += eq_fnv1a(*at, strlen(*at), EQ_FNV_START);
    return sum;
}

// As PoCL reads it: everything that does not begin with 1 is off, nothing as well.
bool eq_pocl_cache_is_off(void)
{
    const char *value = getenv("POCL_KERNEL_CACHE");
    return value && *value != '1';
}

// NULL unless it is absolute: others are to be ignored, says the XDG Base Directory Specification, and would be another folder
// in every working directory.
static const char *xdg_cache(void)
{
    const char *xdg = getenv("XDG_CACHE_HOME");
    return xdg && *xdg == '/' ? xdg : NULL;
}

bool eq_has_cache_folder(void)
{
    const char *home = getenv("HOME");
    return eq_option(EQ_OPTION_CACHE_DIR) || xdg_cache() || (home && *home);
}

char *eq_cache_folder(void)
{
    const char *folder = eq_option(EQ_OPTION_CACHE_DIR), *xdg = xdg_cache(), *home = getenv("HOME");
    if (folder)
        return eq_strdup(folder);
    if (xdg)
        return eq_path_join(xdg, "equil");
    return home && *home ? eq_path_join(home, ".cache/equil") : NULL;
}

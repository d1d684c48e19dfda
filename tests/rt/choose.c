// Which of several devices a selector means, and what is said of each: of devices that need not be here.
#include <string.h>

#include "rt/internal.h"
#include "support.h"

enum { MOST_DEVICES = 3 };

enum { POCL, RUSTICL, OCLGRIND, INTEL, NVIDIA, AMD, FPGA, DEAD_GPU };
static const struct eq_device_info devices[] = {
    [POCL] = { .platform = "Portable Computing Language",
               .platform_version = "OpenCL 3.0 PoCL 5.0  Linux, LLVM 16",
               .name = "cpu-haswell-Ryzen",
               .vendor = "AuthenticAMD",
               .kind = "cpu",
               .is_usable = true },
    [RUSTICL] = { .platform = "rusticl",
                  .platform_version = "OpenCL 3.0 ",
                  .name = "Radeon RX 7600",
                  .vendor = "AMD",
                  .kind = "gpu",
                  .is_usable = true },
    [OCLGRIND] = { .platform = "Oclgrind",
                   .platform_version = "OpenCL 3.0 (Oclgrind 21.10)",
                   .name = "Oclgrind Simulator",
                   .vendor = "University of Bristol",
                   .kind = "gpu",
                   .is_usable = true },
    [INTEL] = { .platform = "Intel(R) OpenCL Graphics",
                .platform_version = "OpenCL 3.0 ",
                .name = "Arc A770",
                .vendor = "Intel(R) Corporation",
                .kind = "gpu",
                .is_usable = true },
    [NVIDIA] = { .platform = "NVIDIA CUDA",
                 .platform_version = "OpenCL 3.0 CUDA 13.0",
                 .name = "H200",
                 .vendor = "NVIDIA Corporation",
                 .kind = "gpu",
                 .is_usable = true },
    [AMD] = { .platform = "AMD Accelerated Parallel Processing",
              .platform_version = "OpenCL 2.1 AMD-APP",
              .name = "gfx1100",
              .vendor = "Advanced Micro Devices, Inc.",
              .kind = "gpu",
              .is_usable = true },
    [FPGA] = { .platform = "Boards",
               .platform_version = "OpenCL 1.2 ",
               .name = "U250",
               .vendor = "Xilinx",
               .kind = "accelerator",
               .is_usable = true },
    [DEAD_GPU] = { .platform = "Clover",
                   .platform_version = "OpenCL 1.1 Mesa",
                   .name = "Old",
                   .vendor = "Mesa",
                   .kind = "gpu",
                   .reason = "its OpenCL is older than 1.2" },
};

static const struct {
    int devices[MOST_DEVICES], num;
    const char *selector; // NULL: nothing is named
    int chosen;           // place in the list; -1: none
    const char *reasons[MOST_DEVICES];
} cases[] = {
    // without a selector
    { { POCL, NVIDIA }, 2, NULL, 1, { "a GPU is preferred", "the first usable GPU; no device was named" } },
    { { NVIDIA, AMD }, 2, NULL, 0, { "the first usable GPU; no device was named", "comes after the chosen one" } },
    { { POCL }, 1, NULL, 0, { "the first usable CPU, as no GPU is usable; no device was named" } },
    { { DEAD_GPU, POCL },
      2,
      NULL,
      1,
      { "its OpenCL is older than 1.2", "the first usable CPU, as no GPU is usable; no device was named" } },
    { { OCLGRIND, FPGA, POCL },
      3,
      NULL,
      2,
      { "it is a simulator: others are preferred", "a CPU is preferred",
        "the first usable CPU, as no GPU is usable; no device was named" } },
    { { FPGA, DEAD_GPU },
      2,
      NULL,
      0,
      { "the first usable device, as no GPU or CPU is usable; no device was named", "its OpenCL is older than 1.2" } },
    { { OCLGRIND, FPGA },
      2,
      NULL,
      1,
      { "it is a simulator: others are preferred",
        "the first usable device, as no GPU or CPU is usable; no device was named" } },
    { { OCLGRIND }, 1, NULL, 0, { "the first usable simulator, as nothing else is usable; no device was named" } },
    { { DEAD_GPU }, 1, NULL, -1, { "its OpenCL is older than 1.2" } },
    // names
    { { NVIDIA, POCL }, 2, "pocl", 1, { "does not match", "the first usable device that matches 'pocl'" } },
    { { NVIDIA, POCL }, 2, "PoCL", 1, { "does not match", "the first usable device that matches 'PoCL'" } },
    { { POCL, RUSTICL }, 2, "radeon", 1, { "does not match", "the first usable device that matches 'radeon'" } },
    { { POCL, RUSTICL }, 2, "rustiCL", 1, { "does not match", "the first usable device that matches 'rustiCL'" } },
    { { POCL, OCLGRIND }, 2, "oclgrind", 1, { "does not match", "the first usable device that matches 'oclgrind'" } },
    { { AMD, NVIDIA }, 2, "nvidia", 1, { "does not match", "the first usable device that matches 'nvidia'" } },
    { { NVIDIA, AMD }, 2, "Advanced Micro", 1, { "does not match", "the first usable device that matches 'Advanced Micro'" } },
    { { NVIDIA, FPGA }, 2, "xilinx", 1, { "does not match", "the first usable device that matches 'xilinx'" } },
    { { NVIDIA, AMD, AMD },
      3,
      "gfx11",
      1,
      { "does not match", "the first usable device that matches 'gfx11'", "comes after the chosen one" } },
    { { NVIDIA, POCL }, 2, "CPU", 1, { "does not match", "the first usable device that matches 'CPU'" } },
    { { DEAD_GPU, INTEL }, 2, "gpu", 1, { "its OpenCL is older than 1.2", "the first usable device that matches 'gpu'" } },
    { { NVIDIA, POCL }, 2, "1", 1, { "does not match", "the first usable device that matches '1'" } },
    // what a platform's version has is no name
    { { POCL, RUSTICL, NVIDIA }, 3, "OpenCL", -1, { "does not match", "does not match", "does not match" } },
    { { POCL, INTEL }, 2, "OpenCL", 1, { "does not match", "the first usable device that matches 'OpenCL'" } },
    { { POCL, NVIDIA }, 2, "3.0", -1, { "does not match", "does not match" } },
    { { POCL, NVIDIA }, 2, "Linux", -1, { "does not match", "does not match" } },
    { { POCL, NVIDIA }, 2, "", -1, { "does not match", "does not match" } },
};

START_TEST(choosing)
{
    struct eq_device_info infos[MOST_DEVICES];
    const char *selector = cases[_i].selector;
    for (int d = 0; d < cases[_i].num; d++) {
        infos[d] = devices[cases[_i].devices[d]];
        infos[d].index = d;
    }
    eq_device_choose(infos, cases[_i].num, selector);
    for (int d = 0; d < cases[_i].num; d++) {
        ck_assert_msg(infos[d].is_chosen == (d == cases[_i].chosen), "'%s', device %d: chosen %d", selector ? selector : "none",
                      d, infos[d].is_chosen);
        ck_assert_str_eq(infos[d].reason, cases[_i].reasons[d]);
    }
}
END_TEST

EQ_TEST_MAIN("choose", { choosing, sizeof cases / sizeof *cases })

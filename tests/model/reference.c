// Whole networks against the reference script's files where those are: see src/verify/network.c, whose golden file is one of
// them.
#include <stdio.h>
#include <stdlib.h>

#include "verify/network.h"

struct run {
    char path[1400];
    const char *name;
    bool in_full;
};

static void check_file(void *user)
{
    const struct run *run = user;
    struct eq_tensors *file = NULL;
    EQ_CHECK_OK(eq_tensors_open(run->path, &file));
    network_check(file, run->name, run->in_full ? 100 : 2, run->in_full);
    eq_tensors_close(&file);
}

// The kernels for GPUs run slowly on processors, so they take the files that say most about them: those of CE with ELU. ReLU is
// compared loosely, ResNet-101 has ResNet-50's layers, and the other gates have their own suites.
static bool is_for_simt(const char *name)
{
    return eq_str_starts(name, "ce-") && strstr(name, "_elu") && !strstr(name, "resnet101");
}

// index: the family. With ReLU on the direct kernels, with ELU on Winograd's.
static void shared(int index)
{
    const char *root = getenv("EQUIL_SOURCE_ROOT"), *only = getenv("EQUIL_TEST_ONLY");
    const struct eq_target opened = eq_check_device->target;
    char folder[1024];
    char **names = NULL;
    size_t num = 0, num_checked = 0;
    if (!eq_check_is_patient()) {
        printf("# skipped on this device: the larger networks\n");
        return;
    }
    snprintf(folder, sizeof folder, "%s/../shared/reference/models", root ? root : ".");
    if (eq_dir_list(folder, &names, &num) != EQ_OK)
        printf("# skipped: %s is not there\n", folder);
    for (size_t i = 0; i < num; i++)
        if (eq_str_ends(names[i], ".safetensors") && (!only || strstr(names[i], only)) &&
            (index == 0 || is_for_simt(names[i]))) {
            struct run run = { .name = names[i], .in_full = index == 0 };
            snprintf(run.path, sizeof run.path, "%s/%s", folder, names[i]);
            eq_check_device->target = opened;
            eq_check_device->target.family = index ? EQ_FAMILY_SIMT : EQ_FAMILY_VECTOR;
            eq_check_device->target.use_winograd = strstr(names[i], "_elu") != NULL;
            eq_check_kernels(NULL);
            check_file(&run);
            num_checked++;
        }
    EQ_CHECK(num == 0 || num_checked > 0 || index > 0, "%s has no file to check", folder);
    eq_names_free(names, num);
}

EQ_CHECK_SUITE(test_suite_reference, "reference", { "shared", shared, 2 })

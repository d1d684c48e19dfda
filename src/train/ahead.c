// Compiling ahead: the network's plan is made on a device that notes kernels instead of creating them.
#include "equil/ahead.h"

#include <stdlib.h>
#include <string.h>

#include "train/build.h"
#include "train/step.h"

struct eq_ahead_plan {
    struct eq_device *device;
    struct eq_network *network;
    struct eq_step *step;
};

// The one input that kernels use as an index.
static eq_status zero_labels(const struct eq_compiled *compiled)
{
    int32_t *labels = eq_calloc((size_t)compiled->n, sizeof *labels);
    eq_status status = labels ? eq_exec_write(compiled->exec, compiled->model.labels, labels) : EQ_ERR_HOST_MEMORY;
    free(labels);
    return status;
}

static eq_status fill_plan(struct eq_ahead_plan *plan, const struct eq_ahead_params *params)
{
    EQ_REQUIRE(params->n >= 1 && params->size >= 8, EQ_ERR_ARGUMENT, "batches of %d images of %d pixels", params->n,
               params->size);
    EQ_TRY(eq_device_note(plan->device));
    EQ_TRY(eq_network_create(plan->device, &params->model, &plan->network));
    if (!params->training)
        return eq_network_compile_infer(plan->network, params->n, params->size, params->size);
    const struct eq_step_params step = { .batch = params->n, .size = params->size, .accumulate = 1 };
    EQ_TRY(eq_step_create(plan->network, &step, &plan->step));
    return zero_labels(&plan->network->gradients);
}

eq_status eq_ahead_plan_create(struct eq_device *device, const struct eq_ahead_params *params, struct eq_ahead_plan **plan)
{
    EQ_ALLOC(*plan, 1);
    (*plan)->device = device;
    eq_status status = fill_plan(*plan, params);
    if (status != EQ_OK)
        eq_ahead_plan_destroy(plan);
    return status;
}

void eq_ahead_plan_destroy(struct eq_ahead_plan **plan)
{
    if (!*plan)
        return;
    eq_step_destroy(&(*plan)->step);
    eq_network_destroy(&(*plan)->network);
    free(*plan);
    *plan = NULL;
}

int eq_ahead_plan_num_kernels(const struct eq_ahead_plan *plan)
{
    return eq_device_num_noted(plan->device);
}

eq_status eq_ahead_plan_compile(struct eq_ahead_plan *plan, int index)
{
    EQ_REQUIRE(index >= 0 && index < eq_device_num_noted(plan->device), EQ_ERR_ARGUMENT, "kernel %d of %d", index,
               eq_device_num_noted(plan->device));
    return eq_device_compile_noted(plan->device, index);
}

eq_status eq_ahead_plan_check(const struct eq_ahead_plan *plan)
{
    const int num = eq_device_num_noted(plan->device);
    int num_kept;
    EQ_TRY(eq_device_num_kept(plan->device, &num_kept));
    EQ_REQUIRE(num_kept == num, EQ_ERR_IO,
               "%d of %d kernels did not stay in the cache: it has no room for all in %zu MiB (%s), or they were removed",
               num - num_kept, num, plan->device->max_kept_bytes >> 20, eq_option_variable(EQ_OPTION_CACHE_MIB));
    return EQ_OK;
}

// malloc'ed path of the file whose being there says that the kernels were compiled; NULL where there is no cache.
static char *stamp_path(const struct eq_device *device, const struct eq_ahead_params *params)
{
    const struct eq_model_params *model = &params->model;
    const char *build = eq_option(EQ_OPTION_BUILD);
    if (eq_option_is_off(EQ_OPTION_CACHE))
        return NULL;
    char *folder = eq_cache_folder(), *path = NULL, name[64];
    struct eq_str key = { 0 };
    eq_str_append(&key, "equil %s %s\n%s\n%s\n%s\n%s\n%s\n%s\n%d %d %s\n", EQ_VERSION, EQ_BUILD_COMMIT, device->name,
                  device->driver, device->platform_version, eq_device_precision_text(device), eq_device_tuning_text(device),
                  build ? build : "", device->target.family, device->target.use_winograd, model->arch);
    eq_str_append(&key, "%d %d %d %d %d %d %d\n", model->classes, model->small, model->act, model->recompute, params->n,
                  params->size, params->training);
    if (folder && !key.failed) {
        snprintf(name, sizeof name, "%016llx.stamp", (unsigned long long)eq_fnv1a(key.text, key.length, EQ_FNV_START));
        path = eq_path_join(folder, name);
    }
    free(folder);
    eq_str_free(&key);
    return path;
}

eq_status eq_ahead_check(const struct eq_device *device)
{
    return eq_cache_check(device);
}

bool eq_ahead_is_due(const struct eq_device *device, const struct eq_ahead_params *params)
{
    char *path = stamp_path(device, params);
    const bool is_due = path && !eq_file_exists(path);
    free(path);
    return is_due;
}

void eq_ahead_remember(const struct eq_device *device, const struct eq_ahead_params *params)
{
    struct eq_writer writer;
    char *path = stamp_path(device, params), *folder = path ? eq_strdup(path) : NULL;
    if (folder && !eq_file_exists(path)) {
        *strrchr(folder, '/') = '\0';
        if (eq_dir_make(folder) != EQ_OK || eq_writer_open(&writer, path) != EQ_OK || eq_writer_commit(&writer) != EQ_OK)
            eq_log(EQ_LOG_DEBUG, "cache of compiled kernels: %s", eq_last_error());
    }
    free(folder);
    free(path);
}

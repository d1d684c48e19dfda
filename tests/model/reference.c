// Whole networks against the reference script's files: logits, loss gradients, running statistics, evaluation.
//
// Tolerances (relative, 2-norm): logits and statistics 1e-4. Gradients on the elu cases 1e-4 in the median and 1e-3 at worst
// over the parameters, from the norms and probes in the file; x_weight 1e-2, because its sum cancels. With ReLU float32 flips a
// few masks, which moves gradients by up to 2e-2: there only 1e-1 is asked for, and ten times that of x_weight, as on the elu
// cases. Winograd rounds three to five times as coarsely as direct sums and flips more masks (ce-resnet20: one gradient by
// 0.18), so the ReLU cases check the direct kernels and the elu cases Winograd's. The loss of the first step is 1e-4; later
// ones amplify rounding and are bounded by 2e-2. The files' grad.NAME are not used: the script stores them without a copy, so
// they hold the gradients of its last SGD step.
#include <check.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fill.h"
#include "train/network.h"

static struct eq_device *device;
static bool is_fast; // PoCL: everything; elsewhere one small network
static const enum eq_family families[] = { EQ_FAMILY_VECTOR, EQ_FAMILY_SIMT };

struct reference {
    struct eq_tensors *file;
    struct eq_network *network;
    int classes, batch, size, steps, settle;
    bool is_small, is_elu;
    float *images, *logits, lr;
    int64_t labels[64];
};

static float *read_f32(const struct eq_tensors *file, const char *name, size_t *elems)
{
    const struct eq_tensor_entry *entry = eq_tensors_find(file, name);
    ck_assert_msg(entry != NULL, "%s: no tensor %s", eq_tensors_path(file), name);
    float *values = malloc(entry->elems * sizeof *values);
    ck_assert_msg(eq_tensors_read_f32(file, name, values, entry->elems) == EQ_OK, "%s", eq_last_error());
    *elems = entry->elems;
    return values;
}

static void open_reference(const char *path, struct reference *r)
{
    *r = (struct reference){ 0 };
    int64_t config[6];
    char arch[64];
    const char *base = strrchr(path, '/') + 1;
    ck_assert_msg(eq_tensors_open(path, &r->file) == EQ_OK, "%s", eq_last_error());
    ck_assert_msg(eq_tensors_read_i64(r->file, "config", config, 6) == EQ_OK, "%s", eq_last_error());
    snprintf(arch, sizeof arch, "%.*s", (int)(strchr(base, '_') - base), base);
    r->classes = (int)config[0];
    r->batch = (int)config[1];
    r->size = (int)config[2];
    r->is_small = config[3] != 0;
    r->steps = (int)config[4];
    r->settle = (int)config[5];
    r->is_elu = strstr(base, "_elu") != NULL;
    ck_assert_int_le(r->batch, 64);
    ck_assert_msg(eq_tensors_read_i64(r->file, "labels", r->labels, (size_t)r->batch) == EQ_OK, "%s", eq_last_error());
    ck_assert_msg(eq_tensors_read_f32(r->file, "lr", &r->lr, 1) == EQ_OK, "%s", eq_last_error());
    struct eq_model_params params = { .arch = arch, .classes = r->classes, .small = r->is_small,
                                      .act = r->is_elu ? EQ_ELU : EQ_RELU };
    ck_assert_msg(eq_network_create(device, &params, &r->network) == EQ_OK, "%s", eq_last_error());
    size_t n = (size_t)r->batch * 3 * (size_t)r->size * (size_t)r->size;
    double *uniform = malloc(n * sizeof *uniform);
    r->images = malloc(n * sizeof *r->images);
    r->logits = malloc((size_t)(r->batch * r->classes) * sizeof *r->logits);
    eq_fill_uniform("images", uniform, n);
    for (size_t i = 0; i < n; i++)
        r->images[i] = (float)(1.7 * uniform[i]);
    free(uniform);
}

static void close_reference(struct reference *r)
{
    eq_network_destroy(&r->network);
    eq_tensors_close(&r->file);
    free(r->images);
    free(r->logits);
}

static void fill_network(struct reference *r)
{
    ck_assert_int_eq(eq_weights_initialise(eq_network_weights(r->network), 0), EQ_OK);
    for (int i = 0; i < eq_weights_num(eq_network_weights(r->network)); i++) {
        struct eq_weights_tensor tensor = eq_weights_at(eq_network_weights(r->network), i);
        if (!tensor.is_parameter)
            continue;
        float *values = malloc(tensor.elems * sizeof *values);
        eq_fill_parameter(tensor.name, tensor.rank, tensor.shape, values);
        ck_assert_msg(eq_weights_write(eq_network_weights(r->network), tensor.name, values) == EQ_OK, "%s", eq_last_error());
        free(values);
    }
}

static double norm_f32(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return sqrt(sum);
}

static double relative_error(const float *got, const float *want, size_t n)
{
    double error = 0;
    for (size_t i = 0; i < n; i++)
        error += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
    return sqrt(error) / norm_f32(want, n);
}

static void check_logits(const struct reference *r, const char *name)
{
    size_t n;
    float *want = read_f32(r->file, name, &n);
    double error = relative_error(r->logits, want, n);
    printf("#   %-14s relative error %.1e\n", name, error);
    ck_assert_msg(error < 1e-4, "%s of %s: relative error %.2e", name, eq_tensors_path(r->file), error);
    free(want);
}

// Estimate of a gradient's relative error, from its probes (elu), else from its norm.
static double gradient_error(const struct reference *r, const struct eq_weights_tensor *tensor, const float *gradient)
{
    char name[300];
    float norm;
    snprintf(name, sizeof name, "gradnorm.%s", tensor->name);
    ck_assert_msg(eq_tensors_read_f32(r->file, name, &norm, 1) == EQ_OK, "%s", eq_last_error());
    double error = fabs(norm_f32(gradient, tensor->elems) - norm) / norm;
    if (r->is_elu) {
        float want[4];
        double got[4], sum = 0;
        snprintf(name, sizeof name, "gradprobe.%s", tensor->name);
        ck_assert_msg(eq_tensors_read_f32(r->file, name, want, 4) == EQ_OK, "%s", eq_last_error());
        eq_fill_probes(tensor->name, gradient, tensor->elems, got);
        for (int j = 0; j < 4; j++)
            sum += (got[j] - want[j]) * (got[j] - want[j]);
        error = fmax(error, sqrt(sum / 4) / (norm / sqrt(3)));
    }
    return error;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void check_gradients(const struct reference *r)
{
    int num = 0;
    double *errors = malloc((size_t)eq_weights_num(eq_network_weights(r->network)) * sizeof *errors), x_weight = 0;
    for (int i = 0; i < eq_weights_num(eq_network_weights(r->network)); i++) {
        struct eq_weights_tensor tensor = eq_weights_at(eq_network_weights(r->network), i);
        if (!tensor.is_parameter)
            continue;
        float *gradient = malloc(tensor.elems * sizeof *gradient);
        ck_assert_msg(eq_weights_read_gradient(eq_network_weights(r->network), tensor.name, gradient) == EQ_OK, "%s",
                      eq_last_error());
        double error = gradient_error(r, &tensor, gradient);
        bool is_x_weight = eq_str_ends(tensor.name, "x_weight");
        ck_assert_msg(!isnan(error) && error < (r->is_elu ? 1e-3 : 1e-1) * (is_x_weight ? 10 : 1),
                      "gradient of %s in %s: relative error %.2e", tensor.name, eq_tensors_path(r->file), error);
        if (is_x_weight)
            x_weight = fmax(x_weight, error);
        else
            errors[num++] = error;
        free(gradient);
    }
    qsort(errors, (size_t)num, sizeof *errors, by_value);
    printf("#   gradients      median %.1e, worst %.1e of %d; x_weight %.1e\n", errors[num / 2], errors[num - 1], num,
           x_weight);
    if (r->is_elu)
        ck_assert_msg(errors[num / 2] < 1e-4, "gradients of %s: median error %.2e", eq_tensors_path(r->file), errors[num / 2]);
    free(errors);
}

static void check_states(const struct reference *r)
{
    double worst = 0;
    int num = 0;
    for (int i = 0; i < eq_weights_num(eq_network_weights(r->network)); i++) {
        struct eq_weights_tensor tensor = eq_weights_at(eq_network_weights(r->network), i);
        char name[300];
        if (tensor.is_parameter)
            continue;
        float want, *values = malloc(tensor.elems * sizeof *values);
        snprintf(name, sizeof name, "after1.norm.%s", tensor.name);
        ck_assert_msg(eq_tensors_read_f32(r->file, name, &want, 1) == EQ_OK, "%s", eq_last_error());
        ck_assert_int_eq(eq_weights_read(eq_network_weights(r->network), tensor.name, values), EQ_OK);
        double error = fabs(norm_f32(values, tensor.elems) - want) / fmax(want, 1e-6);
        ck_assert_msg(error < 1e-4, "%s after one step in %s: norm off by %.2e", tensor.name, eq_tensors_path(r->file), error);
        worst = fmax(worst, error);
        num++;
        free(values);
    }
    ck_assert_int_gt(num, 0);
    printf("#   statistics     worst %.1e of %d\n", worst, num);
}

static void evaluate(struct reference *r)
{
    ck_assert_msg(eq_network_infer(r->network, r->batch, r->size, r->size, r->images, r->logits) == EQ_OK, "%s",
                  eq_last_error());
    check_logits(r, "logits_eval");
}

// Forward passes in training mode, which move only the running statistics; then evaluation.
static void settle_by_passes(struct reference *r)
{
    ck_assert_msg(eq_network_compile_forward(r->network, r->batch, r->size, r->size) == EQ_OK, "%s", eq_last_error());
    struct eq_compiled *forward = &r->network->forward;
    ck_assert_int_eq(eq_exec_write(forward->exec, forward->model.images, r->images), EQ_OK);
    for (int i = 0; i < r->settle - 1; i++)
        ck_assert_msg(eq_exec_run(forward->exec) == EQ_OK, "%s", eq_last_error());
    eq_weights_touched(eq_network_weights(r->network), r->settle - 1);
}

// The same without the passes: weights and batch stay, so every pass would bring the same new value x. After one pass from the
// initial r0 a statistic is r1 = 0.9 r0 + 0.1 x, and after k more passes x + 0.9^k (r1 - x).
static void settle_by_formula(struct reference *r)
{
    double decay = pow(0.9, r->settle - 1);
    for (int i = 0; i < eq_weights_num(eq_network_weights(r->network)); i++) {
        struct eq_weights_tensor tensor = eq_weights_at(eq_network_weights(r->network), i);
        if (tensor.is_parameter)
            continue;
        float *now = malloc(tensor.elems * sizeof *now), *start = malloc(tensor.elems * sizeof *start);
        eq_model_initial(r->network->weights->store, eq_store_find(r->network->weights->store, tensor.name), 0, start);
        ck_assert_int_eq(eq_weights_read(eq_network_weights(r->network), tensor.name, now), EQ_OK);
        for (size_t j = 0; j < tensor.elems; j++) {
            double x = (now[j] - 0.9 * start[j]) / 0.1;
            now[j] = (float)(x + decay * (now[j] - x));
        }
        ck_assert_int_eq(eq_weights_write(eq_network_weights(r->network), tensor.name, now), EQ_OK);
        free(now);
        free(start);
    }
}

// SGD as the script does it: the update runs on the device.
static void check_losses(struct reference *r, size_t max_steps)
{
    size_t num;
    float *want = read_f32(r->file, "losses", &num), loss, hyper[4] = { r->lr, 0.9f, 1e-4f, 0 };
    struct eq_buffer *buffer;
    struct eq_list *update;
    ck_assert_int_eq(eq_buffer_create(device, sizeof hyper, &buffer), EQ_OK);
    ck_assert_int_eq(eq_ref_write(eq_ref_at(buffer, 0), hyper, 4, sizeof *hyper), EQ_OK);
    ck_assert_int_eq(eq_list_create(device, &update), EQ_OK);
    ck_assert_msg(eq_store_emit_update(r->network->weights->store, update, eq_ref_at(buffer, 0), false) == EQ_OK, "%s",
                  eq_last_error());
    for (size_t i = 0; i < num && i < max_steps; i++) {
        ck_assert_msg(eq_network_gradients(r->network, r->batch, r->size, r->size, r->images, r->labels, 0.1f, &loss, NULL) ==
                          EQ_OK,
                      "%s", eq_last_error());
        double error = fabs(loss - want[i]) / want[i];
        printf("#   loss of step %zu: %.6f, want %.6f\n", i, loss, want[i]);
        ck_assert_msg(error < (i == 0 ? 1e-4 : 2e-2), "loss of step %zu in %s: %g, want %g", i, eq_tensors_path(r->file), loss,
                      want[i]);
        ck_assert_int_eq(eq_list_run(update), EQ_OK);
    }
    eq_list_destroy(&update);
    eq_buffer_destroy(&buffer);
    free(want);
}

// In full, or without the many forward passes and all but one update: for what is slow.
static void check_file(const char *path, enum eq_family family, bool in_full)
{
    struct reference r;
    float loss;
    device->target.family = family;
    device->target.use_winograd = eq_str_ends(path, "_elu.safetensors");
    printf("# %s, %s kernels%s\n", path, family == EQ_FAMILY_VECTOR ? "vector" : "SIMT",
           device->target.use_winograd ? "" : ", no Winograd");
    open_reference(path, &r);
    fill_network(&r);
    ck_assert_msg(eq_network_gradients(r.network, r.batch, r.size, r.size, r.images, r.labels, 0.1f, &loss, r.logits) == EQ_OK,
                  "%s", eq_last_error());
    check_logits(&r, "logits_train");
    check_gradients(&r);
    check_states(&r);
    if (in_full)
        settle_by_passes(&r);
    else
        settle_by_formula(&r);
    evaluate(&r);
    check_losses(&r, in_full ? 100 : 2);
    close_reference(&r);
}

static void source_path(const char *relative, char path[1024])
{
    const char *root = getenv("EQUIL_SOURCE_ROOT");
    snprintf(path, 1024, "%s/%s", root ? root : ".", relative);
}

START_TEST(golden)
{
    char path[1024];
    source_path("tests/golden/ce-resnet20_32_small_elu.safetensors", path);
    check_file(path, families[_i], is_fast);
}
END_TEST

START_TEST(shared)
{
    char folder[1024], path[1400];
    char **names = NULL;
    size_t num = 0, num_checked = 0;
    const char *only = getenv("EQUIL_TEST_ONLY");
    if (!is_fast) {
        printf("# skipped on this device: the larger networks\n");
        return;
    }
    source_path("../shared/reference/models", folder);
    if (eq_dir_list(folder, &names, &num) != EQ_OK)
        printf("# skipped: %s is not there\n", folder);
    for (size_t i = 0; i < num; i++)
        if (eq_str_ends(names[i], ".safetensors") && (!only || strstr(names[i], only))) {
            snprintf(path, sizeof path, "%s/%s", folder, names[i]);
            check_file(path, families[_i], families[_i] == EQ_FAMILY_VECTOR);
            num_checked++;
        }
    ck_assert_msg(num == 0 || num_checked > 0, "%s has no file to check", folder);
    eq_names_free(names, num);
}
END_TEST

int main(void)
{
    if (eq_device_open(NULL, &device) != EQ_OK) {
        fprintf(stderr, "%s\n", eq_last_error());
        return EXIT_FAILURE;
    }
    Suite *suite = suite_create("reference");
    TCase *tests = tcase_create("networks");
    tcase_set_timeout(tests, 0);
    is_fast = strstr(device->platform_version, "PoCL") != NULL;
    tcase_add_loop_test(tests, golden, 0, 2);
    tcase_add_loop_test(tests, shared, 0, 2);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_set_tap(runner, "-");
    srunner_run_all(runner, CK_SILENT);
    int num_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    eq_device_destroy(&device);
    return num_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

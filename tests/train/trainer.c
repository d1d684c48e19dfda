// Whole runs through the public functions: stopped at every kind of place and resumed to the bit, a full disk, checkpoints of
// other devices and libraries; and classifiers.
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "support/support.h"
#include "train/checkpoint.h"
#include "train/options.h"

enum { NUM_CLASSES = 3, PER_CLASS = 14, EPOCHS = 3, BATCH = 4 };

static char folder[256]; // of this program, with data/CLASS/NN.png in it

static const char *path_of(const char *name)
{
    static char paths[4][512];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(paths[turn], sizeof paths[turn], "%s/%s", folder, name);
    return paths[turn];
}

static void remove_folder(void)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    if (system(command) != 0)
        fprintf(stderr, "%s is left\n", folder);
}

// Drawn shapes of the first classes as a folder of images.
static void make_data(void)
{
    struct eq_dataset *shapes;
    int counts[NUM_CLASSES] = { 0 };
    if (folder[0])
        return;
    snprintf(folder, sizeof folder, "/tmp/equil-trainer-XXXXXX");
    ck_assert(mkdtemp(folder) != NULL);
    atexit(remove_folder);
    EQ_TEST_OK(eq_dataset_open(&(struct eq_dataset_params){ .spec = "shapes", .size = 16 }, &shapes));
    for (size_t item = 0; item < 1000; item++) {
        int label = eq_dataset_label(shapes, item);
        struct eq_image image;
        char name[128];
        if (label >= NUM_CLASSES || counts[label] == PER_CLASS)
            continue;
        snprintf(name, sizeof name, "data/%s", eq_dataset_class_name(shapes, label));
        EQ_TEST_OK(eq_dir_make(path_of(name)));
        snprintf(name, sizeof name, "data/%s/%02d.png", eq_dataset_class_name(shapes, label), counts[label]++);
        EQ_TEST_OK(eq_dataset_get(shapes, item, &image));
        EQ_TEST_OK(eq_image_save_png(path_of(name), &image));
        eq_image_free(&image);
    }
    eq_dataset_destroy(&shapes);
}

static struct eq_train_params params_for(const char *out, bool resume)
{
    if (resume)
        return (struct eq_train_params){ .data = path_of("data"), .out = path_of(out), .resume = true };
    return (struct eq_train_params){ .arch = "ce-resnet20",
                                     .data = path_of("data"),
                                     .out = path_of(out),
                                     .epochs = EPOCHS,
                                     .batch = BATCH,
                                     .size = 16,
                                     .rate = 0.02,
                                     .seed = 9 };
}

// What a run is to do, and where it is to be disturbed.
struct plan {
    int epoch;
    int64_t step;       // stop when this many updates of the epoch are done; 0: not there
    bool in_validation; // or in the validation
    bool at_end;        // or at its end
    bool fill_disk;     // instead of stopping: files may no longer grow
    struct eq_trainer *trainer;
};

static void disturb(struct plan *plan)
{
    if (plan->fill_disk) {
        const struct rlimit limit = { 10000, RLIM_INFINITY };
        setrlimit(RLIMIT_FSIZE, &limit);
    } else {
        eq_trainer_stop(plan->trainer);
    }
}

static void on_progress(void *user, const struct eq_train_progress *progress)
{
    struct plan *plan = user;
    if (progress->epoch != plan->epoch)
        return;
    if (progress->is_epoch_end ? plan->at_end : progress->is_validation ? plan->in_validation : plan->step == progress->step)
        disturb(plan);
}

static eq_status run(const struct eq_train_params *params, struct plan *plan)
{
    struct eq_trainer *trainer;
    EQ_TEST_OK(eq_trainer_create(eq_test_device, params, &trainer));
    plan->trainer = trainer;
    eq_status status = eq_trainer_run(trainer, &(struct eq_train_callbacks){ .progress = on_progress, .user = plan });
    eq_trainer_destroy(&trainer);
    return status;
}

static struct {
    int num;
    char last[1024];
} warnings;

static void keep_warning(void *user, enum eq_log_level level, const char *text)
{
    (void)user;
    ck_assert_int_eq(level, EQ_LOG_WARNING);
    warnings.num++;
    snprintf(warnings.last, sizeof warnings.last, "%s", text);
}

static eq_status run_with_warnings(const struct eq_train_params *params, struct plan *plan)
{
    warnings.num = 0;
    warnings.last[0] = '\0';
    eq_log_set(keep_warning, NULL, EQ_LOG_WARNING);
    const eq_status status = run(params, plan);
    eq_log_set(NULL, NULL, EQ_LOG_WARNING);
    return status;
}

static void check_same_file(const char *a, const char *b, const char *name)
{
    char *data[2], text[2][128];
    size_t bytes[2];
    snprintf(text[0], sizeof text[0], "%s/%s", a, name);
    snprintf(text[1], sizeof text[1], "%s/%s", b, name);
    for (int i = 0; i < 2; i++)
        EQ_TEST_OK(eq_file_read(path_of(text[i]), (size_t)1 << 28, &data[i], &bytes[i]));
    ck_assert_msg(bytes[0] == bytes[1] && memcmp(data[0], data[1], bytes[0]) == 0, "%s and %s differ", text[0], text[1]);
    free(data[0]);
    free(data[1]);
}

static void check_same_run(const char *out)
{
    check_same_file("whole", out, "model.safetensors");
    check_same_file("whole", out, "best.safetensors");
    check_same_file("whole", out, "checkpoint.safetensors");
}

static void make_whole(void)
{
    static bool is_made;
    struct plan plan = { .epoch = -1 };
    make_data();
    if (is_made)
        return;
    const struct eq_train_params params = params_for("whole", false);
    EQ_TEST_OK(run(&params, &plan));
    is_made = true;
}

static const struct {
    const char *name;
    struct plan plan;
} stops[] = {
    { "after the first step", { .epoch = 0, .step = 1 } },
    { "in the middle", { .epoch = 1, .step = 4 } },
    { "after the last step of an epoch", { .epoch = 0, .step = 9 } },
    { "in the validation", { .epoch = 1, .in_validation = true } },
    { "at the end of an epoch", { .epoch = 0, .at_end = true } },
    { "in the last step", { .epoch = EPOCHS - 1, .step = 9 } },
};

START_TEST(test_stop)
{
    char out[32];
    struct plan plan = stops[_i].plan, rest = { .epoch = -1 };
    make_whole();
    snprintf(out, sizeof out, "stopped%d", _i);
    struct eq_train_params params = params_for(out, false);
    ck_assert_msg(run(&params, &plan) == EQ_ERR_INTERRUPTED, "%s: not stopped", stops[_i].name);
    params = params_for(out, true);
    EQ_TEST_OK(run(&params, &rest));
    check_same_run(out);
}
END_TEST

// Stopped as soon as a step was reported, and resumed by a trainer of its own each time. One more step is on its way by then,
// so it stops after 2, 4, 6, 8 and 9 steps of an epoch.
START_TEST(test_stop_always)
{
    int num_stops = 0;
    make_whole();
    struct eq_train_params params = params_for("always", false);
    for (eq_status status = EQ_ERR_INTERRUPTED; status != EQ_OK; params = params_for("always", true)) {
        struct eq_trainer *trainer;
        EQ_TEST_OK(eq_trainer_create(eq_test_device, &params, &trainer));
        const struct eq_train_summary *summary = eq_trainer_summary(trainer);
        int is_over = summary->step == 9; // but for the validation
        struct plan plan = { .epoch = summary->epoch + is_over, .step = is_over ? 1 : summary->step + 1, .trainer = trainer };
        status = eq_trainer_run(trainer, &(struct eq_train_callbacks){ .progress = on_progress, .user = &plan });
        ck_assert_msg(status == EQ_OK || status == EQ_ERR_INTERRUPTED, "%s", eq_last_error());
        num_stops += status != EQ_OK;
        eq_trainer_destroy(&trainer);
        ck_assert_int_le(num_stops, 40);
    }
    ck_assert_int_eq(num_stops, EPOCHS * 5);
    check_same_run("always");
}
END_TEST

// The disk fills up in the second epoch: the first epoch's checkpoint survives, nothing is left beside it, and the run goes on
// later.
START_TEST(test_full_disk)
{
    struct plan plan = { .epoch = 1, .in_validation = true, .fill_disk = true }, rest = { .epoch = -1 };
    struct rlimit limit;
    char **names;
    size_t num;
    make_whole();
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit);
    struct eq_train_params params = params_for("full", false);
    eq_status status = run(&params, &plan);
    char *text = eq_strdup(eq_last_error());
    setrlimit(RLIMIT_FSIZE, &limit);
    ck_assert_int_eq(status, EQ_ERR_IO);
    ck_assert_msg(strstr(text, ".safetensors: cannot write: File too large") != NULL, "%s", text);
    free(text);
    EQ_TEST_OK(eq_dir_list(path_of("full"), &names, &num));
    for (size_t i = 0; i < num; i++)
        ck_assert_msg(strstr(names[i], "tmp") == NULL, "%s is left", names[i]);
    eq_names_free(names, num);
    params = params_for("full", true);
    EQ_TEST_OK(run(&params, &rest));
    check_same_run("full");
}
END_TEST

START_TEST(test_other_device)
{
    make_whole();
    struct eq_trainer *trainer;
    const struct eq_train_params params = params_for("whole", true);
    int block = eq_test_device->target.block;
    eq_test_device->target.block = block == 4 ? 8 : 4;
    ck_assert_int_eq(eq_trainer_create(eq_test_device, &params, &trainer), EQ_ERR_UNSUPPORTED);
    eq_test_device->target.block = block;
    ck_assert_msg(strstr(eq_last_error(), "\"4\"") != NULL && strstr(eq_last_error(), "channels in a block") != NULL, "%s",
                  eq_last_error());
    snprintf(eq_test_device->driver + strlen(eq_test_device->driver), 8, "x");
    ck_assert_int_eq(eq_trainer_create(eq_test_device, &params, &trainer), EQ_ERR_UNSUPPORTED);
    ck_assert_msg(strstr(eq_last_error(), " as driver") != NULL, "%s", eq_last_error());
    eq_test_device->driver[strlen(eq_test_device->driver) - 1] = '\0';
    eq_test_device->target.compute_units += 62;
    ck_assert_int_eq(eq_trainer_create(eq_test_device, &params, &trainer), EQ_ERR_UNSUPPORTED);
    ck_assert_msg(strstr(eq_last_error(), " as number of compute units") != NULL, "%s", eq_last_error());
    eq_test_device->target.compute_units -= 62;

    struct eq_tuning *tuning;
    char hash[20], want[64];
    const struct eq_tuning *before = eq_test_device->target.tuning;
    EQ_TEST_OK(eq_tuning_create(&tuning));
    EQ_TEST_OK(eq_tuning_merge(tuning, before));
    EQ_TEST_OK(eq_tuning_set(tuning, "kernel", (const int[]){ 1 }, 1, ""));
    eq_test_device->target.tuning = tuning;
    ck_assert_int_eq(eq_trainer_create(eq_test_device, &params, &trainer), EQ_ERR_UNSUPPORTED);
    eq_test_device->target.tuning = before;
    ck_assert_msg(strstr(eq_last_error(), " as tuning") != NULL, "%s", eq_last_error());
    snprintf(want, sizeof want, "\"%s\"", eq_tuning_hash(tuning, hash));
    ck_assert_msg(strstr(eq_last_error(), want) != NULL, "%s: not in %s", want, eq_last_error());
    snprintf(want, sizeof want, "\"%s\"", eq_tuning_hash(before, hash));
    ck_assert_msg(strstr(eq_last_error(), want) != NULL, "%s: not in %s", want, eq_last_error());
    eq_tuning_destroy(&tuning);
}
END_TEST

// ---- checkpoints of other libraries

// Writes over a text of the metadata, which keeps its length; an empty value takes the text away, by another key.
static void edit_text(char *header, const char *key, const char *value)
{
    char *at = strstr(header, key);
    ck_assert_msg(at != NULL, "no %s", key);
    if (*value)
        at = strchr(strchr(at, ':'), '"') + 1;
    memcpy(at, *value ? value : "x", *value ? strlen(value) : 1);
}

struct library {
    const char *name, *version, *kernels, *is_shipped, *build_options; // NULL: what there is
};

static void edit_library(const char *path, const struct library *library)
{
    struct eq_writer writer;
    char *data;
    size_t bytes;
    EQ_TEST_OK(eq_file_read(path, (size_t)1 << 28, &data, &bytes));
    if (library->version)
        edit_text(data + 8, "plan.equil", library->version);
    if (library->kernels)
        edit_text(data + 8, "plan.kernels", library->kernels);
    if (library->is_shipped)
        edit_text(data + 8, "plan.tuning_is_shipped", library->is_shipped);
    if (library->build_options)
        edit_text(data + 8, "plan.build_options", library->build_options);
    EQ_TEST_OK(eq_writer_open(&writer, path));
    EQ_TEST_OK(eq_writer_write(&writer, data, bytes));
    EQ_TEST_OK(eq_writer_commit(&writer));
    free(data);
}

// Options of compilers change sums as another kernel does. Checkpoints of older versions do not have them.
START_TEST(test_build_options)
{
    static char many[1000] = "-DEQ_OTHER -D";
    const char *const others[] = { "-DEQ_OTHER", "-DEQ_OTHER=\"\377\"", many }, *own = getenv("EQUIL_BUILD_OPTIONS");
    char *kept = eq_strdup(own ? own : "");
    struct eq_trainer *trainer;
    struct plan plan = { .epoch = 0, .step = 1 };
    struct eq_train_params params = params_for("options", false);
    memset(many + strlen(many), 'X', sizeof many - 1 - strlen(many));
    make_data();
    ck_assert_int_eq(run(&params, &plan), EQ_ERR_INTERRUPTED);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        params = params_for("options", true);
        setenv("EQUIL_BUILD_OPTIONS", others[i], 1);
        ck_assert_int_eq(eq_trainer_create(eq_test_device, &params, &trainer), EQ_ERR_UNSUPPORTED);
        ck_assert_msg(strstr(eq_last_error(), " as EQUIL_BUILD_OPTIONS") != NULL, "%s", eq_last_error());
    }
    setenv("EQUIL_BUILD_OPTIONS", others[0], 1);
    edit_library(path_of("options/checkpoint.safetensors"), &(struct library){ .build_options = "" });
    EQ_TEST_OK(eq_trainer_create(eq_test_device, &params, &trainer));
    eq_trainer_destroy(&trainer);
    setenv("EQUIL_BUILD_OPTIONS", kept, 1);
    free(kept);
}
END_TEST

START_TEST(test_library_is_stored)
{
    struct eq_tensors *file;
    char kernels[20];
    make_whole();
    EQ_TEST_OK(eq_tensors_open(path_of("whole/checkpoint.safetensors"), &file));
    ck_assert_uint_eq(strspn(eq_kernels_hash(kernels), "0123456789abcdef"), 16);
    ck_assert_pstr_eq(eq_tensors_text(file, "plan.equil"), EQ_VERSION);
    ck_assert_pstr_eq(eq_tensors_text(file, "plan.kernels"), kernels);
    eq_tensors_close(&file);
}
END_TEST

static const struct library libraries[] = {
    { .name = "the same" },
    { .name = "other kernels", .kernels = "0123456789abcdef" },
    { .name = "another version", .version = "9.9.9" },
    { .name = "from before kernels were stored", .kernels = "" },
    { .name = "nothing stored", .version = "", .kernels = "" },
};

static void check_warning(const struct library *library, const char *tuning)
{
    char own[20], own_tuning[20], want[300];
    const char *version = library->version ? library->version : EQ_VERSION;
    const char *kernels = library->kernels ? library->kernels : eq_kernels_hash(own);
    snprintf(
        want, sizeof want,
        "is by Equil %s (kernels %s, tuning %s), and this is Equil %s (kernels %s, tuning %s): results may differ in their "
        "last bits from a run that was not stopped",
        *version ? version : "unknown", *kernels ? kernels : "unknown", tuning, EQ_VERSION, eq_kernels_hash(own),
        eq_tuning_hash(eq_test_device->target.tuning, own_tuning));
    ck_assert_msg(warnings.num == 1 && strstr(warnings.last, want), "%s: %d warnings, the last: %s", library->name,
                  warnings.num, warnings.last);
}

// Resumed to the end all the same, which says no more of another library: nothing is left to compute.
START_TEST(test_library)
{
    const struct library *library = &libraries[_i];
    struct plan plan = { .epoch = 0, .step = 1 }, rest = { .epoch = -1 };
    char out[32], file[64], tuning[20];
    make_whole();
    snprintf(out, sizeof out, "library%d", _i);
    snprintf(file, sizeof file, "%s/checkpoint.safetensors", out);
    struct eq_train_params params = params_for(out, false);
    ck_assert_int_eq(run(&params, &plan), EQ_ERR_INTERRUPTED);
    edit_library(path_of(file), library);
    params = params_for(out, true);
    EQ_TEST_OK(run_with_warnings(&params, &rest));
    if (library->version || library->kernels)
        check_warning(library, eq_tuning_hash(eq_test_device->target.tuning, tuning));
    else
        ck_assert_msg(warnings.num == 0, "%s: %s", library->name, warnings.last);
    check_same_run(out);

    edit_library(path_of(file), library);
    params = params_for(out, true);
    EQ_TEST_OK(run_with_warnings(&params, &rest));
    ck_assert_msg(warnings.num == 0, "%s: %s", library->name, warnings.last);
}
END_TEST

// The choices of the library are other ones: resumed with a warning. Some of the user's own, then or now: refused.
START_TEST(test_shipped_tuning)
{
    struct plan plan = { .epoch = 0, .step = 1 }, rest = { .epoch = -1 };
    struct eq_trainer *trainer;
    struct eq_tuning *tuning;
    char hash[20], shipped[20];
    make_data();
    struct eq_train_params params = params_for("tuned", false);
    ck_assert_int_eq(run(&params, &plan), EQ_ERR_INTERRUPTED);
    eq_tuning_hash(eq_test_device->target.tuning, hash);
    memcpy(shipped, eq_test_device->shipped_tuning, sizeof shipped);
    EQ_TEST_OK(eq_tuning_create(&tuning));
    EQ_TEST_OK(eq_tuning_set(tuning, "kernel", (const int[]){ 1 }, 1, ""));
    eq_test_device->target.tuning = tuning;

    params = params_for("tuned", true);
    ck_assert_int_eq(eq_trainer_create(eq_test_device, &params, &trainer), EQ_ERR_UNSUPPORTED);
    eq_tuning_hash(tuning, eq_test_device->shipped_tuning);
    edit_library(path_of("tuned/checkpoint.safetensors"), &(struct library){ .is_shipped = "0" });
    ck_assert_int_eq(eq_trainer_create(eq_test_device, &params, &trainer), EQ_ERR_UNSUPPORTED);
    ck_assert_msg(strstr(eq_last_error(), " as tuning") != NULL, "%s", eq_last_error());
    edit_library(path_of("tuned/checkpoint.safetensors"), &(struct library){ .is_shipped = "1" });
    EQ_TEST_OK(run_with_warnings(&params, &rest));
    check_warning(&(struct library){ .name = "another tuning" }, hash);
    memcpy(eq_test_device->shipped_tuning, shipped, sizeof shipped);
    eq_tuning_destroy(&tuning);
}
END_TEST

START_TEST(test_classifier)
{
    struct eq_classifier *classifier;
    struct eq_evaluation evaluation;
    struct eq_image images[3];
    float together[3 * NUM_CLASSES], alone[NUM_CLASSES];
    make_whole();
    EQ_TEST_OK(eq_classifier_create(eq_test_device,
                                    &(struct eq_classifier_params){ .weights = path_of("whole/model.safetensors"), .batch = 2 },
                                    &classifier));
    ck_assert_str_eq(eq_classifier_arch(classifier), "ce-resnet20");
    ck_assert_int_eq(eq_classifier_size(classifier), 16);
    ck_assert_int_eq(eq_classifier_num_classes(classifier), NUM_CLASSES);
    ck_assert(eq_classifier_class_name(classifier, NUM_CLASSES) == NULL);
    char name[128];
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "data/%s/00.png", eq_classifier_class_name(classifier, i));
        EQ_TEST_OK(eq_image_load(path_of(name), &images[i]));
    }
    EQ_TEST_OK(eq_classifier_run(classifier, images, 3, together));
    for (int i = 0; i < 3; i++) {
        double sum = 0;
        EQ_TEST_OK(eq_classifier_run(classifier, &images[i], 1, alone));
        for (int c = 0; c < NUM_CLASSES; c++) {
            // Another place in the batch: the same values but for the order of a few sums.
            double other = (double)together[i * NUM_CLASSES + c];
            ck_assert_msg(fabs(alone[c] - other) < 1e-5, "image %d, class %d: %.9g alone, %.9g together", i, c,
                          (double)alone[c], other);
            sum += alone[c];
        }
        ck_assert_double_eq_tol(sum, 1, 1e-6);
        eq_image_free(&images[i]);
    }
    EQ_TEST_OK(eq_classifier_evaluate(classifier, path_of("data"), NULL, NULL, &evaluation));
    ck_assert_uint_eq(evaluation.images, NUM_CLASSES * PER_CLASS);
    ck_assert(evaluation.top5 == 1 && evaluation.top1 >= 0 && evaluation.top1 <= 1 && isfinite(evaluation.loss));
    ck_assert_int_eq(eq_classifier_evaluate(classifier, "shapes", NULL, NULL, &evaluation), EQ_ERR_ARGUMENT);
    eq_classifier_destroy(&classifier);
    ck_assert_int_eq(eq_classifier_create(
                         eq_test_device,
                         &(struct eq_classifier_params){ .weights = path_of("whole/model.safetensors"), .arch = "resnet20" },
                         &classifier),
                     EQ_ERR_ARGUMENT);
}
END_TEST

enum { NUM_ITEMS = 7, BROKEN = 3 };

struct pass {
    struct eq_classifier *classifier;
    const struct eq_image_item *items;
    size_t next, last; // image that has to come, and the one to stop after
};

// Images come in their order, the broken one left out, each with what it has alone.
static bool see_image(void *user, size_t i, const float *probabilities)
{
    struct pass *pass = user;
    const struct eq_image_item *item = &pass->items[i];
    struct eq_image image;
    float alone[NUM_CLASSES];
    ck_assert_uint_eq(i, pass->next);
    pass->next += i + 1 == BROKEN ? 2 : 1;
    EQ_TEST_OK(item->path ? eq_image_load(item->path, &image) : eq_dataset_get(item->dataset, item->item, &image));
    EQ_TEST_OK(eq_classifier_run(pass->classifier, &image, 1, alone));
    eq_image_free(&image);
    for (int c = 0; c < NUM_CLASSES; c++) // another place in the batch: the same values but for the order of a few sums
        ck_assert_msg(fabs((double)alone[c] - (double)probabilities[c]) < 1e-5, "image %zu, class %d: %.9g, %.9g alone", i, c,
                      (double)probabilities[c], (double)alone[c]);
    return i == pass->last;
}

// Files and items of a set together, the last batch cut short.
START_TEST(test_classifier_each)
{
    static char paths[NUM_ITEMS][512];
    struct eq_image_item items[NUM_ITEMS];
    struct eq_classifier *classifier, *other;
    struct eq_dataset *shapes;
    size_t skipped = 99;
    make_whole();
    const struct eq_classifier_params params = { .weights = path_of("whole/model.safetensors"), .batch = 2 };
    EQ_TEST_OK(eq_classifier_create(eq_test_device, &params, &classifier));
    EQ_TEST_OK(eq_classifier_create(eq_test_device, &params, &other));
    EQ_TEST_OK(eq_dataset_open(&(struct eq_dataset_params){ .spec = "shapes", .size = 24 }, &shapes));
    for (int i = 0; i < NUM_ITEMS; i++) {
        snprintf(paths[i], sizeof paths[i], "%s/data/%s/%s.png", folder, eq_classifier_class_name(classifier, i % NUM_CLASSES),
                 i == BROKEN ? "none" : "01");
        items[i] = i % 2 || i == BROKEN ? (struct eq_image_item){ .path = paths[i] }
                                        : (struct eq_image_item){ .dataset = shapes, .item = (size_t)(10 * i) };
    }
    struct pass pass = { .classifier = other, .items = items, .last = NUM_ITEMS };
    EQ_TEST_OK(eq_classifier_each(classifier, items, NUM_ITEMS, see_image, &pass, &skipped));
    ck_assert_uint_eq(pass.next, NUM_ITEMS);
    ck_assert_uint_eq(skipped, 1);
    pass = (struct pass){ .classifier = other, .items = items, .last = 1 };
    ck_assert_int_eq(eq_classifier_each(classifier, items, NUM_ITEMS, see_image, &pass, &skipped), EQ_ERR_INTERRUPTED);
    ck_assert_uint_eq(pass.next, 2);
    EQ_TEST_OK(eq_classifier_each(classifier, &items[BROKEN], 1, see_image, &pass, &skipped)); // none, of one
    ck_assert(pass.next == 2 && skipped == 1);
    ck_assert_int_eq(eq_classifier_each(classifier, items, 0, see_image, &pass, &skipped), EQ_ERR_ARGUMENT);
    ck_assert(strstr(eq_last_error(), "0 images") != NULL);
    items[5] = (struct eq_image_item){ NULL };
    ck_assert_int_eq(eq_classifier_each(classifier, items, NUM_ITEMS, see_image, &pass, &skipped), EQ_ERR_ARGUMENT);
    ck_assert(strstr(eq_last_error(), "image 5 of 7 has neither") != NULL);
    eq_dataset_destroy(&shapes);
    eq_classifier_destroy(&other);
    eq_classifier_destroy(&classifier);
}
END_TEST

// What is wrong with names and shapes is said when a classifier is made; what is wrong with values, which a thread reads, when
// the first images come. Then the file is read again.
START_TEST(test_classifier_values)
{
    const struct eq_model_params model = { .arch = "ce-resnet20", .classes = NUM_CLASSES }, other = { "resnet20", NUM_CLASSES };
    const struct eq_classifier_params params = { path_of("values.safetensors"), .arch = "ce-resnet20", .size = 16, .batch = 1 };
    struct eq_network *network;
    struct eq_classifier *classifier = NULL;
    struct eq_image image;
    float probabilities[NUM_CLASSES];
    make_whole();
    EQ_TEST_OK(eq_network_create(eq_test_device, &other, &network));
    EQ_TEST_OK(eq_weights_save(eq_network_weights(network), params.weights, NULL, 0));
    eq_network_destroy(&network);
    ck_assert_int_eq(eq_classifier_create(eq_test_device, &params, &classifier), EQ_ERR_NOT_FOUND);
    ck_assert(!classifier && strstr(eq_last_error(), "is missing"));
    EQ_TEST_OK(eq_network_create(eq_test_device, &model, &network));
    EQ_TEST_OK(eq_weights_save(eq_network_weights(network), params.weights, NULL, 0));
    EQ_TEST_OK(eq_classifier_create(eq_test_device, &params, &classifier));
    EQ_TEST_OK(eq_image_load(path_of("data/circle/00.png"), &image));
    for (int turn = 0; turn < 2; turn++) {
        ck_assert_int_eq(eq_classifier_run(classifier, &image, 1, probabilities), EQ_ERR_NUMERIC);
        ck_assert(strstr(eq_last_error(), params.weights) && strstr(eq_last_error(), "running_scale is 0"));
    }
    EQ_TEST_OK(eq_weights_load(eq_network_weights(network), path_of("whole/model.safetensors"), false, 0));
    EQ_TEST_OK(eq_weights_save(eq_network_weights(network), params.weights, NULL, 0));
    EQ_TEST_OK(eq_classifier_run(classifier, &image, 1, probabilities));
    ck_assert_double_eq_tol((double)probabilities[0] + probabilities[1] + probabilities[2], 1, 1e-6);
    eq_classifier_destroy(&classifier);
    EQ_TEST_OK(eq_classifier_create(eq_test_device, &params, &classifier)); // and given up while it is read
    eq_classifier_destroy(&classifier);
    ck_assert_ptr_null(classifier);
    eq_image_free(&image);
    eq_network_destroy(&network);
}
END_TEST

// ---- what is in the folder of results

// A run that never came to a checkpoint has left its log, and the next one, and a third.
START_TEST(test_log_is_kept)
{
    static const char *const kept[] = { "of the first\n", "of the second\n" };
    struct eq_train_params params;
    make_data();
    EQ_TEST_OK(eq_dir_make(path_of("logs")));
    for (int i = 0; i < 2; i++) {
        struct plan plan = { .epoch = 0, .step = 1 };
        char want[32], *data;
        size_t bytes;
        EQ_TEST_OK(eq_file_write(path_of("logs/log.jsonl"), kept[i], strlen(kept[i])));
        params = params_for("logs", false);
        ck_assert_int_eq(run_with_warnings(&params, &plan), EQ_ERR_INTERRUPTED);
        snprintf(want, sizeof want, "logs/log.jsonl.%d", i + 1);
        ck_assert_msg(warnings.num == 1 && strstr(warnings.last, path_of(want)), "%d: %s", warnings.num, warnings.last);
        EQ_TEST_OK(eq_file_read(path_of(want), 100, &data, &bytes));
        ck_assert_str_eq(data, kept[i]);
        free(data);
        EQ_TEST_OK(eq_file_read(path_of("logs/log.jsonl"), 10000, &data, &bytes));
        ck_assert(eq_str_starts(data, "{\"event\":\"start\"") && !strstr(data, kept[i]));
        free(data);
        ck_assert_int_eq(unlink(path_of("logs/checkpoint.safetensors")), 0);
        EQ_TEST_OK(eq_file_write(path_of("logs/log.jsonl"), "", 0)); // an empty one is none
    }
    struct plan plan = { .epoch = 0, .step = 1 };
    params = params_for("logs", false);
    ck_assert_int_eq(run_with_warnings(&params, &plan), EQ_ERR_INTERRUPTED);
    ck_assert_msg(warnings.num == 0 && !eq_file_exists(path_of("logs/log.jsonl.3")), "%s", warnings.last);
}
END_TEST

// Each of the files is looked at before anything is computed.
START_TEST(test_files_are_checked)
{
    static const char *const names[] = { "model", "best" };
    struct plan plan = { .epoch = 0, .at_end = true };
    struct eq_train_params params = params_for("checked", false);
    make_data();
    ck_assert_int_eq(run(&params, &plan), EQ_ERR_INTERRUPTED);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct eq_trainer *trainer;
        char name[64];
        snprintf(name, sizeof name, "checked/%s.safetensors", names[i]);
        ck_assert_int_eq(unlink(path_of(name)), 0);
        EQ_TEST_OK(eq_dir_make(path_of(name)));
        params = params_for("checked", true);
        ck_assert_int_eq(eq_trainer_create(eq_test_device, &params, &trainer), EQ_ERR_IO);
        ck_assert_msg(strstr(eq_last_error(), name) != NULL, "%s", eq_last_error());
        ck_assert_int_eq(rmdir(path_of(name)), 0);
    }
}
END_TEST

// ---- broken images

// Copies of the data whose first `num_broken` images are no images, as folder "broken/NAME"; returns its path.
static const char *make_broken(const char *name, int num_broken)
{
    static char data[300];
    char command[1400];
    make_data();
    snprintf(data, sizeof data, "%s/broken-%s", folder, name);
    snprintf(command, sizeof command,
             "cp -r '%s/data' '%s' && find '%s' -name '*.png' | sort | head -n %d | "
             "while read file; do echo no >\"$file\"; done",
             folder, data, data, num_broken);
    ck_assert_int_eq(system(command), 0);
    return data;
}

static struct eq_train_params broken_params(const char *data, const char *out)
{
    struct eq_train_params params = params_for(out, false);
    params.data = data;
    params.val = path_of("data");
    params.epochs = 1;
    return params;
}

enum { NUM_IMAGES = NUM_CLASSES * PER_CLASS };

struct seen {
    size_t skipped;
    int num_steps;
};

static void note_end(void *user, const struct eq_train_progress *progress)
{
    struct seen *seen = user;
    if (progress->is_epoch_end)
        seen->skipped = progress->skipped;
    else if (!progress->is_validation)
        seen->num_steps++;
}

// As many broken ones as make the last batch an incomplete one: all of them are met, and counted, and the step that is
// missing is spoken of.
START_TEST(test_skipped)
{
    enum { NUM_BROKEN = NUM_IMAGES % BATCH + 1 };
    struct seen seen = { 0 };
    struct eq_trainer *trainer;
    const char *data = make_broken("few", NUM_BROKEN);
    const struct eq_train_params params = broken_params(data, "few");
    char want[200];
    eq_log_set(keep_warning, NULL, EQ_LOG_WARNING);
    warnings.num = 0;
    EQ_TEST_OK(eq_trainer_create(eq_test_device, &params, &trainer));
    EQ_TEST_OK(eq_trainer_run(trainer, &(struct eq_train_callbacks){ .progress = note_end, .user = &seen }));
    eq_trainer_destroy(&trainer);
    eq_log_set(NULL, NULL, EQ_LOG_WARNING);
    ck_assert_uint_eq(seen.skipped, NUM_BROKEN);
    ck_assert_int_eq(seen.num_steps, NUM_IMAGES / BATCH - 1);
    snprintf(want, sizeof want, "epoch 1 has %d of its %d steps: %d of %d images could not be read", NUM_IMAGES / BATCH - 1,
             NUM_IMAGES / BATCH, NUM_BROKEN, NUM_IMAGES);
    ck_assert_int_eq(warnings.num, NUM_BROKEN + 1); // each image, and the steps
    ck_assert_msg(strstr(warnings.last, want) != NULL, "%s: not in %s", want, warnings.last);
}
END_TEST

START_TEST(test_no_step)
{
    struct plan plan = { .epoch = -1 };
    const char *data = make_broken("one", 1);
    struct eq_train_params params = broken_params(data, "one");
    char want[200];
    params.batch = NUM_IMAGES + 8;
    ck_assert_int_eq(run_with_warnings(&params, &plan), EQ_ERR_FORMAT);
    snprintf(want, sizeof want, "%d of %d images can be read, not enough for a single step, which needs %d x 1", NUM_IMAGES - 1,
             NUM_IMAGES, NUM_IMAGES);
    ck_assert_msg(strstr(eq_last_error(), want) && strstr(eq_last_error(), "smaller batch"), "%s: not in %s", want,
                  eq_last_error());
    ck_assert_int_eq(warnings.num, 2); // the batch, and the image
}
END_TEST

START_TEST(test_large_batch)
{
    struct eq_trainer *trainer;
    struct eq_train_params params = params_for("large", false);
    char want[200];
    make_data();
    params.val = path_of("data");
    params.arch = "resnet18";
    params.size = 32;
    params.rate = 0;
    params.batch = 100;
    params.accumulate = 2;
    eq_log_set(keep_warning, NULL, EQ_LOG_WARNING);
    warnings.num = 0;
    EQ_TEST_OK(eq_trainer_create(eq_test_device, &params, &trainer));
    eq_log_set(NULL, NULL, EQ_LOG_WARNING);
    const struct eq_train_params *used = &eq_trainer_summary(trainer)->params;
    ck_assert_int_eq(used->batch, NUM_IMAGES / 2);
    ck_assert_double_eq_tol(used->rate, 0.1 * NUM_IMAGES / 256, 1e-12);
    snprintf(want, sizeof want, "%d images to train on, fewer than the 100 x 2 of an update: the batch is %d", NUM_IMAGES,
             NUM_IMAGES / 2);
    ck_assert_msg(warnings.num == 1 && strstr(warnings.last, want), "%s: not in %s", want, warnings.last);
    eq_trainer_destroy(&trainer);
}
END_TEST

EQ_TEST_MAIN("trainer", { test_stop, sizeof stops / sizeof *stops }, { test_stop_always, 0 }, { test_full_disk, 0 },
             { test_other_device, 0 }, { test_build_options, 0 }, { test_library_is_stored, 0 },
             { test_library, sizeof libraries / sizeof *libraries }, { test_shipped_tuning, 0 }, { test_classifier, 0 },
             { test_classifier_each, 0 }, { test_classifier_values, 0 }, { test_log_is_kept, 0 }, { test_files_are_checked, 0 },
             { test_skipped, 0 }, { test_no_step, 0 }, { test_large_batch, 0 })

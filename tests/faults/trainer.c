// Faults of whole runs: training with a trainer from a folder of images, classifying with what it made. Of the calls of OpenCL
// and of memory, which session.c sweeps for a smaller network, a sample is enough.
#include <stdlib.h>
#include <string.h>

#include "equil/train.h"
#include "fault.h"

enum { CLASSES = 2, PER_CLASS = 3, SIDE = 16 };

static void make_images(void)
{
    struct eq_dataset *shapes;
    int counts[CLASSES] = { 0 };
    EQ_TEST_OK(eq_dataset_open(&(struct eq_dataset_params){ .spec = "shapes", .size = SIDE }, &shapes));
    for (size_t item = 0; item < 200; item++) {
        const int label = eq_dataset_label(shapes, item);
        struct eq_image image;
        char name[64];
        if (label >= CLASSES || counts[label] == PER_CLASS)
            continue;
        snprintf(name, sizeof name, "set/%d", label);
        EQ_TEST_OK(eq_dir_make(fault_path(name)));
        snprintf(name, sizeof name, "set/%d/%d.png", label, counts[label]++);
        EQ_TEST_OK(eq_dataset_get(shapes, item, &image));
        EQ_TEST_OK(eq_image_save_png(fault_path(name), &image));
        eq_image_free(&image);
    }
    eq_dataset_destroy(&shapes);
}

START_TEST(test_setup)
{
    make_images();
}
END_TEST

// ---- training

static bool train(bool resume)
{
    char data[256], val[256], out[256];
    snprintf(data, sizeof data, "%s", fault_path("set"));
    snprintf(val, sizeof val, "%s", fault_path("set"));
    snprintf(out, sizeof out, "%s", fault_path("out"));
    const struct eq_train_params fresh = {
        .arch = "resnet20", .data = data, .val = val, .out = out, .epochs = 1, .batch = 2, .size = SIDE, .seed = 4
    };
    const struct eq_train_params again = { .data = data, .val = val, .out = out, .resume = true };
    struct eq_trainer *trainer = NULL;
    const bool ok = fault_ok(eq_trainer_create(eq_test_device, resume ? &again : &fresh, &trainer)) &&
                    fault_ok(eq_trainer_run(trainer, NULL));
    eq_trainer_destroy(&trainer);
    return ok;
}

static void add_result(void)
{
    char *bytes;
    size_t num;
    if (fault_ok(eq_file_read(fault_path("out/model.safetensors"), 1 << 24, &bytes, &num))) {
        fault_result(bytes, num);
        free(bytes);
    }
}

// A run that failed goes on from its checkpoint; without one it begins anew.
static void run_trainer(void)
{
    bool ok = train(false);
    if (!ok && fault_try_again()) {
        const bool resume = eq_file_exists(fault_path("out/checkpoint.safetensors"));
        if (!resume)
            fault_remove("out");
        ok = train(resume);
    }
    if (ok)
        add_result();
}

// The folder of results has the log of another run, which is kept.
static const char other_log[] = "of another run\n";

static void renew_out(void)
{
    fault_remove("out");
    EQ_TEST_OK(eq_dir_make(fault_path("out")));
    EQ_TEST_OK(eq_file_write(fault_path("out/log.jsonl"), other_log, strlen(other_log)));
}

// No file is damaged, and no temporary one left.
static void check_out(bool is_hurt)
{
    static const char *const files[] = { "out/model.safetensors", "out/best.safetensors", "out/checkpoint.safetensors" };
    char **names;
    size_t num;
    struct eq_tensors *file;
    for (int i = 0; i < 3; i++) {
        const bool is_there = eq_file_exists(fault_path(files[i]));
        if (is_there && eq_tensors_open(fault_path(files[i]), &file) != EQ_OK)
            fault_complain("%s", eq_last_error());
        else if (is_there)
            eq_tensors_close(&file);
        else if (!is_hurt)
            fault_complain("%s is missing", files[i]);
    }
    if (!eq_file_exists(fault_path("out")) || fault_is_for_good())
        return;
    EQ_TEST_OK(eq_dir_list(fault_path("out"), &names, &num));
    for (size_t i = 0; i < num; i++)
        if (strstr(names[i], ".tmp."))
            fault_complain("%s is left", names[i]);
    eq_names_free(names, num);
}

START_TEST(test_trainer)
{
    fault_sweep(&(struct fault_scenario){ .name = "trainer",
                                          .run = run_trainer,
                                          .before = renew_out,
                                          .after = check_out,
                                          .one_of = 16,
                                          .harmless = " pthread_create opendir fclose open64 fsync unlink ",
                                          .kinds = FAULT_ALL });
}
END_TEST

// ---- classifying

static bool take_result(void *user, size_t i, const float *probabilities)
{
    (void)i;
    memcpy(user, probabilities, CLASSES * sizeof *probabilities);
    return false;
}

static void classify(void)
{
    const struct eq_image_item item = { .path = fault_path("set/0/0.png") };
    struct eq_classifier *classifier = NULL;
    struct eq_image image = { 0 };
    float probabilities[2 * CLASSES] = { 0 };
    size_t skipped = 0;
    if (fault_ok(eq_classifier_create(eq_test_device,
                                      &(struct eq_classifier_params){ .weights = fault_path("model.safetensors"), .batch = 1 },
                                      &classifier)) &&
        fault_ok(eq_image_load(fault_path("set/0/0.png"), &image)) &&
        fault_ok(eq_classifier_run(classifier, &image, 1, probabilities)) &&
        fault_ok(eq_classifier_each(classifier, &item, 1, take_result, probabilities + CLASSES, &skipped)) && skipped == 0)
        fault_result(probabilities, sizeof probabilities);
    fault_ending();
    eq_image_free(&image);
    eq_classifier_destroy(&classifier);
}

START_TEST(test_classifier)
{
    fault_remove("out");
    ck_assert_msg(train(false), "%s", eq_last_error());
    ck_assert_int_eq(rename(fault_path("out/model.safetensors"), fault_path("model.safetensors")), 0);
    fault_sweep(&(struct fault_scenario){ .name = "classifier",
                                          .run = classify,
                                          .one_of = 8,
                                          .harmless = " pthread_create fclose ",
                                          .kinds = 1u << FAULT_CL | 1u << FAULT_MEMORY | 1u << FAULT_FILE });
}
END_TEST

EQ_TEST_MAIN("faults of whole runs", { test_setup }, { test_trainer }, { test_classifier })

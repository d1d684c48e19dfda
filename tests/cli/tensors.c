// equil run and equil grad on files: what they write, and what they refuse.
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "equil/equil.h"

enum { BATCH = 2, CLASSES = 4, SIZE = 12, PIXELS = 3 * SIZE * SIZE };

static char folder[] = "/tmp/equil-tensors-XXXXXX";
static char text[1 << 14]; // what the last command wrote to stderr

static const char *in_folder(const char *name)
{
    static char paths[4][256];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(paths[turn], sizeof paths[turn], "%s/%s", folder, name);
    return paths[turn];
}

// Runs `command` with the usual options and a network, capturing stderr; extra words end with NULL.
static int run(const struct command *command, const char *weights, const char *input, const char *output,
               const char *const *extra)
{
    const char *argv[32] = { command->name,    "--arch",           "ce-resnet20", "--classes",      "4",
                             "--weights",      in_folder(weights), "--input",     in_folder(input), "--output",
                             in_folder(output) };
    int argc = 11;
    for (; extra && *extra; extra++)
        argv[argc++] = *extra;
    fflush(NULL);
    FILE *file = tmpfile();
    int kept = dup(STDERR_FILENO);
    ck_assert(file && kept >= 0 && dup2(fileno(file), STDERR_FILENO) >= 0);
    int exit_code = command->run(argc, (char **)argv);
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    rewind(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return exit_code;
}

static void check_refused(const struct command *command, const char *weights, const char *input, const char *const *extra,
                          const char *part)
{
    unlink(in_folder("refused"));
    int exit_code = run(command, weights, input, "refused", extra);
    ck_assert_msg(exit_code == EXIT_FAILED, "exit code %d: %s", exit_code, text);
    ck_assert_msg(strstr(text, part), "no '%s' in: %s", part, text);
    ck_assert(access(in_folder("refused"), F_OK) != 0);
}

// Writes input and labels; n images of size pixels, labels i % modulus + shift.
static void write_input(const char *name, int n, int channels, int size, int shift)
{
    size_t elems = (size_t)(n * channels * size * size);
    float *images = malloc(elems * sizeof *images);
    int64_t labels[BATCH];
    for (size_t i = 0; i < elems; i++)
        images[i] = (float)sin((double)(i * i % 1000));
    for (int i = 0; i < BATCH; i++)
        labels[i] = i % CLASSES + shift;
    const struct eq_tensor_entry entries[] = {
        { .name = "input", .num_dims = 4, .dims = { n, channels, size, size }, .data = images },
        { .name = "labels", .type = EQ_DATA_I64, .num_dims = 1, .dims = { BATCH }, .data = labels },
    };
    ck_assert_msg(eq_tensors_save(in_folder(name), entries, 2, NULL, 0) == EQ_OK, "%s", eq_last_error());
    free(images);
}

// Copies weights.safetensors without the tensor `left_out`, or with one of a wrong shape in its place.
static void write_damaged(const char *name, const char *left_out, bool is_reshaped)
{
    struct eq_tensors *file;
    ck_assert_msg(eq_tensors_open(in_folder("weights"), &file) == EQ_OK, "%s", eq_last_error());
    size_t num = eq_tensors_num(file), kept = 0;
    struct eq_tensor_entry *entries = calloc(num, sizeof *entries);
    for (size_t i = 0; i < num; i++) {
        struct eq_tensor_entry entry = *eq_tensors_at(file, i);
        bool is_hit = strcmp(entry.name, left_out) == 0;
        if (entry.type != EQ_DATA_F32 || (is_hit && !is_reshaped))
            continue;
        float *values = malloc(entry.elems * sizeof *values);
        ck_assert_int_eq(eq_tensors_read_f32(file, entry.name, values, entry.elems), EQ_OK);
        if (is_hit) {
            entry.num_dims = 1;
            entry.dims[0] = (int64_t)entry.elems;
        }
        entry.data = values;
        entries[kept++] = entry;
    }
    ck_assert_msg(eq_tensors_save(in_folder(name), entries, kept, NULL, 0) == EQ_OK, "%s", eq_last_error());
    for (size_t i = 0; i < kept; i++)
        free((void *)entries[i].data);
    free(entries);
    eq_tensors_close(&file);
}

// A network as training starts from, and one whose running_scales are 1.
static void write_weights(void)
{
    struct eq_device *device;
    struct eq_network *network;
    const float one = 1;
    ck_assert_msg(eq_device_open(NULL, &device) == EQ_OK, "%s", eq_last_error());
    struct eq_model_params params = { .arch = "ce-resnet20", .classes = CLASSES };
    ck_assert_msg(eq_network_create(device, &params, &network) == EQ_OK, "%s", eq_last_error());
    ck_assert_int_eq(eq_weights_initialise(eq_network_weights(network), 0), EQ_OK);
    ck_assert_int_eq(eq_weights_save(eq_network_weights(network), in_folder("untrained"), NULL, 0), EQ_OK);
    for (int i = 0; i < eq_weights_num(eq_network_weights(network)); i++) {
        struct eq_weights_tensor tensor = eq_weights_at(eq_network_weights(network), i);
        if (strstr(tensor.name, "running_scale"))
            ck_assert_int_eq(eq_weights_write(eq_network_weights(network), tensor.name, &one), EQ_OK);
    }
    ck_assert_int_eq(eq_weights_save(eq_network_weights(network), in_folder("weights"), NULL, 0), EQ_OK);
    const struct eq_tensors_text texts[] = { { "arch", "ce-resnet20" }, { "classes", "4" }, { "act", "relu" } };
    ck_assert_int_eq(eq_weights_save(eq_network_weights(network), in_folder("described"), texts, 3), EQ_OK);
    eq_network_destroy(&network);
    eq_device_destroy(&device);
}

static void write_files(void)
{
    write_weights();
    write_input("input", BATCH, 3, SIZE, 0);
}

START_TEST(run_writes_logits)
{
    struct eq_tensors *file;
    float logits[BATCH * CLASSES];
    ck_assert_msg(run(&command_run, "weights", "input", "logits", NULL) == EXIT_SUCCESS, "%s", text);
    ck_assert_str_eq(text, "");
    ck_assert_int_eq(eq_tensors_open(in_folder("logits"), &file), EQ_OK);
    ck_assert_uint_eq(eq_tensors_num(file), 1);
    const struct eq_tensor_entry *entry = eq_tensors_find(file, "logits");
    ck_assert(entry && entry->num_dims == 2 && entry->dims[0] == BATCH && entry->dims[1] == CLASSES);
    ck_assert_int_eq(eq_tensors_read_f32(file, "logits", logits, BATCH * CLASSES), EQ_OK);
    bool is_constant = true;
    for (int i = 0; i < BATCH * CLASSES; i++) {
        ck_assert(isfinite(logits[i]));
        is_constant = is_constant && logits[i] == logits[0];
    }
    ck_assert(!is_constant);
    eq_tensors_close(&file);
}
END_TEST

START_TEST(grad_writes_everything)
{
    struct eq_tensors *file;
    float loss;
    int num_grad = 0, num_after = 0;
    ck_assert_msg(run(&command_grad, "untrained", "input", "grad", (const char *const[]){ "--label-smoothing", "0", NULL }) ==
                      EXIT_SUCCESS,
                  "%s", text);
    ck_assert_int_eq(eq_tensors_open(in_folder("grad"), &file), EQ_OK);
    ck_assert_int_eq(eq_tensors_read_f32(file, "loss", &loss, 1), EQ_OK);
    ck_assert_msg(loss > 0.1 && loss < 10, "loss %g", loss); // log(4) = 1.4 for a network that knows nothing
    for (size_t i = 0; i < eq_tensors_num(file); i++) {
        num_grad += strncmp(eq_tensors_at(file, i)->name, "grad.", 5) == 0;
        num_after += strncmp(eq_tensors_at(file, i)->name, "after.", 6) == 0;
    }
    // Stem 3; nine blocks of 2 convolutions, 4 norm and 5 CE parameters; two shortcuts of 3; classifier 2. Statistics: 2; 4 + 3
    // a block; 4.
    ck_assert_int_eq(num_grad, 3 + 9 * 11 + 2 * 3 + 2);
    ck_assert_int_eq(num_after, 2 + 9 * 7 + 2 * 2);
    ck_assert_ptr_nonnull(eq_tensors_find(file, "logits"));
    const struct eq_tensor_entry *entry = eq_tensors_find(file, "grad.layer2.0.conv1.weight");
    ck_assert(entry && entry->num_dims == 4 && entry->dims[0] == 32 && entry->dims[1] == 16 && entry->dims[2] == 3 &&
              entry->dims[3] == 3);
    entry = eq_tensors_find(file, "after.layer1.0.ce.running_wm");
    ck_assert(entry && entry->num_dims == 3 && entry->dims[0] == 1 && entry->dims[1] == 16 && entry->dims[2] == 16);
    eq_tensors_close(&file);
}
END_TEST

START_TEST(statistics_may_be_missing)
{
    write_damaged("nostate", "layer1.0.bn1.running_mean", false);
    ck_assert_msg(run(&command_run, "nostate", "input", "logits2", NULL) == EXIT_SUCCESS, "%s", text);
}
END_TEST

START_TEST(refused)
{
    check_refused(&command_run, "untrained", "input", NULL, "layer1.0.ce.AR.running_scale is 0");
    write_damaged("noscale", "layer2.1.ce.AR.running_scale", false);
    check_refused(&command_run, "noscale", "input", NULL, "layer2.1.ce.AR.running_scale is 0");
    write_damaged("missing", "layer3.0.conv2.weight", false);
    check_refused(&command_run, "missing", "input", NULL, "layer3.0.conv2.weight is missing");
    write_damaged("misshapen", "layer3.0.conv2.weight", true);
    check_refused(&command_grad, "misshapen", "input", NULL,
                  "layer3.0.conv2.weight has shape [36864]; the network has [64, 64, 3, 3]");
    check_refused(&command_run, "weights", "input", (const char *const[]){ "--classes", "5", NULL },
                  "fc.weight has shape [4, 64]; the network has [5, 64]");
    check_refused(&command_run, "weights", "input", (const char *const[]){ "--arch", "resnet19", NULL },
                  "unknown network 'resnet19'");
    check_refused(&command_run, "nothing", "input", NULL, "nothing");
    const struct command *const writers[] = { &command_run, &command_grad };
    for (size_t i = 0; i < 2; i++) { // what is read is not written over, by whatever name
        ck_assert_int_eq(run(writers[i], "weights", "input", "input", NULL), EXIT_FAILED);
        ck_assert_ptr_nonnull(strstr(text, "would be written over what is read"));
        ck_assert_int_eq(symlink(in_folder("weights"), in_folder("link")), 0);
        ck_assert_int_eq(run(writers[i], "weights", "input", "link", NULL), EXIT_FAILED);
        ck_assert_ptr_nonnull(strstr(text, "would be written over what is read"));
        unlink(in_folder("link"));
    }
    check_refused(&command_run, "weights", "weights", NULL, "no tensor called input");
    write_input("onechannel", BATCH, 1, SIZE, 0);
    check_refused(&command_run, "weights", "onechannel", NULL, "input is [2, 1, 12, 12]; it must be [N, 3, H, W]");
    write_input("nobody", 0, 3, SIZE, 0);
    check_refused(&command_run, "weights", "nobody", NULL, "input is [0, 3, 12, 12], an empty batch");
    check_refused(&command_grad, "weights", "nobody", NULL, "input is [0, 3, 12, 12], an empty batch");
    write_input("tiny", BATCH, 3, 4, 0); // layer3 sees 1 x 1 pixels
    check_refused(&command_run, "weights", "tiny", NULL, "1 x 1");
    write_input("badlabels", BATCH, 3, SIZE, 3);
    check_refused(&command_grad, "weights", "badlabels", NULL, "label 4 of image 1; there are 4 classes");
    write_input("three", 3, 3, SIZE, 0);
    check_refused(&command_grad, "weights", "three", NULL, "labels");
    check_refused(&command_run, "weights", "input", (const char *const[]){ "--device", "no such device", NULL },
                  "no such device");
}
END_TEST

// Tensors of another network may fit, or be ignored: its metadata tells.
START_TEST(another_network_refused)
{
    ck_assert_msg(run(&command_run, "described", "input", "output", NULL) == EXIT_SUCCESS, "%s", text);
    check_refused(&command_run, "described", "input", (const char *const[]){ "--arch", "resnet20", NULL },
                  "described: its metadata has the network ce-resnet20, resnet20 was given");
    check_refused(&command_grad, "described", "input", (const char *const[]){ "--act", "elu", NULL },
                  "described: its metadata has the activation relu, elu was given");
    check_refused(&command_run, "described", "input", (const char *const[]){ "--classes", "5", NULL },
                  "described: its metadata has 4 classes, 5 were given");
    const struct eq_tensors_text texts[] = { { "arch", "resnet18" }, { "classes", "4" }, { "small", "1" } };
    const float value = 0;
    const struct eq_tensor_entry entry = { .name = "x", .num_dims = 1, .dims = { 1 }, .data = &value };
    ck_assert_int_eq(eq_tensors_save(in_folder("small"), &entry, 1, texts, 3), EQ_OK);
    check_refused(&command_run, "small", "input", (const char *const[]){ "--arch", "resnet18", NULL },
                  "small: its metadata has the stem for small images, that for large ones was given");
}
END_TEST

START_TEST(output_cannot_be_written)
{
    ck_assert_int_eq(run(&command_run, "weights", "input", "no/such/folder", NULL), EXIT_FAILED);
    ck_assert_ptr_nonnull(strstr(text, "no/such/folder"));
}
END_TEST

int main(void)
{
    if (!mkdtemp(folder))
        return EXIT_FAILURE;
    const TTest *const tests[] = { run_writes_logits, grad_writes_everything, statistics_may_be_missing, refused,
                                   another_network_refused, output_cannot_be_written };
    Suite *suite = suite_create("tensors");
    TCase *tcase = tcase_create("files");
    tcase_set_timeout(tcase, 0);
    tcase_add_unchecked_fixture(tcase, write_files, NULL);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_set_tap(runner, "-");
    srunner_run_all(runner, CK_SILENT);
    int num_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command) != 0 || num_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

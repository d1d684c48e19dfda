// The unit and its gradient against files made by the reference implementation: forward, gradients, running state, evaluation;
// and what is refused. It is compared with its definition in src/verify/unit.c.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "equil/data.h"
#include "verify/unit_run.h"

static const struct {
    int input;
    const char *name;
} file_names[] = {
    { EQ_UNIT_GAMMA, "bn.weight" },         { EQ_UNIT_BETA, "bn.bias" },
    { EQ_UNIT_MEAN, "bn.running_mean" },    { EQ_UNIT_VAR, "bn.running_var" },
    { EQ_UNIT_X_WEIGHT, "ce.x_weight" },    { EQ_UNIT_CE_MEAN, "ce.running_mean" },
    { EQ_UNIT_CE_WM, "ce.running_wm" },     { EQ_UNIT_SCALE, "ce.AR.running_scale" },
    { EQ_UNIT_W1, "ce.AR.fc.0.weight" },    { EQ_UNIT_LN_GAMMA, "ce.AR.fc.1.weight" },
    { EQ_UNIT_LN_BETA, "ce.AR.fc.1.bias" }, { EQ_UNIT_W2, "ce.AR.fc.3.weight" },
};

static float *read_tensor(struct eq_tensors *file, const char *prefix, const char *name, size_t elems)
{
    char text[96];
    float *values = malloc(elems * sizeof *values);
    snprintf(text, sizeof text, "%s%s", prefix, name);
    EQ_CHECK_OK(eq_tensors_read_f32(file, text, values, elems));
    return values;
}

static void compare_file(struct eq_tensors *file, const char *prefix, const char *name, const float *got, size_t elems,
                         double floor)
{
    float *values = read_tensor(file, prefix, name, elems);
    double *want = unit_doubled(values, elems);
    unit_compare(prefix, name, got, want, elems, 1e-5, floor);
    free(values);
    free(want);
}

// Tolerance of 1e-5: f32 sums of up to 400 terms err by 20 * 2^-24 = 1.2e-6, and Newton-Schulz's products double that a step.
static void check_file(const char *path)
{
    struct eq_tensors *file = NULL;
    int64_t config[6];
    EQ_CHECK_OK(eq_tensors_open(path, &file));
    EQ_CHECK_OK(eq_tensors_read_i64(file, "config", config, 6));
    struct unit_run r = { .c = { .name = path,
                                 .n = (int)config[0],
                                 .c = (int)config[1],
                                 .h = (int)config[2],
                                 .w = (int)config[3],
                                 .method = EQ_UNIT_CE,
                                 .group = (int)config[4],
                                 .iterations = (int)config[5],
                                 .hidden = (int)config[1] / 4 } };
    const struct unit_reference reference = unit_reference_of(&r.c, true);
    const size_t num = unit_reference_elems(&reference, EQ_UNIT_Z);
    r.input[EQ_UNIT_Z] = read_tensor(file, "", "z", num);
    r.dout = read_tensor(file, "", "dp", num);
    for (size_t i = 0; i < sizeof file_names / sizeof *file_names; i++) {
        const int input = file_names[i].input;
        const size_t elems = unit_reference_elems(&reference, input);
        if (!unit_is_state(input)) {
            r.input[input] = read_tensor(file, "param.", file_names[i].name, elems);
            continue;
        }
        r.input[input] = calloc(elems, sizeof(float));
        for (size_t k = 0; k < elems && input == EQ_UNIT_VAR; k++)
            r.input[input][k] = 1;
        for (size_t k = 0; k < (size_t)r.c.c && input == EQ_UNIT_CE_WM; k++)
            r.input[input][k * (size_t)r.c.group + k % (size_t)r.c.group] = 1;
    }
    unit_run_all(&r);
    compare_file(file, "", "p", r.out, num, 1e-6);
    compare_file(file, "", "p_eval", r.out_eval, num, 1e-6);
    compare_file(file, "", "dz", r.dz, num, 1e-6);
    for (size_t i = 0; i < sizeof file_names / sizeof *file_names; i++) {
        const int input = file_names[i].input;
        const float *got = unit_is_state(input) ? r.after[input] : r.grad[input];
        // x_weight's is one sum over all values, of either sign: what it may cancel from is the root of their number.
        compare_file(file, unit_is_state(input) ? "after." : "grad.", file_names[i].name, got,
                     unit_reference_elems(&reference, input), input == EQ_UNIT_X_WEIGHT ? 0.02 * sqrt((double)num) : 1e-6);
    }
    unit_run_free(&r);
    eq_tensors_close(&file);
}

// Files in tests/golden, and, where the folder is there, the reference's other ones.
static const char *const golden[] = { "T1", "one_image", "g8_fallback" };
static const char *const reference_files[] = { "T7", "g16", "ragged", "big_mean", "g16_many", "g64", "g128" };
enum { NUM_TINY_REFERENCES = 3 };

struct path {
    char text[512];
    int only; // the family that a small run is for, -1: both
};

static void check_variant(void *user)
{
    const struct path *path = user;
    const int is_simt = eq_check_device->target.family == EQ_FAMILY_SIMT;
    if (eq_check_is_small() && path->only >= 0 && path->only != is_simt)
        return;
    eq_check_begin("unit", strrchr(path->text, '/') + 1);
    check_file(path->text);
}

static void check_path(const char *folder, const char *name, int only)
{
    const char *root = getenv("EQUIL_SOURCE_ROOT");
    struct path path = { .only = only };
    snprintf(path.text, sizeof path.text, "%s/%s/ce_%s.safetensors", root ? root : ".", folder, name);
    if (strncmp(folder, "../", 3) == 0 && !eq_file_exists(path.text)) {
        printf("# skipped: there is no %s\n", path.text);
        return;
    }
    eq_check_each_variant(true, check_variant, &path);
}

static void test_golden(int index)
{
    check_path("tests/golden", golden[index], -1);
}

static void test_reference(int index)
{
    if (!eq_check_is_small() || index < NUM_TINY_REFERENCES)
        check_path("../shared/reference/ops", reference_files[index], index % 2);
}

// What has no variance is refused with the numbers.
static void test_refused(int index)
{
    (void)index;
    static const struct {
        struct unit_case c;
        bool training;
        const char *text;
    } refused[] = {
        { { .n = 4, .c = 16, .h = 1, .w = 1, .method = EQ_UNIT_CE, .group = 16, .iterations = 3, .hidden = 4 },
          true,
          "1 x 1 pixels" },
        { { .n = 4, .c = 16, .h = 1, .w = 1, .method = EQ_UNIT_IR, .hidden = 4 }, false, "1 x 1 pixels" },
        { { .n = 1, .c = 16, .h = 1, .w = 1, .method = EQ_UNIT_BN }, true, "1 image of 1 x 1" },
        { { .n = 2, .c = 16, .h = 2, .w = 2, .method = EQ_UNIT_BD, .group = 16 }, true, "0 Newton-Schulz steps" },
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const struct eq_unit_attributes attributes = unit_attributes_of(&refused[i].c);
        struct eq_call call = { .op = &eq_op_unit,
                                .attributes = &attributes,
                                .target = &eq_check_device->target,
                                .training = refused[i].training,
                                .num_inputs = 1,
                                .has = { true } };
        call.input[0] = unit_activation_tensor(&refused[i].c, 0);
        EQ_CHECK_TRUE(eq_op_unit.shape(&call) != EQ_OK);
        EQ_CHECK(strstr(eq_last_error(), refused[i].text) != NULL, "the message is: %s", eq_last_error());
    }
}

// Moments that nothing takes, and those of another input.
static void test_moments_refused(int index)
{
    const struct unit_case c = { .n = 2, .c = 16, .h = 2, .w = 2, .method = EQ_UNIT_SE, .hidden = 4 };
    const struct eq_unit_attributes attributes = unit_attributes_of(&c);
    const bool is_vector = eq_check_device->target.family == EQ_FAMILY_VECTOR;
    (void)index;
    for (int training = 0; training < 2; training++) {
        struct eq_call call = { .op = &eq_op_unit,
                                .attributes = &attributes,
                                .target = &eq_check_device->target,
                                .training = training,
                                .num_inputs = EQ_UNIT_NUM_INPUTS,
                                .has = { [EQ_UNIT_Z] = true, [EQ_UNIT_MOMENTS] = true } };
        call.input[EQ_UNIT_Z] = unit_activation_tensor(&c, 0);
        call.input[EQ_UNIT_MOMENTS] = eq_tensor_plain(EQ_F32, 3, 1, 1, 48);
        EQ_CHECK_INT(eq_op_unit.shape(&call), training || !is_vector ? EQ_ERR_UNSUPPORTED : EQ_ERR_SHAPE);
        EQ_CHECK(strstr(eq_last_error(), training || !is_vector ? "moments are given" : "[3, 1, 1, 48], not [2, ") != NULL,
                 "the message is: %s", eq_last_error());
    }
}

EQ_CHECK_SUITE(test_suite_unit, "unit", { "golden", test_golden, sizeof golden / sizeof *golden },
               { "reference", test_reference, sizeof reference_files / sizeof *reference_files },
               { "refused", test_refused, 0 }, { "moments refused", test_moments_refused, 0 })

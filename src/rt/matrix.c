// Matrix units: which one works on a device, found by asking it for a product that the host knows.
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rt/internal.h"

enum { PROBE_ROWS = 32, PROBE_COLUMNS = 16, PROBE_WORDS = 16, PROBE_MOST = 2 * PROBE_WORDS };

// mantissa: bits with the leading one; smallest: exponent of the smallest value above 0; largest: what lies above is infinite.
static const struct {
    const char *name;
    int mantissa, smallest;
    double largest;
    int word_values;
} precisions[] = {
    [EQ_FP32] = { "fp32", 24, -149, FLT_MAX, 1 },
    [EQ_TF32] = { "tf32", 11, -136, FLT_MAX, 1 },
    [EQ_FP16] = { "fp16", 11, -24, 65504, 2 },
    [EQ_BF16] = { "bf16", 8, -133, FLT_MAX, 2 },
};
enum { NUM_PRECISIONS = sizeof precisions / sizeof *precisions };

// A unit is looked for where `part` is in the platform's name, or in the device's extensions.
static const struct {
    const char *name, *part;
    bool is_extension;
    int lanes;
} units[EQ_NUM_MATRIX_UNITS] = {
    [EQ_MATRIX_EMULATED] = { "emulated", "", false, 32 },
    [EQ_MATRIX_MMA] = { "NVIDIA mma.sync", "NVIDIA", false, 32 },
    [EQ_MATRIX_MFMA] = { "AMD MFMA", "AMD", false, 64 },
    [EQ_MATRIX_WMMA11] = { "AMD WMMA of gfx11", "AMD", false, 32 },
    [EQ_MATRIX_WMMA12] = { "AMD WMMA of gfx12", "AMD", false, 32 },
    [EQ_MATRIX_DPAS8] = { "Intel DPAS of 8", "cl_intel_subgroup_matrix_multiply_accumulate", true, 8 },
    [EQ_MATRIX_DPAS16] = { "Intel DPAS of 16", "cl_intel_subgroup_matrix_multiply_accumulate", true, 16 },
};

const char *eq_precision_name(enum eq_precision precision)
{
    return precisions[precision].name;
}

eq_status eq_precision_parse(const char *name, enum eq_precision *precision)
{
    for (int i = 0; i < NUM_PRECISIONS; i++)
        if (strcmp(name, precisions[i].name) == 0) {
            *precision = (enum eq_precision)i;
            return EQ_OK;
        }
    return eq_fail(EQ_ERR_ARGUMENT, "precision '%s': it must be fp32, tf32, fp16 or bf16", name);
}

float eq_precision_round(enum eq_precision precision, float value)
{
    if (precision == EQ_FP32 || !isfinite(value) || value == 0)
        return value;
    int exponent;
    frexp(value, &exponent); // value = [0.5, 1) * 2^exponent
    int unit = exponent - precisions[precision].mantissa;
    unit = unit > precisions[precision].smallest ? unit : precisions[precision].smallest;
    const double rounded = ldexp(nearbyint(ldexp(value, -unit)), unit);
    return fabs(rounded) > precisions[precision].largest ? copysignf(INFINITY, value) : (float)rounded;
}

int eq_matrix_unit_lanes(enum eq_matrix_unit unit)
{
    return units[unit].lanes;
}

const char *eq_matrix_unit_name(enum eq_matrix_unit unit)
{
    return units[unit].name;
}

// ---- probe

struct probe {
    float a[PROBE_ROWS * PROBE_MOST], b[PROBE_COLUMNS * PROBE_MOST], z[PROBE_ROWS * PROBE_COLUMNS];
};

// Signs and sizes that no two places share, most of them to be rounded.
static void fill(float *values, int num, const char *purpose)
{
    const uint64_t key = eq_random_key(1, 0, 0, purpose);
    for (int i = 0; i < num; i++)
        values[i] = (float)(2 * eq_random_unit(key, (uint64_t)i) - 1);
}

static eq_status run_probe(struct eq_device *device, struct eq_list *list, struct eq_buffer *buffer, enum eq_matrix_unit unit,
                           enum eq_precision precision, struct probe *probe)
{
    const size_t num_a = sizeof probe->a / sizeof(float), num_b = sizeof probe->b / sizeof(float),
                 num_z = sizeof probe->z / sizeof(float), group = 2 * (size_t)units[unit].lanes;
    const struct eq_ref a = eq_ref_at(buffer, 0), b = eq_ref_at(buffer, num_a), z = eq_ref_at(buffer, num_a + num_b);
    char options[64];
    snprintf(options, sizeof options, "-DEQ_MATRIX=%d -DPRECISION=%d", (int)unit, (int)precision);
    EQ_TRY(eq_list_kernel(list,
                          &(struct eq_launch){ .source = "matrix", .options = options, .kernel = "matrix_probe",
                                               .range = eq_range_1d(group, group) },
                          EQ_ARGS(EQ_REF(a), EQ_REF(b), EQ_REF(z))));
    EQ_TRY(eq_ref_write(a, probe->a, num_a, sizeof(float)));
    EQ_TRY(eq_ref_write(b, probe->b, num_b, sizeof(float)));
    EQ_TRY(eq_ref_write(z, probe->z, num_z, sizeof(float)));
    EQ_TRY(eq_list_run(list));
    EQ_TRY(eq_device_finish(device));
    return eq_ref_read(z, probe->z, num_z, sizeof(float));
}

// Inputs rounded otherwise differ by 2^-12 (fp16, tf32) or 2^-9 of a product; sums, even truncated ones, by 2^-22 of their
// size.
static eq_status compare(const struct probe *probe, enum eq_precision precision)
{
    const int depth = PROBE_WORDS * precisions[precision].word_values;
    for (int i = 0; i < PROBE_ROWS * PROBE_COLUMNS; i++) {
        double want = 0, size = 0;
        for (int k = 0; k < depth; k++) {
            const double product = (double)eq_precision_round(precision, probe->a[i / PROBE_COLUMNS * depth + k]) *
                                   eq_precision_round(precision, probe->b[i % PROBE_COLUMNS * depth + k]);
            want += product;
            size += fabs(product);
        }
        EQ_REQUIRE(fabs(probe->z[i] - want) <= 4e-6 * size, EQ_ERR_NUMERIC, "row %d, column %d is %.9g, not %.9g",
                   i / PROBE_COLUMNS, i % PROBE_COLUMNS, probe->z[i], want);
    }
    return EQ_OK;
}

static eq_status try_unit(struct eq_device *device, enum eq_matrix_unit unit, enum eq_precision precision)
{
    struct probe *probe;
    EQ_ALLOC(probe, 1);
    fill(probe->a, PROBE_ROWS * PROBE_MOST, "probe a");
    fill(probe->b, PROBE_COLUMNS * PROBE_MOST, "probe b");
    for (int i = 0; i < PROBE_ROWS * PROBE_COLUMNS; i++)
        probe->z[i] = NAN;
    struct eq_list *list = NULL;
    struct eq_buffer *buffer = NULL;
    eq_status status = eq_buffer_create(device, sizeof *probe, &buffer);
    if (status == EQ_OK)
        status = eq_list_create(device, &list);
    if (status == EQ_OK)
        status = run_probe(device, list, buffer, unit, precision, probe);
    if (status == EQ_OK)
        status = compare(probe, precision);
    eq_list_destroy(&list);
    eq_buffer_destroy(&buffer);
    free(probe);
    return status;
}

// What does not compile, does not fit or computes otherwise is not there. Of what a driver fails at otherwise that cannot be
// said for sure: a warning.
eq_status eq_matrix_probe(struct eq_device *device, enum eq_matrix_unit unit, enum eq_precision precision, bool *works)
{
    const eq_status status = try_unit(device, unit, precision);
    *works = status == EQ_OK;
    if (status == EQ_ERR_HOST_MEMORY || status == EQ_ERR_DEVICE_MEMORY)
        return eq_fail(status, "looking for %s: %s", units[unit].name, eq_last_error());
    eq_log(status == EQ_ERR_DEVICE ? EQ_LOG_WARNING : EQ_LOG_DEBUG, "%s: %s on %s %s%s", device->name,
           precisions[precision].name, units[unit].name, *works ? "works" : "is not there: ", *works ? "" : eq_last_error());
    return EQ_OK;
}

static eq_status may_have(const struct eq_device *device, enum eq_matrix_unit unit, bool *may)
{
    size_t bytes = 0;
    *may = !units[unit].is_extension && strstr(device->platform_name, units[unit].part);
    if (!units[unit].is_extension)
        return EQ_OK;
    EQ_CL(clGetDeviceInfo(device->id, CL_DEVICE_EXTENSIONS, 0, NULL, &bytes), "asking the device for its extensions");
    char *text = eq_calloc(bytes + 1, 1);
    if (!text)
        return EQ_ERR_HOST_MEMORY;
    const cl_int code = clGetDeviceInfo(device->id, CL_DEVICE_EXTENSIONS, bytes, text, NULL);
    *may = strstr(text, units[unit].part);
    free(text);
    EQ_CL(code, "asking the device for its extensions");
    return EQ_OK;
}

eq_status eq_matrix_find(struct eq_device *device, enum eq_precision precision, enum eq_matrix_unit *unit)
{
    *unit = EQ_MATRIX_EMULATED;
    for (int i = 1; i < EQ_NUM_MATRIX_UNITS && *unit == EQ_MATRIX_EMULATED; i++) {
        bool works;
        EQ_TRY(may_have(device, (enum eq_matrix_unit)i, &works));
        if (works)
            EQ_TRY(eq_matrix_probe(device, (enum eq_matrix_unit)i, precision, &works));
        if (works)
            *unit = (enum eq_matrix_unit)i;
    }
    return EQ_OK;
}

// ---- precision

static void write_text(struct eq_device *device)
{
    const struct eq_target *target = &device->target;
    snprintf(device->precision_text, sizeof device->precision_text, "%s%s%s", precisions[target->precision].name,
             target->precision == EQ_FP32                 ? ""
             : target->matrix_unit == EQ_MATRIX_EMULATED ? " "
                                                          : " on ",
             target->precision == EQ_FP32 ? "" : units[target->matrix_unit].name);
}

eq_status eq_device_set_precision(struct eq_device *device, enum eq_precision precision)
{
    struct eq_target *target = &device->target;
    EQ_REQUIRE((unsigned)precision < NUM_PRECISIONS, EQ_ERR_ARGUMENT, "precision %d: there are %d", (int)precision,
               NUM_PRECISIONS);
    if (precision == target->precision) {
        write_text(device);
        return EQ_OK;
    }
    EQ_REQUIRE(target->precision == EQ_FP32, EQ_ERR_ARGUMENT, "precision %s: the device is set to %s",
               precisions[precision].name, precisions[target->precision].name);
    const char *family = eq_option(EQ_OPTION_CONV);
    EQ_REQUIRE(!family || strcmp(family, "simt") == 0, EQ_ERR_ARGUMENT, "precision %s needs %s=simt, it is '%s'",
               precisions[precision].name, eq_option_variable(EQ_OPTION_CONV), family);
    enum eq_matrix_unit unit;
    EQ_TRY(eq_matrix_find(device, precision, &unit));
    target->family = EQ_FAMILY_SIMT;
    target->block = 16; // which its kernels are written for
    target->use_winograd = false;
    target->precision = precision;
    target->matrix_unit = unit;
    write_text(device);
    return EQ_OK;
}

const char *eq_device_precision_text(const struct eq_device *device)
{
    return device->precision_text;
}

eq_status eq_device_open_precision(struct eq_device *device)
{
    enum eq_precision precision = EQ_FP32;
    const char *name = eq_option(EQ_OPTION_PRECISION);
    if (name && eq_precision_parse(name, &precision) != EQ_OK)
        return eq_fail(EQ_ERR_ARGUMENT, "%s: %s", eq_option_variable(EQ_OPTION_PRECISION), eq_last_error());
    return eq_device_set_precision(device, precision);
}

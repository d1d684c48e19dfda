// Pictures into network input: against Pillow's results (tests/golden/README.image.md), and normalised by the formula.
#include "verify/image.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "verify/golden.h"

static const char *const cases[] = { "centre", "enlarged", "box_flipped", "border", "one_pixel", "thin", "much_smaller" };
enum { NUM_CASES = sizeof cases / sizeof *cases };
static const float PLAIN_MEAN[3] = { 0, 0, 0 }, PLAIN_DEVIATION[3] = { 1, 1, 1 };

// ---- golden file

static struct eq_tensors *open_golden(void)
{
    struct eq_tensors *file = NULL;
    EQ_CHECK_OK(eq_tensors_open_memory("image.safetensors", eq_golden_image, eq_golden_image_bytes, &file));
    return file;
}

int64_t *image_read(const struct eq_tensors *file, const char *name, const char *part, size_t *elems)
{
    char full[256];
    snprintf(full, sizeof full, "%s.%s", name, part);
    const struct eq_tensor_entry *entry = eq_tensors_find(file, full);
    EQ_CHECK(entry != NULL, "the golden file has no %s", full);
    int64_t *values = eq_check_malloc(entry->elems, sizeof *values);
    EQ_CHECK_OK(eq_tensors_read_i64(file, full, values, entry->elems));
    *elems = entry->elems;
    return values;
}

struct eq_image_job image_read_job(const struct eq_tensors *file, const char *name, int *size)
{
    size_t elems;
    int64_t *v = image_read(file, name, "job", &elems);
    EQ_CHECK_INT(elems, 12);
    const struct eq_image_job job = {
        .height = (int)v[0],
        .width = (int)v[1],
        .box_y = (int)v[2],
        .box_x = (int)v[3],
        .box_h = (int)v[4],
        .box_w = (int)v[5],
        .resize_h = (int)v[6],
        .resize_w = (int)v[7],
        .crop_y = (int)v[8],
        .crop_x = (int)v[9],
        .is_flipped = v[10] != 0,
    };
    *size = (int)v[11];
    free(v);
    return job;
}

static uint8_t *read_picture(const struct eq_tensors *file, const char *name)
{
    size_t elems;
    int64_t *values = image_read(file, name, "picture", &elems);
    uint8_t *pixels = eq_check_malloc(elems, 1);
    for (size_t i = 0; i < elems; i++)
        pixels[i] = (uint8_t)values[i];
    free(values);
    return pixels;
}

// ---- running

float *image_run(const struct eq_image_job *jobs, int num, int size, const float mean[3], const float deviation[3],
                 size_t max_bytes, int times)
{
    const size_t elems = (size_t)num * 3 * (size_t)size * (size_t)size;
    float *out = eq_check_malloc((elems + 2), sizeof *out);
    struct eq_buffer *buffer = NULL;
    struct eq_image_batch *batch = NULL;
    for (size_t i = 0; i < elems + 2; i++)
        out[i] = NAN;
    EQ_CHECK_OK(eq_buffer_create(eq_check_device, (elems + 2) * sizeof *out, &buffer));
    EQ_CHECK_OK(eq_ref_write(eq_ref_at(buffer, 0), out, elems + 2, sizeof *out));
    struct eq_image_batch_params params = { .num = num, .size = size, .max_bytes = max_bytes, .output = eq_ref_at(buffer, 1) };
    memcpy(params.mean, mean, sizeof params.mean);
    memcpy(params.deviation, deviation, sizeof params.deviation);
    EQ_CHECK_OK(eq_image_batch_create(eq_check_device, &params, &batch));
    for (int i = 1; i < times; i++)
        EQ_CHECK_OK(eq_image_batch_run(batch, jobs, 0, num));
    EQ_CHECK_OK(eq_image_batch_run(batch, jobs, 0, (num + 1) / 2)); // in two parts, as far as there are two images
    if (num > 1)
        EQ_CHECK_OK(eq_image_batch_run(batch, jobs, (num + 1) / 2, num / 2));
    EQ_CHECK_OK(eq_device_finish(eq_check_device));
    EQ_CHECK_OK(eq_ref_read(eq_ref_at(buffer, 0), out, elems + 2, sizeof *out));
    EQ_CHECK(isnan(out[0]) && isnan(out[elems + 1]), "wrote beside the output");
    eq_image_batch_destroy(&batch);
    EQ_CHECK_TRUE(batch == NULL);
    eq_buffer_destroy(&buffer);
    memmove(out, out + 1, elems * sizeof *out);
    return out;
}

void image_compare(const float *got, const int64_t *want, int size)
{
    struct eq_check_comparison comparison = { .num = 0 };
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++)
            for (int c = 0; c < 3; c++)
                eq_check_compare(&comparison, (const int[4]){ 0, c, y, x }, 255 * (double)got[(c * size + y) * size + x],
                                 (double)want[(y * size + x) * 3 + c], 1e-3);
    eq_check_compared(&comparison, "levels");
}

// ---- suite

static void test_golden(int index)
{
    eq_check_begin("image", cases[index]);
    struct eq_tensors *file = open_golden();
    int size;
    size_t elems;
    struct eq_image_job job = image_read_job(file, cases[index], &size);
    uint8_t *pixels = read_picture(file, cases[index]);
    int64_t *want = image_read(file, cases[index], "result", &elems);
    job.pixels = pixels;
    float *got = image_run(&job, 1, size, PLAIN_MEAN, PLAIN_DEVIATION, 0, 1);
    image_compare(got, want, size);
    free(got);
    free(want);
    free(pixels);
    eq_tensors_close(&file);
}

// A batch of pictures of different sizes, all at once and in turns of one, twice: the same bits, the golden file's values.
static void test_batch(int index)
{
    (void)index;
    eq_check_begin("image", "a batch");
    static const char *const names[] = { "one_pixel", "much_smaller", "thin", "enlarged", "centre" };
    enum { NUM = sizeof names / sizeof *names, SIZE = 8 };
    struct eq_tensors *file = open_golden();
    struct eq_image_job jobs[NUM];
    uint8_t *pixels[NUM];
    for (int i = 0; i < NUM; i++) {
        int size;
        jobs[i] = image_read_job(file, names[i], &size);
        pixels[i] = read_picture(file, names[i]);
        jobs[i].pixels = pixels[i];
    }
    float *at_once = image_run(jobs, NUM, SIZE, PLAIN_MEAN, PLAIN_DEVIATION, 0, 2);
    float *in_turns = image_run(jobs, NUM, SIZE, PLAIN_MEAN, PLAIN_DEVIATION, 1, 1);
    eq_check_same("at once, and in turns", at_once, in_turns, NUM * 3 * SIZE * SIZE);
    for (int i = 1; i < 3; i++) {
        size_t elems;
        int64_t *want = image_read(file, names[i], "result", &elems);
        image_compare(at_once + i * 3 * SIZE * SIZE, want, SIZE);
        free(want);
    }
    for (int i = 0; i < NUM; i++)
        free(pixels[i]);
    free(at_once);
    free(in_turns);
    eq_tensors_close(&file);
}

static void test_normalised(int index)
{
    (void)index;
    eq_check_begin("image", "normalised");
    enum { SIZE = 3 };
    static const float mean[3] = { 0.485f, 0.456f, 0.406f }, deviation[3] = { 0.229f, 0.224f, 0.225f };
    uint8_t pixels[2 * 2 * 3];
    struct eq_image_job job = { .pixels = pixels,
                                .height = 2,
                                .width = 2,
                                .box_h = 2,
                                .box_w = 2,
                                .resize_h = 2,
                                .resize_w = 2,
                                .crop_y = -1,
                                .crop_x = 0,
                                .colour = { 0.05f, -0.02f, 0.01f } };
    for (int i = 0; i < 12; i++)
        pixels[i] = (uint8_t)(20 * i);
    struct eq_check_comparison comparison = { .num = 0 };
    float *got = image_run(&job, 1, SIZE, mean, deviation, 0, 1);
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < SIZE; y++)
            for (int x = 0; x < SIZE; x++) {
                const bool is_inside = y > 0 && x < 2; // outside is the mean, 0
                const double value =
                    is_inside ? pixels[((y - 1) * 2 + x) * 3 + c] / 255.0 + (double)job.colour[c] : (double)mean[c];
                const double want = (value - (double)mean[c]) / (double)deviation[c];
                // 4 roundings of values up to 3
                eq_check_compare(&comparison, (const int[4]){ 0, c, y, x }, (double)got[(c * SIZE + y) * SIZE + x], want, 1e-6);
            }
    eq_check_compared(&comparison, "normalised");
    free(got);
}

EQ_CHECK_SUITE(eq_suite_image, "image", { "golden", test_golden, NUM_CASES }, { "batch", test_batch, 0 },
               { "normalised", test_normalised, 0 })

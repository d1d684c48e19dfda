// Pictures into network input: against Pillow's results (tests/golden/README.image.md), and the choices of boxes by their
// definitions.
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "equil/data.h"
#include "op/image.h"
#include "support/support.h"

static const char *const cases[] = { "centre", "enlarged", "box_flipped", "border", "one_pixel", "thin", "much_smaller" };
enum { NUM_CASES = sizeof cases / sizeof *cases };
static const float PLAIN_MEAN[3] = { 0, 0, 0 }, PLAIN_DEVIATION[3] = { 1, 1, 1 };

// ---- golden file

static const char *source_root(void)
{
    const char *root = getenv("EQUIL_SOURCE_ROOT");
    return root ? root : ".";
}

static struct eq_tensors *open_golden(void)
{
    char path[512];
    struct eq_tensors *file = NULL;
    snprintf(path, sizeof path, "%s/tests/golden/image.safetensors", source_root());
    EQ_TEST_OK(eq_tensors_open(path, &file));
    return file;
}

static int64_t *read_ints(const struct eq_tensors *file, const char *name, const char *part, size_t *elems)
{
    char full[256];
    snprintf(full, sizeof full, "%s.%s", name, part);
    const struct eq_tensor_entry *entry = eq_tensors_find(file, full);
    ck_assert_msg(entry != NULL, "the golden file has no %s", full);
    int64_t *values = malloc(entry->elems * sizeof *values);
    EQ_TEST_OK(eq_tensors_read_i64(file, full, values, entry->elems));
    *elems = entry->elems;
    return values;
}

// The job without pixels; *size is the side of the result.
static struct eq_image_job read_job(const struct eq_tensors *file, const char *name, int *size)
{
    size_t elems;
    int64_t *v = read_ints(file, name, "job", &elems);
    ck_assert_uint_eq(elems, 12);
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
    int64_t *values = read_ints(file, name, "picture", &elems);
    uint8_t *pixels = malloc(elems);
    for (size_t i = 0; i < elems; i++)
        pixels[i] = (uint8_t)values[i];
    free(values);
    return pixels;
}

// ---- running

// Runs the jobs (as many as the batch takes) `times` times and gives [num, 3, size, size], with a canary on each side checked.
static float *run_jobs(const struct eq_image_job *jobs, int num, int size, const float mean[3], const float deviation[3],
                       size_t max_bytes, int times)
{
    const size_t elems = (size_t)num * 3 * (size_t)size * (size_t)size;
    float *out = malloc((elems + 2) * sizeof *out);
    struct eq_buffer *buffer = NULL;
    struct eq_image_batch *batch = NULL;
    for (size_t i = 0; i < elems + 2; i++)
        out[i] = NAN;
    EQ_TEST_OK(eq_buffer_create(eq_test_device, (elems + 2) * sizeof *out, &buffer));
    EQ_TEST_OK(eq_ref_write(eq_ref_at(buffer, 0), out, elems + 2, sizeof *out));
    struct eq_image_batch_params params = { .num = num, .size = size, .max_bytes = max_bytes, .output = eq_ref_at(buffer, 1) };
    memcpy(params.mean, mean, sizeof params.mean);
    memcpy(params.deviation, deviation, sizeof params.deviation);
    EQ_TEST_OK(eq_image_batch_create(eq_test_device, &params, &batch));
    for (int i = 0; i < times; i++)
        EQ_TEST_OK(eq_image_batch_run(batch, jobs, num));
    EQ_TEST_OK(eq_device_finish(eq_test_device));
    EQ_TEST_OK(eq_ref_read(eq_ref_at(buffer, 0), out, elems + 2, sizeof *out));
    ck_assert_msg(isnan(out[0]) && isnan(out[elems + 1]), "wrote beside the output");
    eq_image_batch_destroy(&batch);
    ck_assert_ptr_null(batch);
    eq_buffer_destroy(&buffer);
    memmove(out, out + 1, elems * sizeof *out);
    return out;
}

// Output [3, size, size] with values / 255 against 8-bit [size, size, 3]: not one level off.
static void compare(const char *name, const float *got, const int64_t *want, int size)
{
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++)
            for (int c = 0; c < 3; c++) {
                const double level = 255 * (double)got[(c * size + y) * size + x],
                             expected = (double)want[(y * size + x) * 3 + c];
                ck_assert_msg(fabs(level - expected) < 1e-3, "%s: [%d, %d, %d] is %.4f, Pillow has %.0f", name, c, y, x, level,
                              expected);
            }
}

// ---- tests

START_TEST(test_golden)
{
    struct eq_tensors *file = open_golden();
    int size;
    size_t elems;
    struct eq_image_job job = read_job(file, cases[_i], &size);
    uint8_t *pixels = read_picture(file, cases[_i]);
    int64_t *want = read_ints(file, cases[_i], "result", &elems);
    job.pixels = pixels;
    float *got = run_jobs(&job, 1, size, PLAIN_MEAN, PLAIN_DEVIATION, 0, 1);
    compare(cases[_i], got, want, size);
    free(got);
    free(want);
    free(pixels);
    eq_tensors_close(&file);
}
END_TEST

// A batch of pictures of different sizes, all at once and in turns of one, twice: the same bits, the golden file's values.
START_TEST(test_batch)
{
    static const char *const names[] = { "one_pixel", "much_smaller", "thin", "enlarged", "centre" };
    enum { NUM = sizeof names / sizeof *names, SIZE = 8 };
    struct eq_tensors *file = open_golden();
    struct eq_image_job jobs[NUM];
    uint8_t *pixels[NUM];
    for (int i = 0; i < NUM; i++) {
        int size;
        jobs[i] = read_job(file, names[i], &size);
        pixels[i] = read_picture(file, names[i]);
        jobs[i].pixels = pixels[i];
    }
    float *at_once = run_jobs(jobs, NUM, SIZE, PLAIN_MEAN, PLAIN_DEVIATION, 0, 2);
    float *in_turns = run_jobs(jobs, NUM, SIZE, PLAIN_MEAN, PLAIN_DEVIATION, 1, 1);
    ck_assert(memcmp(at_once, in_turns, NUM * 3 * SIZE * SIZE * sizeof *at_once) == 0);
    for (int i = 1; i < 3; i++) {
        size_t elems;
        int64_t *want = read_ints(file, names[i], "result", &elems);
        compare(names[i], at_once + i * 3 * SIZE * SIZE, want, SIZE);
        free(want);
    }
    for (int i = 0; i < NUM; i++)
        free(pixels[i]);
    free(at_once);
    free(in_turns);
    eq_tensors_close(&file);
}
END_TEST

START_TEST(test_normalised)
{
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
    float *got = run_jobs(&job, 1, SIZE, mean, deviation, 0, 1);
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < SIZE; y++)
            for (int x = 0; x < SIZE; x++) {
                const bool is_inside = y > 0 && x < 2; // outside is the mean, 0
                const double value =
                    is_inside ? pixels[((y - 1) * 2 + x) * 3 + c] / 255.0 + (double)job.colour[c] : (double)mean[c];
                const double want = (value - (double)mean[c]) / (double)deviation[c];
                ck_assert_double_eq_tol((double)got[(c * SIZE + y) * SIZE + x], want, 1e-6); // 4 roundings of values up to 3
            }
    free(got);
}
END_TEST

START_TEST(test_samples)
{
    char folder[512], name[300];
    snprintf(folder, sizeof folder, "%s/../shared/data/imagenet-samples", source_root());
    DIR *dir = eq_test_is_tiny() ? NULL : opendir(folder);
    if (!dir) {
        printf("# skipped: real pictures (%s)\n", eq_test_is_tiny() ? "too large for a simulator" : "../shared is not there");
        return;
    }
    struct eq_tensors *file = open_golden();
    int num = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        char path[800];
        snprintf(name, sizeof name, "sample.%.250s", entry->d_name);
        snprintf(path, sizeof path, "%s.job", name);
        if (!eq_tensors_find(file, path))
            continue;
        struct eq_image image;
        struct eq_image_job job;
        int size;
        size_t elems;
        const struct eq_image_job golden = read_job(file, name, &size);
        snprintf(path, sizeof path, "%s/%.250s", folder, entry->d_name);
        EQ_TEST_OK(eq_image_load(path, &image));
        eq_image_job_centre(&job, image.height, image.width, 256, size);
        ck_assert(job.resize_h == golden.resize_h && job.resize_w == golden.resize_w && job.crop_y == golden.crop_y &&
                  job.crop_x == golden.crop_x);
        job.pixels = image.pixels;
        int64_t *want = read_ints(file, name, "result", &elems);
        float *got = run_jobs(&job, 1, size, PLAIN_MEAN, PLAIN_DEVIATION, 0, 1);
        compare(name, got, want, size);
        free(want);
        free(got);
        eq_image_free(&image);
        num++;
    }
    closedir(dir);
    eq_tensors_close(&file);
    ck_assert_int_ge(num, 5);
}
END_TEST

START_TEST(test_centre)
{
    struct eq_image_job job;
    eq_image_job_centre(&job, 375, 500, 256, 224);
    ck_assert(job.resize_h == 256 && job.resize_w == 341 && job.crop_y == 16 && job.crop_x == 58); // 58.5 goes to the even one
    eq_image_job_centre(&job, 500, 375, 256, 223);
    ck_assert(job.resize_h == 341 && job.resize_w == 256 && job.crop_y == 59 && job.crop_x == 16); // 16.5
    ck_assert(job.box_h == 500 && job.box_w == 375 && !job.is_flipped);
}
END_TEST

// Boxes stay inside, have the areas and aspects asked for, and reach both ends of the ranges.
START_TEST(test_random)
{
    double least = 1, most = 0, narrow = 9, wide = 0;
    int flips = 0;
    for (uint64_t i = 0; i < 2000; i++) {
        struct eq_image_job job, again;
        const uint64_t key = eq_random_key(5, 0, i, "crop");
        eq_image_job_random(&job, 375, 500, 224, key);
        eq_image_job_random(&again, 375, 500, 224, key);
        ck_assert(job.box_y == again.box_y && job.box_x == again.box_x && job.box_h == again.box_h &&
                  job.is_flipped == again.is_flipped);
        ck_assert(job.box_y >= 0 && job.box_x >= 0 && job.box_y + job.box_h <= 375 && job.box_x + job.box_w <= 500);
        const double area = (double)job.box_h * job.box_w / (375.0 * 500), aspect = (double)job.box_w / job.box_h;
        ck_assert_msg(area > 0.079 && area <= 1 && aspect > 0.74 && aspect < 1.35, "area %g, aspect %g", area, aspect);
        least = fmin(least, area);
        most = fmax(most, area);
        narrow = fmin(narrow, aspect);
        wide = fmax(wide, aspect);
        flips += job.is_flipped;
    }
    ck_assert_msg(least < 0.09 && most > 0.9 && narrow < 0.76 && wide > 1.32, "area %g to %g, aspect %g to %g", least, most,
                  narrow, wide);
    ck_assert_msg(flips > 900 && flips < 1100, "%d flips of 2000", flips);
    struct eq_image_job job;
    eq_image_job_random(&job, 10, 900, 224, 1); // no box fits: the middle
    ck_assert(job.box_h == 10 && job.box_w == 13 && job.box_y == 0 && job.box_x == 443);
}
END_TEST

START_TEST(test_padded)
{
    bool seen[9][9] = { { false } };
    int places = 0;
    for (uint64_t i = 0; i < 3000; i++) {
        struct eq_image_job job;
        eq_image_job_padded(&job, 32, 32, 32, 4, eq_random_key(5, 0, i, "crop"));
        ck_assert(job.crop_y >= -4 && job.crop_y <= 4 && job.crop_x >= -4 && job.crop_x <= 4 && job.resize_h == 32 &&
                  job.resize_w == 32);
        places += !seen[job.crop_y + 4][job.crop_x + 4];
        seen[job.crop_y + 4][job.crop_x + 4] = true;
    }
    ck_assert_int_eq(places, 81);
}
END_TEST

// The deviation of each channel follows from the formula: 0.1 * sqrt(sum of (value * row)^2).
START_TEST(test_colour)
{
    static const double values[3] = { 0.2175, 0.0188, 0.0045 };
    static const double rows[3][3] = { { 0.4009, 0.7192, -0.5675 },
                                       { -0.8140, -0.0045, -0.5808 },
                                       { 0.4203, -0.6948, -0.5836 } };
    enum { NUM = 20000 };
    double sums[3] = { 0 }, squares[3] = { 0 };
    for (uint64_t i = 0; i < NUM; i++) {
        float q[3];
        eq_image_colour(q, eq_random_key(3, 0, i, "colour"));
        for (int c = 0; c < 3; c++) {
            sums[c] += q[c];
            squares[c] += (double)q[c] * q[c];
        }
    }
    for (int c = 0; c < 3; c++) {
        double variance = 0;
        for (int i = 0; i < 3; i++)
            variance += 0.01 * values[i] * values[i] * rows[i][c] * rows[i][c];
        // 5 standard errors of a variance from NUM samples, and of a mean.
        ck_assert_double_eq_tol(squares[c] / NUM, variance, 5 * variance * sqrt(2.0 / NUM));
        ck_assert_double_eq_tol(sums[c] / NUM, 0, 5 * sqrt(variance / NUM));
    }
}
END_TEST

START_TEST(test_refused)
{
    const uint8_t pixels[12] = { 0 };
    struct eq_image_batch *batch = NULL;
    struct eq_buffer *buffer = NULL;
    struct eq_image_batch_params params = { .num = 1, .size = 2, .deviation = { 1, 0, 1 } };
    ck_assert_int_eq(eq_image_batch_create(eq_test_device, &params, &batch), EQ_ERR_ARGUMENT);
    ck_assert_ptr_null(batch);
    EQ_TEST_OK(eq_buffer_create(eq_test_device, 48, &buffer));
    params.deviation[1] = 1;
    params.output = eq_ref_at(buffer, 0);
    EQ_TEST_OK(eq_image_batch_create(eq_test_device, &params, &batch));
    struct eq_image_job jobs[2];
    eq_image_job_centre(&jobs[0], 2, 2, 2, 2);
    jobs[0].pixels = pixels;
    jobs[1] = jobs[0];
    ck_assert_int_eq(eq_image_batch_run(batch, jobs, 2), EQ_ERR_ARGUMENT);
    ck_assert_msg(strstr(eq_last_error(), "2 images for a batch of 1"), "%s", eq_last_error());
    jobs[0].box_x = 1;
    ck_assert_int_eq(eq_image_batch_run(batch, jobs, 1), EQ_ERR_SHAPE);
    ck_assert_msg(strstr(eq_last_error(), "2 x 2 pixels at (0, 1)"), "%s", eq_last_error());
    jobs[1].resize_w = 0;
    ck_assert_int_eq(eq_image_batch_run(batch, &jobs[1], 1), EQ_ERR_SHAPE);
    jobs[1].resize_w = 2;
    jobs[1].pixels = NULL;
    ck_assert_int_eq(eq_image_batch_run(batch, &jobs[1], 1), EQ_ERR_ARGUMENT);
    eq_image_batch_destroy(&batch);
    eq_buffer_destroy(&buffer);
}
END_TEST

EQ_TEST_MAIN("image", { test_golden, NUM_CASES }, { test_batch, 0 }, { test_normalised, 0 }, { test_samples, 0 },
             { test_centre, 0 }, { test_random, 0 }, { test_padded, 0 }, { test_colour, 0 }, { test_refused, 0 })

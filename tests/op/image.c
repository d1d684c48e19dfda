// Real pictures into network input, against Pillow's results (tests/golden/README.image.md), and the choices of boxes by their
// definitions. Small pictures are in src/verify/image.c.
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "verify/image.h"

static const float PLAIN_MEAN[3] = { 0, 0, 0 }, PLAIN_DEVIATION[3] = { 1, 1, 1 };

static void test_samples(int index)
{
    (void)index;
    const char *root = getenv("EQUIL_SOURCE_ROOT");
    char folder[512], golden_path[512], name[300];
    snprintf(folder, sizeof folder, "%s/../shared/data/imagenet-samples", root ? root : ".");
    snprintf(golden_path, sizeof golden_path, "%s/tests/golden/image.safetensors", root ? root : ".");
    DIR *dir = eq_check_is_tiny() ? NULL : opendir(folder);
    if (!dir) {
        printf("# skipped: real pictures (%s)\n", eq_check_is_tiny() ? "too large for a simulator" : "../shared is not there");
        return;
    }
    struct eq_tensors *file = NULL;
    EQ_CHECK_OK(eq_tensors_open(golden_path, &file));
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
        const struct eq_image_job golden = image_read_job(file, name, &size);
        snprintf(path, sizeof path, "%s/%.250s", folder, entry->d_name);
        EQ_CHECK_OK(eq_image_load(path, &image));
        eq_image_job_centre(&job, image.height, image.width, 256, size);
        EQ_CHECK_TRUE(job.resize_h == golden.resize_h && job.resize_w == golden.resize_w && job.crop_y == golden.crop_y &&
                      job.crop_x == golden.crop_x);
        job.pixels = image.pixels;
        int64_t *want = image_read(file, name, "result", &elems);
        float *got = image_run(&job, 1, size, PLAIN_MEAN, PLAIN_DEVIATION, 0, 1);
        eq_check_begin("image", entry->d_name);
        image_compare(got, want, size);
        free(want);
        free(got);
        eq_image_free(&image);
        num++;
    }
    closedir(dir);
    eq_tensors_close(&file);
    EQ_CHECK_TRUE(num >= 5);
}

static void test_centre(int index)
{
    (void)index;
    struct eq_image_job job;
    eq_image_job_centre(&job, 375, 500, 256, 224);
    EQ_CHECK_TRUE(job.resize_h == 256 && job.resize_w == 341 && job.crop_y == 16 &&
                  job.crop_x == 58); // 58.5 goes to the even one
    eq_image_job_centre(&job, 500, 375, 256, 223);
    EQ_CHECK_TRUE(job.resize_h == 341 && job.resize_w == 256 && job.crop_y == 59 && job.crop_x == 16); // 16.5
    EQ_CHECK_TRUE(job.box_h == 500 && job.box_w == 375 && !job.is_flipped);
}

// Boxes stay inside, have the areas and aspects asked for, and reach both ends of the ranges.
static void test_random(int index)
{
    (void)index;
    double least = 1, most = 0, narrow = 9, wide = 0;
    int flips = 0;
    for (uint64_t i = 0; i < 2000; i++) {
        struct eq_image_job job, again;
        const uint64_t key = eq_random_key(5, 0, i, "crop");
        eq_image_job_random(&job, 375, 500, 224, key);
        eq_image_job_random(&again, 375, 500, 224, key);
        EQ_CHECK_TRUE(job.box_y == again.box_y && job.box_x == again.box_x && job.box_h == again.box_h &&
                      job.is_flipped == again.is_flipped);
        EQ_CHECK_TRUE(job.box_y >= 0 && job.box_x >= 0 && job.box_y + job.box_h <= 375 && job.box_x + job.box_w <= 500);
        const double area = (double)job.box_h * job.box_w / (375.0 * 500), aspect = (double)job.box_w / job.box_h;
        EQ_CHECK(area > 0.079 && area <= 1 && aspect > 0.74 && aspect < 1.35, "area %g, aspect %g", area, aspect);
        least = fmin(least, area);
        most = fmax(most, area);
        narrow = fmin(narrow, aspect);
        wide = fmax(wide, aspect);
        flips += job.is_flipped;
    }
    EQ_CHECK(least < 0.09 && most > 0.9 && narrow < 0.76 && wide > 1.32, "area %g to %g, aspect %g to %g", least, most, narrow,
             wide);
    EQ_CHECK(flips > 900 && flips < 1100, "%d flips of 2000", flips);
    struct eq_image_job job;
    eq_image_job_random(&job, 10, 900, 224, 1); // no box fits: the middle
    EQ_CHECK_TRUE(job.box_h == 10 && job.box_w == 13 && job.box_y == 0 && job.box_x == 443);
}

static void test_padded(int index)
{
    (void)index;
    bool seen[9][9] = { { false } };
    int places = 0;
    for (uint64_t i = 0; i < 3000; i++) {
        struct eq_image_job job;
        eq_image_job_padded(&job, 32, 32, 32, 4, eq_random_key(5, 0, i, "crop"));
        EQ_CHECK_TRUE(job.crop_y >= -4 && job.crop_y <= 4 && job.crop_x >= -4 && job.crop_x <= 4 && job.resize_h == 32 &&
                      job.resize_w == 32);
        places += !seen[job.crop_y + 4][job.crop_x + 4];
        seen[job.crop_y + 4][job.crop_x + 4] = true;
    }
    EQ_CHECK_INT(places, 81);
}

// The deviation of each channel follows from the formula: 0.1 * sqrt(sum of (value * row)^2).
static void test_colour(int index)
{
    (void)index;
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
        EQ_CHECK_TRUE(fabs(squares[c] / NUM - (variance)) <= 5 * variance * sqrt(2.0 / NUM));
        EQ_CHECK_TRUE(fabs(sums[c] / NUM - (0)) <= 5 * sqrt(variance / NUM));
    }
}

static void test_refused(int index)
{
    (void)index;
    const uint8_t pixels[12] = { 0 };
    struct eq_image_batch *batch = NULL;
    struct eq_buffer *buffer = NULL;
    struct eq_image_batch_params params = { .num = 1, .size = 2, .deviation = { 1, 0, 1 } };
    EQ_CHECK_INT(eq_image_batch_create(eq_check_device, &params, &batch), EQ_ERR_ARGUMENT);
    EQ_CHECK_TRUE(batch == NULL);
    EQ_CHECK_OK(eq_buffer_create(eq_check_device, 48, &buffer));
    params.deviation[1] = 1;
    params.output = eq_ref_at(buffer, 0);
    EQ_CHECK_OK(eq_image_batch_create(eq_check_device, &params, &batch));
    struct eq_image_job jobs[2];
    eq_image_job_centre(&jobs[0], 2, 2, 2, 2);
    jobs[0].pixels = pixels;
    jobs[1] = jobs[0];
    EQ_CHECK_INT(eq_image_batch_run(batch, jobs, 0, 2), EQ_ERR_ARGUMENT);
    EQ_CHECK(strstr(eq_last_error(), "2 images from number 0 on for a batch of 1"), "%s", eq_last_error());
    EQ_CHECK_INT(eq_image_batch_run(batch, jobs, 1, 1), EQ_ERR_ARGUMENT);
    EQ_CHECK_INT(eq_image_batch_run(batch, jobs, -1, 1), EQ_ERR_ARGUMENT);
    jobs[0].box_x = 1;
    EQ_CHECK_INT(eq_image_batch_run(batch, jobs, 0, 1), EQ_ERR_SHAPE);
    EQ_CHECK(strstr(eq_last_error(), "2 x 2 pixels at (0, 1)"), "%s", eq_last_error());
    jobs[1].resize_w = 0;
    EQ_CHECK_INT(eq_image_batch_run(batch, &jobs[1], 0, 1), EQ_ERR_SHAPE);
    jobs[1].resize_w = 2;
    jobs[1].pixels = NULL;
    EQ_CHECK_INT(eq_image_batch_run(batch, &jobs[1], 0, 1), EQ_ERR_ARGUMENT);
    eq_image_batch_destroy(&batch);
    eq_buffer_destroy(&buffer);
}

EQ_CHECK_SUITE(test_suite_image, "image", { "samples", test_samples, 0 }, { "centre", test_centre, 0 },
               { "random", test_random, 0 }, { "padded", test_padded, 0 }, { "colour", test_colour, 0 },
               { "refused", test_refused, 0 })

// The loader: the same items in the same order for any number of threads, positions, broken images, prompt stops.
#include "io/loader.h"
#include "io_test.h"

enum { NUM = 40 };

// NUM shapes as PNGs in four classes, of which every seventh is cut short; the folder is made once.
static struct eq_dataset *open_folder(bool is_damaged)
{
    static bool is_made[2];
    struct eq_dataset *shapes, *set;
    char name[64];
    const char *root = is_damaged ? "damaged" : "whole";
    for (int i = 0; !is_made[is_damaged] && i < NUM; i++) {
        struct eq_image image;
        snprintf(name, sizeof name, "%s/%d", root, i / 10);
        IO_OK(eq_dir_make(io_path(name)));
        IO_OK(eq_dataset_open(&(struct eq_dataset_params){ .spec = "shapes", .size = 16 + i % 5 }, &shapes));
        IO_OK(eq_dataset_get(shapes, (size_t)i, &image));
        snprintf(name, sizeof name, "%s/%d/%02d.png", root, i / 10, i);
        IO_OK(eq_image_save_png(io_path(name), &image));
        if (is_damaged && i % 7 == 3)
            ck_assert_int_eq(truncate(io_path(name), 100), 0);
        eq_image_free(&image);
        eq_dataset_destroy(&shapes);
    }
    is_made[is_damaged] = true;
    char spec[600];
    snprintf(spec, sizeof spec, "%s", io_path(root));
    IO_OK(eq_dataset_open(&(struct eq_dataset_params){ .spec = spec }, &set));
    return set;
}

// One item as it came: what it was, and a hash of its pixels.
struct seen {
    size_t item, position;
    int label;
    uint64_t hash;
};

static size_t read_pass(struct eq_loader *loader, struct seen seen[NUM])
{
    struct eq_loaded loaded;
    size_t num = 0;
    for (;;) {
        IO_OK(eq_loader_next(loader, &loaded));
        if (!loaded.image.pixels)
            return num;
        ck_assert_uint_lt(num, NUM);
        size_t bytes = (size_t)loaded.image.height * (size_t)loaded.image.width * 3;
        seen[num++] =
            (struct seen){ loaded.item, loaded.position, loaded.label, eq_fnv1a(loaded.image.pixels, bytes, EQ_FNV_START) };
        eq_image_free(&loaded.image);
    }
}

static struct eq_loader *make_loader(const struct eq_dataset *set, bool is_shuffled, int threads, int ahead, size_t bytes)
{
    const struct eq_loader_params params = {
        .dataset = set, .is_shuffled = is_shuffled, .seed = 11, .num_threads = threads, .ahead = ahead, .ahead_bytes = bytes
    };
    struct eq_loader *loader;
    IO_OK(eq_loader_create(&params, &loader));
    return loader;
}

static void expect_same(const struct seen *a, const struct seen *b, size_t num)
{
    for (size_t i = 0; i < num; i++)
        ck_assert_msg(
            a[i].item == b[i].item && a[i].position == b[i].position && a[i].label == b[i].label && a[i].hash == b[i].hash,
            "place %zu: item %zu, position %zu against %zu, %zu", i, a[i].item, a[i].position, b[i].item, b[i].position);
}

// Any number of threads, a ring of one place, a limit of one byte.
START_TEST(any_threads)
{
    static const struct {
        int threads, ahead;
        size_t bytes;
    } ways[] = { { 1, 1, 0 }, { 1, 0, 0 }, { 2, 3, 0 }, { 4, 64, 0 }, { 16, 7, 0 }, { 8, 16, 1 }, { 5, 200, 3000 } };
    for (int is_damaged = 0; is_damaged < 2; is_damaged++) {
        struct eq_dataset *set = open_folder(is_damaged);
        struct seen first[2][NUM], seen[NUM];
        size_t wanted = is_damaged ? NUM - 6 : NUM;
        for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
            struct eq_loader *loader = make_loader(set, true, ways[i].threads, ways[i].ahead, ways[i].bytes);
            for (int epoch = 0; epoch < 2; epoch++) {
                IO_OK(eq_loader_start(loader, (uint64_t)epoch, 0));
                ck_assert_uint_eq(read_pass(loader, seen), wanted);
                ck_assert_uint_eq(eq_loader_num_skipped(loader), is_damaged ? 6 : 0);
                if (i == 0)
                    memcpy(first[epoch], seen, sizeof seen);
                expect_same(seen, first[epoch], wanted);
            }
            eq_loader_destroy(&loader);
            ck_assert(loader == NULL);
        }
        size_t num_same = 0;
        for (size_t i = 0; i < wanted; i++)
            num_same += first[0][i].item == first[1][i].item;
        ck_assert_uint_lt(num_same, wanted / 2); // another order every epoch
        eq_dataset_destroy(&set);
    }
}
END_TEST

// The order is the permutation of the stream (seed, epoch, "order"); without shuffling it is ascending. Pixels are the set's.
START_TEST(order_and_pixels)
{
    struct eq_dataset *set = open_folder(false);
    struct seen seen[NUM];
    size_t order[NUM];
    for (int is_shuffled = 0; is_shuffled < 2; is_shuffled++) {
        struct eq_loader *loader = make_loader(set, is_shuffled, 3, 0, 0);
        IO_OK(eq_loader_start(loader, 4, 0));
        ck_assert_uint_eq(read_pass(loader, seen), NUM);
        eq_random_permutation(eq_random_key(11, 4, 0, "order"), order, NUM);
        for (size_t i = 0; i < NUM; i++) {
            struct eq_image image;
            ck_assert_uint_eq(seen[i].item, is_shuffled ? order[i] : i);
            ck_assert_uint_eq(seen[i].position, i + 1);
            ck_assert_int_eq(seen[i].label, eq_dataset_label(set, seen[i].item));
            IO_OK(eq_dataset_get(set, seen[i].item, &image));
            ck_assert_uint_eq(seen[i].hash,
                              eq_fnv1a(image.pixels, (size_t)image.height * (size_t)image.width * 3, EQ_FNV_START));
            eq_image_free(&image);
        }
        eq_loader_destroy(&loader);
    }
    eq_dataset_destroy(&set);
}
END_TEST

// Begun anew behind any item, the rest is what it would have been.
START_TEST(resume)
{
    struct eq_dataset *set = open_folder(true);
    struct eq_loader *loader = make_loader(set, true, 4, 9, 0);
    struct seen whole[NUM], rest[NUM];
    IO_OK(eq_loader_start(loader, 2, 0));
    size_t num = read_pass(loader, whole);
    for (size_t i = 0; i < num; i++) {
        IO_OK(eq_loader_start(loader, 2, whole[i].position));
        ck_assert_uint_eq(read_pass(loader, rest), num - i - 1);
        expect_same(rest, whole + i + 1, num - i - 1);
    }
    IO_OK(eq_loader_start(loader, 2, NUM));
    ck_assert_uint_eq(read_pass(loader, rest), 0);
    IO_FAILS(eq_loader_start(loader, 2, NUM + 1), EQ_ERR_ARGUMENT, "position 41 of 40 items");
    eq_loader_destroy(&loader);
    eq_dataset_destroy(&set);
}
END_TEST

// Left in the middle of a pass: by another pass, and by destruction, both at every place.
START_TEST(stop_anywhere)
{
    struct eq_dataset *set = open_folder(true);
    struct seen whole[NUM], seen[NUM];
    struct eq_loader *loader = make_loader(set, true, 4, 9, 0);
    IO_OK(eq_loader_start(loader, 1, 0));
    size_t num = read_pass(loader, whole);
    for (size_t taken = 0; taken < num; taken++) {
        struct eq_loaded loaded;
        IO_OK(eq_loader_start(loader, 3, 0));
        for (size_t i = 0; i < taken; i++) {
            IO_OK(eq_loader_next(loader, &loaded));
            eq_image_free(&loaded.image);
        }
        if (taken % 2 == 0) {
            eq_loader_destroy(&loader);
            loader = make_loader(set, true, 1 + (int)taken % 5, 9, 0);
        }
        IO_OK(eq_loader_start(loader, 1, 0));
        ck_assert_uint_eq(read_pass(loader, seen), num);
        expect_same(seen, whole, num);
    }
    eq_loader_destroy(&loader);
    eq_loader_destroy(&loader);               // NULL
    loader = make_loader(set, true, 4, 9, 0); // never started
    struct eq_loaded nothing;
    IO_OK(eq_loader_next(loader, &nothing));
    ck_assert(nothing.image.pixels == NULL);
    eq_loader_destroy(&loader);
    eq_dataset_destroy(&set);
}
END_TEST

static size_t num_lines;
static char last_line[1024];

static void keep_line(void *user, enum eq_log_level level, const char *text)
{
    (void)user;
    num_lines += level == EQ_LOG_WARNING;
    snprintf(last_line, sizeof last_line, "%s", text);
}

START_TEST(broken_are_named)
{
    struct eq_dataset *set = open_folder(true);
    struct eq_loader *loader = make_loader(set, false, 4, 9, 0);
    struct seen seen[NUM];
    eq_log_set(keep_line, NULL, EQ_LOG_WARNING);
    IO_OK(eq_loader_start(loader, 0, 0));
    read_pass(loader, seen);
    eq_log_set(NULL, NULL, EQ_LOG_ERROR);
    ck_assert_uint_eq(num_lines, 6);
    ck_assert(strstr(last_line, "damaged/3/38.png: PNG: ") != NULL);
    for (size_t i = 0; i < NUM - 6; i++)
        ck_assert_uint_ne(seen[i].item % 7, 3);
    eq_loader_destroy(&loader);
    eq_dataset_destroy(&set);
}
END_TEST

START_TEST(all_broken)
{
    char name[64], spec[600];
    struct eq_dataset *set;
    struct eq_loaded loaded;
    for (int i = 0; i < 6; i++) {
        snprintf(name, sizeof name, "junk/%d", i % 2);
        IO_OK(eq_dir_make(io_path(name)));
        snprintf(name, sizeof name, "junk/%d/%d.jpg", i % 2, i);
        io_write(io_path(name), "no image", 8);
    }
    snprintf(spec, sizeof spec, "%s", io_path("junk"));
    IO_OK(eq_dataset_open(&(struct eq_dataset_params){ .spec = spec }, &set));
    struct eq_loader *loader = make_loader(set, false, 2, 0, 0);
    IO_OK(eq_loader_start(loader, 0, 0));
    IO_FAILS(eq_loader_next(loader, &loaded), EQ_ERR_FORMAT, "none of the 6 images can be read; the first: ");
    ck_assert(strstr(eq_last_error(), "junk/0/0.jpg: neither") != NULL && loaded.image.pixels == NULL);
    ck_assert_uint_eq(eq_loader_num_skipped(loader), 6);
    IO_OK(eq_loader_start(loader, 0, 4)); // the rest of a pass may have none
    IO_OK(eq_loader_next(loader, &loaded));
    ck_assert(loaded.image.pixels == NULL);
    eq_loader_destroy(&loader);
    eq_dataset_destroy(&set);
}
END_TEST

START_TEST(wrong_numbers)
{
    struct eq_dataset *set = open_folder(false);
    struct eq_loader *loader;
    struct eq_loader_params params = { .dataset = set, .num_threads = -1 };
    IO_FAILS(eq_loader_create(&params, &loader), EQ_ERR_ARGUMENT, "-1 threads");
    ck_assert(loader == NULL);
    params.num_threads = 1000;
    IO_FAILS(eq_loader_create(&params, &loader), EQ_ERR_ARGUMENT, "1000 threads");
    params.num_threads = 1;
    params.ahead = -1;
    IO_FAILS(eq_loader_create(&params, &loader), EQ_ERR_ARGUMENT, "-1 items ahead");
    params = (struct eq_loader_params){ .dataset = set };
    setenv("EQUIL_THREADS", "many", 1);
    IO_FAILS(eq_loader_create(&params, &loader), EQ_ERR_ARGUMENT, "EQUIL_THREADS=many");
    setenv("EQUIL_THREADS", "3", 1);
    IO_OK(eq_loader_create(&params, &loader));
    eq_loader_destroy(&loader);
    unsetenv("EQUIL_THREADS");
    eq_dataset_destroy(&set);
}
END_TEST

IO_TEST_MAIN("loader", any_threads, order_and_pixels, resume, stop_anywhere, broken_are_named, all_broken, wrong_numbers)

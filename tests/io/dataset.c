// Data sets: every kind, splits, lists of classes, and what is wrong with a folder. Drawn shapes: the same bits, told apart by
// eye and number.
#include <sys/stat.h>

#include "io/dataset.h"
#include "io/shapes.h"
#include "io_test.h"

// A PNG of 3 x 2 pixels, all of one value.
static void make_png(const char *path, int value)
{
    uint8_t pixels[18];
    memset(pixels, value, sizeof pixels);
    IO_OK(eq_image_save_png(io_path(path), &(struct eq_image){ pixels, 2, 3 }));
}

static eq_status open_set(const char *kind, const char *path, enum eq_split split, struct eq_dataset **set)
{
    char spec[600];
    snprintf(spec, sizeof spec, "%s%s", kind, io_path(path));
    return eq_dataset_open(&(struct eq_dataset_params){ .spec = spec, .split = split }, set);
}

// PATH/CLASS/N.png for each class; the pixel value says class and number.
static void make_folder(const char *path, const char *const *classes, int num_classes, int per_class)
{
    char name[200];
    for (int c = 0; c < num_classes; c++) {
        snprintf(name, sizeof name, "%s/%s", path, classes[c]);
        IO_OK(eq_dir_make(io_path(name)));
        for (int i = 0; i < per_class; i++) {
            snprintf(name, sizeof name, "%s/%s/%d.png", path, classes[c], i);
            make_png(name, 20 * c + i);
        }
    }
}

START_TEST(folder)
{
    static const char *const classes[] = { "zebra", "ant", "Bee" };
    struct eq_dataset *set;
    struct eq_image image;
    char text[600];
    make_folder("plain", classes, 3, 4);
    io_write(io_path("plain/notes.txt"), "x", 1);
    io_write(io_path("plain/ant/notes.txt"), "x", 1);
    IO_OK(eq_dir_make(io_path("plain/.cache")));
    IO_OK(open_set("", "plain", EQ_SPLIT_TRAIN, &set));
    ck_assert_uint_eq(eq_dataset_num_items(set), 12);
    ck_assert_int_eq(eq_dataset_num_classes(set), 3);
    ck_assert_str_eq(eq_dataset_class_name(set, 0), "Bee");
    ck_assert_str_eq(eq_dataset_class_name(set, 1), "ant");
    ck_assert_str_eq(eq_dataset_class_name(set, 2), "zebra");
    ck_assert(eq_dataset_class_name(set, 3) == NULL && eq_dataset_class_name(set, -1) == NULL);
    ck_assert(!eq_dataset_has_test_part(set));
    for (size_t i = 0; i < 12; i++) {
        static const int value_of[] = { 40, 20, 0 }; // Bee, ant, zebra
        IO_OK(eq_dataset_get(set, i, &image));
        ck_assert(image.height == 2 && image.width == 3);
        ck_assert_int_eq(eq_dataset_label(set, i), (int)(i / 4));
        ck_assert_int_eq(image.pixels[0], value_of[i / 4] + (int)(i % 4));
        eq_image_free(&image);
    }
    ck_assert(eq_str_ends(eq_dataset_item_name(set, 5, text, sizeof text), "plain/ant/1.png"));
    IO_FAILS(eq_dataset_get(set, 12, &image), EQ_ERR_ARGUMENT, "item 12 of a set of 12");
    eq_dataset_destroy(&set);
    ck_assert(set == NULL);
    IO_OK(open_set("", "plain", EQ_SPLIT_TEST, &set)); // without parts both are everything
    ck_assert_uint_eq(eq_dataset_num_items(set), 12);
    eq_dataset_destroy(&set);
}
END_TEST

START_TEST(folder_with_parts)
{
    static const char *const classes[] = { "a", "b", "c" }, *const strange[] = { "a", "q" };
    struct eq_dataset *set;
    make_folder("parts/train", classes, 3, 3);
    make_folder("parts/val", classes + 1, 2, 2); // without class a
    IO_OK(open_set("", "parts", EQ_SPLIT_TRAIN, &set));
    ck_assert_uint_eq(eq_dataset_num_items(set), 9);
    ck_assert(eq_dataset_has_test_part(set));
    eq_dataset_destroy(&set);
    IO_OK(open_set("", "parts", EQ_SPLIT_TEST, &set));
    ck_assert_uint_eq(eq_dataset_num_items(set), 4);
    ck_assert_int_eq(eq_dataset_num_classes(set), 3);
    ck_assert_int_eq(eq_dataset_label(set, 0), 1);
    ck_assert_int_eq(eq_dataset_label(set, 3), 2);
    eq_dataset_destroy(&set);
    IO_OK(open_set("cifar10:", "parts", EQ_SPLIT_TEST, &set));
    ck_assert_uint_eq(eq_dataset_num_items(set), 4);
    eq_dataset_destroy(&set);
    make_folder("odd/train", classes, 3, 1);
    make_folder("odd/test", strange, 2, 1);
    IO_FAILS(open_set("", "odd", EQ_SPLIT_TEST, &set), EQ_ERR_FORMAT, "class q is not in the training part");
    // Classes that happen to be called so are no parts.
    static const char *const named[] = { "test", "train" };
    make_folder("named", named, 2, 2);
    IO_OK(open_set("", "named", EQ_SPLIT_TRAIN, &set));
    ck_assert_uint_eq(eq_dataset_num_items(set), 4);
    eq_dataset_destroy(&set);
}
END_TEST

START_TEST(wrong_folders)
{
    static const char *const one[] = { "only" };
    struct eq_dataset *set;
    IO_FAILS(open_set("", "nowhere", EQ_SPLIT_TRAIN, &set), EQ_ERR_IO, "nowhere: No such file");
    ck_assert(set == NULL);
    io_write(io_path("file"), "x", 1);
    IO_FAILS(open_set("", "file", EQ_SPLIT_TRAIN, &set), EQ_ERR_IO, "file: a file; a data set is a folder");
    IO_OK(eq_dir_make(io_path("empty")));
    IO_FAILS(open_set("", "empty", EQ_SPLIT_TRAIN, &set), EQ_ERR_NOT_FOUND, "empty: the folder is empty");
    IO_OK(eq_dir_make(io_path("flat")));
    make_png("flat/a.png", 1);
    IO_FAILS(open_set("", "flat", EQ_SPLIT_TRAIN, &set), EQ_ERR_NOT_FOUND, "no folders in it (1 image files)");
    make_folder("single", one, 1, 2);
    IO_FAILS(open_set("", "single", EQ_SPLIT_TRAIN, &set), EQ_ERR_ARGUMENT, "only one class (only)");
    make_folder("hole", one, 1, 2);
    IO_OK(eq_dir_make(io_path("hole/bare")));
    IO_FAILS(open_set("", "hole", EQ_SPLIT_TRAIN, &set), EQ_ERR_NOT_FOUND, "hole/bare: no .jpg, .jpeg or .png file");
    make_folder("deep/outer", one, 1, 2);
    make_folder("deep/other", one, 1, 2);
    IO_FAILS(open_set("", "deep", EQ_SPLIT_TRAIN, &set), EQ_ERR_NOT_FOUND, "is the data set one level below?");
    make_folder("closed", one, 1, 2);
    IO_OK(eq_dir_make(io_path("closed/locked")));
    ck_assert_int_eq(chmod(io_path("closed/locked"), 0), 0);
    if (geteuid() != 0) // root may read everything
        IO_FAILS(open_set("", "closed", EQ_SPLIT_TRAIN, &set), EQ_ERR_IO, "closed/locked: Permission denied");
    IO_FAILS(eq_dataset_open(&(struct eq_dataset_params){ .spec = "" }, &set), EQ_ERR_ARGUMENT, "no data set");
    IO_FAILS(eq_dataset_open(&(struct eq_dataset_params){ .spec = NULL }, &set), EQ_ERR_ARGUMENT, "no data set");
    IO_FAILS(eq_dataset_open(&(struct eq_dataset_params){ .spec = "shapes", .split = (enum eq_split)9 }, &set), EQ_ERR_ARGUMENT,
             "split 9");
}
END_TEST

START_TEST(class_lists)
{
    static const char *const classes[] = { "a", "b" }, *const known[] = { "b", "x", "a" }, *const others[] = { "a", "c" };
    struct eq_dataset *set;
    make_folder("mapped", classes, 2, 1);
    char spec[600];
    snprintf(spec, sizeof spec, "%s", io_path("mapped"));
    IO_OK(eq_dataset_open(&(struct eq_dataset_params){ .spec = spec, .class_names = known, .num_classes = 3 }, &set));
    ck_assert_int_eq(eq_dataset_num_classes(set), 3);
    ck_assert_int_eq(eq_dataset_label(set, 0), 2);
    ck_assert_int_eq(eq_dataset_label(set, 1), 0);
    ck_assert_str_eq(eq_dataset_class_name(set, 1), "x");
    eq_dataset_destroy(&set);
    IO_FAILS(eq_dataset_open(&(struct eq_dataset_params){ .spec = spec, .class_names = others, .num_classes = 2 }, &set),
             EQ_ERR_ARGUMENT, "class b is not among the 2 known ones");
    IO_FAILS(eq_dataset_open(&(struct eq_dataset_params){ .spec = spec, .class_names = others, .num_classes = 1 }, &set),
             EQ_ERR_ARGUMENT, "1 classes");
}
END_TEST

// The tenth is the same for a seed, another for another seed; with the rest it is everything, once.
START_TEST(held_out)
{
    struct eq_dataset *fit, *held, *again, *other;
    size_t num_same = 0, num_seen = 0;
    char text[128], text_other[128];
    static bool is_seen[EQ_SHAPES_NUM_TRAIN];
    IO_OK(eq_dataset_open(&(struct eq_dataset_params){ .spec = "shapes", .split = EQ_SPLIT_FIT, .seed = 5 }, &fit));
    IO_OK(eq_dataset_open(&(struct eq_dataset_params){ .spec = "shapes", .split = EQ_SPLIT_HELD_OUT, .seed = 5 }, &held));
    IO_OK(eq_dataset_open(&(struct eq_dataset_params){ .spec = "shapes", .split = EQ_SPLIT_HELD_OUT, .seed = 5 }, &again));
    IO_OK(eq_dataset_open(&(struct eq_dataset_params){ .spec = "shapes", .split = EQ_SPLIT_HELD_OUT, .seed = 6 }, &other));
    ck_assert_uint_eq(eq_dataset_num_items(held), 1000);
    ck_assert_uint_eq(eq_dataset_num_items(fit), 9000);
    const struct eq_dataset *both[] = { fit, held };
    for (int i = 0; i < 2; i++)
        for (size_t item = 0; item < eq_dataset_num_items(both[i]); item++) {
            unsigned index;
            ck_assert_int_eq(sscanf(eq_dataset_item_name(both[i], item, text, sizeof text), "shape %u", &index), 1);
            ck_assert(index < EQ_SHAPES_NUM_TRAIN && !is_seen[index]);
            ck_assert_int_eq(eq_dataset_label(both[i], item), (int)index % EQ_SHAPES_NUM_CLASSES);
            is_seen[index] = true;
            num_seen++;
        }
    ck_assert_uint_eq(num_seen, EQ_SHAPES_NUM_TRAIN);
    for (size_t i = 0; i < 1000; i++) {
        eq_dataset_item_name(held, i, text, sizeof text);
        ck_assert_str_eq(text, eq_dataset_item_name(again, i, text_other, sizeof text_other));
        num_same += strcmp(text, eq_dataset_item_name(other, i, text_other, sizeof text_other)) == 0;
    }
    ck_assert_uint_lt(num_same, 100);
    eq_dataset_destroy(&fit);
    eq_dataset_destroy(&held);
    eq_dataset_destroy(&again);
    eq_dataset_destroy(&other);
}
END_TEST

// Record i of a file has label i % 10, red 10, green 20 and blue i everywhere but the first pixel, which is red 1, green 2,
// blue 3.
static void make_cifar(const char *path, int num)
{
    size_t bytes = (size_t)num * 3073;
    unsigned char *data = malloc(bytes);
    for (int i = 0; i < num; i++) {
        unsigned char *at = data + i * 3073;
        at[0] = (unsigned char)(i % 10);
        memset(at + 1, 10, 1024);
        memset(at + 1025, 20, 1024);
        memset(at + 2049, i, 1024);
        at[1] = 1, at[1025] = 2, at[2049] = 3;
    }
    io_write(io_path(path), data, bytes);
    free(data);
}

START_TEST(cifar_binary)
{
    struct eq_dataset *set;
    struct eq_image image;
    char name[64];
    IO_OK(eq_dir_make(io_path("cifar")));
    for (int i = 1; i <= 5; i++) {
        snprintf(name, sizeof name, "cifar/data_batch_%d.bin", i);
        make_cifar(name, 10 + i);
    }
    make_cifar("cifar/test_batch.bin", 7);
    IO_OK(open_set("cifar10:", "cifar", EQ_SPLIT_TRAIN, &set));
    ck_assert_uint_eq(eq_dataset_num_items(set), 11 + 12 + 13 + 14 + 15);
    ck_assert_str_eq(eq_dataset_class_name(set, 9), "truck");
    ck_assert_str_eq(eq_dataset_item_name(set, 11, name, sizeof name), "data_batch_2.bin, image 0");
    ck_assert_str_eq(eq_dataset_item_name(set, 64, name, sizeof name), "data_batch_5.bin, image 14");
    ck_assert_int_eq(eq_dataset_label(set, 64), 4);
    IO_OK(eq_dataset_get(set, 64, &image));
    static const uint8_t wanted[6] = { 1, 2, 3, 10, 20, 14 };
    ck_assert_mem_eq(image.pixels, wanted, 6);
    ck_assert_mem_eq(image.pixels + 32 * 32 * 3 - 3, wanted + 3, 3);
    eq_image_free(&image);
    eq_dataset_destroy(&set);
    IO_OK(open_set("cifar10:", "cifar", EQ_SPLIT_TEST, &set));
    ck_assert_uint_eq(eq_dataset_num_items(set), 7);
    eq_dataset_destroy(&set);
    static const char names[] = "c0\nc1\nc2\r\nc3\nc4\nc5\nc6\nc7\nc8\nc9\n\n";
    io_write(io_path("cifar/batches.meta.txt"), names, sizeof names - 1);
    IO_OK(open_set("cifar10:", "cifar", EQ_SPLIT_TEST, &set));
    ck_assert_str_eq(eq_dataset_class_name(set, 2), "c2");
    eq_dataset_destroy(&set);
    ck_assert_int_eq(truncate(io_path("cifar/data_batch_3.bin"), 3073 * 4 + 1), 0);
    IO_FAILS(open_set("cifar10:", "cifar", EQ_SPLIT_TRAIN, &set), EQ_ERR_FORMAT,
             "data_batch_3.bin: 12293 bytes, not a multiple of the 3073");
    ck_assert_int_eq(unlink(io_path("cifar/data_batch_3.bin")), 0);
    IO_FAILS(open_set("cifar10:", "cifar", EQ_SPLIT_TRAIN, &set), EQ_ERR_IO, "data_batch_3.bin: No such file");
    unsigned char record[3073] = { 10 };
    io_write(io_path("cifar/test_batch.bin"), record, sizeof record);
    IO_FAILS(open_set("cifar10:", "cifar", EQ_SPLIT_TEST, &set), EQ_ERR_FORMAT, "image 0 has label 10 of 10");
    IO_OK(eq_dir_make(io_path("python")));
    io_write(io_path("python/data_batch_1"), "x", 1);
    IO_FAILS(open_set("cifar10:", "python", EQ_SPLIT_TRAIN, &set), EQ_ERR_FORMAT, "Python version");
    IO_FAILS(open_set("cifar10:", "nowhere", EQ_SPLIT_TRAIN, &set), EQ_ERR_IO, "no such folder");
    IO_OK(eq_dir_make(io_path("bare")));
    IO_FAILS(open_set("cifar10:", "bare", EQ_SPLIT_TRAIN, &set), EQ_ERR_NOT_FOUND, "neither data_batch_1.bin nor");
}
END_TEST

START_TEST(idx)
{
    unsigned char images[16 + 3 * 6] = { 0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 3 },
                                  labels[8 + 3] = { 0, 0, 8, 1, 0, 0, 0, 3, 7, 0, 9 };
    struct eq_dataset *set;
    struct eq_image image;
    for (int i = 0; i < 18; i++)
        images[16 + i] = (unsigned char)(10 * i);
    IO_OK(eq_dir_make(io_path("idx")));
    io_write(io_path("idx/train-images-idx3-ubyte"), images, sizeof images);
    IO_FAILS(open_set("idx:", "idx", EQ_SPLIT_TRAIN, &set), EQ_ERR_IO, "train-labels-idx1-ubyte: No such file");
    io_write(io_path("idx/train-labels-idx1-ubyte"), labels, sizeof labels);
    IO_OK(open_set("idx:", "idx", EQ_SPLIT_TRAIN, &set));
    ck_assert_uint_eq(eq_dataset_num_items(set), 3);
    ck_assert_int_eq(eq_dataset_num_classes(set), 10);
    ck_assert_str_eq(eq_dataset_class_name(set, 7), "7");
    ck_assert(eq_dataset_label(set, 0) == 7 && eq_dataset_label(set, 2) == 9 && eq_dataset_has_test_part(set));
    IO_OK(eq_dataset_get(set, 1, &image));
    ck_assert(image.height == 2 && image.width == 3);
    for (int i = 0; i < 18; i++)
        ck_assert_int_eq(image.pixels[i], 60 + 10 * (i / 3)); // grey, three times
    eq_image_free(&image);
    eq_dataset_destroy(&set);
    io_write(io_path("idx/t10k-images-idx3-ubyte.gz"), "x", 1);
    IO_FAILS(open_set("idx:", "idx", EQ_SPLIT_TEST, &set), EQ_ERR_FORMAT, "gunzip");
    for (size_t bytes = 0; bytes < sizeof images; bytes++) {
        io_write(io_path("idx/train-images-idx3-ubyte"), images, bytes);
        IO_FAILS(open_set("idx:", "idx", EQ_SPLIT_TRAIN, &set), EQ_ERR_FORMAT, "train-images-idx3-ubyte");
    }
    memset(images + 4, 0xff, 12);
    io_write(io_path("idx/train-images-idx3-ubyte"), images, sizeof images);
    IO_FAILS(open_set("idx:", "idx", EQ_SPLIT_TRAIN, &set), EQ_ERR_FORMAT, "dimension");
    images[4] = images[5] = images[6] = 0, images[7] = 2, images[8] = images[9] = images[10] = 0, images[11] = 3;
    images[12] = images[13] = images[14] = 0, images[15] = 3;
    io_write(io_path("idx/train-images-idx3-ubyte"), images, sizeof images);
    IO_FAILS(open_set("idx:", "idx", EQ_SPLIT_TRAIN, &set), EQ_ERR_FORMAT, "3 labels for 2 images");
    IO_FAILS(open_set("idx:", "nowhere", EQ_SPLIT_TRAIN, &set), EQ_ERR_IO, "no such folder");
    IO_FAILS(eq_dataset_open(&(struct eq_dataset_params){ .spec = "idx:" }, &set), EQ_ERR_ARGUMENT,
             "idx: names no folder: idx:DIR is needed");
}
END_TEST

// ---- drawn shapes

START_TEST(shapes_specs)
{
    struct eq_dataset *set, *other;
    struct eq_image a, b;
    IO_FAILS(eq_dataset_open(&(struct eq_dataset_params){ .spec = "shapes:x" }, &set), EQ_ERR_ARGUMENT, "not a number");
    IO_FAILS(eq_dataset_open(&(struct eq_dataset_params){ .spec = "shapes:18446744073709551616" }, &set), EQ_ERR_ARGUMENT,
             "the seed is above 18446744073709551615");
    IO_FAILS(eq_dataset_open(&(struct eq_dataset_params){ .spec = "shapes", .size = 8 }, &set), EQ_ERR_ARGUMENT,
             "shapes of 8 pixels");
    IO_OK(eq_dataset_open(&(struct eq_dataset_params){ .spec = "shapes", .split = EQ_SPLIT_TEST }, &set));
    ck_assert_uint_eq(eq_dataset_num_items(set), EQ_SHAPES_NUM_TEST);
    ck_assert_int_eq(eq_dataset_num_classes(set), EQ_SHAPES_NUM_CLASSES);
    IO_OK(eq_dataset_open(&(struct eq_dataset_params){ .spec = "shapes:0", .split = EQ_SPLIT_TEST, .seed = 9 }, &other));
    IO_OK(eq_dataset_get(set, 3, &a));
    IO_OK(eq_dataset_get(other, 3, &b)); // the same drawing seed; the seed of the split does not change a picture
    ck_assert_int_eq(a.width, 32);
    ck_assert_mem_eq(a.pixels, b.pixels, 32 * 32 * 3);
    eq_image_free(&b);
    eq_dataset_destroy(&other);
    IO_OK(eq_dataset_open(&(struct eq_dataset_params){ .spec = "shapes:1", .split = EQ_SPLIT_TEST }, &other));
    IO_OK(eq_dataset_get(other, 3, &b));
    ck_assert_mem_ne(a.pixels, b.pixels, 32 * 32 * 3);
    eq_image_free(&a);
    eq_image_free(&b);
    eq_dataset_destroy(&set);
    eq_dataset_destroy(&other);
}
END_TEST

// Sum of all squared differences of two images' pixels.
static double difference(const struct eq_image *a, const struct eq_image *b)
{
    double sum = 0;
    for (int i = 0; i < a->height * a->width * 3; i++)
        sum += (double)(a->pixels[i] - b->pixels[i]) * (a->pixels[i] - b->pixels[i]);
    return sum;
}

// No two images are alike, each image uses many values, and the same picture comes at another size.
START_TEST(shapes_images)
{
    enum { NUM = 64 };
    struct eq_image images[NUM], large;
    struct eq_dataset *set, *large_set;
    IO_OK(eq_dataset_open(&(struct eq_dataset_params){ .spec = "shapes" }, &set));
    IO_OK(eq_dataset_open(&(struct eq_dataset_params){ .spec = "shapes", .size = 128 }, &large_set));
    for (size_t i = 0; i < NUM; i++) {
        bool is_used[256] = { false };
        int num_values = 0;
        IO_OK(eq_dataset_get(set, i, &images[i]));
        for (int j = 0; j < 32 * 32 * 3; j++) {
            num_values += !is_used[images[i].pixels[j]];
            is_used[images[i].pixels[j]] = true;
        }
        ck_assert_msg(num_values > 16, "image %zu has %d values", i, num_values);
        for (size_t j = 0; j < i; j++)
            ck_assert_msg(difference(&images[i], &images[j]) / (32 * 32 * 3) > 100, "images %zu and %zu look alike", i, j);
        IO_OK(eq_dataset_get(large_set, i, &large));
        double off = 0;
        for (int y = 0; y < 32; y++)
            for (int x = 0; x < 32; x++)
                for (int c = 0; c < 3; c++) {
                    int sum = 0;
                    for (int k = 0; k < 16; k++)
                        sum += large.pixels[((4 * y + k / 4) * 128 + 4 * x + k % 4) * 3 + c];
                    off += abs(sum / 16 - images[i].pixels[(y * 32 + x) * 3 + c]);
                }
        ck_assert_msg(off / (32 * 32 * 3) < 12, "image %zu at 128 pixels is off by %g", i,
                      off / (32 * 32 * 3)); // noise is at most 15
        eq_image_free(&large);
    }
    for (size_t i = 0; i < NUM; i++)
        eq_image_free(&images[i]);
    eq_dataset_destroy(&set);
    eq_dataset_destroy(&large_set);
}
END_TEST

IO_TEST_MAIN("dataset", folder, folder_with_parts, wrong_folders, class_lists, held_out, cifar_binary, idx, shapes_specs,
             shapes_images)

// Faults of what needs no device: a data set and the threads that decode it, image files, tensors in files; and processes that
// are killed while they write.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <jpeglib.h> // needs stdio.h

#include "fault.h"
#include "io/loader.h"

enum { CLASSES = 2, PER_CLASS = 3, SIDE = 8, TENSOR = 64 };

static void fill(struct eq_image *image, unsigned char pixels[SIDE * SIDE * 3], int seed)
{
    for (int i = 0; i < SIDE * SIDE * 3; i++)
        pixels[i] = (unsigned char)(i * 5 + seed * 40);
    *image = (struct eq_image){ pixels, SIDE, SIDE };
}

static void save_jpeg(const char *path, const struct eq_image *image)
{
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    FILE *file = fopen(path, "wb");
    ck_assert(file != NULL);
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_stdio_dest(&jpeg, file);
    jpeg.image_width = jpeg.image_height = SIDE;
    jpeg.input_components = 3;
    jpeg.in_color_space = JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg_start_compress(&jpeg, TRUE);
    for (int y = 0; y < SIDE; y++)
        jpeg_write_scanlines(&jpeg, &(JSAMPROW){ image->pixels + (size_t)y * SIDE * 3 }, 1);
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    ck_assert_int_eq(fclose(file), 0);
}

START_TEST(test_setup)
{
    for (int i = 0; i < CLASSES * PER_CLASS; i++) {
        unsigned char pixels[SIDE * SIDE * 3];
        struct eq_image image;
        char name[32];
        fill(&image, pixels, i);
        snprintf(name, sizeof name, "set/%d", i % CLASSES);
        EQ_TEST_OK(eq_dir_make(fault_path(name)));
        snprintf(name, sizeof name, "set/%d/%d.%s", i % CLASSES, i, i % 3 ? "png" : "jpg");
        if (i % 3)
            EQ_TEST_OK(eq_image_save_png(fault_path(name), &image));
        else
            save_jpeg(fault_path(name), &image);
    }
}
END_TEST

// ---- reading

static bool load_all(struct eq_loader *loader)
{
    for (;;) {
        struct eq_loaded loaded;
        if (!fault_ok(eq_loader_next(loader, &loaded)))
            return false;
        if (!loaded.image.pixels)
            return true;
        fault_result(loaded.image.pixels, SIDE * SIDE * 3);
        eq_image_free(&loaded.image);
    }
}

static bool load_one(const char *name)
{
    struct eq_image image = { 0 };
    if (!fault_ok(eq_image_load(fault_path(name), &image)))
        return false;
    fault_result(image.pixels, SIDE * SIDE * 3);
    eq_image_free(&image);
    return true;
}

static bool list_one(void)
{
    char **paths;
    size_t num;
    if (!fault_ok(eq_image_list(fault_path("set/1"), &paths, &num)))
        return false;
    fault_result(&num, sizeof num);
    eq_image_list_free(paths, num);
    return true;
}

static void read_set(void)
{
    struct eq_dataset *set = NULL;
    struct eq_loader *loader = NULL;
    if (fault_ok(eq_dataset_open(&(struct eq_dataset_params){ .spec = fault_path("set") }, &set)) &&
        fault_ok(eq_loader_create(
            &(struct eq_loader_params){ .dataset = set, .is_shuffled = true, .seed = 3, .num_threads = 2 }, &loader)) &&
        fault_ok(eq_loader_start(loader, 0, 0)) && load_all(loader) && load_one("set/0/0.jpg") && load_one("set/1/1.png"))
        list_one();
    fault_ending();
    eq_loader_destroy(&loader);
    eq_dataset_destroy(&set);
}

// One thread of two is enough. A folder that cannot be closed has been read.
START_TEST(test_reading)
{
    fault_sweep(&(struct fault_scenario){ .name = "reading",
                                          .run = read_set,
                                          .harmless = " pthread_create fclose ",
                                          .kinds = 1u << FAULT_MEMORY | 1u << FAULT_WORKER_MEMORY | 1u << FAULT_FILE |
                                                   1u << FAULT_THREAD });
}
END_TEST

// ---- writing

static eq_status save_tensors(void)
{
    static float values[TENSOR];
    const struct eq_tensor_entry entries[] = {
        { .name = "a", .num_dims = 2, .dims = { 4, TENSOR / 4 }, .data = values },
        { .name = "b", .num_dims = 1, .dims = { TENSOR }, .data = values },
    };
    const struct eq_tensors_text text = { "key", "value" };
    for (int i = 0; i < TENSOR; i++)
        values[i] = (float)i;
    return eq_tensors_save(fault_path("written.safetensors"), entries, 2, &text, 1);
}

static eq_status save_image(void)
{
    unsigned char pixels[SIDE * SIDE * 3];
    struct eq_image image;
    fill(&image, pixels, 1);
    return eq_image_save_png(fault_path("written.png"), &image);
}

static bool read_tensors(void)
{
    struct eq_tensors *file = NULL;
    float values[TENSOR];
    const bool ok = fault_ok(eq_tensors_open(fault_path("written.safetensors"), &file)) &&
                    fault_ok(eq_tensors_read_f32(file, "b", values, TENSOR));
    if (ok)
        fault_result(values, sizeof values);
    eq_tensors_close(&file);
    return ok;
}

static bool write_both(void)
{
    return fault_ok(save_image()) && fault_ok(save_tensors()) && read_tensors();
}

static void write_files(void)
{
    if (!write_both() && fault_try_again())
        write_both();
}

static void before_writing(void)
{
    fault_file_before("written.png");
    fault_file_before("written.safetensors");
}

static void after_writing(bool is_hurt)
{
    fault_file_after("written.png", is_hurt);
    fault_file_after("written.safetensors", is_hurt);
}

// What can fail without harm: looking for what others left; closing and syncing the folder, after the file itself was synced.
START_TEST(test_writing)
{
    fault_sweep(&(struct fault_scenario){ .name = "writing",
                                          .run = write_files,
                                          .before = before_writing,
                                          .after = after_writing,
                                          .harmless = " opendir fclose open64 fsync unlink ",
                                          .kinds = 1u << FAULT_MEMORY | 1u << FAULT_FILE });
}
END_TEST

// ---- killed

// Temporary files beside what is written.
static int num_temporary(void)
{
    char **names;
    size_t num;
    int found = 0;
    EQ_TEST_OK(eq_dir_list(fault_path("."), &names, &num));
    for (size_t i = 0; i < num; i++)
        found += strstr(names[i], ".tmp.") != NULL;
    eq_names_free(names, num);
    return found;
}

// Whether the process came to its end.
static bool write_and_die(eq_status (*save)(void), long at)
{
    int state;
    fflush(NULL);
    const pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        fault_dies_at = at;
        _exit(save() == EQ_OK ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(child, &state, 0), child);
    ck_assert_msg(WIFEXITED(state) && WEXITSTATUS(state) != 1, "died at call %ld: %d", at, state);
    return WEXITSTATUS(state) == 0;
}

static void check_killed(const char *name, eq_status (*save)(void))
{
    char *whole, *found;
    size_t whole_bytes, bytes;
    long at = 1;
    int num_old = 0, num_new = 0;
    EQ_TEST_OK(save());
    EQ_TEST_OK(eq_file_read(fault_path(name), 1 << 20, &whole, &whole_bytes));
    for (bool is_over = false; !is_over; at++) {
        fault_file_before(name);
        is_over = write_and_die(save, at);
        EQ_TEST_OK(eq_file_read(fault_path(name), 1 << 20, &found, &bytes));
        const bool is_old = bytes == 3 && memcmp(found, "old", 3) == 0;
        const bool is_new = bytes == whole_bytes && memcmp(found, whole, bytes) == 0;
        ck_assert_msg(is_old || is_new, "%s, killed at call %ld: %zu bytes, neither the old nor the new", name, at, bytes);
        ck_assert_msg(is_new || num_new == 0, "%s, killed at call %ld: the old file again", name, at);
        ck_assert_msg(is_new || !is_over, "%s: written, and the old file", name);
        num_old += is_old;
        num_new += is_new;
        free(found);
        ck_assert_msg(num_temporary() <= 1, "%s, killed at call %ld: %d temporary files", name, at, num_temporary());
        EQ_TEST_OK(save()); // the next writer removes what is left
        ck_assert_msg(num_temporary() == 0, "%s, killed at call %ld: the next writer leaves a temporary file", name, at);
    }
    ck_assert(num_old > 0 && num_new > 1);
    free(whole);
    printf("# %s: killed at each of %ld calls of files: %d times the old file, %d times the new one\n", name, at - 2, num_old,
           num_new - 1);
}

START_TEST(test_killed)
{
    check_killed("written.safetensors", save_tensors);
    check_killed("written.png", save_image);
}
END_TEST

EQ_TEST_MAIN("faults of files", { test_setup }, { test_reading }, { test_writing }, { test_killed })

// Image files against Pillow's pixels (tests/golden/README.io_images.md), and damaged ones: an error, never a crash or half an
// image.
#include "io/image_file.h"
#include "io_test.h"

static struct eq_tensors *open_golden(void)
{
    struct eq_tensors *file = NULL;
    IO_OK(eq_tensors_open(io_source("tests/golden/io_images.safetensors"), &file));
    return file;
}

static const char *golden_path(const char *name)
{
    static char path[640];
    snprintf(path, sizeof path, "%s/%s", io_source("tests/golden/io_images"), name);
    return path;
}

static bool is_jpeg(const char *name)
{
    return strstr(name, ".jpg") != NULL;
}

// JPEG: one step, because other versions of libjpeg-turbo may round chroma upsampling another way. PNG is exact.
START_TEST(pixels)
{
    struct eq_tensors *golden = open_golden();
    size_t num_exact = 0;
    ck_assert_uint_eq(eq_tensors_num(golden), 35);
    for (size_t i = 0; i < eq_tensors_num(golden); i++) {
        const struct eq_tensor_entry *entry = eq_tensors_at(golden, i);
        int64_t *wanted = malloc(entry->elems * sizeof *wanted);
        struct eq_image image;
        int worst = 0;
        IO_OK(eq_tensors_read_i64(golden, entry->name, wanted, entry->elems));
        IO_OK(eq_image_load(golden_path(entry->name), &image));
        ck_assert_msg(image.height == entry->dims[0] && image.width == entry->dims[1], "%s: %d x %d", entry->name, image.width,
                      image.height);
        for (size_t j = 0; j < entry->elems; j++) {
            int off = abs((int)wanted[j] - image.pixels[j]);
            worst = off > worst ? off : worst;
        }
        ck_assert_msg(worst <= (is_jpeg(entry->name) ? 1 : 0), "%s: off by %d", entry->name, worst);
        num_exact += worst == 0;
        eq_image_free(&image);
        free(wanted);
    }
    ck_assert_uint_ge(num_exact, 21); // the PNGs
    eq_tensors_close(&golden);
}
END_TEST

// All eight orientations show the same picture, so their files differ from the first one's pixels by its turns only.
START_TEST(orientations)
{
    struct eq_image first;
    IO_OK(eq_image_load(golden_path("exif1.jpg"), &first));
    ck_assert(first.width == 21 && first.height == 13);
    for (int orientation = 2; orientation <= 8; orientation++) {
        char name[32];
        struct eq_image turned;
        snprintf(name, sizeof name, "exif%d.jpg", orientation);
        IO_OK(eq_image_load(golden_path(name), &turned));
        bool is_swapped = orientation >= 5;
        ck_assert(turned.width == (is_swapped ? 13 : 21) && turned.height == (is_swapped ? 21 : 13));
        for (int y = 0; y < 13; y++)
            for (int x = 0; x < 21; x++) {
                int flip_x = 20 - x, flip_y = 12 - y, ty, tx; // where the stored pixel (y, x) must be shown
                switch (orientation) {
                case 2: ty = y, tx = flip_x; break;
                case 3: ty = flip_y, tx = flip_x; break;
                case 4: ty = flip_y, tx = x; break;
                case 5: ty = x, tx = y; break;
                case 6: ty = x, tx = flip_y; break;
                case 7: ty = flip_x, tx = flip_y; break;
                default: ty = flip_x, tx = y; break;
                }
                ck_assert_msg(memcmp(first.pixels + 3 * (y * 21 + x), turned.pixels + 3 * (ty * turned.width + tx), 3) == 0,
                              "orientation %d at (%d, %d)", orientation, y, x);
            }
        eq_image_free(&turned);
    }
    eq_image_free(&first);
}
END_TEST

START_TEST(exif_blocks)
{
    unsigned char block[] = { 'M', 'M', 0, 42, 0, 0, 0,  8, 0, 2, 1, 0, 0, 3, 0, 0, 0,
                              1,   0,   9, 0,  0, 1, 18, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0 };
    ck_assert_int_eq(eq_exif_orientation(block, sizeof block), 6);
    for (size_t bytes = 0; bytes < sizeof block; bytes++) { // each in memory of its own, for the sanitizers
        unsigned char *cut = malloc(bytes ? bytes : 1);
        memcpy(cut, block, bytes);
        ck_assert_int_eq(eq_exif_orientation(cut, bytes), 1);
        free(cut);
    }
    block[31] = 9;
    ck_assert_int_eq(eq_exif_orientation(block, sizeof block), 1);
    block[31] = 0;
    ck_assert_int_eq(eq_exif_orientation(block, sizeof block), 1);
    block[4] = 0xff; // the directory lies far outside
    ck_assert_int_eq(eq_exif_orientation(block, sizeof block), 1);
    block[4] = 0, block[8] = 0xff; // more entries than there are
    ck_assert_int_eq(eq_exif_orientation(block, sizeof block), 1);
}
END_TEST

// Bytes in memory of exactly their size, so that a read behind them shows under the sanitizers.
static eq_status decode_copy(const char *bytes, size_t num, struct eq_image *image)
{
    unsigned char *copy = malloc(num ? num : 1);
    memcpy(copy, bytes, num);
    const struct eq_image_source source = { "cut", copy, num };
    eq_status status = eq_image_decode(&source, image);
    free(copy);
    ck_assert(status == EQ_OK || (image->pixels == NULL && image->width == 0));
    return status;
}

// A JPEG that lacks its last byte is broken. A PNG may lack its end mark: the picture is whole.
START_TEST(cut_files)
{
    struct eq_tensors *golden = open_golden();
    for (size_t i = 0; i < eq_tensors_num(golden); i++) {
        const char *name = eq_tensors_at(golden, i)->name;
        size_t num, may_lack = is_jpeg(name) ? 0 : 12 + 4;
        char *bytes;
        struct eq_image image;
        IO_OK(eq_file_read(golden_path(name), 1 << 20, &bytes, &num));
        for (size_t length = 0; length < num - may_lack; length++) {
            eq_status status = decode_copy(bytes, length, &image);
            ck_assert_msg(status == EQ_ERR_FORMAT, "%s cut to %zu of %zu bytes: %s", name, length, num, eq_status_name(status));
            ck_assert(strstr(eq_last_error(), "cut: ") == eq_last_error());
        }
        free(bytes);
    }
    eq_tensors_close(&golden);
}
END_TEST

// Bytes overwritten here and there: any result but a crash.
START_TEST(damaged_files)
{
    struct eq_tensors *golden = open_golden();
    size_t num_broken = 0;
    for (size_t i = 0; i < eq_tensors_num(golden); i++) {
        const char *name = eq_tensors_at(golden, i)->name;
        uint64_t key = eq_random_key(1, 0, i, "damage");
        size_t num;
        char *bytes;
        struct eq_image image;
        IO_OK(eq_file_read(golden_path(name), 1 << 20, &bytes, &num));
        for (uint64_t j = 0; j < 300; j++) {
            size_t at = eq_random_bits(key, 2 * j) % num;
            char held = bytes[at];
            bytes[at] = (char)eq_random_bits(key, 2 * j + 1);
            eq_status status = decode_copy(bytes, num, &image);
            ck_assert_msg(status == EQ_OK || status == EQ_ERR_FORMAT || status == EQ_ERR_UNSUPPORTED, "%s byte %zu: %s", name,
                          at, eq_last_error());
            num_broken += status != EQ_OK;
            eq_image_free(&image);
            bytes[at] = held;
        }
        free(bytes);
    }
    ck_assert_uint_gt(num_broken, 1000);
    eq_tensors_close(&golden);
}
END_TEST

static void put_u32(unsigned char *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (unsigned char)(value >> (24 - 8 * i));
}

// Sizes in a header that no memory could hold are refused before anything is allocated.
START_TEST(huge_sizes)
{
    unsigned char png[8 + 25 + 12] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n', 0, 0, 0, 13, 'I', 'H', 'D', 'R' };
    static const struct {
        uint32_t width, height;
        eq_status status;
        const char *part;
    } sizes[] = { { 65535, 65535, EQ_ERR_UNSUPPORTED, "65535 x 65535 pixels" },
                  { 8193, 8192, EQ_ERR_UNSUPPORTED, "67108864 in all" },
                  { 65536, 1, EQ_ERR_UNSUPPORTED, "65535" },
                  { 0x7fffffff, 0x7fffffff, EQ_ERR_UNSUPPORTED, "65535" },
                  { 0, 1, EQ_ERR_FORMAT, "PNG" } };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct eq_image image;
        put_u32(png + 16, sizes[i].width);
        put_u32(png + 20, sizes[i].height);
        png[24] = 8, png[25] = 2, png[26] = png[27] = png[28] = 0;
        uint32_t crc = 0xffffffffu;
        for (int j = 12; j < 29; j++) {
            crc ^= png[j];
            for (int bit = 0; bit < 8; bit++)
                crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
        }
        put_u32(png + 29, ~crc);
        const struct eq_image_source source = { "huge.png", png, sizeof png };
        IO_FAILS(eq_image_decode(&source, &image), sizes[i].status, sizes[i].part);
        ck_assert(strstr(eq_last_error(), "huge.png") != NULL);
    }
    char *bytes;
    size_t num;
    struct eq_image image;
    IO_OK(eq_file_read(golden_path("grey.jpg"), 1 << 20, &bytes, &num));
    for (size_t i = 0; i + 9 < num; i++)
        if ((unsigned char)bytes[i] == 0xff && (unsigned char)bytes[i + 1] == 0xc0)
            memset(bytes + i + 5, 0xff, 4);
    const struct eq_image_source source = { "huge.jpg", (unsigned char *)bytes, num };
    eq_status status = eq_image_decode(&source, &image);
    ck_assert_msg(status == EQ_ERR_UNSUPPORTED || status == EQ_ERR_FORMAT, "%s", eq_status_name(status));
    ck_assert(strstr(eq_last_error(), "huge.jpg") != NULL);
    free(bytes);
}
END_TEST

START_TEST(not_images)
{
    struct eq_image image = { .width = 7 };
    IO_FAILS(eq_image_load(io_path("none.jpg"), &image), EQ_ERR_IO, "No such file");
    ck_assert(image.pixels == NULL && image.width == 0);
    io_write(io_path("text.jpg"), "hello, this is text", 19);
    IO_FAILS(eq_image_load(io_path("text.jpg"), &image), EQ_ERR_FORMAT, "neither a JPEG nor a PNG image (19 bytes)");
    io_write(io_path("empty.png"), "", 0);
    IO_FAILS(eq_image_load(io_path("empty.png"), &image), EQ_ERR_FORMAT, "empty.png: neither");
    IO_FAILS(eq_image_load(io_folder, &image), EQ_ERR_IO, io_folder);
}
END_TEST

// A JPEG that is called .png is decoded all the same.
START_TEST(wrong_name)
{
    char *bytes;
    size_t num;
    struct eq_image image;
    IO_OK(eq_file_read(golden_path("grey.jpg"), 1 << 20, &bytes, &num));
    io_write(io_path("grey.png"), bytes, num);
    IO_OK(eq_image_load(io_path("grey.png"), &image));
    ck_assert_int_eq(image.width, 21);
    eq_image_free(&image);
    free(bytes);
}
END_TEST

START_TEST(png_round_trip)
{
    uint8_t pixels[7 * 5 * 3];
    struct eq_image image = { pixels, 7, 5 }, read;
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(i * 37);
    IO_OK(eq_image_save_png(io_path("round.png"), &image));
    IO_OK(eq_image_load(io_path("round.png"), &read));
    ck_assert(read.height == 7 && read.width == 5);
    ck_assert_mem_eq(read.pixels, pixels, sizeof pixels);
    eq_image_free(&read);
    image.width = 0;
    IO_FAILS(eq_image_save_png(io_path("none.png"), &image), EQ_ERR_ARGUMENT, "0 x 7");
    image.width = 5;
    IO_FAILS(eq_image_save_png(io_path("no/folder.png"), &image), EQ_ERR_IO, "no/folder.png");
}
END_TEST

START_TEST(lists)
{
    char **paths;
    size_t num;
    IO_OK(eq_dir_make(io_path("list/folder.png")));
    IO_FAILS(eq_image_list(io_path("list"), &paths, &num), EQ_ERR_NOT_FOUND, "no .jpg, .jpeg or .png file");
    io_write(io_path("list/b.JPEG"), "", 0);
    io_write(io_path("list/a.png"), "", 0);
    io_write(io_path("list/.hidden.png"), "", 0);
    io_write(io_path("list/notes.txt"), "", 0);
    IO_OK(eq_image_list(io_path("list"), &paths, &num));
    ck_assert_uint_eq(num, 2);
    ck_assert(eq_str_ends(paths[0], "list/a.png") && eq_str_ends(paths[1], "list/b.JPEG"));
    eq_image_list_free(paths, num);
    IO_OK(eq_image_list(io_path("list/notes.txt"), &paths, &num));
    ck_assert_uint_eq(num, 1);
    eq_image_list_free(paths, num);
    IO_FAILS(eq_image_list(io_path("nowhere"), &paths, &num), EQ_ERR_IO, "No such file");
}
END_TEST

IO_TEST_MAIN("image_file", pixels, orientations, exif_blocks, cut_files, damaged_files, huge_sizes, not_images, wrong_name,
             png_round_trip, lists)

// Image files: which decoder, orientation, lists of files.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "io/image_file.h"

static unsigned read_u16(const unsigned char *at, bool is_big)
{
    return is_big ? (unsigned)at[0] << 8 | at[1] : (unsigned)at[1] << 8 | at[0];
}

static uint32_t read_u32(const unsigned char *at, bool is_big)
{
    uint32_t first = read_u16(at, is_big), second = read_u16(at + 2, is_big);
    return is_big ? first << 16 | second : second << 16 | first;
}

int eq_exif_orientation(const unsigned char *tiff, size_t bytes)
{
    enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, ENTRY_BYTES = 12 };
    if (bytes < 8 || (memcmp(tiff, "II*\0", 4) != 0 && memcmp(tiff, "MM\0*", 4) != 0))
        return 1;
    bool is_big = tiff[0] == 'M';
    size_t at = read_u32(tiff + 4, is_big);
    if (at > bytes - 2)
        return 1;
    unsigned num = read_u16(tiff + at, is_big);
    at += 2;
    for (unsigned i = 0; i < num && bytes - at >= ENTRY_BYTES; i++, at += ENTRY_BYTES) {
        if (read_u16(tiff + at, is_big) != TAG_ORIENTATION)
            continue;
        unsigned value = read_u16(tiff + at + 8, is_big);
        return read_u16(tiff + at + 2, is_big) == TYPE_SHORT && value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 1;
}

// Turns a stored image upright. Orientation bit by bit: 2, 4, 5, 7 are mirrored; 5 to 8 swap the sides.
static eq_status turn(const char *name, struct eq_image *image, int orientation)
{
    static const struct {
        bool is_swapped, flip_y, flip_x; // upright(y, x) = stored(y', x'): swapped first, then flipped within the stored image
    } ways[9] = {
        [2] = { false, false, true }, [3] = { false, true, true }, [4] = { false, true, false }, [5] = { true, false, false },
        [6] = { true, true, false },  [7] = { true, true, true },  [8] = { true, false, true }
    };
    if (orientation <= 1)
        return EQ_OK;
    struct eq_image turned;
    bool is_swapped = ways[orientation].is_swapped;
    int sh = image->height, sw = image->width;
    EQ_TRY(eq_image_make(name, (uint64_t)(is_swapped ? sw : sh), (uint64_t)(is_swapped ? sh : sw), &turned));
    uint8_t *to = turned.pixels;
    for (int y = 0; y < turned.height; y++)
        for (int x = 0; x < turned.width; x++, to += 3) {
            int sy = is_swapped ? x : y, sx = is_swapped ? y : x;
            sy = ways[orientation].flip_y ? sh - 1 - sy : sy;
            sx = ways[orientation].flip_x ? sw - 1 - sx : sx;
            memcpy(to, image->pixels + ((size_t)sy * (size_t)sw + (size_t)sx) * 3, 3);
        }
    eq_image_free(image);
    *image = turned;
    return EQ_OK;
}

eq_status eq_image_make(const char *name, uint64_t height, uint64_t width, struct eq_image *image)
{
    EQ_REQUIRE(height >= 1 && width >= 1, EQ_ERR_FORMAT, "%s: an image of %llu x %llu pixels", name, (unsigned long long)width,
               (unsigned long long)height);
    EQ_REQUIRE(height <= EQ_IMAGE_MAX_SIDE && width <= EQ_IMAGE_MAX_SIDE && height * width <= EQ_IMAGE_MAX_PIXELS,
               EQ_ERR_UNSUPPORTED, "%s: %llu x %llu pixels; at most %d on a side and %u in all are read", name,
               (unsigned long long)width, (unsigned long long)height, EQ_IMAGE_MAX_SIDE, EQ_IMAGE_MAX_PIXELS);
    uint8_t *pixels = eq_malloc((size_t)(height * width), 3);
    if (!pixels)
        return EQ_ERR_HOST_MEMORY;
    *image = (struct eq_image){ .pixels = pixels, .height = (int)height, .width = (int)width };
    return EQ_OK;
}

eq_status eq_image_decode(const struct eq_image_source *source, struct eq_image *image)
{
    static const unsigned char jpeg_magic[] = { 0xff, 0xd8, 0xff },
                               png_magic[] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' };
    *image = (struct eq_image){ 0 };
    eq_status status;
    int orientation = 1;
    if (source->num_bytes >= sizeof jpeg_magic && memcmp(source->bytes, jpeg_magic, sizeof jpeg_magic) == 0)
        status = eq_image_decode_jpeg(source, image, &orientation);
    else if (source->num_bytes >= sizeof png_magic && memcmp(source->bytes, png_magic, sizeof png_magic) == 0)
        status = eq_image_decode_png(source, image, &orientation);
    else
        status = eq_fail(EQ_ERR_FORMAT, "%s: neither a JPEG nor a PNG image (%zu bytes)", source->name, source->num_bytes);
    if (status == EQ_OK)
        status = turn(source->name, image, orientation);
    if (status != EQ_OK)
        eq_image_free(image);
    return status;
}

eq_status eq_image_load(const char *path, struct eq_image *image)
{
    char *bytes;
    struct eq_image_source source = { .name = path };
    *image = (struct eq_image){ 0 };
    EQ_TRY(eq_file_read(path, EQ_IMAGE_MAX_FILE_BYTES, &bytes, &source.num_bytes));
    source.bytes = (const unsigned char *)bytes;
    eq_status status = eq_image_decode(&source, image);
    free(bytes);
    return status;
}

void eq_image_free(struct eq_image *image)
{
    free(image->pixels);
    *image = (struct eq_image){ 0 };
}

bool eq_image_has_name(const char *path)
{
    const char *end = strrchr(path, '.');
    return end && (strcasecmp(end, ".jpg") == 0 || strcasecmp(end, ".jpeg") == 0 || strcasecmp(end, ".png") == 0);
}

static eq_status list_folder(const char *path, char **names, size_t num_names, char ***paths, size_t *num)
{
    char **list;
    size_t count = 0;
    EQ_ALLOC(list, num_names);
    for (size_t i = 0; i < num_names; i++) {
        if (names[i][0] == '.' || !eq_image_has_name(names[i]))
            continue;
        if (!(list[count] = eq_path_join(path, names[i]))) {
            eq_names_free(list, count);
            return EQ_ERR_HOST_MEMORY;
        }
        struct stat info;
        if (stat(list[count], &info) == 0 && S_ISDIR(info.st_mode))
            free(list[count]);
        else
            count++;
    }
    if (count == 0) {
        free(list);
        return eq_fail(EQ_ERR_NOT_FOUND, "%s: no .jpg, .jpeg or .png file in this folder", path);
    }
    *paths = list;
    *num = count;
    return EQ_OK;
}

eq_status eq_image_list(const char *path, char ***paths, size_t *num)
{
    struct stat info;
    *paths = NULL;
    *num = 0;
    EQ_REQUIRE(stat(path, &info) == 0, EQ_ERR_IO, "%s: %s", path, strerror(errno));
    if (!S_ISDIR(info.st_mode)) {
        EQ_ALLOC(*paths, 1);
        if (!((*paths)[0] = eq_strdup(path))) {
            free(*paths);
            *paths = NULL;
            return EQ_ERR_HOST_MEMORY;
        }
        *num = 1;
        return EQ_OK;
    }
    char **names;
    size_t num_names;
    EQ_TRY(eq_dir_list(path, &names, &num_names));
    eq_status status = list_folder(path, names, num_names, paths, num);
    eq_names_free(names, num_names);
    return status;
}

void eq_image_list_free(char **paths, size_t num)
{
    eq_names_free(paths, num);
}

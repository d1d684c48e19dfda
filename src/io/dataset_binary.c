// Sets that come as a few binary files, read whole: CIFAR-10's binary version and IDX (MNIST and its relatives).
#include <stdlib.h>
#include <string.h>

#include "io/dataset.h"
#include "io/image_file.h"

enum { CIFAR_SIDE = 32, CIFAR_RECORD = 1 + 3 * CIFAR_SIDE * CIFAR_SIDE, CIFAR_CLASSES = 10, MAX_FILES = 5 };
static const size_t max_file_bytes = (size_t)2 << 30;

// Images of one size in memory, in the order of the files.
struct binary {
    char *data[MAX_FILES]; // contents of each file
    char names[MAX_FILES][64];
    size_t ends[MAX_FILES]; // items up to the end of each file
    int num_files;
    size_t offset, stride;       // bytes before the first image of a file, and from one image to the next
    int channels, height, width; // channels 3: planes red, green, blue; 1: grey
};

static void destroy_binary(void *state)
{
    struct binary *binary = state;
    for (int i = 0; i < binary->num_files; i++)
        free(binary->data[i]);
    free(binary);
}

static int file_of(const struct binary *binary, size_t item, size_t *within)
{
    int file = 0;
    while (item >= binary->ends[file])
        file++;
    *within = item - (file ? binary->ends[file - 1] : 0);
    return file;
}

static eq_status get_item(const struct eq_source *source, size_t item, struct eq_image *image)
{
    const struct binary *binary = source->state;
    size_t within, plane = (size_t)binary->height * (size_t)binary->width;
    int file = file_of(binary, item, &within);
    const char *from = binary->data[file] + binary->offset + within * binary->stride;
    EQ_TRY(eq_image_make(binary->names[file], (uint64_t)binary->height, (uint64_t)binary->width, image));
    for (size_t i = 0; i < plane; i++)
        for (size_t c = 0; c < 3; c++)
            image->pixels[3 * i + c] = (uint8_t)from[(binary->channels == 3 ? c * plane : 0) + i];
    return EQ_OK;
}

static void describe_item(const struct eq_source *source, size_t item, char *text, size_t bytes)
{
    size_t within;
    const struct binary *binary = source->state;
    int file = file_of(binary, item, &within);
    snprintf(text, bytes, "%s, image %zu", binary->names[file], within);
}

static eq_status make_binary(struct eq_source *source, struct binary **binary)
{
    EQ_ALLOC(*binary, 1);
    source->state = *binary;
    source->get = get_item;
    source->describe = describe_item;
    source->destroy_state = destroy_binary;
    source->has_test_part = true;
    return EQ_OK;
}

// ---- CIFAR-10

static eq_status read_cifar_file(const char *folder, const char *name, struct binary *binary, size_t *num_items)
{
    char *path = eq_path_join(folder, name);
    size_t bytes = 0;
    if (!path)
        return EQ_ERR_HOST_MEMORY;
    int file = binary->num_files;
    eq_status status = eq_file_read(path, max_file_bytes, &binary->data[file], &bytes);
    if (status == EQ_OK) {
        binary->num_files++;
        snprintf(binary->names[file], sizeof binary->names[file], "%s", name);
        if (bytes == 0 || bytes % CIFAR_RECORD != 0)
            status = eq_fail(EQ_ERR_FORMAT, "%s: %zu bytes, not a multiple of the %d of an image and its label", path, bytes,
                             CIFAR_RECORD);
        *num_items += bytes / CIFAR_RECORD;
        binary->ends[file] = *num_items;
    }
    for (size_t i = 0; status == EQ_OK && i < bytes / CIFAR_RECORD; i++) {
        unsigned label = (unsigned char)binary->data[file][i * CIFAR_RECORD];
        if (label >= CIFAR_CLASSES)
            status = eq_fail(EQ_ERR_FORMAT, "%s: image %zu has label %u of %d", path, i, label, CIFAR_CLASSES);
    }
    free(path);
    return status;
}

// Class names, one a line, where batches.meta.txt is there and has ten; the known ones otherwise.
static eq_status read_cifar_names(const char *folder, struct eq_source *source)
{
    const char *names[CIFAR_CLASSES] = { "airplane", "automobile", "bird",  "cat",  "deer",
                                         "dog",      "frog",       "horse", "ship", "truck" };
    const char *found[CIFAR_CLASSES];
    char *path = eq_path_join(folder, "batches.meta.txt"), *text = NULL, *rest;
    size_t bytes, num = 0;
    if (path && eq_file_exists(path) && eq_file_read(path, 4096, &text, &bytes) == EQ_OK)
        for (char *line = strtok_r(text, "\r\n", &rest); line && num < CIFAR_CLASSES; line = strtok_r(NULL, "\r\n", &rest))
            found[num++] = line;
    eq_status status = eq_source_set_classes(source, num == CIFAR_CLASSES ? found : names, CIFAR_CLASSES);
    free(text);
    free(path);
    return status;
}

static eq_status open_cifar(const char *folder, enum eq_part part, struct eq_source *source)
{
    struct binary *binary;
    EQ_TRY(make_binary(source, &binary));
    binary->offset = 1;
    binary->stride = CIFAR_RECORD;
    binary->channels = 3;
    binary->height = binary->width = CIFAR_SIDE;
    if (part == EQ_PART_TEST)
        EQ_TRY(read_cifar_file(folder, "test_batch.bin", binary, &source->num_items));
    for (int i = 1; part == EQ_PART_TRAIN && i <= 5; i++) {
        char name[32];
        snprintf(name, sizeof name, "data_batch_%d.bin", i);
        EQ_TRY(read_cifar_file(folder, name, binary, &source->num_items));
    }
    EQ_ALLOC(source->labels, source->num_items);
    for (size_t i = 0; i < source->num_items; i++) {
        size_t within;
        int file = file_of(binary, i, &within);
        source->labels[i] = (unsigned char)binary->data[file][within * CIFAR_RECORD];
    }
    return read_cifar_names(folder, source);
}

static eq_status has_file(const char *folder, const char *name, bool *is_there)
{
    char *path = eq_path_join(folder, name);
    if (!path)
        return EQ_ERR_HOST_MEMORY;
    *is_there = eq_file_exists(path);
    free(path);
    return EQ_OK;
}

// Not the binary version: pictures in folders, or nothing that can be read.
static eq_status open_other(const char *path, enum eq_part part, struct eq_source *source)
{
    bool has_parts = false, is_pickled = false;
    EQ_TRY(eq_folder_has_parts(path, &has_parts));
    if (has_parts)
        return eq_source_open_folder(path, part, source);
    EQ_TRY(has_file(path, "data_batch_1", &is_pickled));
    EQ_REQUIRE(!is_pickled, EQ_ERR_FORMAT,
               "%s: this is CIFAR-10's Python version; its binary version (data_batch_1.bin ...) is wanted", path);
    return eq_fail(EQ_ERR_NOT_FOUND, "%s: neither data_batch_1.bin nor train/ and test/ with a folder per class", path);
}

eq_status eq_source_open_cifar10(const char *path, enum eq_part part, struct eq_source *source)
{
    EQ_REQUIRE(eq_is_folder(path), EQ_ERR_IO, "%s: no such folder", path);
    bool has_train = false, has_test = false;
    EQ_TRY(has_file(path, "data_batch_1.bin", &has_train));
    EQ_TRY(has_file(path, "test_batch.bin", &has_test));
    if (!has_train && !has_test)
        return open_other(path, part, source);
    eq_status status = open_cifar(path, part, source);
    if (status != EQ_OK)
        eq_source_clear(source);
    return status;
}

// ---- IDX: two zero bytes, a type (8 is unsigned byte), the number of dimensions, the dimensions (big-endian), the data

static eq_status read_idx(const char *folder, const char *name, int num_dims, char **data, uint32_t dims[3])
{
    char *path = eq_path_join(folder, name);
    size_t bytes = 0, expected = 1, head = 4 + 4 * (size_t)num_dims;
    bool is_packed = false;
    struct eq_str packed_name = { 0 };
    eq_str_append(&packed_name, "%s.gz", name);
    eq_status status = path && !packed_name.failed ? has_file(folder, packed_name.text, &is_packed) : EQ_ERR_HOST_MEMORY;
    if (status == EQ_OK && is_packed && !eq_file_exists(path))
        status = eq_fail(EQ_ERR_FORMAT, "%s.gz is packed: unpack it with gunzip", path);
    else if (status == EQ_OK)
        status = eq_file_read(path, max_file_bytes, data, &bytes);
    const unsigned char *at = (const unsigned char *)*data;
    if (status == EQ_OK && (bytes < head || at[0] || at[1] || at[2] != 8 || at[3] != num_dims))
        status = eq_fail(EQ_ERR_FORMAT, "%s: not an IDX file of bytes with %d dimensions", path, num_dims);
    for (int i = 0; status == EQ_OK && i < num_dims; i++) {
        const unsigned char *dim = at + 4 + 4 * i;
        dims[i] = (uint32_t)dim[0] << 24 | (uint32_t)dim[1] << 16 | (uint32_t)dim[2] << 8 | dim[3];
        if (dims[i] == 0 || __builtin_mul_overflow(expected, (size_t)dims[i], &expected))
            status = eq_fail(EQ_ERR_FORMAT, "%s: dimension %d is %u", path, i, dims[i]);
    }
    if (status == EQ_OK && bytes - head != expected)
        status = eq_fail(EQ_ERR_FORMAT, "%s: %zu bytes of data, its dimensions ask for %zu", path, bytes - head, expected);
    eq_str_free(&packed_name);
    free(path);
    return status;
}

// Labels, and classes called "0", "1", ... up to the largest label.
static eq_status read_idx_labels(const char *folder, const char *name, struct eq_source *source)
{
    char *data = NULL, texts[256][4];
    const char *names[256];
    uint32_t dims[3];
    eq_status status = read_idx(folder, name, 1, &data, dims);
    if (status == EQ_OK && dims[0] != source->num_items)
        status = eq_fail(EQ_ERR_FORMAT, "%s/%s: %u labels for %zu images", folder, name, dims[0], source->num_items);
    if (status == EQ_OK && !(source->labels = eq_calloc(source->num_items, sizeof *source->labels)))
        status = EQ_ERR_HOST_MEMORY;
    int largest = 9; // ten classes at least: a small test part may lack the last ones
    for (size_t i = 0; status == EQ_OK && i < source->num_items; i++) {
        source->labels[i] = (unsigned char)data[8 + i];
        largest = source->labels[i] > largest ? source->labels[i] : largest;
    }
    for (int i = 0; i <= largest; i++) {
        snprintf(texts[i], sizeof texts[i], "%d", i);
        names[i] = texts[i];
    }
    if (status == EQ_OK)
        status = eq_source_set_classes(source, names, largest + 1);
    free(data);
    return status;
}

static eq_status open_idx(const char *folder, enum eq_part part, struct eq_source *source)
{
    const char *images = part == EQ_PART_TEST ? "t10k-images-idx3-ubyte" : "train-images-idx3-ubyte";
    const char *labels = part == EQ_PART_TEST ? "t10k-labels-idx1-ubyte" : "train-labels-idx1-ubyte";
    struct binary *binary;
    uint32_t dims[3];
    EQ_TRY(make_binary(source, &binary));
    eq_status status = read_idx(folder, images, 3, &binary->data[0], dims);
    binary->num_files = 1;
    EQ_TRY(status);
    EQ_REQUIRE(dims[1] <= EQ_IMAGE_MAX_SIDE && dims[2] <= EQ_IMAGE_MAX_SIDE, EQ_ERR_FORMAT, "%s/%s: images of %u x %u pixels",
               folder, images, dims[2], dims[1]);
    snprintf(binary->names[0], sizeof binary->names[0], "%s", images);
    binary->ends[0] = source->num_items = dims[0];
    binary->offset = 16;
    binary->stride = (size_t)dims[1] * dims[2];
    binary->channels = 1;
    binary->height = (int)dims[1];
    binary->width = (int)dims[2];
    return read_idx_labels(folder, labels, source);
}

eq_status eq_source_open_idx(const char *path, enum eq_part part, struct eq_source *source)
{
    EQ_REQUIRE(eq_is_folder(path), EQ_ERR_IO, "%s: no such folder", path);
    eq_status status = open_idx(path, part, source);
    if (status != EQ_OK)
        eq_source_clear(source);
    return status;
}

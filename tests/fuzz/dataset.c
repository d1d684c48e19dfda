// Sets of images: the first byte is the kind. 'f': a folder, lines are names "class/file" with bytes behind a '=' ; 'c':
// CIFAR's binary files; 'i': IDX, where the second byte is the length of the labels' file.
#include <sys/stat.h>

#include "equil/data.h"
#include "fuzz.h"

enum { MAX_NAMES = 24, MAX_ITEMS_READ = 4 };

// Class folders are "a" to "d", so that names repeat; the file's name is any bytes but '/' and the line's end.
static void make_folder(char *text)
{
    char *line = text;
    for (int i = 0; line && i < MAX_NAMES; i++) {
        char *end = strchr(line, '\n'), *content;
        if (end)
            *end++ = '\0';
        char name[300];
        snprintf(name, sizeof name, "set/%c", 'a' + (line[0] & 3));
        mkdir(fuzz_path("set"), 0700);
        mkdir(fuzz_path(name), 0700);
        content = line[0] ? strchr(line + 1, '=') : NULL;
        if (content)
            *content++ = '\0';
        if (line[0] && line[1] && !strchr(line + 1, '/') && strlen(line + 1) < 200) {
            snprintf(name, sizeof name, "set/%c/%s", 'a' + (line[0] & 3), line + 1);
            if (strcmp(line + 1, ".") != 0 && strcmp(line + 1, "..") != 0)
                fuzz_write(fuzz_path(name), content ? content : "", content ? strlen(content) : 0);
        }
        line = end;
    }
}

static void open_and_read(const char *kind)
{
    char spec[600];
    snprintf(spec, sizeof spec, "%s%s", kind, fuzz_path("set"));
    struct eq_dataset *set = NULL;
    const eq_status status = eq_dataset_open(&(struct eq_dataset_params){ .spec = spec }, &set);
    CHECK_TEXT(status);
    CHECK((status == EQ_OK) == (set != NULL));
    if (!set)
        return;
    const size_t num = eq_dataset_num_items(set);
    CHECK(num >= 1 && eq_dataset_num_classes(set) >= 2);
    for (size_t i = 0; i < num; i++)
        CHECK(eq_dataset_label(set, i) >= 0 && eq_dataset_label(set, i) < eq_dataset_num_classes(set));
    for (size_t i = 0; i < num && i < MAX_ITEMS_READ; i++) {
        struct eq_image image = { 0 };
        char text[64];
        CHECK(eq_dataset_item_name(set, i, text, sizeof text) == text && strlen(text) < sizeof text);
        CHECK_TEXT(eq_dataset_get(set, i, &image));
        eq_image_free(&image);
    }
    eq_dataset_destroy(&set);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes < 2)
        return 0;
    fuzz_path("");
    fuzz_clear();
    if (data[0] == 'f') {
        char *text = fuzz_text(data + 1, bytes - 1);
        make_folder(text);
        free(text);
        open_and_read("");
    } else if (data[0] == 'c') {
        mkdir(fuzz_path("set"), 0700);
        fuzz_write(fuzz_path("set/data_batch_1.bin"), data + 1, bytes - 1);
        fuzz_write(fuzz_path("set/batches.meta.txt"), data + 1, bytes - 1);
        open_and_read("cifar10:");
    } else if (data[0] == 'i') {
        const size_t labels = data[1] < bytes - 2 ? data[1] : bytes - 2;
        mkdir(fuzz_path("set"), 0700);
        fuzz_write(fuzz_path("set/train-labels-idx1-ubyte"), data + 2, labels);
        fuzz_write(fuzz_path("set/train-images-idx3-ubyte"), data + 2 + labels, bytes - 2 - labels);
        open_and_read("idx:");
    }
    return 0;
}

// Image folders: DIR/CLASS/*.jpg, or DIR/train/CLASS/*.jpg beside DIR/val or DIR/test. Only names are read when the set is
// opened.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/dataset.h"

struct folder {
    char *root;   // the folder that has the class folders
    char **files; // [num_items] "CLASS/FILE"
    size_t num, capacity;
};

static void destroy_folder(void *state)
{
    struct folder *folder = state;
    eq_names_free(folder->files, folder->num);
    free(folder->root);
    free(folder);
}

static eq_status get_item(const struct eq_source *source, size_t item, struct eq_image *image)
{
    const struct folder *folder = source->state;
    char *path = eq_path_join(folder->root, folder->files[item]);
    if (!path)
        return EQ_ERR_HOST_MEMORY;
    eq_status status = eq_image_load(path, image);
    free(path);
    return status;
}

static void describe_item(const struct eq_source *source, size_t item, char *text, size_t bytes)
{
    const struct folder *folder = source->state;
    snprintf(text, bytes, "%s/%s", folder->root, folder->files[item]);
}

bool eq_is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static eq_status has_folder(const char *path, const char *name, bool *is_there)
{
    char *joined = eq_path_join(path, name);
    if (!joined)
        return EQ_ERR_HOST_MEMORY;
    *is_there = eq_is_folder(joined);
    free(joined);
    return EQ_OK;
}

// Keeps the names of the folders in a list of entries, in place; the others are freed. *num_images counts image files among
// them. After a failure the list is shorter than it should be, and still to be freed.
static eq_status keep_folders(const char *path, char **names, size_t *num, size_t *num_images)
{
    eq_status status = EQ_OK;
    size_t kept = 0;
    *num_images = 0;
    for (size_t i = 0; i < *num; i++) {
        bool is_folder = false;
        if (names[i][0] != '.' && status == EQ_OK)
            status = has_folder(path, names[i], &is_folder);
        if (is_folder) {
            names[kept++] = names[i];
            continue;
        }
        *num_images += eq_image_has_name(names[i]) ? 1 : 0;
        free(names[i]);
    }
    *num = kept;
    return status;
}

static eq_status list_folders(const char *path, char ***names, size_t *num)
{
    size_t num_images;
    EQ_TRY(eq_dir_list(path, names, num));
    return keep_folders(path, *names, num, &num_images);
}

eq_status eq_folder_has_parts(const char *path, bool *has_parts)
{
    bool has_train = false, has_val = false, has_test = false;
    char **names = NULL;
    size_t num = 0;
    *has_parts = false;
    EQ_TRY(has_folder(path, "train", &has_train));
    EQ_TRY(has_folder(path, "val", &has_val));
    EQ_TRY(has_folder(path, "test", &has_test));
    if (!has_train || !(has_val || has_test))
        return EQ_OK;
    char *train = eq_path_join(path, "train");
    eq_status status = train ? list_folders(train, &names, &num) : EQ_ERR_HOST_MEMORY;
    *has_parts = num > 0;
    eq_names_free(names, num);
    free(train);
    return status;
}

static eq_status list_classes(const char *path, struct eq_source *source)
{
    struct stat info;
    EQ_REQUIRE(stat(path, &info) == 0, EQ_ERR_IO, "%s: %s", path, strerror(errno));
    EQ_REQUIRE(S_ISDIR(info.st_mode), EQ_ERR_IO, "%s: a file; a data set is a folder with one folder of images per class",
               path);
    char **names = NULL;
    size_t num = 0, num_images;
    EQ_TRY(eq_dir_list(path, &names, &num));
    bool is_empty = num == 0;
    const eq_status status = keep_folders(path, names, &num, &num_images);
    if (status != EQ_OK) {
        eq_names_free(names, num);
        return status;
    }
    if (num > 0) {
        source->class_names = names;
        source->num_classes = (int)num;
        return EQ_OK;
    }
    free(names);
    EQ_REQUIRE(!is_empty, EQ_ERR_NOT_FOUND, "%s: the folder is empty", path);
    return eq_fail(EQ_ERR_NOT_FOUND, "%s: no folders in it (%zu image files); a data set has one folder of images per class",
                   path, num_images);
}

static eq_status add_file(struct folder *folder, const char *class_name, const char *file)
{
    if (folder->num == folder->capacity) {
        size_t grown = folder->capacity ? 2 * folder->capacity : 256;
        char **files = realloc(folder->files, grown * sizeof *files);
        EQ_REQUIRE(files, EQ_ERR_HOST_MEMORY, "%s: out of memory after %zu file names", folder->root, folder->num);
        folder->files = files;
        folder->capacity = grown;
    }
    folder->files[folder->num] = eq_path_join(class_name, file);
    if (!folder->files[folder->num])
        return EQ_ERR_HOST_MEMORY;
    folder->num++;
    return EQ_OK;
}

static eq_status add_class(struct folder *folder, const char *class_name)
{
    char *path = eq_path_join(folder->root, class_name), **names = NULL;
    size_t num = 0, before = folder->num, num_images;
    if (!path)
        return EQ_ERR_HOST_MEMORY;
    eq_status status = eq_dir_list(path, &names, &num);
    for (size_t i = 0; status == EQ_OK && i < num; i++)
        if (names[i][0] != '.' && eq_image_has_name(names[i]))
            status = add_file(folder, class_name, names[i]);
    const bool has_none = status == EQ_OK && folder->num == before;
    if (has_none)
        status = keep_folders(path, names, &num, &num_images);
    if (has_none && status == EQ_OK)
        status = eq_fail(EQ_ERR_NOT_FOUND, "%s: no .jpg, .jpeg or .png file%s", path,
                         num ? ", only folders; is the data set one level below?" : "");
    eq_names_free(names, num);
    free(path);
    return status;
}

// Label of each file, by the list of classes of the set: the test part may lack classes, but has no others.
static eq_status open_items(const char *root, struct eq_source *source)
{
    struct eq_source here = { 0 };
    struct folder *folder = source->state;
    if (!(folder->root = eq_strdup(root)))
        return EQ_ERR_HOST_MEMORY;
    eq_status status = list_classes(root, &here);
    size_t *ends = NULL; // [here.num_classes] number of files up to the end of each class
    if (status == EQ_OK && !(ends = eq_calloc((size_t)here.num_classes, sizeof *ends)))
        status = EQ_ERR_HOST_MEMORY;
    for (int i = 0; status == EQ_OK && i < here.num_classes; i++) {
        status = add_class(folder, here.class_names[i]);
        ends[i] = folder->num;
    }
    source->num_items = folder->num;
    if (status == EQ_OK && !(source->labels = eq_calloc(folder->num, sizeof *source->labels)))
        status = EQ_ERR_HOST_MEMORY;
    size_t item = 0;
    for (int i = 0; status == EQ_OK && i < here.num_classes; i++) {
        int label = 0;
        while (label < source->num_classes && strcmp(source->class_names[label], here.class_names[i]) != 0)
            label++;
        if (label == source->num_classes)
            status = eq_fail(EQ_ERR_FORMAT, "%s: class %s is not in the training part", root, here.class_names[i]);
        while (item < ends[i])
            source->labels[item++] = label;
    }
    free(ends);
    eq_source_clear(&here);
    return status;
}

static eq_status open_paths(const char *classes_at, const char *items_at, struct eq_source *source)
{
    struct folder *folder;
    if (!classes_at || !items_at)
        return EQ_ERR_HOST_MEMORY;
    EQ_ALLOC(folder, 1);
    source->state = folder;
    source->get = get_item;
    source->describe = describe_item;
    source->destroy_state = destroy_folder;
    EQ_TRY(list_classes(classes_at, source));
    return open_items(items_at, source);
}

static eq_status open_parts(const char *path, enum eq_part part, struct eq_source *source)
{
    EQ_TRY(eq_folder_has_parts(path, &source->has_test_part));
    if (!source->has_test_part)
        return open_paths(path, path, source);
    bool has_val = false;
    EQ_TRY(has_folder(path, "val", &has_val));
    char *train = eq_path_join(path, "train"), *test = eq_path_join(path, has_val ? "val" : "test");
    eq_status status = open_paths(train, part == EQ_PART_TEST ? test : train, source);
    free(train);
    free(test);
    return status;
}

eq_status eq_source_open_folder(const char *path, enum eq_part part, struct eq_source *source)
{
    eq_status status = open_parts(path, part, source);
    if (status != EQ_OK)
        eq_source_clear(source);
    return status;
}

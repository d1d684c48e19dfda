// Sources of labelled images behind eq_dataset_open(): one file a kind, each fills a struct eq_source.
#ifndef EQ_IO_DATASET_H
#define EQ_IO_DATASET_H

#include "base/base.h"
#include "equil/data.h"

// One part (training or test) of a set, as it lies there: without held-out items and without a list of classes from outside.
struct eq_source {
    size_t num_items;
    int *labels; // [num_items]
    int num_classes;
    char **class_names; // [num_classes]
    bool has_test_part;
    void *state; // the kind's own
    // Thread-safe: they only read `state`.
    eq_status (*get)(const struct eq_source *source, size_t item, struct eq_image *image);
    void (*describe)(const struct eq_source *source, size_t item, char *text, size_t bytes);
    void (*destroy_state)(void *state); // not called with NULL
};

// Which part to open. A kind without parts gives everything for both.
enum eq_part { EQ_PART_TRAIN, EQ_PART_TEST };

// Each fills a zeroed source; eq_source_clear() frees it, after a failure as well.
eq_status eq_source_open_folder(const char *path, enum eq_part part, struct eq_source *source);
eq_status eq_source_open_cifar10(const char *path, enum eq_part part, struct eq_source *source);
eq_status eq_source_open_idx(const char *path, enum eq_part part, struct eq_source *source);
eq_status eq_source_open_shapes(uint64_t seed, int size, enum eq_part part, struct eq_source *source);
void eq_source_clear(struct eq_source *source);

// Copies a list of names into source->class_names. EQ_ERR_HOST_MEMORY.
eq_status eq_source_set_classes(struct eq_source *source, const char *const *names, int num);

// A set of single images, whose labels are their numbers: that is how results are told apart. It has no classes. The items are
// kept, and the sets they name. Errors: EQ_ERR_ARGUMENT (none, more than INT_MAX, one without a path and a set),
// EQ_ERR_HOST_MEMORY.
eq_status eq_dataset_of_images(const struct eq_image_item *items, size_t num, struct eq_dataset **dataset);

bool eq_is_folder(const char *path);
// A folder that holds train/ (with folders in it) and val/ or test/.
eq_status eq_folder_has_parts(const char *path, bool *has_parts);

#endif

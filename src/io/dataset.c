// Labelled image sets: spec, parts, the held-out tenth, lists of classes from outside.
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/dataset.h"
#include "io/shapes.h"

struct eq_dataset {
    struct eq_source source;
    size_t num_items;
    size_t *subset;     // [num_items] items of the source, ascending; NULL: all of them
    int num_classes;    // those of the source, or the list from outside
    char **class_names; // [num_classes]; the source's own array when there is no list from outside
    int *label_map;     // [source.num_classes] NULL: the source's labels
};

void eq_source_clear(struct eq_source *source)
{
    if (source->state)
        source->destroy_state(source->state);
    eq_names_free(source->class_names, (size_t)source->num_classes);
    free(source->labels);
    *source = (struct eq_source){ 0 };
}

static eq_status copy_names(const char *const *names, int num, char ***copies)
{
    EQ_ALLOC(*copies, num);
    for (int i = 0; i < num; i++)
        if (!((*copies)[i] = eq_strdup(names[i]))) {
            eq_names_free(*copies, (size_t)i);
            *copies = NULL;
            return EQ_ERR_HOST_MEMORY;
        }
    return EQ_OK;
}

eq_status eq_source_set_classes(struct eq_source *source, const char *const *names, int num)
{
    EQ_TRY(copy_names(names, num, &source->class_names));
    source->num_classes = num;
    return EQ_OK;
}

static eq_status open_shapes(const struct eq_dataset_params *params, enum eq_part part, struct eq_source *source)
{
    uint64_t seed = 0;
    int size = params->size ? params->size : EQ_SHAPES_SIZE;
    if (params->spec[6] == ':') {
        char *end;
        errno = 0;
        seed = strtoull(params->spec + 7, &end, 10);
        EQ_REQUIRE(params->spec[7] >= '0' && params->spec[7] <= '9' && !*end, EQ_ERR_ARGUMENT, "%s: the seed is not a number",
                   params->spec);
        EQ_REQUIRE(errno != ERANGE, EQ_ERR_ARGUMENT, "%s: the seed is above %llu", params->spec,
                   (unsigned long long)UINT64_MAX);
    }
    EQ_REQUIRE(size >= EQ_SHAPES_MIN_SIZE && size <= EQ_SHAPES_MAX_SIZE, EQ_ERR_ARGUMENT,
               "shapes of %d pixels: %d to %d are possible", size, EQ_SHAPES_MIN_SIZE, EQ_SHAPES_MAX_SIZE);
    return eq_source_open_shapes(seed, size, part, source);
}

static eq_status open_source(const struct eq_dataset_params *params, struct eq_source *source)
{
    const char *spec = params->spec;
    EQ_REQUIRE(spec && *spec, EQ_ERR_ARGUMENT, "no data set was named");
    enum eq_part part = params->split == EQ_SPLIT_TEST ? EQ_PART_TEST : EQ_PART_TRAIN;
    EQ_REQUIRE(strcmp(spec, "cifar10:") != 0 && strcmp(spec, "idx:") != 0, EQ_ERR_ARGUMENT,
               "%s names no folder: %sDIR is needed", spec, spec);
    if (eq_str_starts(spec, "cifar10:"))
        return eq_source_open_cifar10(spec + strlen("cifar10:"), part, source);
    if (eq_str_starts(spec, "idx:"))
        return eq_source_open_idx(spec + strlen("idx:"), part, source);
    if (strcmp(spec, "shapes") == 0 || eq_str_starts(spec, "shapes:"))
        return open_shapes(params, part, source);
    return eq_source_open_folder(spec, part, source);
}

// Chooses the items of the split: a seeded permutation of all, whose first tenth is held out.
static eq_status split_items(const struct eq_dataset_params *params, struct eq_dataset *set)
{
    size_t num = set->source.num_items, num_held = num / 10 ? num / 10 : 1, *order;
    set->num_items = num;
    if (params->split != EQ_SPLIT_FIT && params->split != EQ_SPLIT_HELD_OUT)
        return EQ_OK;
    EQ_REQUIRE(num >= 2, EQ_ERR_ARGUMENT, "%s: %zu images cannot be split", params->spec, num);
    bool *is_held, is_wanted = params->split == EQ_SPLIT_HELD_OUT;
    EQ_ALLOC(set->subset, num);
    EQ_ALLOC(order, num);
    if (!(is_held = eq_calloc(num, sizeof *is_held))) {
        free(order);
        return EQ_ERR_HOST_MEMORY;
    }
    eq_random_permutation(eq_random_key(params->seed, 0, 0, "held-out"), order, num);
    for (size_t i = 0; i < num_held; i++)
        is_held[order[i]] = true;
    set->num_items = 0;
    for (size_t i = 0; i < num; i++)
        if (is_held[i] == is_wanted)
            set->subset[set->num_items++] = i;
    free(order);
    free(is_held);
    return EQ_OK;
}

static eq_status map_classes(const struct eq_dataset_params *params, struct eq_dataset *set)
{
    const struct eq_source *source = &set->source;
    set->num_classes = source->num_classes;
    set->class_names = source->class_names;
    if (!params->class_names) {
        EQ_REQUIRE(source->num_classes >= 2, EQ_ERR_ARGUMENT, "%s: only one class (%s); at least two are needed to tell apart",
                   params->spec, source->class_names[0]);
        return EQ_OK;
    }
    EQ_REQUIRE(params->num_classes >= 2, EQ_ERR_ARGUMENT, "a list of %d classes; at least two are needed", params->num_classes);
    EQ_ALLOC(set->label_map, source->num_classes);
    set->class_names = NULL;
    EQ_TRY(copy_names(params->class_names, params->num_classes, &set->class_names));
    set->num_classes = params->num_classes;
    for (int i = 0; i < source->num_classes; i++) {
        int label = 0;
        while (label < set->num_classes && strcmp(set->class_names[label], source->class_names[i]) != 0)
            label++;
        EQ_REQUIRE(label < set->num_classes, EQ_ERR_ARGUMENT, "%s: class %s is not among the %d known ones (%s, ...)",
                   params->spec, source->class_names[i], set->num_classes, set->class_names[0]);
        set->label_map[i] = label;
    }
    return EQ_OK;
}

static size_t source_item(const struct eq_dataset *dataset, size_t item)
{
    return dataset->subset ? dataset->subset[item] : item;
}

eq_status eq_dataset_open(const struct eq_dataset_params *params, struct eq_dataset **dataset)
{
    *dataset = NULL;
    struct eq_dataset *set;
    EQ_REQUIRE((unsigned)params->split <= EQ_SPLIT_HELD_OUT, EQ_ERR_ARGUMENT, "split %d is none", (int)params->split);
    EQ_ALLOC(set, 1);
    eq_status status = open_source(params, &set->source);
    if (status == EQ_OK)
        status = split_items(params, set);
    if (status == EQ_OK)
        status = map_classes(params, set);
    if (status != EQ_OK)
        eq_dataset_destroy(&set);
    *dataset = set;
    return status;
}

// The state of a set of single images.
struct images {
    const struct eq_image_item *items; // the caller's
};

static const struct eq_image_item *image_item(const struct eq_source *source, size_t item)
{
    return ((const struct images *)source->state)->items + item;
}

static eq_status get_image(const struct eq_source *source, size_t item, struct eq_image *image)
{
    const struct eq_image_item *from = image_item(source, item);
    return from->path ? eq_image_load(from->path, image) : eq_dataset_get(from->dataset, from->item, image);
}

static void describe_image(const struct eq_source *source, size_t item, char *text, size_t bytes)
{
    const struct eq_image_item *from = image_item(source, item);
    if (from->path)
        snprintf(text, bytes, "%s", from->path);
    else
        eq_dataset_item_name(from->dataset, from->item, text, bytes);
}

static eq_status fill_images(const struct eq_image_item *items, size_t num, struct eq_dataset *set)
{
    struct images *images;
    EQ_ALLOC(images, 1);
    images->items = items;
    set->num_items = num;
    set->source = (struct eq_source){ .num_items = num, .state = images, .get = get_image, .describe = describe_image,
                                      .destroy_state = free };
    EQ_ALLOC(set->source.labels, num);
    for (size_t i = 0; i < num; i++) {
        EQ_REQUIRE(items[i].path || items[i].dataset, EQ_ERR_ARGUMENT, "image %zu of %zu has neither a path nor a data set", i,
                   num);
        set->source.labels[i] = (int)i;
    }
    return EQ_OK;
}

eq_status eq_dataset_of_images(const struct eq_image_item *items, size_t num, struct eq_dataset **dataset)
{
    *dataset = NULL;
    struct eq_dataset *set;
    EQ_REQUIRE(num >= 1 && num <= INT_MAX, EQ_ERR_ARGUMENT, "%zu images: 1 to %d are possible", num, INT_MAX);
    EQ_ALLOC(set, 1);
    const eq_status status = fill_images(items, num, set);
    if (status != EQ_OK)
        eq_dataset_destroy(&set);
    *dataset = set;
    return status;
}

void eq_dataset_destroy(struct eq_dataset **dataset)
{
    struct eq_dataset *set = *dataset;
    if (!set)
        return;
    if (set->class_names && set->class_names != set->source.class_names)
        eq_names_free(set->class_names, (size_t)set->num_classes);
    free(set->label_map);
    free(set->subset);
    eq_source_clear(&set->source);
    free(set);
    *dataset = NULL;
}

size_t eq_dataset_num_items(const struct eq_dataset *dataset)
{
    return dataset->num_items;
}

int eq_dataset_num_classes(const struct eq_dataset *dataset)
{
    return dataset->num_classes;
}

const char *eq_dataset_class_name(const struct eq_dataset *dataset, int label)
{
    return label >= 0 && label < dataset->num_classes ? dataset->class_names[label] : NULL;
}

bool eq_dataset_has_test_part(const struct eq_dataset *dataset)
{
    return dataset->source.has_test_part;
}

int eq_dataset_label(const struct eq_dataset *dataset, size_t item)
{
    int label = dataset->source.labels[source_item(dataset, item)];
    return dataset->label_map ? dataset->label_map[label] : label;
}

const char *eq_dataset_item_name(const struct eq_dataset *dataset, size_t item, char *text, size_t bytes)
{
    dataset->source.describe(&dataset->source, source_item(dataset, item), text, bytes);
    return text;
}

eq_status eq_dataset_get(const struct eq_dataset *dataset, size_t item, struct eq_image *image)
{
    *image = (struct eq_image){ 0 };
    EQ_REQUIRE(item < dataset->num_items, EQ_ERR_ARGUMENT, "item %zu of a set of %zu", item, dataset->num_items);
    return dataset->source.get(&dataset->source, source_item(dataset, item), image);
}

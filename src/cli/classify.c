// equil classify: what is on images.
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "command.h"
#include "equil/equil.h"
#include "output.h"
#include "show.h"
#include "workers.h"

enum { BATCH = 32, SHOW_COLUMNS = 32 };

struct job {
    struct eq_classifier *classifier;
    const char *format;
    int top, limit;
    bool is_shown;
    struct eq_image_item *items; // files, and items of data sets, whose class is known
    char **names;                // [num_items]
    size_t num_items, capacity;
    struct eq_dataset *datasets[16];
    int num_datasets;
    int *labels;     // [top]
    json_t *results; // of --format json
    size_t num_broken, num_unlisted; // unlisted: paths with nothing to read, which no item stands for
};

// ---- which images

static bool has_room(struct job *job)
{
    if (job->num_items < job->capacity)
        return true;
    const size_t capacity = job->capacity ? 2 * job->capacity : 64;
    struct eq_image_item *items = realloc(job->items, capacity * sizeof *items);
    job->items = items ? items : job->items;
    char **names = items ? realloc(job->names, capacity * sizeof *names) : NULL;
    job->names = names ? names : job->names;
    job->capacity = names ? capacity : job->capacity;
    return names != NULL;
}

// Of a data set, or the file of that name.
static bool add_item(struct job *job, const char *name, const struct eq_dataset *dataset, size_t index)
{
    char *copy = has_room(job) ? strdup(name) : NULL;
    if (!copy) {
        message("out of memory for the names of %zu images", job->num_items + 1);
        return false;
    }
    job->names[job->num_items] = copy;
    job->items[job->num_items++] = (struct eq_image_item){ dataset ? NULL : copy, dataset, index };
    return true;
}

static bool is_dataset(const char *text)
{
    return strcmp(text, "shapes") == 0 || strncmp(text, "shapes:", 7) == 0 || strncmp(text, "cifar10:", 8) == 0 ||
           strncmp(text, "idx:", 4) == 0;
}

// A few images of the test part, spread over it so that every class can come up.
static bool add_dataset(struct job *job, const char *spec)
{
    const struct eq_dataset_params params = { .spec = spec,
                                              .split = EQ_SPLIT_TEST,
                                              .size = eq_classifier_size(job->classifier) };
    struct eq_dataset *dataset;
    if (job->num_datasets == (int)(sizeof job->datasets / sizeof job->datasets[0])) {
        message("at most %zu data sets", sizeof job->datasets / sizeof job->datasets[0]);
        return false;
    }
    if (eq_dataset_open(&params, &dataset) != EQ_OK) {
        fail_with_last_error(NULL);
        return false;
    }
    job->datasets[job->num_datasets++] = dataset;
    size_t num = eq_dataset_num_items(dataset), wanted = num < (size_t)job->limit ? num : (size_t)job->limit;
    for (size_t i = 0; i < wanted; i++) {
        char name[256];
        size_t index = i * (num / wanted) + i % (num / wanted);
        if (!add_item(job, eq_dataset_item_name(dataset, index, name, sizeof name), dataset, index))
            return false;
    }
    return true;
}

static bool add_path(struct job *job, const char *path)
{
    char **paths;
    size_t num;
    if (eq_image_list(path, &paths, &num) != EQ_OK) { // named, as an image that cannot be read
        job->num_broken++;
        job->num_unlisted++;
        fail_with_last_error(NULL);
        return true;
    }
    bool ok = true;
    for (size_t i = 0; ok && i < num; i++)
        ok = add_item(job, paths[i], NULL, 0);
    eq_image_list_free(paths, num);
    return ok;
}

// ---- results

// Labels of the `top` largest probabilities, first ones first on ties.
static void find_top(const float *probabilities, int classes, int top, int *labels)
{
    for (int r = 0; r < top; r++) {
        int best = -1;
        for (int c = 0; c < classes; c++) {
            bool is_taken = false;
            for (int i = 0; i < r; i++)
                is_taken |= labels[i] == c;
            if (!is_taken && (best < 0 || probabilities[c] > probabilities[best]))
                best = c;
        }
        labels[r] = best;
    }
}

static const char *true_class(const struct eq_image_item *item)
{
    return item->dataset ? eq_dataset_class_name(item->dataset, eq_dataset_label(item->dataset, item->item)) : NULL;
}

static void print_csv_text(const char *text)
{
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, stdout);
        return;
    }
    putchar('"');
    for (; *text; text++) {
        if (*text == '"')
            putchar('"');
        putchar(*text);
    }
    putchar('"');
}

static void print_csv(const struct job *job, size_t i, const float *probabilities, const int *labels)
{
    const char *truth = true_class(&job->items[i]);
    for (int r = 0; r < job->top; r++) {
        print_csv_text(job->names[i]);
        printf(",%d,%d,", r + 1, labels[r]);
        print_csv_text(eq_classifier_class_name(job->classifier, labels[r]));
        printf(",%.6f", (double)probabilities[labels[r]]);
        if (job->num_datasets) {
            putchar(',');
            print_csv_text(truth ? truth : "");
        }
        putchar('\n');
    }
}

// Drawn shapes have their class in the name, in brackets at its end.
static bool says_class(const char *name, const char *class_name)
{
    const size_t bytes = strlen(name), tail = strlen(class_name) + 2;
    return bytes > tail && name[bytes - tail] == '(' && strncmp(name + bytes - tail + 1, class_name, tail - 2) == 0;
}

// Decodes the image once more: drawings are for a few.
static void draw(const struct eq_image_item *item)
{
    struct eq_image image;
    const eq_status status =
        item->path ? eq_image_load(item->path, &image) : eq_dataset_get(item->dataset, item->item, &image);
    if (status == EQ_OK)
        show_image(&image, SHOW_COLUMNS);
    else
        fail_with_last_error(NULL);
    eq_image_free(&image);
}

static void print_text(const struct job *job, size_t i, const float *probabilities, const int *labels)
{
    const char *truth = true_class(&job->items[i]);
    put_text(stdout, job->names[i]);
    if (truth && !says_class(job->names[i], truth)) {
        printf(" (");
        put_text(stdout, truth);
        printf(")");
    }
    printf("\n");
    if (job->is_shown)
        draw(&job->items[i]);
    for (int r = 0; r < job->top; r++) {
        printf("  %6.2f %%  ", 100 * (double)probabilities[labels[r]]);
        put_text(stdout, eq_classifier_class_name(job->classifier, labels[r]));
        printf("\n");
    }
}

static bool add_json(struct job *job, size_t i, const float *probabilities, const int *labels)
{
    const char *truth = true_class(&job->items[i]);
    json_t *top = json_array(), *object;
    bool ok = top != NULL;
    for (int r = 0; ok && r < job->top; r++) {
        const char *name = eq_classifier_class_name(job->classifier, labels[r]);
        ok = json_array_append_new(top, json_pack("{s:o, s:i, s:o}", "class", json_text(name), "label", labels[r],
                                                  "probability", json_number((double)probabilities[labels[r]]))) == 0;
    }
    object = json_pack("{s:o, s:o}", "file", json_text(job->names[i]), "top", top);
    if (truth)
        ok = json_object_set_new(object, "true_class", json_text(truth)) == 0 && ok;
    ok = json_array_append_new(job->results, object) == 0 && ok;
    if (!ok)
        message("%s: no memory for the JSON text", job->names[i]);
    return ok;
}

// ---- all of them

// Of one image. Returns true to stop.
static bool print_result(void *user, size_t i, const float *probabilities)
{
    struct job *job = user;
    find_top(probabilities, eq_classifier_num_classes(job->classifier), job->top, job->labels);
    if (strcmp(job->format, "json") == 0)
        return !add_json(job, i, probabilities, job->labels);
    if (strcmp(job->format, "csv") == 0)
        print_csv(job, i, probabilities, job->labels);
    else
        print_text(job, i, probabilities, job->labels);
    return false;
}

static bool classify_all(struct job *job)
{
    size_t skipped = 0;
    job->labels = malloc((size_t)job->top * sizeof *job->labels);
    if (!job->labels) {
        message("out of memory");
        return false;
    }
    if (strcmp(job->format, "csv") == 0)
        printf("file,rank,label,class,probability%s\n", job->num_datasets ? ",true_class" : "");
    const eq_status status = eq_classifier_each(job->classifier, job->items, job->num_items, print_result, job, &skipped);
    if (status != EQ_OK && status != EQ_ERR_INTERRUPTED) // that has said what it is
        fail_with_last_error(NULL);
    job->num_broken += skipped;
    return status == EQ_OK;
}

static int classify(struct eq_device *device, const char *selector, struct eq_classifier_params *params, struct job *job,
                    char **paths, int num_paths)
{
    // Whole batches are computed: one that is larger than what there is to do would be a waste. A folder gets the largest.
    params->batch = num_paths == 1 && eq_image_has_name(paths[0]) ? 1 : BATCH;
    if (eq_classifier_create(device, params, &job->classifier) != EQ_OK)
        return fail_with_last_error(NULL);
    int classes = eq_classifier_num_classes(job->classifier);
    job->top = job->top < classes ? job->top : classes;
    for (int i = 0; i < num_paths; i++)
        if (!(is_dataset(paths[i]) ? add_dataset(job, paths[i]) : add_path(job, paths[i])))
            return EXIT_FAILED;
    if (job->num_items == 0)
        return EXIT_FAILED;
    const struct workers_job compiling = { .params = { .model = *eq_classifier_model(job->classifier), .n = params->batch,
                                                       .size = eq_classifier_size(job->classifier) },
                                           .device = selector };
    struct workers workers;
    workers_help(&workers, device, &compiling);
    const bool is_done = classify_all(job);
    workers_end_help(&workers, device, is_done);
    if (!is_done)
        return EXIT_FAILED;
    int exit_code = EXIT_SUCCESS;
    if (strcmp(job->format, "json") == 0) {
        exit_code = json_print(json_pack("{s:s, s:O}", "arch", eq_classifier_arch(job->classifier), "images", job->results));
    }
    if (job->num_broken)
        message("%zu of %zu images could not be read", job->num_broken, job->num_items + job->num_unlisted);
    return job->num_broken ? EXIT_FAILED : exit_code;
}

static void close_job(struct job *job)
{
    for (size_t i = 0; i < job->num_items; i++)
        free(job->names[i]);
    free(job->names);
    free(job->items);
    free(job->labels);
    for (int i = 0; i < job->num_datasets; i++)
        eq_dataset_destroy(&job->datasets[i]);
    eq_classifier_destroy(&job->classifier);
    json_decref(job->results);
}

static int run_classify(int argc, char **argv)
{
    struct eq_classifier_params params = { 0 };
    struct job job = { 0 };
    struct eq_device *device;
    const char *selector;
    bool is_json, has_format;
    const struct arg_option options[] = {
        { .name = "weights",
          .kind = ARG_STRING,
          .value = &params.weights,
          .metavar = "FILE",
          .is_required = true,
          .help = "safetensors file that 'equil train' wrote, or any with PyTorch's names and --arch" },
        { .name = "top",
          .kind = ARG_INT,
          .value = &job.top,
          .fallback = "5",
          .min = 1,
          .max = 1000,
          .help = "classes to name for each image" },
        { .name = "format",
          .kind = ARG_CHOICE,
          .value = &job.format,
          .choices = "text|csv|json",
          .fallback = "text",
          .is_given = &has_format,
          .help = "form of the output" },
        { .name = "limit",
          .kind = ARG_INT,
          .value = &job.limit,
          .fallback = "8",
          .min = 1,
          .max = 1000000,
          .help = "images to take from a data set" },
        { .name = "show", .kind = ARG_FLAG, .value = &job.is_shown, .help = "draw each image, with --format text" },
        { .name = "arch",
          .kind = ARG_STRING,
          .value = &params.arch,
          .metavar = "NAME",
          .help = "network, for a file whose metadata does not name it" },
        { .name = "small", .kind = ARG_FLAG, .value = &params.small, .help = "with --arch: the stem for small images" },
        { .name = "size",
          .kind = ARG_INT,
          .value = &params.size,
          .min = 8,
          .max = 4096,
          .help = "side of the network's images in pixels (default: the file's)" },
        ARG_OPTION_DEVICE(&selector),
        ARG_OPTION_JSON(&is_json),
        { 0 },
    };
    const struct arg_spec spec = {
        .command = "classify",
        .summary = "Names what is on JPEG and PNG images.",
        .positional = "IMAGE|FOLDER...",
        .min_positional = 1,
        .max_positional = -1,
        .options = options,
        .notes = "A data set (shapes, cifar10:DIR, idx:DIR) may stand for a folder: a few images of its test part, with their "
                 "true classes\n"
                 "(in CSV the column true_class, which is there when a data set is, and empty for files).\n"
                 "An image that cannot be read is named; the others are done, and the exit code is 1.",
    };
    struct arg_result args;
    if (args_parse(&spec, argc, argv, &args) != ARGS_RUN)
        return args.exit_code;
    if (is_json && has_format && strcmp(job.format, "json") != 0)
        return usage_error("classify", "--json and --format %s are two things", job.format);
    if (is_json)
        job.format = "json";
    if (job.is_shown && strcmp(job.format, "text") != 0)
        return usage_error("classify", "--show is for text, not %s", job.format);
    if (eq_device_open(selector, &device) != EQ_OK)
        return fail_with_last_error(NULL);
    job.results = json_array();
    int exit_code = classify(device, selector, &params, &job, args.positional, args.num_positional);
    close_job(&job);
    eq_device_destroy(&device);
    return exit_code;
}

const struct command command_classify = { "classify", "name what is on images", run_classify };

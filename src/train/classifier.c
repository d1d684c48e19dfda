// A trained network in use: reading it with its metadata, classifying images, evaluating on a data set.
#include <stdlib.h>
#include <string.h>

#include "io/dataset.h"
#include "train/evaluate.h"
#include "train/metrics.h"

enum { DEFAULT_BATCH = 32 };

struct eq_classifier {
    struct eq_device *device;
    struct eq_meta meta;
    bool has_names; // those of the file; else class_names are numbers
    int batch;
    struct eq_network *network;
    char *weights;                // path of the file
    struct eq_weights_task *task; // reads it, until the first run has compiled; or NULL
    bool has_weights;
    struct eq_feed *feed; // made by the first eq_classifier_run()
    float *logits;        // [batch, classes]
};

// ---- which network it is

// The classifier's rows: the only size that cannot be told from the name of the network.
static eq_status classes_of(const struct eq_tensors *file, int *classes)
{
    const struct eq_tensor_entry *entry = eq_tensors_find(file, "fc.weight");
    EQ_REQUIRE(entry && entry->num_dims == 2 && entry->dims[0] >= 2 && entry->dims[0] <= 1 << 24, EQ_ERR_FORMAT,
               "%s: no classifier in it: fc.weight [classes, channels] is missing", eq_tensors_path(file));
    *classes = (int)entry->dims[0];
    return EQ_OK;
}

static eq_status meta_from_params(const struct eq_tensors *file, const struct eq_classifier_params *params,
                                  struct eq_meta *meta)
{
    EQ_REQUIRE(params->arch, EQ_ERR_ARGUMENT, "%s: its metadata does not say which network it belongs to; name it (--arch)",
               params->weights);
    struct eq_model_params model = {
        .arch = params->arch, .classes = 2, .small = params->small, .act = params->act ? params->act : EQ_RELU
    };
    EQ_TRY(eq_model_check(&model));
    EQ_TRY(classes_of(file, &model.classes));
    meta->model = model;
    meta->model.arch = eq_strdup(params->arch);
    if (!meta->model.arch)
        return EQ_ERR_HOST_MEMORY;
    meta->form = eq_input_form_default(&model, eq_model_is_small(&model) ? 32 : 224);
    return EQ_OK;
}

static eq_status check_params(const struct eq_classifier_params *params, const struct eq_meta *meta)
{
    const struct eq_model_params wanted = { .arch = params->arch,
                                            .small = params->small || meta->model.small,
                                            .act = params->act };
    return eq_meta_check(meta, params->weights, &wanted);
}

static eq_status number_names(struct eq_meta *meta)
{
    EQ_ALLOC(meta->class_names, meta->model.classes);
    for (int i = 0; i < meta->model.classes; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        if (!(meta->class_names[i] = eq_strdup(text)))
            return EQ_ERR_HOST_MEMORY;
    }
    return EQ_OK;
}

static eq_status read_meta(const struct eq_classifier_params *params, struct eq_classifier *classifier)
{
    struct eq_tensors *file;
    struct eq_meta *meta = &classifier->meta;
    EQ_TRY(eq_tensors_open(params->weights, &file));
    eq_status status = eq_meta_read(file, meta);
    if (status == EQ_OK)
        status = meta->model.arch ? check_params(params, meta) : meta_from_params(file, params, meta);
    eq_tensors_close(&file);
    EQ_TRY(status);
    if (params->size)
        meta->form.resize = eq_input_form_default(&meta->model, params->size).resize;
    meta->form.size = params->size ? params->size : meta->form.size;
    classifier->has_names = meta->class_names != NULL;
    return classifier->has_names ? EQ_OK : number_names(meta);
}

static eq_status fill_classifier(struct eq_classifier *classifier, const struct eq_classifier_params *params)
{
    EQ_REQUIRE(params->weights, EQ_ERR_ARGUMENT, "no weights file is given");
    EQ_REQUIRE(params->batch >= 0 && params->batch <= 65536, EQ_ERR_ARGUMENT, "a batch of %d images", params->batch);
    EQ_REQUIRE(params->size == 0 || (params->size >= 8 && params->size <= 4096), EQ_ERR_ARGUMENT,
               "images of %d pixels: 8 to 4096 are possible", params->size);
    classifier->batch = params->batch ? params->batch : DEFAULT_BATCH;
    EQ_TRY(read_meta(params, classifier));
    EQ_TRY(eq_network_create(classifier->device, &classifier->meta.model, &classifier->network));
    classifier->weights = eq_strdup(params->weights);
    if (!classifier->weights)
        return EQ_ERR_HOST_MEMORY;
    return eq_weights_load_start(classifier->network->weights, classifier->weights, &classifier->task);
}

eq_status eq_classifier_create(struct eq_device *device, const struct eq_classifier_params *params,
                               struct eq_classifier **classifier)
{
    EQ_ALLOC(*classifier, 1);
    (*classifier)->device = device;
    eq_status status = fill_classifier(*classifier, params);
    if (status != EQ_OK)
        eq_classifier_destroy(classifier);
    return status;
}

void eq_classifier_destroy(struct eq_classifier **classifier)
{
    if (!*classifier)
        return;
    eq_weights_task_cancel(&(*classifier)->task);
    eq_feed_destroy(&(*classifier)->feed);
    eq_network_destroy(&(*classifier)->network);
    eq_meta_free(&(*classifier)->meta);
    free((*classifier)->weights);
    free((*classifier)->logits);
    free(*classifier);
    *classifier = NULL;
}

const struct eq_model_params *eq_classifier_model(const struct eq_classifier *classifier)
{
    return &classifier->meta.model;
}

const char *eq_classifier_arch(const struct eq_classifier *classifier)
{
    return classifier->meta.model.arch;
}

int eq_classifier_size(const struct eq_classifier *classifier)
{
    return classifier->meta.form.size;
}

int eq_classifier_num_classes(const struct eq_classifier *classifier)
{
    return classifier->meta.model.classes;
}

const char *eq_classifier_class_name(const struct eq_classifier *classifier, int label)
{
    return label >= 0 && label < classifier->meta.model.classes ? classifier->meta.class_names[label] : NULL;
}

// Compiles, while the file is read, and takes what was read. After a failure the next run reads it once more.
static eq_status prepare(struct eq_classifier *classifier)
{
    struct eq_weights *weights = classifier->network->weights;
    const int size = classifier->meta.form.size;
    EQ_TRY(eq_network_compile_infer(classifier->network, classifier->batch, size, size));
    if (classifier->has_weights)
        return EQ_OK;
    if (!classifier->task)
        EQ_TRY(eq_weights_load_start(weights, classifier->weights, &classifier->task));
    EQ_TRY(eq_weights_task_finish(&classifier->task));
    EQ_REQUIRE(eq_weights_check_scales(weights, NULL) == EQ_OK, EQ_ERR_NUMERIC, "%s: %s", classifier->weights, eq_last_error());
    classifier->has_weights = true;
    return EQ_OK;
}

// ---- images

static eq_status make_feed(struct eq_classifier *classifier)
{
    const int classes = classifier->meta.model.classes;
    const struct eq_feed_params params = { .form = classifier->meta.form, .augment = EQ_TRAIN_AUGMENT_NONE };
    EQ_TRY(prepare(classifier));
    if (!classifier->logits)
        EQ_ALLOC(classifier->logits, (size_t)classifier->batch * (size_t)classes);
    return classifier->feed ? EQ_OK
                            : eq_feed_create(classifier->device, &classifier->network->infer, &params, &classifier->feed);
}

static eq_status run_batch(struct eq_classifier *classifier, const struct eq_image *images, int num, float *probabilities)
{
    const struct eq_compiled *infer = &classifier->network->infer;
    size_t classes = (size_t)classifier->meta.model.classes;
    EQ_TRY(eq_feed_images(classifier->feed, images, num));
    EQ_TRY(eq_exec_run(infer->exec));
    EQ_TRY(eq_exec_read(infer->exec, infer->model.logits, classifier->logits));
    for (size_t i = 0; i < (size_t)num; i++)
        eq_metric_softmax(classifier->logits + i * classes, (int)classes, probabilities + i * classes);
    return EQ_OK;
}

eq_status eq_classifier_run(struct eq_classifier *classifier, const struct eq_image *images, int num, float *probabilities)
{
    EQ_REQUIRE(num >= 0, EQ_ERR_ARGUMENT, "%d images", num);
    EQ_TRY(make_feed(classifier));
    for (int at = 0; at < num; at += classifier->batch) {
        int left = num - at, batch = left < classifier->batch ? left : classifier->batch;
        EQ_TRY(run_batch(classifier, images + at, batch, probabilities + (size_t)at * (size_t)classifier->meta.model.classes));
    }
    return EQ_OK;
}

// ---- images that are still to be read

struct results {
    int classes;
    float *probabilities; // [classes]
    eq_classified_fn result;
    void *user;
};

static eq_status give_results(void *user, const float *logits, const int32_t *labels, int num)
{
    const struct results *results = user;
    for (int i = 0; i < num; i++) {
        eq_metric_softmax(logits + (size_t)i * (size_t)results->classes, results->classes, results->probabilities);
        EQ_REQUIRE(!results->result(results->user, (size_t)labels[i], results->probabilities), EQ_ERR_INTERRUPTED,
                   "stopped after image %d", labels[i]);
    }
    return EQ_OK;
}

static eq_status classify_set(struct eq_classifier *classifier, const struct eq_dataset *dataset, struct results *results,
                              size_t *skipped)
{
    struct eq_evaluator *evaluator;
    EQ_TRY(prepare(classifier));
    EQ_TRY(eq_evaluator_create(classifier->network, dataset, &classifier->meta.form, classifier->batch, true, &evaluator));
    const eq_status status = eq_evaluator_each(evaluator, give_results, results, skipped);
    eq_evaluator_destroy(&evaluator);
    return status;
}

eq_status eq_classifier_each(struct eq_classifier *classifier, const struct eq_image_item *items, size_t num,
                             eq_classified_fn result, void *user, size_t *skipped)
{
    struct results results = { .classes = classifier->meta.model.classes, .result = result, .user = user };
    struct eq_dataset *dataset;
    EQ_TRY(eq_dataset_of_images(items, num, &dataset));
    results.probabilities = eq_malloc((size_t)results.classes, sizeof *results.probabilities);
    const eq_status status =
        results.probabilities ? classify_set(classifier, dataset, &results, skipped) : EQ_ERR_HOST_MEMORY;
    free(results.probabilities);
    eq_dataset_destroy(&dataset);
    return status;
}

// ---- evaluation

static eq_status open_data(const struct eq_classifier *classifier, const char *data, struct eq_dataset **dataset)
{
    const struct eq_meta *meta = &classifier->meta;
    struct eq_dataset_params params = { .spec = data, .split = EQ_SPLIT_TEST, .size = meta->form.size };
    if (classifier->has_names) {
        params.class_names = (const char *const *)meta->class_names;
        params.num_classes = meta->model.classes;
    }
    EQ_TRY(eq_dataset_open(&params, dataset));
    int found = eq_dataset_num_classes(*dataset);
    if (found == meta->model.classes)
        return EQ_OK;
    eq_dataset_destroy(dataset);
    return eq_fail(EQ_ERR_ARGUMENT, "%s has %d classes, the network %d", data, found, meta->model.classes);
}

struct relay {
    eq_evaluation_progress_fn progress;
    void *user;
    size_t num;
};

static bool relay_progress(void *user, size_t images)
{
    const struct relay *relay = user;
    if (relay->progress)
        relay->progress(relay->user, images, relay->num);
    return false;
}

eq_status eq_classifier_evaluate(struct eq_classifier *classifier, const char *data, eq_evaluation_progress_fn progress,
                                 void *user, struct eq_evaluation *evaluation)
{
    struct eq_dataset *dataset;
    struct eq_evaluator *evaluator = NULL;
    EQ_TRY(open_data(classifier, data, &dataset));
    struct relay relay = { progress, user, eq_dataset_num_items(dataset) };
    eq_status status = prepare(classifier);
    if (status == EQ_OK)
        status =
            eq_evaluator_create(classifier->network, dataset, &classifier->meta.form, classifier->batch, false, &evaluator);
    if (status == EQ_OK)
        status = eq_evaluator_run(evaluator, relay_progress, &relay, evaluation);
    eq_evaluator_destroy(&evaluator);
    eq_dataset_destroy(&dataset);
    return status;
}

#include "train/meta.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"

eq_status eq_texts_add(struct eq_texts *texts, const char *key, char *value)
{
    if (!value)
        return eq_fail(EQ_ERR_HOST_MEMORY, "out of memory: metadata %s", key);
    if (texts->num == EQ_MAX_TEXTS) {
        free(value);
        return eq_fail(EQ_ERR_ARGUMENT, "more than %d metadata texts", EQ_MAX_TEXTS);
    }
    texts->items[texts->num++] = (struct eq_tensors_text){ key, value };
    return EQ_OK;
}

eq_status eq_texts_add_format(struct eq_texts *texts, const char *key, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return eq_texts_add(texts, key, eq_strdup(text));
}

void eq_texts_free(struct eq_texts *texts)
{
    for (size_t i = 0; i < texts->num; i++)
        free((void *)texts->items[i].value);
    texts->num = 0;
}

// The recipes of the networks' papers: a frame of an eighth (256 for 224) and ImageNet's colours, or the whole image and
// CIFAR's.
struct eq_input_form eq_input_form_default(const struct eq_model_params *model, int size)
{
    if (eq_model_is_small(model))
        return (struct eq_input_form){ size, size, { 0.491f, 0.482f, 0.447f }, { 0.247f, 0.243f, 0.262f } };
    return (struct eq_input_form){ size, (size * 256 + 112) / 224, { 0.485f, 0.456f, 0.406f }, { 0.229f, 0.224f, 0.225f } };
}

// ---- writing

// NULL on no memory.
static char *names_json(char *const *names, int num)
{
    json_t *array = json_array();
    bool ok = array != NULL;
    for (int i = 0; i < num && ok; i++)
        ok = json_array_append_new(array, json_string(names[i])) == 0;
    char *text = ok ? eq_json_text(array, JSON_COMPACT) : NULL;
    json_decref(array);
    return text;
}

static eq_status write_colour(const char *key, const float value[3], struct eq_texts *texts)
{
    char numbers[3][40];
    for (int i = 0; i < 3; i++)
        eq_number_digits(numbers[i], 9, (double)value[i]);
    return eq_texts_add_format(texts, key, "[%s, %s, %s]", numbers[0], numbers[1], numbers[2]);
}

eq_status eq_meta_write(const struct eq_meta *meta, struct eq_texts *texts)
{
    const struct eq_input_form *form = &meta->form;
    EQ_TRY(eq_texts_add_format(texts, "format", "pt"));
    EQ_TRY(eq_texts_add_format(texts, "arch", "%s", meta->model.arch));
    EQ_TRY(eq_texts_add_format(texts, "classes", "%d", meta->model.classes));
    EQ_TRY(eq_texts_add_format(texts, "small", "%d", meta->model.small));
    EQ_TRY(eq_texts_add_format(texts, "act", "%s", meta->model.act == EQ_ELU ? "elu" : "relu"));
    EQ_TRY(eq_texts_add_format(texts, "size", "%d", form->size));
    EQ_TRY(eq_texts_add_format(texts, "resize", "%d", form->resize));
    EQ_TRY(write_colour("mean", form->mean, texts));
    EQ_TRY(write_colour("std", form->deviation, texts));
    if (!meta->class_names)
        return EQ_OK;
    return eq_texts_add(texts, "class_names", names_json(meta->class_names, meta->model.classes));
}

// ---- reading

static eq_status read_int(const struct eq_tensors *file, const char *key, int min, int max, int fallback, int *value)
{
    const char *text = eq_tensors_text(file, key);
    char *end;
    *value = fallback;
    if (!text)
        return EQ_OK;
    long number = strtol(text, &end, 10);
    EQ_REQUIRE(end != text && !*end && number >= min && number <= max, EQ_ERR_FORMAT,
               "%s: its metadata has %s \"%.40s\"; %d to %d is possible", eq_tensors_path(file), key, text, min, max);
    *value = (int)number;
    return EQ_OK;
}

static eq_status read_colour(const struct eq_tensors *file, const char *key, bool is_divisor, float value[3])
{
    const char *text = eq_tensors_text(file, key);
    if (!text)
        return EQ_OK;
    double numbers[3] = { 0 };
    json_t *array;
    json_error_t error;
    eq_status status = eq_json_parse(text, strlen(text), &array, &error);
    if (status == EQ_ERR_HOST_MEMORY)
        return status;
    bool ok = json_is_array(array) && json_array_size(array) == 3;
    for (size_t i = 0; ok && i < 3; i++) {
        ok = json_is_number(json_array_get(array, i));
        numbers[i] = json_number_value(json_array_get(array, i));
    }
    for (int i = 0; ok && i < 3; i++) {
        ok = isfinite(numbers[i]) && fabs(numbers[i]) < 1e6 && (!is_divisor || numbers[i] > 1e-6);
        value[i] = (float)numbers[i];
    }
    json_decref(array);
    EQ_REQUIRE(ok, EQ_ERR_FORMAT, "%s: its metadata has %s \"%.60s\"; three numbers are needed", eq_tensors_path(file), key,
               text);
    return EQ_OK;
}

static eq_status copy_names(const json_t *array, struct eq_meta *meta)
{
    EQ_ALLOC(meta->class_names, meta->model.classes);
    for (int i = 0; i < meta->model.classes; i++)
        if (!(meta->class_names[i] = eq_strdup(json_string_value(json_array_get(array, (size_t)i)))))
            return EQ_ERR_HOST_MEMORY;
    return EQ_OK;
}

static eq_status read_names(const struct eq_tensors *file, struct eq_meta *meta)
{
    const char *text = eq_tensors_text(file, "class_names");
    if (!text)
        return EQ_OK;
    json_t *array;
    json_error_t error;
    eq_status status = eq_json_parse(text, strlen(text), &array, &error);
    if (status == EQ_ERR_HOST_MEMORY)
        return status;
    bool ok = json_is_array(array) && json_array_size(array) == (size_t)meta->model.classes;
    for (size_t i = 0; ok && i < json_array_size(array); i++)
        ok = json_is_string(json_array_get(array, i));
    status = ok ? copy_names(array, meta)
                : eq_fail(EQ_ERR_FORMAT, "%s: class_names in its metadata is not a list of %d texts", eq_tensors_path(file),
                          meta->model.classes);
    json_decref(array);
    return status;
}

eq_status eq_meta_read(const struct eq_tensors *file, struct eq_meta *meta)
{
    *meta = (struct eq_meta){ 0 };
    const char *arch = eq_tensors_text(file, "arch"), *act = eq_tensors_text(file, "act");
    if (!arch)
        return EQ_OK;
    int is_small, size;
    if (!(meta->model.arch = eq_strdup(arch)))
        return EQ_ERR_HOST_MEMORY;
    EQ_TRY(read_int(file, "classes", 2, 1 << 24, 0, &meta->model.classes));
    EQ_TRY(read_int(file, "small", 0, 1, 0, &is_small));
    meta->model.small = is_small;
    meta->model.act = act && strcmp(act, "elu") == 0 ? EQ_ELU : EQ_RELU;
    EQ_REQUIRE(!act || meta->model.act == EQ_ELU || strcmp(act, "relu") == 0, EQ_ERR_FORMAT,
               "%s: its metadata has act \"%.40s\"; relu and elu are known", eq_tensors_path(file), act);
    EQ_REQUIRE(eq_model_check(&meta->model) == EQ_OK, EQ_ERR_FORMAT, "%s: its metadata: %s", eq_tensors_path(file),
               eq_last_error());
    EQ_TRY(read_int(file, "size", 8, 4096, eq_model_is_small(&meta->model) ? 32 : 224, &size));
    meta->form = eq_input_form_default(&meta->model, size);
    EQ_TRY(read_int(file, "resize", size, 8192, meta->form.resize, &meta->form.resize));
    EQ_TRY(read_colour(file, "mean", false, meta->form.mean));
    EQ_TRY(read_colour(file, "std", true, meta->form.deviation));
    return read_names(file, meta);
}

static const char *act_name(const struct eq_model_params *model)
{
    return model->act == EQ_ELU ? "elu" : "relu";
}

eq_status eq_meta_check(const struct eq_meta *meta, const char *path, const struct eq_model_params *wanted)
{
    const struct eq_model_params *model = &meta->model;
    EQ_REQUIRE(!wanted->arch || strcmp(wanted->arch, model->arch) == 0, EQ_ERR_ARGUMENT,
               "%s: its metadata has the network %s, %s was given", path, model->arch, wanted->arch);
    EQ_REQUIRE(!wanted->classes || wanted->classes == model->classes, EQ_ERR_ARGUMENT,
               "%s: its metadata has %d classes, %d were given", path, model->classes, wanted->classes);
    const struct eq_model_params same = { .arch = model->arch, .small = wanted->small };
    EQ_REQUIRE(eq_model_is_small(&same) == eq_model_is_small(model), EQ_ERR_ARGUMENT,
               "%s: its metadata has the stem for %s images, that for %s was given", path, model->small ? "small" : "large",
               wanted->small ? "small ones" : "large ones");
    EQ_REQUIRE(!wanted->act || wanted->act == model->act, EQ_ERR_ARGUMENT,
               "%s: its metadata has the activation %s, %s was given", path, act_name(model), act_name(wanted));
    return EQ_OK;
}

eq_status eq_model_check_file(const struct eq_model_params *params, const char *path)
{
    struct eq_tensors *file;
    struct eq_meta meta;
    EQ_TRY(eq_tensors_open(path, &file));
    eq_status status = eq_meta_read(file, &meta);
    if (status == EQ_OK && meta.model.arch)
        status = eq_meta_check(&meta, path, params);
    eq_meta_free(&meta);
    eq_tensors_close(&file);
    return status;
}

void eq_meta_free(struct eq_meta *meta)
{
    if (meta->class_names)
        for (int i = 0; i < meta->model.classes; i++)
            free(meta->class_names[i]);
    free(meta->class_names);
    free((void *)meta->model.arch);
    *meta = (struct eq_meta){ 0 };
}

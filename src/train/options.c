// One table describes every option; texts, comparison and copies go through it.
#include "train/options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/json.h"

enum kind { KIND_STRING, KIND_BOOL, KIND_INT, KIND_NUMBER, KIND_SEED, KIND_CHOICE };

enum { PREFIX = sizeof "option." - 1 };

struct row {
    const char *key; // in a checkpoint; the name on the command line behind a prefix
    enum kind kind;
    size_t offset;
    const char *const *choices; // names by value; [0] is that of the default
    double min, max;            // of ints and numbers, once resolved
    bool is_path;               // that a run reads from: a checkpoint of a stranger may name any, so it has to be given again
};
#define ROW(label, k, field, ...)                                                                   \
    {                                                                                               \
        .key = (label), .kind = (k), .offset = offsetof(struct eq_train_params, field), __VA_ARGS__ \
    }

static const char *const act_names[] = { "", "relu", "elu", NULL };
static const char *const schedule_names[] = { "", "step", "cosine", NULL };
static const char *const augment_names[] = { "", "none", "light", "full", NULL };

static const struct row rows[] = {
    ROW("option.arch", KIND_STRING, arch, .choices = NULL),
    ROW("option.small", KIND_BOOL, small, .choices = NULL),
    ROW("option.act", KIND_CHOICE, act, .choices = act_names),
    ROW("option.data", KIND_STRING, data, .is_path = true),
    ROW("option.val", KIND_STRING, val, .is_path = true),
    ROW("option.epochs", KIND_INT, epochs, .min = 1, .max = 100000),
    ROW("option.batch", KIND_INT, batch, .min = 1, .max = 65536),
    ROW("option.accumulate", KIND_INT, accumulate, .min = 1, .max = 65536),
    ROW("option.size", KIND_INT, size, .min = 8, .max = 4096),
    ROW("option.lr", KIND_NUMBER, rate, .max = 1e30),
    ROW("option.schedule", KIND_CHOICE, schedule, .choices = schedule_names),
    ROW("option.warmup", KIND_NUMBER, warmup, .max = 100000),
    ROW("option.momentum", KIND_NUMBER, momentum, .max = 1),
    ROW("option.weight-decay", KIND_NUMBER, weight_decay, .max = 1e30),
    ROW("option.label-smoothing", KIND_NUMBER, label_smoothing, .max = 0.999999),
    ROW("option.augment", KIND_CHOICE, augment, .choices = augment_names),
    ROW("option.seed", KIND_SEED, seed, .choices = NULL),
    ROW("option.weights", KIND_STRING, weights, .choices = NULL),
    ROW("option.new-head", KIND_BOOL, new_head, .choices = NULL),
};
enum { NUM_ROWS = sizeof rows / sizeof rows[0] };

static const void *field(const struct eq_train_params *params, const struct row *row)
{
    return (const char *)params + row->offset;
}

int eq_train_options_num(void)
{
    return NUM_ROWS;
}

const char *eq_train_option_key(int index)
{
    return rows[index].key;
}

char *eq_train_option_text(const struct eq_train_params *params, int index)
{
    const struct row *row = &rows[index];
    const void *at = field(params, row);
    char text[40];
    switch (row->kind) {
    case KIND_STRING: return eq_json_escape(*(const char *const *)at ? *(const char *const *)at : "");
    case KIND_BOOL: return eq_strdup(*(const bool *)at ? "yes" : "no");
    case KIND_CHOICE: return eq_strdup(row->choices[*(const int *)at]);
    case KIND_INT: snprintf(text, sizeof text, "%d", *(const int *)at); break;
    case KIND_NUMBER: eq_number_text(text, fmax(*(const double *)at, 0)); break;
    case KIND_SEED: snprintf(text, sizeof text, "%llu", (unsigned long long)*(const uint64_t *)at); break;
    }
    return eq_strdup(text);
}

static bool is_given(const struct eq_train_params *params, const struct row *row)
{
    const void *at = field(params, row);
    switch (row->kind) {
    case KIND_STRING: return *(const char *const *)at != NULL;
    case KIND_BOOL: return *(const bool *)at;
    case KIND_INT:
    case KIND_CHOICE: return *(const int *)at != 0;
    case KIND_NUMBER: return *(const double *)at != 0;
    case KIND_SEED: return params->has_seed || params->seed != 0;
    }
    return false;
}

static eq_status own_string(struct eq_train_options *options, const char *text, const char **out)
{
    char *copy = eq_strdup(text);
    if (!copy)
        return EQ_ERR_HOST_MEMORY;
    options->strings[options->num_strings++] = copy;
    *out = copy;
    return EQ_OK;
}

// A string from its text in a checkpoint.
static eq_status set_string(struct eq_train_options *options, const char *text, const char **out)
{
    EQ_TRY(own_string(options, text, out));
    eq_json_unescape(options->strings[options->num_strings - 1]);
    return EQ_OK;
}

// Sets an option from its text in a checkpoint.
static eq_status set_text(struct eq_train_options *options, const struct row *row, const char *text)
{
    void *at = (char *)&options->params + row->offset;
    char *end = (char *)text;
    switch (row->kind) {
    case KIND_STRING: return *text ? set_string(options, text, at) : EQ_OK;
    case KIND_BOOL: *(bool *)at = strcmp(text, "yes") == 0; return EQ_OK;
    case KIND_INT: *(int *)at = (int)strtol(text, &end, 10); break;
    case KIND_NUMBER: end += eq_number_read(text, at) ? strlen(text) : 0; break;
    case KIND_SEED: *(uint64_t *)at = strtoull(text, &end, 10); break;
    case KIND_CHOICE:
        for (int i = 1; row->choices[i]; i++)
            if (strcmp(row->choices[i], text) == 0) {
                *(int *)at = i;
                return EQ_OK;
            }
        break;
    }
    EQ_REQUIRE(end != text && !*end, EQ_ERR_FORMAT, "the checkpoint has \"%s\" for the option %s", text, row->key + PREFIX);
    return EQ_OK;
}

static eq_status take_saved(struct eq_train_options *options, int index, const char *saved)
{
    const struct row *row = &rows[index];
    EQ_REQUIRE(saved, EQ_ERR_FORMAT, "the checkpoint does not have the option %s", row->key + PREFIX);
    if (!is_given(&options->params, row))
        return set_text(options, row, saved);
    char *given = eq_train_option_text(&options->params, index);
    if (!given)
        return EQ_ERR_HOST_MEMORY;
    eq_status status = EQ_OK;
    if (strcmp(given, saved) != 0)
        status = eq_fail(EQ_ERR_ARGUMENT, "%s is %s, but the run to resume has %s", row->key + PREFIX, given,
                         *saved ? saved : "none");
    free(given);
    return status;
}

// Data that is drawn has no path.
static bool is_path(const char *text)
{
    return text && strcmp(text, "shapes") != 0 && !eq_str_starts(text, "shapes:");
}

static eq_status check_paths(const struct eq_train_params *given, const struct eq_train_params *taken)
{
    for (int i = 0; i < NUM_ROWS; i++) {
        if (!rows[i].is_path || is_given(given, &rows[i]))
            continue;
        const char *text = *(const char *const *)field(taken, &rows[i]);
        EQ_REQUIRE(!is_path(text), EQ_ERR_ARGUMENT,
                   "the run to resume has %s \"%s\", which is read only if it is given again: paths in files are not followed",
                   rows[i].key + PREFIX, text);
    }
    return EQ_OK;
}

// Strings first become the struct's own.
static eq_status own_strings(struct eq_train_options *options)
{
    for (int i = 0; i < NUM_ROWS; i++) {
        const char **at = (const char **)((char *)&options->params + rows[i].offset);
        if (rows[i].kind == KIND_STRING && *at)
            EQ_TRY(own_string(options, *at, at));
    }
    return own_string(options, options->params.out, &options->params.out);
}

static void set_number(double *value, double fallback)
{
    *value = *value ? *value : fallback;
}

static void set_int(int *value, int fallback)
{
    *value = *value ? *value : fallback;
}

static double rate_of_batch(int batch, int accumulate)
{
    return 0.1 * batch * accumulate / 256;
}

static void fill_defaults(struct eq_train_options *options)
{
    struct eq_train_params *p = &options->params;
    bool is_small = eq_model_is_small(&(struct eq_model_params){ .arch = p->arch, .small = p->small });
    set_int(&p->epochs, is_small ? 30 : 100);
    set_int(&p->batch, is_small ? 64 : 32);
    set_int(&p->accumulate, 1);
    set_int(&p->size, is_small ? 32 : 224);
    options->has_batch_rate = !is_small && !p->rate;
    set_number(&p->rate, is_small ? 0.1 : rate_of_batch(p->batch, p->accumulate));
    set_number(&p->warmup, fmin(is_small ? 1 : 5, p->epochs / 4.0));
    set_number(&p->momentum, 0.9);
    set_number(&p->weight_decay, 1e-4);
    set_number(&p->label_smoothing, is_small ? 0 : 0.1);
    p->act = p->act ? p->act : EQ_RELU;
    if (!p->schedule)
        p->schedule = is_small ? EQ_TRAIN_SCHEDULE_COSINE : EQ_TRAIN_SCHEDULE_STEP;
    if (!p->augment)
        p->augment = is_small ? EQ_TRAIN_AUGMENT_LIGHT : EQ_TRAIN_AUGMENT_FULL;
}

// A negative value means that the default is not wanted: 0 from here on.
static void set_numbers_off(struct eq_train_params *params)
{
    for (int i = 0; i < NUM_ROWS; i++) {
        double *value = (double *)((char *)params + rows[i].offset);
        if (rows[i].kind == KIND_NUMBER && *value < 0)
            *value = 0;
    }
}

static eq_status check_choice(const struct row *row, int value)
{
    int num = 0;
    while (row->choices[num])
        num++;
    EQ_REQUIRE(value >= 0 && value < num, EQ_ERR_ARGUMENT, "%s is %d: there are %d choices", row->key + PREFIX, value, num - 1);
    return EQ_OK;
}

static eq_status check_choices(const struct eq_train_params *params)
{
    for (int i = 0; i < NUM_ROWS; i++)
        if (rows[i].kind == KIND_CHOICE)
            EQ_TRY(check_choice(&rows[i], *(const int *)field(params, &rows[i])));
    return EQ_OK;
}

static eq_status check_ranges(const struct eq_train_params *params)
{
    for (int i = 0; i < NUM_ROWS; i++) {
        const struct row *row = &rows[i];
        if (row->kind != KIND_INT && row->kind != KIND_NUMBER)
            continue;
        double value = row->kind == KIND_INT ? *(const int *)field(params, row) : *(const double *)field(params, row);
        EQ_REQUIRE(value >= row->min && value <= row->max, EQ_ERR_ARGUMENT, "%s is %g: it must be in %g to %g",
                   row->key + PREFIX, value, row->min, row->max);
    }
    EQ_REQUIRE(params->warmup <= params->epochs || !params->warmup, EQ_ERR_ARGUMENT, "a warm-up of %g epochs in a run of %d",
               params->warmup, params->epochs);
    EQ_REQUIRE(!params->new_head || params->weights, EQ_ERR_ARGUMENT,
               "new-head is for weights to start from, and none are given");
    return EQ_OK;
}

eq_status eq_train_options_resolve(const struct eq_train_params *params, eq_saved_option_fn saved, const void *user,
                                   struct eq_train_options *options)
{
    *options = (struct eq_train_options){ .params = *params };
    EQ_REQUIRE(params->out && *params->out, EQ_ERR_ARGUMENT, "no folder for the results is given");
    EQ_TRY(check_choices(params));
    eq_status status = own_strings(options);
    if (status != EQ_OK)
        options->params = (struct eq_train_params){ 0 };
    EQ_TRY(status);
    for (int i = 0; saved && i < NUM_ROWS; i++)
        EQ_TRY(take_saved(options, i, saved(user, rows[i].key)));
    EQ_TRY(check_paths(params, &options->params));
    struct eq_train_params *p = &options->params;
    EQ_REQUIRE(p->arch && *p->arch, EQ_ERR_ARGUMENT, "no network is given");
    EQ_REQUIRE(p->data && *p->data, EQ_ERR_ARGUMENT, "no data is given");
    EQ_TRY(eq_model_check(&(struct eq_model_params){ .arch = p->arch, .classes = 2, .small = p->small, .act = p->act }));
    if (!saved)
        fill_defaults(options);
    set_numbers_off(p);
    return check_ranges(p);
}

void eq_train_options_use_batch(struct eq_train_options *options, int batch)
{
    if (options->has_batch_rate)
        options->params.rate = rate_of_batch(batch, options->params.accumulate);
}

void eq_train_options_free(struct eq_train_options *options)
{
    for (int i = 0; i < options->num_strings; i++)
        free(options->strings[i]);
    *options = (struct eq_train_options){ 0 };
}

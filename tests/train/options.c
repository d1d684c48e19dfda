// Defaults by network, texts, and what a resumed run takes over or refuses.
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "support/support.h"
#include "train/meta.h"
#include "train/options.h"

static const struct eq_train_params small = { .arch = "ce-resnet20", .data = "shapes", .out = "out" };
static const struct eq_train_params large = { .arch = "ce-resnet50", .data = "photos", .out = "out" };

// Fails, with `text` in the message.
static void check_refused(const struct eq_train_params *params, eq_saved_option_fn saved, const void *user, const char *text)
{
    struct eq_train_options options;
    ck_assert_int_ne(eq_train_options_resolve(params, saved, user, &options), EQ_OK);
    ck_assert_msg(strstr(eq_last_error(), text) != NULL, "\"%s\" is not in \"%s\"", text, eq_last_error());
    eq_train_options_free(&options);
}

// `user` is the options of the run to resume.
static char *saved_texts[32];

static const char *saved_option(const void *user, const char *key)
{
    const struct eq_train_params *params = user;
    for (int i = 0; i < eq_train_options_num(); i++)
        if (strcmp(eq_train_option_key(i), key) == 0) {
            free(saved_texts[i]);
            return saved_texts[i] = eq_train_option_text(params, i);
        }
    return NULL;
}

START_TEST(test_small_defaults)
{
    struct eq_train_options options;
    EQ_TEST_OK(eq_train_options_resolve(&small, NULL, NULL, &options));
    const struct eq_train_params *p = &options.params;
    ck_assert_int_eq(p->size, 32);
    ck_assert_int_eq(p->batch, 64);
    ck_assert_int_eq(p->accumulate, 1);
    ck_assert_int_eq(p->schedule, EQ_TRAIN_SCHEDULE_COSINE);
    ck_assert_int_eq(p->augment, EQ_TRAIN_AUGMENT_LIGHT);
    ck_assert_int_eq(p->act, EQ_RELU);
    ck_assert_double_eq(p->rate, 0.1);
    ck_assert_double_eq(p->warmup, 1);
    ck_assert_double_eq(p->momentum, 0.9);
    ck_assert_double_eq(p->weight_decay, 1e-4);
    ck_assert_double_eq(p->label_smoothing, 0);
    eq_train_options_free(&options);
}
END_TEST

START_TEST(test_large_defaults)
{
    struct eq_train_options options;
    struct eq_train_params params = large;
    params.batch = 64;
    params.accumulate = 4;
    EQ_TEST_OK(eq_train_options_resolve(&params, NULL, NULL, &options));
    const struct eq_train_params *p = &options.params;
    ck_assert_int_eq(p->size, 224);
    ck_assert_int_eq(p->epochs, 100);
    ck_assert_int_eq(p->schedule, EQ_TRAIN_SCHEDULE_STEP);
    ck_assert_int_eq(p->augment, EQ_TRAIN_AUGMENT_FULL);
    ck_assert_double_eq(p->rate, 0.1); // 0.1 for 256 images an update
    ck_assert_double_eq(p->warmup, 5);
    ck_assert_double_eq(p->label_smoothing, 0.1);
    eq_train_options_free(&options);
    params.small = true;
    EQ_TEST_OK(eq_train_options_resolve(&params, NULL, NULL, &options));
    ck_assert_int_eq(options.params.size, 32);
    ck_assert_double_eq(options.params.label_smoothing, 0);
    eq_train_options_free(&options);
    params.small = false;
    params.epochs = 8;
    EQ_TEST_OK(eq_train_options_resolve(&params, NULL, NULL, &options));
    ck_assert_double_eq(options.params.warmup, 2); // at most a quarter
    eq_train_options_free(&options);
}
END_TEST

// The rate is that of the batch that there are images for, unless it is given or does not follow from the batch.
START_TEST(test_fewer_images)
{
    const struct eq_train_params base[] = { { .batch = 64 }, { .batch = 64, .rate = 0.3 }, { .batch = 64, .rate = -1 },
                                            { .batch = 64, .small = true } };
    for (size_t i = 0; i < sizeof base / sizeof *base; i++) {
        struct eq_train_options options, fewer, resumed;
        struct eq_train_params params = base[i];
        params.arch = large.arch;
        params.data = "shapes";
        params.out = large.out;
        EQ_TEST_OK(eq_train_options_resolve(&params, NULL, NULL, &options));
        params.batch = 8;
        EQ_TEST_OK(eq_train_options_resolve(&params, NULL, NULL, &fewer));
        eq_train_options_use_batch(&options, 8);
        ck_assert_double_eq(options.params.rate, fewer.params.rate);
        ck_assert_int_eq(options.params.batch, 64);
        params = (struct eq_train_params){ .out = "out", .batch = 64, .resume = true };
        EQ_TEST_OK(eq_train_options_resolve(&params, saved_option, &options.params, &resumed));
        ck_assert(resumed.params.batch == 64 && resumed.params.rate == options.params.rate);
        eq_train_options_free(&resumed);
        eq_train_options_free(&fewer);
        eq_train_options_free(&options);
    }
}
END_TEST

START_TEST(test_switched_off)
{
    struct eq_train_options options;
    struct eq_train_params params = large;
    params.momentum = params.weight_decay = params.label_smoothing = params.warmup = params.rate = -1;
    EQ_TEST_OK(eq_train_options_resolve(&params, NULL, NULL, &options));
    const struct eq_train_params *p = &options.params;
    ck_assert(p->momentum == 0 && p->weight_decay == 0 && p->label_smoothing == 0 && p->warmup == 0 && p->rate == 0);
    eq_train_options_free(&options);
}
END_TEST

static const struct {
    const char *text;
    struct eq_train_params params;
} refused[] = {
    { "no network", { .data = "shapes", .out = "out" } },
    { "no data", { .arch = "resnet20", .out = "out" } },
    { "no folder", { .arch = "resnet20", .data = "shapes" } },
    { "resnet7", { .arch = "resnet7", .data = "shapes", .out = "out" } },
    { "epochs is -1", { .arch = "resnet20", .data = "shapes", .out = "out", .epochs = -1 } },
    { "batch is 70000", { .arch = "resnet20", .data = "shapes", .out = "out", .batch = 70000 } },
    { "size is 4", { .arch = "resnet20", .data = "shapes", .out = "out", .size = 4 } },
    { "momentum is 1.5", { .arch = "resnet20", .data = "shapes", .out = "out", .momentum = 1.5 } },
    { "label-smoothing is 1", { .arch = "resnet20", .data = "shapes", .out = "out", .label_smoothing = 1 } },
    { "warm-up of 9", { .arch = "resnet20", .data = "shapes", .out = "out", .epochs = 3, .warmup = 9 } },
    { "schedule is 7", { .arch = "resnet20", .data = "shapes", .out = "out", .schedule = 7 } },
    { "new-head", { .arch = "resnet20", .data = "shapes", .out = "out", .new_head = true } },
};

START_TEST(test_refused)
{
    check_refused(&refused[_i].params, NULL, NULL, refused[_i].text);
}
END_TEST

// ---- resumed runs

static void resolve_run(struct eq_train_options *run)
{
    const struct eq_train_params params = { .arch = "ce-resnet20",
                                            .data = "shapes",
                                            .out = "out",
                                            .epochs = 12,
                                            .batch = 48,
                                            .rate = 0.07,
                                            .act = EQ_ELU,
                                            .warmup = 1.5,
                                            .weight_decay = -1,
                                            .seed = 18446744073709551615ull,
                                            .augment = EQ_TRAIN_AUGMENT_NONE };
    EQ_TEST_OK(eq_train_options_resolve(&params, NULL, NULL, run));
}

START_TEST(test_resume_takes_over)
{
    struct eq_train_options run, resumed;
    resolve_run(&run);
    EQ_TEST_OK(eq_train_options_resolve(&(struct eq_train_params){ .out = "out", .resume = true }, saved_option, &run.params,
                                        &resumed));
    for (int i = 0; i < eq_train_options_num(); i++) {
        char *a = eq_train_option_text(&run.params, i), *b = eq_train_option_text(&resumed.params, i);
        ck_assert_str_eq(a, b);
        free(a);
        free(b);
    }
    ck_assert(resumed.params.seed == run.params.seed && resumed.params.weight_decay == 0 && resumed.params.rate == 0.07);
    eq_train_options_free(&resumed);
    eq_train_options_free(&run);
}
END_TEST

static const struct {
    const char *text; // NULL: the same value, which is no mistake
    struct eq_train_params params;
} given[] = {
    { NULL,
      { .out = "out",
        .arch = "ce-resnet20",
        .epochs = 12,
        .batch = 48,
        .rate = 0.07,
        .warmup = 1.5,
        .weight_decay = -1,
        .act = EQ_ELU } },
    { "arch is resnet20, but the run to resume has ce-resnet20", { .out = "out", .arch = "resnet20" } },
    { "batch is 64, but the run to resume has 48", { .out = "out", .batch = 64 } },
    { "lr is 0.1, but the run to resume has 0.07", { .out = "out", .rate = 0.1 } },
    { "lr is 0, but", { .out = "out", .rate = -1 } },
    { "weight-decay is 0.0001, but the run to resume has 0", { .out = "out", .weight_decay = 1e-4 } },
    { "act is relu, but the run to resume has elu", { .out = "out", .act = EQ_RELU } },
    { "augment is full, but the run to resume has none", { .out = "out", .augment = EQ_TRAIN_AUGMENT_FULL } },
    { "schedule is step, but the run to resume has cosine", { .out = "out", .schedule = EQ_TRAIN_SCHEDULE_STEP } },
    { "seed is 0, but the run to resume has 18446744073709551615", { .out = "out", .has_seed = true } },
    { "val is photos, but the run to resume has none", { .out = "out", .val = "photos" } },
    { "small is yes, but the run to resume has no", { .out = "out", .small = true } },
};

START_TEST(test_resume_given)
{
    struct eq_train_options run, resumed;
    resolve_run(&run);
    if (given[_i].text) {
        check_refused(&given[_i].params, saved_option, &run.params, given[_i].text);
    } else {
        EQ_TEST_OK(eq_train_options_resolve(&given[_i].params, saved_option, &run.params, &resumed));
        eq_train_options_free(&resumed);
    }
    eq_train_options_free(&run);
}
END_TEST

// Data that only the checkpoint names is not read; what is drawn is.
START_TEST(test_resume_paths)
{
    struct eq_train_options run, resumed;
    const struct eq_train_params params = { .arch = "resnet20", .data = "shapes:24", .val = "photos", .out = "out" };
    EQ_TEST_OK(eq_train_options_resolve(&params, NULL, NULL, &run));
    check_refused(&(struct eq_train_params){ .out = "out", .resume = true }, saved_option, &run.params, "val \"photos\"");
    EQ_TEST_OK(eq_train_options_resolve(&(struct eq_train_params){ .val = "photos", .out = "out", .resume = true },
                                        saved_option, &run.params, &resumed));
    ck_assert_str_eq(resumed.params.data, "shapes:24");
    eq_train_options_free(&resumed);
    eq_train_options_free(&run);
}
END_TEST

// Paths are bytes; a checkpoint and a log have them in UTF-8, no two as the same text, and back.
static const struct {
    const char *path, *text;
} paths[] = {
    { "photos/\303\251t\303\251", "photos/\303\251t\303\251" },
    { "dat\377a", "dat\\xffa" },
    { "dat\\xffa", "dat\\\\xffa" },
    { "a\\\\b\\", "a\\\\\\\\b\\\\" },
    { "\303", "\\xc3" },
    { "\355\240\200 \300\257 \364\220\200\200", "\\xed\\xa0\\x80 \\xc0\\xaf \\xf4\\x90\\x80\\x80" },
};

START_TEST(test_path_texts)
{
    struct eq_train_options run, resumed;
    const struct eq_train_params params = { .arch = "resnet20", .data = "shapes", .weights = paths[_i].path, .out = "out" };
    EQ_TEST_OK(eq_train_options_resolve(&params, NULL, NULL, &run));
    ck_assert_str_eq(saved_option(&run.params, "option.weights"), paths[_i].text);
    EQ_TEST_OK(eq_train_options_resolve(&(struct eq_train_params){ .out = "out", .resume = true }, saved_option, &run.params,
                                        &resumed));
    ck_assert_str_eq(resumed.params.weights, paths[_i].path);
    eq_train_options_free(&resumed);
    EQ_TEST_OK(eq_train_options_resolve(&(struct eq_train_params){ .weights = paths[_i].path, .out = "out", .resume = true },
                                        saved_option, &run.params, &resumed));
    eq_train_options_free(&resumed);
    check_refused(&(struct eq_train_params){ .weights = "dat\376a", .out = "out", .resume = true }, saved_option, &run.params,
                  "weights is dat\\xfea, but the run to resume has ");
    eq_train_options_free(&run);
}
END_TEST

// A locale with a decimal comma, made in `folder`: containers have none. False where it cannot be made.
static bool choose_comma(const char *folder)
{
    char command[400];
    snprintf(command, sizeof command, "localedef -i de_DE -f UTF-8 '%s/de_DE.UTF-8' >'%s/log' 2>&1", folder, folder);
    if (system(command) != 0 || setenv("LOCPATH", folder, 1) != 0 || !setlocale(LC_ALL, "de_DE.UTF-8"))
        return false;
    char half[8];
    snprintf(half, sizeof half, "%.1f", 0.5);
    ck_assert_str_eq(half, "0,5");
    return true;
}

static void check_texts_of_comma(void)
{
    struct eq_train_options run, resumed;
    struct eq_texts texts = { .num = 0 };
    const struct eq_meta meta = { .model = { .arch = "resnet20", .classes = 2 },
                                  .form = { 32, 32, { 0.5f, 0.25f, 1 }, { 0.125f, 0.5f, 2 } } };
    resolve_run(&run);
    ck_assert_str_eq(saved_option(&run.params, "option.lr"), "0.07");
    EQ_TEST_OK(eq_train_options_resolve(&(struct eq_train_params){ .out = "out", .resume = true }, saved_option, &run.params,
                                        &resumed));
    ck_assert(resumed.params.rate == 0.07 && resumed.params.warmup == 1.5);
    eq_train_options_free(&resumed);
    eq_train_options_free(&run);
    EQ_TEST_OK(eq_meta_write(&meta, &texts));
    int num_seen = 0;
    for (size_t i = 0; i < texts.num; i++) {
        if (strcmp(texts.items[i].key, "mean") != 0 && strcmp(texts.items[i].key, "std") != 0)
            continue;
        ck_assert_str_eq(texts.items[i].value, *texts.items[i].key == 'm' ? "[0.5, 0.25, 1]" : "[0.125, 0.5, 2]");
        num_seen++;
    }
    ck_assert_int_eq(num_seen, 2);
    eq_texts_free(&texts);
}

// Files are those of other programs, whatever the calling one has for a decimal point.
START_TEST(test_locale)
{
    char folder[] = "/tmp/equil-locale-XXXXXX", command[64];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    if (choose_comma(folder))
        check_texts_of_comma();
    else
        printf("# skipped: no locale with a decimal comma can be made (localedef and its sources)\n");
    setlocale(LC_ALL, "C");
    unsetenv("LOCPATH");
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

EQ_TEST_MAIN("options", { test_small_defaults, 0 }, { test_large_defaults, 0 }, { test_switched_off, 0 },
             { test_fewer_images, 0 }, { test_refused, sizeof refused / sizeof *refused }, { test_resume_takes_over, 0 },
             { test_resume_given, sizeof given / sizeof *given }, { test_resume_paths, 0 },
             { test_path_texts, sizeof paths / sizeof *paths }, { test_locale, 0 })

// A command line, words apart by line ends, for a table with an option of every kind.
#include "cli/args.h"
#include "fuzz.h"

enum { MAX_WORDS = 32 };

static struct {
    bool fast, epochs_given;
    int epochs;
    int64_t seed;
    double rate;
    const char *data, *schedule;
} values;

static const struct arg_option options[] = {
    { .name = "fast", .kind = ARG_FLAG, .value = &values.fast, .help = "a flag" },
    { .name = "epochs",
      .kind = ARG_INT,
      .value = &values.epochs,
      .fallback = "30",
      .min = 1,
      .max = 100,
      .help = "passes",
      .is_given = &values.epochs_given },
    { .name = "seed", .kind = ARG_INT64, .value = &values.seed, .fallback = "7", .help = "seed" },
    { .name = "rate", .kind = ARG_FLOAT, .value = &values.rate, .fallback = "0.5", .max = 1, .help = "learning rate" },
    { .name = "data", .kind = ARG_STRING, .value = &values.data, .metavar = "DIR", .help = "images" },
    { .name = "schedule",
      .kind = ARG_CHOICE,
      .value = &values.schedule,
      .fallback = "cosine",
      .choices = "step|cosine",
      .help = "rate" },
    { 0 },
};
static const struct arg_spec spec = {
    .command = "fuzz",
    .summary = "Fuzzes.",
    .positional = "FILE...",
    .max_positional = 2,
    .options = options,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char *text = fuzz_text(data, bytes), *argv[MAX_WORDS + 2] = { (char[]){ "fuzz" } }, *word = text;
    int argc = 1;
    while (word && argc <= MAX_WORDS) {
        argv[argc++] = word;
        word = strchr(word, '\n');
        if (word)
            *word++ = '\0';
    }
    struct arg_result result = { .exit_code = -1 };
    if (args_parse(&spec, argc, argv, &result) == ARGS_RUN) {
        CHECK(values.epochs >= 1 && values.epochs <= 100 && values.rate >= 0 && values.rate <= 1);
        CHECK(strcmp(values.schedule, "step") == 0 || strcmp(values.schedule, "cosine") == 0);
        CHECK(result.num_positional >= 0 && result.num_positional <= 2);
        for (int i = 0; i < result.num_positional; i++)
            CHECK(result.positional[i] >= text && result.positional[i] <= text + bytes);
    } else {
        CHECK(result.exit_code == 0 || result.exit_code == 2);
    }
    free(text);
    return 0;
}

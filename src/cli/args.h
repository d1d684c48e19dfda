// Command-line options from a table.
//
//     int epochs;
//     const char *data;
//     const struct arg_option options[] = {
//         { .name = "data", .kind = ARG_STRING, .value = &data, .metavar = "DIR", .is_required = true, .help = "images" },
//         { .name = "epochs", .kind = ARG_INT, .value = &epochs, .fallback = "30", .min = 1, .max = 999, .help = "passes" },
//         { 0 },
//     };
//     const struct arg_spec spec = { .command = "train", .summary = "Trains a network.", .options = options };
//     struct arg_result args;
//     if (args_parse(&spec, argc, argv, &args) != ARGS_RUN)
//         return args.exit_code;
//
// Options are written --name value or --name=value, flags --name, in any order; "--" ends them. --help is always there. When an
// option is given twice the last one counts.
#ifndef EQUIL_CLI_ARGS_H
#define EQUIL_CLI_ARGS_H

#include <stdbool.h>
#include <stdint.h>

enum arg_kind {
    ARG_FLAG,   // value: bool *
    ARG_INT,    // value: int *
    ARG_INT64,  // value: int64_t *
    ARG_FLOAT,  // value: double *
    ARG_STRING, // value: const char **
    ARG_CHOICE, // value: const char **, one of `choices`
};

struct arg_option {
    const char *name; // without dashes; NULL ends a table
    enum arg_kind kind;
    void *value;          // set by args_parse() to the fallback, then to what is given
    const char *fallback; // default as text, shown in the help; NULL: 0, NULL or false
    const char *choices;  // ARG_CHOICE: "step|cosine"
    double min, max;      // numbers: range, both ends included; both 0: any
    bool is_required;
    bool *is_given;      // NULL, or set to whether the option was on the command line
    const char *metavar; // name of the value in the help; NULL: N, X, TEXT or the choices
    const char *help;    // a sentence without a final dot; '\n' starts another line
};

struct arg_spec {
    const char *command;                // "train"
    const char *summary;                // what it does, shown first
    const char *positional;             // how the help names positional arguments, "IMAGE..."; NULL: none
    int min_positional, max_positional; // max -1: any number
    const struct arg_option *options;
    const char *notes; // text after the options; NULL: none
};

enum args_outcome { ARGS_RUN, ARGS_EXIT };

struct arg_result {
    int exit_code;     // for ARGS_EXIT: 0 after --help, 2 after a usage error (which is on stderr)
    char **positional; // in the caller's argv
    int num_positional;
};

// argv[0] is the command's name. Moves positional arguments to the front of argv.
enum args_outcome args_parse(const struct arg_spec *spec, int argc, char **argv, struct arg_result *result);

// For a table whose options are not for all that the command does. args_note_given() before args_parse() lets `given`, a flag
// for each option, say what was on the command line; args_other() is then the name of the first of those that is not among
// `names`, which NULL ends; NULL: there is none.
void args_note_given(struct arg_option *options, bool *given);
const char *args_other(const struct arg_option *options, const char *const *names);
bool args_are_given(const struct arg_option *options, const char *name); // the option of that name was

// The options most commands share.
#define ARG_OPTION_DEVICE(variable)                                                                                          \
    {                                                                                                                        \
        .name = "device", .kind = ARG_STRING, .value = (variable), .metavar = "DEVICE",                                      \
        .help = "part of a device's name, vendor or platform, an index, gpu or cpu\n"                                        \
                "(default: $EQUIL_DEVICE, else the first GPU, else the first CPU)"                                           \
    }
#define ARG_OPTION_PRECISION(variable)                                                                                       \
    {                                                                                                                        \
        .name = "precision", .kind = ARG_CHOICE, .value = (variable), .choices = "fp32|tf32|fp16|bf16",                      \
        .help = "of what convolutions multiply; other than fp32 is for devices with matrix\nunits, and emulated elsewhere, " \
                "slowly (default: $EQUIL_PRECISION, else fp32)"                                                              \
    }
#define ARG_OPTION_JSON(variable)                                                                 \
    {                                                                                             \
        .name = "json", .kind = ARG_FLAG, .value = (variable), .help = "print the result as JSON" \
    }

#endif

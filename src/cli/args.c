// One pass over argv with the table; the help text comes from the same table, so that the two cannot differ.
#include "args.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"

enum { HELP_COLUMN = 30 };

static const struct arg_option *find_option(const struct arg_spec *spec, const char *name, size_t length)
{
    for (const struct arg_option *option = spec->options; option->name; option++)
        if (strlen(option->name) == length && memcmp(option->name, name, length) == 0)
            return option;
    return NULL;
}

// An option that begins like `name`, or that `name` begins like, for "did you mean".
static const char *similar_option(const struct arg_spec *spec, const char *name, size_t length)
{
    for (const struct arg_option *option = spec->options; option->name; option++) {
        size_t own = strlen(option->name), common = own < length ? own : length;
        if (common >= 3 && memcmp(option->name, name, common) == 0)
            return option->name;
    }
    return NULL;
}

static bool is_choice(const char *choices, const char *text)
{
    size_t length = strlen(text);
    while (length > 0 && choices) {
        const char *end = strchr(choices, '|');
        size_t own = end ? (size_t)(end - choices) : strlen(choices);
        if (own == length && memcmp(choices, text, length) == 0)
            return true;
        choices = end ? end + 1 : NULL;
    }
    return false;
}

static int number_error(const struct arg_spec *spec, const struct arg_option *option, const char *text, const char *what)
{
    if (option->min == 0 && option->max == 0)
        return usage_error(spec->command, "--%s is \"%s\": %s is needed", option->name, text, what);
    return usage_error(spec->command, "--%s is \"%s\": %s from %.15g to %.15g is needed", option->name, text, what, option->min,
                       option->max);
}

static bool in_range(const struct arg_option *option, double value)
{
    return (option->min == 0 && option->max == 0) || (value >= option->min && value <= option->max);
}

// Returns 0, or the exit code of the usage error.
static int set_integer(const struct arg_spec *spec, const struct arg_option *option, const char *text)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    bool fits = option->kind == ARG_INT64 || (value >= INT_MIN && value <= INT_MAX);
    if (end == text || *end || errno || !fits || !in_range(option, (double)value))
        return number_error(spec, option, text, "a whole number");
    if (option->kind == ARG_INT)
        *(int *)option->value = (int)value;
    else
        *(int64_t *)option->value = value;
    return 0;
}

static int set_float(const struct arg_spec *spec, const struct arg_option *option, const char *text)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    bool is_finite = value - value == 0;
    if (end == text || *end || !is_finite || !in_range(option, value))
        return number_error(spec, option, text, "a number");
    *(double *)option->value = value;
    return 0;
}

static int set_value(const struct arg_spec *spec, const struct arg_option *option, const char *text)
{
    switch (option->kind) {
    case ARG_FLAG: *(bool *)option->value = true; return 0;
    case ARG_INT:
    case ARG_INT64: return set_integer(spec, option, text);
    case ARG_FLOAT: return set_float(spec, option, text);
    case ARG_STRING:
        if (!*text)
            return usage_error(spec->command, "--%s is empty", option->name);
        *(const char **)option->value = text;
        return 0;
    case ARG_CHOICE:
        if (!is_choice(option->choices, text))
            return usage_error(spec->command, "--%s is \"%s\": one of %s is needed", option->name, text, option->choices);
        *(const char **)option->value = text;
        return 0;
    }
    return 0;
}

static void set_fallback(const struct arg_spec *spec, const struct arg_option *option)
{
    if (option->is_given)
        *option->is_given = false;
    if (option->kind == ARG_FLAG)
        *(bool *)option->value = false;
    else if (option->kind == ARG_STRING || option->kind == ARG_CHOICE)
        *(const char **)option->value = option->fallback;
    else if (option->kind == ARG_FLOAT)
        *(double *)option->value = 0;
    else if (option->kind == ARG_INT)
        *(int *)option->value = 0;
    else
        *(int64_t *)option->value = 0;
    if (option->fallback)
        set_value(spec, option, option->fallback);
}

static const char *value_name(const struct arg_option *option)
{
    if (option->metavar)
        return option->metavar;
    switch (option->kind) {
    case ARG_FLAG: return NULL;
    case ARG_INT:
    case ARG_INT64: return "N";
    case ARG_FLOAT: return "X";
    case ARG_STRING: return "TEXT";
    case ARG_CHOICE: return option->choices;
    }
    return NULL;
}

static void print_option(const char *name, const char *value, const char *help, const char *fallback)
{
    int width = printf(value ? "  --%s %s" : "  --%s", name, value);
    if (width > HELP_COLUMN - 2) {
        putchar('\n');
        width = 0;
    }
    printf("%*s", HELP_COLUMN - width, "");
    for (const char *c = help; *c; c++) {
        putchar(*c);
        if (*c == '\n')
            printf("%*s", HELP_COLUMN, "");
    }
    if (fallback)
        printf(" (default: %s)", fallback);
    putchar('\n');
}

static void print_help(const struct arg_spec *spec)
{
    printf("Usage: equil %s [options]%s%s\n\n%s\n\nOptions:\n", spec->command, spec->positional ? " " : "",
           spec->positional ? spec->positional : "", spec->summary);
    for (const struct arg_option *option = spec->options; option->name; option++) {
        char help[512];
        snprintf(help, sizeof help, "%s%s", option->help, option->is_required ? " (required)" : "");
        print_option(option->name, value_name(option), help, option->fallback);
    }
    print_option("help", NULL, "print this text", NULL);
    if (spec->notes)
        printf("\n%s\n", spec->notes);
}

// One option at argv[*i]; moves *i over a value of its own. Returns 0 or the exit code.
static int parse_option(const struct arg_spec *spec, int argc, char **argv, int *i)
{
    const char *name = argv[*i] + 2, *equals = strchr(name, '=');
    size_t length = equals ? (size_t)(equals - name) : strlen(name);
    const struct arg_option *option = find_option(spec, name, length);
    if (!option) {
        const char *similar = similar_option(spec, name, length);
        return usage_error(spec->command, "unknown option --%.*s%s%s%s", (int)length, name, similar ? "; did you mean --" : "",
                           similar ? similar : "", similar ? "?" : "");
    }
    const char *text = equals ? equals + 1 : NULL;
    if (option->kind == ARG_FLAG && text)
        return usage_error(spec->command, "--%s takes no value", option->name);
    if (option->kind != ARG_FLAG && !text) {
        if (*i + 1 >= argc || strncmp(argv[*i + 1], "--", 2) == 0)
            return usage_error(spec->command, "--%s needs a value: %s", option->name, value_name(option));
        text = argv[++*i];
    }
    if (option->is_given)
        *option->is_given = true;
    return set_value(spec, option, text);
}

static int check_positional(const struct arg_spec *spec, const struct arg_result *result)
{
    int num = result->num_positional;
    if (num < spec->min_positional)
        return usage_error(spec->command, "%s is missing", spec->positional);
    if (spec->max_positional >= 0 && num > spec->max_positional)
        return usage_error(spec->command, "unexpected argument \"%s\"", result->positional[spec->max_positional]);
    return 0;
}

static enum args_outcome leave(struct arg_result *result, int exit_code)
{
    result->exit_code = exit_code;
    return ARGS_EXIT;
}

enum args_outcome args_parse(const struct arg_spec *spec, int argc, char **argv, struct arg_result *result)
{
    *result = (struct arg_result){ .positional = argv };
    for (const struct arg_option *option = spec->options; option->name; option++)
        set_fallback(spec, option);

    unsigned long long seen[4] = { 0 }; // bit per option, for the required ones
    bool options_ended = false;
    for (int i = 1; i < argc; i++) {
        char *text = argv[i];
        if (options_ended || text[0] != '-' || text[1] == '\0') {
            argv[result->num_positional++] = text;
        } else if (strcmp(text, "--") == 0) {
            options_ended = true;
        } else if (strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0) {
            print_help(spec);
            return leave(result, 0);
        } else if (text[1] != '-') {
            return leave(result, usage_error(spec->command, "unknown option %s: options begin with --", text));
        } else {
            int exit_code = parse_option(spec, argc, argv, &i);
            if (exit_code)
                return leave(result, exit_code);
            size_t length = strcspn(text + 2, "=");
            size_t index = (size_t)(find_option(spec, text + 2, length) - spec->options);
            seen[index / 64 % 4] |= 1ull << index % 64;
        }
    }
    for (size_t index = 0; spec->options[index].name; index++)
        if (spec->options[index].is_required && !(seen[index / 64 % 4] >> index % 64 & 1))
            return leave(result, usage_error(spec->command, "--%s is missing", spec->options[index].name));
    int exit_code = check_positional(spec, result);
    return exit_code ? leave(result, exit_code) : ARGS_RUN;
}

void args_note_given(struct arg_option *options, bool *given)
{
    for (int i = 0; options[i].name; i++)
        options[i].is_given = &given[i];
}

bool args_are_given(const struct arg_option *options, const char *name)
{
    while (options->name && strcmp(options->name, name) != 0)
        options++;
    return options->name && *options->is_given;
}

const char *args_other(const struct arg_option *options, const char *const *names)
{
    for (; options->name; options++) {
        int n = 0;
        while (names[n] && strcmp(names[n], options->name) != 0)
            n++;
        if (*options->is_given && !names[n])
            return options->name;
    }
    return NULL;
}

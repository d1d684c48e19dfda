// equil doctor: why is there no device, or not the one that should be? Looks at everything between the program and the
// hardware, from below, without needing any of it to work.
#include "doctor.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "args.h"
#include "command.h"

enum { MAX_TEXT = 2048 };

static const char *const verdicts[DOCTOR_NUM_VERDICTS] = { "ok", "note", "problem" };

void doctor_say(struct doctor *doctor, enum doctor_verdict verdict, const char *subject, const char *format, ...)
{
    char text[MAX_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    doctor->counts[verdict]++;
    json_array_append_new(doctor->findings, json_pack("{s:s, s:s, s:o, s:[]}", "verdict", verdicts[verdict], "subject", subject,
                                                      "text", json_text(text), "advice"));
    if (!doctor->is_json)
        printf("%-8s %-9s %s\n", verdicts[verdict], subject, text);
}

void doctor_advise(struct doctor *doctor, const char *format, ...)
{
    char text[MAX_TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    json_t *last = json_array_get(doctor->findings, json_array_size(doctor->findings) - 1);
    json_array_append_new(json_object_get(last, "advice"), json_text(text));
    if (!doctor->is_json)
        printf("%18s -> %s\n", "", text);
}

const char *doctor_variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

bool doctor_has_usable_device(const struct doctor *doctor)
{
    for (int i = 0; i < doctor->num_devices; i++)
        if (doctor->devices[i].is_usable)
            return true;
    return false;
}

static int finish(struct doctor *doctor)
{
    const int num_problems = doctor->counts[DOCTOR_PROBLEM], num_notes = doctor->counts[DOCTOR_NOTE];
    int exit_code = num_problems ? EXIT_FAILED : EXIT_SUCCESS;
    if (doctor->is_json) {
        const int printed = json_print(
            json_pack("{s:O, s:i, s:i}", "findings", doctor->findings, "problems", num_problems, "notes", num_notes));
        exit_code = printed ? printed : exit_code;
    } else {
        printf("%d problem%s, %d note%s\n", num_problems, num_problems == 1 ? "" : "s", num_notes, num_notes == 1 ? "" : "s");
    }
    json_decref(doctor->findings);
    free(doctor->platforms);
    eq_device_list_free(&doctor->devices);
    return exit_code;
}

static int run_doctor(int argc, char **argv)
{
    struct doctor doctor = { .findings = NULL };
    const struct arg_option options[] = {
        { .name = "root",
          .kind = ARG_STRING,
          .value = &doctor.root,
          .fallback = "/",
          .metavar = "DIR",
          .help = "folder whose dev, etc and sys are looked at" },
        ARG_OPTION_DEVICE(&doctor.device),
        ARG_OPTION_JSON(&doctor.is_json),
        { 0 },
    };
    const struct arg_spec spec = {
        .command = "doctor",
        .summary = "Looks at everything that OpenCL devices depend on, the loader, drivers, GPUs and their nodes in /dev, "
                   "caches, and\n"
                   "says what is wrong and what to do about it. Exit code 0: no problem.",
        .options = options,
        .notes = "With --device only that device is tried; otherwise all of them.",
    };
    struct arg_result args;
    if (args_parse(&spec, argc, argv, &args) != ARGS_RUN)
        return args.exit_code;
    struct stat root;
    if (stat(doctor.root, &root) != 0 || !S_ISDIR(root.st_mode)) {
        message("--root %s: %s", doctor.root, strerror(stat(doctor.root, &root) != 0 ? errno : ENOTDIR));
        return EXIT_FAILED;
    }
    if (strcmp(doctor.root, "/") == 0)
        doctor.root = "";
    doctor.findings = json_array();
    doctor_check_loader(&doctor);
    doctor_check_drivers(&doctor);
    doctor_check_platforms(&doctor);
    doctor_check_gpus(&doctor);
    doctor_check_caches(&doctor);
    doctor_check_threads(&doctor);
    doctor_check_devices(&doctor);
    return finish(&doctor);
}

const struct command command_doctor = { "doctor", "find out why a device is missing or does not work, and what to do",
                                        run_doctor };

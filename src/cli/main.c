// The command `equil`: finds the subcommand and runs it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "equil/equil.h"
#include "output.h"
#include "signals.h"
#include "workers.h"

static const struct command *const commands[] = {
    &command_train, &command_eval, &command_classify, &command_run,     &command_grad,   &command_info,
    &command_bench, &command_tune, &command_compile,  &command_devices, &command_doctor, &command_verify,
};
enum { NUM_COMMANDS = sizeof commands / sizeof commands[0] };

static void print_help(void)
{
    printf("Usage: equil COMMAND [options]\n\n"
           "Trains and runs Channel Equilibrium networks on any OpenCL device.\n\nCommands:\n");
    for (int i = 0; i < NUM_COMMANDS; i++)
        printf("  %-10s  %s\n", commands[i]->name, commands[i]->help);
    printf("\n'equil COMMAND --help' has the options of a command. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a "
           "comparison found something slower, 130 train or tune were stopped by Ctrl-C, SIGTERM or SIGHUP.\n");
}

static void print_log(void *user, enum eq_log_level level, const char *text)
{
    (void)user;
    message("%s%s", level == EQ_LOG_WARNING ? "warning: " : "", text);
}

static int run_command(int argc, char **argv)
{
    if (argc < 2)
        return usage_error(NULL, "a command is missing");
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_help();
        return EXIT_SUCCESS;
    }
    if (strcmp(name, "--version") == 0) {
        printf("equil %s\n", eq_version());
        return EXIT_SUCCESS;
    }
    for (int i = 0; i < NUM_COMMANDS; i++)
        if (strcmp(name, commands[i]->name) == 0)
            return commands[i]->run(argc - 1, argv + 1);
    return usage_error(NULL, "unknown %s \"%s\"", name[0] == '-' ? "option" : "command", name);
}

int main(int argc, char **argv)
{
    signals_remember();
    eq_log_set(print_log, NULL, EQ_LOG_WARNING);
    workers_allow();
    int exit_code = run_command(argc, argv);
    // A full disk or a closed pipe shows here at the latest.
    if ((fflush(stdout) != 0 || ferror(stdout)) && exit_code == EXIT_SUCCESS) {
        message("cannot write to standard output");
        return EXIT_FAILED;
    }
    return exit_code;
}

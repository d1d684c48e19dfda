// A subcommand: one file that defines `const struct command command_<name>`, and a row in main.c.
#ifndef EQUIL_CLI_COMMAND_H
#define EQUIL_CLI_COMMAND_H

// Exit codes of the program. EXIT_SUCCESS is 0.
enum { EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_SLOWER = 3, EXIT_STOPPED = 130 };

struct command {
    const char *name;
    const char *help; // one line
    // argv[0] is the command's name. Returns the exit code.
    int (*run)(int argc, char **argv);
};

extern const struct command command_devices, command_train, command_eval, command_classify, command_run, command_grad,
    command_info, command_bench, command_tune, command_compile, command_doctor, command_verify;

#endif

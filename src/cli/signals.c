#include "signals.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

static const int asking[] = { SIGINT, SIGTERM, SIGHUP };
enum { NUM_ASKING = sizeof asking / sizeof *asking };

static bool is_ignored[NUM_ASKING];
static void (*on_stop)(void);

void signals_remember(void)
{
    struct sigaction action;
    for (int i = 0; i < NUM_ASKING; i++)
        is_ignored[i] = sigaction(asking[i], NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

static void on_signal(int number)
{
    (void)number;
    on_stop();
}

static void set_handler(void (*handler)(int))
{
    for (int i = 0; i < NUM_ASKING; i++) {
        struct sigaction action = { .sa_handler = is_ignored[i] ? SIG_IGN : handler,
                                    .sa_flags = (int)(SA_RESETHAND | SA_RESTART) };
        sigemptyset(&action.sa_mask);
        sigaction(asking[i], &action, NULL);
    }
}

void signals_catch(void (*stop)(void))
{
    on_stop = stop;
    set_handler(on_signal);
}

void signals_release(void)
{
    set_handler(SIG_DFL);
}

void signals_ignore_pipe(void)
{
    signal(SIGPIPE, SIG_IGN);
}

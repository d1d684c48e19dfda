// Signals that ask a command for an end: Ctrl-C, SIGTERM and SIGHUP, of a terminal that is closed.
#ifndef EQUIL_CLI_SIGNALS_H
#define EQUIL_CLI_SIGNALS_H

// What was ignored when the program was started (nohup, the background of a script) stays ignored. Call it first: drivers bring
// compilers that set handlers of their own.
void signals_remember(void);

// The first of the others calls `stop` from its handler, a second of the same kind ends the program.
void signals_catch(void (*stop)(void));
// From now on the first ends the program.
void signals_release(void);

// For a command that has something to save when nobody reads its messages any more: of `equil train 2>&1 | tee log` Ctrl-C ends
// tee, too. Processes that were started before have the signal as it was.
void signals_ignore_pipe(void);

#endif

// Faults for tests. A test program is linked with -Wl,--wrap=F for every function F of functions.txt: the library's calls of
// OpenCL and CLBlast, of malloc and its relatives, of file functions and of pthread_create() come to wrappers (fault_cl.c,
// fault_host.c), which count them, keep account of what lives, and make the chosen one fail, once or from there on. Calls that
// a driver, CLBlast or the C library makes itself are not the library's, and are left alone; Jansson's memory comes through
// hooks that it has, and libjpeg runs out of memory in the calls that would allocate.
//
//     static void infer(void)                      // a scenario: from nothing to nothing
//     {
//         struct eq_session *session = NULL;
//         if (fault_ok(eq_session_create(weights, graph, NULL, &session)) && fault_ok(eq_session_run(session)) && ...)
//             fault_result(logits, sizeof logits);
//         fault_ending();                          // what follows cannot report a failure
//         eq_session_destroy(&session);
//     }
//     fault_sweep(&(struct fault_scenario){ .name = "inference", .run = infer, .kinds = FAULT_ALL });
//
// Calls in the library's destructors count too, and waits of eq_device_settle() and eq_ticket_drop(), which report nothing, may
// fail unseen. The sweep runs the scenario undisturbed, which counts the calls, and then once for each call that fails. Then:
// the run ends (no crash, no hang); either a call reported it, with the status of the kind and a text with the reason in it, or
// the library called the function again, or the scenario lists it as harmless, and the results are those of the undisturbed
// run, bit for bit; and nothing lives that did not live before. A run takes the first and the last call of every call path;
// EQUIL_FAULTS=all takes every call, EQUIL_FAULTS="inference:cl:137:once" this one alone.
#ifndef EQ_TEST_FAULT_H
#define EQ_TEST_FAULT_H

#include "support/support.h"

enum fault_kind {
    FAULT_CL,            // OpenCL and CLBlast
    FAULT_MEMORY,        // malloc and its relatives, on the thread that sweeps
    FAULT_WORKER_MEMORY, // and on others
    FAULT_FILE,          // opening, reading, writing, syncing, renaming
    FAULT_THREAD,        // pthread_create()
    FAULT_NUM_KINDS
};
#define FAULT_ALL ((1u << FAULT_NUM_KINDS) - 1)

struct fault_scenario {
    const char *name;
    unsigned kinds;              // bits 1 << FAULT_...
    void (*run)(void);           // from nothing to nothing
    void (*before)(void);        // each run, undisturbed; NULL: nothing
    void (*after)(bool is_hurt); // each run, undisturbed; is_hurt: a call reported a failure
    const char *harmless;        // " F G ": functions whose failure changes no result and need not be reported
    const char *survived; // " F G ": functions that are called again: one failure must not be reported, and results are to be
                          // right; NULL: those that a device with a queue of its own calls again. For good it is reported
    bool every;           // every call, once and for good
    int one_of; // of OpenCL's calls and memory's every so many paths are enough where not all are asked for; 0 means 1
};
void fault_sweep(const struct fault_scenario *scenario);

// ---- for scenarios

// Whether the call succeeded; keeps the first failure's status and text.
bool fault_ok(eq_status status);
// Adds to the results that are to be the undisturbed run's wherever no failure was reported.
void fault_result(const void *data, size_t bytes);
// The fault is over, and what is tried again has to work: true after the only fault of a run that was reported. Results have to
// be the undisturbed run's then too.
bool fault_try_again(void);
void fault_ending(void);
// Says what is wrong with the run that ended, from after(); the sweep goes on, and fails.
void fault_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

// ---- files of scenarios

// Path in a folder of this program, which goes when it ends. Valid until the fourth call after it.
const char *fault_path(const char *name);
void fault_remove(const char *name); // a file, or a folder with all that is in it, of that folder; may be missing
// For before() and after(): an old file of that name is there, and what a failure leaves is this, byte for byte, or the whole
// new one, which is always the same; and no temporary file, unless nothing could remove it.
void fault_file_before(const char *name);
void fault_file_after(const char *name, bool is_hurt);

// ---- for wrappers

// Counts a call of the library, and says whether this one is to fail. `code`: the name of the reason, which has to stand in the
// library's text.
bool fault_hits(enum fault_kind kind, const char *function, const char *code);
// Whether calls fail from now on for good: waiting is then still done, for a device that is gone runs nothing.
bool fault_is_for_good(void);

enum fault_object {
    FAULT_BUFFER,
    FAULT_CONTEXT,
    FAULT_EVENT,
    FAULT_KERNEL,
    FAULT_PROGRAM,
    FAULT_QUEUE,
    FAULT_FILES,
    FAULT_NUM_OBJECTS
};
void fault_lives(enum fault_object object, int change);
void fault_owns(void *memory, size_t bytes); // of the library, until fault_disowns()
void fault_disowns(void *memory);

// Routes Jansson's memory through the wrappers; called once by the first sweep.
void fault_route_memory(void);

// ---- what else a test asks of the wrappers

// While set, the platform does not say that it is PoCL: the library then keeps compiled programs in its own cache.
extern bool fault_hides_pocl;
// While set, clBuildProgram() fails with CL_OUT_OF_RESOURCES, and not as it does for a program that is wrong.
extern bool fault_builds_lack_resources;
// The process ends at call number fault_dies_at of the file functions, from 1, before it is done; 0: never.
extern long fault_dies_at;

#endif

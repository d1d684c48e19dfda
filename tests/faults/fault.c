// Counting, choosing, checking: see fault.h.
#define _XOPEN_SOURCE 700 // nftw()
#include "fault.h"

#include <execinfo.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MAX_CALLS = 1 << 16,
    MAX_OWNED = 1 << 17,
    DEPTH = 16,
    TEXT = 4096,
    RUN_SECONDS = 120,
    MAX_SHOWN = 40,
    MAX_FUNCTIONS = 48
};

static const char *const kind_names[FAULT_NUM_KINDS] = { "cl", "memory", "worker-memory", "file", "thread" };
static const char *const object_names[FAULT_NUM_OBJECTS] = { "buffers",  "contexts", "events",    "kernels",
                                                             "programs", "queues",   "open files" };

// The run that goes on, or went on last.
static struct {
    bool is_armed, is_recording, is_ending;
    pthread_t sweeper;
    enum fault_kind kind;
    long at; // number of the call that fails, from 1; 0: none
    bool for_good;
    long count[FAULT_NUM_KINDS];
    // the first call that failed
    char function[64], code[64];
    bool has_hit, hit_in_ending;
    char codes[256]; // of all of them: "A|B|"
    // what the library said
    eq_status status;
    char text[TEXT];
    bool has_tried_again;
    uint64_t result;
    size_t result_bytes;
} now;
static uint64_t paths[FAULT_NUM_KINDS][MAX_CALLS]; // of the undisturbed run: hash of the way to each call
static int live[FAULT_NUM_OBJECTS];
static struct owned {
    void *memory;
    size_t bytes;
    void *way[DEPTH];
    int depth;
} owned[MAX_OWNED];
static size_t num_owned;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *only;  // EQUIL_FAULTS
static char running[256]; // the run's name as EQUIL_FAULTS takes it, for the handler of signals

// ---- account of what lives

static size_t slot_of(const void *memory)
{
    return (size_t)((uint64_t)(uintptr_t)memory * 0x9e3779b97f4a7c15ull >> 40) % MAX_OWNED;
}

void fault_owns(void *memory, size_t bytes)
{
    if (!memory)
        return;
    pthread_mutex_lock(&lock);
    if (num_owned == MAX_OWNED / 2)
        abort(); // no assertion here: Check allocates for each
    size_t at = slot_of(memory);
    while (owned[at].memory)
        at = (at + 1) % MAX_OWNED;
    owned[at] = (struct owned){ .memory = memory, .bytes = bytes };
    if (only) // one run alone: who allocated is told
        owned[at].depth = backtrace(owned[at].way, DEPTH);
    num_owned++;
    pthread_mutex_unlock(&lock);
}

// What stands behind the place moves up, as far as it is in its place then.
static void close_gap(size_t gap)
{
    for (size_t at = (gap + 1) % MAX_OWNED; owned[at].memory; at = (at + 1) % MAX_OWNED) {
        const size_t home = slot_of(owned[at].memory);
        if ((at - home + MAX_OWNED) % MAX_OWNED < (at - gap + MAX_OWNED) % MAX_OWNED)
            continue;
        owned[gap] = owned[at];
        gap = at;
    }
    owned[gap].memory = NULL;
}

void fault_disowns(void *memory)
{
    pthread_mutex_lock(&lock);
    for (size_t at = slot_of(memory); memory && owned[at].memory; at = (at + 1) % MAX_OWNED)
        if (owned[at].memory == memory) {
            close_gap(at);
            num_owned--;
            break;
        }
    pthread_mutex_unlock(&lock);
}

void fault_lives(enum fault_object object, int change)
{
    pthread_mutex_lock(&lock);
    live[object] += change;
    pthread_mutex_unlock(&lock);
}

// ---- wrappers ask

// Addresses of the program's own code only: what called the library's function, and so on up to the scenario.
static uint64_t path_here(const char *function)
{
    void *way[DEPTH];
    const int depth = backtrace(way, DEPTH);
    return eq_fnv1a(way + 2, sizeof *way * (size_t)(depth > 2 ? depth - 2 : 0),
                    eq_fnv1a(function, strlen(function), EQ_FNV_START));
}

static bool has_code(const char *code)
{
    const char *at = strstr(now.codes, code);
    return at && at[strlen(code)] == '|';
}

// Waits that report nothing.
static int num_settling;
void __real_eq_device_settle(struct eq_device *device);
void __wrap_eq_device_settle(struct eq_device *device);
void __wrap_eq_device_settle(struct eq_device *device)
{
    num_settling++;
    __real_eq_device_settle(device);
    num_settling--;
}

void __real_eq_ticket_drop(struct eq_ticket *ticket);
void __wrap_eq_ticket_drop(struct eq_ticket *ticket);
void __wrap_eq_ticket_drop(struct eq_ticket *ticket)
{
    num_settling++;
    __real_eq_ticket_drop(ticket);
    num_settling--;
}

bool fault_hits(enum fault_kind kind, const char *function, const char *code)
{
    if (!now.is_armed)
        return false;
    if (!pthread_equal(pthread_self(), now.sweeper)) {
        if (kind != FAULT_MEMORY)
            return false; // where several threads open files, the number of a call says little
        kind = FAULT_WORKER_MEMORY;
    }
    const uint64_t path = now.is_recording ? path_here(function) : 0;
    pthread_mutex_lock(&lock);
    const long number = ++now.count[kind];
    if (now.is_recording && number <= MAX_CALLS)
        paths[kind][number - 1] = path;
    const bool hits = kind == now.kind && now.at > 0 && (now.for_good ? number >= now.at : number == now.at);
    if (hits && !has_code(code) && strlen(now.codes) + strlen(code) + 2 < sizeof now.codes)
        strcat(strcat(now.codes, code), "|");
    if (hits && !now.has_hit) {
        now.has_hit = true;
        now.hit_in_ending = now.is_ending || num_settling > 0;
        snprintf(now.function, sizeof now.function, "%s", function);
        snprintf(now.code, sizeof now.code, "%s", code);
        if (only && strcmp(only, "all") != 0) { // one run alone: who asked is told
            void *way[DEPTH];
            backtrace_symbols_fd(way, backtrace(way, DEPTH), STDERR_FILENO);
        }
    }
    pthread_mutex_unlock(&lock);
    return hits;
}

bool fault_is_for_good(void)
{
    return now.for_good;
}

// ---- scenarios say

bool fault_ok(eq_status status)
{
    if (status != EQ_OK && now.status == EQ_OK) {
        now.status = status;
        snprintf(now.text, sizeof now.text, "%s", eq_last_error());
    }
    return status == EQ_OK;
}

void fault_result(const void *data, size_t bytes)
{
    now.result = eq_fnv1a(data, bytes, now.result);
    now.result_bytes += bytes;
}

bool fault_try_again(void)
{
    if (now.status == EQ_OK || now.for_good || now.has_tried_again)
        return false;
    now.result = EQ_FNV_START;
    now.result_bytes = 0;
    now.has_tried_again = true;
    return true;
}

void fault_ending(void)
{
    now.is_ending = true;
}

// ---- a run

static int num_complaints;

// Says what is wrong with the run; the sweep goes on.
void fault_complain(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (num_complaints++ < MAX_SHOWN) {
        printf("# EQUIL_FAULTS=%s: %s failed with %s: ", running, *now.function ? now.function : "nothing", now.code);
        vprintf(format, args);
        printf("\n");
    }
    va_end(args);
}

// The state before, to compare with.
struct account {
    int live[FAULT_NUM_OBJECTS];
    size_t num_owned;
};

static struct account account_now(void)
{
    struct account account = { .num_owned = num_owned };
    memcpy(account.live, live, sizeof live);
    return account;
}

static void on_signal(int signal_number)
{
    static const char what[] = "\nBail out! killed in the run EQUIL_FAULTS=";
    ssize_t written = write(STDOUT_FILENO, what, sizeof what - 1);
    written += write(STDOUT_FILENO, running, strlen(running));
    written += write(STDOUT_FILENO, "\n", 1);
    signal(signal_number, SIG_DFL);
    raise(written > 0 ? signal_number : SIGKILL);
}

static void print_owned(void)
{
    for (size_t at = 0; only && at < MAX_OWNED; at++)
        if (owned[at].memory) {
            fprintf(stderr, "%zu bytes are still there, of\n", owned[at].bytes);
            backtrace_symbols_fd(owned[at].way, owned[at].depth, STDERR_FILENO);
        }
}

static void check_account(const struct account *before)
{
    for (int o = 0; o < FAULT_NUM_OBJECTS; o++)
        if (live[o] != before->live[o])
            fault_complain("%d %s more than before", live[o] - before->live[o], object_names[o]);
    if (num_owned == before->num_owned)
        return;
    print_owned();
    fault_complain("%ld allocations more than before", (long)num_owned - (long)before->num_owned);
}

static bool is_warm; // what is made once for the process has been made

static void run_once(const struct fault_scenario *scenario, enum fault_kind kind, long at, bool for_good)
{
    if (scenario->before)
        scenario->before();
    const struct account before = account_now();
    memset(&now, 0, sizeof now);
    now.sweeper = pthread_self();
    now.kind = kind;
    now.at = at;
    now.for_good = for_good;
    now.result = EQ_FNV_START;
    now.is_recording = at == 0;
    snprintf(running, sizeof running, "%s:%s:%ld:%s", scenario->name, kind_names[kind], at, for_good ? "good" : "once");
    alarm(RUN_SECONDS);
    now.is_armed = true;
    scenario->run();
    now.is_armed = false;
    alarm(0);
    if (is_warm)
        check_account(&before);
    if (scenario->after)
        scenario->after(now.status != EQ_OK);
}

static bool has_word(const char *words, const char *word)
{
    char text[80];
    snprintf(text, sizeof text, " %s ", word);
    return words && strstr(words, text);
}

// Statuses that a fault of the kind may give.
static bool is_status_of(enum fault_kind kind, eq_status status)
{
    switch (kind) {
    case FAULT_CL: return status == EQ_ERR_DEVICE || status == EQ_ERR_DEVICE_MEMORY || status == EQ_ERR_BUILD;
    case FAULT_MEMORY:
    case FAULT_WORKER_MEMORY:
    case FAULT_THREAD: return status == EQ_ERR_HOST_MEMORY;
    default: return status == EQ_ERR_IO;
    }
}

// Whether the reason of one of the calls that failed stands in the text.
static bool names_a_code(const char *text)
{
    char codes[sizeof now.codes], *rest = codes;
    memcpy(codes, now.codes, sizeof codes);
    for (char *code; (code = strsep(&rest, "|"));)
        if (*code && strstr(text, code))
            return true;
    return false;
}

// Whether the library has called the function again.
static bool is_survived(const struct fault_scenario *scenario)
{
    static const char own_queue[] = " clCreateBuffer clCreateProgramWithSource clCreateKernel ";
    return !now.for_good && has_word(scenario->survived ? scenario->survived : own_queue, now.function);
}

static void check_run(const struct fault_scenario *scenario, uint64_t want, size_t want_bytes)
{
    const bool is_reported = now.status != EQ_OK;
    const bool may_hide = now.hit_in_ending || now.kind == FAULT_WORKER_MEMORY || has_word(scenario->harmless, now.function) ||
                          is_survived(scenario);
    if (is_reported && is_survived(scenario))
        fault_complain("it was not called again: %s", now.text);
    if (!is_reported && !may_hide)
        fault_complain("nothing reports it");
    if (is_reported && !is_status_of(now.kind, now.status))
        fault_complain("the status is %s: %s", eq_status_name(now.status), now.text);
    if (is_reported && !names_a_code(now.text))
        fault_complain("the text is '%s'", now.text);
    if (is_reported && !strchr(now.text, ':'))
        fault_complain("'%s' does not say where", now.text);
    if ((!is_reported || now.has_tried_again) && (now.result != want || now.result_bytes != want_bytes))
        fault_complain("%s: the results are not those of the undisturbed run (%zu bytes for %zu): %s",
                       is_reported ? "tried again" : "not reported", now.result_bytes, want_bytes, eq_last_error());
}

// ---- files

static char folder[64];

static void remove_folder(void)
{
    fault_remove(".");
}

const char *fault_path(const char *name)
{
    static char paths[4][256];
    static int turn;
    if (!*folder) {
        snprintf(folder, sizeof folder, "/tmp/equil-faults-XXXXXX");
        ck_assert(mkdtemp(folder) != NULL);
        atexit(remove_folder);
    }
    turn = (turn + 1) % 4;
    snprintf(paths[turn], sizeof paths[turn], "%s/%s", folder, name);
    return paths[turn];
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info, (void)type, (void)walk;
    return remove(path);
}

void fault_remove(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s", strcmp(name, ".") == 0 ? folder : fault_path(name));
    nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

void fault_file_before(const char *name)
{
    FILE *file = fopen(fault_path(name), "wb");
    ck_assert(file && fputs("old", file) >= 0 && fclose(file) == 0);
}

static bool is_temporary(const char *name)
{
    return strstr(name, ".tmp.") != NULL;
}

void fault_file_after(const char *name, bool is_hurt)
{
    static uint64_t complete[8]; // by name: hash of what the undisturbed run wrote
    static char known[8][64];
    char *bytes, **names;
    size_t num, at = 0;
    while (at < 7 && *known[at] && strcmp(known[at], name) != 0)
        at++;
    snprintf(known[at], sizeof *known, "%s", name);
    EQ_TEST_OK(eq_file_read(fault_path(name), 1 << 24, &bytes, &num));
    const uint64_t hash = eq_fnv1a(bytes, num, EQ_FNV_START);
    complete[at] = complete[at] ? complete[at] : hash;
    if (hash != complete[at] && !(is_hurt && num == 3 && memcmp(bytes, "old", 3) == 0))
        fault_complain("%s is neither the old file nor the whole new one: %zu bytes", name, num);
    free(bytes);
    EQ_TEST_OK(eq_dir_list(folder, &names, &num));
    for (size_t i = 0; i < num; i++)
        if (is_temporary(names[i]) && !fault_is_for_good())
            fault_complain("%s is left", names[i]);
    eq_names_free(names, num);
}

// ---- sweeps

struct tally {
    long calls, paths, runs, reported, unharmed, recovered;
    struct {
        char name[64];
        int runs;
    } function[MAX_FUNCTIONS]; // that failed
};

static void count_function(struct tally *tally)
{
    int at = 0;
    while (at < MAX_FUNCTIONS - 1 && tally->function[at].runs && strcmp(tally->function[at].name, now.function) != 0)
        at++;
    snprintf(tally->function[at].name, sizeof tally->function[at].name, "%s", now.function);
    tally->function[at].runs++;
}

static void print_tally(const struct tally *tally, const char *scenario, const char *kind)
{
    printf("# %s, %s: %ld calls on %ld paths, %ld runs: %ld reported (%ld tried again with the same bits), %ld unharmed\n",
           scenario, kind, tally->calls, tally->paths, tally->runs, tally->reported, tally->recovered, tally->unharmed);
    for (int i = 0; i < MAX_FUNCTIONS && tally->function[i].runs; i++)
        printf("%s%s %d", i == 0 ? "#     " : ", ", tally->function[i].name, tally->function[i].runs);
    printf("\n");
    fflush(stdout);
}

// Whether call `at` is the first or the last of its path.
static bool is_chosen(enum fault_kind kind, long at, long count)
{
    bool is_first = true, is_last = true;
    for (long i = 0; i < at - 1 && is_first; i++)
        is_first = paths[kind][i] != paths[kind][at - 1];
    for (long i = at; i < count && is_last; i++)
        is_last = paths[kind][i] != paths[kind][at - 1];
    return is_first || is_last;
}

static long num_paths(enum fault_kind kind, long count)
{
    long num = 0;
    for (long at = 0; at < count; at++) {
        bool is_first = true;
        for (long i = 0; i < at && is_first; i++)
            is_first = paths[kind][i] != paths[kind][at];
        num += is_first;
    }
    return num;
}

static bool is_wanted(const struct fault_scenario *scenario, enum fault_kind kind, long at, bool for_good, long count,
                      long chosen)
{
    char name[256];
    if (only && strcmp(only, "all") != 0) {
        snprintf(name, sizeof name, "%s:%s:%ld:%s", scenario->name, kind_names[kind], at, for_good ? "good" : "once");
        return strcmp(only, name) == 0;
    }
    if (only || scenario->every)
        return true;
    const int one_of = scenario->one_of && kind <= FAULT_MEMORY ? scenario->one_of : 1;
    // for good: every fourth of those that fail once
    return is_chosen(kind, at, count) && chosen % (for_good ? 4 * one_of : one_of) == 0;
}

static void sweep_kind(const struct fault_scenario *scenario, enum fault_kind kind)
{
    struct tally tally = { 0 };
    run_once(scenario, kind, 0, false);
    const uint64_t want = now.result;
    const size_t want_bytes = now.result_bytes;
    ck_assert_msg(now.status == EQ_OK, "%s, undisturbed: %s", scenario->name, now.text);
    tally.calls = now.count[kind];
    ck_assert_msg(tally.calls > 0 && tally.calls <= MAX_CALLS, "%s: %ld calls of kind %s", scenario->name, tally.calls,
                  kind_names[kind]);
    tally.paths = num_paths(kind, tally.calls);
    long chosen = 0;
    for (long at = 1; at <= tally.calls; at++) {
        chosen += is_chosen(kind, at, tally.calls);
        for (int good = 0; good < 2; good++) {
            if (!is_wanted(scenario, kind, at, good, tally.calls, chosen))
                continue;
            run_once(scenario, kind, at, good);
            if (!now.has_hit && kind == FAULT_WORKER_MEMORY)
                continue; // threads: this run had fewer calls
            ck_assert_msg(now.has_hit, "EQUIL_FAULTS=%s: the run has no such call", running);
            check_run(scenario, want, want_bytes);
            tally.runs++;
            count_function(&tally);
            tally.reported += now.status != EQ_OK;
            tally.unharmed += now.status == EQ_OK;
            tally.recovered += now.has_tried_again;
        }
    }
    print_tally(&tally, scenario->name, kind_names[kind]);
}

void fault_sweep(const struct fault_scenario *scenario)
{
    static bool is_ready;
    only = getenv("EQUIL_FAULTS");
    if (!is_ready) {
        fault_route_memory();
        const int signals[] = { SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGALRM };
        for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
            signal(signals[i], on_signal);
        is_ready = true;
    }
    is_warm = false;
    run_once(scenario, FAULT_CL, 0, false); // programs of the device, and the like
    is_warm = true;
    num_complaints = 0;
    for (int kind = 0; kind < FAULT_NUM_KINDS; kind++)
        if (scenario->kinds >> kind & 1)
            sweep_kind(scenario, (enum fault_kind)kind);
    ck_assert_msg(num_complaints == 0, "%s: %d complaints, listed above", scenario->name, num_complaints);
}

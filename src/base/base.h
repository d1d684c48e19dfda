// Base layer: status, log, options, strings, numbers as texts, hashing, random numbers, clock, files. Uses libc and POSIX only.
#ifndef EQ_BASE_BASE_H
#define EQ_BASE_BASE_H

#include <stdarg.h>
#include <stdio.h>

#include "equil/base.h"

// ---- status (status.c)

// Records the text for this thread and returns `status`. The text may hold earlier text: eq_fail(s, "x: %s", eq_last_error()).
eq_status eq_fail(eq_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Forwards a failure.
#define EQ_TRY(expr)                                                                                                       \
    do {                                                                                                                   \
        eq_status eq_try_status_ = (expr);                                                                                 \
        if (eq_try_status_ != EQ_OK)                                                                                       \
            return eq_try_status_;                                                                                         \
    } while (0)

// Forwards a failure to the label `fail`; needs a local `eq_status status`.
#define EQ_TRY_FAIL(expr)                                                                                                  \
    do {                                                                                                                   \
        status = (expr);                                                                                                   \
        if (status != EQ_OK)                                                                                               \
            goto fail;                                                                                                     \
    } while (0)

// Checks what a caller, a file or a device is responsible for: EQ_REQUIRE(n > 0, EQ_ERR_SHAPE, "batch is %d", n).
#define EQ_REQUIRE(cond, status, ...)                                                                                      \
    do {                                                                                                                   \
        if (!(cond))                                                                                                       \
            return eq_fail((status), __VA_ARGS__);                                                                         \
    } while (0)

void eq_log(enum eq_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Zeroed memory, or NULL with the error recorded (EQ_ERR_HOST_MEMORY). count 0 gives a valid pointer. free() frees it.
void *eq_calloc(size_t count, size_t size);
// malloc of a product with an overflow check, same errors; contents undefined.
void *eq_malloc(size_t count, size_t size);
#define EQ_ALLOC(ptr, count)                                                                                               \
    do {                                                                                                                   \
        (ptr) = eq_calloc((size_t)(count), sizeof *(ptr));                                                                 \
        if (!(ptr))                                                                                                        \
            return EQ_ERR_HOST_MEMORY;                                                                                     \
    } while (0)

// ---- options (options.c): the one place where the environment is read

enum eq_option {
    EQ_OPTION_DEVICE,    // EQUIL_DEVICE      which device: see eq_device_open()
    EQ_OPTION_CACHE_DIR, // EQUIL_CACHE_DIR   folder of compiled kernels; default $XDG_CACHE_HOME/equil or ~/.cache/equil
    EQ_OPTION_CACHE,     // EQUIL_CACHE       0 or 1: 0 switches the cache of compiled kernels off
    EQ_OPTION_CACHE_MIB, // EQUIL_CACHE_MIB   largest sum of the cache's files; default 512
    EQ_OPTION_CONV,      // EQUIL_CONV        vector or simt: the kernel family; default by the device's kind
    EQ_OPTION_WINOGRAD,  // EQUIL_WINOGRAD    0: no convolution by Winograd's transform; default 1, on Mesa's llvmpipe 0
    EQ_OPTION_PRECISION, // EQUIL_PRECISION   fp32, tf32, fp16 or bf16: see eq_device_set_precision()
    EQ_OPTION_TUNING,    // EQUIL_TUNING      file of tuned parameters; 0: none, not even the library's; default as
                         //                   eq_device_tuning_file() says
    EQ_OPTION_THREADS,   // EQUIL_THREADS     threads that decode images; default the number of processors
    EQ_OPTION_BUILD,     // EQUIL_BUILD_OPTIONS  added to the options of every OpenCL program
    EQ_NUM_OPTIONS
};

// Value, or NULL when it is not set or empty. Thread-safe.
const char *eq_option(enum eq_option option);
// Whether it is 0, of one that 0 switches off. Thread-safe.
bool eq_option_is_off(enum eq_option option);
// Name of its environment variable, and a line of help.
const char *eq_option_variable(enum eq_option option);
const char *eq_option_help(enum eq_option option);
// Of the variables that drivers' compilers look at, by their prefixes.
uint64_t eq_driver_variables_hash(void);
bool eq_pocl_cache_is_off(void); // PoCL is told to keep no kernels

// malloc'ed path of the folder for compiled kernels, as EQ_OPTION_CACHE_DIR says; NULL when there is no home either.
char *eq_cache_folder(void);
bool eq_has_cache_folder(void); // whether there is one to be named: then NULL means that memory ran out

// ---- strings (str.c)

struct eq_str {
    char *text; // NUL-terminated once anything was appended; NULL before
    size_t length, capacity;
    bool failed; // memory ran out (error recorded): text is NULL
};
void eq_str_append(struct eq_str *str, const char *format, ...) __attribute__((format(printf, 2, 3)));
// Appends a name, after ", " where others are before it, unless it is among them. For texts of such names alone.
void eq_str_append_name(struct eq_str *str, const char *name);
void eq_str_free(struct eq_str *str);
// A malloc'ed copy, NULL on no memory (error recorded).
char *eq_strdup(const char *text);
// malloc'ed "folder/name".
char *eq_path_join(const char *folder, const char *name);
bool eq_str_starts(const char *text, const char *prefix);
bool eq_str_ends(const char *text, const char *suffix);
// Bytes of the character that the text begins with, 0 where it is none in UTF-8.
int eq_utf8_bytes(const char *text);

// ---- numbers as texts (number.c): files have them with '.', whatever LC_NUMERIC the calling program has chosen

// As "%.*g" in the C locale. Returns text.
const char *eq_number_digits(char text[40], int digits, double value);
// Shortest decimal text that reads back as the same number. Returns text.
const char *eq_number_text(char text[40], double value);
// Whether the whole text is a decimal number, without spaces; *value stays where it is not.
bool eq_number_read(const char *text, double *value);
// What the above are made of, between '.' and another decimal point, of several bytes where it is not ASCII. Into '.', in
// place, whatever the point is; from '.' into a copy, which is false for what no number is that eq_number_text() makes.
enum { EQ_NUMBER_BYTES = 64 };
void eq_number_from_local(char *text);
bool eq_number_to_local(const char *text, const char *point, char local[EQ_NUMBER_BYTES]);

// ---- hashing and random numbers (random.c)

#define EQ_FNV_START 0xcbf29ce484222325ull
// 64-bit FNV-1a; pass EQ_FNV_START or an earlier result as `hash`.
uint64_t eq_fnv1a(const void *data, size_t bytes, uint64_t hash);

// splitmix64 at position i (from 0) of the stream `key`: mix(key + (i + 1) * golden ratio). A pure function, so random numbers
// depend on neither thread nor order.
uint64_t eq_random_bits(uint64_t key, uint64_t i);
// Stream for (seed, epoch, item, purpose); purpose is a short word such as "crop".
uint64_t eq_random_key(uint64_t seed, uint64_t epoch, uint64_t item, const char *purpose);
double eq_random_unit(uint64_t key, uint64_t i);   // [0, 1): top 53 bits
double eq_random_normal(uint64_t key, uint64_t i); // N(0, 1) by Box-Muller from positions 2i and 2i + 1
// Fisher-Yates permutation of 0 .. n-1 into `order`, by the stream `key`.
void eq_random_permutation(uint64_t key, size_t *order, size_t n);

// ---- clock (files.c)
int64_t eq_clock_ns(void); // monotonic

// ---- files (files.c)

// Reads a whole file of at most max_bytes; *data is malloc'ed, with one NUL after its end. Larger: EQ_ERR_FORMAT with the
// numbers.
eq_status eq_file_read(const char *path, size_t max_bytes, char **data, size_t *bytes);
// mkdir -p.
eq_status eq_dir_make(const char *path);
bool eq_file_exists(const char *path);
// Locks a folder for this process as long as *lock, a descriptor to close(), is open: the kernel ends it however the process
// ends. EQ_ERR_ARGUMENT: it is locked already. Where the file system has no locks there is a warning in the log, and no lock.
eq_status eq_dir_lock(const char *path, int *lock);
// Sorted names of the entries of a folder, without "." and "..". Free with eq_names_free().
eq_status eq_dir_list(const char *path, char ***names, size_t *num);
void eq_names_free(char **names, size_t num);

// Writes beside the target under a temporary name; commit syncs it and renames it over the target, so that a reader sees the
// old file or the new one, and a full disk or a kill leaves the old one. Every failure removes the temporary file; what a
// killed process has left, the next writer of the path removes. Several threads and processes may write one path: the last one
// wins. A new file has the owner, where that may be given, and the mode of the old one, which must be writable. The target of a
// link is the file that it leads to; what is no regular file, such as a pipe or a device, is written to as it is, and opening
// a pipe waits for its reader. eq_file_write() does it all at once.
struct eq_writer {
    FILE *file;
    char *path, *temporary; // temporary NULL: is_direct
    bool is_direct;
};
eq_status eq_writer_open(struct eq_writer *writer, const char *path);
eq_status eq_writer_write(struct eq_writer *writer, const void *data, size_t bytes);
eq_status eq_writer_commit(struct eq_writer *writer);
void eq_writer_abort(struct eq_writer *writer); // no-op after commit or a failure

#endif

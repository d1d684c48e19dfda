// Status codes, error text, log, version and whole files; and what holds for every header.
//
// What is promised: this is version 0, so another minor version (0.2 after 0.1) may change functions, structs and constants.
// The shared library's soname has the minor version (libequil.so.0.1), and CMake's find_package(equil 0.1) takes none but that.
// A patch version (0.1.1) changes nothing that a program was compiled against. Status codes are for good.
//
// Every function of the library that can fail returns an eq_status. The text that belongs to the last failure of the
// calling thread, with the numbers in it, is eq_last_error(). The library never exits, never aborts and never prints.
//
// After a failure: what a function was to make is not there, its handle is NULL or may be given to its destructor, and all that
// it took on the way is given back. What was there before is as it was, and can be used, unless the function's comment says
// what is undefined then. The call can be repeated. Files are the old ones, or the whole new ones; links to them stay. What is
// no regular file, such as a pipe or a device, is written to as it is, and may have had a part. Destructors always work; what a
// device that is gone cannot say while they wait for it is not reported. EQ_ERR_HOST_MEMORY may come from every function
// that returns a status, and EQ_ERR_DEVICE from every one that uses a device: comments name them only where there is more to
// say.
//
// Lifetimes: names, paths, params structs, the texts in them and arrays are read, or copied, during the call: they are the
// caller's, and can be changed or freed once it has returned. Where something is kept the comment says so. Objects are kept:
// what was made from a device, from weights or from a graph is to be destroyed before it, unless the comment says otherwise.
// So is what a function returns a pointer to: it belongs to the object, and is valid as long as it. Pointers must not be NULL
// where NULL is not mentioned.
//
// Threads: objects have no locks. One thread at a time may use an object, whichever it is, and a device counts as one object
// together with all that was made from it: weights, networks, sessions, trainers, classifiers and plans, their destructors
// included. Several devices go in several threads, also when they are the same one opened twice. Functions that are said to be
// thread-safe, and those that take no object, may be called from any thread at any time, but for eq_log_set(). Many read the
// environment (EQUIL_...), which must not be changed meanwhile. Callbacks are called on the caller's thread, but for the log's,
// and must not use the object that calls them where their comment does not allow it.
#ifndef EQUIL_BASE_H
#define EQUIL_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EQ_VERSION_MAJOR 0
#define EQ_VERSION_MINOR 1
#define EQ_VERSION_PATCH 0
#define EQ_VERSION "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define EQ_API __attribute__((visibility("default")))
#else
#define EQ_API
#endif

// The numbers are frozen: a code keeps its value for good.
typedef enum eq_status {
    EQ_OK = 0,
    EQ_ERR_ARGUMENT = 1,      // a parameter is outside its documented range
    EQ_ERR_SHAPE = 2,         // tensor shapes do not fit together
    EQ_ERR_HOST_MEMORY = 3,   // malloc failed
    EQ_ERR_DEVICE_MEMORY = 4, // the device has, or allows, less memory than was asked for
    EQ_ERR_DEVICE = 5,        // no such device, or an OpenCL call failed
    EQ_ERR_BUILD = 6,         // a kernel did not compile; the text has the compiler's log
    EQ_ERR_IO = 7,            // a file cannot be opened, read or written
    EQ_ERR_FORMAT = 8,        // a file's contents are not what its format asks for
    EQ_ERR_NOT_FOUND = 9,     // a tensor, network or option of that name does not exist
    EQ_ERR_UNSUPPORTED = 10,  // valid, but outside what this version or this device can do
    EQ_ERR_NUMERIC = 11,      // a NaN or an infinity where there must be none
    EQ_ERR_INTERRUPTED = 12,  // stopped on request; nothing is lost
} eq_status;

// Short name of a status, "EQ_ERR_SHAPE" for example. Never NULL. Thread-safe.
EQ_API const char *eq_status_name(eq_status status);

// Text of the calling thread's last failure; "" when there was none. At most 4095 bytes. Valid until the next call into the
// library from this thread. Thread-safe (each thread has its own).
EQ_API const char *eq_last_error(void);

// Version of the library that is linked, as EQ_VERSION is the version of the header. Never freed. Thread-safe.
EQ_API const char *eq_version(void);

enum eq_log_level { EQ_LOG_ERROR = 1, EQ_LOG_WARNING = 2, EQ_LOG_INFO = 3, EQ_LOG_DEBUG = 4 };

// Called with one line of text, without a newline, which is valid during the call. May be called from any thread, one call at a
// time, and must not call the library.
typedef void (*eq_log_fn)(void *user, enum eq_log_level level, const char *text);

// Installs the log callback for the whole process, and keeps `user` for it; lines above `level` are dropped. fn NULL (the start
// value) means silence. Lines have at most 1023 bytes. Not thread-safe: call it before other threads use the library.
EQ_API void eq_log_set(eq_log_fn fn, void *user, enum eq_log_level level);

// Writes data [bytes] to a file as all functions do that save: beside it first, then renamed over it, so that a full disk or a
// crash leaves the old one, or none. Errors: EQ_ERR_IO (the text has the path and the system's reason). Thread-safe.
EQ_API eq_status eq_file_write(const char *path, const void *data, size_t bytes);
// Whether that could be done now, for programs that compute for long before they save. Leaves nothing behind. Errors:
// EQ_ERR_IO. Thread-safe.
EQ_API eq_status eq_file_check(const char *path);

#ifdef __cplusplus
}
#endif
#endif

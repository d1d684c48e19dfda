// What the fuzz targets share. A target is one file with LLVMFuzzerTestOneInput(); besides not crashing it checks what holds
// for every input, with CHECK(): a failure ends the process, as libFuzzer wants it.
#ifndef EQ_FUZZ_H
#define EQ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

#define CHECK(condition)                                                                                      \
    do {                                                                                                      \
        if (!(condition)) {                                                                                   \
            fprintf(stderr, "%s:%d: %s (last error: %s)\n", __FILE__, __LINE__, #condition, eq_last_error()); \
            abort();                                                                                          \
        }                                                                                                     \
    } while (0)
// A refusal has a text.
#define CHECK_TEXT(status) CHECK((status) == EQ_OK || eq_last_error()[0])

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

// "/dev/shm/equil-fuzz-PID/" and the name, in memory where the system has that; the folder is made at the first call and goes
// with the process.
const char *fuzz_path(const char *name);
void fuzz_write(const char *path, const void *data, size_t bytes);
// Empties the folder.
void fuzz_clear(void);
// The input as text, with a NUL behind it; free() it.
char *fuzz_text(const uint8_t *data, size_t bytes);

#endif

// Messages, JSON and the progress line.
#ifndef EQUIL_CLI_OUTPUT_H
#define EQUIL_CLI_OUTPUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#if defined(__GNUC__)
#define OUTPUT_FORMAT(text, first) __attribute__((format(printf, text, first)))
#else
#define OUTPUT_FORMAT(text, first)
#endif

// Writes a text of a stranger's, such as a file's name: on a terminal, control characters but newlines and tabs become '?', for
// there they are commands.
void put_text(FILE *file, const char *text);
// "equil: text" on stderr as put_text() does, after ending a progress line.
void message(const char *format, ...) OUTPUT_FORMAT(1, 2);
// "equil: what: <last error of the library>" on stderr; returns EXIT_FAILED. what NULL: without it.
int fail_with_last_error(const char *what);
// "equil COMMAND: text" and where help is, on stderr; returns EXIT_USAGE. command NULL: of equil itself.
int usage_error(const char *command, const char *format, ...) OUTPUT_FORMAT(2, 3);

// A JSON text of any bytes: those that are not UTF-8 become U+FFFD, one each. NULL on no memory.
json_t *json_text(const char *text);
// A JSON number; what is not finite, for which JSON has no words, is a text: "nan", "inf" or "-inf". NULL on no memory.
json_t *json_number(double value);
// Prints indented JSON and a newline to stdout and frees it; returns the exit code. object NULL: memory ran out.
int json_print(json_t *object);
// The same into a file, as eq_file_write() does; path "-": stdout.
int json_write(json_t *object, const char *path);

// Whether a file can be written now, for a start before anything is measured; "-", stdout, can. Leaves nothing behind. False:
// the message was printed.
bool can_write(const char *path);

// Whether both are there and one file, by whatever name.
bool is_same_file(const char *a, const char *b);

// "1.2 MiB" into text[32]; returns text.
const char *format_bytes(char *text, size_t bytes);
// "1:02:03" or "2:03" into text[32]; returns text.
const char *format_seconds(char *text, double seconds);

// One line on stderr that is written over on a terminal, cut to its width. Elsewhere every call with is_last, and otherwise one
// in 10 seconds, prints a plain line. is_last leaves the line standing.
void progress_line(bool is_last, const char *format, ...) OUTPUT_FORMAT(2, 3);
// Takes a progress line away, for what is printed on stdout.
void progress_clear(void);

#endif

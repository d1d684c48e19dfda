#include "output.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "command.h"
#include "equil/equil.h"

static bool progress_is_open; // a progress line stands on the terminal without a newline

static void end_progress(void)
{
    if (progress_is_open)
        fputc('\n', stderr);
    progress_is_open = false;
}

void put_text(FILE *file, const char *text)
{
    if (!isatty(fileno(file))) {
        fputs(text, file);
        return;
    }
    char piece[256]; // stderr writes what it is given at once
    size_t bytes = 0;
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        const bool is_pair = at[0] == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0; // U+0080 to U+009F
        const bool is_control = is_pair || (*at < ' ' && *at != '\n' && *at != '\t') || *at == 0x7f;
        piece[bytes++] = is_control ? '?' : (char)*at;
        at += is_pair;
        if (bytes == sizeof piece) {
            fwrite(piece, 1, bytes, file);
            bytes = 0;
        }
    }
    fwrite(piece, 1, bytes, file);
}

void message(const char *format, ...)
{
    char text[8192]; // more than an error of the library
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    end_progress();
    fputs("equil: ", stderr);
    put_text(stderr, text);
    fputc('\n', stderr);
}

int fail_with_last_error(const char *what)
{
    if (what)
        message("%s: %s", what, eq_last_error());
    else
        message("%s", eq_last_error());
    return EXIT_FAILED;
}

int usage_error(const char *command, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, command ? "equil %s: " : "equil: ", command);
    vfprintf(stderr, format, args);
    fprintf(stderr, command ? "\nTry 'equil %s --help'.\n" : "\nTry 'equil --help'.\n", command);
    va_end(args);
    return EXIT_USAGE;
}

json_t *json_text(const char *text)
{
    static const char replacement[] = "\357\277\275"; // U+FFFD
    json_t *whole = json_string(text);
    const size_t bytes = strlen(text);
    char *mended = whole ? NULL : malloc(3 * bytes + 1), *to = mended;
    for (size_t at = 0; mended && at < bytes;) {
        size_t length = 4; // of the character, by Jansson's own judgement
        json_t *character = NULL;
        while (!character && length > 0) {
            if (length <= bytes - at)
                character = json_stringn(text + at, length);
            length -= character == NULL;
        }
        memcpy(to, length ? text + at : replacement, length ? length : 3);
        to += length ? length : 3;
        at += length ? length : 1;
        json_decref(character);
    }
    if (mended)
        whole = json_stringn(mended, (size_t)(to - mended));
    free(mended);
    return whole;
}

json_t *json_number(double value)
{
    return isfinite(value) ? json_real(value) : json_string(isnan(value) ? "nan" : value > 0 ? "inf" : "-inf");
}

int json_print(json_t *object)
{
    return json_write(object, "-");
}

int json_write(json_t *object, const char *path)
{
    if (!object) {
        message("no memory for the JSON text");
        return EXIT_FAILED;
    }
    char *text = json_dumps(object, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
    json_decref(object);
    if (!text) {
        message("no memory for the JSON text");
        return EXIT_FAILED;
    }
    bool written;
    if (strcmp(path, "-") == 0) {
        written = puts(text) != EOF && fflush(stdout) == 0;
        if (!written)
            message("cannot write to standard output");
    } else {
        const size_t bytes = strlen(text);
        text[bytes] = '\n'; // in place of the NUL
        written = eq_file_write(path, text, bytes + 1) == EQ_OK;
        if (!written)
            fail_with_last_error(NULL);
    }
    free(text);
    return written ? EXIT_SUCCESS : EXIT_FAILED;
}

bool is_same_file(const char *a, const char *b)
{
    struct stat first, second;
    return stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

bool can_write(const char *path)
{
    if (strcmp(path, "-") == 0 || eq_file_check(path) == EQ_OK)
        return true;
    fail_with_last_error(NULL);
    return false;
}

const char *format_bytes(char *text, size_t bytes)
{
    static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB" };
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 1024 && unit < 4; unit++)
        value /= 1024;
    snprintf(text, 32, unit && value < 100 ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return text;
}

const char *format_seconds(char *text, double seconds)
{
    long total = seconds > 0 && seconds < 1e9 ? lround(seconds) : 0;
    if (total >= 3600)
        snprintf(text, 32, "%ld:%02ld:%02ld", total / 3600, total / 60 % 60, total % 60);
    else
        snprintf(text, 32, "%ld:%02ld", total / 60, total % 60);
    return text;
}

// A line that wraps would not be written over as a whole. The last column stays free: some terminals wrap there.
static void cut_to_terminal(char *text)
{
    struct winsize size;
    const size_t columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col : 80;
    size_t at = 0;
    for (size_t letters = 0; text[at]; at++) {
        letters += (text[at] & 0xc0) != 0x80; // UTF-8's first bytes
        if (letters == columns)
            break;
    }
    text[at] = '\0';
}

void progress_line(bool is_last, const char *format, ...)
{
    static time_t last_time;
    bool is_terminal = isatty(STDERR_FILENO);
    time_t now = time(NULL);
    if (!is_terminal && !is_last && now - last_time < 10)
        return;
    last_time = now;

    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (is_terminal)
        cut_to_terminal(text);
    fprintf(stderr, is_terminal ? "\r\033[K%s" : "%s\n", text);
    progress_is_open = is_terminal && !is_last;
    if (is_terminal && is_last)
        fputc('\n', stderr);
    fflush(stderr);
}

void progress_clear(void)
{
    if (!progress_is_open)
        return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    progress_is_open = false;
}

#include "output.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
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

void message(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    end_progress();
    fputs("equil: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
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
        written = file_replace(path, text, bytes + 1);
    }
    free(text);
    return written ? EXIT_SUCCESS : EXIT_FAILED;
}

// A path to write to: what is no regular file, a pipe or /dev/full, is written to itself.
struct target {
    bool is_special;
    char *beside; // what is written, and renamed to the path; malloc'ed
};

static bool target_find(const char *path, struct target *target)
{
    struct stat status;
    target->is_special = stat(path, &status) == 0 && !S_ISREG(status.st_mode);
    target->beside = malloc(strlen(path) + 32);
    if (!target->beside)
        message("no memory to write %s", path);
    else if (target->is_special)
        strcpy(target->beside, path);
    else
        sprintf(target->beside, "%s.%ld.part", path, (long)getpid());
    return target->beside != NULL;
}

bool file_replace(const char *path, const char *text, size_t bytes)
{
    struct target target;
    if (!target_find(path, &target))
        return false;
    FILE *file = fopen(target.beside, "wb");
    bool written =
        file && fwrite(text, 1, bytes, file) == bytes && fflush(file) == 0 && (target.is_special || fsync(fileno(file)) == 0);
    int error = errno;
    if (file && fclose(file) != 0 && written) {
        error = errno;
        written = false;
    }
    if (written && !target.is_special && rename(target.beside, path) != 0) {
        error = errno;
        written = false;
    }
    if (!written) {
        message("cannot write %s: %s", path, strerror(error));
        if (file && !target.is_special)
            remove(target.beside);
    }
    free(target.beside);
    return written;
}

// What is special is not opened: that would end a pipe's reader.
bool file_can_replace(const char *path)
{
    struct target target;
    struct stat status;
    if (strcmp(path, "-") == 0)
        return true;
    if (!target_find(path, &target))
        return false;
    int error = 0;
    if (target.is_special) {
        if (stat(path, &status) == 0 && S_ISDIR(status.st_mode))
            error = EISDIR;
        else if (access(path, W_OK) != 0)
            error = errno;
    } else {
        FILE *file = fopen(target.beside, "wb");
        error = file ? 0 : errno;
        if (file) {
            fclose(file);
            remove(target.beside);
        }
    }
    if (error)
        message("cannot write %s: %s", path, strerror(error));
    free(target.beside);
    return error == 0;
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

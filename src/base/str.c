// Growing strings and small string helpers.
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

static bool reserve(struct eq_str *str, size_t capacity)
{
    if (capacity <= str->capacity)
        return true;
    size_t grown = str->capacity ? str->capacity : 64;
    while (grown < capacity)
        grown *= 2;
    char *text = realloc(str->text, grown);
    if (!text) {
        eq_fail(EQ_ERR_HOST_MEMORY, "out of memory: a text of %zu bytes", grown);
        free(str->text); // callers look at `failed` and go
        *str = (struct eq_str){ .failed = true };
        return false;
    }
    str->text = text;
    str->capacity = grown;
    return true;
}

void eq_str_append(struct eq_str *str, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (length >= 0 && !str->failed && reserve(str, str->length + (size_t)length + 1)) {
        vsnprintf(str->text + str->length, (size_t)length + 1, format, again);
        str->length += (size_t)length;
    }
    va_end(again);
}

void eq_str_append_name(struct eq_str *str, const char *name)
{
    const size_t length = strlen(name);
    for (const char *at = str->text; at && *at;) {
        const size_t bytes = strcspn(at, ",");
        if (bytes == length && memcmp(at, name, length) == 0)
            return;
        at += bytes + (at[bytes] ? strlen(", ") : 0);
    }
    eq_str_append(str, "%s%s", str->length ? ", " : "", name);
}

void eq_str_free(struct eq_str *str)
{
    free(str->text);
    *str = (struct eq_str){ 0 };
}

char *eq_strdup(const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = eq_malloc(bytes, 1);
    return copy ? memcpy(copy, text, bytes) : NULL;
}

char *eq_path_join(const char *folder, const char *name)
{
    size_t length = strlen(folder);
    bool has_slash = length > 0 && folder[length - 1] == '/';
    size_t bytes = length + strlen(name) + 2;
    char *path = eq_malloc(bytes, 1);
    if (path)
        snprintf(path, bytes, "%s%s%s", folder, has_slash ? "" : "/", name);
    return path;
}

bool eq_str_starts(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool eq_str_ends(const char *text, const char *suffix)
{
    size_t length = strlen(text), tail = strlen(suffix);
    return length >= tail && strcmp(text + length - tail, suffix) == 0;
}

// By itself, for Jansson's own check allocates.
int eq_utf8_bytes(const char *text)
{
    const unsigned char *at = (const unsigned char *)text, first = *at;
    const int more = first < 0x80 ? 0 : first >= 0xc2 && first < 0xe0 ? 1 : first >> 4 == 0xe ? 2 : 3;
    if (first >= 0xf5 || (first >= 0x80 && first < 0xc2))
        return 0;
    uint32_t code = more ? first & (0x3fu >> more) : first;
    for (int i = 1; i <= more; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (at[i] & 0x3fu);
    }
    const bool is_overlong = (more == 2 && code < 0x800) || (more == 3 && code < 0x10000);
    return is_overlong || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? 0 : more + 1;
}

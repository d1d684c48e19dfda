#include "io/json.h"

#include <stdlib.h>
#include <string.h>

// Bytes that a value takes for each of its text, about.
enum { VALUE_BYTES = 8 };

// Where its memory runs out Jansson says that the text is wrong, or nothing at all: a byte of a number or a text is missing
// then. So everything is parsed twice, and what is refused twice is the text's fault only where there is memory.
eq_status eq_json_parse(const char *text, size_t bytes, json_t **json, json_error_t *error)
{
    json_t *first = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, error);
    json_t *second = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, error);
    const bool is_same = first && second && json_equal(first, second), is_refused = !first && !second;
    json_decref(second);
    *json = is_same ? first : NULL;
    if (is_same)
        return EQ_OK;
    json_decref(first);
    void *room = is_refused ? eq_malloc(bytes + 1, VALUE_BYTES) : NULL;
    free(room);
    EQ_REQUIRE(room, EQ_ERR_HOST_MEMORY, "out of memory: a JSON text of %zu bytes", bytes);
    return EQ_ERR_FORMAT;
}

char *eq_json_text(const json_t *json, size_t flags)
{
    const size_t bytes = json_dumpb(json, NULL, 0, flags);
    char *text = bytes ? eq_malloc(bytes + 1, 1) : NULL;
    if (text && json_dumpb(json, text, bytes, flags) == bytes) {
        text[bytes] = '\0';
        return text;
    }
    free(text);
    eq_fail(EQ_ERR_HOST_MEMORY, "out of memory: a JSON text");
    return NULL;
}

bool eq_json_is_utf8(const char *text)
{
    for (const char *at = text; *at;) {
        const int bytes = eq_utf8_bytes(at);
        if (!bytes)
            return false;
        at += bytes;
    }
    return true;
}

char *eq_json_escape(const char *text)
{
    char *escaped = eq_malloc(strlen(text) + 1, 4), *to = escaped;
    for (const char *at = text; escaped && *at;) {
        const int bytes = eq_utf8_bytes(at);
        if (!bytes) {
            to += sprintf(to, "\\x%02x", (unsigned char)*at++);
            continue;
        }
        if (*at == '\\')
            *to++ = '\\';
        memcpy(to, at, (size_t)bytes);
        to += bytes;
        at += bytes;
    }
    if (escaped)
        *to = '\0';
    return escaped;
}

void eq_json_unescape(char *text)
{
    char *to = text;
    for (const char *at = text; *at; to++) {
        const bool is_byte = strncmp(at, "\\x", 2) == 0 && strspn(at + 2, "0123456789abcdef") >= 2;
        const char digits[] = { is_byte ? at[2] : '\0', is_byte ? at[3] : '\0', '\0' };
        *to = is_byte ? (char)strtol(digits, NULL, 16) : *at;
        at += is_byte ? 4 : strncmp(at, "\\\\", 2) == 0 ? 2 : 1;
    }
    *to = '\0';
}

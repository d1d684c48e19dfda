#include "io/json.h"

#include <stdlib.h>

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

// By itself, for Jansson's own check allocates.
bool eq_json_is_utf8(const char *text)
{
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        const unsigned char first = *at++;
        const int more = first < 0x80 ? 0 : first >= 0xc2 && first < 0xe0 ? 1 : first >> 4 == 0xe ? 2 : 3;
        if (first >= 0xf5 || (first >= 0x80 && first < 0xc2))
            return false;
        uint32_t code = more ? first & (0x3fu >> more) : first;
        for (int i = 0; i < more; i++) {
            if ((*at & 0xc0) != 0x80)
                return false;
            code = code << 6 | (*at++ & 0x3fu);
        }
        const bool is_overlong = (more == 2 && code < 0x800) || (more == 3 && code < 0x10000);
        if (is_overlong || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
            return false;
    }
    return true;
}

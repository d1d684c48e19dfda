// What Jansson does not tell: whether memory ran out.
#ifndef EQ_IO_JSON_H
#define EQ_IO_JSON_H

#include <jansson.h>

#include "base/base.h"

// Parses a text; keys that are there twice are refused. EQ_ERR_FORMAT: `error` says why, and no text is recorded;
// EQ_ERR_HOST_MEMORY.
eq_status eq_json_parse(const char *text, size_t bytes, json_t **json, json_error_t *error);
// The text of a value, for free(); NULL on no memory (error recorded). Jansson's own json_dumps() leaves keys out where memory
// runs out.
char *eq_json_text(const json_t *json, size_t flags);
// Whether a text may stand in JSON.
bool eq_json_is_utf8(const char *text);
// A copy that may, for free(): a byte that is not UTF-8 becomes \xNN, and a backslash two. NULL on no memory (error recorded).
char *eq_json_escape(const char *text);
// The text that such a copy is of, in place.
void eq_json_unescape(char *text);

#endif

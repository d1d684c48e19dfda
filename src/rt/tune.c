// The table of tuned parameters, sorted by key, and its form as text.
#include "rt/tune.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_ENTRIES = 65536, MAX_VALUE = 1 << 30 };
static const char first_line[] = "equil-tuning 1";

struct eq_tuning {
    int num, capacity;
    struct eq_tuning_entry *entries;
};

eq_status eq_tuning_create(struct eq_tuning **tuning)
{
    EQ_ALLOC(*tuning, 1);
    return EQ_OK;
}

void eq_tuning_destroy(struct eq_tuning **tuning)
{
    if (!*tuning)
        return;
    free((*tuning)->entries);
    free(*tuning);
    *tuning = NULL;
}

int eq_tuning_num(const struct eq_tuning *tuning)
{
    return tuning ? tuning->num : 0;
}

const struct eq_tuning_entry *eq_tuning_at(const struct eq_tuning *tuning, int index)
{
    return &tuning->entries[index];
}

// Place of the key, or the place where it belongs.
static int place_of(const struct eq_tuning *tuning, const char *key, bool *is_there)
{
    int low = 0, high = eq_tuning_num(tuning);
    while (low < high) {
        const int middle = (low + high) / 2;
        if (strcmp(tuning->entries[middle].key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *is_there = low < eq_tuning_num(tuning) && strcmp(tuning->entries[low].key, key) == 0;
    return low;
}

const struct eq_tuning_entry *eq_tuning_entry(const struct eq_tuning *tuning, const char *key)
{
    bool is_there;
    const int at = place_of(tuning, key, &is_there);
    return is_there ? &tuning->entries[at] : NULL;
}

bool eq_tuning_find(const struct eq_tuning *tuning, const char *key, int *values, int num)
{
    const struct eq_tuning_entry *entry = eq_tuning_entry(tuning, key);
    if (!entry || entry->num_values != num)
        return false;
    memcpy(values, entry->values, (size_t)num * sizeof *values);
    return true;
}

static void append_values(struct eq_str *line, const struct eq_tuning_entry *entry)
{
    eq_str_append(line, "%s =", entry->key);
    for (int v = 0; v < entry->num_values; v++)
        eq_str_append(line, " %d", entry->values[v]);
}

bool eq_tuning_choose(const struct eq_tuning *tuning, const char *key, int *values, int num, eq_tuning_fits_fn fits,
                      const void *user)
{
    bool is_there;
    const int at = place_of(tuning, key, &is_there);
    if (!is_there)
        return false;
    struct eq_tuning_entry *entry = &tuning->entries[at];
    if (entry->num_values == num && fits(entry->values, user)) {
        memcpy(values, entry->values, (size_t)num * sizeof *values);
        return true;
    }
    if (!entry->is_reported) {
        struct eq_str line = { 0 };
        append_values(&line, entry);
        eq_log(EQ_LOG_WARNING, "the tuning has '%s', which cannot be: the default is taken", line.text ? line.text : key);
        eq_str_free(&line);
        entry->is_reported = true;
    }
    return false;
}

static bool is_printable(const char *text)
{
    for (; *text; text++)
        if (*text < ' ' || *text > '~')
            return false;
    return true;
}

// Of one line. In any encoding: notes are for people.
static bool is_note(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 127)
            return false;
    return true;
}

static bool is_key(const char *key)
{
    const size_t length = strlen(key);
    return length > 0 && length < EQ_TUNE_MAX_KEY && is_printable(key) && isalpha((unsigned char)*key) &&
           key[length - 1] != ' ' && !strpbrk(key, "#:") && !strstr(key, " = ") &&
           (length < 2 || strcmp(key + length - 2, " =") != 0);
}

eq_status eq_tuning_set(struct eq_tuning *tuning, const char *key, const int *values, int num, const char *note)
{
    EQ_REQUIRE(is_key(key) && num >= 1 && num <= EQ_TUNE_MAX_VALUES && is_note(note), EQ_ERR_ARGUMENT,
               "a tuning cannot hold %d values for the key '%.60s'", num, key);
    bool is_there;
    const int at = place_of(tuning, key, &is_there);
    if (!is_there) {
        EQ_REQUIRE(tuning->num < MAX_ENTRIES, EQ_ERR_ARGUMENT, "a tuning of more than %d choices", MAX_ENTRIES);
        if (tuning->num == tuning->capacity) {
            const int capacity = tuning->capacity ? 2 * tuning->capacity : 64;
            struct eq_tuning_entry *entries = realloc(tuning->entries, (size_t)capacity * sizeof *entries);
            EQ_REQUIRE(entries, EQ_ERR_HOST_MEMORY, "out of memory: a tuning of %d choices", capacity);
            tuning->entries = entries;
            tuning->capacity = capacity;
        }
        memmove(&tuning->entries[at + 1], &tuning->entries[at], (size_t)(tuning->num++ - at) * sizeof *tuning->entries);
    }
    struct eq_tuning_entry *entry = &tuning->entries[at];
    *entry = (struct eq_tuning_entry){ .num_values = num };
    snprintf(entry->key, sizeof entry->key, "%s", key);
    snprintf(entry->note, sizeof entry->note, "%s", note);
    memcpy(entry->values, values, (size_t)num * sizeof *values);
    return EQ_OK;
}

void eq_tuning_remove(struct eq_tuning *tuning, const char *key)
{
    bool is_there;
    const int at = place_of(tuning, key, &is_there);
    if (is_there)
        memmove(&tuning->entries[at], &tuning->entries[at + 1], (size_t)(--tuning->num - at) * sizeof *tuning->entries);
}

eq_status eq_tuning_merge(struct eq_tuning *tuning, const struct eq_tuning *over)
{
    for (int i = 0; i < eq_tuning_num(over); i++) {
        const struct eq_tuning_entry *entry = &over->entries[i];
        EQ_TRY(eq_tuning_set(tuning, entry->key, entry->values, entry->num_values, entry->note));
    }
    return EQ_OK;
}

const char *eq_tuning_hash(const struct eq_tuning *tuning, char text[20])
{
    uint64_t hash = EQ_FNV_START;
    for (int i = 0; i < eq_tuning_num(tuning); i++) {
        const struct eq_tuning_entry *entry = &tuning->entries[i];
        char line[EQ_TUNE_MAX_KEY + 2 + 12 * EQ_TUNE_MAX_VALUES]; // on the stack: it cannot fail
        int length = snprintf(line, sizeof line, "%s =", entry->key);
        for (int v = 0; v < entry->num_values; v++)
            length += snprintf(line + length, sizeof line - (size_t)length, " %d", entry->values[v]);
        hash = eq_fnv1a(line, (size_t)length + 1, hash);
    }
    if (eq_tuning_num(tuning) == 0)
        snprintf(text, 20, "none");
    else
        snprintf(text, 20, "%016llx", (unsigned long long)hash);
    return text;
}

// ---- reading

// How closely a section names a device: LEVEL_ANY is every one.
enum level { LEVEL_ANY, LEVEL_KIND, LEVEL_VENDOR, LEVEL_FAMILY, LEVEL_DEVICE, NUM_LEVELS, LEVEL_NONE };

struct reader {
    const char *name;
    int number; // of the line
    const struct eq_tuning_identity *device;
    struct eq_tuning_identity *header;
    struct eq_tuning *found[NUM_LEVELS];
    enum level level; // of the section
};

static bool has_part(const char *text, const char *part)
{
    for (; *text; text++)
        if (strncasecmp(text, part, strlen(part)) == 0)
            return true;
    return false;
}

static char *trim(char *text)
{
    while (*text == ' ')
        text++;
    for (size_t n = strlen(text); n > 0 && (text[n - 1] == ' ' || text[n - 1] == '\r');)
        text[--n] = '\0';
    return text;
}

static eq_status read_section(struct reader *reader, char *line)
{
    const size_t length = strlen(line);
    EQ_REQUIRE(length > 2 && line[length - 1] == ']', EQ_ERR_FORMAT, "%s:%d: '%.60s' has no ]", reader->name, reader->number,
               line);
    line[length - 1] = '\0';
    char *word = trim(line + 1), *text = strchr(word, ' ');
    if (text)
        *text++ = '\0';
    text = text ? trim(text) : word + strlen(word);
    const struct eq_tuning_identity *d = reader->device;
    const struct {
        const char *word;
        enum level level;
        bool matches;
    } sections[] = {
        { "any", LEVEL_ANY, !*text },
        { "kind", LEVEL_KIND, strcmp(d->kind, text) == 0 },
        { "vendor", LEVEL_VENDOR, *text && has_part(d->vendor, text) },
        { "family", LEVEL_FAMILY, *text && has_part(d->device, text) },
        { "device", LEVEL_DEVICE, strcmp(d->device, text) == 0 },
    };
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
        if (strcmp(word, sections[i].word) == 0) {
            reader->level = sections[i].matches ? sections[i].level : LEVEL_NONE;
            return EQ_OK;
        }
    return eq_fail(EQ_ERR_FORMAT, "%s:%d: [%.40s] is none of any, kind, vendor, family, device", reader->name, reader->number,
                   word);
}

static bool read_header(struct reader *reader, const char *line)
{
    struct eq_tuning_identity *h = reader->header;
    const struct {
        const char *start;
        char *text;
        size_t bytes;
    } fields[] = {
        { "device:", h->device, sizeof h->device },
        { "driver:", h->driver, sizeof h->driver },
        { "platform:", h->platform, sizeof h->platform },
        { "library:", h->library, sizeof h->library },
    };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (eq_str_starts(line, fields[i].start)) {
            const char *text = line + strlen(fields[i].start);
            snprintf(fields[i].text, fields[i].bytes, "%s", text + strspn(text, " "));
            return true;
        }
    return false;
}

static eq_status read_choice(struct reader *reader, char *line)
{
    char *note = strchr(line, '#'), *equals;
    if (note)
        *note++ = '\0';
    line = trim(line);
    equals = strstr(line, " = ");
    EQ_REQUIRE(equals, EQ_ERR_FORMAT, "%s:%d: '%.80s' is not KEY = numbers", reader->name, reader->number, line);
    *equals = '\0';
    int values[EQ_TUNE_MAX_VALUES], num = 0;
    for (char *at = equals + 3, *end; *at; at = end) {
        const long value = strtol(at, &end, 10);
        EQ_REQUIRE(end != at && (*end == ' ' || !*end) && num < EQ_TUNE_MAX_VALUES && value >= -MAX_VALUE && value <= MAX_VALUE,
                   EQ_ERR_FORMAT, "%s:%d: '%.60s' is no list of 1 to %d numbers", reader->name, reader->number, equals + 3,
                   EQ_TUNE_MAX_VALUES);
        values[num++] = (int)value;
        end += strspn(end, " ");
    }
    if (reader->level == LEVEL_NONE)
        return EQ_OK;
    eq_status status = eq_tuning_set(reader->found[reader->level], trim(line), values, num, note ? trim(note) : "");
    return status == EQ_ERR_ARGUMENT ? eq_fail(EQ_ERR_FORMAT, "%s:%d: %s", reader->name, reader->number, eq_last_error())
                                     : status;
}

static eq_status read_lines(struct reader *reader, char *text)
{
    bool is_started = false;
    for (char *tab = text; (tab = strchr(tab, '\t'));)
        *tab = ' ';
    for (char *line = text, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        reader->number++;
        line = trim(line);
        if (!*line || *line == '#')
            continue;
        if (!is_started) {
            EQ_REQUIRE(strcmp(line, first_line) == 0, EQ_ERR_FORMAT, "%s:%d: no tuning: it begins with '%.40s', not with '%s'",
                       reader->name, reader->number, line, first_line);
            is_started = true;
        } else if (*line == '[') {
            EQ_TRY(read_section(reader, line));
            reader->header->has_sections = true;
        } else if (!read_header(reader, line)) {
            EQ_TRY(read_choice(reader, line));
        }
    }
    EQ_REQUIRE(is_started, EQ_ERR_FORMAT, "%s: no tuning: the file is empty", reader->name);
    return EQ_OK;
}

eq_status eq_tuning_parse(struct eq_tuning *tuning, const char *name, const char *text,
                          const struct eq_tuning_identity *device, struct eq_tuning_identity *header)
{
    struct eq_tuning_identity ignored = { .kind = "" };
    struct reader reader = { .name = name, .device = device, .header = header ? header : &ignored };
    *reader.header = (struct eq_tuning_identity){ .kind = "" };
    char *copy = eq_strdup(text);
    eq_status status = copy ? EQ_OK : EQ_ERR_HOST_MEMORY;
    for (int l = 0; l < NUM_LEVELS && status == EQ_OK; l++)
        status = eq_tuning_create(&reader.found[l]);
    if (status == EQ_OK)
        status = read_lines(&reader, copy);
    for (int l = 0; l < NUM_LEVELS; l++) {
        if (status == EQ_OK)
            status = eq_tuning_merge(tuning, reader.found[l]);
        eq_tuning_destroy(&reader.found[l]);
    }
    free(copy);
    return status;
}

// ---- writing

eq_status eq_tuning_save(const struct eq_tuning *tuning, const char *path, const struct eq_tuning_identity *device,
                         const char *about)
{
    struct eq_str text = { 0 };
    eq_str_append(&text, "%s\n%sdevice: %s\ndriver: %s\nplatform: %s\nlibrary: %s\n\n", first_line, about, device->device,
                  device->driver, device->platform, device->library);
    for (int i = 0; i < eq_tuning_num(tuning); i++) {
        append_values(&text, &tuning->entries[i]);
        if (*tuning->entries[i].note)
            eq_str_append(&text, "  # %s", tuning->entries[i].note);
        eq_str_append(&text, "\n");
    }
    const eq_status status =
        text.failed ? eq_fail(EQ_ERR_HOST_MEMORY, "%s: out of memory", path) : eq_file_write(path, text.text, text.length);
    eq_str_free(&text);
    return status;
}

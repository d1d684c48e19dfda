// Tuned parameters: choices that change speed (and the order of sums), never the result's meaning.
//
// A tuning maps a key, the text of a kernel and the shape it works on ("conv2d_vector ic=64 oc=64 h=56 w=56 k=3x3 s=1x1"), to a
// few integers. Ops ask for their key and fall back to their own model where there is none, or where the values do not fit.
//
// As text, in the file of a device and in cl/tuned.txt, the defaults that the library brings along:
//     equil-tuning 1
//     device: NAME                 and driver:, platform:, library: what the choices were measured with
//     # a comment
//     KEY = 7 1 4                  # why, to the end of the line
//     [kind cpu]                   what follows is for these devices: any; kind cpu|gpu|other; vendor TEXT, family TEXT (a part
//                                  of the vendor's or the device's name); device TEXT (its whole name)
// Lines before the first [] are for any device. The most specific line wins, and among equals the last. Tabs are blanks, and
// comments may be in any encoding.
#ifndef EQ_RT_TUNE_H
#define EQ_RT_TUNE_H

#include "base/base.h"

enum { EQ_TUNE_MAX_VALUES = 8, EQ_TUNE_MAX_KEY = 160, EQ_TUNE_MAX_NOTE = 160, EQ_TUNE_MAX_FILE_BYTES = 4 << 20 };

struct eq_tuning;
// Fills values[0 .. num) and returns true where the tuning (NULL: empty) has exactly `num` values for the key.
bool eq_tuning_find(const struct eq_tuning *tuning, const char *key, int *values, int num);
// The same for values that satisfy `fits`; others are named in the log, once, and count as absent.
typedef bool (*eq_tuning_fits_fn)(const int *values, const void *user);
bool eq_tuning_choose(const struct eq_tuning *tuning, const char *key, int *values, int num, eq_tuning_fits_fn fits,
                      const void *user);

struct eq_tuning_entry {
    char key[EQ_TUNE_MAX_KEY];
    int values[EQ_TUNE_MAX_VALUES], num_values;
    char note[EQ_TUNE_MAX_NOTE]; // the comment behind it
    bool is_reported;            // that its values do not fit
};

eq_status eq_tuning_create(struct eq_tuning **tuning);
void eq_tuning_destroy(struct eq_tuning **tuning);
int eq_tuning_num(const struct eq_tuning *tuning);
const struct eq_tuning_entry *eq_tuning_at(const struct eq_tuning *tuning, int index); // sorted by key
const struct eq_tuning_entry *eq_tuning_entry(const struct eq_tuning *tuning, const char *key); // NULL: none
// Adds an entry or replaces that of the same key. Refuses keys and notes that would not survive a file.
eq_status eq_tuning_set(struct eq_tuning *tuning, const char *key, const int *values, int num, const char *note);
void eq_tuning_remove(struct eq_tuning *tuning, const char *key);
eq_status eq_tuning_merge(struct eq_tuning *tuning, const struct eq_tuning *over); // `over` wins
// Hash of keys and values, 16 digits; "none" where there are none.
const char *eq_tuning_hash(const struct eq_tuning *tuning, char text[20]);

// ---- as text

// A device: what sections are matched with, and what a file's header says.
struct eq_tuning_identity {
    char device[128], driver[128], platform[128], vendor[128], kind[16], library[32];
    bool has_sections; // of a text
};
// Adds the lines that are for the device. `name` stands in errors; header (may be NULL) gets what the text says of itself. On
// failure (EQ_ERR_FORMAT with the line's number) the tuning is as it was.
eq_status eq_tuning_parse(struct eq_tuning *tuning, const char *name, const char *text,
                          const struct eq_tuning_identity *device, struct eq_tuning_identity *header);
// Writes beside the file and renames it over it. `about`: what the file is, as lines that begin with #.
eq_status eq_tuning_save(const struct eq_tuning *tuning, const char *path, const struct eq_tuning_identity *device,
                         const char *about);

#endif

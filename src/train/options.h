// A run's options: defaults, ranges, and the texts by which a checkpoint keeps and compares them.
#ifndef EQ_TRAIN_OPTIONS_H
#define EQ_TRAIN_OPTIONS_H

#include "base/base.h"
#include "equil/train.h"

// Params with strings of their own, so that they outlive the caller's.
struct eq_train_options {
    struct eq_train_params params; // every default filled in; what was switched off by a negative value is 0
    bool has_batch_rate; // the rate is the default that follows from the batch
    char *strings[8];
    int num_strings;
};

// Value that the run to resume has for an option, as text, by its key; NULL when it has none.
typedef const char *(*eq_saved_option_fn)(const void *user, const char *key);

// Copies `params`, fills in the defaults of the network and checks ranges. With `saved` (NULL: a new run) what is not given is
// taken from there, and what is given and differs is refused. Free it after a failure too.
eq_status eq_train_options_resolve(const struct eq_train_params *params, eq_saved_option_fn saved, const void *user,
                                   struct eq_train_options *options);
// For a new run whose batches turn out to be of `batch` images. The option stays what it is, so that the run can be resumed
// with it; the rate that follows from it does not.
void eq_train_options_use_batch(struct eq_train_options *options, int batch);
void eq_train_options_free(struct eq_train_options *options);

// The options as a checkpoint keeps them: all but `out` and `resume`. The key is "option." and the name on the command line.
int eq_train_options_num(void);
const char *eq_train_option_key(int index);
// malloc'ed, as eq_json_escape() makes it: paths need not be UTF-8. NULL without memory.
char *eq_train_option_text(const struct eq_train_params *params, int index);

#endif

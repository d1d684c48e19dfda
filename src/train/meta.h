// What a weights file says of itself in its metadata: everything that evaluation and classification need.
#ifndef EQ_TRAIN_META_H
#define EQ_TRAIN_META_H

#include "base/base.h"
#include "equil/data.h"
#include "equil/model.h"

// Metadata texts to be written. Keys are not copied, values belong to the list.
enum { EQ_MAX_TEXTS = 64 };
struct eq_texts {
    struct eq_tensors_text items[EQ_MAX_TEXTS];
    size_t num;
};
// Takes over `value`; NULL is a lack of memory and leaves the list as it is.
eq_status eq_texts_add(struct eq_texts *texts, const char *key, char *value);
eq_status eq_texts_add_format(struct eq_texts *texts, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void eq_texts_free(struct eq_texts *texts);

// How images become the network's input.
struct eq_input_form {
    int size;                    // side in pixels
    int resize;                  // side that the shorter side is brought to before the centre is cut out
    float mean[3], deviation[3]; // of red, green and blue in [0, 1]
};
struct eq_input_form eq_input_form_default(const struct eq_model_params *model, int size);

struct eq_meta {
    struct eq_model_params model; // arch is malloc'ed
    struct eq_input_form form;
    char **class_names; // [model.classes] in UTF-8, or NULL
};
// Appends the texts of a weights file.
eq_status eq_meta_write(const struct eq_meta *meta, struct eq_texts *texts);
// Reads them. meta->model.arch is NULL when the file has none. Free it after a failure too.
eq_status eq_meta_read(const struct eq_tensors *file, struct eq_meta *meta);
// Refuses another network than the file's. What `wanted` leaves out, arch NULL, classes 0 or act 0, is not compared.
eq_status eq_meta_check(const struct eq_meta *meta, const char *path, const struct eq_model_params *wanted);
void eq_meta_free(struct eq_meta *meta);

#endif

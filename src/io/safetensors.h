// What the reader and the writer of safetensors files share: the limits and the table of element types.
//
// The file: 8 bytes, little-endian length of the header; the header, a JSON object; the tensors' bytes, back to back.
// Public functions: equil/data.h.
#ifndef EQ_IO_SAFETENSORS_H
#define EQ_IO_SAFETENSORS_H

#include "base/base.h"
#include "equil/data.h"

// The limit of the format's own library. Parsed as JSON, a header takes about ten times its bytes.
#define EQ_SAFETENSORS_MAX_HEADER 100000000u
#define EQ_SAFETENSORS_METADATA "__metadata__"

// Type of a name as in the file; false when it is none.
bool eq_data_type_find(const char *name, enum eq_data_type *type);

// Number of elements of a shape and of its bytes; false when an extent is negative or the bytes do not fit 63 bits.
bool eq_data_size(enum eq_data_type type, const int64_t *dims, int num_dims, size_t *elems, size_t *bytes);

// eq_tensors_save() for tensors that are not in memory all at once: fetch() writes the data of entry `index`, whose own is
// NULL, into memory for it. When it fails, so does this, and the old file stays.
typedef eq_status (*eq_tensor_fetch_fn)(void *user, size_t index, void *data);
eq_status eq_tensors_save_fetched(const char *path, const struct eq_tensor_entry *entries, size_t num_entries,
                                  const struct eq_tensors_text *texts, size_t num_texts, eq_tensor_fetch_fn fetch, void *user);

#endif

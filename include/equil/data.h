// Data from outside: image files, tensors in safetensors files, and labelled image sets.
//
// Every path is used as it is given. A failure's text (eq_last_error()) names the file, and the tensor or the item in it. No
// device is used. Base.h has what holds for threads, lifetimes and EQ_ERR_HOST_MEMORY.
#ifndef EQUIL_DATA_H
#define EQUIL_DATA_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

// ---- images

// A decoded image. Zero-initialise it, or let eq_image_load() fill it, which frees nothing that was in it.
struct eq_image {
    uint8_t *pixels; // [height, width, 3] red, green, blue; malloc'ed
    int height, width;
};

// Decodes a JPEG or PNG file; its first bytes decide which it is, not its name. Grey, palette, 16-bit, CMYK and YCCK images
// become 8-bit RGB: 16-bit samples keep their upper byte, alpha is dropped (not blended), an EXIF orientation is applied,
// colour profiles and gamma are ignored. Bits are those of Pillow's convert("RGB"), but for grey PNGs of 16 bits, whose samples
// Pillow clips to 255. At most 2^26 pixels, 65535 on a side, and 512 MiB of file.
//   image  write   free it with eq_image_free(); zeroed on failure
// Errors: EQ_ERR_IO (cannot be read), EQ_ERR_FORMAT (neither JPEG nor PNG, damaged or cut short, a variant that the decoders do
// not know, such as 12-bit JPEG, a larger file), EQ_ERR_UNSUPPORTED (too many pixels; a JPEG of more than 100 scans).
// Thread-safe.
EQ_API eq_status eq_image_load(const char *path, struct eq_image *image);
EQ_API void eq_image_free(struct eq_image *image); // leaves it zeroed; a zeroed image is allowed

// Whether the name ends like an image file that the folder functions take: .jpg, .jpeg or .png in any case. Thread-safe.
EQ_API bool eq_image_has_name(const char *path);

// The image files that `path` stands for: itself when it is a file, whatever its name, and for a folder every file in it with
// an image's name, sorted by bytes, but for names that begin with a dot (folders below it are not entered).
//   paths  write   [num] malloc'ed; free with eq_image_list_free(); NULL on failure, with num 0
// Errors: EQ_ERR_IO (not there, unreadable), EQ_ERR_NOT_FOUND (a folder without images). Thread-safe.
EQ_API eq_status eq_image_list(const char *path, char ***paths, size_t *num);
EQ_API void eq_image_list_free(char **paths, size_t num); // NULL with num 0 is allowed

struct eq_dataset; // below
// An image that is still to be read.
struct eq_image_item {
    const char *path;                 // a file; NULL: an item of a set
    const struct eq_dataset *dataset; // where path is NULL
    size_t item;
};

// Writes a PNG, 8-bit RGB, atomically (a reader sees the old file or the whole new one). The image is only read.
// Errors: EQ_ERR_ARGUMENT (an extent outside 1 .. 65535), EQ_ERR_IO. Thread-safe.
EQ_API eq_status eq_image_save_png(const char *path, const struct eq_image *image);

// ---- safetensors files

enum { EQ_MAX_DIMS = 8 };

// Element types by their names in the files. The numbers are not part of the format.
enum eq_data_type {
    EQ_DATA_F32, // the zero default
    EQ_DATA_F64,
    EQ_DATA_F16,
    EQ_DATA_BF16,
    EQ_DATA_I64,
    EQ_DATA_I32,
    EQ_DATA_I16,
    EQ_DATA_I8,
    EQ_DATA_U64,
    EQ_DATA_U32,
    EQ_DATA_U16,
    EQ_DATA_U8,
    EQ_DATA_BOOL,
    EQ_DATA_F8_E4M3,
    EQ_DATA_F8_E5M2,
    EQ_NUM_DATA_TYPES
};
EQ_API const char *eq_data_type_name(enum eq_data_type type); // "F32", "I64", ...; "unknown" for others, never NULL
EQ_API size_t eq_data_type_bytes(enum eq_data_type type);     // of an element: 1, 2, 4 or 8

// One tensor of a file. When a file is read, `name` belongs to the file handle and `data` is NULL; when one is written, both
// are the caller's.
struct eq_tensor_entry {
    const char *name;
    enum eq_data_type type;
    int num_dims;              // 0 .. EQ_MAX_DIMS; 0 is a scalar
    int64_t dims[EQ_MAX_DIMS]; // outermost first, each >= 0
    size_t elems;              // product of dims; ignored when writing
    const void *data;          // writing only: row-major, little-endian as in memory; may be NULL when there is no element
};

// A text of the file's metadata.
struct eq_tensors_text {
    const char *key, *value; // UTF-8
};

// An open file. Only its header is in memory. Functions that take it const are thread-safe until it is closed.
struct eq_tensors;

// Opens a safetensors file and checks the whole header: its length, every name, type, shape and offset, that tensors neither
// overlap nor leave gaps, and that they fill the file exactly. Errors: EQ_ERR_IO (not there, unreadable, no regular file),
// EQ_ERR_FORMAT (anything else that is wrong with it). *file is NULL then.
EQ_API eq_status eq_tensors_open(const char *path, struct eq_tensors **file);
// The same for a file that is in memory: data [bytes] is kept, stays the caller's, and has to stay as it is, until
// eq_tensors_close(). `name` stands for the path in texts. Errors: EQ_ERR_ARGUMENT (data NULL), EQ_ERR_FORMAT.
EQ_API eq_status eq_tensors_open_memory(const char *name, const void *data, size_t bytes, struct eq_tensors **file);
EQ_API void eq_tensors_close(struct eq_tensors **file); // *file becomes NULL; NULL is allowed

EQ_API const char *eq_tensors_path(const struct eq_tensors *file); // or the name, as given when it was opened
EQ_API size_t eq_tensors_num(const struct eq_tensors *file);
// Tensor number i < eq_tensors_num(), in the order of the data; NULL for other numbers. Valid until the file is closed.
EQ_API const struct eq_tensor_entry *eq_tensors_at(const struct eq_tensors *file, size_t i);
// Tensor of that name, or NULL (no error text). Valid until the file is closed.
EQ_API const struct eq_tensor_entry *eq_tensors_find(const struct eq_tensors *file, const char *name);

// Reads a whole tensor, row-major. _f32 takes F32, F64, F16 and BF16 (rounded to nearest, too large becomes infinite); _i64
// takes every integer type and BOOL (a U64 above INT64_MAX is an error).
//   values  write   [elems] elems must be the tensor's number of elements; undefined on failure
// Errors: EQ_ERR_NOT_FOUND (no such name), EQ_ERR_SHAPE (elems), EQ_ERR_FORMAT (type), EQ_ERR_IO (also a file that became
// shorter since it was opened). Thread-safe.
EQ_API eq_status eq_tensors_read_f32(const struct eq_tensors *file, const char *name, float *values, size_t elems);
EQ_API eq_status eq_tensors_read_i64(const struct eq_tensors *file, const char *name, int64_t *values, size_t elems);

// Metadata: the value of a key, or NULL; and all of them by number, i < eq_tensors_num_texts(), two NULLs for other numbers.
// Valid until the file is closed.
EQ_API const char *eq_tensors_text(const struct eq_tensors *file, const char *key);
EQ_API size_t eq_tensors_num_texts(const struct eq_tensors *file);
EQ_API struct eq_tensors_text eq_tensors_text_at(const struct eq_tensors *file, size_t i);

// Writes a file atomically: a reader, or a crash, sees the old file or the whole new one. A failure leaves no temporary file; a
// process that is killed may leave PATH.tmp.NUMBERS, which the next that writes the path removes. The same arguments give the
// same bytes. Tensors are stored with the wider element types first, otherwise in the order given, so that each is aligned to
// its element.
//   entries  read   [num_entries] distinct names, not "__metadata__"
//   texts    read   [num_texts] distinct keys; NULL when there is none
// Errors: EQ_ERR_ARGUMENT (names, types, shapes and texts: missing, twice, not UTF-8, negative extents; data that is missing),
// EQ_ERR_IO (the text has the path and the system's reason). Thread-safe.
EQ_API eq_status eq_tensors_save(const char *path, const struct eq_tensor_entry *entries, size_t num_entries,
                                 const struct eq_tensors_text *texts, size_t num_texts);

// ---- labelled image sets

// Which part of a set. A set has a test part of its own when it is CIFAR, IDX, "shapes", or a folder that holds train/ and val/
// or test/.
enum eq_split {
    EQ_SPLIT_TRAIN,    // everything that may be learned from: the training part, or all items of a set without a test part
    EQ_SPLIT_TEST,     // the test part, or all items of a set without one
    EQ_SPLIT_FIT,      // EQ_SPLIT_TRAIN without the held-out tenth
    EQ_SPLIT_HELD_OUT, // the held-out tenth of EQ_SPLIT_TRAIN, chosen by the seed
};

struct eq_dataset_params {
    // "DIR"          a folder with one folder of JPEG and PNG files per class, named after it (classes are sorted by name), or
    //                a folder that holds train/ and val/ (or test/), each of that form
    // "cifar10:DIR"  the binary version of CIFAR-10 (data_batch_1.bin ... test_batch.bin), or a folder with train/ and test/
    //                as above
    // "idx:DIR"      the files of MNIST and its relatives (train-images-idx3-ubyte, ...), unpacked
    // "shapes"       drawn shapes, 10,000 for training and 2,000 for testing; "shapes:SEED" draws others
    const char *spec;
    enum eq_split split; // default EQ_SPLIT_TRAIN
    uint64_t seed;       // chooses the held-out tenth; nothing else depends on it
    int size;            // side of drawn shapes in pixels, 16 .. 1024; 0 means 32; others ignore it
    // NULL: the set's own classes. Else [num_classes], 2 or more: labels are positions in this list; a class of the set that is
    // not in it is an error, one that the set lacks is not.
    const char *const *class_names;
    int num_classes;
};

// An open set. It does not change once open: all functions but the destructor are thread-safe. Files of folders are read when
// an item is asked for, those of CIFAR-10 and IDX when the set is opened.
struct eq_dataset;

// Finds the items of a set; image files are not decoded yet. Nothing of params is kept. Errors: EQ_ERR_IO (not there,
// unreadable, not a folder), EQ_ERR_FORMAT (damaged, packed; a class of the test part that the training part does not have),
// EQ_ERR_NOT_FOUND (no images), EQ_ERR_ARGUMENT (a spec or a split that is none, a size outside its range, a single class, a
// class outside class_names, a tenth to be held out of a single image). *dataset is NULL then.
EQ_API eq_status eq_dataset_open(const struct eq_dataset_params *params, struct eq_dataset **dataset);
EQ_API void eq_dataset_destroy(struct eq_dataset **dataset); // *dataset becomes NULL; NULL is allowed

// Threads that decode a set's images where no number is given: those of EQUIL_THREADS, else one a processor. EQ_ERR_ARGUMENT:
// EQUIL_THREADS is no such number; *num is then as it was.
EQ_API eq_status eq_dataset_threads(int *num);

EQ_API size_t eq_dataset_num_items(const struct eq_dataset *dataset); // >= 1
EQ_API int eq_dataset_num_classes(const struct eq_dataset *dataset);  // >= 2
// Valid as long as the set; NULL for labels that there are not.
EQ_API const char *eq_dataset_class_name(const struct eq_dataset *dataset, int label);
EQ_API bool eq_dataset_has_test_part(const struct eq_dataset *dataset); // whether the set has a test part of its own
// 0 .. num_classes - 1; item < eq_dataset_num_items(), here and below.
EQ_API int eq_dataset_label(const struct eq_dataset *dataset, size_t item);
// The file of an item, or what it is ("data_batch_1.bin, image 17"); cut to `bytes`, NUL included. Returns text.
EQ_API const char *eq_dataset_item_name(const struct eq_dataset *dataset, size_t item, char *text, size_t bytes);
// Decodes (or draws) an item; free the image with eq_image_free(). Errors: as eq_image_load(), EQ_ERR_ARGUMENT (no such item).
// The image is zeroed then.
EQ_API eq_status eq_dataset_get(const struct eq_dataset *dataset, size_t item, struct eq_image *image);

#ifdef __cplusplus
}
#endif
#endif

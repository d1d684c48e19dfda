// Decoders of image files, from memory. eq_image_load() of equil/data.h reads the file and calls eq_image_decode().
#ifndef EQ_IO_IMAGE_FILE_H
#define EQ_IO_IMAGE_FILE_H

#include "base/base.h"
#include "equil/data.h"

// 64 Mpixel: the largest camera sensors in phones; a decoded image takes 192 MiB.
#define EQ_IMAGE_MAX_PIXELS (1u << 26)
#define EQ_IMAGE_MAX_SIDE 65535
#define EQ_IMAGE_MAX_FILE_BYTES ((size_t)512 << 20)

// An encoded image in memory; name is for error texts.
struct eq_image_source {
    const char *name;
    const unsigned char *bytes;
    size_t num_bytes;
};

// Decodes JPEG or PNG, with everything that eq_image_load() promises. image is zeroed on failure.
eq_status eq_image_decode(const struct eq_image_source *source, struct eq_image *image);

// The two decoders; their images still lie as stored. orientation: the EXIF value 1 .. 8, 1 without one.
eq_status eq_image_decode_jpeg(const struct eq_image_source *source, struct eq_image *image, int *orientation);
eq_status eq_image_decode_png(const struct eq_image_source *source, struct eq_image *image, int *orientation);

// Allocates pixels [height, width, 3], uninitialised. Refuses what is above the limits, with the numbers and the name.
eq_status eq_image_make(const char *name, uint64_t height, uint64_t width, struct eq_image *image);

// Orientation from an EXIF block that begins with its TIFF header ("II" or "MM"); 1 when it is damaged or has none.
int eq_exif_orientation(const unsigned char *tiff, size_t bytes);

#endif

// JPEG and PNG files.
#include "fuzz.h"
#include "io/image_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct eq_image image = { 0 };
    const eq_status status = eq_image_decode(&(struct eq_image_source){ "input", data, bytes }, &image);
    CHECK_TEXT(status);
    if (status == EQ_OK) {
        CHECK(image.width > 0 && image.height > 0 && (uint64_t)image.width * (uint64_t)image.height <= EQ_IMAGE_MAX_PIXELS);
        volatile unsigned char last = image.pixels[(size_t)image.width * (size_t)image.height * 3 - 1];
        (void)last;
    } else {
        CHECK(!image.pixels && image.width == 0 && image.height == 0);
    }
    eq_image_free(&image);
    const int orientation = eq_exif_orientation(data, bytes);
    CHECK(orientation >= 1 && orientation <= 8);
    return 0;
}

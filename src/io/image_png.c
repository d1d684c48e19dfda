// PNG through libspng, reading and writing.
#include <spng.h>
#include <stdlib.h>

#include "io/image_file.h"

// Text and colour profiles beside the picture: generous for real files, and a bound on what a small file can unpack to.
enum { MAX_CHUNK_BYTES = 64 << 20, MAX_CACHE_BYTES = 128 << 20 };

// Out of memory is no fault of the file: training does not leave such an image out. spng tells it apart in some places only, so
// the allocations say it themselves.
static _Thread_local bool is_out_of_memory;

static void *keep(void *memory)
{
    is_out_of_memory |= !memory;
    return memory;
}

static void *png_malloc(size_t bytes)
{
    return keep(malloc(bytes));
}

static void *png_realloc(void *memory, size_t bytes)
{
    return keep(realloc(memory, bytes));
}

static void *png_calloc(size_t num, size_t bytes)
{
    return keep(calloc(num, bytes));
}

static spng_ctx *open_png(int flags)
{
    struct spng_alloc memory = { png_malloc, png_realloc, png_calloc, free };
    is_out_of_memory = false;
    return spng_ctx_new2(&memory, flags);
}

static eq_status fail_png(const char *name, int error, eq_status status)
{
    EQ_REQUIRE(!is_out_of_memory, EQ_ERR_HOST_MEMORY, "%s: PNG: out of memory", name);
    return eq_fail(status, "%s: PNG: %s", name, spng_strerror(error));
}

static eq_status decode_with(spng_ctx *png, const struct eq_image_source *source, struct eq_image *image, int *orientation)
{
    struct spng_ihdr header;
    struct spng_exif exif;
    int error = spng_set_image_limits(png, EQ_IMAGE_MAX_SIDE, EQ_IMAGE_MAX_SIDE);
    if (!error)
        error = spng_set_chunk_limits(png, MAX_CHUNK_BYTES, MAX_CACHE_BYTES);
    if (!error)
        error = spng_set_png_buffer(png, source->bytes, source->num_bytes);
    if (!error)
        error = spng_get_ihdr(png, &header);
    EQ_REQUIRE(error != SPNG_EUSER_WIDTH && error != SPNG_EUSER_HEIGHT, EQ_ERR_UNSUPPORTED,
               "%s: PNG: a side of more than %d pixels", source->name, EQ_IMAGE_MAX_SIDE);
    if (error)
        return fail_png(source->name, error, EQ_ERR_FORMAT);
    EQ_TRY(eq_image_make(source->name, header.height, header.width, image));
    // RGB8 without flags: palettes and grey are spread out, 16 bits lose the lower byte, alpha and tRNS are left off.
    error = spng_decode_image(png, image->pixels, (size_t)image->height * (size_t)image->width * 3, SPNG_FMT_RGB8, 0);
    if (error)
        return fail_png(source->name, error, EQ_ERR_FORMAT);
    if (spng_get_exif(png, &exif) == 0)
        *orientation = eq_exif_orientation((const unsigned char *)exif.data, exif.length);
    return EQ_OK;
}

static eq_status save_with(spng_ctx *png, const char *path, const struct eq_image *image)
{
    size_t bytes = 0;
    struct spng_ihdr header = { .width = (uint32_t)image->width,
                                .height = (uint32_t)image->height,
                                .bit_depth = 8,
                                .color_type = SPNG_COLOR_TYPE_TRUECOLOR };
    int error = spng_set_option(png, SPNG_ENCODE_TO_BUFFER, 1);
    if (!error)
        error = spng_set_ihdr(png, &header);
    if (!error)
        error = spng_encode_image(png, image->pixels, (size_t)image->height * (size_t)image->width * 3, SPNG_FMT_PNG,
                                  SPNG_ENCODE_FINALIZE);
    void *encoded = error ? NULL : spng_get_png_buffer(png, &bytes, &error);
    if (!encoded)
        return fail_png(path, error, EQ_ERR_IO);
    const eq_status status = eq_file_write(path, encoded, bytes);
    free(encoded);
    return status;
}

eq_status eq_image_decode_png(const struct eq_image_source *source, struct eq_image *image, int *orientation)
{
    spng_ctx *png = open_png(0);
    EQ_REQUIRE(png, EQ_ERR_HOST_MEMORY, "%s: out of memory for the PNG decoder", source->name);
    *orientation = 1;
    eq_status status = decode_with(png, source, image, orientation);
    spng_ctx_free(png);
    return status;
}

eq_status eq_image_save_png(const char *path, const struct eq_image *image)
{
    EQ_REQUIRE(image->width >= 1 && image->width <= EQ_IMAGE_MAX_SIDE && image->height >= 1 &&
                   image->height <= EQ_IMAGE_MAX_SIDE,
               EQ_ERR_ARGUMENT, "%s: %d x %d pixels, a side has 1 to %d", path, image->width, image->height, EQ_IMAGE_MAX_SIDE);
    spng_ctx *png = open_png(SPNG_CTX_ENCODER);
    EQ_REQUIRE(png, EQ_ERR_HOST_MEMORY, "%s: out of memory for the PNG encoder", path);
    eq_status status = save_with(png, path, image);
    spng_ctx_free(png);
    return status;
}

// JPEG through libjpeg-turbo. Its slow integer DCT and fancy upsampling (the defaults) give the same bits on every machine.
//
// The library reports errors by a callback that must not return: it jumps back to decode_guarded(). Warnings are kept in a
// number. Warnings that mean lost picture data make the file broken; harmless ones (bytes skipped before a marker, odd version
// numbers) do not.
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jerror.h>
#include <jpeglib.h>

#include "io/image_file.h"

// A progressive file may repeat scans without end, each as large as the image; real files have about ten.
enum { MAX_SCANS = 100 };

struct decoder {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf back;
    const struct eq_image_source *source;
    struct eq_image *image;
    unsigned char *row; // CMYK line, freed with the decoder
    int orientation;
    bool is_unsupported;          // what stopped it was a limit, not damage
    bool is_out_of_memory;        // or this
    char reason[JMSG_LENGTH_MAX]; // of the first error or damaging warning; "" before
};

static void keep_reason(struct decoder *decoder)
{
    if (!decoder->reason[0])
        decoder->errors.format_message((j_common_ptr)&decoder->jpeg, decoder->reason);
}

static void on_error(j_common_ptr jpeg)
{
    struct decoder *decoder = jpeg->client_data;
    keep_reason(decoder);
    decoder->is_out_of_memory = jpeg->err->msg_code == JERR_OUT_OF_MEMORY;
    longjmp(decoder->back, 1);
}

static void on_message(j_common_ptr jpeg, int level)
{
    int code = jpeg->err->msg_code;
    if (level < 0 && code != JWRN_EXTRANEOUS_DATA && code != JWRN_ADOBE_XFORM && code != JWRN_JFIF_MAJOR &&
        code != JWRN_BOGUS_ICC)
        keep_reason(jpeg->client_data);
}

static void on_output(j_common_ptr jpeg)
{
    (void)jpeg;
}

static void on_progress(j_common_ptr jpeg)
{
    struct decoder *decoder = jpeg->client_data;
    if (decoder->jpeg.input_scan_number <= MAX_SCANS)
        return;
    snprintf(decoder->reason, sizeof decoder->reason, "more than %d scans", MAX_SCANS);
    decoder->is_unsupported = true;
    longjmp(decoder->back, 1);
}

// Ink to light, rounded as Pillow does. Files hold the complement of the ink (Adobe's habit), so 255 is no ink.
static void cmyk_to_rgb(const unsigned char *cmyk, unsigned char *rgb, int width)
{
    for (int x = 0; x < width; x++, cmyk += 4, rgb += 3) {
        int light = cmyk[3];
        for (int c = 0; c < 3; c++) {
            int scaled = (255 - cmyk[c]) * light + 128, value = light - ((scaled + (scaled >> 8)) >> 8);
            rgb[c] = (unsigned char)(value < 0 ? 0 : value);
        }
    }
}

static eq_status read_rows(struct decoder *decoder)
{
    struct jpeg_decompress_struct *jpeg = &decoder->jpeg;
    struct eq_image *image = decoder->image;
    bool is_cmyk = jpeg->out_color_space == JCS_CMYK;
    if (is_cmyk && !(decoder->row = eq_malloc((size_t)image->width, 4)))
        return EQ_ERR_HOST_MEMORY;
    while (jpeg->output_scanline < jpeg->output_height) {
        unsigned char *rgb = image->pixels + (size_t)jpeg->output_scanline * (size_t)image->width * 3;
        unsigned char *row = is_cmyk ? decoder->row : rgb;
        jpeg_read_scanlines(jpeg, &row, 1);
        if (is_cmyk)
            cmyk_to_rgb(row, rgb, image->width);
    }
    jpeg_finish_decompress(jpeg);
    return EQ_OK;
}

static void find_orientation(struct decoder *decoder)
{
    for (jpeg_saved_marker_ptr at = decoder->jpeg.marker_list; at; at = at->next)
        if (at->marker == JPEG_APP0 + 1 && at->data_length > 6 && memcmp(at->data, "Exif\0\0", 6) == 0) {
            decoder->orientation = eq_exif_orientation(at->data + 6, at->data_length - 6);
            return;
        }
}

// Everything that may jump. Own function, so that no local variable lives across setjmp().
static eq_status decode_steps(struct decoder *decoder)
{
    struct jpeg_decompress_struct *jpeg = &decoder->jpeg;
    jpeg_create_decompress(jpeg);
    jpeg->progress = &decoder->progress;
    jpeg_mem_src(jpeg, decoder->source->bytes, decoder->source->num_bytes);
    jpeg_save_markers(jpeg, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(jpeg, TRUE);
    find_orientation(decoder);
    bool is_cmyk = jpeg->jpeg_color_space == JCS_CMYK || jpeg->jpeg_color_space == JCS_YCCK;
    jpeg->out_color_space = is_cmyk ? JCS_CMYK : JCS_RGB;
    EQ_TRY(eq_image_make(decoder->source->name, jpeg->image_height, jpeg->image_width, decoder->image));
    jpeg_start_decompress(jpeg);
    return read_rows(decoder);
}

static eq_status decode_guarded(struct decoder *decoder)
{
    if (setjmp(decoder->back))
        return EQ_ERR_FORMAT;
    return decode_steps(decoder);
}

eq_status eq_image_decode_jpeg(const struct eq_image_source *source, struct eq_image *image, int *orientation)
{
    struct decoder *decoder;
    EQ_ALLOC(decoder, 1);
    decoder->jpeg.err = jpeg_std_error(&decoder->errors);
    decoder->jpeg.client_data = decoder;
    decoder->errors.error_exit = on_error;
    decoder->errors.emit_message = on_message;
    decoder->errors.output_message = on_output;
    decoder->progress.progress_monitor = on_progress;
    decoder->source = source;
    decoder->image = image;
    decoder->orientation = 1;
    eq_status status = decode_guarded(decoder);
    if (decoder->reason[0] && (status == EQ_OK || status == EQ_ERR_FORMAT))
        status = eq_fail(decoder->is_out_of_memory ? EQ_ERR_HOST_MEMORY
                         : decoder->is_unsupported ? EQ_ERR_UNSUPPORTED
                                                   : EQ_ERR_FORMAT,
                         "%s: JPEG: %s", source->name, decoder->is_out_of_memory ? "out of memory" : decoder->reason);
    *orientation = decoder->orientation;
    jpeg_destroy_decompress(&decoder->jpeg);
    free(decoder->row);
    free(decoder);
    return status;
}

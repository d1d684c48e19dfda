// Descriptions of tensors: type, shape, layout. Pure: no memory, no device.
#ifndef EQ_TENSOR_TENSOR_H
#define EQ_TENSOR_TENSOR_H

#include "base/base.h"

enum eq_dtype { EQ_F32, EQ_I32, EQ_U8, EQ_I64 };
size_t eq_dtype_bytes(enum eq_dtype dtype);
const char *eq_dtype_name(enum eq_dtype dtype); // "f32", ...

// How a tensor lies in device memory.
enum eq_form {
    EQ_FORM_PLAIN,   // row-major [n][c][h][w], as in files and in the API
    EQ_FORM_BLOCKED, // activations: [n][c/block][h + 2 halo][w + 2 halo][block], see below
    EQ_FORM_WEIGHT,  // filters n = oc, c = ic: [oc/block][ic/block_in][kh][kw][block_in][block]; API and files: OIHW
};

// Blocked activations. Channels that fill up the last block are stored and are zero, always. The halo is a frame of `halo` zero
// pixels around every plane, written by whoever writes the tensor. block 1, halo 0 is plain NCHW. Addresses, in elements:
//     at(n, c, y, x) = origin + n*image + (c / block)*plane + y*row + x*block + c % block        y, x from 0, without the halo
struct eq_tensor {
    enum eq_dtype dtype;
    enum eq_form form;
    int n, c, h, w; // extents; unused ones are 1
    int block;      // channels in a block (output channels for filters); 0 for plain
    int block_in;   // filters only: input channels in a block
    int halo;       // blocked only: zero pixels on each side
};

struct eq_tensor eq_tensor_plain(enum eq_dtype dtype, int n, int c, int h, int w);
struct eq_tensor eq_tensor_vector(int elems); // f32 plain [elems]
struct eq_tensor eq_tensor_blocked(int n, int c, int h, int w, int block, int halo);
struct eq_tensor eq_tensor_weight(int oc, int ic, int kh, int kw, int block, int block_in);

// Stored elements, with padding channels and halo. Bytes fit size_t: shapes were checked with eq_tensor_check().
size_t eq_tensor_elems(const struct eq_tensor *tensor);
size_t eq_tensor_bytes(const struct eq_tensor *tensor);
size_t eq_tensor_logical(const struct eq_tensor *tensor);    // n*c*h*w
eq_status eq_tensor_check(const struct eq_tensor *tensor);   // every extent >= 1, total below 2^40 bytes
int eq_tensor_blocks(const struct eq_tensor *tensor);        // blocks of channels: ceil(c / block)
size_t eq_tensor_row(const struct eq_tensor *tensor);        // elements from a pixel to the one below it
size_t eq_tensor_plane(const struct eq_tensor *tensor);      // elements from a block to the next
size_t eq_tensor_image(const struct eq_tensor *tensor);      // elements from an image to the next
size_t eq_tensor_origin(const struct eq_tensor *tensor);     // elements before pixel (0, 0) of image 0, block 0

// Host-side conversion of f32 tensors between the plain order (NCHW, OIHW, [elems]) and the stored form. The stored side has
// eq_tensor_elems() elements; padding and halo are written as zeros.
void eq_tensor_pack(const struct eq_tensor *tensor, const float *plain, float *stored);
void eq_tensor_unpack(const struct eq_tensor *tensor, const float *stored, float *plain);

// "[8, 64, 56, 56]" into text.
const char *eq_tensor_shape_text(const struct eq_tensor *tensor, char text[64]);

#endif

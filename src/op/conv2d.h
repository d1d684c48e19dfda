// Private to src/op/conv2d*.c: what the three convolution ops share.
#ifndef EQ_OP_CONV2D_H
#define EQ_OP_CONV2D_H

#include "op/op.h"

// Places and strides of a blocked tensor, in elements. A plain tensor is seen as blocked by 1.
struct eq_conv2d_view {
    struct eq_ref origin; // pixel (0, 0) of block 0 of image 0
    int n, c, h, w, block, blocks, halo;
    int row, step, plane; // to the pixel below, the pixel beside, the next block
};
struct eq_conv2d_view eq_conv2d_view(const struct eq_tensor *tensor, struct eq_ref ref);

// z = act(correlation of x with a filter, plus `bias`, plus `add`): a convolution, or a parity class of a data gradient. The view of z may have a
// step and a row of several pixels; its h and w count the pixels made here.
struct eq_conv2d_job {
    struct eq_conv2d_view x, z, add;
    bool has_add;
    struct eq_ref bias; // f32 [z.blocks * z.block], or EQ_REF_NONE
    enum eq_activation activation;
    struct eq_ref filter; // [z.blocks, x.blocks, kh, kw, x.block, z.block]
    int kh, kw;           // 0 taps make zeros (plus `add`)
    int stride_h, stride_w;
    int first_y, first_x; // input pixel under tap (0, 0) of output (0, 0)
    struct eq_cost cost;
};
eq_status eq_conv2d_vector_emit(struct eq_list *list, const struct eq_conv2d_job *job);
eq_status eq_conv2d_simt_emit(struct eq_list *list, const struct eq_conv2d_job *job);
eq_status eq_conv2d_job_emit(struct eq_list *list, const struct eq_conv2d_job *job); // by the target's family

// Zeroes the halo of a tensor; nothing to do where there is none.
eq_status eq_conv2d_border_emit(struct eq_list *list, const struct eq_tensor *tensor, struct eq_ref ref);

// Checks a convolution's attributes and operands, with `name` in the text of errors, and computes oh and ow.
eq_status eq_conv2d_check(const char *name, const struct eq_target *target, const struct eq_conv2d_attributes *attributes,
                          const struct eq_tensor *x, const struct eq_tensor *w, int *oh, int *ow);
// 2 n oc oh ow ic kh kw, and each operand read or written once.
struct eq_cost eq_conv2d_cost(const struct eq_tensor *x, const struct eq_tensor *w, const struct eq_tensor *z);

#endif

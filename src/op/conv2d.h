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

// z = act(correlation of x with a filter, plus `bias`, plus `add`): a convolution, or a parity class of a data gradient. The
// view of z may have a step and a row of several pixels; its h and w count the pixels made here. Moments, of z, are for VECTOR
// and one group.
struct eq_conv2d_job {
    struct eq_conv2d_view x, z, add;
    bool has_add;
    int moment_tiles;      // 0: no moments
    struct eq_ref moments; // f32 [n, z.blocks, eq_conv2d_vector_parts(), 3, z.block]
    struct eq_ref bias;    // f32 [z.blocks * z.block], or EQ_REF_NONE
    enum eq_activation activation;
    struct eq_ref filter;         // [z.blocks, x.blocks, kh, kw, x.block, z.block], or what eq_conv2d_pack_emit() made of it
    int filter_image, bias_image; // elements from an image's filter and bias to the next one's; 0: all have the same. VECTOR
    int groups;                   // 0 and 1: one group; several: filter [z.blocks, x.c / groups, kh, kw, z.block]
    int filters; // 0 and 1: one; several (GPUs): x, filter and z that often, one after another, without bias or add
    int kh, kw;  // 0 taps make zeros (plus `add`)
    int stride_h, stride_w;
    int first_y, first_x; // input pixel under tap (0, 0) of output (0, 0)
    struct eq_cost cost;
};
// Cycles of one input channel of a register tile of pixels x blocks of outputs, on a core with two multiply-adds and two loads
// a cycle: a fit to measured tiles. More sums than EQ_CONV2D_MAX_SUMS leave the registers (measured: 7 x 4 takes 1.3 times as
// long as two of 7 x 2).
double eq_conv2d_sums_cycles(int pixels, int blocks);
// AHEAD of those kernels: the share of `rows` x `blocks` rows of filters that one of `turns` register tiles fetches.
int eq_conv2d_ahead(int rows, int blocks, int turns);
#define EQ_CONV2D_MAX_SUMS(block) ((block) == 16 ? 24 : 12)
// Whether z is stored past the caches: it is not when it holds `add`.
bool eq_conv2d_streams(const struct eq_target *target, const struct eq_conv2d_job *job);
eq_status eq_conv2d_vector_emit(struct eq_list *list, const struct eq_conv2d_job *job);
// Parts of a plane of z that the work-items of a job have, one each; tiles of such a work-item.
int eq_conv2d_vector_parts(const struct eq_target *target, const struct eq_conv2d_job *job);
int eq_conv2d_vector_tiles_each(const struct eq_target *target, const struct eq_conv2d_job *job);
eq_status eq_conv2d_simt_emit(struct eq_list *list, const struct eq_conv2d_job *job);
eq_status eq_conv2d_matrix_emit(struct eq_list *list, const struct eq_conv2d_job *job);
// A GPU kernel of the filter's gradient and how it cuts k = (input block, kh, kw, channel) and the output channels.
struct eq_conv2d_grad_tile {
    const char *kernel; // of the source of its name
    struct eq_options options;
    int group, tiles_oc, tiles_k;
};
struct eq_conv2d_grad_tile eq_conv2d_matrix_grad_tile(const struct eq_target *target, int block_in, int block, int channels,
                                                      int k);
// By the target's precision; taps: kh * kw.
struct eq_conv2d_grad_tile eq_conv2d_simt_grad_tile(const struct eq_target *target, const struct eq_conv2d_view *x,
                                                    const struct eq_conv2d_view *dz, int taps);
// dw [parts, dz.blocks, x.blocks, kh, kw, x.block, dz.block] on a GPU: part p sums over dz's pixels of all images from
// p * part_pixels on.
struct eq_conv2d_grad_job {
    struct eq_conv2d_view x, dz;
    struct eq_ref dw;
    int kh, kw, stride_h, stride_w, pad_h, pad_w;
    int parts, part_pixels;
    struct eq_cost cost;
};
eq_status eq_conv2d_simt_grad_emit(struct eq_list *list, const struct eq_conv2d_grad_job *job);
eq_status eq_conv2d_job_emit(struct eq_list *list, const struct eq_conv2d_job *job); // by the target's family and precision
int eq_conv2d_num_k(const struct eq_tensor *w); // values of k of a filter: input channels rounded up to blocks, times kh kw
// Matrix units read filters rounded and in an order of their own (conv2d_matrix.c): floats that one of num_k = x.blocks * kh *
// kw * x.block values for each of `channels` outputs takes then; 0 where filters are read as they are stored.
size_t eq_conv2d_packed_elems(const struct eq_target *target, int groups, int channels, int num_k);
// packed = w [channel blocks, num_k, block], times scale [channel blocks, block] (EQ_REF_NONE: 1). is_preparation: as in
// struct eq_launch.
eq_status eq_conv2d_pack_emit(struct eq_list *list, int channels, int num_k, struct eq_ref w, struct eq_ref scale,
                              struct eq_ref packed, bool is_preparation);

// Convolutions of several groups (conv2d_grouped.c). The filter of the data gradient's jobs is w made anew, with as many
// elements as this; groups > 1.
eq_status eq_conv2d_grouped_emit(struct eq_list *list, const struct eq_conv2d_job *job);
size_t eq_conv2d_grouped_transposed_elems(const struct eq_tensor *w, int groups);
eq_status eq_conv2d_grouped_transpose_emit(struct eq_list *list, const struct eq_conv2d_attributes *attributes,
                                           const struct eq_tensor *w, struct eq_ref from, struct eq_ref to);
// Workspace and steps of an eq_op_conv2d_weight_grad call.
size_t eq_conv2d_grouped_weight_grad_elems(const struct eq_call *call);
eq_status eq_conv2d_grouped_weight_grad_emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in,
                                             const struct eq_ref *out);

// Winograd's convolution (conv2d_winograd.c). Extents are those of z = conv(x): a data gradient is the convolution of dz with
// the transposed filter.
struct eq_conv2d_shape {
    int n, ic, oc, oh, ow;
    bool is_prepared; // the transformed filter is there already
    bool is_weight_grad;
};
// Whether Winograd's algorithm can do it.
bool eq_conv2d_winograd_fits(const struct eq_target *target, const struct eq_conv2d_attributes *attributes, int kh, int kw,
                             int x_block);
// The algorithm of a convolution that eq_conv2d_check() accepted: never AUTO. `shape`: see above; x_block: channels in a block
// of the input.
enum eq_conv2d_algorithm eq_conv2d_choose(const struct eq_target *target, const struct eq_conv2d_attributes *attributes, int kh,
                                          int kw, int x_block, const struct eq_conv2d_shape *shape);
// Elements of the transformed filter, 0 where the algorithm reads the stored one, and of the scratch memory.
size_t eq_conv2d_winograd_filter_elems(const struct eq_target *target, enum eq_conv2d_algorithm algorithm,
                                       const struct eq_conv2d_shape *shape);
size_t eq_conv2d_winograd_scratch_elems(const struct eq_target *target, enum eq_conv2d_algorithm algorithm,
                                        const struct eq_conv2d_shape *shape);
// u = transform of a filter w [oc, ic, 3, 3] in its stored form, times scale [oc rounded up to blocks] (EQ_REF_NONE: 1).
eq_status eq_conv2d_winograd_filter_emit(struct eq_list *list, enum eq_conv2d_algorithm algorithm,
                                         const struct eq_conv2d_shape *shape, struct eq_ref w, struct eq_ref scale,
                                         struct eq_ref u);
// The job with u as its filter, or the stored one where no transform is wanted.
eq_status eq_conv2d_winograd_emit(struct eq_list *list, enum eq_conv2d_algorithm algorithm, const struct eq_conv2d_shape *shape,
                                  const struct eq_conv2d_job *job, struct eq_ref scratch);

// The gradient of the filter: dw [oc, ic, 3, 3] in its stored form from x and dz. scratch: as many elements as below.
size_t eq_conv2d_winograd_grad_elems(const struct eq_target *target, enum eq_conv2d_algorithm algorithm,
                                     const struct eq_conv2d_shape *shape);
eq_status eq_conv2d_winograd_grad_emit(struct eq_list *list, enum eq_conv2d_algorithm algorithm,
                                       const struct eq_conv2d_attributes *attributes, const struct eq_conv2d_view *x,
                                       const struct eq_conv2d_view *dz, struct eq_ref dw, struct eq_ref scratch);

// The steps that conv2d_winograd_simt.c shares with these two.
int eq_conv2d_winograd_tile(enum eq_conv2d_algorithm algorithm); // side of an output tile: 2 or 4
struct eq_options eq_conv2d_winograd_options(const struct eq_target *target, enum eq_conv2d_algorithm algorithm);
struct eq_range eq_conv2d_winograd_filter_range(const struct eq_target *target, int x_blocks, int oc_blocks);
// Transforms tiles first .. first + count of x into v [points, x.blocks, chunk, block] and, with has_dz, of dz into d.
struct eq_conv2d_tiles {
    struct eq_conv2d_view x, dz; // without has_dz, only the extents of dz count: those of the convolution of x
    bool has_dz;
    struct eq_ref v, d;
    int tile, first_y, first_x; // input pixel under tap (0, 0) of output (0, 0)
    int first, count, chunk;
};
eq_status eq_conv2d_winograd_tiles_emit(struct eq_list *list, const struct eq_conv2d_tiles *tiles,
                                        const struct eq_options *options);
// dw from du [chunks, points, parts, oc_blocks, x_blocks, block, block].
struct eq_conv2d_sums {
    struct eq_ref du;
    int x_blocks, oc_blocks, chunks, parts;
};
eq_status eq_conv2d_winograd_filter_grad_emit(struct eq_list *list, const struct eq_options *options, int points,
                                              const struct eq_conv2d_sums *sums, struct eq_ref dw);
// For GPUs (conv2d_winograd_simt.c), as the functions without simt in their names.
size_t eq_conv2d_winograd_simt_scratch_elems(const struct eq_target *target, enum eq_conv2d_algorithm algorithm,
                                             const struct eq_conv2d_shape *shape);
eq_status eq_conv2d_winograd_simt_emit(struct eq_list *list, enum eq_conv2d_algorithm algorithm,
                                       const struct eq_conv2d_shape *shape, const struct eq_conv2d_job *job,
                                       struct eq_ref scratch);
size_t eq_conv2d_winograd_simt_grad_elems(const struct eq_target *target, enum eq_conv2d_algorithm algorithm,
                                          const struct eq_conv2d_shape *shape);
eq_status eq_conv2d_winograd_simt_grad_emit(struct eq_list *list, enum eq_conv2d_algorithm algorithm,
                                            const struct eq_conv2d_attributes *attributes, const struct eq_conv2d_view *x,
                                            const struct eq_conv2d_view *dz, struct eq_ref dw, struct eq_ref scratch);
eq_status eq_conv2d_winograd_simt_tunable(const struct eq_target *target, enum eq_conv2d_algorithm algorithm,
                                          const struct eq_conv2d_shape *shape, struct eq_tunable *tunable);

// Choices for the tuner: the algorithm (no candidates where there is no choice), the direct kernels' tiles and orders, and
// Winograd's tiles.
eq_status eq_conv2d_algorithm_tunable(const struct eq_target *target, const struct eq_conv2d_attributes *attributes, int kh,
                                      int kw, int x_block, const struct eq_conv2d_shape *shape, struct eq_tunable *tunable);
eq_status eq_conv2d_vector_tunable(const struct eq_target *target, const struct eq_conv2d_job *job,
                                   struct eq_tunable *tunable);
eq_status eq_conv2d_simt_tunable(const struct eq_target *target, const struct eq_conv2d_job *job, struct eq_tunable *tunable);
eq_status eq_conv2d_matrix_tunable(const struct eq_target *target, const struct eq_conv2d_job *job, struct eq_tunable *tunable);
eq_status eq_conv2d_job_tunable(const struct eq_target *target, const struct eq_conv2d_job *job,
                                struct eq_tunable *tunable); // by the target's family
eq_status eq_conv2d_winograd_tunable(const struct eq_target *target, enum eq_conv2d_algorithm algorithm,
                                     const struct eq_conv2d_shape *shape, struct eq_tunable *tunable);

// eq_op.expect of the three ops (conv2d_expect.c).
double eq_conv2d_expect(const struct eq_call *call, const float *const *inputs, size_t index, double *magnitude);
double eq_conv2d_data_grad_expect(const struct eq_call *call, const float *const *inputs, size_t index, double *magnitude);
double eq_conv2d_weight_grad_expect(const struct eq_call *call, const float *const *inputs, size_t index, double *magnitude);

// dw, output 0 of a weight gradient's call, as the sum of partial ones, in their order.
eq_status eq_conv2d_merge_emit(struct eq_list *list, const struct eq_call *call, struct eq_ref partial, struct eq_ref dw,
                               int parts);
// Zeroes the halo of a tensor; nothing to do where there is none.
eq_status eq_conv2d_border_emit(struct eq_list *list, const struct eq_tensor *tensor, struct eq_ref ref);

// Checks a convolution's attributes and operands, with `name` in the text of errors, and computes oh and ow.
eq_status eq_conv2d_check(const char *name, const struct eq_target *target, const struct eq_conv2d_attributes *attributes,
                          const struct eq_tensor *x, const struct eq_tensor *w, int *oh, int *ow);
// 2 n oc oh ow ic kh kw, and each operand read or written once.
struct eq_cost eq_conv2d_cost(const struct eq_tensor *x, const struct eq_tensor *w, const struct eq_tensor *z);

#endif

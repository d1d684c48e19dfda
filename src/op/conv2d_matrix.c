// Convolutions and gradients of filters on matrix units: the work-group's tile and the launch.
#include <assert.h>

#include "op/conv2d.h"

// Groups of lanes over pixels and output channels, and the tiles of 16 x 16 of each.
struct split {
    int groups_px, groups_oc, tiles_px, tiles_oc;
};

static size_t ceil_div(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

// Groups of lanes in a work-group that the device allows: fewer over pixels (or values of k), then over channels.
static void fit_group(const struct eq_target *target, int lanes, int *groups, int *groups_oc)
{
    while (*groups > 1 && (size_t)(*groups * *groups_oc * lanes) > target->max_group)
        *groups /= 2;
    while (*groups_oc > 1 && (size_t)(*groups * *groups_oc * lanes) > target->max_group)
        *groups_oc /= 2;
}

// 128 pixels x 64 channels, in which a lane of 32 holds 32 sums; lanes of 8 hold 64 of 64 x 64. Half the pixels where there are
// too few work-groups to fill the device twice.
static struct split choose_split(const struct eq_target *target, int lanes, int channels, size_t pixels)
{
    struct split split = { .groups_px = lanes == 64 ? 2 : 4, .groups_oc = channels <= 32 ? 1 : 2,
                           .tiles_px = lanes == 64 ? 4 : lanes == 8 ? 1 : 2, .tiles_oc = channels <= 16 ? 1 : 2 };
    const size_t rows = ceil_div((size_t)channels, (size_t)(16 * split.groups_oc * split.tiles_oc));
    if (rows * ceil_div(pixels, (size_t)(16 * split.groups_px * split.tiles_px)) < 2 * (size_t)target->compute_units)
        split.groups_px /= 2;
    fit_group(target, lanes, &split.groups_px, &split.groups_oc);
    assert((size_t)(split.groups_px * split.groups_oc * lanes) <= 256);
    return split;
}

struct eq_conv2d_grad_tile eq_conv2d_matrix_grad_tile(const struct eq_target *target, int block_in, int block, int channels,
                                                      int k)
{
    const int lanes = eq_matrix_unit_lanes(target->matrix_unit), tiles_oc = channels <= 16 ? 1 : 2,
              tiles_k = lanes == 64 ? 4 : lanes == 8 ? 1 : 2;
    int groups_oc = channels <= 32 ? 1 : 2, groups_k = lanes == 64 ? 2 : lanes == 8 && groups_oc == 1 ? 8 : 4;
    fit_group(target, lanes, &groups_k, &groups_oc);
    return (struct eq_conv2d_grad_tile){
        .kernel = "conv2d_matrix_weight_grad",
        .options = eq_options_format("-DEQ_MATRIX=%d -DPRECISION=%d -DBLOCK=%d -DBI=%d -DSK=%d -DSO=%d -DTK=%d -DTO=%d",
                                     (int)target->matrix_unit, (int)target->precision, block, block_in, groups_k,
                                     groups_oc, tiles_k, tiles_oc),
        .group = groups_k * groups_oc * lanes,
        .tiles_oc = (int)ceil_div((size_t)channels, (size_t)(16 * groups_oc * tiles_oc)),
        .tiles_k = (int)ceil_div((size_t)k, (size_t)(16 * groups_k * tiles_k)),
    };
}

eq_status eq_conv2d_matrix_emit(struct eq_list *list, const struct eq_conv2d_job *job)
{
    const struct eq_target *target = eq_list_target(list);
    const struct eq_conv2d_view *x = &job->x, *z = &job->z, *add = &job->add;
    const int lanes = eq_matrix_unit_lanes(target->matrix_unit);
    const size_t pixels = (size_t)x->n * (size_t)z->h * (size_t)z->w;
    const struct split split = choose_split(target, lanes, z->blocks * z->block, pixels);
    const size_t group = (size_t)(split.groups_px * split.groups_oc * lanes);
    EQ_REQUIRE(group <= target->max_group, EQ_ERR_UNSUPPORTED,
               "conv2d: %s needs work-groups of %zu, the device has %zu at most", eq_precision_name(target->precision), group,
               target->max_group);
    const bool has_taps = job->kh > 0 && job->kw > 0;
    const struct eq_ref refs[] = { x->origin, job->filter, job->bias, job->has_add ? add->origin : EQ_REF_NONE, z->origin };
    const bool is_aligned = eq_refs_are_aligned(refs + (x->block == 1), 5 - (x->block == 1)); // pixels of an image one by one
    // Without taps there is nothing to sum: no input block, and any filter size will do.
    const struct eq_options options =
        eq_options_format("-DEQ_MATRIX=%d -DPRECISION=%d -DBLOCK=%d -DBI=%d -DKH=%d -DKW=%d -DSP=%d -DSO=%d -DTP=%d -DTO=%d "
                          "-DACT=%d -DEQ_ALIGNED=%d", (int)target->matrix_unit, (int)target->precision, z->block, x->block,
                          has_taps ? job->kh : 1, has_taps ? job->kw : 1, split.groups_px, split.groups_oc, split.tiles_px,
                          split.tiles_oc, (int)job->activation, is_aligned);
    const struct eq_launch launch = {
        .source = "conv2d_matrix",
        .options = options.text,
        .kernel = "conv2d_matrix",
        .range = eq_range_2d(group * ceil_div(pixels, (size_t)(16 * split.groups_px * split.tiles_px)),
                             ceil_div((size_t)(z->blocks * z->block), (size_t)(16 * split.groups_oc * split.tiles_oc)),
                             group, 1),
        .cost = job->cost,
        .cut = 1,
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(x->origin), EQ_REF(job->filter), EQ_REF(job->bias),
                                  EQ_REF(job->has_add ? add->origin : EQ_REF_NONE), EQ_REF(z->origin), EQ_I32(x->n),
                                  EQ_I32(x->h), EQ_I32(x->w), EQ_I32(x->row), EQ_I32(x->plane),
                                  EQ_I32(has_taps ? x->blocks : 0), EQ_I32(job->first_y), EQ_I32(job->first_x),
                                  EQ_I32(job->stride_h), EQ_I32(job->stride_w), EQ_I32(z->blocks), EQ_I32(z->h), EQ_I32(z->w),
                                  EQ_I32(z->row), EQ_I32(z->step), EQ_I32(z->plane), EQ_I32(add->row), EQ_I32(add->step),
                                  EQ_I32(add->plane), EQ_I32(job->bias.buffer != NULL), EQ_I32(job->has_add)));
}

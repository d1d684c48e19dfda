// Gradients of filters on GPUs: the work-group's tile and the launch.
#include "op/conv2d.h"

static int ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

struct eq_conv2d_grad_tile eq_conv2d_simt_grad_tile(const struct eq_target *target, const struct eq_conv2d_view *x,
                                                    const struct eq_conv2d_view *dz, int taps)
{
    const int channels = dz->blocks * dz->block, k = x->blocks * x->block * taps;
    if (target->precision != EQ_FP32)
        return eq_conv2d_matrix_grad_tile(target, x->block, dz->block, channels, k);
    // 4 quads_oc lanes_oc output channels x 64 quads_k values of k, by 16 lanes_oc work-items
    const int most = target->max_group < 128 ? 4 : target->max_group < 256 ? 8 : 16, quads_k = k <= 64 ? 1 : 2;
    const int quads_oc = quads_k == 2 && channels >= 32 && target->max_sums >= 64 ? 2 : 1;
    const int quads = ceil_div(channels, 4 * quads_oc);
    const int wanted = quads <= 4 ? 4 : quads <= 8 ? 8 : 16, lanes_oc = wanted < most ? wanted : most;
    return (struct eq_conv2d_grad_tile){
        .kernel = "conv2d_simt_weight_grad",
        .options = eq_options_format("-DBLOCK=%d -DBI=%d -DNTO=%d -DKV=%d -DOQ=%d", dz->block, x->block, lanes_oc, quads_k,
                                     quads_oc),
        .group = 16 * lanes_oc,
        .tiles_oc = ceil_div(channels, 4 * quads_oc * lanes_oc),
        .tiles_k = ceil_div(k, 64 * quads_k),
    };
}

eq_status eq_conv2d_simt_grad_emit(struct eq_list *list, const struct eq_conv2d_grad_job *job)
{
    const struct eq_target *target = eq_list_target(list);
    const struct eq_conv2d_view *x = &job->x, *dz = &job->dz;
    const struct eq_conv2d_grad_tile tile = eq_conv2d_simt_grad_tile(target, x, dz, job->kh * job->kw);
    const size_t group = (size_t)tile.group;
    EQ_REQUIRE(group <= target->max_group, EQ_ERR_UNSUPPORTED,
               "conv2d_weight_grad: needs work-groups of %zu, the device has %zu at most", group, target->max_group);
    const struct eq_ref refs[] = { x->origin, dz->origin, job->dw };
    const bool is_aligned = eq_refs_are_aligned(refs + (x->block == 1), 3 - (x->block == 1)); // pixels of an image one by one
    const struct eq_options options = eq_options_format("%s -DEQ_ALIGNED=%d", tile.options.text, is_aligned);
    const struct eq_launch launch = {
        .source = tile.kernel,
        .options = options.text,
        .kernel = tile.kernel,
        .range = eq_range_3d((const size_t[]){ group * (size_t)tile.tiles_k, (size_t)tile.tiles_oc, (size_t)job->parts },
                             (const size_t[]){ group, 1, 1 }),
        .cost = job->cost,
        .cut = 3,
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(x->origin), EQ_REF(dz->origin), EQ_REF(job->dw), EQ_I32(x->h), EQ_I32(x->w),
                                  EQ_I32(x->row), EQ_I32(x->plane), EQ_I32(x->blocks), EQ_I32(job->kh), EQ_I32(job->kw),
                                  EQ_I32(job->stride_h), EQ_I32(job->stride_w), EQ_I32(job->pad_h), EQ_I32(job->pad_w),
                                  EQ_I32(dz->blocks), EQ_I32(dz->h), EQ_I32(dz->w), EQ_I32(dz->row), EQ_I32(dz->plane),
                                  EQ_I32(dz->n * dz->h * dz->w), EQ_I32(job->part_pixels)));
}

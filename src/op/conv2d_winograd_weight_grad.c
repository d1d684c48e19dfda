// Winograd's gradient of a filter: chunks of tiles one after another, each transformed, then summed point by point. The kernels
// are in cl/conv2d_winograd.cl.
#include "op/conv2d.h"

// Chunks: transformed tiles of x and dz of about CHUNK_BYTES stay in the last-level cache.
enum { CHUNK_BYTES = 8 << 20, SPAN = 4, MAX_TILE_BLOCKS = 2 };

struct plan {
    int tile, points, x_blocks, oc_blocks, num_tiles;
    int chunk;              // tiles
    int channels, blocks;   // register tile: channels of x, blocks of dz
    size_t v, d, du;        // elements
};

static int ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

static struct plan make_plan(const struct eq_target *target, enum eq_conv2d_algorithm algorithm,
                             const struct eq_conv2d_shape *shape)
{
    const int block = target->block, tile = algorithm == EQ_CONV2D_WINOGRAD_2 ? 2 : 4;
    struct plan plan = { .tile = tile, .points = (tile + 2) * (tile + 2), .channels = block < 8 ? block : 8 };
    plan.x_blocks = ceil_div(shape->ic, block);
    plan.oc_blocks = ceil_div(shape->oc, block);
    plan.num_tiles = shape->n * ceil_div(shape->oh, tile) * ceil_div(shape->ow, tile);
    plan.blocks = plan.oc_blocks < MAX_TILE_BLOCKS || block < 16 ? 1 : MAX_TILE_BLOCKS;
    const size_t tile_elems = (size_t)plan.points * (size_t)block * (size_t)(plan.x_blocks + plan.oc_blocks);
    const size_t most = CHUNK_BYTES / sizeof(float) / tile_elems;
    const int chunks = ceil_div(plan.num_tiles, most < 16 ? 16 : most > 65536 ? 65536 : (int)most);
    plan.chunk = ceil_div(plan.num_tiles, chunks);
    const size_t block_elems = (size_t)plan.points * (size_t)plan.chunk * (size_t)block;
    plan.v = block_elems * (size_t)plan.x_blocks;
    plan.d = block_elems * (size_t)plan.oc_blocks;
    plan.du = (size_t)plan.points * (size_t)plan.x_blocks * (size_t)plan.oc_blocks * (size_t)(block * block);
    return plan;
}

size_t eq_conv2d_winograd_grad_elems(const struct eq_target *target, enum eq_conv2d_algorithm algorithm,
                                     const struct eq_conv2d_shape *shape)
{
    const struct plan plan = make_plan(target, algorithm, shape);
    return plan.v + plan.d + plan.du;
}

static eq_status emit_tiles(struct eq_list *list, const struct plan *plan, const struct eq_options *options,
                            const struct eq_conv2d_attributes *a, const struct eq_conv2d_view *x,
                            const struct eq_conv2d_view *dz, struct eq_ref v, struct eq_ref d, int first, int count)
{
    const double values = (double)plan->points * count * x->block * (plan->x_blocks + plan->oc_blocks);
    const struct eq_launch launch = {
        .source = "conv2d_winograd",
        .options = options->text,
        .kernel = "conv2d_winograd_tiles",
        .range = eq_range_2d((size_t)ceil_div(count, SPAN), (size_t)(plan->x_blocks + plan->oc_blocks), 1, 1),
        .cost = { 8.0 * values, 4.0 * values * (1 + (double)(plan->tile * plan->tile) / plan->points) },
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(x->origin), EQ_REF(dz->origin), EQ_REF(v), EQ_REF(d), EQ_I32(x->row), EQ_I32(x->plane),
                                  EQ_I32(x->blocks), EQ_I32(-a->pad_h), EQ_I32(-a->pad_w), EQ_I32(-x->halo),
                                  EQ_I32(x->h + x->halo), EQ_I32(x->w + x->halo), EQ_I32(dz->blocks), EQ_I32(dz->h),
                                  EQ_I32(dz->w), EQ_I32(dz->row), EQ_I32(dz->plane), EQ_I32(first), EQ_I32(count),
                                  EQ_I32(plan->chunk)));
}

static eq_status emit_sums(struct eq_list *list, const struct plan *plan, const struct eq_options *options, int block,
                           struct eq_ref v, struct eq_ref d, struct eq_ref du, int count, bool is_first)
{
    const double products = (double)plan->points * count * plan->x_blocks * plan->oc_blocks * block * block;
    const struct eq_launch launch = {
        .source = "conv2d_winograd",
        .options = options->text,
        .kernel = "conv2d_winograd_sums",
        .range = eq_range_2d((size_t)plan->x_blocks, (size_t)plan->points, 1, 1),
        .cost = { 2.0 * products, 4.0 * (double)(plan->v + plan->d + (is_first ? 1 : 2) * plan->du) },
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(v), EQ_REF(d), EQ_REF(du), EQ_I32(plan->x_blocks), EQ_I32(plan->oc_blocks),
                                  EQ_I32(count), EQ_I32(plan->chunk), EQ_I32(is_first)));
}

eq_status eq_conv2d_winograd_grad_emit(struct eq_list *list, enum eq_conv2d_algorithm algorithm,
                                       const struct eq_conv2d_attributes *attributes, const struct eq_conv2d_view *x,
                                       const struct eq_conv2d_view *dz, struct eq_ref dw, struct eq_ref scratch)
{
    const struct eq_conv2d_shape shape = { dz->n, x->c, dz->c, dz->h, dz->w, false };
    const struct plan plan = make_plan(eq_list_target(list), algorithm, &shape);
    const struct eq_ref v = scratch, d = eq_ref_plus(v, plan.v), du = eq_ref_plus(d, plan.d);
    const struct eq_options options = eq_options_format("-DBLOCK=%d -DTILE=%d -DSPAN=%d -DNI=%d -DOBT=%d", x->block, plan.tile,
                                                        SPAN, plan.channels, plan.blocks);
    for (int first = 0; first < plan.num_tiles; first += plan.chunk) {
        const int left = plan.num_tiles - first, count = left < plan.chunk ? left : plan.chunk;
        EQ_TRY(emit_tiles(list, &plan, &options, attributes, x, dz, v, d, first, count));
        EQ_TRY(emit_sums(list, &plan, &options, x->block, v, d, du, count, first == 0));
    }
    const struct eq_launch launch = {
        .source = "conv2d_winograd",
        .options = options.text,
        .kernel = "conv2d_winograd_filter_grad",
        .range = eq_range_3d((const size_t[]){ (size_t)x->block, (size_t)plan.x_blocks, (size_t)plan.oc_blocks },
                             (const size_t[]){ (size_t)x->block, 1, 1 }),
        .cost = { 4.0 * (double)plan.du, 4.0 * (double)plan.du * (1 + 9.0 / plan.points) },
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(du), EQ_REF(dw), EQ_I32(plan.x_blocks), EQ_I32(plan.oc_blocks)));
}

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
    const int block = target->block, tile = eq_conv2d_winograd_tile(algorithm);
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
    if (target->family != EQ_FAMILY_VECTOR)
        return eq_conv2d_winograd_simt_grad_elems(target, algorithm, shape);
    const struct plan plan = make_plan(target, algorithm, shape);
    return plan.v + plan.d + plan.du;
}

eq_status eq_conv2d_winograd_tiles_emit(struct eq_list *list, const struct eq_conv2d_tiles *tiles,
                                        const struct eq_options *options)
{
    const struct eq_conv2d_view *x = &tiles->x, *dz = &tiles->dz;
    const int side = tiles->tile + 2, blocks = x->blocks + (tiles->has_dz ? dz->blocks : 0);
    const bool is_vector = eq_list_target(list)->family == EQ_FAMILY_VECTOR;
    const double values = (double)(side * side) * tiles->count * x->block * blocks;
    const double share = (double)(tiles->tile * tiles->tile) / (side * side); // of them that are read
    // in groups of TILES_GROUP: see cl/conv2d_winograd.cl
    const struct eq_range range = is_vector ? eq_range_2d((size_t)ceil_div(tiles->count, SPAN), (size_t)blocks, 1, 1)
                                            : eq_range_2d((size_t)tiles->count * (size_t)x->block, (size_t)blocks, 64, 1);
    const struct eq_launch launch = {
        .source = "conv2d_winograd",
        .options = options->text,
        .kernel = "conv2d_winograd_tiles",
        .range = range,
        .cost = { 8.0 * values, 4.0 * values * (1 + share) },
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(x->origin), EQ_REF(tiles->has_dz ? dz->origin : EQ_REF_NONE), EQ_REF(tiles->v),
                                  EQ_REF(tiles->has_dz ? tiles->d : EQ_REF_NONE), EQ_I32(x->row), EQ_I32(x->plane),
                                  EQ_I32(x->blocks), EQ_I32(tiles->first_y), EQ_I32(tiles->first_x), EQ_I32(-x->halo),
                                  EQ_I32(x->h + x->halo), EQ_I32(x->w + x->halo), EQ_I32(tiles->has_dz ? dz->blocks : 0),
                                  EQ_I32(dz->h), EQ_I32(dz->w), EQ_I32(dz->row), EQ_I32(dz->plane),
                                  EQ_I32(x->n * ceil_div(dz->h, tiles->tile) * ceil_div(dz->w, tiles->tile)),
                                  EQ_I32(tiles->first), EQ_I32(tiles->count), EQ_I32(tiles->chunk)));
}

eq_status eq_conv2d_winograd_filter_grad_emit(struct eq_list *list, const struct eq_options *options, int points,
                                              const struct eq_conv2d_sums *sums, struct eq_ref dw)
{
    const struct eq_target *target = eq_list_target(list);
    const double pairs = (double)sums->x_blocks * sums->oc_blocks * target->block * target->block;
    const double values = pairs * points * sums->chunks * sums->parts;
    const struct eq_launch launch = {
        .source = "conv2d_winograd",
        .options = options->text,
        .kernel = "conv2d_winograd_filter_grad",
        .range = eq_conv2d_winograd_filter_range(target, sums->x_blocks, sums->oc_blocks),
        .cost = { 4.0 * values, 4.0 * (values + 9.0 * pairs) },
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(sums->du), EQ_REF(dw), EQ_I32(sums->x_blocks), EQ_I32(sums->oc_blocks),
                                  EQ_I32(sums->chunks), EQ_I32(sums->parts)));
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
    if (eq_list_target(list)->family != EQ_FAMILY_VECTOR)
        return eq_conv2d_winograd_simt_grad_emit(list, algorithm, attributes, x, dz, dw, scratch);
    const struct eq_conv2d_shape shape = { dz->n, x->c, dz->c, dz->h, dz->w, false };
    const struct plan plan = make_plan(eq_list_target(list), algorithm, &shape);
    const struct eq_ref v = scratch, d = eq_ref_plus(v, plan.v), du = eq_ref_plus(d, plan.d);
    const struct eq_options options = eq_options_format("-DBLOCK=%d -DTILE=%d -DSPAN=%d -DNI=%d -DOBT=%d", x->block, plan.tile,
                                                        SPAN, plan.channels, plan.blocks);
    struct eq_conv2d_tiles tiles = { .x = *x, .dz = *dz, .has_dz = true, .v = v, .d = d, .tile = plan.tile,
                                     .first_y = -attributes->pad_h, .first_x = -attributes->pad_w, .chunk = plan.chunk };
    for (tiles.first = 0; tiles.first < plan.num_tiles; tiles.first += plan.chunk) {
        const int left = plan.num_tiles - tiles.first;
        tiles.count = left < plan.chunk ? left : plan.chunk;
        EQ_TRY(eq_conv2d_winograd_tiles_emit(list, &tiles, &options));
        EQ_TRY(emit_sums(list, &plan, &options, x->block, v, d, du, tiles.count, tiles.first == 0));
    }
    const struct eq_conv2d_sums sums = { du, plan.x_blocks, plan.oc_blocks, .chunks = 1, .parts = 1 };
    return eq_conv2d_winograd_filter_grad_emit(list, &options, plan.points, &sums, dw);
}

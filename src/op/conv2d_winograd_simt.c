// Winograd's convolution and its filter's gradient on GPUs, a launch a step: tiles are transformed, multiplied point by point
// by the kernels of 1 x 1 convolutions with a filter for each point, and transformed back. See cl/conv2d_winograd.cl.
#include <math.h>

#include "op/conv2d.h"

// Transformed tiles of the input and of the output take about CHUNK_BYTES, near what last-level caches hold; a weight gradient
// has sums of its own for every chunk and part, which GRAD_CHUNK_BYTES keeps few, and larger chunks where there are more than
// some hundred channels. Parts of MIN_PART_TILES or more.
enum { CHUNK_BYTES = 32 << 20, GRAD_CHUNK_BYTES = 64 << 20, MIN_PART_TILES = 128 };

struct plan {
    int tile, points, block, x_blocks, oc_blocks, num_tiles, chunk;
    size_t x_elems, oc_elems; // of a chunk's transformed tiles
};

static int ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

static struct plan make_plan(const struct eq_target *target, enum eq_conv2d_algorithm algorithm,
                             const struct eq_conv2d_shape *shape, size_t chunk_bytes)
{
    const int block = target->block, tile = eq_conv2d_winograd_tile(algorithm);
    struct plan plan = { .tile = tile, .points = (tile + 2) * (tile + 2), .block = block };
    plan.x_blocks = ceil_div(shape->ic, block);
    plan.oc_blocks = ceil_div(shape->oc, block);
    plan.num_tiles = shape->n * ceil_div(shape->oh, tile) * ceil_div(shape->ow, tile);
    const size_t tile_bytes = sizeof(float) * (size_t)plan.points * (size_t)block * (size_t)(plan.x_blocks + plan.oc_blocks);
    const size_t most = chunk_bytes / tile_bytes;
    const int chunks = ceil_div(plan.num_tiles, most < 64 ? 64 : most > 65536 ? 65536 : (int)most);
    plan.chunk = ceil_div(plan.num_tiles, chunks);
    return plan;
}

static void count_elems(struct plan *plan)
{
    const size_t elems = (size_t)plan->points * (size_t)plan->chunk * (size_t)plan->block;
    plan->x_elems = elems * (size_t)plan->x_blocks;
    plan->oc_elems = elems * (size_t)plan->oc_blocks;
}

static struct plan forward_plan(const struct eq_target *target, enum eq_conv2d_algorithm algorithm,
                                const struct eq_conv2d_shape *shape)
{
    struct plan plan = make_plan(target, algorithm, shape, CHUNK_BYTES);
    count_elems(&plan);
    return plan;
}

// Transformed tiles as one image for each of `images` points, `count` pixels in one row.
static struct eq_conv2d_view view_of(const struct plan *plan, struct eq_ref origin, int channels, int blocks, int images,
                                     int count)
{
    return (struct eq_conv2d_view){
        .origin = origin,
        .n = images,
        .c = channels,
        .h = 1,
        .w = count,
        .block = plan->block,
        .blocks = blocks,
        .row = count * plan->block,
        .step = plan->block,
        .plane = plan->chunk * plan->block,
    };
}

// m = u v for every point.
static struct eq_conv2d_job product_job(const struct plan *plan, const struct eq_conv2d_shape *shape, struct eq_ref v,
                                        struct eq_ref u, struct eq_ref m, int count)
{
    const double filters = (double)plan->points * plan->x_blocks * plan->oc_blocks * plan->block * plan->block;
    const double tiles = (double)plan->points * count * plan->block * (plan->x_blocks + plan->oc_blocks);
    return (struct eq_conv2d_job){
        .x = view_of(plan, v, shape->ic, plan->x_blocks, 1, count),
        .z = view_of(plan, m, shape->oc, plan->oc_blocks, 1, count),
        .filter = u,
        .filters = plan->points,
        .kh = 1,
        .kw = 1,
        .stride_h = 1,
        .stride_w = 1,
        .cost = { 2.0 * filters * count, 4.0 * (tiles + filters) },
    };
}

size_t eq_conv2d_winograd_simt_scratch_elems(const struct eq_target *target, enum eq_conv2d_algorithm algorithm,
                                             const struct eq_conv2d_shape *shape)
{
    const struct plan plan = forward_plan(target, algorithm, shape);
    return plan.x_elems + plan.oc_elems;
}

eq_status eq_conv2d_winograd_simt_tunable(const struct eq_target *target, enum eq_conv2d_algorithm algorithm,
                                          const struct eq_conv2d_shape *shape, struct eq_tunable *tunable)
{
    const struct plan plan = forward_plan(target, algorithm, shape);
    const struct eq_conv2d_job job = product_job(&plan, shape, EQ_REF_NONE, EQ_REF_NONE, EQ_REF_NONE, plan.chunk);
    return eq_conv2d_simt_tunable(target, &job, tunable);
}

static eq_status emit_output(struct eq_list *list, enum eq_conv2d_algorithm algorithm, const struct plan *plan,
                             const struct eq_conv2d_job *job, struct eq_ref m, int first, int count)
{
    const struct eq_conv2d_view *z = &job->z, *add = &job->add;
    const struct eq_options shared = eq_conv2d_winograd_options(eq_list_target(list), algorithm),
                            options = eq_options_format("%s -DACT=%d", shared.text, (int)job->activation);
    const double tiles = (double)count * z->blocks * z->block, pixels = (double)(plan->tile * plan->tile);
    const struct eq_launch launch = {
        .source = "conv2d_winograd",
        .options = options.text,
        .kernel = "conv2d_winograd_output",
        // in groups of TILES_GROUP: see cl/conv2d_winograd.cl
        .range = eq_range_2d((size_t)count * (size_t)z->block, (size_t)z->blocks, 64, 1),
        .cost = { 4.0 * tiles * plan->points, 4.0 * tiles * (plan->points + pixels * (job->has_add ? 2 : 1)) },
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(m), EQ_REF(job->bias), EQ_REF(job->has_add ? add->origin : EQ_REF_NONE),
                                  EQ_REF(z->origin), EQ_I32(z->blocks), EQ_I32(z->h), EQ_I32(z->w), EQ_I32(z->row),
                                  EQ_I32(z->plane), EQ_I32(add->row), EQ_I32(add->plane), EQ_I32(job->bias.buffer != NULL),
                                  EQ_I32(job->has_add), EQ_I32(first), EQ_I32(count), EQ_I32(plan->chunk)));
}

eq_status eq_conv2d_winograd_simt_emit(struct eq_list *list, enum eq_conv2d_algorithm algorithm,
                                       const struct eq_conv2d_shape *shape, const struct eq_conv2d_job *job,
                                       struct eq_ref scratch)
{
    const struct plan plan = forward_plan(eq_list_target(list), algorithm, shape);
    const struct eq_options options = eq_conv2d_winograd_options(eq_list_target(list), algorithm);
    const struct eq_ref v = scratch, m = eq_ref_plus(v, plan.x_elems);
    struct eq_conv2d_tiles tiles = { .x = job->x, .dz = job->z, .v = v, .tile = plan.tile, .first_y = job->first_y,
                                     .first_x = job->first_x, .chunk = plan.chunk };
    for (tiles.first = 0; tiles.first < plan.num_tiles; tiles.first += plan.chunk) {
        const int left = plan.num_tiles - tiles.first;
        tiles.count = left < plan.chunk ? left : plan.chunk;
        const struct eq_conv2d_job product = product_job(&plan, shape, v, job->filter, m, tiles.count);
        EQ_TRY(eq_conv2d_winograd_tiles_emit(list, &tiles, &options));
        EQ_TRY(eq_conv2d_simt_emit(list, &product));
        EQ_TRY(emit_output(list, algorithm, &plan, job, m, tiles.first, tiles.count));
    }
    return EQ_OK;
}

// ---- gradient of the filter

struct grad_plan {
    struct plan plan;
    int chunks, parts;  // parts of a chunk
    size_t sums_elems;  // of a chunk
};

// The tiles of a chunk and the sums of all chunks take least together where a chunk has the geometric mean of all tiles and of
// one chunk's sums.
static size_t grad_chunk_bytes(const struct eq_target *target, enum eq_conv2d_algorithm algorithm,
                               const struct eq_conv2d_shape *shape)
{
    const double side = eq_conv2d_winograd_tile(algorithm) + 2, point = sizeof(float) * side * side;
    const double x = ceil_div(shape->ic, target->block) * (double)target->block,
                 oc = ceil_div(shape->oc, target->block) * (double)target->block, tile = side - 2;
    const double tiles = shape->n * ceil(shape->oh / tile) * ceil(shape->ow / tile);
    return (size_t)fmax(GRAD_CHUNK_BYTES, sqrt(point * tiles * (x + oc) * (point * x * oc)));
}

static struct grad_plan make_grad_plan(const struct eq_target *target, enum eq_conv2d_algorithm algorithm,
                                       const struct eq_conv2d_shape *shape)
{
    struct grad_plan grad = { .plan = make_plan(target, algorithm, shape, grad_chunk_bytes(target, algorithm, shape)),
                              .parts = 1 };
    struct plan *plan = &grad.plan;
    const struct eq_conv2d_view v = view_of(plan, EQ_REF_NONE, shape->ic, plan->x_blocks, plan->points, plan->chunk),
                                d = view_of(plan, EQ_REF_NONE, shape->oc, plan->oc_blocks, plan->points, plan->chunk);
    const struct eq_conv2d_grad_tile tile = eq_conv2d_simt_grad_tile(target, &v, &d, 1);
    // enough work-groups to fill the device four times, as with direct gradients
    const int wanted = ceil_div(4 * target->compute_units, tile.tiles_oc * tile.tiles_k * plan->points);
    const int most = plan->chunk / MIN_PART_TILES;
    grad.parts = wanted < most ? wanted : most;
    grad.parts = grad.parts > 1 ? grad.parts : 1;
    plan->chunk = ceil_div(plan->chunk, grad.parts) * grad.parts;
    grad.chunks = ceil_div(plan->num_tiles, plan->chunk);
    count_elems(plan);
    grad.sums_elems = (size_t)(plan->points * grad.parts) * (size_t)(plan->x_blocks * plan->oc_blocks) *
                      (size_t)(plan->block * plan->block);
    return grad;
}

size_t eq_conv2d_winograd_simt_grad_elems(const struct eq_target *target, enum eq_conv2d_algorithm algorithm,
                                          const struct eq_conv2d_shape *shape)
{
    const struct grad_plan grad = make_grad_plan(target, algorithm, shape);
    return grad.plan.x_elems + grad.plan.oc_elems + (size_t)grad.chunks * grad.sums_elems;
}

eq_status eq_conv2d_winograd_simt_grad_emit(struct eq_list *list, enum eq_conv2d_algorithm algorithm,
                                            const struct eq_conv2d_attributes *attributes, const struct eq_conv2d_view *x,
                                            const struct eq_conv2d_view *dz, struct eq_ref dw, struct eq_ref scratch)
{
    const struct eq_target *target = eq_list_target(list);
    const struct eq_conv2d_shape shape = { dz->n, x->c, dz->c, dz->h, dz->w, .is_weight_grad = true };
    const struct grad_plan grad = make_grad_plan(target, algorithm, &shape);
    const struct plan *plan = &grad.plan;
    const struct eq_options options = eq_conv2d_winograd_options(target, algorithm);
    const struct eq_ref v = scratch, d = eq_ref_plus(v, plan->x_elems), du = eq_ref_plus(d, plan->oc_elems);
    const double products = (double)plan->points * plan->chunk * plan->x_blocks * plan->oc_blocks * plan->block * plan->block;
    const double elems = (double)plan->x_elems + (double)plan->oc_elems + (double)grad.sums_elems;
    struct eq_conv2d_tiles tiles = { .x = *x, .dz = *dz, .has_dz = true, .v = v, .d = d, .tile = plan->tile,
                                     .first_y = -attributes->pad_h, .first_x = -attributes->pad_w, .count = plan->chunk,
                                     .chunk = plan->chunk };
    for (int k = 0; k < grad.chunks; k++) {
        tiles.first = k * plan->chunk; // those past the last are zeros
        EQ_TRY(eq_conv2d_winograd_tiles_emit(list, &tiles, &options));
        EQ_TRY(eq_conv2d_simt_grad_emit(
            list, &(struct eq_conv2d_grad_job){
                      .x = view_of(plan, v, x->c, plan->x_blocks, plan->points, plan->chunk),
                      .dz = view_of(plan, d, dz->c, plan->oc_blocks, plan->points, plan->chunk),
                      .dw = eq_ref_plus(du, (size_t)k * grad.sums_elems),
                      .kh = 1,
                      .kw = 1,
                      .stride_h = 1,
                      .stride_w = 1,
                      .parts = plan->points * grad.parts,
                      .part_pixels = plan->chunk / grad.parts,
                      .cost = { 2.0 * products, 4.0 * elems },
                  }));
    }
    const struct eq_conv2d_sums sums = { du, plan->x_blocks, plan->oc_blocks, grad.chunks, grad.parts };
    return eq_conv2d_winograd_filter_grad_emit(list, &options, plan->points, &sums, dw);
}

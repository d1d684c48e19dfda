// Winograd's convolution: which algorithm, how tiles are cut into chunks, and the launches. See cl/conv2d_winograd.cl.
#include <assert.h>
#include <math.h>
#include <string.h>

#include "op/choice.h"
#include "op/conv2d.h"

// A chunk of up to MAX_CHUNK tiles: its transformed input stays in the second-level cache (64 channels: 260 KiB), and each
// transformed filter that comes from farther away is used that often. Measured from 14 to 128 tiles: 28 to 32 is best from 64
// to 512 channels. Products of about GROUP_BYTES at a time.
enum { MAX_CHUNK = 32, GROUP_BYTES = 300 << 10, MAX_COLUMNS = 14, MAX_BLOCKS = 4 };
// With the filter transformed late: one block of outputs at a time, for all tiles where that goes.
enum { MAX_LATE_COLUMNS = 16, MAX_LATE_BLOCKS = 1 };
// 4 GiB; with the filter that a data gradient transposes before, 9 / 16 of this at most, a workspace still has room.
enum { MAX_ELEMS = 1 << 30 };

struct plan {
    bool is_late;
    int tile, points, x_blocks, oc_blocks, num_tiles;
    int columns, blocks;      // register tile: tiles x blocks of outputs
    int chunk, group;         // tiles; blocks of outputs
    int split_blocks, splits; // blocks of outputs of a work-item; so many share a chunk
    int items;                // work-items beside each other, each with its splits
    size_t scratch_elems;     // of a work-item
};

static int ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

int eq_conv2d_winograd_tile(enum eq_conv2d_algorithm algorithm)
{
    return algorithm == EQ_CONV2D_WINOGRAD_2 ? 2 : 4;
}

// Where there are fewer chunks than cores, several share one, each with its blocks of outputs: cutting the chunks instead would
// let every core read all filters.
static void split_blocks(struct plan *plan, int units)
{
    const int chunks = ceil_div(plan->num_tiles, plan->chunk), pieces = ceil_div(plan->oc_blocks, plan->blocks);
    const int wanted = ceil_div(units, chunks);
    plan->split_blocks = ceil_div(pieces, wanted < pieces ? wanted : pieces) * plan->blocks;
    plan->splits = ceil_div(plan->oc_blocks, plan->split_blocks);
    if (ceil_div(chunks * plan->splits, units) * plan->split_blocks < ceil_div(chunks, units) * plan->oc_blocks)
        return;
    plan->split_blocks = ceil_div(plan->oc_blocks, plan->blocks) * plan->blocks; // no core would have less to do
    plan->splits = 1;
}

// Cycles of a core for all products, a vector of a transformed filter costing filter_cycles a chunk: more where it is made
// then, and there the few sums of one point need not wait for each other, as the next point's are independent (a fit to 4 and
// 16 tiles of 256 and 512 channels on a Xeon).
static double products_cycles(const struct plan *plan, int block, int units)
{
    const double filter_cycles = plan->is_late ? 3.2 : 1.5, vectors = (double)plan->points * plan->x_blocks * block;
    const double sums = plan->is_late ? 0.575 * plan->columns + 0.8 : eq_conv2d_sums_cycles(plan->columns, plan->blocks);
    const int chunks = ceil_div(plan->num_tiles, plan->chunk), rounds = ceil_div(chunks * plan->splits, units);
    const double chunk =
        sums * (plan->chunk / plan->columns) * ceil_div(plan->split_blocks, plan->blocks) + filter_cycles * plan->split_blocks;
    return rounds * vectors * chunk;
}

// What is left open: values of the tuning, in this order.
enum { COLUMNS, BLOCKS, CHUNK, NUM_VALUES };
enum { NUM_TILES = 8, MAX_TUNED_CHUNK = 4 * MAX_CHUNK };

static int max_columns(const struct plan *plan)
{
    return plan->is_late ? MAX_LATE_COLUMNS : MAX_COLUMNS;
}

static int max_blocks(const struct plan *plan)
{
    const int most = plan->is_late ? MAX_LATE_BLOCKS : MAX_BLOCKS;
    return plan->oc_blocks < most ? plan->oc_blocks : most;
}

static void rank_tiles(struct plan *plan, int block, int units, struct eq_rank *rank)
{
    const int max_sums = EQ_CONV2D_MAX_SUMS(block), most = max_blocks(plan), columns = max_columns(plan);
    for (plan->blocks = 1; plan->blocks <= most; plan->blocks++)
        for (plan->columns = 1; plan->columns <= columns && plan->columns * plan->blocks <= max_sums; plan->columns++)
            for (plan->chunk = plan->columns; plan->chunk <= MAX_CHUNK; plan->chunk += plan->columns) {
                split_blocks(plan, units);
                eq_rank_add(rank, products_cycles(plan, block, units),
                            (const int[EQ_RANK_VALUES]){ plan->columns, plan->blocks, plan->chunk });
            }
}

static bool is_choice(const int *values, const void *user)
{
    const struct plan *plan = user;
    return values[BLOCKS] >= 1 && values[BLOCKS] <= max_blocks(plan) && values[COLUMNS] >= 1 &&
           values[COLUMNS] <= max_columns(plan) && values[COLUMNS] * values[BLOCKS] <= 32 && values[CHUNK] >= values[COLUMNS] &&
           values[CHUNK] <= MAX_TUNED_CHUNK && values[CHUNK] % values[COLUMNS] == 0;
}

static void make_key(const struct eq_target *target, const struct plan *plan, const struct eq_conv2d_shape *shape,
                     char key[EQ_TUNE_MAX_KEY])
{
    snprintf(key, EQ_TUNE_MAX_KEY, "conv2d_winograd%s tile=%d block=%d ic=%d oc=%d h=%d w=%d", plan->is_late ? "_late" : "",
             plan->tile, target->block, shape->ic, shape->oc, shape->oh, shape->ow);
}

static void choose_tiles(struct plan *plan, const struct eq_target *target, const struct eq_conv2d_shape *shape, int units)
{
    struct eq_rank rank = { .max = 1 };
    char key[EQ_TUNE_MAX_KEY];
    int values[NUM_VALUES];
    make_key(target, plan, shape, key);
    if (!eq_tuning_choose(target->tuning, key, values, NUM_VALUES, is_choice, plan)) {
        rank_tiles(plan, target->block, units, &rank);
        memcpy(values, rank.values[0], sizeof values);
    }
    plan->columns = values[COLUMNS];
    plan->blocks = values[BLOCKS];
    plan->chunk = values[CHUNK];
}

static struct plan make_plan(const struct eq_target *target, enum eq_conv2d_algorithm algorithm,
                             const struct eq_conv2d_shape *shape)
{
    const int block = target->block, tile = eq_conv2d_winograd_tile(algorithm);
    const int units = target->compute_units > 0 ? target->compute_units : 1;
    struct plan plan = { .is_late = algorithm == EQ_CONV2D_WINOGRAD_4_LATE, .tile = tile, .points = (tile + 2) * (tile + 2) };
    plan.x_blocks = ceil_div(shape->ic, block);
    plan.oc_blocks = ceil_div(shape->oc, block);
    plan.num_tiles = shape->n * ceil_div(shape->oh, tile) * ceil_div(shape->ow, tile);
    choose_tiles(&plan, target, shape, units);
    split_blocks(&plan, units);
    const int chunks = ceil_div(plan.num_tiles, plan.chunk), most = GROUP_BYTES / (4 * plan.points * block * plan.chunk);
    plan.items = chunks < 2 * units ? chunks : 2 * units;
    plan.group = plan.is_late ? 1 : most / plan.blocks * plan.blocks;
    plan.group = plan.group < plan.blocks ? plan.blocks : plan.group > plan.split_blocks ? plan.split_blocks : plan.group;
    plan.group = plan.group < plan.oc_blocks ? plan.group : plan.oc_blocks;
    plan.scratch_elems = (size_t)plan.points * (size_t)plan.chunk * (size_t)block * (size_t)(plan.x_blocks + plan.group);
    if (plan.is_late)
        plan.scratch_elems += (size_t)plan.points * ((size_t)block + 1) * (size_t)block;
    return plan;
}

// Cycles until a vector has come from memory or gone there, all cores together: 56 GB/s at 4 GHz.
static const double memory_cycles = 4.7;

// Cycles of the whole convolution on all cores.
static double winograd_cycles(const struct eq_target *target, enum eq_conv2d_algorithm algorithm,
                              const struct eq_conv2d_shape *shape)
{
    // measured: vector operations of both transforms of a tile and a block
    const double transform = algorithm == EQ_CONV2D_WINOGRAD_2 ? 70 : 180;
    const struct plan plan = make_plan(target, algorithm, shape);
    const int units = target->compute_units > 0 ? target->compute_units : 1;
    const double tiles = (double)ceil_div(ceil_div(plan.num_tiles, plan.chunk) * plan.splits, units) * plan.chunk;
    const double filters = (plan.is_late ? 9.0 : plan.points) * plan.x_blocks * plan.oc_blocks * target->block;
    const double reads = shape->is_prepared ? 1 : 3; // made: the lines are read, written, and read again
    return products_cycles(&plan, target->block, units) + tiles * transform * (plan.x_blocks + plan.split_blocks) +
           reads * filters * memory_cycles;
}

static double direct_cycles(const struct eq_target *target, const struct eq_conv2d_shape *shape)
{
    const double filters = 9.0 * ceil_div(shape->ic, target->block) * ceil_div(shape->oc, target->block) * target->block;
    const double units = target->compute_units > 0 ? target->compute_units : 1, share_of_peak = 0.9;
    return (double)shape->n * shape->oh * shape->ow * filters / 2 / share_of_peak / units + filters * memory_cycles;
}

bool eq_conv2d_winograd_fits(const struct eq_target *target, const struct eq_conv2d_attributes *attributes, int kh, int kw,
                             int x_block)
{
    return attributes->groups <= 1 && kh == 3 && kw == 3 && attributes->stride_h == 1 && attributes->stride_w == 1 &&
           attributes->pad_h <= 2 && attributes->pad_w <= 2 && x_block == target->block && target->precision == EQ_FP32 &&
           (attributes->algorithm != EQ_CONV2D_WINOGRAD_4_LATE || target->family == EQ_FAMILY_VECTOR);
}

// On GPUs, in the time of a floating point operation: transforms go through memory, which an H100 has a byte of in the time of
// 15 operations, and there it agrees with what was measured (a launch is reckoned). A GPU with less bandwidth for its
// operations gains less, which the tuner finds.
static double simt_cost(const struct eq_target *target, enum eq_conv2d_algorithm algorithm, const struct eq_conv2d_shape *shape)
{
    const double byte = 15, launch = 1e8;
    const int block = target->block, tile = eq_conv2d_winograd_tile(algorithm);
    const double ic = (double)ceil_div(shape->ic, block) * block, oc = (double)ceil_div(shape->oc, block) * block;
    const double pixels = (double)shape->n * shape->oh * shape->ow;
    if (algorithm == EQ_CONV2D_DIRECT)
        return 2.0 * 9 * pixels * ic * oc + launch;
    const double points = (tile + 2) * (tile + 2),
                 tiles = (double)shape->n * ceil_div(shape->oh, tile) * ceil_div(shape->ow, tile);
    const double filters = (shape->is_prepared ? 1 : 3) * points * ic * oc; // made: written, and read twice
    return 2.0 * points * tiles * ic * oc + byte * 4 * ((2 * points * tiles + pixels) * (ic + oc) + filters) + 3 * launch;
}

// The last algorithm that may be taken.
static enum eq_conv2d_algorithm last_algorithm(const struct eq_target *target, const struct eq_conv2d_shape *shape)
{
    const bool has_late = target->family == EQ_FAMILY_VECTOR && shape->is_prepared && !shape->is_weight_grad;
    return has_late ? EQ_CONV2D_WINOGRAD_4_LATE : EQ_CONV2D_WINOGRAD_4;
}

static double cost_of(const struct eq_target *target, enum eq_conv2d_algorithm algorithm, const struct eq_conv2d_shape *shape)
{
    if (target->family != EQ_FAMILY_VECTOR)
        return simt_cost(target, algorithm, shape);
    return algorithm == EQ_CONV2D_DIRECT ? direct_cycles(target, shape) : winograd_cycles(target, algorithm, shape);
}

// Whether filters and tiles are no more than a workspace can have. Direct sums need none.
static bool has_room(const struct eq_target *target, enum eq_conv2d_algorithm algorithm, const struct eq_conv2d_shape *shape)
{
    if (algorithm == EQ_CONV2D_DIRECT)
        return true;
    const size_t elems = shape->is_weight_grad ? eq_conv2d_winograd_grad_elems(target, algorithm, shape)
                                               : eq_conv2d_winograd_filter_elems(target, algorithm, shape) +
                                                     eq_conv2d_winograd_scratch_elems(target, algorithm, shape);
    return elems <= MAX_ELEMS;
}

static enum eq_conv2d_algorithm fastest(const struct eq_target *target, const struct eq_conv2d_shape *shape)
{
    enum eq_conv2d_algorithm best = EQ_CONV2D_DIRECT;
    double least = cost_of(target, best, shape);
    for (enum eq_conv2d_algorithm a = EQ_CONV2D_WINOGRAD_2; a <= last_algorithm(target, shape); a++) {
        const double cost = cost_of(target, a, shape);
        if (cost >= least || !has_room(target, a, shape))
            continue;
        best = a;
        least = cost;
    }
    return best;
}

// With few images a filter's transform weighs more: the batch counts, up to 16 in powers of 2.
static void algorithm_key(const struct eq_target *target, const struct eq_conv2d_shape *shape, char key[EQ_TUNE_MAX_KEY])
{
    int images = 1;
    while (images < 16 && 2 * images <= shape->n)
        images *= 2;
    snprintf(key, EQ_TUNE_MAX_KEY, "conv2d%s_algorithm block=%d n=%d ic=%d oc=%d h=%d w=%d%s",
             shape->is_weight_grad ? "_weight_grad" : "", target->block, images, shape->ic, shape->oc, shape->oh, shape->ow,
             shape->is_prepared ? " prepared" : "");
}

static bool is_algorithm(const int *values, const void *user)
{
    const enum eq_conv2d_algorithm *last = user;
    return *values >= EQ_CONV2D_DIRECT && *values <= (int)*last;
}

static bool is_open(const struct eq_target *target, const struct eq_conv2d_attributes *attributes, int kh, int kw, int x_block)
{
    return attributes->algorithm == EQ_CONV2D_AUTO && target->use_winograd &&
           eq_conv2d_winograd_fits(target, attributes, kh, kw, x_block);
}

enum eq_conv2d_algorithm eq_conv2d_choose(const struct eq_target *target, const struct eq_conv2d_attributes *attributes, int kh,
                                          int kw, int x_block, const struct eq_conv2d_shape *shape)
{
    char key[EQ_TUNE_MAX_KEY];
    int value;
    if (!is_open(target, attributes, kh, kw, x_block))
        return attributes->algorithm == EQ_CONV2D_AUTO ? EQ_CONV2D_DIRECT : attributes->algorithm;
    const enum eq_conv2d_algorithm last = last_algorithm(target, shape);
    algorithm_key(target, shape, key);
    // the tuning's batch may have been smaller
    if (eq_tuning_choose(target->tuning, key, &value, 1, is_algorithm, &last) &&
        has_room(target, (enum eq_conv2d_algorithm)value, shape))
        return (enum eq_conv2d_algorithm)value;
    return fastest(target, shape);
}

eq_status eq_conv2d_algorithm_tunable(const struct eq_target *target, const struct eq_conv2d_attributes *attributes, int kh,
                                      int kw, int x_block, const struct eq_conv2d_shape *shape, struct eq_tunable *tunable)
{
    *tunable = (struct eq_tunable){ .names = { "algorithm" }, .num_values = 1 };
    algorithm_key(target, shape, tunable->key);
    if (!is_open(target, attributes, kh, kw, x_block))
        return EQ_OK;
    EQ_TRY(eq_tunable_add(tunable, (const int[]){ (int)fastest(target, shape) }));
    for (int value = EQ_CONV2D_DIRECT; value <= (int)last_algorithm(target, shape); value++)
        if (has_room(target, (enum eq_conv2d_algorithm)value, shape))
            EQ_TRY(eq_tunable_add(tunable, &value));
    return EQ_OK;
}

eq_status eq_conv2d_winograd_tunable(const struct eq_target *target, enum eq_conv2d_algorithm algorithm,
                                     const struct eq_conv2d_shape *shape, struct eq_tunable *tunable)
{
    if (target->family != EQ_FAMILY_VECTOR)
        return eq_conv2d_winograd_simt_tunable(target, algorithm, shape, tunable);
    const int units = target->compute_units > 0 ? target->compute_units : 1;
    struct plan plan = make_plan(target, algorithm, shape);
    struct eq_rank rank = { .max = NUM_TILES };
    *tunable = (struct eq_tunable){ .names = { "columns", "blocks", "chunk" }, .num_values = NUM_VALUES };
    make_key(target, &plan, shape, tunable->key);
    rank_tiles(&plan, target->block, units, &rank);
    for (int i = 0; i < rank.num; i++)
        EQ_TRY(eq_tunable_add(tunable, rank.values[i]));
    return EQ_OK;
}

size_t eq_conv2d_winograd_filter_elems(const struct eq_target *target, enum eq_conv2d_algorithm algorithm,
                                       const struct eq_conv2d_shape *shape)
{
    const size_t side = (size_t)eq_conv2d_winograd_tile(algorithm) + 2, block = (size_t)target->block;
    if (algorithm == EQ_CONV2D_WINOGRAD_4_LATE)
        return 0;
    const int pairs = ceil_div(shape->ic, target->block) * ceil_div(shape->oc, target->block);
    return side * side * (size_t)pairs * block * block;
}

size_t eq_conv2d_winograd_scratch_elems(const struct eq_target *target, enum eq_conv2d_algorithm algorithm,
                                        const struct eq_conv2d_shape *shape)
{
    if (target->family != EQ_FAMILY_VECTOR)
        return eq_conv2d_winograd_simt_scratch_elems(target, algorithm, shape);
    const struct plan plan = make_plan(target, algorithm, shape);
    return plan.scratch_elems * (size_t)plan.items * (size_t)plan.splits;
}

struct eq_options eq_conv2d_winograd_options(const struct eq_target *target, enum eq_conv2d_algorithm algorithm)
{
    const bool is_vector = target->family == EQ_FAMILY_VECTOR;
    return eq_options_format("-DBLOCK=%d -DTILE=%d%s", target->block, eq_conv2d_winograd_tile(algorithm),
                             is_vector ? "" : " -DLANES=1 -DSPAN=1");
}

struct eq_range eq_conv2d_winograd_filter_range(const struct eq_target *target, int x_blocks, int oc_blocks)
{
    // (input channels x ITEMS, ...) in groups of FILTER_GROUP: see cl/conv2d_winograd.cl
    const bool is_vector = target->family == EQ_FAMILY_VECTOR;
    const size_t block = (size_t)target->block, items = is_vector ? block : block * block;
    const size_t group = is_vector ? block : 4 * block;
    return eq_range_3d((const size_t[]){ items, (size_t)x_blocks, (size_t)oc_blocks }, (const size_t[]){ group, 1, 1 });
}

eq_status eq_conv2d_winograd_filter_emit(struct eq_list *list, enum eq_conv2d_algorithm algorithm,
                                         const struct eq_conv2d_shape *shape, struct eq_ref w, struct eq_ref scale,
                                         struct eq_ref u)
{
    const struct eq_target *target = eq_list_target(list);
    const int x_blocks = ceil_div(shape->ic, target->block), oc_blocks = ceil_div(shape->oc, target->block);
    const struct eq_options options = eq_conv2d_winograd_options(target, algorithm);
    const double values = (double)eq_conv2d_winograd_filter_elems(target, algorithm, shape);
    const double taps = 9.0 * x_blocks * oc_blocks * target->block * target->block;
    const struct eq_launch launch = {
        .source = "conv2d_winograd",
        .options = options.text,
        .kernel = "conv2d_winograd_filter",
        .range = eq_conv2d_winograd_filter_range(target, x_blocks, oc_blocks),
        .is_preparation = shape->is_prepared,
        .cost = { 6.0 * values, 4.0 * (values + taps) },
    };
    return eq_list_kernel(
        list, &launch,
        EQ_ARGS(EQ_REF(w), EQ_REF(scale), EQ_REF(u), EQ_I32(x_blocks), EQ_I32(oc_blocks), EQ_I32(scale.buffer != NULL)));
}

eq_status eq_conv2d_winograd_emit(struct eq_list *list, enum eq_conv2d_algorithm algorithm, const struct eq_conv2d_shape *shape,
                                  const struct eq_conv2d_job *job, struct eq_ref scratch)
{
    const struct eq_conv2d_view *x = &job->x, *z = &job->z, *add = &job->add;
    if (eq_list_target(list)->family != EQ_FAMILY_VECTOR)
        return eq_conv2d_winograd_simt_emit(list, algorithm, shape, job, scratch);
    const struct plan plan = make_plan(eq_list_target(list), algorithm, shape);
    assert(z->step == z->block && job->stride_h == 1 && job->stride_w == 1);
    const int tiles = plan.chunk < plan.num_tiles ? plan.chunk : plan.num_tiles, turns = ceil_div(tiles, plan.columns);
    const int ahead =
        plan.is_late ? ceil_div(9 * z->block, plan.points * turns) : eq_conv2d_ahead(z->block, plan.blocks, turns);
    const struct eq_options options = eq_options_format(
        "-DBLOCK=%d -DTILE=%d -DTW=%d -DOBT=%d -DAHEAD=%d -DLATE=%d -DACT=%d -DEQ_STREAM=%d", z->block, plan.tile, plan.columns,
        plan.blocks, ahead, plan.is_late, (int)job->activation, eq_conv2d_streams(eq_list_target(list), job));
    const struct eq_launch launch = {
        .source = "conv2d_winograd",
        .options = options.text,
        .kernel = "conv2d_winograd_vector",
        .range = eq_range_2d((size_t)plan.items, (size_t)plan.splits, 1, 1),
        .cost = job->cost,
    };
    return eq_list_kernel(
        list, &launch,
        EQ_ARGS(EQ_REF(x->origin), EQ_REF(job->filter), EQ_REF(job->bias), EQ_REF(job->has_add ? add->origin : EQ_REF_NONE),
                EQ_REF(scratch), EQ_REF(z->origin), EQ_I32(x->row), EQ_I32(x->plane), EQ_I32(x->blocks), EQ_I32(job->first_y),
                EQ_I32(job->first_x), EQ_I32(-x->halo), EQ_I32(x->h + x->halo), EQ_I32(x->w + x->halo), EQ_I32(z->blocks),
                EQ_I32(z->h), EQ_I32(z->w), EQ_I32(z->row), EQ_I32(z->plane), EQ_I32(add->row), EQ_I32(add->plane),
                EQ_I32(job->bias.buffer != NULL), EQ_I32(job->has_add), EQ_I32(plan.num_tiles), EQ_I32(plan.chunk),
                EQ_I32(plan.group), EQ_I32(plan.split_blocks), EQ_I32(plan.scratch_elems)));
}

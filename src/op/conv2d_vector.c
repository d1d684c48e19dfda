// Convolutions on CPUs: the register tile and the launch. The tile is chosen by shape from a model of the inner loop, so that
// no width or number of channels falls off a cliff, and few different programs are compiled: extents are arguments, not
// options.
#include <assert.h>
#include <math.h>

#include "op/choice.h"
#include "op/conv2d.h"

enum { MAX_TILE_PIXELS = 16, MAX_TILE_BLOCKS = 8, MAX_TILE_SUMS = 32, MAX_AHEAD_TURNS = 64, MAX_PLACES = 10 };
enum { MIN_STEPS = 2048, MAX_TILES = 16, MIN_WORK_ITEMS = 64 };
// Passes: a group's filters of at least so many bytes; at most so many pixels of all images and of one, whose sums stay in the
// first-level cache beside so many bytes of filters; work-items for each core. Measured with one image of 7 x 7 (Xeon, two
// cores): in ResNet-50 3x3 filters of 512 channels with stride 2 take 0.77 of the time, 1x1 of 2048 and 1024 0.82 and 0.86;
// smaller groups gain nothing, and neither do 4 images.
enum { PASS_GROUP_BYTES = 256 << 10, MAX_PASS_PIXELS = 128, MAX_PASS_PLANE = 64, PASS_BYTES = 16 << 10, MIN_PASS_ITEMS = 4 };
enum { SMALL_FILTER_BYTES = 512 << 10, LARGE_FILTER_BYTES = 3 << 20 };

// As ORDER_* in cl/conv2d_vector.cl.
enum order { ORDER_TILES, ORDER_IMAGES, ORDER_BLOCKS };

struct tile {
    int pixels, blocks;
};

// What is left open: values of the tuning, in this order.
struct choice {
    struct tile tile;
    enum order order;
};
enum { NUM_VALUES = 3, NUM_TILES = 6 };

static int ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

double eq_conv2d_sums_cycles(int pixels, int blocks)
{
    const int sums = pixels * blocks, many = blocks > 4 ? blocks - 4 : 0; // streams of filters
    return (sums > 8 ? sums / 2.0 : 4.0) + 0.15 * (pixels + blocks) / 2 + 0.1 * blocks + 0.5 * many + 0.3;
}

// Cycles of one input channel for what a tile reads of x, which comes from the second-level cache to each group of blocks but
// the first: two for a line. Measured (Zen 4, 1x1): 4 x 4 is 12 to 14 % faster than 8 x 2, which has as many sums and reads
// twice as often, for 256 -> 64 and 512 -> 128 channels, and as fast for 64 -> 256.
static double fetch_cycles(const struct eq_conv2d_job *job, int pixels, int groups)
{
    if (job->x.block == 1 || job->kh == 0)
        return 0;
    const double lines = (double)job->kh * ((pixels - 1.0) * job->stride_w + job->kw);
    return 2 * lines / (job->x.block * job->kh * job->kw) * (groups - 1) / groups;
}

// Cycles of one input channel for the places of pixels, where a tile goes over a row's end: they are looked for once a tile,
// and not all of them find a register. A fit (Xeon): a 3x3 network of 16 channels and more is 6 % faster with tiles in rows,
// and of 1x1 convolutions with 64 channels 6 x 4 over rows' ends is 5 % faster than 4 x 4 in rows.
static double place_cycles(const struct eq_conv2d_job *job, int pixels)
{
    const double steps = (double)job->x.blocks * job->x.block * job->kh * job->kw;
    const int many = pixels > MAX_PLACES ? pixels - MAX_PLACES : 0;
    return job->z.w % pixels == 0 ? 0 : 3 * pixels / (steps > 0 ? steps : 1) + 0.5 * many;
}

// The tiles with the least time for all of z. Mostly 6 x 4: a Xeon with AVX-512, whose clock falls with the power that loads
// take, makes 0.84 of its peak with 7 x 2 and 0.95 with 6 x 4 when all is in the first cache (0.64 and 0.42 loads to a
// multiply-add). Where those are too many, max_sums is less.
static void rank_tiles(const struct eq_conv2d_job *job, int max_sums, struct eq_rank *rank)
{
    const struct eq_conv2d_view *z = &job->z;
    const int num_pixels = z->h * z->w;
    for (int blocks = 1; blocks <= z->blocks && blocks <= MAX_TILE_BLOCKS; blocks++)
        for (int pixels = 1; pixels <= num_pixels && pixels <= MAX_TILE_PIXELS && pixels * blocks <= max_sums; pixels++) {
            const int groups = ceil_div(z->blocks, blocks), tiles = groups * ceil_div(num_pixels, pixels);
            const double sums = eq_conv2d_sums_cycles(pixels, blocks) + place_cycles(job, pixels);
            const double time = (sums + fetch_cycles(job, pixels, groups)) * tiles;
            eq_rank_add(rank, time, (const int[EQ_RANK_VALUES]){ pixels, blocks });
        }
}

static bool is_number_of_sums(const int *values, const void *user)
{
    (void)user;
    return *values >= 1 && *values <= MAX_TILE_SUMS;
}

// The most sums of a tile that the model takes: the tuning may say it for all shapes.
static int choose_max_sums(const struct eq_target *target, int block)
{
    char key[EQ_TUNE_MAX_KEY];
    int sums;
    snprintf(key, sizeof key, "conv2d_vector_sums block=%d", block);
    return eq_tuning_choose(target->tuning, key, &sums, 1, is_number_of_sums, NULL) ? sums : EQ_CONV2D_MAX_SUMS(block);
}

// Small filters stay in the second-level cache while pixels pass once; large ones pass once while all images do; else an image
// stays.
static enum order choose_order(const struct eq_conv2d_job *job)
{
    const struct eq_conv2d_view *x = &job->x, *z = &job->z;
    const double filter_bytes = 4.0 * z->blocks * z->block * x->blocks * x->block * job->kh * job->kw;
    if (filter_bytes <= SMALL_FILTER_BYTES)
        return ORDER_BLOCKS;
    return filter_bytes > LARGE_FILTER_BYTES && filter_bytes > 4.0 * x->blocks * x->plane ? ORDER_IMAGES : ORDER_TILES;
}

static void make_key(const struct eq_conv2d_job *job, char key[EQ_TUNE_MAX_KEY])
{
    const struct eq_conv2d_view *x = &job->x, *z = &job->z;
    snprintf(key, EQ_TUNE_MAX_KEY, "conv2d_vector block=%dx%d ic=%d oc=%d h=%d w=%d k=%dx%d s=%dx%d step=%d", x->block,
             z->block, x->c, z->c, z->h, z->w, job->kh, job->kw, job->stride_h, job->stride_w, z->step / z->block);
}

static bool is_choice(const int *values, const void *user)
{
    const struct eq_conv2d_view *z = &((const struct eq_conv2d_job *)user)->z;
    return values[0] >= 1 && values[0] <= MAX_TILE_PIXELS && values[0] <= z->h * z->w && values[1] >= 1 &&
           values[1] <= MAX_TILE_BLOCKS && values[1] <= z->blocks && values[0] * values[1] <= MAX_TILE_SUMS &&
           values[2] >= ORDER_TILES && values[2] <= ORDER_BLOCKS;
}

static struct choice choose(const struct eq_target *target, const struct eq_conv2d_job *job)
{
    struct eq_rank rank = { .max = 1 };
    char key[EQ_TUNE_MAX_KEY];
    int v[NUM_VALUES];
    make_key(job, key);
    if (eq_tuning_choose(target->tuning, key, v, NUM_VALUES, is_choice, job))
        return (struct choice){ { v[0], v[1] }, (enum order)v[2] };
    rank_tiles(job, choose_max_sums(target, job->z.block), &rank);
    return (struct choice){ { rank.values[0][0], rank.values[0][1] }, choose_order(job) };
}

int eq_conv2d_ahead(int rows, int blocks, int turns)
{
    int ahead = 1;
    while (ahead * turns < rows * blocks && ahead < rows)
        ahead *= 2;
    return ahead;
}

static size_t count_tiles(const struct eq_conv2d_job *job, struct tile tile)
{
    return (size_t)ceil_div(job->z.h * job->z.w, tile.pixels);
}

// As many as make MIN_STEPS multiply-adds for each sum, while MIN_WORK_ITEMS remain for each core. In CE-ResNet-50 1x1
// convolutions of 64 to 512 channels are 4 to 7 % faster so, the network 2 % (16 images, two cores). With moments it is
// settled already.
static size_t choose_tiles_each(const struct eq_target *target, const struct eq_conv2d_job *job, struct tile tile)
{
    const size_t taps = (size_t)job->kh * (size_t)job->kw; // 0: pixels of a gradient that no output saw
    const size_t steps = (size_t)job->x.blocks * (size_t)job->x.block * taps;
    const size_t work_items = count_tiles(job, tile) * (size_t)ceil_div(job->z.blocks, tile.blocks) * (size_t)job->x.n;
    size_t tiles = steps * MAX_TILES > MIN_STEPS ? MIN_STEPS / steps : MAX_TILES;
    if (job->moment_tiles > 0)
        return (size_t)job->moment_tiles;
    while (tiles > 1 && work_items / tiles < MIN_WORK_ITEMS * (size_t)target->compute_units)
        tiles /= 2;
    return tiles > 1 ? tiles : 1;
}

int eq_conv2d_vector_tiles_each(const struct eq_target *target, const struct eq_conv2d_job *job)
{
    return (int)choose_tiles_each(target, job, choose(target, job).tile);
}

int eq_conv2d_vector_parts(const struct eq_target *target, const struct eq_conv2d_job *job)
{
    const struct tile tile = choose(target, job).tile;
    const size_t tiles = count_tiles(job, tile), each = choose_tiles_each(target, job, tile);
    return (int)((tiles + each - 1) / each);
}

eq_status eq_conv2d_vector_tunable(const struct eq_target *target, const struct eq_conv2d_job *job, struct eq_tunable *tunable)
{
    struct eq_rank usual = { .max = 1 }, rank = { .max = NUM_TILES };
    const enum order order = choose_order(job);
    *tunable = (struct eq_tunable){ .names = { "pixels", "blocks", "order" }, .num_values = NUM_VALUES };
    make_key(job, tunable->key);
    rank_tiles(job, choose_max_sums(target, job->z.block), &usual);
    rank_tiles(job, EQ_CONV2D_MAX_SUMS(job->z.block), &rank);
    EQ_TRY(eq_tunable_add(tunable, (const int[NUM_VALUES]){ usual.values[0][0], usual.values[0][1], (int)order }));
    for (int i = 0; i < rank.num; i++)
        for (int o = 0; o < 3; o++)
            EQ_TRY(
                eq_tunable_add(tunable, (const int[NUM_VALUES]){ rank.values[i][0], rank.values[i][1], ((int)order + o) % 3 }));
    return EQ_OK;
}

// Blocks of x of a pass; 0: no passes.
static int choose_pass_blocks(const struct eq_target *target, const struct eq_conv2d_job *job, struct tile tile)
{
    const struct eq_conv2d_view *x = &job->x, *z = &job->z;
    const double block_bytes = 4.0 * z->block * x->block * job->kh * job->kw * tile.blocks, plane = (double)z->h * z->w;
    const double items = (double)ceil_div(z->blocks, tile.blocks) * x->n;
    if (job->has_add || job->moment_tiles > 0 || block_bytes * x->blocks < PASS_GROUP_BYTES || plane > MAX_PASS_PLANE ||
        plane * x->n > MAX_PASS_PIXELS || items < (double)MIN_PASS_ITEMS * target->compute_units)
        return 0;
    return block_bytes < PASS_BYTES ? (int)(PASS_BYTES / block_bytes) : 1;
}

static struct eq_range make_range(enum order order, size_t tiles, size_t groups, size_t images)
{
    const size_t local[3] = { 1, 1, 1 };
    if (order == ORDER_BLOCKS)
        return eq_range_3d((const size_t[]){ groups, tiles, images }, local);
    if (order == ORDER_IMAGES)
        return eq_range_3d((const size_t[]){ tiles, images, groups }, local);
    return eq_range_3d((const size_t[]){ tiles, groups, images }, local);
}

eq_status eq_conv2d_vector_emit(struct eq_list *list, const struct eq_conv2d_job *job)
{
    const struct eq_conv2d_view *x = &job->x, *z = &job->z, *add = &job->add;
    assert(x->halo >= -job->first_y && x->halo >= -job->first_x);
    const struct choice choice = choose(eq_list_target(list), job);
    const struct tile tile = choice.tile;
    const size_t tiles = count_tiles(job, tile), groups = (size_t)ceil_div(z->blocks, tile.blocks);
    const int pass_blocks = choose_pass_blocks(eq_list_target(list), job, tile);
    const size_t tiles_each = pass_blocks > 0 ? tiles : choose_tiles_each(eq_list_target(list), job, tile);
    const enum order order = choice.order;
    // Measured with CE-ResNet-50 on two cores: 2 % faster with one image; 1 % slower with 16 where many tiles share a filter.
    const size_t turns = tiles * (order == ORDER_IMAGES ? (size_t)x->n : 1);
    const bool fetches = order != ORDER_BLOCKS && x->block > 1 && turns > 1 && turns <= MAX_AHEAD_TURNS;
    const int ahead = fetches ? eq_conv2d_ahead(x->block, tile.blocks, (int)turns) : 0;
    const struct eq_options width =
        x->block == 1 ? eq_options_format("%d", job->kw) : eq_options_format("kw"); // plain: unrolled
    const int act = job->activation == EQ_ACT_ELU ? EQ_ACT_ELU : EQ_ACT_NONE;       // ReLU is an argument
    const struct eq_options options = eq_options_format(
        "-DBLOCK=%d -DBI=%d -DSTRIDE=%d -DTP=%d -DOBT=%d -DKW=%s -DAHEAD=%d -DACT=%d -DMOMENTS=%d -DIN_ROW=%d -DPASSES=%d "
        "-DEQ_STREAM=%d",
        z->block, x->block, job->stride_w, tile.pixels, tile.blocks, width.text, ahead, act, job->moment_tiles > 0,
        z->w % tile.pixels == 0, pass_blocks > 0, eq_conv2d_streams(eq_list_target(list), job));
    const ptrdiff_t first = (ptrdiff_t)job->first_y * x->row + (ptrdiff_t)job->first_x * x->step;
    const struct eq_launch launch = {
        .source = "conv2d_vector",
        .options = options.text,
        .kernel = "conv2d_vector",
        .range = make_range(order, (tiles + tiles_each - 1) / tiles_each, groups, (size_t)x->n),
        .cost = job->cost,
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(eq_ref_plus(x->origin, (size_t)first)), EQ_REF(job->filter), EQ_REF(job->bias),
                                  EQ_REF(job->has_add ? add->origin : EQ_REF_NONE), EQ_REF(z->origin), EQ_I32(x->row),
                                  EQ_I32(x->plane), EQ_I32(x->blocks), EQ_I32(job->kh), EQ_I32(job->kw), EQ_I32(job->stride_h),
                                  EQ_I32(z->blocks), EQ_I32(z->h), EQ_I32(z->w), EQ_I32(z->row), EQ_I32(z->step),
                                  EQ_I32(z->plane), EQ_I32(add->row), EQ_I32(add->step), EQ_I32(add->plane),
                                  EQ_I32(job->bias.buffer != NULL), EQ_I32(job->has_add), EQ_I32(job->filter_image),
                                  EQ_I32(job->bias_image), EQ_I32(order), EQ_I32(tiles_each), EQ_I32(pass_blocks),
                                  EQ_F32(job->activation == EQ_ACT_RELU ? 0.0f : -INFINITY),
                                  EQ_REF(job->moment_tiles > 0 ? job->moments : EQ_REF_NONE)));
}

// Convolutions on GPUs: the work-group's tile and the launch.
#include <assert.h>
#include <math.h>
#include <string.h>

#include "op/choice.h"
#include "op/conv2d.h"

// What cl/conv2d_simt.cl is built for: 4 quads lanes_oc output channels x lanes_px pixels, in `slices` of k.
struct tile {
    int lanes_oc, lanes_px, pixels, quads, slices;
};

// Values of the tuning, in this order.
enum { LANES_OC, LANES_PX, PIXELS, QUADS, SLICES, NUM_VALUES };

static size_t ceil_div(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

static size_t num_lanes(const struct tile *tile)
{
    return (size_t)(tile->lanes_oc * tile->lanes_px);
}

static size_t group_size(const struct tile *tile)
{
    return num_lanes(tile) * (size_t)tile->slices;
}

static size_t channels_of(const struct tile *tile)
{
    return (size_t)(4 * tile->quads * tile->lanes_oc);
}

static size_t pixels_of(const struct tile *tile)
{
    return (size_t)(tile->lanes_px * tile->pixels);
}

static size_t num_sums(const struct tile *tile)
{
    return (size_t)(4 * tile->quads * tile->pixels);
}

// Values of k in local memory at a time: with more sums there are fewer registers for the next ones.
static size_t depth(const struct tile *tile)
{
    return tile->quads == 2 ? 8 : 16;
}

// MEMORY in cl/conv2d_simt.cl.
static size_t local_bytes(const struct tile *tile)
{
    const size_t values = depth(tile) * (channels_of(tile) + pixels_of(tile)) + 32,
                 sums = (size_t)(tile->slices / 2) * num_lanes(tile) * num_sums(tile);
    return sizeof(float) * ((size_t)tile->slices * values > sums ? (size_t)tile->slices * values : sums);
}

// NVIDIA's compute units hold 65536: 512 work-items where one has no more than 128. 0: what it likes; with slices it would not
// do with so few.
static int registers(const struct tile *tile)
{
    return num_sums(tile) == 64 && tile->slices == 1 ? 128 : 0;
}

// Whether every work-item has whole float4s to read.
static bool is_even(const struct tile *tile)
{
    const size_t lanes = num_lanes(tile), pixels = pixels_of(tile);
    return depth(tile) * channels_of(tile) / 4 % lanes == 0 && pixels * depth(tile) / 4 % lanes == 0 &&
           (lanes % pixels == 0 || pixels % lanes == 0);
}

static bool is_tile(const int *v, const void *user)
{
    const struct eq_target *target = user;
    const struct tile tile = { v[LANES_OC], v[LANES_PX], v[PIXELS], v[QUADS], v[SLICES] };
    return (v[LANES_OC] == 4 || v[LANES_OC] == 8 || v[LANES_OC] == 16) && (v[LANES_PX] == 8 || v[LANES_PX] == 16) &&
           (v[PIXELS] == 4 || v[PIXELS] == 8) && (v[QUADS] == 1 || v[QUADS] == 2) &&
           (v[SLICES] == 1 || v[SLICES] == 2 || v[SLICES] == 4) && is_even(&tile) && group_size(&tile) <= target->max_group &&
           local_bytes(&tile) <= target->local_bytes;
}

static int num_filters(const struct eq_conv2d_job *job)
{
    return job->filters > 1 ? job->filters : 1;
}

static size_t num_pixels(const struct eq_conv2d_job *job)
{
    return (size_t)job->x.n * (size_t)job->z.h * (size_t)job->z.w;
}

// Time of `groups` work-groups on one compute unit at once, each with `work` multiply-adds, in the unit's own time for those.
// The more work-items, the more of the waiting is covered. These numbers, and those of model_time(), were fitted to what the
// tiles of ResNet-50 took on an H100 with an earlier version of the kernel. On an H200 with this one, but for the registers of
// tiles with 64 sums, the chosen tile takes 7 % longer than the fastest in the mean at batch 16.
static double unit_time(const struct tile *tile, size_t groups, double work)
{
    const double rate = num_sums(tile) == 64 ? 0.6 : num_sums(tile) == 32 ? 0.58 : 0.4, few = 2048.0 / (double)num_sums(tile);
    const double items = (double)(groups * group_size(tile));
    return (double)groups * work / rate * (items + few) / items;
}

// Work-groups at once on a compute unit, which has registers for 512 work-items with 64 sums each, or 384 where their number is
// not limited.
static size_t resident_groups(const struct tile *tile)
{
    const size_t items = num_sums(tile) == 64 && registers(tile) == 0 ? 384 : 512,
                 groups = items * 64 / num_sums(tile) / group_size(tile);
    return groups > 0 ? groups : 1;
}

// Of all work-groups: the fullest compute unit's, which has as many at a time as its registers hold.
static double model_time(const struct eq_target *target, const struct eq_conv2d_job *job, const struct tile *tile)
{
    // what a value costs on its way to local memory, in multiply-adds; beginning and end, in values of k
    enum { LOAD = 6, START = 40 };
    const size_t tiles = (size_t)num_filters(job) * ceil_div((size_t)(job->z.blocks * job->z.block), channels_of(tile)) *
                         ceil_div(num_pixels(job), pixels_of(tile)),
                 on_unit = ceil_div(tiles, (size_t)target->compute_units), resident = resident_groups(tile);
    const double k = (double)job->x.blocks * job->x.block * job->kh * job->kw,
                 work = (double)(channels_of(tile) * pixels_of(tile) + LOAD * (channels_of(tile) + pixels_of(tile))) *
                        (k + START * tile->slices);
    return (double)(on_unit / resident) * unit_time(tile, resident, work) +
           (on_unit % resident ? unit_time(tile, on_unit % resident, work) : 0);
}

static struct tile tile_of(const int *v)
{
    return (struct tile){ v[LANES_OC], v[LANES_PX], v[PIXELS], v[QUADS], v[SLICES] };
}

// All tiles that fit the device and waste no half of their channels, to `visit`.
static eq_status each_tile(const struct eq_target *target, const struct eq_conv2d_job *job,
                           eq_status (*visit)(const int *values, void *user), void *user)
{
    const size_t channels = (size_t)(job->z.blocks * job->z.block);
    for (int i = 0; i < 3 * 2 * 2 * 2 * 3; i++) { // the values' numbers in turn, large tiles first
        const int values[NUM_VALUES] = { 16 >> i % 3, 16 >> i / 3 % 2, 8 >> i / 6 % 2, 2 >> i / 12 % 2, 1 << i / 24 };
        const struct tile tile = tile_of(values);
        if (is_tile(values, target) && (channels_of(&tile) < 2 * channels || channels_of(&tile) == 16))
            EQ_TRY(visit(values, user));
    }
    return EQ_OK;
}

struct fastest {
    const struct eq_target *target;
    const struct eq_conv2d_job *job;
    double time;
    int values[NUM_VALUES];
};

static eq_status keep_fastest(const int *values, void *user)
{
    struct fastest *fastest = user;
    const struct tile tile = tile_of(values);
    const double time = num_sums(&tile) > (size_t)fastest->target->max_sums
                            ? INFINITY
                            : model_time(fastest->target, fastest->job, &tile);
    if (time < fastest->time) {
        fastest->time = time;
        memcpy(fastest->values, values, sizeof fastest->values);
    }
    return EQ_OK;
}

static void model_tile(const struct eq_target *target, const struct eq_conv2d_job *job, int values[NUM_VALUES])
{
    struct fastest fastest = { .target = target, .job = job, .time = INFINITY };
    each_tile(target, job, keep_fastest, &fastest);
    assert(fastest.time < INFINITY); // 64 work-items and 16 KiB of local memory, which every device has, are enough for some
    memcpy(values, fastest.values, sizeof fastest.values);
}

static void make_key(const struct eq_conv2d_job *job, char key[EQ_TUNE_MAX_KEY])
{
    const struct eq_conv2d_view *x = &job->x, *z = &job->z;
    snprintf(key, EQ_TUNE_MAX_KEY, "conv2d_simt block=%dx%d filters=%d ic=%d oc=%d h=%d w=%d k=%dx%d s=%dx%d step=%d", x->block,
             z->block, num_filters(job), x->c, z->c, z->h, z->w, job->kh, job->kw, job->stride_h, job->stride_w,
             z->step / z->block);
}

static struct tile choose_tile(const struct eq_target *target, const struct eq_conv2d_job *job)
{
    char key[EQ_TUNE_MAX_KEY];
    int values[NUM_VALUES];
    make_key(job, key);
    if (!eq_tuning_choose(target->tuning, key, values, NUM_VALUES, is_tile, target))
        model_tile(target, job, values);
    return tile_of(values);
}

static eq_status add_tile(const int *values, void *user)
{
    return eq_tunable_add(user, values);
}

eq_status eq_conv2d_simt_tunable(const struct eq_target *target, const struct eq_conv2d_job *job, struct eq_tunable *tunable)
{
    int model[NUM_VALUES];
    model_tile(target, job, model);
    *tunable = (struct eq_tunable){ .names = { "lanes_oc", "lanes_px", "pixels", "quads", "slices" },
                                    .num_values = NUM_VALUES };
    make_key(job, tunable->key);
    EQ_TRY(eq_tunable_add(tunable, model));
    return each_tile(target, job, add_tile, tunable);
}

eq_status eq_conv2d_simt_emit(struct eq_list *list, const struct eq_conv2d_job *job)
{
    const struct eq_conv2d_view *x = &job->x, *z = &job->z, *add = &job->add;
    const size_t pixels = num_pixels(job);
    const struct tile tile = choose_tile(eq_list_target(list), job);
    const bool has_taps = job->kh > 0 && job->kw > 0;
    const struct eq_ref refs[] = { x->origin, job->filter, job->bias, job->has_add ? add->origin : EQ_REF_NONE, z->origin };
    const bool is_aligned = eq_refs_are_aligned(refs + (x->block == 1), 5 - (x->block == 1)); // pixels of an image one by one
    // Without taps there is nothing to sum: no input block, and any filter size will do.
    const struct eq_options options =
        eq_options_format("-DBLOCK=%d -DBI=%d -DKH=%d -DKW=%d -DNTO=%d -DNTP=%d -DPT=%d -DOQ=%d -DKS=%d "
                          "-DDEPTH=%d -DACT=%d -DEQ_ALIGNED=%d%s", z->block, x->block, has_taps ? job->kh : 1,
                          has_taps ? job->kw : 1, tile.lanes_oc, tile.lanes_px, tile.pixels, tile.quads, tile.slices,
                          (int)depth(&tile), (int)job->activation, is_aligned,
                          eq_register_option(eq_list_target(list), registers(&tile)).text);
    const size_t group = group_size(&tile);
    const struct eq_launch launch = {
        .source = "conv2d_simt",
        .options = options.text,
        .kernel = "conv2d_simt",
        .range = eq_range_3d((const size_t[]){ group * ceil_div(pixels, pixels_of(&tile)),
                                               ceil_div((size_t)(z->blocks * z->block), channels_of(&tile)),
                                               (size_t)num_filters(job) },
                             (const size_t[]){ group, 1, 1 }),
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

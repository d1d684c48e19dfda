// Convolutions and gradients of filters on matrix units: the work-group's tile and the launch.
#include <assert.h>
#include <stdio.h>

#include "op/choice.h"
#include "op/conv2d.h"

// How a work-group divides its tile: groups of lanes over pixels, output channels and k, the tiles of 16 x 16 of each, and the
// words of k in a step. registers: the most that a lane may have, for NVIDIA's compiler; 0: what it likes.
struct split {
    int groups_px, groups_oc, groups_k, tiles_px, tiles_oc, words, registers;
};

// By the lanes of a matrix unit.
static const struct {
    int lanes;
    struct split split;
} splits[] = {
    { 32, { 2, 4, 1, 4, 2, 16 } },   // 128 pixels x 128 channels
    { 32, { 4, 2, 1, 2, 2, 16 } },   // 128 x 64
    { 32, { 2, 2, 2, 2, 2, 32 } },   // 64 x 64
    { 32, { 1, 2, 4, 2, 2, 32 } },   // 32 x 64
    { 32, { 8, 1, 1, 1, 2, 16 } },   // 128 x 32
    { 32, { 2, 1, 4, 2, 2, 32 } },   // 64 x 32
    { 32, { 8, 1, 1, 1, 1, 16 } },   // 128 x 16
    { 32, { 2, 1, 1, 2, 2, 16 } },   // 64 x 32
    { 32, { 2, 1, 1, 2, 1, 16 } },   // 64 x 16
    { 64, { 2, 2, 1, 4, 2, 16 } },   // 128 x 64
    { 64, { 1, 2, 2, 4, 2, 16 } },   // 64 x 64
    { 64, { 2, 1, 1, 4, 2, 16 } },   // 128 x 32
    { 64, { 2, 1, 1, 4, 1, 16 } },   // 128 x 16
    { 64, { 1, 1, 1, 4, 2, 16 } },   // 64 x 32
    { 64, { 1, 1, 1, 4, 1, 16 } },   // 64 x 16
    { 16, { 4, 2, 1, 2, 2, 16 } },   // 128 x 64
    { 16, { 2, 2, 1, 2, 2, 16 } },   // 64 x 64
    { 16, { 4, 1, 1, 2, 2, 16 } },   // 128 x 32
    { 16, { 4, 1, 1, 2, 1, 16 } },   // 128 x 16
    { 16, { 2, 1, 1, 2, 2, 16 } },   // 64 x 32
    { 8, { 4, 2, 1, 1, 2, 16 } },    // 64 x 64
    { 8, { 2, 2, 1, 1, 2, 16 } },    // 32 x 64
    { 8, { 4, 1, 1, 1, 2, 16 } },    // 64 x 32
    { 8, { 4, 1, 1, 1, 1, 16 } },    // 64 x 16
};
enum { NUM_SPLITS = sizeof splits / sizeof *splits };

static size_t ceil_div(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

static int split_pixels(const struct split *split)
{
    return 16 * split->groups_px * split->tiles_px;
}

static int split_channels(const struct split *split)
{
    return 16 * split->groups_oc * split->tiles_oc;
}

static size_t split_group(const struct split *split, int lanes)
{
    return (size_t)(split->groups_px * split->groups_oc * split->groups_k * lanes);
}

// Two steps, with rows of EQ_TILE_PITCH of cl/matrix.clh, or the sums of all shares of k but the first and pixels' places.
static size_t split_local_bytes(const struct split *split)
{
    const int pixels = split_pixels(split), channels = split_channels(split);
    const size_t steps = (size_t)(2 * (pixels + channels) * (split->words + 4)),
                 result = (size_t)((split->groups_k - 1) * pixels * channels + 4 * pixels);
    return sizeof(float) * (steps > result ? steps : result);
}

static bool split_fits(const struct eq_target *target, const struct split *split, int lanes)
{
    return split_group(split, lanes) <= target->max_group && split_local_bytes(split) <= target->local_bytes;
}

// Work-groups at once on a compute unit: it has registers for 512 work-items, or 768 of those that share k by 4.
static size_t resident_groups(const struct split *split, int lanes)
{
    const size_t items = split->groups_k == 4 ? 768 : 512, groups = items / split_group(split, lanes);
    return groups > 0 ? groups : 1;
}

// Time of a launch, in products of a compute unit. For a value of k, a tile costs its products, and READ for each pixel and
// channel that is read for it; all tiles at once wait STEP for a step's reads, and TILE for the products of the tiles that a
// group of lanes makes one after the other. START, SHARE: beginning and end of a work-group, in values of k. Fitted to what
// the splits of ResNet-50's layers took on an H200: those chosen take 2 % longer than the fastest there, in the mean.
static double split_time(const struct eq_target *target, const struct split *split, int lanes, const struct eq_conv2d_job *job)
{
    enum { READ = 60, STEP = 2000000, TILE = 5000, START = 20, SHARE = 40 };
    const int px = split_pixels(split), oc = split_channels(split),
              values = (target->precision == EQ_TF32 ? 1 : 2) * split->words;
    const size_t pixels = (size_t)job->x.n * (size_t)job->z.h * (size_t)job->z.w,
                 groups = ceil_div(pixels, (size_t)px) * ceil_div((size_t)(job->z.blocks * job->z.block), (size_t)oc),
                 on_unit = ceil_div(groups, (size_t)target->compute_units), resident = resident_groups(split, lanes),
                 rounds = ceil_div(on_unit, resident);
    const double work = px * oc + READ * (px + oc),
                 waiting = (double)STEP / values + (double)TILE * split->tiles_px * split->tiles_oc / split->groups_k,
                 k = (double)job->x.blocks * job->x.block * job->kh * job->kw;
    return ((double)on_unit * work + (double)rounds * waiting) * (k + START + SHARE * split->groups_k);
}

// Values of the tuning: the members of struct split in their order.
enum { NUM_VALUES = 7 };

struct device_lanes {
    const struct eq_target *target;
    int lanes;
};

static struct split split_of(const int *values)
{
    return (struct split){ values[0], values[1], values[2], values[3], values[4], values[5], values[6] };
}

static bool is_split(const int *values, const void *user)
{
    const struct device_lanes *device = user;
    for (int i = 0; i < NUM_VALUES; i++)
        if (values[i] < 0 || values[i] > 256 || (i < 6 && (values[i] == 0 || (values[i] & (values[i] - 1)) != 0)))
            return false;
    const struct split split = split_of(values);
    const int depth = (device->target->precision == EQ_TF32 ? 1 : 2) * split.words; // no less than a block has
    return depth >= 16 && split.words % (8 * split.groups_k) == 0 && split_fits(device->target, &split, device->lanes);
}

static void make_key(const struct eq_target *target, const struct eq_conv2d_job *job, char key[EQ_TUNE_MAX_KEY])
{
    const struct eq_conv2d_view *x = &job->x, *z = &job->z;
    snprintf(key, EQ_TUNE_MAX_KEY, "conv2d_matrix %s block=%dx%d ic=%d oc=%d h=%d w=%d k=%dx%d s=%dx%d step=%d",
             eq_precision_name(target->precision), x->block, z->block, x->c, z->c, z->h, z->w, job->kh, job->kw, job->stride_h,
             job->stride_w, z->step / z->block);
}

static struct split model_split(const struct eq_target *target, int lanes, const struct eq_conv2d_job *job)
{
    const struct split *best = NULL;
    double best_time = 0;
    for (int i = 0; i < NUM_SPLITS; i++) {
        const struct split *split = &splits[i].split;
        if (splits[i].lanes != lanes || !split_fits(target, split, lanes))
            continue;
        const double time = split_time(target, split, lanes, job);
        if (!best || time < best_time) {
            best = split;
            best_time = time;
        }
    }
    assert(best); // 64 work-items and 16 KiB, the least that a device may have, are enough for the last of each
    return *best;
}

static struct split choose_split(const struct eq_target *target, int lanes, const struct eq_conv2d_job *job)
{
    char key[EQ_TUNE_MAX_KEY];
    int values[NUM_VALUES];
    make_key(target, job, key);
    if (eq_tuning_choose(target->tuning, key, values, NUM_VALUES, is_split, &(struct device_lanes){ target, lanes }))
        return split_of(values);
    return model_split(target, lanes, job);
}

static eq_status add_split(struct eq_tunable *tunable, const struct device_lanes *device, const struct split *split, int words,
                           int registers)
{
    const int values[NUM_VALUES] = { split->groups_px, split->groups_oc, split->groups_k, split->tiles_px,
                                     split->tiles_oc,  words,            registers };
    return is_split(values, device) ? eq_tunable_add(tunable, values) : EQ_OK;
}

// The model's choice, then the tiles of the table, each with steps of 16 and 32 words and, where the compiler can be told,
// three numbers of registers.
eq_status eq_conv2d_matrix_tunable(const struct eq_target *target, const struct eq_conv2d_job *job, struct eq_tunable *tunable)
{
    static const int registers[] = { 0, 80, 128 };
    const int lanes = eq_matrix_unit_lanes(target->matrix_unit);
    const struct device_lanes device = { target, lanes };
    const struct split model = model_split(target, lanes, job);
    *tunable = (struct eq_tunable){
        .names = { "groups_px", "groups_oc", "groups_k", "tiles_px", "tiles_oc", "words", "registers" },
        .num_values = NUM_VALUES,
    };
    make_key(target, job, tunable->key);
    EQ_TRY(add_split(tunable, &device, &model, model.words, 0));
    for (int i = 0; i < NUM_SPLITS; i++)
        for (int words = 16; splits[i].lanes == lanes && words <= 32; words *= 2)
            for (int r = 0; r < (target->can_limit_registers ? 3 : 1); r++)
                EQ_TRY(add_split(tunable, &device, &splits[i].split, words, registers[r]));
    return EQ_OK;
}

// The tile of a filter's gradient: values of k stand for pixels. 128 x 128 or 64 x 128 for lanes of 32, 128 x 64 of more, where
// there are as many channels; then whatever the device allows. cl/conv2d_matrix_weight_grad.cl wants 64 work-items or more.
static struct split grad_split(const struct eq_target *target, int lanes, int channels, int k)
{
    struct split split = { lanes == 64 ? 2 : 4, channels <= 32 ? 1 : 2, 1, lanes == 64 ? 4 : lanes == 8 ? 1 : 2,
                           channels <= 16 ? 1 : 2, 16 };
    if (lanes == 8 && channels <= 32)
        split.groups_px = 8;
    if (lanes == 32 && channels > 64) {
        const struct split wide = { 2, 4, 1, k > 64 ? 4 : 2, 2, 16 };
        split = split_fits(target, &wide, lanes) ? wide : split;
    }
    while (!split_fits(target, &split, lanes)) {
        const bool is_least = split_group(&split, lanes) <= 64;
        int *part = is_least ? &split.tiles_oc : split.groups_px > 1 ? &split.groups_px : &split.groups_oc;
        if (*part == 1)
            break; // the list says what the device lacks
        *part /= 2;
    }
    return split;
}

struct eq_conv2d_grad_tile eq_conv2d_matrix_grad_tile(const struct eq_target *target, int block_in, int block, int channels,
                                                      int k)
{
    const int lanes = eq_matrix_unit_lanes(target->matrix_unit);
    const struct split split = grad_split(target, lanes, channels, k);
    return (struct eq_conv2d_grad_tile){
        .kernel = "conv2d_matrix_weight_grad",
        .options = eq_options_format("-DEQ_MATRIX=%d -DPRECISION=%d -DBLOCK=%d -DBI=%d -DSK=%d -DSO=%d -DTK=%d -DTO=%d",
                                     (int)target->matrix_unit, (int)target->precision, block, block_in, split.groups_px,
                                     split.groups_oc, split.tiles_px, split.tiles_oc),
        .group = (int)split_group(&split, lanes),
        .tiles_oc = (int)ceil_div((size_t)channels, (size_t)split_channels(&split)),
        .tiles_k = (int)ceil_div((size_t)k, (size_t)split_pixels(&split)),
    };
}

// Values of k in 4 words.
static int quad_values(const struct eq_target *target)
{
    return target->precision == EQ_TF32 ? 4 : 8;
}

size_t eq_conv2d_packed_elems(const struct eq_target *target, int groups, int channels, int num_k)
{
    if (groups > 1 || target->family == EQ_FAMILY_VECTOR || target->precision == EQ_FP32)
        return 0;
    return 64 * ceil_div((size_t)channels, 16) * ceil_div((size_t)num_k, (size_t)quad_values(target));
}

eq_status eq_conv2d_pack_emit(struct eq_list *list, int channels, int num_k, struct eq_ref w, struct eq_ref scale,
                              struct eq_ref packed, bool is_preparation)
{
    const struct eq_target *target = eq_list_target(list);
    const size_t elems = eq_conv2d_packed_elems(target, 1, channels, num_k),
                 blocks = ceil_div((size_t)channels, (size_t)target->block);
    const struct eq_options options = eq_options_format("-DEQ_MATRIX=%d -DPRECISION=%d -DBLOCK=%d", (int)target->matrix_unit,
                                                        (int)target->precision, target->block);
    const struct eq_launch launch = {
        .source = "conv2d_matrix_filter",
        .options = options.text,
        .kernel = "conv2d_matrix_filter",
        .range = eq_range_1d(elems / 4, 64),
        .cost = { 0, 4.0 * (double)channels * num_k + 4.0 * (double)elems },
        .is_preparation = is_preparation,
    };
    return eq_list_kernel(list, &launch, EQ_ARGS(EQ_REF(w), EQ_REF(scale), EQ_REF(packed), EQ_I32(blocks), EQ_I32(num_k),
                                                 EQ_I32(scale.buffer != NULL)));
}

eq_status eq_conv2d_matrix_emit(struct eq_list *list, const struct eq_conv2d_job *job)
{
    const struct eq_target *target = eq_list_target(list);
    const struct eq_conv2d_view *x = &job->x, *z = &job->z, *add = &job->add;
    const int lanes = eq_matrix_unit_lanes(target->matrix_unit);
    const struct split split = choose_split(target, lanes, job);
    const size_t pixels = (size_t)x->n * (size_t)z->h * (size_t)z->w, group = split_group(&split, lanes),
                 channels = (size_t)(z->blocks * z->block);
    const bool has_taps = job->kh > 0 && job->kw > 0;
    const struct eq_ref refs[] = { x->origin, job->filter, job->bias, job->has_add ? add->origin : EQ_REF_NONE, z->origin };
    const bool is_aligned = eq_refs_are_aligned(refs + (x->block == 1), 5 - (x->block == 1)); // pixels of an image one by one
    // Without taps there is nothing to sum: no input block, and any filter size will do.
    const struct eq_options options =
        eq_options_format("-DEQ_MATRIX=%d -DPRECISION=%d -DBLOCK=%d -DBI=%d -DKH=%d -DKW=%d -DSP=%d -DSO=%d -DSK=%d -DTP=%d "
                          "-DTO=%d -DEQ_TILE_WORDS=%d -DACT=%d -DEQ_ALIGNED=%d%s", (int)target->matrix_unit,
                          (int)target->precision, z->block, x->block, has_taps ? job->kh : 1, has_taps ? job->kw : 1,
                          split.groups_px, split.groups_oc, split.groups_k, split.tiles_px, split.tiles_oc, split.words,
                          (int)job->activation, is_aligned,
                          eq_register_option(target, split.registers).text);
    const struct eq_launch launch = {
        .source = "conv2d_matrix",
        .options = options.text,
        .kernel = "conv2d_matrix",
        .range = eq_range_1d(group * ceil_div(pixels, (size_t)split_pixels(&split)) *
                                 ceil_div(channels, (size_t)split_channels(&split)),
                             group),
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

// Convolutions on GPUs: the work-group's tile and the launch.
#include <assert.h>

#include "op/choice.h"
#include "op/conv2d.h"

// 4 * lanes_oc output channels x lanes_px * pixels pixels.
struct tile {
    int lanes_oc, lanes_px, pixels;
};

static size_t ceil_div(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

// By a model: wide tiles for reuse; narrower ones where there are few channels, too few work-groups to fill the device twice,
// or work-groups are small.
static struct tile model_tile(const struct eq_target *target, int channels, size_t pixels, int filters)
{
    if (channels <= 16)
        return (struct tile){ 4, 16, 8 };
    if (target->max_group < 128)
        return (struct tile){ 8, 8, 8 };
    if (channels <= 32)
        return (struct tile){ 8, 16, 8 };
    const struct tile tiles[] = { { 16, 16, 8 }, { 16, 16, 4 }, { 16, 8, 4 } };
    const size_t want = 2 * (size_t)target->compute_units, rows = (size_t)filters * ceil_div((size_t)channels, 64);
    for (int i = 0; i < 2; i++)
        if ((size_t)(tiles[i].lanes_oc * tiles[i].lanes_px) <= target->max_group &&
            rows * ceil_div(pixels, (size_t)(tiles[i].lanes_px * tiles[i].pixels)) >= want)
            return tiles[i];
    return tiles[2];
}

static int num_filters(const struct eq_conv2d_job *job)
{
    return job->filters > 1 ? job->filters : 1;
}

// Values of the tuning, in this order.
enum { LANES_OC, LANES_PX, PIXELS, NUM_VALUES };

static void make_key(const struct eq_conv2d_job *job, char key[EQ_TUNE_MAX_KEY])
{
    const struct eq_conv2d_view *x = &job->x, *z = &job->z;
    snprintf(key, EQ_TUNE_MAX_KEY, "conv2d_simt block=%dx%d filters=%d ic=%d oc=%d h=%d w=%d k=%dx%d s=%dx%d step=%d", x->block,
             z->block, num_filters(job), x->c, z->c, z->h, z->w, job->kh, job->kw, job->stride_h, job->stride_w,
             z->step / z->block);
}

// What cl/conv2d_simt.cl is written for.
static bool is_tile(const int *values, const void *user)
{
    const struct eq_target *target = user;
    return (values[LANES_OC] == 4 || values[LANES_OC] == 8 || values[LANES_OC] == 16) &&
           (values[LANES_PX] == 8 || values[LANES_PX] == 16) && (values[PIXELS] == 4 || values[PIXELS] == 8) &&
           (size_t)(values[LANES_OC] * values[LANES_PX]) <= target->max_group;
}

static size_t num_pixels(const struct eq_conv2d_job *job)
{
    return (size_t)job->x.n * (size_t)job->z.h * (size_t)job->z.w;
}

static struct tile choose_tile(const struct eq_target *target, const struct eq_conv2d_job *job)
{
    char key[EQ_TUNE_MAX_KEY];
    int v[NUM_VALUES];
    make_key(job, key);
    if (eq_tuning_choose(target->tuning, key, v, NUM_VALUES, is_tile, target))
        return (struct tile){ v[LANES_OC], v[LANES_PX], v[PIXELS] };
    return model_tile(target, job->z.blocks * job->z.block, num_pixels(job), num_filters(job));
}

eq_status eq_conv2d_simt_tunable(const struct eq_target *target, const struct eq_conv2d_job *job, struct eq_tunable *tunable)
{
    const struct tile model = model_tile(target, job->z.blocks * job->z.block, num_pixels(job), num_filters(job));
    *tunable = (struct eq_tunable){ .names = { "lanes_oc", "lanes_px", "pixels" }, .num_values = NUM_VALUES };
    make_key(job, tunable->key);
    EQ_TRY(eq_tunable_add(tunable, (const int[NUM_VALUES]){ model.lanes_oc, model.lanes_px, model.pixels }));
    for (int lanes_oc = 16; lanes_oc >= 4; lanes_oc /= 2)
        for (int lanes_px = 16; lanes_px >= 8; lanes_px /= 2)
            for (int pixels = 8; pixels >= 4; pixels /= 2) {
                const int values[NUM_VALUES] = { lanes_oc, lanes_px, pixels };
                if (is_tile(values, target))
                    EQ_TRY(eq_tunable_add(tunable, values));
            }
    return EQ_OK;
}

eq_status eq_conv2d_simt_emit(struct eq_list *list, const struct eq_conv2d_job *job)
{
    const struct eq_conv2d_view *x = &job->x, *z = &job->z, *add = &job->add;
    const size_t pixels = num_pixels(job);
    const struct tile tile = choose_tile(eq_list_target(list), job);
    const bool has_taps = job->kh > 0 && job->kw > 0;
    const struct eq_ref refs[] = { x->origin, job->filter, job->bias, job->has_add ? add->origin : EQ_REF_NONE, z->origin };
    const bool is_aligned = eq_conv2d_is_aligned(refs + (x->block == 1), 5 - (x->block == 1)); // pixels of an image one by one
    // Without taps there is nothing to sum: no input block, and any filter size will do.
    const struct eq_options options =
        eq_options_format("-DBLOCK=%d -DBI=%d -DKH=%d -DKW=%d -DNTO=%d -DNTP=%d -DPT=%d -DACT=%d -DEQ_ALIGNED=%d", z->block,
                          x->block, has_taps ? job->kh : 1, has_taps ? job->kw : 1, tile.lanes_oc, tile.lanes_px, tile.pixels,
                          (int)job->activation, is_aligned);
    const size_t group = (size_t)(tile.lanes_oc * tile.lanes_px);
    assert(group <= 256);
    const struct eq_launch launch = {
        .source = "conv2d_simt",
        .options = options.text,
        .kernel = "conv2d_simt",
        .range = eq_range_3d((const size_t[]){ group * ceil_div(pixels, (size_t)(tile.lanes_px * tile.pixels)),
                                               ceil_div((size_t)(z->blocks * z->block), (size_t)(4 * tile.lanes_oc)),
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

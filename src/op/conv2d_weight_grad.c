// Gradient of a convolution's filter. The sum over the pixels of all images is split into parts where the filter alone gives
// too few work-groups; parts are a function of shapes and compute units, and merge in their order, so the bits do not depend on
// timing.
#include <assert.h>

#include "op/choice.h"
#include "op/conv2d.h"

enum { X, DZ };
enum { MIN_PART_ROWS = 8, MIN_PART_PIXELS = 128, MAX_PARTS_BYTES = 64 << 20 };
// CPUs: operands above LARGE_BYTES are cut into parts of about LOCAL_BYTES, so that the smaller operand's part stays in the
// second-level cache; a part has MIN_LOCAL_PIXELS or more, so that writing and merging partial sums costs less than a tenth of
// making them.
enum { LARGE_BYTES = 4 << 20, LOCAL_BYTES = 512 << 10, MIN_LOCAL_PIXELS = 392 };
// CPUs: bytes that a work-item keeps in the first-level cache, a chunk of its blocks of dz, of a block of x and of the next. It
// has up to MAX_RUNS_EACH runs, where that leaves ITEMS_PER_UNIT work-items for each compute unit.
enum { NEAR_BYTES = 28 << 10, MAX_RUNS_EACH = 32, ITEMS_PER_UNIT = 8 };

static int ceil_div(int a, int b)
{
    return (a + b - 1) / b;
}

// How the work is cut: `parts` parts of `size` units each (rows of dz for CPUs, pixels of it for GPUs).
struct split {
    int parts, size;
};

// groups: work-groups of one part; want: how many there should be.
static struct split make_split(double groups, double want, int units, int min_size, double filter_bytes)
{
    double parts = want / groups;
    const double by_size = (double)units / min_size, by_bytes = MAX_PARTS_BYTES / filter_bytes;
    parts = parts < by_size ? parts : by_size;
    parts = parts < by_bytes ? parts : by_bytes;
    const int size = parts <= 1 ? units : ceil_div(units, (int)parts);
    return (struct split){ ceil_div(units, size), size };
}

// Accumulators of a work-item of the CPU kernel: values of x, blocks of dz, pixels in an iteration.
struct tile {
    int values, blocks, step;
};

// By a model; what is open for the tuner is vector_tile() and vector_order().
static struct tile model_tile(const struct eq_tensor *w, const struct eq_tensor *dz)
{
    const int max_sums = w->block == 16 ? 16 : 8, available = eq_tensor_blocks(dz);
    struct tile tile = { .values = w->block_in == 1 ? w->w : w->block == 4 ? 4 : w->block / 2 };
    tile.blocks = max_sums / tile.values;
    tile.blocks = tile.blocks < 1 ? 1 : tile.blocks > 4 ? 4 : tile.blocks;
    // 24 sums, where at most a twentieth more is computed than there is
    if (w->block == 16 && tile.blocks == 2 && 20 * 3 * ceil_div(available, 3) <= 21 * available)
        tile.blocks = 3;
    tile.blocks = tile.blocks < available ? tile.blocks : available;
    tile.step = dz->w % 7 == 0 ? 7 : dz->w >= 4 ? 4 : 1;
    return tile;
}

// A key of the tuning: what decides the code and its loops, but for the batch.
static void make_key(const struct eq_call *call, const char *what, char key[EQ_TUNE_MAX_KEY])
{
    const struct eq_conv2d_weight_grad_attributes *a = call->attributes;
    const struct eq_tensor *w = &call->output[0], *dz = &call->input[DZ];
    snprintf(key, EQ_TUNE_MAX_KEY, "conv2d_vector_weight_grad%s block=%dx%d ic=%d oc=%d h=%d w=%d k=%dx%d s=%dx%d", what,
             w->block_in, w->block, w->c, w->n, dz->h, dz->w, w->h, w->w, a->conv.stride_h, a->conv.stride_w);
}

enum { VALUES, BLOCKS, STEP, NUM_TILE, MAX_STEP = 16 };

static bool is_tile(const int *values, const void *user)
{
    const struct eq_call *call = user;
    const struct eq_tensor *w = &call->output[0];
    const int most = w->block == 16 ? 28 : 12, v = values[VALUES];
    const bool fits = w->block_in == 1 ? v == w->w : v >= 1 && v <= w->block_in && w->block_in % v == 0;
    return fits && values[BLOCKS] >= 1 && values[BLOCKS] <= eq_tensor_blocks(&call->input[DZ]) && values[BLOCKS] <= most &&
           v * values[BLOCKS] <= most && values[STEP] >= 1 && values[STEP] <= MAX_STEP;
}

static struct tile vector_tile(const struct eq_call *call)
{
    char key[EQ_TUNE_MAX_KEY];
    int v[NUM_TILE];
    make_key(call, "", key);
    if (eq_tuning_choose(call->target->tuning, key, v, NUM_TILE, is_tile, call))
        return (struct tile){ v[VALUES], v[BLOCKS], v[STEP] };
    return model_tile(&call->output[0], &call->input[DZ]);
}

static int vector_runs(const struct eq_tensor *w, struct tile tile)
{
    const int rows = ceil_div(w->c, w->block_in) * w->h;
    return w->block_in == 1 ? rows : rows * w->w * (w->block_in / tile.values);
}

// Bytes of an operand that are read for one pixel of dz.
static double pixel_bytes(int channels, int block)
{
    return 4.0 * ceil_div(channels, block) * block;
}

// Whether dz is the smaller operand.
static bool is_dz_smaller(const struct eq_tensor *w)
{
    return pixel_bytes(w->n, w->block) < pixel_bytes(w->c, w->block_in);
}

// How a CPU walks: pixels of a part (0: by the model), and whether neighbours share x.
struct order {
    int part_pixels;
    bool is_blocks_first;
};
enum { PART_PIXELS, BLOCKS_FIRST, NUM_ORDER };

static bool is_order(const int *values, const void *user)
{
    (void)user;
    return values[PART_PIXELS] >= 0 && (values[BLOCKS_FIRST] == 0 || values[BLOCKS_FIRST] == 1);
}

static struct order vector_order(const struct eq_call *call)
{
    char key[EQ_TUNE_MAX_KEY];
    int v[NUM_ORDER];
    make_key(call, "_order", key);
    if (eq_tuning_choose(call->target->tuning, key, v, NUM_ORDER, is_order, NULL))
        return (struct order){ v[PART_PIXELS], v[BLOCKS_FIRST] };
    return (struct order){ 0, is_dz_smaller(&call->output[0]) };
}

static struct split vector_split(const struct eq_call *call)
{
    const struct eq_tensor *w = &call->output[0], *dz = &call->input[DZ];
    const struct tile tile = vector_tile(call);
    const struct order order = vector_order(call);
    const double groups = (double)vector_runs(w, tile) * ceil_div(eq_tensor_blocks(dz), tile.blocks);
    // the smaller operand, or, where that is next to nothing, the blocks of dz that pass beside it
    const double smaller = is_dz_smaller(w) ? pixel_bytes(w->n, w->block) : pixel_bytes(w->c, w->block_in);
    const double beside = 4.0 * tile.blocks * w->block, pixel = smaller > beside ? smaller : beside;
    const double pixels = (double)dz->n * dz->h * dz->w, filter_bytes = 4.0 * (double)eq_tensor_elems(w);
    if (order.part_pixels > 0)
        return make_split(1, pixels / order.part_pixels, dz->n * dz->h, 1, filter_bytes);
    const struct split split =
        make_split(groups, (double)ITEMS_PER_UNIT * call->target->compute_units, dz->n * dz->h, MIN_PART_ROWS, filter_bytes);
    if (pixels * pixel <= LARGE_BYTES)
        return split;
    const double local_pixels = LOCAL_BYTES / pixel > MIN_LOCAL_PIXELS ? LOCAL_BYTES / pixel : MIN_LOCAL_PIXELS;
    const struct split local = make_split(1, pixels / local_pixels, dz->n * dz->h, 1, filter_bytes);
    return local.parts > split.parts ? local : split;
}

static struct split split_of(const struct eq_call *call)
{
    const struct eq_tensor *w = &call->output[0];
    if (call->target->family == EQ_FAMILY_VECTOR)
        return vector_split(call);
    const struct eq_conv2d_view x = eq_conv2d_view(&call->input[X], EQ_REF_NONE);
    const struct eq_conv2d_view dz = eq_conv2d_view(&call->input[DZ], EQ_REF_NONE);
    const struct eq_conv2d_grad_tile tile = eq_conv2d_simt_grad_tile(call->target, &x, &dz, w->h * w->w);
    return make_split((double)tile.tiles_oc * tile.tiles_k, 4.0 * call->target->compute_units, dz.n * dz.h * dz.w,
                      MIN_PART_PIXELS, 4.0 * (double)eq_tensor_elems(w));
}

static struct eq_conv2d_shape shape_of(const struct eq_call *call)
{
    const struct eq_tensor *dz = &call->input[DZ];
    return (struct eq_conv2d_shape){ dz->n, call->input[X].c, dz->c, dz->h, dz->w, .is_weight_grad = true };
}

static enum eq_conv2d_algorithm algorithm_of(const struct eq_call *call)
{
    const struct eq_conv2d_weight_grad_attributes *a = call->attributes;
    const struct eq_conv2d_shape s = shape_of(call);
    return eq_conv2d_choose(call->target, &a->conv, a->kh, a->kw, call->output[0].block_in, &s);
}

static size_t workspace_elems(const struct eq_call *call)
{
    const struct eq_conv2d_weight_grad_attributes *a = call->attributes;
    const enum eq_conv2d_algorithm algorithm = algorithm_of(call);
    const struct eq_conv2d_shape s = shape_of(call);
    if (a->conv.groups > 1)
        return eq_conv2d_grouped_weight_grad_elems(call);
    if (algorithm != EQ_CONV2D_DIRECT)
        return eq_conv2d_winograd_grad_elems(call->target, algorithm, &s);
    const struct split split = split_of(call);
    return split.parts > 1 ? (size_t)split.parts * eq_tensor_elems(&call->output[0]) : 1;
}

static eq_status shape(struct eq_call *call)
{
    const struct eq_conv2d_weight_grad_attributes *a = call->attributes;
    const struct eq_tensor *x = &call->input[X], *dz = &call->input[DZ];
    EQ_TRY(eq_tensor_check(dz));
    const struct eq_tensor w = eq_conv2d_weight(call->target, x, dz->c, a->kh, a->kw, a->conv.groups);
    int oh, ow;
    EQ_TRY(eq_conv2d_check("conv2d_weight_grad", call->target, &a->conv, x, &w, &oh, &ow));
    EQ_REQUIRE(a->conv.algorithm != EQ_CONV2D_WINOGRAD_4_LATE, EQ_ERR_UNSUPPORTED, "conv2d_weight_grad: has no algorithm %d",
               (int)a->conv.algorithm);
    EQ_REQUIRE(dz->form == EQ_FORM_BLOCKED && dz->block == call->target->block && dz->n == x->n && dz->h == oh && dz->w == ow,
               EQ_ERR_SHAPE,
               "conv2d_weight_grad: the gradient is %d images of %d x %d in blocks of %d, not %d of %d x %d in blocks of %d",
               dz->n, dz->h, dz->w, dz->block, x->n, oh, ow, call->target->block);
    call->num_outputs = 2;
    call->output[0] = w;
    return eq_workspace("conv2d_weight_grad", workspace_elems(call), &call->output[1]);
}

static int halo(const struct eq_call *call, int input)
{
    const struct eq_conv2d_attributes *a = &((const struct eq_conv2d_weight_grad_attributes *)call->attributes)->conv;
    if (input != X || call->target->family != EQ_FAMILY_VECTOR)
        return 0;
    return a->pad_h > a->pad_w ? a->pad_h : a->pad_w;
}

static struct eq_cost cost(const struct eq_call *call)
{
    return eq_conv2d_cost(&call->input[X], &call->output[0], &call->input[DZ]);
}

static int chunk_rows(const struct eq_conv2d_view *dz, struct tile tile)
{
    const int rows = NEAR_BYTES / (4 * dz->block * (tile.blocks + 2)) / dz->w;
    return rows < 1 ? 1 : rows;
}

// items: work-items of each run.
static int runs_each(const struct eq_target *target, int num_runs, double items)
{
    const double each = num_runs * items / (ITEMS_PER_UNIT * (double)target->compute_units);
    return each < 1 ? 1 : each < MAX_RUNS_EACH ? (int)each : MAX_RUNS_EACH;
}

static eq_status emit_vector(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, struct eq_ref dw,
                             struct split split)
{
    const struct eq_conv2d_attributes *a = &((const struct eq_conv2d_weight_grad_attributes *)call->attributes)->conv;
    const struct eq_tensor *w = &call->output[0];
    const struct eq_conv2d_view x = eq_conv2d_view(&call->input[X], in[X]), dz = eq_conv2d_view(&call->input[DZ], in[DZ]);
    assert(x.halo >= a->pad_h && x.halo >= a->pad_w);
    const struct tile tile = vector_tile(call);
    const struct eq_options options = eq_options_format("-DBLOCK=%d -DBI=%d -DNI=%d -DSTRIDE=%d -DOBT=%d -DSTEP=%d", dz.block,
                                                        x.block, tile.values, a->stride_w, tile.blocks, tile.step);
    const bool is_blocks_first = vector_order(call).is_blocks_first;
    const int num_runs = vector_runs(w, tile), groups = ceil_div(dz.blocks, tile.blocks);
    const int each = runs_each(call->target, num_runs, (double)groups * split.parts);
    const size_t run_groups = (size_t)ceil_div(num_runs, each), block_groups = (size_t)groups;
    const ptrdiff_t first = -((ptrdiff_t)a->pad_h * x.row + (ptrdiff_t)a->pad_w * x.step);
    const struct eq_launch launch = {
        .source = "conv2d_vector_weight_grad",
        .options = options.text,
        .kernel = "conv2d_vector_weight_grad",
        .range = eq_range_3d(
            (const size_t[]){ is_blocks_first ? block_groups : run_groups, is_blocks_first ? run_groups : block_groups,
                              (size_t)split.parts },
            (const size_t[]){ 1, 1, 1 }),
        .cost = cost(call),
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(eq_ref_plus(x.origin, (size_t)first)), EQ_REF(dz.origin), EQ_REF(dw), EQ_I32(x.row),
                                  EQ_I32(x.plane), EQ_I32(x.blocks), EQ_I32(w->h), EQ_I32(w->w), EQ_I32(a->stride_h),
                                  EQ_I32(dz.blocks), EQ_I32(dz.h), EQ_I32(dz.w), EQ_I32(dz.row), EQ_I32(dz.plane),
                                  EQ_I32(dz.n * dz.h), EQ_I32(split.size), EQ_I32(is_blocks_first),
                                  EQ_I32(chunk_rows(&dz, tile)), EQ_I32(num_runs), EQ_I32(each)));
}

static eq_status emit_simt(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, struct eq_ref dw,
                           struct split split)
{
    const struct eq_conv2d_weight_grad_attributes *a = call->attributes;
    return eq_conv2d_simt_grad_emit(list, &(struct eq_conv2d_grad_job){ .x = eq_conv2d_view(&call->input[X], in[X]),
                                                                        .dz = eq_conv2d_view(&call->input[DZ], in[DZ]),
                                                                        .dw = dw,
                                                                        .kh = a->kh,
                                                                        .kw = a->kw,
                                                                        .stride_h = a->conv.stride_h,
                                                                        .stride_w = a->conv.stride_w,
                                                                        .pad_h = a->conv.pad_h,
                                                                        .pad_w = a->conv.pad_w,
                                                                        .parts = split.parts,
                                                                        .part_pixels = split.size,
                                                                        .cost = cost(call) });
}

// SLICES in cl/conv2d_filter.cl: enough work-items for a GPU to have its memory busy, each with 4 parts or more.
static int merge_slices(const struct eq_target *target, size_t quads, int parts)
{
    int slices = 1;
    while (target->family == EQ_FAMILY_SIMT && slices < 8 && slices * 8 <= parts &&
           quads * (size_t)slices < (size_t)target->compute_units * 1024)
        slices *= 2;
    return slices;
}

eq_status eq_conv2d_merge_emit(struct eq_list *list, const struct eq_call *call, struct eq_ref partial, struct eq_ref dw,
                               int parts)
{
    const size_t elems = eq_tensor_elems(&call->output[0]);
    const int slices = merge_slices(call->target, elems / 4, parts);
    const bool is_aligned =
        call->target->family == EQ_FAMILY_SIMT && eq_refs_are_aligned((const struct eq_ref[]){ partial, dw }, 2);
    const struct eq_options options =
        eq_options_format("-DBLOCK=%d -DSLICES=%d -DEQ_ALIGNED=%d", call->target->block, slices, is_aligned);
    const struct eq_launch launch = {
        .source = "conv2d_filter",
        .options = options.text,
        .kernel = "conv2d_filter_merge",
        .range = eq_range_1d(elems / 4 * (size_t)slices, 64),
        .cost = { (double)elems * parts, 4.0 * (double)elems * (parts + 1) },
    };
    return eq_list_kernel(list, &launch, EQ_ARGS(EQ_REF(partial), EQ_REF(dw), EQ_I32(parts), EQ_I32(elems / 4)));
}

static eq_status emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    const struct eq_conv2d_attributes *a = &((const struct eq_conv2d_weight_grad_attributes *)call->attributes)->conv;
    if (a->groups > 1)
        return eq_conv2d_grouped_weight_grad_emit(list, call, in, out);
    const enum eq_conv2d_algorithm algorithm = algorithm_of(call);
    if (algorithm != EQ_CONV2D_DIRECT) {
        const struct eq_conv2d_view x = eq_conv2d_view(&call->input[X], in[X]), dz = eq_conv2d_view(&call->input[DZ], in[DZ]);
        return eq_conv2d_winograd_grad_emit(list, algorithm, a, &x, &dz, out[0], out[1]);
    }
    const struct split split = split_of(call);
    const struct eq_ref sums = split.parts > 1 ? out[1] : out[0];
    if (call->target->family == EQ_FAMILY_VECTOR)
        EQ_TRY(emit_vector(list, call, in, sums, split));
    else
        EQ_TRY(emit_simt(list, call, in, sums, split));
    return split.parts > 1 ? eq_conv2d_merge_emit(list, call, out[1], out[0], split.parts) : EQ_OK;
}

static eq_status add_tiles(const struct eq_call *call, struct eq_tunable *tunable)
{
    const struct eq_tensor *w = &call->output[0], *dz = &call->input[DZ];
    const struct tile model = model_tile(w, dz);
    *tunable = (struct eq_tunable){ .names = { "values", "blocks", "step" }, .num_values = NUM_TILE };
    make_key(call, "", tunable->key);
    EQ_TRY(eq_tunable_add(tunable, (const int[NUM_TILE]){ model.values, model.blocks, model.step }));
    const int values[] = { model.values, w->block_in / 4, w->block_in / 2, w->block_in }, steps[] = { 1, 2, 4, 7, 8 };
    for (size_t v = 0; v < sizeof values / sizeof *values; v++)
        for (int blocks = 1; blocks <= 7; blocks++) {
            const int tile[NUM_TILE] = { values[v], blocks, model.step };
            if (is_tile(tile, call) && values[v] * blocks > 6)
                EQ_TRY(eq_tunable_add(tunable, tile));
        }
    for (size_t s = 0; s < sizeof steps / sizeof *steps; s++)
        if (steps[s] <= dz->w)
            EQ_TRY(eq_tunable_add(tunable, (const int[NUM_TILE]){ model.values, model.blocks, steps[s] }));
    return EQ_OK;
}

static eq_status add_orders(const struct eq_call *call, struct eq_tunable *tunable)
{
    const int pixels[] = { 0, 200, 400, 800, 1600, 3200, 12800 }, first = is_dz_smaller(&call->output[0]);
    *tunable = (struct eq_tunable){ .names = { "part_pixels", "blocks_first" }, .num_values = NUM_ORDER };
    make_key(call, "_order", tunable->key);
    for (int other = 0; other < 2; other++)
        for (size_t p = 0; p < sizeof pixels / sizeof *pixels; p++)
            EQ_TRY(eq_tunable_add(tunable, (const int[NUM_ORDER]){ pixels[p], other ? !first : first }));
    return EQ_OK;
}

static eq_status tunables(const struct eq_call *call, struct eq_tunable *tunables, int max, int *num)
{
    const struct eq_conv2d_weight_grad_attributes *a = call->attributes;
    const struct eq_conv2d_shape s = shape_of(call);
    if (a->conv.groups > 1)
        return EQ_OK;
    assert(max >= 3);
    EQ_TRY(
        eq_conv2d_algorithm_tunable(call->target, &a->conv, a->kh, a->kw, call->output[0].block_in, &s, &tunables[(*num)++]));
    if (algorithm_of(call) != EQ_CONV2D_DIRECT || call->target->family != EQ_FAMILY_VECTOR)
        return EQ_OK;
    EQ_TRY(add_tiles(call, &tunables[(*num)++]));
    return add_orders(call, &tunables[(*num)++]);
}

const struct eq_op eq_op_conv2d_weight_grad = {
    .name = "conv2d_weight_grad",
    .attribute_bytes = sizeof(struct eq_conv2d_weight_grad_attributes),
    .shape = shape,
    .halo = halo,
    .emit = emit,
    .cost = cost,
    .tunables = tunables,
    .expect = eq_conv2d_weight_grad_expect,
};

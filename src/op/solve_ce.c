// Solve of CE and BD: launches of cl/solve_ce.cl. Groups over 64 channels: Newton-Schulz as matrix products.
#include "op/solve.h"
#include "op/unit_plan.h"

enum { LARGEST_IN_GROUP = 64 }; // channels of a group whose matrices one work-group handles

struct eq_solve_groups eq_solve_groups_make(const struct eq_tensor *z, int group)
{
    while (z->c % group)
        group /= 2;
    struct eq_solve_groups s = {
        .channels = z->c,
        .stride = (z->c + 15) / 16 * 16,
        .block = z->block,
        .blocks = eq_tensor_blocks(z),
        .group = group,
        .groups = z->c / group,
        .padded = (group + 3) / 4 * 4,
        .samples = z->n * z->h * z->w,
    };
    for (int b = 0; b < s.blocks; b++) {
        const int first = b * s.block / group * group,
                  last_channel = (b + 1) * s.block < z->c ? (b + 1) * s.block - 1 : z->c - 1;
        const int end = (last_channel / group + 1) * group, span = (end - 1) / s.block - first / s.block + 1;
        s.span = span > s.span ? span : s.span;
    }
    return s;
}

size_t eq_solve_tile_elems(const struct eq_solve_groups *s)
{
    return (size_t)s->blocks * (size_t)s->span * (size_t)s->block * (size_t)s->block;
}

size_t eq_solve_matrix_elems(const struct eq_solve_groups *s)
{
    return (size_t)s->groups * (size_t)s->padded * (size_t)s->padded;
}

size_t eq_solve_scratch_elems(const struct eq_solve_groups *s)
{
    return 6 * eq_solve_matrix_elems(s);
}

static bool is_vector(const struct eq_list *list)
{
    return eq_list_target(list)->family == EQ_FAMILY_VECTOR;
}

// Work-items per matrix. Where vectors rule one would do, but Mesa's llvmpipe ends a work-item's loops after 65535 rounds.
static int group_size(const struct eq_list *list, const struct eq_solve_groups *s)
{
    const int wanted = s->padded <= 16 ? 64 : 256, most = eq_unit_group_size(eq_list_target(list));
    if (is_vector(list))
        return s->padded <= 16 ? 1 : 16;
    return wanted < most ? wanted : most;
}

static int lanes(const struct eq_list *list, const struct eq_solve_groups *s)
{
    return is_vector(list) && s->padded % 16 == 0 ? 16 : 4;
}

// Work-items that share the partial tiles of an entry; on GPUs a work-group has 16 times as many.
static int slices(const struct eq_list *list)
{
    return is_vector(list) ? 1 : eq_unit_group_size(eq_list_target(list)) / 16;
}

static struct eq_options options(const struct eq_list *list, const struct eq_solve_groups *s)
{
    return eq_options_format("-DGP=%d -DLANES=%d -DWG=%d -DSLICES=%d", s->padded, lanes(list, s), group_size(list, s),
                             slices(list));
}

// All matrices, one work-group each.
static struct eq_range matrix_range(const struct eq_list *list, const struct eq_solve_groups *s)
{
    const size_t local = (size_t)group_size(list, s);
    return eq_range_1d((size_t)s->groups * local, local);
}

// All rows of all matrices, and their columns: one work-item a row where vectors rule, else one for 4 columns and a slice.
static struct eq_range row_range(const struct eq_list *list, const struct eq_solve_groups *s)
{
    if (is_vector(list))
        return eq_range_2d(1, (size_t)s->groups * (size_t)s->padded, 1, 1);
    const size_t num = (size_t)slices(list);
    return eq_range_3d((const size_t[]){ (size_t)(s->padded / 4), (size_t)s->groups * (size_t)s->padded, num },
                       (const size_t[]){ 4, 4, num });
}

// Output channels, and input channels of a row of tiles: where vectors rule one work-item has all of them.
static struct eq_range tile_range(const struct eq_list *list, const struct eq_solve_groups *s)
{
    if (is_vector(list))
        return eq_range_2d((size_t)s->stride, 1, 16, 1);
    return eq_range_2d((size_t)s->stride, (size_t)(s->span * s->block), 16, 4);
}

eq_status eq_solve_covariance_emit(struct eq_list *list, const struct eq_solve_groups *s, struct eq_ref tiles,
                                   struct eq_ref mean, struct eq_ref a, struct eq_ref cov, struct eq_ref sigma)
{
    const struct eq_options text = options(list, s);
    const double entries = (double)eq_solve_matrix_elems(s);
    const struct eq_launch launch = {
        .source = "solve_ce",
        .options = text.text,
        .kernel = "covariance",
        .range = row_range(list, s),
        .cost = { entries * s->partials, 4.0 * entries * (s->partials + 2) },
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(tiles), EQ_REF(mean), EQ_REF(a), EQ_REF(cov), EQ_REF(sigma), EQ_I32(s->block),
                                  EQ_I32(s->blocks), EQ_I32(s->span), EQ_I32(s->group), EQ_I32(s->partials), EQ_I32(s->samples),
                                  EQ_F32(s->eps)));
}

// to = alpha x y + beta to, for every group.
static eq_status product(struct eq_list *list, const struct eq_solve_groups *s, float alpha, struct eq_ref x, struct eq_ref y,
                         float beta, struct eq_ref to)
{
    const int p = s->padded;
    const size_t step = (size_t)p * (size_t)p;
    return eq_list_gemm(list,
                        &(struct eq_gemm){ .m = p,
                                           .n = p,
                                           .k = p,
                                           .alpha = alpha,
                                           .beta = beta,
                                           .lda = p,
                                           .ldb = p,
                                           .ldc = p,
                                           .batch = s->groups,
                                           .stride_a = step,
                                           .stride_b = step,
                                           .stride_c = step },
                        x, y, to);
}

static eq_status newton_schulz_products(struct eq_list *list, const struct eq_solve_groups *s, struct eq_ref sigma,
                                        struct eq_ref normal, struct eq_ref trace, struct eq_ref powers, struct eq_ref scratch)
{
    const struct eq_options text = options(list, s);
    const struct eq_launch launch = {
        .source = "solve_ce",
        .options = text.text,
        .kernel = "newton_schulz_begin",
        .range = matrix_range(list, s),
    };
    const size_t elems = eq_solve_matrix_elems(s);
    const struct eq_ref square = scratch, cube = eq_ref_plus(scratch, elems);
    EQ_TRY(
        eq_list_kernel(list, &launch, EQ_ARGS(EQ_REF(sigma), EQ_REF(normal), EQ_REF(trace), EQ_REF(powers), EQ_I32(s->group))));
    for (int i = 0; i < s->iterations; i++) {
        const struct eq_ref x = eq_ref_plus(powers, elems * (size_t)i), next = eq_ref_plus(x, elems);
        EQ_TRY(product(list, s, 1.0f, x, x, 0.0f, square));
        EQ_TRY(product(list, s, 1.0f, square, x, 0.0f, cube));
        EQ_TRY(eq_list_copy(list, x, next, elems));
        EQ_TRY(product(list, s, -0.5f, cube, normal, 1.5f, next));
    }
    return EQ_OK;
}

eq_status eq_solve_newton_schulz_emit(struct eq_list *list, const struct eq_solve_groups *s, struct eq_ref sigma,
                                      struct eq_ref normal, struct eq_ref trace, struct eq_ref powers, struct eq_ref scratch)
{
    if (s->padded > LARGEST_IN_GROUP)
        return newton_schulz_products(list, s, sigma, normal, trace, powers, scratch);
    const struct eq_options text = options(list, s);
    const double entries = (double)eq_solve_matrix_elems(s);
    const struct eq_launch launch = {
        .source = "solve_ce",
        .options = text.text,
        .kernel = "newton_schulz",
        .range = matrix_range(list, s),
        .cost = { 6.0 * s->iterations * s->padded * entries, 4.0 * entries * (s->iterations + 3) },
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(sigma), EQ_REF(normal), EQ_REF(trace), EQ_REF(powers), EQ_REF(scratch),
                                  EQ_I32(s->group), EQ_I32(s->iterations)));
}

// dnormal, dpower and temporaries are matrices of all groups, one after the other, in scratch.
static eq_status newton_schulz_grad_products(struct eq_list *list, const struct eq_solve_groups *s,
                                             const struct eq_solve_newton_schulz_grad *r)
{
    const struct eq_options text = options(list, s);
    const size_t elems = eq_solve_matrix_elems(s);
    const struct eq_ref dnormal = r->scratch, dpower = eq_ref_plus(dnormal, elems), t = eq_ref_plus(dpower, elems);
    const struct eq_ref square = eq_ref_plus(t, elems), cube = eq_ref_plus(square, elems), tx = eq_ref_plus(cube, elems);
    const struct eq_launch begin = {
        .source = "solve_ce",
        .options = text.text,
        .kernel = "newton_schulz_grad_begin",
        .range = eq_range_1d(elems, 64),
    };
    const struct eq_launch end = {
        .source = "solve_ce",
        .options = text.text,
        .kernel = "newton_schulz_grad_end",
        .range = matrix_range(list, s),
    };
    EQ_TRY(eq_list_kernel(
        list, &begin,
        EQ_ARGS(EQ_REF(r->dmap), EQ_REF(r->x_weight), EQ_REF(dpower), EQ_REF(dnormal), EQ_I32(elems), EQ_I32(s->has_weight))));
    for (int i = s->iterations - 1; i >= 0; i--) {
        const struct eq_ref x = eq_ref_plus(r->powers, elems * (size_t)i);
        EQ_TRY(product(list, s, 1.0f, x, x, 0.0f, square));
        EQ_TRY(product(list, s, 1.0f, square, x, 0.0f, cube));
        EQ_TRY(product(list, s, -0.5f, dpower, r->normal, 0.0f, t));
        EQ_TRY(product(list, s, -0.5f, cube, dpower, 1.0f, dnormal));
        EQ_TRY(product(list, s, 1.0f, t, x, 0.0f, tx));
        EQ_TRY(product(list, s, 1.0f, t, square, 1.5f, dpower));
        EQ_TRY(product(list, s, 1.0f, x, tx, 1.0f, dpower));
        EQ_TRY(product(list, s, 1.0f, square, t, 1.0f, dpower));
    }
    return eq_list_kernel(list, &end,
                          EQ_ARGS(EQ_REF(dnormal), EQ_REF(r->normal), EQ_REF(r->trace), EQ_REF(r->a), EQ_REF(r->k),
                                  EQ_I32(s->group), EQ_I32(s->samples)));
}

eq_status eq_solve_newton_schulz_grad_emit(struct eq_list *list, const struct eq_solve_groups *s,
                                           const struct eq_solve_newton_schulz_grad *refs)
{
    const struct eq_solve_newton_schulz_grad *r = refs;
    if (s->padded > LARGEST_IN_GROUP)
        return newton_schulz_grad_products(list, s, r);
    const struct eq_options text = options(list, s);
    const double entries = (double)eq_solve_matrix_elems(s);
    const struct eq_launch launch = {
        .source = "solve_ce",
        .options = text.text,
        .kernel = "newton_schulz_grad",
        .range = matrix_range(list, s),
        .cost = { 16.0 * s->iterations * s->padded * entries, 4.0 * entries * (s->iterations + 3) },
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(r->dmap), EQ_REF(r->normal), EQ_REF(r->trace), EQ_REF(r->powers), EQ_REF(r->a),
                                  EQ_REF(r->x_weight), EQ_REF(r->k), EQ_REF(r->scratch), EQ_I32(s->group),
                                  EQ_I32(s->iterations), EQ_I32(s->samples), EQ_I32(s->has_weight)));
}

eq_status eq_solve_map_emit(struct eq_list *list, const struct eq_solve_groups *s, int ld, bool training, float momentum,
                            const struct eq_solve_map *refs)
{
    const struct eq_options text = options(list, s);
    const struct eq_launch launch = {
        .source = "solve_ce",
        .options = text.text,
        .kernel = "decorrelation_map",
        .range = tile_range(list, s),
        .cost = { 3.0 * (double)eq_solve_tile_elems(s), 8.0 * (double)eq_solve_tile_elems(s) },
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(refs->w), EQ_REF(refs->mean), EQ_REF(refs->a), EQ_REF(refs->b), EQ_REF(refs->x_weight),
                                  EQ_REF(refs->matrix), EQ_REF(refs->shift), EQ_REF(refs->run_mean), EQ_REF(refs->run_map),
                                  EQ_I32(ld), EQ_I32(s->block), EQ_I32(s->blocks), EQ_I32(s->span), EQ_I32(s->group),
                                  EQ_I32(s->channels), EQ_I32(s->stride), EQ_I32(training), EQ_I32(s->has_weight),
                                  EQ_F32(momentum)));
}

eq_status eq_solve_covariance_grad_emit(struct eq_list *list, const struct eq_solve_groups *s,
                                        const struct eq_solve_map_grad *refs)
{
    const struct eq_options text = options(list, s);
    const double entries = (double)eq_solve_matrix_elems(s);
    const struct eq_launch launch = {
        .source = "solve_ce",
        .options = text.text,
        .kernel = "covariance_grad",
        .range = row_range(list, s),
        .cost = { entries * s->partials, 4.0 * entries * (s->partials + 2) },
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(refs->tiles), EQ_REF(refs->a), EQ_REF(refs->b), EQ_REF(refs->sum), EQ_REF(refs->cross),
                                  EQ_REF(refs->dmap), EQ_I32(s->block), EQ_I32(s->blocks), EQ_I32(s->span), EQ_I32(s->group),
                                  EQ_I32(s->partials)));
}

eq_status eq_solve_map_grad_emit(struct eq_list *list, const struct eq_solve_groups *s, const struct eq_solve_map_grad *refs)
{
    const struct eq_options text = options(list, s);
    const struct eq_launch launch = {
        .source = "solve_ce",
        .options = text.text,
        .kernel = "decorrelation_map_grad",
        .range = tile_range(list, s),
        .cost = { 10.0 * (double)eq_solve_tile_elems(s), 28.0 * (double)eq_solve_tile_elems(s) },
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(refs->w), EQ_REF(refs->k), EQ_REF(refs->cov), EQ_REF(refs->cross), EQ_REF(refs->dmap),
                                  EQ_REF(refs->mean), EQ_REF(refs->a), EQ_REF(refs->sum), EQ_REF(refs->x_weight),
                                  EQ_REF(refs->matrix), EQ_REF(refs->slopes), EQ_REF(refs->matrix_beta),
                                  EQ_REF(refs->matrix_gamma), EQ_REF(refs->matrix_shift), EQ_REF(refs->by_weight),
                                  EQ_I32(s->block), EQ_I32(s->blocks), EQ_I32(s->span), EQ_I32(s->group), EQ_I32(s->channels),
                                  EQ_I32(s->stride), EQ_I32(s->samples), EQ_I32(s->has_weight)));
}

eq_status eq_solve_x_weight_grad_emit(struct eq_list *list, const struct eq_solve_groups *s, int images,
                                      struct eq_ref by_weight, struct eq_ref total, struct eq_ref spread,
                                      struct eq_ref x_weight, struct eq_ref dx_weight)
{
    const struct eq_options text = options(list, s);
    const size_t local = (size_t)group_size(list, s);
    const struct eq_launch launch = {
        .source = "solve_ce",
        .options = text.text,
        .kernel = "x_weight_grad",
        .range = eq_range_1d(local, local),
        .cost = { s->channels + images, 4.0 * (s->channels + images) },
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(by_weight), EQ_REF(total), EQ_REF(spread), EQ_REF(x_weight), EQ_REF(dx_weight),
                                  EQ_I32(s->channels), EQ_I32(images)));
}

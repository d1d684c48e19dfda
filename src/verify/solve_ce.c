// Solves of CE alone: covariance, newton_schulz and its gradient, with known values and against loops in double.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "op/solve.h"
#include "verify/check.h"

static struct eq_buffer *upload(const float *values, size_t elems)
{
    struct eq_buffer *buffer = NULL;
    float *host = eq_check_malloc(elems, sizeof *host);
    for (size_t i = 0; i < elems; i++)
        host[i] = values ? values[i] : NAN;
    EQ_CHECK_OK(eq_buffer_create(eq_check_device, elems * sizeof *host, &buffer));
    EQ_CHECK_OK(eq_ref_write(eq_ref_at(buffer, 0), host, elems, sizeof *host));
    free(host);
    return buffer;
}

static float *download(struct eq_buffer *buffer, size_t at, size_t elems)
{
    float *values = eq_check_malloc(elems, sizeof *values);
    EQ_CHECK_OK(eq_ref_read(eq_ref_at(buffer, at), values, elems, sizeof *values));
    return values;
}

static struct eq_solve_groups groups_of(int channels, int group, int iterations, int samples)
{
    const struct eq_tensor z = eq_tensor_blocked(1, channels, samples, 1, eq_check_device->target.block, 0);
    struct eq_solve_groups s = eq_solve_groups_make(&z, group);
    s.iterations = iterations;
    s.partials = 1;
    s.eps = 1e-5f;
    return s;
}

// ---- newton_schulz

struct newton_schulz {
    struct eq_buffer *sigma, *normal, *trace, *powers, *scratch;
};

static struct newton_schulz run_newton_schulz(const struct eq_solve_groups *s, const float *sigma)
{
    const size_t elems = eq_solve_matrix_elems(s);
    struct newton_schulz b = {
        upload(sigma, elems),
        upload(NULL, elems),
        upload(NULL, (size_t)s->groups),
        upload(NULL, elems * (size_t)(s->iterations + 1)),
        upload(NULL, eq_solve_scratch_elems(s)),
    };
    struct eq_list *list = NULL;
    EQ_CHECK_OK(eq_list_create(eq_check_device, &list));
    EQ_CHECK_OK(eq_solve_newton_schulz_emit(list, s, eq_ref_at(b.sigma, 0), eq_ref_at(b.normal, 0), eq_ref_at(b.trace, 0),
                                            eq_ref_at(b.powers, 0), eq_ref_at(b.scratch, 0)));
    EQ_CHECK_OK(eq_list_run(list));
    EQ_CHECK_OK(eq_device_finish(eq_check_device));
    eq_list_destroy(&list);
    return b;
}

static void free_newton_schulz(struct newton_schulz *b)
{
    eq_buffer_destroy(&b->sigma);
    eq_buffer_destroy(&b->normal);
    eq_buffer_destroy(&b->trace);
    eq_buffer_destroy(&b->powers);
    eq_buffer_destroy(&b->scratch);
}

// A white group, whatever its variance, has W = w * I.
static const struct {
    int group, iterations;
    double w;
} white[] = { { 16, 1, 1.46875 }, { 16, 2, 2.104112 }, { 16, 3, 2.865058 }, { 64, 3, 3.233893 } };

static void check_white(int index)
{
    const struct eq_solve_groups s = groups_of(2 * white[index].group, white[index].group, white[index].iterations, 8);
    const int g = s.group;
    const size_t elems = eq_solve_matrix_elems(&s);
    float *sigma = eq_check_calloc(elems, sizeof *sigma);
    for (int i = 0; i < s.groups * g; i++)
        sigma[(size_t)i * g + i % g] = i < g ? 1.0f : 7.5f;
    struct newton_schulz b = run_newton_schulz(&s, sigma);
    float *w = download(b.powers, elems * (size_t)s.iterations, elems);
    struct eq_check_comparison comparison = { .num = 0 };
    for (int i = 0; i < s.groups * g; i++)
        for (int j = 0; j < g; j++) {
            const double want = i % g == j ? white[index].w : 0;
            eq_check_compare(&comparison, (const int[4]){ 0, i / g, i % g, j }, (double)w[(size_t)i * g + j], want, 2e-6);
        }
    eq_check_compared(&comparison, "W [0, group, row, column]");
    free(w);
    free(sigma);
    free_newton_schulz(&b);
}

static const int sizes[] = { 16, 1, 3, 5, 8, 24, 32, 33, 40, 64, 68, 100 };

// A well-conditioned symmetric matrix for every group, zero in the padding.
static float *make_sigma(const struct eq_solve_groups *s)
{
    const int g = s->group, p = s->padded;
    float *sigma = eq_check_calloc(eq_solve_matrix_elems(s), sizeof *sigma);
    const uint64_t key = eq_random_key(9, 0, 0, "sigma");
    for (int k = 0; k < s->groups; k++)
        for (int i = 0; i < g; i++)
            for (int j = 0; j <= i; j++) {
                const double u = eq_random_unit(key, (uint64_t)((k * g + i) * g + j)) - 0.5;
                const float v = (float)(i == j ? 1 + u : u / g);
                sigma[(k * p + i) * p + j] = sigma[(k * p + j) * p + i] = v;
            }
    return sigma;
}

static void multiply(int n, const double *a, const double *b, double *to)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            double sum = 0;
            for (int k = 0; k < n; k++)
                sum += a[i * n + k] * b[k * n + j];
            to[i * n + j] = sum;
        }
}

// w [g, g] of sigma [p, p].
static void reference(int g, int p, int iterations, const double *sigma, double *w)
{
    double *n = eq_check_malloc((size_t)g * g, sizeof *n), *x = eq_check_malloc((size_t)g * g, sizeof *x),
           *y = eq_check_malloc((size_t)g * g, sizeof *y), trace = 0;
    for (int i = 0; i < g; i++)
        trace += sigma[i * p + i];
    for (int i = 0; i < g * g; i++) {
        n[i] = sigma[i / g * p + i % g] / trace;
        w[i] = i / g == i % g;
    }
    for (int t = 0; t < iterations; t++) {
        multiply(g, w, w, x);
        multiply(g, x, w, y);
        multiply(g, y, n, x);
        for (int i = 0; i < g * g; i++)
            w[i] = 1.5 * w[i] - 0.5 * x[i];
    }
    free(n);
    free(x);
    free(y);
}

static void check_random(int index)
{
    const struct eq_solve_groups s = groups_of(3 * sizes[index], sizes[index], 4, 8);
    const int g = s.group, p = s.padded;
    const size_t elems = eq_solve_matrix_elems(&s);
    float *sigma = make_sigma(&s);
    double *wide = eq_check_malloc(elems, sizeof *wide), *w = eq_check_malloc((size_t)g * g, sizeof *w);
    for (size_t i = 0; i < elems; i++)
        wide[i] = sigma[i];
    struct newton_schulz b = run_newton_schulz(&s, sigma);
    float *got = download(b.powers, elems * (size_t)s.iterations, elems);
    struct eq_check_comparison comparison = { .num = 0 };
    for (int k = 0; k < s.groups; k++) {
        reference(g, p, s.iterations, wide + (size_t)k * p * p, w);
        for (int i = 0; i < p; i++)
            for (int j = 0; j < p; j++) {
                const double want = i < g && j < g ? w[i * g + j] : 0, value = got[((size_t)k * p + i) * p + j];
                eq_check_compare(&comparison, (const int[4]){ 0, k, i, j }, value, want, 1e-5 * w[0]);
            }
    }
    eq_check_compared(&comparison, "W [0, group, row, column]");
    free(sigma);
    free(wide);
    free(w);
    free(got);
    free_newton_schulz(&b);
}

// K = (dsigma + dsigma^T) / samples * a_j, dsigma by central differences of sum(dmap * W).
static void check_gradient(int index)
{
    struct eq_solve_groups s = groups_of(2 * sizes[index], sizes[index], 3, 10);
    const int g = s.group, p = s.padded;
    const size_t elems = eq_solve_matrix_elems(&s);
    float *sigma = make_sigma(&s), *dmap = eq_check_calloc(elems, sizeof *dmap),
          *a = eq_check_malloc((size_t)s.stride, sizeof *a), x_weight = 0.3f;
    for (size_t i = 0; i < elems; i++)
        dmap[i] = (int)(i % (size_t)p) < g && (int)(i / (size_t)p) % p < g
                      ? (float)eq_random_normal(eq_random_key(9, 0, 0, "dmap"), i)
                      : 0;
    for (int i = 0; i < s.stride; i++)
        a[i] = i < s.channels ? 1.0f + 0.1f * (float)(i % 5) : 0;
    s.has_weight = true;
    struct newton_schulz b = run_newton_schulz(&s, sigma);
    struct eq_buffer *more[] = { upload(dmap, elems), upload(a, (size_t)s.stride), upload(&x_weight, 1), upload(NULL, elems) };
    struct eq_list *list = NULL;
    EQ_CHECK_OK(eq_list_create(eq_check_device, &list));
    EQ_CHECK_OK(eq_solve_newton_schulz_grad_emit(list, &s,
                                                 &(struct eq_solve_newton_schulz_grad){
                                                     .dmap = eq_ref_at(more[0], 0),
                                                     .normal = eq_ref_at(b.normal, 0),
                                                     .trace = eq_ref_at(b.trace, 0),
                                                     .powers = eq_ref_at(b.powers, 0),
                                                     .a = eq_ref_at(more[1], 0),
                                                     .x_weight = eq_ref_at(more[2], 0),
                                                     .k = eq_ref_at(more[3], 0),
                                                     .scratch = eq_ref_at(b.scratch, 0),
                                                 }));
    EQ_CHECK_OK(eq_list_run(list));
    EQ_CHECK_OK(eq_device_finish(eq_check_device));
    eq_list_destroy(&list);
    float *got = download(more[3], 0, elems);
    double *wide = eq_check_malloc(elems, sizeof *wide), *w = eq_check_malloc((size_t)g * g, sizeof *w);
    for (size_t i = 0; i < elems; i++)
        wide[i] = sigma[i];
    const double lambda = 1 / (1 + exp(-(double)x_weight));
    struct eq_check_comparison comparison = { .num = 0 };
    for (int at = 0; at < 6; at++) {
        const int k = at % s.groups, i = at * 7 % g, j = (at * 5 + 1) % g;
        double *m = wide + (size_t)k * p * p, d = 0;
        for (int side = -1; side <= 1; side += 2) {
            m[i * p + j] += side * 1e-5;
            m[j * p + i] += side * 1e-5; // the diagonal twice: dsigma + dsigma^T
            reference(g, p, s.iterations, m, w);
            for (int q = 0; q < g * g; q++)
                d += side * dmap[((size_t)k * p + q / g) * p + q % g] * w[q];
            m[i * p + j] -= side * 1e-5;
            m[j * p + i] -= side * 1e-5;
        }
        const double want = lambda * d / 2e-5 / s.samples * a[k * g + j], value = got[((size_t)k * p + i) * p + j];
        eq_check_compare(&comparison, (const int[4]){ 0, k, i, j }, value, want, 1e-5 * (fabs(want) + 1));
    }
    eq_check_compared(&comparison, "K [0, group, row, column]");
    for (int i = 0; i < 4; i++)
        eq_buffer_destroy(&more[i]);
    free_newton_schulz(&b);
    free(sigma);
    free(dmap);
    free(a);
    free(got);
    free(wide);
    free(w);
}

// ---- covariance

// Tiles of two partial sums with a sample each and one more; every channel has mean c / 8.
static void check_covariance(int index)
{
    enum { SAMPLES = 3 };
    struct eq_solve_groups s = groups_of(3 * sizes[index], sizes[index], 1, SAMPLES);
    const size_t tile = eq_solve_tile_elems(&s), elems = eq_solve_matrix_elems(&s);
    const int c = s.channels, p = s.padded, samples_of[2] = { 2, 1 };
    float *x = eq_check_malloc((size_t)(c * SAMPLES), sizeof *x), *tiles = eq_check_malloc(2 * tile, sizeof *tiles);
    float *mean = eq_check_calloc((size_t)s.stride, sizeof *mean), *a = eq_check_calloc((size_t)s.stride, sizeof *a);
    s.partials = 2;
    for (int i = 0; i < c; i++) {
        for (int k = 0; k < SAMPLES; k++) {
            x[i * SAMPLES + k] = (float)eq_random_normal(eq_random_key(9, 0, 0, "x"), (uint64_t)(i * SAMPLES + k));
            mean[i] += x[i * SAMPLES + k] / SAMPLES;
        }
        a[i] = 1 + 0.1f * (float)(i % 7);
    }
    // as moments_cross leaves them: below the diagonal nothing
    for (size_t i = 0; i < 2 * tile; i++)
        tiles[i] = NAN;
    for (int part = 0, from = 0; part < 2; from += samples_of[part++])
        for (int b = 0; b < s.blocks; b++)
            for (int j = 0; j < s.span; j++) {
                const int bj = b * s.block / s.group * s.group / s.block + j;
                for (int q = 0; q < s.block * s.block && bj >= b && bj < s.blocks; q++) {
                    const int ci = b * s.block + q / s.block, cj = bj * s.block + q % s.block;
                    double sum = 0;
                    for (int k = from; k < from + samples_of[part] && ci < c && cj < c; k++)
                        sum += (double)x[ci * SAMPLES + k] * x[cj * SAMPLES + k];
                    tiles[(size_t)part * tile + ((size_t)b * s.span + j) * s.block * s.block + q] = (float)sum;
                }
            }
    struct eq_buffer *b[] = { upload(tiles, 2 * tile), upload(mean, (size_t)s.stride), upload(a, (size_t)s.stride),
                              upload(NULL, elems), upload(NULL, elems) };
    struct eq_list *list = NULL;
    EQ_CHECK_OK(eq_list_create(eq_check_device, &list));
    EQ_CHECK_OK(eq_solve_covariance_emit(list, &s, eq_ref_at(b[0], 0), eq_ref_at(b[1], 0), eq_ref_at(b[2], 0),
                                         eq_ref_at(b[3], 0), eq_ref_at(b[4], 0)));
    EQ_CHECK_OK(eq_list_run(list));
    EQ_CHECK_OK(eq_device_finish(eq_check_device));
    eq_list_destroy(&list);
    float *cov = download(b[3], 0, elems), *sigma = download(b[4], 0, elems);
    struct eq_check_comparison covariances = { .num = 0 }, sigmas = { .num = 0 };
    for (size_t q = 0; q < elems; q++) {
        const int j = (int)(q % (size_t)p), i = (int)(q / (size_t)p) % p, first = (int)(q / (size_t)(p * p)) * s.group;
        double want = 0, scaled = 0;
        for (int k = 0; k < SAMPLES && i < s.group && j < s.group; k++)
            want += ((double)x[(first + i) * SAMPLES + k] - mean[first + i]) *
                    ((double)x[(first + j) * SAMPLES + k] - mean[first + j]) / SAMPLES;
        if (i < s.group && j < s.group)
            scaled = want * a[first + i] * a[first + j] + (i == j ? 1e-5 : 0);
        const int at[4] = { 0, first / s.group, i, j };
        eq_check_compare(&covariances, at, (double)cov[q], want, 3e-6);
        eq_check_compare(&sigmas, at, (double)sigma[q], scaled, 6e-6);
    }
    eq_check_compared(&covariances, "the covariance [0, group, row, column]");
    eq_check_compared(&sigmas, "sigma [0, group, row, column]");
    for (int i = 0; i < 5; i++)
        eq_buffer_destroy(&b[i]);
    free(x);
    free(tiles);
    free(mean);
    free(a);
    free(cov);
    free(sigma);
}

// ---- suite

struct run {
    void (*check)(int index);
    int index;
    const char *op;
    char name[32];
};

static void check_variant(void *user)
{
    const struct run *run = user;
    eq_check_begin(run->op, run->name);
    run->check(run->index);
}

// A case by the size of its groups. Small ones are below 16.
static void each_family(void (*check)(int index), int index, const char *op, int group, int limit)
{
    struct run run = { check, index, op, "" };
    snprintf(run.name, sizeof run.name, "groups of %d", group);
    if (!eq_check_is_small() || group < limit)
        eq_check_each_variant(false, check_variant, &run);
}

static void test_white(int index)
{
    each_family(check_white, index, "newton_schulz", white[index].group, index == 0 ? 17 : 0);
}

static void test_newton_schulz(int index)
{
    each_family(check_random, index, "newton_schulz", sizes[index], 16);
}

static void test_newton_schulz_grad(int index)
{
    each_family(check_gradient, index, "newton_schulz_grad", sizes[index], 16);
}

static void test_covariance(int index)
{
    each_family(check_covariance, index, "covariance", sizes[index], 16);
}

EQ_CHECK_SUITE(eq_suite_solve_ce, "solve_ce", { "white", test_white, sizeof white / sizeof *white },
               { "newton_schulz", test_newton_schulz, sizeof sizes / sizeof *sizes },
               { "newton_schulz_grad", test_newton_schulz_grad, sizeof sizes / sizeof *sizes },
               { "covariance", test_covariance, sizeof sizes / sizeof *sizes })

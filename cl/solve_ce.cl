// Solve of CE and BD: group covariance, Newton-Schulz towards its inverse square root, and the gradients of both.
//
// Matrices are [groups, GP, GP], zero beyond `group` rows and columns (GP = group rounded up to 4). Tiles are as in moments.cl
// and affine.cl: [blocks, span, block, block], a row of tiles for block b begins at block first(b).
// Newton-Schulz: one work-group of WG work-items per group; in local memory up to GP 32 (forward) or 20 (backward), above that
// in `scratch`. Groups over 64 channels are matrix products instead: solve_ce.c.
#ifndef GP
#define GP 16
#endif
#ifndef LANES
#define LANES 4 // columns a work-item computes at a time; divides GP
#endif
#ifndef WG
#define WG 64 // work-items per matrix, a power of two
#endif
#ifndef SLICES
#define SLICES 1 // work-items that share the partial tiles of an entry, a power of two; over 1 on GPUs
#endif
// GPUs wait long for a load, so that several should be under way; what a loop adds up keeps its order.
#if SLICES > 1
#define UNROLLED _Pragma("unroll 8")
#else
#define UNROLLED
#endif
#if LANES == 16
typedef float16 lanef;
typedef lanef __attribute__((aligned(4))) anyf;
#define LANE_LOAD(p) vload16(0, (p))
#define LANE_STORE(v, p) vstore16((v), 0, (p))
#else
typedef float4 lanef;
typedef lanef __attribute__((aligned(4))) anyf;
#define LANE_LOAD(p) vload4(0, (p))
#define LANE_STORE(v, p) vstore4((v), 0, (p))
#endif
#define GP2 (GP * GP)
#define EACH(q) for (int q = get_local_id(0) * LANES; q < GP2; q += WG * LANES)

static int first_block(int b, int block, int group)
{
    return b * block / group * group / block;
}

// lambda, the weight of the decorrelating branch: sigmoid(x_weight), 1 without one.
static float branch_weight(__global const float *x_weight, int has_weight)
{
    return has_weight ? 1.0f / (1.0f + exp(-x_weight[0])) : 1.0f;
}

#if SLICES > 1
#define SLICE ((int)get_local_id(2))
#define SLICED (16 * SLICES) // work-items of a group: 4 LANES columns, 4 rows, slices
// The sum of the slices, in a fixed order; slice 0 gets it.
static lanef slice_sum(lanef value, __local lanef *partial)
{
    const int item = get_local_id(0) + 4 * get_local_id(1) + 16 * SLICE;
    barrier(CLK_LOCAL_MEM_FENCE);
    partial[item] = value;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int reach = SLICES / 2; reach > 0; reach /= 2) {
        if (SLICE < reach)
            partial[item] += partial[item + 16 * reach];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    return partial[item];
}
#else
#define SLICE 0
#define SLICED 1
#define slice_sum(value, partial) ((void)(partial), (value))
#endif

// Sum of a tile entry over every SLICES-th of `num` partial tiles, in order; row and column are channels.
static float tile_sum(__global const float *tiles, int row, int column, int block, int blocks, int span, int group, int num)
{
    const int b = row / block, j = column / block - first_block(b, block, group);
    const size_t image = (size_t)blocks * span * block * block;
    __global const float *at = tiles + ((size_t)(b * span + j) * block + row % block) * block + column % block;
    float sum = 0.0f;
    UNROLLED
    for (int i = SLICE; i < num; i += SLICES)
        sum += at[i * image];
    return sum;
}

// LANES sums side by side, from column on.
static lanef tile_sums(__global const float *tiles, int row, int column, int block, int blocks, int span, int group, int num)
{
    const int b = row / block, j = column / block - first_block(b, block, group);
    const size_t image = (size_t)blocks * span * block * block;
    __global const float *at = tiles + ((size_t)(b * span + j) * block + row % block) * block + column % block;
    lanef sum = (lanef)(0.0f);
    UNROLLED
    for (int i = SLICE; i < num; i += SLICES)
        sum += *(__global const anyf *)(at + i * image);
    return sum;
}

// Sum over the work-items of a matrix, in a fixed order; all get it. Once in a kernel: `partial` is not waited for.
static float group_sum(float value, __local float *partial)
{
    const int item = get_local_id(0);
    partial[item] = value;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int reach = WG / 2; reach > 0; reach /= 2) {
        if (item < reach)
            partial[item] += partial[item + reach];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    return partial[0];
}

// Whether LANES columns of a group lie in one row of a tile.
static bool is_aligned(int block, int group)
{
    return group % LANES == 0 && block % LANES == 0;
}

// Group covariance of z, and of the normalised activation: sigma = a_i a_j cov + eps on the diagonal.
//   tiles  f32 [num, blocks, span, block, block]  read    cross-products of z - k, upper triangle of tiles
//   mean, a  f32 [stride]                         read
//   cov, sigma  f32 [groups, GP, GP]              write
// Work-items: LANES columns, rows of all matrices, SLICES.
__kernel void covariance(EQ_IN(float, tiles), EQ_IN(float, mean), EQ_IN(float, a), EQ_BUF(float, cov), EQ_BUF(float, sigma),
                         int block, int blocks, int span, int group, int num, int samples, float eps)
{
    EQ_IN_PTR(float, tiles);
    EQ_IN_PTR(float, mean);
    EQ_IN_PTR(float, a);
    EQ_PTR(float, cov);
    EQ_PTR(float, sigma);
    __local lanef partial[SLICED];
    const int row = get_global_id(1), i = row % GP, first = row / GP * group, ci = first + i;
    for (int begin = 0; begin < GP; begin += get_global_size(0) * LANES) {
        const int j0 = begin + get_global_id(0) * LANES, end = min(j0 + LANES, GP);
        lanef sums = (lanef)(0.0f);
        if (is_aligned(block, group) && i < group && j0 < group && (first + j0) / block >= ci / block)
            sums = tile_sums(tiles, ci, first + j0, block, blocks, span, group, num);
        else
            for (int j = j0; j < end && i < group && j < group; j++)
                ((float *)&sums)[j - j0] =
                    tile_sum(tiles, min(ci, first + j), max(ci, first + j), block, blocks, span, group, num);
        sums = slice_sum(sums, partial);
        for (int j = j0; SLICE == 0 && j < end; j++) {
            float v = 0.0f, s = 0.0f;
            if (i < group && j < group) {
                const int cj = first + j;
                v = ((const float *)&sums)[j - j0] / samples - mean[ci] * mean[cj];
                s = EQ_MAD(v, a[ci] * a[cj], i == j ? eps : 0.0f);
            }
            cov[(size_t)row * GP + j] = v;
            sigma[(size_t)row * GP + j] = s;
        }
    }
}

// sigma / its trace, the trace, and P_0 = 1: what Newton-Schulz begins with.
static void begin(__global const float *sigma, __global float *normal, __global float *trace, __global float *power, int group,
                  __local float *partial)
{
    float sum = 0.0f;
    for (int i = get_local_id(0); i < group; i += WG)
        sum += sigma[i * GP + i];
    sum = group_sum(sum, partial);
    if (get_local_id(0) == 0)
        trace[0] = sum;
    for (int q = get_local_id(0); q < GP2; q += WG) {
        normal[q] = sigma[q] / sum;
        power[q] = q / GP == q % GP && q / GP < group ? 1.0f : 0.0f;
    }
}

// One work-group per group: see begin(). For groups that go on as matrix products.
__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void newton_schulz_begin(EQ_IN(float, sigma), EQ_BUF(float, normal), EQ_BUF(float, trace), EQ_BUF(float, powers),
                                  int group)
{
    EQ_IN_PTR(float, sigma);
    EQ_PTR(float, normal);
    EQ_PTR(float, trace);
    EQ_PTR(float, powers);
    const size_t at = (size_t)get_group_id(0) * GP2;
    __local float partial[WG];
    begin(sigma + at, normal + at, trace + get_group_id(0), powers + at, group, partial);
}

// The end of the backward solve for a group: from dn = gradient of sigma / trace to
// K = (dsigma + dsigma^T) / samples * a_j, which acts on z - mu.
static void end_grad(__global const float *dn, __global const float *normal, float trace, __global const float *a,
                     __global float *k, int group, float samples, __local float *partial)
{
    float inner = 0.0f;
    UNROLLED
    for (int q = get_local_id(0); q < GP2; q += WG)
        inner = EQ_MAD(dn[q], normal[q], inner);
    inner = group_sum(inner, partial);
    for (int q = get_local_id(0); q < GP2; q += WG) {
        const int i = q / GP, j = q % GP;
        const float d = dn[q] + dn[j * GP + i] - (i == j ? 2.0f * inner : 0.0f);
        k[q] = i < group && j < group ? d / (trace * samples) * a[j] : 0.0f;
    }
}

// One work-group per group: see end_grad().
__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void newton_schulz_grad_end(EQ_IN(float, dnormal), EQ_IN(float, normal), EQ_IN(float, trace), EQ_IN(float, a),
                                     EQ_BUF(float, k), int group, int samples)
{
    EQ_IN_PTR(float, dnormal);
    EQ_IN_PTR(float, normal);
    EQ_IN_PTR(float, trace);
    EQ_IN_PTR(float, a);
    EQ_PTR(float, k);
    __local float partial[WG];
    const int g = get_group_id(0);
    const size_t at = (size_t)g * GP2;
    end_grad(dnormal + at, normal + at, trace[g], a + g * group, k + at, group, samples, partial);
}

// What the backward solve begins with: gradient of W, and zero for that of sigma / trace. Work-items: entries of all matrices.
__kernel void newton_schulz_grad_begin(EQ_IN(float, dmap), EQ_IN(float, x_weight), EQ_BUF(float, dpower),
                                       EQ_BUF(float, dnormal), int num, int has_weight)
{
    EQ_IN_PTR(float, dmap);
    EQ_IN_PTR(float, x_weight);
    EQ_PTR(float, dpower);
    EQ_PTR(float, dnormal);
    const int q = get_global_id(0);
    if (q >= num)
        return;
    dpower[q] = branch_weight(x_weight, has_weight) * dmap[q];
    dnormal[q] = 0.0f;
}

#if GP <= 64

// Rows of a product that a work-item does together: a load of y serves all of them where matrices are not in local memory.
#if SLICES > 1 && GP > 32
#define TALL 4
#else
#define TALL 1
#endif

// Each entry (LANES at a time, at q) of the product x y: body sees `v`. x and y are in any address space.
#define PRODUCT(x, y, body)                                                                                                \
    for (int piece_ = get_local_id(0); piece_ < GP2 / (LANES * TALL); piece_ += WG) {                                      \
        const int row_ = piece_ / (GP / LANES) * TALL * GP, column_ = piece_ % (GP / LANES) * LANES;                       \
        lanef sums_[TALL];                                                                                                 \
        for (int t_ = 0; t_ < TALL; t_++)                                                                                  \
            sums_[t_] = (lanef)(0.0f);                                                                                     \
        for (int i_ = 0; i_ < GP; i_++)                                                                                    \
            for (int t_ = 0; t_ < TALL; t_++)                                                                              \
                sums_[t_] = EQ_MAD((lanef)((x)[row_ + t_ * GP + i_]), LANE_LOAD((y) + i_ * GP + column_), sums_[t_]);      \
        for (int t_ = 0; t_ < TALL; t_++) {                                                                                \
            const int q = row_ + t_ * GP + column_;                                                                        \
            const lanef v = sums_[t_];                                                                                     \
            body;                                                                                                          \
        }                                                                                                                  \
    }

#if GP <= 32
#define FORWARD_MATRICES                                                                                                   \
    __local float x[GP2], y[GP2], z[GP2];                                                                                  \
    (void)scratch_base;                                                                                                    \
    (void)scratch_at
#else
#define FORWARD_MATRICES                                                                                                   \
    EQ_PTR(float, scratch);                                                                                                \
    __global float *x = scratch + get_group_id(0) * (3 * GP2), *y = x + GP2, *z = y + GP2
#endif
#define FENCE barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)

// P_{k+1} = 1.5 P_k - 0.5 P_k^3 normal, from P_0 = 1.
//   sigma    f32 [groups, GP, GP]                   read
//   normal   f32 [groups, GP, GP]                   write   sigma / trace
//   trace    f32 [groups]                           write
//   powers   f32 [iterations + 1, groups, GP, GP]   write   P_0 .. P_T; the last one is W
//   scratch  f32 [groups, 3, GP, GP]                        GP over 32
__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void newton_schulz(EQ_IN(float, sigma), EQ_BUF(float, normal), EQ_BUF(float, trace), EQ_BUF(float, powers),
                            EQ_BUF(float, scratch), int group, int iterations)
{
    EQ_IN_PTR(float, sigma);
    EQ_PTR(float, normal);
    EQ_PTR(float, trace);
    EQ_PTR(float, powers);
    FORWARD_MATRICES;
    const size_t at = (size_t)get_group_id(0) * GP2, step = (size_t)get_num_groups(0) * GP2;
    __local float partial[WG];
    begin(sigma + at, normal + at, trace + get_group_id(0), powers + at, group, partial);
    FENCE;
    EACH(q) LANE_STORE(LANE_LOAD(powers + at + q), x + q);
    FENCE;
    for (int i = 0; i < iterations; i++) {
        __global float *next = powers + at + (i + 1) * step;
        PRODUCT(x, x, LANE_STORE(v, y + q));
        FENCE;
        PRODUCT(y, x, LANE_STORE(v, z + q));
        FENCE;
        PRODUCT(z, normal + at, LANE_STORE(1.5f * LANE_LOAD(x + q) - 0.5f * v, y + q));
        FENCE;
        EACH(q)
        {
            LANE_STORE(LANE_LOAD(y + q), x + q);
            LANE_STORE(LANE_LOAD(y + q), next + q);
        }
        FENCE;
    }
}

#if GP <= 20
#define BACKWARD_MATRICES __local float dp[GP2], t[GP2], x2[GP2], x3[GP2], tx[GP2]
#else
#define BACKWARD_MATRICES                                                                                           \
    __global float *dp = scratch + get_group_id(0) * (6 * GP2) + GP2, *t = dp + GP2, *x2 = t + GP2, *x3 = x2 + GP2, \
                   *tx = x3 + GP2
#endif

// Gradient of newton_schulz and of dividing by the trace. Powers are symmetric, so transposes are left out.
//   dmap     f32 [groups, GP, GP]   read    gradient of the map; times lambda it is that of W
//   normal, trace, powers           read    as newton_schulz wrote them
//   a        f32 [stride]           read
//   k        f32 [groups, GP, GP]   write   see end_grad()
//   scratch  f32 [groups, 6, GP, GP]        first matrix: gradient of normal; the others for GP over 20
__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void newton_schulz_grad(EQ_IN(float, dmap), EQ_IN(float, normal), EQ_IN(float, trace), EQ_IN(float, powers),
                                 EQ_IN(float, a), EQ_IN(float, x_weight), EQ_BUF(float, k), EQ_BUF(float, scratch), int group,
                                 int iterations, int samples, int has_weight)
{
    EQ_IN_PTR(float, dmap);
    EQ_IN_PTR(float, normal);
    EQ_IN_PTR(float, trace);
    EQ_IN_PTR(float, powers);
    EQ_IN_PTR(float, a);
    EQ_IN_PTR(float, x_weight);
    EQ_PTR(float, k);
    EQ_PTR(float, scratch);
    BACKWARD_MATRICES;
    __local float partial[WG];
    const int g = get_group_id(0);
    const size_t at = (size_t)g * GP2, step = (size_t)get_num_groups(0) * GP2;
    const float lambda = branch_weight(x_weight, has_weight);
    __global float *dn = scratch + (size_t)g * (6 * GP2);
    __global const float *s = normal + at;
    EACH(q)
    {
        LANE_STORE(lambda * LANE_LOAD(dmap + at + q), dp + q);
        LANE_STORE((lanef)(0.0f), dn + q);
    }
    FENCE;
    for (int i = iterations - 1; i >= 0; i--) {
        __global const float *x = powers + at + i * step;
        PRODUCT(x, x, LANE_STORE(v, x2 + q));
        PRODUCT(dp, s, LANE_STORE(-0.5f * v, t + q));
        FENCE;
        PRODUCT(x2, x, LANE_STORE(v, x3 + q));
        PRODUCT(t, x, LANE_STORE(v, tx + q));
        FENCE;
        PRODUCT(x3, dp, LANE_STORE(LANE_LOAD(dn + q) - 0.5f * v, dn + q));
        FENCE;
        PRODUCT(t, x2, LANE_STORE(EQ_MAD((lanef)(1.5f), LANE_LOAD(dp + q), v), dp + q));
        PRODUCT(x, tx, LANE_STORE(LANE_LOAD(dp + q) + v, dp + q));
        PRODUCT(x2, t, LANE_STORE(LANE_LOAD(dp + q) + v, dp + q));
        FENCE;
    }
    end_grad(dn, s, trace[g], a + g * group, k + at, group, samples, partial);
}
#endif // GP <= 64

// The map as the affine pass reads it, and running state.
//   w         f32 [groups, ld, ld]           read    W (ld = GP), or its running mean (ld = group)
//   mean, a, b  f32 [stride]                 read
//   matrix    f32 [blocks, span, block, block]  write   lambda W_oi a_i at row i, column o
//   shift     f32 [stride]                   write   lambda W b
//   run_mean  f32 [channels], run_map f32 [groups, group, group]    updated when training
// Work-items: output channel, and input channels of its row of tiles, as many apart as there are.
__kernel void decorrelation_map(EQ_IN(float, w), EQ_IN(float, mean), EQ_IN(float, a), EQ_IN(float, b), EQ_IN(float, x_weight),
                                EQ_BUF(float, matrix), EQ_BUF(float, shift), EQ_BUF(float, run_mean), EQ_BUF(float, run_map),
                                int ld, int block, int blocks, int span, int group, int channels, int stride, int training,
                                int has_weight, float momentum)
{
    EQ_IN_PTR(float, w);
    EQ_IN_PTR(float, mean);
    EQ_IN_PTR(float, a);
    EQ_IN_PTR(float, b);
    EQ_IN_PTR(float, x_weight);
    EQ_PTR(float, matrix);
    EQ_PTR(float, shift);
    EQ_PTR(float, run_mean);
    EQ_PTR(float, run_map);
    const int o = get_global_id(0), g = o / group, first = first_block(o / block, block, group) * block;
    if (o >= stride)
        return;
    const float lambda = branch_weight(x_weight, has_weight);
    __global const float *w_row = w + ((size_t)g * ld + o % group) * ld;
    for (int row = get_global_id(1); row < span * block; row += get_global_size(1)) {
        const int in = first + row;
        const bool same = o < channels && in < channels && in / group == g;
        if (o < blocks * block)
            matrix[((size_t)(o / block) * span * block + row) * block + o % block] =
                same ? lambda * w_row[in % group] * a[in] : 0.0f;
        if (same && training) {
            __global float *running = run_map + (size_t)o * group + in % group;
            *running = EQ_MAD(momentum, w_row[in % group] - *running, *running);
        }
    }
    if (get_global_id(1) > 0)
        return;
    float sum = 0.0f;
    UNROLLED
    for (int j = 0; j < group && o < channels; j++)
        sum = EQ_MAD(w_row[j], b[g * group + j], sum);
    shift[o] = lambda * sum;
    if (training && o < channels)
        run_mean[o] = EQ_MAD(momentum, EQ_MAD(a[o], mean[o], b[o]) - run_mean[o], run_mean[o]);
}

// Gradient of the map, summed over the images: product = dp (z - k)^T per group, dmap = dp x^T.
//   tiles     f32 [num, blocks, span, block, block]   read    cross-products dp_i (z - k)_j
//   a, b, sum f32 [stride]                            read    sum: of dp
//   product, dmap  f32 [groups, GP, GP]               write
__kernel void covariance_grad(EQ_IN(float, tiles), EQ_IN(float, a), EQ_IN(float, b), EQ_IN(float, sum), EQ_BUF(float, product),
                              EQ_BUF(float, dmap), int block, int blocks, int span, int group, int num)
{
    EQ_IN_PTR(float, tiles);
    EQ_IN_PTR(float, a);
    EQ_IN_PTR(float, b);
    EQ_IN_PTR(float, sum);
    EQ_PTR(float, product);
    EQ_PTR(float, dmap);
    __local lanef partial[SLICED];
    const int row = get_global_id(1), i = row % GP, first = row / GP * group, ci = first + i;
    for (int begin = 0; begin < GP; begin += get_global_size(0) * LANES) {
        const int j0 = begin + get_global_id(0) * LANES, end = min(j0 + LANES, GP);
        lanef sums = (lanef)(0.0f);
        if (is_aligned(block, group) && i < group && j0 < group)
            sums = tile_sums(tiles, ci, first + j0, block, blocks, span, group, num);
        else
            for (int j = j0; j < end && i < group && j < group; j++)
                ((float *)&sums)[j - j0] = tile_sum(tiles, ci, first + j, block, blocks, span, group, num);
        sums = slice_sum(sums, partial);
        for (int j = j0; SLICE == 0 && j < end; j++) {
            const int cj = first + j;
            float v = 0.0f, d = 0.0f;
            if (i < group && j < group) {
                v = ((const float *)&sums)[j - j0];
                d = EQ_MAD(v, a[cj], sum[ci] * b[cj]);
            }
            product[(size_t)row * GP + j] = v;
            dmap[(size_t)row * GP + j] = d;
        }
    }
}

// The backward map as the affine pass reads it, and what the matrices add to the sums over a channel.
//   w, k, cov, product, dmap  f32 [groups, GP, GP]      read
//   mean, a, sum              f32 [stride]              read
//   matrix    f32 [blocks, span, block, block]          write   lambda a_o W_io at row i, column o
//   slopes    f32 [blocks, span, block, block]          write   a_o K_oi
//   matrix_beta, matrix_gamma, matrix_shift  f32 [stride]  write  sums of dx and dx (z - mu); K mu
//   by_weight f32 [stride]                              write   a channel's part of the gradient of lambda
// Work-items as for decorrelation_map.
__kernel void decorrelation_map_grad(EQ_IN(float, w), EQ_IN(float, k), EQ_IN(float, cov), EQ_IN(float, product),
                                     EQ_IN(float, dmap), EQ_IN(float, mean), EQ_IN(float, a), EQ_IN(float, sum),
                                     EQ_IN(float, x_weight), EQ_BUF(float, matrix), EQ_BUF(float, slopes),
                                     EQ_BUF(float, matrix_beta), EQ_BUF(float, matrix_gamma), EQ_BUF(float, matrix_shift),
                                     EQ_BUF(float, by_weight), int block, int blocks, int span, int group, int channels,
                                     int stride, int samples, int has_weight)
{
    EQ_IN_PTR(float, w);
    EQ_IN_PTR(float, k);
    EQ_IN_PTR(float, cov);
    EQ_IN_PTR(float, product);
    EQ_IN_PTR(float, dmap);
    EQ_IN_PTR(float, mean);
    EQ_IN_PTR(float, a);
    EQ_IN_PTR(float, sum);
    EQ_IN_PTR(float, x_weight);
    EQ_PTR(float, matrix);
    EQ_PTR(float, slopes);
    EQ_PTR(float, matrix_beta);
    EQ_PTR(float, matrix_gamma);
    EQ_PTR(float, matrix_shift);
    EQ_PTR(float, by_weight);
    const int o = get_global_id(0), g = o / group, i = o % group, first = first_block(o / block, block, group) * block;
    if (o >= stride)
        return;
    const float lambda = branch_weight(x_weight, has_weight);
    const size_t at = (size_t)g * GP2;
    for (int row = get_global_id(1); row < span * block && o < blocks * block; row += get_global_size(1)) {
        const int in = first + row, j = in % group;
        const bool same = o < channels && in < channels && in / group == g;
        const size_t entry = ((size_t)(o / block) * span * block + row) * block + o % block;
        matrix[entry] = same ? lambda * a[o] * w[at + j * GP + i] : 0.0f;
        slopes[entry] = same ? a[o] * k[at + i * GP + j] : 0.0f;
    }
    if (get_global_id(1) > 0)
        return;
    float beta_sum = 0.0f, product_sum = 0.0f, cov_sum = 0.0f, mean_sum = 0.0f, weight_sum = 0.0f;
    UNROLLED
    for (int r = 0; r < group && o < channels; r++) {
        const int c = g * group + r;
        const float w_r = w[at + r * GP + i], k_r = k[at + i * GP + r];
        beta_sum = EQ_MAD(w_r, sum[c], beta_sum);
        product_sum = EQ_MAD(w_r, product[at + r * GP + i] - sum[c] * mean[o], product_sum);
        cov_sum = EQ_MAD(k_r, cov[at + r * GP + i], cov_sum);
        mean_sum = EQ_MAD(k_r, mean[c], mean_sum);
        weight_sum = EQ_MAD(dmap[at + i * GP + r], w[at + i * GP + r], weight_sum);
    }
    matrix_beta[o] = lambda * beta_sum;
    matrix_gamma[o] = EQ_MAD(lambda, product_sum, samples * cov_sum);
    matrix_shift[o] = o < channels ? a[o] * mean_sum : 0.0f;
    by_weight[o] = weight_sum;
}

// Gradient of x_weight: one work-group.
//   by_weight f32 [stride], image_total f32 [n], spread f32 [1]   read    image_total: sum of dp x y over an image's channels
//   dx_weight f32 [1]                                             write
__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void x_weight_grad(EQ_IN(float, by_weight), EQ_IN(float, image_total), EQ_IN(float, spread), EQ_IN(float, x_weight),
                   EQ_BUF(float, dx_weight), int channels, int images)
{
    EQ_IN_PTR(float, by_weight);
    EQ_IN_PTR(float, image_total);
    EQ_IN_PTR(float, spread);
    EQ_IN_PTR(float, x_weight);
    EQ_PTR(float, dx_weight);
    __local float partial[WG];
    const int item = get_local_id(0);
    float sum = 0.0f;
    UNROLLED
    for (int c = item; c < channels; c += WG)
        sum += by_weight[c];
    for (int n = item; n < images; n += WG)
        sum -= image_total[n] / spread[0];
    sum = group_sum(sum, partial);
    const float lambda = branch_weight(x_weight, 1);
    if (item == 0)
        dx_weight[0] = sum * lambda * (1.0f - lambda);
}

// Solve, the part that every unit has: batch norm's statistics and constants, and the end of the backward solve.
//
// Arrays over channels have `stride` entries (channels rounded up, zero beyond `channels`); [n] of them where it says so.
// SIMT 0: one work-item does LANES channels; sums run over images, then parts, in order. SIMT 1: a work-group of WG work-items
// does CHANNELS of them, a sector of memory; SLICES work-items share a channel's images, and the parts of an image where images
// are few, and add up what each has as a tree.
#ifndef SIMT
#define SIMT 0
#endif
#if SIMT
#ifndef WG
#define WG 256 // work-items of a group, a power of two, 16 at least
#endif
#define CHANNELS 8
#define SLICES (WG / CHANNELS)
#define CHANNEL ((int)(get_group_id(0) * CHANNELS + get_local_id(0) % CHANNELS))
#define SLICE ((int)get_local_id(0) / CHANNELS)
#define AT_ONCE 4 // parts whose loads are under way together
#define LANES 1
typedef float lanef;
#define LANE_LOAD(p) (*(p))
#define LANE_STORE(v, p) (*(p) = (v))
#define LANE_INDEX(c) ((float)(c))
#else
#undef WG
#define WG 1
#define SLICES 1
#define CHANNEL ((int)get_global_id(0) * LANES)
#define SLICE 0
#define AT_ONCE 1
#define LANES 16
typedef float16 lanef;
typedef lanef __attribute__((aligned(4))) anyf; // vstore16 would be cut into pieces by PoCL
#define LANE_LOAD(p) (*(__global const anyf *)(p))
#define LANE_STORE(v, p) (*(__global anyf *)(p) = (v))
#define LANE_INDEX(c) ((float16)(c) + (float16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))
#endif

// Arrays over the real channels, not padded: zero beyond them.
static lanef load_channels(__global const float *p, int c, int channels)
{
    if (c + LANES <= channels)
        return LANE_LOAD(p + c);
    lanef v = (lanef)(0.0f);
    for (int i = 0; i < LANES && c + i < channels; i++)
        ((float *)&v)[i] = p[c + i];
    return v;
}

static void store_channels(lanef v, __global float *p, int c, int channels)
{
    if (c + LANES <= channels)
        LANE_STORE(v, p + c);
    else
        for (int i = 0; i < LANES && c + i < channels; i++)
            p[c + i] = ((const float *)&v)[i];
}

// v, but zero beyond the real channels, whatever stood there.
static lanef only_channels(lanef v, int c, int channels)
{
    return select((lanef)(0.0f), v, isless(LANE_INDEX(c), (lanef)((float)channels)));
}

// How many slices share an image, a power of two: more than one where each image has that many, so that all are done at once.
static int image_sharers(int images)
{
    int num = 1;
    while (SLICES > 1 && 2 * num * images <= SLICES)
        num *= 2;
    return num;
}

#if SIMT
// Each of `num` values, summed over `slices` neighbouring slices in a fixed order; all of these get the sums.
static void slice_sums(lanef *values, int num, int slices, __local float *partial)
{
    const int item = get_local_id(0), at = item / CHANNELS % slices;
    if (slices == 1)
        return;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = 0; i < num; i++)
        partial[i * WG + item] = values[i];
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int reach = slices / 2; reach > 0; reach /= 2) {
        for (int i = 0; i < num && at < reach; i++)
            partial[i * WG + item] += partial[i * WG + item + reach * CHANNELS];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    for (int i = 0; i < num; i++)
        values[i] = partial[i * WG + item - at * CHANNELS];
}
#else
#define slice_sums(values, num, slices, partial) (void)(partial)
#endif

// Both sums of image n over its parts, which `sharers` slices share; zero where there is no such image.
//   sums  f32 [images, parts, 2, stride]   read
static void image_sums(__global const float *sums, int n, int images, int parts, int sharers, int channels, int stride,
                       lanef *both, __local float *partial)
{
    const int c = CHANNEL, slice = SLICE;
    __global const float *image = sums + (size_t)min(n, images - 1) * parts * 2 * stride + c;
    both[0] = both[1] = (lanef)(0.0f);
    for (int first = slice % sharers; first < parts && n < images; first += AT_ONCE * sharers) {
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const int part = first + i * sharers;
            __global const float *at = image + (size_t)min(part, parts - 1) * 2 * stride; // no branch around the loads
            const int last = part < parts ? channels : 0;
            both[0] += only_channels(LANE_LOAD(at), c, last);
            both[1] += only_channels(LANE_LOAD(at + stride), c, last);
        }
    }
    slice_sums(both, 2, sharers, partial);
}

// Forward.
//   z         f32                        read    its first pixel is the pivot k, where there are sums
//   sums      f32 [n, parts, 2, stride]  read    of z - k and (z - k)^2; absent in evaluation without an instance part
//   gamma, beta, run_mean, run_var       f32 [channels]; run_* are updated when training
//   pivot     write  k; the running mean in evaluation without sums
//   mean      write  mu - k
//   inverse   write  1 / sqrt(variance + eps)
//   a, b      write  x = a (z - k) + b is the normalised activation
//   image_mean [n], image_var [n]  write  of z - k per image, unbiased      (instance != 0)
//   image_value [n]                write  gate's input: variance (instance 1) or mean (instance 2) of x per image and channel
//   value_sum                      write  sum of image_value over the images
__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void statistics(EQ_IN(float, z), EQ_IN(float, sums), EQ_IN(float, gamma), EQ_IN(float, beta), EQ_BUF(float, run_mean),
                EQ_BUF(float, run_var), EQ_BUF(float, pivot), EQ_BUF(float, mean), EQ_BUF(float, inverse), EQ_BUF(float, a),
                EQ_BUF(float, b), EQ_BUF(float, image_mean), EQ_BUF(float, image_var), EQ_BUF(float, image_value),
                EQ_BUF(float, value_sum), int z_plane, int block, int images, int parts, int channels, int stride, int pixels,
                int training, int has_sums, int instance, float eps, float momentum)
{
    EQ_IN_PTR(float, z);
    EQ_IN_PTR(float, sums);
    EQ_IN_PTR(float, gamma);
    EQ_IN_PTR(float, beta);
    EQ_PTR(float, run_mean);
    EQ_PTR(float, run_var);
    EQ_PTR(float, pivot);
    EQ_PTR(float, mean);
    EQ_PTR(float, inverse);
    EQ_PTR(float, a);
    EQ_PTR(float, b);
    EQ_PTR(float, image_mean);
    EQ_PTR(float, image_var);
    EQ_PTR(float, image_value);
    EQ_PTR(float, value_sum);
    __local float partial[2 * WG];
    const int c = CHANNEL, slice = SLICE, sharers = image_sharers(images), across = SLICES / sharers;
    const bool has_images = slice % sharers == 0;
    // In training the slice that writes them is the only one that reads them.
    const int known = slice == 0 || !training ? channels : 0;
    const lanef old_mean = load_channels(run_mean, c, known), old_var = load_channels(run_var, c, known);
    lanef k = old_mean, total[2] = { (lanef)(0.0f), (lanef)(0.0f) };
    for (int i = 0; i < LANES && c + i < channels && has_sums; i++)
        ((float *)&k)[i] = z[(size_t)((c + i) / block) * z_plane + (c + i) % block];
    for (int first = 0; first < images && has_sums; first += across) {
        const int n = first + slice / sharers;
        lanef image[2];
        image_sums(sums, n, images, parts, sharers, channels, stride, image, partial);
        if (!has_images || n >= images)
            continue;
        total[0] += image[0];
        total[1] += image[1];
        if (instance) {
            const lanef m = image[0] / pixels;
            LANE_STORE(m, image_mean + n * stride + c);
            LANE_STORE(EQ_FROM_0(image[1] - image[0] * m, lanef) / (lanef)(max(pixels - 1, 1)), image_var + n * stride + c);
        }
    }
    slice_sums(total, 2, SLICES, partial);
    const float samples = (float)images * pixels;
    lanef mu = total[0] / samples, var = EQ_FROM_0(total[1] / samples - mu * mu, lanef);
    if (slice == 0 && training) {
        store_channels(EQ_MAD((lanef)(momentum), mu + k - old_mean, old_mean), run_mean, c, channels);
        store_channels(EQ_MAD((lanef)(momentum), var * (samples / (samples - 1.0f)) - old_var, old_var), run_var, c, channels);
    }
    if (!training) {
        mu = old_mean - k;
        var = old_var;
    }
    const lanef inv = only_channels(1.0f / sqrt(var + eps), c, channels), scale = load_channels(gamma, c, channels) * inv;
    const lanef shift = load_channels(beta, c, channels) - scale * mu;
    if (slice == 0) {
        LANE_STORE(k, pivot + c);
        LANE_STORE(mu, mean + c);
        LANE_STORE(inv, inverse + c);
        LANE_STORE(scale, a + c);
        LANE_STORE(shift, b + c);
    }
    lanef value_total = (lanef)(0.0f);
    for (int n = slice / sharers; n < images && has_images && instance; n += across) {
        const int at = n * stride + c;
        const lanef value =
            instance == 1 ? scale * scale * LANE_LOAD(image_var + at) : EQ_MAD(scale, LANE_LOAD(image_mean + at), shift);
        LANE_STORE(value, image_value + at);
        value_total += value;
    }
    slice_sums(&value_total, 1, instance ? SLICES : 1, partial);
    if (slice == 0 && instance)
        LANE_STORE(value_total, value_sum + c);
}

// Constants of a map: scale everywhere, no shift and, where there is one (has_slope), no slope.
//   scale, slope, shift  f32 [stride]  write
__kernel void constant_map(EQ_BUF(float, scale), EQ_BUF(float, slope), EQ_BUF(float, shift), int stride, int has_slope,
                           float value)
{
    EQ_PTR(float, scale);
    EQ_PTR(float, slope);
    EQ_PTR(float, shift);
    const int c = get_global_id(0);
    if (c >= stride)
        return;
    scale[c] = value;
    shift[c] = 0.0f;
    if (has_slope)
        slope[c] = 0.0f;
}

// Backward, begin: adds up the parts.
//   sums        f32 [n, parts, 2, stride]   read    of dp and dp * (z - k)
//   image_sum, image_product  f32 [n, stride]  write
//   sum, product              f32 [stride]     write   over the images
__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void statistics_grad(EQ_IN(float, sums), EQ_BUF(float, image_sum), EQ_BUF(float, image_product), EQ_BUF(float, sum),
                     EQ_BUF(float, product), int images, int parts, int channels, int stride)
{
    EQ_IN_PTR(float, sums);
    EQ_PTR(float, image_sum);
    EQ_PTR(float, image_product);
    EQ_PTR(float, sum);
    EQ_PTR(float, product);
    __local float partial[2 * WG];
    const int c = CHANNEL, slice = SLICE, sharers = image_sharers(images), across = SLICES / sharers;
    lanef total[2] = { (lanef)(0.0f), (lanef)(0.0f) };
    for (int first = 0; first < images; first += across) {
        const int n = first + slice / sharers;
        lanef image[2];
        image_sums(sums, n, images, parts, sharers, channels, stride, image, partial);
        if (slice % sharers > 0 || n >= images)
            continue;
        LANE_STORE(image[0], image_sum + n * stride + c);
        LANE_STORE(image[1], image_product + n * stride + c);
        total[0] += image[0];
        total[1] += image[1];
    }
    slice_sums(total, 2, SLICES, partial);
    if (slice == 0) {
        LANE_STORE(total[0], sum + c);
        LANE_STORE(total[1], product + c);
    }
}

// Backward, end: gradients of gamma and beta, and the constants of dz = scale_n dp + slope_n (z - k) + shift_n (+ matrices).
//   inverse, mean, a                 f32 [stride]     read   of the forward solve
//   sum, product                     f32 [stride]     read   has_gate 0, has_matrix 0: of dp, dp * (z - k)
//   image_sum, image_product         f32 [n, stride]  read   has_gate
//   gate                             f32 [n, stride]  read   has_gate: what image n's channel is multiplied by
//   by_var, image_var, image_mean    f32 [n, stride]  read   has_var: by_var (x - its image mean) is a term of x's gradient
//   by_mean                          f32 [n, stride]  read   has_mean: gradient of x's image mean
//   matrix_beta, matrix_gamma, matrix_shift  f32 [stride]  read   has_matrix: what the matrices add (solve_ce.cl)
//   dgamma, dbeta                    f32 [channels]   write
//   scale, slope, shift              f32 [n, stride] ([stride] without has_gate)  write
__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void finish_grad(EQ_IN(float, inverse), EQ_IN(float, mean), EQ_IN(float, a), EQ_IN(float, sum), EQ_IN(float, product),
                 EQ_IN(float, image_sum), EQ_IN(float, image_product), EQ_IN(float, gate), EQ_IN(float, by_var),
                 EQ_IN(float, image_var), EQ_IN(float, image_mean), EQ_IN(float, by_mean), EQ_IN(float, matrix_beta),
                 EQ_IN(float, matrix_gamma), EQ_IN(float, matrix_shift), EQ_BUF(float, dgamma), EQ_BUF(float, dbeta),
                 EQ_BUF(float, scale), EQ_BUF(float, slope), EQ_BUF(float, shift), int images, int channels, int stride,
                 int pixels, int has_gate, int has_var, int has_mean, int has_matrix)
{
    EQ_IN_PTR(float, inverse);
    EQ_IN_PTR(float, mean);
    EQ_IN_PTR(float, a);
    EQ_IN_PTR(float, sum);
    EQ_IN_PTR(float, product);
    EQ_IN_PTR(float, image_sum);
    EQ_IN_PTR(float, image_product);
    EQ_IN_PTR(float, gate);
    EQ_IN_PTR(float, by_var);
    EQ_IN_PTR(float, image_var);
    EQ_IN_PTR(float, image_mean);
    EQ_IN_PTR(float, by_mean);
    EQ_IN_PTR(float, matrix_beta);
    EQ_IN_PTR(float, matrix_gamma);
    EQ_IN_PTR(float, matrix_shift);
    EQ_PTR(float, dgamma);
    EQ_PTR(float, dbeta);
    EQ_PTR(float, scale);
    EQ_PTR(float, slope);
    EQ_PTR(float, shift);
    __local float partial[2 * WG];
    const int c = CHANNEL, slice = SLICE, rows = has_gate ? images : 1;
    const float samples = (float)images * pixels;
    const lanef mu = LANE_LOAD(mean + c), inv = LANE_LOAD(inverse + c), gain = LANE_LOAD(a + c);
    lanef dx[2] = { (lanef)(0.0f), (lanef)(0.0f) }; // sums of dx and dx * (z - mu)
    if (slice == 0 && has_matrix) {
        dx[0] = LANE_LOAD(matrix_beta + c);
        dx[1] = LANE_LOAD(matrix_gamma + c);
    } else if (!has_matrix && !has_gate) {
        dx[0] = LANE_LOAD(sum + c);
        dx[1] = LANE_LOAD(product + c) - dx[0] * mu;
    }
    for (int n = slice; n < images && has_gate; n += SLICES) {
        const int at = n * stride + c;
        const lanef g = LANE_LOAD(gate + at), image_mu = LANE_LOAD(image_mean + at), s = LANE_LOAD(image_sum + at);
        dx[0] = EQ_MAD(g, s, dx[0]);
        dx[1] = EQ_MAD(g, LANE_LOAD(image_product + at) - s * mu, dx[1]);
        if (has_var)
            dx[1] = EQ_MAD(LANE_LOAD(by_var + at) * (float)(pixels - 1), LANE_LOAD(image_var + at), dx[1]);
        if (has_mean) {
            dx[0] += LANE_LOAD(by_mean + at);
            dx[1] = EQ_MAD(LANE_LOAD(by_mean + at), image_mu - mu, dx[1]);
        }
    }
    slice_sums(dx, 2, has_gate ? SLICES : 1, partial);
    if (slice == 0) {
        store_channels(inv * dx[1], dgamma, c, channels);
        store_channels(dx[0], dbeta, c, channels);
    }
    const lanef common_slope = -gain * inv * inv * dx[1] / samples;
    lanef common_shift = -gain * dx[0] / samples - common_slope * mu;
    if (has_matrix)
        common_shift -= LANE_LOAD(matrix_shift + c);
    for (int n = slice; n < rows; n += SLICES) {
        const int at = n * stride + c;
        lanef var_slope = (lanef)(0.0f), shifted = common_shift, scaled = gain;
        if (has_gate)
            scaled = gain * LANE_LOAD(gate + at);
        else if (has_matrix)
            scaled = (lanef)(0.0f);
        if (has_var) {
            var_slope = gain * LANE_LOAD(by_var + at);
            shifted -= var_slope * LANE_LOAD(image_mean + at);
        }
        if (has_mean)
            shifted += gain * LANE_LOAD(by_mean + at) / pixels;
        LANE_STORE(scaled, scale + at);
        LANE_STORE(common_slope + var_slope, slope + at);
        LANE_STORE(shifted, shift + at);
    }
}

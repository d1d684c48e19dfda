// Solve, the part that every unit has: batch norm's statistics and constants, and the end of the backward solve.
//
// Arrays over channels have `stride` entries (channels rounded up, zero beyond `channels`); [n] of them where it says so.
// One work-item per LANES channels; sums run over images, then parts, in order.
#ifndef SIMT
#define SIMT 0
#endif
#if SIMT
#define LANES 1
typedef float lanef;
#define LANE_LOAD(p) (*(p))
#define LANE_STORE(v, p) (*(p) = (v))
#define LANE_INDEX(c) ((float)(c))
#else
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
__kernel void statistics(EQ_IN(float, z), EQ_IN(float, sums), EQ_IN(float, gamma), EQ_IN(float, beta), EQ_BUF(float, run_mean),
                         EQ_BUF(float, run_var), EQ_BUF(float, pivot), EQ_BUF(float, mean), EQ_BUF(float, inverse),
                         EQ_BUF(float, a), EQ_BUF(float, b), EQ_BUF(float, image_mean), EQ_BUF(float, image_var),
                         EQ_BUF(float, image_value), EQ_BUF(float, value_sum), int z_plane, int block, int images, int parts,
                         int channels, int stride, int pixels, int training, int has_sums, int instance, float eps,
                         float momentum)
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
    const int c = get_global_id(0) * LANES;
    if (c >= stride)
        return;
    lanef k = load_channels(run_mean, c, channels);
    for (int i = 0; i < LANES && c + i < channels && has_sums; i++)
        ((float *)&k)[i] = z[(size_t)((c + i) / block) * z_plane + (c + i) % block];
    lanef sum = (lanef)(0.0f), square = sum;
    for (int n = 0; n < images && has_sums; n++) {
        lanef image_sum = (lanef)(0.0f), image_square = image_sum;
        for (int part = 0; part < parts; part++) {
            __global const float *at = sums + ((size_t)n * parts + part) * 2 * stride + c;
            image_sum += only_channels(LANE_LOAD(at), c, channels);
            image_square += only_channels(LANE_LOAD(at + stride), c, channels);
        }
        sum += image_sum;
        square += image_square;
        if (instance) {
            const lanef m = image_sum / pixels;
            LANE_STORE(m, image_mean + n * stride + c);
            LANE_STORE(fmax(image_square - image_sum * m, (lanef)(0.0f)) / (lanef)(max(pixels - 1, 1)),
                       image_var + n * stride + c);
        }
    }
    const float samples = (float)images * pixels;
    const lanef old_mean = load_channels(run_mean, c, channels), old_var = load_channels(run_var, c, channels);
    lanef mu = sum / samples, var = fmax(square / samples - mu * mu, (lanef)(0.0f));
    if (training) {
        store_channels(EQ_MAD((lanef)(momentum), mu + k - old_mean, old_mean), run_mean, c, channels);
        store_channels(EQ_MAD((lanef)(momentum), var * (samples / (samples - 1.0f)) - old_var, old_var), run_var, c, channels);
    } else {
        mu = old_mean - k;
        var = old_var;
    }
    const lanef inv = only_channels(1.0f / sqrt(var + eps), c, channels), scale = load_channels(gamma, c, channels) * inv;
    const lanef shift = load_channels(beta, c, channels) - scale * mu;
    LANE_STORE(k, pivot + c);
    LANE_STORE(mu, mean + c);
    LANE_STORE(inv, inverse + c);
    LANE_STORE(scale, a + c);
    LANE_STORE(shift, b + c);
    lanef total = (lanef)(0.0f);
    for (int n = 0; n < images && instance; n++) {
        const int at = n * stride + c;
        const lanef value =
            instance == 1 ? scale * scale * LANE_LOAD(image_var + at) : EQ_MAD(scale, LANE_LOAD(image_mean + at), shift);
        LANE_STORE(value, image_value + at);
        total += value;
    }
    if (instance)
        LANE_STORE(total, value_sum + c);
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
__kernel void statistics_grad(EQ_IN(float, sums), EQ_BUF(float, image_sum), EQ_BUF(float, image_product), EQ_BUF(float, sum),
                              EQ_BUF(float, product), int images, int parts, int channels, int stride)
{
    EQ_IN_PTR(float, sums);
    EQ_PTR(float, image_sum);
    EQ_PTR(float, image_product);
    EQ_PTR(float, sum);
    EQ_PTR(float, product);
    const int c = get_global_id(0) * LANES;
    if (c >= stride)
        return;
    lanef total_sum = (lanef)(0.0f), total_product = total_sum;
    for (int n = 0; n < images; n++) {
        lanef s = (lanef)(0.0f), p = s;
        for (int part = 0; part < parts; part++) {
            __global const float *at = sums + ((size_t)n * parts + part) * 2 * stride + c;
            s += only_channels(LANE_LOAD(at), c, channels);
            p += only_channels(LANE_LOAD(at + stride), c, channels);
        }
        LANE_STORE(s, image_sum + n * stride + c);
        LANE_STORE(p, image_product + n * stride + c);
        total_sum += s;
        total_product += p;
    }
    LANE_STORE(total_sum, sum + c);
    LANE_STORE(total_product, product + c);
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
__kernel void finish_grad(EQ_IN(float, inverse), EQ_IN(float, mean), EQ_IN(float, a), EQ_IN(float, sum), EQ_IN(float, product),
                          EQ_IN(float, image_sum), EQ_IN(float, image_product), EQ_IN(float, gate), EQ_IN(float, by_var),
                          EQ_IN(float, image_var), EQ_IN(float, image_mean), EQ_IN(float, by_mean), EQ_IN(float, matrix_beta),
                          EQ_IN(float, matrix_gamma), EQ_IN(float, matrix_shift), EQ_BUF(float, dgamma), EQ_BUF(float, dbeta),
                          EQ_BUF(float, scale), EQ_BUF(float, slope), EQ_BUF(float, shift), int images, int channels,
                          int stride, int pixels, int has_gate, int has_var, int has_mean, int has_matrix)
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
    const int c = get_global_id(0) * LANES, rows = has_gate ? images : 1;
    if (c >= stride)
        return;
    const float samples = (float)images * pixels;
    const lanef mu = LANE_LOAD(mean + c), inv = LANE_LOAD(inverse + c), gain = LANE_LOAD(a + c);
    lanef beta_sum = (lanef)(0.0f), gamma_sum = beta_sum; // sums of dx and dx * (z - mu)
    if (has_matrix) {
        beta_sum = LANE_LOAD(matrix_beta + c);
        gamma_sum = LANE_LOAD(matrix_gamma + c);
    } else if (!has_gate) {
        beta_sum = LANE_LOAD(sum + c);
        gamma_sum = LANE_LOAD(product + c) - beta_sum * mu;
    }
    for (int n = 0; n < images && has_gate; n++) {
        const int at = n * stride + c;
        const lanef g = LANE_LOAD(gate + at), image_mu = LANE_LOAD(image_mean + at), s = LANE_LOAD(image_sum + at);
        beta_sum = EQ_MAD(g, s, beta_sum);
        gamma_sum = EQ_MAD(g, LANE_LOAD(image_product + at) - s * mu, gamma_sum);
        if (has_var)
            gamma_sum = EQ_MAD(LANE_LOAD(by_var + at) * (float)(pixels - 1), LANE_LOAD(image_var + at), gamma_sum);
        if (has_mean) {
            beta_sum += LANE_LOAD(by_mean + at);
            gamma_sum = EQ_MAD(LANE_LOAD(by_mean + at), image_mu - mu, gamma_sum);
        }
    }
    store_channels(inv * gamma_sum, dgamma, c, channels);
    store_channels(beta_sum, dbeta, c, channels);
    const lanef common_slope = -gain * inv * inv * gamma_sum / samples;
    lanef common_shift = -gain * beta_sum / samples - common_slope * mu;
    if (has_matrix)
        common_shift -= LANE_LOAD(matrix_shift + c);
    for (int n = 0; n < rows; n++) {
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

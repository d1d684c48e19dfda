// Solve, the part that every unit has: batch norm's statistics and constants, and the end of the backward solve.
//
// Arrays over channels have `stride` entries (channels rounded up, zero beyond `channels`); [n] of them where it says so.
// One work-item per channel; sums run over images, then parts, in order.

// Forward.
//   z         f32                        read    its first pixel is the pivot k, where there are sums
//   sums      f32 [n, parts, 2, stride]  read    of z - k and (z - k)^2; absent in evaluation of methods without an instance part
//   gamma, beta, run_mean, run_var       f32 [channels]; run_* are updated when training
//   pivot     write  k; the running mean in evaluation without sums
//   mean      write  mu - k
//   inverse   write  1 / sqrt(variance + eps)
//   a, b      write  x = a (z - k) + b is the normalised activation
//   image_mean [n], image_var [n]  write  of z - k per image, unbiased      (instance != 0)
//   image_value [n]                write  gate's input: variance (instance 1) or mean (instance 2) of x per image and channel
//   value_sum                      write  sum of image_value over the images
__kernel void statistics(EQ_IN(float, z), EQ_IN(float, sums), EQ_IN(float, gamma), EQ_IN(float, beta), EQ_BUF(float, run_mean),
                         EQ_BUF(float, run_var), EQ_BUF(float, pivot), EQ_BUF(float, mean), EQ_BUF(float, inverse), EQ_BUF(float, a),
                         EQ_BUF(float, b), EQ_BUF(float, image_mean), EQ_BUF(float, image_var), EQ_BUF(float, image_value),
                         EQ_BUF(float, value_sum), int z_plane, int block, int images, int parts, int channels, int stride,
                         int pixels, int training, int has_sums, int instance, float eps, float momentum)
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
    const int c = get_global_id(0);
    if (c >= stride)
        return;
    if (c >= channels) {
        pivot[c] = mean[c] = inverse[c] = a[c] = b[c] = 0.0f;
        for (int n = 0; n < images && instance; n++)
            image_mean[n * stride + c] = image_var[n * stride + c] = image_value[n * stride + c] = 0.0f;
        if (instance)
            value_sum[c] = 0.0f;
        return;
    }
    const float k = has_sums ? z[(size_t)(c / block) * z_plane + c % block] : run_mean[c];
    float sum = 0.0f, square = 0.0f;
    for (int n = 0; n < images && has_sums; n++) {
        float image_sum = 0.0f, image_square = 0.0f;
        for (int part = 0; part < parts; part++) {
            __global const float *at = sums + ((size_t)n * parts + part) * 2 * stride + c;
            image_sum += at[0];
            image_square += at[stride];
        }
        sum += image_sum;
        square += image_square;
        if (instance) {
            const float m = image_sum / pixels;
            image_mean[n * stride + c] = m;
            image_var[n * stride + c] = pixels > 1 ? fmax(image_square - image_sum * m, 0.0f) / (pixels - 1) : 0.0f;
        }
    }
    const float samples = (float)images * pixels;
    float mu = sum / samples, var = fmax(square / samples - mu * mu, 0.0f);
    if (training) {
        run_mean[c] = EQ_MAD(momentum, mu + k - run_mean[c], run_mean[c]);
        run_var[c] = EQ_MAD(momentum, var * (samples / (samples - 1.0f)) - run_var[c], run_var[c]);
    } else {
        mu = run_mean[c] - k;
        var = run_var[c];
    }
    const float inv = 1.0f / sqrt(var + eps), scale = gamma[c] * inv, shift = beta[c] - scale * mu;
    pivot[c] = k;
    mean[c] = mu;
    inverse[c] = inv;
    a[c] = scale;
    b[c] = shift;
    if (!instance)
        return;
    float total = 0.0f;
    for (int n = 0; n < images; n++) {
        const int at = n * stride + c;
        const float value = instance == 1 ? scale * scale * image_var[at] : EQ_MAD(scale, image_mean[at], shift);
        image_value[at] = value;
        total += value;
    }
    value_sum[c] = total;
}

// Constants of a map: scale everywhere, no shift and, where there is one (has_slope), no slope.
//   scale, slope, shift  f32 [stride]  write
__kernel void constant_map(EQ_BUF(float, scale), EQ_BUF(float, slope), EQ_BUF(float, shift), int stride, int has_slope, float value)
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
    const int c = get_global_id(0);
    if (c >= stride)
        return;
    float total_sum = 0.0f, total_product = 0.0f;
    for (int n = 0; n < images; n++) {
        float s = 0.0f, p = 0.0f;
        for (int part = 0; part < parts && c < channels; part++) {
            __global const float *at = sums + ((size_t)n * parts + part) * 2 * stride + c;
            s += at[0];
            p += at[stride];
        }
        image_sum[n * stride + c] = s;
        image_product[n * stride + c] = p;
        total_sum += s;
        total_product += p;
    }
    sum[c] = total_sum;
    product[c] = total_product;
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
    const int c = get_global_id(0), rows = has_gate ? images : 1;
    if (c >= stride)
        return;
    if (c >= channels) {
        for (int n = 0; n < rows; n++)
            scale[n * stride + c] = slope[n * stride + c] = shift[n * stride + c] = 0.0f;
        return;
    }
    const float mu = mean[c], samples = (float)images * pixels;
    float beta_sum = 0.0f, gamma_sum = 0.0f; // sums of dx and dx * (z - mu)
    if (has_matrix) {
        beta_sum = matrix_beta[c];
        gamma_sum = matrix_gamma[c];
    } else if (!has_gate) {
        beta_sum = sum[c];
        gamma_sum = product[c] - sum[c] * mu;
    }
    for (int n = 0; n < images && has_gate; n++) {
        const int at = n * stride + c;
        beta_sum = EQ_MAD(gate[at], image_sum[at], beta_sum);
        gamma_sum = EQ_MAD(gate[at], image_product[at] - image_sum[at] * mu, gamma_sum);
        if (has_var)
            gamma_sum = EQ_MAD(by_var[at] * (pixels - 1), image_var[at], gamma_sum);
        if (has_mean) {
            beta_sum += by_mean[at];
            gamma_sum = EQ_MAD(by_mean[at], image_mean[at] - mu, gamma_sum);
        }
    }
    dgamma[c] = inverse[c] * gamma_sum;
    dbeta[c] = beta_sum;
    const float common_slope = -a[c] * inverse[c] * inverse[c] * gamma_sum / samples;
    const float common_shift = -a[c] * beta_sum / samples - common_slope * mu - (has_matrix ? matrix_shift[c] : 0.0f);
    for (int n = 0; n < rows; n++) {
        const int at = n * stride + c;
        const float var_slope = has_var ? a[c] * by_var[at] : 0.0f;
        scale[at] = has_gate ? a[c] * gate[at] : has_matrix ? 0.0f : a[c];
        slope[at] = common_slope + var_slope;
        shift[at] = common_shift - (has_var ? var_slope * image_mean[at] : 0.0f) + (has_mean ? a[c] * by_mean[at] / pixels : 0.0f);
    }
}

// Solve of the gates: instance reweighting (CE, IR: y = sigmoid(W2 relu(LayerNorm(W1 v)))) and squeeze-and-excitation
// (SE: y = sigmoid(W2 relu(W1 v + bias1) + bias2)), and their gradients.
//
// Arrays over channels have `stride` entries, over hidden units `hidden_stride`: multiples of 16, zero beyond the real ones.
// For processors: one work-item does a row with vectors of 16. GPUs have solve_gate_simt.cl. Evaluation has kernels of its
// own, evaluate_values and evaluate_gate; the others are training's.
#define LANES 16
typedef float16 lanef;
typedef lanef __attribute__((aligned(4))) anyf; // vstore16 would be cut into pieces by PoCL
#define LANE_LOAD(p) (*(__global const anyf *)(p))
#define LANE_STORE(v, p) (*(__global anyf *)(p) = (v))
#define LANE_PICK(values)                                                                                                   \
    (float16)(values[0], values[1], values[2], values[3], values[4], values[5], values[6], values[7], values[8], values[9],  \
              values[10], values[11], values[12], values[13], values[14], values[15])
#define LAYER_NORM_EPS 1e-5f

// Weight of the reweighting branch: 1 - sigmoid(x_weight), 1 without one.
static float gate_weight(__global const float *x_weight, int has_weight)
{
    return has_weight ? 1.0f / (1.0f + exp(x_weight[0])) : 1.0f;
}

static float add_lanes(lanef v)
{
    const float8 v8 = ((const float8 *)&v)[0] + ((const float8 *)&v)[1]; // .lo and .hi look uninitialised to Oclgrind
    const float4 v4 = ((const float4 *)&v8)[0] + ((const float4 *)&v8)[1];
    return (v4.x + v4.y) + (v4.z + v4.w);
}

// row . x over `num` entries.
static float dot_row(__global const float *row, __global const float *x, int num)
{
    int i = 0;
    lanef v = (float16)(0.0f), v1 = v, v2 = v, v3 = v;
    for (; i + 64 <= num; i += 64) {
        v = EQ_MAD(LANE_LOAD(row + i), LANE_LOAD(x + i), v);
        v1 = EQ_MAD(LANE_LOAD(row + i + 16), LANE_LOAD(x + i + 16), v1);
        v2 = EQ_MAD(LANE_LOAD(row + i + 32), LANE_LOAD(x + i + 32), v2);
        v3 = EQ_MAD(LANE_LOAD(row + i + 48), LANE_LOAD(x + i + 48), v3);
    }
    for (; i + 16 <= num; i += 16)
        v = EQ_MAD(LANE_LOAD(row + i), LANE_LOAD(x + i), v);
    float sum = add_lanes((v + v1) + (v2 + v3));
    for (; i < num; i++)
        sum = EQ_MAD(row[i], x[i], sum);
    return sum;
}

// x^T w for WIDE * LANES columns side by side: rows of w are far apart, so that one vector a row would miss the cache.
#define WIDE 4
static void dot_columns(__global const float *x, __global const float *w, int rows, int ld, __global float *to)
{
    lanef v0 = (lanef)(0.0f), v1 = v0, v2 = v0, v3 = v0;
    for (int j = 0; j < rows; j++, w += ld) {
        const lanef s = (lanef)(x[j]);
        v0 = EQ_MAD(s, LANE_LOAD(w), v0);
        v1 = EQ_MAD(s, LANE_LOAD(w + LANES), v1);
        v2 = EQ_MAD(s, LANE_LOAD(w + 2 * LANES), v2);
        v3 = EQ_MAD(s, LANE_LOAD(w + 3 * LANES), v3);
    }
    LANE_STORE(v0, to);
    LANE_STORE(v1, to + LANES);
    LANE_STORE(v2, to + 2 * LANES);
    LANE_STORE(v3, to + 3 * LANES);
}

// The same for `columns` of them, one by one after the last full WIDE * LANES; zero up to `end`.
static void dot_all_columns(__global const float *x, __global const float *w, int rows, int ld, __global float *to, int columns,
                            int end)
{
    int first = 0;
    for (; first + WIDE * LANES <= columns; first += WIDE * LANES)
        dot_columns(x, w + first, rows, ld, to + first);
    for (; first < end; first += LANES) {
        lanef v = (lanef)(0.0f);
        if (first + LANES <= columns)
            for (int j = 0; j < rows; j++)
                v = EQ_MAD((lanef)(x[j]), LANE_LOAD(w + (size_t)j * ld + first), v);
        else
            for (int j = 0; j < rows; j++)
                for (int i = 0; first + i < columns; i++)
                    ((float *)&v)[i] = EQ_MAD(x[j], w[(size_t)j * ld + first + i], ((float *)&v)[i]);
        LANE_STORE(v, to + first);
    }
}

// The hidden layer: one work-item per image.
//   value      f32 [n, stride]               read    instance variances (layer_norm) or means
//   value_sum  f32 [stride]                  read    over the images
//   w1         f32 [hidden, channels]        read
//   gain       f32 [hidden]                  read    LayerNorm's; absent for SE
//   bias       f32 [hidden]                  read    LayerNorm's, or the linear layer's
//   run_scale  f32 [1]                       updated; absent for SE
//   active     f32 [n, hidden_stride]        write   after the ReLU
//   normal     f32 [n, hidden_stride]        write   before gain and bias (layer_norm)
//   deviation  f32 [n]                       write   1 / standard deviation of the hidden layer (layer_norm)
//   spread     f32 [1]                       write   s: sqrt of the mean variance, 1 for SE
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void reweight(EQ_IN(float, value), EQ_IN(float, value_sum), EQ_IN(float, w1), EQ_IN(float, gain), EQ_IN(float, bias),
                       EQ_BUF(float, run_scale), EQ_BUF(float, active), EQ_BUF(float, normal), EQ_BUF(float, deviation),
                       EQ_BUF(float, spread), int channels, int hidden, int stride, int hidden_stride, int layer_norm,
                       float momentum)
{
    EQ_IN_PTR(float, value);
    EQ_IN_PTR(float, value_sum);
    EQ_IN_PTR(float, w1);
    EQ_IN_PTR(float, gain);
    EQ_IN_PTR(float, bias);
    EQ_PTR(float, run_scale);
    EQ_PTR(float, active);
    EQ_PTR(float, normal);
    EQ_PTR(float, deviation);
    EQ_PTR(float, spread);
    const int n = get_group_id(0), images = get_num_groups(0);
    __global float *out = active + n * hidden_stride, *h = normal + n * hidden_stride;
    float sum = 0.0f;
    for (int c = 0; c < channels && n == 0 && layer_norm; c++)
        sum += value_sum[c];
    if (n == 0) {
        float s = 1.0f;
        if (layer_norm) {
            s = sqrt(sum / ((float)images * channels));
            run_scale[0] = EQ_MAD(momentum, s - run_scale[0], run_scale[0]);
        }
        spread[0] = s;
    }
    sum = 0.0f;
    for (int j = 0; j < hidden_stride; j++) {
        const float v = j < hidden ? dot_row(w1 + (size_t)j * channels, value + n * stride, channels) : 0.0f;
        sum += v;
        if (layer_norm)
            h[j] = v;
        else
            out[j] = j < hidden ? EQ_FROM_0(v + bias[j], float) : 0.0f;
    }
    const float mean = sum / hidden;
    float square = 0.0f;
    for (int j = 0; j < hidden && layer_norm; j++)
        square = EQ_MAD(h[j] - mean, h[j] - mean, square);
    const float inverse = 1.0f / sqrt(square / hidden + LAYER_NORM_EPS);
    for (int j = 0; j < hidden_stride && layer_norm; j++) {
        const float v = j < hidden ? (h[j] - mean) * inverse : 0.0f;
        h[j] = v;
        out[j] = j < hidden ? EQ_FROM_0(EQ_MAD(v, gain[j], bias[j]), float) : 0.0f;
    }
    if (layer_norm)
        deviation[n] = inverse;
}

// The output layer, and with it the affine map's part that differs between images.
//   active    f32 [n, hidden_stride]      read
//   w2        f32 [channels, hidden]      read
//   bias      f32 [channels]              read   SE; else absent
//   spread    f32 [1], x_weight f32 [1]   read   x_weight: CE; else absent
//   a, b      f32 [stride]                read   x = a (z - k) + b
//   common    f32 [stride]                read   CE: shift of the decorrelating branch; else absent
//   y, gate   f32 [n, stride]             write  gate = (1 - lambda) y / s
//   scale, shift  f32 [n, stride]         write
// Work-items: LANES channels, images.
__kernel void reweight_output(EQ_IN(float, active), EQ_IN(float, w2), EQ_IN(float, bias), EQ_IN(float, spread),
                              EQ_IN(float, x_weight), EQ_IN(float, a), EQ_IN(float, b), EQ_IN(float, common),
                              EQ_BUF(float, y), EQ_BUF(float, gate), EQ_BUF(float, scale), EQ_BUF(float, shift), int channels,
                              int hidden, int stride, int hidden_stride, int has_bias, int has_weight)
{
    EQ_IN_PTR(float, active);
    EQ_IN_PTR(float, w2);
    EQ_IN_PTR(float, bias);
    EQ_IN_PTR(float, spread);
    EQ_IN_PTR(float, x_weight);
    EQ_IN_PTR(float, a);
    EQ_IN_PTR(float, b);
    EQ_IN_PTR(float, common);
    EQ_PTR(float, y);
    EQ_PTR(float, gate);
    EQ_PTR(float, scale);
    EQ_PTR(float, shift);
    const int n = get_global_id(1);
    const float weight = gate_weight(x_weight, has_weight) / spread[0];
    for (int c = get_global_id(0) * LANES; c < stride; c += get_global_size(0) * LANES) {
        const int at = n * stride + c;
        float dots[LANES], shifts[LANES];
        for (int i = 0; i < LANES; i++) {
            const int o = c + i;
            dots[i] = shifts[i] = 0.0f;
            if (o < channels) {
                dots[i] = dot_row(w2 + (size_t)o * hidden, active + n * hidden_stride, hidden) + (has_bias ? bias[o] : 0.0f);
                if (has_weight)
                    shifts[i] = common[o];
            }
        }
        lanef v = 1.0f / (1.0f + exp(-LANE_PICK(dots)));
        for (int i = max(channels - c, 0); i < LANES; i++)
            ((float *)&v)[i] = 0.0f;
        const lanef g = weight * v;
        LANE_STORE(v, y + at);
        LANE_STORE(g, gate + at);
        LANE_STORE(g * LANE_LOAD(a + c), scale + at);
        LANE_STORE(EQ_MAD(g, LANE_LOAD(b + c), LANE_PICK(shifts)), shift + at);
    }
}

static vecf load_channels(__global const float *p, int c, int channels)
{
    if (c + BLOCK <= channels)
        return EQ_LOAD(p + c);
    vecf v = (vecf)(0.0f);
    for (int i = 0; i < BLOCK && c + i < channels; i++)
        ((float *)&v)[i] = p[c + i];
    return v;
}

// v, but zero beyond the real channels.
static vecf only_channels(vecf v, int c, int channels)
{
    for (int i = max(channels - c, 0); i < BLOCK; i++)
        ((float *)&v)[i] = 0.0f;
    return v;
}

// Evaluation, from the moments to the map, by image and chunk of CHUNK channels, a multiple of LANES. Training needs sums over
// all images before it can go on; here no image waits for another, and two launches do. Images come first in the range: what a
// chunk has learnt stays in the cache while all of them pass.
// Mesa's llvmpipe ends a work-item's loops after 65535 rounds in all: here about 8000 parts in blocks of 16.
//   z          f32 blocked                   read    where has_z its first pixel is the pivot k, else that is 0
//   moments    f32 [n, blocks, parts, 3, BLOCK]  read    of a part's pixels: mean, sum of squares about it, number
//   gamma, beta, run_mean, run_var  f32 [channels]  read
//   run_scale  f32 [1]                       read    absent for SE, as gain is; bias2 is SE's alone, x_weight CE's
//   w1 [hidden, channels], gain, bias1 [hidden], w2 [channels, hidden], bias2 [channels], x_weight [1]   read    as above
//   matrix     f32 [blocks, span, BLOCK, BLOCK]  read    CE: M of the affine map
//   common     f32 [stride]                  read    CE: shift of the decorrelating branch where the pivot is run_mean
//   offset     f32 [n, stride]               write   CE: k - run_mean
//   value      f32 [n, stride]               write   the gate's input
//   hidden_sums  f32 [n, chunks, hidden_stride]  write   W1 value, of the chunk's channels
//   active     f32 [n, chunks, hidden_stride]  write   the hidden layer after the ReLU, the same in each chunk
//   pivot      f32 [stride]                  write
//   scale, shift  f32 [n, stride]            write   of the affine map; after evaluate_values, batch norm's
#ifndef CHUNK
#define CHUNK 128
#endif

__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void evaluate_values(EQ_IN(float, z), EQ_IN(float, moments), EQ_IN(float, gamma), EQ_IN(float, beta), EQ_IN(float, run_mean),
                     EQ_IN(float, run_var), EQ_IN(float, w1), EQ_BUF(float, offset), EQ_BUF(float, value),
                     EQ_BUF(float, hidden_sums), EQ_BUF(float, pivot), EQ_BUF(float, scale), EQ_BUF(float, shift), int z_plane,
                     int parts, int pixels, int channels, int stride, int hidden, int hidden_stride, int blocks,
                     int layer_norm, int has_weight, int has_z, float eps)
{
    EQ_IN_PTR(float, z);
    EQ_IN_PTR(float, moments);
    EQ_IN_PTR(float, gamma);
    EQ_IN_PTR(float, beta);
    EQ_IN_PTR(float, run_mean);
    EQ_IN_PTR(float, run_var);
    EQ_IN_PTR(float, w1);
    EQ_PTR(float, offset);
    EQ_PTR(float, value);
    EQ_PTR(float, hidden_sums);
    EQ_PTR(float, pivot);
    EQ_PTR(float, scale);
    EQ_PTR(float, shift);
    const int n = get_group_id(0), chunk = get_group_id(1), chunks = get_num_groups(1);
    const int first = chunk * CHUNK, end = min(first + CHUNK, stride);
    offset += (size_t)n * stride;
    value += (size_t)n * stride;
    scale += (size_t)n * stride;
    shift += (size_t)n * stride;
    for (int c = first; c < end; c += BLOCK) {
        const bool is_block = c < blocks * BLOCK;
        __global const float *at = moments + ((size_t)n * blocks + c / BLOCK) * parts * 3 * BLOCK;
        const vecf k = is_block && has_z ? only_channels(EQ_LOAD(z + (size_t)(c / BLOCK) * z_plane), c, channels)
                                         : (vecf)(0.0f);
        // Parts have means of their own: sums about the first part's.
        const vecf near = is_block ? EQ_LOAD(at) : (vecf)(0.0f);
        vecf sum = (vecf)(0.0f), square = (vecf)(0.0f);
        for (int part = 0; part < parts && is_block; part++, at += 3 * BLOCK) {
            const vecf away = EQ_LOAD(at) - near, num = EQ_LOAD(at + 2 * BLOCK);
            sum = EQ_MAD(num, away, sum);
            square += EQ_MAD(num * away, away, EQ_LOAD(at + BLOCK));
        }
        const vecf mean = only_channels(near + sum / pixels - k, c, channels);
        const vecf var = EQ_FROM_0(square - sum * sum / pixels, vecf) / (vecf)(max(pixels - 1, 1));
        const vecf inverse = 1.0f / sqrt(load_channels(run_var, c, channels) + eps);
        const vecf a = only_channels(load_channels(gamma, c, channels) * inverse, c, channels);
        const vecf away = k - load_channels(run_mean, c, channels), b = EQ_MAD(a, away, load_channels(beta, c, channels));
        EQ_STORE(layer_norm ? a * a * var : EQ_MAD(a, mean, b), value + c);
        if (has_weight)
            EQ_STORE(away, offset + c);
        EQ_STORE(a, scale + c);
        EQ_STORE(b, shift + c);
        if (n == 0)
            EQ_STORE(k, pivot + c);
    }
    hidden_sums += ((size_t)n * chunks + chunk) * hidden_stride;
    for (int j = 0; j < hidden_stride; j++)
        hidden_sums[j] = j < hidden ? dot_row(w1 + (size_t)j * channels + first, value + first, min(channels - first, CHUNK))
                                    : 0.0f;
}

// The hidden layer of an image, from its chunks' sums.
static void evaluate_hidden(__global const float *sums, __global const float *gain, __global const float *bias,
                            __global float *active, int chunks, int hidden, int hidden_stride, int layer_norm)
{
    lanef all = (lanef)(0.0f), squares = all;
    for (int j = 0; j < hidden_stride; j += LANES) {
        lanef v = LANE_LOAD(sums + j);
        for (int i = 1; i < chunks; i++)
            v += LANE_LOAD(sums + (size_t)i * hidden_stride + j);
        LANE_STORE(v, active + j);
        all += v;
    }
    float mean = 0.0f, inverse = 1.0f;
    if (layer_norm) {
        mean = add_lanes(all) / hidden;
        int j = 0;
        for (; j + LANES <= hidden; j += LANES) {
            const lanef away = LANE_LOAD(active + j) - mean;
            squares = EQ_MAD(away, away, squares);
        }
        float square = add_lanes(squares);
        for (; j < hidden; j++)
            square = EQ_MAD(active[j] - mean, active[j] - mean, square);
        inverse = 1.0f / sqrt(square / hidden + LAYER_NORM_EPS);
    }
    for (int j = 0; j < hidden; j++)
        active[j] = EQ_FROM_0(EQ_MAD((active[j] - mean) * inverse, layer_norm ? gain[j] : 1.0f, bias[j]), float);
}

__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void evaluate_gate(EQ_IN(float, hidden_sums), EQ_IN(float, run_scale), EQ_IN(float, gain), EQ_IN(float, bias1),
                   EQ_IN(float, w2), EQ_IN(float, bias2), EQ_IN(float, x_weight), EQ_IN(float, matrix), EQ_IN(float, common),
                   EQ_IN(float, offset), EQ_BUF(float, active), EQ_BUF(float, scale), EQ_BUF(float, shift), int channels,
                   int stride, int hidden, int hidden_stride, int blocks, int span, int group, int layer_norm, int has_weight)
{
    EQ_IN_PTR(float, hidden_sums);
    EQ_IN_PTR(float, run_scale);
    EQ_IN_PTR(float, gain);
    EQ_IN_PTR(float, bias1);
    EQ_IN_PTR(float, w2);
    EQ_IN_PTR(float, bias2);
    EQ_IN_PTR(float, x_weight);
    EQ_IN_PTR(float, matrix);
    EQ_IN_PTR(float, common);
    EQ_IN_PTR(float, offset);
    EQ_PTR(float, active);
    EQ_PTR(float, scale);
    EQ_PTR(float, shift);
    const int n = get_group_id(0), chunk = get_group_id(1), chunks = get_num_groups(1);
    const int end = min((chunk + 1) * CHUNK, stride);
    offset += (size_t)n * stride;
    scale += (size_t)n * stride;
    shift += (size_t)n * stride;
    active += ((size_t)n * chunks + chunk) * hidden_stride;
    evaluate_hidden(hidden_sums + (size_t)n * chunks * hidden_stride, gain, bias1, active, chunks, hidden, hidden_stride,
                    layer_norm);
    const float weight = gate_weight(x_weight, has_weight) / (layer_norm ? run_scale[0] : 1.0f);
    for (int c = chunk * CHUNK; c < end; c += BLOCK) {
        vecf dots = (vecf)(0.0f), map = (vecf)(0.0f);
        for (int i = 0; i < BLOCK && c + i < channels; i++)
            ((float *)&dots)[i] = dot_row(w2 + (size_t)(c + i) * hidden, active, hidden) + (layer_norm ? 0.0f : bias2[c + i]);
        if (has_weight && c < blocks * BLOCK) {
            const int first = c / group * group / BLOCK, num = min(span, blocks - first);
            __global const float *row = matrix + (size_t)c * span * BLOCK;
            map = EQ_LOAD(common + c);
            for (int j = 0; j < num * BLOCK; j++, row += BLOCK)
                map = EQ_MAD((vecf)(offset[first * BLOCK + j]), EQ_LOAD(row), map);
        }
        const vecf g = only_channels(weight / (1.0f + exp(-dots)), c, channels);
        EQ_STORE(g * EQ_LOAD(scale + c), scale + c);
        EQ_STORE(EQ_MAD(g, EQ_LOAD(shift + c), map), shift + c);
    }
}

// Backward through the output layer, the ReLU and LayerNorm: one work-item per image.
//   image_sum, image_product  f32 [n, stride]  read   sums of dp and dp (z - k)
//   a, b, y, spread, x_weight, active, normal, deviation, w2, gain   read   as above
//   dpre        f32 [n, stride]         write   gradient before the sigmoid
//   total       f32 [n]                 write   sum of dp x y over the channels
//   dactive     f32 [n, hidden_stride]  write   gradient before the ReLU
//   dhidden     f32 [n, hidden_stride]  write   gradient of W1 v
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void reweight_grad(EQ_IN(float, image_sum), EQ_IN(float, image_product), EQ_IN(float, a), EQ_IN(float, b),
                            EQ_IN(float, y), EQ_IN(float, spread), EQ_IN(float, x_weight), EQ_IN(float, active),
                            EQ_IN(float, normal), EQ_IN(float, deviation), EQ_IN(float, w2), EQ_IN(float, gain),
                            EQ_BUF(float, dpre), EQ_BUF(float, total), EQ_BUF(float, dactive), EQ_BUF(float, dhidden),
                            int channels, int hidden, int stride, int hidden_stride, int layer_norm, int has_weight)
{
    EQ_IN_PTR(float, image_sum);
    EQ_IN_PTR(float, image_product);
    EQ_IN_PTR(float, a);
    EQ_IN_PTR(float, b);
    EQ_IN_PTR(float, y);
    EQ_IN_PTR(float, spread);
    EQ_IN_PTR(float, x_weight);
    EQ_IN_PTR(float, active);
    EQ_IN_PTR(float, normal);
    EQ_IN_PTR(float, deviation);
    EQ_IN_PTR(float, w2);
    EQ_IN_PTR(float, gain);
    EQ_PTR(float, dpre);
    EQ_PTR(float, total);
    EQ_PTR(float, dactive);
    EQ_PTR(float, dhidden);
    const int n = get_group_id(0);
    const float weight = gate_weight(x_weight, has_weight) / spread[0];
    __global float *dp = dpre + n * stride, *du = dactive + n * hidden_stride, *dh = dhidden + n * hidden_stride;
    float sum = 0.0f;
    for (int c = 0; c < stride; c++) {
        const int at = n * stride + c;
        const float d = EQ_MAD(image_product[at], a[c], image_sum[at] * b[c]) * y[at];
        sum += d;
        dp[c] = weight * d * (1.0f - y[at]);
    }
    total[n] = sum;
    dot_all_columns(dp, w2, channels, hidden, du, hidden, hidden_stride);
    for (int j = 0; j < hidden_stride; j += LANES)
        LANE_STORE(
            select((lanef)(0.0f), LANE_LOAD(du + j), isgreater(LANE_LOAD(active + n * hidden_stride + j), (lanef)(0.0f))),
            du + j);
    float mean = 0.0f, product = 0.0f;
    for (int j = 0; j < hidden && layer_norm; j++) {
        const float d = du[j] * gain[j];
        mean += d;
        product = EQ_MAD(d, normal[n * hidden_stride + j], product);
    }
    mean /= hidden;
    product /= hidden;
    for (int j = 0; j < hidden_stride; j++) {
        float d = du[j];
        if (layer_norm)
            d = j < hidden ? deviation[n] * (d * gain[j] - mean - normal[n * hidden_stride + j] * product) : 0.0f;
        dh[j] = d;
    }
}

// Backward through W1.
//   dhidden f32 [n, hidden_stride], w1 f32 [hidden, channels], total f32 [n], spread, x_weight, a   read
//   dvalue  f32 [n, stride]   write   layer_norm: 2 / (pixels - 1) a (gradient of the variance), that by s included, so that
//                                     dvalue (z - image mean) is a term of x's gradient; SE: gradient of the mean
// Work-items: LANES channels, images.
__kernel void reweight_grad_input(EQ_IN(float, dhidden), EQ_IN(float, w1), EQ_IN(float, total), EQ_IN(float, spread),
                                  EQ_IN(float, x_weight), EQ_IN(float, a), EQ_BUF(float, dvalue), int channels, int hidden,
                                  int stride, int hidden_stride, int images, int pixels, int layer_norm, int has_weight)
{
    EQ_IN_PTR(float, dhidden);
    EQ_IN_PTR(float, w1);
    EQ_IN_PTR(float, total);
    EQ_IN_PTR(float, spread);
    EQ_IN_PTR(float, x_weight);
    EQ_IN_PTR(float, a);
    EQ_PTR(float, dvalue);
    const int n = get_global_id(1);
    float by_spread = 0.0f;
    if (layer_norm) {
        for (int i = 0; i < images; i++)
            by_spread += total[i];
        const float s = spread[0];
        by_spread *= gate_weight(x_weight, has_weight) / (s * s * 2.0f * s * ((float)images * channels));
    }
    __global const float *dh = dhidden + n * hidden_stride;
    const int piece = (stride / LANES + get_global_size(0) - 1) / get_global_size(0) * LANES;
    const int first = get_global_id(0) * piece, end = min(first + piece, stride);
    if (first < end)
        dot_all_columns(dh, w1 + first, hidden, channels, dvalue + n * stride + first, min(channels - first, piece),
                        end - first);
    for (int c = first; c < end && layer_norm; c += LANES) { // a is zero beyond the real channels
        __global float *at = dvalue + n * stride + c;
        LANE_STORE(2.0f / (pixels - 1) * (LANE_LOAD(at) - by_spread) * LANE_LOAD(a + c), at);
    }
}

// Gradient of a linear layer's matrix: dweight = sum over images of left^T right, in order.
//   left   f32 [images, left_stride]    read
//   right  f32 [images, right_stride]   read
//   dweight f32 [rows, columns]         write
// Work-items: LANES columns, rows.
__kernel void reweight_weight_grad(EQ_IN(float, left), EQ_IN(float, right), EQ_BUF(float, dweight), int rows, int columns,
                                   int left_stride, int right_stride, int images)
{
    EQ_IN_PTR(float, left);
    EQ_IN_PTR(float, right);
    EQ_PTR(float, dweight);
    const int row = get_global_id(1);
    if (row >= rows)
        return;
    for (int column = get_global_id(0) * LANES; column < columns; column += get_global_size(0) * LANES) {
        lanef v = (lanef)(0.0f);
        for (int n = 0; n < images; n++)
            v = EQ_MAD((lanef)(left[n * left_stride + row]), LANE_LOAD(right + n * right_stride + column), v);
        if (column + LANES <= columns) {
            LANE_STORE(v, dweight + (size_t)row * columns + column);
        } else {
            for (int i = 0; column + i < columns; i++)
                dweight[(size_t)row * columns + column + i] = ((const float *)&v)[i];
        }
    }
}

// Gradients of vectors: sums over the images of left, and of left * right where dgain is there (has_gain).
//   left, right  f32 [images, stride]   read
//   dbias, dgain f32 [num]              write
__kernel void reweight_vector_grad(EQ_IN(float, left), EQ_IN(float, right), EQ_BUF(float, dbias), EQ_BUF(float, dgain), int num,
                                   int stride, int images, int has_gain)
{
    EQ_IN_PTR(float, left);
    EQ_IN_PTR(float, right);
    EQ_PTR(float, dbias);
    EQ_PTR(float, dgain);
    const int j = get_global_id(0);
    if (j >= num)
        return;
    float sum = 0.0f, product = 0.0f;
    for (int n = 0; n < images; n++) {
        sum += left[n * stride + j];
        if (has_gain)
            product = EQ_MAD(left[n * stride + j], right[n * stride + j], product);
    }
    dbias[j] = sum;
    if (has_gain)
        dgain[j] = product;
}

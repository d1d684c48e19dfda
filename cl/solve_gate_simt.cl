// Solve of the gates on GPUs: the networks of solve_gate.cl, cut so that many work-groups read the weight matrices.
//
// A group of WG work-items does IMAGES images, the lanes of a float4, so that a weight serves all of them. Products with the
// rows of a matrix: a team of neighbours runs along a row. Products with its columns: COLUMNS of them side by side,
// their rows dealt out to SLICES. Both add up what the work-items have as a tree. LayerNorm needs a whole hidden layer, so each
// group of the kernel that follows works it out again, and the first group stores it: cheaper than a launch between the two.
//
// Arrays over channels have `stride` entries, over hidden units `hidden_stride`: multiples of 16, zero beyond the real ones.
#ifndef WG
#define WG 256 // work-items of a group, a power of two, 16 at least
#endif
#define IMAGES 4
#define COLUMNS 16
#define SLICES (WG / COLUMNS)
#define ROWS 2 // of a matrix, that a team runs along together
// Work-items of a team: a hidden unit has a long row, a channel a short one.
#define LONG_TEAM (WG < 64 ? WG : 64)
#define SHORT_TEAM (WG < 32 ? WG : 32)
#define LAYER_NORM_EPS 1e-5f

// Weight of the reweighting branch: 1 - sigmoid(x_weight), 1 without one.
static float gate_weight(__global const float *x_weight, int has_weight)
{
    return has_weight ? 1.0f / (1.0f + exp(x_weight[0])) : 1.0f;
}

// Each of `num` values, summed over `size` work-items that are `step` apart, in a fixed order; all of these get the sums.
static void team_sums(float4 *values, int num, int size, int step, __local float4 *partial)
{
    const int item = get_local_id(0), at = item / step % size;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = 0; i < num; i++)
        partial[i * WG + item] = values[i];
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int reach = size / 2; reach > 0; reach /= 2) {
        for (int i = 0; i < num && at < reach; i++)
            partial[i * WG + item] += partial[i * WG + item + reach * step];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    for (int i = 0; i < num; i++)
        values[i] = partial[i * WG + item - at * step];
}

// Where the group's images begin in an array; in place of those that are not there the last one once more.
static int4 image_starts(int images, int stride)
{
    return min((int)get_group_id(1) * IMAGES + (int4)(0, 1, 2, 3), (int4)(images - 1)) * stride;
}

static float4 load_images(__global const float *p, int4 starts, int i)
{
    return (float4)(p[starts.x + i], p[starts.y + i], p[starts.z + i], p[starts.w + i]);
}

static void store_images(float4 v, __global float *p, int4 starts, int i, int images)
{
    const int num = images - (int)get_group_id(1) * IMAGES;
    p[starts.x + i] = v.x;
    if (num > 1)
        p[starts.y + i] = v.y;
    if (num > 2)
        p[starts.z + i] = v.z;
    if (num > 3)
        p[starts.w + i] = v.w;
}

// The hidden layer before LayerNorm or bias. One row more than it has units adds up the spread.
//   value      f32 [n, stride]          read    instance variances (layer_norm) or means
//   value_sum  f32 [stride]             read    over the images
//   w1         f32 [hidden, channels]   read
//   run_scale  f32 [1]                  updated when training; absent for SE
//   sums       f32 [n, hidden_stride]   write   W1 v
//   spread     f32 [1]                  write   s: sqrt of the mean variance, its running mean in evaluation, 1 for SE
// Work-groups: rows, images.
__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void reweight_simt(EQ_IN(float, value), EQ_IN(float, value_sum), EQ_IN(float, w1), EQ_BUF(float, run_scale),
                   EQ_BUF(float, sums), EQ_BUF(float, spread), int images, int channels, int hidden, int stride,
                   int hidden_stride, int layer_norm, int training, float momentum)
{
    EQ_IN_PTR(float, value);
    EQ_IN_PTR(float, value_sum);
    EQ_IN_PTR(float, w1);
    EQ_PTR(float, run_scale);
    EQ_PTR(float, sums);
    EQ_PTR(float, spread);
    __local float4 partial[ROWS * WG];
    const int item = get_local_id(0), lane = item % LONG_TEAM;
    const int first = (get_group_id(0) * (WG / LONG_TEAM) + item / LONG_TEAM) * ROWS;
    const int4 values = image_starts(images, stride);
    const bool adds_spread = layer_norm && training && get_group_id(1) == 0;
    float4 dots[ROWS];
    __global const float *row[ROWS];
    for (int r = 0; r < ROWS; r++) {
        dots[r] = (float4)(0.0f);
        row[r] = w1 + (size_t)min(first + r, hidden - 1) * channels;
    }
#pragma unroll 4
    for (int c = lane; c < channels && first < hidden; c += LONG_TEAM) {
        const float4 v = load_images(value, values, c);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            dots[r] = EQ_MAD((float4)(row[r][c]), v, dots[r]);
    }
    for (int r = 0; r < ROWS; r++) {
        if (first + r == hidden)
            dots[r] = (float4)(0.0f);
#pragma unroll 4
        for (int c = lane; c < channels && first + r == hidden && adds_spread; c += LONG_TEAM)
            dots[r].x += value_sum[c];
    }
    team_sums(dots, ROWS, LONG_TEAM, 1, partial);
    for (int r = 0; r < ROWS && lane == 0; r++)
        if (first + r < hidden) {
            store_images(dots[r], sums, image_starts(images, hidden_stride), first + r, images);
        } else if (first + r == hidden && get_group_id(1) == 0) {
            const float s = !layer_norm ? 1.0f : training ? sqrt(dots[r].x / ((float)images * channels)) : run_scale[0];
            if (layer_norm && training)
                run_scale[0] = EQ_MAD(momentum, s - run_scale[0], run_scale[0]);
            spread[0] = s;
        }
}

// LayerNorm's mean and 1 / standard deviation of the group's images; 0 and 1 without it.
//   sums f32 [n, hidden_stride]   read
static void layer_norm_of(__global const float *sums, int4 starts, int hidden, int layer_norm, float4 *mean, float4 *inverse,
                          __local float4 *partial)
{
    float4 sum = (float4)(0.0f), square = sum;
    *mean = sum;
    *inverse = (float4)(1.0f);
    if (!layer_norm)
        return;
    for (int j = get_local_id(0); j < hidden; j += WG)
        sum += load_images(sums, starts, j);
    team_sums(&sum, 1, WG, 1, partial);
    *mean = sum / hidden;
    for (int j = get_local_id(0); j < hidden; j += WG) {
        const float4 d = load_images(sums, starts, j) - *mean;
        square = EQ_MAD(d, d, square);
    }
    team_sums(&square, 1, WG, 1, partial);
    *inverse = 1.0f / sqrt(square / hidden + LAYER_NORM_EPS);
}

// The rest of the hidden layer, the output layer, and with it the affine map's part that differs between images.
//   sums       f32 [n, hidden_stride]     read
//   gain       f32 [hidden]               read    LayerNorm's; absent for SE
//   bias1      f32 [hidden]               read    LayerNorm's, or the linear layer's
//   w2         f32 [channels, hidden]     read
//   bias2      f32 [channels]             read    SE; else absent
//   spread     f32 [1], x_weight f32 [1]  read    x_weight: CE; else absent
//   a, b       f32 [stride]               read    x = a (z - k) + b
//   common     f32 [stride]               read    CE in training: shift of the decorrelating branch; else not read
//   run_map    f32 [channels, group]      read    CE in evaluation, where group > 0: the shift comes from it; else absent
//   active     f32 [n, hidden_stride]     write   after the ReLU
//   normal     f32 [n, hidden_stride]     write   before gain and bias (layer_norm)
//   deviation  f32 [n]                    write   1 / standard deviation of the hidden layer (layer_norm)
//   y, gate    f32 [n, stride]            write   gate = (1 - lambda) y / s
//   scale, shift  f32 [n, stride]         write
// Work-groups: rows, images.
__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void reweight_output_simt(EQ_IN(float, sums), EQ_IN(float, gain), EQ_IN(float, bias1), EQ_IN(float, w2), EQ_IN(float, bias2),
                          EQ_IN(float, spread), EQ_IN(float, x_weight), EQ_IN(float, a), EQ_IN(float, b),
                          EQ_IN(float, common), EQ_IN(float, run_map), EQ_BUF(float, active), EQ_BUF(float, normal),
                          EQ_BUF(float, deviation), EQ_BUF(float, y), EQ_BUF(float, gate), EQ_BUF(float, scale),
                          EQ_BUF(float, shift), int images, int channels, int hidden, int stride, int hidden_stride,
                          int layer_norm, int has_weight, int group)
{
    EQ_IN_PTR(float, sums);
    EQ_IN_PTR(float, gain);
    EQ_IN_PTR(float, bias1);
    EQ_IN_PTR(float, w2);
    EQ_IN_PTR(float, bias2);
    EQ_IN_PTR(float, spread);
    EQ_IN_PTR(float, x_weight);
    EQ_IN_PTR(float, a);
    EQ_IN_PTR(float, b);
    EQ_IN_PTR(float, common);
    EQ_IN_PTR(float, run_map);
    EQ_PTR(float, active);
    EQ_PTR(float, normal);
    EQ_PTR(float, deviation);
    EQ_PTR(float, y);
    EQ_PTR(float, gate);
    EQ_PTR(float, scale);
    EQ_PTR(float, shift);
    __local float4 partial[ROWS * WG], layer[WG]; // layer: a piece of the hidden one after the ReLU
    const int item = get_local_id(0), lane = item % SHORT_TEAM;
    const int first = (get_group_id(0) * (WG / SHORT_TEAM) + item / SHORT_TEAM) * ROWS;
    const int4 units = image_starts(images, hidden_stride);
    float4 mean, inverse, dots[ROWS], maps = (float4)(0.0f);
    layer_norm_of(sums, units, hidden, layer_norm, &mean, &inverse, partial);
    if (item == 0 && get_group_id(0) == 0 && layer_norm)
        store_images(inverse, deviation, image_starts(images, 1), 0, images);
    for (int r = 0; r < ROWS; r++)
        dots[r] = (float4)(0.0f);
    for (int begin = 0; begin < hidden_stride; begin += WG) {
        const int j = begin + item;
        float4 h = (float4)(0.0f), v = h;
        if (j < hidden) {
            h = (load_images(sums, units, j) - mean) * inverse;
            v = EQ_FROM_0(EQ_MAD(h, (float4)(layer_norm ? gain[j] : 1.0f), (float4)(bias1[j])), float4);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        layer[item] = v;
        barrier(CLK_LOCAL_MEM_FENCE);
        if (get_group_id(0) == 0 && j < hidden_stride) {
            store_images(v, active, units, j, images);
            if (layer_norm)
                store_images(h, normal, units, j, images);
        }
#pragma unroll 4
        for (int i = lane; i < min(hidden - begin, WG) && first < channels; i += SHORT_TEAM)
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                dots[r] =
                    EQ_MAD((float4)(w2[(size_t)min(first + r, channels - 1) * hidden + begin + i]), layer[i], dots[r]);
    }
    team_sums(dots, ROWS, SHORT_TEAM, 1, partial);
    if (group > 0) {
        for (int i = lane; i < group; i += SHORT_TEAM) {
            const int o = min(first, channels - 1), next = min(first + 1, channels - 1);
            maps.x = EQ_MAD(run_map[(size_t)o * group + i], b[o / group * group + i], maps.x);
            maps.y = EQ_MAD(run_map[(size_t)next * group + i], b[next / group * group + i], maps.y);
        }
        team_sums(&maps, 1, SHORT_TEAM, 1, partial);
    }
    const int o = first + lane;
    if (lane >= ROWS || o >= stride)
        return;
    const float share = gate_weight(x_weight, has_weight);
    float4 v = (float4)(0.0f);
    float shifted = 0.0f;
    if (o < channels) {
        v = 1.0f / (1.0f + exp(-((lane == 0 ? dots[0] : dots[1]) + (layer_norm ? 0.0f : bias2[o]))));
        shifted = group > 0 ? (1.0f - share) * (lane == 0 ? maps.x : maps.y) : has_weight ? common[o] : 0.0f;
    }
    const int4 at = image_starts(images, stride);
    const float4 g = share / spread[0] * v;
    store_images(v, y, at, o, images);
    store_images(g, gate, at, o, images);
    store_images(g * a[o], scale, at, o, images);
    store_images(EQ_MAD(g, (float4)(b[o]), (float4)(shifted)), shift, at, o, images);
}

// Backward through the output layer and the ReLU.
//   image_sum, image_product  f32 [n, stride]        read    sums of dp and dp (z - k)
//   a, b, y, spread, x_weight, active, w2            read    as above
//   dpre        f32 [n, stride]                      write   gradient before the sigmoid
//   total       f32 [n]                              write   sum of dp x y over the channels
//   dactive     f32 [n, hidden_stride]               write   gradient before the ReLU
// Work-groups: COLUMNS hidden units, images.
__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void reweight_grad_simt(EQ_IN(float, image_sum), EQ_IN(float, image_product), EQ_IN(float, a), EQ_IN(float, b),
                        EQ_IN(float, y), EQ_IN(float, spread), EQ_IN(float, x_weight), EQ_IN(float, active),
                        EQ_IN(float, w2), EQ_BUF(float, dpre), EQ_BUF(float, total), EQ_BUF(float, dactive), int images,
                        int channels, int hidden, int stride, int hidden_stride, int has_weight)
{
    EQ_IN_PTR(float, image_sum);
    EQ_IN_PTR(float, image_product);
    EQ_IN_PTR(float, a);
    EQ_IN_PTR(float, b);
    EQ_IN_PTR(float, y);
    EQ_IN_PTR(float, spread);
    EQ_IN_PTR(float, x_weight);
    EQ_IN_PTR(float, active);
    EQ_IN_PTR(float, w2);
    EQ_PTR(float, dpre);
    EQ_PTR(float, total);
    EQ_PTR(float, dactive);
    __local float4 partial[WG], layer[WG]; // layer: a piece of dpre
    const int item = get_local_id(0), slice = item / COLUMNS, j = get_group_id(0) * COLUMNS + item % COLUMNS;
    const int4 at = image_starts(images, stride), units = image_starts(images, hidden_stride);
    const float weight = gate_weight(x_weight, has_weight) / spread[0];
    float4 sum = (float4)(0.0f), products = sum;
    for (int begin = 0; begin < stride; begin += WG) {
        const int c = begin + item;
        float4 dp = (float4)(0.0f);
        if (c < stride) {
            const float4 v = load_images(y, at, c);
            const float4 d =
                EQ_MAD(load_images(image_product, at, c), (float4)(a[c]), load_images(image_sum, at, c) * b[c]) * v;
            sum += d;
            dp = weight * d * (1.0f - v);
            if (get_group_id(0) == 0)
                store_images(dp, dpre, at, c, images);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        layer[item] = dp;
        barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll 8
        for (int i = slice; i < min(channels - begin, WG) && j < hidden; i += SLICES)
            products = EQ_MAD((float4)(w2[(size_t)(begin + i) * hidden + j]), layer[i], products);
    }
    team_sums(&sum, 1, WG, 1, partial);
    if (item == 0 && get_group_id(0) == 0)
        store_images(sum, total, image_starts(images, 1), 0, images);
    team_sums(&products, 1, SLICES, COLUMNS, partial);
    if (slice == 0) // beyond the hidden units both are zero
        store_images(select((float4)(0.0f), products, isgreater(load_images(active, units, j), (float4)(0.0f))), dactive,
                     units, j, images);
}

// Backward through LayerNorm and W1.
//   dactive, normal f32 [n, hidden_stride], deviation, total f32 [n], gain f32 [hidden], w1, spread, x_weight, a   read
//   dhidden f32 [n, hidden_stride]   write   gradient of W1 v
//   dvalue  f32 [n, stride]   write   layer_norm: 2 / (pixels - 1) a (gradient of the variance), that by s included, so that
//                                     dvalue (z - image mean) is a term of x's gradient; SE: gradient of the mean
// Work-groups: COLUMNS channels, images.
__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void reweight_grad_input_simt(EQ_IN(float, dactive), EQ_IN(float, normal), EQ_IN(float, deviation), EQ_IN(float, total),
                              EQ_IN(float, gain), EQ_IN(float, w1), EQ_IN(float, spread), EQ_IN(float, x_weight),
                              EQ_IN(float, a), EQ_BUF(float, dhidden), EQ_BUF(float, dvalue), int images, int channels,
                              int hidden, int stride, int hidden_stride, int pixels, int layer_norm, int has_weight)
{
    EQ_IN_PTR(float, dactive);
    EQ_IN_PTR(float, normal);
    EQ_IN_PTR(float, deviation);
    EQ_IN_PTR(float, total);
    EQ_IN_PTR(float, gain);
    EQ_IN_PTR(float, w1);
    EQ_IN_PTR(float, spread);
    EQ_IN_PTR(float, x_weight);
    EQ_IN_PTR(float, a);
    EQ_PTR(float, dhidden);
    EQ_PTR(float, dvalue);
    __local float4 partial[3 * WG];
    __local float4 *layer = partial + WG; // a piece of dhidden
    const int item = get_local_id(0), slice = item / COLUMNS, c = get_group_id(0) * COLUMNS + item % COLUMNS;
    const int4 units = image_starts(images, hidden_stride);
    float4 of_norm[3] = { (float4)(0.0f), (float4)(0.0f), (float4)(0.0f) }; // mean, product with normal; lane x: of total
    float4 inverse = (float4)(1.0f), products = (float4)(0.0f);
    if (layer_norm) {
        for (int j = item; j < hidden; j += WG) {
            const float4 d = load_images(dactive, units, j) * gain[j];
            of_norm[0] += d;
            of_norm[1] = EQ_MAD(d, load_images(normal, units, j), of_norm[1]);
        }
        for (int n = item; n < images; n += WG)
            of_norm[2].x += total[n];
        team_sums(of_norm, 3, WG, 1, partial);
        inverse = load_images(deviation, image_starts(images, 1), 0);
    }
    const float4 mean = of_norm[0] / hidden, product = of_norm[1] / hidden;
    for (int begin = 0; begin < hidden_stride; begin += WG) {
        const int j = begin + item;
        float4 d = (float4)(0.0f);
        if (j < hidden) {
            d = load_images(dactive, units, j);
            if (layer_norm)
                d = inverse * (d * gain[j] - mean - load_images(normal, units, j) * product);
        }
        if (get_group_id(0) == 0 && j < hidden_stride)
            store_images(d, dhidden, units, j, images);
        barrier(CLK_LOCAL_MEM_FENCE);
        layer[item] = d;
        barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll 8
        for (int i = slice; i < min(hidden - begin, WG) && c < channels; i += SLICES)
            products = EQ_MAD((float4)(w1[(size_t)(begin + i) * channels + c]), layer[i], products);
    }
    team_sums(&products, 1, SLICES, COLUMNS, partial);
    if (slice > 0)
        return;
    if (layer_norm) { // a is zero beyond the real channels
        const float s = spread[0];
        const float by_spread =
            of_norm[2].x * gate_weight(x_weight, has_weight) / (s * s * 2.0f * s * ((float)images * channels));
        products = 2.0f / (pixels - 1) * (products - by_spread) * a[c];
    }
    store_images(products, dvalue, image_starts(images, stride), c, images);
}

// Gradient of a linear layer's matrix: dweight = sum over images of left^T right, in order.
//   left   f32 [images, left_stride]    read
//   right  f32 [images, right_stride]   read
//   dweight f32 [rows, columns]         write
// Work-items: columns, 4 rows.
__kernel void reweight_weight_grad_simt(EQ_IN(float, left), EQ_IN(float, right), EQ_BUF(float, dweight), int rows,
                                        int columns, int left_stride, int right_stride, int images)
{
    EQ_IN_PTR(float, left);
    EQ_IN_PTR(float, right);
    EQ_PTR(float, dweight);
    const int column = get_global_id(0), row = get_global_id(1) * 4;
    if (column >= columns || row >= rows)
        return;
    float4 v = (float4)(0.0f);
#pragma unroll 8
    for (int n = 0; n < images; n++)
        v = EQ_MAD(vload4(0, left + n * left_stride + row), (float4)(right[n * right_stride + column]), v);
    __global float *to = dweight + (size_t)row * columns + column;
    to[0] = v.x;
    if (row + 1 < rows)
        to[columns] = v.y;
    if (row + 2 < rows)
        to[2 * columns] = v.z;
    if (row + 3 < rows)
        to[3 * columns] = v.w;
}

// Gradients of vectors: sums over the images of left, and of left * right where dgain is there (has_gain).
//   left, right  f32 [images, stride]   read
//   dbias, dgain f32 [num]              write
// Work-groups: COLUMNS entries.
__kernel __attribute__((reqd_work_group_size(WG, 1, 1)))
void reweight_vector_grad_simt(EQ_IN(float, left), EQ_IN(float, right), EQ_BUF(float, dbias), EQ_BUF(float, dgain), int num,
                               int stride, int images, int has_gain)
{
    EQ_IN_PTR(float, left);
    EQ_IN_PTR(float, right);
    EQ_PTR(float, dbias);
    EQ_PTR(float, dgain);
    __local float4 partial[WG];
    const int item = get_local_id(0), slice = item / COLUMNS, j = get_group_id(0) * COLUMNS + item % COLUMNS;
    float4 sums = (float4)(0.0f); // x: of left, y: of left * right
#pragma unroll 4
    for (int n = slice; n < images && j < num; n += SLICES) {
        const float v = left[n * stride + j];
        sums.x += v;
        if (has_gain)
            sums.y = EQ_MAD(v, right[n * stride + j], sums.y);
    }
    team_sums(&sums, 1, SLICES, COLUMNS, partial);
    if (slice > 0 || j >= num)
        return;
    dbias[j] = sums.x;
    if (has_gain)
        dgain[j] = sums.y;
}

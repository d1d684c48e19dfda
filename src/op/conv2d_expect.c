// Elements of convolutions and their gradients as sums in double precision, straight from the definition: what the tuner
// compares kernels with.
#include <math.h>

#include "op/conv2d.h"

struct sum {
    double value, magnitude;
};

static void add(struct sum *sum, float a, float b)
{
    sum->value += (double)a * (double)b;
    sum->magnitude += fabs((double)a * (double)b);
}

struct place {
    int n, c, h, w;
};

static struct place place_of(const struct eq_tensor *t, size_t index)
{
    const size_t w = (size_t)t->w, h = (size_t)t->h, c = (size_t)t->c;
    return (struct place){ (int)(index / (w * h * c)), (int)(index / (w * h) % c), (int)(index / w % h), (int)(index % w) };
}

static float at(const struct eq_tensor *t, const float *plain, int n, int c, int h, int w)
{
    return plain[(((size_t)n * (size_t)t->c + (size_t)c) * (size_t)t->h + (size_t)h) * (size_t)t->w + (size_t)w];
}

double eq_conv2d_expect(const struct eq_call *call, const float *const *inputs, size_t index, double *magnitude)
{
    const struct eq_conv2d_attributes *a = call->attributes;
    const struct eq_tensor *x = &call->input[0], *w = &call->input[1];
    const struct place z = place_of(&call->output[0], index);
    const int groups = x->c / w->c, first = z.c / (w->n / groups) * w->c; // channel of x
    struct sum sum = { 0, 0 };
    for (int c = 0; c < w->c; c++)
        for (int i = 0; i < w->h; i++)
            for (int j = 0; j < w->w; j++) {
                const int y = z.h * a->stride_h + i - a->pad_h, column = z.w * a->stride_w + j - a->pad_w;
                if (y >= 0 && y < x->h && column >= 0 && column < x->w)
                    add(&sum, at(x, inputs[0], z.n, first + c, y, column), at(w, inputs[1], z.c, c, i, j));
            }
    *magnitude = sum.magnitude;
    return sum.value;
}

double eq_conv2d_data_grad_expect(const struct eq_call *call, const float *const *inputs, size_t index, double *magnitude)
{
    const struct eq_conv2d_attributes *a = &((const struct eq_conv2d_data_grad_attributes *)call->attributes)->conv;
    const struct eq_tensor *dz = &call->input[0], *w = &call->input[1];
    const struct place x = place_of(&call->output[0], index);
    struct sum sum = { 0, 0 };
    const int per_out = w->n / (call->output[0].c / w->c), group = x.c / w->c;
    for (int oc = group * per_out; oc < (group + 1) * per_out; oc++)
        for (int i = 0; i < w->h; i++)
            for (int j = 0; j < w->w; j++) {
                const int y = x.h + a->pad_h - i, column = x.w + a->pad_w - j; // stride times the pixel of dz
                if (y >= 0 && column >= 0 && y % a->stride_h == 0 && column % a->stride_w == 0 && y / a->stride_h < dz->h &&
                    column / a->stride_w < dz->w)
                    add(&sum, at(dz, inputs[0], x.n, oc, y / a->stride_h, column / a->stride_w),
                        at(w, inputs[1], oc, x.c % w->c, i, j));
            }
    if (call->has[2])
        add(&sum, inputs[2][index], 1);
    *magnitude = sum.magnitude;
    return sum.value;
}

double eq_conv2d_weight_grad_expect(const struct eq_call *call, const float *const *inputs, size_t index, double *magnitude)
{
    const struct eq_conv2d_attributes *a = &((const struct eq_conv2d_weight_grad_attributes *)call->attributes)->conv;
    const struct eq_tensor *x = &call->input[0], *dz = &call->input[1];
    const struct place w = place_of(&call->output[0], index);
    const int per_in = call->output[0].c, per_out = dz->c / (x->c / per_in);
    struct sum sum = { 0, 0 };
    for (int n = 0; n < dz->n; n++)
        for (int h = 0; h < dz->h; h++)
            for (int column = 0; column < dz->w; column++) {
                const int y = h * a->stride_h + w.h - a->pad_h, from = column * a->stride_w + w.w - a->pad_w;
                if (y >= 0 && y < x->h && from >= 0 && from < x->w)
                    add(&sum, at(x, inputs[0], n, w.n / per_out * per_in + w.c, y, from), at(dz, inputs[1], n, w.n, h, column));
            }
    *magnitude = sum.magnitude;
    return sum.value;
}

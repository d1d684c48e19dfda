// Sampled elements of results, in double precision and by definition.
#include <math.h>

#include "train/bench_op.h"

struct position {
    int n, c, y, x;
};

static struct position position_of(const struct eq_tensor *t, size_t index)
{
    const size_t w = (size_t)t->w, h = (size_t)t->h, c = (size_t)t->c;
    return (struct position){ (int)(index / w / h / c), (int)(index / w / h % c), (int)(index / w % h), (int)(index % w) };
}

static double at(const struct eq_tensor *t, const float *plain, int n, int c, int y, int x)
{
    return plain[(((size_t)n * (size_t)t->c + (size_t)c) * (size_t)t->h + (size_t)y) * (size_t)t->w + (size_t)x];
}

static bool is_inside(const struct eq_tensor *t, int y, int x)
{
    return y >= 0 && y < t->h && x >= 0 && x < t->w;
}

static double pool_max(const struct eq_call *call, const float *const *in, size_t index, double *magnitude)
{
    const struct eq_pool_max_attributes *a = call->attributes;
    const struct position p = position_of(&call->output[0], index);
    double best = -INFINITY;
    for (int i = 0; i < a->kh; i++)
        for (int j = 0; j < a->kw; j++) {
            const int y = p.y * a->stride_h + i - a->pad_h, x = p.x * a->stride_w + j - a->pad_w;
            if (is_inside(&call->input[0], y, x))
                best = fmax(best, at(&call->input[0], in[0], p.n, p.c, y, x));
        }
    *magnitude = fabs(best);
    return best;
}

static double pool_avg(const struct eq_call *call, const float *const *in, size_t index, double *magnitude)
{
    const struct eq_tensor *x = &call->input[0];
    const struct position p = position_of(&call->output[0], index);
    double sum = 0, all = 0;
    for (int y = 0; y < x->h; y++)
        for (int k = 0; k < x->w; k++) {
            const double value = at(x, in[0], p.n, p.c, y, k);
            sum += value;
            all += fabs(value);
        }
    *magnitude = all / x->h / x->w;
    return sum / x->h / x->w;
}

static double linear(const struct eq_call *call, const float *const *in, size_t index, double *magnitude)
{
    const size_t c = (size_t)call->input[0].c, k = (size_t)call->output[0].c;
    const float *x = in[0] + index / k * c, *w = in[1] + index % k * c;
    double sum = in[2][index % k], all = fabs(sum);
    for (size_t i = 0; i < c; i++) {
        sum += (double)x[i] * (double)w[i];
        all += fabs((double)x[i] * (double)w[i]);
    }
    *magnitude = all;
    return sum;
}

static double add(const struct eq_call *call, const float *const *in, size_t index, double *magnitude)
{
    (void)call;
    *magnitude = fabs((double)in[0][index]) + fabs((double)in[1][index]);
    return (double)in[0][index] + (double)in[1][index];
}

static double activate(enum eq_activation activation, double value)
{
    if (activation == EQ_ACT_RELU)
        return fmax(value, 0);
    return activation == EQ_ACT_ELU && value < 0 ? expm1(value) : value;
}

// A normalisation alone, by the batch's own moments or the running ones, the residual and the activation.
static double unit(const struct eq_call *call, const float *const *in, size_t index, double *magnitude)
{
    const struct eq_unit_attributes *a = call->attributes;
    const struct eq_tensor *z = &call->input[EQ_UNIT_Z];
    const struct position p = position_of(z, index);
    double value = in[EQ_UNIT_Z][index], scale = 1, sum = 0, square = 0, samples = (double)z->n * z->h * z->w;
    if (a->method == EQ_UNIT_BN) {
        double mean = in[EQ_UNIT_MEAN][p.c], variance = in[EQ_UNIT_VAR][p.c];
        if (call->training) {
            for (int n = 0; n < z->n; n++)
                for (int i = 0; i < z->h * z->w; i++)
                    sum += at(z, in[EQ_UNIT_Z], n, p.c, i / z->w, i % z->w);
            mean = sum / samples;
            for (int n = 0; n < z->n; n++)
                for (int i = 0; i < z->h * z->w; i++)
                    square += pow(at(z, in[EQ_UNIT_Z], n, p.c, i / z->w, i % z->w) - mean, 2);
            variance = square / samples;
        }
        scale = in[EQ_UNIT_GAMMA][p.c] / sqrt(variance + (double)a->bn_eps);
        value = (value - mean) * scale + in[EQ_UNIT_BETA][p.c];
        *magnitude = fabs(mean * scale) + fabs((double)in[EQ_UNIT_BETA][p.c]);
    }
    *magnitude += fabs(in[EQ_UNIT_Z][index] * scale);
    if (call->has[EQ_UNIT_RESIDUAL]) {
        value += in[EQ_UNIT_RESIDUAL][index];
        *magnitude += fabs((double)in[EQ_UNIT_RESIDUAL][index]);
    }
    return activate(a->activation, value);
}

double eq_bench_expect_fused(const struct eq_call *call, const struct eq_call *prepare, const float *const *inputs,
                             const float *const *prepared, size_t index, double *magnitude)
{
    enum { X, RESIDUAL = EQ_CONV2D_FUSED_RESIDUAL, W = 0, GAMMA, BETA, MEAN, VAR };
    const struct eq_conv2d_fused_attributes *a = call->attributes;
    const struct eq_conv2d_prepare_attributes *norm = prepare->attributes;
    const struct eq_tensor *x = &call->input[X], *w = &prepare->input[W];
    const struct position p = position_of(&call->output[0], index);
    const int first = p.c / (a->oc / (x->c / w->c)) * w->c; // channel of the group
    double sum = 0, all = 0, scale = 1, shift = 0;
    for (int c = 0; c < w->c; c++)
        for (int i = 0; i < a->kh; i++)
            for (int j = 0; j < a->kw; j++) {
                const int y = p.y * a->conv.stride_h + i - a->conv.pad_h, k = p.x * a->conv.stride_w + j - a->conv.pad_w;
                const double product =
                    is_inside(x, y, k) ? at(x, inputs[X], p.n, first + c, y, k) * at(w, prepared[W], p.c, c, i, j) : 0;
                sum += product;
                all += fabs(product);
            }
    if (prepare->has[GAMMA]) {
        scale = prepared[GAMMA][p.c] / sqrt(prepared[VAR][p.c] + (double)norm->eps);
        shift = prepared[BETA][p.c] - prepared[MEAN][p.c] * scale;
    }
    const double residual = call->has[RESIDUAL] ? inputs[RESIDUAL][index] : 0;
    *magnitude = all * fabs(scale) + fabs(shift) + fabs(residual);
    return activate(a->activation, sum * scale + shift + residual);
}

static bool is_normalisation(const struct eq_call *call)
{
    const struct eq_unit_attributes *a = call->attributes;
    return a->method == EQ_UNIT_BN || a->method == EQ_UNIT_NONE;
}

eq_bench_expect_fn eq_bench_expect(const struct eq_call *call)
{
    if (call->op->expect)
        return call->op->expect;
    if (call->op == &eq_op_unit)
        return is_normalisation(call) ? unit : NULL;
    const struct {
        const struct eq_op *op;
        eq_bench_expect_fn expect;
    } known[] = {
        { &eq_op_pool_max, pool_max }, { &eq_op_pool_avg, pool_avg }, { &eq_op_linear, linear }, { &eq_op_add, add }
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].op == call->op)
            return known[i].expect;
    return NULL;
}

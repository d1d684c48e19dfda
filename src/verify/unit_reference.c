#include "verify/unit_reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "verify/check.h"

int unit_reference_group(int channels, int group)
{
    while (channels % group)
        group /= 2;
    return group;
}

size_t unit_reference_elems(const struct unit_reference *r, int input)
{
    const enum eq_unit_method m = r->attributes.method;
    const size_t c = (size_t)r->c, hidden = (size_t)r->attributes.hidden;
    const bool matrix = m == EQ_UNIT_CE || m == EQ_UNIT_BD, ir = m == EQ_UNIT_CE || m == EQ_UNIT_IR, se = m == EQ_UNIT_SE;
    switch (input) {
    case EQ_UNIT_Z: return (size_t)r->n * c * (size_t)r->h * (size_t)r->w;
    case EQ_UNIT_GAMMA:
    case EQ_UNIT_BETA:
    case EQ_UNIT_MEAN:
    case EQ_UNIT_VAR: return m == EQ_UNIT_NONE ? 0 : c;
    case EQ_UNIT_X_WEIGHT: return m == EQ_UNIT_CE;
    case EQ_UNIT_CE_MEAN: return matrix ? c : 0;
    case EQ_UNIT_CE_WM: return matrix ? c * (size_t)unit_reference_group(r->c, r->attributes.group) : 0;
    case EQ_UNIT_SCALE: return ir;
    case EQ_UNIT_W1:
    case EQ_UNIT_W2: return ir ? hidden * c : 0;
    case EQ_UNIT_LN_GAMMA:
    case EQ_UNIT_LN_BETA: return ir ? hidden : 0;
    case EQ_UNIT_FC1:
    case EQ_UNIT_FC2: return se ? hidden * c : 0;
    case EQ_UNIT_FC1_BIAS: return se ? hidden : 0;
    case EQ_UNIT_FC2_BIAS: return se ? c : 0;
    default: return 0;
    }
}

static double lerp(double old, double new, double momentum)
{
    return (1.0 - momentum) * old + momentum * new;
}

// x[n, c, pixels] = normalised z.
static void batch_norm(struct unit_reference *r, double *x)
{
    const int l = r->h * r->w;
    const double m = (double)r->n * l;
    for (int c = 0; c < r->c; c++) {
        double mean = 0, var = 0;
        for (int n = 0; n < r->n; n++)
            for (int p = 0; p < l; p++)
                mean += r->input[EQ_UNIT_Z][((size_t)n * r->c + c) * l + p] / m;
        for (int n = 0; n < r->n; n++)
            for (int p = 0; p < l; p++)
                var += pow(r->input[EQ_UNIT_Z][((size_t)n * r->c + c) * l + p] - mean, 2) / m;
        if (r->training && r->after[EQ_UNIT_MEAN]) {
            r->after[EQ_UNIT_MEAN][c] = lerp(r->input[EQ_UNIT_MEAN][c], mean, r->attributes.momentum);
            r->after[EQ_UNIT_VAR][c] = lerp(r->input[EQ_UNIT_VAR][c], var * m / (m - 1), r->attributes.momentum);
        }
        if (!r->training) {
            mean = r->input[EQ_UNIT_MEAN][c];
            var = r->input[EQ_UNIT_VAR][c];
        }
        for (int n = 0; n < r->n; n++)
            for (int p = 0; p < l; p++) {
                const size_t i = ((size_t)n * r->c + c) * l + p;
                x[i] = (r->input[EQ_UNIT_Z][i] - mean) / sqrt(var + (double)r->attributes.bn_eps) * r->input[EQ_UNIT_GAMMA][c] +
                       r->input[EQ_UNIT_BETA][c];
            }
    }
}

static void multiply(int g, const double *a, const double *b, double *to)
{
    for (int i = 0; i < g; i++)
        for (int j = 0; j < g; j++) {
            double sum = 0;
            for (int k = 0; k < g; k++)
                sum += a[i * g + k] * b[k * g + j];
            to[i * g + j] = sum;
        }
}

// W of the group that begins at channel `first`.
static void whitening(struct unit_reference *r, const double *x, int g, int first, double *w)
{
    const int l = r->h * r->w;
    const double m = (double)r->n * l;
    double *mean = eq_check_calloc((size_t)g, sizeof *mean), *sigma = eq_check_calloc((size_t)g * g, sizeof *sigma);
    double *square = eq_check_malloc((size_t)g * g, sizeof *square), *cube = eq_check_malloc((size_t)g * g, sizeof *cube);
    double trace = 0;
    for (int i = 0; i < g; i++) {
        for (int n = 0; n < r->n; n++)
            for (int p = 0; p < l; p++)
                mean[i] += x[((size_t)n * r->c + first + i) * l + p] / m;
        if (r->after[EQ_UNIT_CE_MEAN])
            r->after[EQ_UNIT_CE_MEAN][first + i] = lerp(r->input[EQ_UNIT_CE_MEAN][first + i], mean[i], r->attributes.momentum);
    }
    for (int i = 0; i < g; i++)
        for (int j = 0; j < g; j++) {
            for (int n = 0; n < r->n; n++)
                for (int p = 0; p < l; p++)
                    sigma[i * g + j] += (x[((size_t)n * r->c + first + i) * l + p] - mean[i]) *
                                        (x[((size_t)n * r->c + first + j) * l + p] - mean[j]) / m;
            sigma[i * g + j] += i == j ? (double)r->attributes.ce_eps : 0;
            w[i * g + j] = i == j;
        }
    for (int i = 0; i < g; i++)
        trace += sigma[i * g + i];
    for (int i = 0; i < g * g; i++)
        sigma[i] /= trace;
    for (int t = 0; t < r->attributes.iterations; t++) {
        multiply(g, w, w, square);
        multiply(g, square, w, cube);
        multiply(g, cube, sigma, square);
        for (int i = 0; i < g * g; i++)
            w[i] = 1.5 * w[i] - 0.5 * square[i];
    }
    free(mean);
    free(sigma);
    free(square);
    free(cube);
}

// to += weight * W x.
static void decorrelate(struct unit_reference *r, const double *x, double weight, double *to)
{
    const int l = r->h * r->w, g = unit_reference_group(r->c, r->attributes.group);
    double *w = eq_check_malloc((size_t)g * g, sizeof *w);
    for (int first = 0; first < r->c; first += g) {
        const double *running = r->input[EQ_UNIT_CE_WM] + (size_t)first * g;
        if (r->training)
            whitening(r, x, g, first, w);
        else
            memcpy(w, running, (size_t)g * g * sizeof *w);
        for (int i = 0; r->training && r->after[EQ_UNIT_CE_WM] && i < g * g; i++)
            r->after[EQ_UNIT_CE_WM][(size_t)first * g + i] = lerp(running[i], w[i], r->attributes.momentum);
        for (int n = 0; n < r->n; n++)
            for (int i = 0; i < g; i++)
                for (int j = 0; j < g; j++)
                    for (int p = 0; p < l; p++)
                        to[((size_t)n * r->c + first + i) * l + p] +=
                            weight * w[i * g + j] * x[((size_t)n * r->c + first + j) * l + p];
    }
    free(w);
}

// y[c] = sigmoid(second(relu(first(value)))) of one image.
static void gate_network(const struct unit_reference *r, const double *value, double *y)
{
    const bool se = r->attributes.method == EQ_UNIT_SE;
    const double *w1 = r->input[se ? EQ_UNIT_FC1 : EQ_UNIT_W1], *w2 = r->input[se ? EQ_UNIT_FC2 : EQ_UNIT_W2];
    const int hidden = r->attributes.hidden;
    double *h = eq_check_calloc((size_t)hidden, sizeof *h), mean = 0, var = 0;
    for (int j = 0; j < hidden; j++)
        for (int c = 0; c < r->c; c++)
            h[j] += w1[j * r->c + c] * value[c];
    for (int j = 0; j < hidden; j++)
        mean += h[j] / hidden;
    for (int j = 0; j < hidden; j++)
        var += (h[j] - mean) * (h[j] - mean) / hidden;
    for (int j = 0; j < hidden; j++) {
        h[j] = se ? h[j] + r->input[EQ_UNIT_FC1_BIAS][j]
                  : (h[j] - mean) / sqrt(var + 1e-5) * r->input[EQ_UNIT_LN_GAMMA][j] + r->input[EQ_UNIT_LN_BETA][j];
        h[j] = h[j] > 0 ? h[j] : 0;
    }
    for (int c = 0; c < r->c; c++) {
        double v = se ? r->input[EQ_UNIT_FC2_BIAS][c] : 0;
        for (int j = 0; j < hidden; j++)
            v += w2[c * hidden + j] * h[j];
        y[c] = 1 / (1 + exp(-v));
    }
    free(h);
}

// to += weight * x * gate.
static void reweight(struct unit_reference *r, const double *x, double weight, double *to)
{
    const bool se = r->attributes.method == EQ_UNIT_SE;
    const int l = r->h * r->w, num = r->n * r->c;
    double *value = eq_check_calloc((size_t)num, sizeof *value), *y = eq_check_malloc((size_t)r->c, sizeof *y), s = 0;
    for (int i = 0; i < num; i++) {
        double mean = 0;
        for (int p = 0; p < l; p++)
            mean += x[(size_t)i * l + p] / l;
        for (int p = 0; p < l && !se; p++)
            value[i] += pow(x[(size_t)i * l + p] - mean, 2) / (l - 1);
        if (se)
            value[i] = mean;
        s += value[i] / num;
    }
    s = se ? 1 : sqrt(s);
    if (r->training && r->after[EQ_UNIT_SCALE])
        r->after[EQ_UNIT_SCALE][0] = lerp(r->input[EQ_UNIT_SCALE][0], s, r->attributes.momentum);
    if (!r->training && !se)
        s = r->input[EQ_UNIT_SCALE][0];
    for (int n = 0; n < r->n; n++) {
        gate_network(r, value + n * r->c, y);
        for (int c = 0; c < r->c; c++)
            for (int p = 0; p < l; p++) {
                const size_t i = ((size_t)n * r->c + c) * l + p;
                to[i] += weight * x[i] * y[c] / s;
            }
    }
    free(value);
    free(y);
}

void unit_reference_forward(struct unit_reference *r)
{
    const enum eq_unit_method m = r->attributes.method;
    const size_t num = unit_reference_elems(r, EQ_UNIT_Z);
    double *x = eq_check_malloc(num, sizeof *x);
    const double lambda = m == EQ_UNIT_CE ? 1 / (1 + exp(-r->input[EQ_UNIT_X_WEIGHT][0])) : m == EQ_UNIT_BD;
    if (m == EQ_UNIT_NONE)
        memcpy(x, r->input[EQ_UNIT_Z], num * sizeof *x);
    else
        batch_norm(r, x);
    memset(r->out, 0, num * sizeof *x);
    if (m == EQ_UNIT_CE || m == EQ_UNIT_BD)
        decorrelate(r, x, lambda, r->out);
    if (m == EQ_UNIT_CE || m == EQ_UNIT_IR || m == EQ_UNIT_SE)
        reweight(r, x, 1 - lambda, r->out);
    for (size_t i = 0; i < num; i++) {
        double v = m == EQ_UNIT_NONE || m == EQ_UNIT_BN ? x[i] : r->out[i];
        v += r->input[EQ_UNIT_RESIDUAL] ? r->input[EQ_UNIT_RESIDUAL][i] : 0;
        if (v < 0 && r->attributes.activation != EQ_ACT_NONE)
            v = r->attributes.activation == EQ_ACT_RELU ? 0 : exp(v) - 1;
        r->out[i] = v;
    }
    free(x);
}

static double weighted_output(struct unit_reference *r, const double *dout)
{
    double sum = 0;
    unit_reference_forward(r);
    for (size_t j = 0; j < unit_reference_elems(r, EQ_UNIT_Z); j++)
        sum += dout[j] * r->out[j];
    return sum;
}

double unit_reference_derivative(struct unit_reference *r, const double *dout, int input, size_t i)
{
    double *const at = &r->input[input][i], value = *at, step = 1e-5, sum = 0;
    for (int side = -1; side <= 1; side += 2) {
        *at = value + side * step;
        sum += side * weighted_output(r, dout);
    }
    *at = value;
    return sum / (2 * step);
}

double unit_reference_derivative_along(struct unit_reference *r, const double *dout, int input, const float *direction)
{
    const size_t elems = unit_reference_elems(r, input);
    double *const values = r->input[input], *moved = eq_check_malloc(elems, sizeof *moved), sum = 0;
    const double step = 1e-6; // shorter: more values may cross the activation's bend
    r->input[input] = moved;
    for (int side = -1; side <= 1; side += 2) {
        for (size_t i = 0; i < elems; i++)
            moved[i] = values[i] + side * step * (double)direction[i];
        sum += side * weighted_output(r, dout);
    }
    r->input[input] = values;
    free(moved);
    return sum / (2 * step);
}

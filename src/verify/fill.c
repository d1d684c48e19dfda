#include "verify/fill.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

static double uniform_at(uint64_t key, size_t i)
{
    return 2 * eq_random_unit(key, i) - 1;
}

void eq_fill_uniform(const char *name, double *values, size_t n)
{
    uint64_t key = eq_fnv1a(name, strlen(name), EQ_FNV_START);
    for (size_t i = 0; i < n; i++)
        values[i] = uniform_at(key, i);
}

void eq_fill_parameter(const char *name, int rank, const int s[4], float *values)
{
    uint64_t key = eq_fnv1a(name, strlen(name), EQ_FNV_START);
    size_t n = (size_t)s[0] * (size_t)s[1] * (size_t)s[2] * (size_t)s[3];
    double scale = 0.25, shift = 0;
    if (rank == 4)
        scale = sqrt(3.0) * sqrt(2.0 / ((double)s[0] * s[2] * s[3]));
    else if (rank == 2)
        scale = sqrt(3.0 / s[1]);
    else if (eq_str_ends(name, "x_weight"))
        shift = 0;
    else if (eq_str_ends(name, "bn3.weight"))
        scale = 0.05, shift = 0.2;
    else if (eq_str_ends(name, "weight"))
        shift = 1;
    for (size_t i = 0; i < n; i++)
        values[i] = (float)(shift + scale * uniform_at(key, i));
}

void eq_fill_probes(const char *name, const float *gradient, size_t n, double probes[4])
{
    for (int j = 0; j < 4; j++) {
        char text[300];
        snprintf(text, sizeof text, "%s.probe%d", name, j);
        uint64_t key = eq_fnv1a(text, strlen(text), EQ_FNV_START);
        probes[j] = 0;
        for (size_t i = 0; i < n; i++)
            probes[j] += gradient[i] * uniform_at(key, i);
    }
}

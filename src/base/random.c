// Hashing (FNV-1a) and counter-based random numbers (splitmix64; Steele, Lea, Flood 2014).
#include <math.h>
#include <string.h>

#include "base/base.h"

#define GOLDEN 0x9e3779b97f4a7c15ull

uint64_t eq_fnv1a(const void *data, size_t bytes, uint64_t hash)
{
    const unsigned char *at = data;
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ at[i]) * 0x100000001b3ull;
    return hash;
}

uint64_t eq_random_bits(uint64_t key, uint64_t i)
{
    uint64_t z = key + (i + 1) * GOLDEN;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

uint64_t eq_random_key(uint64_t seed, uint64_t epoch, uint64_t item, const char *purpose)
{
    uint64_t key = eq_fnv1a(purpose, strlen(purpose), EQ_FNV_START);
    key = eq_random_bits(key ^ seed, 0);
    key = eq_random_bits(key ^ epoch, 1);
    return eq_random_bits(key ^ item, 2);
}

double eq_random_unit(uint64_t key, uint64_t i)
{
    return (double)(eq_random_bits(key, i) >> 11) * 0x1p-53;
}

double eq_random_normal(uint64_t key, uint64_t i)
{
    double radius = sqrt(-2.0 * log(1.0 - eq_random_unit(key, 2 * i)));
    return radius * cos(6.283185307179586 * eq_random_unit(key, 2 * i + 1));
}

void eq_random_permutation(uint64_t key, size_t *order, size_t n)
{
    for (size_t i = 0; i < n; i++)
        order[i] = i;
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)(eq_random_unit(key, n - i) * (double)i), held = order[i - 1];
        order[i - 1] = order[j];
        order[j] = held;
    }
}

// Tuned parameters: choices that change speed (and the order of sums), never the result's meaning.
//
// A tuning maps a key, the text of a kernel and the shape it works on ("conv2d_vector ic=64 oc=64 h=56 w=56 k=3x3 s=1x1"), to a
// few integers. Ops ask for their key and fall back to their own model where there is none, or where the values do not fit.
#ifndef EQ_RT_TUNE_H
#define EQ_RT_TUNE_H

#include "base/base.h"

enum { EQ_TUNE_MAX_VALUES = 8, EQ_TUNE_MAX_KEY = 160 };

struct eq_tuning;
// Fills values[0 .. num) and returns true where the tuning (NULL: empty) has exactly `num` values for the key.
bool eq_tuning_find(const struct eq_tuning *tuning, const char *key, int *values, int num);

#endif

// Whole networks against files of the reference script.
#ifndef EQ_VERIFY_NETWORK_H
#define EQ_VERIFY_NETWORK_H

#include "equil/data.h"
#include "verify/check.h"

// Logits, gradients, running statistics, evaluation and losses of the network in the file, on the target as it is. `name` says
// which network it is: "ce-resnet20_32_small_elu". num_steps: SGD steps whose losses are compared, at most as many as the file
// has. in_full: statistics settle by as many forward passes as the script does, and not by a formula.
void network_check(const struct eq_tensors *file, const char *name, size_t num_steps, bool in_full);

#endif

// Files of tests/golden inside the program (embed.py), without the tensors that only tests read.
#ifndef EQ_VERIFY_GOLDEN_H
#define EQ_VERIFY_GOLDEN_H

#include <stddef.h>

extern const unsigned char eq_golden_image[], eq_golden_network[];
extern const size_t eq_golden_image_bytes, eq_golden_network_bytes;

#endif

// Sums gradients over batches, for a batch that does not fit the device at once.
#include <limits.h>

#include "op/flat.h"

eq_status eq_accumulate_emit(struct eq_list *list, size_t elems, struct eq_ref grad, struct eq_ref sum, float scale, bool first)
{
    EQ_REQUIRE(elems > 0 && elems <= INT_MAX - EQ_FLAT_CHUNK, EQ_ERR_UNSUPPORTED,
               "accumulate: %zu elements; this version takes 1 to %d", elems, INT_MAX - EQ_FLAT_CHUNK);
    const struct eq_options options = eq_options_format("-DCHUNK=%d -DFIRST=%d", eq_flat_chunk(eq_list_target(list)), first);
    const struct eq_launch launch = {
        .source = "accumulate",
        .options = options.text,
        .kernel = "accumulate_step",
        .range = eq_flat_range(eq_list_target(list), elems, 1),
        .cost = { (first ? 1.0 : 2.0) * (double)elems, (first ? 8.0 : 12.0) * (double)elems },
    };
    return eq_list_kernel(list, &launch, EQ_ARGS(EQ_REF(grad), EQ_REF(sum), EQ_I32(elems), EQ_F32(scale)));
}

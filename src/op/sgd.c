// The optimiser's step, over a whole piece of the parameter store at once, and its guard.
#include <limits.h>

#include "op/flat.h"

eq_status eq_sgd_emit(struct eq_list *list, size_t elems, struct eq_ref weight, struct eq_ref grad, struct eq_ref velocity,
                      struct eq_ref hyper)
{
    EQ_REQUIRE(elems > 0 && elems <= INT_MAX - EQ_FLAT_CHUNK, EQ_ERR_UNSUPPORTED,
               "sgd: %zu elements; this version takes 1 to %d", elems, INT_MAX - EQ_FLAT_CHUNK);
    const struct eq_options options = eq_options_format("-DCHUNK=%d", eq_flat_chunk(eq_list_target(list)));
    const struct eq_launch launch = {
        .source = "sgd",
        .options = options.text,
        .kernel = "sgd_step",
        .range = eq_flat_range(eq_list_target(list), elems, 1),
        .cost = { 6.0 * (double)elems, 20.0 * (double)elems },
    };
    return eq_list_kernel(list, &launch, EQ_ARGS(EQ_REF(grad), EQ_REF(hyper), EQ_REF(weight), EQ_REF(velocity), EQ_I32(elems)));
}

eq_status eq_sgd_guard_emit(struct eq_list *list, size_t num, struct eq_ref losses, struct eq_ref hyper)
{
    EQ_REQUIRE(num > 0 && num <= INT_MAX, EQ_ERR_UNSUPPORTED, "sgd: %zu losses; this version takes 1 to %d", num, INT_MAX);
    const struct eq_options options = eq_options_format("-DCHUNK=%d", eq_flat_chunk(eq_list_target(list)));
    const struct eq_launch launch = {
        .source = "sgd",
        .options = options.text,
        .kernel = "sgd_guard",
        .range = eq_range_1d(1, 1),
        .cost = { 0, 4.0 * (double)num },
    };
    return eq_list_kernel(list, &launch, EQ_ARGS(EQ_REF(losses), EQ_REF(hyper), EQ_I32(num)));
}

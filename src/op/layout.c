// Between tensors as callers have them and blocks of channels. Only at the borders of a graph.
#include <limits.h>

#include "op/flat.h"

size_t eq_view_bytes(enum eq_view_type type)
{
    return type == EQ_VIEW_WORD ? 4 : type == EQ_VIEW_F16 ? 2 : 1;
}

struct eq_view eq_view_plain(const struct eq_tensor *tensor, struct eq_ref ref)
{
    const int plane = tensor->h * tensor->w;
    return (struct eq_view){ .ref = ref, .map = EQ_REF_NONE, .stride = { tensor->c * plane, plane, tensor->w, 1 } };
}

static eq_status check(const char *name, const struct eq_tensor *blocked)
{
    EQ_TRY(eq_planes_check(name, blocked));
    EQ_REQUIRE(eq_dtype_bytes(blocked->dtype) == 4, EQ_ERR_UNSUPPORTED, "%s: a tensor of type %s; elements must have 4 bytes",
               name, eq_dtype_name(blocked->dtype));
    EQ_REQUIRE((int64_t)blocked->n * blocked->c <= INT_MAX / 64, EQ_ERR_UNSUPPORTED,
               "%s: %d images of %d channels are too many", name, blocked->n, blocked->c);
    return EQ_OK;
}

// Each stride, from the smallest on, has to go beyond what those before it reach: then no two elements have one place.
static bool is_apart(const struct eq_tensor *t, const int stride[4])
{
    const int extent[] = { t->n, t->c, t->h, t->w };
    bool is_done[] = { t->n == 1, t->c == 1, t->h == 1, t->w == 1 };
    int64_t reach = 0;
    for (;;) {
        int least = -1;
        for (int d = 0; d < 4; d++)
            if (!is_done[d] && (least < 0 || stride[d] < stride[least]))
                least = d;
        if (least < 0 || stride[least] <= reach)
            return least < 0;
        reach += (int64_t)(extent[least] - 1) * stride[least];
        is_done[least] = true;
    }
}

static eq_status append(struct eq_list *list, const char *kernel, const struct eq_tensor *blocked, const struct eq_view *view,
                        const size_t global[3], const struct eq_arg *args, int num_args)
{
    const bool is_simt = eq_list_target(list)->family == EQ_FAMILY_SIMT;
    const struct eq_options options = eq_options_format("-DSIMT=%d -DBLOCK=%d -DTYPE=%d -DMAP=%d", is_simt, blocked->block,
                                                        (int)view->type, view->map.buffer != NULL);
    const struct eq_launch launch = {
        .source = "layout",
        .options = options.text,
        .kernel = kernel,
        .range = eq_range_3d((const size_t[]){ is_simt ? global[0] : 1, global[1], global[2] },
                             (const size_t[]){ is_simt ? 64 : 1, 1, 1 }),
        .cost = { 0, (4.0 + (double)eq_view_bytes(view->type)) * (double)eq_tensor_logical(blocked) },
        .cut = 3,
    };
    return eq_list_kernel(list, &launch, args, num_args);
}

eq_status eq_layout_pack_emit(struct eq_list *list, const struct eq_tensor *blocked, const struct eq_view *view,
                              struct eq_ref stored)
{
    EQ_TRY(check("layout_pack", blocked));
    const struct eq_planes p = eq_planes(blocked, stored);
    const int *s = view->stride;
    const size_t global[] = { (size_t)p.row, (size_t)(p.h + 2 * p.halo), (size_t)p.planes };
    return append(list, "layout_pack", blocked, view, global,
                  EQ_ARGS(EQ_REF(view->ref), EQ_REF(view->map), EQ_REF(p.at), EQ_I32(p.planes), EQ_I32(blocked->c),
                          EQ_I32(eq_tensor_blocks(blocked)), EQ_I32(p.h), EQ_I32(p.w), EQ_I32(p.halo), EQ_I32(s[0]),
                          EQ_I32(s[1]), EQ_I32(s[2]), EQ_I32(s[3])));
}

eq_status eq_layout_unpack_emit(struct eq_list *list, const struct eq_tensor *blocked, struct eq_ref stored,
                                const struct eq_view *view)
{
    EQ_TRY(check("layout_unpack", blocked));
    const struct eq_planes p = eq_planes(blocked, stored);
    const int *s = view->stride;
    EQ_REQUIRE(is_apart(blocked, s), EQ_ERR_UNSUPPORTED,
               "[%d, %d, %d, %d] with strides %d, %d, %d, %d: elements to write would have one place", blocked->n, blocked->c,
               blocked->h, blocked->w, s[0], s[1], s[2], s[3]);
    const size_t global[] = { (size_t)p.w, (size_t)p.h, (size_t)blocked->n * (size_t)blocked->c };
    return append(list, "layout_unpack", blocked, view, global,
                  EQ_ARGS(EQ_REF(p.origin), EQ_REF(view->map), EQ_REF(view->ref), EQ_I32(blocked->n * blocked->c),
                          EQ_I32(blocked->c), EQ_I32(eq_tensor_blocks(blocked)), EQ_I32(p.h), EQ_I32(p.w), EQ_I32(p.row),
                          EQ_I32(p.plane), EQ_I32(s[0]), EQ_I32(s[1]), EQ_I32(s[2]), EQ_I32(s[3])));
}

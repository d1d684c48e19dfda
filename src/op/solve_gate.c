// Solve of the gates (IR's, CE's, SE's): launches of cl/solve_gate.cl where vectors rule; GPUs have those of solve_gate_simt.c.
#include <assert.h>

#include "op/solve.h"
#include "op/unit_plan.h"

// Channels of a work-item in evaluation. More would leave cores without work when there is one image; fewer would cut the rows
// of W1, which lie beside each other, into short pieces.
enum { GATE_CHUNK = 128 };

static bool is_vector(const struct eq_list *list)
{
    return eq_list_target(list)->family == EQ_FAMILY_VECTOR;
}

static struct eq_options options(const struct eq_list *list)
{
    return eq_options_format("-DBLOCK=%d", eq_list_target(list)->block);
}

// Rows of `columns`, cut in pieces of at most `piece` of them.
static struct eq_range row_range(int columns, int rows, int piece)
{
    return eq_range_2d((size_t)((columns + piece - 1) / piece), (size_t)rows, 1, 1);
}

static struct eq_cost layer_cost(const struct eq_solve_gate *s)
{
    const double weights = (double)s->channels * s->hidden;
    return (struct eq_cost){ 2.0 * weights * s->images, 4.0 * weights };
}

eq_status eq_solve_reweight_emit(struct eq_list *list, const struct eq_solve_gate *s, const struct eq_solve_reweight *refs)
{
    const struct eq_solve_reweight *r = refs;
    if (!is_vector(list))
        return eq_solve_reweight_simt_emit(list, s, r);
    assert(s->training || !s->layer_norm);
    const struct eq_options text = options(list);
    const struct eq_launch hidden = {
        .source = "solve_gate",
        .options = text.text,
        .kernel = "reweight",
        .range = eq_range_1d((size_t)s->images, 1),
        .cost = layer_cost(s),
    };
    const struct eq_launch output = {
        .source = "solve_gate",
        .options = text.text,
        .kernel = "reweight_output",
        .range = row_range(s->stride, s->images, 64),
        .cost = layer_cost(s),
    };
    EQ_TRY(eq_list_kernel(list, &hidden,
                          EQ_ARGS(EQ_REF(r->value), EQ_REF(r->value_sum), EQ_REF(r->weights.w1), EQ_REF(r->weights.gain),
                                  EQ_REF(r->weights.bias1), EQ_REF(r->weights.run_scale), EQ_REF(r->active), EQ_REF(r->normal),
                                  EQ_REF(r->deviation), EQ_REF(r->spread), EQ_I32(s->channels), EQ_I32(s->hidden),
                                  EQ_I32(s->stride), EQ_I32(s->hidden_stride), EQ_I32(s->layer_norm), EQ_F32(s->momentum))));
    return eq_list_kernel(list, &output,
                          EQ_ARGS(EQ_REF(r->active), EQ_REF(r->weights.w2), EQ_REF(r->weights.bias2), EQ_REF(r->spread),
                                  EQ_REF(r->weights.x_weight), EQ_REF(r->a), EQ_REF(r->b), EQ_REF(r->common), EQ_REF(r->y),
                                  EQ_REF(r->gate), EQ_REF(r->scale), EQ_REF(r->shift), EQ_I32(s->channels), EQ_I32(s->hidden),
                                  EQ_I32(s->stride), EQ_I32(s->hidden_stride), EQ_I32(!s->layer_norm), EQ_I32(s->has_weight)));
}

// Chunks of GATE_CHUNK channels.
static size_t count_chunks(const struct eq_solve_gate *s)
{
    return (size_t)((s->stride + GATE_CHUNK - 1) / GATE_CHUNK);
}

size_t eq_solve_evaluation_elems(const struct eq_solve_gate *s)
{
    return (size_t)s->images * count_chunks(s) * (size_t)s->hidden_stride;
}

eq_status eq_solve_evaluation_emit(struct eq_list *list, const struct eq_solve_gate *s, const struct eq_solve_groups *groups,
                                   const struct eq_solve_evaluation *refs)
{
    const struct eq_solve_evaluation *r = refs;
    const struct eq_options text = eq_options_format("-DBLOCK=%d -DCHUNK=%d", eq_list_target(list)->block, GATE_CHUNK);
    const struct eq_range range = eq_range_2d((size_t)s->images, count_chunks(s), 1, 1);
    const struct eq_cost layer = layer_cost(s);
    const double values = (double)s->images * s->stride, matrix = s->has_weight ? (double)eq_solve_tile_elems(groups) : 0;
    const struct eq_launch value = {
        .source = "solve_gate",
        .options = text.text,
        .kernel = "evaluate_values",
        .range = range,
        .cost = { layer.flops + 5 * values * r->parts, layer.bytes + values * (12.0 * r->parts + 16) },
    };
    const struct eq_launch gate = {
        .source = "solve_gate",
        .options = text.text,
        .kernel = "evaluate_gate",
        .range = range,
        .cost = { layer.flops + 2 * s->images * matrix, layer.bytes + 4 * matrix + 20 * values },
    };
    EQ_TRY(eq_list_kernel(list, &value,
                          EQ_ARGS(EQ_REF(r->z), EQ_REF(r->moments), EQ_REF(r->gamma), EQ_REF(r->beta), EQ_REF(r->run_mean),
                                  EQ_REF(r->run_var), EQ_REF(r->weights.w1), EQ_REF(r->offset), EQ_REF(r->value),
                                  EQ_REF(r->hidden_sums), EQ_REF(r->pivot), EQ_REF(r->scale), EQ_REF(r->shift),
                                  EQ_I32(r->z_plane), EQ_I32(r->parts), EQ_I32(s->pixels), EQ_I32(s->channels),
                                  EQ_I32(s->stride), EQ_I32(s->hidden), EQ_I32(s->hidden_stride), EQ_I32(groups->blocks),
                                  EQ_I32(s->layer_norm), EQ_I32(s->has_weight), EQ_I32(r->z.buffer != NULL), EQ_F32(r->eps))));
    return eq_list_kernel(list, &gate,
                          EQ_ARGS(EQ_REF(r->hidden_sums), EQ_REF(r->weights.run_scale), EQ_REF(r->weights.gain),
                                  EQ_REF(r->weights.bias1), EQ_REF(r->weights.w2), EQ_REF(r->weights.bias2),
                                  EQ_REF(r->weights.x_weight), EQ_REF(r->matrix), EQ_REF(r->common), EQ_REF(r->offset),
                                  EQ_REF(r->active), EQ_REF(r->scale), EQ_REF(r->shift), EQ_I32(s->channels), EQ_I32(s->stride),
                                  EQ_I32(s->hidden), EQ_I32(s->hidden_stride), EQ_I32(groups->blocks), EQ_I32(groups->span),
                                  EQ_I32(groups->group), EQ_I32(s->layer_norm), EQ_I32(s->has_weight)));
}

// dweight [rows, columns] = sum over images of left^T right.
static eq_status weight_grad(struct eq_list *list, const struct eq_solve_gate *s, struct eq_ref left, struct eq_ref right,
                             struct eq_ref dweight, int rows, int columns, int left_stride, int right_stride)
{
    const struct eq_options text = options(list);
    const struct eq_launch launch = {
        .source = "solve_gate",
        .options = text.text,
        .kernel = "reweight_weight_grad",
        .range = row_range(columns, rows, 256),
        .cost = layer_cost(s),
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(left), EQ_REF(right), EQ_REF(dweight), EQ_I32(rows), EQ_I32(columns),
                                  EQ_I32(left_stride), EQ_I32(right_stride), EQ_I32(s->images)));
}

static eq_status vector_grad(struct eq_list *list, const struct eq_solve_gate *s, struct eq_ref left, struct eq_ref right,
                             struct eq_ref dbias, struct eq_ref dgain, int num, int stride)
{
    const struct eq_options text = options(list);
    const struct eq_launch launch = {
        .source = "solve_gate",
        .options = text.text,
        .kernel = "reweight_vector_grad",
        .range = eq_range_1d((size_t)num, 16),
        .cost = { 2.0 * s->images * num, 4.0 * s->images * num },
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(left), EQ_REF(right), EQ_REF(dbias), EQ_REF(dgain), EQ_I32(num), EQ_I32(stride),
                                  EQ_I32(s->images), EQ_I32(dgain.buffer != NULL)));
}

eq_status eq_solve_reweight_grad_emit(struct eq_list *list, const struct eq_solve_gate *s,
                                      const struct eq_solve_reweight_grad *refs)
{
    const struct eq_solve_reweight_grad *r = refs;
    if (!is_vector(list))
        return eq_solve_reweight_grad_simt_emit(list, s, r);
    const struct eq_options text = options(list);
    const struct eq_launch output = {
        .source = "solve_gate",
        .options = text.text,
        .kernel = "reweight_grad",
        .range = eq_range_1d((size_t)s->images, 1),
        .cost = layer_cost(s),
    };
    const struct eq_launch input = {
        .source = "solve_gate",
        .options = text.text,
        .kernel = "reweight_grad_input",
        .range = row_range(s->stride, s->images, 64),
        .cost = layer_cost(s),
    };
    EQ_TRY(
        eq_list_kernel(list, &output,
                       EQ_ARGS(EQ_REF(r->image_sum), EQ_REF(r->image_product), EQ_REF(r->a), EQ_REF(r->b), EQ_REF(r->y),
                               EQ_REF(r->spread), EQ_REF(r->weights.x_weight), EQ_REF(r->active), EQ_REF(r->normal),
                               EQ_REF(r->deviation), EQ_REF(r->weights.w2), EQ_REF(r->weights.gain), EQ_REF(r->dpre),
                               EQ_REF(r->total), EQ_REF(r->dactive), EQ_REF(r->dhidden), EQ_I32(s->channels), EQ_I32(s->hidden),
                               EQ_I32(s->stride), EQ_I32(s->hidden_stride), EQ_I32(s->layer_norm), EQ_I32(s->has_weight))));
    EQ_TRY(eq_list_kernel(list, &input,
                          EQ_ARGS(EQ_REF(r->dhidden), EQ_REF(r->weights.w1), EQ_REF(r->total), EQ_REF(r->spread),
                                  EQ_REF(r->weights.x_weight), EQ_REF(r->a), EQ_REF(r->dvalue), EQ_I32(s->channels),
                                  EQ_I32(s->hidden), EQ_I32(s->stride), EQ_I32(s->hidden_stride), EQ_I32(s->images),
                                  EQ_I32(s->pixels), EQ_I32(s->layer_norm), EQ_I32(s->has_weight))));
    EQ_TRY(weight_grad(list, s, r->dhidden, r->value, r->dw1, s->hidden, s->channels, s->hidden_stride, s->stride));
    EQ_TRY(weight_grad(list, s, r->dpre, r->active, r->dw2, s->channels, s->hidden, s->stride, s->hidden_stride));
    EQ_TRY(vector_grad(list, s, r->dactive, r->normal, r->dbias1, s->layer_norm ? r->dgain : EQ_REF_NONE, s->hidden,
                       s->hidden_stride));
    if (s->layer_norm)
        return EQ_OK;
    return vector_grad(list, s, r->dpre, EQ_REF_NONE, r->dbias2, EQ_REF_NONE, s->channels, s->stride);
}

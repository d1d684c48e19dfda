// Solve of the gates on GPUs: launches of cl/solve_gate_simt.cl.
#include "op/solve.h"
#include "op/unit_plan.h"

// Of the kernels' work-groups.
enum { IMAGES = 4, COLUMNS = 16, LONG_TEAM = 64, SHORT_TEAM = 32, ROWS = 2 };

static size_t ceil_div(int a, int b)
{
    return (size_t)((a + b - 1) / b);
}

static int group_size(const struct eq_list *list)
{
    return eq_unit_group_size(eq_list_target(list));
}

static struct eq_options options(const struct eq_list *list)
{
    return eq_options_format("-DWG=%d", group_size(list));
}

// Work-groups that do `each` rows or columns of `num`, for all images.
static struct eq_range group_range(const struct eq_list *list, const struct eq_solve_gate *s, int num, int each)
{
    const size_t local = (size_t)group_size(list);
    return eq_range_2d(ceil_div(num, each) * local, ceil_div(s->images, IMAGES), local, 1);
}

// Rows of a matrix by teams.
static struct eq_range team_range(const struct eq_list *list, const struct eq_solve_gate *s, int rows, int team)
{
    const int size = group_size(list);
    return group_range(list, s, rows, ROWS * (size < team ? 1 : size / team));
}

static struct eq_cost layer_cost(const struct eq_solve_gate *s)
{
    const double weights = (double)s->channels * s->hidden;
    return (struct eq_cost){ 2.0 * weights * s->images, 4.0 * weights };
}

eq_status eq_solve_reweight_simt_emit(struct eq_list *list, const struct eq_solve_gate *s, const struct eq_solve_reweight *refs)
{
    const struct eq_solve_reweight *r = refs;
    const struct eq_options text = options(list);
    const struct eq_launch hidden = {
        .source = "solve_gate_simt",
        .options = text.text,
        .kernel = "reweight_simt",
        .range = team_range(list, s, s->hidden + 1, LONG_TEAM),
        .cost = layer_cost(s),
    };
    const struct eq_launch output = {
        .source = "solve_gate_simt",
        .options = text.text,
        .kernel = "reweight_output_simt",
        .range = team_range(list, s, s->stride, SHORT_TEAM),
        .cost = layer_cost(s),
    };
    EQ_TRY(eq_list_kernel(list, &hidden,
                          EQ_ARGS(EQ_REF(r->value), EQ_REF(r->value_sum), EQ_REF(r->weights.w1), EQ_REF(r->weights.run_scale),
                                  EQ_REF(r->sums), EQ_REF(r->spread), EQ_I32(s->images), EQ_I32(s->channels), EQ_I32(s->hidden),
                                  EQ_I32(s->stride), EQ_I32(s->hidden_stride), EQ_I32(s->layer_norm), EQ_I32(s->training),
                                  EQ_F32(s->momentum))));
    return eq_list_kernel(list, &output,
                          EQ_ARGS(EQ_REF(r->sums), EQ_REF(r->weights.gain), EQ_REF(r->weights.bias1), EQ_REF(r->weights.w2),
                                  EQ_REF(r->weights.bias2), EQ_REF(r->spread), EQ_REF(r->weights.x_weight), EQ_REF(r->a),
                                  EQ_REF(r->b), EQ_REF(r->common), EQ_REF(r->run_map), EQ_REF(r->active), EQ_REF(r->normal),
                                  EQ_REF(r->deviation), EQ_REF(r->y), EQ_REF(r->gate), EQ_REF(r->scale), EQ_REF(r->shift),
                                  EQ_I32(s->images), EQ_I32(s->channels), EQ_I32(s->hidden), EQ_I32(s->stride),
                                  EQ_I32(s->hidden_stride), EQ_I32(s->layer_norm), EQ_I32(s->has_weight), EQ_I32(s->group)));
}

// dweight [rows, columns] = sum over images of left^T right.
static eq_status weight_grad(struct eq_list *list, const struct eq_solve_gate *s, struct eq_ref left, struct eq_ref right,
                             struct eq_ref dweight, int rows, int columns, int left_stride, int right_stride)
{
    const struct eq_options text = options(list);
    const struct eq_launch launch = {
        .source = "solve_gate_simt",
        .options = text.text,
        .kernel = "reweight_weight_grad_simt",
        .range = eq_range_2d((size_t)columns, ceil_div(rows, 4), 16, 4),
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
    const size_t local = (size_t)group_size(list);
    const struct eq_launch launch = {
        .source = "solve_gate_simt",
        .options = text.text,
        .kernel = "reweight_vector_grad_simt",
        .range = eq_range_1d(ceil_div(num, COLUMNS) * local, local),
        .cost = { 2.0 * s->images * num, 4.0 * s->images * num },
    };
    return eq_list_kernel(list, &launch,
                          EQ_ARGS(EQ_REF(left), EQ_REF(right), EQ_REF(dbias), EQ_REF(dgain), EQ_I32(num), EQ_I32(stride),
                                  EQ_I32(s->images), EQ_I32(dgain.buffer != NULL)));
}

eq_status eq_solve_reweight_grad_simt_emit(struct eq_list *list, const struct eq_solve_gate *s,
                                           const struct eq_solve_reweight_grad *refs)
{
    const struct eq_solve_reweight_grad *r = refs;
    const struct eq_options text = options(list);
    const struct eq_launch output = {
        .source = "solve_gate_simt",
        .options = text.text,
        .kernel = "reweight_grad_simt",
        .range = group_range(list, s, s->hidden_stride, COLUMNS),
        .cost = layer_cost(s),
    };
    const struct eq_launch input = {
        .source = "solve_gate_simt",
        .options = text.text,
        .kernel = "reweight_grad_input_simt",
        .range = group_range(list, s, s->stride, COLUMNS),
        .cost = layer_cost(s),
    };
    EQ_TRY(eq_list_kernel(list, &output,
                          EQ_ARGS(EQ_REF(r->image_sum), EQ_REF(r->image_product), EQ_REF(r->a), EQ_REF(r->b), EQ_REF(r->y),
                                  EQ_REF(r->spread), EQ_REF(r->weights.x_weight), EQ_REF(r->active), EQ_REF(r->weights.w2),
                                  EQ_REF(r->dpre), EQ_REF(r->total), EQ_REF(r->dactive), EQ_I32(s->images), EQ_I32(s->channels),
                                  EQ_I32(s->hidden), EQ_I32(s->stride), EQ_I32(s->hidden_stride), EQ_I32(s->has_weight))));
    EQ_TRY(eq_list_kernel(list, &input,
                          EQ_ARGS(EQ_REF(r->dactive), EQ_REF(r->normal), EQ_REF(r->deviation), EQ_REF(r->total),
                                  EQ_REF(r->weights.gain), EQ_REF(r->weights.w1), EQ_REF(r->spread),
                                  EQ_REF(r->weights.x_weight), EQ_REF(r->a), EQ_REF(r->dhidden), EQ_REF(r->dvalue),
                                  EQ_I32(s->images), EQ_I32(s->channels), EQ_I32(s->hidden), EQ_I32(s->stride),
                                  EQ_I32(s->hidden_stride), EQ_I32(s->pixels), EQ_I32(s->layer_norm), EQ_I32(s->has_weight))));
    EQ_TRY(weight_grad(list, s, r->dhidden, r->value, r->dw1, s->hidden, s->channels, s->hidden_stride, s->stride));
    EQ_TRY(weight_grad(list, s, r->dpre, r->active, r->dw2, s->channels, s->hidden, s->stride, s->hidden_stride));
    EQ_TRY(vector_grad(list, s, r->dactive, r->normal, r->dbias1, s->layer_norm ? r->dgain : EQ_REF_NONE, s->hidden,
                       s->hidden_stride));
    if (s->layer_norm)
        return EQ_OK;
    return vector_grad(list, s, r->dpre, EQ_REF_NONE, r->dbias2, EQ_REF_NONE, s->channels, s->stride);
}

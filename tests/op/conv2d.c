// The three convolution ops against sums in double, in both kernel families and with every block size.
// Inputs stand between NaNs, so that a read outside of a tensor shows; outputs start as NaN between canaries, so that a value,
// a padding channel or a halo pixel that is not written shows.
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "conv2d_cases.h"
#include "op/op.h"

enum { CANARY_ELEMS = 64 };
static const float CANARY = -12345.5f;

static struct eq_device *device;

#define TRY(call) ck_assert_msg((call) == EQ_OK, "%s", eq_last_error())

static struct conv2d_case normalised(struct conv2d_case c)
{
    c.sh = c.sh ? c.sh : 1;
    c.sw = c.sw ? c.sw : 1;
    return c;
}

static struct eq_conv2d_attributes attributes_of(const struct conv2d_case *c)
{
    return (struct eq_conv2d_attributes){ c->sh, c->sw, c->ph, c->pw };
}

// ---- operands

struct operand {
    struct eq_tensor tensor;
    struct eq_buffer *buffer;
    float *plain; // host values, [n, c, h, w]
};

static struct eq_ref ref_of(const struct operand *o)
{
    return eq_ref_at(o->buffer, CANARY_ELEMS);
}

// A buffer with `elems` values between canaries. values NULL: NaN.
static struct eq_buffer *make_buffer(const float *values, size_t elems, float around)
{
    float *host = eq_malloc(elems + 2 * CANARY_ELEMS, sizeof *host);
    struct eq_buffer *buffer = NULL;
    for (size_t i = 0; i < elems + 2 * CANARY_ELEMS; i++)
        host[i] = i < CANARY_ELEMS || i >= elems + CANARY_ELEMS ? around : values ? values[i - CANARY_ELEMS] : NAN;
    TRY(eq_buffer_create(device, (elems + 2 * CANARY_ELEMS) * sizeof *host, &buffer));
    TRY(eq_ref_write(eq_ref_at(buffer, 0), host, elems + 2 * CANARY_ELEMS, sizeof *host));
    free(host);
    return buffer;
}

static struct operand make_input(struct eq_tensor tensor, int halo, float mean, const char *purpose)
{
    struct operand o = { .tensor = tensor };
    o.tensor.halo = tensor.form == EQ_FORM_BLOCKED ? halo : 0;
    const size_t num = eq_tensor_logical(&o.tensor), elems = eq_tensor_elems(&o.tensor);
    float *stored = eq_malloc(elems, sizeof *stored);
    o.plain = eq_malloc(num, sizeof *o.plain);
    for (size_t i = 0; i < num; i++)
        o.plain[i] = mean + (float)eq_random_normal(eq_random_key(1, 0, 0, purpose), i);
    eq_tensor_pack(&o.tensor, o.plain, stored);
    o.buffer = make_buffer(stored, elems, NAN);
    free(stored);
    return o;
}

static struct operand make_output(struct eq_tensor tensor, int halo)
{
    struct operand o = { .tensor = tensor };
    o.tensor.halo = tensor.form == EQ_FORM_BLOCKED ? halo : 0;
    o.buffer = make_buffer(NULL, eq_tensor_elems(&o.tensor), CANARY);
    return o;
}

static void free_operand(struct operand *o)
{
    eq_buffer_destroy(&o->buffer);
    free(o->plain);
    o->plain = NULL;
}

// Reads an output into `plain` and checks canaries, halo and padding channels: packing its values again must give it bit by
// bit.
static void fetch(struct operand *o, const char *what, float around)
{
    const size_t elems = eq_tensor_elems(&o->tensor), num = eq_tensor_logical(&o->tensor);
    float *all = eq_malloc(elems + 2 * CANARY_ELEMS, sizeof *all), *again = eq_malloc(elems, sizeof *again);
    free(o->plain);
    o->plain = eq_malloc(num, sizeof *o->plain);
    TRY(eq_ref_read(eq_ref_at(o->buffer, 0), all, elems + 2 * CANARY_ELEMS, sizeof *all));
    for (size_t i = 0; i < CANARY_ELEMS; i++) {
        ck_assert_msg(memcmp(&all[i], &around, 4) == 0, "%s: wrote %zu elements before its output", what, CANARY_ELEMS - i);
        ck_assert_msg(memcmp(&all[CANARY_ELEMS + elems + i], &around, 4) == 0, "%s: wrote %zu elements after its output", what,
                      i + 1);
    }
    const float *stored = all + CANARY_ELEMS;
    eq_tensor_unpack(&o->tensor, stored, o->plain);
    eq_tensor_pack(&o->tensor, o->plain, again);
    for (size_t i = 0; i < elems; i++)
        ck_assert_msg(stored[i] == again[i],
                      "%s: stored element %zu is %g, in a halo or padding channel that must be 0 or not written", what, i,
                      (double)stored[i]);
    free(all);
    free(again);
}

// ---- references in double: value and the square root of the sum of squared products

struct sum {
    double value, squares;
    int terms;
};

static void sum_add(struct sum *s, double product)
{
    s->value += product;
    s->squares += product * product;
    s->terms++;
}

static double at(const struct operand *o, int n, int c, int y, int x)
{
    const struct eq_tensor *t = &o->tensor;
    return o->plain[(((size_t)n * (size_t)t->c + (size_t)c) * (size_t)t->h + (size_t)y) * (size_t)t->w + (size_t)x];
}

static struct sum ref_forward(const struct conv2d_case *c, const struct operand *x, const struct operand *w, int n, int o,
                              int y, int z)
{
    struct sum s = { 0, 0, 0 };
    for (int i = 0; i < c->ic; i++)
        for (int p = 0; p < c->kh; p++)
            for (int q = 0; q < c->kw; q++) {
                const int iy = y * c->sh + p - c->ph, ix = z * c->sw + q - c->pw;
                if (iy >= 0 && iy < c->ih && ix >= 0 && ix < c->iw)
                    sum_add(&s, at(x, n, i, iy, ix) * at(w, o, i, p, q));
            }
    return s;
}

static struct sum ref_data_grad(const struct conv2d_case *c, const struct operand *dz, const struct operand *w, int n, int i,
                                int y, int x)
{
    struct sum s = { 0, 0, 0 };
    for (int o = 0; o < c->oc; o++)
        for (int p = 0; p < c->kh; p++)
            for (int q = 0; q < c->kw; q++) {
                const int zy = y + c->ph - p, zx = x + c->pw - q;
                if (zy >= 0 && zy % c->sh == 0 && zy / c->sh < dz->tensor.h && zx >= 0 && zx % c->sw == 0 &&
                    zx / c->sw < dz->tensor.w)
                    sum_add(&s, at(dz, n, o, zy / c->sh, zx / c->sw) * at(w, o, i, p, q));
            }
    return s;
}

static struct sum ref_weight_grad(const struct conv2d_case *c, const struct operand *x, const struct operand *dz, int o, int i,
                                  int p, int q)
{
    struct sum s = { 0, 0, 0 };
    for (int n = 0; n < c->n; n++)
        for (int y = 0; y < dz->tensor.h; y++)
            for (int z = 0; z < dz->tensor.w; z++) {
                const int iy = y * c->sh + p - c->ph, ix = z * c->sw + q - c->pw;
                if (iy >= 0 && iy < c->ih && ix >= 0 && ix < c->iw)
                    sum_add(&s, at(x, n, i, iy, ix) * at(dz, n, o, y, z));
            }
    return s;
}

typedef struct sum (*reference_fn)(const struct conv2d_case *, const struct operand *, const struct operand *, int, int, int,
                                   int);

// Tolerance: a sum of k rounded products errs by about sqrt(k) * 2^-24 of the largest partial sum, which is about the root of
// the sum of squared products for random signs, and the result itself with a mean; times 8 for the order of summation; never
// above 1e-5.
static void compare(const struct conv2d_case *c, const char *what, const struct operand *got, reference_fn reference,
                    const struct operand *a, const struct operand *b, const struct operand *add)
{
    const struct eq_tensor *t = &got->tensor;
    for (int n = 0; n < t->n; n++)
        for (int k = 0; k < t->c; k++)
            for (int y = 0; y < t->h; y++)
                for (int x = 0; x < t->w; x++) {
                    const struct sum s = reference(c, a, b, n, k, y, x);
                    const double extra = add ? at(add, n, k, y, x) : 0.0, want = s.value + extra, value = at(got, n, k, y, x);
                    const double relative = fmin(1e-5, 8 * sqrt(s.terms + 1.0) * 0x1p-24);
                    const double tolerance = relative * (sqrt(s.squares) + fabs(s.value) + fabs(extra));
                    ck_assert_msg(fabs(value - want) <= tolerance,
                                  "%s, %s: [%d, %d, %d, %d] is %.9g, not %.9g (error / tolerance %.3g)", c->name, what, n, k, y,
                                  x, value, want, fabs(value - want) / tolerance);
                }
}

// ---- running an op

// Shapes the call and runs it once; in[i].buffer NULL: absent. Output 0 is made by the caller (a halo, or in place), the
// workspace here.
static void run_call(struct eq_call *call, const struct operand *const *in, int num_inputs, struct operand *out,
                     struct eq_buffer **workspace)
{
    struct eq_ref inputs[3], outputs[2];
    for (int i = 0; i < num_inputs; i++)
        inputs[i] = call->has[i] ? ref_of(in[i]) : EQ_REF_NONE;
    for (int i = 0; i < num_inputs; i++)
        if (call->has[i])
            call->input[i] = in[i]->tensor;
    call->output[0] = out->tensor;
    outputs[0] = ref_of(out);
    *workspace = make_buffer(NULL, eq_tensor_elems(&call->output[1]), CANARY);
    outputs[1] = eq_ref_at(*workspace, CANARY_ELEMS);

    struct eq_list *list = NULL;
    TRY(eq_list_create(device, &list));
    TRY(call->op->emit(list, call, inputs, outputs));
    TRY(eq_list_run(list));
    TRY(eq_device_finish(device));
    eq_list_destroy(&list);
    struct operand space = { .tensor = eq_tensor_vector((int)eq_tensor_elems(&call->output[1])), .buffer = *workspace };
    float guard[2];
    TRY(eq_ref_read(eq_ref_at(*workspace, CANARY_ELEMS - 1), &guard[0], 1, 4));
    TRY(eq_ref_read(eq_ref_at(*workspace, CANARY_ELEMS + eq_tensor_elems(&space.tensor)), &guard[1], 1, 4));
    ck_assert_msg(guard[0] == CANARY && guard[1] == CANARY, "%s wrote outside of its workspace", call->op->name);
    eq_buffer_destroy(workspace);
}

static struct eq_tensor input_tensor(const struct conv2d_case *c)
{
    return eq_tensor_blocked(c->n, c->ic, c->ih, c->iw, c->is_plain ? 1 : device->target.block, 0);
}

static int halo_of(const struct eq_call *call, int input)
{
    return call->op->halo ? call->op->halo(call, input) : 0;
}

static void check_forward(const struct conv2d_case *c)
{
    const struct eq_conv2d_attributes attributes = attributes_of(c);
    struct eq_call call = {
        .op = &eq_op_conv2d, .attributes = &attributes, .target = &device->target, .num_inputs = 2, .has = { true, true }
    };
    call.input[0] = input_tensor(c);
    call.input[1] = eq_conv2d_weight(&device->target, &call.input[0], c->oc, c->kh, c->kw);
    TRY(call.op->shape(&call));
    ck_assert_int_eq(call.output[0].h, (c->ih + 2 * c->ph - c->kh) / c->sh + 1);
    ck_assert_int_eq(call.output[0].w, (c->iw + 2 * c->pw - c->kw) / c->sw + 1);
    struct operand x = make_input(call.input[0], halo_of(&call, 0) + c->halo, c->mean, "x"),
                   w = make_input(call.input[1], 0, 0, "w");
    struct operand z = make_output(call.output[0], c->halo);
    struct eq_buffer *workspace;
    run_call(&call, (const struct operand *[]){ &x, &w }, 2, &z, &workspace);
    fetch(&z, c->name, CANARY);
    compare(c, "forward", &z, ref_forward, &x, &w, NULL);
    free_operand(&x);
    free_operand(&w);
    free_operand(&z);
}

enum add_mode { ADD_NONE, ADD_APART, ADD_IN_PLACE };

static void check_data_grad(const struct conv2d_case *c, enum add_mode mode)
{
    const struct eq_conv2d_data_grad_attributes attributes = { attributes_of(c), c->ih, c->iw };
    const struct eq_tensor xt = input_tensor(c);
    const int oh = (c->ih + 2 * c->ph - c->kh) / c->sh + 1, ow = (c->iw + 2 * c->pw - c->kw) / c->sw + 1;
    struct eq_call call = { .op = &eq_op_conv2d_data_grad,
                            .attributes = &attributes,
                            .target = &device->target,
                            .num_inputs = 3,
                            .has = { true, true, mode != ADD_NONE } };
    call.input[0] = eq_tensor_blocked(c->n, c->oc, oh, ow, device->target.block, 0);
    call.input[1] = eq_conv2d_weight(&device->target, &xt, c->oc, c->kh, c->kw);
    call.input[2] = xt;
    TRY(call.op->shape(&call));
    ck_assert_int_eq(call.op->in_place(&call, 0), mode == ADD_NONE ? -1 : 2);
    struct operand dz = make_input(call.input[0], halo_of(&call, 0) + c->halo, 0, "dz"),
                   w = make_input(call.input[1], 0, 0, "w");
    struct operand add = make_input(xt, mode == ADD_IN_PLACE ? c->halo : 0, 0, "add");
    struct operand dx = mode == ADD_IN_PLACE ? add : make_output(call.output[0], c->halo);
    dx.plain = NULL;
    struct eq_buffer *workspace;
    run_call(&call, (const struct operand *[]){ &dz, &w, &add }, 3, &dx, &workspace);
    fetch(&dx, c->name, mode == ADD_IN_PLACE ? NAN : CANARY);
    compare(c,
            mode == ADD_NONE    ? "data gradient"
            : mode == ADD_APART ? "data gradient, added"
                                : "data gradient, in place",
            &dx, ref_data_grad, &dz, &w, mode == ADD_NONE ? NULL : &add);
    free_operand(&dz);
    free_operand(&w);
    if (mode == ADD_IN_PLACE)
        dx.buffer = NULL;
    free_operand(&add);
    free_operand(&dx);
}

static void check_weight_grad(const struct conv2d_case *c)
{
    const struct eq_conv2d_weight_grad_attributes attributes = { attributes_of(c), c->kh, c->kw };
    const int oh = (c->ih + 2 * c->ph - c->kh) / c->sh + 1, ow = (c->iw + 2 * c->pw - c->kw) / c->sw + 1;
    struct eq_call call = { .op = &eq_op_conv2d_weight_grad,
                            .attributes = &attributes,
                            .target = &device->target,
                            .num_inputs = 2,
                            .has = { true, true } };
    call.input[0] = input_tensor(c);
    call.input[1] = eq_tensor_blocked(c->n, c->oc, oh, ow, device->target.block, 0);
    TRY(call.op->shape(&call));
    struct operand x = make_input(call.input[0], halo_of(&call, 0) + c->halo, c->mean, "x"),
                   dz = make_input(call.input[1], c->halo, 0, "dz");
    struct operand dw = make_output(call.output[0], 0), again = make_output(call.output[0], 0);
    struct eq_buffer *workspace;
    run_call(&call, (const struct operand *[]){ &x, &dz }, 2, &dw, &workspace);
    fetch(&dw, c->name, CANARY);
    compare(c, "weight gradient", &dw, ref_weight_grad, &x, &dz, NULL);
    if (!c->is_tiny) {
        run_call(&call, (const struct operand *[]){ &x, &dz }, 2, &again, &workspace);
        fetch(&again, c->name, CANARY);
        ck_assert_msg(memcmp(dw.plain, again.plain, eq_tensor_logical(&dw.tensor) * 4) == 0, "%s: two runs give other bits",
                      c->name);
    }
    free_operand(&x);
    free_operand(&dz);
    free_operand(&dw);
    free_operand(&again);
}

// ---- tests

static bool is_tiny_run(void)
{
    return getenv("EQUIL_TEST_TINY") != NULL;
}

// Every case in one family; block sizes other than the device's only where `all_blocks`.
static void check_family(enum eq_family family, int case_index)
{
    const struct conv2d_case c = normalised(conv2d_cases[case_index]);
    if (is_tiny_run() && !c.is_tiny)
        return;
    const struct eq_target saved = device->target;
    device->target.family = family;
    // 16 is the blocking of most devices; the others are run with the tiny cases, which have every kernel.
    const int blocks[] = { 16, 8, 4 };
    for (int b = 0; b < (c.is_tiny && !is_tiny_run() ? 3 : 1); b++) {
        device->target.block = blocks[b];
        check_forward(&c);
        check_data_grad(&c, ADD_NONE);
        check_data_grad(&c, ADD_APART);
        check_data_grad(&c, ADD_IN_PLACE);
        check_weight_grad(&c);
    }
    device->target = saved;
}

START_TEST(test_vector)
{
    check_family(EQ_FAMILY_VECTOR, _i);
}
END_TEST

START_TEST(test_simt)
{
    check_family(EQ_FAMILY_SIMT, _i);
}
END_TEST

// Splits of the weight gradient follow the number of compute units: many units on a small filter give parts to merge.
START_TEST(test_weight_grad_parts)
{
    const struct eq_target saved = device->target;
    const struct conv2d_case c =
        normalised((struct conv2d_case){ .name = "parts", .n = 3, .ic = 16, .ih = 20, .iw = 20, .oc = 16, .kh = 1, .kw = 1 });
    for (int family = EQ_FAMILY_VECTOR; family <= EQ_FAMILY_SIMT && !is_tiny_run(); family++) {
        device->target.family = (enum eq_family)family;
        device->target.block = 16;
        device->target.compute_units = 64;
        const struct eq_conv2d_weight_grad_attributes attributes = { attributes_of(&c), 1, 1 };
        struct eq_call call = { .op = &eq_op_conv2d_weight_grad,
                                .attributes = &attributes,
                                .target = &device->target,
                                .num_inputs = 2,
                                .has = { true, true } };
        call.input[0] = input_tensor(&c);
        call.input[1] = eq_tensor_blocked(3, 16, 20, 20, 16, 0);
        TRY(call.op->shape(&call));
        ck_assert_int_ge(eq_tensor_elems(&call.output[1]), 5 * 16 * 16);
        check_weight_grad(&c);
    }
    device->target = saved;
}
END_TEST

// Each row is a call that shape() refuses, with what its text must name.
START_TEST(test_refused)
{
    const struct eq_target target = eq_target_default();
    const struct eq_tensor x = eq_tensor_blocked(2, 32, 9, 7, target.block, 0);
    static const struct {
        struct eq_conv2d_attributes attributes;
        int ic, kh, kw;
        eq_status status;
        const char *text[2];
    } rows[] = {
        { { 1, 1, 1, 1 }, 48, 3, 3, EQ_ERR_SHAPE, { "32", "48" } },
        { { 0, 1, 1, 1 }, 32, 3, 3, EQ_ERR_ARGUMENT, { "0 x 1", "stride" } },
        { { 1, -2, 1, 1 }, 32, 3, 3, EQ_ERR_ARGUMENT, { "1 x -2", "stride" } },
        { { 1, 1, -1, 1 }, 32, 3, 3, EQ_ERR_ARGUMENT, { "-1 x 1", "padding" } },
        { { 1, 1, 1, 1 }, 32, 12, 3, EQ_ERR_SHAPE, { "12 x 3", "11 x 9" } },
        { { 1, 1, 0, 0 }, 32, 3, 8, EQ_ERR_SHAPE, { "3 x 8", "9 x 7" } },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct eq_call call = { .op = &eq_op_conv2d,
                                .attributes = &rows[i].attributes,
                                .target = &target,
                                .num_inputs = 2,
                                .has = { true, true },
                                .input = {
                                    x, eq_tensor_weight(64, rows[i].ic, rows[i].kh, rows[i].kw, target.block, target.block) } };
        ck_assert_msg(call.op->shape(&call) == rows[i].status, "row %zu gives another status: %s", i, eq_last_error());
        for (int t = 0; t < 2; t++)
            ck_assert_msg(strstr(eq_last_error(), rows[i].text[t]), "row %zu does not name %s: %s", i, rows[i].text[t],
                          eq_last_error());
    }
    const struct eq_conv2d_data_grad_attributes data = { { 1, 1, 1, 1 }, 9, 7 };
    struct eq_call call = { .op = &eq_op_conv2d_data_grad,
                            .attributes = &data,
                            .target = &target,
                            .num_inputs = 3,
                            .has = { true, true, false },
                            .input = { eq_tensor_blocked(2, 64, 8, 7, target.block, 0),
                                       eq_tensor_weight(64, 32, 3, 3, target.block, target.block) } };
    ck_assert_int_eq(call.op->shape(&call), EQ_ERR_SHAPE);
    ck_assert_msg(strstr(eq_last_error(), "64 x 8 x 7") && strstr(eq_last_error(), "64 x 9 x 7"), "%s", eq_last_error());
    const struct eq_conv2d_weight_grad_attributes weight = { { 2, 2, 1, 1 }, 3, 3 };
    call = (struct eq_call){ .op = &eq_op_conv2d_weight_grad,
                             .attributes = &weight,
                             .target = &target,
                             .num_inputs = 2,
                             .has = { true, true },
                             .input = { x, eq_tensor_blocked(2, 64, 9, 7, target.block, 0) } };
    ck_assert_int_eq(call.op->shape(&call), EQ_ERR_SHAPE);
    ck_assert_msg(strstr(eq_last_error(), "9 x 7") && strstr(eq_last_error(), "5 x 4"), "%s", eq_last_error());
}
END_TEST

START_TEST(test_cost_and_halo)
{
    struct eq_target target = eq_target_default();
    const struct eq_conv2d_attributes attributes = { 2, 2, 3, 3 };
    const struct eq_tensor x = eq_tensor_blocked(2, 3, 224, 224, 1, 0);
    struct eq_call call = { .op = &eq_op_conv2d,
                            .attributes = &attributes,
                            .target = &target,
                            .num_inputs = 2,
                            .has = { true, true },
                            .input = { x, eq_conv2d_weight(&target, &x, 64, 7, 7) } };
    TRY(call.op->shape(&call));
    ck_assert(call.op->cost(&call).flops == 2.0 * 2 * 64 * 112 * 112 * 3 * 49);
    ck_assert_int_eq(call.op->halo(&call, 0), 3);
    ck_assert_int_eq(call.op->halo(&call, 1), 0);
    target.family = EQ_FAMILY_SIMT;
    ck_assert_int_eq(call.op->halo(&call, 0), 0);
    target.family = EQ_FAMILY_VECTOR;
    // A 5x5 filter with padding 1 reaches three pixels over the border of dz; with padding 4 none.
    for (int pad = 1; pad <= 4; pad += 3) {
        const struct eq_conv2d_data_grad_attributes data = { { 1, 1, pad, pad }, 8, 8 };
        call = (struct eq_call){ .op = &eq_op_conv2d_data_grad,
                                 .attributes = &data,
                                 .target = &target,
                                 .num_inputs = 3,
                                 .has = { true, true, false },
                                 .input = { eq_tensor_blocked(1, 16, 4 + 2 * pad, 4 + 2 * pad, target.block, 0),
                                            eq_tensor_weight(16, 16, 5, 5, target.block, target.block) } };
        TRY(call.op->shape(&call));
        ck_assert_int_eq(call.op->halo(&call, 0), 4 - pad);
    }
}
END_TEST

// ---- gradient(): a tape that writes down what it is told

struct record {
    const struct eq_op *op[4];
    int inputs[4][3], given[4], given_input[4], num_calls, num_given, taken;
    struct eq_conv2d_weight_grad_attributes weight;
    struct eq_conv2d_data_grad_attributes data;
};

static eq_status record_call(struct eq_tape *tape, const struct eq_op *op, const void *attributes, const int *inputs,
                             int num_inputs, int *outputs)
{
    struct record *r = tape->graph;
    memcpy(r->inputs[r->num_calls], inputs, sizeof(int) * (size_t)num_inputs);
    if (op == &eq_op_conv2d_weight_grad)
        memcpy(&r->weight, attributes, sizeof r->weight);
    else
        memcpy(&r->data, attributes, sizeof r->data);
    outputs[0] = 100 + r->num_calls;
    outputs[1] = 200 + r->num_calls;
    r->op[r->num_calls++] = op;
    return EQ_OK;
}

static int record_take(struct eq_tape *tape, int input)
{
    ck_assert_int_eq(input, 0);
    return ((struct record *)tape->graph)->taken;
}

static eq_status record_give(struct eq_tape *tape, int input, int value)
{
    struct record *r = tape->graph;
    r->given_input[r->num_given] = input;
    r->given[r->num_given++] = value;
    return EQ_OK;
}

START_TEST(test_gradient)
{
    const struct eq_target target = eq_target_default();
    const struct eq_conv2d_attributes attributes = { 2, 2, 1, 1 };
    struct eq_call call = { .op = &eq_op_conv2d,
                            .attributes = &attributes,
                            .target = &target,
                            .num_inputs = 2,
                            .has = { true, true },
                            .input = { eq_tensor_blocked(1, 16, 9, 8, target.block, 0),
                                       eq_tensor_weight(16, 16, 3, 3, target.block, target.block) } };
    TRY(call.op->shape(&call));
    struct record r = { .taken = 77 };
    struct eq_tape tape = { .graph = &r,
                            .input = { 5, 6 },
                            .output = { 7, 8 },
                            .output_grad = { 9, EQ_NO_VALUE },
                            .wants = { true, true },
                            .call = record_call,
                            .take = record_take,
                            .give = record_give };
    TRY(call.op->gradient(&call, &tape));
    ck_assert_int_eq(r.num_calls, 2);
    ck_assert_int_eq(r.num_given, 2);
    for (int i = 0; i < 2; i++) {
        const bool is_weight = r.op[i] == &eq_op_conv2d_weight_grad;
        ck_assert_int_eq(r.inputs[i][0], is_weight ? 5 : 9);
        ck_assert_int_eq(r.inputs[i][1], is_weight ? 9 : 6);
        if (!is_weight)
            ck_assert_int_eq(r.inputs[i][2], 77);
        ck_assert_int_eq(r.given_input[i], is_weight ? 1 : 0);
        ck_assert_int_eq(r.given[i], 100 + i);
    }
    ck_assert_int_eq(r.data.ih, 9);
    ck_assert_int_eq(r.data.iw, 8);
    ck_assert_int_eq(r.weight.kh, 3);
    ck_assert_int_eq(r.weight.conv.stride_h, 2);
    tape.wants[0] = false;
    r = (struct record){ .taken = EQ_NO_VALUE };
    TRY(call.op->gradient(&call, &tape));
    ck_assert(r.num_calls == 1 && r.op[0] == &eq_op_conv2d_weight_grad);
}
END_TEST

int main(void)
{
    if (eq_device_open(NULL, &device) != EQ_OK) {
        fprintf(stderr, "%s\n", eq_last_error());
        return 1;
    }
    const int num_cases = (int)(sizeof conv2d_cases / sizeof *conv2d_cases);
    Suite *suite = suite_create("conv2d");
    TCase *tcase = tcase_create("conv2d");
    tcase_set_timeout(tcase, 0);
    tcase_add_loop_test(tcase, test_vector, 0, num_cases);
    tcase_add_loop_test(tcase, test_simt, 0, num_cases);
    tcase_add_test(tcase, test_weight_grad_parts);
    tcase_add_test(tcase, test_refused);
    tcase_add_test(tcase, test_cost_and_halo);
    tcase_add_test(tcase, test_gradient);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_set_tap(runner, "-");
    srunner_run_all(runner, CK_SILENT);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    eq_device_destroy(&device);
    return failed != 0;
}

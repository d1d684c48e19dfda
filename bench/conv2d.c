// Speed of the convolutions of ResNet-50 at 224 x 224, in all three directions, against the device's measured multiply-add
// peak.
//     conv2d [batch [seconds per layer and direction [layer]]]
// Each layer is verified first: a pixel of z, dx and dw is compared with a sum in double. Times are the best of repeats, with
// the peak measured beside each layer, because clocks and neighbours change it. The last line is the mean over the network, by
// time.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "verify/conv2d_cases.h"
#include "op/op.h"

enum { NUM_DIRECTIONS = 3, NUM_LAYERS = sizeof conv2d_resnet50 / sizeof *conv2d_resnet50 };
static const char *const direction_names[] = { "forward", "data_grad", "weight_grad" };

struct operand {
    struct eq_tensor tensor;
    struct eq_buffer *buffer;
    float *plain;
};

static struct eq_device *device;

static void check(eq_status status)
{
    if (status == EQ_OK)
        return;
    fprintf(stderr, "bench/conv2d: %s: %s\n", eq_status_name(status), eq_last_error());
    exit(1);
}

static struct operand make_operand(struct eq_tensor tensor, int halo, uint64_t key)
{
    struct operand o = { .tensor = tensor };
    o.tensor.halo = halo;
    const size_t num = eq_tensor_logical(&o.tensor), elems = eq_tensor_elems(&o.tensor);
    float *stored = eq_malloc(elems, sizeof *stored);
    o.plain = eq_malloc(num, sizeof *o.plain);
    if (!stored || !o.plain)
        check(EQ_ERR_HOST_MEMORY);
    for (size_t i = 0; i < num; i++)
        o.plain[i] = (float)eq_random_unit(key, i) - 0.5f;
    eq_tensor_pack(&o.tensor, o.plain, stored);
    check(eq_buffer_create(device, eq_tensor_bytes(&o.tensor), &o.buffer));
    check(eq_ref_write(eq_ref_at(o.buffer, 0), stored, elems, sizeof *stored));
    free(stored);
    return o;
}

static void free_operand(struct operand *o)
{
    eq_buffer_destroy(&o->buffer);
    free(o->plain);
}

static size_t index_of(const struct eq_tensor *t, int n, int c, int y, int x)
{
    return (((size_t)n * (size_t)t->c + (size_t)c) * (size_t)t->h + (size_t)y) * (size_t)t->w + (size_t)x;
}

// The last element of each direction's result, but for the tap (the middle one), in double.
static double expected(int direction, const struct conv2d_layer *l, const struct operand *x, const struct operand *w,
                       const struct operand *z)
{
    const int pad = l->kernel / 2, n = x->tensor.n - 1, last = l->size - 1, last_z = z->tensor.h - 1;
    double sum = 0;
    if (direction == 0)
        for (int c = 0; c < l->ic; c++)
            for (int i = 0; i < l->kernel; i++)
                for (int j = 0; j < l->kernel; j++) {
                    const int y = last_z * l->stride + i - pad, k = last_z * l->stride + j - pad;
                    if (y >= 0 && y <= last && k >= 0 && k <= last)
                        sum += (double)x->plain[index_of(&x->tensor, n, c, y, k)] *
                               w->plain[index_of(&w->tensor, l->oc - 1, c, i, j)];
                }
    if (direction == 1)
        for (int c = 0; c < l->oc; c++)
            for (int i = 0; i < l->kernel; i++)
                for (int j = 0; j < l->kernel; j++) {
                    const int y = last + pad - i, k = last + pad - j;
                    if (y % l->stride == 0 && y / l->stride <= last_z && k % l->stride == 0 && k / l->stride <= last_z)
                        sum += (double)z->plain[index_of(&z->tensor, n, c, y / l->stride, k / l->stride)] *
                               w->plain[index_of(&w->tensor, c, l->ic - 1, i, j)];
                }
    if (direction == 2)
        for (int image = 0; image <= n; image++)
            for (int y = 0; y <= last_z; y++)
                for (int k = 0; k <= last_z; k++)
                    sum += (double)x->plain[index_of(&x->tensor, image, l->ic - 1, y * l->stride, k * l->stride)] *
                           z->plain[index_of(&z->tensor, image, l->oc - 1, y, k)];
    return sum;
}

static void verify(int direction, const struct conv2d_layer *l, const struct operand *x, const struct operand *w,
                   const struct operand *z, const struct operand *out)
{
    const struct eq_tensor *t = &out->tensor;
    float *stored = eq_malloc(eq_tensor_elems(t), sizeof *stored), *plain = eq_malloc(eq_tensor_logical(t), sizeof *plain);
    if (!stored || !plain)
        check(EQ_ERR_HOST_MEMORY);
    check(eq_ref_read(eq_ref_at(out->buffer, 0), stored, eq_tensor_elems(t), sizeof *stored));
    eq_tensor_unpack(t, stored, plain);
    const int y = direction == 2 ? t->h / 2 : t->h - 1, k = direction == 2 ? t->w / 2 : t->w - 1;
    const double value = plain[index_of(t, t->n - 1, t->c - 1, y, k)], want = expected(direction, l, x, w, z);
    if (!(fabs(value - want) <= 1e-4 * (1 + fabs(want)))) {
        fprintf(stderr, "bench/conv2d: %s %d -> %d: %g, not %g\n", direction_names[direction], l->ic, l->oc, value, want);
        exit(1);
    }
    free(stored);
    free(plain);
}

// Seconds of the best run.
static double time_list(struct eq_list *list, double seconds)
{
    double best = 1e9, all = 0;
    for (int i = 0; i < 3 || all < seconds; i++) {
        const int64_t start = eq_clock_ns();
        check(eq_list_run(list));
        check(eq_device_finish(device));
        const double time = (double)(eq_clock_ns() - start) * 1e-9;
        best = time < best ? time : best;
        all += time;
    }
    return best;
}

static int halo_of(const struct eq_call *call, int input)
{
    return call->op->halo ? call->op->halo(call, input) : 0;
}

// Times one direction of a layer; flops is set.
static double run_direction(int direction, const struct conv2d_layer *l, int batch, double seconds, double *flops)
{
    const int pad = l->kernel / 2, oh = (l->size + 2 * pad - l->kernel) / l->stride + 1;
    const struct eq_conv2d_attributes conv = { l->stride, l->stride, pad, pad };
    const struct eq_conv2d_data_grad_attributes data = { conv, l->size, l->size };
    const struct eq_conv2d_weight_grad_attributes weight = { conv, l->kernel, l->kernel };
    const struct eq_op *const ops[] = { &eq_op_conv2d, &eq_op_conv2d_data_grad, &eq_op_conv2d_weight_grad };
    const void *const attributes[] = { &conv, &data, &weight };
    const int block = device->target.block;
    const struct eq_tensor xt = eq_tensor_blocked(batch, l->ic, l->size, l->size, l->ic == 3 ? 1 : block, 0);
    const struct eq_tensor wt = eq_conv2d_weight(&device->target, &xt, l->oc, l->kernel, l->kernel, 1);
    const struct eq_tensor zt = eq_tensor_blocked(batch, l->oc, oh, oh, block, 0);
    const struct eq_tensor tensors[NUM_DIRECTIONS][2] = { { xt, wt }, { zt, wt }, { xt, zt } };

    struct eq_call call = { .op = ops[direction],
                            .attributes = attributes[direction],
                            .target = &device->target,
                            .num_inputs = direction == 1 ? 3 : 2,
                            .has = { true, true, false },
                            .input = { tensors[direction][0], tensors[direction][1] } };
    check(call.op->shape(&call));
    *flops = call.op->cost(&call).flops;
    const int x_halo = direction == 1 ? 0 : halo_of(&call, 0), z_halo = direction == 1 ? halo_of(&call, 0) : 0;
    struct operand x = make_operand(xt, x_halo, 1), w = make_operand(wt, 0, 2), z = make_operand(zt, z_halo, 3);
    struct operand *const out = direction == 0 ? &z : direction == 1 ? &x : &w;
    struct operand *const inputs[NUM_DIRECTIONS][2] = { { &x, &w }, { &z, &w }, { &x, &z } };
    struct eq_ref in[3] = { { NULL, 0 } };
    for (int i = 0; i < 2; i++) {
        in[i] = eq_ref_at(inputs[direction][i]->buffer, 0);
        call.input[i] = inputs[direction][i]->tensor;
    }
    struct eq_buffer *workspace = NULL;
    check(eq_buffer_create(device, eq_tensor_bytes(&call.output[1]), &workspace));
    struct eq_list *list = NULL;
    check(eq_list_create(device, &list));
    check(call.op->emit(list, &call, in, (const struct eq_ref[]){ eq_ref_at(out->buffer, 0), eq_ref_at(workspace, 0) }));
    check(eq_list_run(list));
    check(eq_device_finish(device));
    verify(direction, l, &x, &w, &z, out);
    const double time = time_list(list, seconds);
    eq_list_destroy(&list);
    eq_buffer_destroy(&workspace);
    free_operand(&x);
    free_operand(&w);
    free_operand(&z);
    return time;
}

// An argument from least to most, or `otherwise` where it is not given.
static double number_of(const char *text, const char *what, double least, double most, bool is_whole, double otherwise)
{
    if (!text)
        return otherwise;
    char *end;
    const double value = strtod(text, &end);
    if (end != text && *end == '\0' && value >= least && value <= most && (!is_whole || value == floor(value)))
        return value;
    fprintf(stderr, "bench/conv2d: the %s is \"%s\": a %snumber from %g to %g is needed\n", what, text,
            is_whole ? "whole " : "", least, most);
    exit(2);
}

int main(int argc, char **argv)
{
    if (argc > 4) {
        fprintf(stderr, "bench/conv2d: %d arguments; it takes [batch [seconds per layer and direction [layer]]]\n", argc - 1);
        return 2;
    }
    const char *const given[3] = { argc > 1 ? argv[1] : NULL, argc > 2 ? argv[2] : NULL, argc > 3 ? argv[3] : NULL };
    const int batch = (int)number_of(given[0], "batch", 1, 65536, true, 16);
    const double seconds = number_of(given[1], "time in seconds", 0, 3600, false, 0.2);
    const int only = (int)number_of(given[2], "layer", 0, NUM_LAYERS - 1, true, -1);
    double time[NUM_DIRECTIONS] = { 0 }, flops[NUM_DIRECTIONS] = { 0 }, at_peak[NUM_DIRECTIONS] = { 0 };
    check(eq_device_open(NULL, &device));
    printf("# %s, driver %s, batch %d: GFLOP/s and share of the peak of multiply-adds\n", eq_device_name(device),
           eq_device_driver(device), batch);
    printf("%-28s %22s %22s %22s %8s\n", "layer", direction_names[0], direction_names[1], direction_names[2], "peak");
    for (int i = 0; i < NUM_LAYERS; i++) {
        const struct conv2d_layer *l = &conv2d_resnet50[i];
        if (only >= 0 && only != i)
            continue;
        char name[64];
        snprintf(name, sizeof name, "%d -> %d, %d, %dx%d s%d", l->ic, l->oc, l->size, l->kernel, l->kernel, l->stride);
        printf("%-28s", name);
        double layer_peak = 0;
        for (int d = 0; d < NUM_DIRECTIONS; d++) {
            if (d == 1 && l->ic == 3) { // the image needs no gradient
                printf(" %22s", "-");
                continue;
            }
            double layer_flops, peak, after, bytes;
            check(eq_device_peak(device, &peak, &bytes));
            const double best = run_direction(d, l, batch, seconds, &layer_flops);
            check(eq_device_peak(device, &after, &bytes));
            peak = after > peak ? after : peak;
            layer_peak = peak > layer_peak ? peak : layer_peak;
            printf(" %12.1f GF (%4.2f)", layer_flops / best * 1e-9, layer_flops / best / peak);
            fflush(stdout);
            time[d] += best * l->count;
            flops[d] += layer_flops * l->count;
            at_peak[d] += layer_flops / peak * l->count;
        }
        printf(" %8.1f\n", layer_peak * 1e-9);
    }
    printf("%-28s", "network");
    for (int d = 0; d < NUM_DIRECTIONS; d++)
        printf(" %12.1f GF (%4.2f)", flops[d] / time[d] * 1e-9, at_peak[d] / time[d]);
    printf("\n%-28s", "ms");
    for (int d = 0; d < NUM_DIRECTIONS; d++)
        printf(" %22.1f", time[d] * 1e3);
    printf("\n");
    eq_device_destroy(&device);
    return 0;
}

// Limits of devices: they are data, launches and memory stay within them, and what cannot is refused with the numbers.
#define _GNU_SOURCE // RTLD_NEXT
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "equil/equil.h"
#include "limits.h"
#include "op/conv2d.h"
#include "rt/internal.h"
#include "support.h"

// Kernels of which a piece that was not the first has been enqueued, each name between blanks.
static char cut[4096];

// Most work-groups of an enqueue in a dimension that is not the first.
static size_t most_groups;

static bool was_cut(const char *kernel)
{
    char text[80];
    snprintf(text, sizeof text, " %s ", kernel);
    return strstr(cut, text) != NULL;
}

typedef cl_int (*enqueue_fn)(cl_command_queue queue, cl_kernel kernel, cl_uint dims, const size_t *offset, const size_t *global,
                             const size_t *local, cl_uint num, const cl_event *wait, cl_event *event);

// Takes the place of the loader's, which it calls.
cl_int clEnqueueNDRangeKernel(cl_command_queue queue, cl_kernel kernel, cl_uint dims, const size_t *offset,
                              const size_t *global, const size_t *local, cl_uint num, const cl_event *wait, cl_event *event)
{
    enqueue_fn enqueue;
    char name[64] = "";
    if (offset && clGetKernelInfo(kernel, CL_KERNEL_FUNCTION_NAME, sizeof name, name, NULL) == CL_SUCCESS && !was_cut(name))
        snprintf(cut + strlen(cut), sizeof cut - strlen(cut), " %s ", name);
    for (cl_uint d = 1; d < dims; d++)
        if (global[d] / local[d] > most_groups)
            most_groups = global[d] / local[d];
    *(void **)&enqueue = dlsym(RTLD_NEXT, "clEnqueueNDRangeKernel");
    return enqueue(queue, kernel, dims, offset, global, local, num, wait, event);
}

// What some drivers do not know of their devices.
static bool is_silent;

typedef cl_int (*ask_fn)(cl_device_id id, cl_device_info what, size_t bytes, void *value, size_t *needed);

cl_int clGetDeviceInfo(cl_device_id id, cl_device_info what, size_t bytes, void *value, size_t *needed)
{
    static const cl_device_info unknown[] = { CL_DEVICE_MAX_COMPUTE_UNITS, CL_DEVICE_MAX_CLOCK_FREQUENCY,
                                              CL_DEVICE_GLOBAL_MEM_CACHE_SIZE, CL_DEVICE_MEM_BASE_ADDR_ALIGN,
                                              CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT };
    ask_fn ask;
    *(void **)&ask = dlsym(RTLD_NEXT, "clGetDeviceInfo");
    const cl_int code = ask(id, what, bytes, value, needed);
    for (size_t i = 0; is_silent && value && i < sizeof unknown / sizeof *unknown; i++)
        if (what == unknown[i])
            memset(value, 0, bytes);
    return code;
}

static void open_limited(const struct eq_limits *limits, struct eq_device **device)
{
    eq_limits_impose(limits);
    EQ_TEST_OK(eq_device_open(NULL, device));
}

// To what the program's environment asks for.
static void restore(void)
{
    const struct eq_limits none = { 0 };
    eq_limits_impose(eq_test_limits() ? eq_test_limits() : &none);
}

// GPUs' drivers allocate when memory is first used: it is written before anything depends on it.
START_TEST(touched)
{
    struct eq_buffer *buffer;
    const enum eq_kind kind = eq_test_device->kind;
    const float ones[3] = { 1, 1, 1 };
    float back[3];
    EQ_TEST_OK(eq_buffer_create(eq_test_device, sizeof ones, &buffer));
    EQ_TEST_OK(eq_ref_write(eq_ref_at(buffer, 0), ones, 3, 4));
    eq_test_device->kind = _i ? EQ_KIND_GPU : EQ_KIND_CPU;
    EQ_TEST_OK(eq_buffer_touch(buffer));
    eq_test_device->kind = kind;
    EQ_TEST_OK(eq_ref_read(eq_ref_at(buffer, 0), back, 3, 4));
    for (int i = 0; i < 3; i++)
        ck_assert(back[i] == (_i ? 0.0f : 1.0f));
    eq_buffer_destroy(&buffer);
}
END_TEST

START_TEST(imposed)
{
    struct eq_device *device;
    const struct eq_limits own = eq_test_device->limits;
    const struct eq_limits wider = { .max_group = SIZE_MAX,
                                     .local_bytes = SIZE_MAX,
                                     .max_alloc_bytes = SIZE_MAX,
                                     .memory_bytes = SIZE_MAX,
                                     .max_groups = SIZE_MAX,
                                     .max_items = { SIZE_MAX, SIZE_MAX, SIZE_MAX } };
    open_limited(&wider, &device);
    ck_assert_uint_eq(device->limits.max_group, own.max_group);
    ck_assert_uint_eq(device->limits.local_bytes, own.local_bytes);
    ck_assert_uint_eq(device->limits.max_alloc_bytes, own.max_alloc_bytes);
    ck_assert_uint_eq(device->limits.memory_bytes, own.memory_bytes);
    ck_assert_uint_eq(device->limits.max_groups, own.max_groups);
    eq_device_destroy(&device);
    const struct eq_limits less = {
        .max_group = 64, .local_bytes = 16384, .max_alloc_bytes = 1 << 20, .memory_bytes = 3 << 20, .max_groups = 100
    };
    open_limited(&less, &device);
    ck_assert_uint_eq(device->limits.max_group, 64);
    ck_assert_uint_eq(device->target.max_group, 64);
    ck_assert_uint_eq(device->limits.local_bytes, 16384);
    ck_assert_uint_eq(device->target.max_alloc_bytes, 1 << 20);
    ck_assert_uint_eq(device->target.memory_bytes, 3 << 20);
    ck_assert_uint_eq(device->limits.max_groups, 100);
    ck_assert_uint_eq(device->limits.max_items[0], own.max_items[0]);
    eq_device_destroy(&device);
    restore();
}
END_TEST

// Devices below what every kernel needs are not opened.
START_TEST(too_small)
{
    struct eq_device *device;
    eq_limits_impose(&(struct eq_limits){ .max_group = 32 });
    ck_assert_int_eq(eq_device_open(NULL, &device), EQ_ERR_DEVICE);
    ck_assert_msg(strstr(eq_last_error(), "hold 32 work-items; at least 64"), "%s", eq_last_error());
    eq_limits_impose(&(struct eq_limits){ .local_bytes = 8192 });
    ck_assert_int_eq(eq_device_open(NULL, &device), EQ_ERR_DEVICE);
    ck_assert_msg(strstr(eq_last_error(), "8192 bytes of local memory; at least 16384"), "%s", eq_last_error());
    restore();
}
END_TEST

static eq_status append(struct eq_list *list, struct eq_buffer *buffer, struct eq_range range)
{
    const struct eq_ref at = eq_ref_at(buffer, 0);
    return eq_list_kernel(list,
                          &(struct eq_launch){ .source = "peak", .options = "-DBLOCK=4", .kernel = "peak_mad", .range = range },
                          EQ_ARGS(EQ_REF(at), EQ_I32(1), EQ_F32(1), EQ_F32(1)));
}

// A launch beyond the limits is refused when it is appended, with both numbers.
START_TEST(launches)
{
    struct eq_device *device;
    struct eq_list *list;
    struct eq_buffer *buffer;
    open_limited(&(struct eq_limits){ .max_group = 64, .max_items = { 64, 32, 16 } }, &device);
    EQ_TEST_OK(eq_buffer_create(device, 65536, &buffer));
    EQ_TEST_OK(eq_list_create(device, &list));
    EQ_TEST_OK(append(list, buffer, eq_range_1d(64, 64)));
    ck_assert_int_eq(append(list, buffer, eq_range_2d(64, 2, 64, 2)), EQ_ERR_UNSUPPORTED);
    ck_assert_msg(strstr(eq_last_error(), "128 work-items") && strstr(eq_last_error(), "allows 64"), "%s", eq_last_error());
    ck_assert_int_eq(append(list, buffer, eq_range_2d(1, 64, 1, 64)), EQ_ERR_UNSUPPORTED);
    ck_assert_msg(strstr(eq_last_error(), "64 work-items in dimension 1") && strstr(eq_last_error(), "allows 32"), "%s",
                  eq_last_error());
    device->limits.max_groups = 3;
    EQ_TEST_OK(append(list, buffer, eq_range_2d(64, 3, 64, 1)));
    ck_assert_int_eq(append(list, buffer, eq_range_2d(64, 4, 64, 1)), EQ_ERR_UNSUPPORTED);
    ck_assert_msg(strstr(eq_last_error(), "4 work-groups in dimension 1") && strstr(eq_last_error(), "allows 3"), "%s",
                  eq_last_error());
    device->limits.local_bytes = 100;
    const struct eq_launch launch = {
        .source = "softmax_xent", .options = "-DLSIZE=64", .kernel = "softmax_xent_fwd", .range = eq_range_1d(64, 64)
    };
    const struct eq_ref at = eq_ref_at(buffer, 0);
    ck_assert_int_eq(eq_list_kernel(list, &launch, EQ_ARGS(EQ_REF(at))), EQ_ERR_UNSUPPORTED);
    ck_assert_msg(strstr(eq_last_error(), "bytes of local memory") && strstr(eq_last_error(), "has 100"), "%s",
                  eq_last_error());
    ck_assert_int_eq(eq_list_length(list), 2);
    eq_list_destroy(&list);
    eq_buffer_destroy(&buffer);
    eq_device_destroy(&device);
    restore();
}
END_TEST

// A caller's part of a memory of its own, where a device lets one begin.
static struct eq_buffer *adopt_part(struct eq_device *device, size_t bytes)
{
    const cl_buffer_region region = { device->limits.origin_bytes, bytes };
    struct eq_buffer *buffer;
    cl_int codes[2];
    cl_mem whole = clCreateBuffer(device->context, CL_MEM_READ_WRITE, region.origin + bytes, NULL, &codes[0]);
    cl_mem part = clCreateSubBuffer(whole, 0, CL_BUFFER_CREATE_TYPE_REGION, &region, &codes[1]);
    ck_assert_int_eq(codes[0], CL_SUCCESS);
    ck_assert_int_eq(codes[1], CL_SUCCESS);
    EQ_TEST_OK(eq_buffer_adopt(device, part, &buffer));
    clReleaseMemObject(part);
    clReleaseMemObject(whole);
    return buffer;
}

// Fills in pieces of two values, the last one shorter: all of what they are to fill, and nothing beside it. Of the device's own
// memory, and of a caller's part of one.
START_TEST(fills)
{
    enum { NUM = 16, FIRST = 3, FILLED = 9 };
    float values[NUM], want[NUM];
    struct eq_device *device;
    struct eq_list *list;
    struct eq_buffer *buffer;
    open_limited(&(struct eq_limits){ .fill_bytes = 2 * sizeof(float) }, &device);
    if (_i < 2)
        EQ_TEST_OK(eq_buffer_create(device, sizeof values, &buffer));
    else
        buffer = adopt_part(device, sizeof values);
    EQ_TEST_OK(eq_list_create(device, &list));
    for (int i = 0; i < NUM; i++)
        values[i] = want[i] = (float)i;
    for (int i = FIRST; i < FIRST + FILLED; i++)
        want[i] = 0.5f;
    EQ_TEST_OK(eq_ref_write(eq_ref_at(buffer, 0), values, NUM, sizeof *values));
    EQ_TEST_OK(eq_list_fill(list, eq_ref_at(buffer, FIRST), 0.5f, FILLED));
    EQ_TEST_OK(_i % 2 ? eq_list_run(list) : eq_ref_fill(eq_ref_at(buffer, FIRST), 0.5f, FILLED));
    EQ_TEST_OK(eq_ref_read(eq_ref_at(buffer, 0), values, NUM, sizeof *values));
    for (int i = 0; i < NUM; i++)
        ck_assert_msg(values[i] == want[i], "value %d is %g, not %g", i, values[i], want[i]);
    eq_list_destroy(&list);
    eq_buffer_destroy(&buffer);
    eq_device_destroy(&device);
    restore();
}
END_TEST

enum { N = 4, SIZE = 32, CLASSES = 5 };

// Loss, logits and gradients of a network on a device with the limits; *num floats, malloc'ed.
static float *gradients(const struct eq_limits *limits, size_t *num)
{
    const int64_t labels[N] = { 0, 4, 2, 1 };
    const struct eq_model_params params = { .arch = "ce-resnet20", .classes = CLASSES };
    struct eq_device *device;
    struct eq_network *network;
    float *images = eq_check_uniform("images", (size_t)N * 3 * SIZE * SIZE, 3);
    open_limited(limits, &device);
    device->target.family = EQ_FAMILY_SIMT;
    EQ_TEST_OK(eq_network_create(device, &params, &network));
    struct eq_weights *weights = eq_network_weights(network);
    EQ_TEST_OK(eq_weights_initialise(weights, 11));
    *num = 1 + N * CLASSES;
    for (int i = 0; i < eq_weights_num(weights); i++)
        *num += eq_weights_at(weights, i).is_parameter ? eq_weights_at(weights, i).elems : 0;
    float *all = calloc(*num, sizeof *all), *at = all + 1 + N * CLASSES;
    EQ_TEST_OK(eq_network_gradients(network, N, SIZE, SIZE, images, labels, 0.1f, all, all + 1));
    for (int i = 0; i < eq_weights_num(weights); i++) {
        const struct eq_weights_tensor tensor = eq_weights_at(weights, i);
        if (!tensor.is_parameter)
            continue;
        EQ_TEST_OK(eq_weights_read_gradient(weights, tensor.name, at));
        at += tensor.elems;
    }
    // More than fits into one buffer.
    ck_assert_uint_gt(eq_device_peak_bytes(device), limits->max_alloc_bytes);
    free(images);
    eq_network_destroy(&network);
    eq_device_destroy(&device);
    restore();
    return all;
}

// Memory in many small buffers, and launches in pieces of one work-group: the same bits.
START_TEST(same_bits)
{
    static const struct eq_limits limits[] = { { .max_alloc_bytes = 1 << 20 }, { .launch_flops = 1 }, { .launch_flops = 3e5 } };
    static const char *const kernels[] = { "conv2d_simt",  "conv2d_simt_weight_grad", "moments_cross", "moments_cross_grad",
                                           "affine_cross", "affine_cross_grad" };
    size_t num, num_again;
    *cut = '\0';
    float *want = gradients(&(struct eq_limits){ .launch_flops = 1e30 }, &num);
    ck_assert_msg(*cut == '\0', "cut:%s", cut);
    float *got = gradients(&limits[_i], &num_again);
    double sum = 0;
    for (size_t k = 0; limits[_i].launch_flops > 0 && k < sizeof kernels / sizeof *kernels; k++)
        ck_assert_msg(was_cut(kernels[k]), "%s is not cut", kernels[k]);
    ck_assert_uint_eq(num, num_again);
    for (size_t i = 0; i < num; i++)
        sum += want[i] * want[i];
    ck_assert(sum > 0);
    for (size_t i = 0; i < num; i++)
        ck_assert_msg(memcmp(&want[i], &got[i], sizeof *want) == 0, "number %zu of %zu is %.9g, not %.9g", i, num,
                      (double)got[i], (double)want[i]);
    free(want);
    free(got);
}
END_TEST

// A driver that answers 0 to what it does not know. Plans divide by the units, and PoCL catches what that raises: not here.
START_TEST(silent_driver)
{
    size_t num;
    struct sigaction caught;
    sigaction(SIGFPE, &(struct sigaction){ .sa_handler = SIG_DFL }, &caught);
    is_silent = true;
    free(gradients(&(struct eq_limits){ .max_alloc_bytes = 1 << 20 }, &num));
    is_silent = false;
    sigaction(SIGFPE, &caught, NULL);
}
END_TEST

// Outputs of a call whose launches may have so much arithmetic and so many work-groups; *elems floats, malloc'ed.
static float *values_of(const struct eq_check_call *of, double flops, size_t groups, size_t *elems)
{
    struct eq_check_call call = *of;
    const struct eq_limits opened = eq_test_device->limits;
    eq_test_device->limits.launch_flops = flops;
    eq_test_device->limits.max_groups = groups;
    most_groups = 0;
    eq_check_call_run(&call);
    ck_assert_uint_le(most_groups, groups);
    eq_test_device->limits = opened;
    *elems = eq_tensor_logical(&call.shaped.output[0]);
    float *values = malloc(*elems * sizeof *values);
    memcpy(values, call.output[0], *elems * sizeof *values);
    eq_check_call_free(&call);
    return values;
}

static void check_limited(const struct eq_check_call *call, double flops, size_t groups, const char *kernel)
{
    size_t elems;
    *cut = '\0';
    float *want = values_of(call, 1e30, SIZE_MAX, &elems);
    ck_assert_msg(*cut == '\0', "cut:%s", cut);
    float *got = values_of(call, flops, groups, &elems);
    ck_assert_msg(was_cut(kernel), "%s is not cut", kernel);
    ck_assert_msg(memcmp(want, got, elems * sizeof *want) == 0, "%s: other values in pieces", kernel);
    free(want);
    free(got);
}

static void check_pieces(const struct eq_check_call *call, const char *kernel)
{
    check_limited(call, 1, SIZE_MAX, kernel);
}

// The kernels for GPUs that same_bits' network does not have: groups, and the gradient of an image.
START_TEST(pieces)
{
    enum { IMAGES = 2, CHANNELS = 32, IN = 3, SIDE = 14 };
    const struct eq_conv2d_attributes grouped = { 1, 1, 1, 1, .groups = CHANNELS };
    const struct eq_conv2d_weight_grad_attributes weight = { grouped, 3, 3 };
    const struct eq_conv2d_data_grad_attributes data = { { 1, 1, 1, 1 }, SIDE, SIDE }, grouped_data = { grouped, SIDE, SIDE };
    float *x = eq_check_uniform("x", IMAGES * CHANNELS * SIDE * SIDE, 1), *w = eq_check_uniform("w", CHANNELS * IN * 9, 2);
    eq_test_device->target.family = EQ_FAMILY_SIMT;
    const int block = eq_test_device->target.block;
    const struct eq_tensor xt = eq_tensor_blocked(IMAGES, CHANNELS, SIDE, SIDE, block, 0);
    check_pieces(
        &(struct eq_check_call){ .name = "groups",
                                 .op = &eq_op_conv2d,
                                 .attributes = &grouped,
                                 .num_inputs = 2,
                                 .input = { { xt, x, false }, { eq_tensor_weight(CHANNELS, 1, 3, 3, block, 1), w, false } },
                                 .is_workspace = { false, true } },
        "conv2d_grouped_simt");
    check_pieces(&(struct eq_check_call){ .name = "groups",
                                          .op = &eq_op_conv2d_weight_grad,
                                          .attributes = &weight,
                                          .num_inputs = 2,
                                          .input = { { xt, x, false }, { xt, x, false } },
                                          .is_workspace = { false, true } },
                 "conv2d_grouped_simt_weight_grad");
    // Its transposed filter has a group for each tap: more than there are blocks of channels, or images.
    check_limited(
        &(struct eq_check_call){ .name = "groups",
                                 .op = &eq_op_conv2d_data_grad,
                                 .attributes = &grouped_data,
                                 .num_inputs = 3,
                                 .input = { { xt, x, false }, { eq_tensor_weight(CHANNELS, 1, 3, 3, block, 1), w, false } },
                                 .is_workspace = { false, true } },
        1e30, CHANNELS / 4, "conv2d_grouped_transpose");
    check_pieces(
        &(struct eq_check_call){ .name = "an image",
                                 .op = &eq_op_conv2d_data_grad,
                                 .attributes = &data,
                                 .num_inputs = 3,
                                 .input = { { xt, x, false }, { eq_tensor_weight(CHANNELS, IN, 3, 3, block, 1), w, false } },
                                 .is_workspace = { false, true } },
        "conv2d_plain_data_grad");
    free(x);
    free(w);
}
END_TEST

enum { GROUPS = 65535 };

// Images, from `from` as 70000 channels into blocks with a halo and back to `to`, which has to be the same.
static void check_layout(struct eq_ref from, struct eq_ref between, struct eq_ref to, int n)
{
    const struct eq_tensor t = eq_tensor_blocked(n, 70000 / n, 1, 2, eq_test_device->target.block, 1);
    struct eq_list *list;
    struct eq_view view = eq_view_plain(&t, from);
    EQ_TEST_OK(eq_list_create(eq_test_device, &list));
    EQ_TEST_OK(eq_list_fill(list, between, 7, eq_tensor_elems(&t)));
    EQ_TEST_OK(eq_layout_pack_emit(list, &t, &view, between));
    EQ_TEST_OK(eq_conv2d_border_emit(list, &t, between));
    view.ref = to;
    EQ_TEST_OK(eq_layout_unpack_emit(list, &t, between, &view));
    EQ_TEST_OK(eq_list_run(list));
    eq_list_destroy(&list);
}

// More planes than work-groups are allowed in a dimension, of kernels that have one there: as many pieces as it takes. 70000
// images of one channel are 70000 planes, and as channels they are 70000 / BLOCK.
START_TEST(many_planes)
{
    enum { PLANES = 70000, NUM = 2 * PLANES };
    float *x = eq_check_uniform("x", NUM, 1), *back = calloc(NUM, sizeof *back);
    const struct eq_pool_avg_grad_attributes avg = { 1, 2 };
    const struct eq_pool_max_attributes max = { 1, 1, 1, 2, 0, 0 };
    const struct eq_pool_max_grad_attributes max_grad = { max, 1, 2 };
    const struct eq_limits opened = eq_test_device->limits;
    eq_test_device->target.family = _i ? EQ_FAMILY_SIMT : EQ_FAMILY_VECTOR;
    const int block = eq_test_device->target.block;
    const struct eq_tensor xt = eq_tensor_blocked(PLANES, 1, 1, 2, block, 0);
    const struct eq_tensor halo = eq_tensor_blocked(PLANES, 1, 1, 2, block, 1);
    struct eq_buffer *buffer;
    const size_t stored = eq_tensor_elems(&halo);
    EQ_TEST_OK(eq_buffer_create(eq_test_device, (2 * NUM + stored) * sizeof *x, &buffer));
    const struct eq_ref from = eq_ref_at(buffer, 0), to = eq_ref_at(buffer, NUM), between = eq_ref_at(buffer, (size_t)2 * NUM);
    EQ_TEST_OK(eq_ref_write(from, x, NUM, sizeof *x));
    for (int n = PLANES; n > 0; n = n == PLANES ? 1 : 0) {
        *cut = '\0';
        most_groups = 0;
        eq_test_device->limits.max_groups = n == PLANES ? GROUPS : GROUPS / 1024;
        check_layout(from, between, to, n);
        ck_assert_uint_le(most_groups, eq_test_device->limits.max_groups);
        ck_assert(was_cut("layout_pack") && was_cut("layout_unpack"));
        ck_assert(n == PLANES || was_cut("conv2d_border_zero"));
        eq_test_device->limits = opened;
        EQ_TEST_OK(eq_ref_read(to, back, NUM, sizeof *back));
        ck_assert_msg(memcmp(x, back, NUM * sizeof *x) == 0, "layout: other values in pieces");
    }
    check_limited(&(struct eq_check_call){ .name = "avg",
                                           .op = &eq_op_pool_avg_grad,
                                           .attributes = &avg,
                                           .num_inputs = 1,
                                           .input = { { eq_tensor_plain(EQ_F32, PLANES, 1, 1, 1), x, false } } },
                  1e30, GROUPS, "pool_avg_bwd");
    check_limited(&(struct eq_check_call){ .name = "max",
                                           .op = &eq_op_pool_max,
                                           .attributes = &max,
                                           .num_inputs = 1,
                                           .input = { { xt, x, false } },
                                           .is_workspace = { false, true } },
                  1e30, GROUPS, "pool_max_fwd");
    struct eq_tensor index = xt;
    index.dtype = EQ_I32;
    index.w = 1;
    struct eq_tensor dy = index;
    dy.dtype = EQ_F32;
    check_limited(&(struct eq_check_call){ .name = "max",
                                           .op = &eq_op_pool_max_grad,
                                           .attributes = &max_grad,
                                           .num_inputs = 2,
                                           .input = { { dy, x, false }, { index, x, false } } },
                  1e30, GROUPS, "pool_max_bwd");
    check_limited(&(struct eq_check_call){ .name = "halo",
                                           .op = &eq_op_add,
                                           .num_inputs = 2,
                                           .input = { { xt, x, false }, { halo, x, false } } },
                  1e30, GROUPS, "add_rows");
    eq_buffer_destroy(&buffer);
    free(back);
    free(x);
}
END_TEST

// A tensor above the largest buffer is refused with both numbers: 4 images of 32 x 32 pixels in 16 channels are 256 KiB.
START_TEST(tensor_too_large)
{
    struct eq_device *device;
    struct eq_network *network;
    const struct eq_model_params params = { .arch = "ce-resnet20", .classes = CLASSES };
    const int64_t labels[N] = { 0 };
    float *images = eq_check_uniform("images", (size_t)N * 3 * SIZE * SIZE, 3), loss, logits[N * CLASSES];
    open_limited(&(struct eq_limits){ .max_alloc_bytes = 250000 }, &device);
    EQ_TEST_OK(eq_network_create(device, &params, &network));
    ck_assert_int_eq(eq_network_gradients(network, N, SIZE, SIZE, images, labels, 0, &loss, logits), EQ_ERR_DEVICE_MEMORY);
    ck_assert_msg(strstr(eq_last_error(), "a tensor of ") && strstr(eq_last_error(), "at most 250000"), "%s", eq_last_error());
    eq_network_destroy(&network);
    eq_device_destroy(&device);
    free(images);
    restore();
}
END_TEST

EQ_TEST_MAIN("limits", { touched, 2 }, { imposed, 1 }, { too_small, 1 }, { launches, 1 }, { fills, 4 }, { same_bits, 3 },
             { silent_driver, 1 }, { pieces, 1 }, { many_planes, 2 }, { tensor_too_large, 1 })

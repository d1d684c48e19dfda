// Limits of devices: they are data, launches and memory stay within them, and what cannot is refused with the numbers.
#include <stdlib.h>
#include <string.h>

#include "equil/equil.h"
#include "limits.h"
#include "support.h"

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
                                     .max_items = { SIZE_MAX, SIZE_MAX, SIZE_MAX } };
    open_limited(&wider, &device);
    ck_assert_uint_eq(device->limits.max_group, own.max_group);
    ck_assert_uint_eq(device->limits.local_bytes, own.local_bytes);
    ck_assert_uint_eq(device->limits.max_alloc_bytes, own.max_alloc_bytes);
    ck_assert_uint_eq(device->limits.memory_bytes, own.memory_bytes);
    eq_device_destroy(&device);
    const struct eq_limits less = {
        .max_group = 64, .local_bytes = 16384, .max_alloc_bytes = 1 << 20, .memory_bytes = 3 << 20
    };
    open_limited(&less, &device);
    ck_assert_uint_eq(device->limits.max_group, 64);
    ck_assert_uint_eq(device->target.max_group, 64);
    ck_assert_uint_eq(device->limits.local_bytes, 16384);
    ck_assert_uint_eq(device->target.max_alloc_bytes, 1 << 20);
    ck_assert_uint_eq(device->target.memory_bytes, 3 << 20);
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
    device->limits.local_bytes = 100;
    const struct eq_launch launch = {
        .source = "softmax_xent", .options = "-DLSIZE=64", .kernel = "softmax_xent_fwd", .range = eq_range_1d(64, 64)
    };
    const struct eq_ref at = eq_ref_at(buffer, 0);
    ck_assert_int_eq(eq_list_kernel(list, &launch, EQ_ARGS(EQ_REF(at))), EQ_ERR_UNSUPPORTED);
    ck_assert_msg(strstr(eq_last_error(), "bytes of local memory") && strstr(eq_last_error(), "has 100"), "%s",
                  eq_last_error());
    ck_assert_int_eq(eq_list_length(list), 1);
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
    size_t num, num_again;
    float *want = gradients(&(struct eq_limits){ .launch_flops = 1e30 }, &num), *got = gradients(&limits[_i], &num_again);
    double sum = 0;
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

EQ_TEST_MAIN("limits", { touched, 2 }, { imposed, 1 }, { too_small, 1 }, { launches, 1 }, { same_bits, 3 },
             { tensor_too_large, 1 })

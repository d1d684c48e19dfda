// Images on their way into a network's input.
#include <stdlib.h>
#include <string.h>

#include "io/dataset.h"
#include "support/support.h"
#include "train/feed.h"

enum { NUM_CLASSES = 3, NUM_IMAGES = 42, BATCH = 4 };

// The network's input and the labels of a pass, batch after batch, the last of which is filled up. malloc'ed.
static float *feed_all(struct eq_network *network, const struct eq_feed_params *params, size_t *num)
{
    const struct eq_compiled *compiled = &network->infer;
    struct eq_feed *feed;
    struct eq_feed_batch batch;
    struct eq_ref input;
    struct eq_tensor tensor;
    EQ_TEST_OK(eq_exec_find(compiled->exec, compiled->model.images, &input, &tensor));
    const size_t elems = eq_tensor_bytes(&tensor) / sizeof(float);
    float *values = eq_calloc((NUM_IMAGES / BATCH + 1) * elems, sizeof *values);
    ck_assert_ptr_nonnull(values);
    *num = 0;
    EQ_TEST_OK(eq_feed_create(eq_test_device, compiled, params, &feed));
    EQ_TEST_OK(eq_feed_start(feed, 0, 0));
    EQ_TEST_OK(eq_feed_next(feed, &batch));
    while (batch.num > 0) {
        EQ_TEST_OK(eq_ref_read(input, values + *num, elems, sizeof *values));
        *num += elems;
        EQ_TEST_OK(eq_feed_next(feed, &batch));
    }
    ck_assert_uint_eq(batch.position, NUM_IMAGES);
    eq_feed_destroy(&feed);
    return values;
}

// A batch that goes to the device picture by picture, or in parts of some, is the one that goes at once.
START_TEST(test_feed_in_parts)
{
    const size_t limits[] = { 1, 16 * 16 * 3 + 1, 0 }; // bytes of pictures of 16 x 16: one, two, and a batch
    const struct eq_model_params model = { .arch = "resnet20", .classes = NUM_CLASSES };
    struct eq_feed_params params = { .form = eq_input_form_default(&model, 16), .augment = EQ_TRAIN_AUGMENT_NONE };
    struct eq_network *network;
    struct eq_dataset *shapes, *dataset;
    struct eq_image_item items[NUM_IMAGES];
    float *values[3];
    size_t num[3];
    EQ_TEST_OK(eq_dataset_open(&(struct eq_dataset_params){ .spec = "shapes", .size = 16 }, &shapes));
    for (size_t i = 0; i < NUM_IMAGES; i++)
        items[i] = (struct eq_image_item){ .dataset = shapes, .item = 5 * i };
    EQ_TEST_OK(eq_dataset_of_images(items, NUM_IMAGES, &dataset));
    EQ_TEST_OK(eq_network_create(eq_test_device, &model, &network));
    EQ_TEST_OK(eq_network_compile_infer(network, BATCH, 16, 16));
    params.dataset = dataset;
    for (int i = 0; i < 3; i++) {
        params.max_bytes = limits[i];
        values[i] = feed_all(network, &params, &num[i]);
    }
    for (int i = 0; i < 2; i++)
        ck_assert(num[i] == num[2] && memcmp(values[i], values[2], num[2] * sizeof *values[i]) == 0);
    for (int i = 0; i < 3; i++)
        free(values[i]);
    eq_network_destroy(&network);
    eq_dataset_destroy(&dataset);
    eq_dataset_destroy(&shapes);
}
END_TEST

EQ_TEST_MAIN("feed", { test_feed_in_parts, 0 })

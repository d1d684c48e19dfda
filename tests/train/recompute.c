// Memory of training: recompute takes less of it and gives the same bits of loss, logits, gradients and running statistics, on
// every kind of network; evaluation borrows it.
#include <stdlib.h>
#include <string.h>

#include "support/support.h"
#include "train/step.h"

enum { N = 3, CLASSES = 5 };

static const struct {
    const char *arch;
    bool small;
    enum eq_act act;
    int size;
} nets[] = {
    { "resnet20", true, EQ_RELU, 20 },   { "resnet20", true, EQ_ELU, 17 },    { "ce-resnet20", true, EQ_RELU, 16 },
    { "ce-resnet20", true, EQ_ELU, 19 }, { "se-resnet20", true, EQ_RELU, 16 }, { "bd-resnet20", true, EQ_ELU, 16 },
    { "ir-resnet20", true, EQ_RELU, 16 }, { "ce-resnet18", false, EQ_RELU, 48 }, { "ce-resnet50", false, EQ_RELU, 49 },
    { "se-resnet50", false, EQ_ELU, 48 },
};

// One pass with the same weights and images each time.
static struct eq_network *run(int net, bool recompute, float *loss, float *logits)
{
    const struct eq_model_params params = { .arch = nets[net].arch, .classes = CLASSES, .small = nets[net].small,
                                            .act = nets[net].act, .recompute = recompute };
    const int size = nets[net].size;
    const int64_t labels[N] = { 0, 4, 2 };
    struct eq_network *network;
    float *images = eq_check_uniform("images", (size_t)N * 3 * (size_t)size * (size_t)size, 3);
    EQ_TEST_OK(eq_network_create(eq_test_device, &params, &network));
    EQ_TEST_OK(eq_weights_initialise(eq_network_weights(network), 11));
    EQ_TEST_OK(eq_network_gradients(network, N, size, size, images, labels, 0.1f, loss, logits));
    free(images);
    return network;
}

// Returns whether any number of it is not zero.
static bool compare_tensor(const struct eq_network *kept, const struct eq_network *again, int index)
{
    const struct eq_weights_tensor tensor = eq_weights_at(eq_network_weights(kept), index);
    float *a = calloc(tensor.elems, sizeof *a), *b = calloc(tensor.elems, sizeof *b);
    bool any = false;
    if (tensor.is_parameter) {
        EQ_TEST_OK(eq_weights_read_gradient(eq_network_weights(kept), tensor.name, a));
        EQ_TEST_OK(eq_weights_read_gradient(eq_network_weights(again), tensor.name, b));
    } else {
        EQ_TEST_OK(eq_weights_read(eq_network_weights(kept), tensor.name, a));
        EQ_TEST_OK(eq_weights_read(eq_network_weights(again), tensor.name, b));
    }
    for (size_t e = 0; e < tensor.elems; e++)
        any |= a[e] != 0;
    ck_assert_msg(memcmp(a, b, tensor.elems * sizeof *a) == 0, "%s of %s differs", tensor.name, eq_check_variant_name());
    free(a);
    free(b);
    return any;
}

START_TEST(test_same_bits)
{
    for (int variant = 0; variant < 2; variant++) {
        float loss[2], logits[2][N * CLASSES];
        eq_check_variant(variant);
        struct eq_network *kept = run(_i, false, &loss[0], logits[0]), *again = run(_i, true, &loss[1], logits[1]);
        ck_assert(memcmp(&loss[0], &loss[1], sizeof *loss) == 0);
        ck_assert(memcmp(logits[0], logits[1], sizeof logits[0]) == 0);
        int num_alive = 0, num = eq_weights_num(eq_network_weights(kept));
        for (int i = 0; i < num; i++)
            num_alive += compare_tensor(kept, again, i);
        ck_assert_msg(10 * num_alive > 9 * num, "%d of %d tensors are zero", num - num_alive, num); // gates may be shut
        ck_assert_uint_lt(eq_exec_bytes(again->gradients.exec), eq_exec_bytes(kept->gradients.exec));
        eq_network_destroy(&kept);
        eq_network_destroy(&again);
    }
}
END_TEST

// Stored values of all tensors, from the device (allocated) or back to it.
static void copy_values(struct eq_network *network, float **values, bool is_back)
{
    for (int i = 0; i < eq_store_num_entries(network->weights->store); i++) {
        const struct eq_store_entry *entry = eq_store_entry(network->weights->store, i);
        const struct eq_ref ref = eq_store_ref(network->weights->store, entry, EQ_STORE_VALUE);
        const size_t elems = eq_tensor_elems(&entry->tensor);
        if (!is_back)
            values[i] = calloc(elems, sizeof **values);
        EQ_TEST_OK(is_back ? eq_ref_write(ref, values[i], elems, sizeof **values)
                           : eq_ref_read(ref, values[i], elems, sizeof **values));
    }
}

// Evaluation in training's memory: the same bits as alone, before and after a pass that overwrote what it had prepared, though
// the weights are the same.
START_TEST(test_lent)
{
    enum { SIZE = 32, ELEMS = N * 3 * SIZE * SIZE };
    const struct eq_model_params params = { .arch = "resnet20", .classes = CLASSES };
    float *images = eq_check_uniform("images", ELEMS, 4), logits[3][N * CLASSES];
    struct eq_network *network;
    EQ_TEST_OK(eq_network_create(eq_test_device, &params, &network));
    EQ_TEST_OK(eq_weights_initialise(eq_network_weights(network), 2));
    EQ_TEST_OK(eq_network_infer(network, N, SIZE, SIZE, images, logits[0]));
    const size_t alone = eq_exec_bytes(network->infer.exec);
    EQ_TEST_OK(eq_network_compile_gradients(network, N, SIZE, SIZE, 0));
    EQ_TEST_OK(eq_network_infer(network, N, SIZE, SIZE, images, logits[1]));
    struct eq_ref ref;
    struct eq_tensor input;
    EQ_TEST_OK(eq_exec_find(network->infer.exec, network->infer.model.images, &ref, &input));
    // and nothing else but the input and the logits
    ck_assert_uint_eq(eq_exec_bytes(network->infer.exec), eq_tensor_bytes(&input) + sizeof logits[0]);
    ck_assert_uint_gt(alone, 2 * eq_tensor_bytes(&input));
    // What a pass changes is put back past the store, so that its version stays.
    const uint64_t version = eq_store_version(network->weights->store);
    const int num = eq_store_num_entries(network->weights->store);
    float **values = calloc((size_t)num, sizeof *values);
    copy_values(network, values, false);
    EQ_TEST_OK(eq_exec_run(network->gradients.exec));
    copy_values(network, values, true);
    ck_assert_uint_eq(eq_store_version(network->weights->store), version);
    EQ_TEST_OK(eq_network_infer(network, N, SIZE, SIZE, images, logits[2]));
    for (int i = 0; i < num; i++)
        free(values[i]);
    free(values);
    ck_assert(memcmp(logits[0], logits[1], sizeof logits[0]) == 0);
    ck_assert(memcmp(logits[0], logits[2], sizeof logits[0]) == 0);
    eq_network_destroy(&network);
    free(images);
}
END_TEST

// The goals of the memory plan at 16 images of 224 pixels, and that the cost is a small part.
START_TEST(test_plan)
{
    struct eq_model_info info;
    const struct eq_model_params params = { .arch = "ce-resnet50", .classes = 1000 };
    EQ_TEST_OK(eq_model_describe(NULL, &params, 16, 224, 224, &info));
    ck_assert_msg(info.training_bytes <= (size_t)(1.95 * (1 << 30)), "%zu bytes in training", info.training_bytes);
    ck_assert_msg(info.recompute_bytes <= (size_t)(1.35 * (1 << 30)), "%zu bytes with recompute", info.recompute_bytes);
    ck_assert(info.recompute_traffic > 0 && info.recompute_traffic < 0.2 * info.training_traffic);
    ck_assert(info.recompute_flops > 0 && info.recompute_flops < 0.05 * info.training_flops);
    eq_model_info_free(&info);
}
END_TEST

EQ_TEST_MAIN("recompute", { test_same_bits, sizeof nets / sizeof *nets }, { test_lent, 1 }, { test_plan, 1 })

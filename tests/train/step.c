// Training steps: the update by hand, gradient accumulation, what a loss that is not finite halts, and which tensor it is
// blamed on; evaluation between steps.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/support.h"
#include "train/step.h"

enum { N = 4, SIZE = 16, CLASSES = 3, ELEMS = N * 3 * SIZE * SIZE };

static struct eq_network *network;
static struct eq_step *step;
static const int32_t labels[N] = { 0, 2, 1, 2 };

static void open_step(const char *arch, const struct eq_step_params *params)
{
    EQ_TEST_OK(eq_network_create(eq_test_device, &(struct eq_model_params){ .arch = arch, .classes = CLASSES }, &network));
    EQ_TEST_OK(eq_weights_initialise(eq_network_weights(network), 5));
    EQ_TEST_OK(eq_step_create(network, params, &step));
}

static void close_step(void)
{
    eq_step_destroy(&step);
    eq_network_destroy(&network);
}

static void write_batch(uint64_t seed)
{
    float *images = eq_check_uniform("images", ELEMS, seed);
    const struct eq_compiled *compiled = &network->gradients;
    EQ_TEST_OK(eq_exec_write(compiled->exec, compiled->model.images, images));
    EQ_TEST_OK(eq_exec_write(compiled->exec, compiled->model.labels, labels));
    free(images);
}

static const char *const watched[] = { "conv1.weight", "bn1.bias", "layer2.0.conv2.weight", "fc.weight", "fc.bias" };
enum { NUM_WATCHED = sizeof watched / sizeof *watched };

static size_t elems_of(const char *name)
{
    for (int i = 0; i < eq_weights_num(eq_network_weights(network)); i++)
        if (strcmp(eq_weights_at(eq_network_weights(network), i).name, name) == 0)
            return eq_weights_at(eq_network_weights(network), i).elems;
    ck_abort_msg("no tensor %s", name);
    return 0;
}

static float *read_value(const char *name)
{
    float *values = calloc(elems_of(name), sizeof *values);
    EQ_TEST_OK(eq_weights_read(eq_network_weights(network), name, values));
    return values;
}

// Runs an update of `accumulate` batches, and adds up the gradients of the watched tensors in double.
static void run_update(int accumulate, uint64_t seed, double rate, double *sums[NUM_WATCHED])
{
    for (int i = 0; i < accumulate; i++) {
        struct eq_step_result result;
        write_batch(seed + (uint64_t)i);
        EQ_TEST_OK(eq_step_launch(step));
        EQ_TEST_OK(eq_step_result(step, labels, &result));
        ck_assert(result.loss_sum > 0 && result.loss_sum < 10 * N && result.hits >= 0 && result.hits <= N);
        for (int w = 0; w < NUM_WATCHED; w++) {
            size_t elems = elems_of(watched[w]);
            float *grad = calloc(elems, sizeof *grad);
            EQ_TEST_OK(eq_weights_read_gradient(eq_network_weights(network), watched[w], grad));
            for (size_t e = 0; e < elems; e++)
                sums[w][e] += grad[e];
            free(grad);
        }
        EQ_TEST_OK(eq_step_finish(step, i, rate));
    }
}

// _i: batches in an update, less 1. Two updates, so that momentum counts.
START_TEST(test_update)
{
    const int accumulate = _i + 1;
    const double rates[] = { 0.05, 0.02 }, momentum = 0.9, decay = 0.01;
    double *velocity[NUM_WATCHED], *weight[NUM_WATCHED];
    open_step("ce-resnet20", &(struct eq_step_params){
                                 .batch = N, .size = SIZE, .accumulate = accumulate, .momentum = 0.9f, .weight_decay = 0.01f });
    for (int w = 0; w < NUM_WATCHED; w++) {
        size_t elems = elems_of(watched[w]);
        float *start = read_value(watched[w]);
        velocity[w] = calloc(elems, sizeof **velocity);
        weight[w] = calloc(elems, sizeof **weight);
        for (size_t e = 0; e < elems; e++)
            weight[w][e] = start[e];
        free(start);
    }
    for (int u = 0; u < 2; u++) {
        double *sums[NUM_WATCHED];
        for (int w = 0; w < NUM_WATCHED; w++)
            sums[w] = calloc(elems_of(watched[w]), sizeof **sums);
        run_update(accumulate, (uint64_t)(10 * u), rates[u], sums);
        for (int w = 0; w < NUM_WATCHED; w++) {
            float *got = read_value(watched[w]);
            for (size_t e = 0; e < elems_of(watched[w]); e++) {
                velocity[w][e] = momentum * velocity[w][e] + sums[w][e] / accumulate + decay * weight[w][e];
                weight[w][e] -= rates[u] * velocity[w][e];
                // A few roundings of values of size 1 at most; the gradients are those of the device.
                ck_assert_msg(fabs(got[e] - weight[w][e]) < 1e-6, "update %d, %s[%zu]: %.9g, expected %.9g", u, watched[w], e,
                              (double)got[e], weight[w][e]);
            }
            free(got);
            free(sums[w]);
        }
    }
    for (int w = 0; w < NUM_WATCHED; w++) {
        free(velocity[w]);
        free(weight[w]);
    }
    close_step();
}
END_TEST

static const struct {
    const char *spoilt; // tensor that gets the value; NULL: the images
    float value;
    const char *blamed;
} broken[] = {
    { "layer2.0.conv1.weight", NAN, "the first tensor that is not finite is layer2.0.conv1.weight" },
    { "fc.bias", INFINITY, "the first tensor that is not finite is fc.bias" },
    { NULL, INFINITY, "the first tensor that is not finite is bn1.running_" },
    { "layer3.1.conv2.weight", 1e38f, "the first tensor that is not finite is layer3.1.bn2.running_" },
};

START_TEST(test_blame)
{
    struct eq_step_result result;
    open_step("resnet20", &(struct eq_step_params){ .batch = N, .size = SIZE, .accumulate = 1, .momentum = 0.9f });
    write_batch(0);
    if (broken[_i].spoilt) {
        float *values = read_value(broken[_i].spoilt);
        for (size_t e = 0; e < elems_of(broken[_i].spoilt); e++)
            values[e] = broken[_i].value;
        EQ_TEST_OK(eq_weights_write(eq_network_weights(network), broken[_i].spoilt, values));
        free(values);
    } else {
        float images[ELEMS] = { broken[_i].value };
        EQ_TEST_OK(eq_exec_write(network->gradients.exec, network->gradients.model.images, images));
    }
    EQ_TEST_OK(eq_step_launch(step));
    ck_assert_int_eq(eq_step_result(step, labels, &result), EQ_ERR_NUMERIC);
    ck_assert_msg(strstr(eq_last_error(), broken[_i].blamed) != NULL, "\"%s\" is not in \"%s\"", broken[_i].blamed,
                  eq_last_error());
    close_step();
}
END_TEST

// All values of all parameters and velocities, one behind the other.
static float *read_all(size_t *num)
{
    const struct eq_store *store = network->weights->store;
    float *values = NULL;
    *num = 0;
    for (int i = 0; i < eq_store_num_entries(store); i++) {
        const struct eq_store_entry *entry = eq_store_entry(store, i);
        const size_t elems = eq_tensor_logical(&entry->tensor);
        if (entry->kind != EQ_VALUE_PARAMETER)
            continue;
        values = realloc(values, (*num + 2 * elems) * sizeof *values);
        ck_assert(values != NULL);
        EQ_TEST_OK(eq_store_read(store, entry, EQ_STORE_VALUE, values + *num));
        EQ_TEST_OK(eq_store_read(store, entry, EQ_STORE_VELOCITY, values + *num + elems));
        *num += 2 * elems;
    }
    return values;
}

// A batch with a bad image between good ones, nothing looked at in between: no update from the bad one on moves a weight or a
// velocity. _i: batches in an update, less 1.
START_TEST(test_halt)
{
    struct eq_step_result result;
    const int accumulate = _i + 1, last = accumulate == 1 ? 2 : 1; // the last update before a result is taken
    size_t num[4];
    float *values[4], images[ELEMS] = { NAN };
    open_step("resnet20", &(struct eq_step_params){ .batch = N, .size = SIZE, .accumulate = accumulate, .momentum = 0.9f });
    for (int update = 0; update < 4; update++) {
        values[update] = read_all(&num[update]);
        for (int i = 0; i < accumulate; i++) {
            write_batch((uint64_t)(10 * update + i));
            if (update == 1 && i == 0)
                EQ_TEST_OK(eq_exec_write(network->gradients.exec, network->gradients.model.images, images));
            EQ_TEST_OK(eq_step_launch(step));
            EQ_TEST_OK(eq_step_finish(step, i, 0.05));
            if (update == 0 || update == last + 1)
                EQ_TEST_OK(eq_step_result(step, labels, &result));
        }
        if (update == last) {
            float *after = read_all(&num[update]);
            ck_assert_msg(memcmp(after, values[1], num[1] * sizeof *after) == 0, "update %d moved the weights", update);
            ck_assert_int_eq(eq_step_result(step, labels, &result), EQ_ERR_NUMERIC);
            free(after);
            EQ_TEST_OK(eq_step_begin(step));
        }
    }
    float *after = read_all(&num[3]);
    ck_assert(memcmp(values[0], values[1], num[0] * sizeof *after) != 0); // good ones move them, before
    ck_assert(memcmp(after, values[3], num[3] * sizeof *after) != 0);     // and after
    free(after);
    for (int i = 0; i < 4; i++)
        free(values[i]);
    close_step();
}
END_TEST

START_TEST(test_ahead)
{
    struct eq_step_result result;
    open_step("resnet20", &(struct eq_step_params){ .batch = N, .size = SIZE, .accumulate = 1 });
    ck_assert_int_eq(eq_step_result(step, labels, &result), EQ_ERR_ARGUMENT);
    write_batch(0);
    for (int i = 0; i < EQ_STEP_AHEAD; i++)
        EQ_TEST_OK(eq_step_launch(step));
    ck_assert_int_eq(eq_step_launch(step), EQ_ERR_ARGUMENT);
    for (int i = 0; i < EQ_STEP_AHEAD; i++)
        EQ_TEST_OK(eq_step_result(step, labels, &result));
    ck_assert_int_eq(eq_step_result(step, labels, &result), EQ_ERR_ARGUMENT);
    close_step();
}
END_TEST

static void infer(struct eq_network *from, float logits[N * CLASSES])
{
    float *images = eq_check_uniform("validation", ELEMS, 1);
    EQ_TEST_OK(eq_network_infer(from, N, SIZE, SIZE, images, logits));
    free(images);
}

// What evaluation computed from the weights before a step must not be used after it, nor after a batch that only moved the
// running statistics (the last round). A new network with the same tensors knows nothing else. _i: with CE, without (every norm
// is folded). Before the first step there are no statistics to evaluate with.
START_TEST(test_evaluation)
{
    const char *arch = _i ? "resnet20" : "ce-resnet20";
    float before[N * CLASSES], after[N * CLASSES], fresh[N * CLASSES];
    open_step(arch, &(struct eq_step_params){ .batch = N, .size = SIZE, .accumulate = 1, .momentum = 0.9f });
    for (int round = 0; round < 3; round++) {
        struct eq_step_result result;
        struct eq_network *other;
        write_batch((uint64_t)round);
        EQ_TEST_OK(eq_step_launch(step));
        EQ_TEST_OK(eq_step_result(step, labels, &result));
        if (round < 2)
            EQ_TEST_OK(eq_step_finish(step, 0, 0.02));
        infer(network, after);
        ck_assert_msg(round == 0 || memcmp(before, after, sizeof after) != 0, "%s, round %d: the logits have not moved", arch,
                      round);
        EQ_TEST_OK(eq_network_create(eq_test_device, &network->params, &other));
        for (int i = 0; i < eq_weights_num(eq_network_weights(network)); i++) {
            const char *name = eq_weights_at(eq_network_weights(network), i).name;
            float *values = read_value(name);
            EQ_TEST_OK(eq_weights_write(eq_network_weights(other), name, values));
            free(values);
        }
        infer(other, fresh);
        ck_assert_msg(memcmp(after, fresh, sizeof after) == 0, "%s, round %d: a new network has other logits", arch, round);
        eq_network_destroy(&other);
        memcpy(before, after, sizeof before);
    }
    close_step();
}
END_TEST

// Weights that a thread draws while a network is compiled are those that are drawn at once; a drawing that is given up leaves
// the filters alone.
START_TEST(test_draw)
{
    struct eq_network *drawn = NULL;
    struct eq_weights_task *draw = NULL;
    const struct eq_model_params params = { .arch = "ce-resnet20", .classes = CLASSES };
    EQ_TEST_OK(eq_network_create(eq_test_device, &params, &network));
    EQ_TEST_OK(eq_network_create(eq_test_device, &params, &drawn));
    struct eq_weights *weights = eq_network_weights(drawn);
    EQ_TEST_OK(eq_weights_initialise(eq_network_weights(network), 5));
    EQ_TEST_OK(eq_weights_draw_start(weights, 6, &draw));
    eq_weights_task_cancel(&draw);
    ck_assert_ptr_null(draw);
    eq_weights_task_cancel(&draw);
    float first[3 * 3 * 3 * 16];
    EQ_TEST_OK(eq_weights_read(weights, "conv1.weight", first));
    for (size_t i = 0; i < sizeof first / sizeof *first; i++)
        ck_assert(first[i] == 0);
    EQ_TEST_OK(eq_weights_draw_start(weights, 5, &draw));
    EQ_TEST_OK(eq_weights_task_finish(&draw));
    ck_assert_ptr_null(draw);
    for (int i = 0; i < eq_weights_num(weights); i++) {
        const struct eq_weights_tensor tensor = eq_weights_at(weights, i);
        float *want = read_value(tensor.name), *got = calloc(tensor.elems, sizeof *got);
        EQ_TEST_OK(eq_weights_read(weights, tensor.name, got));
        ck_assert_msg(memcmp(want, got, tensor.elems * sizeof *got) == 0, "%s differs", tensor.name);
        free(want);
        free(got);
    }
    eq_network_destroy(&drawn);
    eq_network_destroy(&network);
}
END_TEST

EQ_TEST_MAIN("step", { test_draw, 1 }, { test_evaluation, 2 }, { test_update, 3 }, { test_halt, 2 }, { test_ahead, 1 },
             { test_blame, sizeof broken / sizeof *broken })

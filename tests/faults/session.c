// Faults of a session's life: building a graph, weights from a file, evaluation; a training step, weights into a file.
#include "equil/session.h"
#include "fault.h"

enum { N = 2, SIZE = 6, CHANNELS = 8, CLASSES = 3, IMAGE = N * 3 * SIZE * SIZE };

static float images[IMAGE];
static const int32_t labels[N] = { 2, 0 };

// One of everything that networks are made of.
static bool build(struct eq_graph *graph, eq_value *loss)
{
    eq_value x, y, z, logits, wanted;
    return fault_ok(eq_graph_input(graph, "images", N, 3, SIZE, SIZE, &x)) &&
           fault_ok(eq_graph_conv2d(
               graph, x, "conv1",
               &(struct eq_conv2d_params){ .out_channels = CHANNELS, .kernel_h = 3, .kernel_w = 3, .pad_h = 1, .pad_w = 1 },
               &y)) &&
           fault_ok(eq_graph_batch_norm(graph, y, "bn1", &(struct eq_batch_norm_params){ 0 }, &y)) &&
           fault_ok(eq_graph_channel_equilibrium(graph, y, "ce", &(struct eq_equilibrium_params){ .group = 4 }, &y)) &&
           fault_ok(eq_graph_activation(graph, y, EQ_RELU, &y)) &&
           fault_ok(eq_graph_max_pool(graph, y, &(struct eq_pool_params){ .kernel = 2 }, &y)) &&
           fault_ok(eq_graph_conv2d(
               graph, y, "conv2", &(struct eq_conv2d_params){ .out_channels = CHANNELS, .kernel_h = 1, .kernel_w = 1 }, &z)) &&
           fault_ok(eq_graph_batch_norm(graph, z, "bn2", &(struct eq_batch_norm_params){ 0 }, &z)) &&
           fault_ok(eq_graph_squeeze_excite(graph, z, "se", &(struct eq_squeeze_excite_params){ .reduction = 2 }, &z)) &&
           fault_ok(eq_graph_add(graph, z, y, &y)) && fault_ok(eq_graph_activation(graph, y, EQ_ELU, &y)) &&
           fault_ok(eq_graph_mean_pool(graph, y, &y)) && fault_ok(eq_graph_linear(graph, y, "fc", CLASSES, &logits)) &&
           fault_ok(eq_graph_output(graph, logits, "logits")) && fault_ok(eq_graph_labels(graph, "labels", N, &wanted)) &&
           fault_ok(eq_graph_cross_entropy(graph, logits, wanted, 0.1f, loss)) &&
           fault_ok(eq_graph_output(graph, *loss, "loss"));
}

// ---- evaluation

static bool evaluate(struct eq_session *session)
{
    float logits[N * CLASSES];
    if (!fault_ok(eq_session_write(session, "images", images)) || !fault_ok(eq_session_run(session)) ||
        !fault_ok(eq_session_read(session, "logits", logits)))
        return false;
    fault_result(logits, sizeof logits);
    return true;
}

static void inference(void)
{
    struct eq_graph *graph = NULL;
    struct eq_weights *weights = NULL;
    struct eq_session *session = NULL;
    eq_value loss;
    if (fault_ok(eq_graph_create(&graph)) && build(graph, &loss) &&
        fault_ok(eq_weights_create(eq_test_device, graph, &weights)) &&
        fault_ok(eq_weights_load(weights, fault_path("weights.safetensors"), false, 0)) &&
        fault_ok(eq_session_create(weights, graph, NULL, &session)) && !evaluate(session) && fault_try_again())
        evaluate(session);
    fault_ending();
    eq_session_destroy(&session);
    eq_weights_destroy(&weights);
    eq_graph_destroy(&graph);
}

START_TEST(test_inference)
{
    fault_sweep(&(struct fault_scenario){
        .name = "inference", .run = inference, .kinds = 1u << FAULT_CL | 1u << FAULT_MEMORY | 1u << FAULT_FILE });
}
END_TEST

// ---- training

// A step of weights as they are in the file. A failed run or update leaves weights and running statistics undefined: loading
// them again is the way on.
static bool train(struct eq_weights *weights, struct eq_session *session)
{
    float losses[N], gradient[CHANNELS * CHANNELS];
    const struct eq_sgd_params sgd = { .rate = 0.1f, .weight_decay = 0.01f };
    if (!fault_ok(eq_weights_load(weights, fault_path("weights.safetensors"), false, 0)) ||
        !fault_ok(eq_session_write(session, "images", images)) || !fault_ok(eq_session_write(session, "labels", labels)) ||
        !fault_ok(eq_session_forward(session)) || !fault_ok(eq_session_backward(session)) ||
        !fault_ok(eq_session_read(session, "loss", losses)) || !fault_ok(eq_session_update(session, &sgd)) ||
        !fault_ok(eq_session_wait(session)) || !fault_ok(eq_weights_read_gradient(weights, "conv2.weight", gradient)) ||
        !fault_ok(eq_weights_save(weights, fault_path("trained.safetensors"), NULL, 0)))
        return false;
    fault_result(losses, sizeof losses);
    fault_result(gradient, sizeof gradient);
    return true;
}

static void training(void)
{
    struct eq_graph *graph = NULL;
    struct eq_weights *weights = NULL;
    struct eq_session *session = NULL;
    eq_value loss;
    if (fault_ok(eq_graph_create(&graph)) && build(graph, &loss) &&
        fault_ok(eq_weights_create(eq_test_device, graph, &weights)) &&
        fault_ok(eq_session_create(weights, graph,
                                   &(struct eq_session_params){ .training = true, .differentiate = loss, .recompute = true },
                                   &session)) &&
        !train(weights, session) && fault_try_again())
        train(weights, session);
    fault_ending();
    eq_session_destroy(&session);
    eq_weights_destroy(&weights);
    eq_graph_destroy(&graph);
}

static void before_training(void)
{
    fault_file_before("trained.safetensors");
}

static void after_training(bool is_hurt)
{
    fault_file_after("trained.safetensors", is_hurt);
}

START_TEST(test_training)
{
    fault_sweep(&(struct fault_scenario){ .name = "training",
                                          .run = training,
                                          .before = before_training,
                                          .after = after_training,
                                          .harmless = " opendir fclose open64 fsync unlink ", // after() looks at files
                                          .kinds = 1u << FAULT_CL | 1u << FAULT_MEMORY | 1u << FAULT_FILE });
}
END_TEST

// ---- weights from a file that cannot be read

static struct eq_graph *kept_graph;
static struct eq_weights *kept_weights;
static const char *const kept_names[] = { "conv1.weight", "ce.AR.running_scale", "fc.weight" };
enum { MOST_ELEMS = CHANNELS * 3 * 9 };

static uint64_t hash_of_weights(void)
{
    float values[MOST_ELEMS];
    uint64_t hash = EQ_FNV_START;
    for (size_t i = 0; i < sizeof kept_names / sizeof *kept_names; i++) {
        memset(values, 0, sizeof values);
        EQ_TEST_OK(eq_weights_read(kept_weights, kept_names[i], values));
        hash = eq_fnv1a(values, sizeof values, hash);
    }
    return hash;
}

static uint64_t hash_before, hash_in_file;

// Other values than those of the file, which has those of seed 7.
static void before_loading(void)
{
    EQ_TEST_OK(eq_weights_initialise(kept_weights, 8));
    hash_before = hash_of_weights();
}

static void loading(void)
{
    fault_ok(eq_weights_load(kept_weights, fault_path("weights.safetensors"), false, 0));
}

static void after_loading(bool is_hurt)
{
    const uint64_t hash = hash_of_weights();
    ck_assert_msg(hash_before != hash_in_file, "the file has the values that were there before");
    if (is_hurt && hash != hash_before)
        fault_complain("the weights have changed");
    if (!is_hurt && hash != hash_in_file)
        fault_complain("the weights are not those of the file");
}

// What is wrong with a file leaves the weights unchanged.
START_TEST(test_loading)
{
    eq_value loss;
    EQ_TEST_OK(eq_graph_create(&kept_graph));
    ck_assert(build(kept_graph, &loss));
    EQ_TEST_OK(eq_weights_create(eq_test_device, kept_graph, &kept_weights));
    EQ_TEST_OK(eq_weights_load(kept_weights, fault_path("weights.safetensors"), false, 0));
    hash_in_file = hash_of_weights();
    fault_sweep(&(struct fault_scenario){ .name = "loading",
                                          .run = loading,
                                          .before = before_loading,
                                          .after = after_loading,
                                          .every = true,
                                          .kinds = 1u << FAULT_FILE });
    eq_weights_destroy(&kept_weights);
    eq_graph_destroy(&kept_graph);
}
END_TEST

static void make_weights(void)
{
    struct eq_graph *graph = NULL;
    struct eq_weights *weights = NULL;
    eq_value loss;
    const float one = 1;
    EQ_TEST_OK(eq_graph_create(&graph));
    ck_assert(build(graph, &loss));
    EQ_TEST_OK(eq_weights_create(eq_test_device, graph, &weights));
    EQ_TEST_OK(eq_weights_initialise(weights, 7));
    EQ_TEST_OK(eq_weights_write(weights, "ce.AR.running_scale", &one));
    EQ_TEST_OK(eq_weights_save(weights, fault_path("weights.safetensors"), NULL, 0));
    eq_weights_destroy(&weights);
    eq_graph_destroy(&graph);
}

START_TEST(test_setup)
{
    for (int i = 0; i < IMAGE; i++)
        images[i] = (float)(2 * eq_random_unit(3, (uint64_t)i) - 1);
    make_weights();
}
END_TEST

EQ_TEST_MAIN("faults of sessions", { test_setup }, { test_inference }, { test_loading }, { test_training })

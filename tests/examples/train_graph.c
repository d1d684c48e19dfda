// A network of one's own, built from the public ops, with Channel Equilibrium in it, trained on one's own data: which of two
// patterns is in an image. Then its weights are saved, loaded into a new set, and an evaluation must agree.
//
//     train_graph FILE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <equil/equil.h>

enum { N = 16, SIZE = 12, CLASSES = 2, STEPS = 40, PIXELS = SIZE * SIZE };

// Stripes across or along, at a random phase, in noise.
static void make_batch(float *images, int *labels)
{
    for (int n = 0; n < N; n++) {
        const float phase = (float)rand() / (float)RAND_MAX * 6.28f;
        labels[n] = rand() % CLASSES;
        for (int i = 0; i < PIXELS; i++)
            images[n * PIXELS + i] =
                sinf(phase + (float)(labels[n] ? i % SIZE : i / SIZE)) + (float)rand() / (float)RAND_MAX - 0.5f;
    }
}

// Two convolutions, the second with Channel Equilibrium and a residual around it.
static eq_status build(struct eq_graph *graph, eq_value *logits, eq_value *loss)
{
    const struct eq_conv2d_params first = { .out_channels = 16, .kernel_h = 3, .kernel_w = 3, .pad_h = 1, .pad_w = 1 };
    eq_value images, labels, x, y;
    eq_status status = eq_graph_input(graph, "images", N, 1, SIZE, SIZE, &images);
    status = status ? status : eq_graph_labels(graph, "labels", N, &labels);
    status = status ? status : eq_graph_conv2d(graph, images, "conv1", &first, &x);
    status = status ? status : eq_graph_batch_norm(graph, x, "bn1", NULL, &x);
    status = status ? status : eq_graph_activation(graph, x, EQ_RELU, &x);
    status = status ? status : eq_graph_conv2d(graph, x, "conv2", &first, &y);
    status = status ? status : eq_graph_batch_norm(graph, y, "bn2", NULL, &y);
    status = status ? status : eq_graph_channel_equilibrium(graph, y, "ce", NULL, &y);
    status = status ? status : eq_graph_add(graph, x, y, &y);
    status = status ? status : eq_graph_activation(graph, y, EQ_RELU, &y);
    status = status ? status : eq_graph_output(graph, y, "features");
    status = status ? status : eq_graph_mean_pool(graph, y, &y);
    status = status ? status : eq_graph_linear(graph, y, "fc", CLASSES, logits);
    status = status ? status : eq_graph_output(graph, *logits, "logits");
    status = status ? status : eq_graph_cross_entropy(graph, *logits, labels, 0, loss);
    return status ? status : eq_graph_output(graph, *loss, "loss");
}

static eq_status train(struct eq_session *session, const float *images, const int *labels, float *loss)
{
    float losses[N];
    eq_status status = eq_session_write(session, "images", images);
    status = status ? status : eq_session_write(session, "labels", labels);
    status = status ? status : eq_session_run(session);
    status = status ? status : eq_session_update(session, &(struct eq_sgd_params){ .rate = 0.05f, .momentum = 0.9f });
    status = status ? status : eq_session_read(session, "loss", losses);
    *loss = 0;
    for (int n = 0; n < N; n++)
        *loss += losses[n] / N;
    return status;
}

// Share of a new batch that is classified rightly.
static eq_status evaluate(struct eq_session *session, const float *images, const int *labels, float *logits, float *top1)
{
    eq_status status = eq_session_write(session, "images", images);
    status = status ? status : eq_session_run(session);
    status = status ? status : eq_session_read(session, "logits", logits);
    *top1 = 0;
    for (int n = 0; n < N; n++)
        *top1 += (logits[2 * n + 1] > logits[2 * n]) == labels[n] ? 1.0f / N : 0;
    return status;
}

static eq_status run(struct eq_device *device, const char *file)
{
    struct eq_graph *graph = NULL;
    struct eq_weights *weights = NULL, *loaded = NULL;
    struct eq_session *training = NULL, *evaluation = NULL, *again = NULL;
    eq_value logits = 0, loss = 0;
    static float images[N * PIXELS], want[N * CLASSES], got[N * CLASSES];
    float value = 0, top1 = 0, difference = 0;
    int labels[N];
    eq_status status = eq_graph_create(&graph);
    status = status ? status : build(graph, &logits, &loss);
    status = status ? status : eq_weights_create(device, graph, &weights);
    status = status ? status : eq_weights_initialise(weights, 1);
    const struct eq_session_params params = { .training = true, .differentiate = loss };
    status = status ? status : eq_session_create(weights, graph, &params, &training);
    for (int i = 0; i < STEPS && !status; i++) {
        make_batch(images, labels);
        status = train(training, images, labels, &value);
        if (i % 10 == 0 || i == STEPS - 1)
            printf("step %2d: loss %.4f\n", i + 1, (double)value);
    }
    make_batch(images, labels);
    status = status ? status : eq_session_create(weights, graph, NULL, &evaluation);
    status = status ? status : evaluate(evaluation, images, labels, want, &top1);
    printf("top-1 of new images: %.1f %%\n", 100 * (double)top1);
    status = status ? status : eq_weights_save(weights, file, NULL, 0);
    status = status ? status : eq_weights_create(device, graph, &loaded);
    status = status ? status : eq_weights_load(loaded, file, false, 0);
    status = status ? status : eq_session_create(loaded, graph, NULL, &again);
    status = status ? status : evaluate(again, images, labels, got, &top1);
    for (int i = 0; i < N * CLASSES; i++)
        difference = fmaxf(difference, fabsf(got[i] - want[i]));
    printf("after saving and loading, logits differ by %g\n", (double)difference);
    eq_session_destroy(&again);
    eq_session_destroy(&evaluation);
    eq_session_destroy(&training);
    eq_weights_destroy(&loaded);
    eq_weights_destroy(&weights);
    eq_graph_destroy(&graph);
    return status;
}

int main(int argc, char **argv)
{
    struct eq_device *device = NULL;
    if (argc != 2) {
        fprintf(stderr, "usage: train_graph FILE\n");
        return 2;
    }
    eq_status status = eq_device_open(NULL, &device);
    status = status ? status : run(device, argv[1]);
    if (status)
        fprintf(stderr, "%s: %s\n", eq_status_name(status), eq_last_error());
    eq_device_destroy(&device);
    return status ? 1 : 0;
}

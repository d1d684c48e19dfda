// Two devices in two threads: each opens its own (both the same here, unless two are named) and trains a small network; with
// the same seed and the same device they come to the same bits.
//
//     threads [DEVICE [DEVICE]]
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <equil/equil.h>

enum { N = 8, SIZE = 16, CLASSES = 4, STEPS = 5 };

struct job {
    const char *selector;
    float losses[STEPS];
    char device[128], error[256];
};

static eq_status train(struct eq_device *device, struct job *job)
{
    static const float pixels[N * 3 * SIZE * SIZE] = { [0] = 1, [777] = -1, [4000] = 2 };
    static const int labels[N] = { 0, 1, 2, 3, 0, 1, 2, 3 };
    const struct eq_model_params model = { .arch = "ce-resnet20", .classes = CLASSES };
    struct eq_graph *graph = NULL;
    struct eq_weights *weights = NULL;
    struct eq_session *session = NULL;
    eq_value images = 0, targets = 0, logits = 0, loss = 0;
    eq_status status = eq_graph_create(&graph);
    status = status ? status : eq_graph_input(graph, "images", N, 3, SIZE, SIZE, &images);
    status = status ? status : eq_graph_labels(graph, "labels", N, &targets);
    status = status ? status : eq_model_build(graph, &model, images, &logits);
    status = status ? status : eq_graph_cross_entropy(graph, logits, targets, 0, &loss);
    status = status ? status : eq_graph_output(graph, loss, "loss");
    status = status ? status : eq_weights_create(device, graph, &weights);
    status = status ? status : eq_weights_initialise(weights, 3);
    const struct eq_session_params params = { .training = true, .differentiate = loss };
    status = status ? status : eq_session_create(weights, graph, &params, &session);
    status = status ? status : eq_session_write(session, "images", pixels);
    status = status ? status : eq_session_write(session, "labels", labels);
    for (int s = 0; s < STEPS && !status; s++) {
        float losses[N];
        status = eq_session_run(session);
        status = status ? status : eq_session_update(session, &(struct eq_sgd_params){ .rate = 0.01f, .momentum = 0.9f });
        status = status ? status : eq_session_read(session, "loss", losses);
        for (int n = 0; n < N && !status; n++)
            job->losses[s] += losses[n] / N;
    }
    eq_session_destroy(&session);
    eq_weights_destroy(&weights);
    eq_graph_destroy(&graph);
    return status;
}

// Errors have a text for each thread: it is fetched here.
static void *run(void *user)
{
    struct job *job = user;
    struct eq_device *device = NULL;
    eq_status status = eq_device_open(job->selector, &device);
    if (!status) {
        snprintf(job->device, sizeof job->device, "%s", eq_device_name(device));
        status = train(device, job);
    }
    if (status)
        snprintf(job->error, sizeof job->error, "%s: %s", eq_status_name(status), eq_last_error());
    eq_device_destroy(&device);
    return NULL;
}

int main(int argc, char **argv)
{
    struct job jobs[2] = { { .selector = argc > 1 ? argv[1] : NULL }, { .selector = argc > 1 ? argv[argc - 1] : NULL } };
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, run, &jobs[i]);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++) {
        if (*jobs[i].error) {
            fprintf(stderr, "thread %d: %s\n", i, jobs[i].error);
            return 1;
        }
        printf("thread %d on %s: loss %.6f to %.6f\n", i, jobs[i].device, (double)jobs[i].losses[0],
               (double)jobs[i].losses[STEPS - 1]);
    }
    const int is_same = memcmp(jobs[0].losses, jobs[1].losses, sizeof jobs[0].losses) == 0;
    printf("%s\n", is_same ? "the same bits" : "other bits");
    return strcmp(jobs[0].device, jobs[1].device) == 0 && !is_same;
}

// Shared by the session tests: what a caller has, a network in it, and what it should give.
#ifndef EQ_TEST_SESSION_H
#define EQ_TEST_SESSION_H

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "equil/model.h"
#include "equil/opencl.h"
#include "equil/session.h"
#include "support/support.h"

enum { N = 2, SIZE = 16, CLASSES = 3, PIXELS = SIZE * SIZE, ELEMS = N * 3 * PIXELS, LOGITS = N * CLASSES };

// What a caller has.
struct caller {
    cl_context context;
    cl_command_queue queue;
    struct eq_device *device;
    struct eq_graph *graph;
    struct eq_weights *weights;
    struct eq_session *session;
    eq_value logits, loss;
};

static inline cl_context make_context(void)
{
    cl_int code;
    cl_context context = clCreateContext(NULL, 1, &eq_test_device->id, NULL, NULL, &code);
    ck_assert_int_eq(code, CL_SUCCESS);
    return context;
}

static inline bool has_out_of_order(void)
{
    cl_command_queue_properties properties = 0;
    clGetDeviceInfo(eq_test_device->id, CL_DEVICE_QUEUE_PROPERTIES, sizeof properties, &properties, NULL);
    if (!(properties & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE))
        printf("# skipped: the device has no out-of-order queues\n");
    return properties & CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE;
}

static inline cl_command_queue make_queue(cl_context context, bool is_out_of_order)
{
    cl_int code;
    cl_command_queue queue =
        clCreateCommandQueue(context, eq_test_device->id, is_out_of_order ? CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE : 0, &code);
    ck_assert_int_eq(code, CL_SUCCESS);
    return queue;
}

static inline void open_caller(struct caller *c, bool is_out_of_order)
{
    *c = (struct caller){ .context = make_context() };
    c->queue = make_queue(c->context, is_out_of_order);
    const struct eq_opencl_params params = { .context = c->context, .queue = c->queue };
    EQ_TEST_OK(eq_device_adopt(&params, &c->device));
}

static inline void build_network(struct caller *c, const char *arch, bool has_loss)
{
    eq_value images, labels;
    const struct eq_model_params model = { .arch = arch, .classes = CLASSES, .act = EQ_ELU };
    EQ_TEST_OK(eq_graph_create(&c->graph));
    EQ_TEST_OK(eq_graph_input(c->graph, "images", N, 3, SIZE, SIZE, &images));
    EQ_TEST_OK(eq_model_build(c->graph, &model, images, &c->logits));
    EQ_TEST_OK(eq_graph_output(c->graph, c->logits, "logits"));
    if (has_loss) {
        EQ_TEST_OK(eq_graph_labels(c->graph, "labels", N, &labels));
        EQ_TEST_OK(eq_graph_cross_entropy(c->graph, c->logits, labels, 0, &c->loss));
        EQ_TEST_OK(eq_graph_output(c->graph, c->loss, "loss"));
    }
}

// Weights drawn by a seed, as those of a network that was trained: with running scales of 1.
static inline void draw_weights(struct eq_weights *weights)
{
    const float one = 1;
    EQ_TEST_OK(eq_weights_initialise(weights, 5));
    for (int i = 0; i < eq_weights_num(weights); i++)
        if (strstr(eq_weights_at(weights, i).name, "running_scale"))
            EQ_TEST_OK(eq_weights_write(weights, eq_weights_at(weights, i).name, &one));
}

static inline void make_session(struct caller *c, const struct eq_session_params *params)
{
    EQ_TEST_OK(eq_weights_create(c->device, c->graph, &c->weights));
    draw_weights(c->weights);
    EQ_TEST_OK(eq_session_create(c->weights, c->graph, params, &c->session));
}

static inline cl_uint queue_references(cl_command_queue queue)
{
    cl_uint num = 0;
    clGetCommandQueueInfo(queue, CL_QUEUE_REFERENCE_COUNT, sizeof num, &num, NULL);
    return num;
}

static inline cl_uint context_references(cl_context context)
{
    cl_uint num = 0;
    clGetContextInfo(context, CL_CONTEXT_REFERENCE_COUNT, sizeof num, &num, NULL);
    return num;
}

// The library has let go of everything: the caller's own references are the only ones. A driver's thread may come to letting go
// of the last command a little later.
static inline void close_caller(struct caller *c)
{
    eq_session_destroy(&c->session);
    eq_weights_destroy(&c->weights);
    eq_graph_destroy(&c->graph);
    eq_device_destroy(&c->device);
    for (int i = 0; i < 200 && queue_references(c->queue) > 1; i++)
        nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
    ck_assert_msg(queue_references(c->queue) == 1, "the queue is still held %u times", queue_references(c->queue));
    clReleaseCommandQueue(c->queue);
    for (int i = 0; i < 200 && context_references(c->context) > 1 && eq_test_is_pocl(); i++)
        nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
    // rusticl (Mesa 22) counts its own
    ck_assert_msg(context_references(c->context) == 1 || !eq_test_is_pocl(), "the context is still held %u times",
                  context_references(c->context));
    clReleaseContext(c->context);
}

// What the network gives for images [ELEMS], by the host's functions on the test's own device.
static inline void expect_logits(const float *images, float logits[LOGITS])
{
    struct eq_network *network;
    EQ_TEST_OK(eq_network_create(
        eq_test_device, &(struct eq_model_params){ .arch = "ce-resnet20", .classes = CLASSES, .act = EQ_ELU }, &network));
    draw_weights(eq_network_weights(network));
    EQ_TEST_OK(eq_network_infer(network, N, SIZE, SIZE, images, logits));
    eq_network_destroy(&network);
}

static inline cl_mem make_memory(const struct caller *c, size_t bytes, const void *values)
{
    cl_int code;
    cl_mem memory =
        clCreateBuffer(c->context, CL_MEM_READ_WRITE | (values ? CL_MEM_COPY_HOST_PTR : 0), bytes, (void *)values, &code);
    ck_assert_int_eq(code, CL_SUCCESS);
    return memory;
}

static inline void read_memory(const struct caller *c, cl_mem memory, size_t bytes, void *values)
{
    ck_assert_int_eq(clEnqueueReadBuffer(c->queue, memory, CL_TRUE, 0, bytes, values, 0, NULL, NULL), CL_SUCCESS);
}

#endif

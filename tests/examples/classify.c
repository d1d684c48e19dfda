// A program that owns its OpenCL objects has a network classify images that a kernel of its own made, in its own queue:
// context, queue, memory and events are the program's, and nothing goes through the host on the way.
//
//     classify WEIGHTS ARCH CLASSES [SIZE]
#include <stdio.h>
#include <stdlib.h>

#include <equil/equil.h>
#include <equil/opencl.h>

enum { N = 4 };

// Bytes in NHWC, as cameras and decoders give them.
static const char *const source =
    "__kernel void draw(__global uchar *rgb, const int size) {"
    "    const int x = get_global_id(0), y = get_global_id(1), n = get_global_id(2);"
    "    __global uchar *at = rgb + 3 * ((n * size + y) * size + x);"
    "    const int dx = 2 * x - size, dy = 2 * y - size, in = dx * dx + dy * dy < size * size / 3;"
    "    at[0] = in ? 200 : 30 * n; at[1] = in ? 60 : 90; at[2] = in ? 20 * n : 160;"
    "}";

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, eq_last_error());
    return 1;
}

// The program's own OpenCL, as it may have had it for years.
struct program {
    cl_context context;
    cl_command_queue queue;
    cl_kernel draw;
    cl_mem images, logits;
};

static int open_program(struct program *p, int size, int classes)
{
    cl_platform_id platform;
    cl_device_id device;
    cl_program built;
    if (clGetPlatformIDs(1, &platform, NULL) != CL_SUCCESS ||
        clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, NULL) != CL_SUCCESS)
        return 0;
    p->context = clCreateContext(NULL, 1, &device, NULL, NULL, NULL);
    p->queue = clCreateCommandQueue(p->context, device, 0, NULL);
    built = clCreateProgramWithSource(p->context, 1, (const char **)&source, NULL, NULL);
    if (clBuildProgram(built, 1, &device, "", NULL, NULL) != CL_SUCCESS)
        return 0;
    p->draw = clCreateKernel(built, "draw", NULL);
    clReleaseProgram(built);
    p->images = clCreateBuffer(p->context, CL_MEM_READ_WRITE, (size_t)(N * size * size * 3), NULL, NULL);
    p->logits = clCreateBuffer(p->context, CL_MEM_READ_WRITE, sizeof(float) * (size_t)(N * classes), NULL, NULL);
    return p->draw && p->images && p->logits;
}

static void close_program(struct program *p)
{
    clReleaseMemObject(p->images);
    clReleaseMemObject(p->logits);
    clReleaseKernel(p->draw);
    clReleaseCommandQueue(p->queue);
    clReleaseContext(p->context);
}

// The network inside it.
struct classifier {
    struct eq_device *device;
    struct eq_graph *graph;
    struct eq_weights *weights;
    struct eq_session *session;
};

static eq_status open_classifier(struct classifier *c, const struct program *p, const char *weights, const char *arch, int size,
                                 int classes)
{
    // What images were trained with: ImageNet's mean and deviation.
    static const float scale[] = { 1 / (255 * 0.229f), 1 / (255 * 0.224f), 1 / (255 * 0.225f) },
                       shift[] = { -0.485f / 0.229f, -0.456f / 0.224f, -0.406f / 0.225f };
    const struct eq_opencl_params owner = { .context = p->context, .queue = p->queue };
    const struct eq_model_params model = { .arch = arch, .classes = classes };
    const struct eq_opencl_view images = {
        .memory = p->images, .type = EQ_OPENCL_U8, .layout = EQ_NHWC, .scale = scale, .shift = shift
    };
    const struct eq_opencl_view logits = { .memory = p->logits };
    eq_value input, output;
    eq_status status = eq_device_adopt(&owner, &c->device);
    status = status ? status : eq_graph_create(&c->graph);
    status = status ? status : eq_graph_input(c->graph, "images", N, 3, size, size, &input);
    status = status ? status : eq_model_build(c->graph, &model, input, &output);
    status = status ? status : eq_graph_output(c->graph, output, "logits");
    status = status ? status : eq_weights_create(c->device, c->graph, &c->weights);
    status = status ? status : eq_weights_load(c->weights, weights, false, 0);
    status = status ? status : eq_session_create(c->weights, c->graph, NULL, &c->session);
    status = status ? status : eq_session_bind(c->session, "images", &images);
    return status ? status : eq_session_bind(c->session, "logits", &logits);
}

static void close_classifier(struct classifier *c)
{
    eq_session_destroy(&c->session);
    eq_weights_destroy(&c->weights);
    eq_graph_destroy(&c->graph);
    eq_device_destroy(&c->device);
}

int main(int argc, char **argv)
{
    struct program p = { 0 };
    struct classifier c = { 0 };
    if (argc < 4) {
        fprintf(stderr, "usage: classify WEIGHTS ARCH CLASSES [SIZE]\n");
        return 2;
    }
    const int classes = atoi(argv[3]), size = argc > 4 ? atoi(argv[4]) : 224;
    if (!open_program(&p, size, classes))
        return fail("OpenCL");
    if (open_classifier(&c, &p, argv[1], argv[2], size, classes) != EQ_OK)
        return fail("the network");

    const size_t range[] = { (size_t)size, (size_t)size, N };
    cl_event drawn, done;
    float *logits = malloc(sizeof(float) * (size_t)(N * classes));
    clSetKernelArg(p.draw, 0, sizeof(cl_mem), &p.images);
    clSetKernelArg(p.draw, 1, sizeof(cl_int), &size);
    clEnqueueNDRangeKernel(p.queue, p.draw, 3, NULL, range, NULL, 0, NULL, &drawn);
    if (eq_session_enqueue(c.session, EQ_SESSION_ALL, &drawn, 1, &done) != EQ_OK)
        return fail("running");
    clEnqueueReadBuffer(p.queue, p.logits, CL_TRUE, 0, sizeof(float) * (size_t)(N * classes), logits, 1, &done, NULL);
    for (int n = 0; n < N; n++) {
        int best = 0;
        for (int k = 1; k < classes; k++)
            best = logits[n * classes + k] > logits[n * classes + best] ? k : best;
        printf("image %d: class %d, logit %.4f\n", n, best, (double)logits[n * classes + best]);
    }
    free(logits);
    clReleaseEvent(drawn);
    clReleaseEvent(done);
    close_classifier(&c);
    close_program(&p);
    return 0;
}

// Channel Equilibrium inside a pipeline that has kernels of its own before and after it, and owns all memory: parameters,
// gradients, statistics and workspace too. One kernel makes features, the block normalises and equalises them, another compares
// them with a target and makes the gradient, and a third updates the block's parameters, until they fit.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <equil/equil.h>
#include <equil/opencl.h>

enum { N = 4, C = 32, SIDE = 14, ELEMS = N * C * SIDE * SIDE, STEPS = 30, MAX_PARAMETERS = 16 };

static const char *const source =
    // x [N, C, SIDE, SIDE]: neighbouring channels are alike, so that there is something to decorrelate
    "__kernel void features(__global float *x, const int plane) {"
    "    const int i = get_global_id(0), c = i / plane % 32, pixel = i % plane;"
    "    x[i] = native_sin(0.37f * pixel + 0.2f * c) + 0.3f * native_cos(1.7f * pixel * (1 + c % 5)) + 0.1f * c;"
    "}"
    // dy = (y - target) / elements, loss [elements]
    "__kernel void compare(__global const float *y, __global float *dy, __global float *loss, const int plane) {"
    "    const int i = get_global_id(0), c = i / plane % 32, pixel = i % plane;"
    "    const float target = 2.0f * native_sin(0.37f * pixel + 0.2f * c) + 0.05f * c, difference = y[i] - target;"
    "    dy[i] = difference / get_global_size(0);"
    "    loss[i] = 0.5f * difference * difference;"
    "}"
    "__kernel void update(__global float *p, __global const float *gradient, const float rate) {"
    "    p[get_global_id(0)] -= rate * gradient[get_global_id(0)];"
    "}";

// The shapes are in eq_graph_channel_equilibrium() and eq_graph_batch_norm(): groups of 16, a hidden layer of C / 4.
static const struct {
    const char *name;
    size_t elems;
    float value; // what all elements start with; NAN: see start_value()
    int is_parameter;
} tensors[] = {
    { "bn.weight", C, 1, 1 },
    { "bn.bias", C, 0, 1 },
    { "bn.running_mean", C, 0, 0 },
    { "bn.running_var", C, 1, 0 },
    { "ce.x_weight", 1, 0, 1 },
    { "ce.running_mean", C, 0, 0 },
    { "ce.running_wm", C * 16, NAN, 0 },
    { "ce.AR.running_scale", 1, 0, 0 },
    { "ce.AR.fc.0.weight", C / 4 * C, NAN, 1 },
    { "ce.AR.fc.1.weight", C / 4, 1, 1 },
    { "ce.AR.fc.1.bias", C / 4, 0, 1 },
    { "ce.AR.fc.3.weight", C *C / 4, NAN, 1 },
};
enum { NUM_TENSORS = sizeof tensors / sizeof *tensors };

struct pipeline {
    cl_context context;
    cl_command_queue queue;
    cl_program program;
    cl_mem x, y, dy, dx, loss, workspace, value[NUM_TENSORS], gradient[NUM_TENSORS];
    struct eq_device *device;
    struct eq_session *block;
};

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, eq_last_error());
    return 1;
}

static cl_mem make_memory(const struct pipeline *p, size_t bytes, const void *values)
{
    return clCreateBuffer(p->context, CL_MEM_READ_WRITE | (values ? CL_MEM_COPY_HOST_PTR : 0), bytes, (void *)values, NULL);
}

static int open_pipeline(struct pipeline *p)
{
    cl_platform_id platform;
    cl_device_id device;
    if (clGetPlatformIDs(1, &platform, NULL) != CL_SUCCESS ||
        clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, NULL) != CL_SUCCESS)
        return 0;
    p->context = clCreateContext(NULL, 1, &device, NULL, NULL, NULL);
    p->queue = clCreateCommandQueue(p->context, device, 0, NULL);
    p->program = clCreateProgramWithSource(p->context, 1, (const char **)&source, NULL, NULL);
    p->x = make_memory(p, ELEMS * sizeof(float), NULL);
    p->y = make_memory(p, ELEMS * sizeof(float), NULL);
    p->dy = make_memory(p, ELEMS * sizeof(float), NULL);
    p->dx = make_memory(p, ELEMS * sizeof(float), NULL);
    p->loss = make_memory(p, ELEMS * sizeof(float), NULL);
    return clBuildProgram(p->program, 1, &device, "", NULL, NULL) == CL_SUCCESS;
}

static eq_status bind(struct pipeline *p, const char *name, cl_mem memory)
{
    return eq_session_bind(p->block, name, &(struct eq_opencl_view){ .memory = memory });
}

// The running matrix starts as the identity, linear layers as small values of both signs.
static float start_value(int t, size_t i)
{
    if (!isnan(tensors[t].value))
        return tensors[t].value;
    if (strcmp(tensors[t].name, "ce.running_wm") == 0)
        return i / 16 % 16 == i % 16 ? 1.0f : 0.0f;
    return 0.2f * sinf(12.9f * (float)i + (float)t);
}

static eq_status open_block(struct pipeline *p)
{
    const struct eq_opencl_params owner = { .context = p->context, .queue = p->queue };
    const struct eq_ce_block_params params = { .n = N, .c = C, .h = SIDE, .w = SIDE, .training = true };
    eq_status status = eq_device_adopt(&owner, &p->device);
    status = status ? status : eq_session_create_ce_block(p->device, &params, &p->block);
    if (status)
        return status;
    p->workspace = make_memory(p, eq_session_workspace_bytes(p->block), NULL);
    status = bind(p, "workspace", p->workspace);
    for (int t = 0; t < NUM_TENSORS && !status; t++) {
        char name[64];
        float *values = malloc(tensors[t].elems * sizeof *values);
        for (size_t i = 0; i < tensors[t].elems; i++)
            values[i] = start_value(t, i);
        p->value[t] = make_memory(p, tensors[t].elems * sizeof *values, values);
        free(values);
        status = bind(p, tensors[t].name, p->value[t]);
        if (!tensors[t].is_parameter || status)
            continue;
        p->gradient[t] = make_memory(p, tensors[t].elems * sizeof *values, NULL);
        snprintf(name, sizeof name, "grad.%s", tensors[t].name);
        status = bind(p, name, p->gradient[t]);
    }
    status = status ? status : bind(p, "x", p->x);
    status = status ? status : bind(p, "y", p->y);
    status = status ? status : bind(p, "grad.y", p->dy);
    return status ? status : bind(p, "grad.x", p->dx);
}

static void run_kernel(struct pipeline *p, const char *name, size_t elems, const cl_mem *memory, int num_memory,
                       const void *number, size_t number_bytes)
{
    cl_kernel kernel = clCreateKernel(p->program, name, NULL);
    for (int i = 0; i < num_memory; i++)
        clSetKernelArg(kernel, (cl_uint)i, sizeof(cl_mem), &memory[i]);
    clSetKernelArg(kernel, (cl_uint)num_memory, number_bytes, number);
    clEnqueueNDRangeKernel(p->queue, kernel, 1, NULL, &elems, NULL, 0, NULL, NULL);
    clReleaseKernel(kernel);
}

// Everything is enqueued, in order; the host waits for nothing but the loss.
static eq_status run_step(struct pipeline *p, float *loss)
{
    static float losses[ELEMS];
    const cl_int plane = SIDE * SIDE;
    const cl_float rate = 0.5f;
    run_kernel(p, "features", ELEMS, (cl_mem[]){ p->x }, 1, &plane, sizeof plane);
    eq_status status = eq_session_forward(p->block);
    run_kernel(p, "compare", ELEMS, (cl_mem[]){ p->y, p->dy, p->loss }, 3, &plane, sizeof plane);
    status = status ? status : eq_session_backward(p->block);
    for (int t = 0; t < NUM_TENSORS; t++)
        if (tensors[t].is_parameter)
            run_kernel(p, "update", tensors[t].elems, (cl_mem[]){ p->value[t], p->gradient[t] }, 2, &rate, sizeof rate);
    clEnqueueReadBuffer(p->queue, p->loss, CL_TRUE, 0, sizeof losses, losses, 0, NULL, NULL);
    double sum = 0;
    for (int i = 0; i < ELEMS; i++)
        sum += losses[i];
    *loss = (float)(sum / ELEMS);
    return status;
}

static void close_pipeline(struct pipeline *p)
{
    eq_session_destroy(&p->block);
    eq_device_destroy(&p->device);
    for (int t = 0; t < NUM_TENSORS; t++) {
        clReleaseMemObject(p->value[t]);
        if (p->gradient[t])
            clReleaseMemObject(p->gradient[t]);
    }
    const cl_mem others[] = { p->x, p->y, p->dy, p->dx, p->loss, p->workspace };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        clReleaseMemObject(others[i]);
    clReleaseProgram(p->program);
    clReleaseCommandQueue(p->queue);
    clReleaseContext(p->context);
}

int main(void)
{
    struct pipeline p = { 0 };
    float first = 0, loss = 0;
    if (!open_pipeline(&p)) {
        fprintf(stderr, "no OpenCL device\n");
        return 1;
    }
    if (open_block(&p) != EQ_OK)
        return fail("the block");
    printf("workspace %zu bytes\n", eq_session_workspace_bytes(p.block));
    for (int s = 0; s < STEPS; s++) {
        if (run_step(&p, &loss) != EQ_OK)
            return fail("a step");
        first = s == 0 ? loss : first;
        if (s % 10 == 0 || s == STEPS - 1)
            printf("step %2d: loss %.4f\n", s + 1, (double)loss);
    }
    close_pipeline(&p);
    return loss < 0.7f * first ? 0 : 1;
}

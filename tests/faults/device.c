// Faults of devices: opening one, with an empty cache of programs and with a full one; what is called again; looking for a
// matrix unit; a caller's context, queue, memory and events.
#include <stdlib.h>
#include <string.h>

#include "equil/opencl.h"
#include "fault.h"
#include "rt/internal.h"

enum { N = 2, CHANNELS = 3, SIDE = 4, ELEMS = N * CHANNELS * SIDE * SIDE };

cl_int __real_clEnqueueReadBuffer(cl_command_queue queue, cl_mem mem, cl_bool is_blocking, size_t offset, size_t bytes,
                                  void *host, cl_uint num, const cl_event *wait, cl_event *event);

struct parts {
    struct eq_device *device;
    struct eq_graph *graph;
    struct eq_weights *weights;
    struct eq_session *session;
};

// The smallest network: what is swept is the device.
static bool make_session(struct parts *p)
{
    eq_value x, y;
    return fault_ok(eq_graph_create(&p->graph)) && fault_ok(eq_graph_input(p->graph, "x", N, CHANNELS, SIDE, SIDE, &x)) &&
           fault_ok(eq_graph_batch_norm(p->graph, x, "norm", &(struct eq_batch_norm_params){ 0 }, &y)) &&
           fault_ok(eq_graph_activation(p->graph, y, EQ_RELU, &y)) && fault_ok(eq_graph_output(p->graph, y, "y")) &&
           fault_ok(eq_weights_create(p->device, p->graph, &p->weights)) &&
           fault_ok(eq_session_create(p->weights, p->graph, NULL, &p->session));
}

static void close_parts(struct parts *p)
{
    fault_ending();
    eq_session_destroy(&p->session);
    eq_weights_destroy(&p->weights);
    eq_graph_destroy(&p->graph);
    eq_device_destroy(&p->device);
}

// ---- opening

static void open_device(void)
{
    struct parts p = { 0 };
    float x[ELEMS], y[ELEMS];
    for (int i = 0; i < ELEMS; i++)
        x[i] = (float)(i % 7 - 3);
    if (fault_ok(eq_device_open(NULL, &p.device)) && make_session(&p) && fault_ok(eq_session_write(p.session, "x", x)) &&
        fault_ok(eq_session_run(p.session)) && fault_ok(eq_session_read(p.session, "y", y)))
        fault_result(y, sizeof y);
    close_parts(&p);
}

static void empty_cache(void)
{
    fault_remove("cache");
}

// A cache that cannot be written, or read, costs time, and a warning of the log. An address on the PCI bus need not be there.
#define CACHE_CALLS                                                                                                         \
    " clGetDeviceIDs clGetProgramInfo malloc calloc realloc strndup clGetDeviceInfo opendir openat64 open64 fdopen fflush " \
    "fsync fclose"                                                                                                          \
    " fopen64 fread fseek rename unlink unlinkat mkdir fwrite "

START_TEST(test_opening)
{
    setenv("EQUIL_CACHE_DIR", fault_path("cache"), 1);
    fault_hides_pocl = true;
    fault_sweep(&(struct fault_scenario){ .name = "opening",
                                          .run = open_device,
                                          .before = empty_cache,
                                          .one_of = 2, // drivers compile for long
                                          .harmless = CACHE_CALLS,
                                          .kinds = 1u << FAULT_CL | 1u << FAULT_MEMORY | 1u << FAULT_FILE });
    fault_sweep(&(struct fault_scenario){ .name = "cached",
                                          .run = open_device,
                                          .harmless = CACHE_CALLS " clCreateProgramWithBinary clBuildProgram ",
                                          .kinds = 1u << FAULT_CL | 1u << FAULT_MEMORY | 1u << FAULT_FILE });
    fault_hides_pocl = false;
}
END_TEST

// ---- what is called again

enum { WORDS = 1234 };

// Memory and a program, both new, as a GPU has them. What is wrong for good is reported with the numbers.
static void make_objects(void)
{
    struct eq_buffer *buffer = NULL;
    cl_kernel kernel = NULL;
    float values[WORDS] = { 1, 2, 3 }, got[WORDS];
    const bool is_made = fault_ok(eq_buffer_create_from(eq_test_device, values, sizeof values, &buffer)) &&
                         fault_ok(eq_ref_read(eq_ref_at(buffer, 0), got, WORDS, sizeof *got));
    if (is_made)
        fault_result(got, sizeof got);
    const bool is_touched = is_made && fault_ok(eq_buffer_touch(buffer));
    if (!buffer && !strstr(eq_last_error(), "a buffer of 4936 bytes, with "))
        fault_complain("'%s' has no numbers", eq_last_error());
    if (is_touched && fault_ok(eq_kernel_create(eq_test_device, "peak", "-DBLOCK=4", "peak_mad", &kernel)))
        clReleaseKernel(kernel);
    eq_buffer_destroy(&buffer);
    eq_programs_destroy(&eq_test_device->programs);
}

START_TEST(test_retries)
{
    const enum eq_kind kind = eq_test_device->kind;
    const size_t fill_bytes = eq_test_device->limits.fill_bytes;
    eq_test_device->kind = EQ_KIND_GPU;       // whose memory is touched
    eq_test_device->limits.fill_bytes = 4096; // the rest as a part of it
    fault_builds_lack_resources = true;
    fault_sweep(&(struct fault_scenario){ .name = "retries",
                                          .run = make_objects,
                                          .survived = " clCreateBuffer clCreateSubBuffer clGetMemObjectInfo "
                                                      "clEnqueueFillBuffer clCreateProgramWithSource clBuildProgram "
                                                      "clCreateKernel ",
                                          .every = true,
                                          .kinds = 1u << FAULT_CL });
    fault_builds_lack_resources = false;
    eq_test_device->limits.fill_bytes = fill_bytes;
    eq_test_device->kind = kind;
}
END_TEST

// ---- matrix units

// Without memory nobody knows whether there is one. The program is there from an earlier probe.
static void probe(void)
{
    bool works = false;
    if (fault_ok(eq_matrix_probe(eq_test_device, EQ_MATRIX_EMULATED, EQ_FP16, &works)))
        fault_result(&works, sizeof works);
}

START_TEST(test_probing)
{
    bool works;
    EQ_TEST_OK(eq_matrix_probe(eq_test_device, EQ_MATRIX_EMULATED, EQ_FP16, &works));
    fault_sweep(&(struct fault_scenario){ .name = "probing", .run = probe, .every = true, .kinds = 1u << FAULT_MEMORY });
    eq_programs_destroy(&eq_test_device->programs);
}
END_TEST

// ---- a caller's

static struct {
    cl_context context;
    cl_command_queue queue;
    cl_mem bytes[2], floats;
} caller;

// Memory of one form after that of another, and then other memory of the same form.
static bool run_bound(struct parts *p)
{
    static const float scale[CHANNELS] = { 0.5f, 1, 2 }, shift[CHANNELS] = { -3, 0, 1 };
    const struct eq_opencl_view y = { .memory = caller.floats };
    struct eq_opencl_view x = { .type = EQ_OPENCL_U8, .layout = EQ_NHWC, .scale = scale, .shift = shift };
    float got[ELEMS];
    for (int i = 0; i < 2; i++) {
        cl_event event = NULL;
        x.memory = caller.bytes[i];
        bool ok = fault_ok(eq_session_bind(p->session, "x", &x)) && fault_ok(eq_session_bind(p->session, "y", &y)) &&
                  fault_ok(eq_session_enqueue(p->session, EQ_SESSION_ALL, NULL, 0, &event)) &&
                  fault_ok(eq_session_enqueue(p->session, EQ_SESSION_ALL, event ? &event : NULL, event ? 1 : 0, NULL)) &&
                  fault_ok(eq_session_wait(p->session));
        if (event)
            clReleaseEvent(event);
        if (!ok)
            return false;
        __real_clEnqueueReadBuffer(caller.queue, caller.floats, CL_TRUE, 0, sizeof got, got, 0, NULL, NULL);
        fault_result(got, sizeof got);
    }
    return true;
}

static void adopt_device(void)
{
    struct parts p = { 0 };
    const struct eq_opencl_params params = { .context = caller.context, .queue = caller.queue };
    if (fault_ok(eq_device_adopt(&params, &p.device)) && make_session(&p) && !run_bound(&p) && fault_try_again())
        run_bound(&p);
    close_parts(&p);
}

static void make_caller(void)
{
    unsigned char bytes[2][ELEMS];
    cl_int code[5];
    for (int i = 0; i < 2 * ELEMS; i++)
        bytes[i / ELEMS][i % ELEMS] = (unsigned char)(i * 37);
    caller.context = clCreateContext(NULL, 1, &eq_test_device->id, NULL, NULL, &code[0]);
    caller.queue = clCreateCommandQueue(caller.context, eq_test_device->id, CL_QUEUE_OUT_OF_ORDER_EXEC_MODE_ENABLE, &code[1]);
    for (int i = 0; i < 2; i++)
        caller.bytes[i] = clCreateBuffer(caller.context, CL_MEM_COPY_HOST_PTR, ELEMS, bytes[i], &code[2 + i]);
    caller.floats = clCreateBuffer(caller.context, CL_MEM_READ_WRITE, ELEMS * sizeof(float), NULL, &code[4]);
    for (int i = 0; i < 5; i++)
        ck_assert_int_eq(code[i], CL_SUCCESS);
}

START_TEST(test_adopting)
{
    make_caller();
    fault_hides_pocl = false;
    fault_sweep(&(struct fault_scenario){ .name = "adopting",
                                          .run = adopt_device,
                                          // the latter: whether the command before has failed
                                          .harmless = " clGetDeviceInfo clGetEventInfo ",
                                          .survived = "", // there is no waiting for the caller's queue
                                          .kinds = 1u << FAULT_CL | 1u << FAULT_MEMORY });
    clReleaseMemObject(caller.bytes[0]);
    clReleaseMemObject(caller.bytes[1]);
    clReleaseMemObject(caller.floats);
    clReleaseCommandQueue(caller.queue);
    clReleaseContext(caller.context);
}
END_TEST

EQ_TEST_MAIN("faults of devices", { test_opening }, { test_retries }, { test_probing }, { test_adopting })

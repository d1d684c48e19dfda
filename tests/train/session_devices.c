// Several devices in one process, each in a thread: the same one twice, two of one context, two of different platforms.
#include <pthread.h>

#include "session_test.h"

enum { MAX_IDS = 8 };

// Before the platforms are asked: PoCL has two devices, and Mesa's is there. Elsewhere the names mean nothing.
__attribute__((constructor)) static void show_more_devices(void)
{
    setenv("POCL_DEVICES", "pthread basic", 0);
    setenv("RUSTICL_ENABLE", "llvmpipe", 0);
}

struct job {
    cl_context context; // NULL: one of its own
    cl_device_id id;
    bool has_no_queue; // the library makes one
    const float *images, *want;
    float worst;
    char error[200];
};

static eq_status infer(struct caller *c, const struct job *job, float got[LOGITS])
{
    const struct eq_model_params model = { .arch = "ce-resnet20", .classes = CLASSES, .act = EQ_ELU };
    const float one = 1;
    eq_value images;
    eq_status status = eq_graph_create(&c->graph);
    status = status ? status : eq_graph_input(c->graph, "images", N, 3, SIZE, SIZE, &images);
    status = status ? status : eq_model_build(c->graph, &model, images, &c->logits);
    status = status ? status : eq_graph_output(c->graph, c->logits, "logits");
    status = status ? status : eq_weights_create(c->device, c->graph, &c->weights);
    status = status ? status : eq_weights_initialise(c->weights, 5);
    for (int i = 0; !status && i < eq_weights_num(c->weights); i++)
        if (strstr(eq_weights_at(c->weights, i).name, "running_scale"))
            status = eq_weights_write(c->weights, eq_weights_at(c->weights, i).name, &one);
    status = status ? status : eq_session_create(c->weights, c->graph, NULL, &c->session);
    for (int round = 0; !status && round < 5; round++) {
        status = eq_session_write(c->session, "images", job->images);
        status = status ? status : eq_session_run(c->session);
        status = status ? status : eq_session_read(c->session, "logits", got);
    }
    return status;
}

// No ck_assert: it must not be used in a second thread.
static void *run_job(void *user)
{
    struct job *job = user;
    struct caller c = { .context = job->context ? job->context : clCreateContext(NULL, 1, &job->id, NULL, NULL, NULL) };
    float got[LOGITS] = { 0 };
    c.queue = job->has_no_queue ? NULL : clCreateCommandQueue(c.context, job->id, 0, NULL);
    const struct eq_opencl_params params = { .context = c.context, .device = job->id, .queue = c.queue };
    eq_status status = eq_device_adopt(&params, &c.device);
    status = status ? status : infer(&c, job, got);
    for (int i = 0; i < LOGITS; i++)
        job->worst = fmaxf(job->worst, fabsf(got[i] - job->want[i]));
    if (status)
        snprintf(job->error, sizeof job->error, "%s", eq_last_error());
    eq_session_destroy(&c.session);
    eq_weights_destroy(&c.weights);
    eq_graph_destroy(&c.graph);
    eq_device_destroy(&c.device);
    if (c.queue)
        clReleaseCommandQueue(c.queue);
    if (!job->context)
        clReleaseContext(c.context);
    return NULL;
}

// tolerance: of logits, in their largest; 0: the same bits
static void run_two(struct job jobs[2], float tolerance)
{
    float *images = eq_check_uniform("images", ELEMS, 1), want[LOGITS], largest = 0;
    pthread_t threads[2];
    expect_logits(images, want);
    for (int i = 0; i < LOGITS; i++)
        largest = fmaxf(largest, fabsf(want[i]));
    ck_assert(largest > 1e-3f);
    for (int i = 0; i < 2; i++) {
        jobs[i].images = images;
        jobs[i].want = want;
        ck_assert_int_eq(pthread_create(&threads[i], NULL, run_job, &jobs[i]), 0);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++) {
        ck_assert_msg(!*jobs[i].error, "thread %d: %s", i, jobs[i].error);
        ck_assert_msg(jobs[i].worst <= tolerance * largest, "thread %d: logits off by %g", i, (double)jobs[i].worst);
    }
    free(images);
}

START_TEST(test_same_device)
{
    cl_context shared = _i == 1 ? make_context() : NULL; // or a context each
    struct job jobs[2] = { { .context = shared, .id = eq_test_device->id }, { .context = shared, .id = eq_test_device->id } };
    run_two(jobs, 0);
    if (shared)
        clReleaseContext(shared);
}
END_TEST

static cl_platform_id platform_of(cl_device_id id)
{
    cl_platform_id platform = NULL;
    ck_assert_int_eq(clGetDeviceInfo(id, CL_DEVICE_PLATFORM, sizeof platform, (void *)&platform, NULL), CL_SUCCESS);
    return platform;
}

// Both work at once; what does not belong together is refused.
START_TEST(test_one_context)
{
    cl_device_id ids[MAX_IDS];
    cl_uint num = 0;
    cl_int code;
    ck_assert_int_eq(clGetDeviceIDs(platform_of(eq_test_device->id), CL_DEVICE_TYPE_ALL, MAX_IDS, ids, &num), CL_SUCCESS);
    if (num < 2) {
        printf("# skipped: the platform has one device\n");
        return;
    }
    cl_context context = clCreateContext(NULL, 2, ids, NULL, NULL, &code),
               single = clCreateContext(NULL, 1, ids, NULL, NULL, &code);
    cl_command_queue queue = clCreateCommandQueue(context, ids[1], 0, &code);
    const struct {
        struct eq_opencl_params params;
        const char *says;
    } refused[] = { { { .context = context }, "has 2 devices" },
                    { { .context = single, .device = ids[1] }, "not one of the context's 1" },
                    { { .context = context, .device = ids[0], .queue = queue }, "another device" } };
    struct eq_device *device;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        ck_assert_int_eq(eq_device_adopt(&refused[i].params, &device), EQ_ERR_ARGUMENT);
        ck_assert_msg(strstr(eq_last_error(), refused[i].says), "%s", eq_last_error());
        ck_assert_ptr_null(device);
    }
    clReleaseCommandQueue(queue);
    clReleaseContext(single);
    struct job jobs[2] = { { .context = context, .id = ids[0] }, { .context = context, .id = ids[1], .has_no_queue = true } };
    run_two(jobs, 1e-5f);
    clReleaseContext(context);
}
END_TEST

// A device of another platform; NULL: there is none.
static cl_device_id find_other(void)
{
    cl_platform_id platforms[MAX_IDS], own = platform_of(eq_test_device->id);
    cl_device_id id = NULL;
    cl_uint num = 0;
    ck_assert_int_eq(clGetPlatformIDs(MAX_IDS, platforms, &num), CL_SUCCESS);
    for (cl_uint i = 0; i < num && i < MAX_IDS; i++) {
        char name[64] = "";
        clGetPlatformInfo(platforms[i], CL_PLATFORM_NAME, sizeof name, name, NULL);
        if (platforms[i] != own && strcmp(name, "rusticl") == 0 &&
            clGetDeviceIDs(platforms[i], CL_DEVICE_TYPE_ALL, 1, &id, NULL) == CL_SUCCESS)
            return id;
    }
    printf("# skipped: there is no second platform\n");
    return NULL;
}

START_TEST(test_platforms)
{
    const cl_device_id other = find_other();
    struct job jobs[2] = { { .id = eq_test_device->id }, { .id = other } };
    if (other)
        run_two(jobs, 1e-4f);
}
END_TEST

EQ_TEST_MAIN("session_devices", { test_same_device, 2 }, { test_one_context, 0 }, { test_platforms, 0 })

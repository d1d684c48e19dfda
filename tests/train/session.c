// Sessions on a caller's context, queue, memory and events: adopting, binding in every layout, ordering.
#include "session_test.h"

// ---- adopting

START_TEST(test_refused)
{
    cl_context context = make_context(), other = make_context();
    cl_command_queue queue = make_queue(other, false);
    struct eq_device *device = NULL;
    ck_assert_int_eq(eq_device_adopt(&(struct eq_opencl_params){ .queue = queue }, &device), EQ_ERR_ARGUMENT);
    ck_assert_ptr_null(device);
    ck_assert_int_eq(eq_device_adopt(NULL, &device), EQ_ERR_ARGUMENT);
    ck_assert_ptr_null(device);
    ck_assert_int_eq(eq_device_adopt(&(struct eq_opencl_params){ .context = context, .queue = queue }, &device),
                     EQ_ERR_ARGUMENT);
    ck_assert_msg(strstr(eq_last_error(), "another context"), "%s", eq_last_error());
    ck_assert_ptr_null(device);
    clReleaseCommandQueue(queue);
    clReleaseContext(context);
    clReleaseContext(other);
}
END_TEST

// ---- binding

// Forms of a caller's images: value = stored * scale + shift.
static const struct form {
    const char *name;
    enum eq_opencl_type type;
    enum eq_opencl_layout layout;
    size_t offset;  // elements in front
    bool is_padded; // rows of SIZE + 3 pixels
    bool is_mapped;
    float tolerance; // of logits, in their largest; 0: the same bits
} forms[] = {
    { "the network's own", EQ_OPENCL_F32, EQ_NCHW, 0, false, false, 0 },
    { "an offset", EQ_OPENCL_F32, EQ_NCHW, 5, false, false, 0 },
    { "padded rows", EQ_OPENCL_F32, EQ_NCHW, 7, true, false, 0 },
    { "NHWC", EQ_OPENCL_F32, EQ_NHWC, 0, false, false, 0 },
    // values are multiples of 1/128 below 2 in size: exact in f16 and bytes
    { "f16", EQ_OPENCL_F16, EQ_NCHW, 3, false, false, 0 },
    { "f16 NHWC", EQ_OPENCL_F16, EQ_NHWC, 1, false, false, 0 },
    { "bytes NHWC", EQ_OPENCL_U8, EQ_NHWC, 1, false, true, 1e-6f },
    { "bytes, padded", EQ_OPENCL_U8, EQ_NCHW, 2, true, true, 1e-6f },
    { "f32 with a map", EQ_OPENCL_F32, EQ_NCHW, 0, false, true, 1e-6f },
};
enum { BYTES = 6 }; // in NHWC, with a map
enum { NUM_FORMS = sizeof forms / sizeof *forms, MAX_BYTES = 4 * (N * 3 * SIZE * (SIZE + 3) + 64) };
static const float scale[3] = { 0.0078125f, 0.015625f, 0.0078125f }, shift[3] = { -1, -2, -0.5f };

static uint16_t to_f16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    const uint32_t sign = bits >> 31 << 15, exponent = bits >> 23 & 255, mantissa = bits >> 13 & 1023;
    return (uint16_t)(exponent < 113 ? sign : sign | (exponent - 112) << 10 | mantissa);
}

static void put(const struct form *form, unsigned char *memory, size_t at, float value)
{
    const unsigned char byte = (unsigned char)value;
    const uint16_t f16 = to_f16(value);
    if (form->type == EQ_OPENCL_F32)
        memcpy(memory + 4 * at, &value, 4);
    else if (form->type == EQ_OPENCL_F16)
        memcpy(memory + 2 * at, &f16, 2);
    else
        memory[at] = byte;
}

// Fills a caller's memory in the form, and what the network should see of it.
static void fill_form(const struct form *form, unsigned char *memory, float *images, struct eq_opencl_view *view)
{
    const size_t row = form->is_padded ? SIZE + 3 : SIZE, plane = SIZE * row;
    const size_t nchw[] = { 3 * plane, plane, row, 1 }, nhwc[] = { 3 * plane, 1, 3 * row, 3 };
    const size_t *stride = form->layout == EQ_NHWC ? nhwc : nchw;
    memset(memory, 0xFF, MAX_BYTES); // f32 and f16: not a number
    for (size_t i = 0; i < ELEMS; i++) {
        const size_t x = i % SIZE, y = i / SIZE % SIZE, c = i / PIXELS % 3, n = i / PIXELS / 3;
        const unsigned char byte = (unsigned char)(i * 2654435761u >> 11);
        const float stored = form->is_mapped ? byte : ((float)byte - 128) / 128;
        images[i] = form->is_mapped ? stored * scale[c] + shift[c] : stored;
        put(form, memory, form->offset + n * stride[0] + c * stride[1] + y * stride[2] + x * stride[3], stored);
    }
    *view = (struct eq_opencl_view){ .type = form->type, .layout = form->layout };
    view->offset_bytes = form->offset * (form->type == EQ_OPENCL_F32 ? 4 : form->type == EQ_OPENCL_F16 ? 2 : 1);
    if (form->is_padded)
        memcpy(view->stride, stride, sizeof view->stride);
    if (form->is_mapped) {
        view->scale = scale;
        view->shift = shift;
    }
}

static void compare_logits(const float *got, const float *want, float tolerance, const char *what)
{
    float largest = 0;
    for (int i = 0; i < LOGITS; i++)
        largest = fmaxf(largest, fabsf(want[i]));
    ck_assert_msg(largest > 1e-3f, "%s: the logits are about 0", what);
    for (int i = 0; i < LOGITS; i++)
        ck_assert_msg(fabsf(got[i] - want[i]) <= tolerance * largest, "%s: logit %d is %.8g, not %.8g", what, i, (double)got[i],
                      (double)want[i]);
}

START_TEST(test_input_forms)
{
    const struct form *form = &forms[_i];
    unsigned char *values = malloc(MAX_BYTES);
    float *images = malloc(ELEMS * sizeof *images), want[LOGITS], got[LOGITS];
    struct eq_opencl_view view;
    struct caller c;
    fill_form(form, values, images, &view);
    expect_logits(images, want);
    open_caller(&c, false);
    build_network(&c, "ce-resnet20", false);
    make_session(&c, NULL);
    view.memory = make_memory(&c, MAX_BYTES, values);
    EQ_TEST_OK(eq_session_bind(c.session, "images", &view));
    ck_assert_int_eq(eq_session_read(c.session, "logits", got), EQ_ERR_ARGUMENT);
    ck_assert(strstr(eq_last_error(), "was not run yet"));
    for (int round = 0; round < 2; round++) {
        EQ_TEST_OK(eq_session_run(c.session));
        EQ_TEST_OK(eq_session_read(c.session, "logits", got));
        compare_logits(got, want, form->tolerance, form->name);
    }
    ck_assert_int_eq(eq_session_write(c.session, "images", images), EQ_ERR_ARGUMENT);
    // The session's own memory again.
    EQ_TEST_OK(eq_session_bind(c.session, "images", NULL));
    EQ_TEST_OK(eq_session_write(c.session, "images", images));
    EQ_TEST_OK(eq_session_run(c.session));
    EQ_TEST_OK(eq_session_read(c.session, "logits", got));
    compare_logits(got, want, 0, form->name);
    clReleaseMemObject(view.memory);
    close_caller(&c);
    free(values);
    free(images);
}
END_TEST

// Outputs at an offset, in f32 and f16; nothing around them is touched.
START_TEST(test_output_forms)
{
    enum { AT = 3, PAD = 5, TOTAL = AT + LOGITS + PAD };
    float *images = eq_check_uniform("images", ELEMS, 1), want[LOGITS], wide[TOTAL], before[TOTAL];
    uint16_t narrow[TOTAL];
    struct caller c;
    expect_logits(images, want);
    open_caller(&c, false);
    build_network(&c, "ce-resnet20", false);
    make_session(&c, NULL);
    for (int i = 0; i < TOTAL; i++)
        before[i] = (float)i + 0.5f;
    cl_mem memory = make_memory(&c, sizeof before, before);
    EQ_TEST_OK(eq_session_write(c.session, "images", images));
    EQ_TEST_OK(eq_session_bind(c.session, "logits", &(struct eq_opencl_view){ .memory = memory, .offset_bytes = 4 * AT }));
    EQ_TEST_OK(eq_session_run(c.session));
    read_memory(&c, memory, sizeof wide, wide);
    ck_assert_msg(memcmp(wide + AT, want, sizeof want) == 0, "other logits in the caller's memory");
    memcpy(wide + AT, before + AT, sizeof want);
    ck_assert_msg(memcmp(wide, before, sizeof before) == 0, "memory around the logits was written");
    const struct eq_opencl_view f16 = { .memory = memory, .type = EQ_OPENCL_F16, .offset_bytes = 2 * AT };
    EQ_TEST_OK(eq_session_bind(c.session, "logits", &f16));
    EQ_TEST_OK(eq_session_run(c.session));
    read_memory(&c, memory, sizeof narrow, narrow);
    for (int i = 0; i < LOGITS; i++) {
        const int exponent = (narrow[AT + i] >> 10 & 31) - 15;
        const float size = ldexpf(1 + (float)(narrow[AT + i] & 1023) / 1024, exponent);
        ck_assert_msg(fabsf(size - fabsf(want[i])) <= fabsf(want[i]) / 1024 + 1e-6f, "logit %d is %g in f16, not %g", i,
                      (double)size, (double)want[i]);
    }
    clReleaseMemObject(memory);
    close_caller(&c);
    free(images);
}
END_TEST

// What comes out of a named layer: it makes the logits, and goes to the caller in f32, NCHW, and in bytes, NHWC, rounded and
// cut.
START_TEST(test_features)
{
    enum { C = 64, SIDE = 4, PLANE = SIDE * SIDE, FEATURES = N * C * PLANE };
    float *images = eq_check_uniform("images", ELEMS, 1), *features = malloc(FEATURES * sizeof *features), want[LOGITS],
          got[LOGITS], weight[CLASSES * C], bias[CLASSES], by[C], plus[C];
    unsigned char *bytes = malloc(FEATURES);
    int num_cut = 0, num_between = 0;
    struct caller c;
    eq_value value, same;
    expect_logits(images, want);
    open_caller(&c, false);
    build_network(&c, "ce-resnet20", false);
    EQ_TEST_OK(eq_graph_find(c.graph, "layer3", &value));
    EQ_TEST_OK(eq_graph_find(c.graph, "layer3.2", &same));
    ck_assert_int_eq(value, same);
    EQ_TEST_OK(eq_graph_output(c.graph, value, "features"));
    make_session(&c, NULL);
    cl_mem whole = make_memory(&c, FEATURES * 4, NULL), cut = make_memory(&c, FEATURES, NULL);
    EQ_TEST_OK(eq_session_write(c.session, "images", images));
    EQ_TEST_OK(eq_session_bind(c.session, "features", &(struct eq_opencl_view){ .memory = whole }));
    EQ_TEST_OK(eq_session_run(c.session));
    read_memory(&c, whole, FEATURES * 4, features);
    EQ_TEST_OK(eq_weights_read(c.weights, "fc.weight", weight));
    EQ_TEST_OK(eq_weights_read(c.weights, "fc.bias", bias));
    for (int i = 0; i < LOGITS; i++) {
        double sum = 0;
        for (int k = 0; k < C * PLANE; k++)
            sum += (double)features[i / CLASSES * C * PLANE + k] * weight[i % CLASSES * C + k / PLANE];
        got[i] = (float)(sum / PLANE + bias[i % CLASSES]);
    }
    compare_logits(got, want, 1e-5f, "made of the features");
    for (int k = 0; k < C; k++) {
        by[k] = 90;
        plus[k] = 0.25f * (float)k;
    }
    const struct eq_opencl_view view = { .memory = cut, .type = EQ_OPENCL_U8, .layout = EQ_NHWC, .scale = by, .shift = plus };
    EQ_TEST_OK(eq_session_bind(c.session, "features", &view));
    EQ_TEST_OK(eq_session_run(c.session));
    read_memory(&c, cut, FEATURES, bytes);
    for (int i = 0; i < FEATURES; i++) {
        const int k = i / PLANE % C, byte = bytes[(i / PLANE / C * PLANE + i % PLANE) * C + k];
        const float exact = features[i] * by[k] + plus[k];
        num_cut += exact < 0 || exact > 255;
        num_between += exact > 1 && exact < 254;
        ck_assert_msg(fabsf((float)byte - fminf(fmaxf(exact, 0), 255)) <= 0.501f, "%.6g became %d", (double)exact, byte);
    }
    ck_assert_msg(num_cut > 20 && num_between > 20, "%d values were cut, %d were not", num_cut, num_between);
    clReleaseMemObject(whole);
    clReleaseMemObject(cut);
    close_caller(&c);
    free(images);
    free(features);
    free(bytes);
}
END_TEST

START_TEST(test_bind_refused)
{
    enum { MOST = 0x7fffffff };
    struct caller c;
    float *images = eq_check_uniform("images", ELEMS, 1), want[LOGITS], got[LOGITS];
    expect_logits(images, want);
    open_caller(&c, false);
    build_network(&c, "ce-resnet20", false);
    make_session(&c, NULL);
    cl_context other = make_context();
    cl_mem good = make_memory(&c, ELEMS * 4, images), foreign = clCreateBuffer(other, CL_MEM_READ_WRITE, ELEMS * 4, NULL, NULL);
    const struct eq_opencl_view bound = { .memory = good };
    EQ_TEST_OK(eq_session_bind(c.session, "images", &bound));
    const struct {
        struct eq_opencl_view view;
        const char *name, *says;
        eq_status status;
    } bad[] = {
        { { .memory = good }, "image", "there are: images, logits", EQ_ERR_NOT_FOUND },
        { { .memory = good, .offset_bytes = 4 }, "images", "6148 of a memory of 6144", EQ_ERR_ARGUMENT },
        { { .memory = good, .offset_bytes = 2 }, "images", "byte 2", EQ_ERR_ARGUMENT },
        { { .memory = good, .stride = { 3 * PIXELS, PIXELS, SIZE, 2 } }, "images", "memory of 6144", EQ_ERR_ARGUMENT },
        { { .memory = good, .type = EQ_OPENCL_I32 }, "images", "floats", EQ_ERR_ARGUMENT },
        { { .memory = good, .layout = (enum eq_opencl_layout)5 }, "images", "layout 5 is none", EQ_ERR_ARGUMENT },
        { { .memory = foreign }, "images", "another context", EQ_ERR_ARGUMENT },
        // what would be in it again after 2^64 bytes
        { { .memory = good, .type = EQ_OPENCL_U8, .offset_bytes = SIZE_MAX - 9 }, "images", "memory of 6144", EQ_ERR_ARGUMENT },
        { { .memory = good, .offset_bytes = SIZE_MAX - 3 }, "images", "memory of 6144", EQ_ERR_ARGUMENT },
        { { .memory = good, .stride = { MOST, MOST, MOST, MOST } }, "images", "memory of 6144", EQ_ERR_ARGUMENT },
        { { .memory = good, .stride = { 1, 1, 1, 1 } }, "logits", "one place", EQ_ERR_UNSUPPORTED },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_int_eq(eq_session_bind(c.session, bad[i].name, &bad[i].view), bad[i].status);
        ck_assert_msg(strstr(eq_last_error(), bad[i].says), "%s", eq_last_error());
    }
    ck_assert_int_eq(eq_session_write(c.session, "logits", want), EQ_ERR_ARGUMENT);
    EQ_TEST_OK(eq_session_run(c.session)); // the binding before is still there
    EQ_TEST_OK(eq_session_read(c.session, "logits", got));
    compare_logits(got, want, 0, "after refusals");
    clReleaseMemObject(good);
    clReleaseMemObject(foreign);
    clReleaseContext(other);
    close_caller(&c);
    free(images);
}
END_TEST

// Rows that a linear layer reads, in a caller's memory from any element on: kernels for GPUs read them four at a time where
// they begin at a multiple of four.
START_TEST(test_unaligned)
{
    enum { C = 16, K = 10 };
    struct caller c;
    float *x = eq_check_uniform("x", N * C * 16, 1), want[N * K], got[N * K];
    eq_value in, rows, y;
    open_caller(&c, false);
    c.device->target.family = _i ? EQ_FAMILY_SIMT : EQ_FAMILY_VECTOR;
    EQ_TEST_OK(eq_graph_create(&c.graph));
    EQ_TEST_OK(eq_graph_input(c.graph, "x", N, C, 4, 4, &in));
    EQ_TEST_OK(eq_graph_mean_pool(c.graph, in, &rows));
    EQ_TEST_OK(eq_graph_output(c.graph, rows, "features"));
    EQ_TEST_OK(eq_graph_linear(c.graph, rows, "fc", K, &y));
    EQ_TEST_OK(eq_graph_output(c.graph, y, "y"));
    make_session(&c, NULL);
    cl_mem memory = make_memory(&c, 4 * (N * C + 8), NULL);
    EQ_TEST_OK(eq_session_write(c.session, "x", x));
    EQ_TEST_OK(eq_session_run(c.session));
    EQ_TEST_OK(eq_session_read(c.session, "y", want));
    for (size_t offset = 0; offset < 8; offset++) {
        const struct eq_opencl_view view = { .memory = memory, .offset_bytes = 4 * offset };
        EQ_TEST_OK(eq_session_bind(c.session, "features", &view));
        EQ_TEST_OK(eq_session_run(c.session));
        EQ_TEST_OK(eq_session_read(c.session, "y", got));
        ck_assert_msg(memcmp(got, want, sizeof want) == 0, "other results from element %zu on", offset);
    }
    clReleaseMemObject(memory);
    close_caller(&c);
    free(x);
}
END_TEST

// ---- events

static cl_int state_of(cl_event event)
{
    cl_int state = CL_COMPLETE;
    clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL);
    return state;
}

// A user event is held back: enqueuing returns nevertheless, and nothing happens until it is set. From the first run on, over
// the network's own form and over bytes that are converted, on both kinds of queue.
START_TEST(test_events)
{
    const struct form *form = &forms[_i & 2 ? BYTES : 0];
    const bool is_out_of_order = _i & 1;
    unsigned char *values = malloc(MAX_BYTES);
    float *images = malloc(ELEMS * sizeof *images), want[2][LOGITS], got[2][LOGITS];
    struct eq_opencl_view view;
    struct caller c;
    cl_mem in[2];
    cl_int code;
    if (is_out_of_order && !has_out_of_order()) {
        free(values);
        free(images);
        return;
    }
    open_caller(&c, is_out_of_order);
    build_network(&c, "ce-resnet20", false);
    make_session(&c, NULL);
    for (int i = 0; i < 2; i++) {
        fill_form(form, values, images, &view);
        for (int k = 0; i == 1 && k < ELEMS; k += 97) { // the other images
            const size_t pixel = (size_t)k % PIXELS, channel = (size_t)k / PIXELS % 3, n = (size_t)k / PIXELS / 3;
            const size_t at = form->layout == EQ_NHWC ? (n * PIXELS + pixel) * 3 + channel : (size_t)k;
            images[k] = form->is_mapped ? shift[channel] : -1;
            put(form, values, form->offset + at, form->is_mapped ? 0 : -1);
        }
        expect_logits(images, want[i]);
        in[i] = make_memory(&c, MAX_BYTES, values);
    }
    ck_assert(memcmp(want[0], want[1], sizeof want[0]) != 0);
    cl_mem out[] = { make_memory(&c, LOGITS * 4, NULL), make_memory(&c, LOGITS * 4, NULL) };
    cl_event gate = clCreateUserEvent(c.context, &code), done[2];
    for (int i = 0; i < 2; i++) {
        view.memory = in[i];
        EQ_TEST_OK(eq_session_bind(c.session, "images", &view));
        EQ_TEST_OK(eq_session_bind(c.session, "logits", &(struct eq_opencl_view){ .memory = out[i] }));
        EQ_TEST_OK(eq_session_enqueue(c.session, EQ_SESSION_ALL, &gate, i == 0, &done[i]));
    }
    for (int i = 0; i < 20; i++) {
        nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
        ck_assert_msg(state_of(done[0]) > CL_COMPLETE && state_of(done[1]) > CL_COMPLETE, "a run did not wait for the event");
    }
    ck_assert_int_eq(clSetUserEventStatus(gate, CL_COMPLETE), CL_SUCCESS);
    ck_assert_int_eq(clWaitForEvents(2, done), CL_SUCCESS);
    for (int i = 0; i < 2; i++) {
        read_memory(&c, out[i], sizeof got[i], got[i]);
        compare_logits(got[i], want[i], form->tolerance, i ? "second run" : "first run");
        clReleaseEvent(done[i]);
        clReleaseMemObject(in[i]);
        clReleaseMemObject(out[i]);
    }
    clReleaseEvent(gate);
    close_caller(&c);
    free(images);
    free(values);
}
END_TEST

// A run behind an event that fails: that is told once, and the session goes on, also where nobody waited in between. The runs
// that fail are of a graph without calls: PoCL 3.1 ends the process for kernels behind an event that failed.
START_TEST(test_failed_event)
{
    enum { WAIT, WRITE, RUN } way = (unsigned)_i; // what comes first behind the failure
    struct caller c;
    struct eq_graph *empty;
    struct eq_weights *none;
    struct eq_session *failing;
    float *images = eq_check_uniform("images", ELEMS, 1), want[LOGITS], got[LOGITS];
    cl_int code;
    if (!has_out_of_order()) {
        free(images);
        return;
    }
    expect_logits(images, want);
    open_caller(&c, true);
    build_network(&c, "ce-resnet20", false);
    make_session(&c, NULL);
    EQ_TEST_OK(eq_graph_create(&empty));
    EQ_TEST_OK(eq_weights_create(c.device, empty, &none));
    EQ_TEST_OK(eq_session_create(none, empty, NULL, &failing));
    EQ_TEST_OK(eq_session_write(c.session, "images", images));
    cl_event gate = clCreateUserEvent(c.context, &code);
    EQ_TEST_OK(eq_session_enqueue(failing, EQ_SESSION_ALL, &gate, 1, NULL));
    clFlush(c.queue);
    ck_assert_int_eq(clSetUserEventStatus(gate, -7), CL_SUCCESS);
    for (int i = 0; i < 2 && way == WAIT; i++)
        ck_assert_int_eq(eq_session_wait(failing), i == 0 ? EQ_ERR_DEVICE : EQ_OK);
    if (way == WRITE)
        ck_assert_int_eq(eq_session_write(c.session, "images", images), EQ_ERR_DEVICE);
    if (way != RUN)
        EQ_TEST_OK(eq_session_write(c.session, "images", images));
    EQ_TEST_OK(eq_session_run(c.session));
    if (way == RUN)
        ck_assert_int_eq(eq_session_read(c.session, "logits", got), EQ_ERR_DEVICE);
    EQ_TEST_OK(eq_session_read(c.session, "logits", got));
    EQ_TEST_OK(eq_session_wait(c.session));
    compare_logits(got, want, 0, "after a failure");
    clReleaseEvent(gate);
    eq_session_destroy(&failing);
    eq_weights_destroy(&none);
    eq_graph_destroy(&empty);
    close_caller(&c);
    free(images);
}
END_TEST

EQ_TEST_MAIN("session", { test_refused, 0 }, { test_input_forms, NUM_FORMS }, { test_output_forms, 0 },
             { test_features, 0 },
             { test_bind_refused, 0 }, { test_unaligned, 2 }, { test_events, 4 }, { test_failed_event, 3 })

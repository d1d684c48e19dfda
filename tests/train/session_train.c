// Sessions that differentiate and train, Channel Equilibrium alone over a caller's memory, and several devices at once.

#include "session_test.h"

// ---- differentiating

static float *read_gradients(struct eq_weights *weights, size_t *num)
{
    float *all = NULL;
    *num = 0;
    for (int i = 0; i < eq_weights_num(weights); i++) {
        const struct eq_weights_tensor tensor = eq_weights_at(weights, i);
        if (!tensor.is_parameter)
            continue;
        all = realloc(all, (*num + tensor.elems) * sizeof *all);
        EQ_TEST_OK(eq_weights_read_gradient(weights, tensor.name, all + *num));
        *num += tensor.elems;
    }
    return all;
}

// Largest difference in the 2-norm of `want`.
static double relative_error(const float *got, const float *want, size_t num)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < num; i++) {
        difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        norm += (double)want[i] * want[i];
    }
    ck_assert(norm > 0);
    return sqrt(difference / norm);
}

// The gradient of a cross entropy, and the same from a gradient of the logits that the caller computes: softmax - target over
// N. In order and out of order, kept and made again.
START_TEST(test_outer_gradient)
{
    static const int32_t labels[N] = { 2, 0 };
    float *images = eq_check_uniform("images", ELEMS, 3), logits[LOGITS], outer[LOGITS], losses[N];
    size_t num, num_outer;
    struct caller a, b;
    if ((_i & 1) && !has_out_of_order())
        return;
    open_caller(&a, _i & 1);
    build_network(&a, "ce-resnet20", true);
    make_session(&a, &(struct eq_session_params){
                         .training = true, .differentiate = a.loss, .recompute = _i & 2, .input_gradients = true });
    EQ_TEST_OK(eq_session_write(a.session, "images", images));
    EQ_TEST_OK(eq_session_forward(a.session)); // without labels
    EQ_TEST_OK(eq_session_read(a.session, "loss", losses));
    for (int n = 0; n < N; n++)
        ck_assert(isnan(losses[n]));
    EQ_TEST_OK(eq_session_write(a.session, "labels", labels));
    EQ_TEST_OK(eq_session_run(a.session));
    EQ_TEST_OK(eq_session_read(a.session, "logits", logits));
    float *want = read_gradients(a.weights, &num), *want_images = malloc(ELEMS * 4), *got_images = malloc(ELEMS * 4);
    EQ_TEST_OK(eq_session_read(a.session, "grad.images", want_images));
    for (int n = 0; n < N; n++) {
        double sum = 0;
        for (int k = 0; k < CLASSES; k++)
            sum += exp(logits[n * CLASSES + k]);
        for (int k = 0; k < CLASSES; k++)
            outer[n * CLASSES + k] = (float)((exp(logits[n * CLASSES + k]) / sum - (k == labels[n])) / N);
    }
    open_caller(&b, _i & 1);
    build_network(&b, "ce-resnet20", false);
    make_session(&b, &(struct eq_session_params){ .training = true, .differentiate = b.logits, .input_gradients = true });
    EQ_TEST_OK(eq_session_write(b.session, "images", images));
    ck_assert_int_eq(eq_session_backward(b.session), EQ_ERR_ARGUMENT);
    EQ_TEST_OK(eq_session_forward(b.session));
    EQ_TEST_OK(eq_session_write(b.session, "grad.logits", outer));
    EQ_TEST_OK(eq_session_backward(b.session));
    EQ_TEST_OK(eq_session_read(b.session, "grad.images", got_images));
    float *got = read_gradients(b.weights, &num_outer);
    ck_assert_uint_eq(num, num_outer);
    // the two differ by the rounding of the softmax, which the network's backward pass amplifies
    ck_assert_msg(relative_error(got, want, num) < 1e-4, "parameters differ by %g", relative_error(got, want, num));
    ck_assert_msg(relative_error(got_images, want_images, ELEMS) < 1e-4, "images differ by %g",
                  relative_error(got_images, want_images, ELEMS));
    close_caller(&a);
    close_caller(&b);
    free(images);
    free(want);
    free(got);
    free(want_images);
    free(got_images);
}
END_TEST

static void check_described(const struct caller *c, const char *name, struct eq_session_tensor want)
{
    struct eq_session_tensor got;
    EQ_TEST_OK(eq_session_describe(c->session, name, &got));
    ck_assert_msg(memcmp(got.shape, want.shape, sizeof got.shape) == 0 && got.rank == want.rank &&
                      got.is_int32 == want.is_int32 && got.is_input == want.is_input,
                  "%s: [%d, %d, %d, %d], %d dimensions, int32 %d, input %d", name, got.shape[0], got.shape[1], got.shape[2],
                  got.shape[3], got.rank, got.is_int32, got.is_input);
}

// y = linear(mean(conv(x))) is linear in x: what its gradient says of a step is what the step does.
START_TEST(test_input_gradient)
{
    enum { C = 5, K = 4 };
    struct caller c;
    eq_value x, z, rows, y;
    float *first = eq_check_uniform("x", N * C * 49, 1), *step = eq_check_uniform("x", N * C * 49, 2),
          *outer = eq_check_uniform("outer", N * K, 3), *gradient = malloc(N * C * 49 * 4), y0[N * K], y1[N * K];
    open_caller(&c, false);
    EQ_TEST_OK(eq_graph_create(&c.graph));
    EQ_TEST_OK(eq_graph_input(c.graph, "x", N, C, 7, 7, &x));
    EQ_TEST_OK(eq_graph_conv2d(c.graph, x, "conv", &(struct eq_conv2d_params){ 19, 3, 3, .stride_h = 2, .pad_h = 1 }, &z));
    EQ_TEST_OK(eq_graph_output(c.graph, z, "features"));
    EQ_TEST_OK(eq_graph_mean_pool(c.graph, z, &rows));
    EQ_TEST_OK(eq_graph_linear(c.graph, rows, "fc", K, &y));
    EQ_TEST_OK(eq_graph_output(c.graph, y, "y"));
    make_session(&c, &(struct eq_session_params){ .training = true, .differentiate = y, .input_gradients = true });
    EQ_TEST_OK(eq_session_write(c.session, "x", first));
    EQ_TEST_OK(eq_session_write(c.session, "grad.y", outer));
    EQ_TEST_OK(eq_session_run(c.session));
    EQ_TEST_OK(eq_session_read(c.session, "y", y0));
    EQ_TEST_OK(eq_session_read(c.session, "grad.x", gradient));
    double said = 0, done = 0, size = 0;
    for (int i = 0; i < N * C * 49; i++) {
        said += (double)gradient[i] * step[i];
        size += fabs((double)gradient[i] * step[i]);
        first[i] += step[i];
    }
    EQ_TEST_OK(eq_session_write(c.session, "x", first));
    EQ_TEST_OK(eq_session_run(c.session));
    EQ_TEST_OK(eq_session_read(c.session, "y", y1));
    for (int i = 0; i < N * K; i++)
        done += outer[i] * ((double)y1[i] - y0[i]);
    ck_assert_msg(size > 0.01 && fabs(said - done) < 1e-5 * size, "the gradient says %g, the step does %g (terms of %g)", said,
                  done, size);
    check_described(&c, "x", (const struct eq_session_tensor){ { N, C, 7, 7 }, 4, false, true });
    check_described(&c, "grad.x", (const struct eq_session_tensor){ { N, C, 7, 7 }, 4, false, false });
    check_described(&c, "features", (const struct eq_session_tensor){ { N, 19, 4, 5 }, 4, false, false });
    check_described(&c, "y", (const struct eq_session_tensor){ { N, K, 1, 1 }, 2, false, false });
    check_described(&c, "grad.y", (const struct eq_session_tensor){ { N, K, 1, 1 }, 2, false, true });
    close_caller(&c);
    free(first);
    free(step);
    free(outer);
    free(gradient);
}
END_TEST

// Training on the caller's memory, in order and out of order: the loss falls, twice with the same bits, and an evaluation over
// the same weights, for another batch size, sees what was learned.
START_TEST(test_training)
{
    enum { STEPS = 8 };
    static const int32_t labels[N] = { 1, 2 };
    float *images = eq_check_uniform("images", ELEMS, 3), losses[2][STEPS], loss[N], logits[CLASSES], first[CLASSES];
    if (_i == 1 && !has_out_of_order())
        return;
    for (int round = 0; round < 2; round++) {
        struct caller c;
        eq_value one, one_logits;
        struct eq_graph *single;
        struct eq_session *evaluation;
        open_caller(&c, _i == 1);
        build_network(&c, "ce-resnet20", true);
        make_session(&c, &(struct eq_session_params){ .training = true, .differentiate = c.loss });
        EQ_TEST_OK(eq_graph_create(&single));
        EQ_TEST_OK(eq_graph_input(single, "images", 1, 3, SIZE, SIZE, &one));
        EQ_TEST_OK(eq_model_build(single, &(struct eq_model_params){ .arch = "ce-resnet20", .classes = CLASSES, .act = EQ_ELU },
                                  one, &one_logits));
        EQ_TEST_OK(eq_graph_output(single, one_logits, "logits"));
        EQ_TEST_OK(eq_session_create(c.weights, single, NULL, &evaluation));
        cl_mem memory = make_memory(&c, ELEMS * 4, images), targets = make_memory(&c, sizeof labels, labels);
        check_described(&c, "labels", (const struct eq_session_tensor){ { N, 1, 1, 1 }, 1, true, true });
        check_described(&c, "loss", (const struct eq_session_tensor){ { N, 1, 1, 1 }, 1, false, false });
        EQ_TEST_OK(eq_session_bind(c.session, "images", &(struct eq_opencl_view){ .memory = memory }));
        EQ_TEST_OK(eq_session_bind(evaluation, "images", &(struct eq_opencl_view){ .memory = memory }));
        EQ_TEST_OK(eq_session_bind(c.session, "labels", &(struct eq_opencl_view){ .memory = targets, .type = EQ_OPENCL_I32 }));
        EQ_TEST_OK(eq_session_run(evaluation));
        EQ_TEST_OK(eq_session_read(evaluation, "logits", first));
        ck_assert_int_eq(eq_session_update(evaluation, &(struct eq_sgd_params){ .rate = 1 }), EQ_ERR_ARGUMENT);
        ck_assert_int_eq(eq_session_update(c.session, &(struct eq_sgd_params){ .rate = 1 }), EQ_ERR_ARGUMENT);
        ck_assert_msg(strstr(eq_last_error(), "was not run backward"), "%s", eq_last_error());
        for (int s = 0; s < STEPS; s++) {
            EQ_TEST_OK(eq_session_run(c.session));
            EQ_TEST_OK(eq_session_update(c.session, &(struct eq_sgd_params){ 0.02f, 0.9f, 1e-4f }));
            EQ_TEST_OK(eq_session_read(c.session, "loss", loss));
            losses[round][s] = (loss[0] + loss[1]) / 2;
        }
        EQ_TEST_OK(eq_session_run(evaluation));
        EQ_TEST_OK(eq_session_read(evaluation, "logits", logits));
        ck_assert_msg(memcmp(first, logits, sizeof first) != 0, "the evaluation does not see the new weights");
        ck_assert_int_eq(eq_session_update(c.session, &(struct eq_sgd_params){ .rate = -1 }), EQ_ERR_ARGUMENT);
        ck_assert_int_eq(eq_session_update(c.session, &(struct eq_sgd_params){ .rate = NAN }), EQ_ERR_ARGUMENT);
        ck_assert_ptr_nonnull(strstr(eq_last_error(), "finite"));
        clReleaseMemObject(memory);
        clReleaseMemObject(targets);
        eq_session_destroy(&evaluation);
        eq_graph_destroy(&single);
        close_caller(&c);
    }
    ck_assert_msg(losses[0][STEPS - 1] < 0.5f * losses[0][0], "the loss went from %g to %g", (double)losses[0][0],
                  (double)losses[0][STEPS - 1]);
    ck_assert_msg(memcmp(losses[0], losses[1], sizeof losses[0]) == 0, "a second run has other losses");
    free(images);
}
END_TEST

// Two steps, in halves and whole, with their updates, while the first one's event is held back: enqueuing them returns, nothing
// happens until it is set, and then they give the bits of steps that were waited for.
START_TEST(test_held_back)
{
    static const int32_t labels[N] = { 1, 2 };
    static const struct eq_sgd_params sgd = { 0.02f, 0.9f, 1e-4f };
    float *images = eq_check_uniform("images", ELEMS, 3), weight[2][CLASSES * 64], loss[2][N];
    if (_i == 1 && !has_out_of_order())
        return;
    for (int round = 0; round < 2; round++) {
        const bool is_held = round == 1;
        struct caller c;
        cl_event gate, done;
        cl_int state = CL_COMPLETE;
        open_caller(&c, _i == 1);
        build_network(&c, "ce-resnet20", true);
        make_session(&c, &(struct eq_session_params){ .training = true, .differentiate = c.loss });
        ck_assert_int_eq(eq_weights_read_gradient(c.weights, "fc.weight", weight[round]), EQ_ERR_ARGUMENT);
        ck_assert_msg(strstr(eq_last_error(), "not computed yet"), "%s", eq_last_error());
        cl_mem memory = make_memory(&c, ELEMS * 4, images), targets = make_memory(&c, sizeof labels, labels);
        EQ_TEST_OK(eq_session_bind(c.session, "images", &(struct eq_opencl_view){ .memory = memory }));
        EQ_TEST_OK(eq_session_bind(c.session, "labels", &(struct eq_opencl_view){ .memory = targets, .type = EQ_OPENCL_I32 }));
        gate = clCreateUserEvent(c.context, &state);
        EQ_TEST_OK(eq_session_enqueue(c.session, EQ_SESSION_FORWARD, &gate, is_held, NULL));
        EQ_TEST_OK(eq_session_enqueue(c.session, EQ_SESSION_BACKWARD, NULL, 0, NULL));
        EQ_TEST_OK(eq_session_update(c.session, &sgd));
        if (!is_held)
            EQ_TEST_OK(eq_session_wait(c.session));
        EQ_TEST_OK(eq_session_enqueue(c.session, EQ_SESSION_ALL, NULL, 0, &done));
        EQ_TEST_OK(eq_session_update(c.session, &sgd));
        for (int i = 0; is_held && i < 20; i++) {
            nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
            clGetEventInfo(done, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL);
            ck_assert_msg(state > CL_COMPLETE, "a step did not wait for the event");
        }
        ck_assert_int_eq(clSetUserEventStatus(gate, CL_COMPLETE), CL_SUCCESS);
        EQ_TEST_OK(eq_session_read(c.session, "loss", loss[round]));
        EQ_TEST_OK(eq_weights_read(c.weights, "fc.weight", weight[round]));
        clReleaseEvent(gate);
        clReleaseEvent(done);
        clReleaseMemObject(memory);
        clReleaseMemObject(targets);
        close_caller(&c);
    }
    ck_assert_msg(memcmp(loss[0], loss[1], sizeof loss[0]) == 0, "other losses behind an event");
    ck_assert_msg(memcmp(weight[0], weight[1], sizeof weight[0]) == 0, "other weights behind an event");
    free(images);
}
END_TEST

// A norm and the block behind it have a momentum each: of the statistics that begin at 0, twice the one gives twice the value.
START_TEST(test_momenta)
{
    float *values = eq_check_uniform("x", N * 8 * 16, 4), mean[2][8], ce_mean[2][8], scale[2];
    for (int i = 0; i < 2; i++) {
        struct caller c;
        eq_value x, y;
        open_caller(&c, false);
        EQ_TEST_OK(eq_graph_create(&c.graph));
        EQ_TEST_OK(eq_graph_input(c.graph, "x", N, 8, 4, 4, &x));
        EQ_TEST_OK(eq_graph_batch_norm(c.graph, x, "bn", &(struct eq_batch_norm_params){ .momentum = i ? 0.5f : 0.25f }, &y));
        EQ_TEST_OK(eq_graph_channel_equilibrium(c.graph, y, "ce",
                                                &(struct eq_equilibrium_params){ .momentum = i ? 0.125f : 0.25f }, &y));
        EQ_TEST_OK(eq_graph_output(c.graph, y, "y"));
        EQ_TEST_OK(eq_weights_create(c.device, c.graph, &c.weights));
        EQ_TEST_OK(eq_session_create(c.weights, c.graph, &(struct eq_session_params){ .training = true }, &c.session));
        EQ_TEST_OK(eq_session_write(c.session, "x", values));
        EQ_TEST_OK(eq_session_run(c.session));
        EQ_TEST_OK(eq_weights_read(c.weights, "bn.running_mean", mean[i]));
        EQ_TEST_OK(eq_weights_read(c.weights, "ce.running_mean", ce_mean[i]));
        EQ_TEST_OK(eq_weights_read(c.weights, "ce.AR.running_scale", &scale[i]));
        close_caller(&c);
    }
    for (int k = 0; k < 8; k++) { // powers of 2: exact
        ck_assert_msg(mean[1][k] == 2 * mean[0][k] && mean[0][k] != 0, "mean %g and %g", (double)mean[0][k],
                      (double)mean[1][k]);
        ck_assert_msg(2 * ce_mean[1][k] == ce_mean[0][k], "CE's mean %g and %g", (double)ce_mean[0][k], (double)ce_mean[1][k]);
    }
    ck_assert_msg(2 * scale[1] == scale[0] && scale[0] > 0, "running_scale %g and %g", (double)scale[0], (double)scale[1]);
    free(values);
}
END_TEST

START_TEST(test_session_refused)
{
    struct caller c;
    struct eq_session *session = NULL;
    eq_value x, y;
    open_caller(&c, false);
    build_network(&c, "ce-resnet20", true);
    make_session(&c, &(struct eq_session_params){ .training = true, .differentiate = c.loss });
    const struct eq_session_params bad[] = {
        { .differentiate = c.loss },                         // evaluation
        { .training = true, .differentiate = c.logits - 1 }, // no name
        { .training = true, .differentiate = 100000 },
        { .training = true, .recompute = true },
        { .training = true, .input_gradients = true },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_msg(eq_session_create(c.weights, c.graph, &bad[i], &session) == EQ_ERR_ARGUMENT, "case %zu: %s", i,
                      eq_last_error());
        ck_assert_ptr_null(session);
    }
    struct eq_graph *other;
    EQ_TEST_OK(eq_graph_create(&other));
    EQ_TEST_OK(eq_graph_input(other, "x", 1, 8, 4, 4, &x));
    EQ_TEST_OK(eq_graph_conv2d(other, x, "elsewhere", &(struct eq_conv2d_params){ 8, 1, 1 }, &y));
    EQ_TEST_OK(eq_graph_output(other, y, "y"));
    ck_assert_int_eq(eq_session_create(c.weights, other, NULL, &session), EQ_ERR_NOT_FOUND);
    ck_assert_msg(strstr(eq_last_error(), "elsewhere.weight"), "%s", eq_last_error());
    eq_graph_destroy(&other);
    // A filter of the other shape, with as many numbers.
    EQ_TEST_OK(eq_graph_create(&other));
    EQ_TEST_OK(eq_graph_input(other, "x", 1, 32, 4, 4, &x));
    EQ_TEST_OK(eq_graph_conv2d(other, x, "layer2.0.downsample.0", &(struct eq_conv2d_params){ 16, 1, 1 }, &y));
    EQ_TEST_OK(eq_graph_output(other, y, "y"));
    ck_assert_int_eq(eq_session_create(c.weights, other, NULL, &session), EQ_ERR_SHAPE);
    ck_assert_msg(strstr(eq_last_error(), "downsample.0.weight is [32, 16, 1, 1] in the weights, [16, 32, 1, 1] in the graph"),
                  "%s", eq_last_error());
    eq_graph_destroy(&other);
    // The filter of the stem on what is no image, but an activation in blocks of channels.
    EQ_TEST_OK(eq_graph_create(&other));
    EQ_TEST_OK(eq_graph_input(other, "x", 1, 3, 8, 8, &x));
    EQ_TEST_OK(eq_graph_activation(other, x, EQ_RELU, &x));
    EQ_TEST_OK(eq_graph_conv2d(other, x, "conv1", &(struct eq_conv2d_params){ 16, 3, 3, .pad_h = 1, .pad_w = 1 }, &y));
    EQ_TEST_OK(eq_graph_output(other, y, "y"));
    ck_assert_int_eq(eq_session_create(c.weights, other, NULL, &session), EQ_ERR_SHAPE);
    ck_assert_msg(strstr(eq_last_error(), "conv1.weight: stored in blocks of "), "%s", eq_last_error());
    eq_graph_destroy(&other);
    close_caller(&c);
}
END_TEST

// y = conv(x) of images that only a convolution reads: the one form in which the gradient of an image lies as a caller's dense
// memory does.
static void build_filter(struct caller *c, bool with_other)
{
    eq_value x, y;
    EQ_TEST_OK(eq_graph_create(&c->graph));
    EQ_TEST_OK(eq_graph_input(c->graph, "x", N, 3, SIZE, SIZE, &x));
    EQ_TEST_OK(eq_graph_conv2d(c->graph, x, "conv", &(struct eq_conv2d_params){ 5, 3, 3 }, &y));
    if (with_other)
        EQ_TEST_OK(eq_graph_conv2d(c->graph, y, "other", &(struct eq_conv2d_params){ 5, 1, 1 }, &y));
    EQ_TEST_OK(eq_graph_output(c->graph, y, "y"));
    c->logits = y;
}
enum { FILTERED = N * 5 * (SIZE - 2) * (SIZE - 2) };

START_TEST(test_halves)
{
    struct caller c;
    float *x = eq_check_uniform("x", ELEMS, 1), *outer = eq_check_uniform("dy", FILTERED, 2), *want = malloc(ELEMS * 4),
          *got = malloc(ELEMS * 4);
    open_caller(&c, false);
    build_filter(&c, false);
    make_session(&c, &(struct eq_session_params){ .training = true, .differentiate = c.logits, .input_gradients = true });
    // what was never given
    ck_assert_int_eq(eq_session_forward(c.session), EQ_ERR_ARGUMENT);
    ck_assert_msg(strstr(eq_last_error(), "'x' was neither written nor bound"), "%s", eq_last_error());
    EQ_TEST_OK(eq_session_write(c.session, "x", x));
    ck_assert_int_eq(eq_session_run(c.session), EQ_ERR_ARGUMENT);
    ck_assert_msg(strstr(eq_last_error(), "'grad.y' was neither"), "%s", eq_last_error());
    EQ_TEST_OK(eq_session_forward(c.session));
    ck_assert_int_eq(eq_session_read(c.session, "grad.x", want), EQ_ERR_ARGUMENT);
    ck_assert_msg(strstr(eq_last_error(), "not run backward"), "%s", eq_last_error());
    EQ_TEST_OK(eq_session_write(c.session, "grad.y", outer));
    EQ_TEST_OK(eq_session_backward(c.session));
    EQ_TEST_OK(eq_session_read(c.session, "grad.x", want));
    // a second one works on what the first left
    ck_assert_int_eq(eq_session_backward(c.session), EQ_ERR_ARGUMENT);
    ck_assert_msg(strstr(eq_last_error(), "each after its own"), "%s", eq_last_error());
    EQ_TEST_OK(eq_session_run(c.session));
    ck_assert_int_eq(eq_session_backward(c.session), EQ_ERR_ARGUMENT);
    // the gradient in the caller's memory
    cl_mem memory = make_memory(&c, ELEMS * 4, NULL);
    EQ_TEST_OK(eq_session_bind(c.session, "grad.x", &(struct eq_opencl_view){ .memory = memory }));
    EQ_TEST_OK(eq_session_forward(c.session));
    EQ_TEST_OK(eq_session_backward(c.session));
    read_memory(&c, memory, ELEMS * 4, got);
    ck_assert_msg(memcmp(got, want, ELEMS * 4) == 0, "another gradient in the caller's memory");
    clReleaseMemObject(memory);
    close_caller(&c);
    free(x);
    free(outer);
    free(want);
    free(got);
}
END_TEST

// An update moves what the session was run backward for, and not by another session's gradients.
START_TEST(test_part_update)
{
    const struct eq_sgd_params sgd = { .rate = 0.1f };
    struct caller whole, part;
    float *x = eq_check_uniform("x", ELEMS, 1), *outer = eq_check_uniform("dy", FILTERED, 2), before[25], after[25],
          filter[135], moved[135];
    open_caller(&whole, false);
    build_filter(&whole, true);
    const struct eq_session_params params = { .training = true, .differentiate = whole.logits };
    make_session(&whole, &params);
    build_filter(&part, false);
    const struct eq_session_params part_params = { .training = true, .differentiate = part.logits };
    EQ_TEST_OK(eq_session_create(whole.weights, part.graph, &part_params, &part.session));
    struct eq_session *const sessions[] = { whole.session, part.session };
    for (int i = 0; i < 2; i++) {
        EQ_TEST_OK(eq_session_write(sessions[i], "x", x));
        EQ_TEST_OK(eq_session_write(sessions[i], "grad.y", outer));
        EQ_TEST_OK(eq_session_run(sessions[i]));
        EQ_TEST_OK(eq_weights_read_gradient(whole.weights, "other.weight", before));
        for (int k = 0; k < 25; k++)
            ck_assert_msg((before[k] == 0) == (i == 1), "session %d leaves the gradient %g", i, (double)before[k]);
    }
    EQ_TEST_OK(eq_weights_read(whole.weights, "other.weight", before));
    EQ_TEST_OK(eq_weights_read(whole.weights, "conv.weight", filter));
    EQ_TEST_OK(eq_session_update(part.session, &sgd));
    EQ_TEST_OK(eq_weights_read(whole.weights, "other.weight", after));
    EQ_TEST_OK(eq_weights_read(whole.weights, "conv.weight", moved));
    ck_assert_msg(memcmp(before, after, sizeof before) == 0, "the other session's parameter was moved");
    ck_assert(memcmp(filter, moved, sizeof filter) != 0);
    eq_session_destroy(&part.session);
    eq_graph_destroy(&part.graph);
    close_caller(&whole);
    free(x);
    free(outer);
}
END_TEST

// Names of gradients and of the workspace are the session's: a graph's own may not be the same.
START_TEST(test_names)
{
    struct caller c;
    struct eq_session *session;
    eq_value x, y, extra, z;
    float *values = eq_check_uniform("x", N * 128, 1);
    open_caller(&c, false);
    EQ_TEST_OK(eq_graph_create(&c.graph));
    EQ_TEST_OK(eq_graph_input(c.graph, "x", N, 8, 4, 4, &x));
    EQ_TEST_OK(eq_graph_input(c.graph, "grad.y", N, 8, 4, 4, &extra));
    EQ_TEST_OK(eq_graph_add(c.graph, x, extra, &y));
    EQ_TEST_OK(eq_graph_activation(c.graph, y, EQ_ELU, &y));
    EQ_TEST_OK(eq_graph_output(c.graph, y, "y"));
    EQ_TEST_OK(eq_graph_activation(c.graph, extra, EQ_RELU, &z));
    EQ_TEST_OK(eq_graph_output(c.graph, z, "workspace"));
    make_session(&c, NULL);
    EQ_TEST_OK(eq_session_write(c.session, "grad.y", values));
    const struct eq_session_params params = { .training = true, .differentiate = y, .input_gradients = true };
    ck_assert_int_eq(eq_session_create(c.weights, c.graph, &params, &session), EQ_ERR_ARGUMENT);
    ck_assert_msg(strstr(eq_last_error(), "'grad.y'"), "%s", eq_last_error());
    ck_assert_ptr_null(session);
    ck_assert_int_eq(eq_session_create_unbound(c.device, c.graph, NULL, &session), EQ_ERR_ARGUMENT);
    ck_assert_msg(strstr(eq_last_error(), "'workspace'"), "%s", eq_last_error());
    ck_assert_ptr_null(session);
    close_caller(&c);
    // an input that nothing reads
    open_caller(&c, false);
    EQ_TEST_OK(eq_graph_create(&c.graph));
    EQ_TEST_OK(eq_graph_input(c.graph, "x", N, 8, 4, 4, &x));
    EQ_TEST_OK(eq_graph_input(c.graph, "unread", N, 8, 4, 4, &extra));
    EQ_TEST_OK(eq_graph_activation(c.graph, x, EQ_ELU, &y));
    EQ_TEST_OK(eq_graph_output(c.graph, y, "y"));
    make_session(&c, NULL);
    ck_assert_int_eq(eq_session_write(c.session, "unread", values), EQ_ERR_NOT_FOUND);
    ck_assert_msg(strstr(eq_last_error(), "nothing in the graph reads the input 'unread'"), "%s", eq_last_error());
    const struct eq_session_params gradients = { .training = true, .differentiate = y, .input_gradients = true };
    ck_assert_int_eq(eq_session_create(c.weights, c.graph, &gradients, &session), EQ_ERR_ARGUMENT);
    ck_assert_msg(strstr(eq_last_error(), "unread"), "%s", eq_last_error());
    close_caller(&c);
    free(values);
}
END_TEST

// An evaluation of weights that were never trained, not even when a part of the network without gates was.
START_TEST(test_untrained)
{
    static const struct eq_conv2d_params conv = { .out_channels = 16, .kernel_h = 3, .kernel_w = 3, .pad_h = 1, .pad_w = 1 };
    struct caller c;
    struct eq_graph *part;
    struct eq_session *stem;
    eq_value x;
    float *images = eq_check_uniform("images", ELEMS, 1);
    open_caller(&c, false);
    build_network(&c, "ce-resnet20", false);
    make_session(&c, NULL);
    EQ_TEST_OK(eq_weights_initialise(c.weights, 1));
    EQ_TEST_OK(eq_graph_create(&part));
    EQ_TEST_OK(eq_graph_input(part, "images", N, 3, SIZE, SIZE, &x));
    EQ_TEST_OK(eq_graph_conv2d(part, x, "conv1", &conv, &x));
    EQ_TEST_OK(eq_graph_batch_norm(part, x, "bn1", NULL, &x));
    EQ_TEST_OK(eq_graph_output(part, x, "y"));
    // the part has no such scale
    EQ_TEST_OK(eq_session_create(c.weights, part, NULL, &stem));
    EQ_TEST_OK(eq_session_write(stem, "images", images));
    EQ_TEST_OK(eq_session_run(stem));
    eq_session_destroy(&stem);
    EQ_TEST_OK(eq_session_create(c.weights, part, &(struct eq_session_params){ .training = true }, &stem));
    EQ_TEST_OK(eq_session_write(stem, "images", images));
    for (int round = 0; round < 2; round++) {
        ck_assert_int_eq(eq_session_run(c.session), EQ_ERR_NUMERIC);
        ck_assert_msg(strstr(eq_last_error(), "running_scale is 0"), "%s", eq_last_error());
        EQ_TEST_OK(eq_session_run(stem));
    }
    eq_session_destroy(&stem);
    eq_graph_destroy(&part);
    close_caller(&c);
    free(images);
}
END_TEST

// Weights saved to a file and loaded from memory are the same, whichever graph they are for.
START_TEST(test_load_memory)
{
    struct caller c;
    struct eq_weights *loaded;
    struct eq_tensors *file;
    char folder[] = "/tmp/equil-session-XXXXXX", path[64], *data;
    size_t bytes;
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/w", folder);
    open_caller(&c, false);
    build_network(&c, "ce-resnet20", true);
    make_session(&c, NULL);
    EQ_TEST_OK(eq_weights_save(c.weights, path, NULL, 0));
    EQ_TEST_OK(eq_file_read(path, 1 << 26, &data, &bytes));
    remove(path);
    remove(folder);
    EQ_TEST_OK(eq_weights_create(c.device, c.graph, &loaded));
    EQ_TEST_OK(eq_tensors_open_memory("memory", data, bytes, &file));
    EQ_TEST_OK(eq_weights_load_tensors(loaded, file, false, 0));
    eq_tensors_close(&file);
    free(data);
    for (int i = 0; i < eq_weights_num(c.weights); i++) {
        const struct eq_weights_tensor t = eq_weights_at(c.weights, i);
        float *a = malloc(t.elems * sizeof *a), *b = malloc(t.elems * sizeof *b);
        EQ_TEST_OK(eq_weights_read(c.weights, t.name, a));
        EQ_TEST_OK(eq_weights_read(loaded, t.name, b));
        ck_assert_msg(memcmp(a, b, t.elems * sizeof *a) == 0, "%s differs", t.name);
        free(a);
        free(b);
    }
    eq_weights_destroy(&loaded);
    close_caller(&c);
}
END_TEST

// ---- Channel Equilibrium alone

enum { BC = 20, BH = 6, BLOCK_ELEMS = N * BC * BH * BH, MAX_TENSORS = 64 };

// A caller's memory for a name of an unbound session.
struct tensor {
    char name[64];
    size_t elems;
    cl_mem memory;
};

static void bind_tensor(const struct caller *c, struct tensor *t, const char *name, size_t elems, const float *values,
                        enum eq_opencl_layout layout)
{
    *t = (struct tensor){ .elems = elems, .memory = make_memory(c, elems * 4, values) };
    snprintf(t->name, sizeof t->name, "%s", name);
    EQ_TEST_OK(eq_session_bind(c->session, name, &(struct eq_opencl_view){ .memory = t->memory, .layout = layout }));
}

static void check_tensor(const struct caller *c, const struct tensor *t, const float *want, bool may_be_zero)
{
    float *got = malloc(t->elems * sizeof *got), size = 0;
    size_t at = 0;
    read_memory(c, t->memory, t->elems * sizeof *got, got);
    for (size_t i = 0; i < t->elems; i++)
        size = fmaxf(size, fabsf(want[i]));
    while (at < t->elems - 1 && memcmp(&got[at], &want[at], 4) == 0)
        at++;
    ck_assert_msg(size > 0 || may_be_zero, "%s is 0", t->name);
    ck_assert_msg(memcmp(&got[at], &want[at], 4) == 0, "%s: element %zu is %.9g, not %.9g", t->name, at, (double)got[at],
                  (double)want[at]);
    free(got);
}

static void to_layout(const float *nchw, enum eq_opencl_layout layout, float *out)
{
    for (int i = 0; i < BLOCK_ELEMS; i++) {
        const int pixel = i % (BH * BH), c = i / (BH * BH) % BC, n = i / (BH * BH) / BC;
        out[layout == EQ_NHWC ? (n * BH * BH + pixel) * BC + c : i] = nchw[i];
    }
}

// The block over the caller's memory gives the bits of a session with weights: results, gradients and running statistics.
START_TEST(test_block)
{
    const enum eq_opencl_layout layout = _i & 1 ? EQ_NHWC : EQ_NCHW;
    const bool training = _i & 2;
    float *x = eq_check_uniform("x", BLOCK_ELEMS, 1), *outer = eq_check_uniform("dy", BLOCK_ELEMS, 2),
          *laid = malloc(BLOCK_ELEMS * 4), *want = malloc(BLOCK_ELEMS * 4);
    struct caller a, b;
    struct tensor tensors[MAX_TENSORS];
    int num = 0;
    cl_event gate;
    eq_value in, y;
    open_caller(&a, false);
    EQ_TEST_OK(eq_graph_create(&a.graph));
    EQ_TEST_OK(eq_graph_input(a.graph, "x", N, BC, BH, BH, &in));
    EQ_TEST_OK(eq_graph_batch_norm(a.graph, in, "bn", NULL, &y));
    EQ_TEST_OK(eq_graph_channel_equilibrium(a.graph, y, "ce", NULL, &y));
    EQ_TEST_OK(eq_graph_output(a.graph, y, "y"));
    make_session(&a, &(struct eq_session_params){
                         .training = training, .differentiate = training ? y : 0, .input_gradients = training });
    open_caller(&b, false);
    const struct eq_ce_block_params params = { .n = N, .c = BC, .h = BH, .w = BH, .training = training };
    EQ_TEST_OK(eq_session_create_ce_block(b.device, &params, &b.session));
    const size_t workspace = eq_session_workspace_bytes(b.session);
    ck_assert(workspace > 0);
    ck_assert_int_eq(eq_session_forward(b.session), EQ_ERR_ARGUMENT);
    ck_assert_msg(strstr(eq_last_error(), "has no memory"), "%s", eq_last_error());
    bind_tensor(&b, &tensors[num++], "workspace", workspace / 4, NULL, EQ_NCHW);
    for (int i = 0; i < eq_weights_num(a.weights); i++) {
        const struct eq_weights_tensor t = eq_weights_at(a.weights, i);
        char name[80];
        float *values = malloc(t.elems * sizeof *values);
        EQ_TEST_OK(eq_weights_read(a.weights, t.name, values));
        bind_tensor(&b, &tensors[num++], t.name, t.elems, values, EQ_NCHW);
        snprintf(name, sizeof name, "grad.%s", t.name);
        if (training && t.is_parameter)
            bind_tensor(&b, &tensors[num++], name, t.elems, NULL, EQ_NCHW);
        free(values);
    }
    to_layout(x, layout, laid);
    bind_tensor(&b, &tensors[num++], "x", BLOCK_ELEMS, laid, layout);
    struct tensor *result = &tensors[num++];
    bind_tensor(&b, result, "y", BLOCK_ELEMS, NULL, layout);
    bind_tensor(&b, &tensors[num++], "workspace", workspace / 4, NULL, EQ_NCHW); // moves under what is bound by now
    EQ_TEST_OK(eq_session_write(a.session, "x", x));
    EQ_TEST_OK(eq_session_forward(a.session));
    // enqueuing does not wait for an event that is held back
    gate = clCreateUserEvent(b.context, NULL);
    EQ_TEST_OK(eq_session_enqueue(b.session, EQ_SESSION_FORWARD, &gate, 1, NULL));
    ck_assert_int_eq(clSetUserEventStatus(gate, CL_COMPLETE), CL_SUCCESS);
    clReleaseEvent(gate);
    EQ_TEST_OK(eq_session_read(a.session, "y", want));
    to_layout(want, layout, laid);
    check_tensor(&b, result, laid, false);
    if (training) {
        to_layout(outer, layout, laid);
        bind_tensor(&b, &tensors[num++], "grad.y", BLOCK_ELEMS, laid, layout);
        bind_tensor(&b, &tensors[num++], "grad.x", BLOCK_ELEMS, NULL, layout);
        EQ_TEST_OK(eq_session_write(a.session, "grad.y", outer));
        EQ_TEST_OK(eq_session_backward(a.session));
        EQ_TEST_OK(eq_session_backward(b.session));
        EQ_TEST_OK(eq_session_read(a.session, "grad.x", want));
        to_layout(want, layout, laid);
        check_tensor(&b, &tensors[num - 1], laid, false);
    }
    for (int i = 0; i < num; i++) {
        const char *name = tensors[i].name;
        const bool is_gradient = strncmp(name, "grad.", 5) == 0;
        float *values = calloc(tensors[i].elems, sizeof *values);
        if (strchr(is_gradient ? name + 5 : name, '.')) {
            EQ_TEST_OK(is_gradient ? eq_weights_read_gradient(a.weights, name + 5, values)
                                   : eq_weights_read(a.weights, name, values));
            // what starts at 0 and stays there; the mean of what batch norm made is rounding, if anything
            const bool may_be_zero = strcmp(name, "ce.x_weight") == 0 || strcmp(name, "ce.running_mean") == 0 ||
                                     (!is_gradient && strstr(name, "bias")) || (!training && strstr(name, "mean"));
            check_tensor(&b, &tensors[i], values, may_be_zero);
        }
        clReleaseMemObject(tensors[i].memory);
        free(values);
    }
    close_caller(&a);
    close_caller(&b);
    free(x);
    free(outer);
    free(laid);
    free(want);
}
END_TEST

EQ_TEST_MAIN("session_train", { test_outer_gradient, 4 }, { test_input_gradient, 0 }, { test_training, 2 },
             { test_held_back, 2 }, { test_momenta, 0 }, { test_session_refused, 0 }, { test_halves, 0 },
             { test_part_update, 0 }, { test_names, 0 }, { test_untrained, 0 }, { test_load_memory, 0 }, { test_block, 4 })

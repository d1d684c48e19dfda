// Sessions: a compiled graph over weights, with its inputs and outputs by name.
#include "equil/session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "equil/opencl.h"
#include "train/weights.h"

enum { NUM_HYPER = 4 }; // as eq_sgd_emit() wants them

struct eq_session {
    struct eq_device *device;
    struct eq_weights *weights; // NULL: the caller's memory
    struct eq_graph *graph;     // of its own, or NULL
    struct eq_exec *exec;
    bool training, has_gradients, has_run, has_run_backward;
    bool has_kept;              // the last run was a forward half: what it kept is there for one backward half
    int *others, num_others;    // entries of the weights, of parameters that the graph does not have
    struct eq_list *update; // NULL: not made yet
    struct eq_buffer *hyper;
};

static eq_status check_differentiate(const struct eq_graph *graph, const struct eq_session_params *params)
{
    const eq_value value = params->differentiate;
    if (value == 0) {
        EQ_REQUIRE(!params->input_gradients && !params->recompute, EQ_ERR_ARGUMENT, "%s is for sessions that differentiate",
                   params->input_gradients ? "input_gradients" : "recompute");
        return EQ_OK;
    }
    EQ_REQUIRE(params->training, EQ_ERR_ARGUMENT, "only training is differentiated: evaluation has its norms folded");
    EQ_REQUIRE(value > 0 && value < graph->num_values, EQ_ERR_ARGUMENT, "value %d is not one of the graph's %d", value,
               graph->num_values);
    EQ_REQUIRE(graph->values[value].is_output, EQ_ERR_ARGUMENT, "value %d is differentiated, but no output: it has no name",
               value);
    return EQ_OK;
}

static eq_status find_others(struct eq_session *session)
{
    const struct eq_store *store = session->weights->store;
    EQ_ALLOC(session->others, eq_store_num_entries(store) + 1);
    for (int i = 0; i < eq_store_num_entries(store); i++) {
        const struct eq_store_entry *entry = eq_store_entry(store, i);
        if (entry->kind == EQ_VALUE_PARAMETER && !eq_exec_has_tensor(session->exec, entry->name))
            session->others[session->num_others++] = i;
    }
    return EQ_OK;
}

static eq_status fill_session(struct eq_session *session, const struct eq_graph *graph, const struct eq_session_params *params)
{
    EQ_TRY(check_differentiate(graph, params));
    session->training = params->training;
    session->has_gradients = params->differentiate != 0;
    if (session->has_gradients && session->weights)
        EQ_TRY(eq_weights_add_training(session->weights));
    const struct eq_compile_params compile = { .training = params->training,
                                               .loss = session->has_gradients ? params->differentiate : EQ_NO_VALUE,
                                               .input_gradients = params->input_gradients,
                                               .recompute = params->recompute };
    struct eq_store *store = session->weights ? session->weights->store : NULL;
    EQ_TRY(eq_exec_create(session->device, store, graph, &compile, &session->exec));
    return session->has_gradients && store ? find_others(session) : EQ_OK;
}

static eq_status make_session(struct eq_device *device, struct eq_weights *weights, const struct eq_graph *graph,
                              const struct eq_session_params *params, struct eq_session **session)
{
    static const struct eq_session_params defaults;
    EQ_ALLOC(*session, 1);
    (*session)->device = device;
    (*session)->weights = weights;
    eq_status status = fill_session(*session, graph, params ? params : &defaults);
    if (status != EQ_OK)
        eq_session_destroy(session);
    return status;
}

eq_status eq_session_create(struct eq_weights *weights, const struct eq_graph *graph, const struct eq_session_params *params,
                            struct eq_session **session)
{
    return make_session(weights->device, weights, graph, params, session);
}

eq_status eq_session_create_unbound(struct eq_device *device, const struct eq_graph *graph,
                                    const struct eq_session_params *params, struct eq_session **session)
{
    return make_session(device, NULL, graph, params, session);
}

static eq_status build_block(const struct eq_ce_block_params *params, struct eq_graph *graph, eq_value *y)
{
    eq_value x, normal;
    EQ_TRY(eq_graph_input(graph, "x", params->n, params->c, params->h, params->w, &x));
    EQ_TRY(eq_graph_batch_norm(graph, x, "bn", &params->norm, &normal));
    EQ_TRY(eq_graph_channel_equilibrium(graph, normal, "ce", &params->equilibrium, y));
    return eq_graph_output(graph, *y, "y");
}

eq_status eq_session_create_ce_block(struct eq_device *device, const struct eq_ce_block_params *params,
                                     struct eq_session **session)
{
    struct eq_graph *graph;
    eq_value y = 0;
    *session = NULL;
    EQ_TRY(eq_graph_create(&graph));
    eq_status status = build_block(params, graph, &y);
    const struct eq_session_params differentiated = { .training = params->training,
                                                      .input_gradients = params->training,
                                                      .differentiate = params->training ? y : 0 };
    if (status == EQ_OK)
        status = eq_session_create_unbound(device, graph, &differentiated, session);
    if (status == EQ_OK)
        (*session)->graph = graph;
    else
        eq_graph_destroy(&graph);
    return status;
}

void eq_session_destroy(struct eq_session **session)
{
    if (!*session)
        return;
    eq_list_destroy(&(*session)->update);
    eq_buffer_destroy(&(*session)->hyper);
    eq_exec_destroy(&(*session)->exec);
    eq_graph_destroy(&(*session)->graph);
    free((*session)->others);
    free(*session);
    *session = NULL;
}

size_t eq_session_bytes(const struct eq_session *session)
{
    return eq_exec_bytes(session->exec);
}

size_t eq_session_workspace_bytes(const struct eq_session *session)
{
    return eq_exec_workspace_bytes(session->exec);
}

// ---- inputs and outputs

// A place that the host can read or write.
static eq_status find_place(const struct eq_session *session, const char *name, struct eq_exec_place *place)
{
    EQ_TRY(eq_exec_find_name(session->exec, name, place));
    EQ_REQUIRE(eq_exec_has_memory(session->exec, place), EQ_ERR_ARGUMENT, "'%s' has no memory that could be read or written",
               name);
    return EQ_OK;
}

eq_status eq_session_write(struct eq_session *session, const char *name, const void *values)
{
    struct eq_exec_place place;
    EQ_TRY(find_place(session, name, &place));
    EQ_REQUIRE(place.is_input, EQ_ERR_ARGUMENT, "'%s' is an output: runs write it", name);
    EQ_REQUIRE(!eq_exec_is_bound(session->exec, &place), EQ_ERR_ARGUMENT, "'%s' is bound to memory of its own: write there",
               name);
    return eq_exec_write_place(session->exec, &place, values);
}

eq_status eq_session_read(struct eq_session *session, const char *name, void *values)
{
    struct eq_exec_place place;
    EQ_TRY(find_place(session, name, &place));
    EQ_REQUIRE(place.is_input || session->has_run, EQ_ERR_ARGUMENT, "'%s' is an output, and the session was not run yet", name);
    EQ_REQUIRE(place.is_input || !place.is_gradient || session->has_run_backward, EQ_ERR_ARGUMENT,
               "'%s' is a gradient, and the session was not run backward yet", name);
    return eq_exec_read_place(session->exec, &place, values);
}

eq_status eq_session_describe(const struct eq_session *session, const char *name, struct eq_session_tensor *tensor)
{
    struct eq_exec_place place;
    EQ_TRY(eq_exec_find_name(session->exec, name, &place));
    *tensor = (struct eq_session_tensor){ .rank = place.rank, .is_int32 = place.dtype == EQ_I32, .is_input = place.is_input };
    memcpy(tensor->shape, place.shape, sizeof tensor->shape);
    return EQ_OK;
}

// The layout's strides where none is given.
static void fill_strides(const struct eq_opencl_view *view, const int shape[4], size_t stride[4])
{
    const size_t c = (size_t)shape[1], h = (size_t)shape[2], w = (size_t)shape[3];
    const bool is_given = view->stride[0] || view->stride[1] || view->stride[2] || view->stride[3];
    const size_t nchw[] = { c * h * w, h * w, w, 1 }, nhwc[] = { h * w * c, 1, w * c, c };
    for (int d = 0; d < 4; d++)
        stride[d] = is_given ? view->stride[d] : view->layout == EQ_NHWC ? nhwc[d] : nchw[d];
}

eq_status eq_session_bind(struct eq_session *session, const char *name, const struct eq_opencl_view *view)
{
    static const struct eq_opencl_view none;
    static const enum eq_view_type types[] = { [EQ_OPENCL_F32] = EQ_VIEW_WORD,
                                               [EQ_OPENCL_F16] = EQ_VIEW_F16,
                                               [EQ_OPENCL_U8] = EQ_VIEW_U8,
                                               [EQ_OPENCL_I32] = EQ_VIEW_WORD };
    struct eq_exec_place place;
    view = view ? view : &none;
    EQ_TRY(eq_exec_find_name(session->exec, name, &place));
    EQ_REQUIRE(view->type >= EQ_OPENCL_F32 && view->type <= EQ_OPENCL_I32, EQ_ERR_ARGUMENT, "'%s': type %d is none", name,
               (int)view->type);
    EQ_REQUIRE(view->layout == EQ_NCHW || view->layout == EQ_NHWC, EQ_ERR_ARGUMENT, "'%s': layout %d is none", name,
               (int)view->layout);
    EQ_REQUIRE(!view->memory || (view->type == EQ_OPENCL_I32) == (place.dtype == EQ_I32), EQ_ERR_ARGUMENT,
               "'%s' is %s: the memory says otherwise", name, place.dtype == EQ_I32 ? "int32" : "of floats");
    const size_t elem_bytes = eq_view_bytes(types[view->type]);
    EQ_REQUIRE(view->offset_bytes % elem_bytes == 0, EQ_ERR_ARGUMENT,
               "'%s': byte %zu is in the middle of an element of %zu bytes", name, view->offset_bytes, elem_bytes);
    struct eq_exec_memory memory = { .mem = view->memory,
                                     .type = types[view->type],
                                     .offset = view->offset_bytes / elem_bytes,
                                     .scale = view->scale,
                                     .shift = view->shift };
    fill_strides(view, place.shape, memory.stride);
    eq_status status = eq_exec_bind(session->exec, &place, &memory);
    return status == EQ_OK ? EQ_OK : eq_fail(status, "'%s': %s", name, eq_last_error());
}

// ---- running

static eq_status check_part(const struct eq_session *session, enum eq_session_part part)
{
    EQ_REQUIRE(part >= EQ_SESSION_ALL && part <= EQ_SESSION_BACKWARD, EQ_ERR_ARGUMENT, "part %d of a run", (int)part);
    EQ_REQUIRE(part != EQ_SESSION_BACKWARD || session->has_gradients, EQ_ERR_ARGUMENT, "the session does not differentiate");
    EQ_REQUIRE(part != EQ_SESSION_BACKWARD || session->has_kept, EQ_ERR_ARGUMENT, "backward comes after a forward half%s",
               session->has_run_backward ? ", each after its own: it uses up what that kept" : "");
    return EQ_OK;
}

// Gradients of a run are of its graph; those that the weights have of other parameters are an earlier run's.
static eq_status clear_others(struct eq_session *session)
{
    const struct eq_store *store = session->weights->store;
    for (int i = 0; i < session->num_others; i++) {
        const struct eq_store_entry *entry = eq_store_entry(store, session->others[i]);
        EQ_TRY(eq_ref_fill(eq_store_ref(store, entry, EQ_STORE_GRADIENT), 0.0f, eq_tensor_elems(&entry->tensor)));
    }
    return EQ_OK;
}

static eq_status run_part(struct eq_session *session, enum eq_session_part part)
{
    if (part != EQ_SESSION_FORWARD && session->weights)
        EQ_TRY(clear_others(session));
    session->has_kept = false;
    if (part == EQ_SESSION_ALL)
        return eq_exec_run(session->exec);
    EQ_TRY(eq_exec_run_part(session->exec, part == EQ_SESSION_FORWARD ? EQ_EXEC_FORWARD : EQ_EXEC_BACKWARD));
    session->has_kept = part == EQ_SESSION_FORWARD;
    return EQ_OK;
}

eq_status eq_session_enqueue(struct eq_session *session, enum eq_session_part part, const cl_event *wait_for, int num_wait_for,
                             cl_event *event)
{
    if (event)
        *event = NULL;
    EQ_REQUIRE(num_wait_for >= 0 && (num_wait_for == 0 || wait_for), EQ_ERR_ARGUMENT, "a list of %d events", num_wait_for);
    EQ_TRY(check_part(session, part));
    if (!session->training && session->weights)
        EQ_TRY(eq_weights_check_scales(session->weights, session->exec));
    if (part != EQ_SESSION_BACKWARD)
        EQ_TRY(eq_exec_check_ready(session->exec, EQ_EXEC_FORWARD));
    if (part == EQ_SESSION_BACKWARD || (part == EQ_SESSION_ALL && session->has_gradients))
        EQ_TRY(eq_exec_check_ready(session->exec, EQ_EXEC_BACKWARD));
    EQ_TRY(eq_device_wait_for(session->device, wait_for, (cl_uint)num_wait_for));
    const eq_status status = run_part(session, part);
    if (status != EQ_OK && session->training && session->weights)
        eq_store_touch(session->weights->store); // running statistics may have moved
    EQ_TRY(status);
    session->has_run = true;
    if (session->has_gradients && part != EQ_SESSION_FORWARD) {
        session->has_run_backward = true;
        if (session->weights)
            session->weights->has_gradients = true;
    }
    if (session->training && session->weights && part != EQ_SESSION_BACKWARD)
        eq_weights_touched(session->weights, session->exec, 1);
    return event ? eq_device_signal(session->device, event) : EQ_OK;
}

eq_status eq_session_run(struct eq_session *session)
{
    return eq_session_enqueue(session, EQ_SESSION_ALL, NULL, 0, NULL);
}

eq_status eq_session_forward(struct eq_session *session)
{
    return eq_session_enqueue(session, EQ_SESSION_FORWARD, NULL, 0, NULL);
}

eq_status eq_session_backward(struct eq_session *session)
{
    return eq_session_enqueue(session, EQ_SESSION_BACKWARD, NULL, 0, NULL);
}

static eq_status make_update(struct eq_session *session)
{
    struct eq_device *device = session->device;
    const float zeros[NUM_HYPER] = { 0 };
    if (session->update)
        return EQ_OK;
    if (!session->hyper)
        EQ_TRY(eq_buffer_create_from(device, zeros, sizeof zeros, &session->hyper));
    EQ_TRY(eq_list_create(device, &session->update));
    eq_status status = eq_store_emit_update(session->weights->store, session->update, eq_ref_at(session->hyper, 0), false);
    if (status != EQ_OK)
        eq_list_destroy(&session->update);
    return status;
}

eq_status eq_session_update(struct eq_session *session, const struct eq_sgd_params *params)
{
    const float hyper[] = { params->rate, params->momentum, params->weight_decay };
    EQ_REQUIRE(session->has_gradients && session->weights, EQ_ERR_ARGUMENT, "the session %s",
               session->weights ? "does not differentiate: there is nothing to update by"
                                : "has no weights of its own to update");
    EQ_REQUIRE(session->has_run_backward, EQ_ERR_ARGUMENT,
               "the session was not run backward before: it has no gradients to update by");
    for (int i = 0; i < 3; i++)
        EQ_REQUIRE(isfinite(hyper[i]) && hyper[i] >= 0, EQ_ERR_ARGUMENT,
                   "learning rate %g, momentum %g, weight decay %g: each must be finite, and not negative", (double)hyper[0],
                   (double)hyper[1], (double)hyper[2]);
    EQ_TRY(make_update(session));
    for (int i = 0; i < 3; i++)
        EQ_TRY(eq_ref_fill(eq_ref_at(session->hyper, (size_t)i), hyper[i], 1));
    const eq_status status = eq_list_run(session->update);
    eq_store_touch(session->weights->store); // some may have changed after a failure, too
    return status;
}

eq_status eq_session_wait(struct eq_session *session)
{
    return eq_device_finish(session->device);
}

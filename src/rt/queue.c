// Order of commands. A queue that is in order keeps it. On one that is not, which only callers bring, every command waits for
// the event of the one before it, and for nothing else: the caller's own commands go on beside them.
#include <stdlib.h>

#include "rt/internal.h"

// As many as ggml asks once more.
enum { MAX_RETRIES = 3 };

static cl_int state_of(cl_event event)
{
    cl_int state = CL_COMPLETE;
    const cl_int code = clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL);
    return code == CL_SUCCESS ? state : CL_COMPLETE;
}

// What waits for a failed command fails as well, or on some drivers never ends. What comes next waits for the command before
// the marker that failed by an event of the caller's, which may still run; where a command failed by itself that one has ended.
// If that one failed, too, by an earlier marker, what ran before it is known to the queue alone. The failure is told by the
// next call that waits for the device.
static void drop_failed(struct eq_device *device)
{
    const cl_int state = device->last ? state_of(device->last) : CL_COMPLETE;
    if (state >= 0)
        return;
    device->failed = state;
    clReleaseEvent(device->last);
    device->last = device->before;
    device->before = NULL;
    if (device->last && state_of(device->last) < 0) {
        clFinish(device->queue);
        clReleaseEvent(device->last);
        device->last = NULL;
    }
}

static cl_int take_failed(struct eq_device *device)
{
    const cl_int failed = device->failed;
    device->failed = CL_SUCCESS;
    return failed;
}

eq_status eq_turn_check(struct eq_device *device)
{
    EQ_CL(take_failed(device), "a command before this one");
    return EQ_OK;
}

struct eq_turn eq_turn_next(struct eq_device *device)
{
    if (!device->is_out_of_order)
        return (struct eq_turn){ 0 };
    drop_failed(device);
    return (struct eq_turn){ device->last ? 1 : 0, device->last ? &device->last : NULL, &device->next };
}

void eq_turn_end(struct eq_device *device)
{
    if (!device->next)
        return;
    if (device->last)
        clReleaseEvent(device->last);
    device->last = device->next;
    device->next = NULL;
}

static cl_int fill(struct eq_device *device, cl_mem mem, float value, size_t at, size_t bytes)
{
    const struct eq_turn turn = eq_turn_next(device);
    const cl_int code = clEnqueueFillBuffer(device->queue, mem, &value, sizeof value, at, bytes, turn.num, turn.wait,
                                            turn.event);
    eq_turn_end(device);
    return code;
}

// The same, far from the memory's beginning: as a part of it, which begins not far before.
static cl_int fill_far(struct eq_device *device, cl_mem mem, float value, size_t at, size_t bytes)
{
    const size_t align = device->limits.origin_bytes > 0 ? device->limits.origin_bytes : 1;
    cl_mem whole = NULL; // a part, which callers may bring, has no parts itself
    size_t first = 0;
    cl_int code = clGetMemObjectInfo(mem, CL_MEM_ASSOCIATED_MEMOBJECT, sizeof whole, (void *)&whole, NULL);
    if (code == CL_SUCCESS)
        code = clGetMemObjectInfo(mem, CL_MEM_OFFSET, sizeof first, &first, NULL);
    if (code != CL_SUCCESS)
        return code;
    at += first;
    const size_t origin = at / align * align;
    const cl_buffer_region region = { origin, at - origin + bytes };
    cl_mem part = clCreateSubBuffer(whole ? whole : mem, 0, CL_BUFFER_CREATE_TYPE_REGION, &region, &code);
    if (code != CL_SUCCESS)
        return code;
    code = fill(device, part, value, at - origin, bytes);
    clReleaseMemObject(part);
    return code;
}

cl_int eq_enqueue_fill(struct eq_device *device, cl_mem mem, float value, size_t at, size_t bytes)
{
    cl_int code = CL_SUCCESS;
    const size_t most = device->limits.fill_bytes;
    for (size_t piece; bytes > 0 && code == CL_SUCCESS; at += piece, bytes -= piece) {
        piece = bytes < most ? bytes : most;
        code = (at + piece > most ? fill_far : fill)(device, mem, value, at, piece);
    }
    return code;
}

static eq_status make_wait_list(const struct eq_device *device, const cl_event *events, cl_uint num, cl_event **list)
{
    *list = eq_malloc((size_t)num + 1, sizeof **list);
    if (!*list)
        return EQ_ERR_HOST_MEMORY;
    for (cl_uint i = 0; i < num; i++)
        (*list)[i] = events[i];
    (*list)[num] = device->last;
    return EQ_OK;
}

eq_status eq_device_wait_for(struct eq_device *device, const cl_event *events, cl_uint num)
{
    cl_event *list;
    if (num == 0)
        return EQ_OK;
    if (!device->is_out_of_order) {
        EQ_CL(clEnqueueBarrierWithWaitList(device->queue, num, events, NULL), "waiting for the caller's events");
        return EQ_OK;
    }
    drop_failed(device);
    EQ_TRY(make_wait_list(device, events, num, &list));
    const cl_int code = clEnqueueMarkerWithWaitList(device->queue, num + (device->last ? 1 : 0), list, &device->next);
    free(list);
    EQ_CL(code, "waiting for the caller's events");
    if (device->before)
        clReleaseEvent(device->before);
    device->before = device->last;
    device->last = NULL;
    eq_turn_end(device);
    return EQ_OK;
}

// An event of the end of what has been enqueued, or NULL.
static cl_int mark(const struct eq_device *device, cl_event *event)
{
    *event = NULL;
    if (!device->is_out_of_order || !device->last)
        return clEnqueueMarkerWithWaitList(device->queue, 0, NULL, event);
    const cl_int code = clRetainEvent(device->last);
    *event = code == CL_SUCCESS ? device->last : NULL;
    return code;
}

eq_status eq_device_signal(struct eq_device *device, cl_event *event)
{
    EQ_CL(mark(device, event), "marking the end of the queue");
    const cl_int code = clFlush(device->queue);
    if (code != CL_SUCCESS) {
        clReleaseEvent(*event);
        *event = NULL;
    }
    EQ_CL(code, "flushing the queue");
    return EQ_OK;
}

// A wait may fail while the command still runs, and uses memory of the host: then the whole queue is waited for, which takes
// no memory.
cl_int eq_event_wait(cl_event event)
{
    cl_command_queue queue = NULL;
    const cl_int code = clWaitForEvents(1, &event);
    if (code != CL_SUCCESS && clGetEventInfo(event, CL_EVENT_COMMAND_QUEUE, sizeof queue, (void *)&queue, NULL) == CL_SUCCESS &&
        queue)
        clFinish(queue);
    return code;
}

// Waits for a marker's event and not with clFinish(): rusticl's (Mesa 22) returns at once for work that clFlush() has handed
// over already.
static cl_int finish(struct eq_device *device, const char **what)
{
    cl_event event;
    drop_failed(device);
    if (device->is_out_of_order && !device->last) {
        *what = "waiting for the device";
        return take_failed(device);
    }
    *what = "marking the end of the queue";
    const cl_int marked = mark(device, &event);
    if (marked != CL_SUCCESS)
        return marked;
    *what = "flushing the queue";
    const cl_int flushed = clFlush(device->queue), waited = eq_event_wait(event);
    clReleaseEvent(event);
    if (flushed != CL_SUCCESS)
        return flushed;
    *what = "waiting for the device";
    drop_failed(device);
    const cl_int failed = take_failed(device);
    return waited != CL_SUCCESS ? waited : failed;
}

eq_status eq_device_finish(struct eq_device *device)
{
    const char *what = "";
    const cl_int code = finish(device, &what);
    EQ_CL(code, what);
    return EQ_OK;
}

void eq_device_settle(struct eq_device *device)
{
    const char *what;
    const cl_int code = finish(device, &what);
    if (code != CL_SUCCESS)
        clFinish(device->queue);
    if (device->is_out_of_order)
        device->failed = code; // whoever waits next is told
}

// What work under way holds, and what was freed, comes back to the driver when the queue is empty.
bool eq_device_retries(struct eq_device *device, cl_int code, int *num_retries)
{
    const bool is_transient =
        code == CL_OUT_OF_RESOURCES || code == CL_OUT_OF_HOST_MEMORY || code == CL_MEM_OBJECT_ALLOCATION_FAILURE;
    if (!is_transient || !device->is_own_queue || *num_retries == MAX_RETRIES)
        return false;
    ++*num_retries;
    eq_log(EQ_LOG_DEBUG, "%s: %s: asked again when the queue is empty", device->name, eq_cl_error(code));
    eq_device_settle(device);
    return true;
}

// Order of commands. A queue that is in order keeps it. On one that is not, which only callers bring, every command waits for
// the event of the one before it, and for nothing else: the caller's own commands go on beside them.
#include <stdlib.h>

#include "rt/internal.h"

struct eq_turn eq_turn_next(struct eq_device *device)
{
    if (!device->is_out_of_order)
        return (struct eq_turn){ 0 };
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
    EQ_TRY(make_wait_list(device, events, num, &list));
    const cl_int code = clEnqueueMarkerWithWaitList(device->queue, num + (device->last ? 1 : 0), list, &device->next);
    free(list);
    EQ_CL(code, "waiting for the caller's events");
    eq_turn_end(device);
    return EQ_OK;
}

eq_status eq_device_signal(struct eq_device *device, cl_event *event)
{
    if (!device->is_out_of_order || !device->last) {
        EQ_CL(clEnqueueMarkerWithWaitList(device->queue, 0, NULL, event), "marking the end of the queue");
    } else {
        EQ_CL(clRetainEvent(device->last), "marking the end of the work");
        *event = device->last;
    }
    EQ_CL(clFlush(device->queue), "flushing the queue");
    return EQ_OK;
}

// Waits for a marker's event and not with clFinish(): rusticl's (Mesa 22) returns at once for work that clFlush() has handed
// over already.
eq_status eq_device_finish(struct eq_device *device)
{
    cl_event event;
    if (device->is_out_of_order && !device->last)
        return EQ_OK;
    EQ_TRY(eq_device_signal(device, &event));
    cl_int code = clWaitForEvents(1, &event);
    clReleaseEvent(event);
    EQ_CL(code, "waiting for the device");
    return EQ_OK;
}

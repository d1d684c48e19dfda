// Device memory, counted.
#include <stdlib.h>

#include "rt/internal.h"

struct eq_ref eq_ref_at(struct eq_buffer *buffer, size_t at)
{
    return (struct eq_ref){ buffer, at };
}

struct eq_ref eq_ref_plus(struct eq_ref ref, size_t elems)
{
    ref.at += elems;
    return ref;
}

bool eq_ref_equal(struct eq_ref a, struct eq_ref b)
{
    return a.buffer == b.buffer && a.at == b.at;
}

eq_status eq_buffer_create(struct eq_device *device, size_t bytes, struct eq_buffer **out)
{
    *out = NULL;
    bytes = bytes ? bytes : 4;
    EQ_REQUIRE(bytes <= device->target.max_alloc_bytes, EQ_ERR_DEVICE_MEMORY,
               "%s: a buffer of %zu bytes; the device allows at most %zu in one", device->name, bytes,
               device->target.max_alloc_bytes);
    EQ_REQUIRE(device->bytes_now + bytes <= device->target.memory_bytes, EQ_ERR_DEVICE_MEMORY,
               "%s: %zu bytes more than the %zu in use exceed its %zu bytes of memory", device->name, bytes, device->bytes_now,
               device->target.memory_bytes);
    struct eq_buffer *buffer;
    EQ_ALLOC(buffer, 1);
    cl_int code = CL_SUCCESS;
    buffer->device = device;
    buffer->bytes = bytes;
    if (eq_ahead_has_memory(device))
        buffer->mem = clCreateBuffer(device->context, CL_MEM_READ_WRITE, bytes, NULL, &code);
    if (code != CL_SUCCESS) {
        free(buffer);
        return eq_fail(EQ_ERR_DEVICE_MEMORY, "%s: a buffer of %zu bytes, with %zu in use: %s", device->name, bytes,
                       device->bytes_now, eq_cl_error(code));
    }
    device->bytes_now += bytes;
    if (device->bytes_now > device->bytes_peak)
        device->bytes_peak = device->bytes_now;
    *out = buffer;
    return EQ_OK;
}

void eq_buffer_destroy(struct eq_buffer **buffer)
{
    if (!*buffer)
        return;
    if ((*buffer)->mem)
        clReleaseMemObject((*buffer)->mem);
    (*buffer)->device->bytes_now -= (*buffer)->bytes;
    free(*buffer);
    *buffer = NULL;
}

static eq_status check_span(struct eq_ref ref, size_t elems, size_t elem_bytes, const char *what)
{
    EQ_REQUIRE((ref.at + elems) * elem_bytes <= ref.buffer->bytes, EQ_ERR_ARGUMENT,
               "%s of %zu elements at %zu in a buffer of %zu", what, elems, ref.at, ref.buffer->bytes / elem_bytes);
    return EQ_OK;
}

eq_status eq_ref_write(struct eq_ref ref, const void *host, size_t elems, size_t elem_bytes)
{
    EQ_TRY(check_span(ref, elems, elem_bytes, "write"));
    if (!ref.buffer->mem)
        return EQ_OK;
    EQ_CL(clEnqueueWriteBuffer(ref.buffer->device->queue, ref.buffer->mem, CL_TRUE, ref.at * elem_bytes, elems * elem_bytes,
                               host, 0, NULL, NULL),
          "writing to the device");
    return EQ_OK;
}

eq_status eq_ref_read(struct eq_ref ref, void *host, size_t elems, size_t elem_bytes)
{
    EQ_TRY(check_span(ref, elems, elem_bytes, "read"));
    EQ_CL(clEnqueueReadBuffer(ref.buffer->device->queue, ref.buffer->mem, CL_TRUE, ref.at * elem_bytes, elems * elem_bytes,
                              host, 0, NULL, NULL),
          "reading from the device");
    return EQ_OK;
}

eq_status eq_ref_write_start(struct eq_ref ref, const void *host, size_t elems, size_t elem_bytes, struct eq_ticket *ticket)
{
    EQ_TRY(check_span(ref, elems, elem_bytes, "write"));
    EQ_TRY(eq_ticket_wait(ticket));
    EQ_CL(clEnqueueWriteBuffer(ref.buffer->device->queue, ref.buffer->mem, CL_FALSE, ref.at * elem_bytes, elems * elem_bytes,
                               host, 0, NULL, &ticket->event),
          "writing to the device");
    return EQ_OK;
}

eq_status eq_ref_read_start(struct eq_ref ref, void *host, size_t elems, size_t elem_bytes, struct eq_ticket *ticket)
{
    EQ_TRY(check_span(ref, elems, elem_bytes, "read"));
    EQ_TRY(eq_ticket_wait(ticket));
    EQ_CL(clEnqueueReadBuffer(ref.buffer->device->queue, ref.buffer->mem, CL_FALSE, ref.at * elem_bytes, elems * elem_bytes,
                              host, 0, NULL, &ticket->event),
          "reading from the device");
    EQ_CL(clFlush(ref.buffer->device->queue), "flushing the queue");
    return EQ_OK;
}

eq_status eq_ticket_wait(struct eq_ticket *ticket)
{
    if (!ticket->event)
        return EQ_OK;
    cl_int code = clWaitForEvents(1, &ticket->event);
    clReleaseEvent(ticket->event);
    ticket->event = NULL;
    EQ_CL(code, "waiting for a copy");
    return EQ_OK;
}

// Waits for a marker's event and not with clFinish(): rusticl's (Mesa 22) returns at once for work that clFlush() has handed
// over already.
eq_status eq_device_finish(struct eq_device *device)
{
    cl_event event;
    EQ_CL(clEnqueueMarkerWithWaitList(device->queue, 0, NULL, &event), "marking the end of the queue");
    cl_int code = clWaitForEvents(1, &event);
    clReleaseEvent(event);
    EQ_CL(code, "waiting for the device");
    return EQ_OK;
}

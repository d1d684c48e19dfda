// Device memory, counted.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "rt/internal.h"

// Buffers below this are too few large pages to tell.
enum { MIN_LARGE_BYTES = 4 << 20, PAGE_BYTES = 4096 };

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

static eq_status check_room(const struct eq_device *device, size_t bytes)
{
    EQ_REQUIRE(bytes <= device->target.max_alloc_bytes, EQ_ERR_DEVICE_MEMORY,
               "%s: a buffer of %zu bytes; the device allows at most %zu in one", device->name, bytes,
               device->target.max_alloc_bytes);
    EQ_REQUIRE(device->bytes_now + bytes <= device->target.memory_bytes, EQ_ERR_DEVICE_MEMORY,
               "%s: %zu bytes more than the %zu in use exceed its %zu bytes of memory", device->name, bytes, device->bytes_now,
               device->target.memory_bytes);
    return EQ_OK;
}

static cl_int create(struct eq_device *device, size_t bytes, const void *host, cl_mem *mem)
{
    const cl_mem_flags flags = CL_MEM_READ_WRITE | (host ? CL_MEM_COPY_HOST_PTR : 0);
    int num_retries = 0;
    cl_int code;
    do
        *mem = clCreateBuffer(device->context, flags, bytes, (void *)host, &code);
    while (eq_device_retries(device, code, &num_retries));
    return code;
}

// Asks for large pages, before the memory is touched. On Intel's processors a core keeps places of fewer small ones than a
// network has, and fetches nothing ahead beyond the end of one: CE-ResNet-50 takes 3 % less time with large ones (Xeon with
// AVX-512, 16 images). On AMD's it took up to 4 % more (Zen 4). Advice alone: where the driver shows a copy, or the system has
// no large pages, nothing changes.
static cl_int ask_large_pages(const struct eq_device *device, cl_mem mem, size_t bytes)
{
    cl_int code = CL_SUCCESS;
#ifdef MADV_HUGEPAGE
    if (device->kind != EQ_KIND_CPU || !strstr(device->name, "Intel") || !device->is_own_queue || bytes < MIN_LARGE_BYTES)
        return CL_SUCCESS;
    char *at = clEnqueueMapBuffer(device->queue, mem, CL_TRUE, CL_MAP_WRITE_INVALIDATE_REGION, 0, bytes, 0, NULL, NULL, &code);
    if (!at || code != CL_SUCCESS)
        return CL_SUCCESS; // small ones do
    const size_t before = (PAGE_BYTES - (uintptr_t)at % PAGE_BYTES) % PAGE_BYTES;
    madvise(at + before, (bytes - before) / PAGE_BYTES * PAGE_BYTES, MADV_HUGEPAGE);
    code = clEnqueueUnmapMemObject(device->queue, mem, at, 0, NULL, NULL);
#else
    (void)device, (void)mem, (void)bytes;
#endif
    return code;
}

// host NULL: contents undefined.
static eq_status make_buffer(struct eq_device *device, size_t bytes, const void *host, struct eq_buffer **out)
{
    *out = NULL;
    EQ_TRY(check_room(device, bytes));
    struct eq_buffer *buffer;
    EQ_ALLOC(buffer, 1);
    cl_int code = CL_SUCCESS;
    buffer->device = device;
    buffer->bytes = bytes;
    if (eq_ahead_has_memory(device))
        code = create(device, bytes, host, &buffer->own);
    if (buffer->own && !host && code == CL_SUCCESS) {
        code = ask_large_pages(device, buffer->own, bytes);
        if (code != CL_SUCCESS)
            clReleaseMemObject(buffer->own);
    }
    buffer->mem = buffer->own;
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

eq_status eq_buffer_create(struct eq_device *device, size_t bytes, struct eq_buffer **buffer)
{
    return make_buffer(device, bytes ? bytes : 4, NULL, buffer);
}

eq_status eq_buffer_create_from(struct eq_device *device, const void *host, size_t bytes, struct eq_buffer **buffer)
{
    return make_buffer(device, bytes, host, buffer);
}

eq_status eq_buffer_touch(struct eq_buffer *buffer)
{
    struct eq_device *device = buffer->device;
    if (device->kind == EQ_KIND_CPU || !device->is_own_queue || !buffer->mem)
        return EQ_OK;
    int num_retries = 0;
    cl_int code;
    do // a fill, of contents that are undefined: twice does no harm
        code = eq_enqueue_fill(device, buffer->mem, 0.0f, 0, buffer->bytes / sizeof(float) * sizeof(float));
    while (eq_device_retries(device, code, &num_retries));
    const bool is_written = code == CL_SUCCESS && eq_device_finish(device) == EQ_OK;
    EQ_REQUIRE(is_written, EQ_ERR_DEVICE_MEMORY, "%s: a buffer of %zu bytes, with %zu in use, cannot be written: %s",
               device->name, buffer->bytes, device->bytes_now, code == CL_SUCCESS ? eq_last_error() : eq_cl_error(code));
    return EQ_OK;
}

eq_status eq_memory_size(const struct eq_device *device, cl_mem mem, size_t *bytes)
{
    cl_context context = NULL;
    cl_mem_object_type type = 0;
    EQ_CL(clGetMemObjectInfo(mem, CL_MEM_CONTEXT, sizeof context, (void *)&context, NULL), "asking the caller's memory");
    EQ_CL(clGetMemObjectInfo(mem, CL_MEM_TYPE, sizeof type, &type, NULL), "asking the caller's memory");
    EQ_CL(clGetMemObjectInfo(mem, CL_MEM_SIZE, sizeof *bytes, bytes, NULL), "asking the caller's memory");
    EQ_REQUIRE(context == device->context, EQ_ERR_ARGUMENT, "the memory belongs to another context than %s here", device->name);
    EQ_REQUIRE(type == CL_MEM_OBJECT_BUFFER, EQ_ERR_ARGUMENT, "the memory is an image or a pipe, not a buffer");
    return EQ_OK;
}

eq_status eq_buffer_create_empty(struct eq_device *device, size_t bytes, struct eq_buffer **buffer)
{
    EQ_ALLOC(*buffer, 1);
    **buffer = (struct eq_buffer){ .device = device, .bytes = bytes, .is_empty = true };
    return EQ_OK;
}

eq_status eq_buffer_adopt(struct eq_device *device, cl_mem mem, struct eq_buffer **buffer)
{
    size_t bytes = 0;
    *buffer = NULL;
    EQ_TRY(eq_memory_size(device, mem, &bytes));
    struct eq_buffer *made;
    EQ_ALLOC(made, 1);
    *made = (struct eq_buffer){ .device = device, .mem = mem, .bytes = bytes, .is_adopted = true };
    const cl_int code = clRetainMemObject(mem);
    if (code != CL_SUCCESS)
        free(made);
    EQ_CL(code, "keeping the caller's memory");
    *buffer = made;
    return EQ_OK;
}

eq_status eq_buffer_swap(struct eq_buffer *buffer, cl_mem mem, size_t base)
{
    size_t bytes = 0;
    if (mem) {
        EQ_TRY(eq_memory_size(buffer->device, mem, &bytes));
        EQ_REQUIRE(buffer->is_adopted || (base <= bytes / 4 && buffer->bytes <= bytes - 4 * base), EQ_ERR_ARGUMENT,
                   "%zu bytes from byte %.0f on are wanted of a memory of %zu", buffer->bytes, 4.0 * (double)base, bytes);
        EQ_CL(clRetainMemObject(mem), "keeping the caller's memory");
    }
    if (buffer->mem != buffer->own)
        clReleaseMemObject(buffer->mem);
    if (buffer->is_adopted)
        buffer->bytes = bytes;
    buffer->mem = mem ? mem : buffer->own;
    buffer->base = mem ? base : 0;
    return EQ_OK;
}

void eq_buffer_destroy(struct eq_buffer **buffer)
{
    if (!*buffer)
        return;
    if ((*buffer)->mem != (*buffer)->own)
        clReleaseMemObject((*buffer)->mem);
    if ((*buffer)->own)
        clReleaseMemObject((*buffer)->own);
    if (!(*buffer)->is_adopted && !(*buffer)->is_empty)
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

static size_t byte_of(struct eq_ref ref, size_t elem_bytes)
{
    return (ref.buffer->base + ref.at) * elem_bytes;
}

eq_status eq_ref_write(struct eq_ref ref, const void *host, size_t elems, size_t elem_bytes)
{
    EQ_TRY(check_span(ref, elems, elem_bytes, "write"));
    if (!ref.buffer->mem)
        return EQ_OK;
    const struct eq_turn turn = eq_turn_next(ref.buffer->device);
    EQ_TRY(eq_turn_check(ref.buffer->device));
    EQ_CL(clEnqueueWriteBuffer(ref.buffer->device->queue, ref.buffer->mem, CL_TRUE, byte_of(ref, elem_bytes),
                               elems * elem_bytes, host, turn.num, turn.wait, NULL),
          "writing to the device");
    return EQ_OK;
}

eq_status eq_ref_read(struct eq_ref ref, void *host, size_t elems, size_t elem_bytes)
{
    EQ_TRY(check_span(ref, elems, elem_bytes, "read"));
    const struct eq_turn turn = eq_turn_next(ref.buffer->device);
    EQ_TRY(eq_turn_check(ref.buffer->device));
    EQ_CL(clEnqueueReadBuffer(ref.buffer->device->queue, ref.buffer->mem, CL_TRUE, byte_of(ref, elem_bytes), elems * elem_bytes,
                              host, turn.num, turn.wait, NULL),
          "reading from the device");
    return EQ_OK;
}

// On an out-of-order queue what follows waits for the copy.
static eq_status ticket_turn(struct eq_device *device, const struct eq_ticket *ticket)
{
    if (!device->is_out_of_order)
        return EQ_OK;
    const cl_int code = clRetainEvent(ticket->event);
    if (code == CL_SUCCESS) {
        device->next = ticket->event;
        eq_turn_end(device);
        return EQ_OK;
    }
    eq_event_wait(ticket->event); // nothing can come before it
    return eq_fail(EQ_ERR_DEVICE, "a copy's event: %s", eq_cl_error(code));
}

eq_status eq_ref_write_start(struct eq_ref ref, const void *host, size_t elems, size_t elem_bytes, struct eq_ticket *ticket)
{
    EQ_TRY(check_span(ref, elems, elem_bytes, "write"));
    EQ_TRY(eq_ticket_wait(ticket));
    const struct eq_turn turn = eq_turn_next(ref.buffer->device);
    EQ_TRY(eq_turn_check(ref.buffer->device));
    EQ_CL(clEnqueueWriteBuffer(ref.buffer->device->queue, ref.buffer->mem, CL_FALSE, byte_of(ref, elem_bytes),
                               elems * elem_bytes, host, turn.num, turn.wait, &ticket->event),
          "writing to the device");
    return ticket_turn(ref.buffer->device, ticket);
}

eq_status eq_ref_read_start(struct eq_ref ref, void *host, size_t elems, size_t elem_bytes, struct eq_ticket *ticket)
{
    EQ_TRY(check_span(ref, elems, elem_bytes, "read"));
    EQ_TRY(eq_ticket_wait(ticket));
    const struct eq_turn turn = eq_turn_next(ref.buffer->device);
    EQ_TRY(eq_turn_check(ref.buffer->device));
    EQ_CL(clEnqueueReadBuffer(ref.buffer->device->queue, ref.buffer->mem, CL_FALSE, byte_of(ref, elem_bytes),
                              elems * elem_bytes, host, turn.num, turn.wait, &ticket->event),
          "reading from the device");
    EQ_TRY(ticket_turn(ref.buffer->device, ticket));
    EQ_CL(clFlush(ref.buffer->device->queue), "flushing the queue");
    return EQ_OK;
}

static cl_int wait(struct eq_ticket *ticket)
{
    if (!ticket->event)
        return CL_SUCCESS;
    const cl_int code = eq_event_wait(ticket->event);
    clReleaseEvent(ticket->event);
    ticket->event = NULL;
    return code;
}

eq_status eq_ticket_wait(struct eq_ticket *ticket)
{
    EQ_CL(wait(ticket), "waiting for a copy");
    return EQ_OK;
}

void eq_ticket_drop(struct eq_ticket *ticket)
{
    wait(ticket);
}

eq_status eq_ref_fill(struct eq_ref ref, float value, size_t elems)
{
    struct eq_device *device = ref.buffer->device;
    EQ_TRY(check_span(ref, elems, sizeof value, "fill"));
    if (!ref.buffer->mem)
        return EQ_OK;
    EQ_CL(eq_enqueue_fill(device, ref.buffer->mem, value, byte_of(ref, sizeof value), elems * sizeof value), "filling memory");
    return EQ_OK;
}

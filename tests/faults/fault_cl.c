// The library's calls of OpenCL and CLBlast. A failing call does nothing and returns what drivers return then; a failing wait
// returns at once, as one that finds no memory does, but where calls fail for good it waits first: a device that is gone runs
// nothing any more. Releases never fail: there is nothing that anybody could do.
#include "fault.h"

#include <clblast_c.h>
#include <string.h>

bool fault_hides_pocl, fault_builds_lack_resources;

// The wrapper of a function that returns its code, and no object.
#define WRAP_CODE(name, code, params, args)                                    \
    cl_int __real_##name params;                                               \
    cl_int __wrap_##name params;                                               \
    cl_int __wrap_##name params                                                \
    {                                                                          \
        return fault_hits(FAULT_CL, #name, #code) ? code : __real_##name args; \
    }

// Of one that makes an object and stores its code through `error`.
#define WRAP_CREATE(type, name, object, code, params, args) \
    type __real_##name params;                              \
    type __wrap_##name params;                              \
    type __wrap_##name params                               \
    {                                                       \
        if (fault_hits(FAULT_CL, #name, #code)) {           \
            *error = code;                                  \
            return NULL;                                    \
        }                                                   \
        type made = __real_##name args;                     \
        fault_lives(object, made ? 1 : 0);                  \
        return made;                                        \
    }

// Of one that enqueues: its event, where one is asked for, lives.
#define WRAP_ENQUEUE(name, code, params, args)                           \
    cl_int __real_##name params;                                         \
    cl_int __wrap_##name params;                                         \
    cl_int __wrap_##name params                                          \
    {                                                                    \
        if (fault_hits(FAULT_CL, #name, #code))                          \
            return code;                                                 \
        const cl_int result = __real_##name args;                        \
        fault_lives(FAULT_EVENT, result == CL_SUCCESS && event ? 1 : 0); \
        return result;                                                   \
    }

#define WRAP_RETAIN(name, type, object)                           \
    cl_int __real_##name(type of);                                \
    cl_int __wrap_##name(type of);                                \
    cl_int __wrap_##name(type of)                                 \
    {                                                             \
        if (fault_hits(FAULT_CL, #name, "CL_OUT_OF_HOST_MEMORY")) \
            return CL_OUT_OF_HOST_MEMORY;                         \
        fault_lives(object, 1);                                   \
        return __real_##name(of);                                 \
    }

#define WRAP_RELEASE(name, type, object) \
    cl_int __real_##name(type of);       \
    cl_int __wrap_##name(type of);       \
    cl_int __wrap_##name(type of)        \
    {                                    \
        fault_lives(object, -1);         \
        return __real_##name(of);        \
    }

// ---- platforms, devices, contexts, queues

WRAP_CODE(clGetPlatformIDs, CL_OUT_OF_HOST_MEMORY, (cl_uint num, cl_platform_id *ids, cl_uint *found), (num, ids, found))
WRAP_CODE(clGetDeviceIDs, CL_OUT_OF_RESOURCES,
          (cl_platform_id platform, cl_device_type type, cl_uint num, cl_device_id *ids, cl_uint *found),
          (platform, type, num, ids, found))
WRAP_CODE(clGetDeviceInfo, CL_OUT_OF_HOST_MEMORY,
          (cl_device_id id, cl_device_info what, size_t bytes, void *value, size_t *needed), (id, what, bytes, value, needed))
WRAP_CODE(clGetContextInfo, CL_OUT_OF_RESOURCES,
          (cl_context context, cl_context_info what, size_t bytes, void *value, size_t *needed),
          (context, what, bytes, value, needed))
WRAP_CODE(clGetCommandQueueInfo, CL_OUT_OF_RESOURCES,
          (cl_command_queue queue, cl_command_queue_info what, size_t bytes, void *value, size_t *needed),
          (queue, what, bytes, value, needed))
WRAP_CODE(clGetMemObjectInfo, CL_OUT_OF_HOST_MEMORY, (cl_mem mem, cl_mem_info what, size_t bytes, void *value, size_t *needed),
          (mem, what, bytes, value, needed))
WRAP_CODE(clGetEventInfo, CL_OUT_OF_RESOURCES, (cl_event event, cl_event_info what, size_t bytes, void *value, size_t *needed),
          (event, what, bytes, value, needed))

cl_int __real_clGetPlatformInfo(cl_platform_id id, cl_platform_info what, size_t bytes, void *value, size_t *needed);
cl_int __wrap_clGetPlatformInfo(cl_platform_id id, cl_platform_info what, size_t bytes, void *value, size_t *needed);
cl_int __wrap_clGetPlatformInfo(cl_platform_id id, cl_platform_info what, size_t bytes, void *value, size_t *needed)
{
    if (fault_hits(FAULT_CL, "clGetPlatformInfo", "CL_OUT_OF_HOST_MEMORY"))
        return CL_OUT_OF_HOST_MEMORY;
    if (!fault_hides_pocl || what != CL_PLATFORM_VERSION)
        return __real_clGetPlatformInfo(id, what, bytes, value, needed);
    snprintf(value, bytes, "OpenCL 3.0 POCL that compiles at once");
    return CL_SUCCESS;
}

WRAP_CREATE(cl_context, clCreateContext, FAULT_CONTEXT, CL_OUT_OF_HOST_MEMORY,
            (const cl_context_properties *properties, cl_uint num, const cl_device_id *ids,
             void(CL_CALLBACK *notify)(const char *, const void *, size_t, void *), void *user, cl_int *error),
            (properties, num, ids, notify, user, error))
WRAP_CREATE(cl_command_queue, clCreateCommandQueue, FAULT_QUEUE, CL_OUT_OF_RESOURCES,
            (cl_context context, cl_device_id id, cl_command_queue_properties properties, cl_int *error),
            (context, id, properties, error))
WRAP_RETAIN(clRetainContext, cl_context, FAULT_CONTEXT)
WRAP_RETAIN(clRetainCommandQueue, cl_command_queue, FAULT_QUEUE)
WRAP_RELEASE(clReleaseContext, cl_context, FAULT_CONTEXT)
WRAP_RELEASE(clReleaseCommandQueue, cl_command_queue, FAULT_QUEUE)

// ---- memory, programs, kernels

WRAP_CREATE(cl_mem, clCreateBuffer, FAULT_BUFFER, CL_MEM_OBJECT_ALLOCATION_FAILURE,
            (cl_context context, cl_mem_flags flags, size_t bytes, void *host, cl_int *error),
            (context, flags, bytes, host, error))
WRAP_CREATE(cl_mem, clCreateSubBuffer, FAULT_BUFFER, CL_MEM_OBJECT_ALLOCATION_FAILURE,
            (cl_mem whole, cl_mem_flags flags, cl_buffer_create_type type, const void *region, cl_int *error),
            (whole, flags, type, region, error))
WRAP_RETAIN(clRetainMemObject, cl_mem, FAULT_BUFFER)
WRAP_RELEASE(clReleaseMemObject, cl_mem, FAULT_BUFFER)

WRAP_CREATE(cl_program, clCreateProgramWithSource, FAULT_PROGRAM, CL_OUT_OF_HOST_MEMORY,
            (cl_context context, cl_uint num, const char **texts, const size_t *lengths, cl_int *error),
            (context, num, texts, lengths, error))
WRAP_CREATE(cl_program, clCreateProgramWithBinary, FAULT_PROGRAM, CL_INVALID_BINARY,
            (cl_context context, cl_uint num, const cl_device_id *ids, const size_t *lengths, const unsigned char **binaries,
             cl_int *status, cl_int *error),
            (context, num, ids, lengths, binaries, status, error))
cl_int __real_clBuildProgram(cl_program program, cl_uint num, const cl_device_id *ids, const char *options,
                             void(CL_CALLBACK *notify)(cl_program, void *), void *user);
cl_int __wrap_clBuildProgram(cl_program program, cl_uint num, const cl_device_id *ids, const char *options,
                             void(CL_CALLBACK *notify)(cl_program, void *), void *user);
cl_int __wrap_clBuildProgram(cl_program program, cl_uint num, const cl_device_id *ids, const char *options,
                             void(CL_CALLBACK *notify)(cl_program, void *), void *user)
{
    const char *code = fault_builds_lack_resources ? "CL_OUT_OF_RESOURCES" : "CL_BUILD_PROGRAM_FAILURE";
    if (fault_hits(FAULT_CL, "clBuildProgram", code))
        return fault_builds_lack_resources ? CL_OUT_OF_RESOURCES : CL_BUILD_PROGRAM_FAILURE;
    return __real_clBuildProgram(program, num, ids, options, notify, user);
}
WRAP_CODE(clGetProgramInfo, CL_OUT_OF_HOST_MEMORY,
          (cl_program program, cl_program_info what, size_t bytes, void *value, size_t *needed),
          (program, what, bytes, value, needed))
WRAP_CODE(clGetProgramBuildInfo, CL_OUT_OF_HOST_MEMORY,
          (cl_program program, cl_device_id id, cl_program_build_info what, size_t bytes, void *value, size_t *needed),
          (program, id, what, bytes, value, needed))
WRAP_RELEASE(clReleaseProgram, cl_program, FAULT_PROGRAM)

WRAP_CREATE(cl_kernel, clCreateKernel, FAULT_KERNEL, CL_OUT_OF_HOST_MEMORY,
            (cl_program program, const char *name, cl_int *error), (program, name, error))
WRAP_CODE(clGetKernelInfo, CL_OUT_OF_HOST_MEMORY,
          (cl_kernel kernel, cl_kernel_info what, size_t bytes, void *value, size_t *needed),
          (kernel, what, bytes, value, needed))
WRAP_CODE(clGetKernelWorkGroupInfo, CL_OUT_OF_RESOURCES,
          (cl_kernel kernel, cl_device_id id, cl_kernel_work_group_info what, size_t bytes, void *value, size_t *needed),
          (kernel, id, what, bytes, value, needed))
WRAP_CODE(clSetKernelArg, CL_OUT_OF_RESOURCES, (cl_kernel kernel, cl_uint at, size_t bytes, const void *value),
          (kernel, at, bytes, value))
WRAP_RELEASE(clReleaseKernel, cl_kernel, FAULT_KERNEL)

// ---- commands

WRAP_ENQUEUE(clEnqueueNDRangeKernel, CL_OUT_OF_RESOURCES,
             (cl_command_queue queue, cl_kernel kernel, cl_uint dims, const size_t *offset, const size_t *global,
              const size_t *local, cl_uint num, const cl_event *wait, cl_event *event),
             (queue, kernel, dims, offset, global, local, num, wait, event))
WRAP_ENQUEUE(clEnqueueFillBuffer, CL_MEM_OBJECT_ALLOCATION_FAILURE,
             (cl_command_queue queue, cl_mem mem, const void *pattern, size_t pattern_bytes, size_t offset, size_t bytes,
              cl_uint num, const cl_event *wait, cl_event *event),
             (queue, mem, pattern, pattern_bytes, offset, bytes, num, wait, event))
WRAP_ENQUEUE(clEnqueueCopyBuffer, CL_MEM_OBJECT_ALLOCATION_FAILURE,
             (cl_command_queue queue, cl_mem from, cl_mem to, size_t from_at, size_t to_at, size_t bytes, cl_uint num,
              const cl_event *wait, cl_event *event),
             (queue, from, to, from_at, to_at, bytes, num, wait, event))
WRAP_ENQUEUE(clEnqueueReadBuffer, CL_OUT_OF_RESOURCES,
             (cl_command_queue queue, cl_mem mem, cl_bool is_blocking, size_t offset, size_t bytes, void *host, cl_uint num,
              const cl_event *wait, cl_event *event),
             (queue, mem, is_blocking, offset, bytes, host, num, wait, event))
WRAP_ENQUEUE(clEnqueueWriteBuffer, CL_OUT_OF_HOST_MEMORY,
             (cl_command_queue queue, cl_mem mem, cl_bool is_blocking, size_t offset, size_t bytes, const void *host,
              cl_uint num, const cl_event *wait, cl_event *event),
             (queue, mem, is_blocking, offset, bytes, host, num, wait, event))
WRAP_ENQUEUE(clEnqueueMarkerWithWaitList, CL_OUT_OF_HOST_MEMORY,
             (cl_command_queue queue, cl_uint num, const cl_event *wait, cl_event *event), (queue, num, wait, event))
WRAP_ENQUEUE(clEnqueueBarrierWithWaitList, CL_OUT_OF_RESOURCES,
             (cl_command_queue queue, cl_uint num, const cl_event *wait, cl_event *event), (queue, num, wait, event))
WRAP_CODE(clFlush, CL_OUT_OF_RESOURCES, (cl_command_queue queue), (queue))

cl_int __real_clFinish(cl_command_queue queue);
cl_int __wrap_clFinish(cl_command_queue queue);
cl_int __wrap_clFinish(cl_command_queue queue)
{
    const bool hits = fault_hits(FAULT_CL, "clFinish", "CL_OUT_OF_RESOURCES");
    const cl_int result = !hits || fault_is_for_good() ? __real_clFinish(queue) : CL_SUCCESS;
    return hits ? CL_OUT_OF_RESOURCES : result;
}

// ---- events

cl_int __real_clWaitForEvents(cl_uint num, const cl_event *events);
cl_int __wrap_clWaitForEvents(cl_uint num, const cl_event *events);
cl_int __wrap_clWaitForEvents(cl_uint num, const cl_event *events)
{
    const bool hits = fault_hits(FAULT_CL, "clWaitForEvents", "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST");
    const cl_int result = !hits || fault_is_for_good() ? __real_clWaitForEvents(num, events) : CL_SUCCESS;
    return hits ? CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST : result;
}
WRAP_RETAIN(clRetainEvent, cl_event, FAULT_EVENT)
WRAP_RELEASE(clReleaseEvent, cl_event, FAULT_EVENT)

// ---- CLBlast, whose own calls of OpenCL go from one library to the other

CLBlastStatusCode __real_CLBlastSGemmTempBufferSize(const CLBlastLayout layout, const CLBlastTranspose ta,
                                                    const CLBlastTranspose tb, const size_t m, const size_t n, const size_t k,
                                                    const size_t a_at, const size_t lda, const size_t b_at, const size_t ldb,
                                                    const size_t c_at, const size_t ldc, cl_command_queue *queue,
                                                    size_t *bytes);
CLBlastStatusCode __wrap_CLBlastSGemmTempBufferSize(const CLBlastLayout layout, const CLBlastTranspose ta,
                                                    const CLBlastTranspose tb, const size_t m, const size_t n, const size_t k,
                                                    const size_t a_at, const size_t lda, const size_t b_at, const size_t ldb,
                                                    const size_t c_at, const size_t ldc, cl_command_queue *queue,
                                                    size_t *bytes);
CLBlastStatusCode __wrap_CLBlastSGemmTempBufferSize(const CLBlastLayout layout, const CLBlastTranspose ta,
                                                    const CLBlastTranspose tb, const size_t m, const size_t n, const size_t k,
                                                    const size_t a_at, const size_t lda, const size_t b_at, const size_t ldb,
                                                    const size_t c_at, const size_t ldc, cl_command_queue *queue, size_t *bytes)
{
    if (fault_hits(FAULT_CL, "CLBlastSGemmTempBufferSize", "CLBlast error -6"))
        return CLBlastOpenCLOutOfHostMemory;
    return __real_CLBlastSGemmTempBufferSize(layout, ta, tb, m, n, k, a_at, lda, b_at, ldb, c_at, ldc, queue, bytes);
}

CLBlastStatusCode __real_CLBlastSgemmWithTempBuffer(const CLBlastLayout layout, const CLBlastTranspose ta,
                                                    const CLBlastTranspose tb, const size_t m, const size_t n, const size_t k,
                                                    const float alpha, const cl_mem a, const size_t a_at, const size_t lda,
                                                    const cl_mem b, const size_t b_at, const size_t ldb, const float beta,
                                                    cl_mem c, const size_t c_at, const size_t ldc, cl_command_queue *queue,
                                                    cl_event *event, cl_mem temporary);
CLBlastStatusCode __wrap_CLBlastSgemmWithTempBuffer(const CLBlastLayout layout, const CLBlastTranspose ta,
                                                    const CLBlastTranspose tb, const size_t m, const size_t n, const size_t k,
                                                    const float alpha, const cl_mem a, const size_t a_at, const size_t lda,
                                                    const cl_mem b, const size_t b_at, const size_t ldb, const float beta,
                                                    cl_mem c, const size_t c_at, const size_t ldc, cl_command_queue *queue,
                                                    cl_event *event, cl_mem temporary);
CLBlastStatusCode __wrap_CLBlastSgemmWithTempBuffer(const CLBlastLayout layout, const CLBlastTranspose ta,
                                                    const CLBlastTranspose tb, const size_t m, const size_t n, const size_t k,
                                                    const float alpha, const cl_mem a, const size_t a_at, const size_t lda,
                                                    const cl_mem b, const size_t b_at, const size_t ldb, const float beta,
                                                    cl_mem c, const size_t c_at, const size_t ldc, cl_command_queue *queue,
                                                    cl_event *event, cl_mem temporary)
{
    if (fault_hits(FAULT_CL, "CLBlastSgemmWithTempBuffer", "CLBlast error -4"))
        return CLBlastTempBufferAllocFailure;
    const CLBlastStatusCode code = __real_CLBlastSgemmWithTempBuffer(layout, ta, tb, m, n, k, alpha, a, a_at, lda, b, b_at, ldb,
                                                                     beta, c, c_at, ldc, queue, event, temporary);
    fault_lives(FAULT_EVENT, code == CLBlastSuccess && event ? 1 : 0);
    return code;
}

// A kernel with a fault on purpose, for testing that tests/support/oclgrind.sh finds it: faulty clean|race|uninitialised. Plain
// OpenCL, without the library.
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <stdio.h>
#include <string.h>

static const char source[] =
    "__kernel void clean(__global int *x, __local int *tile) {"
    "    int i = get_local_id(0); tile[i] = x[i]; barrier(CLK_LOCAL_MEM_FENCE); x[i] = tile[(i + 1) % 8]; }\n"
    "__kernel void race(__global int *x, __local int *tile) {"
    "    int i = get_local_id(0); tile[i] = x[i]; x[i] = tile[(i + 1) % 8]; }\n"
    "__kernel void uninitialised(__global int *x, __local int *tile) {"
    "    int i = get_local_id(0); if (tile[i] > 3) x[i] = 1; }\n";

int main(int argc, char **argv)
{
    cl_platform_id platform;
    cl_device_id device;
    if (argc != 2 || clGetPlatformIDs(1, &platform, NULL) || clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, NULL))
        return 1;
    cl_context context = clCreateContext(NULL, 1, &device, NULL, NULL, NULL);
    cl_command_queue queue = clCreateCommandQueue(context, device, 0, NULL);
    const char *text = source;
    cl_program program = clCreateProgramWithSource(context, 1, &text, NULL, NULL);
    if (!program || clBuildProgram(program, 1, &device, "", NULL, NULL))
        return 1;
    cl_kernel kernel = clCreateKernel(program, argv[1], NULL);
    int values[8] = { 0 };
    size_t global = 8;
    cl_mem buffer = clCreateBuffer(context, CL_MEM_COPY_HOST_PTR, sizeof values, values, NULL);
    if (!kernel || !buffer || clSetKernelArg(kernel, 0, sizeof buffer, &buffer) ||
        clSetKernelArg(kernel, 1, sizeof values, NULL) ||
        clEnqueueNDRangeKernel(queue, kernel, 1, NULL, &global, &global, 0, NULL, NULL) || clFinish(queue))
        return 1;
    printf("1..1\nok 1 - %s ran\n", argv[1]);
    return 0;
}

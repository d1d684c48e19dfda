// A loader of OpenCL 1.0 without a driver: the functions that CLBlast wants at the start of a program, and the first one that
// anybody calls. None of those that came with OpenCL 1.2.
#define FAILS(name) \
    int name(void); \
    int name(void)  \
    {               \
        return -1;  \
    }

int clGetPlatformIDs(unsigned num_entries, void **platforms, unsigned *num_platforms);

int clGetPlatformIDs(unsigned num_entries, void **platforms, unsigned *num_platforms)
{
    (void)num_entries;
    (void)platforms;
    if (num_platforms)
        *num_platforms = 0;
    return -1001; // CL_PLATFORM_NOT_FOUND_KHR
}

FAILS(clBuildProgram)
FAILS(clCreateBuffer)
FAILS(clCreateCommandQueue)
FAILS(clCreateContext)
FAILS(clCreateKernel)
FAILS(clCreateProgramWithBinary)
FAILS(clCreateProgramWithSource)
FAILS(clEnqueueCopyBuffer)
FAILS(clEnqueueNDRangeKernel)
FAILS(clEnqueueReadBuffer)
FAILS(clEnqueueWriteBuffer)
FAILS(clFinish)
FAILS(clGetCommandQueueInfo)
FAILS(clGetDeviceInfo)
FAILS(clGetKernelWorkGroupInfo)
FAILS(clGetMemObjectInfo)
FAILS(clGetProgramBuildInfo)
FAILS(clGetProgramInfo)
FAILS(clReleaseCommandQueue)
FAILS(clReleaseContext)
FAILS(clReleaseEvent)
FAILS(clReleaseKernel)
FAILS(clReleaseMemObject)
FAILS(clReleaseProgram)
FAILS(clSetKernelArg)
FAILS(clWaitForEvents)

// The device's choice of a matrix unit. What units compute is checked in src/verify/matrix.c.
#include "verify/check.h"

static void test_device(int index)
{
    (void)index;
    struct eq_device *device;
    EQ_CHECK_OK(eq_device_open(NULL, &device));
    EQ_CHECK_TRUE(strcmp(eq_device_precision_text(device), "fp32") == 0);
    EQ_CHECK_INT(device->target.precision, EQ_FP32);
    enum eq_precision precision;
    EQ_CHECK_OK(eq_precision_parse("bf16", &precision));
    EQ_CHECK_OK(eq_device_set_precision(device, precision));
    EQ_CHECK_INT(device->target.precision, EQ_BF16);
    EQ_CHECK_INT(device->target.family, EQ_FAMILY_SIMT);
    EQ_CHECK_INT(device->target.block, 16);
    EQ_CHECK_TRUE(!device->target.use_winograd);
    // no unit on any of the devices that tests run on, and none is claimed
    EQ_CHECK_INT(device->target.matrix_unit, EQ_MATRIX_EMULATED);
    EQ_CHECK_TRUE(strcmp(eq_device_precision_text(device), "bf16 emulated") == 0);
    // a probe that fails does no harm, and says nothing where it lacks memory
    bool works = true;
    EQ_CHECK_OK(eq_matrix_probe(device, EQ_MATRIX_MFMA, EQ_FP16, &works));
    EQ_CHECK_TRUE(!works);
    EQ_CHECK_OK(eq_matrix_probe(device, EQ_MATRIX_WMMA12, EQ_BF16, &works));
    EQ_CHECK_TRUE(!works);
    EQ_CHECK_OK(eq_matrix_probe(device, EQ_MATRIX_EMULATED, EQ_TF32, &works));
    EQ_CHECK_TRUE(works);
    const size_t most = device->target.max_alloc_bytes;
    device->target.max_alloc_bytes = 16;
    EQ_CHECK_INT(eq_matrix_probe(device, EQ_MATRIX_EMULATED, EQ_TF32, &works), EQ_ERR_DEVICE_MEMORY);
    EQ_CHECK_TRUE(strstr(eq_last_error(), "looking for emulated: "));
    device->target.max_alloc_bytes = most;
    EQ_CHECK_OK(eq_device_set_precision(device, EQ_BF16));
    EQ_CHECK_INT(eq_device_set_precision(device, EQ_TF32), EQ_ERR_ARGUMENT);
    EQ_CHECK_INT(eq_device_set_precision(device, EQ_FP32), EQ_ERR_ARGUMENT);
    EQ_CHECK_INT(eq_device_set_precision(device, (enum eq_precision)9), EQ_ERR_ARGUMENT);
    EQ_CHECK_INT(eq_precision_parse("fp8", &precision), EQ_ERR_ARGUMENT);
    EQ_CHECK_TRUE(strstr(eq_last_error(), "fp8"));
    eq_device_destroy(&device);
}

EQ_CHECK_SUITE(test_suite_matrix, "matrix", { "device", test_device, 0 })

// The run-time layer: choosing devices, buffers, lists, the cache of compiled kernels, matrix products.
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rt/internal.h"
#include "support.h"

START_TEST(choosing)
{
    struct eq_device_info *infos;
    struct eq_device *device;
    int num, num_chosen = 0;
    EQ_TEST_OK(eq_device_list(NULL, &infos, &num));
    ck_assert_int_gt(num, 0);
    for (int i = 0; i < num; i++)
        num_chosen += infos[i].is_chosen;
    ck_assert_int_eq(num_chosen, 1);
    eq_device_list_free(&infos);
    ck_assert_ptr_null(infos);
    ck_assert_int_eq(eq_device_open("no such device", &device), EQ_ERR_DEVICE);
    ck_assert_ptr_null(device);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "no such device"));
    ck_assert_ptr_nonnull(strstr(eq_last_error(), eq_test_device->name)); // the list of what there is
    ck_assert_int_eq(eq_device_open("99", &device), EQ_ERR_DEVICE);
}
END_TEST

static bool uses_winograd(const char *value)
{
    struct eq_device *device;
    if (value)
        setenv("EQUIL_WINOGRAD", value, 1);
    else
        unsetenv("EQUIL_WINOGRAD");
    EQ_TEST_OK(eq_device_open(getenv("EQUIL_DEVICE"), &device));
    const bool uses = device->target.use_winograd;
    eq_device_destroy(&device);
    return uses;
}

// Mesa's llvmpipe ends loops that Winograd's convolution needs, silently: there it is off unless asked for.
START_TEST(winograd)
{
    struct eq_device *device;
    ck_assert_int_eq(uses_winograd(NULL), !strstr(eq_test_device->name, "llvmpipe"));
    ck_assert(uses_winograd("1"));
    ck_assert(!uses_winograd("0"));
    setenv("EQUIL_WINOGRAD", "2", 1);
    ck_assert_int_eq(eq_device_open(getenv("EQUIL_DEVICE"), &device), EQ_ERR_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "EQUIL_WINOGRAD is '2'"));
    unsetenv("EQUIL_WINOGRAD");
}
END_TEST

START_TEST(buffers)
{
    struct eq_buffer *buffer;
    size_t before = eq_test_device->bytes_now;
    const float values[3] = { 1, 2, 3 };
    float back[3];
    EQ_TEST_OK(eq_buffer_create(eq_test_device, 64, &buffer));
    ck_assert_uint_eq(eq_test_device->bytes_now, before + 64);
    EQ_TEST_OK(eq_ref_write(eq_ref_at(buffer, 5), values, 3, 4));
    EQ_TEST_OK(eq_ref_read(eq_ref_at(buffer, 5), back, 3, 4));
    ck_assert_mem_eq(values, back, sizeof values);
    ck_assert_int_eq(eq_ref_write(eq_ref_at(buffer, 14), values, 3, 4), EQ_ERR_ARGUMENT);
    eq_buffer_destroy(&buffer);
    ck_assert_uint_eq(eq_test_device->bytes_now, before);
    size_t limit = eq_test_device->target.max_alloc_bytes;
    eq_test_device->target.max_alloc_bytes = 1000;
    ck_assert_int_eq(eq_buffer_create(eq_test_device, 1001, &buffer), EQ_ERR_DEVICE_MEMORY);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "1001"));
    eq_test_device->target.max_alloc_bytes = limit;
    eq_test_device->target.memory_bytes = 500;
    ck_assert_int_eq(eq_buffer_create(eq_test_device, 600, &buffer), EQ_ERR_DEVICE_MEMORY);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "500"));
    ck_assert_ptr_null(buffer);
}
END_TEST

START_TEST(lists)
{
    struct eq_list *list;
    struct eq_buffer *buffer;
    float back[8];
    EQ_TEST_OK(eq_buffer_create(eq_test_device, sizeof back, &buffer));
    EQ_TEST_OK(eq_list_create(eq_test_device, &list));
    EQ_TEST_OK(eq_list_fill(list, eq_ref_at(buffer, 0), 2.5f, 4));
    EQ_TEST_OK(eq_list_copy(list, eq_ref_at(buffer, 0), eq_ref_at(buffer, 4), 4));
    for (int run = 0; run < 2; run++) { // a list can run again
        const float zeros[8] = { 0 };
        EQ_TEST_OK(eq_ref_write(eq_ref_at(buffer, 0), zeros, 8, 4));
        EQ_TEST_OK(eq_list_run(list));
        EQ_TEST_OK(eq_ref_read(eq_ref_at(buffer, 0), back, 8, 4));
        for (int i = 0; i < 8; i++)
            ck_assert(back[i] == 2.5f);
    }
    struct eq_launch launch = { .source = "peak", .options = "-DBLOCK=4", .kernel = "peak_mad", .range = eq_range_1d(1, 1) };
    ck_assert_int_eq(eq_list_kernel(list, &launch, EQ_ARGS(EQ_REF(eq_ref_at(buffer, 0)))), EQ_ERR_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "5 arguments"));
    launch.kernel = "no_such_kernel";
    ck_assert_int_ne(eq_list_kernel(list, &launch, EQ_ARGS(EQ_I32(1))), EQ_OK);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "no_such_kernel"));
    launch.source = "no_such_file";
    ck_assert_int_eq(eq_list_kernel(list, &launch, EQ_ARGS(EQ_I32(1))), EQ_ERR_NOT_FOUND);
    launch = (struct eq_launch){ .source = "peak", .options = "-DBLOCK=5", .kernel = "peak_mad", .range = eq_range_1d(1, 1) };
    ck_assert_int_eq(eq_list_kernel(list, &launch, EQ_ARGS(EQ_I32(1))), EQ_ERR_BUILD);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "BLOCK is 1, 4, 8 or 16")); // the compiler's log
    ck_assert_int_eq(eq_list_length(list), 2);                                // failed calls append nothing
    eq_list_destroy(&list);
    eq_buffer_destroy(&buffer);
}
END_TEST

static void check_gemm(int m, int n, int k, bool ta, bool tb, int batch)
{
    size_t sa = (size_t)m * (size_t)k, sb = (size_t)k * (size_t)n, sc = (size_t)m * (size_t)n, b = (size_t)batch;
    float *a = eq_check_uniform("a", b * sa, 0), *x = eq_check_uniform("b", b * sb, 0), *c = eq_check_uniform("c", b * sc, 0);
    float *got = malloc(b * sc * sizeof *got);
    double *want = malloc(b * sc * sizeof *want);
    struct eq_buffer *buffer;
    struct eq_list *list;
    EQ_TEST_OK(eq_buffer_create(eq_test_device, 4 * (b * (sa + sb + sc) + 3), &buffer));
    struct eq_ref ra = eq_ref_at(buffer, 1), rb = eq_ref_at(buffer, 2 + b * sa), rc = eq_ref_at(buffer, 3 + b * (sa + sb));
    EQ_TEST_OK(eq_ref_write(ra, a, b * sa, 4));
    EQ_TEST_OK(eq_ref_write(rb, x, b * sb, 4));
    EQ_TEST_OK(eq_ref_write(rc, c, b * sc, 4));
    EQ_TEST_OK(eq_list_create(eq_test_device, &list));
    struct eq_gemm gemm = { .m = m, .n = n, .k = k, .transpose_a = ta, .transpose_b = tb, .alpha = 0.5f, .beta = 2,
                            .lda = ta ? m : k,
                            .ldb = tb ? k : n, .ldc = n, .batch = batch, .stride_a = sa, .stride_b = sb, .stride_c = sc };
    EQ_TEST_OK(eq_list_gemm(list, &gemm, ra, rb, rc));
    EQ_TEST_OK(eq_list_run(list));
    EQ_TEST_OK(eq_ref_read(rc, got, b * sc, 4));
    for (size_t t = 0; t < b; t++)
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++) {
                double sum = 0;
                for (int l = 0; l < k; l++)
                    sum += (double)a[t * sa + (size_t)(ta ? l * m + i : i * k + l)] *
                           x[t * sb + (size_t)(tb ? j * k + l : l * n + j)];
                want[t * sc + (size_t)(i * n + j)] = 0.5 * sum + 2.0 * c[t * sc + (size_t)(i * n + j)];
            }
    // k products in float32, in whatever order.
    ck_assert_double_lt(eq_check_error(got, want, b * sc), 1e-5);
    eq_list_destroy(&list);
    eq_buffer_destroy(&buffer);
    free(a);
    free(x);
    free(c);
    free(got);
    free(want);
}

START_TEST(products)
{
    check_gemm(3, 5, 7, false, false, 1);
    check_gemm(16, 10, 33, false, true, 1);
    check_gemm(10, 65, 8, true, false, 3);
    check_gemm(65, 64, 130, true, true, 2);
}
END_TEST

// Damages every file of the cache in turn; each damage is a miss, and the kernel still comes.
START_TEST(damaged_cache)
{
    static const char garbage[] = "EQKC this is no cache entry";
    char folder[] = "/tmp/equil-cache-XXXXXX", *data;
    char **names;
    size_t num, bytes;
    struct eq_device *device;
    cl_kernel kernel;
    ck_assert_ptr_nonnull(mkdtemp(folder));
    setenv("EQUIL_CACHE_DIR", folder, 1);
    for (int damage = 0; damage < 5; damage++) {
        EQ_TEST_OK(eq_device_open(getenv("EQUIL_DEVICE"), &device));
        EQ_TEST_OK(eq_kernel_create(device, "peak", "-DBLOCK=4", "peak_mad", &kernel));
        clReleaseKernel(kernel);
        eq_device_destroy(&device);
        EQ_TEST_OK(eq_dir_list(folder, &names, &num));
        // PoCL keeps a cache of its own, so Equil writes none there; everywhere else the kernel must be in it.
        ck_assert_uint_eq(num, strstr(eq_test_device->platform_version, "PoCL") ? 0 : 1);
        for (size_t i = 0; i < num; i++) {
            char *path = eq_path_join(folder, names[i]);
            EQ_TEST_OK(eq_file_read(path, 64 << 20, &data, &bytes));
            FILE *file = fopen(path, "wb");
            ck_assert_ptr_nonnull(file);
            if (damage == 0) // empty
                bytes = 0;
            else if (damage == 1) // cut
                bytes /= 2;
            else if (damage == 2) // one bit of the binary
                data[bytes - 1] ^= 1;
            else if (damage == 3) // another key
                data[20] ^= 1;
            if (damage == 4)
                fwrite(garbage, 1, sizeof garbage, file);
            else
                fwrite(data, 1, bytes, file);
            fclose(file);
            free(data);
            free(path);
        }
        eq_names_free(names, num);
    }
    EQ_TEST_OK(eq_device_open(getenv("EQUIL_DEVICE"), &device));
    EQ_TEST_OK(eq_kernel_create(device, "peak", "-DBLOCK=4", "peak_mad", &kernel));
    clReleaseKernel(kernel);
    // A folder that cannot be made is no error either.
    setenv("EQUIL_CACHE_DIR", "/proc/no/such/folder", 1);
    EQ_TEST_OK(eq_kernel_create(device, "peak", "-DBLOCK=8", "peak_mad", &kernel));
    clReleaseKernel(kernel);
    eq_device_destroy(&device);
    EQ_TEST_OK(eq_dir_list(folder, &names, &num));
    for (size_t i = 0; i < num; i++) {
        char *path = eq_path_join(folder, names[i]);
        unlink(path);
        free(path);
    }
    eq_names_free(names, num);
    rmdir(folder);
}
END_TEST

// What drivers say goes into logs, checkpoints and JSON.
START_TEST(kept_texts)
{
    char text[200], kept[128];
    eq_keep_text("G\344te \303\251 \t\n", kept);
    ck_assert_str_eq(kept, "G?te \303\251");
    eq_keep_text(" \n", kept);
    ck_assert_str_eq(kept, "");
    memset(text, 'x', sizeof text);
    memcpy(text + 126, "\303\251", 3); // of which the second byte would be the 128th
    eq_keep_text(text, kept);
    ck_assert_uint_eq(strlen(kept), 126);
    memcpy(text + 125, "\303\251", 3);
    eq_keep_text(text, kept);
    ck_assert_str_eq(kept, text);
}
END_TEST

START_TEST(peaks)
{
    double flops, bytes;
    if (eq_test_is_tiny())
        return;
    EQ_TEST_OK(eq_device_peak(eq_test_device, &flops, &bytes));
    // Any device that runs this test does more than 0.1 GFLOP/s and less than 10 PFLOP/s; outside, the clock or the wait is
    // wrong.
    ck_assert_msg(flops > 1e8 && flops < 1e16, "%g flops per second", flops);
    ck_assert_msg(bytes > 1e7 && bytes < 1e14, "%g bytes per second", bytes);
    // A network may leave little memory: less than the copy would take, in one buffer or in all.
    const struct eq_target whole = eq_test_device->target;
    eq_test_device->target.max_alloc_bytes = (size_t)40 << 20;
    EQ_TEST_OK(eq_device_peak(eq_test_device, &flops, &bytes));
    eq_test_device->target = whole;
    eq_test_device->target.memory_bytes = eq_test_device->bytes_now + ((size_t)20 << 20);
    EQ_TEST_OK(eq_device_peak(eq_test_device, &flops, &bytes));
    eq_test_device->target.memory_bytes = eq_test_device->bytes_now + 4096;
    ck_assert_int_eq(eq_device_peak(eq_test_device, &flops, &bytes), EQ_ERR_DEVICE_MEMORY);
    eq_test_device->target = whole;
}
END_TEST

EQ_TEST_MAIN("rt", { choosing, 1 }, { winograd, 1 }, { buffers, 1 }, { lists, 1 }, { products, 1 }, { damaged_cache, 1 },
             { kept_texts, 1 }, { peaks, 1 })

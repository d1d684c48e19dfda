// The bound of the folder of compiled kernels: what goes, what stays, several processes, and a device that keeps kernels there.
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rt/internal.h"
#include "support.h"

enum { ENTRY_BYTES = 4096, NUM_PROCESSES = 3, NUM_WRITTEN = 40 };

static char folder[64];

static const char *path_of(const char *name)
{
    static char path[160];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static const char *entry_name(int number)
{
    static char name[32];
    snprintf(name, sizeof name, "%016x.bin", number);
    return name;
}

static bool is_there(const char *name)
{
    return eq_file_exists(path_of(name));
}

// In seconds since 1970.
static void set_use(const char *name, time_t used)
{
    const struct timespec times[2] = { { .tv_sec = used }, { .tv_sec = used } };
    ck_assert_int_eq(utimensat(AT_FDCWD, path_of(name), times, 0), 0);
}

static void put(const char *name, size_t bytes, time_t used)
{
    FILE *file = fopen(path_of(name), "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert(ftruncate(fileno(file), (off_t)bytes) == 0 && fclose(file) == 0);
    set_use(name, used);
}

static size_t sum_bytes(void)
{
    char **names;
    size_t num, sum = 0;
    struct stat info;
    EQ_TEST_OK(eq_dir_list(folder, &names, &num));
    for (size_t i = 0; i < num; i++)
        sum += stat(path_of(names[i]), &info) == 0 ? (size_t)info.st_size : 0;
    eq_names_free(names, num);
    return sum;
}

static void open_folder(void)
{
    snprintf(folder, sizeof folder, "/tmp/equil-cache-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void close_folder(void)
{
    char command[96];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

// Ten entries, of which the number says how long ago they were used.
START_TEST(oldest)
{
    open_folder();
    for (int i = 0; i < 10; i++)
        put(entry_name(i), ENTRY_BYTES, 1000 - i);
    eq_cache_trim(folder, entry_name(0), 10 * ENTRY_BYTES);
    for (int i = 0; i < 10; i++)
        ck_assert_msg(is_there(entry_name(i)), "entry %d of a full folder went", i);
    eq_cache_touch(path_of(entry_name(8)));
    eq_cache_trim(folder, entry_name(9), 8 * ENTRY_BYTES); // down to 7: 7, 6 and 5 go
    for (int i = 0; i < 10; i++)
        ck_assert_msg(is_there(entry_name(i)) == (i < 5 || i > 7), "entry %d", i);
    // One that is larger than the limit stays until the next is written.
    put(entry_name(20), 20 * ENTRY_BYTES, 2000);
    eq_cache_trim(folder, entry_name(20), 8 * ENTRY_BYTES);
    ck_assert(is_there(entry_name(20)) && sum_bytes() == 20 * ENTRY_BYTES);
    put(entry_name(21), ENTRY_BYTES, 2001);
    eq_cache_trim(folder, entry_name(21), 8 * ENTRY_BYTES);
    ck_assert(is_there(entry_name(21)) && sum_bytes() == ENTRY_BYTES);
    close_folder();
    eq_cache_trim(folder, "", 1); // there is no folder any more
}
END_TEST

// What is not the cache's own: neither removed nor counted.
START_TEST(others)
{
    static const char *const names[] = { "tuning.txt",
                                         "0000000000000001.stamp",
                                         "notes.bin",
                                         "000000000000001.bin",
                                         "00000000000000001.bin",
                                         "000000000000000G.bin",
                                         "0000000000000001.bin2",
                                         "0000000000000001.bin.tmp.1.1" };
    open_folder();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        put(names[i], 100 * ENTRY_BYTES, 1);
    ck_assert_int_eq(mkdir(path_of("00000000000000aa.bin"), 0777), 0);
    ck_assert_int_eq(symlink("tuning.txt", path_of("00000000000000bb.bin")), 0);
    put(entry_name(1), ENTRY_BYTES, 1);
    put(entry_name(2), ENTRY_BYTES, 2);
    eq_cache_trim(folder, entry_name(2), 2 * ENTRY_BYTES);
    ck_assert_msg(is_there(entry_name(1)), "others' files are counted");
    eq_cache_trim(folder, entry_name(2), ENTRY_BYTES);
    ck_assert(!is_there(entry_name(1)) && is_there(entry_name(2)));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        ck_assert_msg(is_there(names[i]), "%s went", names[i]);
    ck_assert(is_there("00000000000000aa.bin") && is_there("00000000000000bb.bin"));
    close_folder();
}
END_TEST

// A process that writes, uses and trims. Its status: whether anything failed.
static int write_entries(int process)
{
    static const char bytes[ENTRY_BYTES];
    struct eq_writer writer;
    for (int i = 0; i < NUM_WRITTEN; i++) {
        const char *name = entry_name(process * NUM_WRITTEN + i);
        if (eq_writer_open(&writer, path_of(name)) != EQ_OK || eq_writer_write(&writer, bytes, sizeof bytes) != EQ_OK ||
            eq_writer_commit(&writer) != EQ_OK)
            return 1;
        eq_cache_trim(folder, name, 16 * ENTRY_BYTES);
        eq_cache_touch(path_of(entry_name((process + 1) % NUM_PROCESSES * NUM_WRITTEN + i))); // of another one; may be gone
    }
    return 0;
}

START_TEST(processes)
{
    pid_t pids[NUM_PROCESSES];
    int status;
    open_folder();
    fflush(NULL);
    for (int p = 0; p < NUM_PROCESSES; p++) {
        pids[p] = fork();
        ck_assert_int_ge(pids[p], 0);
        if (pids[p] == 0)
            _exit(write_entries(p));
    }
    for (int p = 0; p < NUM_PROCESSES; p++) {
        ck_assert_int_eq(waitpid(pids[p], &status, 0), pids[p]);
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "process %d ended with status %d", p, status);
    }
    ck_assert_uint_le(sum_bytes(), 16 * ENTRY_BYTES);
    ck_assert_uint_gt(sum_bytes(), 0);
    close_folder();
}
END_TEST

// Makes a kernel on a new device, which finds it in the folder or writes it there. The name of an entry that is not `known`, or
// "", where one is asked for.
static void make_kernel(const char *options, const char *known, char found[32])
{
    struct eq_device *device;
    cl_kernel kernel;
    char **names;
    size_t num;
    EQ_TEST_OK(eq_device_open(getenv("EQUIL_DEVICE"), &device));
    EQ_TEST_OK(eq_kernel_create(device, "peak", options, "peak_mad", &kernel));
    clReleaseKernel(kernel);
    eq_device_destroy(&device);
    EQ_TEST_OK(eq_dir_list(folder, &names, &num));
    for (size_t i = 0; i < num; i++)
        if (found && strcmp(names[i], known) != 0)
            snprintf(found, 32, "%s", names[i]);
    eq_names_free(names, num);
}

// A device that keeps kernels there: using one saves it, and writing one is what removes the others.
START_TEST(kernels)
{
    struct eq_device *device;
    char used[32] = "", unused[32] = "", told[32] = "";
    open_folder();
    setenv("EQUIL_CACHE_DIR", folder, 1);
    setenv("EQUIL_CACHE_MIB", "1", 1);
    make_kernel("-DBLOCK=4", "", used);
    if (eq_driver_compiles_late(eq_test_device)) {
        ck_assert_str_eq(used, ""); // its driver has a cache of its own
    } else {
        // an entry of its own, where the driver's compiler is told things
        setenv("IGC_EquilTest", "1", 1);
        make_kernel("-DBLOCK=4", used, told);
        ck_assert_str_ne(told, "");
        unsetenv("IGC_EquilTest");
        remove(path_of(told));
        make_kernel("-DBLOCK=8", used, unused);
        set_use(used, 1);
        set_use(unused, 2);
        put(entry_name(1), 1 << 20, 3);
        make_kernel("-DBLOCK=4", "", NULL); // a hit
        ck_assert(is_there(unused) && is_there(entry_name(1)));
        make_kernel("-DBLOCK=16", "", NULL);
        ck_assert(is_there(used) && !is_there(unused) && !is_there(entry_name(1)));
    }
    setenv("EQUIL_CACHE_MIB", "1x", 1);
    ck_assert_int_eq(eq_device_open(getenv("EQUIL_DEVICE"), &device), EQ_ERR_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "EQUIL_CACHE_MIB is '1x'"));
    unsetenv("EQUIL_CACHE_MIB");
    setenv("EQUIL_CACHE", "off", 1);
    ck_assert_int_eq(eq_device_open(getenv("EQUIL_DEVICE"), &device), EQ_ERR_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(eq_last_error(), "EQUIL_CACHE is 'off': it must be 0 or 1"));
    setenv("EQUIL_CACHE", "1", 1);
    EQ_TEST_OK(eq_device_open(getenv("EQUIL_DEVICE"), &device));
    eq_device_destroy(&device);
    unsetenv("EQUIL_CACHE");
    close_folder();
}
END_TEST

EQ_TEST_MAIN("cache", { oldest, 1 }, { others, 1 }, { processes, 1 }, { kernels, 1 })

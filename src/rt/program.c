// Programs: embedded text + options -> cl_program, kept per device and, as a binary, in a folder.
//
// Cache file: "EQKC" | u32 format | u64 key bytes | key | u64 binary bytes | u64 FNV-1a of the binary | binary. The key is text
// with all that the binary depends on: format, hash of the source, options, platform, device and driver, and the variables by
// which compilers are told things. It is stored whole and compared, so a collision of file names is only a miss; so is anything
// wrong with the file. Two processes may write one entry: each writes its own temporary file and renames it, the last one wins.
// cache.c keeps the folder from growing without end.
#include <stdlib.h>
#include <string.h>

#include "embedded.h"
#include "rt/internal.h"

enum { CACHE_FORMAT = 2, MAX_CACHE_BYTES = 64 << 20, MAX_DEVICES = 64, MAX_LOG = 3000 };

struct program {
    const char *source;
    char *options;
    cl_program program;
    struct program *next;
};

struct eq_programs {
    struct program *first;
};

void eq_programs_destroy(struct eq_programs **programs)
{
    if (!*programs)
        return;
    for (struct program *at = (*programs)->first, *next; at; at = next) {
        next = at->next;
        clReleaseProgram(at->program);
        free(at->options);
        free(at);
    }
    free(*programs);
    *programs = NULL;
}

static const struct eq_embedded *find_file(const char *source)
{
    for (int i = 0; i < eq_num_embedded_sources; i++)
        if (strcmp(eq_embedded_sources[i].name, source) == 0)
            return &eq_embedded_sources[i];
    return NULL;
}

static uint64_t hash_text(const struct eq_embedded *file, uint64_t hash)
{
    for (int p = 0; p < file->num_parts; p++)
        hash = eq_fnv1a(file->parts[p], strlen(file->parts[p]), hash);
    return hash;
}

// Files are in no order: a sum does not depend on it. Those that have an ending are no kernels.
const char *eq_kernels_hash(char text[20])
{
    uint64_t sum = 0;
    for (int i = 0; i < eq_num_embedded_sources; i++)
        if (!strchr(eq_embedded_sources[i].name, '.'))
            sum += hash_text(&eq_embedded_sources[i], EQ_FNV_START);
    snprintf(text, 20, "%016llx", (unsigned long long)sum);
    return text;
}

static void make_key(const struct eq_device *device, const struct eq_embedded *file, const char *options, struct eq_str *key)
{
    const unsigned long long hash[2] = { hash_text(file, EQ_FNV_START), hash_text(file, ~EQ_FNV_START) };
    size_t bytes = 0;
    for (int p = 0; p < file->num_parts; p++)
        bytes += strlen(file->parts[p]);
    eq_str_append(key, "format %d\nequil %s\nsource %016llx%016llx %zu\noptions %s\n", CACHE_FORMAT, EQ_VERSION, hash[0],
                  hash[1], bytes, options);
    // Boards of one name may differ in their units.
    eq_str_append(key, "platform %s | %s\ndevice %s | %s | %s | %d units\ndriver %s\nenvironment %016llx\nbits %d\n",
                  device->platform_name, device->platform_version, device->name, device->vendor, device->version,
                  device->target.compute_units, device->driver, (unsigned long long)eq_driver_variables_hash(),
                  (int)(8 * sizeof(void *)));
}

eq_status eq_cache_check(const struct eq_device *device)
{
    const bool is_late = eq_driver_compiles_late(device);
    EQ_REQUIRE(!is_late || !eq_pocl_cache_is_off(), EQ_ERR_IO, "POCL_KERNEL_CACHE is not 1, so PoCL keeps none");
    if (is_late)
        return EQ_OK;
    EQ_REQUIRE(!eq_option_is_off(EQ_OPTION_CACHE), EQ_ERR_IO, "%s is 0", eq_option_variable(EQ_OPTION_CACHE));
    EQ_REQUIRE(eq_has_cache_folder(), EQ_ERR_IO, "there is no home folder, and %s names no other",
               eq_option_variable(EQ_OPTION_CACHE_DIR));
    char *folder = eq_cache_folder(), *path = folder ? eq_path_join(folder, "check") : NULL;
    eq_status status = path ? eq_dir_make(folder) : EQ_ERR_HOST_MEMORY;
    status = status ? status : eq_file_check(path);
    free(folder);
    free(path);
    return status;
}

// NULL when there is no folder, or no cache wanted.
static char *cache_path(const struct eq_str *key)
{
    if (eq_option_is_off(EQ_OPTION_CACHE))
        return NULL;
    char *folder = eq_cache_folder();
    if (!folder)
        return NULL;
    char name[64];
    snprintf(name, sizeof name, "%016llx.bin", (unsigned long long)eq_fnv1a(key->text, key->length, EQ_FNV_START));
    char *path = eq_path_join(folder, name);
    free(folder);
    return path;
}

static bool take(const char **at, const char *end, void *out, size_t bytes)
{
    if ((size_t)(end - *at) < bytes)
        return false;
    memcpy(out, *at, bytes);
    *at += bytes;
    return true;
}

bool eq_cache_entry_find(const char *data, size_t bytes, const char *key, size_t length, const unsigned char **binary,
                         size_t *binary_bytes)
{
    const char *at = data, *end = data + bytes;
    char magic[4];
    uint32_t format;
    uint64_t key_bytes, size, hash;
    if (!take(&at, end, magic, 4) || memcmp(magic, "EQKC", 4) != 0 || !take(&at, end, &format, 4) || format != CACHE_FORMAT)
        return false;
    if (!take(&at, end, &key_bytes, 8) || key_bytes != length || (size_t)(end - at) < key_bytes ||
        memcmp(at, key, key_bytes) != 0)
        return false;
    at += key_bytes;
    if (!take(&at, end, &size, 8) || !take(&at, end, &hash, 8) || (size_t)(end - at) != size ||
        eq_fnv1a(at, size, EQ_FNV_START) != hash)
        return false;
    *binary = (const unsigned char *)at;
    *binary_bytes = size;
    return true;
}

static cl_program load_binary(const struct eq_device *device, const char *path, const struct eq_str *key, const char *options)
{
    char *data;
    size_t bytes, size;
    const unsigned char *binary;
    cl_program program = NULL;
    if (!eq_file_exists(path) || eq_file_read(path, MAX_CACHE_BYTES, &data, &bytes) != EQ_OK)
        return NULL;
    if (eq_cache_entry_find(data, bytes, key->text, key->length, &binary, &size)) {
        cl_int status, code;
        eq_cache_touch(path);
        program = clCreateProgramWithBinary(device->context, 1, &device->id, &size, &binary, &status, &code);
        if (program && (code != CL_SUCCESS || clBuildProgram(program, 1, &device->id, options, NULL, NULL) != CL_SUCCESS)) {
            clReleaseProgram(program);
            program = NULL;
        }
    }
    free(data);
    return program;
}

// The device's binary; NULL: none. A program of a caller's context has a place for each of its devices, and binaries for those
// that it was built for.
static unsigned char *read_binary(cl_program program, cl_device_id id, size_t *size)
{
    cl_device_id ids[MAX_DEVICES];
    size_t sizes[MAX_DEVICES] = { 0 }, bytes = 0;
    unsigned char *binaries[MAX_DEVICES] = { NULL };
    if (clGetProgramInfo(program, CL_PROGRAM_DEVICES, sizeof ids, ids, &bytes) != CL_SUCCESS ||
        clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof sizes, sizes, NULL) != CL_SUCCESS)
        return NULL;
    const size_t num = bytes / sizeof *ids;
    size_t at = 0;
    while (at < num && ids[at] != id)
        at++;
    if (at == num || sizes[at] == 0 || !(binaries[at] = malloc(sizes[at])))
        return NULL;
    *size = sizes[at];
    if (clGetProgramInfo(program, CL_PROGRAM_BINARIES, num * sizeof *binaries, binaries, NULL) == CL_SUCCESS)
        return binaries[at];
    free(binaries[at]);
    return NULL;
}

static eq_status store_binary(const struct eq_device *device, const char *path, const struct eq_str *key, cl_program program)
{
    size_t size;
    unsigned char *binary = read_binary(program, device->id, &size);
    EQ_REQUIRE(binary, EQ_ERR_IO, "%s: the driver gives no binary of a program", device->name);
    char *folder = eq_strdup(path);
    struct eq_writer writer;
    uint32_t format = CACHE_FORMAT;
    uint64_t key_bytes = key->length, bytes = size, hash = eq_fnv1a(binary, size, EQ_FNV_START);
    if (folder)
        *strrchr(folder, '/') = '\0';
    bool is_stored = folder && eq_dir_make(folder) == EQ_OK && eq_writer_open(&writer, path) == EQ_OK &&
                     eq_writer_write(&writer, "EQKC", 4) == EQ_OK && eq_writer_write(&writer, &format, 4) == EQ_OK &&
                     eq_writer_write(&writer, &key_bytes, 8) == EQ_OK &&
                     eq_writer_write(&writer, key->text, key->length) == EQ_OK &&
                     eq_writer_write(&writer, &bytes, 8) == EQ_OK && eq_writer_write(&writer, &hash, 8) == EQ_OK &&
                     eq_writer_write(&writer, binary, size) == EQ_OK && eq_writer_commit(&writer) == EQ_OK;
    if (is_stored)
        eq_cache_trim(folder, path + strlen(folder) + 1, device->max_kept_bytes);
    free(folder);
    free(binary);
    return is_stored ? EQ_OK : EQ_ERR_IO;
}

// Best effort: a cache that cannot be written is logged, once, and otherwise as if there were none. Compiling ahead is for
// nothing else.
static eq_status keep(struct eq_device *device, const char *path, const struct eq_str *key, cl_program program)
{
    const eq_status status = store_binary(device, path, key, program);
    if (status == EQ_OK || device->ahead)
        return status == EQ_OK ? EQ_OK : eq_fail(EQ_ERR_IO, "cache of compiled kernels: %s", eq_last_error());
    if (!device->has_cache_warning)
        eq_log(EQ_LOG_WARNING, "cache of compiled kernels: %s", eq_last_error());
    device->has_cache_warning = true;
    return EQ_OK;
}

// malloc'ed; NULL: none. A buffer that is too small for it would get nothing at all.
static char *read_log(cl_program program, cl_device_id id)
{
    size_t bytes = 0;
    clGetProgramBuildInfo(program, id, CL_PROGRAM_BUILD_LOG, 0, NULL, &bytes);
    char *log = bytes ? calloc(bytes + 1, 1) : NULL;
    if (log)
        clGetProgramBuildInfo(program, id, CL_PROGRAM_BUILD_LOG, bytes, log, NULL);
    return log;
}

// One attempt. *program is NULL where there is not even an object.
static cl_int compile(const struct eq_device *device, const struct eq_embedded *file, const char *options, cl_program *program)
{
    cl_int code;
    *program = clCreateProgramWithSource(device->context, (cl_uint)file->num_parts, (const char **)file->parts, NULL, &code);
    return *program ? clBuildProgram(*program, 1, &device->id, options, NULL, NULL) : code;
}

static eq_status build_source(struct eq_device *device, const struct eq_embedded *file, const char *options, cl_program *out)
{
    cl_program program;
    int num_retries = 0;
    cl_int code = compile(device, file, options, &program);
    while (eq_device_retries(device, code, &num_retries)) {
        if (program)
            clReleaseProgram(program);
        code = compile(device, file, options, &program);
    }
    EQ_REQUIRE(program, EQ_ERR_DEVICE, "%s.cl: %s", file->name, eq_cl_error(code));
    if (code == CL_SUCCESS) {
        *out = program;
        return EQ_OK;
    }
    char *log = read_log(program, device->id);
    clReleaseProgram(program);
    eq_status status = eq_fail(EQ_ERR_BUILD, "%s: %s.cl with options '%s': %s\n%.*s", device->name, file->name, options,
                               eq_cl_error(code), MAX_LOG, log ? log : "");
    free(log);
    return status;
}

// PoCL keeps the machine code of each kernel in a cache of its own; what it gives as a program's binary costs a second
// compilation.
bool eq_driver_compiles_late(const struct eq_device *device)
{
    return strstr(device->platform_version, "PoCL") || strstr(device->platform_version, "pocl");
}

static eq_status build(struct eq_device *device, const char *source, const char *options, cl_program *program)
{
    const struct eq_embedded *file = find_file(source);
    EQ_REQUIRE(file, EQ_ERR_NOT_FOUND, "no kernel file %s.cl in the library", source);
    struct eq_str key = { 0 };
    make_key(device, file, options, &key);
    if (key.failed)
        return EQ_ERR_HOST_MEMORY;
    char *path = eq_driver_compiles_late(device) ? NULL : cache_path(&key);
    eq_status status = EQ_OK;
    *program = path ? load_binary(device, path, &key, options) : NULL;
    if (!*program) {
        status = build_source(device, file, options, program);
        if (status == EQ_OK && path)
            status = keep(device, path, &key, *program);
        if (status != EQ_OK && *program)
            clReleaseProgram(*program);
    }
    free(path);
    eq_str_free(&key);
    return status;
}

static eq_status find_program(struct eq_device *device, const char *source, const char *options, cl_program *program)
{
    if (!device->programs)
        EQ_ALLOC(device->programs, 1);
    for (struct program *at = device->programs->first; at; at = at->next)
        if (strcmp(at->source, source) == 0 && strcmp(at->options, options) == 0) {
            *program = at->program;
            return EQ_OK;
        }
    struct program *entry;
    EQ_ALLOC(entry, 1);
    entry->source = source;
    entry->options = eq_strdup(options);
    eq_status status = entry->options ? build(device, source, options, &entry->program) : EQ_ERR_HOST_MEMORY;
    if (status != EQ_OK) {
        free(entry->options);
        free(entry);
        return status;
    }
    entry->next = device->programs->first;
    device->programs->first = entry;
    *program = entry->program;
    return EQ_OK;
}

// What a program is built with beside the `options` that were asked for.
static void append_options(const struct eq_device *device, const char *options, struct eq_str *text)
{
    const char *extra = eq_option(EQ_OPTION_BUILD);
    eq_str_append(text, "-cl-std=CL1.2 -DEQ_FMA=%d %s%s%s", device->target.has_fma, options ? options : "", extra ? " " : "",
                  extra ? extra : "");
}

eq_status eq_program_is_kept(const struct eq_device *device, const char *source, const char *options, bool *is_kept)
{
    const struct eq_embedded *file = find_file(source);
    struct eq_str text = { 0 }, key = { 0 };
    *is_kept = eq_driver_compiles_late(device);
    if (*is_kept)
        return EQ_OK;
    EQ_REQUIRE(file, EQ_ERR_NOT_FOUND, "no kernel file %s.cl in the library", source);
    append_options(device, options, &text);
    if (!text.failed)
        make_key(device, file, text.text, &key);
    const eq_status status = text.failed || key.failed ? EQ_ERR_HOST_MEMORY : EQ_OK;
    char *path = status == EQ_OK ? cache_path(&key) : NULL;
    *is_kept = path && eq_file_exists(path);
    free(path);
    eq_str_free(&text);
    eq_str_free(&key);
    return status;
}

eq_status eq_kernel_create(struct eq_device *device, const char *source, const char *options, const char *kernel,
                           cl_kernel *out)
{
    struct eq_str text = { 0 };
    append_options(device, options, &text);
    if (text.failed)
        return EQ_ERR_HOST_MEMORY;
    cl_program program;
    eq_status status = find_program(device, source, text.text, &program);
    eq_str_free(&text);
    EQ_TRY(status);
    int num_retries = 0;
    cl_int code;
    do // some drivers compile here
        *out = clCreateKernel(program, kernel, &code);
    while (eq_device_retries(device, code, &num_retries));
    EQ_REQUIRE(code == CL_SUCCESS, EQ_ERR_DEVICE, "%s.cl has no kernel %s: %s", source, kernel, eq_cl_error(code));
    return EQ_OK;
}

// The tuning that a device gets when it is opened: the file of the user over the defaults of the library.
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "embedded.h"
#include "rt/internal.h"

struct eq_tuning_identity eq_device_identity(const struct eq_device *device)
{
    struct eq_tuning_identity identity = { .library = EQ_VERSION };
    snprintf(identity.device, sizeof identity.device, "%s", device->name);
    snprintf(identity.driver, sizeof identity.driver, "%s", device->driver);
    snprintf(identity.platform, sizeof identity.platform, "%s", device->platform_name);
    snprintf(identity.vendor, sizeof identity.vendor, "%s", device->vendor);
    snprintf(identity.kind, sizeof identity.kind, "%s",
             device->kind == EQ_KIND_CPU   ? "cpu"
             : device->kind == EQ_KIND_GPU ? "gpu"
                                           : "other");
    return identity;
}

// The device's name as a file's, and a hash against names that become the same.
char *eq_device_tuning_file(const struct eq_device *device)
{
    char *cache = eq_cache_folder(), name[96];
    if (!cache)
        return NULL;
    uint64_t hash = eq_fnv1a(device->name, strlen(device->name) + 1, EQ_FNV_START);
    hash = eq_fnv1a(device->platform_name, strlen(device->platform_name), hash);
    size_t length = 0;
    for (const char *at = device->name; *at && length < 40; at++)
        if (isalnum((unsigned char)*at))
            name[length++] = (char)tolower((unsigned char)*at);
        else if (length && name[length - 1] != '-')
            name[length++] = '-';
    snprintf(name + length, sizeof name - length, "-%08x.txt", (unsigned)(hash ^ hash >> 32));
    char *folder = eq_path_join(cache, "tuning"), *path = folder ? eq_path_join(folder, name) : NULL;
    free(folder);
    free(cache);
    return path;
}

static const char *shipped_text(void)
{
    for (int i = 0; i < eq_num_embedded_sources; i++)
        if (strcmp(eq_embedded_sources[i].name, "tuned.txt") == 0)
            return eq_embedded_sources[i].parts[0];
    return NULL;
}

eq_status eq_tuning_read_shipped(struct eq_tuning *tuning, const struct eq_device *device)
{
    const struct eq_tuning_identity identity = eq_device_identity(device);
    const char *shipped = eq_option_is_off(EQ_OPTION_TUNING) ? NULL : shipped_text();
    return shipped ? eq_tuning_parse(tuning, "cl/tuned.txt", shipped, &identity, NULL) : EQ_OK;
}

eq_status eq_tuning_read(struct eq_tuning *tuning, const char *path, const struct eq_device *device,
                         struct eq_tuning_identity *header)
{
    const struct eq_tuning_identity identity = eq_device_identity(device);
    char *text;
    size_t bytes;
    EQ_TRY(eq_file_read(path, EQ_TUNE_MAX_FILE_BYTES, &text, &bytes));
    eq_status status = strlen(text) == bytes ? eq_tuning_parse(tuning, path, text, &identity, header)
                                             : eq_fail(EQ_ERR_FORMAT, "%s: no tuning: it has a NUL", path);
    free(text);
    return status;
}

// With a word where it was measured otherwise.
static eq_status read_file(struct eq_device *device, const char *path)
{
    const struct eq_tuning_identity identity = eq_device_identity(device);
    struct eq_tuning_identity header;
    EQ_TRY(eq_tuning_read(device->tuning, path, device, &header));
    if (*header.device && strcmp(header.device, identity.device) != 0)
        eq_log(EQ_LOG_WARNING, "%s was measured on %s, this is %s", path, header.device, identity.device);
    else if (*header.driver && strcmp(header.driver, identity.driver) != 0)
        eq_log(EQ_LOG_WARNING, "%s was measured with driver %s, this is %s: 'equil tune' measures anew", path,
               header.driver, identity.driver);
    return EQ_OK;
}

static eq_status read_files(struct eq_device *device)
{
    const char *named = eq_option(EQ_OPTION_TUNING);
    if (eq_option_is_off(EQ_OPTION_TUNING))
        return EQ_OK;
    EQ_TRY(eq_tuning_read_shipped(device->tuning, device));
    eq_tuning_hash(device->tuning, device->shipped_tuning);
    if (named) {
        eq_status status = read_file(device, named);
        if (status != EQ_OK)
            return eq_fail(status, "%s: %s", eq_option_variable(EQ_OPTION_TUNING), eq_last_error());
        device->tuning_path = eq_strdup(named);
        return device->tuning_path ? EQ_OK : EQ_ERR_HOST_MEMORY;
    }
    char *path = eq_device_tuning_file(device);
    EQ_REQUIRE(path || !eq_has_cache_folder(), EQ_ERR_HOST_MEMORY, "out of memory: the path of the tuning");
    if (path && eq_file_exists(path)) {
        const eq_status status = read_file(device, path);
        if (status == EQ_OK) {
            device->tuning_path = path;
            return EQ_OK;
        }
        if (status == EQ_ERR_HOST_MEMORY) { // no fault of the file: other choices would be other sums
            free(path);
            return status;
        }
        eq_log(EQ_LOG_WARNING, "%s: the defaults are taken; remove the file, and 'equil tune' measures anew", eq_last_error());
    }
    free(path);
    return EQ_OK;
}

eq_status eq_device_open_tuning(struct eq_device *device)
{
    EQ_TRY(eq_tuning_create(&device->tuning));
    EQ_TRY(read_files(device));
    device->target.tuning = device->tuning;
    char hash[20];
    const int num = eq_tuning_num(device->tuning);
    if (num == 0)
        snprintf(device->tuning_text, sizeof device->tuning_text, "none");
    else
        snprintf(device->tuning_text, sizeof device->tuning_text, "%s, %d choices%s%s", eq_tuning_hash(device->tuning, hash),
                 num, device->tuning_path ? ", " : " of the library", device->tuning_path ? device->tuning_path : "");
    return EQ_OK;
}

void eq_device_close_tuning(struct eq_device *device)
{
    eq_tuning_destroy(&device->tuning);
    free(device->tuning_path);
}

const char *eq_device_tuning_text(const struct eq_device *device)
{
    return device->tuning_text;
}

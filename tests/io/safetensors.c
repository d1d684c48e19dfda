// safetensors: what is written is read back, every element type, and files that lie about themselves.
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "io/safetensors.h"
#include "io_test.h"

// Writes 8 bytes of length, a header and `data_bytes` zeros.
static const char *write_file(const char *header, size_t header_bytes, uint64_t length, size_t data_bytes)
{
    const char *path = io_path("hostile.safetensors");
    size_t bytes = 8 + header_bytes + data_bytes;
    char *all = calloc(1, bytes);
    memcpy(all, &length, 8);
    memcpy(all + 8, header, header_bytes);
    io_write(path, all, bytes);
    free(all);
    return path;
}

#define T(name, type, shape, from, to) \
    "\"" name "\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}"

static const struct {
    const char *name, *header;
    size_t data_bytes;
    eq_status status;
    const char *part; // of the error text
} headers[] = {
    { "nothing in it", "{}", 0, EQ_OK, "" },
    { "filled up with spaces", "{" T("a", "F32", "[2]", 0, 8) "}     ", 8, EQ_OK, "" },
    { "scalar", "{" T("a", "F32", "[]", 0, 4) "}", 4, EQ_OK, "" },
    { "empty tensors", "{" T("a", "F32", "[0]", 0, 0) "," T("b", "U8", "[3]", 0, 3) "," T("c", "F32", "[7,0]", 3, 3) "}", 3,
      EQ_OK, "" },
    { "huge shape times 0", "{" T("a", "F32", "[9223372036854775807,9223372036854775807,0]", 0, 0) "}", 0, EQ_OK, "" },
    { "not in the order of data", "{" T("b", "U8", "[1]", 1, 2) "," T("a", "U8", "[1]", 0, 1) "}", 2, EQ_OK, "" },
    { "rank 8", "{" T("a", "U8", "[1,1,1,1,1,1,1,1]", 0, 1) "}", 1, EQ_OK, "" },
    { "no header", "", 0, EQ_ERR_FORMAT, "not JSON" },
    { "cut off", "{" T("a", "F32", "[2]", 0, 8), 8, EQ_ERR_FORMAT, "not JSON" },
    { "text behind", "{} x", 0, EQ_ERR_FORMAT, "not JSON" },
    { "a list", "[1,2]", 0, EQ_ERR_FORMAT, "not a JSON object" },
    { "a number", "{\"a\":1}", 0, EQ_ERR_FORMAT, "tensor a: not a JSON object" },
    { "not UTF-8", "{\"\xff\xfe\":{}}", 0, EQ_ERR_FORMAT, "not JSON" },
    { "NUL in a name", "{\"a\\u0000b\":{}}", 0, EQ_ERR_FORMAT, "not JSON" },
    { "name twice", "{" T("a", "U8", "[1]", 0, 1) "," T("a", "U8", "[1]", 1, 2) "}", 2, EQ_ERR_FORMAT, "uplicate" },
    { "no dtype", "{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, EQ_ERR_FORMAT, "tensor a: no text \"dtype\"" },
    { "dtype a number", "{\"a\":{\"dtype\":3,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, EQ_ERR_FORMAT, "dtype" },
    { "unknown dtype", "{" T("a", "F33", "[1]", 0, 4) "}", 4, EQ_ERR_FORMAT, "unknown dtype \"F33\"" },
    { "dtype in small letters", "{" T("a", "f32", "[1]", 0, 4) "}", 4, EQ_ERR_FORMAT, "unknown dtype" },
    { "no shape", "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, EQ_ERR_FORMAT, "no list \"shape\"" },
    { "shape an object", "{" T("a", "U8", "{}", 0, 1) "}", 1, EQ_ERR_FORMAT, "no list \"shape\"" },
    { "negative extent", "{" T("a", "U8", "[-1]", 0, 1) "}", 1, EQ_ERR_FORMAT, "dimension 0 is -1" },
    { "two negative extents", "{" T("a", "U8", "[-1,-1]", 0, 1) "}", 1, EQ_ERR_FORMAT, "dimension 0 is -1" },
    { "extent a fraction", "{" T("a", "U8", "[1.0]", 0, 1) "}", 1, EQ_ERR_FORMAT, "dimension 0 is not an integer" },
    { "extent a text", "{" T("a", "U8", "[\"1\"]", 0, 1) "}", 1, EQ_ERR_FORMAT, "dimension 0 is not an integer" },
    { "extent over 64 bits", "{" T("a", "U8", "[18446744073709551617]", 0, 1) "}", 1, EQ_ERR_FORMAT, "not JSON" },
    { "product wraps to 1", "{" T("a", "U8", "[4294967297,4294967295,65537]", 0, 1) "}", 1, EQ_ERR_FORMAT, "can be counted" },
    { "product wraps to 0", "{" T("a", "U8", "[4294967296,4294967296]", 0, 0) "}", 0, EQ_ERR_FORMAT, "can be counted" },
    { "bytes wrap to 4", "{" T("a", "F32", "[4611686018427387905]", 0, 4) "}", 4, EQ_ERR_FORMAT, "can be counted" },
    { "rank 9", "{" T("a", "U8", "[1,1,1,1,1,1,1,1,1]", 0, 1) "}", 1, EQ_ERR_FORMAT, "9 dimensions, at most 8" },
    { "no offsets", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, EQ_ERR_FORMAT, "data_offsets" },
    { "three offsets", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}", 1, EQ_ERR_FORMAT, "data_offsets" },
    { "offsets an object", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":{}}}", 1, EQ_ERR_FORMAT, "data_offsets" },
    { "negative offset", "{" T("a", "U8", "[1]", -1, 0) "}", 1, EQ_ERR_FORMAT, "offsets -1 to 0 are outside the 1 bytes" },
    { "offsets backwards", "{" T("a", "U8", "[1]", 1, 0) "}", 1, EQ_ERR_FORMAT, "offsets 1 to 0" },
    { "behind the end", "{" T("a", "U8", "[2]", 0, 2) "}", 1, EQ_ERR_FORMAT, "offsets 0 to 2 are outside the 1 bytes" },
    { "far behind the end", "{" T("a", "U8", "[1]", 9223372036854775806, 9223372036854775807) "}", 1, EQ_ERR_FORMAT,
      "outside" },
    { "size and shape differ", "{" T("a", "F32", "[2]", 0, 4) "}", 4, EQ_ERR_FORMAT, "hold 4 bytes, its shape 8" },
    { "overlap", "{" T("a", "U8", "[2]", 0, 2) "," T("b", "U8", "[2]", 1, 3) "}", 3, EQ_ERR_FORMAT, "they overlap" },
    { "the same bytes twice", "{" T("a", "U8", "[2]", 0, 2) "," T("b", "U8", "[2]", 0, 2) "}", 2, EQ_ERR_FORMAT,
      "they overlap" },
    { "gap", "{" T("a", "U8", "[1]", 0, 1) "," T("b", "U8", "[1]", 2, 3) "}", 3, EQ_ERR_FORMAT, "a gap" },
    { "gap before the first", "{" T("a", "U8", "[1]", 1, 2) "}", 2, EQ_ERR_FORMAT, "a gap" },
    { "bytes left over", "{" T("a", "U8", "[1]", 0, 1) "}", 2, EQ_ERR_FORMAT, "the file has 2 behind the header" },
    { "metadata a list", "{\"__metadata__\":[]}", 0, EQ_ERR_FORMAT, "__metadata__ is not" },
    { "metadata a number", "{\"__metadata__\":{\"a\":1}}", 0, EQ_ERR_FORMAT, "value of \"a\" is not a text" },
    { "colours in a name", "{\"\\u001b[31mred\":1}", 0, EQ_ERR_FORMAT, "tensor ?[31mred" },
};

START_TEST(hostile_headers)
{
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        size_t length = strlen(headers[i].header);
        struct eq_tensors *file = NULL;
        const char *path = write_file(headers[i].header, length, length, headers[i].data_bytes);
        eq_status status = eq_tensors_open(path, &file);
        ck_assert_msg(status == headers[i].status, "%s: %s (%s)", headers[i].name, eq_status_name(status), eq_last_error());
        ck_assert_msg((file != NULL) == (status == EQ_OK), "%s: a handle with %s", headers[i].name, eq_status_name(status));
        if (status != EQ_OK) {
            ck_assert_msg(strstr(eq_last_error(), headers[i].part) != NULL, "%s: \"%s\"", headers[i].name, eq_last_error());
            ck_assert_msg(strstr(eq_last_error(), "hostile.safetensors") != NULL, "%s: no file name", headers[i].name);
        }
        eq_tensors_close(&file);
    }
}
END_TEST

START_TEST(hostile_lengths)
{
    static const uint64_t lengths[] = {
        3, 100000001, 0x100000000ull, 0x7fffffffffffffffull, 0xffffffffffffffffull, 0xfffffffffffffff8ull
    };
    struct eq_tensors *file;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        IO_FAILS(eq_tensors_open(write_file("{}", 2, lengths[i], 0), &file), EQ_ERR_FORMAT, "its header would have");
    IO_FAILS(eq_tensors_open(write_file("{}", 2, 1, 0), &file), EQ_ERR_FORMAT, "not JSON");
    for (size_t bytes = 0; bytes < 8; bytes++) {
        io_write(io_path("short"), "\2\0\0\0\0\0\0", bytes);
        IO_FAILS(eq_tensors_open(io_path("short"), &file), EQ_ERR_FORMAT, "too few");
    }
    IO_FAILS(eq_tensors_open(io_path("none"), &file), EQ_ERR_IO, "No such file");
    IO_FAILS(eq_tensors_open("/tmp", &file), EQ_ERR_IO, "not a regular file");
    IO_FAILS(eq_tensors_open("/dev/null", &file), EQ_ERR_IO, "not a regular file");
    char pipe[] = "/tmp/equil-pipe-XXXXXX", *data;
    size_t bytes;
    close(mkstemp(pipe));
    unlink(pipe);
    ck_assert_int_eq(mkfifo(pipe, 0600), 0); // nobody will ever write to it
    IO_FAILS(eq_tensors_open(pipe, &file), EQ_ERR_IO, "not a regular file");
    IO_FAILS(eq_file_read(pipe, 100, &data, &bytes), EQ_ERR_IO, "not a regular file");
    unlink(pipe);
}
END_TEST

START_TEST(deep_nesting)
{
    enum { DEPTH = 200000 };
    struct eq_tensors *file;
    char *text = malloc(DEPTH);
    memset(text, '[', DEPTH);
    IO_FAILS(eq_tensors_open(write_file(text, DEPTH, DEPTH, 0), &file), EQ_ERR_FORMAT, "not JSON");
    memset(text, '{', DEPTH);
    IO_FAILS(eq_tensors_open(write_file(text, DEPTH, DEPTH, 0), &file), EQ_ERR_FORMAT, "not JSON");
    free(text);
}
END_TEST

// Every byte of a good file is changed in turn, and the file is cut at every length: an error or other values, never a crash.
START_TEST(damaged_everywhere)
{
    static const char header[] =
        "{\"__metadata__\":{\"k\":\"v\"}," T("aa", "F32", "[2]", 0, 8) "," T("bb", "I64", "[1,1]", 8, 16) "}";
    size_t length = sizeof header - 1, num_open = 0;
    struct eq_tensors *file;
    for (size_t i = 0; i < length; i++)
        for (int bit = 0; bit < 8; bit++) {
            char text[sizeof header];
            memcpy(text, header, sizeof header);
            text[i] = (char)(text[i] ^ 1 << bit);
            float values[2];
            if (eq_tensors_open(write_file(text, length, length, 16), &file) != EQ_OK)
                continue;
            num_open++;
            eq_status status = eq_tensors_read_f32(file, "aa", values, 2);
            ck_assert_msg(status == EQ_OK || status == EQ_ERR_NOT_FOUND || status == EQ_ERR_FORMAT, "byte %zu bit %d: %s", i,
                          bit, eq_last_error());
            eq_tensors_close(&file);
        }
    ck_assert_uint_gt(num_open, 20); // names and keys
    for (size_t data = 0; data < 16; data++)
        IO_FAILS(eq_tensors_open(write_file(header, length, length, data), &file), EQ_ERR_FORMAT, "outside");
}
END_TEST

START_TEST(round_trip)
{
    static const float weights[6] = { 0.0f, -0.0f, 1.5f, -3.25e-30f, INFINITY, 7e30f };
    static const int64_t labels[3] = { -1, INT64_MAX, INT64_MIN };
    static const uint8_t bytes[3] = { 0, 128, 255 };
    const struct eq_tensor_entry entries[] = {
        { .name = "w", .num_dims = 2, .dims = { 2, 3 }, .data = weights },
        { .name = "odd", .type = EQ_DATA_U8, .num_dims = 1, .dims = { 3 }, .data = bytes },
        { .name = "labels", .type = EQ_DATA_I64, .num_dims = 1, .dims = { 3 }, .data = labels },
        { .name = "\xc3\xa4 \"quoted\"\n", .num_dims = 0, .data = &weights[2] },
        { .name = "empty", .num_dims = 2, .dims = { 0, 4 } },
    };
    const struct eq_tensors_text texts[] = { { "arch", "ce-resnet20" },
                                             { "classes", "[\"a\", \"\xe2\x82\xac\"]" },
                                             { "", "" } };
    const char *path = io_path("round.safetensors"), *again = io_path("again.safetensors");
    float read[6], one;
    int64_t read_labels[3];
    struct eq_tensors *file;
    IO_OK(eq_tensors_save(path, entries, 5, texts, 3));
    IO_OK(eq_tensors_save(again, entries, 5, texts, 3));
    IO_OK(eq_tensors_open(path, &file));
    ck_assert_uint_eq(eq_tensors_num(file), 5);
    ck_assert_str_eq(eq_tensors_at(file, 0)->name, "labels"); // the widest come first
    ck_assert(eq_tensors_at(file, 5) == NULL);
    const struct eq_tensor_entry *w = eq_tensors_find(file, "w");
    ck_assert(w && w->type == EQ_DATA_F32 && w->num_dims == 2 && w->dims[0] == 2 && w->dims[1] == 3 && w->elems == 6);
    IO_OK(eq_tensors_read_f32(file, "w", read, 6));
    ck_assert_mem_eq(read, weights, sizeof weights);
    IO_OK(eq_tensors_read_f32(file, entries[3].name, &one, 1));
    ck_assert_float_eq(one, 1.5f);
    IO_OK(eq_tensors_read_i64(file, "labels", read_labels, 3));
    ck_assert_mem_eq(read_labels, labels, sizeof labels);
    IO_OK(eq_tensors_read_i64(file, "odd", read_labels, 3));
    ck_assert(read_labels[0] == 0 && read_labels[1] == 128 && read_labels[2] == 255);
    IO_OK(eq_tensors_read_f32(file, "empty", read, 0));
    IO_FAILS(eq_tensors_read_f32(file, "w", read, 5), EQ_ERR_SHAPE, "6 elements, 5 are wanted");
    IO_FAILS(eq_tensors_read_f32(file, "v", read, 6), EQ_ERR_NOT_FOUND, "no tensor v");
    IO_FAILS(eq_tensors_read_f32(file, "labels", read, 3), EQ_ERR_FORMAT, "is I64");
    IO_FAILS(eq_tensors_read_i64(file, "w", read_labels, 6), EQ_ERR_FORMAT, "is F32");
    ck_assert_uint_eq(eq_tensors_num_texts(file), 3);
    ck_assert_str_eq(eq_tensors_text(file, "arch"), "ce-resnet20");
    ck_assert_str_eq(eq_tensors_text(file, "classes"), texts[1].value);
    ck_assert(eq_tensors_text(file, "none") == NULL && eq_tensors_text_at(file, 3).key == NULL);
    eq_tensors_close(&file);
    ck_assert(file == NULL);
    char *first, *second;
    size_t num_first, num_second;
    IO_OK(eq_file_read(path, 4096, &first, &num_first));
    IO_OK(eq_file_read(again, 4096, &second, &num_second));
    ck_assert_uint_eq(num_first, num_second);
    ck_assert_mem_eq(first, second, num_first);
    ck_assert_int_eq(first[0] % 8, 0);
    free(first);
    free(second);
}
END_TEST

// One value of each type, by its bits.
START_TEST(element_types)
{
    static const uint16_t halves[] = { 0x0000, 0x8000, 0x3c00, 0xc000, 0x0001, 0x03ff,
                                       0x0400, 0x7bff, 0x7c00, 0xfc00, 0x7e00, 0x3555 };
    static const float half_values[] = { 0.0f,     -0.0f,    1.0f,     -2.0f,     0x1p-24f, 0x1.ff8p-15f,
                                         0x1p-14f, 65504.0f, INFINITY, -INFINITY, NAN,      0.333251953125f };
    static const uint16_t brains[] = { 0x3f80, 0xc049, 0x7f80, 0x0001 };
    static const float brain_values[] = { 1.0f, -3.140625f, INFINITY, 0x1p-133f };
    static const double doubles[] = { 1.0, 0.1, 1e300, -1e-300 };
    static const float double_values[] = { 1.0f, 0.1f, INFINITY, -0.0f };
    static const int8_t i8[] = { -128, -1, 127 };
    static const int16_t i16[] = { -32768, -1, 32767 };
    static const int32_t i32[] = { INT32_MIN, -1, INT32_MAX };
    static const uint32_t u32[] = { 0, 1, UINT32_MAX };
    static const uint64_t u64[] = { 0, 1, INT64_MAX }, too_large[] = { 0x8000000000000000ull };
    const struct eq_tensor_entry entries[] = {
        { .name = "f16", .type = EQ_DATA_F16, .num_dims = 1, .dims = { 12 }, .data = halves },
        { .name = "bf16", .type = EQ_DATA_BF16, .num_dims = 1, .dims = { 4 }, .data = brains },
        { .name = "f64", .type = EQ_DATA_F64, .num_dims = 1, .dims = { 4 }, .data = doubles },
        { .name = "i8", .type = EQ_DATA_I8, .num_dims = 1, .dims = { 3 }, .data = i8 },
        { .name = "i16", .type = EQ_DATA_I16, .num_dims = 1, .dims = { 3 }, .data = i16 },
        { .name = "i32", .type = EQ_DATA_I32, .num_dims = 1, .dims = { 3 }, .data = i32 },
        { .name = "u32", .type = EQ_DATA_U32, .num_dims = 1, .dims = { 3 }, .data = u32 },
        { .name = "u64", .type = EQ_DATA_U64, .num_dims = 1, .dims = { 3 }, .data = u64 },
        { .name = "large", .type = EQ_DATA_U64, .num_dims = 1, .dims = { 1 }, .data = too_large },
        { .name = "f8", .type = EQ_DATA_F8_E4M3, .num_dims = 1, .dims = { 3 }, .data = i8 },
    };
    static const int64_t wanted[][3] = {
        { -128, -1, 127 }, { -32768, -1, 32767 }, { INT32_MIN, -1, INT32_MAX }, { 0, 1, UINT32_MAX }, { 0, 1, INT64_MAX }
    };
    struct eq_tensors *file;
    float values[12];
    int64_t ints[3];
    IO_OK(eq_tensors_save(io_path("types"), entries, 10, NULL, 0));
    IO_OK(eq_tensors_open(io_path("types"), &file));
    IO_OK(eq_tensors_read_f32(file, "f16", values, 12));
    for (int i = 0; i < 12; i++)
        ck_assert_msg(isnan(half_values[i]) ? isnan(values[i]) : memcmp(&values[i], &half_values[i], 4) == 0, "f16 %d: %g", i,
                      values[i]);
    IO_OK(eq_tensors_read_f32(file, "bf16", values, 4));
    ck_assert_mem_eq(values, brain_values, sizeof brain_values);
    IO_OK(eq_tensors_read_f32(file, "f64", values, 4));
    ck_assert_mem_eq(values, double_values, sizeof double_values);
    for (int i = 0; i < 5; i++) {
        IO_OK(eq_tensors_read_i64(file, entries[3 + i].name, ints, 3));
        ck_assert_mem_eq(ints, wanted[i], sizeof ints);
    }
    IO_FAILS(eq_tensors_read_i64(file, "large", ints, 1), EQ_ERR_FORMAT, "2^63");
    IO_FAILS(eq_tensors_read_f32(file, "f8", values, 3), EQ_ERR_FORMAT, "F8_E4M3");
    eq_tensors_close(&file);
}
END_TEST

// More than one step of the conversion's buffer.
START_TEST(long_conversion)
{
    enum { NUM = 20011 };
    double *from = malloc(NUM * sizeof *from);
    float *to = malloc(NUM * sizeof *to);
    for (int i = 0; i < NUM; i++)
        from[i] = i * 0.25;
    const struct eq_tensor_entry entry = { .name = "x", .type = EQ_DATA_F64, .num_dims = 1, .dims = { NUM }, .data = from };
    struct eq_tensors *file;
    IO_OK(eq_tensors_save(io_path("long"), &entry, 1, NULL, 0));
    IO_OK(eq_tensors_open(io_path("long"), &file));
    IO_OK(eq_tensors_read_f32(file, "x", to, NUM));
    for (int i = 0; i < NUM; i++)
        ck_assert_float_eq(to[i], (float)i * 0.25f);
    eq_tensors_close(&file);
    free(from);
    free(to);
}
END_TEST

START_TEST(refused_to_write)
{
    float x = 0;
    const struct eq_tensor_entry good = { .name = "a", .data = &x };
    struct eq_tensor_entry bad = good, pair[2] = { good, good };
    const struct eq_tensors_text twice[2] = { { "k", "1" }, { "k", "2" } }, not_utf8 = { "k", "\xff" };
    const char *path = io_path("refused");
    IO_FAILS(eq_tensors_save(path, pair, 2, NULL, 0), EQ_ERR_ARGUMENT, "tensor a is there twice");
    IO_FAILS(eq_tensors_save(path, &good, 1, twice, 2), EQ_ERR_ARGUMENT, "metadata k is there twice");
    IO_FAILS(eq_tensors_save(path, &good, 1, &not_utf8, 1), EQ_ERR_ARGUMENT, "not UTF-8");
    bad.name = "__metadata__";
    IO_FAILS(eq_tensors_save(path, &bad, 1, NULL, 0), EQ_ERR_ARGUMENT, "__metadata__");
    bad.name = "\xff";
    IO_FAILS(eq_tensors_save(path, &bad, 1, NULL, 0), EQ_ERR_ARGUMENT, "not UTF-8");
    bad.name = NULL;
    IO_FAILS(eq_tensors_save(path, &bad, 1, NULL, 0), EQ_ERR_ARGUMENT, "no name");
    bad = good;
    bad.num_dims = 9;
    IO_FAILS(eq_tensors_save(path, &bad, 1, NULL, 0), EQ_ERR_ARGUMENT, "9 dimensions");
    bad.num_dims = 1;
    bad.dims[0] = -2;
    IO_FAILS(eq_tensors_save(path, &bad, 1, NULL, 0), EQ_ERR_ARGUMENT, "negative");
    bad = good;
    bad.data = NULL;
    IO_FAILS(eq_tensors_save(path, &bad, 1, NULL, 0), EQ_ERR_ARGUMENT, "no data");
    ck_assert(!eq_file_exists(path));
    IO_FAILS(eq_tensors_save(io_path("no/such/folder"), &good, 1, NULL, 0), EQ_ERR_IO, "No such file");
}
END_TEST

// A disk that fills up is imitated by a limit on file sizes: the old file stays.
START_TEST(full_disk)
{
    enum { NUM = 5000 };
    float *values = calloc(NUM, sizeof *values), x = 2.5f, read;
    const struct eq_tensor_entry small = { .name = "a", .data = &x };
    const struct eq_tensor_entry large = { .name = "a", .num_dims = 1, .dims = { NUM }, .data = values };
    const char *path = io_path("disk");
    struct eq_tensors *file;
    struct rlimit before, limit;
    char **names;
    size_t num, num_before;
    IO_OK(eq_tensors_save(path, &small, 1, NULL, 0));
    IO_OK(eq_dir_list(io_folder, &names, &num_before));
    eq_names_free(names, num_before);
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 8192;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    eq_status status = eq_tensors_save(path, &large, 1, NULL, 0);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    ck_assert_int_eq(status, EQ_ERR_IO);
    ck_assert(strstr(eq_last_error(), "File too large") != NULL && strstr(eq_last_error(), path) != NULL);
    IO_OK(eq_dir_list(io_folder, &names, &num));
    eq_names_free(names, num);
    ck_assert_uint_eq(num, num_before); // no temporary file is left
    IO_OK(eq_tensors_open(path, &file));
    IO_OK(eq_tensors_read_f32(file, "a", &read, 1));
    ck_assert_float_eq(read, 2.5f);
    eq_tensors_close(&file);
    free(values);
}
END_TEST

static const float fetched[2][3] = { { 1, 2, 3 }, { 4, 5, 6 } };

static eq_status fetch(void *user, size_t index, void *data)
{
    const int *num_good = user;
    if ((int)index >= *num_good)
        return eq_fail(EQ_ERR_DEVICE, "tensor %zu is lost", index);
    memcpy(data, fetched[index], sizeof fetched[index]);
    return EQ_OK;
}

// Tensors that are read while the file is written, a wider one first: the same file. A source that fails leaves the old one.
START_TEST(fetched_data)
{
    const int64_t wide = 7;
    const struct eq_tensor_entry entries[] = { { .name = "a", .num_dims = 1, .dims = { 3 } },
                                               { .name = "b", .num_dims = 1, .dims = { 3 } },
                                               { .name = "w", .type = EQ_DATA_I64, .data = &wide } };
    struct eq_tensor_entry whole[3];
    const char *names[] = { "fetched", "whole" };
    int num_good = 3;
    char *data[2];
    size_t bytes[2], num_before, num;
    char **files;
    memcpy(whole, entries, sizeof whole);
    whole[0].data = fetched[0];
    whole[1].data = fetched[1];
    IO_OK(eq_tensors_save_fetched(io_path("fetched"), entries, 3, NULL, 0, fetch, &num_good));
    IO_OK(eq_tensors_save(io_path("whole"), whole, 3, NULL, 0));
    IO_OK(eq_dir_list(io_folder, &files, &num_before));
    eq_names_free(files, num_before);
    num_good = 1;
    IO_FAILS(eq_tensors_save_fetched(io_path("fetched"), entries, 3, NULL, 0, fetch, &num_good), EQ_ERR_DEVICE,
             "tensor 1 is lost");
    IO_OK(eq_dir_list(io_folder, &files, &num));
    eq_names_free(files, num);
    ck_assert_uint_eq(num, num_before); // no temporary file is left
    for (int i = 0; i < 2; i++)
        IO_OK(eq_file_read(io_path(names[i]), 1 << 20, &data[i], &bytes[i]));
    ck_assert_uint_eq(bytes[0], bytes[1]);
    ck_assert(memcmp(data[0], data[1], bytes[0]) == 0);
    free(data[0]);
    free(data[1]);
}
END_TEST

START_TEST(becomes_shorter)
{
    float values[64] = { 0 };
    const struct eq_tensor_entry entry = { .name = "a", .num_dims = 1, .dims = { 64 }, .data = values };
    const char *path = io_path("shorter");
    struct eq_tensors *file;
    IO_OK(eq_tensors_save(path, &entry, 1, NULL, 0));
    IO_OK(eq_tensors_open(path, &file));
    ck_assert_int_eq(truncate(path, 100), 0);
    IO_FAILS(eq_tensors_read_f32(file, "a", values, 64), EQ_ERR_IO, "became shorter");
    eq_tensors_close(&file);
}
END_TEST

// A file in memory is read as one on disk, and is trusted as little: cut off anywhere, it is refused.
START_TEST(from_memory)
{
    const float values[3] = { 1, -2, 3.5f };
    const struct eq_tensor_entry entry = { .name = "a", .num_dims = 1, .dims = { 3 }, .data = values };
    const struct eq_tensors_text text = { "key", "value" };
    struct eq_tensors *file;
    float got[3] = { 0 };
    char *data;
    size_t bytes;
    IO_OK(eq_tensors_save(io_path("memory"), &entry, 1, &text, 1));
    IO_OK(eq_file_read(io_path("memory"), 1 << 20, &data, &bytes));
    IO_OK(eq_tensors_open_memory("a block", data, bytes, &file));
    ck_assert_str_eq(eq_tensors_path(file), "a block");
    ck_assert_str_eq(eq_tensors_text(file, "key"), "value");
    IO_OK(eq_tensors_read_f32(file, "a", got, 3));
    ck_assert(memcmp(got, values, sizeof values) == 0);
    eq_tensors_close(&file);
    for (size_t cut = 0; cut < bytes; cut++) {
        char *part = malloc(cut ? cut : 1); // so that a read beyond it is found
        memcpy(part, data, cut);
        IO_FAILS(eq_tensors_open_memory("a block", part, cut, &file), EQ_ERR_FORMAT, "a block");
        ck_assert_ptr_null(file);
        free(part);
    }
    IO_FAILS(eq_tensors_open_memory("a block", NULL, 8, &file), EQ_ERR_ARGUMENT, "no memory");
    free(data);
}
END_TEST

IO_TEST_MAIN("safetensors", hostile_headers, hostile_lengths, deep_nesting, damaged_everywhere, round_trip, element_types,
             long_conversion, refused_to_write, full_disk, fetched_data, becomes_shorter, from_memory)

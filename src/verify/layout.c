// Packing and unpacking on the device must give what the host's give, bit by bit: the harness packs and unpacks on the host.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "verify/check.h"

static const struct {
    const char *name;
    int n, c, h, w, halo;
    bool is_unblocked, is_int, is_tiny;
} cases[] = {
    { "ragged blocks", 2, 19, 5, 3, 0, false, false, true },
    { "one", 1, 1, 1, 1, 0, false, false, true },
    { "halo", 2, 5, 3, 4, 3, false, false, true },
    { "block 1", 2, 3, 6, 5, 3, true, false, true },
    { "int", 1, 17, 3, 3, 1, false, true, true },
    { "image", 2, 3, 97, 61, 3, true, false, false },
    { "wide", 1, 40, 9, 130, 1, false, false, false },
};
enum { NUM_CASES = sizeof cases / sizeof *cases };

// The call's attributes are the blocked tensor.
static eq_status pack_shape(struct eq_call *call)
{
    call->num_outputs = 1;
    call->output[0] = *(const struct eq_tensor *)call->attributes;
    return EQ_OK;
}

static eq_status pack_emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in, const struct eq_ref *out)
{
    const struct eq_view view = eq_view_plain(&call->input[0], in[0]);
    return eq_layout_pack_emit(list, &call->output[0], &view, out[0]);
}

static eq_status unpack_shape(struct eq_call *call)
{
    const struct eq_tensor *t = call->attributes;
    call->num_outputs = 1;
    call->output[0] = eq_tensor_plain(t->dtype, t->n, t->c, t->h, t->w);
    return EQ_OK;
}

static eq_status unpack_emit(struct eq_list *list, const struct eq_call *call, const struct eq_ref *in,
                             const struct eq_ref *out)
{
    const struct eq_view view = eq_view_plain(&call->output[0], out[0]);
    return eq_layout_unpack_emit(list, &call->input[0], in[0], &view);
}

static const struct eq_op pack = { .name = "layout_pack", .shape = pack_shape, .emit = pack_emit };
static const struct eq_op unpack = { .name = "layout_unpack", .shape = unpack_shape, .emit = unpack_emit };

static void check(int index, const struct eq_op *op, const struct eq_tensor *blocked, const struct eq_tensor *input,
                  const float *values)
{
    struct eq_check_call call = {
        .name = cases[index].name, .op = op, .attributes = blocked, .num_inputs = 1, .input = { { *input, values, false } }
    };
    eq_check_call_run(&call);
    const uint32_t *got = call.output[0];
    for (size_t i = 0; i < eq_tensor_logical(blocked); i++) {
        uint32_t want;
        memcpy(&want, &values[i], 4);
        EQ_CHECK(got[i] == want, "element %zu has the bits %08x, not %08x", i, (unsigned)got[i], (unsigned)want);
    }
    eq_check_call_free(&call);
}

static void check_variant(void *user)
{
    const int index = *(const int *)user;
    const int block = cases[index].is_unblocked ? 1 : eq_check_device->target.block;
    struct eq_tensor blocked =
        eq_tensor_blocked(cases[index].n, cases[index].c, cases[index].h, cases[index].w, block, cases[index].halo);
    blocked.dtype = cases[index].is_int ? EQ_I32 : EQ_F32;
    const struct eq_tensor plain = eq_tensor_plain(blocked.dtype, blocked.n, blocked.c, blocked.h, blocked.w);
    const size_t elems = eq_tensor_logical(&blocked);
    float *values = eq_check_uniform(cases[index].name, elems, 0);
    for (size_t i = 0; i < elems && cases[index].is_int; i++)
        memcpy(&values[i], &(int32_t){ (int32_t)i - 7 }, 4);
    check(index, &pack, &blocked, &plain, values);
    check(index, &unpack, &blocked, &blocked, values);
    free(values);
}

static void test_values(int index)
{
    if (!eq_check_is_small() || cases[index].is_tiny)
        eq_check_each_variant(true, check_variant, &index);
}

// ---- views: other types, strides, scale and shift

static const struct {
    const char *name;
    enum eq_view_type type;
    bool is_nhwc, is_mapped;
} views[] = {
    { "bytes", EQ_VIEW_U8, false, false },
    { "bytes NHWC, mapped", EQ_VIEW_U8, true, true },
    { "f16", EQ_VIEW_F16, false, false },
    { "f16 NHWC, mapped", EQ_VIEW_F16, true, true },
    { "f32 NHWC, mapped", EQ_VIEW_WORD, true, true },
};
enum { NUM_VIEWS = sizeof views / sizeof *views, VH = 5, VW = 3, MAX_C = 19, GAP = 2 };

// A whole number below 2048 in a view's type: exact in all of them. f16: exponent of the highest bit, and the bits below it.
static void put(enum eq_view_type type, unsigned char *memory, size_t at, int value)
{
    const float f32 = (float)value;
    int exponent = 0;
    while (value >> exponent > 1)
        exponent++;
    const uint16_t f16 = value ? (uint16_t)((exponent + 15) << 10 | ((value << 10 >> exponent) & 1023)) : 0;
    if (type == EQ_VIEW_WORD)
        memcpy(memory + 4 * at, &f32, 4);
    else if (type == EQ_VIEW_F16)
        memcpy(memory + 2 * at, &f16, 2);
    else
        memory[at] = (unsigned char)value;
}

// What a caller has, packed, is what it should be; unpacked into memory of 0xEE, it is what it was, and nothing else is
// written.
static void check_view(int index, const struct eq_tensor *t)
{
    const int channels = t->c, plane = VH * VW, elems = t->n * channels * plane, nchw[] = { channels * plane, plane, VW, 1 },
              nhwc[] = { channels * plane, 1, VW * channels, channels };
    const size_t bytes = (size_t)(elems + 2 * GAP) * eq_view_bytes(views[index].type);
    unsigned char *memory = eq_check_malloc(bytes, 1), *back = eq_check_malloc(bytes, 1);
    float *want = eq_check_malloc((size_t)elems, sizeof *want), *got = eq_check_malloc((size_t)elems, sizeof *got),
          *stored = eq_check_malloc(eq_tensor_bytes(t), 1), map[2 * MAX_C], inverse[2 * MAX_C];
    struct eq_buffer *view_buffer, *stored_buffer, *map_buffer, *inverse_buffer, *back_buffer;
    struct eq_list *list;
    struct eq_view view = { .type = views[index].type, .map = EQ_REF_NONE };
    memcpy(view.stride, views[index].is_nhwc ? nhwc : nchw, sizeof view.stride);
    memset(memory, 0xEE, bytes);
    memset(back, 0xEE, bytes);
    for (int c = 0; c < channels; c++) { // powers of 2, so that nothing is rounded
        map[c] = c % 2 ? 0.25f : 2;
        map[channels + c] = (float)(c - 8);
        inverse[c] = 1 / map[c];
        inverse[channels + c] = -map[channels + c] / map[c];
    }
    for (int i = 0; i < elems; i++) {
        const int x = i % VW, y = i / VW % VH, c = i / plane % channels, n = i / plane / channels, value = i * 37 % 251;
        put(view.type, memory,
            (size_t)(GAP + n * view.stride[0] + c * view.stride[1] + y * view.stride[2] + x * view.stride[3]), value);
        want[i] = views[index].is_mapped ? (float)value * map[c] + map[channels + c] : (float)value;
    }
    EQ_CHECK_OK(eq_buffer_create_from(eq_check_device, memory, bytes, &view_buffer));
    EQ_CHECK_OK(eq_buffer_create_from(eq_check_device, back, bytes, &back_buffer));
    EQ_CHECK_OK(eq_buffer_create_from(eq_check_device, map, sizeof map, &map_buffer));
    EQ_CHECK_OK(eq_buffer_create_from(eq_check_device, inverse, sizeof inverse, &inverse_buffer));
    EQ_CHECK_OK(eq_buffer_create(eq_check_device, eq_tensor_bytes(t), &stored_buffer));
    EQ_CHECK_OK(eq_list_create(eq_check_device, &list));
    view.ref = eq_ref_at(view_buffer, GAP);
    view.map = views[index].is_mapped ? eq_ref_at(map_buffer, 0) : EQ_REF_NONE;
    if (!eq_check_is_tiny()) // Oclgrind holds what a fill wrote to be uninitialised, whatever kernels write there afterwards
        EQ_CHECK_OK(eq_list_fill(list, eq_ref_at(stored_buffer, 0), NAN, eq_tensor_elems(t)));
    EQ_CHECK_OK(eq_layout_pack_emit(list, t, &view, eq_ref_at(stored_buffer, 0)));
    view.ref = eq_ref_at(back_buffer, GAP);
    view.map = views[index].is_mapped ? eq_ref_at(inverse_buffer, 0) : EQ_REF_NONE;
    EQ_CHECK_OK(eq_layout_unpack_emit(list, t, eq_ref_at(stored_buffer, 0), &view));
    EQ_CHECK_OK(eq_list_run(list));
    EQ_CHECK_OK(eq_ref_read(eq_ref_at(stored_buffer, 0), stored, eq_tensor_elems(t), 4));
    EQ_CHECK_OK(eq_ref_read(eq_ref_at(back_buffer, 0), back, bytes, 1));
    eq_tensor_unpack(t, stored, got);
    struct eq_check_comparison comparison = { .num = 0 };
    for (int i = 0; i < elems; i++)
        eq_check_compare_at(&comparison, (size_t)i, (double)got[i], (double)want[i], 0);
    eq_check_compared(&comparison, "packed");
    for (size_t i = 0; i < bytes; i++)
        EQ_CHECK(memory[i] == back[i], "unpacked: byte %zu is %d, not %d", i, back[i], memory[i]);
    eq_list_destroy(&list);
    eq_buffer_destroy(&view_buffer);
    eq_buffer_destroy(&back_buffer);
    eq_buffer_destroy(&map_buffer);
    eq_buffer_destroy(&inverse_buffer);
    eq_buffer_destroy(&stored_buffer);
    free(memory);
    free(back);
    free(want);
    free(got);
    free(stored);
}

static void check_view_variant(void *user)
{
    const int index = *(const int *)user;
    const int block = index >= NUM_VIEWS ? 1 : eq_check_device->target.block, c = eq_check_is_tiny() ? 5 : MAX_C;
    const struct eq_tensor t = eq_tensor_blocked(c / 5, c, VH, VW, block, index >= NUM_VIEWS ? 2 : 1);
    eq_check_begin("layout_view", views[index % NUM_VIEWS].name);
    check_view(index % NUM_VIEWS, &t);
}

static void test_views(int index)
{
    eq_check_each_variant(true, check_view_variant, &index);
}

// Every f16 there is, into f32 and back: the same value, the same bits (a NaN stays one).
static void test_all_f16(int index)
{
    enum { ALL = 1 << 16 };
    (void)index;
    if (eq_check_is_tiny())
        return;
    eq_check_begin("layout_view", "all f16");
    uint16_t *halves = eq_check_malloc(ALL, sizeof *halves), *back = eq_check_malloc(ALL, sizeof *back);
    float *stored = eq_check_malloc(ALL, sizeof *stored), *got = eq_check_malloc(ALL, sizeof *got);
    const struct eq_tensor t = eq_tensor_blocked(1, 16, 64, 64, eq_check_device->target.block, 0);
    struct eq_view view = eq_view_plain(&t, EQ_REF_NONE);
    struct eq_buffer *from, *to, *between;
    struct eq_list *list;
    for (int i = 0; i < ALL; i++)
        halves[i] = (uint16_t)i;
    EQ_CHECK_OK(eq_buffer_create_from(eq_check_device, halves, ALL * sizeof *halves, &from));
    EQ_CHECK_OK(eq_buffer_create(eq_check_device, ALL * sizeof *halves, &to));
    EQ_CHECK_OK(eq_buffer_create(eq_check_device, eq_tensor_bytes(&t), &between));
    EQ_CHECK_OK(eq_list_create(eq_check_device, &list));
    view.type = EQ_VIEW_F16;
    view.ref = eq_ref_at(from, 0);
    EQ_CHECK_OK(eq_layout_pack_emit(list, &t, &view, eq_ref_at(between, 0)));
    view.ref = eq_ref_at(to, 0);
    EQ_CHECK_OK(eq_layout_unpack_emit(list, &t, eq_ref_at(between, 0), &view));
    EQ_CHECK_OK(eq_list_run(list));
    EQ_CHECK_OK(eq_ref_read(eq_ref_at(between, 0), stored, ALL, 4));
    EQ_CHECK_OK(eq_ref_read(eq_ref_at(to, 0), back, ALL, 2));
    eq_tensor_unpack(&t, stored, got);
    struct eq_check_comparison comparison = { .num = 0 };
    for (int i = 0; i < ALL; i++) {
        const int exponent = i >> 10 & 31, mantissa = i & 1023;
        const double size =
            exponent == 31 ? INFINITY : ldexp(exponent ? mantissa + 1024 : mantissa, (exponent ? exponent : 1) - 25);
        const bool is_nan = exponent == 31 && mantissa;
        eq_check_compare_at(&comparison, (size_t)i, (double)got[i], is_nan ? NAN : i & 0x8000 ? -size : size, 0);
        EQ_CHECK(is_nan ? (back[i] & 0x7FFF) > 0x7C00 : back[i] == i, "f16 %04x comes back as %04x", i, back[i]);
    }
    eq_check_compared(&comparison, "f16 to f32");
    eq_list_destroy(&list);
    eq_buffer_destroy(&from);
    eq_buffer_destroy(&to);
    eq_buffer_destroy(&between);
    free(halves);
    free(back);
    free(stored);
    free(got);
}

// ---- rounding

enum { ROUNDED = 1 << 16 };

// Values that lie between two f16, neighbours by their bits, of either sign: in the middle (to the even one), just below, just
// above. 65520, in the middle of the largest and what would follow, becomes infinity, and so does what is above.
static uint16_t f16_between(int i, float *value)
{
    const int low = i & 0x7fff, next = low + 1, exponent = low >> 10, exponent_next = next >> 10;
    if (exponent == 31) {
        *value = i & 0x8000 ? -1e9f : 1e9f;
        return (uint16_t)((i & 0x8000) | 0x7c00);
    }
    const double a = ldexp(exponent ? low % 1024 + 1024 : low, (exponent ? exponent : 1) - 25),
                 b = ldexp(exponent_next ? next % 1024 + 1024 : next, (exponent_next ? exponent_next : 1) - 25);
    const float middle = (float)((a + b) / 2), near = i % 3 == 1 ? nextafterf(middle, 0) : nextafterf(middle, INFINITY);
    *value = copysignf(i % 3 == 0 ? middle : near, i & 0x8000 ? -1.0f : 1.0f);
    return (uint16_t)((i & 0x8000) | (i % 3 == 0 ? low + (low & 1) : i % 3 == 1 ? low : next));
}

// From -32 to 480 in steps that meet the middle between two numbers.
static uint16_t byte_between(int i, float *value)
{
    *value = (float)(i - 4096) / 128;
    return (uint16_t)fmin(fmax(rint((double)*value), 0), 255);
}

static void check_rounding(enum eq_view_type type, const char *name, uint16_t (*expect)(int i, float *value))
{
    const struct eq_tensor t = eq_tensor_blocked(1, 16, 64, 64, eq_check_device->target.block, 0);
    const size_t bytes = type == EQ_VIEW_F16 ? 2 : 1;
    float *values = eq_check_malloc(ROUNDED, sizeof *values), *stored = eq_check_malloc(ROUNDED, sizeof *stored);
    unsigned char *back = eq_check_calloc(ROUNDED, bytes);
    struct eq_view view = eq_view_plain(&t, EQ_REF_NONE);
    struct eq_buffer *from, *to;
    struct eq_list *list;
    eq_check_begin("layout_view", name);
    for (int i = 0; i < ROUNDED; i++)
        expect(i, &values[i]);
    eq_tensor_pack(&t, values, stored);
    EQ_CHECK_OK(eq_buffer_create_from(eq_check_device, stored, ROUNDED * sizeof *stored, &from));
    EQ_CHECK_OK(eq_buffer_create(eq_check_device, ROUNDED * bytes, &to));
    EQ_CHECK_OK(eq_list_create(eq_check_device, &list));
    view.type = type;
    view.ref = eq_ref_at(to, 0);
    EQ_CHECK_OK(eq_layout_unpack_emit(list, &t, eq_ref_at(from, 0), &view));
    EQ_CHECK_OK(eq_list_run(list));
    EQ_CHECK_OK(eq_ref_read(eq_ref_at(to, 0), back, ROUNDED, bytes));
    struct eq_check_comparison comparison = { .num = 0 };
    for (int i = 0; i < ROUNDED; i++) {
        float value;
        const uint16_t want = expect(i, &value), got = (uint16_t)(bytes == 2 ? back[2 * i] | back[2 * i + 1] << 8 : back[i]);
        eq_check_compare_at(&comparison, (size_t)i, got, want, 0);
    }
    eq_check_compared(&comparison, "bits");
    eq_list_destroy(&list);
    eq_buffer_destroy(&from);
    eq_buffer_destroy(&to);
    free(values);
    free(stored);
    free(back);
}

static void test_rounding(int index)
{
    if (eq_check_is_tiny())
        return;
    if (index == 0)
        check_rounding(EQ_VIEW_F16, "f16, rounded", f16_between);
    else
        check_rounding(EQ_VIEW_U8, "bytes, rounded", byte_between);
}

EQ_CHECK_SUITE(eq_suite_layout, "layout", { "values", test_values, NUM_CASES }, { "views", test_views, 2 * NUM_VIEWS },
               { "all f16", test_all_f16, 0 }, { "rounding", test_rounding, 2 })

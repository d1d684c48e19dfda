// Extents, strides and host-side conversion of tensors.
#include <string.h>

#include "tensor/tensor.h"

size_t eq_dtype_bytes(enum eq_dtype dtype)
{
    static const size_t bytes[] = { [EQ_F32] = 4, [EQ_I32] = 4, [EQ_U8] = 1, [EQ_I64] = 8 };
    return bytes[dtype];
}

const char *eq_dtype_name(enum eq_dtype dtype)
{
    static const char *const names[] = { [EQ_F32] = "f32", [EQ_I32] = "i32", [EQ_U8] = "u8", [EQ_I64] = "i64" };
    return names[dtype];
}

struct eq_tensor eq_tensor_plain(enum eq_dtype dtype, int n, int c, int h, int w)
{
    return (struct eq_tensor){ .dtype = dtype, .form = EQ_FORM_PLAIN, .n = n, .c = c, .h = h, .w = w };
}

struct eq_tensor eq_tensor_vector(int elems)
{
    return eq_tensor_plain(EQ_F32, elems, 1, 1, 1);
}

struct eq_tensor eq_tensor_blocked(int n, int c, int h, int w, int block, int halo)
{
    return (struct eq_tensor){ .dtype = EQ_F32, .form = EQ_FORM_BLOCKED, .n = n, .c = c, .h = h, .w = w, .block = block,
                               .halo = halo };
}

struct eq_tensor eq_tensor_weight(int oc, int ic, int kh, int kw, int block, int block_in)
{
    return (struct eq_tensor){ .dtype = EQ_F32, .form = EQ_FORM_WEIGHT, .n = oc, .c = ic, .h = kh, .w = kw, .block = block,
                               .block_in = block_in };
}

static size_t ceil_div(int a, int b)
{
    return ((size_t)a + (size_t)b - 1) / (size_t)b;
}

int eq_tensor_blocks(const struct eq_tensor *t)
{
    return (int)ceil_div(t->form == EQ_FORM_WEIGHT ? t->n : t->c, t->block);
}

size_t eq_tensor_row(const struct eq_tensor *t)
{
    return (size_t)(t->w + 2 * t->halo) * (size_t)t->block;
}

size_t eq_tensor_plane(const struct eq_tensor *t)
{
    return (size_t)(t->h + 2 * t->halo) * eq_tensor_row(t);
}

size_t eq_tensor_image(const struct eq_tensor *t)
{
    return (size_t)eq_tensor_blocks(t) * eq_tensor_plane(t);
}

size_t eq_tensor_origin(const struct eq_tensor *t)
{
    return (size_t)t->halo * (eq_tensor_row(t) + (size_t)t->block);
}

size_t eq_tensor_logical(const struct eq_tensor *t)
{
    return (size_t)t->n * (size_t)t->c * (size_t)t->h * (size_t)t->w;
}

size_t eq_tensor_elems(const struct eq_tensor *t)
{
    switch (t->form) {
    case EQ_FORM_PLAIN: return eq_tensor_logical(t);
    case EQ_FORM_BLOCKED: return (size_t)t->n * eq_tensor_image(t);
    case EQ_FORM_WEIGHT: break;
    }
    return ceil_div(t->n, t->block) * (size_t)t->block * ceil_div(t->c, t->block_in) * (size_t)t->block_in * (size_t)t->h *
           (size_t)t->w;
}

size_t eq_tensor_bytes(const struct eq_tensor *t)
{
    return eq_tensor_elems(t) * eq_dtype_bytes(t->dtype);
}

eq_status eq_tensor_check(const struct eq_tensor *t)
{
    char text[64];
    EQ_REQUIRE(t->n > 0 && t->c > 0 && t->h > 0 && t->w > 0, EQ_ERR_SHAPE,
               "a tensor of shape %s: every extent must be positive", eq_tensor_shape_text(t, text));
    // 2^40 bytes; doubles, because the product itself may not fit 64 bits. 16 and 3 bound what padding and halo add.
    double bytes = (double)t->n * (t->c + 16.0) * (t->h + 2.0 * t->halo) * (t->w + 2.0 * t->halo) * 8.0;
    EQ_REQUIRE(bytes < 0x1p40, EQ_ERR_SHAPE, "a tensor of shape %s takes %.3g GiB: more than any device has",
               eq_tensor_shape_text(t, text), bytes / 0x1p30);
    return EQ_OK;
}

const char *eq_tensor_shape_text(const struct eq_tensor *t, char text[64])
{
    snprintf(text, 64, "[%d, %d, %d, %d]", t->n, t->c, t->h, t->w);
    return text;
}

// Where elements lie in the stored form: (n, c, y, x) at first_of(n) + c / group * group_step + c % group * step + y * row +
// x * column.
struct places {
    size_t group, group_step, step, row, column;
};

static struct places places_of(const struct eq_tensor *t)
{
    const size_t h = (size_t)t->h, w = (size_t)t->w, b = (size_t)t->block, b_in = (size_t)t->block_in;
    if (t->form == EQ_FORM_PLAIN)
        return (struct places){ (size_t)t->c, 0, h * w, w, 1 };
    if (t->form == EQ_FORM_BLOCKED)
        return (struct places){ b, eq_tensor_plane(t), 1, eq_tensor_row(t), b };
    return (struct places){ b_in, h * w * b_in * b, b, w * b_in * b, b_in * b };
}

static size_t first_of(const struct eq_tensor *t, int n)
{
    const size_t at = (size_t)n, b = (size_t)t->block;
    if (t->form == EQ_FORM_PLAIN)
        return at * (size_t)t->c * (size_t)t->h * (size_t)t->w;
    if (t->form == EQ_FORM_BLOCKED)
        return eq_tensor_origin(t) + at * eq_tensor_image(t);
    return at / b * ceil_div(t->c, t->block_in) * (size_t)t->h * (size_t)t->w * (size_t)t->block_in * b + at % b;
}

void eq_tensor_pack(const struct eq_tensor *t, const float *plain, float *stored)
{
    const struct places p = places_of(t);
    memset(stored, 0, eq_tensor_elems(t) * sizeof *stored);
    for (int n = 0; n < t->n; n++) {
        float *group = stored + first_of(t, n);
        for (size_t c = 0, i = 0; c < (size_t)t->c; c++) {
            for (size_t y = 0; y < (size_t)t->h; y++)
                for (size_t x = 0; x < (size_t)t->w; x++)
                    group[i * p.step + y * p.row + x * p.column] = *plain++;
            if (++i == p.group) {
                i = 0;
                group += p.group_step;
            }
        }
    }
}

void eq_tensor_unpack(const struct eq_tensor *t, const float *stored, float *plain)
{
    const struct places p = places_of(t);
    for (int n = 0; n < t->n; n++) {
        const float *group = stored + first_of(t, n);
        for (size_t c = 0, i = 0; c < (size_t)t->c; c++) {
            for (size_t y = 0; y < (size_t)t->h; y++)
                for (size_t x = 0; x < (size_t)t->w; x++)
                    *plain++ = group[i * p.step + y * p.row + x * p.column];
            if (++i == p.group) {
                i = 0;
                group += p.group_step;
            }
        }
    }
}

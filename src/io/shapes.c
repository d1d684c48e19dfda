// Drawn shapes as signed distances.
//
// A shape is a function from a point to its distance from the shape's edge (negative inside), in a frame where the shape fills
// the unit circle. A pixel's coverage is its distance in pixels, clamped to one pixel around the edge: smooth edges at any size
// without drawing a larger picture. Colours are floats in [0, 1] until the last step.
#include <math.h>
#include <stdlib.h>

#include "io/dataset.h"
#include "io/image_file.h"
#include "io/shapes.h"

enum { NUM_TRIES = 20, MAX_BLOBS = 4, MAX_LINES = 3 };
static const float two_pi = 6.2831853f;

struct point {
    float x, y;
};
struct colour {
    float c[3];
};
// Random numbers in the order in which they are asked for.
struct dice {
    uint64_t key, next;
};
struct canvas {
    int size;
    struct colour *pixels; // [size, size]
};

const char *const eq_shapes_names[EQ_SHAPES_NUM_CLASSES] = { "arrow", "circle", "crescent", "cross",
                                                             "ring",  "square", "star",     "triangle" };

static const struct point arrow[] = { { -0.95f, -0.24f }, { 0.1f, -0.24f }, { 0.1f, -0.72f }, { 1.0f, 0.0f },
                                      { 0.1f, 0.72f },    { 0.1f, 0.24f },  { -0.95f, 0.24f } };
static const struct point cross[] = { { -0.27f, -0.92f }, { 0.27f, -0.92f }, { 0.27f, -0.27f },  { 0.92f, -0.27f },
                                      { 0.92f, 0.27f },   { 0.27f, 0.27f },  { 0.27f, 0.92f },   { -0.27f, 0.92f },
                                      { -0.27f, 0.27f },  { -0.92f, 0.27f }, { -0.92f, -0.27f }, { -0.27f, -0.27f } };
static const struct point square[] = { { -0.68f, -0.68f }, { 0.68f, -0.68f }, { 0.68f, 0.68f }, { -0.68f, 0.68f } };
static const struct point star[] = { { 0.0f, -1.0f },       { 0.2351f, -0.3236f }, { 0.9511f, -0.3090f },
                                     { 0.3804f, 0.1236f },  { 0.5878f, 0.8090f },  { 0.0f, 0.4f },
                                     { -0.5878f, 0.8090f }, { -0.3804f, 0.1236f }, { -0.9511f, -0.3090f },
                                     { -0.2351f, -0.3236f } };
static const struct point triangle[] = { { 0.0f, -1.0f }, { 0.8660f, 0.5f }, { -0.8660f, 0.5f } };

static float uniform(struct dice *dice, float low, float high)
{
    return low + (high - low) * (float)eq_random_unit(dice->key, dice->next++);
}

static struct colour random_colour(struct dice *dice)
{
    struct colour colour;
    for (int i = 0; i < 3; i++)
        colour.c[i] = uniform(dice, 0.05f, 0.95f);
    return colour;
}

// Difference as it is seen: mostly of brightness.
static float contrast(struct colour a, struct colour b)
{
    float dr = a.c[0] - b.c[0], dg = a.c[1] - b.c[1], db = a.c[2] - b.c[2];
    return fabsf(0.3f * dr + 0.59f * dg + 0.11f * db) + 0.25f * sqrtf((dr * dr + dg * dg + db * db) / 3.0f);
}

static struct colour mix(struct colour a, struct colour b, float share)
{
    for (int i = 0; i < 3; i++)
        a.c[i] += (b.c[i] - a.c[i]) * share;
    return a;
}

static float clamp(float value, float low, float high)
{
    return value < low ? low : value > high ? high : value;
}

// Distance from a closed polygon (even-odd rule for the sign).
static float polygon_distance(const struct point *corners, int num, struct point at)
{
    float nearest = 1e9f;
    bool is_inside = false;
    for (int i = 0, j = num - 1; i < num; j = i++) {
        float ex = corners[j].x - corners[i].x, ey = corners[j].y - corners[i].y;
        float wx = at.x - corners[i].x, wy = at.y - corners[i].y;
        float share = clamp((wx * ex + wy * ey) / (ex * ex + ey * ey), 0.0f, 1.0f);
        float dx = wx - ex * share, dy = wy - ey * share;
        nearest = fminf(nearest, dx * dx + dy * dy);
        if ((corners[i].y > at.y) != (corners[j].y > at.y) && wx < ex * wy / ey)
            is_inside = !is_inside;
    }
    return is_inside ? -sqrtf(nearest) : sqrtf(nearest);
}

#define POLYGON(corners, at) polygon_distance(corners, (int)(sizeof(corners) / sizeof *(corners)), at)

static float shape_distance(int label, struct point at)
{
    float radius = hypotf(at.x, at.y);
    switch (label) {
    case 0: return POLYGON(arrow, at);
    case 1: return radius - 0.85f;
    case 2: return fmaxf(radius - 0.92f, 0.74f - hypotf(at.x - 0.46f, at.y));
    case 3: return POLYGON(cross, at);
    case 4: return fabsf(radius - 0.7f) - 0.18f;
    case 5: return POLYGON(square, at);
    case 6: return POLYGON(star, at);
    default: return POLYGON(triangle, at);
    }
}

static void draw_background(struct canvas *canvas, struct dice *dice, struct colour from, struct colour to)
{
    float angle = uniform(dice, 0.0f, two_pi), dx = cosf(angle), dy = sinf(angle), step = 1.0f / (float)canvas->size;
    for (int y = 0; y < canvas->size; y++)
        for (int x = 0; x < canvas->size; x++) {
            float share = 0.5f + 0.7f * (dx * (((float)x + 0.5f) * step - 0.5f) + dy * (((float)y + 0.5f) * step - 0.5f));
            canvas->pixels[y * canvas->size + x] = mix(from, to, clamp(share, 0.0f, 1.0f));
        }
}

// A capsule from a to b (a disc where they are the same), blended with `opacity`. All in units of the image's side.
static void draw_capsule(struct canvas *canvas, struct point a, struct point b, float radius, struct colour colour,
                         float opacity)
{
    float size = (float)canvas->size, margin = radius + 1.0f / size;
    int top = (int)clamp((fminf(a.y, b.y) - margin) * size, 0.0f, size),
        bottom = (int)clamp((fmaxf(a.y, b.y) + margin) * size + 1.0f, 0.0f, size);
    int left = (int)clamp((fminf(a.x, b.x) - margin) * size, 0.0f, size),
        right = (int)clamp((fmaxf(a.x, b.x) + margin) * size + 1.0f, 0.0f, size);
    float ex = b.x - a.x, ey = b.y - a.y, length = ex * ex + ey * ey;
    for (int y = top; y < bottom; y++)
        for (int x = left; x < right; x++) {
            float wx = ((float)x + 0.5f) / size - a.x, wy = ((float)y + 0.5f) / size - a.y;
            float share = length > 0.0f ? clamp((wx * ex + wy * ey) / length, 0.0f, 1.0f) : 0.0f;
            float distance = hypotf(wx - ex * share, wy - ey * share) - radius;
            struct colour *pixel = &canvas->pixels[y * canvas->size + x];
            *pixel = mix(*pixel, colour, opacity * clamp(0.5f - distance * size, 0.0f, 1.0f));
        }
}

static void draw_clutter(struct canvas *canvas, struct dice *dice)
{
    int num_blobs = (int)uniform(dice, 0.0f, MAX_BLOBS + 0.99f), num_lines = (int)uniform(dice, 0.0f, MAX_LINES + 0.99f);
    for (int i = 0; i < num_blobs; i++) {
        struct colour colour = random_colour(dice);
        struct point at = { .x = uniform(dice, 0.0f, 1.0f) };
        at.y = uniform(dice, 0.0f, 1.0f);
        float radius = uniform(dice, 0.02f, 0.07f);
        draw_capsule(canvas, at, at, radius, colour, uniform(dice, 0.4f, 0.9f));
    }
    for (int i = 0; i < num_lines; i++) {
        struct colour colour = random_colour(dice);
        struct point a = { .x = uniform(dice, -0.1f, 1.1f) }, b = { .x = uniform(dice, -0.1f, 1.1f) };
        a.y = uniform(dice, -0.1f, 1.1f);
        b.y = uniform(dice, -0.1f, 1.1f);
        float radius = uniform(dice, 0.008f, 0.022f);
        draw_capsule(canvas, a, b, radius, colour, uniform(dice, 0.4f, 0.9f));
    }
}

static void draw_shape(struct canvas *canvas, struct dice *dice, int label, struct colour fill, struct colour rim)
{
    float size = (float)canvas->size, angle = uniform(dice, 0.0f, two_pi), dx = cosf(angle), dy = sinf(angle);
    float cx = uniform(dice, 0.38f, 0.62f) * size, cy = uniform(dice, 0.38f, 0.62f) * size;
    float radius = uniform(dice, 0.25f, 0.38f) * size, stretch = uniform(dice, 0.88f, 1.12f);
    float rim_width = uniform(dice, 0.0f, 1.0f) < 0.35f ? uniform(dice, 0.06f, 0.12f) : 0.0f;
    float reach = radius * 1.15f + 1.0f;
    int top = (int)clamp(cy - reach, 0.0f, size), bottom = (int)clamp(cy + reach + 1.0f, 0.0f, size);
    int left = (int)clamp(cx - reach, 0.0f, size), right = (int)clamp(cx + reach + 1.0f, 0.0f, size);
    for (int y = top; y < bottom; y++)
        for (int x = left; x < right; x++) {
            float wx = ((float)x + 0.5f - cx) / radius, wy = ((float)y + 0.5f - cy) / radius;
            struct point at = { (dx * wx + dy * wy) * stretch, (dx * wy - dy * wx) / stretch };
            if (at.x * at.x + at.y * at.y > 1.6f)
                continue;
            float distance = shape_distance(label, at);
            struct colour ink =
                mix(fill, rim, clamp(0.5f + (distance + rim_width) * radius, 0.0f, 1.0f) * (rim_width > 0.0f ? 1.0f : 0.0f));
            struct colour *pixel = &canvas->pixels[y * canvas->size + x];
            *pixel = mix(*pixel, ink, clamp(0.5f - distance * radius, 0.0f, 1.0f));
        }
}

// Rounds to bytes, with triangular noise of at most `noise` on each channel; one random word serves a pixel.
static void finish(const struct canvas *canvas, uint64_t key, float noise, uint8_t *rgb)
{
    for (int i = 0; i < canvas->size * canvas->size; i++) {
        uint64_t word = eq_random_bits(key, (uint64_t)i);
        for (int c = 0; c < 3; c++, word >>= 16) {
            float wobble = ((float)(word & 255) + (float)(word >> 8 & 255) - 255.0f) / 255.0f;
            rgb[3 * i + c] = (uint8_t)(clamp(canvas->pixels[i].c[c] + noise * wobble, 0.0f, 1.0f) * 255.0f + 0.5f);
        }
    }
}

static void draw(uint64_t seed, uint64_t index, struct canvas *canvas, uint8_t *rgb)
{
    struct dice dice = { .key = eq_random_key(seed, 0, index, "shape") };
    struct colour back = random_colour(&dice), far = mix(back, random_colour(&dice), 0.5f), fill = random_colour(&dice);
    for (int i = 0; i < NUM_TRIES && fminf(contrast(fill, back), contrast(fill, far)) < 0.3f; i++)
        fill = random_colour(&dice);
    struct colour rim = mix(fill, (struct colour){ { 0.0f, 0.0f, 0.0f } }, 0.5f);
    if (fminf(contrast(rim, back), contrast(rim, far)) < 0.2f)
        rim = fill;
    draw_background(canvas, &dice, back, far);
    draw_clutter(canvas, &dice);
    draw_shape(canvas, &dice, (int)(index % EQ_SHAPES_NUM_CLASSES), fill, rim);
    float noise = uniform(&dice, 0.0f, 0.12f);
    finish(canvas, eq_random_key(seed, 0, index, "shape noise"), noise, rgb);
}

// ---- as a data set

struct shapes {
    uint64_t seed, first_index;
    int size;
};

static eq_status get_item(const struct eq_source *source, size_t item, struct eq_image *image)
{
    const struct shapes *shapes = source->state;
    size_t num = (size_t)shapes->size * (size_t)shapes->size;
    struct canvas canvas = { .size = shapes->size, .pixels = eq_malloc(num, sizeof *canvas.pixels) };
    if (!canvas.pixels)
        return EQ_ERR_HOST_MEMORY;
    eq_status status = eq_image_make("shapes", (uint64_t)shapes->size, (uint64_t)shapes->size, image);
    if (status == EQ_OK)
        draw(shapes->seed, shapes->first_index + item, &canvas, image->pixels);
    free(canvas.pixels);
    return status;
}

static void describe_item(const struct eq_source *source, size_t item, char *text, size_t bytes)
{
    const struct shapes *shapes = source->state;
    snprintf(text, bytes, "shape %llu (%s)", (unsigned long long)(shapes->first_index + item),
             eq_shapes_names[source->labels[item]]);
}

eq_status eq_source_open_shapes(uint64_t seed, int size, enum eq_part part, struct eq_source *source)
{
    struct shapes *shapes;
    EQ_ALLOC(shapes, 1);
    *shapes = (struct shapes){ seed, part == EQ_PART_TEST ? EQ_SHAPES_TEST_INDEX : 0, size };
    source->state = shapes;
    source->get = get_item;
    source->describe = describe_item;
    source->destroy_state = free;
    source->has_test_part = true;
    source->num_items = part == EQ_PART_TEST ? EQ_SHAPES_NUM_TEST : EQ_SHAPES_NUM_TRAIN;
    eq_status status = eq_source_set_classes(source, eq_shapes_names, EQ_SHAPES_NUM_CLASSES);
    if (status == EQ_OK && !(source->labels = eq_calloc(source->num_items, sizeof *source->labels)))
        status = EQ_ERR_HOST_MEMORY;
    for (size_t i = 0; status == EQ_OK && i < source->num_items; i++)
        source->labels[i] = (int)((shapes->first_index + i) % EQ_SHAPES_NUM_CLASSES);
    if (status != EQ_OK)
        eq_source_clear(source);
    return status;
}

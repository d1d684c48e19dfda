// Pictures into network input: see image.h.
//
// What a turn needs is one block of words: a header with the number of jobs, the jobs (JOB_WORDS each), the tables of weights,
// the boxes' pixels. It is put together in host memory and goes to the device in one write. There are two blocks of host memory
// in turn, so that one can be on its way while the next is filled; on the device one is enough, because the queue is in order.
// Rejected: weights by the kernel in float, which round differently from Pillow's in one pixel of a hundred.
#include "op/image.h"

#include <assert.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BITS = 22, GROUP = 64 };
enum {
    JOB_PIXELS,
    JOB_STRIDE,
    JOB_COLUMNS,
    JOB_ROWS,
    JOB_COLUMN,
    JOB_ROW,
    JOB_IMAGE,
    JOB_SCALE,
    JOB_SHIFT = 10,
    JOB_WORDS = 16
}; // as in cl/image.cl
static const size_t DEFAULT_BYTES = (size_t)256 << 20;

// ---- jobs

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

// Python's round(): halves to even.
static int round_even(double value)
{
    const double below = floor(value), rest = value - below;
    const bool up = rest > 0.5 || (rest == 0.5 && fmod(below, 2) != 0);
    return (int)below + up;
}

static struct eq_image_job whole(int height, int width)
{
    return (struct eq_image_job){
        .height = height, .width = width, .box_h = height, .box_w = width, .resize_h = height, .resize_w = width
    };
}

// Shorter side to `side`, the other one in proportion, rounded down.
static void resize_shorter(struct eq_image_job *job, int side)
{
    const int64_t h = job->height, w = job->width;
    job->resize_h = h <= w ? side : (int)(side * h / w);
    job->resize_w = h <= w ? (int)(side * w / h) : side;
}

void eq_image_job_centre(struct eq_image_job *job, int height, int width, int resize, int size)
{
    *job = whole(height, width);
    resize_shorter(job, resize);
    job->crop_y = round_even((job->resize_h - size) / 2.0);
    job->crop_x = round_even((job->resize_w - size) / 2.0);
}

void eq_image_job_random(struct eq_image_job *job, int height, int width, int size, uint64_t key)
{
    const double area = (double)height * width, low = log(3.0 / 4), high = log(4.0 / 3);
    *job = whole(height, width);
    job->resize_h = job->resize_w = size;
    job->is_flipped = eq_random_unit(key, 0) < 0.5;
    for (uint64_t attempt = 0; attempt < 10; attempt++) {
        const uint64_t at = 1 + 4 * attempt;
        const double target = area * (0.08 + 0.92 * eq_random_unit(key, at)),
                     ratio = exp(low + (high - low) * eq_random_unit(key, at + 1));
        const int w = round_even(sqrt(target * ratio)), h = round_even(sqrt(target / ratio));
        if (w < 1 || h < 1 || w > width || h > height)
            continue;
        job->box_h = h;
        job->box_w = w;
        job->box_y = min_int((int)(eq_random_unit(key, at + 2) * (height - h + 1)), height - h);
        job->box_x = min_int((int)(eq_random_unit(key, at + 3) * (width - w + 1)), width - w);
        return;
    }
    // A very long picture: the middle, with the nearest aspect that is allowed.
    const double ratio = (double)width / height;
    job->box_w = ratio > 4.0 / 3 ? min_int(width, round_even(height * 4.0 / 3)) : width;
    job->box_h = ratio < 3.0 / 4 ? min_int(height, round_even(width / (3.0 / 4))) : height;
    job->box_y = (height - job->box_h) / 2;
    job->box_x = (width - job->box_w) / 2;
}

void eq_image_job_padded(struct eq_image_job *job, int height, int width, int size, int pad, uint64_t key)
{
    *job = whole(height, width);
    resize_shorter(job, size);
    const int range_y = job->resize_h + 2 * pad - size + 1, range_x = job->resize_w + 2 * pad - size + 1;
    job->crop_y = min_int((int)(eq_random_unit(key, 0) * range_y), range_y - 1) - pad;
    job->crop_x = min_int((int)(eq_random_unit(key, 1) * range_x), range_x - 1) - pad;
    job->is_flipped = eq_random_unit(key, 2) < 0.5;
}

void eq_image_colour(float colour[3], uint64_t key)
{
    static const double values[3] = { 0.2175, 0.0188, 0.0045 };
    static const double rows[3][3] = { { 0.4009, 0.7192, -0.5675 },
                                       { -0.8140, -0.0045, -0.5808 },
                                       { 0.4203, -0.6948, -0.5836 } };
    double q[3] = { 0, 0, 0 };
    for (uint64_t i = 0; i < 3; i++)
        for (int c = 0; c < 3; c++)
            q[c] += values[i] * 0.1 * eq_random_normal(key, i) * rows[i][c];
    for (int c = 0; c < 3; c++)
        colour[c] = (float)q[c];
}

// ---- tables

// One axis of a job.
struct axis {
    int source, resized, crop, size;
    bool is_flipped;
};

static struct axis columns_of(const struct eq_image_job *job, int size)
{
    return (struct axis){ job->box_w, job->resize_w, job->crop_x, size, job->is_flipped };
}

static struct axis rows_of(const struct eq_image_job *job, int size)
{
    return (struct axis){ job->box_h, job->resize_h, job->crop_y, size, false };
}

static double support_of(const struct axis *axis)
{
    return fmax((double)axis->source / axis->resized, 1);
}

// Words of an entry: first, number, weights.
static int entry_words(const struct axis *axis)
{
    return 2 + 2 * (int)ceil(support_of(axis)) + 1;
}

// Entry of output pixel `at` of the resized box, as Pillow's precompute_coeffs() and normalize_coeffs_8bpc() make it.
static void make_entry(const struct axis *axis, int at, int32_t *entry)
{
    const double scale = (double)axis->source / axis->resized, support = support_of(axis), centre = (at + 0.5) * scale,
                 narrow = 1 / support;
    entry[0] = entry[1] = 0;
    if (at < 0 || at >= axis->resized)
        return;
    const int first = centre - support + 0.5 > 0 ? (int)(centre - support + 0.5) : 0;
    const int num = min_int((int)(centre + support + 0.5), axis->source) - first;
    double sum = 0;
    assert(num + 2 <= entry_words(axis));
    for (int k = 0; k < num; k++)
        sum += fmax(0, 1 - fabs((k + first - centre + 0.5) * narrow));
    for (int k = 0; k < num; k++)
        entry[2 + k] = (int32_t)(0.5 + fmax(0, 1 - fabs((k + first - centre + 0.5) * narrow)) / sum * (1 << BITS));
    entry[0] = first;
    entry[1] = num;
}

static void make_table(const struct axis *axis, int32_t *table)
{
    for (int i = 0; i < axis->size; i++)
        make_entry(axis, axis->crop + (axis->is_flipped ? axis->size - 1 - i : i),
                   table + (size_t)i * (size_t)entry_words(axis));
}

// ---- batches

struct slot {
    int32_t *words;
    size_t capacity; // in words
    struct eq_ticket ticket;
};

struct eq_image_batch {
    struct eq_device *device;
    struct eq_image_batch_params params;
    struct slot slots[2];
    int turn;
    struct eq_buffer *buffer; // words on the device
    struct eq_list *list;     // made anew when the buffer grows
};

static size_t pixel_words(const struct eq_image_job *job)
{
    return ((size_t)job->box_h * (size_t)job->box_w * 3 + 3) / 4;
}

static size_t job_words(const struct eq_image_job *job, int size)
{
    const struct axis columns = columns_of(job, size), rows = rows_of(job, size);
    return JOB_WORDS + pixel_words(job) + (size_t)size * (size_t)(entry_words(&columns) + entry_words(&rows));
}

static eq_status check_job(const struct eq_image_job *job, int number)
{
    EQ_REQUIRE(job->height >= 1 && job->width >= 1 && job->resize_h >= 1 && job->resize_w >= 1, EQ_ERR_SHAPE,
               "image %d: %d x %d pixels resized to %d x %d", number, job->height, job->width, job->resize_h, job->resize_w);
    EQ_REQUIRE(job->box_y >= 0 && job->box_x >= 0 && job->box_h >= 1 && job->box_w >= 1 &&
                   job->box_h <= job->height - job->box_y && job->box_w <= job->width - job->box_x,
               EQ_ERR_SHAPE, "image %d: the box of %d x %d pixels at (%d, %d) is not inside of the picture's %d x %d", number,
               job->box_h, job->box_w, job->box_y, job->box_x, job->height, job->width);
    EQ_REQUIRE(job->pixels, EQ_ERR_ARGUMENT, "image %d has no pixels", number);
    return EQ_OK;
}

static eq_status grow_slot(struct slot *slot, size_t words)
{
    if (words <= slot->capacity)
        return EQ_OK;
    free(slot->words);
    slot->capacity = 0;
    slot->words = eq_malloc(words, sizeof *slot->words);
    if (!slot->words)
        return EQ_ERR_HOST_MEMORY;
    slot->capacity = words;
    return EQ_OK;
}

static eq_status grow_device(struct eq_image_batch *batch, size_t words)
{
    const struct eq_image_batch_params *p = &batch->params;
    if (batch->list && batch->buffer->bytes >= words * sizeof(int32_t))
        return EQ_OK;
    eq_list_destroy(&batch->list);
    eq_buffer_destroy(&batch->buffer);
    EQ_TRY(eq_buffer_create(batch->device, words * sizeof(int32_t), &batch->buffer));
    EQ_TRY(eq_list_create(batch->device, &batch->list));
    EQ_TRY(eq_list_label(batch->list, "images"));
    const size_t size = (size_t)p->size, num = (size_t)p->num;
    const struct eq_launch launch = {
        .source = "image",
        .kernel = "image_fwd",
        .range = eq_range_3d((const size_t[]){ size, size, num }, (const size_t[]){ GROUP, 1, 1 }),
        .cost = { 0, 4.0 * ((double)words + 3.0 * (double)(num * size * size)) },
        .cut = 3,
    };
    const eq_status status =
        eq_list_kernel(batch->list, &launch, EQ_ARGS(EQ_REF(eq_ref_at(batch->buffer, 0)), EQ_REF(p->output), EQ_I32(size)));
    if (status != EQ_OK)
        eq_list_destroy(&batch->list);
    return status;
}

static void store_float(int32_t *word, double value)
{
    const float rounded = (float)value;
    memcpy(word, &rounded, sizeof rounded);
}

// Writes the job, its tables at word `at` and the pixels behind them; returns the word after them.
static size_t fill_job(const struct eq_image_batch *batch, const struct eq_image_job *job, int image, int32_t *words,
                       int32_t *to, size_t at)
{
    const struct eq_image_batch_params *p = &batch->params;
    const struct axis columns = columns_of(job, p->size), rows = rows_of(job, p->size);
    to[JOB_COLUMNS] = (int32_t)at;
    to[JOB_COLUMN] = entry_words(&columns);
    make_table(&columns, words + at);
    at += (size_t)p->size * (size_t)to[JOB_COLUMN];
    to[JOB_ROWS] = (int32_t)at;
    to[JOB_ROW] = entry_words(&rows);
    make_table(&rows, words + at);
    at += (size_t)p->size * (size_t)to[JOB_ROW];
    to[JOB_PIXELS] = (int32_t)(at * sizeof *words);
    to[JOB_STRIDE] = 3 * job->box_w;
    to[JOB_IMAGE] = image;
    for (int c = 0; c < 3; c++) {
        store_float(&to[JOB_SCALE + c], 1 / (255.0 * (double)p->deviation[c]));
        store_float(&to[JOB_SHIFT + c], ((double)job->colour[c] - (double)p->mean[c]) / (double)p->deviation[c]);
    }
    const size_t row_bytes = 3 * (size_t)job->box_w;
    for (int y = 0; y < job->box_h; y++)
        memcpy((uint8_t *)(words + at) + (size_t)y * row_bytes,
               job->pixels + 3 * ((size_t)(job->box_y + y) * (size_t)job->width + (size_t)job->box_x), row_bytes);
    return at + pixel_words(job);
}

// One turn: jobs first .. first + num - 1, `words` words in all.
static eq_status run_turn(struct eq_image_batch *batch, const struct eq_image_job *jobs, int first, int num, size_t words)
{
    struct slot *slot = &batch->slots[batch->turn = 1 - batch->turn];
    EQ_TRY(eq_ticket_wait(&slot->ticket));
    EQ_TRY(grow_slot(slot, words));
    memset(slot->words, 0, JOB_WORDS * (size_t)(num + 1) * sizeof *slot->words);
    slot->words[0] = num;
    size_t at = JOB_WORDS * (size_t)(num + 1);
    for (int i = 0; i < num; i++)
        at = fill_job(batch, &jobs[first + i], first + i, slot->words, slot->words + JOB_WORDS * (i + 1), at);
    assert(at == words);
    EQ_TRY(grow_device(batch, words));
    EQ_TRY(eq_ref_write_start(eq_ref_at(batch->buffer, 0), slot->words, words, sizeof *slot->words, &slot->ticket));
    return eq_list_run(batch->list);
}

eq_status eq_image_batch_run(struct eq_image_batch *batch, const struct eq_image_job *jobs, int first, int num)
{
    const struct eq_image_batch_params *p = &batch->params;
    const size_t most = (p->max_bytes ? p->max_bytes : DEFAULT_BYTES) / sizeof(int32_t);
    EQ_REQUIRE(first >= 0 && first < p->num && num >= 1 && num <= p->num - first, EQ_ERR_ARGUMENT,
               "%d images from number %d on for a batch of %d", num, first, p->num);
    for (int i = first; i < first + num; i++)
        EQ_TRY(check_job(&jobs[i], i));
    for (int at = first, last; at < first + num; at = last) {
        size_t words = JOB_WORDS;
        for (last = at; last < first + num; last++) {
            const size_t more = job_words(&jobs[last], p->size);
            if (last > at && words + more > most)
                break;
            words += more;
        }
        EQ_REQUIRE(words <= INT_MAX / sizeof(int32_t), EQ_ERR_UNSUPPORTED,
                   "images of %zu bytes at a time; this version takes up to %d", words * sizeof(int32_t), INT_MAX);
        EQ_TRY(run_turn(batch, jobs, at, last - at, words));
    }
    return EQ_OK;
}

eq_status eq_image_batch_create(struct eq_device *device, const struct eq_image_batch_params *params,
                                struct eq_image_batch **batch)
{
    *batch = NULL;
    EQ_REQUIRE(params->num >= 1 && params->size >= 1, EQ_ERR_ARGUMENT, "a batch of %d images of side %d", params->num,
               params->size);
    for (int c = 0; c < 3; c++)
        EQ_REQUIRE(params->deviation[c] > 0, EQ_ERR_ARGUMENT, "channel %d has a deviation of %g: it must be above 0", c,
                   (double)params->deviation[c]);
    EQ_ALLOC(*batch, 1);
    (*batch)->device = device;
    (*batch)->params = *params;
    return EQ_OK;
}

void eq_image_batch_destroy(struct eq_image_batch **batch)
{
    if (!*batch)
        return;
    for (int i = 0; i < 2; i++) {
        eq_ticket_drop(&(*batch)->slots[i].ticket);
        free((*batch)->slots[i].words);
    }
    eq_list_destroy(&(*batch)->list);
    eq_buffer_destroy(&(*batch)->buffer);
    free(*batch);
    *batch = NULL;
}

size_t eq_image_batch_bytes(int num, int size, size_t picture_bytes)
{
    // Tables of up to 64 words an entry: pictures of about 30 times the size.
    return picture_bytes + (size_t)num * (JOB_WORDS * sizeof(int32_t) + 2 * 64 * (size_t)size * sizeof(int32_t));
}

// Decoded images from the loader's threads become jobs for the device's preprocessing, and those the network's input.
#include "train/feed.h"

#include <stdlib.h>
#include <string.h>

#include "io/loader.h"
#include "op/image.h"

enum { PAD = 4 }; // pixels that EQ_TRAIN_AUGMENT_LIGHT moves the crop by
static const size_t DEFAULT_BYTES = (size_t)128 << 20;

// Labels of a batch, two in turn: one is on its way to the device, or in use by the caller, while the other is filled.
struct slot {
    int32_t *labels; // [n]
    struct eq_ticket ticket;
};

struct eq_feed {
    struct eq_device *device;
    struct eq_feed_params params;
    int n, size;
    struct slot slots[2];
    int turn;
    struct eq_image *images; // [n] of the batch that is being made
    struct eq_image_job *jobs;
    int num_enqueued;        // of them; their images are freed but for the first, with copies of which the batch is filled up
    struct eq_buffer *plain; // f32 [n, 3, size, size]
    struct eq_image_batch *batch;
    struct eq_list *list;     // from `plain` into the network's input
    struct eq_ref labels;     // the network's; buffer NULL: it takes none
    struct eq_loader *loader; // NULL without a data set
    int epoch;
    size_t position;
};

static size_t plain_bytes(int n, int size)
{
    return (size_t)n * 3 * (size_t)size * (size_t)size * sizeof(float);
}

static eq_status make_batch(struct eq_feed *feed)
{
    const struct eq_input_form *form = &feed->params.form;
    struct eq_image_batch_params params = { .num = feed->n, .size = feed->size };
    memcpy(params.mean, form->mean, sizeof params.mean);
    memcpy(params.deviation, form->deviation, sizeof params.deviation);
    EQ_TRY(eq_buffer_create(feed->device, plain_bytes(feed->n, feed->size), &feed->plain));
    params.output = eq_ref_at(feed->plain, 0);
    EQ_ALLOC(feed->images, feed->n);
    EQ_ALLOC(feed->jobs, feed->n);
    return eq_image_batch_create(feed->device, &params, &feed->batch);
}

static eq_status fill_feed(struct eq_feed *feed, const struct eq_compiled *compiled)
{
    struct eq_ref input;
    struct eq_tensor tensor, labels;
    EQ_TRY(eq_exec_find(compiled->exec, compiled->model.images, &input, &tensor));
    if (compiled->model.labels != EQ_NO_VALUE)
        EQ_TRY(eq_exec_find(compiled->exec, compiled->model.labels, &feed->labels, &labels));
    for (int i = 0; i < 2; i++)
        EQ_ALLOC(feed->slots[i].labels, feed->n);
    EQ_TRY(make_batch(feed));
    EQ_TRY(eq_list_create(feed->device, &feed->list));
    const struct eq_view plain = eq_view_plain(&tensor, eq_ref_at(feed->plain, 0));
    EQ_TRY(eq_layout_pack_emit(feed->list, &tensor, &plain, input));
    const struct eq_loader_params loader = { .dataset = feed->params.dataset,
                                             .is_shuffled = feed->params.is_shuffled,
                                             .seed = feed->params.seed,
                                             .may_be_none = feed->params.may_be_none,
                                             .ahead = 2 * feed->n };
    return loader.dataset ? eq_loader_create(&loader, &feed->loader) : EQ_OK;
}

eq_status eq_feed_create(struct eq_device *device, const struct eq_compiled *compiled, const struct eq_feed_params *params,
                         struct eq_feed **feed)
{
    EQ_ALLOC(*feed, 1);
    (*feed)->device = device;
    (*feed)->params = *params;
    (*feed)->params.max_bytes = params->max_bytes ? params->max_bytes : DEFAULT_BYTES;
    (*feed)->n = compiled->n;
    (*feed)->size = compiled->h;
    eq_status status = fill_feed(*feed, compiled);
    if (status != EQ_OK)
        eq_feed_destroy(feed);
    return status;
}

void eq_feed_destroy(struct eq_feed **feed)
{
    if (!*feed)
        return;
    for (int i = 0; i < 2; i++) {
        eq_ticket_drop(&(*feed)->slots[i].ticket);
        free((*feed)->slots[i].labels);
    }
    eq_loader_destroy(&(*feed)->loader);
    eq_list_destroy(&(*feed)->list);
    eq_image_batch_destroy(&(*feed)->batch);
    eq_buffer_destroy(&(*feed)->plain);
    free((*feed)->images);
    free((*feed)->jobs);
    free(*feed);
    *feed = NULL;
}

eq_status eq_feed_start(struct eq_feed *feed, int epoch, size_t position)
{
    feed->epoch = epoch;
    feed->position = position;
    return eq_loader_start(feed->loader, (uint64_t)epoch, position);
}

// What becomes of an image: a pure function of the seed, the epoch and the item.
static void make_job(const struct eq_feed *feed, const struct eq_image *image, uint64_t item, struct eq_image_job *job)
{
    uint64_t seed = feed->params.seed, epoch = (uint64_t)feed->epoch, key = eq_random_key(seed, epoch, item, "crop");
    *job = (struct eq_image_job){ 0 };
    if (feed->params.augment == EQ_TRAIN_AUGMENT_LIGHT) {
        eq_image_job_padded(job, image->height, image->width, feed->size, PAD, key);
    } else if (feed->params.augment == EQ_TRAIN_AUGMENT_FULL) {
        eq_image_job_random(job, image->height, image->width, feed->size, key);
        eq_image_colour(job->colour, eq_random_key(seed, epoch, item, "colour"));
    } else {
        eq_image_job_centre(job, image->height, image->width, feed->params.form.resize, feed->size);
    }
    job->pixels = image->pixels;
}

// Enqueues the way of the jobs before number `num` to the device, as far as it is not yet.
static eq_status enqueue_jobs(struct eq_feed *feed, int num)
{
    if (num > feed->num_enqueued)
        EQ_TRY(eq_image_batch_run(feed->batch, feed->jobs, feed->num_enqueued, num - feed->num_enqueued));
    feed->num_enqueued = num;
    return EQ_OK;
}

// Enqueues the way of feed->jobs [num] and the slot's labels to the device.
static eq_status upload(struct eq_feed *feed, struct slot *slot, int num)
{
    for (int i = num; i < feed->n; i++) {
        feed->jobs[i] = feed->jobs[0];
        slot->labels[i] = slot->labels[0];
    }
    EQ_TRY(enqueue_jobs(feed, feed->n));
    if (feed->labels.buffer)
        EQ_TRY(eq_ref_write_start(feed->labels, slot->labels, (size_t)feed->n, sizeof *slot->labels, &slot->ticket));
    return eq_list_run(feed->list);
}

static struct slot *next_slot(struct eq_feed *feed)
{
    feed->turn = 1 - feed->turn;
    feed->num_enqueued = 0;
    return &feed->slots[feed->turn];
}

static void free_images(struct eq_feed *feed, int first, int num)
{
    for (int i = first; i < num; i++)
        eq_image_free(&feed->images[i]);
}

// Takes up to a batch of images from the loader: jobs and labels. Large ones are not held until there are all.
static eq_status take_images(struct eq_feed *feed, struct slot *slot, int *num)
{
    struct eq_loaded loaded;
    size_t held = 0;
    for (*num = 0; *num < feed->n;) {
        EQ_TRY(eq_loader_next(feed->loader, &loaded));
        if (!loaded.image.pixels)
            return EQ_OK;
        feed->images[*num] = loaded.image;
        feed->position = loaded.position;
        make_job(feed, &loaded.image, loaded.item, &feed->jobs[*num]);
        slot->labels[*num] = loaded.label;
        ++*num;
        held += (size_t)loaded.image.height * (size_t)loaded.image.width * 3;
        if (held <= feed->params.max_bytes)
            continue;
        EQ_TRY(enqueue_jobs(feed, *num));
        free_images(feed, 1, *num);
        held = 0;
    }
    return EQ_OK;
}

eq_status eq_feed_next(struct eq_feed *feed, struct eq_feed_batch *batch)
{
    struct slot *slot = next_slot(feed);
    int num;
    EQ_TRY(eq_ticket_wait(&slot->ticket));
    eq_status status = take_images(feed, slot, &num);
    bool is_used = num == feed->n || (num > 0 && !feed->params.is_shuffled);
    if (status == EQ_OK && is_used)
        status = upload(feed, slot, num);
    free_images(feed, 0, num);
    *batch = (struct eq_feed_batch){ .num = is_used ? num : 0,
                                     .labels = slot->labels,
                                     .position = feed->position,
                                     .skipped = eq_loader_num_skipped(feed->loader) };
    return status;
}

eq_status eq_feed_images(struct eq_feed *feed, const struct eq_image *images, int num)
{
    struct slot *slot = next_slot(feed);
    EQ_TRY(eq_ticket_wait(&slot->ticket));
    for (int i = 0; i < num; i++)
        make_job(feed, &images[i], 0, &feed->jobs[i]);
    return upload(feed, slot, num);
}

size_t eq_feed_bytes(int n, int size)
{
    return plain_bytes(n, size) + eq_image_batch_bytes(n, size, (size_t)n * 3 * (size_t)size * (size_t)size);
}

// Two sets of host memory in turn: one is on its way to the device while the other is filled.
#include "train/feed.h"

#include <stdlib.h>
#include <string.h>

struct slot {
    float *images;   // [n, 3, size, size]
    int32_t *labels; // [n]
    struct eq_ticket images_ticket, labels_ticket;
};

struct eq_feed {
    struct eq_device *device;
    struct eq_feed_params params;
    int n, size;
    struct slot slots[2];
    int turn;
    struct eq_buffer *plain; // images as they are uploaded
    struct eq_list *list;    // from there into the network's input
    struct eq_ref labels;    // the network's; buffer NULL: it takes none
    size_t *order;
    int epoch;
    size_t position, skipped, start_skipped;
};

static eq_status make_slots(struct eq_feed *feed)
{
    size_t elems = (size_t)feed->n * 3 * (size_t)feed->size * (size_t)feed->size;
    for (int i = 0; i < 2; i++) {
        EQ_ALLOC(feed->slots[i].images, elems);
        EQ_ALLOC(feed->slots[i].labels, feed->n);
    }
    return eq_buffer_create(feed->device, elems * sizeof(float), &feed->plain);
}

static eq_status fill_feed(struct eq_feed *feed, const struct eq_compiled *compiled)
{
    struct eq_ref input;
    struct eq_tensor tensor, labels;
    EQ_TRY(make_slots(feed));
    EQ_TRY(eq_exec_find(compiled->exec, compiled->model.images, &input, &tensor));
    if (compiled->model.labels != EQ_NO_VALUE)
        EQ_TRY(eq_exec_find(compiled->exec, compiled->model.labels, &feed->labels, &labels));
    EQ_TRY(eq_list_create(feed->device, &feed->list));
    EQ_TRY(eq_layout_pack_emit(feed->list, &tensor, eq_ref_at(feed->plain, 0), input));
    if (feed->params.dataset)
        EQ_ALLOC(feed->order, eq_dataset_num_items(feed->params.dataset));
    return EQ_OK;
}

eq_status eq_feed_create(struct eq_device *device, const struct eq_compiled *compiled, const struct eq_feed_params *params, struct eq_feed **feed)
{
    EQ_ALLOC(*feed, 1);
    (*feed)->device = device;
    (*feed)->params = *params;
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
        eq_ticket_wait(&(*feed)->slots[i].images_ticket);
        eq_ticket_wait(&(*feed)->slots[i].labels_ticket);
        free((*feed)->slots[i].images);
        free((*feed)->slots[i].labels);
    }
    eq_list_destroy(&(*feed)->list);
    eq_buffer_destroy(&(*feed)->plain);
    free((*feed)->order);
    free(*feed);
    *feed = NULL;
}

eq_status eq_feed_start(struct eq_feed *feed, int epoch, size_t position)
{
    size_t num = eq_dataset_num_items(feed->params.dataset);
    for (size_t i = 0; i < num; i++)
        feed->order[i] = i;
    if (feed->params.is_shuffled)
        eq_random_permutation(eq_random_key(feed->params.seed, (uint64_t)epoch, 0, "order"), feed->order, num);
    feed->epoch = epoch;
    feed->position = position;
    feed->skipped = 0;
    return EQ_OK;
}

static void place(const struct eq_feed *feed, const struct eq_image *image, uint64_t item, float *out)
{
    int s = feed->size, dx = 0, dy = 0, flip = 0;
    if (feed->params.augment == EQ_TRAIN_AUGMENT_LIGHT) {
        uint64_t key = eq_random_key(feed->params.seed, (uint64_t)feed->epoch, item, "crop");
        dx = (int)(eq_random_unit(key, 0) * 9) - 4;
        dy = (int)(eq_random_unit(key, 1) * 9) - 4;
        flip = eq_random_unit(key, 2) < 0.5;
    }
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < s; y++)
            for (int x = 0; x < s; x++) {
                int sx = (flip ? s - 1 - x : x) + dx, sy = y + dy;
                float v = sx >= 0 && sy >= 0 && sx < image->width && sy < image->height ? image->pixels[((size_t)sy * (size_t)image->width + (size_t)sx) * 3 + (size_t)c] : 0;
                out[((size_t)c * (size_t)s + (size_t)y) * (size_t)s + (size_t)x] = (v / 255 - feed->params.form.mean[c]) / feed->params.form.deviation[c];
            }
}

static eq_status upload(struct eq_feed *feed, struct slot *slot, int num)
{
    size_t elems = 3 * (size_t)feed->size * (size_t)feed->size;
    for (int i = num; i < feed->n; i++) {
        memcpy(slot->images + (size_t)i * elems, slot->images, elems * sizeof(float));
        slot->labels[i] = slot->labels[0];
    }
    EQ_TRY(eq_ref_write_start(eq_ref_at(feed->plain, 0), slot->images, elems * (size_t)feed->n, sizeof(float), &slot->images_ticket));
    if (feed->labels.buffer)
        EQ_TRY(eq_ref_write_start(feed->labels, slot->labels, (size_t)feed->n, sizeof(int32_t), &slot->labels_ticket));
    return eq_list_run(feed->list);
}

eq_status eq_feed_next(struct eq_feed *feed, struct eq_feed_batch *batch)
{
    struct slot *slot = &feed->slots[feed->turn = 1 - feed->turn];
    size_t total = eq_dataset_num_items(feed->params.dataset), elems = 3 * (size_t)feed->size * (size_t)feed->size;
    int num = 0;
    EQ_TRY(eq_ticket_wait(&slot->images_ticket));
    EQ_TRY(eq_ticket_wait(&slot->labels_ticket));
    for (; num < feed->n && feed->position < total; feed->position++) {
        struct eq_image image;
        size_t item = feed->order[feed->position];
        if (eq_dataset_get(feed->params.dataset, item, &image) != EQ_OK) {
            eq_log(EQ_LOG_WARNING, "skipped: %s", eq_last_error());
            feed->skipped++;
            continue;
        }
        place(feed, &image, item, slot->images + (size_t)num * elems);
        slot->labels[num++] = eq_dataset_label(feed->params.dataset, item);
        eq_image_free(&image);
    }
    if (feed->params.is_shuffled && num < feed->n)
        num = 0;
    *batch = (struct eq_feed_batch){ .num = num, .labels = slot->labels, .position = feed->position, .skipped = feed->skipped };
    return num ? upload(feed, slot, num) : EQ_OK;
}

eq_status eq_feed_images(struct eq_feed *feed, const struct eq_image *images, int num)
{
    struct slot *slot = &feed->slots[feed->turn = 1 - feed->turn];
    size_t elems = 3 * (size_t)feed->size * (size_t)feed->size;
    EQ_TRY(eq_ticket_wait(&slot->images_ticket));
    EQ_TRY(eq_ticket_wait(&slot->labels_ticket));
    for (int i = 0; i < num; i++)
        place(feed, &images[i], 0, slot->images + (size_t)i * elems);
    return upload(feed, slot, num);
}

size_t eq_feed_bytes(int n, int size)
{
    return (size_t)n * 3 * (size_t)size * (size_t)size * sizeof(float);
}

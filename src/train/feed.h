// Images and labels, batch by batch, into a compiled network's inputs: decoding ahead on threads, upload, preprocessing on the
// device.
#ifndef EQ_TRAIN_FEED_H
#define EQ_TRAIN_FEED_H

#include "equil/train.h"
#include "train/meta.h"
#include "train/network.h"

struct eq_feed_params {
    const struct eq_dataset *dataset; // NULL: for eq_feed_images() alone
    struct eq_input_form form;
    enum eq_train_augment augment; // EQ_TRAIN_AUGMENT_NONE: centre crops
    bool is_shuffled;              // a new order every epoch, and whole batches only; else ascending, the last batch cut short
    bool may_be_none;              // a pass in which no image can be read is none that failed
    uint64_t seed;
    size_t max_bytes; // decoded pictures of a batch that are held at a time: one with more goes to the device in parts, the
                      // same bits. 0 means 128 MiB
};

// A batch whose way to the device is enqueued. Labels stay valid until the second eq_feed_next() after this one.
struct eq_feed_batch {
    int num;               // images; 0: the pass is over. Behind them the batch is filled up with copies of the first
    const int32_t *labels; // [num]
    size_t position;       // items of the pass's order that are used up after this batch, broken ones included
    size_t skipped;        // broken ones among them since eq_feed_start()
};

struct eq_feed;
// Feeds `compiled`, which must outlive it, as must the data set.
eq_status eq_feed_create(struct eq_device *device, const struct eq_compiled *compiled, const struct eq_feed_params *params,
                         struct eq_feed **feed);
void eq_feed_destroy(struct eq_feed **feed); // *feed becomes NULL; NULL is allowed
// Begins the pass `epoch` behind the first `position` items of its order.
eq_status eq_feed_start(struct eq_feed *feed, int epoch, size_t position);
// Waits for decoded images, not for the device, unless the batch goes in parts.
eq_status eq_feed_next(struct eq_feed *feed, struct eq_feed_batch *batch);
// The same for images at hand: 1 <= num <= the batch.
eq_status eq_feed_images(struct eq_feed *feed, const struct eq_image *images, int num);
// Device memory that feeding batches [n, 3, size, size] takes, but for the network's own input, with pictures of that size;
// larger ones take more.
size_t eq_feed_bytes(int n, int size);

#endif

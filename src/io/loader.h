// Decodes the items of a data set ahead of their use, on threads, and hands them out in a fixed order.
//
//     eq_loader_create(&params, &loader);
//     eq_loader_start(loader, epoch, 0);
//     while (eq_loader_next(loader, &loaded) == EQ_OK && loaded.image.pixels)
//         use(&loaded), eq_image_free(&loaded.image);
//
// What comes, and in which order, depends on the data set, the seed, the epoch and the position alone: not on threads or time.
// An item that cannot be read is named in the log (warning), counted and left out; the next in the order takes its place.
#ifndef EQ_IO_LOADER_H
#define EQ_IO_LOADER_H

#include "base/base.h"
#include "equil/data.h"

struct eq_loader_params {
    const struct eq_dataset *dataset; // must outlive the loader
    bool is_shuffled;                 // a new order every epoch, by the seed; else ascending
    uint64_t seed;
    int num_threads;    // 0: EQUIL_THREADS, or the number of processors
    int ahead;          // items decoded ahead of use at most; 0 means 64
    size_t ahead_bytes; // no item is begun ahead while decoded ones hold this much; 0 means 256 MiB
    bool may_be_none;   // a pass in which no item can be read is none that failed
};

// An item. The image is the caller's: eq_image_free(). At the end of the pass its pixels are NULL and the rest is 0.
struct eq_loaded {
    struct eq_image image;
    size_t item, position; // item of the set; items of the pass's order used up with it, left-out ones included
    int label;
};

struct eq_loader;
// Starts the threads, which wait. Errors: EQ_ERR_ARGUMENT (EQUIL_THREADS, negative numbers), EQ_ERR_HOST_MEMORY.
eq_status eq_loader_create(const struct eq_loader_params *params, struct eq_loader **loader);
// Stops and joins the threads; an image that is being decoded is finished first. *loader becomes NULL; NULL is allowed.
void eq_loader_destroy(struct eq_loader **loader);

// Begins the pass `epoch` behind the first `position` items of its order, in the middle of another pass too. Decoding starts at
// once. One thread at a time, as all functions of a loader.
eq_status eq_loader_start(struct eq_loader *loader, uint64_t epoch, size_t position);
// Waits for the next item that can be read. Errors: EQ_ERR_FORMAT when a whole pass, from position 0, had no item that can be
// read, unless may_be_none; EQ_ERR_HOST_MEMORY.
eq_status eq_loader_next(struct eq_loader *loader, struct eq_loaded *loaded);
// Items left out since eq_loader_start().
size_t eq_loader_num_skipped(const struct eq_loader *loader);

#endif

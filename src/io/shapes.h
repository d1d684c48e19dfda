// Drawn shapes: images for tests and for the demo. Image number `index` of the stream `seed` is a pure function of the two: one
// large shape of random place, size, rotation, stretch and colour, anti-aliased, before a graded background with lines, blobs
// and noise. eq_source_open_shapes() of dataset.h makes a data set of them.
#ifndef EQ_IO_SHAPES_H
#define EQ_IO_SHAPES_H

#include "base/base.h"
#include "equil/data.h"

enum {
    EQ_SHAPES_SIZE = 32, // default side in pixels
    EQ_SHAPES_MIN_SIZE = 16,
    EQ_SHAPES_MAX_SIZE = 1024,
    EQ_SHAPES_NUM_CLASSES = 8,
    EQ_SHAPES_NUM_TRAIN = 10000,
    EQ_SHAPES_NUM_TEST = 2000,
    EQ_SHAPES_TEST_INDEX = 1000000, // index of the first test image; training images begin at 0
};

// Names of the classes, sorted; the class of an image is index % EQ_SHAPES_NUM_CLASSES.
extern const char *const eq_shapes_names[EQ_SHAPES_NUM_CLASSES];

#endif

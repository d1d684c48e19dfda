// Pictures into network input, on the device: crop, antialiased resize, flip, colour and normalisation in one kernel.
//
// The resize is Pillow's bilinear bit by bit: a triangle as wide as the scale, horizontally, then vertically, weights of 22
// bits, each pass rounded to 8 bits. The weights are made on the host in double, a table per axis and picture; flip, the crop's
// place and what is outside of the picture are in the tables too, so the kernel knows none of them.
//
//     struct eq_image_job jobs[n];
//     eq_image_job_centre(&jobs[i], height, width, 256, 224);     // or one of the random ones; then jobs[i].pixels = ...
//     eq_image_batch_run(batch, jobs, 0, n);                      // enqueues; does not wait
#ifndef EQ_OP_IMAGE_H
#define EQ_OP_IMAGE_H

#include "op/op.h"

// One picture. Its box, cut out first, is resized; of that, the window of size x size pixels that starts at (crop_y, crop_x) is
// the result. What the window has outside of the resized box is 0 after normalisation: the mean, as He et al. (2016) pad CIFAR.
struct eq_image_job {
    const uint8_t *pixels; // [height, width, 3]; read before eq_image_batch_run() returns
    int height, width;
    int box_y, box_x, box_h, box_w; // inside the picture
    int resize_h, resize_w;         // what the box is resized to
    int crop_y, crop_x;             // may be negative
    bool is_flipped;                // left and right change places, last
    float colour[3];                // added to red, green and blue in [0, 1]
};

// Fill everything but `pixels`. Shorter side to `resize`, the other by int(resize * long / short), and the centre:
// torchvision's Resize and CenterCrop.
void eq_image_job_centre(struct eq_image_job *job, int height, int width, int resize, int size);
// A box of 8 to 100 % of the area and an aspect of 3/4 to 4/3, resized to size x size, and a flip half the time: torchvision's
// RandomResizedCrop and RandomHorizontalFlip, by the random stream `key`.
void eq_image_job_random(struct eq_image_job *job, int height, int width, int size, uint64_t key);
// Shorter side to `size` (most often it is already), then a window moved by up to `pad` pixels over a frame of the mean,
// and a flip half the time.
void eq_image_job_padded(struct eq_image_job *job, int height, int width, int size, int pad, uint64_t key);
// The paper's change of colour: q = (eigenvalues * alpha) @ V with alpha ~ 0.1 N(0, 1), as its published code has it. V is the
// usual matrix of eigenvectors with each row reversed, multiplied from the other side: not quite PCA lighting, but what the
// weights saw.
void eq_image_colour(float colour[3], uint64_t key);

struct eq_image_batch_params {
    int num, size;               // most pictures in a batch; side of the result
    float mean[3], deviation[3]; // of red, green and blue in [0, 1]
    size_t max_bytes;            // pictures on the device at a time, in bytes: a batch with more goes in turns. 0 means 256 MiB
    struct eq_ref output;        // f32 plain [num, 3, size, size]: (value / 255 + colour - mean) / deviation
};
struct eq_image_batch;
// The batch holds device memory that grows with what it is given. Destroy it before the output's buffer. One thread at a time.
eq_status eq_image_batch_create(struct eq_device *device, const struct eq_image_batch_params *params,
                                struct eq_image_batch **batch);
void eq_image_batch_destroy(struct eq_image_batch **batch); // *batch becomes NULL; NULL is allowed
// Makes images first .. first + num-1 of the output from the jobs of these numbers. Pixels are copied before it returns; the
// device's work is enqueued, not waited for. Errors: EQ_ERR_SHAPE (a box outside of its picture, an extent below 1),
// EQ_ERR_ARGUMENT (first, num).
eq_status eq_image_batch_run(struct eq_image_batch *batch, const struct eq_image_job *jobs, int first, int num);
// Device memory for pictures of so many bytes in all.
size_t eq_image_batch_bytes(int num, int size, size_t picture_bytes);

#endif

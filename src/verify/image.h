// Pictures through the kernels that make network input of them, and files of what Pillow makes of them.
#ifndef EQ_VERIFY_IMAGE_H
#define EQ_VERIFY_IMAGE_H

#include "equil/data.h"
#include "op/image.h"
#include "verify/check.h"

// The job without pixels of the file's case `name`; *size is the side of the result.
struct eq_image_job image_read_job(const struct eq_tensors *file, const char *name, int *size);
// Part "picture" or "result" of it; malloc'ed.
int64_t *image_read(const struct eq_tensors *file, const char *name, const char *part, size_t *elems);
// Runs the jobs (as many as the batch takes) `times` times and gives [num, 3, size, size], with a canary on each side checked.
float *image_run(const struct eq_image_job *jobs, int num, int size, const float mean[3], const float deviation[3],
                 size_t max_bytes, int times);
// Output [3, size, size] with values / 255 against 8-bit [size, size, 3]: not one level off.
void image_compare(const float *got, const int64_t *want, int size);

#endif

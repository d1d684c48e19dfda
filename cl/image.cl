// Pictures into network input: resize by tables, colour, normalisation.
//   batch    i32 words                   read     the number of jobs, the jobs, their tables, the pictures' bytes
//   out      f32 [num, 3, size, size]    write    channel c of a job's picture: value * scale[c] + shift[c], value in 0 .. 255;
//                                                 0, the mean, where the window leaves the picture (an axis without taps)
// src/op/image.c puts the words together. A job has a table per axis: for each of the `size` columns (rows) the first source
// column (row), the number of taps, their weights as integers of which 1 << BITS is one. Sums are exact integers, rounded to 8
// bits after the horizontal and after the vertical pass. One work-item per pixel of the result. The horizontal sums of a source
// row are made anew for each result row that it has a part in: two when a picture shrinks, so a pass of its own, with a picture
// between, would save less than it moves.
#ifndef BITS
#define BITS 22
#endif

// Words of a job.
#define JOB_PIXELS 0  // byte offset of the box's first pixel from the start of `batch`
#define JOB_STRIDE 1  // bytes from a source row to the next
#define JOB_COLUMNS 2 // word offset of the table of columns
#define JOB_ROWS 3    // word offset of the table of rows
#define JOB_COLUMN 4  // words of an entry of the table of columns
#define JOB_ROW 5     // words of an entry of the table of rows
#define JOB_IMAGE 6   // place in the output
#define JOB_SCALE 7   // 3 floats
#define JOB_SHIFT 10  // 3 floats
#define JOB_WORDS 16

__kernel __attribute__((reqd_work_group_size(64, 1, 1))) void image_fwd(EQ_IN(int, batch), EQ_BUF(float, out), const int size)
{
    EQ_IN_PTR(int, batch);
    EQ_PTR(float, out);
    const int x = (int)get_global_id(0), y = (int)get_global_id(1), number = (int)get_global_id(2);
    if (x >= size || number >= batch[0])
        return;
    __global const int *job = batch + JOB_WORDS * (number + 1);
    __global const int *column = batch + job[JOB_COLUMNS] + x * job[JOB_COLUMN];
    __global const int *line = batch + job[JOB_ROWS] + y * job[JOB_ROW];
    __global const uchar *pixels = (__global const uchar *)batch + job[JOB_PIXELS] + 3 * column[0];
    const int num_x = column[1], num_y = line[1], one_half = 1 << (BITS - 1);
    int red = one_half, green = one_half, blue = one_half;
    for (int i = 0; i < num_y; i++) {
        __global const uchar *p = pixels + (line[0] + i) * job[JOB_STRIDE];
        int r = one_half, g = one_half, b = one_half;
        for (int j = 0; j < num_x; j++) {
            const int w = column[2 + j];
            r += w * p[3 * j];
            g += w * p[3 * j + 1];
            b += w * p[3 * j + 2];
        }
        red += line[2 + i] * (r >> BITS);
        green += line[2 + i] * (g >> BITS);
        blue += line[2 + i] * (b >> BITS);
    }
    const int plane = size * size;
    const bool is_inside = num_x > 0 && num_y > 0;
    out += (ulong)job[JOB_IMAGE] * 3 * plane + y * size + x;
    out[0] = is_inside ? EQ_MAD((float)(red >> BITS), as_float(job[JOB_SCALE]), as_float(job[JOB_SHIFT])) : 0.0f;
    out[plane] = is_inside ? EQ_MAD((float)(green >> BITS), as_float(job[JOB_SCALE + 1]), as_float(job[JOB_SHIFT + 1])) : 0.0f;
    out[2 * plane] =
        is_inside ? EQ_MAD((float)(blue >> BITS), as_float(job[JOB_SCALE + 2]), as_float(job[JOB_SHIFT + 2])) : 0.0f;
}

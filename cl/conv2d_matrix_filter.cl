// A filter as conv2d_matrix.cl reads it: rounded to PRECISION, in words of matrix.clh, 4 words of each of 16 channels together.
//   w      f32 [oc_blocks, num_k, BLOCK]               read     k = (input block, kh, kw, channel)
//   scale  f32 [oc_blocks, BLOCK]                      read     only where has_scale: the filter is scale w
//   words  u32 [groups of 16 channels, quads, 16, 4]   write    rows of 16 as in a tile of b; behind num_k and oc_blocks: zero
// One work-item makes 4 words of a channel.
// check: -DPRECISION=2
// check: -DPRECISION=3 -DBLOCK=4
#include "matrix.clh"

#define QUAD (4 * EQ_WORD_VALUES) // values of k

__kernel __attribute__((reqd_work_group_size(64, 1, 1)))
void conv2d_matrix_filter(EQ_IN(float, w), EQ_IN(float, scale), EQ_BUF(uint, words), const int oc_blocks, const int num_k,
                          const int has_scale)
{
    EQ_IN_PTR(float, w);
    EQ_IN_PTR(float, scale);
    EQ_PTR(uint, words);
    const int item = (int)get_global_id(0), channel = item % 16, quads = (num_k + QUAD - 1) / QUAD;
    const int quad = item / 16 % quads, group = item / 16 / quads, oc = group * 16 + channel;
    if (group * 16 >= oc_blocks * BLOCK)
        return;
    const float factor = has_scale && oc < oc_blocks * BLOCK ? scale[oc] : 1.0f;
    float value[QUAD];
    #pragma unroll
    for (int v = 0; v < QUAD; v++) {
        const int k = quad * QUAD + v;
        const bool is_there = k < num_k && oc < oc_blocks * BLOCK;
        value[v] = is_there ? w[((ulong)(oc / BLOCK) * num_k + k) * BLOCK + oc % BLOCK] * factor : 0.0f;
    }
    words += ((ulong)group * quads + quad) * 64 + EQ_B_ROW(channel) * 4;
    #pragma unroll
    for (int i = 0; i < 4; i++)
        words[i] = eq_pack(value[i * EQ_WORD_VALUES], value[i * EQ_WORD_VALUES + EQ_WORD_VALUES - 1]);
}

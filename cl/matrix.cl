// What a matrix unit gives for known values: every call of matrix.clh, in two tiles side by side.
//   a f32 [32, 16 words]   read    k runs along rows
//   b f32 [16, 16 words]   read
//   z f32 [32, 16]         write   a times b transposed
// One work-group; each half of it makes 16 rows.
// check: -DPRECISION=2
// check: -DPRECISION=3
#include "matrix.clh"

#define ROWS 32
#define WORDS 16

__kernel EQ_TILE_ATTRIBUTES __attribute__((reqd_work_group_size(2 * EQ_TILE_LANES, 1, 1)))
void matrix_probe(EQ_IN(float, a), EQ_IN(float, b), EQ_BUF(float, z))
{
    EQ_IN_PTR(float, a);
    EQ_IN_PTR(float, b);
    EQ_PTR(float, z);
    __local uint a_tile[ROWS * EQ_TILE_PITCH] __attribute__((aligned(16)));
    __local uint b_tile[16 * EQ_TILE_PITCH] __attribute__((aligned(16)));
    const int item = (int)get_local_id(0), group = 2 * EQ_TILE_LANES;
    const int lane = item % EQ_TILE_LANES, half_of = item / EQ_TILE_LANES;

    for (int i = item; i < ROWS * WORDS; i += group) {
        __global const float *from = a + i * EQ_WORD_VALUES;
        a_tile[i / WORDS * EQ_TILE_PITCH + i % WORDS] = eq_pack(from[0], from[EQ_WORD_VALUES - 1]);
    }
    for (int i = item; i < 16 * WORDS; i += group) {
        __global const float *from = b + i * EQ_WORD_VALUES;
        b_tile[EQ_B_ROW(i / WORDS) * EQ_TILE_PITCH + i % WORDS] = eq_pack(from[0], from[EQ_WORD_VALUES - 1]);
    }
    barrier(CLK_LOCAL_MEM_FENCE);

    eq_tile_sums sums;
    eq_tile_zero(&sums);
    for (int k = 0; k < WORDS; k += 8)
        eq_tile_mma(eq_tile_load_a(a_tile + half_of * 16 * EQ_TILE_PITCH + k, lane), eq_tile_load_b(b_tile + k, lane), &sums);
    for (int r = 0; r < EQ_ROWS; r++)
        for (int c = 0; c < EQ_RUNS; c++)
            EQ_STORE_RUN(eq_tile_run(&sums, r, c), z + (half_of * 16 + EQ_ROW(lane, r)) * 16 + EQ_COLUMN(lane, c));
}

// Convolution in groups for CPUs, depthwise ones included: explicit vectors over a block of output channels.
//   x    f32 [n, x_blocks, rows, columns, BLOCK]      read    first element: the pixel under tap (0, 0) of output (0, 0)
//   w    f32 [oc_blocks, PER_IN, kh, KW, BLOCK]       read
//   bias f32 [oc_blocks, BLOCK]                       read    only where has_bias
//   add  f32 as z                                     read    only where has_add; may be z itself
//   z    f32 [n, oc_blocks, oh, ow, BLOCK]            write   act(sum + bias + add); pixels z_step, rows z_row apart
//   dw   f32 [parts, oc_blocks, PER_IN, kh, KW, BLOCK] write  sums over the rows of dz of a part
// A group has PER_IN input and PER_OUT output channels. SPREAD tells where the lanes of a block of outputs find input channel c
// of their group:
//   SPREAD_LANES    groups of PER_IN = PER_OUT channels side by side in the block: in the same block of x, at the first lane of
//                   their group plus c (depthwise: at their own)
//   SPREAD_ONE      all lanes are of one group: one value for all
//   SPREAD_GATHER   anything else, lane by lane
// Every pixel under a tap must be readable: x has a halo of zeros. Sums run over (channel, kh, kw), or (kh, kw, channel) for
// SPREAD_LANES, and over (image, row, column) for dw.
#define SPREAD_LANES 0
#define SPREAD_ONE 1
#define SPREAD_GATHER 2
#ifndef SPREAD
#define SPREAD SPREAD_LANES
#endif
#ifndef PER_IN
#define PER_IN 1
#endif
#ifndef PER_OUT
#define PER_OUT 1
#endif
#ifndef GROUPS
#define GROUPS 1 // not looked at for SPREAD_LANES
#endif
#ifndef KW
#define KW 3 // the filter's width
#endif
#ifndef STRIDE
#define STRIDE 1 // from an output pixel to the next, in input pixels
#endif
#ifndef TW
#define TW 7 // pixels of a register tile; the last one of a row is moved back to end at the border
#endif
#ifndef ACT
#define ACT ACT_NONE
#endif
#ifndef NP
#define NP 1 // dw: rows of taps of a work-item
#endif
#ifndef NC
#define NC 1 // dw: channels of a work-item: PER_IN for SPREAD_LANES, else a divisor of it
#endif

#if SPREAD == SPREAD_LANES && PER_IN > 1
// For each lane the value of the lane that holds channel c of its group. One by one: what component names choose from a vector,
// Oclgrind takes for uninitialised.
static vecf pick(vecf v, int c)
{
    const float *lanes = (const float *)&v;
#define LANE(i) lanes[(i) / PER_IN * PER_IN + c]
#if BLOCK == 16
    return (vecf)(LANE(0), LANE(1), LANE(2), LANE(3), LANE(4), LANE(5), LANE(6), LANE(7), LANE(8), LANE(9), LANE(10), LANE(11),
                  LANE(12), LANE(13), LANE(14), LANE(15));
#elif BLOCK == 8
    return (vecf)(LANE(0), LANE(1), LANE(2), LANE(3), LANE(4), LANE(5), LANE(6), LANE(7));
#else
    return (vecf)(LANE(0), LANE(1), LANE(2), LANE(3));
#endif
#undef LANE
}
#else
#define pick(v, c) (v)
#endif

#if SPREAD == SPREAD_GATHER
// The values that the lanes of a block meet at a pixel: `places` are offsets from the pixel in block 0.
static vecf gather(__global const float *x, const ulong *places)
{
    float lanes[BLOCK];
    #pragma unroll
    for (int b = 0; b < BLOCK; b++)
        lanes[b] = x[places[b]];
    return *(const eq_unaligned *)lanes;
}
#endif

#if SPREAD != SPREAD_LANES
// Where channel c of the group of output channel `oc` lies; channels that fill up the last block read those of the last group.
static ulong place(int oc, int c, int x_plane)
{
    const int channel = min(oc / PER_OUT, GROUPS - 1) * PER_IN + c;
    return (ulong)(channel / BLOCK) * x_plane + channel % BLOCK;
}
#endif

__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void conv2d_grouped(EQ_IN(float, x), EQ_IN(float, w), __global const float *bias_base, const ulong bias_at,
                    __global const float *add_base, const ulong add_at, EQ_BUF(float, z), const int x_row, const int x_plane,
                    const int x_blocks, const int kh, const int stride_h, const int oc_blocks, const int oh, const int ow,
                    const int z_row, const int z_step, const int z_plane, const int a_row, const int a_step,
                    const int a_plane, const int has_bias, const int has_add, const int rows)
{
    EQ_IN_PTR(float, x);
    EQ_IN_PTR(float, w);
    EQ_PTR(float, z);
    const int first_y = (int)get_global_id(0) * rows, b = (int)get_global_id(1), n = (int)get_global_id(2);
    const ulong block = (ulong)n * oc_blocks + b;
    const vecf bias = has_bias ? EQ_LOAD(bias_base + bias_at + b * BLOCK) : (vecf)(0.0f);
    x += (ulong)n * x_blocks * x_plane;
    w += (ulong)b * (PER_IN * KW * BLOCK) * kh;
    for (int y = first_y; y < min(first_y + rows, oh); y++)
        for (int want_x = 0; want_x < ow; want_x += TW) {
            const int x0 = min(want_x, ow - TW);
            __global const float *xt = x + (ulong)y * stride_h * x_row + (ulong)x0 * (STRIDE * BLOCK);
            vecf acc[TW];
            #pragma unroll
            for (int t = 0; t < TW; t++)
                acc[t] = (vecf)(0.0f);
#if SPREAD == SPREAD_LANES
            xt += (ulong)b * x_plane;
            for (int i = 0; i < kh; i++, xt += x_row)
                #pragma unroll
                for (int j = 0; j < KW; j++) {
                    vecf wv[PER_IN];
                    #pragma unroll
                    for (int c = 0; c < PER_IN; c++)
                        wv[c] = EQ_LOAD(w + ((c * kh + i) * KW + j) * BLOCK);
                    #pragma unroll
                    for (int t = 0; t < TW; t++) {
                        const vecf value = EQ_LOAD(xt + (t * STRIDE + j) * BLOCK);
                        #pragma unroll
                        for (int c = 0; c < PER_IN; c++)
                            acc[t] = EQ_MAD(pick(value, c), wv[c], acc[t]);
                    }
                }
#else
            __global const float *wt = w;
            for (int c = 0; c < PER_IN; c++) {
#if SPREAD == SPREAD_ONE
                __global const float *xc = xt + place(b * BLOCK, c, x_plane);
#else
                ulong places[BLOCK];
                for (int lane = 0; lane < BLOCK; lane++)
                    places[lane] = place(b * BLOCK + lane, c, x_plane);
                __global const float *xc = xt;
#endif
                for (int i = 0; i < kh; i++, xc += x_row)
                    #pragma unroll
                    for (int j = 0; j < KW; j++, wt += BLOCK) {
                        const vecf wv = EQ_LOAD(wt);
                        #pragma unroll
                        for (int t = 0; t < TW; t++) {
#if SPREAD == SPREAD_ONE
                            const vecf value = (vecf)(xc[(t * STRIDE + j) * BLOCK]);
#else
                            const vecf value = gather(xc + (t * STRIDE + j) * BLOCK, places);
#endif
                            acc[t] = EQ_MAD(value, wv, acc[t]);
                        }
                    }
            }
#endif
            #pragma unroll
            for (int t = 0; t < TW; t++)
                if (x0 + t >= want_x) {
                    vecf sum = acc[t] + bias;
                    if (has_add)
                        sum += EQ_LOAD(add_base + add_at + block * a_plane + (ulong)y * a_row + (ulong)(x0 + t) * a_step);
                    EQ_STORE_STREAM(ACT_APPLY(ACT, sum, vecf),
                                    z + block * z_plane + (ulong)y * z_row + (ulong)(x0 + t) * z_step);
                }
        }
}

// Gradient of the filter: a work-item makes NC channels, NP rows and all columns of taps of one block, over one part. x's first
// element is the pixel under tap (0, 0), dz's is its pixel (0, 0); num_rows is n * oh.
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void conv2d_grouped_weight_grad(EQ_IN(float, x), EQ_IN(float, dz), EQ_BUF(float, dw), const int x_row, const int x_plane,
                                const int x_blocks, const int kh, const int stride_h, const int oc_blocks,
                                const int oh, const int ow, const int z_row, const int z_plane,
                                const int num_rows, const int part_rows)
{
    EQ_IN_PTR(float, x);
    EQ_IN_PTR(float, dz);
    EQ_PTR(float, dw);
    const int id = (int)get_global_id(0), b = (int)get_global_id(1), part = (int)get_global_id(2);
    const int p0 = id % (kh / NP) * NP, c0 = id / (kh / NP) * NC;
    vecf acc[NC][NP][KW];
    #pragma unroll
    for (int c = 0; c < NC; c++)
        #pragma unroll
        for (int p = 0; p < NP; p++)
            #pragma unroll
            for (int q = 0; q < KW; q++)
                acc[c][p][q] = (vecf)(0.0f);
#if SPREAD == SPREAD_ONE
    ulong places[NC];
    for (int c = 0; c < NC; c++)
        places[c] = place(b * BLOCK, c0 + c, x_plane);
#elif SPREAD == SPREAD_GATHER
    ulong places[NC][BLOCK];
    for (int c = 0; c < NC; c++)
        for (int lane = 0; lane < BLOCK; lane++)
            places[c][lane] = place(b * BLOCK + lane, c0 + c, x_plane);
#else
    x += (ulong)b * x_plane;
#endif
    for (int row = part * part_rows; row < min((part + 1) * part_rows, num_rows); row++) {
        const int n = row / oh, y = row - n * oh;
        __global const float *xr = x + (ulong)n * x_blocks * x_plane + (ulong)(y * stride_h + p0) * x_row;
        __global const float *zr = dz + ((ulong)n * oc_blocks + b) * z_plane + (ulong)y * z_row;
        for (int column = 0; column < ow; column++, xr += STRIDE * BLOCK, zr += BLOCK) {
            const vecf d = EQ_LOAD(zr);
            #pragma unroll
            for (int p = 0; p < NP; p++)
                #pragma unroll
                for (int q = 0; q < KW; q++) {
                    __global const float *xt = xr + p * x_row + q * BLOCK;
#if SPREAD == SPREAD_LANES
                    const vecf value = EQ_LOAD(xt);
#endif
                    #pragma unroll
                    for (int c = 0; c < NC; c++) {
#if SPREAD == SPREAD_LANES
                        acc[c][p][q] = EQ_MAD(pick(value, c), d, acc[c][p][q]);
#elif SPREAD == SPREAD_ONE
                        acc[c][p][q] = EQ_MAD((vecf)(xt[places[c]]), d, acc[c][p][q]);
#else
                        acc[c][p][q] = EQ_MAD(gather(xt, places[c]), d, acc[c][p][q]);
#endif
                    }
                }
        }
    }
    #pragma unroll
    for (int c = 0; c < NC; c++)
        #pragma unroll
        for (int p = 0; p < NP; p++)
            #pragma unroll
            for (int q = 0; q < KW; q++) {
                const ulong filter = ((ulong)part * oc_blocks + b) * PER_IN + c0 + c;
                EQ_STORE(acc[c][p][q], dw + ((filter * kh + p0 + p) * KW + q) * BLOCK);
            }
}

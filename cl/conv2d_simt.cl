// Convolution for GPUs: an implicit matrix product [oc, k] x [k, pixels] with k = (input block, kh, kw, channel), tiles of both
// in local memory, filters and pixels of all images guarded: no halo is needed. Also computes data gradients, as convolutions
// of dz with transposed filters (conv2d_filter.cl), one launch per parity class of the output pixel; and products of several
// filters, each with an x and a z of its own (dimension 2 of the work-groups), without bias or add.
//   x    f32 [n, x_blocks, ih, iw, BI]                     read    first element: pixel (0, 0)
//   w    f32 [oc_blocks, x_blocks, KH, KW, BI, BLOCK]      read
//   bias f32 [oc_blocks, BLOCK]                            read    only where has_bias
//   add  f32 as z                                          read    only where has_add; may be z itself
//   z    f32 [n, oc_blocks, oh, ow, BLOCK]                 write   act(sum + bias + add); pixels z_step, rows z_row apart
// A work-group makes 4 NTO output channels of NTP * PT pixels; a work-item 4 channels of PT pixels. Lanes lie over channels
// first, so that reads of filters, writes of z and, through blocks, reads of x go to neighbouring addresses. The next tiles are
// read into registers while the present ones are multiplied. The tile of pixels is padded by a float4 against bank conflicts.
#ifndef BI
#define BI BLOCK // input channels in a block: BLOCK, or 1 for a plain image
#endif
#ifndef KH
#define KH 1 // taps of the filter
#endif
#ifndef KW
#define KW 1
#endif
#ifndef NTO
#define NTO 16 // work-items over output channels: 16, 8 or 4
#endif
#ifndef NTP
#define NTP 16 // work-items over pixels: 16 or 8
#endif
#ifndef PT
#define PT 8 // pixels of a work-item: 8 or 4
#endif
#ifndef ACT
#define ACT ACT_NONE
#endif

#define DEPTH 16 // values of k in a tile
#define GROUP (NTO * NTP)
#define PIXELS (NTP * PT)
#define PITCH (PIXELS + 4)
#define NUM_W (DEPTH * NTO / GROUP) // float4s of w that a work-item reads
#if BI == 1
#if GROUP >= PIXELS
#define OWN 1 // pixels that a work-item reads
#define K_STEP (GROUP / PIXELS)
#else
#define OWN (PIXELS / GROUP)
#define K_STEP 1
#endif
#define OWN_PIXEL(lane, m) ((lane) % PIXELS + (m) * GROUP)
#define NUM_X (OWN * DEPTH / K_STEP / 4) // float4s of x that a work-item reads
#else
#define OWN (PIXELS * (DEPTH / 4) / GROUP)
#define OWN_PIXEL(lane, m) (((lane) + (m) * GROUP) / (DEPTH / 4))
#define NUM_X OWN
#endif

// Where a work-item reads: the image and the input pixel under tap (0, 0).
struct source {
    ulong image;
    int y, x;
};

static float4 read_w(__global const float *w, int k, int num_k, int oc, int oc_blocks)
{
    if (k >= num_k || oc >= oc_blocks * BLOCK)
        return (float4)(0.0f);
    return EQ_LOAD4(w + ((ulong)(oc / BLOCK) * num_k + k) * BLOCK + oc % BLOCK);
}

// Offset of k's value from the pixel under tap (0, 0), or -1 where it lies outside of the image.
static long place_x(const struct source *source, int k, int num_k, int ih, int iw, int x_row, int x_plane)
{
    const int tap = k / BI, y = source->y + tap / KW % KH, x = source->x + tap % KW;
    if (k >= num_k || y < 0 || y >= ih || x < 0 || x >= iw)
        return -1;
    return (long)source->image + (long)(tap / (KW * KH)) * x_plane + (long)y * x_row + x * BI + k % BI;
}

__kernel __attribute__((reqd_work_group_size(GROUP, 1, 1)))
void conv2d_simt(EQ_IN(float, x), EQ_IN(float, w), __global const float *bias_base, const ulong bias_at,
                 __global const float *add_base, const ulong add_at, EQ_BUF(float, z),
                 const int num_images, const int ih, const int iw, const int x_row, const int x_plane, const int x_blocks,
                 const int first_y, const int first_x, const int stride_h, const int stride_w, const int oc_blocks,
                 const int oh, const int ow, const int z_row, const int z_step, const int z_plane, const int a_row,
                 const int a_step, const int a_plane, const int has_bias, const int has_add)
{
    EQ_IN_PTR(float, x);
    EQ_IN_PTR(float, w);
    EQ_PTR(float, z);
    __local float4 w_tile[DEPTH * NTO];
    __local float4 x_tile[DEPTH * PITCH / 4];
    __local float *x_values = (__local float *)x_tile;

    const int lane = (int)get_local_id(0), lane_oc = lane % NTO, lane_px = lane / NTO;
    const int first_px = (int)EQ_GROUP(0) * PIXELS, first_oc = (int)get_group_id(1) * 4 * NTO;
    const int num_px = num_images * oh * ow, num_k = x_blocks * KH * KW * BI;
    const ulong filter = get_global_id(2);
    x += filter * num_images * x_blocks * x_plane;
    w += filter * oc_blocks * num_k * BLOCK;
    z += filter * num_images * oc_blocks * z_plane;

    struct source source[OWN];
    #pragma unroll
    for (int m = 0; m < OWN; m++) {
        const int p = first_px + OWN_PIXEL(lane, m), row = p / ow, n = row / oh;
        source[m].image = (ulong)n * x_blocks * x_plane;
        source[m].y = p < num_px ? (row - n * oh) * stride_h + first_y : ih;
        source[m].x = (p - row * ow) * stride_w + first_x;
    }

    float4 acc[PT], w_next[NUM_W], x_next[NUM_X];
    #pragma unroll
    for (int t = 0; t < PT; t++)
        acc[t] = (float4)(0.0f);

    for (int k0 = -DEPTH; k0 < num_k; k0 += DEPTH) {
        // the next tiles, into registers
        if (k0 + DEPTH < num_k) {
            #pragma unroll
            for (int m = 0; m < NUM_W; m++)
                w_next[m] = read_w(w, k0 + DEPTH + lane_px + m * NTP, num_k, first_oc + 4 * lane_oc, oc_blocks);
#if BI == 1
            #pragma unroll
            for (int m = 0; m < NUM_X; m++) {
                float part[4];
                #pragma unroll
                for (int e = 0; e < 4; e++) {
                    const int item = 4 * m + e, k = k0 + DEPTH + lane / PIXELS + item / OWN * K_STEP;
                    const long at = place_x(&source[item % OWN], k, num_k, ih, iw, x_row, x_plane);
                    part[e] = at < 0 ? 0.0f : x[at];
                }
                x_next[m] = (float4)(part[0], part[1], part[2], part[3]);
            }
#else
            #pragma unroll
            for (int m = 0; m < NUM_X; m++) {
                const long at = place_x(&source[m], k0 + DEPTH + lane % (DEPTH / 4) * 4, num_k, ih, iw, x_row, x_plane);
                x_next[m] = at < 0 ? (float4)(0.0f) : EQ_LOAD4(x + at);
            }
#endif
        }
        // the present ones
        if (k0 >= 0) {
            #pragma unroll
            for (int k = 0; k < DEPTH; k++) {
                const float4 wv = w_tile[k * NTO + lane_oc];
                #pragma unroll
                for (int v = 0; v < PT / 4; v++) {
                    const float4 xv = x_tile[k * (PITCH / 4) + v * NTP + lane_px];
                    acc[4 * v + 0] = EQ_MAD((float4)(xv.x), wv, acc[4 * v + 0]);
                    acc[4 * v + 1] = EQ_MAD((float4)(xv.y), wv, acc[4 * v + 1]);
                    acc[4 * v + 2] = EQ_MAD((float4)(xv.z), wv, acc[4 * v + 2]);
                    acc[4 * v + 3] = EQ_MAD((float4)(xv.w), wv, acc[4 * v + 3]);
                }
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        if (k0 + DEPTH < num_k) {
            #pragma unroll
            for (int m = 0; m < NUM_W; m++)
                w_tile[(lane_px + m * NTP) * NTO + lane_oc] = w_next[m];
            #pragma unroll
            for (int m = 0; m < NUM_X; m++) {
                const float part[4] = { x_next[m].x, x_next[m].y, x_next[m].z, x_next[m].w };
                #pragma unroll
                for (int e = 0; e < 4; e++) {
#if BI == 1
                    const int item = 4 * m + e, k = lane / PIXELS + item / OWN * K_STEP, p = OWN_PIXEL(lane, item % OWN);
#else
                    const int k = lane % (DEPTH / 4) * 4 + e, p = OWN_PIXEL(lane, m);
#endif
                    x_values[k * PITCH + p] = part[e];
                }
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }

    const int oc = first_oc + 4 * lane_oc, block = oc / BLOCK;
    if (block >= oc_blocks)
        return;
    #pragma unroll
    for (int t = 0; t < PT; t++) {
        const int p = first_px + (t / 4 * NTP + lane_px) * 4 + t % 4;
        if (p >= num_px)
            continue;
        const int row = p / ow, n = row / oh, yz = row - n * oh, xz = p - row * ow;
        const ulong plane = (ulong)n * oc_blocks + block;
        float4 sum = acc[t];
        if (has_bias)
            sum += EQ_LOAD4(bias_base + bias_at + oc);
        if (has_add)
            sum += EQ_LOAD4(add_base + add_at + plane * a_plane + (ulong)yz * a_row + (ulong)xz * a_step + oc % BLOCK);
        EQ_STORE4(ACT_APPLY(ACT, sum, float4), z + plane * z_plane + (ulong)yz * z_row + (ulong)xz * z_step + oc % BLOCK);
    }
}

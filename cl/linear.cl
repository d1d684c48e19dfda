// A fully connected layer: for CPUs all of it, for GPUs the product and what the gradient needs beside matrix products.
//   x     f32 [n, c]    read
//   w     f32 [k, c]    read
//   b     f32 [k]       read
//   y     f32 [n, k]    write    x w^T + b
//   dy    f32 [n, k]    read
//   dx    f32 [n, c]    write    dy w
//   dw    f32 [k, c]    write    dy^T x
//   db    f32 [k]       write    sum of dy over the rows, in the rows' order by runs of RUN
// linear_bias_grad takes one work-item per output k: neighbours touch neighbours.
// check: -DBLOCK=16 -DSIMT_ROWS=8 -DSIMT_OUTS=8
#ifndef RUN
#define RUN 16 // rows summed on their own before they join the total: short chains keep the rounding small
#endif

#ifdef SIMT_ROWS
#define LANES 64
#define SUMS (SIMT_ROWS * SIMT_OUTS)

static float4 read_quad(__global const float *row, int t, int c)
{
    if (t + 4 <= c)
        return EQ_LOAD4(row + t);
    return (float4)(row[t], t + 1 < c ? row[t + 1] : 0.0f, t + 2 < c ? row[t + 2] : 0.0f, 0.0f);
}

static float dot_quads(float4 a, float4 b, float sum)
{
    return EQ_MAD(a.w, b.w, EQ_MAD(a.z, b.z, EQ_MAD(a.y, b.y, EQ_MAD(a.x, b.x, sum))));
}

// y. A work-group makes SIMT_OUTS outputs k of SIMT_ROWS rows; each work-item sums over the columns 4 lane to 4 lane + 3 of
// every 4 LANES, then halves are added onto halves.
__kernel __attribute__((reqd_work_group_size(LANES, 1, 1)))
void linear_simt(EQ_IN(float, x), EQ_IN(float, w), EQ_IN(float, b), EQ_BUF(float, y), const int n, const int c, const int k)
{
    EQ_IN_PTR(float, x);
    EQ_IN_PTR(float, w);
    EQ_IN_PTR(float, b);
    EQ_PTR(float, y);
    __local float memory[SUMS * LANES];
    const int lane = (int)get_local_id(0), j0 = (int)get_group_id(0) * SIMT_OUTS, i0 = (int)EQ_GROUP(1, 1) * SIMT_ROWS;
    float sums[SIMT_ROWS][SIMT_OUTS];
    #pragma unroll
    for (int i = 0; i < SIMT_ROWS; i++)
        #pragma unroll
        for (int j = 0; j < SIMT_OUTS; j++)
            sums[i][j] = 0.0f;
    for (int t = 4 * lane; t < c; t += 4 * LANES) { // rows and outputs behind the last ones: the last ones again
        float4 value[SIMT_ROWS];
        #pragma unroll
        for (int i = 0; i < SIMT_ROWS; i++)
            value[i] = read_quad(x + (ulong)min(i0 + i, n - 1) * c, t, c);
        #pragma unroll
        for (int j = 0; j < SIMT_OUTS; j++) {
            const float4 weight = read_quad(w + (ulong)min(j0 + j, k - 1) * c, t, c);
            #pragma unroll
            for (int i = 0; i < SIMT_ROWS; i++)
                sums[i][j] = dot_quads(value[i], weight, sums[i][j]);
        }
    }
    #pragma unroll
    for (int i = 0; i < SIMT_ROWS; i++)
        #pragma unroll
        for (int j = 0; j < SIMT_OUTS; j++)
            memory[(i * SIMT_OUTS + j) * LANES + lane] = sums[i][j];
    for (int reach = LANES / 2; reach > 0; reach /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int s = lane; s < reach * SUMS; s += LANES) {
            const int at = s / reach * LANES + s % reach;
            memory[at] += memory[at + reach];
        }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    const int i = i0 + lane / SIMT_OUTS, j = j0 + lane % SIMT_OUTS;
    if (lane < SUMS && i < n && j < k)
        y[(ulong)i * k + j] = memory[lane * LANES] + b[j];
}
#endif

__kernel void linear_bias_grad(EQ_IN(float, dy), EQ_BUF(float, db), const int n, const int k)
{
    EQ_IN_PTR(float, dy);
    EQ_PTR(float, db);
    const int j = (int)get_global_id(0);
    if (j >= k)
        return;
    float sum = 0.0f;
    for (int i = 0; i < n; i += RUN) {
        float run = 0.0f;
        for (int r = i; r < min(i + RUN, n); r++)
            run += dy[(ulong)r * k + j];
        sum += run;
    }
    db[j] = sum;
}

#ifdef BLOCK
#define OUTS 4 // outputs k of a work-item of linear_vector and linear_weight_grad_vector
#define ROWS 4 // rows of a register tile
#define WIDE 4 // vectors of columns c of a work-item of linear_data_grad_vector

// Halves onto halves. Lane by lane: what component names choose from a vector, Oclgrind takes for uninitialised.
static float sum_lanes(vecf v)
{
    float *lane = (float *)&v;
    #pragma unroll
    for (int half_of = BLOCK / 2; half_of > 0; half_of /= 2)
        #pragma unroll
        for (int i = 0; i < half_of; i++)
            lane[i] += lane[i + half_of];
    return lane[0];
}

// y. A work-item makes OUTS outputs of all rows: its rows of w stay in its cache.
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void linear_vector(EQ_IN(float, x), EQ_IN(float, w), EQ_IN(float, b), EQ_BUF(float, y), const int n, const int c, const int k)
{
    EQ_IN_PTR(float, x);
    EQ_IN_PTR(float, w);
    EQ_IN_PTR(float, b);
    EQ_PTR(float, y);
    const int j0 = (int)get_global_id(0) * OUTS, body = c / BLOCK * BLOCK;
    __global const float *wj[OUTS], *xi[ROWS];
    #pragma unroll
    for (int j = 0; j < OUTS; j++)
        wj[j] = w + (ulong)min(j0 + j, k - 1) * c;
    for (int i0 = 0; i0 < n; i0 += ROWS) {
        vecf acc[ROWS][OUTS];
        #pragma unroll
        for (int i = 0; i < ROWS; i++) {
            xi[i] = x + (ulong)min(i0 + i, n - 1) * c;
            #pragma unroll
            for (int j = 0; j < OUTS; j++)
                acc[i][j] = (vecf)(0.0f);
        }
        for (int t = 0; t < body; t += BLOCK) {
            #pragma unroll
            for (int i = 0; i < ROWS; i++) {
                const vecf value = EQ_LOAD(xi[i] + t);
                #pragma unroll
                for (int j = 0; j < OUTS; j++)
                    acc[i][j] = EQ_MAD(value, EQ_LOAD(wj[j] + t), acc[i][j]);
            }
        }
        #pragma unroll
        for (int i = 0; i < ROWS; i++)
            #pragma unroll
            for (int j = 0; j < OUTS; j++)
                if (i0 + i < n && j0 + j < k) {
                    float sum = sum_lanes(acc[i][j]);
                    for (int t = body; t < c; t++)
                        sum = EQ_MAD(xi[i][t], wj[j][t], sum);
                    y[(ulong)(i0 + i) * k + j0 + j] = sum + b[j0 + j];
                }
    }
}

// dx. A work-item makes WIDE vectors of columns of all rows; the last one also what is left of them.
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void linear_data_grad_vector(EQ_IN(float, dy), EQ_IN(float, w), EQ_BUF(float, dx), const int n, const int c, const int k)
{
    EQ_IN_PTR(float, dy);
    EQ_IN_PTR(float, w);
    EQ_PTR(float, dx);
    const int item = (int)get_global_id(0), last = (int)get_global_size(0) - 1, body = c / (WIDE * BLOCK) * (WIDE * BLOCK);
    const int t0 = item * (WIDE * BLOCK);
    for (int i0 = 0; i0 < n && t0 < body; i0 += ROWS) {
        vecf acc[ROWS][WIDE];
        __global const float *di[ROWS];
        #pragma unroll
        for (int i = 0; i < ROWS; i++) {
            di[i] = dy + (ulong)min(i0 + i, n - 1) * k;
            #pragma unroll
            for (int v = 0; v < WIDE; v++)
                acc[i][v] = (vecf)(0.0f);
        }
        for (int j = 0; j < k; j++) {
            vecf value[WIDE];
            #pragma unroll
            for (int v = 0; v < WIDE; v++)
                value[v] = EQ_LOAD(w + (ulong)j * c + t0 + v * BLOCK);
            #pragma unroll
            for (int i = 0; i < ROWS; i++)
                #pragma unroll
                for (int v = 0; v < WIDE; v++)
                    acc[i][v] = EQ_MAD((vecf)(di[i][j]), value[v], acc[i][v]);
        }
        #pragma unroll
        for (int i = 0; i < ROWS; i++)
            #pragma unroll
            for (int v = 0; v < WIDE; v++)
                if (i0 + i < n)
                    EQ_STORE(acc[i][v], dx + (ulong)(i0 + i) * c + t0 + v * BLOCK);
    }
    for (int t = body; t < c && item == last; t++)
        for (int i = 0; i < n; i++) {
            float sum = 0.0f;
            for (int j = 0; j < k; j++)
                sum = EQ_MAD(dy[(ulong)i * k + j], w[(ulong)j * c + t], sum);
            dx[(ulong)i * c + t] = sum;
        }
}

// dw. A work-item makes OUTS rows.
__kernel __attribute__((reqd_work_group_size(1, 1, 1)))
void linear_weight_grad_vector(EQ_IN(float, dy), EQ_IN(float, x), EQ_BUF(float, dw), const int n, const int c, const int k)
{
    EQ_IN_PTR(float, dy);
    EQ_IN_PTR(float, x);
    EQ_PTR(float, dw);
    const int j0 = (int)get_global_id(0) * OUTS, body = c / BLOCK * BLOCK;
    for (int t = 0; t < body; t += BLOCK) {
        vecf acc[OUTS];
        #pragma unroll
        for (int j = 0; j < OUTS; j++)
            acc[j] = (vecf)(0.0f);
        for (int i = 0; i < n; i++) {
            const vecf value = EQ_LOAD(x + (ulong)i * c + t);
            #pragma unroll
            for (int j = 0; j < OUTS; j++)
                acc[j] = EQ_MAD((vecf)(dy[(ulong)i * k + min(j0 + j, k - 1)]), value, acc[j]);
        }
        #pragma unroll
        for (int j = 0; j < OUTS; j++)
            if (j0 + j < k)
                EQ_STORE(acc[j], dw + (ulong)(j0 + j) * c + t);
    }
    for (int j = j0; j < min(j0 + OUTS, k); j++)
        for (int t = body; t < c; t++) {
            float sum = 0.0f;
            for (int i = 0; i < n; i++)
                sum = EQ_MAD(dy[(ulong)i * k + j], x[(ulong)i * c + t], sum);
            dw[(ulong)j * c + t] = sum;
        }
}
#endif

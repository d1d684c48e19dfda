// What a fully connected layer needs beside matrix products.
//   b     f32 [k]       read
//   y     f32 [n, k]    write    b in every row: the product is added to it
//   dy    f32 [n, k]    read
//   db    f32 [k]       write    sum of dy over the rows, in the rows' order by runs of RUN
// One work-item per output k: neighbours touch neighbours.
#ifndef RUN
#define RUN 16 // rows summed on their own before they join the total: short chains keep the rounding small
#endif

__kernel void linear_bias(EQ_IN(float, b), EQ_BUF(float, y), const int n, const int k)
{
    EQ_IN_PTR(float, b);
    EQ_PTR(float, y);
    const int j = (int)get_global_id(0);
    if (j >= k)
        return;
    const float value = b[j];
    for (int i = 0; i < n; i++)
        y[(ulong)i * k + j] = value;
}

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

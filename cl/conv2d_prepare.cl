// A batch norm with fixed statistics folded into the convolution before it:
//     gamma (z - mean) / sqrt(var + eps) + beta = scale z + bias,  z = conv(x, w),  scale z = conv(x, scale w)

//   gamma, beta, mean, var  f32 [c]                      read
//   scale, bias             f32 [c rounded up to blocks] write   padding channels are zero
__kernel __attribute__((reqd_work_group_size(BLOCK, 1, 1)))
void conv2d_prepare_coefficients(EQ_IN(float, gamma), EQ_IN(float, beta), EQ_IN(float, mean), EQ_IN(float, var),
                                 EQ_BUF(float, scale), EQ_BUF(float, bias), const int channels, const float eps)
{
    EQ_IN_PTR(float, gamma);
    EQ_IN_PTR(float, beta);
    EQ_IN_PTR(float, mean);
    EQ_IN_PTR(float, var);
    EQ_PTR(float, scale);
    EQ_PTR(float, bias);
    const int c = (int)get_global_id(0);
    float a = 0.0f, b = 0.0f;
    if (c < channels) {
        a = gamma[c] / sqrt(var[c] + eps);
        b = EQ_MAD(-a, mean[c], beta[c]);
    }
    scale[c] = a;
    bias[c] = b;
}

//   w       f32 [oc_blocks, rows, BLOCK oc]    read
//   scale   f32 [oc_blocks, BLOCK]             read
//   scaled  f32 as w                           write
__kernel __attribute__((reqd_work_group_size(BLOCK, 1, 1)))
void conv2d_prepare_filter(EQ_IN(float, w), EQ_IN(float, scale), EQ_BUF(float, scaled), const int rows)
{
    EQ_IN_PTR(float, w);
    EQ_IN_PTR(float, scale);
    EQ_PTR(float, scaled);
    const int lane = (int)get_local_id(0), row = (int)get_group_id(0), block = (int)get_group_id(1);
    const ulong at = ((ulong)block * rows + row) * BLOCK + lane;
    scaled[at] = w[at] * scale[block * BLOCK + lane];
}

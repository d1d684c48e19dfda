// Softmax with cross entropy, and the gradient of the batch's mean loss.
//   logits   f32 [n, k]    read
//   labels   i32 [n]       read
//   loss     f32 [n]       write    sum over j of t_j (lse - logit_j); NaN for a label outside 0 .. k-1
//   dlogits  f32 [n, k]    write    (softmax - t) / n; NaN where the loss has no label
// t is `on` on the label and `off` elsewhere. lse = max + log(sum exp(logit - max)). All sums run over max - logit >= 0 or its
// exponential, so that nothing cancels and nothing overflows whatever the logits' mean is.
// One work-group of LSIZE per row; local sums merge in a tree, in a fixed order.
#ifndef LSIZE
#define LSIZE 64 // a power of two
#endif

// Merges `value` of all work-items; every work-item gets the result.
static inline float merge_max(__local float *part, float value)
{
    const int item = (int)get_local_id(0);
    barrier(CLK_LOCAL_MEM_FENCE);
    part[item] = value;
    for (int span = LSIZE / 2; span > 0; span /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (item < span)
            part[item] = fmax(part[item], part[item + span]);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    return part[0];
}

static inline float merge_sum(__local float *part, float value)
{
    const int item = (int)get_local_id(0);
    barrier(CLK_LOCAL_MEM_FENCE);
    part[item] = value;
    for (int span = LSIZE / 2; span > 0; span /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (item < span)
            part[item] += part[item + span];
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    return part[0];
}

__kernel __attribute__((reqd_work_group_size(LSIZE, 1, 1))) void softmax_xent_fwd(EQ_IN(float, logits), EQ_IN(int, labels),
                                                                                  EQ_BUF(float, loss), EQ_BUF(float, dlogits),
                                                                                  const int n, const int k, const float on,
                                                                                  const float off)
{
    EQ_IN_PTR(float, logits);
    EQ_IN_PTR(int, labels);
    EQ_PTR(float, loss);
    EQ_PTR(float, dlogits);
    __local float part[LSIZE];
    const int item = (int)get_local_id(0), row = (int)get_group_id(0), label = labels[row];
    const bool has_label = label >= 0 && label < k;
    logits += (ulong)row * k;
    dlogits += (ulong)row * k;

    float top = -INFINITY;
    for (int j = item; j < k; j += LSIZE)
        top = fmax(top, logits[j]);
    top = merge_max(part, top);

    float sum = 0.0f, below = 0.0f; // of exp(logit - top), and of top - logit over the classes without the label
    for (int j = item; j < k; j += LSIZE) {
        sum += exp(logits[j] - top);
        below += j == label ? 0.0f : top - logits[j];
    }
    sum = merge_sum(part, sum);
    below = merge_sum(part, below);

    const float log_sum = log(sum), scale = 1.0f / (float)n;
    for (int j = item; j < k; j += LSIZE) {
        const float grad = (exp(logits[j] - top) / sum - (j == label ? on : off)) * scale;
        dlogits[j] = has_label ? grad : NAN;
    }
    if (item == 0) {
        float total = has_label ? on * (top - logits[label] + log_sum) : NAN;
        if (off > 0.0f) // a class at -infinity counts only where it has a share
            total += off * (below + (float)(k - 1) * log_sum);
        loss[row] = total;
    }
}

#include "train/metrics.h"

#include <math.h>

int eq_metric_rank(const float *logits, int classes, int label)
{
    int rank = 0;
    for (int c = 0; c < classes; c++)
        if (c != label && (!(logits[c] <= logits[label]) || (logits[c] == logits[label] && c < label)))
            rank++;
    return rank;
}

// log(sum(exp(logits))), with the largest taken out.
static double log_sum(const float *logits, int classes)
{
    double top = logits[0], sum = 0;
    for (int c = 1; c < classes; c++)
        top = fmax(top, logits[c]);
    for (int c = 0; c < classes; c++)
        sum += exp(logits[c] - top);
    return top + log(sum);
}

double eq_metric_cross_entropy(const float *logits, int classes, int label)
{
    return log_sum(logits, classes) - logits[label];
}

void eq_metric_softmax(const float *logits, int classes, float *probabilities)
{
    double shift = log_sum(logits, classes);
    for (int c = 0; c < classes; c++)
        probabilities[c] = (float)exp(logits[c] - shift);
}

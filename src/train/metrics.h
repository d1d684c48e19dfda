// What a row of logits says about a label. Pure.
#ifndef EQ_TRAIN_METRICS_H
#define EQ_TRAIN_METRICS_H

// Classes that come before `label` when sorted by logit, largest first, and by number among equals: 0 is a top-1 hit. A NaN
// counts as before everything, so that broken results are no hits.
int eq_metric_rank(const float *logits, int classes, int label);
// -log softmax(logits)[label].
double eq_metric_cross_entropy(const float *logits, int classes, int label);
// softmax(logits [classes]) -> probabilities [classes]; may be the same memory.
void eq_metric_softmax(const float *logits, int classes, float *probabilities);

#endif

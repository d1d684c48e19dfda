// Inside the library: a network as a graph of its own, and initial values.
#ifndef EQ_MODEL_MODEL_H
#define EQ_MODEL_MODEL_H

#include "equil/model.h"
#include "graph/graph.h"

// A network between an image input and its logits, with or without a loss.
struct eq_model_graph {
    struct eq_graph *graph;
    eq_value images, logits, labels, loss; // labels and loss: EQ_NO_VALUE without a loss
};
// smoothing < 0: no loss.
eq_status eq_model_graph_create(const struct eq_model_params *params, int n, int h, int w, float smoothing,
                                struct eq_model_graph *model);
void eq_model_graph_destroy(struct eq_model_graph *model);

// Initial values of the entry, in the API's order; a pure function of (name, shape, seed). See eq_weights_initialise().
void eq_model_initial(const struct eq_store *store, const struct eq_store_entry *entry, uint64_t seed, float *values);
// Whether they are drawn: the weights and biases of convolutions and linear layers. Others do not depend on the seed.
bool eq_model_is_drawn(const struct eq_store *store, const struct eq_store_entry *entry);

#endif

// The update kernel reads from memory whether a loss was not finite (cl/sgd.cl), so no step waits for the host to look at one.
#include "train/step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/metrics.h"

enum { NUM_HYPER = 3, HALT = 3 }; // numbers that the host sets before an update; where the device keeps the halt

// What a launched batch sends to the host.
struct slot {
    float *losses, *logits; // [batch], [batch, classes]
    struct eq_ticket losses_ticket, logits_ticket;
};

struct eq_step {
    struct eq_network *network;
    struct eq_step_params params;
    struct eq_list *guard;                 // of every batch's losses
    struct eq_list *first, *next, *update; // accumulation: first batch of an update, others
    struct eq_buffer *hyper;
    float host_hyper[2][NUM_HYPER]; // in turn: the device may still read the other
    struct eq_ticket hyper_ticket[2];
    int hyper_turn;
    struct eq_ref losses, logits;
    struct slot slots[EQ_STEP_AHEAD]; // of batches by their number, in turn
    int64_t num_launched, num_taken;
};

static eq_status make_lists(struct eq_step *step)
{
    struct eq_device *device = step->network->device;
    struct eq_store *store = step->network->weights->store;
    bool is_summed = step->params.accumulate > 1;
    float scale = 1 / (float)step->params.accumulate;
    EQ_TRY(eq_buffer_create(device, (HALT + 1) * sizeof(float), &step->hyper));
    EQ_TRY(eq_step_begin(step));
    EQ_TRY(eq_list_create(device, &step->guard));
    EQ_TRY(eq_list_label(step->guard, "sgd"));
    EQ_TRY(eq_sgd_guard_emit(step->guard, (size_t)step->params.batch, step->losses, eq_ref_at(step->hyper, 0)));
    EQ_TRY(eq_list_create(device, &step->first));
    EQ_TRY(eq_list_create(device, &step->next));
    EQ_TRY(eq_list_create(device, &step->update));
    if (is_summed) {
        EQ_TRY(eq_store_emit_accumulate(store, step->first, scale, true));
        EQ_TRY(eq_store_emit_accumulate(store, step->next, scale, false));
    }
    return eq_store_emit_update(store, step->update, eq_ref_at(step->hyper, 0), is_summed);
}

static eq_status fill_step(struct eq_step *step)
{
    const struct eq_step_params *params = &step->params;
    struct eq_tensor tensor;
    EQ_TRY(eq_network_compile_gradients(step->network, params->batch, params->size, params->size, params->label_smoothing));
    const struct eq_compiled *compiled = &step->network->gradients;
    EQ_TRY(eq_exec_find(compiled->exec, compiled->model.loss, &step->losses, &tensor));
    EQ_TRY(eq_exec_find(compiled->exec, compiled->model.logits, &step->logits, &tensor));
    for (int i = 0; i < EQ_STEP_AHEAD; i++) {
        EQ_ALLOC(step->slots[i].losses, params->batch);
        EQ_ALLOC(step->slots[i].logits, eq_tensor_elems(&tensor));
    }
    return make_lists(step);
}

eq_status eq_step_create(struct eq_network *network, const struct eq_step_params *params, struct eq_step **step)
{
    EQ_ALLOC(*step, 1);
    (*step)->network = network;
    (*step)->params = *params;
    eq_status status = fill_step(*step);
    if (status != EQ_OK)
        eq_step_destroy(step);
    return status;
}

void eq_step_destroy(struct eq_step **step)
{
    if (!*step)
        return;
    for (int i = 0; i < EQ_STEP_AHEAD; i++) {
        eq_ticket_drop(&(*step)->slots[i].losses_ticket);
        eq_ticket_drop(&(*step)->slots[i].logits_ticket);
        free((*step)->slots[i].losses);
        free((*step)->slots[i].logits);
    }
    eq_ticket_drop(&(*step)->hyper_ticket[0]);
    eq_ticket_drop(&(*step)->hyper_ticket[1]);
    eq_list_destroy(&(*step)->guard);
    eq_list_destroy(&(*step)->first);
    eq_list_destroy(&(*step)->next);
    eq_list_destroy(&(*step)->update);
    eq_buffer_destroy(&(*step)->hyper);
    free(*step);
    *step = NULL;
}

eq_status eq_step_begin(struct eq_step *step)
{
    const float halt = 0;
    step->num_taken = step->num_launched;
    return eq_ref_write(eq_ref_at(step->hyper, HALT), &halt, 1, sizeof halt);
}

eq_status eq_step_launch(struct eq_step *step)
{
    size_t batch = (size_t)step->params.batch, classes = (size_t)step->network->params.classes;
    EQ_REQUIRE(step->num_launched - step->num_taken < EQ_STEP_AHEAD, EQ_ERR_ARGUMENT,
               "%d batches wait for their results already", EQ_STEP_AHEAD);
    struct slot *slot = &step->slots[step->num_launched % EQ_STEP_AHEAD];
    EQ_TRY(eq_exec_run(step->network->gradients.exec));
    EQ_TRY(eq_list_run(step->guard));
    eq_weights_touched(step->network->weights, step->network->gradients.exec, 1);
    step->network->weights->has_gradients = true;
    EQ_TRY(eq_ref_read_start(step->losses, slot->losses, batch, sizeof(float), &slot->losses_ticket));
    EQ_TRY(eq_ref_read_start(step->logits, slot->logits, batch * classes, sizeof(float), &slot->logits_ticket));
    step->num_launched++;
    return EQ_OK;
}

static bool is_finite(const float *values, size_t num)
{
    for (size_t i = 0; i < num; i++)
        if (!isfinite(values[i]))
            return false;
    return true;
}

static eq_status entry_is_finite(const struct eq_step *step, const struct eq_store_entry *entry, enum eq_store_part part,
                                 bool *is_good)
{
    size_t elems = eq_tensor_logical(&entry->tensor);
    float *values = eq_malloc(elems, sizeof *values);
    if (!values)
        return EQ_ERR_HOST_MEMORY;
    eq_status status = eq_store_read(step->network->weights->store, entry, part, values);
    *is_good = status == EQ_OK && is_finite(values, elems);
    free(values);
    return status;
}

// Forward order is the order in which the graph made its values. Running statistics moved with the batch that failed and the
// one behind it, the weights did not.
static eq_status blame_part(const struct eq_step *step, enum eq_store_part part, const char **name)
{
    const struct eq_graph *graph = step->network->shape.graph;
    for (int v = 0; v < graph->num_values; v++) {
        const struct eq_store_entry *entry =
            graph->values[v].name ? eq_store_find(step->network->weights->store, graph->values[v].name) : NULL;
        bool is_good;
        if (!entry || (part != EQ_STORE_VALUE && entry->kind != EQ_VALUE_PARAMETER))
            continue;
        EQ_TRY(entry_is_finite(step, entry, part, &is_good));
        if (is_good)
            continue;
        *name = entry->name;
        return EQ_OK;
    }
    return EQ_OK;
}

static eq_status blame(const struct eq_step *step, const float *host_logits, double loss)
{
    const char *name = NULL;
    size_t logits = (size_t)step->params.batch * (size_t)step->network->params.classes;
    EQ_TRY(blame_part(step, EQ_STORE_VALUE, &name));
    if (name)
        return eq_fail(EQ_ERR_NUMERIC, "the loss is %g; the first tensor that is not finite is %s", loss, name);
    bool is_finite_here = is_finite(host_logits, logits);
    return eq_fail(EQ_ERR_NUMERIC, "the loss is %g; weights and running statistics are finite, %s", loss,
                   is_finite_here ? "and the logits too: the loss itself overflows" : "the logits (layer fc) are not");
}

eq_status eq_step_result(struct eq_step *step, const int32_t *labels, struct eq_step_result *result)
{
    int classes = step->network->params.classes;
    *result = (struct eq_step_result){ 0 };
    EQ_REQUIRE(step->num_taken < step->num_launched, EQ_ERR_ARGUMENT, "no batch was launched");
    struct slot *slot = &step->slots[step->num_taken++ % EQ_STEP_AHEAD];
    EQ_TRY(eq_ticket_wait(&slot->losses_ticket));
    EQ_TRY(eq_ticket_wait(&slot->logits_ticket));
    for (int i = 0; i < step->params.batch; i++) {
        result->loss_sum += slot->losses[i];
        result->hits += eq_metric_rank(slot->logits + (size_t)i * (size_t)classes, classes, labels[i]) == 0;
    }
    return isfinite(result->loss_sum) ? EQ_OK : blame(step, slot->logits, result->loss_sum / step->params.batch);
}

eq_status eq_step_finish(struct eq_step *step, int index, double rate)
{
    if (step->params.accumulate > 1)
        EQ_TRY(eq_list_run(index == 0 ? step->first : step->next));
    if (index + 1 < step->params.accumulate)
        return EQ_OK;
    int turn = step->hyper_turn = 1 - step->hyper_turn;
    float *hyper = step->host_hyper[turn];
    EQ_TRY(eq_ticket_wait(&step->hyper_ticket[turn]));
    memcpy(hyper, (float[NUM_HYPER]){ (float)rate, step->params.momentum, step->params.weight_decay },
           NUM_HYPER * sizeof *hyper);
    EQ_TRY(eq_ref_write_start(eq_ref_at(step->hyper, 0), hyper, NUM_HYPER, sizeof *hyper, &step->hyper_ticket[turn]));
    eq_store_touch(step->network->weights->store);
    return eq_list_run(step->update);
}

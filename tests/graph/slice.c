// Slices: lifetimes and memory of a plan with given stretches, a replay of whole plans that sees every overwritten image, what
// the model cuts, and results: with slices they are those without.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph/graph.h"
#include "model/model.h"
#include "support.h"

enum { SIDE = 10, CHANNELS = 20, CLASSES = 5, MAX_IMAGES = 5 };

#define CONV(oc, k) \
    (&(struct eq_conv2d_params){ .out_channels = (oc), .kernel_h = (k), .kernel_w = (k), .pad_h = (k) / 2, .pad_w = (k) / 2 })

struct net {
    struct eq_graph *graph;
    eq_value x, features, logits;
    int n;
};

// conv, norm, ReLU, max pool; two blocks whose residuals are added at their end; an output in blocks; the classifier. With
// gates, the first block's is settled before its convolution (conv2d_gated), the second one's after it.
static void build_net(struct net *net, int n, bool has_gates)
{
    eq_value a, b;
    *net = (struct net){ .n = n };
    EQ_TEST_OK(eq_graph_create(&net->graph));
    struct eq_graph *g = net->graph;
    EQ_TEST_OK(eq_graph_input(g, "x", n, 3, SIDE, SIDE, &net->x));
    EQ_TEST_OK(eq_graph_conv2d(g, net->x, "stem", CONV(CHANNELS, 3), &a));
    EQ_TEST_OK(eq_graph_batch_norm(g, a, "stem_norm", NULL, &a));
    EQ_TEST_OK(eq_graph_activation(g, a, EQ_RELU, &a));
    EQ_TEST_OK(eq_graph_max_pool(g, a, &(struct eq_pool_params){ .kernel = 3, .stride = 1, .pad = 1 }, &a));
    for (int i = 0; i < 2; i++) {
        EQ_TEST_OK(eq_graph_conv2d(g, a, i ? "b1" : "a1", CONV(CHANNELS, 3), &b));
        EQ_TEST_OK(eq_graph_batch_norm(g, b, i ? "b1_norm" : "a1_norm", NULL, &b));
        EQ_TEST_OK(eq_graph_activation(g, b, EQ_RELU, &b));
        EQ_TEST_OK(eq_graph_conv2d(g, b, i ? "b2" : "a2", CONV(CHANNELS, has_gates && i ? 3 : 1), &b));
        EQ_TEST_OK(eq_graph_batch_norm(g, b, i ? "b2_norm" : "a2_norm", NULL, &b));
        if (has_gates && i == 0)
            EQ_TEST_OK(eq_graph_channel_equilibrium(g, b, "ce", &(struct eq_equilibrium_params){ .group = 4 }, &b));
        if (has_gates && i == 1)
            EQ_TEST_OK(eq_graph_squeeze_excite(g, b, "se", &(struct eq_squeeze_excite_params){ .reduction = 4 }, &b));
        EQ_TEST_OK(eq_graph_add(g, b, a, &a));
        EQ_TEST_OK(eq_graph_activation(g, a, EQ_RELU, &a));
    }
    net->features = a;
    EQ_TEST_OK(eq_graph_output(g, a, "features"));
    EQ_TEST_OK(eq_graph_conv2d(g, a, "last", CONV(CHANNELS, 1), &b));
    EQ_TEST_OK(eq_graph_mean_pool(g, b, &b));
    EQ_TEST_OK(eq_graph_linear(g, b, "fc", CLASSES, &net->logits));
    EQ_TEST_OK(eq_graph_output(g, net->logits, "logits"));
}

// The call of that label and op.
static int find_call(const struct eq_ir *ir, const char *label, const struct eq_op *op)
{
    for (int c = 0; c < ir->num_calls; c++)
        if (strcmp(ir->calls[c].label, label) == 0 && ir->calls[c].call.op == op)
            return c;
    ck_abort_msg("there is no %s of %s", op->name, label);
    return -1;
}

// The first call from there on that is part of a run.
static int next_call(const struct eq_ir *ir, int call)
{
    while (ir->calls[call].is_constant)
        call++;
    return call;
}

static struct eq_ir *make_ir(const struct eq_graph *graph, const struct eq_target *target, const struct eq_stretch *stretches,
                             int num)
{
    struct eq_ir *ir;
    const struct eq_compile_params params = { .loss = EQ_NO_VALUE, .stretches = stretches, .num_stretches = num };
    EQ_TEST_OK(eq_ir_create(graph, target, &params, &ir));
    return ir;
}

// A plan in one chunk.
struct plan {
    struct eq_plan_item *items;
    int num, *item_of_value;
    size_t bytes;
};

static struct plan make_plan(const struct eq_ir *ir)
{
    struct plan plan;
    int num_chunks;
    EQ_TEST_OK(eq_plan_items(ir, &plan.items, &plan.num, &plan.item_of_value));
    EQ_TEST_OK(eq_plan_place(plan.items, plan.num, 256, SIZE_MAX, &plan.bytes, 1, &num_chunks));
    return plan;
}

static void free_plan(struct plan *plan)
{
    free(plan->items);
    free(plan->item_of_value);
}

static const struct eq_plan_item *item_of(const struct plan *plan, const struct eq_ir *ir, int call, int output)
{
    return &plan->items[plan->item_of_value[ir->calls[call].out[output]]];
}

static void check_life(const struct eq_plan_item *item, int first, int last, size_t bytes)
{
    ck_assert_int_eq(item->first, first);
    ck_assert_int_eq(item->last, last);
    ck_assert_uint_eq(item->bytes, bytes);
}

// Five images in slices of 2 and 3. The first stretch ends inside block b, whose residual so crosses the boundary.
START_TEST(lifetimes)
{
    struct net net;
    struct eq_target target = eq_target_default();
    build_net(&net, 5, false);
    target.use_winograd = false;
    struct eq_ir *ir = make_ir(net.graph, &target, NULL, 0);
    ck_assert_int_eq(ir->num_stretches, 0); // all of it fits the cache
    const int stem = find_call(ir, "stem", &eq_op_conv2d_fused), a1 = find_call(ir, "a1", &eq_op_conv2d_fused);
    const int a2 = find_call(ir, "a2", &eq_op_conv2d_fused), b1 = find_call(ir, "b1", &eq_op_conv2d_fused);
    const int b2 = find_call(ir, "b2", &eq_op_conv2d_fused), last = find_call(ir, "last", &eq_op_conv2d);
    const struct eq_stretch given[] = { { .first = stem, .end = b1 + 1, .slices = 2 },
                                        { .first = b2, .end = last + 1, .slices = 5 } };
    eq_ir_destroy(&ir);
    ir = make_ir(net.graph, &target, given, 2);
    struct plan plan = make_plan(ir);
    const size_t plain = SIDE * SIDE * 32 * 4, framed = (SIDE + 2) * (SIDE + 2) * 32 * 4; // bytes of an image
    // Local: a slice's memory, and only while it is needed.
    check_life(item_of(&plan, ir, stem, 0), stem, stem + 1, 3 * plain);
    check_life(item_of(&plan, ir, a1, 0), a1, a2, 3 * plain);
    // A block's output of the same form, but whole, does not take over its memory.
    check_life(item_of(&plan, ir, stem + 1, 0), stem + 1, a2, 3 * framed);
    check_life(item_of(&plan, ir, stem + 1, 1), stem + 1, stem + 1, 4); // the pool's places: evaluation has none
    // Whole: there during the stretches that touch them.
    check_life(item_of(&plan, ir, a2, 0), stem, last, 5 * framed);
    check_life(item_of(&plan, ir, b1, 0), stem, last, 5 * plain);
    check_life(item_of(&plan, ir, b2, 0), b2, ir->num_calls, 5 * plain);
    // Read after its stretch, by one that is not cut.
    check_life(item_of(&plan, ir, last, 0), b2, last + 1, 5 * plain);
    // What is made from weights stays.
    check_life(&plan.items[plan.item_of_value[ir->calls[b2].in[1]]], 0, ir->num_calls, 32 * 32 * 4);
    free_plan(&plan);
    eq_ir_destroy(&ir);
    eq_graph_destroy(&net.graph);
}
END_TEST

// An output takes over an input's memory where both are whole, or both local.
START_TEST(in_place)
{
    struct net net;
    struct eq_target target = eq_target_default();
    build_net(&net, 4, true);
    target.use_winograd = false;
    struct eq_ir *ir = make_ir(net.graph, &target, NULL, 0);
    const int conv = find_call(ir, "b2", &eq_op_conv2d), se = find_call(ir, "se", &eq_op_unit);
    const int z = ir->calls[conv].out[0];
    ck_assert_int_eq(ir->calls[se].in[EQ_UNIT_Z], z);
    for (int end = conv + 1; end <= se + 2; end++) { // z is whole; read in a stretch; local, as the unit's output is not
        const struct eq_stretch given[] = { { .first = conv, .end = end, .slices = 2 },
                                            { .first = se, .end = se + 2, .slices = 2 } };
        eq_ir_destroy(&ir);
        ir = make_ir(net.graph, &target, given, end <= se ? 2 : 1);
        struct plan plan = make_plan(ir);
        ck_assert_int_eq(eq_ir_is_local(ir, z), end > se);
        ck_assert_int_eq(plan.item_of_value[z] == plan.item_of_value[ir->calls[se].out[EQ_UNIT_OUT]], end <= se);
        free_plan(&plan);
    }
    eq_ir_destroy(&ir);
    eq_graph_destroy(&net.graph);
}
END_TEST

// ---- replay: every call of every slice, in order; who owns which bytes

struct owner {
    int value, image; // image -1: workspace
    size_t from, to;
};

struct replay {
    const struct eq_ir *ir;
    const struct plan *plan;
    struct owner *owners;
    size_t num, capacity;
};

static struct owner place_of(const struct replay *r, int value, int image, int first_image)
{
    const struct eq_ir_value *v = &r->ir->values[value];
    const struct eq_plan_item *item = &r->plan->items[r->plan->item_of_value[value]];
    const size_t bytes = eq_tensor_bytes(&v->tensor) / (size_t)v->tensor.n;
    const size_t at = item->offset + bytes * (size_t)(image - (eq_ir_is_local(r->ir, value) ? first_image : 0));
    return (struct owner){ value, image, at, at + bytes };
}

// Others lose what they have there, but for the image whose place is taken over.
static void take(struct replay *r, struct owner owner, int taken_over)
{
    for (size_t i = 0; i < r->num; i++) {
        struct owner *other = &r->owners[i];
        if (other->from < owner.to && owner.from < other->to && !(other->value == taken_over && other->image == owner.image))
            *other = r->owners[--r->num], i--;
    }
    if (r->num == r->capacity) {
        r->capacity = 2 * r->capacity + 64;
        r->owners = realloc(r->owners, r->capacity * sizeof *r->owners);
    }
    r->owners[r->num++] = owner;
}

static bool is_owner(const struct replay *r, struct owner owner)
{
    for (size_t i = 0; i < r->num; i++)
        if (memcmp(&r->owners[i], &owner, sizeof owner) == 0)
            return true;
    return false;
}

static void replay_call(struct replay *r, int index, int first_image, int images)
{
    const struct eq_ir_call *call = &r->ir->calls[index];
    struct eq_call sliced = call->call;
    if (call->stretch)
        EQ_TEST_OK(eq_ir_sliced_call(r->ir, index, images, &sliced));
    for (int o = 0; o < sliced.num_outputs; o++) {
        const int value = call->out[o], item = r->plan->item_of_value[value];
        if (item < 0)
            continue;
        const bool is_result = r->ir->values[value].last_reader >= 0 || r->ir->values[value].is_output;
        const int input = sliced.op->in_place ? sliced.op->in_place(&sliced, o) : -1;
        const bool is_taken_over =
            input >= 0 && call->in[input] >= 0 && r->plan->item_of_value[call->in[input]] == item;
        const size_t at = r->plan->items[item].offset, bytes = eq_tensor_bytes(&sliced.output[o]);
        ck_assert_uint_le(is_result ? 0 : bytes, r->plan->items[item].bytes);
        for (int i = 0; is_result && i < images; i++)
            take(r, place_of(r, value, first_image + i, first_image), is_taken_over ? call->in[input] : -1);
        if (!is_result)
            take(r, (struct owner){ value, -1, at, at + bytes }, -1);
    }
    for (int i = 0; i < sliced.num_inputs; i++) {
        const int value = call->in[i];
        if (value < 0 || r->plan->item_of_value[value] < 0 || !eq_ir_has_images(r->ir, value))
            continue;
        for (int k = 0; k < images; k++)
            ck_assert_msg(is_owner(r, place_of(r, value, first_image + k, first_image)),
                          "%s %s reads image %d of input %d, which has been overwritten", call->label, sliced.op->name,
                          first_image + k, i);
    }
}

static void replay(const struct eq_ir *ir, int n)
{
    struct plan plan = make_plan(ir);
    struct replay r = { .ir = ir, .plan = &plan };
    for (int c = 0; c < ir->num_calls; c++) {
        const struct eq_stretch *stretch = ir->calls[c].stretch;
        if (!stretch && !ir->calls[c].is_constant)
            replay_call(&r, c, 0, n);
        for (int s = 0; stretch && stretch->first == c && s < stretch->slices; s++)
            for (int i = c; i < stretch->end; i++)
                if (!ir->calls[i].is_constant)
                    replay_call(&r, i, eq_stretch_image(stretch, s),
                                eq_stretch_image(stretch, s + 1) - eq_stretch_image(stretch, s));
    }
    free(r.owners);
    free_plan(&plan);
}

// Every pair of neighbouring stretches that the small net has.
START_TEST(replayed)
{
    struct net net;
    const struct eq_target target = eq_target_default();
    build_net(&net, 5, _i > 0);
    struct eq_ir *ir = make_ir(net.graph, &target, NULL, 0);
    int calls[64], num = 0;
    for (int c = 0; c < ir->num_calls; c++)
        if (!ir->calls[c].is_constant)
            calls[num++] = c;
    for (int first = 0; first < num; first++)
        for (int middle = first + 1; middle < num; middle++) {
            const int end = middle + 3 < num ? middle + 3 : num - 1;
            const struct eq_stretch given[] = { { .first = calls[first], .end = calls[middle - 1] + 1, .slices = 2 },
                                                { .first = calls[middle], .end = calls[end] + 1, .slices = 4 } };
            eq_ir_destroy(&ir);
            ir = make_ir(net.graph, &target, given, 2);
            replay(ir, 5);
        }
    eq_ir_destroy(&ir);
    eq_graph_destroy(&net.graph);
}
END_TEST

// ---- the model

static struct eq_ir *make_network(struct eq_model_graph *model, const char *arch, int n, const struct eq_target *target)
{
    EQ_TEST_OK(eq_model_graph_create(&(struct eq_model_params){ .arch = arch, .classes = 10 }, n, 224, 224, -1, model));
    return make_ir(model->graph, target, NULL, 0);
}

static void check_none(const char *arch, int n, const struct eq_target *target)
{
    struct eq_model_graph model;
    struct eq_ir *ir = make_network(&model, arch, n, target);
    ck_assert_int_eq(ir->num_stretches, 0);
    eq_ir_destroy(&ir);
    eq_model_graph_destroy(&model);
}

START_TEST(model)
{
    static const char *const archs[] = { "resnet18", "se-resnet34", "ce-resnet50" };
    struct eq_target target = eq_target_default();
    for (int i = 0; i < 3; i++)
        for (int n = 5; n <= 16; n += 11) {
            struct eq_model_graph network;
            size_t whole_bytes, sliced_bytes, slot_bytes;
            target.cache_bytes = 0;
            struct eq_ir *ir = make_network(&network, archs[i], n, &target);
            EQ_TEST_OK(eq_plan_bytes(ir, &whole_bytes, &slot_bytes));
            eq_ir_destroy(&ir);
            target.cache_bytes = (size_t)(n == 5 ? 16 : 32) << 20; // of 5 images most fit into 32 MiB anyway
            ir = make_ir(network.graph, &target, NULL, 0);
            EQ_TEST_OK(eq_plan_bytes(ir, &sliced_bytes, &slot_bytes));
            ck_assert_int_ge(ir->num_stretches, 1);
            // Whole values live through the stretches that touch them: with few images that may take a little more.
            ck_assert_uint_lt(sliced_bytes, n == 16 ? whole_bytes : whole_bytes / 100 * 103);
            ck_assert_ptr_nonnull(ir->calls[find_call(ir, "layer1.0.conv2", &eq_op_conv2d_fused)].stretch);
            // Filters of the last stage take more than its images: they are read once.
            const char *late = i == 2 ? "layer4.2.conv2" : "layer4.1.conv1";
            ck_assert_ptr_null(ir->calls[find_call(ir, late, &eq_op_conv2d_fused)].stretch);
            replay(ir, n);
            eq_ir_destroy(&ir);
            eq_model_graph_destroy(&network);
        }
    check_none("resnet18", 1, &target);
    target.cache_bytes = (size_t)1 << 30;
    check_none("resnet18", 16, &target);
    target.cache_bytes = (size_t)16 << 20;
    target.family = EQ_FAMILY_SIMT;
    check_none("resnet18", 16, &target);
}
END_TEST

// Batch statistics are those of the whole batch.
START_TEST(training)
{
    struct eq_model_graph network;
    struct eq_ir *ir;
    const struct eq_target target = eq_target_default();
    const struct eq_model_params params = { .arch = "resnet18", .classes = 10 };
    EQ_TEST_OK(eq_model_graph_create(&params, 32, 224, 224, -1, &network));
    EQ_TEST_OK(eq_ir_create(network.graph, &target, &(struct eq_compile_params){ .training = true, .loss = EQ_NO_VALUE }, &ir));
    ck_assert_int_eq(ir->num_stretches, 0);
    eq_ir_destroy(&ir);
    eq_model_graph_destroy(&network);
}
END_TEST

// ---- results

enum { NUM_FEATURES = MAX_IMAGES * CHANNELS * SIDE * SIDE, NUM_LOGITS = MAX_IMAGES * CLASSES };

struct results {
    float features[NUM_FEATURES], logits[NUM_LOGITS];
};

static void fill_store(struct eq_store *store)
{
    for (int i = 0; i < eq_store_num_entries(store); i++) {
        const struct eq_store_entry *entry = eq_store_entry(store, i);
        const size_t elems = (size_t)entry->shape[0] * (size_t)entry->shape[1] * (size_t)entry->shape[2] *
                             (size_t)entry->shape[3];
        const bool is_positive = strstr(entry->name, "running_var") || eq_str_ends(entry->name, "running_scale") ||
                                 (eq_str_ends(entry->name, ".weight") && entry->rank == 1);
        float *values = eq_check_values(entry->name, elems, is_positive ? 1 : 0, 0.4);
        EQ_TEST_OK(eq_store_write(store, entry, EQ_STORE_VALUE, values));
        free(values);
    }
}

// Steps that are not repeats.
static int count_rows(struct eq_exec *exec)
{
    struct eq_list *list = eq_exec_list(exec);
    struct eq_profile_row *rows = malloc((size_t)eq_list_length(list) * sizeof *rows);
    int num = 0;
    EQ_TEST_OK(eq_list_profile(list, rows));
    for (int i = 0; i < eq_list_length(list); i++)
        num += !rows[i].is_repeat;
    free(rows);
    return num;
}

// Results into a caller's memory, from the fourth image's place on, besides.
static void run_bound(struct eq_exec *exec, const struct net *net, const float *logits)
{
    const size_t num = (size_t)net->n * CLASSES, offset = 3 * CLASSES;
    struct eq_exec_place place;
    struct eq_buffer *outer;
    float found[NUM_LOGITS];
    EQ_TEST_OK(eq_buffer_create(eq_test_device, (offset + num) * sizeof(float), &outer));
    EQ_TEST_OK(eq_exec_find_name(exec, "logits", &place));
    struct eq_exec_memory memory = { .mem = outer->mem, .offset = offset, .stride = { CLASSES, 1, 1, 1 } };
    EQ_TEST_OK(eq_exec_bind(exec, &place, &memory));
    EQ_TEST_OK(eq_exec_run(exec));
    EQ_TEST_OK(eq_ref_read(eq_ref_at(outer, offset), found, num, sizeof *found));
    ck_assert_mem_eq(found, logits, num * sizeof *found);
    memory.mem = NULL;
    EQ_TEST_OK(eq_exec_bind(exec, &place, &memory));
    eq_buffer_destroy(&outer);
}

static int run_net(struct eq_store *store, const struct net *net, const struct eq_stretch *stretches, int num,
                   struct results *results)
{
    struct eq_exec *exec;
    const struct eq_compile_params params = { .loss = EQ_NO_VALUE, .stretches = stretches, .num_stretches = num };
    EQ_TEST_OK(eq_exec_create(eq_test_device, store, net->graph, &params, &exec));
    float *x = eq_check_values("x", (size_t)net->n * 3 * SIDE * SIDE, 0.5, 1);
    EQ_TEST_OK(eq_exec_write(exec, net->x, x));
    for (int run = 0; run < 2; run++) // the second one finds what the first one left in the arena
        EQ_TEST_OK(eq_exec_run(exec));
    EQ_TEST_OK(eq_exec_read(exec, net->features, results->features));
    EQ_TEST_OK(eq_exec_read(exec, net->logits, results->logits));
    run_bound(exec, net, results->logits);
    const int num_rows = count_rows(exec);
    free(x);
    eq_exec_destroy(&exec);
    return num_rows;
}

// Slices take the pivot of the map from their own first image and, where no convolution gives moments, may cut planes into
// other pieces, so gates differ by roundings of their sums: a few units of 2^-24, through at most two units and four
// convolutions of 20 to 180 terms. Without gates no sum depends on the number of images.
static void check_results(const struct results *whole, const struct results *sliced, const struct net *net, bool has_gates)
{
    const size_t num_features = (size_t)net->n * CHANNELS * SIDE * SIDE, num_logits = (size_t)net->n * CLASSES;
    const struct {
        const float *whole, *sliced;
        size_t num;
    } both[] = { { whole->features, sliced->features, num_features }, { whole->logits, sliced->logits, num_logits } };
    for (int k = 0; k < 2; k++) {
        double largest = 0;
        for (size_t i = 0; i < both[k].num; i++)
            largest = fmax(largest, fabs((double)both[k].whole[i]));
        if (!has_gates)
            ck_assert_mem_eq(both[k].whole, both[k].sliced, both[k].num * sizeof(float));
        for (size_t i = 0; i < both[k].num; i++)
            ck_assert_msg(fabs((double)both[k].whole[i] - (double)both[k].sliced[i]) <= 1e-6 * largest,
                          "element %zu is %.9g in slices, %.9g without; the largest is %g", i, (double)both[k].sliced[i],
                          (double)both[k].whole[i], largest);
    }
}

// _i: block, Winograd or not, gates or not.
START_TEST(results)
{
    static struct results whole, sliced;
    static const int images[] = { 2, 5 };
    const bool has_gates = _i / 2 % 2;
    eq_check_variant((const int[]){ 0, 2, 3 }[_i / 4]);
    eq_test_device->target.use_winograd = _i % 2;
    for (int k = 0; k < 2; k++) {
        struct net net;
        struct eq_store *store;
        build_net(&net, images[k], has_gates);
        struct eq_ir *ir = make_ir(net.graph, &eq_test_device->target, NULL, 0);
        EQ_TEST_OK(eq_store_create(eq_test_device, ir, &store));
        fill_store(store);
        const int num_rows = run_net(store, &net, NULL, 0, &whole);
        const int first = next_call(ir, 0), end = ir->num_calls;
        const int middle = next_call(ir, find_call(ir, "b1", &eq_op_conv2d_fused) + 1);
        for (int slices = 2; slices <= images[k]; slices++) {
            const struct eq_stretch all = { .first = first, .end = end, .slices = slices };
            const struct eq_stretch halves[] = { { .first = first, .end = middle, .slices = slices },
                                                 { .first = middle, .end = end, .slices = images[k] } };
            ck_assert_int_eq(run_net(store, &net, &all, 1, &sliced), num_rows);
            check_results(&whole, &sliced, &net, has_gates);
            ck_assert_int_eq(run_net(store, &net, halves, 2, &sliced), num_rows);
            check_results(&whole, &sliced, &net, has_gates);
        }
        eq_ir_destroy(&ir);
        eq_store_destroy(&store);
        eq_graph_destroy(&net.graph);
    }
}
END_TEST

EQ_TEST_MAIN("slice", { lifetimes, 1 }, { in_place, 1 }, { replayed, 2 }, { model, 1 }, { training, 1 }, { results, 12 })

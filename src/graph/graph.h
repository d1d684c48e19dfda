// The graph layer: builder -> lowering with fusion -> gradients -> memory plan -> execution.
//
//   struct eq_graph   what the user built: front nodes on plain shapes (build.c)
//   struct eq_ir      calls of ops on device tensors, for one target: fuse.c lowers, autodiff.c appends gradients, recompute.c
//                     trades time for memory, slice.c says which calls run a few images at a time
//   struct eq_plan    offsets in the arena, from sizes and lifetimes alone (plan.c)
//   struct eq_store   parameters, running statistics, gradients and velocities on a device (store.c)
//   struct eq_exec    a command list over a store and an arena (exec.c)
#ifndef EQ_GRAPH_GRAPH_H
#define EQ_GRAPH_GRAPH_H

#include "equil/graph.h"
#include "op/op.h"

// ---- front (build.c)

enum eq_front_kind { EQ_FRONT_OP, EQ_FRONT_NORM, EQ_FRONT_GATE, EQ_FRONT_ADD, EQ_FRONT_ACT };

struct eq_front_value {
    enum eq_value_kind kind;
    char *name;      // of inputs, parameters, states and outputs
    bool is_output;
    enum eq_dtype dtype;
    int shape[4];    // [n, c, h, w]; parameters: as stored in files, unused extents 1
    int rank;        // dimensions that it has: 4 an activation, 2 rows, 1 labels and losses; of parameters and states, in files
    int num_readers;
};

// A node. NORM and GATE (CE and its branches, SE) carry unit attributes and parameter inputs by enum eq_unit_input.
struct eq_front_node {
    enum eq_front_kind kind;
    const struct eq_op *op;              // EQ_FRONT_OP
    void *attributes;                    // of the op or of the unit
    int inputs[EQ_MAX_OPERANDS], num_inputs;
    int output;
    char *label;                         // "layer1.0.conv1"
    bool is_labelled;                    // by eq_graph_label()
};

struct eq_graph {
    struct eq_front_value *values;
    int num_values, value_capacity;
    struct eq_front_node *nodes;
    int num_nodes, node_capacity;
};

// ---- lowered form (ir.c, fuse.c, autodiff.c)

struct eq_ir_value {
    enum eq_value_kind kind;
    struct eq_tensor tensor;
    int front;       // front value it stands for, or -1
    int producer;    // call, or -1
    int last_reader; // call, or -1
    int grad_of;     // parameter value whose gradient this is, or -1
    int outer_grad_of; // input whose gradient this is, or differentiated value whose gradient the caller gives here; or -1
    bool is_output;
};

struct eq_ir_call {
    struct eq_call call;
    void *attributes;
    int in[EQ_MAX_OPERANDS], out[EQ_MAX_OPERANDS];
    const char *label; // of the front node
    bool is_gradient;
    bool is_constant; // evaluation: computed from parameters and states alone, so once while they stay
    const struct eq_stretch *stretch; // that it is part of; NULL: it runs for all images at once
};

// Calls that run in turn for a few images, then for the next few: see slice.c. Constant calls among them are not part of it.
struct eq_stretch {
    int first, end; // calls first .. end - 1
    int images;     // all of them
    int slices;     // 2 or more, of equal size or one image apart
};

struct eq_ir {
    const struct eq_graph *graph;
    struct eq_target target;
    bool training;
    struct eq_ir_value *values;
    int num_values, value_capacity;
    struct eq_ir_call *calls;
    int num_calls, call_capacity;
    struct eq_stretch *stretches;
    int num_stretches;
    int *lowered; // [front values] -> ir value, or -1
};

struct eq_compile_params {
    bool training;  // batch statistics
    // With gradients: the front value that is differentiated; EQ_NO_VALUE: forward only. Of a cross entropy it is the mean over
    // the images; of any other, the sum of its products with an input of the same shape, the gradient that the caller gives.
    eq_value loss;
    bool input_gradients; // gradients of the f32 inputs, too: as outputs
    bool recompute; // with gradients: outputs of units are made again in backward rather than kept
    // Its arena is used for this one, too, where it is large enough; NULL: none. It must outlive this one, and the outputs of
    // either are good until the other's next run.
    struct eq_exec *lender;
    // For tests: the stretches, instead of those that a model finds; `images` is filled in, and `first` is not a constant call.
    // NULL: the model's.
    const struct eq_stretch *stretches;
    int num_stretches;
};
eq_status eq_ir_create(const struct eq_graph *graph, const struct eq_target *target, const struct eq_compile_params *params,
                       struct eq_ir **ir);
void eq_ir_destroy(struct eq_ir **ir);
// Building blocks, for fuse.c and autodiff.c.
eq_status eq_ir_value(struct eq_ir *ir, enum eq_value_kind kind, const struct eq_tensor *tensor, int front, int *value);
eq_status eq_ir_call(struct eq_ir *ir, const struct eq_op *op, const void *attributes, const int *inputs, int num_inputs,
                     const char *label, int *outputs);
eq_status eq_ir_reserve_call(struct eq_ir *ir);           // room for one more in calls[]
eq_status eq_ir_lower(struct eq_ir *ir);                  // fuse.c
eq_status eq_ir_differentiate(struct eq_ir *ir, int loss, bool input_gradients); // autodiff.c
eq_status eq_ir_recompute(struct eq_ir *ir);              // recompute.c, after eq_ir_differentiate()

// ---- slices (slice.c): pure

// Finds the stretches of an ir whose halos are settled; none where it is not an evaluation on a CPU with a cache.
eq_status eq_ir_slice(struct eq_ir *ir, const struct eq_compile_params *params);
// First image of a slice, 0 .. slices; of the one after the last it is the number of all images.
int eq_stretch_image(const struct eq_stretch *stretch, int slice);
// Images of the smallest and of the largest slice: one apart, or the same.
int eq_stretch_least(const struct eq_stretch *stretch);
int eq_stretch_most(const struct eq_stretch *stretch);
// Whether the value has images: an input, or computed from one.
bool eq_ir_has_images(const struct eq_ir *ir, int value);
// Whether the value is made, and read if at all, in one stretch alone: then there is memory for a slice of it only.
bool eq_ir_is_local(const struct eq_ir *ir, int value);
// The call of a stretch for that many images.
eq_status eq_ir_sliced_call(const struct eq_ir *ir, int call, int images, struct eq_call *sliced);

// ---- plan (plan.c): pure

struct eq_plan_item {
    size_t bytes;
    int first, last; // steps between which the memory is held, both included
    int chunk;       // result
    size_t offset;   // result, bytes from the start of the chunk
};
// Places items so that no two whose steps overlap share memory: largest first, each at the lowest place that is free over its
// life. Chunks are at most max_chunk_bytes; an item above that is EQ_ERR_DEVICE_MEMORY. chunk_bytes[] gets the size of each of
// *num_chunks chunks (at most max_chunks). Offsets are multiples of `alignment`.
eq_status eq_plan_place(struct eq_plan_item *items, int num, size_t alignment, size_t max_chunk_bytes, size_t *chunk_bytes,
                        int max_chunks, int *num_chunks);

// Inputs and plain outputs have buffers of their own, which a caller's memory can stand in for.
bool eq_plan_is_slot(const struct eq_ir_value *value);
// Lifetimes and sizes of an ir's temporaries; sharing of in-place operands is resolved. items[] and item_of_value[] (item or
// -1) are malloc'ed.
eq_status eq_plan_items(const struct eq_ir *ir, struct eq_plan_item **items, int *num, int **item_of_value);

// ---- store (store.c)

struct eq_store_entry {
    char *name;
    enum eq_value_kind kind;
    int shape[4], rank;
    struct eq_tensor tensor; // stored form
    int chunk;
    size_t at; // elements from the start of the chunk, in weights, gradients and velocities alike
};
struct eq_store;
// Grows whenever values or states may have changed: by eq_store_write*(), and by eq_store_touch(), which is called after steps
// that change them were enqueued. What was computed from them is as new as its version.
uint64_t eq_store_version(const struct eq_store *store);
void eq_store_touch(struct eq_store *store);
// Bytes of parameters and of states, as the ir stores them.
void eq_store_sizes(const struct eq_ir *ir, size_t *parameter_bytes, size_t *state_bytes);
// Memory for the parameters and states of `ir`, zeroed; does not wait until it is.
eq_status eq_store_create(struct eq_device *device, const struct eq_ir *ir, struct eq_store **store);
void eq_store_destroy(struct eq_store **store);
// Adds gradients and velocities (zeroed); once.
eq_status eq_store_add_training(struct eq_store *store);
int eq_store_num_entries(const struct eq_store *store);
const struct eq_store_entry *eq_store_entry(const struct eq_store *store, int index);
const struct eq_store_entry *eq_store_find(const struct eq_store *store, const char *name);
enum eq_store_part { EQ_STORE_VALUE, EQ_STORE_GRADIENT, EQ_STORE_VELOCITY, EQ_STORE_SUM };
struct eq_ref eq_store_ref(const struct eq_store *store, const struct eq_store_entry *entry, enum eq_store_part part);
// Host copies in the API's order (OIHW and so on), logical elements.
eq_status eq_store_read(const struct eq_store *store, const struct eq_store_entry *entry, enum eq_store_part part, float *host);
eq_status eq_store_write(struct eq_store *store, const struct eq_store_entry *entry, enum eq_store_part part,
                         const float *host);
// The same in two steps, of which packing, into malloc'ed *stored, may be done in any thread.
eq_status eq_store_pack(const struct eq_store_entry *entry, const float *host, float **stored);
eq_status eq_store_write_packed(struct eq_store *store, const struct eq_store_entry *entry, enum eq_store_part part,
                                const float *stored);
// Appends the SGD update of every parameter; hyper as for eq_sgd_emit(). With `from_sum` the gradient is the accumulated one.
eq_status eq_store_emit_update(struct eq_store *store, struct eq_list *list, struct eq_ref hyper, bool from_sum);
// Appends sum = (first ? 0 : sum) + scale * gradient for every parameter; makes the sums on first use.
eq_status eq_store_emit_accumulate(struct eq_store *store, struct eq_list *list, float scale, bool first);

// ---- execution (exec.c)

struct eq_exec;
// store NULL: parameters, states, gradients and the arena are a caller's memory, to be bound by name before a run: "bn.weight",
// "grad.bn.weight", "workspace". Only of graphs without convolutions, whose filters are stored otherwise than files have them.
eq_status eq_exec_create(struct eq_device *device, struct eq_store *store, const struct eq_graph *graph,
                         const struct eq_compile_params *params, struct eq_exec **exec);
void eq_exec_destroy(struct eq_exec **exec);
// Bytes of arena and inputs that it holds, without what it borrows, or what callers give it.
size_t eq_exec_bytes(const struct eq_exec *exec);
size_t eq_exec_workspace_bytes(const struct eq_exec *exec); // without a store: of the caller's workspace
// The steps of every run; those that run only after weights changed are not among them.
struct eq_list *eq_exec_list(struct eq_exec *exec);
// Arithmetic of one run, and the part of the convolutions (forward and gradients), by the ops' definitions.
void eq_exec_flops(const struct eq_exec *exec, double *flops, double *conv_flops);
// An input's or output's place and stored form, by its front value.
eq_status eq_exec_find(const struct eq_exec *exec, eq_value value, struct eq_ref *ref, struct eq_tensor *tensor);
// Host copies: f32 in the API's order [n, c, h, w], or i32 as it is.
eq_status eq_exec_write(struct eq_exec *exec, eq_value value, const void *host);
eq_status eq_exec_read(struct eq_exec *exec, eq_value value, void *host);

// An input or output by the name that the graph gave it; "grad.NAME" is the gradient of the input, or for the differentiated
// value, of that name. EQ_ERR_NOT_FOUND lists the names there are.
enum { EQ_EXEC_WORKSPACE = -2 };
struct eq_exec_place {
    int at;                     // ir value; EQ_EXEC_WORKSPACE: the arena of an exec without a store
    bool is_input, is_gradient;
    int shape[4], rank;         // [n, c, h, w], and how many of these dimensions it has
    enum eq_dtype dtype;
};
eq_status eq_exec_find_name(const struct eq_exec *exec, const char *name, struct eq_exec_place *place);
bool eq_exec_has_memory(const struct eq_exec *exec, const struct eq_exec_place *place);
bool eq_exec_is_bound(const struct eq_exec *exec, const struct eq_exec_place *place); // to a caller's memory
eq_status eq_exec_write_place(struct eq_exec *exec, const struct eq_exec_place *place, const void *host);
eq_status eq_exec_read_place(struct eq_exec *exec, const struct eq_exec_place *place, void *host);

// ---- a caller's memory as an input or output (bind.c)

struct eq_exec_memory {
    cl_mem mem; // NULL: the place's own memory again
    enum eq_view_type type;
    size_t offset; // of element (0, 0, 0, 0), in elements
    size_t stride[4];
    const float *scale, *shift; // [c] or NULL
};
// Runs read or write it from now on: directly where the layout is the value's own (words, dense NCHW, no scale and shift, and a
// value that is not in blocks), else through a kernel of its own. The memory is retained until it is bound otherwise. Enqueues
// nothing, but compiles that kernel.
eq_status eq_exec_bind(struct eq_exec *exec, const struct eq_exec_place *place, const struct eq_exec_memory *memory);
// Enqueues; does not wait. What depends on weights alone is computed again when the store's version has changed, or its memory
// was lent.
eq_status eq_exec_run(struct eq_exec *exec);
// Its two halves, where something is differentiated: up to the outputs, and from the gradient that the caller gives.
enum eq_exec_part { EQ_EXEC_FORWARD, EQ_EXEC_BACKWARD };
eq_status eq_exec_run_part(struct eq_exec *exec, enum eq_exec_part part);
// Whether a parameter or running statistic of that name is among what it runs on.
bool eq_exec_has_tensor(const struct eq_exec *exec, const char *name);
// Whether a caller has given everything that half takes: inputs by name and, without a store, memory. Call it before a run.
eq_status eq_exec_check_ready(const struct eq_exec *exec, enum eq_exec_part part);

// Arena bytes an ir would need, and those of its inputs and plain outputs: for `info`, without a device.
eq_status eq_plan_bytes(const struct eq_ir *ir, size_t *arena_bytes, size_t *slot_bytes);

#endif

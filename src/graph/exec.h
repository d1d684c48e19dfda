// Private to src/graph: what exec.c and bind.c share.
#ifndef EQ_GRAPH_EXEC_H
#define EQ_GRAPH_EXEC_H

#include "graph/graph.h"

enum { EQ_EXEC_MAX_CHUNKS = 64, EQ_EXEC_MAX_NAME = 300, EQ_EXEC_ALIGNMENT = 256 };

// A caller's memory bound to an input or output.
struct eq_exec_binding {
    bool is_direct;       // it stands in for the slot's own
    struct eq_list *list; // else: the kernel that reads or writes it
    struct eq_buffer *memory, *map;
    float *map_values;      // what map holds: [2, channels]
    enum eq_view_type type; // what the list was made for
    size_t stride[4];
};

struct eq_exec {
    struct eq_device *device;
    struct eq_ir *ir;
    struct eq_store *store;
    struct eq_list *list, *prepare; // every run; when the weights have changed
    int num_forward;                // steps of `list` before the first gradient
    uint64_t version;               // of the store at the last `prepare`; 0: never
    struct eq_ref *refs;            // [ir values]
    struct eq_buffer *chunks[EQ_EXEC_MAX_CHUNKS];
    int num_chunks;
    struct eq_exec *lender;           // whose chunks some are; itself where none are
    const struct eq_exec *user;       // of a lender: who ran last in its chunks
    struct eq_buffer **slots;         // [ir values], those that eq_plan_is_slot() names; without a store, all but temporaries
    bool *is_written;                 // [ir values], of inputs: by the host
    struct eq_exec_binding *bindings; // [ir values]
    float *staging;                   // host side of the largest input or output
    size_t staging_elems;
};

// Whether the value lies in its memory as dense NCHW does: then a caller's can stand in for a slot's.
bool eq_exec_is_dense(const struct eq_tensor *tensor);
// Runs the kernels of bound inputs, or of bound outputs, of one half.
eq_status eq_exec_run_bindings(struct eq_exec *exec, bool inputs, enum eq_exec_part part);
void eq_exec_drop_bindings(struct eq_exec *exec);

#endif

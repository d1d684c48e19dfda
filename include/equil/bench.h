// Measuring networks and single ops on a device.
//
// Everything is verified before it is timed, and nothing is timed on zeros. A time is the median of many samples with its 95 %
// confidence interval from order statistics, so nothing is assumed about how samples are distributed. Wall time is that of a
// whole batch, enqueued at once and waited for once. Device time is the sum of the steps of the same batch, each run alone with
// a wait after it, launches included: where it is longer than the wall time, the difference is what launches and waits cost.
//
// Threads: one at a time per device, and best with nothing else on the machine. Results are structs of the caller's, whose
// arrays are freed with the functions below; after a failure they are zeroed. Base.h has the rest.
#ifndef EQUIL_BENCH_H
#define EQUIL_BENCH_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

// What was measured with: two results differ in speed by what differs here.
struct eq_bench_identity {
    char device[128], vendor[128], platform[128], driver[128], kind[16]; // kind: "cpu", "gpu" or "other"
    char family[16];                                                     // of the kernels: "vector" or "simt"
    int compute_units;
    size_t memory_bytes;
    char version[32], commit[64], compiler[128],
        options[128];   // the library; commit: its version where it was built without git
    char tuning[320];   // as eq_device_tuning_text()
    char precision[64]; // as eq_device_precision_text()
    bool has_winograd;  // 3x3 convolutions may go through Winograd's transform
};
// Does not fail. Texts are cut to their fields.
EQ_API void eq_bench_identify(const struct eq_device *device, struct eq_bench_identity *identity);

// Seconds. [low, high] holds the true median with a probability of at least 0.95; below 6 samples it is the whole range.
struct eq_bench_time {
    double median, low, high, best;
    int runs;
    double drift; // median of the second half of the samples over that of the first: above 1 the device slowed down
};

// One step: a kernel, a fill, a copy or a matrix product. Where a batch is run a few images at a time, which evaluation does on
// CPUs, the row has the sums over all of them.
struct eq_bench_row {
    char label[64];      // the layer: "layer1.0.conv1"
    char kernel[48];     // the kernel's name
    double seconds;      // median, run alone with a wait after it
    double low, high;    // shortest and longest of those runs
    double flops, bytes; // arithmetic by definition (direct convolution), and the least memory traffic
};

struct eq_bench_params {
    int n, size;      // batches [n, 3, size, size] of pixels
    bool training;    // one step of gradients and SGD update, else evaluation
    double seconds;   // to measure for; 0 means 5
    double precision; // stop earlier when the interval's ends are within this fraction of the median; 0 means 0.005
};

struct eq_bench_result {
    struct eq_bench_time wall;     // of a batch
    struct eq_bench_time device;   // the same, step by step
    double flops;                  // of a batch: the whole forward (and backward) pass
    double conv_flops;             // of its convolutions alone, by direct convolution
    double peak_flops, peak_bytes; // multiply-add rate and copy bandwidth of the device, per second, measured in the same run
    double first_seconds;          // from the call to the end of the first batch: compiling included
    size_t peak_bytes_used;        // largest number of device bytes in use
    struct eq_bench_row *rows;     // [num_rows], in the order they run
    int num_rows;
};

// Times batches of random images, already on the device, after a warm-up until times are steady. The network's weights and
// statistics are set to those of eq_weights_initialise(), running_scale to 1. Before timing, results are checked: finite, not
// all the same, and the same bits twice, else EQ_ERR_NUMERIC. result: free with eq_bench_result_free(). Other errors: those of
// eq_network_infer() and eq_network_gradients(). The weights are undefined then.
EQ_API eq_status eq_network_bench(struct eq_network *network, const struct eq_bench_params *params,
                                  struct eq_bench_result *result);
EQ_API void eq_bench_result_free(struct eq_bench_result *result); // leaves it zeroed; a zeroed one is allowed

// ---- single ops

// How an op's result was verified.
enum eq_bench_check {
    EQ_BENCH_CHECK_DOUBLE, // sampled elements against sums in double precision
    EQ_BENCH_CHECK_REPEAT, // finite, not all the same, and the same bits twice: there is no reference for this op
};

// One call of an op, as a network or a shape has it.
struct eq_bench_op {
    char op[32];               // "conv2d", "conv2d_data_grad", "unit", ...
    char label[64];            // the first layer that has it
    char shape[96];            // "64x56x56 -> 64x56x56 k3 s1 + residual relu"
    int count;                 // how often the network runs it
    struct eq_bench_time wall; // of one call, from many calls enqueued together
    double flops, bytes;
    enum eq_bench_check check;
    double worst_error; // EQ_BENCH_CHECK_DOUBLE: largest difference over what was summed (absolute values)
};
struct eq_bench_ops {
    struct eq_bench_op *ops; // [num]; free with eq_bench_ops_free()
    int num;
    double peak_flops, peak_bytes; // as in eq_bench_result
};
// The different calls of `op` ("all": of every op) in the plan of a network: each alone, on random inputs of its own.
// params->seconds is for each call; 0 means 0.5. Errors: EQ_ERR_NOT_FOUND (no such op, with a list of those there are, or
// network), EQ_ERR_NUMERIC (the device computes wrongly), those of eq_model_build(), EQ_ERR_DEVICE_MEMORY, EQ_ERR_UNSUPPORTED,
// EQ_ERR_BUILD.
EQ_API eq_status eq_network_bench_ops(struct eq_device *device, const struct eq_model_params *network, const char *op,
                                      const struct eq_bench_params *params, struct eq_bench_ops *ops);
// The same for a list of layers as text, a layer a line; '#' starts a comment:
//     NAME  conv2d   ic=64 oc=64 size=56 kernel=3 stride=1 pad=1 groups=1
//     NAME  pool_max ic=64 size=112 kernel=3 stride=2 pad=1
//     NAME  linear   ic=2048 oc=1000
//     NAME  unit     ic=64 size=56                   a normalisation, a residual and an activation
// Missing stride is 1, pad 0, kernel 1, groups 1, size 1. Of a line the first 255 bytes are read. `file` stands in errors, with
// the line's number. params->size is not used. Errors: EQ_ERR_FORMAT (a line that is none, no line at all), EQ_ERR_SHAPE and
// EQ_ERR_ARGUMENT (a layer that cannot be), and the others of eq_network_bench_ops().
EQ_API eq_status eq_shapes_bench_ops(struct eq_device *device, const char *file, const char *text, const char *op,
                                     const struct eq_bench_params *params, struct eq_bench_ops *ops);
EQ_API void eq_bench_ops_free(struct eq_bench_ops *ops); // leaves it zeroed; a zeroed one is allowed

#ifdef __cplusplus
}
#endif
#endif

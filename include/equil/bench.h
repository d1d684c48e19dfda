// Measuring a network on a device.
#ifndef EQUIL_BENCH_H
#define EQUIL_BENCH_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

// One step of the network: a kernel, a fill, a copy or a matrix product.
struct eq_bench_row {
    char label[64];        // the layer: "layer1.0.conv1"
    char kernel[48];       // the kernel's name
    double seconds;        // median, run alone with a wait after it: launch included
    double flops, bytes;   // arithmetic by definition, and the least memory traffic
};

struct eq_bench_result {
    int num_runs;
    double images_per_second;      // from the median time of a batch
    double images_per_second_best; // from the shortest
    double flops;                  // of a batch: the whole forward (and backward) pass
    double conv_flops;             // of its convolutions alone, by direct convolution
    double peak_flops, peak_bytes; // multiply-add rate and copy bandwidth of the device, per second, measured in the same run
    double first_seconds;          // from the call to the end of the first batch: compiling included
    size_t peak_bytes_used;        // largest number of device bytes in use
    struct eq_bench_row *rows;     // [num_rows], in the order they run
    int num_rows;
};

// Times batches [n, 3, size, size] of random images, already on the device, for at least `seconds` and 5 batches, after a
// warm-up. training: one step of gradients and SGD update. The network's weights and statistics are set to those of
// eq_network_initialise(), running_scale to 1. Before timing, results are checked: finite, and the same bits twice, else
// EQ_ERR_NUMERIC. result: free with eq_bench_result_free().
EQ_API eq_status eq_network_bench(struct eq_network *network, int n, int size, bool training, double seconds,
                                  struct eq_bench_result *result);
EQ_API void eq_bench_result_free(struct eq_bench_result *result);

#ifdef __cplusplus
}
#endif
#endif

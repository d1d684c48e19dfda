// What `equil bench` measured, as a document: filled by a measurement or read from its JSON file. The man page has the format.
#ifndef EQUIL_CLI_BENCH_FILE_H
#define EQUIL_CLI_BENCH_FILE_H

#include <stdbool.h>

#include "output.h"

// Milliseconds.
struct bench_time {
    double median, low, high, best, drift;
    int runs;
};

struct bench_step {
    char layer[64], kernel[48];
    double median, low, high; // ms
    double gflop, mbyte;      // of one run of the step
};

// One measurement: a network, or one call of an op.
struct bench_record {
    char kind[16]; // "network" or "op"
    char arch[96]; // network; or, for ops, the network or file that the call is from
    char mode[16]; // "infer" or "train"
    int batch, size, classes;
    bool is_small, recompute;
    char act[8];
    char op[32], layer[64], shape[96]; // ops: as struct eq_bench_op
    int count;
    char check[24];                  // how the result was verified: "finite, repeated" or "double precision"
    struct bench_time wall, device;  // device.runs 0: not measured
    double gflop, conv_gflop, mbyte; // of one batch, or one call; mbyte 0: unknown
    double images_per_second;        // networks
    double first_seconds, memory_mib;
    double peak_gflops, peak_gbytes; // per second
    struct bench_step *steps;
    int num_steps;
};

struct bench_document {
    const char *path; // file it is from, the caller's text; NULL: measured
    char created[32]; // UTC
    char device[128], vendor[128], platform[128], driver[128], kind[16], family[16];
    int compute_units;
    double memory_mib;
    char version[32], commit[64], compiler[128], options[128];
    char tuning[320], precision[64];
    bool winograd;
    struct bench_record *records;
    int num_records;
};

json_t *bench_document_json(const struct bench_document *document);
// Reads and checks a file; false: the message was printed, with the place in the file. bench_document_free() in both cases.
bool bench_document_read(const char *path, struct bench_document *document);
// Whether the file is there and claims to be a result of equil bench.
bool bench_is_result(const char *path);
void bench_document_free(struct bench_document *document);
// A new record at the end, zeroed, or NULL: no memory (message printed).
struct bench_record *bench_document_add(struct bench_document *document);

// "ce-resnet50 infer, batch 16, 224 px, 1000 classes", or "conv2d 64x56x56 -> ...": what has to be the same to compare two
// records.
const char *bench_record_name(const struct bench_record *record, char *text, size_t bytes);
// ", 1000 classes, recompute": the end of a network's name.
const char *bench_record_variant(const struct bench_record *record, char *text, size_t bytes);
// Share of the roof over a step: its time at the measured peaks, or what its arithmetic intensity allows of them.
double bench_share(const struct bench_record *record, double gflop, double mbyte, double ms);
// Whether the roof there is the arithmetic, not the memory.
bool bench_is_compute_bound(const struct bench_record *record, double gflop, double mbyte);

#endif

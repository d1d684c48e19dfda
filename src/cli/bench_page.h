// Parts of the report's page: what is compared with what, and the drawings.
#ifndef EQUIL_CLI_BENCH_PAGE_H
#define EQUIL_CLI_BENCH_PAGE_H

#include "bench_table.h"

enum { MAX_SYSTEMS = 26, MAX_SYSTEM_COLOURS = 8 };

// Documents with the same device, driver, build and setup that measured different things are one system: a letter and a colour
// on the page.
struct bench_system {
    const struct bench_document *document; // the first of them
    char label[320]; // "A pthread-..., before.json, Winograd off": the device, and what tells it from the others
};
// A record of a document, and its system.
struct bench_entry {
    const struct bench_document *document;
    const struct bench_record *record;
    int system;
};
struct bench_page {
    FILE *out;
    struct bench_document *documents; // [num_documents]
    int num_documents;
    struct bench_system systems[MAX_SYSTEMS];
    int num_systems;
    struct bench_entry *entries; // [num_entries], in the order of the files
    int num_entries;
};

// Bytes of a text that are whole letters, `most` of them at most.
int page_cut(const char *text, int most);
// Text with <, >, &, " replaced, and what is not UTF-8.
void page_text(FILE *out, const char *text);
// The page's head with its style sheet, and its end.
void page_begin(FILE *out);
void page_end(FILE *out);

// What a kernel is for: an index of class_names, and of the colours --c0, --c1, ...
enum { CLASS_CONVOLUTION, CLASS_NORMALISATION, CLASS_POOLING, CLASS_LINEAR, CLASS_UPDATE, CLASS_OTHER, NUM_CLASSES };
extern const char *const class_names[NUM_CLASSES];
int class_of_kernel(const char *kernel);

// Drawings, each an <svg>.
struct plot_bar {
    const char *title; // a line above the bar, or NULL: under the one before
    const char *label;
    int system;
    double value, low, high;
};
void plot_bars(FILE *out, const struct plot_bar *bars, int num, const char *unit);
// Every kernel of a record under its roof.
void plot_roofline(FILE *out, const struct bench_record *record);
// A row that shows which classes of kernels take the time.
void plot_shares(FILE *out, const struct bench_record *record);
// Lines over an axis of doubling values, from 0 up, or logarithmic where they are far apart.
enum { MAX_CURVE = 16 }; // points of a line
struct plot_point {
    double x, y, low, high;
};
struct plot_line {
    const char *label;
    int system, num;
    struct plot_point points[MAX_CURVE];
};
enum { MAX_LINES = 8 }; // in a drawing
void plot_lines(FILE *out, const struct plot_line *lines, int num, const char *x_label, const char *y_label);

#endif

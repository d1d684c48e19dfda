// A result of `equil bench`, as --compare reads it: what is accepted can be written and read again. And lines of a list of
// layers.
#include "cli/bench_file.h"
#include "fuzz.h"
#include "graph/graph.h"
#include "train/bench_op.h"

static void read_document(const uint8_t *data, size_t bytes)
{
    struct bench_document document = { .num_records = 0 }, again = { .num_records = 0 };
    const char *path = fuzz_path("bench.json");
    fuzz_write(path, data, bytes);
    if (bench_document_read(path, &document)) {
        json_t *json = bench_document_json(&document);
        CHECK(json && json_dump_file(json, path, JSON_REAL_PRECISION(9)) == 0);
        CHECK(bench_document_read(path, &again));
        CHECK(again.num_records == document.num_records && strcmp(again.device, document.device) == 0);
        json_decref(json);
    }
    bench_document_free(&document);
    bench_document_free(&again);
}

static void read_shape(const uint8_t *data, size_t bytes)
{
    char *line = fuzz_text(data, bytes), name[64];
    struct eq_graph *graph = NULL;
    int loss = 0;
    const eq_status status = eq_bench_shape_graph(line, 2, bytes % 2 == 1, name, &graph, &loss);
    CHECK_TEXT(status);
    CHECK((status == EQ_OK) == (graph != NULL));
    if (graph)
        eq_graph_destroy(&graph);
    free(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes > 0 && data[0] == '{')
        read_document(data, bytes);
    else
        read_shape(data, bytes);
    return 0;
}

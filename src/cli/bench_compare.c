// Two files of results against each other.
//
// The figure is how many times as fast B is as A: the ratio of the medians. Its band goes from A's lowest over B's highest
// median to the other way round, by their 95 % intervals, and is never narrower than the given noise: two runs of one program
// differ by more than the samples of one of them show. A band with 1 in it says nothing.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench_table.h"
#include "command.h"

enum { MAX_KERNELS = 12 };

static bool is_same(const struct bench_record *a, const struct bench_record *b)
{
    char text[2][320];
    return strcmp(bench_record_name(a, text[0], sizeof text[0]), bench_record_name(b, text[1], sizeof text[1])) == 0;
}

// What `document` has for a record of `from`: of several of one name the one at the same place among them. Calls of an op have
// one name where only the memory around their tensors differs.
static const struct bench_record *find(const struct bench_document *document, const struct bench_document *from, int record)
{
    int place = 0;
    for (int i = 0; i < record; i++)
        place += is_same(&from->records[i], &from->records[record]);
    for (int i = 0; i < document->num_records; i++)
        if (is_same(&document->records[i], &from->records[record]) && place-- == 0)
            return &document->records[i];
    return NULL;
}

// Prints what `document` has and `other` has not; returns how much that is.
static int list_missing(const struct bench_document *document, const struct bench_document *other)
{
    int num = 0;
    for (int i = 0; i < document->num_records; i++) {
        char text[320];
        if (find(other, document, i))
            continue;
        message("%s has %s, which %s has not", document->path, bench_record_name(&document->records[i], text, sizeof text),
                other->path);
        num++;
    }
    return num;
}

struct verdict {
    double ratio, low, high; // B's speed over A's
    int sign;                // 1: B is faster, -1: slower, 0: within the noise
};

static struct verdict judge(double a_low, double a, double a_high, double b_low, double b, double b_high, double noise)
{
    struct verdict v = { a / b, a_low / b_high, a_high / b_low, 0 };
    v.low = fmin(v.low, v.ratio / (1 + noise));
    v.high = fmax(v.high, v.ratio * (1 + noise));
    v.sign = v.low > 1 ? 1 : v.high < 1 ? -1 : 0;
    return v;
}

static void print_verdict(const struct verdict *v)
{
    static const char *const words[] = { "slower", "within noise", "faster" };
    printf("%7.3f  (%.3f to %.3f)  %s\n", v->ratio, v->low, v->high, words[v->sign + 1]);
}

// Kernels that both have, by A's time.
static void compare_kernels(const struct bench_record *a, const struct bench_record *b)
{
    int num_a, num_b;
    struct bench_total *in_a = bench_totals(a, &num_a), *in_b = bench_totals(b, &num_b);
    if (in_a && in_b && num_a && num_b)
        printf("    %-36s %10s %10s %9s\n", "kernel", "A ms", "B ms", "A / B");
    for (int i = 0; in_a && in_b && i < num_a && i < MAX_KERNELS; i++) {
        int j = 0;
        while (j < num_b && strcmp(in_a[i].kernel, in_b[j].kernel) != 0)
            j++;
        if (j < num_b)
            printf("    %-36s %10.2f %10.2f %9.3f\n", in_a[i].kernel, in_a[i].ms, in_b[j].ms, in_a[i].ms / in_b[j].ms);
        else
            printf("    %-36s %10.2f %10s\n", in_a[i].kernel, in_a[i].ms, "-");
    }
    for (int j = 0; in_a && in_b && j < num_b && j < MAX_KERNELS; j++) {
        int i = 0;
        while (i < num_a && strcmp(in_a[i].kernel, in_b[j].kernel) != 0)
            i++;
        if (i == num_a)
            printf("    %-36s %10s %10.2f\n", in_b[j].kernel, "-", in_b[j].ms);
    }
    free(in_a);
    free(in_b);
}

static void note(const char *what, const char *a, const char *b, bool *is_first)
{
    if (strcmp(a, b) == 0)
        return;
    printf("%s    %-12s A: %s\n    %-12s B: %s\n", *is_first ? "What else differs:\n" : "", what, a, "", b);
    *is_first = false;
}

static void print_document(char letter, const struct bench_document *d)
{
    printf("%c  ", letter);
    put_text(stdout, d->path);
    printf(", %s, equil %s (%s), %s\n", d->device, d->version, d->commit, d->created);
}

static void print_differences(const struct bench_document *a, const struct bench_document *b)
{
    print_document('A', a);
    print_document('B', b);
    bool is_first = true;
    note("platform", a->platform, b->platform, &is_first);
    note("driver", a->driver, b->driver, &is_first);
    note("compiler", a->compiler, b->compiler, &is_first);
    note("options", a->options, b->options, &is_first);
    note("kernels", a->family, b->family, &is_first);
    note("tuning", a->tuning, b->tuning, &is_first);
    note("precision", a->precision, b->precision, &is_first);
    note("Winograd", a->winograd ? "on" : "off", b->winograd ? "on" : "off", &is_first);
}

static int compare(const struct bench_document *a, const struct bench_document *b, double noise)
{
    const int missing = list_missing(a, b) + list_missing(b, a);
    if (missing) {
        message("%s and %s cannot be compared: they did not measure the same", a->path, b->path);
        return EXIT_FAILED;
    }
    int num[3] = { 0 };
    print_differences(a, b);
    printf("\nHow many times as fast B is, with its 95 %% band of at least %.1f %%:\n", 100 * noise);
    for (int i = 0; i < a->num_records; i++) {
        const struct bench_record *ra = &a->records[i], *rb = find(b, a, i);
        const struct bench_time *ta = &ra->wall, *tb = &rb->wall;
        const struct verdict v = judge(ta->low, ta->median, ta->high, tb->low, tb->median, tb->high, noise);
        char text[320];
        printf("\n%s\n    A %.3f ms, B %.3f ms (wall)   ", bench_record_name(ra, text, sizeof text), ta->median, tb->median);
        print_verdict(&v);
        num[v.sign + 1]++;
        compare_kernels(ra, rb);
    }
    printf("\n%d faster, %d slower, %d within noise\n", num[2], num[0], num[1]);
    return num[0] ? EXIT_SLOWER : EXIT_SUCCESS;
}

int bench_compare(const char *path_a, const char *path_b, double noise)
{
    struct bench_document a, b = { .num_records = 0 };
    int exit_code = EXIT_FAILED;
    if (bench_document_read(path_a, &a) && bench_document_read(path_b, &b))
        exit_code = compare(&a, &b, noise);
    bench_document_free(&a);
    bench_document_free(&b);
    return exit_code;
}

// Results as text.
#include "bench_table.h"

#include <stdlib.h>
#include <string.h>

struct bench_total *bench_totals(const struct bench_record *record, int *num)
{
    struct bench_total *totals = calloc((size_t)record->num_steps + 1, sizeof *totals);
    *num = 0;
    for (int i = 0; totals && i < record->num_steps; i++) {
        const struct bench_step *step = &record->steps[i];
        int t = 0;
        while (t < *num && strcmp(totals[t].kernel, step->kernel) != 0)
            t++;
        *num = t == *num ? *num + 1 : *num;
        totals[t].kernel = step->kernel;
        totals[t].count++;
        totals[t].ms += step->median;
        totals[t].gflop += step->gflop;
        totals[t].mbyte += step->mbyte;
        totals[t].roof_ms += step->median * bench_share(record, step->gflop, step->mbyte, step->median);
    }
    for (int i = 1; totals && i < *num; i++) // longest first; there are about twenty
        for (int j = i; j > 0 && totals[j].ms > totals[j - 1].ms; j--) {
            const struct bench_total held = totals[j];
            totals[j] = totals[j - 1];
            totals[j - 1] = held;
        }
    return totals;
}

void bench_print_identity(const struct bench_document *d)
{
    printf("device              %s, %s, driver %s\n", d->device, d->platform, d->driver);
    printf("build               equil %s (%s), %s, %s\n", d->version, d->commit, d->compiler, d->options);
    printf("setup               %s kernels, %s, Winograd %s, tuning %s\n", d->family, d->precision, d->winograd ? "on" : "off",
           d->tuning);
}

static void print_kernels(const struct bench_record *r)
{
    int num;
    struct bench_total *totals = bench_totals(r, &num);
    printf("\n%-36s %6s %10s %10s %10s %10s\n", "kernel", "steps", "ms", "GFLOP/s", "GB/s", "of roof");
    for (int t = 0; totals && t < num; t++)
        printf("%-36s %6d %10.2f %10.1f %10.1f %10.2f\n", totals[t].kernel, totals[t].count, totals[t].ms,
               totals[t].gflop / totals[t].ms * 1e3, totals[t].mbyte / totals[t].ms, totals[t].roof_ms / totals[t].ms);
    free(totals);
}

void bench_print_network(const struct bench_record *r)
{
    char text[32];
    const double per_ms = r->batch * 1e3;
    printf("%s, %s, batch %d of %d x %d pixels\n", r->arch, strcmp(r->mode, "train") == 0 ? "training" : "inference", r->batch,
           r->size, r->size);
    printf("images/s            %.2f median (95 %%: %.2f to %.2f), %.2f best of %d batches\n", r->images_per_second,
           per_ms / r->wall.high, per_ms / r->wall.low, per_ms / r->wall.best, r->wall.runs);
    printf("batch               %.2f ms wall, %.2f ms as the sum of its steps\n", r->wall.median, r->device.median);
    printf("arithmetic          %.1f GFLOP/s; convolutions at %.2f of the peak of %.1f GFLOP/s\n",
           r->gflop / r->wall.median * 1e3, r->conv_gflop / r->wall.median * 1e3 / r->peak_gflops, r->peak_gflops);
    printf("bandwidth           %.1f GB/s copying\n", r->peak_gbytes);
    printf("memory              %s of device memory at the peak\n", format_bytes(text, (size_t)(r->memory_mib * 1048576)));
    printf("first result        %.2f s after the start, compiling included\n", r->first_seconds);
    if (r->wall.drift > 1.05)
        printf("drift               the second half of the batches took %.2f times the first: heat, or others on the machine\n",
               r->wall.drift);
    print_kernels(r);
}

void bench_print_ops(const struct bench_document *d)
{
    double ms = 0, gflop = 0, roof = 0;
    printf("%-20s %-22s %-52s %5s %9s %7s %9s %8s %8s %-7s %s\n", "op", "first layer", "shape", "count", "ms", "+-%", "GFLOP/s",
           "GB/s", "of roof", "bound", "verified");
    for (int i = 0; i < d->num_records; i++) {
        const struct bench_record *r = &d->records[i];
        const double share = bench_share(r, r->gflop, r->mbyte, r->wall.median);
        printf("%-20s %-22s %-52s %5d %9.3f %7.1f %9.1f %8.1f %8.2f %-7s %s\n", r->op, r->layer, r->shape, r->count,
               r->wall.median, 50 * (r->wall.high - r->wall.low) / r->wall.median, r->gflop / r->wall.median * 1e3,
               r->mbyte / r->wall.median, share, bench_is_compute_bound(r, r->gflop, r->mbyte) ? "compute" : "memory",
               r->check);
        ms += r->wall.median * r->count;
        gflop += r->gflop * r->count;
        roof += r->wall.median * r->count * share;
    }
    printf("%-20s %-22s %-52s %5s %9.2f %7s %9.1f %8s %8.2f\n", "all, by count", "", "", "", ms, "", gflop / ms * 1e3, "",
           roof / ms);
    printf("peaks               %.1f GFLOP/s of multiply-adds, %.1f GB/s copying\n", d->records[0].peak_gflops,
           d->records[0].peak_gbytes);
}

void bench_print_curve(const struct bench_document *d)
{
    printf("%-24s %6s %6s %12s %12s %12s %18s %12s\n", "network", "batch", "size", "images/s", "ms a batch", "ms an image",
           "ns an image pixel", "memory MiB");
    for (int i = 0; i < d->num_records; i++) {
        const struct bench_record *r = &d->records[i];
        const double ms = r->wall.median / r->batch;
        printf("%-24s %6d %6d %12.2f %12.2f %12.3f %18.2f %12.0f\n", r->arch, r->batch, r->size, r->images_per_second,
               r->wall.median, ms, ms * 1e6 / r->size / r->size, r->memory_mib);
    }
}

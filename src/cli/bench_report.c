// equil bench --report: one page about several results, for people who did not run them. No scripts, nothing loaded.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench_page.h"
#include "command.h"
#include "equil/base.h"

enum { MIN_CURVE = 3 };

// ---- systems and entries

static bool is_same_system(const struct bench_document *a, const struct bench_document *b)
{
    return strcmp(a->device, b->device) == 0 && strcmp(a->platform, b->platform) == 0 && strcmp(a->driver, b->driver) == 0 &&
           strcmp(a->family, b->family) == 0 && strcmp(a->version, b->version) == 0 && strcmp(a->commit, b->commit) == 0 &&
           strcmp(a->compiler, b->compiler) == 0 && strcmp(a->options, b->options) == 0 && strcmp(a->tuning, b->tuning) == 0 &&
           strcmp(a->precision, b->precision) == 0 && a->winograd == b->winograd;
}

static bool is_same_figure(const struct bench_record *a, const struct bench_record *b)
{
    char text[2][320];
    return strcmp(bench_record_name(a, text[0], sizeof text[0]), bench_record_name(b, text[1], sizeof text[1])) == 0;
}

static bool is_over_batch(const struct bench_document *document)
{
    return document->records[0].batch != document->records[document->num_records - 1].batch;
}

static bool is_same_curve(const struct bench_record *a, const struct bench_record *b, bool is_batch)
{
    return strcmp(a->arch, b->arch) == 0 && strcmp(a->mode, b->mode) == 0 && strcmp(a->act, b->act) == 0 &&
           a->classes == b->classes && a->is_small == b->is_small && a->recompute == b->recompute &&
           (is_batch ? a->size == b->size : a->batch == b->batch);
}

// A document of many points of one network, each of more images or pixels than the one before, is a curve; one of several
// networks, or of one several times, put together by hand, is not.
static bool is_curve_document(const struct bench_document *document)
{
    const struct bench_record *r = document->records;
    const bool is_batch = is_over_batch(document);
    bool is_one = strcmp(r->kind, "network") == 0 && document->num_records >= MIN_CURVE && document->num_records <= MAX_CURVE;
    for (int i = 1; is_one && i < document->num_records; i++)
        is_one = is_same_curve(&r[0], &r[i], is_batch) && (is_batch ? r[i].batch > r[i - 1].batch : r[i].size > r[i - 1].size);
    return is_one;
}

// Whether a document that belongs to the system already measured something of what this one did. A curve's points are not the
// figures of whole networks: most curves have one of the same batch and size.
static bool has_figure_of(const struct bench_page *page, int system, const struct bench_document *document)
{
    const bool is_curve = is_curve_document(document);
    for (int e = 0; e < page->num_entries; e++)
        for (int r = 0; page->entries[e].system == system && r < document->num_records; r++)
            if (is_curve_document(page->entries[e].document) == is_curve &&
                is_same_figure(page->entries[e].record, &document->records[r]))
                return true;
    return false;
}

// Results of the same before and after a change are two systems, whatever they were measured with.
static int find_system(struct bench_page *page, const struct bench_document *document)
{
    int s = 0;
    while (s < page->num_systems && (!is_same_system(page->systems[s].document, document) || has_figure_of(page, s, document)))
        s++;
    if (s == MAX_SYSTEMS)
        return -1;
    if (s == page->num_systems)
        page->systems[page->num_systems++].document = document;
    return s;
}

// The entry that begins a document, of those that belong to the system, from `entry` on; page->num_entries: no more.
static int next_document(const struct bench_page *page, int system, int entry)
{
    while (entry < page->num_entries &&
           (page->entries[entry].system != system || page->entries[entry].record != &page->entries[entry].document->records[0]))
        entry++;
    return entry;
}

static const char *without_folders(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

// The file's name, with its folders where another one has the same.
static const char *file_name(const struct bench_page *page, const struct bench_document *document)
{
    const char *name = without_folders(document->path);
    for (int d = 0; d < page->num_documents; d++)
        if (strcmp(without_folders(page->documents[d].path), name) == 0 && strcmp(page->documents[d].path, document->path) != 0)
            return document->path;
    return name;
}

static bool has_other_with_device(const struct bench_page *page, int system)
{
    for (int s = 0; s < page->num_systems; s++)
        if (s != system && strcmp(page->systems[s].document->device, page->systems[system].document->device) == 0)
            return true;
    return false;
}

// Whether another system, of those with the same device or of all, has another text there.
static bool differs(const struct bench_page *page, int system, size_t offset, bool is_of_all)
{
    const char *const base = (const char *)page->systems[system].document;
    for (int s = 0; s < page->num_systems; s++) {
        const char *const other = (const char *)page->systems[s].document;
        if ((is_of_all || strcmp(page->systems[s].document->device, page->systems[system].document->device) == 0) &&
            strcmp(base + offset, other + offset) != 0)
            return true;
    }
    return false;
}

static bool winograd_differs(const struct bench_page *page)
{
    for (int s = 1; s < page->num_systems; s++)
        if (page->systems[s].document->winograd != page->systems[0].document->winograd)
            return true;
    return false;
}

// Appends a text, cut to `most` bytes, to the label of *at bytes.
static void add_part(struct bench_system *system, size_t *at, const char *before, const char *text, int most)
{
    if (*at < sizeof system->label)
        *at += (size_t)snprintf(system->label + *at, sizeof system->label - *at, "%s%.*s", before, page_cut(text, most), text);
}

// A letter, the device, and what tells it from other systems with that device. What is computed, and by which Equil, is said
// of different devices, too: the figures are not of the devices alone then.
static void name_systems(struct bench_page *page)
{
    static const struct {
        size_t offset;
        const char *before;
        bool is_of_all;
    } parts[] = {
        { offsetof(struct bench_document, precision), ", ", true },
        { offsetof(struct bench_document, version), ", equil ", true },
        { offsetof(struct bench_document, platform), ", ", false },
        { offsetof(struct bench_document, driver), ", driver ", false },
        { offsetof(struct bench_document, family), ", ", false },
        { offsetof(struct bench_document, commit), ", commit ", false },
        { offsetof(struct bench_document, compiler), ", ", false },
        { offsetof(struct bench_document, options), ", ", false },
        { offsetof(struct bench_document, tuning), ", tuning ", false },
        { offsetof(struct bench_document, created), ", ", false },
    };
    for (int s = 0; s < page->num_systems; s++) {
        struct bench_system *system = &page->systems[s];
        size_t at = (size_t)snprintf(system->label, sizeof system->label, "%c", 'A' + s);
        add_part(system, &at, "  ", system->document->device, 100);
        for (int e = next_document(page, s, 0); has_other_with_device(page, s) && e < page->num_entries;
             e = next_document(page, s, e + 1))
            add_part(system, &at, ", ", file_name(page, page->entries[e].document), 64);
        if (winograd_differs(page))
            add_part(system, &at, ", Winograd ", system->document->winograd ? "on" : "off", 3);
        for (size_t p = 0; p < sizeof parts / sizeof *parts; p++)
            if (differs(page, s, parts[p].offset, parts[p].is_of_all))
                add_part(system, &at, parts[p].before, (const char *)system->document + parts[p].offset, 24);
    }
}

static bool fill_page(struct bench_page *page)
{
    int num = 0;
    for (int d = 0; d < page->num_documents; d++)
        num += page->documents[d].num_records;
    page->entries = calloc((size_t)num, sizeof *page->entries);
    if (!page->entries) {
        message("no memory for %d results", num);
        return false;
    }
    for (int d = 0; d < page->num_documents; d++) {
        const struct bench_document *document = &page->documents[d];
        const int system = find_system(page, document);
        if (system < 0) {
            message("more than %d different devices, drivers, builds or setups", MAX_SYSTEMS);
            return false;
        }
        for (int r = 0; r < document->num_records; r++)
            page->entries[page->num_entries++] = (struct bench_entry){ document, &document->records[r], system };
    }
    name_systems(page);
    return true;
}

static bool is_network(const struct bench_entry *entry)
{
    return strcmp(entry->record->kind, "network") == 0;
}

static bool is_curve(const struct bench_entry *entry)
{
    return is_curve_document(entry->document);
}

static bool is_headline(const struct bench_entry *entry)
{
    return is_network(entry) && !is_curve(entry);
}

// Whether no earlier headline measured the same.
static bool is_first(const struct bench_page *page, int entry)
{
    for (int e = 0; e < entry; e++)
        if (is_headline(&page->entries[e]) && is_same_figure(page->entries[e].record, page->entries[entry].record))
            return false;
    return true;
}

static int count(const struct bench_page *page, bool (*is)(const struct bench_entry *))
{
    int num = 0;
    for (int e = 0; e < page->num_entries; e++)
        num += is(&page->entries[e]);
    return num;
}

static void key(FILE *out, char family, int index)
{
    fprintf(out, "<span class=\"key\" style=\"background:var(--%c%d)\"></span>", family,
            family == 's' ? index % MAX_SYSTEM_COLOURS : index);
}

// ---- what was measured with

static void row(FILE *out, const char *name, const struct bench_page *page, size_t offset)
{
    fprintf(out, "<tr><th>%s</th>", name);
    for (int s = 0; s < page->num_systems; s++) {
        fputs("<td class=\"w\">", out);
        page_text(out, (const char *)page->systems[s].document + offset);
        fputs("</td>", out);
    }
    fputs("</tr>", out);
}

// Of a system's files each has its line.
static void files_row(FILE *out, const char *name, const struct bench_page *page, bool is_date)
{
    fprintf(out, "<tr><th>%s</th>", name);
    for (int s = 0; s < page->num_systems; s++) {
        fputs("<td class=\"w\">", out);
        for (int e = next_document(page, s, 0), num = 0; e < page->num_entries; e = next_document(page, s, e + 1), num++) {
            const struct bench_document *document = page->entries[e].document;
            fputs(num ? "<br>" : "", out);
            page_text(out, is_date ? document->created : file_name(page, document));
        }
        fputs("</td>", out);
    }
    fputs("</tr>", out);
}

static void write_systems(struct bench_page *page)
{
    FILE *out = page->out;
    fputs("<h2>What was measured with</h2>\n<div class=\"scroll\"><table><tr><th></th>", out);
    for (int s = 0; s < page->num_systems; s++) {
        fputs("<th>", out);
        key(out, 's', s);
        fprintf(out, "%c</th>", 'A' + s);
    }
    fputs("</tr>", out);
    files_row(out, "file", page, false);
    files_row(out, "measured", page, true);
    row(out, "device", page, offsetof(struct bench_document, device));
    row(out, "vendor", page, offsetof(struct bench_document, vendor));
    row(out, "OpenCL platform", page, offsetof(struct bench_document, platform));
    row(out, "driver", page, offsetof(struct bench_document, driver));
    row(out, "kernels", page, offsetof(struct bench_document, family));
    row(out, "tuning", page, offsetof(struct bench_document, tuning));
    row(out, "precision", page, offsetof(struct bench_document, precision));
    fputs("<tr><th>Winograd</th>", out);
    for (int s = 0; s < page->num_systems; s++)
        fprintf(out, "<td>%s</td>", page->systems[s].document->winograd ? "on" : "off");
    fputs("</tr><tr><th>compute units</th>", out);
    for (int s = 0; s < page->num_systems; s++)
        fprintf(out, "<td>%d</td>", page->systems[s].document->compute_units);
    fputs("</tr><tr><th>memory</th>", out);
    for (int s = 0; s < page->num_systems; s++)
        fprintf(out, "<td>%.1f GiB</td>", page->systems[s].document->memory_mib / 1024);
    fputs("</tr>", out);
    row(out, "Equil", page, offsetof(struct bench_document, version));
    row(out, "commit", page, offsetof(struct bench_document, commit));
    row(out, "compiler", page, offsetof(struct bench_document, compiler));
    row(out, "build", page, offsetof(struct bench_document, options));
    fputs("</table></div>\n", out);
}

// ---- headline

// Bars of one mode, those of the same figure together.
static void write_bars(struct bench_page *page, const char *mode)
{
    struct plot_bar *bars = calloc((size_t)page->num_entries, sizeof *bars);
    char(*titles)[320] = calloc((size_t)page->num_entries, sizeof *titles);
    int num = 0;
    for (int e = 0; bars && titles && e < page->num_entries; e++) {
        const struct bench_record *r = page->entries[e].record;
        if (!is_headline(&page->entries[e]) || strcmp(r->mode, mode) != 0 || !is_first(page, e))
            continue;
        bench_record_name(r, titles[e], sizeof titles[e]);
        const char *title = titles[e];
        for (int f = e; f < page->num_entries; f++) {
            const struct bench_entry *at = &page->entries[f];
            if (!is_headline(at) || !is_same_figure(page->entries[e].record, at->record))
                continue;
            const struct bench_time *wall = &at->record->wall;
            bars[num++] = (struct plot_bar){ .title = title,
                                             .label = page->systems[at->system].label,
                                             .system = at->system,
                                             .value = at->record->images_per_second,
                                             .low = at->record->batch * 1e3 / wall->high,
                                             .high = at->record->batch * 1e3 / wall->low };
            title = NULL;
        }
    }
    if (num) {
        fprintf(page->out, "<h3>%s</h3><figure>", strcmp(mode, "train") == 0 ? "Training" : "Inference");
        plot_bars(page->out, bars, num, "images a second");
        fputs("<figcaption>Medians; the small bracket at a bar's end is the 95 % interval of the median. Longer is "
              "better.</figcaption></figure>\n",
              page->out);
    }
    free(bars);
    free(titles);
}

static void write_headline_table(struct bench_page *page)
{
    FILE *out = page->out;
    fputs(
        "<div class=\"scroll\"><table><tr><th>network</th><th></th><th class=\"n\">images/s</th><th class=\"n\">against the "
        "first</th><th class=\"n\">ms a batch</th><th class=\"n\">GFLOP/s</th><th class=\"n\">convolutions, share of peak</th>"
        "<th class=\"n\">memory</th><th class=\"n\">first result</th></tr>",
        out);
    for (int e = 0; e < page->num_entries; e++) {
        if (!is_headline(&page->entries[e]) || !is_first(page, e))
            continue;
        const struct bench_record *first = page->entries[e].record;
        for (int f = e; f < page->num_entries; f++) {
            const struct bench_entry *at = &page->entries[f];
            const struct bench_record *r = at->record;
            char text[320], memory[32];
            if (!is_headline(at) || !is_same_figure(page->entries[e].record, at->record))
                continue;
            fputs("<tr><td>", out);
            if (f == e)
                page_text(out, bench_record_name(r, text, sizeof text));
            fputs("</td><td>", out);
            key(out, 's', at->system);
            fprintf(out, "%c</td><td class=\"n\">%.2f</td><td class=\"n\">", 'A' + at->system, r->images_per_second);
            if (f != e)
                fprintf(out, "%.2f x", r->images_per_second / first->images_per_second);
            fprintf(out,
                    "</td><td class=\"n\">%.2f</td><td class=\"n\">%.0f</td><td class=\"n\">%.2f</td><td class=\"n\">%s</td>"
                    "<td class=\"n\">%.2f s</td></tr>",
                    r->wall.median, r->gflop / r->wall.median * 1e3, r->conv_gflop / r->wall.median * 1e3 / r->peak_gflops,
                    format_bytes(memory, (size_t)(r->memory_mib * 1048576)), r->first_seconds);
        }
    }
    fputs("</table></div>\n", out);
}

static void write_legend(struct bench_page *page)
{
    fputs("<p class=\"legend\">", page->out);
    for (int s = 0; s < page->num_systems; s++) {
        fputs("<span>", page->out);
        key(page->out, 's', s);
        page_text(page->out, page->systems[s].label);
        fputs("</span> ", page->out);
    }
    fputs("</p>\n", page->out);
}

static void write_headline(struct bench_page *page)
{
    if (!count(page, is_headline))
        return;
    fputs("<h2>Speed of whole networks</h2>\n", page->out);
    write_bars(page, "infer");
    write_bars(page, "train");
    write_headline_table(page);
}

// ---- where the time goes

static void write_kernel_table(FILE *out, const struct bench_record *r)
{
    int num;
    double all = 0;
    struct bench_total *totals = bench_totals(r, &num);
    for (int t = 0; totals && t < num; t++)
        all += totals[t].ms;
    fputs("<h4>Kernels</h4><div class=\"scroll\"><table><tr><th>kernel</th><th class=\"n\">steps</th><th "
          "class=\"n\">ms</th><th class=\"n\">of the time</th><th class=\"n\">GFLOP/s</th><th class=\"n\">GB/s</th><th "
          "class=\"n\">of "
          "its roof</th></tr>",
          out);
    for (int t = 0; totals && t < num; t++) {
        const struct bench_total *k = &totals[t];
        fputs("<tr><td>", out);
        key(out, 'c', class_of_kernel(k->kernel));
        page_text(out, k->kernel);
        fprintf(out,
                "</td><td class=\"n\">%d</td><td class=\"n\">%.2f</td><td class=\"n\">%.1f %%</td><td class=\"n\">%.1f</td>"
                "<td class=\"n\">%.1f</td><td class=\"n\">%.2f</td></tr>",
                k->count, k->ms, 100 * k->ms / all, k->gflop / k->ms * 1e3, k->mbyte / k->ms, k->roof_ms / k->ms);
    }
    fputs("</table></div>\n", out);
    free(totals);
}

static void write_step_table(FILE *out, const struct bench_record *r)
{
    fputs("<h4>Every step, in the order they run</h4><div class=\"scroll\"><table><tr><th>layer</th>"
          "<th>kernel</th><th class=\"n\">ms</th><th class=\"n\">lowest to highest</th><th class=\"n\">GFLOP/s</th><th "
          "class=\"n\">GB/s</th><th class=\"n\">of its roof</th><th>bound</th></tr>",
          out);
    for (int i = 0; i < r->num_steps; i++) {
        const struct bench_step *s = &r->steps[i];
        fputs("<tr><td>", out);
        page_text(out, s->layer);
        fputs("</td><td>", out);
        page_text(out, s->kernel);
        fprintf(
            out,
            "</td><td class=\"n\">%.3f</td><td class=\"n\">%.3f to %.3f</td><td class=\"n\">%.1f</td><td class=\"n\">%.1f</td>"
            "<td class=\"n\">%.2f</td><td>%s</td></tr>",
            s->median, s->low, s->high, s->gflop / s->median * 1e3, s->mbyte / s->median,
            bench_share(r, s->gflop, s->mbyte, s->median),
            bench_is_compute_bound(r, s->gflop, s->mbyte) ? "compute" : "memory");
    }
    fputs("</table></div>\n", out);
}

static void write_entry_title(struct bench_page *page, const struct bench_entry *entry)
{
    char text[320];
    fputs("<h3>", page->out);
    key(page->out, 's', entry->system);
    fprintf(page->out, "%c &nbsp;", 'A' + entry->system);
    page_text(page->out, bench_record_name(entry->record, text, sizeof text));
    fputs("</h3>", page->out);
}

static void write_class_legend(FILE *out)
{
    fputs("<p class=\"legend\">", out);
    for (int c = 0; c < NUM_CLASSES; c++) {
        fputs("<span>", out);
        key(out, 'c', c);
        fprintf(out, "%s</span> ", class_names[c]);
    }
    fputs("</p>\n", out);
}

static void write_shares(struct bench_page *page)
{
    if (!count(page, is_headline))
        return;
    fputs("<h2>Where the time goes</h2>\n<p>Share of the time of a batch that each class of kernels takes, every step run "
          "alone.</p>",
          page->out);
    write_class_legend(page->out);
    for (int e = 0; e < page->num_entries; e++) {
        const struct bench_entry *entry = &page->entries[e];
        if (!is_headline(entry))
            continue;
        write_entry_title(page, entry);
        plot_shares(page->out, entry->record);
        fputs("<details><summary>Kernels and steps</summary>", page->out);
        write_kernel_table(page->out, entry->record);
        write_step_table(page->out, entry->record);
        fputs("</details>\n", page->out);
    }
}

static void write_rooflines(struct bench_page *page)
{
    FILE *out = page->out;
    if (!count(page, is_headline))
        return;
    fputs("<h2>How near the hardware's limit</h2>\n<p>Each disc is a kernel; its area is its share of the time, and the "
          "largest are named "
          "with it. To the right, a kernel does more arithmetic for each byte it has to move; up, it does it faster. The grey "
          "line is "
          "the roof: what the device's own memory (the slope) and arithmetic (the flat part) allowed in the same run. A disc "
          "on the "
          "line is at the limit. One above it is not wrong: its data stayed in a cache, Winograd's transform needed fewer "
          "operations than the direct convolution that is counted, or matrix units multiplied, which the roof is "
          "without.</p>\n",
          out);
    write_class_legend(out);
    fputs("<div class=\"grid\">", out);
    for (int e = 0; e < page->num_entries; e++) {
        const struct bench_entry *entry = &page->entries[e];
        if (!is_headline(entry))
            continue;
        fputs("<figure>", out);
        write_entry_title(page, entry);
        plot_roofline(out, entry->record);
        fprintf(out, "<figcaption>Roof: %.0f GFLOP/s of multiply-adds, %.1f GB/s copying</figcaption></figure>",
                entry->record->peak_gflops, entry->record->peak_gbytes);
    }
    fputs("</div>\n", out);
}

// ---- single ops

static void write_op_rows(struct bench_page *page, const struct bench_document *document)
{
    FILE *out = page->out;
    for (int i = 0; i < document->num_records; i++) {
        const struct bench_record *r = &document->records[i];
        const double share = bench_share(r, r->gflop, r->mbyte, r->wall.median);
        fputs("<tr><td>", out);
        page_text(out, r->op);
        fputs("</td><td>", out);
        page_text(out, r->layer);
        fputs("</td><td class=\"w\">", out); // on two lines rather than the table cut at the right
        page_text(out, r->shape);
        fprintf(out,
                "</td><td class=\"n\">%d</td><td class=\"n\">%.3f</td><td class=\"n\">%.1f %%</td><td class=\"n\">%.1f</td><td "
                "class=\"n\">%.1f</td><td class=\"n\">%.2f</td><td><svg viewBox=\"0 0 100 12\" style=\"width:72px\"><rect "
                "width=\"100\" height=\"12\" fill=\"var(--line)\"/><rect width=\"%.1f\" height=\"12\" "
                "fill=\"var(--c%d)\"/></svg></td>"
                "<td>%s</td></tr>",
                r->count, r->wall.median, 50 * (r->wall.high - r->wall.low) / r->wall.median, r->gflop / r->wall.median * 1e3,
                r->mbyte / r->wall.median, share, fmin(100, 100 * share), class_of_kernel(r->op),
                bench_is_compute_bound(r, r->gflop, r->mbyte) ? "compute" : "memory");
    }
}

static int count_verified(const struct bench_document *document)
{
    int num = 0;
    for (int i = 0; i < document->num_records; i++)
        num += strcmp(document->records[i].check, "double precision") == 0;
    return num;
}

static void write_ops(struct bench_page *page)
{
    FILE *out = page->out;
    bool has_title = false;
    for (int d = 0; d < page->num_documents; d++) {
        const struct bench_document *document = &page->documents[d];
        const struct bench_record *first = &document->records[0];
        if (strcmp(first->kind, "op") != 0)
            continue;
        if (!has_title)
            fputs("<h2>Single ops</h2>\n<p>Every different call alone, on random inputs, many enqueued together. Count says "
                  "how often "
                  "the network runs it. The bar is its share of the roof (full: at the limit or above).</p>",
                  out);
        has_title = true;
        fputs("<h3>", out);
        for (int e = 0; e < page->num_entries; e++)
            if (page->entries[e].record == first) {
                key(out, 's', page->entries[e].system);
                fprintf(out, "%c &nbsp;", 'A' + page->entries[e].system);
            }
        page_text(out, first->arch);
        fprintf(out, ", %s, batch %d; %.0f GFLOP/s of multiply-adds, %.1f GB/s copying</h3>", first->mode, first->batch,
                first->peak_gflops, first->peak_gbytes);
        fputs("<div class=\"scroll\"><table><tr><th>op</th><th>first layer</th><th>shape</th><th class=\"n\">count</th><th "
              "class=\"n\">ms"
              "</th><th class=\"n\">&plusmn;</th><th class=\"n\">GFLOP/s</th><th class=\"n\">GB/s</th><th class=\"n\">of "
              "roof</th><th></th>"
              "<th>bound</th></tr>",
              out);
        write_op_rows(page, document);
        fprintf(
            out,
            "</table></div><p class=\"dim\">%d of these %d were compared with sums in double precision before they were timed; "
            "the others gave finite numbers, not all the same, and the same bits twice.</p>\n",
            count_verified(document), document->num_records);
    }
}

// ---- curves

static void fill_line(const struct bench_page *page, const struct bench_entry *first, struct plot_line *line)
{
    const struct bench_document *document = first->document;
    *line = (struct plot_line){ .label = page->systems[first->system].label, .system = first->system };
    for (int i = 0; i < document->num_records; i++) {
        const struct bench_record *r = &document->records[i];
        const bool is_batch = is_over_batch(document);
        const double scale = is_batch ? 1.0 / r->batch : 1e6 / r->batch / r->size / r->size;
        line->points[line->num++] = (struct plot_point){ is_batch ? r->batch : r->size, r->wall.median * scale,
                                                         r->wall.low * scale, r->wall.high * scale };
    }
}

// The curves of the same network and mode over the same axis, in one drawing.
static void write_curve(struct bench_page *page, int entry, bool *done)
{
    const struct bench_entry *first = &page->entries[entry];
    const struct bench_record *r = first->record;
    const bool is_batch = is_over_batch(first->document);
    char variant[64];
    struct plot_line *lines = calloc(MAX_LINES, sizeof *lines);
    int num = 0;
    for (int e = entry; lines && e < page->num_entries && num < MAX_LINES; e++) {
        const struct bench_entry *at = &page->entries[e];
        const bool is_start = is_curve(at) && at->record == &at->document->records[0];
        if (!is_start || is_over_batch(at->document) != is_batch || !is_same_curve(r, at->record, is_batch))
            continue;
        fill_line(page, at, &lines[num++]);
        done[e] = true;
    }
    fputs("<h3>", page->out);
    page_text(page->out, r->arch);
    fprintf(page->out, is_batch ? " %s, %d x %d pixels" : " %s, batch %d", r->mode, is_batch ? r->size : r->batch, r->size);
    page_text(page->out, bench_record_variant(r, variant, sizeof variant));
    fputs("</h3><figure>", page->out);
    if (lines)
        plot_lines(page->out, lines, num, is_batch ? "images in a batch" : "side of the images in pixels",
                   is_batch ? "ms an image" : "ns for each pixel of an image");
    fputs("</figure>\n", page->out);
    free(lines);
}

static void write_curves(struct bench_page *page)
{
    if (!count(page, is_curve))
        return;
    bool *done = calloc((size_t)page->num_entries, sizeof *done);
    fputs(
        "<h2>Cost against batch and image size</h2>\n<p>Time for each image, or for each pixel of an image. A flat line means "
        "that cost grows in proportion; the rise at the left is what a step costs however little there is to do.</p>",
        page->out);
    for (int e = 0; done && e < page->num_entries; e++)
        if (is_curve(&page->entries[e]) && page->entries[e].record == &page->entries[e].document->records[0] && !done[e])
            write_curve(page, e, done);
    free(done);
}

// ---- the page

static void write_method(struct bench_page *page)
{
    fputs(
        "<h2>How it was measured</h2>\n"
        "<p>Batches of random images lie on the device before the clock starts: reading and decoding files is not part of it. "
        "Results are verified first: finite, not constant, and the same bits in two runs; single ops are compared with sums in "
        "double "
        "precision where the table says so. After a warm-up until times are steady, whole batches are timed one by one, each "
        "enqueued "
        "at once and waited for once (wall time). Medians are shown, with the 95 % interval that follows from the order of the "
        "samples; nothing is assumed about their distribution. Times of single steps come from runs of their own with a wait "
        "after "
        "each step, so they include a launch; their sum differs from the wall time by what launches and waits cost.</p>"
        "<p>GFLOP/s count the arithmetic of the definition, a multiply-add as two, convolutions as direct ones. GB/s count the "
        "least "
        "memory traffic: each input read once, each output written once. The peaks are measured, not taken from a data sheet: "
        "a "
        "kernel of multiply-adds only, in fp32 and without matrix units, and a copy of up to 1 GiB, several times what most "
        "caches hold, where memory has room.</p>\n"
        "<h2>What to be careful with</h2>\n<ul>"
        "<li>A shared or warm machine drifts by more than the interval shows, which knows only one run. Repeat runs before "
        "believing a difference of a few percent; <code>equil bench --compare</code> has a least band for that.</li>"
        "<li>Drivers and settings differ between systems here where the table of what was measured with says so. Compare like "
        "with like.</li>"
        "<li>A share above 1 of the roof is possible: caches, Winograd, and matrix units (with another precision than "
        "fp32).</li>",
        page->out);
    for (int e = 0; e < page->num_entries; e++) {
        const struct bench_entry *entry = &page->entries[e];
        char text[320];
        if (entry->record->wall.drift < 1.05 || !is_network(entry))
            continue;
        fprintf(page->out, "<li>%c, ", 'A' + entry->system);
        page_text(page->out, bench_record_name(entry->record, text, sizeof text));
        fprintf(page->out,
                ": the second half of the samples took %.2f times the first: the device slowed down, or others used it.</li>",
                entry->record->wall.drift);
    }
    fputs("</ul>\n", page->out);
}

static void write_page(struct bench_page *page)
{
    page_begin(page->out);
    fputs("<h1>Equil benchmark</h1>\n<p class=\"dim\">Channel Equilibrium and residual networks on OpenCL devices: whole "
          "networks, "
          "their kernels, and how near those come to what the hardware can do.</p>\n",
          page->out);
    write_legend(page);
    write_headline(page);
    write_shares(page);
    write_rooflines(page);
    write_curves(page);
    write_ops(page);
    write_systems(page);
    write_method(page);
    page_end(page->out);
}

static int write_report(const char *path, struct bench_page *page)
{
    char *text = NULL;
    size_t bytes = 0;
    page->out = open_memstream(&text, &bytes);
    bool is_written = page->out != NULL;
    if (is_written) {
        write_page(page);
        is_written = fclose(page->out) == 0 && text;
    }
    int exit_code = EXIT_SUCCESS;
    if (!is_written) {
        message("no memory for the page");
        exit_code = EXIT_FAILED;
    } else if (eq_file_write(path, text, bytes) != EQ_OK) {
        exit_code = fail_with_last_error(NULL);
    }
    free(text);
    return exit_code;
}

int bench_report(const char *out, char *const *paths, int num)
{
    struct bench_page page = { .documents = calloc((size_t)num, sizeof *page.documents) };
    int exit_code = EXIT_FAILED;
    bool is_read = page.documents != NULL && can_write(out);
    for (; is_read && page.num_documents < num; page.num_documents++)
        is_read = bench_document_read(paths[page.num_documents], &page.documents[page.num_documents]);
    if (is_read && fill_page(&page))
        exit_code = write_report(out, &page);
    for (int d = 0; page.documents && d < page.num_documents; d++)
        bench_document_free(&page.documents[d]);
    free(page.documents);
    free(page.entries);
    return exit_code;
}

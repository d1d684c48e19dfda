// Drawings of the report as inline SVG. Sizes are in the drawing's own units, about pixels.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench_page.h"

enum { MAX_LABELS = 7 };

// A pleasant step so that at most `most` of them cover `range`.
static double nice_step(double range, int most)
{
    const double least = range / most, power = pow(10, floor(log10(least)));
    static const double factors[] = { 1, 2, 2.5, 5, 10 };
    for (int i = 0; i < 5; i++)
        if (factors[i] * power >= least)
            return factors[i] * power;
    return 10 * power;
}

static int colour_of(int system)
{
    return system % MAX_SYSTEM_COLOURS;
}

// ---- bars

static void bar_axis(FILE *out, double left, double width, double height, double most, const char *unit)
{
    const double step = nice_step(most, 6);
    for (double value = 0; value <= most * 1.0001; value += step) {
        const double x = left + value / most * width;
        fprintf(out, "<line x1=\"%.1f\" y1=\"0\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"var(--line)\"/>", x, x, height);
        fprintf(out, "<text class=\"dim\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%g</text>", x, height + 16, value);
    }
    fprintf(out, "<text class=\"dim\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>", left + width, height + 34, unit);
}

// Letters are at most 7 wide.
static void bar_label(FILE *out, const char *label, double x, double y, double room, const char *style)
{
    char text[320];
    size_t length = strlen(label), most = room > 21 ? (size_t)(room / 7) : 3;
    const bool is_cut = length > most;
    if (is_cut)
        length = (size_t)page_cut(label, (int)most - 3);
    snprintf(text, sizeof text, "%.*s%s", (int)length, label, is_cut ? "..." : "");
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\"%s>", x, y, style);
    page_text(out, text);
    fputs("</text>", out);
}

void plot_bars(FILE *out, const struct plot_bar *bars, int num, const char *unit)
{
    const double left = 8, width = 900, thick = 24, gap = 8, head = 30;
    double most = 0, height = 6, y = 0;
    for (int i = 0; i < num; i++) {
        most = fmax(most, bars[i].high);
        height += thick + gap + (bars[i].title ? head : 0);
    }
    most *= 1.02;
    fprintf(out, "<svg viewBox=\"0 0 1072 %.0f\" role=\"img\">", height + 40);
    bar_axis(out, left, width, height, most, unit);
    for (int i = 0; i < num; i++) {
        const struct plot_bar *b = &bars[i];
        if (b->title) {
            fprintf(out,
                    "<text x=\"%.1f\" y=\"%.1f\" font-weight=\"600\" paint-order=\"stroke\" stroke=\"var(--bg)\" "
                    "stroke-width=\"5\">",
                    left, y + head - 8);
            page_text(out, b->title);
            fputs("</text>", out);
            y += head;
        }
        const double end = left + b->value / most * width, x0 = left + b->low / most * width,
                     x1 = left + b->high / most * width;
        const double inside = x0 - left - 16, beside = 1064 - (x1 + 64); // up to the interval, or behind the value
        const bool is_inside = inside > 7 * (double)strlen(b->label) || inside > beside;
        fprintf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.0f\" rx=\"3\" fill=\"var(--s%d)\"/>", left, y,
                end - left, thick, colour_of(b->system));
        fprintf(out,
                "<path d=\"M%.1f %.1fH%.1fM%.1f %.1fv8M%.1f %.1fv8\" stroke=\"var(--fg)\" stroke-width=\"1.5\" fill=\"none\"/>",
                x0, y + thick / 2, x1, x0, y + thick / 2 - 4, x1, y + thick / 2 - 4);
        if (is_inside)
            bar_label(out, b->label, left + 8, y + 17, inside, " style=\"fill:var(--bg)\"");
        else
            bar_label(out, b->label, x1 + 64, y + 17, beside, "");
        fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" font-weight=\"600\">%.*f</text>", x1 + 8, y + 17,
                b->value < 1     ? 3
                : b->value < 100 ? 1
                                 : 0,
                b->value);
        y += thick + gap;
    }
    fputs("</svg>\n", out);
}

// ---- roofline

struct roof {
    double x0, x1, y0, y1;           // data, powers of ten
    double left, top, width, height; // on paper
};

static double roof_x(const struct roof *r, double intensity)
{
    return r->left + (log10(fmin(fmax(intensity, r->x0), r->x1)) - log10(r->x0)) / (log10(r->x1) - log10(r->x0)) * r->width;
}

static double roof_y(const struct roof *r, double rate)
{
    const double share = (log10(fmin(fmax(rate, r->y0), r->y1)) - log10(r->y0)) / (log10(r->y1) - log10(r->y0));
    return r->top + (1 - share) * r->height;
}

// "100", "10k", "1M" into text.
static const char *short_number(double value, char text[24])
{
    if (value >= 1e6)
        snprintf(text, 24, "%gM", value / 1e6);
    else if (value >= 1e4)
        snprintf(text, 24, "%gk", value / 1e3);
    else
        snprintf(text, 24, "%g", value);
    return text;
}

static void roof_axes(FILE *out, const struct roof *r)
{
    char text[24];
    for (double x = r->x0; x <= r->x1 * 1.01; x *= 10)
        fprintf(out,
                "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"var(--line)\"/>"
                "<text class=\"dim\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%g</text>",
                roof_x(r, x), r->top, roof_x(r, x), r->top + r->height, roof_x(r, x), r->top + r->height + 17, x);
    for (double y = r->y0; y <= r->y1 * 1.01; y *= 10)
        fprintf(out,
                "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"var(--line)\"/>"
                "<text class=\"dim\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>",
                r->left, roof_y(r, y), r->left + r->width, roof_y(r, y), r->left - 7, roof_y(r, y) + 4, short_number(y, text));
    fprintf(out, "<text class=\"dim\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">operations per byte of memory traffic</text>",
            r->left + r->width, r->top + r->height + 36);
    fprintf(out, "<text class=\"dim\" x=\"%.1f\" y=\"%.1f\">GFLOP/s</text>", r->left - 38, r->top - 10);
}

static void roof_line(FILE *out, const struct roof *r, const struct bench_record *record)
{
    const double ridge = record->peak_gflops / record->peak_gbytes, start = fmax(r->x0, r->y0 / record->peak_gbytes);
    fprintf(out, "<path d=\"M%.1f %.1fL%.1f %.1fH%.1f\" stroke=\"var(--roof)\" stroke-width=\"2.5\" fill=\"none\"/>",
            roof_x(r, start), roof_y(r, start * record->peak_gbytes), roof_x(r, ridge), roof_y(r, record->peak_gflops),
            r->left + r->width);
}

struct disc {
    double x, y, radius, share; // share of the time
};

static struct disc place_disc(const struct roof *r, const struct bench_total *k, double all)
{
    const double share = k->ms / all;
    return (struct disc){ roof_x(r, k->gflop * 1e3 / k->mbyte), roof_y(r, k->gflop / k->ms * 1e3), 3.5 + 15 * sqrt(share),
                          share };
}

static void draw_disc(FILE *out, const struct disc *d, const struct bench_total *k)
{
    fprintf(
        out,
        "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" fill=\"var(--c%d)\" fill-opacity=\"0.75\" stroke=\"var(--panel)\"><title>",
        d->x, d->y, d->radius, class_of_kernel(k->kernel));
    page_text(out, k->kernel);
    fprintf(out, ": %.2f ms in %d steps, %.1f GFLOP/s, %.1f GB/s, %.0f %% of the roof</title></circle>", k->ms, k->count,
            k->gflop / k->ms * 1e3, k->mbyte / k->ms, 100 * k->roof_ms / k->ms);
}

// Beside the disc, lower where another name stands already.
static void name_disc(FILE *out, const struct roof *r, const struct disc *d, const char *kernel, double *taken, int num_taken)
{
    double at = d->y + 4;
    for (int tries = 0; tries < num_taken; tries++)
        for (int l = 0; l < num_taken; l++)
            if (fabs(taken[l] - at) < 14)
                at = taken[l] + 14;
    taken[num_taken] = at;
    const bool is_right = d->x > r->left + 0.62 * r->width;
    fprintf(out,
            "<text x=\"%.1f\" y=\"%.1f\" font-size=\"11.5\" text-anchor=\"%s\" paint-order=\"stroke\" stroke=\"var(--panel)\" "
            "stroke-width=\"3\">",
            is_right ? d->x - d->radius - 4 : d->x + d->radius + 4, at, is_right ? "end" : "start");
    page_text(out, kernel);
    fprintf(out, " %.0f %%</text>", 100 * d->share);
}

// Discs largest first, so that small ones stay visible; then the names of the few that take the most time.
static void roof_points(FILE *out, const struct roof *r, const struct bench_record *record)
{
    int num, names = 0;
    double taken[MAX_LABELS], all = 0;
    struct bench_total *totals = bench_totals(record, &num);
    for (int t = 0; totals && t < num; t++)
        all += totals[t].ms;
    for (int pass = 0; pass < 2; pass++)
        for (int t = 0; totals && t < num; t++) {
            const struct bench_total *k = &totals[t];
            if (k->gflop <= 0 || k->mbyte <= 0)
                continue;
            const struct disc disc = place_disc(r, k, all);
            if (pass == 0) {
                draw_disc(out, &disc, k);
            } else if (names < MAX_LABELS && disc.share >= 0.01) {
                name_disc(out, r, &disc, k->kernel, taken, names);
                names++;
            }
        }
    free(totals);
}

// Winograd and matrix units come out above the roof, by a decade even: they are drawn where they are.
static double fastest(const struct bench_record *record)
{
    int num;
    double most = record->peak_gflops * 1.3;
    struct bench_total *totals = bench_totals(record, &num);
    for (int t = 0; totals && t < num; t++)
        most = fmax(most, totals[t].gflop / totals[t].ms * 1e3);
    free(totals);
    return most;
}

void plot_roofline(FILE *out, const struct bench_record *record)
{
    const struct roof r = { .x0 = 0.01,
                            .x1 = 1000,
                            .y0 = pow(10, floor(log10(record->peak_gflops)) - 3),
                            .y1 = pow(10, ceil(log10(fastest(record)))),
                            .left = 52,
                            .top = 26,
                            .width = 440,
                            .height = 300 };
    fputs("<svg viewBox=\"0 0 510 370\" role=\"img\">", out);
    roof_axes(out, &r);
    roof_line(out, &r, record);
    roof_points(out, &r, record);
    fputs("</svg>\n", out);
}

// ---- shares

void plot_shares(FILE *out, const struct bench_record *record)
{
    double ms[NUM_CLASSES] = { 0 }, all = 0, x = 0;
    for (int i = 0; i < record->num_steps; i++) {
        ms[class_of_kernel(record->steps[i].kernel)] += record->steps[i].median;
        all += record->steps[i].median;
    }
    fputs("<svg viewBox=\"0 0 1072 34\" role=\"img\">", out);
    for (int c = 0; c < NUM_CLASSES && all > 0; c++) {
        const double width = ms[c] / all * 1072;
        fprintf(out,
                "<rect x=\"%.1f\" y=\"2\" width=\"%.1f\" height=\"30\" fill=\"var(--c%d)\"><title>%s: %.2f ms, %.1f %%</title>"
                "</rect>",
                x, fmax(width - 1.5, 0), c, class_names[c], ms[c], 100 * ms[c] / all);
        if (width > 60)
            fprintf(out, "<text x=\"%.1f\" y=\"22\" style=\"fill:var(--bg)\" font-weight=\"600\">%.1f %%</text>", x + 8,
                    100 * ms[c] / all);
        x += width;
    }
    fputs("</svg>\n", out);
}

// ---- lines

struct lines_frame {
    double x0, x1, least, most, left, top, width, height; // least: 0 on a linear axis, above it on a logarithmic one
};

static double line_x(const struct lines_frame *f, double x)
{
    return f->left + (f->x1 > f->x0 ? (log2(x) - log2(f->x0)) / (log2(f->x1) - log2(f->x0)) : 0.5) * f->width;
}

static double line_y(const struct lines_frame *f, double y)
{
    const double up = f->least > 0 ? log(y / f->least) / log(f->most / f->least) : y / f->most;
    return f->top + (1 - up) * f->height;
}

static void draw_line(FILE *out, const struct lines_frame *f, const struct plot_line *line)
{
    const int colour = colour_of(line->system);
    for (int p = 0; p < line->num; p++)
        fprintf(out, "%s%.1f %.1f", p ? "L" : "<path fill=\"none\" stroke-width=\"2\" d=\"M", line_x(f, line->points[p].x),
                line_y(f, line->points[p].y));
    fprintf(out, "\" stroke=\"var(--s%d)\"/>", colour);
    for (int p = 0; p < line->num; p++) {
        const struct plot_point *at = &line->points[p];
        const double x = line_x(f, at->x);
        fprintf(out, "<path d=\"M%.1f %.1fV%.1f\" stroke=\"var(--s%d)\"/>", x, line_y(f, at->low), line_y(f, at->high), colour);
        fprintf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"var(--s%d)\"><title>", x, line_y(f, at->y), colour);
        page_text(out, line->label);
        fprintf(out, ", %g: %.4g</title></circle>", at->x, at->y);
    }
}

static double last_y(const struct plot_line *line)
{
    return line->points[line->num - 1].y;
}

// The last value of each line at the right, one above another where they would touch, and all of them in the drawing.
static void name_lines(FILE *out, const struct lines_frame *f, const struct plot_line *lines, int num)
{
    enum { HEIGHT = 14 };
    int order[MAX_LINES];
    double at[MAX_LINES], above = f->top + f->height + HEIGHT + 6;
    for (int i = 0; i < num; i++) { // lowest values first
        int place = i;
        for (; place > 0 && last_y(&lines[i]) < last_y(&lines[order[place - 1]]); place--)
            order[place] = order[place - 1];
        order[place] = i;
    }
    for (int i = 0; i < num; i++)
        above = at[i] = fmin(above - HEIGHT, line_y(f, last_y(&lines[order[i]])) + 4);
    for (int i = num - 1, least = HEIGHT; i >= 0; i--, least += HEIGHT) { // down again where they left it
        const struct plot_line *line = &lines[order[i]];
        fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" font-size=\"12\" font-weight=\"600\">%c %.3g</text>", f->left + f->width + 10,
                fmax(at[i], least), 'A' + line->system, last_y(line));
    }
}

static void level(FILE *out, const struct lines_frame *f, double y)
{
    fprintf(out,
            "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"var(--line)\"/>"
            "<text class=\"dim\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%g</text>",
            f->left, line_y(f, y), f->left + f->width, line_y(f, y), f->left - 8, line_y(f, y) + 4, y);
}

// The vertical axis for values from least to most: from 0 up, unless a slow device would press the others to the ground.
static void draw_axis(FILE *out, struct lines_frame *f, double least, double most, const char *label)
{
    enum { FLATTENS = 20 };
    const bool is_log = most > FLATTENS * least;
    const double step = nice_step(most, 5);
    fprintf(out, "<svg viewBox=\"0 0 1072 340\" role=\"img\"><text class=\"dim\" x=\"8\" y=\"14\">%s%s</text>", label,
            is_log ? ", logarithmic" : "");
    if (is_log) {
        const int first = (int)floor(log10(least)), last = (int)ceil(log10(most));
        f->least = pow(10, first);
        f->most = pow(10, last);
        for (int e = first; e <= last; e++)
            level(out, f, pow(10, e));
        return;
    }
    f->most = ceil(most / step) * step;
    for (double y = 0; y <= f->most * 1.0001; y += step)
        level(out, f, y);
}

void plot_lines(FILE *out, const struct plot_line *lines, int num, const char *x_label, const char *y_label)
{
    struct lines_frame f = { .x0 = 1e9, .left = 60, .top = 30, .width = 930, .height = 260 };
    double least = INFINITY, most = 0;
    for (int l = 0; l < num; l++)
        for (int p = 0; p < lines[l].num; p++) {
            f.x0 = fmin(f.x0, lines[l].points[p].x);
            f.x1 = fmax(f.x1, lines[l].points[p].x);
            least = fmin(least, lines[l].points[p].low);
            most = fmax(most, lines[l].points[p].high);
        }
    draw_axis(out, &f, least, most, y_label);
    int longest = 0;
    for (int l = 0; l < num; l++) {
        draw_line(out, &f, &lines[l]);
        longest = lines[l].num > lines[longest].num ? l : longest;
    }
    name_lines(out, &f, lines, num);
    for (int p = 0; p < lines[longest].num; p++)
        fprintf(out, "<text class=\"dim\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\" font-size=\"12\">%g</text>",
                line_x(&f, lines[longest].points[p].x), f.top + f.height + 17, lines[longest].points[p].x);
    fprintf(out, "<text class=\"dim\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text></svg>\n", f.left + f.width,
            f.top + f.height + 36, x_label);
}

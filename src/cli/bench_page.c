// The report's frame: style sheet, escaped text, classes of kernels.
#include "bench_page.h"

#include <string.h>

const char *const class_names[NUM_CLASSES] = { "convolutions",      "normalisation, CE, activation",
                                               "pooling",           "linear, loss",
                                               "update of weights", "other" };

int class_of_kernel(const char *kernel)
{
    static const struct {
        const char *start;
        int class;
    } starts[] = {
        { "conv2d_gated", CLASS_NORMALISATION },
        { "conv2d", CLASS_CONVOLUTION },
        { "unit", CLASS_NORMALISATION },
        { "moments", CLASS_NORMALISATION },
        { "affine", CLASS_NORMALISATION },
        { "evaluate", CLASS_NORMALISATION },
        { "reweight", CLASS_NORMALISATION },
        { "statistics", CLASS_NORMALISATION },
        { "decorrelation", CLASS_NORMALISATION },
        { "covariance", CLASS_NORMALISATION },
        { "newton", CLASS_NORMALISATION },
        { "constant_map", CLASS_NORMALISATION },
        { "finish_grad", CLASS_NORMALISATION },
        { "x_weight", CLASS_NORMALISATION },
        { "pool", CLASS_POOLING },
        { "linear", CLASS_LINEAR },
        { "gemm", CLASS_LINEAR },
        { "softmax", CLASS_LINEAR },
        { "sgd", CLASS_UPDATE },
        { "accumulate", CLASS_UPDATE },
    };
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        if (strncmp(kernel, starts[i].start, strlen(starts[i].start)) == 0)
            return starts[i].class;
    return CLASS_OTHER;
}

int page_cut(const char *text, int most)
{
    int length = (int)strnlen(text, (size_t)most);
    while (length > 0 && (text[length] & 0xc0) == 0x80) // inside of a letter
        length--;
    return length;
}

void page_text(FILE *out, const char *text)
{
    json_t *whole = json_text(text); // the name of a file has any bytes
    for (const char *at = whole ? json_string_value(whole) : "?"; *at; at++) {
        if (*at == '<')
            fputs("&lt;", out);
        else if (*at == '>')
            fputs("&gt;", out);
        else if (*at == '&')
            fputs("&amp;", out);
        else if (*at == '"')
            fputs("&quot;", out);
        else
            fputc(*at, out);
    }
    json_decref(whole);
}

// Colours: --sN of systems, --cN of classes; told apart by people who see few colours, too, and never the only sign.
static const char style[] =
    ":root{color-scheme:light dark;--bg:#fff;--fg:#1c2127;--dim:#5b6570;--line:#d9dee3;--panel:#f5f7f9;--roof:#8a949e;"
    "--s0:#1f6fd6;--s1:#d0660a;--s2:#12855a;--s3:#b03a86;--s4:#6d55c4;--s5:#8a6a12;--s6:#15808f;--s7:#c0392b;"
    "--c0:#1f6fd6;--c1:#e08a1e;--c2:#4aa37a;--c3:#b864a8;--c4:#8678c9;--c5:#98a2ab}"
    "@media (prefers-color-scheme:dark){:root{--bg:#14181c;--fg:#e6eaee;--dim:#9aa5b0;--line:#333b43;--panel:#1d2328;"
    "--roof:#77828d;--s0:#6aa8f7;--s1:#f29a4b;--s2:#4fc495;--s3:#e583c0;--s4:#a996f0;--s5:#d1ad4a;--s6:#55c0cf;--s7:#f0796c;"
    "--c0:#6aa8f7;--c1:#f0b057;--c2:#6cc79b;--c3:#d893ca;--c4:#aa9eea;--c5:#808b95}}"
    "*{box-sizing:border-box}body{margin:0 auto;max-width:1120px;padding:32px 24px 64px;background:var(--bg);color:var(--fg);"
    "font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',sans-serif}"
    "h1{font-size:30px;line-height:1.2;margin:0 0 4px}h2{font-size:21px;margin:44px 0 6px;padding-top:14px;"
    "border-top:1px solid var(--line)}h3{font-size:16px;margin:16px 0 4px}p{margin:6px 0 12px;max-width:76ch}"
    ".dim,figcaption{color:var(--dim);font-size:14px}figure{margin:10px 0 20px}svg{display:block;width:100%;height:auto;"
    "font:13px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}svg text{fill:var(--fg)}svg .dim{fill:var(--dim)}"
    ".grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(440px,1fr));gap:20px}.grid "
    "figure{margin:0;max-width:620px;"
    "background:var(--panel);border-radius:8px;padding:12px}.scroll{overflow-x:auto}table{border-collapse:collapse;"
    "font-size:13.5px;margin:8px 0 16px;font-variant-numeric:tabular-nums}th,td{padding:4px 10px 4px 0;text-align:left;"
    "border-bottom:1px solid "
    "var(--line);vertical-align:top}th{font-weight:600}td{white-space:nowrap}td.w{white-space:normal;min-width:160px}td.n,th.n{"
    "text-align:right}"
    "summary{cursor:pointer;color:var(--dim);font-size:14px;margin:6px 0}.key{display:inline-block;width:11px;height:11px;"
    "border-radius:3px;margin:0 6px 0 0;vertical-align:-1px}h4{font-size:14px;margin:12px 0 "
    "2px}.legend>span{margin-right:18px;white-space:nowrap}"
    "code{font-size:13px}@media(max-width:520px){.grid{grid-template-columns:1fr}}";

void page_begin(FILE *out)
{
    fprintf(out,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
            "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Equil benchmark</title>\n"
            "<style>%s</style>\n</head>\n<body>\n",
            style);
}

void page_end(FILE *out)
{
    fputs("</body>\n</html>\n", out);
}

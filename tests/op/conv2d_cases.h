// Convolutions that the tests run and, those of ResNet-50, that bench/conv2d.c times.
#ifndef CONV2D_CASES_H
#define CONV2D_CASES_H

#include <stdbool.h>

struct conv2d_case {
    const char *name;
    int n, ic, ih, iw, oc, kh, kw;
    int sh, sw;     // stride, 0 means 1
    int ph, pw;     // padding
    bool is_plain;  // the input is a plain image
    bool is_tiny;   // also under Oclgrind
    int halo;       // of outputs; inputs have what the op asks for and this
    float mean;     // of the input
};

static const struct conv2d_case conv2d_cases[] = {
    { .name = "1x1 one of all", .n = 1, .ic = 1, .ih = 1, .iw = 1, .oc = 1, .kh = 1, .kw = 1, .is_tiny = true },
    { .name = "1x1", .n = 2, .ic = 32, .ih = 7, .iw = 7, .oc = 64, .kh = 1, .kw = 1 },
    { .name = "1x1 ragged, halo", .n = 1, .ic = 17, .ih = 5, .iw = 3, .oc = 5, .kh = 1, .kw = 1, .halo = 1, .is_tiny = true },
    { .name = "1x1 wide", .n = 3, .ic = 40, .ih = 2, .iw = 29, .oc = 24, .kh = 1, .kw = 1 },
    { .name = "1x1 s2 even", .n = 2, .ic = 16, .ih = 8, .iw = 8, .oc = 32, .kh = 1, .kw = 1, .sh = 2, .sw = 2 },
    { .name = "1x1 s2 odd", .n = 1, .ic = 24, .ih = 7, .iw = 5, .oc = 17, .kh = 1, .kw = 1, .sh = 2, .sw = 2, .halo = 2, .is_tiny = true },
    { .name = "1x1 pad", .n = 2, .ic = 5, .ih = 4, .iw = 6, .oc = 16, .kh = 1, .kw = 1, .ph = 1, .pw = 1 },
    { .name = "3x3", .n = 2, .ic = 16, .ih = 14, .iw = 14, .oc = 32, .kh = 3, .kw = 3, .ph = 1, .pw = 1 },
    { .name = "3x3 ragged", .n = 1, .ic = 17, .ih = 4, .iw = 3, .oc = 24, .kh = 3, .kw = 3, .ph = 1, .pw = 1, .is_tiny = true },
    { .name = "3x3 13x11", .n = 2, .ic = 40, .ih = 13, .iw = 11, .oc = 40, .kh = 3, .kw = 3, .ph = 1, .pw = 1, .halo = 1 },
    { .name = "3x3 no pad", .n = 1, .ic = 5, .ih = 9, .iw = 10, .oc = 3, .kh = 3, .kw = 3 },
    { .name = "3x3 pad 2", .n = 1, .ic = 3, .ih = 5, .iw = 4, .oc = 16, .kh = 3, .kw = 3, .ph = 2, .pw = 2 },
    { .name = "3x3 on 1x1", .n = 3, .ic = 64, .ih = 1, .iw = 1, .oc = 64, .kh = 3, .kw = 3, .ph = 1, .pw = 1 },
    { .name = "3x3 mean 300", .n = 1, .ic = 16, .ih = 6, .iw = 6, .oc = 16, .kh = 3, .kw = 3, .ph = 1, .pw = 1, .mean = 300 },
    { .name = "3x3 56 wide", .n = 1, .ic = 16, .ih = 3, .iw = 56, .oc = 64, .kh = 3, .kw = 3, .ph = 1, .pw = 1 },
    { .name = "3x3 32 wide", .n = 1, .ic = 16, .ih = 32, .iw = 32, .oc = 16, .kh = 3, .kw = 3, .ph = 1, .pw = 1 },
    { .name = "3x3 s2 even", .n = 2, .ic = 16, .ih = 14, .iw = 14, .oc = 32, .kh = 3, .kw = 3, .sh = 2, .sw = 2, .ph = 1, .pw = 1 },
    { .name = "3x3 s2 odd", .n = 1, .ic = 5, .ih = 5, .iw = 7, .oc = 17, .kh = 3, .kw = 3, .sh = 2, .sw = 2, .ph = 1, .pw = 1,
      .halo = 1, .is_tiny = true },
    { .name = "3x3 s3", .n = 1, .ic = 16, .ih = 10, .iw = 11, .oc = 16, .kh = 3, .kw = 3, .sh = 3, .sw = 3, .ph = 1, .pw = 1 },
    { .name = "2x2 s4", .n = 1, .ic = 3, .ih = 9, .iw = 10, .oc = 5, .kh = 2, .kw = 2, .sh = 4, .sw = 4 },
    { .name = "3x1 s1x2", .n = 2, .ic = 17, .ih = 6, .iw = 9, .oc = 16, .kh = 3, .kw = 1, .sh = 1, .sw = 2, .ph = 1, .pw = 0 },
    { .name = "1x5 s2x1", .n = 1, .ic = 16, .ih = 7, .iw = 6, .oc = 32, .kh = 1, .kw = 5, .sh = 2, .sw = 1, .ph = 0, .pw = 2 },
    { .name = "5x5", .n = 1, .ic = 24, .ih = 8, .iw = 9, .oc = 17, .kh = 5, .kw = 5, .ph = 2, .pw = 2 },
    { .name = "5x5 s2 pad 3", .n = 1, .ic = 3, .ih = 6, .iw = 7, .oc = 5, .kh = 5, .kw = 5, .sh = 2, .sw = 2, .ph = 3, .pw = 3 },
    { .name = "7x7 s2", .n = 1, .ic = 16, .ih = 11, .iw = 13, .oc = 16, .kh = 7, .kw = 7, .sh = 2, .sw = 2, .ph = 3, .pw = 3 },
    { .name = "many images", .n = 37, .ic = 3, .ih = 2, .iw = 2, .oc = 40, .kh = 1, .kw = 1 },
    { .name = "many rows", .n = 9, .ic = 16, .ih = 40, .iw = 5, .oc = 16, .kh = 1, .kw = 1 },
    { .name = "128 channels", .n = 1, .ic = 64, .ih = 7, .iw = 7, .oc = 128, .kh = 3, .kw = 3, .ph = 1, .pw = 1 },
    { .name = "stem 7x7 s2", .n = 2, .ic = 3, .ih = 30, .iw = 28, .oc = 64, .kh = 7, .kw = 7, .sh = 2, .sw = 2, .ph = 3, .pw = 3,
      .is_plain = true },
    { .name = "stem 7x7 s2 odd", .n = 1, .ic = 3, .ih = 5, .iw = 7, .oc = 17, .kh = 7, .kw = 7, .sh = 2, .sw = 2, .ph = 3, .pw = 3,
      .is_plain = true, .halo = 1, .is_tiny = true },
    { .name = "stem 3x3", .n = 2, .ic = 3, .ih = 32, .iw = 32, .oc = 16, .kh = 3, .kw = 3, .ph = 1, .pw = 1, .is_plain = true },
    { .name = "stem 3x3 gray", .n = 1, .ic = 1, .ih = 4, .iw = 5, .oc = 5, .kh = 3, .kw = 3, .ph = 1, .pw = 1, .is_plain = true,
      .is_tiny = true },
    { .name = "stem 1x1", .n = 1, .ic = 4, .ih = 6, .iw = 6, .oc = 24, .kh = 1, .kw = 1, .is_plain = true },
};

// The convolutions of ResNet-50 at 224 x 224 and how many of each there are.
struct conv2d_layer {
    int ic, oc, size, kernel, stride, count;
};

static const struct conv2d_layer conv2d_resnet50[] = {
    { 3, 64, 224, 7, 2, 1 },    { 64, 64, 56, 1, 1, 1 },    { 64, 64, 56, 3, 1, 3 },     { 64, 256, 56, 1, 1, 4 },
    { 256, 64, 56, 1, 1, 2 },   { 256, 128, 56, 1, 1, 1 },  { 128, 128, 56, 3, 2, 1 },   { 128, 512, 28, 1, 1, 4 },
    { 256, 512, 56, 1, 2, 1 },  { 512, 128, 28, 1, 1, 3 },  { 128, 128, 28, 3, 1, 3 },   { 512, 256, 28, 1, 1, 1 },
    { 256, 256, 28, 3, 2, 1 },  { 256, 1024, 14, 1, 1, 6 }, { 512, 1024, 28, 1, 2, 1 },  { 1024, 256, 14, 1, 1, 5 },
    { 256, 256, 14, 3, 1, 5 },  { 1024, 512, 14, 1, 1, 1 }, { 512, 512, 14, 3, 2, 1 },   { 512, 2048, 7, 1, 1, 3 },
    { 1024, 2048, 14, 1, 2, 1 }, { 2048, 512, 7, 1, 1, 2 }, { 512, 512, 7, 3, 1, 2 },
};

#endif

// Kernel text that was compiled into the library by embed.py.
#ifndef EQ_CL_EMBEDDED_H
#define EQ_CL_EMBEDDED_H

// `name` is "X" for cl/X.cl, and "common.clh" for the text that stands before every kernel file, "matrix.clh" for the tiles
// that follow it where a program uses them. `text` begins with a #line
// directive, so that messages of a driver's compiler name the real file. Not in any order.
struct eq_embedded {
    const char *name;
    const char *text;
};
extern const struct eq_embedded eq_embedded_sources[];
extern const int eq_num_embedded_sources;

#endif

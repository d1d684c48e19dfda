// Kernel text that was compiled into the library by embed.py.
#ifndef EQ_CL_EMBEDDED_H
#define EQ_CL_EMBEDDED_H

// `name` is "X" for cl/X.cl, whose parts after each other are its program's text: common.clh, and the file with its headers in
// the places of their #include. Each begins with a #line directive, so that messages of a driver's compiler name the real file.
// Other files have their name, and one part. Not in any order.
struct eq_embedded {
    const char *name;
    int num_parts;
    const char *const *parts;
};
extern const struct eq_embedded eq_embedded_sources[];
extern const int eq_num_embedded_sources;

#endif

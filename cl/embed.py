#!/usr/bin/env python3
"""Writes a C file with the text of OpenCL files: embed.py OUT.c cl/common.clh cl/X.cl ...

The text goes out as arrays of numbers: string literals have a length limit in some compilers. Each text begins with a #line
directive, so that messages of a driver's compiler name the real file. The table is declared in embedded.h.
"""
import os
import sys


def kernel_name(path):
    base = os.path.basename(path)
    return base[:-3] if base.endswith(".cl") else base


def main():
    out_path, paths = sys.argv[1], sys.argv[2:]
    lines = ['#include "embedded.h"', ""]
    table = []
    for i, path in enumerate(paths):
        with open(path, encoding="ascii", newline="\n") as file:
            text = file.read()
        data = ('#line 1 "cl/%s"\n%s\n' % (os.path.basename(path), text)).encode("ascii") + b"\0"
        lines.append("static const char text_%d[] = {" % i)
        for at in range(0, len(data), 24):
            lines.append("    " + ", ".join(str(byte) for byte in data[at:at + 24]) + ",")
        lines += ["};", ""]
        table.append('    { "%s", text_%d },' % (kernel_name(path), i))
    lines += ["const struct eq_embedded eq_embedded_sources[] = {"] + table + ["};"]
    lines.append("const int eq_num_embedded_sources = %d;" % len(paths))
    with open(out_path, "w", encoding="ascii") as out:
        out.write("\n".join(lines) + "\n")


main()

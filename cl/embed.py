#!/usr/bin/env python3
"""Writes a C file with the text of OpenCL files: embed.py OUT.c cl/common.clh cl/X.clh ... cl/X.cl ...

A file's text is in parts, for clCreateProgramWithSource: common.clh, then its own, with those of each header in the place of its
#include. Each begins with a #line directive, so that messages of a driver's compiler name the real file and line. Parts go out
once, as arrays of numbers: string literals have a length limit in some compilers. The table is declared in embedded.h.
"""
import os
import re
import sys


def parts_of(name, files):
    if name not in files:
        sys.exit("embed.py: there is no cl/%s among the files" % name)
    pieces = re.split(r'^#include "(.*)"\n', files[name], flags=re.M)  # text, header, text, ..., header, text
    parts, line = [], 1
    for i, piece in enumerate(pieces):
        if i % 2:
            parts += parts_of(piece, files)
            line += 1
        elif re.search(r"^\s*#\s*include", piece, flags=re.M):
            sys.exit('embed.py: cl/%s has an #include that is not a line #include "X.clh"' % name)
        else:
            parts.append('#line %d "cl/%s"\n%s\n' % (line, name, piece))
            line += piece.count("\n")
    return parts


def main():
    out_path, paths = sys.argv[1], sys.argv[2:]
    files = {}
    for path in paths:
        with open(path, encoding="ascii", newline="\n") as file:
            files[os.path.basename(path)] = file.read()
    numbers, table = {}, []
    for name in files:
        stem, ending = os.path.splitext(name)
        if ending == ".clh":
            continue
        parts = (parts_of("common.clh", files) if ending == ".cl" else []) + parts_of(name, files)
        texts = ["text_%d" % numbers.setdefault(part, len(numbers)) for part in parts]
        table.append('    { "%s", %d, (const char *const[]){ %s } },' % (stem if ending == ".cl" else name, len(parts), ", ".join(texts)))
    lines = ['#include "embedded.h"', ""]
    for part, number in numbers.items():
        data = part.encode("ascii") + b"\0"
        lines.append("static const char text_%d[] = {" % number)
        for at in range(0, len(data), 24):
            lines.append("    " + ", ".join(str(byte) for byte in data[at:at + 24]) + ",")
        lines += ["};", ""]
    lines += ["const struct eq_embedded eq_embedded_sources[] = {"] + table + ["};"]
    lines.append("const int eq_num_embedded_sources = %d;" % len(table))
    with open(out_path, "w", encoding="ascii") as out:
        out.write("\n".join(lines) + "\n")


main()

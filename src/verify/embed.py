#!/usr/bin/env python3
"""Writes a C file with safetensors files, less the tensors that nobody reads there: embed.py OUT.c NAME=FILE[=PREFIX] ...

NAME: the file becomes eq_golden_NAME and eq_golden_NAME_bytes, as in golden.h. Tensors whose names begin with PREFIX are left out.
"""
import json
import struct
import sys


def strip(data, prefix):
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8:8 + length]), data[8 + length:]
    kept, out = {}, b""
    for name, entry in header.items():
        if name == "__metadata__" or (prefix and name.startswith(prefix)):
            continue
        first, end = entry["data_offsets"]
        kept[name] = dict(entry, data_offsets=[len(out), len(out) + end - first])
        out += body[first:end]
    text = json.dumps(kept, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + out


def main():
    lines = ['#include "verify/golden.h"', ""]
    for argument in sys.argv[2:]:
        name, path, prefix = (argument.split("=") + [""])[:3]
        with open(path, "rb") as file:
            data = strip(file.read(), prefix)
        lines.append("const unsigned char eq_golden_%s[] = {" % name)
        for at in range(0, len(data), 32):
            lines.append("    " + ", ".join(str(byte) for byte in data[at:at + 32]) + ",")
        lines += ["};", "const size_t eq_golden_%s_bytes = sizeof eq_golden_%s;" % (name, name), ""]
    with open(sys.argv[1], "w", encoding="ascii") as out:
        out.write("\n".join(lines))


main()

#!/usr/bin/env python3
"""Writes a small labelled image folder: make_images.py FOLDER IMAGES_PER_CLASS [SIZE]. Three classes that colour and stripes tell apart."""
import os
import random
import struct
import sys
import zlib


def png(width, height, rows):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    raw = b"".join(b"\0" + row for row in rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def main():
    folder, num, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 32
    random.seed(1)
    for label, name in enumerate(["blue", "green", "red"]):
        os.makedirs(os.path.join(folder, name))
        for index in range(num):
            rows = []
            for y in range(size):
                row = bytearray()
                for x in range(size):
                    pixel = [random.randrange(120) for _ in range(3)]
                    pixel[2 - label] = min(255, pixel[2 - label] + (90 if (x, y, x + y)[label] % 8 < 4 else 30))
                    row += bytes(pixel)
                rows.append(bytes(row))
            with open(os.path.join(folder, name, "%03d.png" % index), "wb") as file:
                file.write(png(size, size, rows))


main()

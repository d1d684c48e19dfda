#!/usr/bin/env python3
"""Writes io_images/ and io_images.safetensors beside this file (see README.io_images.md). Needs Pillow."""
import json
import os
import struct
import zlib

from PIL import Image, ImageOps

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.join(HERE, "io_images")
W, H = 21, 13  # odd, so that rows of 1, 2 and 4 bits end inside a byte, and not square, so that a turn shows


def sample(x, y, c, top):
    """A picture with slopes, an edge and a bright corner; 0 .. top."""
    value = (x * (5, 2, 9)[c % 3] + y * (3, 11, 1)[c % 3] + (40 if x > y else 0) * (c + 1)) % 128 / 127.0
    return round(top * (1.0 if x < 4 and y < 3 else value))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pack_row(values, depth):
    if depth == 16:
        return b"".join(struct.pack(">H", v) for v in values)
    out, bits, held = bytearray(), 0, 0
    for v in values:
        held, bits = held << depth | v, bits + depth
        if bits == 8:
            out.append(held)
            held, bits = 0, 0
    if bits:
        out.append(held << (8 - bits))
    return bytes(out)


def png(name, depth, colour, interlaced=False, extra=b""):
    """A PNG with every sample by sample(); returns the samples [H][W][channels]."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    top = 2 ** depth - 1
    rows = [[[sample(x, y, c, top) for c in range(channels)] for x in range(W)] for y in range(H)]
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    data = b""
    for x0, y0, dx, dy in passes:
        for y in range(y0, H, dy):
            values = [v for x in range(x0, W, dx) for v in rows[y][x]]
            if values:
                data += b"\0" + pack_row(values, depth)
    header = struct.pack(">IIBBBBB", W, H, depth, colour, 0, 0, int(interlaced))
    with open(os.path.join(FOLDER, name), "wb") as file:
        body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")
        file.write(b"\x89PNG\r\n\x1a\n" + body)
    return rows


def palette(num):
    return chunk(b"PLTE", bytes((i * k) % 256 for i in range(num) for k in (37, 91, 151)))


def save_all():
    os.makedirs(FOLDER, exist_ok=True)
    rgb = Image.new("RGB", (W, H))
    rgb.putdata([tuple(sample(x, y, c, 255) for c in range(3)) for y in range(H) for x in range(W)])
    path = lambda name: os.path.join(FOLDER, name)
    rgb.save(path("rgb_420.jpg"), quality=80)
    rgb.save(path("rgb_444.jpg"), quality=80, subsampling=0)
    rgb.save(path("rgb_422.jpg"), quality=80, subsampling=1)
    rgb.save(path("progressive.jpg"), quality=80, progressive=True)
    rgb.convert("L").save(path("grey.jpg"), quality=80)
    rgb.convert("CMYK").save(path("cmyk.jpg"), quality=80)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        rgb.save(path("exif%d.jpg" % orientation), quality=60, exif=exif)
    rgb.save(path("exif6.png"), exif=exif_of(6))
    for depth in (1, 2, 4, 8):
        png("grey_%d.png" % depth, depth, 0)
        png("palette_%d.png" % depth, depth, 3, extra=palette(2 ** depth))
    png("rgb_8.png", 8, 2)
    png("rgb_16.png", 16, 2)
    png("grey_alpha_8.png", 8, 4)
    png("rgb_alpha_8.png", 8, 6)
    png("rgb_alpha_16.png", 16, 6)
    png("rgb_8_interlaced.png", 8, 2, interlaced=True)
    png("grey_2_interlaced.png", 2, 0, interlaced=True)
    png("rgb_16_interlaced.png", 16, 2, interlaced=True)
    png("rgb_8_trns.png", 8, 2, extra=chunk(b"tRNS", struct.pack(">HHH", 0, 0, 0)))
    png("palette_4_trns.png", 4, 3, extra=palette(16) + chunk(b"tRNS", bytes(range(16))))
    names = ("grey_16.png", False), ("grey_16_interlaced.png", True)
    return {name: png(name, 16, 0, interlaced) for name, interlaced in names}


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def pixels(name, grey_16):
    """Shape and bytes of the upright RGB image; of 16-bit grey, where versions of Pillow differ, the upper byte."""
    if name in grey_16:
        return [H, W, 3], bytes(v[0] >> 8 for row in grey_16[name] for v in row for _ in range(3))
    with Image.open(os.path.join(FOLDER, name)) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    return [upright.height, upright.width, 3], upright.tobytes()


def main():
    grey_16 = save_all()
    header, data = {}, b""
    for name in sorted(os.listdir(FOLDER)):
        shape, raw = pixels(name, grey_16)
        header[name] = {"dtype": "U8", "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(HERE, "io_images.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


main()

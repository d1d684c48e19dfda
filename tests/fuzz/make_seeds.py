#!/usr/bin/env python3
"""Makes tests/fuzz/seeds anew: make_seeds.py EQUIL_PROGRAM. Small files of every kind that the targets read; what was found and mended is added by
hand, as found-*, and stays."""
import json
import os
import struct
import subprocess
import sys
import tempfile
import zlib

SEEDS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "seeds")


def write(target, name, data):
    folder = os.path.join(SEEDS, target)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode())


def safetensors(header, data=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def make_safetensors():
    f32 = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    write("safetensors", "two", safetensors({"__metadata__": {"format": "pt", "k": "\u00e9"}, "a": f32, "b": {
        "dtype": "I64", "shape": [], "data_offsets": [16, 24]}}, struct.pack("<4fq", 1, 2, 3, 4, 5)))
    write("safetensors", "half", safetensors({"h": {"dtype": "F16", "shape": [3], "data_offsets": [0, 6]}}, b"\x00\x3c\x01\x00\x00\x7c"))
    write("safetensors", "bfloat", safetensors({"b": {"dtype": "BF16", "shape": [1, 0, 2], "data_offsets": [0, 0]}}))
    write("safetensors", "bool", safetensors({"t": {"dtype": "BOOL", "shape": [2], "data_offsets": [0, 2]}}, b"\x00\x01"))
    write("safetensors", "empty", safetensors({}))
    write("safetensors", "gap", safetensors({"a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}, b"ab"))
    write("safetensors", "huge", safetensors({"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 16]}}, bytes(16)))
    write("safetensors", "deep", struct.pack("<Q", 4000) + b"[" * 4000)


def png(width, height, depth, colour, rows, interlace=0):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    palette = chunk(b"PLTE", bytes(range(12))) if colour == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + palette + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def make_images():
    write("image", "grey.png", png(3, 2, 8, 0, b"\0abc\0def"))
    write("image", "rgb16.png", png(1, 1, 16, 2, b"\0" + bytes(6)))
    write("image", "palette.png", png(4, 1, 2, 3, b"\0\x1b"))
    write("image", "large.png", png(60000, 60000, 8, 2, b"\0"))
    golden = os.path.join(os.path.dirname(SEEDS), "..", "golden", "io_images")
    for name in "exif6.jpg", "cmyk.jpg":
        with open(os.path.join(golden, name), "rb") as file:
            write("image", name, file.read())
    exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    write("image", "exif", exif)


def make_datasets():
    write("dataset", "folder", b"f" + b"ax.png=\x89PNG\nby.jpg=\nclist.txt=no\na.hidden=\n")
    write("dataset", "cifar", b"c" + (bytes([3]) + bytes(3072)) * 2)
    labels = struct.pack(">II", 0x801, 2) + b"\x01\x00"
    images = struct.pack(">IIII", 0x803, 2, 2, 2) + bytes(8)
    write("dataset", "idx", b"i" + bytes([len(labels)]) + labels + images)
    write("dataset", "idx-many", b"i" + bytes([10]) + struct.pack(">II", 0x801, 0x7fffffff) + b"\x01\x00" + struct.pack(
        ">IIII", 0x803, 0x7fffffff, 0x7fffffff, 2))


def make_checkpoints(program, folder):
    out = os.path.join(folder, "run")
    subprocess.run([program, "train", "--arch", "ce-resnet20", "--data", "shapes", "--size", "16", "--batch", "250", "--epochs", "1", "--out", out,
                    "--seed", "1"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for name in "checkpoint", "model":
        with open(os.path.join(out, name + ".safetensors"), "rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            write("checkpoint", name, json.dumps(json.loads(file.read(length))["__metadata__"]))


def make_json(program, folder):
    path = os.path.join(folder, "bench.json")
    subprocess.run([program, "bench", "--arch", "resnet20", "--batch", "1", "--seconds", "0.05", "--json", path], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    with open(path) as file:
        document = json.load(file)
    document["results"][0]["steps"] = document["results"][0]["steps"][:2]
    write("json", "bench", json.dumps(document))
    shapes = os.path.join(os.path.dirname(SEEDS), "..", "..", "bench", "shapes")
    for name in sorted(os.listdir(shapes)):
        with open(os.path.join(shapes, name)) as file:
            lines = [line for line in file.read().splitlines() if line and not line.startswith("#")]
        write("json", "shape-" + name.replace(".txt", ""), lines[0])


def fnv1a(data):
    value = 0xcbf29ce484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001b3 % (1 << 64)
    return value


def make_rest():
    write("tuning", "file", "equil-tuning 1\ndevice: device\ndriver: 1\n# a comment\nconv2d ic=64 k=3x3 = 7 1 4  # why\n[kind cpu]\nconv2d ic=64 k=3x3 = "
          "1 2 3\n[vendor ven]\na b = -1\n[any]\nb = 2147483647\n")
    write("tuning", "entry", b"EQKC" + struct.pack("<IQ", 1, 3) + b"key" + struct.pack("<QQ", 2, fnv1a(b"ab")) + b"ab")
    write("arguments", "all", "--fast\n--epochs\n12\n--seed=-9223372036854775808\n--rate=1e-3\n--data\nx\n--schedule=step\n--\n-a\nb")
    write("arguments", "wrong", "--epochs=101\n--rate\nnan")
    write("arguments", "help", "--help")


def main():
    program = os.path.abspath(sys.argv[1])
    make_safetensors()
    make_images()
    make_datasets()
    make_rest()
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoints(program, folder)
        make_json(program, folder)


main()

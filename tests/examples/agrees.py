#!/usr/bin/env python3
"""Do the examples that classify give what `equil run` gives for the same images? agrees.py WEIGHTS drawn|black PROGRAM ARGUMENT...

Runs the program, whose lines "class K, logit X" are for the images in their order: the four that classify.c draws, or a black one."""
import array
import json
import os
import re
import struct
import subprocess
import sys
import tempfile

CLASSES, SIZE, NUM_DRAWN = 3, 32, 4
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Bytes become floats on the device in one and here in the other, and the devices may be two.
TOLERANCE = 2e-3


def drawn(image, channel, y, x):
    """A value of classify.c's kernel, as networks want it."""
    dx, dy = 2 * x - SIZE, 2 * y - SIZE
    is_inside = dx * dx + dy * dy < SIZE * SIZE // 3
    value = ((200, 60, 20 * image) if is_inside else (30 * image, 90, 160))[channel]
    return (value / 255 - MEAN[channel]) / DEVIATION[channel]


def write_images(path, kind):
    num = NUM_DRAWN if kind == "drawn" else 1
    values = array.array("f", (drawn(n, c, y, x) if kind == "drawn" else 0.0
                               for n in range(num) for c in range(3) for y in range(SIZE) for x in range(SIZE)))
    header = json.dumps({"input": {"dtype": "F32", "shape": [num, 3, SIZE, SIZE], "data_offsets": [0, 4 * len(values)]}}).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + values.tobytes())
    return num


def read_logits(path):
    with open(path, "rb") as file:
        data = file.read()
    length, = struct.unpack_from("<Q", data)
    begin, end = json.loads(data[8:8 + length])["logits"]["data_offsets"]
    return array.array("f", data[8 + length + begin:8 + length + end])


def main():
    weights, kind, program = sys.argv[1], sys.argv[2], sys.argv[3:]
    with tempfile.TemporaryDirectory() as folder:
        images, output = os.path.join(folder, "images"), os.path.join(folder, "logits")
        num = write_images(images, kind)
        subprocess.run(["equil", "run", "--arch", "ce-resnet20", "--classes", str(CLASSES), "--weights", weights, "--input", images,
                        "--output", output], check=True)
        want = read_logits(output)
    said = subprocess.run(program, check=True, capture_output=True, text=True).stdout
    print(said)
    found = re.findall(r"class (\d+), logit (-?[0-9.]+)$", said, re.M)
    print("equil run:", list(want))
    is_right = len(found) == num
    for image, (label, logit) in enumerate(found[:num]):
        row = want[image * CLASSES:(image + 1) * CLASSES]
        near = TOLERANCE * max(map(abs, row))
        is_right &= int(label) < CLASSES and abs(row[int(label)] - float(logit)) <= near and row[int(label)] >= max(row) - near
    return 0 if is_right else 1


sys.exit(main())

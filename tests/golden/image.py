#!/usr/bin/env python3
"""Writes image.safetensors: pictures, what is to be done with them, and what Pillow makes of it. See README.image.md."""
import json, os, struct, sys
import numpy as np
from PIL import Image

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'image.safetensors')
SAMPLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', '..', 'shared', 'data', 'imagenet-samples')
# name: height, width, box y, x, h, w, resized h, w, crop y, x, flipped, size
CASES = {
    'centre': (37, 50, 0, 0, 37, 50, 24, 32, 2, 6, 0, 20),
    'enlarged': (13, 9, 0, 0, 13, 9, 16, 16, 0, 0, 0, 16),
    'box_flipped': (41, 40, 3, 5, 30, 21, 12, 12, 0, 0, 1, 12),
    'border': (16, 16, 0, 0, 16, 16, 16, 16, -3, 2, 1, 16),
    'one_pixel': (1, 1, 0, 0, 1, 1, 5, 5, 0, 0, 0, 5),
    'thin': (3, 90, 0, 0, 3, 90, 8, 240, 0, 116, 0, 8),
    'much_smaller': (120, 90, 0, 0, 120, 90, 10, 8, 1, 0, 0, 8),
}


def picture(h, w, seed):
    """Noise over a gradient, with white and black patches."""
    r = np.random.default_rng(seed)
    y, x = np.mgrid[0:h, 0:w]
    p = np.stack([255 * y / max(h - 1, 1), 255 * x / max(w - 1, 1), 128 + 0 * y], -1) + r.normal(0, 40, (h, w, 3))
    p[: h // 4, : w // 4] = 255
    p[h // 2: h // 2 + 3, w // 2: w // 2 + 3] = 0
    return np.clip(p, 0, 255).astype(np.uint8)


def result(p, job):
    _, _, by, bx, bh, bw, rh, rw, cy, cx, flipped, size = job
    image = Image.fromarray(p).crop((bx, by, bx + bw, by + bh)).resize((rw, rh), Image.BILINEAR, reducing_gap=None)
    image = image.crop((cx, cy, cx + size, cy + size))                   # black outside
    return np.asarray(image.transpose(Image.FLIP_LEFT_RIGHT) if flipped else image)


def sample_job(w, h, size):
    """Resize(256), CenterCrop(size)."""
    rh, rw = (256, 256 * w // h) if h <= w else (256 * h // w, 256)
    return h, w, 0, 0, h, w, rh, rw, round((rh - size) / 2), round((rw - size) / 2), 0, size


def main():
    tensors = {}
    for seed, (name, job) in enumerate(CASES.items()):
        p = picture(job[0], job[1], seed)
        tensors[name + '.job'], tensors[name + '.picture'], tensors[name + '.result'] = np.array(job, '<i8'), p, result(p, job)
    for name in sorted(os.listdir(SAMPLES))[::4]:
        p = np.asarray(Image.open(os.path.join(SAMPLES, name)).convert('RGB'))
        job = sample_job(p.shape[1], p.shape[0], 32)
        tensors['sample.' + name + '.job'], tensors['sample.' + name + '.result'] = np.array(job, '<i8'), result(p, job)
    tensors = dict(sorted(tensors.items(), key=lambda t: -t[1].itemsize))
    head, at = {}, 0
    for k, a in tensors.items():
        head[k] = {'dtype': {8: 'I64', 1: 'U8'}[a.itemsize], 'shape': list(a.shape), 'data_offsets': [at, at + a.nbytes]}
        at += a.nbytes
    text = json.dumps(head).encode()
    text += b' ' * (-len(text) % 8)
    with open(OUT, 'wb') as f:
        f.write(struct.pack('<Q', len(text)) + text + b''.join(np.ascontiguousarray(a).tobytes() for a in tensors.values()))


if __name__ == '__main__':
    sys.exit(main())

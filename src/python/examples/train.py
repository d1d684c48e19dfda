"""A small network of one's own with Channel Equilibrium, trained on drawn stripes, saved, and loaded again. Takes seconds on a CPU.

    python3 train.py [FILE.safetensors]
"""
import sys

import equil
import numpy as np

BATCH, SIZE, CLASSES = 32, 16, 3


def draw(random: np.random.Generator) -> "tuple[np.ndarray, np.ndarray]":
    """Stripes along x, y or the diagonal, in noise: images [BATCH, 3, SIZE, SIZE] and their classes."""
    y, x = np.mgrid[:SIZE, :SIZE]
    labels = random.integers(0, CLASSES, BATCH).astype(np.int32)
    ways = np.stack([x, y, x + y])[labels] + random.integers(0, 8, (BATCH, 1, 1))
    stripes = np.where(ways // 2 % 2 == 0, 1.0, -1.0)[:, None]
    return (stripes + random.normal(0, 3, (BATCH, 3, SIZE, SIZE))).astype(np.float32), labels


def build() -> "tuple[equil.Graph, equil.Value]":
    graph = equil.Graph()
    x = graph.input("images", BATCH, 3, SIZE, SIZE)
    labels = graph.labels("labels", BATCH)
    for layer, channels in enumerate([16, 32]):
        x = graph.conv2d(x, f"conv{layer}", channels, kernel=3, pad=1)
        x = graph.batch_norm(x, f"bn{layer}")
        x = graph.channel_equilibrium(x, f"ce{layer}")
        x = graph.activation(x, "relu")
        x = graph.max_pool(x, 2)
    logits = graph.linear(graph.mean_pool(x), "fc", CLASSES)
    loss = graph.cross_entropy(logits, labels)
    graph.output(logits, "logits")
    graph.output(loss, "loss")
    return graph, loss


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else "stripes.safetensors"
    random = np.random.default_rng(1)
    with equil.Device() as device:
        graph, loss = build()
        weights = equil.Weights(device, graph)
        weights.initialise(seed=1)
        training = equil.Session(weights, graph, training=True, differentiate=loss)
        for step in range(60):
            training["images"], training["labels"] = draw(random)
            training.run()
            training.update(rate=0.05, momentum=0.9, weight_decay=1e-4)
            if step % 20 == 19:
                print("step %d: loss %.4f" % (step + 1, training["loss"].mean()))
        weights.save(path, metadata={"made by": "train.py"})

        loaded = equil.Weights(device, graph)
        loaded.load(path)
        evaluation = equil.Session(loaded, graph)
        evaluation["images"], labels = draw(random)
        evaluation.run()
        right = evaluation["logits"].argmax(axis=1) == labels
        print("top-1 of new images: %.1f %%" % (100 * right.mean()))


main()

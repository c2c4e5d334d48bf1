"""Clothes that move: which way, and how fast? One picture alone does not tell.

Volumes (1, 8, 32, 32) of 8 pictures of Fashion-MNIST's clothes, at half their size, that move by
one or by two pixels a picture in one of four directions, and come back on the other side. So there
are eight classes; the clothes of the test are in no volume of the training.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

import agnostic_xent as ax
from agnostic_xent.datasets import load_fashion_mnist

from .measure import described, machine, table, write

FRAMES, SIDE, SMALL = 8, 32, 14
WAYS = np.asarray([(0, 1), (0, -1), (1, 0), (-1, 0)])
TRAINING, TEST = 4000, 1000
EPOCHS, SEEDS = 8, (0, 1, 2)


def main(quick: bool, inner: str | None) -> None:
    """Measure all that the module promises, and write the results."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    result: dict[str, Any] = {"machine": machine(), "threads": threads}
    result["runs"] = [measured(2 if quick else EPOCHS, seed) for seed in SEEDS[: 1 if quick else 3]]
    write("moving_quick" if quick else "moving", result, report(result))


def volumes(
    images: NDArray[np.float32], count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return volumes of some images that move, and the way and speed of each."""
    y = rng.integers(2 * len(WAYS), size=count)
    small = images.reshape(-1, SMALL, 2, SMALL, 2).mean(axis=(2, 4))  # (N, SMALL, SMALL)
    x = np.zeros((count, 1, FRAMES, SIDE, SIDE), np.float32)
    x[..., :SMALL, :SMALL] = small[rng.integers(len(small), size=count)][:, None, None]
    starts, steps = rng.integers(SIDE, size=(count, 2)), WAYS[y // 2] * (1 + y % 2)[:, None]
    for volume, start, step in zip(x[:, 0], starts, steps, strict=True):
        for t in range(FRAMES):
            volume[t] = np.roll(volume[t], tuple(start + t * step), axis=(0, 1))
    return x, y


def measured(epochs: int, seed: int) -> dict[str, float]:
    """Return the accuracy on the test volumes, and the seconds of the training."""
    data, rng = load_fashion_mnist(), np.random.default_rng(seed)
    x, y = volumes(data.train_x, TRAINING, rng)
    test_x, test_y = volumes(data.test_x, TEST, rng)
    start = time.perf_counter()
    model = ax.CNNClassifier(epochs=epochs, random_state=seed).fit(x, y)
    seconds = time.perf_counter() - start
    return {"accuracy": model.score(test_x, test_y), "seconds": seconds}


def report(result: dict[str, Any]) -> str:
    """Return the results as a page."""
    rows = [[f"{run['accuracy']:.3f}", f"{run['seconds']:.1f}"] for run in result["runs"]]
    return f"""# Clothes that move

Written by `python -m benchmarks moving`: `CNNClassifier` with its default model of volumes,
`video_cnn`, on {TRAINING:,} volumes of 8 x 32 x 32, tested on {TEST:,} of other clothes; a line for
each of the seeds. The seconds are those of the training, on {result["threads"]} core(s).

{described(result["machine"])}

{table(["accuracy", "seconds"], rows)}"""

"""A CNN on the whole of Fashion-MNIST with augmentation: test accuracy and time.

Eight convolutions of 3x3 with batch normalization; 36 epochs of batches of 128 images, mirrored
and shifted by up to two pixels; SGD with Nesterov momentum 0.9 and weight decay 5e-4, a learning
rate that grows to 0.1 in the first epoch and falls to 0 along half a cosine. The test images are
looked at once. Torch is timed for 100 steps of the same kind in each layout; its threads that wait
sleep. Each has a process for itself, whose glibc keeps freed memory; float32 on the CPU.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import agnostic_xent as ax
from agnostic_xent.datasets import load_fashion_mnist

from .measure import TUNED, described, in_subprocess, machine, table, write
from .nets import in_torch

BATCH, EPOCHS, RATE, MOMENTUM, DECAY = 128, 36, 0.1, 0.9, 5e-4
FILTERS = ((32, 32, 32), (64, 64, 64), (96, 96))
"""Of the convolutions before, between and behind two max-pools."""
PIXELS = 2
"""By which images are shifted at most."""
SHAPE = (1, 28, 28)
STEPS = 60_000 // BATCH + 1
TIMED = 100
"""Of torch's steps."""
LAYOUTS = ("contiguous_format", "channels_last")
ALONE = "BENCHMARK_ALONE"
"""Environment variable: what has the process to itself, ours or a layout of torch."""


def main(quick: bool, inner: str | None, seed: int = 0) -> None:
    """Measure all that the module promises, and write the results."""
    if inner:
        Path(inner).write_text(json.dumps(alone(os.environ[ALONE], quick, seed)))
        return
    result: dict[str, Any] = {"machine": machine(), "seed": seed}
    for who in ("ours", *LAYOUTS):
        result[who] = in_subprocess("fashion_augmented", quick, TUNED | {ALONE: who}, seed=seed)
    write("fashion_augmented_quick" if quick else "fashion_augmented", result, report(result))


def network() -> ax.Sequential:
    """Return the network, without augmentation."""
    layers: list[Any] = []
    for filters in FILTERS:
        layers += [ax.MaxPool2d(2)] if layers else []
        for count in filters:
            layers += [ax.Conv2d(count, 3, padding=1, bias=False), ax.BatchNorm2d(), ax.ReLU()]
    return ax.Sequential(*layers, ax.GlobalAvgPool2d(), ax.Dense(10))


def alone(who: str, quick: bool, seed: int) -> Any:
    """Return what one side finds."""
    if who == "ours":
        return ours(seed, 1 if quick else EPOCHS)
    return {"seconds": torch_epoch(seed, who, 10 if quick else TIMED)}


def ours(seed: int, epochs: int) -> dict[str, Any]:
    """Train ours; the test images are looked at once, after the last epoch."""
    data = load_fashion_mnist("full")
    model = ax.Sequential(ax.RandomFlip(), ax.RandomShift(PIXELS), network())
    params, _ = model.init(seed, SHAPE)
    rate = ax.warmup(ax.cosine(RATE, steps=epochs * STEPS), steps=STEPS)
    began = time.perf_counter()
    params, history = ax.fit(
        model, params, (data.train_x, data.train_y), loss=ax.cross_entropy,
        optimizer=ax.SGD(rate, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY),
        epochs=epochs, batch_size=BATCH, rng=seed,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    predicted = ax.predict(model, params, data.test_x)
    return {
        "parameters": sum(w.size for w in model.init(seed, SHAPE)[0].values()),
        "seconds": seconds,
        "epochs": [epoch.seconds for epoch in history],
        "losses": [epoch.loss for epoch in history],
        "accuracy": float(np.mean(np.argmax(predicted, axis=1) == data.test_y)),
    }


def torch_epoch(seed: int, layout: str, steps: int) -> float:
    """Return the seconds that an epoch of torch takes, judged by some of its steps."""
    import torch
    from torch import nn

    data, form = load_fashion_mnist("full"), getattr(torch, layout)
    net = in_torch(network(), SHAPE).to(memory_format=form)
    optimizer = torch.optim.SGD(
        net.parameters(), lr=0.01, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY, fused=True
    )
    x, y = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y.astype(np.int64))
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(y)))

    def step(rows: Any) -> None:
        optimizer.zero_grad()
        logits = net(changed(x[rows]).contiguous(memory_format=form))
        nn.functional.cross_entropy(logits, y[rows]).backward()
        optimizer.step()

    batches = order.split(BATCH)
    times = [timed(partial(step, rows)) for rows in batches[: steps + 5]]
    return float(np.mean(times[5:])) * STEPS


def changed(images: Any) -> Any:
    """Return torch's images (N, 1, H, W), mirrored and shifted at random: one gather."""
    import torch

    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images[:, 0], (PIXELS,) * 4)
    down, right = torch.randint(2 * PIXELS + 1, (2, count, 1))
    columns = torch.arange(width).expand(count, width)
    columns = torch.where(torch.rand(count, 1) < 0.5, columns, width - 1 - columns) + right
    rows = torch.arange(height) + down
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None]][:, None]


def timed(call: Callable[[], None]) -> float:
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def report(result: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    own = result["ours"]
    text = "# A CNN on Fashion-MNIST with augmentation: 60,000 training and 10,000 test images\n\n"
    text += f"Written by `python -m benchmarks fashion_augmented --seed {result['seed']}`.\n"
    text += f"{str(__doc__).partition('.')[2].strip()} {own['parameters']:,} parameters.\n\n"
    text += f"{described(result['machine'])}\n\n"
    epoch = float(np.median(own["epochs"]))
    rows = [
        ["agnostic_xent", f"{epoch:.1f}", "1", f"{own['seconds'] / 60:.1f}",
         f"{own['accuracy']:.4f}"],
        *(
            [f"torch, {layout}", f"{result[layout]['seconds']:.1f}",
             f"{result[layout]['seconds'] / epoch:.2f}", "", ""]
            for layout in LAYOUTS
        ),
    ]  # fmt: skip
    columns = ["library", "seconds an epoch", "x ours", "minutes in all", "test accuracy"]
    return text + table(columns, rows)

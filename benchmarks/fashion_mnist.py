"""LeNet on the whole of Fashion-MNIST, five epochs, against torch: test accuracy and epoch time.

SGD with learning rate 0.05 and momentum 0.9, batches of 128 images. Both start from the same
parameters and see the images in the same order. The official files are read from where
``load_fashion_mnist("full")`` looks for them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import agnostic_xent as ax
from agnostic_xent.datasets import load_fashion_mnist

from .measure import TUNED, described, in_subprocess, machine, table, write

BATCH, EPOCHS, RATE, MOMENTUM = 128, 5, 0.05, 0.9
WHOS = ("agnostic_xent", "torch")
ALONE = "BENCHMARK_ALONE"
"""Environment variable: which of them has the process to itself, and from which seed."""

Curve = dict[str, list[float]]


def main(quick: bool, inner: str | None) -> None:
    """Measure all that the module promises, and write the results."""
    if inner:
        who, seed = os.environ[ALONE].split("/")
        run = ours if who == WHOS[0] else torchs
        Path(inner).write_text(json.dumps(run(int(seed), 1 if quick else EPOCHS)))
        return
    result: dict[str, Any] = {"machine": machine()}
    for who in WHOS:
        result[who] = [
            in_subprocess(
                "fashion_mnist", quick, TUNED | {ALONE: f"{who}/{seed}", "OMP_WAIT_POLICY": ""}
            )
            for seed in range(1 if quick else 2)
        ]
    write("fashion_mnist_quick" if quick else "fashion_mnist", result, report(result))


def start(seed: int) -> tuple[Any, ax.Sequential, dict[str, Any]]:
    """Return the data, the model and its parameters."""
    data, model = load_fashion_mnist("full"), ax.lenet(10)
    return data, model, model.init(seed, data.train_x.shape[1:])[0]


def ours(seed: int, epochs: int) -> Curve:
    """Train ours."""
    data, model, params = start(seed)
    curve: Curve = {"seconds": [], "accuracy": []}
    optimizer = ax.SGD(RATE, momentum=MOMENTUM)
    _, history = ax.fit(
        model, params, (data.train_x, data.train_y), loss=ax.cross_entropy, optimizer=optimizer,
        epochs=epochs, batch_size=BATCH, rng=seed, validation=(data.test_x, data.test_y),
    )  # fmt: skip
    for epoch in history:
        curve["seconds"].append(epoch.seconds)
        curve["accuracy"].append(float(epoch.validation_accuracy or 0))
    return curve


def torchs(seed: int, epochs: int) -> Curve:
    """Train torch's, in its faster layout."""
    import torch
    from torch import nn

    data, model, params = start(seed)
    sizes = {name: x.shape for name, x in params.items()}
    net = torch_lenet(model, sizes).to(memory_format=torch.channels_last)
    net.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in params.items()})
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM)
    x, y = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y.astype(np.int64))
    curve: Curve = {"seconds": [], "accuracy": []}
    for order in orders(seed, len(y), epochs):
        began = time.perf_counter()
        for rows in torch.from_numpy(order).split(BATCH):
            images = x[rows].contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), y[rows]).backward()
            optimizer.step()
        curve["seconds"].append(time.perf_counter() - began)
        with torch.no_grad():
            found = torch.cat(
                [net(part).argmax(1) for part in torch.from_numpy(data.test_x).split(500)]
            )
        curve["accuracy"].append(float(np.mean(found.numpy() == data.test_y)))
    return curve


def orders(seed: int, samples: int, epochs: int) -> Iterator[Any]:
    """Return the orders in which `fit` shows the samples."""
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        yield rng.permutation(samples)


def torch_lenet(model: ax.Sequential, shapes: dict[str, Any]) -> Any:
    """Return the same layers of torch."""
    from torch import nn

    made: list[Any] = []
    for i, layer in enumerate(model.layers):
        shape = shapes.get(f"{i}.weight")
        if isinstance(layer, ax.Conv2d):
            made.append(nn.Conv2d(shape[1], shape[0], shape[2:], padding="same"))
        elif isinstance(layer, ax.Dense):
            made.append(nn.Linear(shape[1], shape[0]))
        else:
            name = type(layer).__name__
            made.append(getattr(nn, name)(*([2] if name == "MaxPool2d" else [])))
    return nn.Sequential(*made)


def report(result: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    text = "# LeNet on Fashion-MNIST: 60,000 training and 10,000 test images\n\n"
    text += "Written by `python -m benchmarks fashion_mnist`. Batches of 128, SGD with learning\n"
    text += "rate 0.05 and momentum 0.9, float32 on the CPU, each alone in a process, torch in\n"
    text += "channels_last, glibc told to keep freed memory. Seconds: median epoch.\n\n"
    text += f"{described(result['machine'])}\n\n"
    rows = [
        [
            who, str(seed), f"{np.median(curve['seconds']):.1f}",
            ", ".join(f"{a:.4f}" for a in curve["accuracy"]),
        ]
        for who in WHOS
        for seed, curve in enumerate(result[who])
    ]  # fmt: skip
    return text + table(["library", "seed", "seconds", "test accuracy after each epoch"], rows)

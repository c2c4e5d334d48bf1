"""A training step on the CPU, against torch in the faster of its two layouts.

Loss, gradients and the update by SGD with momentum, of two networks on batches of 128 images,
float32. Each is measured in turns with torch in one process, where no thread waits busily, and
alone in a process of its own, which also tells how much memory it needs at most beyond its start.
"""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import agnostic_xent as ax
from agnostic_xent.core.operation import load_kernels
from agnostic_xent.training.steps import loss_and_grads

from .measure import TUNED, alternate, described, in_subprocess, machine, ratio, table, write

NETWORKS: dict[str, dict[str, Any]] = {  # a pool behind a convolution, or not
    "LeNet": {"filters": (32, 64), "pools": (False, True), "hidden": (128,)},
    "small": {"filters": (16, 32), "pools": (True, True), "hidden": ()},
}
BATCH, SIDE, CLASSES, RATE, MOMENTUM = 128, 28, 10, 0.05, 0.9
OURS, LAYOUTS = "agnostic_xent", ("torch NCHW", "torch channels_last")
ALONE = "BENCHMARK_ALONE"
"""Environment variable: which of them has the process to itself."""

MEMORY = {"tuned": TUNED, "as installed": {}}
Step = Callable[[], Any]


def main(quick: bool, inner: str | None) -> None:
    """Measure all that the module promises, and write the results."""
    if inner:
        alone = os.environ.get(ALONE)
        found = measure_alone(alone, quick) if alone else measure(quick)
        Path(inner).write_text(json.dumps(found))
        return
    result: dict[str, Any] = {"machine": machine()}
    for name, environment in MEMORY.items():
        result[name] = in_subprocess("train", quick, environment)
        for network, entry in result[name].items():
            entry["alone"] = {}
            for who in (OURS, *LAYOUTS):
                own = environment | {ALONE: f"{network}/{who}", "OMP_WAIT_POLICY": ""}
                entry["alone"][who] = in_subprocess("train", quick, own)
    write("train_quick" if quick else "train", result, report(result))


def measure(quick: bool) -> dict[str, Any]:
    """Return, by network, seconds a step and the ratio to the faster layout of torch."""
    found = {}
    for network in NETWORKS:
        functions = {who: step(network, who) for who in (OURS, *LAYOUTS)}
        times = alternate(functions, 2.0 if quick else 20.0, rounds=5 if quick else 15)
        medians = {key: float(np.median(t)) for key, t in times.items()}
        faster = min(LAYOUTS, key=medians.__getitem__)
        found[network] = {
            "seconds": medians, "faster": faster, "ratio": ratio(times, faster, OURS)
        }  # fmt: skip
    return found


def measure_alone(alone: str, quick: bool) -> dict[str, float]:
    """Return seconds a step, and the peak of memory beyond what importing took."""
    network, who = alone.split("/")
    if who == OURS:
        load_kernels("numpy")
    else:
        import torch  # noqa: F401
    start = peak()
    function = step(network, who)
    times = alternate({who: function}, 1.0 if quick else 6.0, rounds=5 if quick else 9)
    return {"seconds": float(np.median(times[who])), "bytes": peak() - start, "process": peak()}


def peak() -> int:
    """Return the most memory that this process has had, in bytes (Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def step(network: str, who: str) -> Step:
    """Return a training step."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCH, 1, SIDE, SIDE), dtype=np.float32)
    labels = rng.integers(0, CLASSES, BATCH)
    make = our_step if who == OURS else torch_step
    return make(NETWORKS[network], x, labels, who)


def our_step(shape: dict[str, Any], x: Any, labels: Any, who: str) -> Step:
    """Return our training step."""
    layers: list[Any] = []
    for filters, pool in zip(shape["filters"], shape["pools"], strict=True):
        layers += [ax.Conv2d(filters, 3, padding=1), ax.ReLU(), *[ax.MaxPool2d(2)] * pool]
    layers.append(ax.Flatten())
    for units in shape["hidden"]:
        layers += [ax.Dense(units), ax.ReLU()]
    model, optimizer = ax.Sequential(*layers, ax.Dense(CLASSES)), ax.SGD(RATE, momentum=MOMENTUM)
    params = model.init(0, x.shape[1:])[0]
    state = optimizer.init(params)

    def run() -> None:
        nonlocal params, state
        with ax.kernels("require"):
            grads = loss_and_grads(model, params, x, labels, ax.cross_entropy, None)[2]
            params, state = optimizer.update(params, grads, state)

    return run


def torch_step(shape: dict[str, Any], x: Any, labels: Any, who: str) -> Step:
    """Return torch's training step."""
    import torch
    from torch import nn

    form = torch.channels_last if "channels_last" in who else torch.contiguous_format
    layers: list[Any] = []
    channels, side = 1, SIDE
    for filters, pool in zip(shape["filters"], shape["pools"], strict=True):
        layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(), *[nn.MaxPool2d(2)] * pool]
        channels, side = filters, side // 2 if pool else side
    features = channels * side * side
    layers.append(nn.Flatten())
    for units in shape["hidden"]:
        layers += [nn.Linear(features, units), nn.ReLU()]
        features = units
    model = nn.Sequential(*layers, nn.Linear(features, CLASSES)).to(memory_format=form)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    images, target = torch.from_numpy(x).contiguous(memory_format=form), torch.from_numpy(labels)

    def run() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), target).backward()
        optimizer.step()

    return run


def report(result: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    text = "# Training step: batches of 128 images, float32 on the CPU\n\n"
    text += "Written by `python -m benchmarks train`. Milliseconds a step: medians over rounds\n"
    text += "in turns, and alone in a process. Ratio: time of torch in its faster layout over\n"
    text += (
        "ours, in turns with quartiles, and alone. Peak: the most memory beyond what importing\n"
    )
    text += "took (torch; this package with Numba), and that of the whole process, in MB. Tuned:\n"
    text += "glibc told to keep freed memory, which ours does not need.\n\n"
    text += f"{described(result['machine'])}\n\n"
    rows = []
    for memory in MEMORY:
        for network, entry in result[memory].items():
            alone, r = entry["alone"], entry["ratio"]
            times = [f"{1e3 * t:.2f}" for t in entry["seconds"].values()]
            apart = [f"{1e3 * own['seconds']:.2f}" for own in alone.values()]
            best = min(alone[layout]["seconds"] for layout in LAYOUTS)
            beyond, whole = (
                " / ".join(f"{own[kind] / 1e6:.0f}" for own in alone.values())
                for kind in ("bytes", "process")
            )
            rows.append([
                network, memory, " / ".join(times), " / ".join(apart),
                f"{r['median']:.2f} ({r['low']:.2f}-{r['high']:.2f})",
                f"{best / alone[OURS]['seconds']:.2f}", beyond, whole,
            ])  # fmt: skip
    names = " / ".join((OURS, *LAYOUTS))
    header = ["network", "memory", "in turns", "alone", "ratio", "ratio alone", "peak", "process"]
    return text + f"Times and peaks: {names}.\n\n" + table(header, rows)

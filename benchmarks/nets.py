"""Training steps of nets drawn at random, against torch in the faster of its two layouts.

On the CPU. A step is the loss of a batch, its gradients, and the update by SGD with momentum. Both
libraries have as many threads, start from the same parameters, and have to find the same losses
before they are timed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import agnostic_xent as ax
from agnostic_xent.kernels.cpu.toolchain.threads import threads
from agnostic_xent.network.layers import split_statistics
from agnostic_xent.training.steps import loss_and_grads

from .conv import LAYOUTS, OURS, timed
from .drawn_nets import CLASSES, KINDS, Net, draw_net
from .measure import AWAKE, SPREAD, described, machine, of_seeds, spread, table, write

COUNT, QUICK = 12, 2
RATE, MOMENTUM = 0.001, 0.9
STEPS, ERROR = 3, 5e-3
"""How many losses are compared; how far they may be apart, relative. Most agree to 1e-6, but a
rounding may decide which of two pixels wins a pool."""


def main(quick: bool, inner: str | None, seed: int | None = None, count: int = 0) -> None:
    """Measure the nets of all seeds, or of one, and write the results."""
    if inner:
        Path(inner).write_text(json.dumps(measure(seed, count)))
        return
    count = count or (QUICK if quick else COUNT)
    asleep, awake = (of_seeds("nets", quick, seed, count, each) for each in ({}, AWAKE))
    result = {"machine": machine(), "threads": threads(), "count": count}
    result |= {"nets": asleep, "awake": awake}
    write("nets_quick" if quick else "nets", result, report(result))


def measure(seed: int | None, count: int) -> list[dict[str, Any]]:
    """Return times and ratios of a step of nets of a seed."""
    torch.set_num_threads(threads())
    rng, found = np.random.default_rng(seed), []
    for net in [draw_net(rng) for _ in range(count)]:
        x = rng.standard_normal((net.batch, *net.shape), dtype=np.float32)
        labels = rng.integers(0, CLASSES, net.batch)
        params = net.model.init(rng, net.shape)[0]
        steps = {OURS: our_step(net, params, x, labels)}
        steps |= {layout: torch_step(net, params, x, labels, layout) for layout in LAYOUTS}
        check(net, steps)
        found.append({
            "kind": net.kind, "shape": net.shape, "batch": net.batch,
            "parameters": sum(w.size for w in params.values()),
        } | timed(steps, seconds=2.0, rounds=5))  # fmt: skip
    return found


def check(net: Net, steps: dict[str, Callable[[], float]]) -> None:
    """Raise if the losses of the first steps differ."""
    ours, *others = ([step() for _ in range(STEPS)] for step in steps.values())
    error = float(np.abs(np.divide(others, ours) - 1).max())
    if not error < ERROR:
        raise AssertionError(f"{net}: losses {ours}, torch {others}")


def our_step(net: Net, params: Any, x: Any, labels: Any) -> Callable[[], float]:
    """Return our training step, which returns the loss."""
    optimizer = ax.SGD(RATE, momentum=MOMENTUM)
    state = optimizer.init(params)
    loss = partial(ax.cross_entropy, check_labels=False)  # `fit` checks them once

    def step() -> float:
        nonlocal params, state
        with ax.kernels("require"):
            value, _, found = loss_and_grads(net.model, params, x, labels, loss, None)
            grads, statistics = split_statistics(found)
            params, state = optimizer.update(params, grads, state)
        params = params | statistics
        return float(value)

    return step


def torch_step(net: Net, params: Any, x: Any, labels: Any, layout: str) -> Callable[[], float]:
    """Return torch's training step from the same parameters, which returns the loss."""
    form = torch.channels_last if layout == LAYOUTS[1] else torch.contiguous_format
    model = in_torch(net.model, net.shape)
    start = {name: torch.from_numpy(w.copy()) for name, w in params.items()}
    missing, unexpected = model.load_state_dict(start, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    model = model.to(memory_format=form)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, fused=True)
    images, target = torch.from_numpy(x).contiguous(memory_format=form), torch.from_numpy(labels)

    def step() -> float:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), target)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


class Sum(nn.Module):
    """A residual block in torch."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Any) -> Any:
        return self.body(x) + (x if self.shortcut is None else self.shortcut(x))


def in_torch(layer: Any, shape: tuple[int, ...]) -> nn.Module:
    """Return torch's module of a layer for such samples; parameters have the same names."""
    match layer:
        case ax.Sequential():
            modules = []
            for part in layer.layers:
                modules.append(in_torch(part, shape))
                shape = part.init(0, shape)[1]
            return nn.Sequential(*modules)
        case ax.Residual():
            return Sum(**{name: in_torch(part, shape) for name, part in layer.children().items()})
        case ax.Conv2d(filters, window, stride, padding, dilation, groups, bias):
            return nn.Conv2d(
                shape[0], filters, window, stride, padding, dilation, groups, bias
            )  # fmt: skip
        case ax.Dense(units, bias):
            return nn.Linear(shape[0], units, bias)
        case ax.BatchNorm2d():
            return nn.BatchNorm2d(shape[0])
        case ax.MaxPool2d(window, stride):
            return nn.MaxPool2d(window, stride)
        case ax.GlobalAvgPool2d():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return {ax.ReLU: nn.ReLU, ax.Flatten: nn.Flatten}[type(layer)]()


def summary(found: list[dict[str, Any]]) -> str:
    """Return a table of ratios by kind and by seed."""
    groups = [(kind, [e for e in found if e["kind"] == kind]) for kind in KINDS]
    seeds = sorted({entry["seed"] for entry in found})
    groups += [(f"all of seed {seed}", [e for e in found if e["seed"] == seed]) for seed in seeds]
    rows = [
        [name, *spread([e["ratio"]["median"] for e in entries])]
        for name, entries in [*groups, ("all", found)]
        if entries
    ]
    return table(["kind", *SPREAD], rows)


def report(result: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    found = result["nets"]
    seeds = sorted({entry["seed"] for entry in found})
    text = f"""# Training steps of nets drawn at random: float32 on the CPU

Written by `python -m benchmarks nets`: {result["count"]} nets of each seed
({", ".join(map(str, seeds))}). Milliseconds a step: medians of rounds in turns. Ratio: time of
torch in its faster layout over ours, with quartiles. The first losses of both agree to {ERROR:.1%}.

{described(result["machine"])} {result["threads"]} threads each.

"""
    text += "torch's threads that wait sleep, with `OMP_WAIT_POLICY=PASSIVE`:\n\n" + summary(found)
    text += "\nThey stay awake for a while, as they do unless they are told:\n\n"
    text += summary(result["awake"]) + "\nEach net, with threads that sleep:\n\n"
    rows = []
    for e in found:
        times = [f"{1e3 * e['seconds'][who]:.2f}" for who in (*LAYOUTS, OURS)]
        r, about = e["ratio"], [str(e["batch"]), f"{e['parameters']:,}"]
        quotient = f"{r['median']:.2f} ({r['low']:.2f}-{r['high']:.2f})"
        rows.append([str(e["seed"]), e["kind"], str(tuple(e["shape"])), *about, *times, quotient])
    header = ["seed", "kind", "sample", "batch", "parameters", *LAYOUTS, OURS, "ratio"]
    return text + table(header, rows)

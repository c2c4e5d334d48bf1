"""Pools, batch normalization and ReLU on the CPU, against torch in the faster of its two layouts.

All of them read their images and write others and do next to nothing in between: what counts is
how often memory is passed over, and by how many threads. torch runs with glibc told to keep freed
memory and once more as it is installed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import agnostic_xent as ax

from .measure import TUNED, alternate, described, in_subprocess, machine, ratio, table, write

SHAPES = [(128, 32, 28, 28), (64, 64, 32, 32), (64, 256, 8, 8)]
WINDOWS = {"2x2": {"window": 2}, "3x3 step 2": {"window": 3, "stride": 2, "padding": 1}}
LAYOUTS = ("torch NCHW", "torch channels_last")
Functions = dict[str, Callable[[], Any]]


def main(quick: bool, inner: str | None) -> None:
    """Measure with and without tuned memory, and write the results."""
    if inner:
        Path(inner).write_text(json.dumps(measure(quick)))
        return
    result = {
        "machine": machine(),
        "tuned": in_subprocess("elementwise", quick, TUNED),
        "as installed": in_subprocess("elementwise", quick, {}),
    }
    write("elementwise_quick" if quick else "elementwise", result, report(result))


def measure(quick: bool) -> list[dict[str, Any]]:
    """Return times and ratios of each operation on each shape."""
    found = []
    for shape in SHAPES[:1] if quick else SHAPES:
        for name, functions in cases(shape).items():
            times = alternate(functions, 0.3 if quick else 0.6, rounds=5 if quick else 7)
            medians = {key: float(np.median(t)) for key, t in times.items()}
            faster = min(LAYOUTS, key=medians.__getitem__)
            found.append({
                "shape": shape, "operation": name, "seconds": medians, "faster": faster,
                "ratio": ratio(times, faster, "agnostic_xent"),
            })  # fmt: skip
    return found


def cases(shape: tuple[int, ...]) -> dict[str, Functions]:
    """Return, by operation, what is measured: ours, and torch in both layouts."""
    import torch
    from torch.nn import functional as F

    c = shape[1]
    vectors = [np.linspace(low, 2, c, dtype=np.float32) for low in (1, 0, 0, 1)]
    weight, bias, mean, var = (torch.from_numpy(v.copy()) for v in vectors)
    found = {}
    for pool, torchs in (("max_pool2d", F.max_pool2d), ("avg_pool2d", F.avg_pool2d)):
        for name, options in WINDOWS.items():
            window, stride, padding = (options.get(k) for k in ("window", "stride", "padding"))
            given = (window, stride, padding or 0)
            found |= both(f"{pool} {name}", shape, getattr(ax, pool), (), options,
                          lambda x, torchs=torchs, given=given: torchs(x, *given))  # fmt: skip
    for train in (True, False):
        name = f"batch_norm, {'training' if train else 'inference'}"
        found |= both(name, shape, ax.batch_norm, vectors, {"train": train},
                      lambda x, w, b, train=train: F.batch_norm(x, mean, var, w, b, train),
                      (weight, bias))  # fmt: skip
    return found | both("relu", shape, ax.relu, (), {}, F.relu)


def both(
    name: str, shape: tuple[int, ...], operation: Any, vectors: Any, options: dict[str, Any],
    torchs: Callable[..., Any], parameters: Any = (),
) -> dict[str, Functions]:  # fmt: skip
    """Return the value alone, and the value with its gradients."""
    import torch

    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    y = operation(x, *vectors, **options)
    dy = np.ones_like(y[0] if isinstance(y, tuple) else y)

    def ours() -> Any:
        with ax.kernels("require"):
            return operation(x, *vectors, **options)

    def our_gradients() -> Any:
        with ax.kernels("require"):
            _, pullback = operation.vjp(x, *vectors, **options)
        return pullback(dy)

    value: Functions = {"agnostic_xent": ours}
    gradient: Functions = {"agnostic_xent": our_gradients}
    for layout, form in zip(LAYOUTS, (torch.contiguous_format, torch.channels_last), strict=True):
        images, slope = (torch.from_numpy(a).contiguous(memory_format=form) for a in (x, dy))

        leaves = [images.clone(memory_format=form).requires_grad_()]
        leaves += [p.clone().requires_grad_() for p in parameters]

        def in_torch(images: Any = images) -> Any:
            with torch.no_grad():
                return torchs(images, *parameters)

        def gradients_in_torch(leaves: Any = leaves, slope: Any = slope) -> Any:
            return torch.autograd.grad(torchs(*leaves), leaves, slope)

        value[layout], gradient[layout] = in_torch, gradients_in_torch
    return {name: value, f"{name}, with gradient": gradient}


def report(result: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    text = "# Pools, batch normalization, ReLU: float32 on the CPU\n\n"
    text += "Written by `python -m benchmarks elementwise`. Milliseconds: medians over rounds in\n"
    text += "turns, of the best call of each round. `x` is the time of torch in its faster layout\n"
    text += (
        "over ours, NCHW (median and quartiles over the rounds): more than 1 is in our favour.\n"
    )
    text += "Waiting threads sleep, with `OMP_WAIT_POLICY=PASSIVE`.\n"
    text += f"\n{described(result['machine'])}\n"
    notes = {
        "tuned": " and ".join(f"`{k}={v}`" for k, v in TUNED.items()),
        "as installed": "no variables set: large arrays cost torch page faults",
    }
    for kind, note in notes.items():
        text += f"\n## {kind.capitalize()} ({note})\n\n"
        text += table(["operation", "shape", "agnostic_xent", *LAYOUTS, "x"],
                      [row(case) for case in result[kind]])  # fmt: skip
    return text


def row(case: dict[str, Any]) -> list[str]:
    """Return the cells of a case."""
    times = [f"{1e3 * case['seconds'][name]:.3g}" for name in ("agnostic_xent", *LAYOUTS)]
    r = case["ratio"]
    quotient = f"{r['median']:.2f} ({r['low']:.2f}-{r['high']:.2f})"
    return [case["operation"], str(tuple(case["shape"])), *times, quotient]

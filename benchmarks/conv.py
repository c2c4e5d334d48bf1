"""Convolution on the CPU, against torch in the faster of its two layouts.

Three directions of eleven layers, and a block of convolution, bias, ReLU and 2x2 max-pool. torch
gets its images and weights in its own layout before the clock starts. Errors are against torch in
float64, relative to the sum of |x| |w| of the output with the largest such sum.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import agnostic_xent as ax
from agnostic_xent.kernels.cpu.conv import direct_plans, winograd_plans
from agnostic_xent.kernels.cpu.conv.costs import FORWARD, fastest
from agnostic_xent.kernels.cpu.conv.geometry import geometry_of

from .measure import (
    TUNED,
    alternate,
    described,
    in_subprocess,
    machine,
    mean_of,
    ratio,
    table,
    write,
)

LAYERS = {  # name -> N, C, H, W, filters, window, stride, padding
    "LeNet 1": (128, 1, 28, 28, 32, 3, 1, 1),
    "LeNet 2": (128, 32, 28, 28, 64, 3, 1, 1),
    "LeNet 3": (128, 32, 14, 14, 64, 3, 1, 1),
    "LeNet 4": (128, 64, 14, 14, 128, 3, 1, 1),
    "ResNet 64": (64, 64, 32, 32, 64, 3, 1, 1),
    "ResNet 128": (64, 128, 16, 16, 128, 3, 1, 1),
    "ResNet 256": (64, 256, 8, 8, 256, 3, 1, 1),
    "1x1": (64, 256, 16, 16, 64, 1, 1, 0),
    "5x5": (128, 6, 28, 28, 16, 5, 1, 0),
    "stride 2": (64, 64, 32, 32, 128, 3, 2, 1),
    "stem 7x7": (16, 3, 224, 224, 64, 7, 2, 3),
}
QUICK = ("LeNet 3", "5x5")
DIRECTIONS = ("forward", "input gradient", "weight gradient")
LAYOUTS = ("torch NCHW", "torch channels_last")
OURS, OTHER = "agnostic_xent", "the other algorithm"
Functions = dict[str, Callable[[], Any]]


def main(quick: bool, inner: str | None) -> None:
    """Measure, with glibc told to keep freed memory, and write the results."""
    if inner:
        Path(inner).write_text(json.dumps(measure(quick)))
        return
    result = {"machine": machine(), "layers": in_subprocess("conv", quick, TUNED)}
    write("conv_quick" if quick else "conv", result, report(result))


def measure(quick: bool) -> list[dict[str, Any]]:
    """Return times, ratios and errors of each direction of each layer, and of the block."""
    found, turns = [], (0.4, 5) if quick else (2.5, 9)
    for name in QUICK if quick else LAYERS:
        arrays, geometry = data(LAYERS[name])
        errors = errors_of(arrays, geometry)
        for direction, functions in cases(arrays, geometry).items():
            found.append(timed(functions, *turns) | {
                "layer": name, "direction": direction, "error": errors[direction],
            })  # fmt: skip
    arrays, geometry = data(LAYERS["LeNet 2"])
    block = {"layer": "LeNet 2", "direction": "block", "error": None}
    found.append(timed(block_functions(arrays, geometry), *turns) | block)
    return found


def timed(functions: Functions, seconds: float, rounds: int) -> dict[str, Any]:
    """Return medians, and the ratio to the faster layout of torch."""
    times = alternate(functions, seconds, rounds)
    medians = {key: float(np.median(t)) for key, t in times.items()}
    faster = min(LAYOUTS, key=medians.__getitem__)
    return {"seconds": medians, "faster": faster, "ratio": ratio(times, faster, OURS)}


def data(layer: tuple[int, ...]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return x, w, b and dy of a layer, and its options."""
    n, c, h, w, k, window, stride, padding = layer
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, c, h, w), dtype=np.float32)
    weights = rng.standard_normal((k, c, window, window), dtype=np.float32) * np.float32(0.1)
    geometry = {"stride": (stride, stride), "padding": (padding, padding)}
    geometry |= {"dilation": (1, 1), "groups": 1}
    y = ax.conv2d(x, weights, **geometry)
    return (x, weights, np.zeros(k, np.float32), rng.standard_normal(y.shape, np.float32)), geometry


def cases(arrays: tuple[Any, ...], geometry: dict[str, Any]) -> dict[str, Functions]:
    """Return, by direction, what is measured: ours, torch in both layouts, our other algorithm."""
    x, w, _, dy = arrays
    found = against_torch(x, w, dy, geometry)
    if other := other_algorithm(x, w, dy, geometry):
        for direction, function in zip(DIRECTIONS, other, strict=True):
            found[direction][OTHER] = function
    return found


def against_torch(x: Any, w: Any, dy: Any, options: dict[str, Any]) -> dict[str, Functions]:
    """Return, by direction, ours and torch in both layouts; options are pairs, and groups."""
    with ax.kernels("require"):
        pullbacks = [ax.conv2d.vjp(x, w, wrt=(i,), **options)[1] for i in (0, 1)]

        def forward() -> Any:
            return ax.conv2d(x, w, **options)

    ours = forward, lambda: pullbacks[0](dy)[0], lambda: pullbacks[1](dy)[1]
    found = {d: {OURS: f} for d, f in zip(DIRECTIONS, ours, strict=True)}
    for layout, functions in torch_functions(x, w, dy, options).items():
        for direction, function in zip(DIRECTIONS, functions, strict=True):
            found[direction][layout] = function
    return found


def other_algorithm(x: Any, w: Any, dy: Any, geometry: dict[str, Any]) -> Any:
    """Return the three directions by direct convolution, or if that is chosen by Winograd's."""
    options = ax.conv2d._contract(x, w, **geometry).options
    g = geometry_of(x, w, options)
    plans: Any = winograd_plans if fastest(g, x.dtype, FORWARD) is direct_plans else direct_plans
    if not plans.applies(g, x.dtype):
        return None
    return (
        lambda: plans.forward(g, x, w, None, False),
        lambda: plans.input_gradient(g, dy, w),
        lambda: plans.weight_gradient(g, x, dy),
    )


def torch_functions(x: Any, w: Any, dy: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return torch's three directions, by layout."""
    import torch

    stride, padding, dilation, groups = (
        options[name] for name in ("stride", "padding", "dilation", "groups")
    )
    found = {}
    for layout, form in zip(LAYOUTS, (torch.contiguous_format, torch.channels_last), strict=True):
        tensors = [torch.from_numpy(a).contiguous(memory_format=form) for a in (x, w, dy)]

        def forward(tensors: Any = tensors) -> Any:
            with torch.no_grad():
                return torch.nn.functional.conv2d(*tensors[:2], None, **options)

        def backward(of: int, tensors: Any = tensors) -> Any:
            images, weights, slopes = tensors
            return torch.ops.aten.convolution_backward(
                slopes, images, weights, None, stride, padding, dilation, False, [0, 0], groups,
                [of == 0, of == 1, False],
            )[of]  # fmt: skip

        found[layout] = forward, partial(backward, 0), partial(backward, 1)
    return found


def block_functions(arrays: tuple[Any, ...], geometry: dict[str, Any]) -> Functions:
    """Return convolution, bias, ReLU and max-pool in training, where the winners are kept."""
    import torch
    from torch.nn import functional as F

    x, w, bias, _ = arrays

    def ours() -> Any:
        with ax.kernels("require"):
            return ax.conv2d.vjp(x, w, bias, **geometry, activation="relu", max_pool=2)

    found: Functions = {OURS: ours}
    for layout, form in zip(LAYOUTS, (torch.contiguous_format, torch.channels_last), strict=True):
        images, weights = (torch.from_numpy(a).contiguous(memory_format=form) for a in (x, w))
        b = torch.from_numpy(bias)

        def block(images: Any = images, weights: Any = weights, b: Any = b) -> Any:
            weights.requires_grad_()
            return F.max_pool2d(F.relu(F.conv2d(images, weights, b, **geometry)), 2)

        found[layout] = block
    return found


def errors_of(arrays: tuple[Any, ...], geometry: dict[str, Any]) -> dict[str, float]:
    """Return the largest error of each direction, relative to the largest sum of |x| |w|."""
    import torch

    def in_float64(x: Any, w: Any, dy: Any) -> list[Any]:
        x, w = x.requires_grad_(), w.requires_grad_()
        y = torch.nn.functional.conv2d(x, w, None, geometry["stride"], geometry["padding"])
        return [y.detach(), *torch.autograd.grad(y, (x, w), dy)]

    x, w, _, dy = arrays
    y, pullback = ax.conv2d.vjp(x, w, **geometry)
    exact = [torch.from_numpy(a).double() for a in (x, w, dy)]
    right = in_float64(*exact)
    sums = in_float64(*(a.detach().abs() for a in exact))
    got = y, *pullback(dy)[:2]
    return {
        direction: float(np.abs(a - r.numpy()).max() / s.max())
        for direction, a, r, s in zip(DIRECTIONS, got, right, sums, strict=True)
    }


def report(result: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    text = "# Convolution: float32 on the CPU\n\nWritten by `python -m benchmarks conv`. "
    text += "Milliseconds: medians over rounds in turns, results\nallocated by both. Ratio: time "
    text += "of torch in its faster layout over ours, with quartiles.\nError: the largest, "
    text += "relative to the largest sum of |x| |w|, against float64.\n\n"
    text += f"{described(result['machine'])}\n"
    for direction in (*DIRECTIONS, "block"):
        found = [entry for entry in result["layers"] if entry["direction"] == direction]
        rows = []
        for entry in found:
            s, r = {k: f"{1e3 * v:.2f}" for k, v in entry["seconds"].items()}, entry["ratio"]
            rows.append([
                entry["layer"], s[LAYOUTS[0]], s[LAYOUTS[1]], s[OURS], s.get(OTHER, "-"),
                f"{r['median']:.2f} ({r['low']:.2f}-{r['high']:.2f})",
                "-" if entry["error"] is None else f"{entry['error']:.0e}",
            ])  # fmt: skip
        mean = mean_of([e["ratio"]["median"] for e in found])
        title = "forward with bias, ReLU, 2x2 max-pool" if direction == "block" else direction
        text += f"\n## {title[0].upper()}{title[1:]}: geometric mean {mean:.2f}\n\n"
        text += table(["layer", *LAYOUTS, OURS, OTHER, "ratio", "error"], rows)
    return text

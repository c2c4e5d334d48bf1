"""Cross entropy of a linear layer with many classes: value and all gradients, against torch.

torch makes the whole array of logits; `linear_cross_entropy` works block by block.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import agnostic_xent as ax

from .measure import alternate, described, in_subprocess, machine, ratio, table, write

SHAPE, QUICK = (2048, 512, 50257), (256, 64, 5000)  # N, D, classes
MIB = 2**20


def main(quick: bool, inner: str | None) -> None:
    """Measure times in one process and memory in another each, and write the results."""
    shape = QUICK if quick else SHAPE
    if inner:
        Path(inner).write_text(f'{{"torch MiB": {torch_memory(shape)}}}')
        return
    functions = candidates(shape)
    times = alternate(functions, 1.0 if quick else 60.0, rounds=5)
    result = {
        "machine": machine(),
        "shape": shape,
        "seconds": {name: float(np.median(t)) for name, t in times.items()},
        "ratios": {name: ratio(times, name, "agnostic_xent") for name in times},
        "ours MiB": our_memory(functions["agnostic_xent"]),
        "gradients MiB": 4 * (shape[0] * shape[1] + shape[2] * (shape[1] + 1)) / MIB,
    }
    result |= in_subprocess("linear_xent", quick, {})
    write("linear_xent_quick" if quick else "linear_xent", result, report(result))


def problem(shape: tuple[int, int, int]) -> tuple[Any, ...]:
    """Return x, weight, labels and bias."""
    n, d, classes = shape
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((n, d), "float32"), rng.standard_normal((classes, d), "float32")
    return x, w / np.float32(d**0.5), rng.integers(0, classes, n), np.zeros(classes, "float32")


def candidates(shape: tuple[int, int, int]) -> dict[str, Callable[[], Any]]:
    """Return what is measured, on the same arrays."""
    arrays, one = problem(shape), np.ones((), "float32")

    def ours() -> Any:
        with ax.kernels("require"):
            _, pullback = ax.linear_cross_entropy.vjp(*arrays)
        return pullback(one)

    return {"agnostic_xent": ours, "torch": torch_step(arrays)}


def torch_step(arrays: tuple[Any, ...]) -> Callable[[], None]:
    import torch

    x, w, labels, b = (torch.asarray(a) for a in arrays)
    leaves = [a.requires_grad_() for a in (x, w, b)]

    def step() -> None:
        for leaf in leaves:
            leaf.grad = None
        f = torch.nn.functional
        f.cross_entropy(f.linear(x, w, b), labels).backward()

    return step


def our_memory(f: Callable[[], Any]) -> float:
    """Return the peak of what a call allocates, the gradients that it returns included, in MiB."""
    tracemalloc.start()
    f()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / MIB


def torch_memory(shape: tuple[int, int, int]) -> float:
    """Return by how much a step of torch raises the peak of the process's memory, in MiB."""
    step = torch_step(problem(shape))
    before = peak_memory()
    step()
    return peak_memory() - before


def peak_memory() -> float:
    """Return the most that this process held, in MiB (Linux; the usual call counts the parent)."""
    (line,) = (s for s in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in s)
    return int(line.split()[1]) / 1024


def report(result: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    n, d, classes = result["shape"]
    text = "# Linear cross entropy, float32, value and gradients of x, weight and bias\n\n"
    text += f"Written by `python -m benchmarks linear_xent`: N={n}, D={d}, {classes} classes.\n"
    text += "Seconds: medians over rounds in turns. Memory: peak above what was there before the\n"
    text += f"step; {result['gradients MiB']:.0f} MiB of it are the gradients themselves.\n"
    text += f"\n{described(result['machine'])}\n\n"
    rows = []
    for name, memory in (("agnostic_xent", result["ours MiB"]), ("torch", result["torch MiB"])):
        r = result["ratios"][name]
        spread = f"{r['median']:.2f} ({r['low']:.2f}-{r['high']:.2f})"
        rows.append([name, f"{result['seconds'][name]:.3g}", spread, f"{memory:.0f}"])
    return text + table(["", "s", "time over ours", "MiB"], rows)

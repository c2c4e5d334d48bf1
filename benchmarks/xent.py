"""Softmax cross entropy on the CPU: loss and gradient, against a copy and against torch.

The copy of the logits into an array that is there already, on all threads, is the least that any
implementation costs: it reads the logits and writes as much as the gradient. torch runs as it is
installed, and once more with glibc told to keep freed memory: its best configuration, for then
its outputs cost no page faults.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

import agnostic_xent as ax

from .measure import TUNED, alternate, described, in_subprocess, machine, ratio, table, write

SHAPES = [
    (4096, 1000), (512, 32000), (64, 128256), (16384, 64), (65536, 20), (65536, 10), (131072, 5),
    (262144, 2), (128, 10),
]  # fmt: skip
AWAKE = {"OMP_WAIT_POLICY": "", "GOMP_SPINCOUNT": "1000"}
"""Let waiting threads look again for a moment: small arrays would else wait for them to wake."""
QUICK = [(512, 1000), (64, 32000), (4096, 10), (128, 10)]


def main(quick: bool, inner: str | None) -> None:
    """Measure with and without tuned memory, and write the results."""
    if inner:
        Path(inner).write_text(json.dumps(measure(quick)))
        return
    result = {
        "machine": machine(),
        "tuned": in_subprocess("xent", quick, TUNED),
        "as installed": in_subprocess("xent", quick, {}),
        "awake": in_subprocess("xent", quick, TUNED | AWAKE),
    }
    write("xent_quick" if quick else "xent", result, report(result))


def measure(quick: bool) -> list[dict[str, Any]]:
    """Return times and ratios for each shape."""
    found = []
    for shape in QUICK if quick else SHAPES:
        functions = candidates(shape)
        with ax.kernels("require"):
            times = alternate(functions, 0.5 if quick else 4.0, rounds=5 if quick else 15)
        ratios = {name: ratio(times, name, "agnostic_xent") for name in times}
        medians = {name: float(np.median(t)) for name, t in times.items()}
        found.append({"shape": shape, "seconds": medians, "ratios": ratios})
    return found


def candidates(shape: tuple[int, int]) -> dict[str, Callable[[], Any]]:
    """Return what is measured, each on the same logits."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal(shape, dtype=np.float32)
    labels = rng.integers(0, shape[1], shape[0])
    copied, one = z.copy(), np.ones((), np.float32)

    def ours() -> Any:
        _, pullback = ax.cross_entropy.vjp(z, labels)
        return pullback(one)

    def value() -> Any:
        return ax.cross_entropy(z, labels)

    functions = {
        "copy": lambda: copy(z, copied),
        "agnostic_xent": ours,
        "agnostic_xent, value only": value,
    }
    try:
        import torch
    except ImportError:
        return functions
    leaf, target = torch.asarray(z).requires_grad_(), torch.asarray(labels)

    def torchs() -> None:
        leaf.grad = None
        torch.nn.functional.cross_entropy(leaf, target).backward()

    return functions | {"torch": torchs}


@numba.njit(parallel=True)
def copy(x: Any, y: Any) -> None:
    for n in numba.prange(x.shape[0]):
        y[n] = x[n]


def report(result: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    text = "# Softmax cross entropy, float32, loss and gradient\n\n"
    text += "Written by `python -m benchmarks xent`. Times in milliseconds: medians over\n"
    text += "rounds in turns, of the best call of each round. `x` is time over that of\n"
    text += "agnostic_xent (median and quartiles over the rounds). `copy` is of the logits into\n"
    text += "memory that is there, on all threads. Waiting threads sleep, with\n"
    text += "`OMP_WAIT_POLICY=PASSIVE`: two thread pools in one process would else take each\n"
    text += "other's cores. That slows down what small arrays wait for, torch's most of all: the\n"
    text += "last table is without it.\n"
    text += f"\n{described(result['machine'])}\n"
    notes = {
        "tuned": " and ".join(f"`{k}={v}`" for k, v in TUNED.items()),
        "as installed": "no variables set: large arrays cost page faults, ours and torch's",
        "awake": "tuned, and `GOMP_SPINCOUNT=1000`: waiting threads look again for microseconds",
    }
    for kind, note in notes.items():
        text += f"\n## {kind.capitalize()} ({note})\n\n"
        names = list(result[kind][0]["seconds"])
        rows = [[str(tuple(case["shape"])), *(_cell(case, n) for n in names)]
                for case in result[kind]]  # fmt: skip
        text += table(["shape", *names], rows)
    return text


def _cell(case: dict[str, Any], name: str) -> str:
    time, r = f"{1e3 * case['seconds'][name]:.4g}", case["ratios"][name]
    if name == "agnostic_xent":
        return time
    return f"{time} ({r['median']:.2f}x, {r['low']:.2f}-{r['high']:.2f})"

"""How much of a training run is Python outside of operations: a LeNet on NumPy.

`fit` with validation, callbacks and the progress bar of a terminal, batches of 128 images of
Fashion-MNIST. Operations, their kernels, copies of shuffled images and files are called through a
clock each; all else counts as Python. A second run under cProfile, which makes Python slower but
not kernels, tells where that is.
"""

from __future__ import annotations

import contextlib
import cProfile
import dataclasses
import functools
import io
import json
import pstats
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import array_api_compat.numpy
import numpy as np
from rich.console import Console

import agnostic_xent as ax
from agnostic_xent.core.operation import (
    OPERATIONS,
    ROUTINES,
    Implementation,
    Operation,
    Routine,
    load_kernels,
)
from agnostic_xent.datasets import load_fashion_mnist
from agnostic_xent.network import checkpoints

from .measure import described, in_subprocess, machine, ratio, table, write

BATCH, RATE, MOMENTUM = 128, 0.05, 0.9
PACKAGE = Path(ax.__file__).parent
KERNELS = "kernels/"
PYTHON = "Python outside of operations"
LIMIT = 0.02
"""The share of it that the project allows itself."""


def main(quick: bool, inner: str | None) -> None:
    """Measure all that the module promises, and write the results."""
    if inner:
        Path(inner).write_text(json.dumps(measure(quick)))
        return
    result = {"machine": machine(), **in_subprocess("overhead", quick, {"OMP_WAIT_POLICY": ""})}
    write("overhead_quick" if quick else "overhead", result, report(result))


def measure(quick: bool) -> dict[str, Any]:
    """Return the share of Python, seconds a step, the profile, and what callbacks cost."""
    data, epochs = load_fashion_mnist(), 1 if quick else 3
    train(data, 1, watched=True)  # compiles
    times: dict[str, list[float]] = {"bare": [], "watched": []}
    for _ in range(epochs):
        for name, found in times.items():
            found.append(train(data, 1, watched=name == "watched"))
    profile = cProfile.Profile()
    train(data, epochs, watched=True, profile=profile)
    seconds = by_file(pstats.Stats(profile))
    clocks = {name: Clock() for name in ("operations", "kernels", "copies", "files")}
    clocks["kernels"].before_kernels()
    clocks["operations"].before_operations()
    array_api_compat.numpy.take = clocks["copies"].timed(np.take)
    checkpoints._serialized = clocks["files"].timed(checkpoints._serialized)
    checkpoints.write_atomically = clocks["files"].timed(checkpoints.write_atomically)
    shares = []
    for _ in range(epochs):
        for clock in clocks.values():
            clock.inside = 0.0
        whole = train(data, epochs, watched=True)
        shares.append([clock.inside / whole for clock in clocks.values()])
    operations, kernels, copies, files = np.median(shares, axis=0).tolist()
    return {
        "shares": {
            "kernels": kernels,
            "operations, outside of their kernels": operations - kernels,
            "copies of shuffled images": copies,
            "files: the best model, serialized and written to the disk": files,
            PYTHON: 1 - operations - copies - files,
        },
        "seconds_a_step": min(times["watched"]) / -(-len(data.train_x) // BATCH),
        "profile": {name: t / sum(seconds.values()) for name, t in seconds.most_common()},
        "watched_over_bare": ratio(times, "watched", "bare"),
    }


class Clock:
    """Seconds inside of functions."""

    def __init__(self) -> None:
        self.inside = 0.0

    def before_operations(self) -> None:
        """Put the clock before all operations, their pullbacks, and routines."""

        def vjp(*arrays: Any, **options: Any) -> Any:
            value, pullback = timed(*arrays, **options)
            return value, self.timed(pullback)

        timed = self.timed(Operation.vjp)
        Operation.__call__ = self.timed(Operation.__call__)  # type: ignore[method-assign]
        Operation.vjp = vjp  # type: ignore[method-assign]
        Routine.__call__ = self.timed(Routine.__call__)  # type: ignore[method-assign]

    def before_kernels(self) -> None:
        """Put the clock before every kernel of NumPy arrays."""
        load_kernels("numpy")
        for made in (*OPERATIONS.values(), *ROUTINES.values()):
            kernels = made._kernels.pop("numpy", [])
            for kernel in kernels:
                made.add_kernel("numpy", self.before(kernel))

    def before(self, kernel: Implementation) -> Implementation:
        """Return a kernel that is timed."""

        def vjp(*arrays: Any, **options: Any) -> Any:
            value, pullback = timed(*arrays, **options)
            return value, self.timed(pullback)

        def specialized(*arrays: Any, **options: Any) -> Implementation | None:
            special = kernel.specialized(*arrays, **options)
            return special and self.before(special)

        timed = self.timed(kernel.vjp)
        return dataclasses.replace(
            kernel,
            value=functools.wraps(kernel.value)(self.timed(kernel.value)),
            vjp=functools.wraps(kernel.vjp)(vjp),
            specialized=specialized,
        )

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function; what it takes is added."""

        def run(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            found = function(*args, **options)
            self.inside += time.perf_counter() - start
            return found

        return run


def train(
    data: Any, epochs: int, *, watched: bool, profile: cProfile.Profile | None = None
) -> float:
    """Train; watched, with all that can tell of it. Return the seconds of `fit`."""
    model = ax.lenet(10)
    params = model.init(0, data.train_x.shape[1:])[0]
    with tempfile.TemporaryDirectory() as folder:
        terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
        callbacks = [
            ax.Progress(terminal),
            ax.EarlyStopping(patience=5),
            ax.KeepBest(Path(folder) / "best.safetensors"),
            ax.JsonLines(Path(folder) / "log.jsonl"),
        ]
        with ax.kernels("require"), profile or contextlib.nullcontext():
            start = time.perf_counter()
            ax.fit(
                model,
                params,
                (data.train_x, data.train_y.astype(np.int32)),
                loss=ax.cross_entropy,
                optimizer=ax.SGD(RATE, momentum=MOMENTUM),
                epochs=epochs,
                batch_size=BATCH,
                rng=0,
                validation=(data.test_x, data.test_y.astype(np.int32)),
                callbacks=callbacks if watched else [],
            )
            return time.perf_counter() - start


def by_file(stats: pstats.Stats) -> Counter[str]:
    """Return seconds of each file: its functions' own time, and that of built-ins they call."""
    seconds: Counter[str] = Counter()
    for (path, _, _), (_, _, own, _, callers) in stats.stats.items():  # type: ignore[attr-defined]
        if path != "~":
            seconds[_name(path)] += own
            continue
        for (caller, _, _), (_, _, part, _) in callers.items():
            seconds[_name(caller)] += part
    return seconds


def _name(path: str) -> str:
    """Return how a file is called in the table."""
    file = Path(path)
    if file.is_relative_to(PACKAGE):
        name = file.relative_to(PACKAGE).as_posix()
        return KERNELS if name.startswith(KERNELS) else name
    _, installed, inside = path.partition("site-packages/")
    return inside.partition("/")[0] if installed else "Python's library"


def report(result: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    shares, r = result["shares"], result["watched_over_bare"]
    text = "# Python outside of operations in a training run: LeNet on NumPy\n\n"
    text += "Written by `python -m benchmarks overhead`: `fit` with validation, progress bar,\n"
    text += f"early stopping, best model and log, batches of {BATCH} images.\n\n"
    text += f"{described(result['machine'])}\n\n"
    verdict = "within" if shares[PYTHON] <= LIMIT else "ABOVE"
    text += f"{1e3 * result['seconds_a_step']:.1f} ms a step, with its part of the validation.\n"
    text += f"{PYTHON}: {shares[PYTHON]:.2%}, {verdict} the {LIMIT:.0%} allowed.\n"
    text += "Time with callbacks and progress over time without: "
    text += f"{r['median']:.3f} ({r['low']:.3f}-{r['high']:.3f}).\n\n"
    rows = [[name, f"{share:.2%}"] for name, share in shares.items()]
    text += table(["what", "share"], rows) + "\n"
    text += "Under cProfile, which makes Python slower, the time is in\n\n"
    rows = [[name, f"{share:.2%}"] for name, share in result["profile"].items() if share > 5e-4]
    return text + table(["file or package", "share"], rows)

"""Training steps of a LeNet on one rank and on two: time, bytes, and what a cost model makes of it.

One thread a rank, float32, batches of random images. The ways to run take turns in one job: a rank
alone while the other sleeps, both at once without a word between them, both together.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import agnostic_xent as ax
from agnostic_xent.training.batches import ArraySource
from agnostic_xent.training.ranks.shares import share
from agnostic_xent.training.ranks.task import distributed
from agnostic_xent.training.steps import Task

from .cost_model import Fit, outlook
from .measure import described, machine, table, write

MODEL = ax.Sequential(
    ax.Conv2d(32, 3, padding=1), ax.ReLU(), ax.Conv2d(64, 3, padding=1), ax.ReLU(),
    ax.MaxPool2d(2), ax.Flatten(), ax.Dense(128), ax.ReLU(), ax.Dense(10),
)  # fmt: skip
SHAPE, CLASSES, RATE, MOMENTUM = (1, 28, 28), 10, 0.05, 0.9
ALONE, APART, TOGETHER = "alone", "apart", "together"
WAYS = [
    (ALONE, 64), (ALONE, 128), (APART, 64), (APART, 128), (TOGETHER, 128), (TOGETHER, 256)
]  # fmt: skip
"""How the ranks run, and samples a step: of one rank, of each rank, of all together."""

HELD_BACK = f"{TOGETHER} 256"
"""What the cost model is checked against."""

MESSAGES = [2**k for k in range(8, 25, 2)]
"""Bytes of the sums that latency and bandwidth are fitted to."""


def main(quick: bool, inner: str | None) -> None:
    """Measure all that the module promises, and write the results."""
    if inner:
        ranks = Watched()
        found = measure(ranks, quick) if ranks.size == 2 else agreement(ranks)
        if ranks.rank == 0:
            Path(inner).write_text(json.dumps(found))
        return
    result = {"machine": machine(), **on_ranks(2, quick), "four": on_ranks(4, quick)}
    write("scale_quick" if quick else "scale", result, report(result))


def on_ranks(ranks: int, quick: bool) -> Any:
    """Run this benchmark on the ranks of an MPI job; return what rank 0 found."""
    launcher = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    one = dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = [str(launcher), "-n", str(ranks), sys.executable, "-m", "mpi4py"]
        command += ["-m", "benchmarks", "scale", "--inner", str(path), *["--quick"] * quick]
        root = Path(__file__).parents[1]
        subprocess.run(command, env=os.environ | one, cwd=root, check=True, timeout=300)
        return json.loads(path.read_text())


# --- on a rank -----------------------------------------------------------------------------------


class Watched(ax.MPICommunicator):
    """Counts the bytes that are summed, and the time in which a rank does nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds, self.bytes = 0.0, 0

    def start_sum(self, buffer: Any) -> Callable[[], Any]:
        wait = self._timed(super().start_sum, buffer)
        self.bytes += buffer.nbytes
        return lambda: self._timed(wait)

    def sum(self, x: Any) -> Any:
        self.bytes += x.nbytes
        return self._timed(super().sum, x)

    def _timed(self, f: Callable[..., Any], *arguments: Any) -> Any:
        start = time.perf_counter()
        result = f(*arguments)
        self.seconds += time.perf_counter() - start
        return result


def steps(
    ranks: Watched, way: str, batch: int, dtype: str = "float32", factor: float = 1.0
) -> Iterator[Any]:
    """Return an endless iterator that takes a step of a rank each time.

    The parameters that it starts from are multiplied by a factor.
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *SHAPE)).astype(dtype)
    y = rng.integers(0, CLASSES, batch)
    params = {name: factor * w.astype(dtype) for name, w in MODEL.init(0, SHAPE)[0].items()}
    optimizer = ax.SGD(RATE, momentum=MOMENTUM)
    task = Task(MODEL, ArraySource(x, y, x), ax.cross_entropy, optimizer, batch)
    if way == TOGETHER:
        own = share(batch, ranks)
        x, y, task = x[own], y[own], distributed(task, ranks)
    return task.steps(itertools.repeat((x, y)), params, optimizer.init(params), rng)


def measure(ranks: Watched, quick: bool) -> dict[str, Any]:
    """Return, by way and batch, seconds a step of each round; and seconds of sums by size."""
    rounds, count = (3, 4) if quick else (9, 8)
    runs = {(way, batch): steps(ranks, way, batch) for way, batch in WAYS}
    found: dict[str, Any] = {
        f"{way} {batch}": {"seconds": [], "waiting": []} for way, batch in WAYS
    }
    for number in range(rounds + 1):
        for (way, batch), run in runs.items():
            seconds, waiting, sent = block(ranks, run, count, way)
            entry = found[f"{way} {batch}"]
            if number:  # the first compiles, and fills the caches
                entry["seconds"].append(seconds)
                entry["waiting"].append(waiting)
                entry["bytes"] = sent
    return {"steps": found, "sums": {size: sum_of(ranks, size, quick) for size in MESSAGES}}


def block(ranks: Watched, run: Iterator[Any], count: int, way: str) -> tuple[float, float, int]:
    """Return seconds a step, seconds that the slower rank waited, and bytes a rank has sent."""
    if way == ALONE and ranks.rank > 0:
        rest(ranks)
        ranks.gather(None)
        return 0.0, 0.0, 0
    ranks.seconds, ranks.bytes = 0.0, 0
    if way != ALONE:
        ranks.comm.Barrier()
    start = time.perf_counter()
    with ax.kernels("require"):
        for _ in range(count):
            next(run)
    own = (time.perf_counter() - start) / count
    waiting, sent = ranks.seconds / count, ranks.bytes // count
    if way == ALONE:
        rest(ranks)
    times = [t for t in ranks.gather(None if way == ALONE and ranks.rank else (own, waiting)) if t]
    return max(t for t, _ in times), min(w for _, w in times), sent


def rest(ranks: Watched) -> None:
    """Wait for the others without keeping a core busy."""
    request = ranks.comm.Ibarrier()
    while not request.Test():
        time.sleep(0.002)


def sum_of(ranks: Watched, size: int, quick: bool) -> float:
    """Return the median of the seconds that a sum of so many bytes takes, on the slower rank."""
    buffer = np.ones(size // 4, np.float32)
    times = []
    for _ in range(10 if quick else 50):
        ranks.comm.Barrier()
        start = time.perf_counter()
        ranks.start_sum(buffer)()
        times.append(max(ranks.gather(time.perf_counter() - start)))
    return float(np.median(times[2:]))


def agreement(ranks: Watched) -> dict[str, dict[str, list[float]]]:
    """Return how far parameters are from those of one rank, after 1 and after 10 steps.

    Those of several ranks; and those of one whose start was changed by a rounding.
    """
    errors: dict[str, dict[str, list[float]]] = {}
    for dtype in ("float32", "float64"):
        rounding = 1 + float(np.finfo(dtype).eps)
        runs = {
            ALONE: steps(ranks, ALONE, 128, dtype),
            "ranks": steps(ranks, TOGETHER, 128, dtype),
            "rounding": steps(ranks, ALONE, 128, dtype, rounding),
        }
        taken = [{name: next(run)[0] for name, run in runs.items()} for _ in range(10)]
        errors[dtype] = {
            name: [distance(found[name], found[ALONE]) for found in (taken[0], taken[-1])]
            for name in ("ranks", "rounding")
        }
    return errors


def distance(params: dict[str, Any], others: dict[str, Any]) -> float:
    """Return the largest difference between parameters, relative to the largest of an array."""
    return max(float(abs(params[k] - w).max() / abs(w).max()) for k, w in others.items())


# --- the report ----------------------------------------------------------------------------------


def quotient(result: dict[str, Any], name: str, to: str, factor: float = 1.0) -> str:
    """Return the median and the quartiles of a ratio of times, round by round."""
    times = (np.array(result["steps"][key]["seconds"]) for key in (name, to))
    low, median, high = np.quantile(factor * np.divide(*times), [0.25, 0.5, 0.75])
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def distances(errors: dict[str, dict[str, list[float]]]) -> list[list[str]]:
    """Return rows of a table of what `agreement` found."""
    names = {"ranks": "four ranks", "rounding": "one rank, started one rounding off"}
    return [
        [f"{names[name]}, {dtype}", *(f"{error:.0e}" for error in pair)]
        for name in names
        for dtype, pair in ((dtype, found[name]) for dtype, found in errors.items())
    ]


def report(result: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    medians = {k: float(np.median(v["seconds"])) for k, v in result["steps"].items()}
    fit = Fit.to(medians, result["sums"], result["steps"][f"{TOGETHER} 128"]["bytes"])
    rows = []
    for name, entry in result["steps"].items():
        waiting = float(np.median(entry["waiting"]))
        rows.append([
            name, f"{1e3 * medians[name]:.2f}", f"{1e3 * (medians[name] - waiting):.2f}",
            f"{1e3 * waiting:.2f}", f"{entry['bytes'] / 1e6:.2f}",
        ])  # fmt: skip
    efficiency = [
        ["strong: 128 images in all", quotient(result, f"{ALONE} 128", f"{TOGETHER} 128", 0.5)],
        ["weak: 128 images a rank", quotient(result, f"{ALONE} 128", f"{TOGETHER} 256")],
        ["two ranks that never talk", quotient(result, f"{ALONE} 128", f"{APART} 128")],
    ]
    predicted, found = fit.together(128), medians[HELD_BACK]
    lines = [
        "# Training on several ranks: a LeNet's step, float32, one thread a rank",
        "Written by `python -m benchmarks scale`: medians over rounds in turns.",
        f"{described(result['machine'])} MPI over shared memory.",
        "Milliseconds a step. Alone: one rank, the other asleep; apart: both, without a word "
        "(images of each); together: one training of both (images of both). Waiting: in MPI, on "
        "the rank that waits less. Sent: MB a rank hands to sums in a step.",
        table(["ranks and images", "step", "computing", "waiting", "sent"], rows),
        "Efficiency of two ranks against one alone, with quartiles:",
        table(["scaling", "efficiency"], efficiency),
        f"Four ranks on {result['machine']['cores']} cores, for the numbers alone: how far the "
        "parameters are from those of one rank, relative to the largest. In float32 a rounding "
        "decides which of two pixels is a maximum, or on which side of 0 a ReLU is, somewhere "
        "among six million; from then on two runs are different ones, on one rank as on many:",
        table(["", "after 1 step", "after 10"], distances(result["four"])),
        "## Cost model",
        f"A sum of s bytes takes a + s / w: latency a = {1e6 * fit.latency:.0f} us, bandwidth w = "
        f"{fit.bandwidth / 1e9:.2f} GB/s, fitted to sums of {MESSAGES[0]} bytes to "
        f"{MESSAGES[-1] / 2**20:.0f} MB. A step on b images a rank takes f + c b and what of the "
        f"sums is not hidden: f = {1e3 * fit.fixed:.2f} ms, c = {1e6 * fit.sample:.0f} us (both "
        f"cores busy), sums {1e3 * fit.sums:.2f} ms, of which {100 * fit.overlap:.0f} % are hidden "
        "behind the backward pass.",
        f"Held back, two ranks with 256 images: predicted {1e3 * predicted:.1f} ms, measured "
        f"{1e3 * found:.1f} ms ({100 * (predicted / found - 1):+.1f} %).",
        outlook(),
    ]
    return "\n\n".join(line.strip("\n") for line in lines) + "\n"

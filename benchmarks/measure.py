"""Timing of functions against each other: in one process, in turns, with the spread."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("agnostic-xent", "numpy", "numba", "torch", "scikit-learn")
SEEDS = (0, 1, 2)
"""Of what is drawn at random."""

TUNED = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
"""Tell glibc to keep freed memory: large outputs then cost no page faults."""


def alternate(
    functions: dict[str, Callable[[], Any]], seconds: float = 1.0, rounds: int = 7
) -> dict[str, list[float]]:
    """Return seconds a call of each function, one number a round; each round runs them in turn.

    A round keeps the best of its batches of calls: what disturbs a batch is not the function.
    """
    sizes = {}
    for name, f in functions.items():
        f()
        start = time.perf_counter()
        f()
        sizes[name] = max(1, int(1e-4 / max(time.perf_counter() - start, 1e-7)))
    share = seconds / rounds / len(functions)
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, f in functions.items():
            times[name].append(best_batch(f, sizes[name], share))
    return times


def best_batch(f: Callable[[], Any], size: int, seconds: float) -> float:
    """Return seconds a call in the best of the batches of ``size`` calls that fit in the time."""
    best, stop = float("inf"), time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        for _ in range(size):
            f()
        end = time.perf_counter()
        best = min(best, (end - start) / size)
        if end > stop:
            return best


def ratio(times: dict[str, list[float]], name: str, to: str) -> dict[str, float]:
    """Return the median and the quartiles of the ratio of two functions, round by round."""
    quotients = np.array(times[name]) / np.array(times[to])
    low, median, high = np.quantile(quotients, [0.25, 0.5, 0.75])
    return {"median": float(median), "low": float(low), "high": float(high)}


def mean_of(ratios: list[float]) -> float:
    """Return the geometric mean."""
    return float(np.exp(np.mean(np.log(ratios))))


SPREAD = ["geometric mean", "5th percentile", "least", "below 1"]


def spread(ratios: list[float]) -> list[str]:
    """Return the cells of a table with the columns ``SPREAD``."""
    numbers = mean_of(ratios), float(np.quantile(ratios, 0.05)), min(ratios)
    below = sum(r < 1 for r in ratios)
    return [*(f"{number:.2f}" for number in numbers), f"{below} of {len(ratios)}"]


def machine() -> dict[str, Any]:
    """Return what the numbers depend on."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def described(machine: dict[str, Any]) -> str:
    """Say in words what the numbers depend on."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{machine['cpu']}, {machine['cores']} cores. {versions}."


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    found: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    name = found.get("model name", platform.machine())
    if "cpu family" in found:  # some names are those of many generations
        name += f" (family {found['cpu family']}, model {found['model']})"
    width = "AVX-512" if "avx512f" in found.get("flags", "") else "no AVX-512"
    return f"{name}, {width}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def in_subprocess(name: str, quick: bool, environment: dict[str, str], **options: int) -> Any:
    """Run a benchmark again with more environment variables; return what it found.

    Threads of two libraries in one process must not wait busily, or they take each other's cores.
    """
    variables = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"} | environment
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks", name, "--inner", str(path)]
        command += ["--quick"] * quick + [f"--{key}={value}" for key, value in options.items()]
        subprocess.run(
            command,
            env={name: value for name, value in variables.items() if value},
            cwd=Path(__file__).parents[1],
            check=True,
        )
        return json.loads(path.read_text())


AWAKE = {"OMP_WAIT_POLICY": ""}
"""Let the threads of peers that wait stay awake for a while, as they do unless they are told."""


def of_seeds(
    name: str, quick: bool, seed: int | None, count: int, environment: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Return what a benchmark finds of all seeds, or of one; each has a process of its own."""
    found = []
    for each in SEEDS if seed is None else (seed,):
        entries = in_subprocess(name, quick, TUNED | (environment or {}), seed=each, count=count)
        found += [{"seed": each} | entry for entry in entries]
    return found


def write(name: str, result: dict[str, Any], markdown: str, folder: Path | None = None) -> None:
    """Write a result as JSON and as Markdown."""
    folder = folder or RESULTS
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / f"{name}.md").write_text(markdown)
    print(markdown)


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"

"""How long one waits for the first training step, before and after the kernels are compiled.

Each network of ``train.py`` takes its first steps in a process of its own, with an empty folder for
compiled code, and then in others that find it filled. Importing and compiling count, whatever is
done ahead of the first step does not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from .measure import described, in_subprocess, machine, table, write
from .train import NETWORKS, OURS, step

NETWORK = "BENCHMARK_NETWORK"
"""Environment variable: what a run within a run trains."""

IMPORT = """
import time
import numpy
start = time.perf_counter()
import agnostic_xent
print(time.perf_counter() - start)
"""


def main(quick: bool, inner: str | None) -> None:
    """Measure all that the module promises, and write the results."""
    if inner:
        Path(inner).write_text(json.dumps(first_steps(os.environ[NETWORK])))
        return
    times = 1 if quick else 5
    result: dict[str, Any] = {"machine": machine(), "import": import_seconds(times)}
    for network in NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            own = {NETWORK: network, "NUMBA_CACHE_DIR": folder, "OMP_WAIT_POLICY": ""}
            cold, *warm = (in_subprocess("startup", quick, own) for _ in range(1 + times))
        result[network] = {"cold": cold, "warm": warm}
    write("startup_quick" if quick else "startup", result, report(result))


def import_seconds(times: int) -> float:
    """Return the seconds that importing takes when NumPy is there: the median."""
    command = [sys.executable, "-c", IMPORT]
    outputs = [subprocess.run(command, capture_output=True, check=True) for _ in range(times)]
    return float(np.median([float(done.stdout) for done in outputs]))


def first_steps(network: str) -> dict[str, float]:
    """Return seconds of the first and the second step, and the first one's on processors."""
    run, found = step(network, OURS), {}
    for which in ("first", "second"):
        start, worked = time.perf_counter(), time.process_time()
        run()
        found[which] = time.perf_counter() - start
        found.setdefault("processor", time.process_time() - worked)
    return found


def report(result: dict[str, Any]) -> str:
    """Return the results in Markdown."""
    text = "# Start-up: seconds until the first training step is done\n\n"
    text += (
        "Written by `python -m benchmarks startup`. Cold: nothing is compiled yet (in brackets:\n"
    )
    text += "the processor's time, which other work on the machine does not lengthen). Warm: the\n"
    text += "median of processes that find compiled code; loading Numba is most of it.\n\n"
    text += f"{described(result['machine'])}\n\n"
    text += f"`import agnostic_xent` after NumPy: {1e3 * result['import']:.0f} ms.\n\n"
    rows = []
    for network in NETWORKS:
        cold, warm = result[network]["cold"], result[network]["warm"]
        first = np.median([steps["first"] for steps in warm])
        row = f"{cold['first']:.1f} ({cold['processor']:.1f})", f"{first:.2f}"
        rows.append([network, *row, f"{cold['second']:.3f}"])
    return text + table(["network", "cold", "warm", "second step"], rows)

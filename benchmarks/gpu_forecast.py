"""What share of a copy's speed kernels of pools, softmax and cross entropy should reach on a GPU.

Nothing is measured: machine code is read. A launch takes at least the time of a copy of its bytes,
or that of its loads if too few of them are under way; and the time to issue its instructions. What
it takes is forecast to be the root of the sum of their squares, since both overlap in part.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import agnostic_xent as ax
from agnostic_xent.kernels.cuda.toolchain.compiling import compile_for
from agnostic_xent.kernels.cuda.warmup import PACKAGE, modules, variants_of

from . import gpu_code, gpu_launches
from .measure import RESULTS, in_subprocess, table, write
from .sass import way_through

CARD = "H200"
COPY = 4.3e12  # bytes a second, read and written
MULTIPROCESSORS, ISSUED = 132, 4 * 1.83e9  # instructions of warps that one issues in a second
LATENCY = 0.8e-6  # seconds from a load to its data, under load
BEFORE = RESULTS / "gpu_forecast_before.json"
"""The result of an earlier state of the code, by the same command."""

CLASSES = (256, 512, 1000, 2048, 4096, 5000, 8192, 16384, 24576, 32768, 49152, 131072)
POOLS = ((2, 2), (3, 2), (3, 1))
PLANES, LOGITS = (64, 64, 56, 56), 1 << 26


def main(quick: bool, inner: str | None) -> None:
    """Read the machine code of the kernels that problems launch; write the forecasts."""
    if inner:
        Path(inner).write_text(json.dumps([noted(*problem) for problem in problems()]))
        return
    found = in_subprocess("gpu_forecast", quick, {"NUMBA_ENABLE_CUDASIM": "1"})
    known = {
        (name, k.function.__qualname__, k.parameters): k
        for name in modules()
        for k in variants_of(name)
    }
    rows = [{**row, **forecast(row, known[tuple(row["kernel"])])} for row in found]
    write("gpu_forecast", {"card": CARD, "rows": rows}, report(rows))


def problems() -> Iterator[tuple[str, Callable[[], Any], int]]:
    """Yield what is computed, what computes it, and which launch is meant, from the first one."""
    for dtype in ("float32", "float16"):
        for classes in CLASSES:
            z = np.empty((LOGITS // classes, classes), dtype)
            run = gpu_launches.ahead(ax.cross_entropy, z, np.zeros(len(z), "i8"))
            yield f"cross entropy, {dtype}, {classes} classes", run, 0
    for name in ("softmax", "log_softmax"):
        for classes in (1000, 4096, 16384, 49152):
            z = np.empty((LOGITS // classes, classes), "f4")
            both = gpu_launches.both(getattr(ax, name), z)
            for place, way in enumerate(("forward", "back")):
                yield f"{name}, float32, {classes} classes, {way}", both, place
    for name in ("max_pool2d", "avg_pool2d"):
        for dtype in ("float32", "float16"):
            x = np.empty(PLANES, dtype)
            for window, stride in POOLS:
                geometry = {"stride": stride, "padding": window // 3}
                both = gpu_launches.both(getattr(ax, name), x, window, **geometry)
                for place, way in enumerate(("forward", "back")):
                    yield f"{name} {window}/{stride}, {dtype}, {way}", both, place


def noted(name: str, function: Callable[[], Any], place: int) -> dict[str, Any]:
    """Return the launch of a problem: its kernel, blocks, and bytes of arrays."""
    launches: list[Any] = []
    gpu_launches.launching.launch = lambda *launch: launches.append(launch)
    with ax.kernels("require"), np.errstate(all="ignore"):
        function()
    kernel, grid, args = launches[place]
    sizes = [gpu_launches.bytes_of(x) for x in args]
    module = kernel.function.__module__.removeprefix(f"{PACKAGE}.")
    shared = getattr(kernel, "shared", None)
    return {
        "problem": name, "kernel": [module, kernel.function.__qualname__, kernel.parameters],
        "blocks": math.prod(grid), "bytes": sum(sizes), "largest": max(sizes),
        "shared": shared(*args) if shared else 0,
    }  # fmt: skip


def forecast(row: dict[str, Any], kernel: Any) -> dict[str, Any]:
    """Return what is forecast of a launch, from the machine code of its kernel."""
    bounds = kernel.threads, kernel.blocks
    code = compile_for(gpu_code.CAPABILITY, kernel.function, kernel.parameters, bounds)
    registers, own = (
        int(match.group(1)) if (match := re.search(pattern, code.report)) else 0
        for pattern in (r"Used (\d+) registers", r"(\d+) bytes smem")
    )
    fit = gpu_code.blocks_that_fit(kernel.threads, registers, own + row["shared"])
    way, threads = way_through(code.cubin, code.name), row["blocks"] * kernel.threads
    instructions, ahead = 0.0, 0
    for loop, count in way.instructions.items():
        moved = way.bytes.get(loop, {})
        most = max((size for kind, size in moved.items() if kind), default=0)
        passes = 1.0 if loop is None or not most else row["largest"] / (most * threads)
        instructions += count * passes
        ahead = max(ahead, moved.get("LDG", 0))
    copy = row["bytes"] / COPY
    issue = instructions * threads / 32 / (MULTIPROCESSORS * ISSUED)
    flight = ahead * kernel.threads * min(fit, max(1, row["blocks"] // MULTIPROCESSORS))
    loads = row["bytes"] / (MULTIPROCESSORS * flight / LATENCY) / 2
    return {
        "registers": registers, "fit": fit, "instructions": instructions * threads / row["largest"],
        "flight": flight, "share": copy / math.hypot(max(copy, loads), issue),
    }  # fmt: skip


def report(rows: list[dict[str, Any]]) -> str:
    """Return the forecasts in Markdown."""
    before = {}
    if BEFORE.exists():
        before = {row["problem"]: row["share"] for row in json.loads(BEFORE.read_text())["rows"]}
    text = "# Forecasts for CUDA kernels, from their machine code\n\n"
    text += (
        "Written by `python -m benchmarks gpu_forecast`. **Nothing here was measured.** Shares of "
    )
    text += f"the\nspeed of a copy on an {CARD}, {COPY / 1e12} TB/s, for large problems. "
    text += "`benchmarks/gpu_forecast.py` says\nhow they are computed. Before: the same for the "
    text += "kernels of an earlier state.\n\n"
    cells = [
        [
            row["problem"], row["kernel"][1], str(row["registers"]), str(row["fit"]),
            f"{row['instructions']:.1f}", f"{row['flight'] / 1024:.0f}",
            f"{before[row['problem']]:.0%}" if row["problem"] in before else "-",
            f"**{row['share']:.0%}**",
        ]
        for row in rows
    ]  # fmt: skip
    header = [
        "problem", "kernel", "registers", "blocks", "instructions a byte", "KB under way", "before",
        "share",
    ]  # fmt: skip
    return text + table(header, cells)

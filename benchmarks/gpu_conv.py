"""How fast the CUDA convolutions should be on a GPU, forecast from their machine code.

Nothing is measured. A block issues the instructions of its loop as often as its sum is long, and
all others once. The multiprocessor with the most blocks decides, of whose issue slots some stay
unused (`USED`). What else a problem launches takes the time of a copy of its bytes, and each launch
`START`. The disassembler is NVIDIA's nvdisasm.
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
from agnostic_xent.kernels.cuda.conv.pixels import Sizes
from agnostic_xent.kernels.cuda.conv.weight import Parts
from agnostic_xent.kernels.cuda.toolchain import launching
from agnostic_xent.kernels.cuda.toolchain.compiling import compile_for
from agnostic_xent.kernels.cuda.warmup import PACKAGE, modules, variants_of

from . import gpu, gpu_code, gpu_launches
from .measure import RESULTS, in_subprocess, table, write
from .sass import disassembled

CARDS = {"H200": 132, "A100": 108}  # multiprocessors
CLOCK = 1.83e9  # of the H200 under load
COPY = 4.3e12  # bytes a second, read and written
PEAK = 66.9e12  # float32
CUDNN = 46.5e12  # what is assumed of cuDNN in float32, as an implicit product of matrices
USED = {1: 0.6, 2: 0.9}  # of issue slots, by the blocks that a multiprocessor runs at once
START = 2e-6  # seconds, behind another kernel
BEFORE = RESULTS / "gpu_conv_before.json"
"""The result of an earlier state of the code, by the same command."""

LAYERS = gpu.WHOLE[1] | {  # of ResNet 20, with a batch of 128
    "ResNet 20, 16": (128, 16, 32, 32, 16, 3, 1, 1),
    "ResNet 20, 32": (128, 32, 16, 16, 32, 3, 1, 1),
    "ResNet 20, 64": (128, 64, 8, 8, 64, 3, 1, 1),
}
DIRECTIONS = "forward", "input gradient", "weight gradient"
LINE = re.compile(
    r"^\s*(?:(\.L_\w+):|/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*?)\s*;)", re.M
)


def main(quick: bool, inner: str | None) -> None:
    """Read the machine code of the kernels that convolutions launch; write the forecasts."""
    if inner:
        Path(inner).write_text(json.dumps([noted(*problem) for problem in problems()]))
        return
    found = in_subprocess("gpu_conv", quick, {"NUMBA_ENABLE_CUDASIM": "1"})
    kernels = {
        (name, k.function.__qualname__, k.parameters): k
        for name in modules()
        if name.startswith("conv.")
        for k in variants_of(name)
    }
    known = {
        key: read(kernels[key]) for key in {tuple(x["kernel"]) for row in found for x in row["all"]}
    }
    rows = [forecast(row, known) for row in found]
    write("gpu_conv", rows, report(rows))


# --- what is launched ----------------------------------------------------------------------------


def problems() -> Iterator[tuple[str, float, Callable[[], Any]]]:
    """Yield names, operations, and what computes it; nothing is launched for their shapes."""
    launching.launch = lambda *launch: None
    for layer, (n, c, h, w, filters, window, stride, padding) in LAYERS.items():
        x, weights = np.empty((n, c, h, w), "f4"), np.empty((filters, c, window, window), "f4")
        options = {"stride": stride, "padding": padding}
        dy = np.empty(ax.conv2d.vjp(x, weights, wrt=[], **options)[0].shape, "f4")
        for way in DIRECTIONS:
            if way == "input gradient" and stride > 1:
                continue  # its phases have sums of several lengths
            run = gpu.our_convolution("require", way, x, weights, dy, options)
            yield f"{layer}, {way}", 2.0 * dy.size * c * window**2, run


def noted(name: str, operations: float, function: Callable[[], Any]) -> dict[str, Any]:
    """Return the launches of a problem: kernels, blocks, passes of their loops, bytes."""
    launches: list[Any] = []
    launching.launch = lambda *launch: launches.append(launch)
    with ax.kernels("require"), np.errstate(all="ignore"):
        function()
    return {
        "problem": name,
        "operations": operations,
        "all": [
            {
                "kernel": [
                    k.function.__module__.removeprefix(f"{PACKAGE}."), k.function.__qualname__,
                    k.parameters,
                ],
                "blocks": math.prod(grid), "bytes": sum(map(gpu_launches.bytes_of, args)),
                "long": long_of(k.function.__module__.rpartition(".")[2], args),
            }
            for k, grid, args in launches
        ],
    }  # fmt: skip


def long_of(module: str, args: tuple[Any, ...]) -> int:
    """Return how many products a sum of a block has; 0 for other kernels."""
    if module == "weight":
        return int(dict(zip(Parts._fields, args[4:], strict=False)).get("part", 0))
    if module not in ("tiled", "few", "tensor"):
        return 0
    sizes = dict(zip(Sizes._fields, args[6:], strict=False))
    return int(sizes.get("part_rows", sizes["rows"] // sizes["phase_count"]))


# --- machine code --------------------------------------------------------------------------------


def read(kernel: Any) -> dict[str, Any]:
    """Return what is read in a kernel's machine code: of all of it, and of its main loop."""
    bounds = kernel.threads, kernel.blocks
    code = compile_for(gpu_code.CAPABILITY, kernel.function, kernel.parameters, bounds)
    registers, shared = (
        int(match.group(1)) if (match := re.search(pattern, code.report)) else 0
        for pattern in (r"Used (\d+) registers", r"(\d+) bytes smem")
    )
    operations, loops = instructions(disassembled(code.cubin))
    most = [0, 0]
    for first, last in loops:
        products = operations[first : last + 1].count("FFMA")
        if products > most[0]:
            most = [products, last + 1 - first]
    return {
        "registers": registers, "shared": shared, "threads": kernel.threads,
        "fit": gpu_code.blocks_that_fit(kernel.threads, registers, shared),
        "products": most[0], "loop": most[1], "rest": len(operations) - most[1],
    }  # fmt: skip


def instructions(text: str) -> tuple[list[str], list[tuple[int, int]]]:
    """Return the instructions, and the first and last one of each loop."""
    found: list[str] = []
    labels: dict[str, int] = {}
    loops = []
    for label, operation, operands in LINE.findall(text):
        if label:
            labels[label] = len(found)
        elif not operation.startswith("NOP"):
            target = re.search(r"\((\.L_\w+)\)", operands)
            if operation.startswith("BRA") and target and target[1] in labels:
                loops.append((labels[target[1]], len(found)))
            found.append(operation.partition(".")[0])
    return found, loops


# --- forecast ------------------------------------------------------------------------------------


def forecast(row: dict[str, Any], known: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    """Return what is forecast of a problem, and what its main kernel is like."""
    seconds = 0.0
    for launch in row["all"]:
        k = known[tuple(launch["kernel"])]
        seconds += START + launch["bytes"] / COPY * (not launch["long"])
        if launch["long"]:
            main, blocks = k | {"name": launch["kernel"][1]}, launch["blocks"]
            passes = launch["long"] * sums_of(main["name"]) / k["products"]
            most = -(-blocks // CARDS["H200"])
            issued = most * (passes * k["loop"] + k["rest"]) * k["threads"] / 128
            used = USED[min(2, most, k["fit"])]
            seconds += max(issued / (CLOCK * used), launch["bytes"] / COPY)
    even = {card: blocks / (-(-blocks // n) * n) for card, n in CARDS.items()}
    return {
        "problem": row["problem"], "launches": len(row["all"]), "blocks": blocks, "even": even,
        "flops": row["operations"] / seconds, **main,
    }  # fmt: skip


def sums_of(name: str) -> int:
    """Return how many sums a thread has, which a kernel's name tells: ..._pixels_columns."""
    if match := re.search(r"_(\d+)_(\d+)", name):
        return int(match[1]) * int(match[2]) // 128
    return int(match[1]) if (match := re.search(r"few_(\d+)", name)) else 8


def report(rows: list[dict[str, Any]]) -> str:
    """Return the forecasts in Markdown."""
    before = {}
    if BEFORE.exists():
        before = {row["problem"]: row for row in json.loads(BEFORE.read_text())}
    text = f"""# Forecasts for CUDA convolutions, from their machine code

Written by `python -m benchmarks gpu_conv`. **Nothing here was measured.** float32 on an H200. Loop:
the share of multiplications among its instructions. Even: how much of the multiprocessors' time the
blocks fill if each takes as long, on an H200 and an A100. TFLOP/s: at {CLOCK / 1e9} GHz, with all
launches, if {USED[2]:.0%} of the issue slots are used ({USED[1]:.0%} by one block alone). They are
compared with the limit, {PEAK / 1e12} TFLOP/s, and with cuDNN, of which {CUDNN / 1e12} are
assumed. Before: the same for the kernels of an earlier state.

"""
    cells = []
    for row in rows:
        old = before.get(row["problem"])
        cells.append([
            row["problem"], f"{row['name']} ({row['registers']} registers, {row['fit']} fit)",
            f"{old['products'] / old['loop']:.0%}" if old else "-",
            f"**{row['products'] / row['loop']:.0%}**", str(row["blocks"]),
            " / ".join(f"{share:.0%}" for share in row["even"].values()),
            f"{old['flops'] / 1e12:.0f}" if old else "-", f"**{row['flops'] / 1e12:.0f}**",
            f"{row['flops'] / PEAK:.0%}", f"{row['flops'] / CUDNN:.2f}",
        ])  # fmt: skip
    header = [
        "problem", "kernel", "loop before", "loop", "blocks", "even", "before", "TFLOP/s",
        "of the limit", "of cuDNN",
    ]  # fmt: skip
    return text + table(header, cells)

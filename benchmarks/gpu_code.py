"""What is known of the CUDA kernels without a GPU: registers, occupancy, and the floors of time.

A floor is the larger of two times that no kernels can go below on a card: the bytes of the arrays
of all launches (not of cuBLAS's), each read or written once, at the bandwidth of memory, and the
operations at the peak of the arithmetic. Which kernels a problem launches, and on what, is found by
running it in a process where launches are noted and not done. It is computed, not measured.
"""

from __future__ import annotations

import functools
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from agnostic_xent.kernels.cuda.toolchain import launching
from agnostic_xent.kernels.cuda.toolchain.compiling import compile_for
from agnostic_xent.kernels.cuda.toolchain.device import xp
from agnostic_xent.kernels.cuda.warmup import modules, variants_of

from . import gpu_launches
from .measure import best_batch, in_subprocess, machine, table, write

CAPABILITY = (9, 0)
CARD = "H100 SXM"
BANDWIDTH = 3.35e12  # bytes a second, of its data sheet; likewise the operations, dense
PEAKS = {"require": 66.9e12, "tf32": 494e12, "tf32x3": 494e12 / 3}
REGISTERS, SHARED, THREADS, BLOCKS = 65536, 227 * 1024, 2048, 32  # of a multiprocessor
RESERVED = 1024  # bytes of shared memory that a block takes for itself
HOST = (("loss.rows", "rows_32_16"), ("conv.tiled", "tiled_simt_128_64_any"), ("optimizers", "sgd"))


def main(quick: bool, inner: str | None) -> None:
    """Compile all kernels, compute the floors, and write both."""
    if inner:
        found = {"problems": gpu_launches.launches(), "steps": gpu_launches.steps()}
        Path(inner).write_text(json.dumps(found))
        return
    found = in_subprocess("gpu_code", quick, {"NUMBA_ENABLE_CUDASIM": "1"})
    kernels = compiled()
    result = {
        "machine": machine(), "card": CARD, "kernels": kernels,
        "floors": floors(found["problems"], kernels), "host": overhead(), "steps": found["steps"],
    }  # fmt: skip
    write("gpu_code", result, report(result))


def compiled() -> list[dict[str, Any]]:
    """Return what the assembler says of each kernel, and how many blocks fit a multiprocessor."""
    found = []
    for name in modules():
        for kernel in variants_of(name):
            bounds = kernel.threads, kernel.blocks
            code = compile_for(CAPABILITY, kernel.function, kernel.parameters, bounds)
            registers, shared = (
                int(match.group(1)) if (match := re.search(pattern, code.report)) else 0
                for pattern in (r"Used (\d+) registers", r"(\d+) bytes smem")
            )
            clean = "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in code.report
            found.append({
                "module": name, "kernel": kernel.function.__qualname__,
                "parameters": kernel.parameters, "threads": kernel.threads,
                "registers": registers, "shared": shared, "clean": clean,
                "blocks": blocks_that_fit(kernel.threads, registers, shared),
            })  # fmt: skip
    return found


def blocks_that_fit(threads: int, registers: int, shared: int) -> int:
    """Return the blocks of a kernel that a multiprocessor holds at once."""
    by_registers = REGISTERS // (math.ceil(registers / 8) * 8 * threads)
    return min(by_registers, THREADS // threads, SHARED // (shared + RESERVED), BLOCKS)


def floors(found: list[dict[str, Any]], kernels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the least seconds of each problem, with what is known of the kernels that it runs."""
    known = {(k["module"], k["kernel"], k["parameters"]): k for k in kernels}
    return [
        {
            **problem,
            "memory": problem["bytes"] / BANDWIDTH,
            "arithmetic": problem["operations"] / PEAKS[problem["mode"]],
            "launches": [known[tuple(key)] for key in problem["launches"]],
        }
        for problem in found
    ]


def overhead() -> dict[str, dict[str, Any]]:
    """Return the seconds of the host for a launch, up to CuPy's call of the driver."""
    memory = xp.cuda.UnownedMemory(256, 256, None, 0)  # which nobody reads
    array = xp.ndarray((64,), np.float32, memptr=xp.cuda.MemoryPointer(memory, 0))
    found = {}
    for module, name in HOST:
        kernel = next(k for k in variants_of(module) if k.function.__qualname__ == name)
        args = [argument(code, array) for code in kernel.parameters.split()]
        fake = SimpleNamespace(
            threads=kernel.threads,
            arguments=kernel.arguments,
            shared=None,
            loaded=lambda: lambda *launch: None,
        )
        launch = functools.partial(launching.launch_on_gpu, fake, (1, 1, 1), args)
        count = len(kernel.arguments.pointers)
        found[name] = {"arguments": count, "seconds": best_batch(launch, 1000, 0.5)}
    return found


def argument(code: str, array: Any) -> Any:
    """Return something for a parameter."""
    kind, pointer, count = code.partition("*")
    if count:
        return (array,) * int(count)
    return array if pointer else np.dtype(kind).type(1)


def report(result: dict[str, Any]) -> str:
    """Return all in Markdown."""
    return (
        "# The CUDA kernels without a GPU\n\nWritten by `python -m benchmarks gpu_code`. "
        "**Nothing here was measured on a GPU.**\n"
        + report_on_floors(result["floors"])
        + report_on_host(result)
        + report_on_code(result["kernels"])
    )


def report_on_floors(problems: list[dict[str, Any]]) -> str:
    """Return the floors, with the registers and occupancy of the kernels."""
    text = f"\n## Floors on an {CARD}, computed\n\nMicroseconds that no kernels can go below, "
    text += "value and gradients together where the problem does not\nname a direction: memory at "
    text += f"{BANDWIDTH / 1e12:.2f} TB/s, operations at {PEAKS['require'] / 1e12:.1f} (float32), "
    text += (
        f"{PEAKS['tf32'] / 1e12:.0f} (tf32)\nand {PEAKS['tf32x3'] / 1e12:.0f} (tf32x3) TFLOP/s; "
    )
    text += (
        "the larger one is the floor. Of each kernel: its registers, and the\noccupancy that they "
    )
    text += (
        "and its shared memory allow. Matrix products are cuBLAS's, and their bytes not counted."
    )
    text += "\n\n"
    rows = [
        [
            p["problem"] + ("" if p["mode"] == "require" else f", {p['mode']}"),
            f"{p['bytes'] / 1e6:.1f}", f"{p['operations'] / 1e9:.2f}", f"{1e6 * p['memory']:.1f}",
            f"{1e6 * p['arithmetic']:.1f}", f"**{1e6 * max(p['memory'], p['arithmetic']):.1f}**",
            ", ".join(dict.fromkeys(map(short, p["launches"]))),
        ]
        for p in problems
    ]  # fmt: skip
    header = ["problem", "MB", "10^9 operations", "memory", "arithmetic", "floor", "kernels"]
    return text + table(header, rows)


def short(kernel: dict[str, Any]) -> str:
    """Return a kernel's name, registers and occupancy."""
    return f"{kernel['kernel']} ({kernel['registers']}, {occupancy(kernel)})"


def occupancy(kernel: dict[str, Any]) -> str:
    """Return the share of a multiprocessor's threads that a kernel's blocks can fill."""
    return f"{kernel['blocks'] * kernel['threads'] / THREADS:.0%}"


def report_on_host(result: dict[str, Any]) -> str:
    """Return what launches and steps cost the host."""
    cpu = result["machine"]["cpu"]
    text = f"\n## The host's part, measured\n\nOn {cpu}. Of a launch, up to CuPy's call of the "
    text += "driver:\n\n"
    rows = [
        [name, str(f["arguments"]), f"{1e6 * f['seconds']:.1f}"]
        for name, f in result["host"].items()
    ]
    text += table(["kernel", "arguments", "microseconds"], rows)
    text += (
        "\nOf a training step of one image of 8 x 8 pixels, without the launches, and with NumPy "
    )
    text += "in CuPy's place:\n\n"
    rows = [
        [name, str(f["launches"]), f"{1e3 * f['seconds']:.2f}"]
        for name, f in result["steps"].items()
    ]
    return text + table(["network", "launches", "milliseconds"], rows)


def report_on_code(kernels: list[dict[str, Any]]) -> str:
    """Return what the assembler says of each kernel."""
    text = "\n## Machine code for sm_90\n\n"
    text += "Blocks that a multiprocessor holds at once, by registers, shared memory and threads;\n"
    text += "occupancy is their threads of 2048. Clean: nothing is spilled or kept on a stack.\n\n"
    header = [
        "file", "kernel", "elements", "threads", "registers", "shared bytes", "blocks",
        "occupancy", "clean",
    ]  # fmt: skip
    keys = ("module", "kernel", "parameters", "threads", "registers", "shared", "blocks")
    rows = [
        [str(k[key]).split("*")[0] for key in keys] + [occupancy(k), "yes" if k["clean"] else "NO"]
        for k in kernels
    ]
    return text + table(header, rows)

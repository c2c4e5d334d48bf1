"""What is known of the CUDA kernels without a GPU: registers, occupancy, and the floors of time.

A floor is the larger of two times that no kernel can go below on a card: its bytes, each read or
written once, at the bandwidth of memory, and its operations at the peak of the arithmetic. It is
computed, not measured.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import re
from typing import Any

from agnostic_xent.kernels.cuda.compiling import compile_for

from . import gpu
from .measure import machine, table, write

CAPABILITY = (9, 0)
CARD = "H100 SXM"
BANDWIDTH, FLOAT32, TF32 = 3.35e12, 66.9e12, 494e12  # of its data sheet, dense
REGISTERS, SHARED, THREADS, BLOCKS = 65536, 227 * 1024, 2048, 32  # of a multiprocessor
RESERVED = 1024  # bytes of shared memory that a block takes for itself


def main(quick: bool, inner: str | None) -> None:
    """Compile all kernels, compute the floors, and write both."""
    result = {"machine": machine(), "card": CARD, "kernels": compiled(), "floors": floors()}
    write("gpu_code", result, report(result))


def compiled() -> list[dict[str, Any]]:
    """Return what the assembler says of each kernel, and how many blocks fit a multiprocessor."""
    package = importlib.import_module("agnostic_xent.kernels.cuda")
    found = []
    for name in sorted(m.name for m in pkgutil.iter_modules(package.__path__)):
        module = importlib.import_module(f"{package.__name__}.{name}")
        for kernel in getattr(module, "variants", list)():
            bounds = kernel.threads, kernel.blocks
            code = compile_for(CAPABILITY, kernel.function, kernel.parameters, bounds)
            registers, shared = (
                int(match.group(1)) if (match := re.search(pattern, code.report)) else 0
                for pattern in (r"Used (\d+) registers", r"(\d+) bytes smem")
            )
            clean = "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in code.report
            found.append({
                "module": name, "kernel": kernel.function.__qualname__,
                "elements": kernel.parameters.split()[0].rstrip("*"), "threads": kernel.threads,
                "registers": registers, "shared": shared, "clean": clean,
                "blocks": blocks_that_fit(kernel.threads, registers, shared),
            })  # fmt: skip
    return found


def blocks_that_fit(threads: int, registers: int, shared: int) -> int:
    """Return the blocks of a kernel that a multiprocessor holds at once."""
    by_registers = REGISTERS // (math.ceil(registers / 8) * 8 * threads)
    return min(by_registers, THREADS // threads, SHARED // (shared + RESERVED), BLOCKS)


def floors() -> list[dict[str, Any]]:
    """Return the least time of loss and gradient, and of each convolution, in seconds."""
    found = [
        {"problem": f"cross entropy {n} x {classes}", "memory": 2 * 4 * n * classes / BANDWIDTH}
        for n, classes in gpu.LOSSES
    ]
    for layer, (n, c, h, w, filters, window, stride, padding) in gpu.LAYERS.items():
        out = [(size + 2 * padding - window) // stride + 1 for size in (h, w)]
        outputs = n * filters * out[0] * out[1]
        numbers = n * c * h * w + filters * c * window**2 + outputs
        operations = 2 * outputs * c * window**2
        found.append({
            "problem": f"conv2d {layer}, a direction", "memory": 4 * numbers / BANDWIDTH,
            "float32": operations / FLOAT32, "tf32": operations / TF32,
            "tf32x3": 3 * operations / TF32,
        })  # fmt: skip
    return found


def report(result: dict[str, Any]) -> str:
    """Return both in Markdown."""
    text = "# The CUDA kernels without a GPU\n\nWritten by `python -m benchmarks gpu_code`. "
    text += "**Nothing here was measured on a GPU.**\n\n## Machine code for sm_90\n\n"
    text += "Blocks that a multiprocessor holds at once, by registers, shared memory and threads;\n"
    text += "occupancy is their threads of 2048. Clean: nothing is spilled or kept on a stack.\n\n"
    text += table(
        ["file", "kernel", "elements", "threads", "registers", "shared bytes", "blocks",
         "occupancy", "clean"],
        [
            [*(str(k[key]) for key in ("module", "kernel", "elements", "threads", "registers",
                                       "shared", "blocks")),
             f"{k['blocks'] * k['threads'] / THREADS:.0%}", "yes" if k["clean"] else "NO"]
            for k in result["kernels"]
        ],
    )  # fmt: skip
    text += f"\n## Floors on an {CARD}, computed\n\nMicroseconds that no kernel can go below: "
    text += f"memory at {BANDWIDTH / 1e12:.2f} TB/s,\noperations at {FLOAT32 / 1e12:.1f} (float32) "
    text += f"and {TF32 / 1e12:.0f} (TF32) TFLOP/s. The larger one counts.\n\n"
    keys = ("memory", "float32", "tf32", "tf32x3")
    return text + table(
        ["problem", *keys],
        [
            [f["problem"], *(f"{1e6 * f[key]:.1f}" if key in f else "" for key in keys)]
            for f in result["floors"]
        ],
    )

"""``agnostic-xent warmup``."""

from __future__ import annotations

import argparse
import re
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from ..core.operation import KERNEL_PACKAGES
from .options import check_writable, working_backend


def add_to(commands: Any) -> None:
    """Add the command."""
    text = "compile all kernels ahead, for later processes to load from disk"
    warm = commands.add_parser("warmup", help=text, description=f"{text[0].upper()}{text[1:]}.")
    text = "whose arrays the kernels are for (default: numpy)"
    warm.add_argument("--backend", choices=KERNEL_PACKAGES, default="numpy", help=text)
    text = (
        "with --backend cupy: the compute capability of the GPUs that the kernels are for, such as "
        "9.0; no GPU has to be here (default: those of the GPUs that are here)"
    )
    warm.add_argument("--capability", type=capability, nargs="+", default=[], help=text)
    text = (
        "with --backend cupy: write the machine code into a folder, which may be carried to "
        "machines without a compiler. There AGNOSTIC_XENT_CUDA_CODE has to name it"
    )
    warm.add_argument("--out", type=Path, metavar="FOLDER", help=text)
    warm.set_defaults(command=run)


def capability(text: str) -> tuple[int, int]:
    """Return the value of an option that is a compute capability."""
    if not re.fullmatch(r"\d+\.\d", text) or tuple(map(int, text.split("."))) < LEAST:
        raise argparse.ArgumentTypeError(f"must be a number like 9.0, at least 8.0, got {text!r}")
    major, minor = text.split(".")
    return int(major), int(minor)


LEAST = 8, 0
"""The compute capability that the kernels need."""


def run(options: argparse.Namespace) -> None:
    """Compile, and print each kernel when it is ready."""
    start = time.perf_counter()
    for_gpus = [options.capability, options.out] if options.capability or options.out else []
    if for_gpus and options.backend != "cupy":
        raise ValueError("arguments --capability and --out: they need --backend cupy")
    if not options.capability:
        working_backend(options.backend)
    if options.out:
        check_writable("--out", options.out)
    warmup = import_module(f"{KERNEL_PACKAGES[options.backend]}.warmup")
    for name, seconds in warmup.compile_all(*for_gpus):
        print(f"{seconds:6.1f} s  {name}", flush=True)
    print(f"all kernels are ready after {time.perf_counter() - start:.0f} s")

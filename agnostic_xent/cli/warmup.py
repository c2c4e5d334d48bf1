"""``agnostic-xent warmup``."""

from __future__ import annotations

import argparse
import time
from importlib import import_module
from typing import Any

from ..core.operation import KERNEL_PACKAGES
from .options import working_backend


def add_to(commands: Any) -> None:
    """Add the command."""
    text = "compile all kernels ahead, for later processes to load from disk"
    warm = commands.add_parser("warmup", help=text, description=f"{text[0].upper()}{text[1:]}.")
    text = "whose arrays the kernels are for (default: numpy)"
    warm.add_argument("--backend", choices=KERNEL_PACKAGES, default="numpy", help=text)
    warm.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Compile, and print each kernel when it is ready."""
    start = time.perf_counter()
    working_backend(options.backend)
    ready = import_module(f"{KERNEL_PACKAGES[options.backend]}.warmup").compile_all()
    for name, seconds in ready:
        print(f"{seconds:6.1f} s  {name}", flush=True)
    print(f"all kernels are ready after {time.perf_counter() - start:.0f} s")

"""``agnostic-xent warmup``."""

from __future__ import annotations

import argparse
import time
from importlib import import_module
from typing import Any


def add_to(commands: Any) -> None:
    """Add the command."""
    text = "compile all CPU kernels ahead, for later processes to load from disk"
    warm = commands.add_parser("warmup", help=text, description=f"{text.capitalize()}.")
    warm.set_defaults(command=run)


def run(options: argparse.Namespace) -> None:
    """Compile, and print each kernel when it is ready."""
    start = time.perf_counter()
    ready = import_module("...kernels.cpu.warmup", __name__).compile_all()
    for name, seconds in ready:
        print(f"{seconds:6.1f} s  {name}", flush=True)
    print(f"all kernels are ready after {time.perf_counter() - start:.0f} s")

"""Compilation of everything ahead."""

from __future__ import annotations

import importlib
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

from .toolchain.compiling import LOOPS
from .toolchain.threads import threads


def calls() -> Iterator[tuple[str, str, Any]]:
    """Yield the module, the name and the variant of all that is compiled ahead."""
    importlib.import_module(__package__)  # all kernels
    for loop in LOOPS:
        for variant in loop.variants():
            yield loop.function.__module__, loop.function.__name__, variant


def compile_all() -> Iterator[tuple[str, float]]:
    """Compile in as many processes as there are threads; yield what is ready, and its seconds."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(threads(), context) as pool:
        futures = [pool.submit(_timed, *call) for call in calls()]
        for future in as_completed(futures):
            yield future.result()


def _timed(module: str, name: str, variant: Any) -> tuple[str, float]:
    start = time.perf_counter()
    getattr(importlib.import_module(module), name)[variant]
    seconds = time.perf_counter() - start
    choices = variant if isinstance(variant, tuple) else (variant,)
    names = ", ".join(getattr(choice, "__name__", str(choice)) for choice in choices)
    return f"{module.rpartition('.')[2]}.{name}[{names}]", seconds

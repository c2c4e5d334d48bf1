"""Compilation of all CUDA kernels ahead, for later processes to load from disk."""

from __future__ import annotations

import importlib
import multiprocessing
import pkgutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from ..compiler import config
from .toolchain.compiling import compile_into, machine_code
from .toolchain.device import xp
from .toolchain.launching import Kernel

PACKAGE = __name__.rpartition(".")[0]
Capability = tuple[int, int]


def variants_of(module: str) -> list[Kernel]:
    """Return all kernels of a module of this package; most have none."""
    found: list[Kernel] = getattr(
        importlib.import_module(f"{PACKAGE}.{module}"), "variants", list
    )()
    return found


def modules() -> list[str]:
    """Return the dotted names of the modules of this package."""
    package = importlib.import_module(PACKAGE)
    found = pkgutil.walk_packages(package.__path__, f"{PACKAGE}.")
    return sorted(m.name.removeprefix(f"{PACKAGE}.") for m in found if not m.ispkg)


def capabilities() -> list[Capability]:
    """Return the compute capabilities of the devices that are here."""
    devices = map(xp.cuda.Device, range(xp.cuda.runtime.getDeviceCount()))
    found = {int(device.compute_capability) for device in devices}
    return [divmod(capability, 10) for capability in sorted(found)]


def compile_all(
    chosen: Sequence[Capability] = (), out: Path | None = None
) -> Iterator[tuple[str, float]]:
    """Compile all kernels, in a process a core; yield each one's name and seconds when ready.

    They are for some compute capabilities, by default those of the devices that are here, and go
    into a folder that can be carried to other machines, by default into this machine's cache.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(config.NUMBA_NUM_THREADS, context) as pool:
        futures = [
            pool.submit(timed, module, place, capability, out)
            for module in modules()
            for place in range(len(variants_of(module)))
            for capability in chosen or capabilities()
        ]
        for future in as_completed(futures):
            yield future.result()


def timed(module: str, place: int, capability: Capability, out: Path | None) -> tuple[str, float]:
    """Compile the kernel at ``place`` among those of a module; return its name and seconds."""
    start = time.perf_counter()
    kernel = variants_of(module)[place]
    key = capability, kernel.function, kernel.parameters, (kernel.threads, kernel.blocks)
    if out is None:
        machine_code(*key)
    else:
        compile_into(out, *key)
    name = f"{module}.{kernel.function.__qualname__}({kernel.parameters})"
    return name, time.perf_counter() - start

"""From a Python function to machine code for a GPU, which need not be there."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
import logging
import os
import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from numba import cuda as _cuda
from numba import types as _types

from ... import store
from ...stamps import source_stamp

cuda: Any = _cuda  # Numba is typed in part only
types: Any = _types
logger = logging.getLogger("agnostic_xent")

NUMBERS = {
    "f2": types.float16, "f4": types.float32, "f8": types.float64,
    "i1": types.int8, "u1": types.uint8, "u2": types.uint16, "i4": types.int32,
    "u4": types.uint32, "i8": types.int64, "b1": types.boolean,
}  # fmt: skip
"""NumPy's codes of the types that parameters have; ``f4*`` is a pointer to float32."""


class Code(NamedTuple):
    """A compiled kernel, and what the assembler says of it."""

    name: str
    cubin: bytes
    report: str
    """What the assembler says of registers, spills and shared memory."""
    ptx: str


def compile_for(
    capability: tuple[int, int],
    function: Callable[..., None],
    parameters: str,
    bounds: tuple[int, int],
) -> Code:
    """Compile a kernel for a compute capability; this asks no driver and no GPU.

    ``bounds`` are its threads in a block, and the blocks that fit a multiprocessor at least.
    """
    signature = types.void(*map(numba_type, parameters.split()))
    # A device function asks the driver for the capability; answer for it.
    here = SimpleNamespace(compute_capability=capability)
    with mock.patch("numba.cuda.dispatcher.get_current_device", return_value=here), row_stack():
        ptx, _ = cuda.compile_ptx(function, signature, cc=capability, launch_bounds=bounds)
    (name,) = re.findall(r"\.visible \.entry (\w+)\(", ptx)
    return Code(name, *assemble(ptx, capability), ptx)


def row_stack() -> AbstractContextManager[Any]:
    """Lend NumPy the name that 2.5 took out: numba-cuda 0.30 looks it up as its compiler loads."""
    return mock.patch.object(np, "row_stack", getattr(np, "row_stack", np.vstack), create=True)


def numba_type(code: str) -> Any:
    """Return the type of a parameter: ``i4`` a number, ``f4*`` a pointer, ``f4*8`` a tuple of 8."""
    kind, pointer, count = code.partition("*")
    if not pointer:
        return NUMBERS[kind]
    one = types.CPointer(NUMBERS[kind])
    return types.UniTuple(one, int(count)) if count else one


def assemble(ptx: str, capability: tuple[int, int]) -> tuple[bytes, str]:
    """Return the machine code of PTX, and the assembler's report on it."""
    nvjitlink: Any = importlib.import_module("cuda.bindings.nvjitlink")
    arch = f"-arch=sm_{capability[0]}{capability[1]}"
    link = nvjitlink.create(3, [arch, "-verbose", "-O3"])
    try:
        data = ptx.encode()
        nvjitlink.add_data(link, nvjitlink.InputType.PTX, data, len(data), "kernel")
        nvjitlink.complete(link)
        cubin = bytearray(nvjitlink.get_linked_cubin_size(link))
        nvjitlink.get_linked_cubin(link, cubin)
        log = bytearray(nvjitlink.get_info_log_size(link))
        nvjitlink.get_info_log(link, log)
    finally:
        nvjitlink.destroy(link)
    return bytes(cubin), log.decode().rstrip("\0")


# --- kept on disk --------------------------------------------------------------------------------


def machine_code(
    capability: tuple[int, int],
    function: Callable[..., None],
    parameters: str,
    bounds: tuple[int, int],
) -> tuple[str, bytes]:
    """Return a kernel's name and machine code, compiled now, earlier, or ahead elsewhere."""
    source, identity = source_of(function), identity_of(capability, function, parameters, bounds)
    kept = None
    if carried := os.environ.get(CARRIED):
        name = store.file_name(function, *identity)
        kept = store.load(name, source, [Path(carried).expanduser()])
    name = store.file_name(function, *identity, compilers())
    kept = kept or store.load(name, source)
    if kept:
        name_there, _, cubin = kept.partition(b"\n")
        return name_there.decode(), cubin
    logger.info("compiling %s for the first time on this machine", function.__name__)
    code = compile_for(capability, function, parameters, bounds)
    store.keep(name, source, content_of(code))
    return code.name, code.cubin


CARRIED = "AGNOSTIC_XENT_CUDA_CODE"
"""Names a folder of machine code that `compile_into` has filled, perhaps on another machine."""


def compile_into(
    folder: Path,
    capability: tuple[int, int],
    function: Callable[..., None],
    parameters: str,
    bounds: tuple[int, int],
) -> None:
    """Compile a kernel for machines that need no compiler: they look into a copy of the folder."""
    code = compile_for(capability, function, parameters, bounds)
    name = store.file_name(function, *identity_of(capability, function, parameters, bounds))
    store.write(folder, name, source_of(function), content_of(code))


def content_of(code: Code) -> bytes:
    """Return what is kept of a compiled kernel."""
    return code.name.encode() + b"\n" + code.cubin


# --- what machine code depends on ----------------------------------------------------------------


def identity_of(
    capability: tuple[int, int],
    function: Callable[..., None],
    parameters: str,
    bounds: tuple[int, int],
) -> tuple[Any, ...]:
    """Return what machine code depends on, but for our source and who compiles it."""
    return values_of(function), parameters, bounds, capability


def source_of(function: Callable[..., None]) -> str:
    """Return hashes of our source, and of the file of a function, which may be a test's."""
    return f"{source_stamp('cuda')} {hash_of(function.__code__.co_filename)}"


@cache
def hash_of(file: str) -> str:
    """Return a hash of a file."""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def values_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the constants that a function and those that it calls find around them, as text.

    They are compiled in: numbers of modules and of the functions that made these.
    """
    found: list[str] = []
    seen: set[Any] = set()

    def visit(where: str, x: Any) -> None:
        x = getattr(x, "py_func", x)
        if isinstance(x, bool | int | float | str | np.generic):
            found.append(f"{where}={x!r}")
        elif isinstance(x, tuple):
            for place, element in enumerate(x):
                visit(f"{where}[{place}]", element)
        elif isinstance(x, type):
            found.append(f"{where}={x.__module__}.{x.__qualname__}")
        elif isinstance(x, FunctionType) and x not in seen:
            seen.add(x)
            around = inspect.getclosurevars(x)
            for name, value in sorted({**around.globals, **around.nonlocals}.items()):
                visit(f"{where}.{name}", value)

    visit(function.__name__, function)
    return tuple(found)


@cache
def compilers() -> tuple[str, ...]:
    """Return the names and versions of what makes machine code, of those packages that are here.

    Numba reads the bytecode of Python, which differs between its versions.
    """
    chain = "numba", "numba-cuda", "llvmlite", "cuda-bindings", "nvidia-nvvm", "nvidia-nvjitlink"
    here = [d for name in chain for d in importlib.metadata.distributions(name=name)]
    return str(sys.implementation.cache_tag), *(f"{d.name} {d.version}" for d in here)

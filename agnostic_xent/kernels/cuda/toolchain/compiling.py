"""From a Python function to machine code for a GPU, which need not be there."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import logging
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
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
    """Return a kernel's name and machine code, compiled now or earlier on this machine."""
    name = store.file_name(function, parameters, bounds, capability)
    source = stamp(function.__code__.co_filename)
    kept = store.load(name, source)
    if kept is not None:
        name_there, _, cubin = kept.partition(b"\n")
        return name_there.decode(), cubin
    logger.info("compiling %s for the first time on this machine", function.__name__)
    code = compile_for(capability, function, parameters, bounds)
    store.keep(name, source, code.name.encode() + b"\n" + code.cubin)
    return code.name, code.cubin


@cache
def stamp(own: str) -> str:
    """Return what compiled code depends on: our source, the function's file, the compiler."""
    source = hashlib.sha256(Path(own).read_bytes()).hexdigest()  # of a test, it may be elsewhere
    versions = map(importlib.metadata.version, ("numba", "numba-cuda"))
    return " ".join((source_stamp("cuda"), source, *versions))

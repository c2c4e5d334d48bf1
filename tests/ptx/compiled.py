"""What kernels are compiled to for a GPU, once for all tests of this checkout."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

from numba.cuda.codegen import CUDACodeLibrary

from agnostic_xent.kernels import store
from agnostic_xent.kernels.cuda.toolchain import compiling

from . import FOLDER


class Compiled(NamedTuple):
    """The name of a kernel, its PTX, and what the assembler says of it."""

    name: str
    ptx: str
    report: str


def compiled(
    capability: tuple[int, int],
    function: Callable[..., None],
    parameters: str,
    bounds: tuple[int, int],
) -> Compiled:
    """Return what a kernel is compiled to, now or earlier."""
    key = capability, function, parameters, bounds
    name = store.file_name(function, *compiling.identity_of(*key), compiling.compilers())
    source = compiling.source_of(function)
    kept = store.load(name, source, [FOLDER])
    if kept:
        return Compiled(*json.loads(kept))
    code = code_for(*key)
    made = Compiled(code.name, code.ptx, code.report)
    store.write(FOLDER, name, source, json.dumps(made).encode())
    return made


LAST: dict[tuple[Any, ...], tuple[str, CUDACodeLibrary]] = {}
"""The kernel that was compiled last: its name, and what Numba has made of it for all GPUs."""


def code_for(capability: tuple[int, int], *kernel: Any) -> compiling.Code:
    """Return what `compile_for` does, of the last kernel without the part that all GPUs share."""
    if kernel in LAST:
        name, library = LAST[kernel]
        (ptx,) = library.get_asm_strs(cc=capability)
        return compiling.Code(name, *compiling.assemble(ptx, capability), ptx)
    get_asm_strs, libraries = CUDACodeLibrary.get_asm_strs, []

    def noted(library: Any, cc: Any = None) -> Any:
        libraries.append(library)
        return get_asm_strs(library, cc=cc)

    with mock.patch.object(CUDACodeLibrary, "get_asm_strs", noted):
        code = compiling.compile_for(capability, *kernel)
    LAST.clear()
    LAST[kernel] = code.name, libraries[-1]
    return code

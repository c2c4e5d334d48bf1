"""What kernels are compiled to for a GPU, once for all tests of this checkout."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple

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
    code = compiling.compile_for(*key)
    made = Compiled(code.name, code.ptx, code.report)
    store.write(FOLDER, name, source, json.dumps(made).encode())
    return made

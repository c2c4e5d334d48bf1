"""Compiled functions on disk: what stands in for Numba's own cache.

Numba's knows neither the other files of this package nor the settings of its compiler. It raises
where a file is damaged or the disk is full, and writes to a folder before it reads there.
"""

from __future__ import annotations

import functools
import logging
import pickle
import sys
from collections.abc import Callable
from typing import Any

import llvmlite as _llvmlite
import numba as _numba
import numpy as np
from numba.core import compiler as _compiler
from numba.core.serialize import dumps as _dumps

from ... import store
from ...stamps import source_stamp

llvmlite: Any = _llvmlite
numba: Any = _numba  # Numba is typed in part only
compiler: Any = _compiler
dumps: Any = _dumps
logger = logging.getLogger("agnostic_xent")

SETTINGS = (
    "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "USING_SVML", "BOUNDSCHECK", "DEBUGINFO_DEFAULT",
    "EXTEND_VARIABLE_LIFETIMES", "LLVM_REFPRUNE_PASS", "LLVM_REFPRUNE_FLAGS",
)  # fmt: skip
"""Of Numba, that change the code; those of the processor are in the name of the target."""


@functools.cache
def source() -> str:
    """Return a hash of all source that machine code may depend on."""
    return source_stamp("cpu")


def compilers() -> tuple[Any, ...]:
    """Return what else machine code depends on: versions and settings."""
    versions = numba.__version__, llvmlite.__version__, np.__version__
    python = sys.implementation.cache_tag, getattr(sys, "abiflags", "")
    return (*python, *versions, *(getattr(numba.config, name, None) for name in SETTINGS))


class Cache:
    """What a dispatcher of Numba asks for machine code, and gives it to."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    def _name(self, signature: Any, codegen: Any) -> str:
        target = codegen.magic_tuple()
        return store.file_name(self.function, str(signature), target, compilers())

    def load_overload(self, signature: Any, target: Any) -> Any:
        """Return compiled code, or None and say that it is about to be made."""
        target.refresh()
        kept = store.load(self._name(signature, target.codegen()), source())
        if kept is not None:
            try:
                return compiler.CompileResult._rebuild(target, *pickle.loads(kept))
            except Exception as error:  # of whatever else may differ
                store.tell_once("compiled code on disk is foreign, and made anew: %s", error)
        logger.info("compiling %s for the first time on this machine", self.function.__name__)
        return None

    def save_overload(self, signature: Any, made: Any) -> None:
        """Keep compiled code, unless addresses of this process are in it."""
        if not made.library.has_dynamic_globals:
            store.keep(self._name(signature, made.codegen), source(), dumps(made._reduce()))

"""Compiled functions: one a signature, at its first use, and kept on disk."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import llvmlite as _llvmlite
from numba import njit as _njit
from numba import types as _types
from numba.core.caching import FunctionCache

from ...stamps import source_stamp
from .threads import guarded, in_parts, start_threads
from .threads import threads as threads

llvmlite: Any = _llvmlite
njit: Any = _njit  # Numba is typed in part only
types: Any = _types
logger = logging.getLogger("agnostic_xent")


@functools.cache
def stamp() -> tuple[str, str]:
    """Return what machine code depends on that Numba does not look at."""
    return source_stamp("cpu"), llvmlite.__version__


class PackageCache(FunctionCache):  # type: ignore[misc,unused-ignore]
    """Numba's cache, with a key that also sees edits of the other files of this package.

    Numba itself looks at the file of the function alone and would go on to use a helper's old code.
    """

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        numba_key: Any = super()._index_key
        return (*numba_key(sig, codegen), *stamp())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Load compiled code, or say that it is about to be made."""
        load: Any = super().load_overload
        try:
            found = load(sig, target_context)
        except (AttributeError, ImportError):  # an older version left names that are gone
            forget: Any = self.flush
            forget()
            found = None
        if found is None:
            logger.info("compiling %s for the first time on this machine", self._py_func.__name__)
        return found


def compiled(function: Callable[..., Any], signature: Any, parallel: bool = False) -> Any:
    """Compile a function for one signature, or load it from disk."""
    if parallel:
        start_threads()
    options = {"parallel": parallel, "error_model": "numpy", "nogil": True}
    dispatcher: Any = njit(**options, no_cfunc_wrapper=True)(function)
    make_cache: Any = PackageCache
    try:
        dispatcher._cache = make_cache(function)
    except RuntimeError as error:  # there is no folder to write to
        logger.info("compiled code is not kept: %s", error)
    dispatcher.compile(signature)
    dispatcher.disable_compile()
    return guarded(dispatcher) if parallel else dispatcher


def compiled_in_parts(function: Callable[..., Any], signature: Any, pieces: int = 1) -> Any:
    """Compile ``function(*args, parts, part)`` for a signature, to be called with ``*args``.

    There are so many ``pieces`` as parts a thread: one, unless parts need no memory of their own.
    """
    return in_parts(compiled(function, types.void(*signature, types.int64, types.int64)), pieces)


def array_in(dtype: Any, ndim: int) -> Any:
    """Return the type of a contiguous argument that is only read: it may be read-only."""
    return types.Array(dtype, ndim, "C", readonly=True)


def array_out(dtype: Any, ndim: int) -> Any:
    """Return the type of a contiguous array that is written to."""
    return types.Array(dtype, ndim, "C")

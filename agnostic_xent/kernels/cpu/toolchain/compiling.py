"""Compiled functions: one a signature, at its first use, and kept on disk."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, TypeVar

import llvmlite as _llvmlite
from numba import extending as _extending
from numba import njit as _njit
from numba.core.caching import FunctionCache

from ...stamps import source_stamp
from .signatures import signature_of
from .threads import InParts

llvmlite: Any = _llvmlite
extending: Any = _extending
njit: Any = _njit  # Numba is typed in part only
logger = logging.getLogger("agnostic_xent")

LOOPS: list[Compiled] = []
"""All compiled functions of the modules that are imported."""


class Compiled(dict[Any, Any]):
    """A function's machine code for each variant, made when it is first asked for.

    ``loop[variant]`` is compiled for a choice of each of ``choices``: a tuple, or the only one.
    With ``pieces`` it is an `InParts`, called without its last two arguments, parts and part.
    """

    def __init__(
        self, function: Callable[..., Any], choices: dict[str, tuple[Any, ...]], pieces: int = 0
    ):
        self.function, self.choices, self.pieces = function, choices, pieces
        LOOPS.append(self)

    def __missing__(self, variant: Any) -> Any:
        values = variant if isinstance(variant, tuple) else (variant,)
        chosen = dict(zip(self.choices, values, strict=True))
        made = machine_code(self.function, signature_of(self.function, chosen))
        self[variant] = InParts(made, self.pieces) if self.pieces else made
        return self[variant]

    def variants(self) -> Iterator[Any]:
        """Yield every variant that is compiled ahead."""
        for values in product(*self.choices.values()):
            yield values[0] if len(values) == 1 else values


def compiled(**choices: tuple[Any, ...]) -> Callable[[Callable[..., Any]], Compiled]:
    """Return the decorator of a function that is compiled for each combination of ``choices``."""
    return lambda function: Compiled(function, choices)


def compiled_in_parts(
    pieces: int = 1, **choices: tuple[Any, ...]
) -> Callable[[Callable[..., Any]], Compiled]:
    """Return the decorator of a function ``(*args, parts, part)`` whose parts threads share out.

    There are so many ``pieces`` as parts a thread: one, unless parts need no memory of their own.
    """
    return lambda function: Compiled(function, choices, pieces)


F = TypeVar("F", bound=Callable[..., Any])
shared: Callable[[F], F] = extending.register_jitable(error_model="numpy")
"""Decorator of a function that is called both by Python and by compiled code."""


# --- machine code --------------------------------------------------------------------------------


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


def machine_code(function: Callable[..., Any], signature: Any) -> Any:
    """Compile a function for one signature, or load it from disk."""
    dispatcher: Any = njit(error_model="numpy", nogil=True, no_cfunc_wrapper=True)(function)
    make_cache: Any = PackageCache
    try:
        dispatcher._cache = make_cache(function)
    except RuntimeError as error:  # there is no folder to write to
        logger.info("compiled code is not kept: %s", error)
    dispatcher.compile(signature)
    dispatcher.disable_compile()
    return dispatcher

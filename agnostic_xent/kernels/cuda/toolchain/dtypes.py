"""How numbers are stored, and in what kernels compute: halves in float32, and rounded once."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .device import SIMULATED, contiguous, is_array, xp

STORED = {"float32": "f4", "float64": "f8", "float16": "f2", "bfloat16": "u2"}
"""The codes of the dtypes that kernels take; a bfloat16 is the 16 bits of an unsigned integer."""

WIDE = {"f4": np.float32, "f8": np.float64, "f2": np.float32, "u2": np.float32}
"""The type that kernels compute in, by the code of the elements' dtype."""

VECTOR = {"f4": 4, "f8": 2, "f2": 8, "u2": 8}
"""How many elements are 16 bytes, by the code of their dtype."""


def of_wide(code: str) -> str:
    """Return the code of the type that kernels compute in, for elements of the dtype ``code``."""
    return np.dtype(WIDE[code]).str[1:]


def takes(*arrays: Any, **options: Any) -> str | None:
    """Return why kernels do not take arrays, None if they do; an array may be None."""
    for x in (*arrays, *options.values()):
        if not hasattr(x, "dtype"):
            continue
        if not is_array(x):
            return f"it takes {xp.__name__}.ndarray, not {type(x).__name__}"
        if not x.dtype.isnative:
            return f"it takes native byte order, not {x.dtype.str}"
    dtype = arrays[0].dtype
    return None if dtype.name in STORED else f"it takes {', '.join(STORED)}, not {dtype}"


def code_of(x: Any) -> str:
    """Return the code of the dtype of ``x``, such as "f4"."""
    return _code(x.dtype)


@functools.cache
def _code(dtype: Any) -> str:
    return STORED[dtype.name]  # the name is made anew each time


def elements(x: Any) -> Any:
    """Return the elements of ``x`` in C order, in memory that begins at a multiple of 16 bytes.

    None stays None.
    """
    if x is None:
        return None
    flat = contiguous(x).reshape(-1)
    start = flat.ctypes.data if SIMULATED else flat.data.ptr
    return stored(flat.copy() if start % 16 else flat)


def stored(x: Any) -> Any:
    """Return a contiguous array as kernels take it: a bfloat16 as the integer of its bits."""
    return x.view(xp.uint16) if x.dtype.kind == "V" else x  # bfloat16, of those that are taken


def given(x: Any) -> Any:
    """Return ``x`` as kernels take it, copied if its elements are not in C order; or None."""
    return None if x is None else stored(contiguous(x))


def wide(x: Any) -> Any:
    """Return the elements of ``x`` in the dtype that kernels compute in; None stays None."""
    return None if x is None else contiguous(x.astype(WIDE[code_of(x)], copy=False)).reshape(-1)

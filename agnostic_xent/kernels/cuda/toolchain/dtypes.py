"""How numbers are stored, and in what kernels compute: halves in float32, and rounded once."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .device import SIMULATED, contiguous, is_array, xp


def of_wide(code: str) -> str:
    """Return the code of what is computed in."""
    return np.dtype(WIDE[code]).str[1:]


STORED = {"float32": "f4", "float64": "f8", "float16": "f2", "bfloat16": "u2"}
"""The codes of the dtypes that kernels take; a bfloat16 is the 16 bits of an unsigned integer."""

WIDE = {"f4": np.float32, "f8": np.float64, "f2": np.float32, "u2": np.float32}
"""What kernels compute in."""

VECTOR = {"f4": 4, "f8": 2, "f2": 8, "u2": 8}
"""Elements of 16 bytes."""


def takes(*arrays: Any, **options: Any) -> str | None:
    """Say why arrays are not taken, if they are not; None stands for one that is not there."""
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
    """Return the code of an array's dtype."""
    return _code(x.dtype)


@functools.cache
def _code(dtype: Any) -> str:
    return STORED[dtype.name]  # the name is made anew each time


def elements(x: Any) -> Any:
    """Return an array's elements in their order, as kernels read them: from a multiple of 16 bytes.

    None stays None.
    """
    if x is None:
        return None
    flat = contiguous(x).reshape(-1)
    start = flat.ctypes.data if SIMULATED else flat.data.ptr
    return stored(flat.copy() if start % 16 else flat)


def stored(x: Any) -> Any:
    """Return a contiguous array as kernels see it."""
    return x.view(xp.uint16) if x.dtype.kind == "V" else x  # bfloat16, of those that are taken


def wide(x: Any) -> Any:
    """Return an array's elements in the dtype that kernels compute in; None stays None."""
    return None if x is None else contiguous(x.astype(WIDE[code_of(x)], copy=False)).reshape(-1)

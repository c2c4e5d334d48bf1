"""Which arrays the kernels take, and how their loops read them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .signatures import FLOATS

NOTHING = {dtype: np.empty(0, dtype) for dtype in FLOATS}
"""Dtype -> what loops read in place of an array that is not there."""


def why_not(*arrays: Any) -> str | None:
    """Return why arrays are not taken, or None; those that are None are."""
    for x in arrays:
        if x is not None and type(x) not in (np.ndarray, np.memmap):
            return f"it takes numpy.ndarray, not {type(x).__name__}"
    dtype = arrays[0].dtype
    if dtype not in FLOATS:
        return f"it takes float32 and float64 in native byte order, not {dtype.str}"
    return None


def flat(x: Any) -> Any:
    """Return the elements of an array in order, without a copy where it can be."""
    return np.ascontiguousarray(x).reshape(-1)


def flat_or_nothing(x: Any, dtype: Any) -> Any:
    """Return the elements of an array in order; none of this dtype for None."""
    return NOTHING[dtype] if x is None else flat(x)

"""Which arrays the kernels take."""

from __future__ import annotations

from typing import Any

import numpy as np

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def why_not(*arrays: Any) -> str | None:
    """Say why arrays are not taken, if they are not: None, or floating as the first one is."""
    for x in arrays:
        if x is not None and type(x) not in (np.ndarray, np.memmap):
            return f"it takes numpy.ndarray, not {type(x).__name__}"
    dtype = arrays[0].dtype
    if dtype not in FLOATS:
        return f"it takes float32 and float64 in native byte order, not {dtype.str}"
    return None

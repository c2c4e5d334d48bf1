"""Where the kernels run: on the GPU over CuPy arrays, or in Numba's simulator over NumPy arrays.

The simulator (``NUMBA_ENABLE_CUDASIM=1``) runs every kernel on the CPU, a thread of the operating
system for each CUDA thread: for tests on small shapes.
"""

from __future__ import annotations

import importlib
from typing import Any

from numba import config as _config

config: Any = _config  # Numba is typed in part only
SIMULATED = bool(config.ENABLE_CUDASIM)

LIBRARY = "numpy" if SIMULATED else "cupy"
"""The library whose arrays the kernels take."""

xp: Any = importlib.import_module(LIBRARY)


def is_array(x: Any) -> bool:
    """Tell whether an array is one that the kernels take, and no subclass of it."""
    return type(x) is xp.ndarray


def contiguous(x: Any) -> Any:
    """Return the array, or a copy, with its elements in C order."""
    return xp.ascontiguousarray(x)

"""Machine code of one function for one signature, compiled or loaded from disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit as _njit

from .cache import Cache

njit: Any = _njit  # Numba is typed in part only


def machine_code(function: Callable[..., Any], signature: Any) -> Any:
    """Compile a function for one signature, or load it from disk."""
    dispatcher: Any = njit(error_model="numpy", nogil=True, no_cfunc_wrapper=True)(function)
    dispatcher._cache = Cache(function)
    dispatcher.compile(signature)
    dispatcher.disable_compile()
    return dispatcher

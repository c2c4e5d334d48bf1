"""Functions of a number that several families of kernels compute."""

from __future__ import annotations

import math
from typing import Any

from .teams import device

# --- formulas ------------------------------------------------------------------------------------


@device
def exp_minus_abs(v: Any) -> Any:
    """Return exp(-abs(v)), which never overflows."""
    return type(v)(math.exp(-abs(v)))


@device
def sigmoid_of(v: Any) -> Any:
    """Return 1 / (1 + exp(-v))."""
    one, e = type(v)(1), exp_minus_abs(v)
    return (one if v >= 0 else e) / (one + e)

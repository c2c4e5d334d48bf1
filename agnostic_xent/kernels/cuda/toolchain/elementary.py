"""Functions of numbers that several families of kernels compute."""

from __future__ import annotations

import math
from typing import Any

from .teams import device


@device
def exp_minus_abs(v: Any) -> Any:
    """Return exp(-abs(v)), which never overflows."""
    return type(v)(math.exp(-abs(v)))


@device
def sigmoid_of(v: Any) -> Any:
    """Return 1 / (1 + exp(-v))."""
    one, e = type(v)(1), exp_minus_abs(v)
    return (one if v >= 0 else e) / (one + e)


@device
def times_log(t: Any, x: Any) -> Any:
    """Return t * x, of a logarithm or its slope x, with 0 * inf = 0."""
    kind = type(t)
    return kind(0) if t == 0 and abs(x) == kind(math.inf) else t * x

"""Functions of numbers that several families of kernels compute."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .ptx import exp2, fma
from .teams import device

LOG2E, MINUS_LN2 = np.float32(1 / math.log(2)), np.float32(-math.log(2))


@device
def exp32(v: Any) -> Any:
    """Return exp(v) of a float32 v <= 0, or NaN; 0 in place of denormal numbers.

    That is 2^t for a t near v / log(2), and what is missing to v, to first order. The instruction
    for powers of two has an error of 2^-22.
    """
    t = v * LOG2E
    missing = fma(t, MINUS_LN2, v)
    e = exp2(t)
    return fma(e, missing if missing < 1 else np.float32(1), e)  # inf - inf is NaN


@device
def exp64(v: Any) -> Any:
    """Return exp(v) of a float64."""
    return math.exp(v)


EXPONENTIALS: dict[Any, Callable[..., Any]] = {np.float32: exp32, np.float64: exp64}
"""Exponentials of numbers that are not positive, by the type of these."""


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
def tanh32(v: Any) -> Any:
    """Return tanh(v) of a float32, which is ``-m / (m + 2)`` with ``m = exp(-2 v) - 1`` for v >= 0.

    The digits that m has lost for a small v are those that its logarithm lacks, too (Kahan).
    """
    y = -abs(v + v)
    u = np.float32(math.exp(y))
    m = u - np.float32(1)
    if m == 0:
        return v
    if u > 0.5:
        m *= y / np.float32(math.log1p(m))
    t = m / (m + np.float32(2))
    return -t if v > 0 else t


@device
def tanh64(v: Any) -> Any:
    """Return tanh(v) of a float64, by the same formula."""
    m = math.expm1(-abs(v + v))
    t = m / (m + 2.0)
    return -t if v > 0 else t


HYPERBOLIC_TANGENTS: dict[Any, Callable[..., Any]] = {np.float32: tanh32, np.float64: tanh64}
"""By the type of the number."""


@device
def times_log(t: Any, x: Any) -> Any:
    """Return t * x, of a logarithm or its slope x, with 0 * inf = 0."""
    kind = type(t)
    return kind(0) if t == 0 and abs(x) == kind(math.inf) else t * x

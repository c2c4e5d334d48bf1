"""Sweeps over a row of classes: exponentials, their sum, and what they are scaled by."""

from __future__ import annotations

from typing import Any

import numpy as np

from .elementary import SUM, exp_biased, inlined, njit, plain, row_sum

PIECE = 1024  # classes that are summed in the dtype of the logits; pieces are added in float64


@njit(**SUM, forceinline=True)
def _exponentials(x: Any, top: Any, inverse_temperature: Any, e: Any) -> Any:
    total = x.dtype.type(0)
    for j in range(x.size):
        value = exp_biased((x[j] - top) * inverse_temperature)
        e[j] = value
        total += value
    return total


@njit(**SUM)
def exponentials(x: Any, top: Any, inverse_temperature: Any, e: Any) -> Any:
    """Store the biased exponentials of a piece x of a row in e and return their sum."""
    if inverse_temperature == 1:  # a factor that is known to be 1 costs nothing
        return _exponentials(x, top, x.dtype.type(1), e)
    return _exponentials(x, top, inverse_temperature, e)


@inlined
def scale(e: Any, a: Any) -> None:
    """Multiply the row e by the number a."""
    for j in range(e.size):
        e[j] = e[j] * a


@plain
def sum_beside_maximum(e: Any, total: Any, unbias: Any) -> Any:
    """Return the sum of a row of biased exponentials e but for one that is the largest."""
    one = 1 / unbias
    if not total - one < one:
        return total - one
    at = 0  # the difference has lost digits
    while e[at] != one:
        at += 1
    e[at] = 0
    rest = 0.0
    for start in range(0, e.size, PIECE):
        rest += np.float64(row_sum(e[start : start + PIECE]))
    e[at] = one
    return rest

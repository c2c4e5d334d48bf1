"""Sweeps over a row of classes: exponentials, their sum, and what they are scaled by."""

from __future__ import annotations

from typing import Any

import numpy as np

from .elementary import exp_biased, inlined, plain, row_sum

PIECE = 1024  # classes that are summed in the dtype of the logits; pieces are added in float64


@inlined
def _exponentials(x: Any, top: Any, inverse_temperature: Any, e: Any) -> None:
    for j in range(x.size):
        e[j] = exp_biased((x[j] - top) * inverse_temperature)


@plain
def exponentials(x: Any, top: Any, inverse_temperature: Any, e: Any) -> Any:
    """Store the biased exponentials of a piece x of a row in e and return their sum.

    They are added when all are there: a loop that also writes is run in lanes only where its
    arrays lie apart, so that the order of the sum would depend on where they lie.
    """
    if inverse_temperature == 1:  # a factor that is known to be 1 costs nothing
        _exponentials(x, top, x.dtype.type(1), e)
    else:
        _exponentials(x, top, inverse_temperature, e)
    return row_sum(e[: x.size])


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

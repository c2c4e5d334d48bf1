"""Loops of the activations: over elements of flat arrays, and over rows of classes.

``elements`` and ``rows`` are compiled for all activations at once, and for their pullbacks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..simd.elementary import (
    SUM,
    borrowed,
    exp_biased,
    inlined,
    log1p,
    njit,
    plain,
    row_max,
    row_sum,
)
from ..simd.elements import exp_minus_abs
from ..simd.rows import PIECE, exponentials, scale, sum_beside_maximum
from ..toolchain.compiling import compiled_in_parts
from ..toolchain.signatures import FLOATS, Read1, Read2, Write1, Write2
from ..toolchain.threads import PIECES

RELU, SIGMOID, LOG_SIGMOID, SOFTMAX, LOG_SOFTMAX, LOGSUMEXP, ADD, ADD_RELU = range(8)


@plain
def relu(x: Any, y: Any) -> None:
    """Write max(x, 0) to y; NaN stays NaN."""
    zero = x.dtype.type(0)
    for j in range(x.size):
        y[j] = zero if x[j] <= zero else x[j]


@plain
def relu_pullback(x: Any, dy: Any, dx: Any) -> None:
    """Write dy where x > 0, else 0, to dx."""
    zero = x.dtype.type(0)
    for j in range(x.size):
        dx[j] = zero if x[j] <= zero else dy[j]


@plain
def sigmoid(x: Any, unbias: Any, y: Any) -> None:
    """Write 1 / (1 + exp(-x)) to y, from whichever exponential is at most 1."""
    one, factor = x.dtype.type(1), x.dtype.type(unbias)
    for j in range(x.size):
        e = exp_minus_abs(x[j], factor)
        y[j] = (e if x[j] < 0 else one) / (one + e)


@plain
def sigmoid_pullback(x: Any, dy: Any, unbias: Any, dx: Any) -> None:
    """Write dy times the slope of sigmoid, which is the same for x and -x, to dx."""
    one, factor = x.dtype.type(1), x.dtype.type(unbias)
    for j in range(x.size):
        e = exp_minus_abs(x[j], factor)
        dx[j] = dy[j] * (e / ((one + e) * (one + e)))


@plain
def log_sigmoid(x: Any, unbias: Any, y: Any) -> None:
    """Write min(x, 0) - log1p(exp(-abs(x))) to y."""
    zero, factor = x.dtype.type(0), x.dtype.type(unbias)
    for j in range(x.size):
        rest = log1p(np.float64(exp_minus_abs(x[j], factor)))
        y[j] = np.float64(x[j] if x[j] < zero else zero) - rest


@plain
def log_sigmoid_pullback(x: Any, dy: Any, unbias: Any, dx: Any) -> None:
    """Write dy times the sigmoid of -x to dx."""
    one, factor = x.dtype.type(1), x.dtype.type(unbias)
    for j in range(x.size):
        e = exp_minus_abs(x[j], factor)
        dx[j] = dy[j] * ((one if x[j] < 0 else e) / (one + e))


@plain
def add(x: Any, other: Any, y: Any) -> None:
    """Write the sum of x and the other to y."""
    for j in range(x.size):
        y[j] = x[j] + other[j]


@plain
def add_relu(x: Any, other: Any, y: Any) -> None:
    """Write the rectified sum of x and the other to y."""
    zero = x.dtype.type(0)
    for j in range(x.size):
        z = x[j] + other[j]
        y[j] = zero if z <= zero else z


@compiled_in_parts(PIECES, kind=FLOATS)
def elements(
    what: int, x: Read1, dy: Read1, unbias: float, y: Write1, parts: int, part: int
) -> None:
    """Write the activation ``what`` of x to y, or its pullback if ``dy`` has elements.

    With ADD and ADD_RELU ``dy`` is the other array.
    """
    first, last = x.size * part // parts, x.size * (part + 1) // parts
    value, x, dy, y = dy.size == 0, x[first:last], dy[first:last], y[first:last]
    if what == ADD:
        add(x, dy, y)
    elif what == ADD_RELU:
        add_relu(x, dy, y)
    elif what == RELU:
        if value:
            relu(x, y)
        else:
            relu_pullback(x, dy, y)
    elif what == SIGMOID:
        if value:
            sigmoid(x, unbias, y)
        else:
            sigmoid_pullback(x, dy, unbias, y)
    elif value:
        log_sigmoid(x, unbias, y)
    else:
        log_sigmoid_pullback(x, dy, unbias, y)


# --- rows ----------------------------------------------------------------------------------------


@njit(**SUM, forceinline=True)
def piece_dot(p: Any, q: Any) -> Any:
    """Return the inner product of two pieces of a row."""
    total = p.dtype.type(0)
    for j in range(p.size):
        total += p[j] * q[j]
    return total


@inlined
def sum_exponentials(x: Any, top: Any, e: Any) -> Any:
    """Store the biased exponentials of the row x in e and return their sum."""
    total, one = 0.0, x.dtype.type(1)
    for start in range(0, x.size, PIECE):
        stop = start + PIECE
        total += np.float64(exponentials(x[start:stop], top, one, e[start:stop]))
    return total


@plain
def softmax_row(x: Any, y: Any) -> None:
    """Write the softmax of the row x to y."""
    scale(y, x.dtype.type(1 / sum_exponentials(x, row_max(x), y)))


@plain
def softmax_row_pullback(p: Any, dy: Any, dx: Any) -> None:
    """Write ``p * (dy - sum(p * dy))`` to dx."""
    mean = 0.0
    for start in range(0, p.size, PIECE):
        mean += np.float64(piece_dot(p[start : start + PIECE], dy[start : start + PIECE]))
    rounded = p.dtype.type(mean)
    for j in range(p.size):
        dx[j] = p[j] * (dy[j] - rounded)


@plain
def log_softmax_row(x: Any, unbias: Any, y: Any) -> None:
    """Write x less the logarithm of the sum of its exponentials to y."""
    top = row_max(x)
    others = sum_beside_maximum(y, sum_exponentials(x, top, y), unbias)
    rest = x.dtype.type(log1p(others * unbias))
    for j in range(x.size):
        y[j] = (x[j] - top) - rest


@plain
def log_softmax_row_pullback(y: Any, dy: Any, unbias: Any, dx: Any) -> None:
    """Write ``dy - exp(y) * sum(dy)`` to dx."""
    total = 0.0
    for start in range(0, y.size, PIECE):
        total += np.float64(row_sum(dy[start : start + PIECE]))
    factor = y.dtype.type(total)
    for j in range(y.size):
        dx[j] = dy[j] - exp_biased(y[j]) * y.dtype.type(unbias) * factor


@plain
def logsumexp_row(x: Any, unbias: Any, e: Any) -> Any:
    """Return the maximum of x plus the logarithm of 1 and the exponentials beside it."""
    top = row_max(x)
    if abs(top) == np.inf:
        for j in range(x.size):
            top = x[j] if x[j] != x[j] else top
        return top
    others = sum_beside_maximum(e, sum_exponentials(x, top, e), unbias)
    return x.dtype.type(top + log1p(others * unbias))


@plain
def logsumexp_row_pullback(x: Any, dy: Any, dx: Any) -> None:
    """Write dy times the softmax of x to dx; of infinite x, the limit: 0, or NaN at +inf."""
    top = row_max(x)
    if abs(top) == np.inf:
        for j in range(x.size):
            top = x[j] if x[j] != x[j] else top
        for j in range(x.size):
            dx[j] = dy * (np.nan if top != top or x[j] == np.inf else 0)
    else:
        scale(dx, x.dtype.type(dy / sum_exponentials(x, top, dx)))


@compiled_in_parts(PIECES, kind=FLOATS)
def rows(what: int, x: Read2, dy: Read2, unbias: float, y: Write2, parts: int, part: int) -> None:
    """Write the activation ``what`` of the rows x to y, or its pullback if ``dy`` has elements.

    x is then the value that the activation had, and with LOGSUMEXP its argument; what belongs to a
    row as a whole is an array of one column.
    """
    x, dy, y = borrowed(x), borrowed(dy), borrowed(y)
    scratch = np.empty(x.shape[1] if what == LOGSUMEXP else 0, x.dtype)
    for n in range(x.shape[0] * part // parts, x.shape[0] * (part + 1) // parts):
        if dy.size == 0:
            if what == SOFTMAX:
                softmax_row(x[n], y[n])
            elif what == LOG_SOFTMAX:
                log_softmax_row(x[n], unbias, y[n])
            else:
                y[n, 0] = logsumexp_row(x[n], unbias, scratch)
        elif what == SOFTMAX:
            softmax_row_pullback(x[n], dy[n], y[n])
        elif what == LOG_SOFTMAX:
            log_softmax_row_pullback(x[n], dy[n], unbias, y[n])
        else:
            logsumexp_row_pullback(x[n], dy[n, 0], y[n])

"""The kernels of the activations: from normalised arguments to compiled loops and back."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ....core.operation import OPERATIONS, Implementation, Pullback
from ..simd.elementary import BIAS
from ..simd.elements import FEW
from ..toolchain.arguments import NOTHING, flat, flat_or_nothing, why_not
from ..toolchain.memory import empty
from . import loops


def takes(x: Any, **options: Any) -> str | None:
    """Return why an array is not taken, or None."""
    return why_not(x) or (None if x.ndim else "it takes arrays of at least one dimension")


# --- elements ------------------------------------------------------------------------------------


def elements(what: int, x: Any, dy: Any = None) -> Any:
    """Return an activation of each element, or its pullback of dy."""
    y, slope = empty(x.shape, x.dtype), flat_or_nothing(dy, x.dtype)
    loop, alone = loops.elements[x.dtype], x.size < FEW
    loop(what, flat(x), slope, 1 / BIAS[x.dtype], y.reshape(-1), alone=alone)
    return y


def of_elements(what: int) -> Implementation:
    """Return the kernel of an activation of elements."""

    def vjp(x: Any) -> tuple[Any, Pullback]:
        return elements(what, x), lambda dy: (elements(what, x, dy),)

    return Implementation("Numba loops", functools.partial(elements, what), vjp, takes)


# --- rows ----------------------------------------------------------------------------------------


APART = 128
"""Numbers: more than LLVM's loops over a row take at once."""


def as_rows(x: Any, axis: int) -> Any:
    """Return x with the classes last, (rows, classes)."""
    return np.ascontiguousarray(np.moveaxis(x, axis, -1)).reshape(-1, x.shape[axis])


def as_array(rows: Any, shape: tuple[int, ...], axis: int) -> Any:
    """Return rows as an array of this shape, with the classes along ``axis``: undo `as_rows`."""
    if axis == len(shape) - 1:
        return rows.reshape(shape)
    moved = rows.reshape(*shape[:axis], *shape[axis + 1 :], shape[axis])
    return np.ascontiguousarray(np.moveaxis(moved, -1, axis))


def rows(what: int, x: Any, dy: Any = None, columns: int | None = None) -> Any:
    """Return an activation of (rows, classes), or its pullback of dy at its value x."""
    shape = len(x), columns or x.shape[1]
    # LLVM sums in another order where what is written lies within a few vectors behind x
    y = empty((APART + math.prod(shape),), x.dtype)[APART:].reshape(shape)
    slope = NOTHING[x.dtype].reshape(0, 0) if dy is None else dy
    loop, alone = loops.rows[x.dtype], x.size < FEW
    loop(what, x, slope, 1 / BIAS[x.dtype], y, alone=alone)
    return y


def of_rows(what: int) -> Implementation:
    """Return the kernel of an activation of rows."""

    def value(x: Any, *, axis: int) -> Any:
        return as_array(rows(what, as_rows(x, axis)), x.shape, axis)

    def vjp(x: Any, *, axis: int) -> tuple[Any, Pullback]:
        y = rows(what, as_rows(x, axis))

        def pullback(dy: Any) -> tuple[Any]:
            return (as_array(rows(what, y, as_rows(dy, axis)), x.shape, axis),)

        return as_array(y, x.shape, axis), pullback

    return Implementation("Numba loops", value, vjp, takes, options=("axis",))


def of_whole_rows(what: int) -> Implementation:
    """Return the kernel of what reduces each row to a number."""

    def value(x: Any, *, axis: int) -> Any:
        shape = x.shape[:axis] + x.shape[axis + 1 :]
        return rows(what, as_rows(x, axis), columns=1).reshape(shape)[()]

    def vjp(x: Any, *, axis: int) -> tuple[Any, Pullback]:
        def pullback(dy: Any) -> tuple[Any]:
            column = np.ascontiguousarray(dy).reshape(-1, 1)
            return (as_array(rows(what, as_rows(x, axis), column), x.shape, axis),)

        return value(x, axis=axis), pullback

    return Implementation("Numba loops", value, vjp, takes, options=("axis",))


OPERATIONS["relu"].add_kernel("numpy", of_elements(loops.RELU))
OPERATIONS["sigmoid"].add_kernel("numpy", of_elements(loops.SIGMOID))
OPERATIONS["log_sigmoid"].add_kernel("numpy", of_elements(loops.LOG_SIGMOID))
OPERATIONS["softmax"].add_kernel("numpy", of_rows(loops.SOFTMAX))
OPERATIONS["log_softmax"].add_kernel("numpy", of_rows(loops.LOG_SOFTMAX))
OPERATIONS["logsumexp"].add_kernel("numpy", of_whole_rows(loops.LOGSUMEXP))

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
from . import few, loops


def takes(x: Any, *others: Any, **options: Any) -> str | None:
    """Return why arrays are not taken, or None."""
    return why_not(x, *others) or (None if x.ndim else "it takes arrays of at least one dimension")


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


def sum_of_two(x1: Any, x2: Any, *, activation: str | None) -> Any:
    """Return the sum of two arrays, rectified if need be."""
    return elements(loops.ADD_RELU if activation else loops.ADD, x1, x2)


def sum_vjp(x1: Any, x2: Any, *, activation: str | None) -> tuple[Any, Pullback]:
    """Return the sum of two arrays, rectified if need be, and its pullback."""
    y = sum_of_two(x1, x2, activation=activation)

    def pullback(dy: Any) -> tuple[Any, Any]:
        dx = elements(loops.RELU, y, dy) if activation else dy
        return dx, dx

    return y, pullback


# --- rows ----------------------------------------------------------------------------------------


def are_last(axes: tuple[int, ...], ndim: int) -> bool:
    """Return whether axes are the last ones, in order: nothing has to be moved then."""
    return axes == tuple(range(ndim - len(axes), ndim))


def as_rows(x: Any, axes: tuple[int, ...]) -> Any:
    """Return x with the classes last, (rows, classes); those of several axes are one row."""
    last = x if are_last(axes, x.ndim) else np.moveaxis(x, axes, range(-len(axes), 0))
    return np.ascontiguousarray(last).reshape(-1, math.prod([x.shape[a] for a in axes]))


def as_array(rows: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """Return rows as an array of this shape, with the classes along ``axes``: undo `as_rows`."""
    if are_last(axes, len(shape)):
        return rows.reshape(shape)
    last = range(-len(axes), 0)
    beside = [n for a, n in enumerate(shape) if a not in axes]
    moved = rows.reshape(*beside, *(shape[a] for a in axes))
    return np.ascontiguousarray(np.moveaxis(moved, last, axes))


def rows(what: int, x: Any, dy: Any = None, columns: int | None = None) -> Any:
    """Return an activation of (rows, classes), or its pullback of dy at its value x."""
    shape = len(x), columns or x.shape[1]
    y = empty(shape, x.dtype)
    slope = NOTHING[x.dtype].reshape(0, 0) if dy is None else dy
    loop = few.few if few.is_tiled(what, x.shape[1], dy is None) else loops.rows
    loop[x.dtype](what, x, slope, 1 / BIAS[x.dtype], y, alone=x.size < FEW)
    return y


def of_rows(what: int) -> Implementation:
    """Return the kernel of an activation of rows."""

    def value(x: Any, *, axis: int) -> Any:
        return as_array(rows(what, as_rows(x, (axis,))), x.shape, (axis,))

    def vjp(x: Any, *, axis: int) -> tuple[Any, Pullback]:
        y = rows(what, as_rows(x, (axis,)))

        def pullback(dy: Any) -> tuple[Any]:
            return (as_array(rows(what, y, as_rows(dy, (axis,))), x.shape, (axis,)),)

        return as_array(y, x.shape, (axis,)), pullback

    return Implementation("Numba loops", value, vjp, takes, options=("axis",))


def of_whole_rows(what: int) -> Implementation:
    """Return the kernel of what reduces each row to a number."""

    def value(x: Any, *, axis: tuple[int, ...], keepdims: bool) -> Any:
        sizes = [1 if a in axis else n for a, n in enumerate(x.shape) if keepdims or a not in axis]
        return rows(what, as_rows(x, axis), columns=1).reshape(sizes)[()]

    def vjp(x: Any, *, axis: tuple[int, ...], keepdims: bool) -> tuple[Any, Pullback]:
        def pullback(dy: Any) -> tuple[Any]:
            column = np.ascontiguousarray(dy).reshape(-1, 1)
            return (as_array(rows(what, as_rows(x, axis), column), x.shape, axis),)

        return value(x, axis=axis, keepdims=keepdims), pullback

    return Implementation("Numba loops", value, vjp, takes, options=("axis", "keepdims"))


OPERATIONS["relu"].add_kernel("numpy", of_elements(loops.RELU))
OPERATIONS["sigmoid"].add_kernel("numpy", of_elements(loops.SIGMOID))
OPERATIONS["log_sigmoid"].add_kernel("numpy", of_elements(loops.LOG_SIGMOID))
OPERATIONS["add"].add_kernel(
    "numpy", Implementation("Numba loops", sum_of_two, sum_vjp, takes, options=("activation",))
)
OPERATIONS["softmax"].add_kernel("numpy", of_rows(loops.SOFTMAX))
OPERATIONS["log_softmax"].add_kernel("numpy", of_rows(loops.LOG_SOFTMAX))
OPERATIONS["logsumexp"].add_kernel("numpy", of_whole_rows(loops.LOGSUMEXP))

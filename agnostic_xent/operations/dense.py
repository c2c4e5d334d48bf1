"""The fully connected layer's operation."""

from __future__ import annotations

import math

from array_api_compat import is_writeable_array

from ..core.arrays import Array, array_namespace, is_traced, narrow, widen
from ..core.checks import check_ndim, check_shape, float_namespace
from ..core.operation import Pullback, operation, repeatable

__all__ = ["dense"]

PIECE = 2**20
"""Numbers of the weights' gradient that are added to at a time, few enough for the cache."""


@operation
def dense(x: Array, w: Array, b: Array | None = None) -> Array:
    """Affine map of the last axis: ``y = x w^T + b``.

    Parameters
    ----------
    x : array, shape (..., features)
        One sample, or any number of them.
    w : array, shape (units, features)
        Weights, of the dtype of ``x``.
    b : array, shape (units,), optional
        Bias.

    Returns
    -------
    array, shape (..., units)
        Of the dtype of ``x``.

    Raises
    ------
    ValueError
        If shapes do not fit.

    Examples
    --------
    >>> y = dense(xp.ones((2, 3)), xp.ones((5, 3)), xp.ones(5))
    >>> tuple(y.shape), float(y[0, 0])
    ((2, 5), 4.0)
    """
    float_namespace(x=x, w=w, b=b)
    check_ndim("w", w, 2, "(units, features)")
    if x.ndim == 0 or x.shape[-1] != w.shape[1]:
        raise ValueError(
            f"x must have shape (..., {w.shape[1]}) to fit w of shape {tuple(w.shape)}, "
            f"got {tuple(x.shape)}"
        )
    if b is not None:
        check_shape("b", b, (w.shape[0],), "one bias a unit")
    return repeatable(x, w, b)


@dense.definition
def _dense(x: Array, w: Array, b: Array | None) -> Array:
    xp = array_namespace(x)
    y = narrow(x @ xp.matrix_transpose(w), x)  # NumPy's product of bfloat16 is float32
    return y if b is None else y + xp.reshape(b, (1,) * (y.ndim - 1) + (w.shape[0],))


@dense.pullback
def _(x: Array, w: Array, b: Array | None, *, wrt: frozenset[int]) -> tuple[Array, Pullback]:
    xp = array_namespace(x)
    rows = math.prod(x.shape[:-1])

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        flat = xp.reshape(dy, (rows, w.shape[0]))
        dx = dw = db = None
        if 0 in wrt:
            dx = narrow(dy @ w, x)
        if 1 in wrt:
            dw = narrow(xp.matrix_transpose(flat) @ xp.reshape(x, (rows, w.shape[1])), w)
        if 2 in wrt and b is not None:
            db = narrow(xp.sum(widen(flat), axis=0), b)
        return dx, dw, db

    return _dense(x, w, b), pullback


def add_product(dw: Array, dz: Array, x: Array) -> Array:
    """Return ``dw + dz^T x``; where arrays can be written to, in place and piece by piece."""
    dz = array_namespace(dz).matrix_transpose(dz)  # (classes, rows)
    classes, features = dw.shape
    if is_traced(dw) or not is_writeable_array(dw):
        return dw + dz @ x
    size = max(1, min(PIECE, math.prod(dz.shape) // 4) // max(1, features))
    for start in range(0, classes, size):
        piece = slice(start, min(start + size, classes))
        dw[piece, ...] += dz[piece, ...] @ x
    return dw

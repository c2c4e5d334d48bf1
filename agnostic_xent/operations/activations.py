"""Activations: relu, sigmoid, log_sigmoid, softmax, log_softmax, logsumexp."""

from __future__ import annotations

from ..core.arrays import Array, array_namespace, constant, device, narrow, widen
from ..core.checks import check_axes, check_axis, float_namespace
from ..core.operation import Pullback, operation, repeatable

__all__ = ["log_sigmoid", "log_softmax", "logsumexp", "relu", "sigmoid", "softmax"]


@operation
def relu(x: Array) -> Array:
    """Rectified linear unit, elementwise.

    ``y = max(x, 0)``; the derivative at 0 is 0, and NaN stays NaN.

    Parameters
    ----------
    x : array
        Any shape, real floating dtype.

    Returns
    -------
    array
        Shape and dtype of ``x``.

    Examples
    --------
    >>> float(relu(xp.asarray(-2.0))), float(relu(xp.asarray(3.0)))
    (0.0, 3.0)
    """
    float_namespace(x=x)
    return repeatable(x)


@relu.definition
def _(x: Array) -> Array:
    return array_namespace(x).where(x <= 0, constant(0, x), x)


@relu.pullback
def _(x: Array) -> tuple[Array, Pullback]:
    xp, zero = array_namespace(x), constant(0, x)
    return xp.where(x <= 0, zero, x), lambda dy: (xp.where(x <= 0, zero, dy),)


@operation
def sigmoid(x: Array) -> Array:
    """Logistic function, elementwise: ``y = 1 / (1 + exp(-x))``.

    No overflow, and full relative accuracy where y is tiny.

    Parameters
    ----------
    x : array
        Any shape, real floating dtype.

    Returns
    -------
    array
        Shape and dtype of ``x``, values in [0, 1].

    Examples
    --------
    >>> float(sigmoid(xp.asarray(0.0)))
    0.5
    """
    float_namespace(x=x)
    return repeatable(x)


@sigmoid.definition
def _sigmoid(x: Array) -> Array:
    xp = array_namespace(x)
    e, one = exp_minus_abs(x), constant(1, x)
    return xp.where(x >= 0, one, e) / (one + e)


@sigmoid.pullback
def _(x: Array) -> tuple[Array, Pullback]:
    e, xp = exp_minus_abs(x), array_namespace(x)
    return _sigmoid(x), lambda dy: (dy * e / xp.square(constant(1, x) + e),)


def exp_minus_abs(x: Array) -> Array:
    """Return exp(-abs(x)), which never overflows; through `where`, so that it has a slope at 0."""
    xp = array_namespace(x)
    return xp.exp(xp.where(x >= 0, -x, x))


@operation
def log_sigmoid(x: Array) -> Array:
    """Logarithm of the logistic function, elementwise.

    ``y = -log(1 + exp(-x)) = min(x, 0) - log1p(exp(-abs(x)))``, without overflow.

    Parameters
    ----------
    x : array
        Any shape, real floating dtype.

    Returns
    -------
    array
        Shape and dtype of ``x``, values <= 0.

    Examples
    --------
    >>> float(log_sigmoid(xp.asarray(-1000.0)))
    -1000.0
    """
    float_namespace(x=x)
    return repeatable(x)


@log_sigmoid.definition
def log_sigmoid_of(x: Array) -> Array:
    """Return the value of `log_sigmoid`."""
    xp = array_namespace(x)
    return xp.where(x < 0, x, constant(0, x)) - xp.log1p(exp_minus_abs(x))


@log_sigmoid.pullback
def _(x: Array) -> tuple[Array, Pullback]:
    return log_sigmoid_of(x), lambda dy: (dy * _sigmoid(-x),)


@operation
def softmax(x: Array, *, axis: int = -1) -> Array:
    """Softmax: ``y_i = exp(x_i) / sum_j exp(x_j)`` along an axis.

    Computed from ``x - max(x)``. A row that is all -inf, or holds +inf or NaN, is NaN;
    other rows are not touched by it.

    Parameters
    ----------
    x : array
        Any shape, real floating dtype. Without dimensions it is a row of one number.
    axis : int
        The axis of the classes.

    Returns
    -------
    array
        Shape and dtype of ``x``; sums to 1 along ``axis``.

    Examples
    --------
    >>> y = softmax(xp.asarray([[1000.0, 1000.0]]))
    >>> float(y[0, 0])
    0.5
    """
    float_namespace(x=x)
    return repeatable(x, axis=check_axis(x, axis))


@softmax.definition
def _softmax(x: Array, *, axis: int) -> Array:
    xp, z = array_namespace(x), widen(x)
    e = xp.exp(z - (z if _is_trivial(z) else xp.max(z, axis=axis, keepdims=True)))
    return narrow(e / _sum(e, axis), x)


@softmax.pullback
def _(x: Array, *, axis: int) -> tuple[Array, Pullback]:
    y = _softmax(x, axis=axis)

    def pullback(dy: Array) -> tuple[Array]:
        p, dp = widen(y), widen(dy)
        return (narrow(p * (dp - _sum(p * dp, axis)), x),)

    return y, pullback


def _is_trivial(z: Array) -> bool:
    """Tell whether no number has another one beside it: a single one, or none at all."""
    return z.ndim == 0 or 0 in z.shape


def _sum(z: Array, axis: int) -> Array:
    """Return the sum along an axis, which stays; of a single number that number."""
    return z if z.ndim == 0 else array_namespace(z).sum(z, axis=axis, keepdims=True)


@operation
def log_softmax(x: Array, *, axis: int = -1) -> Array:
    """Logarithm of softmax: ``y_i = x_i - log(sum_j exp(x_j))`` along an axis.

    Computed as ``(x_i - x_m) - log1p(sum_{j != m} exp(x_j - x_m))`` with x_m the maximum: a common
    offset of any size is harmless, and a value near 0 keeps its digits.

    Parameters
    ----------
    x : array
        Any shape, real floating dtype. Without dimensions it is a row of one number.
    axis : int
        The axis of the classes.

    Returns
    -------
    array
        Shape and dtype of ``x``, values <= 0.

    Examples
    --------
    >>> y = log_softmax(xp.asarray([[1e8, 1e8]]))
    >>> round(float(y[0, 0]), 6)
    -0.693147
    """
    float_namespace(x=x)
    return repeatable(x, axis=check_axis(x, axis))


def log_softmax_of(z: Array, *, axis: int) -> Array:
    """Return log_softmax to full relative accuracy, also where a probability is almost 1."""
    xp = array_namespace(z)
    if _is_trivial(z):
        return z - z
    classes = xp.arange(z.shape[axis], device=device(z))
    classes = xp.reshape(classes, (1,) * axis + (z.shape[axis],) + (1,) * (z.ndim - 1 - axis))
    top = xp.argmax(z, axis=axis, keepdims=True) == classes  # one element of each row
    zero = constant(0, z)
    shifted = z - xp.sum(xp.where(top, z, zero), axis=axis, keepdims=True)
    others = xp.sum(xp.where(top, zero, xp.exp(shifted)), axis=axis, keepdims=True)
    nan_row = xp.sum(xp.where(top, shifted, zero), axis=axis, keepdims=True)  # else 0
    return shifted - (xp.log1p(others) + nan_row)


@log_softmax.definition
def _log_softmax(x: Array, *, axis: int) -> Array:
    return narrow(log_softmax_of(widen(x), axis=axis), x)


@log_softmax.pullback
def _(x: Array, *, axis: int) -> tuple[Array, Pullback]:
    xp = array_namespace(x)
    y = log_softmax_of(widen(x), axis=axis)

    def pullback(dy: Array) -> tuple[Array]:
        dz = widen(dy)
        return (narrow(dz - xp.exp(y) * _sum(dz, axis), x),)

    return narrow(y, x), pullback


@operation
def logsumexp(
    x: Array, *, axis: int | tuple[int, ...] | None = -1, keepdims: bool = False
) -> Array:
    """Logarithm of the sum of exponentials along axes: ``y = log(sum_j exp(x_j))``.

    Parameters
    ----------
    x : array
        Any shape, real floating dtype. Without dimensions it is a row of one number.
    axis : int, tuple of int or None
        The axis that is summed, or several; None means all. An empty tuple means none: y is x.
    keepdims : bool
        Keep the axes that are summed, with length 1.

    Returns
    -------
    array
        Shape of ``x`` without these axes, dtype of ``x``; -inf where all of ``x`` is -inf, and
        for the sum of no number.

    Raises
    ------
    ValueError
        If ``x`` has no such axis, or an axis is named twice.

    Examples
    --------
    >>> float(logsumexp(xp.asarray([1000.0, -1000.0])))
    1000.0
    >>> tuple(logsumexp(xp.ones((2, 3, 4)), axis=(0, 2), keepdims=True).shape)
    (1, 3, 1)
    """
    float_namespace(x=x)
    return repeatable(x, axis=check_axes(x, axis), keepdims=bool(keepdims))


@logsumexp.definition
def _(x: Array, *, axis: tuple[int, ...], keepdims: bool) -> Array:
    return narrow(_logsumexp(widen(x), axis, keepdims), x)


@logsumexp.pullback
def _(x: Array, *, axis: tuple[int, ...], keepdims: bool) -> tuple[Array, Pullback]:
    xp, z = array_namespace(x), widen(x)
    e = xp.exp(z - _finite_maximum(z, axis))
    total = xp.sum(e, axis=axis, keepdims=True)
    weights = e / xp.where(total == 0, constant(1, total), total)
    # the limit, where there is an infinity: NaN there, and 0 beside it
    weights = xp.where(xp.isinf(total), xp.where(z > 0, z - z, constant(0, z)), weights)

    def pullback(dy: Array) -> tuple[Array]:
        return (narrow(weights * xp.reshape(widen(dy), total.shape), x),)

    return narrow(_logsumexp(z, axis, keepdims), x), pullback


def _logsumexp(z: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    xp, shift = array_namespace(z), _finite_maximum(z, axis)
    y = xp.log(xp.sum(xp.exp(z - shift), axis=axis, keepdims=True)) + shift
    return y if keepdims else xp.squeeze(y, axis=axis)


def _finite_maximum(z: Array, axis: tuple[int, ...]) -> Array:
    """Return the maximum along axes, which stay; 0 where it is infinite, or of no number.

    Subtracting an infinity would make NaN of a defined limit.
    """
    xp = array_namespace(z)
    if 0 in z.shape:
        shape = tuple(1 if i in axis else n for i, n in enumerate(z.shape))
        return xp.zeros(shape, dtype=z.dtype, device=device(z))
    top = xp.max(z, axis=axis, keepdims=True)
    return xp.where(xp.isinf(top), constant(0, top), top)

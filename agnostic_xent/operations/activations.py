"""Activations: relu, sigmoid, log_sigmoid, softmax, log_softmax, logsumexp."""

from __future__ import annotations

from ..core.arrays import Array, array_namespace, constant, device, narrow, widen
from ..core.checks import check_axis, float_namespace
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
    e = exp_minus_abs(x)
    return xp.where(x >= 0, constant(1, x), e) / (1 + e)


@sigmoid.pullback
def _(x: Array) -> tuple[Array, Pullback]:
    e = exp_minus_abs(x)
    return _sigmoid(x), lambda dy: (dy * e / (1 + e) ** 2,)


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
        Any shape with at least one dimension, real floating dtype.
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
    e = xp.exp(z - xp.max(z, axis=axis, keepdims=True))
    return narrow(e / xp.sum(e, axis=axis, keepdims=True), x)


@softmax.pullback
def _(x: Array, *, axis: int) -> tuple[Array, Pullback]:
    xp = array_namespace(x)
    y = _softmax(x, axis=axis)

    def pullback(dy: Array) -> tuple[Array]:
        p, dp = widen(y), widen(dy)
        return (narrow(p * (dp - xp.sum(p * dp, axis=axis, keepdims=True)), x),)

    return y, pullback


@operation
def log_softmax(x: Array, *, axis: int = -1) -> Array:
    """Logarithm of softmax: ``y_i = x_i - log(sum_j exp(x_j))`` along an axis.

    Computed as ``(x_i - x_m) - log1p(sum_{j != m} exp(x_j - x_m))`` with x_m the maximum: a common
    offset of any size is harmless, and a value near 0 keeps its digits.

    Parameters
    ----------
    x : array
        Any shape with at least one dimension, real floating dtype.
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
    classes = xp.arange(z.shape[axis], device=device(z))
    classes = xp.reshape(classes, (z.shape[axis],) + (1,) * (z.ndim - 1 - axis))
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
        return (narrow(dz - xp.exp(y) * xp.sum(dz, axis=axis, keepdims=True), x),)

    return narrow(y, x), pullback


@operation
def logsumexp(x: Array, *, axis: int = -1) -> Array:
    """Logarithm of the sum of exponentials along an axis: ``y = log(sum_j exp(x_j))``.

    Parameters
    ----------
    x : array
        Any shape with at least one dimension, real floating dtype.
    axis : int
        The axis that is summed.

    Returns
    -------
    array
        Shape of ``x`` without ``axis``, dtype of ``x``; -inf where all of ``x`` is -inf.

    Examples
    --------
    >>> float(logsumexp(xp.asarray([1000.0, -1000.0])))
    1000.0
    """
    float_namespace(x=x)
    return repeatable(x, axis=check_axis(x, axis))


@logsumexp.definition
def _(x: Array, *, axis: int) -> Array:
    return narrow(_logsumexp(widen(x), axis), x)


@logsumexp.pullback
def _(x: Array, *, axis: int) -> tuple[Array, Pullback]:
    xp, z = array_namespace(x), widen(x)
    e = xp.exp(z - _finite(xp.max(z, axis=axis, keepdims=True)))
    total = xp.sum(e, axis=axis, keepdims=True)
    weights = e / xp.where(total == 0, constant(1, total), total)

    def pullback(dy: Array) -> tuple[Array]:
        return (narrow(weights * xp.expand_dims(widen(dy), axis=axis), x),)

    return narrow(_logsumexp(z, axis), x), pullback


def _logsumexp(z: Array, axis: int) -> Array:
    xp = array_namespace(z)
    shift = _finite(xp.max(z, axis=axis, keepdims=True))
    total = xp.sum(xp.exp(z - shift), axis=axis)
    return xp.log(total) + xp.squeeze(shift, axis=axis)


def _finite(x: Array) -> Array:
    """Replace infinities by 0, where subtracting them would make NaN of a defined limit."""
    xp = array_namespace(x)
    return xp.where(xp.isinf(x), constant(0, x), x)

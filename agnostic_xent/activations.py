"""Activations: relu, sigmoid, log_sigmoid, softmax, log_softmax, logsumexp."""

from __future__ import annotations

from .arrays import Array, array_namespace, check_axis, constant, float_namespace
from .operation import Pullback, normalized, operation

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
    return normalized(x)


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
    return normalized(x)


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
    return normalized(x)


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
    return normalized(x, axis=check_axis(x, axis))


@softmax.definition
def softmax_of(x: Array, *, axis: int) -> Array:
    """Return the value of `softmax`."""
    xp = array_namespace(x)
    e = xp.exp(x - xp.max(x, axis=axis, keepdims=True))
    return e / xp.sum(e, axis=axis, keepdims=True)


@softmax.pullback
def _(x: Array, *, axis: int) -> tuple[Array, Pullback]:
    xp = array_namespace(x)
    y = softmax_of(x, axis=axis)
    return y, lambda dy: (y * (dy - xp.sum(y * dy, axis=axis, keepdims=True)),)


@operation
def log_softmax(x: Array, *, axis: int = -1) -> Array:
    """Logarithm of softmax: ``y_i = x_i - log(sum_j exp(x_j))`` along an axis.

    Computed from ``x - max(x)``, so a common offset of any size is harmless.

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
    return normalized(x, axis=check_axis(x, axis))


@log_softmax.definition
def log_softmax_of(x: Array, *, axis: int) -> Array:
    """Return the value of `log_softmax`."""
    xp = array_namespace(x)
    shifted = x - xp.max(x, axis=axis, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True))


@log_softmax.pullback
def _(x: Array, *, axis: int) -> tuple[Array, Pullback]:
    xp = array_namespace(x)
    y = log_softmax_of(x, axis=axis)
    return y, lambda dy: (dy - xp.exp(y) * xp.sum(dy, axis=axis, keepdims=True),)


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
    return normalized(x, axis=check_axis(x, axis))


@logsumexp.definition
def _logsumexp(x: Array, *, axis: int) -> Array:
    xp = array_namespace(x)
    shift = _finite(xp.max(x, axis=axis, keepdims=True))
    total = xp.sum(xp.exp(x - shift), axis=axis)
    return xp.log(total) + xp.squeeze(shift, axis=axis)


@logsumexp.pullback
def _(x: Array, *, axis: int) -> tuple[Array, Pullback]:
    xp = array_namespace(x)
    y = _logsumexp(x, axis=axis)
    weights = xp.exp(x - _finite(xp.expand_dims(y, axis=axis)))
    return y, lambda dy: (weights * xp.expand_dims(dy, axis=axis),)


def _finite(x: Array) -> Array:
    """Replace infinities by 0, where subtracting them would make NaN of a defined limit."""
    xp = array_namespace(x)
    return xp.where(xp.isinf(x), constant(0, x), x)

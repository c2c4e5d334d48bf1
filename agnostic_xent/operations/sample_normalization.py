"""Normalization of each sample by itself: layer_norm and group_norm."""

from __future__ import annotations

from ..core.arrays import Array, array_namespace, narrow, widen
from ..core.checks import check_shape, float_namespace, integer, number
from ..core.operation import Pullback, operation, repeatable
from .normalization import axes_of, per_channel

__all__ = ["group_norm", "layer_norm"]


@operation
def layer_norm(x: Array, weight: Array, bias: Array, *, eps: float = 1e-5) -> Array:
    """Layer normalization over the last axes of each sample, as many as the weight has.

    ``y = weight * (x - mean) / sqrt(var + eps) + bias``, with the mean and the (biased) variance
    over these axes.

    Parameters
    ----------
    x : array, shape (..., and that of the weight)
        What is normalised.
    weight, bias : array
        Scale and shift of each place, of one shape.
    eps : float
        Added to the variance.

    Returns
    -------
    array
        Shape and dtype of ``x``.

    Raises
    ------
    ValueError
        If shapes do not fit, or there is nothing to take a mean of.

    Examples
    --------
    >>> x = xp.asarray([[1.0, 3.0], [5.0, 5.0]])
    >>> y = layer_norm(x, xp.ones(2), xp.zeros(2))
    >>> round(float(y[0, 1]), 3), float(y[1, 0])
    (1.0, 0.0)

    References
    ----------
    Ba, Kiros and Hinton, Layer normalization, arXiv:1607.06450.
    """
    float_namespace(x=x, weight=weight, bias=bias)
    own = tuple(weight.shape)
    if not own or tuple(x.shape)[-len(own) :] != own:
        raise ValueError(f"x must have shape (..., {own}) to fit weight, got {tuple(x.shape)}")
    check_shape("bias", bias, own, "that of weight")
    if 0 in own:
        raise ValueError(f"weight must have at least one number, got shape {own}")
    return repeatable(x, weight, bias, eps=number("eps", eps, "[0, inf)"))


@layer_norm.definition
def _layer_norm(x: Array, weight: Array, bias: Array, *, eps: float) -> Array:
    unit, _ = _unit(widen(x), _last_axes(x, weight), eps)
    return narrow(unit * widen(weight) + widen(bias), x)


@layer_norm.pullback
def _(x: Array, weight: Array, bias: Array, *, eps: float) -> tuple[Array, Pullback]:
    xp, axes = array_namespace(x), _last_axes(x, weight)

    def pullback(dy: Array) -> tuple[Array, ...]:
        (unit, inverse), dy = _unit(widen(x), axes, eps), widen(dy)
        samples = tuple(range(axes[0]))
        dx = _gradient(dy * widen(weight), unit, inverse, axes)
        dweight, dbias = xp.sum(dy * unit, axis=samples), xp.sum(dy, axis=samples)
        return narrow(dx, x), narrow(dweight, x), narrow(dbias, x)

    return _layer_norm(x, weight, bias, eps=eps), pullback


def _last_axes(x: Array, weight: Array) -> tuple[int, ...]:
    return tuple(range(x.ndim - weight.ndim, x.ndim))


@operation
def group_norm(x: Array, weight: Array, bias: Array, *, groups: int, eps: float = 1e-5) -> Array:
    """Group normalization: of each sample, over groups of channels and all that they hold.

    ``y = weight * (x - mean) / sqrt(var + eps) + bias``, with the mean and the (biased) variance
    of the group; weight and bias by channel.

    Parameters
    ----------
    x : array, shape (N, C) or (N, C, ...)
        Rows, signals, images or volumes.
    weight, bias : array, shape (C,)
        Scale and shift of each channel.
    groups : int
        Divides C: the first C / groups channels are a group, and so on.
    eps : float
        Added to the variance.

    Returns
    -------
    array
        Shape and dtype of ``x``.

    Raises
    ------
    ValueError
        If shapes do not fit, or there is nothing to take a mean of.

    Examples
    --------
    >>> x = xp.reshape(xp.asarray([1.0, 3.0, 5.0, 9.0]), (1, 4, 1))
    >>> y = group_norm(x, xp.ones(4), xp.zeros(4), groups=2)
    >>> [round(float(y[0, i, 0]), 3) for i in range(4)]
    [-1.0, 1.0, -1.0, 1.0]

    References
    ----------
    Wu and He, Group normalization, arXiv:1803.08494.
    """
    float_namespace(x=x, weight=weight, bias=bias)
    if x.ndim < 2 or 0 in x.shape[1:]:
        raise ValueError(
            "x must have shape (N, C, ...) with at least one number a channel, got "
            f"{tuple(x.shape)}"
        )
    for name, vector in {"weight": weight, "bias": bias}.items():
        check_shape(name, vector, (x.shape[1],), "one value a channel")
    if x.shape[1] % integer("groups", groups):
        raise ValueError(f"groups must divide the {x.shape[1]} channels of x, got {groups!r}")
    return repeatable(x, weight, bias, groups=int(groups), eps=number("eps", eps, "[0, inf)"))


@group_norm.definition
def _group_norm(x: Array, weight: Array, bias: Array, *, groups: int, eps: float) -> Array:
    split = _split(widen(x), groups)
    unit, _ = _unit(split, tuple(range(2, split.ndim)), eps)
    unit = array_namespace(x).reshape(unit, x.shape)
    return narrow(unit * per_channel(widen(weight), x) + per_channel(widen(bias), x), x)


@group_norm.pullback
def _(x: Array, weight: Array, bias: Array, *, groups: int, eps: float) -> tuple[Array, Pullback]:
    xp, axes = array_namespace(x), tuple(range(2, x.ndim + 1))

    def pullback(dy: Array) -> tuple[Array, ...]:
        (unit, inverse), dy = _unit(_split(widen(x), groups), axes, eps), widen(dy)
        dsplit = _split(dy * per_channel(widen(weight), x), groups)
        dx = xp.reshape(_gradient(dsplit, unit, inverse, axes), x.shape)
        unit = xp.reshape(unit, x.shape)
        dweight, dbias = xp.sum(dy * unit, axis=axes_of(x)), xp.sum(dy, axis=axes_of(x))
        return narrow(dx, x), narrow(dweight, x), narrow(dbias, x)

    return _group_norm(x, weight, bias, groups=groups, eps=eps), pullback


def _split(x: Array, groups: int) -> Array:
    """Return x with its groups on an axis of their own: (N, groups, C / groups, ...)."""
    n, c, *sizes = x.shape
    return array_namespace(x).reshape(x, (n, groups, c // groups, *sizes))


# --- mean 0 and variance 1 -----------------------------------------------------------------------


def _unit(x: Array, axes: tuple[int, ...], eps: float) -> tuple[Array, Array]:
    """Return x with mean 0 and variance 1 over some axes, and what it was scaled by."""
    xp = array_namespace(x)
    centred = x - xp.mean(x, axis=axes, keepdims=True)
    inverse = 1 / xp.sqrt(xp.mean(xp.square(centred), axis=axes, keepdims=True) + eps)
    return centred * inverse, inverse


def _gradient(dunit: Array, unit: Array, inverse: Array, axes: tuple[int, ...]) -> Array:
    """Return the gradient of x, given that of `_unit`'s result."""
    xp = array_namespace(unit)
    along = xp.mean(dunit * unit, axis=axes, keepdims=True)
    return (dunit - xp.mean(dunit, axis=axes, keepdims=True) - unit * along) * inverse

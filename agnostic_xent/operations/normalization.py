"""Batch normalization, and dropout."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..core.arrays import Array, array_namespace, constant, device, narrow, widen
from ..core.checks import check_choice, check_shape, float_namespace, generator, number
from ..core.operation import Pullback, normalized, operation, repeatable

if TYPE_CHECKING:
    import numpy as np

__all__ = ["batch_norm", "dropout"]


@operation
def batch_norm(
    x: Array,
    weight: Array,
    bias: Array,
    running_mean: Array,
    running_var: Array,
    *,
    train: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
) -> tuple[Array, Array, Array]:
    """Batch normalization of each channel, with an optional ReLU.

    ``y = weight * (x - mean) / sqrt(var + eps) + bias``, with the batch's own mean and (biased)
    variance when ``train``, else the running ones; then the activation.

    Parameters
    ----------
    x : array, shape (N, C) or (N, C, ...)
        Rows, signals, images or volumes.
    weight, bias, running_mean, running_var : array, shape (C,)
        Scale, shift, and the running statistics.
    train : bool
        Normalise by the batch's statistics and move the running ones towards them:
        ``running = (1 - momentum) * running + momentum * batch``, the variance unbiased there.
    momentum : float
        Weight of the batch in the running statistics.
    eps : float
        Added to the variance.
    activation : {None, "relu"}
        Applied to the result, in the same pass over memory.

    Returns
    -------
    y : array, shape of ``x``
        The normalised numbers; the pullback takes the cotangent of this one.
    running_mean, running_var : array, shape (C,)
        The new running statistics (the old ones unless ``train``). They carry no gradient.

    Raises
    ------
    ValueError
        If shapes or options do not fit, or ``train`` and a channel has fewer than two values.

    Examples
    --------
    >>> one = xp.ones(3)
    >>> x = xp.reshape(xp.asarray([1.0, 3.0] * 12), (2, 3, 2, 2))
    >>> y, mean, var = batch_norm(x, one, 0 * one, 0 * one, one, train=True)
    >>> round(float(y[0, 0, 0, 1]), 3), round(float(mean[0]), 3)
    (1.0, 0.2)

    References
    ----------
    Ioffe and Szegedy, Batch normalization, arXiv:1502.03167.
    """
    vectors = {
        "weight": weight,
        "bias": bias,
        "running_mean": running_mean,
        "running_var": running_var,
    }
    float_namespace(x=x, **vectors)
    if x.ndim < 2:
        raise ValueError(
            f"x must have 2 or more dimensions (N, C, ...), got {x.ndim} in shape {tuple(x.shape)}"
        )
    for name, vector in vectors.items():
        check_shape(name, vector, (x.shape[1],), "one value a channel")
    if train and _count(x) < 2:
        raise ValueError(
            f"x of shape {tuple(x.shape)} has {_count(x)} values a channel; training needs at "
            "least 2"
        )
    check_choice("activation", activation, (None, "relu"))
    arrays = (x, *vectors.values())
    options: Any = {
        "train": bool(train),
        "momentum": number("momentum", momentum, "[0, 1]"),
        "eps": number("eps", eps, "[0, inf)"),
        "activation": activation,
    }
    return repeatable(*arrays, **options)  # type: ignore[no-any-return]


def axes_of(x: Array) -> tuple[int, ...]:
    """Return the axes that a channel's statistics run over."""
    return (0, *range(2, x.ndim))


def _count(x: Array) -> int:
    return math.prod([x.shape[axis] for axis in axes_of(x)])


@batch_norm.definition
def _batch_norm(
    x: Array,
    weight: Array,
    bias: Array,
    running_mean: Array,
    running_var: Array,
    *,
    train: bool,
    momentum: float,
    eps: float,
    activation: str | None,
) -> tuple[Array, Array, Array]:
    xp, wide = array_namespace(x), widen(x)
    mean, var = _statistics(wide, running_mean, running_var, train)
    scale = widen(weight) / xp.sqrt(var + eps)
    centred = wide - per_channel(mean, x)
    y = centred * per_channel(scale, x) + per_channel(widen(bias), x)
    if train:
        unbiased = var * (_count(x) / (_count(x) - 1))
        running_mean = (1 - momentum) * widen(running_mean) + momentum * mean
        running_var = (1 - momentum) * widen(running_var) + momentum * unbiased
    if activation == "relu":
        y = xp.where(y <= 0, constant(0, y), y)
    return narrow(y, x), narrow(running_mean, x), narrow(running_var, x)


@batch_norm.pullback
def _(
    x: Array,
    weight: Array,
    bias: Array,
    running_mean: Array,
    running_var: Array,
    *,
    train: bool,
    momentum: float,
    eps: float,
    activation: str | None,
) -> tuple[tuple[Array, Array, Array], Pullback]:
    xp = array_namespace(x)
    options = {"train": train, "momentum": momentum, "eps": eps, "activation": activation}
    value = _batch_norm(x, weight, bias, running_mean, running_var, **options)

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        wide, dy = widen(x), widen(dy)
        if activation == "relu":
            dy = xp.where(value[0] <= 0, constant(0, dy), dy)
        mean, var = _statistics(wide, running_mean, running_var, train)
        inverse = 1 / xp.sqrt(var + eps)
        unit = (wide - per_channel(mean, x)) * per_channel(inverse, x)
        dweight, dbias = xp.sum(dy * unit, axis=axes_of(x)), xp.sum(dy, axis=axes_of(x))
        if train:  # the batch's mean and variance depend on x, too
            count = _count(x)
            dy = dy - per_channel(dbias / count, x) - unit * per_channel(dweight / count, x)
        dx = dy * per_channel(widen(weight) * inverse, x)
        return *(narrow(gradient, x) for gradient in (dx, dweight, dbias)), None, None

    return value, pullback


def _statistics(
    x: Array, running_mean: Array, running_var: Array, train: bool
) -> tuple[Array, Array]:
    if not train:
        return widen(running_mean), widen(running_var)
    xp = array_namespace(x)
    return xp.mean(x, axis=axes_of(x)), xp.var(x, axis=axes_of(x))


def per_channel(v: Array, x: Array) -> Array:
    """Return one value a channel of x as what broadcasts with x."""
    return array_namespace(v).reshape(v, (1, -1, *(1 for _ in range(2, x.ndim))))


@operation
def dropout(x: Array, *, rate: float = 0.5, rng: int | np.random.Generator | None = None) -> Array:
    """Dropout: zero each element with probability ``rate``, scale the others by 1 / (1 - rate).

    The mask is drawn on the host, so that one seed gives one mask on every library.

    Parameters
    ----------
    x : array
        Any shape, real floating dtype.
    rate : float
        In [0, 1).
    rng : int, numpy.random.Generator or None
        What the mask is drawn from.

    Returns
    -------
    array
        Shape and dtype of ``x``.

    Raises
    ------
    ValueError
        If ``rate`` is not in [0, 1).

    Examples
    --------
    >>> y = dropout(xp.ones(1000), rate=0.25, rng=0)
    >>> 600 < int(xp.count_nonzero(y)) < 900
    True

    References
    ----------
    Srivastava et al., Dropout, JMLR 15 (2014).
    """
    xp = float_namespace(x=x)
    rate = number("rate", rate, "[0, 1)")
    keep = generator(rng).random(tuple(x.shape)) >= rate
    return normalized(x, keep=xp.asarray(keep, device=device(x)), rate=rate)


@dropout.definition
def _dropout(x: Array, *, keep: Array, rate: float) -> Array:
    return array_namespace(x).where(keep, narrow(x / (1 - rate), x), constant(0, x))


@dropout.pullback
def _(x: Array, *, keep: Array, rate: float) -> tuple[Array, Pullback]:
    return _dropout(x, keep=keep, rate=rate), lambda dy: (_dropout(dy, keep=keep, rate=rate),)

"""Pooling over windows of signals, images and volumes."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

from ..core.arrays import Array, array_namespace, constant, device, narrow, widen
from ..core.checks import check_ndim, float_namespace
from ..core.geometry import (
    LAYOUTS,
    Margins,
    Padding,
    Pair,
    PairLike,
    Sizes,
    SizesLike,
    as_margins,
    as_sizes,
    ceil_margins,
    check_fits,
)
from ..core.operation import Pullback, operation, repeatable
from .unfolding import fold, taps

__all__ = [
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "global_avg_pool",
    "global_avg_pool2d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
]


def _pool_geometry(
    rank: int,
    x: Array,
    window: SizesLike,
    stride: SizesLike | None,
    padding: Padding,
    dilation: SizesLike,
    ceil_mode: bool,
) -> dict[str, Any]:
    """Check and complete a pool's options; ``ceil_mode`` becomes padding at the far sides."""
    float_namespace(x=x)
    check_ndim("x", x, 2 + rank, LAYOUTS[rank])
    window = as_sizes("window", window, rank)
    stride = window if stride is None else as_sizes("stride", stride, rank)
    dilation = as_sizes("dilation", dilation, rank)
    image = tuple(x.shape[2:])
    margins = as_margins(padding, window, dilation, stride, image)
    check_fits(image, window, margins, dilation)
    for n, k, s, d, margin in zip(image, window, stride, dilation, margins, strict=True):
        if max(margin) > (d * (k - 1) + 1) // 2 and not _all_meet(n, k, s, margin, d):
            raise ValueError(
                f"padding must leave a pixel of the image in each window, got {padding!r}: one of "
                f"{k} (dilation {d}, stride {s}) holds none of {n} pixels"
            )
    if ceil_mode:
        margins = ceil_margins(margins, window, dilation, stride, image)
    return {"window": window, "stride": stride, "padding": margins, "dilation": dilation}


def _all_meet(n: int, k: int, s: int, margin: Pair, d: int) -> bool:
    """Tell whether each window meets a pixel, along an axis."""
    before, after = margin
    starts = range(-before, n + after - d * (k - 1), s)
    first_met = (start + max(0, -(start // d)) * d for start in starts)
    return all(
        met < n and met <= start + d * (k - 1) for start, met in zip(starts, first_met, strict=True)
    )


# --- max -----------------------------------------------------------------------------------------


@operation
def max_pool1d(
    x: Array,
    window: SizesLike,
    *,
    stride: SizesLike | None = None,
    padding: Padding = 0,
    dilation: SizesLike = 1,
    ceil_mode: bool = False,
) -> Array:
    """Maximum over each window of a signal.

    ``y[n, c, i] = max_u x[n, c, i*stride + u*dilation - before]`` over what is inside the signal.
    NaN wins. The gradient goes to the first maximum of a window.

    Parameters
    ----------
    x : array, shape (N, C, L)
        Signals.
    window, stride, dilation : int or (int,)
        Size of the window, step between windows (None: the window), step between taps.
    padding : int, (int,), ((before, after),), "same" or "valid"
        Numbers around the signal that never win; at most half the window, or so few that each
        window holds a number of the signal.
    ceil_mode : bool
        Keep a last window that reaches past the padded signal, if it starts inside it.

    Returns
    -------
    array, shape (N, C, OL)
        OL = (L + before + after - dilation * (window - 1) - 1) / stride + 1, rounded down, or up
        with ``ceil_mode``.

    Raises
    ------
    ValueError
        If the window is larger than the padded signal, or there is too much padding.

    Examples
    --------
    >>> y = max_pool1d(xp.reshape(xp.arange(8.0), (1, 1, 8)), 3)
    >>> tuple(y.shape), float(y[0, 0, 1])
    ((1, 1, 2), 5.0)
    """
    return repeatable(x, **_pool_geometry(1, x, window, stride, padding, dilation, ceil_mode))


@operation
def max_pool2d(
    x: Array,
    window: PairLike,
    *,
    stride: PairLike | None = None,
    padding: Padding = 0,
    dilation: PairLike = 1,
    ceil_mode: bool = False,
) -> Array:
    """Maximum over each window of an image.

    ``y[n, c, i, j] = max_{u, v} x[n, c, i*stride + u*dilation - top, j*stride + v*dilation -
    left]`` over the pixels inside the image. NaN wins. The gradient goes to the first maximum of a
    window in row-major order.

    Parameters
    ----------
    x : array, shape (N, C, H, W)
        Images.
    window, stride, dilation : int or (int, int)
        Size of the window, step between windows (None: the window), step between taps, in pixels.
    padding : int, (int, int), ((top, bottom), (left, right)), "same" or "valid"
        Pixels around the image that never win; at most half the window, or so few that each window
        holds a pixel of the image.
    ceil_mode : bool
        Keep a last window that reaches past the padded image, if it starts inside it.

    Returns
    -------
    array, shape (N, C, OH, OW)
        OH = (H + top + bottom - dilation * (window - 1) - 1) / stride + 1, rounded down, or up
        with ``ceil_mode``.

    Raises
    ------
    ValueError
        If the window is larger than the padded image, or there is too much padding.

    Examples
    --------
    >>> y = max_pool2d(xp.reshape(xp.arange(16.0), (1, 1, 4, 4)), 2)
    >>> float(y[0, 0, 1, 1])
    15.0
    """
    return repeatable(x, **_pool_geometry(2, x, window, stride, padding, dilation, ceil_mode))


@operation
def max_pool3d(
    x: Array,
    window: SizesLike,
    *,
    stride: SizesLike | None = None,
    padding: Padding = 0,
    dilation: SizesLike = 1,
    ceil_mode: bool = False,
) -> Array:
    """Maximum over each window of a volume.

    ``y[n, c, h, i, j] = max_{t, u, v} x[n, c, h*stride + t*dilation - front, i*stride + u*dilation
    - top, j*stride + v*dilation - left]`` over what is inside the volume. NaN wins. The gradient
    goes to the first maximum of a window in row-major order.

    Parameters
    ----------
    x : array, shape (N, C, D, H, W)
        Volumes.
    window, stride, dilation : int or (int, int, int)
        Size of the window, step between windows (None: the window), step between taps.
    padding : int, (int, int, int), ((front, back), (top, bottom), (left, right)), "same" or "valid"
        Numbers around the volume that never win; at most half the window, or so few that each
        window holds a number of the volume.
    ceil_mode : bool
        Keep a last window that reaches past the padded volume, if it starts inside it.

    Returns
    -------
    array, shape (N, C, OD, OH, OW)
        OD = (D + front + back - dilation * (window - 1) - 1) / stride + 1, rounded down, or up
        with ``ceil_mode``; likewise OH and OW.

    Raises
    ------
    ValueError
        If the window is larger than the padded volume, or there is too much padding.

    Examples
    --------
    >>> y = max_pool3d(xp.reshape(xp.arange(64.0), (1, 1, 4, 4, 4)), 2)
    >>> float(y[0, 0, 0, 1, 1])
    31.0
    """
    return repeatable(x, **_pool_geometry(3, x, window, stride, padding, dilation, ceil_mode))


@max_pool1d.definition
@max_pool2d.definition
@max_pool3d.definition
def _(x: Array, *, window: Sizes, **geometry: Any) -> Array:
    pixels = taps(x, window, fill=-float("inf"), **geometry)
    return reduce(array_namespace(x).maximum, pixels)


@max_pool1d.pullback
@max_pool2d.pullback
@max_pool3d.pullback
def _(x: Array, *, window: Sizes, **geometry: Any) -> tuple[Array, Pullback]:
    xp = array_namespace(x)
    pixels = taps(x, window, fill=-float("inf"), **geometry)
    y = reduce(xp.maximum, pixels)

    def pullback(dy: Array) -> tuple[Array]:
        image = xp.ones((1, 1, *x.shape[2:]), dtype=xp.bool, device=device(x))
        inside = taps(image, window, fill=False, **geometry)
        free = xp.ones_like(y, dtype=xp.bool)  # windows whose maximum is still to be met
        gradients = []
        for pixel, real in zip(pixels, inside, strict=True):
            hit = free & real & ((pixel == y) | xp.isnan(pixel))
            free = free & ~hit
            gradients.append(xp.where(hit, dy, constant(0, dy)))
        return (fold(gradients, tuple(x.shape[2:]), window, **geometry),)

    return y, pullback


# --- mean ----------------------------------------------------------------------------------------


@operation
def avg_pool1d(
    x: Array,
    window: SizesLike,
    *,
    stride: SizesLike | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """Mean over each window of a signal.

    ``y[n, c, i] = sum_u x[n, c, i*stride + u - before] / count``.

    Parameters
    ----------
    x : array, shape (N, C, L)
        Signals.
    window, stride : int or (int,)
        Size of the window, step between windows (None: the window).
    padding : int, (int,), ((before, after),), "same" or "valid"
        Zeros around the signal; at most half the window, or so few that each window holds a number
        of the signal.
    ceil_mode : bool
        Keep a last window that reaches past the padded signal, if it starts inside it.
    count_include_pad : bool
        Whether padding counts in the divisor. What ``ceil_mode`` adds never does.

    Returns
    -------
    array, shape (N, C, OL)
        As for `max_pool1d`.

    Raises
    ------
    ValueError
        If the window is larger than the padded signal, or there is too much padding.

    Examples
    --------
    >>> y = avg_pool1d(xp.reshape(xp.arange(8.0), (1, 1, 8)), 4)
    >>> float(y[0, 0, 1])
    5.5
    """
    return _averaged(1, x, window, stride, padding, ceil_mode, count_include_pad)


@operation
def avg_pool2d(
    x: Array,
    window: PairLike,
    *,
    stride: PairLike | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """Mean over each window of an image.

    ``y[n, c, i, j] = sum_{u, v} x[n, c, i*stride + u - top, j*stride + v - left] / count``.

    Parameters
    ----------
    x : array, shape (N, C, H, W)
        Images.
    window, stride : int or (int, int)
        Size of the window, step between windows (None: the window), in pixels.
    padding : int, (int, int), ((top, bottom), (left, right)), "same" or "valid"
        Zeros around the image, in pixels; at most half the window, or so few that each window
        holds a pixel of the image.
    ceil_mode : bool
        Keep a last window that reaches past the padded image, if it starts inside it.
    count_include_pad : bool
        Whether padding counts in the divisor. What ``ceil_mode`` adds never does.

    Returns
    -------
    array, shape (N, C, OH, OW)
        As for `max_pool2d`.

    Raises
    ------
    ValueError
        If the window is larger than the padded image, or there is too much padding.

    Examples
    --------
    >>> y = avg_pool2d(xp.reshape(xp.arange(16.0), (1, 1, 4, 4)), 2)
    >>> float(y[0, 0, 0, 0])
    2.5
    """
    return _averaged(2, x, window, stride, padding, ceil_mode, count_include_pad)


@operation
def avg_pool3d(
    x: Array,
    window: SizesLike,
    *,
    stride: SizesLike | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """Mean over each window of a volume.

    ``y[n, c, h, i, j] = sum_{t, u, v} x[n, c, h*stride + t - front, i*stride + u - top, j*stride +
    v - left] / count``.

    Parameters
    ----------
    x : array, shape (N, C, D, H, W)
        Volumes.
    window, stride : int or (int, int, int)
        Size of the window, step between windows (None: the window).
    padding : int, (int, int, int), ((front, back), (top, bottom), (left, right)), "same" or "valid"
        Zeros around the volume; at most half the window, or so few that each window holds a number
        of the volume.
    ceil_mode : bool
        Keep a last window that reaches past the padded volume, if it starts inside it.
    count_include_pad : bool
        Whether padding counts in the divisor. What ``ceil_mode`` adds never does.

    Returns
    -------
    array, shape (N, C, OD, OH, OW)
        As for `max_pool3d`.

    Raises
    ------
    ValueError
        If the window is larger than the padded volume, or there is too much padding.

    Examples
    --------
    >>> y = avg_pool3d(xp.reshape(xp.arange(8.0), (1, 1, 2, 2, 2)), 2)
    >>> float(y[0, 0, 0, 0, 0])
    3.5
    """
    return _averaged(3, x, window, stride, padding, ceil_mode, count_include_pad)


def _averaged(
    rank: int,
    x: Array,
    window: SizesLike,
    stride: SizesLike | None,
    padding: Padding,
    ceil_mode: bool,
    count_include_pad: bool,
) -> Any:
    """Return what implementations receive; ``counted`` are the margins that count."""
    geometry = _pool_geometry(rank, x, window, stride, padding, 1, ceil_mode)
    dilation = geometry.pop("dilation")
    counted: Margins = ((0, 0),) * rank
    if count_include_pad:
        image = tuple(x.shape[2:])
        counted = as_margins(padding, geometry["window"], dilation, geometry["stride"], image)
    return repeatable(x, **geometry, counted=counted)


@avg_pool1d.definition
@avg_pool2d.definition
@avg_pool3d.definition
def _avg_pool(
    x: Array, *, window: Sizes, stride: Sizes, padding: Margins, counted: Margins
) -> Array:
    once = (1,) * len(window)
    pixels = taps(x, window, stride=stride, padding=padding, dilation=once)
    return sum(pixels[1:], start=pixels[0]) / window_counts(x, window, stride, padding, counted)


@avg_pool1d.pullback
@avg_pool2d.pullback
@avg_pool3d.pullback
def _(
    x: Array, *, window: Sizes, stride: Sizes, padding: Margins, counted: Margins
) -> tuple[Array, Pullback]:
    def pullback(dy: Array) -> tuple[Array]:
        share = dy / window_counts(x, window, stride, padding, counted)
        image, once = tuple(x.shape[2:]), (1,) * len(window)
        shares = [share] * math.prod(window)
        dx = fold(shares, image, window, stride=stride, padding=padding, dilation=once)
        return (dx,)

    y = _avg_pool(x, window=window, stride=stride, padding=padding, counted=counted)
    return y, pullback


def window_counts(
    x: Array, window: Sizes, stride: Sizes, padding: Margins, counted: Margins
) -> Array:
    """Return how many pixels count in each window: (1, 1, *outputs)."""
    xp, rank = array_namespace(x), len(window)
    counts: Any = 1
    for i, axis in enumerate(zip(x.shape[2:], window, stride, padding, counted, strict=True)):
        own = xp.asarray(_axis_counts(*axis), dtype=x.dtype, device=device(x))
        counts = counts * xp.reshape(own, (1,) * (2 + i) + (-1,) + (1,) * (rank - 1 - i))
    return counts


def _axis_counts(n: int, k: int, s: int, margin: Pair, counted: Pair) -> list[float]:
    starts = range(-margin[0], n + margin[1] - k + 1, s)
    first, end = -counted[0], n + counted[1]
    return [float(min(i + k, end) - max(i, first)) for i in starts]


# --- mean of all --------------------------------------------------------------------------------


@operation
def global_avg_pool(x: Array) -> Array:
    """Mean of each channel over all other axes of a sample: ``y[n, c] = mean(x[n, c, ...])``.

    Parameters
    ----------
    x : array, shape (N, C, ...)
        Signals, images or volumes of at least one number a channel.

    Returns
    -------
    array, shape (N, C)
        Ready for `dense`.

    Examples
    --------
    >>> y = global_avg_pool(xp.ones((2, 3, 5)))
    >>> tuple(y.shape), float(y[0, 0])
    ((2, 3), 1.0)
    """
    float_namespace(x=x)
    if x.ndim < 3:
        raise ValueError(
            f"x must have 3 or more dimensions (N, C, ...), got {x.ndim} in shape {tuple(x.shape)}"
        )
    _check_not_empty(x)
    return repeatable(x)


@operation
def global_avg_pool2d(x: Array) -> Array:
    """Mean over all pixels of each channel: ``y[n, c] = mean_{i, j} x[n, c, i, j]``.

    Parameters
    ----------
    x : array, shape (N, C, H, W)
        Images of at least one pixel.

    Returns
    -------
    array, shape (N, C)
        Ready for `dense`.

    Examples
    --------
    >>> y = global_avg_pool2d(xp.ones((2, 3, 4, 4)))
    >>> tuple(y.shape), float(y[0, 0])
    ((2, 3), 1.0)
    """
    float_namespace(x=x)
    check_ndim("x", x, 4, "(N, C, H, W)")
    _check_not_empty(x)
    return repeatable(x)


def _check_not_empty(x: Array) -> None:
    if 0 in x.shape[2:]:
        raise ValueError(f"x must have at least one pixel, got shape {tuple(x.shape)}")


@global_avg_pool.definition
@global_avg_pool2d.definition
def _global_avg_pool(x: Array) -> Array:
    return narrow(array_namespace(x).mean(widen(x), axis=tuple(range(2, x.ndim))), x)


@global_avg_pool.pullback
@global_avg_pool2d.pullback
def _(x: Array) -> tuple[Array, Pullback]:
    def pullback(dy: Array) -> tuple[Array]:
        xp, sizes = array_namespace(x), tuple(x.shape[2:])
        share = narrow(widen(dy) / math.prod(sizes), dy)
        return (xp.broadcast_to(xp.reshape(share, (*x.shape[:2], *(1 for _ in sizes))), x.shape),)

    return _global_avg_pool(x), pullback

"""Pooling over windows of an image: max_pool2d, avg_pool2d, global_avg_pool2d."""

from __future__ import annotations

from functools import reduce
from typing import Any

from ..core.arrays import Array, array_namespace, constant, device, narrow, widen
from ..core.checks import check_ndim, float_namespace
from ..core.geometry import (
    Margins,
    Pair,
    PairLike,
    as_margins,
    as_pair,
    ceil_margins,
    check_fits,
)
from ..core.operation import Pullback, operation, repeatable
from .unfolding import fold, taps

__all__ = ["avg_pool2d", "global_avg_pool2d", "max_pool2d"]


def _pool_geometry(
    x: Array,
    window: PairLike,
    stride: PairLike | None,
    padding: PairLike | Margins,
    dilation: PairLike,
    ceil_mode: bool,
) -> dict[str, Any]:
    """Check and complete a pool's options; ``ceil_mode`` becomes padding at the far sides."""
    check_ndim("x", x, 4, "(N, C, H, W)")
    window = as_pair("window", window)
    stride = window if stride is None else as_pair("stride", stride)
    dilation = as_pair("dilation", dilation)
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
def max_pool2d(
    x: Array,
    window: PairLike,
    *,
    stride: PairLike | None = None,
    padding: PairLike | Margins = 0,
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
    padding : int, (int, int) or ((top, bottom), (left, right))
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
    float_namespace(x=x)
    return repeatable(x, **_pool_geometry(x, window, stride, padding, dilation, ceil_mode))


@max_pool2d.definition
def _(x: Array, *, window: Pair, **geometry: Any) -> Array:
    pixels = taps(x, window, fill=-float("inf"), **geometry)
    return reduce(array_namespace(x).maximum, pixels)


@max_pool2d.pullback
def _(x: Array, *, window: Pair, **geometry: Any) -> tuple[Array, Pullback]:
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
def avg_pool2d(
    x: Array,
    window: PairLike,
    *,
    stride: PairLike | None = None,
    padding: PairLike | Margins = 0,
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
    padding : int, (int, int) or ((top, bottom), (left, right))
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
    float_namespace(x=x)
    geometry = _pool_geometry(x, window, stride, padding, 1, ceil_mode)
    nothing = ((0, 0), (0, 0))
    counted = nothing
    if count_include_pad:
        image = tuple(x.shape[2:])
        counted = as_margins(padding, geometry["window"], (1, 1), geometry["stride"], image)
    del geometry["dilation"]
    return repeatable(x, **geometry, counted=counted)


@avg_pool2d.definition
def _avg_pool2d(
    x: Array, *, window: Pair, stride: Pair, padding: Margins, counted: Margins
) -> Array:
    pixels = taps(x, window, stride=stride, padding=padding, dilation=(1, 1))
    return sum(pixels[1:], start=pixels[0]) / window_counts(x, window, stride, padding, counted)


@avg_pool2d.pullback
def _(
    x: Array, *, window: Pair, stride: Pair, padding: Margins, counted: Margins
) -> tuple[Array, Pullback]:
    def pullback(dy: Array) -> tuple[Array]:
        share = dy / window_counts(x, window, stride, padding, counted)
        image = tuple(x.shape[2:])
        shares = [share] * (window[0] * window[1])
        dx = fold(shares, image, window, stride=stride, padding=padding, dilation=(1, 1))
        return (dx,)

    y = _avg_pool2d(x, window=window, stride=stride, padding=padding, counted=counted)
    return y, pullback


def window_counts(
    x: Array, window: Pair, stride: Pair, padding: Margins, counted: Margins
) -> Array:
    """Return how many pixels count in each window: (1, 1, OH, OW)."""
    rows, columns = (
        _axis_counts(*axis)
        for axis in zip(x.shape[2:], window, stride, padding, counted, strict=True)
    )
    xp = array_namespace(x)
    rows = xp.asarray(rows, dtype=x.dtype, device=device(x))
    columns = xp.asarray(columns, dtype=x.dtype, device=device(x))
    return rows[None, None, :, None] * columns[None, None, None, :]


def _axis_counts(n: int, k: int, s: int, margin: Pair, counted: Pair) -> list[float]:
    starts = range(-margin[0], n + margin[1] - k + 1, s)
    first, end = -counted[0], n + counted[1]
    return [float(min(i + k, end) - max(i, first)) for i in starts]


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
    if 0 in x.shape[2:]:
        raise ValueError(f"x must have at least one pixel, got shape {tuple(x.shape)}")
    return repeatable(x)


@global_avg_pool2d.definition
def _global_avg_pool2d(x: Array) -> Array:
    return narrow(array_namespace(x).mean(widen(x), axis=(2, 3)), x)


@global_avg_pool2d.pullback
def _(x: Array) -> tuple[Array, Pullback]:
    def pullback(dy: Array) -> tuple[Array]:
        share = narrow(widen(dy) / (x.shape[2] * x.shape[3]), dy)
        return (array_namespace(x).broadcast_to(share[:, :, None, None], x.shape),)

    return _global_avg_pool2d(x), pullback

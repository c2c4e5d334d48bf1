"""Convolution (cross-correlation, as in every network library) of signals, images and volumes."""

from __future__ import annotations

import math
from typing import Any

from ..core.arrays import Array, array_namespace, constant, narrow, widen
from ..core.checks import check_choice, check_ndim, check_shape, float_namespace, integer
from ..core.geometry import (
    LAYOUTS,
    Padding,
    PairLike,
    SizesLike,
    as_margins,
    as_sizes,
    check_fits,
    output_size,
)
from ..core.operation import Pullback, operation, repeatable
from .pooling import max_pool2d
from .unfolding import fold, unfold

__all__ = ["conv1d", "conv2d", "conv3d"]

FILTERS = {
    1: "(K, C / groups, KL)",
    2: "(K, C / groups, KH, KW)",
    3: "(K, C / groups, KD, KH, KW)",
}


@operation
def conv1d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: SizesLike = 1,
    padding: Padding = 0,
    dilation: SizesLike = 1,
    groups: int = 1,
    activation: str | None = None,
) -> Array:
    """Convolution of signals with filters.

    ``y[n, k, i] = b[k] + sum_{c, u} w[k, c, u] x[n, c, i*stride + u*dilation - before]``, where x
    is 0 outside the signal. With ``groups``, filter k sees the channels of its own group only.

    Parameters
    ----------
    x : array, shape (N, C, L)
        Signals.
    w : array, shape (K, C / groups, KL)
        Filters, of the dtype of ``x``.
    b : array, shape (K,), optional
        Bias.
    stride, dilation : int or (int,)
        Step between windows, and between the taps of a window.
    padding : int, (int,), ((before, after),), "same" or "valid"
        Zeros around the signal. "same": OL = ceil(L / stride), the odd one behind it. "valid":
        none.
    groups : int
        Divides C and K.
    activation : {None, "relu"}
        Applied to the result, in the same pass where a kernel can.

    Returns
    -------
    array, shape (N, K, OL)
        OL = (L + before + after - dilation * (KL - 1) - 1) // stride + 1.

    Raises
    ------
    ValueError
        If shapes do not fit, or the window is larger than the padded signal.
    TypeError
        If dtypes or libraries differ.

    Examples
    --------
    >>> y = conv1d(xp.ones((2, 3, 8)), xp.ones((4, 3, 5)), padding="same", stride=2)
    >>> tuple(y.shape), float(y[0, 0, 1])
    ((2, 4, 4), 15.0)

    References
    ----------
    Dumoulin and Visin, A guide to convolution arithmetic for deep learning, arXiv:1603.07285.
    """
    options = _normalized(
        1, x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups,
        activation=activation,
    )  # fmt: skip
    return repeatable(x, w, b, **options)


@operation
def conv2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: PairLike = 1,
    padding: Padding = 0,
    dilation: PairLike = 1,
    groups: int = 1,
    activation: str | None = None,
    max_pool: int | None = None,
) -> Array:
    """Convolution of images with filters.

    ``y[n, k, i, j] = b[k] + sum_{c, u, v} w[k, c, u, v] x[n, c, i*stride + u*dilation - top,
    j*stride + v*dilation - left]``, where x is 0 outside the image. With ``groups``, filter k sees
    the channels of its own group only.

    Parameters
    ----------
    x : array, shape (N, C, H, W)
        Images.
    w : array, shape (K, C / groups, KH, KW)
        Filters, of the dtype of ``x``.
    b : array, shape (K,), optional
        Bias.
    stride, dilation : int or (int, int)
        Step between windows, and between the taps of a window, in pixels.
    padding : int, (int, int), ((top, bottom), (left, right)), "same" or "valid"
        Zeros around the image, in pixels. "same": OH = ceil(H / stride), the odd one at the
        bottom and right. "valid": none.
    groups : int
        Divides C and K.
    activation : {None, "relu"}
        Applied to the result, in the same pass where a kernel can.
    max_pool : {None, 2}
        Keeps the maximum of each 2 x 2 pixels of that, as `max_pool2d` does, in the same pass
        where a kernel can.

    Returns
    -------
    array, shape (N, K, OH, OW)
        OH = (H + top + bottom - dilation * (KH - 1) - 1) // stride + 1, likewise OW; half of it,
        rounded down, with ``max_pool``.

    Raises
    ------
    ValueError
        If shapes do not fit, or the window is larger than the padded image.
    TypeError
        If dtypes or libraries differ.

    Examples
    --------
    >>> y = conv2d(xp.ones((2, 3, 8, 8)), xp.ones((4, 3, 3, 3)), padding="same", stride=2)
    >>> tuple(y.shape), float(y[0, 0, 1, 1])
    ((2, 4, 4, 4), 27.0)

    References
    ----------
    Dumoulin and Visin, A guide to convolution arithmetic for deep learning, arXiv:1603.07285.
    """
    check_choice("max_pool", max_pool, (None, 2))
    options = _normalized(
        2, x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups,
        activation=activation,
    )  # fmt: skip
    if max_pool:
        sizes = {name: options[name] for name in ("stride", "padding", "dilation")}
        size = output_size(tuple(x.shape[2:]), tuple(w.shape[2:]), **sizes)
        check_fits(size, (2, 2), ((0, 0), (0, 0)), (1, 1))
    return repeatable(x, w, b, **options, max_pool=max_pool)


@operation
def conv3d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: SizesLike = 1,
    padding: Padding = 0,
    dilation: SizesLike = 1,
    groups: int = 1,
    activation: str | None = None,
) -> Array:
    """Convolution of volumes, such as videos and scans, with filters.

    ``y[n, k, h, i, j] = b[k] + sum_{c, t, u, v} w[k, c, t, u, v] x[n, c, h*stride + t*dilation -
    front, i*stride + u*dilation - top, j*stride + v*dilation - left]``, where x is 0 outside the
    volume. With ``groups``, filter k sees the channels of its own group only.

    Parameters
    ----------
    x : array, shape (N, C, D, H, W)
        Volumes.
    w : array, shape (K, C / groups, KD, KH, KW)
        Filters, of the dtype of ``x``.
    b : array, shape (K,), optional
        Bias.
    stride, dilation : int or (int, int, int)
        Step between windows, and between the taps of a window.
    padding : int, (int, int, int), ((front, back), (top, bottom), (left, right)), "same" or "valid"
        Zeros around the volume. "same": OD = ceil(D / stride) and so on, the odd one at the back,
        the bottom and the right. "valid": none.
    groups : int
        Divides C and K.
    activation : {None, "relu"}
        Applied to the result, in the same pass where a kernel can.

    Returns
    -------
    array, shape (N, K, OD, OH, OW)
        OD = (D + front + back - dilation * (KD - 1) - 1) // stride + 1, likewise OH and OW.

    Raises
    ------
    ValueError
        If shapes do not fit, or the window is larger than the padded volume.
    TypeError
        If dtypes or libraries differ.

    Examples
    --------
    >>> y = conv3d(xp.ones((2, 3, 4, 8, 8)), xp.ones((4, 3, 3, 3, 3)), padding="same", stride=2)
    >>> tuple(y.shape), float(y[0, 0, 0, 1, 1])
    ((2, 4, 2, 4, 4), 81.0)

    References
    ----------
    Tran et al., Learning spatiotemporal features with 3D convolutional networks, arXiv:1412.0767.
    """
    options = _normalized(
        3, x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups,
        activation=activation,
    )  # fmt: skip
    return repeatable(x, w, b, **options)


def _normalized(
    rank: int,
    x: Array,
    w: Array,
    b: Array | None,
    *,
    stride: SizesLike,
    padding: Padding,
    dilation: SizesLike,
    groups: int,
    activation: str | None,
) -> dict[str, Any]:
    """Check the arguments of a convolution over ``rank`` axes; return its complete options."""
    float_namespace(x=x, w=w, b=b)
    check_ndim("x", x, 2 + rank, LAYOUTS[rank])
    check_ndim("w", w, 2 + rank, FILTERS[rank])
    check_groups(x.shape[1], w.shape[0], groups)
    if w.shape[1] * groups != x.shape[1]:
        raise ValueError(
            f"w of shape {tuple(w.shape)} takes {w.shape[1] * groups} channels "
            f"({groups} groups of {w.shape[1]}), but x of shape {tuple(x.shape)} has {x.shape[1]}"
        )
    if b is not None:
        check_shape("b", b, (w.shape[0],), "one bias a filter")
    check_choice("activation", activation, (None, "relu"))
    image, window = tuple(x.shape[2:]), tuple(w.shape[2:])
    stride, dilation = as_sizes("stride", stride, rank), as_sizes("dilation", dilation, rank)
    margins = as_margins(padding, window, dilation, stride, image)
    check_fits(image, window, margins, dilation)
    return {
        "stride": stride,
        "padding": margins,
        "dilation": dilation,
        "groups": int(groups),
        "activation": activation,
    }


def check_groups(channels: int, filters: int, groups: Any) -> None:
    """Raise ValueError unless ``groups`` is a positive integer that divides both counts."""
    count = integer("groups", groups)
    if channels % count or filters % count:
        raise ValueError(
            f"groups must divide the {channels} channels of x and the {filters} filters of w, "
            f"got {groups!r}"
        )


@conv1d.definition
@conv2d.definition
@conv3d.definition
def _(
    x: Array,
    w: Array,
    b: Array | None,
    *,
    groups: int,
    activation: str | None,
    max_pool: int | None = None,
    **geometry: Any,
) -> Array:
    columns = unfold(x, tuple(w.shape[2:]), **geometry)  # (N, C, taps, *outputs)
    y = _filtered(columns, w, b, groups, activation)
    return max_pool2d(y, max_pool) if max_pool else y


@conv1d.pullback
@conv2d.pullback
@conv3d.pullback
def _(
    x: Array,
    w: Array,
    b: Array | None,
    *,
    groups: int,
    activation: str | None,
    max_pool: int | None = None,
    wrt: frozenset[int],
    **geometry: Any,
) -> tuple[Array, Pullback]:
    xp = array_namespace(x)
    image, window = tuple(x.shape[2:]), tuple(w.shape[2:])
    columns = unfold(x, window, **geometry)
    y = _filtered(columns, w, b, groups, activation)
    value, of_pool = max_pool2d.vjp(y, max_pool) if max_pool else (y, lambda dy: (dy,))

    def pullback(dy: Array) -> tuple[Array | None, ...]:
        dx = dw = db = None
        (dy,) = of_pool(dy)
        if activation == "relu":
            dy = xp.where(y <= 0, constant(0, dy), dy)
        if 2 in wrt and b is not None:
            db = narrow(xp.sum(widen(dy), axis=(0, *range(2, dy.ndim))), b)
        n, k, *outputs = dy.shape
        dy = xp.reshape(dy, (n, groups, k // groups, math.prod(outputs)))
        if 1 in wrt:
            per_image = dy @ xp.matrix_transpose(_column_matrix(columns, groups))
            dw = narrow(xp.reshape(xp.sum(widen(per_image), axis=0), w.shape), w)
        if 0 in wrt:
            dcolumns = narrow(xp.matrix_transpose(_filter_matrix(w, groups)) @ dy, x)
            count = columns.shape[2]
            dcolumns = xp.reshape(dcolumns, (n, groups, w.shape[1], count, *outputs))
            dcolumns = xp.reshape(dcolumns, columns.shape)
            taps = (dcolumns[:, :, t, ...] for t in range(count))
            dx = fold(taps, image, window, **geometry)
        return dx, dw, db

    return value, pullback


def _filtered(
    columns: Array, w: Array, b: Array | None, groups: int, activation: str | None
) -> Array:
    xp = array_namespace(w)
    n, _, _, *outputs = columns.shape
    y = narrow(_filter_matrix(w, groups) @ _column_matrix(columns, groups), w)
    y = xp.reshape(y, (n, w.shape[0], *outputs))
    if b is not None:
        y = y + xp.reshape(b, (1, w.shape[0], *(1 for _ in outputs)))
    return xp.where(y <= 0, constant(0, y), y) if activation == "relu" else y


def _column_matrix(columns: Array, groups: int) -> Array:
    xp = array_namespace(columns)
    n, c, taps, *outputs = columns.shape
    split = (n, groups, c // groups, taps, *outputs)
    columns = xp.reshape(columns, split)  # dask splits, then merges
    return xp.reshape(columns, (n, groups, c // groups * taps, math.prod(outputs)))


def _filter_matrix(w: Array, groups: int) -> Array:
    k, *taken = w.shape
    return array_namespace(w).reshape(w, (groups, k // groups, math.prod(taken)))

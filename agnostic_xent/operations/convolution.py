"""Two-dimensional convolution (cross-correlation, as in every network library)."""

from __future__ import annotations

from typing import Any

from ..core.arrays import Array, array_namespace, constant, narrow, widen
from ..core.checks import check_choice, check_ndim, check_shape, float_namespace, integer
from ..core.geometry import Padding, PairLike, as_margins, as_pair, check_fits, output_size
from ..core.operation import Pullback, operation, repeatable
from .pooling import max_pool2d
from .unfolding import fold, unfold

__all__ = ["conv2d"]


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
    float_namespace(x=x, w=w, b=b)
    check_ndim("x", x, 4, "(N, C, H, W)")
    check_ndim("w", w, 4, "(K, C / groups, KH, KW)")
    check_groups(x.shape[1], w.shape[0], groups)
    if w.shape[1] * groups != x.shape[1]:
        raise ValueError(
            f"w of shape {tuple(w.shape)} takes {w.shape[1] * groups} channels "
            f"({groups} groups of {w.shape[1]}), but x of shape {tuple(x.shape)} has {x.shape[1]}"
        )
    if b is not None:
        check_shape("b", b, (w.shape[0],), "one bias a filter")
    check_choice("activation", activation, (None, "relu"))
    check_choice("max_pool", max_pool, (None, 2))
    image, window = tuple(x.shape[2:]), tuple(w.shape[2:])
    stride, dilation = as_pair("stride", stride), as_pair("dilation", dilation)
    padding = as_margins(padding, window, dilation, stride, image)
    check_fits(image, window, padding, dilation)
    if max_pool:
        size = output_size(image, window, stride=stride, padding=padding, dilation=dilation)
        check_fits(size, (2, 2), ((0, 0), (0, 0)), (1, 1))
    return repeatable(
        x,
        w,
        b,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=int(groups),
        activation=activation,
        max_pool=max_pool,
    )


def check_groups(channels: int, filters: int, groups: Any) -> None:
    """Raise ValueError unless ``groups`` is a positive integer that divides both counts."""
    count = integer("groups", groups)
    if channels % count or filters % count:
        raise ValueError(
            f"groups must divide the {channels} channels of x and the {filters} filters of w, "
            f"got {groups!r}"
        )


@conv2d.definition
def _(
    x: Array,
    w: Array,
    b: Array | None,
    *,
    groups: int,
    activation: str | None,
    max_pool: int | None,
    **geometry: Any,
) -> Array:
    columns = unfold(x, tuple(w.shape[2:]), **geometry)  # (N, C, KH*KW, OH, OW)
    y = _filtered(columns, w, b, groups, activation)
    return max_pool2d(y, max_pool) if max_pool else y


@conv2d.pullback
def _(
    x: Array,
    w: Array,
    b: Array | None,
    *,
    groups: int,
    activation: str | None,
    max_pool: int | None,
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
            db = narrow(xp.sum(widen(dy), axis=(0, 2, 3)), b)
        n, k, oh, ow = dy.shape
        dy = xp.reshape(dy, (n, groups, k // groups, oh * ow))
        if 1 in wrt:
            per_image = dy @ xp.matrix_transpose(_column_matrix(columns, groups))
            dw = narrow(xp.reshape(xp.sum(widen(per_image), axis=0), w.shape), w)
        if 0 in wrt:
            dcolumns = narrow(xp.matrix_transpose(_filter_matrix(w, groups)) @ dy, x)
            dcolumns = xp.reshape(dcolumns, (n, groups, w.shape[1], columns.shape[2], oh, ow))
            dcolumns = xp.reshape(dcolumns, columns.shape)
            taps = (dcolumns[:, :, t, ...] for t in range(columns.shape[2]))
            dx = fold(taps, image, window, **geometry)
        return dx, dw, db

    return value, pullback


def _filtered(
    columns: Array, w: Array, b: Array | None, groups: int, activation: str | None
) -> Array:
    xp = array_namespace(w)
    n, _, _, oh, ow = columns.shape
    y = narrow(_filter_matrix(w, groups) @ _column_matrix(columns, groups), w)
    y = xp.reshape(y, (n, w.shape[0], oh, ow))
    if b is not None:
        y = y + xp.reshape(b, (1, w.shape[0], 1, 1))
    return xp.where(y <= 0, constant(0, y), y) if activation == "relu" else y


def _column_matrix(columns: Array, groups: int) -> Array:
    xp = array_namespace(columns)
    n, c, taps, oh, ow = columns.shape
    split = xp.reshape(columns, (n, groups, c // groups, taps, oh, ow))  # dask splits, then merges
    return xp.reshape(split, (n, groups, c // groups * taps, oh * ow))


def _filter_matrix(w: Array, groups: int) -> Array:
    k, c, kh, kw = w.shape
    return array_namespace(w).reshape(w, (groups, k // groups, c * kh * kw))

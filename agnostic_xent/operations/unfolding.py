"""Sliding windows over images: the adjoint pair unfold and fold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import array_api_extra as xpx

from ..core.arrays import Array, array_namespace, device
from ..core.geometry import Margins, Pair, output_size


def taps(
    x: Array, window: Pair, *, stride: Pair, padding: Margins, dilation: Pair, fill: float = 0.0
) -> list[Array]:
    """Return, for each of the KH*KW taps of the window, the pixels under it: (N, C, OH, OW)."""
    if padding != ((0, 0), (0, 0)):
        x = xpx.pad(x, ((0, 0), (0, 0), *padding), constant_values=fill)
    return [x[:, :, rows, columns] for rows, columns in _tap_slices(x, window, stride, dilation)]


def unfold(x: Array, window: Pair, *, stride: Pair, padding: Margins, dilation: Pair) -> Array:
    """Return the pixels under every tap of every window: (N, C, KH*KW, OH, OW). Also "im2col"."""
    pixels = taps(x, window, stride=stride, padding=padding, dilation=dilation)
    return array_namespace(x).stack(pixels, axis=2)


def fold(
    columns: Iterable[Array],
    image: Pair,
    window: Pair,
    *,
    stride: Pair,
    padding: Margins,
    dilation: Pair,
) -> Array:
    """Return the adjoint of `taps`: sum each tap's (N, C, OH, OW) back onto its pixels."""
    columns = iter(columns)
    first = next(columns)
    (top, bottom), (left, right) = padding
    padded = array_namespace(first).zeros(
        (*first.shape[:2], image[0] + top + bottom, image[1] + left + right),
        dtype=first.dtype,
        device=device(first),
    )
    slices = _tap_slices(padded, window, stride, dilation)
    for column, (rows, cols) in zip(chain([first], columns), slices, strict=True):
        padded = xpx.at(padded)[:, :, rows, cols].add(column)
    return padded[:, :, top : top + image[0], left : left + image[1]]


def _tap_slices(
    padded: Array, window: Pair, stride: Pair, dilation: Pair
) -> Iterator[tuple[slice, slice]]:
    """Yield, tap by tap, the rows and columns of the padded image that the windows meet."""
    (kh, kw), (sh, sw), (dh, dw) = window, stride, dilation
    oh, ow = output_size(
        tuple(padded.shape[2:]),
        window,
        stride=stride,
        padding=((0, 0), (0, 0)),
        dilation=dilation,
    )
    for i in range(0, kh * dh, dh):
        for j in range(0, kw * dw, dw):
            yield slice(i, i + (oh - 1) * sh + 1, sh), slice(j, j + (ow - 1) * sw + 1, sw)

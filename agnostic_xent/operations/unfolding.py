"""Sliding windows over signals, images and volumes: the adjoint pair unfold and fold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, product

import array_api_extra as xpx

from ..core.arrays import Array, array_namespace, device
from ..core.geometry import Margins, Sizes, output_size

ALL = slice(None)


def taps(
    x: Array, window: Sizes, *, stride: Sizes, padding: Margins, dilation: Sizes, fill: float = 0.0
) -> list[Array]:
    """Return, for each tap of the window in row-major order, what is under it: (N, C, *outputs)."""
    if any(map(any, padding)):
        x = xpx.pad(x, ((0, 0), (0, 0), *padding), constant_values=fill)
    return [x[ALL, ALL, *places] for places in _tap_slices(x, window, stride, dilation)]


def unfold(x: Array, window: Sizes, *, stride: Sizes, padding: Margins, dilation: Sizes) -> Array:
    """Return what is under every tap of every window: (N, C, taps, *outputs). Also "im2col"."""
    pixels = taps(x, window, stride=stride, padding=padding, dilation=dilation)
    return array_namespace(x).stack(pixels, axis=2)


def fold(
    columns: Iterable[Array],
    image: Sizes,
    window: Sizes,
    *,
    stride: Sizes,
    padding: Margins,
    dilation: Sizes,
) -> Array:
    """Return the adjoint of `taps`: sum each tap's (N, C, *outputs) back onto its pixels."""
    columns = iter(columns)
    first = next(columns)
    sides = zip(image, padding, strict=True)
    padded = array_namespace(first).zeros(
        (*first.shape[:2], *(n + before + after for n, (before, after) in sides)),
        dtype=first.dtype,
        device=device(first),
    )
    slices = _tap_slices(padded, window, stride, dilation)
    for column, places in zip(chain([first], columns), slices, strict=True):
        padded = xpx.at(padded)[ALL, ALL, *places].add(column)
    inside = (slice(before, before + n) for n, (before, _) in zip(image, padding, strict=True))
    return padded[ALL, ALL, *inside]


def _tap_slices(
    padded: Array, window: Sizes, stride: Sizes, dilation: Sizes
) -> Iterator[tuple[slice, ...]]:
    """Yield, tap by tap, the places of a padded image that the windows meet, along each axis."""
    image, nothing = tuple(padded.shape[2:]), ((0, 0),) * len(window)
    outputs = output_size(image, window, stride=stride, padding=nothing, dilation=dilation)
    axes = zip(window, stride, dilation, outputs, strict=True)
    return product(*([slice(i, i + (n - 1) * s + 1, s) for i in range(0, k * d, d)]
                     for k, s, d, n in axes))  # fmt: skip

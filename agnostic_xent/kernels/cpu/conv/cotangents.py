"""What stands between a convolution and its cotangent: ReLU and the bias."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..simd.elementary import SUM, njit, plain
from ..simd.elements import FEW
from ..toolchain.compiling import compiled_in_parts
from ..toolchain.memory import empty
from ..toolchain.signatures import FLOATS, Bytes, Read2, Write1, Write2
from ..toolchain.threads import PIECES
from .winograd_tiles import NOBODY


@njit(**SUM)
def total(dy: Any) -> Any:
    """Return the sum of the plane dy."""
    s = dy.dtype.type(0)
    for p in range(dy.size):
        s += dy[p]
    return s


@plain
def mask(dy: Any, y: Any, masked: Any) -> None:
    """Write dy where ReLU let something through, y > 0, to masked, else 0."""
    for p in range(dy.size):
        masked[p] = dy.dtype.type(0) if y[p] <= 0 else dy[p]


@njit(**SUM)
def total_of_winners(dy: Any, winners: Any) -> Any:
    """Return the sum of the pooled cotangents dy that a pixel gets, one of the winners."""
    s = dy.dtype.type(0)
    for p in range(dy.size):
        s += dy.dtype.type(0) if winners[p] == NOBODY else dy[p]
    return s


@compiled_in_parts(PIECES, kind=FLOATS)
def mask_planes(dy: Read2, y: Read2, masked: Write2, sums: Write1, parts: int, part: int) -> None:
    """Write dy (planes, pixels) where y > 0, else 0, to masked, and the sum of each plane."""
    for plane in range(dy.shape[0] * part // parts, dy.shape[0] * (part + 1) // parts):
        mask(dy[plane], y[plane], masked[plane])
        sums[plane] = total(masked[plane])


@compiled_in_parts(PIECES, kind=FLOATS)
def sum_planes(dy: Read2, winners: Bytes, sums: Write1, parts: int, part: int) -> None:
    """Write the sum of each plane of dy (planes, pixels), or of what ``winners`` of a pool get."""
    pixels = dy.shape[1]
    for plane in range(dy.shape[0] * part // parts, dy.shape[0] * (part + 1) // parts):
        if winners.size > 0:
            mine = winners[plane * pixels : (plane + 1) * pixels]
            sums[plane] = total_of_winners(dy[plane], mine)
        else:
            sums[plane] = total(dy[plane])


def through_relu(dy: Any, y: Any) -> tuple[Any, Any]:
    """Return dy where y > 0, and its sum over images and pixels: the bias gradient."""
    planes, masked = dy.shape[0] * dy.shape[1], empty(dy.shape, dy.dtype)
    sums = np.empty(planes, dy.dtype)
    dy, y = (np.ascontiguousarray(a).reshape(planes, -1) for a in (dy, y))
    out = masked.reshape(planes, -1), sums
    mask_planes[dy.dtype](dy, y, *out, alone=dy.size < FEW)
    return masked, over_images(sums.reshape(masked.shape[:2]))


def bias_gradient(dy: Any, winners: Any) -> Any:
    """Return the sum of dy over images and pixels, or of pooled cotangents."""
    planes = dy.shape[0] * dy.shape[1]
    sums = np.empty(planes, dy.dtype)
    rows = np.ascontiguousarray(dy).reshape(planes, -1)
    sum_planes[dy.dtype](rows, winners, sums, alone=dy.size < FEW)
    return over_images(sums.reshape(dy.shape[:2]))


def over_images(sums: Any) -> Any:
    """Return the sums of planes (images, channels) over the images."""
    return sums.sum(axis=0, dtype=np.float64).astype(sums.dtype)

"""What stands between a convolution and its cotangent: ReLU and the bias."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..simd.elementary import SUM, njit, plain
from ..simd.elements import FEW
from ..simd.tiles import in_blocks, registers
from ..simd.vectors import Vectors, cgutils, emitted
from ..toolchain.compiling import compiled_in_parts
from ..toolchain.memory import empty
from ..toolchain.signatures import FLOATS, Bytes, Read2, Write1, Write2
from ..toolchain.threads import PIECES
from .winograd_tiles import NOBODY

VECTORS = 4
"""Sums that are added up side by side, since each addition waits for the one before."""


def _total(v: Vectors, dy: Any, sums: Any, count: Any, place: Any) -> None:
    """Emit ``sums[place] =`` the sum of a plane of so many numbers.

    The order is written here: a compiler's choice depends on the code around it, and the bias
    gradient would have other bits where the weight gradient takes it along. First come whole
    vectors, `VECTORS` at a time, then half ones, then single numbers.
    """
    b, half = v.builder, v.lanes // 2
    step = v.index(VECTORS * v.lanes)
    (slots,) = registers(v, 1, VECTORS)
    for slot in slots:
        b.store(v.zero, slot)
    blocks = b.sdiv(count, step)

    def add(block: Any) -> None:
        for j, slot in enumerate(slots):
            some = v.load(v.at(dy, b.add(b.mul(block, step), v.index(j * v.lanes))))
            b.store(b.fadd(b.load(slot), some), slot)

    in_blocks(v, blocks, add, [slots])
    added = b.load(slots[0])
    for slot in slots[1:]:
        added = b.fadd(b.load(slot), added)
    done = b.mul(blocks, step)
    halves = b.sdiv(b.sub(count, done), v.index(half))
    b.store(b.insert_element(v.zero, _across(v, added), v.index(0)), slots[0])
    with cgutils.for_range(b, halves) as loop:
        start = v.at(dy, b.add(done, b.mul(loop.index, v.index(half))))
        some = v.load_masked(start, v.first(v.index(half)))
        b.store(b.fadd(b.load(slots[0]), some), slots[0])
    done = b.add(done, b.mul(halves, v.index(half)))
    b.store(_across(v, b.load(slots[0])), v.at(sums, place))
    with cgutils.for_range(b, b.sub(count, done)) as loop:
        more = b.load(v.at(dy, b.add(done, loop.index)))
        b.store(b.fadd(b.load(v.at(sums, place)), more), v.at(sums, place))


def _across(v: Vectors, x: Any) -> Any:
    """Return the sum of a vector's lanes, of each half and the other."""
    width = v.lanes // 2
    while width:
        x = v.builder.fadd(x, v.shuffle(x, x, [i ^ width for i in range(v.lanes)]))
        width //= 2
    return v.builder.extract_element(x, v.index(0))


total = emitted(2, _total)


@plain
def mask(dy: Any, y: Any, masked: Any) -> None:
    """Write dy where ReLU let something through, y > 0, to masked, else 0."""
    for p in range(dy.size):
        masked[p] = dy.dtype.type(0) if y[p] <= 0 else dy[p]


@njit(**SUM)
def total_of_winners(dy: Any, winners: Any) -> Any:
    """Return the sum of the pooled cotangents dy that a pixel gets, one of the winners."""
    s = 0.0
    for p in range(dy.size):
        s += 0.0 if winners[p] == NOBODY else np.float64(dy[p])
    return s


@compiled_in_parts(PIECES, kind=FLOATS)
def mask_planes(dy: Read2, y: Read2, masked: Write2, sums: Write1, parts: int, part: int) -> None:
    """Write dy (planes, pixels) where y > 0, else 0, to masked, and the sum of each plane."""
    for plane in range(dy.shape[0] * part // parts, dy.shape[0] * (part + 1) // parts):
        mask(dy[plane], y[plane], masked[plane])
        total(masked[plane], sums, masked.shape[1], plane)


@compiled_in_parts(PIECES, kind=FLOATS)
def sum_planes(dy: Read2, winners: Bytes, sums: Write1, parts: int, part: int) -> None:
    """Write the sum of each plane of dy (planes, pixels), or of what ``winners`` of a pool get."""
    pixels = dy.shape[1]
    for plane in range(dy.shape[0] * part // parts, dy.shape[0] * (part + 1) // parts):
        if winners.size > 0:
            mine = winners[plane * pixels : (plane + 1) * pixels]
            sums[plane] = total_of_winners(dy[plane], mine)
        else:
            total(dy[plane], sums, pixels, plane)


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

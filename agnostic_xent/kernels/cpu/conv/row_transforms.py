"""Winograd's algorithm along a signal: its transforms, on vectors of channels.

They are those down the columns of an image (``column_transforms.py``): 8 pixels to 8 points, and
these to 9 - r outputs for r taps. Lanes are channels or filters, so pixels that follow each other
in a tile may be any number of pixels apart.
"""

from __future__ import annotations

from typing import Any

from ..simd.vectors import Vectors, cgutils, emitted
from .column_transforms import MOST, POINTS, of_cotangents, of_pixels, row_of
from .winograd_transforms import Arithmetic


def _pixel_tile(
    v: Vectors, x: Any, points: Any, x0: Any, step: Any, p0: Any, plane: Any
) -> None:  # fmt: skip
    """Emit the transform of 8 vectors of pixels, so many numbers apart."""
    pixels = [v.load(place) for place in v.places(v.at(x, x0), step, POINTS)]
    for point, place in zip(
        of_pixels(Arithmetic(v), pixels), v.places(v.at(points, p0), plane, POINTS), strict=True
    ):
        v.store(point, place)


def _cotangent_tile(
    v: Vectors, dy: Any, points: Any, d0: Any, step: Any, written: Any, p0: Any, plane: Any
) -> None:  # fmt: skip
    """Emit the transform of ``written`` vectors of cotangents."""
    b, rows = v.builder, []
    for i, place in enumerate(v.places(v.at(dy, d0), step, MOST)):
        there = v.all_or_none(b.icmp_signed("<", v.index(i), written))
        rows.append(v.load_masked(place, there))
    last = v.load(v.at(v.at(dy, d0), b.mul(step, b.sub(written, v.index(1)))))
    found = [*of_cotangents(Arithmetic(v), rows), last]
    for point, place in zip(found, v.places(v.at(points, p0), plane, POINTS), strict=True):
        v.store(point, place)


def _output_tile(
    v: Vectors, points: Any, bias: Any, y: Any, p0: Any, plane: Any, b0: Any, y0: Any, step: Any,
    written: Any, relu: Any,
) -> None:  # fmt: skip
    """Emit the transform to ``written`` vectors of outputs, plus bias, not below 0 if ``relu``."""
    b = v.builder
    m = [v.load(place) for place in v.places(v.at(points, p0), plane, POINTS)]
    lowest = b.select(b.icmp_signed("!=", relu, v.index(0)), v.zero, v.constant(float("-inf")))
    row = row_of(v, m, v.load(v.at(bias, b0)), written)
    for i, place in enumerate(v.places(v.at(y, y0), step, MOST)):
        with b.if_then(b.icmp_signed("<", v.index(i), written)):
            v.store(v.at_least(row(i), lowest), place)


def _weighted_sum(
    v: Vectors, factors: Any, x: Any, y: Any, f0: Any, f_step: Any, x0: Any, x_step: Any,
    count: Any, y0: Any,
) -> None:  # fmt: skip
    """Emit ``y = sum_i factors[i] x[i]`` of so many vectors, weights or their gradients."""
    b, total = v.builder, cgutils.alloca_once(v.builder, v.type)
    factors, x = v.at(factors, f0), v.at(x, x0)
    b.store(v.zero, total)
    with cgutils.for_range(b, count) as loop:
        factor = v.splat(b.load(v.at(factors, b.mul(loop.index, f_step))))
        vector = v.load(v.at(x, b.mul(loop.index, x_step)))
        b.store(v.fma(factor, vector, b.load(total)), total)
    v.store(b.load(total), v.at(y, y0))


pixel_tile, cotangent_tile = emitted(2, _pixel_tile), emitted(2, _cotangent_tile)
output_tile, weighted_sum = emitted(3, _output_tile), emitted(3, _weighted_sum)

"""Winograd's algorithm down the columns of an image: its transforms, on vectors of a row's pixels.

A window of r rows takes 9 - r rows of outputs at once: ``y = A^T [(G w) * (B^T x)]`` with 8 rows of
pixels x, and 8 points 0, 1, -1, 2, -2, 1/2, -1/2 and infinity: 8 multiplications for r (9 - r). The
points do not depend on r, so neither does B. Along the rows nothing is transformed: lanes are
neighbouring pixels, and images are read and written as they lie.

References
----------
Lavin and Gray, Fast algorithms for convolutional neural networks, arXiv:1509.09308.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ..simd.vectors import Vectors, cgutils, emitted
from .winograd_transforms import Arithmetic

PLACES = (0, 1, -1, 2, -2, 1 / 2, -1 / 2)
FACTORS = (1, -2 / 9, -2 / 9, 1 / 90, 1 / 90, 32 / 45, 32 / 45)
POINTS = len(PLACES) + 1

LOWEST, HIGHEST = 3, POINTS - 1
"""Rows of a window: with fewer, there is little to save."""

MOST = POINTS + 1 - LOWEST
"""Rows of outputs at once."""


@functools.cache
def weight_matrix(window: int, dtype: Any = np.float32) -> Any:
    """Return G, (points, window)."""
    powers = np.vander(PLACES, window, increasing=True) * np.asarray(FACTORS)[:, None]
    return np.vstack([powers, np.eye(window)[-1:]]).astype(dtype)


def of_pixels(o: Arithmetic, d: list[Any]) -> list[Any]:
    """Return B^T d: 8 rows of pixels to 8 points."""
    even1, odd1 = o.plus(-17 / 4, d[4], o.add(d[2], d[6])), o.plus(-17 / 4, d[3], o.add(d[1], d[5]))
    even2 = o.plus(1 / 4, d[2], o.plus(-5 / 4, d[4], d[6]))
    odd2 = o.plus(1 / 2, d[1], o.plus(-5 / 2, d[3], o.times(2, d[5])))
    even3 = o.plus(4, d[2], o.plus(-5, d[4], d[6]))
    odd3 = o.plus(2, d[1], o.plus(-5 / 2, d[3], o.times(1 / 2, d[5])))
    return [
        o.plus(21 / 4, o.subtract(d[4], d[2]), o.subtract(d[0], d[6])),
        o.add(even1, odd1),
        o.subtract(even1, odd1),
        o.add(even2, odd2),
        o.subtract(even2, odd2),
        o.add(even3, odd3),
        o.subtract(even3, odd3),
        o.plus(21 / 4, o.subtract(d[3], d[5]), o.subtract(d[7], d[1])),
    ]


def of_cotangents(o: Arithmetic, y: list[Any]) -> list[Any]:
    """Return A y without infinity: 6 rows of cotangents, 0 from the last on, to 7 points."""
    points = [y[0]]
    for place in PLACES[1::2]:  # and the negative ones
        even, odd = (
            functools.reduce(lambda total, row: o.plus(place**2, total, row), rows[::-1])
            for rows in (y[0::2], y[1::2])
        )
        odd = o.times(place, odd)
        points += [o.add(even, odd), o.subtract(even, odd)]
    return points


def row_of(v: Vectors, m: list[Any], start: Any, written: Any) -> Callable[[int], Any]:
    """Emit what all rows of A^T m share; return what emits one of ``written``, plus start."""
    b, o = v.builder, Arithmetic(v)
    pairs = [m[i : i + 2] for i in range(1, POINTS - 1, 2)]
    sums = [[o.add(*pair) for pair in pairs], [o.subtract(*pair) for pair in pairs]]
    first, end = o.add(m[0], start), b.sub(written, v.index(1))

    def row(i: int) -> Any:
        one, two, half = sums[i % 2]
        outputs = o.plus(2.0**i, two, o.plus(0.5**i, half, one))
        outputs = o.add(outputs, first if i == 0 else start)
        at_end = b.icmp_signed("==", v.index(i), end)
        return o.add(outputs, b.select(at_end, m[-1], v.zero))

    return row


def _read_rows(step: int) -> Any:
    """Return the kernel that transforms 8 rows of pixels, every ``step``-th pixel of each.

    Rows before ``first`` and from ``last`` on are zero, and pixels outside a row. Whole vectors are
    written: up to a vector behind ``pitch``, which is filled later or is room.
    """

    def emit(
        v: Vectors, x: Any, points: Any, x0: Any, stride: Any, first: Any, last: Any, start: Any,
        width: Any, p0: Any, plane: Any, pitch: Any,
    ) -> None:  # fmt: skip
        b, x, points, lanes = v.builder, v.at(x, x0), v.at(points, p0), v.index(v.lanes)
        none, every = v.first(v.index(0)), [j * step for j in range(v.lanes)]
        with cgutils.for_range(b, b.sdiv(b.add(pitch, v.index(v.lanes - 1)), lanes)) as loop:
            done = b.mul(loop.index, lanes)
            places = [b.add(start, b.mul(done, v.index(step)))]
            for _ in range(step - 1):
                places.append(b.add(places[-1], lanes))
            inside = [
                b.and_(b.not_(v.first(b.neg(place))), v.first(b.sub(width, place)))
                for place in places
            ]
            rows = []
            for i in range(POINTS):
                row = v.at(x, b.mul(stride, v.index(i)))
                there = b.and_(
                    b.icmp_signed("<=", first, v.index(i)), b.icmp_signed("<", v.index(i), last)
                )
                parts = [
                    v.load_masked(v.at(row, place), b.select(there, mask, none))
                    for place, mask in zip(places, inside, strict=True)
                ]
                rows.append(v.shuffle(parts[0], parts[-1], every))
            for i, point in enumerate(of_pixels(Arithmetic(v), rows)):
                v.store(point, v.at(points, b.add(b.mul(plane, v.index(i)), done)))

    return emitted(2, emit)


def _read_cotangents(
    v: Vectors, dy: Any, points: Any, d0: Any, stride: Any, count: Any, written: Any, width: Any,
    p0: Any, plane: Any, pitch: Any,
) -> None:  # fmt: skip
    """Emit the transform of ``count`` rows of cotangents, of ``written`` in a tile."""
    b, dy, points, lanes = v.builder, v.at(dy, d0), v.at(points, p0), v.index(v.lanes)
    none, end = v.first(v.index(0)), b.sub(written, v.index(1))
    with cgutils.for_range(b, b.sdiv(b.add(pitch, v.index(v.lanes - 1)), lanes)) as loop:
        done = b.mul(loop.index, lanes)
        inside = v.first(b.sub(width, done))

        def row(i: Any) -> Any:
            mask = b.select(b.icmp_signed("<", i, count), inside, none)
            return v.load_masked(v.at(dy, b.add(b.mul(stride, i), done)), mask)

        found = of_cotangents(Arithmetic(v), [row(v.index(i)) for i in range(MOST)])
        for i, point in enumerate([*found, row(end)]):
            v.store(point, v.at(points, b.add(b.mul(plane, v.index(i)), done)))


def _write_rows(
    v: Vectors, points: Any, bias: Any, y: Any, p0: Any, plane: Any, b0: Any, y0: Any, stride: Any,
    count: Any, written: Any, width: Any, relu: Any,
) -> None:  # fmt: skip
    """Emit the first ``count`` rows of A^T m, plus bias, not below 0 if ``relu``."""
    b, start = v.builder, v.splat(v.builder.load(v.at(bias, b0)))
    points, y, lanes = v.at(points, p0), v.at(y, y0), v.index(v.lanes)
    lowest = b.select(b.icmp_signed("!=", relu, v.index(0)), v.zero, v.constant(float("-inf")))
    with cgutils.for_range(b, b.sdiv(b.add(width, v.index(v.lanes - 1)), lanes)) as loop:
        done = b.mul(loop.index, lanes)
        m = [v.load(v.at(points, b.add(b.mul(plane, v.index(i)), done))) for i in range(POINTS)]
        row = row_of(v, m, start, written)
        for i in range(MOST):
            with b.if_then(b.icmp_signed("<", v.index(i), count)):
                target = v.at(y, b.add(b.mul(stride, v.index(i)), done))
                outputs = v.at_least(row(i), lowest)
                v.store_masked(outputs, target, v.first(b.sub(width, done)))


read_rows, read_every_other = _read_rows(1), _read_rows(2)
read_cotangents, write_rows = emitted(2, _read_cotangents), emitted(3, _write_rows)

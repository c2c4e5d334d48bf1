"""Loops of the pools over the planes of images, and gradients put back on the pixels.

Most windows of 2x2 and 3x3 with step 2 go by rows of outputs (`pool_windows` says which); all
others go by groups of planes that are transposed first. Arrays are flat. What has ``parts``
is compiled on its own and does a part of the planes; nothing depends on how many parts there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..simd.elementary import STRICT, borrowed, njit, row_sum
from ..simd.rows import PIECE
from ..simd.transposes import transpose
from .lanes import maximum, maximum_gradient, mean, mean_gradient
from .rows import maxima_gradient_row, means_gradient_row, row_of_maxima, row_of_means

plain = njit(**STRICT)

SMALL = 16384  # pixels below which one thread is faster than waking the others


# --- by rows -------------------------------------------------------------------------------------


@plain
def clear(x: Any, first: Any, last: Any) -> None:
    """Set a stretch to zero."""
    x[first:last] = 0


@plain
def clear_edge(w: Any, dx: Any, plane: Any) -> None:
    """Set a plane to 0 if there are pixels that windows of 2x2 leave out."""
    pixels = w.height * w.width
    if pixels > 4 * w.rows * w.columns:
        clear(dx, plane * pixels, (plane + 1) * pixels)


@plain
def planes_in(w: Any, outputs: Any) -> Any:
    """Return how many planes there are; the last one may be short of outputs."""
    return -(-outputs // (w.rows * w.columns))


def maxima_by_rows(x: Any, w: Any, y: Any, numbers: Any, parts: Any, part: Any) -> None:
    """Write the maximum of each window, and the number of its tap in rows with room for vectors."""
    planes = planes_in(w, y.size)
    room = numbers.size // (planes * w.rows + 2)
    for p in range(planes * part // parts, planes * (part + 1) // parts):
        for i in range(w.rows):
            r = p * w.rows + i
            start = r * w.columns
            row_of_maxima(w, x, y, numbers, (p * w.height + 2 * i) * w.width, w.width,
                          min(w.columns, y.size - start), i, start, r * room)  # fmt: skip


def maxima_gradient_by_rows(
    dy: Any, w: Any, dx: Any, numbers: Any, parts: Any, part: Any
) -> None:  # fmt: skip
    """Write the gradient of these maxima."""
    planes = planes_in(w, dy.size)
    room = numbers.size // (planes * w.rows + 2)
    for p in range(planes * part // parts, planes * (part + 1) // parts):
        clear_edge(w, dx, p)
        for i in range(w.rows):
            r = p * w.rows + i
            start = r * w.columns
            maxima_gradient_row(w, dy, numbers, dx, start, r * room, room, w.rows - 1 - i,
                                (p * w.height + 2 * i) * w.width, w.width,
                                min(w.columns, dy.size - start))  # fmt: skip


def means_by_rows(x: Any, w: Any, y: Any, counts: Any, parts: Any, part: Any) -> None:
    """Write the sum of each window over its count; there is a count for each output of a plane."""
    planes = planes_in(w, y.size)
    for p in range(planes * part // parts, planes * (part + 1) // parts):
        for i in range(w.rows):
            start = (p * w.rows + i) * w.columns
            row_of_means(w, x, y, counts, (p * w.height + 2 * i) * w.width, w.width,
                         min(w.columns, y.size - start), i, start, i * w.columns)  # fmt: skip


def means_gradient_by_rows(
    dy: Any, w: Any, dx: Any, counts: Any, parts: Any, part: Any
) -> None:  # fmt: skip
    """Write the gradient of these means."""
    planes = planes_in(w, dy.size)
    for p in range(planes * part // parts, planes * (part + 1) // parts):
        clear_edge(w, dx, p)
        for i in range(w.rows):
            start = (p * w.rows + i) * w.columns
            means_gradient_row(w, dy, counts, dx, start, i * w.columns, w.columns,
                               w.rows - 1 - i, (p * w.height + 2 * i) * w.width, w.width,
                               min(w.columns, dy.size - start))  # fmt: skip


# --- by planes -----------------------------------------------------------------------------------


@plain
def planes_of(w: Any, y: Any, lanes: Any, parts: Any, part: Any) -> Any:
    """Return the planes from one to another, in groups of ``lanes``, that are this part's."""
    planes = y.size // (w.rows * w.columns)
    groups = -(-planes // lanes)
    return planes, groups * part // parts * lanes, min(planes, groups * (part + 1) // parts * lanes)


@plain
def gather(x: Any, plane: Any, planes: Any, size: Any, space: Any, s0: Any, lanes: Any) -> None:
    """Transpose a group of planes: the numbers of a pixel in all of them follow each other."""
    transpose(lanes, x, plane * size, size, min(lanes, planes - plane), size,
              space, s0, lanes, lanes)  # fmt: skip


@plain
def put_back(space: Any, s0: Any, plane: Any, planes: Any, size: Any, x: Any, lanes: Any) -> None:
    """Invert `gather`."""
    transpose(lanes, space, s0, lanes, size, min(lanes, planes - plane),
              x, plane * size, size, size)  # fmt: skip


def maxima_by_planes(
    x: Any, w: Any, met: Any, y: Any, numbers: Any, space: Any, lanes: Any, parts: Any, part: Any
) -> None:
    """Write the maximum of each window, and the number of its tap, of whole groups of planes.

    ``met`` is, for each output, the first pixel that its window meets, how many rows and columns of
    taps meet pixels, and the number of the first of these.
    """
    pixels, outputs = w.height * w.width, w.rows * w.columns
    s0 = part * (space.size // parts)
    o0 = s0 + pixels * lanes
    planes, first, last = planes_of(w, y, lanes, parts, part)
    for plane in range(first, last, lanes):
        gather(x, plane, planes, pixels, space, s0, lanes)
        for k in range(outputs):
            maximum(space, space, numbers, s0 + met[k, 0] * lanes, w.apart_down * w.width,
                    met[k, 1], w.apart_across, met[k, 2], met[k, 3], w.across,
                    o0 + k * lanes, plane * outputs + k * lanes)  # fmt: skip
        put_back(space, o0, plane, planes, outputs, y, lanes)


def maxima_gradient_by_planes(
    dy: Any, w: Any, met: Any, dx: Any, numbers: Any, space: Any, lanes: Any, parts: Any, part: Any
) -> None:
    """Write the gradient of these maxima."""
    pixels, outputs = w.height * w.width, w.rows * w.columns
    s0 = part * (space.size // parts)
    o0 = s0 + pixels * lanes
    planes, first, last = planes_of(w, dy, lanes, parts, part)
    for plane in range(first, last, lanes):
        gather(dy, plane, planes, outputs, space, o0, lanes)
        clear(space, s0, o0)
        for k in range(outputs):
            maximum_gradient(space, numbers, space, s0 + met[k, 0] * lanes,
                             w.apart_down * w.width, met[k, 1], w.apart_across, met[k, 2],
                             met[k, 3], w.across, o0 + k * lanes,
                             plane * outputs + k * lanes)  # fmt: skip
        put_back(space, s0, plane, planes, pixels, dx, lanes)


def means_by_planes(
    x: Any, w: Any, met: Any, y: Any, counts: Any, space: Any, lanes: Any, parts: Any, part: Any
) -> None:
    """Write the sum of each window over its count; there is a count for each output of a plane."""
    pixels, outputs = w.height * w.width, w.rows * w.columns
    s0 = part * (space.size // parts)
    o0 = s0 + pixels * lanes
    planes, first, last = planes_of(w, y, lanes, parts, part)
    for plane in range(first, last, lanes):
        gather(x, plane, planes, pixels, space, s0, lanes)
        for k in range(outputs):
            mean(space, space, counts, s0 + met[k, 0] * lanes, w.width, met[k, 1],
                 1, met[k, 2], o0 + k * lanes, k)  # fmt: skip
        put_back(space, o0, plane, planes, outputs, y, lanes)


def means_gradient_by_planes(
    dy: Any, w: Any, met: Any, dx: Any, counts: Any, space: Any, lanes: Any, parts: Any, part: Any
) -> None:
    """Write the gradient of these means."""
    pixels, outputs = w.height * w.width, w.rows * w.columns
    s0 = part * (space.size // parts)
    o0 = s0 + pixels * lanes
    planes, first, last = planes_of(w, dy, lanes, parts, part)
    for plane in range(first, last, lanes):
        gather(dy, plane, planes, outputs, space, o0, lanes)
        clear(space, s0, o0)
        for k in range(outputs):
            mean_gradient(space, counts, space, s0 + met[k, 0] * lanes, w.width, met[k, 1],
                          1, met[k, 2], o0 + k * lanes, k)  # fmt: skip
        put_back(space, s0, plane, planes, pixels, dx, lanes)


# --- whole planes --------------------------------------------------------------------------------


def plane_means(x: Any, y: Any, parts: Any, part: Any) -> None:
    """Write the mean of each plane."""
    x, pixels = borrowed(x), x.size // y.size
    for p in range(y.size * part // parts, y.size * (part + 1) // parts):
        total = 0.0
        for start in range(p * pixels, (p + 1) * pixels, PIECE):
            total += np.float64(row_sum(x[start : min(start + PIECE, (p + 1) * pixels)]))
        y[p] = total / pixels

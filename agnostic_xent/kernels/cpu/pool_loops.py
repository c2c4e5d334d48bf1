"""Loops of the pools over the planes of images, and gradients put back on the pixels.

Windows of 2x2 with step 2 go by rows of outputs, where a row has enough of them; all others, and
small images, go by groups of planes that are transposed first. Arrays are flat. What has ``parts``
is compiled on its own and does a part of the planes; nothing depends on how many parts there are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .conv.transposes import transpose
from .pool_lanes import maximum, maximum_gradient, mean, mean_gradient
from .pool_rows import maxima_gradient_row, means_gradient_row, row_of_maxima, row_of_means
from .softmax import PIECE
from .vector_math import STRICT, borrowed, njit, row_sum

plain = njit(**STRICT)

SMALL = 16384  # pixels below which one thread is faster than waking the others


class Windows(NamedTuple):
    """The geometry of a pool; all are integers."""

    height: int
    width: int
    rows: int
    """Of outputs."""
    columns: int
    down: int
    """Taps."""
    across: int
    step_down: int
    """Pixels from a window to the next."""
    step_across: int
    apart_down: int
    """Pixels from a tap to the next."""
    apart_across: int
    top: int
    """Where the first window starts: 0, or less by the padding."""
    left: int


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


def maxima_by_rows(x: Any, w: Any, y: Any, numbers: Any, parts: Any, part: Any) -> None:
    """Write the maximum of each window, and the number of its tap in rows with room for vectors."""
    planes = y.size // (w.rows * w.columns)
    room = numbers.size // (planes * w.rows)
    for p in range(planes * part // parts, planes * (part + 1) // parts):
        for i in range(w.rows):
            r = p * w.rows + i
            row_of_maxima(x, y, numbers, (p * w.height + 2 * i) * w.width, w.width, w.columns,
                          r * w.columns, r * room)  # fmt: skip


def maxima_gradient_by_rows(
    dy: Any, w: Any, dx: Any, numbers: Any, parts: Any, part: Any
) -> None:  # fmt: skip
    """Write the gradient of these maxima."""
    planes = dy.size // (w.rows * w.columns)
    room = numbers.size // (planes * w.rows)
    for p in range(planes * part // parts, planes * (part + 1) // parts):
        clear_edge(w, dx, p)
        for i in range(w.rows):
            r = p * w.rows + i
            maxima_gradient_row(dy, numbers, dx, r * w.columns, r * room,
                                (p * w.height + 2 * i) * w.width, w.width, w.columns)  # fmt: skip


def means_by_rows(x: Any, w: Any, y: Any, counts: Any, parts: Any, part: Any) -> None:
    """Write the sum of each window over its count; there is a count for each output of a plane."""
    planes = y.size // (w.rows * w.columns)
    for p in range(planes * part // parts, planes * (part + 1) // parts):
        for i in range(w.rows):
            row_of_means(x, y, counts, (p * w.height + 2 * i) * w.width, w.width, w.columns,
                         (p * w.rows + i) * w.columns, i * w.columns)  # fmt: skip


def means_gradient_by_rows(
    dy: Any, w: Any, dx: Any, counts: Any, parts: Any, part: Any
) -> None:  # fmt: skip
    """Write the gradient of these means."""
    planes = dy.size // (w.rows * w.columns)
    for p in range(planes * part // parts, planes * (part + 1) // parts):
        clear_edge(w, dx, p)
        for i in range(w.rows):
            means_gradient_row(dy, counts, dx, (p * w.rows + i) * w.columns, i * w.columns,
                               (p * w.height + 2 * i) * w.width, w.width, w.columns)  # fmt: skip


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

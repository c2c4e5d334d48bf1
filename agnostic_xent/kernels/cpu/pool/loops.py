"""Loops of the pools over the planes of images, and gradients put back on the pixels.

Most windows of 2x2 and 3x3 with step 2 go by rows of outputs (`windows` says which); all others go
by groups of planes that are transposed first. Arrays are flat. Nothing depends on how many parts
there are.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from ..simd.elementary import borrowed, plain, row_sum
from ..simd.rows import PIECE
from ..simd.transposes import transpose
from ..simd.vectors import lanes_of
from ..toolchain.compiling import compiled_in_parts
from ..toolchain.signatures import FLOATS, Array, Read1, Write1
from ..toolchain.threads import PIECES
from .lanes import maximum, maximum_gradient, mean, mean_gradient
from .rows import maxima_gradient_row, means_gradient_row, row_of_maxima, row_of_means
from .windows import BY_ROWS, MET, Windows, rows_of_numbers, space_of

BYTE = (np.dtype(np.uint8),)
BYTES = (*BYTE, np.dtype(np.uint16))
"""Dtypes of the numbers of taps; more than 65,534 of a window wait for their use."""

Taps = Annotated[Any, Array("taps", 1)]
WrittenTaps = Annotated[Any, Array("taps", 1, written=True)]
Met = Annotated[Any, Array(MET, 1)]


# --- by rows -------------------------------------------------------------------------------------


def are_met(*, kind: Any, w: type[Windows], **_: Any) -> bool:
    """Return whether there are such windows for vectors of a dtype."""
    return w.suits(lanes_of(kind))


@plain
def clear(x: Any, first: Any, last: Any) -> None:
    """Set x[first:last] to zero."""
    x[first:last] = 0


@plain
def clear_edge(w: Any, dx: Any, plane: Any) -> None:
    """Set a plane of dx to 0 if there are pixels that windows of 2x2 leave out."""
    pixels = w.height * w.width
    if pixels > 4 * w.rows * w.columns:
        clear(dx, plane * pixels, (plane + 1) * pixels)


@plain
def planes_in(w: Any, outputs: Any) -> Any:
    """Return how many planes so many outputs are; the last one may be short of some."""
    return -(-outputs // (w.rows * w.columns))


@compiled_in_parts(PIECES, only=are_met, kind=FLOATS, taps=BYTE, w=BY_ROWS)
def maxima_by_rows(
    x: Read1, w: Windows, y: Write1, numbers: WrittenTaps, lanes: int, parts: int, part: int
) -> None:
    """Write the maximum of each window to y, and the number of its tap to rows of numbers."""
    planes, pitch = planes_in(w, y.size), rows_of_numbers(w, y.size, lanes).pitch
    for p in range(planes * part // parts, planes * (part + 1) // parts):
        for i in range(w.rows):
            r = p * w.rows + i
            start = r * w.columns
            row_of_maxima(w, x, y, numbers, (p * w.height + 2 * i) * w.width, w.width,
                          min(w.columns, y.size - start), i, start, r * pitch)  # fmt: skip


@compiled_in_parts(PIECES, only=are_met, kind=FLOATS, taps=BYTE, w=BY_ROWS)
def maxima_gradient_by_rows(
    dy: Read1, w: Windows, dx: Write1, numbers: Taps, lanes: int, parts: int, part: int
) -> None:
    """Write the gradient of the maxima to dx, from the numbers of their taps."""
    planes, pitch = planes_in(w, dy.size), rows_of_numbers(w, dy.size, lanes).pitch
    for p in range(planes * part // parts, planes * (part + 1) // parts):
        clear_edge(w, dx, p)
        for i in range(w.rows):
            r = p * w.rows + i
            start = r * w.columns
            maxima_gradient_row(w, dy, numbers, dx, start, r * pitch, pitch, w.rows - 1 - i,
                                (p * w.height + 2 * i) * w.width, w.width,
                                min(w.columns, dy.size - start))  # fmt: skip


@compiled_in_parts(PIECES, only=are_met, kind=FLOATS, w=BY_ROWS)
def means_by_rows(
    x: Read1, w: Windows, y: Write1, counts: Read1, lanes: int, parts: int, part: int
) -> None:
    """Write the sum of each window over its count to y; counts has one for each of a plane."""
    planes = planes_in(w, y.size)
    for p in range(planes * part // parts, planes * (part + 1) // parts):
        for i in range(w.rows):
            start = (p * w.rows + i) * w.columns
            row_of_means(w, x, y, counts, (p * w.height + 2 * i) * w.width, w.width,
                         min(w.columns, y.size - start), i, start, i * w.columns)  # fmt: skip


@compiled_in_parts(PIECES, only=are_met, kind=FLOATS, w=BY_ROWS)
def means_gradient_by_rows(
    dy: Read1, w: Windows, dx: Write1, counts: Read1, lanes: int, parts: int, part: int
) -> None:
    """Write the gradient of the means to dx, from the counts of a plane's windows."""
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
    """Return how many planes there are, and from which to which, in groups of lanes, is a part."""
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
    """Transpose a group of planes in ``space`` back to those of x: undo `gather`."""
    transpose(lanes, space, s0, lanes, size, min(lanes, planes - plane),
              x, plane * size, size, size)  # fmt: skip


@compiled_in_parts(kind=FLOATS, taps=BYTES)
def maxima_by_planes(
    x: Read1, w: Windows, met: Met, y: Write1, numbers: WrittenTaps, space: Write1, lanes: int,
    parts: int, part: int,
) -> None:  # fmt: skip
    """Write the maximum of each window to y, and the number of its tap, for groups of planes."""
    pixels, outputs = w.height * w.width, w.rows * w.columns
    layout = space_of(w, lanes)
    s0 = part * layout.size
    o0 = s0 + layout.outputs
    planes, first, last = planes_of(w, y, lanes, parts, part)
    for plane in range(first, last, lanes):
        gather(x, plane, planes, pixels, space, s0, lanes)
        for k in range(outputs):
            maximum(space, space, numbers, s0 + met[k].pixel * lanes, w.apart_down * w.width,
                    met[k].down, w.apart_across, met[k].across, met[k].tap, w.across,
                    o0 + k * lanes, plane * outputs + k * lanes)  # fmt: skip
        put_back(space, o0, plane, planes, outputs, y, lanes)


@compiled_in_parts(kind=FLOATS, taps=BYTES)
def maxima_gradient_by_planes(
    dy: Read1, w: Windows, met: Met, dx: Write1, numbers: Taps, space: Write1, lanes: int,
    parts: int, part: int,
) -> None:  # fmt: skip
    """Write the gradient of the maxima to dx, from the numbers of their taps."""
    pixels, outputs = w.height * w.width, w.rows * w.columns
    layout = space_of(w, lanes)
    s0 = part * layout.size
    o0 = s0 + layout.outputs
    planes, first, last = planes_of(w, dy, lanes, parts, part)
    for plane in range(first, last, lanes):
        gather(dy, plane, planes, outputs, space, o0, lanes)
        clear(space, s0, o0)
        for k in range(outputs):
            maximum_gradient(space, numbers, space, s0 + met[k].pixel * lanes,
                             w.apart_down * w.width, met[k].down, w.apart_across, met[k].across,
                             met[k].tap, w.across, o0 + k * lanes,
                             plane * outputs + k * lanes)  # fmt: skip
        put_back(space, s0, plane, planes, pixels, dx, lanes)


@compiled_in_parts(kind=FLOATS)
def means_by_planes(
    x: Read1, w: Windows, met: Met, y: Write1, counts: Read1, space: Write1, lanes: int,
    parts: int, part: int,
) -> None:  # fmt: skip
    """Write the sum of each window over its count to y; counts has one for each of a plane."""
    pixels, outputs = w.height * w.width, w.rows * w.columns
    layout = space_of(w, lanes)
    s0 = part * layout.size
    o0 = s0 + layout.outputs
    planes, first, last = planes_of(w, y, lanes, parts, part)
    for plane in range(first, last, lanes):
        gather(x, plane, planes, pixels, space, s0, lanes)
        for k in range(outputs):
            mean(space, space, counts, s0 + met[k].pixel * lanes, w.width, met[k].down,
                 1, met[k].across, o0 + k * lanes, k)  # fmt: skip
        put_back(space, o0, plane, planes, outputs, y, lanes)


@compiled_in_parts(kind=FLOATS)
def means_gradient_by_planes(
    dy: Read1, w: Windows, met: Met, dx: Write1, counts: Read1, space: Write1, lanes: int,
    parts: int, part: int,
) -> None:  # fmt: skip
    """Write the gradient of the means to dx, from the counts of a plane's windows."""
    pixels, outputs = w.height * w.width, w.rows * w.columns
    layout = space_of(w, lanes)
    s0 = part * layout.size
    o0 = s0 + layout.outputs
    planes, first, last = planes_of(w, dy, lanes, parts, part)
    for plane in range(first, last, lanes):
        gather(dy, plane, planes, outputs, space, o0, lanes)
        clear(space, s0, o0)
        for k in range(outputs):
            mean_gradient(space, counts, space, s0 + met[k].pixel * lanes, w.width, met[k].down,
                          1, met[k].across, o0 + k * lanes, k)  # fmt: skip
        put_back(space, s0, plane, planes, pixels, dx, lanes)


# --- whole planes --------------------------------------------------------------------------------


@compiled_in_parts(PIECES, kind=FLOATS)
def plane_means(x: Read1, y: Write1, parts: int, part: int) -> None:
    """Write the mean of each plane of x to y."""
    x, pixels = borrowed(x), x.size // y.size
    for p in range(y.size * part // parts, y.size * (part + 1) // parts):
        total = 0.0
        for start in range(p * pixels, (p + 1) * pixels, PIECE):
            total += np.float64(row_sum(x[start : min(start + PIECE, (p + 1) * pixels)]))
        y[p] = total / pixels

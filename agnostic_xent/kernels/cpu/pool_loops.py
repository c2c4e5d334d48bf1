"""Loops of the pools over the planes of images, and gradients put back on the pixels.

Arrays are flat. ``maxima``, ``means`` and their gradients are compiled on their own; they cut the
work by rows of outputs or planes, never by the number of threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange

from .pool_rows import MAXIMA, MEANS, maxima_gradient_2x2, means_gradient_2x2
from .softmax import PIECE
from .vector_math import STRICT, borrowed, njit, row_sum

plain = njit(**STRICT)

BLOCK = 16384  # pixels of a unit of work; for fewer in all one thread is faster than waking others


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


# --- values --------------------------------------------------------------------------------------


@plain
def taps_inside(start: Any, apart: Any, taps: Any, size: Any) -> Any:
    """Return the first tap of a window that is inside the image, and the last, exclusive."""
    if start >= 0 and start + (taps - 1) * apart < size:
        return 0, taps
    first = max(0, (apart - 1 - start) // apart)
    return first, max(first, min(taps, (size - start + apart - 1) // apart))


@plain
def are_2x2(w: Any) -> Any:
    """Return whether windows are 2x2 with step 2, and inside the image from top to bottom."""
    pairs = w.down == w.across == w.step_down == w.step_across == 2
    return pairs and w.apart_down == w.apart_across == 1 and 0 == w.top <= w.height - 2 * w.rows


@plain
def first_taps(w: Any, room: Any) -> Any:
    """Return the first tap inside the image of each column's windows; their number without one."""
    firsts = np.full(room, w.down * w.across, np.int32)
    for j in range(w.columns):
        tap, end = taps_inside(j * w.step_across + w.left, w.apart_across, w.across, w.width)
        if tap < end:
            firsts[j] = tap
    return firsts


def _rows_of_maxima(kernel: Any) -> Any:
    """Return what does rows of maxima, counted through all planes, with one of the kernels."""

    @plain
    def rows(x: Any, w: Any, y: Any, numbers: Any, firsts: Any, first: Any, last: Any) -> None:
        room, nothing = firsts.size, w.down * w.across
        plane, i = first // w.rows, first % w.rows
        for r in range(first, last):
            h = i * w.step_down + w.top
            tap, end = taps_inside(h, w.apart_down, w.down, w.height)
            corner = (plane * w.height + h + tap * w.apart_down) * w.width
            kernel(x, y, numbers, firsts, corner, w.apart_down * w.width, end - tap, w.across,
                   w.apart_across, w.left, w.width, w.step_across, w.columns, r * w.columns,
                   r * room, tap * w.across if tap < end else nothing, nothing)  # fmt: skip
            i += 1
            if i == w.rows:
                plane, i = plane + 1, 0

    return rows


def _rows_of_means(kernel: Any) -> Any:
    """Return what does rows of means, counted through all planes, with one of the kernels."""

    @plain
    def rows(x: Any, w: Any, counts: Any, y: Any, first: Any, last: Any) -> None:
        plane, i = first // w.rows, first % w.rows
        for r in range(first, last):
            h = i * w.step_down + w.top
            tap, end = taps_inside(h, 1, w.down, w.height)
            kernel(x, y, counts, (plane * w.height + h + tap) * w.width, w.width, end - tap,
                   w.across, 1, w.left, w.width, w.step_across, w.columns, r * w.columns,
                   i * w.columns)  # fmt: skip
            i += 1
            if i == w.rows:
                plane, i = plane + 1, 0

    return rows


_maxima_2x2, _maxima_1, _maxima_2, _maxima_n = map(_rows_of_maxima, MAXIMA)
_means_2x2, _means_1, _means_2, _means_n = map(_rows_of_means, MEANS)


@plain
def some_maxima(
    x: Any, w: Any, y: Any, numbers: Any, firsts: Any, first: Any, last: Any
) -> None:  # fmt: skip
    """Do rows of maxima with the kernel for these windows."""
    if are_2x2(w):
        _maxima_2x2(x, w, y, numbers, firsts, first, last)
    elif w.step_across == 1:
        _maxima_1(x, w, y, numbers, firsts, first, last)
    elif w.step_across == 2:
        _maxima_2(x, w, y, numbers, firsts, first, last)
    else:
        _maxima_n(x, w, y, numbers, firsts, first, last)


@plain
def some_means(x: Any, w: Any, counts: Any, y: Any, first: Any, last: Any) -> None:
    """Do rows of means with the kernel for these windows."""
    if are_2x2(w):
        _means_2x2(x, w, counts, y, first, last)
    elif w.step_across == 1:
        _means_1(x, w, counts, y, first, last)
    elif w.step_across == 2:
        _means_2(x, w, counts, y, first, last)
    else:
        _means_n(x, w, counts, y, first, last)


def maxima(x: Any, w: Any, y: Any, numbers: Any) -> None:
    """Write the maximum of each window, and the number of its tap, in rows with room for vectors.

    The first maximum wins, and the first NaN before all.
    """
    rows = y.size // w.columns
    firsts = first_taps(w, numbers.size // rows)
    if x.size < BLOCK:
        some_maxima(x, w, y, numbers, firsts, 0, rows)
    else:
        step = max(1, BLOCK // (w.step_down * w.width))
        for k in prange((rows + step - 1) // step):
            some_maxima(x, w, y, numbers, firsts, k * step, min(k * step + step, rows))


def means(x: Any, counts: Any, w: Any, y: Any) -> None:
    """Write the sum of each window over its count; there is a count for each output of a plane."""
    rows = y.size // w.columns
    if x.size < BLOCK:
        some_means(x, w, counts, y, 0, rows)
    else:
        step = max(1, BLOCK // (w.step_down * w.width))
        for k in prange((rows + step - 1) // step):
            some_means(x, w, counts, y, k * step, min(k * step + step, rows))


# --- gradients -----------------------------------------------------------------------------------


@plain
def are_whole_2x2(w: Any) -> Any:
    """Return whether windows are 2x2 with step 2, and all of them inside the image."""
    return are_2x2(w) and w.left == 0 and 2 * w.columns <= w.width


@plain
def clear_edge(w: Any, dx: Any, plane: Any) -> None:
    """Set a plane to 0 if there are pixels that windows of 2x2 leave out."""
    pixels = w.height * w.width
    if pixels > 4 * w.rows * w.columns:
        for p in range(plane * pixels, (plane + 1) * pixels):
            dx[p] = 0


@plain
def scatter(dy: Any, numbers: Any, offsets: Any, w: Any, dx: Any) -> None:
    """Add each output's gradient to the pixel that its tap names, in a plane."""
    dx[:] = 0
    room = numbers.size // w.rows
    for i in range(w.rows):
        corner = (i * w.step_down + w.top) * w.width + w.left
        for j in range(w.columns):
            tap = numbers[i * room + j]
            if tap < offsets.size:
                dx[corner + j * w.step_across + offsets[tap]] += dy[i * w.columns + j]


@plain
def some_scatter(
    dy: Any, numbers: Any, offsets: Any, w: Any, dx: Any, first: Any, last: Any
) -> None:
    """Do planes first to last."""
    dy, numbers, dx = borrowed(dy), borrowed(numbers), borrowed(dx)
    outputs, pixels = w.rows * w.columns, w.height * w.width
    room = numbers.size // (dy.size // outputs)
    if are_whole_2x2(w):
        for p in range(first, last):
            clear_edge(w, dx, p)
            for i in range(w.rows):
                maxima_gradient_2x2(dy, numbers, dx, (p * w.rows + i) * w.columns,
                                    p * room + i * (room // w.rows),
                                    p * pixels + 2 * i * w.width, w.width, w.columns)  # fmt: skip
        return
    for p in range(first, last):
        a, b, c = dy[p * outputs :], numbers[p * room :], dx[p * pixels :]
        scatter(a[:outputs], b[:room], offsets, w, c[:pixels])


def maxima_gradient(dy: Any, numbers: Any, offsets: Any, w: Any, dx: Any) -> None:
    """Write the gradient of the maxima; ``offsets`` lead from a window's corner to its taps."""
    planes, step = dy.size // (w.rows * w.columns), max(1, BLOCK // (w.height * w.width))
    if dx.size < BLOCK:
        some_scatter(dy, numbers, offsets, w, dx, 0, planes)
    else:
        for k in prange((planes + step - 1) // step):
            some_scatter(dy, numbers, offsets, w, dx, k * step, min(k * step + step, planes))


@plain
def spread(share: Any, first_share: Any, w: Any, line: Any) -> None:
    """Write what each pixel of a line gets from a row of outputs."""
    line[:] = 0
    for v in range(w.across):
        start, step = w.left + v, w.step_across
        last = min(w.columns, (w.width - start + step - 1) // step)
        for j in range(max(0, (step - 1 - start) // step), last):
            line[start + j * step] += share[first_share + j]


@plain
def add(line: Any, dx: Any) -> None:
    """Add a line of pixels."""
    for j in range(line.size):
        dx[j] += line[j]


@plain
def share_out(dy: Any, counts: Any, w: Any, share: Any, line: Any, dx: Any) -> None:
    """Add each output's gradient, divided by its count, to the pixels of its window, in a plane."""
    dx[:] = 0
    for k in range(dy.size):
        share[k] = dy[k] / counts[k]
    for i in range(w.rows):
        spread(share, i * w.columns, w, line)
        h = i * w.step_down + w.top
        for row in range(max(0, h), min(w.height, h + w.down)):
            add(line, dx[row * w.width : (row + 1) * w.width])


@plain
def some_share_out(dy: Any, counts: Any, w: Any, dx: Any, first: Any, last: Any) -> None:
    """Do planes first to last."""
    dy, dx = borrowed(dy), borrowed(dx)
    outputs, pixels = w.rows * w.columns, w.height * w.width
    if are_whole_2x2(w):
        for p in range(first, last):
            clear_edge(w, dx, p)
            for i in range(w.rows):
                means_gradient_2x2(dy, counts, dx, (p * w.rows + i) * w.columns, i * w.columns,
                                   p * pixels + 2 * i * w.width, w.width, w.columns)  # fmt: skip
        return
    share, line = np.empty(outputs, dx.dtype), np.empty(w.width, dx.dtype)
    for p in range(first, last):
        a, b = dy[p * outputs :], dx[p * pixels :]
        share_out(a[:outputs], counts, w, share, line, b[:pixels])


def means_gradient(dy: Any, counts: Any, w: Any, dx: Any) -> None:
    """Write the gradient of the means."""
    planes, step = dy.size // (w.rows * w.columns), max(1, BLOCK // (w.height * w.width))
    if dx.size < BLOCK:
        some_share_out(dy, counts, w, dx, 0, planes)
    else:
        for k in prange((planes + step - 1) // step):
            some_share_out(dy, counts, w, dx, k * step, min(k * step + step, planes))


# --- whole planes --------------------------------------------------------------------------------


@plain
def some_plane_means(x: Any, y: Any, first: Any, last: Any) -> None:
    """Do planes first to last."""
    x, pixels = borrowed(x), x.size // y.size
    for p in range(first, last):
        total = 0.0
        for start in range(p * pixels, (p + 1) * pixels, PIECE):
            total += np.float64(row_sum(x[start : min(start + PIECE, (p + 1) * pixels)]))
        y[p] = total / pixels


def plane_means(x: Any, y: Any) -> None:
    """Write the mean of each plane."""
    step = max(1, BLOCK * y.size // x.size)
    if x.size < BLOCK:
        some_plane_means(x, y, 0, y.size)
    else:
        for k in prange((y.size + step - 1) // step):
            some_plane_means(x, y, k * step, min(k * step + step, y.size))

"""The kernels of pools over any windows: a thread a pixel.

It gathers, forward from taps, back from windows. What the kernels take besides arrays: ``n``, the
pixels that they write in all planes; `Windows`; those of the mean also `Counted`.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from ..toolchain.dtypes import WIDE
from ..toolchain.launching import I4, Kernel, codes_of
from ..toolchain.ptx import get, narrow, put, widen
from ..toolchain.teams import cuda, device

THREADS = 256
NOBODY = 255
"""In place of a tap's number: a window of no pixel."""


class Windows(NamedTuple):
    """Where the windows of a pool lie in an image."""

    height: I4
    width: I4
    rows: I4
    """Of the output, as are columns."""
    columns: I4
    down: I4
    """The taps of a window, as are those across."""
    across: I4
    stride_h: I4
    stride_w: I4
    apart_h: I4
    """Pixels from a tap to the next one."""
    apart_w: I4
    top: I4
    """Pixels of padding, as are those to the left."""
    left: I4


class Counted(NamedTuple):
    """The pixels that a mean counts: from the first one to the end, which is not among them."""

    first_h: I4
    end_h: I4
    first_w: I4
    end_w: I4


@device
def place_of(i: Any, down: Any, across: Any) -> Any:
    """Return the plane, row and column of place i, of 32 bits, in planes of down x across."""
    line = np.uint32(i // np.uint32(across))
    plane = np.uint32(line // np.uint32(down))
    return plane, np.int32(line - plane * np.uint32(down)), np.int32(i - line * np.uint32(across))


@device
def window_at(p: Any, stride: Any, windows: Any) -> Any:
    """Return the number of the window that begins p pixels after the first; -1 if none does."""
    k = np.int32(np.uint32(max(p, 0)) // np.uint32(stride))
    return k if k * stride == p and k < windows else np.int32(-1)


# --- max -----------------------------------------------------------------------------------------


def maxima(
    x: Any, y: Any, numbers: Any, n: int, height: int, width: int, rows: int, columns: int,
    down: int, across: int, stride_h: int, stride_w: int, apart_h: int, apart_w: int, top: int,
    left: int,
) -> None:  # fmt: skip
    """Write each window's maximum to y and its tap to numbers; NaN wins, else the first one."""
    i = np.uint32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
    if i >= n:
        return
    plane, row, column = place_of(i, rows, columns)
    start = np.int64(plane) * (height * width)
    best, number = type(widen(get(x, start)))(-math.inf), NOBODY
    for u in range(down):
        h = row * stride_h + u * apart_h - top
        if h >= 0 and h < height:
            for v in range(across):
                w = column * stride_w + v * apart_w - left
                if w >= 0 and w < width:
                    pixel = widen(get(x, start + np.int32(h * width + w)))
                    wins = pixel > best or (pixel != pixel and best == best)
                    if wins or number == NOBODY:
                        best, number = pixel, u * across + v
    put(y, i, narrow(y, best))
    put(numbers, i, np.uint8(number))


def maxima_gradient(
    dy: Any, numbers: Any, dx: Any, n: int, height: int, width: int, rows: int, columns: int,
    down: int, across: int, stride_h: int, stride_w: int, apart_h: int, apart_w: int, top: int,
    left: int,
) -> None:  # fmt: skip
    """Write to dx each pixel's sum of the cotangents of windows whose maximum it is."""
    i = np.uint32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
    if i >= n:
        return
    plane, h, w = place_of(i, height, width)
    start = np.int64(plane) * (rows * columns)
    total = type(widen(get(dy, start)))(0)
    for u in range(down):
        row = window_at(h + top - u * apart_h, stride_h, rows)
        if row >= 0:
            for v in range(across):
                column = window_at(w + left - v * apart_w, stride_w, columns)
                if column >= 0:
                    k = start + np.int32(row * columns + column)
                    if get(numbers, k) == u * across + v:
                        total += widen(get(dy, k))
    put(dx, i, narrow(dx, total))


# --- mean ----------------------------------------------------------------------------------------


@device
def pixels_of(window: Any, stride: Any, taps: Any, before: Any, first: Any, end: Any) -> Any:
    """Return how many of a window's pixels count along an axis: those from first to end."""
    start = window * stride - before
    return min(start + taps, end) - max(start, first)


def means(
    x: Any, y: Any, n: int, height: int, width: int, rows: int, columns: int,
    down: int, across: int, stride_h: int, stride_w: int, apart_h: int, apart_w: int, top: int,
    left: int, first_h: int, end_h: int, first_w: int, end_w: int,
) -> None:  # fmt: skip
    """Write to y each window's mean over the pixels that are counted."""
    i = np.uint32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
    if i >= n:
        return
    plane, row, column = place_of(i, rows, columns)
    start = np.int64(plane) * (height * width)
    total = type(widen(get(x, start)))(0)
    for u in range(down):
        h = row * stride_h + u - top
        if h >= 0 and h < height:
            for v in range(across):
                w = column * stride_w + v - left
                if w >= 0 and w < width:
                    total += widen(get(x, start + np.int32(h * width + w)))
    count = pixels_of(row, stride_h, down, top, first_h, end_h)
    count *= pixels_of(column, stride_w, across, left, first_w, end_w)
    put(y, i, narrow(y, total / type(total)(count)))


def means_gradient(
    dy: Any, dx: Any, n: int, height: int, width: int, rows: int, columns: int,
    down: int, across: int, stride_h: int, stride_w: int, apart_h: int, apart_w: int, top: int,
    left: int, first_h: int, end_h: int, first_w: int, end_w: int,
) -> None:  # fmt: skip
    """Write to dx each pixel's sum of the cotangents of its windows, over what these count."""
    i = np.uint32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
    if i >= n:
        return
    plane, h, w = place_of(i, height, width)
    start = np.int64(plane) * (rows * columns)
    total = type(widen(get(dy, start)))(0)
    for u in range(down):
        row = window_at(h + top - u, stride_h, rows)
        if row >= 0:
            high = pixels_of(row, stride_h, down, top, first_h, end_h)
            for v in range(across):
                column = window_at(w + left - v, stride_w, columns)
                if column >= 0:
                    count = high * pixels_of(column, stride_w, across, left, first_w, end_w)
                    share = widen(get(dy, start + np.int32(row * columns + column)))
                    total += share / type(total)(count)
    put(dx, i, narrow(dx, total))


# --- launches ------------------------------------------------------------------------------------

FUNCTIONS = {f.__name__: f for f in (maxima, maxima_gradient, means, means_gradient)}
PARAMETERS = {
    "maxima": f"{{x}}* {{x}}* u1* u4 {codes_of(Windows)}",
    "maxima_gradient": f"{{x}}* u1* {{x}}* u4 {codes_of(Windows)}",
    "means": f"{{x}}* {{x}}* u4 {codes_of(Windows)} {codes_of(Counted)}",
    "means_gradient": f"{{x}}* {{x}}* u4 {codes_of(Windows)} {codes_of(Counted)}",
}
"""The types of the parameters of the kernels, by their names; x is the code of a dtype."""


@functools.cache
def kernel(name: str, code: str) -> Kernel:
    """Return the kernel of this name for the dtype ``code``, made once."""
    return Kernel(FUNCTIONS[name], PARAMETERS[name].format(x=code), THREADS, 3)


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return [kernel(name, code) for name in FUNCTIONS for code in WIDE]

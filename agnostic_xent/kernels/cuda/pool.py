"""The kernels of the pools: a thread a pixel, which gathers, forward from taps, back from windows.

What the kernels take besides arrays: ``n``, the pixels that they write in all planes; `Windows`;
those of the mean also `Counted`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...core import arrays
from ...core.geometry import Margins, Pair, output_size
from ...core.operation import Pullback
from .toolchain.device import GRID, register, xp
from .toolchain.dtypes import WIDE, code_of, given, stored, takes
from .toolchain.launching import I4, Kernel, codes_of
from .toolchain.ptx import get, narrow, put, widen
from .toolchain.teams import LANES, cuda, device, team_sum

THREADS = 256
LARGE = 1024  # pixels of a plane
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
def place_of(i: Any, height: Any, width: Any) -> Any:
    """Return the plane, row and column of pixel i of planes of height x width."""
    plane = i // (np.int64(height) * width)
    rest = np.int32(i - plane * (np.int64(height) * width))
    return plane, rest // width, rest % width


@device
def window_at(p: Any, stride: Any, windows: Any) -> Any:
    """Return the number of the window that begins p pixels after the first; -1 if none does."""
    return p // stride if p >= 0 and p % stride == 0 and p // stride < windows else -1


# --- max -----------------------------------------------------------------------------------------


def maxima(
    x: Any, y: Any, numbers: Any, n: int, height: int, width: int, rows: int, columns: int,
    down: int, across: int, stride_h: int, stride_w: int, apart_h: int, apart_w: int, top: int,
    left: int,
) -> None:  # fmt: skip
    """Write each window's maximum to y and its tap to numbers; NaN wins, else the first one."""
    i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
    if i >= n:
        return
    plane, row, column = place_of(i, rows, columns)
    start = plane * height * width
    best, number = type(widen(get(x, start)))(-math.inf), NOBODY
    for u in range(down):
        h = row * stride_h + u * apart_h - top
        if h >= 0 and h < height:
            for v in range(across):
                w = column * stride_w + v * apart_w - left
                if w >= 0 and w < width:
                    pixel = widen(get(x, start + h * width + w))
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
    i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
    if i >= n:
        return
    plane, h, w = place_of(i, height, width)
    start = plane * rows * columns
    total = type(widen(get(dy, start)))(0)
    for u in range(down):
        row = window_at(h + top - u * apart_h, stride_h, rows)
        if row >= 0:
            for v in range(across):
                column = window_at(w + left - v * apart_w, stride_w, columns)
                if column >= 0:
                    k = start + row * columns + column
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
    i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
    if i >= n:
        return
    plane, row, column = place_of(i, rows, columns)
    start = plane * height * width
    total = type(widen(get(x, start)))(0)
    for u in range(down):
        h = row * stride_h + u - top
        if h >= 0 and h < height:
            for v in range(across):
                w = column * stride_w + v - left
                if w >= 0 and w < width:
                    total += widen(get(x, start + h * width + w))
    count = pixels_of(row, stride_h, down, top, first_h, end_h)
    count *= pixels_of(column, stride_w, across, left, first_w, end_w)
    put(y, i, narrow(y, total / type(total)(count)))


def means_gradient(
    dy: Any, dx: Any, n: int, height: int, width: int, rows: int, columns: int,
    down: int, across: int, stride_h: int, stride_w: int, apart_h: int, apart_w: int, top: int,
    left: int, first_h: int, end_h: int, first_w: int, end_w: int,
) -> None:  # fmt: skip
    """Write to dx each pixel's sum of the cotangents of its windows, over what these count."""
    i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
    if i >= n:
        return
    plane, h, w = place_of(i, height, width)
    start = plane * rows * columns
    total = type(widen(get(dy, start)))(0)
    for u in range(down):
        row = window_at(h + top - u, stride_h, rows)
        if row >= 0:
            high = pixels_of(row, stride_h, down, top, first_h, end_h)
            for v in range(across):
                column = window_at(w + left - v, stride_w, columns)
                if column >= 0:
                    count = high * pixels_of(column, stride_w, across, left, first_w, end_w)
                    total += widen(get(dy, start + row * columns + column)) / type(total)(count)
    put(dx, i, narrow(dx, total))


def make_plane_means(code: str, team: int) -> Callable[..., None]:
    """Return the kernel of the means of whole planes, by a warp or a block."""
    kind: Any = WIDE[code]

    def plane_means(x: Any, y: Any, planes: int, pixels: int) -> None:
        room = cuda.shared.array(32, kind)
        t = cuda.threadIdx.x
        plane = np.int64(cuda.blockIdx.x) * (THREADS // team) + t // team
        start = min(plane, planes - 1) * pixels
        total = kind(0)
        for i in range(t % team, pixels, team):
            total += widen(get(x, start + i))
        total = team_sum(total, room, t, team)
        if t % team == 0 and plane < planes:
            put(y, plane, narrow(y, total / kind(pixels)))

    plane_means.__qualname__ = f"plane_means_{team}"
    return plane_means


# --- launches ------------------------------------------------------------------------------------

PARAMETERS = {
    maxima: f"{{x}}* {{x}}* u1* i8 {codes_of(Windows)}",
    maxima_gradient: f"{{x}}* u1* {{x}}* i8 {codes_of(Windows)}",
    means: f"{{x}}* {{x}}* i8 {codes_of(Windows)} {codes_of(Counted)}",
    means_gradient: f"{{x}}* {{x}}* i8 {codes_of(Windows)} {codes_of(Counted)}",
}
"""The types of the parameters of the kernels of windows; x is the code of a dtype."""


@functools.cache
def kernel(function: Callable[..., None], code: str) -> Kernel:
    """Return the kernel of windows that is this function, for the dtype ``code``, made once."""
    return Kernel(function, PARAMETERS[function].format(x=code), THREADS, 3)


@functools.cache
def plane_means_kernel(code: str, team: int) -> Kernel:
    """Return the kernel of the means of planes for a dtype and a team, made once."""
    return Kernel(make_plane_means(code, team), f"{code}* {code}* i8 i8", THREADS, 6)


def run(function: Callable[..., None], arrays: tuple[Any, ...], made: Any, *numbers: int) -> None:
    """Start a kernel of windows, a thread for each pixel of the array that is made."""
    blocks = -(-made.size // THREADS)
    kernel(function, code_of(made))(blocks, *map(given, arrays), made.size, *numbers)


@functools.lru_cache(maxsize=256)
def windows_of(
    image: Pair, window: Pair, stride: Pair, padding: Margins, dilation: Pair = (1, 1)
) -> Windows:
    """Return where the windows of normalised options lie in an image."""
    outputs = output_size(image, window, stride=stride, padding=padding, dilation=dilation)
    (top, _), (left, _) = padding
    return Windows(*image, *outputs, *window, *stride, *dilation, top, left)


def fits(x: Any, *, counted: Any = None, **geometry: Any) -> bool:
    """Return whether the pixels of a plane, and of all planes, are few enough to be numbered."""
    windows = windows_of(x.shape[2:], **geometry)
    largest = max(windows.height * windows.width, windows.rows * windows.columns)
    return largest < 1 << 30 and math.prod(x.shape[:2]) * largest < THREADS * GRID


def max_fits(x: Any, *, window: Pair, **geometry: Any) -> bool:
    """Return whether the number of a tap is a byte, and the pixels are few enough."""
    return math.prod(window) <= NOBODY and fits(x, window=window, **geometry)


def max_value(x: Any, **geometry: Any) -> Any:
    """Return the maxima of the windows."""
    return max_vjp(x, **geometry)[0]


def max_vjp(x: Any, **geometry: Any) -> tuple[Any, Pullback]:
    """Return the maxima and the pullback, which keeps the numbers of their taps, in bytes."""
    windows = windows_of(x.shape[2:], **geometry)
    y = xp.empty((*x.shape[:2], windows.rows, windows.columns), x.dtype)
    winners = xp.empty(y.shape, np.uint8)
    run(maxima, (x, y, winners), y, *windows)

    def pullback(dy: Any) -> tuple[Any]:
        dx = xp.empty(x.shape, x.dtype)
        run(maxima_gradient, (dy, winners, dx), dx, *windows)
        return (dx,)

    return y, pullback


def avg_value(x: Any, **geometry: Any) -> Any:
    """Return the means of the windows."""
    return avg_vjp(x, **geometry)[0]


def avg_vjp(x: Any, *, counted: Margins, **geometry: Any) -> tuple[Any, Pullback]:
    """Return the means and the pullback; ``counted`` are the margins whose pixels are counted."""
    windows = windows_of(x.shape[2:], **geometry)
    (top, bottom), (left, right) = counted
    pixels = Counted(-top, windows.height + bottom, -left, windows.width + right)
    y = xp.empty((*x.shape[:2], windows.rows, windows.columns), x.dtype)
    run(means, (x, y), y, *windows, *pixels)

    def pullback(dy: Any) -> tuple[Any]:
        dx = xp.empty(x.shape, x.dtype)
        run(means_gradient, (dy, dx), dx, *windows, *pixels)
        return (dx,)

    return y, pullback


def global_fits(x: Any) -> bool:
    """Return whether a grid has a block for each plane."""
    return bool(math.prod(x.shape[:2]) < GRID)


def global_value(x: Any) -> Any:
    """Return the mean of each plane: by a warp, or by a block where planes are large."""
    pixels = math.prod(x.shape[2:])
    y, team = xp.empty(x.shape[:2], x.dtype), LANES if pixels <= LARGE else THREADS
    blocks = -(-y.size // (THREADS // team))
    plane_means_kernel(code_of(x), team)(blocks, given(x), stored(y), y.size, pixels)
    return y


def global_vjp(x: Any) -> tuple[Any, Pullback]:
    """Return the mean of each plane and the pullback, whose result is a broadcast array."""
    shape = x.shape

    def pullback(dy: Any) -> tuple[Any]:
        share = arrays.narrow(arrays.widen(dy) / (shape[2] * shape[3]), dy)
        return (xp.broadcast_to(share[:, :, None, None], shape),)

    return global_value(x), pullback


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    made = [kernel(function, code) for function in PARAMETERS for code in WIDE]
    return made + [plane_means_kernel(code, team) for code in WIDE for team in (LANES, THREADS)]


GEOMETRY = "window", "stride", "padding"
register("max_pool2d", max_value, max_vjp, takes, *GEOMETRY, "dilation", fits=max_fits)
register("avg_pool2d", avg_value, avg_vjp, takes, *GEOMETRY, "counted", fits=fits)
register("global_avg_pool2d", global_value, global_vjp, takes, fits=global_fits)

"""The kernels of the pools: a thread a pixel, which gathers, forward from taps, back from windows.

What the kernels take besides arrays: ``n``, the pixels that they write in all planes; the sizes of
an image (height, width) and of its outputs (rows, columns); of the window (down, across); its
``stride`` and ``apart``, pixels from tap to tap; ``top`` and ``left``, pixels of padding.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...core.geometry import Margins, Pair, output_size
from ...core.operation import OPERATIONS, Pullback
from .toolchain.device import contiguous, register, xp
from .toolchain.dtypes import WIDE, code_of, stored, takes
from .toolchain.launching import Kernel
from .toolchain.ptx import get, narrow, put, widen
from .toolchain.teams import LANES, cuda, device, team_sum

THREADS = 256
LARGE = 1024  # pixels of a plane
NOBODY = 255
"""In place of a tap's number: a window of no pixel."""

SIZES = " i8" + 12 * " i4"
"""The types of all numbers above."""

max_pool2d, avg_pool2d = OPERATIONS["max_pool2d"], OPERATIONS["avg_pool2d"]
global_avg_pool2d = OPERATIONS["global_avg_pool2d"]


@device
def place_of(i: Any, height: Any, width: Any) -> Any:
    """Return the plane, row and column of a pixel."""
    plane = i // (np.int64(height) * width)
    rest = np.int32(i - plane * (np.int64(height) * width))
    return plane, rest // width, rest % width


@device
def window_at(p: Any, stride: Any, windows: Any) -> Any:
    """Return which window begins p pixels after the first one; -1 if none does."""
    return p // stride if p >= 0 and p % stride == 0 and p // stride < windows else -1


# --- max -----------------------------------------------------------------------------------------


def maxima(
    x: Any, y: Any, numbers: Any, n: int, height: int, width: int, rows: int, columns: int,
    down: int, across: int, stride_h: int, stride_w: int, apart_h: int, apart_w: int, top: int,
    left: int,
) -> None:  # fmt: skip
    """Write each window's maximum and the number of its tap; NaN wins, and else the first."""
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
    """Write each pixel's sum of cotangents of windows of which it is the maximum."""
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
    """Write each window's mean, over its pixels from first to end."""
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
    """Write each pixel's sum of cotangents of its windows, each over the window's pixels."""
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

ARRAYS = {
    maxima: "{x}* {x}* u1*" + SIZES,
    maxima_gradient: "{x}* u1* {x}*" + SIZES,
    means: "{x}* {x}*" + SIZES + 4 * " i4",
    means_gradient: "{x}* {x}*" + SIZES + 4 * " i4",
}
"""The parameters of the kernels."""


@functools.cache
def kernel(function: Callable[..., None], code: str) -> Kernel:
    """Return a kernel of windows for a dtype."""
    return Kernel(function, ARRAYS[function].format(x=code), THREADS, 3)


@functools.cache
def plane_means_kernel(code: str, team: int) -> Kernel:
    """Return the kernel of planes for a dtype."""
    return Kernel(make_plane_means(code, team), f"{code}* {code}* i8 i8", THREADS, 6)


def run(function: Callable[..., None], arrays: tuple[Any, ...], made: Any, *numbers: int) -> None:
    """Start a kernel of windows, a thread for each pixel that is made."""
    blocks = -(-made.size // THREADS)
    pointers = [stored(contiguous(x)) for x in arrays]
    kernel(function, code_of(made))(blocks, *pointers, made.size, *numbers)


def sizes(
    image: Pair, window: Pair, stride: Pair, padding: Margins, dilation: Pair = (1, 1)
) -> tuple[int, ...]:
    """Return the numbers that describe the windows."""
    outputs = output_size(image, window, stride=stride, padding=padding, dilation=dilation)
    return *image, *outputs, *window, *stride, *dilation, padding[0][0], padding[1][0]


def fits(x: Any, numbers: tuple[int, ...]) -> bool:
    """Tell whether kernels run on these shapes: not on nothing, nor past their integers."""
    largest = max(numbers[0] * numbers[1], numbers[2] * numbers[3])
    planes = x.shape[0] * x.shape[1]
    return bool(x.size > 0 and largest < 1 << 30 and planes * largest < THREADS << 31)


def max_value(x: Any, **geometry: Any) -> Any:
    """Return the maxima."""
    return max_vjp(x, **geometry)[0]


def max_vjp(x: Any, **geometry: Any) -> tuple[Any, Pullback]:
    """Return the maxima and the pullback, which keeps the numbers of their taps, in bytes."""
    numbers = sizes(x.shape[2:], **geometry)
    if math.prod(geometry["window"]) > NOBODY or not fits(x, numbers):
        return max_pool2d.portable.vjp(x, **geometry)
    y = xp.empty((*x.shape[:2], *numbers[2:4]), x.dtype)
    winners = xp.empty(y.shape, np.uint8)
    run(maxima, (x, y, winners), y, *numbers)

    def pullback(dy: Any) -> tuple[Any]:
        dx = xp.empty(x.shape, x.dtype)
        run(maxima_gradient, (dy, winners, dx), dx, *numbers)
        return (dx,)

    return y, pullback


def avg_value(x: Any, *, counted: Margins, **geometry: Any) -> Any:
    """Return the means."""
    return avg_vjp(x, counted=counted, **geometry)[0]


def avg_vjp(x: Any, *, counted: Margins, **geometry: Any) -> tuple[Any, Pullback]:
    """Return the means and the pullback."""
    numbers = sizes(x.shape[2:], **geometry)
    if not fits(x, numbers):
        return avg_pool2d.portable.vjp(x, counted=counted, **geometry)
    for size, margin in zip(x.shape[2:], counted, strict=True):
        numbers += -margin[0], size + margin[1]
    y = xp.empty((*x.shape[:2], *numbers[2:4]), x.dtype)
    run(means, (x, y), y, *numbers)

    def pullback(dy: Any) -> tuple[Any]:
        dx = xp.empty(x.shape, x.dtype)
        run(means_gradient, (dy, dx), dx, *numbers)
        return (dx,)

    return y, pullback


def global_value(x: Any) -> Any:
    """Return the mean of each plane: by a warp, or by a block where planes are large."""
    pixels = x.shape[2] * x.shape[3]
    if x.size // pixels >= 1 << 31:
        return global_avg_pool2d.portable.value(x)
    y, team = xp.empty(x.shape[:2], x.dtype), LANES if pixels <= LARGE else THREADS
    blocks = -(-y.size // (THREADS // team))
    plane_means_kernel(code_of(x), team)(blocks, stored(contiguous(x)), stored(y), y.size, pixels)
    return y


def global_vjp(x: Any) -> tuple[Any, Pullback]:
    """Return the mean of each plane and the pullback, which writes nothing but the shares."""
    shape = x.shape

    def pullback(dy: Any) -> tuple[Any]:
        share = dy / (shape[2] * shape[3])
        return (xp.broadcast_to(share[:, :, None, None], shape),)

    return global_value(x), pullback


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    made = [kernel(function, code) for function in ARRAYS for code in WIDE]
    return made + [plane_means_kernel(code, team) for code in WIDE for team in (LANES, THREADS)]


register("max_pool2d", max_value, max_vjp, takes, "window", "stride", "padding", "dilation")
register("avg_pool2d", avg_value, avg_vjp, takes, "window", "stride", "padding", "counted")
register("global_avg_pool2d", global_value, global_vjp, takes)

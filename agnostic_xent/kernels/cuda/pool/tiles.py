"""The kernels of pools whose windows are known when they are compiled: 2 x 2 and 3 x 3 pixels.

Forward a thread does a strip, a few windows below each other, and reads a pixel that they share
once. Back it does a tile, the pixels from where the windows of a strip begin to where the next ones
do: the windows that reach into it are the same for each tile, and each is read once.

What the kernels take besides arrays: ``n``, the threads that have something to do; `Places`;
`Image`; those of the mean also `Counted`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeAlias

import numpy as np

from ..toolchain.dtypes import WIDE
from ..toolchain.launching import I4, Kernel, codes_of
from ..toolchain.ptx import below, get, narrow, put, store, widen
from ..toolchain.teams import cuda, device
from .windows import NOBODY, THREADS, Counted, Windows, pixels_of

STRIPS = {(2, 2): 4, (3, 1): 8, (3, 2): 2}
"""Windows of a strip, by the pixels along a side of a window, and from a window to the next.

In float64 there are half as many, so that no register is spilled.
"""


U4: TypeAlias = Annotated[int, "u4"]


class Places(NamedTuple):
    """How many tiles, or strips, there are in a column, and in a row.

    With each, what divides by it: a factor, and by how many bits the product is shifted.
    """

    down: I4
    down_factor: U4
    down_shift: I4
    across: I4
    across_factor: U4
    across_shift: I4


def places_of(down: int, across: int) -> Places:
    """Return so many places in a column and in a row."""
    return Places(down, *divider(down), across, *divider(across))


def divider(n: int) -> tuple[int, int]:
    """Return the factor and the shift that divide numbers below 2^31 by n.

    See Granlund and Montgomery, Division by invariant integers using multiplication, 1994.
    """
    shift = 31 + (n - 1).bit_length()
    return -(-(1 << shift) // n), shift


@device
def divided(i: Any, factor: Any, shift: Any) -> Any:
    """Return i < 2^31 divided by the number that factor and shift stand for."""
    return np.uint32((np.uint64(i) * np.uint64(factor)) >> np.uint64(shift))


@device
def place_of(
    i: Any, down: Any, down_factor: Any, down_shift: Any, across: Any, across_factor: Any,
    across_shift: Any,
) -> Any:  # fmt: skip
    """Return the plane, row and column of place i."""
    line = divided(i, across_factor, across_shift)
    plane = divided(line, down_factor, down_shift)
    return plane, np.int32(line - plane * np.uint32(down)), np.int32(i - line * np.uint32(across))


class Image(NamedTuple):
    """The sizes of an image and of the output, and the padding before the image."""

    height: I4
    width: I4
    rows: I4
    columns: I4
    top: I4
    left: I4


@device
def beats(pixel: Any, best: Any) -> Any:
    """Return whether a pixel takes the place of one before it: a greater one, or the first NaN."""
    return (not pixel <= best) & (best == best)


def make_maxima(code: str, size: int, stride: int, strip: int) -> Callable[..., None]:
    """Return the kernel of the maxima and their taps; NaN wins, else the first one.

    A row of pixels has its maximum first, which all windows that it crosses share.
    """
    kind: Any = WIDE[code]
    reach = (strip - 1) * stride + size

    def maxima(
        x: Any, y: Any, numbers: Any, n: int, down: int, down_factor: int, down_shift: int,
        across: int, across_factor: int, across_shift: int, height: int, width: int,
        rows: int, columns: int, top: int, left: int,
    ) -> None:  # fmt: skip
        i = np.uint32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
        if i >= n:
            return
        plane, part, column = place_of(
            i, down, down_factor, down_shift, across, across_factor, across_shift
        )  # fmt: skip
        row, start = np.int32(part * strip), np.int32(plane * np.uint32(height * width))
        h, w = np.int32(row * stride - top), np.int32(column * stride - left)
        greatest, tap = cuda.local.array(reach, kind), cuda.local.array(reach, np.int32)
        for r in range(reach):
            line, inside = np.int32(start + (h + r) * width + w), below(h + r, height)
            for v in range(size):
                pixel = kind(-math.inf)
                if inside & below(w + v, width):
                    pixel = widen(get(x, line + v))
                if v == 0:
                    greatest[r], tap[r] = pixel, max(np.int32(-w), np.int32(0))
                elif beats(pixel, greatest[r]):
                    greatest[r], tap[r] = pixel, v
        first = np.int32(plane * np.uint32(rows * columns)) + np.int32(row * columns + column)
        for k in range(strip):
            best, tap_w = greatest[k * stride], tap[k * stride]
            tap_h = max(np.int32(-(h + k * stride)), np.int32(0))
            for u in range(1, size):
                if beats(greatest[k * stride + u], best):
                    best, tap_w = greatest[k * stride + u], tap[k * stride + u]
                    tap_h = np.int32(u)
            if below(row + k, rows):
                j = np.int32(first + k * columns)
                put(y, j, narrow(y, best))
                put(numbers, j, np.uint8(tap_h * size + tap_w))

    maxima.__qualname__ = f"maxima_{size}_{stride}"
    return maxima


def make_means(code: str, size: int, stride: int, strip: int) -> Callable[..., None]:
    """Return the kernel of the means over the pixels that are counted."""
    kind: Any = WIDE[code]
    reach = (strip - 1) * stride + size
    held = reach * size

    def means(
        x: Any, y: Any, n: int, down: int, down_factor: int, down_shift: int,
        across: int, across_factor: int, across_shift: int, height: int, width: int,
        rows: int, columns: int, top: int, left: int,
        first_h: int, end_h: int, first_w: int, end_w: int,
    ) -> None:  # fmt: skip
        i = np.uint32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
        if i >= n:
            return
        plane, part, column = place_of(
            i, down, down_factor, down_shift, across, across_factor, across_shift
        )  # fmt: skip
        row, start = np.int32(part * strip), np.int32(plane * np.uint32(height * width))
        h, w = np.int32(row * stride - top), np.int32(column * stride - left)
        pixel = cuda.local.array(held, kind)
        for r in range(reach):
            line, inside = np.int32(start + (h + r) * width + w), below(h + r, height)
            for v in range(size):
                pixel[r * size + v] = 0
                if inside & below(w + v, width):
                    pixel[r * size + v] = widen(get(x, line + v))
        first = np.int32(plane * np.uint32(rows * columns)) + np.int32(row * columns + column)
        wide = pixels_of(column, stride, size, left, first_w, end_w)
        for k in range(strip):
            total = kind(0)
            for u in range(size):
                for v in range(size):
                    total += pixel[(k * stride + u) * size + v]
            if below(row + k, rows):
                count = pixels_of(row + k, stride, size, top, first_h, end_h) * wide
                put(y, np.int32(first + k * columns), narrow(y, total / kind(count)))

    means.__qualname__ = f"means_{size}_{stride}"
    return means


def make_write(code: str, size: int, stride: int, strip: int) -> Callable[..., Any]:
    """Return the function by which a thread writes the gradient of the pixels of its tile."""
    kind: Any = WIDE[code]
    back = (size - 1) // stride  # windows before the first of a tile that reach into it
    reach = 1 + back

    @device
    def write(
        dx: Any, value: Any, number: Any, start: Any, h: Any, w: Any, height: Any, width: Any,
        taps: Any,
    ) -> None:  # fmt: skip
        """Write a tile from the windows that reach into it.

        The plane begins at ``start``. ``taps``: a window gives its value to the tap that has its
        number, and not to all of them.
        """
        total = cuda.local.array(stride, kind)
        for p in range(strip * stride):
            for q in range(stride):
                total[q] = 0
                for a in range((size - p % stride + stride - 1) // stride):
                    for b in range((size - q + stride - 1) // stride):
                        i = (p // stride + back - a) * reach + back - b
                        tap = (p % stride + a * stride) * size + q + b * stride
                        if not taps or number[i] == tap:
                            total[q] += value[i]
            line = np.int32(start + (h + p) * width + w)
            if below(h + p, height):
                if stride == 2 and line & 1 == 0 and w >= 0 and w + 1 < width:
                    store(dx, line, (narrow(dx, total[0]), narrow(dx, total[stride - 1])))
                else:
                    for q in range(stride):
                        if below(w + q, width):
                            put(dx, line + q, narrow(dx, total[q]))

    return write


def make_maxima_gradient(code: str, size: int, stride: int, strip: int) -> Callable[..., None]:
    """Return the kernel of each pixel's sum of the cotangents of windows whose maximum it is."""
    kind: Any = WIDE[code]
    back = (size - 1) // stride
    reach = 1 + back
    held = (strip + back) * reach
    write = make_write(code, size, stride, strip)

    def maxima_gradient(
        dy: Any, numbers: Any, dx: Any, n: int, down: int, down_factor: int, down_shift: int,
        across: int, across_factor: int, across_shift: int, height: int, width: int,
        rows: int, columns: int, top: int, left: int,
    ) -> None:  # fmt: skip
        i = np.uint32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
        if i >= n:
            return
        plane, part, column = place_of(
            i, down, down_factor, down_shift, across, across_factor, across_shift
        )  # fmt: skip
        row, start = np.int32(part * strip - back), np.int32(plane * np.uint32(rows * columns))
        value, number = cuda.local.array(held, kind), cuda.local.array(held, np.int32)
        for a in range(strip + back):
            line = np.int32(start + (row + a) * columns + column - back)
            inside = below(row + a, rows)
            for b in range(reach):
                number[a * reach + b] = NOBODY
                if inside & below(column - back + b, columns):
                    value[a * reach + b] = widen(get(dy, line + b))
                    number[a * reach + b] = get(numbers, line + b)
        h, w = np.int32(part * strip * stride - top), np.int32(column * stride - left)
        start = np.int32(plane * np.uint32(height * width))
        write(dx, value, number, start, h, w, height, width, True)

    maxima_gradient.__qualname__ = f"maxima_gradient_{size}_{stride}"
    return maxima_gradient


def make_means_gradient(code: str, size: int, stride: int, strip: int) -> Callable[..., None]:
    """Return the kernel of each pixel's sum of its windows' cotangents, over what these count."""
    kind: Any = WIDE[code]
    back = (size - 1) // stride
    reach = 1 + back
    held = (strip + back) * reach
    write = make_write(code, size, stride, strip)

    def means_gradient(
        dy: Any, dx: Any, n: int, down: int, down_factor: int, down_shift: int,
        across: int, across_factor: int, across_shift: int, height: int, width: int,
        rows: int, columns: int, top: int, left: int,
        first_h: int, end_h: int, first_w: int, end_w: int,
    ) -> None:  # fmt: skip
        i = np.uint32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
        if i >= n:
            return
        plane, part, column = place_of(
            i, down, down_factor, down_shift, across, across_factor, across_shift
        )  # fmt: skip
        row, start = np.int32(part * strip - back), np.int32(plane * np.uint32(rows * columns))
        value = cuda.local.array(held, kind)
        for a in range(strip + back):
            line = np.int32(start + (row + a) * columns + column - back)
            high = pixels_of(row + a, stride, size, top, first_h, end_h)
            inside = below(row + a, rows)
            for b in range(reach):
                count = high * pixels_of(column - back + b, stride, size, left, first_w, end_w)
                value[a * reach + b] = 0
                if inside & below(column - back + b, columns):
                    value[a * reach + b] = widen(get(dy, line + b)) / kind(count)
        h, w = np.int32(part * strip * stride - top), np.int32(column * stride - left)
        start = np.int32(plane * np.uint32(height * width))
        write(dx, value, value, start, h, w, height, width, False)

    means_gradient.__qualname__ = f"means_gradient_{size}_{stride}"
    return means_gradient


# --- launches ------------------------------------------------------------------------------------

MAKERS = {
    "maxima": make_maxima, "maxima_gradient": make_maxima_gradient,
    "means": make_means, "means_gradient": make_means_gradient,
}  # fmt: skip
PARAMETERS = {
    "maxima": f"{{x}}* {{x}}* u1* u4 {codes_of(Places)} {codes_of(Image)}",
    "maxima_gradient": f"{{x}}* u1* {{x}}* u4 {codes_of(Places)} {codes_of(Image)}",
    "means": f"{{x}}* {{x}}* u4 {codes_of(Places)} {codes_of(Image)} {codes_of(Counted)}",
    "means_gradient": f"{{x}}* {{x}}* u4 {codes_of(Places)} {codes_of(Image)} {codes_of(Counted)}",
}
"""The types of the parameters of the kernels, by their names; x is the code of a dtype."""


class Fixed(NamedTuple):
    """Square windows of so many pixels along a side, so far apart, and those of a strip."""

    size: int
    stride: int
    strip: int


def known_for(code: str) -> list[Fixed]:
    """Return the windows for which there are kernels of a dtype."""
    share = 2 if code == "f8" else 1
    return [Fixed(*windows, strip // share) for windows, strip in STRIPS.items()]


def known(code: str, windows: Windows) -> Fixed | None:
    """Return those of the windows for which there are kernels that these are, else None."""
    for each in known_for(code):
        square = windows.down == windows.across == each.size
        apart = windows.stride_h == windows.stride_w == each.stride
        if square and apart and windows.apart_h == windows.apart_w == 1:
            return each
    return None


def places(name: str, windows: Windows, of: Fixed) -> Places:
    """Return the strips of an output, or the tiles of an image and of the padding before it."""
    if name in ("maxima", "means"):
        return places_of(-(-windows.rows // of.strip), windows.columns)
    height, width = windows.height + windows.top, windows.width + windows.left
    return places_of(-(-height // (of.stride * of.strip)), -(-width // of.stride))


def image(windows: Windows) -> Image:
    """Return the sizes of an image and its output."""
    return Image(*(getattr(windows, name) for name in Image._fields))


@functools.cache
def kernel(name: str, code: str, of: Fixed) -> Kernel:
    """Return the kernel of this name for a dtype and windows, made once."""
    function = MAKERS[name](code, *of)
    return Kernel(function, PARAMETERS[name].format(x=code), THREADS, 3)


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return [kernel(name, code, of) for name in MAKERS for code in WIDE for of in known_for(code)]

"""Convolutions that are others, of rearranged images.

A 1 x 1 convolution with a stride is one without, of the pixels that it meets. A dilated one is one
without dilation of interleaved images: pixels whose places differ by multiples of the dilation.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

from ..simd.elementary import borrowed, plain
from ..simd.elements import SMALL
from ..simd.lines import copy_rows, place
from ..toolchain.arguments import flat
from ..toolchain.compiling import compiled_in_parts
from ..toolchain.memory import empty
from ..toolchain.signatures import FLOATS, Read1, Write1
from ..toolchain.threads import PIECES
from .costs import DIRECTIONS, cycles, fastest
from .geometry import Geometry


class AsItIs:
    """A convolution that nothing is rearranged for."""

    def __init__(self, outer: Geometry, inner: Geometry):
        self.outer = outer
        """The geometry that was asked for."""
        self.inner = inner
        """That of the convolution that is done."""

    def images(self, x: Any) -> Any:
        """Return the images of the inner convolution."""
        return x

    def outputs(self, y: Any) -> Any:
        """Return the outputs, given those of the inner convolution."""
        return y

    def cotangents(self, dy: Any) -> Any:
        """Return the cotangents of the inner convolution's outputs."""
        return dy

    def gradient(self, dx: Any) -> Any:
        """Return the gradient of the images, given that of the inner convolution's."""
        return dx


class Phases(NamedTuple):
    """Planes of pixels, and the smaller planes of every so-many-th row and column."""

    planes: int
    height: int
    width: int
    row_step: int
    column_step: int
    down: int
    """How many first rows have planes, and how many first columns."""
    across: int
    rows: int
    """Of a small plane."""
    columns: int
    top: int
    """Rows of zeros in front of the first pixels, and columns."""
    left: int


class InPhases(AsItIs):
    """A convolution of every so-many-th pixel, from the first one on or from each of the first."""

    def __init__(self, outer: Geometry, inner: Geometry, step: tuple[int, int]):
        super().__init__(outer, inner)
        self.step, self.is_one = step, inner.images == outer.images
        sides = zip(outer.padding, inner.padding, step, strict=True)
        self.margins = tuple(whole[0] - own[0] * each for whole, own, each in sides)
        """At the top and on the left: padding that the inner convolution has not."""

    def images(self, x: Any) -> Any:
        """Return the images, phase by phase."""
        return self._apart(x, (self.inner.height, self.inner.width), self.margins)

    def outputs(self, y: Any) -> Any:
        """Return the outputs with their pixels in order."""
        return y if self.is_one else self._together(y, self.outer.output, (0, 0))

    def cotangents(self, dy: Any) -> Any:
        """Return the cotangents, phase by phase; 0 for outputs that nobody has asked for."""
        return dy if self.is_one else self._apart(dy, self.inner.output, (0, 0))

    def gradient(self, dx: Any) -> Any:
        """Return the gradient of the images; 0 for pixels that no window meets."""
        return self._together(dx, (self.outer.height, self.outer.width), self.margins)

    def _apart(self, x: Any, size: tuple[int, int], margins: tuple[int, ...]) -> Any:
        y = empty((self.inner.images, x.shape[1], *size), x.dtype)
        phases = self._phases(x, y, margins)
        apart[x.dtype](flat(x), y.reshape(-1), phases, alone=y.size < SMALL)
        return y

    def _together(self, y: Any, size: tuple[int, int], margins: tuple[int, ...]) -> Any:
        x = empty((self.outer.images, y.shape[1], *size), y.dtype)
        phases = self._phases(x, y, margins)
        together[y.dtype](flat(y), x.reshape(-1), phases, alone=x.size < SMALL)
        return x

    def _phases(self, x: Any, y: Any, margins: tuple[int, ...]) -> Phases:
        images, channels, *image = x.shape
        there = (1, 1) if self.is_one else self.step
        sizes: Any = (*image, *self.step, *there, *y.shape[2:], *margins)
        return Phases(images * channels, *sizes)


# --- which one -----------------------------------------------------------------------------------

EVERY_OTHER, FEWER = 3, 5
"""Cycles for a pixel that changes its place, with a step of two and with others."""


@functools.lru_cache(maxsize=1024)
def arrangement(g: Geometry, dtype: Any, pooled: bool) -> AsItIs:
    """Return what makes a convolution fastest; a dilated one with a pool behind it is as it is."""
    if g.window == (1, 1) and g.padding == ((0, 0), (0, 0)) and g.stride != (1, 1):
        height, width = g.output
        inner = g._replace(height=height, width=width, stride=(1, 1))
        return InPhases(g, inner, g.stride)
    if g.stride == (1, 1) and g.dilation != (1, 1) and not pooled:
        inner = interleaved(g)
        moved = math.prod(g.output) * g.filters + g.height * g.width * g.channels
        each = EVERY_OTHER if g.dilation == (2, 2) else FEWER
        rest = len(DIRECTIONS) * each * g.images * g.groups * moved
        if _cycles(inner, dtype) + rest < _cycles(g, dtype):
            return InPhases(g, inner, g.dilation)
    return AsItIs(g, g)


def interleaved(g: Geometry) -> Geometry:
    """Return the geometry of a dilated convolution without its dilation."""
    axes = zip((g.height, g.width), g.padding, g.dilation, g.window, g.output, strict=True)
    (height, down), (width, across) = (_phase(*axis) for axis in axes)
    return g._replace(
        images=g.images * math.prod(g.dilation), height=height, width=width,
        padding=(down, across), dilation=(1, 1),
    )  # fmt: skip


def _phase(
    size: int, padding: tuple[int, int], step: int, window: int, output: int
) -> tuple[int, tuple[int, int]]:
    """Return how many pixels of an axis interleaved images have, and their padding.

    In front of them is their share of the padding, if it has whole ones; else it is pixels.
    """
    before = 0 if padding[0] % step else padding[0] // step
    pixels = -(-(size + padding[0] - before * step) // step)
    return pixels, (before, max(0, -(-output // step) + window - 1 - pixels - before))


def _cycles(g: Geometry, dtype: Any) -> float:
    ways = ((direction, fastest(g, dtype, direction)) for direction in DIRECTIONS)
    return sum(cycles(plans, g, direction) for direction, plans in ways)


# --- loops ---------------------------------------------------------------------------------------

MOST_LANES = 16
"""Of a vector."""


@plain
def take(
    x: Any, x0: Any, height: Any, width: Any, row_start: Any, row_step: Any, column_start: Any,
    column_step: Any, y: Any, y0: Any, rows: Any, columns: Any,
) -> None:  # fmt: skip
    """Copy every so-many-th pixel of every so-many-th row of a plane, 0 where there is none.

    Whole vectors are written, over what is behind a row: the last rows, behind which another part
    may write, are copied number by number.
    """
    first = min(rows, max(0, -(row_start // row_step)))
    last = max(first, min(rows, -((row_start - height) // row_step)))
    whole = max(first, min(last, rows - -(-MOST_LANES // columns)))
    y[y0 : y0 + first * columns] = 0
    copy_rows(
        x, x0 + (row_start + first * row_step) * width, row_step * width, whole - first, width,
        column_start, column_step, y, y0 + first * columns, columns,
    )  # fmt: skip
    y[y0 + whole * columns : y0 + rows * columns] = 0
    left = min(columns, max(0, -(column_start // column_step)))
    right = max(left, min(columns, -((column_start - width) // column_step)))
    for r in range(whole, last):
        row = x0 + (row_start + r * row_step) * width + column_start
        for j in range(left, right):
            y[y0 + r * columns + j] = x[row + j * column_step]


@compiled_in_parts(PIECES, kind=FLOATS)
def apart(x: Read1, y: Write1, p: Phases, parts: int, part: int) -> None:
    """Write planes as interleaved ones: (phases, planes) of them."""
    x, y = borrowed(x), borrowed(y)
    size, end = p.rows * p.columns, p.planes * (part + 1) // parts
    simple = p.down * p.across == 1 and p.top == p.left == 0
    for plane in range(p.planes * part // parts, end):
        x0 = plane * p.height * p.width
        if simple and (end - 1 - plane) * size >= MOST_LANES:  # what is behind is written over
            copy_rows(x, x0, p.row_step * p.width, p.rows, p.width, 0, p.column_step,
                      y, plane * size, p.columns)  # fmt: skip
            continue
        for phase in range(p.down * p.across):
            take(
                x, x0, p.height, p.width, phase // p.across - p.top, p.row_step,
                phase % p.across - p.left, p.column_step,
                y, (phase * p.planes + plane) * size, p.rows, p.columns,
            )  # fmt: skip


@compiled_in_parts(PIECES, kind=FLOATS)
def together(y: Read1, x: Write1, p: Phases, parts: int, part: int) -> None:
    """Write planes from interleaved ones; 0 for the phases that there are not."""
    x, y = borrowed(x), borrowed(y)
    size = p.height * p.width
    for plane in range(p.planes * part // parts, p.planes * (part + 1) // parts):
        if p.down * p.across < p.row_step * p.column_step:
            x[plane * size : (plane + 1) * size] = 0
        for phase in range(p.down * p.across):
            place(
                y, (phase * p.planes + plane) * p.rows * p.columns, p.rows, p.columns,
                x, plane * size, p.height, p.width, phase // p.across - p.top,
                p.row_step, phase % p.across - p.left, p.column_step,
            )  # fmt: skip

"""A convolution and its gradient as products of matrices that are gathered by a table.

``y[pixel, n] = sum_j x[place(pixel) + offset[j]] * matrix[j, n]``, for each group. A row j of the
table says how far a channel under a tap lies from the pixel's place (``offset``; in rows and
columns of the image, to tell whether it lies inside), and where the filter holds its weight.

The input gradient is one such product for each phase: pixels of x at the same place modulo the
stride meet the same taps, so that nothing is multiplied by zeros that a stride leaves.
"""

from __future__ import annotations

import functools
import math
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ....core.geometry import output_size
from ..toolchain.device import SIMULATED, uploaded, xp
from ..toolchain.launching import I4, I8

FAR = 1 << 30
"""Rows away: outside of any image."""

LIMIT = 1 << 31
PHASE = 8  # numbers of a phase, of which some are not used
TABLE = 4  # numbers of a row: offset, rows, columns, place of the weight


class Geometry(NamedTuple):
    """Shapes and normalised options of a convolution."""

    images: int
    channels: int
    """Of a group."""
    image: tuple[int, int]
    filters: int
    """Of a group."""
    groups: int
    window: tuple[int, int]
    stride: tuple[int, int]
    corner: tuple[int, int]
    """Pixels of padding above and to the left."""
    dilation: tuple[int, int]
    output: tuple[int, int]

    @property
    def taps(self) -> int:
        """The taps of the window."""
        return math.prod(self.window)


def geometry_of(x: Any, w: Any, options: dict[str, Any]) -> Geometry:
    """Return the geometry of images x and filters w, with normalised options."""
    names = ("stride", "padding", "dilation", "groups")
    return _geometry(x.shape, w.shape, *[options[name] for name in names])


@functools.lru_cache(maxsize=256)
def _geometry(x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Geometry:
    image, window = x[2:], w[2:]
    oh, ow = output_size(image, window, stride=stride, padding=padding, dilation=dilation)
    (top, _), (left, _) = padding
    counts = x[0], w[1], image, w[0] // groups, groups
    return Geometry(*counts, window, stride, (top, left), dilation, (oh, ow))


@functools.lru_cache(maxsize=256)
def in_range(g: Geometry) -> bool:
    """Return whether all numbers of a geometry are in the range of the kernels and their grids."""
    (h, w), (oh, ow), phases = g.image, g.output, math.prod(g.stride)
    reach = max(g.channels * h * w, g.filters * oh * ow, g.images * max(h * w, oh * ow))
    far = max(n * d for n, d in zip(g.window, g.dilation, strict=True)) + max(g.corner)
    image = g.groups * max(g.channels * h * w, g.filters * oh * ow)
    weights = max(g.filters * g.channels * g.taps, 2 * image)
    return max(reach + far * (w + ow), weights) < LIMIT // 4 and g.groups * phases < 1 << 16


class Places(NamedTuple):
    """How far apart things lie in the array x that a product reads, and in y, which it writes."""

    image_in: I8
    """Elements from an image to the next one; of groups, planes, rows and columns likewise."""
    group_in: I8
    plane_in: I4
    height: I4
    """Of an image of x."""
    width: I4
    step_h: I4
    """Rows of x from a pixel of y to the one below; ``step_w``: columns to the one beside."""
    step_w: I4
    image_out: I8
    group_out: I8
    plane_out: I8
    row_out: I4
    column_out: I4


class Phase(NamedTuple):
    """Pixels that meet the same taps, and the rows of the table for these."""

    first: int
    """Row of the table."""
    rows: int
    height: int
    """Of an image of the pixels."""
    width: int
    start: int
    """Place of the first pixel in a plane of y."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """The PHASE numbers that kernels read: those of the phase, and zeros."""
        return *self, *[0] * (PHASE - len(self))


class Product(NamedTuple):
    """A product of matrices, as its kernels take it."""

    table: Any
    """int32, (rows, TABLE)."""
    phases: Any
    """int32, (phases, PHASE): numbers of a `Phase`."""
    rows: int
    depth: int
    """Rows of the phase that has most."""
    by_tap: bool
    """Whether each tile of rows is channels under one tap."""
    filters: int
    groups: int
    images: int
    pixels: int
    """Of all images, in the largest phase."""
    places: Places
    contiguous: bool
    """Whether pixels follow each other in y."""
    complete: bool
    """Whether each pixel of y is in some phase."""
    weight_step: int
    """How far apart the weights of two columns of the matrix are."""


def forward(g: Geometry, depth: int, by_tap: bool = False) -> Product:
    """Return the product that is the convolution; a tile has ``depth`` rows of the table."""
    return _forward(g, depth, by_tap, None if SIMULATED else xp.cuda.Device().id)


def input_gradient(g: Geometry, depth: int, by_tap: bool = False) -> Product:
    """Return the product that is the gradient with respect to x, in phases."""
    return _input_gradient(g, depth, by_tap, None if SIMULATED else xp.cuda.Device().id)


@functools.lru_cache(maxsize=256)
def _forward(g: Geometry, depth: int, by_tap: bool, device: Any) -> Product:
    (height, width), (oh, ow) = g.image, g.output
    (top, left), (apart_h, apart_w), (down, across) = g.corner, g.dilation, g.window
    taps = [
        (u * apart_h - top, v * apart_w - left, u * across + v)
        for u, v in product(range(down), range(across))
    ]
    rows = rows_of(taps, g.channels, height * width, width, g.taps, depth, by_tap)
    plane, out, (step_h, step_w) = height * width, oh * ow, g.stride
    places = Places(
        image_in=g.groups * g.channels * plane, group_in=g.channels * plane, plane_in=plane,
        height=height, width=width, step_h=step_h, step_w=step_w,
        image_out=g.groups * g.filters * out, group_out=g.filters * out, plane_out=out,
        row_out=ow, column_out=1,
    )  # fmt: skip
    phase = Phase(first=0, rows=len(rows), height=oh, width=ow, start=0)
    return Product(
        uploaded(rows), uploaded(np.array([phase.numbers], np.int32)), len(rows),
        len(rows), by_tap, g.filters, g.groups, g.images, g.images * out, places,
        contiguous=True, complete=True, weight_step=g.channels * g.taps,
    )  # fmt: skip


@functools.lru_cache(maxsize=256)
def _input_gradient(g: Geometry, depth: int, by_tap: bool, device: Any) -> Product:
    (height, width), (oh, ow), (stride_h, stride_w) = g.image, g.output, g.stride
    _, across = g.window
    tables: list[Any] = []
    phases: list[Phase] = []
    first, complete = 0, True
    for top, left in product(range(min(stride_h, height)), range(min(stride_w, width))):
        met = taps_met(g, 0, top), taps_met(g, 1, left)
        taps = [(i, j, u * across + v) for (u, i), (v, j) in product(*met)]
        complete = complete and bool(taps)
        if not taps:
            continue
        rows = rows_of(taps, g.filters, oh * ow, ow, g.channels * g.taps, depth, by_tap)
        phases.append(Phase(
            first, len(rows), height=-(-(height - top) // stride_h),
            width=-(-(width - left) // stride_w), start=top * width + left,
        ))  # fmt: skip
        tables.append(rows)
        first += len(rows)
    if not phases:  # all outputs lie in the padding
        tables.append(rows_of([(FAR, FAR, -1)], 1, 0, 0, 0, depth, False))
        phases.append(Phase(first=0, rows=len(tables[0]), height=1, width=1, start=0))
        first = len(tables[0])
    plane, out = height * width, oh * ow
    places = Places(
        image_in=g.groups * g.filters * out, group_in=g.filters * out, plane_in=out,
        height=oh, width=ow, step_h=1, step_w=1,
        image_out=g.groups * g.channels * plane, group_out=g.channels * plane, plane_out=plane,
        row_out=stride_h * width, column_out=stride_w,
    )  # fmt: skip
    numbers = np.array([phase.numbers for phase in phases], np.int32)
    return Product(
        uploaded(np.concatenate(tables)), uploaded(numbers), first,
        max(p.rows for p in phases), by_tap, g.channels,
        g.groups, g.images, g.images * max(p.height * p.width for p in phases), places,
        contiguous=g.stride == (1, 1), complete=complete, weight_step=g.taps,
    )  # fmt: skip


def taps_met(g: Geometry, axis: int, start: int) -> list[tuple[int, int]]:
    """Return the taps along an axis that pixels ``start`` modulo the stride meet.

    With each, how many outputs lie between it and the pixel's own.
    """
    met = []
    for tap in range(g.window[axis]):
        distance, rest = divmod(start + g.corner[axis] - tap * g.dilation[axis], g.stride[axis])
        if not rest:
            met.append((tap, distance))
    return met


def rows_of(
    taps: list[tuple[int, int, int]],
    channels: int,
    plane: int,
    width: int,
    weight_step: int,
    depth: int,
    by_tap: bool,
) -> Any:
    """Return the table of all channels under all taps; rows that lie far fill it up to a tile.

    It holds the channels of a tap one after another, or the taps of a channel, as filters do.
    """
    row, column, weight = np.array(taps, np.int64).reshape(-1, 3).T
    if by_tap:
        tap, channel = np.divmod(np.arange(len(taps) * channels), channels)
    else:
        channel, tap = np.divmod(np.arange(len(taps) * channels), len(taps))
    offset = channel * plane + row[tap] * width + column[tap]
    rows = np.stack([offset, row[tap], column[tap], channel * weight_step + weight[tap]], axis=1)
    filling = np.tile([0, FAR, FAR, -1], (-len(rows) % depth, 1))
    return np.concatenate([rows, filling]).astype(np.int32)

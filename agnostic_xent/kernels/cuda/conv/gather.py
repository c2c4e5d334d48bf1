"""A convolution and its gradient as products of matrices that are gathered by a table.

``y[pixel, n] = sum_j x[place(pixel) + offset[j]] * matrix[j, n]``, for each group. A row j of the
table says how far a channel under a tap lies from the pixel's place (``offset``; in rows and
columns of the image, to tell whether it lies inside), and where the filter holds its weight.

The input gradient is one such product for each phase: pixels of x at the same place modulo the
stride meet the same taps, so that nothing is multiplied by zeros that a stride leaves.
"""

from __future__ import annotations

import functools
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ..toolchain.device import SIMULATED, xp

FAR = 1 << 30
"""Rows away: outside of any image."""

LIMIT = 1 << 31

PHASE = 8  # numbers
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
        """Of the window."""
        return self.window[0] * self.window[1]


def geometry_of(x: Any, w: Any, options: dict[str, Any]) -> Geometry:
    """Return the geometry of normalised arguments."""
    names = ("stride", "padding", "dilation", "groups")
    return _geometry(x.shape, w.shape, *[options[name] for name in names])


@functools.lru_cache(maxsize=256)
def _geometry(x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Geometry:
    image, window = x[2:], w[2:]
    axes = zip(image, padding, dilation, window, stride, strict=True)
    oh, ow = ((n + sum(p) - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in axes)
    corner = padding[0][0], padding[1][0]
    counts = x[0], w[1], image, w[0] // groups, groups
    return Geometry(*counts, window, stride, corner, dilation, (oh, ow))


@functools.lru_cache(maxsize=256)
def fits(g: Geometry) -> bool:
    """Tell whether all numbers of a geometry fit the kernels' integers and grids."""
    (h, w), (oh, ow), phases = g.image, g.output, g.stride[0] * g.stride[1]
    reach = max(g.channels * h * w, g.filters * oh * ow, g.images * max(h * w, oh * ow))
    far = max(n * d for n, d in zip(g.window, g.dilation, strict=True)) + max(g.corner)
    weights = g.filters * g.channels * g.taps
    return max(reach + far * (w + ow), weights) < LIMIT // 4 and g.groups * phases < 1 << 16


class Product(NamedTuple):
    """A product of matrices, as its kernels take it."""

    table: Any
    """int32, (rows, TABLE)."""
    phases: Any
    """int32, (phases, PHASE): first row, count of rows, image of pixels, place of the first one."""
    rows: int
    by_tap: bool
    """Whether each tile of rows is channels under one tap."""
    filters: int
    groups: int
    images: int
    pixels: int
    """Of all images, in the largest phase."""
    numbers: tuple[int, ...]
    """How far apart things lie in x, and in y: see conv_pixels.py."""
    contiguous: bool
    """Whether pixels follow each other in y."""
    complete: bool
    """Whether each pixel of y is in some phase."""
    weight_step: int
    """How far apart the weights of two columns of the matrix are."""


def forward(g: Geometry, depth: int, by_tap: bool = False) -> Product:
    """Return the product that is the convolution; a tile has ``depth`` rows."""
    return _forward(g, depth, by_tap, None if SIMULATED else xp.cuda.Device().id)


def input_gradient(g: Geometry, depth: int, by_tap: bool = False) -> Product:
    """Return the products that are the gradient with respect to x."""
    return _input_gradient(g, depth, by_tap, None if SIMULATED else xp.cuda.Device().id)


@functools.lru_cache(maxsize=256)
def _forward(g: Geometry, depth: int, by_tap: bool, device: Any) -> Product:
    (height, width), (oh, ow) = g.image, g.output
    taps = [
        (u * g.dilation[0] - g.corner[0], v * g.dilation[1] - g.corner[1], u * g.window[1] + v)
        for u, v in product(*map(range, g.window))
    ]
    rows = rows_of(taps, g.channels, height * width, width, g.taps, depth, by_tap)
    plane, out = height * width, oh * ow
    numbers = (
        *(g.groups * g.channels * plane, g.channels * plane, plane, height, width, *g.stride),
        *(g.groups * g.filters * out, g.filters * out, out, ow, 1),
    )
    phase = (0, len(rows), oh, ow, 0, 0, 0, 0)
    return Product(
        xp.asarray(rows), xp.asarray(np.array([phase], np.int32)), len(rows),
        by_tap, g.filters, g.groups, g.images, g.images * out, numbers,
        contiguous=True, complete=True, weight_step=g.channels * g.taps,
    )  # fmt: skip


@functools.lru_cache(maxsize=256)
def _input_gradient(g: Geometry, depth: int, by_tap: bool, device: Any) -> Product:
    (height, width), (oh, ow), stride = g.image, g.output, g.stride
    tables, phases, first, complete = [], [], 0, True
    for start in product(*(range(min(s, n)) for s, n in zip(stride, g.image, strict=True))):
        met = [taps_met(g, axis, start[axis]) for axis in (0, 1)]
        taps = [(i, j, u * g.window[1] + v) for (u, i), (v, j) in product(*met)]
        complete = complete and bool(taps)
        if not taps:
            continue
        rows = rows_of(taps, g.filters, oh * ow, ow, g.channels * g.taps, depth, by_tap)
        size = [-(-(n - a) // s) for n, a, s in zip(g.image, start, stride, strict=True)]
        phases.append((first, len(rows), *size, start[0] * width + start[1], 0, 0, 0))
        tables.append(rows)
        first += len(rows)
    plane, out = height * width, oh * ow
    numbers = (
        *(g.groups * g.filters * out, g.filters * out, out, oh, ow, 1, 1),
        *(g.groups * g.channels * plane, g.channels * plane, plane),
        *(stride[0] * width, stride[1]),
    )
    return Product(
        xp.asarray(np.concatenate(tables)), xp.asarray(np.array(phases, np.int32)), first,
        by_tap, g.channels, g.groups, g.images,
        g.images * max(p[2] * p[3] for p in phases), numbers,
        contiguous=stride == (1, 1), complete=complete, weight_step=g.taps,
    )  # fmt: skip


def taps_met(g: Geometry, axis: int, start: int) -> list[tuple[int, int]]:
    """Return the taps that pixels ``start`` modulo the stride meet, and the outputs' distance."""
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

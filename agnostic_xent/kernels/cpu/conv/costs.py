"""Which algorithm of convolution should be the fastest: the cycles of each, for each direction.

Counted are the multiplications of vectors, with all that is rounded up to whole vectors and tiles,
and what else takes time: images that are packed, transformed and written, weights that are laid
out, and the call itself. The constants were fitted to measured times of layers drawn at random.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..simd.tiles import TAPS
from ..simd.vectors import VECTOR_BYTES
from . import (
    column_plans,
    depthwise_plans,
    direct_plans,
    implicit_plans,
    pointwise_plans,
    row_plans,
    volume_direct_plans,
    volume_plans,
    winograd_plans,
)
from .column_transforms import POINTS
from .columns import tile_rows_of
from .direct import TIMES, tile_of
from .geometry import Geometry
from .pointwise import TILE as POINTWISE_TILE
from .row_winograd import more_of
from .tiling import tile_rows_of as tile_rows
from .tiling import tiles_of
from .volume_winograd import Depth, read_of

LANES = VECTOR_BYTES // 4
DIRECTIONS = FORWARD, INPUT, WEIGHT = "forward", "input_gradient", "weight_gradient"
"""Of a convolution: each is a function of the plans of an algorithm."""


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


class Sides(NamedTuple):
    """What a direction reads and writes; the weight gradient counts as the forward pass does."""

    channels: int
    filters: int
    rows: int
    read: int
    """Pixels of a channel of an image."""
    lines: int
    """Rows of outputs, or with a stride backward of a phase of them."""
    reach: int
    """Rows of outputs that the last row of the window is behind the first one."""
    written: int
    taps: float
    """That an output meets, on average."""

    @property
    def weights(self) -> float:
        """Vectors of them."""
        return self.channels * self.filters * self.taps / LANES

    def packed(self, most: float) -> float:
        """Return how often a row is packed, in bands of at most so many of outputs."""
        band = max(1, min(self.lines, most))
        return 1.0 if band == self.lines else (band + self.reach) / band


def _sides(g: Geometry, direction: str) -> Sides:
    (oh, ow), taps, image = g.output, math.prod(g.window), g.height * g.width
    reach = (g.window[0] - 1) * g.dilation[0] // g.stride[0]
    if direction == INPUT:
        lines, met = -(-g.height // g.stride[0]), taps / math.prod(g.stride)
        return Sides(g.filters, g.channels, oh, oh * ow, lines, reach, image, met)
    return Sides(g.channels, g.filters, g.height, image, oh, reach, oh * ow, taps)


def direct(g: Geometry, direction: str) -> float:
    """Return the cycles of direct convolution."""
    s = _sides(g, direction)
    if pointwise_plans.applies(g, np.dtype(np.float32)):
        padded = _up(s.filters, POINTWISE_TILE)
        return g.images * s.channels * padded * (0.6 * s.written / LANES + 1)
    alone = s.lines == 1  # rows, which need no copy for each column of the window
    copies, put = (1, 24) if direction == INPUT else (g.window[1], 0)
    if alone:
        copies, put = min(copies, g.stride[1]), 0 if g.stride[1] == 1 else put
    filters = _up(s.filters, LANES // TAPS) if direction == WEIGHT else _tiled(s.filters)
    outputs, product = _up(s.written, 2 * LANES) * filters / LANES, 0.8
    if direction == FORWARD or (alone and direction == INPUT):
        product = 0.62
    image = outputs * (product * s.taps * s.channels + put) + 2500
    most = direct_plans.BAND_BYTES / (4 * copies * s.channels * s.read / s.rows) - s.reach
    packed = copies * s.channels * s.packed(most)
    image += packed * (10 * s.read / LANES + 5 * s.rows)
    return g.images * image


def direct_weights(g: Geometry, direction: str) -> float:
    """Return the cycles to lay out the weights of direct convolution."""
    if pointwise_plans.applies(g, np.dtype(np.float32)):
        return 150 * _sides(g, direction).weights
    return {FORWARD: 60, INPUT: 120, WEIGHT: 300}[direction] * _sides(g, direction).weights


def _tiled(filters: int) -> float:
    """Return the filters with the rest of the last tile, and what slower tiles take more."""
    tile = tile_of(filters)
    return _up(filters, tile) * TIMES[tile]


def implicit(g: Geometry, direction: str) -> float:
    """Return the cycles of implicit products."""
    s = _sides(g, direction)
    wide = implicit_plans.panel_of(s.filters, LANES)
    filters = _up(s.filters, wide * LANES) / LANES
    product = 0.57 if direction == WEIGHT else 0.6
    product *= s.taps * s.channels * implicit_plans.PANELS[wide]
    rows = direction != WEIGHT and implicit_plans.by_rows(g, direction == INPUT)
    if rows:
        product *= implicit_plans.window_of(g, direction == INPUT).share
    packed = s.channels * s.packed(implicit_plans.PIXELS * s.lines / s.written)
    packed *= 0 if _in_place(g, direction) else 10 * s.read / LANES + 12 * s.rows
    one_by_one = rows or (direction == INPUT and g.stride != (1, 1))
    put = 40 if one_by_one else 18  # rows, or every so-many-th pixel
    return g.images * (s.written * filters * (product + put) + packed)


def implicit_weights(g: Geometry, direction: str) -> float:
    """Return the cycles to lay out the weights of implicit products."""
    return 20 * _sides(g, direction).weights


def _in_place(g: Geometry, direction: str) -> bool:
    """Return whether no pixels have to be packed."""
    close = all(step <= k for step, k in zip(g.stride, g.window, strict=True))
    no_margins = g.padding == ((0, 0), (0, 0)) and close
    return no_margins and (direction != INPUT or g.window == (1, 1))


def columns(g: Geometry, direction: str) -> float:
    """Return the cycles of Winograd convolution down the columns."""
    if direction == INPUT:
        one = g.stride == (1, 1)
        return columns(column_plans.adjoint(g), FORWARD) if one else direct(g, direction)
    t = column_plans.sizes(g)
    tiles = g.images * tile_rows_of(t) * t.pitch / LANES  # vectors of all tile rows
    channels, depth = g.channels * math.prod(g.stride), g.channels * g.stride[0] * g.window[1]
    if direction == WEIGHT:
        products = 0.85 * POINTS * g.filters * (depth + 16)
        return tiles * (products + 210 * channels)
    sums = POINTS * _tiled(g.filters) * (0.71 * depth + 9)
    return tiles * (sums + 190 * channels)


def column_weights(g: Geometry, direction: str) -> float:
    """Return the cycles to transform the weights down the columns."""
    if direction == INPUT and g.stride != (1, 1):
        return direct_weights(g, direction)
    weights = g.channels * g.filters * math.prod(g.window)
    return (60 if direction == WEIGHT else 10) * weights


def row(g: Geometry, direction: str) -> float:
    """Return the cycles of Winograd convolution along the row."""
    if direction == INPUT:
        one = g.stride == (1, 1)
        return row(row_plans.adjoint(g), FORWARD) if one else direct(g, direction)
    t, channels, written = row_plans.sizes(g), g.channels, 7
    if direction == WEIGHT:
        t, written = row_plans.gradient_sizes(g), 15
        channels = t.padded_channels
    points, taps = POINTS * t.images * t.dilation * t.tiles, t.pieces * t.stride
    sums = t.padded_filters / LANES * (taps * (0.65 * channels + 2) + written)
    read = 20 * (1 + more_of(t) / t.block) * t.stride * t.padded_channels / LANES
    return points * (sums + read)


def row_weights(g: Geometry, direction: str) -> float:
    """Return the cycles to transform the weights along the row."""
    if direction == INPUT and g.stride != (1, 1):
        return direct_weights(g, direction)
    weights = POINTS * g.channels * g.filters * g.window[1]
    return (25 if direction == WEIGHT else 12) * weights / LANES


def winograd(g: Geometry, direction: str) -> float:
    """Return the cycles of Winograd convolution in both directions."""
    oh, ow = g.output
    tiles = g.images * -(-oh // 4) * -(-ow // 4)
    points = winograd_plans.forward_tiling(g).side ** 2
    channels, filters, product, read, written = g.channels, g.filters, 0.4, 950, 500
    if direction == INPUT:
        channels, filters = filters, channels
    elif direction == WEIGHT:
        channels, filters = _up(channels, LANES), _up(filters, 2 * LANES)
        product, read, written = 0.78, 550, 320
    filters = _up(filters, winograd_plans.panel_of(filters) * LANES)
    products = product * channels * filters / LANES
    transforms = (read * -(-channels // LANES) + written * filters / LANES) / 36
    return points * tiles * (products + transforms)


def winograd_weights(g: Geometry, direction: str) -> float:
    """Return the cycles to transform the weights in both directions."""
    channels, filters = g.channels, g.filters
    if direction == INPUT:
        channels, filters = filters, channels
    elif direction == WEIGHT:
        channels, filters = _up(channels, LANES), _up(filters, 2 * LANES)
    filters = _up(filters, winograd_plans.panel_of(filters) * LANES)
    return winograd_plans.forward_tiling(g).side ** 2 * 1000 / 36 * channels * filters / LANES


def volume_winograd(g: Geometry, d: Depth, direction: str) -> float:
    """Return the cycles of Winograd convolution of volumes, with those for the weights."""
    channels, (t, d) = g.channels, volume_plans.sizes(g, d)
    product, written = 0.4, 500
    if direction == INPUT:
        channels, (t, d) = g.filters, volume_plans.input_gradient_sizes(g, d)
    elif direction == WEIGHT:
        t, d = volume_plans.weight_gradient_sizes(g, d)
        channels, product, written = t.padded_channels, 0.78, 320
    filters, planes = t.padded_filters / LANES, read_of(d, d.block) / d.block
    tiles = g.groups * g.images * d.outputs * tile_rows(t) * tiles_of(t)
    sums = d.taps * (product * channels + 2) * filters
    read = 950 / 36 * planes * t.padded_channels / LANES
    points = tiles * (sums + read + written / 36 * filters)
    return t.side**2 * (points + 1000 / 36 * g.groups * d.taps * channels * filters) + 1e5


class Algorithm(NamedTuple):
    """The cycles of a group, those for its weights, and those of a call."""

    group: Callable[[Geometry, str], float]
    weights: Callable[[Geometry, str], float]
    call: float


def depthwise(g: Geometry, direction: str) -> float:
    """Return 0 beside the call: nothing else is as fast, but for long single rows.

    These are for direct. There a tile is one vector, and each multiplication waits for the one
    before.
    """
    oh, ow = g.output
    return math.inf if oh == 1 and ow > 2 * LANES else 0


def depthwise_weights(g: Geometry, direction: str) -> float:
    """Return 0: they are few."""
    return 0


ALGORITHMS = {
    direct_plans: Algorithm(direct, direct_weights, 3e4),
    implicit_plans: Algorithm(implicit, implicit_weights, 4e4),
    column_plans: Algorithm(columns, column_weights, 5e4),
    row_plans: Algorithm(row, row_weights, 5e4),
    winograd_plans: Algorithm(winograd, winograd_weights, 1e5),
    depthwise_plans: Algorithm(depthwise, depthwise_weights, 1e4),
}


def candidates(g: Geometry, dtype: Any, direction: str) -> list[ModuleType]:
    """Return the plans of the algorithms that can be used."""
    return [plans for plans in ALGORITHMS if plans.applies(g, dtype)]


def cycles(plans: ModuleType, g: Geometry, direction: str, ready: bool = False) -> float:
    """Return the cycles that an algorithm should take; ``ready``: once weights are laid out."""
    algorithm = ALGORITHMS[plans]
    each = algorithm.group(g, direction)
    if ready:
        return g.groups * each
    return g.groups * (each + algorithm.weights(g, direction)) + algorithm.call


def volume_direct(g: Geometry, d: Depth, direction: str) -> float:
    """Return the cycles of direct convolution of volumes."""
    met = volume_direct_plans.back if direction == INPUT else volume_direct_plans.images
    return cycles(direct_plans, met(g, d), direction)


VOLUMES = {volume_plans: volume_winograd, volume_direct_plans: volume_direct}
"""The plans of the algorithms for volumes as they lie, and the cycles of each."""


@functools.lru_cache(512)
def fastest(g: Geometry, dtype: Any, direction: str, ready: bool = False) -> ModuleType:
    """Return the plans of the algorithm that should be the fastest; ``ready``: see `cycles`."""
    found = candidates(g, dtype, direction)
    return min(found, key=lambda plans: cycles(plans, g, direction, ready))

"""Which algorithm of convolution should be the fastest: cycles of a pass forward and backward.

Counted are the multiplications of vectors, one a cycle, and the cycles of what else takes time, as
measured, with all that is rounded up to whole vectors and tiles.
"""

from __future__ import annotations

import functools
import math
from types import ModuleType
from typing import Any

from ..simd.vectors import VECTOR_BYTES
from . import column_plans, depthwise_plans, direct_plans, winograd_plans
from .column_transforms import POINTS
from .columns import tile_rows_of
from .geometry import Geometry

LANES = VECTOR_BYTES // 4


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def direct(g: Geometry) -> float:
    """Return the cycles of three passes of direct convolution: nothing but multiplications."""
    return 3 * _direct(g)


def _direct(g: Geometry) -> float:
    oh, ow = g.output
    taps = g.window[0] * g.window[1]
    return taps * g.images * _up(oh * ow, 2 * LANES) * g.channels * g.filters / LANES


READ_CYCLES, WRITE_CYCLES, PRODUCT_CYCLES, TAP_CYCLES = 60, 60, 4, 10
"""Down the columns: to transform a vector of pixels of 8 rows, and one of outputs; of a sum besides
its multiplications; to transform a weight."""


def columns(g: Geometry) -> float:
    """Return the cycles of the transforms down the columns, and of what is between."""
    cycles = 2 * _columns(g) + g.filters * _tiles(g) * READ_CYCLES  # weight gradient: reads both
    return cycles + (_columns(column_plans.adjoint(g)) if g.stride == (1, 1) else _direct(g))


def _columns(g: Geometry) -> float:
    channels = g.channels * g.stride[0] * g.stride[1]
    depth = g.channels * g.stride[0] * g.window[1]
    products = POINTS * g.filters * (depth + PRODUCT_CYCLES)
    weights = g.channels * g.filters * g.window[0] * g.window[1] * TAP_CYCLES
    transforms = channels * READ_CYCLES + g.filters * WRITE_CYCLES
    return _tiles(g) * (products + transforms) + weights


def _tiles(g: Geometry) -> float:
    """Return the vectors of all tile rows."""
    t = column_plans.sizes(g)
    return g.images * tile_rows_of(t) * t.pitch / LANES


INPUT_CYCLES, OUTPUT_CYCLES, WEIGHT_CYCLES = 400, 500, 300
"""Winograd in both directions: to transform a vector of channels of a tile of 36 points, on the way
in and out, and the weights of one; with more points, so much more."""


def winograd(g: Geometry) -> float:
    """Return the cycles of the products of three passes, and of the transforms."""
    oh, ow = g.output
    tiles = g.images * -(-oh // 4) * -(-ow // 4)
    points = winograd_plans.forward_tiling(g).side ** 2
    cycles = _winograd(points, tiles, g.channels, g.filters)
    cycles += _winograd(points, tiles, g.filters, g.channels)
    return cycles + _winograd(points, tiles, _up(g.channels, LANES), _up(g.filters, 2 * LANES))


def _winograd(points: int, tiles: int, channels: int, filters: int) -> float:
    padded = _up(filters, winograd_plans.panel_of(filters) * LANES)
    transforms = INPUT_CYCLES * -(-channels // LANES) + OUTPUT_CYCLES * padded // LANES
    cycles = points * (channels * padded / LANES + transforms / 36)
    return tiles * cycles + WEIGHT_CYCLES * channels * padded / LANES


def depthwise(g: Geometry) -> float:
    """Return 0, since nothing else is as fast, but for long single rows: they are for direct.

    There a tile is one vector, and each multiplication waits for the one before.
    """
    oh, ow = g.output
    return math.inf if oh == 1 and ow > 2 * LANES else 0


ALGORITHMS = {
    direct_plans: direct,
    column_plans: columns,
    winograd_plans: winograd,
    depthwise_plans: depthwise,
}


@functools.lru_cache(512)
def fastest(g: Geometry, dtype: Any) -> ModuleType:
    """Return the plans of the algorithm that should be the fastest of those that can be used."""
    fitting = [plans for plans in ALGORITHMS if plans.applies(g, dtype)]
    return min(fitting, key=lambda plans: ALGORITHMS[plans](g))

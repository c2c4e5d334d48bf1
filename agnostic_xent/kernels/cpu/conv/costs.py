"""Which algorithm of convolution should be the fastest: the cycles of each, for each direction.

Counted are the multiplications of vectors, one a cycle, and the cycles of what else takes time, as
measured, with all that is rounded up to whole vectors and tiles.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from ..simd.vectors import VECTOR_BYTES
from . import column_plans, direct_plans, winograd_plans
from .column_transforms import POINTS
from .columns import tile_rows_of
from .geometry import Geometry

LANES = VECTOR_BYTES // 4
DIRECTIONS = FORWARD, INPUT, WEIGHT = "forward", "input_gradient", "weight_gradient"
"""Of a convolution: each is a function of the plans of an algorithm."""


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def direct(g: Geometry, direction: str) -> float:
    """Return the cycles of direct convolution: nothing but multiplications."""
    oh, ow = g.output
    taps = g.window[0] * g.window[1]
    return taps * g.images * _up(oh * ow, 2 * LANES) * g.channels * g.filters / LANES


READ_CYCLES, WRITE_CYCLES, PRODUCT_CYCLES, TAP_CYCLES = 60, 60, 4, 10
"""Down the columns: to transform a vector of pixels of 8 rows, and one of outputs; of a sum besides
its multiplications; to transform a weight."""


def columns(g: Geometry, direction: str) -> float:
    """Return the cycles of the transforms down the columns, and of what is between."""
    if direction == INPUT:
        one = g.stride == (1, 1)
        return columns(column_plans.adjoint(g), FORWARD) if one else direct(g, direction)
    channels = g.channels * g.stride[0] * g.stride[1]
    depth = g.channels * g.stride[0] * g.window[1]
    products = POINTS * g.filters * (depth + PRODUCT_CYCLES)
    weights = g.channels * g.filters * g.window[0] * g.window[1] * TAP_CYCLES
    transforms = channels * READ_CYCLES + g.filters * WRITE_CYCLES
    if direction == WEIGHT:
        transforms += g.filters * READ_CYCLES
    return _tiles(g) * (products + transforms) + weights


def _tiles(g: Geometry) -> float:
    """Return the vectors of all tile rows."""
    t = column_plans.sizes(g)
    return g.images * tile_rows_of(t) * t.pitch / LANES


INPUT_CYCLES, OUTPUT_CYCLES, WEIGHT_CYCLES = 400, 500, 300
"""Winograd in both directions: to transform a vector of channels of a tile of 36 points, on the way
in and out, and the weights of one; with more points, so much more."""


def winograd(g: Geometry, direction: str) -> float:
    """Return the cycles of Winograd's products, and of the transforms."""
    oh, ow = g.output
    tiles = g.images * -(-oh // 4) * -(-ow // 4)
    points = winograd_plans.forward_tiling(g).side ** 2
    channels, filters = g.channels, g.filters
    if direction == INPUT:
        channels, filters = filters, channels
    elif direction == WEIGHT:
        channels, filters = _up(channels, LANES), _up(filters, 2 * LANES)
    padded = _up(filters, winograd_plans.panel_of(filters) * LANES)
    transforms = INPUT_CYCLES * -(-channels // LANES) + OUTPUT_CYCLES * padded // LANES
    cycles = points * (channels * padded / LANES + transforms / 36)
    return tiles * cycles + WEIGHT_CYCLES * channels * padded / LANES


ALGORITHMS = {direct_plans: direct, column_plans: columns, winograd_plans: winograd}


def candidates(g: Geometry, dtype: Any, direction: str) -> list[ModuleType]:
    """Return the plans of the algorithms that can be used."""
    return [plans for plans in ALGORITHMS if plans.applies(g, dtype)]


def cycles(plans: ModuleType, g: Geometry, direction: str) -> float:
    """Return the cycles that an algorithm should take."""
    return g.groups * ALGORITHMS[plans](g, direction)


@functools.lru_cache(512)
def fastest(g: Geometry, dtype: Any, direction: str) -> ModuleType:
    """Return the plans of the algorithm that should be the fastest."""
    return min(candidates(g, dtype, direction), key=lambda plans: cycles(plans, g, direction))

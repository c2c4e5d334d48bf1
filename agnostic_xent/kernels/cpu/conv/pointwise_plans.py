"""Convolution with a window of one pixel: sizes, and the calls of the compiled loops."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..simd.vectors import VECTOR_BYTES, lanes_of
from ..toolchain.arguments import flat
from ..toolchain.memory import empty, scratch
from . import pointwise
from .geometry import SECTIONS, Geometry
from .pointwise import DEPTH, ROWS, TILE, Sizes, scratch_of


def applies(g: Geometry, dtype: Any) -> bool:
    """Return whether the window is one pixel, and images are no smaller than the tiles."""
    one = (g.window, g.stride, g.padding) == ((1, 1), (1, 1), ((0, 0), (0, 0)))
    enough = g.height * g.width >= 2 * lanes_of(dtype)
    return one and enough and min(g.channels, g.filters) >= TILE


def forward(g: Geometry, x: Any, w: Any, b: Any, relu: bool) -> Any:
    """Return y (N, K, H, W)."""
    return _run(g, x, w.reshape(g.groups, g.filters, g.channels), b, relu)


def input_gradient(g: Geometry, dy: Any, w: Any) -> Any:
    """Return dx (N, C, H, W)."""
    turned = w.reshape(g.groups, g.filters, g.channels).swapaxes(1, 2)
    adjoint = g._replace(channels=g.filters, filters=g.channels)
    return _run(adjoint, dy, turned, None, False)


def weight_gradient(g: Geometry, x: Any, dy: Any) -> Any:
    """Return dw (K, C / groups, 1, 1)."""
    dtype, lanes, t = x.dtype, lanes_of(x.dtype), _sizes(g)
    # a tile of 6 x 4 vectors needs 32 registers
    wide = 4 if VECTOR_BYTES == 64 and g.filters % (4 * lanes) == 0 else 2
    columns = -(-g.filters // (wide * lanes)) * wide * lanes
    rows = -(-g.channels // ROWS) * ROWS
    sections = min(SECTIONS, g.images * -(-t.pixels // DEPTH))
    totals = empty((sections, g.groups, rows, columns), dtype)
    space = scratch(scratch_of(t, columns), dtype)
    pointwise.weight_gradient[dtype](flat(x), flat(dy), totals, space, t, wide * lanes, lanes)
    place = np.arange(g.channels)
    place[rows - ROWS :] += rows - g.channels  # see there
    sums = totals[..., : g.filters].sum(axis=0)[:, place]
    return np.ascontiguousarray(sums.swapaxes(1, 2)).reshape(-1, g.channels, 1, 1)


def _sizes(g: Geometry) -> Sizes:
    return Sizes(g.images, g.groups, g.channels, g.filters, g.height * g.width)


def _run(g: Geometry, x: Any, w: Any, b: Any, relu: bool) -> Any:
    """Return y from x and w (groups, filters, channels)."""
    dtype, t, blocks = x.dtype, _sizes(g), -(-g.filters // TILE)
    weights = np.zeros((t.groups, blocks * TILE, t.channels), dtype)
    weights[:, : t.filters] = w
    weights = weights.reshape(t.groups, blocks, TILE, t.channels).swapaxes(2, 3)
    outputs = t.groups * t.filters
    bias = np.zeros(outputs + TILE, dtype)
    if b is not None:
        bias[:outputs] = b
    y = empty((t.images, outputs, g.height, g.width), dtype)
    offsets = np.arange(0, t.channels * t.pixels, t.pixels)
    pointwise.forward[dtype](
        flat(x), flat(weights), bias, offsets, y.reshape(-1), t, lanes_of(dtype), relu
    )
    return y

"""Winograd convolution: sizes of its blocks, and the calls of the compiled loops."""

from __future__ import annotations

import functools
import math
from itertools import product
from typing import Any

import numpy as np

from ..simd.vectors import VECTOR_BYTES
from ..toolchain.arguments import flat
from ..toolchain.memory import empty, scratch
from . import winograd
from . import winograd_gradient as gradient
from .geometry import SECTIONS, Geometry, cuts_of
from .tiling import Stride1, Stride2, Stride2Gradient, Tiling, tile_rows_of, tiles_of
from .winograd_tiles import POOL

LANES = VECTOR_BYTES // 4
"""All of this is float32."""

PANELS = (4, 2) if LANES == 16 else (2,)
"""Vectors of a panel; 6 x 4 sums need 32 registers."""

BLOCK = {6: 48, 9: 24}
"""Tiles of a block of the forward pass, by the points of a row of a tile."""

SECTION_BLOCK, POINTS_BLOCK = 32, {6: 256, 9: 128}
"""Tiles of a block of the weight gradient: in a thread's own cache, and shared."""

SMALL_WEIGHTS = 36 * 8192
"""Points x filters x channels up to which each section of the images has sums of its own."""


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


@functools.lru_cache(512)
def forward_tiling(g: Geometry) -> Tiling:
    """Return the sizes of the forward pass."""
    (top, _), (left, _) = g.padding
    cls = Stride1 if g.stride == (1, 1) else Stride2
    return _tiling(cls, g, g.channels, (g.height, g.width), (top, left), g.filters, g.output)


@functools.lru_cache(512)
def input_gradient_tiling(g: Geometry) -> Tiling:
    """Return the sizes of the input gradient: a convolution of dy with taps turned around."""
    (top, _), (left, _) = g.padding
    cls, margins = (
        (Stride1, (2 - top, 2 - left)) if g.stride == (1, 1) else (Stride2Gradient, (0, 0))
    )
    return _tiling(cls, g, g.filters, g.output, margins, g.channels, (g.height, g.width))


@functools.lru_cache(512)
def weight_gradient_tiling(g: Geometry) -> tuple[Tiling, int]:
    """Return sizes and the number of sections, 0 for sharing out the points."""
    t = forward_tiling(g)
    padded = _up(g.filters, 2 * LANES)
    rows, tiles = g.images * tile_rows_of(t), tiles_of(t)
    small = t.side**2 * t.padded_channels * padded <= SMALL_WEIGHTS
    block = max(1, min((SECTION_BLOCK if small else POINTS_BLOCK[t.side]) // tiles, rows))
    sections = min(SECTIONS, rows) if small else 0
    return t._replace(padded_filters=padded, panel=2 * LANES, block=block), sections


def panel_of(filters: int) -> int:
    """Return the vectors of a panel: the most that leave none of them empty."""
    return next((p for p in PANELS if filters % (p * LANES) == 0), 1 if filters <= LANES else 2)


def _tiling(
    cls: Any, g: Geometry, channels: int, image: tuple[int, int], margins: tuple[int, int],
    filters: int, out: tuple[int, int],
) -> Tiling:  # fmt: skip
    wide = panel_of(filters)
    made: Tiling = cls(
        *cls.SIZES, g.images, g.groups, channels, *image, *margins, filters, *out, block=1, cuts=1,
        padded_channels=_up(channels, LANES), padded_filters=_up(filters, wide * LANES),
        panel=wide * LANES,
    )  # fmt: skip
    rows = g.images * tile_rows_of(made)
    block = max(1, min(BLOCK[made.side] // tiles_of(made), rows))
    cuts = cuts_of(made.padded_filters // made.panel, -(-rows // block) * g.groups)
    return made._replace(block=block, cuts=cuts)


NOT_POOLED = np.empty(0, np.uint8)


def forward(geometry: Geometry, x: Any, w: Any, b: Any, relu: bool) -> Any:
    """Return y (N, K, OH, OW)."""
    t = forward_tiling(geometry)
    y = empty((t.images, t.groups * t.filters, t.out_height, t.out_width), np.float32)
    u = _weights(t, w, reverse=False)
    _run(t, x, NOT_POOLED, u, _bias(t, b), y, NOT_POOLED, relu)
    return y


def pooled(geometry: Geometry, x: Any, w: Any, b: Any, relu: bool) -> tuple[Any, Any]:
    """Return the maxima of 2 x 2 outputs, and which of the pixels they are (flat)."""
    t = forward_tiling(geometry)
    shape = t.images, t.groups * t.filters, t.out_height // POOL, t.out_width // POOL
    y, winners = empty(shape, np.float32), empty((math.prod(shape) + LANES,), np.uint8)
    u = _weights(t, w, reverse=False)
    _run(t, x, NOT_POOLED, u, _bias(t, b), y, winners, relu)
    return y, winners


def input_gradient(geometry: Geometry, dy: Any, w: Any, winners: Any = NOT_POOLED) -> Any:
    """Return dx (N, C, H, W); with the winners of a pool, dy are cotangents of its maxima."""
    t = input_gradient_tiling(geometry)
    dx = empty((t.images, t.groups * t.filters, t.out_height, t.out_width), np.float32)
    u = _weights(t, w, reverse=True)
    _run(t, dy, winners, u, _bias(t, None), dx, NOT_POOLED, False)
    return dx


def weight_gradient(geometry: Geometry, x: Any, dy: Any, winners: Any = NOT_POOLED) -> Any:
    """Return dw (K, C / groups, 3, 3)."""
    t, sections = weight_gradient_tiling(geometry)
    du, x, dy = _points(t, max(1, sections)), flat(x), flat(dy)
    variant = x.dtype, type(t)
    if sections:
        space = scratch(gradient.section_scratch(t), x.dtype)
        gradient.gradient_by_sections[variant](x, dy, winners, du, space, t, LANES, sections)
    else:
        _share_points(t, x, dy, winners, du)
    if sections > 1:
        gradient.add_sections[x.dtype](du, gradient.weights_of(t), sections)
    dw = empty((t.groups * t.filters, t.channels, 3, 3), np.float32)
    space = scratch(winograd.taps_of(t), x.dtype)
    gradient.finish[variant](du, dw.reshape(-1), space, t, LANES, 1)
    return dw


def _points(t: Tiling, sections: int) -> Any:
    """Return memory for the transformed weight gradients of so many sections."""
    return empty((sections * gradient.weights_of(t),), np.float32)


def _share_points(t: Tiling, x: Any, dy: Any, winners: Any, du: Any) -> None:
    """Write the transformed weight gradient du, whose points the threads share out."""
    block, variant = gradient.block_of(t), (x.dtype, type(t))
    v, g = empty((block.v,), np.float32), empty((block.g,), np.float32)
    space = scratch(gradient.strips_of(t).size, x.dtype)
    all_rows = t.images * tile_rows_of(t)
    for group, first in product(range(t.groups), range(0, all_rows, t.block)):
        rows = gradient.Rows(group, first, min(t.block, all_rows - first))
        gradient.transform[variant](x, dy, winners, rows, t, space, v, g, LANES)
        gradient.multiply_points[variant](v, g, du, rows, t, LANES)


def _weights(t: Tiling, w: Any, reverse: bool) -> Any:
    """Return the transformed weights, of ``w`` turned around if ``reverse``."""
    u = empty((t.groups * t.side**2 * t.channels * t.padded_filters,), np.float32)
    space = scratch(winograd.taps_of(t), u.dtype)
    winograd.transform_weights[u.dtype, type(t)](flat(w), u, space, t, LANES, 1, reverse)
    return u


def _bias(t: Tiling, b: Any) -> Any:
    """Return the bias of all filters, 0 for None, with room for the padding of the last group."""
    bias = np.zeros(t.groups * t.filters + t.padded_filters, np.float32)
    if b is not None:
        bias[: b.size] = b
    return bias


def _run(
    t: Tiling, x: Any, x_winners: Any, u: Any, bias: Any, y: Any, y_winners: Any, relu: bool
) -> None:
    """Write y from x and transformed weights u; either may be pooled: see `winograd.forward`."""
    space = scratch(winograd.scratch_of(t, LANES).size, x.dtype)
    winograd.forward[x.dtype, type(t)](
        flat(x), x_winners, u, bias, y.reshape(-1), y_winners, space, t, LANES, relu
    )


def name_of(g: Geometry) -> str:
    """Return what the algorithm is called."""
    return "Winograd F(4x4, 3x3)" + (" with stride 2" if g.stride == (2, 2) else "")


def applies(g: Geometry, dtype: Any) -> bool:
    """Return whether Winograd convolution can be used."""
    (top, bottom), (left, right) = g.padding
    fits = max(top, bottom, left, right) <= 2
    if g.stride == (2, 2):
        fits = top == left == 1 and max(bottom, right) <= 1
    elif g.stride != (1, 1):
        return False
    return bool(dtype == np.float32 and fits and (g.window, g.dilation) == ((3, 3), (1, 1)))

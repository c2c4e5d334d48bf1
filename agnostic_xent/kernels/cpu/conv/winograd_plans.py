"""Winograd convolution: sizes of its blocks, and the calls of the compiled loops."""

from __future__ import annotations

import functools
import math
from itertools import product
from typing import Any

import numpy as np

from ..simd.vectors import VECTOR_BYTES
from ..toolchain.compiling import array_in, array_out, compiled_in_parts, threads, types
from ..toolchain.memory import empty
from . import winograd
from . import winograd_gradient as gradient
from .geometry import SECTIONS, Geometry, flat
from .tiling import Stride1, Stride2, Stride2Gradient, Tiling
from .winograd import NARROW_ROWS, ROOM, SKEW
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
    tile_rows, tiles = grid(t)
    rows = g.images * tile_rows
    small = t.side**2 * t.padded_channels * padded <= SMALL_WEIGHTS
    block = max(1, min((SECTION_BLOCK if small else POINTS_BLOCK[t.side]) // tiles, rows))
    sections = min(SECTIONS, rows) if small else 0
    return t._replace(padded_filters=padded, panel=2 * LANES, block=block), sections


def panel_of(filters: int) -> int:
    """Return the vectors of a panel: the most that leave none of them empty."""
    return next((p for p in PANELS if filters % (p * LANES) == 0), 1 if filters <= LANES else 2)


def class_of(t: Tiling) -> Any:
    """Return what loops are compiled for."""
    return type(t)


def grid(t: Tiling) -> tuple[int, int]:
    """Return how many rows of tiles an image has, and columns."""
    return -(-t.out_height // t.written), -(-t.out_width // t.written)


def _tiling(
    cls: Any, g: Geometry, channels: int, image: tuple[int, int], margins: tuple[int, int],
    filters: int, out: tuple[int, int],
) -> Tiling:  # fmt: skip
    wide, (side, *_, written) = panel_of(filters), cls.SIZES
    rows, tiles = -(-out[0] // written), -(-out[1] // written)
    block = max(1, min(BLOCK[side] // tiles, g.images * rows))
    made: Tiling = cls(
        *cls.SIZES, g.images, g.groups, channels, *image, *margins, filters, *out, block,
        _up(channels, LANES), _up(filters, wide * LANES), wide * LANES,
    )  # fmt: skip
    return made


NOT_POOLED = np.empty(0, np.uint8)


def forward(geometry: Geometry, x: Any, w: Any, b: Any, relu: bool) -> Any:
    """Return y (N, K, OH, OW)."""
    t = forward_tiling(geometry)
    y = empty((t.images, t.groups * t.filters, t.out_height, t.out_width), np.float32)
    _run(t, x, NOT_POOLED, w, b, y, NOT_POOLED, relu, reverse=False)
    return y


def pooled(geometry: Geometry, x: Any, w: Any, b: Any, relu: bool) -> tuple[Any, Any]:
    """Return the maxima of 2 x 2 outputs, and which of the pixels they are (flat)."""
    t = forward_tiling(geometry)
    shape = t.images, t.groups * t.filters, t.out_height // POOL, t.out_width // POOL
    y, winners = empty(shape, np.float32), empty((math.prod(shape) + LANES,), np.uint8)
    _run(t, x, NOT_POOLED, w, b, y, winners, relu, reverse=False)
    return y, winners


def input_gradient(geometry: Geometry, dy: Any, w: Any, winners: Any = NOT_POOLED) -> Any:
    """Return dx (N, C, H, W); with the winners of a pool, dy are cotangents of its maxima."""
    t = input_gradient_tiling(geometry)
    dx = empty((t.images, t.groups * t.filters, t.out_height, t.out_width), np.float32)
    _run(t, dy, winners, w, None, dx, NOT_POOLED, False, reverse=True)
    return dx


def weight_gradient(geometry: Geometry, x: Any, dy: Any, winners: Any = NOT_POOLED) -> Any:
    """Return dw (K, C / groups, 3, 3)."""
    t, sections = weight_gradient_tiling(geometry)
    parts, (tile_rows, tiles), points = threads(), grid(t), t.side**2
    cls = class_of(t)
    strips = t.read * ((tiles - 1) * t.step + t.read) * t.padded_channels
    strips += t.written**2 * tiles * t.padded_filters + t.filters * t.out_width + ROOM
    v_size = points * (t.block * tiles * t.padded_channels + SKEW)
    g_size = points * (t.block * tiles * t.padded_filters + SKEW)
    du_size = t.groups * points * t.padded_channels * t.padded_filters
    du = empty((max(1, sections) * du_size,), np.float32)
    x, dy = flat(x), flat(dy)
    if sections:
        space = empty((parts * (strips + v_size + g_size),), np.float32)
        loop(gradient.gradient_by_sections, cls)(x, dy, winners, du, space, t, LANES, sections)
    else:
        space = empty((parts * strips,), np.float32)
        v, g = empty((v_size,), np.float32), empty((g_size,), np.float32)
        v_plane, g_plane = v_size // points, g_size // points
        rows = t.images * tile_rows
        for group, first in product(range(t.groups), range(0, rows, t.block)):
            count = min(t.block, rows - first)
            loop(gradient.transform, cls)(
                LANES, x, dy, winners, group, first, count, t, space, v, v_plane, g, g_plane
            )
            loop(gradient.multiply_points, cls)(
                LANES, v, v_plane, g, g_plane, count * tiles, t, du, group, first > 0
            )
    dw = empty((t.groups * t.filters, t.channels, 3, 3), np.float32)
    space = empty((parts * 9 * t.padded_filters,), np.float32)
    if sections > 1:
        loop(gradient.add_sections, cls)(du, du_size, sections)
    loop(gradient.finish, cls)(du, dw.reshape(-1), space, t, LANES)
    return dw


def _run(
    t: Tiling, x: Any, x_winners: Any, w: Any, b: Any, y: Any, y_winners: Any, relu: bool,
    reverse: bool,
) -> None:  # fmt: skip
    parts, points, cls = threads(), t.side**2, class_of(t)
    u = empty((t.groups * points * t.channels * t.padded_filters,), np.float32)
    space = empty((parts * 9 * t.padded_filters,), np.float32)
    loop(winograd.transform_weights, cls)(flat(w), u, space, t, LANES, reverse)
    bias = np.zeros(t.groups * t.filters + t.padded_filters, np.float32)
    if b is not None:
        bias[: b.size] = b
    tiles = grid(t)[1]
    most = _up(t.block * tiles, NARROW_ROWS)
    size = t.read * ((tiles - 1) * t.step + t.read) * t.padded_channels
    size += points * (most * (t.padded_channels + t.padded_filters) + 2 * SKEW)
    size += max(t.written**2 * tiles * t.padded_filters, t.channels * t.width + ROOM)
    space = empty((parts * _up(size, LANES),), np.float32)
    loop(winograd.forward, cls)(
        flat(x), x_winners, u, bias, y.reshape(-1), y_winners, space, t, LANES, relu
    )


@functools.cache
def loop(function: Any, cls: Any) -> Any:
    """Return compiled loops for a class of tilings."""
    read, write = array_in(types.float32, 1), array_out(types.float32, 1)
    bytes_in, bytes_out = array_in(types.uint8, 1), array_out(types.uint8, 1)
    integer, yes = types.int64, types.boolean
    tiling = types.NamedUniTuple(integer, len(Tiling._fields), cls)
    signatures: dict[Any, Any] = {
        winograd.forward: (
            read, bytes_in, read, read, write, bytes_out, write, tiling, integer, yes,
        ),
        winograd.transform_weights: (read, write, write, tiling, integer, yes),
        gradient.gradient_by_sections: (
            read, read, bytes_in, write, write, tiling, integer, integer,
        ),
        gradient.transform: (
            integer, read, read, bytes_in, integer, integer, integer, tiling, write,
            write, integer, write, integer,
        ),
        gradient.multiply_points: (
            integer, write, integer, write, integer, integer, tiling, write, integer, yes,
        ),
        gradient.add_sections: (write, integer, integer),
        gradient.finish: (write, write, write, tiling, integer),
    }  # fmt: skip
    return compiled_in_parts(function, signatures[function])


def name_of(g: Geometry) -> str:
    """Return what the algorithm is called."""
    return "Winograd F(4x4, 3x3)" + (" with stride 2" if g.stride == (2, 2) else "")


def applies(g: Geometry, dtype: Any) -> bool:
    """Tell whether Winograd convolution can be used."""
    (top, bottom), (left, right) = g.padding
    fits = max(top, bottom, left, right) <= 2
    if g.stride == (2, 2):
        fits = top == left == 1 and max(bottom, right) <= 1
    elif g.stride != (1, 1):
        return False
    return bool(dtype == np.float32 and fits and (g.window, g.dilation) == ((3, 3), (1, 1)))

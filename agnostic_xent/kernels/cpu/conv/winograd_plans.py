"""Winograd convolution: sizes of its blocks, and the calls of the compiled loops."""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np

from ..compiling import array_in, array_out, compiled, types
from ..memory import empty
from . import winograd, winograd_gradient
from .direct_plans import SECTIONS, flat
from .geometry import Geometry
from .vectors import VECTOR_BYTES
from .winograd import POINTS, ROWS, SKEW, Tiling

LANES = VECTOR_BYTES // 4
"""All of this is float32."""

PANELS = (4, 2) if LANES == 16 else (2,)
"""Vectors of a panel; 6 x 4 sums need 32 registers."""

BLOCK = 48
"""Tiles of a block of the forward pass."""


SECTION_BLOCK, POINTS_BLOCK = 32, 256
"""Tiles of a block of the weight gradient: in a thread's own cache, and shared."""

SMALL_WEIGHTS = 8192
"""Filters x channels up to which each section of the images has sums of its own."""


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


@functools.lru_cache(512)
def forward_tiling(g: Geometry) -> Tiling:
    (top, _), (left, _) = g.padding
    return _tiling(g, g.channels, (g.height, g.width), (top, left), g.filters, g.output)


@functools.lru_cache(512)
def input_gradient_tiling(g: Geometry) -> Tiling:
    """The input gradient is the convolution of dy with the taps turned by half a turn."""
    (top, _), (left, _) = g.padding
    margins = 2 - top, 2 - left
    return _tiling(g, g.filters, g.output, margins, g.channels, (g.height, g.width))


@functools.lru_cache(512)
def weight_gradient_tiling(g: Geometry) -> tuple[Tiling, int]:
    """Return sizes and the number of sections, 0 for sharing out the points."""
    t = forward_tiling(g)
    padded = _up(g.filters, 2 * LANES)
    rows, tiles = g.images * -(-t.out_height // 4), -(-t.out_width // 4)
    small = t.padded_channels * padded <= SMALL_WEIGHTS
    block = max(1, min((SECTION_BLOCK if small else POINTS_BLOCK) // tiles, rows))
    sections = min(SECTIONS, rows) if small else 0
    return t._replace(padded_filters=padded, panel=2 * LANES, block=block), sections


def _tiling(
    g: Geometry, channels: int, image: tuple[int, int], margins: tuple[int, int], filters: int,
    out: tuple[int, int],
) -> Tiling:  # fmt: skip
    wide = next((p for p in PANELS if filters % (p * LANES) == 0), PANELS[-1])
    tiles = -(-out[1] // 4)
    block = max(1, min(BLOCK // tiles, g.images * -(-out[0] // 4)))
    return Tiling(g.images, g.groups, channels, *image, *margins, filters, *out, block,
                  _up(channels, LANES), _up(filters, wide * LANES), wide * LANES)  # fmt: skip


def forward(geometry: Geometry, x: Any, w: Any, b: Any, relu: bool) -> Any:
    """Return y (N, K, OH, OW)."""
    return _run(forward_tiling(geometry), x, w, b, relu, reverse=False)


def input_gradient(geometry: Geometry, dy: Any, w: Any) -> Any:
    """Return dx (N, C, H, W)."""
    return _run(input_gradient_tiling(geometry), dy, w, None, False, reverse=True)


def weight_gradient(geometry: Geometry, x: Any, dy: Any) -> Any:
    """Return dw (K, C / groups, 3, 3)."""
    t, sections = weight_gradient_tiling(geometry)
    parts, loop, tiles = numba.get_num_threads(), loops(), -(-t.out_width // 4)
    strips = 6 * (tiles * 4 + 2) * t.padded_channels + 16 * tiles * t.padded_filters
    v_size = POINTS * (t.block * tiles * t.padded_channels + SKEW)
    g_size = POINTS * (t.block * tiles * t.padded_filters + SKEW)
    du = empty(
        (max(1, sections) * t.groups * POINTS * t.padded_channels * t.padded_filters,), np.float32
    )
    if sections:
        space = empty((parts * (strips + v_size + g_size),), np.float32)
        loop["gradient_by_sections"](flat(x), flat(dy), du, space, t, LANES, sections, parts)
    else:
        space = empty((parts * strips,), np.float32)
        v, g = empty((v_size,), np.float32), empty((g_size,), np.float32)
        loop["gradient_by_points"](flat(x), flat(dy), du, space, v, g, t, LANES, parts)
    dw = empty((t.groups * t.filters, t.channels, 3, 3), np.float32)
    space = empty((parts * 9 * t.padded_filters,), np.float32)
    loop["finish"](du, dw.reshape(-1), space, t, LANES, max(1, sections), parts)
    return dw


def _run(t: Tiling, x: Any, w: Any, b: Any, relu: bool, reverse: bool) -> Any:
    parts = numba.get_num_threads()
    u = empty((t.groups * POINTS * t.channels * t.padded_filters,), np.float32)
    space = empty((parts * 9 * t.padded_filters,), np.float32)
    loops()["transform_weights"](flat(w), u, space, t, LANES, reverse, parts)
    bias = np.zeros(t.groups * t.filters + t.padded_filters, np.float32)
    if b is not None:
        bias[: b.size] = b
    y = empty((t.images, t.groups * t.filters, t.out_height, t.out_width), np.float32)
    tiles = -(-t.out_width // 4)
    most = _up(t.block * tiles, ROWS)
    size = 6 * (tiles * 4 + 2) * t.padded_channels + 16 * tiles * t.padded_filters
    size += POINTS * (most * (t.padded_channels + t.padded_filters) + 2 * SKEW)
    space = empty((parts * _up(size, LANES),), np.float32)
    loops()["forward"](flat(x), u, bias, y.reshape(-1), space, t, LANES, relu, parts)
    return y


@functools.cache
def loops() -> dict[str, Any]:
    """Return the compiled loops."""
    read, write = array_in(types.float32, 1), array_out(types.float32, 1)
    integer, yes = types.int64, types.boolean
    tiling = types.NamedUniTuple(integer, len(Tiling._fields), Tiling)
    forward = types.void(read, read, read, write, write, tiling, integer, yes, integer)
    weights = types.void(read, write, write, tiling, integer, yes, integer)
    sections = types.void(read, read, write, write, tiling, integer, integer, integer)
    points = types.void(read, read, write, write, write, write, tiling, integer, integer)
    finish = types.void(write, write, write, tiling, integer, integer, integer)
    gradient = winograd_gradient
    return {
        "gradient_by_sections": compiled(gradient.gradient_by_sections, sections, parallel=True),
        "gradient_by_points": compiled(gradient.gradient_by_points, points, parallel=True),
        "finish": compiled(gradient.finish, finish, parallel=True),
        "forward": compiled(winograd.forward, forward, parallel=True),
        "transform_weights": compiled(winograd.transform_weights, weights, parallel=True),
    }


def pays(g: Geometry, dtype: Any) -> bool:
    """Tell whether Winograd convolution can be used, and is faster than direct."""
    margins = max(g.padding[0] + g.padding[1])
    if (g.window, g.stride, g.dilation) != ((3, 3), (1, 1), (1, 1)) or margins > 2:
        return False
    return bool(dtype == np.float32) and g.channels >= 16 and g.filters >= 16

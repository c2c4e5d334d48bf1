"""Winograd convolution along signals: sizes of its blocks, and the calls of its loops."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..toolchain.arguments import flat
from ..toolchain.memory import empty, scratch
from . import direct_plans, row_winograd, winograd_gradient
from .column_transforms import HIGHEST, LOWEST, POINTS, weight_matrix
from .geometry import SECTIONS, Geometry, cuts_of
from .row_winograd import Row, blocks_of, scratch_of, weights_of
from .winograd_plans import LANES, panel_of

TILES = 96
"""Of a block, about."""

BLOCK_BYTES = 640 << 10
"""Of a block's points of pixels and products: they stay in a second-level cache."""

LONGEST = 256
"""Taps of a window."""

STRIP_BYTES = 256 << 10
"""Of the pixels that the fewest tiles read."""

SMALL_WEIGHTS = 1 << 18
"""Of all points, up to which each of `SECTIONS` sections has sums of its own; else half as many."""

PIECES = ((4, 4), (3, 6))
"""Outputs of a tile and taps of the pieces that a long window is cut into, whole tiles apart."""


def forward(g: Geometry, x: Any, w: Any, b: Any, relu: bool) -> Any:
    """Return y (N, K, 1, OW)."""
    return _run(sizes(g), x, w, b, relu, reverse=False)


def input_gradient(g: Geometry, dy: Any, w: Any, winners: Any = None) -> Any:
    """Return dx (N, C, 1, W): with stride 1, a convolution of dy with the taps turned around."""
    if g.stride != (1, 1):
        return direct_plans.input_gradient(g, dy, w)
    return _run(sizes(adjoint(g)), dy, w, None, False, reverse=True)


def weight_gradient(g: Geometry, x: Any, dy: Any, winners: Any = None) -> Any:
    """Return dw (K, C / groups, 1, KW)."""
    t = gradient_sizes(g)
    size = t.groups * POINTS * t.pieces * t.stride * weights_of(t)
    sections = min(SECTIONS if size <= SMALL_WEIGHTS else SECTIONS // 2, blocks_of(t))
    du = empty((sections * size,), np.float32)
    space = scratch(scratch_of(t, LANES).size, x.dtype)
    row_winograd.weight_gradient[x.dtype](flat(x), flat(dy), du, space, t, LANES, sections)
    if sections > 1:
        winograd_gradient.add_sections[x.dtype](du, size, sections)
    dw = empty((t.groups * t.filters, t.channels, *g.window), np.float32)
    space = scratch(t.window * t.padded_filters, x.dtype)
    row_winograd.finish[x.dtype](du, _factors(t), dw.reshape(-1), space, t, LANES)
    return dw


def name_of(g: Geometry) -> str:
    """Return what the algorithm is called."""
    written, taps, pieces = cut_of(-(-g.window[1] // g.stride[1]))
    return f"Winograd F({written}, {taps}) along the row" + (", in pieces" if pieces > 1 else "")


def applies(g: Geometry, dtype: Any) -> bool:
    """Return whether the algorithm can be used: on single rows."""
    (kh, kw), (_, stride), (_, dilation) = g.window, g.stride, g.dilation
    single = g.height == kh == g.output[0] == 1
    strip = 4 * POINTS * stride * dilation * max(g.channels, g.filters, LANES)
    return bool(
        dtype == np.float32
        and single
        and (stride == 1 or (stride == 2 and dilation == 1))
        and LOWEST <= -(-kw // stride) <= LONGEST
        and strip <= STRIP_BYTES
    )


# --- sizes ----------------------------------------------------------------------------------------


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def cut_of(window: int) -> tuple[int, int, int]:
    """Return the outputs of a tile, the taps of a piece of the window, and the pieces.

    Those with the fewest multiplications an output.
    """
    ways = [(written, taps, -(-window // taps)) for written, taps in PIECES]
    if window <= HIGHEST:
        ways.insert(0, (POINTS + 1 - window, window, 1))
    return min(ways, key=lambda way: (way[2] / way[0], -way[0]))


def adjoint(g: Geometry) -> Geometry:
    """Return the convolution of cotangents that is the input gradient; its end is left open."""
    before = (g.window[1] - 1) * g.dilation[1] - g.padding[1][0]
    width, (_, out) = g.width, g.output
    after = width + (g.window[1] - 1) * g.dilation[1] - before - out
    return g._replace(
        channels=g.filters, filters=g.channels, width=out, padding=((0, 0), (before, after))
    )


@functools.lru_cache(512)
def sizes(g: Geometry) -> Row:
    """Return the sizes of the forward pass."""
    panel = panel_of(g.filters) * LANES
    t = _blocked(_row(g, panel, _up(g.filters, panel)))
    return t._replace(cuts=cuts_of(t.padded_filters // t.panel, blocks_of(t) * t.groups))


@functools.lru_cache(512)
def gradient_sizes(g: Geometry) -> Row:
    """Return the sizes of the weight gradient."""
    return _blocked(_row(g, 2 * LANES, _up(g.filters, 2 * LANES)))


def _row(g: Geometry, panel: int, padded_filters: int) -> Row:
    (_, stride), (_, dilation), (_, window), (_, out) = g.stride, g.dilation, g.window, g.output
    written, taps, pieces = cut_of(-(-window // stride))
    return Row(
        g.images, g.groups, g.channels, g.width, g.padding[1][0], stride, dilation, g.filters, out,
        window, written, pieces, taps, taps // written if pieces > 1 else 0,
        tiles=-(-out // (dilation * written)), block=1, together=1, cuts=1,
        padded_channels=_up(g.channels, LANES), padded_filters=padded_filters, panel=panel,
    )  # fmt: skip


def _blocked(t: Row) -> Row:
    """Return the sizes t with the tiles of a block, and its signals: at least `SECTIONS` blocks."""
    each = 4 * POINTS * t.dilation * (t.stride * t.padded_channels + t.padded_filters)
    most = max(1, min(TILES // t.dilation, BLOCK_BYTES // each))
    if t.tiles > most:
        return t._replace(block=-(-t.tiles // -(-t.tiles // most)))
    together = max(1, min(most // t.tiles, -(-t.images // SECTIONS)))
    return t._replace(block=t.tiles, together=-(-t.images // -(-t.images // together)))


@functools.lru_cache
def _matrix(written: int, taps: int) -> Any:
    return np.ascontiguousarray(weight_matrix(POINTS + 1 - written)[:, :taps]).reshape(-1)


def _factors(t: Row) -> Any:
    """Return the points of each tap of a piece, (points, taps), flat."""
    return _matrix(t.written, t.taps)


# --- calls ----------------------------------------------------------------------------------------


def _run(t: Row, x: Any, w: Any, b: Any, relu: bool, reverse: bool) -> Any:
    weights = t.groups * POINTS * t.pieces * t.stride * t.channels * t.padded_filters
    u, outputs = empty((weights,), np.float32), t.groups * t.filters
    space = scratch(t.window * t.padded_filters, x.dtype)
    row_winograd.transform_weights[x.dtype](flat(w), _factors(t), u, space, t, LANES, reverse)
    y = empty((t.images, outputs, 1, t.out_width), np.float32)
    bias = np.zeros(outputs + t.padded_filters, np.float32)
    if b is not None:
        bias[:outputs] = b
    space = scratch(scratch_of(t, LANES).size, x.dtype)
    row_winograd.forward[x.dtype](flat(x), u, bias, y.reshape(-1), space, t, LANES, relu)
    return y

"""Winograd convolution down the columns: sizes of its blocks, and the calls of its loops."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np

from ..simd.products import product
from ..simd.tiles import TAPS
from ..simd.vectors import VECTOR_BYTES
from ..toolchain.arguments import flat
from ..toolchain.memory import empty, scratch
from . import columns, direct_plans
from .column_transforms import HIGHEST, LOWEST, POINTS, weight_matrix
from .columns import Columns, scratch_of, tile_rows_of
from .direct import tile_of
from .geometry import SECTIONS, Geometry, cuts_of

LANES = VECTOR_BYTES // 4
"""All of this is float32."""

RUN = 384
"""Pixels of a block: the products of 8 filters and points are 96 KB."""

BLOCK_BYTES = 768 << 10
"""Of the transformed pixels of a block: they meet all filters in a second-level cache."""

GRADIENT_BYTES = 512 << 10
"""Of a block of the weight gradient, pixels and cotangents: half of a second-level cache."""


def forward(g: Geometry, x: Any, w: Any, b: Any, relu: bool) -> Any:
    """Return y (N, K, OH, OW)."""
    return _run(sizes(g), x, w, b, relu)


def input_gradient(g: Geometry, dy: Any, w: Any, winners: Any = None) -> Any:
    """Return dx (N, C, H, W): with stride 1, a convolution of dy with the taps turned around."""
    if g.stride != (1, 1):
        return direct_plans.input_gradient(g, dy, w)
    turned = w.reshape(g.groups, g.filters, g.channels, *g.window)[..., ::-1, ::-1]
    turned = np.swapaxes(turned, 1, 2).reshape(-1, g.filters, *g.window)
    return _run(sizes(adjoint(g)), dy, turned, None, False)


def weight_gradient(g: Geometry, x: Any, dy: Any, winners: Any = None) -> Any:
    """Return dw (K, C / groups, KH, KW)."""
    t, window = sizes(g), _window(g)
    t = _blocked(t, GRADIENT_BYTES // (4 * POINTS * (_planes(t) + t.filters)))
    offsets = _offsets(t, g.window[1])
    taps, tile = offsets.size, LANES // TAPS
    tap_blocks = -(-taps // TAPS)
    sections = min(SECTIONS, g.images * tile_rows_of(t))
    shape = (g.groups, POINTS, -(-g.filters // tile), tap_blocks)
    totals = np.zeros((sections, *shape, LANES), np.float32)
    columns.weight_gradient[x.dtype](
        flat(x), flat(dy), np.pad(offsets, (0, tap_blocks * TAPS - taps), "edge"), totals,
        scratch(scratch_of(t, t.filters, LANES).size, x.dtype), t, LANES,
    )  # fmt: skip
    sums = totals.sum(axis=0).reshape(*shape, tile, TAPS)
    sums = np.swapaxes(sums, 3, 4).reshape(g.groups, POINTS, -1, tap_blocks * TAPS)
    sums = sums[:, :, : g.filters, :taps].swapaxes(0, 1)  # (points, groups, filters, taps)
    dw = product(weight_matrix(window), sums.reshape(POINTS, -1), turned=(True, False))
    dw = dw.reshape(window, -1, g.channels, g.stride[0], g.window[1])
    kh, kw = g.window
    dw = dw.transpose(1, 2, 0, 3, 4).reshape(-1, g.channels, window * g.stride[0], kw)
    return np.ascontiguousarray(dw[:, :, :kh])


def name_of(g: Geometry) -> str:
    """Return what the algorithm is called."""
    return f"Winograd F({POINTS + 1 - _window(g)}, {_window(g)}) down the columns"


def applies(g: Geometry, dtype: Any) -> bool:
    """Return whether the algorithm can be used."""
    return bool(
        dtype == np.float32
        and g.dilation == (1, 1)
        and max(g.stride) <= 2
        and LOWEST <= _window(g) <= HIGHEST
    )


# --- sizes ----------------------------------------------------------------------------------------


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _window(g: Geometry) -> int:
    """Return the rows of the window that meet every ``stride``-th row of the image."""
    return -(-g.window[0] // g.stride[0])


def _planes(t: Columns) -> int:
    return t.channels * t.row_step * t.column_step


def adjoint(g: Geometry) -> Geometry:
    """Return the convolution of cotangents that is the input gradient; its end is left open."""
    (top, _), (left, _) = g.padding
    kh, kw = g.window
    height, width = g.output
    return g._replace(
        channels=g.filters, filters=g.channels, height=height, width=width,
        padding=((kh - 1 - top, g.height - height + top), (kw - 1 - left, g.width - width + left)),
    )  # fmt: skip


@functools.lru_cache(512)
def sizes(g: Geometry) -> Columns:
    """Return the sizes of the forward pass."""
    (top, _), (left, _) = g.padding
    pitch = g.output[1] + (g.window[1] - 1) // g.stride[1]
    t = Columns(
        g.images, g.groups, g.channels, g.height, g.width, top, left, *g.stride, g.filters,
        *g.output, POINTS + 1 - _window(g), pitch, 1, 0, 1,
    )  # fmt: skip
    t = _blocked(t, min(RUN, BLOCK_BYTES // (4 * POINTS * _planes(t))))
    tasks = -(-t.images * tile_rows_of(t) // t.block) * t.groups
    return t._replace(cuts=cuts_of(-(-t.filters // tile_of(t.filters)), tasks))


def _blocked(t: Columns, run: int) -> Columns:
    """Return the sizes t with about as many tile rows a block as have ``run`` pixels.

    Of these numbers the one that leaves least of all tiles of two vectors empty; then with the
    fewest blocks, and those as even as can be.
    """
    rows = t.images * tile_rows_of(t)
    most = max(1, min(run // t.pitch, rows))

    def cost(block: int) -> tuple[int, int]:
        whole, rest = divmod(rows, block)
        pixels = whole * _up(block * t.pitch, 2 * LANES) + _up(rest * t.pitch, 2 * LANES)
        return pixels, whole + (rest > 0)

    block = min(range(-(-most // 2), most + 1), key=cost)
    return t._replace(block=block, run=_up(block * t.pitch, LANES) + LANES)


@functools.lru_cache(512)
def _offsets(t: Columns, window: int) -> Any:
    """Return where the taps of a row of the window are: (channels, row phases, columns)."""
    return np.asarray([
        (plane * t.column_step + v % t.column_step) * t.run + v // t.column_step
        for plane, v in itertools.product(range(t.channels * t.row_step), range(window))
    ], np.int64)  # fmt: skip


# --- calls ----------------------------------------------------------------------------------------


def _run(t: Columns, x: Any, w: Any, b: Any, relu: bool) -> Any:
    tile = tile_of(t.filters)
    y = empty((t.images, t.groups * t.filters, t.out_height, t.out_width), np.float32)
    outputs = t.groups * t.filters
    bias = np.zeros(outputs + tile, np.float32)
    if b is not None:
        bias[:outputs] = b
    columns.forward[x.dtype](
        flat(x), _weights(t, w, tile), np.zeros(tile, np.float32), bias, _offsets(t, w.shape[3]),
        y.reshape(-1), scratch(scratch_of(t, tile, LANES).size, x.dtype), t, tile, LANES, relu,
    )  # fmt: skip
    return y


def _weights(t: Columns, w: Any, tile: int) -> Any:
    """Return u (groups, blocks of filters, points, taps, tile), flat."""
    window, (kh, kw) = POINTS + 1 - t.written, w.shape[2:]
    blocks = -(-t.filters // tile)
    rows = np.zeros((t.groups, blocks * tile, t.channels, window * t.row_step, kw), np.float32)
    rows[:, : t.filters, :, :kh] = w.reshape(t.groups, t.filters, t.channels, kh, kw)
    rows = rows.reshape(t.groups, blocks, tile, t.channels, window, t.row_step * kw)
    taps = rows.transpose(4, 0, 1, 3, 5, 2).reshape(window, -1)
    u = product(weight_matrix(window), taps).reshape(POINTS, t.groups, blocks, -1)
    return np.ascontiguousarray(np.moveaxis(u, 0, 2)).reshape(-1)

"""Winograd convolution of volumes: sizes of its blocks, and the calls of its loops.

A convolution of volumes is that of their planes, a `Geometry` whose images are volumes, and a
`Depth`.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..toolchain.arguments import flat
from ..toolchain.memory import empty, scratch
from . import volume_winograd, winograd, winograd_gradient, winograd_plans
from .geometry import SECTIONS, Geometry, cuts_of
from .tiling import Tiling, tile_rows_of, tiles_of
from .volume_winograd import Depth, blocks_of, read_of, scratch_of
from .winograd_plans import LANES, NOT_POOLED

BLOCK_BYTES = 768 << 10
"""Of a block's transformed pixels and products: they stay in a second-level cache."""

MOST_PLANES = 8
"""Output planes of a block."""

MOST_TOTALS = 1 << 19
"""Weights, of all points and sections, above which there are as few sections as can be: two."""


def forward(g: Geometry, d: Depth, x: Any, w: Any, b: Any, relu: bool) -> Any:
    """Return y (N, K, OD, OH, OW)."""
    return _run(*sizes(g, d), x, w, b, relu, reverse=False)


def input_gradient(g: Geometry, d: Depth, dy: Any, w: Any) -> Any:
    """Return dx (N, C, D, H, W); the step in depth has to be 1."""
    return _run(*input_gradient_sizes(g, d), dy, w, None, False, reverse=True)


def weight_gradient(g: Geometry, d: Depth, x: Any, dy: Any) -> Any:
    """Return dw (K, C / groups, KD, 3, 3)."""
    t, d = weight_gradient_sizes(g, d)
    size = winograd_gradient.weights_of(t) * d.taps
    sections = min(max(2, min(SECTIONS, MOST_TOTALS // size)), blocks_of(t, d))
    du, variant = empty((sections * size,), np.float32), (x.dtype, type(t))
    space = scratch(scratch_of(t, d, LANES).size, x.dtype)
    volume_winograd.weight_gradient[variant](
        flat(x), NOT_POOLED, flat(dy), du, space, t, d, LANES, sections
    )
    if sections > 1:
        winograd_gradient.add_sections[x.dtype](du, size, sections)
    dw = empty((t.groups * t.filters, t.channels, d.taps, *g.window), np.float32)
    space = scratch(winograd.taps_of(t), x.dtype)
    winograd_gradient.finish[variant](du, dw.reshape(-1), space, t, LANES, d.taps)
    return dw


def name_of(g: Geometry) -> str:
    """Return what the algorithm is called."""
    return winograd_plans.name_of(g) + " of planes, summed in depth"


def applies(g: Geometry, d: Depth, dtype: Any) -> bool:
    """Return whether the algorithm can be used."""
    return winograd_plans.applies(g, dtype) and d.step == 1 == max(g.stride)


# --- sizes ----------------------------------------------------------------------------------------


@functools.lru_cache(512)
def sizes(g: Geometry, d: Depth) -> tuple[Tiling, Depth]:
    """Return the sizes of the forward pass."""
    return _blocked(winograd_plans.forward_tiling(g), d)


@functools.lru_cache(512)
def input_gradient_sizes(g: Geometry, d: Depth) -> tuple[Tiling, Depth]:
    """Return the sizes of the input gradient: a convolution of dy with the taps turned around."""
    front = (d.taps - 1) * d.apart - d.front
    back = d._replace(planes=d.outputs, outputs=d.planes, front=front)
    return _blocked(winograd_plans.input_gradient_tiling(g), back)


@functools.lru_cache(512)
def weight_gradient_sizes(g: Geometry, d: Depth) -> tuple[Tiling, Depth]:
    """Return the sizes of the weight gradient."""
    return _blocked(winograd_plans.weight_gradient_tiling(g)[0], d)


def _blocked(t: Tiling, d: Depth) -> tuple[Tiling, Depth]:
    """Return the sizes with those of a block: as many planes as fit, then as many tile rows."""
    each = 4 * t.side**2 * tiles_of(t)  # a tile row of one channel or filter, in bytes

    def fits(planes: int, rows: int) -> bool:
        channels = read_of(d, planes) * t.padded_channels + planes * t.padded_filters
        return rows * each * channels <= BLOCK_BYTES

    planes = next(n for n in range(min(d.outputs, MOST_PLANES), 0, -1) if n == 1 or fits(n, 1))
    planes = -(-d.outputs // -(-d.outputs // planes))
    most = tile_rows_of(t)
    rows = next(n for n in range(most, 0, -1) if n == 1 or fits(planes, n))
    d = d._replace(block=planes, rows=-(-most // -(-most // rows)))
    return t._replace(cuts=cuts_of(t.padded_filters // t.panel, blocks_of(t, d) * t.groups)), d


# --- calls ----------------------------------------------------------------------------------------


def _run(t: Tiling, d: Depth, x: Any, w: Any, b: Any, relu: bool, reverse: bool) -> Any:
    u = empty((t.groups * t.side**2 * t.channels * d.taps * t.padded_filters,), np.float32)
    space, variant = scratch(winograd.taps_of(t), x.dtype), (x.dtype, type(t))
    winograd.transform_weights[variant](flat(w), u, space, t, LANES, d.taps, reverse)
    filters = t.groups * t.filters
    y = empty((t.images, filters, d.outputs, t.out_height, t.out_width), np.float32)
    bias = np.zeros(filters + t.padded_filters, np.float32)
    if b is not None:
        bias[:filters] = b
    space = scratch(scratch_of(t, d, LANES).size, x.dtype)
    volume_winograd.forward[variant](
        flat(x), NOT_POOLED, u, bias, y.reshape(-1), space, t, d, LANES, relu
    )
    return y

"""Direct convolution of volumes: its tables, and the calls of the compiled loops.

The tables are those of images with the channels of all planes under the taps in depth; see
``volume_plans.py`` for what a convolution of volumes is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..simd.elements import FEW
from ..simd.tiles import TAPS
from ..simd.vectors import lanes_of
from ..toolchain.arguments import flat
from ..toolchain.memory import empty, scratch
from . import direct, direct_plans, volume_direct
from .direct import PHASE, TILES, correlation_scratch, gradient_scratch, units_of
from .direct_plans import Correlation
from .geometry import SECTIONS, Geometry
from .volume_winograd import Depth


def forward(g: Geometry, d: Depth, x: Any, w: Any, b: Any, relu: bool) -> Any:
    """Return y (N, K, OD, OH, OW)."""
    plan = direct_plans.forward_plan(images(g, d), x.dtype)
    return _run(plan, d, x, w, b, relu)


def input_gradient(g: Geometry, d: Depth, dy: Any, w: Any) -> Any:
    """Return dx (N, C, D, H, W); the step in depth has to be 1."""
    plan = direct_plans.input_gradient_plan(back(g, d), dy.dtype)
    turned = d._replace(planes=d.outputs, outputs=d.planes, apart=-d.apart, front=-d.front)
    return _run(plan, turned, dy, w.swapaxes(1, 2), None, False)


def weight_gradient(g: Geometry, d: Depth, x: Any, dy: Any) -> Any:
    """Return dw (K, C / groups, KD, KH, KW)."""
    dtype, lanes, alone = x.dtype, lanes_of(x.dtype), images(g, d).is_small
    packing = direct_plans.forward_plan(images(g, d), dtype).packing
    taps, tile = packing.offsets.size, lanes // TAPS
    tap_blocks, blocks = -(-taps // TAPS), -(-g.filters // tile)
    sections = min(SECTIONS, units_of(packing.bands))
    totals = np.zeros((sections, g.groups, blocks, tap_blocks, lanes), dtype)
    volume_direct.weight_gradient[dtype](
        flat(x), flat(dy), np.pad(packing.offsets, (0, tap_blocks * TAPS - taps), "edge"),
        packing.row_starts, packing.column_starts, totals,
        scratch(gradient_scratch(packing.bands, lanes, False), dtype, alone), packing.bands, d,
        g.filters, lanes, alone=alone,
    )  # fmt: skip
    sums = totals.sum(axis=0).reshape(g.groups, blocks, tap_blocks, tile, TAPS)
    dw = np.swapaxes(sums, 2, 3).reshape(g.groups, -1, tap_blocks * TAPS)[:, : g.filters, :taps]
    return np.ascontiguousarray(dw.reshape(-1, g.channels, d.taps, *g.window))


def name_of(g: Geometry) -> str:
    """Return what the algorithm is called."""
    return "direct, of the planes that a window meets"


def applies(g: Geometry, d: Depth, dtype: Any) -> bool:
    """Return whether the algorithm can be used."""
    return d.step == 1


def images(g: Geometry, d: Depth) -> Geometry:
    """Return the convolution of images that one of volumes is."""
    return g._replace(images=g.images * d.outputs, channels=g.channels * d.taps)


def back(g: Geometry, d: Depth) -> Geometry:
    """Return that whose input gradient is the one of volumes, where the step in depth is 1."""
    return g._replace(images=g.images * d.planes, filters=g.filters * d.taps)


def _run(plan: Correlation, d: Depth, x: Any, w: Any, b: Any, relu: bool) -> Any:
    """Return the volumes that are written."""
    bands, outputs, dtype = plan.packing.bands, plan.outputs, x.dtype
    filters, lanes, order = bands.groups * outputs.filters, lanes_of(dtype), plan.taps
    weights = empty((sum(taps.size for taps in order),), dtype)
    few = weights.size < FEW
    direct.gather[dtype](flat(w), np.concatenate(order), weights, alone=few)
    bias = np.zeros(filters + max(TILES), dtype)
    if b is not None:
        bias[:filters] = b
    volumes = bands.images // d.outputs
    y = empty((volumes, filters, d.outputs, outputs.height, outputs.width), dtype)
    space = scratch(correlation_scratch(bands, outputs, lanes), dtype, plan.alone)
    volume_direct.correlate[dtype](
        flat(x), weights, bias, np.concatenate(plan.offsets), np.array(plan.phases, PHASE),
        plan.packing.row_starts, plan.packing.column_starts, y.reshape(-1), outputs, space, bands,
        d, lanes, relu, alone=plan.alone,
    )  # fmt: skip
    return y

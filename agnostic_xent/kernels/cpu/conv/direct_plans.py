"""Direct convolution of every geometry: its tables, and the calls of the compiled loops.

All tables depend on shapes and options alone and are remembered.
"""

from __future__ import annotations

import functools
from itertools import product
from typing import Any

import numpy as np

from ..simd.elements import FEW
from ..simd.tiles import TAPS
from ..simd.vectors import lanes_of
from ..toolchain.arguments import NOTHING, flat
from ..toolchain.memory import empty, scratch
from . import direct, pointwise_plans
from .cotangents import over_images
from .direct import (
    PHASE,
    TILES,
    Bands,
    Outputs,
    Phase,
    correlation_scratch,
    gradient_scratch,
    tile_of,
)
from .geometry import SECTIONS, Geometry, with_long_rows

BAND_BYTES = 384 << 10
"""What a packed band may take: less than half of a second-level cache."""

REMEMBERED = 512
"""Geometries whose tables are kept."""


def forward(geometry: Geometry, x: Any, w: Any, b: Any, relu: bool) -> Any:
    """Return y (N, K, OH, OW)."""
    if pointwise_plans.applies(geometry, x.dtype):
        return pointwise_plans.forward(geometry, x, w, b, relu)
    y = forward_plan(with_long_rows(geometry), x.dtype).run(x, w, b, relu)
    return y.reshape(*y.shape[:2], *geometry.output)


def input_gradient(geometry: Geometry, dy: Any, w: Any, winners: Any = None) -> Any:
    """Return dx (N, C, H, W).

    Zeros stand where a window hangs over the edge of dy, so a weight that is NaN or infinite makes
    NaN of the pixels at the edge too that do not meet it.
    """
    if pointwise_plans.applies(geometry, dy.dtype):
        return pointwise_plans.input_gradient(geometry, dy, w)
    dx = input_gradient_plan(with_long_rows(geometry), dy.dtype).run(dy, w, None, False)
    return dx.reshape(*dx.shape[:2], geometry.height, geometry.width)


def weight_gradient(geometry: Geometry, x: Any, dy: Any, winners: Any = None) -> Any:
    """Return dw (K, C / groups, KH, KW)."""
    if pointwise_plans.applies(geometry, x.dtype):
        return pointwise_plans.weight_gradient(geometry, x, dy)
    none = NOTHING[x.dtype]
    return _weight_gradient(geometry, x, dy, none, none)


def weights_through_relu(geometry: Geometry, x: Any, dy: Any, y: Any) -> tuple[Any, Any]:
    """Return dw and the bias gradient of a convolution with ReLU, whose value is y.

    No masked copy of dy is made, which the input gradient would need. See `masks`.
    """
    planes = np.empty(y.shape[:2], y.dtype)
    dw = _weight_gradient(geometry, x, dy, flat(y), planes.reshape(-1))
    return dw, over_images(planes)


def masks(geometry: Geometry, dtype: Any) -> bool:
    """Return whether the weight gradient can mask on its way: if its bands are whole planes."""
    bands = forward_plan(with_long_rows(geometry), dtype).packing.bands
    return bands.band == bands.rows and not pointwise_plans.applies(geometry, dtype)


def _weight_gradient(geometry: Geometry, x: Any, dy: Any, y: Any, planes: Any) -> Any:
    dtype, lanes = x.dtype, lanes_of(x.dtype)
    packing = forward_plan(with_long_rows(geometry), dtype).packing
    bands, filters, taps = packing.bands, geometry.filters, packing.offsets.size
    tile, tap_blocks = lanes // TAPS, -(-taps // TAPS)
    offsets = np.pad(packing.offsets, (0, tap_blocks * TAPS - taps), "edge")
    sections, blocks = min(SECTIONS, direct.units_of(bands)), -(-filters // tile)
    totals = np.zeros((sections, geometry.groups, blocks, tap_blocks, lanes), dtype)
    space = scratch(gradient_scratch(bands, lanes, y.size > 0), dtype, geometry.is_small)
    direct.weight_gradient[dtype](
        flat(x), flat(dy), y, offsets, packing.row_starts, packing.column_starts, totals, planes,
        space, bands, filters, lanes, alone=geometry.is_small,
    )  # fmt: skip
    sums = totals.sum(axis=0).reshape(geometry.groups, blocks, tap_blocks, tile, TAPS)
    dw = np.swapaxes(sums, 2, 3).reshape(geometry.groups, -1, tap_blocks * TAPS)
    dw = dw[:, :filters, :taps]
    return np.ascontiguousarray(dw.reshape(-1, geometry.channels, *geometry.window))


def name_of(geometry: Geometry) -> str:
    """Return what the algorithm is called."""
    return "direct"


def applies(geometry: Geometry, dtype: Any) -> bool:
    """Return whether direct convolution can be used: always."""
    return True


class Packing:
    """How the images of one side are packed: copies of their rows, and how bands are cut.

    ``bands`` come with everything but the sizes that depend on the copies: band and packed.
    """

    def __init__(self, dtype: Any, bands: Bands, row_starts: list[int], column_starts: list[int]):
        self.row_starts, self.column_starts = (
            np.asarray(starts, np.int64) for starts in (row_starts, column_starts)
        )
        copies, rows = self.row_starts.size * self.column_starts.size, bands.rows
        row_bytes = bands.channels * copies * bands.pitch * dtype.itemsize
        band = min(BAND_BYTES // row_bytes - bands.halo, -(-rows * bands.images // SECTIONS), rows)
        band = -(-rows // -(-rows // max(1, band)))  # no shorter band at the end than need be
        self.line = (band + bands.halo) * bands.pitch
        self.plane = copies * self.line
        # a tile reads on behind the last row, to no effect
        packed = bands.channels * self.plane + max(TILES.values()) * lanes_of(dtype)
        self.bands = bands._replace(band=band, packed=packed)
        self.offsets: Any = None


class Correlation:
    """A packing, and the phases of outputs with the taps that each of them meets."""

    def __init__(
        self, packing: Packing, filters: int, image: tuple[int, int], whole: bool, alone: bool
    ):
        tile = tile_of(filters)
        self.packing, self.outputs = packing, Outputs(filters, *image, tile, whole)
        self.alone = alone
        self.phases: list[Phase] = []
        self.taps: list[Any] = []  # of a phase: the index of its weights (groups, filters, depth)
        self.offsets: list[Any] = []

    def add(self, taps: Any, offsets: Any, rows: tuple[int, int], columns: tuple[int, int]) -> None:
        """Add a phase; rows and columns are (start, step) in the image that is written."""
        groups, filters, depth = taps.shape
        tile = self.outputs.tile
        blocks = -(-filters // tile)
        first_offset, first_weight = (
            sum(a.size for a in arrays) for arrays in (self.offsets, self.taps)
        )
        self.phases.append(Phase(first_offset, depth, first_weight, *rows, *columns))
        # the index of no weight fills the tile up
        full = np.full((groups, blocks * tile, depth), -1, np.int64)
        full[:, :filters] = taps
        full = full.reshape(groups, blocks, tile, depth).transpose(0, 1, 3, 2)
        self.taps.append(full.ravel())
        self.offsets.append(offsets)

    def _weights(self, w: Any) -> Any:
        """Return the weights of all taps, phase after phase."""
        if len(self.taps) > 1:
            self.taps = [np.concatenate(self.taps)]
        (order,) = self.taps
        weights = empty(order.shape, w.dtype)
        direct.gather[w.dtype](w, order, weights, alone=weights.size < FEW)
        return weights

    def run(self, x: Any, w: Any, b: Any, relu: bool) -> Any:
        """Return the image that is written."""
        bands, outputs, dtype = self.packing.bands, self.outputs, x.dtype
        filters, lanes = bands.groups * outputs.filters, lanes_of(dtype)
        weights = self._weights(flat(w))
        bias = np.zeros(filters + max(TILES), dtype)
        if b is not None:
            bias[:filters] = b
        y = empty((bands.images, filters, outputs.height, outputs.width), dtype)
        space = scratch(correlation_scratch(bands, outputs, lanes), dtype, self.alone)
        direct.correlate[dtype](
            flat(x), weights, bias, np.concatenate(self.offsets), np.array(self.phases, PHASE),
            self.packing.row_starts, self.packing.column_starts, y.reshape(-1), outputs, space,
            bands, lanes, relu, alone=self.alone,
        )  # fmt: skip
        return y


@functools.lru_cache(REMEMBERED)
def forward_plan(g: Geometry, dtype: Any) -> Correlation:
    """Return how y comes from packed x: a copy a column of the window, so rows are those of y.

    A single row needs a copy a column of the stride: nothing lies behind it.
    """
    (sh, sw), (dh, dw), (kh, kw) = g.stride, g.dilation, g.window
    (top, _), (left, _) = g.padding
    oh, ow = g.output
    residues = sorted({u * dh % sh for u in range(kh)})
    starts, shifts = [v * dw for v in range(kw)], [0] * kw
    if oh == 1:
        starts, shifts = sorted({v * dw % sw for v in range(kw)}), [v * dw // sw for v in range(kw)]
    bands = Bands(
        g.images, g.groups, g.channels, g.height, g.width, *g.stride, pitch=ow + max(shifts),
        line=ow, band=0, rows=oh, halo=(kh - 1) * dh // sh, packed=0,
    )  # fmt: skip
    row_starts, column_starts = [a - top for a in residues], [start - left for start in starts]
    packing = Packing(dtype, bands, row_starts, column_starts)
    packing.offsets = np.asarray([
        c * packing.plane
        + (starts.index(v * dw - shifts[v] * sw) * len(residues) + residues.index(u * dh % sh))
        * packing.line
        + u * dh // sh * bands.pitch
        + shifts[v]
        for c, u, v in product(range(g.channels), range(kh), range(kw))
    ], np.int64)  # fmt: skip
    plan = Correlation(packing, g.filters, g.output, True, g.is_small)
    taps = np.arange(g.groups * g.filters * packing.offsets.size)
    plan.add(taps.reshape(g.groups, g.filters, -1), packing.offsets, (0, 1), (0, 1))
    return plan


@functools.lru_cache(REMEMBERED)
def input_gradient_plan(g: Geometry, dtype: Any) -> Correlation:
    """Return how dx comes from packed dy: a phase is the pixels of one place in the stride."""
    (kh, kw), (dh, dw) = g.window, g.dilation
    rows = axis(g.height, kh, dh, g.stride[0], g.padding[0][0])
    columns = axis(g.width, kw, dw, g.stride[1], g.padding[1][0])
    pitch = columns.most + columns.reach + columns.behind
    bands = Bands(
        g.images, g.groups, g.filters, *g.output, 1, 1, pitch=pitch, line=pitch, band=0,
        rows=rows.most, halo=rows.reach + rows.behind, packed=0,
    )  # fmt: skip
    packing = Packing(dtype, bands, [rows.first - rows.reach], [columns.first - columns.reach])
    whole = g.stride == (1, 1) and (columns.reach == 0 or rows.most == 1)
    if whole:
        packing.bands = packing.bands._replace(line=columns.most)
    plan = Correlation(packing, g.channels, (g.height, g.width), whole, g.is_small)
    shape = g.groups, g.filters, g.channels, kh, kw
    index = np.arange(np.prod(shape)).reshape(shape).transpose(0, 2, 1, 3, 4)
    for a, b in product(range(g.stride[0]), range(g.stride[1])):
        us, vs = rows.shifts(a), columns.shifts(b)
        offsets = [
            k * packing.plane
            + (rows.begins(a) + rows.reach - du) * pitch
            + (columns.begins(b) + columns.reach - dv)
            for k, du, dv in product(range(g.filters), us.values(), vs.values())
        ]
        taps = index[:, :, :, list(us)][..., list(vs)].reshape(g.groups, g.channels, -1)
        places = rows.placed_inside(a), columns.placed_inside(b)
        plan.add(taps, np.asarray(offsets, np.int64), *places)
    return plan


class _Axis:
    """The rows (or columns) of x in terms of those of dy: h = q * stride + phase - before."""

    def __init__(self, size: int, window: int, dilation: int, stride: int, before: int):
        self.window, self.dilation, self.stride, self.before = window, dilation, stride, before
        self.first = before // stride
        """The first q of any phase whose h is inside the image."""
        self.count = (size - 1 + before) // stride + 1 - self.first
        self.reach = (window - 1) * dilation // stride
        """The farthest row of dy before row q that q meets."""
        firsts = [self.first + self.begins(phase) for phase in range(stride)]
        ends = [(size - 1 + before - phase) // stride + 1 for phase in range(stride)]
        self.most = max(end - first for first, end in zip(firsts, ends, strict=True))
        """The rows q of the phase that has most inside the image."""
        self.behind = max(firsts) - self.first
        """How far the first rows q of phases are apart."""

    def begins(self, phase: int) -> int:
        """Return how far behind the first q of any phase that of one is."""
        return -((phase - self.before) // self.stride) - self.first

    def shifts(self, phase: int) -> dict[int, int]:
        """Return, for the taps that meet a phase, how far before row q their row of dy is."""
        reached = {u: divmod(u * self.dilation, self.stride) for u in range(self.window)}
        return {u: shift for u, (shift, residue) in reached.items() if residue == phase}

    def placed(self, phase: int) -> tuple[int, int]:
        """Return the h of the first q, and the step."""
        return self.first * self.stride + phase - self.before, self.stride

    def placed_inside(self, phase: int) -> tuple[int, int]:
        """Return the first h inside the image, and the step."""
        return (self.first + self.begins(phase)) * self.stride + phase - self.before, self.stride


axis = functools.lru_cache(REMEMBERED)(_Axis)

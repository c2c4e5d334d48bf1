"""Direct convolution of every geometry: its tables, and the calls of the compiled loops.

All tables depend on shapes and options alone and are remembered.
"""

from __future__ import annotations

import functools
from itertools import product
from typing import Any

import numpy as np

from ..simd.tiles import TAPS
from ..simd.vectors import lanes_of
from ..toolchain.compiling import array_in, array_out, compiled_in_parts, threads, types
from ..toolchain.memory import empty
from . import direct, pointwise_plans
from .cotangents import over_images
from .direct import TILES, Bands, Phase
from .geometry import SECTIONS, Geometry, flat, with_long_rows

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
    none = np.empty(0, x.dtype)
    return _weight_gradient(geometry, x, dy, none, none)


def weights_through_relu(geometry: Geometry, x: Any, dy: Any, y: Any) -> tuple[Any, Any]:
    """Return dw and the bias gradient of a convolution with ReLU, whose value is y.

    No masked copy of dy is made, which the input gradient would need. See `masks`.
    """
    planes = np.empty(y.shape[:2], y.dtype)
    dw = _weight_gradient(geometry, x, dy, flat(y), planes.reshape(-1))
    return dw, over_images(planes)


def masks(geometry: Geometry, dtype: Any) -> bool:
    """Tell whether the weight gradient can mask on its way: if its bands are whole planes."""
    bands = forward_plan(with_long_rows(geometry), dtype).packing.bands
    return bands.band == bands.rows and not pointwise_plans.applies(geometry, dtype)


def _weight_gradient(geometry: Geometry, x: Any, dy: Any, y: Any, planes: Any) -> Any:
    dtype, lanes = x.dtype, lanes_of(x.dtype)
    packing = forward_plan(with_long_rows(geometry), dtype).packing
    bands, filters, taps = packing.bands, geometry.filters, packing.offsets.size
    tile, tap_blocks = lanes // TAPS, -(-taps // TAPS)
    offsets = np.pad(packing.offsets, (0, tap_blocks * TAPS - taps), "edge")
    units = bands.images * -(-bands.rows // bands.band)
    shape = (min(SECTIONS, units), geometry.groups, -(-filters // tile), tap_blocks, lanes)
    totals, parts = np.zeros(shape, dtype), threads()
    masked = tile * bands.rows * bands.pitch if y.size else 0
    loop(direct.weight_gradient, dtype)(
        flat(x), flat(dy), y, offsets, packing.row_starts, packing.column_starts, totals, planes,
        empty((parts * (bands.packed + masked),), dtype), bands, filters, lanes,
    )  # fmt: skip
    sums = totals.sum(axis=0).reshape(*shape[1:4], tile, TAPS)
    dw = np.swapaxes(sums, 2, 3).reshape(geometry.groups, -1, tap_blocks * TAPS)
    dw = dw[:, :filters, :taps]
    return np.ascontiguousarray(dw.reshape(-1, geometry.channels, *geometry.window))


def name_of(geometry: Geometry) -> str:
    """Return what the algorithm is called."""
    return "direct"


def applies(geometry: Geometry, dtype: Any) -> bool:
    """Tell whether direct convolution can be used: always."""
    return True


class Packing:
    """How the images of one side are packed: copies of their rows, and how bands are cut."""

    def __init__(
        self, dtype: Any, geometry: Geometry, channels: int, image: tuple[int, int],
        starts: tuple[list[int], list[int]], steps: tuple[int, int], rows: int, pitch: int,
        halo: int,
    ):  # fmt: skip
        self.row_starts, self.column_starts = (np.asarray(s, np.int64) for s in starts)
        copies = self.row_starts.size * self.column_starts.size
        row_bytes = channels * copies * pitch * dtype.itemsize
        band = min(BAND_BYTES // row_bytes - halo, -(-rows * geometry.images // SECTIONS), rows)
        band = -(-rows // -(-rows // max(1, band)))  # no shorter band at the end than need be
        self.line = (band + halo) * pitch
        self.plane = copies * self.line
        # a tile reads on behind the last row, to no effect
        packed = channels * self.plane + max(TILES.values()) * lanes_of(dtype)
        self.bands = Bands(geometry.images, geometry.groups, channels, *image, *steps, pitch, band,
                           rows, halo, packed)  # fmt: skip
        self.offsets: Any = None


class Correlation:
    """A packing, and the phases of outputs with the taps that each of them meets."""

    def __init__(self, packing: Packing, shape: tuple[int, int, int], whole: bool):
        self.packing, self.shape, self.whole = packing, shape, whole
        filters = shape[0]
        self.tile = min(TILES, key=lambda tile: (-(-filters // tile) * tile, -tile))
        self.phases: list[Phase] = []
        self.taps: list[Any] = []  # of a phase: the index of its weights (groups, filters, depth)
        self.offsets: list[Any] = []

    def add(self, taps: Any, offsets: Any, rows: tuple[int, int], columns: tuple[int, int]) -> None:
        """Add a phase; rows and columns are (start, step) in the image that is written."""
        groups, filters, depth = taps.shape
        blocks = -(-filters // self.tile)
        first_offset, first_weight = (
            sum(a.size for a in arrays) for arrays in (self.offsets, self.taps)
        )
        self.phases.append(Phase(first_offset, depth, first_weight, *rows, *columns))
        # the index of 0, which stands behind the last weight, fills the tile up
        full = np.full((groups, blocks * self.tile, depth), -1, np.int64)
        full[:, :filters] = taps
        full = full.reshape(groups, blocks, self.tile, depth).transpose(0, 1, 3, 2)
        self.taps.append(full.ravel())
        self.offsets.append(offsets)

    def run(self, x: Any, w: Any, b: Any, relu: bool) -> Any:
        """Return the image that is written."""
        bands, parts, dtype = self.packing.bands, threads(), x.dtype
        outputs = bands.groups * self.shape[0]
        weights = np.append(flat(w), dtype.type(0))[np.concatenate(self.taps)]
        bias = np.zeros(outputs + max(TILES), dtype)
        if b is not None:
            bias[:outputs] = b
        y = empty((bands.images, outputs, *self.shape[1:]), dtype)
        strip = 0
        if not self.whole:  # whole vectors are read from its rows
            strip = self.tile * bands.band * bands.pitch + lanes_of(dtype)
        loop(direct.correlate, dtype)(
            flat(x), weights, bias, np.concatenate(self.offsets), np.asarray(self.phases),
            self.packing.row_starts, self.packing.column_starts, y.reshape(-1), self.shape,
            empty((parts * (bands.packed + strip),), dtype), bands, self.tile, lanes_of(dtype),
            self.whole, relu,
        )  # fmt: skip
        return y


@functools.lru_cache(REMEMBERED)
def forward_plan(g: Geometry, dtype: Any) -> Correlation:
    """Pack x: a copy for each column of the window, so that packed rows are rows of y."""
    (sh, _), (dh, dw), (kh, kw) = g.stride, g.dilation, g.window
    (top, _), (left, _) = g.padding
    oh, ow = g.output
    residues = sorted({u * dh % sh for u in range(kh)})
    starts = [a - top for a in residues], [v * dw - left for v in range(kw)]
    packing = Packing(dtype, g, g.channels, (g.height, g.width), starts, g.stride, oh, ow,
                      (kh - 1) * dh // sh)  # fmt: skip
    packing.offsets = np.asarray([
        c * packing.plane
        + (v * len(residues) + residues.index(u * dh % sh)) * packing.line
        + u * dh // sh * ow
        for c, u, v in product(range(g.channels), range(kh), range(kw))
    ], np.int64)  # fmt: skip
    plan = Correlation(packing, (g.filters, oh, ow), whole=True)
    taps = np.arange(g.groups * g.filters * packing.offsets.size)
    plan.add(taps.reshape(g.groups, g.filters, -1), packing.offsets, (0, 1), (0, 1))
    return plan


@functools.lru_cache(REMEMBERED)
def input_gradient_plan(g: Geometry, dtype: Any) -> Correlation:
    """Pack dy once; a phase is the pixels of x whose place in the stride is the same."""
    (kh, kw), (dh, dw) = g.window, g.dilation
    rows = _axis(g.height, kh, dh, g.stride[0], g.padding[0][0])
    columns = _axis(g.width, kw, dw, g.stride[1], g.padding[1][0])
    pitch = columns.count + columns.reach
    starts = [rows.first - rows.reach], [columns.first - columns.reach]
    packing = Packing(dtype, g, g.filters, g.output, starts, (1, 1), rows.count, pitch, rows.reach)
    whole = g.stride == (1, 1) and columns.reach == 0
    plan = Correlation(packing, (g.channels, g.height, g.width), whole)
    shape = g.groups, g.filters, g.channels, kh, kw
    index = np.arange(np.prod(shape)).reshape(shape).transpose(0, 2, 1, 3, 4)
    for a, b in product(range(g.stride[0]), range(g.stride[1])):
        us, vs = rows.shifts(a), columns.shifts(b)
        offsets = [
            k * packing.plane + (rows.reach - du) * pitch + columns.reach - dv
            for k, du, dv in product(range(g.filters), us.values(), vs.values())
        ]
        taps = index[:, :, :, list(us)][..., list(vs)].reshape(g.groups, g.channels, -1)
        plan.add(taps, np.asarray(offsets, np.int64), rows.placed(a), columns.placed(b))
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

    def shifts(self, phase: int) -> dict[int, int]:
        """Return, for the taps that meet a phase, how far before row q their row of dy is."""
        reached = {u: divmod(u * self.dilation, self.stride) for u in range(self.window)}
        return {u: shift for u, (shift, residue) in reached.items() if residue == phase}

    def placed(self, phase: int) -> tuple[int, int]:
        """Return the h of the first q, and the step."""
        return self.first * self.stride + phase - self.before, self.stride


_axis = functools.lru_cache(REMEMBERED)(_Axis)


@functools.cache
def loop(function: Any, dtype: Any) -> Any:
    """Return compiled loops for a dtype."""
    kind = types.float32 if dtype == np.float32 else types.float64
    read, write = array_in(kind, 1), array_out(kind, 1)
    table, integer, yes = array_in(types.int64, 1), types.int64, types.boolean
    bands = types.NamedUniTuple(integer, len(Bands._fields), Bands)
    signature: Any = (
        read, read, read, table, array_in(integer, 2), table, table, write,
        types.UniTuple(integer, 3), write, bands, integer, integer, yes, yes,
    )  # fmt: skip
    if function is direct.weight_gradient:
        signature = (
            read, read, read, table, table, table, array_out(kind, 5), write, write, bands,
            integer, integer,
        )  # fmt: skip
    return compiled_in_parts(function, signature)

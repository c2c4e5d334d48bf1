"""Depthwise convolution, a filter for each channel: tables and sizes, and the compiled calls."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ..simd.tiles import BLOCK
from ..simd.vectors import VECTOR_BYTES, lanes_of
from ..toolchain.arguments import flat
from ..toolchain.memory import empty, scratch
from . import depthwise
from . import depthwise_planes as planes
from .depthwise import TILE, WINDOW, Outputs, Tile, Window
from .depthwise_tiles import PLANES, ROWS, STRIP, Planes
from .direct_plans import REMEMBERED, axis
from .geometry import SECTIONS, Geometry

SUMS_BYTES = 16 << 10
"""Of the sums of a block of channels."""


def forward(g: Geometry, x: Any, w: Any, b: Any, relu: bool) -> Any:
    """Return y (N, C, OH, OW)."""
    by_rows = forward_plan(g, x.dtype)
    plan = forward_by_planes(g, x.dtype) if by_planes(by_rows) else by_rows
    return plan.run(x, w, b, relu)


def input_gradient(g: Geometry, dy: Any, w: Any, winners: Any = None) -> Any:
    """Return dx (N, C, H, W)."""
    by_rows = input_gradient_plan(g, dy.dtype)
    plan = input_gradient_by_planes(g, dy.dtype) if by_planes(by_rows) else by_rows
    return plan.run(dy, w, None, False)


def weight_gradient(g: Geometry, x: Any, dy: Any, winners: Any = None) -> Any:
    """Return dw (C, 1, KH, KW)."""
    dtype, lanes, plan = x.dtype, lanes_of(x.dtype), forward_plan(g, x.dtype)
    if by_planes(plan):
        return forward_by_planes(g, dtype).weight_gradient(x, dy).reshape(-1, 1, *g.window)
    p, taps, sections = plan.planes, plan.taps.size, min(SECTIONS, g.images)
    most = max(1, SUMS_BYTES // (taps * lanes * dtype.itemsize))
    block = min(most, max(1, sections * g.groups // SECTIONS))
    totals = np.zeros((sections, g.groups, taps))
    depthwise.weight_gradient[dtype, type(p)](
        flat(x), plan.zeros, flat(dy), plan.offsets, plan.masks, plan.chunks,
        Window(*plan.windows[0].tolist()), plan.tiles, totals.reshape(-1),
        scratch(block * taps * lanes, dtype), p, plan.outputs, sections, block, taps, lanes,
    )  # fmt: skip
    dw = np.empty((g.groups, taps), dtype)
    dw[:, plan.taps] = totals.sum(axis=0)
    return dw.reshape(-1, 1, *g.window)


def name_of(g: Geometry) -> str:
    """Return what the algorithm is called."""
    return "depthwise"


def applies(g: Geometry, dtype: Any) -> bool:
    """Return whether the algorithm can be used: for a filter a channel, and strides of 1 and 2.

    The taps of a window are summed one after the other, so there may be a block of them at most.
    """
    one = g.groups > 1 and (g.channels, g.filters) == (1, 1)
    return one and max(g.stride) <= 2 and math.prod(g.window) <= BLOCK


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _word(mask: Any) -> int:
    """Return a mask as the bits of an integer."""
    return int(np.sum(1 << np.flatnonzero(mask)))


class Plan:
    """Tables: tiles of outputs, and the windows that they meet.

    Tiles go through a grid of rows: the outputs, or for an input gradient the pixels of one place
    in the stride. Every ``apart``-th row goes into a tile, so that its rows share rows of pixels.
    """

    def __init__(self, dtype: Any, planes: Planes, outputs: Outputs, apart: int):
        (cls,) = (cls for cls in PLANES if planes.column_step == cls.STEP)
        self.planes, self.outputs = cls(*planes), outputs
        self.apart, self.lanes = apart, lanes_of(dtype)
        self.zeros = np.zeros(2 * self.lanes, dtype)
        self._masks: list[int] = []
        for first in range(0, outputs.columns, self.lanes):
            there = np.arange(self.lanes) < outputs.columns - first
            self._masks += [_word(there), 0]
        self._offsets: list[int] = []
        self._chunks: list[tuple[int, int]] = []
        self._taps: list[int] = []
        self._windows: list[Window] = []
        self._tiles: list[Tile] = []

    def add_window(
        self, rows: Sequence[Sequence[tuple[int, int]]], columns: Sequence[tuple[int, int]],
        width: int,
    ) -> int:  # fmt: skip
        """Add taps, of these rows and columns of a window so wide, and return their number.

        Each is (its number, how far from the first pixel it meets one). Of rows in a sequence, each
        meets what a tile's next row has met by the one before.
        """
        chunks = [
            chain[len(chain) * i // parts : len(chain) * (i + 1) // parts]
            for chain in rows
            for parts in [-(-len(chain) // STRIP)]
            for i in range(parts)
        ]
        self._windows.append(Window(
            len(self._offsets), len(columns), len(self._masks) // 2, len(self._chunks), len(chunks),
            len(self._taps),
        ))  # fmt: skip
        for first in range(0, self.outputs.columns, self.lanes):
            for _, offset in columns:
                self._masks += self._met(first, offset)
        self._offsets += [offset for _, offset in columns]
        self._chunks += [(chunk[0][1], len(chunk)) for chunk in chunks]
        self._taps += [
            u * width + v for chunk in chunks for (v, _), (u, _) in product(columns, chunk)
        ]
        return len(self._windows) - 1

    def _met(self, first: int, offset: int) -> list[int]:
        """Return the masks of the loads of the pixels that outputs from ``first`` on meet."""
        p, step = self.planes, self.planes.column_step
        lane = np.arange(2 * self.lanes)
        column, output = p.column_start + first * step + offset + lane, first + lane // step
        met = (column >= 0) & (column < p.width) & (lane % step == 0)
        met &= output < self.outputs.columns
        return [_word(half) for half in np.split(met, 2)]

    def add_rows(self, rows: range, start: int, output: range, window: int) -> None:
        """Add tiles of some rows of the grid; ``output`` are the rows that are written.

        Row i meets pixels from row ``start`` + i times the row step on.
        """
        step = self.planes.row_step // self.apart
        for first in range(min(self.apart, len(rows))):
            mine = rows[first :: self.apart]
            count = -(-len(mine) // ROWS)
            for i in range(count):
                part = mine[len(mine) * i // count : len(mine) * (i + 1) // count]
                row, place = start + part[0] * step, output[part[0] - rows[0]] * self.outputs.width
                self._tiles.append(Tile(row, place, len(part), window))

    def finished(self) -> Plan:
        """Return the plan with its tables as arrays."""
        self.offsets, self.taps = (np.array(a, np.int64) for a in (self._offsets, self._taps))
        self.masks = np.array(self._masks, np.int64)
        self.chunks = np.array(self._chunks, np.int64).reshape(-1)
        self.windows, self.tiles = np.array(self._windows, WINDOW), np.array(self._tiles, TILE)
        return self

    def run(self, x: Any, w: Any, b: Any, relu: bool) -> Any:
        """Return the image that is written."""
        p, out, dtype, lanes = self.planes, self.outputs, x.dtype, lanes_of(x.dtype)
        bias = np.zeros(p.channels, dtype) if b is None else flat(b)
        weights = flat(w).reshape(p.channels, -1)[:, self.taps]
        y = empty((p.images, p.channels, out.pixels // out.width, out.width), dtype)
        cuts = max(1, min(self.tiles.size, SECTIONS // max(1, p.images * p.channels)))
        depthwise.correlate[dtype, type(p)](
            flat(x), self.zeros, flat(weights), bias, self.offsets, self.masks, self.chunks,
            self.windows, self.tiles,
            y.reshape(-1), scratch(2 * ROWS * lanes, dtype), p, out, cuts,
            self.taps.size, lanes, relu,
        )  # fmt: skip
        return y


@functools.lru_cache(REMEMBERED)
def forward_plan(g: Geometry, dtype: Any) -> Plan:
    """Return how y comes from x."""
    (sh, sw), (dh, dw), (kh, kw) = g.stride, g.dilation, g.window
    (top, _), (left, _) = g.padding
    oh, ow = g.output
    apart, each = dh // math.gcd(dh, sh), sh // math.gcd(dh, sh)
    sizes = Planes(g.images, g.groups, g.height, g.width, apart * sh, sw, -left)
    plan = Plan(dtype, sizes, Outputs(ow, oh * ow, ow, apart * ow, 1, 0), apart)
    rows = [[(u, u * dh) for u in range(a, kh, each)] for a in range(min(each, kh))]
    window = plan.add_window(rows, [(v, v * dw) for v in range(kw)], kw)
    plan.add_rows(range(oh), -top, range(oh), window)
    return plan.finished()


@functools.lru_cache(REMEMBERED)
def input_gradient_plan(g: Geometry, dtype: Any) -> Plan:
    """Return how dx comes from dy: pixels of one place in the stride after the other."""
    (sh, sw), (dh, dw), (kh, kw) = g.stride, g.dilation, g.window
    rows = axis(g.height, kh, dh, sh, g.padding[0][0])
    columns = axis(g.width, kw, dw, sw, g.padding[1][0])
    apart, width = dh // math.gcd(dh, sh), g.width
    sizes = Planes(g.images, g.groups, *g.output, apart, 1, columns.first)
    outputs = Outputs(
        columns.count, g.height * width, width, apart * sh * width, sw, columns.placed(0)[0]
    )
    plan = Plan(dtype, sizes, outputs, apart)
    for a in range(sh):
        us, (start, _) = rows.shifts(a), rows.placed(a)
        met = [[(u, -n) for u, n in reversed(us.items())]] if us else []
        window, *_ = (
            plan.add_window(met, [(v, -n) for v, n in columns.shifts(b).items()], kw)
            for b in range(sw)
        )
        first, last = max(0, -(start // sh)), min(rows.count, (g.height - 1 - start) // sh + 1)
        inside = range(first, last)
        output = range(start + first * sh, g.height, sh)
        plan.add_rows(inside, rows.first, output, window)
    return plan.finished()


# --- by planes ------------------------------------------------------------------------------------

PLANES_BYTES = 512 << 10
"""What the planes of a vector's channels may take: half of a second-level cache."""


LINE = 64
"""Bytes of a line of the cache."""


class PlanePlan(NamedTuple):
    """Tables of a convolution by planes."""

    sizes: planes.Sizes
    height: int
    width: int
    """Of the image that is written."""
    places: Any
    offsets: Any
    taps: Any
    """The order of the taps."""
    phases: Any

    def run(self, x: Any, w: Any, b: Any, relu: bool) -> Any:
        """Return the image that is written."""
        s, dtype, lanes = self.sizes, x.dtype, lanes_of(x.dtype)
        channels = self.channels(lanes)
        weights = w.reshape(s.channels, -1)[channels][:, :, self.taps].swapaxes(1, 2)
        bias = np.zeros(channels.shape, dtype) if b is None else b[channels]
        y = empty((s.images, s.channels, self.height, self.width), dtype)
        planes.correlate[dtype](
            flat(x), flat(weights), flat(bias), self.offsets, self.places, self.phases,
            y.reshape(-1), _aligned(planes.scratch_of(s, lanes), dtype), s, self.taps.size, lanes,
            relu,
        )  # fmt: skip
        return y

    def weight_gradient(self, x: Any, dy: Any) -> Any:
        """Return dw (channels, taps), of the only phase of a convolution."""
        s, dtype, lanes = self.sizes, x.dtype, lanes_of(x.dtype)
        taps = self.taps.size
        padded = _up(taps, planes.TAPS)
        sections, channels = min(SECTIONS, s.images), self.channels(lanes)
        totals = np.zeros((sections, len(channels), padded, lanes))
        planes.weight_gradient[dtype](
            flat(x), flat(dy), np.pad(self.offsets, (0, padded - taps), "edge"), self.places,
            np.arange(s.outputs + lanes) * lanes, planes.Phase(*self.phases[0].tolist()),
            totals.reshape(-1), _aligned(planes.gradient_scratch(s, padded, lanes), dtype), s,
            sections, padded, lanes,
        )  # fmt: skip
        dw = np.empty((s.channels, taps), dtype)
        dw[channels] = totals.sum(axis=0)[:, :taps].swapaxes(1, 2)
        return dw

    def channels(self, lanes: int) -> Any:
        """Return the channels of each block of as many as lanes; the last one overlaps."""
        channels = np.arange(0, self.sizes.channels, lanes)[:, None] + np.arange(lanes)
        channels[-1] += self.sizes.channels - 1 - channels[-1, -1]
        return channels


def _aligned(size: int, dtype: Any) -> Any:
    """Return scratch memory that begins with a line of the cache, since vectors are that long."""
    space = scratch(size + LINE // dtype.itemsize, dtype)
    return space[-space.ctypes.data % LINE // dtype.itemsize :]


def by_planes(plan: Plan) -> bool:
    """Return whether lanes are better channels: by cycles, fitted to measured times.

    The planes must not be too long to be kept in a cache.
    """
    p, out, lanes = plan.planes, plan.outputs, plan.lanes
    pixels = p.height * p.width + out.pixels
    if p.channels < lanes or pixels * VECTOR_BYTES > PLANES_BYTES:
        return False
    taps = plan.taps.size / len(plan.windows)
    loads = -(-out.columns // lanes) * p.column_step * out.column_step
    rows = 30 + out.pixels // out.width * loads * (9 + 0.75 * taps)
    return bool((7 * pixels + out.pixels * (3 + 0.52 * taps)) / lanes < rows)


def _plane_plan(
    g: Geometry, dtype: Any, image: tuple[int, int], before: tuple[int, int],
    padded: tuple[int, int], written: tuple[int, int], phases: list[Any],
) -> PlanePlan:  # fmt: skip
    """Return the plan for images with so many zeros before, and for phases of outputs.

    A phase is (the ranges of rows and columns in work space, those in the image that is written,
    its taps as (number, row, column)).
    """
    lanes, pitch = lanes_of(dtype), padded[1]
    rows, columns = (np.arange(n) + first for n, first in zip(image, before, strict=True))
    places = ((rows[:, None] * pitch + columns) * lanes).reshape(-1)
    offsets: list[int] = []
    taps: list[int] = []
    records: list[planes.Phase] = []
    for (down, across), (out_down, out_across), met in phases:
        met = sorted(met, key=lambda tap: tap[1:])
        run = _run(met) if across.step == 1 else 1
        records.append(planes.Phase(
            len(down), len(across), (down.start * pitch + across.start) * lanes,
            down.step * pitch * lanes, across.step * lanes,
            (out_down.start * written[1] + out_across.start) * lanes,
            out_down.step * written[1] * lanes, out_across.step * lanes, len(taps), len(met),
            run,
        ))  # fmt: skip
        offsets += [(u * pitch + v) * lanes for _, u, v in met]
        taps += [number for number, _, _ in met]
    end, most = math.prod(padded) * lanes, max(record.across for record in records) * planes.TILE
    sizes = planes.Sizes(g.images, g.groups, math.prod(image), end + most, math.prod(written))
    return PlanePlan(
        sizes, *written, np.pad(places, (0, lanes), constant_values=end),
        np.array(offsets, np.int64), np.array(taps, np.int64), np.array(records, planes.PHASE),
    )  # fmt: skip


def _run(taps: list[tuple[int, int, int]]) -> int:
    """Return how many taps (number, row, column) lie side by side, of `RUNS`: in every row."""
    for run in planes.RUNS:
        starts = taps[::run]
        met = [(u, v + i) for _, u, v in starts for i in range(run)]
        if met == [(u, v) for _, u, v in taps]:
            return run
    return 1


@functools.lru_cache(REMEMBERED)
def forward_by_planes(g: Geometry, dtype: Any) -> PlanePlan:
    """Return how y comes from x."""
    axes = zip(g.output, g.stride, g.dilation, g.window, strict=True)
    needed = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in axes]
    before = g.padding[0][0], g.padding[1][0]
    image, (kh, kw), (dh, dw) = (g.height, g.width), g.window, g.dilation
    padded = [max(n, b + i) for n, b, i in zip(needed, before, image, strict=True)]
    met = [(u * kw + v, u * dh, v * dw) for u, v in product(range(kh), range(kw))]
    read = tuple(range(0, n * s, s) for n, s in zip(g.output, g.stride, strict=True))
    phase = read, tuple(map(range, g.output)), met
    return _plane_plan(g, dtype, image, before, (padded[0], padded[1]), g.output, [phase])


@functools.lru_cache(REMEMBERED)
def input_gradient_by_planes(g: Geometry, dtype: Any) -> PlanePlan:
    """Return how dx comes from dy: pixels of one place in the stride after the other."""
    (sh, sw), (kh, kw) = g.stride, g.window
    down = axis(g.height, kh, g.dilation[0], sh, g.padding[0][0])
    across = axis(g.width, kw, g.dilation[1], sw, g.padding[1][0])
    before = max(0, down.reach - down.first), max(0, across.reach - across.first)
    padded = (
        before[0] + max(g.output[0], down.first + down.count),
        before[1] + max(g.output[1], across.first + across.count),
    )
    phases = []
    for a, b in product(range(sh), range(sw)):
        met = [
            (u * kw + v, -m, -n)
            for (u, m), (v, n) in product(down.shifts(a).items(), across.shifts(b).items())
        ]
        rows = _phase(down, a, g.height, before[0])
        columns = _phase(across, b, g.width, before[1])
        phases.append(((rows[0], columns[0]), (rows[1], columns[1]), met))
    return _plane_plan(g, dtype, g.output, before, padded, (g.height, g.width), phases)


def _phase(one: Any, phase: int, size: int, before: int) -> tuple[range, range]:
    """Return the rows (or columns) of a phase: in work space, and in the image that is written."""
    start, step = one.placed(phase)
    first, last = max(0, -(start // step)), min(one.count, (size - 1 - start) // step + 1)
    read = range(before + one.first + first, before + one.first + max(first, last))
    return read, range(start + first * step, start + first * step + len(read) * step, step)

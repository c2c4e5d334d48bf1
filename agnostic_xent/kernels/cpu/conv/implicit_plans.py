"""Convolution as a product of matrices that are never written: its tables, and the calls.

All tables depend on shapes and options alone and are remembered.
"""

from __future__ import annotations

import functools
import math
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ..simd.elements import FEW
from ..simd.vectors import VECTOR_BYTES, lanes_of
from ..toolchain.arguments import flat
from ..toolchain.memory import empty, scratch
from . import implicit
from .direct_plans import REMEMBERED, axis
from .geometry import SECTIONS, Geometry, with_long_rows
from .implicit import PHASE, TILES, Outputs, Phase, Units, panels_of, units_of

PANELS = {4: 1.0, 3: 1.0, 2: 1.05, 1: 1.3} if VECTOR_BYTES == 64 else {2: 1.0, 1: 1.3}
"""Vectors of a panel -> the time of one, in that of the fastest; 6 x 4 sums need 32 registers."""

PIXELS, FEWEST = 192, 48
"""Outputs of a unit: so many share what is read of the weights, and fewer than these only where
else there would be no second unit."""

UNIT_BYTES = 384 << 10
"""What a packed unit may take: less than half of a second-level cache."""

MOST_TOTALS = 1 << 17
"""Weights up to which each section of the images has sums of its own; more are shared out."""

FEW_WEIGHTS = 1 << 15
"""Numbers that one thread lays out before another one would have begun."""

FEWER_TAPS, FEWEST_OF_ROW = 0.85, 6
"""Share of the taps below which rows of outputs have their own, and outputs that these need."""

SAME_SET, FEW_PLANES = 256, 8
"""Numbers whose multiples meet in few sets of a cache, and how many planes there is room for."""

MOST_TAPS, MOST_PIXELS = 1 << 13, 1 << 15
"""Of a sum, whose error grows with the number of blocks that are added in order: more pixels are
sums of their own, and for more taps there is direct convolution."""


def forward(geometry: Geometry, x: Any, w: Any, b: Any, relu: bool) -> Any:
    """Return y (N, K, OH, OW)."""
    g = with_long_rows(geometry, PIXELS)
    plan = forward_by_rows if by_rows(g, False) else forward_plan
    y = plan(g, x.dtype).run(x, w, b, relu)
    return y.reshape(*y.shape[:2], *geometry.output)


def input_gradient(geometry: Geometry, dy: Any, w: Any, winners: Any = None) -> Any:
    """Return dx (N, C, H, W), as direct convolution does where something is not finite."""
    g = with_long_rows(geometry, PIXELS)
    plan = input_gradient_by_rows if by_rows(g, True) else input_gradient_plan
    dx = plan(g, dy.dtype).run(dy, w, None, False)
    return dx.reshape(*dx.shape[:2], geometry.height, geometry.width)


def weight_gradient(geometry: Geometry, x: Any, dy: Any, winners: Any = None) -> Any:
    """Return dw (K, C / groups, KH, KW)."""
    dtype, lanes = x.dtype, lanes_of(x.dtype)
    plan = forward_plan(with_long_rows(geometry, PIXELS), dtype)
    t, outputs, panels = plan.units, plan.outputs, panels_of(plan.outputs)
    taps = geometry.channels * math.prod(geometry.window)
    many = t.groups * outputs.filters * taps > MOST_TOTALS
    sections = -(-SECTIONS // (panels * t.groups)) if many else SECTIONS
    sections = max(sections, -(-t.images * t.rows * t.columns // MOST_PIXELS))
    sections = min(units_of(t), sections)
    outputs = outputs._replace(shares=_shares(panels, sections * t.groups))
    rows = TILES[outputs.panel // lanes]
    totals = empty((sections, t.groups, panels, -(-taps // rows) * rows, outputs.panel), dtype)
    space = scratch(implicit.gradient_scratch(t, outputs, lanes), dtype, plan.alone)
    x = flat(x)
    implicit.weight_gradient[dtype](
        x, plan.source(x, space), flat(dy), np.zeros(outputs.panel, dtype), plan.places, plan.steps,
        plan.row_starts, plan.column_starts, totals, space, t, outputs, lanes, alone=plan.alone,
    )  # fmt: skip
    dw = empty((t.groups * outputs.filters, geometry.channels, *geometry.window), dtype)
    few = totals.size < FEW
    implicit.finish[dtype](totals, dw.reshape(-1), taps, outputs.filters, lanes, alone=few)
    return dw


def name_of(geometry: Geometry) -> str:
    """Return what the algorithm is called."""
    return "implicit product"


def applies(geometry: Geometry, dtype: Any) -> bool:
    """Return whether the sums are short enough."""
    met = (-(-k // s) for k, s in zip(geometry.window, geometry.stride, strict=True))
    back, taps = geometry.filters * math.prod(met), geometry.channels * math.prod(geometry.window)
    return max(back, taps) <= MOST_TAPS


class Window(NamedTuple):
    """Which rows of an image the rows of the window meet, for each row of outputs."""

    firsts: range
    """The row that the first one of the window meets, or what would be there."""
    apart: int
    """From one row of the window to the next."""
    size: int
    height: int

    def inside(self, first: int) -> range:
        """Return the rows of the window that meet one of the image."""
        met = [u for u in range(self.size) if 0 <= first + u * self.apart < self.height]
        return range(met[0], met[-1] + 1) if met else range(0)

    @property
    def share(self) -> float:
        """Of all rows of the window, those that meet one of the image."""
        met = sum(len(self.inside(first)) for first in self.firsts)
        return met / (len(self.firsts) * self.size)


def window_of(g: Geometry, backward: bool) -> Window:
    """Return how windows meet rows: those of x, or backward with stride 1 those of dy."""
    (oh, _), top = g.output, g.padding[0][0]
    if backward:
        return Window(range(top, top + g.height), -g.dilation[0], g.window[0], oh)
    firsts = range(-top, oh * g.stride[0] - top, g.stride[0])
    return Window(firsts, g.dilation[0], g.window[0], g.height)


@functools.lru_cache(REMEMBERED)
def by_rows(g: Geometry, backward: bool) -> bool:
    """Return whether each row of outputs has taps of its own: if many others meet zeros alone.

    Rows of several images make up for short ones.
    """
    if backward and g.stride != (1, 1):
        return False
    pixels = g.images * (g.width if backward else g.output[1])
    return pixels >= FEWEST_OF_ROW and window_of(g, backward).share < FEWER_TAPS


def panel_of(filters: int, lanes: int) -> int:
    """Return the vectors of a panel that is best for so many filters."""
    vectors = -(-filters // lanes)
    return min(PANELS, key=lambda wide: -(-vectors // wide) * wide * PANELS[wide])


def _shares(panels: int, units: int) -> int:
    """Return into how many equal parts the panels are cut, for `SECTIONS` parts of the work."""
    wanted = min(panels, -(-SECTIONS // units))
    return next(shares for shares in range(wanted, panels + 1) if panels % shares == 0)


class Axis(NamedTuple):
    """How rows, or columns, are packed: every ``step``-th from each start on."""

    starts: list[int]
    step: int
    between: int
    """Packed rows from one output to the next."""
    reach: int
    """Packed rows that an output meets, before its last one."""
    taps: list[tuple[int, int]]
    """Of each: which copy it meets, and at which row of it."""

    def packed(self, outputs: int) -> int:
        """Return how many rows so many outputs meet."""
        return (outputs - 1) * self.between + self.reach + 1


def _axis_of(window: int, dilation: int, stride: int, before: int) -> Axis:
    """Return one copy of all rows, or if some are not needed one for each phase that is."""
    met = [u * dilation for u in range(window)]
    phases = sorted({row % stride for row in met})
    if len(phases) == stride:
        return Axis([-before], 1, stride, met[-1], [(0, row) for row in met])
    taps = [(phases.index(row % stride), row // stride) for row in met]
    return Axis([phase - before for phase in phases], stride, 1, met[-1] // stride, taps)


class Correlation:
    """Tables of a pass: where outputs and taps lie in packed images, and how work is cut."""

    def __init__(
        self, dtype: Any, images: tuple[int, ...], stride: tuple[int, int], rows: Axis,
        columns: Axis, count: tuple[int, int], outputs: Outputs, alone: bool,
    ):  # fmt: skip
        """``images`` are (images, groups, channels, height, width), ``count`` the outputs."""
        lanes, self.alone = lanes_of(dtype), alone
        panel = panel_of(outputs.filters, lanes) * lanes
        self.row_starts = np.asarray(rows.starts, np.int64)
        self.column_starts = np.asarray(columns.starts, np.int64)
        self.axes, outputs = (rows, columns), outputs._replace(panel=panel)
        n, groups, channels, height, width = images
        t = Units(
            n, groups, channels, height, width, rows.step, columns.step, 0, 0, 0, 0, False, 1, 1,
            count[1], *stride, *count,
        )  # fmt: skip
        self.units = self._packed(self._cut(t, panels_of(outputs), dtype.itemsize))
        shares = _shares(panels_of(outputs), units_of(self.units) * t.groups)
        self.outputs = outputs._replace(shares=shares)
        self.places = self._places()
        self.phases: list[Phase] = []
        self.steps = np.empty(0, np.int64)
        self.lines, self.in_order = self.steps, outputs.whole
        self.weight_steps = 0, 0, 0, 0

    def _packed(self, t: Units) -> Units:
        """Return the sizes of packed images."""
        rows, pitch = self.axes[0].packed(t.band), self.axes[1].packed(t.span)
        if self._in_place(t):
            size = t.height * t.width
            return t._replace(
                packed_rows=rows, pitch=t.width, plane=size, image=t.groups * t.channels * size,
                in_place=True,
            )  # fmt: skip
        copies = self.row_starts.size * self.column_starts.size
        # channels must not all lie in the same few sets of a cache
        pitch += copies * rows * pitch % 64 == 0
        plane = copies * rows * pitch
        return t._replace(packed_rows=rows, pitch=pitch, plane=plane, image=t.channels * plane)

    def _in_place(self, t: Units) -> bool:
        """Return whether nothing has to be packed: no margins, and channels in many sets."""
        rows, columns = self.axes
        whole = rows.starts == columns.starts == [0] and rows.step == columns.step == 1
        inside = rows.packed(t.rows) <= t.height and columns.packed(t.columns) <= t.width
        apart = t.channels <= FEW_PLANES or t.height * t.width % SAME_SET != 0
        return whole and inside and apart

    def _cut(self, t: Units, panels: int, itemsize: int) -> Units:
        """Return the sizes with the images, the rows and the columns of a unit."""

        def fits(together: int, band: int) -> bool:
            rows = self.axes[0].packed(band) * self.row_starts.size
            read = rows * self.axes[1].packed(t.columns) * self.column_starts.size
            return together * t.channels * read * itemsize <= UNIT_BYTES

        everything = t.images * t.rows * t.columns * t.groups
        shared = everything // SECTIONS if panels < SECTIONS else everything
        fewest = FEWEST if everything * panels >= 4 * FEWEST else FEWEST // 3
        pixels = min(PIXELS, max(fewest, shared))
        if pixels < t.columns:
            return t._replace(span=-(-t.columns // -(-t.columns // pixels)))
        band = min(t.rows, pixels // t.columns)
        while band > 1 and not fits(1, band):
            band -= 1
        band = -(-t.rows // -(-t.rows // band))  # no shorter band at the end than need be
        together = min(t.images, max(1, pixels // (t.rows * t.columns))) if band == t.rows else 1
        while together > 1 and not fits(together, band):
            together -= 1
        return t._replace(together=-(-t.images // -(-t.images // together)), band=band)

    def _places(self) -> Any:
        """Return where the outputs of a unit lie."""
        t, (rows, columns) = self.units, self.axes
        i, r, c = np.ix_(range(t.together), range(t.band), range(t.span))
        places = i * t.image + r * rows.between * t.pitch + c * columns.between
        return places.reshape(-1).astype(np.int64)

    def add(
        self, channels: int, rows: Any, columns: Any,
        row_place: tuple[int, int] = (0, 1), column_place: tuple[int, int] = (0, 1),
    ) -> None:  # fmt: skip
        """Add a phase: its taps are (copy, row) and (copy, column) of each channel.

        Places are (start, step) in what is written.
        """
        t, copies = self.units, self.row_starts.size
        steps = [
            c * t.plane + ((v * copies + u) * t.packed_rows + row) * t.pitch + column
            for c, (u, row), (v, column) in product(range(channels), rows, columns)
        ]
        self.phases.append(Phase(self.steps.size, len(steps), 0, *row_place, *column_place))
        self.steps = np.append(self.steps, np.asarray(steps, np.int64))

    def add_rows(self, channels: int, window: Window, columns: Any) -> None:
        """Add a phase for each row of outputs, of the taps that meet a row of the image.

        All share the steps and the weights of the taps, which come in order of rows.
        """
        t, size = self.units, channels * len(columns)
        self.steps = np.asarray([
            c * t.plane + (u * window.apart + copy * t.packed_rows) * t.pitch + column
            for u, c, (copy, column) in product(range(window.size), range(channels), columns)
        ], np.int64)  # fmt: skip
        for i, first in enumerate(window.firsts):
            met = window.inside(first)
            self.phases.append(
                Phase(met.start * size, len(met) * size, first * t.pitch, i, 1, 0, 1)
            )
        index = np.arange(self.steps.size).reshape(window.size, channels, -1)
        self.lines, self.in_order = index.swapaxes(0, 1).reshape(-1), False

    def source(self, x: Any, space: Any) -> Any:
        """Return what pixels are read from."""
        return x if self.units.in_place else space

    def run(self, x: Any, w: Any, b: Any, relu: bool) -> Any:
        """Return the image that is written."""
        t, outputs, dtype, lanes = self.units, self.outputs, x.dtype, lanes_of(x.dtype)
        filters, panel = t.groups * outputs.filters, outputs.panel
        weights = empty((t.groups * panels_of(outputs) * self.steps.size * panel,), dtype)
        alone = weights.size < FEW_WEIGHTS
        space = scratch(implicit.CHUNK * panel, dtype, alone)
        implicit.lay_out[dtype](
            flat(w), self.lines, weights, space, t.groups, outputs.filters, panel, self.in_order,
            *self.weight_steps, lanes, alone=alone,
        )  # fmt: skip
        bias = np.zeros(filters + panel, dtype)
        if b is not None:
            bias[:filters] = b
        y = empty((t.images, filters, outputs.height, outputs.width), dtype)
        space = scratch(implicit.correlation_scratch(t, outputs, lanes), dtype, self.alone)
        x = flat(x)
        implicit.correlate[dtype](
            x, self.source(x, space), weights, bias, self.places, self.steps,
            np.array(self.phases, PHASE), self.row_starts, self.column_starts, y.reshape(-1),
            space, t, outputs, lanes, relu, alone=self.alone,
        )  # fmt: skip
        return y


@functools.lru_cache(REMEMBERED)
def forward_plan(g: Geometry, dtype: Any) -> Correlation:
    """Return how y comes from packed x."""
    rows, columns = (
        _axis_of(window, dilation, stride, before)
        for window, dilation, stride, (before, _) in zip(
            g.window, g.dilation, g.stride, g.padding, strict=True
        )
    )
    images = g.images, g.groups, g.channels, g.height, g.width
    outputs = Outputs(g.filters, *g.output, 0, 1, True)
    plan = Correlation(dtype, images, g.stride, rows, columns, g.output, outputs, g.is_small)
    depth = g.channels * math.prod(g.window)
    plan.add(g.channels, rows.taps, columns.taps)
    plan.lines, plan.weight_steps = np.arange(depth), (depth, g.filters * depth, 0, depth)
    return plan


@functools.lru_cache(REMEMBERED)
def input_gradient_plan(g: Geometry, dtype: Any) -> Correlation:
    """Return how dx comes from packed dy: a phase is the pixels of one place in the stride."""
    (kh, kw), (dh, dw), taps = g.window, g.dilation, math.prod(g.window)
    by_row = axis(g.height, kh, dh, g.stride[0], g.padding[0][0])
    by_column = axis(g.width, kw, dw, g.stride[1], g.padding[1][0])
    rows, columns = (
        Axis([a.first - a.reach], 1, 1, a.reach + a.behind, []) for a in (by_row, by_column)
    )
    images, count = (g.images, g.groups, g.filters, *g.output), (by_row.most, by_column.most)
    outputs = Outputs(g.channels, g.height, g.width, 0, 1, g.stride == (1, 1))
    plan = Correlation(dtype, images, (1, 1), rows, columns, count, outputs, g.is_small)
    index = np.arange(g.filters * taps).reshape(g.filters, kh, kw)
    order = []
    for a, b in product(range(g.stride[0]), range(g.stride[1])):
        us, vs = by_row.shifts(a), by_column.shifts(b)
        met_rows = [(0, by_row.begins(a) + by_row.reach - d) for d in us.values()]
        met_columns = [(0, by_column.begins(b) + by_column.reach - d) for d in vs.values()]
        places = by_row.placed_inside(a), by_column.placed_inside(b)
        plan.add(g.filters, met_rows, met_columns, *places)
        order.append(index[:, list(us)][..., list(vs)].reshape(-1))
    plan.lines = np.argsort(np.concatenate(order))
    plan.weight_steps = taps, g.filters * g.channels * taps, g.channels * taps, taps
    return plan


def _whole(rows: int) -> Axis:
    """Return how all rows of an image are packed, for outputs that need not be told apart."""
    return Axis([0], 1, 0, rows - 1, [])


@functools.lru_cache(REMEMBERED)
def forward_by_rows(g: Geometry, dtype: Any) -> Correlation:
    """Return how y comes from x, a phase for each row of outputs."""
    columns = _axis_of(g.window[1], g.dilation[1], g.stride[1], g.padding[1][0])
    images, depth = (g.images, g.groups, g.channels, g.height, g.width), math.prod(g.window)
    depth *= g.channels
    outputs = Outputs(g.filters, *g.output, 0, 1, True)
    plan = Correlation(
        dtype, images, (1, g.stride[1]), _whole(g.height), columns, (1, g.output[1]), outputs,
        g.is_small,
    )  # fmt: skip
    plan.add_rows(g.channels, window_of(g, False), columns.taps)
    plan.weight_steps = depth, g.filters * depth, 0, depth
    return plan


@functools.lru_cache(REMEMBERED)
def input_gradient_by_rows(g: Geometry, dtype: Any) -> Correlation:
    """Return how dx comes from dy with stride 1, a phase for each row of pixels."""
    (oh, ow), taps = g.output, math.prod(g.window)
    by_column = axis(g.width, g.window[1], g.dilation[1], 1, g.padding[1][0])
    columns = Axis([by_column.first - by_column.reach], 1, 1, by_column.reach, [])
    images = g.images, g.groups, g.filters, oh, ow
    outputs = Outputs(g.channels, g.height, g.width, 0, 1, True)
    plan = Correlation(
        dtype, images, (1, 1), _whole(oh), columns, (1, g.width), outputs, g.is_small
    )
    met = [(0, by_column.reach - v) for v in by_column.shifts(0).values()]
    plan.add_rows(g.filters, window_of(g, True), met)
    plan.weight_steps = taps, g.filters * g.channels * taps, g.channels * taps, taps
    return plan

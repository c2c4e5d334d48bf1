"""The kernels of the pools: from normalised arguments to compiled loops and back."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ....core.geometry import Margins, Pair, output_size
from ....core.operation import OPERATIONS, Implementation, Pullback
from ....operations.pooling import window_counts
from ...shapes import of_signals, of_volumes
from ..simd.elements import SMALL
from ..simd.vectors import lanes_of
from ..toolchain.arguments import flat, why_not
from ..toolchain.memory import empty, scratch
from . import loops
from .windows import MET, Windows, classified, rows_of_numbers, space_of


@functools.lru_cache
def windows(
    image: Pair, lanes: int, window: Pair, stride: Pair, padding: Margins, dilation: Pair = (1, 1)
) -> tuple[Windows, Pair]:
    """Return the geometry as the loops for vectors of so many lanes take it, and (OH, OW)."""
    oh, ow = output_size(image, window, stride=stride, padding=padding, dilation=dilation)
    starts = -padding[0][0], -padding[1][0]
    w = Windows(*image, oh, ow, *window, *stride, *dilation, *starts)
    return classified(w, lanes), (oh, ow)


@functools.lru_cache
def counts_of(w: Windows, image: Pair, dtype: Any, **options: Any) -> Any:
    """Return how many pixels count in each window of a plane, as the loops take them."""
    counts = window_counts(np.empty((0, 0, *image), dtype), **options)
    return np.resize(counts, w.rows * w.columns)


@functools.lru_cache
def met_pixels(w: Windows) -> Any:
    """Return which pixels the window of each output of a plane meets, as `MET`."""
    h, down, u = _inside(w.height, w.rows, w.down, w.step_down, w.apart_down, w.top)
    c, across, v = _inside(w.width, w.columns, w.across, w.step_across, w.apart_across, w.left)
    met = np.empty((w.rows, w.columns), MET)
    met["pixel"] = h[:, None] * w.width + c
    met["down"], met["across"] = down[:, None], across
    any_met = down[:, None] * across > 0
    met["tap"] = np.where(any_met, u[:, None] * w.across + v, w.down * w.across)
    return met.reshape(-1)


def _inside(
    size: int, outputs: int, taps: int, step: int, apart: int, before: int
) -> tuple[Any, Any, Any]:
    """Return, along an axis, the first pixel met, the number of taps inside, and the first."""
    start = np.arange(outputs) * step + before
    first = np.maximum(0, -(start // apart))
    count = np.maximum(0, np.minimum(taps, -((start - size) // apart)) - first)
    return start + first * apart, count, first


def run(pair: Any, x: Any, w: Windows, y: Any, others: Any) -> None:
    """Run the loops that suit the windows, from x to y, with the taps' numbers or the counts."""
    lanes, alone = lanes_of(x.dtype), max(x.size, y.size) < SMALL
    by_rows, by_planes = pair
    dtypes = (x.dtype,) if others.dtype == x.dtype else (x.dtype, others.dtype)
    x, y = flat(x), y.reshape(-1)
    if type(w) is not Windows:
        by_rows[*dtypes, type(w)](x, w, y, others, lanes, alone=alone)
    else:
        loop = by_planes[dtypes if len(dtypes) > 1 else x.dtype]
        space = scratch(space_of(w, lanes).size, x.dtype, alone)
        loop(x, w, met_pixels(w), y, others, space, lanes, alone=alone)


MAXIMA = loops.maxima_by_rows, loops.maxima_by_planes
MAXIMA_GRADIENT = loops.maxima_gradient_by_rows, loops.maxima_gradient_by_planes
MEANS = loops.means_by_rows, loops.means_by_planes
MEANS_GRADIENT = loops.means_gradient_by_rows, loops.means_gradient_by_planes

# --- max -----------------------------------------------------------------------------------------


def maxima(x: Any, geometry: Any) -> tuple[Any, Windows, Any]:
    """Return the maxima, the windows, and the numbers of their taps as the loops lay them out."""
    shape, lanes = x.shape, lanes_of(x.dtype)
    w, outputs = windows(shape[2:], lanes, **geometry)
    y = empty((*shape[:2], *outputs), x.dtype)
    if type(w) is not Windows:
        room = rows_of_numbers(w, y.size, lanes).size
    else:
        room = -(-shape[0] * shape[1] // lanes) * lanes * w.rows * w.columns
    numbers = empty((room,), np.min_scalar_type(w.down * w.across))
    run(MAXIMA, x, w, y, numbers)
    return y, w, numbers


def max_value(x: Any, **geometry: Any) -> Any:
    """Return the maxima."""
    return maxima(x, geometry)[0]


def max_vjp(x: Any, **geometry: Any) -> tuple[Any, Pullback]:
    """Return the maxima and the pullback, which keeps the numbers of their taps, and not x."""
    shape, (y, w, numbers) = x.shape, maxima(x, geometry)

    def pullback(dy: Any) -> tuple[Any]:
        dx = empty(shape, dy.dtype)
        run(MAXIMA_GRADIENT, dy, w, dx, numbers)
        return (dx,)

    return y, pullback


# --- mean ----------------------------------------------------------------------------------------


def avg_value(x: Any, *, window: Pair, stride: Pair, padding: Margins, counted: Margins) -> Any:
    """Return the means."""
    return avg_vjp(x, window=window, stride=stride, padding=padding, counted=counted)[0]


def avg_vjp(
    x: Any, *, window: Pair, stride: Pair, padding: Margins, counted: Margins
) -> tuple[Any, Pullback]:
    """Return the means and the pullback."""
    options: dict[str, Any] = {"window": window, "stride": stride, "padding": padding}
    shape, image, dtype = x.shape, x.shape[2:], x.dtype
    w, outputs = windows(image, lanes_of(dtype), **options)
    counts = counts_of(w, image, dtype, **options, counted=counted)
    y = empty((*shape[:2], *outputs), dtype)
    run(MEANS, x, w, y, counts)

    def pullback(dy: Any) -> tuple[Any]:
        dx = empty(shape, dy.dtype)
        run(MEANS_GRADIENT, dy, w, dx, counts)
        return (dx,)

    return y, pullback


# --- mean of all pixels --------------------------------------------------------------------------


def global_value(x: Any) -> Any:
    """Return the mean of each plane."""
    y = np.empty(x.shape[:2], x.dtype)
    loops.plane_means[x.dtype](flat(x), y.reshape(-1), alone=x.size < SMALL)
    return y


def global_vjp(x: Any) -> tuple[Any, Pullback]:
    """Return the mean of each plane and the pullback, which is cheap."""
    shape = x.shape

    def pullback(dy: Any) -> tuple[Any]:
        share = dy / math.prod(shape[2:])
        return (np.broadcast_to(share.reshape(*shape[:2], *(1 for _ in shape[2:])), shape),)

    return global_value(x), pullback


MAX, AVG = (max_value, max_vjp), (avg_value, avg_vjp)
CHANNELS_AS_ROWS = 1
MAX_OPTIONS = "window", "stride", "padding", "dilation"
AVG_OPTIONS = "window", "stride", "padding", "counted"

for operation, pair, options in (
    ("max_pool1d", of_signals(*MAX, CHANNELS_AS_ROWS), MAX_OPTIONS),
    ("max_pool2d", MAX, MAX_OPTIONS),
    ("max_pool3d", of_volumes(*MAX), MAX_OPTIONS),
    ("avg_pool1d", of_signals(*AVG, CHANNELS_AS_ROWS), AVG_OPTIONS),
    ("avg_pool2d", AVG, AVG_OPTIONS),
    ("avg_pool3d", of_volumes(*AVG), AVG_OPTIONS),
    ("global_avg_pool", (global_value, global_vjp), ()),
    ("global_avg_pool2d", (global_value, global_vjp), ()),
):
    value, vjp = pair
    kernel = Implementation("Numba loops", value, vjp, lambda x, **_: why_not(x), options=options)
    OPERATIONS[operation].add_kernel("numpy", kernel)

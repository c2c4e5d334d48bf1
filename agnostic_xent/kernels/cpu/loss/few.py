"""Softmax cross entropy of rows of few classes: as many rows at a time as a vector has lanes.

A tile is (classes, lanes) numbers that follow each other: rows of logits, transposed in registers.
In a block of tiles the exponentials are taken and summed, then the formulas of ``labels.py`` are
worked out for all its samples, and then the exponentials become the gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numba import types

from ..simd.elementary import borrowed, emit_exp, inlined, plain
from ..simd.transposes import into_lanes, lanes_to_rows, out_of_lanes, rows_to_lanes
from ..simd.vectors import I32, VECTOR_BYTES, Vectors, cgutils, intrinsic
from .labels import HIDDEN, describe, label_gradient, row_scale, write_terms


class Tile:
    """Emits loops over the classes of a tile, for the samples whose tags are given."""

    def __init__(self, v: Vectors, kind: Any, tile: Any, classes: Any, tag: Any, weight: Any):
        self.v, self.kind, self.tile, self.classes, self.weight = v, kind, tile, classes, weight
        self.tags = v.integers(tag)

    @contextmanager
    def each_class(self) -> Iterator[tuple[Any, Any, Any]]:
        """Emit a loop; give the class, the place of its vector, and the lanes with its label."""
        v, b = self.v, self.v.builder
        with cgutils.for_range(b, self.classes) as loop:
            place = v.at(self.tile, b.mul(loop.index, v.index(v.lanes)))
            yield loop.index, place, v.equal(self.tags, b.trunc(loop.index, I32))

    def maximum(self) -> Any:
        """Emit that of each lane; NaN spoils the sum later, kept here or not."""
        v, b = self.v, self.v.builder
        top = cgutils.alloca_once_value(b, v.load(self.tile))
        with self.each_class() as (_, place, _):
            x, best = v.load(place), b.load(top)
            b.store(b.select(b.fcmp_ordered(">", x, best), x, best), top)
        return b.load(top)

    def weight_of(self, c: Any) -> Any:
        """Emit a class's weight, in all lanes."""
        return self.v.splat(self.v.builder.load(self.v.at(self.weight, c)))

    def sums(self, factor: Any, weighed: bool) -> list[Any]:
        """Emit the exponentials, in place; return own, others, shift and shifts of `Samples`."""
        v, b, zero = self.v, self.v.builder, self.v.zero
        top, factor, wide = self.maximum(), v.splat(factor), v.doubles()
        own, others, shift = (cgutils.alloca_once_value(b, zero) for _ in range(3))
        shifts = cgutils.alloca_once_value(b, wide.zero)
        with self.each_class() as (c, place, here):
            d = b.fmul(b.fsub(v.load(place), top), factor)
            e = emit_exp(b, self.kind, d)
            v.store(e, place)
            b.store(b.select(here, e, b.load(own)), own)
            b.store(b.select(here, d, b.load(shift)), shift)
            b.store(b.fadd(b.load(others), b.select(here, zero, e)), others)
            if weighed:  # a weight of 0 leaves out -inf
                w = self.weight_of(c)
                absent = b.fcmp_ordered("==", d, v.constant(float("-inf")))
                absent = b.and_(absent, b.fcmp_ordered("==", w, zero))
                part = v.widened(b.select(absent, zero, b.fmul(w, d)))
                b.store(b.fadd(b.load(shifts), part), shifts)
        return [b.load(place) for place in (own, others, shift, shifts)]

    def gradient(self, scale: Any, at_label: Any, spread: Any) -> None:
        """Emit the gradient, in place of the exponentials; ``spread`` is None without smoothing."""
        v, b = self.v, self.v.builder
        hidden = v.equal(self.tags, I32(HIDDEN))
        with self.each_class() as (c, place, here):
            g = b.fmul(v.load(place), scale)
            if spread is not None:
                g = b.fsub(g, b.fmul(self.weight_of(c), spread))
            g = b.select(here, at_label, b.select(hidden, v.zero, g))
            v.store(g, place)


@intrinsic
def sum_tile(
    context: Any, tiles: Any, weight: Any, tag: Any, own: Any, others: Any, shift: Any, shifts: Any,
    start: Any, classes: Any, k: Any, factor: Any, unbias: Any, smooths: Any,
) -> Any:  # fmt: skip
    """Take the exponentials of tile ``start``, in place, and complete the samples from k on."""
    kind = tiles.dtype

    def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
        v = Vectors(context, b, kind)
        tiles, weight, tag, *numbers = (v.data(signature.args[i], args[i]) for i in range(7))
        start, classes, k, factor, unbias, smooths = args[7:]
        wide = v.doubles()
        tile = Tile(v, kind, v.at(tiles, start), classes, v.at(tag, k), weight)
        unbias = wide.splat(unbias)
        with b.if_else(smooths) as branches:
            for branch, weighed in zip(branches, (True, False), strict=True):
                with branch:
                    own, others, shift, shifts = tile.sums(factor, weighed)
                    found = [b.fmul(v.widened(x), unbias) for x in (own, others)]
                    for x, place in zip((*found, v.widened(shift), shifts), numbers, strict=True):
                        wide.store(x, v.at(place, k))
        return context.get_dummy_value()

    integers = [types.int64] * 3
    given = tiles, weight, tag, own, others, shift, shifts
    return types.void(*given, *integers, kind, types.float64, types.boolean), emit


@intrinsic
def scale_tile(
    context: Any, tiles: Any, weight: Any, tag: Any, scale: Any, at_label: Any, spread: Any,
    start: Any, classes: Any, k: Any, smooths: Any,
) -> Any:  # fmt: skip
    """Turn the exponentials of tile ``start``, of the samples from k on, into their gradient."""
    kind = tiles.dtype

    def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
        v = Vectors(context, b, kind)
        tiles, weight, tag, *numbers = (v.data(signature.args[i], args[i]) for i in range(6))
        start, classes, k, smooths = args[6:]
        tile = Tile(v, kind, v.at(tiles, start), classes, v.at(tag, k), weight)
        scale, at_label, spread = (v.load(v.at(place, k)) for place in numbers)
        with b.if_else(smooths) as (smooth, sharp):
            with smooth:
                tile.gradient(scale, at_label, spread)
            with sharp:
                tile.gradient(scale, at_label, None)
        return context.get_dummy_value()

    given = tiles, weight, tag, scale, at_label, spread
    return types.void(*given, *[types.int64] * 3, types.boolean), emit


# --- rows and tiles ------------------------------------------------------------------------------

_into_1, _into_2, _into_3, _into_4 = map(rows_to_lanes, range(1, 5))
_out_of_1, _out_of_2, _out_of_3, _out_of_4 = map(lanes_to_rows, range(1, 5))
_into_8, _into_16 = map(into_lanes, (8, 16))
_out_of_8, _out_of_16 = map(out_of_lanes, (8, 16))


@inlined
def load_tile(x: Any, x0: Any, rows: Any, classes: Any, lanes: Any, tiles: Any, start: Any) -> None:
    """Set a tile to rows at x0 of the flat logits x; the last columns overlap those before."""
    if classes == 1:
        _into_1(x, tiles, x0, start, rows)
    elif classes == 2:
        _into_2(x, tiles, x0, start, rows)
    elif classes == 3:
        _into_3(x, tiles, x0, start, rows)
    elif classes == 4:
        _into_4(x, tiles, x0, start, rows)
    elif classes <= 8 < lanes:
        _into_8(x, tiles, x0, classes, start, rows, classes)
    else:
        for p in range(0, classes, lanes):
            j = max(0, min(p, classes - lanes))
            _into_16(x, tiles, x0 + j, classes, start + j * lanes, rows, classes)


@inlined
def store_tile(
    tiles: Any, start: Any, rows: Any, classes: Any, lanes: Any, g: Any, g0: Any
) -> None:
    """Set rows at g0 of the flat g to a tile."""
    if classes == 1:
        _out_of_1(tiles, g, start, g0, rows)
    elif classes == 2:
        _out_of_2(tiles, g, start, g0, rows)
    elif classes == 3:
        _out_of_3(tiles, g, start, g0, rows)
    elif classes == 4:
        _out_of_4(tiles, g, start, g0, rows)
    elif classes <= 8 < lanes:
        _out_of_8(tiles, g, start, g0, classes, rows, classes)
    else:
        for p in range(0, classes, lanes):
            j = max(0, min(p, classes - lanes))
            _out_of_16(tiles, g, start + j * lanes, g0 + j, classes, rows, classes)


class Space(NamedTuple):
    """Memory for a block of samples, whole tiles."""

    tiles: Any
    tag: Any
    memory: Any
    """Of `Samples`."""
    scales: Any
    """Rows: the factors of exponentials, gradients at labels, what is taken off for smoothing."""


@plain
def space_for(rows: Any, classes: Any, numbers: Any) -> Any:
    """Return the `Space` of so many rows of an array's dtype; a narrow tile is written square."""
    lanes = VECTOR_BYTES // numbers.itemsize
    tiles = np.empty(rows * classes + lanes * lanes, numbers.dtype)
    tag, memory = np.empty(rows, np.int32), np.empty((6, rows))
    return Space(tiles, tag, memory, np.empty((3, rows), numbers.dtype))


@inlined
def few_rows(
    x: Any, classes: Any, labels: Any, first: Any, count: Any, problem: Any, g: Any, terms: Any,
    space: Any,
) -> None:  # fmt: skip
    """Write terms and gradient of rows from ``first`` on of the flat x and g, of few classes."""
    lanes, smooths = VECTOR_BYTES // x.itemsize, problem.smoothing > 0
    tiles, tag, scales = borrowed(space.tiles), borrowed(space.tag), borrowed(space.scales)
    factor = x.dtype.type(problem.inverse_temperature)
    samples = describe(labels, first, classes, problem, tag[:count], borrowed(space.memory))
    _, a, weight, own, others, shift, shifts = samples
    for k in range(0, count, lanes):
        rows, start = min(lanes, count - k), k * classes
        load_tile(x, (first + k) * classes, rows, classes, lanes, tiles, start)
        sum_tile(tiles, problem.weight, tag, own, others, shift, shifts,
                 start, classes, k, factor, problem.unbias, smooths)  # fmt: skip
    write_terms(samples, first, problem, terms)
    if g.size == 0:
        return
    scale, at_label, spread = scales[0], scales[1], scales[2]
    for k in range(count):
        scale[k] = row_scale(a[k], weight[k], own[k], others[k], problem)
        at_label[k] = label_gradient(a[k], weight[k], own[k], others[k], problem)
        spread[k] = problem.unit * a[k] * problem.spread
    for k in range(0, count, lanes):
        rows, start = min(lanes, count - k), k * classes
        scale_tile(tiles, problem.weight, tag, scale, at_label, spread,
                   start, classes, k, smooths)  # fmt: skip
        store_tile(tiles, start, rows, classes, lanes, g, (first + k) * classes)

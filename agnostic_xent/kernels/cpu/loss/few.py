"""Softmax cross entropy of rows of few classes: as many rows at a time as a vector has lanes.

In a block of tiles the exponentials are taken and summed, then the formulas of ``labels.py`` are
worked out for all its samples, and then the exponentials become the gradient.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import types

from ..simd.elementary import borrowed, emit_exp, inlined, plain
from ..simd.few import Tile, load_tile, store_tile
from ..simd.vectors import I32, VECTOR_BYTES, Vectors, cgutils, intrinsic
from .labels import HIDDEN, describe, label_gradient, row_scale, write_terms


class LabelledTile(Tile):
    """Emits loops over the classes of a tile, for the samples whose tags are given."""

    def __init__(self, v: Vectors, kind: Any, tile: Any, classes: Any, tag: Any, weight: Any):
        super().__init__(v, tile, classes)
        self.kind, self.weight, self.tags = kind, weight, v.integers(tag)

    def labelled(self, c: Any) -> Any:
        """Emit the mask of the samples whose label is class c."""
        return self.v.equal(self.tags, self.v.builder.trunc(c, I32))

    def weight_of(self, c: Any) -> Any:
        """Emit a class's weight, in all lanes."""
        return self.v.splat(self.v.builder.load(self.v.at(self.weight, c)))

    def sums(self, factor: Any, weighed: bool) -> list[Any]:
        """Emit the exponentials, in place; return own, others, shift and shifts of `Samples`."""
        v, b, zero = self.v, self.v.builder, self.v.zero
        top, factor, wide = self.maximum(), v.splat(factor), v.doubles()
        own, others, shift = (cgutils.alloca_once_value(b, zero) for _ in range(3))
        shifts = cgutils.alloca_once_value(b, wide.zero)
        with self.each() as (c, place):
            here = self.labelled(c)
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
        with self.each() as (c, place):
            here = self.labelled(c)
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
        tile = LabelledTile(v, kind, v.at(tiles, start), classes, v.at(tag, k), weight)
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
        tile = LabelledTile(v, kind, v.at(tiles, start), classes, v.at(tag, k), weight)
        scale, at_label, spread = (v.load(v.at(place, k)) for place in numbers)
        with b.if_else(smooths) as (smooth, sharp):
            with smooth:
                tile.gradient(scale, at_label, spread)
            with sharp:
                tile.gradient(scale, at_label, None)
        return context.get_dummy_value()

    given = tiles, weight, tag, scale, at_label, spread
    return types.void(*given, *[types.int64] * 3, types.boolean), emit


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

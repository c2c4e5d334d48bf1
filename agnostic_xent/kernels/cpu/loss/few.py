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
from .labels import HIDDEN, ROWS, describe, label_gradient, row_scale, write_terms


class LabelledTile(Tile):
    """Emits loops over the classes of a tile, for the samples whose tags are given."""

    def __init__(self, v: Vectors, kind: Any, tile: Any, classes: Any, tag: Any, weight: Any):
        super().__init__(v, tile, classes)
        self.kind, self.weight, self.tags = kind, weight, v.integers(tag)

    def labelled(self, c: Any) -> Any:
        """Emit the mask of the samples whose label is class c."""
        return self.v.equal(self.tags, self.v.builder.trunc(c, I32))

    def splat_of(self, numbers: Any, c: Any) -> Any:
        """Emit a class's number, in all lanes."""
        return self.v.splat(self.v.builder.load(self.v.at(numbers, c)))

    def moved_maximum(self, offset: Any) -> Any:
        """Emit the maximum of each lane's logits with the classes' offsets."""
        v, b = self.v, self.v.builder
        top = cgutils.alloca_once_value(b, v.constant(float("-inf")))
        with self.each() as (c, place):
            x, best = b.fadd(v.load(place), self.splat_of(offset, c)), b.load(top)
            b.store(b.select(b.fcmp_ordered(">", x, best), x, best), top)
        return b.load(top)

    def sums(self, factor: Any, weighed: bool, offset: Any) -> list[Any]:
        """Emit the exponentials, in place; return own, others, shift, maximum and shifts.

        ``offset`` is None where there is none.
        """
        v, b, zero = self.v, self.v.builder, self.v.zero
        top = self.maximum() if offset is None else self.moved_maximum(offset)
        factor, wide = v.splat(factor), v.doubles()
        own, others, shift = (cgutils.alloca_once_value(b, zero) for _ in range(3))
        shifts = cgutils.alloca_once_value(b, wide.zero)
        with self.each() as (c, place):
            here = self.labelled(c)
            d = b.fsub(v.load(place), top)
            if offset is not None:
                d = b.fadd(d, self.splat_of(offset, c))
            d = b.fmul(d, factor)
            e = emit_exp(b, self.kind, d)
            v.store(e, place)
            b.store(b.select(here, e, b.load(own)), own)
            b.store(b.select(here, d, b.load(shift)), shift)
            b.store(b.fadd(b.load(others), b.select(here, zero, e)), others)
            if weighed:  # a weight of 0 leaves out -inf
                w = self.splat_of(self.weight, c)
                absent = b.fcmp_ordered("==", d, v.constant(float("-inf")))
                absent = b.and_(absent, b.fcmp_ordered("==", w, zero))
                part = v.widened(b.select(absent, zero, b.fmul(w, d)))
                b.store(b.fadd(b.load(shifts), part), shifts)
        return [*(b.load(place) for place in (own, others, shift)), top, b.load(shifts)]

    def gradient(self, scale: Any, at_label: Any, spread: Any) -> None:
        """Emit the gradient, in place of the exponentials; ``spread`` is None without smoothing."""
        v, b = self.v, self.v.builder
        hidden = v.equal(self.tags, I32(HIDDEN))
        with self.each() as (c, place):
            here = self.labelled(c)
            g = b.fmul(v.load(place), scale)
            if spread is not None:
                g = b.fsub(g, b.fmul(self.splat_of(self.weight, c), spread))
            g = b.select(here, at_label, b.select(hidden, v.zero, g))
            v.store(g, place)


@intrinsic
def sum_tile(
    context: Any, tiles: Any, weight: Any, offset: Any, tag: Any, own: Any, others: Any, shift: Any,
    shifts: Any, log_sum: Any, start: Any, classes: Any, k: Any, factor: Any, unbias: Any,
    sharpness: Any, smooths: Any, moves: Any,
) -> Any:  # fmt: skip
    """Take the exponentials of tile ``start``, in place, and complete the samples from k on."""
    kind = tiles.dtype

    def emit(context: Any, b: Any, signature: Any, args: Any) -> Any:
        v = Vectors(context, b, kind)
        arrays = (v.data(signature.args[i], args[i]) for i in range(9))
        tiles, weight, offset, tag, own_, others_, shift_, shifts_, log_sum_ = arrays
        start, classes, k, factor, unbias, sharpness, smooths, moves = args[9:]
        wide = v.doubles()
        tile = LabelledTile(v, kind, v.at(tiles, start), classes, v.at(tag, k), weight)
        unbias, sharpness = wide.splat(unbias), wide.splat(sharpness)
        for moved in (True, False):
            with b.if_then(moves if moved else b.not_(moves)), b.if_else(smooths) as branches:
                for branch, weighed in zip(branches, (True, False), strict=True):
                    with branch:
                        found = tile.sums(factor, weighed, offset if moved else None)
                        own, others, shift, top, shifts = found
                        for x, place in (
                            (b.fmul(v.widened(own), unbias), own_),
                            (b.fmul(v.widened(others), unbias), others_),
                            (v.widened(shift), shift_),
                            (shifts, shifts_),
                            (b.fmul(v.widened(top), sharpness), log_sum_),
                        ):
                            wide.store(x, v.at(place, k))
        return context.get_dummy_value()

    integers, doubles, flags = [types.int64] * 3, [types.float64] * 2, [types.boolean] * 2
    given = tiles, weight, offset, tag, own, others, shift, shifts, log_sum
    return types.void(*given, *integers, kind, *doubles, *flags), emit


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
    tag, memory = np.empty(rows, np.int32), np.empty((ROWS, rows))
    return Space(tiles, tag, memory, np.empty((3, rows), numbers.dtype))


@inlined
def few_rows(
    x: Any, classes: Any, labels: Any, first: Any, count: Any, problem: Any, g: Any, terms: Any,
    space: Any,
) -> None:  # fmt: skip
    """Write terms and gradient of rows, of few classes, in the flat x and g.

    They are samples from ``first`` on.
    """
    lanes, smooths = VECTOR_BYTES // x.itemsize, problem.smoothing > 0
    tiles, tag, scales = borrowed(space.tiles), borrowed(space.tag), borrowed(space.scales)
    factor = x.dtype.type(problem.inverse_temperature)
    samples = describe(labels, first, classes, problem, tag[:count], borrowed(space.memory))
    _, a, weight, own, others, shift, shifts, log_sum = samples
    for k in range(0, count, lanes):
        rows, start = min(lanes, count - k), k * classes
        load_tile(x, k * classes, rows, classes, lanes, tiles, start)
        sum_tile(tiles, problem.weight, problem.offset, tag, own, others, shift, shifts, log_sum,
                 start, classes, k, factor, problem.unbias, problem.inverse_temperature, smooths,
                 problem.offset.size > 0)  # fmt: skip
    write_terms(samples, first, problem, terms)
    if g.size == 0:
        return
    scale, at_label, spread = scales[0], scales[1], scales[2]
    for k in range(count):
        scale[k] = row_scale(a[k], weight[k], own[k], others[k], log_sum[k], problem)
        at_label[k] = label_gradient(a[k], weight[k], own[k], others[k], log_sum[k], problem)
        spread[k] = problem.unit * a[k] * problem.spread
    for k in range(0, count, lanes):
        rows, start = min(lanes, count - k), k * classes
        scale_tile(tiles, problem.weight, tag, scale, at_label, spread,
                   start, classes, k, smooths)  # fmt: skip
        store_tile(tiles, start, rows, classes, lanes, g, k * classes)

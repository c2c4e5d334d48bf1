"""Rows of outputs of pools with step 2, in registers: values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from llvmlite import ir

from ..simd.vectors import Vectors, emitted_by_class
from . import windows as windows
from .taps import CORNERS, Rows, ShortRows

WAYS: dict[type, Any] = {
    windows.Pairs: Rows(2),
    windows.Triples: Rows(3),
    **{cls: ShortRows(2, columns) for columns, cls in windows.SHORT_PAIRS.items()},
    windows.ShortTriples: ShortRows(3, windows.ShortTriples.SHORT),
}


# --- values --------------------------------------------------------------------------------------


def _maxima(way: Any) -> Callable[..., None]:
    """Return what emits a row of maxima, and of the numbers of the taps where they are.

    The first maximum wins, and the first NaN before all. Numbers are stored in whole vectors: their
    rows have room.
    """

    def emit(
        v: Vectors, x: Any, y: Any, numbers: Any, x0: Any, pitch: Any, columns: Any, row: Any,
        y0: Any, numbers0: Any,
    ) -> None:  # fmt: skip
        b, x, y, numbers = v.builder, v.at(x, x0), v.at(y, y0), v.at(numbers, numbers0)
        kind = ir.VectorType(numbers.type.pointee, v.lanes)
        taps = way.taps(v, x, pitch, columns, row, v.constant(float("-inf")))

        def each(done: Any, there: Any) -> None:
            top, *others = taps(done)
            where = way.first(v, kind, row, done)
            for tap, pixels in enumerate(others, 1):
                wins = b.and_(b.fcmp_unordered(">", pixels, top), b.fcmp_ordered("ord", top, top))
                top = b.select(wins, pixels, top)
                where = b.select(wins, ir.Constant(kind, [tap] * v.lanes), where)
            v.store_masked(top, v.at(y, done), there)
            b.store(where, b.bitcast(v.at(numbers, done), kind.as_pointer()), align=1)

        way.vectors(v, columns, each)

    return emit


def _means(way: Any) -> Callable[..., None]:
    """Return what emits a row of sums over the windows, divided by ``counts``."""

    def emit(
        v: Vectors, x: Any, y: Any, counts: Any, x0: Any, pitch: Any, columns: Any, row: Any,
        y0: Any, counts0: Any,
    ) -> None:  # fmt: skip
        b, x, y, counts = v.builder, v.at(x, x0), v.at(y, y0), v.at(counts, counts0)
        taps = way.taps(v, x, pitch, columns, row, v.zero)

        def each(done: Any, there: Any) -> None:
            mean = b.fdiv(reduce(b.fadd, taps(done)), v.load_masked(v.at(counts, done), there))
            v.store_masked(mean, v.at(y, done), there)

        way.vectors(v, columns, each)

    return emit


# --- gradients -----------------------------------------------------------------------------------


def _gradients(way: Any, of_means: bool) -> Callable[..., None]:
    """Return what emits the gradients of two lines of pixels, from rows of outputs'.

    Those of means are divided by ``others``; of maxima, these are the numbers of their taps.
    """

    def emit(
        v: Vectors, dy: Any, others: Any, dx: Any, d0: Any, others0: Any, others_pitch: Any,
        below: Any, x0: Any, pitch: Any, columns: Any,
    ) -> None:  # fmt: skip
        b, dy, others, dx = v.builder, v.at(dy, d0), v.at(others, others0), v.at(dx, x0)
        kind = ir.VectorType(others.type.pointee, v.lanes)

        def read(rows: int, start: Any, there: Any) -> tuple[Any, ...]:
            line = v.at(dy, b.mul(columns, v.index(rows)))
            gradient = v.load_masked(v.at(line, start), there)
            place = v.at(others, b.add(b.mul(others_pitch, v.index(rows)), start))
            if of_means:
                return (b.fdiv(gradient, v.load_masked(place, there, v.constant(1))),)
            return gradient, b.load(b.bitcast(place, kind.as_pointer()), align=1)

        def share(tap: int, gradient: Any, numbers: Any = None) -> Any:
            if numbers is None:
                return gradient
            hit = b.icmp_signed("==", numbers, ir.Constant(kind, [tap] * v.lanes))
            return b.select(hit, gradient, v.zero)

        def each(done: Any, there: Any) -> None:
            near = way.near(v, read, columns, below, done)
            corners = [
                reduce(b.fadd, [share(tap, *near[distance]) for tap, distance in given])
                for given in CORNERS[way.window]
            ]
            way.put(v, corners, dx, pitch, columns, done)

        way.vectors(v, columns, each)

    return emit


def _by_class(emit: Callable[..., Any], *options: Any) -> Any:
    """Return the function for compiled code, of windows, three arrays and integers."""
    return emitted_by_class(3, {cls: emit(way, *options) for cls, way in WAYS.items()})


row_of_maxima, row_of_means = _by_class(_maxima), _by_class(_means)
maxima_gradient_row, means_gradient_row = (
    _by_class(_gradients, of_means) for of_means in (False, True)
)

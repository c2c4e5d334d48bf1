"""A window of a pool in as many planes as a vector has lanes.

The planes were transposed: the numbers of a pixel in all of them follow each other. So the lanes
are full however small an image is, and whatever the window, its taps are whole vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from ..simd.vectors import I32, Vectors, cgutils, emitted


def _each_tap(
    v: Vectors, corner: Any, pitch: Any, down: Any, apart: Any, across: Any,
    meet: Callable[..., None], after_row: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Emit the loops over the taps inside the image, in row-major order; distances in pixels."""
    b, lanes = v.builder, v.index(v.lanes)
    pitch, apart = b.mul(pitch, lanes), b.mul(apart, lanes)
    with cgutils.for_range(b, down) as row:
        line = v.at(corner, b.mul(row.index, pitch))
        with cgutils.for_range(b, across) as column:
            meet(v.at(line, b.mul(column.index, apart)), row.index, column.index)
        after_row()


def _everywhere(v: Vectors, number: Any, kind: Any) -> Any:
    """Return an integer in all lanes, of a vector type."""
    b = v.builder
    number = b.trunc(number, kind.element)
    one = b.insert_element(ir.Constant(kind, ir.Undefined), number, I32(0))
    return b.shuffle_vector(one, one, ir.Constant(ir.VectorType(I32, v.lanes), [0] * v.lanes))


def _numbering(v: Vectors, first: Any, all_across: Any, row: Any, column: Any) -> Any:
    """Return the number of a tap, counted through the whole window."""
    b = v.builder
    return b.add(b.add(first, column), b.mul(row, all_across))


def _maximum(
    v: Vectors, x: Any, y: Any, numbers: Any, x0: Any, pitch: Any, down: Any, apart: Any,
    across: Any, first: Any, all_across: Any, y0: Any, numbers0: Any,
) -> None:  # fmt: skip
    """Emit the maximum, and the number of its tap, ``first`` where there is none greater.

    The first maximum wins, and the first NaN before all.
    """
    b, kind = v.builder, ir.VectorType(I32, v.lanes)
    narrow = ir.VectorType(numbers.type.pointee, v.lanes)
    maximum, where = cgutils.alloca_once(b, v.type), cgutils.alloca_once(b, kind)
    b.store(v.constant(float("-inf")), maximum)
    b.store(_everywhere(v, first, kind), where)

    def meet(pointer: Any, row: Any, column: Any) -> None:
        pixels, top = v.load(pointer), b.load(maximum)
        tap = _everywhere(v, _numbering(v, first, all_across, row, column), kind)
        wins = b.and_(b.fcmp_unordered(">", pixels, top), b.fcmp_ordered("ord", top, top))
        b.store(b.select(wins, pixels, top), maximum)
        b.store(b.select(wins, tap, b.load(where)), where)

    _each_tap(v, v.at(x, x0), pitch, down, apart, across, meet)
    v.store(b.load(maximum), v.at(y, y0))
    target = b.bitcast(v.at(numbers, numbers0), narrow.as_pointer())
    b.store(b.trunc(b.load(where), narrow), target, align=1)


def _mean(
    v: Vectors, x: Any, y: Any, counts: Any, x0: Any, pitch: Any, down: Any, apart: Any,
    across: Any, y0: Any, count0: Any,
) -> None:  # fmt: skip
    """Emit the sum over the window, divided by its count; each row is summed first."""
    b = v.builder
    total, of_row = cgutils.alloca_once(b, v.type), cgutils.alloca_once(b, v.type)
    b.store(v.zero, total)
    b.store(v.zero, of_row)

    def meet(pointer: Any, row: Any, column: Any) -> None:
        b.store(b.fadd(b.load(of_row), v.load(pointer)), of_row)

    def after_row() -> None:
        b.store(b.fadd(b.load(total), b.load(of_row)), total)
        b.store(v.zero, of_row)

    _each_tap(v, v.at(x, x0), pitch, down, apart, across, meet, after_row)
    v.store(b.fdiv(b.load(total), v.splat(b.load(v.at(counts, count0)))), v.at(y, y0))


def _maximum_gradient(
    v: Vectors, dy: Any, numbers: Any, dx: Any, x0: Any, pitch: Any, down: Any, apart: Any,
    across: Any, first: Any, all_across: Any, y0: Any, numbers0: Any,
) -> None:  # fmt: skip
    """Emit the addition of the gradient to the pixel that its number names."""
    b, kind = v.builder, ir.VectorType(numbers.type.pointee, v.lanes)
    gradient = v.load(v.at(dy, y0))
    found = b.load(b.bitcast(v.at(numbers, numbers0), kind.as_pointer()), align=1)

    def meet(pointer: Any, row: Any, column: Any) -> None:
        tap = _everywhere(v, _numbering(v, first, all_across, row, column), kind)
        share = b.select(b.icmp_signed("==", found, tap), gradient, v.zero)
        v.store(b.fadd(v.load(pointer), share), pointer)

    _each_tap(v, v.at(dx, x0), pitch, down, apart, across, meet)


def _mean_gradient(
    v: Vectors, dy: Any, counts: Any, dx: Any, x0: Any, pitch: Any, down: Any, apart: Any,
    across: Any, y0: Any, count0: Any,
) -> None:  # fmt: skip
    """Emit the addition of the gradient, divided by the count, to all pixels."""
    b = v.builder
    share = b.fdiv(v.load(v.at(dy, y0)), v.splat(b.load(v.at(counts, count0))))

    def meet(pointer: Any, row: Any, column: Any) -> None:
        v.store(b.fadd(v.load(pointer), share), pointer)

    _each_tap(v, v.at(dx, x0), pitch, down, apart, across, meet)


maximum, mean = emitted(3, _maximum), emitted(3, _mean)
maximum_gradient, mean_gradient = emitted(3, _maximum_gradient), emitted(3, _mean_gradient)

"""The inner loop of softmax cross entropy over rows, on whole vectors.

Numba vectorises such a loop well, but not with the instructions in it that ask for what comes next.
While exponentials are taken of a piece, the maximum of the piece behind it is found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types

from ..simd.elementary import emit_exp
from ..simd.vectors import I32, VECTOR_BYTES, Vectors, cgutils, intrinsic

Pair: Any = types.UniTuple  # Numba is typed in part only

AHEAD = 12288
"""Bytes from the logit that is computed with to the one that is asked for. As many exponentials are
written meanwhile, and both together have to stay in a first-level cache, of 32 KB or more."""

CACHE_LINE = 64
TOGETHER = 4
"""Vectors in a round of the loop, with a sum and a maximum each."""


def ask_for(v: Vectors, pointer: Any) -> None:
    """Emit a request for a cache line that is read but once; an address beyond does no harm."""
    byte = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32])
    prefetch = cgutils.get_or_insert_function(v.builder.module, kind, "llvm.prefetch.p0")
    read, once, data = (ir.Constant(I32, n) for n in (0, 0, 1))
    v.builder.call(prefetch, [v.builder.bitcast(pointer, byte), read, once, data])


def across(v: Vectors, x: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """Emit what the lanes of a vector combine to."""
    width = v.lanes // 2
    while width:
        x = combine(x, v.shuffle(x, x, [(i + width) % v.lanes for i in range(v.lanes)]))
        width //= 2
    return v.builder.extract_element(x, ir.Constant(I32, 0))


class Sweep:
    """Emits the loop over a piece x, whose exponentials go to e, and another one ahead of it."""

    def __init__(
        self, v: Vectors, kind: Any, x: Any, e: Any, ahead: Any, top: Any, factor: Any,
        offsets: Any = None,
    ) -> None:  # fmt: skip
        self.v, self.kind = v, kind
        self.x, self.e, self.ahead = x, e, ahead
        self.offsets = offsets
        self.top, self.factor = v.splat(top), v.splat(factor)
        lowest = v.constant(float("-inf"))
        self.sums = [cgutils.alloca_once_value(v.builder, v.zero) for _ in range(TOGETHER)]
        self.tops = [cgutils.alloca_once_value(v.builder, lowest) for _ in range(TOGETHER)]

    def exponentials(self, x: Any, offset: Any) -> Any:
        """Emit those of a vector of logits, whose offsets are added to them if there are any."""
        b = self.v.builder
        shifted = b.fsub(x, self.top)
        if offset is not None:
            shifted = b.fadd(shifted, offset)
        return emit_exp(b, self.kind, b.fmul(shifted, self.factor))

    def offset(self, i: int, j: Any, mask: Any = None) -> Any:
        """Emit a vector of the offsets: of the logits (i = 0), or of those ahead (i = 1)."""
        if self.offsets is None:
            return None
        place = self.v.at(self.offsets[i], j)
        return self.v.load(place) if mask is None else self.v.load_masked(place, mask)

    def moved(self, x: Any, offset: Any) -> Any:
        """Emit logits with their offsets."""
        return x if offset is None else self.v.builder.fadd(x, offset)

    def larger(self, x: Any, y: Any) -> Any:
        """Emit the larger number of each lane."""
        return self.v.builder.select(self.v.builder.fcmp_ordered(">", x, y), x, y)

    def whole(self, j: Any) -> None:
        """Emit a round of the loop."""
        v, b = self.v, self.v.builder
        for i, (total, top) in enumerate(zip(self.sums, self.tops, strict=True)):
            place = b.add(j, v.index(i * v.lanes))
            x = v.at(self.x, place)
            if i * VECTOR_BYTES % CACHE_LINE == 0:
                ask_for(v, v.at(x, AHEAD // v.itemsize))
            value = self.exponentials(v.load(x), self.offset(0, place))
            v.store(value, v.at(self.e, place))
            b.store(b.fadd(b.load(total), value), total)
            x = self.moved(v.load(v.at(self.ahead, place)), self.offset(1, place))
            b.store(self.larger(x, b.load(top)), top)

    def masked(self, j: Any, size: Any, more: Any) -> None:
        """Emit the same for the rest of both pieces, of which one may be over."""
        v, b, total, top = self.v, self.v.builder, self.sums[0], self.tops[0]
        here, there = v.first(b.sub(size, j)), v.first(b.sub(more, j))
        value = self.exponentials(v.load_masked(v.at(self.x, j), here), self.offset(0, j, here))
        v.store_masked(value, v.at(self.e, j), here)
        b.store(b.fadd(b.load(total), b.select(here, value, v.zero)), total)
        best, x = b.load(top), v.load_masked(v.at(self.ahead, j), there)
        x = self.moved(x, self.offset(1, j, there))
        b.store(b.select(there, self.larger(x, best), best), top)

    def result(self) -> tuple[Any, Any]:
        """Emit the sum and the maximum."""
        b = self.v.builder
        sums, tops = ([b.load(place) for place in places] for places in (self.sums, self.tops))
        total, top = sums[0], tops[0]
        for one, other in zip(sums[1:], tops[1:], strict=True):
            total, top = b.fadd(total, one), self.larger(top, other)
        return across(self.v, total, b.fadd), across(self.v, top, self.larger)


def emit_sweep(v: Vectors, loop: Sweep, size: Any, more: Any) -> tuple[Any, Any]:
    """Emit the loop over a piece of this size, with ``more`` logits ahead."""
    builder = v.builder
    fewer = builder.select(builder.icmp_signed("<", size, more), size, more)
    most = builder.select(builder.icmp_signed("<", size, more), more, size)
    step = v.index(TOGETHER * v.lanes)
    whole = builder.mul(builder.sdiv(fewer, step), step)
    with cgutils.for_range_slice(builder, v.index(0), whole, step, inc=True) as (j, _):
        loop.whole(j)
    with cgutils.for_range_slice(builder, whole, most, v.index(v.lanes), inc=True) as (j, _):
        loop.masked(j, size, more)
    return loop.result()


@intrinsic
def sweep(
    context: Any, x: Any, size: Any, e: Any, ahead: Any, more: Any, top: Any, factor: Any
) -> Any:
    """Store ``exp((x - top) * factor)``, biased, in e; return their sum and the maximum of ahead.

    x and e may be the same memory.
    """
    kind = x.dtype

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = Vectors(context, builder, kind)
        x, e, ahead = (v.data(signature.args[i], args[i]) for i in (0, 2, 3))
        _, size, _, _, more, top, factor = args
        found = emit_sweep(v, Sweep(v, kind, x, e, ahead, top, factor), size, more)
        return context.make_tuple(builder, signature.return_type, found)

    return Pair(kind, 2)(x, types.int64, e, ahead, types.int64, kind, kind), emit


@intrinsic
def sweep_moved(
    context: Any, x: Any, size: Any, e: Any, ahead: Any, more: Any, top: Any, factor: Any,
    offset: Any, ahead_offset: Any,
) -> Any:  # fmt: skip
    """Do as `sweep` for ``x + offset``, added after the maximum is subtracted, and those ahead."""
    kind = x.dtype

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = Vectors(context, builder, kind)
        x, e, ahead, *offsets = (v.data(signature.args[i], args[i]) for i in (0, 2, 3, 7, 8))
        _, size, _, _, more, top, factor, *_ = args
        found = emit_sweep(v, Sweep(v, kind, x, e, ahead, top, factor, offsets), size, more)
        return context.make_tuple(builder, signature.return_type, found)

    given = x, types.int64, e, ahead, types.int64, kind, kind, offset, ahead_offset
    return Pair(kind, 2)(*given), emit

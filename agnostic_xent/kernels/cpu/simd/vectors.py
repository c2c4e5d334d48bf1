"""Vectors of the machine's width: what the micro-kernels are emitted from, and a few of their own.

Numba vectorises loops well, but it cannot be told to keep a tile of sums in registers. The
micro-kernels of this package are therefore written as LLVM instructions on whole vectors: 16 lanes
of float32 with AVX-512, else 8; half as many of float64. LLVM splits them where registers are
narrower, so they run everywhere.

They take flat arrays and offsets in elements, which keeps the arrays alive and the strides plain.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import extending as _extending
from numba import types
from numba.core import cgutils as _cgutils
from numba.core import config as _config

from .instructions import emit_fma

intrinsic: Any = _extending.intrinsic
cgutils: Any = _cgutils
config: Any = _config

I32, I64 = ir.IntType(32), ir.IntType(64)


def _has_avx512() -> bool:
    if config.CPU_FEATURES is not None:  # what Numba was told to compile for
        return "+avx512f" in config.CPU_FEATURES
    try:
        return bool(llvm.get_host_cpu_features().get("avx512f", False))
    except RuntimeError:  # LLVM does not know this system
        return False


VECTOR_BYTES = 64 if _has_avx512() else 32


def lanes_of(dtype: Any) -> int:
    """Return how many numbers of a NumPy dtype a vector holds."""
    return VECTOR_BYTES // int(dtype.itemsize)


class Vectors:
    """Emits instructions on vectors of one floating type (`float32` or `float64` of Numba).

    They fill a register, or have as many ``lanes`` as others do.
    """

    def __init__(self, context: Any, builder: Any, kind: Any, lanes: int | None = None):
        self.context, self.builder = context, builder
        self.scalar = ir.FloatType() if kind == types.float32 else ir.DoubleType()
        self.itemsize = 4 if kind == types.float32 else 8
        self.lanes = lanes or VECTOR_BYTES // self.itemsize
        self.type = ir.VectorType(self.scalar, self.lanes)
        self.mask_type = ir.VectorType(ir.IntType(1), self.lanes)
        self.zero = self.constant(0.0)

    # --- numbers and addresses ---

    def constant(self, value: float) -> Any:
        """Return a vector with a known value in all lanes."""
        return ir.Constant(self.type, [float(value)] * self.lanes)

    def index(self, value: int) -> Any:
        """Return a known value as an index."""
        return ir.Constant(I64, value)

    def data(self, array_type: Any, array: Any) -> Any:
        """Return the pointer to the first element of a flat array."""
        return self.context.make_array(array_type)(self.context, self.builder, array).data

    def at(self, pointer: Any, offset: Any) -> Any:
        """Return the pointer ``offset`` elements behind another."""
        if isinstance(offset, int):
            offset = self.index(offset)
        return self.builder.gep(pointer, [offset])

    def places(self, pointer: Any, stride: Any, count: int) -> list[Any]:
        """Return ``count`` pointers that are ``stride`` elements apart.

        Each is the one before plus the stride: products would all be kept ready, in memory.
        """
        found = [pointer]
        for _ in range(count - 1):
            found.append(self.at(found[-1], stride))
        return found

    # --- vectors and memory ---

    def load(self, pointer: Any) -> Any:
        """Return the vector at any address."""
        b = self.builder
        return b.load(b.bitcast(pointer, self.type.as_pointer()), align=self.itemsize)

    def store(self, vector: Any, pointer: Any) -> None:
        """Store a vector to any address."""
        b = self.builder
        b.store(vector, b.bitcast(pointer, self.type.as_pointer()), align=self.itemsize)

    def first(self, count: Any, start: int = 0) -> Any:
        """Return the mask of the lanes below ``count``, where they are counted from ``start``."""
        kind = ir.VectorType(I32, self.lanes)
        numbers = ir.Constant(kind, list(range(start, start + self.lanes)))
        count = self._splat(self.builder.trunc(count, I32), kind)
        return self.builder.icmp_signed("<", numbers, count)

    def parity(self) -> Any:
        """Return the mask of the even lanes."""
        return ir.Constant(self.mask_type, [i % 2 == 0 for i in range(self.lanes)])

    def all_or_none(self, condition: Any) -> Any:
        """Return the mask of all lanes if a condition holds, else of none."""
        return self._splat(condition, self.mask_type)

    def load_masked(self, pointer: Any, mask: Any, others: Any = None) -> Any:
        """Load the lanes of a mask; the others are 0, or given, and their memory is not touched."""
        b, pointer_type = self.builder, self.type.as_pointer()
        kind = ir.FunctionType(self.type, [pointer_type, I32, self.mask_type, self.type])
        load = cgutils.get_or_insert_function(b.module, kind, f"llvm.masked.load.{self._name}.p0")
        align = ir.Constant(I32, self.itemsize)
        return b.call(load, [b.bitcast(pointer, pointer_type), align, mask, others or self.zero])

    def store_masked(self, vector: Any, pointer: Any, mask: Any) -> None:
        """Store the lanes of a mask."""
        b, pointer_type = self.builder, self.type.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [self.type, pointer_type, I32, self.mask_type])
        store = cgutils.get_or_insert_function(b.module, kind, f"llvm.masked.store.{self._name}.p0")
        align = ir.Constant(I32, self.itemsize)
        b.call(store, [vector, b.bitcast(pointer, pointer_type), align, mask])

    def prefetch(self, pointer: Any, to_write: int) -> None:
        """Ask for a line of memory to be in the cache, to be read or written to."""
        b, kind = self.builder, ir.IntType(8).as_pointer()
        declared = ir.FunctionType(ir.VoidType(), [kind, I32, I32, I32])
        call = cgutils.get_or_insert_function(b.module, declared, "llvm.prefetch.p0")
        hints = [ir.Constant(I32, hint) for hint in (to_write, 2, 1)]
        b.call(call, [b.bitcast(pointer, kind), *hints])

    # --- arithmetic ---

    def fma(self, x: Any, y: Any, z: Any) -> Any:
        """Return x * y + z, with one rounding where `emit_fma` has it."""
        return emit_fma(self.builder, x, y, z)

    def doubles(self) -> Vectors:
        """Return vectors of float64 with as many lanes, for sums of many numbers."""
        return Vectors(self.context, self.builder, types.float64, self.lanes)

    def widened(self, x: Any) -> Any:
        """Return a vector as one of the `doubles`, and a scalar as a scalar of theirs."""
        kind = self.doubles().type if isinstance(x.type, ir.VectorType) else ir.DoubleType()
        return x if self.itemsize == 8 else self.builder.fpext(x, kind)

    def narrowed(self, x: Any) -> Any:
        """Return one of the `doubles`, or a scalar of theirs, rounded to the type of these."""
        kind = self.type if isinstance(x.type, ir.VectorType) else self.scalar
        return x if self.itemsize == 8 else self.builder.fptrunc(x, kind)

    def narrower(self, lanes: int) -> Vectors:
        """Return vectors of the same type with so many lanes."""
        kind = types.float32 if self.itemsize == 4 else types.float64
        return Vectors(self.context, self.builder, kind, lanes)

    def splat(self, scalar: Any) -> Any:
        """Return a vector with a scalar in all lanes."""
        return self._splat(scalar, self.type)

    def at_least(self, x: Any, low: Any) -> Any:
        """Return low where x is smaller, else x; NaN stays NaN."""
        b = self.builder
        return b.select(b.fcmp_ordered("<", x, low), low, x)

    def shuffle(self, x: Any, y: Any, lanes: Sequence[int]) -> Any:
        """Return the vector of these lanes, counted through x and y."""
        mask = ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
        return self.builder.shuffle_vector(x, y, mask)

    def joined(self, parts: list[Any]) -> Any:
        """Return the vector of narrower ones that follow each other."""
        while len(parts) > 1:
            lanes = range(2 * parts[0].type.count)
            pairs = zip(parts[::2], parts[1::2], strict=True)
            parts = [self.shuffle(x, y, lanes) for x, y in pairs]
        return parts[0]

    def integers(self, pointer: Any) -> Any:
        """Return the vector of as many int32 as there are lanes."""
        kind = ir.VectorType(I32, self.lanes)
        return self.builder.load(self.builder.bitcast(pointer, kind.as_pointer()), align=4)

    def equal(self, integers: Any, number: Any) -> Any:
        """Return the mask of the lanes whose int32 is this number."""
        return self.builder.icmp_signed("==", integers, self._splat(number, integers.type))

    def sums(self, vectors: list[Any]) -> Any:
        """Return the sum of each of as many vectors as there are lanes, as one vector.

        Two vectors become one that holds their half sums, and so on: a tree of lanes - 1 additions.
        """
        width = self.lanes // 2
        while width:
            half = len(vectors) // 2
            vectors = [self._halves(vectors[i], vectors[i + half], width) for i in range(half)]
            width //= 2
        return vectors[0]

    def _halves(self, x: Any, y: Any, width: int) -> Any:
        """Add the parts of ``width`` lanes of x two by two, and those of y between them."""
        lanes = range(self.lanes)
        low = [i if not i & width else self.lanes + i - width for i in lanes]
        high = [i + width if not i & width else self.lanes + i for i in lanes]
        return self.builder.fadd(self.shuffle(x, y, low), self.shuffle(x, y, high))

    def transposed(self, rows: list[Any]) -> list[Any]:
        """Return the columns of a square block of vectors, its rows.

        Of fewer vectors, the squares that follow each other along them are transposed.
        """
        rows, width, lanes = list(rows), len(rows) // 2, range(self.lanes)
        while width:
            low = [i if not i & width else self.lanes + i - width for i in lanes]
            high = [i + width if not i & width else self.lanes + i for i in lanes]
            for i in range(len(rows)):
                if not i & width:
                    x, y = rows[i], rows[i + width]
                    rows[i], rows[i + width] = self.shuffle(x, y, low), self.shuffle(x, y, high)
            width //= 2
        return rows

    def _splat(self, scalar: Any, kind: Any) -> Any:
        undefined = ir.Constant(kind, ir.Undefined)
        one = self.builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
        everywhere = ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count)
        return self.builder.shuffle_vector(one, undefined, everywhere)

    @property
    def _name(self) -> str:
        return f"v{self.lanes}f{8 * self.itemsize}"


def emitted_by_class(arrays: int, emits: dict[type, Callable[..., None]]) -> Any:
    """Return a function as of `emitted`; the class of its first argument, a tuple, chooses emit."""

    def typed(context: Any, *given: Any) -> Any:
        emit = emits[given[0].instance_class]
        kinds = [*given[: arrays + 1], *[types.int64] * (len(given) - arrays - 1)]

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            v = Vectors(context, builder, signature.args[1].dtype)
            pointers = [v.data(signature.args[i], args[i]) for i in range(1, arrays + 1)]
            emit(v, *pointers, *args[arrays + 1 :])
            return context.get_dummy_value()

        return types.void(*kinds), generate

    context, *rest = inspect.signature(next(iter(emits.values()))).parameters.values()
    first = context.replace(name="t")
    typed.__signature__ = inspect.Signature([context, first, *rest])  # type: ignore[attr-defined]
    return intrinsic(typed)


def emitted(arrays: int, emit: Callable[..., None]) -> Any:
    """Return a function for compiled code, of so many flat arrays and then integers.

    ``emit(v, *pointers, *integers)`` writes its instructions; v are the `Vectors` of the type of
    the first array.
    """

    def typed(context: Any, *given: Any) -> Any:
        kinds = [*given[:arrays], *[types.int64] * (len(given) - arrays)]

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            v = Vectors(context, builder, signature.args[0].dtype)
            pointers = [v.data(signature.args[i], args[i]) for i in range(arrays)]
            emit(v, *pointers, *args[arrays:])
            return context.get_dummy_value()

        return types.void(*kinds), generate

    typed.__signature__ = inspect.signature(emit)  # type: ignore[attr-defined]  # v is the context
    return intrinsic(typed)

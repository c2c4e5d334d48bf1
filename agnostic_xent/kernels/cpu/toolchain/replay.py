"""Recorded calls of loops as a table that compiled code runs, without Python between them.

A line of the table is a loop's machine code and the words of its arguments. The signatures of loops
differ, so each signature has a function of its own that reads the words and calls: `unpacked`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import extending as _extending
from numba import njit as _njit
from numba import types as _types
from numba.core import cgutils as _cgutils
from numba.np.arrayobj import populate_array as _populate_array

from .callees import CALLEE
from .compiling import LOOPS, Compiled, compiled_in_parts
from .signatures import FLOATS, Array, Read1, Write1, signature_of

cgutils: Any = _cgutils  # Numba is typed in part only
intrinsic: Any = _extending.intrinsic
plain: Any = _njit(**CALLEE)  # type: ignore[call-overload,unused-ignore]
populate_array: Any = _populate_array
types: Any = _types

WORD = ir.IntType(64)


# --- the words of arguments ----------------------------------------------------------------------


@functools.cache
def signature(loop: Any) -> tuple[Any, ...]:
    """Return the types of a loop's arguments, parts and part being the last ones."""
    (found,) = loop.signatures
    return tuple(found)


def words_of(kind: Any, value: Any) -> Iterator[int]:
    """Yield the words of an argument of a type: of an array, where it begins and its shape."""
    if isinstance(kind, types.Array):
        yield address_of(value)
        yield from value.shape
    elif isinstance(kind, types.BaseTuple):
        for inner, part in zip(kind.types, value, strict=True):
            yield from words_of(inner, part)
    elif isinstance(kind, types.Float):
        yield int(np.float64(value).view(np.int64))
    else:
        yield int(value)


def address_of(x: Any) -> int:
    """Return where the numbers of an array begin."""
    address: int = x.__array_interface__["data"][0]
    return address


def _from_words(context: Any, builder: Any, kind: Any, words: Iterator[Any]) -> Any:
    """Emit the value of an argument of a type, from the next of the words."""
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder)
        data = builder.inttoptr(next(words), array.data.type)
        shape = [next(words) for _ in range(kind.ndim)]
        size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
        strides = [ir.Constant(WORD, size)]
        for length in shape[:0:-1]:
            strides.insert(0, builder.mul(strides[0], length))
        populate_array(array, data, shape, strides, size, None)
        return array._getvalue()
    if isinstance(kind, types.BaseTuple):
        parts = [_from_words(context, builder, inner, words) for inner in kind.types]
        return context.make_tuple(builder, kind, parts)
    word = next(words)
    if isinstance(kind, types.Boolean):
        return builder.icmp_signed("!=", word, ir.Constant(WORD, 0))
    return builder.bitcast(word, context.get_value_type(kind))


def _called(context: Any, builder: Any, address: Any, kinds: Any, values: Any) -> None:
    """Emit a call of the machine code at an address; what it raises goes on."""
    code = context.call_conv.get_function_type(types.void, kinds)
    target = builder.inttoptr(address, code.as_pointer())
    status, _ = context.call_conv.call_function(builder, target, types.void, kinds, values)
    with cgutils.if_unlikely(builder, status.is_error):
        context.call_conv.return_status_propagate(builder, status)


# --- a line of the table -------------------------------------------------------------------------


@intrinsic
def _unpacked(context: Any, kinds: Any, loop: Any, words: Any, parts: Any, part: Any) -> Any:
    every = kinds.instance_type.types

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, loop, place, parts, part = args
        first = builder.inttoptr(place, WORD.as_pointer())

        def words() -> Iterator[Any]:
            number = 0
            while True:
                yield builder.load(builder.gep(first, [ir.Constant(WORD, number)]))
                number += 1

        each = words()
        values = [_from_words(context, builder, kind, each) for kind in every[:-2]]
        _called(context, builder, loop, every, [*values, parts, part])
        return context.get_dummy_value()

    return types.void(kinds, *[types.int64] * 4), emit


@dataclass(frozen=True)
class Kinds:
    """The types of a loop's arguments, as the type of an argument."""

    each: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{len(self.each)} arguments"

    def of(self, chosen: Any) -> Any:
        """Return the Numba type."""
        return types.TypeRef(types.BaseTuple.from_types(self.each))


class OfEachSignature(Compiled):
    """A function that is compiled for the arguments of each loop in parts."""

    def variants(self) -> Iterator[Any]:
        """Yield the types of the arguments of all loops in parts."""
        found = set()
        for loop in LOOPS:
            for variant in loop.variants() if loop.pieces else ():
                values = variant if isinstance(variant, tuple) else (variant,)
                chosen = dict(zip(loop.choices, values, strict=True))
                found.add(Kinds(signature_of(loop.function, chosen).args))
        yield from found


def of_each_signature(function: Callable[..., Any]) -> OfEachSignature:
    """Compile a function for each type of ``kinds`` (decorator)."""
    return OfEachSignature(function, {"kinds": ()})


@of_each_signature
def unpacked(kinds: Any, loop: int, words: int, count: int, number: int) -> None:
    """Call the loop at an address with the arguments whose words are at another one, and a part."""
    _unpacked(kinds, loop, words, count, number)


@functools.cache
def unpacked_for(loop: Any) -> int:
    """Return the address of `unpacked` for the arguments of a loop."""
    return machine_address(unpacked[Kinds(signature(loop))])


def machine_address(dispatcher: Any) -> int:
    """Return where the machine code of a function begins that is compiled once."""
    (made,) = dispatcher.overloads.values()
    address: int = made.library.get_pointer_to_function(made.fndesc.llvm_func_name)
    return address


# --- the table -----------------------------------------------------------------------------------


class Pointer(NamedTuple):
    """A word that is an address."""

    word: int
    offset: int
    """Bytes from where what it points into begins."""


POINTER = np.dtype([(name, np.int64) for name in Pointer._fields])
Pointers = Annotated[Any, Array(POINTER, 1)]


class Line(NamedTuple):
    """A call in the table."""

    unpacked: int
    """The address of what reads the words and calls the loop."""
    loop: int
    words: int
    """Where its words begin."""
    parts: int


LINE = np.dtype([(name, np.int64) for name in Line._fields])
Lines = Annotated[Any, Array(LINE, 1)]
Words = Annotated[Any, Array(np.dtype(np.int64), 1, written=True)]


@intrinsic
def _run_line(context: Any, unpacked: Any, loop: Any, words: Any, parts: Any, part: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        nothing = context.get_constant_null(types.voidptr)
        kinds = [types.voidptr, *[types.int64] * 4]
        _called(context, builder, args[0], kinds, [nothing, *args[1:]])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), emit


@plain
def aim(words: Any, w0: Any, pointers: Any, x: Any, x0: Any) -> None:
    """Set words from w0 on to addresses of numbers of x: so many bytes behind x[x0]."""
    start = x.ctypes.data + x0 * x.itemsize
    for pointer in pointers:
        words[w0 + pointer.word] = start + pointer.offset


@compiled_in_parts(kind=FLOATS)
def run(
    x: Read1, y: Write1, words: Words, lines: Lines, inputs: Pointers, outputs: Pointers,
    pieces: int, board: int, parts: int, part: int,
) -> None:  # fmt: skip
    """Run a table for pieces of x, to pieces of y; each part has words of its own.

    ``board``: where the lines are shared out that have parts; 0 for not at all.
    """
    size, start = words.size // parts, words.ctypes.data
    for piece in range(pieces * part // parts, pieces * (part + 1) // parts):
        aim(words, part * size, inputs, x, piece * (x.size // pieces))
        aim(words, part * size, outputs, y, piece * (y.size // pieces))
        for line in lines:
            place = start + 8 * (part * size + line.words)
            if board and line.parts > 1:
                _run_line(line.unpacked, line.loop, place, line.parts, -board)
            else:
                _run_line(line.unpacked, line.loop, place, 1, 0)

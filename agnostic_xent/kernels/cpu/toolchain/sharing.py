"""Parts of a loop, shared out between threads by compiled code.

A thread that has done its parts looks for the next loop for a while before it sleeps: from one loop
to the next no thread is woken, and none of them needs Python's lock.

What threads have in common are the words of a board, each in a line of the cache of its own. The
one that shares a loop out writes where its code and its arguments are, opens the board, and does
parts like the others; when all are done it closes the board, and waits until nobody is inside.
Every access is sequentially consistent: who comes inside and then finds the board open is waited
for. While it is taken, a loop of another thread of Python is done by that thread alone.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending as _extending
from numba import njit as _njit
from numba import types as _types
from numba.core import cgutils as _cgutils

from .callees import CALLEE

cgutils: Any = _cgutils  # Numba is typed in part only
intrinsic: Any = _extending.intrinsic
njit: Any = _njit
types: Any = _types

WORD, BYTE_POINTER = ir.IntType(64), ir.IntType(8).as_pointer()

# --- the board -----------------------------------------------------------------------------------

TAKEN, NUMBER, OPEN, CODE, ARGUMENTS, PARTS, NEXT, DONE, FAILED, WANTED, SEATS, INSIDE, LOOKING = (
    8 * line * 8 for line in range(13)
)
"""Where the words are, in bytes: whether the board is taken; the number of its loop, and whether
there are parts of it to do; where its code and arguments are; how many parts there are, the next
one, how many are done, and one that failed, counted from 1; how many other threads a loop is for,
how many more of them it is for, how many are at it, and how many look for work."""


def new_board() -> Any:
    """Return the words of a board that nobody looks at."""
    return np.zeros((13, 8), np.int64)


@intrinsic
def load(context: Any, address: Any) -> Any:
    """Return the word at an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.inttoptr(args[0], WORD.as_pointer())
        return builder.load_atomic(place, "seq_cst", 8)

    return types.int64(types.int64), emit


@intrinsic
def store(context: Any, address: Any, word: Any) -> Any:
    """Write a word to an address."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.inttoptr(args[0], WORD.as_pointer())
        builder.store_atomic(args[1], place, "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@intrinsic
def add(context: Any, address: Any, word: Any) -> Any:
    """Add to the word at an address, and return what was there, in a single step."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.inttoptr(args[0], WORD.as_pointer())
        return builder.atomic_rmw("add", place, args[1], "seq_cst")

    return types.int64(types.int64, types.int64), emit


@intrinsic
def replace(context: Any, address: Any, word: Any) -> Any:
    """Write to the word at an address, and return what was there, in a single step."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.inttoptr(args[0], WORD.as_pointer())
        return builder.atomic_rmw("xchg", place, args[1], "seq_cst")

    return types.int64(types.int64, types.int64), emit


HINTS = (
    (("x86_64", "i386", "i686"), "llvm.x86.sse2.pause", ()),
    (("aarch64", "arm64"), "llvm.aarch64.hint", (1,)),
)
"""Processors, and the instruction by which they are told that a thread is waiting."""


@intrinsic
def pause(context: Any) -> Any:
    """Tell the processor that a thread is waiting, if it is one that can be told."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        for processors, name, words in HINTS:
            if builder.module.triple.startswith(processors):
                hint = [ir.Constant(ir.IntType(32), word) for word in words]
                shape = ir.FunctionType(ir.VoidType(), [word.type for word in hint])
                builder.call(cgutils.get_or_insert_function(builder.module, shape, name), hint)
        return context.get_dummy_value()

    return types.void(), emit


# --- a loop --------------------------------------------------------------------------------------


@intrinsic
def code_and_arguments(context: Any, args: Any, result: Any) -> Any:
    """Return the addresses of code that does a part of the function this is in, and of its args.

    They are valid until it returns. ``result`` is what it may return, for its type.
    """

    def emit(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        kinds = signature.args[0].types
        values = cgutils.unpack_tuple(builder, given[0], len(kinds))
        struct = ir.LiteralStructType([value.type for value in values])
        room = cgutils.alloca_once(builder, struct)
        for i, value in enumerate(values):
            builder.store(value, cgutils.gep_inbounds(builder, room, 0, i))
        code = _code_of_a_part(context, builder.function, kinds, struct, signature.args[1])
        words = [builder.ptrtoint(pointer, WORD) for pointer in (code, room)]
        return context.make_tuple(builder, signature.return_type, words)

    return types.UniTuple(types.int64, 2)(args, result), emit


def _code_of_a_part(context: Any, loop: Any, kinds: Any, struct: Any, result: Any) -> Any:
    """Emit ``(address of arguments, part) -> whether it failed`` for a loop's native function."""
    shape = ir.FunctionType(WORD, [BYTE_POINTER, WORD])
    code = ir.Function(loop.module, shape, f"{loop.name}.of_a_part")
    code.linkage = "internal"
    builder = ir.IRBuilder(code.append_basic_block())
    room = builder.bitcast(code.args[0], struct.as_pointer())
    values = [
        builder.load(cgutils.gep_inbounds(builder, room, 0, i)) for i in range(len(struct.elements))
    ]
    every, part = (*kinds, types.int64), code.args[1]
    status, _ = context.call_conv.call_function(builder, loop, result, every, [*values, part])
    builder.ret(builder.zext(status.is_error, WORD))
    return code


@intrinsic
def do_part(context: Any, code: Any, arguments: Any, part: Any) -> Any:
    """Do a part, by the addresses of code and arguments, and return whether it failed."""

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        shape = ir.FunctionType(WORD, [BYTE_POINTER, WORD])
        code = builder.inttoptr(args[0], shape.as_pointer())
        return builder.call(code, [builder.inttoptr(args[1], BYTE_POINTER), args[2]])

    return types.int64(types.int64, types.int64, types.int64), emit


# --- sharing -------------------------------------------------------------------------------------

YIELDS = hasattr(os, "sched_yield")
sched_yield = types.ExternalFunction("sched_yield", types.int32())

OTHERS_TURN = 1 << 10
"""Times that a thread looks before it lets others run on its processor."""


@njit(**CALLEE)
def wait(looks: Any) -> Any:
    """Wait a moment, after so many; return how many there have been."""
    if YIELDS and looks % OTHERS_TURN == OTHERS_TURN - 1:
        sched_yield()
    else:
        pause()
    return looks + 1


@njit(**CALLEE)
def work(board: Any) -> None:
    """Do parts until all are taken."""
    code, arguments, parts = load(board + CODE), load(board + ARGUMENTS), load(board + PARTS)
    part = add(board + NEXT, 1)
    while part < parts:
        if do_part(code, arguments, part):
            store(board + FAILED, part + 1)
        add(board + DONE, 1)
        part = add(board + NEXT, 1)


@njit(**CALLEE)
def share_out(board: Any, code: Any, arguments: Any, parts: Any) -> Any:
    """Have all parts done; return one that failed, counted from 1, or 0."""
    failed, looks = 0, 0
    if replace(board + TAKEN, 1):
        for part in range(parts):
            if do_part(code, arguments, part):
                failed = part + 1
        return failed
    store(board + CODE, code)
    store(board + ARGUMENTS, arguments)
    store(board + PARTS, parts)
    store(board + NEXT, 0)
    store(board + DONE, 0)
    store(board + FAILED, 0)
    store(board + SEATS, load(board + WANTED))
    add(board + NUMBER, 1)
    store(board + OPEN, 1)
    work(board)
    while load(board + DONE) < parts:
        looks = wait(looks)
    store(board + OPEN, 0)
    while load(board + INSIDE) > 0:
        looks = wait(looks)
    failed = load(board + FAILED)
    store(board + TAKEN, 0)
    return failed


PATIENCE = 1 << 12
"""Times that a thread looks for the next loop before it sleeps: about 100 us."""


def look_for_work(board: int) -> None:
    """Do parts of the loops that are shared out on a board, until there are none for a while."""
    seen = looks = 0
    add(board + LOOKING, 1)
    while looks < PATIENCE:
        number = load(board + NUMBER)
        if number == seen or load(board + OPEN) == 0:
            looks = wait(looks)
            continue
        seen = number
        add(board + INSIDE, 1)
        if load(board + OPEN) and add(board + SEATS, -1) > 0:
            work(board)
        add(board + INSIDE, -1)
        looks = 0
    add(board + LOOKING, -1)


# --- functions that are shared out ---------------------------------------------------------------


def shared_out(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function ``(*args, parts, part)`` whose parts are shared out for ``part = -board``.

    Else it does the part, as ``function`` does; a part that failed is done again, to raise what it
    raised. Numba needs a function that names its parameters.
    """
    names = ", ".join(inspect.signature(function).parameters)
    source = f"""
def shared({names}):
    if part < 0:
        _code, _arguments = _code_and_arguments(({names.removesuffix(", part")},), _nothing)
        _failed = _share_out(-part, _code, _arguments, parts)
        if not _failed:
            return _nothing
        part = _failed - 1
    return _loop({names})
"""
    scope: dict[str, Any] = {
        "_code_and_arguments": code_and_arguments,
        "_share_out": share_out,
        "_loop": njit(**CALLEE)(function),
        "_nothing": 0.0 if function.__annotations__["return"] in (float, "float") else None,
    }
    exec(source, scope)
    shared: Callable[..., Any] = scope["shared"]
    for name in ("__module__", "__name__", "__qualname__"):
        setattr(shared, name, getattr(function, name))
    return shared

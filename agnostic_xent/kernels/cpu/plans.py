"""Plans on NumPy: the loops that a function of an array has run once, as a table to run again.

A function is called once, and the calls of its loops are recorded. Those that do not depend on its
argument, such as the packing of weights, are done by that; what they made is kept. The others are
lines of a table. Each array between two of them gets a place in one piece of memory, where it
shares room with those that are not needed at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ...core.plans import PLANNERS, Constants, NoPlan, Planner, Step
from .toolchain.arguments import flat
from .toolchain.memory import empty
from .toolchain.replay import (
    LINE,
    POINTER,
    Line,
    Pointer,
    address_of,
    machine_address,
    run,
    signature,
    types,
    unpacked_for,
    words_of,
)
from .toolchain.threads import Call, Record, board_of, recorded, threads

LINE_BYTES = 64
"""Of the cache: where an array may begin."""

SHORT, WORTH_SHARING = 4e-6, 5e-5
"""Seconds of a step below which one thread does it; of all longer ones, from which others join."""


NOT_LOOPS = "compiled loops alone do not make the value"
"""Why there is no plan where a kernel does some work by NumPy."""


class Region:
    """The memory of one array, and the first and the last call that need it."""

    def __init__(self, x: Any, number: int):
        self.start = address_of(x)
        self.end = self.start + x.nbytes
        self.first = self.last = number
        self.place = 0
        self.pointers: list[Pointer] = []

        self.pieces = 1
        """Of equal size, one for each thread."""
        self.needed = 1
        """Of them, by the threads that run the only call there is."""

    @property
    def size(self) -> int:
        """Bytes that are needed, rounded up to whole lines of the cache."""
        lines: int = -(-(self.end - self.start) * self.needed // (self.pieces * LINE_BYTES))
        return lines * LINE_BYTES


class Recording:
    """Calls that depend on an argument x, and the memory that they need."""

    def __init__(self, record: Record, x: Any, y: Any):
        self.input = Region(x, 0)
        self.regions: list[Region] = [self.input]
        self.scratch = record.scratch
        self.calls: list[Call] = []
        for call in record.calls:
            self._note(call)
        self.output = self._region_at(y)

    def _region_at(self, x: Any) -> Region | None:
        address = address_of(x)
        inside = (r for r in self.regions if r.start <= address < r.end and x.size)
        return next(inside, None)

    def _note(self, call: Call) -> None:
        """Add a call if it reads what depends on the argument."""
        arrays = [
            (k, a)
            for k, a in zip(signature(call.loop), call.args, strict=False)
            if isinstance(k, types.Array)
        ]
        if not any(self._region_at(a) for kind, a in arrays if not kind.mutable):
            return
        for kind, a in arrays:
            region = self._region_at(a)
            if region is None and kind.mutable:
                region = Region(a, len(self.calls))
                if any(np.may_share_memory(a, other) for other in self.scratch):
                    region.pieces = threads()
                self.regions.append(region)
            if region is not None:
                region.end = max(region.end, address_of(a) + a.nbytes)
                region.last = len(self.calls)
        self.calls.append(call)

    def words(self, constants: Constants) -> tuple[list[int], list[int]]:
        """Return the words of all calls, and where each call's begin; regions note their own."""
        words: list[int] = []
        starts: list[int] = []
        for call in self.calls:
            starts.append(len(words))
            for kind, value in zip(signature(call.loop), call.args, strict=False):
                if isinstance(kind, types.Array):
                    region = self._region_at(value)
                    if region is None:
                        value = _shared(value, constants)
                    else:
                        pointer = Pointer(len(words), address_of(value) - region.start)
                        region.pointers.append(pointer)
                words.extend(words_of(kind, value))
        return words, starts


class Layout:
    """Places for regions in one piece of memory.

    Two that some call needs both do not overlap. The largest ones are placed first.
    """

    def __init__(self, regions: list[Region]):
        self.size = _placed(regions)
        """Bytes of all."""
        self.inner = [(word, r.place + offset) for r in regions for word, offset in r.pointers]
        """The words that are addresses, and of what."""


def _placed(regions: list[Region]) -> int:
    """Give each region its place, and return the bytes of all."""
    done: list[Region] = []
    for region in sorted(regions, key=lambda r: -r.size):
        region.place = 0
        alive = [r for r in done if r.first <= region.last and region.first <= r.last]
        for other in sorted(alive, key=lambda r: r.place):
            if region.place + region.size <= other.place:
                break
            region.place = max(region.place, other.place + other.size)
        done.append(region)
    return max((r.place + r.size for r in done), default=0)


def _shared(x: Any, constants: Constants) -> Any:
    """Return an array of the same content that other plans use, too."""
    kept = constants.setdefault((x.dtype, x.shape), [])
    for other in kept:
        if np.array_equal(other, x):
            return other
    kept.append(x)
    return x


class Room:
    """What a call of a plan writes to: for each of its parts words of its own, and memory."""

    def __init__(self, words: Any, layout: Layout, parts: int):
        self.words = np.tile(words, parts)
        space = empty((parts * layout.size + LINE_BYTES,), np.uint8)
        self.space = space[-address_of(space) % LINE_BYTES :]
        for part in range(parts):
            first, start = part * words.size, address_of(self.space) + part * layout.size
            for word, offset in layout.inner:
                self.words[first + word] = start + offset


class LoopPlan:
    """The table of a function's calls."""

    def __init__(self, found: Recording, output: Region, x: Any, y: Any, constants: Constants):
        self.samples, self.sample, self.shape = len(x), x.shape[1:], y.shape[1:]
        self.dtype = y.dtype
        self.constants = constants  # the words are addresses of them
        words, starts = found.words(constants)
        self.inputs, self.outputs = x.size, y.size
        self.words = np.array(words, np.int64)
        self.input, self.output = (np.array(r.pointers, POINTER) for r in (found.input, output))
        self.loops = [call.loop for call in found.calls]  # whose machine code has to stay
        self.lines = np.array(
            [
                Line(
                    unpacked_for(call.loop),
                    machine_address(call.loop), start, call.parts,
                )
                for call, start in zip(found.calls, starts, strict=True)
            ],
            LINE,
        )  # fmt: skip
        inner = [r for r in found.regions if r is not found.input and r is not output]
        self.free: dict[int, list[Room]] = {}
        self.single = Layout(inner)
        self.alone = self._divide(x)
        self.shared = self.single if self.alone else self._for_threads(inner)

    def _divide(self, x: Any) -> bool:
        """Let one thread do each step that is short; return whether it should do all of them."""
        self.steps(x)  # which touches the memory for the first time
        seconds = np.array([step.seconds for step in self.steps(x)])
        short = (seconds < SHORT) | (threads() == 1)
        self.lines["parts"][short] = 1
        return bool(seconds[~short].sum() < WORTH_SHARING)

    def _for_threads(self, regions: list[Region]) -> Layout:
        """Return the layout for steps that are shared out."""
        for region in regions:
            region.needed = region.pieces if self.lines["parts"][region.first] > 1 else 1
        return Layout(regions)

    @property
    def size(self) -> int:
        """Bytes that a call in one thread needs beside the samples and the value."""
        return self.single.size

    def __call__(self, x: Any) -> Any:
        """Return the value for the samples x: so many, or a multiple.

        Threads share the pieces of x where there are enough of them, else the steps of each.
        """
        count, pieces = threads(), len(x) // self.samples
        y = empty((pieces * self.outputs,), self.dtype)
        if pieces >= count > 1:
            self._run(flat(x), y, self.lines, pieces, parts=count)
        else:
            board = 0 if self.alone or count == 1 else board_of(count)
            self._run(flat(x), y, self.lines, pieces, board=board)
        return y.reshape(-1, *self.shape)

    def _run(
        self, x: Any, y: Any, lines: Any, pieces: int = 1, *, parts: int = 1, board: int = 0
    ) -> None:
        """Run lines of the table for pieces of x, in parts for threads to share.

        With a board, it is the steps that they share.
        """
        free = self.free.setdefault(0 if board else parts, [])
        try:
            room = free.pop()
        except IndexError:
            room = Room(self.words, self.shared if board else self.single, parts)
        task = x, y, room.words, lines, self.input, self.output, pieces, board
        loop = run[self.dtype].part
        loop(*task, parts, 0 if parts == 1 else -board_of(parts))
        free.append(room)

    def steps(self, x: Any) -> list[Step]:
        """Return what is done, in order, and how long each step takes in one thread.

        A step may read what a later one has written over its numbers, which takes as long.
        """
        x, y, found = flat(x), empty((self.outputs,), self.dtype), []
        for number, loop in enumerate(self.loops):
            line = self.lines[number : number + 1]
            start = time.perf_counter()
            self._run(x, y, line)
            seconds = time.perf_counter() - start
            function: Any = getattr(loop, "py_func")  # noqa: B009  (of Numba)
            name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
            found.append(Step(name, int(line["parts"][0]), seconds))
        return found


def recorded_plan(function: Callable[[Any], Any], x: Any, constants: Constants) -> LoopPlan:
    """Return the plan of a function for arrays like x; NoPlan if loops alone do not make its value.

    Arrays between calls are kept apart by all being there until the last one.
    """
    with recorded() as record:  # while they are, kernels choose as for a plan
        y = function(x)
    found = Recording(record, x, y)
    output = found.output
    if output is None or output is found.input:
        raise NoPlan(NOT_LOOPS)
    whole = (output.start, output.end) == (address_of(y), address_of(y) + y.nbytes)
    if not whole or not y.flags.c_contiguous or len(x) != len(y) or x.dtype != y.dtype:
        raise NoPlan("the value is not one row a sample of its dtype, as a loop has written it")
    plan = LoopPlan(found, output, x, y, constants)
    same = _does_the_same(plan, function)
    plan.free.clear()  # other calls need other rooms
    if not same:
        raise NoPlan(NOT_LOOPS)
    return plan


def _does_the_same(plan: LoopPlan, function: Callable[[Any], Any]) -> bool:
    """Return whether a plan has the function's bits: not if a kernel does some work by NumPy."""
    shape = plan.samples, *plan.sample
    x = np.random.default_rng(0).standard_normal(shape).astype(plan.dtype)
    with recorded():
        y = function(x)
    return np.array_equal(plan(x), y, equal_nan=True)


PLANNERS["numpy"] = Planner(recorded_plan, in_pieces=True, kept=64)

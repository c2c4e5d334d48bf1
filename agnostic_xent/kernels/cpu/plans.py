"""Plans on NumPy: the loops that a function of an array has run once, as a table to run again.

A function is called once, and the calls of its loops are recorded. Those that do not depend on its
argument, such as the packing of weights, are done by that; what they made is kept. The others are
lines of a table. Each array between two of them gets a place in one piece of memory, where it
shares room with those that are not needed at the same time.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ...core.plans import PLANNERS, Constants, Step
from .toolchain.arguments import flat
from .toolchain.memory import empty
from .toolchain.replay import (
    LINE,
    POINTER,
    Kinds,
    Line,
    Pointer,
    address_of,
    machine_address,
    point,
    run,
    signature,
    types,
    unpacked,
    words_of,
)
from .toolchain.threads import Call, let_others_run, recorded, share_out, threads

LINE_BYTES = 64
"""Of the cache: where an array may begin."""

SHORT, WORTH_SHARING = 4e-6, 5e-5
"""Seconds of a step below which one thread does it; of all longer ones, from which others join."""

PATIENCE = 1 << 14
"""Times that a thread looks whether others are done before it lets them run: about 20 us."""


class Region:
    """The memory of one array, and the first and the last call that need it."""

    def __init__(self, x: Any, number: int):
        self.start = address_of(x)
        self.end = self.start + x.nbytes
        self.first = self.last = number
        self.place = 0
        self.pointers: list[Pointer] = []

    @property
    def size(self) -> int:
        """Bytes, rounded up to whole lines of the cache."""
        lines: int = -(-(self.end - self.start) // LINE_BYTES)
        return lines * LINE_BYTES


class Recording:
    """Calls that depend on an argument x, and the memory that they need."""

    def __init__(self, calls: list[Call], x: Any, y: Any):
        self.input = Region(x, 0)
        self.regions: list[Region] = [self.input]
        self.calls: list[Call] = []
        for call in calls:
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
            for k, a in zip(signature(call), call.args, strict=False)
            if isinstance(k, types.Array)
        ]
        if not any(self._region_at(a) for kind, a in arrays if not kind.mutable):
            return
        for kind, a in arrays:
            region = self._region_at(a)
            if region is None and kind.mutable:
                region = Region(a, len(self.calls))
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
            for kind, value in zip(signature(call), call.args, strict=False):
                if isinstance(kind, types.Array):
                    region = self._region_at(value)
                    if region is None:
                        value = _shared(value, constants)
                    else:
                        pointer = Pointer(len(words), address_of(value) - region.start)
                        region.pointers.append(pointer)
                words.extend(words_of(kind, value))
        return words, starts


def placed(regions: list[Region]) -> int:
    """Give each region a place in one piece of memory, and return the bytes of all.

    Two that some call needs both do not overlap. The largest ones are placed first.
    """
    done: list[Region] = []
    for region in sorted(regions, key=lambda r: -r.size):
        alive = [r for r in done if r.first <= region.last and region.first <= r.last]
        for other in sorted(alive, key=lambda r: r.place):
            if region.place + region.size <= other.place:
                break
            region.place = max(region.place, other.place + other.size)
        done.append(region)
    return max((r.place + r.size for r in done), default=0)


def _shared(x: Any, constants: Constants) -> Any:
    """Return an array of the same content that other plans use, too."""
    digest = hashlib.blake2b(memoryview(x).cast("B"), digest_size=16).digest() if x.size else b""
    return constants.setdefault((x.dtype.str, x.shape, digest), x)


class Run:
    """What a call of a plan writes to: the words, the memory, and who has done what."""

    def __init__(self, plan: LoopPlan):
        self.words, self.done = plan.words.copy(), np.zeros(2 * len(plan.lines), np.int64)
        space = empty((plan.size + LINE_BYTES,), np.uint8)
        self.space = space[-address_of(space) % LINE_BYTES :]
        for word, offset in plan.inner:
            self.words[word] = address_of(self.space) + offset


class LoopPlan:
    """The table of a function's calls."""

    def __init__(self, found: Recording, output: Region, x: Any, y: Any, constants: Constants):
        self.samples, self.shape, self.dtype = len(x), y.shape[1:], y.dtype
        self.constants = constants  # the words are addresses of them
        words, starts = found.words(constants)
        self.inputs, self.outputs = x.size, y.size
        self.words = np.array(words, np.int64)
        self.input, self.output = (np.array(r.pointers, POINTER) for r in (found.input, output))
        inner = [r for r in found.regions if r is not found.input and r is not output]
        self.size = placed(inner)
        self.inner = [(word, r.place + offset) for r in inner for word, offset in r.pointers]
        self.loops = [call.loop for call in found.calls]  # whose machine code has to stay
        self.lines = np.array(
            [
                Line(
                    machine_address(unpacked[Kinds(signature(call))]),
                    machine_address(call.loop), start, call.parts,
                )
                for call, start in zip(found.calls, starts, strict=True)
            ],
            LINE,
        )  # fmt: skip
        self.free: list[Run] = []
        self.alone = self._divide(x)

    def _divide(self, x: Any) -> bool:
        """Let one thread do each step that is short; return whether it should do all of them."""
        self.steps(x)  # which touches the memory for the first time
        seconds = np.array([step.seconds for step in self.steps(x)])
        short = (seconds < SHORT) | (threads() == 1)
        self.lines["parts"][short] = 1
        return bool(seconds[~short].sum() < WORTH_SHARING)

    def __call__(self, x: Any) -> Any:
        """Return the value for the samples x: so many, or a multiple.

        Threads share the pieces of x where there are enough of them, else the steps of each.
        """
        x, many = flat(x), len(x) // self.samples
        y = empty((many * self.outputs,), self.dtype)
        if many >= threads() > 1:
            share_out(self._piece, (x, y), many)
        else:
            for part in range(many):
                self._piece(x, y, many, part, alone=self.alone)
        return y.reshape(-1, *self.shape)

    def _piece(self, x: Any, y: Any, parts: int, part: int, *, alone: bool = True) -> None:
        """Write y for one of the pieces of x; ``alone``: in the thread of the caller."""
        mine = self._start(x, y, part)
        if alone:
            self._go(mine, 1, 0)
        else:
            share_out(self._go, (mine,), threads())
        self.free.append(mine)

    def _start(self, x: Any, y: Any, part: int) -> Run:
        """Return what a call writes to, with the places of a piece of x and y."""
        try:
            mine = self.free.pop()
        except IndexError:
            mine = Run(self)
        aim = point[self.dtype]
        aim(mine.words, self.input, x, part * self.inputs)
        aim(mine.words, self.output, y, part * self.outputs)
        mine.done.fill(0)
        return mine

    def _go(self, mine: Run, parts: int, part: int) -> None:
        """Run the lines, together with whoever does the same."""
        first, last, loop = 0, len(self.lines), run[()]
        while first < last:
            first = loop(mine.words, self.lines, mine.done, first, last, PATIENCE)
            if first < last:
                let_others_run()

    def steps(self, x: Any) -> list[Step]:
        """Return what is done to x, in order, and how long each step takes in one thread."""
        x, y = flat(x), empty((self.outputs,), self.dtype)  # which stay until the last step
        mine, found = self._start(x, y, 0), []
        for number, (loop, line) in enumerate(zip(self.loops, self.lines, strict=True)):
            start = time.perf_counter()
            run[()](mine.words, self.lines, mine.done, number, number + 1, PATIENCE)
            seconds = time.perf_counter() - start
            function: Any = getattr(loop, "py_func")  # noqa: B009  (of Numba)
            name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
            found.append(Step(name, int(line["parts"]), seconds))
        self.free.append(mine)
        return found


def recorded_plan(function: Callable[[Any], Any], x: Any, constants: Constants) -> LoopPlan | None:
    """Return the plan of a function for arrays like x; None if loops alone do not make its value.

    Arrays between calls are kept apart by all being there until the last one.
    """
    with recorded() as calls:
        y = function(x)
    found = Recording(calls, x, y)
    output = found.output
    if output is None or output is found.input:
        return None
    whole = (output.start, output.end) == (address_of(y), address_of(y) + y.nbytes)
    if not whole or not y.flags.c_contiguous or len(x) != len(y) or x.dtype != y.dtype:
        return None
    return LoopPlan(found, output, x, y, constants)


PLANNERS["numpy"] = recorded_plan

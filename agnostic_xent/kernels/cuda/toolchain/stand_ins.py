"""Python stand-ins for ptx.py in Numba's simulator, which they make strict, and fast.

The threads of a block take turns, in an order drawn anew each round from a fixed seed: each runs
until it meets a barrier. A number that is used before all have met is thus seldom there. Shared and
local memory hold NaN at first; a copy lands only when it is waited for; an index outside an array,
a vector that is not aligned, and lanes of a warp that do not meet are errors.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

greenlet: Any = importlib.import_module("greenlet")
kernel: Any = importlib.import_module("numba.cuda.simulator.kernel")
kernelapi: Any = importlib.import_module("numba.cuda.simulator.kernelapi")
as_dtype: Any = importlib.import_module("numba.cuda.np.numpy_support").as_dtype

LANES = 32

# --- threads and memory --------------------------------------------------------------------------


class Thread(greenlet.greenlet):  # type: ignore[misc]
    """A thread of a block, which runs until it waits for others."""

    def __init__(self, function: Callable[[], None], block: Any, thread: Any, number: int):
        super().__init__(function)
        self.blockIdx, self.threadIdx = kernelapi.Dim3(*block), kernelapi.Dim3(*thread)
        self.thread_id = number
        self.waits_for = ""
        self.warp: Any = None
        self.copies: list[list[Any]] = [[]]

    def syncthreads(self) -> None:
        """Wait for all threads of the block."""
        self.wait("block")

    def wait(self, whom: str) -> None:
        """Let other threads run until those of ``whom``, a block or a warp, have met."""
        self.waits_for = whom
        self.parent.switch()


class Warp:
    """Threads of a block that execute an instruction of the warp together."""

    def __init__(self, lanes: Sequence[Thread]):
        self.lanes = lanes
        self.given: dict[int, Any] = {}
        self.purpose: Any = None
        self.result: Any = None

    def together(self, combine: Callable[[list[Any]], Any], value: Any) -> Any:
        """Wait for all lanes; return what ``combine`` makes of their values."""
        thread = greenlet.getcurrent()
        assert self.purpose in (None, combine), "the lanes of a warp do different things"
        self.purpose = combine
        self.given[thread.thread_id % LANES] = value
        if len(self.given) < LANES:
            thread.wait("warp")
        else:
            self.result = combine([self.given[lane] for lane in range(LANES)])
            self.given, self.purpose = {}, None
            for lane in self.lanes:
                lane.waits_for = ""
        return self.result


class Block:
    """A block of threads that take turns, in place of the simulator's system threads."""

    def __init__(self, function: Callable[..., None], grid: Any, threads: Any, debug: bool):
        self.function, self.shape = function, threads

    def run(self, block: Any, *args: Any) -> None:
        """Run the threads of a block to their end."""
        rng = np.random.default_rng(list(block))
        threads = [
            Thread(lambda: self.function(*args), block, reversed(place), number)
            for number, place in enumerate(np.ndindex(*reversed(self.shape)))
        ]
        for start in range(0, len(threads), LANES):
            warp = Warp(threads[start : start + LANES])
            for thread in warp.lanes:
                thread.warp = warp
        while threads:
            ready = [t for t in threads if not t.waits_for]
            for number in rng.permutation(len(ready)):
                ready[number].switch()
            threads = [t for t in threads if not t.dead]
            if all(t.waits_for == "block" for t in threads):
                for thread in threads:
                    thread.waits_for = ""
            elif all(t.waits_for for t in threads):
                raise RuntimeError("threads wait for others that wait or have ended")


def poisoned(shape: Any, dtype: Any) -> Any:
    """Return an array of NaN, or of an integer's greatest or least bits."""
    x = np.empty(shape, as_dtype(dtype) if hasattr(dtype, "bitwidth") else dtype)
    x.reshape(-1).view(np.uint8)[...] = 255
    return x


def shared_array(self: Any, shape: Any, dtype: Any, alignment: int | None = None) -> Any:
    """Return the array that a line of the kernel gives to all threads of a block.

    Of no elements, it has all that the launch asked for.
    """
    frame = sys._getframe(1)
    line = frame.f_code, frame.f_lineno
    shape = shape or self._dynshared_size // poisoned(0, dtype).itemsize
    if line not in self._allocations:
        self._allocations[line] = poisoned(shape, dtype)
    return self._allocations[line]


def local_array(self: Any, shape: Any, dtype: Any, alignment: int | None = None) -> Any:
    """Return a local array of NaN, which is the calling thread's own."""
    return poisoned(shape, dtype)


kernel.BlockManager = Block
kernelapi.FakeCUDAShared.array, kernelapi.FakeCUDALocal.array = shared_array, local_array
kernelapi.threading = SimpleNamespace(current_thread=greenlet.getcurrent, Lock=threading.Lock)

# --- memory --------------------------------------------------------------------------------------


class Ahead:
    """The bare pointer to an element of an array."""

    def __init__(self, p: Any, i: Any):
        self.array, self.start = whence(p, i)


def array(p: Any) -> Any:
    """Return the array behind the pointer p."""
    if type(p) is np.ndarray:
        return p
    return p.array if type(p) is Ahead else p._item._ary


def whence(p: Any, i: Any) -> tuple[Any, Any]:
    """Return the array behind the pointer p, and the index there of p[i]."""
    return array(p), p.start + i if type(p) is Ahead else i


def ahead(p: Any, i: Any) -> Any:
    """Return the bare pointer to p[i]."""
    return Ahead(p, i)


def get(p: Any, i: Any) -> Any:
    """Return p[i]."""
    x, i = whence(p, i)
    assert i >= 0, f"index {i}"
    return x[i]


def put(p: Any, i: Any, v: Any) -> None:
    """Set p[i] = v."""
    x, i = whence(p, i)
    assert i >= 0, f"index {i}"
    x[i] = v


def below(i: Any, n: Any) -> bool:
    """Return whether 0 <= i < n, both of 32 bits."""
    assert max(abs(int(i)), abs(int(n))) < 2**31
    return bool(0 <= i < n)


def part(p: Any, i: Any, n: int) -> Any:
    """Return the view p[i:i+n]."""
    x, i = whence(p, i)
    assert 0 <= i <= x.size - n, f"index {i} to {i + n} of {x.size}"
    view = x[i : i + n]
    align = min(n * x.itemsize, 16)
    where = view.__array_interface__["data"][0]
    assert where % align == 0, f"index {i} is not aligned to {align} bytes"
    return view


def load(p: Any, i: Any, n: int) -> tuple[Any, ...]:
    """Return the tuple p[i:i+n]."""
    return tuple(part(p, i, n))


def store(p: Any, i: Any, values: tuple[Any, ...]) -> None:
    """Set p[i:i+n] = values."""
    part(p, i, len(values))[...] = values


# --- arithmetic ----------------------------------------------------------------------------------


def fma(a: Any, b: Any, c: Any) -> Any:
    """Return a * b + c of float32, rounded once."""
    with np.errstate(all="ignore"):
        return np.float32(np.float64(a) * np.float64(b) + np.float64(c))


def exp2(v: Any) -> Any:
    """Return 2^v of a float32 as far off as the instruction may be, by its last bit up or down."""
    with np.errstate(all="ignore"):
        off = 2.0**-22 if np.float32(v).view(np.uint32) & np.uint32(1) else -(2.0**-22)
        exact = np.exp2(np.float64(v)) * (1 + off if v else 1.0)
        return np.float32(exact if exact >= 2.0**-126 else exact * 0)


# --- halves --------------------------------------------------------------------------------------


def widen(v: Any) -> Any:
    """Return float16, or the bits of a bfloat16, as float32; other types as they are."""
    if type(v) is np.float16:
        return np.float32(v)
    if type(v) is np.uint16:
        return (np.uint32(v) << np.uint32(16)).view(np.float32)
    return v


def narrow(p: Any, v: Any) -> Any:
    """Return a number as the type that p points to; as bits of a bfloat16 for uint16."""
    dtype = array(p).dtype
    if dtype != np.uint16:
        return dtype.type(v)
    if v != v:
        return np.uint16(0x7FFF)
    bits = int(np.float32(v).view(np.uint32))
    return np.uint16((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)  # to nearest, ties to even


# --- warps ---------------------------------------------------------------------------------------


def together(combine: Callable[[list[Any]], Any], value: Any) -> tuple[Any, int]:
    """Return what ``combine`` makes of the values of a warp's lanes, and the caller's lane."""
    thread = greenlet.getcurrent()
    return thread.warp.together(combine, value), thread.thread_id % LANES


def shuffle_xor(v: Any, step: int) -> Any:
    """Return what lane ^ step of the warp holds."""
    values, lane = together(list, v)
    return values[lane ^ step]


def tf32(v: Any) -> Any:
    """Return a float32 rounded to TF32, 10 bits of mantissa: to nearest, ties away from 0."""
    if v != v:
        return np.float32(np.nan)
    bits = np.float32(v).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def sync_warp() -> None:
    """Wait for all lanes."""
    together(nothing, None)


def nothing(values: list[Any]) -> None:
    """Return what lanes make of values where they just meet."""


def mma_tf32(c: Any, a: Any, b: Any) -> tuple[Any, ...]:
    """Return c + a @ b of a warp, 16 x 8 x 8, in fragments of 4, 4 and 2 numbers a lane."""
    product, lane = together(multiplied, (c, a, b))
    return tuple(product[fragment(lane // 4, 2 * (lane % 4), 1)])


def fragment(row: int, column: int, step: int) -> tuple[list[int], list[int]]:
    """Return the rows and columns of four numbers: beside each other, then eight rows below."""
    return [row, row, row + 8, row + 8], [column, column + step, column, column + step]


def multiplied(fragments: list[Any]) -> Any:
    """Return c + a @ b of the fragments of all lanes of a warp, as a tensor core adds.

    It shifts the terms of a sum to the exponent of the greatest one, cuts each off a few bits below
    the last one of float32, and cuts off their sum (Fasi et al., Numerical behavior of NVIDIA
    tensor cores, 2021).
    """
    a, b, c = (np.zeros(shape, np.float32) for shape in ((16, 8), (8, 8), (16, 8)))
    for lane, (of_c, of_a, of_b) in enumerate(fragments):
        g, t = divmod(lane, 4)
        c[fragment(g, 2 * t, 1)] = of_c
        a[[g, g + 8, g, g + 8], [t, t, t + 4, t + 4]] = of_a
        b[[t, t + 4], g] = of_b
    with np.errstate(all="ignore"):
        terms = np.concatenate([c[..., None], cut(a)[:, None] * cut(b).T], axis=-1, dtype=float)
        greatest = np.abs(terms).max(-1, keepdims=True)
        total = truncated(terms, greatest, 24 + EXTRA).sum(-1)
        return truncated(total, total, 24).astype(np.float32)


EXTRA = 2
"""Bits that a tensor core keeps of a term below the last one of the greatest."""


def truncated(x: Any, scale: Any, bits: int) -> Any:
    """Return finite x without what lies below so many bits from the first one of ``scale``."""
    _, exponent = np.frexp(scale)
    shift = np.ldexp(1.0, bits - exponent)
    return np.where(np.isfinite(x) & np.isfinite(shift), np.trunc(x * shift) / shift, x)


def cut(x: Any) -> Any:
    """Return x in float32 without the 13 bits that TF32 does not have."""
    return (x.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)


# --- copies that nobody waits for ----------------------------------------------------------------


def copy_async(dst: Any, i: Any, src: Any, j: Any, n: int, valid: Any) -> None:
    """Start dst[i:i+n] = src[j:j+n], or zeros if not valid."""
    target = part(dst, i, n)
    assert target.nbytes in (4, 8, 16)
    greenlet.getcurrent().copies[-1].append((target, part(src, j, n) if valid else 0))


def commit_async() -> None:
    """Close the group of copies that this thread has started."""
    greenlet.getcurrent().copies.append([])


def wait_async(groups: int) -> None:
    """Land the copies of all but so many of this thread's latest groups."""
    copies = greenlet.getcurrent().copies
    while len(copies) - 1 > groups:
        for target, source in copies.pop(0):
            target[...] = source

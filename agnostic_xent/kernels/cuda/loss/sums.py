"""Sums of many numbers in one order, whatever the GPU: blocks by a tree, then the blocks' sums."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..toolchain.device import xp
from ..toolchain.dtypes import STORED, WIDE, stored
from ..toolchain.launching import Kernel, cuda
from ..toolchain.ptx import get, narrow, put
from ..toolchain.teams import team_sum

THREADS = 256
PER_THREAD = 16
BLOCK = THREADS * PER_THREAD


def partial_sums(x: Any, y: Any, n: int) -> None:
    """Write the sum of each BLOCK of float64."""
    room = cuda.shared.array(32, np.float64)
    t = cuda.threadIdx.x
    i = cuda.blockIdx.x * BLOCK + t
    total = 0.0
    for k in range(PER_THREAD):
        if i + k * THREADS < n:
            total += get(x, i + k * THREADS)
    total = team_sum(total, room, t, THREADS)
    if t == 0:
        put(y, cuda.blockIdx.x, total)


def conclude(x: Any, n: int, number: float, scale: Any, scaled: int, y: Any) -> None:
    """Write the sum of up to BLOCK numbers times ``number``, or times ``scale[1]`` if scaled."""
    room = cuda.shared.array(32, np.float64)
    t = cuda.threadIdx.x
    total = 0.0
    for k in range(PER_THREAD):
        if t + k * THREADS < n:
            total += get(x, t + k * THREADS)
    total = team_sum(total, room, t, THREADS)
    if t == 0:
        if scaled:
            number = get(scale, 1)
        put(y, 0, narrow(y, total * number if number != 0 else 0.0))  # 0 * NaN is 0 here


def divide(x: Any, n: int, empty: float, y: Any) -> None:
    """Write the sum of up to BLOCK numbers, and its reciprocal, or ``empty`` where it is 0."""
    room = cuda.shared.array(32, np.float64)
    t = cuda.threadIdx.x
    total = 0.0
    for k in range(PER_THREAD):
        if t + k * THREADS < n:
            total += get(x, t + k * THREADS)
    total = team_sum(total, room, t, THREADS)
    if t == 0:
        put(y, 0, total)
        put(y, 1, empty if total == 0 else 1 / total)


@functools.cache
def partial_sums_kernel() -> Kernel:
    """Return the kernel of a level of the tree."""
    return Kernel(partial_sums, "f8* f8* i8", THREADS, 4)


@functools.cache
def conclude_kernel(code: str) -> Kernel:
    """Return the kernel that writes a sum of a dtype."""
    return Kernel(conclude, f"f8* i8 f8 f8* i4 {code}*", THREADS, 4)


@functools.cache
def divide_kernel() -> Kernel:
    """Return the kernel that writes a sum and its reciprocal."""
    return Kernel(divide, "f8* i8 f8 f8*", THREADS, 4)


def few(x: Any) -> Any:
    """Return at most BLOCK numbers of the same sum."""
    while x.size > BLOCK:
        y = xp.empty(-(-x.size // BLOCK), np.float64)
        partial_sums_kernel()(y.size, x, y, x.size)
        x = y
    return x


def total(x: Any, dtype: Any, factor: float = 1.0, scale: Any = None) -> Any:
    """Return the sum of float64 as a scalar of a dtype, times a number of the host or scale[1]."""
    x, y = few(x), xp.empty((), dtype)
    made = conclude_kernel(STORED[y.dtype.name])
    made(1, x, x.size, factor, scale, scale is not None, stored(y.reshape(1)))
    return y


def divisor(x: Any, empty: float) -> Any:
    """Return the sum of float64 and its reciprocal, which is ``empty`` for a sum of 0."""
    x, y = few(x), xp.empty(2, np.float64)
    divide_kernel()(1, x, x.size, empty, y)
    return y


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return [partial_sums_kernel(), divide_kernel(), *map(conclude_kernel, WIDE)]

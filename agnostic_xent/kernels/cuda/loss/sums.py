"""Sums of many numbers in one order, whatever the GPU: blocks by a tree, then the blocks' sums."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..toolchain.device import xp
from ..toolchain.dtypes import STORED, WIDE, stored
from ..toolchain.launching import Kernel
from ..toolchain.ptx import get, narrow, put
from ..toolchain.teams import cuda, device, team_sum

THREADS = 256
PER_THREAD = 16
BLOCK = THREADS * PER_THREAD


LAST, ENOUGH = 1024, 1 << 16
"""Threads of the last block, and the numbers of which it alone makes a sum."""


@device
def thread_sum(x: Any, first: Any, n: Any, threads: Any) -> Any:
    """Return the sum of a thread's PER_THREAD numbers of x, one in so many, of which there are n.

    Those of its block begin at ``first``.
    """
    total = 0.0
    for k in range(PER_THREAD):
        i = first + cuda.threadIdx.x + k * threads
        if i < n:
            total += get(x, i)
    return total


@device
def whole_sum(x: Any, n: Any, room: Any) -> Any:
    """Return the sum of all n numbers of x by LAST threads."""
    total = 0.0
    for first in range(0, n, PER_THREAD * LAST):
        total += thread_sum(x, first, n, LAST)
    return team_sum(total, room, cuda.threadIdx.x, LAST)


def partial_sums(x: Any, y: Any, n: int) -> None:
    """Write to y the sum of each BLOCK of the n numbers of x, in float64."""
    room = cuda.shared.array(32, np.float64)
    total = thread_sum(x, np.int64(cuda.blockIdx.x) * BLOCK, n, THREADS)
    total = team_sum(total, room, cuda.threadIdx.x, THREADS)
    if cuda.threadIdx.x == 0:
        put(y, cuda.blockIdx.x, total)


def conclude(x: Any, n: int, number: float, scale: Any, scaled: int, y: Any) -> None:
    """Write to y the sum of n numbers, times ``number``, or ``scale[1]`` if scaled."""
    room = cuda.shared.array(32, np.float64)
    total = whole_sum(x, n, room)
    if cuda.threadIdx.x == 0:
        if scaled:
            number = get(scale, 1)
        put(y, 0, narrow(y, total * number if number != 0 else 0.0))  # 0 * NaN is 0 here


def divide(x: Any, n: int, empty: float, y: Any) -> None:
    """Write to y the sum of n numbers, and its reciprocal, or ``empty`` if it is 0."""
    room = cuda.shared.array(32, np.float64)
    total = whole_sum(x, n, room)
    if cuda.threadIdx.x == 0:
        put(y, 0, total)
        put(y, 1, empty if total == 0 else 1 / total)


@functools.cache
def partial_sums_kernel() -> Kernel:
    """Return the kernel of `partial_sums`, a level of the tree, made once."""
    return Kernel(partial_sums, "f8* f8* i8", THREADS, 4)


@functools.cache
def conclude_kernel(code: str) -> Kernel:
    """Return the kernel of `conclude` for a sum of the dtype ``code``, made once."""
    return Kernel(conclude, f"f8* i8 f8 f8* i4 {code}*", LAST, 1)


@functools.cache
def divide_kernel() -> Kernel:
    """Return the kernel of `divide`, made once."""
    return Kernel(divide, "f8* i8 f8 f8*", LAST, 1)


def total_kernels(code: str) -> tuple[Kernel, Kernel]:
    """Return the kernels that `total` runs, for a sum of the dtype ``code``."""
    return partial_sums_kernel(), conclude_kernel(code)


def few(x: Any) -> Any:
    """Return at most ENOUGH numbers whose sum is that of x, in float64."""
    while x.size > ENOUGH:
        y = xp.empty(-(-x.size // BLOCK), np.float64)
        partial_sums_kernel()(y.size, x, y, x.size)
        x = y
    return x


def total(x: Any, dtype: Any, factor: float = 1.0, scale: Any = None) -> Any:
    """Return the sum of x as a scalar of a dtype, times ``factor``, or scale[1] if there is one."""
    x, y = few(x), xp.empty((), dtype)
    made = conclude_kernel(STORED[y.dtype.name])
    made(1, x, x.size, factor, scale, scale is not None, stored(y.reshape(1)))
    return y


def divisor(x: Any, empty: float) -> Any:
    """Return the sum of x and its reciprocal, on the device; ``empty`` for that of 0."""
    x, y = few(x), xp.empty(2, np.float64)
    divide_kernel()(1, x, x.size, empty, y)
    return y


def unit_and_divisor(
    options: Any, by: Any, count: int, masses: Callable[[], Any] | None
) -> tuple[float, Any]:
    """Return the gradient of the loss with respect to a term, and what `divisor` finds, or None.

    A mean is ``by`` a number, or by the sum of ``masses``, which the device has to find out; then
    the former is 1. It is by ``count`` where there are none.
    """
    if options.reduction != "mean":
        return 1.0, None
    if isinstance(by, float):
        return 1 / by, None
    if masses is None:
        return 1 / count, None
    return 1.0, divisor(masses(), 0.0 if options.on_empty == "zero" else math.nan)


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return [partial_sums_kernel(), divide_kernel(), *map(conclude_kernel, WIDE)]

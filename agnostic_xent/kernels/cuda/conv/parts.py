"""Long sums that several blocks share, and how these are added: in their order, by a second kernel.

Into how many parts a sum is cut depends on the problem alone, so that the same bits come out each
time, on every card.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ..toolchain.dtypes import WIDE, code_of, given, of_wide, stored
from ..toolchain.launching import Kernel
from ..toolchain.ptx import get, narrow, put
from ..toolchain.teams import cuda
from .pixels import finished

THREADS = 128

CARDS = 108, 132
"""Multiprocessors of an A100, and of an H100 or H200."""

BUSY = 1.5  # blocks that a multiprocessor does in the time of one alone
EDGE = 3  # steps that a block's beginning and end are worth
LAUNCH = 9  # and the kernel that adds the parts
WRITTEN = 0.055  # and a part that is written and read again
MOST = 512  # parts


@functools.lru_cache(maxsize=256)
def parts_of(blocks: int, steps: int, least: int) -> int:
    """Return into how many parts the sums of so many blocks are cut, each of ``steps`` steps.

    That with the shortest time for an A100 and an H100 together, where a multiprocessor's time goes
    by the steps of all its blocks. A part has ``least`` steps at the least.
    """

    def time(parts: int) -> float:
        each, all_blocks = -(-steps // parts) + EDGE, blocks * parts
        busy = sum(max(BUSY, -(-all_blocks // card)) for card in CARDS) / len(CARDS)
        return busy * each + (parts > 1) * (LAUNCH + WRITTEN * all_blocks)

    enough = -(-4 * max(CARDS) // blocks)
    found = min(range(1, max(1, min(steps // least, enough, MOST)) + 1), key=time)
    return -(-steps // -(-steps // found))  # none of them without a step


def add_parts(
    sums: Any, bias: Any, y: Any, n: int, parts: int, plane: int, channels: int, flags: int
) -> None:
    """Write to y the sum of the parts of ``sums``, each n numbers, in their order, and finished."""
    i = np.int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x
    if i < n:
        total = get(sums, i)
        for part in range(1, parts):
            total += get(sums, part * np.int64(n) + i)
        channel = np.uint32(i) // np.uint32(plane) % np.uint32(channels)
        put(y, i, narrow(y, finished(total, bias, np.int64(channel), flags)))


@functools.cache
def add_parts_kernel(code: str) -> Kernel:
    """Return the kernel of `add_parts` for a dtype, made once."""
    return Kernel(add_parts, f"{of_wide(code)}* {code}* {code}* i8 i4 i4 i4 i4", THREADS, 8)


def write_sum(sums: Any, y: Any, bias: Any = None, flags: int = 0) -> None:
    """Write the sum of ``sums`` (parts, n) to contiguous y (N, channels, ...), finished by a bias.

    ``flags``: see `pixels`.
    """
    parts, n = sums.shape
    channels, plane = (y.shape[1], math.prod(y.shape[2:])) if flags else (1, 1)
    add_parts_kernel(code_of(y))(
        -(-n // THREADS), sums, given(bias), stored(y), n, parts, plane, channels, flags
    )


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return [add_parts_kernel(code) for code in WIDE]

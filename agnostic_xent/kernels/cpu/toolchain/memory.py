"""Big arrays on memory that is used again.

A training step makes and drops the same big arrays every time. The system takes big blocks back as
soon as they are free, and every page of a new one faults at its first touch: up to a third of a
step. Here a block is lent to one array, is free when the last view of it is gone, and is lent
again. Free blocks together never hold more than twice what was once
lent at the same time.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import sys
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np

from ....core.forks import in_child
from .threads import is_recorded, note_scratch, threads

SMALLEST = 1 << 20
"""Bytes from which an array gets a block; NumPy and the C library are good at smaller ones."""

HUGE_PAGE = 2 << 20
SLACK = 1.25
"""A block may be so much larger than what is asked for."""

KEPT = 2
"""Times what was lent at most, that free blocks may hold. Sizes differ, so that a training step
needs up to 1.7 times that; with less, the block that was dropped is the next one to be made."""


class Block:
    """Memory of the system, on huge pages where it has them.

    It is lent while anybody but the block itself refers to it, as all views of an array do. This
    is counted, not told: no code runs where an array ends, in which an interrupt would be lost.
    """

    __slots__ = ("memory", "size", "unused")

    def __init__(self, size: int):
        # Private: a forked child writes to a copy, and Linux has huge pages for such memory.
        pages = mmap.mmap(-1, size + HUGE_PAGE, access=mmap.ACCESS_COPY)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without them
                pages.madvise(mmap.MADV_HUGEPAGE)
        start = -np.frombuffer(pages, np.uint8).ctypes.data % HUGE_PAGE
        self.size = size
        self.memory = np.frombuffer(pages, np.uint8, size, start)
        self.unused = sys.getrefcount(self.memory)

    def is_free(self) -> bool:
        """Return whether no array is left on the memory."""
        return sys.getrefcount(self.memory) == self.unused


class Pool:
    """Blocks, free and lent; the one that was lent last is last.

    An interrupt may come between any two steps: at worst a free block goes back to the system.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.blocks: list[Block] = []
        self.peak = 0

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return an array of any content, as `numpy.empty` does."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if size < SMALLEST:
            return np.empty(shape, dtype)
        with self.lock:
            block = self._take(-(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
            return np.ndarray(shape, dtype, block.memory)

    def _take(self, size: int) -> Block:
        free = self.free()
        fitting = [block for block in free if size <= block.size <= SLACK * size]
        if fitting:
            block = min(reversed(fitting), key=lambda block: block.size)
            free.remove(block)
            self.blocks.remove(block)
        else:
            block = Block(size)
        self.blocks.append(block)
        self.peak = max(self.peak, _bytes(self.blocks) - _bytes(free))
        while _bytes(free) > KEPT * self.peak:
            self.blocks.remove(free.pop(0))
        return block

    def free(self) -> list[Block]:
        """Return the blocks that no array is on."""
        return [block for block in self.blocks if block.is_free()]

    def give_back(self) -> None:
        """Return the free blocks to the system."""
        with self.lock:
            for block in self.free():
                self.blocks.remove(block)
            self.peak = _bytes(self.blocks)


def _bytes(blocks: Iterable[Block]) -> int:
    return sum(block.size for block in blocks)


_pool = Pool()
empty, give_back = _pool.empty, _pool.give_back


@in_child
def _renew() -> None:
    _pool.lock = threading.Lock()  # who held the old one may be gone; blocks are whole all the time


def scratch(size: int, dtype: Any, alone: bool = False) -> Any:
    """Return memory of ``size`` numbers for each thread, or for one where a loop runs alone.

    While calls are recorded it is for all: who runs them again may share them out.
    """
    count = 1 if alone and not is_recorded() else threads()
    found = empty((count * size,), dtype)
    note_scratch(found)
    return found

"""Big arrays on memory that is used again.

A training step makes and drops the same big arrays every time. The system takes big blocks back as
soon as they are free, and every page of a new one faults at its first touch: up to a third of a
step. Here a block is lent to one array, comes back when the last view of it is gone, and is lent
again. Free blocks together never hold more than was once lent at the same time.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections import deque
from typing import Any

import numpy as np

from .threads import threads

SMALLEST = 1 << 20
"""Bytes from which an array gets a block; NumPy and the C library are good at smaller ones."""

HUGE_PAGE = 2 << 20
SLACK = 1.25
"""A block may be so much larger than what is asked for."""


class Loan:
    """Keeps a block for the arrays whose base it is, and gives it back with the last of them."""

    __slots__ = ("__array_interface__", "block", "pool")

    def __init__(self, pool: Pool, block: Block, shape: tuple[int, ...], dtype: Any):
        self.pool, self.block = pool, block
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": dtype.str,
            "data": (block.address, False),
        }

    def __del__(self) -> None:
        # May run anywhere, in the middle of `Pool.empty` too: an append is atomic.
        self.pool.returned.append(self.block)


class Block:
    """Memory of the system, on huge pages where it has them."""

    def __init__(self, size: int):
        self.size = size
        # Private: a forked child writes to a copy, and Linux has huge pages for such memory.
        self.pages = mmap.mmap(-1, size + HUGE_PAGE, access=mmap.ACCESS_COPY)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # a kernel without them
                self.pages.madvise(mmap.MADV_HUGEPAGE)
        start = np.frombuffer(self.pages, np.uint8).ctypes.data
        self.address = start + -start % HUGE_PAGE


class Pool:
    """The blocks that are free, and how much is lent."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.returned: deque[Block] = deque()
        self.free: list[Block] = []  # the one that came back last is last
        self.lent = self.peak = 0

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return an array of any content, as `numpy.empty` does."""
        dtype = np.dtype(dtype)
        size = dtype.itemsize
        for n in shape:
            size *= n
        if size < SMALLEST:
            return np.empty(shape, dtype)
        with self.lock:
            block = self._take(-(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
        return np.asarray(Loan(self, block, shape, dtype))

    def _take(self, size: int) -> Block:
        while self.returned:
            block = self.returned.popleft()
            self.lent -= block.size
            self.free.append(block)
        fitting = [block for block in self.free if size <= block.size <= SLACK * size]
        if fitting:
            block = min(reversed(fitting), key=lambda block: block.size)
            self.free.remove(block)
        else:
            block = Block(size)
        self.lent += block.size
        self.peak = max(self.peak, self.lent)
        while sum(block.size for block in self.free) > self.peak:
            del self.free[0]
        return block


_pool = Pool()
empty = _pool.empty

if hasattr(os, "register_at_fork"):  # a child has none of the threads that could hold the lock
    os.register_at_fork(
        before=_pool.lock.acquire,
        after_in_parent=_pool.lock.release,
        after_in_child=_pool.lock.release,
    )


def scratch(size: int, dtype: Any, alone: bool = False) -> Any:
    """Return memory of ``size`` numbers for each thread, or for one where a loop runs alone."""
    return empty(((1 if alone else threads()) * size,), dtype)

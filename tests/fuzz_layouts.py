"""Memory in which the fuzzer lays arrays: any strides, read-only, unaligned, beside a fence."""

from __future__ import annotations

import ctypes
import math
import mmap
from typing import Any

import numpy as np

PAGE = mmap.PAGESIZE
NO_ACCESS = 0
LAYOUTS = {  # how often each is drawn
    "C": 6, "F": 2, "strided": 2, "reversed": 1, "broadcast": 1, "overlapping": 1, "read-only": 1,
    "unaligned": 1, "before a fence": 4, "behind a fence": 2,
}  # fmt: skip


def fenced(size: int) -> Any:
    """Return whole pages for so many bytes as an array, between two that may not be touched."""
    pages = max(1, -(-size // PAGE))
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    whole = np.frombuffer(memory, np.uint8)
    libc, start = ctypes.CDLL(None, use_errno=True), whole.ctypes.data
    for fence in (start, start + (pages + 1) * PAGE):
        if libc.mprotect(ctypes.c_void_p(fence), ctypes.c_size_t(PAGE), NO_ACCESS):
            raise OSError(ctypes.get_errno(), "mprotect failed")
    return whole[PAGE : (pages + 1) * PAGE]


def at(memory: Any, first: int, x: Any) -> Any:
    """Copy x to bytes of a memory, from the first one on."""
    y = memory[first : first + x.nbytes].view(x.dtype).reshape(x.shape)
    y[...] = x
    return y


def laid_out(rng: np.random.Generator, x: Any, layout: str) -> Any:
    """Return the numbers of x in a layout; those of which several are one take the first one's."""
    if x.size == 0 or x.ndim == 0:
        return x.copy()
    axis = int(rng.integers(x.ndim))
    if layout == "strided":
        y = np.repeat(x, 2, axis=axis)
        return y[tuple(slice(None, None, 2 if a == axis else None) for a in range(x.ndim))]
    if layout == "reversed":
        return np.flip(np.flip(x, axis).copy(), axis)
    if layout == "broadcast":
        return np.broadcast_to(x.take([0], axis), x.shape)
    if layout == "overlapping":  # each row begins one number after the one before
        row = np.resize(x, x.shape[-1] + math.prod(x.shape[:-1]))
        strides = [row.itemsize] * x.ndim
        return np.lib.stride_tricks.as_strided(row, x.shape, strides)
    if layout == "read-only":
        y = x.copy()
        y.flags.writeable = False
        return y
    if layout == "unaligned":
        return at(np.empty(x.nbytes + 1, np.uint8), 1, x)
    if layout == "before a fence":
        memory = fenced(x.nbytes)
        return at(memory, memory.size - x.nbytes, x)
    if layout == "behind a fence":
        return at(fenced(x.nbytes), 0, x)
    return x.copy(order="F" if layout == "F" else "C")


def drawn(rng: np.random.Generator, x: Any, fences: bool) -> tuple[Any, str]:
    """Return x in a layout that is drawn, and its name; without fences it is plain instead."""
    shares = np.array([*LAYOUTS.values()], float)
    layout = str(rng.choice([*LAYOUTS], p=shares / shares.sum()))
    if "fence" in layout and not fences:
        layout = "C"
    return laid_out(rng, x, layout), layout

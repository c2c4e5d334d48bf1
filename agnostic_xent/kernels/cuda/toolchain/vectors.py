"""Rows whose classes lie beside each other, by a team of threads and vectors of 16 bytes.

A thread has vectors at ``first``, at the width of the team behind it, and so on: classes of a row
that begins at ``start``, counted from its own first one. Rows begin anywhere in a vector, unless
each is of whole vectors; so ``first`` may be negative.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .device import most_shared
from .dtypes import VECTOR, WIDE
from .elementary import EXPONENTIALS
from .ptx import below, get, load, narrow, put, store, widen
from .teams import LANES, device

AT_ONCE = {"f4": 2, "f8": 4, "f2": 1, "u2": 1}
"""Vectors that a thread waits for together, where a row is done in chunks, by the dtype."""

HELD = tuple((threads, 224 * threads) for threads in (128, 256, 512, 1024))
"""Threads of a row that shared memory holds, and the bytes of such rows, from the shortest on.

So 1,024 threads fit a multiprocessor at once, of as many rows as there are blocks.
"""

MOST = {"f4": 1024, "f8": 512, "f2": 1024, "u2": 1024}
"""Threads of a longer row. A multiprocessor shall do but one: the rows that all of them do at a
time then stay in cache until they are read again."""

TEAMS = (
    (4, 4), (4, 8), (8, 8), (16, 8), (16, 16), (32, 16), (64, 16), (128, 16), (256, 16)
)  # fmt: skip
"""Threads of a row, and the elements that registers of each of them hold; at least a vector."""


def team_for(code: str, classes: int) -> tuple[int, int] | None:
    """Return the smallest team whose registers hold rows of so many classes, None if none does."""
    width = VECTOR[code]
    for threads, each in TEAMS:
        if extent(code, classes) <= threads * max(each, width):
            return threads, each
    return None


def extent(code: str, classes: int) -> int:
    """Return the most elements from the start of a row's first vector to the row's end."""
    width = VECTOR[code]
    return classes + (width - 1 if classes % width else 0)


def held_by(code: str, classes: int) -> int | None:
    """Return the threads of a row that shared memory holds, None if it does not."""
    size = room_for(code, classes)
    fit = (threads for threads, most in HELD if size <= min(most, most_shared() - 1024))
    return next(fit, None)


def room_for(code: str, classes: int) -> int:
    """Return the bytes of a row, as it is held in shared memory."""
    width = VECTOR[code]
    vectors = -(-extent(code, classes) // width)
    return vectors * width * np.dtype(WIDE[code]).itemsize


def rows_of_block(team: int) -> int:
    """Return how many rows a block of 128 threads does, by teams in a warp; a larger team, one."""
    return 128 // team if team <= LANES else 1


@device
def four(g: Any, e: Any, i: Any) -> Any:
    """Return four numbers of e, from the one at i on, as g stores them."""
    return (
        narrow(g, e[i]), narrow(g, e[i + 1]), narrow(g, e[i + 2]), narrow(g, e[i + 3])
    )  # fmt: skip


def make_greatest(code: str, vectors: int) -> Callable[..., Any]:
    """Return the function by which a thread finds the greatest of its numbers, none of them NaN."""
    count = vectors * VECTOR[code]

    @device
    def greatest(e: Any, top: Any) -> Any:
        """Return the greatest of e and top."""
        for i in range(count):
            top = max(top, e[i])
        return top

    return greatest


def make_exponentiate(code: str, team: int, vectors: int) -> Callable[..., Any]:
    """Return the function by which a thread turns its numbers into exponentials."""
    kind: Any = WIDE[code]
    width = VECTOR[code]
    exponential = EXPONENTIALS[kind]

    @device
    def exponentiate(e: Any, base: Any, extent: Any, top: Any, sharpness: Any) -> Any:
        """Turn e into ``exp(sharpness (e - top))``, and return the sum.

        They are of the chunk at ``base`` of a row of such an extent: all threads pass by vectors
        that are behind it.
        """
        total = kind(0)
        for k in range(vectors):
            if base + k * team * width < extent:
                for u in range(width):
                    e[k * width + u] = exponential((e[k * width + u] - top) * sharpness)
                    total += e[k * width + u]
        return total

    return exponentiate


def make_read(code: str, team: int, vectors: int) -> Callable[..., None]:
    """Return the function by which a thread reads its vectors of a row."""
    width = VECTOR[code]

    @device
    def read(e: Any, x: Any, start: Any, first: Any, classes: Any, nothing: Any) -> None:
        """Read elements of x into e, with ``nothing`` outside of the row."""
        whole = max(np.int32(classes - width + 1), np.int32(0))
        for k in range(vectors):
            j = np.int32(first + k * team * width)
            if below(j, whole):
                vector = load(x, start + j, width)
                for u in range(width):
                    e[k * width + u] = widen(vector[u])
            else:
                for u in range(width):
                    e[k * width + u] = nothing
                if j < classes:
                    for u in range(width):
                        if below(j + u, classes):
                            e[k * width + u] = widen(get(x, start + j + u))

    return read


def make_write(code: str, team: int, vectors: int) -> Callable[..., None]:
    """Return the function by which a thread writes its vectors of a row."""
    width = VECTOR[code]

    @device
    def write(g: Any, e: Any, start: Any, first: Any, classes: Any) -> None:
        """Write the elements of e that are of the row to g."""
        whole = max(np.int32(classes - width + 1), np.int32(0))
        for k in range(vectors):
            i, j = k * width, np.int32(first + k * team * width)
            if below(j, whole):
                if width == 2:
                    store(g, start + j, (narrow(g, e[i]), narrow(g, e[i + 1])))
                elif width == 4:
                    store(g, start + j, four(g, e, i))
                else:
                    store(g, start + j, four(g, e, i) + four(g, e, i + width - 4))
            elif j < classes:
                for u in range(width):
                    if below(j + u, classes):
                        put(g, start + j + u, narrow(g, e[i + u]))

    return write


def make_keep(code: str, team: int, vectors: int) -> Callable[..., None]:
    """Return the function by which a thread keeps a chunk of a row in shared memory."""
    width = VECTOR[code]

    @device
    def keep(row: Any, e: Any, base: Any, t: Any, extent: Any) -> None:
        """Write e to the thread's places in the chunk at ``base``, of a row of such an extent."""
        for k in range(vectors):
            i, j = k * width, np.int32(base + k * team * width + t * width)
            if j < extent:
                if width == 2:
                    store(row, j, (e[i], e[i + 1]))
                else:
                    store(row, j, (e[i], e[i + 1], e[i + 2], e[i + 3]))
                    if width == 8:
                        i += width - 4
                        store(row, j + 4, (e[i], e[i + 1], e[i + 2], e[i + 3]))

    return keep


def make_take(code: str, team: int, vectors: int) -> Callable[..., None]:
    """Return the function by which a thread takes back what it has kept."""
    width = VECTOR[code]
    part = min(width, 4)

    @device
    def take(e: Any, row: Any, base: Any, t: Any, extent: Any) -> None:
        """Read the thread's places in the chunk at ``base`` into e; -inf where there are none."""
        for k in range(vectors):
            j = np.int32(base + k * team * width + t * width)
            if j < extent:
                for h in range(0, width, part):
                    vector = load(row, j + h, part)
                    for u in range(part):
                        e[k * width + h + u] = vector[u]
            else:
                for u in range(width):
                    e[k * width + u] = -math.inf

    return take

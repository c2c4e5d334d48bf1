"""Rows of classes by teams of threads: a thread, a warp, or a block to a row."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .launching import I8
from .ptx import ahead, get, widen
from .teams import LANES, device

THREADS = 256
TEAMS = (1, LANES, THREADS)
AT_ONCE = 4  # classes that a thread waits for together

FEW, MANY = 8, 1024
"""Classes up to which a thread, and a warp, does a row."""

FEW_PIXELS = 32
"""Pixels behind the classes' axis below which a copy with the classes last is faster."""


class Layout(NamedTuple):
    """How rows of classes lie in an array in C order."""

    rows: I8
    classes: I8
    inner: I8
    """How many elements lie between two classes of a row, and one."""

    @property
    def team(self) -> int:
        """The threads of a row: one where its classes are few, or lie apart."""
        if self.inner > 1 or self.classes <= FEW:
            return 1
        return LANES if self.classes <= MANY else THREADS

    @property
    def blocks(self) -> int:
        """The blocks of THREADS threads that do all rows."""
        return -(-self.rows // (THREADS // self.team))


def layout_of(shape: tuple[int, ...], axis: int) -> Layout:
    """Return the layout of an array of a shape, with its classes along an axis."""
    before, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    return Layout(before * inner, shape[axis], inner)


@device
def read_some(
    v: Any, x: Any, start: Any, first: Any, team: Any, classes: Any, inner: Any, nothing: Any
) -> None:
    """Read a thread's next AT_ONCE classes of a row into v; ``nothing`` where there are no more."""
    here = ahead(x, start + first * inner)  # else each of them holds an address all along the row
    for u in range(AT_ONCE):
        c = first + u * team
        v[u] = widen(get(here, u * team * inner)) if c < classes else nothing

"""Rows of classes by teams of threads: one, a warp, or a block."""

from __future__ import annotations

from typing import Any

from .ptx import get, widen
from .teams import LANES, device

THREADS = 256


TEAMS = (1, LANES, THREADS)


AT_ONCE = 4  # classes that a thread waits for together


FEW, MANY = 8, 1024
"""Classes up to which a thread, and a warp, does a row."""


FEW_PIXELS = 32
"""Pixels behind the classes' axis below which a copy with the classes last is faster."""


@device
def read_some(
    v: Any, x: Any, start: Any, first: Any, team: Any, classes: Any, inner: Any, nothing: Any
) -> None:
    """Read a row's next classes of a thread; where there are no more, ``nothing``."""
    for u in range(AT_ONCE):
        c = first + u * team
        v[u] = widen(get(x, start + c * inner)) if c < classes else nothing


def team_for(classes: int, inner: int) -> int:
    """Return the threads of a row: one where its classes are few, or lie apart."""
    if inner > 1 or classes <= FEW:
        return 1
    return LANES if classes <= MANY else THREADS

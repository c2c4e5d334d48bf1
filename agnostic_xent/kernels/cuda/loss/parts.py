"""Softmax cross entropy: what a thread does with the numbers that it holds of a row.

``e`` are its vectors. Notation of `vectors.py` and `formulas.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..toolchain.dtypes import VECTOR, WIDE
from ..toolchain.ptx import below, get, narrow, put
from ..toolchain.teams import device
from ..toolchain.vectors import make_write
from .formulas import WEIGHTED, weighted


class Parts(NamedTuple):
    """The functions for a dtype, a team, and threads of so many vectors."""

    shifts: Callable[..., Any]
    hide: Callable[..., None]
    finish: Callable[..., None]


def make_parts(code: str, team: int, vectors: int) -> Parts:
    """Return the functions for a dtype, a team, and threads of so many vectors."""
    kind: Any = WIDE[code]
    width = VECTOR[code]
    stride, holds = team * width, make_holds(code, team, vectors)

    @device
    def shifts(
        e: Any, first: Any, classes: Any, top: Any, sharpness: Any, weight: Any, flags: Any
    ) -> Any:  # fmt: skip
        """Return the sum of the weighted shifts of logits."""
        total = kind(0)
        for k in range(vectors):
            for u in range(width):
                j = np.int32(first + k * stride + u)
                if below(j, classes):
                    total += weighted(weight, j, flags, (e[k * width + u] - top) * sharpness)
        return total

    @device
    def hide(e: Any, mine: Any) -> None:
        """Leave out of sums the number ``mine`` classes behind ``first``, if it is among e."""
        if holds(mine):
            for k in range(vectors):
                for u in range(width):
                    if mine == k * stride + u:
                        e[k * width + u] = -math.inf

    return Parts(shifts, hide, make_finish(code, team, vectors, holds))


def make_holds(code: str, team: int, vectors: int) -> Callable[..., Any]:
    """Return the function that tells which numbers of a row are a thread's own."""
    width = VECTOR[code]
    stride = team * width

    @device
    def holds(mine: Any) -> Any:
        """Return whether the number ``mine`` classes behind ``first`` is among e."""
        return below(mine, vectors * stride) & ((mine & (stride - 1)) < width)

    return holds


def make_finish(
    code: str, team: int, vectors: int, holds: Callable[..., Any]
) -> Callable[..., None]:
    """Return the function by which a thread turns its exponentials into the gradient."""
    kind: Any = WIDE[code]
    width = VECTOR[code]
    stride, count = team * width, vectors * width
    write = make_write(code, team, vectors)

    @device
    def differentiate(
        e: Any, first: Any, classes: Any, scale: Any, share: Any, weight: Any, flags: Any
    ) -> None:  # fmt: skip
        """Turn exponentials into the gradient; ``share`` is what every class loses, by weight."""
        for i in range(count):
            e[i] *= scale
        if share != 0:
            for k in range(vectors):
                for u in range(width):
                    j = np.int32(first + k * stride + u)
                    if below(j, classes):
                        e[k * width + u] -= share * get(weight, j) if flags & WEIGHTED else share

    @device
    def finish(
        e: Any, g: Any, start: Any, first: Any, classes: Any, label: Any, counts: Any, slopes: Any,
        weight: Any, flags: Any,
    ) -> None:  # fmt: skip
        """Turn exponentials into the gradient, by `factors`, and write it; zeros if none counts."""
        scale, slope, share = slopes
        if not counts:
            for i in range(count):
                e[i] = 0  # of NaN, nothing is left
            scale, slope, share = kind(0), kind(0), kind(0)
        differentiate(e, first, classes, scale, share, weight, flags)
        write(g, e, start, first, classes)
        if holds(np.int32(label - first)):
            put(g, start + label, narrow(g, slope))

    return finish

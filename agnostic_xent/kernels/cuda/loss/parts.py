"""Softmax cross entropy: what a thread does with the numbers that it holds of a row.

``e`` are its vectors: those of `vectors.py`, whose notation this is. ``extent`` is how far the
row's vectors reach, so that all threads pass by those behind it. See `formulas.py` for the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..toolchain.dtypes import VECTOR, WIDE
from ..toolchain.elementary import EXPONENTIALS
from ..toolchain.ptx import below, get
from ..toolchain.teams import device
from .formulas import WEIGHTED, weighted


class Parts(NamedTuple):
    """The functions for a dtype, a team, and threads of so many vectors."""

    greatest: Callable[..., Any]
    shifts: Callable[..., Any]
    hide: Callable[..., None]
    exponentiate: Callable[..., Any]
    differentiate: Callable[..., None]
    holds: Callable[..., Any]


def make_parts(code: str, team: int, vectors: int) -> Parts:
    """Return the functions for a dtype, a team, and threads of so many vectors."""
    kind: Any = WIDE[code]
    width = VECTOR[code]
    stride, count = team * width, vectors * width
    exponential = EXPONENTIALS[kind]

    @device
    def greatest(e: Any, top: Any) -> Any:
        """Return the greatest of the logits and top."""
        for i in range(count):
            top = max(top, e[i])
        return top

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
    def holds(mine: Any) -> Any:
        """Return whether the number ``mine`` classes behind ``first`` is among e."""
        return below(mine, vectors * stride) & ((mine & (stride - 1)) < width)

    @device
    def hide(e: Any, mine: Any) -> None:
        """Leave out of sums the number ``mine`` classes behind ``first``, if it is among e."""
        if holds(mine):
            for k in range(vectors):
                for u in range(width):
                    if mine == k * stride + u:
                        e[k * width + u] = -math.inf

    @device
    def exponentiate(e: Any, base: Any, extent: Any, top: Any, sharpness: Any) -> Any:
        """Turn logits into exponentials and return their sum."""
        total = kind(0)
        for k in range(vectors):
            if base + k * stride < extent:
                for u in range(width):
                    e[k * width + u] = exponential((e[k * width + u] - top) * sharpness)
                    total += e[k * width + u]
        return total

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

    return Parts(greatest, shifts, hide, exponentiate, differentiate, holds)
